//! Endpoints: what a client says of one, parsed ([`Wishes`]), and how it is attached to its network.

mod attach;

pub use attach::{Fresh, InterfaceTaken, Place, attachment, interface_name};

use crate::container::{EndpointSettings, HostConfig};
use crate::net::{InterfaceName, MacAddr};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The exact name of the interface in the container (BR-04).
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
/// Settings of the interface: `net.ipv4.conf.IFNAME.log_martians=1,…` (BR-12).
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// [`EndpointSettings`], as far as the kernel is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Addresses of the link alone, beside those (IP-10).
    pub link_local: Vec<IpNet>,
    /// The hardware address.
    pub mac: Option<MacAddr>,
    /// The interface's name in the container.
    pub interface: Option<InterfaceName>,
    /// Keys of `/proc/sys` with dots, the interface called `IFNAME`; in the order they were given.
    sysctls: Vec<(String, String)>,
}

impl Wishes {
    /// # Errors
    /// All that says nothing, at once (API-23).
    pub fn parse(settings: &EndpointSettings) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let mut wishes = Wishes::default();
        if let Some(ipam) = &settings.ipam_config {
            for (text, v6) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
                match text.parse::<IpAddr>() {
                    _ if text.is_empty() => {}
                    Ok(address) if address.is_ipv6() == v6 => wishes.addresses.push(address),
                    _ => wrong.push(format!("invalid {} address: {text}", if v6 { "IPv6" } else { "IPv4" })),
                }
            }
            for text in ipam.link_local_ips.iter().flatten().filter(|t| !t.is_empty()) {
                match link_local(text) {
                    Some(net) => wishes.link_local.push(net),
                    None => wrong.push(format!("invalid link-local IP address: {text}")),
                }
            }
        }
        if !settings.mac_address.is_empty() {
            match settings.mac_address.parse() {
                Ok(MacAddr([first, ..])) if first & 1 == 1 => {
                    let mac = &settings.mac_address;
                    wrong.push(format!(
                        "invalid MAC address {mac:?}: it is a group's: the first byte's lowest bit is set"
                    ));
                }
                Ok(mac) => wishes.mac = Some(mac),
                Err(e) => wrong.push(e.to_string()),
            }
        }
        let options = settings.driver_opts.iter().flatten();
        for (key, value) in options {
            match key.as_str() {
                INTERFACE_NAME => match value.parse() {
                    Ok(name) => wishes.interface = Some(name),
                    Err(e) => wrong.push(e.to_string()),
                },
                SYSCTLS => {
                    for text in value.split(',').filter(|t| !t.trim().is_empty()) {
                        match sysctl(text.trim()) {
                            Some(setting) => wishes.sysctls.push(setting),
                            None => wrong.push(format!(
                                "invalid endpoint setting {text:?}: net.ipv4.conf.IFNAME.NAME=VALUE is, or ipv6 or \
                                 mpls, or neigh"
                            )),
                        }
                    }
                }
                _ => {}
            }
        }
        if wrong.is_empty() { Ok(wishes) } else { Err(wrong) }
    }

    /// The settings of the interface under its name: keys of `/proc/sys` with slashes, since names may have dots.
    pub fn sysctls(&self, interface: &InterfaceName) -> BTreeMap<String, String> {
        let own =
            |part: &str| if matches!(part, "IFNAME" | "ifname") { interface.to_string() } else { part.to_owned() };
        let key = |key: &str| key.split('.').map(own).collect::<Vec<_>>().join("/");
        self.sysctls.iter().map(|(name, value)| (key(name), value.clone())).collect()
    }
}

/// Whether an interface of the container may have IPv6: its own settings, or the endpoint's, may have turned that off
/// (SEC-11).
pub fn allows_ipv6(host: &HostConfig, wishes: &Wishes, interface: &InterfaceName) -> bool {
    let own = format!("net/ipv6/conf/{interface}/disable_ipv6");
    !host.turns_ipv6_off(interface.as_str()) && wishes.sysctls(interface).get(&own).is_none_or(|v| v.trim() == "0")
}

/// 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291); Docker gives them these prefixes.
fn link_local(text: &str) -> Option<IpNet> {
    let address: IpAddr = text.parse().ok()?;
    let (is_link_local, prefix) = match address {
        IpAddr::V4(ip) => (ip.is_link_local(), 16),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), 64),
    };
    IpNet::new(address, prefix).ok().filter(|_| is_link_local)
}

/// `net.FAMILY.WHAT.IFNAME.NAME=VALUE`: five parts, or the setting would be the whole sandbox's.
fn sysctl(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let parts: Vec<&str> = key.split('.').collect();
    let fits = matches!(parts[..], ["net", "ipv4" | "ipv6" | "mpls", _, "IFNAME" | "ifname", name] if !name.is_empty());
    fits.then(|| (key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::EndpointIpam;

    fn settings(key: &str, value: &str) -> EndpointSettings {
        EndpointSettings { driver_opts: Some([(key.to_owned(), value.to_owned())].into()), ..Default::default() }
    }

    #[test]
    fn br_12_settings_of_an_endpoint_are_about_its_interface_alone() {
        let given = settings(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.retrans_time_ms=500");
        let made = Wishes::parse(&given).unwrap().sysctls(&"eth0.7".parse().unwrap());
        let expected = [("net/ipv4/conf/eth0.7/log_martians", "1"), ("net/ipv6/neigh/eth0.7/retrans_time_ms", "500")];
        assert_eq!(made, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        for wrong in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.core.conf.IFNAME.x=1",
            "kernel.a.b.IFNAME.c=1",
            "net.ipv4.conf.IFNAME.log_martians",
        ] {
            assert!(Wishes::parse(&settings(SYSCTLS, wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sec_11_ipv6_is_turned_off_by_the_containers_settings_and_by_the_endpoints() {
        let off = |sysctl: &str, option: &str| {
            let (key, value) = sysctl.split_once('=').unwrap();
            let host = HostConfig { sysctls: Some([(key.into(), value.into())].into()), ..Default::default() };
            !allows_ipv6(&host, &Wishes::parse(&settings(SYSCTLS, option)).unwrap(), &"eth0".parse().unwrap())
        };
        let nothing = "net.ipv4.ip_forward=1";
        for sysctl in [
            "net.ipv6.conf.all.disable_ipv6=1",
            "net/ipv6/conf/all/disable_ipv6=1",
            "net.ipv6.conf.eth0.disable_ipv6=1",
        ] {
            assert!(off(sysctl, ""), "{sysctl}");
        }
        for sysctl in [
            nothing,
            "net.ipv6.conf.all.disable_ipv6=0",
            "net.ipv6.conf.lo.disable_ipv6=1",
            "net.ipv6.conf.eth1.disable_ipv6=1",
        ] {
            assert!(!off(sysctl, ""), "{sysctl}");
        }
        assert!(off(nothing, "net.ipv6.conf.IFNAME.disable_ipv6=1"));
        assert!(!off(nothing, "net.ipv6.conf.IFNAME.disable_ipv6=0,net.ipv6.conf.IFNAME.forwarding=1"));
    }

    #[test]
    fn ip_10_link_local_addresses_are_link_local() {
        let given = |list: &[&str]| {
            let link_local_ips = Some(list.iter().map(|t| (*t).to_owned()).collect());
            let ipam_config = Some(EndpointIpam { link_local_ips, ..Default::default() });
            Wishes::parse(&EndpointSettings { ipam_config, ..Default::default() })
        };
        let made = given(&["169.254.7.7", "fe80::7"]).unwrap().link_local;
        assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["169.254.7.7/16", "fe80::7/64"]);
        let wrong = ["invalid link-local IP address: 10.0.0.1", "invalid link-local IP address: x"];
        assert_eq!(given(&["10.0.0.1", "x"]).unwrap_err(), wrong);
    }

    #[test]
    fn br_04_an_interface_may_have_a_name_of_its_own() {
        assert_eq!(Wishes::parse(&settings(INTERFACE_NAME, "lan0")).unwrap().interface.unwrap().as_str(), "lan0");
        assert!(Wishes::parse(&settings(INTERFACE_NAME, "a name")).is_err());
    }
}
