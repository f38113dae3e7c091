//! The acceptance walk through user-defined networks, `journey.sh`: by our own client, and by an unmodified docker.

use std::path::Path;
use std::process::Command;
use testkit::Lab;

/// Walks, and asserts that every check passed.
fn walk(lab: &Lab, engine: &str, host_variable: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journey.sh");
    let mut command = Command::new("bash");
    command
        .arg(script)
        .env_remove("ISLE_HOST")
        .env_remove("DOCKER_HOST")
        .env("ENGINE", engine)
        .env(host_variable, lab.docker_host())
        .env("NETNS", lab.namespace_file());
    let output = lab.on_host(&mut command);
    let last = output.stdout.lines().last().unwrap_or_default();
    assert_eq!(last, "85/85", "{}\n{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0);
}

fn lab() -> Lab {
    Lab::start(Path::new(env!("CARGO_BIN_EXE_isle"))).expect("a lab: root and 'cargo build -p isle-shim' are needed")
}

#[test]
fn isle_walks_the_journey() {
    walk(&lab(), env!("CARGO_BIN_EXE_isle"), "ISLE_HOST");
}

#[test]
fn docker_walks_the_journey() {
    let docker = testkit::images::which("docker");
    let docker = docker.expect("no docker CLI on this machine: 'cargo xtask' installs it");
    walk(&lab(), &docker.display().to_string(), "DOCKER_HOST");
}
