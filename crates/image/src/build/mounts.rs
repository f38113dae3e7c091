//! `RUN --mount`: files that a command sees and that are not in its layer.
//!
//! - `bind`: a copy of what a stage, an image or the context has; what the command writes there is thrown away
//! - `cache`: a directory that stays from build to build, by its id; `docker builder prune` empties it
//! - `tmpfs`: a file system in memory
//! - `secret`: a file, or a variable, that the client gives for this command

use super::blame::ParseError;
use super::config::below;
use super::{BuildError, StepMount};
use crate::digest;
use crate::error::{Attempt, Error};
use crate::store::Images;
use kernel::tree::{Dir, Kind};
use model::rootfs::Rootfs;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One `--mount`, as it stands there; variables are put in when the step comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: Kinds,
    /// Empty for a secret that goes where secrets go.
    pub(crate) target: String,
    pub(crate) source: String,
    pub(crate) from: Option<String>,
    /// Of a cache or a secret.
    pub(crate) id: String,
    /// The variable that a secret is in.
    pub(crate) env: Option<String>,
    pub(crate) required: bool,
    pub(crate) read_only: bool,
    pub(crate) mode: Option<u32>,
    pub(crate) owner: (u32, u32),
    /// Of a tmpfs: as mount(8) has it.
    pub(crate) size: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kinds {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
}

impl Mount {
    /// Reads `type=cache,target=/x`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut mount = Mount::default();
        let mut writable = None;
        let fields: Vec<(String, Option<&str>)> = text
            .split(',')
            .map(|f| f.split_once('=').map_or((f, None), |(k, v)| (k, Some(v))))
            .map(|(k, v)| (k.to_ascii_lowercase(), v.map(|v| v.trim_matches('"'))))
            .collect();
        if let Some((_, kind)) = fields.iter().find(|(k, _)| k == "type") {
            mount.kind = match kind.unwrap_or_default() {
                "bind" => Kinds::Bind,
                "cache" => Kinds::Cache,
                "tmpfs" => Kinds::Tmpfs,
                "secret" => Kinds::Secret,
                "ssh" => return Err("ssh agents are not forwarded to builds: use a secret for the key".to_owned()),
                other => return Err(format!("unsupported mount type {other:?}")),
            };
        }
        for (key, value) in &fields {
            let text =
                || value.map(str::to_owned).ok_or_else(|| format!("invalid field '{key}' must be a key=value pair"));
            let flag = || match value.unwrap_or("true") {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                other => Err(format!("invalid value for {key}: {other}")),
            };
            let number = |base| {
                let text = text()?;
                u32::from_str_radix(&text, base).map_err(|_| format!("invalid value {text} for {key}"))
            };
            match key.as_str() {
                "type" => {}
                "target" | "dst" | "destination" => mount.target = text()?,
                "source" | "src" => mount.source = text()?,
                "from" => mount.from = Some(text()?),
                "id" => mount.id = text()?,
                "env" => mount.env = Some(text()?),
                "required" => mount.required = flag()?,
                "ro" | "readonly" => writable = Some(!flag()?),
                "rw" | "readwrite" => writable = Some(flag()?),
                "mode" => mount.mode = Some(number(8)?),
                "uid" => mount.owner.0 = number(10)?,
                "gid" => mount.owner.1 = number(10)?,
                "size" => mount.size = Some(text()?),
                // a cache is shared; who locks one waits for nobody here, since a build's steps come one by one
                "sharing" if matches!(*value, Some("shared" | "private" | "locked")) => {}
                _ => return Err(format!("unexpected key '{key}' in '{key}={}'", value.unwrap_or_default())),
            }
        }
        mount.read_only = !writable.unwrap_or(mount.kind != Kinds::Bind);
        if mount.kind == Kinds::Secret {
            if mount.id.is_empty() {
                let named = [&mount.source, &mount.target].into_iter().find(|n| !n.is_empty()).cloned();
                let named = named.ok_or("a secret is named by its id")?;
                mount.id = named.rsplit('/').next().unwrap_or_default().to_owned();
            }
            if mount.target.is_empty() && mount.env.is_none() {
                mount.target = format!("/run/secrets/{}", mount.id);
            }
        } else if mount.target.is_empty() {
            return Err("invalid mount: target is required".to_owned());
        }
        Ok(mount)
    }

    /// The stage or image that it takes files from.
    pub(crate) fn from(&self) -> Option<&str> {
        self.from.as_deref().filter(|_| matches!(self.kind, Kinds::Bind | Kinds::Cache))
    }

    /// Where it is in a step that runs in a directory.
    pub(crate) fn place(&self, working_directory: &str) -> PathBuf {
        PathBuf::from(below(working_directory, &self.target))
    }
}

/// A wrong `--mount` is the line's fault.
pub(crate) fn read_all(
    flags: Vec<(std::ops::Range<usize>, &str)>,
    error: impl Fn(std::ops::Range<usize>, String) -> ParseError,
) -> Result<Vec<Mount>, ParseError> {
    flags.into_iter().map(|(range, text)| Mount::read(text).map_err(|why| error(range, why))).collect()
}

impl Images {
    fn caches(&self) -> PathBuf {
        self.root().join("build-caches")
    }

    /// The directory of a cache; a new one is an empty directory of this owner and mode.
    pub(crate) fn build_cache(&self, id: &str, owner: (u32, u32), mode: u32) -> Result<PathBuf, Error> {
        let place = self.caches().join(digest::hex(&digest::of(id.as_bytes())));
        let shown = || format!("cannot make a build's cache, {}", place.display());
        if !place.exists() {
            std::fs::create_dir_all(self.caches()).attempt(shown)?;
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(self.caches(), private).attempt(shown)?;
            match std::fs::create_dir(&place) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e).attempt(shown),
                _ => {}
            }
            std::os::unix::fs::chown(&place, Some(owner.0), Some(owner.1)).attempt(shown)?;
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).attempt(shown)?;
        }
        Ok(place)
    }

    /// Takes the caches away that builds have mounted.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn prune_build_caches(&self) -> Result<(), Error> {
        match std::fs::remove_dir_all(self.caches()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.attempt(|| "cannot remove the builds' caches".to_owned()),
        }
    }
}

/// The places of mounts that are not in an image yet, the deepest first: they are nobody's change.
pub(crate) fn missing(images: &Images, rootfs: &Rootfs, mounts: &[StepMount]) -> Result<Vec<PathBuf>, Error> {
    let mut missing = Vec::new();
    for mount in mounts {
        for path in mount.target().ancestors().filter(|p| p.parent().is_some()) {
            if images.kind_of(rootfs, path)?.is_some() {
                break;
            }
            missing.push(path.to_owned());
        }
    }
    missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(missing)
}

/// Takes them out of a step's changes, where they are as empty as they were made.
pub(crate) fn take_out(upper: &Path, missing: &[PathBuf]) -> Result<(), Error> {
    let take = || -> std::io::Result<()> {
        let root = Dir::open(upper)?;
        for path in missing {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Ok(dir) = root.inside(parent) else { continue };
            let is_empty = match dir.facts(name)? {
                Some(facts) if facts.kind == Kind::Directory => dir.child(OsStr::new(name))?.names()?.is_empty(),
                Some(facts) => facts.kind == Kind::File && facts.size == 0,
                None => false,
            };
            if is_empty {
                dir.remove(name)?;
            }
        }
        Ok(())
    };
    take().attempt(|| "cannot take the places of mounts out of a layer".to_owned())
}

/// A secret that nobody has.
pub(crate) fn no_secret(id: &str) -> Error {
    BuildError::Instruction(format!("secret {id}: not found")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_they_are_written() {
        let cache = Mount::read("type=cache,target=/var/cache/app,sharing=locked,id=x").unwrap();
        assert_eq!((cache.kind, cache.target.as_str(), cache.id.as_str()), (Kinds::Cache, "/var/cache/app", "x"));
        assert!(!cache.read_only);
        let bind = Mount::read("from=base,src=/a,dst=b").unwrap();
        assert_eq!((bind.kind, bind.from(), bind.read_only), (Kinds::Bind, Some("base"), true));
        assert_eq!(bind.place("/src"), Path::new("/src/b"));
        assert!(!Mount::read("target=/x,rw").unwrap().read_only);
        let secret = Mount::read("type=secret,id=token").unwrap();
        assert_eq!(secret.target, "/run/secrets/token");
        assert_eq!(Mount::read("type=secret,id=t,env=TOKEN").unwrap().target, "");
        assert!(Mount::read("type=cache").unwrap_err().contains("target is required"));
        assert!(Mount::read("type=magic,target=/x").unwrap_err().contains("unsupported mount type"));
        assert!(Mount::read("type=ssh").unwrap_err().contains("use a secret"));
        assert!(Mount::read("type=bind,target=/x,colour=red").unwrap_err().contains("unexpected key 'colour'"));
    }
}
