//! Files in and out of a container's tree: what `cp` and `export` do.
//!
//! A [`Tree`] is what a container sees: of a running one its own mounts, of another its root file system with the mounts
//! that it would have. Paths are resolved in it as the container would resolve them; none leads out.

use crate::digest;
use crate::error::{Attempt, Error};
use crate::pack;
use crate::store::Images;
use crate::unpack::{self, Destination, Options, ensure_directory};
use crate::walk::{none_if_missing, walk};
use kernel::overlay::{self, Changes};
use kernel::tree::{Dir, Facts, Kind};
use kernel::view;
use model::image::ImageId;
use model::rootfs::Rootfs;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use kernel::view::Bind as Under;

/// A container's files.
#[derive(Debug)]
pub struct Tree {
    root: Dir,
    /// Why nothing may be written, where the kernel says so.
    read_only: &'static str,
}

/// What is at a path: of itself, and not of what it may point to.
#[derive(Clone, Debug)]
pub struct Place {
    /// The last part of the path as it was asked for.
    pub name: String,
    /// Its kind, mode, owner, size and time.
    pub facts: Facts,
    /// Where a symlink leads in the end; empty if it is none.
    pub link_target: String,
}

/// How files are to be received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receive {
    /// A directory is replaced by nothing else, and nothing else by a directory.
    pub keep_kinds: bool,
    /// Everybody's owner instead of the archive's.
    pub owner: Option<(u32, u32)>,
}

impl Tree {
    /// What a process sees, with all its mounts.
    ///
    /// # Errors
    /// It has ended.
    pub fn of_process(pid: i32, read_only_root: bool) -> Result<Self, Error> {
        let root =
            Dir::open(Path::new(&format!("/proc/{pid}/root"))).attempt(|| format!("cannot enter process {pid}"))?;
        Ok(Self { root, read_only: why_read_only(read_only_root) })
    }

    /// What is at `path`; none if there is nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn place(&self, path: &str) -> Result<Option<Place>, Error> {
        let asked = Asked::of(path);
        let shown = || format!("cannot look at {path}");
        let Some((parent, facts)) = none_if_missing(self.find(&asked)).attempt(shown)? else { return Ok(None) };
        let link_target = match facts.kind {
            Kind::Symlink => {
                let target = parent.target(&asked.last).and_then(|_| resolve(&self.root, Path::new(&asked.whole)));
                target.attempt(shown)?.to_string_lossy().into_owned()
            }
            _ => String::new(),
        };
        Ok(Some(Place { name: asked.name(), facts, link_target }))
    }

    /// The directory in which the last part is found, and what that part is.
    fn find(&self, asked: &Asked) -> io::Result<(Dir, Facts)> {
        let parent = self.root.inside(&asked.parent)?;
        let facts = match asked.last.is_empty() {
            true => parent.own_facts()?,
            false => parent.facts(&asked.last)?.ok_or(io::ErrorKind::NotFound)?,
        };
        Ok((parent, facts))
    }

    /// Writes what is at `path` as a tar, under its own name. `whole` says in the end whether the container was there all
    /// the time.
    ///
    /// # Errors
    /// Nothing is there, it cannot be read, or it went away meanwhile: then the archive has no end.
    pub fn send(&self, path: &str, whole: impl Fn() -> bool, to: impl Write) -> Result<(), Error> {
        let asked = Asked::of(path);
        let (parent, _) = self.find(&asked).attempt(|| format!("cannot read {path}"))?;
        if asked.last.is_empty() {
            let name = asked.name();
            return pack::pack_directory(&parent, Some(Path::new(if name == "/" { "." } else { &name })), &whole, to);
        }
        pack::pack_name(&parent, &asked.last, Path::new(&asked.last), &whole, to)
    }

    /// Unpacks a tar, however it is compressed, into the directory at `path`; none if nothing is there.
    ///
    /// # Errors
    /// It is no directory, nothing may be written there, or the archive is damaged.
    pub fn receive(&self, path: &str, tar: impl Read + Send, how: Receive) -> Result<Option<()>, Error> {
        let at = resolve(&self.root, Path::new(path)).attempt(|| format!("cannot open {path}"))?;
        match self.root.inside(&at) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(Error::NotADirectory),
            other => drop(other.attempt(|| format!("cannot open {path}"))?),
        }
        let (_, mut tar) = digest::decompress(tar).map_err(unpack::damaged)?;
        let options = Options { owner: how.owner, keep_root: true, keep_kinds: how.keep_kinds, ..Options::default() };
        unpack::unpack(&mut tar, Destination { root: &self.root, at: &at }, options).map(|_| Some(())).map_err(
            |error| match &error {
                Error::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                    Error::ReadOnly(self.read_only)
                }
                _ => error,
            },
        )
    }
}

/// In Docker's words.
fn why_read_only(root: bool) -> &'static str {
    if root { "container rootfs" } else { "mounted volume" }
}

impl Images {
    /// What a container that does not run would see: its root file system with mounts over it. Whoever holds it keeps
    /// the container from being started.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn tree(&self, rootfs: &Rootfs, under: &[Under], read_only_root: bool) -> Result<Tree, Error> {
        let changes = Changes { upper: &rootfs.upper, work: &rootfs.work, volatile: rootfs.volatile };
        self.fresh_work(rootfs)?;
        let shown = || format!("cannot mount {}", rootfs.upper.display());
        let mount = overlay::mount_detached(&rootfs.lower, Some(changes)).attempt(shown)?;
        let root = Dir::of_mount(&mount).attempt(shown)?;
        for bind in under {
            let place = || format!("cannot make the place of a mount, {}", bind.target.display());
            make_place(&root, bind).attempt(place)?;
        }
        let root = view::over(mount, under, read_only_root).attempt(shown)?;
        Ok(Tree { root, read_only: why_read_only(read_only_root) })
    }

    /// Writes all files of a container as a tar, without what is mounted over them. It may run meanwhile; `whole` says in
    /// the end whether it was there all the time.
    ///
    /// # Errors
    /// They cannot be read, went away meanwhile, or nobody takes them.
    pub fn export(&self, rootfs: &Rootfs, whole: impl Fn() -> bool, to: impl Write) -> Result<(), Error> {
        let layers: Vec<PathBuf> = std::iter::once(&rootfs.upper).chain(&rootfs.lower).cloned().collect();
        pack::pack_directory(&self.mount_layers(&layers)?, None, &whole, to)
    }

    /// Writes all files of an image as a tar.
    ///
    /// # Errors
    /// There is no such image, its files cannot be read, or nobody takes them.
    pub fn export_image(&self, image: &ImageId, to: impl Write) -> Result<(), Error> {
        let layers = self.get(image.as_str())?.configuration.rootfs.diff_ids.clone();
        pack::pack_directory(&self.mount_layers(&self.lower_of(&layers))?, None, &|| true, to)
    }
}

/// The place of a mount, of the kind that its source is.
fn make_place(root: &Dir, bind: &Under) -> io::Result<()> {
    if root.facts_inside(&bind.target).is_ok() {
        return Ok(());
    }
    if std::fs::metadata(&bind.source)?.is_dir() {
        return ensure_directory(root, &bind.target, Options::default()).map(drop);
    }
    let parent = ensure_directory(root, bind.target.parent().unwrap_or(Path::new("/")), Options::default())?;
    parent.make_file(bind.target.file_name().unwrap_or_default(), 0o644).map(drop)
}

/// A path as Docker reads it: dots are resolved by the letters, and a slash or a dot at the end means what a symlink
/// leads to.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    whole: String,
    parent: PathBuf,
    /// Empty: the parent itself.
    last: OsString,
}

impl Asked {
    fn of(path: &str) -> Self {
        let clean = model::bounds::clean(path);
        let is_root = clean == "/";
        let end = if path.ends_with("/.") || path == "." {
            "/."
        } else if path.ends_with('/') {
            "/"
        } else {
            ""
        };
        if !end.is_empty() || is_root {
            let whole =
                if is_root && end != "/." { clean.clone() } else { clean.trim_end_matches('/').to_owned() + end };
            return Self { whole, parent: clean.into(), last: OsString::new() };
        }
        let (parent, last) = clean.rsplit_once('/').unwrap_or(("", &clean));
        Self { parent: format!("{parent}/").into(), last: last.into(), whole: clean }
    }

    /// Go's `filepath.Base`.
    fn name(&self) -> String {
        match self.whole.trim_end_matches('/').rsplit_once('/') {
            Some((_, name)) => name.to_owned(),
            None => "/".to_owned(),
        }
    }
}

/// The path without symlinks that `path` leads to, whether or not something is there.
fn resolve(root: &Dir, path: &Path) -> io::Result<PathBuf> {
    walk(root, path, |_, _, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_or_a_dot_at_the_end_means_the_directory_itself() {
        let cases = [
            ("/foo/bar", "/foo/", "bar", "bar"),
            ("foo//../bar", "/", "bar", "bar"),
            ("/foo/bar/", "/foo/bar", "", "bar"),
            ("/foo/.", "/foo", "", "."),
            ("/", "/", "", "/"),
            ("", "/", "", "/"),
            ("/..", "/", "", "/"),
            ("/.", "/", "", "."),
        ];
        for (path, parent, last, name) in cases {
            let asked = Asked::of(path);
            let got = (asked.parent.to_str().unwrap(), asked.last.to_str().unwrap(), asked.name());
            assert_eq!(got, (parent, last, name.to_owned()), "{path}");
        }
    }

    #[test]
    fn symlinks_are_resolved_inside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        for (name, target) in
            [("up", "../../../a"), ("a/abs", "/a/b"), ("a/b/deep", "../../up/abs/none"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, directory.path().join(name)).unwrap();
        }
        let root = Dir::open(directory.path()).unwrap();
        let check = |path: &str, expected: &str| {
            assert_eq!(resolve(&root, Path::new(path)).unwrap(), Path::new(expected), "{path}");
        };
        check("/up", "/a");
        check("/up/b/deep", "/a/b/none");
        check("/nothing/there", "/nothing/there");
        assert!(resolve(&root, Path::new("/loop")).is_err());
        let tree = Tree { root, read_only: "" };
        assert_eq!(tree.place("/up").unwrap().unwrap().link_target, "/a");
        assert_eq!(tree.place("/up/").unwrap().unwrap().facts.kind, Kind::Directory);
        assert!(tree.place("/none/x").unwrap().is_none());
    }

    #[test]
    fn kinds_are_kept_where_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("f"), "f").unwrap();
        let tree = Tree { root: Dir::open(directory.path()).unwrap(), read_only: "" };
        let tar = |name: &str, kind: tar::EntryType| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(0);
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_data(&mut header, name, io::empty()).unwrap();
            builder.into_inner().unwrap()
        };
        let owner = Some((rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));
        let keep = Receive { keep_kinds: true, owner };
        let over = |name: &str, kind| tree.receive("/", &tar(name, kind)[..], keep).unwrap_err().to_string();
        assert_eq!(over("d", tar::EntryType::Regular), "cannot overwrite directory \"d\" with non-directory \"d\"");
        assert_eq!(over("f/", tar::EntryType::Directory), "cannot overwrite non-directory \"f\" with directory \"f\"");
        let any = Receive { owner, ..Receive::default() };
        tree.receive("/", &tar("d", tar::EntryType::Regular)[..], any).unwrap().unwrap();
        assert!(directory.path().join("d").is_file());
        assert!(tree.receive("/none", io::empty(), any).unwrap().is_none());
        assert!(matches!(tree.receive("/f", io::empty(), any), Err(Error::NotADirectory)));
    }
}
