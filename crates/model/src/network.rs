//! Networks as records, and the decision whether one may be created.

use crate::id::NetworkId;
use crate::ipam::{self, Pools};
use crate::net::InterfaceName;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A network: what was asked for, completed with what was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub name: String,
    pub created: Timestamp,
    pub driver: Driver,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Bytes: the uplink's when the network was made (BR-07).
    pub mtu: u32,
    /// `bridge`, `host` and `none`: there from the start, never removed (API-09, API-11).
    pub predefined: bool,
}

/// What makes a network real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Bridge,
    Host,
    Null,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Null => "null",
        })
    }
}

/// Where a network's addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    pub options: BTreeMap<String, String>,
    pub pools: Vec<Pool>,
}

/// One subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: IpNet,
    /// Dynamic addresses come from here only (IP-06).
    pub range: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The subnet was chosen by the client; a static address is allowed in such a one only (API-24).
    pub configured: bool,
    /// The gateway was chosen by the client too. One that was not is not shown beside a subnet that was, as in Docker:
    /// tools that compare what they asked for with what they are shown would make the network anew.
    #[serde(default)]
    pub gateway_configured: bool,
}

impl Pool {
    /// What clients are shown.
    pub fn shown_gateway(&self) -> Option<IpAddr> {
        self.gateway.filter(|_| self.gateway_configured || !self.configured)
    }
}

impl Network {
    /// Whether a client made it: names resolve and aliases count there.
    pub fn is_user_defined(&self) -> bool {
        !self.predefined
    }
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }
    fn flag(&self, key: &str, default: bool) -> bool {
        self.option(key).map_or(default, |v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
    /// Members reach each other (SEC-03).
    pub fn icc(&self) -> bool {
        self.flag(option::ICC, true)
    }
    pub fn masquerades(&self) -> bool {
        self.flag(option::MASQUERADE, true) && !self.internal
    }
    pub fn checks_sources(&self) -> bool {
        self.flag(option::CHECK_SOURCES, false)
    }
    /// What a client asked for, or the uplink's when it was made.
    pub fn mtu(&self) -> u32 {
        self.option(option::MTU).and_then(|m| m.parse().ok()).filter(|m| *m > 0).unwrap_or(self.mtu)
    }
    /// The bridge's name: given, or `br-<12 hex>` (BR-02).
    pub fn device(&self) -> InterfaceName {
        self.option(option::BRIDGE_NAME)
            .and_then(|name| name.parse().ok())
            .unwrap_or_else(|| format!("br-{}", self.id.short()).parse().expect("15 bytes"))
    }
    /// Where ports are published when a binding names no address (PT-03).
    pub fn host_binding(&self) -> Option<IpAddr> {
        self.option(option::HOST_BINDING)?.parse().ok()
    }
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.ipam.pools.iter().find(|p| p.subnet.contains(&address))
    }
}

/// Docker's keys for the options of a bridge network.
pub mod option {
    pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
    pub const MTU: &str = "com.docker.network.driver.mtu";
    pub const CONTAINER_IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
    /// Isle's own: check the source address of every packet a member sends.
    pub const CHECK_SOURCES: &str = "isle.network.check_sources";
}

/// What a client asks for in `POST /networks/create`, parsed.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: String,
    pub driver: String,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The uplink's, in bytes.
    pub mtu: u32,
}

/// One entry of `IPAM.Config`, as the texts the client sent: all that is wrong is told at once (API-10).
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    pub subnet: String,
    pub range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

/// Why a network is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("network with name {0} already exists")]
    NameTaken(String),
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    #[error("invalid network name: must not be empty")]
    NoName,
    #[error("invalid network name: {0} bytes are more than the {max} of a domain name", max = crate::container::MAX_NAME)]
    NameTooLong(usize),
    #[error("plugin \"{0}\" not found")]
    UnknownDriver(String),
    #[error("plugin \"{0}\" not found")]
    UnknownIpamDriver(String),
    #[error("only one instance of \"{0}\" network is allowed")]
    OneInstance(Driver),
    #[error("invalid network config:\n{}", .0.join("\n"))]
    Invalid(Vec<String>),
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    #[error("{0}")]
    BadOption(String),
    #[error("bridge device {device} is already used by network {holder}")]
    DeviceTaken { device: InterfaceName, holder: String },
    #[error(transparent)]
    Pool(#[from] ipam::PoolRefusal),
}

/// Decides whether `request` becomes a network beside `existing`, and completes it. `routes` are the host's own
/// subnets, which automatic choices avoid (IP-03).
///
/// # Errors
/// Every reason of [`Refusal`]; invalid address configuration is reported whole.
pub fn plan_create<'a>(
    request: Request,
    id: NetworkId,
    created: Timestamp,
    existing: impl Iterator<Item = &'a Network> + Clone,
    routes: &[IpNet],
    pools: &Pools,
) -> Result<Network, Refusal> {
    let name = request.name.trim_matches(char::from(0)).to_owned();
    if name.is_empty() {
        return Err(Refusal::NoName);
    }
    if name.len() > crate::container::MAX_NAME {
        return Err(Refusal::NameTooLong(name.len()));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") || name.starts_with("container:") {
        return Err(Refusal::Predefined(name));
    }
    if existing.clone().any(|n| n.name == name) {
        return Err(Refusal::NameTaken(name));
    }
    let driver = match request.driver.as_str() {
        "" | "bridge" => Driver::Bridge,
        "host" => return Err(Refusal::OneInstance(Driver::Host)),
        "null" => return Err(Refusal::OneInstance(Driver::Null)),
        other => return Err(Refusal::UnknownDriver(other.to_owned())),
    };
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(Refusal::UnknownIpamDriver(request.ipam_driver));
    }
    if !request.ipv4 && !request.ipv6 {
        return Err(Refusal::NoFamily);
    }
    check_options(&request.options)?;

    let mut asked = parse_pools(&request.pools)?;
    // A v6 subnet without `--ipv6` is ignored, and so is a v4 one without IPv4 (V6-01).
    asked.retain(|p| match p.subnet {
        Some(IpNet::V4(_)) => request.ipv4,
        Some(IpNet::V6(_)) => request.ipv6,
        None => true,
    });
    let pools = ipam::choose_pools(&asked, request.ipv4, request.ipv6, existing.clone(), routes, pools)?;

    let network = Network {
        id,
        name,
        created,
        driver,
        ipv4: request.ipv4,
        ipv6: request.ipv6,
        internal: request.internal,
        attachable: request.attachable,
        ipam: Ipam { options: request.ipam_options, pools },
        options: request.options,
        labels: request.labels,
        mtu: request.mtu,
        predefined: false,
    };
    let device = network.device();
    if let Some(holder) = existing.clone().find(|n| n.driver == Driver::Bridge && n.device() == device) {
        return Err(Refusal::DeviceTaken { device, holder: holder.name.clone() });
    }
    Ok(network)
}

fn check_options(options: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for (key, value) in options {
        let bad = |why: String| Err(Refusal::BadOption(why));
        match key.as_str() {
            option::BRIDGE_NAME if !value.is_empty() => {
                if let Err(e) = value.parse::<InterfaceName>() {
                    return bad(e.to_string());
                }
            }
            option::MTU => match value.parse::<u32>() {
                Ok(mtu) if mtu == 0 || (68..=65535).contains(&mtu) => {}
                _ => return bad(format!("invalid value {value:?} for {key}: a number of bytes from 68 to 65535 is")),
            },
            option::ICC | option::MASQUERADE | option::CHECK_SOURCES => {
                let known = ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"]
                    .contains(&value.as_str());
                if !known {
                    return bad(format!("invalid value {value:?} for {key}: true or false is"));
                }
            }
            option::HOST_BINDING if value.parse::<std::net::Ipv4Addr>().is_err() => {
                return bad(format!("invalid value {value:?} for {key}: an IPv4 address is"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A [`PoolRequest`] whose texts were addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedPool {
    pub subnet: Option<IpNet>,
    pub range: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// All that is wrong with the address configuration is reported at once, in Docker's words (API-10).
fn parse_pools(requests: &[PoolRequest]) -> Result<Vec<AskedPool>, Refusal> {
    let mut wrong = Vec::new();
    let mut pools = Vec::new();
    for request in requests {
        let mut pool = AskedPool::default();
        if !request.subnet.is_empty() {
            match request.subnet.parse::<IpNet>() {
                Err(_) => wrong.push(format!("invalid subnet {}: invalid CIDR block notation", request.subnet)),
                Ok(net) if net.addr() != net.network() => {
                    wrong.push(format!("invalid subnet {net}: it should be {}", net.trunc()));
                }
                Ok(net) => pool.subnet = Some(net),
            }
        }
        let inside = |a: IpAddr| pool.subnet.is_none_or(|s| s.contains(&a));
        if !request.range.is_empty() {
            match request.range.parse::<IpNet>() {
                Err(_) => wrong.push(format!("invalid ip-range {}: invalid CIDR block notation", request.range)),
                Ok(range) => {
                    if range.addr() != range.network() {
                        wrong.push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
                    } else if pool.subnet.is_some_and(|s| !s.contains(&range)) {
                        let subnet = &request.subnet;
                        wrong.push(format!("invalid ip-range {range}: it is not within subnet {subnet}"));
                    }
                    pool.range = Some(range);
                }
            }
        }
        let mut address = |what: &str, text: &str| match text.parse::<IpAddr>() {
            Err(_) => {
                wrong.push(format!("invalid {what} {text}: invalid address"));
                None
            }
            Ok(a) if !inside(a) => {
                wrong.push(format!(
                    "invalid {what} {a}: parent subnet is an {} block",
                    family_name(pool.subnet, a, &request.subnet)
                ));
                None
            }
            Ok(a) => Some(a),
        };
        if !request.gateway.is_empty() {
            pool.gateway = address("gateway", &request.gateway);
        }
        for (name, text) in &request.auxiliary {
            if let Some(a) = address("auxiliary address", text) {
                pool.auxiliary.insert(name.clone(), a);
            }
        }
        pools.push(pool);
    }
    if wrong.is_empty() { Ok(pools) } else { Err(Refusal::Invalid(wrong)) }
}

fn family_name(subnet: Option<IpNet>, address: IpAddr, text: &str) -> String {
    match subnet {
        Some(IpNet::V4(_)) if address.is_ipv6() => "IPv4".into(),
        Some(IpNet::V6(_)) if address.is_ipv4() => "IPv6".into(),
        _ => format!("{text}, which does not contain it: {text}"),
    }
}
