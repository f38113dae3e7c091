//! Addresses of devices (rtnetlink's RTM_NEWADDR, linux/if_addr.h).

use crate::netlink::attribute::{self, Attributes};
use crate::netlink::{Answer, Batch, Refusal, Socket, flag};
use std::net::IpAddr;

const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const FLAGS: u16 = 8;

/// An address on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the device.
    pub link: u32,
    /// The address itself.
    pub ip: IpAddr,
    /// Bits of the network's part.
    pub prefix: u8,
}

/// The bytes of an address, as the network has them.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
pub(crate) fn family(ip: IpAddr) -> u8 {
    (if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}
pub(crate) fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn header(address: &Address) -> [u8; 8] {
    let mut bytes = [family(address.ip), address.prefix, 0, 0, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&address.link.to_ne_bytes());
    bytes
}

/// Gives a device an address, if it does not have it. An IPv6 one is usable at once: nobody is asked whether it is
/// taken.
pub fn add(batch: &mut Batch, address: &Address) {
    let bytes = octets(address.ip);
    let mut message = batch.message(NEWADDR, flag::CREATE | flag::REPLACE, &header(address));
    message.attr(LOCAL, &bytes).attr(ADDRESS, &bytes);
    match address.ip {
        IpAddr::V4(ip) if address.prefix < 31 => {
            let host = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
            message.attr(BROADCAST, &(u32::from(ip) | host).to_be_bytes());
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => {
            message.u32(FLAGS, libc::IFA_F_NODAD);
        }
    }
}

/// Takes an address away.
pub fn remove(batch: &mut Batch, address: &Address) {
    batch.message(DELADDR, 0, &header(address)).attr(LOCAL, &octets(address.ip));
}

/// All addresses of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, Refusal> {
    let mut request = Batch::default();
    request.message(GETADDR, 0, &[0; 8]);
    socket.dump(&request, parse)
}

/// The multicast group that hears of IPv6 addresses that come and go (RTNLGRP_IPV6_IFADDR).
pub const GROUP6: u32 = 9;

/// The address that a message says is there: an answer to [`list`]'s question, or one to [`GROUP6`].
pub fn parse(answer: Answer<'_>) -> Option<Address> {
    if answer.kind != NEWADDR || answer.body.len() < 8 {
        return None;
    }
    let attributes = Attributes(&answer.body[8..]);
    let bytes = attributes.clone().find(LOCAL).or(attributes.find(ADDRESS))?;
    Some(Address { link: attribute::u32(&answer.body[4..]), ip: from_octets(bytes)?, prefix: answer.body[1] })
}
