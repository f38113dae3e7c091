//! `cargo xtask test vm`: the tests of the whole product in a virtual machine, which has what a container or a small
//! kernel may lack: a pure cgroup v2, systemd, every kind of link, AppArmor.
//!
//! ```text
//! vm/make-image ──▶ a Debian on a disk       the built programs and tests ──▶ a directory ──copied──▶ vm/run: booted, run
//! ```
//!
//! The machine has no network card, and runs ten times slower than this one: what waits waits longer (`PATIENCE`).

use crate::machine::{Need, TESTS, ensure, is_root};
use crate::{build, cargo, run};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::images::which;

/// What the guest has besides Debian's base.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "curl",
    "bind9-dnsutils",
    "iputils-ping",
    "hostname",
    "python3",
    "runc",
    "util-linux",
    "libc-bin",
    "iptables",
];

const NEEDS: &[Need] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("debootstrap", "debootstrap"), ("strip", "binutils")];

/// The binaries whose tests are run there. `guest` is what can only be shown there.
const SUITES: &[&str] = &["guest", "containers", "daemon_may_go", "oracle"];

/// Runs the suites and the package's test, or those tests of any suite whose names contain a word of `wanted`.
pub fn test(wanted: &[&str]) -> anyhow::Result<()> {
    let image = prepare()?;
    let scripts = build::root().join("xtask/vm");
    let (directory, suites) = install(&built_tests()?)?;
    let mut script = String::from("cd /root; failed=0\n");
    let mut chosen = 0;
    for (name, program) in &suites {
        if wanted.is_empty() && !SUITES.contains(&name.as_str()) {
            continue;
        }
        let tests = listed(program, wanted)?;
        if tests > 0 {
            script += &format!("{} --test-threads 1 {} || failed=1\n", program.display(), wanted.join(" "));
        }
        chosen += tests;
    }
    if chosen == 0 {
        bail!("no test's name contains {}", wanted.join(" or "));
    }
    script += "exit $failed\n";
    let mut guest = Command::new(scripts.join("run"));
    guest.args(["--mem", "3G", "--timeout", "3000", "--image"]).arg(&image).arg("--copy").arg(&directory);
    let shim = format!("ISLE_SHIM={}", directory.join(shim()).display());
    guest.args(["--", "env", "PATIENCE=10", "REQUIRE_NETNS=1", &shim, "bash", "-c", &script]);
    run(&mut guest)?;
    if wanted.is_empty() { installed() } else { Ok(()) }
}

/// Installs the package on a Debian, tells the story there, boots it again, and removes it: `vm/installed` says what must
/// be so.
pub fn installed() -> anyhow::Result<()> {
    let scripts = build::root().join("xtask/vm");
    let image = prepare()?;
    let directory = build::target().join("vm/package");
    let _ = std::fs::remove_dir_all(&directory);
    let (isle, shim_) = (directory.join("isle"), directory.join("isle-shim"));
    strip(&build::target().join("debug/isle"), &isle)?;
    strip(&build::target().join(shim()), &shim_)?;
    let package = crate::package::assemble(&isle, &shim_)?;
    let disk = directory.join("disk.qcow2");
    let script = scripts.join("installed");
    for boot in ["1", "2"] {
        let mut guest = Command::new(scripts.join("run"));
        guest.args(["--timeout", "1200", "--image"]).arg(&image).arg("--disk").arg(&disk);
        guest.arg("--copy").args([&script, &package]).arg("--").arg(&script).arg(boot).arg(&package);
        run(&mut guest)?;
    }
    Ok(())
}

/// The machine's image and the programs, made where they are missing; where the image is.
fn prepare() -> anyhow::Result<PathBuf> {
    if !is_root()? {
        bail!("the virtual machine's image is made as root");
    }
    ensure(TESTS)?;
    ensure(NEEDS)?;
    build::debug()?;
    let image = build::target().join("vm/image");
    run(Command::new(build::root().join("xtask/vm/make-image")).arg(&image).args(PACKAGES))?;
    Ok(image)
}

/// How many tests of a binary have one of the words in their names; without words, all.
fn listed(program: &Path, words: &[&str]) -> anyhow::Result<usize> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).args(words).output();
    let output = output.with_context(|| format!("cannot list the tests of {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.ends_with(": test")).count())
}

/// Test binaries by name, as cargo says.
fn built_tests() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut build = cargo();
    build.current_dir(build::root()).args(["test", "--no-run", "--message-format", "json", "--quiet"]);
    build.args(["--package", "testkit", "--package", "runtime", "--tests", "--features", "testkit/guest"]);
    let output = build.stderr(std::process::Stdio::inherit()).output().context("cargo test --no-run")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let messages = String::from_utf8(output.stdout)?;
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let tests = artifacts.filter_map(|a| {
        let program = a["executable"].as_str().filter(|_| a["target"]["kind"][0] == "test")?;
        Some((a["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
    });
    Ok(tests.collect())
}

/// A directory with the layout of `target`, without debug information: what the guest gets a copy of.
fn install(tests: &BTreeMap<String, PathBuf>) -> anyhow::Result<(PathBuf, BTreeMap<String, PathBuf>)> {
    let directory = build::target().join("vm/target");
    let _ = std::fs::remove_dir_all(&directory);
    for program in ["debug/isle", &shim()] {
        strip(&build::target().join(program), &directory.join(program))?;
    }
    let mut installed = BTreeMap::new();
    for (name, program) in tests {
        let to = directory.join("debug/deps").join(program.file_name().context("a test's file name")?);
        strip(program, &to)?;
        installed.insert(name.clone(), to);
    }
    Ok((directory, installed))
}

/// Where the static shim is, in a target directory.
fn shim() -> String {
    format!("shim/{}-unknown-linux-gnu/debug/isle-shim", std::env::consts::ARCH)
}

fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.parent().context("a directory")?)?;
    let strip = which("strip").context("strip is missing: apt-get install binutils")?;
    run(Command::new(strip).arg("--strip-debug").arg("-o").arg(to).arg(from))
}
