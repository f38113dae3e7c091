//! The network explains itself: what a name leads to for whom, whether a flow passes, and which fact decides it.
//!
//! Everything is asked of two pure functions, [`model::names::Names`] and [`model::flow::predict`], with what is now.

use crate::error::{Error, Result};
use crate::state::State;
use crate::{Engine, blocking};
use model::container::NetworkMode;
use model::flow::{Arrival, Flow, Obstacle, Passage, Place, Source, Verdict, World, predict};
use model::id::{EndpointId, NetworkId, SandboxId};
use model::names::Names;
use model::net::Protocol;
use std::net::IpAddr;
use std::sync::Arc;

/// What a client asks: may `from` open a flow to this port of `to`?
#[derive(Clone, Debug)]
pub struct Question {
    /// A running container, `host`, `outside`, or `outside:INTERFACE`.
    pub from: String,
    /// An address, or a name as `from` would say it.
    pub to: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// How `to` is resolved, in a sentence; empty where it is an address.
    pub name: String,
    /// For each address, in the order in which they are tried. None where the name leads nowhere.
    pub flows: Vec<Told>,
}

/// What becomes of the flow to one address.
#[derive(Clone, Debug)]
pub struct Told {
    pub address: IpAddr,
    pub verdict: Verdict,
    /// Where it ends: a container's name, `host` or `outside`.
    pub at: String,
    /// Why, in a sentence.
    pub why: String,
}

impl Engine {
    /// # Errors
    /// `from` is nobody who could send anything, or nothing here is called `to`.
    pub async fn explain(self: &Arc<Self>, question: Question) -> Result<Explanation> {
        let engine = self.clone();
        let (host, closed, gates) = blocking(move || -> Result<_> {
            let network = &engine.network;
            let host = network.host_addresses().map_err(Error::internal)?;
            Ok((host, [false, true].map(|v6| network.input_drops(v6)), network.forward_drops()))
        })
        .await?;
        let state = self.state();
        let from = place(&state, &question.from)?;
        let (name, addresses) = match question.to.parse::<IpAddr>() {
            Ok(address) => (String::new(), vec![address]),
            Err(_) => look_up(&state, &from, &question)?,
        };
        let desired = state.desired();
        let world = World { desired: &desired, host: &host, proxy: state.networking.proxy };
        let tell = |address: IpAddr| {
            let flow = Flow { from: from.clone(), to: address, protocol: question.protocol, port: question.port };
            let verdict = predict(&world, &flow);
            let (at, why) = match &verdict {
                Verdict::Passes(arrival) => {
                    let mut why = why_it_passes(&state, arrival);
                    if arrival.source == Source::Proxy && !address.is_loopback() {
                        why += &by_input(&closed[usize::from(address.is_ipv6())]);
                    }
                    if is_forwarded(&flow.from, arrival) && !gates.is_empty() {
                        why += &format!("; but {} drops what it has no rule for", gates.join(" and "));
                    }
                    (called(&state, &arrival.at), why)
                }
                Verdict::Stopped(obstacle) => (String::new(), why_it_stops(&state, obstacle)),
            };
            Told { address, verdict, at, why }
        };
        Ok(Explanation { name, flows: addresses.into_iter().map(tell).collect() })
    }
}

fn place(state: &State, text: &str) -> Result<Place> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("host", "") => return Ok(Place::Host),
        ("outside", "") => return Ok(Place::Outside(None)),
        ("outside", interface) => {
            let interface = interface.parse().map_err(|e| Error::invalid(format!("outside:{interface}: {e}")))?;
            return Ok(Place::Outside(Some(interface)));
        }
        _ => {}
    }
    let record = &state.find(text)?.record;
    if !record.state.is_running() {
        return Err(Error::conflict(format!("container {} is not running: it sends nothing", record.name)));
    }
    if let NetworkMode::Path(path) = record.host.network_mode() {
        return Err(Error::conflict(format!("container {} is in {path}, which is not of our making", record.name)));
    }
    Ok(record.state.sandbox.map_or(Place::Host, Place::Sandbox))
}

/// The addresses of a name, as `from` finds them, and how.
fn look_up(state: &State, from: &Place, question: &Question) -> Result<(String, Vec<IpAddr>)> {
    let wanted = question.to.trim_end_matches('.').to_ascii_lowercase();
    let Place::Sandbox(sandbox) = from else {
        // The host and its neighbours have no part in our names: a container is meant.
        let record = &state.find(&question.to)?.record;
        let active = record.endpoints.iter().filter_map(|e| e.active.as_ref());
        let addresses = active.flat_map(|a| a.attachment.addresses.iter().map(|n| n.addr())).collect();
        return Ok((
            format!("{} is a container here; its name is not known outside its networks", record.name),
            addresses,
        ));
    };
    let mut names = Names::default();
    crate::naming::snapshot(state).into_iter().for_each(|change| names.apply(change));
    let Some(view) = names.view(*sandbox) else {
        return Ok((
            format!("{} is on no user-defined network: it resolves no names of containers", question.from),
            vec![],
        ));
    };
    let network = |id: &NetworkId| state.networks.get(id).map_or_else(|| id.short(), |n| n.name.clone());
    let seen: Vec<String> = view.networks.iter().map(network).collect();
    let seen = seen.join(", ");
    if let Some(found) = names.find(view, &wanted) {
        let addresses: Vec<IpAddr> =
            found.iter().flat_map(|m| m.ipv4.map(IpAddr::V4).into_iter().chain(m.ipv6.map(IpAddr::V6))).collect();
        return Ok((format!("{wanted} is found on the networks of {} ({seen})", question.from), addresses));
    }
    let elsewhere = match state.find(&question.to) {
        Ok(entry) if !entry.record.state.is_running() => format!(": container {} is not running", entry.record.name),
        Ok(entry) => {
            let on: Vec<&str> = entry.record.endpoints.iter().map(|e| e.network_name.as_str()).collect();
            let on = if on.is_empty() { "no network".to_owned() } else { on.join(", ") };
            format!(
                ": container {} is on {on}; join a network of both, e.g. 'isle network connect {} {}'",
                entry.record.name,
                view.networks.first().map(network).unwrap_or_default(),
                entry.record.name
            )
        }
        Err(_) => ", and no container is called so: it is asked of the upstream servers".to_owned(),
    };
    Ok((format!("{wanted} is not known on the networks of {} ({seen}){elsewhere}", question.from), vec![]))
}

fn called(state: &State, place: &Place) -> String {
    match place {
        Place::Host => "host".into(),
        Place::Outside(_) => "outside".into(),
        Place::Sandbox(sandbox) => owner(state, *sandbox),
    }
}

fn owner(state: &State, sandbox: SandboxId) -> String {
    state.sandboxes.get(&sandbox).map_or_else(|| "a container".to_owned(), |live| state.name_of(live.owner))
}

fn network(state: &State, id: NetworkId) -> String {
    state.networks.get(&id).map_or_else(|| id.short(), |n| n.name.clone())
}

fn holder(state: &State, endpoint: EndpointId) -> String {
    let has = |e: &&crate::state::Entry| {
        e.record.endpoints.iter().filter_map(|e| e.active.as_ref()).any(|a| a.attachment.endpoint == endpoint)
    };
    state.containers.values().find(has).map_or_else(|| "a container".to_owned(), |e| e.record.name.clone())
}

fn why_it_passes(state: &State, arrival: &Arrival) -> String {
    let seen_as = match arrival.source {
        Source::Own => String::new(),
        Source::Gateway(id) => format!("; it is seen to come from the gateway of {}", network(state, id)),
        Source::Host(None) => "; it leaves with the host's address".into(),
        Source::Host(Some(address)) => format!("; it leaves with the address {address}"),
        Source::Proxy => "; it is carried by the proxy, and seen to come from the gateway".into(),
    };
    let fact = match arrival.because {
        Passage::Itself => "it is its own address".into(),
        Passage::Members(id) => format!("both are on {}", network(state, id)),
        Passage::Published(endpoint) => format!(
            "the host's port is published by {}, and leads to {}:{}",
            holder(state, endpoint),
            arrival.address,
            arrival.port
        ),
        Passage::Direct(endpoint) => {
            format!("the port is published by {}, whose network is routed to here", holder(state, endpoint))
        }
        Passage::Unprotected(id) => format!("{} is open to routed packets (nat-unprotected)", network(state, id)),
        Passage::FromHost(id) => format!("the host reaches the members of {}", network(state, id)),
        Passage::HostService => "it is the host's own address, and nothing is published there".into(),
        Passage::WayOut(Some(id)) => format!("it leaves by {}", network(state, id)),
        Passage::WayOut(None) => "it leaves by the host's routes".into(),
    };
    format!("{fact}{seen_as}")
}

/// What other firewalls have to say about a flow that the proxy carries.
/// Whether a flow passes the rules of other firewalls for what is forwarded.
fn is_forwarded(from: &Place, arrival: &Arrival) -> bool {
    let crosses = match arrival.because {
        Passage::Published(_) => arrival.source != Source::Proxy,
        Passage::Direct(_) | Passage::Unprotected(_) | Passage::WayOut(Some(_)) => true,
        _ => false,
    };
    crosses && *from != Place::Host
}

fn by_input(closed: &[String]) -> String {
    const FACT: &str = "; to other firewalls it goes to the host itself: their rules for what is forwarded, as in \
                        DOCKER-USER, do not see it, those for the host's input do";
    match closed {
        [] => FACT.to_owned(),
        chains => format!("{FACT}, and {} drops what it has no rule for", chains.join(" and ")),
    }
}

fn why_it_stops(state: &State, obstacle: &Obstacle) -> String {
    match *obstacle {
        Obstacle::NoRoute => "it has no route there: no network of its leads out in this family".into(),
        Obstacle::OtherRouter(id, router) => {
            format!("its way out is {router} on {}, which is not the host", network(state, id))
        }
        Obstacle::Nobody(id) => format!("nobody on {} has this address", network(state, id)),
        Obstacle::IccOff(id) => format!("members of {} do not reach each other (icc is off)", network(state, id)),
        Obstacle::Internal(id) => format!("{} is internal: nothing crosses its border", network(state, id)),
        Obstacle::OtherNetwork { from, to } => format!(
            "it would go from {} to {}: networks do not reach each other, but by published ports of the host",
            network(state, from),
            network(state, to)
        ),
        Obstacle::Unpublished(id) => {
            format!(
                "the port is not open to packets from outside {}: publish it, and use the host's address",
                network(state, id)
            )
        }
        Obstacle::ParentsHost(id) => format!(
            "{} is on an interface of the host, over which the host itself and those on it do not reach each other",
            network(state, id)
        ),
        Obstacle::HostIsNotOn(id) => format!("the host has no address on {}, and no route to it", network(state, id)),
        Obstacle::Loopback => "loopback addresses are everybody's own".into(),
        Obstacle::NoProxy(endpoint) => format!(
            "{} publishes it, and only the proxy could carry this flow: the daemon runs with --userland-proxy=false",
            holder(state, endpoint)
        ),
        Obstacle::RangeTooLong(endpoint) => format!(
            "{} publishes a UDP range that is too long for the proxy, which alone could carry this flow",
            holder(state, endpoint)
        ),
    }
}
