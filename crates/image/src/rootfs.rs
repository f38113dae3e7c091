//! The root file systems of containers: a writable layer over an image's, what was changed in it, and new images made
//! of the changes.

use crate::copy::Copying;
use crate::error::{Attempt, Error};
use crate::image::Change;
use crate::index::{Facts as ImageFacts, Record};
use crate::lookup::{Found, View, find_in};
use crate::store::{Images, When};
use jiff::Timestamp;
use kernel::overlay::{self, Changes};
use kernel::tree::{Dir, Kind};
use model::image::{Configuration, History, ImageConfig, ImageId, Platform};
use model::rootfs::Rootfs;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// overlayfs stacks no more.
const MAX_LAYERS: usize = 500;

/// What `commit` makes of a container.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The whole configuration of the new image: the container's, merged with its image's.
    pub config: ImageConfig,
    /// Dockerfile instructions on top of it.
    pub changes: Vec<String>,
    /// Who the image says has made it.
    pub author: String,
    /// The comment of its history.
    pub message: String,
    /// What the history says the step was: the container's command.
    pub created_by: String,
}

impl Images {
    /// Makes the directories of a container's root file system; what was changed in it before stays. The container's
    /// layers stay in the store until [`Images::discard`], whatever becomes of the image. Not while it is mounted.
    pub fn prepare(&self, container: &str, image: &ImageId, volatile: bool) -> Result<Rootfs, Error> {
        let record = self.lease_for_container(container, image)?;
        let prepared = self.prepare_on(container, image, &record, volatile);
        if prepared.is_err() {
            self.release_container(container);
        }
        prepared
    }

    fn prepare_on(&self, container: &str, image: &ImageId, record: &Record, volatile: bool) -> Result<Rootfs, Error> {
        let layers = &record.configuration.rootfs.diff_ids;
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { image: image.clone(), has: layers.len(), limit: MAX_LAYERS });
        }
        let home = self.container_home(container)?;
        fs::create_dir_all(&home).attempt(|| format!("cannot make {}", home.display()))?;
        // not synced: if a power cut takes it, preparing again brings it back
        let list = home.join("layers.json");
        let new = home.join("layers.new");
        let json = serde_json::to_vec(layers).unwrap_or_default();
        fs::write(&new, json).and_then(|()| fs::rename(&new, &list)).attempt(|| format!("cannot write {list:?}"))?;
        let rootfs = self.rootfs_of(&home, layers, volatile)?;
        self.make_upper(&rootfs)?;
        Ok(rootfs)
    }

    /// A root file system on layers (the lowest first) that the caller holds leases on, in a directory of its own.
    pub(crate) fn rootfs_in(&self, home: &Path, layers: &[String]) -> Result<Rootfs, Error> {
        let rootfs = self.rootfs_of(home, layers, true)?;
        self.make_upper(&rootfs)?;
        Ok(rootfs)
    }

    /// The directories of layers (the lowest first), the uppermost first. Never empty. overlayfs takes no directory
    /// twice: of equal layers only the uppermost counts, since all that it has, and hides, is settled there.
    pub(crate) fn lower_of(&self, layers: &[String]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let each_once = layers.iter().rev().filter(|l| seen.insert(*l));
        let mut lower: Vec<PathBuf> = each_once.map(|l| self.layer_path(l)).collect();
        if lower.is_empty() {
            lower.push(self.empty_layer());
        }
        lower
    }

    /// A container's layers, with the mount points on top.
    fn rootfs_of(&self, home: &Path, layers: &[String], volatile: bool) -> Result<Rootfs, Error> {
        let mut lower = vec![self.points(layers)?];
        lower.extend(self.lower_of(layers));
        Ok(Rootfs { lower, upper: home.join("upper"), work: home.join("work"), volatile })
    }

    fn make_upper(&self, rootfs: &Rootfs) -> Result<(), Error> {
        self.make_upper_over(&rootfs.upper, &rootfs.lower[0])?;
        self.fresh_work(rootfs)
    }

    /// overlayfs's own directory, empty. Not while it is mounted.
    pub(crate) fn fresh_work(&self, rootfs: &Rootfs) -> Result<(), Error> {
        let work = &rootfs.work;
        // A fresh one each time: after a volatile mount overlayfs refuses to take the old one again.
        match fs::remove_dir_all(work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(work),
        }
        .attempt(|| format!("cannot make {}", work.display()))
    }

    /// Makes an upper directory over a layer, unless it is there.
    pub(crate) fn make_upper_over(&self, upper: &Path, below: &Path) -> Result<(), Error> {
        use std::os::unix::fs::MetadataExt;
        match fs::create_dir(upper) {
            Ok(()) => {
                // the root itself is the upper directory's: it looks like that of the layer below
                let facts = fs::metadata(below).attempt(|| format!("cannot read {}", below.display()))?;
                chown(upper, Some(facts.uid()), Some(facts.gid()))
                    .and_then(|()| fs::set_permissions(upper, fs::Permissions::from_mode(facts.mode() & 0o7777)))
                    .attempt(|| format!("cannot set the owner of {}", upper.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).attempt(|| format!("cannot make {}", upper.display())),
        }
    }

    /// The containers that have a root file system here. One that nobody knows is to be discarded.
    pub fn containers(&self) -> Result<Vec<String>, Error> {
        let directory = self.root().join("rootfs");
        let shown = || format!("cannot list {}", directory.display());
        let entries = fs::read_dir(&directory).attempt(shown)?;
        entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).attempt(shown)).collect()
    }

    /// The root file system that [`Images::prepare`] made earlier.
    pub fn rootfs(&self, container: &str, volatile: bool) -> Option<Rootfs> {
        let layers = self.container_layers(container)?;
        self.rootfs_of(&self.container_home(container).ok()?, &layers, volatile).ok()
    }

    /// Removes a container's changes. What is not there is success; the deleting itself goes on behind.
    pub fn discard(&self, container: &str) -> Result<(), Error> {
        let home = self.container_home(container)?;
        let scratch = self.scratch()?;
        match fs::rename(&home, scratch.path().join("rootfs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).attempt(|| format!("cannot remove {}", home.display()));
            }
            _ => std::thread::spawn(move || drop(scratch)),
        };
        let layers = self.container_layers(container).unwrap_or_default();
        self.release_container(container);
        // its image may have been removed while it stood on it
        let index = self.index();
        let needed = |layer: &String| index.images.values().any(|r| r.configuration.rootfs.diff_ids.contains(layer));
        if !layers.iter().all(needed) {
            self.change_and_collect(|_| Ok(()))?;
        }
        Ok(())
    }

    fn container_home(&self, container: &str) -> Result<PathBuf, Error> {
        let plain = !container.is_empty() && container.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match plain {
            true => Ok(self.root().join("rootfs").join(container)),
            false => Err(io::Error::other("not a container's id")).attempt(|| format!("cannot use {container:?}")),
        }
    }

    pub(crate) fn empty_layer(&self) -> PathBuf {
        self.root().join("empty")
    }

    /// Reads a file of a container without mounting anything. None if there is no such file; longer ones than
    /// `max_bytes` are refused.
    pub fn read_file(&self, rootfs: &Rootfs, path: impl AsRef<Path>, max_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = path.as_ref();
        let shown = || format!("cannot read {} in the image", path.display());
        let wrong = |why| Err(Error::NotAFile { path: path.display().to_string(), why });
        let (dir, name) = match View::of(rootfs).and_then(|v| v.find(path, true)).attempt(shown)? {
            None => return Ok(None),
            Some(Found::Directory(_)) => return wrong("a directory"),
            Some(Found::Other(dir, name, facts)) => match facts.kind {
                Kind::File if facts.size > max_bytes => return wrong("too large"),
                Kind::File => (dir, name),
                _ => return wrong("not a regular file"),
            },
        };
        let mut bytes = Vec::new();
        // it may have grown since
        dir.read(&name).and_then(|file| file.take(max_bytes).read_to_end(&mut bytes)).attempt(shown)?;
        Ok(Some(bytes))
    }

    /// Whether a path of the image is a directory, a file or nothing.
    pub fn kind_of(&self, rootfs: &Rootfs, path: impl AsRef<Path>) -> Result<Option<Kind>, Error> {
        let path = path.as_ref();
        let found = View::of(rootfs).and_then(|v| v.find(path, true)).attempt(|| format!("cannot look at {path:?}"))?;
        Ok(found.map(|f| match f {
            Found::Directory(_) => Kind::Directory,
            Found::Other(_, _, facts) => facts.kind,
        }))
    }

    /// Mounts a root file system detached, and opens it. With its changes, it must be mounted nowhere else.
    pub fn mount(&self, rootfs: &Rootfs) -> Result<Dir, Error> {
        let changes = Changes { upper: &rootfs.upper, work: &rootfs.work, volatile: rootfs.volatile };
        overlay::mount_detached(&rootfs.lower, Some(changes))
            .and_then(|mount| Dir::of_mount(&mount))
            .attempt(|| format!("cannot mount {}", rootfs.upper.display()))
    }

    /// Mounts layers read-only, the uppermost first.
    pub(crate) fn mount_layers(&self, lower: &[PathBuf]) -> Result<Dir, Error> {
        let mut layers = lower.to_vec();
        // two at least, and an empty one changes nothing
        layers.push(self.empty_layer());
        overlay::mount_detached(&layers, None)
            .and_then(|mount| Dir::of_mount(&mount))
            .attempt(|| "cannot mount an image's layers".to_owned())
    }

    /// Fills a new volume with what the image has at `path`: the directory's contents, and its own owner and mode.
    /// Returns false if the image has no directory there.
    pub fn copy_up(&self, rootfs: &Rootfs, path: impl AsRef<Path>, destination: &Path) -> Result<bool, Error> {
        let path = path.as_ref();
        let image = self.mount_layers(&rootfs.lower)?;
        let shown = || format!("cannot copy {} of the image to {}", path.display(), destination.display());
        let from = match image.inside(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(false);
            }
            other => other.attempt(shown)?,
        };
        let to = Dir::open(destination).attempt(shown)?;
        Copying::new(None, None).contents(&from, &to, Path::new("")).attempt(shown)?;
        let facts = from.own_facts().attempt(shown)?;
        to.set_own((facts.uid, facts.gid), facts.mode, facts.mtime).attempt(shown)?;
        Ok(true)
    }

    /// Bytes in the files that a container changed or added.
    pub fn changes_size(&self, rootfs: &Rootfs) -> Result<u64, Error> {
        fn size(dir: &Dir, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
            let mut total = 0;
            for name in dir.names()? {
                let Some(facts) = dir.facts(&name)? else { continue };
                match facts.kind {
                    Kind::File if facts.links < 2 || seen.insert(facts.identity) => total += facts.size,
                    Kind::Directory => total += dir.child(&name).and_then(|d| size(&d, seen)).unwrap_or(0),
                    _ => {}
                }
            }
            Ok(total)
        }
        Dir::open(&rootfs.upper)
            .and_then(|upper| size(&upper, &mut HashSet::new()))
            .attempt(|| format!("cannot measure {}", rootfs.upper.display()))
    }

    /// What a container added, changed and deleted, sorted by path, as `docker diff` lists it.
    pub fn changes(&self, rootfs: &Rootfs) -> Result<Vec<(Change, String)>, Error> {
        fn walk(upper: &Dir, below: &[Dir], path: &Path, list: &mut Vec<(Change, String)>) -> io::Result<()> {
            for name in upper.names()? {
                let Some(facts) = upper.facts(&name)? else { continue };
                let inner = path.join(&name);
                let shown = inner.to_string_lossy().into_owned();
                let before = find_in(below, &name)?;
                if facts.is_whiteout() {
                    if before.is_some() {
                        list.push((Change::Deleted, shown));
                    }
                    continue;
                }
                list.push((if before.is_some() { Change::Modified } else { Change::Added }, shown));
                if facts.kind == Kind::Directory {
                    let here = upper.child(&name)?;
                    let mut lower = match before {
                        Some(Found::Directory(dirs)) => dirs,
                        _ => Vec::new(),
                    };
                    if upper.is_opaque(&name)? {
                        for gone in View::list(&lower)?.into_keys() {
                            if here.facts(&gone)?.is_none() {
                                list.push((Change::Deleted, inner.join(gone).to_string_lossy().into_owned()));
                            }
                        }
                        lower.clear();
                    }
                    walk(&here, &lower, &inner, list)?;
                }
            }
            Ok(())
        }
        let shown = || format!("cannot compare {} with its image", rootfs.upper.display());
        let upper = Dir::open(&rootfs.upper).attempt(shown)?;
        let below = rootfs.lower.iter().map(|l| Dir::open(l)).collect::<io::Result<Vec<_>>>().attempt(shown)?;
        let mut list = Vec::new();
        walk(&upper, &below, Path::new("/"), &mut list).attempt(shown)?;
        list.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(list)
    }

    /// Makes an image of a container's changes over its own image, `parent`, which may be gone from the store by now.
    /// The container is paused, or its files change while they are read.
    pub fn commit(
        &self,
        container: &str,
        rootfs: &Rootfs,
        parent: Option<&ImageId>,
        commit: Commit,
    ) -> Result<ImageId, Error> {
        let Commit { mut config, changes, author, message, created_by } = commit;
        crate::build::apply_changes(&mut config, &changes)?;
        let layers = self
            .container_layers(container)
            .ok_or_else(|| io::Error::other("it was never prepared"))
            .attempt(|| format!("cannot commit {container}"))?;
        let upper = Dir::open(&rootfs.upper).attempt(|| format!("cannot open {}", rootfs.upper.display()))?;
        // Through a file: the layer's directory is made from the archive, as whoever loads the image will make it.
        let scratch = self.scratch()?;
        let path = scratch.path().join("changes.tar");
        let file = fs::File::create(&path).attempt(|| format!("cannot make {}", path.display()))?;
        crate::pack::pack(&upper, io::BufWriter::new(file))?;
        let file = fs::File::open(&path).attempt(|| format!("cannot read {}", path.display()))?;
        let lease = self.add_layer_stream(file)?;

        let index = self.index();
        let record = parent.and_then(|p| index.images.get(p));
        let mut configuration = match record {
            Some(record) => Configuration::clone(&record.configuration),
            None => {
                let Platform { os, architecture, variant } = Platform::host();
                let mut new = Configuration { os, architecture, variant, ..Configuration::default() };
                new.rootfs.diff_ids = layers;
                new
            }
        };
        let now = Timestamp::now();
        configuration.rootfs.diff_ids.push(lease.digest().to_owned());
        configuration.history.push(History {
            created: Some(now),
            created_by,
            author: author.clone(),
            comment: message.clone(),
            empty_layer: false,
        });
        configuration.created = Some(now);
        configuration.author = author;
        configuration.comment = message;
        configuration.config = config;
        let facts = ImageFacts { parent: record.and(parent).cloned(), ..ImageFacts::default() };
        self.add_image(&crate::image::encode(&configuration), facts, When::Now)
    }
}
