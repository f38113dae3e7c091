//! Network namespaces: making them, and acting inside one.
//!
//! A namespace belongs to a thread, and a thread that has changed its namespace must never be used for anything else
//! again. So both acts here run on a thread that is thrown away; what they leave behind is descriptors, which keep the
//! namespace they were opened in.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

/// Bytes of stack for a thrown-away thread: enough for a netlink exchange, and cheap to map.
const STACK: usize = 256 * 1024;

/// The network namespace of the calling thread.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// A fresh network namespace, and what `f` gave when it ran inside it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at `user.max_net_namespaces`.
pub fn create<R: Send>(f: impl FnOnce() -> R + Send) -> io::Result<(OwnedFd, R)> {
    thrown_away(|| {
        // SAFETY: unshare takes no pointers; it changes the namespace of this thread, which is thrown away.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((current()?, f()))
    })?
}

/// Runs `f` on a thread inside `namespace`.
///
/// # Errors
/// `EINVAL` if the descriptor is no network namespace, `EPERM` without CAP_SYS_ADMIN over it; `EAGAIN` if no thread
/// can be made.
pub fn inside<R: Send>(namespace: BorrowedFd<'_>, f: impl FnOnce() -> R + Send) -> io::Result<R> {
    thrown_away(|| {
        // SAFETY: setns takes no pointers; the descriptor is borrowed for the call, the thread is thrown away.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(f())
    })?
}

/// Which namespace a descriptor means: equal for two descriptors of the same one.
pub fn identity(namespace: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn thrown_away<R: Send>(f: impl FnOnce() -> R + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_namespace_outlives_its_thread_and_differs_from_ours() {
        let (namespace, id) = match create(|| identity(current().unwrap().as_fd()).unwrap()) {
            Ok(made) => made,
            Err(e) => {
                assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "{e}");
                eprintln!("SKIP: no network namespace can be made: {e}");
                return;
            }
        };
        let ours = identity(current().unwrap().as_fd()).unwrap();
        assert_ne!(id, ours);
        assert_eq!(inside(namespace.as_fd(), || identity(current().unwrap().as_fd()).unwrap()).unwrap(), id);
        assert_eq!(identity(current().unwrap().as_fd()).unwrap(), ours, "the calling thread stays where it was");
    }
}
