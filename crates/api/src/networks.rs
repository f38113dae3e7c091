//! `/networks`.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::{Filters, Query, body};
use crate::version::Version;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::networks::NetworkView;
use model::container::EndpointSettings;
use model::go::or_default;
use model::network::{Network, PoolRequest, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `NetworkCreateRequest`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateBody {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    driver: String,
    #[serde(default, rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(default, rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    internal: bool,
    #[serde(default, deserialize_with = "or_default")]
    attachable: bool,
    #[serde(default, deserialize_with = "or_default")]
    ingress: bool,
    #[serde(default, deserialize_with = "or_default")]
    config_only: bool,
    #[serde(default, deserialize_with = "or_default")]
    config_from: ConfigFrom,
    #[serde(default, deserialize_with = "or_default")]
    scope: String,
    #[serde(default, rename = "IPAM", deserialize_with = "or_default")]
    ipam: IpamBody,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFrom {
    #[serde(deserialize_with = "or_default")]
    network: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamBody {
    #[serde(deserialize_with = "or_default")]
    driver: String,
    #[serde(deserialize_with = "or_default")]
    options: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "or_default")]
    config: Vec<IpamConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamConfig {
    #[serde(deserialize_with = "or_default")]
    subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "or_default")]
    ip_range: String,
    #[serde(deserialize_with = "or_default")]
    gateway: String,
    #[serde(deserialize_with = "or_default")]
    auxiliary_addresses: BTreeMap<String, String>,
}

pub async fn create(State(engine): Ctx, bytes: Bytes) -> Answer {
    let asked: CreateBody = body(&bytes)?;
    let lacks = |what: &str| Failure::new(StatusCode::BAD_REQUEST, what);
    if asked.ingress {
        return Err(lacks("ingress networks are part of swarm, which Isle does not have"));
    }
    if !matches!(asked.scope.as_str(), "" | "local") {
        return Err(lacks("only networks of scope 'local' are supported: Isle runs on one machine"));
    }
    let pool = |c: IpamConfig| PoolRequest {
        subnet: c.subnet,
        range: c.ip_range,
        gateway: c.gateway,
        auxiliary: c.auxiliary_addresses,
    };
    let request = Request {
        name: asked.name,
        driver: asked.driver,
        ipv4: asked.enable_ipv4,
        ipv6: asked.enable_ipv6,
        internal: asked.internal,
        attachable: asked.attachable,
        ipam_driver: asked.ipam.driver,
        ipam_options: asked.ipam.options,
        pools: asked.ipam.config.into_iter().map(pool).collect(),
        options: asked.options,
        labels: asked.labels,
        mtu: 0,
        config_only: asked.config_only,
        config_from: asked.config_from.network,
    };
    let id = engine.create_network(request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": "" }))).into_response())
}

/// A network as the API shows it (API-04): every field, always.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    name: &'a str,
    id: String,
    created: String,
    scope: &'static str,
    driver: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Value,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: Value,
    config_only: bool,
    /// An object in `inspect` only (API-01).
    containers: Value,
    options: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
}

fn show(network: &Network, containers: Value) -> Value {
    let pools: Vec<Value> = network
        .ipam
        .pools
        .iter()
        .map(|pool| {
            let mut shown = serde_json::Map::new();
            shown.insert("Subnet".into(), pool.subnet.to_string().into());
            if let Some(range) = pool.range {
                shown.insert("IPRange".into(), range.to_string().into());
            }
            if let Some(gateway) = pool.shown_gateway() {
                shown.insert("Gateway".into(), gateway.to_string().into());
            }
            if !pool.auxiliary.is_empty() {
                shown.insert("AuxiliaryAddresses".into(), json!(pool.auxiliary));
            }
            shown.into()
        })
        .collect();
    let options = if network.predefined { Value::Null } else { json!(network.ipam.options) };
    let config = if pools.is_empty() { Value::Null } else { pools.into() };
    let shown = Shown {
        name: &network.name,
        id: network.id.to_string(),
        created: network.created.to_string(),
        scope: "local",
        driver: network.driver.to_string(),
        enable_ipv4: network.ipv4,
        enable_ipv6: network.ipv6,
        ipam: json!({ "Driver": network.ipam.driver.to_string(), "Options": options, "Config": config }),
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: json!({ "Network": network.config_from }),
        config_only: network.config_only,
        containers,
        options: &network.options,
        labels: &network.labels,
    };
    serde_json::to_value(shown).expect("a network is JSON")
}

fn show_members(view: &NetworkView) -> Value {
    let text = |a: Option<String>| a.unwrap_or_default();
    let members = view.members.iter().map(|m| {
        let shown = json!({
            "Name": m.name,
            "EndpointID": m.endpoint,
            "MacAddress": m.mac.to_string(),
            "IPv4Address": text(m.ipv4.map(|a| a.to_string())),
            "IPv6Address": text(m.ipv6.map(|a| a.to_string())),
        });
        (m.container.to_string(), shown)
    });
    Value::Object(members.collect())
}

pub async fn list(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.truth("dangling")?;
    if let Some(kind) = filters.get("type").iter().find(|t| !matches!(t.as_str(), "custom" | "builtin")) {
        return Err(Failure::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let unused = if dangling.is_some() { engine.dangling_networks() } else { Default::default() };
    let matches = |n: &Network| {
        let id = n.id.to_string();
        filters.any("driver", |d| n.driver.to_string() == d)
            && filters.any("id", |i| id.contains(i))
            && filters.any("name", |name| n.name.contains(name))
            && filters.any("scope", |s| s == "local")
            && filters.any("type", |t| (t == "builtin") == n.predefined)
            && filters.labels(&n.labels)
            && dangling.is_none_or(|d| (n.is_user_defined() && unused.contains(&n.id)) == d)
    };
    let shown = engine.list_networks();
    let shown: Vec<Value> = shown.iter().filter(|n| matches(n)).map(|n| show(n, json!({}))).collect();
    Ok(Json(shown).into_response())
}

/// How full its subnets are (API-06).
fn show_usage(view: &NetworkView) -> Value {
    let subnets = view.usage.iter().map(|(subnet, usage)| {
        let numbers = json!({ "IPsInUse": usage.in_use, "DynamicIPsAvailable": usage.available });
        (subnet.to_string(), numbers)
    });
    json!({ "IPAM": { "Subnets": Value::Object(subnets.collect()) } })
}

pub async fn inspect(
    State(engine): Ctx,
    Extension(version): Extension<Version>,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    query.truth("verbose")?;
    if let Some(scope) = query.text("scope").filter(|s| *s != "local") {
        return Err(Failure::new(StatusCode::NOT_FOUND, format!("network {id} not found in scope {scope}")));
    }
    let view = engine.inspect_network(&id)?;
    let mut shown = show(&view.network, show_members(&view));
    if version >= Version::new(1, 52) {
        shown["Status"] = show_usage(&view);
    }
    Ok(Json(shown).into_response())
}

pub async fn remove(State(engine): Ctx, Path(id): Path<String>) -> Answer {
    engine.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn prune(State(engine): Ctx, query: Query) -> Answer {
    let filters: Filters = query.filters(&["until", "label", "label!"])?;
    let until = filters.until()?;
    let chosen = |n: &Network| until.is_none_or(|u| n.created < u) && filters.labels(&n.labels);
    let removed = engine.prune_networks(chosen).await?;
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    Ok(Json(json!({ "NetworksDeleted": removed })).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectBody {
    #[serde(default, deserialize_with = "or_default")]
    container: String,
    #[serde(default, deserialize_with = "or_default")]
    endpoint_config: EndpointSettings,
}

pub async fn connect(State(engine): Ctx, Path(id): Path<String>, bytes: Bytes) -> Answer<StatusCode> {
    let asked: ConnectBody = body(&bytes)?;
    engine.connect(&id, &asked.container, asked.endpoint_config).await?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DisconnectBody {
    #[serde(default, deserialize_with = "or_default")]
    container: String,
    #[serde(default, deserialize_with = "or_default")]
    force: bool,
}

pub async fn disconnect(State(engine): Ctx, Path(id): Path<String>, bytes: Bytes) -> Answer<StatusCode> {
    let asked: DisconnectBody = body(&bytes)?;
    engine.disconnect(&id, &asked.container, asked.force).await?;
    Ok(StatusCode::OK)
}
