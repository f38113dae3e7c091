//! What the API has for many machines and for plugins. It is answered as by a Docker that is in no swarm and has no
//! plugins: clients that only look are content, and those that would act are told.

use crate::Ctx;
use crate::error::Failure;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;

/// The paths of swarm, its services and so on, and of plugins.
pub fn router() -> Router<Arc<engine::Engine>> {
    let mut router = Router::new();
    for object in ["services", "nodes", "tasks", "secrets", "configs"] {
        router = router.route(&format!("/{object}"), get(no_swarm));
        router = router.route(&format!("/{object}/{{*rest}}"), any(no_swarm));
    }
    router
        .route("/swarm", get(no_swarm))
        .route("/swarm/init", post(never_a_swarm))
        .route("/swarm/join", post(never_a_swarm))
        .route("/swarm/leave", post(not_in_a_swarm))
        .route("/swarm/{*rest}", any(no_swarm))
        .route("/plugins", get(no_plugins))
        .route("/plugins/pull", post(never_a_plugin))
        .route("/plugins/create", post(never_a_plugin))
        .route("/plugins/privileges", get(never_a_plugin))
        .route("/plugins/{*rest}", any(no_such_plugin))
}

async fn no_swarm() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

async fn never_a_swarm() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Isle has no swarm: it runs the containers of one machine")
}

/// What can be changed of a volume later is what a swarm's have.
pub async fn no_cluster_volume() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

async fn not_in_a_swarm() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn no_plugins(_: Ctx) -> Json<Value> {
    Json(json!([]))
}

async fn never_a_plugin() -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "Isle runs no plugins: its drivers of networks, volumes and logs are its own ('isle info' lists them)",
    )
}

/// `{name}/json`, `{name}/enable` and so on; a name may have slashes.
async fn no_such_plugin(Path(rest): Path<String>) -> Failure {
    let actions = ["json", "enable", "disable", "upgrade", "push", "set"];
    let name = rest.rsplit_once('/').filter(|(_, action)| actions.contains(action)).map_or(rest.as_str(), |(n, _)| n);
    Failure::new(StatusCode::NOT_FOUND, format!("plugin \"{name}\" not found"))
}
