//! Waiting for a descriptor in tokio's event loop.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that is set to be non-blocking, for reading and writing.
///
/// # Errors
/// The descriptor cannot be polled (a regular file), or there is no event loop here.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor for as long as it lives, which is as long as the registration.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// The same, for reading only: a pidfd, for one.
///
/// # Errors
/// See [`watch`].
pub fn watch_reading(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as in `watch`.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
