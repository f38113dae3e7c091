//! What outlives a container, and what is put over its root file system.

use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Lab, program, within};

fn lab() -> Lab {
    Lab::start(&program()).unwrap()
}

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
    assert_eq!(sh(&lab, "cat /etc/group | wc -l; ls /etc | wc -l", json!({ "Binds": ["etc:/etc"] })), "3\n6\n");
    assert_eq!(
        sh(&lab, "ls /v", json!({ "Binds": ["etc:/v"] })),
        "group\nhostname\nhosts\nnsswitch.conf\npasswd\nresolv.conf\n"
    );
    assert_eq!(sh(&lab, "ls /etc/passwd", json!({ "Binds": ["empty:/etc:nocopy"] })).split(':').next(), Some("1"));
    // A second container does not bring back what the first one deleted.
    assert_eq!(sh(&lab, "rm /v/passwd", json!({ "Binds": ["etc:/v"] })), "");
    assert_eq!(
        sh(&lab, "ls /v", json!({ "Binds": ["etc:/v"] })),
        "group\nhostname\nhosts\nnsswitch.conf\nresolv.conf\n"
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
    // One over the other, in any order.
    let nested = json!({ "Binds": [format!("{path}:/m/in"), "outer:/m"] });
    assert_eq!(sh(&lab, "cat /m/in/file", nested), "hello\n");
}
