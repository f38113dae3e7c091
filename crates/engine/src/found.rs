//! What a daemon that starts finds of a container that the last one left: its process, its sandbox, or its end.

use crate::Settings;
use crate::describe::{log_of, stdio_of};
use crate::error::{Error, Kind, Result};
use crate::keeper::Held;
use crate::state::{LiveSandbox, State};
use keeper_protocol::Key;
use model::container::{Container, NetworkMode, Status};
use model::id::ContainerId;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A container that the store says was running, and what has become of it.
pub(crate) enum Found {
    Running(runtime::Container),
    Ended(runtime::ExitStatus),
    /// The machine was booted anew, or its shim and all that it knew are gone.
    Lost,
    /// Its start was under way and had no process yet: it is taken back.
    HalfStarted,
}

/// What has become of a container, by its record and its shim; `None`: nothing that is not recorded.
pub(crate) fn judge(record: &Container, of_shim: Option<runtime::Reconnected>) -> Option<Found> {
    let said_to_run = record.state.is_running();
    let is_attached = record.endpoints.iter().any(|e| e.active.is_some());
    let is_half_up = is_attached || record.state.sandbox.is_some();
    match of_shim {
        Some(runtime::Reconnected::Running(container)) => Some(Found::Running(container)),
        Some(runtime::Reconnected::Exited(status)) => (said_to_run || is_half_up).then_some(Found::Ended(status)),
        None if said_to_run => Some(Found::Lost),
        None => is_attached.then_some(Found::HalfStarted),
    }
}

/// What a daemon has open for a container that it finds running, and beside all of them.
const DESCRIPTORS_PER_CONTAINER: usize = 15;
const OWN_DESCRIPTORS: usize = 48;

/// A daemon without descriptors for its containers would take them for ended: it had better not start, since they and
/// their names do without one.
pub(crate) fn check_descriptors(running: usize, limit: Option<u64>) -> Result<()> {
    let needed = OWN_DESCRIPTORS + DESCRIPTORS_PER_CONTAINER * running;
    match limit.and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) if limit < needed => Err(Error::new(
            Kind::Internal,
            format!(
                "{running} containers run, and this daemon may open {limit} files only: about {needed} are needed. Raise \
                 its limit (LimitNOFILE= of its unit, or ulimit -Hn) and start it again; the containers run on meanwhile"
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether an error is, or comes of, this process or the machine having no descriptor left.
fn is_out_of_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |e| e.source());
    causes.any(|e| e.downcast_ref::<std::io::Error>().is_some_and(kernel::fds::are_exhausted))
}

/// Asks the shim of a container, or, if it was killed while no daemon was there, has a new one take over what the keeper
/// has held.
pub(crate) async fn find_running(
    runtime: &runtime::Runtime,
    settings: &Settings,
    record: &Container,
    held: Option<Vec<OwnedFd>>,
) -> Result<Option<runtime::Reconnected>> {
    let log = || log_of(settings, record);
    // Who has no descriptors left must not take what runs for ended.
    let told = |what: &str, e: &(dyn std::error::Error + 'static)| {
        let why = crate::error::chain(e);
        if is_out_of_descriptors(e) {
            return Err(Error::new(Kind::Internal, why).context(format!("container {} runs, and {what}", record.name)));
        }
        tracing::error!(container = ?record.id, "{what}: {why}");
        Ok(None)
    };
    match (runtime.reconnect(record.id, log()).await, held) {
        (Ok(None), Some(held)) => match runtime.adopt(record.id, held, stdio_of(record), log()).await {
            Ok(adopted) => Ok(adopted.map(runtime::Reconnected::Running)),
            Err(e) => told("no shim can take it over", &e),
        },
        (Ok(found), _) => Ok(found),
        (Err(e), _) => told("its shim cannot be asked", &e),
    }
}

/// Whether a container is to stand still. One that was frozen though nobody has asked for it, by a commit whose daemon
/// was killed, goes on.
pub(crate) async fn paused_or_running(record: &Container, container: &runtime::Container) -> Status {
    if !container.is_paused() {
        return Status::Running;
    }
    if record.state.status == Status::Paused {
        return Status::Paused;
    }
    match container.unpause().await {
        Ok(()) => Status::Running,
        Err(e) => {
            tracing::error!(container = ?record.id, "it stays paused: {}", crate::error::chain(&e));
            Status::Paused
        }
    }
}

/// The sandboxes of running containers, from the keeper, or through the process where the keeper had none.
pub(crate) fn adopt_sandboxes(
    state: &mut State,
    network: &network::Network,
    found: &[(ContainerId, Found)],
    held: &mut Held,
) {
    for (id, what) in found {
        let Found::Running(container) = what else { continue };
        let Ok(record) = state.entry(*id).map(|e| e.record.clone()) else { continue };
        let Some(sandbox) = record.state.sandbox else { continue };
        if let Some(live) = state.sandboxes.get_mut(&sandbox) {
            live.users.insert(*id);
            continue;
        }
        let descriptors = held.remove(&Key::Sandbox(sandbox)).unwrap_or_default();
        let resolver = descriptors.len() > 2;
        let namespace: Option<OwnedFd> = descriptors.into_iter().next().or_else(|| container.netns().ok());
        let Some(namespace) = namespace else { continue };
        let handle = match network.adopt_sandbox(&sandbox, namespace) {
            Ok(handle) => handle,
            Err(e) => {
                tracing::error!(container = ?id, "its network is not found again: {}", crate::error::chain(&e));
                continue;
            }
        };
        let owner = match record.host.network_mode() {
            NetworkMode::Container(other) => state.resolve(other).unwrap_or(*id),
            _ => *id,
        };
        let live = LiveSandbox { sandbox: Arc::new(handle), owner, users: BTreeSet::from([*id]), resolver };
        state.sandboxes.insert(sandbox, live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_descriptor_left_is_told_from_a_shim_that_is_gone() {
        let gone = |number: i32| runtime::CallError::Gone(Some(std::io::Error::from_raw_os_error(number)));
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        const ECONNREFUSED: i32 = 111;
        assert!(is_out_of_descriptors(&gone(EMFILE)) && is_out_of_descriptors(&gone(ENFILE)));
        assert!(is_out_of_descriptors(&runtime::Error::Call(gone(EMFILE))));
        assert!(!is_out_of_descriptors(&gone(ECONNREFUSED)) && !is_out_of_descriptors(&runtime::CallError::Gone(None)));
    }
}
