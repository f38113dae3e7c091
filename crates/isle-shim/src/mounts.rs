//! The container's file system: layers, mounts, devices, masks. Everything is resolved inside the root with openat2
//! and addressed by descriptor, so an image's symlinks lead nowhere else, and nothing is ever mounted by a path that
//! the container's owner could have changed in between.

use crate::fail::{At, failure};
use crate::sys;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, fstatfs, makedev, mkdirat,
    mknodat, openat, openat2, readlinkat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree,
};
use shim_protocol::launch::{Device, Failure, Mount, Root, Step, What};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const PROC_MAGIC: u64 = 0x9fa0;
const DEVPTS_MAGIC: u64 = 0x1cd1;
const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;

fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The layers, mounted nowhere yet. Nothing of it stays if the descriptor is closed.
pub fn overlay(root: &Root) -> Result<Option<OwnedFd>, Failure> {
    let step = Step::Root;
    let open = |path: &Path| directory(path).at(step, path.display().to_string());
    let layers = root.lower.iter().map(|layer| open(layer)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(&root.upper)?, open(&root.work)?);
    if root.volatile {
        // The mark of an unsynced mount before: the data is ours to trust, since nothing but us uses it.
        let _ = rustix::fs::unlinkat(&work, "work/incompat/volatile/dirty", AtFlags::empty());
        for mark in ["work/incompat/volatile", "work/incompat"] {
            let _ = rustix::fs::unlinkat(&work, mark, AtFlags::REMOVEDIR);
        }
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(step, "of type overlay")?;
    let by_descriptor = || {
        for layer in &layers {
            fsconfig_set_fd(&fs, "lowerdir+", layer)?;
        }
        fsconfig_set_fd(&fs, "upperdir", &upper)?;
        fsconfig_set_fd(&fs, "workdir", &work)
    };
    match by_descriptor() {
        Ok(()) => {}
        // Before 6.13, and before 6.5 in these words: the old way, in the mount namespace where it is attached.
        Err(Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP) => return Ok(None),
        Err(errno) => return Err(failure(step, errno, "of its layers")),
    }
    if root.volatile {
        fsconfig_set_flag(&fs, "volatile").at(step, "as volatile")?;
    }
    fsconfig_set_string(&fs, "source", "overlay").at(step, "of its layers")?;
    fsconfig_create(&fs).at(step, "of its layers")?;
    let fd = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).at(step, "of its layers")?;
    Ok(Some(fd))
}

/// Put the root file system into this process's own mount namespace, and open it.
pub fn attach_root(root: &Root, overlay: Option<OwnedFd>) -> Result<OwnedFd, Failure> {
    let step = Step::AttachRoot;
    let about = || root.attach_at.display().to_string();
    // Nothing may travel from here to a peer of the mount that it is attached to.
    for place in root.attach_at.ancestors() {
        if mount_change(place, MountPropagationFlags::PRIVATE).is_ok() {
            break;
        }
    }
    match overlay {
        Some(fd) => {
            move_mount(&fd, "", CWD, &root.attach_at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(step, about())?;
            Ok(fd)
        }
        None => {
            mount_by_path(root)?;
            openat(CWD, &root.attach_at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .at(step, about())
        }
    }
}

/// mount(2) takes one page of text: the layers are named by their descriptors.
fn mount_by_path(root: &Root) -> Result<(), Failure> {
    let step = Step::AttachRoot;
    let open = |path: &Path| directory(path).at(step, path.display().to_string());
    let layers = root.lower.iter().map(|layer| open(layer)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(&root.upper)?, open(&root.work)?);
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.iter().map(name).collect::<Vec<_>>().join(":"),
        name(&upper),
        name(&work)
    );
    if root.volatile {
        options.push_str(",volatile");
    }
    if options.len() >= 4096 {
        return Err(failure(step, Errno::TOOBIG, format!("of {} layers on this kernel", layers.len())));
    }
    let options = std::ffi::CString::new(options).map_err(|_| failure(step, Errno::INVAL, "of its layers"))?;
    mount("overlay", &root.attach_at, "overlay", MountFlags::empty(), &*options).at(step, "of its layers")
}

/// Another container's `/dev/shm`, mounted nowhere yet: from inside its mount namespace, for a moment.
pub fn borrow_shm(other: &OwnedFd) -> Result<OwnedFd, Failure> {
    let step = Step::Mounts;
    let about = "/dev/shm of the container whose ipc namespace is joined";
    let home = openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(step, about)?;
    sys::setns(other, libc::CLONE_NEWNS).at(step, about)?;
    let tree = open_tree(CWD, "/dev/shm", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    sys::setns(&home, libc::CLONE_NEWNS).at(step, about)?;
    tree.at(step, about)
}

/// What a target has to be where it does not exist yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Directory,
    File,
    Nothing,
}

fn inside(root: BorrowedFd<'_>, path: &str, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    loop {
        match openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more,
        ) {
            // A rename elsewhere in the tree made the kernel unsure about '..'.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Open a place inside the root, by every symlink's meaning inside the root; make what is missing.
pub fn place(root: BorrowedFd<'_>, path: &str, make: Make) -> Result<OwnedFd, Errno> {
    match inside(root, path, OFlags::PATH, ResolveFlags::empty()) {
        Err(Errno::NOENT) if make != Make::Nothing => {}
        other => return other,
    }
    let mut rest: Vec<String> = components(path);
    rest.reverse();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let parent = inside(root, &done.join("/"), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
        let here = if done.is_empty() { name.clone() } else { format!("{}/{name}", done.join("/")) };
        match inside(root, &here, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty()) {
            Ok(found) if FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Symlink => {
                links += 1;
                if links > 40 {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&found, "", Vec::new())?.into_string().map_err(|_| Errno::ILSEQ)?;
                if target.starts_with('/') {
                    done.clear();
                }
                rest.extend(components(&target).into_iter().rev());
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if rest.is_empty() && make == Make::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&parent, &*name, flags, Mode::from(0o755))?;
            }
            Err(Errno::NOENT) => match mkdirat(&parent, &*name, Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            },
            Err(errno) => return Err(errno),
        }
        done.push(name);
    }
    inside(root, &done.join("/"), OFlags::PATH, ResolveFlags::empty())
}

fn components(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// Attaches a mount that a specification asks for. The kernel has one answer to many mistakes: the commonest is named.
fn attach_asked(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let is_directory =
        |fd: BorrowedFd<'_>| fstat(fd).map(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
    if is_directory(mount.as_fd())? != is_directory(target.as_fd())? {
        return Err(Errno::NOTDIR);
    }
    attach(mount, target)
}

fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// What binds show, mounted nowhere yet: one for each mount that is a bind.
pub fn sources(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let open = |one: &Mount| match &one.what {
        What::Bind { source, recursive } => {
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let flags = if *recursive { clone | OpenTreeFlags::AT_RECURSIVE } else { clone };
            let tree = open_tree(CWD, source, flags);
            tree.map(Some).at(Step::Mounts, format!("{} at {}", source.display(), one.target))
        }
        _ => Ok(None),
    };
    mounts.iter().map(open).collect()
}

/// All of the specification's mounts, in their order.
pub fn mount_all(
    root: BorrowedFd<'_>,
    mounts: &[Mount],
    sources: Vec<Option<OwnedFd>>,
    joined_shm: Option<&OwnedFd>,
) -> Result<(), Failure> {
    for (one, source) in mounts.iter().zip(sources) {
        mount_one(root, one, source, joined_shm).map_err(|(errno, part)| {
            let about = if part.is_empty() { one.target.clone() } else { format!("{part} at {}", one.target) };
            failure(Step::Mounts, errno, about)
        })?;
    }
    Ok(())
}

fn mount_one(
    root: BorrowedFd<'_>,
    one: &Mount,
    source: Option<OwnedFd>,
    joined_shm: Option<&OwnedFd>,
) -> Result<(), (Errno, String)> {
    let plain = |errno| (errno, String::new());
    let fd = match &one.what {
        What::Bind { .. } => {
            let tree = source.ok_or(plain(Errno::NOENT))?;
            let kind = FileType::from_raw_mode(fstat(&tree).map_err(plain)?.st_mode);
            let make = if kind == FileType::Directory { Make::Directory } else { Make::File };
            let target = place(root, &one.target, make).map_err(plain)?;
            refuse_inside_proc(&target, &one.target).map_err(plain)?;
            if one.set != 0 || one.clear != 0 {
                sys::mount_setattr(&tree, one.recursively, one.set, one.clear, 0).map_err(plain)?;
            }
            // A clone of a shared mount is its peer; only who asks for it may send anything back.
            attach_asked(&tree, &target).map_err(plain)?;
            tree
        }
        What::New { kind, source, parameters } => {
            // A tmpfs over a directory of the image's has that one's mode.
            let there = inside(root, &one.target, OFlags::PATH, ResolveFlags::empty()).ok();
            // An image's symlink would have them somewhere else, and something of the image's in their place.
            if matches!(kind.as_str(), "proc" | "sysfs") && !is_ordinary(root, &one.target).map_err(plain)? {
                return Err((
                    Errno::NOTDIR,
                    format!("a file system of type {kind}, which needs an ordinary directory,"),
                ));
            }
            let target = place(root, &one.target, Make::Directory).map_err(plain)?;
            refuse_inside_proc(&target, &one.target).map_err(plain)?;
            let fs = new_file_system(kind, source, parameters, one, there.as_ref())
                .or_else(|errno| if kind == "sysfs" && errno == Errno::PERM { hosts_sysfs(one) } else { Err(errno) })
                .map_err(|errno| (errno, format!("a file system of type {kind}")))?;
            attach_asked(&fs, &target).map_err(plain)?;
            fs
        }
        What::JoinedShm => {
            let target = place(root, &one.target, Make::Directory).map_err(plain)?;
            let tree = rustix::io::fcntl_dupfd_cloexec(joined_shm.ok_or(plain(Errno::NOENT))?, 3).map_err(plain)?;
            attach(&tree, &target).map_err(plain)?;
            tree
        }
        What::Cgroup1 { hierarchies, links } => {
            let target = place(root, &one.target, Make::Directory).map_err(plain)?;
            let tmpfs =
                new_file_system("tmpfs", "tmpfs", &[("mode".into(), Some("755".into()))], one, None).map_err(plain)?;
            sys::mount_setattr(&tmpfs, false, 0, RDONLY, 0).map_err(plain)?;
            attach(&tmpfs, &target).map_err(plain)?;
            for (name, source) in hierarchies {
                let named = |errno| (errno, name.clone());
                let tree = open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                    .map_err(named)?;
                sys::mount_setattr(&tree, false, one.set, one.clear, 0).map_err(named)?;
                mkdirat(&tmpfs, &**name, Mode::from(0o755)).map_err(named)?;
                let here = inside(tmpfs.as_fd(), name, OFlags::PATH, ResolveFlags::empty()).map_err(named)?;
                attach(&tree, &here).map_err(named)?;
            }
            for (link, to) in links {
                symlinkat(&**to, &tmpfs, &**link).map_err(plain)?;
            }
            sys::mount_setattr(&tmpfs, false, one.set, one.clear, 0).map_err(plain)?;
            tmpfs
        }
    };
    if let Some(propagation) = one.propagation {
        let recursively = propagation & u64::from(libc::MS_REC as u32) != 0;
        let kind = propagation & !u64::from(libc::MS_REC as u32);
        sys::mount_setattr(&fd, recursively, 0, 0, kind).map_err(plain)?;
    }
    Ok(())
}

/// A directory that no symlink leads to, or nothing yet.
fn is_ordinary(root: BorrowedFd<'_>, path: &str) -> Result<bool, Errno> {
    match inside(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS) {
        Ok(_) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::LOOP | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn new_file_system(
    kind: &str,
    source: &str,
    parameters: &[(String, Option<String>)],
    one: &Mount,
    over: Option<&OwnedFd>,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", source)?;
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(&fs, &**key, &**value)?,
            None => fsconfig_set_flag(&fs, &**key)?,
        }
    }
    if let Some(over) = over
        && kind == "tmpfs"
        && !parameters.iter().any(|(key, _)| key == "mode")
    {
        let mode = fstat(over)?.st_mode & 0o7777;
        fsconfig_set_string(&fs, "mode", format!("{mode:o}"))?;
    }
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::from_bits_retain(one.set as u32);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A user namespace that does not own its network namespace may not mount sysfs: it sees the host's.
fn hosts_sysfs(one: &Mount) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, "/sys", flags)?;
    sys::mount_setattr(&tree, true, one.set & RDONLY, 0, 0)?;
    Ok(tree)
}

/// What a specification names inside /proc, the daemon has judged (`model::bounds::check_target`). A path that leads there
/// by the image's links is refused: whoever could mount over /proc/self/attr could make the launcher believe what is not
/// so.
fn refuse_inside_proc(target: &OwnedFd, path: &str) -> Result<(), Errno> {
    if fstatfs(target)?.f_type as u64 != PROC_MAGIC || path.starts_with("/proc/") {
        return Ok(());
    }
    Err(Errno::PERM)
}

/// The specification's devices, and the links that every container has.
pub fn devices(root: BorrowedFd<'_>, devices: &[Device], mounts: &[Mount]) -> Result<(), Failure> {
    let is_hosts =
        |mount: &Mount| mount.target.trim_end_matches('/') == "/dev" && matches!(mount.what, What::Bind { .. });
    if mounts.iter().any(is_hosts) {
        return Ok(());
    }
    for device in devices {
        make_device(root, device).at(Step::Devices, device.path.clone())?;
    }
    let dev = place(root, "/dev", Make::Directory).at(Step::Devices, "/dev")?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
        ("ptmx", "pts/ptmx"),
    ];
    for (link, to) in links {
        if link == "core" && !Path::new("/proc/kcore").exists() {
            continue;
        }
        match symlinkat(to, &dev, link) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failure(Step::Devices, errno, format!("/dev/{link}"))),
        }
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, device: &Device) -> Result<(), Errno> {
    let (parent, name) = device.path.rsplit_once('/').ok_or(Errno::INVAL)?;
    if name.is_empty() || name == ".." {
        return Err(Errno::INVAL);
    }
    let parent = place(root, parent, Make::Directory)?;
    let (kind, mode) = (FileType::from_raw_mode(device.mode), Mode::from_raw_mode(device.mode & 0o7777));
    match mknodat(&parent, name, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        // In a user namespace nodes cannot be made: the host's is shown instead.
        Err(Errno::PERM) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, &*device.path, flags)?;
            return attach(&tree, place(root, &device.path, Make::File)?);
        }
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A terminal of the container's own: master and slave. The slave is at /dev/console too.
pub fn terminal(root: BorrowedFd<'_>, console: bool) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master = inside(root, "/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, ResolveFlags::NO_SYMLINKS)?;
    if fstatfs(&master)?.f_type as u64 != DEVPTS_MAGIC {
        return Err(Errno::NOTTY);
    }
    rustix::pty::unlockpt(&master)?;
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if console {
        let name = rustix::pty::ptsname(&master, Vec::new())?.into_string().map_err(|_| Errno::ILSEQ)?;
        let number = name.rsplit('/').next().unwrap_or_default();
        let source = inside(root, &format!("/dev/pts/{number}"), OFlags::PATH, ResolveFlags::NO_SYMLINKS)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(&source, "", flags)?;
        attach(&tree, place(root, "/dev/console", Make::File)?)?;
    }
    Ok((master, slave))
}

/// Hide these paths: files behind /dev/null, directories behind an empty tmpfs. Those that do not exist are fine.
pub fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Failure> {
    let step = Step::MaskedPaths;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let target = match place(root, path, Make::Nothing) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(failure(step, errno, path)),
        };
        let cover = if FileType::from_raw_mode(fstat(&target).at(step, path)?.st_mode) == FileType::Directory {
            match &empty {
                // A detached tree can be cloned from 6.15 on; before, each path has a tmpfs of its own.
                Some(tree) => open_tree(tree, "", clone).or_else(|_| empty_directory()).at(step, path)?,
                None => {
                    let made = empty_directory().at(step, path)?;
                    let cover = open_tree(&made, "", clone).or_else(|_| empty_directory()).at(step, path)?;
                    empty = Some(made);
                    cover
                }
            }
        } else {
            let null = null(root).at(step, "/dev/null")?;
            open_tree(&null, "", clone).at(step, path)?
        };
        attach(&cover, &target).at(step, path)?;
    }
    Ok(())
}

/// The container's own /dev/null, or the host's where the container's is something else.
fn null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let own = inside(root, "/dev/null", OFlags::PATH, ResolveFlags::NO_SYMLINKS);
    if let Ok(own) = own
        && fstat(&own)?.st_rdev == makedev(1, 3)
    {
        return Ok(own);
    }
    openat(CWD, "/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "tmpfs")?;
    fsconfig_set_flag(&fs, "ro")?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Show these paths read-only. Those that do not exist are fine.
pub fn make_readonly(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Failure> {
    let step = Step::ReadonlyPaths;
    for path in paths {
        let target = match place(root, path, Make::Nothing) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(failure(step, errno, path)),
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&target, "", flags).at(step, path)?;
        sys::mount_setattr(&tree, true, RDONLY, 0, 0).at(step, path)?;
        attach(&tree, &target).at(step, path)?;
    }
    Ok(())
}

/// Make the root itself read-only; mounts on it stay as they are.
pub fn make_root_readonly(root: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::mount_setattr(root, false, RDONLY, 0, 0).at(Step::ReadonlyRoot, "")
}

/// Write kernel parameters through the container's own /proc, which knows its namespaces.
pub fn sysctls(root: BorrowedFd<'_>, parameters: &[(String, String)]) -> Result<(), Failure> {
    for (name, value) in parameters {
        let write = || {
            let path = format!("/proc/sys/{name}");
            let file = inside(root, &path, OFlags::WRONLY, ResolveFlags::NO_SYMLINKS)?;
            if fstatfs(&file)?.f_type as u64 != PROC_MAGIC {
                return Err(Errno::NOENT);
            }
            rustix::io::write(&file, value.as_bytes()).map(|_| ())
        };
        write().at(Step::Sysctls, name.replace('/', "."))?;
    }
    Ok(())
}

/// Make `root` what `/` is, and let go of everything else.
pub fn pivot(root: BorrowedFd<'_>, propagation: Option<u64>) -> Result<(), Failure> {
    let step = Step::Pivot;
    let old = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(step, "")?;
    rustix::process::fchdir(root).at(step, "")?;
    rustix::process::pivot_root(".", ".").at(step, "")?;
    rustix::process::fchdir(&old).at(step, "")?;
    mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).at(step, "")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).at(step, "")?;
    rustix::process::chdir("/").at(step, "")?;
    if let Some(propagation) = propagation {
        change_propagation("/", propagation).at(step, "")?;
    }
    Ok(())
}

/// Cut the mounts that were copied from the host's namespace off it, before anything is changed.
pub fn separate(propagation: Option<u64>) -> Result<(), Failure> {
    let slave = u64::from(libc::MS_SLAVE as u32 | libc::MS_REC as u32);
    change_propagation("/", propagation.unwrap_or(slave)).at(Step::Propagation, "")
}

fn change_propagation(path: &str, flags: u64) -> Result<(), Errno> {
    let flags = MountPropagationFlags::from_bits(flags as _).ok_or(Errno::INVAL)?;
    mount_change(path, flags)
}

/// Give the user the terminal or pipes that it was given as stdio, so that it may open /dev/stdout.
pub fn own(fd: impl AsFd, uid: u32) -> Result<(), Errno> {
    let null = fstat(&fd)?.st_rdev == makedev(1, 3);
    if null || fstat(&fd)?.st_uid == uid {
        return Ok(());
    }
    match fchown(&fd, Some(Uid::from_raw(uid)), None) {
        // A user that the user namespace does not map, or a read-only file system: the descriptor still works.
        Err(Errno::INVAL | Errno::PERM | Errno::ROFS) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The mode of a terminal's slave, as login programs leave it.
pub fn own_terminal(slave: impl AsFd, uid: u32) -> Result<(), Errno> {
    own(&slave, uid)?;
    let _ = fchmod(&slave, Mode::from(0o620));
    Ok(())
}
