//! Networks: made, shown and removed.

use crate::error::{Error, Kind, Result};
use crate::state::Going;
use crate::store::Write;
use crate::{Engine, blocking};
use model::container::Container;
use model::id::NetworkId;
use model::ipam::Usage;
use model::names::Change;
use model::net::MacAddr;
use model::network::{Network, Pool, Request, plan_create};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A network as clients see it: the record, and who is on it now.
#[derive(Clone, Debug)]
pub struct NetworkView {
    pub network: Network,
    pub members: Vec<MemberView>,
    /// How full its subnets are (API-06).
    pub usage: Vec<(ipnet::IpNet, Usage)>,
}

#[derive(Clone, Debug)]
pub struct MemberView {
    pub container: model::id::ContainerId,
    pub name: String,
    pub endpoint: model::id::EndpointId,
    pub mac: MacAddr,
    pub ipv4: Option<ipnet::Ipv4Net>,
    pub ipv6: Option<ipnet::Ipv6Net>,
}

impl MemberView {
    fn of((container, active): (&Container, &model::container::ActiveEndpoint)) -> Self {
        Self {
            container: container.id,
            name: container.name.clone(),
            endpoint: active.attachment.endpoint,
            mac: active.attachment.mac,
            ipv4: active.ipv4(),
            ipv6: active.ipv6(),
        }
    }
}

/// Whether what the kernel still has of a removed network would be mistaken for a new one's.
fn stands_in_the_way(going: &Network, new: &Network) -> bool {
    let overlap = |a: &ipnet::IpNet, b: &ipnet::IpNet| a.contains(&b.addr()) || b.contains(&a.addr());
    let pools = || new.ipam.pools.iter().map(|p| p.subnet);
    going.device() == new.device() || going.ipam.pools.iter().any(|old| pools().any(|p| overlap(&old.subnet, &p)))
}

impl Engine {
    /// Makes a network: recorded first, then real. If it cannot be made real, it is taken back.
    ///
    /// # Errors
    /// See [`model::network::Refusal`]; or the kernel refuses.
    pub async fn create_network(self: &Arc<Self>, mut request: Request) -> Result<NetworkId> {
        let engine = self.clone();
        // The daemon's defaults stand under what the client says, but not under a template (API-34).
        let driver = if request.driver.is_empty() { "bridge" } else { request.driver.as_str() };
        if let Some(defaults) = self.settings.networking.default_options.get(driver)
            && request.config_from.is_empty()
        {
            let defaults = defaults.clone().into_iter();
            request.options = defaults.chain(std::mem::take(&mut request.options)).collect();
        }
        self.detached(async move {
            let asked = engine.clone();
            let (routes, mtu) = blocking(move || (asked.network.host_routes(), asked.network.uplink_mtu())).await;
            let routes = routes.map_err(Error::internal)?;
            request.mtu = mtu.map_err(Error::internal)?;
            let (network, in_the_way) = {
                let mut state = engine.state();
                let id = NetworkId::new(crate::random());
                let existing = state.networks.values().chain(state.making.values());
                let network =
                    plan_create(request, id, crate::now(), existing, &routes, &engine.settings.networking.pools)?;
                state.making.insert(network.id, network.clone());
                let in_the_way = state.going.iter().filter(|g| stands_in_the_way(&g.network, &network));
                let in_the_way: Vec<_> = in_the_way.map(|g| g.gone.clone()).collect();
                (network, in_the_way)
            };
            // What is left of a removed network of that device or subnet would take the new one's along.
            for mut going in in_the_way {
                let _ = going.changed().await;
            }
            let made = engine.realise_network(&network).await;
            {
                let mut state = engine.state();
                state.making.remove(&network.id);
                if made.is_ok() {
                    state.leases.open(&network);
                    state.networks.insert(network.id, network.clone());
                }
            }
            if let Err(e) = made {
                engine.store.record(vec![Write::NetworkGone(network.id)]);
                return Err(e.context(format!("cannot create network {}", network.name)));
            }
            engine.tell_network(&network, "create", None);
            Ok(network.id)
        })
        .await
    }

    /// If it fails, the kernel and the keeper are as before.
    async fn realise_network(self: &Arc<Self>, network: &Network) -> Result<()> {
        self.faults.pass("network: record").await?;
        self.store.commit(vec![Write::Network(Box::new(network.clone()))]).await?;
        self.faults.pass("network: bridge").await?;
        let bridge = network.bridge(&self.settings.networking);
        if let Some(bridge) = bridge.clone() {
            let engine = self.clone();
            blocking(move || engine.network.create_bridge(&bridge)).await.map_err(|e| match e {
                network::Error::NameTaken { .. } => Error::invalid(e),
                e => Error::internal(e),
            })?;
        }
        let parent = network.parent();
        if let Some(uplink) = network.uplink().filter(|_| !network.config_only) {
            // A network that no container could ever join is refused at once.
            let engine = self.clone();
            blocking(move || engine.network.probe_sharing(uplink.sharing)).await.map_err(Error::internal)?;
        }
        if let Some(parent) = parent.clone() {
            let engine = self.clone();
            blocking(move || engine.network.create_parent(&parent)).await.map_err(Error::internal)?;
        }
        let named = async {
            self.faults.pass("network: zone").await?;
            let zone = Change::Zone { network: network.id, name: network.name.clone() };
            self.keeper.apply(vec![zone]).await
        };
        let named = named.await;
        if named.is_err() {
            let _ = self.keeper.apply(vec![Change::ZoneGone { network: network.id }]).await;
            if let Some(bridge) = bridge {
                let engine = self.clone();
                let _ = blocking(move || engine.network.remove_bridge(&bridge)).await;
            }
            if let Some(parent) = parent {
                let engine = self.clone();
                let _ = blocking(move || engine.network.remove_parent(&parent)).await;
            }
        }
        named
    }

    /// All networks, by name.
    pub fn list_networks(&self) -> Vec<Network> {
        let mut networks: Vec<Network> = self.state().networks.values().cloned().collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    /// Which networks no container, running or not, refers to.
    pub fn dangling_networks(&self) -> std::collections::BTreeSet<NetworkId> {
        let state = self.state();
        let used: std::collections::BTreeSet<NetworkId> =
            state.containers.values().flat_map(|e| e.record.endpoints.iter().filter_map(|e| e.network)).collect();
        state.networks.keys().filter(|id| !used.contains(id)).copied().collect()
    }

    /// # Errors
    /// There is none, or the reference means several.
    pub fn inspect_network(&self, reference: &str) -> Result<NetworkView> {
        let state = self.state();
        let network = state.network(reference)?.clone();
        let members = state.members(network.id).map(MemberView::of).collect();
        let usage = |pool: &Pool| (pool.subnet, state.leases.usage(network.id, pool));
        let usage = network.ipam.pools.iter().map(usage).collect();
        Ok(NetworkView { network, members, usage })
    }

    /// Removes a network that no running container is on.
    ///
    /// # Errors
    /// It is predefined or in use (API-11).
    pub async fn remove_network(self: &Arc<Self>, reference: &str) -> Result<()> {
        let engine = self.clone();
        let reference = reference.to_owned();
        self.detached(async move {
            let network = {
                let mut state = engine.state();
                let network = state.network(&reference)?.clone();
                if network.predefined {
                    let name = &network.name;
                    return Err(Error::forbidden(format!("{name} is a pre-defined network and cannot be removed")));
                }
                if let Some(user) =
                    state.networks.values().find(|n| network.config_only && n.config_from == network.name)
                {
                    let (name, user) = (&network.name, &user.name);
                    return Err(Error::forbidden(format!(
                        "configuration network {name:?} is in use by network {user}"
                    )));
                }
                let members: Vec<String> = state
                    .members(network.id)
                    .map(|(c, a)| format!("name:\"{}\" id:\"{}\"", c.name, a.attachment.endpoint.short()))
                    .collect();
                if !members.is_empty() {
                    return Err(Error::forbidden(format!(
                        "error while removing network: network {} has active endpoints ({})",
                        network.name,
                        members.join(", ")
                    )));
                }
                // From here on nobody joins it.
                state.networks.remove(&network.id);
                network
            };
            let gone = async {
                engine.faults.pass("network: remove").await?;
                engine.store.commit(vec![Write::NetworkGone(network.id)]).await
            };
            if let Err(e) = gone.await {
                engine.state().networks.insert(network.id, network);
                return Err(e);
            }
            engine.unmake_network(&network).await;
            engine.tell_network(&network, "destroy", None);
            Ok(())
        })
        .await
    }

    /// What is left of a network whose record is gone. The kernel follows behind the client's back: a bridge takes tens
    /// of milliseconds.
    async fn unmake_network(self: &Arc<Self>, network: &Network) {
        let (done, gone) = tokio::sync::watch::channel(());
        {
            let mut state = self.state();
            state.leases.close(network.id);
            state.going.push(Going { network: network.clone(), gone });
        }
        if let Err(e) = self.keeper.apply(vec![Change::ZoneGone { network: network.id }]).await {
            tracing::error!(network = %network.id, "its names are not taken out: {e}");
        }
        let (engine, network) = (self.clone(), network.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(bridge) = network.bridge(&engine.settings.networking)
                && let Err(e) = engine.network.remove_bridge(&bridge)
            {
                let device = &bridge.device;
                tracing::error!(network = %network.id, "cannot remove bridge {device}: {}", crate::error::chain(&e));
            }
            if let Some(parent) = network.parent()
                && let Err(e) = engine.network.remove_parent(&parent)
            {
                let device = &parent.device;
                tracing::error!(network = %network.id, "cannot remove {device}: {}", crate::error::chain(&e));
            }
            engine.state().going.retain(|g| g.network.id != network.id);
            drop(done);
        });
    }

    /// Removes all networks that nobody uses and `chosen` picks; returns their names (API-14). A network that a stopped
    /// container refers to is used (pain 10).
    pub async fn prune_networks(self: &Arc<Self>, chosen: impl Fn(&Network) -> bool) -> Result<Vec<String>> {
        let dangling = self.dangling_networks();
        let candidates: Vec<Network> = self
            .list_networks()
            .into_iter()
            .filter(|n| n.is_user_defined() && dangling.contains(&n.id) && chosen(n))
            .collect();
        let mut removed = Vec::new();
        for network in candidates {
            match self.remove_network(&network.id.to_string()).await {
                Ok(()) => removed.push(network.name),
                // Somebody joined it meanwhile, or removed it.
                Err(e) if matches!(e.kind, Kind::Forbidden | Kind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        self.events.tell_prune("network", 0);
        Ok(removed)
    }

    pub(crate) fn tell_network(&self, network: &Network, action: &str, container: Option<&Container>) {
        let mut attributes =
            BTreeMap::from([("name".into(), network.name.clone()), ("type".into(), network.driver.to_string())]);
        if let Some(container) = container {
            attributes.insert("container".into(), container.id.to_string());
        }
        self.events.tell("network", action, network.id.to_string(), attributes);
    }
}
