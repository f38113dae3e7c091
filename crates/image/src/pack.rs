//! A directory of changes becomes a layer's tar: overlayfs's marks become `.wh.` files, and names come sorted, so that
//! the same directory gives the same bytes.

use crate::error::{Attempt, Error};
use crate::unpack::is_for_containers;
use kernel::tree::{Dir, Facts, Kind};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tar::EntryType;

/// Writes all of `changes` (an upper directory) as a layer, with the end of the archive.
pub(crate) fn pack(changes: &Dir, to: impl Write) -> Result<u64, Error> {
    packed(to, true, |packing| {
        let root = changes.own_facts().attempt(|| "cannot read a layer's root".to_owned())?;
        if (root.mode, root.uid, root.gid) != (0o755, 0, 0) {
            packing.append(Path::new("./"), &root, EntryType::Directory, None, &mut std::io::empty())?;
        }
        packing.directory(changes, Path::new(""))
    })
}

/// Whether what was read is all that there was: asked before the end of the archive is written.
pub(crate) type Whole<'a> = &'a dyn Fn() -> bool;

/// Writes one name of a directory as files, with all that is below it, under the path `shown`.
pub(crate) fn pack_name(
    parent: &Dir,
    name: &OsStr,
    shown: &Path,
    whole: Whole<'_>,
    to: impl Write,
) -> Result<(), Error> {
    packed(to, false, |packing| {
        packing.name(parent, name, shown)?;
        check(whole)
    })
    .map(drop)
}

/// Writes a directory as files. `shown` is its path in the archive; none: only what is in it is.
pub(crate) fn pack_directory(dir: &Dir, shown: Option<&Path>, whole: Whole<'_>, to: impl Write) -> Result<(), Error> {
    packed(to, false, |packing| {
        if let Some(shown) = shown {
            let facts = dir.own_facts().attempt(|| "cannot read a directory".to_owned())?;
            let slashed = PathBuf::from([shown.as_os_str().as_bytes(), b"/"].concat().into_os_string());
            packing.append(&slashed, &facts, EntryType::Directory, None, &mut std::io::empty())?;
        }
        packing.directory(dir, shown.unwrap_or(Path::new("")))?;
        check(whole)
    })
    .map(drop)
}

fn check(whole: Whole<'_>) -> Result<(), Error> {
    if whole() { Ok(()) } else { Err(Error::WentAway) }
}

/// Packs, and ends the archive if all of it went well: one that is cut short must not look whole. Returns the bytes of
/// its regular files.
fn packed<W: Write>(
    to: W,
    marks: bool,
    pack: impl FnOnce(&mut Packing<Gate<W>>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let shut = Rc::new(Cell::new(false));
    let tar = tar::Builder::new(Gate { to, shut: shut.clone() });
    let mut packing = Packing { tar, links: HashMap::new(), size: 0, marks };
    let done = pack(&mut packing);
    // A builder that is dropped writes an end, too.
    shut.set(done.is_err());
    done?;
    packing.tar.finish().attempt(|| "cannot write an archive".to_owned())?;
    Ok(packing.size)
}

/// Lets everything through until it is shut.
struct Gate<W> {
    to: W,
    shut: Rc<Cell<bool>>,
}

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.shut.get() { Err(std::io::ErrorKind::BrokenPipe.into()) } else { self.to.write(bytes) }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

struct Packing<W: Write> {
    /// overlayfs's marks are a layer's; in files there are none.
    marks: bool,
    tar: tar::Builder<W>,
    /// Files with several names, by what they are: the first name they were met under.
    links: HashMap<(u64, u64), PathBuf>,
    size: u64,
}

impl<W: Write> Packing<W> {
    fn directory(&mut self, dir: &Dir, path: &Path) -> Result<(), Error> {
        let names = dir.names().attempt(|| format!("cannot list {}", path.display()))?;
        for name in names {
            self.name(dir, &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn name(&mut self, dir: &Dir, name: &OsStr, inner: &Path) -> Result<(), Error> {
        let shown = || format!("cannot pack {}", inner.display());
        let Some(facts) = dir.facts(name).attempt(shown)? else { return Ok(()) };
        if self.marks && facts.is_whiteout() {
            let parent = inner.parent().unwrap_or(Path::new(""));
            return self.mark(parent, &[b".wh.", name.as_bytes()].concat(), &facts);
        }
        if facts.kind == Kind::Socket {
            return Ok(()); // as Docker: archives have none
        }
        self.attributes(dir, name).attempt(shown)?;
        let none = &mut std::io::empty();
        match facts.kind {
            Kind::Directory => {
                let slashed = PathBuf::from([inner.as_os_str().as_bytes(), b"/"].concat().into_os_string());
                self.append(&slashed, &facts, EntryType::Directory, None, none)?;
                if self.marks && dir.is_opaque(name).attempt(shown)? {
                    self.mark(inner, b".wh..wh..opq", &facts)?;
                }
                self.directory(&dir.child(name).attempt(shown)?, inner)
            }
            Kind::File => {
                if facts.links > 1 {
                    if let Some(first) = self.links.get(&facts.identity).cloned() {
                        return self.append(inner, &facts, EntryType::Link, Some(&first), none);
                    }
                    self.links.insert(facts.identity, inner.to_owned());
                }
                let mut file = dir.read(name).attempt(shown)?;
                self.size += facts.size;
                self.append(inner, &facts, EntryType::Regular, None, &mut file)
            }
            Kind::Symlink => {
                let target = dir.target(name).attempt(shown)?;
                self.append(inner, &facts, EntryType::Symlink, Some(&target), none)
            }
            Kind::CharDevice => self.append(inner, &facts, EntryType::Char, None, none),
            Kind::BlockDevice => self.append(inner, &facts, EntryType::Block, None, none),
            Kind::Fifo => self.append(inner, &facts, EntryType::Fifo, None, none),
            Kind::Socket => Ok(()),
        }
    }

    /// A `.wh.` file.
    fn mark(&mut self, path: &Path, name: &[u8], facts: &Facts) -> Result<(), Error> {
        let facts = Facts { kind: Kind::File, mode: 0o600, uid: 0, gid: 0, size: 0, ..facts.clone() };
        let path = path.join(OsStr::from_bytes(name));
        self.append(&path, &facts, EntryType::Regular, None, &mut std::io::empty())
    }

    fn attributes(&mut self, dir: &Dir, name: &OsStr) -> std::io::Result<()> {
        let attributes = dir.attributes(name)?;
        let records: Vec<_> = attributes
            .iter()
            .filter(|(key, _)| is_for_containers(key.as_bytes()))
            .filter_map(|(key, value)| Some((format!("SCHILY.xattr.{}", key.to_str()?), value.as_slice())))
            .collect();
        match records.is_empty() {
            true => Ok(()),
            false => self.tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value))),
        }
    }

    fn append(
        &mut self,
        path: &Path,
        facts: &Facts,
        kind: EntryType,
        target: Option<&Path>,
        data: &mut dyn std::io::Read,
    ) -> Result<(), Error> {
        let shown = || format!("cannot pack {}", path.display());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(facts.mode);
        header.set_uid(facts.uid.into());
        header.set_gid(facts.gid.into());
        // whole seconds, as Docker's layers have them
        header.set_mtime(u64::try_from(facts.mtime.0).unwrap_or(0));
        let size = if kind == EntryType::Regular { facts.size } else { 0 };
        header.set_size(size);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(facts.device.0).attempt(shown)?;
            header.set_device_minor(facts.device.1).attempt(shown)?;
        }
        if path.starts_with(".") && path != Path::new("./") {
            return self.append_dotted(header, path, target, data).attempt(shown);
        }
        match target {
            Some(target) => self.tar.append_link(&mut header, path, target).attempt(shown),
            None => {
                // a file that grows or shrinks under our eyes must not spoil the archive
                let mut exact = std::io::Read::chain(data, std::io::repeat(0));
                let exact = std::io::Read::take(&mut exact, size);
                self.tar.append_data(&mut header, path, exact).attempt(shown)
            }
        }
    }
}

impl<W: Write> Packing<W> {
    /// The same for a name that begins with `./`, which the tar crate takes away: docker renames by it.
    fn append_dotted(
        &mut self,
        mut header: tar::Header,
        path: &Path,
        target: Option<&Path>,
        data: &mut dyn std::io::Read,
    ) -> std::io::Result<()> {
        let old = header.as_old_mut();
        let link = target.map_or(&[][..], |t| t.as_os_str().as_bytes());
        let names = [(path.as_os_str().as_bytes(), &mut old.name, b'L'), (link, &mut old.linkname, b'K')];
        for (text, field, kind) in names {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text[..length]);
            if text.len() > field.len() {
                // GNU's way of longer ones: an entry before.
                let mut long = tar::Header::new_gnu();
                long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                long.set_mode(0o644);
                long.set_uid(0);
                long.set_gid(0);
                long.set_mtime(0);
                long.set_size(text.len() as u64 + 1);
                long.set_entry_type(EntryType::new(kind));
                long.set_cksum();
                self.tar.append(&long, std::io::Read::chain(text, &[0][..]))?;
            }
        }
        header.set_cksum();
        let size = header.size()?;
        let exact = std::io::Read::chain(data, std::io::repeat(0));
        self.tar.append(&header, std::io::Read::take(exact, size))
    }
}

trait IntoOsString {
    fn into_os_string(self) -> OsString;
}
impl IntoOsString for Vec<u8> {
    fn into_os_string(self) -> OsString {
        OsString::from_vec(self)
    }
}
