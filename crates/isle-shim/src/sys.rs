//! The system calls that no crate wraps as we need them. Nearly all of the shim's `unsafe` is here.

use rustix::io::Errno;
use shim_protocol::launch::Instruction;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        // SAFETY: errno's location is always valid to read in the calling thread.
        Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    } else {
        Ok(result)
    }
}

/// Which of the two processes [`clone`] has returned in.
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// A new process with new namespaces, in the given v2 cgroup. The caller has one thread, so the child may do anything.
pub fn clone(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, for which zeroes mean 'not used'.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD as u64) | namespaces as u32 as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of everything. The process has one
    // thread, so no lock is held by a thread that the child lacks. The kernel writes the pidfd to a live variable.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// End this process at once: no destructors, no buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Change attributes and propagation of a mount.
pub fn mount_setattr(mount: impl AsFd, recursively: bool, set: u64, clear: u64, propagation: u64) -> Result<(), Errno> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let attr = MountAttr { set, clear, propagation, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursively { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string and the structure has the layout and size that the kernel is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Enter namespaces of the process behind a pidfd, or the one namespace behind a namespace's own descriptor.
pub fn setns(fd: impl AsFd, kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: no memory is involved; the process has one thread.
    check(i64::from(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) }))?;
    Ok(())
}

/// Leave namespaces of these kinds for new ones.
pub fn unshare(kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: no memory is involved; only namespaces are ever passed, no CLONE_FILES or CLONE_VM.
    check(i64::from(unsafe { libc::unshare(kinds) }))?;
    Ok(())
}

/// All signals as a fresh process has them: nothing ignored, nothing blocked. (Rust ignores SIGPIPE.)
pub fn reset_signals() {
    // The kernel's structure: handler, flags, restorer and mask, all of them 'default' as zero.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is live and as large as the kernel's; SIGKILL and the like are refused, which does not
        // matter. Not through the C library, which keeps two signals to itself.
        unsafe {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>());
        }
    }
    set_mask(&[], libc::SIG_SETMASK);
}

fn set_mask(signals: &[i32], how: i32) -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, made empty before use; the calls write nothing else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Take these signals by descriptor instead: nonblocking.
pub fn signal_descriptor(signals: &[i32]) -> Result<OwnedFd, Errno> {
    let set = set_mask(signals, libc::SIG_BLOCK);
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = check(i64::from(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Block every signal, and wait for the next one. For process 1.
pub fn next_signal() -> i32 {
    let all: Vec<i32> = (1..=64).collect();
    let set = set_mask(&all, libc::SIG_BLOCK);
    let mut signal = 0;
    // SAFETY: both point to live values of their type.
    unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    signal
}

/// Block every signal for now.
pub fn block_signals() {
    let all: Vec<i32> = (1..=64).collect();
    set_mask(&all, libc::SIG_BLOCK);
}

/// One prctl whose arguments are all numbers.
pub fn prctl(what: libc::c_int, argument: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the callers' options take numbers only.
    check(i64::from(unsafe {
        libc::prctl(what, argument, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong)
    }))?;
    Ok(())
}

/// A session keyring of its own, so that the host's keys are not the container's.
pub fn new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })?;
    Ok(())
}

/// Load a filter for this thread.
pub fn load_seccomp(program: &[Instruction]) -> Result<(), Errno> {
    let mut filter: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::INVAL) };
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `len` live instructions; the kernel copies and checks them.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as libc::c_ulong, &raw const program)
    })?;
    Ok(())
}

/// Set effective, permitted and inheritable capabilities.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let (low, high) = (|set: u64| set as u32, |set: u64| (set >> 32) as u32);
    let data =
        [[low(effective), low(permitted), low(inheritable)], [high(effective), high(permitted), high(inheritable)]];
    // SAFETY: version 3 reads two triples of 32 bits, which `data` is.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// The permitted capabilities of this process.
pub fn permitted_capabilities() -> Result<u64, Errno> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Raise one ambient capability.
pub fn raise_ambient(capability: u32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(i64::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            libc::c_ulong::from(capability),
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    }))?;
    Ok(())
}

/// Set a limit by the kernel's number.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure is live; the kernel checks the number.
    check(i64::from(unsafe { libc::setrlimit(resource, &raw const limit) }))?;
    Ok(())
}

/// A limit's soft and hard value.
pub fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is live; the kernel checks the number.
    check(i64::from(unsafe { libc::getrlimit(resource, &raw mut limit) }))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Close every descriptor above 2 but these.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: only called in a child that will execute or exit: no owner of a closed descriptor is used again.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd.saturating_sub(1), 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Let every descriptor above 2 close when the process executes.
pub fn close_on_exec() {
    // SAFETY: no descriptor is closed now.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Make `from` descriptor number `to`, which is 0, 1 or 2.
pub fn become_stdio(from: impl AsFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: standard descriptors have no owner in this program.
    check(i64::from(unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) }))?;
    Ok(())
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Execute a path. Returns only on failure.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point to live C strings.
    let result = unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    check(i64::from(result)).err().unwrap_or(Errno::INVAL)
}

/// Execute what an open descriptor refers to. Returns only on failure.
pub fn execute_descriptor(file: impl AsFd, args: &[CString], env: &[CString]) -> Errno {
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point to live C strings; the path is an empty one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::INVAL)
}

/// Send a signal to a process by number.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(i64::from(unsafe { libc::kill(pid, signal) }))?;
    Ok(())
}

/// Send a signal through a pidfd.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// The next dead child and its wait status, if there is one.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a live variable.
        match check(i64::from(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return None,
            Ok(pid) => return Some((pid as i32, status)),
        }
    }
}

/// Wait until this child is dead: its wait status.
pub fn wait_for(pid: i32) -> Option<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a live variable.
        match check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, 0) })) {
            Err(Errno::INTR) => {}
            Err(_) => return None,
            Ok(_) => return Some(status),
        }
    }
}

/// A plain fork, for process 1.
pub fn fork() -> Result<i32, Errno> {
    // SAFETY: the process has one thread, so the child may do anything.
    Ok(check(i64::from(unsafe { libc::fork() }))? as i32)
}

/// How a process died behind a pidfd that is no child of ours: its wait status, from kernel 6.15 on, once reaped.
pub fn exit_info(pidfd: impl AsFd) -> Option<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        pids: [u32; 3],
        ids: [u32; 8],
        exit_code: i32,
        rest: [u32; 8],
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct of 64 bytes): the size that kernel 6.13 has; a larger one is versioned by its size.
    const SIZE: u64 = 64;
    const PIDFD_GET_INFO: u64 = (3 << 30) | (SIZE << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: the kernel writes at most the 64 bytes that the request names; the structure is larger.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// The terminal's other end, opened anew through its master.
pub fn terminal_of(master: &OwnedFd) -> Option<OwnedFd> {
    use rustix::pty::OpenptFlags;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).ok()
}
