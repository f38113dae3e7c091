//! Ports that somebody serves: all of a host's in one question (sock_diag(7), linux/inet_diag.h), however many are to be
//! compared with them.

use crate::netlink::{Batch, Protocol, Socket};
use crate::reserve::Transport;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BY_FAMILY: u16 = 20;
const V6ONLY: u16 = 11;
/// TCP that listens, and what is bound and does nothing yet (kernel 6.8 and later tell of those).
const LISTENING: u32 = 1 << 10 | 1 << 13;
const ANY_STATE: u32 = u32::MAX;

/// A port that a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The address that it is bound to; the unspecified one for all of its family.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// It is one of IPv6 for all addresses, and has those of IPv4 as well.
    pub both: bool,
}

impl Served {
    /// Whether nobody else may be bound to this address and the same port.
    pub fn is_in_the_way_of(&self, ip: IpAddr) -> bool {
        let own = self.ip.to_canonical();
        match (own.is_ipv4(), ip.is_ipv4()) {
            (true, true) | (false, false) => own == ip || own.is_unspecified() || ip.is_unspecified(),
            (false, true) => self.both,
            (true, false) => false,
        }
    }
}

/// The ports of TCP or UDP that sockets have in the thread's network namespace, of both families.
///
/// # Errors
/// The kernel has no sock_diag.
pub fn served(transport: Transport) -> io::Result<Vec<Served>> {
    let (protocol, states) = match transport {
        Transport::Udp => (libc::IPPROTO_UDP, ANY_STATE),
        Transport::Tcp => (libc::IPPROTO_TCP, LISTENING),
        Transport::Sctp => (libc::IPPROTO_SCTP, LISTENING),
    };
    let mut socket = Socket::open(Protocol::SocketDiag)?;
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // struct inet_diag_req_v2: nothing is asked of addresses and ports.
        let mut request = [0; 56];
        request[0] = family as u8;
        request[1] = protocol as u8;
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        let mut batch = Batch::default();
        drop(batch.message(BY_FAMILY, 0, &request));
        let found =
            socket.dump(&batch, |answer| read(answer.body)).map_err(|refusal| io::Error::from(refusal.errno))?;
        all.extend(found);
    }
    Ok(all)
}

/// struct inet_diag_msg: 4 bytes, the ports, the two addresses of 16 bytes each.
fn read(message: &[u8]) -> Option<Served> {
    const FIXED: usize = 72;
    let port = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    let ip: IpAddr = if i32::from(*message.first()?) == libc::AF_INET {
        Ipv4Addr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?).into()
    };
    let v6_only = crate::netlink::attribute::Attributes(message.get(FIXED..)?).find(V6ONLY);
    let both = ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && v6_only.and_then(|v| v.first().copied()) != Some(1);
    Some(Served { ip, port, both })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn what_is_bound_is_told_with_its_address() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let both = UdpSocket::bind("[::]:0").unwrap();
        let port = |address: std::net::SocketAddr| address.port();
        let (tcp_port, udp_port) = (port(tcp.local_addr().unwrap()), port(both.local_addr().unwrap()));
        let found = |transport, port| served(transport).unwrap().into_iter().find(|s| s.port == port).unwrap();
        let (tcp, udp) = (found(Transport::Tcp, tcp_port), found(Transport::Udp, udp_port));
        let (other, any4, any6) = ("127.0.0.2".parse().unwrap(), "0.0.0.0".parse().unwrap(), "::".parse().unwrap());
        for (ip, by_tcp, by_udp) in
            [("127.0.0.1".parse().unwrap(), true, true), (other, false, true), (any4, true, true), (any6, false, true)]
        {
            assert_eq!((tcp.is_in_the_way_of(ip), udp.is_in_the_way_of(ip)), (by_tcp, by_udp), "{ip}");
        }
    }
}
