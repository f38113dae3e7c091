//! `/containers`: what is done to them. Their streams are elsewhere.
//!
//! - [`show`]: one, with all that is known of it
//! - [`list`]: many, by filters

mod list;
mod show;

pub use list::{list, show_listed};
pub use show::inspect;

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::{Query, body};
use crate::version::Version;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::create::CreateRequest;
use engine::stop::Until;
use model::container::{Config, EndpointSettings, HostConfig, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingBody {
    endpoints_config: Value,
}

pub async fn create(State(engine): Ctx, Extension(version): Extension<Version>, query: Query, bytes: Bytes) -> Answer {
    // The object is the configuration, and has the rest beside it. docker-py says the runtime there, too.
    let mut sent: Map<String, Value> = body(&bytes)?;
    let [host, networking, runtime] =
        ["HostConfig", "NetworkingConfig", "Runtime"].map(|part| crate::keys::take(&mut sent, part));
    for (what, part) in [("HostConfig", &host), ("NetworkingConfig", &networking)] {
        if !part.is_null() && !part.is_object() {
            return Err(Failure::invalid(format!("invalid JSON: {what}: an object is expected")));
        }
    }
    let invalid = |what: &str, e: serde_json::Error| Failure::invalid(format!("invalid JSON: {what}: {e}"));
    let config: Config = crate::keys::read(sent.into()).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))?;
    let host: Option<HostConfig> = crate::keys::read(host).map_err(|e| invalid("HostConfig", e))?;
    let mut request = CreateRequest {
        name: query.text("name").map(str::to_owned),
        config,
        platform: query.text("platform").map(str::parse).transpose().map_err(Failure::invalid)?,
        host: host.unwrap_or_default(),
        ..Default::default()
    };
    if let Value::String(runtime) = runtime
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
