//! What survives a daemon that is killed at any time, and what the next one makes of a store that it finds.

use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use testkit::client::POLITE;
use testkit::http::raw;
use testkit::{Lab, lab, within};

/// Begins a request that hangs at a step, kills the daemon there, and starts the next one.
fn die_at(lab: &mut Lab, step: &str, method: &str, path: &str) {
    lab.ask(&format!("/debug/faults?at={step}&hang=1"), 204);
    let pending =
        raw(&lab.socket(), format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes());
    let _pending = pending.unwrap();
    within(Duration::from_secs(5), &format!("{step} is reached"), || {
        lab.get("/debug/faults").unwrap().json() == json!([])
    });
    lab.kill_daemon();
    lab.start_daemon().unwrap();
}

fn victim() -> Value {
    json!({
        "Cmd": POLITE,
        "HostConfig": { "NetworkMode": "front", "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } },
    })
}

/// The steps at which a start can be interrupted.
const STEPS: [&str; 10] =
    ["planned", "reserve", "reserved", "keeper", "names", "files", "order", "prepare", "launch", "watch"];

#[test]
fn lc_06_a_start_that_a_killed_daemon_left_half_way_is_repaired() {
    let mut lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("neighbour", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    for step in STEPS {
        lab.create("victim", victim());
        die_at(&mut lab, step, "POST", "/containers/victim/start");
        // Once launched it runs, and is found running; before, it is as it was.
        let found = lab.status("victim");
        assert_eq!(found, if step == "watch" { "running" } else { "created" }, "{step}");
        if found == "created" {
            let members = lab.get("/networks/front").unwrap().json()["Containers"].as_object().unwrap().len();
            assert_eq!(members, 1, "{step}");
            assert_eq!(lab.lookup("neighbour", "victim"), [""; 0], "{step}");
            assert_eq!(lab.inspect("victim")["State"]["Pid"], 0);
            lab.ask("/containers/victim/start", 204);
        }
        assert_eq!(lab.lookup("neighbour", "victim"), [lab.address("victim", "front")], "{step}");
        assert_eq!(lab.inspect("victim")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080", "{step}");
        lab.up("victim");
        lab.ask("/containers/victim/stop?t=5", 204);
        assert_eq!(lab.inspect("victim")["State"]["ExitCode"], 3, "{step}");
        lab.remove("victim");
    }
}

#[test]
fn a_container_without_a_network_that_was_just_launched_is_found_running() {
    let mut lab = lab();
    for mode in ["none", "host"] {
        lab.create("victim", json!({ "Cmd": POLITE, "HostConfig": { "NetworkMode": mode } }));
        die_at(&mut lab, "watch", "POST", "/containers/victim/start");
        assert_eq!(lab.status("victim"), "running", "{mode}");
        lab.up("victim");
        lab.ask("/containers/victim/stop?t=5", 204);
        assert_eq!(lab.inspect("victim")["State"]["ExitCode"], 3);
        lab.remove("victim");
    }
}

#[test]
fn nothing_is_left_of_starts_and_removals_that_a_killed_daemon_left() {
    let mut lab = lab();
    lab.network(json!({ "Name": "front" }));
    // The next daemon's world is the one to compare with: it holds what it has found, not what it has made.
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    for step in STEPS {
        let before = lab.still_world();
        let mut body = victim();
        body["HostConfig"]["AutoRemove"] = true.into();
        lab.create("victim", body);
        die_at(&mut lab, step, "POST", "/containers/victim/start");
        if step == "watch" {
            lab.ask("/containers/victim/kill", 204);
        }
        let is_recorded = ["launch", "watch"].contains(&step);
        if !is_recorded && lab.status("victim") == "created" {
            // That it was to start had not come to the disk: it is as it was.
            lab.remove("victim");
        }
        within(Duration::from_secs(5), &format!("{step}: it is gone"), || lab.status("victim") == "gone");
        lab.world_is(&before, step);
    }
}

#[test]
fn what_was_answered_survives_a_kill() {
    let mut lab = lab();
    for round in 0..5 {
        let network = lab.network(json!({ "Name": format!("n{round}") }));
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.get(&format!("/networks/{network}")).unwrap().status, 200);
        let id = lab.create(&format!("c{round}"), json!({ "Cmd": POLITE, "HostConfig": { "NetworkMode": network } }));
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.status(&id), "created");
        lab.ask(&format!("/containers/{id}/start"), 204);
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.status(&id), "running");
        lab.ask(&format!("/containers/{id}/rename?name=r{round}"), 204);
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.inspect(&format!("r{round}"))["Id"], id.as_str());
        lab.up(&id);
        lab.ask(&format!("/containers/{id}/stop?t=5"), 204);
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        let state = lab.inspect(&id)["State"].clone();
        assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(3)), "{state}");
        lab.remove(&id);
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.status(&id), "gone");
        assert_eq!(lab.delete(&format!("/networks/{network}")).unwrap().status, 204);
        lab.kill_daemon();
        lab.start_daemon().unwrap();
        assert_eq!(lab.get(&format!("/networks/{network}")).unwrap().status, 404);
    }
}

#[test]
fn restart_policies_hold_across_daemons() {
    let mut lab = lab();
    let policy = |name: &str| json!({ "Cmd": POLITE, "HostConfig": { "RestartPolicy": { "Name": name } } });
    for name in ["always", "unless-stopped", "no"] {
        lab.run(&format!("runs-{name}"), policy(name));
        lab.run(&format!("stopped-{name}"), policy(name));
        lab.ask(&format!("/containers/stopped-{name}/stop?t=5"), 204);
    }
    // One that fails again and again, between two of its runs.
    lab.run("fails", json!({ "Cmd": ["false"], "HostConfig": { "RestartPolicy": { "Name": "on-failure" } } }));
    within(Duration::from_secs(10), "it waits", || {
        lab.inspect("fails")["RestartCount"].as_i64() > Some(2) && lab.status("fails") == "restarting"
    });
    let pids: Vec<String> = ["always", "unless-stopped", "no"]
        .map(|n| lab.inspect(&format!("runs-{n}"))["State"]["Pid"].to_string())
        .into();
    let count = lab.inspect("fails")["RestartCount"].as_i64();
    lab.kill_daemon();
    for pid in pids {
        lab.on_host(Command::new("kill").args(["-9", &pid])).ok();
    }
    lab.start_daemon().unwrap();
    for (name, status) in [
        ("runs-always", "running"),
        ("stopped-always", "running"),
        ("runs-unless-stopped", "running"),
        ("stopped-unless-stopped", "exited"),
        ("runs-no", "exited"),
        ("stopped-no", "exited"),
    ] {
        within(Duration::from_secs(10), &format!("{name} is {status}"), || lab.status(name) == status);
    }
    assert_eq!(lab.inspect("runs-no")["State"]["ExitCode"], 137);
    within(Duration::from_secs(10), "it is tried again", || lab.inspect("fails")["RestartCount"].as_i64() > count);
}

#[test]
fn a_store_that_cannot_be_used_is_refused_and_left_alone() {
    let mut lab = lab();
    lab.create("kept", json!({ "Cmd": ["true"] }));
    lab.stop_daemon();
    let (schema, store) = (lab.root_directory().join("schema"), lab.root_directory().join("state.redb"));
    let good = std::fs::read(&store).unwrap();
    for (file, bytes, words) in [
        (&schema, b"999\n".to_vec(), "says version 999, this isle knows 1"),
        (&schema, b"soon\n".to_vec(), "is not a schema version"),
        (&store, b"nonsense".repeat(1000), "cannot open the store"),
    ] {
        let was = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes).unwrap();
        let refused = format!("{:#}", lab.start_daemon().unwrap_err());
        assert!(refused.contains(words), "{refused}");
        assert_eq!(std::fs::read(file).unwrap(), bytes, "it is left alone");
        std::fs::write(file, was).unwrap();
    }
    assert_eq!(std::fs::read(&store).unwrap(), good);
    lab.start_daemon().unwrap();
    assert_eq!(lab.status("kept"), "created");
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing() {
    let mut lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("web", json!({ "Cmd": POLITE, "HostConfig": { "NetworkMode": "front" } }));
    let pid = lab.inspect("web")["State"]["Pid"].clone();
    for round in 0..6 {
        // Killed in the middle of whatever these are.
        let name = format!("x{round}");
        let body = json!({ "Image": "busybox", "Cmd": POLITE, "HostConfig": { "NetworkMode": "front" } }).to_string();
        let socket = lab.socket();
        let worker = std::thread::spawn(move || {
            let ask =
                |method: &str, path: &str, body: &str| testkit::http::request(&socket, method, path, body.as_bytes());
            for n in 0.. {
                let name = format!("{name}-{n}");
                let acts = [
                    ask("POST", &format!("/containers/create?name={name}"), &body),
                    ask("POST", &format!("/containers/{name}/start"), ""),
                    ask("DELETE", &format!("/containers/{name}?force=1"), ""),
                ];
                if acts.iter().any(Result::is_err) {
                    return;
                }
            }
        });
        // At whatever moment that is: any must do.
        std::thread::sleep(Duration::from_millis(40 + 37 * round));
        lab.kill_daemon();
        worker.join().unwrap();
        lab.start_daemon().unwrap();
        assert_eq!(lab.inspect("web")["State"]["Pid"], pid);
        for listed in lab.get("/containers/json?all=1").unwrap().json().as_array().unwrap() {
            let name = listed["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned();
            assert!(["created", "running", "exited"].contains(&listed["State"].as_str().unwrap()), "{listed}");
            if name != "web" {
                lab.remove(&name);
            }
        }
        let members = lab.get("/networks/front").unwrap().json()["Containers"].as_object().unwrap().len();
        assert_eq!(members, 1);
        within(Duration::from_secs(5), "one shim is left", || lab.shims() == 1);
    }
}

#[test]
fn an_end_that_no_disk_took_is_known_to_the_next_daemon() {
    let mut lab = lab();
    lab.ask("/debug/faults?at=end:%20record", 204);
    lab.run("victim", json!({ "Cmd": ["sh", "-c", "exit 7"] }));
    assert_eq!(lab.wait("victim"), 7);
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    assert_eq!((lab.status("victim"), lab.inspect("victim")["State"]["ExitCode"].clone()), ("exited".into(), json!(7)));
}

#[test]
fn owners_of_shared_namespaces_are_started_before_their_sharers() {
    let mut lab = lab();
    let always = |mode: &str| {
        json!({
            "Cmd": POLITE,
            "HostConfig": { "NetworkMode": mode, "RestartPolicy": { "Name": "always" } },
        })
    };
    lab.network(json!({ "Name": "front" }));
    lab.run("owner", always("front"));
    let mut names = vec!["owner".to_owned()];
    for n in 0..5 {
        names.push(format!("sharer{n}"));
        lab.run(&names[n + 1], always("container:owner"));
    }
    let all_run = |lab: &Lab, when: &str| {
        for name in &names {
            within(Duration::from_secs(10), &format!("{name} runs {when}"), || lab.status(name) == "running");
        }
    };
    // All of them were stopped.
    for name in names.iter().rev() {
        lab.ask(&format!("/containers/{name}/stop?t=0"), 204);
    }
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    all_run(&lab, "again");
    // All of them died with the daemon.
    let pids: Vec<String> = names.iter().map(|n| lab.inspect(n)["State"]["Pid"].to_string()).collect();
    lab.kill_daemon();
    for pid in pids {
        lab.on_host(Command::new("kill").args(["-9", &pid])).ok();
    }
    lab.start_daemon().unwrap();
    all_run(&lab, "after all have died");
}

#[test]
fn a_container_that_a_killed_daemon_was_committing_goes_on_and_a_paused_one_stays_so() {
    let mut lab = lab();
    lab.run("c1", json!({ "Cmd": ["sleep", "600"] }));
    lab.run("paused", json!({ "Cmd": ["sleep", "600"] }));
    lab.ask("/containers/paused/pause", 204);
    die_at(&mut lab, "commit", "POST", "/commit?container=c1");
    assert_eq!((lab.status("c1"), lab.status("paused")), ("running".into(), "paused".into()));
    assert_eq!(lab.exec("c1", &["echo", "on"]).ok(), "on");
    // Nor does it stand still where that was not asked for.
    lab.ask("/containers/paused/unpause", 204);
    die_at(&mut lab, "commit", "POST", "/commit?container=paused&pause=0");
    assert_eq!(lab.exec("paused", &["echo", "on"]).ok(), "on");
}

#[test]
fn a_step_of_a_build_goes_with_the_daemon_that_builds() {
    let mut lab = lab();
    // The next daemon's world is the one to compare with: it holds what it has found, not what it has made.
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    let before = lab.still_world();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let dockerfile = "FROM busybox\nRUN echo begun; sleep 3600\n";
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    let context = archive.into_inner().unwrap();
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        context.len()
    );
    let _building = raw(&lab.socket(), &[head.as_bytes(), &context].concat()).unwrap();
    let running = |lab: &Lab| lab.get("/containers/json").unwrap().json().as_array().unwrap().len();
    within(Duration::from_secs(20), "the step runs", || running(&lab) == 1);
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(lab.get("/containers/json?all=1").unwrap().json(), json!([]));
    lab.world_is(&before, "the build's daemon was killed");
}
