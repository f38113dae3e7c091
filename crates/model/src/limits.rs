//! Which limits of a container make sense, and which this machine has: refused before anything is written to a cgroup,
//! in Docker's words.

use crate::container::HostConfig;
use std::ops::RangeInclusive;

/// What there is of what can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// As the kernel lists them: `0-3,8`.
    pub cpus: String,
    /// The same of NUMA nodes.
    pub memory_nodes: String,
}

/// Bytes.
const LEAST_MEMORY: i64 = 6 << 20;
/// The most processes that a machine can have (the kernel's `PID_MAX_LIMIT`).
const MAX_PIDS: i64 = 1 << 22;

/// # Errors
/// In Docker's words.
pub fn check(host: &HostConfig, machine: &Machine) -> Result<(), String> {
    memory(host)?;
    processors(host, machine)?;
    if host.pids_limit.is_some_and(|p| p > MAX_PIDS) {
        return Err(format!("invalid pids limit: a machine has {MAX_PIDS} processes at most; -1 is for no limit"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err("range of blkio weight is from 10 to 1000".into());
    }
    Ok(())
}

fn memory(host: &HostConfig) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    // Twice as much, with swap, is still to be a number.
    if host.memory > i64::MAX / 2 {
        return Err(format!("invalid memory limit: {} bytes are more than any machine has", host.memory));
    }
    for (name, bytes) in [("MemorySwap", host.memory_swap), ("MemoryReservation", host.memory_reservation)] {
        if bytes < -1 {
            return Err(format!("invalid {name}: {bytes}: a number of bytes is, or -1 for no limit"));
        }
    }
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return refuse("you should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|s| *s != -1 && !(0..=100).contains(s)) {
        return Err(format!("invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if host.memory_reservation != 0 && host.memory_reservation < LEAST_MEMORY {
        return refuse("minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return refuse("minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    Ok(())
}

fn processors(host: &HostConfig, machine: &Machine) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return refuse("conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return refuse("conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let count: i64 = parse_list(&machine.cpus).iter().flatten().map(|r| i64::from(r.end() - r.start()) + 1).sum();
    if count > 0 && !(0..=count * 1_000_000_000).contains(&host.nano_cpus) {
        return Err(format!("range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"));
    }
    // Where the kernel does not say how many there are, the quota is still to be a number.
    if host.nano_cpus < 0 || host.nano_cpus > i64::MAX / 100_000 {
        return Err(format!("invalid NanoCPUs: {}: it must be thousand-millionths of a CPU", host.nano_cpus));
    }
    if host.cpu_shares < 0 {
        return Err(format!("invalid CPU shares ({}): value must be a positive integer", host.cpu_shares));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    available("CPUs", "cpuset cpus", &host.cpuset_cpus, &machine.cpus)?;
    available("memory nodes", "cpuset mems", &host.cpuset_mems, &machine.memory_nodes)
}

fn available(what: &str, field: &str, requested: &str, there: &str) -> Result<(), String> {
    let Some(wanted) = parse_list(requested) else {
        return Err(format!("invalid value {requested} for {field}"));
    };
    let all = parse_list(there).unwrap_or_default();
    let is_there = |n: u16| all.iter().any(|range| range.contains(&n));
    // Where the kernel does not list them, it is the kernel that judges.
    if all.is_empty() || wanted.into_iter().flatten().all(is_there) {
        return Ok(());
    }
    Err(format!("requested {what} are not available - requested {requested}, available: {there}"))
}

/// A list as in cpuset(7): `0-2,7`. Empty is none.
fn parse_list(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let parts = text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first <= last).then_some(first..=last)
    };
    parts.map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_not_is_refused() {
        let machine = Machine { cpus: "0-1,3".into(), memory_nodes: "0".into() };
        let refused = |change: fn(&mut HostConfig), why: &str| {
            let mut host = HostConfig::default();
            change(&mut host);
            assert_eq!(check(&host, &machine).err().as_deref().unwrap_or("accepted"), why);
        };
        refused(|_| (), "accepted");
        refused(|h| h.memory = 4096, "Minimum memory limit allowed is 6MB");
        refused(
            |h| (h.memory, h.memory_swap) = (64 << 20, 32 << 20),
            "minimum memoryswap limit should be larger than memory limit, see usage",
        );
        refused(|h| (h.memory, h.memory_swap) = (64 << 20, -1), "accepted");
        refused(|h| h.nano_cpus = 3_000_000_000, "accepted");
        refused(
            |h| h.nano_cpus = 1_000_000_000_000,
            "range of CPUs is from 0.01 to 3.00, as there are only 3 CPUs available",
        );
        refused(|h| h.cpuset_cpus = "0,3".into(), "accepted");
        refused(|h| h.cpuset_cpus = "2".into(), "requested CPUs are not available - requested 2, available: 0-1,3");
        refused(|h| h.cpuset_cpus = "1-x".into(), "invalid value 1-x for cpuset cpus");
        refused(|h| h.cpuset_mems = "3-1".into(), "invalid value 3-1 for cpuset mems");
        refused(|h| h.cpuset_mems = "1".into(), "requested memory nodes are not available - requested 1, available: 0");
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused_on_any_machine() {
        let refused = |change: fn(&mut HostConfig), words: &str| {
            let mut host = HostConfig::default();
            change(&mut host);
            let why = check(&host, &Machine::default()).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        };
        refused(|h| h.memory = i64::MAX, "invalid memory limit");
        refused(|h| h.memory_swap = -2, "invalid MemorySwap");
        refused(|h| h.nano_cpus = i64::MAX, "invalid NanoCPUs");
        refused(|h| h.nano_cpus = -1, "invalid NanoCPUs");
        refused(|h| h.cpu_shares = -1, "invalid CPU shares (-1)");
        refused(|h| h.cpu_quota = 1, "CPU cfs quota");
        refused(|h| h.cpu_period = 1, "CPU cfs period");
        refused(|h| h.pids_limit = Some(i64::MAX), "invalid pids limit");
        refused(|h| h.oom_score_adj = 99_999, "range for oom score adj");
        refused(|h| h.shm_size = -1, "SHM size");
        refused(|h| h.cpuset_cpus = "a-b".into(), "invalid value a-b for cpuset cpus");
    }
}
