//! Addresses: which subnets networks get, and which addresses their members get.
//!
//! Subnets are chosen when a network is made ([`choose_pools`]) and stay. Addresses are [`Leases`]: taken by an
//! endpoint, given back once. A released address rests: dynamic choice walks round the range, so the one given back
//! last is taken last (pains 11 and 12).

use crate::id::{ContainerId, NetworkId};
use crate::net::fnv1a;
use crate::network::{AskedPool, Network, Pool};
use ipnet::{IpNet, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where automatic subnets come from: each base is cut into pieces of `size` bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Each with its size; the first ones first.
    pub bases: Vec<(IpNet, u8)>,
}

impl Default for Pools {
    /// 172.18.0.0 to 172.31.255.255 and 192.168.0.0/16 by /22: 960 networks of 1022 addresses, what one bridge can
    /// hold.
    fn default() -> Self {
        let v4 = ["172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16"];
        Self { bases: v4.iter().map(|b| (b.parse().expect("a subnet"), 22)).collect() }
    }
}

impl Pools {
    /// Where no pool has IPv6: /64s of the unique local /48 (RFC 4193) that goes with this daemon, so that those of two
    /// machines can be routed to each other (IP-02).
    pub fn add_own(&mut self, daemon: &str) {
        if self.bases.iter().any(|(base, _)| base.addr().is_ipv6()) {
            return;
        }
        // 40 bits that are random enough, since the name is.
        let base = Ipv6Addr::from(u128::from(0xfd00_0000_0000 | fnv1a(daemon) & 0xff_ffff_ffff) << 80);
        self.bases.push((IpNet::V6(Ipv6Net::new_assert(base, 48)), 64));
    }
}

/// Why there is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum PoolRefusal {
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space (subnet {asked} overlaps network \
         {holder} with {held})"
    )]
    Overlaps { asked: IpNet, holder: String, held: IpNet },
    #[error(
        "all predefined address pools have been fully subnetted: {networks} networks hold them; remove unused ones with 'network prune', or pass --subnet"
    )]
    Exhausted { networks: usize },
    #[error(
        "subnet {0} is larger than every predefined address pool{1}: ask for less, or name the subnet, e.g. --subnet \
         10.0.0.0/16"
    )]
    LargerThanPools(IpNet, LargestPool),
    #[error(
        "invalid gateway {gateway}: it is {what} of {subnet}, which no host can have; use one of its hosts' addresses"
    )]
    NotAHost { gateway: IpAddr, what: &'static str, subnet: IpNet },
    #[error("no matching subnet for gateway {0}")]
    NoSubnetForGateway(IpAddr),
    #[error("no matching subnet for aux-address {0}")]
    NoSubnetForAuxiliary(IpAddr),
    #[error("no matching subnet for range {0}")]
    NoSubnetForRange(IpNet),
    #[error("subnet {0} is too small for a gateway and one member")]
    TooSmall(IpNet),
    #[error("subnet {0} is not for networks of containers: {1}")]
    Unusable(IpNet, &'static str),
    #[error("Address already in use: gateway {0} is an auxiliary address too")]
    GatewayTwice(IpAddr),
}

/// The largest of the predefined pools, where the family has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargestPool(pub Option<IpNet>);

impl std::fmt::Display for LargestPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pool| write!(f, " (the largest is {pool})"))
    }
}

/// Completes what was asked: every enabled family has a subnet, every subnet a gateway.
///
/// # Errors
/// See [`PoolRefusal`].
pub fn choose_pools<'a>(
    asked: &[AskedPool],
    needs: &[Need],
    existing: impl Iterator<Item = &'a Network> + Clone,
    routes: &[IpNet],
    pools: &Pools,
) -> Result<Vec<Pool>, PoolRefusal> {
    let mut chosen: Vec<Pool> = Vec::new();
    for a in asked {
        let Some(subnet) = a.subnet else {
            if let Some(range) = a.range {
                return Err(PoolRefusal::NoSubnetForRange(range));
            }
            if let Some(gateway) = a.gateway {
                return Err(PoolRefusal::NoSubnetForGateway(gateway));
            }
            if let Some(&address) = a.auxiliary.values().next() {
                return Err(PoolRefusal::NoSubnetForAuxiliary(address));
            }
            continue;
        };
        let gateway = needs.iter().any(|n| n.ipv6 == subnet.addr().is_ipv6() && n.gateway);
        let held = existing.clone().flat_map(|n| n.ipam.pools.iter().map(|p| (n.name.as_str(), p.subnet)));
        if subnet.addr().is_unspecified() {
            // By its size alone (IP-05).
            let family =
                pools.bases.iter().map(|(base, _)| *base).filter(|b| b.addr().is_ipv6() == subnet.addr().is_ipv6());
            let largest = family.min_by_key(IpNet::prefix_len);
            if largest.is_none_or(|l| l.prefix_len() > subnet.prefix_len()) {
                return Err(PoolRefusal::LargerThanPools(subnet, LargestPool(largest)));
            }
            let pieces = pools.bases.iter().filter(|(base, _)| base.prefix_len() <= subnet.prefix_len());
            let pieces = pieces.map(|(base, _)| (*base, subnet.prefix_len()));
            let chosen_already = chosen.iter().map(|p| ("itself", p.subnet));
            let found = automatic(subnet.addr().is_ipv6(), held.chain(chosen_already), routes, pieces)?;
            chosen.push(complete(found, a, gateway)?);
            continue;
        }
        usable(subnet)?;
        let own = chosen.iter().map(|p| ("itself", p.subnet));
        if let Some((holder, held)) = held.chain(own).find(|(_, held)| overlap(*held, subnet)) {
            return Err(PoolRefusal::Overlaps { asked: subnet, holder: holder.to_owned(), held });
        }
        chosen.push(complete(subnet, a, gateway)?);
    }
    for need in needs {
        if !chosen.iter().any(|p| p.subnet.addr().is_ipv6() == need.ipv6) {
            let held = existing.clone().flat_map(|n| n.ipam.pools.iter().map(|p| (n.name.as_str(), p.subnet)));
            let subnet = automatic(need.ipv6, held, routes, pools.bases.iter().copied())?;
            chosen.push(Pool { configured: false, ..complete(subnet, &AskedPool::default(), need.gateway)? });
        }
    }
    Ok(chosen)
}

/// A family that a network shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which family.
    pub ipv6: bool,
    /// The host has an address there (BR-09).
    pub gateway: bool,
}

/// Whether what was asked for one subnet can be, whatever other networks have (API-10).
///
/// # Errors
/// It cannot.
pub fn check(asked: &AskedPool) -> Result<(), PoolRefusal> {
    let Some(subnet) = asked.subnet.filter(|s| !s.addr().is_unspecified()) else { return Ok(()) };
    usable(subnet)?;
    complete(subnet, asked, false).map(|_| ())
}

fn usable(subnet: IpNet) -> Result<(), PoolRefusal> {
    let address = subnet.addr();
    if address.is_loopback() {
        return Err(PoolRefusal::Unusable(subnet, "it is loopback"));
    }
    if address.is_multicast() {
        return Err(PoolRefusal::Unusable(subnet, "it is multicast"));
    }
    // The prefix that every link has is had whole or not at all, as in Docker (V6-03): of two lengths one would be wrong.
    let link_local: Ipv6Net = "fe80::/64".parse().expect("a subnet");
    if matches!(subnet, IpNet::V6(net) if net != link_local && overlap(net.into(), link_local.into())) {
        return Err(PoolRefusal::Unusable(subnet, "it clashes with the Link-Local prefix 'fe80::/64'"));
    }
    if subnet.max_prefix_len() == subnet.prefix_len() {
        return Err(PoolRefusal::TooSmall(subnet));
    }
    Ok(())
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn complete(subnet: IpNet, asked: &AskedPool, with_gateway: bool) -> Result<Pool, PoolRefusal> {
    let gateway = match asked.gateway {
        Some(gateway) if asked.auxiliary.values().any(|a| *a == gateway) => {
            return Err(PoolRefusal::GatewayTwice(gateway));
        }
        Some(gateway) if !is_assignable(subnet, gateway) => {
            let what = match gateway == subnet.network() {
                true => "the own address",
                false if gateway == subnet.broadcast() => "the broadcast address",
                false => "outside",
            };
            return Err(PoolRefusal::NotAHost { gateway, what, subnet });
        }
        Some(gateway) => Some(gateway),
        None if with_gateway => Some(
            candidates(subnet, subnet)
                .find(|a| !asked.auxiliary.values().any(|aux| aux == a))
                .ok_or(PoolRefusal::TooSmall(subnet))?,
        ),
        None => None,
    };
    Ok(Pool {
        subnet,
        range: asked.range,
        gateway,
        auxiliary: asked.auxiliary.clone(),
        configured: true,
        gateway_configured: asked.gateway.is_some(),
    })
}

/// The first free piece of the pools: free of other networks (`held`, with their names) and of the host's own subnets.
fn automatic<'a>(
    v6: bool,
    held: impl Iterator<Item = (&'a str, IpNet)>,
    routes: &[IpNet],
    pieces: impl Iterator<Item = (IpNet, u8)>,
) -> Result<IpNet, PoolRefusal> {
    let mut networks = BTreeSet::new();
    let mut taken: Vec<IpNet> = Vec::new();
    for (name, net) in held {
        networks.insert(name);
        taken.push(net);
    }
    taken.extend(routes.iter().copied().filter(|r| r.prefix_len() > 0));
    taken.retain(|n| n.addr().is_ipv6() == v6);
    let pieces = pieces.filter(|(base, size)| base.addr().is_ipv6() == v6 && *size >= base.prefix_len());
    for (base, size) in pieces {
        if let Some(free) = first_gap(base, size, &taken) {
            return Ok(free);
        }
    }
    Err(PoolRefusal::Exhausted { networks: networks.len() })
}

/// The first subnet of `size` bits in `base` that nothing taken overlaps. It goes from one that is in the way to its end:
/// a /48 has 2^48 pieces of /96.
fn first_gap(base: IpNet, size: u8, taken: &[IpNet]) -> Option<IpNet> {
    let (mut at, end) = bounds(base);
    let host_bits = u32::from(base.max_prefix_len() - size);
    let mask = 1u128.checked_shl(host_bits).map_or(u128::MAX, |step| step - 1);
    let mut in_the_way: Vec<(u128, u128)> = taken.iter().filter(|t| overlap(**t, base)).map(|t| bounds(*t)).collect();
    in_the_way.sort_unstable();
    for (first, last) in in_the_way {
        if last < at {
            continue;
        }
        if first > at | mask {
            break;
        }
        // The next of its size.
        at = last.max(at | mask).checked_add(1)?.checked_add(mask)? & !mask;
    }
    if at > end { None } else { IpNet::new(from_number(at, base), size).ok() }
}

/// The addresses that members may have, in order: without the subnet's first and last one, except where it has only
/// two (BR-13, RFC 3021 and RFC 6164).
fn candidates(subnet: IpNet, range: IpNet) -> impl Iterator<Item = IpAddr> {
    let (first, last) = bounds(range);
    (first..=last).map(move |n| from_number(n, subnet)).filter(move |a| is_assignable(subnet, *a))
}

fn is_assignable(subnet: IpNet, address: IpAddr) -> bool {
    let two = subnet.max_prefix_len() - subnet.prefix_len() == 1;
    let broadcast = matches!(subnet, IpNet::V4(n) if IpAddr::V4(n.broadcast()) == address);
    subnet.contains(&address) && (two || (address != subnet.network() && !broadcast))
}

fn bounds(range: IpNet) -> (u128, u128) {
    (number(range.network()), number(range.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn from_number(n: u128, family: IpNet) -> IpAddr {
    match family {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(n as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
    }
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The network itself.
    Gateway,
    /// Somebody beside it, by the name that was given.
    Auxiliary(String),
    /// A container, running or not.
    Container(ContainerId),
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum LeaseRefusal {
    #[error("Address already in use: {address} is held by {holder}")]
    Held { address: IpAddr, holder: String },
    #[error("no configured subnet contains IP address {0}")]
    Outside(IpAddr),
    #[error("Address already in use: {0} is the subnet's own")]
    NotAssignable(IpAddr),
    #[error(
        "no available IPv4 addresses on this network's address pools: {network} (subnet {subnet}: all {taken} are taken)"
    )]
    Exhausted { network: String, subnet: IpNet, taken: usize },
}

/// How full a subnet is (API-06); both numbers end at 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that nobody can get: taken, of gateways, auxiliary, and those that are nobody's.
    pub in_use: u64,
    /// Addresses of the range that a member can get without asking for one.
    pub available: u64,
}

/// Which addresses of which network are taken, and by whom. Derived from networks and containers; never stored.
#[derive(Debug, Default)]
pub struct Leases {
    networks: BTreeMap<NetworkId, Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by: BTreeMap<IpAddr, Holder>,
    /// Where the next dynamic choice begins, per subnet: released addresses rest until the walk comes round.
    next: BTreeMap<IpNet, u128>,
}

impl Leases {
    /// Gateways and auxiliary addresses of a network are taken from the start.
    pub fn open(&mut self, network: &Network) {
        let taken = self.networks.entry(network.id).or_default();
        for pool in &network.ipam.pools {
            if let Some(gateway) = pool.gateway {
                taken.by.insert(gateway, Holder::Gateway);
            }
            for (name, address) in &pool.auxiliary {
                taken.by.insert(*address, Holder::Auxiliary(name.clone()));
            }
        }
    }

    /// Forgets a network that is gone.
    pub fn close(&mut self, network: NetworkId) {
        self.networks.remove(&network);
    }

    /// Who has an address; `None` where nobody has.
    pub fn holder(&self, network: NetworkId, address: IpAddr) -> Option<&Holder> {
        self.networks.get(&network)?.by.get(&address)
    }

    /// Takes `address` for `container`; taking one's own again is fine.
    ///
    /// # Errors
    /// The address is outside of the network's subnets, not assignable, or somebody else's. `name_of` names a holder
    /// for the message.
    pub fn lease(
        &mut self,
        network: &Network,
        address: IpAddr,
        container: ContainerId,
        name_of: impl Fn(ContainerId) -> String,
    ) -> Result<(), LeaseRefusal> {
        let pool = network.pool_of(address).ok_or(LeaseRefusal::Outside(address))?;
        if !is_assignable(pool.subnet, address) {
            return Err(LeaseRefusal::NotAssignable(address));
        }
        let taken = self.networks.entry(network.id).or_default();
        match taken.by.get(&address) {
            Some(Holder::Container(holder)) if *holder == container => Ok(()),
            Some(holder) => {
                let holder = match holder {
                    Holder::Gateway => format!("the gateway of network {}", network.name),
                    Holder::Auxiliary(name) => format!("auxiliary address {name} of network {}", network.name),
                    Holder::Container(id) => format!("container {} on network {}", name_of(*id), network.name),
                };
                Err(LeaseRefusal::Held { address, holder })
            }
            None => {
                taken.by.insert(address, Holder::Container(container));
                Ok(())
            }
        }
    }

    /// Takes an address that another container has, for one that is about to use it.
    pub fn take_over(&mut self, network: NetworkId, address: IpAddr, container: ContainerId) {
        let by = self.networks.entry(network).or_default().by.entry(address);
        by.and_modify(|holder| {
            if matches!(holder, Holder::Container(_)) {
                *holder = Holder::Container(container);
            }
        });
    }

    /// Takes a free address of `pool`, the one that has rested longest.
    ///
    /// # Errors
    /// All are taken.
    pub fn lease_any(
        &mut self,
        network: &Network,
        pool: &Pool,
        container: ContainerId,
    ) -> Result<IpAddr, LeaseRefusal> {
        let taken = self.networks.entry(network.id).or_default();
        let range = pool.range.unwrap_or(pool.subnet);
        let (first, last) = bounds(range);
        let start = taken.next.get(&range).copied().filter(|n| (first..=last).contains(n)).unwrap_or(first);
        let free = (start..=last)
            .chain(first..start)
            // At most as many steps as addresses are taken, and the two that nobody may have.
            .take(taken.by.len() + 3)
            .map(|n| from_number(n, pool.subnet))
            .find(|a| is_assignable(pool.subnet, *a) && !taken.by.contains_key(a));
        match free {
            Some(address) => {
                taken.next.insert(range, number(address) + 1);
                taken.by.insert(address, Holder::Container(container));
                Ok(address)
            }
            None => {
                Err(LeaseRefusal::Exhausted { network: network.name.clone(), subnet: range, taken: taken.by.len() })
            }
        }
    }

    /// How full a subnet is.
    pub fn usage(&self, network: NetworkId, pool: &Pool) -> Usage {
        let taken = self.networks.get(&network);
        let held = |within: IpNet| {
            let addresses = taken.map(|t| t.by.keys()).into_iter().flatten();
            addresses.filter(|a| within.contains(*a) && is_assignable(pool.subnet, **a)).count() as u128
        };
        let size = |within: IpNet| {
            let (first, last) = bounds(within);
            (last - first).saturating_add(1)
        };
        // The subnet's own first address and, for IPv4, its last one.
        let never = |within: IpNet| {
            let (first, last) = bounds(pool.subnet);
            let ends = if first == last { vec![first] } else { vec![first, last] };
            let ends = ends.into_iter().map(|n| from_number(n, pool.subnet));
            ends.filter(|a| within.contains(a) && !is_assignable(pool.subnet, *a)).count() as u128
        };
        let range = pool.range.unwrap_or(pool.subnet);
        let saturated = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        Usage {
            in_use: saturated(never(pool.subnet) + held(pool.subnet)),
            available: saturated(size(range).saturating_sub(never(range) + held(range))),
        }
    }

    /// Gives back what `container` has; somebody else's is left alone.
    pub fn release(&mut self, network: NetworkId, address: IpAddr, container: ContainerId) {
        if let Some(taken) = self.networks.get_mut(&network)
            && taken.by.get(&address) == Some(&Holder::Container(container))
        {
            taken.by.remove(&address);
        }
    }
}

/// The default network's subnet: 172.17.0.0/16, or the next free pool where that is taken, and for IPv6.
///
/// # Errors
/// No pool is free.
pub fn default_subnet(ipv6: bool, others: &[IpNet], routes: &[IpNet], pools: &Pools) -> Result<IpNet, PoolRefusal> {
    let first: IpNet = "172.17.0.0/16".parse().expect("a subnet");
    let mut in_the_way = others.iter().chain(routes.iter().filter(|r| r.prefix_len() > 0));
    if !ipv6 && !in_the_way.any(|net| overlap(*net, first)) {
        return Ok(first);
    }
    automatic(ipv6, others.iter().map(|net| ("", *net)), routes, pools.bases.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Driver, PoolRequest, Refusal, Request, plan_create};
    use jiff::Timestamp;

    fn request(name: &str, subnets: &[&str]) -> Request {
        let pools = subnets.iter().map(|s| PoolRequest { subnet: (*s).into(), ..Default::default() }).collect();
        Request {
            name: name.into(),
            driver: "bridge".into(),
            ipv4: None,
            ipv6: None,
            internal: false,
            attachable: false,
            ipam_driver: String::new(),
            ipam_options: None,
            pools,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            mtu: 1500,
            config_only: false,
            config_from: String::new(),
        }
    }

    fn pools() -> Pools {
        let mut pools = Pools::default();
        pools.add_own("a daemon");
        pools
    }

    fn create(request: Request, existing: &[Network], routes: &[&str]) -> Result<Network, Refusal> {
        let routes: Vec<IpNet> = routes.iter().map(|r| r.parse().unwrap()).collect();
        let id = NetworkId::new([existing.len() as u8; 32]);
        plan_create(request, id, Timestamp::UNIX_EPOCH, existing.iter(), &routes, &pools())
    }

    #[test]
    fn api_06_what_is_nobodys_counts_as_in_use_and_a_range_bounds_what_is_available() {
        let check = |subnet: &str, range: &str, leased: usize, expected: (u64, u64)| {
            let mut asked = request("n", &[subnet]);
            asked.ipv6 = Some(subnet.contains(':'));
            asked.pools[0].range = range.into();
            let network = create(asked, &[], &[]).unwrap();
            let pool = network.ipam.pools.iter().find(|p| p.subnet.to_string() == subnet).unwrap();
            let mut leases = Leases::default();
            leases.open(&network);
            for n in 0..leased {
                leases.lease_any(&network, pool, ContainerId::new([n as u8; 32])).unwrap();
            }
            let usage = leases.usage(network.id, pool);
            assert_eq!((usage.in_use, usage.available), expected, "{subnet} {range} {leased}");
        };
        // The subnet's own address, its broadcast address and the gateway.
        check("10.0.0.0/24", "", 0, (3, 253));
        check("10.0.0.0/24", "", 5, (8, 248));
        // The gateway is the first address of the subnet, outside of the range; the broadcast address is inside.
        check("10.0.0.0/24", "10.0.0.128/25", 2, (5, 125));
        check("10.0.0.0/31", "", 1, (2, 0));
        check("fd00::/64", "", 1, (3, u64::MAX - 2));
        check("fd00::/48", "", 1, (3, u64::MAX));
    }

    #[test]
    fn more_than_900_networks_fit_without_configuration() {
        let mut existing = Vec::new();
        for n in 0.. {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&u32::to_be_bytes(n));
            let made = plan_create(
                request(&format!("n{n}"), &[]),
                NetworkId::new(id),
                Timestamp::UNIX_EPOCH,
                existing.iter(),
                &[],
                &Pools::default(),
            );
            match made {
                Ok(network) => existing.push(network),
                Err(Refusal::Pool(PoolRefusal::Exhausted { networks })) => {
                    assert_eq!(networks, existing.len());
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(existing.len() > 900, "{}", existing.len());
    }

    #[test]
    fn automatic_subnets_avoid_the_hosts_own_but_not_its_default_route() {
        let network = create(request("a", &[]), &[], &["0.0.0.0/0", "172.18.0.0/16"]).unwrap();
        assert_eq!(network.ipam.pools[0].subnet.to_string(), "172.19.0.0/22");
        assert_eq!(network.ipam.pools[0].gateway.unwrap().to_string(), "172.19.0.1");
    }

    #[test]
    fn wrong_address_configurations_are_refused_with_all_reasons() {
        let other = create(request("other", &["10.201.0.0/24"]), &[], &[]).unwrap();
        let check = |subnet: &str, gateway: &str, expected: &str| {
            let mut r = request("x", &[]);
            r.ipv6 = Some(subnet.contains(':'));
            r.pools = vec![PoolRequest { subnet: subnet.into(), gateway: gateway.into(), ..Default::default() }];
            let error = create(r, std::slice::from_ref(&other), &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{subnet} {gateway}: {error}");
        };
        check(
            "10.201.0.300/24",
            "",
            "invalid network config:\ninvalid subnet 10.201.0.300/24: invalid CIDR block notation",
        );
        check("10.201.0.0/16", "", "Pool overlaps with other one on this address space");
        check("10.3.0.1/24", "", "invalid subnet 10.3.0.1/24: it should be 10.3.0.0/24");
        check("10.3.0.0/24", "10.4.0.1", "invalid gateway 10.4.0.1");
        check("", "10.4.0.1", "no matching subnet for gateway 10.4.0.1");
        check("10.3.0.0/32", "", "too small");
        check("10.3.0.0/24", "10.3.0.0", "invalid gateway 10.3.0.0: it is the own address of 10.3.0.0/24");
        check("10.3.0.0/24", "10.3.0.255", "invalid gateway 10.3.0.255: it is the broadcast address of 10.3.0.0/24");
        check("fd03::/64", "fd03::", "invalid gateway fd03::: it is the own address of fd03::/64");
        for (both, gateway) in [("10.3.0.0/31", "10.3.0.0"), ("10.3.0.0/31", "10.3.0.1"), ("fd03::/64", "fd03::ffff")] {
            let mut r = request("x", &[]);
            r.ipv6 = Some(true);
            r.pools = vec![PoolRequest { subnet: both.into(), gateway: gateway.into(), ..Default::default() }];
            create(r, &[], &[]).unwrap();
        }
        check("127.3.0.0/24", "", "loopback");
        check("224.3.0.0/24", "", "multicast");
        check("fe80::/80", "", "clashes with the Link-Local prefix 'fe80::/64'");
        check("fe80::/10", "", "clashes with the Link-Local prefix 'fe80::/64'");
        let both = |subnets: &[&str]| {
            let error = create(Request { ipv6: Some(true), ..request("x", subnets) }, &[], &[]).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            both(&["10.3.0.1/24", "fd03::1/64", "nonsense"]),
            "invalid network config:\n* invalid subnet 10.3.0.1/24: it should be 10.3.0.0/24\n\
             * invalid subnet fd03::1/64: it should be fd03::/64\n* invalid subnet nonsense: invalid CIDR block notation"
        );
        assert_eq!(
            both(&["127.3.0.0/24", "ff05::/64"]),
            "invalid network config:\n* subnet 127.3.0.0/24 is not for networks of containers: it is loopback\n\
             * subnet ff05::/64 is not for networks of containers: it is multicast"
        );
    }

    #[test]
    fn ip_05_a_subnet_is_had_by_its_size_alone() {
        let mut r = request("a", &["0.0.0.0/24", "::/96"]);
        r.ipv6 = Some(true);
        let a = create(r.clone(), &[], &["172.18.0.0/24"]).unwrap();
        let subnets = |n: &Network| n.ipam.pools.iter().map(|p| p.subnet.to_string()).collect::<Vec<_>>();
        let IpNet::V6(ours) = pools().bases.pop().unwrap().0 else { panic!("an IPv6 pool") };
        assert_eq!(subnets(&a), ["172.18.1.0/24".to_owned(), format!("{}/96", ours.addr())]);
        r.name = "b".into();
        let next = Ipv6Addr::from(u128::from(ours.addr()) + (1 << 32));
        assert_eq!(subnets(&create(r, &[a], &[]).unwrap()), ["172.18.0.0/24".to_owned(), format!("{next}/96")]);
        let huge = create(request("c", &["0.0.0.0/8"]), &[], &[]).unwrap_err();
        let words = "subnet 0.0.0.0/8 is larger than every predefined address pool (the largest is 172.24.0.0/13)";
        assert!(huge.to_string().starts_with(words), "{huge}");
        let all = create(request("c", &["0.0.0.0/0"]), &[], &[]).unwrap_err();
        assert!(all.to_string().starts_with("subnet 0.0.0.0/0 is larger than every"), "{all}");
    }

    #[test]
    fn ip_12_subnets_of_more_than_64_bits_of_hosts_have_addresses() {
        let mut r = request("a", &["fd00::/8"]);
        (r.ipv4, r.ipv6) = (Some(false), Some(true));
        r.pools[0].range = "fd80::/16".into();
        let network = create(r, &[], &[]).unwrap();
        assert_eq!(network.way_out(true).unwrap().to_string(), "fd00::1");
        let mut leases = Leases::default();
        leases.open(&network);
        let mut any =
            || leases.lease_any(&network, &network.ipam.pools[0], ContainerId::new([1; 32])).unwrap().to_string();
        assert_eq!([any(), any()], ["fd80::", "fd80::1"]);
    }

    #[test]
    fn br_13_point_to_point_subnets_have_two_members() {
        let two = |subnet: &str, mode: &str| {
            let mut r = request("a", &[subnet]);
            let ipv6 = subnet.contains(':');
            (r.ipv4, r.ipv6, r.internal) = (Some(!ipv6), Some(ipv6), mode == "isolated");
            let key =
                if ipv6 { crate::network::option::GATEWAY_MODE_6 } else { crate::network::option::GATEWAY_MODE_4 };
            r.options.insert(key.into(), mode.into());
            let network = create(r, &[], &[]).unwrap();
            let mut leases = Leases::default();
            leases.open(&network);
            let pool = &network.ipam.pools[0];
            let addresses = (1..4).map_while(|n| leases.lease_any(&network, pool, ContainerId::new([n; 32])).ok());
            addresses.map(|a| a.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(two("10.1.0.0/31", "nat"), ["10.1.0.1"], "the bridge is the other");
        assert_eq!(two("fd00::/127", "nat"), ["fd00::1"]);
        assert_eq!(two("10.1.0.0/31", "isolated"), ["10.1.0.0", "10.1.0.1"]);
        assert_eq!(two("fd00::/127", "isolated"), ["fd00::", "fd00::1"]);
    }

    #[test]
    fn ip_13_a_bridge_has_one_subnet_of_each_family() {
        let refused = create(request("a", &["10.1.0.0/24", "10.2.0.0/24"]), &[], &[]).unwrap_err();
        assert!(refused.to_string().starts_with("bridge driver doesn't support multiple subnets"), "{refused}");
    }

    #[test]
    fn ip_11_the_null_driver_gives_no_addresses() {
        let mut r = request("a", &[]);
        r.ipam_driver = "null".into();
        assert_eq!(create(r.clone(), &[], &[]).unwrap().ipam.pools, []);
        r.pools = vec![PoolRequest { subnet: "10.1.0.0/24".into(), ..Default::default() }];
        assert_eq!(create(r, &[], &[]).unwrap_err(), Refusal::NullWithSubnet);
    }

    #[test]
    fn br_11_members_leave_by_whom_an_auxiliary_address_names() {
        let mut r = request("a", &["10.1.0.0/24"]);
        r.pools[0].auxiliary.insert("DefaultGatewayIPv4".into(), "10.1.0.254".into());
        let network = create(r, &[], &[]).unwrap();
        assert_eq!(network.way_out(false).unwrap().to_string(), "10.1.0.254");
        assert_eq!(network.bridge_addresses().next().unwrap().to_string(), "10.1.0.1/24");
        let mut r = request("b", &["10.1.0.0/24"]);
        r.options.insert(crate::network::option::INHIBIT_IPV4.into(), "true".into());
        let network = create(r, &[], &[]).unwrap();
        assert_eq!(
            (network.bridge_addresses().count(), network.way_out(false).unwrap().to_string()),
            (0, "10.1.0.1".into())
        );
    }

    #[test]
    fn api_32_a_template_gives_its_options_and_addresses_to_a_network_of_its_name() {
        let mut r = request("template", &["10.1.0.0/24"]);
        r.config_only = true;
        r.options.insert(crate::network::option::MTU.into(), "1400".into());
        let template = create(r.clone(), &[], &[]).unwrap();
        let mut from = request("real", &[]);
        from.config_from = "template".into();
        let real = create(from.clone(), std::slice::from_ref(&template), &[]).unwrap();
        assert_eq!((real.driver, real.mtu()), (Driver::Bridge, 1400));
        assert_eq!(real.ipam.pools[0].subnet, template.ipam.pools[0].subnet);
        let refused = |r: &Request| create(r.clone(), &[template.clone(), real.clone()], &[]).unwrap_err();
        from.name = "second".into();
        assert!(matches!(refused(&from), Refusal::Pool(PoolRefusal::Overlaps { .. })));
        from.config_from = "real".into();
        assert_eq!(refused(&from), Refusal::NotATemplate("real".into()));
        from.config_from = "nobody".into();
        assert_eq!(refused(&from), Refusal::NoTemplate("nobody".into()));
        from.labels.insert("a".into(), "b".into());
        assert_eq!(refused(&from), Refusal::TemplateAndOwn);
        (r.name, r.internal) = ("other".into(), true);
        assert_eq!(refused(&r), Refusal::TemplateOperates);
    }

    #[test]
    fn names_are_unique_and_predefined_ones_are_refused() {
        let a = create(request("a", &[]), &[], &[]).unwrap();
        assert_eq!(
            create(request("a", &[]), std::slice::from_ref(&a), &[]).unwrap_err().to_string(),
            "network with name a already exists"
        );
        for name in ["bridge", "host", "none", "default", "container:x"] {
            assert!(matches!(create(request(name, &[]), &[], &[]), Err(Refusal::Predefined(_))), "{name}");
        }
        assert_eq!(a.driver, Driver::Bridge);
    }

    #[test]
    fn a_released_address_rests_and_a_static_one_is_kept() {
        let mut r = request("a", &["10.1.0.0/29"]);
        r.pools[0].range = "10.1.0.0/29".into();
        let network = create(r, &[], &[]).unwrap();
        let pool = &network.ipam.pools[0];
        let mut leases = Leases::default();
        leases.open(&network);
        let container = |n| ContainerId::new([n; 32]);
        let any = |leases: &mut Leases, n| leases.lease_any(&network, pool, container(n)).map(|a| a.to_string());
        assert_eq!(any(&mut leases, 1).unwrap(), "10.1.0.2");
        leases.release(network.id, "10.1.0.2".parse().unwrap(), container(1));
        assert_eq!(any(&mut leases, 2).unwrap(), "10.1.0.3", "the one given back last is taken last");
        let name = |_| "web".to_owned();
        leases.lease(&network, "10.1.0.4".parse().unwrap(), container(3), name).unwrap();
        leases.lease(&network, "10.1.0.4".parse().unwrap(), container(3), name).unwrap();
        let refused = leases.lease(&network, "10.1.0.4".parse().unwrap(), container(4), name).unwrap_err();
        assert_eq!(refused.to_string(), "Address already in use: 10.1.0.4 is held by container web on network a");
        assert_eq!(any(&mut leases, 5).unwrap(), "10.1.0.5");
        assert_eq!(any(&mut leases, 6).unwrap(), "10.1.0.6");
        assert_eq!(any(&mut leases, 7).unwrap(), "10.1.0.2");
        assert!(matches!(any(&mut leases, 8), Err(LeaseRefusal::Exhausted { .. })));
    }
}
