//! Streams: attach, logs and events, as docker and others use them.

use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use testkit::http::{demultiplex, raw};
use testkit::{lab, within};

const ALL: &str = "stream=1&stdin=1&stdout=1&stderr=1";

#[test]
fn a_client_that_attaches_before_the_start_misses_nothing() {
    let lab = lab();
    lab.create(
        "cc",
        json!({ "Cmd": ["sh", "-c", "echo out; echo err >&2; cat; exit 3"], "OpenStdin": true, "StdinOnce": true }),
    );
    let mut stream = lab.open(&format!("/containers/cc/attach?{ALL}"), "");
    assert!(
        stream.head.contains("101") && stream.head.contains("application/vnd.docker.multiplexed-stream"),
        "{}",
        stream.head
    );
    stream.send(b"early\n");
    lab.ask("/containers/cc/start", 204);
    stream.send(b"late\n");
    stream.finish_input();
    let (out, err) = demultiplex(&stream.rest());
    assert_eq!((out.as_str(), err.as_str()), ("out\nearly\nlate\n", "err\n"));
    assert_eq!(lab.wait("cc"), 3);
}

#[test]
fn without_an_upgrade_header_the_stream_comes_all_the_same() {
    let lab = lab();
    lab.create("cc", json!({ "Cmd": ["sh", "-c", "read x; echo got $x"], "OpenStdin": true, "StdinOnce": true }));
    let mut stream = lab.open_plainly(&format!("/containers/cc/attach?{ALL}"), "");
    assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
    lab.ask("/containers/cc/start", 204);
    stream.send(b"this\n");
    assert_eq!(demultiplex(&stream.rest()).0, "got this\n");
}

#[test]
fn clients_of_a_start_that_fails_are_told_by_the_end_of_their_stream() {
    let lab = lab();
    lab.create("cc", json!({ "Cmd": ["/nosuch"] }));
    let stream = lab.open(&format!("/containers/cc/attach?{ALL}"), "");
    lab.ask("/containers/cc/start", 400);
    assert_eq!(stream.rest(), b"");
    let stream = lab.open(&format!("/containers/cc/attach?{ALL}"), "");
    lab.remove("cc");
    assert_eq!(stream.rest(), b"");
}

#[test]
fn a_terminal_is_one_stream_and_is_left_by_keys() {
    let lab = lab();
    lab.run("tty", json!({ "Cmd": ["sh"], "Tty": true, "OpenStdin": true }));
    let mut first = lab.open(&format!("/containers/tty/attach?{ALL}"), "");
    assert!(first.head.contains("application/vnd.docker.raw-stream"), "{}", first.head);
    lab.ask("/containers/tty/resize?h=33&w=101", 200);
    first.send(b"stty size\n");
    first.until("33 101\r\n");
    first.send(b"\x10\x11");
    first.rest();
    assert_eq!(lab.status("tty"), "running");
    let mut own = lab.open(&format!("/containers/tty/attach?{ALL}&detachKeys=ctrl-a,x"), "");
    own.send(b"echo a\x10b\n");
    own.until("b\r\n");
    own.send(b"\x01x");
    own.rest();
    assert_eq!(lab.status("tty"), "running");
    let refused = lab.ask(&format!("/containers/tty/attach?{ALL}&detachKeys=ctrl-xyz"), 400).message();
    assert!(refused.contains("ctrl-xyz"), "{refused}");
    // Two clients see the same; the shell ends, and both hear it.
    let (mut one, two) = (
        lab.open(&format!("/containers/tty/attach?{ALL}"), ""),
        lab.open(&format!("/containers/tty/attach?{ALL}"), ""),
    );
    one.send(b"echo b''oth; exit 5\n");
    assert!(String::from_utf8_lossy(&one.rest()).contains("both\r\n"));
    assert!(String::from_utf8_lossy(&two.rest()).contains("both\r\n"));
    assert_eq!(lab.wait("tty"), 5);
    let logged = lab.get("/containers/tty/logs?stdout=1").unwrap();
    assert!(logged.text().contains("both\r\n"), "a terminal's log is raw: {:?}", logged.text());
}

#[test]
fn a_terminal_is_left_and_entered_again_also_if_its_input_is_for_one() {
    let lab = lab();
    lab.run("tty", json!({ "Cmd": ["sh"], "Tty": true, "OpenStdin": true, "StdinOnce": true }));
    for round in ["one", "two"] {
        let mut stream = lab.open(&format!("/containers/tty/attach?{ALL}"), "");
        stream.send(format!("echo {round} $((40+2))\n").as_bytes());
        stream.until(&format!("{round} 42\r\n"));
        stream.send(b"\x10\x11");
        stream.rest();
    }
    // One who just hangs up does not end it either.
    drop(lab.open(&format!("/containers/tty/attach?{ALL}"), ""));
    let mut last = lab.open(&format!("/containers/tty/attach?{ALL}"), "");
    last.send(b"exit 5\n");
    last.rest();
    assert_eq!(lab.wait("tty"), 5);
}

#[test]
fn stdin_stays_open_for_the_next_client_unless_it_is_for_one() {
    let lab = lab();
    lab.run("cc", json!({ "Cmd": ["sh", "-c", "while read x; do echo $x; done; echo eof"], "OpenStdin": true }));
    for word in ["one", "two"] {
        let mut stream = lab.open(&format!("/containers/cc/attach?{ALL}"), "");
        stream.send(format!("{word}\n").as_bytes());
        stream.until(&format!("{word}\n"));
    }
    assert_eq!(lab.logs("cc", "").0, "one\ntwo\n");
    // Output alone, and the past before it.
    let stream = lab.open("/containers/cc/attach?stream=1&stdout=1&logs=1", "");
    lab.ask("/containers/cc/kill", 204);
    assert_eq!(demultiplex(&stream.rest()).0, "one\ntwo\n");
}

#[test]
fn logs_are_read_in_part_and_followed() {
    let lab = lab();
    lab.run(
        "cc",
        json!({ "Cmd": ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; sleep 0.3; printf partial"] }),
    );
    lab.wait("cc");
    assert_eq!(lab.logs("cc", ""), ("line 1\nline 2\nline 3\nline 4\nline 5\npartial".into(), "bad\n".into()));
    assert_eq!(lab.logs("cc", "tail=2"), ("partial".into(), "bad\n".into()));
    assert_eq!(lab.logs("cc", "tail=0"), (String::new(), String::new()));
    assert_eq!(lab.logs("cc", "tail=all").0.lines().count(), 6);
    let only = lab.get("/containers/cc/logs?stderr=1").unwrap();
    assert_eq!(demultiplex(&only.body), (String::new(), "bad\n".into()));
    let stamped = lab.logs("cc", "timestamps=1&tail=1").0;
    let (stamp, text) = stamped.split_once(' ').unwrap();
    assert_eq!((text, stamp.len(), stamp.ends_with('Z')), ("partial", "2026-01-01T00:00:00.000000000Z".len(), true));
    assert_eq!(lab.logs("cc", &format!("since={stamp}&tail=all")).0, "partial");
    assert_eq!(lab.logs("cc", "since=4102444800").0, "");
    assert_eq!(lab.logs("cc", "until=1").0, "");
    let nothing = lab.get("/containers/cc/logs").unwrap();
    assert_eq!(
        (nothing.status, nothing.message().as_str()),
        (400, "Bad parameters: you must choose at least one stream")
    );
    // Followed: what was, what comes, and the end.
    lab.run("ff", json!({ "Cmd": ["sh", "-c", "echo was; read x; echo comes"], "OpenStdin": true, "StdinOnce": true }));
    let head = "GET /containers/ff/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut following = raw(&lab.socket(), head.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains("was") {
        let n = following.read(&mut buffer).unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&buffer[..n]);
    }
    lab.open("/containers/ff/attach?stream=1&stdin=1", "").finish_input();
    following.read_to_end(&mut seen).unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("comes"));
    lab.create("none", json!({ "Cmd": ["true"], "HostConfig": { "LogConfig": { "Type": "none" } } }));
    assert_eq!(
        lab.get("/containers/none/logs?stdout=1").unwrap().message(),
        "configured logging driver does not support reading"
    );
}

#[test]
fn ob_01_events_are_told_and_remembered() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run(
        "cc",
        json!({ "Cmd": ["sh", "-c", "exit 3"], "HostConfig": { "NetworkMode": "front" }, "Labels": { "tier": "one" } }),
    );
    lab.wait("cc");
    lab.remove("cc");
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    let events = |filters: Value| -> Vec<Value> {
        let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let response = lab.get(&format!("/events?since=1&until=0s&filters={encoded}")).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        response.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let actions = |filters: Value| -> Vec<String> {
        events(filters)
            .iter()
            .map(|e| format!("{} {}", e["Type"].as_str().unwrap(), e["Action"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(
        actions(json!({ "type": ["container", "network"] })),
        [
            "network create",
            "container create",
            "network connect",
            "container start",
            "container die",
            "network disconnect",
            "container destroy",
            "network destroy",
        ]
    );
    let died = events(json!({ "event": ["die"], "container": ["cc"] }));
    assert_eq!(died.len(), 1);
    assert_eq!(died[0]["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(died[0]["Actor"]["Attributes"]["tier"], "one");
    assert_eq!((died[0]["status"].as_str(), died[0]["scope"].as_str()), (Some("die"), Some("local")));
    assert!(actions(json!({ "container": ["other"] })).is_empty());
    assert_eq!(actions(json!({ "network": ["front"] })).len(), 4);
    // Images by their ids, with the names that people write; volumes as they are mounted; who attaches.
    let id = lab.get("/images/busybox/json").unwrap().json()["Id"].as_str().unwrap().to_owned();
    lab.ask("/images/busybox/tag?repo=ok&tag=1", 201);
    let archive = lab.get("/images/ok:1/get").unwrap().body;
    assert_eq!(lab.delete("/images/ok:1").unwrap().status, 200);
    assert_eq!(lab.post_bytes("/images/load", &archive).unwrap().status, 200);
    let images = events(json!({ "type": ["image"], "event": ["tag", "untag", "load"] }));
    let shown: Vec<(&str, &str, &str)> = images
        .iter()
        .map(|e| (e["Action"].as_str(), e["Actor"]["ID"].as_str(), e["Actor"]["Attributes"]["name"].as_str()))
        .map(|(a, i, n)| (a.unwrap(), i.unwrap(), n.unwrap()))
        .collect();
    assert_eq!(shown, [("tag", &*id, "ok:1"), ("untag", &*id, "ok:1"), ("load", &*id, "ok:1")]);
    lab.create("vv", json!({ "Cmd": ["true"], "HostConfig": { "Binds": ["data:/data:ro"] } }));
    let attached = lab.open(&format!("/containers/vv/attach?{ALL}"), "");
    lab.ask("/containers/vv/start", 204);
    attached.rest();
    lab.wait("vv");
    let seen = || actions(json!({ "event": ["attach", "start", "mount", "unmount"] }));
    within(Duration::from_secs(5), "the volume is let go", || seen().last().is_some_and(|a| a == "volume unmount"));
    assert!(
        seen().ends_with(&["container attach", "volume mount", "container start", "volume unmount"].map(String::from))
    );
    let mounted = events(json!({ "event": ["mount"] })).remove(0)["Actor"].clone();
    assert_eq!((&mounted["ID"], &mounted["Attributes"]["destination"]), (&json!("data"), &json!("/data")));
    assert_eq!(mounted["Attributes"]["read/write"], "false");
    assert_eq!(actions(json!({ "label": ["tier=one"], "type": ["container"] })).len(), 4);
    assert_eq!(lab.get("/events?until=0s&filters=%7B%22nope%22%3A%5B%22x%22%5D%7D").unwrap().status, 400);
    // What is pruned, and how much it was.
    lab.network(json!({ "Name": "idle" }));
    lab.create("idle", json!({ "Cmd": ["true"] }));
    lab.tell("/volumes/create", json!({}), 201);
    for (kind, path) in [
        ("container", "/containers/prune"),
        ("network", "/networks/prune"),
        ("volume", "/volumes/prune"),
        ("image", "/images/prune"),
        ("builder", "/build/prune"),
    ] {
        lab.ask(path, 200);
        let told = events(json!({ "type": [kind], "event": ["prune"] }));
        assert_eq!(told.len(), 1, "{kind}: {told:?}");
        let reclaimed = told[0]["Actor"]["Attributes"]["reclaimed"].as_str().map(str::parse::<u64>);
        assert!(reclaimed.is_some_and(|r| r.is_ok()), "{kind}: {told:?}");
        assert_eq!(told[0]["Actor"]["ID"], "", "{kind}");
    }
    // Live: the head comes at once, then what happens.
    let mut live = raw(&lab.socket(), b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    let mut read = |seen: &mut Vec<u8>| {
        let n = live.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..n]);
    };
    read(&mut seen);
    assert!(seen.starts_with(b"HTTP/1.1 200"));
    lab.tell("/volumes/create", json!({ "Name": "vol" }), 201);
    while !String::from_utf8_lossy(&seen).contains("\"ID\":\"vol\"") {
        read(&mut seen);
    }
}

#[test]
fn docker_run_behaves_as_users_expect() {
    let lab = lab();
    let Some(run) = lab.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]) else {
        return;
    };
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (7, "out\n", "err\n"));
    let failed = lab.docker(&["run", "--rm", "--network", "nosuch", "busybox", "true"]).unwrap();
    assert_eq!(failed.code, 125);
    assert!(
        failed.stderr.contains(
            "docker: Error response from daemon: failed to set up container networking: network nosuch not found"
        ),
        "{}",
        failed.stderr
    );
    assert!(lab.docker(&["ps", "-aq"]).unwrap().ok().is_empty(), "--rm");
    let id = lab.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "60"]).unwrap().ok();
    assert_eq!(lab.docker(&["exec", "web", "hostname"]).unwrap().ok(), id[..12]);
    assert_eq!(lab.docker(&["exec", "web", "sh", "-c", "exit 9"]).unwrap().code, 9);
    assert_eq!(lab.docker(&["kill", "web"]).unwrap().ok(), "web");
    assert_eq!(lab.docker(&["wait", "web"]).unwrap().ok(), "137");
    assert_eq!(lab.docker(&["rm", "web"]).unwrap().ok(), "web");
    let not_there = lab.docker(&["rm", "-f", "web"]).unwrap();
    assert!(not_there.stderr.contains("No such container: web"), "{}", not_there.stderr);
    within(Duration::from_secs(5), "nothing is left", || lab.docker(&["ps", "-aq"]).unwrap().ok().is_empty());
}
