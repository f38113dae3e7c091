//! How a sandbox finds its resolver: at 127.0.0.11, port 53, which the container may itself serve (DNS-01, DNS-02).
//!
//! The sockets are opened inside, on free ports, and stateless rules rewrite the port where packets enter `lo`.
//! **Never NAT inside a sandbox**: it would turn connection tracking on for all of the container's traffic, which costs
//! 12 % of a round trip and 16 % of new connections. The rules here cost nothing that could be measured.

use crate::error::{Attempt, Error};
use crate::sandbox::Sandbox;
use kernel::netlink::{Protocol, Refusal, Socket};
use kernel::nft::{self, Base, Expression, Family, Hook, Meta, OWNED, Register, Table, Verdict, hook};
use kernel::reserve::{Transport, hold, make_room};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

/// Where containers look.
pub const ADDRESS: Ipv4Addr = model::names::RESOLVER;
/// Bytes of queries that may wait while nobody reads.
const ROOM: usize = 4 << 20;
const BACKLOG: i32 = 128;

/// What the keeper answers on. Whoever holds one keeps the sandbox alive.
#[derive(Debug)]
pub struct ResolverSockets {
    pub udp: OwnedFd,
    /// Listening.
    pub tcp: OwnedFd,
    /// Where the container has NET_ADMIN and the kernel knows ownership: the socket that owns the rules, so that a
    /// `nft flush ruleset` inside leaves them. It must outlive nothing, but the rules are mended by it alone.
    pub owner: Option<OwnedFd>,
}

/// Opens them. `net_admin`: the container may make rules of its own that would break ours.
pub(crate) fn open(sandbox: &Sandbox, net_admin: bool, owned_tables: bool) -> Result<ResolverSockets, Error> {
    let opened = sandbox.inside(|| inside(net_admin, owned_tables)).attempt("enter", sandbox.thing())?;
    opened.attempt("open the resolver of", sandbox.thing())
}

fn inside(net_admin: bool, owned_tables: bool) -> io::Result<ResolverSockets> {
    let address = IpAddr::V4(ADDRESS);
    let (udp, udp_port) = hold(Transport::Udp, address, 0, None)?;
    make_room(&udp, ROOM)?;
    let (tcp, tcp_port) = hold(Transport::Tcp, address, 0, None)?;
    kernel::reserve::listen(&tcp, BACKLOG)?;

    let mut socket = Socket::open(Protocol::Netfilter)?;
    let ports = [(17, 6, udp_port), (6, 16, tcp_port)];
    let owned = net_admin && owned_tables;
    let flags = if owned { OWNED } else { 0 };
    let result = rewrite_at_ingress(&ports, flags).commit(&mut socket);
    result.or_else(|_| rewrite_at_output(&ports, flags).commit(&mut socket)).map_err(io_error)?;
    if net_admin {
        leave_untracked(&ports, flags).commit(&mut socket).map_err(io_error)?;
    }
    let owner = if owned { Some(socket.duplicate()?) } else { None };
    Ok(ResolverSockets { udp, tcp, owner })
}

fn io_error(refusal: Refusal) -> io::Error {
    io::Error::new(io::Error::from(refusal.errno).kind(), refusal)
}

/// A protocol's number, where its checksum is, and the port that the resolver has.
type Port = (u8, u32, u16);

const FIRST: Register = Register(0);
const NAME: &str = "isle-resolver";

/// `ip daddr 127.0.0.11 <protocol> dport 53 dport set P`, and the way back.
fn rewrites(ports: &[Port; 2], then: &[Expression]) -> Vec<Vec<Expression>> {
    let mut rules = Vec::new();
    for (protocol, checksum, port) in ports {
        for (address, offset, from, to) in [(16, 2, 53, *port), (12, 0, *port, 53)] {
            let mut rule = match_packet(*protocol, address, offset, from);
            rule.push(Expression::Load { value: to.to_be_bytes().to_vec(), into: FIRST });
            rule.push(Expression::SetPayload {
                base: Base::Transport,
                offset,
                length: 2,
                from: FIRST,
                checksum: *checksum,
            });
            rule.extend_from_slice(then);
            rules.push(rule);
        }
    }
    rules
}

/// IPv4, 127.0.0.11 at this offset of its header, this protocol, this port at that offset of the transport's.
fn match_packet(protocol: u8, address: u32, offset: u32, port: u16) -> Vec<Expression> {
    let is = |value: &[u8]| Expression::Compare { register: FIRST, equal: true, value: value.to_vec() };
    vec![
        Expression::Meta { key: Meta::Protocol, into: FIRST },
        is(&[8, 0]),
        Expression::Payload { base: Base::Network, offset: address, length: 4, into: FIRST },
        is(&ADDRESS.octets()),
        Expression::Meta { key: Meta::TransportProtocol, into: FIRST },
        is(&[protocol]),
        Expression::Payload { base: Base::Transport, offset, length: 2, into: FIRST },
        is(&port.to_be_bytes()),
    ]
}

/// A transaction that makes a table anew: a resolver that was opened before is gone with its sockets, and its rules
/// would lead there. Claimed first, where it is owned.
fn begin(table: Table<'_>, flags: u32) -> nft::Batch {
    let mut batch = nft::Batch::default();
    batch.add_table(table, flags);
    batch.delete_table(table);
    batch.add_table(table, flags);
    batch
}

fn table(family: Family, flags: u32, chain: Hook<'_>, rules: &[Vec<Expression>]) -> nft::Batch {
    let table = Table { family, name: NAME };
    let mut batch = begin(table, flags);
    batch.add_chain(table, "lo", Some(chain));
    for rule in rules {
        batch.add_rule(table, "lo", rule, None);
    }
    batch
}

fn rewrite_at_ingress(ports: &[Port; 2], flags: u32) -> nft::Batch {
    let chain = Hook { kind: "filter", number: hook::INGRESS, priority: -300, device: Some("lo") };
    let accept = [Expression::Verdict(Verdict::Accept)];
    table(Family::Netdev, flags, chain, &rewrites(ports, &accept))
}

/// Where the kernel has no ingress hook: 3 % of a round trip instead of nothing.
fn rewrite_at_output(ports: &[Port; 2], flags: u32) -> nft::Batch {
    let chain = Hook { kind: "filter", number: hook::OUTPUT, priority: -300, device: None };
    let accept = [Expression::Verdict(Verdict::Accept)];
    table(Family::Ip, flags, chain, &rewrites(ports, &accept))
}

/// The container's own NAT or `ct state invalid drop` never sees these packets as part of a flow.
fn leave_untracked(ports: &[Port; 2], flags: u32) -> nft::Batch {
    let chain = Hook { kind: "filter", number: hook::OUTPUT, priority: -400, device: None };
    let mut rules = Vec::new();
    for (protocol, _, port) in ports {
        for (address, offset, port) in [(16, 2, 53), (12, 0, *port)] {
            let mut rule = match_packet(*protocol, address, offset, port);
            rule.push(Expression::NoTrack);
            rules.push(rule);
        }
    }
    // a name of its own, beside the output fallback
    let table = Table { family: Family::Ip, name: "isle-untracked" };
    let mut batch = begin(table, flags);
    batch.add_chain(table, "output", Some(chain));
    for rule in &rules {
        batch.add_rule(table, "output", rule, None);
    }
    batch
}
