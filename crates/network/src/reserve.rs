//! Host ports are promises: a published port is a bound socket, so that nobody else can take it, and 'already in use'
//! is the kernel's own word (PT-05, PT-06). Ranges too long for a socket a port are known to us alone: what asks for a
//! port is told of them, and they are compared with what is served.

use kernel::netlink::Errno;
use kernel::reserve::{Transport, hold};
use kernel::served::served;
use model::desired::{Carriage, Publication};
use model::net::Protocol;
use model::port::{MOST_HELD, Published};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

/// How often another port is tried when the kernel's choice on one address is taken on the next.
const ATTEMPTS: usize = 64;
/// What `ip_local_port_range` is, if nobody says otherwise.
const EPHEMERAL_FIRST: u16 = 32768;
const EPHEMERAL_LAST: u16 = 60999;

/// Where a host address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// A specific address of the host, or the unspecified one of its family for all.
    pub host: IpAddr,
    pub container: IpAddr,
}

/// One published port, or a range of them, on all the host addresses of a group: they get the same port (PT-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub targets: Vec<Target>,
    pub protocol: Protocol,
    /// Host ports to choose from: the first that has `count` free ones in a row. `0..=0` leaves it to the kernel
    /// (PT-02).
    pub ports: RangeInclusive<u16>,
    /// How many consecutive ports.
    pub count: u16,
    pub container_port: u16,
}

impl PortRequest {
    fn may_choose(&self) -> bool {
        self.ports == (0..=0) || self.ports.len() > usize::from(self.count.max(1))
    }
}

/// A port that is ours now, for as long as its sockets are open.
#[derive(Debug)]
pub struct Reservation {
    /// The first host port.
    pub host_port: u16,
    /// What [`crate::Network::publish`] leads there.
    pub publications: BTreeSet<Publication>,
    pub sockets: Vec<HeldSocket>,
}

/// A bound socket; the keeper holds it.
#[derive(Debug)]
pub struct HeldSocket {
    pub fd: OwnedFd,
    pub host: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub role: Role,
}

/// What a held socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Only to hold the port: nothing arrives here.
    Holds,
    /// UDP that the kernel cannot lead to the container ([::1], or no family in common): the keeper passes it on.
    Serves(SocketAddr),
}

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("port {} is already in use", show(*host, *port, *protocol))]
    Taken { host: IpAddr, port: u16, protocol: Protocol, source: Errno },
    #[error("cannot bind port {}: the address is not one of this host's", show(*host, *port, *protocol))]
    NotHere { host: IpAddr, port: u16, protocol: Protocol, source: Errno },
    #[error("all ports from {} to {} are already in use for {protocol} on {host}", ports.start(), ports.end())]
    NoneFree { host: IpAddr, ports: RangeInclusive<u16>, protocol: Protocol, source: Errno },
    #[error(
        "port {port}/tcp is where the daemon's own proxy listens, which serves [::1]: publish another one, or start the \
         daemon with --userland-proxy=false"
    )]
    Proxys { port: u16 },
    #[error("the range of {count} ports from {first} ends after port 65535")]
    TooFar { first: u16, count: u16 },
    #[error("cannot publish port {port}/{protocol}: this kernel lacks {protocol} (its module 'sctp')")]
    NoTransport { port: u16, protocol: Protocol },
    #[error("could not bind port {}", show(*host, *port, *protocol))]
    Failed { host: IpAddr, port: u16, protocol: Protocol, source: Errno },
    #[error("could not enter the host's network namespace")]
    Namespace(#[from] std::io::Error),
}

fn show(host: IpAddr, port: u16, protocol: Protocol) -> String {
    format!("{}/{protocol}", SocketAddr::new(host, port))
}

/// What is needed to know of the network.
pub(crate) struct Means<'a> {
    /// A device that carries nothing.
    pub(crate) nothing: &'a str,
    /// The port of the proxy that serves what the kernel cannot, if there is one.
    pub(crate) proxy: Option<u16>,
}

/// Ports that nobody may have, held by a socket or not.
struct Taken(Vec<Published>);

impl Taken {
    fn new(others: &[Published], proxy: Option<u16>) -> Self {
        let own = proxy.map(|host_port| Published {
            hosts: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
            protocol: Protocol::Tcp,
            container_port: host_port,
            count: 1,
            host_port,
        });
        Self(others.iter().cloned().chain(own).collect())
    }

    /// The last of the held ports that are in the way.
    fn blocks(&self, request: &PortRequest, first: u16, count: u16) -> Option<u16> {
        let alike = self.0.iter().filter(|held| held.protocol == request.protocol);
        let mut blocking = alike.filter(|held| request.targets.iter().any(|to| held.holds(to.host, first, count)));
        blocking.next().map(|held| held.host_port.saturating_add(held.count - 1))
    }

    /// The next port, from one on, with `count` free ones behind it; in the range that the kernel chooses from, too.
    fn next_free(&self, request: &PortRequest, from: u16, count: u16) -> u16 {
        let mut port = from;
        for _ in 0..=2 * self.0.len() {
            match self.blocks(request, port, count) {
                None => break,
                Some(last) => port = if last < EPHEMERAL_LAST { last + 1 } else { EPHEMERAL_FIRST },
            }
        }
        port
    }

    fn add(&mut self, request: &PortRequest, first: u16, count: u16) {
        self.0.push(Published {
            hosts: request.targets.iter().map(|target| target.host).collect(),
            protocol: request.protocol,
            container_port: request.container_port,
            count,
            host_port: first,
        });
    }
}

/// Reserves it all, or nothing, beside what others have. Runs in the host's namespace.
pub(crate) fn reserve(
    requests: &[PortRequest],
    others: &[Published],
    means: &Means<'_>,
) -> Result<Vec<Reservation>, PortError> {
    let mut taken = Taken::new(others, means.proxy);
    let mut reservations = BTreeMap::new();
    // Who may choose does so after those who may not.
    let mut wishes: Vec<_> = requests.iter().enumerate().collect();
    wishes.sort_by_key(|(_, request)| request.may_choose());
    for (place, request) in wishes {
        let reservation = reserve_one(request, &taken, means)?;
        taken.add(request, reservation.host_port, request.count.max(1));
        reservations.insert(place, reservation);
    }
    Ok(reservations.into_values().collect())
}

fn reserve_one(request: &PortRequest, others: &Taken, means: &Means<'_>) -> Result<Reservation, PortError> {
    let count = request.count.max(1);
    if request.ports == (0..=0) {
        return ephemeral(request, count, others, means);
    }
    let (first, last) = (*request.ports.start(), *request.ports.end());
    let Some(last_start) = last.checked_sub(count - 1).filter(|start| *start >= first) else {
        return Err(PortError::TooFar { first, count });
    };
    let mut taken = None;
    for port in first..=last_start {
        match hold_group(request, port, count, others, means) {
            Err(error @ PortError::Taken { .. }) => taken = Some(error),
            other => return other,
        }
    }
    match taken {
        Some(PortError::Taken { host, protocol, source, .. }) if last_start > first => {
            Err(PortError::NoneFree { host, ports: request.ports.clone(), protocol, source })
        }
        Some(error) => Err(means
            .proxy
            .filter(|own| is_proxys(request, first..=last, *own))
            .map_or(error, |port| PortError::Proxys { port })),
        None => Err(PortError::TooFar { first, count }),
    }
}

fn is_proxys(request: &PortRequest, ports: RangeInclusive<u16>, proxy: u16) -> bool {
    request.protocol == Protocol::Tcp && ports.contains(&proxy)
}

/// The kernel chooses a port on the first address; the others must have it too.
fn ephemeral(request: &PortRequest, count: u16, others: &Taken, means: &Means<'_>) -> Result<Reservation, PortError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(first) = request.targets.first() else { break };
        let transport = transport(request.protocol);
        let mut probe = hold(transport, first.host, 0, None);
        if probe.as_ref().is_err_and(|errno| is_absent(first.host, *errno)) {
            let other = request.targets.iter().find(|target| target.host != first.host);
            probe = hold(transport, other.map_or(first.host, |target| target.host), 0, None);
        }
        let port = match probe {
            Ok((socket, port)) => {
                drop(socket); // it is held again just below, in its proper way, with the others
                port
            }
            Err(errno) => return Err(failure(first.host, 0, request.protocol, errno)),
        };
        let port = others.next_free(request, port, count);
        match hold_group(request, port, count, others, means) {
            Err(error @ (PortError::Taken { .. } | PortError::TooFar { .. })) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or(PortError::TooFar { first: 0, count }))
}

fn hold_group(
    request: &PortRequest,
    port: u16,
    count: u16,
    others: &Taken,
    means: &Means<'_>,
) -> Result<Reservation, PortError> {
    if port.checked_add(count - 1).is_none() {
        return Err(PortError::TooFar { first: port, count });
    }
    if others.blocks(request, port, count).is_some() {
        let host = request.targets.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |target| target.host);
        return Err(PortError::Taken { host, port, protocol: request.protocol, source: Errno::ADDRINUSE });
    }
    let mut reservation = Reservation { host_port: port, publications: BTreeSet::new(), sockets: Vec::new() };
    for target in &request.targets {
        match hold_target(request, target, port, count, means) {
            Ok(sockets) => reservation.sockets.extend(sockets),
            // a host without IPv6 has no [::] to publish on
            Err((_, errno)) if is_absent(target.host, errno) && request.targets.len() > 1 => continue,
            Err((port, errno)) => return Err(failure(target.host, port, request.protocol, errno)),
        }
        reservation.publications.insert(Publication {
            host: target.host,
            protocol: request.protocol,
            host_port: port,
            count,
            container: target.container,
            container_port: request.container_port,
            direct: false,
        });
    }
    Ok(reservation)
}

fn hold_target(
    request: &PortRequest,
    target: &Target,
    first: u16,
    count: u16,
    means: &Means<'_>,
) -> Result<Vec<HeldSocket>, (u16, Errno)> {
    const LOCALHOST: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let Target { host, container } = *target;
    let (protocol, transport) = (request.protocol, transport(request.protocol));
    let udp = protocol == Protocol::Udp;
    let keep = count <= MOST_HELD;
    let carriage = Carriage::between(host, container);
    let proxied = udp && keep && means.proxy.is_some() && carriage == Carriage::Proxy;
    let mut sockets = Vec::new();
    // A long range is looked at as a whole, or its start would cost a socket a port; one is held for a moment, for what
    // only the kernel knows of the address.
    let whole = if keep { None } else { served(transport).ok() };
    let looked_at = if whole.is_some() { 1 } else { count };
    if let Some(all) = &whole {
        let ports = first..=first + (count - 1);
        let mut taken = all.iter().filter(|s| ports.contains(&s.port) && s.is_in_the_way_of(host));
        if let Some(taken) = taken.next() {
            return Err((taken.port, Errno::ADDRINUSE));
        }
    }
    for offset in 0..looked_at {
        let port = first + offset;
        // [::1] is no address but on its own device.
        let silent = if host == LOCALHOST { "lo" } else { means.nothing };
        let device = (udp && !proxied).then_some(silent);
        let (socket, _) = hold(transport, host, port, device).map_err(|errno| (port, errno))?;
        if !keep {
            continue;
        }
        let to = SocketAddr::new(container, request.container_port.wrapping_add(offset));
        let role = if proxied { Role::Serves(to) } else { Role::Holds };
        sockets.push(HeldSocket { fd: socket, host, protocol, port, role });
        if udp && means.proxy.is_some() && carriage == Carriage::KernelButForLoopback {
            let (fd, _) = hold(transport, LOCALHOST, port, Some("lo")).map_err(|errno| (port, errno))?;
            sockets.push(HeldSocket { fd, host: LOCALHOST, protocol, port, role: Role::Serves(to) });
        }
    }
    Ok(sockets)
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}

/// Whether the failure means that the host has no such family at all.
fn is_absent(host: IpAddr, errno: Errno) -> bool {
    host == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && matches!(errno, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
}

fn failure(host: IpAddr, port: u16, protocol: Protocol, source: Errno) -> PortError {
    match source {
        Errno::PROTONOSUPPORT => PortError::NoTransport { port, protocol },
        Errno::ADDRINUSE => PortError::Taken { host, port, protocol, source },
        Errno::ADDRNOTAVAIL => PortError::NotHere { host, port, protocol, source },
        _ => PortError::Failed { host, port, protocol, source },
    }
}
