//! Mounts in the daemon's own namespace: what volumes with options are while they are used.

use crate::tree::Dir;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind_recursive, mount_remount, move_mount,
    open_tree, unmount,
};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// mount(8)'s words that are flags of the kernel's.
const FLAGS: [(&str, MountFlags); 8] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
];

/// Words that say what is so anyway.
const USUAL: [&str; 8] = ["defaults", "rw", "suid", "dev", "exec", "async", "atime", "diratime"];

/// Mounts as mount(8) would: `kind` is a file system's, or `none` and `bind` with the option `bind` or `rbind`.
///
/// # Errors
/// The kernel's.
pub fn by_options(device: &str, target: &Path, kind: &str, options: &str) -> io::Result<()> {
    let words = || options.split(',').map(str::trim).filter(|w| !w.is_empty());
    let mut flags = MountFlags::empty();
    let (mut data, mut bind) = (Vec::new(), kind == "bind");
    for word in words() {
        match word {
            "bind" | "rbind" => bind = true,
            _ if USUAL.contains(&word) => {}
            _ => match FLAGS.iter().find(|(name, _)| *name == word) {
                Some((_, flag)) => flags |= *flag,
                None => data.push(word),
            },
        }
    }
    if bind {
        mount_bind_recursive(device, target)?;
        if !flags.is_empty() {
            mount_remount(target, flags | MountFlags::BIND, "")?;
        }
        return Ok(());
    }
    let data = CString::new(data.join(",")).map_err(|_| io::Error::from(Errno::INVAL))?;
    Ok(mount(device, target, kind, flags, data.as_c_str())?)
}

/// Binds an open directory to a path, whatever becomes of the way to it.
///
/// # Errors
/// The kernel's.
pub fn bind_open(directory: &Dir, target: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(directory.as_fd(), "", flags)?;
    Ok(move_mount(&tree, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Takes away all that is mounted at a path; whoever uses it still may. Nothing there is success.
///
/// # Errors
/// The kernel's.
pub fn unmount_all(target: &Path) -> io::Result<()> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The mount that a path lies on, and how what is mounted there spreads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surrounding {
    /// Where it is mounted.
    pub at: PathBuf,
    /// What is mounted inside goes to others.
    pub shared: bool,
    /// What others mount comes here.
    pub slave: bool,
}

/// The mount that a path lies on; `None` where there is no such path.
pub fn surrounding(path: &Path) -> Option<Surrounding> {
    let path = path.canonicalize().ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    innermost(&table, &path)
}

/// The last of the longest: what was mounted later lies over what was before.
fn innermost(table: &str, path: &Path) -> Option<Surrounding> {
    let mounts = table.lines().filter_map(|line| {
        let (mount, _) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let at = fields.next()?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        let has = |kind: &str| fields.clone().any(|field| field.starts_with(kind));
        Some(Surrounding { at: at.into(), shared: has("shared:"), slave: has("master:") })
    });
    mounts.filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.as_os_str().len())
}

/// Whether something is mounted at a path.
pub fn is_mounted(target: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let escaped = target.display().to_string().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    table.lines().any(|line| line.split(' ').nth(4) == Some(escaped.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_innermost_mount() {
        let table = "\
            21 1 8:1 / / rw,relatime - ext4 /dev/sda rw\n\
            22 21 0:5 / /a\\040b rw shared:7 - tmpfs t rw\n\
            23 21 0:6 / /ab rw master:3 - tmpfs t rw\n\
            24 22 0:7 / /a\\040b rw shared:8 master:7 - tmpfs t rw\n";
        let check = |path: &str, at: &str, shared, slave| {
            assert_eq!(innermost(table, Path::new(path)), Some(Surrounding { at: at.into(), shared, slave }), "{path}");
        };
        check("/abc", "/", false, false);
        check("/ab/c", "/ab", false, true);
        check("/a b/c", "/a b", true, true);
    }
}
