//! What outlives a container, and what is put over its root file system.

use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Lab, lab, within};

/// Runs a shell command in a container of its own; its output.
fn sh(lab: &Lab, script: &str, host: Value) -> String {
    let id = lab.run("", json!({ "Cmd": ["sh", "-c", script], "HostConfig": host }));
    let code = lab.wait(&id);
    let (stdout, stderr) = lab.logs(&id, "");
    lab.remove(&id);
    if code == 0 { stdout } else { format!("{code}: {stderr}") }
}

fn names(lab: &Lab) -> Vec<String> {
    let listed = lab.get("/volumes").unwrap().json();
    listed["Volumes"].as_array().unwrap().iter().map(|v| v["Name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_named_volume_outlives_its_containers() {
    let lab = lab();
    let made = lab.tell("/volumes/create", json!({ "Name": "data", "Labels": { "a": "b" } }), 201).json();
    assert_eq!((made["Driver"].as_str(), made["Scope"].as_str()), (Some("local"), Some("local")));
    assert_eq!(lab.tell("/volumes/create", json!({ "Name": "data" }), 201).json()["Labels"], json!({ "a": "b" }));
    assert_eq!(sh(&lab, "echo kept >/data/x", json!({ "Binds": ["data:/data"] })), "");
    assert_eq!(
        sh(&lab, "cat /data/x; echo no >/data/x", json!({ "Binds": ["data:/data:ro"] })).split(':').next(),
        Some("1")
    );
    assert_eq!(
        sh(&lab, "cat /d/x", json!({ "Mounts": [{ "Type": "volume", "Source": "data", "Target": "/d" }] })),
        "kept\n"
    );
    let user =
        lab.create("user", json!({ "Cmd": ["true"], "HostConfig": { "Binds": ["data:/data", "other:/other"] } }));
    assert_eq!(names(&lab), ["data", "other"]);
    let busy = lab.delete("/volumes/data").unwrap();
    assert_eq!((busy.status, busy.message()), (409, format!("remove data: volume is in use - [{user}]")));
    lab.remove("user");
    assert_eq!(lab.delete("/volumes/data").unwrap().status, 204);
    let gone = lab.get("/volumes/data").unwrap();
    assert_eq!((gone.status, gone.message().as_str()), (404, "get data: no such volume"));
    assert_eq!(lab.delete("/volumes/data").unwrap().status, 404);
    assert_eq!(lab.delete("/volumes/data?force=1").unwrap().status, 204);
}

#[test]
fn a_new_volume_takes_what_the_image_has_at_its_place() {
    let lab = lab();
    assert_eq!(sh(&lab, "cat /etc/group | wc -l; ls /etc | wc -l", json!({ "Binds": ["etc:/etc"] })), "3\n7\n");
    assert_eq!(
        sh(&lab, "ls /v", json!({ "Binds": ["etc:/v"] })),
        "group\nhostname\nhosts\nmtab\nnsswitch.conf\npasswd\nresolv.conf\n"
    );
    assert_eq!(sh(&lab, "ls /etc/passwd", json!({ "Binds": ["empty:/etc:nocopy"] })).split(':').next(), Some("1"));
    // A second container does not bring back what the first one deleted.
    assert_eq!(sh(&lab, "rm /v/passwd", json!({ "Binds": ["etc:/v"] })), "");
    assert_eq!(
        sh(&lab, "ls /v", json!({ "Binds": ["etc:/v"] })),
        "group\nhostname\nhosts\nmtab\nnsswitch.conf\nresolv.conf\n"
    );
}

#[test]
fn anonymous_volumes_belong_to_their_container() {
    let lab = lab();
    let make = |name: &str| lab.create(name, json!({ "Cmd": ["true"], "Volumes": { "/data": {} } }));
    make("aa");
    let first = names(&lab).pop().unwrap();
    assert_eq!(first.len(), 64);
    // Another may use it by its name; it is not the other's.
    lab.create("bb", json!({ "Cmd": ["true"], "HostConfig": { "Binds": [format!("{first}:/data")] } }));
    assert_eq!(lab.delete("/containers/aa?v=1").unwrap().status, 204);
    assert_eq!(names(&lab), [first.as_str()], "somebody uses it");
    lab.remove("bb");
    assert_eq!(names(&lab), [first.as_str()], "it was not made for this one");
    make("cc");
    assert_eq!(lab.delete("/containers/cc").unwrap().status, 204);
    assert_eq!(names(&lab).len(), 2, "without v it stays");
    lab.tell("/volumes/create", json!({ "Name": "named" }), 201);
    let pruned = lab.ask("/volumes/prune", 200).json();
    assert_eq!(pruned["VolumesDeleted"].as_array().unwrap().len(), 2);
    assert_eq!(names(&lab), ["named"]);
    lab.ask("/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", 200);
    assert!(names(&lab).is_empty());
}

#[test]
fn a_create_that_fails_leaves_no_volume() {
    let lab = lab();
    let body = json!({
        "Image": "busybox", "Cmd": ["true"], "Volumes": { "/data": {} },
        "HostConfig": { "Binds": ["aa:/aa", "/proc/nosuch/x:/bb"] },
    });
    let failed = lab.tell("/containers/create?name=x1", body, 500).message();
    assert!(failed.contains("error while creating mount source path '/proc/nosuch/x'"), "{failed}");
    assert_eq!(names(&lab), ["aa"], "a named one is the client's");
    assert_eq!(lab.status("x1"), "gone");
    assert_eq!(lab.get("/containers/json?all=1").unwrap().json(), json!([]));
    let leftovers = || std::fs::read_dir(lab.root_directory().join("images/rootfs")).unwrap().count();
    within(Duration::from_secs(5), "no file system is left", || leftovers() == 0);
}

#[test]
fn binds_and_tmpfs_are_what_was_asked_for() {
    let lab = lab();
    let source = lab.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "hello\n").unwrap();
    let path = source.display();
    assert_eq!(sh(&lab, "cat /m/file; echo made >/m/new", json!({ "Binds": [format!("{path}:/m")] })), "hello\n");
    assert_eq!(std::fs::read_to_string(source.join("new")).unwrap(), "made\n");
    let strict = json!({ "Mounts": [{ "Type": "bind", "Source": format!("{path}/file"), "Target": "/etc/file", "ReadOnly": true }] });
    assert_eq!(sh(&lab, "cat /etc/file; ! echo x 2>/dev/null >/etc/file", strict), "hello\n");
    // `-v` makes what is missing, `--mount` does not.
    sh(&lab, "true", json!({ "Binds": [format!("{path}/deep/er:/m")] }));
    assert!(source.join("deep/er").is_dir());
    let missing = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Mounts": [{ "Type": "bind", "Source": format!("{path}/nosuch"), "Target": "/m" }] } });
    let refused = lab.tell("/containers/create", missing, 400).message();
    assert_eq!(
        refused,
        format!("invalid mount config for type \"bind\": bind source path does not exist: {path}/nosuch")
    );
    let tmpfs = json!({ "Tmpfs": { "/t": "size=1m,mode=700" }, "Mounts": [{ "Type": "tmpfs", "Target": "/u", "TmpfsOptions": { "SizeBytes": 2097152 } }] });
    let seen = sh(&lab, "df -k /t /u | awk 'NR>1{print $2}'; stat -c %a /t; touch /t/x /u/x", tmpfs);
    assert_eq!(seen, "1024\n2048\n700\n");
    let both = json!({ "Binds": [format!("{path}:/b")], "Tmpfs": { "/b/": "" } });
    let refused = lab.tell("/containers/create", json!({ "Image": "busybox", "HostConfig": both }), 400).message();
    assert_eq!(refused, "Duplicate mount point: /b");
    // One over the other, in any order.
    let nested = json!({ "Binds": [format!("{path}:/m/in"), "outer:/m"] });
    assert_eq!(sh(&lab, "cat /m/in/file", nested), "hello\n");
}

#[test]
fn what_is_to_be_shared_has_to_be_shared_by_the_host() {
    let lab = lab();
    let source = lab.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new("mount");
        lab.on_host(command.args(arguments).arg(&source)).ok();
    };
    mount(&["-t", "tmpfs", "none"]);
    let path = source.display();
    let start = |mode: &str, status: u16| {
        let id = lab.create("", json!({ "Cmd": ["true"], "HostConfig": { "Binds": [format!("{path}:/m:{mode}")] } }));
        lab.ask(&format!("/containers/{id}/start"), status).text()
    };
    let refused = |needed: &str| format!("path {path} is mounted on {path} but it is not a {needed} mount");
    mount(&["--make-private"]);
    for (mode, needed) in [("rshared", "shared"), ("slave", "shared or slave")] {
        let said = start(mode, 500);
        assert!(said.contains(&refused(needed)), "{said}");
    }
    start("rprivate", 204);
    mount(&["--make-shared"]);
    start("rshared", 204);
    start("rslave", 204);
    lab.on_host(std::process::Command::new("umount").arg("-l").arg(&source)).ok();
}

/// What is mounted below the lab's directory on the host.
fn mounted(lab: &Lab) -> usize {
    let below = lab.root_directory().display().to_string();
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(&below)).count()
}

#[test]
fn volumes_with_options_are_mounted_as_long_as_they_are_used() {
    let lab = lab();
    let make = |name: &str, options: Value| lab.post("/volumes/create", json!({ "Name": name, "DriverOpts": options }));
    let made = |name: &str, options: Value| assert_eq!(make(name, options).unwrap().status, 201, "{name}");
    made("mem", json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7,mode=750" }));
    let stat = sh(&lab, "stat -c '%u %a' /m; df -k /m | tail -1 | awk '{print $2}'", json!({ "Binds": ["mem:/m"] }));
    assert_eq!(stat, "7 750\n1024\n");
    assert_eq!(mounted(&lab), 0, "nobody uses it");

    // Two share it, and it goes with the last.
    let host = json!({ "Binds": ["mem:/m"] });
    lab.run("one", json!({ "Cmd": ["sleep", "1000"], "HostConfig": host }));
    lab.run("two", json!({ "Cmd": ["sleep", "1000"], "HostConfig": host }));
    lab.exec("one", &["sh", "-c", "echo shared > /m/f"]).ok();
    lab.remove("one");
    assert_eq!(lab.exec("two", &["cat", "/m/f"]).ok(), "shared");
    assert_eq!(mounted(&lab), 1);
    lab.ask("/containers/two/kill", 204);
    within(Duration::from_secs(10), "it is unmounted", || mounted(&lab) == 0);
    lab.remove("two");

    // A directory of the host's is never removed with its volume.
    let data = lab.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("f"), "the host's\n").unwrap();
    made("bound", json!({ "type": "none", "device": data, "o": "bind" }));
    assert_eq!(sh(&lab, "cat /b/f; echo new > /b/g", json!({ "Binds": ["bound:/b"] })), "the host's\n");
    assert_eq!(sh(&lab, "cat /b/f; touch /b/h", json!({ "Binds": ["bound:/b:ro"] })).lines().count(), 1);
    assert_eq!(lab.delete("/volumes/bound").unwrap().status, 204);
    assert_eq!(std::fs::read_to_string(data.join("g")).unwrap(), "new\n");

    // Files are copied to where the container would have them, whether or not it runs.
    made("again", json!({ "type": "none", "device": data, "o": "bind" }));
    lab.create("stopped", json!({ "Cmd": ["true"], "HostConfig": { "Binds": ["again:/b"] } }));
    let got = lab.get("/containers/stopped/archive?path=/b/f").unwrap();
    assert!(got.text().contains("the host's"), "{}", got.text());
    assert_eq!(mounted(&lab), 0);
    lab.remove("stopped");

    // What cannot be mounted says why, and the container is as it was.
    made("gone", json!({ "type": "none", "device": "/nothing/there", "o": "bind" }));
    lab.create("fails", json!({ "Cmd": ["true"], "HostConfig": { "Binds": ["gone:/g"] } }));
    let refused = lab.ask("/containers/fails/start", 500).message();
    assert!(refused.contains("failed to mount local volume") && refused.contains("no such file"), "{refused}");
    assert_eq!(lab.status("fails"), "created");
    for (options, words) in [
        (json!({ "colour": "red" }), "invalid option: \"colour\""),
        (json!({ "type": "tmpfs" }), "missing required option: \"device\""),
    ] {
        let refused = make("bad", options).unwrap();
        assert_eq!((refused.status, refused.message()), (400, format!("create bad: {words}")));
    }
    // `--mount` makes a volume with what it says.
    let options =
        json!({ "Labels": { "a": "b" }, "DriverConfig": { "Options": { "type": "tmpfs", "device": "tmpfs" } } });
    let mount = json!({ "Type": "volume", "Source": "new", "Target": "/m", "VolumeOptions": options });
    assert!(sh(&lab, "grep ' /m tmpfs' /proc/mounts", json!({ "Mounts": [mount] })).starts_with("tmpfs"));
    let shown = lab.get("/volumes/new").unwrap().json();
    assert_eq!((shown["Labels"]["a"].as_str(), shown["Options"]["type"].as_str()), (Some("b"), Some("tmpfs")));
}

#[test]
fn a_part_of_a_volume_is_mounted_and_never_what_is_outside() {
    let lab = lab();
    let binds = json!({ "Binds": ["vv:/v"] });
    sh(
        &lab,
        "mkdir -p /v/a/b; echo part > /v/a/b/f; ln -s / /v/root; ln -s /etc /v/etc; echo x > /v/file",
        binds.clone(),
    );
    let part = |path: &str| {
        let options = json!({ "Subpath": path });
        json!({ "Mounts": [{ "Type": "volume", "Source": "vv", "Target": "/m", "VolumeOptions": options }] })
    };
    assert_eq!(sh(&lab, "cat /m/f; echo more > /m/g", part("a/b")), "part\n");
    assert_eq!(sh(&lab, "cat /v/a/b/g", binds), "more\n");
    assert_eq!(sh(&lab, "cat /m/file", part("root")), "x\n", "an absolute symlink ends in the volume");
    let tell = |path: &str, name: &str| {
        lab.post(&format!("/containers/create?name={name}"), json!({ "Image": "busybox", "HostConfig": part(path) }))
            .unwrap()
    };
    assert_eq!(tell("../x", "up").status, 400);
    assert_eq!(tell("/x", "abs").status, 400);
    for (path, name) in [("etc", "etc"), ("none", "none"), ("file", "file")] {
        assert_eq!(tell(path, name).status, 201);
        lab.ask(&format!("/containers/{name}/start"), 400);
    }
    assert_eq!(mounted(&lab), 0, "nothing stays");
}

#[test]
fn volumes_come_from_other_containers() {
    let lab = lab();
    let host = json!({ "Binds": ["data:/data", "/etc/hostname:/host:ro"], "Tmpfs": { "/t": "" } });
    let body = json!({ "Cmd": ["sh", "-c", "echo a > /anon/f; echo d > /data/f; echo up; sleep 1000"], "HostConfig": host,
                       "Volumes": { "/anon": {} } });
    lab.run("source", body);
    lab.up("source");
    let from = |texts: &[&str], binds: &[&str]| json!({ "VolumesFrom": texts, "Binds": binds });
    assert_eq!(sh(&lab, "cat /anon/f /data/f; test -s /host && test ! -e /t", from(&["source"], &[])), "a\nd\n");
    assert!(sh(&lab, "touch /data/x", from(&["source:ro"], &[])).contains("Read-only"));
    assert_eq!(sh(&lab, "ls /data", from(&["source"], &["other:/data"])), "", "one's own comes first");
    for (text, words) in [("nobody", "No such container: nobody"), ("source:zz", "invalid mode: zz")] {
        let refused =
            lab.tell("/containers/create", json!({ "Image": "busybox", "HostConfig": from(&[text], &[]) }), 400);
        assert_eq!(refused.message(), words);
    }
    // The anonymous volume stays as long as somebody has it, and goes with the last.
    lab.create("user", json!({ "Cmd": ["true"], "HostConfig": from(&["source"], &[]) }));
    let anonymous =
        lab.inspect("user")["Mounts"].as_array().unwrap().iter().find(|m| m["Destination"] == "/anon").unwrap()["Name"]
            .as_str()
            .unwrap()
            .to_owned();
    lab.remove("user");
    assert!(names(&lab).contains(&anonymous));
    lab.create("last", json!({ "Cmd": ["cat", "/anon/f"], "HostConfig": from(&["source"], &[]) }));
    lab.remove("source");
    assert!(names(&lab).contains(&anonymous));
    lab.ask("/containers/last/start", 204);
    assert_eq!((lab.wait("last"), lab.logs("last", "").0.as_str()), (0, "a\n"));
    lab.remove("last");
    assert_eq!(names(&lab), ["data", "other"]);
}

#[test]
fn a_removal_that_the_daemon_does_not_survive_happens_or_does_not() {
    const FILES: usize = 4000;
    let mut lab = lab();
    let fill = format!("cd /v; i=0; while [ $i -lt {FILES} ]; do : >$i; i=$((i+1)); done");
    let count = |lab: &Lab| sh(lab, "ls /v | wc -l", json!({ "Binds": ["kept:/v"] }));
    let mut removed = 0;
    for pause in [0, 2, 5, 10, 20, 40, 80] {
        sh(&lab, &fill, json!({ "Binds": ["kept:/v"] }));
        let socket = lab.socket();
        let asking = std::thread::spawn(move || testkit::http::request(&socket, "DELETE", "/volumes/kept", b""));
        // In the middle of it, as far as a clock can tell.
        std::thread::sleep(Duration::from_millis(pause));
        lab.kill_daemon();
        let _ = asking.join().unwrap();
        lab.start_daemon().unwrap();
        let directory = lab.directory().join("root/volumes");
        let left = || std::fs::read_dir(&directory).unwrap().count();
        if names(&lab).is_empty() {
            removed += 1;
            within(Duration::from_secs(10), "nothing is left of it", || left() == 0);
            assert_eq!(count(&lab), "0\n", "after {pause} ms");
        } else {
            assert_eq!((count(&lab), left()), (format!("{FILES}\n"), 1), "after {pause} ms");
        }
        assert_eq!(lab.delete("/volumes/kept").unwrap().status, 204);
        assert_eq!(left(), 0);
    }
    assert!(removed > 0, "none was removed in time");
}
