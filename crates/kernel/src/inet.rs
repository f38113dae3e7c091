//! Plain internet sockets, in the network namespace of the calling thread.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// A TCP or UDP socket, neither bound nor connected.
///
/// # Errors
/// `EMFILE` without descriptors, `EAFNOSUPPORT` without IPv6.
pub fn socket(ipv6: bool, tcp: bool) -> Result<OwnedFd, Errno> {
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

/// The number of an interface in the network namespace of a socket.
///
/// # Errors
/// `ENODEV` if there is none of this name.
pub fn interface_number(socket: impl AsFd, name: &str) -> Result<u32, Errno> {
    rustix::net::netdevice::name_to_index(socket, name)
}

/// Where a connection was going before the firewall redirected it here (`SO_ORIGINAL_DST`); IPv4 addresses are told as
/// such, also where the socket is an IPv6 one.
///
/// # Errors
/// `ENOENT` if it was not redirected.
pub fn original_destination(connection: impl AsFd) -> Result<SocketAddr, Errno> {
    let asked: SocketAddr = match rustix::net::sockopt::ipv6_original_dst(&connection) {
        Ok(asked) => asked.into(),
        Err(_) => rustix::net::sockopt::ip_original_dst(&connection)?.into(),
    };
    let ip = match asked.ip() {
        IpAddr::V6(ip) => ip.to_canonical(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, asked.port()))
}

/// Has the kernel ask the other end of a silent TCP connection whether it is still there: every 15 s, and it is gone when
/// it has not answered nine times (the values of Docker's proxy).
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn keep_alive(connection: impl AsFd) -> Result<(), Errno> {
    const EVERY: std::time::Duration = std::time::Duration::from_secs(15);
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(&connection, true)?;
    sockopt::set_tcp_keepidle(&connection, EVERY)?;
    sockopt::set_tcp_keepintvl(&connection, EVERY)?;
    sockopt::set_tcp_keepcnt(&connection, 9)
}
