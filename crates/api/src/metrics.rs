//! `GET /metrics` on a TCP port of its own: for Prometheus, so it says nothing secret and takes nothing.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the measurements until `stop` resolves.
///
/// # Errors
/// The listener fails.
pub async fn serve_metrics(
    listener: TcpListener,
    engine: Arc<engine::Engine>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let measured = move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], engine.measurements().await) };
    axum::serve(listener, Router::new().route("/metrics", get(measured))).with_graceful_shutdown(stop).await
}
