//! Changing what a container may use, and when it is restarted, while it exists.

use crate::Engine;
use crate::create::machine;
use crate::describe::resources;
use crate::error::{Error, Result};
use crate::store::Write;
use model::container::{Container, HostConfig};
use model::id::ContainerId;
use model::restart::Policy;
use std::sync::Arc;

impl Engine {
    /// Takes over what `wanted` says of resources and of the restart policy; what it leaves out stays. A running
    /// container has them at once. Its warnings.
    ///
    /// # Errors
    /// They contradict each other or what the container has, or the disk or the kernel refuses: then nothing has changed.
    pub async fn update(self: &Arc<Self>, reference: &str, wanted: HostConfig) -> Result<Vec<String>> {
        self.in_turn(reference, move |engine, id| async move {
            let (record, live) = {
                let state = engine.state();
                let entry = state.entry(id)?;
                (entry.record.clone(), entry.live.clone())
            };
            let before = record.host;
            let mut host = before.clone();
            merge(&mut host, wanted);
            if host.auto_remove && host.restarts() != Policy::No {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            let warnings = model::create::check(&record.config, &host, &machine()).map_err(Error::invalid)?;
            let limits = serde_json::from_value(resources(&host).spec()).map_err(Error::internal)?;
            let record = engine.record_host(id, host).await?;
            let done = async {
                engine.faults.pass("update").await?;
                let Some(live) = live else { return Ok(()) };
                let refused = |e| Error::internal(e).context(format!("Cannot update container {id}"));
                live.update(&limits).await.map_err(refused)
            };
            if let Err(e) = done.await {
                engine.record_host(id, before).await?;
                return Err(e);
            }
            engine.tell_container(&record, "update", &[]);
            Ok(warnings)
        })
        .await
    }

    /// Records what a container may use. Its record then.
    ///
    /// # Errors
    /// The disk refuses: it is as it was.
    async fn record_host(&self, id: ContainerId, host: HostConfig) -> Result<Container> {
        let (record, before) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let before = std::mem::replace(&mut entry.record.host, host);
            (entry.record.clone(), before)
        };
        let recorded = self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await;
        if recorded.is_err() {
            self.state().entry_mut(id)?.record.host = before;
        }
        recorded.map(|()| record)
    }
}

/// Takes over what `wanted` says: zero, empty and absent say nothing, as in Docker.
fn merge(host: &mut HostConfig, wanted: HostConfig) {
    fn take<T: Default + PartialEq>(field: &mut T, wanted: T) {
        if wanted != T::default() {
            *field = wanted;
        }
    }
    take(&mut host.blkio_weight, wanted.blkio_weight);
    take(&mut host.cpu_shares, wanted.cpu_shares);
    take(&mut host.nano_cpus, wanted.nano_cpus);
    take(&mut host.cpu_period, wanted.cpu_period);
    take(&mut host.cpu_quota, wanted.cpu_quota);
    take(&mut host.cpuset_cpus, wanted.cpuset_cpus);
    take(&mut host.cpuset_mems, wanted.cpuset_mems);
    take(&mut host.memory, wanted.memory);
    take(&mut host.memory_swap, wanted.memory_swap);
    take(&mut host.memory_reservation, wanted.memory_reservation);
    take(&mut host.pids_limit, wanted.pids_limit);
    if !wanted.restart_policy.name.is_empty() {
        host.restart_policy = wanted.restart_policy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_leaves_out_stays() {
        let mut host = HostConfig { memory: 64 << 20, cpu_shares: 512, ..Default::default() };
        host.restart_policy.name = "always".into();
        merge(&mut host, HostConfig { memory: 128 << 20, pids_limit: Some(9), ..Default::default() });
        assert_eq!((host.memory, host.cpu_shares, host.pids_limit), (128 << 20, 512, Some(9)));
        assert_eq!(host.restart_policy.name, "always");
    }
}
