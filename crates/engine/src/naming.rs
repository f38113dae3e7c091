//! What networks and containers' endpoints mean for the resolver: pure.

use crate::state::State;
use model::container::{Container, Endpoint, NetworkMode};
use model::desired::Carriage;
use model::gateway::{Candidate, elect};
use model::id::NetworkId;
use model::names::{Change, Member, Route, Upstreams, View};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The endpoints that are up, with their networks.
fn active<'a>(state: &'a State, container: &'a Container) -> Vec<(&'a Endpoint, &'a model::network::Network)> {
    let up = container.endpoints.iter().filter(|e| e.active.is_some());
    up.filter_map(|e| Some((e, state.networks.get(&e.network?)?))).collect()
}

/// Whether the container's sandbox has a resolver: it is on a user-defined network (DNS-01).
pub fn has_resolver(state: &State, container: &Container) -> bool {
    active(state, container).iter().any(|(_, n)| n.is_user_defined())
}

/// What the keeper shall know, whole.
pub fn snapshot(state: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    for network in state.networks.values().chain(state.making.values()).filter(|n| n.is_user_defined()) {
        changes.push(Change::Zone { network: network.id, name: network.name.clone() });
    }
    // One that is said to run and has no shim is dead: its end is about to be recorded.
    let alive = state.containers.values().filter(|e| e.live.is_some() || !e.record.state.is_running());
    for entry in alive {
        changes.extend(join_changes(state, &entry.record));
    }
    changes
}

/// All that the resolver learns when the container's endpoints are up: its memberships and its view.
pub fn join_changes(state: &State, container: &Container) -> Vec<Change> {
    let mut changes: Vec<Change> =
        active(state, container).into_iter().filter_map(|(e, n)| member_change(container, e, n)).collect();
    changes.extend(view_change(state, container));
    changes.extend(routes_change(container));
    changes
}

/// What the keeper's proxy carries to the container.
pub fn routes_change(container: &Container) -> Option<Change> {
    let publications = container.endpoints.iter().filter_map(|e| e.active.as_ref()).flat_map(|a| &a.publications);
    let routes: Vec<Route> = publications
        .filter(|p| p.carriage().is_some_and(|carriage| carriage != Carriage::Kernel))
        .map(|p| Route {
            host: p.host,
            protocol: p.protocol,
            first: p.host_port,
            count: p.count,
            to: SocketAddr::new(p.container, p.container_port),
        })
        .collect();
    (!routes.is_empty()).then_some(Change::Routes { container: container.id, routes })
}

/// The same, where the container may have had some before.
pub fn moved_routes_change(container: &Container) -> Change {
    routes_change(container).unwrap_or(Change::RoutesGone { container: container.id })
}

/// One membership.
pub fn member_change(container: &Container, endpoint: &Endpoint, network: &model::network::Network) -> Option<Change> {
    let up = endpoint.active.as_ref().filter(|_| network.is_user_defined())?;
    let member = Member {
        container: container.id,
        names: container.dns_names(&endpoint.settings),
        ipv4: up.ipv4().map(|a| a.addr()),
        ipv6: up.ipv6().map(|a| a.addr()),
    };
    Some(Change::Member { network: network.id, endpoint: up.attachment.endpoint, member })
}

/// What the container's sandbox sees.
pub fn view_change(state: &State, container: &Container) -> Option<Change> {
    // Whoever shares a sandbox sees what its owner sees.
    if matches!(container.host.network_mode(), NetworkMode::Container(_)) {
        return None;
    }
    let sandbox = container.state.sandbox?;
    let up = active(state, container);
    if !up.iter().any(|(_, n)| n.is_user_defined()) {
        // Taken off its last network with names: it sees none any more.
        return Some(Change::ViewGone { sandbox });
    }
    let candidates: Vec<Candidate<'_>> = up
        .iter()
        .map(|(e, network)| Candidate {
            network,
            settings: &e.settings,
            ipv4: e.active.as_ref().is_some_and(|a| a.ipv4().is_some()),
            ipv6: e.active.as_ref().is_some_and(|a| a.ipv6().is_some()),
        })
        .collect();
    let networks: Vec<NetworkId> = elect(&candidates).order.into_iter().map(|i| up[i].1.id).collect();
    let mut links: BTreeMap<NetworkId, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (endpoint, network) in &up {
        for link in endpoint.settings.links.iter().flatten() {
            let (target, alias) = link.split_once(':').unwrap_or((link, link));
            // A link names its container by whatever the client knows it by; names follow it when it is renamed.
            let mut names = vec![target.trim_start_matches('/').to_owned()];
            if let Ok(entry) = state.find(target) {
                names = vec![entry.record.id.short()];
            }
            links.entry(network.id).or_default().insert(alias.to_ascii_lowercase(), names);
        }
    }
    let dns = state.networking.dns_of(&container.host);
    let upstreams = if !dns.nameservers.is_empty() {
        Upstreams::Given(dns.nameservers)
    } else if up.iter().all(|(_, n)| n.internal) {
        Upstreams::None
    } else {
        Upstreams::Host
    };
    let keep_single_labels = model::files::keeps_single_labels(&dns.options);
    Some(Change::View { sandbox, view: View { networks, links, upstreams, keep_single_labels } })
}

/// What the resolver forgets when the container's endpoints go down; `view` says whether nobody else uses the sandbox.
pub fn leave_changes(container: &Container, view: bool) -> Vec<Change> {
    let up = container.endpoints.iter();
    let mut changes: Vec<Change> = up
        .filter_map(|e| {
            Some(Change::MemberGone { network: e.network?, endpoint: e.active.as_ref()?.attachment.endpoint })
        })
        .collect();
    changes.extend(routes_change(container).map(|_| Change::RoutesGone { container: container.id }));
    if view {
        changes.extend(container.state.sandbox.map(|sandbox| Change::ViewGone { sandbox }));
    }
    changes
}
