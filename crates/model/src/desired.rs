//! What the kernel shall look like, as far as networks go: one value.
//!
//! `engine` derives it from its state: each network contributes a [`Bridge`], each endpoint of a running container an
//! [`Attachment`] with its [`Publication`]s. The worker `network` makes it real: a start applies one container's
//! part, and only start-up, repair and upgrade look at the whole ([`Desired`]).

use crate::id::{ContainerId, EndpointId, NetworkId, SandboxId};
use crate::net::{InterfaceName, MacAddr, Protocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Everything, for reconciliation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The networks of driver `bridge`.
    pub bridges: BTreeMap<NetworkId, Bridge>,
    /// Of running containers.
    pub attachments: BTreeMap<EndpointId, Attachment>,
    /// Devices of the host that networks without a bridge stand on, where they are ours.
    pub parents: BTreeMap<NetworkId, Parent>,
    /// Of endpoints in `attachments`.
    pub publications: BTreeMap<EndpointId, BTreeSet<Publication>>,
}

/// A network of driver `bridge`, as a device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Which network it is.
    pub network: NetworkId,
    /// `br-<12 hex>`, `isle0`, or what `com.docker.network.bridge.name` says (BR-02).
    pub device: InterfaceName,
    /// Explicit, so that a joining port does not change it.
    pub mac: MacAddr,
    /// The bridge's own addresses with their prefix lengths: the gateways. At most one per family (IP-13).
    pub gateways: Vec<IpNet>,
    /// Whether every network may reach the host by its gateways: they are what `host-gateway` means (DNS-23).
    #[serde(default)]
    pub host_gateway: bool,
    /// The subnets that members have addresses from, whether or not the bridge has an address in them.
    pub subnets: Vec<IpNet>,
    /// Bytes.
    pub mtu: u32,
    /// Members reach each other (SEC-03).
    pub icc: bool,
    /// No way out and none in (SEC-02).
    pub internal: bool,
    /// What crosses the network's border by IPv4.
    pub border4: Border,
    /// The same by IPv6.
    pub border6: Border,
    /// Host interfaces from which published ports are reached by a container's own address (BR-18).
    pub trusted: Vec<InterfaceName>,
    /// Members' source addresses are checked in every packet (costs 3 to 7 %).
    pub check_sources: bool,
}

/// How flows of one family cross a network's border (BR-08, BR-09).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Border {
    /// Which address flows leave with.
    pub outwards: Outwards,
    /// What comes in.
    pub inwards: Inwards,
}

impl Border {
    /// Docker's `nat`: out by the host's address, in by published ports of the host.
    pub const NAT: Border = Border { outwards: Outwards::HostsAddress, inwards: Inwards::Nothing };
}

/// Which source address flows have that leave by another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outwards {
    /// The container's.
    Own,
    /// The one that the route says.
    HostsAddress,
    /// This one of the host's.
    Address(IpAddr),
}

/// What comes in from outside to a container's own address, beside answers and flows to published ports of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inwards {
    /// Nothing else.
    Nothing,
    /// ICMP, and published ports ([`Publication::direct`]).
    Published,
    /// All of it.
    Everything,
}

/// A device of the host that members of a network have interfaces on, and that is made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// For which it is made.
    pub network: NetworkId,
    /// Its name.
    pub device: InterfaceName,
    /// What it is made as.
    pub kind: ParentKind,
}

/// What a parent is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParentKind {
    /// A sub-interface: what it sends is tagged (IEEE 802.1Q).
    Vlan {
        /// The device that it is a part of.
        of: InterfaceName,
        /// The tag, 1 to 4094.
        id: u16,
    },
    /// It leads nowhere.
    Dummy,
}

/// How an interface shares its parent (linux/if_link.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// Each has a hardware address of its own.
    Macvlan(Macvlan),
    /// All have the parent's.
    Ipvlan(Ipvlan, Spread),
}

/// Whom interfaces of one parent reach, with hardware addresses of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Macvlan {
    /// Not each other.
    Private,
    /// Each other by a switch that sends frames back.
    Vepa,
    /// Each other, directly.
    Bridge,
    /// There is one, and the parent is its own.
    Passthru,
}

/// At which layer interfaces share the parent's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipvlan {
    /// They are hosts on the parent's network.
    L2,
    /// The parent routes to them.
    L3,
    /// The same, through the host's netfilter.
    L3s,
}

/// Whom ipvlan interfaces of one parent reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spread {
    /// Each other, directly.
    Bridge,
    /// Not each other.
    Private,
    /// Each other by a switch that sends frames back.
    Vepa,
}

/// An interface on a device of the host, instead of a bridge's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnParent {
    /// The device.
    pub parent: InterfaceName,
    /// How it is shared.
    pub sharing: Sharing,
}

/// An endpoint made real in a sandbox: a veth pair between the bridge and the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Which endpoint it is.
    pub endpoint: EndpointId,
    /// On which network.
    pub network: NetworkId,
    /// Whose.
    pub container: ContainerId,
    /// Where its inner end is.
    pub sandbox: SandboxId,
    /// Where it is no port of a bridge: then `bridge` is the parent, `outer` its name until it has `inner`, and
    /// `gateway_mac` nothing.
    #[serde(default)]
    pub on_parent: Option<OnParent>,
    /// The bridge that the host's end joins.
    pub bridge: InterfaceName,
    /// The host's end: `ve` and 13 hexadecimal digits of the endpoint's id.
    pub outer: InterfaceName,
    /// The sandbox's end: `eth0`.
    pub inner: InterfaceName,
    /// The inner end's hardware address.
    pub mac: MacAddr,
    /// At most one of each family, with the network's prefix.
    pub addresses: Vec<IpNet>,
    /// Addresses of the link alone that were asked for, beside the one that IPv6 brings (IP-10).
    #[serde(default)]
    pub link_local: Vec<IpNet>,
    /// The bridge's hardware address: its addresses are permanent neighbours in the sandbox.
    pub gateway_mac: MacAddr,
    /// Those that are such neighbours.
    pub gateways: Vec<IpAddr>,
    /// Through whom this endpoint is the sandbox's way out: at most one per family, the bridge or a router on it.
    pub default_routes: Vec<IpAddr>,
    /// Bytes, of both ends.
    pub mtu: u32,
    /// The network has `icc=false`: the port is isolated from other isolated ports.
    pub isolated: bool,
    /// The container has NET_ADMIN and may add addresses of its own: its port is not held to the assigned ones, unless
    /// it is isolated.
    pub trusted: bool,
    /// Whether every packet's source address is checked: where the network asks for it ([`Bridge::check_sources`]), and
    /// where the port is isolated, since who may take another's address could talk to him through a published port.
    pub check_sources: bool,
    /// Keys relative to `/proc/sys` inside the sandbox, dots as separators, `IFNAME` already replaced (BR-12).
    pub sysctls: BTreeMap<String, String>,
}

/// Host ports that lead to an endpoint: `count` consecutive ones from `host_port` to as many from `container_port`.
/// Where `host_port` is 0 there is none: the container's ports are open, on networks that are routed (BR-09).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// The address on the host: a specific one, or the unspecified one of its family for all.
    pub host: IpAddr,
    /// Of both ports.
    pub protocol: Protocol,
    /// The first one.
    pub host_port: u16,
    /// How many there are.
    pub count: u16,
    /// The container's address.
    pub container: IpAddr,
    /// The first one.
    pub container_port: u16,
    /// Who has a route to the container's own address, and may use it, finds the port there, too.
    #[serde(default)]
    pub direct: bool,
}

/// Who leads a published port's packets to the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// The firewall, by translation.
    Kernel,
    /// The proxy: [::1] has no route to other devices, and the firewall translates inside one family only.
    Proxy,
    /// The firewall, but for what comes to [::1].
    KernelButForLoopback,
}

impl Carriage {
    /// From an address of the host, or all of its family's, to one of a container.
    pub fn between(host: IpAddr, container: IpAddr) -> Self {
        match host {
            _ if host.is_ipv4() != container.is_ipv4() => Carriage::Proxy,
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Carriage::Proxy,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Carriage::KernelButForLoopback,
            _ => Carriage::Kernel,
        }
    }
}

impl Publication {
    /// Who carries it; `None` where no port of the host's leads to the container.
    pub fn carriage(&self) -> Option<Carriage> {
        (self.host_port != 0).then(|| Carriage::between(self.host, self.container))
    }

    /// Whether only the proxy can lead what comes from elsewhere to the container: they have no family in common.
    pub fn is_for_the_proxy(&self) -> bool {
        self.carriage() == Some(Carriage::Proxy) && !self.host.is_loopback()
    }
}
