//! What containers use, and which processes they have.

use crate::error::{Error, Result};
use crate::{Engine, blocking};
use jiff::Timestamp;
pub use kernel::cgroup::{BlockUsage, Usage};
use model::container::NetworkMode;
use model::id::ContainerId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a container uses at a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub id: ContainerId,
    pub name: String,
    /// None: it does not run.
    pub used: Option<Used>,
}

#[derive(Clone, Debug)]
pub struct Used {
    pub at: Timestamp,
    pub usage: Usage,
    /// Nanoseconds of CPU that the whole machine has used since it was booted.
    pub machine_cpu: u64,
    pub cpus: usize,
    /// Bytes.
    pub machine_memory: u64,
    /// By the interface's name in the container; none where it has the host's.
    pub networks: Option<BTreeMap<String, Traffic>>,
    pub cgroup_v1: bool,
}

/// What has passed one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: Counted,
    pub sent: Counted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

impl Engine {
    /// What a container uses now.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn sample(self: &Arc<Self>, id: ContainerId) -> Result<Sample> {
        let (record, live) = {
            let state = self.state();
            let entry = state.entry(id)?;
            (entry.record.clone(), entry.live.clone())
        };
        let mut sample = Sample { id, name: record.name.clone(), used: None };
        let Some(live) = live else { return Ok(sample) };
        // It may end at any moment: then it does not run.
        let Ok(usage) = live.stats().await else { return Ok(sample) };
        let pid = live.pid();
        let host_network = matches!(record.host.network_mode(), NetworkMode::Host);
        let cgroup_v1 = self.runtime.is_cgroup_v1();
        sample.used = blocking(move || {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let networks = if host_network { None } else { Some(traffic(&read(&format!("/proc/{pid}/net/dev")))) };
            Some(Used {
                at: Timestamp::now(),
                usage,
                machine_cpu: machine_cpu(&read("/proc/stat")),
                cpus: std::thread::available_parallelism().map_or(1, Into::into),
                machine_memory: crate::info::total_memory(&read("/proc/meminfo")),
                networks,
                cgroup_v1,
            })
        })
        .await;
        Ok(sample)
    }

    /// # Errors
    /// There is none, or several.
    pub fn container_id(&self, reference: &str) -> Result<ContainerId> {
        self.state().resolve(reference)
    }

    /// A container's processes.
    ///
    /// # Errors
    /// It does not run.
    pub async fn top(&self, reference: &str) -> Result<Vec<runtime::ProcessInfo>> {
        let (record, live) = {
            let state = self.state();
            let entry = state.find(reference)?;
            (entry.record.clone(), entry.live.clone())
        };
        let not_running = || Error::conflict(format!("container {} is not running", record.id));
        let live = live.ok_or_else(not_running)?;
        let processes = live.top().await.map_err(|_| not_running())?;
        self.tell_container(&record, "top", &[]);
        Ok(processes)
    }
}

/// The first line of `/proc/stat`, without the time that guests' is in already (proc(5)).
fn machine_cpu(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    let ticks: u64 = first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks * (1_000_000_000 / kernel::process::ticks_per_second())
}

/// `/proc/PID/net/dev`, but for the loopback.
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let one = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let counted = |at: usize| Counted {
            bytes: counts[at],
            packets: counts[at + 1],
            errors: counts[at + 2],
            dropped: counts[at + 3],
        };
        let name = name.trim();
        (counts.len() >= 12 && name != "lo")
            .then(|| (name.to_owned(), Traffic { received: counted(0), sent: counted(8) }))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop fifo\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
                    eth0:     796      10    1    2    0     0          0         0      266       3    4    5    0     0       0          0\n";
        let read = traffic(text);
        assert_eq!(read.len(), 1);
        let Traffic { received, sent } = read["eth0"];
        assert_eq!(received, Counted { bytes: 796, packets: 10, errors: 1, dropped: 2 });
        assert_eq!(sent, Counted { bytes: 266, packets: 3, errors: 4, dropped: 5 });
        let tick = 1_000_000_000 / kernel::process::ticks_per_second();
        assert_eq!(machine_cpu("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 1 1 1\n"), 36 * tick);
    }
}
