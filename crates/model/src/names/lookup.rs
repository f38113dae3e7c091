//! What is known: zones and views, indexed so that a look-up costs the same however many members there are.

use super::{Change, Member, View};
use crate::id::{EndpointId, NetworkId, SandboxId};
use std::collections::HashMap;
use std::net::IpAddr;

/// All zones and views, changed by [`Names::apply`].
#[derive(Debug, Default)]
pub struct Names {
    zones: HashMap<NetworkId, Zone>,
    views: HashMap<SandboxId, View>,
}

/// The names that a network knows.
#[derive(Debug, Default)]
struct Zone {
    /// The network's name: `c1.webapp1` is `c1` on `webapp1` (DNS-03).
    name: String,
    members: HashMap<EndpointId, Member>,
    /// Lower-case name to who has it, in order of arrival.
    by_name: HashMap<String, Vec<EndpointId>>,
    by_address: HashMap<IpAddr, EndpointId>,
}

impl Zone {
    fn insert(&mut self, endpoint: EndpointId, member: Member) {
        self.remove(endpoint);
        for name in &member.names {
            self.by_name.entry(name.to_ascii_lowercase()).or_default().push(endpoint);
        }
        for address in addresses(&member) {
            self.by_address.insert(address, endpoint);
        }
        self.members.insert(endpoint, member);
    }

    fn remove(&mut self, endpoint: EndpointId) {
        let Some(member) = self.members.remove(&endpoint) else { return };
        for name in &member.names {
            let name = name.to_ascii_lowercase();
            if let Some(holders) = self.by_name.get_mut(&name) {
                holders.retain(|e| *e != endpoint);
                if holders.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        for address in addresses(&member) {
            if self.by_address.get(&address) == Some(&endpoint) {
                self.by_address.remove(&address);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Vec<&Member>> {
        let holders = self.by_name.get(name)?;
        Some(holders.iter().filter_map(|e| self.members.get(e)).collect())
    }
}

fn addresses(member: &Member) -> impl Iterator<Item = IpAddr> {
    member.ipv4.map(IpAddr::V4).into_iter().chain(member.ipv6.map(IpAddr::V6))
}

impl Names {
    /// Applies one difference; changes of what is not there are without effect.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Zone { network, name } => self.zones.entry(network).or_default().name = name.to_ascii_lowercase(),
            Change::ZoneGone { network } => drop(self.zones.remove(&network)),
            Change::Member { network, endpoint, member } => {
                self.zones.entry(network).or_default().insert(endpoint, member);
            }
            Change::MemberGone { network, endpoint } => {
                if let Some(zone) = self.zones.get_mut(&network) {
                    zone.remove(endpoint);
                }
            }
            Change::View { sandbox, view } => drop(self.views.insert(sandbox, view)),
            Change::ViewGone { sandbox } => drop(self.views.remove(&sandbox)),
            // The proxy's.
            Change::Routes { .. } | Change::RoutesGone { .. } => {}
        }
    }

    /// What a sandbox sees.
    pub fn view(&self, sandbox: SandboxId) -> Option<&View> {
        self.views.get(&sandbox)
    }

    /// All that see anything.
    pub fn sandboxes(&self) -> impl Iterator<Item = SandboxId> {
        self.views.keys().copied()
    }

    /// Who has `name` (lower case, without trailing dot) as `view` sees it: on any of its networks, or as `a` on a
    /// network `b` for `a.b`, wherever the dot (DNS-03). Within a network its own link aliases come first; the first
    /// network that knows the name decides. `None`: nobody has it.
    pub fn find(&self, view: &View, name: &str) -> Option<Vec<&Member>> {
        if let Some(found) = self.find_on(view, name, None) {
            return Some(found);
        }
        // From the longest name to the shortest: `a.b` on `c` before `a` on `b.c`.
        for (at, _) in name.rmatch_indices('.') {
            if let Some(found) = self.find_on(view, &name[..at], Some(&name[at + 1..])) {
                return Some(found);
            }
        }
        None
    }

    fn find_on(&self, view: &View, name: &str, network: Option<&str>) -> Option<Vec<&Member>> {
        for id in &view.networks {
            let Some(zone) = self.zones.get(id) else { continue };
            if network.is_some_and(|n| n != zone.name) {
                continue;
            }
            let linked = view.links.get(id).and_then(|links| links.get(name));
            if let Some(targets) = linked {
                let found: Vec<&Member> =
                    targets.iter().filter_map(|t| zone.find(&t.to_ascii_lowercase())).flatten().collect();
                if !found.is_empty() {
                    return Some(found);
                }
            }
            if let Some(found) = zone.find(name) {
                return Some(found);
            }
        }
        None
    }

    /// The name that an address on one of the view's networks resolves back to: `<first name>.<network>` (DNS-09).
    pub fn reverse(&self, view: &View, address: IpAddr) -> Option<String> {
        view.networks.iter().find_map(|id| {
            let zone = self.zones.get(id)?;
            let member = zone.members.get(zone.by_address.get(&address)?)?;
            Some(format!("{}.{}", member.names.first()?, zone.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ContainerId;
    use crate::names::Upstreams;

    fn network(n: u8) -> NetworkId {
        NetworkId::new([n; 32])
    }

    fn member(names: &[&str], ipv4: &str) -> Member {
        Member {
            container: ContainerId::new([1; 32]),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            ipv4: ipv4.parse().ok(),
            ipv6: None,
        }
    }

    fn view(networks: &[u8]) -> View {
        View {
            networks: networks.iter().map(|n| network(*n)).collect(),
            links: Default::default(),
            upstreams: Upstreams::Host,
            keep_single_labels: false,
        }
    }

    fn world() -> Names {
        let mut names = Names::default();
        let mut n = 0;
        let mut add = |net: u8, member: Member| {
            n += 1;
            names.apply(Change::Member { network: network(net), endpoint: EndpointId::new([n; 32]), member });
        };
        add(1, member(&["web", "pool", "c0ffee"], "10.0.1.2"));
        add(1, member(&["web2", "pool"], "10.0.1.3"));
        add(2, member(&["web.a"], "10.0.2.2"));
        add(3, member(&["web"], "10.0.3.2"));
        names.apply(Change::Zone { network: network(1), name: "Front".into() });
        names.apply(Change::Zone { network: network(2), name: "b.c".into() });
        names.apply(Change::Zone { network: network(3), name: "c".into() });
        names
    }

    fn found(names: &Names, view: &View, name: &str) -> Vec<String> {
        names.find(view, name).into_iter().flatten().map(|m| m.ipv4.unwrap().to_string()).collect()
    }

    #[test]
    fn dns_03_names_are_searched_in_all_the_views_networks_and_may_name_the_network() {
        let names = world();
        assert_eq!(found(&names, &view(&[1, 3]), "web"), ["10.0.1.2"]);
        assert_eq!(found(&names, &view(&[3, 1]), "web"), ["10.0.3.2"], "the first network decides");
        assert_eq!(found(&names, &view(&[1, 3]), "web.c"), ["10.0.3.2"]);
        assert_eq!(found(&names, &view(&[1, 2]), "web.a.b.c"), ["10.0.2.2"]);
        assert_eq!(found(&names, &view(&[1, 2]), "web.front"), ["10.0.1.2"]);
        assert!(names.find(&view(&[2]), "web").is_none(), "other networks are not seen");
        assert!(names.find(&view(&[1]), "web.c").is_none(), "nor by their name");
    }

    #[test]
    fn dns_05_two_holders_of_a_name_are_both_found_until_one_leaves() {
        let mut names = world();
        assert_eq!(found(&names, &view(&[1]), "pool"), ["10.0.1.2", "10.0.1.3"]);
        names.apply(Change::MemberGone { network: network(1), endpoint: EndpointId::new([1; 32]) });
        assert_eq!(found(&names, &view(&[1]), "pool"), ["10.0.1.3"]);
        assert!(names.find(&view(&[1]), "web").is_none());
    }

    #[test]
    fn br_15_a_link_alias_is_seen_by_its_own_sandbox_only() {
        let names = world();
        let mut linked = view(&[1]);
        linked.links.entry(network(1)).or_default().insert("db".into(), vec!["web2".into()]);
        assert_eq!(found(&names, &linked, "db"), ["10.0.1.3"]);
        assert!(names.find(&view(&[1]), "db").is_none());
    }

    #[test]
    fn dns_09_an_address_resolves_back_to_its_first_name_and_network() {
        let names = world();
        let of = |view: &View, a: &str| names.reverse(view, a.parse().unwrap());
        assert_eq!(of(&view(&[1]), "10.0.1.3").as_deref(), Some("web2.front"));
        assert_eq!(of(&view(&[2]), "10.0.1.3"), None);
    }
}
