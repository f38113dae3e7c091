//! `/containers`: everything but their streams.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::{Filters, Query, body};
use crate::version::Version;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::create::CreateRequest;
use engine::list::{ContainerView, Listed};
use engine::stop::Until;
use model::container::{
    ActiveEndpoint, Config, Container, Endpoint, EndpointSettings, HostConfig, State as ContainerState, Status,
};
use model::desired::Attachment;
use model::health::Health;
use model::port::{Port, parse_range};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn time(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), |t| t.to_string())
}

/// What stands in the object that is the configuration, beside it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    host_config: Value,
    networking_config: Value,
    /// Where docker-py says it.
    runtime: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingBody {
    endpoints_config: Value,
}

pub async fn create(State(engine): Ctx, Extension(version): Extension<Version>, query: Query, bytes: Bytes) -> Answer {
    let CreateBody { host_config: host, networking_config: networking, runtime } = body(&bytes)?;
    for (what, part) in [("HostConfig", &host), ("NetworkingConfig", &networking)] {
        if !part.is_null() && !part.is_object() {
            return Err(Failure::invalid(format!("invalid JSON: {what}: an object is expected")));
        }
    }
    let invalid = |what: &str, e: serde_json::Error| Failure::invalid(format!("invalid JSON: {what}: {e}"));
    let config: Config = body(&bytes)?;
    let host: Option<HostConfig> = crate::keys::read(host).map_err(|e| invalid("HostConfig", e))?;
    let mut request = CreateRequest {
        name: query.text("name").map(str::to_owned),
        config,
        platform: query.text("platform").map(str::parse).transpose().map_err(Failure::invalid)?,
        host: host.unwrap_or_default(),
        ..Default::default()
    };
    if let Some(Value::String(runtime)) = runtime
        && request.host.runtime.is_empty()
    {
        request.host.runtime = runtime;
    }
    let networking: Option<NetworkingBody> =
        crate::keys::read(networking).map_err(|e| invalid("NetworkingConfig", e))?;
    if let Some(Value::Object(endpoints)) = networking.map(|n| n.endpoints_config) {
        for (network, settings) in endpoints {
            let settings: Option<EndpointSettings> =
                crate::keys::read(settings).map_err(|e| invalid("EndpointsConfig", e))?;
            request.endpoint_order.push(network.clone());
            request.endpoints.insert(network.clone(), settings.unwrap_or_default());
        }
    }
    if version < Version::new(1, 44) && request.endpoints.len() > 1 {
        let names: Vec<&str> = request.endpoints.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return Err(Failure::invalid(format!("Container cannot be connected to network endpoints: {names}")));
    }
    let created = engine.create_container(request).await?;
    let answer = json!({ "Id": created.id, "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

pub async fn start(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    if query.text("checkpoint").is_some() {
        return Err(no_checkpoints().await);
    }
    engine.start(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn stop(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    engine.stop(&id, query.number("t")?, query.text("signal")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn restart(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    engine.restart(&id, query.number("t")?, query.text("signal")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn kill(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    engine.kill(&id, query.text("signal").unwrap_or("SIGKILL")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn pause(State(engine): Ctx, Path(id): Path<String>) -> Answer<StatusCode> {
    engine.pause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn unpause(State(engine): Ctx, Path(id): Path<String>) -> Answer<StatusCode> {
    engine.unpause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn rename(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let name = query.text("name").ok_or_else(|| Failure::invalid("New name for the container is required"))?;
    engine.rename(&id, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resources and the restart policy are in the body as in `HostConfig`.
pub async fn update(State(engine): Ctx, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let sent: Map<String, Value> = body(&bytes)?;
    let has = |field: &&&str| sent.keys().any(|key| key.eq_ignore_ascii_case(field));
    if let Some(field) = ["PortBindings", "PublishAllPorts", "ExposedPorts"].iter().find(has) {
        return Err(Failure::invalid(format!(
            "{field}: the ports of a container are chosen when it is created; create it anew with others"
        )));
    }
    let wanted: HostConfig =
        crate::keys::read(sent.into()).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))?;
    let warnings = engine.update(&id, wanted).await?;
    Ok(Json(json!({ "Warnings": warnings })).into_response())
}

/// Connections and names are their network's, and do not outlive what a checkpoint keeps (LC-11).
pub async fn no_checkpoints() -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "checkpoints are not supported: a restored process would have the connections of networks that are no longer as \
         they were; stop the container and start it, or pause it",
    )
}

/// `DELETE /containers/{owner}/{alias}?link=1`: a legacy link is a name of the container that it leads to.
pub async fn remove_link(
    State(engine): Ctx,
    Path((owner, alias)): Path<(String, String)>,
    query: Query,
    uri: axum::http::Uri,
) -> Answer<StatusCode> {
    if !query.flag("link") {
        return Err(crate::error::no_such_page(uri).await);
    }
    engine.remove_link(&owner, &alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn remove(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    engine.remove_container(&id, query.flag("force"), query.flag("v")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn resize(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let (rows, columns) = size(&query)?;
    engine.resize(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

/// `h` and `w`.
pub fn size(query: &Query) -> Answer<(u16, u16)> {
    let number = |name| query.number::<u16>(name).map(Option::unwrap_or_default);
    Ok((number("h")?, number("w")?))
}

/// The headers go out at once: clients wait for them before they start the container.
pub async fn wait(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let until = match query.text("condition") {
        None | Some("not-running") => Until::NotRunning,
        Some("next-exit") => Until::NextExit,
        Some("removed") => Until::Removed,
        Some(other) => return Err(Failure::invalid(format!("invalid condition: \"{other}\""))),
    };
    let waiting = engine.wait(&id, until)?;
    let answer = async move {
        let ended = waiting.await;
        let mut answer = json!({ "StatusCode": ended.exit_code });
        if !ended.error.is_empty() {
            answer["Error"] = json!({ "Message": ended.error });
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{answer}\n")))
    };
    let body = Body::from_stream(futures_util::stream::once(answer));
    Ok(([("Content-Type", "application/json")], body).into_response())
}

pub async fn prune(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&["until", "label", "label!"])?;
    let until = filters.until()?;
    let mut deleted = Vec::new();
    let mut bytes = 0;
    for listed in engine.list_containers(false).into_iter().filter(|l| {
        matches!(l.record.state.status, Status::Created | Status::Exited | Status::Dead)
            && until.is_none_or(|u| l.record.created < u)
            && filters.labels(&l.record.config.labels)
    }) {
        let id = listed.record.id.to_string();
        let size = engine.writable_size(&id).await;
        if engine.remove_container(&id, false, false).await.is_ok() {
            bytes += size;
            deleted.push(id);
        }
    }
    engine.events.tell_prune("container", bytes);
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": bytes })).into_response())
}

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
        "StartedAt": time(s.started),
        "FinishedAt": time(s.finished),
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
    let networks: Map<String, Value> =
        c.endpoints.iter().map(|e| (e.network_name.clone(), show_endpoint(view, e, version))).collect();
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

fn show_endpoint(view: &ContainerView, endpoint: &Endpoint, version: Version) -> Value {
    let c = &view.record;
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
    let user_defined = view.user_defined.contains(&endpoint.network_name);
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
fn routed_ports(c: &Container) -> BTreeSet<(Port, IpAddr)> {
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

/// `Ports` of a list (API-29).
fn list_ports(listed: &Listed) -> Vec<Value> {
    let c = &listed.record;
    if !c.state.is_running() {
        return Vec::new();
    }
    let mut shown = Vec::new();
    let mut bound = BTreeSet::new();
    for p in &c.state.ports {
        for offset in 0..p.count {
            bound.insert(Port { number: p.container_port + offset, protocol: p.protocol });
            for host in &p.hosts {
                shown.push(json!({
                    "IP": host.to_string(),
                    "PrivatePort": p.container_port + offset,
                    "PublicPort": p.host_port + offset,
                    "Type": p.protocol.to_string(),
                }));
            }
        }
    }
    for (port, host) in routed_ports(c) {
        bound.insert(port);
        let (address, protocol) = (host.to_string(), port.protocol.to_string());
        shown.push(json!({ "IP": address, "PrivatePort": port.number, "Type": protocol }));
    }
    for port in c.config.exposed_ports.keys().filter_map(|p| parse_range(p).ok()).flatten() {
        if !bound.contains(&port) {
            shown.push(json!({ "PrivatePort": port.number, "Type": port.protocol.to_string() }));
        }
    }
    shown
}

const LIST_FILTERS: [&str; 18] = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "reference",
    "until",
];

pub async fn list(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&LIST_FILTERS)?;
    let limit: Option<i64> = query.number("limit")?;
    for status in filters.get("status") {
        let known = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        if !known.contains(&status.as_str()) {
            return Err(Failure::invalid(format!("invalid filter 'status={status}'")));
        }
    }
    let (published, exposed) = (port_filter(&filters, "publish")?, port_filter(&filters, "expose")?);
    let patterns = engine::list::name_patterns(filters.get("name"))?;
    let all = query.flag("all")
        || limit.is_some_and(|l| l > 0)
        || !filters.get("status").is_empty()
        || !filters.get("exited").is_empty();
    let with_size = query.flag("size");
    let listed = engine.list_containers(with_size);
    let edge = |name: &str| -> Answer<Option<jiff::Timestamp>> {
        filters.get(name).last().map(|id| Ok(engine.inspect_container(id)?.record.created)).transpose()
    };
    let (before, since) = (edge("before")?, edge("since")?);
    let ancestors = engine.ancestor_ids(filters.get("ancestor"));
    let networks: Vec<String> = filters.get("network").to_vec();
    let matches = |l: &Listed| {
        let c = &l.record;
        let id = c.id.to_string();
        (all || c.state.is_running() || c.state.status == Status::Restarting)
            && filters.any("id", |i| id.starts_with(i))
            && (patterns.is_empty()
                || patterns.iter().any(|p| p.is_match(&format!("/{}", c.name)) || p.is_match(&c.name)))
            && filters.any("status", |s| c.state.status.as_str() == s)
            && filters.any("exited", |e| c.state.status == Status::Exited && e == c.state.exit_code.to_string())
            && filters.any("health", |h| h == l.health.map_or("none", |s| s.as_str()))
            && filters.labels(&c.config.labels)
            && before.is_none_or(|t| c.created < t)
            && since.is_none_or(|t| c.created > t)
            && (networks.is_empty()
                || c.endpoints.iter().any(|e| {
                    networks.iter().any(|n| *n == e.network_name || e.network.is_some_and(|i| i.starts_with(n)))
                }))
            && filters.any("volume", |v| c.mounts.iter().any(|m| m.name == v || m.destination == v || m.source == v))
            && filters.any("ancestor", |_| ancestors.contains(&c.image))
            && published.as_ref().is_none_or(|wanted| published_ports(c).iter().any(|p| wanted.contains(p)))
            && exposed.as_ref().is_none_or(|wanted| exposed_ports(c).iter().any(|p| wanted.contains(p)))
    };
    let mut chosen: Vec<&Listed> = listed.iter().filter(|l| matches(l)).collect();
    if let Some(limit) = limit.filter(|l| *l > 0) {
        chosen.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let mut shown = Vec::new();
    for l in chosen {
        let mut one = show_listed(l);
        if with_size {
            let written = engine.writable_size(&l.record.id.to_string()).await;
            one["SizeRw"] = written.into();
            one["SizeRootFs"] = (l.image_size + written).into();
        }
        shown.push(one);
    }
    Ok(Json(shown).into_response())
}

fn published_ports(c: &model::container::Container) -> Vec<Port> {
    let ranges = c.state.ports.iter();
    ranges.flat_map(|p| (0..p.count).map(|o| Port { number: p.host_port + o, protocol: p.protocol })).collect()
}

fn exposed_ports(c: &model::container::Container) -> Vec<Port> {
    c.config.exposed_ports.keys().filter_map(|p| parse_range(p).ok()).flatten().collect()
}

/// The ports that a filter names, `80/tcp` or `8000-8010/udp`; None where it is not given.
fn port_filter(filters: &Filters, name: &str) -> Answer<Option<Vec<Port>>> {
    let values = filters.get(name);
    let mut ports = Vec::new();
    for value in values {
        if value.contains(':') {
            return Err(Failure::invalid(format!("filter for '{name}' should not contain ':': {value}")));
        }
        let wanted = parse_range(value);
        ports.extend(wanted.map_err(|e| Failure::invalid(format!("error while looking up for {name} {value}: {e}")))?);
    }
    Ok((!values.is_empty()).then_some(ports))
}

pub fn show_listed(l: &Listed) -> Value {
    let c = &l.record;
    let command: Vec<String> = c
        .command()
        .iter()
        .map(|a| if a.contains([' ', '\t']) || a.is_empty() { format!("'{a}'") } else { a.clone() })
        .collect();
    let networks: Map<String, Value> =
        c.endpoints.iter().map(|e| (e.network_name.clone(), show_endpoint(&l.view(), e, crate::API_VERSION))).collect();
    json!({
        "Id": c.id,
        "Names": [format!("/{}", c.name)],
        "Image": l.image_name,
        "ImageID": c.image,
        "Command": command.join(" "),
        "Created": c.created.as_second(),
        "Ports": list_ports(l),
        "Labels": c.config.labels,
        "State": c.state.status.as_str(),
        "Status": status_words(&c.state, l.health),
        "HostConfig": { "NetworkMode": c.host.network_mode },
        "NetworkSettings": { "Networks": networks },
        "Mounts": c.mounts,
    })
}

/// `Up 5 minutes`, `Exited (0) 2 hours ago`, in Docker's words.
fn status_words(s: &ContainerState, health: Option<model::health::Status>) -> String {
    let ago = |t: Option<jiff::Timestamp>| {
        model::duration::human(t.map_or(0, |t| (jiff::Timestamp::now().as_second() - t.as_second()).max(0)))
    };
    match s.status {
        Status::Running => {
            let health = match health {
                None => String::new(),
                Some(model::health::Status::Starting) => " (health: starting)".into(),
                Some(status) => format!(" ({})", status.as_str()),
            };
            format!("Up {}{health}", ago(s.started))
        }
        Status::Paused => format!("Up {} (Paused)", ago(s.started)),
        Status::Restarting => format!("Restarting ({}) {} ago", s.exit_code, ago(s.finished)),
        Status::Created => "Created".into(),
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Exited => format!("Exited ({}) {} ago", s.exit_code, ago(s.finished)),
    }
}
