//! Who is where: entries that never expire, of neighbour tables and of bridges' forwarding tables (rtnetlink's
//! RTM_NEWNEIGH, linux/neighbour.h).

use crate::address::{family, from_octets, octets};
use crate::netlink::attribute::{self, Attributes};
use crate::netlink::{Batch, Refusal, Socket, flag};
use std::net::IpAddr;

const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;

const DST: u16 = 1;
const LLADDR: u16 = 2;

const NOARP: u16 = 0x40;
const PERMANENT: u16 = 0x80;
const MASTER: u8 = 4;
const STICKY: u8 = 0x40;

fn header(family: u8, link: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&link.to_ne_bytes());
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    bytes[10] = flags;
    bytes
}

/// A permanent neighbour: it needs no ARP, never expires, and does not count against the kernel's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Index of the device that leads to it.
    pub link: u32,
    /// Its address.
    pub ip: IpAddr,
    /// The hardware address that frames for it go to.
    pub mac: [u8; 6],
}

/// Makes a neighbour permanent, whatever was known of it.
pub fn add(batch: &mut Batch, neighbour: &Neighbour) {
    let fixed = header(family(neighbour.ip), neighbour.link, PERMANENT, 0);
    let mut message = batch.message(NEWNEIGH, flag::CREATE | flag::REPLACE, &fixed);
    message.attr(DST, &octets(neighbour.ip)).attr(LLADDR, &neighbour.mac);
}

/// Forgets a neighbour. The kernel answers `ENOENT` if it knows none.
pub fn remove(batch: &mut Batch, link: u32, ip: IpAddr) {
    batch.message(DELNEIGH, 0, &header(family(ip), link, 0, 0)).attr(DST, &octets(ip));
}

/// Tells a bridge which port a hardware address is behind; no frame changes that.
pub fn add_static_forwarding(batch: &mut Batch, port: u32, mac: [u8; 6]) {
    let fixed = header(libc::AF_BRIDGE as u8, port, NOARP, MASTER | STICKY);
    batch.message(NEWNEIGH, flag::CREATE | flag::REPLACE, &fixed).attr(LLADDR, &mac);
}

/// All permanent neighbours of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Neighbour>, Refusal> {
    let mut request = Batch::default();
    request.message(GETNEIGH, 0, &[0; 12]);
    socket.dump(&request, |answer| {
        if answer.kind != NEWNEIGH || answer.body.len() < 12 {
            return None;
        }
        let state = u16::from_ne_bytes([answer.body[8], answer.body[9]]);
        let attributes = Attributes(&answer.body[12..]);
        let mac = attributes.clone().find(LLADDR)?.try_into().ok()?;
        let ip = from_octets(attributes.find(DST)?)?;
        (state & PERMANENT != 0).then_some(Neighbour { link: attribute::u32(&answer.body[4..]), ip, mac })
    })
}

/// Static entries of all bridges' forwarding tables: port and hardware address, and whether the entry is sticky.
pub fn list_static_forwarding(socket: &mut Socket) -> Result<Vec<(u32, [u8; 6], bool)>, Refusal> {
    let mut request = Batch::default();
    let mut fixed = [0; 12];
    fixed[0] = libc::AF_BRIDGE as u8;
    request.message(GETNEIGH, 0, &fixed);
    socket.dump(&request, |answer| {
        if answer.kind != NEWNEIGH || answer.body.len() < 12 {
            return None;
        }
        let state = u16::from_ne_bytes([answer.body[8], answer.body[9]]);
        let mac = Attributes(&answer.body[12..]).find(LLADDR)?.try_into().ok()?;
        (state & NOARP != 0).then_some((attribute::u32(&answer.body[4..]), mac, answer.body[10] & STICKY != 0))
    })
}
