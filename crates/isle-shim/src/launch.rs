//! The shim's side of a launch: opens what the child needs, makes it, and listens until it has executed or failed.

use crate::child::{self, Inherited, Pipes, Report, Reporter};
use crate::fail::{At, failure};
use crate::sys::{self, Cloned};
use crate::{mounts, stdio};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use shim_protocol::frame::Decoder;
use shim_protocol::launch::{Cgroup, Command, Failure, Launch, Namespace, Stdio, Step, What};
use shim_protocol::transport;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

/// A process that executes.
pub struct Started {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub ends: stdio::Ends,
    pub warnings: Vec<String>,
}

/// Start the container's process. On failure nothing of it is left.
pub fn container(launch: &Launch, mut joins: VecDeque<OwnedFd>, program: &OwnedFd) -> Result<Started, Failure> {
    fail_where_asked(launch, Step::Stdio)?;
    let (pipes, ends) = open_stdio(&launch.stdio)?;
    fail_where_asked(launch, Step::Root)?;
    let overlay = mounts::overlay(&launch.root)?;
    let spaces = &launch.namespaces;
    let mut join = |kind: Namespace| -> Result<Option<OwnedFd>, Failure> {
        if kind != Namespace::Join {
            return Ok(None);
        }
        joins.pop_front().map(Some).ok_or_else(|| failure(Step::Namespaces, Errno::BADF, "that was not passed"))
    };
    let (net, pid) = (join(spaces.net)?, join(spaces.pid)?);
    let (ipc, uts, cgroup) = (join(spaces.ipc)?, join(spaces.uts)?, join(spaces.cgroup)?);
    let wants_shm = launch.mounts.iter().any(|mount| mount.what == What::JoinedShm);
    let joined_shm = ipc.as_ref().filter(|_| wants_shm).map(mounts::borrow_shm).transpose()?;
    let mut new = libc::CLONE_NEWNS;
    for (kind, flag) in [
        (spaces.net, libc::CLONE_NEWNET),
        (spaces.pid, libc::CLONE_NEWPID),
        (spaces.ipc, libc::CLONE_NEWIPC),
        (spaces.uts, libc::CLONE_NEWUTS),
    ] {
        if kind == Namespace::New {
            new |= flag;
        }
    }
    if spaces.user.is_some() {
        new |= libc::CLONE_NEWUSER;
    }
    let mut here: Vec<(&OwnedFd, i32, &str)> = pid.iter().map(|fd| (fd, libc::CLONE_NEWPID, "pid")).collect();
    // Inside a user namespace of its own, the child could not join what belongs to the host's.
    let joins =
        [(&net, libc::CLONE_NEWNET, "network"), (&ipc, libc::CLONE_NEWIPC, "ipc"), (&uts, libc::CLONE_NEWUTS, "uts")];
    if spaces.user.is_some() {
        here.extend(joins.iter().filter_map(|(fd, kind, name)| Some((fd.as_ref()?, *kind, *name))));
    }
    let by_child = spaces.user.is_none();
    fail_where_asked(launch, Step::Clone)?;
    let (ours, theirs) = channel()?;
    let inherited = Inherited {
        reporter: Reporter(theirs),
        pipes: pipes.as_ref(),
        net: net.as_ref().filter(|_| by_child).map(AsFd::as_fd),
        ipc: ipc.as_ref().filter(|_| by_child).map(AsFd::as_fd),
        uts: uts.as_ref().filter(|_| by_child).map(AsFd::as_fd),
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        overlay,
        joined_shm: joined_shm.as_ref(),
        program: program.as_fd(),
        fail_at: launch.fail_at,
    };
    let (pid, pidfd) = match make_child(new, &here, &launch.cgroup)? {
        Cloned::Child => child::become_container(launch, inherited),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(inherited);
    drop(pipes);
    listen(ours, pid, pidfd, ends, spaces.user.as_ref().map(|maps| (&*maps.uids, &*maps.gids)))
}

/// Start a command in the namespaces of the container behind `target`.
pub fn command(
    command: &Command,
    stdio: &Stdio,
    target: &OwnedFd,
    user_namespace: bool,
    cgroup: &Cgroup,
    program: &OwnedFd,
) -> Result<Started, Failure> {
    let (pipes, ends) = open_stdio(stdio)?;
    let (ours, theirs) = channel()?;
    let inherited = Inherited {
        reporter: Reporter(theirs),
        pipes: pipes.as_ref(),
        net: None,
        ipc: None,
        uts: None,
        cgroup: None,
        overlay: None,
        joined_shm: None,
        program: program.as_fd(),
        fail_at: None,
    };
    let (pid, pidfd) = match make_child(0, &[(target, libc::CLONE_NEWPID, "pid")], cgroup)? {
        Cloned::Child => {
            child::become_command(command, stdio.tty, stdio.size, target.as_fd(), user_namespace, cgroup, inherited)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(inherited);
    drop(pipes);
    listen(ours, pid, pidfd, ends, None)
}

fn fail_where_asked(launch: &Launch, step: Step) -> Result<(), Failure> {
    if cfg!(debug_assertions) && launch.fail_at == Some(step) {
        return Err(failure(step, Errno::CANCELED, "as a test asked"));
    }
    Ok(())
}

fn channel() -> Result<(OwnedFd, OwnedFd), Failure> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).at(Step::Clone, "")
}

pub fn open_stdio(stdio: &Stdio) -> Result<(Option<Pipes>, stdio::Ends), Failure> {
    if stdio.tty {
        return Ok((None, stdio::Ends::default()));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Stdio, "");
    let ours = |fd: &OwnedFd| rustix::io::ioctl_fionbio(fd, true).at(Step::Stdio, "");
    let (stdin, write) = if stdio.stdin {
        let (read, write) = pipe()?;
        ours(&write)?;
        (read, Some(write))
    } else {
        (openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Stdio, "/dev/null")?, None)
    };
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    ours(&out)?;
    ours(&err)?;
    Ok((
        Some(Pipes { stdin, stdout, stderr }),
        stdio::Ends { stdin: write, stdout: Some(out), stderr: Some(err), slave: None },
    ))
}

/// A child is born into other namespaces by entering them for a moment. So one in another process's pid namespace is our
/// child like every other, without a second fork.
fn make_child(new: i32, enter: &[(&OwnedFd, i32, &str)], cgroup: &Cgroup) -> Result<Cloned, Failure> {
    let directory = cgroup
        .v2
        .as_ref()
        .map(|path| {
            openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .at(Step::Cgroup, path.display().to_string())
        })
        .transpose()?;
    let mut homes = Vec::new();
    let mut entered = Ok(());
    for (other, kind, name) in enter {
        let step = |name: &str, kind: i32| -> Result<(OwnedFd, i32), Failure> {
            let file = if kind == libc::CLONE_NEWNET { "net" } else { name };
            let path = format!("/proc/self/ns/{file}");
            let home = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Namespaces, name)?;
            sys::setns(other, kind).at(Step::Namespaces, name)?;
            Ok((home, kind))
        };
        match step(name, *kind) {
            Ok(home) => homes.push(home),
            Err(failure) => {
                entered = Err(failure);
                break;
            }
        }
    }
    let cloned = entered.and_then(|()| sys::clone(new, directory.as_ref().map(AsFd::as_fd)).at(Step::Clone, ""));
    if !matches!(cloned, Ok(Cloned::Child)) {
        for (home, kind) in homes {
            sys::setns(&home, kind).at(Step::Namespaces, "")?;
        }
    }
    cloned
}

/// Hear the child out. The socket closes without a failure when the program executes.
fn listen(
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    mut ends: stdio::Ends,
    maps: Option<(&str, &str)>,
) -> Result<Started, Failure> {
    let mut decoder = Decoder::default();
    let mut descriptors = VecDeque::new();
    let mut buffer = [0; 4096];
    let mut warnings = Vec::new();
    let result = 'heard: loop {
        match transport::receive(&socket, &mut buffer, &mut descriptors, rustix::net::RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(errno) => break Err(failure(Step::Clone, errno, "")),
            Ok(0) => break Ok(()),
            Ok(n) => decoder.push(&buffer[..n]),
        }
        loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => break 'heard Err(failure(Step::Clone, Errno::PROTO, "")),
            };
            match Report::decode(&frame) {
                Some(Report::Warning(text)) => warnings.push(text),
                Some(Report::Terminal) => {
                    let (master, slave) = (descriptors.pop_front(), descriptors.pop_front());
                    if let Some(master) = &master {
                        let _ = rustix::io::ioctl_fionbio(master, true);
                    }
                    ends.stdout = master;
                    ends.slave = slave;
                }
                Some(Report::WantsMaps) => {
                    let (uids, gids) = maps.unwrap_or_default();
                    let write = |name: &str, text: &str| {
                        let path = format!("/proc/{pid}/{name}");
                        let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                        rustix::io::write(file, text.as_bytes()).map(|_| ())
                    };
                    if let Err(errno) = write("uid_map", uids).and_then(|()| write("gid_map", gids)) {
                        break 'heard Err(failure(Step::IdMaps, errno, ""));
                    }
                    let _ = rustix::io::write(&socket, b"\n");
                }
                Some(Report::Failed(failure)) => break 'heard Err(failure),
                None => break 'heard Err(failure(Step::Clone, Errno::PROTO, "")),
            }
        }
    };
    if let Err(failure) = result {
        let _ = sys::pidfd_signal(&pidfd, libc::SIGKILL);
        sys::wait_for(pid);
        return Err(failure);
    }
    if ends.stdout.is_none() {
        // It ended before it said anything: killed from outside.
        sys::wait_for(pid);
        return Err(failure(Step::Terminal, Errno::PIPE, ""));
    }
    Ok(Started { pid, pidfd, ends, warnings })
}
