//! `--runtime runc`: another OCI runtime makes the container, from the same specification; the shim mounts the layers,
//! holds the stdio and reaps. Its mounts are in a mount namespace of its own.

use crate::fail::{At, failure};
use crate::launch::{Started, open_stdio};
use crate::{mounts, sys};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use shim_protocol::launch::{Failure, FailureKind, Foreign, Launch, Step};
use shim_protocol::transport;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Make and start the container. On failure nothing of it is left.
pub fn container(launch: &Launch, runtime: &Foreign) -> Result<Started, Failure> {
    sys::unshare(libc::CLONE_NEWNS).at(Step::Propagation, "")?;
    mounts::separate(launch.root.propagation)?;
    let overlay = mounts::overlay(&launch.root)?;
    let _root = mounts::attach_root(&launch.root, overlay)?;
    let (pipes, mut ends) = open_stdio(&launch.stdio)?;
    let pid_file = runtime.bundle.join("pid");
    let log = runtime.bundle.join("runtime.log");
    // By a short name: the bundle's may be longer than an address can be.
    let home = openat(CWD, &runtime.bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Terminal, runtime.bundle.display().to_string())?;
    let console = PathBuf::from(format!("/proc/{}/fd/{}/console.sock", std::process::id(), home.as_raw_fd()));
    let mut command = Command::new(&runtime.program);
    command.arg("--root").arg(&runtime.state).arg("--log").arg(&log);
    command.args(["run", "--detach", "--bundle"]).arg(&runtime.bundle).arg("--pid-file").arg(&pid_file);
    let listener = if launch.stdio.tty {
        let _ = std::fs::remove_file(&console);
        command.arg("--console-socket").arg(&console);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(UnixListener::bind(&console).at(Step::Terminal, console.display().to_string())?)
    } else {
        None
    };
    if let Some(pipes) = pipes {
        command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
    }
    command.arg(&runtime.id);
    // The C library ignores two signals of its own in what it spawns, and so would the container.
    // SAFETY: between fork and exec it makes system calls alone.
    unsafe {
        command.pre_exec(|| {
            sys::reset_signals();
            Ok(())
        });
    }
    let status = command.status().map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        failure(Step::Clone, errno, runtime.program.display().to_string())
    })?;
    drop(command);
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let last = text.lines().rev().find_map(message).unwrap_or_else(|| status.to_string());
        let kind = if last.contains("executable file not found") || last.contains("no such file or directory") {
            FailureKind::NotFound
        } else if last.contains("permission denied") || last.contains("is a directory") {
            FailureKind::NotExecutable
        } else {
            FailureKind::Other
        };
        return Err(Failure {
            step: Step::Clone,
            kind,
            errno: 0,
            about: format!("by {}: {last}", runtime.program.display()),
        });
    }
    if let Some(listener) = listener {
        let master = receive_master(&listener).at(Step::Terminal, "")?;
        if let Some(size) = launch.stdio.size {
            let _ = crate::child::set_size(&master, size);
        }
        let _ = rustix::io::ioctl_fionbio(&master, true);
        ends.stdout = Some(master);
    }
    let text = std::fs::read_to_string(&pid_file).at(Step::Clone, pid_file.display().to_string())?;
    let pid: i32 = text.trim().parse().map_err(|_| failure(Step::Clone, Errno::INVAL, "the runtime's pid file"))?;
    let handle = rustix::process::Pid::from_raw(pid).ok_or_else(|| failure(Step::Clone, Errno::SRCH, ""))?;
    let pidfd = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty()).at(Step::Clone, "")?;
    if ends.stdout.is_some() && launch.stdio.tty {
        // Held open, or the master would report a hang-up whenever nobody else has it open.
        ends.slave =
            openat(CWD, format!("/proc/{pid}/fd/0"), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
                .ok();
    }
    Ok(Started { pid, pidfd, ends, warnings: Vec::new() })
}

/// The words of one line of runc's log: `time="…" level=error msg="…"`.
fn message(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("msg=\"")?;
    let text = rest.trim_end().strip_suffix('"')?;
    Some(text.replace("\\\"", "\""))
}

fn receive_master(listener: &UnixListener) -> Result<OwnedFd, Errno> {
    let (socket, _) = listener.accept().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let (mut buffer, mut descriptors) = ([0; 4096], VecDeque::new());
    transport::receive(&socket, &mut buffer, &mut descriptors, RecvFlags::empty())?;
    descriptors.pop_front().ok_or(Errno::BADF)
}
