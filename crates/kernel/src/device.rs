//! Numbers of device nodes.

/// The major number of a `st_rdev`.
pub fn major(number: u64) -> u32 {
    rustix::fs::major(number)
}

/// The minor number of a `st_rdev`.
pub fn minor(number: u64) -> u32 {
    rustix::fs::minor(number)
}
