//! From a container's record to the description of its process: pure, but for looking devices and users up.

use crate::Settings;
use crate::error::{Error, Result};
use model::container::{Container, HostConfig, MountKind, NetworkMode};
use model::id::ContainerId;
use model::security::SecurityOptions;
use model::spec::{self, Description, Device, Mount, Namespace, Resources, Ulimit};
use model::users::Account;
use std::path::{Path, PathBuf};

/// What is known beside the record.
pub struct Surroundings<'a> {
    pub account: Account,
    pub available: spec::CapabilitySet,
    pub cgroup_v1: bool,
    /// How many descriptors a process may open where nothing else was asked for: what the daemon was started with,
    /// before it took more for itself.
    pub descriptors: &'a Ulimit,
    /// The variables of legacy links.
    pub linked: Vec<String>,
    /// Where the container's own hosts, hostname and resolv.conf are.
    pub files: &'a Path,
}

fn ulimits(host: &HostConfig, descriptors: &Ulimit) -> Vec<Ulimit> {
    let asked = host.ulimits.iter().flatten();
    let mut limits: Vec<Ulimit> = asked.cloned().collect();
    if !limits.iter().any(|l| l.name == descriptors.name) {
        limits.push(descriptors.clone());
    }
    limits
}

/// # Errors
/// A device is missing, or an option cannot be read.
pub fn describe(container: &Container, around: &Surroundings<'_>) -> Result<Description> {
    let (config, host) = (&container.config, &container.host);
    let options = SecurityOptions::read(host).map_err(Error::invalid)?;
    let mut description = Description {
        args: container.command(),
        env: environment(container, around),
        cwd: config.working_dir.clone(),
        tty: config.tty,
        size: host.console_size.filter(|[r, c]| *r > 0 && *c > 0).map(|[r, c]| (r as u16, c as u16)),
        user: around.account.user(),
        privileged: host.privileged,
        cap_add: host.cap_add.clone().unwrap_or_default(),
        cap_drop: host.cap_drop.clone().unwrap_or_default(),
        available: around.available,
        readonly_root: host.readonly_rootfs,
        mounts: mounts(container, around.files)?,
        shm_size: u64::try_from(host.shm_size).ok().filter(|s| *s > 0),
        ulimits: ulimits(host, around.descriptors),
        no_new_privileges: options.no_new_privileges,
        seccomp: options.seccomp,
        system_paths_unconfined: options.system_paths_unconfined,
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        resources: resources(host),
        device_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        sysctls: host.sysctls.clone().unwrap_or_default(),
        pid: namespace(&host.pid_mode),
        ipc: namespace(&host.ipc_mode),
        // On the host's network, too, it has names of its own, as in Docker.
        uts: if host.uts_mode == "host" { Namespace::Host } else { Namespace::Private },
        cgroup: namespace(&host.cgroupns_mode),
        host_network: matches!(host.network_mode(), NetworkMode::Host),
        oom_score_adj: i32::try_from(host.oom_score_adj).ok().filter(|s| *s != 0),
        cgroup_v1: around.cgroup_v1,
        annotations: host.annotations.clone().unwrap_or_default(),
        ..Description::default()
    };
    for device in host.devices.iter().flatten() {
        description.devices.extend(devices(
            &device.path_on_host,
            &device.path_in_container,
            &device.cgroup_permissions,
        )?);
    }
    if host.privileged {
        description.devices.extend(host_devices());
    }
    Ok(description)
}

fn namespace(mode: &str) -> Namespace {
    match mode {
        "host" => Namespace::Host,
        mode if mode.starts_with("container:") => Namespace::Join,
        _ => Namespace::Private,
    }
}

fn environment(container: &Container, around: &Surroundings<'_>) -> Vec<String> {
    let mut env = vec![format!("PATH={}", spec::PATH)];
    env.push(format!("HOSTNAME={}", container.config.hostname));
    if container.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(around.linked.iter().cloned());
    model::env::merge(&mut env, &container.config.env);
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", around.account.home));
    }
    env
}

fn mounts(container: &Container, files: &Path) -> Result<Vec<Mount>> {
    let bind = |source: String, target: &str, readonly: bool, propagation: &str| -> Result<Mount> {
        Ok(Mount::Bind {
            source,
            target: target.to_owned(),
            readonly,
            recursive: true,
            recursive_readonly: readonly,
            propagation: propagation.parse().map_err(Error::invalid)?,
        })
    };
    let mut mounts = Vec::new();
    for name in crate::files::NAMES {
        let target = format!("/etc/{name}");
        if !container.mounts.iter().any(|m| m.destination == target) {
            mounts.push(bind(files.join(name).display().to_string(), &target, container.host.readonly_rootfs, "")?);
        }
    }
    for point in &container.mounts {
        match point.kind {
            MountKind::Tmpfs => {
                let options = container
                    .host
                    .mounts
                    .iter()
                    .flatten()
                    .find(|m| model::bounds::clean(&m.target) == point.destination)
                    .and_then(|m| m.tmpfs_options.clone())
                    .unwrap_or_default();
                let mut words = Vec::new();
                if options.size_bytes > 0 {
                    words.push(format!("size={}", options.size_bytes));
                }
                if options.mode > 0 {
                    words.push(format!("mode={:o}", options.mode));
                }
                if !point.rw {
                    words.push("ro".to_owned());
                }
                mounts.push(Mount::Tmpfs { target: point.destination.clone(), options: words });
            }
            MountKind::Bind | MountKind::Volume => {
                mounts.push(bind(point.source.clone(), &point.destination, !point.rw, &point.propagation)?);
            }
        }
    }
    for (target, options) in container.host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        mounts.push(Mount::Tmpfs { target: target.clone(), options });
    }
    Ok(mounts)
}

pub fn resources(host: &HostConfig) -> Resources {
    let some = |n: i64| Some(n).filter(|n| *n != 0);
    let text = |t: &String| Some(t.clone()).filter(|t| !t.is_empty());
    Resources {
        memory: some(host.memory),
        memory_swap: some(host.memory_swap),
        memory_reservation: some(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        oom_kill_disable: host.oom_kill_disable.unwrap_or_default(),
        nano_cpus: some(host.nano_cpus),
        cpu_shares: u64::try_from(host.cpu_shares).ok().filter(|s| *s > 0),
        cpu_quota: some(host.cpu_quota),
        cpu_period: u64::try_from(host.cpu_period).ok().filter(|p| *p > 0),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids_limit: host.pids_limit.filter(|p| *p != 0),
        blkio_weight: Some(host.blkio_weight).filter(|w| *w > 0),
        read_bytes: throttled(&host.blkio_device_read_bps),
        write_bytes: throttled(&host.blkio_device_write_bps),
        read_operations: throttled(&host.blkio_device_read_iops),
        write_operations: throttled(&host.blkio_device_write_iops),
    }
}

/// `{Path, Rate}` of the API; what is no device limits nothing.
fn throttled(devices: &Option<Vec<serde_json::Value>>) -> Vec<(i64, i64, u64)> {
    let one = |value: &serde_json::Value| {
        let found = device(Path::new(value["Path"].as_str()?), "", "")?;
        Some((found.major, found.minor, value["Rate"].as_u64().filter(|r| *r > 0)?))
    };
    devices.iter().flatten().filter_map(one).collect()
}

/// The device at a path of the host, or all below a directory.
fn devices(source: &str, target: &str, access: &str) -> Result<Vec<Device>> {
    let target = if target.is_empty() { source } else { target };
    let access = if access.is_empty() { "rwm" } else { access };
    let path = Path::new(source);
    let missing = |e: std::io::Error| {
        Error::invalid(format!("error gathering device information while adding custom device \"{source}\": {e}"))
    };
    let meta = std::fs::metadata(path).map_err(missing)?;
    if meta.is_dir() {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(path).map_err(missing)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let inner = devices(&format!("{source}/{name}"), &format!("{target}/{name}"), access);
            all.extend(inner.unwrap_or_default());
        }
        return Ok(all);
    }
    device(path, target, access).map(|d| vec![d]).ok_or_else(|| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{source}\": not a device node"
        ))
    })
}

fn device(path: &Path, target: &str, access: &str) -> Option<Device> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(path).ok()?;
    let kind = match meta.file_type() {
        t if t.is_block_device() => 'b',
        t if t.is_char_device() => 'c',
        _ => return None,
    };
    let number = meta.rdev();
    Some(Device {
        path: target.to_owned(),
        kind,
        major: i64::from(kernel::device::major(number)),
        minor: i64::from(kernel::device::minor(number)),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

/// All devices of the host, for privileged containers; terminals and the container's own apart.
fn host_devices() -> Vec<Device> {
    let own = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .filter(|n| !own.contains(&n.as_str()))
        .filter_map(|n| device(Path::new("/dev").join(&n).as_path(), &format!("/dev/{n}"), "rwm"))
        .collect()
}

/// Where the shim logs, and how much. `None`: nowhere.
pub(crate) fn log_of(settings: &Settings, record: &Container) -> Option<runtime::Log> {
    if record.host.log_config.driver == "none" {
        return None;
    }
    let option = |name: &str| record.host.log_config.config.get(name);
    // `local` is bounded unless it is told otherwise.
    let (size, files) = if record.host.log_config.driver == "local" { (Some(20 << 20), 5) } else { (None, 1) };
    Some(runtime::Log {
        path: log_path(settings, record.id),
        max_size: option("max-size").and_then(|text| model::logging::size(text)).or(size),
        max_files: option("max-file").and_then(|n| n.parse().ok()).unwrap_or(files),
    })
}

/// Where a container's log is, if it has one.
pub(crate) fn log_path(settings: &Settings, id: ContainerId) -> PathBuf {
    settings.container_dir(id).join(format!("{id}-json.log"))
}

/// How the container's process gets its input and output.
pub(crate) fn stdio_of(record: &Container) -> runtime::Stdio {
    runtime::Stdio {
        tty: record.config.tty,
        size: None,
        open_stdin: record.config.open_stdin,
        stdin_once: record.config.stdin_once,
    }
}
