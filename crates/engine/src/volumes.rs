//! Volumes, and what lies over a container's root file system: bind mounts, volumes, tmpfs.

use crate::error::{Error, Kind, Result};
use crate::state::State;
use crate::store::{Volume, Write};
use crate::{Engine, blocking};
use model::bounds::clean;
use model::container::{Config, Container, HostConfig, MountKind, MountPoint};
use model::id::ContainerId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BETWEEN: &str = ".between.";

impl Engine {
    pub(crate) fn volume_path(&self, name: &str) -> PathBuf {
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
            return Err(Error::not_found(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
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

/// A mount still to be made, as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    pub kind: MountKind,
    /// A path for a bind mount, a volume's name, or empty for an anonymous one.
    pub source: String,
    pub destination: String,
    pub mode: String,
    pub rw: bool,
    pub propagation: String,
    /// A missing bind source is made, as `-v` does and `--mount` does not.
    pub create_source: bool,
    /// A new volume takes what the image has at the destination.
    pub copy: bool,
    pub labels: BTreeMap<String, String>,
    /// The local driver's, for a volume that is made.
    pub options: BTreeMap<String, String>,
    pub subpath: String,
}

/// What a container's configuration asks to be mounted: `-v`, `--mount` and the image's volumes, in this order; a
/// destination counts once.
///
/// # Errors
/// A text is malformed, or a destination is asked for twice.
pub fn mount_requests(config: &Config, host: &HostConfig) -> Result<Vec<MountRequest>> {
    for target in host.tmpfs.iter().flatten().map(|(target, _)| target) {
        if !target.starts_with('/') {
            return Err(Error::invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
        }
        if clean(target) == "/" {
            return Err(Error::invalid("invalid specification: destination can't be '/'"));
        }
    }
    let mut requests = Vec::new();
    for bind in host.binds.iter().flatten() {
        requests.push(parse_bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        let invalid = |why: &str| Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind));
        if mount.target.is_empty() {
            return Err(invalid("field Target must not be empty"));
        }
        if !mount.target.starts_with('/') {
            return Err(invalid(&format!("mount path must be absolute: '{}'", mount.target)));
        }
        let driver = mount.volume_options.as_ref().and_then(|o| o.driver_config.as_ref());
        if let Some(name) = driver.map(|d| d.name.as_str()).filter(|n| !matches!(*n, "" | "local")) {
            return Err(Error::invalid(format!("error looking up volume plugin {name}: plugin \"{name}\" not found")));
        }
        let request = MountRequest {
            kind: match mount.kind.as_str() {
                "bind" => MountKind::Bind,
                "volume" => MountKind::Volume,
                "tmpfs" => MountKind::Tmpfs,
                other => {
                    return Err(Error::invalid(format!(
                        "mount type unknown: \"{other}\": bind, volume and tmpfs are known"
                    )));
                }
            },
            source: mount.source.clone(),
            destination: clean(&mount.target),
            mode: if mount.kind == "volume" { "z".into() } else { String::new() },
            rw: !mount.read_only,
            propagation: mount
                .bind_options
                .as_ref()
                .map(|o| o.propagation.clone())
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| if mount.kind == "bind" { "rprivate".into() } else { String::new() }),
            create_source: mount.bind_options.as_ref().is_some_and(|o| o.create_mountpoint),
            copy: !mount.volume_options.as_ref().is_some_and(|o| o.no_copy),
            labels: mount.volume_options.as_ref().map(|o| o.labels.clone()).unwrap_or_default(),
            options: driver.map(|d| d.options.clone()).unwrap_or_default(),
            subpath: mount.volume_options.as_ref().map(|o| o.subpath.clone()).unwrap_or_default(),
        };
        if request.subpath.starts_with('/') || request.subpath.split('/').any(|part| part == "..") {
            return Err(invalid("subpath must be a relative path within the volume"));
        }
        match request.kind {
            MountKind::Tmpfs if mount.tmpfs_options.as_ref().is_some_and(|o| o.size_bytes < 0) => {
                return Err(invalid("a size less than 0 is none"));
            }
            MountKind::Bind if !request.source.starts_with('/') => {
                return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
            }
            MountKind::Bind if !request.create_source && !std::path::Path::new(&request.source).exists() => {
                return Err(invalid(&format!("bind source path does not exist: {}", mount.source)));
            }
            _ => {}
        }
        requests.push(request);
    }
    for (i, request) in requests.iter().enumerate() {
        if requests[..i].iter().any(|r| r.destination == request.destination) {
            return Err(Error::invalid(format!("Duplicate mount point: {}", request.destination)));
        }
    }
    let tmpfs = |path: &str| host.tmpfs.iter().flatten().any(|(p, _)| clean(p) == path);
    for path in config.volumes.keys() {
        let destination = clean(path);
        if !requests.iter().any(|r| r.destination == destination) && !tmpfs(&destination) {
            requests.push(MountRequest {
                kind: MountKind::Volume,
                source: String::new(),
                destination,
                mode: String::new(),
                rw: true,
                propagation: String::new(),
                create_source: false,
                copy: true,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
                subpath: String::new(),
            });
        }
    }
    for request in &requests {
        model::bounds::check_target(&request.destination, &request.source).map_err(Error::invalid)?;
    }
    Ok(requests)
}

const PROPAGATIONS: [&str; 6] = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/// `[source:]destination[:mode]`.
fn parse_bind(text: &str) -> Result<MountRequest> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid()),
    };
    if !destination.starts_with('/') || (parts.len() > 1 && source.is_empty()) {
        return Err(invalid());
    }
    let mut request = MountRequest {
        kind: if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume },
        source: if source.starts_with('/') { clean(source) } else { source.to_owned() },
        destination: clean(destination),
        mode: mode.to_owned(),
        rw: true,
        propagation: if source.starts_with('/') { "rprivate".into() } else { String::new() },
        create_source: true,
        copy: true,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        subpath: String::new(),
    };
    let words = || mode.split(',').filter(|w| !w.is_empty());
    // One of each sort at most.
    for sort in [&["ro", "rw"][..], &["z", "Z"], &["cached", "delegated", "consistent"], &PROPAGATIONS] {
        if words().filter(|w| sort.contains(w)).count() > 1 {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
    }
    for word in words() {
        match word {
            "ro" => request.rw = false,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if request.kind == MountKind::Volume => request.copy = false,
            _ if PROPAGATIONS.contains(&word) && request.kind == MountKind::Bind => {
                request.propagation = word.to_owned();
            }
            _ => return Err(Error::invalid(format!("invalid mode: {word}"))),
        }
    }
    Ok(request)
}

impl MountRequest {
    /// As `inspect` shows it. `volume` is the volume's name and directory.
    pub fn point(&self, volume: Option<(&Volume, String)>) -> MountPoint {
        let (name, source, driver, anonymous) = match volume {
            // Only what was made for this container goes with it, or with the last of those that have it from this one.
            Some((v, path)) => (v.name.clone(), path, "local".to_owned(), v.anonymous && self.source.is_empty()),
            None => (String::new(), self.source.clone(), String::new(), false),
        };
        MountPoint {
            kind: self.kind,
            name,
            source,
            destination: self.destination.clone(),
            driver,
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
            anonymous,
            subpath: self.subpath.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_parsed_and_refused() {
        let good = parse_bind("/a//b/../c:/data:ro,rshared").unwrap();
        assert_eq!((good.kind, good.source.as_str(), good.rw), (MountKind::Bind, "/a/c", false));
        assert_eq!(good.propagation, "rshared");
        assert_eq!(parse_bind("cache:/x").unwrap().kind, MountKind::Volume);
        assert_eq!(parse_bind("/x").unwrap().source, "");
        for bad in
            ["", ":", "a:b", "a:/b:zz", ":/x", "/a:/b:ro:rw", "v:/x:rshared", "/a:/b:ro,rw", "/a:/b:shared,slave"]
        {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_mounted_over_the_root_or_proc() {
        for host in [
            serde_json::json!({"Binds": ["/etc:/"]}),
            serde_json::json!({"Binds": ["/tmp:/proc"]}),
            serde_json::json!({"Mounts": [{"Type": "tmpfs", "Target": "/x/.."}]}),
            serde_json::json!({"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": -1}}]}),
        ] {
            let host: HostConfig = serde_json::from_value(host).unwrap();
            assert!(mount_requests(&Config::default(), &host).is_err(), "{host:?}");
        }
        let config =
            Config { volumes: BTreeMap::from([("/proc".into(), model::image::Empty {})]), ..Config::default() };
        assert!(mount_requests(&config, &HostConfig::default()).unwrap_err().message.contains("inside /proc"));
    }

    #[test]
    fn an_images_volume_is_anonymous_unless_something_lies_there_already() {
        let config =
            Config { volumes: BTreeMap::from([("/data/".into(), model::image::Empty {})]), ..Config::default() };
        let host = HostConfig::default();
        assert_eq!(mount_requests(&config, &host).unwrap()[0].destination, "/data");
        let host = HostConfig { binds: Some(vec!["v:/data".into()]), ..HostConfig::default() };
        assert_eq!(mount_requests(&config, &host).unwrap().len(), 1);
        let twice = HostConfig { binds: Some(vec!["v:/data".into(), "w:/data".into()]), ..HostConfig::default() };
        assert!(mount_requests(&Config::default(), &twice).is_err());
    }
}
