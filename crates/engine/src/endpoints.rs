//! Endpoints: who is on which network, decided here, made real by `network`.
//!
//! An endpoint is a record of its container. While the container runs it has an [`ActiveEndpoint`]: addresses leased, a
//! fresh id, an interface in the sandbox. [`rewire`] says which endpoint is the way out and publishes the ports.

use crate::error::{Error, Result};
use crate::keeper::Act;
use crate::start::{publish_changes, tell_connected};
use crate::state::State;
use crate::store::Write;
use crate::{Engine, blocking, naming};
use keeper_protocol::Key;
use model::container::{ActiveEndpoint, Container, Endpoint, EndpointSettings, NetworkMode};
use model::desired::Attachment;
use model::gateway::{Candidate, elect};
use model::id::{ContainerId, EndpointId, NetworkId, SandboxId};
use model::ipam::Holder;
use model::names::Change;
use model::net::{InterfaceName, MacAddr};
use model::network::{Driver, Network, option};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The static addresses of an endpoint, parsed.
///
/// # Errors
/// One is no address of its family.
fn static_addresses(settings: &EndpointSettings) -> std::result::Result<Vec<IpAddr>, Vec<String>> {
    let mut addresses = Vec::new();
    let mut wrong = Vec::new();
    if let Some(ipam) = &settings.ipam_config {
        for (text, v6) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
            match text.parse::<IpAddr>() {
                _ if text.is_empty() => {}
                Ok(address) if address.is_ipv6() == v6 => addresses.push(address),
                _ => wrong.push(format!("invalid {} address: {text}", if v6 { "IPv6" } else { "IPv4" })),
            }
        }
    }
    if wrong.is_empty() { Ok(addresses) } else { Err(wrong) }
}

/// Whether an endpoint may be on a network with these settings; everything that is wrong is told at once (API-23,
/// API-24).
///
/// # Errors
/// All that is wrong.
pub fn check_settings(network: &Network, settings: &EndpointSettings) -> Result<()> {
    let mut wrong = Vec::new();
    match static_addresses(settings) {
        Err(list) => wrong.extend(list),
        Ok(addresses) if addresses.is_empty() => {}
        Ok(addresses) => {
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
    if !settings.mac_address.is_empty()
        && let Err(e) = settings.mac_address.parse::<MacAddr>()
    {
        wrong.push(e.to_string());
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

/// Takes the endpoint's configured addresses for as long as the container exists (pain 11).
pub fn reserve_static(
    state: &mut State,
    container: ContainerId,
    network: NetworkId,
    settings: &EndpointSettings,
) -> Result<()> {
    let Some(network) = state.networks.get(&network).cloned() else { return Ok(()) };
    let addresses = static_addresses(settings).unwrap_or_default();
    for (taken, address) in addresses.iter().enumerate() {
        let names: BTreeMap<ContainerId, String> =
            state.containers.iter().map(|(id, e)| (*id, e.record.name.clone())).collect();
        let name_of = |id: ContainerId| names.get(&id).cloned().unwrap_or_else(|| id.short());
        let had = state.leases.holder(network.id, *address) == Some(&Holder::Container(container));
        if let Err(e) = state.leases.lease(&network, *address, container, name_of) {
            // All of them, or none.
            for own in addresses[..taken].iter().filter(|_| !had) {
                state.leases.release(network.id, *own, container);
            }
            return Err(e.into());
        }
    }
    Ok(())
}

/// Gives an endpoint's addresses back: all of them, or those that were not configured.
pub fn release(state: &mut State, container: ContainerId, endpoint: &Endpoint, configured_too: bool) {
    let Some(network) = endpoint.network else { return };
    let configured = static_addresses(&endpoint.settings).unwrap_or_default();
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
        NetworkMode::Container(_) => None,
        NetworkMode::Network(name) => Some((*name).to_owned()),
    };
    let mut list = Vec::new();
    given.retain(|name, _| !name.starts_with("container:"));
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
    let bridge = crate::networks::bridge_of(&network)
        .ok_or_else(|| Error::invalid(format!("network {} has no bridge", network.name)))?;
    let configured = static_addresses(&endpoint.settings).unwrap_or_default();
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
    let attachment = Attachment {
        endpoint: id,
        network: network_id,
        container: container.id,
        sandbox,
        bridge: bridge.device.clone(),
        outer: format!("ve{}", &id.to_string()[..13]).parse().expect("15 bytes"),
        inner,
        mac: Container::mac_of(&endpoint.settings).unwrap_or_else(|| MacAddr::local(crate::random())),
        addresses,
        gateway_mac: bridge.mac,
        gateways: bridge.gateways.iter().map(|g| g.addr()).collect(),
        default_routes: Vec::new(),
        mtu: bridge.mtu,
        isolated: !bridge.icc,
        trusted,
        check_sources: bridge.check_sources,
        sysctls: BTreeMap::new(),
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
    for (at, (i, network)) in known.iter().enumerate() {
        let is_gateway = |v6: bool| if v6 { election.ipv6 == Some(at) } else { election.ipv4 == Some(at) };
        let Some(active) = container.endpoints[*i].active.as_mut() else { continue };
        let pools = network.ipam.pools.iter().filter(|p| is_gateway(p.subnet.addr().is_ipv6()));
        active.attachment.default_routes = pools.filter_map(|p| p.gateway).collect();
        let own: BTreeSet<IpAddr> = active.attachment.addresses.iter().map(|n| n.addr()).collect();
        active.publications = all.iter().filter(|p| own.contains(&p.container)).cloned().collect();
    }
}

/// The first free `ethN` (BR-04).
pub fn next_interface(container: &Container, network: &Network) -> InterfaceName {
    let prefix =
        network.option(option::CONTAINER_IFACE_PREFIX).filter(|p| (1..=12).contains(&p.len())).unwrap_or("eth");
    let used: BTreeSet<&str> =
        container.endpoints.iter().filter_map(|e| e.active.as_ref().map(|a| a.attachment.inner.as_str())).collect();
    (0..)
        .map(|n| format!("{prefix}{n}"))
        .find(|name| !used.contains(name.as_str()))
        .and_then(|name| name.parse().ok())
        .unwrap_or_else(|| "eth0".parse().expect("a name"))
}

impl Engine {
    /// Puts a container on a network: at once where it runs, else at its next start (API-12).
    ///
    /// # Errors
    /// There is no such container or network, it is on it already, or its settings do not fit.
    pub async fn connect(self: &Arc<Self>, network: &str, container: &str, settings: EndpointSettings) -> Result<()> {
        let engine = self.clone();
        let (network, container) = (network.to_owned(), container.to_owned());
        self.detached(async move {
            let (id, turn) = {
                let state = engine.state();
                state.network(&network)?;
                let entry = state.find(&container)?;
                (entry.record.id, entry.turn.clone())
            };
            let _turn = turn.lock().await;
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
                    let inner = next_interface(&record, &network);
                    match activate(&mut state, &record, index, sandbox, inner) {
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
        let connected = async {
            if let Some(sandbox) = plan {
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
            }
            self.store.record(vec![Write::Container(Box::new(before))]);
            return Err(e.context(format!("cannot connect {} to {}", record.name, network.name)));
        }
        tell_connected(self, &network, &record, "connect");
        Ok(())
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
            member.into_iter().chain(naming::view_change(&state, record)).collect()
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
        let carried = naming::routes_change(after);
        if carried != naming::routes_change(before) {
            self.keeper.apply(vec![carried.unwrap_or(Change::RoutesGone { container: after.id })]).await?;
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

    /// Takes a container off a network (API-13).
    ///
    /// # Errors
    /// It is not on it; or the network is gone and `force` is not given.
    pub async fn disconnect(self: &Arc<Self>, network: &str, container: &str, force: bool) -> Result<()> {
        let engine = self.clone();
        let (network, container) = (network.to_owned(), container.to_owned());
        self.detached(async move {
            let (id, turn) = {
                let state = engine.state();
                state.network(&network)?;
                match state.find(&container) {
                    Ok(entry) => (entry.record.id, entry.turn.clone()),
                    // Endpoints belong to containers: one without does not exist, so there is nothing to force.
                    Err(_) if force => return Ok(()),
                    Err(e) => return Err(e),
                }
            };
            let _turn = turn.lock().await;
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
        tell_connected(self, &network, &record, "disconnect");
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

/// Whether a container may be put on a network, settings apart (API-12, API-26).
fn check_connect(network: &Network, record: &Container) -> Result<()> {
    let name = &network.name;
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
        NetworkMode::Container(_) => Err(Error::forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        _ if network.driver == Driver::Null => refuse(&record.host.network_mode),
        _ => Ok(()),
    }
}
