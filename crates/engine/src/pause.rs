//! Containers that stand still.

use crate::Engine;
use crate::error::{Error, Result};
use crate::store::Write;
use model::container::Status;
use model::id::ContainerId;
use std::sync::Arc;

impl Engine {
    /// Lets a container stand still.
    ///
    /// # Errors
    /// It does not run, or is paused already.
    pub async fn pause(self: &Arc<Self>, reference: &str) -> Result<()> {
        self.freeze(reference, true).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not paused.
    pub async fn unpause(self: &Arc<Self>, reference: &str) -> Result<()> {
        self.freeze(reference, false).await
    }

    async fn freeze(self: &Arc<Self>, reference: &str, frozen: bool) -> Result<()> {
        self.in_turn(reference, move |engine, id| async move {
            let (record, live) = {
                let state = engine.state();
                let entry = state.entry(id)?;
                let Some(live) = entry.live.clone() else {
                    return Err(Error::conflict(format!("Container {id} is not running")));
                };
                (entry.record.clone(), live)
            };
            match (record.state.status, frozen) {
                (Status::Paused, true) => return Err(Error::conflict(format!("Container {id} is already paused"))),
                (Status::Running, false) => return Err(Error::conflict(format!("Container {id} is not paused"))),
                _ => {}
            }
            // What is frozen and not recorded so was a commit's, whose daemon died: the next one lets it go on.
            if frozen {
                engine.record_status(id, Status::Paused).await?;
            }
            let done = if frozen { live.pause().await } else { live.unpause().await };
            if frozen != done.is_ok() {
                engine.record_status(id, Status::Running).await?;
            }
            done.map_err(|e| match live.exit_status() {
                Some(_) => Error::conflict(format!("Container {id} is not running")),
                None => Error::internal(e).context(format!("cannot pause container {}", record.name)),
            })?;
            engine.tell_container(&record, if frozen { "pause" } else { "unpause" }, &[]);
            Ok(())
        })
        .await
    }

    async fn record_status(&self, id: ContainerId, status: Status) -> Result<()> {
        let (record, before) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let before = entry.record.state.status;
            entry.set_status(status);
            (entry.record.clone(), before)
        };
        let recorded = self.store.commit(vec![Write::Container(Box::new(record))]).await;
        if recorded.is_err() {
            self.state().entry_mut(id)?.set_status(before);
        }
        recorded
    }
}
