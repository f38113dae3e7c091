//! Containers that run again: by a client's wish, and by their restart policies.

use crate::Engine;
use crate::error::{Kind, Result};
use model::container::{HostConfig, Status};
use model::id::ContainerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// As stopping and starting.
    pub async fn restart(self: &Arc<Self>, reference: &str, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
        let engine = self.clone();
        let id = self.state().resolve(reference)?;
        let signal = signal.map(str::to_owned);
        self.detached(async move {
            // `--rm` removes on exit, not on restart.
            engine.state().entry_mut(id)?.restarting_by_client += 1;
            let restarted = engine.restart_id(id, timeout, signal.as_deref()).await;
            let unwanted = {
                let mut state = engine.state();
                let Ok(entry) = state.entry_mut(id) else { return restarted };
                entry.restarting_by_client -= 1;
                let state = &entry.record.state;
                entry.record.host.auto_remove && entry.restarting_by_client == 0 && state.status == Status::Exited
            };
            if unwanted {
                // It has ended again before this client was done.
                let _turn = engine.turn(id).await?;
                let still = engine.state().entry(id).is_ok_and(|e| e.record.state.status == Status::Exited);
                if still {
                    engine.remove_in_turn(id, true).await?;
                }
            }
            restarted
        })
        .await
    }

    async fn restart_id(self: &Arc<Self>, id: ContainerId, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
        match self.stop_id(id, timeout, signal).await {
            Err(e) if e.kind == Kind::NotModified => {}
            other => other?,
        }
        let _turn = self.turn(id).await?;
        match self.start_by_client(id).await {
            Err(e) if e.kind == Kind::NotModified => {}
            other => other?,
        }
        let record = self.state().entry(id)?.record.clone();
        self.tell_container(&record, "restart", &[]);
        Ok(())
    }

    /// Starts a container that is restarting: after `delay`, and after those whose namespaces it shares.
    pub(crate) fn restart_later(self: &Arc<Self>, id: ContainerId, delay: Duration) {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let owners: Vec<_> = {
                let state = engine.state();
                let Ok(entry) = state.entry(id) else { return };
                let owners = owners(&entry.record.host).filter_map(|owner| state.find(owner).ok());
                owners.map(|owner| owner.pulse.subscribe()).collect()
            };
            for mut owner in owners {
                let _ = owner.wait_for(|p| p.status != Status::Restarting || p.removed).await;
            }
            // From here on it is a start like any other, which nobody aborts half way.
            tokio::spawn(async move {
                let Ok(_turn) = engine.turn(id).await else { return };
                let is_due = engine.state().entry(id).is_ok_and(|e| e.record.state.status == Status::Restarting);
                if is_due && let Err(e) = engine.start_in_turn(id).await {
                    tracing::warn!(container = ?id, "cannot be restarted: {e}");
                }
            });
        });
        if let Ok(entry) = self.state().entry_mut(id) {
            entry.restart = Some(task.abort_handle());
        }
    }

    /// What shall always run, runs; and what was between two runs comes to the next.
    pub(crate) fn restart_by_policy(self: &Arc<Self>, between_runs: &BTreeSet<ContainerId>) {
        let due: Vec<ContainerId> = {
            let mut state = self.state();
            let due = state.containers.values_mut().filter(|e| {
                let record = &e.record;
                matches!(record.state.status, Status::Exited)
                    && (record.host.restarts())
                        .comes_with_the_daemon(record.stopped_by_client, between_runs.contains(&record.id))
            });
            due.map(|entry| {
                entry.set_status(Status::Restarting);
                entry.record.id
            })
            .collect()
        };
        for id in due {
            self.restart_later(id, Duration::ZERO);
        }
    }
}

/// The containers whose namespaces one with these settings shares.
pub(crate) fn owners(host: &HostConfig) -> impl Iterator<Item = &str> {
    [&host.network_mode, &host.pid_mode, &host.ipc_mode].into_iter().filter_map(|mode| mode.strip_prefix("container:"))
}
