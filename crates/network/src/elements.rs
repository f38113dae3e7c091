//! What networks, endpoints and published ports are in the firewall: elements of its sets and maps.

use crate::ruleset::{Set, Variant};
use ipnet::IpNet;
use kernel::address::octets;
use kernel::nft::{self, Data, Element};
use model::desired::{Attachment, Bridge, Carriage, Inwards, Outwards, Publication};
use model::net::{InterfaceName, Protocol};
use model::port::MOST_HELD;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// Ranges of more ports than this are one element of an interval map, if their ports are equal on both sides. Below,
/// elements of a hash map are quicker to add and to find.
pub const INTERVAL_FROM: u16 = 17;

/// What is in the sets, or shall be.
pub type Elements = BTreeSet<(Set, Element)>;

fn name_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// Parts side by side, each padded to four bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, end: None, data: None }
}

/// The elements of a network.
pub fn of_bridge(bridge: &Bridge) -> Elements {
    let mut elements = Elements::new();
    let name = name_key(bridge.device.as_str());
    elements.insert((Set::Bridges, plain(name.clone())));
    if bridge.icc {
        let data = Some(Data::Verdict(nft::Verdict::Accept));
        elements.insert((Set::Links, Element { key: joined(&[&name, &name]), end: None, data }));
    }
    elements.extend(own_elements(bridge, &name));
    if bridge.internal {
        elements.insert((Set::Internal, plain(name)));
        return elements;
    }
    for (border, v6) in [(&bridge.border4, false), (&bridge.border6, true)] {
        let of_family = |four, six| if v6 { six } else { four };
        match border.outwards {
            Outwards::Own => {}
            Outwards::HostsAddress => {
                elements.insert((of_family(Set::Masquerade4, Set::Masquerade6), plain(name.clone())));
            }
            Outwards::Address(ip) => {
                let data = Some(Data::Value(octets(ip)));
                elements.insert((of_family(Set::Outbound4, Set::Outbound6), Element { data, ..plain(name.clone()) }));
            }
        }
        let open = match border.inwards {
            Inwards::Nothing => continue,
            Inwards::Published => of_family(Set::Open4, Set::Open6),
            Inwards::Everything => of_family(Set::Unprotected4, Set::Unprotected6),
        };
        elements.insert((open, plain(name.clone())));
    }
    for interface in &bridge.trusted {
        elements.insert((Set::Trusted, plain(joined(&[&name_key(interface.as_str()), &name]))));
    }
    for source in &bridge.subnets {
        for destination in &bridge.subnets {
            let set = match (source.addr(), destination.addr()) {
                (IpAddr::V4(_), IpAddr::V4(_)) => Set::Hairpin4,
                (IpAddr::V6(_), IpAddr::V6(_)) => Set::Hairpin6,
                _ => continue,
            };
            let key = joined(&[&octets(source.network()), &octets(destination.network())]);
            let end = Some(joined(&[&octets(source.broadcast()), &octets(destination.broadcast())]));
            elements.insert((set, Element { key, end, data: None }));
        }
    }
    elements
}

/// What is a network's own: its subnets, the link's own addresses, and the host's address on it, which others do not
/// use, unless every network may.
fn own_elements(bridge: &Bridge, name: &[u8]) -> Elements {
    let mut elements = Elements::new();
    // One of these may be the subnet: elements of an interval set must not overlap.
    let of_link = |net: &IpNet| matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let nets = bridge.subnets.iter().filter(|net| !of_link(net)).map(|net| (net.network(), net.broadcast()));
    for (first, last) in nets.clone() {
        let set = if first.is_ipv4() { Set::Subnets4 } else { Set::Subnets6 };
        let [key, end] = [first, last].map(octets).map(|ip| joined(&[&ip, &ip]));
        elements.insert((set, Element { key, end: Some(end), data: None }));
    }
    let link = (LINK6.0.into(), LINK6.1.into());
    for (first, last) in nets.chain([link]) {
        let set = if first.is_ipv4() { Set::Own4 } else { Set::Own6 };
        let (key, end) = (joined(&[name, &octets(first)]), Some(joined(&[name, &octets(last)])));
        elements.insert((set, Element { key, end, data: None }));
    }
    if !bridge.host_gateway {
        for gateway in bridge.gateways.iter().map(IpNet::addr) {
            let set = if gateway.is_ipv4() { Set::Gateways4 } else { Set::Gateways6 };
            elements.insert((set, plain(joined(&[&octets(gateway)]))));
        }
    }
    elements
}

/// fe80::/10 (RFC 4291, 2.5.6).
const LINK6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xfebf, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX),
);

/// The elements of an endpoint.
pub fn of_attachment(attachment: &Attachment, variant: Variant) -> Elements {
    let mut elements = Elements::new();
    if attachment.on_parent.is_some() {
        return elements;
    }
    if attachment.isolated && variant.br_netfilter {
        elements.insert((Set::Isolated, plain(name_key(attachment.outer.as_str()))));
    }
    if !is_held(attachment) {
        return elements;
    }
    let port = name_key(attachment.outer.as_str());
    elements.insert((Set::Ports, plain(port.clone())));
    for address in addresses_with_link_local(attachment) {
        let set = if address.is_ipv4() { Set::Addresses4 } else { Set::Addresses6 };
        elements.insert((set, plain(joined(&[&port, &octets(address)]))));
    }
    if !variant.locked_ports {
        elements.insert((Set::Macs, plain(joined(&[&port, &attachment.mac.0]))));
    }
    if attachment.check_sources {
        elements.insert((Set::Strict, plain(port)));
    }
    elements
}

/// An endpoint among those of its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The endpoint's.
    pub addresses: Vec<IpNet>,
    /// Its bridge port, where that is held to addresses.
    pub port: Option<InterfaceName>,
}

impl From<&Attachment> for Leg {
    fn from(attachment: &Attachment) -> Self {
        let port = is_held(attachment).then(|| attachment.outer.clone());
        Leg { addresses: attachment.addresses.clone(), port }
    }
}

/// Whether a bridge port is held to its addresses.
fn is_held(attachment: &Attachment) -> bool {
    attachment.on_parent.is_none() && (!attachment.trusted || attachment.isolated)
}

/// The elements of a sandbox with several endpoints. What a member of one of its networks sends to a published port of
/// its that leads to its address on another takes the gateway's address, or the answer would go straight to the client,
/// from an address that it did not ask. And its answers leave by its way out, whichever of its addresses was asked.
pub fn of_sandbox<'a>(legs: impl IntoIterator<Item = &'a Leg>) -> Elements {
    let legs: Vec<&Leg> = legs.into_iter().collect();
    let mut elements = Elements::new();
    for (n, leg) in legs.iter().enumerate() {
        let others = || legs.iter().enumerate().filter(|(other, _)| *other != n).flat_map(|(_, l)| &l.addresses);
        for (client, to) in others().flat_map(|c| leg.addresses.iter().map(move |p| (c, p))) {
            let set = match (client.addr(), to.addr()) {
                (from, to) if client.contains(&to) || from == to => continue, // a network's own element says so
                (IpAddr::V4(_), IpAddr::V4(_)) => Set::Hairpin4,
                (IpAddr::V6(_), IpAddr::V6(_)) => Set::Hairpin6,
                _ => continue,
            };
            let address = octets(to.addr());
            let key = joined(&[&octets(client.network()), &address]);
            let end = Some(joined(&[&octets(client.broadcast()), &address]));
            elements.insert((set, Element { key, end, data: None }));
        }
        for (port, address) in leg.port.iter().flat_map(|port| others().map(move |net| (port, net.addr()))) {
            let set = if address.is_ipv4() { Set::Elsewhere4 } else { Set::Elsewhere6 };
            elements.insert((set, plain(joined(&[&name_key(port.as_str()), &octets(address)]))));
        }
    }
    elements
}

/// An endpoint's addresses, with the link-local one that goes with IPv6.
pub fn addresses_with_link_local(attachment: &Attachment) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = attachment.addresses.iter().map(|net| net.addr());
    let ipv6 = addresses.clone().any(|ip| ip.is_ipv6());
    let asked_for = attachment.link_local.iter().map(|net| net.addr());
    addresses.chain(asked_for).chain(ipv6.then(|| attachment.mac.link_local().into()))
}

/// The elements that belong to nobody in particular.
pub fn of_nobody(proxy: Option<u16>) -> Elements {
    proxy.map(|port| (Set::ProxyPort, plain(port.to_be_bytes().to_vec()))).into_iter().collect()
}

/// The container's own ports, for who may use them.
fn direct_elements(publication: &Publication) -> Elements {
    let Publication { protocol, count, container, container_port, .. } = *publication;
    let address = octets(container);
    let key = |port: u16| joined(&[&address, &[protocol.number()], &port.to_be_bytes()]);
    if count >= INTERVAL_FROM {
        let set = if container.is_ipv4() { Set::DirectRange4 } else { Set::DirectRange6 };
        let end = Some(key(container_port.wrapping_add(count - 1)));
        return [(set, Element { key: key(container_port), end, data: None })].into();
    }
    let set = if container.is_ipv4() { Set::Direct4 } else { Set::Direct6 };
    (0..count).map(|offset| (set, plain(key(container_port.wrapping_add(offset))))).collect()
}

/// The elements of published ports. Without `proxy`, nothing is served on [::1], or where host and container have no
/// family in common.
pub fn of_publication(publication: &Publication, proxy: Option<u16>) -> Elements {
    let mut elements = Elements::new();
    let Publication { host, protocol, host_port, count, container, container_port, direct } = *publication;
    if direct {
        elements.extend(direct_elements(publication));
    }
    let Some(carriage) = publication.carriage() else { return elements };
    let mut proxied = |host: IpAddr| {
        let Some(proxy) = proxy.filter(|_| protocol == Protocol::Tcp) else { return };
        let data = Some(Data::Value(proxy.to_be_bytes().to_vec()));
        if count >= INTERVAL_FROM {
            let set = match (host.is_unspecified(), host) {
                (false, IpAddr::V4(_)) => Set::ProxyRange4,
                (false, IpAddr::V6(_)) => Set::ProxyRange6,
                (true, IpAddr::V4(_)) => Set::ProxyAnyRange4,
                (true, IpAddr::V6(_)) => Set::ProxyAnyRange6,
            };
            let first = if host.is_unspecified() { vec![protocol.number()] } else { octets(host) };
            let key = |port: u16| joined(&[&first, &port.to_be_bytes()]);
            let end = Some(key(host_port.wrapping_add(count - 1)));
            elements.insert((set, Element { key: key(host_port), end, data }));
            return;
        }
        let set = match (host.is_unspecified(), host) {
            (false, IpAddr::V4(_)) => Set::Proxy4,
            (false, IpAddr::V6(_)) => Set::Proxy6,
            (true, IpAddr::V4(_)) => Set::ProxyAny4,
            (true, IpAddr::V6(_)) => Set::ProxyAny6,
        };
        for offset in 0..count {
            let port = host_port.wrapping_add(offset).to_be_bytes();
            let key = if host.is_unspecified() { port.to_vec() } else { joined(&[&octets(host), &port]) };
            elements.insert((set, Element { key, end: None, data: data.clone() }));
        }
    };
    if carriage == Carriage::Proxy {
        proxied(host);
        if protocol == Protocol::Udp && proxy.is_some() && count <= MOST_HELD {
            elements.insert(carried_element(publication));
        }
        return elements;
    }
    if carriage == Carriage::KernelButForLoopback {
        proxied(Ipv6Addr::LOCALHOST.into());
    }

    let address = octets(host);
    let key = |port: u16| {
        let (protocol, port) = ([protocol.number()], port.to_be_bytes());
        if host.is_unspecified() { joined(&[&protocol, &port]) } else { joined(&[&address, &protocol, &port]) }
    };
    if count >= INTERVAL_FROM && host_port == container_port {
        let set = match (host.is_unspecified(), host) {
            (false, IpAddr::V4(_)) => Set::Range4,
            (false, IpAddr::V6(_)) => Set::Range6,
            (true, IpAddr::V4(_)) => Set::AnyRange4,
            (true, IpAddr::V6(_)) => Set::AnyRange6,
        };
        let (key, end) = (key(host_port), Some(key(host_port.wrapping_add(count - 1))));
        elements.insert((set, Element { key, end, data: Some(Data::Value(octets(container))) }));
        return elements;
    }
    let set = match (host.is_unspecified(), host) {
        (false, IpAddr::V4(_)) => Set::Single4,
        (false, IpAddr::V6(_)) => Set::Single6,
        (true, IpAddr::V4(_)) => Set::Any4,
        (true, IpAddr::V6(_)) => Set::Any6,
    };
    for offset in 0..count {
        let to = joined(&[&octets(container), &container_port.wrapping_add(offset).to_be_bytes()]);
        elements.insert((
            set,
            Element { key: key(host_port.wrapping_add(offset)), end: None, data: Some(Data::Value(to)) },
        ));
    }
    elements
}

/// UDP ports whose sockets the proxy reads, past the rules of what is published.
fn carried_element(publication: &Publication) -> (Set, Element) {
    let Publication { host, host_port, count, .. } = *publication;
    let set = if host.is_ipv4() { Set::Carried4 } else { Set::Carried6 };
    let first = octets(host);
    let last = if host.is_unspecified() { vec![0xff; first.len()] } else { first.clone() };
    let key = joined(&[&first, &host_port.to_be_bytes()]);
    let end = Some(joined(&[&last, &host_port.wrapping_add(count - 1).to_be_bytes()]));
    (set, Element { key, end, data: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(host: &str, first: u16, container: &str, to: u16, count: u16) -> Publication {
        Publication {
            host: host.parse().unwrap(),
            protocol: Protocol::Tcp,
            host_port: first,
            count,
            container: container.parse().unwrap(),
            container_port: to,
            direct: false,
        }
    }

    #[test]
    fn where_published_ports_go() {
        use Set::*;
        let check = |publication: Publication, proxy: Option<u16>, expected: &[(Set, usize)]| {
            let elements = of_publication(&publication, proxy);
            let mut counted: Vec<(Set, usize)> = Vec::new();
            for (set, _) in &elements {
                match counted.last_mut() {
                    Some((last, count)) if last == set => *count += 1,
                    _ => counted.push((*set, 1)),
                }
            }
            assert_eq!(counted, expected, "{publication:?} with proxy {proxy:?}");
        };
        let (v4, v6) = ("10.0.0.2", "fd00::2");
        for proxy in [None, Some(999)] {
            check(publication("0.0.0.0", 80, v4, 80, 1), proxy, &[(Any4, 1)]);
            check(publication("127.0.0.1", 80, v4, 80, 1), proxy, &[(Single4, 1)]);
            check(publication("0.0.0.0", 80, v4, 80, 17), proxy, &[(AnyRange4, 1)]);
            check(publication("192.0.2.1", 80, v4, 80, 17), proxy, &[(Range4, 1)]);
            check(publication("0.0.0.0", 80, v4, 81, 17), proxy, &[(Any4, 17)]);
            check(publication("0.0.0.0", 80, v4, 80, 16), proxy, &[(Any4, 16)]);
            check(publication("2001:db8::1", 80, v6, 80, 1), proxy, &[(Single6, 1)]);
        }
        check(publication("::", 80, v6, 80, 1), None, &[(Any6, 1)]);
        check(publication("::", 80, v6, 80, 1), Some(999), &[(Any6, 1), (Proxy6, 1)]);
        check(publication("::1", 80, v6, 80, 1), Some(999), &[(Proxy6, 1)]);
        check(publication("::1", 80, v4, 80, 1), Some(999), &[(Proxy6, 1)]);
        check(publication("::", 80, v4, 80, 3), Some(999), &[(ProxyAny6, 3)]);
        check(publication("::", 80, v4, 80, 17), Some(999), &[(ProxyAnyRange6, 1)]);
        check(publication("::", 80, v6, 80, 17), Some(999), &[(AnyRange6, 1), (ProxyRange6, 1)]);
        check(publication("192.0.2.1", 80, v6, 81, 17), Some(999), &[(ProxyRange4, 1)]);
        check(publication("0.0.0.0", 80, v6, 80, 1), Some(999), &[(ProxyAny4, 1)]);
        check(publication("192.0.2.1", 80, v6, 80, 1), Some(999), &[(Proxy4, 1)]);
        check(publication("::", 80, v4, 80, 1), None, &[]);
        let udp = |publication| Publication { protocol: Protocol::Udp, ..publication };
        check(udp(publication("::", 80, v4, 80, 64)), Some(999), &[(Carried6, 1)]);
        check(udp(publication("::", 80, v4, 80, 65)), Some(999), &[]);
        check(udp(publication("192.0.2.1", 80, v6, 80, 1)), Some(999), &[(Carried4, 1)]);
        check(udp(publication("::", 80, v4, 80, 1)), None, &[]);
        check(publication("0.0.0.0", 65535, v4, 65535, 1), None, &[(Any4, 1)]);
        let direct = |publication| Publication { direct: true, ..publication };
        check(direct(publication("0.0.0.0", 80, v4, 81, 2)), None, &[(Direct4, 2), (Any4, 2)]);
        check(direct(publication("::", 0, v6, 80, 2)), Some(999), &[(Direct6, 2)]);
        check(direct(publication("::", 0, v6, 80, 17)), Some(999), &[(DirectRange6, 1)]);
    }
}
