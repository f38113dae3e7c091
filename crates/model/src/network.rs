//! Networks as records, and the decision whether one may be created.

mod default;
mod devices;
mod options;
mod uplink;

pub use default::{Change, Found, Surroundings, plan_default, predefined};
pub use options::{GatewayMode, option};
pub use uplink::Uplink;

use crate::id::NetworkId;
use crate::ipam::{self, Need, Pools};
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
    /// Drawn at random when it was created; what it is called may change.
    pub id: NetworkId,
    /// Unique among the networks.
    pub name: String,
    /// When that was.
    pub created: Timestamp,
    /// What makes it real.
    pub driver: Driver,
    /// Members have addresses of IPv4.
    pub ipv4: bool,
    /// Members have addresses of IPv6.
    pub ipv6: bool,
    /// No way out and none in (SEC-02).
    pub internal: bool,
    /// As the client said: it means something in a swarm only.
    pub attachable: bool,
    /// Where its addresses come from.
    pub ipam: Ipam,
    /// As the client gave them: [`option`].
    pub options: BTreeMap<String, String>,
    /// The client's own.
    pub labels: BTreeMap<String, String>,
    /// Bytes: the uplink's when the network was made (BR-07).
    pub mtu: u32,
    /// `bridge`, `host` and `none`: there from the start, never removed (API-09, API-11).
    pub predefined: bool,
    /// A template for others: it has no device, and nobody joins it (API-32).
    #[serde(default)]
    pub config_only: bool,
    /// The template that it was made from, by name.
    #[serde(default)]
    pub config_from: String,
}

impl Network {
    /// A network for which nothing was asked: of IPv4, without pools or options, and with Ethernet's MTU.
    pub fn new(id: NetworkId, name: impl Into<String>, driver: Driver, created: Timestamp) -> Network {
        Network {
            id,
            name: name.into(),
            created,
            driver,
            ipv4: true,
            ipv6: false,
            internal: false,
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
}

/// What makes a network real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host, and members' interfaces on it.
    Bridge,
    /// A device of the host that members share, each with a hardware address of its own.
    Macvlan,
    /// The same, all with the device's.
    Ipvlan,
    /// The host's own namespace.
    Host,
    /// Nothing: a loopback alone.
    Null,
}

impl Driver {
    /// Whether members have interfaces and addresses of their own.
    pub fn has_addresses(self) -> bool {
        matches!(self, Driver::Bridge | Driver::Macvlan | Driver::Ipvlan)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
            Driver::Host => "host",
            Driver::Null => "null",
        })
    }
}

/// Where a network's addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// Who gives members their addresses.
    #[serde(default)]
    pub driver: IpamDriver,
    /// None where the one who made the network said nothing of them.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// At most one of each family (IP-13).
    pub pools: Vec<Pool>,
}

/// Who gives members their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpamDriver {
    /// We do, from the pools.
    #[default]
    Default,
    /// Nobody: they bring their own, or have none (IP-11).
    Null,
}

impl fmt::Display for IpamDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IpamDriver::Default => "default",
            IpamDriver::Null => "null",
        })
    }
}

/// One subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of its addresses.
    pub subnet: IpNet,
    /// Dynamic addresses come from here only (IP-06).
    pub range: Option<IpNet>,
    /// The network's own one, if it has one.
    pub gateway: Option<IpAddr>,
    /// Addresses that are kept from members, by the names they were given.
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
    /// The pool whose subnet an address lies in.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.ipam.pools.iter().find(|p| p.subnet.contains(&address))
    }
}

/// What a client asks for in `POST /networks/create`, parsed.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "what is not explained is what Docker's API calls so")]
pub struct Request {
    pub name: String,
    pub driver: String,
    /// Where a client says nothing, an option may ([`option::ENABLE_IPV4`]); IPv4 is had otherwise, and IPv6 not.
    pub ipv4: Option<bool>,
    pub ipv6: Option<bool>,
    pub internal: bool,
    pub attachable: bool,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The uplink's, in bytes.
    pub mtu: u32,
    pub config_only: bool,
    /// The name of a template.
    pub config_from: String,
}

/// One entry of `IPAM.Config`, as the texts the client sent: all that is wrong is told at once (API-10).
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    /// CIDR, or a size alone (IP-05); empty for any.
    pub subnet: String,
    /// Where dynamic addresses come from, as CIDR; empty for all of it.
    pub range: String,
    /// Empty for the first address.
    pub gateway: String,
    /// Names and addresses that are kept from members.
    pub auxiliary: BTreeMap<String, String>,
}

/// Why a network is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Refusal {
    #[error("network with name {0} already exists")]
    NameTaken(String),
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    #[error("invalid network name: must not be empty")]
    NoName,
    #[error("invalid network name {0:?}: it must have no '/' and no control characters")]
    BadName(String),
    #[error("invalid network name: {0} bytes are more than the {max} of a domain name", max = crate::container::MAX_NAME)]
    NameTooLong(usize),
    #[error("plugin \"{0}\" not found")]
    UnknownDriver(String),
    #[error(
        "a network of driver overlay spans the nodes of a swarm, and this node is not part of one: on one host, driver \
         bridge connects containers"
    )]
    Overlay,
    #[error("plugin \"{0}\" not found")]
    UnknownIpamDriver(String),
    #[error("only one instance of \"{0}\" network is allowed")]
    OneInstance(Driver),
    #[error("invalid network config:\n{}", crate::errno::all(.0))]
    Invalid(Vec<String>),
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    #[error("{0}")]
    BadOption(String),
    #[error("bridge device {device} is already used by network {holder}")]
    DeviceTaken { device: InterfaceName, holder: String },
    #[error("{0}")]
    ParentTaken(String),
    #[error("bridge driver doesn't support multiple subnets of a family: {0} and {1} are")]
    TwoSubnets(IpNet, IpNet),
    #[error("invalid network config: the null IPAM driver gives no addresses, so there can be no subnet")]
    NullWithSubnet,
    #[error("configuration network {0:?} not found")]
    NoTemplate(String),
    #[error("{0:?} is not a configuration network: one that is was made with --config-only")]
    NotATemplate(String),
    #[error("a configuration network cannot depend on another configuration network")]
    TemplateOfTemplate,
    #[error(
        "configuration network can only contain network specific fields. Network operator fields like \
         [ ingress | internal | attachable | scope ] are not supported."
    )]
    TemplateOperates,
    #[error("user specified configurations are not supported if the network depends on a configuration network")]
    TemplateAndOwn,
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
    // It is a part of paths, and of names that are printed.
    if matches!(name.as_str(), "." | "..") || name.chars().any(|c| c == '/' || c.is_control()) {
        return Err(Refusal::BadName(name));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") || name.starts_with("container:") {
        return Err(Refusal::Predefined(name));
    }
    if existing.clone().any(|n| n.name == name) {
        return Err(Refusal::NameTaken(name));
    }
    let request = apply_template(request, existing.clone())?;
    let driver = match request.driver.as_str() {
        _ if request.config_only => Driver::Null,
        "" | "bridge" => Driver::Bridge,
        "macvlan" => Driver::Macvlan,
        "ipvlan" => Driver::Ipvlan,
        "host" => return Err(Refusal::OneInstance(Driver::Host)),
        "null" => return Err(Refusal::OneInstance(Driver::Null)),
        "overlay" => return Err(Refusal::Overlay),
        other => return Err(Refusal::UnknownDriver(other.to_owned())),
    };
    let ipam_driver = match request.ipam_driver.as_str() {
        "" | "default" => IpamDriver::Default,
        "null" => IpamDriver::Null,
        _ => return Err(Refusal::UnknownIpamDriver(request.ipam_driver)),
    };
    let ipv4 = options::family(request.ipv4, option::ENABLE_IPV4, &request.options)?.unwrap_or(true);
    let ipv6 = options::family(request.ipv6, option::ENABLE_IPV6, &request.options)?.unwrap_or(false);
    if !ipv4 && !ipv6 {
        return Err(Refusal::NoFamily);
    }
    let uplink = Uplink::parse(driver, id, &request.options)?;
    if let Some(uplink) = uplink.as_ref().filter(|_| !request.config_only) {
        uplink.check_shared(existing.clone())?;
    }
    if uplink.is_none() {
        options::check(&request.options, ipv6, request.internal || request.config_only)?;
    }

    // A v6 subnet without `--ipv6` is ignored, and so is a v4 one without IPv4 (V6-01).
    let asked = parse_pools(&request.pools, |subnet| if subnet.addr().is_ipv6() { ipv6 } else { ipv4 })?;
    let subnets = || asked.iter().filter_map(|p| p.subnet);
    for (n, subnet) in subnets().enumerate() {
        if let Some(other) = subnets().take(n).find(|o| o.addr().is_ipv6() == subnet.addr().is_ipv6()) {
            return Err(Refusal::TwoSubnets(other, subnet));
        }
    }
    let needs: Vec<Need> = [(false, ipv4), (true, ipv6)]
        .into_iter()
        .filter(|(_, enabled)| *enabled)
        .map(|(ipv6, _)| Need { ipv6, gateway: options::needs_gateway(&request.options, ipv6) })
        .collect();
    let pools = match ipam_driver {
        _ if request.config_only => asked.iter().filter_map(as_asked).collect(),
        IpamDriver::Null if !asked.is_empty() => return Err(Refusal::NullWithSubnet),
        IpamDriver::Null => Vec::new(),
        IpamDriver::Default => {
            let others = existing.clone().filter(|n| !n.config_only);
            ipam::choose_pools(&asked, &needs, others, routes, pools)?
        }
    };

    let network = Network {
        id,
        name,
        created,
        driver,
        ipv4,
        ipv6,
        internal: request.internal || uplink.is_some_and(|u| u.is_internal()),
        attachable: request.attachable,
        ipam: Ipam { driver: ipam_driver, options: request.ipam_options, pools },
        options: request.options,
        labels: request.labels,
        mtu: request.mtu,
        predefined: false,
        config_only: request.config_only,
        config_from: request.config_from,
    };
    let device = network.device();
    let mut bridges = existing.filter(|n| n.driver == Driver::Bridge);
    if driver == Driver::Bridge
        && let Some(holder) = bridges.find(|n| n.device() == device)
    {
        return Err(Refusal::DeviceTaken { device, holder: holder.name.clone() });
    }
    Ok(network)
}

/// What a template says, as if the client had said it (API-32).
fn apply_template<'a>(
    mut request: Request,
    mut existing: impl Iterator<Item = &'a Network>,
) -> Result<Request, Refusal> {
    if request.config_only && (request.internal || request.attachable) {
        return Err(Refusal::TemplateOperates);
    }
    if request.config_from.is_empty() {
        return Ok(request);
    }
    if request.config_only {
        return Err(Refusal::TemplateOfTemplate);
    }
    let own = !matches!(request.ipam_driver.as_str(), "" | "default")
        || request.ipv6 == Some(true)
        || !request.labels.is_empty()
        || request.ipam_options.as_ref().is_some_and(|options| !options.is_empty())
        || !request.pools.is_empty()
        || !request.options.is_empty();
    if own {
        return Err(Refusal::TemplateAndOwn);
    }
    let from = request.config_from.clone();
    let template = existing.find(|n| n.name == from || n.id.to_string() == from);
    let template = template.ok_or_else(|| Refusal::NoTemplate(from.clone()))?;
    if !template.config_only {
        return Err(Refusal::NotATemplate(from));
    }
    request.config_from.clone_from(&template.name);
    (request.ipv4, request.ipv6) = (Some(template.ipv4), Some(template.ipv6));
    request.ipam_driver = template.ipam.driver.to_string();
    request.ipam_options.clone_from(&template.ipam.options);
    request.options.clone_from(&template.options);
    request.labels.clone_from(&template.labels);
    let text = |a: Option<IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
    let pools = template.ipam.pools.iter().map(|p| PoolRequest {
        subnet: p.subnet.to_string(),
        range: p.range.map(|r| r.to_string()).unwrap_or_default(),
        gateway: text(p.gateway),
        auxiliary: p.auxiliary.iter().map(|(name, a)| (name.clone(), a.to_string())).collect(),
    });
    request.pools = pools.collect();
    Ok(request)
}

/// A template's subnet: nothing is chosen for it.
fn as_asked(asked: &AskedPool) -> Option<Pool> {
    Some(Pool {
        subnet: asked.subnet?,
        range: asked.range,
        gateway: asked.gateway,
        auxiliary: asked.auxiliary.clone(),
        configured: true,
        gateway_configured: asked.gateway.is_some(),
    })
}

/// A [`PoolRequest`] whose texts were addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedPool {
    /// `None` for any.
    pub subnet: Option<IpNet>,
    /// `None` for all of it.
    pub range: Option<IpNet>,
    /// `None` for the first address.
    pub gateway: Option<IpAddr>,
    /// Addresses that are kept from members, by their names.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// All that is wrong with the address configuration is reported at once, in Docker's words (API-10). Subnets of a family
/// that the network has not are left out, whatever else is said of them.
fn parse_pools(requests: &[PoolRequest], has: impl Fn(IpNet) -> bool) -> Result<Vec<AskedPool>, Refusal> {
    let mut wrong = Vec::new();
    let mut pools = Vec::new();
    for request in requests {
        let subnet = match request.subnet.as_str() {
            "" => None,
            text => match text.parse::<IpNet>() {
                Ok(net) if !has(net) => continue,
                Ok(net) => Some(net),
                Err(_) => {
                    wrong.push(format!("invalid subnet {text}: invalid CIDR block notation"));
                    continue;
                }
            },
        };
        let mut pool = AskedPool { subnet, ..AskedPool::default() };
        if let Some(net) = subnet.filter(|net| net.addr() != net.network()) {
            wrong.push(format!("invalid subnet {net}: it should be {}", net.trunc()));
        }
        if !request.range.is_empty() {
            match parse_range(&request.range, subnet) {
                Ok(range) => pool.range = Some(range),
                Err(list) => wrong.extend(list),
            }
        }
        let mut address = |what: String, text: &str| match parse_address(text, subnet) {
            Ok(address) => Some(address),
            Err(why) => {
                wrong.push(format!("invalid {what}: {why}"));
                None
            }
        };
        if !request.gateway.is_empty() {
            pool.gateway = address(format!("gateway {}", request.gateway), &request.gateway);
        }
        for (name, text) in &request.auxiliary {
            let found = address(format!("auxiliary address {name}"), text);
            pool.auxiliary.extend(found.map(|a| (name.clone(), a)));
        }
        pools.push(pool);
    }
    if !wrong.is_empty() {
        return Err(Refusal::Invalid(wrong));
    }
    // What is an address, and none that can be had. One alone has words of its own.
    let mut unusable: Vec<ipam::PoolRefusal> = pools.iter().filter_map(|p| ipam::check(p).err()).collect();
    match unusable.len() {
        0 => Ok(pools),
        1 => Err(unusable.remove(0).into()),
        _ => Err(Refusal::Invalid(unusable.iter().map(ToString::to_string).collect())),
    }
}

/// A range of a subnet's addresses.
fn parse_range(text: &str, subnet: Option<IpNet>) -> Result<IpNet, Vec<String>> {
    let told = |why: String| format!("invalid ip-range {text}: {why}");
    let range = text.parse::<IpNet>().map_err(|_| vec![told("invalid CIDR block notation".into())])?;
    let mut wrong = Vec::new();
    if let Some(subnet) = subnet {
        if subnet.addr().is_ipv6() != range.addr().is_ipv6() {
            return Err(vec![told(other_family(subnet))]);
        }
        if range.prefix_len() < subnet.prefix_len() {
            wrong.push(told(format!("CIDR block is bigger than its parent subnet {subnet}")));
        }
    }
    if range.addr() != range.network() {
        wrong.push(told(format!("it should be {}", range.trunc())));
    }
    if let Some(subnet) = subnet.filter(|s| !s.contains(&range.network()) && !range.contains(&s.network())) {
        wrong.push(told(format!("parent subnet {subnet} doesn't contain ip-range")));
    }
    if wrong.is_empty() { Ok(range) } else { Err(wrong) }
}

/// An address in a subnet, or why it is none.
fn parse_address(text: &str, subnet: Option<IpNet>) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    match subnet {
        Some(subnet) if subnet.addr().is_ipv6() != address.is_ipv6() => Err(other_family(subnet)),
        Some(subnet) if !subnet.contains(&address) => {
            Err(format!("parent subnet {subnet} doesn't contain this address"))
        }
        _ => Ok(address),
    }
}

fn other_family(subnet: IpNet) -> String {
    format!("parent subnet is an {} block", if subnet.addr().is_ipv6() { "IPv6" } else { "IPv4" })
}
