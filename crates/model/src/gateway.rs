//! Which of a container's endpoints is its way out (BR-10), and so which one publishes its ports (PT-11).

use crate::container::{Container, Endpoint, EndpointSettings};
use crate::daemon::Networking;
use crate::desired::Publication;
use crate::id::NetworkId;
use crate::net::Protocol;
use crate::network::{GatewayMode, Network};
use crate::port::{PortRefusal, Wanted, published_ports};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// The facts about one endpoint that decide.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it is on.
    pub network: &'a Network,
    /// What was asked for, a priority among it.
    pub settings: &'a EndpointSettings,
    /// It has an address.
    pub ipv4: bool,
    /// It has one of these, too.
    pub ipv6: bool,
}

/// The indices of the endpoints that are the way out, for IPv4 and for IPv6; and all indices in gateway order, in which
/// names are searched (DNS-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// `None`: there is no way out.
    pub ipv4: Option<usize>,
    /// The same.
    pub ipv6: Option<usize>,
    /// All, the first one first.
    pub order: Vec<usize>,
}

/// Higher priority first, then networks with a way out, then dual-stack ones, then by name.
pub fn elect(candidates: &[Candidate<'_>]) -> Election {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&i| {
        let c = &candidates[i];
        let single = !(c.ipv4 && c.ipv6);
        (std::cmp::Reverse(c.settings.gw_priority), c.network.internal, single, c.network.name.clone())
    });
    let first = |has: fn(&Candidate<'_>) -> bool| {
        order.iter().copied().find(|&i| !candidates[i].network.internal && has(&candidates[i]))
    };
    Election { ipv4: first(|c| c.ipv4), ipv6: first(|c| c.ipv6), order }
}

/// Says anew which active endpoints are the way out, and which publish the ports.
pub fn wire(container: &mut Container, networks: &BTreeMap<NetworkId, Network>, networking: &Networking) {
    let up: Vec<usize> = (0..container.endpoints.len()).filter(|i| container.endpoints[*i].active.is_some()).collect();
    let known: Vec<(usize, Network)> =
        up.iter().filter_map(|&i| Some((i, networks.get(&container.endpoints[i].network?)?.clone()))).collect();
    let election = {
        let candidates: Vec<Candidate<'_>> = known
            .iter()
            .map(|(i, network)| {
                let endpoint = &container.endpoints[*i];
                let active = endpoint.active.as_ref();
                Candidate {
                    network,
                    settings: &endpoint.settings,
                    ipv4: active.is_some_and(|a| a.ipv4().is_some()),
                    ipv6: active.is_some_and(|a| a.ipv6().is_some()),
                }
            })
            .collect();
        elect(&candidates)
    };
    let address = |at: Option<usize>, v6: bool| -> Option<IpAddr> {
        let active = container.endpoints[known[at?].0].active.as_ref()?;
        active.attachment.addresses.iter().map(|n| n.addr()).find(|a| a.is_ipv6() == v6)
    };
    let (ipv4, ipv6) = (address(election.ipv4, false), address(election.ipv6, true));
    let all: BTreeSet<_> = container.state.ports.iter().flat_map(|p| p.publications(ipv4, ipv6)).collect();
    let asked = published_ports(&container.wanted_ports(None).unwrap_or_default());
    for (at, (i, network)) in known.iter().enumerate() {
        let is_gateway = |v6: bool| if v6 { election.ipv6 == Some(at) } else { election.ipv4 == Some(at) };
        let Some(active) = container.endpoints[*i].active.as_mut() else { continue };
        let ways = [false, true].into_iter().filter(|v6| is_gateway(*v6));
        active.attachment.default_routes = ways.filter_map(|v6| network.way_out(v6)).collect();
        let own: BTreeSet<IpAddr> = active.attachment.addresses.iter().map(|n| n.addr()).collect();
        let direct = networking.direct_routing || network.trusted_interfaces().next().is_some();
        let is_routed = |p: &Publication| network.gateway_mode(p.container.is_ipv6()) == GatewayMode::Routed;
        if active.attachment.on_parent.is_some() {
            // Its addresses are the network's behind the parent: nothing is translated (as in Docker).
            active.publications.clear();
            continue;
        }
        let translated = all.iter().filter(|p| own.contains(&p.container) && !is_routed(p));
        active.publications = translated.map(|p| Publication { direct, ..p.clone() }).collect();
        active.publications.extend(routed(network, &own, &asked));
    }
}

/// The container's own ports, open on a routed network whether or not it is the way out (PT-11).
fn routed(
    network: &Network,
    own: &BTreeSet<IpAddr>,
    asked: &BTreeSet<(Protocol, u16, u16)>,
) -> impl Iterator<Item = Publication> {
    let is_routed = |a: &&IpAddr| !network.internal && network.gateway_mode(a.is_ipv6()) == GatewayMode::Routed;
    let open = |address: IpAddr| {
        let unspecified = if address.is_ipv4() { IpAddr::V4([0; 4].into()) } else { IpAddr::V6([0; 16].into()) };
        asked.iter().map(move |&(protocol, container_port, count)| Publication {
            host: unspecified,
            protocol,
            host_port: 0,
            count,
            container: address,
            container_port,
            direct: true,
        })
    };
    own.iter().copied().filter(move |a| is_routed(&a)).flat_map(open)
}

/// The host ports that a container is to publish by the endpoints that it has.
///
/// # Errors
/// A text is no port or address.
pub fn host_ports(record: &Container, networks: &BTreeMap<NetworkId, Network>) -> Result<Vec<Wanted>, PortRefusal> {
    let is_way_out = |e: &&Endpoint| e.active.as_ref().is_some_and(|a| !a.attachment.default_routes.is_empty());
    let Some(way_out) = record.endpoints.iter().find(is_way_out) else { return Ok(Vec::new()) };
    let network = way_out.network.and_then(|id| networks.get(&id));
    let default_host = network.and_then(Network::host_binding);
    let default_host = default_host.filter(|h| *h != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut wanted = record.wanted_ports(default_host)?;
    // Where the way in is routed, there is no port of the host's (BR-09).
    let mode = |v6: bool| {
        let is_way_out = |e: &&Endpoint| {
            e.active.as_ref().is_some_and(|a| a.attachment.default_routes.iter().any(|r| r.is_ipv6() == v6))
        };
        let network = record.endpoints.iter().find(is_way_out).and_then(|e| networks.get(&e.network?));
        network.map(|n| n.gateway_mode(v6))
    };
    let (mode4, mode6) = (mode(false), mode(true));
    for one in &mut wanted {
        one.hosts.retain(|h| if h.is_ipv4() { mode4.or(mode6) } else { mode6.or(mode4) } != Some(GatewayMode::Routed));
    }
    wanted.retain(|one| !one.hosts.is_empty());
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Driver;

    fn network(name: &str, internal: bool) -> Network {
        Network {
            internal,
            ..Network::new(NetworkId::new([name.as_bytes()[0]; 32]), name, Driver::Bridge, jiff::Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn br_10_priority_then_a_way_out_then_dual_stack_then_the_name() {
        let (a, b, c, i) = (network("a", false), network("b", false), network("c", false), network("aa", true));
        let plain = EndpointSettings::default();
        let preferred = EndpointSettings { gw_priority: 5, ..Default::default() };
        let of = |network, settings, ipv6| Candidate { network, settings, ipv4: true, ipv6 };
        let election = elect(&[of(&c, &plain, false), of(&i, &plain, false), of(&a, &plain, false)]);
        assert_eq!((election.ipv4, election.ipv6, election.order), (Some(2), None, vec![2, 0, 1]));
        let election = elect(&[of(&a, &plain, false), of(&b, &plain, true)]);
        assert_eq!((election.ipv4, election.ipv6), (Some(1), Some(1)));
        let election = elect(&[of(&a, &plain, true), of(&c, &preferred, false)]);
        assert_eq!((election.ipv4, election.ipv6), (Some(1), Some(0)), "each family has its own");
        assert_eq!(elect(&[of(&i, &preferred, false)]).ipv4, None, "an internal network is no way out");
    }
}
