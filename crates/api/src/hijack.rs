//! Connections that turn into streams: `attach`, `exec` and `build` take the whole connection over.
//!
//! A client that asks with `Upgrade: tcp` gets 101; one that does not gets 200 and the stream all the same, which
//! [`crate::serve`] arranges on the connection itself.

use crate::error::{Answer, Failure};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::future::Future;

/// Multiplexed output: frames of stdout and stderr.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// A terminal's bytes, as they are.
pub const RAW: &str = "application/vnd.docker.raw-stream";

/// The connection under a request, to be taken over.
pub struct Takeover(OnUpgrade);

impl Takeover {
    /// # Errors
    /// The request came by a connection that cannot be taken over.
    pub fn of(request: &mut Request) -> Answer<Self> {
        let taken = request.extensions_mut().remove::<OnUpgrade>();
        taken.map(Takeover).ok_or_else(|| Failure::invalid("this request wants a connection of its own (HTTP/1.1)"))
    }

    /// The response that hands the connection over, to `serve`.
    pub fn respond<F>(
        self,
        content_type: &'static str,
        serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let mut response = self.upgrade("tcp", |connection| serve(TokioIo::new(connection)));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        response
    }

    /// The response that changes the connection's protocol, and has it served.
    pub fn upgrade<F>(self, protocol: &'static str, serve: impl FnOnce(Upgraded) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        tokio::spawn(async move {
            match self.0.await {
                Ok(connection) => serve(connection).await,
                Err(e) => tracing::debug!("a client went away before its stream began: {e}"),
            }
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, protocol)
            .body(Body::empty())
            .expect("constant headers")
    }
}
