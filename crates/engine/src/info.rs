//! What the engine says of itself and of the machine.

use crate::Engine;
use model::container::Status;

/// `GET /info`, as facts.
#[derive(Clone, Debug)]
pub struct Info {
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub cgroup_version: u8,
    pub cgroup_driver: &'static str,
    pub seccomp: bool,
    /// What this machine lacks, as sentences.
    pub warnings: Vec<String>,
    /// What the kernel's networking offers, and what is used instead.
    pub network: Vec<(&'static str, bool)>,
    pub ipv4_forwarding: bool,
    pub memory: u64,
    pub cpus: usize,
    pub kernel: String,
    pub os: String,
    pub hostname: String,
}

impl Engine {
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
        let memory = read("/proc/meminfo")
            .lines()
            .find_map(|l| l.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or_default()
            * 1024;
        let os = read("/etc/os-release");
        let os =
            os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"').to_owned();
        Info {
            running,
            paused,
            stopped: total - running - paused,
            images: self.images.list(&image::Filter::default()).len(),
            cgroup_version: runtime.cgroup_version,
            cgroup_driver: runtime.cgroup_driver,
            seccomp: runtime.seccomp,
            warnings,
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
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            memory,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            os,
            hostname: read("/proc/sys/kernel/hostname").trim().to_owned(),
        }
    }
}
