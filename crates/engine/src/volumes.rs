//! Volumes, and what lies over a container's root file system: bind mounts, volumes, tmpfs.

use crate::error::{Error, Kind, Result};
use crate::state::State;
use crate::store::{Volume, Write};
use crate::{Engine, blocking};
use model::container::{Container, MountKind, MountPoint};
use model::id::ContainerId;
use model::mount::MountRequest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BETWEEN: &str = ".between.";

impl Engine {
    /// Where a volume's files are.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.volume_directory(name).join("_data")
    }

    fn volume_directory(&self, name: &str) -> PathBuf {
        self.settings.root.join("volumes").join(name)
    }

    /// Where a volume's directory is while its record is being written or taken away: no volume has such a name. A
    /// daemon that finds it there knows by the record which way it was to go.
    fn volume_between(&self, name: &str) -> PathBuf {
        self.settings.root.join("volumes").join(format!("{BETWEEN}{name}"))
    }

    /// Ends what an earlier daemon had begun to make or to remove.
    pub(crate) fn settle_volumes(&self) {
        let entries = std::fs::read_dir(self.settings.root.join("volumes")).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        for name in names.filter_map(|n| n.strip_prefix(BETWEEN).map(str::to_owned)) {
            let (between, directory) = (self.volume_between(&name), self.volume_directory(&name));
            let is_known = self.state().volumes.contains_key(&name);
            let settled = if is_known && !directory.exists() {
                std::fs::rename(&between, &directory)
            } else {
                tracing::info!(volume = name, "its files are removed: it has no record");
                remove_unmounted(&between)
            };
            if let Err(e) = settled {
                tracing::error!(volume = name, "what an earlier daemon left of it stays: {e}");
            }
        }
    }

    /// Makes a volume, or returns the one of that name.
    ///
    /// # Errors
    /// The name or the driver is none, or the disk refuses.
    pub async fn create_volume(
        self: &Arc<Self>,
        name: Option<String>,
        driver: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        if !matches!(driver, "" | "local") {
            return Err(Error::not_found(model::mount::no_driver(driver)));
        }
        let engine = self.clone();
        self.detached(async move {
            let _volumes = engine.volumes.lock().await;
            engine.ensure_volume(name, labels, options).await
        })
        .await
    }

    /// The same, by whoever has the volumes' turn.
    pub(crate) async fn ensure_volume(
        self: &Arc<Self>,
        name: Option<String>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        let anonymous = name.is_none();
        let name = name.unwrap_or_else(|| ContainerId::new(crate::random()).to_string());
        if !model::container::is_valid_name(&name) {
            return Err(Error::invalid(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        if let Some(device) =
            options.get("device").filter(|_| options.get("type").is_none_or(|t| t == "none" || t == "bind"))
            && !device.starts_with('/')
        {
            return Err(Error::invalid(format!(
                "create {name}: invalid option device: {device:?} is no absolute path"
            )));
        }
        if let Some(volume) = self.state().volumes.get(&name) {
            return Ok(volume.clone());
        }
        crate::mounts::check_options(&options).map_err(|e| Error::invalid(format!("create {name}: {e}")))?;
        let (between, directory) = (self.volume_between(&name), self.volume_directory(&name));
        let failed =
            |e: std::io::Error| Error::new(Kind::Internal, format!("create {name}: cannot make its directory: {e}"));
        // What somebody has put there by hand is the volume's.
        let is_new = !directory.exists();
        let (path, at) = (self.volume_path(&name), between.join("_data"));
        blocking(move || std::fs::create_dir_all(if is_new { at } else { path })).await.map_err(failed)?;
        let volume = Volume { name: name.clone(), created: crate::now(), labels, options, anonymous };
        let mut done = self.store.commit(vec![Write::Volume(volume.clone())]).await;
        if done.is_ok() && is_new {
            done = std::fs::rename(&between, &directory).map_err(failed);
            if done.is_err() {
                let _ = self.store.commit(vec![Write::VolumeGone(name.clone())]).await;
            }
        }
        if let Err(e) = done {
            let _ = blocking(move || std::fs::remove_dir_all(between)).await;
            return Err(e);
        }
        self.state().volumes.insert(name.clone(), volume.clone());
        self.tell_volume(&name, "create", BTreeMap::new());
        Ok(volume)
    }

    pub fn list_volumes(&self) -> Vec<Volume> {
        self.state().volumes.values().cloned().collect()
    }

    /// # Errors
    /// There is none.
    pub fn inspect_volume(&self, name: &str) -> Result<Volume> {
        let state = self.state();
        state.volumes.get(name).cloned().ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// The bytes in a volume.
    pub fn volume_size(&self, name: &str) -> u64 {
        directory_size(&self.volume_path(name))
    }

    /// The containers that use a volume.
    pub fn volume_users(&self, name: &str) -> Vec<ContainerId> {
        volume_users(&self.state(), name)
    }

    /// # Errors
    /// A container uses it, or there is none (unless `force`).
    pub async fn remove_volume(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let (engine, name) = (self.clone(), name.to_owned());
        self.detached(async move { engine.remove_volume_whole(&name, force).await }).await
    }

    async fn remove_volume_whole(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let _volumes = self.volumes.lock().await;
        let volume = {
            let mut state = self.state();
            if !state.volumes.contains_key(name) {
                return if force { Ok(()) } else { Err(Error::not_found(format!("get {name}: no such volume"))) };
            }
            let users = volume_users(&state, name);
            if !users.is_empty() {
                let users: Vec<String> = users.iter().map(ToString::to_string).collect();
                return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
            }
            state.volumes.remove(name)
        };
        let (between, directory) = (self.volume_between(name), self.volume_directory(name));
        if let Err(e) = self.take_volume_away(name, &directory, &between).await {
            self.state().volumes.extend(volume.map(|v| (name.to_owned(), v)));
            return Err(e.context(format!("remove {name}")));
        }
        blocking(move || remove_unmounted(&between))
            .await
            .map_err(|e| Error::new(Kind::Internal, format!("remove {name}: {e}")))?;
        self.tell_volume(name, "destroy", BTreeMap::new());
        Ok(())
    }

    /// From here on there is no such volume, though its files are.
    async fn take_volume_away(&self, name: &str, directory: &Path, between: &Path) -> Result<()> {
        let data = directory.join("_data");
        let unmounted = blocking(move || kernel::mount::unmount_all(&data).map(|()| kernel::mount::is_mounted(&data)));
        if !matches!(unmounted.await, Ok(false)) {
            return Err(Error::new(Kind::Internal, "something stays mounted there"));
        }
        match std::fs::rename(directory, between) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::new(Kind::Internal, e)),
            _ => {}
        }
        let gone = self.store.commit(vec![Write::VolumeGone(name.to_owned())]).await;
        if gone.is_err() {
            let _ = std::fs::rename(between, directory);
        }
        gone
    }

    /// Removes the volumes that no container uses: anonymous ones, or all; returns their names and the bytes they had.
    pub async fn prune_volumes(
        self: &Arc<Self>,
        all: bool,
        chosen: impl Fn(&Volume) -> bool,
    ) -> Result<(Vec<String>, u64)> {
        let candidates: Vec<String> = {
            let state = self.state();
            let unused = state.volumes.values().filter(|v| (all || v.anonymous) && chosen(v));
            unused.map(|v| v.name.clone()).filter(|n| volume_users(&state, n).is_empty()).collect()
        };
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for name in candidates {
            let path = self.volume_path(&name);
            bytes += blocking(move || directory_size(&path)).await;
            if self.remove_volume(&name, false).await.is_ok() {
                removed.push(name);
            }
        }
        self.events.tell_prune("volume", bytes);
        Ok((removed, bytes))
    }

    /// The volumes of a container are mounted, or no longer are.
    pub(crate) fn tell_mounts(&self, record: &Container, mounted: bool) {
        for volume in record.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
            let mut attributes = BTreeMap::from([("container".to_owned(), record.id.to_string())]);
            if mounted {
                attributes.insert("destination".into(), volume.destination.clone());
                attributes.insert("read/write".into(), volume.rw.to_string());
                attributes.insert("propagation".into(), volume.propagation.clone());
            }
            self.tell_volume(&volume.name, if mounted { "mount" } else { "unmount" }, attributes);
        }
    }

    pub(crate) fn tell_volume(&self, name: &str, action: &str, mut attributes: BTreeMap<String, String>) {
        attributes.insert("driver".into(), "local".into());
        self.events.tell("volume", action, name.to_owned(), attributes);
    }
}

/// What is mounted there is somebody else's: never removed with it.
fn remove_unmounted(directory: &Path) -> std::io::Result<()> {
    if kernel::mount::is_mounted(&directory.join("_data")) {
        return Err(std::io::Error::other("something stays mounted there"));
    }
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn volume_users(state: &State, name: &str) -> Vec<ContainerId> {
    let uses = |c: &&crate::state::Entry| c.record.mounts.iter().any(|m| m.kind == MountKind::Volume && m.name == name);
    state.containers.values().filter(uses).map(|e| e.record.id).collect()
}

/// The bytes of the files below a directory, as far as it can be read.
pub(crate) fn directory_size(path: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => directory_size(&entry.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// How a mount that was asked for is kept, and shown by `inspect`. `volume` is the volume that was found or made for it, and
/// its directory.
pub(crate) fn point(request: &MountRequest, volume: Option<(&Volume, String)>) -> MountPoint {
    let (name, source, driver, anonymous) = match volume {
        // Only what was made for this container goes with it, or with the last of those that have it from this one.
        Some((v, path)) => (v.name.clone(), path, "local".to_owned(), v.anonymous && request.source.is_empty()),
        None => (String::new(), request.source.clone(), String::new(), false),
    };
    MountPoint {
        kind: request.kind,
        name,
        source,
        destination: request.destination.clone(),
        driver,
        mode: request.mode.clone(),
        rw: request.rw,
        propagation: request.propagation.map(|p| p.to_string()).unwrap_or_default(),
        anonymous,
        subpath: request.subpath.clone(),
    }
}
