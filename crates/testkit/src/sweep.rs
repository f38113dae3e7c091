//! Ends what a lab has left, knowing no more of it than its directory: what its owner does at the end, or somebody else
//! where the owner was killed.

use crate::http;
use crate::lab::processes;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes the containers by the daemon that is there, or is coming up; ends the daemon; then kills what still has the
/// directory on its command line.
pub fn sweep(directory: &Path) {
    let socket = directory.join("isle.sock");
    let end = Instant::now() + PATIENCE;
    let answers = || http::request(&socket, "GET", "/_ping", b"").is_ok();
    while !answers() && Instant::now() < end && !of(directory).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    remove_containers(&socket);
    signal("-TERM", &of(directory));
    let end = Instant::now() + PATIENCE;
    while !of(directory).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    signal("-KILL", &of(directory));
}

/// Their shims outlive any daemon, so they go while one is there.
pub(crate) fn remove_containers(socket: &Path) {
    let Ok(listed) = http::request(socket, "GET", "/containers/json?all=1", b"") else { return };
    for container in listed.json().as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        let _ = http::request(socket, "DELETE", &format!("/containers/{id}?force=1&v=1"), b"");
    }
}

/// Kills what has the directory on its command line.
pub(crate) fn kill(directory: &Path) {
    signal("-KILL", &of(directory));
}

fn signal(signal: &str, pids: &[String]) {
    if !pids.is_empty() {
        let _ = Command::new("kill").arg(signal).args(pids).status();
    }
}

/// Processes of a lab, but for this one: the guard is told the directory, too.
fn of(directory: &Path) -> Vec<String> {
    let marker = directory.display().to_string();
    let own = processes().filter(|(pid, line)| *pid != std::process::id() && line.contains(&marker));
    own.map(|(pid, _)| pid.to_string()).collect()
}
