//! Files in and out of containers: `cp`, `diff`, `export`, `commit`, by API, docker and our own client.

use serde_json::{Value, json};
use std::process::Command;
use testkit::{Lab, program};

/// A tar of files with their owner, and what is in it.
fn tar(files: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text, owner) in files {
        let mut header = tar::Header::new_gnu();
        let is_directory = name.ends_with('/');
        header.set_entry_type(if is_directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if is_directory { 0o755 } else { 0o640 });
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_600_000_000);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The names in a tar, with the texts of files and targets of links.
fn listed(bytes: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(bytes);
    let entry = |mut entry: tar::Entry<'_, &[u8]>| {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut entry, &mut text);
        if let Ok(Some(target)) = entry.link_name() {
            text = target.display().to_string();
        }
        (entry.path().unwrap().display().to_string(), text)
    };
    archive.entries().unwrap().map(|e| entry(e.unwrap())).collect()
}

fn put(lab: &Lab, container: &str, query: &str, bytes: &[u8]) -> testkit::http::Response {
    let path = format!("/containers/{container}/archive?{query}");
    testkit::http::request(&lab.socket(), "PUT", &path, bytes).unwrap()
}

/// What `X-Docker-Container-Path-Stat` says.
fn stat(lab: &Lab, container: &str, path: &str) -> Value {
    let answer =
        testkit::http::request(&lab.socket(), "HEAD", &format!("/containers/{container}/archive?path={path}"), b"")
            .unwrap();
    assert_eq!(answer.status, 200);
    let header = answer.header("x-docker-container-path-stat").expect("the header").to_owned();
    serde_json::from_slice(&base64(&header)).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = text.bytes().filter_map(|b| LETTERS.iter().position(|l| *l == b)).collect::<Vec<_>>().into_iter();
    let mut bytes = Vec::new();
    while let (Some(a), Some(b)) = (bits.next(), bits.next()) {
        bytes.push((a << 2 | b >> 4) as u8);
        let Some(c) = bits.next() else { break };
        bytes.push((b << 4 | c >> 2) as u8);
        let Some(d) = bits.next() else { break };
        bytes.push((c << 6 | d) as u8);
    }
    bytes
}

#[test]
fn files_come_and_go_whatever_the_container_does() {
    let lab = Lab::start(&program()).unwrap();
    let secret = lab.directory().join("secret");
    std::fs::write(&secret, "the host's").unwrap();
    let host = json!({ "Binds": ["data:/data", "data:/locked:ro"], "Tmpfs": { "/mem": "" } });
    lab.create("c1", json!({ "Cmd": ["sleep", "1000"], "User": "nobody", "HostConfig": host }));

    let check = |state: &str| {
        let bytes = tar(&[("d/", "", 7), ("d/f", "hello", 7)]);
        assert_eq!(put(&lab, "c1", "path=/srv", &bytes).status, 200, "{state}");
        let got = lab.get("/containers/c1/archive?path=/srv/d").unwrap();
        assert_eq!(got.header("content-type"), Some("application/x-tar"));
        assert_eq!(listed(&got.body), [("d/".into(), String::new()), ("d/f".into(), "hello".into())], "{state}");
        let inner = lab.get("/containers/c1/archive?path=/srv/d/.").unwrap();
        assert_eq!(listed(&inner.body), [("./".into(), String::new()), ("./f".into(), "hello".into())], "{state}");
        let file = stat(&lab, "c1", "/srv/d/f");
        assert_eq!(file["name"], "f");
        assert_eq!((file["size"].as_i64(), file["mode"].as_i64()), (Some(5), Some(0o640)), "{state}");
        assert_eq!((file["mtime"].as_str(), file["linkTarget"].as_str()), (Some("2020-09-13T12:26:40Z"), Some("")));
        assert_eq!(stat(&lab, "c1", "/srv/d")["mode"].as_i64(), Some(1 << 31 | 0o755), "{state}");

        // Volumes are where the container has them, and written to only where it may.
        assert_eq!(put(&lab, "c1", "path=/data", &tar(&[(&format!("of-{state}"), "x", 0)])).status, 200, "{state}");
        let refused = put(&lab, "c1", "path=/locked", &bytes);
        assert_eq!((refused.status, refused.message()), (403, "mounted volume is marked read-only".into()), "{state}");
        let from = lab.get(&format!("/containers/c1/archive?path=/locked/of-{state}")).unwrap();
        assert_eq!(listed(&from.body)[0].1, "x", "{state}");

        // What is wrong is said in Docker's words.
        for (path, status, words) in [
            ("/none", 404, "Could not find the file /none in container c1"),
            ("/srv/d/f", 400, "extraction point is not a directory"),
        ] {
            let refused = put(&lab, "c1", &format!("path={path}"), &bytes);
            assert_eq!((refused.status, refused.message()), (status, words.into()), "{state}");
        }
        assert_eq!(lab.get("/containers/c1/archive?path=/none/x").unwrap().status, 404);
        assert_eq!(lab.get("/containers/c1/archive").unwrap().status, 400);
        let kinds = put(&lab, "c1", "path=/srv&noOverwriteDirNonDir=1", &tar(&[("d", "a file", 0)]));
        assert_eq!(
            (kinds.status, kinds.message()),
            (400, "cannot overwrite directory \"d\" with non-directory \"d\"".into())
        );

        // Links end inside, whatever they say.
        let mut link = tar::Builder::new(Vec::new());
        for (name, target) in [("out", format!("../../../../..{}", secret.display())), ("in", "../srv/d/f".into())] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            link.append_link(&mut header, name, target).unwrap();
        }
        assert_eq!(put(&lab, "c1", "path=/tmp", &link.into_inner().unwrap()).status, 200, "{state}");
        assert_eq!(stat(&lab, "c1", "/tmp/in")["linkTarget"], "/srv/d/f", "{state}");
        assert_eq!(stat(&lab, "c1", "/tmp/out")["linkTarget"], secret.display().to_string(), "{state}");
        let through = put(&lab, "c1", "path=/tmp", &tar(&[("out/x", "x", 0)]));
        assert_eq!(through.status, 200, "the way is made inside: {}", through.text());
        assert!(!secret.with_file_name("x").exists() && secret.is_file(), "{state}");
    };
    check("created");
    // An absolute link says where in the container, and not where in the directory that the archive goes to.
    let mut absolute = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    absolute.append_link(&mut header, "home", "/home").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    absolute.append_data(&mut header, "home/by-link", &b"x"[..]).unwrap();
    assert_eq!(put(&lab, "c1", "path=/srv", &absolute.into_inner().unwrap()).status, 200);
    assert_eq!(stat(&lab, "c1", "/home/by-link")["size"], 1);
    assert_eq!(lab.get("/containers/c1/archive?path=/srv/home/home").unwrap().status, 404);
    lab.ask("/containers/c1/start", 204);
    assert_eq!(lab.exec("c1", &["stat", "-c", "%u:%g %Y", "/srv/d/f"]).ok(), "7:7 1600000000", "owners stay");
    check("running");
    // A tmpfs is there as long as the container runs, and to the user means the container's.
    assert_eq!(put(&lab, "c1", "path=/mem&copyUIDGID=1", &tar(&[("own", "x", 7)])).status, 200);
    assert_eq!(lab.exec("c1", &["stat", "-c", "%u:%g", "/mem/own"]).ok(), "65534:65534");
    lab.ask("/containers/c1/pause", 204);
    check("paused");
    lab.ask("/containers/c1/unpause", 204);
    lab.ask("/containers/c1/kill", 204);
    check("exited");

    // A root that is read-only is so for clients.
    let host = json!({ "ReadonlyRootfs": true, "Binds": ["data:/data"] });
    lab.create("ro", json!({ "Cmd": ["sleep", "1000"], "HostConfig": host }));
    for _ in 0..2 {
        let refused = put(&lab, "ro", "path=/srv", &tar(&[("f", "", 0)]));
        assert_eq!((refused.status, refused.message()), (403, "container rootfs is marked read-only".into()));
        assert_eq!(put(&lab, "ro", "path=/data", &tar(&[("f", "", 0)])).status, 200);
        lab.post("/containers/ro/start", Value::Null).unwrap();
    }
}

#[test]
fn what_a_container_changed_is_listed_exported_and_committed() {
    let lab = Lab::start(&program()).unwrap();
    let script = "echo new > /srv/new; echo '#' >> /etc/passwd; rm /etc/nsswitch.conf; \
                  echo in-volume > /data/v; echo up; exec sleep 1000";
    lab.run("c1", json!({ "Cmd": ["sh", "-c", script], "Env": ["A=1"], "HostConfig": { "Binds": ["data:/data"] } }));
    lab.up("c1");
    let changes = lab.get("/containers/c1/changes").unwrap().json();
    let has = |path: &str, kind: i64| {
        let all = changes.as_array().unwrap();
        assert!(all.contains(&json!({ "Path": path, "Kind": kind })), "{path} {kind} in {changes}");
    };
    has("/srv/new", 1);
    has("/srv", 0);
    has("/etc/passwd", 0);
    has("/etc/nsswitch.conf", 2);
    assert!(!changes.to_string().contains("/data/v"), "volumes are not the container's: {changes}");
    // By which programs know what is mounted: neither an image's nor a change.
    assert_eq!(lab.exec("c1", &["readlink", "/etc/mtab"]).ok(), "/proc/mounts");
    assert!(lab.exec("c1", &["cat", "/etc/mtab"]).ok().contains(" / overlay "));
    assert!(!changes.to_string().contains("mtab"), "{changes}");

    let names = listed(&lab.get("/containers/c1/export").unwrap().body);
    let named = |name: &str| names.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str());
    assert_eq!(named("srv/new"), Some("new\n"));
    assert_eq!((named("etc/nsswitch.conf"), named("data/v")), (None, None));
    assert_eq!(named("bin/sh"), Some("busybox"));

    let body = json!({ "User": "nobody", "Labels": { "l": "1" } });
    let query =
        "container=c1&repo=made&tag=one&comment=why&author=me&changes=CMD%20cat%20%2Fsrv%2Fnew&changes=ENV%20B%3D2";
    let made = lab.tell(&format!("/commit?{query}"), body, 201).json()["Id"].as_str().unwrap().to_owned();
    let image = lab.get("/images/made:one/json").unwrap().json();
    assert_eq!(image["Id"], made);
    assert_eq!((image["Comment"].as_str(), image["Author"].as_str()), (Some("why"), Some("me")));
    assert_eq!(image["Config"]["Env"], json!(["A=1", "B=2"]));
    assert_eq!(image["Config"]["User"], "nobody");
    assert_eq!(image["Config"]["Labels"]["l"], "1");
    assert_eq!(lab.status("c1"), "running", "it was paused, and goes on");
    lab.run("again", json!({ "Image": "made:one" }));
    assert_eq!(lab.wait("again"), 0);
    assert_eq!(lab.logs("again", "").0, "new\n");

    assert_eq!(lab.tell("/commit?container=none", json!({}), 404).message(), "No such container: none");
    assert_eq!(
        lab.tell("/commit?container=c1&changes=RUN%20true", json!({}), 400).message(),
        "run is not a valid change command"
    );
    lab.tell("/commit?container=c1&repo=Bad%20Name", json!({}), 400);

    // An export is what `import` takes.
    let export = lab.get("/containers/c1/export").unwrap().body;
    let imported =
        lab.post_bytes("/images/create?fromSrc=-&repo=flat&changes=CMD%20cat%20%2Fsrv%2Fnew", &export).unwrap();
    assert_eq!(imported.status, 200, "{}", imported.text());
    lab.run("flat", json!({ "Image": "flat" }));
    lab.wait("flat");
    assert_eq!(lab.logs("flat", "").0, "new\n");
}

/// The same steps by two clients that know nothing of each other.
fn copies(lab: &Lab, cli: impl Fn(&[&str]) -> testkit::Output) {
    let local = lab.directory().join("local");
    let _ = std::fs::remove_dir_all(&local);
    std::fs::create_dir_all(local.join("tree/sub")).unwrap();
    std::fs::write(local.join("tree/sub/file"), "one\n").unwrap();
    std::os::unix::fs::symlink("sub/file", local.join("tree/link")).unwrap();
    let at = |path: &str| local.join(path).display().to_string();
    let inside = |command: &str| lab.exec("cc", &["sh", "-c", command]).ok();
    lab.run("cc", json!({ "Cmd": ["sleep", "1000"] }));

    cli(&["cp", &at("tree"), "cc:/srv"]).ok();
    assert_eq!(inside("cat /srv/tree/sub/file; readlink /srv/tree/link"), "one\nsub/file");
    cli(&["cp", &at("tree"), "cc:/srv/renamed"]).ok();
    assert_eq!(inside("cat /srv/renamed/sub/file"), "one");
    cli(&["cp", &at("tree/."), "cc:/tmp"]).ok();
    assert_eq!(inside("cat /tmp/sub/file"), "one");
    cli(&["cp", &at("tree/sub/file"), "cc:/srv/copy"]).ok();
    assert_eq!(inside("cat /srv/copy"), "one");
    cli(&["cp", "-L", &at("tree/link"), "cc:/srv/followed"]).ok();
    assert_eq!(inside("test -L /srv/followed || cat /srv/followed"), "one");
    inside("ln -s /tmp /srv/to-tmp; chmod 711 /srv/copy");
    cli(&["cp", &at("tree/sub/file"), "cc:/srv/to-tmp"]).ok();
    assert_eq!(inside("cat /tmp/file"), "one");

    cli(&["cp", "cc:/srv/tree", &at("back")]).ok();
    assert_eq!(std::fs::read_to_string(at("back/sub/file")).unwrap(), "one\n");
    assert_eq!(std::fs::read_link(at("back/link")).unwrap().to_str(), Some("sub/file"));
    cli(&["cp", "cc:/srv/tree", &at("back")]).ok();
    assert_eq!(std::fs::read_to_string(at("back/tree/sub/file")).unwrap(), "one\n");
    cli(&["cp", "cc:/srv/tree/.", &at("flat")]).ok();
    assert_eq!(std::fs::read_to_string(at("flat/sub/file")).unwrap(), "one\n");
    cli(&["cp", "cc:/srv/copy", &at("file")]).ok();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(at("file")).unwrap().permissions());
    assert_eq!((std::fs::read_to_string(at("file")).unwrap().as_str(), mode & 0o777), ("one\n", 0o711));
    cli(&["cp", "-L", "cc:/srv/tree/link", &at("plain")]).ok();
    assert!(std::fs::symlink_metadata(at("plain")).unwrap().is_file());
    let tar = cli(&["cp", "cc:/srv/copy", "-"]);
    assert!(tar.stdout.starts_with("copy\0") && tar.code == 0);

    assert_eq!(
        cli(&["cp", "cc:/none", &at("x")]).refused(),
        "Error response from daemon: Could not find the file /none in container cc"
    );
    let gone = "Error response from daemon: No such container: nobody";
    for arguments in [["cp", "nobody:/x", &at("x")], ["cp", &at("file"), "nobody:/x"], ["cp", "-L", "nobody:/x"]] {
        let more = if arguments[1] == "-L" { vec![at("x")] } else { Vec::new() };
        let arguments: Vec<&str> = arguments.into_iter().chain(more.iter().map(String::as_str)).collect();
        assert_eq!(cli(&arguments).refused(), gone, "{arguments:?}");
    }
    // Special files come along; links that lead out of where they are put do not.
    inside("mkdir /special && mkfifo /special/pipe && mknod /special/nought c 1 3 && ln -s /etc/passwd /special/abs");
    cli(&["cp", "cc:/special", &at("special")]).ok();
    let kinds = Command::new("stat").args(["-c", "%F %t:%T", &at("special/pipe"), &at("special/nought")]).output();
    assert_eq!(String::from_utf8_lossy(&kinds.unwrap().stdout), "fifo 0:0\ncharacter special file 1:3\n");
    assert_eq!(std::fs::read_link(at("special/abs")).unwrap().to_str(), Some("/etc/passwd"));
    inside("mkdir /leads && ln -s ../../out /leads/out");
    assert!(cli(&["cp", "cc:/leads", &at("leads")]).refused().contains("invalid symlink"));
    assert!(std::fs::symlink_metadata(at("leads/out")).is_err());
    assert!(cli(&["cp", &at("none"), "cc:/srv"]).refused().contains("no such file or directory"));
    assert!(cli(&["cp", &at("tree"), &at("x")]).refused().contains("must specify at least one container source"));
    assert!(cli(&["cp", "cc:/a", "cc:/b"]).refused().contains("copying between containers is not supported"));
    assert!(cli(&["cp", &at("tree"), "cc:/srv/copy"]).refused().contains("cannot copy directory"));
    lab.remove("cc");
}

#[test]
fn docker_cp_and_our_own_do_the_same() {
    let lab = Lab::start(&program()).unwrap();
    if lab.docker(&["version"]).is_some() {
        copies(&lab, |arguments| lab.docker(arguments).expect("docker"));
        lab.run("dd", json!({ "Cmd": ["sh", "-c", "echo x > /srv/x; sleep 1000"] }));
        testkit::within(std::time::Duration::from_secs(10), "it is written", || {
            lab.docker(&["diff", "dd"]).expect("docker").stdout.contains("A /srv/x")
        });
        let id = lab.docker(&["commit", "-m", "m", "-c", "CMD cat /srv/x", "dd", "by:docker"]).expect("docker").ok();
        assert!(id.starts_with("sha256:"));
        assert_eq!(lab.docker(&["run", "--rm", "by:docker"]).expect("docker").ok(), "x");
    }
    copies(&lab, |arguments| lab.isle(arguments));
}

#[test]
fn an_archive_of_a_container_that_is_removed_meanwhile_does_not_look_whole() {
    use std::io::{Read, Write};
    let lab = Lab::start(&program()).unwrap();
    for (name, path) in [("copied", "archive?path=/srv"), ("exported", "export")] {
        // More than all buffers on the way hold.
        let script = "for i in $(seq 60); do yes | head -c 262144 > /srv/f$i; done; echo up; exec sleep 1000";
        lab.run(name, json!({ "Cmd": ["sh", "-c", script] }));
        lab.up(name);
        let request = format!("GET /containers/{name}/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = testkit::http::raw(&lab.socket(), b"").unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut got = vec![0; 4096];
        stream.read_exact(&mut got).unwrap();
        lab.remove(name);
        stream.read_to_end(&mut got).unwrap();
        assert!(String::from_utf8_lossy(&got[..12]).contains(" 200"));
        // Neither the tar has an end, nor the body.
        assert!(!got.ends_with(b"\r\n0\r\n\r\n"), "{name}");
        let zeros = got.iter().rev().skip_while(|b| **b != 0).take_while(|b| **b == 0).count();
        assert!(zeros < 1024, "{name}: {zeros} zero bytes in the end");
    }
    lab.run("cli", json!({ "Cmd": ["sh", "-c", "yes | head -c 30000000 > /srv/a; echo up; exec sleep 1000"] }));
    lab.up("cli");
    let copying = std::thread::scope(|scope| {
        // It is held up by what nobody reads.
        let copying = scope.spawn(|| {
            let script = format!("set -o pipefail; {} cp cli:/srv - | (sleep 2; cat > /dev/null)", program().display());
            lab.on_host(Command::new("bash").args(["-c", &script]).env("ISLE_HOST", lab.docker_host()))
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        lab.remove("cli");
        copying.join().unwrap()
    });
    assert_ne!(copying.code, 0, "{}", copying.stderr);
}
