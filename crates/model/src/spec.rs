//! What a container shall be, as an OCI runtime specification: computed here, purely, from a plain description of what
//! was asked for. The launcher makes it so; `--runtime runc` is handed the same value as its config.json.
//!
//! The defaults are Docker's. The specification is a document, so it is written here in its own words.

mod capabilities;
mod mounts;
mod ulimit;

pub use capabilities::{CAPABILITIES, CapabilitySet, capabilities};
pub use mounts::{Propagation, tmpfs_options};
pub use ulimit::Ulimit;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What was asked for, with users, devices and sources looked up already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty is `/`.
    pub cwd: String,
    /// It has a terminal of its own.
    pub tty: bool,
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    /// Who it is.
    pub user: User,
    /// It may what the daemon may.
    pub privileged: bool,
    /// With or without `CAP_`, any case; `ALL`.
    pub cap_add: Vec<String>,
    /// The same, taken away.
    pub cap_drop: Vec<String>,
    /// What `ALL` and `privileged` mean on this machine: what the daemon itself may give.
    pub available: CapabilitySet,
    /// Nothing at `/` can be changed.
    pub readonly_root: bool,
    /// Beside the usual ones, in order. One with a usual one's target replaces it.
    pub mounts: Vec<Mount>,
    /// Of `/dev/shm`, in bytes; 64 MiB.
    pub shm_size: Option<u64>,
    /// Others stay as the shim's.
    pub ulimits: Vec<Ulimit>,
    /// Nothing that it executes gains any.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// `systempaths=unconfined`: nothing masked, nothing read-only.
    pub system_paths_unconfined: bool,
    /// Instead of Docker's.
    pub masked_paths: Option<Vec<String>>,
    /// Instead of Docker's.
    pub readonly_paths: Option<Vec<String>>,
    /// How much of the machine it may use.
    pub resources: Resources,
    /// Beside the usual ones.
    pub devices: Vec<Device>,
    /// As `--device-cgroup-rule` has them: `c 42:* rmw`.
    pub device_rules: Vec<String>,
    /// Empty leaves what is there.
    pub hostname: String,
    /// The same, for NIS.
    pub domainname: String,
    /// Keys with dots, or as paths below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Whose processes it sees.
    pub pid: Namespace,
    /// Whose System V objects and message queues.
    pub ipc: Namespace,
    /// Whose hostname.
    pub uts: Namespace,
    /// What of the hierarchies is seen.
    pub cgroup: Namespace,
    /// The host's network namespace: sysfs is then shown read-only as ever, and no host name is the container's own.
    pub host_network: bool,
    /// Maps of users and groups, if there shall be a user namespace: (inside, outside, count).
    pub id_maps: Option<IdMaps>,
    /// -1000, which is never killed, to 1000.
    pub oom_score_adj: Option<i32>,
    /// The machine has cgroups of version 1, whose own namespace is then off unless asked for.
    pub cgroup_v1: bool,
    /// For other runtimes.
    pub annotations: BTreeMap<String, String>,
}

/// Who the process is, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// In the container's user namespace, as the groups are.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All of them, the primary one first.
    pub groups: Vec<u32>,
    /// `None`: 0022.
    pub umask: Option<u32>,
}

/// Whose namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's: which one is said beside the specification.
    Join,
}

/// Which users and groups inside are which outside: (inside, outside, count).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// Of users.
    pub uids: Vec<(u32, u32, u32)>,
    /// Of groups.
    pub gids: Vec<(u32, u32, u32)>,
}

/// Something that lies over the root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Something of the host's, which exists.
    Bind {
        /// Where it is there.
        source: String,
        /// Where it is in the container.
        target: String,
        /// It cannot be changed here.
        readonly: bool,
        /// What is mounted below the source comes along.
        recursive: bool,
        /// Everything below is read-only too, where `readonly` says so.
        recursive_readonly: bool,
        /// Which mounts made later are seen on its other side.
        propagation: Propagation,
    },
    /// Options as `--tmpfs` takes them: `size=64m`, `mode=1770`, `exec`.
    Tmpfs {
        /// Where it is in the container.
        target: String,
        /// One by one.
        options: Vec<String>,
    },
}

/// The search path of containers and builds that have none: Docker's.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Seccomp {
    /// Docker's list of what is harmless.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// How much of the machine a container may use; `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of both together; -1 is unlimited. Docker's default is twice the memory.
    pub memory_swap: Option<i64>,
    /// Bytes: what it is held to where memory is short.
    pub memory_reservation: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Processes that want too much memory wait instead.
    pub oom_kill_disable: bool,
    /// Thousand-millionths of a CPU, as the API has it.
    pub nano_cpus: Option<i64>,
    /// Relative, 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// A list as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// The same of NUMA nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 is unlimited.
    pub pids_limit: Option<i64>,
    /// Relative, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Bytes a second that are read: (major, minor, rate).
    pub read_bytes: Vec<(i64, i64, u64)>,
    /// The same of what is written.
    pub write_bytes: Vec<(i64, i64, u64)>,
    /// The same of reads.
    pub read_operations: Vec<(i64, i64, u64)>,
    /// The same of writes.
    pub write_operations: Vec<(i64, i64, u64)>,
}

/// A node to make, and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// In the container.
    pub path: String,
    /// `b`, `c` or `p`.
    pub kind: char,
    /// The driver's number.
    pub major: i64,
    /// The device's among the driver's.
    pub minor: i64,
    /// Permissions of the node.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

/// Why there is no such container.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Refusal {
    #[error("invalid {option}: unknown capability: {name:?}")]
    Capability {
        /// `CapAdd` or `CapDrop`.
        option: &'static str,
        /// With `CAP_`.
        name: String,
    },
    #[error("invalid ulimit type: {0}")]
    Ulimit(String),
    #[error("invalid ulimit argument: {0}")]
    UlimitArgument(String),
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder { soft: i64, hard: i64 },
    #[error("invalid device cgroup rule: {0:?}: it must be like 'c 42:* rmw'")]
    DeviceRule(String),
    #[error("invalid tmpfs option: {0:?}")]
    TmpfsOption(String),
    #[error("sysctl {0:?} is not allowed while the container uses the host's {1} namespace")]
    SysctlOfHost(String, &'static str),
    #[error("sysctl {0:?} is not separate for containers")]
    Sysctl(String),
    #[error("the seccomp profile cannot be used")]
    Seccomp(#[from] crate::seccomp::Refusal),
    #[error("the container's specification makes no sense")]
    Specification(#[from] serde_json::Error),
}

/// Of which nothing is seen in a container that is not privileged: Docker's list.
pub const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];

/// What cannot be written in one: Docker's list.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Description {
    /// The capabilities that the process may have: Docker's, and those added, without those dropped.
    ///
    /// # Errors
    /// A name is none.
    pub fn capabilities(&self) -> Result<CapabilitySet, Refusal> {
        capabilities(self.privileged, &self.cap_add, &self.cap_drop, self.available)
    }

    /// The specification.
    ///
    /// # Errors
    /// Something asked for makes no sense.
    pub fn spec(&self) -> Result<Spec, Refusal> {
        let capabilities = self.capabilities()?;
        let unmasked = self.privileged || self.system_paths_unconfined;
        let list = |own: &Option<Vec<String>>, usual: &[&str]| match own {
            Some(own) => own.clone(),
            None if unmasked => Vec::new(),
            None => usual.iter().map(|path| (*path).to_owned()).collect(),
        };
        let seccomp = self.seccomp(capabilities)?;
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "network"})];
        for (name, kind) in [("pid", self.pid), ("ipc", self.ipc), ("uts", self.uts), ("cgroup", self.cgroup)] {
            if kind == Namespace::Private {
                namespaces.push(json!({ "type": name }));
            }
        }
        if self.host_network {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        let mut linux = json!({
            "resources": self.resources()?,
            "namespaces": namespaces,
            "maskedPaths": list(&self.masked_paths, &MASKED_PATHS),
            "readonlyPaths": list(&self.readonly_paths, &READONLY_PATHS),
            "devices": self.devices.iter().map(device).collect::<Vec<_>>(),
        });
        if let Some(maps) = &self.id_maps {
            let map = |maps: &[(u32, u32, u32)]| -> Vec<Value> {
                maps.iter()
                    .map(|(inside, outside, size)| json!({"containerID": inside, "hostID": outside, "size": size}))
                    .collect()
            };
            linux["uidMappings"] = map(&maps.uids).into();
            linux["gidMappings"] = map(&maps.gids).into();
            if let Some(namespaces) = linux["namespaces"].as_array_mut() {
                namespaces.push(json!({"type": "user"}));
            }
        }
        if !self.sysctls.is_empty() {
            self.check_sysctls()?;
            linux["sysctl"] = json!(self.sysctls);
        }
        if let Some(seccomp) = seccomp {
            linux["seccomp"] = serde_json::to_value(seccomp)?;
        }
        if let Some(word) = self.root_propagation() {
            linux["rootfsPropagation"] = json!(word);
        }
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": self.process(capabilities)?,
            "root": {"path": "rootfs", "readonly": self.readonly_root},
            "mounts": self.mounts()?,
            "linux": linux,
            "annotations": self.annotations,
        });
        if self.uts == Namespace::Private {
            spec["hostname"] = json!(self.hostname);
            if !self.domainname.is_empty() {
                spec["domainname"] = json!(self.domainname);
            }
        }
        Ok(serde_json::from_value(spec)?)
    }

    /// The filter for the container's own process and every command in it; `None`: none.
    ///
    /// # Errors
    /// A profile that was given is none.
    pub fn seccomp(&self, capabilities: CapabilitySet) -> Result<Option<LinuxSeccomp>, Refusal> {
        Ok(match &self.seccomp {
            _ if self.privileged => None,
            Seccomp::Unconfined => None,
            Seccomp::Default => Some(crate::seccomp::default_profile(capabilities)),
            Seccomp::Profile(text) => Some(crate::seccomp::read_profile(text, capabilities)?),
        })
    }

    fn process(&self, capabilities: CapabilitySet) -> Result<Value, Refusal> {
        let mut process = json!({
            "terminal": self.tty,
            "user": user(&self.user),
            "args": self.args,
            "env": self.env,
            "cwd": if self.cwd.is_empty() { "/" } else { &self.cwd },
            "capabilities": process_capabilities(capabilities, self.user.uid),
            "rlimits": self.ulimits.iter().map(rlimit).collect::<Result<Vec<_>, _>>()?,
            "noNewPrivileges": self.no_new_privileges,
        });
        if let Some((rows, columns)) = self.size {
            process["consoleSize"] = json!({"height": rows, "width": columns});
        }
        if let Some(score) = self.oom_score_adj {
            process["oomScoreAdj"] = json!(score);
        }
        Ok(process)
    }

    fn mounts(&self) -> Result<Vec<Value>, Refusal> {
        let harmless = ["nosuid", "noexec", "nodev"];
        let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
        let with = |more: &[&'static str]| [&harmless[..], more].concat();
        let read_write: &[&'static str] = if self.privileged { &["rw"] } else { &["ro"] };
        let size = format!("size={}", self.shm_size.unwrap_or(64 << 20));
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &harmless),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/sys", "sysfs", "sysfs", &with(read_write)),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &[read_write, &harmless[..]].concat()),
        ];
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &harmless));
        // The host's own segments are shown where its namespace is used.
        mounts.push(match self.ipc {
            Namespace::Host => bind_value("/dev/shm", "/dev/shm", &["rbind", "rprivate"]),
            _ => json!({
                "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", size],
            }),
        });
        for one in &self.mounts {
            let (target, value) = match one {
                Mount::Bind { source, target, readonly, recursive, recursive_readonly, propagation } => {
                    let mut options = vec![if *recursive { "rbind" } else { "bind" }];
                    if *readonly {
                        options.push("ro");
                        if *recursive && *recursive_readonly {
                            options.push("rro");
                        }
                    }
                    options.push(propagation.word());
                    (target, bind_value(source, target, &options))
                }
                Mount::Tmpfs { target, options } => {
                    let options = tmpfs_options(options)?;
                    let value = json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options});
                    (target, value)
                }
            };
            let clean = target.trim_end_matches('/');
            mounts
                .retain(|known| known["destination"].as_str().is_none_or(|known| known.trim_end_matches('/') != clean));
            mounts.push(value);
        }
        // What lies higher comes first, whatever the order it was asked for in.
        mounts.sort_by_key(|mount| {
            mount["destination"].as_str().map_or(0, |path| path.split('/').filter(|name| !name.is_empty()).count())
        });
        Ok(mounts)
    }

    /// Binds that shall propagate need a root that lets them.
    fn root_propagation(&self) -> Option<&'static str> {
        let any = |wanted: &[Propagation]| {
            self.mounts.iter().any(|m| matches!(m, Mount::Bind { propagation, .. } if wanted.contains(propagation)))
        };
        if any(&[Propagation::Shared, Propagation::RecursivelyShared]) {
            Some("shared")
        } else if any(&[Propagation::Slave, Propagation::RecursivelySlave]) {
            Some("rslave")
        } else {
            None
        }
    }

    fn check_sysctls(&self) -> Result<(), Refusal> {
        for name in self.sysctls.keys() {
            let ipc = [
                "kernel.msgmax",
                "kernel.msgmnb",
                "kernel.msgmni",
                "kernel.sem",
                "kernel.shmall",
                "kernel.shmmax",
                "kernel.shmmni",
                "kernel.shm_rmid_forced",
            ];
            let whose = if name.starts_with("net.") {
                (self.host_network, "network")
            } else if ipc.contains(&&**name) || name.starts_with("fs.mqueue.") {
                (self.ipc == Namespace::Host, "ipc")
            } else if ["kernel.domainname", "kernel.hostname"].contains(&&**name) {
                (self.uts == Namespace::Host, "uts")
            } else {
                return Err(Refusal::Sysctl(name.clone()));
            };
            if whose.0 {
                return Err(Refusal::SysctlOfHost(name.clone(), whose.1));
            }
        }
        Ok(())
    }

    fn resources(&self) -> Result<Value, Refusal> {
        let mut value = self.resources.spec();
        let mut rules = Vec::new();
        if self.privileged {
            rules.push(json!({"allow": true, "access": "rwm"}));
        } else {
            rules.push(json!({"allow": false, "access": "rwm"}));
            for kind in ["c", "b"] {
                rules.push(json!({"allow": true, "type": kind, "access": "m"}));
            }
            for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
                rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
            }
            rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
            for device in self.devices.iter().filter(|device| device.kind != 'p') {
                rules.push(json!({
                    "allow": true, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
                    "access": device.access,
                }));
            }
            for rule in &self.device_rules {
                rules.push(device_rule(rule).ok_or_else(|| Refusal::DeviceRule(rule.clone()))?);
            }
        }
        value["devices"] = rules.into();
        Ok(value)
    }
}

impl Resources {
    /// As the specification has them; also what `update` hands to the runtime.
    pub fn spec(&self) -> Value {
        let mut memory = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                memory.insert(key.to_owned(), value);
            }
        };
        let limit = self.memory.filter(|limit| *limit != 0);
        put("limit", limit.map(Into::into));
        // Unsaid, swap may be as much again as memory.
        let swap = self
            .memory_swap
            .filter(|swap| *swap != 0)
            .or(limit.filter(|limit| *limit > 0).map(|limit| limit.saturating_mul(2)));
        put("swap", swap.map(Into::into));
        put("reservation", self.memory_reservation.filter(|bytes| *bytes != 0).map(Into::into));
        put("swappiness", self.memory_swappiness.map(Into::into));
        put("disableOOMKiller", self.oom_kill_disable.then_some(true.into()));
        let mut cpu = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                cpu.insert(key.to_owned(), value);
            }
        };
        const PERIOD: i64 = 100_000;
        let nano = self.nano_cpus.filter(|nano| *nano > 0);
        put("shares", self.cpu_shares.filter(|shares| *shares > 0).map(Into::into));
        let quota =
            nano.map(|nano| nano.saturating_mul(PERIOD) / 1_000_000_000).or(self.cpu_quota.filter(|quota| *quota != 0));
        put("quota", quota.map(Into::into));
        let period = nano.map(|_| PERIOD as u64).or(self.cpu_period.filter(|period| *period > 0));
        put("period", period.map(Into::into));
        let text = |list: &Option<String>| list.clone().filter(|list| !list.is_empty()).map(Value::from);
        put("cpus", text(&self.cpuset_cpus));
        put("mems", text(&self.cpuset_mems));
        let mut block = Map::new();
        if let Some(weight) = self.blkio_weight.filter(|weight| *weight > 0) {
            block.insert("weight".to_owned(), weight.into());
        }
        for (key, rates) in [
            ("throttleReadBpsDevice", &self.read_bytes),
            ("throttleWriteBpsDevice", &self.write_bytes),
            ("throttleReadIOPSDevice", &self.read_operations),
            ("throttleWriteIOPSDevice", &self.write_operations),
        ] {
            if !rates.is_empty() {
                let rates =
                    rates.iter().map(|(major, minor, rate)| json!({"major": major, "minor": minor, "rate": rate}));
                block.insert(key.to_owned(), rates.collect::<Vec<_>>().into());
            }
        }
        let mut value = Map::new();
        for (key, part) in [("memory", memory), ("cpu", cpu), ("blockIO", block)] {
            if !part.is_empty() {
                value.insert(key.to_owned(), part.into());
            }
        }
        if let Some(limit) = self.pids_limit.filter(|limit| *limit != 0) {
            value.insert("pids".to_owned(), json!({ "limit": limit }));
        }
        value.into()
    }
}

fn user(user: &User) -> Value {
    let mut value = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
    if let Some(umask) = user.umask {
        value["umask"] = json!(umask);
    }
    value
}

/// As Docker has them: for others than root only the bounding set, as after an `execve`.
fn process_capabilities(set: CapabilitySet, uid: u32) -> Value {
    let names = set.names();
    if uid == 0 {
        json!({"bounding": names, "effective": names, "permitted": names})
    } else {
        json!({ "bounding": names })
    }
}

fn bind_value(source: &str, target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

fn rlimit(limit: &Ulimit) -> Result<Value, Refusal> {
    limit.check()?;
    let name = format!("RLIMIT_{}", limit.name.to_uppercase());
    Ok(json!({"type": name, "soft": limit.soft as u64, "hard": limit.hard as u64}))
}

fn device(device: &Device) -> Value {
    json!({
        "path": device.path, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
        "fileMode": device.mode & 0o777, "uid": device.uid, "gid": device.gid,
    })
}

/// `c 42:* rmw`
fn device_rule(rule: &str) -> Option<Value> {
    let mut words = rule.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| if text == "*" { Some(-1) } else { text.parse::<i64>().ok().filter(|n| *n >= 0) };
    let (major, minor) = (number(major)?, number(minor)?);
    if words.next().is_some()
        || !["a", "b", "c"].contains(&kind)
        || access.is_empty()
        || access.chars().any(|c| !"rwm".contains(c))
    {
        return None;
    }
    Some(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> Description {
        Description {
            args: vec!["true".to_owned()],
            hostname: "c".to_owned(),
            available: CapabilitySet::ALL,
            ..Description::default()
        }
    }

    #[test]
    fn others_than_root_have_the_bounding_set_only() {
        let spec = Description { user: User { uid: 1000, ..User::default() }, ..described() }.spec().unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 14);
        assert!(sets.effective().is_none() && sets.permitted().is_none() && sets.inheritable().is_none());
    }

    #[test]
    fn a_mount_replaces_the_usual_one_and_the_higher_come_first() {
        let bind = |target: &str| Mount::Bind {
            source: "/src".to_owned(),
            target: target.to_owned(),
            readonly: true,
            recursive: true,
            recursive_readonly: false,
            propagation: Propagation::RecursivelyPrivate,
        };
        let mounts = vec![bind("/data/deep/er"), bind("/dev/shm"), bind("/data")];
        let spec = Description { mounts, ..described() }.spec().unwrap();
        let targets: Vec<String> =
            spec.mounts().as_ref().unwrap().iter().map(|m| m.destination().display().to_string()).collect();
        assert_eq!(
            targets,
            [
                "/proc",
                "/dev",
                "/sys",
                "/data",
                "/dev/pts",
                "/dev/mqueue",
                "/dev/shm",
                "/sys/fs/cgroup",
                "/data/deep/er"
            ]
        );
    }

    #[test]
    fn limits_become_what_the_kernel_counts() {
        let resources = Resources {
            memory: Some(100 << 20),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(7),
            ..Resources::default()
        };
        let value = resources.spec();
        assert_eq!(value["memory"], json!({"limit": 100 << 20, "swap": 200 << 20}));
        assert_eq!(value["cpu"], json!({"quota": 150_000, "period": 100_000}));
        assert_eq!(value["pids"]["limit"], 7);
        assert_eq!(Resources::default().spec(), json!({}));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |description: Description| description.spec().map(|_| ()).unwrap_err();
        let ulimit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
        assert!(matches!(
            refused(Description { ulimits: vec![ulimit("nofiles", 1, 1)], ..described() }),
            Refusal::Ulimit(_)
        ));
        assert!(matches!(
            refused(Description { ulimits: vec![ulimit("nofile", 2, 1)], ..described() }),
            Refusal::UlimitOrder { .. }
        ));
        assert!(matches!(
            refused(Description { device_rules: vec!["c 1:x r".to_owned()], ..described() }),
            Refusal::DeviceRule(_)
        ));
        let sysctl = |name: &str| BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        assert!(matches!(refused(Description { sysctls: sysctl("vm.swappiness"), ..described() }), Refusal::Sysctl(_)));
        assert!(matches!(
            refused(Description { sysctls: sysctl("net.ipv4.ip_forward"), host_network: true, ..described() }),
            Refusal::SysctlOfHost(..)
        ));
        let tmpfs = Mount::Tmpfs { target: "/t".to_owned(), options: vec!["colour=red".to_owned()] };
        assert!(matches!(refused(Description { mounts: vec![tmpfs], ..described() }), Refusal::TmpfsOption(_)));
    }
}
