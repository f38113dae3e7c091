//! Many clients at once, and clients that go away: nothing is left half done, nobody waits for ever.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::POLITE;
use testkit::http::{self, raw};
use testkit::{Lab, lab, within};

/// xorshift: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

fn no_panic(lab: &Lab) {
    let log = lab.log();
    let panics: Vec<&str> = log.lines().filter(|l| l.contains("panicked") || l.contains("failed inside")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// Requests to happen at the same time; their statuses, in order.
fn together(lab: &Lab, requests: &[(&str, &str)]) -> Vec<u16> {
    let gate = std::sync::Barrier::new(requests.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|(method, path)| {
                let gate = &gate;
                scope.spawn(move || {
                    gate.wait();
                    http::request(&lab.socket(), method, path, b"").expect("an answer").status
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn lc_09_fifty_clients_at_random_leave_no_trace() {
    let lab = lab();
    let before = lab.still_world();
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(u64::from(nanos) | 1);
    println!("SEED={seed}");
    let end = Instant::now() + Duration::from_secs(6);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..50 {
            let (lab, done) = (&lab, &done);
            scope.spawn(move || {
                let mut dice = Dice(seed.wrapping_mul(client * 2 + 3) | 1);
                while Instant::now() < end {
                    let (c, n) = (format!("c{}", dice.roll(12)), format!("n{}", dice.roll(4)));
                    let port = 8000 + dice.roll(4);
                    let ask = |method: &str, path: &str, body: Value| {
                        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
                        let response = http::request(&lab.socket(), method, path, &bytes).expect("an answer");
                        // A port that another has is the one thing here that Docker calls 500.
                        let is_port = response.status == 500
                            && ["port is already allocated", "address already in use"]
                                .iter()
                                .any(|w| response.text().contains(w));
                        assert!(response.status < 500 || is_port, "{method} {path}: {}", response.text());
                        done.fetch_add(1, Ordering::Relaxed);
                    };
                    match dice.roll(14) {
                        0 | 1 => {
                            let command = if dice.roll(3) == 0 { vec!["true"] } else { vec!["sleep", "60"] };
                            let mut body =
                                json!({ "Image": "busybox", "Cmd": command, "HostConfig": { "NetworkMode": n } });
                            match dice.roll(4) {
                                0 => body["HostConfig"]["AutoRemove"] = true.into(),
                                1 => body["HostConfig"]["RestartPolicy"] = json!({ "Name": "always" }),
                                2 => {
                                    body["HostConfig"]["PortBindings"] =
                                        json!({ "80/tcp": [{ "HostPort": port.to_string() }] })
                                }
                                _ => {}
                            }
                            ask("POST", &format!("/containers/create?name={c}"), body);
                        }
                        2..=4 => ask("POST", &format!("/containers/{c}/start"), Value::Null),
                        5 => ask("POST", &format!("/containers/{c}/stop?t=0"), Value::Null),
                        6 => ask("POST", &format!("/containers/{c}/restart?t=0"), Value::Null),
                        7 => ask("POST", &format!("/containers/{c}/kill"), Value::Null),
                        8 => ask("DELETE", &format!("/containers/{c}?force=1&v=1"), Value::Null),
                        9 => ask("POST", "/networks/create", json!({ "Name": n })),
                        10 => ask("DELETE", &format!("/networks/{n}"), Value::Null),
                        11 => ask("POST", &format!("/networks/{n}/connect"), json!({ "Container": c })),
                        12 => ask("POST", &format!("/networks/{n}/disconnect"), json!({ "Container": c })),
                        _ => ask("GET", "/containers/json?all=1", Value::Null),
                    }
                }
            });
        }
    });
    println!("{} requests", done.load(Ordering::Relaxed));
    for n in 0..12 {
        let removed = lab.delete(&format!("/containers/c{n}?force=1&v=1")).unwrap();
        assert!([204, 404].contains(&removed.status), "{}", removed.text());
    }
    for n in 0..4 {
        let removed = lab.delete(&format!("/networks/n{n}")).unwrap();
        assert!([204, 404].contains(&removed.status), "{}", removed.text());
    }
    assert_eq!(lab.get("/containers/json?all=1").unwrap().json(), json!([]));
    no_panic(&lab);
    lab.world_is(&before, &format!("SEED={seed}"));
}

#[test]
fn two_starts_are_one() {
    let lab = lab();
    for _ in 0..5 {
        lab.create("cc", json!({ "Cmd": ["sleep", "60"] }));
        let mut statuses = together(&lab, &[("POST", "/containers/cc/start"); 4]);
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 304, 304, 304]);
        // Stopped and removed by several at once: each hears something sensible.
        let statuses = together(
            &lab,
            &[
                ("POST", "/containers/cc/stop?t=0"),
                ("DELETE", "/containers/cc?force=1"),
                ("POST", "/containers/cc/stop?t=0"),
            ],
        );
        assert!(statuses.iter().all(|s| [204, 304, 404].contains(s)), "{statuses:?}");
        assert_eq!(lab.status("cc"), "gone");
    }
    no_panic(&lab);
}

#[test]
fn a_stop_or_a_removal_during_a_start_is_not_lost() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let before = lab.still_world();
    for round in 0..10 {
        let rm = round % 2 == 0;
        lab.create("cc", json!({ "Cmd": POLITE, "HostConfig": { "NetworkMode": "front" } }));
        let other = if rm { ("DELETE", "/containers/cc?force=1") } else { ("POST", "/containers/cc/stop?t=5") };
        let statuses = together(&lab, &[("POST", "/containers/cc/start"), other]);
        match (rm, statuses.as_slice()) {
            // Before the start, or after it.
            (true, [204 | 404, 204]) => assert_eq!(lab.status("cc"), "gone"),
            (false, [204, 204]) => assert_eq!(lab.status("cc"), "exited"),
            (false, [204, 304]) => assert_eq!(lab.status("cc"), "running"),
            other => panic!("{other:?}"),
        }
        if !rm {
            lab.remove("cc");
        }
    }
    lab.world_is(&before, "starts, stops and removals");
}

#[test]
fn lc_07_a_network_goes_before_a_start_or_not_at_all() {
    let lab = lab();
    let before = lab.still_world();
    for _ in 0..10 {
        lab.network(json!({ "Name": "front" }));
        lab.create("cc", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
        let statuses = together(&lab, &[("POST", "/containers/cc/start"), ("DELETE", "/networks/front")]);
        match statuses.as_slice() {
            [204, 403] => {
                assert_eq!(lab.exec("cc", &["ls", "/sys/class/net"]).ok(), "eth0\nlo");
                lab.remove("cc");
                assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
            }
            [404, 204] => lab.remove("cc"),
            other => panic!("{other:?}"),
        }
    }
    lab.world_is(&before, "networks that go");
}

#[test]
fn a_network_joins_and_leaves_a_container_that_starts_and_ends() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "back" }));
    let before = lab.still_world();
    for _ in 0..8 {
        lab.create("cc", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
        let body = json!({ "Container": "cc" });
        std::thread::scope(|scope| {
            scope.spawn(|| lab.ask("/containers/cc/start", 204));
            scope.spawn(|| {
                lab.tell("/networks/back/connect", body.clone(), 200);
                lab.tell("/networks/front/disconnect", body.clone(), 200);
            });
        });
        let networks = lab.inspect("cc")["NetworkSettings"]["Networks"].clone();
        assert_eq!(networks.as_object().unwrap().keys().collect::<Vec<_>>(), ["back"]);
        assert_eq!(lab.exec("cc", &["ls", "/sys/class/net"]).ok().lines().count(), 2);
        std::thread::scope(|scope| {
            scope.spawn(|| lab.ask("/containers/cc/kill", 204));
            scope.spawn(|| lab.tell("/networks/back/disconnect", body.clone(), 200));
        });
        lab.remove("cc");
    }
    lab.world_is(&before, "connects and disconnects");
}

#[test]
fn only_one_of_many_gets_a_name_a_port_or_a_subnet() {
    let lab = lab();
    let each = |path: &str, body: Value| -> Vec<u16> {
        let gate = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            let one = || {
                gate.wait();
                lab.post(path, body.clone()).unwrap().status
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            let mut statuses: Vec<u16> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            statuses.sort_unstable();
            statuses
        })
    };
    assert_eq!(each("/containers/create?name=cc", json!({ "Image": "busybox", "Cmd": ["true"] }))[..2], [201, 409]);
    assert_eq!(each("/networks/create", json!({ "Name": "front" }))[..2], [201, 409]);
    assert_eq!(each("/volumes/create", json!({ "Name": "vol" })), [201; 8]);
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let bindings: serde_json::Map<_, _> =
        (0..80).map(|n| (format!("{}/tcp", 7000 + n), json!([{ "HostPort": (17000 + n).to_string() }]))).collect();
    for name in &names {
        lab.create(name, json!({ "Cmd": ["sleep", "60"], "HostConfig": { "PortBindings": bindings } }));
    }
    let paths: Vec<String> = names.iter().map(|n| format!("/containers/{n}/start")).collect();
    let requests: Vec<(&str, &str)> = paths.iter().map(|p| ("POST", p.as_str())).collect();
    let mut statuses = together(&lab, &requests);
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 500, 500, 500, 500, 500, 500, 500], "a range without sockets has one holder, too");
    no_panic(&lab);
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let before = lab.still_world();
    let body = json!({ "Image": "busybox", "Cmd": POLITE, "HostConfig": { "NetworkMode": "front" } }).to_string();
    let say = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        drop(raw(&lab.socket(), request.as_bytes()).unwrap());
    };
    for round in 0..10 {
        say("POST", "/containers/create?name=cc", &body);
        within(Duration::from_secs(5), "it is created", || lab.status("cc") == "created");
        // Whoever is there sees it whole.
        assert!(lab.inspect("cc")["Image"].as_str().unwrap().starts_with("sha256:"));
        say("POST", "/containers/cc/start", "");
        within(Duration::from_secs(5), "it is started", || lab.status("cc") == "running");
        match round % 3 {
            0 => {
                say("POST", "/containers/cc/stop?t=1", "");
                within(Duration::from_secs(5), "it is stopped", || lab.status("cc") == "exited");
            }
            1 => {
                say("POST", "/containers/cc/restart?t=5", "");
                within(Duration::from_secs(5), "it is restarted", || {
                    lab.log().matches("restart").count() > 0 || lab.status("cc") == "running"
                });
            }
            _ => {}
        }
        say("DELETE", "/containers/cc?force=1&v=1", "");
        within(Duration::from_secs(10), "it is removed", || lab.status("cc") == "gone");
    }
    // Heads that never end, bodies that never come, streams that nobody reads.
    for text in
        ["GET /info", "POST /containers/create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", "nonsense\r\n\r\n", ""]
    {
        drop(raw(&lab.socket(), text.as_bytes()).unwrap());
    }
    lab.run("chatty", json!({ "Cmd": ["yes"], "HostConfig": { "LogConfig": { "Type": "none" } } }));
    for _ in 0..3 {
        drop(lab.open("/containers/chatty/attach?stream=1&stdout=1", ""));
    }
    for wait in ["/containers/chatty/wait", "/containers/chatty/wait?condition=removed"] {
        say("POST", wait, "");
    }
    let begin = Instant::now();
    lab.remove("chatty");
    assert!(begin.elapsed() < Duration::from_secs(5));
    no_panic(&lab);
    lab.world_is(&before, "clients that went away");
}

#[test]
fn an_image_is_not_removed_under_a_container_that_is_being_created() {
    let lab = lab();
    let image = testkit::images::busybox().unwrap();
    for round in 0..6 {
        let made = lab
            .post_bytes(&format!("/images/create?fromSrc=-&repo=other&tag=t{round}&changes=LABEL%20n={round}"), &image)
            .unwrap();
        assert_eq!(made.status, 200);
        let body = json!({ "Image": format!("other:t{round}"), "Cmd": ["true"] });
        let (created, removed) = std::thread::scope(|scope| {
            let creating = scope.spawn(|| lab.post("/containers/create?name=cc", body.clone()).unwrap());
            let removing = scope.spawn(|| lab.delete(&format!("/images/other:t{round}")).unwrap());
            (creating.join().unwrap(), removing.join().unwrap())
        });
        match (created.status, removed.status) {
            // It is there, and works; or it never was.
            (201, 409 | 200) => {
                lab.ask("/containers/cc/start", 204);
                assert_eq!(lab.wait("cc"), 0);
                lab.remove("cc");
            }
            (404, 200) => assert_eq!(lab.status("cc"), "gone"),
            other => panic!("{other:?}: {} {}", created.text(), removed.text()),
        }
    }
}
