//! Suites that others wrote, run against Isle: what the clients that people have expect of an engine.
//!
//! Each runs in a lab of its own: a daemon in a network namespace without a way out. What it pulls comes from a registry
//! on the loopback of that namespace, which has stand-ins ([`stand_ins`]). [`suites`] says how each is had and run,
//! [`expected`] which failures are known: docs/clients.md, with their reasons.

mod expected;
mod room;
mod stand_ins;
mod suites;

use crate::build;
use crate::machine::{CLIENTS, ensure, is_root};
use anyhow::{bail, ensure as must};
use expected::Expected;
use room::Room;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use suites::{SUITES, Suite};

/// How tests ended, by their names.
type Outcomes = BTreeMap<String, Outcome>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Where the suites are unpacked and their surroundings installed.
fn workshop() -> PathBuf {
    build::target().join("clients")
}

/// Runs the suites named, or all; words after a suite's name that start with a dash go to its runner.
pub fn test(words: &[&str]) -> anyhow::Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with('-'));
    if let Some(unknown) = names.iter().find(|n| SUITES.iter().all(|s| s.name != **n)) {
        let known: Vec<&str> = SUITES.iter().map(|s| s.name).collect();
        bail!("no suite is called {unknown:?}; there are {}", known.join(", "));
    }
    let program = ready()?;
    let expected = Expected::read(&build::root())?;
    let wanted = SUITES.iter().filter(|s| names.is_empty() || names.contains(&s.name));
    let mut rows = Vec::new();
    let mut surprises = 0;
    for suite in wanted {
        println!("--- {}: {}", suite.name, suite.what);
        let outcomes = run(suite, &program, &options)?;
        surprises += report(suite, &outcomes, &expected);
        rows.push((suite, outcomes));
    }
    // Some suites, or a part of one: that is no count to be written down.
    if names.is_empty() && options.is_empty() {
        expected::write_counts(&build::root(), &rows)?;
    }
    must!(surprises == 0, "{surprises} tests ended otherwise than docs/clients.md says");
    Ok(())
}

/// A command in a room as the suites have it: for a look around.
pub fn inside(words: &[&str]) -> anyhow::Result<()> {
    let Some((command, arguments)) = words.split_first() else { bail!("which command?") };
    let room = Room::new(&ready()?)?;
    let status = room.spawn(Command::new(command).args(arguments))?.wait()?;
    must!(status.success(), "{command}: {status}");
    Ok(())
}

fn ready() -> anyhow::Result<PathBuf> {
    must!(is_root()?, "the suites need a daemon, which needs root");
    ensure(CLIENTS)?;
    build::debug()
}

fn run(suite: &Suite, program: &std::path::Path, options: &[&str]) -> anyhow::Result<Outcomes> {
    let prepared = (suite.prepare)(&workshop())?;
    let room = Room::new(program)?;
    let outcomes = room.run(suite, &prepared, options)?;
    must!(!outcomes.is_empty(), "{}: no test ran", suite.name);
    Ok(outcomes)
}

/// Says how a suite went; how many tests ended otherwise than expected.
fn report(suite: &Suite, outcomes: &Outcomes, expected: &Expected) -> usize {
    let count = |wanted: Outcome| outcomes.values().filter(|o| **o == wanted).count();
    println!(
        "{}: {} passed, {} failed, {} skipped",
        suite.name,
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    );
    let mut surprises = 0;
    for (test, outcome) in outcomes {
        let known = expected.reason(suite.name, test);
        match (outcome, known) {
            (Outcome::Failed, None) => println!("  unexpected failure: {test}"),
            (Outcome::Passed, Some(_)) => println!("  passes, though docs/clients.md says that it fails: {test}"),
            _ => continue,
        }
        surprises += 1;
    }
    surprises
}
