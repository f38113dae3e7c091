//! The texts of a container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.

use crate::names::RESOLVER;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// What `/etc/hosts` says (DNS-22).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The container has IPv6: `::1` and friends are listed.
    pub ipv6: bool,
    /// `--add-host`, then legacy links: addresses and their names.
    pub extra: Vec<(String, String)>,
    /// The container's own addresses, one an endpoint and family.
    pub own: Vec<IpAddr>,
    /// The container's own name.
    pub hostname: String,
    /// What follows it after a dot; empty for nothing.
    pub domainname: String,
}

impl Hosts {
    /// The file.
    pub fn render(&self) -> String {
        let mut text = String::from("127.0.0.1\tlocalhost\n");
        if self.ipv6 {
            text.push_str(
                "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
            );
        }
        for (address, names) in &self.extra {
            let _ = writeln!(text, "{address}\t{names}");
        }
        let full = match self.domainname.as_str() {
            "" => self.hostname.clone(),
            domain => format!("{}.{domain}", self.hostname),
        };
        // A name with a domain, wherever it was given, is followed by the bare one, as in libnetwork.
        let names = match full.split_once('.') {
            Some((bare, _)) => format!("{full} {bare}"),
            None => full,
        };
        for address in &self.own {
            let _ = writeln!(text, "{address}\t{names}");
        }
        text
    }
}

/// `name:address` or `name=address`, of `--add-host`.
///
/// # Errors
/// It is neither.
pub fn split_extra_host(text: &str) -> Result<(&str, &str), String> {
    let parts = text.split_once(['=', ':']).filter(|(name, _)| !name.is_empty());
    let (name, address) = parts.ok_or_else(|| format!("bad format for add-host: \"{text}\""))?;
    Ok((name, address.trim_start_matches('[').trim_end_matches(']')))
}

/// A hosts file that may have been edited in the container, after what we say of it has changed from `before` to `now`:
/// only our own lines are taken out and added, others stay where they are (DNS-22).
pub fn edit_hosts(file: &str, before: &str, now: &str) -> String {
    if file == before {
        return now.to_owned();
    }
    // Lines that `of` has and `than` has not, as often as it has them more.
    let more = |of: &str, than: &str| {
        let mut others: Vec<String> = than.lines().map(str::to_owned).collect();
        let is_more = |line: &&str| match others.iter().position(|o| o == line) {
            Some(at) => {
                others.swap_remove(at);
                false
            }
            None => true,
        };
        of.lines().filter(is_more).map(str::to_owned).collect::<Vec<String>>()
    };
    let (mut going, coming) = (more(before, now), more(now, before));
    let is_staying = |line: &&str| match going.iter().position(|g| g == line) {
        Some(at) => {
            going.swap_remove(at);
            false
        }
        None => true,
    };
    let staying: Vec<&str> = file.lines().filter(is_staying).collect();
    let lines = staying.into_iter().chain(coming.iter().map(String::as_str));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A server of names. A link-local address says something only together with the interface that it is behind, its zone
/// (RFC 4007): the host's, so whoever has a network of his own cannot ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    /// Where it listens, on port 53.
    pub address: IpAddr,
    /// The interface's name or number; empty where there is none.
    pub zone: String,
}

impl From<IpAddr> for Nameserver {
    fn from(address: IpAddr) -> Self {
        Self { address, zone: String::new() }
    }
}

impl std::str::FromStr for Nameserver {
    type Err = std::net::AddrParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, zone) = text.split_once('%').unwrap_or((text, ""));
        Ok(Self { address: address.parse()?, zone: zone.to_owned() })
    }
}

impl std::fmt::Display for Nameserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.zone.as_str() {
            "" => self.address.fmt(f),
            zone => write!(f, "{}%{zone}", self.address),
        }
    }
}

/// What the host's resolv.conf says, as far as containers are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResolv {
    /// In order.
    pub nameservers: Vec<Nameserver>,
    /// Domains that names are tried in.
    pub search: Vec<String>,
    /// `ndots:1` and such.
    pub options: Vec<String>,
}

impl HostResolv {
    /// Reads a resolv.conf: the last `search` or `domain` line counts, options add up (resolv.conf(5), DNS-16).
    pub fn parse(text: &str) -> Self {
        let mut read = HostResolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    read.nameservers.extend(words.next().and_then(|word| word.parse::<Nameserver>().ok()));
                }
                Some("search" | "domain") => read.search = words.map(str::to_owned).collect(),
                Some("options") => read.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        read.search.retain(|d| d != ".");
        read
    }
}

/// Whom a container on the default network asks if the host names nobody that it could reach (DNS-12): Docker's choice.
pub const DEFAULT_NAMESERVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// Whether systemd-resolved's stub is all that the host's resolv.conf names: the file with the servers behind it is
/// another (systemd-resolved.service(8), DNS-11).
pub fn is_systemds_stub(host: &HostResolv) -> bool {
    host.nameservers == [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)).into()]
}

/// What a container asked for: `--dns`, `--dns-search`, `--dns-opt`; empty lists leave the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvOverrides {
    /// `--dns`.
    pub nameservers: Vec<IpAddr>,
    /// `--dns-search`; a single `.` is none.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

/// Whom a container asks for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The resolver at 127.0.0.11 (at most `ndots:0` is added).
    Resolver,
    /// The nameservers themselves, but for those that only the host reaches, by loopback or in a zone; [`DEFAULT_NAMESERVERS`] where there are none.
    Servers,
    /// The host's nameservers, from its own network.
    HostsServers,
}

/// `/etc/resolv.conf` of a container (DNS-14).
pub fn resolv_conf(host: &HostResolv, overrides: &ResolvOverrides, asks: Asks) -> String {
    let embedded = asks == Asks::Resolver;
    let pick = |own: &[String], hosts: &[String]| if own.is_empty() { hosts.to_vec() } else { own.to_vec() };
    let own: Vec<Nameserver> = overrides.nameservers.iter().copied().map(Nameserver::from).collect();
    let nameservers = if own.is_empty() { &host.nameservers } else { &own };
    let mut search = pick(&overrides.search, &host.search);
    search.retain(|d| d != ".");
    let mut options = pick(&overrides.options, &host.options);

    let mut text = String::from(
        "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once it\n\
         # has been modified.\n\n",
    );
    let ndots = options.iter().position(|o| o.starts_with("ndots:"));
    let (mut ndots_from, mut used_default) = (None, false);
    if embedded {
        text.push_str(&format!("nameserver {RESOLVER}\n"));
        ndots_from = match ndots {
            Some(at) if options[at]["ndots:".len()..].parse::<u8>().is_ok() => {
                Some(if overrides.options.is_empty() { "host" } else { "override" })
            }
            at => {
                if let Some(at) = at {
                    options.remove(at);
                }
                options.push("ndots:0".into());
                Some("internal")
            }
        };
    } else {
        // The host's own loopback resolver, and who is behind an interface of the host's, are not the container's, unless
        // it shares its network.
        let keeps_all = asks == Asks::HostsServers || !overrides.nameservers.is_empty();
        let is_reached = |s: &&Nameserver| keeps_all || !s.address.is_loopback() && s.zone.is_empty();
        let mut servers: Vec<Nameserver> = nameservers.iter().filter(is_reached).cloned().collect();
        if servers.is_empty() && asks == Asks::Servers {
            servers = DEFAULT_NAMESERVERS.map(Nameserver::from).into();
            used_default = true;
        }
        for server in servers {
            let _ = writeln!(text, "nameserver {server}");
        }
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    let kind = match asks {
        Asks::Resolver => " (internal resolver)",
        Asks::Servers => " (legacy)",
        Asks::HostsServers => "",
    };
    let _ = write!(text, "\n# Based on host file: '/etc/resolv.conf'{kind}\n");
    if used_default {
        text.push_str("# Used default nameservers.\n");
    }
    if embedded {
        let from_host = overrides.nameservers.is_empty();
        let list: Vec<String> =
            nameservers.iter().map(|a| if from_host { format!("host({a})") } else { a.to_string() }).collect();
        if !list.is_empty() {
            let _ = writeln!(text, "# ExtServers: [{}]", list.join(" "));
        }
    }
    let overridden = [
        ("nameservers", !overrides.nameservers.is_empty()),
        ("search", !overrides.search.is_empty()),
        ("options", !overrides.options.is_empty()),
    ];
    let words: Vec<&str> = overridden.iter().filter(|(_, on)| *on).map(|(word, _)| *word).collect();
    let _ = writeln!(text, "# Overrides: [{}]", words.join(" "));
    if let Some(from) = ndots_from {
        let _ = writeln!(text, "# Option ndots from: {from}");
    }
    text
}

/// Whether the user asked for `ndots` greater than 0: single-label names then stay here (DNS-15).
pub fn keeps_single_labels(options: &[String]) -> bool {
    options.iter().filter_map(|o| o.strip_prefix("ndots:")?.parse::<u8>().ok()).next_back().is_some_and(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_14_resolv_conf_is_dockers_word_for_word() {
        let host = HostResolv::parse("nameserver 10.255.255.53\n");
        let plain = resolv_conf(&host, &ResolvOverrides::default(), Asks::Resolver);
        assert_eq!(
            plain,
            "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once it\n\
             # has been modified.\n\nnameserver 127.0.0.11\noptions ndots:0\n\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [host(10.255.255.53)]\n\
             # Overrides: []\n# Option ndots from: internal\n"
        );
        let overrides = ResolvOverrides {
            nameservers: vec!["192.0.2.2".parse().unwrap()],
            search: vec!["example.test".into()],
            options: vec!["ndots:2".into()],
        };
        let all = resolv_conf(&host, &overrides, Asks::Resolver);
        assert!(all.contains("nameserver 127.0.0.11\nsearch example.test\noptions ndots:2\n\n"), "{all}");
        assert!(
            all.ends_with(
                "# ExtServers: [192.0.2.2]\n# Overrides: [nameservers search options]\n# Option ndots from: override\n"
            ),
            "{all}"
        );
        let legacy = resolv_conf(&host, &ResolvOverrides::default(), Asks::Servers);
        assert!(legacy.ends_with(
            "\nnameserver 10.255.255.53\n\n# Based on host file: '/etc/resolv.conf' (legacy)\n# Overrides: []\n"
        ));
        let loopback = HostResolv::parse("nameserver 127.0.0.53\n");
        let on_host = resolv_conf(&loopback, &ResolvOverrides::default(), Asks::HostsServers);
        assert!(
            on_host.ends_with("\nnameserver 127.0.0.53\n\n# Based on host file: '/etc/resolv.conf'\n# Overrides: []\n")
        );
        assert!(!resolv_conf(&loopback, &ResolvOverrides::default(), Asks::Servers).contains("127.0.0.53"));
    }

    #[test]
    fn dns_11_a_server_in_a_zone_of_the_hosts_is_the_hosts_to_ask() {
        let host = HostResolv::parse("nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver nonsense%eth0\n");
        let of = |asks| resolv_conf(&host, &ResolvOverrides::default(), asks);
        assert!(of(Asks::HostsServers).contains("\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n\n"));
        assert!(of(Asks::Servers).contains("\n\nnameserver 192.0.2.1\n\n"), "{}", of(Asks::Servers));
        assert!(of(Asks::Resolver).contains("# ExtServers: [host(fe80::1%eth0) host(192.0.2.1)]\n"));
    }

    #[test]
    fn dns_12_without_a_nameserver_the_default_network_has_public_ones_and_the_resolver_none() {
        let none = HostResolv::default();
        let legacy = resolv_conf(&none, &ResolvOverrides::default(), Asks::Servers);
        assert!(legacy.contains("\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n\n"), "{legacy}");
        assert!(legacy.contains("(legacy)\n# Used default nameservers.\n# Overrides: []\n"), "{legacy}");
        let resolver = resolv_conf(&none, &ResolvOverrides::default(), Asks::Resolver);
        assert!(!resolver.contains("8.8.8.8") && !resolver.contains("ExtServers"), "{resolver}");
    }

    #[test]
    fn dns_16_the_last_search_line_counts_and_a_dot_clears_it() {
        let host = HostResolv::parse("search a b\ndomain c\noptions x ndots:1\noptions y\n");
        assert_eq!((host.search.len(), host.options.len()), (1, 3));
        let overrides = ResolvOverrides { search: vec![".".into()], ..Default::default() };
        assert!(!resolv_conf(&host, &overrides, Asks::Resolver).contains("\nsearch"));
        assert!(keeps_single_labels(&host.options) && !keeps_single_labels(&["ndots:0".into()]));
    }

    #[test]
    fn dns_22_lines_of_others_in_a_hosts_file_stay() {
        let check = |file: &str, before: &str, now: &str, expected: &str| {
            assert_eq!(edit_hosts(file, before, now), expected, "{file:?}, {before:?}, {now:?}");
        };
        check("a\nb\n", "a\nb\n", "b\nc\n", "b\nc\n");
        check("mine\na\nb\n", "a\nb\n", "b\nc\n", "mine\nb\nc\n");
        check("a\nb\nmine", "a\nb\n", "a\n", "a\nmine\n");
        // What somebody took out is not put back, and what he wrote twice goes once.
        check("b\n", "a\nb\n", "a\nb\nc\n", "b\nc\n");
        check("a\na\nmine\n", "a\n", "", "a\nmine\n");
        check("a\n\n", "a\n", "a\na\n", "a\n\na\n");
    }

    #[test]
    fn dns_22_hosts_names_the_container_once_for_each_address() {
        let hosts = Hosts {
            ipv6: true,
            extra: vec![("10.9.8.7".into(), "db".into())],
            own: vec!["172.18.0.3".parse().unwrap()],
            hostname: "web".into(),
            domainname: "example.test".into(),
        };
        let text = hosts.render();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"));
        assert!(text.ends_with("10.9.8.7\tdb\n172.18.0.3\tweb.example.test web\n"));
        let one = Hosts { hostname: "web.example.test".into(), domainname: String::new(), ..hosts.clone() };
        assert_eq!(one.render(), text);
        let bare = Hosts { domainname: String::new(), ..hosts };
        assert!(bare.render().ends_with("172.18.0.3\tweb\n"));
    }
}
