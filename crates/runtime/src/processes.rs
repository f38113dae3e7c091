//! The processes of a container, as `top` shows them: what proc(5) says of each.

/// One process of a container, as `top` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// In the daemon's pid namespace, as the parent's is.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// The real one, in the daemon's user namespace.
    pub uid: u32,
    /// One letter, as ps has it.
    pub state: char,
    /// Seconds since it began.
    pub age: u64,
    /// Seconds of CPU that it used.
    pub cpu: u64,
    /// The terminal's device number, 0 for none.
    pub tty: i32,
    /// Bytes of memory.
    pub resident: u64,
    /// Bytes of address space.
    pub size: u64,
    /// From -20, the most, to 19.
    pub nice: i64,
    /// The program's name as the kernel has it.
    pub name: String,
    /// With arguments; the bare name in brackets where there are none.
    pub command: String,
}

/// What /proc says of one process; `None` if it has ended meanwhile.
pub(crate) fn info(pid: i32) -> Option<ProcessInfo> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let ticks = kernel::process::ticks_per_second();
    let up = uptime.split('.').next()?.parse::<u64>().ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())?;
    Some(ProcessInfo {
        pid,
        ppid: number(1) as i32,
        uid,
        state: fields.first()?.chars().next()?,
        age: up.saturating_sub(number(19) / ticks),
        cpu: (number(11) + number(12)) / ticks,
        tty: number(4) as i32,
        resident: number(21) * kernel::process::page_size(),
        size: number(20),
        nice: fields.get(16).and_then(|text| text.parse().ok()).unwrap_or(0),
        name: name.to_owned(),
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}
