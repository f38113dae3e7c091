//! Running the tests: all of them, or a floor.

use crate::machine::{TESTS, ensure, is_root};
use crate::{build, cargo, run};
use anyhow::bail;
use std::process::Command;
use testkit::images::which;

/// Packages whose `tests/` make network namespaces and containers. What stands beside the code makes neither, or says
/// `SKIP:` where it may not.
const ROOT: [&str; 5] = ["testkit", "network", "runtime", "isle", "image"];

/// Every test.
pub fn all() -> anyhow::Result<()> {
    if !is_root()? {
        bail!("the tests make network namespaces and containers: run them as root, or 'cargo xtask test unit'");
    }
    ensure(TESTS)?;
    build::debug()?;
    run(runner(&["--workspace"]).env(REQUIRED.0, REQUIRED.1))
}

/// Those that need nothing, by whomever they are run.
pub fn unit() -> anyhow::Result<()> {
    if has_nextest() {
        let with_root = ROOT.map(|package| format!("package({package})")).join(" + ");
        let selected = format!("not (kind(test) & ({with_root}) - binary(architecture))");
        return run(&mut runner(&["--workspace", "-E", &selected]));
    }
    run(&mut runner(&["--workspace", "--lib", "--bins"]))?;
    let excluded = ROOT.iter().flat_map(|package| ["--exclude", package]);
    run(runner(&["--workspace", "--test", "*"]).args(excluded))?;
    run(&mut runner(&["--package", "testkit", "--test", "architecture"]))
}

/// Those of the whole product.
pub fn system() -> anyhow::Result<()> {
    ensure(TESTS)?;
    build::debug()?;
    run(runner(&["--package", "testkit", "--package", "isle"]).env(REQUIRED.0, REQUIRED.1))
}

/// Where everything is to be there: a test that cannot run fails, since skipping would hide it.
const REQUIRED: (&str, &str) = ("REQUIRE_NETNS", "1");

fn has_nextest() -> bool {
    which("cargo-nextest").is_some()
}

/// nextest where it is; else cargo's own runner.
fn runner(arguments: &[&str]) -> Command {
    let mut tests = cargo();
    tests.current_dir(build::root());
    let runner: &[&str] = if has_nextest() { &["nextest", "run"] } else { &["test"] };
    tests.args(runner).arg("--no-fail-fast").args(arguments);
    tests
}

pub fn lint() -> anyhow::Result<()> {
    let root = build::root();
    run(cargo().current_dir(&root).args(["fmt", "--all", "--check"]))?;
    run(cargo().current_dir(&root).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "testkit/guest",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    if which("cargo-deny").is_none() {
        println!("SKIP: cargo-deny is not here: licences, bans and sources are not checked");
        return Ok(());
    }
    run(cargo().current_dir(&root).args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}
