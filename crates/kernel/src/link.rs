//! Network devices: making, changing and listing them (rtnetlink's RTM_NEWLINK, linux/if_link.h).
//!
//! The writing functions put a message into a batch. Some settings cannot be made in the message that creates a
//! device (alias, IPv6's address mode), so a device takes two or three messages, sent together.

use crate::netlink::attribute::{self, Attributes};
use crate::netlink::{Answer, Batch, Message, Refusal, Socket, flag};
use std::os::fd::{AsRawFd, BorrowedFd};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;

const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const OPERSTATE: u16 = 16;
const LINKINFO: u16 = 18;
const IFALIAS: u16 = 20;
const AF_SPEC: u16 = 26;
const NET_NS_FD: u16 = 28;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;

const UP: u32 = libc::IFF_UP as u32;

fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// What a bridge is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBridge<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
}

/// Makes a bridge, down, with its spanning tree off, no multicast snooping, and no port a multicast router's.
pub fn create_bridge(batch: &mut Batch, new: &NewBridge<'_>) {
    let mut message = batch.message(NEWLINK, flag::CREATE | flag::EXCL, &header(0, 0, 0));
    message.text(IFNAME, new.name).attr(ADDRESS, &new.mac).u32(MTU, new.mtu).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "bridge").nest(INFO_DATA, |m| {
            bridge_data(m);
        });
    });
}

fn bridge_data(m: &mut Message<'_>) {
    const FORWARD_DELAY: u16 = 1;
    const STP_STATE: u16 = 5;
    const MCAST_SNOOPING: u16 = 23;
    m.u32(STP_STATE, 0).u32(FORWARD_DELAY, 0).u8(MCAST_SNOOPING, 0);
}

/// The same settings for a bridge that exists, with its MTU (in bytes), and its hardware address if that is another
/// now: setting one makes the kernel forget all neighbours there, permanent ones too, even if it is the same.
pub fn mend_bridge(batch: &mut Batch, bridge: &NewBridge<'_>, now: &Link) {
    let mut message = batch.message(NEWLINK, 0, &header(0, 0, 0));
    if now.mac != Some(bridge.mac) {
        message.attr(ADDRESS, &bridge.mac);
    }
    message.text(IFNAME, bridge.name).u32(MTU, bridge.mtu).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "bridge").nest(INFO_DATA, bridge_data);
    });
}

/// Makes the hardware address that a bridge has its own: it does not follow its ports' any more.
pub fn pin_address(batch: &mut Batch, bridge: &Link) {
    if let Some(mac) = bridge.mac {
        batch.message(NEWLINK, 0, &header(0, 0, 0)).attr(ADDRESS, &mac).text(IFNAME, &bridge.name);
    }
}

/// A veth pair that is made in one message: the inner end at once where it belongs, under its final name.
#[derive(Clone, Copy, Debug)]
pub struct NewVeth<'a> {
    /// The name of the end here.
    pub outer: &'a str,
    /// Index of the bridge that the outer end joins.
    pub master: u32,
    /// The name of the other one.
    pub inner: &'a str,
    /// Where that one is.
    pub namespace: BorrowedFd<'a>,
    /// Of the inner end.
    pub mac: [u8; 6],
    /// Of both ends, in bytes.
    pub mtu: u32,
}

/// Makes the pair; both ends are down (the inner one cannot be up in the message that makes it).
///
/// The kernel answers `EXFULL` if the bridge has 1023 ports, `EEXIST` if either name is taken.
pub fn create_veth(batch: &mut Batch, new: &NewVeth<'_>) {
    const PEER: u16 = 1;
    let mut message = batch.message(NEWLINK, flag::CREATE | flag::EXCL, &header(0, 0, 0));
    message.text(IFNAME, new.outer).u32(MASTER, new.master).u32(MTU, new.mtu).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "veth").nest(INFO_DATA, |m| {
            m.nest(PEER, |m| {
                m.raw(&header(0, 0, 0)).text(IFNAME, new.inner).attr(ADDRESS, &new.mac).u32(MTU, new.mtu);
                m.u32(NET_NS_FD, new.namespace.as_raw_fd() as u32);
            });
        });
    });
}

/// A device that shares another one (`parent`), made at once where it belongs. Its name must be free on both sides: old
/// kernels look for it in the parent's namespace.
#[derive(Clone, Copy, Debug)]
pub struct NewShare<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// Index of the device that it shares.
    pub parent: u32,
    /// Where it is.
    pub namespace: BorrowedFd<'a>,
    /// Bytes.
    pub mtu: u32,
}

/// `MACVLAN_MODE_*` of linux/if_link.h.
pub mod macvlan {
    /// Members do not reach each other.
    pub const PRIVATE: u32 = 1;
    /// They do by a switch that sends frames back.
    pub const VEPA: u32 = 2;
    /// They do, directly.
    pub const BRIDGE: u32 = 4;
    /// There is one member, and the parent is its own.
    pub const PASSTHRU: u32 = 8;
}

/// `IPVLAN_MODE_*` and `IPVLAN_F_*` of linux/if_link.h.
pub mod ipvlan {
    /// Members are hosts on the parent's network.
    pub const L2: u16 = 0;
    /// The parent routes to them.
    pub const L3: u16 = 1;
    /// The same, through the host's netfilter.
    pub const L3S: u16 = 2;
    /// A flag: members reach each other.
    pub const BRIDGE: u16 = 0;
    /// A flag: they do not.
    pub const PRIVATE: u16 = 1;
    /// A flag: they do by a switch that sends frames back.
    pub const VEPA: u16 = 2;
}

/// Makes a macvlan device, down. The kernel answers `EOPNOTSUPP` if it lacks them, `EBUSY` or `EINVAL` if the parent
/// cannot be shared so.
pub fn create_macvlan(batch: &mut Batch, new: &NewShare<'_>, mac: [u8; 6], mode: u32) {
    const MODE: u16 = 1;
    let mut message = share(batch, new);
    message.attr(ADDRESS, &mac).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "macvlan").nest(INFO_DATA, |m| {
            m.u32(MODE, mode);
        });
    });
}

/// Makes an ipvlan device, down: its hardware address is the parent's.
pub fn create_ipvlan(batch: &mut Batch, new: &NewShare<'_>, mode: u16, flags: u16) {
    const MODE: u16 = 1;
    const FLAGS: u16 = 2;
    let mut message = share(batch, new);
    message.nest(LINKINFO, |m| {
        m.text(INFO_KIND, "ipvlan").nest(INFO_DATA, |m| {
            m.attr(MODE, &mode.to_ne_bytes()).attr(FLAGS, &flags.to_ne_bytes());
        });
    });
}

fn share<'b>(batch: &'b mut Batch, new: &NewShare<'_>) -> Message<'b> {
    let mut message = batch.message(NEWLINK, flag::CREATE | flag::EXCL, &header(0, 0, 0));
    message.text(IFNAME, new.name).u32(LINK, new.parent).u32(MTU, new.mtu);
    message.u32(NET_NS_FD, new.namespace.as_raw_fd() as u32);
    message
}

/// Makes a sub-interface that tags what it sends (IEEE 802.1Q), down.
pub fn create_vlan(batch: &mut Batch, name: &str, parent: u32, id: u16) {
    const ID: u16 = 1;
    let mut message = batch.message(NEWLINK, flag::CREATE | flag::EXCL, &header(0, 0, 0));
    message.text(IFNAME, name).u32(LINK, parent).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "vlan").nest(INFO_DATA, |m| {
            m.attr(ID, &id.to_ne_bytes());
        });
    });
}

/// Makes a device that leads nowhere, down.
pub fn create_dummy(batch: &mut Batch, name: &str) {
    let mut message = batch.message(NEWLINK, flag::CREATE | flag::EXCL, &header(0, 0, 0));
    message.text(IFNAME, name).nest(LINKINFO, |m| {
        m.text(INFO_KIND, "dummy");
    });
}

/// How a port of a bridge behaves (linux/if_link.h, IFLA_BRPORT_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Who sends frames is remembered as being here.
    pub learning: bool,
    /// Only source addresses with an entry on this port pass (5.18 and later; ignored before).
    pub locked: bool,
    /// Frames to unknown addresses go out here too.
    pub flood: bool,
    /// Isolated ports do not reach each other.
    pub isolated: bool,
    /// Frames may leave by the port that they came in by.
    pub hairpin: bool,
    /// All multicast goes out here, whatever the bridge has learnt of listeners and routers, and queries that come in
    /// teach it nothing.
    pub all_multicast: bool,
}

/// Makes a device a port of a bridge.
pub fn join(batch: &mut Batch, name: &str, master: u32) {
    batch.message(NEWLINK, 0, &header(0, 0, 0)).text(IFNAME, name).u32(MASTER, master);
}

/// Sets how a port behaves, and writes on it who made it. The device has joined a bridge by an earlier message.
/// `ipv6`: whether it has any (see [`set_quiet`]).
pub fn set_port(batch: &mut Batch, name: &str, alias: &str, ipv6: bool, port: Port) {
    const MODE: u16 = 4;
    const LEARNING: u16 = 8;
    const UNICAST_FLOOD: u16 = 9;
    const MULTICAST_ROUTER: u16 = 25;
    const ISOLATED: u16 = 33;
    const LOCKED: u16 = 39;
    const QUERIED: u8 = 1; // MDB_RTR_TYPE_TEMP_QUERY, as the kernel has it
    const PERMANENT: u8 = 2; // MDB_RTR_TYPE_PERM
    let mut message = batch.message(NEWLINK, 0, &header(0, 0, 0));
    message.text(IFNAME, name).text(IFALIAS, alias);
    if ipv6 {
        message.nest(AF_SPEC, no_generated_addresses);
    }
    message.nest(LINKINFO, |m| {
        m.text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |m| {
            m.u8(MODE, port.hairpin.into()).u8(LEARNING, port.learning.into()).u8(UNICAST_FLOOD, port.flood.into());
            m.u8(MULTICAST_ROUTER, if port.all_multicast { PERMANENT } else { QUERIED })
                .u8(ISOLATED, port.isolated.into());
            m.u8(LOCKED, port.locked.into());
        });
    });
}

/// `addr_gen_mode none`: without it each link-up floods multicast to every port, so the cost of one grows with all.
fn no_generated_addresses(m: &mut Message<'_>) {
    const ADDR_GEN_MODE: u16 = 8;
    const NONE: u8 = 1;
    m.nest(libc::AF_INET6 as u16, |m| {
        m.u8(ADDR_GEN_MODE, NONE);
    });
}

/// Settings of IPv4 on one device, by their place in linux/ip.h (IPV4_DEVCONF_*).
pub mod ipv4 {
    /// Whether ICMP redirects are heard.
    pub const ACCEPT_REDIRECTS: u16 = 4;
    /// Whether they are sent.
    pub const SEND_REDIRECTS: u16 = 6;
    /// Whether 127.0.0.0/8 may come and go here.
    pub const ROUTE_LOCALNET: u16 = 26;
}

/// No addresses that the kernel makes up itself (before the device is up), and IPv4 settings, which need no file.
/// `ipv6`: whether the device has any, which it has not where the host has none or the MTU is below 1280; the kernel
/// answers `EAFNOSUPPORT` if that is wrong.
pub fn set_quiet(batch: &mut Batch, name: &str, alias: Option<&str>, ipv6: bool, ipv4: &[(u16, u32)]) {
    const INET_CONF: u16 = 1;
    let mut message = batch.message(NEWLINK, 0, &header(0, 0, 0));
    message.text(IFNAME, name);
    if let Some(alias) = alias {
        message.text(IFALIAS, alias);
    }
    if !ipv6 && ipv4.is_empty() {
        return;
    }
    message.nest(AF_SPEC, |m| {
        if ipv6 {
            no_generated_addresses(m);
        }
        if !ipv4.is_empty() {
            m.nest(libc::AF_INET as u16, |m| {
                m.nest(INET_CONF, |m| {
                    for (setting, value) in ipv4 {
                        m.u32(*setting, *value);
                    }
                });
            });
        }
    });
}

/// Gives a device that is down another name.
pub fn rename(batch: &mut Batch, index: u32, name: &str) {
    batch.message(NEWLINK, 0, &header(index, 0, 0)).text(IFNAME, name);
}

/// Brings a device up.
pub fn set_up(batch: &mut Batch, name: &str) {
    batch.message(NEWLINK, 0, &header(0, UP, UP)).text(IFNAME, name);
}

/// Brings the loopback device up: it is number 1 in every namespace.
pub fn set_loopback_up(batch: &mut Batch) {
    batch.message(NEWLINK, 0, &header(1, UP, UP));
}

/// Deletes a device. Slow (16 to 40 ms: the kernel waits for its readers).
pub fn delete(batch: &mut Batch, name: &str) {
    batch.message(DELLINK, 0, &header(0, 0, 0)).text(IFNAME, name);
}

/// Asks for one device, without its counters; the answer goes to [`parse`]. It also makes the kernel act on a carrier that came up just now
/// (6.8 and later), instead of some time soon.
pub fn ask(batch: &mut Batch, name: &str) {
    const EXT_MASK: u16 = 29;
    const SKIP_STATS: u32 = 1 << 3;
    batch.message(GETLINK, 0, &header(0, 0, 0)).text(IFNAME, name).u32(EXT_MASK, SKIP_STATS);
}

/// A network device, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// At most 15 bytes.
    pub name: String,
    /// Whose it is, by what its maker wrote there.
    pub alias: Option<String>,
    /// `bridge`, `veth`, …; none for hardware.
    pub kind: Option<String>,
    /// None where it has no hardware address of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: u32,
    /// It was told to be up; whether anybody is at the other end is `operstate`.
    pub up: bool,
    /// `IF_OPER_*` of linux/if.h: 6 is up.
    pub operstate: u8,
    /// It leads back here.
    pub loopback: bool,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the other end, in whichever namespace that is.
    pub peer: Option<u32>,
    /// How it behaves, as a port of a bridge.
    pub port: Option<Port>,
    /// Whether the kernel knows locked ports at all.
    pub knows_locked: bool,
}

/// A device from an answer; `None` if it is about something else.
pub fn parse(answer: Answer<'_>) -> Option<Link> {
    if answer.kind != NEWLINK || answer.body.len() < 16 {
        return None;
    }
    let flags = attribute::u32(&answer.body[8..]);
    let mut link = Link {
        index: attribute::u32(&answer.body[4..]),
        up: flags & UP != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ..Link::default()
    };
    for (kind, value) in Attributes(&answer.body[16..]) {
        match kind {
            IFNAME => link.name = attribute::text(value),
            IFALIAS => link.alias = Some(attribute::text(value)),
            ADDRESS => link.mac = value.try_into().ok(),
            MTU => link.mtu = attribute::u32(value),
            LINK => link.peer = Some(attribute::u32(value)),
            MASTER => link.master = Some(attribute::u32(value)),
            OPERSTATE => link.operstate = value.first().copied().unwrap_or(0),
            LINKINFO => {
                let info = Attributes(value);
                link.kind = info.clone().find(INFO_KIND).map(attribute::text);
                if info.clone().find(INFO_SLAVE_KIND).map(attribute::text).as_deref() == Some("bridge")
                    && let Some(data) = info.find(INFO_SLAVE_DATA)
                {
                    let data = Attributes(data);
                    let is = |kind| data.clone().find(kind).is_some_and(|v| v.first() == Some(&1));
                    link.knows_locked = data.clone().find(39).is_some();
                    link.port = Some(Port {
                        hairpin: is(4),
                        learning: is(8),
                        flood: is(9),
                        all_multicast: data.clone().find(25).is_some_and(|v| v.first() == Some(&2)),
                        isolated: is(33),
                        locked: is(39),
                    });
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// The multicast group that hears of devices that come, change and go (RTNLGRP_LINK).
pub const GROUP: u32 = 1;

/// The device that a message to [`GROUP`] says is gone.
pub fn gone(heard: Answer<'_>) -> Option<Link> {
    (heard.kind == DELLINK).then(|| parse(Answer { kind: NEWLINK, ..heard })).flatten()
}

/// All devices of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, Refusal> {
    let mut request = Batch::default();
    request.message(GETLINK, 0, &header(0, 0, 0));
    socket.dump(&request, parse)
}

/// One device by its name.
///
/// # Errors
/// `ENODEV` if there is none.
pub fn find(socket: &mut Socket, name: &str) -> Result<Link, Refusal> {
    let mut request = Batch::default();
    ask(&mut request, name);
    let mut found = None;
    socket.exchange(request, |answer| found = parse(answer))?;
    found.ok_or(Refusal::of(crate::netlink::Errno::NODEV))
}
