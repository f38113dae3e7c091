//! A container's other name.

use crate::error::{Error, Result};
use crate::store::Write;
use crate::{Engine, naming};
use std::sync::Arc;

impl Engine {
    /// Renames a container; its names on its networks change with it (API-31).
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub async fn rename(self: &Arc<Self>, reference: &str, name: &str) -> Result<()> {
        let name = name.trim_start_matches('/').to_owned();
        self.in_turn(reference, move |engine, id| async move {
            let (old, record, changes) = {
                let mut state = engine.state();
                let old = state.entry(id)?.record.name.clone();
                if old == name {
                    return Err(Error::invalid("Renaming a container with the same name as its current name"));
                }
                state.take_name(&name, id)?;
                state.names.remove(&old);
                let entry = state.entry_mut(id)?;
                entry.record.name.clone_from(&name);
                let record = entry.record.clone();
                (old, record.clone(), naming::join_changes(&state, &record))
            };
            let renamed = async {
                engine.store.commit(vec![Write::Container(Box::new(record.clone()))]).await?;
                engine.faults.pass("rename").await?;
                engine.keeper.apply(changes).await
            };
            if let Err(e) = renamed.await {
                let (record, changes) = {
                    let mut state = engine.state();
                    state.names.remove(&name);
                    state.names.insert(old.clone(), id);
                    let entry = state.entry_mut(id)?;
                    entry.record.name.clone_from(&old);
                    let record = entry.record.clone();
                    (record.clone(), naming::join_changes(&state, &record))
                };
                engine.store.record(vec![Write::Container(Box::new(record))]);
                let _ = engine.keeper.apply(changes).await;
                return Err(e);
            }
            engine.tell_container(&record, "rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }
}
