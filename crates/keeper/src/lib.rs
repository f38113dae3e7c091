//! The process that answers while daemons come and go: it serves every sandbox's resolver, carries the
//! flows that the kernel cannot, and holds descriptors.
//!
//! One thread, one event loop. The daemon feeds it by the requests of `keeper_protocol`; when no daemon is connected
//! it goes on with what it knows, and takes out the names of containers whose pidfd fires.
//!
//! ```text
//!            ┌─ no daemon ◀──── the daemon's connection ends ────┐
//!  start ──▶ │                                                   │
//!            └─ Hello ──▶ fed ── Reset … Begin, then Apply ──────┤
//!                             Retire ─┴─▶ finishing ──▶ end
//! ```

mod control;
mod holdings;
mod proxy;

use kernel::seqpacket;
use model::id::RootId;
use resolver::forward::HostServers;
use resolver::serve::Shared;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What a keeper is started with.
#[derive(Debug)]
pub struct Settings {
    /// Whose keeper it is: another daemon's requests are refused.
    pub root: RootId,
    /// Which build of the program this is, as the daemon that started it calls it.
    pub build: String,
    /// A listening `SOCK_SEQPACKET` socket, already bound: a daemon may connect before we accept.
    pub listener: OwnedFd,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
}

/// How long what is under way may take to finish when the keeper is retired.
const FINISHING: Duration = Duration::from_secs(10);

/// Runs until a daemon says `Retire`, and what is under way then is finished. This process may open as many descriptors
/// as it is allowed to from here on: it holds those of all containers.
///
/// # Errors
/// The event loop cannot be made, or the listener is none.
pub fn run(settings: Settings) -> std::io::Result<()> {
    if let Err(e) = kernel::process::raise_descriptor_limit() {
        tracing::warn!("the limit of descriptors stays as it is: {e}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let namespaces = holdings::Namespaces::default();
        let sockets = Box::new(holdings::SandboxSockets { namespaces: namespaces.clone() });
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        let host = HostServers::new(settings.resolv_conf);
        let shared = Rc::new(Shared::new(host, sockets, u64::from_ne_bytes(seed)));
        let holdings = holdings::Holdings::new(shared.clone(), namespaces);
        seqpacket::set_nonblocking(&settings.listener)?;
        let listener = kernel::readiness::watch(settings.listener)?;
        let mut keeper = control::Control::new(settings.root, settings.build, holdings);
        keeper.run(listener).await;
        keeper.let_go();
        shared.leave.finish(FINISHING).await;
        Ok(())
    })
}
