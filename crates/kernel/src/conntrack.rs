//! Forgetting flows (nfnetlink's NFNL_SUBSYS_CTNETLINK, linux/netfilter/nfnetlink_conntrack.h).
//!
//! A flow keeps the translation that it began with. UDP has no end, so a flow that began before a port was published,
//! or while it led elsewhere, would go wrong for as long as its sender goes on.

use crate::address::from_octets;
use crate::netlink::attribute::Attributes;
use crate::netlink::{Batch, Errno, Refusal, Socket};
use std::net::IpAddr;

const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// A flow by where its first packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address it was sent to.
    pub ip: IpAddr,
    /// IANA's number.
    pub protocol: u8,
    /// Of the transport.
    pub port: u16,
}

/// Forgets the flows to a port that `matches` picks by their destination; says how many.
///
/// # Errors
/// As the kernel refuses. A flow that ended meanwhile is no error.
pub fn forget(
    socket: &mut Socket,
    ipv6: bool,
    protocol: u8,
    port: Option<u16>,
    matches: impl Fn(Destination) -> bool,
) -> Result<usize, Refusal> {
    let fixed = [(if ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u8, 0, 0, 0];
    let find = |answer: crate::netlink::Answer<'_>| {
        let body = answer.body.get(4..)?;
        let attributes = Attributes(body);
        let tuple = attributes.clone().find(TUPLE_ORIGINAL)?;
        let destination = destination(tuple)?;
        let wanted = answer.kind == NEW
            && destination.protocol == protocol
            && port.is_none_or(|port| port == destination.port)
            && matches(destination);
        wanted.then(|| {
            let zone = attributes.clone().find(ZONE).map(<[u8]>::to_vec);
            (tuple.to_vec(), attributes.find(ID).map(<[u8]>::to_vec), zone)
        })
    };
    // the kernel sorts out itself what it knows how to (5.8 and later); what it does not, we do
    let mut filtered = Batch::default();
    {
        let mut message = filtered.message(GET, 0, &fixed);
        message.nest(TUPLE_ORIGINAL, |m| {
            m.nest(2, |m| {
                m.u8(1, protocol);
                if let Some(port) = port {
                    m.attr(3, &port.to_be_bytes());
                }
            });
        });
        const PROTOCOL: u32 = 1 << 3;
        const DESTINATION_PORT: u32 = 1 << 5;
        message.nest(FILTER, |m| {
            m.u32(1, PROTOCOL | if port.is_some() { DESTINATION_PORT } else { 0 }).u32(2, 0);
        });
    }
    let flows = match socket.dump(&filtered, find) {
        Err(refusal) if matches!(refusal.errno, Errno::INVAL | Errno::OPNOTSUPP) => {
            let mut all = Batch::default();
            all.message(GET, 0, &fixed);
            socket.dump(&all, find)?
        }
        other => other?,
    };
    let mut forgotten = 0;
    for (tuple, id, zone) in flows {
        let mut batch = Batch::default();
        {
            let mut message = batch.message(DELETE, 0, &fixed);
            message.nest(TUPLE_ORIGINAL, |m| {
                m.raw(&tuple);
            });
            for (kind, value) in [(ID, id), (ZONE, zone)] {
                if let Some(value) = value {
                    message.attr(kind, &value);
                }
            }
        }
        match socket.send(batch) {
            Ok(()) => forgotten += 1,
            Err(refusal) if refusal.errno == Errno::NOENT => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(forgotten)
}

fn destination(tuple: &[u8]) -> Option<Destination> {
    let tuple = Attributes(tuple);
    let ip = Attributes(tuple.clone().find(1)?);
    let ip = ip.clone().find(2).or(ip.find(4)).and_then(from_octets)?;
    let protocol = Attributes(tuple.find(2)?);
    let port = protocol.clone().find(3).and_then(|v| v.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Destination { ip, protocol: *protocol.find(1)?.first()?, port })
}
