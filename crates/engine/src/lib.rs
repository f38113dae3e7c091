//! Owns what is true, and orders the workers.
//!
//! [`State`](state::State) is the one owner, in memory; the [`store`] is how it survives. An operation decides under the
//! state's lock, records, and then acts through the workers: `network`, `image`, `runtime`, and the [`keeper`] process.
//! Operations on one container take their turns; each runs detached from its client, so that one who hangs up leaves
//! nothing half done.
//!
//! - [`networks`], [`endpoints`], [`connect`], [`naming`], [`ports`], [`links`]: networks, who is on them, under which names and host
//!   ports
//! - [`explain`], [`heal`]: why a flow passes or does not; what others take away is made again
//! - [`create`], [`start`], [`order`], [`take_down`], [`stop`], [`restart`], [`pause`], [`rename`], [`update`], [`remove`], [`exec`], [`command`], [`attach`], [`describe`]:
//!   the life of a container
//! - [`health`]: checks beside a container
//! - [`volumes`], [`images`], [`build`], [`files`]: what containers are made of
//! - [`mounts`]: volumes that are more than a directory
//! - [`archive`], [`commit`], [`stats`]: a container's files, an image of it, what it uses
//! - [`recover`], [`found`], [`root`], [`shutdown`]: what a new daemon does with what the last one left, and what it leaves itself
//! - [`events`], [`list`], [`info`]: what clients are told
//! - [`metrics`]: what Prometheus is told
//! - [`faults`]: steps that tests make fail

pub mod archive;
pub mod attach;
pub mod build;
mod command;
pub mod commit;
mod connect;
pub mod create;
mod describe;
pub mod endpoints;
pub mod error;
pub mod events;
pub mod exec;
pub mod explain;
pub mod faults;
mod files;
mod found;
mod heal;
mod health;
pub mod images;
pub mod info;
pub mod keeper;
mod links;
pub mod list;
pub mod metrics;
mod mounts;
mod naming;
pub mod networks;
mod order;
mod pause;
mod petname;
mod ports;
pub mod recover;
mod remove;
mod rename;
mod restart;
mod root;
mod shutdown;
pub mod start;
mod state;
pub mod stats;
pub mod stop;
pub mod store;
mod take_down;
pub mod update;
pub mod volumes;

pub use build::Accounts;
pub use error::{Error, Kind, Result};

use keeper::Keeper;
use model::id::{ContainerId, RootId};
use state::State;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use store::Store;
use tokio::sync::OwnedMutexGuard;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub root: PathBuf,
    pub run: PathBuf,
    /// Our own executable: the keeper is started from it.
    pub program: PathBuf,
    pub shim: PathBuf,
    pub version: String,
    pub networking: model::daemon::Networking,
    pub containers: model::daemon::ContainerDefaults,
    pub registries: model::daemon::Registries,
    /// The oldest version of the API that is answered: its number behind `1.`.
    pub min_api_minor: u32,
    pub resolv_conf: PathBuf,
    /// systemd-resolved's, with the servers that its stub asks; there need be none.
    pub resolved_conf: PathBuf,
    /// What [`Engine::reload`] may change later.
    pub reloadable: Reloadable,
}

/// What a running daemon can be told anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloadable {
    /// Containers run on when the daemon stops.
    pub live_restore: bool,
    /// It logs in detail.
    pub debug: bool,
    /// `KEY=VALUE`, for whoever asks.
    pub labels: Vec<String>,
}

impl Settings {
    /// Where a container's files are, but for its file system.
    fn container_dir(&self, id: ContainerId) -> PathBuf {
        self.root.join("containers").join(id.to_string())
    }
}

/// A running engine.
pub struct Engine {
    pub settings: Settings,
    reloadable: Mutex<Reloadable>,
    pub root_id: RootId,
    /// What the daemon is called in `info`: stays the same for a root directory.
    pub engine_id: String,
    pub started: jiff::Timestamp,
    state: Mutex<State>,
    store: Store,
    pub events: events::Events,
    network: network::Network,
    images: image::Images,
    runtime: runtime::Runtime,
    keeper: Keeper,
    pub faults: faults::Faults,
    pub metrics: metrics::Metrics,
    /// Host ports are looked at and taken by one container at a time: ranges without sockets have no other guard.
    ports: tokio::sync::Mutex<()>,
    /// A volume's record and its directory come and go together.
    volumes: tokio::sync::Mutex<()>,
    /// What containers get of them where nothing else was asked for.
    descriptors: model::spec::Ulimit,
    /// Held for the daemon's life: nobody else works on this root.
    _lock: std::fs::File,
}

impl Engine {
    pub fn reloadable(&self) -> Reloadable {
        self.reloadable.lock().expect("nobody panics with it").clone()
    }

    /// From now on it is as `new` says, and who listens is told.
    pub fn reload(&self, new: Reloadable) {
        let attributes = [
            ("name", info::hostname()),
            ("labels", serde_json::json!(new.labels).to_string()),
            ("debug", new.debug.to_string()),
            ("live-restore", new.live_restore.to_string()),
        ];
        *self.reloadable.lock().expect("nobody panics with it") = new;
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value)).into();
        self.events.tell("daemon", "reload", self.engine_id.clone(), attributes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no decision panics")
    }

    /// Finds a container, waits for its turn, and runs an operation on it to its end.
    async fn in_turn<T, O>(
        self: &Arc<Self>,
        reference: &str,
        operation: impl FnOnce(Arc<Engine>, ContainerId) -> O + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        O: Future<Output = Result<T>> + Send + 'static,
    {
        let (engine, id) = (self.clone(), self.state().resolve(reference)?);
        self.detached(async move {
            let _turn = engine.turn(id).await?;
            operation(engine, id).await
        })
        .await
    }

    /// A container's turn: until it is dropped, nobody else does anything with the container.
    ///
    /// # Errors
    /// There is no such container any more.
    async fn turn(&self, id: ContainerId) -> Result<OwnedMutexGuard<()>> {
        let turn = self.state().entry(id)?.turn.clone();
        Ok(turn.lock_owned().await)
    }

    /// Runs an operation to its end, whether or not its client waits for it.
    async fn detached<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(operation).await {
            Ok(result) => result,
            Err(e) => Err(Error::new(Kind::Internal, format!("the operation failed inside: {e}"))),
        }
    }
}

/// Runs a worker's blocking call on a thread that may block.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// So many random bytes; 32 are an id.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// # Errors
/// No descriptor is left.
pub(crate) fn duplicate(fd: &std::os::fd::OwnedFd) -> error::Result<std::os::fd::OwnedFd> {
    fd.try_clone().map_err(|e| error::Error::new(error::Kind::Internal, format!("no descriptor is left: {e}")))
}
