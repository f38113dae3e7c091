//! `/volumes`.

use crate::Ctx;
use crate::error::Answer;
use crate::query::{Query, body};
use crate::version::Version;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::store::Volume;
use model::go::or_default;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    driver: String,
    #[serde(deserialize_with = "or_default")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

pub fn show(engine: &engine::Engine, volume: &Volume) -> Value {
    json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": engine.volume_path(&volume.name),
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    })
}

/// The same with what it holds and how many containers use it, for `system df`.
pub fn show_used(engine: &engine::Engine, volume: &Volume) -> Value {
    let mut shown = show(engine, volume);
    let (size, users) = (engine.volume_size(&volume.name), engine.volume_users(&volume.name).len());
    shown["UsageData"] = json!({ "Size": size, "RefCount": users });
    shown
}

pub async fn create(State(engine): Ctx, bytes: Bytes) -> Answer {
    let asked: CreateBody = body(&bytes)?;
    let name = Some(asked.name).filter(|n| !n.is_empty());
    let volume = engine.create_volume(name, &asked.driver, asked.labels, asked.driver_opts).await?;
    Ok((StatusCode::CREATED, Json(show(&engine, &volume))).into_response())
}

pub async fn list(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let matches = |v: &Volume| {
        filters.any("name", |n| v.name.contains(n))
            && filters.any("driver", |d| d == "local")
            && filters.labels(&v.labels)
            && dangling.is_none_or(|d| engine.volume_users(&v.name).is_empty() == d)
    };
    let volumes = engine.list_volumes();
    let shown: Vec<Value> = volumes.iter().filter(|v| matches(v)).map(|v| show(&engine, v)).collect();
    Ok(Json(json!({ "Volumes": shown, "Warnings": [] })).into_response())
}

pub async fn inspect(State(engine): Ctx, Path(name): Path<String>) -> Answer {
    let volume = engine.inspect_volume(&name)?;
    Ok(Json(show(&engine, &volume)).into_response())
}

pub async fn remove(State(engine): Ctx, Path(name): Path<String>, query: Query) -> Answer<StatusCode> {
    engine.remove_volume(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn prune(State(engine): Ctx, Extension(version): Extension<Version>, query: Query) -> Answer {
    let filters = query.filters(&["all", "label", "label!"])?;
    // Before 1.42 named ones were pruned, too.
    let all = filters.truth("all")?.unwrap_or(false) || version < Version::new(1, 42);
    let (removed, bytes) = engine.prune_volumes(all, |v| filters.labels(&v.labels)).await?;
    Ok(Json(json!({ "VolumesDeleted": removed, "SpaceReclaimed": bytes })).into_response())
}
