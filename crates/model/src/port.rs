//! Published ports: from what a client asks to what is reserved and published.
//!
//! `PortBindings` are texts, one entry a port. [`plan_requests`] turns them into [`Wanted`] ranges, collapsing
//! consecutive ports into one; when the host ports are known, [`Published::publications`] says which flows lead where.

use crate::container::PortBinding;
use crate::desired::Publication;
use crate::net::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Ranges of more ports than this are checked once, but held by no sockets: 10,000 are more than a process may open. So
/// the proxy does not carry them by UDP, where it takes a socket a port.
pub const MOST_HELD: u16 = 64;

/// A container's port: `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// From 1.
    pub number: u16,
    /// Of which transport.
    pub protocol: Protocol,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Why a port's text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum PortRefusal {
    #[error("invalid port specification: {0:?}")]
    Port(String),
    #[error("invalid port specification: \"{0}\": the host port is a number, a range 'first-last', or empty")]
    HostPort(String),
    #[error("invalid IP address: {0}")]
    HostAddress(String),
}

impl std::str::FromStr for Port {
    type Err = PortRefusal;
    fn from_str(text: &str) -> Result<Self, PortRefusal> {
        let wrong = || PortRefusal::Port(text.to_owned());
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        Ok(Port { number, protocol: protocol.parse().map_err(|_| wrong())? })
    }
}

/// Parses `80/tcp` or `8000-8010/udp` into its ports.
///
/// # Errors
/// It is neither.
pub fn parse_range(text: &str) -> Result<Vec<Port>, PortRefusal> {
    let wrong = || PortRefusal::Port(text.to_owned());
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.parse().map_err(|_| wrong())?;
    let range = number_range(numbers).filter(|r| *r.start() > 0).ok_or_else(wrong)?;
    Ok(range.map(|number| Port { number, protocol }).collect())
}

fn number_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

/// Host ports to be reserved for consecutive ports of a container, at one or two addresses under the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One address, or the unspecified ones of both families.
    pub hosts: Vec<IpAddr>,
    /// Of all of them.
    pub protocol: Protocol,
    /// The first one.
    pub container_port: u16,
    /// How many there are.
    pub count: u16,
    /// Which host ports.
    pub host: HostPort,
}

/// The ports of a container that shall be published, whatever the addresses: protocol, first, count. Where a network is
/// routed they are open by themselves (BR-09).
pub fn published_ports(wanted: &[Wanted]) -> BTreeSet<(Protocol, u16, u16)> {
    wanted.iter().map(|w| (w.protocol, w.container_port, w.count)).collect()
}

/// Which number on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// Any ephemeral one.
    Any,
    /// This one (and the following, if several).
    Exactly(u16),
    /// The first free one of these.
    FirstOf(RangeInclusive<u16>),
}

/// What is to be reserved. `exposed` counts with `publish_all` only. `default_host` is where a binding without an
/// address goes; None means everywhere, in both families (PT-03).
///
/// # Errors
/// A text is no port or address.
pub fn plan_requests(
    bindings: &BTreeMap<String, Option<Vec<PortBinding>>>,
    exposed: impl Iterator<Item = Port>,
    publish_all: bool,
    default_host: Option<IpAddr>,
) -> Result<Vec<Wanted>, PortRefusal> {
    let mut single: Vec<Wanted> = Vec::new();
    let mut bound = BTreeSet::new();
    for (key, list) in bindings {
        let port: Port = key.parse()?;
        bound.insert(port);
        let empty = [PortBinding::default()];
        let list: &[PortBinding] = match list {
            Some(list) if !list.is_empty() => list,
            _ => &empty,
        };
        for binding in list {
            single.push(Wanted {
                hosts: hosts(&binding.host_ip, default_host)?,
                protocol: port.protocol,
                container_port: port.number,
                count: 1,
                host: host_port(&binding.host_port)?,
            });
        }
    }
    if publish_all {
        let rest: BTreeSet<Port> = exposed.filter(|p| !bound.contains(p)).collect();
        for port in rest {
            single.push(Wanted {
                hosts: hosts("", default_host)?,
                protocol: port.protocol,
                container_port: port.number,
                count: 1,
                host: HostPort::Any,
            });
        }
    }
    Ok(collapse(single))
}

fn hosts(text: &str, default: Option<IpAddr>) -> Result<Vec<IpAddr>, PortRefusal> {
    let everywhere = || vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    match text {
        "" => Ok(default.map_or_else(everywhere, |d| vec![d])),
        text => {
            let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            Ok(vec![inner.parse().map_err(|_| PortRefusal::HostAddress(text.to_owned()))?])
        }
    }
}

fn host_port(text: &str) -> Result<HostPort, PortRefusal> {
    let wrong = || PortRefusal::HostPort(text.to_owned());
    match text {
        "" | "0" => Ok(HostPort::Any),
        text => {
            let range = number_range(text).ok_or_else(wrong)?;
            if range.start() == range.end() {
                Ok(HostPort::Exactly(*range.start()))
            } else {
                Ok(HostPort::FirstOf(range))
            }
        }
    }
}

/// Consecutive fixed ports that lead to consecutive ports become one.
fn collapse(mut wanted: Vec<Wanted>) -> Vec<Wanted> {
    wanted.sort_by(|a, b| (&a.hosts, a.protocol, a.container_port).cmp(&(&b.hosts, b.protocol, b.container_port)));
    let mut merged: Vec<Wanted> = Vec::new();
    for next in wanted {
        if let (Some(last), HostPort::Exactly(port)) = (merged.last_mut(), &next.host)
            && let HostPort::Exactly(first) = last.host
            && last.hosts == next.hosts
            && last.protocol == next.protocol
            && last.container_port.checked_add(last.count) == Some(next.container_port)
            && first.checked_add(last.count) == Some(*port)
        {
            last.count += 1;
        } else {
            merged.push(next);
        }
    }
    merged
}

/// Host ports that are reserved for a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// One address, or the unspecified ones of both families.
    pub hosts: Vec<IpAddr>,
    /// Of all of them.
    pub protocol: Protocol,
    /// The first one.
    pub container_port: u16,
    /// How many there are.
    pub count: u16,
    /// The first one.
    pub host_port: u16,
}

impl Published {
    /// `wanted`, at the host port it got.
    pub fn new(wanted: &Wanted, host_port: u16) -> Self {
        let Wanted { hosts, protocol, container_port, count, .. } = wanted.clone();
        Self { hosts, protocol, container_port, count, host_port }
    }

    /// What to reserve to have it again.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            hosts: self.hosts.clone(),
            protocol: self.protocol,
            container_port: self.container_port,
            count: self.count,
            host: HostPort::Exactly(self.host_port),
        }
    }

    /// Which flows lead where. The container's address of the host's family is taken, the other one where there is
    /// none (the keeper's proxy then carries the flow).
    pub fn publications(&self, ipv4: Option<IpAddr>, ipv6: Option<IpAddr>) -> impl Iterator<Item = Publication> + '_ {
        let to = move |host: &IpAddr| if host.is_ipv4() { ipv4.or(ipv6) } else { ipv6.or(ipv4) };
        self.hosts.iter().filter_map(move |host| {
            Some(Publication {
                host: *host,
                protocol: self.protocol,
                host_port: self.host_port,
                count: self.count,
                container: to(host)?,
                container_port: self.container_port,
                direct: false,
            })
        })
    }

    /// Whether both hold a port of the same address.
    pub fn collides(&self, wanted: &Wanted) -> bool {
        let HostPort::Exactly(first) = wanted.host else { return false };
        self.protocol == wanted.protocol && wanted.hosts.iter().any(|host| self.holds(*host, first, wanted.count))
    }

    /// Whether one of `count` ports of a host address, from `first` on, is among these.
    pub fn holds(&self, host: IpAddr, first: u16, count: u16) -> bool {
        let ends = |first: u16, count: u16| u32::from(first) + u32::from(count);
        let same_host =
            |a: &IpAddr| a.is_ipv4() == host.is_ipv4() && (*a == host || a.is_unspecified() || host.is_unspecified());
        u32::from(self.host_port) < ends(first, count)
            && u32::from(first) < ends(self.host_port, self.count)
            && self.hosts.iter().any(same_host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(list: &[(&str, &str, &str)]) -> BTreeMap<String, Option<Vec<PortBinding>>> {
        let mut map: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
        for (port, ip, host) in list {
            let binding = PortBinding { host_ip: (*ip).into(), host_port: (*host).into() };
            map.entry((*port).into()).or_default().get_or_insert_default().push(binding);
        }
        map
    }

    #[test]
    fn pt_17_a_range_of_ten_thousand_ports_is_one() {
        let list: Vec<(String, String)> = (10_000..20_000).map(|p| (format!("{p}/udp"), p.to_string())).collect();
        let list: Vec<_> = list.iter().map(|(a, b)| (a.as_str(), "", b.as_str())).collect();
        let wanted = plan_requests(&bindings(&list), std::iter::empty(), false, None).unwrap();
        assert_eq!(wanted.len(), 1);
        assert_eq!((wanted[0].container_port, wanted[0].count), (10_000, 10_000));
        assert_eq!(wanted[0].host, HostPort::Exactly(10_000));
    }

    #[test]
    fn pt_01_bindings_are_parsed_and_refused() {
        let plan = |p, ip, h| plan_requests(&bindings(&[(p, ip, h)]), std::iter::empty(), false, None);
        assert_eq!(plan("80/tcp", "", "").unwrap()[0].host, HostPort::Any);
        assert_eq!(plan("80/tcp", "", "8000-8002").unwrap()[0].host, HostPort::FirstOf(8000..=8002));
        assert_eq!(plan("80/tcp", "::1", "8000").unwrap()[0].hosts, ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(plan("80/tcp", "", "8000").unwrap()[0].hosts.len(), 2);
        for (port, ip, host) in
            [("x", "", ""), ("80/foo", "", ""), ("0", "", ""), ("80", "nope", ""), ("80", "", "x"), ("80", "", "9-8")]
        {
            assert!(plan(port, ip, host).is_err(), "{port} {ip} {host}");
        }
    }

    #[test]
    fn pt_04_publish_all_takes_the_exposed_ports_that_have_no_binding() {
        let exposed = ["80/tcp", "53/udp"].map(|p| p.parse().unwrap());
        let wanted = plan_requests(&bindings(&[("80/tcp", "", "8080")]), exposed.into_iter(), true, None).unwrap();
        assert_eq!(wanted.len(), 2);
        assert!(wanted.iter().any(|w| w.protocol == Protocol::Udp && w.host == HostPort::Any));
    }
}
