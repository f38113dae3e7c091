//! A shim may be killed: its container runs on, not a line of its log is lost, and a new shim takes over.

use serde_json::json;
use std::process::Command;
use std::time::Duration;
use testkit::{Lab, lab, within};

/// Numbered lines, one every hundredth of a second or so, and then an end that is like no other.
const NUMBERS: &str = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit 7";
/// Ends as asked, by SIGTERM.
const POLITE: &str = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done";

fn sh(script: &str) -> serde_json::Value {
    json!({ "Cmd": ["sh", "-c", script] })
}

/// The shim of a running container: its process's parent.
fn shim(lab: &Lab, container: &str) -> String {
    let pid = lab.inspect(container)["State"]["Pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)).expect("a parent").to_owned()
}

fn signal(lab: &Lab, pid: &str, signal: &str) {
    lab.on_host(Command::new("kill").args([signal, pid])).ok();
}

fn has_logged(lab: &Lab, container: &str, line: &str) {
    within(Duration::from_secs(20), line, || lab.logs(container, "").0.contains(line));
}

fn all_numbers() -> String {
    (0..300).map(|i| format!("line {i}\n")).collect()
}

#[test]
fn a_shim_that_is_killed_costs_neither_the_container_nor_a_line_of_its_log() {
    let lab = lab();
    let before = lab.still_world();
    lab.run("numbers", sh(NUMBERS));
    let waiting = lab.begin_wait("numbers", "not-running");
    has_logged(&lab, "numbers", "line 20\n");
    let pid = lab.inspect("numbers")["State"]["Pid"].clone();
    signal(&lab, &shim(&lab, "numbers"), "-9");
    // At once, whether or not the new shim is there yet.
    assert_eq!(lab.exec("numbers", &["echo", "beside"]).ok(), "beside");
    lab.open("/containers/numbers/attach?stream=1&stdout=1", "").until("line ");
    assert_eq!(lab.inspect("numbers")["State"]["Pid"], pid);
    // The container's process has another parent now: whoever adopts orphans. Its shim is found by its directory.
    let id = lab.inspect("numbers")["Id"].as_str().unwrap().to_owned();
    let successor = || successor(&lab, &id);
    within(Duration::from_secs(5), "a new shim", || successor().is_some());
    has_logged(&lab, "numbers", "line 100\n");
    signal(&lab, &successor().unwrap(), "-9");
    assert_eq!(lab.exec("numbers", &["echo", "again"]).ok(), "again");
    assert_eq!(waiting.exit_code(), 7);
    assert_eq!(lab.inspect("numbers")["State"]["ExitCode"], 7);
    assert_eq!(lab.logs("numbers", "").0, all_numbers());

    lab.run("polite", sh(POLITE));
    lab.up("polite");
    signal(&lab, &shim(&lab, "polite"), "-9");
    lab.ask("/containers/polite/stop?t=10", 204);
    assert_eq!(lab.inspect("polite")["State"]["ExitCode"], 5);
    assert_eq!(lab.logs("polite", "").0, "up\nbye\n");

    lab.run("tty", json!({ "Cmd": ["sh"], "Tty": true, "OpenStdin": true }));
    signal(&lab, &shim(&lab, "tty"), "-9");
    let mut shell = lab.open("/containers/tty/attach?stream=1&stdin=1&stdout=1&stderr=1", "");
    shell.send(b"echo he''re; exit 4\n");
    shell.until("here\r\n");
    assert_eq!(lab.wait("tty"), 4);
    // The same container again, with nothing left of its last life.
    lab.ask("/containers/tty/start", 204);
    for name in ["numbers", "polite", "tty"] {
        lab.remove(name);
    }
    lab.world_is(&before, "killed shims");
}

/// The shim whose run directory is a container's.
fn successor(lab: &Lab, id: &str) -> Option<String> {
    let home = lab.run_directory().join("containers").join(id);
    testkit::processes().find_map(|(pid, line)| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let has_home = || open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file == home);
        (line.starts_with("isle-shim") && has_home()).then(|| pid.to_string())
    })
}

#[test]
fn a_shim_that_is_killed_while_no_daemon_is_there_is_replaced_by_the_next_daemon() {
    let mut lab = lab();
    lab.run("numbers", sh(NUMBERS));
    lab.run("polite", sh(POLITE));
    // Both its shim and itself will be gone.
    lab.run("short", sh("echo begun; sleep 1.5; echo last; exit 6"));
    lab.run("tty", json!({ "Cmd": ["sh"], "Tty": true, "OpenStdin": true }));
    lab.up("polite");
    has_logged(&lab, "numbers", "line 20\n");
    has_logged(&lab, "short", "begun\n");
    let shims = ["numbers", "polite", "short", "tty"].map(|name| shim(&lab, name));
    let short = lab.inspect("short")["State"]["Pid"].to_string();
    lab.kill_daemon();
    for shim in &shims {
        signal(&lab, shim, "-9");
    }
    within(Duration::from_secs(10), "the short one ends", || {
        let stat = std::fs::read_to_string(format!("/proc/{short}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    lab.start_daemon().unwrap();
    assert_eq!(lab.status("numbers"), "running");
    assert_eq!(lab.exec("numbers", &["echo", "beside"]).ok(), "beside");
    lab.open("/containers/numbers/attach?stream=1&stdout=1", "").until("line ");
    lab.ask("/containers/polite/stop?t=10", 204);
    assert_eq!(lab.inspect("polite")["State"]["ExitCode"], 5);
    assert_eq!(lab.logs("polite", "").0, "up\nbye\n");
    assert_eq!(lab.wait("short"), 6);
    assert_eq!(lab.logs("short", "").0, "begun\nlast\n");
    let mut shell = lab.open("/containers/tty/attach?stream=1&stdin=1&stdout=1&stderr=1", "");
    shell.send(b"echo he''re; exit 4\n");
    shell.until("here\r\n");
    assert_eq!(lab.wait("tty"), 4);
    assert_eq!(lab.wait("numbers"), 7);
    assert_eq!(lab.logs("numbers", "").0, all_numbers());
}

#[test]
fn a_command_is_started_whole_though_its_client_hangs_up() {
    let lab = lab();
    lab.run("polite", sh(POLITE));
    lab.up("polite");
    let shim = shim(&lab, "polite");
    let command = json!({ "Cmd": ["sh", "-c", "exit 9"] });
    let id = lab.tell("/containers/polite/exec", command, 201).json()["Id"].as_str().unwrap().to_owned();
    // The shim takes its time, and the client does not.
    signal(&lab, &shim, "-STOP");
    let body = r#"{"Detach":true}"#;
    let request = format!(
        "POST /exec/{id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    drop(testkit::http::raw(&lab.socket(), request.as_bytes()).unwrap());
    // The daemon has seen the end of that connection when it answers a later one.
    lab.get("/_ping").unwrap();
    signal(&lab, &shim, "-CONT");
    within(Duration::from_secs(10), "it has run", || {
        lab.get(&format!("/exec/{id}/json")).unwrap().json()["ExitCode"] == 9
    });
}
