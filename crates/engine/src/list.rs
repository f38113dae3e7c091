//! What clients are shown of containers.

use crate::error::{Error, Result};
use crate::{Engine, blocking};
use model::container::Container;
use model::health::Health;
use model::image::ImageId;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// A container with all that an inspection shows.
#[derive(Clone, Debug)]
pub struct ContainerView {
    pub record: Container,
    pub health: Option<Health>,
    pub directory: PathBuf,
    pub log_path: String,
    pub execs: Vec<String>,
    /// The directories of its file system.
    pub graph: serde_json::Value,
    /// Which of its networks clients made: there, names count.
    pub user_defined: BTreeSet<String>,
    pub image_size: u64,
}

/// A container with what a list shows.
#[derive(Clone, Debug)]
pub struct Listed {
    pub record: Container,
    pub health: Option<model::health::Status>,
    /// As the client named it, or the id where that name means another image by now.
    pub image_name: String,
    pub image_size: u64,
    pub user_defined: BTreeSet<String>,
}

impl Engine {
    /// # Errors
    /// There is none, or the reference means several.
    pub fn inspect_container(&self, reference: &str) -> Result<ContainerView> {
        let (record, health, execs, user_defined) = {
            let state = self.state();
            let entry = state.find(reference)?;
            let (record, health) = (entry.record.clone(), entry.health.clone());
            let execs = state.execs.values().filter(|e| e.container == record.id && e.progress().exit_code.is_none());
            (record.clone(), health, execs.map(|e| e.id.to_string()).collect(), user_defined(&state))
        };
        let id = record.id;
        let graph = match self.images.rootfs(&id.to_string(), record.host.auto_remove) {
            Some(rootfs) => {
                let lower: Vec<String> = rootfs.lower.iter().map(|p| p.display().to_string()).collect();
                serde_json::json!({
                    "LowerDir": lower.join(":"),
                    "MergedDir": "",
                    "UpperDir": rootfs.upper.display().to_string(),
                    "WorkDir": rootfs.work.display().to_string(),
                })
            }
            None => serde_json::Value::Null,
        };
        Ok(ContainerView {
            directory: self.container_dir(id),
            log_path: crate::describe::log_path(&self.settings, id).display().to_string(),
            execs,
            graph,
            user_defined,
            image_size: self.image_size(&record.image),
            record,
            health,
        })
    }

    /// The bytes that a container has written over its image.
    pub async fn writable_size(self: &Arc<Self>, reference: &str) -> u64 {
        let Ok((id, volatile)) = self.state().find(reference).map(|e| (e.record.id, e.record.host.auto_remove)) else {
            return 0;
        };
        let engine = self.clone();
        blocking(move || {
            let rootfs = engine.images.rootfs(&id.to_string(), volatile)?;
            engine.images.changes_size(&rootfs).ok()
        })
        .await
        .unwrap_or_default()
    }

    /// All containers, the youngest first.
    pub fn list_containers(&self, with_size: bool) -> Vec<Listed> {
        let (records, networks) = {
            let state = self.state();
            let records: Vec<_> = state.containers.values().map(|e| (e.record.clone(), health_status(e))).collect();
            (records, user_defined(&state))
        };
        let mut listed: Vec<Listed> = records
            .into_iter()
            .map(|(record, health)| Listed {
                image_name: self.image_name(&record),
                image_size: if with_size { self.image_size(&record.image) } else { 0 },
                user_defined: networks.clone(),
                record,
                health,
            })
            .collect();
        listed.sort_by_key(|l| std::cmp::Reverse(l.record.created));
        listed
    }

    /// The images that filters of `ancestor` mean, and all that were made from them here.
    pub fn ancestor_ids(&self, references: &[String]) -> BTreeSet<ImageId> {
        let mut ids: BTreeSet<ImageId> = references.iter().filter_map(|r| self.image_id(r)).collect();
        if ids.is_empty() {
            return ids;
        }
        let images = self.all_images();
        loop {
            let before = ids.len();
            let children = images.iter().filter(|i| i.parent.as_ref().is_some_and(|parent| ids.contains(parent)));
            let children: Vec<ImageId> = children.map(|i| i.id.clone()).collect();
            ids.extend(children);
            if ids.len() == before {
                return ids;
            }
        }
    }
}

fn health_status(entry: &crate::state::Entry) -> Option<model::health::Status> {
    entry.health.as_ref().map(|h| h.status)
}

fn user_defined(state: &crate::state::State) -> BTreeSet<String> {
    state.networks.values().filter(|n| n.is_user_defined()).map(|n| n.name.clone()).collect()
}

/// `name` filters are regular expressions (engine-api: Testcontainers sends `^name$`).
///
/// # Errors
/// One is none.
pub fn name_patterns(texts: &[String]) -> Result<Vec<regex_lite::Regex>> {
    texts
        .iter()
        .map(|t| regex_lite::Regex::new(t).map_err(|e| Error::invalid(format!("invalid filter 'name={t}': {e}"))))
        .collect()
}
