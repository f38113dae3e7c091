//! Which limits of a container make sense, and which this machine has: refused before anything is written to a cgroup,
//! in Docker's words.

use crate::container::HostConfig;
use std::collections::BTreeSet;

/// What there is of what can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// As the kernel lists them: `0-3,8`.
    pub cpus: String,
    pub memory_nodes: String,
}

/// Bytes.
const LEAST_MEMORY: i64 = 6 << 20;

/// # Errors
/// In Docker's words.
pub fn check(host: &HostConfig, machine: &Machine) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
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
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return refuse("conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return refuse("conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let cpus = parse_list(&machine.cpus).unwrap_or_default();
    if let Ok(count) = i64::try_from(cpus.len())
        && count > 0
        && !(0..=count * 1_000_000_000).contains(&host.nano_cpus)
    {
        return Err(format!("range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return refuse("range of blkio weight is from 10 to 1000");
    }
    available("CPUs", "cpuset cpus", &host.cpuset_cpus, &machine.cpus)?;
    available("memory nodes", "cpuset mems", &host.cpuset_mems, &machine.memory_nodes)
}

fn available(what: &str, field: &str, requested: &str, there: &str) -> Result<(), String> {
    let Some(wanted) = parse_list(requested) else {
        return Err(format!("invalid value {requested} for {field}"));
    };
    match parse_list(there) {
        // Where the kernel does not list them, it is the kernel that judges.
        Some(all) if !all.is_empty() && !wanted.is_subset(&all) => {
            Err(format!("requested {what} are not available - requested {requested}, available: {there}"))
        }
        _ => Ok(()),
    }
}

/// A list as in cpuset(7): `0-2,7`. Empty is none.
fn parse_list(text: &str) -> Option<BTreeSet<u16>> {
    let mut all = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
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
        refused(|h| h.cpuset_mems = "1".into(), "requested memory nodes are not available - requested 1, available: 0");
    }
}
