//! Plain internet sockets, in the network namespace of the calling thread.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::os::fd::OwnedFd;

/// A TCP or UDP socket, neither bound nor connected.
///
/// # Errors
/// `EMFILE` without descriptors, `EAFNOSUPPORT` without IPv6.
pub fn socket(ipv6: bool, tcp: bool) -> Result<OwnedFd, Errno> {
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}
