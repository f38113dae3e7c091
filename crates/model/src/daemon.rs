//! What a daemon is told when it starts, by dockerd's flags and daemon.json, with Docker's defaults: how it treats networks
//! ([`Networking`]), what containers have that say nothing themselves ([`ContainerDefaults`]), and where images come from
//! ([`Registries`]). Whoever parses flags fills these; nobody changes them while a daemon runs.

use crate::container::{HostConfig, LogConfig};
use crate::files::ResolvOverrides;
use crate::ipam::Pools;
use crate::net::InterfaceName;
use crate::spec::Ulimit;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All that a daemon is told about networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networking {
    /// `--default-address-pool` (IP-02).
    pub pools: Pools,
    /// The network that containers are on which name none.
    pub default_bridge: DefaultBridge,
    /// `--default-network-opt DRIVER=KEY=VALUE`: by driver, under what a network's own options say (API-34).
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    /// `--iptables` and `--ip6tables`: whether there are rules at all (PT-16).
    pub firewall: bool,
    /// `--ip-forward`: whether the daemon makes the host forward (PT-19).
    pub forwarding: bool,
    /// `--userland-proxy`: whether the keeper carries what the kernel cannot: [::1], and IPv6 to containers without
    /// (PT-08, PT-09).
    pub proxy: bool,
    /// `--allow-direct-routing`: published ports are reached by a container's own address, too (PT-14).
    pub direct_routing: bool,
    /// `--bridge-accept-fwmark`: what other rules have marked so passes into every network (SEC-07).
    pub accept_mark: Option<Mark>,
    /// `--host-gateway-ip`: what `host-gateway` means; the default network's gateways where it is empty (DNS-23).
    pub host_gateways: Vec<IpAddr>,
    /// Whether other firewalls' extension points are told of our networks: DOCKER-USER, ufw's route rules, firewalld's
    /// zone (SEC-07 to SEC-10).
    pub firewall_integration: bool,
    /// `--dns`, `--dns-search` and `--dns-opt`: what containers have that say nothing of it, each by itself.
    pub dns: ResolvOverrides,
}

impl Default for Networking {
    fn default() -> Self {
        Self {
            pools: Pools::default(),
            default_bridge: DefaultBridge::default(),
            default_options: BTreeMap::new(),
            firewall: true,
            forwarding: true,
            proxy: true,
            direct_routing: false,
            accept_mark: None,
            host_gateways: Vec::new(),
            firewall_integration: true,
            dns: ResolvOverrides::default(),
        }
    }
}

/// A firewall mark: the bits that count, and what they are (nft(8), `meta mark`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// What they are.
    pub value: u32,
    /// Which bits count.
    pub mask: u32,
}

impl std::str::FromStr for Mark {
    type Err = String;

    /// `MARK` or `MARK/MASK`, in decimal or as `0x…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        let (value, mask) = (number(value).ok(), number(mask).ok());
        let mark = value.zip(mask).map(|(value, mask)| Self { value, mask }).filter(|m| m.value & !m.mask == 0);
        mark.ok_or_else(|| format!("invalid firewall mark {text:?}: MARK or MARK/MASK is, with no bit beyond the mask"))
    }
}

/// What a daemon gives containers that say nothing of it, but for networks.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerDefaults {
    /// `--log-driver` and `--log-opt`.
    pub log: LogConfig,
    /// `--default-ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--default-shm-size`, in bytes.
    pub shm_size: i64,
    /// `--init`.
    pub init: bool,
    /// `--no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--cgroup-parent`.
    pub cgroup_parent: String,
    /// `--default-runtime`.
    pub runtime: String,
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            log: LogConfig { driver: "json-file".into(), ..LogConfig::default() },
            ulimits: Vec::new(),
            shm_size: 64 << 20,
            init: false,
            no_new_privileges: false,
            cgroup_parent: String::new(),
            runtime: "isle".into(),
        }
    }
}

impl ContainerDefaults {
    /// Completes what a client asks for. Options of a log are for their driver alone.
    pub fn complete(&self, host: &mut HostConfig) {
        let log = &mut host.log_config;
        if log.driver.is_empty() {
            log.driver.clone_from(&self.log.driver);
        }
        if log.driver == self.log.driver {
            for (key, value) in &self.log.config {
                log.config.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for limit in &self.ulimits {
            let asked = host.ulimits.get_or_insert_default();
            if !asked.iter().any(|a| a.name == limit.name) {
                asked.push(limit.clone());
            }
        }
        if host.shm_size == 0 {
            host.shm_size = self.shm_size;
        }
        if host.init.is_none() && self.init {
            host.init = Some(true);
        }
        let says = |option: &String| option.starts_with("no-new-privileges");
        if self.no_new_privileges && !host.security_opt.iter().flatten().any(says) {
            host.security_opt.get_or_insert_default().push("no-new-privileges".into());
        }
        if host.cgroup_parent.is_empty() {
            host.cgroup_parent.clone_from(&self.cgroup_parent);
        }
        if host.runtime.is_empty() {
            host.runtime.clone_from(&self.runtime);
        }
    }
}

/// What a daemon is told about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// `--registry-mirror`: base addresses, tried in turn before Docker's own registry.
    pub mirrors: Vec<String>,
    /// `--insecure-registry`: `HOST[:PORT]`, or a subnet of hosts that are named by their addresses.
    pub insecure: Vec<String>,
}

impl Registries {
    /// Whether a registry may be spoken to by plain HTTP, or without trusting its certificate.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let host = match registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => registry,
        };
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        self.insecure.iter().any(|told| match (told.parse::<IpNet>(), address) {
            (Ok(subnet), Some(address)) => subnet.contains(&address),
            (Ok(_), None) => false,
            (Err(_), _) => told == registry || told == host,
        })
    }

    /// The mirrors of a registry: only Docker's own has some, as in Docker.
    pub fn mirrors_of(&self, registry: &str) -> &[String] {
        if registry == crate::reference::DEFAULT_REGISTRY { &self.mirrors } else { &[] }
    }
}

/// The network that containers are on which ask for none (BR-19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultBridge {
    /// False with `--bridge none`: there is none, and containers that ask for no network have no network.
    pub enabled: bool,
    /// `--bridge`.
    pub device: InterfaceName,
    /// `--bip`: the bridge's own address and subnet.
    pub address4: Option<Ipv4Net>,
    /// `--bip6`.
    pub address6: Option<Ipv6Net>,
    /// `--fixed-cidr`: dynamic addresses come from here.
    pub range4: Option<Ipv4Net>,
    /// `--fixed-cidr-v6`: the same; without `--bip6` it is the subnet.
    pub range6: Option<Ipv6Net>,
    /// `--default-gateway`: the containers' way out, where that is not the bridge.
    pub gateway4: Option<Ipv4Addr>,
    /// `--default-gateway-v6`.
    pub gateway6: Option<Ipv6Addr>,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--icc`: members reach each other.
    pub icc: bool,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// `--ip`: where ports are published when a binding names no address.
    pub host_binding: IpAddr,
    /// `--mtu`, in bytes.
    pub mtu: u32,
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            enabled: true,
            device: "isle0".parse().expect("a name"),
            address4: None,
            address6: None,
            range4: None,
            range6: None,
            gateway4: None,
            gateway6: None,
            ipv6: false,
            icc: true,
            masquerade: true,
            host_binding: Ipv4Addr::UNSPECIFIED.into(),
            mtu: 1500,
        }
    }
}

/// Why settings contradict each other: the daemon does not start with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum SettingsRefusal {
    #[error("invalid default address pool {base}: its networks' size /{size} is not between /{} and /{}", base.prefix_len(), base.max_prefix_len())]
    PoolSize { base: IpNet, size: u8 },
    #[error("invalid default address pool {base}: it should be {}", base.trunc())]
    PoolHostBits { base: IpNet },
    #[error("invalid default address pools: {0} overlaps {1}")]
    PoolsOverlap(IpNet, IpNet),
    #[error("invalid --fixed-cidr {range}: it is not within the default bridge's subnet {subnet}")]
    RangeOutside { range: IpNet, subnet: IpNet },
    #[error("invalid --default-gateway {gateway}: it is not within the default bridge's subnet {subnet}")]
    GatewayOutside { gateway: IpAddr, subnet: IpNet },
    #[error("invalid --bip {0}: it is the subnet's own address; it must be one of a host")]
    NoHostAddress(IpNet),
    #[error("invalid MTU {0}: it must be a number of bytes from 68 to 65535")]
    Mtu(u32),
    #[error(
        "the firewall cannot be turned off: what keeps networks apart and leads published ports is Isle's own table, \
         which leaves other rules alone; --no-firewall-integration keeps Isle out of ufw, firewalld and DOCKER-USER"
    )]
    NoFirewall,
}

impl Networking {
    /// What a container's resolv.conf is told beside the host's: its own wishes, or the daemon's.
    pub fn dns_of(&self, host: &HostConfig) -> ResolvOverrides {
        let or = |own: &[String], default: &[String]| if own.is_empty() { default } else { own }.to_vec();
        let own: Vec<IpAddr> = host.dns.iter().filter_map(|d| d.parse().ok()).collect();
        ResolvOverrides {
            nameservers: if own.is_empty() { self.dns.nameservers.clone() } else { own },
            search: or(&host.dns_search, &self.dns.search),
            options: or(&host.dns_options, &self.dns.options),
        }
    }

    /// Whether a daemon can start with these.
    ///
    /// # Errors
    /// The first thing that contradicts another.
    pub fn check(&self) -> Result<(), SettingsRefusal> {
        use SettingsRefusal as Refusal;
        if !self.firewall {
            return Err(Refusal::NoFirewall);
        }
        let bases = &self.pools.bases;
        for (n, (base, size)) in bases.iter().enumerate() {
            if base.addr() != base.network() {
                return Err(Refusal::PoolHostBits { base: *base });
            }
            if *size < base.prefix_len() || *size > base.max_prefix_len() {
                return Err(Refusal::PoolSize { base: *base, size: *size });
            }
            let other = bases[..n].iter().find(|(other, _)| other.contains(base) || base.contains(other));
            if let Some((other, _)) = other {
                return Err(Refusal::PoolsOverlap(*base, *other));
            }
        }
        self.default_bridge.check()
    }
}

impl DefaultBridge {
    fn check(&self) -> Result<(), SettingsRefusal> {
        use SettingsRefusal as Refusal;
        if !(68..=65535).contains(&self.mtu) {
            return Err(Refusal::Mtu(self.mtu));
        }
        let v4 = (self.address4.map(IpNet::V4), self.range4.map(IpNet::V4), self.gateway4.map(IpAddr::V4));
        let v6 = (self.address6.map(IpNet::V6), self.range6.map(IpNet::V6), self.gateway6.map(IpAddr::V6));
        for (address, range, gateway) in [v4, v6] {
            if let Some(address) = address
                && address.addr() == address.network()
            {
                return Err(Refusal::NoHostAddress(address));
            }
            let Some(subnet) = address.map(|a| a.trunc()).or(range) else { continue };
            if let Some(range) = range.filter(|r| !subnet.contains(r)) {
                return Err(Refusal::RangeOutside { range, subnet });
            }
            if let Some(gateway) = gateway.filter(|g| !subnet.contains(g)) {
                return Err(Refusal::GatewayOutside { gateway, subnet });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_02_pools_that_contradict_each_other_are_refused() {
        let check = |pools: &[(&str, u8)], expected: Option<&str>| {
            let bases = pools.iter().map(|(base, size)| (base.parse().unwrap(), *size)).collect();
            let settings = Networking { pools: Pools { bases }, ..Networking::default() };
            let refusal = settings.check().err().map(|e| e.to_string());
            assert_eq!(refusal.as_deref(), expected, "{pools:?}");
        };
        assert_eq!(Networking::default().check(), Ok(()));
        check(&[("10.0.0.0/8", 24), ("fd00::/48", 64)], None);
        check(
            &[("10.0.0.0/8", 4)],
            Some("invalid default address pool 10.0.0.0/8: its networks' size /4 is not between /8 and /32"),
        );
        check(
            &[("10.0.0.0/8", 24), ("10.1.0.0/16", 24)],
            Some("invalid default address pools: 10.1.0.0/16 overlaps 10.0.0.0/8"),
        );
        check(&[("10.0.0.1/8", 24)], Some("invalid default address pool 10.0.0.1/8: it should be 10.0.0.0/8"));
    }

    #[test]
    fn an_insecure_registry_is_named_or_in_a_subnet() {
        let insecure = ["registry.lan:5000", "plain.lan", "10.1.0.0/16", "fd01::/64"].map(str::to_owned).to_vec();
        let told = Registries { insecure, ..Registries::default() };
        let check = |registry: &str, expected: bool| assert_eq!(told.is_insecure(registry), expected, "{registry}");
        check("registry.lan:5000", true);
        check("registry.lan", false);
        check("plain.lan:80", true);
        check("10.1.2.3:5000", true);
        check("10.2.2.3:5000", false);
        check("[fd01::5]:5000", true);
    }

    #[test]
    fn what_a_client_says_goes_before_the_daemons_defaults() {
        let limit = |name: &str, soft| Ulimit { name: name.into(), soft, hard: 9 };
        let defaults = ContainerDefaults {
            log: LogConfig { driver: "json-file".into(), config: [("max-size".into(), "1m".into())].into() },
            ulimits: vec![limit("nofile", 5), limit("core", 0)],
            init: true,
            no_new_privileges: true,
            runtime: "runc".into(),
            ..ContainerDefaults::default()
        };
        let mut silent = HostConfig::default();
        defaults.complete(&mut silent);
        assert_eq!(
            (silent.log_config.driver.as_str(), silent.shm_size, silent.init),
            ("json-file", 64 << 20, Some(true))
        );
        assert_eq!(silent.log_config.config["max-size"], "1m");
        assert_eq!(silent.ulimits.unwrap().len(), 2);
        assert_eq!(silent.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!(silent.runtime, "runc");
        let mut says = HostConfig { init: Some(false), shm_size: 1, runtime: "isle".into(), ..HostConfig::default() };
        says.ulimits = Some(vec![limit("nofile", 7)]);
        says.security_opt = Some(vec!["no-new-privileges=false".into()]);
        says.log_config.driver = "local".into();
        defaults.complete(&mut says);
        assert_eq!((says.init, says.shm_size, says.log_config.config.len()), (Some(false), 1, 0));
        assert_eq!(says.runtime, "isle");
        assert_eq!(says.ulimits.unwrap(), [limit("nofile", 7), limit("core", 0)]);
        assert_eq!(says.security_opt.unwrap().len(), 1);
        let settings = Networking {
            dns: ResolvOverrides {
                nameservers: vec!["10.0.0.53".parse().unwrap()],
                search: vec!["lan".into()],
                ..Default::default()
            },
            ..Networking::default()
        };
        let own = HostConfig { dns: vec!["10.0.0.54".into()], ..HostConfig::default() };
        let dns = settings.dns_of(&own);
        assert_eq!((dns.nameservers, dns.search), (vec!["10.0.0.54".parse().unwrap()], vec!["lan".to_owned()]));
    }

    #[test]
    fn br_19_addresses_of_the_default_bridge_fit_together() {
        let check = |change: fn(&mut DefaultBridge), ok: bool| {
            let mut settings = Networking::default();
            change(&mut settings.default_bridge);
            assert_eq!(settings.check().is_ok(), ok, "{:?}", settings.default_bridge);
        };
        check(|b| b.address4 = Some("10.9.0.1/24".parse().unwrap()), true);
        check(|b| b.address4 = Some("10.9.0.0/24".parse().unwrap()), false);
        check(
            |b| {
                b.address4 = Some("10.9.0.1/24".parse().unwrap());
                b.range4 = Some("10.9.0.128/25".parse().unwrap());
                b.gateway4 = Some("10.9.0.254".parse().unwrap());
            },
            true,
        );
        check(
            |b| {
                b.address4 = Some("10.9.0.1/24".parse().unwrap());
                b.range4 = Some("10.9.1.0/24".parse().unwrap());
            },
            false,
        );
        check(
            |b| {
                b.address4 = Some("10.9.0.1/24".parse().unwrap());
                b.gateway4 = Some("10.8.0.1".parse().unwrap());
            },
            false,
        );
        check(|b| b.mtu = 60, false);
    }
}
