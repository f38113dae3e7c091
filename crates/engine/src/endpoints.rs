//! Endpoints: who is on which network, decided here, made real by `network`.
//!
//! An endpoint is a record of its container. While the container runs it has an [`ActiveEndpoint`]: addresses leased, a
//! fresh id, an interface in the sandbox. [`model::gateway::wire`] says which endpoint is the way out and publishes the ports.

use crate::error::{Error, Result};
use crate::state::State;
use model::container::{ActiveEndpoint, Container, Endpoint, EndpointSettings, NetworkMode};
use model::endpoint::{Fresh, Place, Wishes, allows_ipv6, attachment};
use model::id::{ContainerId, EndpointId, NetworkId, SandboxId};
use model::ipam::Holder;
use model::net::{InterfaceName, MacAddr};
use model::network::{Driver, Network};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The static addresses of an endpoint; settings that say nothing were refused before.
fn static_addresses(settings: &EndpointSettings) -> Vec<IpAddr> {
    Wishes::parse(settings).map(|w| w.addresses).unwrap_or_default()
}

/// Whether an endpoint may be on a network with these settings; everything that is wrong is told at once (API-23,
/// API-24).
///
/// # Errors
/// All that is wrong.
pub fn check_settings(network: &Network, settings: &EndpointSettings) -> Result<()> {
    if network.config_only {
        return Err(no_template(&network.name));
    }
    let mut wrong = Vec::new();
    match Wishes::parse(settings) {
        Err(list) => wrong.extend(list),
        Ok(wishes) if wishes.addresses.is_empty() => {}
        Ok(Wishes { addresses, .. }) => {
            if !network.is_user_defined() {
                wrong.push("user specified IP address is supported on user defined networks only".to_owned());
            }
            for address in addresses {
                match network.pool_of(address) {
                    Some(pool) if pool.configured => {}
                    None if network.ipam.pools.iter().any(|p| p.configured) => {
                        wrong.push(format!("no configured subnet contains IP address {address}"));
                    }
                    _ => {
                        let only = "user specified IP address is supported only when connecting to networks with user \
                                    configured subnets";
                        if !wrong.iter().any(|w| w == only) {
                            wrong.push(only.to_owned());
                        }
                    }
                }
            }
        }
    }
    if !network.is_user_defined() && settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
        wrong.push("network-scoped aliases are only supported for user-defined networks".to_owned());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let list = model::errno::all(&wrong);
    Err(Error::invalid(format!("invalid config for network {}: invalid endpoint settings:\n{list}", network.name)))
}

/// A template is joined by nobody (API-32).
fn no_template(name: &str) -> Error {
    Error::forbidden(format!("cannot create endpoint on configuration-only network {name}"))
}

/// Who may have a configured address that another container has configured, too: they are made side by side when one is to
/// replace the other, as Compose does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The other one keeps it for now.
    Later,
    /// This one, unless the other one uses it.
    Now,
}

/// Takes the endpoint's configured addresses for as long as the container exists (pain 11): nobody gets one by chance.
///
/// # Errors
/// One is none of the network's, or not to be had.
pub fn reserve_static(
    state: &mut State,
    container: ContainerId,
    network: NetworkId,
    settings: &EndpointSettings,
    claim: Claim,
) -> Result<()> {
    let Some(network) = state.networks.get(&network).cloned() else { return Ok(()) };
    let addresses = static_addresses(settings);
    let mut taken: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let holder = state.leases.holder(network.id, address);
        if let Some(Holder::Container(other)) = holder.filter(|h| **h != Holder::Container(container)) {
            match claim {
                Claim::Later => continue,
                Claim::Now if !uses(state, *other, network.id, address) => {
                    state.leases.take_over(network.id, address, container);
                    continue;
                }
                Claim::Now => {}
            }
        }
        let had = holder == Some(&Holder::Container(container));
        let containers = &state.containers;
        let name_of = |id: ContainerId| containers.get(&id).map_or_else(|| id.short(), |e| e.record.name.clone());
        if let Err(e) = state.leases.lease(&network, address, container, name_of) {
            // All of them, or none: but what it had before stays its own.
            for own in taken {
                state.leases.release(network.id, own, container);
            }
            return Err(e.into());
        }
        if !had {
            taken.push(address);
        }
    }
    Ok(())
}

/// Whether a container has an address on an interface, or is about to.
fn uses(state: &State, container: ContainerId, network: NetworkId, address: IpAddr) -> bool {
    let Some(entry) = state.containers.get(&container) else { return false };
    let active = entry.record.endpoints.iter().filter(|e| e.network == Some(network)).filter_map(|e| e.active.as_ref());
    active.flat_map(|a| &a.attachment.addresses).any(|net| net.addr() == address)
}

/// An address that was given back is kept for another container that has it configured, if there is one.
fn keep_for_others(state: &mut State, network: NetworkId, address: IpAddr, gone: ContainerId) {
    let Some(network) = state.networks.get(&network).cloned() else { return };
    let wants = |e: &Endpoint| e.network == Some(network.id) && static_addresses(&e.settings).contains(&address);
    let mut others = state.containers.values().map(|e| &e.record).filter(|record| record.id != gone);
    if let Some(next) = others.find(|record| record.endpoints.iter().any(wants)).map(|record| record.id) {
        // Nobody has it: it was given back just now.
        let _ = state.leases.lease(&network, address, next, |id| id.short());
    }
}

/// Gives an endpoint's addresses back: all of them, or those that were not configured.
pub fn release(state: &mut State, container: ContainerId, endpoint: &Endpoint, configured_too: bool) {
    let Some(network) = endpoint.network else { return };
    let configured = static_addresses(&endpoint.settings);
    let active = endpoint.active.iter().flat_map(|a| a.attachment.addresses.iter().map(|n| n.addr()));
    let mut going: BTreeSet<IpAddr> = active.filter(|a| !configured.contains(a)).collect();
    if configured_too {
        going.extend(configured);
    }
    for address in going {
        let had = state.leases.holder(network, address) == Some(&Holder::Container(container));
        state.leases.release(network, address, container);
        if had {
            keep_for_others(state, network, address, container);
        }
    }
}

/// The network that a mode means, by name or id; there is none where another's sandbox is shared.
pub fn main_network<'a>(mode: &NetworkMode<'a>) -> Option<&'a str> {
    match mode {
        NetworkMode::Default => Some("bridge"),
        NetworkMode::None => Some("none"),
        NetworkMode::Host => Some("host"),
        NetworkMode::Container(_) | NetworkMode::Path(_) => None,
        NetworkMode::Network(name) => Some(name),
    }
}

/// The networks a container is to be attached to when it is created, in order: its mode's first.
pub fn requested(
    mode: &NetworkMode<'_>,
    mode_text: &str,
    mut given: BTreeMap<String, EndpointSettings>,
    order: &[String],
) -> Vec<(String, EndpointSettings)> {
    let own = main_network(mode).map(str::to_owned);
    let mut list = Vec::new();
    given.retain(|name, _| !name.starts_with("container:") && !name.starts_with("ns:"));
    if let Some(own) = own {
        let settings = given.remove(&own).or_else(|| given.remove(mode_text));
        let settings = settings.or_else(|| given.remove("default").filter(|_| own == "bridge"));
        list.push((own, settings.unwrap_or_default()));
    }
    for name in order {
        if let Some(settings) = given.remove(name) {
            list.push((name.clone(), settings));
        }
    }
    list.extend(given);
    list
}

/// Makes an endpoint active: leases its addresses, and says how it is attached. `inner` is its interface in the sandbox.
///
/// # Errors
/// No address is free, or a configured one is taken.
pub fn activate(
    state: &mut State,
    container: &Container,
    index: usize,
    sandbox: SandboxId,
    inner: InterfaceName,
) -> Result<ActiveEndpoint> {
    let endpoint = &container.endpoints[index];
    let network_id = endpoint.network.ok_or_else(|| not_found(&endpoint.network_name))?;
    let network = state.networks.get(&network_id).cloned().ok_or_else(|| not_found(&endpoint.network_name))?;
    let wishes = Wishes::parse(&endpoint.settings).unwrap_or_default();
    let configured = &wishes.addresses;
    reserve_static(state, container.id, network_id, &endpoint.settings, Claim::Now)?;
    let mut addresses: Vec<ipnet::IpNet> = Vec::new();
    let ipv6 = allows_ipv6(&container.host, &wishes, &inner);
    for v6 in [false, true].into_iter().filter(|v6| ipv6 || !v6) {
        let pools = || network.ipam.pools.iter().filter(move |p| p.subnet.addr().is_ipv6() == v6);
        let Some(first) = pools().next() else { continue };
        let address = match configured.iter().find(|a| a.is_ipv6() == v6) {
            Some(address) => *address,
            None => match state.leases.lease_any(&network, first, container.id) {
                Ok(address) => address,
                Err(e) => {
                    for taken in &addresses {
                        if !configured.contains(&taken.addr()) {
                            state.leases.release(network_id, taken.addr(), container.id);
                        }
                    }
                    return Err(e.into());
                }
            },
        };
        let prefix = network.pool_of(address).unwrap_or(first).subnet.prefix_len();
        addresses.push(ipnet::IpNet::new(address, prefix).expect("a subnet's prefix length"));
    }
    let fresh = Fresh { endpoint: EndpointId::new(crate::random()), mac: MacAddr::local(crate::random()) };
    let place = Place { sandbox, interface: inner, addresses };
    let attachment = attachment(container, &network, &state.networking, &wishes, place, fresh)
        .ok_or_else(|| Error::invalid(format!("network {} has no bridge", network.name)))?;
    Ok(ActiveEndpoint { attachment, publications: BTreeSet::new() })
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("network {name} not found"))
}

/// Whether a container may be put on a network, settings apart (API-12, API-26). Who is on `none` is on no other; taken off
/// it, he may be on any.
pub fn check_connect(network: &Network, record: &Container, networks: &BTreeMap<NetworkId, Network>) -> Result<()> {
    let name = &network.name;
    if network.config_only {
        return Err(no_template(name));
    }
    if network.driver == Driver::Host {
        return Err(Error::invalid(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    if record.endpoint_on(network.id).is_some() {
        return Err(Error::forbidden(format!("endpoint with name {} already exists in network {name}", record.name)));
    }
    let others = || record.endpoints.iter().filter_map(|e| networks.get(&e.network?));
    match record.host.network_mode() {
        NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Path(_) => Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        _ if others().chain([network]).any(|n| n.driver == Driver::Null) && others().next().is_some() => {
            Err(Error::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::{Ipam, Pool};

    fn network() -> Network {
        let pool = |subnet: &str| Pool {
            subnet: subnet.parse().expect("a subnet"),
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            configured: true,
            gateway_configured: false,
        };
        Network {
            ipv6: true,
            ipam: Ipam { pools: vec![pool("10.1.0.0/24"), pool("fd00:1::/64")], ..Ipam::default() },
            ..Network::new(NetworkId::new([1; 32]), "n", Driver::Bridge, crate::now())
        }
    }

    fn settings(ipv4: &str, ipv6: &str) -> EndpointSettings {
        let addresses = serde_json::json!({"IPAMConfig": {"IPv4Address": ipv4, "IPv6Address": ipv6}});
        serde_json::from_value(addresses).expect("settings")
    }

    #[test]
    fn a_refused_address_costs_no_other_that_was_held_before() {
        let (mut state, network) = (State::default(), network());
        let (own, other) = (ContainerId::new([2; 32]), ContainerId::new([3; 32]));
        state.leases.open(&network);
        state.networks.insert(network.id, network.clone());
        let reserve =
            |state: &mut State, who, settings, claim| reserve_static(state, who, network.id, &settings, claim);
        let holder = |state: &State, address: &str| {
            state.leases.holder(network.id, address.parse().expect("an address")).cloned()
        };
        reserve(&mut state, own, settings("10.1.0.9", ""), Claim::Later).unwrap();
        // One that is taken on the way is given back where the next cannot be had.
        for gateway in ["10.1.0.0", "10.9.9.9"] {
            let mixed = serde_json::json!({"IPAMConfig": {"IPv4Address": gateway, "IPv6Address": "fd00:1::a"}});
            let mixed = serde_json::from_value(mixed).expect("settings");
            reserve(&mut state, own, mixed, Claim::Now).unwrap_err();
            assert_eq!(holder(&state, "fd00:1::a"), None);
        }
        assert_eq!(holder(&state, "10.1.0.9"), Some(Holder::Container(own)));
        // A second one waits for its start, and then has it from one that does not use it.
        reserve(&mut state, other, settings("10.1.0.9", ""), Claim::Later).unwrap();
        assert_eq!(holder(&state, "10.1.0.9"), Some(Holder::Container(own)));
        reserve(&mut state, other, settings("10.1.0.9", ""), Claim::Now).unwrap();
        assert_eq!(holder(&state, "10.1.0.9"), Some(Holder::Container(other)));
    }
}
