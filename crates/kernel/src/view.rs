//! A tree of mounts that nobody sees: a detached root with others over it, as a container would have them.
//!
//! It is put together on a thread with a mount namespace of its own, which is thrown away; `open_tree` takes the whole
//! tree out of it.

use crate::tree::Dir;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount, move_mount,
    open_tree,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// What lies over a root.
#[derive(Clone, Debug)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the root; it is there.
    pub target: PathBuf,
    /// Nobody changes it through the view.
    pub read_only: bool,
}

/// Puts `binds` over a detached mount, in this order, and opens the whole.
///
/// # Errors
/// A source is missing, or the kernel refuses.
pub fn over(root: OwnedFd, binds: &[Bind], read_only: bool) -> io::Result<Dir> {
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| -> io::Result<Dir> {
            // SAFETY: the flags give this thread, which ends below and runs nothing else, a mount namespace and a
            // working directory of its own; the table of descriptors stays shared, so none is lost or doubled.
            #[allow(unsafe_code)]
            unsafe {
                unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)?
            };
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
            // any directory serves as the place: this namespace is seen by nobody
            attach(&root, open(Path::new("/proc/fs"))?)?;
            let whole = open(Path::new("/proc/fs"))?;
            for bind in binds {
                let flags =
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
                let tree = open_tree(CWD, &bind.source, flags)?;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let target =
                    rustix::fs::openat2(&whole, &bind.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
                attach(&tree, target)?;
                if bind.read_only {
                    make_read_only(&tree)?;
                }
            }
            if read_only {
                make_read_only(&whole)?;
            }
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            // The tree is let go of when its first descriptor is closed: it goes with the directory.
            Dir::of_tree(open_tree(CWD, "/proc/fs", flags)?)
        });
        mounting.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

fn attach(tree: impl AsFd, target: OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    Ok(mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "")?)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
