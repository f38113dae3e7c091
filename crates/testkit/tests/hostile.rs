//! What somebody could send or do to harm the daemon or others: it is refused, or bounded, and the daemon goes on.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testkit::{Lab, program, within};

/// A file system of its own, taken away in the end.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until nothing more fits.
fn fill(directory: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(directory.join("FILL")).unwrap();
    for size in [1 << 16, 512, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_stops_what_is_new_and_nothing_else_and_not_for_ever() {
    let mut small = None;
    let mut lab = Lab::start_after(&program(), |lab| small = Some(Small::mount(&lab.root_directory(), "40m"))).unwrap();
    lab.run("runs", json!({ "Cmd": ["sleep", "600"] }));
    lab.create("made", json!({ "Cmd": ["true"] }));
    lab.network(json!({ "Name": "net" }));
    lab.tell("/volumes/create", json!({ "Name": "vol" }), 201);
    fill(&lab.root_directory());
    let refused = lab.post("/containers/create?name=new", json!({ "Image": "busybox", "Cmd": ["true"] })).unwrap();
    assert_eq!(refused.status, 500, "{}", refused.text());
    // The store has some room of its own, until it has none.
    let mut refusals = Vec::new();
    for attempt in 0..100 {
        let labels = json!({ "a": "b".repeat(200_000) });
        let answer = lab.post("/networks/create", json!({ "Name": format!("n{attempt}"), "Labels": labels })).unwrap();
        if answer.status != 201 {
            refusals.push(answer.message());
        }
        if refusals.len() == 5 {
            break;
        }
    }
    assert!(refusals.len() == 5 && refusals.iter().all(|m| m.to_lowercase().contains("no space left")), "{refusals:?}");
    // What goes, goes: also after a daemon that has found the disk full.
    lab.remove("made");
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(lab.status("runs"), "running");
    lab.ask("/containers/runs/stop?t=0", 204);
    lab.remove("runs");
    assert_eq!(lab.delete("/networks/net").unwrap().status, 204);
    assert_eq!(lab.delete("/volumes/vol").unwrap().status, 204);
    std::fs::remove_file(lab.root_directory().join("FILL")).unwrap();
    lab.run("again", json!({ "Cmd": ["sleep", "600"] }));
    lab.network(json!({ "Name": "net", "Labels": { "a": "b".repeat(200_000) } }));
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    let listed = lab.get("/containers/json?all=1").unwrap().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    lab.remove("again");
    lab.stop_daemon();
}

#[test]
fn nobody_else_reads_what_the_daemon_keeps() {
    let mut lab = Lab::start(&program()).unwrap();
    let id =
        lab.run("cc", json!({ "Env": ["SECRET=1"], "Cmd": ["sh", "-c", "echo secret; exec sleep 600"], "User": "99" }));
    within(Duration::from_secs(20), "it has said it", || lab.logs("cc", "").0.contains("secret"));
    assert!(lab.exec("cc", &["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]).ok().contains("localhost"));
    let (root, run) = (lab.root_directory(), lab.run_directory());
    let container = root.join("containers").join(&id);
    let log = container.join(format!("{id}-json.log"));
    let private =
        [root.join("state.redb"), root.join("schema"), root.join("lock"), run.join("keeper.log"), log.clone()];
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let check = || {
        for file in &private {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        for directory in [&root, &container, &root.join("containers"), &root.join("volumes")] {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
    };
    check();
    // What a daemon before left open is closed.
    for file in &private {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    for directory in [&root, &container] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    check();
    lab.remove("cc");
}

#[test]
fn what_cannot_be_meant_is_refused_when_it_is_created() {
    let lab = Lab::start(&program()).unwrap();
    let refused = |body: Value, words: &str| {
        let mut body = body;
        body["Image"] = "busybox".into();
        if body["Cmd"].is_null() {
            body["Cmd"] = json!(["true"]);
        }
        let answer = lab.post("/containers/create?name=xx", body.clone()).unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.message().contains(words), "{body}: {}", answer.text());
    };
    let host = |part: Value| json!({ "HostConfig": part });
    refused(host(json!([])), "HostConfig");
    refused(host(json!({ "Memory": i64::MAX })), "memory");
    refused(host(json!({ "NanoCpus": i64::MAX })), "range of CPUs is from 0.01");
    refused(host(json!({ "Binds": ["/tmp:/proc"] })), "inside /proc");
    refused(host(json!({ "Binds": ["/etc:/x:ro,rw"] })), "invalid mode: ro,rw");
    refused(host(json!({ "Tmpfs": { "/": "" } })), "destination can't be '/'");
    refused(host(json!({ "Tmpfs": { "/x": "size=-1" } })), "size=-1");
    refused(host(json!({ "CpusetMems": "77" })), "memory nodes");
    refused(host(json!({ "LogConfig": { "Type": "json-file", "Config": { "max-size": "-1" } } })), "max-size");
    refused(host(json!({ "LogConfig": { "Type": "json-file", "Config": { "max-file": "0" } } })), "max-file");
    refused(json!({ "Volumes": { "/proc": {} } }), "inside /proc");
    refused(json!({ "Cmd": ["a\0b"] }), "NUL");
    refused(json!({ "MacAddress": "ff:ff:ff:ff:ff:ff" }), "MAC address");
    let twice = json!([{ "HostPort": "8080" }, { "HostPort": "8080" }]);
    refused(host(json!({ "PortBindings": { "80/tcp": twice } })), "8080");
    for (name, options) in [
        ("a\nb", json!({})),
        ("..", json!({})),
        ("a/b", json!({})),
        ("n", json!({ "com.docker.network.container_iface_prefix": "../x" })),
        ("n", json!({ "com.docker.network.bridge.name": "eth0" })),
        ("n", json!({ "com.docker.network.bridge.name": "all" })),
        ("n", json!({ "com.docker.network.bridge.name": "a%d" })),
    ] {
        let answer = lab.post("/networks/create", json!({ "Name": name, "Options": options })).unwrap();
        assert_eq!(answer.status, 400, "{name:?} {options}: {}", answer.text());
    }
    let relative = json!({ "Name": "v", "DriverOpts": { "type": "none", "o": "bind", "device": "../etc" } });
    lab.tell("/volumes/create", relative, 400);
}

#[test]
fn nobody_is_user_4294967295() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("cc", json!({ "Cmd": ["sleep", "600"] }));
    let words = "uids and gids must be in range 0-2147483647";
    for user in ["4294967295", "0:4294967295", "2147483648", "-1"] {
        let name = format!("u{}", user.replace([':', '-'], "_"));
        lab.create(&name, json!({ "Cmd": ["id"], "User": user }));
        let refused = lab.ask(&format!("/containers/{name}/start"), 400);
        assert!(refused.message().contains(words), "{}", refused.text());
        let exec = lab.tell("/containers/cc/exec", json!({ "Cmd": ["id"], "User": user }), 201);
        let id = exec.json()["Id"].as_str().unwrap().to_owned();
        let refused = lab.post(&format!("/exec/{id}/start"), json!({})).unwrap();
        assert!(refused.text().contains(words), "{}", refused.text());
    }
}

/// Reads whatever comes until the end.
fn rest(mut stream: std::os::unix::net::UnixStream) -> String {
    use std::io::Read;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn whoever_is_still_sending_reads_the_answer() {
    use std::io::Write;
    let lab = Lab::start(&program()).unwrap();
    // Twenty megabytes to a page that does not want them.
    let length = 20 << 20;
    let head =
        format!("POST /containers/nobody/rename?name=xx HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let mut stream = testkit::http::raw(&lab.socket(), head.as_bytes()).unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        stream.write_all(&vec![b'x'; 1 << 20]).expect("somebody reads it");
    }
    assert!(rest(stream).contains("No such container: nobody"));
}

#[test]
fn a_broken_body_is_refused_in_json() {
    use std::net::Shutdown;
    let lab = Lab::start(&program()).unwrap();
    let create = "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for (request, status) in [
        (format!("{create}Content-Length: 100\r\n\r\n{{"), "400"),
        (format!("{create}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "400"),
        (format!("{create}Content-Length: 9000000\r\n\r\n{}", " ".repeat(9_000_000)), "413"),
    ] {
        let stream = testkit::http::raw(&lab.socket(), request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("{\"message\":"), "{answer}");
    }
}

/// A tar of entries: a kind, a name, a target or content.
fn tar(entries: &[(char, &str, &str)]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut names = Vec::new();
    for (kind, name, text) in entries {
        match kind {
            'd' => std::fs::create_dir_all(path(name)).unwrap(),
            'l' => std::os::unix::fs::symlink(text, path(name)).unwrap(),
            _ => std::fs::write(path(name), text).unwrap(),
        }
        names.push((*name).to_owned());
    }
    let output = Command::new("tar").args(["-c", "-C"]).arg(directory.path()).args(&names).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn an_images_symlinks_mean_what_they_mean_in_it() {
    let lab = Lab::start(&program()).unwrap();
    let image =
        tar(&[('l', "etc", "/config"), ('d', "real", ""), ('l', "l", "/real"), ('l', "dangling", "/made/by/copy")]);
    assert_eq!(lab.post_bytes("/images/create?fromSrc=-&repo=base", &image).unwrap().status, 200);
    let dockerfile = "FROM base\nCOPY --from=busybox /bin /bin\nRUN [\"/bin/busybox\", \"ln\", \"-s\", \"../real/file\", \
                      \"/l/to\"]\nCOPY x /l/x\nCOPY x /dangling/x\nCOPY x /l/to\n";
    let context = tar(&[('f', "Dockerfile", dockerfile), ('f', "x", "content")]);
    let built = lab.post_bytes("/build?t=links", &context).unwrap();
    assert!(!built.text().contains("errorDetail"), "{}", built.text());
    let command = json!(["cat", "/real/x", "/made/by/copy/x", "/real/file", "/config/hostname"]);
    lab.run("links", json!({ "Image": "links", "Hostname": "there", "Cmd": command }));
    assert_eq!(lab.wait("links"), 0);
    assert_eq!(lab.logs("links", "").0, "contentcontentcontentthere\n");
    // Nobody gets another /proc.
    let image = tar(&[('d', "bin", ""), ('l', "proc", "/elsewhere"), ('d', "elsewhere", "")]);
    assert_eq!(lab.post_bytes("/images/create?fromSrc=-&repo=noproc", &image).unwrap().status, 200);
    lab.create("noproc", json!({ "Image": "noproc", "Cmd": ["/bin/true"] }));
    let refused = lab.post("/containers/noproc/start", Value::Null).unwrap();
    assert!(refused.message().contains("which needs an ordinary directory, at /proc"), "{}", refused.text());
}

#[test]
fn a_container_that_has_ended_is_not_running_for_anybody() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("cc", json!({ "Cmd": ["true"], "Tty": true }));
    lab.wait("cc");
    let refused = lab.ask("/containers/cc/resize?h=1&w=1", 409);
    assert!(refused.message().starts_with("container ") && refused.message().ends_with(" is not running"));
}

#[test]
fn an_image_may_have_the_same_layer_twice() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile = "FROM busybox\nRUN true\nRUN true && true\nCOPY f /\nRUN rm /f\nCOPY f /\nRUN ls /f\n";
    let context = tar(&[('f', "Dockerfile", dockerfile), ('f', "f", "content")]);
    let built = lab.post_bytes("/build?t=twice", &context).unwrap();
    assert!(!built.text().contains("errorDetail"), "{}", built.text());
    let layers = lab.get("/images/twice/json").unwrap().json()["RootFS"]["Layers"].clone();
    let layers: Vec<&str> = layers.as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<&str> = layers.iter().copied().collect();
    assert!(distinct.len() < layers.len(), "{layers:?}");
    lab.run("twice", json!({ "Image": "twice", "Cmd": ["cat", "/f"] }));
    assert_eq!((lab.wait("twice"), lab.logs("twice", "").0.as_str()), (0, "content"));
}
