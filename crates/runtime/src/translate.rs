//! From the OCI specification to what the launcher is told. Pure: which words mean which numbers.

use crate::StartOrder;
use kernel::cgroup::{Cgroup, DeviceRule, Hierarchies, Limits, Throttle, Version};
use oci_spec::runtime::{
    Capabilities as CapabilityNames, LinuxDeviceType, LinuxNamespaceType, LinuxResources, LinuxThrottleDevice, Process,
    Spec,
};
use shim_protocol::Size;
use shim_protocol::launch::{
    Capabilities, Command, Device, IdMaps, Instruction, Launch, Mount, Namespace, Namespaces, RLIMITS, Rlimit, Root,
    Stdio, What,
};
use std::path::{Path, PathBuf};

/// Why a specification cannot be launched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Untranslatable {
    #[error("the specification lacks its {0}")]
    Lacks(&'static str),
    #[error("unknown resource limit {0}")]
    Rlimit(String),
    #[error("invalid mount propagation {0:?}")]
    Propagation(String),
    #[error("{0}")]
    Target(String),
}

/// What the launcher is told, but for the log, descriptors and where things are.
pub(crate) struct Place<'a> {
    pub cgroup: &'a Cgroup,
    pub hierarchies: &'a Hierarchies,
    pub attach_at: &'a Path,
    /// What this daemon itself may do, by bits.
    pub available: u64,
}

pub(crate) fn launch(
    order: &StartOrder,
    place: &Place<'_>,
    seccomp: Option<Vec<Instruction>>,
) -> Result<Launch, Untranslatable> {
    let spec = &order.spec;
    let process = spec.process().as_ref().ok_or(Untranslatable::Lacks("process"))?;
    let linux = spec.linux().as_ref().ok_or(Untranslatable::Lacks("Linux part"))?;
    let mut mounts = Vec::new();
    for one in spec.mounts().iter().flatten() {
        let mut mount = mount(one, place)?;
        // Segments belong together with their namespace.
        if order.join.ipc.is_some() && mount.target == "/dev/shm" && matches!(mount.what, What::New { .. }) {
            mount.what = What::JoinedShm;
        }
        mounts.push(mount);
    }
    let has = |wanted: LinuxNamespaceType| linux.namespaces().iter().flatten().any(|one| one.typ() == wanted);
    let kind = |wanted, joined: bool| match (joined, has(wanted)) {
        (true, _) => Namespace::Join,
        (false, true) => Namespace::New,
        (false, false) => Namespace::Host,
    };
    // A network namespace is handed over, or the daemon's own is used; the specification's word alone makes a new one.
    let namespaces = Namespaces {
        net: kind(LinuxNamespaceType::Network, order.netns.is_some()),
        pid: kind(LinuxNamespaceType::Pid, order.join.pid.is_some()),
        ipc: kind(LinuxNamespaceType::Ipc, order.join.ipc.is_some()),
        uts: kind(LinuxNamespaceType::Uts, order.join.uts.is_some()),
        cgroup: kind(LinuxNamespaceType::Cgroup, false),
        user: has(LinuxNamespaceType::User).then(|| id_maps(linux)),
    };
    Ok(Launch {
        command: command(process, seccomp, place.available)?,
        stdio: Stdio {
            tty: order.stdio.tty,
            size: order.stdio.size,
            stdin: order.stdio.open_stdin,
            stdin_once: order.stdio.stdin_once,
        },
        log: order.log.clone(),
        root: root(order, place.attach_at)?,
        mounts,
        devices: devices(spec),
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        sysctls: {
            let mut all: Vec<(String, String)> =
                linux.sysctl().iter().flatten().map(|(name, value)| (sysctl_path(name), value.clone())).collect();
            all.sort();
            all
        },
        namespaces,
        cgroup: shim_cgroup(place.cgroup),
        init: order.init,
        foreign: None,
        fail_at: order.fail_at,
    })
}

/// `net.ipv4.conf.eth0/1.forwarding`: a slash stands for a dot in a name, where dots separate.
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    }
}

pub(crate) fn shim_cgroup(cgroup: &Cgroup) -> shim_protocol::launch::Cgroup {
    let directories = cgroup.directories();
    shim_protocol::launch::Cgroup {
        v2: cgroup.v2.clone(),
        v1: directories.into_iter().filter(|path| Some(*path) != cgroup.v2.as_deref()).map(Path::to_path_buf).collect(),
        oom: cgroup.oom_file(),
    }
}

fn root(order: &StartOrder, attach_at: &Path) -> Result<Root, Untranslatable> {
    let linux = order.spec.linux().as_ref();
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).filter(|word| !word.is_empty());
    Ok(Root {
        lower: order.rootfs.lower.clone(),
        upper: order.rootfs.upper.clone(),
        work: order.rootfs.work.clone(),
        volatile: order.rootfs.volatile,
        readonly: order.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        attach_at: attach_at.to_path_buf(),
        propagation: propagation
            .map(|word| propagation_bits(word).ok_or_else(|| Untranslatable::Propagation(word.to_owned())))
            .transpose()?,
    })
}

fn id_maps(linux: &oci_spec::runtime::Linux) -> IdMaps {
    let lines = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        let lines =
            maps.iter().flatten().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size()));
        lines.collect::<String>()
    };
    IdMaps { uids: lines(linux.uid_mappings()), gids: lines(linux.gid_mappings()) }
}

/// A process of the specification as the launcher's command. Capabilities that the daemon lacks cannot be given.
pub(crate) fn command(
    process: &Process,
    seccomp: Option<Vec<Instruction>>,
    available: u64,
) -> Result<Command, Untranslatable> {
    let sets = process.capabilities().as_ref();
    let set = |names: Option<&CapabilityNames>| names.map_or(0, |names| capability_bits(names) & available);
    let user = process.user();
    Ok(Command {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().display().to_string(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: Capabilities {
            bounding: set(sets.and_then(|sets| sets.bounding().as_ref())),
            effective: set(sets.and_then(|sets| sets.effective().as_ref())),
            permitted: set(sets.and_then(|sets| sets.permitted().as_ref())),
            inheritable: set(sets.and_then(|sets| sets.inheritable().as_ref())),
            ambient: set(sets.and_then(|sets| sets.ambient().as_ref())),
        },
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: process
            .rlimits()
            .iter()
            .flatten()
            .map(|limit| {
                let name = limit.typ().to_string();
                let resource = rlimit_number(&name).ok_or(Untranslatable::Rlimit(name))?;
                Ok(Rlimit { resource, soft: limit.soft(), hard: limit.hard() })
            })
            .collect::<Result<_, _>>()?,
        seccomp,
        oom_score_adj: process.oom_score_adj(),
    })
}

/// The capabilities asked for that `available` lacks, as names.
pub(crate) fn unavailable(process: &Process, available: u64) -> Vec<String> {
    let sets = process.capabilities().as_ref();
    let asked = sets.and_then(|sets| sets.bounding().as_ref()).map_or(0, capability_bits);
    model::spec::CapabilitySet(asked & !available).names()
}

fn capability_bits(names: &CapabilityNames) -> u64 {
    names
        .iter()
        .filter_map(|name| model::spec::CapabilitySet::named(&name.to_string()))
        .fold(0, |bits, one| bits | one.0)
}

fn rlimit_number(name: &str) -> Option<u32> {
    let lower = name.to_lowercase();
    let bare = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    RLIMITS.iter().position(|known| *known == bare).map(|at| at as u32)
}

/// The nodes that every container has, and the specification's.
fn devices(spec: &Spec) -> Vec<Device> {
    const CHARACTER: u32 = 0o020_000;
    const BLOCK: u32 = 0o060_000;
    const FIFO: u32 = 0o010_000;
    let usual = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let mut all: Vec<Device> = Vec::new();
    for device in spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten()) {
        let kind = match device.typ() {
            LinuxDeviceType::B => BLOCK,
            LinuxDeviceType::P => FIFO,
            _ => CHARACTER,
        };
        all.push(Device {
            path: device.path().display().to_string(),
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o777,
            major: device.major() as u32,
            minor: device.minor() as u32,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    for (name, major, minor) in usual {
        let path = format!("/dev/{name}");
        if !all.iter().any(|device| device.path == path) {
            all.push(Device { path, mode: CHARACTER | 0o666, major, minor, uid: 0, gid: 0 });
        }
    }
    all
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;

fn mount(one: &oci_spec::runtime::Mount, place: &Place<'_>) -> Result<Mount, Untranslatable> {
    let (mut set, mut clear) = (0, 0);
    let (mut is_bind, mut recursive, mut recursively) = (one.typ().as_deref() == Some("bind"), false, false);
    let mut propagation = None;
    let mut parameters = Vec::new();
    for option in one.options().iter().flatten() {
        let (put, take) = match &**option {
            "ro" => (RDONLY, 0),
            "rw" => (0, RDONLY),
            "nosuid" => (NOSUID, 0),
            "suid" => (0, NOSUID),
            "nodev" => (NODEV, 0),
            "dev" => (0, NODEV),
            "noexec" => (NOEXEC, 0),
            "exec" => (0, NOEXEC),
            "noatime" => (NOATIME, ATIME),
            "strictatime" => (STRICTATIME, ATIME),
            "relatime" | "atime" => (0, ATIME),
            "nodiratime" => (NODIRATIME, 0),
            "diratime" => (0, NODIRATIME),
            "rro" => {
                recursively = true;
                (RDONLY, 0)
            }
            "bind" => {
                is_bind = true;
                (0, 0)
            }
            "rbind" => {
                (is_bind, recursive) = (true, true);
                (0, 0)
            }
            "norelatime" | "nostrictatime" | "defaults" | "async" => (0, 0),
            other => {
                if let Some(bits) = propagation_bits(other) {
                    propagation = Some(bits);
                } else {
                    parameters.push(match other.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (other.to_owned(), None),
                    });
                }
                (0, 0)
            }
        };
        set = set & !take | put;
        clear = clear & !put | take;
    }
    let target = one.destination().display().to_string();
    let source = one.source().clone().unwrap_or_default();
    let kind = one.typ().clone().unwrap_or_default();
    let what = if is_bind {
        model::bounds::check_target(&target, &source.display().to_string()).map_err(Untranslatable::Target)?;
        What::Bind { source, recursive }
    } else if kind == "cgroup" && place.hierarchies.version != Version::V2 {
        let (hierarchies, links) = cgroup1(place);
        What::Cgroup1 { hierarchies, links }
    } else {
        let kind = if kind == "cgroup" { "cgroup2".to_owned() } else { kind };
        What::New { kind, source: source.display().to_string(), parameters }
    };
    Ok(Mount { target, what, set, clear, recursively, propagation })
}

type Cgroup1 = (Vec<(String, PathBuf)>, Vec<(String, String)>);

fn cgroup1(place: &Place<'_>) -> Cgroup1 {
    let (mut hierarchies, mut links) = (Vec::new(), Vec::new());
    for (mounted_at, controllers) in &place.hierarchies.v1 {
        let Some(name) = mounted_at.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let Some(own) = controllers.first().and_then(|controller| place.cgroup.v1.get(controller)) else { continue };
        for controller in controllers.iter().filter(|controller| **controller != name && !controller.contains('=')) {
            links.push((controller.clone(), name.clone()));
        }
        hierarchies.push((name, own.clone()));
    }
    (hierarchies, links)
}

fn propagation_bits(word: &str) -> Option<u64> {
    const UNBINDABLE: u64 = 1 << 17;
    const PRIVATE: u64 = 1 << 18;
    const SLAVE: u64 = 1 << 19;
    const SHARED: u64 = 1 << 20;
    const REC: u64 = 1 << 14;
    Some(match word {
        "private" => PRIVATE,
        "rprivate" => PRIVATE | REC,
        "slave" => SLAVE,
        "rslave" => SLAVE | REC,
        "shared" => SHARED,
        "rshared" => SHARED | REC,
        "unbindable" => UNBINDABLE,
        "runbindable" => UNBINDABLE | REC,
        _ => return None,
    })
}

/// Limits as the kernel's cgroups know them.
pub(crate) fn limits(resources: &LinuxResources) -> Limits {
    let (memory, cpu) = (resources.memory().as_ref(), resources.cpu().as_ref());
    let block = resources.block_io().as_ref();
    let mut throttle = Vec::new();
    let mut add = |what: Throttle, rates: Option<&Vec<LinuxThrottleDevice>>| {
        for one in rates.into_iter().flatten() {
            throttle.push((what, one.major(), one.minor(), one.rate()));
        }
    };
    add(Throttle::ReadBytes, block.and_then(|block| block.throttle_read_bps_device().as_ref()));
    add(Throttle::WriteBytes, block.and_then(|block| block.throttle_write_bps_device().as_ref()));
    add(Throttle::ReadOperations, block.and_then(|block| block.throttle_read_iops_device().as_ref()));
    add(Throttle::WriteOperations, block.and_then(|block| block.throttle_write_iops_device().as_ref()));
    Limits {
        memory: memory.and_then(|memory| memory.limit()),
        memory_and_swap: memory.and_then(|memory| memory.swap()),
        memory_reservation: memory.and_then(|memory| memory.reservation()),
        swappiness: memory.and_then(|memory| memory.swappiness()),
        disable_oom_killer: memory.and_then(|memory| memory.disable_oom_killer()).unwrap_or(false),
        cpu_shares: cpu.and_then(|cpu| cpu.shares()),
        cpu_quota: cpu.and_then(|cpu| cpu.quota()),
        cpu_period: cpu.and_then(|cpu| cpu.period()),
        cpus: cpu.and_then(|cpu| cpu.cpus().clone()),
        memory_nodes: cpu.and_then(|cpu| cpu.mems().clone()),
        pids: resources.pids().map(|pids| pids.limit()),
        block_weight: block.and_then(|block| block.weight()),
        block_throttle: throttle,
    }
}

/// The specification's device rules.
pub(crate) fn device_rules(resources: &LinuxResources) -> Vec<DeviceRule> {
    let any = |number: Option<i64>| number.filter(|number| *number >= 0);
    let rules = resources.devices().iter().flatten();
    rules
        .map(|rule| DeviceRule {
            allow: rule.allow(),
            kind: match rule.typ() {
                Some(LinuxDeviceType::B) => 'b',
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
                _ => 'a',
            },
            major: any(rule.major()),
            minor: any(rule.minor()),
            access: rule.access().clone().unwrap_or_else(|| "rwm".to_owned()),
        })
        .collect()
}

/// Rows and columns of the specification's terminal.
pub(crate) fn size(process: &Process) -> Option<Size> {
    process.console_size().map(|size| Size { rows: size.height() as u16, columns: size.width() as u16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_parameters_become_paths() {
        let check = |name: &str, path: &str| assert_eq!(sysctl_path(name), path);
        check("net.ipv4.ip_forward", "net/ipv4/ip_forward");
        check("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding");
        check("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn every_limit_that_is_accepted_has_a_number() {
        for name in model::spec::Ulimit::NAMES {
            let number = rlimit_number(&format!("RLIMIT_{}", name.to_uppercase()));
            assert!(number.is_some_and(|number| RLIMITS[number as usize] == name), "{name}: {number:?}");
        }
        assert_eq!((rlimit_number("RLIMIT_NOFILE"), rlimit_number("nosuch")), (Some(7), None));
    }
}
