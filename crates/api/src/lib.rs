//! Speaks Docker's Engine API: HTTP on unix sockets. It translates and decides nothing.
//!
//! - [`version`]: which version of the API a request asks for
//! - [`hijack`]: connections that turn into streams
//! - [`query`]: parameters and filters, as clients write them
//! - [`times`]: points in time, as clients write and read them
//! - [`bodies`]: tars and lines of JSON, as they come
//! - the rest: one file an object of the API

#![recursion_limit = "256"]

mod absent;
mod archive;
mod bodies;
mod build;
mod commit;
mod containers;
mod error;
mod events;
mod exec;
mod explain;
mod hijack;
mod images;
mod keys;
mod metrics;
mod networks;
mod progress;
mod query;
mod registries;
mod serve;
mod socket;
mod stats;
mod streams;
mod system;
mod times;
mod top;
mod version;
mod volumes;

pub use metrics::serve_metrics;
pub use serve::{Listener, serve};
pub use version::{API_VERSION, MIN_API_VERSION};

use axum::Router;
use axum::routing::{delete, get, post};
use std::sync::Arc;

/// What every handler has.
pub(crate) type Ctx = axum::extract::State<Arc<engine::Engine>>;

/// The whole API. Paths are without their version: [`version`] takes it off before.
pub fn router(engine: Arc<engine::Engine>) -> Router {
    let router = Router::new();
    let kit = buildkit::BuildKit::new(engine.clone());
    #[cfg(debug_assertions)]
    let router = router.route("/debug/faults", get(system::armed).post(system::arm));
    router
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/auth", post(registries::log_in))
        .route("/system/df", get(system::df))
        .route("/events", get(events::events))
        .route("/networks", get(networks::list))
        .route("/networks/", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{id}/connect", post(networks::connect))
        .route("/networks/{id}/disconnect", post(networks::disconnect))
        .route("/isle/explain", get(explain::explain))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).put(absent::no_cluster_volume).delete(volumes::remove))
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/{alias}", delete(containers::remove_link))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/checkpoints", get(containers::no_checkpoints).post(containers::no_checkpoints))
        .route("/containers/{id}/checkpoints/{checkpoint}", delete(containers::no_checkpoints))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/attach", post(streams::attach))
        .route("/containers/{id}/attach/ws", get(streams::attach_by_websocket))
        .route("/containers/{id}/archive", get(archive::get).head(archive::head).put(archive::put))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/top", get(top::top))
        .route("/commit", post(commit::commit))
        .route("/containers/{id}/logs", get(streams::logs))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route("/images/load", post(images::load))
        .route("/images/get", get(images::save))
        .route("/images/prune", post(images::prune))
        .route("/images/search", get(registries::search))
        .route("/images/{*name}", get(images::get).post(images::post).delete(images::remove))
        .route("/distribution/{*name}", get(registries::inspect))
        .route("/build", post(build::build))
        .route("/build/prune", post(build::prune))
        .route("/session", post(build::session))
        .route("/grpc", post(build::grpc))
        .merge(absent::router())
        .fallback(error::no_such_page)
        .method_not_allowed_fallback(error::no_such_page)
        .layer(axum::Extension(kit))
        .with_state(engine)
}
