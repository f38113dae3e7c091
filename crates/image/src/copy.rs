//! Copying trees with everything that makes them what they are: owners, modes, times, attributes, hard links, devices.

use crate::unpack::is_for_containers;
use kernel::tree::{Dir, Facts, Kind};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Says of a path whether it stays behind.
pub(crate) type Skip<'a> = &'a dyn Fn(&Path, &Facts) -> bool;

/// What shall differ from the source.
#[derive(Default)]
pub(crate) struct Copying<'a> {
    /// Everybody's owner instead of the source's.
    pub(crate) owner: Option<(u32, u32)>,
    /// The mode of what is no symlink, instead of the source's.
    pub(crate) mode: Option<u32>,
    /// Paths, relative to where `tree` began, that stay behind.
    pub(crate) skip: Option<Skip<'a>>,
    /// Where files with several names were put first.
    links: HashMap<(u64, u64), (Dir, OsString)>,
}

impl<'a> Copying<'a> {
    pub(crate) fn new(owner: Option<(u32, u32)>, mode: Option<u32>) -> Self {
        Self { owner, mode, ..Self::default() }
    }

    pub(crate) fn skipping(self, skip: Skip<'a>) -> Self {
        Self { skip: Some(skip), ..self }
    }

    /// Copies what is in `from` into `to`, an existing directory; `path` is where `from` lies, for `skip`.
    pub(crate) fn contents(&mut self, from: &Dir, to: &Dir, path: &Path) -> io::Result<()> {
        for name in from.names()? {
            self.entry(from, &name, to, &name, &path.join(&name))?;
        }
        Ok(())
    }

    /// Copies one name, with what is below. Directories are merged; anything else that is in the way is replaced.
    pub(crate) fn entry(
        &mut self,
        from: &Dir,
        name: &OsStr,
        to: &Dir,
        new_name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let Some(facts) = from.facts(name)? else { return Ok(()) };
        let skipped = self.skip.is_some_and(|skip| skip(path, &facts));
        if skipped && facts.kind != Kind::Directory {
            return Ok(());
        }
        if skipped {
            // an exception may bring back what is inside; the directory is made when something is
            return self.skipped_directory(from, name, to, new_name, path);
        }
        let existing = to.facts(new_name)?;
        let merge = facts.kind == Kind::Directory && existing.as_ref().is_some_and(|f| f.kind == Kind::Directory);
        if existing.is_some() && !merge {
            to.remove(new_name)?;
        }
        match facts.kind {
            Kind::Directory => {
                if !merge {
                    to.make_directory(new_name, 0o755)?;
                }
                self.contents(&from.child(name)?, &to.child(new_name)?, path)?;
            }
            Kind::File => {
                if facts.links > 1
                    && let Some((dir, first)) = self.links.get(&facts.identity)
                {
                    return to.make_link(new_name, dir, first);
                }
                let mut source = from.read(name)?;
                let mut target = to.make_file(new_name, 0o600)?;
                io::copy(&mut source, &mut target)?;
                if facts.links > 1 {
                    self.links.insert(facts.identity, (to.try_clone()?, new_name.to_owned()));
                }
            }
            Kind::Symlink => to.make_symlink(new_name, &from.target(name)?)?,
            Kind::Socket => return Ok(()),
            kind => to.make_node(new_name, kind, 0o600, facts.device)?,
        }
        self.dress(from, name, to, new_name, &facts)
    }

    /// Gives the copy what the original has beside its contents.
    pub(crate) fn dress(&self, from: &Dir, name: &OsStr, to: &Dir, new_name: &OsStr, facts: &Facts) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((facts.uid, facts.gid));
        to.set_owner(new_name, uid, gid)?;
        if facts.kind != Kind::Symlink {
            to.set_mode(new_name, self.mode.unwrap_or(facts.mode))?;
        }
        for (key, value) in from.attributes(name)? {
            if is_for_containers(key.as_bytes()) {
                to.set_attribute_if_possible(new_name, &key, &value)?;
            }
        }
        to.set_mtime(new_name, facts.mtime)
    }

    fn skipped_directory(
        &mut self,
        from: &Dir,
        name: &OsStr,
        to: &Dir,
        new_name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let inner = from.child(name)?;
        if !self.keeps_something(&inner, path)? {
            return Ok(());
        }
        if to.facts(new_name)?.is_none_or(|f| f.kind != Kind::Directory) {
            to.remove(new_name)?;
            to.make_directory(new_name, 0o755)?;
        }
        self.contents(&inner, &to.child(new_name)?, path)?;
        match from.facts(name)? {
            Some(facts) => self.dress(from, name, to, new_name, &facts),
            None => Ok(()),
        }
    }

    fn keeps_something(&self, dir: &Dir, path: &Path) -> io::Result<bool> {
        for name in dir.names()? {
            let path: PathBuf = path.join(&name);
            let Some(facts) = dir.facts(&name)? else { continue };
            if !self.skip.is_some_and(|skip| skip(&path, &facts)) {
                return Ok(true);
            }
            if facts.kind == Kind::Directory && self.keeps_something(&dir.child(&name)?, &path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
