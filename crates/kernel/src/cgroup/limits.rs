//! Which values in which files make a limit, in both versions: pure. [`Cgroup::limit`](super::Cgroup::limit) writes them.

/// Limits, as plain numbers; `None` leaves a limit as it is, negative means unlimited where the kernel knows that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, as version 1 and Docker count.
    pub memory_and_swap: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    /// 0 to 100; version 1 only.
    pub swappiness: Option<u64>,
    /// Processes that want too much memory wait instead; version 1 only.
    pub disable_oom_killer: bool,
    /// Relative, 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// A list as `0-2,4`.
    pub cpus: Option<String>,
    /// The same of NUMA nodes.
    pub memory_nodes: Option<String>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub block_weight: Option<u16>,
    /// (file of version 1 without `blkio.throttle.`, major, minor, rate).
    pub block_throttle: Vec<(Throttle, i64, i64, u64)>,
}

/// What a block device's rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Bytes read a second.
    ReadBytes,
    /// Bytes written a second.
    WriteBytes,
    /// Reads a second.
    ReadOperations,
    /// Writes a second.
    WriteOperations,
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Of version 1, whose directory has the file.
    pub controller: &'static str,
    /// What is limited, for people.
    pub what: &'static str,
    /// The first that is there is written.
    pub files: &'static [&'static str],
    pub value: String,
    /// A kernel without the file has nothing to limit.
    pub may_be_missing: bool,
}

impl Write {
    fn new(controller: &'static str, what: &'static str, file: &'static [&'static str], value: impl ToString) -> Self {
        Self { controller, what, files: file, value: value.to_string(), may_be_missing: false }
    }

    /// What to write so that the file says again what it said before: some files say it otherwise than they are told.
    pub fn undoing(&self, before: &str) -> String {
        let file = self.files.first().copied().unwrap_or_default();
        match file {
            // One line a device; a device without one has no limit.
            "io.max" => {
                let (device, limit) = self.value.split_once(' ').unwrap_or((&self.value, ""));
                let key = limit.split('=').next().unwrap_or_default();
                of_device(before, device).unwrap_or_else(|| format!("{device} {key}=max"))
            }
            _ if file.starts_with("blkio.throttle.") => {
                let device = self.value.split(' ').next().unwrap_or_default();
                of_device(before, device).unwrap_or_else(|| format!("{device} 0"))
            }
            "memory.oom_control" => {
                let first = before.lines().find_map(|line| line.strip_prefix("oom_kill_disable "));
                first.unwrap_or("0").trim().to_owned()
            }
            // What is said of all devices comes first.
            "io.weight" | "blkio.weight" => before.lines().next().unwrap_or_default().to_owned(),
            // An empty write would be none.
            _ if before.trim().is_empty() => "\n".to_owned(),
            _ => before.trim().to_owned(),
        }
    }
}

fn of_device(table: &str, device: &str) -> Option<String> {
    let line = table.lines().find(|line| line.split(' ').next() == Some(device));
    line.map(|line| line.trim().to_owned())
}

/// What is to be written, in an order that the kernel accepts. `swap` is the present limit of memory and swap together,
/// in bytes, which only version 1 knows.
pub(super) fn writes(limits: &Limits, unified: bool, swap: Option<u64>) -> Vec<Write> {
    if unified { writes_v2(limits) } else { writes_v1(limits, swap) }
}

fn writes_v2(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut set = |file: &'static [&'static str], value: String| writes.push(Write::new("", "", file, value));
    if let Some(memory) = limits.memory {
        set(&["memory.max"], or_max(memory));
    }
    if let Some(both) = limits.memory_and_swap {
        let swap = match limits.memory {
            _ if both < 0 => "max".to_owned(),
            Some(memory) if memory >= 0 => (both - memory).max(0).to_string(),
            _ => "max".to_owned(),
        };
        set(&["memory.swap.max"], swap);
    }
    if let Some(reservation) = limits.memory_reservation {
        set(&["memory.low"], or_max(reservation));
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        set(&["cpu.weight"], weight(shares).to_string());
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits.cpu_quota.filter(|quota| *quota > 0).unwrap_or(-1);
        set(&["cpu.max"], format!("{} {}", or_max(quota), limits.cpu_period.filter(|p| *p > 0).unwrap_or(100_000)));
    }
    if let Some(cpus) = limits.cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
        set(&["cpuset.cpus"], cpus.clone());
    }
    if let Some(nodes) = limits.memory_nodes.as_ref().filter(|nodes| !nodes.is_empty()) {
        set(&["cpuset.mems"], nodes.clone());
    }
    if let Some(pids) = limits.pids {
        set(&["pids.max"], processes(pids));
    }
    if let Some(weight) = limits.block_weight.filter(|weight| *weight > 0) {
        let weight = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        set(&["io.weight"], format!("default {weight}"));
    }
    for (what, major, minor, rate) in &limits.block_throttle {
        let key = match what {
            Throttle::ReadBytes => "rbps",
            Throttle::WriteBytes => "wbps",
            Throttle::ReadOperations => "riops",
            Throttle::WriteOperations => "wiops",
        };
        set(&["io.max"], format!("{major}:{minor} {key}={rate}"));
    }
    for write in &mut writes {
        // A kernel without swap accounting.
        write.may_be_missing = write.files == ["memory.swap.max"];
    }
    writes
}

fn writes_v1(limits: &Limits, swap: Option<u64>) -> Vec<Write> {
    let mut writes = Vec::new();
    let memory =
        limits.memory.map(|bytes| Write::new("memory", "a limit of memory", &["memory.limit_in_bytes"], bytes));
    let both = limits.memory_and_swap.map(|bytes| Write {
        // A kernel without swap accounting.
        may_be_missing: true,
        ..Write::new("memory", "a limit of memory", &["memory.memsw.limit_in_bytes"], bytes)
    });
    // The sum may never be less than the part: raise it first, lower it last.
    let now = swap.unwrap_or(u64::MAX);
    let raises = limits.memory_and_swap.is_some_and(|bytes| bytes < 0 || bytes.unsigned_abs() > now);
    writes.extend(if raises { [both, memory] } else { [memory, both] }.into_iter().flatten());
    let mut set = |controller, what, file: &'static [&'static str], value: String| {
        writes.push(Write::new(controller, what, file, value));
    };
    if let Some(bytes) = limits.memory_reservation {
        set("memory", "a memory reservation", &["memory.soft_limit_in_bytes"], bytes.to_string());
    }
    if let Some(swappiness) = limits.swappiness {
        set("memory", "swappiness", &["memory.swappiness"], swappiness.to_string());
    }
    if limits.disable_oom_killer {
        set("memory", "switching the OOM killer off", &["memory.oom_control"], "1".to_owned());
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        set("cpu", "a share of CPU time", &["cpu.shares"], shares.to_string());
    }
    if let Some(period) = limits.cpu_period.filter(|period| *period > 0) {
        set("cpu", "a limit of CPU time", &["cpu.cfs_period_us"], period.to_string());
    }
    if let Some(quota) = limits.cpu_quota.filter(|quota| *quota != 0) {
        set("cpu", "a limit of CPU time", &["cpu.cfs_quota_us"], quota.to_string());
    }
    if let Some(cpus) = limits.cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
        set("cpuset", "a set of CPUs", &["cpuset.cpus"], cpus.clone());
    }
    if let Some(nodes) = limits.memory_nodes.as_ref().filter(|nodes| !nodes.is_empty()) {
        set("cpuset", "a set of memory nodes", &["cpuset.mems"], nodes.clone());
    }
    if let Some(pids) = limits.pids {
        set("pids", "a limit of processes", &["pids.max"], processes(pids));
    }
    if let Some(weight) = limits.block_weight.filter(|weight| *weight > 0) {
        let files = &["blkio.weight", "blkio.bfq.weight"];
        set("blkio", "a share of disk transfers", files, weight.to_string());
    }
    for (what, major, minor, rate) in &limits.block_throttle {
        let file: &[&str] = match what {
            Throttle::ReadBytes => &["blkio.throttle.read_bps_device"],
            Throttle::WriteBytes => &["blkio.throttle.write_bps_device"],
            Throttle::ReadOperations => &["blkio.throttle.read_iops_device"],
            Throttle::WriteOperations => &["blkio.throttle.write_iops_device"],
        };
        set("blkio", "a limit of disk transfers", file, format!("{major}:{minor} {rate}"));
    }
    writes
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// As many as there may be; none given is no limit.
fn processes(limit: i64) -> String {
    if limit <= 0 { "max".to_owned() } else { limit.to_string() }
}

/// Version 1's shares (2 to 262144) as version 2's weight (1 to 10000), as runc converts them.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, unified: bool, swap: Option<u64>) -> Vec<String> {
        writes(limits, unified, swap).iter().map(|w| format!("{}={}", w.files[0], w.value)).collect()
    }

    #[test]
    fn limits_are_values_of_files_in_both_versions() {
        let limits = Limits {
            memory: Some(100),
            memory_and_swap: Some(300),
            cpu_shares: Some(1024),
            cpu_quota: Some(-1),
            cpu_period: Some(50_000),
            cpus: Some("0-1".into()),
            pids: Some(0),
            block_weight: Some(1000),
            block_throttle: vec![(Throttle::WriteBytes, 8, 0, 5)],
            ..Limits::default()
        };
        let v2 = [
            "memory.max=100",
            "memory.swap.max=200",
            "cpu.weight=39",
            "cpu.max=max 50000",
            "cpuset.cpus=0-1",
            "pids.max=max",
            "io.weight=default 10000",
            "io.max=8:0 wbps=5",
        ];
        assert_eq!(written(&limits, true, None), v2);
        let v1 = [
            "memory.limit_in_bytes=100",
            "memory.memsw.limit_in_bytes=300",
            "cpu.shares=1024",
            "cpu.cfs_period_us=50000",
            "cpu.cfs_quota_us=-1",
            "cpuset.cpus=0-1",
            "pids.max=max",
            "blkio.weight=1000",
            "blkio.throttle.write_bps_device=8:0 5",
        ];
        assert_eq!(written(&limits, false, None), v1);
        assert!(
            written(&Limits::default(), true, None).is_empty() && written(&Limits::default(), false, None).is_empty()
        );
    }

    #[test]
    fn memory_with_swap_is_never_less_than_memory() {
        let first = |both: i64, now: u64| {
            let limits = Limits { memory: Some(100), memory_and_swap: Some(both), ..Limits::default() };
            written(&limits, false, Some(now)).remove(0)
        };
        assert_eq!(first(300, 200), "memory.memsw.limit_in_bytes=300");
        assert_eq!(first(-1, 200), "memory.memsw.limit_in_bytes=-1");
        assert_eq!(first(100, 200), "memory.limit_in_bytes=100");
    }

    #[test]
    fn what_a_file_said_is_said_to_it_again() {
        let check = |file: &'static [&'static str], value: &str, before: &str, expected: &str| {
            assert_eq!(Write::new("", "", file, value).undoing(before), expected, "{file:?} {before:?}");
        };
        check(&["memory.max"], "5", "max\n", "max");
        check(&["cpuset.cpus"], "0", "\n", "\n");
        check(&["io.weight"], "default 7", "default 100\n8:0 50\n", "default 100");
        check(&["memory.oom_control"], "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "0");
        let table = "8:0 rbps=max wbps=9 riops=max wiops=max\n";
        check(&["io.max"], "8:0 wbps=5", table, table.trim());
        check(&["io.max"], "8:1 wbps=5", table, "8:1 wbps=max");
        check(&["blkio.throttle.read_bps_device"], "8:0 5", "8:0 9\n", "8:0 9");
        check(&["blkio.throttle.read_bps_device"], "8:0 5", "", "8:0 0");
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }
}
