//! Routes of the main table (rtnetlink's RTM_NEWROUTE, linux/rtnetlink.h).

use crate::address::{family, from_octets, octets};
use crate::netlink::attribute::{self, Attributes};
use crate::netlink::{Batch, Refusal, Socket, flag};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;

const DST: u16 = 1;
const OIF: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const TABLE: u16 = 15;

const MAIN: u8 = 254;
const BOOT: u8 = 3;
const UNICAST: u8 = 1;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network it leads to; the unspecified address with 0 bits for the default route.
    pub destination: (IpAddr, u8),
    /// Index of the device it leaves by, where it has one.
    pub link: Option<u32>,
    /// Whom it is handed to; `None` where the network is on the link.
    pub gateway: Option<IpAddr>,
    /// The smaller, the better.
    pub metric: u32,
}

fn header(family: u8, prefix: u8) -> [u8; 12] {
    [family, prefix, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0]
}

/// Makes `gateway` the way out of its family, instead of the one there was; the unspecified address makes it the device
/// itself. Without `link` the kernel finds the device that has the gateway in its subnet.
pub fn set_default(batch: &mut Batch, gateway: IpAddr, link: Option<u32>) {
    let mut message = batch.message(NEWROUTE, flag::CREATE | flag::REPLACE, &header(family(gateway), 0));
    if !gateway.is_unspecified() {
        message.attr(GATEWAY, &octets(gateway));
    }
    if let Some(link) = link {
        message.u32(OIF, link);
    }
}

/// Takes the default route of a family away. The kernel answers `ESRCH` if there is none.
pub fn remove_default(batch: &mut Batch, ipv6: bool) {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    batch.message(DELROUTE, 0, &header(family as u8, 0));
}

/// Whether packets to an address are this namespace's own. A new IPv6 address is only once the kernel's worker has been
/// there, some time after it was added, even if nobody is asked whether it is taken.
pub fn is_local(socket: &mut Socket, ip: IpAddr) -> Result<bool, Refusal> {
    const LOCAL: u8 = 2;
    let bytes = octets(ip);
    let mut request = Batch::default();
    request.message(GETROUTE, 0, &header(family(ip), 8 * bytes.len() as u8)).attr(DST, &bytes);
    let mut local = false;
    socket.exchange(request, |answer| local |= answer.kind == NEWROUTE && answer.body.get(7) == Some(&LOCAL))?;
    Ok(local)
}

/// All unicast routes of the main table of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Route>, Refusal> {
    list_of(socket, |table| table == u32::from(MAIN))
}

/// All unicast routes of all tables: VPNs have some of their own.
pub fn list_all(socket: &mut Socket) -> Result<Vec<Route>, Refusal> {
    list_of(socket, |_| true)
}

fn list_of(socket: &mut Socket, wanted: impl Fn(u32) -> bool) -> Result<Vec<Route>, Refusal> {
    let mut found = Vec::new();
    for (family, any) in
        [(libc::AF_INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (libc::AF_INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    {
        let mut request = Batch::default();
        let mut fixed = [0; 12];
        fixed[0] = family as u8;
        request.message(GETROUTE, 0, &fixed);
        found.extend(socket.dump(&request, |answer| {
            if answer.kind != NEWROUTE || answer.body.len() < 12 || answer.body[7] != UNICAST {
                return None;
            }
            let attributes = Attributes(&answer.body[12..]);
            let table = attributes.clone().find(TABLE).map_or(u32::from(answer.body[4]), attribute::u32);
            let destination = attributes.clone().find(DST).and_then(from_octets).unwrap_or(any);
            wanted(table).then(|| Route {
                destination: (destination, answer.body[1]),
                link: attributes.clone().find(OIF).map(attribute::u32),
                gateway: attributes.clone().find(GATEWAY).and_then(from_octets),
                metric: attributes.find(PRIORITY).map_or(0, attribute::u32),
            })
        })?);
    }
    Ok(found)
}
