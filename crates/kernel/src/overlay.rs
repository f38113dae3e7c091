//! overlayfs as a detached mount: a file descriptor, and nothing in any mount namespace.
//!
//! Layers are given by descriptor where the kernel takes them (`lowerdir+` as a file descriptor since 6.13, as a path
//! since 6.5). An older kernel gets mount(2) with `/proc/self/fd/N` as paths, so that over two hundred layers fit its
//! one page of options; that happens on a thread with a mount namespace of its own, which is thrown away, and
//! `open_tree` takes the mount out of it.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, open_tree,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// What never changes. Moving a directory of a lower layer copies it, as with Docker: an upper directory can become a
/// layer of its own, which no other layer's paths are written into, and none that are written into one are followed.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// Where changes of a mount go.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// The directory that has them.
    pub upper: &'a Path,
    /// overlayfs's own, empty, on the same file system as `upper`.
    pub work: &'a Path,
    /// Never sync to disk.
    pub volatile: bool,
}

/// Mounts `lower`, the uppermost first, under `changes` (none: read-only, and then `lower` has two layers at least),
/// and returns the mount's root. It goes when the descriptor and all that was opened through it are closed.
pub fn mount_detached(lower: &[PathBuf], changes: Option<Changes<'_>>) -> io::Result<OwnedFd> {
    match by_configuration(lower, changes) {
        // a kernel that does not know `lowerdir+`, or no descriptors there, or (before 6.5) anywhere in a configuration
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
            by_paths(lower, changes)
        }
        other => other,
    }
}

fn by_configuration(lower: &[PathBuf], changes: Option<Changes<'_>>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "isle")?;
    for layer in lower {
        let directory = open(layer)?;
        fsconfig_set_fd(&context, "lowerdir+", &directory)?;
    }
    if let Some(changes) = changes {
        fsconfig_set_fd(&context, "upperdir", open(changes.upper)?)?;
        fsconfig_set_fd(&context, "workdir", open(changes.work)?)?;
        if changes.volatile {
            fsconfig_set_flag(&context, "volatile")?;
        }
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let read_only = if changes.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, read_only)?)
}

fn by_paths(lower: &[PathBuf], changes: Option<Changes<'_>>) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| -> io::Result<OwnedFd> {
            // SAFETY: the flags give this thread, which ends below and runs nothing else, a mount namespace and a
            // working directory of its own; the table of descriptors stays shared, so none is lost or doubled.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)? };
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
            // opened here: overlayfs takes layers from the caller's own mount namespace only
            let layers = lower.iter().map(|l| open(l)).collect::<io::Result<Vec<_>>>()?;
            let by_descriptor = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
            let mut options = format!("lowerdir={}", layers.iter().map(by_descriptor).collect::<Vec<_>>().join(":"));
            let changed = changes.map(|c| Ok::<_, io::Error>((open(c.upper)?, open(c.work)?))).transpose()?;
            if let Some((upper, work)) = &changed {
                options.push_str(&format!(",upperdir={},workdir={}", by_descriptor(upper), by_descriptor(work)));
                if changes.is_some_and(|c| c.volatile) {
                    options.push_str(",volatile");
                }
            }
            for (key, value) in OPTIONS {
                options.push_str(&format!(",{key}={value}"));
            }
            let options = std::ffi::CString::new(options).map_err(|_| io::Error::from(Errno::INVAL))?;
            let flags = if changes.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
            // any directory serves as the place: this namespace is seen by nobody
            mount("isle", "/proc/fs", "overlay", flags, options.as_c_str())?;
            Ok(open_tree(CWD, "/proc/fs", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
        });
        mounting.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Dir;
    use std::fs;

    struct World {
        root: PathBuf,
    }
    impl World {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("isle-overlay-{name}-{}", std::process::id()));
            for directory in ["a", "b", "upper", "work"] {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
            fs::write(root.join("a/over"), "a").unwrap();
            fs::write(root.join("b/over"), "b").unwrap();
            fs::write(root.join("b/under"), "b").unwrap();
            Self { root }
        }
        fn check(&self, mount: impl Fn(&[PathBuf], Option<Changes<'_>>) -> io::Result<OwnedFd>) {
            let lower = [self.root.join("a"), self.root.join("b")];
            let (upper, work) = (self.root.join("upper"), self.root.join("work"));
            let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let changes = Changes { upper: &upper, work: &work, volatile: false };
            let mounted = Dir::of_mount(&mount(&lower, Some(changes)).unwrap()).unwrap();
            assert_eq!(before, fs::read_to_string("/proc/self/mountinfo").unwrap(), "nothing shows in our namespace");
            assert_eq!(mounted.names().unwrap(), ["over", "under"]);
            mounted.remove("under".as_ref()).unwrap();
            mounted.make_file("new".as_ref(), 0o644).unwrap();
            drop(mounted);
            assert!(Dir::open(&upper).unwrap().facts("under".as_ref()).unwrap().unwrap().is_whiteout());
            let read_only = Dir::of_mount(&mount(&lower, None).unwrap()).unwrap();
            let refused = read_only.make_file("x".as_ref(), 0o644).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            drop(read_only);
        }
    }
    impl Drop for World {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    fn can_mount() -> bool {
        let can = rustix::process::geteuid().is_root();
        if !can {
            println!("SKIP: mounting overlayfs needs root");
        }
        can
    }

    #[test]
    fn a_detached_mount_shows_all_layers_and_takes_changes() {
        if can_mount() {
            World::new("new").check(mount_detached);
        }
    }

    #[test]
    fn older_kernels_get_the_same_mount_by_paths() {
        if can_mount() {
            World::new("old").check(by_paths);
        }
    }
}
