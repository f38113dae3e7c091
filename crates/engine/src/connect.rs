//! Connecting containers to networks and disconnecting them while they run.
//!
//! What changes is recorded first, then made real step by step; a step that fails takes all before it back.

use crate::endpoints::{Claim, activate, check_connect, check_settings, release, reserve_static};
use crate::error::{Error, Result};
use crate::keeper::Act;
use crate::store::Write;
use crate::{Engine, blocking, duplicate, naming};
use keeper_protocol::Key;
use model::container::{ActiveEndpoint, Container, Endpoint, EndpointSettings};
use model::desired::Publication;
use model::endpoint::interface_name;
use model::gateway::{host_ports, wire};
use model::id::{ContainerId, SandboxId};
use model::names::Change;
use model::network::{Driver, Network};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

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
            check_connect(&network, &record, &state.networks)?;
            check_settings(&network, &settings)?;
            let all = record.endpoints.iter().map(|e| &e.settings).chain([&settings]);
            model::container::check_names(all).map_err(Error::invalid)?;
            reserve_static(&mut state, id, network.id, &settings, Claim::Later)?;
            record.endpoints.push(Endpoint {
                network: Some(network.id),
                network_name: network.name.clone(),
                settings,
                active: None,
            });
            let index = record.endpoints.len() - 1;
            // Of `none` there is nothing inside.
            let is_plugged = record.state.is_running() && network.driver != Driver::Null;
            let plan = match record.state.sandbox.filter(|_| is_plugged) {
                None => None,
                Some(sandbox) => {
                    let inner = interface_name(&record, index, &network).map_err(Error::from);
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
            wire(&mut record, &state.networks, &state.networking);
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
            if let Ok(entry) = self.state().entry_mut(id) {
                entry.record.endpoints.clone_from(&before.endpoints);
            }
            if let Some(sandbox) = plan {
                self.unplug(sandbox, &before, &record).await;
                self.give_ports_back(&before, &record).await;
            }
            // Its addresses are free once nobody has them.
            if let Some(endpoint) = record.endpoints.last() {
                release(&mut self.state(), id, endpoint, true);
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
        let wanted = host_ports(record, &self.state().networks)?;
        let _ports = self.ports.lock().await;
        record.state.ports = self.reserve_ports(record, &wanted).await?;
        if !record.state.ports.is_empty() {
            let mut state = self.state();
            wire(record, &state.networks, &state.networking);
            state.entry_mut(record.id)?.record = record.clone();
        }
        Ok(())
    }

    async fn give_ports_back(self: &Arc<Self>, before: &Container, record: &Container) {
        if before.state.ports.is_empty() && !record.state.ports.is_empty() {
            if let Ok(entry) = self.state().entry_mut(record.id) {
                entry.record.state.ports.clear();
            }
            self.release_ports(record.id).await;
        }
    }

    async fn release_ports(&self, id: ContainerId) {
        let held = [Key::Ports(id), Key::Datagrams(id)];
        if let Err(e) = self.keeper.tell(held.map(Act::Release).into()).await {
            tracing::error!(container = ?id, "its host ports are not given back: {e}");
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
                return Err(Error::invalid(
                    "cannot disconnect container from host network - container must be created in host network mode",
                ));
            }
            let Some(index) = before.endpoints.iter().position(|e| e.network == Some(network.id)) else {
                return Err(Error::forbidden(format!("container {id} is not connected to network {}", network.name)));
            };
            let mut record = before.clone();
            let endpoint = record.endpoints.remove(index);
            wire(&mut record, &state.networks, &state.networking);
            // Without a way out, it publishes nothing: its host ports are free for others until it has one again.
            if host_ports(&record, &state.networks).is_ok_and(|wanted| wanted.is_empty()) {
                record.state.ports.clear();
            }
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
        // Its addresses are free once nobody has them, and its ports once nothing leads to it.
        release(&mut self.state(), id, &endpoint, true);
        if record.state.ports.is_empty() && !before.state.ports.is_empty() {
            self.release_ports(id).await;
        }
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
                entry.record.state.ports.clone_from(&before.state.ports);
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
