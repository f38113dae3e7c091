//! A daemon that ends: what is still to be written, and what it stops or leaves.

use crate::state::Entry;
use crate::{Engine, blocking, error};
use model::container::Status;
use model::id::ContainerId;
use std::sync::Arc;

impl Engine {
    /// Stops everything that runs or waits for its next run, as `dockerd` does when it ends without `--live-restore`.
    pub async fn stop_all(self: &Arc<Self>) {
        let running: Vec<ContainerId> = {
            let mut state = self.state();
            state.closing = true;
            let restarting = |e: &&Entry| e.live.is_some() || e.record.state.status == Status::Restarting;
            state.containers.values().filter(restarting).map(|e| e.record.id).collect()
        };
        let stops = running.into_iter().map(|id| {
            let engine = self.clone();
            tokio::spawn(async move { engine.stop(&id.to_string(), None, None).await })
        });
        for stop in stops.collect::<Vec<_>>() {
            let _ = stop.await;
        }
    }

    /// Writes what is still to be written. Containers run on, and their keeper with them; where none runs, nobody is
    /// left to answer, and nothing of this daemon stays but its files and the devices of its networks.
    pub async fn close(self: &Arc<Self>) {
        let is_alone = {
            let mut state = self.state();
            let is_alone = state.sandboxes.is_empty() && state.containers.values().all(|entry| entry.live.is_none());
            // What is taken away from now on, is so by us.
            state.closing |= is_alone;
            is_alone
        };
        if is_alone {
            self.runtime.leave().await;
            if let Err(e) = self.keeper.retire().await {
                tracing::warn!("the keeper does not go: {e}");
            }
            let engine = self.clone();
            if let Err(e) = blocking(move || engine.network.leave()).await {
                tracing::warn!("rules stay on the host: {}", error::chain(&e));
            }
        }
        if let Err(e) = self.store.commit(Vec::new()).await {
            tracing::error!("{e}");
        }
    }
}
