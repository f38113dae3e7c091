//! Endpoints: who is on which network, decided here, made real by `network`.
//!
//! An endpoint is a record of its container. While the container runs it has an [`ActiveEndpoint`]: addresses leased, a
//! fresh id, an interface in the sandbox. [`rewire`] says which endpoint is the way out and publishes the ports.

use crate::error::{Error, Kind, Result};
use crate::keeper::Act;
use crate::state::State;
use crate::store::Write;
use crate::{Engine, blocking, naming};
use keeper_protocol::Key;
use model::container::{ActiveEndpoint, Container, Endpoint, EndpointSettings, NetworkMode};
use model::desired::{Attachment, OnParent, Publication};
use model::endpoint::Wishes;
use model::gateway::{Candidate, elect};
use model::id::{ContainerId, EndpointId, NetworkId, SandboxId};
use model::ipam::Holder;
use model::names::Change;
use model::net::{InterfaceName, MacAddr, Protocol};
use model::network::{Driver, GatewayMode, Network};
use model::port::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    let list = match wrong.as_slice() {
        [one] => one.clone(),
        all => all.iter().map(|w| format!("* {w}")).collect::<Vec<_>>().join("\n"),
    };
    Err(Error::invalid(format!("invalid config for network {}: invalid endpoint settings:\n{list}", network.name)))
}

/// A template is joined by nobody (API-32).
fn no_template(name: &str) -> Error {
    Error::forbidden(format!("cannot create endpoint on configuration-only network {name}"))
}

/// Takes the endpoint's configured addresses for as long as the container exists (pain 11).
pub fn reserve_static(
    state: &mut State,
    container: ContainerId,
    network: NetworkId,
    settings: &EndpointSettings,
) -> Result<()> {
    let Some(network) = state.networks.get(&network).cloned() else { return Ok(()) };
    let addresses = static_addresses(settings);
    let mut taken: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let names: BTreeMap<ContainerId, String> =
            state.containers.iter().map(|(id, e)| (*id, e.record.name.clone())).collect();
        let name_of = |id: ContainerId| names.get(&id).cloned().unwrap_or_else(|| id.short());
        let had = state.leases.holder(network.id, address) == Some(&Holder::Container(container));
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
        state.leases.release(network, address, container);
    }
}

/// The networks a container is to be attached to when it is created, in order: its mode's first.
pub fn requested(
    mode: &NetworkMode<'_>,
    mode_text: &str,
    mut given: BTreeMap<String, EndpointSettings>,
    order: &[String],
) -> Vec<(String, EndpointSettings)> {
    let own = match mode {
        NetworkMode::Default => Some("bridge".to_owned()),
        NetworkMode::None => Some("none".to_owned()),
        NetworkMode::Host => Some("host".to_owned()),
        NetworkMode::Container(_) | NetworkMode::Path(_) => None,
        NetworkMode::Network(name) => Some((*name).to_owned()),
    };
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
    let bridge = crate::networks::bridge_of(&network, &state.networking);
    let uplink = crate::networks::uplink_of(&network);
    if bridge.is_none() && uplink.is_none() {
        return Err(Error::invalid(format!("network {} has no bridge", network.name)));
    }
    let wishes = Wishes::parse(&endpoint.settings).unwrap_or_default();
    let configured = &wishes.addresses;
    reserve_static(state, container.id, network_id, &endpoint.settings)?;
    let mut addresses: Vec<ipnet::IpNet> = Vec::new();
    for v6 in [false, true] {
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
    let id = EndpointId::new(crate::random());
    let trusted = container.host.privileged
        || container.host.cap_add.iter().flatten().any(|c| {
            let c = c.to_ascii_uppercase();
            matches!(c.trim_start_matches("CAP_"), "NET_ADMIN" | "ALL")
        });
    let on_parent = uplink.map(|u| OnParent { parent: u.parent, sharing: u.sharing });
    let nothing = || on_parent.as_ref().map(|on| on.parent.clone());
    let attachment = Attachment {
        endpoint: id,
        network: network_id,
        container: container.id,
        sandbox,
        bridge: bridge.as_ref().map(|b| b.device.clone()).or_else(nothing).unwrap_or_else(|| inner.clone()),
        outer: format!("ve{}", &id.to_string()[..13]).parse().expect("15 bytes"),
        sysctls: wishes.sysctls(&inner),
        inner,
        mac: wishes.mac.unwrap_or_else(|| MacAddr::local(crate::random())),
        addresses,
        link_local: wishes.link_local,
        gateway_mac: bridge.as_ref().map_or(MacAddr([0; 6]), |b| b.mac),
        gateways: bridge.iter().flat_map(|b| b.gateways.iter().map(|g| g.addr())).collect(),
        default_routes: Vec::new(),
        mtu: network.mtu(),
        isolated: bridge.as_ref().is_some_and(|b| !b.icc),
        trusted,
        check_sources: bridge.as_ref().is_some_and(|b| b.check_sources),
        on_parent,
    };
    Ok(ActiveEndpoint { attachment, publications: BTreeSet::new() })
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("network {name} not found"))
}

/// Says anew which active endpoints are the way out, and which publish the ports.
pub fn rewire(state: &State, container: &mut Container) {
    let up: Vec<usize> = (0..container.endpoints.len()).filter(|i| container.endpoints[*i].active.is_some()).collect();
    let known: Vec<(usize, Network)> =
        up.iter().filter_map(|&i| Some((i, state.networks.get(&container.endpoints[i].network?)?.clone()))).collect();
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
    let asked = model::port::published_ports(&asked_ports(container, None).unwrap_or_default());
    for (at, (i, network)) in known.iter().enumerate() {
        let is_gateway = |v6: bool| if v6 { election.ipv6 == Some(at) } else { election.ipv4 == Some(at) };
        let Some(active) = container.endpoints[*i].active.as_mut() else { continue };
        let ways = [false, true].into_iter().filter(|v6| is_gateway(*v6));
        active.attachment.default_routes = ways.filter_map(|v6| network.way_out(v6)).collect();
        let own: BTreeSet<IpAddr> = active.attachment.addresses.iter().map(|n| n.addr()).collect();
        let direct = state.networking.direct_routing || network.trusted_interfaces().next().is_some();
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

/// The ports that a container publishes. `default_host`: where a binding without an address goes.
///
/// # Errors
/// A text is no port or address.
pub fn asked_ports(
    container: &Container,
    default_host: Option<IpAddr>,
) -> std::result::Result<Vec<Wanted>, model::port::PortRefusal> {
    let exposed = container.config.exposed_ports.keys().filter_map(|p| model::port::parse_range(p).ok()).flatten();
    let host = &container.host;
    model::port::plan_requests(&host.port_bindings, exposed, host.publish_all_ports, default_host)
}

/// The name that the endpoint asks for, or the first free `ethN` (BR-04).
///
/// # Errors
/// Another endpoint of the container has the name.
pub fn next_interface(container: &Container, index: usize, network: &Network) -> Result<InterfaceName> {
    let prefix = network.interface_prefix();
    let used: BTreeSet<&str> =
        container.endpoints.iter().filter_map(|e| e.active.as_ref().map(|a| a.attachment.inner.as_str())).collect();
    let own_wish = |i: usize| Wishes::parse(&container.endpoints[i].settings).ok().and_then(|w| w.interface);
    if let Some(wish) = own_wish(index) {
        if used.contains(wish.as_str()) || wish.as_str() == "lo" {
            return Err(Error::conflict(format!(
                "interface name {wish} for network {} is already in use in container {}",
                network.name, container.name
            )));
        }
        return Ok(wish);
    }
    // Names that others ask for are theirs.
    let wishes: BTreeSet<InterfaceName> = (0..container.endpoints.len()).filter_map(own_wish).collect();
    // One more than can be taken.
    let free = (0..=used.len() + wishes.len())
        .map(|n| format!("{prefix}{n}"))
        .filter(|name| !used.contains(name.as_str()))
        .find_map(|name| name.parse().ok().filter(|name| !wishes.contains(name)));
    Ok(free.unwrap_or_else(|| "eth0".parse().expect("a name")))
}

impl Engine {
    /// Puts a container on a network: at once where it runs, else at its next start (API-12).
    ///
    /// # Errors
    /// There is no such container or network, it is on it already, or its settings do not fit.
    pub async fn connect(self: &Arc<Self>, network: &str, container: &str, settings: EndpointSettings) -> Result<()> {
        self.state().network(network)?;
        let network = network.to_owned();
        self.in_turn(container, move |engine, id| async move {
            let _connecting = engine.metrics.network_action("connect");
            engine.connect_in_turn(id, &network, settings).await
        })
        .await
    }

    async fn connect_in_turn(
        self: &Arc<Self>,
        id: ContainerId,
        reference: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let (network, record, before, plan) = {
            let mut state = self.state();
            let network = state.network(reference)?.clone();
            let mut record = state.entry(id)?.record.clone();
            check_connect(&network, &record)?;
            check_settings(&network, &settings)?;
            let all = record.endpoints.iter().map(|e| &e.settings).chain([&settings]);
            model::container::check_names(all).map_err(Error::invalid)?;
            reserve_static(&mut state, id, network.id, &settings)?;
            record.endpoints.push(Endpoint {
                network: Some(network.id),
                network_name: network.name.clone(),
                settings,
                active: None,
            });
            let index = record.endpoints.len() - 1;
            // A container on `none` alone leaves it with its first real network.
            let plan = match record.state.sandbox.filter(|_| record.state.is_running()) {
                None => None,
                Some(sandbox) => {
                    let inner = next_interface(&record, index, &network);
                    match inner.and_then(|inner| activate(&mut state, &record, index, sandbox, inner)) {
                        Ok(active) => record.endpoints[index].active = Some(active),
                        Err(e) => {
                            release(&mut state, id, &record.endpoints[index], true);
                            return Err(e);
                        }
                    }
                    Some(sandbox)
                }
            };
            let before = state.entry(id)?.record.clone();
            rewire(&state, &mut record);
            state.entry_mut(id)?.record = record.clone();
            (network, record, before, plan)
        };
        let mut record = record;
        let connected = async {
            if let Some(sandbox) = plan {
                self.take_ports(&mut record).await?;
                self.plug(sandbox, &before, &record, &network).await?;
            }
            self.faults.pass("connect: record").await?;
            self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await
        };
        if let Err(e) = connected.await {
            {
                let mut state = self.state();
                if let Some(endpoint) = record.endpoints.last() {
                    release(&mut state, id, endpoint, true);
                }
                if let Ok(entry) = state.entry_mut(id) {
                    entry.record.endpoints.clone_from(&before.endpoints);
                }
            }
            if let Some(sandbox) = plan {
                self.unplug(sandbox, &before, &record).await;
                self.give_ports_back(&before, &record).await;
            }
            self.store.record(vec![Write::Container(Box::new(before))]);
            return Err(e.context(format!("cannot connect {} to {}", record.name, network.name)));
        }
        self.tell_network(&network, "connect", Some(&record));
        Ok(())
    }

    /// The host ports that a container is to publish, and has not taken yet: it had no way out (PT-11).
    async fn take_ports(self: &Arc<Self>, record: &mut Container) -> Result<()> {
        if !record.state.ports.is_empty() {
            return Ok(());
        }
        let wanted = crate::start::wanted_ports(&self.state(), record)?;
        let _ports = self.ports.lock().await;
        record.state.ports = self.reserve_ports(record, &wanted).await?;
        if !record.state.ports.is_empty() {
            let mut state = self.state();
            rewire(&state, record);
            state.entry_mut(record.id)?.record = record.clone();
        }
        Ok(())
    }

    async fn give_ports_back(self: &Arc<Self>, before: &Container, record: &Container) {
        if before.state.ports.is_empty() && !record.state.ports.is_empty() {
            if let Ok(entry) = self.state().entry_mut(record.id) {
                entry.record.state.ports.clear();
            }
            let held = [Key::Ports(record.id), Key::Datagrams(record.id)];
            if let Err(e) = self.keeper.tell(held.map(Act::Release).into()).await {
                tracing::error!(container = ?record.id, "its host ports are not given back: {e}");
            }
        }
    }

    /// Takes back what [`Engine::plug`] did, all or part of it: `before` is true again. It goes on past failures.
    async fn unplug(self: &Arc<Self>, sandbox: SandboxId, before: &Container, record: &Container) {
        let tell = |e: Error| tracing::error!(container = ?record.id, "a failed connect is not taken back: {e}");
        let (handle, resolver) = {
            let mut state = self.state();
            // The view of a sandbox that is on no user-defined network any more goes, and its resolver with it.
            let serves = naming::has_resolver(&state, before);
            let Some(live) = state.sandboxes.get_mut(&sandbox) else { return };
            let resolver = live.resolver && !serves && live.owner == record.id && live.users.len() == 1;
            live.resolver &= !resolver;
            (live.sandbox.clone(), resolver)
        };
        let Some(active) = record.endpoints.last().and_then(|e| e.active.as_ref()) else { return };
        let attachment = active.attachment.clone();
        let mut changes = vec![Change::MemberGone { network: attachment.network, endpoint: attachment.endpoint }];
        changes.extend(match naming::view_change(&self.state(), before) {
            Some(view) => Some(view),
            None if resolver => Some(Change::ViewGone { sandbox }),
            None => None,
        });
        let mut acts = vec![Act::Apply(changes)];
        acts.extend(self.watch_act(before));
        if resolver && let Ok(netns) = handle.netns.try_clone() {
            acts.push(Act::Hold(Key::Sandbox(sandbox), vec![netns]));
        }
        if let Err(e) = self.keeper.tell(acts).await {
            tell(e);
        }
        let engine = self.clone();
        let inside = handle.clone();
        if let Err(e) = blocking(move || engine.network.detach(&inside, &attachment)).await {
            tell(Error::internal(e));
        }
        if let Err(e) = self.move_gateway(&handle, record, before).await {
            tell(e);
        }
        if let Err(e) = self.write_files(before) {
            tell(e);
        }
    }

    /// Makes the last endpoint of `record` real in a running sandbox.
    async fn plug(
        self: &Arc<Self>,
        sandbox: SandboxId,
        before: &Container,
        record: &Container,
        network: &Network,
    ) -> Result<()> {
        let live = {
            let state = self.state();
            let live = state.sandboxes.get(&sandbox);
            live.map(|l| (l.sandbox.clone(), l.resolver)).ok_or_else(|| Error::conflict("the sandbox is gone"))?
        };
        let (handle, has_resolver) = live;
        let attachment =
            record.endpoints.last().and_then(|e| e.active.as_ref()).map(|a| a.attachment.clone()).expect("just made");
        let engine = self.clone();
        let needs_resolver = network.is_user_defined() && !has_resolver;
        let trusted = attachment.trusted;
        let sockets = blocking({
            let (engine, handle) = (engine.clone(), handle.clone());
            move || -> Result<Option<network::ResolverSockets>> {
                engine.faults.check("connect: attach")?;
                engine.network.attach(&handle, std::slice::from_ref(&attachment)).map_err(Error::internal)?;
                engine.faults.check("connect: resolver")?;
                if !needs_resolver {
                    return Ok(None);
                }
                engine.network.open_resolver(&handle, trusted).map(Some).map_err(Error::internal)
            }
        })
        .await?;
        if let Some(sockets) = sockets {
            self.serve_sandbox(sandbox, &handle, sockets).await?;
        }
        self.faults.pass("connect: gateway").await?;
        self.move_gateway(&handle, before, record).await?;
        self.faults.pass("connect: names").await?;
        let changes = {
            let state = self.state();
            let endpoint = record.endpoints.last().expect("just made");
            let member = naming::member_change(record, endpoint, network);
            let view = naming::view_change(&state, record);
            member.into_iter().chain(view).collect()
        };
        self.tell_names(record, changes).await?;
        self.faults.pass("connect: files").await?;
        self.write_files(record)
    }

    /// Tells the keeper what has changed in a container's names, and what is to go with its death from now on.
    async fn tell_names(&self, record: &Container, changes: Vec<Change>) -> Result<()> {
        let mut acts = vec![Act::Apply(changes)];
        acts.extend(self.watch_act(record));
        self.keeper.tell(acts).await
    }

    /// The watch of a running container, with all that its endpoints have.
    fn watch_act(&self, record: &Container) -> Option<Act> {
        let pidfd = self.state().entry(record.id).ok()?.live.as_ref()?.pidfd().ok()?;
        Some(Act::Watch(record.id, pidfd, naming::leave_changes(record, false)))
    }

    /// Where the way out has changed, routes and published ports follow (PT-11).
    async fn move_gateway(
        self: &Arc<Self>,
        handle: &Arc<network::Sandbox>,
        before: &Container,
        after: &Container,
    ) -> Result<()> {
        let routes = |c: &Container| -> BTreeSet<IpAddr> {
            let active = c.endpoints.iter().filter_map(|e| e.active.as_ref());
            active.flat_map(|a| a.attachment.default_routes.iter().copied()).collect()
        };
        let (old, new) = (routes(before), routes(after));
        let (engine, handle) = (self.clone(), handle.clone());
        let (withdrawn, published) = publish_changes(before, after);
        let carried = naming::moved_routes_change(after);
        if carried != naming::moved_routes_change(before) {
            self.keeper.apply(vec![carried]).await?;
        }
        blocking(move || -> Result<()> {
            if old != new {
                let of = |v6: bool| new.iter().copied().find(|a| a.is_ipv6() == v6);
                engine.network.set_default_routes(&handle, of(false), of(true)).map_err(Error::internal)?;
            }
            engine.network.unpublish(&withdrawn).map_err(Error::internal)?;
            engine.network.publish(&published).map_err(Error::internal)
        })
        .await
    }

    /// Hands a sandbox's resolver to the keeper.
    pub(crate) async fn serve_sandbox(
        self: &Arc<Self>,
        id: SandboxId,
        sandbox: &network::Sandbox,
        sockets: network::ResolverSockets,
    ) -> Result<()> {
        let mut descriptors = vec![duplicate(&sandbox.netns)?, sockets.udp, sockets.tcp];
        descriptors.extend(sockets.owner);
        self.keeper.tell(vec![Act::Hold(Key::Sandbox(id), descriptors)]).await?;
        if let Some(live) = self.state().sandboxes.get_mut(&id) {
            live.resolver = true;
        }
        Ok(())
    }

    /// Takes a container off a network (API-13).
    ///
    /// # Errors
    /// It is not on it; or the network is gone and `force` is not given.
    pub async fn disconnect(self: &Arc<Self>, network: &str, container: &str, force: bool) -> Result<()> {
        self.state().network(network)?;
        if force && self.state().find(container).is_err() {
            // Endpoints belong to containers: one without does not exist, so there is nothing to force.
            return Ok(());
        }
        let network = network.to_owned();
        self.in_turn(container, move |engine, id| async move {
            let _releasing = engine.metrics.network_action("release");
            engine.disconnect_in_turn(id, &network).await
        })
        .await
    }

    async fn disconnect_in_turn(self: &Arc<Self>, id: ContainerId, reference: &str) -> Result<()> {
        let (network, endpoint, before, record) = {
            let mut state = self.state();
            let network = state.network(reference)?.clone();
            let before = state.entry(id)?.record.clone();
            if network.driver == Driver::Host {
                return Err(Error::forbidden(
                    "cannot disconnect container from host network - container must be created in host network mode",
                ));
            }
            let Some(index) = before.endpoints.iter().position(|e| e.network == Some(network.id)) else {
                return Err(Error::forbidden(format!("container {id} is not connected to network {}", network.name)));
            };
            let mut record = before.clone();
            let endpoint = record.endpoints.remove(index);
            rewire(&state, &mut record);
            state.entry_mut(id)?.record = record.clone();
            (network, endpoint, before, record)
        };
        let disconnected = async {
            if let Some(active) = &endpoint.active {
                self.pull(active, &before, &record).await?;
            }
            self.faults.pass("disconnect: record").await?;
            self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await
        };
        if let Err(e) = disconnected.await {
            self.push_back(&endpoint, &before, &record).await;
            return Err(e.context(format!("cannot disconnect {} from {}", record.name, network.name)));
        }
        // Its addresses are free once nobody has them.
        release(&mut self.state(), id, &endpoint, true);
        self.tell_network(&network, "disconnect", Some(&record));
        Ok(())
    }

    /// Takes an endpoint out of a running sandbox: names first, so that nobody is sent to what is going.
    async fn pull(self: &Arc<Self>, active: &ActiveEndpoint, before: &Container, record: &Container) -> Result<()> {
        let network = active.attachment.network;
        let mut changes = vec![Change::MemberGone { network, endpoint: active.attachment.endpoint }];
        let handle = {
            let state = self.state();
            changes.extend(naming::view_change(&state, record));
            let sandbox = record.state.sandbox.and_then(|id| state.sandboxes.get(&id));
            sandbox.map(|s| s.sandbox.clone())
        };
        self.faults.pass("disconnect: names").await?;
        self.tell_names(record, changes).await?;
        if let Some(handle) = handle {
            self.faults.pass("disconnect: gateway").await?;
            self.move_gateway(&handle, before, record).await?;
            self.faults.pass("disconnect: files").await?;
            self.write_files(record)?;
            self.faults.pass("disconnect: detach").await?;
            let (engine, attachment) = (self.clone(), active.attachment.clone());
            blocking(move || engine.network.detach(&handle, &attachment)).await.map_err(Error::internal)?;
        }
        Ok(())
    }

    /// After a disconnect that failed: `before` is true again. It goes on past failures.
    async fn push_back(self: &Arc<Self>, endpoint: &Endpoint, before: &Container, record: &Container) {
        let tell = |e: Error| tracing::error!(container = ?record.id, "a failed disconnect is not taken back: {e}");
        let (handle, changes) = {
            let mut state = self.state();
            if let Ok(entry) = state.entry_mut(before.id) {
                entry.record.endpoints.clone_from(&before.endpoints);
            }
            let sandbox = before.state.sandbox.and_then(|id| state.sandboxes.get(&id));
            (sandbox.map(|s| s.sandbox.clone()), naming::join_changes(&state, before))
        };
        if let (Some(active), Some(handle)) = (&endpoint.active, handle) {
            let (engine, inside, attachment) = (self.clone(), handle.clone(), active.attachment.clone());
            let attached = blocking(move || engine.network.attach_again(&inside, &attachment)).await;
            if let Err(e) = attached.map_err(Error::internal) {
                tell(e);
            }
            if let Err(e) = self.move_gateway(&handle, record, before).await {
                tell(e);
            }
            if let Err(e) = self.tell_names(before, changes).await {
                tell(e);
            }
            if let Err(e) = self.write_files(before) {
                tell(e);
            }
        }
        self.store.record(vec![Write::Container(Box::new(before.clone()))]);
    }
}

/// Which publications a change of the record takes away, and which it adds.
fn publish_changes(before: &Container, after: &Container) -> (BTreeSet<Publication>, BTreeSet<Publication>) {
    let all = |c: &Container| -> BTreeSet<Publication> {
        c.endpoints.iter().filter_map(|e| e.active.as_ref()).flat_map(|a| a.publications.iter().cloned()).collect()
    };
    let (before, after) = (all(before), all(after));
    (before.difference(&after).cloned().collect(), after.difference(&before).cloned().collect())
}

pub(crate) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|e| Error::new(Kind::Internal, format!("no descriptor is left: {e}")))
}

/// Whether a container may be put on a network, settings apart (API-12, API-26).
fn check_connect(network: &Network, record: &Container) -> Result<()> {
    let name = &network.name;
    if network.config_only {
        return Err(no_template(name));
    }
    if network.driver == Driver::Host {
        return Err(Error::forbidden(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    if record.endpoint_on(network.id).is_some() {
        return Err(Error::forbidden(format!("endpoint with name {} already exists in network {name}", record.name)));
    }
    let refuse = |mode: &str| {
        Err(Error::forbidden(format!("container cannot be connected to network {name}: its network mode is {mode}")))
    };
    match record.host.network_mode() {
        NetworkMode::Host => refuse("host"),
        NetworkMode::None => Err(Error::forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        NetworkMode::Container(_) | NetworkMode::Path(_) => Err(Error::forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        _ if network.driver == Driver::Null => refuse(&record.host.network_mode),
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
            id: NetworkId::new([1; 32]),
            name: "n".into(),
            created: crate::now(),
            driver: Driver::Bridge,
            ipv4: true,
            ipv6: true,
            internal: false,
            attachable: false,
            ipam: Ipam { pools: vec![pool("10.1.0.0/24"), pool("fd00:1::/64")], ..Ipam::default() },
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            mtu: 1500,
            predefined: false,
            config_only: false,
            config_from: String::new(),
        }
    }

    fn settings(ipv4: &str, ipv6: &str) -> EndpointSettings {
        let addresses = serde_json::json!({"IPAMConfig": {"IPv4Address": ipv4, "IPv6Address": ipv6}});
        serde_json::from_value(addresses).expect("settings")
    }

    #[test]
    fn an_interface_gets_a_name_whatever_the_option_says() {
        let mut network = network();
        let endpoint = Endpoint {
            network: Some(network.id),
            network_name: "n".into(),
            settings: Default::default(),
            active: None,
        };
        let record = Container {
            id: ContainerId::new([2; 32]),
            name: "c".into(),
            created: crate::now(),
            image: model::image::ImageId::new(format!("sha256:{}", "0".repeat(64))),
            config: Default::default(),
            host: Default::default(),
            endpoints: vec![endpoint],
            mounts: Vec::new(),
            state: model::container::State::created(),
            restarts: 0,
            stopped_by_client: false,
        };
        for (prefix, name) in [("../x", "eth0"), ("abcdefghijklm", "eth0"), ("lan", "lan0")] {
            network.options.insert(model::network::option::CONTAINER_IFACE_PREFIX.into(), prefix.into());
            assert_eq!(next_interface(&record, 0, &network).unwrap().as_str(), name, "{prefix}");
        }
    }

    #[test]
    fn a_refused_address_costs_no_other_that_was_held_before() {
        let (mut state, network) = (State::default(), network());
        let (own, other) = (ContainerId::new([2; 32]), ContainerId::new([3; 32]));
        state.leases.open(&network);
        state.networks.insert(network.id, network.clone());
        reserve_static(&mut state, other, network.id, &settings("", "fd00:1::9")).unwrap();
        reserve_static(&mut state, own, network.id, &settings("10.1.0.9", "")).unwrap();
        let both = settings("10.1.0.9", "fd00:1::9");
        reserve_static(&mut state, own, network.id, &both).unwrap_err();
        let holder = |state: &State, address: &str| {
            state.leases.holder(network.id, address.parse().expect("an address")).cloned()
        };
        assert_eq!(holder(&state, "10.1.0.9"), Some(Holder::Container(own)));
        // One that was taken on the way is given back.
        let fresh = settings("10.1.0.10", "fd00:1::9");
        reserve_static(&mut state, own, network.id, &fresh).unwrap_err();
        assert_eq!(holder(&state, "10.1.0.10"), None);
        assert_eq!(holder(&state, "fd00:1::9"), Some(Holder::Container(other)));
    }
}
