//! The end of a container for good: its record, its files, and all that it had.

use crate::Engine;
use crate::error::{Error, Kind, Result};
use crate::store::Write;
use model::container::Status;
use model::id::ContainerId;
use std::sync::Arc;

impl Engine {
    /// Removes a container; `force` kills it first, `volumes` takes its anonymous volumes along.
    ///
    /// # Errors
    /// It runs and `force` is not given.
    pub async fn remove_container(self: &Arc<Self>, reference: &str, force: bool, volumes: bool) -> Result<()> {
        let engine = self.clone();
        let id = self.state().resolve(reference)?;
        self.detached(async move {
            let turn = {
                let state = engine.state();
                let entry = state.entry(id)?;
                if entry.record.state.status == Status::Removing {
                    let name = &entry.record.name;
                    return Err(Error::conflict(format!("removal of container {name} is already in progress")));
                }
                entry.turn.clone()
            };
            loop {
                // A start, or another's removal, that is under way comes first.
                let guard = turn.lock().await;
                let (live, status, name) = {
                    let state = engine.state();
                    // `--rm` was quicker, or another client.
                    let Ok(entry) = state.entry(id) else { return Ok(()) };
                    (entry.live.clone(), entry.record.state.status, entry.record.name.clone())
                };
                if !force {
                    check_removable(status, &name)?;
                }
                let Some(live) = live else { return engine.remove_in_turn(id, volumes).await };
                drop(guard);
                match engine.kill_id(id, &name, 9).await {
                    Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
                    other => other?,
                }
                let survives = live.exit_status().is_none();
                if survives {
                    return Err(Error::new(
                        Kind::Internal,
                        format!("cannot remove container \"/{name}\": could not kill: it does not end"),
                    ));
                }
            }
        })
        .await
    }

    /// Removes what does not run. Called in the container's turn.
    pub(crate) async fn remove_in_turn(self: &Arc<Self>, id: ContainerId, volumes: bool) -> Result<()> {
        let (record, status) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let status = entry.record.state.status;
            if entry.live.is_some() {
                return check_removable(Status::Running, &entry.record.name);
            }
            if let Some(restart) = entry.restart.take() {
                restart.abort();
            }
            entry.set_status(Status::Removing);
            (entry.record.clone(), status)
        };
        let gone = async {
            self.faults.pass("remove").await?;
            self.store.commit(vec![Write::ContainerGone(id)]).await
        };
        if let Err(e) = gone.await {
            self.state().entry_mut(id)?.set_status(status);
            return Err(e);
        }
        self.runtime.forget(id).await;
        self.forget(id);
        if volumes {
            for mount in record.mounts.iter().filter(|m| m.anonymous) {
                if let Err(e) = self.remove_volume(&mount.name, true).await {
                    tracing::debug!(volume = mount.name, "stays: {e}");
                }
            }
        }
        self.tell_container(&record, "destroy", &[]);
        Ok(())
    }

    /// Gives back all that a container has in memory and on disk; its record is the caller's.
    pub(crate) fn forget(self: &Arc<Self>, id: ContainerId) {
        let entry = {
            let mut state = self.state();
            state.names.retain(|_, holder| *holder != id);
            let entry = state.containers.remove(&id);
            state.execs.retain(|_, exec| exec.container != id);
            if let Some(entry) = &entry {
                for endpoint in &entry.record.endpoints {
                    crate::endpoints::release(&mut state, id, endpoint, true);
                }
            }
            entry
        };
        if let Some(entry) = entry {
            entry.pulse.send_modify(|p| p.removed = true);
        }
        self.store.record(vec![Write::ContainerGone(id)]);
        self.remove_files(id);
    }

    /// Removes a container's files, behind everybody's back.
    pub(crate) fn remove_files(self: &Arc<Self>, id: ContainerId) {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = engine.images.discard(&id.to_string()) {
                tracing::error!(container = ?id, "its file system cannot be removed: {}", e.chain());
            }
            let directory = engine.container_dir(id);
            match std::fs::remove_dir_all(&directory) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!(container = ?id, "cannot remove {}: {e}", directory.display());
                }
                _ => {}
            }
        });
    }
}

/// Whether a container may be removed without force.
fn check_removable(status: Status, name: &str) -> Result<()> {
    let hint = match status {
        Status::Paused => "container is paused: unpause and then stop the container before removing or force remove",
        Status::Restarting => "container is restarting: stop the container before removing or force remove",
        Status::Running => "container is running: stop the container before removing or force remove",
        _ => return Ok(()),
    };
    Err(Error::conflict(format!("cannot remove container \"/{name}\": {hint}")))
}
