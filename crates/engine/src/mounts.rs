//! What is mounted for containers while they run: volumes that are more than a directory, and parts of volumes.
//!
//! The local driver's options (`type`, `o`, `device`) are mount(8)'s. Such a volume is mounted when its first container
//! starts, and unmounted when its last one ends. A part of a volume (`volume-subpath`) is bound to a place of the
//! container's own, from an open directory: nobody who writes to the volume can turn it elsewhere meanwhile.

use crate::error::{Error, Kind, Result};
use crate::store::Volume;
use crate::{Engine, blocking};
use kernel::tree::Dir;
use model::container::{Container, MountKind, MountPoint};
use model::id::ContainerId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with a volume's options, in Docker's words.
///
/// # Errors
/// One is unknown, or says nothing without another.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> std::result::Result<(), String> {
    if let Some(unknown) = options.keys().find(|o| !["type", "o", "device", "size"].contains(&o.as_str())) {
        return Err(format!("invalid option: \"{unknown}\""));
    }
    if options.contains_key("size") {
        return Err("quota size requested but no quota support: for a tmpfs, say it in 'o': o=size=10m".into());
    }
    for (given, needed) in [("o", "device"), ("o", "type"), ("device", "type"), ("type", "device")] {
        if options.contains_key(given) && !options.contains_key(needed) {
            return Err(format!("missing required option: \"{needed}\""));
        }
    }
    Ok(())
}

/// NFS servers are given by name, and the kernel wants their address.
fn with_address(options: &str) -> std::result::Result<String, String> {
    let word = |word: &str| -> std::result::Result<String, String> {
        let Some(name) = word.strip_prefix("addr=").filter(|n| n.parse::<std::net::IpAddr>().is_err()) else {
            return Ok(word.to_owned());
        };
        use std::net::ToSocketAddrs;
        let found = (name, 0)
            .to_socket_addrs()
            .map_err(|e| format!("error resolving passed in network volume address: {e}"))?;
        let address = found.map(|a| a.ip()).next().ok_or_else(|| format!("{name} has no address"))?;
        Ok(format!("addr={address}"))
    };
    Ok(options.split(',').map(word).collect::<std::result::Result<Vec<_>, _>>()?.join(","))
}

fn mount(volume: &Volume, target: &Path) -> std::result::Result<(), String> {
    let option = |name: &str| volume.options.get(name).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let failed = |why: String| {
        format!("error while mounting volume '{}': failed to mount local volume: {why}", target.display())
    };
    let options = if kind.starts_with("nfs") { with_address(option("o")) } else { Ok(option("o").to_owned()) };
    let options = options.map_err(failed)?;
    kernel::mount::by_options(device, target, kind, &options).map_err(|e| {
        let data = if options.is_empty() { String::new() } else { format!(", data: {options}") };
        let hint = match e.raw_os_error() {
            // ENODEV
            Some(19) => format!(" (this kernel has no file system '{kind}')"),
            _ => String::new(),
        };
        let why = e.to_string();
        let why = why.split(" (os error").next().unwrap_or_default().to_lowercase();
        failed(format!("mount {device}:{}{data}: {why}{hint}", target.display()))
    })
}

impl Engine {
    /// Where the parts of volumes are that a container has.
    fn parts(&self, id: ContainerId) -> PathBuf {
        self.settings.root.join("mounts").join(id.to_string())
    }

    /// Mounts what a container needs before it starts; its mounts as they are to be made.
    ///
    /// # Errors
    /// A volume cannot be mounted, or what is asked to be shared is not.
    pub(crate) async fn mount_volumes(self: &Arc<Self>, record: &Container) -> Result<Vec<MountPoint>> {
        let mut mounts = record.mounts.clone();
        for bind in mounts.iter().filter(|m| m.kind == MountKind::Bind) {
            check_propagation(bind)?;
        }
        let _volumes = self.volumes.lock().await;
        for (number, point) in mounts.iter_mut().enumerate().filter(|(_, m)| m.kind == MountKind::Volume) {
            let volume = self.state().volumes.get(&point.name).cloned();
            let Some(volume) = volume else { continue };
            let path = self.volume_path(&volume.name);
            if !volume.options.is_empty() {
                self.state().mounted.entry(volume.name.clone()).or_default().insert(record.id);
                let target = path.clone();
                blocking(move || if kernel::mount::is_mounted(&target) { Ok(()) } else { mount(&volume, &target) })
                    .await
                    .map_err(|e| Error::new(Kind::Internal, e))?;
            }
            if !point.subpath.is_empty() {
                let (subpath, target) = (point.subpath.clone(), self.parts(record.id).join(number.to_string()));
                point.source = target.display().to_string();
                blocking(move || bind_part(&path, &subpath, &target)).await?;
            }
        }
        Ok(mounts)
    }

    /// Takes away what was mounted for a container, unless others use it.
    pub(crate) async fn unmount_volumes(self: &Arc<Self>, record: &Container) {
        let has_parts = record.mounts.iter().any(|m| !m.subpath.is_empty());
        let own = |m: &&MountPoint| m.kind == MountKind::Volume;
        let names: BTreeSet<String> = record.mounts.iter().filter(own).map(|m| m.name.clone()).collect();
        let _volumes = self.volumes.lock().await;
        let unused: Vec<PathBuf> = {
            let mut state = self.state();
            let unused = names.into_iter().filter(|name| {
                let has_options = state.volumes.get(name).is_some_and(|v| !v.options.is_empty());
                let users = state.mounted.entry(name.clone()).or_default();
                users.remove(&record.id);
                let is_mounted_for_others = !users.is_empty();
                if !is_mounted_for_others {
                    state.mounted.remove(name);
                }
                let runs = |e: &crate::state::Entry| e.record.id != record.id && e.live.is_some();
                let uses = |e: &crate::state::Entry| e.record.mounts.iter().any(|m| &m.name == name);
                has_options && !is_mounted_for_others && !state.containers.values().any(|e| runs(e) && uses(e))
            });
            unused.collect::<Vec<_>>().into_iter().map(|name| self.volume_path(&name)).collect()
        };
        let parts = self.parts(record.id);
        if unused.is_empty() && !has_parts {
            return;
        }
        blocking(move || {
            let inside = std::fs::read_dir(&parts).into_iter().flatten().flatten().map(|e| e.path());
            for path in inside.collect::<Vec<_>>().iter().chain(&unused) {
                if let Err(e) = kernel::mount::unmount_all(path) {
                    tracing::error!("{} stays mounted: {e}", path.display());
                }
            }
            // Empty directories and files only: what is mounted is never looked into.
            for path in std::fs::read_dir(&parts).into_iter().flatten().flatten().map(|e| e.path()) {
                let _ = std::fs::remove_dir(&path);
            }
            let _ = std::fs::remove_dir(&parts);
        })
        .await;
    }
}

/// That what is mounted below a source can spread as it is asked to: the host's own mount has to be shared.
fn check_propagation(bind: &MountPoint) -> Result<()> {
    let (slave_will_do, needed) = match bind.propagation.as_str() {
        "shared" | "rshared" => (false, "shared"),
        "slave" | "rslave" => (true, "shared or slave"),
        _ => return Ok(()),
    };
    match kernel::mount::surrounding(Path::new(&bind.source)) {
        Some(around) if !(around.shared || slave_will_do && around.slave) => Err(Error::new(
            Kind::Internal,
            format!("path {} is mounted on {} but it is not a {needed} mount", bind.source, around.at.display()),
        )),
        _ => Ok(()),
    }
}

/// Binds the directory `subpath` of a volume to `target`.
fn bind_part(volume: &Path, subpath: &str, target: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::invalid(format!("cannot access path {}/{subpath}: {e}", volume.display()));
    // Symlinks are followed, and none leads out of the volume.
    let part = Dir::open(volume).and_then(|v| v.inside(Path::new(subpath))).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::invalid(format!("cannot mount {subpath} of a volume: only directories can be mounted"))
        }
        _ => failed(e),
    })?;
    kernel::mount::unmount_all(target).map_err(failed)?;
    std::fs::create_dir_all(target).map_err(failed)?;
    kernel::mount::bind_open(&part, target).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_say_nothing_are_refused() {
        let check = |options: &[(&str, &str)]| {
            check_options(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), Ok(()));
        assert_eq!(check(&[("colour", "red")]), Err("invalid option: \"colour\"".into()));
        assert_eq!(check(&[("type", "tmpfs")]), Err("missing required option: \"device\"".into()));
        assert!(check(&[("size", "1m")]).is_err());
        assert_eq!(with_address("rw,addr=10.0.0.1,nolock").unwrap(), "rw,addr=10.0.0.1,nolock");
    }
}
