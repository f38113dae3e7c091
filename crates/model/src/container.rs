//! A container as a record: what was asked for, what was chosen, how it is.
//!
//! What clients ask for is kept in the shape and with the field names of the Engine API ([`Config`], [`HostConfig`],
//! [`EndpointSettings`]): they get it back as they gave it, and the store has the same form. `null` and absent are
//! the same everywhere.

use crate::go::or_default;
use crate::id::{ContainerId, NetworkId};
use crate::image::{Empty, Healthcheck, ImageId};
use crate::port::{PortRefusal, Wanted};
use crate::spec::Ulimit;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

macro_rules! api_object {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[allow(missing_docs, reason = "what is not explained is what Docker's API calls so")]
        pub struct $name { $(
            $(#[$field_doc])*
            #[serde(deserialize_with = "or_default")]
            pub $field: $kind,
        )* }
    };
}

/// What Docker leaves out of an answer.
fn is_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

api_object! {
    /// `ContainerConfig`: what the container is, whatever machine it runs on.
    pub struct Config {
        pub hostname: String,
        pub domainname: String,
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// Keys like `80/tcp`.
        pub exposed_ports: BTreeMap<String, Empty>,
        pub tty: bool,
        pub open_stdin: bool,
        pub stdin_once: bool,
        pub env: Vec<String>,
        pub cmd: Option<Vec<String>>,
        pub healthcheck: Option<Healthcheck>,
        pub image: String,
        pub volumes: BTreeMap<String, Empty>,
        pub working_dir: String,
        pub entrypoint: Option<Vec<String>>,
        pub network_disabled: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mac_address: Option<String>,
        pub on_build: Option<Vec<String>>,
        pub labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_signal: Option<String>,
        /// Seconds; the default is 10.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Vec<String>>,
    }
}

api_object! {
    /// `HostConfig`: how it runs on this machine. Sizes are bytes.
    pub struct HostConfig {
        pub binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        pub log_config: LogConfig,
        pub network_mode: String,
        pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub volume_driver: String,
        pub volumes_from: Option<Vec<String>>,
        /// Rows, columns.
        pub console_size: Option<[u32; 2]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
        pub cap_add: Option<Vec<String>>,
        pub cap_drop: Option<Vec<String>>,
        pub cgroupns_mode: String,
        pub dns: Vec<String>,
        pub dns_options: Vec<String>,
        pub dns_search: Vec<String>,
        pub extra_hosts: Option<Vec<String>>,
        pub group_add: Option<Vec<String>>,
        pub ipc_mode: String,
        pub cgroup: String,
        pub links: Option<Vec<String>>,
        pub oom_score_adj: i64,
        pub pid_mode: String,
        pub privileged: bool,
        pub publish_all_ports: bool,
        pub readonly_rootfs: bool,
        pub security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub storage_opt: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs: Option<BTreeMap<String, String>>,
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        pub userns_mode: String,
        pub shm_size: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sysctls: Option<BTreeMap<String, String>>,
        pub runtime: String,
        pub isolation: String,
        pub cpu_shares: i64,
        pub memory: i64,
        pub nano_cpus: i64,
        pub cgroup_parent: String,
        pub blkio_weight: u16,
        pub blkio_weight_device: Option<Vec<serde_json::Value>>,
        pub blkio_device_read_bps: Option<Vec<serde_json::Value>>,
        pub blkio_device_write_bps: Option<Vec<serde_json::Value>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<serde_json::Value>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<serde_json::Value>>,
        pub cpu_period: i64,
        pub cpu_quota: i64,
        // As docker-py writes them: Go does not mind.
        #[serde(alias = "CPURealtimePeriod")]
        pub cpu_realtime_period: i64,
        #[serde(alias = "CPURealtimeRuntime")]
        pub cpu_realtime_runtime: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub devices: Option<Vec<DeviceMapping>>,
        pub device_cgroup_rules: Option<Vec<String>>,
        pub device_requests: Option<Vec<serde_json::Value>>,
        pub memory_reservation: i64,
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: Option<bool>,
        pub pids_limit: Option<i64>,
        pub ulimits: Option<Vec<Ulimit>>,
        pub cpu_count: i64,
        pub cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mounts: Option<Vec<Mount>>,
        pub masked_paths: Option<Vec<String>>,
        pub readonly_paths: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }
}

api_object! {
    pub struct LogConfig {
        #[serde(rename = "Type")]
        pub driver: String,
        pub config: BTreeMap<String, String>,
    }
}

api_object! {
    /// One place on the host where a container's port is to be found, as texts: `HostPort` may be empty or a range.
    pub struct PortBinding {
        pub host_ip: String,
        pub host_port: String,
    }
}

api_object! {
    /// `no`, `always`, `unless-stopped` or `on-failure`; empty is `no`.
    pub struct RestartPolicy {
        pub name: String,
        pub maximum_retry_count: i64,
    }
}

api_object! {
    pub struct DeviceMapping {
        pub path_on_host: String,
        pub path_in_container: String,
        pub cgroup_permissions: String,
    }
}

api_object! {
    /// `--mount`.
    pub struct Mount {
        pub target: String,
        pub source: String,
        /// `bind`, `volume`, `tmpfs` …
        #[serde(rename = "Type")]
        pub kind: String,
        pub read_only: bool,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub consistency: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }
}

api_object! {
    pub struct BindOptions {
        pub propagation: String,
        pub non_recursive: bool,
        pub create_mountpoint: bool,
        pub read_only_non_recursive: bool,
        pub read_only_force_recursive: bool,
    }
}

api_object! {
    pub struct VolumeOptions {
        pub no_copy: bool,
        pub labels: BTreeMap<String, String>,
        pub subpath: String,
        pub driver_config: Option<DriverConfig>,
    }
}

api_object! {
    pub struct DriverConfig {
        pub name: String,
        pub options: BTreeMap<String, String>,
    }
}

api_object! {
    pub struct TmpfsOptions {
        #[serde(skip_serializing_if = "is_nothing")]
        pub size_bytes: i64,
        #[serde(skip_serializing_if = "is_nothing")]
        pub mode: u32,
        #[serde(skip_serializing_if = "is_nothing")]
        pub options: Option<Vec<Vec<String>>>,
    }
}

api_object! {
    /// What a client may say of an endpoint. What it echoes from an inspection (`IPAddress`, `EndpointID` …) is
    /// accepted and dropped (API-21).
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpam>,
        pub links: Option<Vec<String>>,
        pub aliases: Option<Vec<String>>,
        pub mac_address: String,
        pub driver_opts: Option<BTreeMap<String, String>>,
        pub gw_priority: i64,
    }
}

api_object! {
    pub struct EndpointIpam {
        #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
        pub ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Option::is_none")]
        pub link_local_ips: Option<Vec<String>>,
    }
}

/// A container, from `create` until `rm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Drawn at random when it was created.
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    /// When that was.
    pub created: Timestamp,
    /// What it stands on, whatever the image is called now.
    pub image: ImageId,
    /// Merged with the image's.
    pub config: Config,
    /// What it has of this machine.
    pub host: HostConfig,
    /// What it is attached to, in the order of attachment. The only list of endpoints there is.
    pub endpoints: Vec<Endpoint>,
    /// What lies over its root file system.
    pub mounts: Vec<MountPoint>,
    /// How it is.
    pub state: State,
    /// How often its restart policy has started it again.
    pub restarts: u32,
    /// The client stopped it: `unless-stopped` keeps it so across daemons.
    pub stopped_by_client: bool,
    /// It runs a step of a build, and goes with the daemon that builds.
    #[serde(default)]
    pub step: bool,
}

/// That a container belongs to a network, whether or not it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// None while the name is not yet known to be a network's: an unknown one fails at start (LC-07).
    pub network: Option<NetworkId>,
    /// As the client said it: found again by name where the network was made anew (pain 10).
    pub network_name: String,
    /// What was asked for.
    pub settings: EndpointSettings,
    /// Made real while the container runs.
    pub active: Option<ActiveEndpoint>,
}

/// What an endpoint of a running container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveEndpoint {
    /// As the kernel has it.
    pub attachment: crate::desired::Attachment,
    /// Of the container's ports, those that lead to this endpoint: it is the way out of their family (PT-11).
    pub publications: std::collections::BTreeSet<crate::desired::Publication>,
}

impl ActiveEndpoint {
    /// Its address, with the network's prefix.
    pub fn ipv4(&self) -> Option<ipnet::Ipv4Net> {
        self.attachment.addresses.iter().find_map(|a| if let ipnet::IpNet::V4(a) = a { Some(*a) } else { None })
    }
    /// Its address, with the network's prefix.
    pub fn ipv6(&self) -> Option<ipnet::Ipv6Net> {
        self.attachment.addresses.iter().find_map(|a| if let ipnet::IpNet::V6(a) = a { Some(*a) } else { None })
    }
}

/// How a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// In Docker's words.
    pub status: Status,
    /// As the daemon sees it; 0 unless it runs.
    pub pid: u32,
    /// Of the last run: as a shell has it, 127 and 126 for a program that could not be started.
    pub exit_code: i64,
    /// Why the last start failed; empty where it did not.
    pub error: String,
    /// In the last run the kernel killed something for want of memory.
    pub oom_killed: bool,
    /// When the last run began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Its network namespace, from its start on until nobody needs it.
    pub sandbox: Option<crate::id::SandboxId>,
    /// Host ports, while it runs.
    #[serde(default)]
    pub ports: Vec<crate::port::Published>,
}

impl State {
    /// Before the first start.
    pub fn created() -> Self {
        State {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started: None,
            finished: None,
            sandbox: None,
            ports: Vec::new(),
        }
    }
    /// Its process exists: running, or paused.
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// Docker's words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "Docker's words for it")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// What lies over the root file system, resolved at creation: `Mounts` of an inspection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    /// What it shows.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// The volume's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where that is on the host.
    pub source: String,
    /// Where it is in the container.
    pub destination: String,
    /// The volume's: `local`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as `-v` has them.
    pub mode: String,
    /// It can be changed.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// As mount(8) has it: `rprivate` …
    pub propagation: String,
    /// Made for this container alone: goes with `rm -v` and `--rm`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// The part of the volume that is mounted; empty is all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// What a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// Something of the host's.
    Bind,
    /// A directory that the engine keeps.
    Volume,
    /// Memory.
    Tmpfs,
}

/// What `NetworkMode` says (API-20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode<'a> {
    /// The default network.
    Default,
    /// A loopback alone.
    None,
    /// The host's own namespace.
    Host,
    /// The sandbox of another container, by name or id.
    Container(&'a str),
    /// A network namespace that somebody else has made, by its path (DR-04).
    Path(&'a str),
    /// A network, by name or id.
    Network(&'a str),
}

impl HostConfig {
    /// Whether `--sysctl` turns IPv6 off for an interface of the container, or for all (SEC-11).
    pub fn turns_ipv6_off(&self, interface: &str) -> bool {
        let keys = ["all", interface].map(|which| format!("net.ipv6.conf.{which}.disable_ipv6"));
        let given = self.sysctls.iter().flatten();
        given.map(|(key, value)| (key.replace('/', "."), value.trim())).any(|(key, v)| keys.contains(&key) && v != "0")
    }

    /// What `NetworkMode` says; nothing said is the default network.
    pub fn network_mode(&self) -> NetworkMode<'_> {
        match self.network_mode.as_str() {
            "" | "default" | "bridge" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            mode => match mode.split_once(':') {
                Some(("container", other)) => NetworkMode::Container(other),
                Some(("ns", path)) => NetworkMode::Path(path),
                _ => NetworkMode::Network(mode),
            },
        }
    }

    /// Whether it may give its interfaces addresses of its own: what it sends is not held against the ones it was given.
    pub fn may_change_addresses(&self) -> bool {
        let grants = |c: &String| {
            let c = c.to_ascii_uppercase();
            matches!(c.trim_start_matches("CAP_"), "NET_ADMIN" | "ALL")
        };
        self.privileged || self.cap_add.iter().flatten().any(grants)
    }
}

impl Container {
    /// The names under which this container is found on a network: its name, the endpoint's aliases, the short id, the
    /// hostname; in this order, without duplicates (DNS-04, API-28).
    pub fn dns_names(&self, endpoint: &EndpointSettings) -> Vec<String> {
        let aliases = endpoint.aliases.iter().flatten().cloned();
        let all =
            std::iter::once(self.name.clone()).chain(aliases).chain([self.id.short(), self.config.hostname.clone()]);
        let mut names: Vec<String> = Vec::new();
        for name in all {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The ports that it wants published. `default_host`: where a binding without an address goes.
    ///
    /// # Errors
    /// A text is no port or address.
    pub fn wanted_ports(&self, default_host: Option<IpAddr>) -> Result<Vec<Wanted>, PortRefusal> {
        let exposed = self.config.exposed_ports.keys().filter_map(|p| crate::port::parse_range(p).ok()).flatten();
        let host = &self.host;
        crate::port::plan_requests(&host.port_bindings, exposed, host.publish_all_ports, default_host)
    }

    /// The endpoint on a network, if it has one.
    pub fn endpoint_on(&self, network: NetworkId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.network == Some(network))
    }

    /// The command line: what `inspect` calls `Path` and `Args`.
    pub fn command(&self) -> Vec<String> {
        let parts = [&self.config.entrypoint, &self.config.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }
}

/// The longest name, alias and link, in bytes: the longest domain name as text (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 253;
/// The most aliases of an endpoint, and links of a container.
pub const MAX_NAMES: usize = 128;

/// More names than one container can be found under, or finds others under. All that a container means for the resolver
/// is told in one message of bounded size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum NameRefusal {
    #[error("too many {what}: {count} were given, at most {MAX_NAMES} are allowed")]
    TooMany { what: &'static str, count: usize },
    #[error("invalid {what} \"{}...\": {} bytes are more than the {MAX_NAME} of a domain name",
        .text.chars().take(32).collect::<String>(), .text.len())]
    TooLong { what: &'static str, text: String },
}

/// Whether the names that a container's endpoints bring with them have a place in the resolver.
///
/// # Errors
/// One is too long, or there are too many.
pub fn check_names<'a>(endpoints: impl Iterator<Item = &'a EndpointSettings> + Clone) -> Result<(), NameRefusal> {
    let bounded = |what: &'static str, list: &mut dyn Iterator<Item = &'a String>| {
        let mut count = 0;
        for text in list {
            count += 1;
            // A link is two names.
            if text.split(':').any(|name| name.len() > MAX_NAME) {
                return Err(NameRefusal::TooLong { what, text: text.clone() });
            }
        }
        if count > MAX_NAMES { Err(NameRefusal::TooMany { what, count }) } else { Ok(()) }
    };
    for endpoint in endpoints.clone() {
        bounded("aliases", &mut endpoint.aliases.iter().flatten())?;
    }
    bounded("links", &mut endpoints.flat_map(|e| e.links.iter().flatten()))
}

/// Whether a name may be a container's, in Docker's rule, and fits a domain name.
pub fn is_valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    first
        && (2..=MAX_NAME).contains(&name.len())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_the_same_for_every_field() {
        let all: serde_json::Value = serde_json::to_value(HostConfig::default()).unwrap();
        let nulls: serde_json::Map<_, _> =
            all.as_object().unwrap().keys().map(|k| (k.clone(), serde_json::Value::Null)).collect();
        let read: HostConfig = serde_json::from_value(nulls.into()).unwrap();
        assert_eq!(read, HostConfig::default());
        assert_eq!(serde_json::from_str::<HostConfig>("{}").unwrap(), HostConfig::default());
    }

    #[test]
    fn api_21_echoed_fields_of_an_inspection_are_accepted_and_dropped() {
        let sent = r#"{"IPAMConfig":{"IPv4Address":"10.1.1.5"},"Aliases":["db"],"NetworkID":"abc","EndpointID":"d",
            "IPAddress":"10.1.1.9","IPPrefixLen":24,"Gateway":"10.1.1.1","DNSNames":["x"]}"#;
        let read: EndpointSettings = serde_json::from_str(sent).unwrap();
        assert_eq!(read.aliases.unwrap(), ["db"]);
        assert_eq!(read.ipam_config.unwrap().ipv4_address, "10.1.1.5");
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["web", "a1", "my_web-1.x", "0a"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "a", "-x", ".x", "a b", "a/b", "ä1"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_that_no_message_can_carry_are_refused() {
        let endpoint = |aliases: usize, links: usize, length: usize| EndpointSettings {
            aliases: Some(vec!["a".repeat(length); aliases]),
            links: Some(vec![format!("{0}:{0}", "l".repeat(length)); links]),
            ..Default::default()
        };
        let check = |list: &[EndpointSettings]| check_names(list.iter()).map_err(|e| e.to_string());
        let full = endpoint(MAX_NAMES, MAX_NAMES, MAX_NAME);
        assert_eq!(check(std::slice::from_ref(&full)), Ok(()));
        assert!(check(&[endpoint(MAX_NAMES + 1, 0, 1)]).unwrap_err().contains("too many aliases: 129"));
        assert!(check(&[full, endpoint(0, 1, 1)]).unwrap_err().contains("too many links: 129"));
        assert!(check(&[endpoint(1, 0, MAX_NAME + 1)]).unwrap_err().contains("254 bytes"));
        assert!(check(&[endpoint(0, 1, MAX_NAME + 1)]).is_err());
    }
}
