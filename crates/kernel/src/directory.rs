//! Hearing of changes in a directory (inotify).

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// A watch on a directory.
pub struct Watch(AsyncFd<std::os::fd::OwnedFd>);

/// Watches a directory: files that are written, made there, moved there; and its own end.
///
/// # Errors
/// There is no such directory, or this user has no more inotify instances.
pub fn watch(directory: &Path) -> io::Result<Watch> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, directory, events)?;
    Ok(Watch(crate::readiness::watch_reading(watch)?))
}

impl Watch {
    /// Returns when something has changed since the last call. Cancel-safe.
    ///
    /// # Errors
    /// The event loop is ending.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut sink = [0; 4096];
        while rustix::io::read(self.0.get_ref(), &mut sink).is_ok_and(|n| n > 0) {}
        ready.clear_ready();
        Ok(())
    }
}
