//! Sockets that hold a port, so that nobody else gets it and 'already in use' is the kernel's own word.
//!
//! Nothing arrives on a port that is only held: TCP does not listen, and UDP is bound to a device that carries nothing, so
//! senders are refused as for a closed port. Who wants to answer on it names no device, and says so by [`listen`].
//!
//! A socket that just held the port and lingers (TIME_WAIT) is no obstacle, since the bind is done with SO_REUSEADDR; a
//! second server is refused all the same, since that is then switched off.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, socket_with, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A transport with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260; not every kernel has it.
    Sctp,
}

/// A bound socket, and the port that it holds. `port` 0: one that the kernel chooses. `device`: the socket hears
/// nothing but this device.
///
/// # Errors
/// `EADDRINUSE` if somebody has it, `EADDRNOTAVAIL` if the address is not this host's, `EACCES` below 1024 without
/// CAP_NET_BIND_SERVICE, `EPROTONOSUPPORT` if the kernel has no SCTP (nobody can hold a port then).
pub fn hold(transport: Transport, ip: IpAddr, port: u16, device: Option<&str>) -> Result<(OwnedFd, u16), Errno> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        Transport::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if let Some(device) = device {
        bind_to_device(&socket, device)?;
    }
    let lingers = transport != Transport::Udp;
    if lingers {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(ip, port))?;
    if lingers {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    let bound = SocketAddr::try_from(getsockname(&socket)?).map_err(|_| Errno::AFNOSUPPORT)?;
    Ok((socket, bound.port()))
}

fn bind_to_device(socket: &OwnedFd, device: &str) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let length = device.len() as u32;
    // SAFETY: the pointer and the length describe `device`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Room for this many bytes of datagrams that wait to be read, whatever the limit of the host is where we may.
pub fn make_room(socket: &OwnedFd, bytes: usize) -> Result<(), Errno> {
    sockopt::set_socket_recv_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, bytes))
}

/// Makes a held TCP port one that answers.
pub fn listen(socket: &OwnedFd, backlog: i32) -> Result<(), Errno> {
    rustix::net::listen(socket, backlog)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn nobody_else_gets_a_held_port_and_its_clients_are_refused() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (held, port) = hold(Transport::Tcp, here, 0, None).unwrap();
        assert_eq!(hold(Transport::Tcp, here, port, None).unwrap_err(), Errno::ADDRINUSE);
        assert_eq!(TcpListener::bind((here, port)).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        assert_eq!(TcpStream::connect((here, port)).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        drop(held);
        TcpListener::bind((here, port)).unwrap();
    }

    #[test]
    fn pt_06_a_port_in_time_wait_can_be_held() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let server = TcpListener::bind((here, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = TcpStream::connect((here, port)).unwrap();
        drop((server.accept().unwrap(), server)); // our side closes first and lingers
        drop(client);
        hold(Transport::Tcp, here, port, None).unwrap();
    }

    #[test]
    fn an_address_of_somebody_else_is_told_from_a_taken_port() {
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(hold(Transport::Tcp, elsewhere, 0, None).unwrap_err(), Errno::ADDRNOTAVAIL);
    }
}
