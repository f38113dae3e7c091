//! From the flags of `run` and `create` to the body of `POST /containers/create`: a pure function, but for the files
//! that flags name.

use super::{mounts, network, ports};
use crate::client::grammar::{Flag, Parsed};
use crate::text::{parse_bytes, parse_nano, quote};
use anyhow::{Context, bail};
use model::spec::Ulimit;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a value of one of these flags must be, beyond its kind; in Docker's words.
///
/// # Errors
/// It is not.
pub fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match (flag.long, flag.value) {
        ("env", "list") if value.is_empty() || value.starts_with('=') => {
            Err(format!("invalid environment variable: {value}"))
        }
        ("label", "list") if value.is_empty() || value.starts_with('=') => {
            Err(format!("invalid label '{value}': empty name"))
        }
        ("dns-search", "list") if !is_search_domain(value.trim()) => Err(format!("{value} is not a valid domain")),
        ("attach", "list") if stream(value).is_none() => Err("valid streams are STDIN, STDOUT and STDERR".into()),
        ("add-host", "list") => add_host(value).map(drop),
        ("dns", "list") if value.trim().parse::<IpAddr>().is_err() => {
            Err(format!("IP address is not correctly formatted: {value}"))
        }
        ("link", "list") if value.is_empty() => Err("empty string specified for links".into()),
        ("link", "list") if value.split(':').count() > 2 => Err(format!("bad format for links: {value}")),
        ("device-cgroup-rule", _) if !is_device_rule(value) => Err(format!("invalid device cgroup format '{value}'")),
        ("sysctl", "map") if !value.contains('=') => Err(format!("sysctl '{value}' is not allowed")),
        ("ulimit", "ulimit") => ulimit(value).map(drop),
        ("mount", "mount") => mounts::mount(value).map(drop),
        ("network", "network") => network::parse(value).map(drop),
        _ => Ok(()),
    }
}

/// `.`, or a domain in docker's eyes: labels of letters, digits and hyphens, with a letter somewhere.
fn is_search_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inside = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let domain = text.strip_suffix('.').unwrap_or(text);
    let has_letter = domain.bytes().any(|b| b.is_ascii_alphabetic());
    text == "." || has_letter && domain.len() < 255 && domain.split('.').all(is_label)
}

fn stream(text: &str) -> Option<&'static str> {
    ["stdin", "stdout", "stderr"].into_iter().find(|s| text.eq_ignore_ascii_case(s))
}

/// `c 1:3 rwm`.
fn is_device_rule(text: &str) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, mode] = words.as_slice() else { return false };
    let number = |n: &str| n == "*" || (!n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    ["a", "b", "c"].contains(kind)
        && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
        && (1..=3).contains(&mode.len())
        && mode.chars().all(|c| "rwm".contains(c))
}

/// `host:ip`, or `host=ip`.
fn add_host(text: &str) -> Result<String, String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    match split {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            if bare == "host-gateway" || bare.parse::<IpAddr>().is_ok() {
                Ok(format!("{name}:{bare}"))
            } else {
                Err(format!("invalid IP address in add-host: {}", quote(address)))
            }
        }
        _ => Err(format!("bad format for add-host: {}", quote(text))),
    }
}

/// `NAME=SOFT[:HARD]`, as the API has it.
///
/// # Errors
/// It is none.
pub fn ulimit(text: &str) -> Result<Value, String> {
    let Ulimit { name, soft, hard } = text.parse().map_err(|e: model::spec::Refusal| e.to_string())?;
    Ok(json!({ "Name": name, "Soft": soft, "Hard": hard }))
}

/// Everything that creating a container needs.
#[derive(Clone, Debug)]
pub struct Request {
    pub image: String,
    pub body: Value,
}

/// Which of our streams a container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Streams {
    pub fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// Which streams are attached: those that `-a` names, or output unless detached, and input with `-i`.
pub fn streams(parsed: &Parsed) -> Streams {
    let named: Vec<&str> = parsed.list("attach").iter().filter_map(|a| stream(a)).collect();
    if !named.is_empty() {
        let has = |name| named.contains(&name);
        return Streams { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") };
    }
    let attached = !parsed.on("detach");
    Streams { stdin: attached && parsed.on("interactive"), stdout: attached, stderr: attached }
}

/// Builds the request.
///
/// # Errors
/// Flags contradict each other, or a file that they name cannot be read.
pub fn request(parsed: &Parsed) -> anyhow::Result<Request> {
    let [image, command @ ..] = parsed.args.as_slice() else { bail!("an image is needed") };
    let streams = streams(parsed);
    let (mode, endpoints) = network::endpoints(parsed)?;
    let mut config = config(parsed, streams, image, command)?;
    let host = host(parsed, &mode, &mut config)?;
    config.insert("HostConfig".into(), host.into());
    config.insert("NetworkingConfig".into(), json!({ "EndpointsConfig": endpoints }));
    Ok(Request { image: image.clone(), body: config.into() })
}

fn config(p: &Parsed, streams: Streams, image: &str, command: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut exposed = Map::new();
    for text in p.list("expose") {
        exposed.extend(ports::expose(text)?.into_iter().map(|port| (port, json!({}))));
    }
    for text in p.list("publish") {
        exposed.extend(ports::parse(text)?.into_iter().map(|mapping| (mapping.port, json!({}))));
    }
    let mut volumes = Map::new();
    for text in p.list("volume") {
        if let mounts::Volume::Anonymous(path) = mounts::volume(text)? {
            volumes.insert(path, json!({}));
        }
    }
    let mut labels = Map::new();
    for line in lines_of(p.list("label-file"))?.iter().chain(p.list("label")) {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        labels.insert(name.into(), value.into());
    }
    let opened = p.on("interactive");
    let mut config = json!({
        "Hostname": p.text("hostname"),
        "Domainname": p.text("domainname"),
        "User": p.text("user"),
        "AttachStdin": streams.stdin,
        "AttachStdout": streams.stdout,
        "AttachStderr": streams.stderr,
        "ExposedPorts": exposed,
        "Tty": p.on("tty"),
        "OpenStdin": opened,
        "StdinOnce": opened && streams.stdin,
        "Env": environment(p)?,
        "Cmd": if command.is_empty() { Value::Null } else { json!(command) },
        "Image": image,
        "Volumes": volumes,
        "WorkingDir": p.text("workdir"),
        "Entrypoint": if p.given("entrypoint") { json!([p.text("entrypoint")]) } else { Value::Null },
        "Labels": labels,
    });
    if !p.text("stop-signal").is_empty() {
        config["StopSignal"] = p.text("stop-signal").into();
    }
    if let Some(seconds) = p.int("stop-timeout") {
        config["StopTimeout"] = seconds.into();
    }
    if let Some(health) = health(p)? {
        config["Healthcheck"] = health;
    }
    match config {
        Value::Object(config) => Ok(config),
        _ => bail!("a configuration is an object"),
    }
}

/// `-e` after `--env-file`; a name without a value takes ours.
///
/// # Errors
/// A file cannot be read.
pub fn environment(p: &Parsed) -> anyhow::Result<Vec<String>> {
    let mut environment = Vec::new();
    for line in lines_of(p.list("env-file"))? {
        if line.contains('=') {
            environment.push(line);
        } else if let Ok(value) = std::env::var(&line) {
            environment.push(format!("{line}={value}"));
        }
    }
    for text in p.list("env") {
        match std::env::var(text) {
            Ok(value) if !text.contains('=') => environment.push(format!("{text}={value}")),
            _ => environment.push(text.clone()),
        }
    }
    Ok(environment)
}

/// Lines of files, without comments and empty ones.
fn lines_of(files: &[String]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| anyhow::anyhow!("open {file}: {}", crate::client::output::go_error(&e)))?;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() {
                bail!("invalid env file ({file}): no variable name on line '{line}'");
            }
            if name.contains(char::is_whitespace) {
                bail!("invalid env file ({file}): variable '{name}' contains whitespaces");
            }
            lines.push(line.to_owned());
        }
    }
    Ok(lines)
}

fn health(p: &Parsed) -> anyhow::Result<Option<Value>> {
    let flags = [
        "health-cmd",
        "health-interval",
        "health-timeout",
        "health-retries",
        "health-start-period",
        "health-start-interval",
    ];
    let given = flags.iter().any(|f| p.given(f));
    if p.on("no-healthcheck") {
        if given {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        return Ok(Some(json!({ "Test": ["NONE"] })));
    }
    if !given {
        return Ok(None);
    }
    let duration =
        |flag: &str| model::duration::parse(if p.given(flag) { p.text(flag) } else { "0" }).map_err(anyhow::Error::msg);
    let mut health = json!({
        "Interval": duration("health-interval")?,
        "Timeout": duration("health-timeout")?,
        "StartPeriod": duration("health-start-period")?,
        "StartInterval": duration("health-start-interval")?,
        "Retries": p.int("health-retries").unwrap_or_default(),
    });
    for (flag, field) in [("health-interval", "Interval"), ("health-timeout", "Timeout"), ("health-retries", "Retries")]
    {
        if health[field].as_i64().is_some_and(|n| n < 0) {
            bail!("--{flag} cannot be negative");
        }
    }
    if !p.text("health-cmd").is_empty() {
        health["Test"] = json!(["CMD-SHELL", p.text("health-cmd")]);
    }
    Ok(Some(health))
}

fn host(p: &Parsed, mode: &str, config: &mut Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    let bytes = |flag: &str| if p.given(flag) { parse_bytes(p.text(flag)) } else { Ok(0) }.map_err(anyhow::Error::msg);
    let number = |flag: &str| p.int(flag).unwrap_or_default();
    let list = |flag: &str| if p.list(flag).is_empty() { Value::Null } else { json!(p.list(flag)) };
    let map = |flag: &str| -> Map<String, Value> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), Value::from(value))
        };
        p.list(flag).iter().map(pair).collect()
    };
    let checked = |flag: &str, valid: &dyn Fn(&str) -> bool, what: &str| {
        let value = p.text(flag);
        if valid(value) { Ok(value.to_owned()) } else { Err(anyhow::anyhow!("--{flag}: invalid {what} mode")) }
    };
    let of_container = |v: &str| v.strip_prefix("container:").is_some_and(|c| !c.is_empty());
    let pid = checked("pid", &|v| ["", "host"].contains(&v) || of_container(v), "PID")?;
    let uts = checked("uts", &|v| ["", "host"].contains(&v), "UTS")?;
    let userns = checked("userns", &|v| ["", "host"].contains(&v), "USER")?;
    let cgroupns = checked("cgroupns", &|v| ["", "host", "private"].contains(&v), "CGROUP")?;

    let mut bindings: Map<String, Value> = Map::new();
    for text in p.list("publish") {
        for mapping in ports::parse(text)? {
            let bound = json!({ "HostIp": mapping.address, "HostPort": mapping.host_port });
            match bindings.entry(mapping.port).or_insert_with(|| json!([])) {
                Value::Array(list) => list.push(bound),
                _ => bail!("bindings are lists"),
            }
        }
    }
    let mut binds = Vec::new();
    for text in p.list("volume") {
        if let mounts::Volume::Bind(bind) = mounts::volume(text)? {
            binds.push(bind);
        }
    }
    let mount_list: Vec<Value> =
        p.list("mount").iter().map(|m| mounts::mount(m)).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let devices: Vec<Value> = p.list("device").iter().map(|d| mounts::device(d)).collect::<Result<_, _>>()?;
    let ulimits: Vec<Value> =
        p.list("ulimit").iter().map(|u| ulimit(u)).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let hosts: Vec<String> =
        p.list("add-host").iter().map(|h| add_host(h)).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let tmpfs: Map<String, Value> =
        p.list("tmpfs").iter().map(|t| mounts::tmpfs(t)).map(|(path, options)| (path, options.into())).collect();
    let (policy, retries) = restart(p.text("restart"))?;
    if p.on("rm") && !["", "no"].contains(&policy.as_str()) {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    let nano = if p.given("cpus") { parse_nano(p.text("cpus")).map_err(anyhow::Error::msg)? } else { 0 };
    let (add, drop) = capabilities(p.list("cap-add"), p.list("cap-drop"));
    if let Some(seconds) = p.int("stop-timeout") {
        config.insert("StopTimeout".into(), seconds.into());
    }
    let console = crate::client::terminal::size().map_or([0, 0], |(rows, columns)| [rows, columns]);
    let value = json!({
        "Binds": if binds.is_empty() { Value::Null } else { json!(binds) },
        "ContainerIDFile": p.text("cidfile"),
        "LogConfig": { "Type": p.text("log-driver"), "Config": map("log-opt") },
        "NetworkMode": mode,
        "PortBindings": bindings,
        "RestartPolicy": { "Name": if policy.is_empty() { "no" } else { &policy }, "MaximumRetryCount": retries },
        "AutoRemove": p.on("rm"),
        "VolumeDriver": p.text("volume-driver"),
        "VolumesFrom": list("volumes-from"),
        "ConsoleSize": console,
        "Annotations": map("annotation"),
        "CapAdd": add,
        "CapDrop": drop,
        "CgroupnsMode": cgroupns,
        "Dns": p.list("dns"),
        "DnsOptions": p.list("dns-option"),
        "DnsSearch": p.list("dns-search"),
        "ExtraHosts": if hosts.is_empty() { Value::Null } else { json!(hosts) },
        "GroupAdd": list("group-add"),
        "IpcMode": p.text("ipc"),
        "Isolation": p.text("isolation"),
        "Links": list("link"),
        "OomScoreAdj": number("oom-score-adj"),
        "PidMode": pid,
        "Privileged": p.on("privileged"),
        "PublishAllPorts": p.on("publish-all"),
        "ReadonlyRootfs": p.on("read-only"),
        "SecurityOpt": security(p.list("security-opt"))?,
        "StorageOpt": map("storage-opt"),
        "Tmpfs": tmpfs,
        "UTSMode": uts,
        "UsernsMode": userns,
        "ShmSize": bytes("shm-size")?,
        "Sysctls": map("sysctl"),
        "Runtime": p.text("runtime"),
    });
    let Value::Object(mut host) = value else { bail!("a configuration is an object") };
    host.extend(limits(p, devices, ulimits, nano)?);
    // What was not said is left out, so that the daemon's own defaults hold.
    for field in ["Annotations", "StorageOpt", "Sysctls", "Tmpfs", "VolumeDriver"] {
        let empty = host[field].as_object().is_some_and(Map::is_empty) || host[field].as_str() == Some("");
        if empty {
            host.remove(field);
        }
    }
    if p.given("init") {
        host.insert("Init".into(), p.on("init").into());
    }
    if p.given("gpus") {
        let count = match p.text("gpus") {
            "all" => -1,
            number => number.parse().with_context(|| format!("--gpus: {number} is neither a number nor 'all'"))?,
        };
        let wanted: [Value; 1] = [json!({ "Driver": "", "Count": count, "Capabilities": [["gpu"]] })];
        host.insert("DeviceRequests".into(), json!(wanted));
    }
    if !mount_list.is_empty() {
        host.insert("Mounts".into(), mount_list.into());
    }
    Ok(host)
}

/// What a container may use.
fn limits(p: &Parsed, devices: Vec<Value>, ulimits: Vec<Value>, nano: i64) -> anyhow::Result<Map<String, Value>> {
    let bytes = |flag: &str| if p.given(flag) { parse_bytes(p.text(flag)) } else { Ok(0) }.map_err(anyhow::Error::msg);
    let number = |flag: &str| p.int(flag).unwrap_or_default();
    let rules = p.list("device-cgroup-rule");
    let value = json!({
        "BlkioWeight": number("blkio-weight"),
        "BlkioWeightDevice": throttled(p.list("blkio-weight-device"), "Weight")?,
        "BlkioDeviceReadBps": throttled(p.list("device-read-bps"), "Rate")?,
        "BlkioDeviceWriteBps": throttled(p.list("device-write-bps"), "Rate")?,
        "BlkioDeviceReadIOps": throttled(p.list("device-read-iops"), "Rate")?,
        "BlkioDeviceWriteIOps": throttled(p.list("device-write-iops"), "Rate")?,
        "CpuShares": number("cpu-shares"),
        "Memory": bytes("memory")?,
        "NanoCpus": nano,
        "CgroupParent": p.text("cgroup-parent"),
        "CpuPeriod": number("cpu-period"),
        "CpuQuota": number("cpu-quota"),
        "CpuRealtimePeriod": number("cpu-rt-period"),
        "CpuRealtimeRuntime": number("cpu-rt-runtime"),
        "CpusetCpus": p.text("cpuset-cpus"),
        "CpusetMems": p.text("cpuset-mems"),
        "Devices": devices,
        "DeviceCgroupRules": if rules.is_empty() { Value::Null } else { json!(rules) },
        "MemoryReservation": bytes("memory-reservation")?,
        "MemorySwap": bytes("memory-swap")?,
        "MemorySwappiness": p.int("memory-swappiness").unwrap_or(-1),
        "OomKillDisable": p.on("oom-kill-disable"),
        "PidsLimit": number("pids-limit"),
        "Ulimits": ulimits,
    });
    match value {
        Value::Object(limits) => Ok(limits),
        _ => bail!("limits are an object"),
    }
}

/// Capabilities by their full names; one that is added is not dropped.
fn capabilities(add: &[String], drop: &[String]) -> (Value, Value) {
    let names = |list: &[String]| -> BTreeSet<String> {
        let full = |name: &String| match name.trim().to_ascii_uppercase() {
            all if all == "ALL" || all.starts_with("CAP_") => all,
            short => format!("CAP_{short}"),
        };
        let names: BTreeSet<String> = list.iter().map(full).collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, mut drop) = (names(add), names(drop));
    drop.retain(|name| !add.contains(name));
    let list = |names: BTreeSet<String>| if names.is_empty() { Value::Null } else { json!(names) };
    (list(add), list(drop))
}

/// `/dev/sda:1mb` as a device and a number.
fn throttled(list: &[String], what: &str) -> anyhow::Result<Vec<Value>> {
    let one = |text: &String| {
        let (path, number) = text.rsplit_once(':').with_context(|| format!("bad format: {text}"))?;
        if !path.starts_with("/dev/") {
            bail!("bad format for device path: {text}");
        }
        let number = parse_bytes(number).map_err(|e| anyhow::anyhow!("invalid rate for device: {text}: {e}"))?;
        Ok(json!({ "Path": path, what: number }))
    };
    list.iter().map(one).collect()
}

/// `on-failure:5` into the policy and how often.
///
/// # Errors
/// The number is none.
pub fn restart(text: &str) -> anyhow::Result<(String, i64)> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let count = count.parse().ok().context("invalid restart policy format: maximum retry count must be an integer")?;
    if text.starts_with(':') {
        bail!("invalid restart policy format: no policy provided before colon");
    }
    Ok((name.to_owned(), count))
}

/// Options are checked, and a seccomp profile is read: the daemon may live in another world of files.
fn security(options: &[String]) -> anyhow::Result<Value> {
    if options.is_empty() {
        return Ok(Value::Null);
    }
    let mut checked = Vec::new();
    for option in options {
        if option == "no-new-privileges" || option == "systempaths=unconfined" {
            checked.push(option.clone());
            continue;
        }
        let Some((name, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            bail!("Invalid --security-opt: {}", quote(option));
        };
        if name != "seccomp" || ["unconfined", "builtin"].contains(&value) {
            checked.push(option.clone());
            continue;
        }
        let profile = std::fs::read_to_string(value).map_err(|e| {
            anyhow::anyhow!(
                "opening seccomp profile ({value}) failed: open {value}: {}",
                crate::client::output::go_error(&e)
            )
        })?;
        let profile: Value = serde_json::from_str(&profile)
            .with_context(|| format!("compacting json for seccomp profile ({value}) failed"))?;
        checked.push(format!("seccomp={profile}"));
    }
    Ok(json!(checked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::grammar::{Found, Refusal, find, parse};

    fn read(line: &str) -> Result<Request, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let Found::Command(command, ..) = find(&["run".into()]) else { panic!("no run") };
        let parsed = parse(command.flags, &args, true, check).map_err(|e| match e {
            Refusal::Flag(why) => why,
            Refusal::Help => "help".into(),
        })?;
        request(&parsed).map_err(|e| e.to_string())
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        let request = read(
            "-it --rm --name x -e A=1 -w /w -u 1:2 -h me -l a=b -p 127.0.0.1:8080:80 --expose 90 -v /data -v v:/v:ro \
             --network net -m 64m --cpus 1.5 --restart no --ulimit nofile=1:2 --dns 1.1.1.1 --add-host db:10.0.0.1 \
             --stop-timeout 3 --init busybox echo hi",
        )
        .unwrap();
        let body = request.body;
        assert_eq!(request.image, "busybox");
        assert_eq!(body["Cmd"], json!(["echo", "hi"]));
        assert_eq!(body["Tty"], true);
        assert_eq!(body["StdinOnce"], true);
        assert_eq!(body["ExposedPorts"], json!({ "90/tcp": {}, "80/tcp": {} }));
        assert_eq!(body["Volumes"], json!({ "/data": {} }));
        assert_eq!(body["Labels"], json!({ "a": "b" }));
        assert_eq!(body["StopTimeout"], 3);
        let host = &body["HostConfig"];
        assert_eq!(host["Binds"], json!(["v:/v:ro"]));
        assert_eq!(host["PortBindings"], json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] }));
        assert_eq!(host["NanoCpus"], 1_500_000_000);
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["Ulimits"], json!([{ "Name": "nofile", "Soft": 1, "Hard": 2 }]));
        assert_eq!(host["ExtraHosts"], json!(["db:10.0.0.1"]));
        assert_eq!(host["NetworkMode"], "net");
        assert_eq!(host["Init"], true);
        assert!(body["NetworkingConfig"]["EndpointsConfig"]["net"].is_object());
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_docker_s_words() {
        let flag =
            |value: &str, flag: &str, why: &str| format!("invalid argument \"{value}\" for \"{flag}\" flag: {why}");
        let cases = [
            ("--rm --restart always x", "conflicting options: cannot specify both --restart and --rm".to_owned()),
            ("--pid foo x", "--pid: invalid PID mode".into()),
            ("--security-opt zzz x", "Invalid --security-opt: \"zzz\"".into()),
            ("--env-file /nope x", "open /nope: no such file or directory".into()),
            (
                "--security-opt seccomp=/nope x",
                "opening seccomp profile (/nope) failed: open /nope: no such file or directory".into(),
            ),
            ("-a foo x", flag("foo", "-a, --attach", "valid streams are STDIN, STDOUT and STDERR")),
            ("--add-host foo x", flag("foo", "--add-host", "bad format for add-host: \"foo\"")),
            ("--dns foo x", flag("foo", "--dns", "IP address is not correctly formatted: foo")),
            ("-l =a x", flag("=a", "-l, --label", "invalid label '=a': empty name")),
            ("--dns-search a..b x", flag("a..b", "--dns-search", "a..b is not a valid domain")),
            ("--dns-search -a x", flag("-a", "--dns-search", "-a is not a valid domain")),
            ("--dns-search 1.2 x", flag("1.2", "--dns-search", "1.2 is not a valid domain")),
            ("--cpus 1/0 x", flag("1/0", "--cpus", "failed to parse 1/0 as a rational number")),
            ("--cpus 1/3 x", flag("1/3", "--cpus", "value is too precise")),
            ("--ulimit abc x", flag("abc", "--ulimit", "invalid ulimit argument: abc")),
            ("--sysctl a x", flag("a", "--sysctl", "sysctl 'a' is not allowed")),
            ("--link a:b:c x", flag("a:b:c", "--link", "bad format for links: a:b:c")),
            ("--mount foo x", flag("foo", "--mount", "invalid field 'foo' must be a key=value pair")),
            ("--network name=a,foo=b x", flag("name=a,foo=b", "--network", "invalid field key foo")),
        ];
        for (line, why) in cases {
            assert_eq!(read(line).unwrap_err(), why, "{line}");
        }
    }

    #[test]
    fn streams_follow_detach_interactive_and_attach() {
        let of = |flags: &[(&'static str, &str)]| {
            let mut parsed = Parsed::default();
            flags.iter().for_each(|(flag, value)| parsed.set(flag, value));
            let s = streams(&parsed);
            (s.stdin, s.stdout, s.stderr)
        };
        assert_eq!(of(&[]), (false, true, true));
        assert_eq!(of(&[("interactive", "true")]), (true, true, true));
        assert_eq!(of(&[("detach", "true"), ("interactive", "true")]), (false, false, false));
        assert_eq!(of(&[("attach", "STDOUT")]), (false, true, false));
    }

    #[test]
    fn restart_policies_may_count() {
        assert_eq!(restart("on-failure:5").unwrap(), ("on-failure".into(), 5));
        assert_eq!(restart("").unwrap(), (String::new(), 0));
        assert!(restart("on-failure:x").is_err());
    }
}
