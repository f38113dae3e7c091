//! The places that a container's own files are mounted on: `/proc`, `/dev`, `/etc/hosts` and such; and `/etc/mtab`, by which
//! programs know what is mounted.
//!
//! An image may lack them. Making them in a container's upper directory would show them as changes, and a commit would
//! write them into the image. So each stack of layers gets one more layer on top, made once, with just those that are
//! missing; it is nobody's content and leaves with the layers it lies on.

use crate::build::make_directories;
use crate::digest;
use crate::error::{Attempt, Error};
use crate::index::Index;
use crate::remove::chain_ids;
use crate::store::Images;
use kernel::overlay::{self, Changes};
use kernel::tree::Dir;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const DIRECTORIES: [&str; 5] = ["/dev", "/dev/pts", "/dev/shm", "/proc", "/sys"];
const FILES: [&str; 5] = ["/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
/// Links, and where they lead to.
const LINKS: [(&str, &str); 1] = [("/etc/mtab", "/proc/mounts")];

/// Which layers lie under each directory of mount points.
pub(crate) type Points = HashMap<PathBuf, Vec<String>>;

impl Images {
    fn points_path(&self, layers: &[String]) -> PathBuf {
        let top = chain_ids(layers).pop();
        self.root().join("points").join(top.as_deref().map_or("scratch", digest::hex))
    }

    /// The directory of mount points for layers, the lowest first; made if need be. The caller holds leases on them.
    pub(crate) fn points(&self, layers: &[String]) -> Result<PathBuf, Error> {
        let place = self.points_path(layers);
        if self.known_points().contains_key(&place) {
            return Ok(place);
        }
        let scratch = self.scratch()?;
        let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
        let lower = self.lower_of(layers);
        self.make_upper_over(&upper, &lower[0])?;
        fs::create_dir(&work).attempt(|| format!("cannot make {}", work.display()))?;
        let mounted = overlay::mount_detached(&lower, Some(Changes { upper: &upper, work: &work, volatile: true }))
            .and_then(|mount| Dir::of_mount(&mount))
            .attempt(|| "cannot mount an image's layers".to_owned())?;
        for path in DIRECTORIES {
            let path = Path::new(path);
            if mounted.facts_inside(path).is_err() {
                // a file or a link that leads nowhere stands there: the image's own business
                let _ = make_directories(&mounted, path, (0, 0));
            }
        }
        for path in FILES {
            let file = |parent: &Dir, name: &OsStr| {
                parent.make_file(name, 0o644)?.set_permissions(fs::Permissions::from_mode(0o644))
            };
            make(&mounted, Path::new(path), file).attempt(|| format!("cannot make {path} in the image"))?;
        }
        for (path, target) in LINKS {
            let link = |parent: &Dir, name: &OsStr| parent.make_symlink(name, Path::new(target));
            make(&mounted, Path::new(path), link).attempt(|| format!("cannot make {path} in the image"))?;
        }
        drop(mounted);
        let mut known = self.known_points();
        if !known.contains_key(&place) {
            match fs::rename(&upper, &place) {
                // left from before a crash
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => other.attempt(|| format!("cannot put {} in place", place.display()))?,
            }
            known.insert(place.clone(), layers.to_vec());
        }
        Ok(place)
    }

    /// Forgets the mount points that lie on layers which are gone.
    pub(crate) fn drop_points(&self, gone: &[(String, u64)]) {
        self.known_points().retain(|place, layers| {
            let stays = !layers.iter().any(|l| gone.iter().any(|(id, _)| id == l));
            if !stays && let Err(error) = fs::remove_dir_all(place) {
                tracing::warn!(path = %place.display(), %error, "cannot remove mount points");
            }
            stays
        });
    }

    /// At the start: what is there already, and still belongs to somebody.
    pub(crate) fn find_points(&self, index: &Index, containers: &HashMap<String, Vec<String>>) -> Points {
        let images = index.images.values().map(|r| &r.configuration.rootfs.diff_ids);
        let stacks = images.chain(containers.values()).map(|layers| (self.points_path(layers), layers.clone()));
        stacks.filter(|(place, _)| place.is_dir()).collect()
    }
}

/// Makes what an image lacks at a path.
fn make(root: &Dir, path: &Path, one: impl FnOnce(&Dir, &OsStr) -> io::Result<()>) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = match root.inside(parent) {
        Ok(parent) => parent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(root, parent, (0, 0)).map_err(|error| io::Error::other(error.chain()))?
        }
        // no directory in the image: whatever is mounted there will say so
        Err(_) => return Ok(()),
    };
    if parent.facts(name)?.is_some() {
        return Ok(());
    }
    one(&parent, name)
}
