//! `COPY` and `ADD` carried out: sources found and hashed first (the hash is the cache's key), then put into a root
//! file system.

use super::BuildError;
use super::context::{Entry, Source};
use super::glob::Ignore;
use crate::copy::Copying;
use crate::digest::{self, Hasher};
use crate::error::{Attempt, Error};
use crate::unpack::{self, Destination, Options};
use crate::walk::walk;
use kernel::tree::{Dir, Facts, Kind};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

/// A `COPY` or `ADD`, its variables put in.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) add: bool,
    pub(crate) sources: Vec<String>,
    /// Files whose content stands in the Dockerfile: name and content.
    pub(crate) inline: Vec<(String, String)>,
    /// Absolute; a slash at the end if it must be a directory.
    pub(crate) destination: String,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    /// From a stage or an image: who owns a file there owns the copy too.
    pub(crate) keep_owner: bool,
    /// Sources keep the directories that they lie in, from a `/./` in them on.
    pub(crate) parents: bool,
    pub(crate) exclude: Ignore,
}

/// An order whose sources were found.
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    /// `file:…`, `dir:…` or `multi:…`, as the history shows it.
    pub(crate) hash: String,
}

impl Order {
    /// Finds the sources; those that were fetched come beside them.
    pub(crate) fn find(&self, source: &Source<'_>, fetched: Vec<Entry>) -> Result<Found, Error> {
        let mut entries = Vec::new();
        for text in &self.sources {
            let kept = self.parents.then(|| kept_from(text));
            entries.extend(source.find(text)?.into_iter().map(|entry| Entry { kept, ..entry }));
        }
        entries.extend(fetched);
        if entries.is_empty() && self.inline.is_empty() {
            return Err(BuildError::NoSources.into());
        }
        if entries.len() + self.inline.len() > 1 && !self.destination.ends_with('/') {
            let keyword = if self.add { "ADD" } else { "COPY" };
            return Err(BuildError::ManySources(keyword).into());
        }
        let mut hashes = Vec::new();
        for entry in &entries {
            let kind = if entry.facts.kind == Kind::Directory { "dir" } else { "file" };
            let nothing = Ignore::default();
            let ignore = if entry.fetched { &nothing } else { source.ignore };
            let hash = entry.hash(ignore, self.keep_owner, &self.exclude)?;
            // where it goes is part of what it is
            let hash = match entry.kept_parents() {
                Some(parents) => digest::of(format!("{hash}\0{}", parents.display()).as_bytes()),
                None => hash,
            };
            hashes.push(format!("{kind}:{}", digest::hex(&hash)));
        }
        for (name, content) in &self.inline {
            hashes.push(format!("file:{}", digest::hex(&digest::of(format!("{name}\0{content}").as_bytes()))));
        }
        let hash = match hashes.as_slice() {
            [one] => one.clone(),
            many => {
                let mut hasher = Hasher::new();
                many.iter().for_each(|h| hasher.update(h.as_bytes()));
                format!("multi:{}", digest::hex(&hasher.finish()))
            }
        };
        Ok(Found { entries, hash })
    }

    /// Puts what was found into a mounted root file system.
    pub(crate) fn carry_out(&self, found: &Found, ignore: &Ignore, root: &Dir) -> Result<(), Error> {
        for entry in &found.entries {
            let nothing = Ignore::default();
            let ignore = if entry.fetched { &nothing } else { ignore };
            let below = entry.kept_parents().map(|parents| self.below(&parents));
            below.as_ref().unwrap_or(self).put(entry, ignore, root).map_err(|error| match error {
                Putting::Refused(why) => BuildError::Copy { path: entry.path.clone(), why }.into(),
                Putting::Failed(error) => error,
            })?;
        }
        for (name, content) in &self.inline {
            let owner = self.owner.unwrap_or((0, 0));
            let (dir, file) = self.place_of_file(root, OsStr::new(name))?;
            let put = || -> io::Result<()> {
                dir.remove(&file)?;
                dir.make_file(&file, 0o600)?.write_all(content.as_bytes())?;
                dir.set_owner(&file, owner.0, owner.1)?;
                dir.set_mode(&file, self.mode.unwrap_or(0o644))
            };
            put().attempt(|| format!("cannot write {name} into the image"))?;
        }
        Ok(())
    }

    /// The same into a directory further down.
    fn below(&self, parents: &Path) -> Order {
        let parents = parents.display().to_string();
        let slash = if parents.is_empty() { "" } else { "/" };
        let destination = format!("{}/{parents}{slash}", self.destination.trim_end_matches('/'));
        Order { destination, ..self.clone() }
    }

    /// The owner of what is copied and of directories made for it.
    fn owner(&self) -> Option<(u32, u32)> {
        self.owner.or(if self.keep_owner { None } else { Some((0, 0)) })
    }

    fn put(&self, entry: &Entry, ignore: &Ignore, root: &Dir) -> Result<(), Putting> {
        let shown = || format!("cannot copy {} to {}", entry.path.display(), self.destination);
        let prefix = entry.path.clone();
        let skip = |path: &Path, _: &Facts| {
            let inner = path.strip_prefix(&prefix).unwrap_or(path);
            ignore.excludes(path) || (!self.exclude.is_empty() && self.exclude.excludes(inner))
        };
        let mut copying = Copying::new(self.owner(), self.mode).skipping(&skip);
        if entry.facts.kind == Kind::Directory {
            let from = match entry.name.as_os_str() == OsStr::new(".") {
                true => entry.dir.try_clone(),
                false => entry.dir.child(&entry.name),
            }
            .attempt(shown)?;
            let to = self.directory(root, Path::new(&self.destination))?;
            return Ok(copying.contents(&from, &to, &entry.path).attempt(shown)?);
        }
        if self.add && !entry.fetched && entry.facts.kind == Kind::File && is_archive(entry).attempt(shown)? {
            let (_, at) = real_directory(root, Path::new(&self.destination), self.owner.unwrap_or((0, 0)))?;
            let file = entry.dir.read(&entry.name).attempt(shown)?;
            let (_, mut plain) = digest::decompress(file).map_err(unpack::damaged)?;
            unpack::unpack(
                &mut plain,
                Destination { root, at: &at },
                Options { owner: self.owner, ..Options::default() },
            )?;
            return Ok(());
        }
        let file_name = entry.path.file_name().unwrap_or(entry.name.as_os_str());
        let (dir, name) = self.place_of_file(root, file_name)?;
        if dir.facts(&name).attempt(shown)?.is_some_and(|f| f.kind == Kind::Directory) {
            return Err(Putting::Refused(format!("{} is a directory", self.destination)));
        }
        Ok(copying.entry(&entry.dir, &entry.name, &dir, &name, &entry.path).attempt(shown)?)
    }

    /// Where a file goes: into the destination if that is a directory or must be one, else under its name.
    fn place_of_file(&self, root: &Dir, file_name: &OsStr) -> Result<(Dir, OsString), Error> {
        // a symlink at the destination is followed, inside of the image
        let shown = || format!("cannot look at {}", self.destination);
        let real = walk(root, Path::new(&self.destination), |_, _, _| Ok(())).attempt(shown)?;
        let is_directory = self.destination.ends_with('/')
            || root.facts_inside(&real).is_ok_and(|facts| facts.kind == Kind::Directory);
        match (real.parent(), real.file_name()) {
            (Some(parent), Some(name)) if !is_directory => Ok((self.directory(root, parent)?, name.to_owned())),
            _ => Ok((self.directory(root, &real)?, file_name.to_owned())),
        }
    }

    /// A directory of the image, made with its parents if need be.
    fn directory(&self, root: &Dir, path: &Path) -> Result<Dir, Error> {
        make_directories(root, path, self.owner.unwrap_or((0, 0)))
    }
}

/// How many of a source's directories are not kept: those before a `/./`.
fn kept_from(source: &str) -> usize {
    let before = source.split_once("/./").map_or("", |(before, _)| before);
    Path::new(before).components().filter(|c| matches!(c, Component::Normal(_))).count()
}

/// Refusing is the Dockerfile's fault, failing is not.
enum Putting {
    Refused(String),
    Failed(Error),
}
impl From<Error> for Putting {
    fn from(error: Error) -> Self {
        Putting::Failed(error)
    }
}

/// Opens a directory of a mounted root file system, making what is missing of it: also where a symlink leads to.
pub(crate) fn make_directories(root: &Dir, path: &Path, owner: (u32, u32)) -> Result<Dir, Error> {
    real_directory(root, path, owner).map(|(dir, _)| dir)
}

/// The same, and its path without symlinks.
fn real_directory(root: &Dir, path: &Path, owner: (u32, u32)) -> Result<(Dir, PathBuf), Error> {
    let make = |parent: &Dir, name: &OsStr| {
        if parent.facts(name)?.is_some() {
            return Err(io::Error::from_raw_os_error(NOT_A_DIRECTORY));
        }
        parent.make_directory(name, 0o755)?;
        parent.set_mode(name, 0o755)?;
        parent.set_owner(name, owner.0, owner.1)
    };
    follow(root, path, make).attempt(|| format!("cannot make {} in the image", path.display()))
}

/// Goes to a directory inside a root, by every symlink's meaning there; what is missing is made by `make`. With its path
/// without symlinks.
pub(crate) fn follow(
    root: &Dir,
    path: &Path,
    mut make: impl FnMut(&Dir, &OsStr) -> io::Result<()>,
) -> io::Result<(Dir, PathBuf)> {
    let done = walk(root, path, |parent, name, facts| match facts {
        Some(facts) if facts.kind == Kind::Directory => Ok(()),
        _ => make(parent, name),
    })?;
    Ok((root.inside(&done)?, done))
}

/// ENOTDIR.
const NOT_A_DIRECTORY: i32 = 20;

/// Whether a file is a tar, in any compression.
fn is_archive(entry: &Entry) -> io::Result<bool> {
    Ok(is_tar(entry.dir.read(&entry.name)?))
}

pub(crate) fn is_tar(file: impl Read + Send) -> bool {
    let Ok((_, plain)) = digest::decompress(file) else { return false };
    let mut block = Vec::new();
    if plain.take(512).read_to_end(&mut block).is_err() || block.len() < 512 {
        return false;
    }
    let header = tar::Header::from_byte_slice(&block);
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    block.iter().any(|&b| b != 0) && header.cksum().is_ok_and(|c| c == sum)
}
