//! What suites of clients rely on, and what no other test here asked for. docs/clients.md lists the suites.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::Duration;
use testkit::{Lab, http, program, within};

/// A command in a container, created with these options; its id.
fn exec(lab: &Lab, container: &str, body: Value) -> String {
    lab.tell(&format!("/containers/{container}/exec"), body, 201).json()["Id"].as_str().unwrap().to_owned()
}

/// Some read the head of an answer through a buffer, and the stream beside that buffer.
#[test]
fn a_stream_does_not_come_together_with_its_head() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("box", json!({ "Cmd": ["sleep", "600"] }));
    let id = exec(&lab, "box", json!({ "Cmd": ["echo", "hello"], "AttachStdout": true }));
    let request = format!(
        "POST /exec/{id}/start HTTP/1.1\r\nHost: isle\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let mut stream = http::raw(&lab.socket(), request.as_bytes()).unwrap();
    // The command has ended, so that all it said could be here.
    let ended = || lab.get(&format!("/exec/{id}/json")).is_ok_and(|r| r.json()["ExitCode"] == 0);
    within(Duration::from_secs(20), "the command ends", ended);
    let mut first = [0; 8192];
    let length = stream.read(&mut first).unwrap();
    let first = String::from_utf8_lossy(&first[..length]).into_owned();
    assert!(first.starts_with("HTTP/1.1 101") && first.ends_with("\r\n\r\n"), "{first:?}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(http::demultiplex(&rest).0, "hello\n");

    // Whether frames are wanted is said by who starts a command, not by who created it.
    let terminal = json!({ "Cmd": ["echo", "hello"], "AttachStdout": true, "Tty": true });
    let framed = lab.open(&format!("/exec/{}/start", exec(&lab, "box", terminal.clone())), "{}");
    assert!(framed.head.contains("application/vnd.docker.multiplexed-stream"), "{}", framed.head);
    assert_eq!(http::demultiplex(&framed.rest()).0, "hello\r\n");
    let raw = lab.open(&format!("/exec/{}/start", exec(&lab, "box", terminal)), r#"{"Tty":true}"#);
    assert!(raw.head.contains("application/vnd.docker.raw-stream"), "{}", raw.head);
    assert_eq!(raw.rest(), b"hello\r\n");
}

#[test]
fn a_websocket_carries_the_bytes_of_a_container_both_ways() {
    let lab = Lab::start(&program()).unwrap();
    lab.create("cat", json!({ "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true }));
    let request = "GET /v1.45/containers/cat/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: isle\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut socket = http::raw(&lab.socket(), request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    // The answer to the example of RFC 6455.
    assert!(head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    lab.ask("/containers/cat/start", 204);
    // A text message of five bytes, masked with zeros.
    socket.write_all(b"\x81\x85\0\0\0\0moin\n").unwrap();
    let mut message = [0; 7];
    socket.read_exact(&mut message).unwrap();
    assert_eq!(&message, b"\x82\x05moin\n");
    // A closing message is the end of the input, and the container's end that of the socket.
    socket.write_all(b"\x88\x80\0\0\0\0").unwrap();
    assert_eq!(lab.wait("cat"), 0);
    let plain = lab.get("/containers/cat/attach/ws?stream=1").unwrap();
    assert_eq!(plain.status, 400, "{}", plain.text());
}

#[test]
fn answers_have_what_clients_of_docker_look_for() {
    let lab = Lab::start(&program()).unwrap();
    // No swarm: docker-py takes 503 to a leave for 'there is none'.
    assert_eq!(lab.ask("/swarm/leave?force=1", 503).json()["message"], "This node is not part of a swarm");
    for path in ["/services/create", "/secrets/create", "/configs/create", "/swarm/update"] {
        let said = lab.ask(path, 503).text();
        assert!(said.contains("This node is not a swarm manager"), "{path}: {said}");
    }
    assert!(lab.ask("/swarm/init", 503).text().contains("Isle has no swarm"));

    // A damaged archive is told of inside the stream.
    let loaded = lab.post_bytes("/images/load", b"abc").unwrap();
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    assert!(loaded.json()["errorDetail"]["message"].is_string(), "{}", loaded.text());

    // Fields that are there though they are empty.
    let image = |version: &str| lab.get(&format!("/{version}/images/busybox/json")).unwrap().json()["Config"].clone();
    let (new, old) = (image("v1.50"), image("v1.49"));
    assert_eq!((new.get("OnBuild"), new.get("Hostname")), (Some(&Value::Null), None));
    assert_eq!((old.get("OnBuild"), old.get("Hostname")), (Some(&Value::Null), Some(&json!(""))));
    assert_eq!(new["Cmd"], json!(["sh"]));
    // Without it Debian's docker-compose cannot make a container anew.
    let request = "GET /v1.51/images/busybox/json HTTP/1.1\r\nHost: isle\r\nConnection: close\r\n\
                   User-Agent: docker-compose/1.29.2 docker-py/5.0.3\r\n\r\n";
    let mut said = String::new();
    http::raw(&lab.socket(), request.as_bytes()).unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("\"ContainerConfig\":{"), "{said}");

    // When it ended before stays known.
    lab.run("twice", json!({ "Cmd": ["sleep", "600"] }));
    assert_eq!(lab.inspect("twice")["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    lab.ask("/containers/twice/restart?t=0", 204);
    assert_ne!(lab.inspect("twice")["State"]["FinishedAt"], "0001-01-01T00:00:00Z");

    // Intermediate images are images.
    let all = lab.get("/images/json?all=1").unwrap().json().as_array().unwrap().len();
    assert_eq!(lab.get("/info").unwrap().json()["Images"], all);

    assert_eq!(lab.ask("/volumes/prune", 200).json()["VolumesDeleted"], json!([]));

    // An account that is none is nobody: the answer is about the image.
    let request = "POST /images/nobody.invalid/x/push HTTP/1.1\r\nHost: isle\r\nX-Registry-Auth: FOOBAR\r\n\
                   Connection: close\r\nContent-Length: 0\r\n\r\n";
    let mut said = String::new();
    http::raw(&lab.socket(), request.as_bytes()).unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("An image does not exist locally with the tag"), "{said}");

    // The runtime, where docker-py says it.
    lab.create("asked", json!({ "Cmd": ["true"], "Runtime": "runc" }));
    assert_eq!(lab.inspect("asked")["HostConfig"]["Runtime"], "runc");
}

/// docker-py has names of its own for some fields, and both it and Compose compare what they sent with what is shown.
#[test]
fn what_was_asked_for_is_shown_as_it_was_asked() {
    let lab = Lab::start(&program()).unwrap();
    let options =
        |body: Value| lab.get(&format!("/networks/{}", lab.network(body))).unwrap().json()["IPAM"]["Options"].clone();
    let pools = json!([{ "Subnet": "10.77.0.0/24" }]);
    assert_eq!(options(json!({ "Name": "silent", "IPAM": { "Driver": "default", "Config": pools } })), Value::Null);
    assert_eq!(options(json!({ "Name": "empty", "IPAM": { "Options": {} } })), json!({}));

    let host = json!({
        "NetworkMode": "silent", "CPURealtimeRuntime": 0, "Mounts": [
            { "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 5368709 } },
        ],
    });
    lab.create("box", json!({ "Cmd": ["true"], "MacAddress": "02:42:ac:11:65:43", "HostConfig": host }));
    let shown = lab.inspect("box");
    assert_eq!(shown["HostConfig"]["Mounts"][0]["TmpfsOptions"], json!({ "SizeBytes": 5368709 }));
    assert_eq!(shown["Config"]["MacAddress"], "02:42:ac:11:65:43");

    for (platform, status) in [("foo", 400), ("linux/", 400)] {
        let pulled =
            lab.post(&format!("/images/create?fromImage=hello&tag=1&platform={platform}"), Value::Null).unwrap();
        assert_eq!(pulled.status, status, "{}", pulled.text());
    }
    let pulled = lab.post("/images/create?fromImage=hello&tag=1&platform=foo", Value::Null).unwrap();
    assert!(
        pulled.message().contains("unknown operating system or architecture: invalid argument"),
        "{}",
        pulled.text()
    );

    // A tag beside the name counts, and one in the name gives way.
    let pushed = lab.ask("/images/busybox:latest/push?tag=other", 404);
    assert!(pushed.message().contains("busybox:other"), "{}", pushed.text());
}

#[test]
fn a_legacy_link_is_removed_by_its_name() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("db", json!({ "Cmd": ["sleep", "600"] }));
    lab.run("app", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "Links": ["db:store"] } }));
    let hosts = |lab: &Lab| lab.exec("app", &["cat", "/etc/hosts"]).ok();
    assert!(hosts(&lab).contains("store"));
    let remove = |path: &str| lab.delete(path).unwrap().status;
    assert_eq!(remove("/containers/app/store"), 404);
    assert_eq!(remove("/containers/app/other?link=1"), 404);
    assert_eq!(remove("/containers/app/store?link=1"), 204);
    assert_eq!(lab.inspect("app")["HostConfig"]["Links"], Value::Null);
    lab.ask("/containers/app/restart?t=0", 204);
    assert!(!hosts(&lab).contains("store"));
    assert_eq!(lab.status("db"), "running");
}
