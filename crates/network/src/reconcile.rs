//! What differs between what shall be and what is: pure. The differences are mended at start, after a foreign flush,
//! and on request; each mending is idempotent.

use crate::elements::{self, Elements, Leg};
use crate::features::Features;
use crate::observe::Observed;
use crate::own;
use crate::plan;
use ipnet::IpNet;
use kernel::link::Link;
use kernel::neighbour::Neighbour;
use model::desired::{Attachment, Bridge, Desired, Parent};
use model::id::{EndpointId, NetworkId, SandboxId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What was done to make the kernel as it shall be.
#[derive(Debug, Default)]
pub struct Report {
    /// What carried our mark and nobody wants.
    pub removed: Vec<String>,
    /// What was missing or had drifted.
    pub mended: Vec<String>,
    /// What could not be mended, and why.
    pub failed: Vec<crate::Error>,
}

/// What nobody is making or taking away just now: its interfaces may be made again ([`crate::Network::heal`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub networks: BTreeSet<NetworkId>,
    pub endpoints: BTreeSet<EndpointId>,
}

/// Of these repairs, those that make what is missing: whoever is at work on the rest is not disturbed.
pub fn additions(repairs: Vec<Repair>, settled: &Settled) -> Vec<Repair> {
    let add = |repair| match repair {
        Repair::Rebuild(elements) => Some(Repair::Rebuild(elements)),
        Repair::Elements(_, into) => (!into.is_empty()).then(|| Repair::Elements(Elements::new(), into)),
        Repair::RemoveLink(_) | Repair::RemoveNeighbour(_) => None,
        Repair::Bridge(bridge) => settled.networks.contains(&bridge.network).then_some(Repair::Bridge(bridge)),
        Repair::Parent(parent) => settled.networks.contains(&parent.network).then_some(Repair::Parent(parent)),
        Repair::Attach(a) => settled.endpoints.contains(&a.endpoint).then_some(Repair::Attach(a)),
        Repair::Port(a) => settled.endpoints.contains(&a.endpoint).then_some(Repair::Port(a)),
    };
    repairs.into_iter().filter_map(add).collect()
}

/// One thing to mend.
#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// The rules are gone or another version's: write everything.
    Rebuild(Elements),
    /// Elements to take out and to put in.
    Elements(Elements, Elements),
    /// A link with our mark that nobody wants.
    RemoveLink(String),
    /// A bridge that is missing, or differs; its ports with it.
    Bridge(Box<Bridge>),
    /// A parent of a network without a bridge is missing.
    Parent(Parent),
    /// An endpoint whose interfaces are gone.
    Attach(Box<Attachment>),
    /// A port that left its bridge or behaves otherwise, or lost its entries.
    Port(Box<Attachment>),
    /// A neighbour on one of our bridges that nobody wants.
    RemoveNeighbour(Neighbour),
}

/// What to do, in order. `proxy`: the port of the keeper's proxy.
pub fn plan_repairs(
    desired: &Desired,
    observed: &Observed,
    features: &Features,
    root: &str,
    proxy: Option<u16>,
) -> Vec<Repair> {
    let mut repairs = Vec::new();
    let wanted = elements(desired, features, proxy);
    match &observed.elements {
        None => repairs.push(Repair::Rebuild(wanted)),
        Some(found) if *found != wanted => repairs.push(Repair::Elements(
            found.difference(&wanted).cloned().collect(),
            wanted.difference(found).cloned().collect(),
        )),
        Some(_) => {}
    }

    let mark_of =
        |link: &Link| link.alias.as_deref().and_then(|a| a.strip_prefix(&own::alias(root, ""))).map(str::to_owned);
    for link in observed.links.values() {
        let Some(id) = mark_of(link) else { continue };
        let wanted = id == own::NOTHING
            || id
                .parse::<NetworkId>()
                .ok()
                .and_then(|id| {
                    let bridge = desired.bridges.get(&id).map(|b| &b.device);
                    bridge.or_else(|| desired.parents.get(&id).map(|p| &p.device))
                })
                .is_some_and(|device| device.as_str() == link.name)
            || id
                .parse::<EndpointId>()
                .ok()
                .and_then(|id| desired.attachments.get(&id))
                .is_some_and(|a| a.outer.as_str() == link.name);
        if !wanted {
            repairs.push(Repair::RemoveLink(link.name.clone()));
        }
    }

    for bridge in desired.bridges.values() {
        match observed.links.get(bridge.device.as_str()) {
            None => repairs.push(Repair::Bridge(Box::new(bridge.clone()))),
            Some(link) if bridge_differs(bridge, link, observed, mark_of(link).is_some()) => {
                repairs.push(Repair::Bridge(Box::new(bridge.clone())));
            }
            Some(_) => {}
        }
    }

    for parent in desired.parents.values().filter(|p| !observed.links.contains_key(p.device.as_str())) {
        repairs.push(Repair::Parent(parent.clone()));
    }

    for attachment in desired.attachments.values().filter(|a| a.on_parent.is_none()) {
        match observed.links.get(attachment.outer.as_str()) {
            None => repairs.push(Repair::Attach(Box::new(attachment.clone()))),
            Some(port) if port_differs(attachment, port, observed, features) => {
                repairs.push(Repair::Port(Box::new(attachment.clone())));
            }
            Some(_) => {}
        }
    }

    let ours = |index: u32| observed.links.values().any(|l| l.index == index && mark_of(l).is_some());
    let members: BTreeSet<IpAddr> =
        desired.attachments.values().flat_map(|a| a.addresses.iter().map(|net| net.addr())).collect();
    for neighbour in &observed.neighbours {
        if ours(neighbour.link) && !members.contains(&neighbour.ip) && !neighbour.ip.is_multicast() {
            repairs.push(Repair::RemoveNeighbour(*neighbour));
        }
    }
    repairs
}

/// All elements that shall be.
pub fn elements(desired: &Desired, features: &Features, proxy: Option<u16>) -> Elements {
    let mut all = elements::of_nobody(proxy);
    for bridge in desired.bridges.values() {
        all.extend(elements::of_bridge(bridge));
    }
    for attachment in desired.attachments.values() {
        all.extend(elements::of_attachment(attachment, features.variant()));
    }
    let mut sandboxes: BTreeMap<SandboxId, Vec<Leg>> = BTreeMap::new();
    for attachment in desired.attachments.values() {
        sandboxes.entry(attachment.sandbox).or_default().push(attachment.into());
    }
    all.extend(sandboxes.values().flat_map(elements::of_sandbox));
    for publication in desired.publications.values().flatten() {
        all.extend(elements::of_publication(publication, proxy));
    }
    all
}

fn bridge_differs(bridge: &Bridge, link: &Link, observed: &Observed, ours: bool) -> bool {
    let has = |net: &IpNet| {
        observed.addresses.iter().any(|a| a.link == link.index && a.ip == net.addr() && a.prefix == net.prefix_len())
    };
    let surplus = observed.addresses.iter().any(|a| {
        let link_local = matches!(a.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        a.link == link.index && !link_local && !bridge.gateways.iter().any(|net| net.addr() == a.ip)
    });
    // whether somebody else's keeps its hardware address cannot be seen, so it is told anew
    !ours
        || !link.up
        || !bridge.gateways.iter().all(has)
        || (link.mac != Some(bridge.mac.0) || link.mtu != bridge.mtu || surplus)
}

fn port_differs(attachment: &Attachment, port: &Link, observed: &Observed, features: &Features) -> bool {
    let Some(bridge) = observed.links.get(attachment.bridge.as_str()) else { return true };
    let entry = (port.index, attachment.mac.0, true);
    !port.up
        || port.master != Some(bridge.index)
        || port.port != Some(plan::plan_port(attachment, features))
        || !observed.forwarding.contains(&entry)
        || !attachment.addresses.iter().all(|net| {
            observed.neighbours.contains(&Neighbour { link: bridge.index, ip: net.addr(), mac: attachment.mac.0 })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{attachment, bridge};

    const FEATURES: Features =
        Features { owned_tables: true, locked_ports: true, force_forwarding: true, ipv6: true, br_netfilter: false };

    fn desired() -> Desired {
        let mut desired = Desired::default();
        let bridge = bridge(1);
        for n in [2, 3] {
            let attachment = attachment(&bridge, n, 0);
            desired.attachments.insert(attachment.endpoint, attachment);
        }
        desired.bridges.insert(bridge.network, bridge);
        desired
    }

    fn plan(desired: &Desired, observed: &Observed) -> Vec<Repair> {
        plan_repairs(desired, observed, &FEATURES, "abcd0001", None)
    }

    #[test]
    fn where_nothing_is_everything_is_made_firewall_first() {
        let desired = desired();
        let kinds: Vec<&str> = plan(&desired, &Observed::default())
            .iter()
            .map(|repair| match repair {
                Repair::Rebuild(_) => "rebuild",
                Repair::Bridge(_) => "bridge",
                Repair::Attach(_) => "attach",
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, ["rebuild", "bridge", "attach", "attach"]);
    }

    #[test]
    fn only_what_carries_our_mark_and_is_not_wanted_goes() {
        let wanted = desired();
        let network = wanted.bridges.keys().next().unwrap();
        let link =
            |name: &str, alias: Option<String>| (name.to_owned(), Link { name: name.into(), alias, ..Link::default() });
        let mut observed = Observed { elements: Some(Elements::new()), ..Observed::default() };
        observed.links.extend([
            link("eth0", None),
            link("docker0", Some("isle is not this".into())),
            link("br-of-another-root", Some(own::alias("00000000", &network.to_string()))),
            link("isle-abcd0001", Some(own::alias("abcd0001", own::NOTHING))),
            link("br-010101010101", Some(own::alias("abcd0001", &network.to_string()))),
            link("br-renamed", Some(own::alias("abcd0001", &network.to_string()))),
            link("ve-stale", Some(own::alias("abcd0001", &"ab".repeat(32)))),
        ]);
        let removed: Vec<String> = plan(&wanted, &observed)
            .into_iter()
            .filter_map(|repair| match repair {
                Repair::RemoveLink(name) => Some(name),
                _ => None,
            })
            .collect();
        assert_eq!(removed, ["br-renamed", "ve-stale"]);
    }

    #[test]
    fn a_difference_of_elements_is_one_change() {
        let wanted = desired();
        let all = elements(&wanted, &FEATURES, Some(999));
        let mut found = all.clone();
        let lost = found.pop_first().unwrap();
        let stray = {
            let mut other = desired();
            other.bridges.values_mut().for_each(|bridge| bridge.internal = true);
            elements(&other, &FEATURES, None)
                .into_iter()
                .find(|(set, _)| *set == crate::ruleset::Set::Internal)
                .unwrap()
        };
        found.insert(stray.clone());
        let observed = Observed { elements: Some(found), ..Observed::default() };
        let repairs = plan_repairs(&wanted, &observed, &FEATURES, "abcd0001", Some(999));
        assert_eq!(repairs[0], Repair::Elements([stray].into(), [lost].into()));
    }

    #[test]
    fn who_is_at_work_is_not_disturbed() {
        let mut wanted = desired();
        let mut observed = Observed { elements: Some(Elements::new()), ..Observed::default() };
        let stray =
            Link { name: "ve-stray".into(), alias: Some(own::alias("abcd0001", &"ab".repeat(32))), ..Link::default() };
        observed.links.insert(stray.name.clone(), stray);
        let settled = Settled { endpoints: wanted.attachments.keys().take(1).copied().collect(), ..Settled::default() };
        let done = additions(plan(&wanted, &observed), &settled);
        let [Repair::Elements(out, into), Repair::Attach(endpoint)] = done.as_slice() else { panic!("{done:?}") };
        assert!(out.is_empty() && *into == elements(&wanted, &FEATURES, None));
        assert!(settled.endpoints.contains(&endpoint.endpoint));
        // Nothing is missing: what is too much stays.
        observed.elements = Some(elements(&wanted, &FEATURES, None));
        wanted.attachments.clear();
        wanted.bridges.clear();
        assert_eq!(additions(plan(&wanted, &observed), &Settled::default()), []);
    }

    #[test]
    fn handles_are_shared_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<crate::Network>();
        check::<crate::Sandbox>();
    }
}
