//! What a build copies from: its context, another stage, or an image; and how sources are found there.

use super::glob::{self, Ignore};
use super::{BuildError, Recipe};
use crate::digest::{self, Hasher};
use crate::error::{Attempt, Error};
use crate::store::{Images, Scratch};
use crate::unpack::{self, Destination, Options, is_for_containers};
use kernel::tree::{Dir, Facts, Kind};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The files that a build may use.
pub enum Context {
    /// A directory of the host's.
    Directory(PathBuf),
    /// A tar in any compression.
    Archive(Box<dyn Read + Send>),
    /// The http or https address of one, or of a Dockerfile by itself.
    Remote(String),
}

/// A context, laid out.
pub(crate) struct Files {
    pub(crate) root: Dir,
    pub(crate) ignore: Ignore,
    _scratch: Option<Scratch>,
}

impl Files {
    pub(crate) fn lay_out(images: &Images, context: Context) -> Result<Self, Error> {
        let (path, scratch) = match context {
            Context::Directory(path) => (path, None),
            Context::Remote(url) => return Err(BuildError::RemoteSource(url).into()), // fetched before
            Context::Archive(archive) => {
                let scratch = images.scratch()?;
                let path = scratch.path().join("context");
                std::fs::create_dir(&path).attempt(|| format!("cannot make {}", path.display()))?;
                let root = Dir::open(&path).attempt(|| format!("cannot open {}", path.display()))?;
                let (_, mut plain) = digest::decompress(archive).map_err(unpack::damaged)?;
                unpack::unpack(
                    &mut plain,
                    Destination::whole(&root),
                    Options { no_devices: true, ..Options::default() },
                )?;
                // the client is still sending the end of it
                io::copy(&mut plain, &mut io::sink()).map_err(unpack::damaged)?;
                (path, Some(scratch))
            }
        };
        let root = Dir::open(&path).attempt(|| format!("cannot open the build context {}", path.display()))?;
        Ok(Self { root, ignore: Ignore::default(), _scratch: scratch })
    }

    /// The Dockerfile's text; its `.dockerignore`, or the context's, counts from now on.
    pub(crate) fn dockerfile(&mut self, path: &str, recipe: Option<Recipe>) -> Result<String, Error> {
        if let Some(Recipe { text, ignore }) = recipe {
            if text.trim().is_empty() {
                return Err(BuildError::EmptyDockerfile(path.to_owned()).into());
            }
            let ignore = match ignore {
                Some(own) => Some(own),
                None => self.text(".dockerignore")?,
            };
            self.ignore = Ignore::read(&ignore.unwrap_or_default());
            return Ok(text);
        }
        let asked = if path.is_empty() { "Dockerfile" } else { path };
        let mut found = self.text(asked)?;
        if found.is_none() && asked == "Dockerfile" {
            found = self.text("dockerfile")?;
        }
        let text = found.ok_or_else(|| BuildError::NoDockerfile(asked.to_owned()))?;
        if text.trim().is_empty() {
            return Err(BuildError::EmptyDockerfile(asked.to_owned()).into());
        }
        let ignore = match self.text(&format!("{asked}.dockerignore"))? {
            Some(own) => Some(own),
            None => self.text(".dockerignore")?,
        };
        self.ignore = Ignore::read(&ignore.unwrap_or_default());
        Ok(text)
    }

    fn text(&self, path: &str) -> Result<Option<String>, Error> {
        let missing = |e: &io::Error| {
            matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput)
        };
        let shown = || format!("cannot read {path} of the build context");
        let mut bytes = Vec::new();
        match self.root.read_inside(Path::new(path)) {
            Err(error) if missing(&error) => return Ok(None),
            other => other.and_then(|file| file.take(16 << 20).read_to_end(&mut bytes)).attempt(shown)?,
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Where sources are looked for.
pub(crate) struct Source<'a> {
    pub(crate) root: &'a Dir,
    pub(crate) ignore: &'a Ignore,
}

/// A source that was found: a name in a directory that holds it.
pub(crate) struct Entry {
    pub(crate) dir: Dir,
    pub(crate) name: OsString,
    /// From the source's root.
    pub(crate) path: PathBuf,
    pub(crate) facts: Facts,
    /// Fetched for this step: the context's rules do not concern it, and an archive stays one.
    pub(crate) fetched: bool,
    /// It keeps the directories that it lies in, without so many of the first.
    pub(crate) kept: Option<usize>,
}

impl Source<'_> {
    /// Everything that a source, perhaps a pattern, means; sorted. An empty list is a pattern that fits nothing.
    pub(crate) fn find(&self, text: &str) -> Result<Vec<Entry>, Error> {
        let mut names: Vec<String> = Vec::new();
        for part in Path::new(text).components() {
            match part {
                Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
                Component::ParentDir if names.pop().is_none() => {
                    return Err(BuildError::OutsideContext(text.to_owned()).into());
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        if names.is_empty() {
            let shown = || "cannot open the root of what is copied from".to_owned();
            let (dir, facts) = (self.root.try_clone().attempt(shown)?, self.root.own_facts().attempt(shown)?);
            found.push(Entry { dir, name: ".".into(), path: PathBuf::new(), facts, fetched: false, kept: None });
            return Ok(found);
        }
        self.walk(self.root, &names, Path::new(""), &mut found)
            .attempt(|| format!("cannot look for {text} in what is copied from"))?;
        if found.is_empty() && !names.iter().any(|n| glob::is_pattern(n)) {
            return Err(BuildError::NoSource(names.join("/")).into());
        }
        Ok(found)
    }

    fn walk(&self, dir: &Dir, names: &[String], path: &Path, found: &mut Vec<Entry>) -> io::Result<()> {
        let Some((first, rest)) = names.split_first() else { return Ok(()) };
        let candidates: Vec<OsString> = match dir.facts(first.as_ref())? {
            Some(_) => vec![first.into()],
            None if glob::is_pattern(first) => {
                let mut names = dir.names()?;
                names.retain(|n| glob::matches(first, &n.to_string_lossy()));
                names
            }
            None => Vec::new(),
        };
        for name in candidates {
            let inner = path.join(&name);
            let Some(mut facts) = dir.facts(&name)? else { continue };
            let (mut real_dir, mut real_name) = (dir.try_clone()?, name.clone());
            if facts.kind == Kind::Symlink {
                // followed, and never out of the root
                match self.resolve(&inner)? {
                    Some((d, n, f)) => (real_dir, real_name, facts) = (d, n, f),
                    None => continue,
                }
            }
            if !rest.is_empty() {
                if facts.kind == Kind::Directory {
                    let next = self.root.inside(&inner)?;
                    self.walk(&next, rest, &inner, found)?;
                }
                continue;
            }
            // an excluded directory may have something in it that comes back
            if self.ignore.excludes(&inner) && facts.kind != Kind::Directory {
                continue;
            }
            found.push(Entry { dir: real_dir, name: real_name, path: inner, facts, fetched: false, kept: None });
        }
        Ok(())
    }

    /// What a symlink leads to, as a name in a directory.
    fn resolve(&self, path: &Path) -> io::Result<Option<(Dir, OsString, Facts)>> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            let (parent, name) = match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => (parent.to_owned(), name.to_owned()),
                _ => {
                    let facts = self.root.own_facts()?;
                    return Ok(Some((self.root.try_clone()?, ".".into(), facts)));
                }
            };
            let dir = match self.root.inside(&Path::new(".").join(&parent)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                other => other?,
            };
            let Some(facts) = dir.facts(&name)? else { return Ok(None) };
            if facts.kind != Kind::Symlink {
                return Ok(Some((dir, name, facts)));
            }
            let joined = parent.join(dir.target(&name)?);
            path = PathBuf::new();
            for part in joined.components() {
                match part {
                    Component::Normal(name) => path.push(name),
                    Component::ParentDir => {
                        path.pop();
                    }
                    Component::RootDir => path = PathBuf::new(),
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

impl Entry {
    /// A file that was fetched into a directory of its own.
    pub(crate) fn fetched(directory: &Path, name: &str) -> Result<Self, Error> {
        let shown = || format!("cannot read {name} after fetching it");
        let dir = Dir::open(directory).attempt(shown)?;
        dir.set_mode(name.as_ref(), 0o600).attempt(shown)?;
        let facts = dir.facts(name.as_ref()).attempt(shown)?.ok_or(io::ErrorKind::NotFound.into()).attempt(shown)?;
        Ok(Self { dir, name: name.into(), path: name.into(), facts, fetched: true, kept: None })
    }

    /// The directories that it keeps: a directory's own name is one of them.
    pub(crate) fn kept_parents(&self) -> Option<PathBuf> {
        let parents = match self.facts.kind {
            Kind::Directory => Some(self.path.as_path()),
            _ => self.path.parent(),
        };
        Some(parents?.components().skip(self.kept?).collect())
    }

    /// A digest of what would be copied: names, modes, contents, and owners where they are kept; never times.
    pub(crate) fn hash(&self, ignore: &Ignore, keep_owner: bool, exclude: &Ignore) -> Result<String, Error> {
        let mut hashing = Hashing { hasher: Hasher::new(), ignore, exclude, keep_owner };
        // a directory's own name does not arrive, a file's may
        let shown = match self.facts.kind {
            Kind::Directory => Path::new(""),
            _ => Path::new(self.path.file_name().unwrap_or_default()),
        };
        hashing
            .entry(&self.dir, &self.name, &self.path, shown)
            .attempt(|| format!("cannot read {} to copy it", self.path.display()))?;
        Ok(hashing.hasher.finish())
    }
}

struct Hashing<'a> {
    hasher: Hasher,
    ignore: &'a Ignore,
    exclude: &'a Ignore,
    keep_owner: bool,
}

impl Hashing<'_> {
    fn entry(&mut self, dir: &Dir, name: &std::ffi::OsStr, path: &Path, shown: &Path) -> io::Result<()> {
        let facts = if name == "." { dir.own_facts()? } else { dir.facts(name)?.ok_or(io::ErrorKind::NotFound)? };
        let left_out = !path.as_os_str().is_empty() && (self.ignore.excludes(path) || self.exclude.excludes(path));
        if left_out && facts.kind != Kind::Directory {
            return Ok(());
        }
        if !left_out {
            self.part(shown.as_os_str().as_bytes());
            self.part(format!("{:?} {:o}", facts.kind, facts.mode).as_bytes());
            if self.keep_owner {
                self.part(format!("{}:{}", facts.uid, facts.gid).as_bytes());
            }
            if name != "." {
                for (key, value) in dir.attributes(name)? {
                    if is_for_containers(key.as_bytes()) {
                        self.part(key.as_bytes());
                        self.part(&value);
                    }
                }
            }
        }
        match facts.kind {
            Kind::Directory => {
                let inner = if name == "." { dir.try_clone()? } else { dir.child(name)? };
                for child in inner.names()? {
                    self.entry(&inner, &child, &path.join(&child), &shown.join(&child))?;
                }
            }
            Kind::File => {
                self.part(&facts.size.to_le_bytes());
                let mut file = dir.read(name)?;
                let mut buffer = vec![0; 1 << 17];
                loop {
                    let n = file.read(&mut buffer)?;
                    if n == 0 {
                        break;
                    }
                    self.hasher.update(&buffer[..n]);
                }
            }
            Kind::Symlink => self.part(dir.target(name)?.as_os_str().as_bytes()),
            _ => self.part(format!("{:?}", facts.device).as_bytes()),
        }
        Ok(())
    }

    /// With its length before it, so that no two lists of parts look the same.
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}
