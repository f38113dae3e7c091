//! The daemon may go, by SIGTERM or SIGKILL, and so may the keeper: containers run on, names and ports answer.
//!
//! ```text
//!   outside ── eth0 ── host ── front: web (8000, published 18000), client
//! ```

use serde_json::json;
use std::process::Command;
use std::time::Duration;
use testkit::{HOST, Lab, program, within};

const WEB: &str = "mkdir -p /w; echo hello >/w/index.html; exec httpd -f -p 8000 -h /w";

/// A network with a web server that is published, and a client beside it.
fn lab() -> Lab {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.run(
        "web",
        json!({
            "Cmd": ["sh", "-c", WEB],
            "HostConfig": { "NetworkMode": "front", "PortBindings": { "8000/tcp": [{ "HostPort": "18000" }] } },
        }),
    );
    lab.run("client", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    within(Duration::from_secs(5), "the server answers", || published(&lab));
    lab
}

/// Whether the outside reaches the published port.
fn published(lab: &Lab) -> bool {
    let url = format!("http://{HOST}:18000/");
    lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &url])).stdout == "hello\n"
}

/// Runs a command in a container's namespaces without a daemon.
fn inside(lab: &Lab, pid: &str, command: &[&str]) -> testkit::Output {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", pid, "-n", "-m", "-p", "--"]).args(command);
    lab.on_host(&mut nsenter)
}

fn resolves(lab: &Lab, pid: &str, name: &str) -> bool {
    inside(lab, pid, &["nslookup", "-type=a", name]).stdout.contains("Name:")
}

fn pid(lab: &Lab, name: &str) -> String {
    lab.inspect(name)["State"]["Pid"].to_string()
}

fn check_absence(mut lab: Lab, leave: impl Fn(&mut Lab)) {
    let client = pid(&lab, "client");
    let dying = lab.run(
        "dying",
        json!({
            "Cmd": ["sh", "-c", "echo first; sleep 2; echo last; exit 7"],
            "HostConfig": { "NetworkMode": "front" },
        }),
    );
    let id = lab.inspect("web")["Id"].clone();
    leave(&mut lab);
    assert!(resolves(&lab, &client, "web"), "names are answered without a daemon");
    assert!(inside(&lab, &client, &["wget", "-q", "-O", "-", "http://web:8000/"]).stdout == "hello\n");
    assert!(published(&lab), "published ports answer without a daemon");
    within(Duration::from_secs(6), "the dead one's name is gone", || !resolves(&lab, &client, "dying"));
    assert!(resolves(&lab, &client, "web"));

    lab.start_daemon().unwrap();
    let web = lab.inspect("web");
    assert_eq!((web["Id"].clone(), web["State"]["Running"].clone()), (id, json!(true)));
    let dead = lab.inspect(&dying);
    assert_eq!((dead["State"]["Status"].clone(), dead["State"]["ExitCode"].clone()), (json!("exited"), json!(7)));
    let logs = lab.get(&format!("/containers/{dying}/logs?stdout=1&stderr=1")).unwrap();
    assert_eq!(testkit::http::demultiplex(&logs.body).0, "first\nlast\n", "nothing of the log is lost");
    assert!(published(&lab) && resolves(&lab, &client, "web"));
    assert_eq!(lab.exec("client", &["wget", "-q", "-O", "-", "http://web:8000/"]).ok(), "hello");
    // What the next daemon makes joins what the last one left.
    lab.run("late", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
    assert!(resolves(&lab, &client, "late"));
    let removed = lab.delete("/containers/web?force=1").unwrap();
    assert_eq!(removed.status, 204, "{}", removed.text());
    assert!(!published(&lab));
    assert!(!resolves(&lab, &client, "web"));
}

#[test]
fn lc_05_the_daemon_stops_and_nobody_notices() {
    check_absence(lab(), Lab::stop_daemon);
}

#[test]
fn lc_06_the_daemon_is_killed_and_nobody_notices() {
    check_absence(lab(), Lab::kill_daemon);
}

#[test]
fn a_killed_keeper_is_back_at_once_with_every_name() {
    let lab = lab();
    let client = pid(&lab, "client");
    let keeper = lab.keeper_pid().expect("a keeper");
    assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
    // The query waits in the socket, which the daemon holds too.
    assert!(resolves(&lab, &client, "web"), "no query that was waiting is lost");
    within(Duration::from_secs(2), "another keeper", || lab.keeper_pid().is_some_and(|pid| pid != keeper));
    lab.run("late", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
    assert!(resolves(&lab, &client, "late"));
    assert!(published(&lab));
}

#[test]
fn keeper_and_daemon_killed_together_are_made_up_for_by_the_next_daemon() {
    let mut lab = lab();
    let client = pid(&lab, "client");
    let keeper = lab.keeper_pid().expect("a keeper");
    lab.kill_daemon();
    assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
    lab.start_daemon().unwrap();
    within(Duration::from_secs(1), "names answer", || resolves(&lab, &client, "web"));
    assert!(published(&lab));
    assert_eq!(lab.exec("client", &["wget", "-q", "-O", "-", "http://web:8000/"]).ok(), "hello");
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let lab = Lab::start(&program()).unwrap();
    let mut second = Command::new(program());
    second.arg("daemon").arg("--root").arg(lab.root_directory()).arg("--run").arg(lab.directory().join("run2"));
    let refused = lab.on_host(second.args(["--host", "unix:///nonexistent/isle.sock"])).refused();
    assert!(refused.contains("another daemon works on"), "{refused}");
}
