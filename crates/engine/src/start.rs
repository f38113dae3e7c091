//! Starting a container: decide and record, then sandbox, endpoints, names, files, volumes, shim, process, in the order that
//! ARCHITECTURE.md draws.
//!
//! What fails takes everything back by the same path that an exit takes: [`Engine::take_down`].

use crate::error::{Error, Kind, Result};
use crate::faults::Faults;
use crate::keeper::Act;
use crate::state::{LiveSandbox, State};
use crate::store::Write;
use crate::{Engine, blocking, endpoints, naming};
use keeper_protocol::Key;
use model::container::{Container, Endpoint, NetworkMode, Status};
use model::desired::{Attachment, Publication};
use model::gateway;
use model::id::{ContainerId, SandboxId};
use model::network::Network;
use model::port::Wanted;
use runtime::FailureKind;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a container's process will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A sandbox of its own: to be made, unless sharers have kept the last one.
    Own { sandbox: SandboxId, kept: bool },
    /// Another container's.
    Shared(SandboxId),
    /// The host's network namespace.
    Host,
    /// One that somebody else has made, by its path.
    Path(PathBuf),
}

/// What starting will do, decided.
struct Plan {
    record: Container,
    place: Place,
    wanted: Vec<Wanted>,
    resolver: bool,
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// It runs already ([`Kind::NotModified`]), or a step fails; it is then as it was, with the error in its state.
    pub async fn start(self: &Arc<Self>, reference: &str) -> Result<()> {
        self.in_turn(reference, |engine, id| async move { engine.start_by_client(id).await }).await
    }

    /// The same, in the container's turn. Its restarts are counted from here.
    pub(crate) async fn start_by_client(self: &Arc<Self>, id: ContainerId) -> Result<()> {
        if let Ok(entry) = self.state().entry_mut(id)
            && !entry.record.state.is_running()
        {
            entry.record.restarts = 0;
            entry.backoff = None;
        }
        self.start_in_turn(id).await
    }

    /// The same, by whoever has the container's turn.
    pub(crate) async fn start_in_turn(self: &Arc<Self>, id: ContainerId) -> Result<()> {
        {
            let state = self.state();
            let record = &state.entry(id)?.record;
            match record.state.status {
                Status::Running => return Err(Error::new(Kind::NotModified, "container is already running")),
                Status::Paused => {
                    return Err(Error::conflict("cannot start a paused container, try unpause instead"));
                }
                Status::Removing | Status::Dead => {
                    return Err(Error::conflict("container is marked for removal and cannot be started"));
                }
                Status::Created | Status::Exited | Status::Restarting => {}
            }
        }
        let planned = plan(&mut self.state(), &self.faults, id);
        let started = match planned {
            Ok(plan) => self.bring_up(plan).await,
            Err(e) => Err(e),
        };
        if let Err(error) = started {
            self.undo_start(id, &error).await?;
            return Err(error);
        }
        Ok(())
    }

    /// After a failed start the container is as it was, with the error in its state; `--rm` removes it, since it never
    /// comes to an end that would.
    pub(crate) async fn undo_start(self: &Arc<Self>, id: ContainerId, error: &Error) -> Result<()> {
        self.take_down(id).await;
        let record = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            entry.record.state.error.clone_from(&error.message);
            entry.record.state.exit_code = exit_code_of(error);
            let status = match entry.record.state.started {
                Some(_) => Status::Exited,
                None => Status::Created,
            };
            entry.set_status(status);
            let exit_code = entry.record.state.exit_code;
            entry.pulse.send_modify(|p| p.exit_code = exit_code);
            // Clients that attached for this start hear that it does not come.
            entry.waiting_attaches.clear();
            entry.record.clone()
        };
        let auto_remove = record.host.auto_remove;
        self.store.record(vec![Write::Container(Box::new(record))]);
        if auto_remove && let Err(e) = self.remove_in_turn(id, true).await {
            tracing::error!(container = ?id, "--rm: {e}");
        }
        Ok(())
    }

    async fn bring_up(self: &Arc<Self>, plan: Plan) -> Result<()> {
        let Plan { mut record, place, wanted, resolver } = plan;
        let id = record.id;
        let networking = |e: Error| e.context("failed to set up container networking");

        // Recorded before it is done, so that a crash from here on is repaired.
        self.store.record(vec![Write::Container(Box::new(record.clone()))]);
        self.faults.pass("planned").await?;
        let allocating = self.metrics.network_action("allocate");
        let sandbox = self.plumb(&mut record, &place, &wanted, resolver).await.map_err(networking)?;
        drop(allocating);
        // What it has is on the disk before it runs: a daemon that finds it running knows its ports.
        let known = self.store.commit(vec![Write::Container(Box::new(record.clone()))]);
        self.faults.pass("files").await?;
        self.write_files(&record)?;
        self.tell_linkers(&record);
        self.faults.pass("order").await?;
        let mounted = Container { mounts: self.mount_volumes(&record).await?, ..record.clone() };
        let order = self.order(&mounted, &place, sandbox.as_ref()).await?;
        self.faults.pass("prepare").await?;
        let prepared = self.runtime.prepare(order).await.map_err(start_error)?;
        self.join_waiting_attaches(id, &prepared).await;
        known.await?;
        self.faults.pass("launch").await?;
        let container = prepared.launch().await.map_err(start_error)?;
        for warning in container.warnings() {
            tracing::warn!(container = ?id, "{warning}");
        }
        if let Err(e) = self.have_watched(&record, &container).await {
            // It runs already, and nobody would follow it.
            let _ = container.signal(9).await;
            container.wait().await;
            self.runtime.forget(id).await;
            return Err(e);
        }
        let record = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let own = &mut entry.record.state;
            own.pid = u32::try_from(container.pid()).unwrap_or_default();
            own.started = Some(container.started_at());
            own.exit_code = 0;
            own.error = String::new();
            own.oom_killed = false;
            entry.record.stopped_by_client = false;
            entry.live = Some(container.clone());
            entry.set_status(Status::Running);
            entry.record.clone()
        };
        self.store.record(vec![Write::Container(Box::new(record.clone()))]);
        for endpoint in &record.endpoints {
            if let Some(network) = endpoint.network.and_then(|n| self.state().networks.get(&n).cloned()) {
                self.tell_network(&network, "connect", Some(&record));
            }
        }
        self.tell_mounts(&record, true);
        self.tell_container(&record, "start", &[]);
        self.watch_exit(id, container);
        Ok(())
    }

    /// The keeper takes the container's names out when its process ends, whether or not a daemon is there; and it holds
    /// what a new shim needs, should the present one be killed.
    pub(crate) async fn have_watched(&self, record: &Container, container: &runtime::Container) -> Result<()> {
        self.faults.pass("watch").await?;
        let none_left = |e| Error::new(Kind::Internal, format!("no descriptor is left: {e}"));
        let (pidfd, held) = (container.pidfd().map_err(none_left)?, container.held().map_err(none_left)?);
        let watch = Act::Watch(record.id, pidfd, naming::leave_changes(record, false));
        self.keeper.tell(vec![Act::Hold(Key::Process(record.id), held), watch]).await
    }

    /// Makes the sandbox with its attachments, resolver and published ports; fills the record with what was chosen.
    async fn plumb(
        self: &Arc<Self>,
        record: &mut Container,
        place: &Place,
        wanted: &[Wanted],
        resolver: bool,
    ) -> Result<Option<Arc<network::Sandbox>>> {
        let id = record.id;
        let (sandbox_id, kept) = match place {
            Place::Host | Place::Path(_) => return Ok(None),
            Place::Shared(sandbox) => {
                let mut state = self.state();
                let live =
                    state.sandboxes.get_mut(sandbox).ok_or_else(|| Error::conflict("the shared sandbox is gone"))?;
                live.users.insert(id);
                return Ok(Some(live.sandbox.clone()));
            }
            Place::Own { sandbox, kept } => (*sandbox, *kept),
        };
        self.faults.pass("reserve").await?;
        let published = {
            let _ports = self.ports.lock().await;
            let published = self.reserve_ports(record, wanted).await?;
            if !published.is_empty() {
                let mut state = self.state();
                record.state.ports.clone_from(&published);
                gateway::wire(record, &state.networks, &state.networking);
                state.entry_mut(id)?.record = record.clone();
            }
            published
        };
        if !published.is_empty() {
            self.faults.pass("reserved").await?;
        }
        let existing = if kept {
            let state = self.state();
            state.sandboxes.get(&sandbox_id).map(|l| (l.sandbox.clone(), l.resolver))
        } else {
            None
        };
        let attachments: Vec<Attachment> =
            record.endpoints.iter().filter_map(|e| Some(e.active.as_ref()?.attachment.clone())).collect();
        let publications: BTreeSet<Publication> =
            record.endpoints.iter().filter_map(|e| e.active.as_ref()).flat_map(|a| a.publications.clone()).collect();
        let trusted = attachments.iter().any(|a| a.trusted);
        let engine = self.clone();
        let had_resolver = existing.as_ref().is_some_and(|(_, r)| *r);
        let (sandbox, sockets) = blocking(move || -> Result<_> {
            engine.faults.check("sandbox")?;
            let sandbox = match existing {
                Some((sandbox, _)) => sandbox,
                None => Arc::new(engine.network.create_sandbox(&sandbox_id, trusted).map_err(Error::internal)?),
            };
            engine.faults.check("attach")?;
            engine.network.attach(&sandbox, &attachments).map_err(Error::internal)?;
            engine.faults.check("resolver")?;
            let sockets = if resolver && !had_resolver {
                Some(engine.network.open_resolver(&sandbox, trusted).map_err(Error::internal)?)
            } else {
                None
            };
            engine.faults.check("publish")?;
            if !publications.is_empty() {
                engine.network.publish(&publications).map_err(Error::internal)?;
            }
            engine.faults.check("published")?;
            Ok((sandbox, sockets))
        })
        .await?;
        {
            let mut state = self.state();
            let live = state.sandboxes.entry(sandbox_id).or_insert_with(|| LiveSandbox {
                sandbox: sandbox.clone(),
                owner: id,
                users: BTreeSet::new(),
                resolver: false,
            });
            live.users.insert(id);
        }
        self.faults.pass("keeper").await?;
        match sockets {
            Some(sockets) => self.serve_sandbox(sandbox_id, &sandbox, sockets).await?,
            None if !kept => {
                let netns = crate::duplicate(&sandbox.netns)?;
                self.keeper.tell(vec![Act::Hold(Key::Sandbox(sandbox_id), vec![netns])]).await?;
            }
            None => {}
        }
        self.faults.pass("names").await?;
        let changes = naming::join_changes(&self.state(), record);
        self.keeper.apply(changes).await?;
        Ok(Some(sandbox))
    }
}

/// Decides a start: which sandbox, which addresses, which ports. If it cannot be, nothing is taken.
fn plan(state: &mut State, faults: &Faults, id: ContainerId) -> Result<Plan> {
    let mut record = state.entry(id)?.record.clone();
    let planned = choose_place(state, &record).and_then(|place| {
        let wanted = take_endpoints(state, faults, &mut record, &place);
        Ok((place, wanted.map_err(|e| e.context("failed to set up container networking"))?))
    });
    match planned {
        Ok((place, wanted)) => {
            let resolver = naming::has_resolver(state, &record);
            state.entry_mut(id)?.record = record.clone();
            Ok(Plan { record, place, wanted, resolver })
        }
        Err(e) => {
            for endpoint in &record.endpoints {
                endpoints::release(state, id, endpoint, false);
            }
            Err(e)
        }
    }
}

fn choose_place(state: &State, record: &Container) -> Result<Place> {
    Ok(match record.host.network_mode() {
        NetworkMode::Host => Place::Host,
        NetworkMode::Path(path) => Place::Path(path.into()),
        NetworkMode::Container(other) => {
            let owner = state.find(other).map_err(|e| e.context("joining network namespace of container"))?;
            if !owner.record.state.is_running() {
                return Err(Error::conflict(format!(
                    "cannot join network namespace of a non running container: {}",
                    owner.record.id
                )));
            }
            match owner.record.state.sandbox {
                Some(sandbox) => Place::Shared(sandbox),
                // It has none of ours: it is where it is.
                None => choose_place(state, &owner.record)?,
            }
        }
        _ => match record.state.sandbox.filter(|s| state.sandboxes.contains_key(s)) {
            Some(sandbox) => Place::Own { sandbox, kept: true },
            None => Place::Own { sandbox: SandboxId::new(crate::random()), kept: false },
        },
    })
}

/// Makes the endpoints of `record` active, and says which host ports it wants. What it took before it failed is in
/// `record`.
fn take_endpoints(state: &mut State, faults: &Faults, record: &mut Container, place: &Place) -> Result<Vec<Wanted>> {
    record.state.sandbox = match place {
        Place::Own { sandbox, .. } | Place::Shared(sandbox) => Some(*sandbox),
        Place::Host | Place::Path(_) => None,
    };
    if let Place::Own { sandbox, .. } = *place {
        for index in 0..record.endpoints.len() {
            let network = find_again(state, &record.endpoints[index])?;
            record.endpoints[index].network = Some(network.id);
            record.endpoints[index].network_name.clone_from(&network.name);
            if !network.driver.has_addresses() {
                continue;
            }
            let inner = model::endpoint::interface_name(record, index, &network)?;
            let active = endpoints::activate(state, record, index, sandbox, inner)?;
            record.endpoints[index].active = Some(active);
            faults.check("lease")?;
        }
        gateway::wire(record, &state.networks, &state.networking);
        return Ok(gateway::host_ports(record, &state.networks)?);
    }
    Ok(Vec::new())
}

/// The network that an endpoint is on: by id, or by name where it was made anew meanwhile (pain 10).
fn find_again(state: &State, endpoint: &Endpoint) -> Result<Network> {
    if let Some(network) = endpoint.network.and_then(|id| state.networks.get(&id)) {
        return Ok(network.clone());
    }
    state.network(&endpoint.network_name).cloned()
}

/// A launcher's failure, in Docker's words.
fn start_error(error: runtime::StartError) -> Error {
    let kind = match error.kind() {
        runtime::FailureKind::Other => Kind::Internal,
        _ => Kind::Invalid,
    };
    // Whose namespaces it was to share has ended meanwhile.
    if let runtime::StartError::Launch(failure) = &error
        && failure.is_joining_the_dead()
    {
        return Error::conflict(format!("cannot join the namespaces of a non running container: {failure}"));
    }
    let prefix = "failed to create task for container: failed to create shim task: OCI runtime create failed";
    Error { launch: Some(error.kind()), ..Error::new(kind, format!("{prefix}: {}", crate::error::chain(&error))) }
}

/// The exit code of a container that could not be started.
fn exit_code_of(error: &Error) -> i64 {
    match error.launch {
        Some(FailureKind::NotFound) => 127,
        Some(FailureKind::NotExecutable) => 126,
        Some(FailureKind::Other) | None => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_the_launchers_word_and_no_matter_of_wording() {
        let launched = |launch| Error { launch, ..Error::new(Kind::Invalid, "no such file or directory") };
        let cases = [
            (Some(FailureKind::NotFound), 127),
            (Some(FailureKind::NotExecutable), 126),
            (Some(FailureKind::Other), 128),
            (None, 128),
        ];
        for (launch, code) in cases {
            assert_eq!(exit_code_of(&launched(launch).context("cannot start")), code, "{launch:?}");
        }
    }
}
