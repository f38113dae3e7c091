//! A container as an inspection shows it.

use crate::Ctx;
use crate::error::Answer;
use crate::query::Query;
use crate::times;
use crate::version::Version;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::list::ContainerView;
use model::container::{ActiveEndpoint, Config, Container, Endpoint, HostConfig, State as ContainerState, Status};
use model::desired::Attachment;
use model::health::Health;
use model::port::{Port, parse_range};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub async fn inspect(
    State(engine): Ctx,
    Path(id): Path<String>,
    Extension(version): Extension<Version>,
    query: Query,
) -> Answer {
    let view = engine.inspect_container(&id)?;
    let mut shown = show(&view, version);
    if query.flag("size") {
        let written = engine.writable_size(&id).await;
        shown["SizeRw"] = written.into();
        shown["SizeRootFs"] = (view.image_size + written).into();
    }
    Ok(Json(shown).into_response())
}

fn show(view: &ContainerView, version: Version) -> Value {
    let c = &view.record;
    let command = c.command();
    let log = match c.host.log_config.driver.as_str() {
        // Docker shows no path of logs whose format is their driver's own.
        "none" | "local" => String::new(),
        _ => view.log_path.clone(),
    };
    let file = |name: &str| view.directory.join(name).display().to_string();
    let mut config = show_config(&c.config);
    // The address that was asked for at creation, which is the first network's.
    let asked = c.endpoints.first().map(|e| &e.settings.mac_address).filter(|mac| !mac.is_empty());
    if let Some(mac) = asked {
        config["MacAddress"] = json!(mac);
    }
    json!({
        "Id": c.id,
        "Created": c.created.to_string(),
        "Path": command.first().cloned().unwrap_or_default(),
        "Args": command.get(1..).unwrap_or_default(),
        "State": show_state(&c.state, view.health.as_ref()),
        "Image": c.image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": log,
        "Name": format!("/{}", c.name),
        "RestartCount": c.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if view.execs.is_empty() { Value::Null } else { json!(view.execs) },
        "HostConfig": show_host(&c.host),
        "GraphDriver": { "Data": view.graph, "Name": "overlay2" },
        "Mounts": c.mounts,
        "Config": config,
        "NetworkSettings": show_network_settings(view, version),
    })
}

fn show_state(s: &ContainerState, health: Option<&Health>) -> Value {
    let mut shown = json!({
        "Status": s.status.as_str(),
        "Running": matches!(s.status, Status::Running | Status::Paused | Status::Restarting),
        "Paused": s.status == Status::Paused,
        "Restarting": s.status == Status::Restarting,
        "OOMKilled": s.oom_killed,
        "Dead": s.status == Status::Dead,
        "Pid": s.pid,
        "ExitCode": s.exit_code,
        "Error": s.error,
        "StartedAt": times::shown(s.started),
        "FinishedAt": times::shown(s.finished),
    });
    if let Some(health) = health {
        let probe = |p: &model::health::Probe| {
            let (start, end) = (p.start.to_string(), p.end.to_string());
            json!({ "Start": start, "End": end, "ExitCode": p.exit_code, "Output": p.output })
        };
        shown["Health"] = json!({
            "Status": health.status.as_str(),
            "FailingStreak": health.failing_streak,
            "Log": health.log.iter().map(probe).collect::<Vec<_>>(),
        });
    }
    shown
}

fn show_host(host: &HostConfig) -> Value {
    let mut shown = serde_json::to_value(host).expect("a configuration is JSON");
    // Docker's empty answers: lists of DNS are lists, the console is a pair.
    if host.console_size.is_none() {
        shown["ConsoleSize"] = json!([0, 0]);
    }
    let defaults: [(&str, &[&str]); 2] =
        [("MaskedPaths", &model::spec::MASKED_PATHS), ("ReadonlyPaths", &model::spec::READONLY_PATHS)];
    for (name, paths) in defaults {
        if shown[name].is_null() && !host.privileged {
            shown[name] = json!(paths);
        }
    }
    shown
}

fn show_config(config: &Config) -> Value {
    let mut shown = serde_json::to_value(config).expect("a configuration is JSON");
    if config.exposed_ports.is_empty()
        && let Some(map) = shown.as_object_mut()
    {
        map.remove("ExposedPorts");
    }
    if config.healthcheck.is_none()
        && let Some(map) = shown.as_object_mut()
    {
        map.remove("Healthcheck");
    }
    if config.volumes.is_empty() {
        shown["Volumes"] = Value::Null;
    }
    shown
}

/// `NetworkSettings` (API-27): with the default bridge's fields on top below API 1.52.
fn show_network_settings(view: &ContainerView, version: Version) -> Value {
    let c = &view.record;
    let networks: Map<String, Value> = c
        .endpoints
        .iter()
        .map(|e| (e.network_name.clone(), show_endpoint(c, &view.user_defined, e, version)))
        .collect();
    let bridge = networks.get("bridge").filter(|_| c.state.is_running()).cloned().unwrap_or_else(|| json!({}));
    let legacy = |name: &str, empty: Value| bridge.get(name).cloned().unwrap_or(empty);
    let sandbox = c.state.sandbox.filter(|_| c.state.is_running());
    json!({
        "Bridge": "",
        "SandboxID": sandbox.map(|s| s.to_string()).unwrap_or_default(),
        "SandboxKey": if c.state.pid > 0 { format!("/proc/{}/ns/net", c.state.pid) } else { String::new() },
        "Ports": show_ports(c),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": legacy("EndpointID", json!("")),
        "Gateway": legacy("Gateway", json!("")),
        "GlobalIPv6Address": legacy("GlobalIPv6Address", json!("")),
        "GlobalIPv6PrefixLen": legacy("GlobalIPv6PrefixLen", json!(0)),
        "IPAddress": legacy("IPAddress", json!("")),
        "IPPrefixLen": legacy("IPPrefixLen", json!(0)),
        "IPv6Gateway": legacy("IPv6Gateway", json!("")),
        "MacAddress": legacy("MacAddress", json!("")),
        "Networks": networks,
    })
}

/// An endpoint, as inspections and lists have it. `user_defined`: the networks that clients made, on which names count.
pub fn show_endpoint(c: &Container, user_defined: &BTreeSet<String>, endpoint: &Endpoint, version: Version) -> Value {
    let active = endpoint.active.as_ref();
    let (ipv4, ipv6) = (active.and_then(|a| a.ipv4()), active.and_then(|a| a.ipv6()));
    let gateway = |v6: bool| {
        let ways = |a: &ActiveEndpoint| {
            let Attachment { default_routes, gateways, .. } = &a.attachment;
            default_routes.iter().chain(gateways).copied().collect::<Vec<_>>()
        };
        let gateways = active.into_iter().flat_map(ways);
        gateways.filter(|g| g.is_ipv6() == v6).map(|g| g.to_string()).next().unwrap_or_default()
    };
    let user_defined = user_defined.contains(&endpoint.network_name);
    let mut aliases = endpoint.settings.aliases.clone();
    // API-28: before 1.45 the short id counted as an alias.
    if user_defined && version < Version::new(1, 45) {
        let list = aliases.get_or_insert_default();
        let short = c.id.short();
        if !list.contains(&short) {
            list.push(short);
        }
    }
    let names = if user_defined && active.is_some() { json!(c.dns_names(&endpoint.settings)) } else { Value::Null };
    let mac = active.map_or_else(|| endpoint.settings.mac_address.clone(), |a| a.attachment.mac.to_string());
    json!({
        "IPAMConfig": endpoint.settings.ipam_config,
        "Links": endpoint.settings.links,
        "Aliases": aliases,
        "MacAddress": mac,
        "DriverOpts": endpoint.settings.driver_opts,
        "GwPriority": endpoint.settings.gw_priority,
        "NetworkID": endpoint.network.map(|n| n.to_string()).unwrap_or_default(),
        "EndpointID": active.map(|a| a.attachment.endpoint.to_string()).unwrap_or_default(),
        "Gateway": if ipv4.is_some() { gateway(false) } else { String::new() },
        "IPAddress": ipv4.map(|a| a.addr().to_string()).unwrap_or_default(),
        "IPPrefixLen": ipv4.map(|a| a.prefix_len()).unwrap_or_default(),
        "IPv6Gateway": if ipv6.is_some() { gateway(true) } else { String::new() },
        "GlobalIPv6Address": ipv6.map(|a| a.addr().to_string()).unwrap_or_default(),
        "GlobalIPv6PrefixLen": ipv6.map(|a| a.prefix_len()).unwrap_or_default(),
        "DNSNames": names,
    })
}

/// Ports that are open by themselves, since their network is routed: with the unspecified address of their family.
pub fn routed_ports(c: &Container) -> BTreeSet<(Port, IpAddr)> {
    let publications = c.endpoints.iter().filter_map(|e| e.active.as_ref()).flat_map(|a| &a.publications);
    let routed = publications.filter(|p| p.host_port == 0);
    let ports = routed.flat_map(|p| {
        (0..p.count).map(|o| (Port { number: p.container_port.saturating_add(o), protocol: p.protocol }, p.host))
    });
    ports.collect()
}

/// The host's address and port of every published port, and the exposed ones without (API-30).
fn show_ports(c: &Container) -> Value {
    let mut ports: BTreeMap<Port, Vec<Value>> = BTreeMap::new();
    if c.state.is_running() {
        for port in c.config.exposed_ports.keys().filter_map(|p| parse_range(p).ok()).flatten() {
            ports.entry(port).or_default();
        }
        for p in &c.state.ports {
            for offset in 0..p.count {
                let port = Port { number: p.container_port + offset, protocol: p.protocol };
                let list = ports.entry(port).or_default();
                for host in &p.hosts {
                    list.push(json!({ "HostIp": host.to_string(), "HostPort": (p.host_port + offset).to_string() }));
                }
            }
        }
    }
    for (port, host) in routed_ports(c) {
        ports.entry(port).or_default().push(json!({ "HostIp": host.to_string(), "HostPort": "" }));
    }
    let shown = ports
        .into_iter()
        .map(|(port, list)| (port.to_string(), if list.is_empty() { Value::Null } else { Value::Array(list) }));
    Value::Object(shown.collect())
}
