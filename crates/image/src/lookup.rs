//! Looking into a root file system without mounting it: paths are resolved through the layers as overlayfs would,
//! whiteouts and opaque directories respected, symlinks followed inside.
//!
//! Every step opens a directory by a single name and follows no link there, so a container that moves things about
//! meanwhile can make a lookup fail, and never lead it to the host's files.

use crate::walk::{MAX_LINKS, too_many_links};
use kernel::tree::{Dir, Facts, Kind};
use model::rootfs::Rootfs;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};

/// Layers as one tree, the uppermost first.
pub(crate) struct View {
    root: Vec<Dir>,
}

/// What a path leads to.
pub(crate) enum Found {
    /// The same directory in each layer that contributes to it, the uppermost first. Never empty.
    Directory(Vec<Dir>),
    /// A name in one layer's directory.
    Other(Dir, OsString, Facts),
}

impl View {
    /// The layers of a root file system with its changes on top.
    pub(crate) fn of(rootfs: &Rootfs) -> io::Result<Self> {
        Self::layers(std::iter::once(rootfs.upper.as_path()).chain(rootfs.lower.iter().map(|p| p.as_path())))
    }

    /// The layers given, the uppermost first.
    pub(crate) fn layers<'a>(layers: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        Ok(Self { root: layers.map(Dir::open).collect::<io::Result<_>>()? })
    }

    /// What `path` leads to; `follow` says whether a link at its very end is followed.
    pub(crate) fn find(&self, path: &Path, follow: bool) -> io::Result<Option<Found>> {
        let clone = |dirs: &[Dir]| dirs.iter().map(Dir::try_clone).collect::<io::Result<Vec<_>>>();
        // the directories that led here, for `..`
        let mut stack = vec![clone(&self.root)?];
        let mut rest: VecDeque<OsString> = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack.last().expect("the root stays");
            match find_in(here, &name)? {
                None => return Ok(None),
                Some(Found::Directory(dirs)) => stack.push(dirs),
                Some(Found::Other(dir, name, facts)) => {
                    if facts.kind == Kind::Symlink && (follow || !rest.is_empty()) {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(too_many_links());
                        }
                        let target = dir.target(&name)?;
                        if target.is_absolute() {
                            stack.truncate(1);
                        }
                        for part in names(&target).into_iter().rev() {
                            rest.push_front(part);
                        }
                    } else if rest.is_empty() {
                        return Ok(Some(Found::Other(dir, name, facts)));
                    } else {
                        return Ok(None); // a file where a directory must be
                    }
                }
            }
        }
        Ok(stack.pop().map(Found::Directory))
    }

    /// The names in a merged directory, with their facts where they come from.
    pub(crate) fn list(dirs: &[Dir]) -> io::Result<BTreeMap<OsString, Facts>> {
        let mut names = BTreeMap::new();
        for dir in dirs {
            for name in dir.names()? {
                if !names.contains_key(&name)
                    && let Some(facts) = dir.facts(&name)?
                {
                    names.insert(name, facts);
                }
            }
        }
        names.retain(|_, facts: &mut Facts| !facts.is_whiteout());
        Ok(names)
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// A name in a merged directory.
pub(crate) fn find_in(dirs: &[Dir], name: &OsStr) -> io::Result<Option<Found>> {
    let mut merged = Vec::new();
    for dir in dirs {
        let Some(facts) = dir.facts(name)? else { continue };
        if facts.is_whiteout() {
            break;
        }
        if facts.kind != Kind::Directory {
            if merged.is_empty() {
                return Ok(Some(Found::Other(dir.try_clone()?, name.to_owned(), facts)));
            }
            break;
        }
        let opaque = dir.is_opaque(name)?;
        merged.push(dir.child(name)?);
        if opaque {
            break;
        }
    }
    Ok((!merged.is_empty()).then_some(Found::Directory(merged)))
}
