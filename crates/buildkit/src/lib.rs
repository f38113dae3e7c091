//! Speaks BuildKit's protocol, so that buildx's `docker` driver builds with us: gRPC by a connection that a client has
//! upgraded. It decides nothing; the builder is the engine's.
//!
//! ```text
//! POST /grpc     the client calls us:  control  Solve, Status, ListWorkers …    gateway  Solve, Return
//! POST /session  we call the client:   session  accounts, secrets               receive  the context's files
//!                                                                               send     what is exported
//! ```
//!
//! A build has an id, its client's `ref`, and everything that comes by it finds it in [`builds`]: `Solve` of the
//! control service asks for it and waits, `Status` tells how it goes, and where the client leads the build itself
//! (buildx does), it asks for the image by the gateway's `Solve`, and gives it back by `Return`.
//!
//! [`attributes`] reads what a Dockerfile front end is told; [`solve`] does it; [`progress`] shows it.

mod attributes;
mod builds;
mod control;
mod export;
mod gateway;
mod progress;
mod receive;
mod send;
mod session;
mod solve;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use builds::Builds;
use engine::Engine;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use session::Sessions;
use std::ops::Deref;
use std::sync::Arc;
use tonic::service::Routes;

/// The longest message either side takes, in bytes: containerd's default, which BuildKit has too.
const LONGEST: usize = 16 << 20;

/// BuildKit, as far as clients see.
pub struct BuildKit {
    engine: Arc<Engine>,
    sessions: Sessions,
    builds: Builds,
}

/// What answers a client's calls.
struct Service(Arc<BuildKit>);

impl Deref for Service {
    type Target = Arc<BuildKit>;

    fn deref(&self) -> &Arc<BuildKit> {
        &self.0
    }
}

impl BuildKit {
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { engine, sessions: Sessions::default(), builds: Builds::default() })
    }

    /// Serves a client that calls us, until it goes.
    pub async fn serve(self: Arc<Self>, connection: Upgraded) {
        let control = ControlServer::new(Service(self.clone()))
            .max_decoding_message_size(LONGEST)
            .max_encoding_message_size(LONGEST);
        let gateway = LlbBridgeServer::new(Service(self.clone()))
            .max_decoding_message_size(LONGEST)
            .max_encoding_message_size(LONGEST);
        let routes = Routes::new(control).add_service(gateway).add_service(HealthServer::new(Service(self))).prepare();
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(connection, TowerToHyperService::new(routes));
        if let Err(e) = serving.await {
            tracing::debug!("a BuildKit client's connection ended: {e}");
        }
    }

    /// Calls a client by its own connection, under the id that it has given to it, until it goes.
    pub async fn join(self: Arc<Self>, id: String, connection: Upgraded) {
        self.sessions.join(id, connection).await;
    }
}
