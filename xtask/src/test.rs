//! Running the tests: all of them, or a floor.

use crate::machine::{TESTS, ensure, is_root};
use crate::{build, cargo, run};
use anyhow::bail;
use testkit::images::which;

/// Those that make network namespaces and containers. What stands beside the code needs neither, in any crate.
const ROOT: &str = "kind(test) & (package(testkit) + package(network) + package(runtime) + package(isle) + package(image)) \
                    - binary(architecture)";

pub fn all() -> anyhow::Result<()> {
    if !is_root()? {
        bail!("the tests make network namespaces and containers: run them as root, or 'cargo xtask test unit'");
    }
    ensure(TESTS)?;
    build::debug()?;
    nextest(&["--workspace"])
}

pub fn unit() -> anyhow::Result<()> {
    nextest(&["--workspace", "-E", &format!("not ({ROOT})")])
}

pub fn system() -> anyhow::Result<()> {
    ensure(TESTS)?;
    build::debug()?;
    nextest(&["--package", "testkit", "--package", "isle"])
}

/// nextest where it is; else cargo's own runner.
fn nextest(arguments: &[&str]) -> anyhow::Result<()> {
    let mut tests = cargo();
    tests.current_dir(build::root());
    if which("cargo-nextest").is_some() {
        // A test that needs root fails where it cannot run; skipping would hide it.
        return run(tests.args(["nextest", "run", "--no-fail-fast"]).args(arguments).env("REQUIRE_NETNS", "1"));
    }
    println!("cargo-nextest is not here: running by cargo test, without selecting");
    run(tests.args(["test", "--workspace", "--no-fail-fast"]).env("REQUIRE_NETNS", "1"))
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
