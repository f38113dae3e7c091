//! Which of a container's endpoints is its way out (BR-10), and so which one publishes its ports (PT-11).

use crate::container::EndpointSettings;
use crate::network::Network;

/// The facts about one endpoint that decide.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub network: &'a Network,
    pub settings: &'a EndpointSettings,
    pub ipv4: bool,
    pub ipv6: bool,
}

/// The indices of the endpoints that are the way out, for IPv4 and for IPv6; and all indices in gateway order, in which
/// names are searched (DNS-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    pub ipv4: Option<usize>,
    pub ipv6: Option<usize>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NetworkId;
    use crate::network::{Driver, Ipam};
    use std::collections::BTreeMap;

    fn network(name: &str, internal: bool) -> Network {
        Network {
            id: NetworkId::new([name.as_bytes()[0]; 32]),
            name: name.into(),
            created: jiff::Timestamp::UNIX_EPOCH,
            driver: Driver::Bridge,
            ipv4: true,
            ipv6: false,
            internal,
            attachable: false,
            ipam: Ipam::default(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            mtu: 1500,
            predefined: false,
            config_only: false,
            config_from: String::new(),
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
