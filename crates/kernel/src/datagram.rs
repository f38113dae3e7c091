//! Datagrams with the address that they were sent to: a host has many, and an answer must come from the one that was
//! asked, or the client takes it for a stranger's (ip(7) IP_PKTINFO, RFC 3542).

use rustix::net::SocketAddrAny;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How much of the buffer it has filled, in bytes.
    pub length: usize,
    /// Its sender.
    pub from: SocketAddr,
    /// The address of ours that it was sent to.
    pub to: IpAddr,
}

/// Room for one control message of either family, as the kernel wants it aligned.
#[repr(align(8))]
struct Control([u8; 64]);

/// Has the kernel tell each datagram's destination.
///
/// # Errors
/// As setsockopt(2).
pub fn tell_destinations(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let is_v6 = rustix::net::sockopt::socket_domain(socket)? == rustix::net::AddressFamily::INET6;
    let (level, option) =
        if is_v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives over the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size_of::<libc::c_int>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one datagram.
///
/// # Errors
/// As recvmsg(2); `InvalidData` where the kernel does not say the destination ([`tell_destinations`] was not called).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a message without any part.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: all parts of the message are alive and as long as it says.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the name, which is zeroed beyond what it wrote.
    let from = unsafe { SocketAddrAny::read(name.as_ptr().cast(), message.msg_namelen) };
    let from = SocketAddr::try_from(from).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let to = destination(&message).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Datagram { length, from, to })
}

fn destination(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has filled the control messages, and says how long they are; each is read unaligned, and only
    // as the type that its level and kind say.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => header = libc::CMSG_NXTHDR(message, header),
            }
        }
    }
    None
}

/// Sends one datagram from an address of ours.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<usize> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let to = SocketAddrAny::from(to);
    // SAFETY: all zeroes is a message without any part; the parts are alive and as long as it says; the control message
    // is written within its room, which is aligned, at the lengths that the macros compute.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.addr_len();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let length = match from {
            IpAddr::V4(ip) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                (*header).cmsg_level = libc::IPPROTO_IP;
                (*header).cmsg_type = libc::IP_PKTINFO;
                libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
                size_of::<libc::in_pktinfo>() as u32
            }
            IpAddr::V6(ip) => {
                let mut info: libc::in6_pktinfo = zeroed();
                info.ipi6_addr.s6_addr = ip.octets();
                (*header).cmsg_level = libc::IPPROTO_IPV6;
                (*header).cmsg_type = libc::IPV6_PKTINFO;
                libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info);
                size_of::<libc::in6_pktinfo>() as u32
            }
        };
        (*header).cmsg_len = libc::CMSG_LEN(length) as usize;
        message.msg_controllen = libc::CMSG_SPACE(length) as usize;
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let Ok(server) = UdpSocket::bind(any) else { continue };
            tell_destinations(&server).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let client = UdpSocket::bind((if asked.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            // Connected: it hears nobody else.
            client.connect((asked, server.local_addr().unwrap().port())).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client.send(b"?").unwrap();
            let mut buffer = [0; 16];
            let got = receive(&server, &mut buffer).unwrap();
            assert_eq!((got.length, got.from, got.to), (1, client.local_addr().unwrap(), asked));
            send(&server, b"!", got.to, got.from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
        }
    }
}
