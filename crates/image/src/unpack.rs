//! A tar becomes a directory: a layer for overlayfs, the context of a build, or files added to a root.
//!
//! An archive is a stranger's. Its paths are resolved inside a root (kernel's [`Dir`]): what an absolute symlink says is
//! said of that root, wherever in it the archive goes, as in Docker, which changes root to it. `..` beyond the
//! destination is refused, a hard link's target is looked for below it, and of extended attributes only those get
//! through that mean something in a container: never `trusted.*`, which is how overlayfs is told to look elsewhere.
//!
//! In a layer, `.wh.name` hides `name` of the layers below, and `.wh..wh..opq` all of them in its directory. These
//! marks speak of lower layers only, wherever in the archive they stand; here they become overlayfs's own: a character
//! device 0/0, and an attribute of the directory.

use crate::error::{Attempt, Error};
use kernel::tree::{Dir, Kind};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tar::EntryType;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How an archive is to be taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// `.wh.` files are marks, and become overlayfs's.
    pub(crate) whiteouts: bool,
    /// Everybody's owner instead of the archive's.
    pub(crate) owner: Option<(u32, u32)>,
    /// Device nodes are left out.
    pub(crate) no_devices: bool,
    /// The root that is there already keeps its owner, mode and times.
    pub(crate) keep_root: bool,
    /// A directory is replaced by nothing else, and nothing else by a directory.
    pub(crate) keep_kinds: bool,
}

/// Where an archive goes: a directory of a root, which is all of the world to the archive's symlinks.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) root: &'a Dir,
    /// Without symlinks; [`WHOLE`]: the root itself.
    pub(crate) at: &'a Path,
}

/// The root itself.
const WHOLE: &str = ".";

impl<'a> Destination<'a> {
    pub(crate) fn whole(root: &'a Dir) -> Self {
        Self { root, at: Path::new(WHOLE) }
    }

    /// A directory by its path in the archive.
    fn directory(&self, path: &Path) -> io::Result<Dir> {
        self.root.inside(&self.at.join(path))
    }
}

/// Unpacks a whole tar; returns the bytes of its regular files.
pub(crate) fn unpack(tar: &mut dyn Read, into: Destination<'_>, options: Options) -> Result<u64, Error> {
    let to = into.root.inside(into.at).attempt(|| format!("cannot open {}", into.at.display()))?;
    let mut state = Unpacking { into, to, options, parent: None, directories: Vec::new(), size: 0 };
    entries(tar, |entry| state.entry(entry))?;
    // A directory's times are set when nothing is put into it any more, the deepest first.
    for (path, mtime) in state.directories.iter().rev() {
        let (parent, name) = split(path);
        let set = if name.is_empty() {
            state.to.own_facts().and_then(|f| state.to.set_own((f.uid, f.gid), f.mode, *mtime))
        } else {
            into.directory(parent).and_then(|parent| match parent.facts(name)? {
                Some(facts) if facts.kind == Kind::Directory => parent.set_mtime(name, *mtime),
                _ => Ok(()), // replaced since
            })
        };
        match set {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error).attempt(|| format!("cannot set the times of {path:?}"));
            }
            _ => {}
        }
    }
    Ok(state.size)
}

/// The most bytes of a name, a link's target, or attributes that stand before an entry: Go's.
const MAX_EXTENSION: u64 = 1 << 20;

/// Visits the entries of a tar. What stands before one is read into memory by the parser, as long as it says it is: so it
/// gets so many bytes and no more.
///
/// The end may lack what only fills a block: docker's client leaves it out where it has replaced a file.
pub(crate) fn entries<R: Read>(
    tar: R,
    mut visit: impl FnMut(&mut tar::Entry<'_, Metered<R>>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (budget, at) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
    let mut archive = tar::Archive::new(Metered { inner: tar, budget: budget.clone(), at: at.clone() });
    let mut entries = archive.entries().map_err(damaged)?;
    loop {
        // A name, a link's target, and attributes.
        budget.set(Some(3 * MAX_EXTENSION));
        let entry = entries.next();
        budget.set(None);
        let Some(entry) = entry else { return Ok(()) };
        let mut entry = entry.map_err(damaged)?;
        visit(&mut entry)?;
        // Holes are in no archive, and nothing of them is to be skipped.
        if entry.header().entry_type() != EntryType::GNUSparse {
            io::copy(&mut entry, &mut io::sink()).map_err(damaged)?;
            if at.get() < entry.raw_file_position() + entry.size() {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Reads, while there is a budget no more than that: then it is between two entries, and the last block may be filled.
pub(crate) struct Metered<R> {
    inner: R,
    budget: Rc<Cell<Option<u64>>>,
    /// How much was read.
    at: Rc<Cell<u64>>,
}

/// All that is in a tar fills blocks of so many bytes.
const BLOCK: u64 = 512;

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let budget = self.budget.get();
        if budget == Some(0) {
            return Err(io::Error::other("archive/tar: header field too long"));
        }
        let most = buffer.len().min(usize::try_from(budget.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
        let mut n = self.inner.read(&mut buffer[..most])?;
        let missing = (BLOCK - self.at.get() % BLOCK) % BLOCK;
        if n == 0 && budget.is_some() && missing > 0 {
            n = most.min(missing as usize);
            buffer[..n].fill(0);
        }
        self.at.set(self.at.get() + n as u64);
        self.budget.set(budget.map(|left| left - n as u64));
        Ok(n)
    }
}

/// An error of the archive itself, or of reading it. A full disk is none of the archive's.
pub(crate) fn damaged(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Io { attempt: "the disk is full: an archive's files cannot be stored".to_owned(), source: error }
        }
        io::ErrorKind::UnexpectedEof => Error::Archive("unexpected EOF".to_owned()),
        _ => Error::Archive(error.to_string()),
    }
}

struct Unpacking<'a> {
    into: Destination<'a>,
    /// The directory that the archive goes to.
    to: Dir,
    options: Options,
    /// The directory of the last entry: mostly that of the next one too.
    parent: Option<(PathBuf, Dir)>,
    directories: Vec<(PathBuf, (i64, u32))>,
    size: u64,
}

/// What an entry says beside its header.
#[derive(Default)]
struct Extensions {
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    attributes: Vec<(OsString, Vec<u8>)>,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Error> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = inside(&entry.path_bytes())?;
        if kind == EntryType::GNUSparse {
            // It says how large it is, and need not bring the bytes.
            let free = self.to.free_bytes().attempt(|| "cannot ask for the free space".to_owned())?;
            if entry.size() > free {
                let why = io::Error::from(io::ErrorKind::StorageFull);
                return Err(why).attempt(|| format!("cannot write {}: {} bytes", path.display(), entry.size()));
            }
        }
        let extensions = extensions(entry)?;
        let header = entry.header();
        let old = header.as_old();
        let mode = or_zero(&old.mode, header.mode().map(u64::from)).map_err(damaged)? as u32 & 0o7777;
        let (uid, gid) = match self.options.owner {
            Some(owner) => owner,
            None => (
                extensions.uid.map_or_else(|| id(or_zero(&old.uid, header.uid())), Ok)?,
                extensions.gid.map_or_else(|| id(or_zero(&old.gid, header.gid())), Ok)?,
            ),
        };
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            None => {
                let seconds = or_zero(&old.mtime, header.mtime()).map_err(damaged)?;
                (i64::try_from(seconds).unwrap_or(0), 0)
            }
        };
        let (parent_path, name) = split(&path);
        if name.is_empty() {
            // the root itself
            if kind.is_dir() && !self.options.keep_root {
                self.to.set_own((uid, gid), mode, mtime).attempt(|| "cannot set the root's owner".to_owned())?;
                self.directories.push((path, mtime));
            }
            return Ok(());
        }
        let name = name.to_owned();
        let shown = || format!("cannot unpack {}", path.display());
        let marks = self.options.whiteouts;
        if self.options.no_devices && matches!(kind, EntryType::Char | EntryType::Block) {
            return Ok(());
        }
        let target = entry.link_name_bytes().map(|t| t.into_owned());
        let into = self.into;
        self.enter(parent_path)?;
        let parent = &self.parent.as_ref().expect("just entered").1;

        if marks && name.as_bytes() == OPAQUE {
            let (above, own) = split(parent_path);
            return match own.is_empty() {
                true => Ok(()), // the root of a layer: nothing to hide that overlayfs could
                false => into.directory(above).and_then(|d| d.set_opaque(own)).attempt(shown),
            };
        }
        if marks && let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(b".wh.") {
                // `.wh..wh.plnk` and its like: aufs's own files, which mean nothing here
                return Ok(());
            }
            let hidden = OsStr::from_bytes(hidden);
            return match parent.facts(hidden).attempt(shown)? {
                None => parent.make_whiteout(hidden).attempt(shown),
                // this layer's own directory stays, and shows nothing of those below
                Some(facts) if facts.kind == Kind::Directory => parent.set_opaque(hidden).attempt(shown),
                Some(_) => Ok(()),
            };
        }

        let existing = parent.facts(&name).attempt(shown)?;
        let over_whiteout = marks && existing.as_ref().is_some_and(|f| f.is_whiteout());
        let stays = kind.is_dir() && existing.as_ref().is_some_and(|f| f.kind == Kind::Directory);
        if let Some(facts) = existing.as_ref().filter(|_| self.options.keep_kinds && !stays) {
            let shown = name.to_string_lossy();
            match (facts.kind == Kind::Directory, kind.is_dir()) {
                (true, false) => return Err(Error::OverDirectory(shown.into_owned())),
                (false, true) => return Err(Error::OverOther(shown.into_owned())),
                _ => {}
            }
        }
        if existing.is_some() && !stays {
            parent.remove(&name).attempt(shown)?;
        }
        match kind {
            EntryType::Directory => {
                if !stays {
                    parent.make_directory(&name, 0o755).attempt(shown)?;
                }
                if over_whiteout {
                    parent.set_opaque(&name).attempt(shown)?;
                }
                self.directories.push((path.clone(), mtime));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = parent.make_file(&name, 0o600).attempt(shown)?;
                self.size += copy(entry, &mut file, &path)?;
            }
            EntryType::Symlink => {
                let target = target.ok_or_else(|| Error::Archive(format!("{}: a link to nothing", path.display())))?;
                parent.make_symlink(&name, Path::new(OsStr::from_bytes(&target))).attempt(shown)?;
            }
            EntryType::Link => {
                let target = target.ok_or_else(|| Error::Archive(format!("{}: a link to nothing", path.display())))?;
                let target = inside(&target)?;
                let (target_parent, target_name) = split(&target);
                let from = match target_parent == parent_path {
                    true => parent.try_clone(),
                    false => into.directory(target_parent),
                };
                from.and_then(|from| parent.make_link(&name, &from, target_name)).map_err(|error| {
                    Error::Archive(format!("{}: a hard link to {}: {error}", path.display(), target.display()))
                })?;
                return Ok(()); // its owner, mode and times are those of its target
            }
            EntryType::Char | EntryType::Block => {
                let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default).map_err(damaged);
                let device = (number(entry.header().device_major())?, number(entry.header().device_minor())?);
                let kind = if kind == EntryType::Char { Kind::CharDevice } else { Kind::BlockDevice };
                parent.make_node(&name, kind, 0o600, device).attempt(shown)?;
            }
            EntryType::Fifo => parent.make_node(&name, Kind::Fifo, 0o600, (0, 0)).attempt(shown)?,
            other => {
                return Err(Error::Archive(format!("{}: unhandled tar header type {:?}", path.display(), other)));
            }
        }
        parent.set_owner(&name, uid, gid).attempt(shown)?;
        if kind != EntryType::Symlink {
            parent.set_mode(&name, mode).attempt(shown)?;
        }
        for (key, value) in &extensions.attributes {
            // a symlink, or a file system, that has none of them: as Docker, not worth failing for
            parent.set_attribute_if_possible(&name, key, value).attempt(shown)?;
        }
        if !kind.is_dir() {
            parent.set_mtime(&name, mtime).attempt(shown)?;
        }
        Ok(())
    }

    /// Makes `path` the current directory, with those of its parents that the archive left out.
    fn enter(&mut self, path: &Path) -> Result<(), Error> {
        if self.parent.as_ref().is_some_and(|(current, _)| current == path) {
            return Ok(());
        }
        let dir =
            ensure_directory(self.into.root, &self.into.at.join(path), self.options).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => damaged(error),
                    _ => Error::Archive(format!("{}: cannot be a directory of the archive's: {error}", path.display())),
                }
            })?;
        self.parent = Some((path.to_owned(), dir));
        Ok(())
    }
}

/// Opens `path` in `root`, making what is missing of it.
pub(crate) fn ensure_directory(root: &Dir, path: &Path, options: Options) -> io::Result<Dir> {
    match root.inside(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        other => return other,
    }
    // A symlink may lead to what a layer below has, or nobody.
    let make = |parent: &Dir, name: &OsStr| {
        let hidden = match parent.facts(name)? {
            Some(facts) if options.whiteouts && facts.is_whiteout() => {
                parent.remove(name)?;
                true
            }
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
            None => false,
        };
        parent.make_directory(name, 0o755)?;
        if hidden {
            parent.set_opaque(name)?;
        }
        match options.owner {
            Some((uid, gid)) => parent.set_owner(name, uid, gid),
            None => Ok(()),
        }
    };
    crate::build::follow(root, path, make).map(|(dir, _)| dir)
}

/// Errors of writing are the machine's (a full disk), errors of reading the archive's.
fn copy(entry: &mut impl Read, file: &mut std::fs::File, path: &Path) -> Result<u64, Error> {
    use std::io::Write;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        let n = entry.read(&mut buffer).map_err(damaged)?;
        if n == 0 {
            return Ok(total);
        }
        file.write_all(&buffer[..n]).attempt(|| format!("cannot write {}", path.display()))?;
        total += n as u64;
    }
}

/// A field that nobody filled in is zero, as Go reads it.
fn or_zero(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|&b| b == 0 || b == b' ') { Ok(0) } else { number }
}

fn id(number: io::Result<u64>) -> Result<u32, Error> {
    let number = number.map_err(damaged)?;
    u32::try_from(number).map_err(|_| Error::Archive(format!("{number} is no user or group")))
}

/// The path below the root that an archive's path means: without leading slashes, dots resolved. Leaving is refused.
fn inside(path: &[u8]) -> Result<PathBuf, Error> {
    let mut clean = PathBuf::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if !clean.pop() {
                    let path = String::from_utf8_lossy(path);
                    return Err(Error::Archive(format!("{path:?} leads out of the archive's root")));
                }
            }
            name if name.contains(&0) => return Err(Error::Archive("a name with a zero byte".to_owned())),
            name => clean.push(OsStr::from_bytes(name)),
        }
    }
    Ok(clean)
}

/// The parent and the last name of a clean path; the root has an empty name.
fn split(path: &Path) -> (&Path, &OsStr) {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => (parent, name),
        (_, Some(name)) => (Path::new("."), name),
        _ => (Path::new("."), OsStr::new("")),
    }
}

fn extensions(entry: &mut tar::Entry<'_, impl Read>) -> Result<Extensions, Error> {
    let mut found = Extensions::default();
    let Some(records) = entry.pax_extensions().map_err(damaged)? else { return Ok(found) };
    for record in records {
        let record = record.map_err(damaged)?;
        let value = record.value_bytes();
        let number = || std::str::from_utf8(value).ok().and_then(|v| v.parse::<u32>().ok());
        match record.key_bytes() {
            b"uid" => found.uid = number(),
            b"gid" => found.gid = number(),
            b"mtime" => found.mtime = std::str::from_utf8(value).ok().and_then(pax_time),
            key => {
                let attribute =
                    key.strip_prefix(b"SCHILY.xattr.").or_else(|| key.strip_prefix(b"LIBARCHIVE.xattr.raw."));
                if let Some(attribute) = attribute.filter(|a| is_for_containers(a)) {
                    found.attributes.push((OsString::from_vec(attribute.to_vec()), value.to_vec()));
                }
            }
        }
    }
    Ok(found)
}

/// `1700000000.123456789`
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// Whether an extended attribute is the image's business: not overlayfs's, not the host's security module's.
pub(crate) fn is_for_containers(key: &[u8]) -> bool {
    key == b"security.capability"
        || key == b"system.posix_acl_access"
        || key == b"system.posix_acl_default"
        || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_blamed_on_the_archive() {
        let full = damaged(io::Error::from_raw_os_error(28)).chain();
        assert_eq!(
            full,
            "the disk is full: an archive's files cannot be stored: No space left on device (os error 28)"
        );
        assert_eq!(damaged(io::ErrorKind::UnexpectedEof.into()).chain(), "invalid archive: unexpected EOF");
    }

    #[test]
    fn what_stands_before_an_entry_is_not_read_without_end() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(800 << 20);
            header.set_cksum();
            let mut rest = io::repeat(b'a').take(800 << 20);
            let refused = entries(header.as_bytes().chain(&mut rest), |_| Ok(())).unwrap_err();
            assert!(refused.to_string().contains("header field too long"), "{refused}");
            assert!(rest.limit() > 700 << 20, "{kind:?}");
        }
    }

    #[test]
    fn entries_that_nobody_reads_are_passed_over() {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["a".to_owned(), "b".repeat(300)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(9 << 20);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, io::repeat(0).take(9 << 20)).unwrap();
        }
        let (bytes, mut seen) = (tar.into_inner().unwrap(), Vec::new());
        entries(&bytes[..], |entry| {
            seen.push(entry.path_bytes().len());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [1, 300]);
    }
}
