//! Containers as a list shows them, and the filters that choose them.

use super::show::{routed_ports, show_endpoint};
use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::{Filters, Query};
use axum::Json;
use axum::response::IntoResponse;
use engine::list::Listed;
use model::container::{Container, State, Status};
use model::port::{Port, parse_range};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

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

pub async fn list(axum::extract::State(engine): Ctx, query: Query) -> Answer {
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

fn published_ports(c: &Container) -> Vec<Port> {
    let ranges = c.state.ports.iter();
    ranges.flat_map(|p| (0..p.count).map(|o| Port { number: p.host_port + o, protocol: p.protocol })).collect()
}

fn exposed_ports(c: &Container) -> Vec<Port> {
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
    let networks: Map<String, Value> = c
        .endpoints
        .iter()
        .map(|e| (e.network_name.clone(), show_endpoint(c, &l.user_defined, e, crate::API_VERSION)))
        .collect();
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
fn status_words(s: &State, health: Option<model::health::Status>) -> String {
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
