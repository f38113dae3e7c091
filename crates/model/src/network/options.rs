//! What a bridge network's options say: read here, once, and refused here where they say nothing.

use super::{Network, Refusal};
use crate::go::parse_bool;
use crate::net::InterfaceName;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Docker's keys for the options of a bridge network.
pub mod option {
    /// The device's name (BR-02).
    pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
    /// Whether members reach each other (SEC-03).
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    /// Whether what leaves takes an address of the host's (BR-08).
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    /// The host's address for ports that are published without one.
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    /// It is the default network.
    pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
    /// How members and the world reach each other (BR-09).
    pub const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    /// The same by IPv6.
    pub const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
    /// The bridge gets no address of IPv4.
    pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
    /// From where published ports are reached directly (BR-18).
    pub const TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
    /// Which of the host's addresses what leaves takes (BR-08).
    pub const OUTBOUND_4: &str = "com.docker.network.host_ipv4";
    /// The same by IPv6.
    pub const OUTBOUND_6: &str = "com.docker.network.host_ipv6";
    /// Bytes (BR-07).
    pub const MTU: &str = "com.docker.network.driver.mtu";
    /// Whether a network has a family, where the client does not say it otherwise.
    pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
    /// The same of IPv6.
    pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
    /// What members' interfaces are called, before their number (BR-04).
    pub const CONTAINER_IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
    /// Isle's own: check the source address of every packet a member sends.
    pub const CHECK_SOURCES: &str = "isle.network.check_sources";
}

/// Names of auxiliary addresses that mean something: the members' way out, where that is not the bridge (BR-11).
const WAY_OUT: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// How members of a network and the world beyond their bridge reach each other; each family has its own (BR-09).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Out by the host's address, in by published ports of the host.
    #[default]
    Nat,
    /// The same, and every port of a container is open to who has a route to it.
    NatUnprotected,
    /// No translation: in and out by the container's own address; published ports are open, no host port is taken.
    Routed,
    /// The host has no address on the network; internal networks only.
    Isolated,
}

impl Network {
    /// What an option says.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }
    fn flag(&self, key: &str, default: bool) -> bool {
        self.option(key).map_or(default, |v| parse_bool(v) == Some(true))
    }
    /// Members reach each other (SEC-03).
    pub fn icc(&self) -> bool {
        self.flag(option::ICC, true)
    }
    /// Flows of a family that leave the network take an address of the host's (BR-08).
    pub fn masquerades(&self, ipv6: bool) -> bool {
        let translates = matches!(self.gateway_mode(ipv6), GatewayMode::Nat | GatewayMode::NatUnprotected);
        self.flag(option::MASQUERADE, true) && !self.internal && translates
    }
    /// Which address of the host's they take, where it is not the one that the route says (BR-08).
    pub fn outbound(&self, ipv6: bool) -> Option<IpAddr> {
        let key = if ipv6 { option::OUTBOUND_6 } else { option::OUTBOUND_4 };
        self.option(key)?.parse().ok().filter(|_| self.masquerades(ipv6))
    }
    /// Members' source addresses are checked in every packet ([`option::CHECK_SOURCES`]).
    pub fn checks_sources(&self) -> bool {
        self.flag(option::CHECK_SOURCES, false)
    }
    /// How members and the world reach each other in a family (BR-09).
    pub fn gateway_mode(&self, ipv6: bool) -> GatewayMode {
        gateway_mode(&self.options, ipv6).unwrap_or_default()
    }
    /// Host interfaces from which published ports may be reached by a container's own address (BR-18).
    pub fn trusted_interfaces(&self) -> impl Iterator<Item = InterfaceName> {
        let list = self.option(option::TRUSTED_INTERFACES).unwrap_or_default();
        list.split(':').filter_map(|name| name.parse().ok())
    }
    /// What a client asked for, or the uplink's when it was made (BR-07).
    pub fn mtu(&self) -> u32 {
        self.option(option::MTU).and_then(|m| m.parse().ok()).filter(|m| *m > 0).unwrap_or(self.mtu)
    }
    /// The bridge's name: given, or `br-<12 hex>` (BR-02).
    pub fn device(&self) -> InterfaceName {
        self.option(option::BRIDGE_NAME)
            .and_then(|name| name.parse().ok())
            .unwrap_or_else(|| format!("br-{}", self.id.short()).parse().expect("15 bytes"))
    }
    /// What its interfaces are called inside containers, before their number.
    pub fn interface_prefix(&self) -> &str {
        self.option(option::CONTAINER_IFACE_PREFIX).filter(|p| is_interface_prefix(p)).unwrap_or("eth")
    }
    /// Where ports are published when a binding names no address (PT-03).
    pub fn host_binding(&self) -> Option<IpAddr> {
        self.option(option::HOST_BINDING)?.parse().ok()
    }
    /// The addresses that the host has on the network (BR-09, BR-11).
    pub fn bridge_addresses(&self) -> impl Iterator<Item = IpNet> {
        let has_none =
            |ipv6| self.gateway_mode(ipv6) == GatewayMode::Isolated || !ipv6 && self.flag(option::INHIBIT_IPV4, false);
        let pools = self.ipam.pools.iter().filter(move |p| !has_none(p.subnet.addr().is_ipv6()));
        pools.filter_map(|p| IpNet::new(p.gateway?, p.subnet.prefix_len()).ok())
    }
    /// Where members send what is for others: the bridge, or whom an auxiliary address names (BR-11).
    pub fn way_out(&self, ipv6: bool) -> Option<IpAddr> {
        if let Ok(Some(uplink)) = super::Uplink::parse(self.driver, self.id, &self.options) {
            if self.internal {
                return None;
            }
            if uplink.has_device_route() {
                let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
                let has = self.ipam.pools.iter().any(|p| p.subnet.addr().is_ipv6() == ipv6);
                return has.then_some(unspecified[usize::from(ipv6)]);
            }
        }
        let pool = self.ipam.pools.iter().find(|p| p.subnet.addr().is_ipv6() == ipv6)?;
        let named = pool.auxiliary.get(WAY_OUT[usize::from(ipv6)]).copied();
        named.or_else(|| pool.gateway.filter(|_| self.gateway_mode(ipv6) != GatewayMode::Isolated))
    }
}

/// What every link has to carry (RFC 8200, 5).
const IPV6_MTU: u32 = 1280;

/// Whether a network shall have a family: what the client `asked`, or what its option says.
pub(super) fn family(
    asked: Option<bool>,
    key: &str,
    options: &BTreeMap<String, String>,
) -> Result<Option<bool>, Refusal> {
    match (asked, options.get(key)) {
        (Some(asked), _) => Ok(Some(asked)),
        (None, None) => Ok(None),
        (None, Some(text)) => match parse_bool(text) {
            None => Err(Refusal::BadOption(format!("driver-opt {key:?} is not a valid bool"))),
            family => Ok(family),
        },
    }
}

/// Whether names can be made of it: with a number of up to three digits behind it.
fn is_interface_prefix(text: &str) -> bool {
    !text.is_empty() && format!("{text}000").parse::<InterfaceName>().is_ok()
}

/// None if it is none of the four.
fn gateway_mode(options: &BTreeMap<String, String>, ipv6: bool) -> Option<GatewayMode> {
    let key = if ipv6 { option::GATEWAY_MODE_6 } else { option::GATEWAY_MODE_4 };
    match options.get(key).map_or("", String::as_str) {
        "" | "nat" => Some(GatewayMode::Nat),
        "nat-unprotected" => Some(GatewayMode::NatUnprotected),
        "routed" => Some(GatewayMode::Routed),
        "isolated" => Some(GatewayMode::Isolated),
        _ => None,
    }
}

/// Whether the bridge of a network with these options needs an address of this family.
pub(super) fn needs_gateway(options: &BTreeMap<String, String>, ipv6: bool) -> bool {
    gateway_mode(options, ipv6) != Some(GatewayMode::Isolated)
}

/// Options that a bridge network cannot have, or that say nothing.
pub(super) fn check(options: &BTreeMap<String, String>, ipv6: bool, internal: bool) -> Result<(), Refusal> {
    for (key, value) in options {
        let bad = |why: &str| Err(Refusal::BadOption(format!("invalid value {value:?} for {key}: {why}")));
        match key.as_str() {
            // Names of other things beside devices in /proc/sys/net/ipv4/conf, and of one that every host has.
            option::BRIDGE_NAME if matches!(value.as_str(), "all" | "default" | "lo") => {
                return bad("it must be a name that the kernel has no other use for");
            }
            option::BRIDGE_NAME if !value.is_empty() => {
                if let Err(e) = value.parse::<InterfaceName>() {
                    return Err(Refusal::BadOption(e.to_string()));
                }
            }
            option::CONTAINER_IFACE_PREFIX if !value.is_empty() && !is_interface_prefix(value) => {
                return bad("it must be 1 to 12 bytes without '/', ':', '%' or white space");
            }
            option::MTU => match value.parse::<u32>() {
                Ok(mtu) if ipv6 && (1..IPV6_MTU).contains(&mtu) => {
                    return bad("a network with IPv6 needs at least 1280 bytes");
                }
                Ok(mtu) if mtu == 0 || (68..=65535).contains(&mtu) => {}
                _ => return bad("it must be a number of bytes from 68 to 65535"),
            },
            option::ICC | option::MASQUERADE | option::CHECK_SOURCES | option::INHIBIT_IPV4
                if parse_bool(value).is_none() =>
            {
                return bad("it must be true or false");
            }
            option::HOST_BINDING | option::OUTBOUND_4 if value.parse::<Ipv4Addr>().is_err() => {
                return bad("it must be an IPv4 address");
            }
            option::OUTBOUND_6 if value.parse::<Ipv6Addr>().is_err() => return bad("it must be an IPv6 address"),
            option::GATEWAY_MODE_4 | option::GATEWAY_MODE_6 => {
                match gateway_mode(options, key == option::GATEWAY_MODE_6) {
                    None => return Err(Refusal::BadOption(format!("unknown gateway mode {value}"))),
                    Some(GatewayMode::Isolated) if !internal => {
                        let only = "gateway mode 'isolated' can only be used for an internal network";
                        return Err(Refusal::BadOption(only.to_owned()));
                    }
                    Some(_) => {}
                }
            }
            option::TRUSTED_INTERFACES => {
                if let Some(Err(e)) = value.split(':').map(str::parse::<InterfaceName>).find(Result::is_err) {
                    return Err(Refusal::BadOption(e.to_string()));
                }
            }
            "vlan" | "vrf" => {
                let why = format!(
                    "a bridge network has no option {key}: make the bridge yourself and name it by {}",
                    option::BRIDGE_NAME
                );
                return Err(Refusal::BadOption(why));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str, internal: bool) -> Option<String> {
        check(&[(key.to_owned(), value.to_owned())].into(), false, internal).err().map(|e| e.to_string())
    }

    #[test]
    fn br_09_gateway_modes_are_known_and_isolated_ones_internal() {
        for mode in ["nat", "nat-unprotected", "routed"] {
            assert_eq!(refused(option::GATEWAY_MODE_4, mode, false), None, "{mode}");
        }
        assert_eq!(refused(option::GATEWAY_MODE_6, "isolated", true), None);
        let only = "gateway mode 'isolated' can only be used for an internal network";
        assert_eq!(refused(option::GATEWAY_MODE_6, "isolated", false).as_deref(), Some(only));
        assert_eq!(refused(option::GATEWAY_MODE_4, "bent", false).as_deref(), Some("unknown gateway mode bent"));
    }

    #[test]
    fn br_20_a_bridge_network_has_no_vlan_and_no_vrf_of_its_own() {
        for key in ["vlan", "vrf"] {
            assert!(refused(key, "7", false).unwrap().contains("make the bridge yourself"));
        }
    }

    #[test]
    fn br_08_options_that_say_nothing_are_refused() {
        for (key, value) in [
            (option::OUTBOUND_4, "fd00::1"),
            (option::OUTBOUND_6, "10.0.0.1"),
            (option::HOST_BINDING, "here"),
            (option::MTU, "12"),
            (option::ICC, "maybe"),
            (option::INHIBIT_IPV4, "yes"),
            (option::BRIDGE_NAME, "a/b"),
            (option::BRIDGE_NAME, "a%d"),
            (option::BRIDGE_NAME, "all"),
            (option::BRIDGE_NAME, "lo"),
            (option::CONTAINER_IFACE_PREFIX, "../x"),
            (option::CONTAINER_IFACE_PREFIX, "a b"),
            (option::CONTAINER_IFACE_PREFIX, "abcdefghijklm"),
            (option::TRUSTED_INTERFACES, "eth0:"),
        ] {
            assert!(refused(key, value, false).is_some(), "{key}={value}");
        }
        let narrow = [(option::MTU.to_owned(), "1000".to_owned())].into();
        assert_eq!((check(&narrow, false, false).is_ok(), check(&narrow, true, false).is_ok()), (true, false));
    }
}
