//! What a container's configuration may say: words, paths and texts that mean nothing, or that the kernel would only
//! refuse when the container is started, are refused when it is created, in Docker's words where it has them. Numbers:
//! [`crate::limits`].

use crate::container::{Config, HostConfig};

/// The longest domain name of the machine, in bytes (setdomainname(2)).
const MAX_DOMAINNAME: usize = 64;

/// # Errors
/// The first thing that is wrong.
pub fn check(config: &Config, host: &HostConfig) -> Result<(), String> {
    texts(config)?;
    if config.domainname.len() > MAX_DOMAINNAME {
        let length = config.domainname.len();
        return Err(format!("invalid domain name: {length} bytes are more than the kernel's {MAX_DOMAINNAME}"));
    }
    modes(host)?;
    if host.cgroup_parent.split('/').any(|part| part == "..") {
        return Err(format!("invalid cgroup parent: {:?} leads out of it", host.cgroup_parent));
    }
    for device in host.devices.iter().flatten() {
        let access = &device.cgroup_permissions;
        if access.chars().any(|c| !"rwm".contains(c)) {
            return Err(format!("invalid device cgroup permissions: {access:?}: they must be some of r, w and m"));
        }
    }
    lines(host)
}

/// The kernel's texts end at the first NUL.
fn texts(config: &Config) -> Result<(), String> {
    let lists = [Some(&config.env), config.cmd.as_ref(), config.entrypoint.as_ref()];
    let mut all = lists.into_iter().flatten().flatten();
    let single = [&config.working_dir, &config.user, &config.hostname, &config.domainname];
    if all.any(|t| t.contains('\0')) || single.iter().any(|t| t.contains('\0')) {
        return Err(
            "invalid configuration: a text with a NUL byte in its command, environment, directory or names".into()
        );
    }
    Ok(())
}

fn modes(host: &HostConfig) -> Result<(), String> {
    let others = |mode: &str| mode.strip_prefix("container:").is_some_and(|other| !other.is_empty());
    let known = [
        ("IPC", &host.ipc_mode, &["", "none", "private", "shareable", "host"][..], true),
        ("PID", &host.pid_mode, &["", "host"][..], true),
        ("UTS", &host.uts_mode, &["", "private", "host"][..], false),
        ("user namespace", &host.userns_mode, &["", "host"][..], false),
        ("cgroup namespace", &host.cgroupns_mode, &["", "private", "host"][..], false),
    ];
    for (what, mode, words, joins) in known {
        let is_known = words.contains(&mode.as_str()) || joins && others(mode);
        if !is_known {
            return Err(format!("invalid {what} mode: {mode}"));
        }
    }
    Ok(())
}

/// Texts that become part of a line of /etc/hosts or /etc/resolv.conf.
fn lines(host: &HostConfig) -> Result<(), String> {
    let is_word = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let lists = [
        ("DNS search domain", Some(&host.dns_search)),
        ("DNS option", Some(&host.dns_options)),
        ("add-host", host.extra_hosts.as_ref()),
    ];
    for (what, list) in lists {
        if let Some(text) = list.into_iter().flatten().find(|t| !is_word(t)) {
            return Err(format!("invalid {what}: {text:?}: there is white space in it"));
        }
    }
    Ok(())
}

/// A path from the root on, without doubled slashes, `.` and `..`: by its letters, whatever symlinks there are.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Why nothing can be mounted at a clean path of the container: /proc is how the launcher, and programs, know the kernel
/// (only files that lxcfs and the like provide may be replaced), and the root is the image's.
///
/// # Errors
/// In runc's and Docker's words.
pub fn check_target(target: &str, source: &str) -> Result<(), String> {
    if target == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    let is_inside = target == "/proc" || target.starts_with("/proc/");
    if is_inside && !PROC_FILES.contains(&target) && (target, source) != ("/proc", "/proc") {
        return Err(format!("{target:?} cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

/// What may be replaced in /proc: as runc has it.
const PROC_FILES: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_means_nothing_is_refused() {
        for (host, words) in [
            (json!({"IpcMode": "bogus"}), "invalid IPC mode: bogus"),
            (json!({"IpcMode": "container:"}), "invalid IPC mode"),
            (json!({"UTSMode": "bogus"}), "invalid UTS mode: bogus"),
            (json!({"UsernsMode": "bogus"}), "invalid user namespace mode: bogus"),
            (json!({"CgroupnsMode": "bogus"}), "invalid cgroup namespace mode: bogus"),
            (json!({"CgroupParent": "/a/../../b"}), "invalid cgroup parent"),
            (json!({"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "qq"}]}), "\"qq\""),
            (json!({"DnsSearch": ["a\nnameserver 1.2.3.4"]}), "invalid DNS search domain"),
            (json!({"DnsOptions": ["ndots:1\n"]}), "invalid DNS option"),
            (json!({"ExtraHosts": ["a:1.2.3.4\n5.6.7.8 b"]}), "invalid add-host"),
        ] {
            let host: HostConfig = serde_json::from_value(host).unwrap();
            let refusal = check(&Config::default(), &host).unwrap_err();
            assert!(refusal.contains(words), "{words}: {refusal}");
        }
        for config in [json!({"Cmd": ["a\0b"]}), json!({"Env": ["A=\0"]}), json!({"WorkingDir": "/\0"})] {
            let config: Config = serde_json::from_value(config).unwrap();
            assert!(check(&config, &HostConfig::default()).unwrap_err().contains("NUL"));
        }
    }

    #[test]
    fn what_means_something_is_not() {
        for host in [
            json!({"IpcMode": "container:a", "PidMode": "host"}),
            json!({"DnsSearch": ["."], "ExtraHosts": ["a:host-gateway"], "UTSMode": "host"}),
        ] {
            let host: HostConfig = serde_json::from_value(host).unwrap();
            assert_eq!(check(&Config::default(), &host), Ok(()));
        }
    }

    #[test]
    fn nothing_replaces_proc() {
        for (target, source) in [("/proc", "/tmp"), ("/proc", ""), ("/proc/self/attr", "/tmp"), ("/", "")] {
            assert!(check_target(target, source).is_err(), "{target}");
        }
        for (target, source) in
            [("/proc/cpuinfo", "/tmp/x"), ("/proc", "/proc"), ("/process", "/tmp"), ("/sys", "/sys")]
        {
            assert_eq!(check_target(target, source), Ok(()), "{target}");
        }
    }
}
