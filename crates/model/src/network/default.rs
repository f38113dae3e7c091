//! The networks that are there without anybody's asking, and what the daemon's settings make of the one that containers are on
//! which ask for none (BR-01, BR-19).

use super::{Driver, Ipam, IpamDriver, Network, Pool, option};
use crate::daemon::{DefaultBridge, Networking};
use crate::id::NetworkId;
use crate::ipam::{self, Pools};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is known of the machine and of the last run.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// The network as it was when the last daemon ended: what nobody configures stays.
    pub before: Option<&'a Network>,
    /// Subnets of other networks.
    pub others: &'a [IpNet],
    /// Addresses of the bridge, where somebody else made it before us: they are taken over.
    pub device: &'a [IpNet],
    /// Where the host has routes to.
    pub routes: &'a [IpNet],
    /// Where a subnet comes from, if none is configured.
    pub pools: &'a Pools,
    /// For a network that is made.
    pub id: NetworkId,
    /// The same.
    pub now: Timestamp,
}

/// What a daemon that starts has found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Containers run on the default network as it was: it stays so.
    pub busy: bool,
    /// Addresses of the bridge, where somebody else made it before us.
    pub device: &'a [IpNet],
    /// Where the host has routes to.
    pub routes: &'a [IpNet],
    /// When what is made is made.
    pub now: Timestamp,
}

/// What becomes of a network's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, or otherwise than it was.
    Put(Box<Network>),
    /// It is none any more.
    Gone(NetworkId),
}

/// `bridge`, `host` and `none`: made where they are missing, and `bridge` as the settings say (BR-19), unless containers
/// run on it as it was. `fresh` draws an id.
///
/// # Errors
/// No subnet is free.
pub fn predefined<'a>(
    networks: impl Iterator<Item = &'a Network> + Clone,
    settings: &Networking,
    found: &Found<'_>,
    mut fresh: impl FnMut() -> NetworkId,
) -> Result<Vec<Change>, ipam::PoolRefusal> {
    let of_name = |name: &str| networks.clone().find(|n| n.predefined && n.name == name);
    let mut changes = Vec::new();
    for (name, driver) in [("none", Driver::Null), ("host", Driver::Host)] {
        if of_name(name).is_none() {
            let made = Network::new(fresh(), name, driver, found.now);
            changes.push(Change::Put(Box::new(Network { predefined: true, ..made })));
        }
    }
    let before = of_name("bridge");
    match before {
        Some(_) if found.busy => return Ok(changes),
        before if !settings.default_bridge.enabled => {
            changes.extend(before.map(|network| Change::Gone(network.id)));
            return Ok(changes);
        }
        _ => {}
    }
    let own = networks.clone().filter(|n| !n.predefined && !n.config_only);
    let others: Vec<IpNet> = own.flat_map(|n| n.ipam.pools.iter().map(|p| p.subnet)).collect();
    let around = Surroundings {
        before,
        others: &others,
        device: found.device,
        routes: found.routes,
        pools: &settings.pools,
        id: fresh(),
        now: found.now,
    };
    let network = plan_default(&settings.default_bridge, &around)?;
    if before != Some(&network) {
        changes.push(Change::Put(Box::new(network)));
    }
    Ok(changes)
}

/// The default network, `bridge`.
///
/// # Errors
/// No subnet is free.
pub fn plan_default(settings: &DefaultBridge, around: &Surroundings<'_>) -> Result<Network, ipam::PoolRefusal> {
    let v4 = Asked {
        address: settings.address4.map(IpNet::V4),
        range: settings.range4.map(IpNet::V4),
        gateway: settings.gateway4.map(IpAddr::V4),
    };
    let v6 = Asked {
        address: settings.address6.map(IpNet::V6),
        range: settings.range6.map(IpNet::V6),
        gateway: settings.gateway6.map(IpAddr::V6),
    };
    let mut pools = vec![v4.pool(false, around)?];
    if settings.ipv6 {
        pools.push(v6.pool(true, around)?);
    }
    let options = [
        (option::DEFAULT_BRIDGE, "true".to_owned()),
        (option::ICC, settings.icc.to_string()),
        (option::MASQUERADE, settings.masquerade.to_string()),
        (option::HOST_BINDING, settings.host_binding.to_string()),
        (option::BRIDGE_NAME, settings.device.to_string()),
        (option::MTU, settings.mtu.to_string()),
    ];
    let options: BTreeMap<String, String> = options.map(|(key, value)| (key.to_owned(), value)).into();
    let (id, created) = around.before.map_or((around.id, around.now), |n| (n.id, n.created));
    Ok(Network {
        ipv6: settings.ipv6,
        ipam: Ipam { driver: IpamDriver::Default, options: None, pools },
        options,
        mtu: settings.mtu,
        predefined: true,
        ..Network::new(id, "bridge", Driver::Bridge, created)
    })
}

/// What is configured of one family.
struct Asked {
    address: Option<IpNet>,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
}

impl Asked {
    fn pool(&self, ipv6: bool, around: &Surroundings<'_>) -> Result<Pool, ipam::PoolRefusal> {
        let is_family = |net: &&IpNet| net.addr().is_ipv6() == ipv6;
        let address = self.address.or_else(|| around.device.iter().find(is_family).copied());
        let before = around.before.iter().flat_map(|n| &n.ipam.pools);
        // One that was configured then, and is no more, does not stay.
        let before = before.filter(|p| !p.gateway_configured && p.range.is_none());
        let before = before.map(|p| p.subnet).find(|net| net.addr().is_ipv6() == ipv6);
        let subnet = match address.map(|a| a.trunc()).or(self.range).or(before) {
            Some(subnet) => subnet,
            None => ipam::default_subnet(ipv6, around.others, around.routes, around.pools)?,
        };
        let way_out = if ipv6 { "DefaultGatewayIPv6" } else { "DefaultGatewayIPv4" };
        Ok(Pool {
            subnet,
            range: self.range.filter(|r| *r != subnet),
            gateway: address.map(|a| a.addr()).or_else(|| subnet.hosts().find(|a| *a != subnet.network())),
            auxiliary: self.gateway.iter().map(|g| (way_out.to_owned(), *g)).collect(),
            configured: false,
            gateway_configured: address.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(settings: &DefaultBridge, before: Option<&Network>, routes: &[&str]) -> Network {
        let routes: Vec<IpNet> = routes.iter().map(|r| r.parse().unwrap()).collect();
        let around = Surroundings {
            before,
            others: &[],
            device: &[],
            routes: &routes,
            pools: &Pools::default(),
            id: NetworkId::new([7; 32]),
            now: Timestamp::UNIX_EPOCH,
        };
        plan_default(settings, &around).unwrap()
    }

    #[test]
    fn br_01_the_default_network_is_172_17_or_the_next_free_pool_and_stays() {
        let free = plan(&DefaultBridge::default(), None, &[]);
        assert_eq!(free.ipam.pools[0].subnet.to_string(), "172.17.0.0/16");
        assert_eq!(free.way_out(false).unwrap().to_string(), "172.17.0.1");
        let taken = plan(&DefaultBridge::default(), None, &["172.16.0.0/12"]);
        assert_eq!(taken.ipam.pools[0].subnet.to_string(), "192.168.0.0/22");
        assert_eq!(plan(&DefaultBridge::default(), Some(&taken), &[]), taken);
    }

    #[test]
    fn br_19_the_default_network_is_as_the_flags_say_and_only_as_long_as_they_say_it() {
        let settings = DefaultBridge {
            address4: Some("10.9.0.1/16".parse().unwrap()),
            range4: Some("10.9.8.0/24".parse().unwrap()),
            gateway4: Some("10.9.0.254".parse().unwrap()),
            ipv6: true,
            range6: Some("fd00:9::/64".parse().unwrap()),
            icc: false,
            masquerade: false,
            host_binding: "127.0.0.1".parse().unwrap(),
            mtu: 1400,
            ..DefaultBridge::default()
        };
        let network = plan(&settings, None, &[]);
        assert_eq!(network.ipam.pools[0].subnet.to_string(), "10.9.0.0/16");
        assert_eq!(network.ipam.pools[0].range, settings.range4.map(IpNet::V4));
        assert_eq!(network.way_out(false), settings.gateway4.map(IpAddr::V4));
        let addresses: Vec<String> = network.bridge_addresses().map(|a| a.to_string()).collect();
        assert_eq!(addresses, ["10.9.0.1/16", "fd00:9::1/64"]);
        assert!(!network.icc() && !network.masquerades(false));
        assert_eq!((network.mtu(), network.host_binding()), (1400, Some(settings.host_binding)));
        let plain = plan(&DefaultBridge::default(), Some(&network), &[]);
        assert_eq!((plain.id, plain.ipam.pools[0].subnet.to_string()), (network.id, "172.17.0.0/16".to_owned()));
    }

    #[test]
    fn br_19_networks_that_are_missing_are_made_and_bridge_is_as_the_settings_say_unless_it_is_busy() {
        let decide = |networks: &[Network], settings: &Networking, busy: bool| -> Vec<Change> {
            let found = Found { busy, device: &[], routes: &[], now: Timestamp::UNIX_EPOCH };
            let mut ids = 0;
            let fresh = || {
                ids += 1;
                NetworkId::new([ids; 32])
            };
            predefined(networks.iter(), settings, &found, fresh).unwrap()
        };
        let (usual, mut none, mut other) = (Networking::default(), Networking::default(), Networking::default());
        none.default_bridge.enabled = false;
        other.default_bridge.mtu = 1400;
        let made: Vec<Network> = decide(&[], &usual, false)
            .into_iter()
            .filter_map(|change| if let Change::Put(network) = change { Some(*network) } else { None })
            .collect();
        assert_eq!(made.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["none", "host", "bridge"]);
        assert!(decide(&made, &usual, false).is_empty(), "all is as it should be");
        assert_eq!(decide(&made, &none, false), [Change::Gone(made[2].id)]);
        assert!(
            decide(&made, &none, true).is_empty() && decide(&made, &other, true).is_empty(),
            "containers run on it"
        );
        let changed = decide(&made, &other, false);
        assert!(matches!(&changed[..], [Change::Put(n)] if n.id == made[2].id && n.mtu == 1400), "{changed:?}");
        assert_eq!(decide(&[], &none, false).len(), 2, "there is no default network");
    }
}
