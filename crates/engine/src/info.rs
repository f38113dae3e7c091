//! What the engine says of itself and of the machine.

use crate::Engine;
use model::container::Status;
use std::path::PathBuf;

/// `GET /info`, as facts.
#[derive(Clone, Debug)]
pub struct Info {
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub cgroup_version: u8,
    pub cgroup_driver: &'static str,
    /// What cgroups can limit here: `memory`, `cpu`, `cpuset`, `pids`.
    pub controllers: Vec<&'static str>,
    pub seccomp: bool,
    pub cgroup_namespaces: bool,
    /// Where the other launcher is, if there is one.
    pub runc: Option<PathBuf>,
    pub proxies: Proxies,
    /// What this machine lacks, as sentences.
    pub warnings: Vec<String>,
    /// What the kernel's networking offers, and what is used instead.
    pub network: Vec<(&'static str, bool)>,
    /// Other firewalls that are told of our networks.
    pub told_firewalls: Vec<&'static str>,
    pub ipv4_forwarding: bool,
    /// Bridged frames pass the firewall of IP.
    pub br_netfilter: bool,
    pub memory: u64,
    pub cpus: usize,
    pub kernel: String,
    pub os: String,
    pub hostname: String,
}

/// The proxies that registries are reached by: what the daemon's environment says.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    /// Hosts that are reached without one.
    pub none: String,
}

impl Proxies {
    fn of_environment() -> Self {
        let read = |name: &str| {
            let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).unwrap_or_default();
            without_password(&value)
        };
        Self { http: read("HTTP_PROXY"), https: read("HTTPS_PROXY"), none: read("NO_PROXY") }
    }
}

/// `http://user:secret@proxy` as Docker shows it: who reads it need not know the account.
fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://xxxxx:xxxxx@{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

/// A program by its name, where the daemon's environment has it.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
}

/// What the host is called.
pub(crate) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The host's memory in bytes, as `/proc/meminfo` says it.
pub(crate) fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
}

impl Engine {
    /// How many clients may be connected at once: half of our descriptors are containers', and so is all beyond.
    pub fn most_clients(&self) -> usize {
        let most = usize::try_from(self.descriptors.hard).unwrap_or(usize::MAX) / 2;
        most.clamp(16, 4096)
    }

    pub fn info(&self) -> Info {
        let (running, paused, total) = {
            let state = self.state();
            let count = |s: Status| state.containers.values().filter(|e| e.record.state.status == s).count();
            (count(Status::Running), count(Status::Paused), state.containers.len())
        };
        let runtime = self.runtime.info();
        let mut warnings = runtime.lacking;
        if !runtime.missing_capabilities.is_empty() {
            warnings.push(format!(
                "the daemon lacks {}, and so does every container",
                runtime.missing_capabilities.join(", ")
            ));
        }
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let ipv4_forwarding = read("/proc/sys/net/ipv4/ip_forward").trim() == "1";
        if !ipv4_forwarding {
            warnings.push("IPv4 forwarding is disabled: containers reach only their own networks".to_owned());
        }
        warnings.extend(self.overlapping_routes());
        warnings.extend(self.network.forward_drops().into_iter().map(|chain| {
            format!(
                "firewall {chain} drops what is forwarded, and so what containers send beyond their networks and what \
                 comes to published ports: it has to accept what comes from and goes to their bridges"
            )
        }));
        warnings.extend(self.closed_ports());
        warnings.extend(self.lost_lines());
        let os = read("/etc/os-release");
        let os =
            os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"').to_owned();
        Info {
            running,
            paused,
            stopped: total - running - paused,
            images: self.images.list(&image::Filter { all: true, ..Default::default() }).len(),
            cgroup_version: runtime.cgroup_version,
            cgroup_driver: runtime.cgroup_driver,
            controllers: runtime.controllers,
            seccomp: runtime.seccomp,
            cgroup_namespaces: runtime.cgroup_namespaces,
            runc: find_program("runc"),
            proxies: Proxies::of_environment(),
            warnings,
            told_firewalls: self.network.told_firewalls(),
            network: {
                let f = self.network.features();
                vec![
                    ("tables that only Isle changes", f.owned_tables),
                    ("locked bridge ports", f.locked_ports),
                    ("IPv6 forwarding by interface", f.force_forwarding),
                    ("IPv6", f.ipv6),
                    ("bridged frames pass the firewall (br_netfilter)", f.br_netfilter),
                ]
            },
            ipv4_forwarding,
            br_netfilter: self.network.features().br_netfilter,
            memory: total_memory(&read("/proc/meminfo")),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            os,
            hostname: hostname(),
        }
    }

    /// Running containers whose logs lack what could not be written.
    fn lost_lines(&self) -> Vec<String> {
        let state = self.state();
        let running = state.containers.values().filter_map(|e| Some((&e.record.name, e.live.as_ref()?.lines_lost())));
        let losers = running.filter(|(_, lost)| *lost > 0);
        losers
            .map(|(name, lost)| format!("{lost} lines of container {name}'s log are lost: they cannot be written"))
            .collect()
    }

    /// Published ports that only the proxy leads to a container, where another firewall drops what comes to the host.
    fn closed_ports(&self) -> Vec<String> {
        let mut carried: [Vec<String>; 2] = Default::default();
        {
            let state = self.state();
            for record in state.containers.values().map(|e| &e.record).filter(|_| state.networking.proxy) {
                let active = record.endpoints.iter().filter_map(|e| e.active.as_ref());
                for port in active.flat_map(|a| &a.publications).filter(|p| p.is_for_the_proxy()) {
                    let text = format!("{}/{} of {}", port.host_port, port.protocol, record.name);
                    carried[usize::from(port.host.is_ipv6())].push(text);
                }
            }
        }
        let mut warnings = Vec::new();
        for (ports, (ipv6, family)) in carried.iter().zip([(false, "IPv4"), (true, "IPv6")]) {
            let closed = if ports.is_empty() { Vec::new() } else { self.network.input_drops(ipv6) };
            let few = ports.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
            let more = if ports.len() > 4 { " and others" } else { "" };
            warnings.extend(closed.into_iter().map(|chain| {
                format!(
                    "firewall {chain} drops what comes to this host, and so what the proxy carries by {family}, unless it has \
                     rules for it: ports {few}{more}; a network with {family} needs no proxy"
                )
            }));
        }
        warnings
    }

    /// Networks whose subnet the host has got another route to since they were made: a VPN's, for one (IP-03). What is
    /// behind it cannot be reached from this host.
    fn overlapping_routes(&self) -> Vec<String> {
        let Ok(routes) = self.network.host_routes() else { return Vec::new() };
        let state = self.state();
        // A network on an interface of the host's is meant to be where the host is.
        let bridged = state.networks.values().filter(|n| n.bridge(&state.networking).is_some());
        let pools = bridged.flat_map(|n| n.ipam.pools.iter().map(move |p| (n, p.subnet)));
        let clashes = pools.filter_map(|(network, subnet)| {
            let route = routes.iter().find(|r| r.contains(&subnet) || subnet.contains(*r))?;
            Some(format!(
                "network {} has subnet {subnet}, which the host has a route to as well: {route}",
                network.name
            ))
        });
        clashes.collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(super::total_memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert_eq!(super::total_memory(""), 0);
    }
}
