//! Processes held by descriptor (pidfd_open(2)), this process's own limits, and what lives are counted in.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::process::{self, PidfdFlags, Resource, Rlimit, Signal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A pidfd of this process, to be given to others.
///
/// # Errors
/// No descriptors are left.
pub fn own_pidfd() -> Result<OwnedFd, Errno> {
    process::pidfd_open(process::getpid(), PidfdFlags::empty())
}

/// The user that this process acts as.
pub fn own_user() -> u32 {
    process::geteuid().as_raw()
}

/// Whether the process of a pidfd has ended, or does so within `limit`.
///
/// # Errors
/// As poll(2).
pub fn has_ended(pidfd: impl AsFd, limit: Duration) -> Result<bool, Errno> {
    let limit =
        Timespec { tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut polled, Some(&limit)))? > 0)
}

/// Kills the process of a pidfd; one that has ended already is killed.
///
/// # Errors
/// It is not ours to kill.
pub fn kill(pidfd: impl AsFd) -> Result<(), Errno> {
    match process::pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Lets this process open as many descriptors as it is allowed to at all (RLIMIT_NOFILE); what it was allowed before,
/// softly and at all. `None` is without limit.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_descriptor_limit() -> Result<(Option<u64>, Option<u64>), Errno> {
    let Rlimit { current, maximum } = process::getrlimit(Resource::Nofile);
    process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok((current, maximum))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_by_its_pidfd_and_seen_to_end() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = process::pidfd_open(process::Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(!has_ended(&pidfd, Duration::ZERO).unwrap());
        kill(&pidfd).unwrap();
        assert!(has_ended(&pidfd, Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
        kill(&pidfd).unwrap();
        assert!(!has_ended(own_pidfd().unwrap(), Duration::ZERO).unwrap());
    }
}
