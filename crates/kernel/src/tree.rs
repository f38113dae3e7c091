//! A directory as a root that no path leaves: what unpacks archives, copies trees and reads images works on a [`Dir`].
//!
//! Paths are resolved by `openat2(RESOLVE_IN_ROOT)`: `..` and absolute symlinks stay inside, magic links are refused.
//! Everything that changes something takes a directory and a *single* name in it and never follows a symlink there.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An open directory: a root for paths, a parent for names.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// How often [`Dir::child`] led here.
    depth: usize,
    /// Mounts that go when this is dropped.
    _tree: Option<OwnedFd>,
}

/// Whoever walks a tree by [`Dir::child`] holds a descriptor and some stack for each level: a stranger's tree must not
/// be able to use up either.
const MAX_DEPTH: usize = 400;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular one.
    File,
    /// With names in it.
    Directory,
    /// A path to something else.
    Symlink,
    /// A pipe with a name.
    Fifo,
    /// The name of a unix socket.
    Socket,
    /// A device read byte by byte.
    CharDevice,
    /// A device read block by block.
    BlockDevice,
}

/// The facts of a name, of itself and not of what it may point to.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// The permission bits, with set-id and sticky ones.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Which device the file lies on, and its number there: equal for hard links.
    pub identity: (u64, u64),
    /// How many names it has.
    pub links: u64,
    /// Which device the file *is*.
    pub device: (u32, u32),
}

impl Facts {
    /// overlayfs's mark for a name that lower layers have and this one has not.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice && self.device == (0, 0)
    }
}

impl Dir {
    /// Opens a directory by its path, as the process sees it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: fs::open(path, flags, Mode::empty())?, depth: 0, _tree: None })
    }

    /// The root of a detached mount, whose own descriptor is a mere path.
    pub fn of_mount(mount: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: fs::openat(mount, ".", flags, Mode::empty())?, depth: 0, _tree: None })
    }

    /// The root of a detached tree of several mounts, which stays together as long as this lives.
    pub fn of_tree(tree: OwnedFd) -> io::Result<Self> {
        Ok(Self { _tree: Some(tree.try_clone()?), ..Self::of_mount(&tree)? })
    }

    /// A second handle on the same directory.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { depth: self.depth, ..self.inside(Path::new("."))? })
    }

    /// The directory at `path`, this one being the root: symlinks are followed, none leads out.
    pub fn inside(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: self.resolve(path, flags)?, depth: 0, _tree: None })
    }

    /// The directory `name` in this one, not through a symlink. Four hundred levels deep it ends.
    pub fn child(&self, name: &OsStr) -> io::Result<Self> {
        if self.depth >= MAX_DEPTH {
            return Err(io::Error::other(format!("directories are nested more than {MAX_DEPTH} deep")));
        }
        Ok(Self { depth: self.depth + 1, ..self.child_at_any_depth(name)? })
    }

    fn child_at_any_depth(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self { fd: self.resolve(Path::new(name), flags)?, depth: 0, _tree: None })
    }

    /// The regular file at `path`, for reading; symlinks are followed, none leads out. Never waits for a FIFO's writer.
    pub fn read_inside(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC)?;
        if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(self.resolve(path, flags)?))
    }

    /// What `path` leads to at its end, symlinks followed inside this root.
    pub fn facts_inside(&self, path: &Path) -> io::Result<Facts> {
        let fd = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC)?;
        Ok(facts(&fs::fstat(&fd)?))
    }

    /// The regular file `name` in this directory, for reading.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        Ok(File::from(self.resolve(Path::new(name), flags)?))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // openat2 says EAGAIN when something was renamed on the way and it cannot be sure
        for _ in 0..128 {
            match fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                other => return Ok(other?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    /// The names in this directory, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The facts of this directory itself.
    pub fn own_facts(&self) -> io::Result<Facts> {
        Ok(facts(&fs::fstat(&self.fd)?))
    }

    /// The bytes that may still be written below it.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let facts = fs::fstatvfs(&self.fd)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    /// The facts of a name in it, or None if there is no such name.
    pub fn facts(&self, name: &OsStr) -> io::Result<Option<Facts>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(facts(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the symlink `name` points to.
    pub fn target(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(PathBuf::from(OsString::from_vec(fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())))
    }

    /// A new directory; there must be nothing of that name.
    pub fn make_directory(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        Ok(fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))?)
    }

    /// A new regular file; there must be none of that name.
    pub fn make_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// A new symlink; there must be nothing of that name.
    pub fn make_symlink(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.fd, name)?)
    }

    /// Makes `name` a hard link to `other_name` in `other`.
    pub fn make_link(&self, name: &OsStr, other: &Dir, other_name: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(&other.fd, other_name, &self.fd, name, AtFlags::empty())?)
    }

    /// A FIFO, a socket or a device; `device` matters for devices only.
    pub fn make_node(&self, name: &OsStr, kind: Kind, mode: u32, device: (u32, u32)) -> io::Result<()> {
        let kind = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::File | Kind::Directory | Kind::Symlink => return Err(rustix::io::Errno::INVAL.into()),
        };
        let device = fs::makedev(device.0, device.1);
        Ok(fs::mknodat(&self.fd, name, kind, Mode::from_raw_mode(mode), device)?)
    }

    /// Makes `name` a whiteout: it hides what lower layers have there.
    pub fn make_whiteout(&self, name: &OsStr) -> io::Result<()> {
        self.make_node(name, Kind::CharDevice, 0, (0, 0))
    }

    /// Removes whatever `name` is, with all that is below. Nothing there is success.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        // An explicit stack, so that a deep tree costs no stack of the thread; one descriptor a level.
        let mut stack = vec![(self.child_at_any_depth(name)?, name.to_owned())];
        'descend: while let Some((dir, _)) = stack.last() {
            for child in dir.names()? {
                match fs::unlinkat(&dir.fd, &child, AtFlags::empty()) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                    Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {
                        let next = dir.child_at_any_depth(&child)?;
                        stack.push((next, child));
                        continue 'descend;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let (_, name) = stack.pop().expect("the loop's condition saw it");
            let parent = stack.last().map_or(self, |(dir, _)| dir);
            fs::unlinkat(&parent.fd, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Sets the owner of a name. The kernel clears set-id bits and capabilities: set those afterwards.
    pub fn set_owner(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the mode of a name that is no symlink; one that is one keeps its own, as Linux has it.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        if self.facts(name)?.is_some_and(|f| f.kind == Kind::Symlink) {
            return Ok(());
        }
        Ok(fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Sets both times of a name to `mtime`.
    pub fn set_mtime(&self, name: &OsStr, mtime: (i64, u32)) -> io::Result<()> {
        Ok(fs::utimensat(&self.fd, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets owner, mode and times of this directory itself.
    pub fn set_own(&self, owner: (u32, u32), mode: u32, mtime: (i64, u32)) -> io::Result<()> {
        fs::fchown(&self.fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?;
        Ok(fs::futimens(&self.fd, &timestamps(mtime))?)
    }

    /// The extended attributes of a name.
    pub fn attributes(&self, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let path = self.proc_path(name);
        let mut list = vec![0; 1024];
        let length = loop {
            match fs::llistxattr(&path, &mut list[..]) {
                Ok(length) => break length,
                Err(rustix::io::Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 4, 0),
                Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            }
        };
        let mut attributes = Vec::new();
        for key in list[..length].split(|&b| b == 0).filter(|k| !k.is_empty()) {
            let key = OsStr::from_bytes(key);
            let mut value = vec![0; 1 << 16];
            match fs::lgetxattr(&path, key, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    attributes.push((key.to_owned(), value));
                }
                Err(rustix::io::Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        attributes.sort();
        Ok(attributes)
    }

    /// One extended attribute of a name.
    pub fn attribute(&self, name: &OsStr, key: &str) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; 1 << 16];
        match fs::lgetxattr(self.proc_path(name), key, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets an extended attribute, of a symlink itself.
    pub fn set_attribute(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<()> {
        Ok(fs::lsetxattr(self.proc_path(name), key, value, XattrFlags::empty())?)
    }

    /// Sets an attribute unless this file system, or this sort of file, has none like it. Returns whether it did.
    pub fn set_attribute_if_possible(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<bool> {
        match fs::lsetxattr(self.proc_path(name), key, value, XattrFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks the directory `name` as opaque for overlayfs: nothing of lower layers shows through.
    pub fn set_opaque(&self, name: &OsStr) -> io::Result<()> {
        self.set_attribute(name, OsStr::new("trusted.overlay.opaque"), b"y")
    }

    /// Whether the directory `name` is marked so.
    pub fn is_opaque(&self, name: &OsStr) -> io::Result<bool> {
        Ok(self.attribute(name, "trusted.overlay.opaque")?.as_deref() == Some(b"y"))
    }

    /// Attributes have no `*at` calls that every kernel knows; through /proc the directory is this one, wherever it is.
    fn proc_path(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(name)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes everything of the file system that `path` lies on to the disk.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(fs::syncfs(&Dir::open(path)?)?)
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

#[allow(clippy::useless_conversion)] // the count of links has another width on other machines
fn facts(stat: &fs::Stat) -> Facts {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    };
    Facts {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        identity: (stat.st_dev, stat.st_ino),
        links: stat.st_nlink.into(),
        device: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
    }
}
