//! Whether a flow passes between two places, where it ends, and which fact decides: what the kernel does with the
//! firewall of `network`, said in terms of networks. A test of random worlds holds it against real packets.
//!
//! ```text
//!   a container ──its own address, a member's address─────────────────────────────▶ there, or `icc` is off
//!        │ by its way out, or to its gateway
//!        ▼                            ┌─ published ─▶ a container, unless a network on the way is internal
//!   host ──▶ an address of the host ──┴─ not ───────▶ the host's own service, unless by another network's gateway
//!        ▲ ──▶ a member's address ──────────────────▶ only from the host, or where the network is open
//!        │ ──▶ any other address ───────────────────▶ out, by an uplink
//!   a neighbour on an uplink
//! ```

use crate::desired::{Attachment, Border, Bridge, Carriage, Desired, Inwards, Outwards, Publication};
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::net::{InterfaceName, Protocol};
use crate::port::MOST_HELD;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is there.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What the kernel shall look like.
    pub desired: &'a Desired,
    /// The host's addresses on other devices than our bridges.
    pub host: &'a [IpAddr],
    /// Whether the keeper carries what the kernel cannot lead (`--userland-proxy`).
    pub proxy: bool,
}

/// Where a flow begins, or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A container's network namespace.
    Sandbox(SandboxId),
    /// This machine itself.
    Host,
    /// Beyond this uplink of the host (`None`: whichever its routes say); a neighbour there may send the host packets for
    /// any address.
    Outside(Option<InterfaceName>),
}

/// The first packet of a flow, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends it.
    pub from: Place,
    /// To which address.
    pub to: IpAddr,
    /// By which transport.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrives.
    Passes(Arrival),
    /// It does not.
    Stopped(Obstacle),
}

/// Where a flow ends that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who has it.
    pub at: Place,
    /// At which address of his.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// Whom he sees as its sender.
    pub source: Source,
    /// Why it passes.
    pub because: Passage,
}

/// Whom the flow's end sees as its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The true one.
    Own,
    /// The bridge's address on this network.
    Gateway(NetworkId),
    /// The host's address on the uplink, or this one.
    Host(Option<IpAddr>),
    /// The proxy's: an address of the host.
    Proxy,
}

/// The fact that lets a flow pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// To oneself.
    Itself,
    /// Both are on this network.
    Members(NetworkId),
    /// A host port of this endpoint.
    Published(EndpointId),
    /// The network is routed, or the interface is trusted, and the port is published (BR-09, BR-18).
    Direct(EndpointId),
    /// `nat-unprotected` (BR-09).
    Unprotected(NetworkId),
    /// The host reaches the members of its bridges.
    FromHost(NetworkId),
    /// A service of the host itself (SEC-05).
    HostService,
    /// Out by this network, or from the host itself.
    WayOut(Option<NetworkId>),
}

/// The fact that stops a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No endpoint of the container leads there: it has no way out in that family.
    NoRoute,
    /// The way out is a router on this network that is not the host (BR-11).
    OtherRouter(NetworkId, IpAddr),
    /// The address belongs to a network, and to nobody on it.
    Nobody(NetworkId),
    /// Members of this network do not reach each other (SEC-03).
    IccOff(NetworkId),
    /// Nothing crosses the border of this network (SEC-02).
    Internal(NetworkId),
    /// Networks do not reach each other (SEC-01).
    OtherNetwork {
        /// The sender's.
        from: NetworkId,
        /// The address's.
        to: NetworkId,
    },
    /// The port is not published where the flow comes from (PT-14).
    Unpublished(NetworkId),
    /// The host has no address on this network, and so no route to it (BR-09 `isolated`, BR-11).
    HostIsNotOn(NetworkId),
    /// This network is on an interface of the host, over which its members and the host do not reach each other: the
    /// kernel hands the host's frames to the wire, and theirs, too (DR-05).
    ParentsHost(NetworkId),
    /// 127/8 and ::1 are everybody's own (PT-13).
    Loopback,
    /// Carried by the proxy, which serves UDP ranges of no more than [`MOST_HELD`] ports.
    RangeTooLong(EndpointId),
    /// Only the proxy could carry it, and there is none.
    NoProxy(EndpointId),
}

/// What becomes of a flow.
pub fn predict(world: &World<'_>, flow: &Flow) -> Verdict {
    match &flow.from {
        Place::Sandbox(sandbox) => from_sandbox(world, flow, sandbox),
        Place::Host => at_host(world, flow, &Incoming::Own),
        Place::Outside(interface) => at_host(world, flow, &Incoming::Uplink(interface.as_ref())),
    }
}

/// How a flow has come to the host.
enum Incoming<'a> {
    Own,
    Uplink(Option<&'a InterfaceName>),
    /// From this sandbox, over this bridge, from one of these addresses.
    Bridge(&'a Bridge, &'a SandboxId, &'a Attachment),
}

fn passes(at: Place, flow: &Flow, source: Source, because: Passage) -> Verdict {
    Verdict::Passes(Arrival { at, address: flow.to, port: flow.port, source, because })
}

fn from_sandbox(world: &World<'_>, flow: &Flow, sandbox: &SandboxId) -> Verdict {
    let own = || world.desired.attachments.values().filter(|a| a.sandbox == *sandbox);
    if flow.to.is_loopback() || own().any(|a| a.addresses.iter().any(|n| n.addr() == flow.to)) {
        return passes(flow.from.clone(), flow, Source::Own, Passage::Itself);
    }
    let on_link = own().find(|a| a.addresses.iter().any(|n| n.contains(&flow.to)));
    let way_out = || own().find(|a| a.default_routes.iter().any(|r| r.is_ipv4() == flow.to.is_ipv4()));
    let Some(by) = on_link.or_else(way_out) else { return Verdict::Stopped(Obstacle::NoRoute) };
    if let Some(on) = &by.on_parent {
        let members = world.desired.attachments.values().filter(|a| a.network == by.network);
        let holder =
            on_link.and_then(|_| members.into_iter().find(|a| a.addresses.iter().any(|n| n.addr() == flow.to)));
        return match holder {
            Some(to) => passes(Place::Sandbox(to.sandbox), flow, Source::Own, Passage::Members(by.network)),
            None if world.host.contains(&flow.to) => Verdict::Stopped(Obstacle::ParentsHost(by.network)),
            None => {
                let outside = Place::Outside(Some(on.parent.clone()));
                passes(outside, flow, Source::Own, Passage::WayOut(Some(by.network)))
            }
        };
    }
    let Some(bridge) = world.desired.bridges.get(&by.network) else { return Verdict::Stopped(Obstacle::NoRoute) };
    let is_hosts = bridge.gateways.iter().any(|g| g.addr() == flow.to);
    if on_link.is_some() && !is_hosts {
        return match member(world, bridge, flow.to) {
            None => Verdict::Stopped(Obstacle::Nobody(bridge.network)),
            Some(_) if !bridge.icc => Verdict::Stopped(Obstacle::IccOff(bridge.network)),
            Some(to) => passes(Place::Sandbox(to.sandbox), flow, Source::Own, Passage::Members(bridge.network)),
        };
    }
    if on_link.is_none() {
        let next = by.default_routes.iter().find(|r| r.is_ipv4() == flow.to.is_ipv4());
        if let Some(router) = next.filter(|r| !bridge.gateways.iter().any(|g| g.addr() == **r)) {
            return Verdict::Stopped(Obstacle::OtherRouter(bridge.network, *router));
        }
    }
    at_host(world, flow, &Incoming::Bridge(bridge, sandbox, by))
}

/// Who has an address on a bridge.
fn member<'a>(world: &World<'a>, bridge: &Bridge, address: IpAddr) -> Option<&'a Attachment> {
    let mut on_it = world.desired.attachments.values().filter(|a| a.network == bridge.network);
    on_it.find(|a| a.addresses.iter().any(|n| n.addr() == address))
}

fn at_host(world: &World<'_>, flow: &Flow, incoming: &Incoming<'_>) -> Verdict {
    let bridges = || world.desired.bridges.values();
    if flow.to.is_loopback() && !matches!(incoming, Incoming::Own) {
        return Verdict::Stopped(Obstacle::Loopback);
    }
    let is_hosts = flow.to.is_loopback()
        || world.host.contains(&flow.to)
        || bridges().any(|b| b.gateways.iter().any(|g| g.addr() == flow.to));
    if is_hosts {
        return match published(world, flow) {
            Some((endpoint, publication)) => translated(world, flow, incoming, endpoint, publication),
            None => match (incoming, foreign_gateway(world, flow, incoming)) {
                (Incoming::Bridge(from, ..), Some(to)) => {
                    Verdict::Stopped(Obstacle::OtherNetwork { from: from.network, to })
                }
                _ => passes(Place::Host, flow, Source::Own, Passage::HostService),
            },
        };
    }
    if let Some(bridge) = bridges().find(|b| b.subnets.iter().any(|s| s.contains(&flow.to))) {
        return to_member(world, flow, incoming, bridge);
    }
    match incoming {
        Incoming::Bridge(bridge, ..) if bridge.internal => Verdict::Stopped(Obstacle::Internal(bridge.network)),
        Incoming::Bridge(..) | Incoming::Own if let Some(network) = on_parent(world, flow.to) => {
            Verdict::Stopped(Obstacle::ParentsHost(network))
        }
        Incoming::Bridge(bridge, ..) => {
            let source = match border(bridge, flow.to).outwards {
                Outwards::Own => Source::Own,
                Outwards::HostsAddress => Source::Host(None),
                Outwards::Address(address) => Source::Host(Some(address)),
            };
            passes(Place::Outside(None), flow, source, Passage::WayOut(Some(bridge.network)))
        }
        Incoming::Own | Incoming::Uplink(_) => passes(Place::Outside(None), flow, Source::Own, Passage::WayOut(None)),
    }
}

/// The network of the member with this address that is on an interface of the host.
fn on_parent(world: &World<'_>, address: IpAddr) -> Option<NetworkId> {
    let mut members = world.desired.attachments.values().filter(|a| a.on_parent.is_some());
    members.find(|a| a.addresses.iter().any(|n| n.addr() == address)).map(|a| a.network)
}

/// The network whose gateway a flow from another network is sent to: the host's own services are reached by one's own
/// (SEC-01).
fn foreign_gateway(world: &World<'_>, flow: &Flow, incoming: &Incoming<'_>) -> Option<NetworkId> {
    let Incoming::Bridge(from, ..) = incoming else { return None };
    let is_of = |bridge: &&Bridge| bridge.gateways.iter().any(|g| g.addr() == flow.to);
    let to = world.desired.bridges.values().find(is_of)?;
    (to.network != from.network && !to.host_gateway).then_some(to.network)
}

fn border(bridge: &Bridge, address: IpAddr) -> &Border {
    if address.is_ipv4() { &bridge.border4 } else { &bridge.border6 }
}

/// The publication that a flow to an address of the host meets: of that address first, then of all.
fn published<'a>(world: &World<'a>, flow: &Flow) -> Option<(EndpointId, &'a Publication)> {
    let all = world.desired.publications.iter().flat_map(|(e, set)| set.iter().map(move |p| (*e, p)));
    let fits = |p: &Publication| {
        let offset = flow.port.checked_sub(p.host_port).filter(|o| *o < p.count);
        p.host_port != 0 && p.protocol == flow.protocol && offset.is_some()
    };
    let mut fitting: Vec<(EndpointId, &Publication)> = all.filter(|(_, p)| fits(p)).collect();
    // An address of its own goes first.
    fitting.sort_by_key(|(_, p)| p.host.is_unspecified());
    let any: IpAddr = if flow.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    fitting.into_iter().find(|(_, p)| p.host == flow.to || p.host == any)
}

/// A flow to a published port of the host.
fn translated(
    world: &World<'_>,
    flow: &Flow,
    incoming: &Incoming<'_>,
    endpoint: EndpointId,
    publication: &Publication,
) -> Verdict {
    let Some(to) = world.desired.attachments.get(&endpoint) else { return Verdict::Stopped(Obstacle::NoRoute) };
    let Some(bridge) = world.desired.bridges.get(&to.network) else { return Verdict::Stopped(Obstacle::NoRoute) };
    let port = publication.container_port + (flow.port - publication.host_port);
    let arrival = |source| {
        Verdict::Passes(Arrival {
            at: Place::Sandbox(to.sandbox),
            address: publication.container,
            port,
            source,
            because: Passage::Published(endpoint),
        })
    };
    let is_carried = match publication.carriage() {
        Some(Carriage::Proxy) => true,
        Some(Carriage::KernelButForLoopback) => flow.to == Ipv6Addr::LOCALHOST,
        Some(Carriage::Kernel) | None => false,
    };
    if is_carried && !world.proxy {
        return Verdict::Stopped(Obstacle::NoProxy(endpoint));
    }
    if let Incoming::Bridge(from, ..) = incoming
        && from.internal
        && is_carried
    {
        return Verdict::Stopped(Obstacle::Internal(from.network));
    }
    if is_carried {
        if flow.protocol != Protocol::Tcp && publication.count > MOST_HELD {
            return Verdict::Stopped(Obstacle::RangeTooLong(endpoint));
        }
        return arrival(Source::Proxy);
    }
    let is_hairpin = |from: &Attachment, sandbox: &SandboxId| {
        from.network == to.network || to.sandbox == *sandbox || has_link(world, to.sandbox, from)
    };
    match incoming {
        Incoming::Bridge(from, ..) if from.internal && from.network != to.network => {
            Verdict::Stopped(Obstacle::Internal(from.network))
        }
        Incoming::Bridge(from, ..) if bridge.internal && !(from.network == to.network && bridge.icc) => {
            Verdict::Stopped(Obstacle::Internal(bridge.network))
        }
        Incoming::Uplink(_) if bridge.internal => Verdict::Stopped(Obstacle::Internal(bridge.network)),
        Incoming::Bridge(_, sandbox, from) if is_hairpin(from, sandbox) => arrival(Source::Gateway(to.network)),
        Incoming::Own if flow.to.is_loopback() => arrival(Source::Gateway(to.network)),
        _ => arrival(Source::Own),
    }
}

/// Whether a sandbox is also on the network that a flow comes from: its answers would not go by the host.
fn has_link(world: &World<'_>, sandbox: SandboxId, from: &Attachment) -> bool {
    world.desired.attachments.values().any(|a| a.sandbox == sandbox && a.network == from.network)
}

/// A flow that came to the host for an address of a network.
fn to_member(world: &World<'_>, flow: &Flow, incoming: &Incoming<'_>, bridge: &Bridge) -> Verdict {
    let to = bridge.network;
    if !bridge.gateways.iter().any(|g| g.contains(&flow.to)) {
        return Verdict::Stopped(Obstacle::HostIsNotOn(to));
    }
    if let Incoming::Bridge(from, ..) = incoming
        && (from.internal || bridge.internal)
    {
        return Verdict::Stopped(Obstacle::Internal(if from.internal { from.network } else { to }));
    }
    if matches!(incoming, Incoming::Uplink(_)) && bridge.internal {
        return Verdict::Stopped(Obstacle::Internal(to));
    }
    let holder = member(world, bridge, flow.to);
    let arrival = |because| match holder {
        Some(holder) => passes(Place::Sandbox(holder.sandbox), flow, Source::Own, because),
        None => Verdict::Stopped(Obstacle::Nobody(to)),
    };
    if let (Incoming::Bridge(from, _, by), Some(holder)) = (incoming, holder)
        && !from.icc
        && has_link(world, holder.sandbox, by)
    {
        // The answers would not come back by the host.
        return Verdict::Stopped(Obstacle::IccOff(from.network));
    }
    let open = holder.and_then(|h| open_port(world, h.endpoint, flow)).map(Passage::Direct);
    let border = border(bridge, flow.to);
    match incoming {
        Incoming::Own => arrival(Passage::FromHost(to)),
        Incoming::Bridge(from, ..) => match open.filter(|_| border.inwards == Inwards::Published) {
            Some(open) => arrival(open),
            None => Verdict::Stopped(Obstacle::OtherNetwork { from: from.network, to }),
        },
        Incoming::Uplink(_) if border.inwards == Inwards::Everything => arrival(Passage::Unprotected(to)),
        Incoming::Uplink(interface) => {
            let may = border.inwards == Inwards::Published || interface.is_some_and(|i| bridge.trusted.contains(i));
            match open.filter(|_| may) {
                Some(open) => arrival(open),
                None => Verdict::Stopped(Obstacle::Unpublished(to)),
            }
        }
    }
}

/// The endpoint, if the flow's port is one of its own published ones.
fn open_port(world: &World<'_>, endpoint: EndpointId, flow: &Flow) -> Option<EndpointId> {
    let is_open = |p: &&Publication| {
        let offset = flow.port.checked_sub(p.container_port).filter(|o| *o < p.count);
        p.direct && p.container == flow.to && p.protocol == flow.protocol && offset.is_some()
    };
    world.desired.publications.get(&endpoint)?.iter().find(is_open).map(|_| endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ContainerId;
    use crate::net::MacAddr;
    use std::collections::BTreeMap;

    const SANDBOX: SandboxId = SandboxId::new([1; 32]);
    const ENDPOINT: EndpointId = EndpointId::new([2; 32]);
    const NETWORK: NetworkId = NetworkId::new([3; 32]);

    /// One container with an IPv6 address alone, and a port published on all of the host's.
    fn desired() -> Desired {
        let gateway: ipnet::IpNet = "fd01::1/64".parse().unwrap();
        let address: ipnet::IpNet = "fd01::2/64".parse().unwrap();
        let bridge = Bridge {
            network: NETWORK,
            device: "br-x".parse().unwrap(),
            mac: MacAddr([2; 6]),
            gateways: vec![gateway],
            host_gateway: false,
            subnets: vec![gateway.trunc()],
            mtu: 1500,
            icc: true,
            internal: false,
            border4: Border::NAT,
            border6: Border::NAT,
            trusted: Vec::new(),
            check_sources: false,
        };
        let attachment = Attachment {
            endpoint: ENDPOINT,
            network: NETWORK,
            container: ContainerId::new([4; 32]),
            sandbox: SANDBOX,
            on_parent: None,
            bridge: bridge.device.clone(),
            outer: "ve0".parse().unwrap(),
            inner: "eth0".parse().unwrap(),
            mac: MacAddr([4; 6]),
            addresses: vec![address],
            link_local: Vec::new(),
            gateway_mac: bridge.mac,
            gateways: vec![gateway.addr()],
            default_routes: vec![gateway.addr()],
            mtu: 1500,
            isolated: false,
            trusted: false,
            check_sources: false,
            sysctls: BTreeMap::new(),
        };
        let published = |protocol, count| Publication {
            host: Ipv4Addr::UNSPECIFIED.into(),
            protocol,
            host_port: 8000,
            count,
            container: address.addr(),
            container_port: 80,
            direct: false,
        };
        Desired {
            bridges: [(NETWORK, bridge)].into(),
            attachments: [(ENDPOINT, attachment)].into(),
            publications: [(ENDPOINT, [published(Protocol::Tcp, 1), published(Protocol::Udp, 100)].into())].into(),
            ..Desired::default()
        }
    }

    #[test]
    fn what_the_kernel_cannot_lead_the_proxy_carries_where_there_is_one() {
        let (desired, host) = (desired(), ["192.0.2.1".parse().unwrap()]);
        let to = |proxy: bool, protocol: Protocol| {
            let flow = Flow { from: Place::Outside(None), to: host[0], protocol, port: 8000 };
            predict(&World { desired: &desired, host: &host, proxy }, &flow)
        };
        let Verdict::Passes(arrival) = to(true, Protocol::Tcp) else { panic!("it passes") };
        assert_eq!((arrival.at, arrival.port, arrival.source), (Place::Sandbox(SANDBOX), 80, Source::Proxy));
        assert_eq!(to(false, Protocol::Tcp), Verdict::Stopped(Obstacle::NoProxy(ENDPOINT)));
        assert_eq!(to(true, Protocol::Udp), Verdict::Stopped(Obstacle::RangeTooLong(ENDPOINT)));
    }
}
