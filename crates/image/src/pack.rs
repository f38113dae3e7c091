//! A directory of changes becomes a layer's tar: overlayfs's marks become `.wh.` files, and names come sorted, so that
//! the same directory gives the same bytes.

use crate::error::{Attempt, Error};
use crate::unpack::is_for_containers;
use kernel::tree::{Dir, Facts, Kind};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Writes all of `changes` (an upper directory) as a layer, with the end of the archive.
pub(crate) fn pack(changes: &Dir, to: impl Write) -> Result<u64, Error> {
    let mut packing = Packing { tar: tar::Builder::new(to), links: HashMap::new(), size: 0 };
    let root = changes.own_facts().attempt(|| "cannot read a layer's root".to_owned())?;
    if (root.mode, root.uid, root.gid) != (0o755, 0, 0) {
        packing.append(Path::new("./"), &root, EntryType::Directory, None, &mut std::io::empty())?;
    }
    packing.directory(changes, Path::new(""))?;
    packing.tar.finish().attempt(|| "cannot write a layer".to_owned())?;
    Ok(packing.size)
}

struct Packing<W: Write> {
    tar: tar::Builder<W>,
    /// Files with several names, by what they are: the first name they were met under.
    links: HashMap<(u64, u64), PathBuf>,
    size: u64,
}

impl<W: Write> Packing<W> {
    fn directory(&mut self, dir: &Dir, path: &Path) -> Result<(), Error> {
        let names = dir.names().attempt(|| format!("cannot list {}", path.display()))?;
        for name in names {
            let inner = path.join(&name);
            let shown = || format!("cannot pack {}", inner.display());
            let Some(facts) = dir.facts(&name).attempt(shown)? else { continue };
            if facts.is_whiteout() {
                self.mark(path, &[b".wh.", name.as_bytes()].concat(), &facts)?;
                continue;
            }
            if facts.kind == Kind::Socket {
                continue; // as Docker: archives have none
            }
            self.attributes(dir, &name).attempt(shown)?;
            let none = &mut std::io::empty();
            match facts.kind {
                Kind::Directory => {
                    let slashed = PathBuf::from([inner.as_os_str().as_bytes(), b"/"].concat().into_os_string());
                    self.append(&slashed, &facts, EntryType::Directory, None, none)?;
                    if dir.is_opaque(&name).attempt(shown)? {
                        self.mark(&inner, b".wh..wh..opq", &facts)?;
                    }
                    self.directory(&dir.child(&name).attempt(shown)?, &inner)?;
                }
                Kind::File => {
                    if facts.links > 1 {
                        if let Some(first) = self.links.get(&facts.identity).cloned() {
                            self.append(&inner, &facts, EntryType::Link, Some(&first), none)?;
                            continue;
                        }
                        self.links.insert(facts.identity, inner.clone());
                    }
                    let mut file = dir.read(&name).attempt(shown)?;
                    self.size += facts.size;
                    self.append(&inner, &facts, EntryType::Regular, None, &mut file)?;
                }
                Kind::Symlink => {
                    let target = dir.target(&name).attempt(shown)?;
                    self.append(&inner, &facts, EntryType::Symlink, Some(&target), none)?;
                }
                Kind::CharDevice => self.append(&inner, &facts, EntryType::Char, None, none)?,
                Kind::BlockDevice => self.append(&inner, &facts, EntryType::Block, None, none)?,
                Kind::Fifo => self.append(&inner, &facts, EntryType::Fifo, None, none)?,
                Kind::Socket => {}
            }
        }
        Ok(())
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

trait IntoOsString {
    fn into_os_string(self) -> OsString;
}
impl IntoOsString for Vec<u8> {
    fn into_os_string(self) -> OsString {
        OsString::from_vec(self)
    }
}
