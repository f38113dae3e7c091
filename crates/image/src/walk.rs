//! Paths inside a root, by every symlink's meaning there.

use kernel::tree::{Dir, Facts, Kind};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as Docker follows.
pub(crate) const MAX_LINKS: usize = 255;

/// What is said of more.
pub(crate) fn too_many_links() -> io::Error {
    io::Error::other("too many levels of symbolic links")
}

/// The path without symlinks that `path` leads to. Each name on the way that is no symlink, and whose parent is there, is
/// handed to `meet`, which may make what is missing.
///
/// # Errors
/// Symlinks lead in a circle, or `meet` refuses.
pub(crate) fn walk(
    root: &Dir,
    path: &Path,
    mut meet: impl FnMut(&Dir, &OsStr, Option<&Facts>) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let names = |path: &Path| -> Vec<OsString> {
        let parts = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
        parts.map(|c| c.as_os_str().to_owned()).rev().collect()
    };
    let (mut rest, mut done, mut links) = (names(path), PathBuf::from("/"), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        if let Some(parent) = none_if_missing(root.inside(&done))? {
            let facts = parent.facts(&name)?;
            if facts.as_ref().is_some_and(|f| f.kind == Kind::Symlink) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(too_many_links());
                }
                let target = parent.target(&name)?;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                rest.extend(names(&target));
                continue;
            }
            meet(&parent, &name, facts.as_ref())?;
        }
        done.push(name);
    }
    Ok(done)
}

/// What is not there is no failure.
pub(crate) fn none_if_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}
