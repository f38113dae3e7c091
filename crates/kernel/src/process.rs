//! This process, and what the kernel counts processes' lives in.

/// The capabilities that this process is permitted, by bits.
pub fn permitted_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits())
}

/// The unit of times in `/proc/PID/stat`: so many a second.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// The unit of memory there, in bytes.
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
