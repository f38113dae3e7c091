//! `cargo xtask …`: what a person or CI does with this repository.

use anyhow::{Context, bail};
use std::process::Command;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("test") => run(Command::new("cargo").args(["nextest", "run", "--workspace"])),
        other => bail!("cargo xtask {}: there is 'test'", other.unwrap_or("")),
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
