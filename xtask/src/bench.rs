//! `cargo xtask bench`: Isle beside the peers that this machine has, in one run, by whole commands.

mod figures;
mod peers;
mod report;

pub use figures::poll;

use crate::build;
use crate::machine::{BENCH, ensure, is_root};
use anyhow::{Context, bail, ensure as must};
use figures::Effort;
use peers::Peer;
use std::path::PathBuf;

/// Where the figures are kept, beside the code that they are of.
const DOCUMENT: &str = "docs/performance.md";
const CURVE: &str = "docs/start-latency.svg";

/// Measures, prints, and with `--write` keeps it. `--quick` does less of all; `--program PATH` measures another build than
/// the one for people.
pub fn bench(words: &[&str]) -> anyhow::Result<()> {
    must!(is_root()?, "containers need root: run 'cargo xtask bench' as root");
    let mut effort = Effort { runs: 10, containers: 100 };
    let (mut program, mut is_kept) = (None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => effort = Effort { runs: 3, containers: 20 },
            "--write" => is_kept = true,
            "--program" => program = Some(PathBuf::from(words.next().context("--program needs a path")?)),
            other => bail!("unknown word {other:?}: --quick, --write and --program PATH are known"),
        }
    }
    ensure(BENCH)?;
    let program = match program {
        Some(program) => program,
        None => {
            build::dist()?;
            build::target().join("dist/isle")
        }
    };
    let mut peers = vec![Peer::isle(&program)?];
    for (name, peer) in [("docker", Peer::docker()), ("podman", Peer::podman())] {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(e) => eprintln!("{name} is left out: {e:#}"),
        }
    }
    let (figures, growth) = figures::all(&peers, effort)?;
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let table = report::table(&names, &figures);
    println!("{table}");
    if is_kept {
        let text = format!(
            "# Performance\n\nWritten by `cargo xtask bench --write`: medians of {} alternating runs by whole commands, with \
             the least and the most, each engine in a network namespace of its own; on {}.\n\n{table}\n\
             ![Start latency](start-latency.svg)\n\nWhat is not measured here yet: data paths between containers and to \
             published ports, 1,000 containers, pulls and builds.\n",
            effort.runs,
            machine()?
        );
        std::fs::write(build::root().join(DOCUMENT), text).context(DOCUMENT)?;
        std::fs::write(build::root().join(CURVE), report::curve(&names, &growth)).context(CURVE)?;
    }
    Ok(())
}

/// The processor, the kernel and the memory.
fn machine() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).context(path.to_owned());
    let (cpu, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let of = |text: &str, key: &str| {
        text.lines().find_map(|l| Some(l.strip_prefix(key)?.split_once(':')?.1.trim().to_owned()))
    };
    let processors = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let kib: u64 = of(&memory, "MemTotal").and_then(|m| m.split(' ').next()?.parse().ok()).unwrap_or_default();
    Ok(format!(
        "{processors} processors ({}), {} GiB, Linux {}",
        of(&cpu, "model name").unwrap_or_else(|| "unknown".into()),
        kib >> 20,
        read("/proc/sys/kernel/osrelease")?.trim()
    ))
}
