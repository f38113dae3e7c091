//! What a container is created with: what the image and the machine's defaults add to what a client asks for, and what is
//! refused at once. What only a start would run into, is found here.

use crate::container::{Config, HostConfig, NetworkMode, PortBinding};
use crate::id::ContainerId;
use crate::image::{Healthcheck, ImageConfig, Platform};
use crate::restart::Policy;
use crate::security::SecurityOptions;
use crate::spec::CapabilitySet;

/// What the decisions need to know of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs and memory nodes.
    pub processors: crate::limits::Machine,
    /// The host's own.
    pub hostname: String,
    /// journald listens.
    pub journald: bool,
    /// The daemon's own OOM score, which containers have unless they ask for another.
    pub oom_score: i64,
    /// It may give a lower one (CAP_SYS_RESOURCE).
    pub may_lower_oom_score: bool,
}

/// The longest hostname in bytes (sethostname(2)), and the most ranges of published ports.
const MAX_HOSTNAME: usize = 64;
const MAX_RANGES: usize = 1024;

/// Options that contradict each other are refused in Docker's words (API-25), texts that mean nothing as well; harmless ones
/// are warned of.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &Config, host: &HostConfig, machine: &Machine) -> Result<Vec<String>, String> {
    network_mode(config, host)?;
    if [&config.entrypoint, &config.cmd].iter().all(|l| l.as_ref().is_none_or(Vec::is_empty)) {
        return Err("no command specified".into());
    }
    if Policy::read(&host.restart_policy)? != Policy::No && host.auto_remove {
        return Err("can't create 'AutoRemove' container with restart policy".into());
    }
    crate::limits::check(host, &machine.processors)?;
    offers(config, host)?;
    logging(host, machine)?;
    if host.device_requests.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err("could not select device driver \"\" with capabilities: [[gpu]]: Isle passes devices by --device, and has no device plugins".into());
    }
    ports(config, host)?;
    names(config, host)?;
    SecurityOptions::read(host)?;
    if let Some(nameless) = config.env.iter().find(|e| e.is_empty() || e.starts_with('=')) {
        return Err(format!("invalid environment variable: {nameless}"));
    }
    if let Some(check) = &config.healthcheck {
        health(check)?;
    }
    let list = |caps: &Option<Vec<String>>| caps.clone().unwrap_or_default();
    crate::spec::capabilities(host.privileged, &list(&host.cap_add), &list(&host.cap_drop), CapabilitySet::ALL)
        .map_err(|refusal| refusal.to_string())?;
    if let Some(signal) = &config.stop_signal {
        crate::signal::number(signal).ok_or_else(|| format!("invalid signal: {signal}"))?;
    }
    let mut warnings = Vec::new();
    if matches!(host.network_mode(), NetworkMode::Host) && publishes(host) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    warnings.extend(score_warning(host.oom_score_adj, machine.oom_score, machine.may_lower_oom_score));
    Ok(warnings)
}

fn publishes(host: &HostConfig) -> bool {
    !host.port_bindings.is_empty() || host.publish_all_ports
}

fn network_mode(config: &Config, host: &HostConfig) -> Result<(), String> {
    let conflict = |what: &str| Err(format!("conflicting options: {what}"));
    match host.network_mode() {
        NetworkMode::Container(_) => {
            if !config.hostname.is_empty() {
                return conflict("hostname and the network mode");
            }
            if host.links.as_ref().is_some_and(|l| !l.is_empty()) {
                return conflict(
                    "container type network can't be used with links. This would result in undefined behavior",
                );
            }
            if !host.dns.is_empty() {
                return conflict("dns and the network mode");
            }
            if host.extra_hosts.as_ref().is_some_and(|h| !h.is_empty()) {
                return conflict("custom host-to-IP mapping and the network mode");
            }
            if publishes(host) {
                return conflict("port publishing and the container type network mode");
            }
        }
        NetworkMode::Path(path) => {
            if !path.starts_with('/') {
                return Err(format!("invalid network mode ns:{path}: an absolute path is needed"));
            }
            if publishes(host) {
                return conflict("port publishing and an existing network namespace");
            }
        }
        NetworkMode::Host if host.links.as_ref().is_some_and(|l| !l.is_empty()) => {
            return conflict("host type networking can't be used with links. This would result in undefined behavior");
        }
        _ => {}
    }
    Ok(())
}

/// Paths, and what other engines have and this one has not.
fn offers(config: &Config, host: &HostConfig) -> Result<(), String> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if !host.isolation.is_empty() && !host.isolation.eq_ignore_ascii_case("default") {
        return Err(format!("invalid isolation: {}: there is no other than 'default' on Linux", host.isolation));
    }
    if host.storage_opt.as_ref().is_some_and(|o| !o.is_empty()) {
        return Err(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option: Isle has no limit for a \
             container's files"
                .into(),
        );
    }
    crate::bounds::check(config, host)?;
    for (target, options) in host.tmpfs.iter().flatten() {
        let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        crate::spec::tmpfs_options(&options).map_err(|refusal| refusal.to_string())?;
        crate::bounds::check_target(&crate::bounds::clean(target), "")?;
    }
    if !is_runtime(&host.runtime) {
        return Err(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    Ok(())
}

/// What can start containers: our own launcher, and runc by both its names.
pub fn is_runtime(name: &str) -> bool {
    matches!(name, "isle" | "runc" | "io.containerd.runc.v2")
}

fn logging(host: &HostConfig, machine: &Machine) -> Result<(), String> {
    if host.log_config.driver == "journald" {
        let why =
            if machine.journald { "Isle does not write to it yet" } else { "journald is not running on this host" };
        return Err(format!("failed to initialize logging driver: {why}; use json-file or local"));
    }
    if !crate::logging::is_driver(&host.log_config.driver) {
        return Err(format!("logger: no log driver named '{}' is registered", host.log_config.driver));
    }
    if let Some(wrong) = crate::logging::wrong_option(&host.log_config) {
        return Err(wrong);
    }
    Ok(())
}

fn ports(config: &Config, host: &HostConfig) -> Result<(), String> {
    let text = |refusal: crate::port::PortRefusal| refusal.to_string();
    for port in config.exposed_ports.keys() {
        crate::port::parse_range(port).map_err(text)?;
    }
    let published = crate::port::plan_requests(&host.port_bindings, std::iter::empty(), false, None).map_err(text)?;
    // One message tells the keeper all of a container's ports; so with its names and servers.
    if published.len() > MAX_RANGES {
        return Err(format!(
            "too many published ports: {} separate ranges were given, at most {MAX_RANGES} are allowed; consecutive \
             ports count as one",
            published.len()
        ));
    }
    for (n, one) in published.iter().enumerate() {
        let crate::port::HostPort::Exactly(first) = one.host else { continue };
        let own = crate::port::Published::new(one, first);
        if let Some(other) = published[..n].iter().find(|other| own.collides(other)) {
            // Ranges may begin elsewhere: it is the first port that both have.
            let port = match other.host {
                crate::port::HostPort::Exactly(theirs) => first.max(theirs),
                _ => first,
            };
            let port = format!("{port}/{}", one.protocol);
            return Err(format!("invalid port specification: host port {port} is published twice"));
        }
    }
    Ok(())
}

/// The container's own name, its servers, and lines for its hosts file.
fn names(config: &Config, host: &HostConfig) -> Result<(), String> {
    if config.hostname.len() > MAX_HOSTNAME {
        return Err(format!(
            "invalid hostname: {} bytes are more than the kernel's {MAX_HOSTNAME}",
            config.hostname.len()
        ));
    }
    if host.dns.len() > crate::container::MAX_NAMES {
        return Err(format!("too many DNS servers: {} were given", host.dns.len()));
    }
    for server in &host.dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("ParseAddr(\"{server}\"): unable to parse IP"));
        }
    }
    for text in host.extra_hosts.iter().flatten() {
        let (_, address) = crate::files::split_extra_host(text)?;
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address in add-host: \"{address}\""));
        }
    }
    Ok(())
}

/// What becomes of an OOM score below our `own`: only who has CAP_SYS_RESOURCE `may_lower` it.
fn score_warning(asked: i64, own: i64, may_lower: bool) -> Option<String> {
    let in_vain = asked != 0 && asked < own && !may_lower;
    in_vain.then(|| {
        format!(
            "The OOM score cannot be lowered to {asked}: the daemon has no CAP_SYS_RESOURCE. The container keeps the \
             daemon's, {own}"
        )
    })
}

/// What the client left open comes from the image, in Docker's rules.
pub fn merge_image(config: &mut Config, image: &ImageConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.iter().flat_map(|p| p.keys()) {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    crate::env::complete(&mut config.env, image.env.iter().flatten());
    for (name, value) in image.labels.iter().flatten() {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if config.entrypoint.is_none() || is_empty(&config.entrypoint) {
        if is_empty(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // `--entrypoint ""` takes the image's away.
    if config.entrypoint.as_ref().is_some_and(|e| e.len() == 1 && e[0].is_empty()) {
        config.entrypoint = None;
    }
    match (&mut config.healthcheck, &image.healthcheck) {
        (own @ None, Some(image)) => *own = Some(image.clone()),
        (Some(own), Some(image)) => {
            if own.test.as_ref().is_none_or(Vec::is_empty) {
                own.test.clone_from(&image.test);
            }
            for (own, image) in [
                (&mut own.interval, image.interval),
                (&mut own.timeout, image.timeout),
                (&mut own.start_period, image.start_period),
                (&mut own.start_interval, image.start_interval),
                (&mut own.retries, image.retries),
            ] {
                if *own == 0 {
                    *own = image;
                }
            }
        }
        _ => {}
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    for path in image.volumes.iter().flat_map(|v| v.keys()) {
        config.volumes.entry(path.clone()).or_default();
    }
    if config.stop_signal.is_none() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
}

/// Docker's defaults for what neither the client nor the image says. `default_network`: the network `bridge` is there.
pub fn complete(config: &mut Config, host: &mut HostConfig, id: ContainerId, default_network: bool, machine: &Machine) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        // With `--bridge none` (BR-19) there is none.
        host.network_mode = if default_network { "bridge" } else { "none" }.into();
    }
    // No binding at all means one that says nothing, as clients before API 1.52 rely on (PT-04).
    for bindings in host.port_bindings.values_mut() {
        let bindings = bindings.get_or_insert_default();
        if bindings.is_empty() {
            bindings.push(PortBinding::default());
        }
    }
    let set = |text: &mut String, default: &str| {
        if text.is_empty() {
            *text = default.to_owned();
        }
    };
    set(&mut host.restart_policy.name, "no");
    set(&mut host.ipc_mode, "private");
    set(&mut host.cgroupns_mode, "private");
    let shares_names = matches!(host.network_mode(), NetworkMode::Container(_));
    if config.hostname.is_empty() && !shares_names {
        config.hostname = match host.network_mode() {
            NetworkMode::Host => machine.hostname.clone(),
            _ => id.short(),
        };
    }
}

fn health(check: &Healthcheck) -> Result<(), String> {
    const LEAST: i64 = 1_000_000;
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    if let Some((name, _)) = times.into_iter().find(|(_, time)| *time != 0 && *time < LEAST) {
        return Err(format!("{name} in Healthcheck cannot be less than 1ms"));
    }
    if check.retries < 0 {
        return Err("Retries in Healthcheck cannot be negative".into());
    }
    Ok(())
}

/// What a client must not ask for together, though an image may (API-25).
///
/// # Errors
/// In Docker's words.
pub fn check_request(config: &Config, host: &HostConfig) -> Result<(), String> {
    let shares = matches!(host.network_mode(), NetworkMode::Container(_));
    if shares && !publishes(host) && !config.exposed_ports.is_empty() {
        return Err("conflicting options: port exposing and the container type network mode".into());
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err("conflicting options: hostname and the UTS mode".into());
    }
    Ok(())
}

/// Whether an image is of the platform that was asked for.
///
/// # Errors
/// In Docker's words. A client is told 'not found', and then pulls the one of the right platform.
pub fn check_platform(image: &str, wanted: Option<&Platform>, actual: &Platform) -> Result<(), String> {
    match wanted {
        Some(wanted) if !wanted.accepts(actual) => Err(format!(
            "image with reference {image} was found but its platform ({actual}) does not match the specified platform \
             ({wanted})"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_cannot_be_lowered_is_warned_of() {
        let warned = |asked, own, may_lower| score_warning(asked, own, may_lower).is_some();
        assert!(warned(-500, 0, false) && warned(100, 200, false));
        assert!(!warned(-500, 0, true) && !warned(500, 0, false) && !warned(0, 200, false));
    }

    fn list(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn an_image_gives_what_the_client_left_open() {
        let image = ImageConfig {
            entrypoint: list("entry"),
            cmd: list("image"),
            env: list("A=1 B=1"),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        };
        let merged = |mut config: Config| {
            merge_image(&mut config, &image);
            config
        };
        let nothing = merged(Config::default());
        assert_eq!(
            (nothing.entrypoint, nothing.cmd, nothing.working_dir.as_str()),
            (list("entry"), list("image"), "/srv")
        );
        let own = merged(Config { cmd: list("own"), env: list("B=2").unwrap(), ..Config::default() });
        assert_eq!((own.entrypoint, own.cmd, Some(own.env)), (list("entry"), list("own"), list("B=2 A=1")));
        // A command belongs to its entrypoint: another's is not for this one.
        let entry = merged(Config { entrypoint: list("mine"), ..Config::default() });
        assert_eq!((entry.entrypoint, entry.cmd), (list("mine"), None));
        let none = merged(Config { entrypoint: Some(vec![String::new()]), cmd: list("own"), ..Config::default() });
        assert_eq!((none.entrypoint, none.cmd), (None, list("own")));
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_what_is_in_vain_is_warned_of() {
        let config = Config { cmd: list("true"), ..Config::default() };
        let checked = |host: HostConfig, machine: &Machine| check(&config, &complete_host(host), machine);
        let refused = |host: HostConfig| checked(host, &Machine::default()).unwrap_err();
        let mode = |mode: &str| HostConfig { network_mode: mode.into(), ..HostConfig::default() };
        assert_eq!(checked(HostConfig::default(), &Machine::default()), Ok(Vec::new()));
        let with = |config: Config| check(&config, &complete_host(HostConfig::default()), &Machine::default());
        let nameless = Config { env: list("A=1 =x").unwrap(), ..config.clone() };
        assert_eq!(with(nameless).unwrap_err(), "invalid environment variable: =x");
        for (interval, retries, refusal) in [
            (5, 0, "Interval in Healthcheck cannot be less than 1ms"),
            (0, -1, "Retries in Healthcheck cannot be negative"),
        ] {
            let healthcheck = Some(Healthcheck { interval, retries, ..Healthcheck::default() });
            assert_eq!(with(Config { healthcheck, ..config.clone() }).unwrap_err(), refusal);
        }
        let dns = HostConfig { dns: list("192.0.2.1").unwrap(), ..mode("container:other") };
        assert_eq!(refused(dns), "conflicting options: dns and the network mode");
        assert_eq!(refused(mode("ns:relative")), "invalid network mode ns:relative: an absolute path is needed");
        let mut journald = HostConfig::default();
        journald.log_config.driver = "journald".into();
        assert!(refused(journald.clone()).contains("journald is not running on this host"));
        let with_journald = Machine { journald: true, ..Machine::default() };
        assert!(checked(journald, &with_journald).unwrap_err().contains("Isle does not write to it yet"));
        let ports = HostConfig { publish_all_ports: true, ..mode("host") };
        let warned = checked(ports, &Machine::default()).unwrap();
        assert_eq!(warned, ["Published ports are discarded when using host network mode"]);
        assert_eq!(
            check(&Config::default(), &complete_host(mode("")), &Machine::default()).unwrap_err(),
            "no command specified"
        );
    }

    /// With Docker's defaults, for a container that has its names.
    fn complete_host(mut host: HostConfig) -> HostConfig {
        let mut config = Config { hostname: "c".into(), ..Config::default() };
        complete(&mut config, &mut host, ContainerId::new([1; 32]), true, &Machine::default());
        host.runtime = "isle".into();
        if host.log_config.driver.is_empty() {
            host.log_config.driver = "json-file".into();
        }
        host
    }
}
