//! What outlives a shim, and a daemon: the process, its output, and words on the end in the run directory. From them a
//! container is found again, a new shim takes over, and what is left at last is taken away.

use crate::connection::{CallError, Control};
use crate::container::{Container, ExitStatus, RunningState};
use crate::prepare::{open_directory, remove_cgroup, spawn};
use crate::{Error, Log, Runtime, StartError, Stdio, translate};
use model::id::ContainerId;
use shim_protocol::frame::Decoder;
use shim_protocol::launch::Stdio as ShimStdio;
use shim_protocol::{Adopt, ExitRecord, Reply, Request, Running, State, Status, Time, file};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio as ChildStdio;
use std::sync::Arc;
use std::time::Duration;

/// What must outlive a shim for its container to: duplicates of what the shim holds. The keeper has them, too.
pub(crate) struct Held {
    pub(crate) stdio: ShimStdio,
    pub(crate) log: Option<Log>,
    pub(crate) pidfd: OwnedFd,
    /// Of a terminal, its master.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Only where the shim never closes it while the process runs: it would stay open here.
    pub(crate) stdin: Option<OwnedFd>,
}

/// A container that an earlier daemon started.
pub enum Reconnected {
    /// It goes on.
    Running(Container),
    /// It ended meanwhile.
    Exited(ExitStatus),
}

/// A shim answers at once, if it does.
const ANSWER: Duration = Duration::from_secs(3);

/// Speaks to a shim. One that does not answer may wait for a command that was frozen before it began: then everything goes
/// on for that moment.
async fn open_in_time(runtime: &Runtime, id: ContainerId, home: &OwnedFd) -> Result<Control, CallError> {
    let opened = tokio::time::timeout(ANSWER, Control::open(home)).await;
    if let Ok(opened) = opened {
        return opened;
    }
    let cgroup = runtime.cgroup(id);
    let frozen = cgroup.is_frozen();
    tracing::warn!(container = ?id, frozen, "its shim does not answer");
    let set = |frozen: bool| {
        let cgroup = cgroup.clone();
        tokio::task::spawn_blocking(move || cgroup.freeze(frozen))
    };
    if frozen {
        let _ = set(false).await;
    }
    // Then it is as good as gone: another takes over what the keeper has held, rather than all wait for it.
    let late = || CallError::Gone(Some(io::ErrorKind::TimedOut.into()));
    let opened = tokio::time::timeout(ANSWER, Control::open(home)).await.unwrap_or_else(|_| Err(late()));
    if frozen {
        let _ = set(true).await;
    }
    opened
}

pub(crate) async fn reconnect(
    runtime: &Runtime,
    id: ContainerId,
    log: Option<Log>,
) -> Result<Option<Reconnected>, Error> {
    runtime.finish_cleanup(id).await;
    let path = runtime.home(id);
    let Ok(home) = open_directory(&path) else { return Ok(None) };
    let exited = || read_file::<ExitRecord>(&path.join(file::EXIT)).map(|exit| Reconnected::Exited((&exit).into()));
    let control = match open_in_time(runtime, id, &home).await {
        Ok(control) => control,
        // No shim any more: it has left word, or it was killed.
        Err(CallError::Gone(_)) => return Ok(exited()),
        Err(other) => return Err(other.into()),
    };
    let status = match control.call(Request::Status, Vec::new()).await {
        Ok((Reply::Status(status), _)) => status,
        Ok(_) => return Err(CallError::Garbled(shim_protocol::frame::Garbled).into()),
        Err(CallError::Gone(_)) => return Ok(exited()),
        Err(other) => return Err(other.into()),
    };
    let Status { main, .. } = status;
    match main {
        State::Running(running) => {
            let (reply, descriptors) = match control.call(Request::HandOver, Vec::new()).await {
                Ok(answer) => answer,
                // It ended in between.
                Err(_) => return Ok(exited()),
            };
            let held = Held::new(&reply, descriptors, log)?;
            let container = Container::new(runtime, id, Arc::new(home), control, running.into(), held);
            Ok(Some(Reconnected::Running(container)))
        }
        State::Exited(exit) => {
            let _ = control.call(Request::Go { force: false }, Vec::new()).await;
            remove_cgroup(runtime.cgroup(id)).await;
            Ok(Some(Reconnected::Exited((&exit).into())))
        }
        // A daemon died between the shim's start and the launch, or just after it failed: nothing runs.
        State::Prepared | State::Failed(_) => {
            let _ = control.call(Request::Go { force: true }, Vec::new()).await;
            remove_cgroup(runtime.cgroup(id)).await;
            let _ = std::fs::remove_dir_all(&path);
            Ok(None)
        }
    }
}

pub(crate) async fn adopt(
    runtime: &Runtime,
    id: ContainerId,
    descriptors: Vec<OwnedFd>,
    stdio: Stdio,
    log: Option<Log>,
) -> Result<Option<Container>, StartError> {
    runtime.finish_cleanup(id).await;
    let path = runtime.home(id);
    let Some(running) = read_file::<Running>(&path.join(file::RUNNING)) else { return Ok(None) };
    let Some(held) = Held::from_descriptors(descriptors, stdio, log) else { return Ok(None) };
    let home = open_directory(&path).map_err(StartError::Shim)?;
    let running = RunningState::from(running);
    let control = take_over(runtime, id, &home, &held, &running).await?;
    Ok(Some(Container::new(runtime, id, Arc::new(home), control, running, held)))
}

/// Start a shim that holds a running container in the place of its dead one.
pub(crate) async fn take_over(
    runtime: &Runtime,
    id: ContainerId,
    home: &OwnedFd,
    held: &Held,
    running: &RunningState,
) -> Result<Control, StartError> {
    let mut passed = vec![held.pidfd.try_clone().map_err(StartError::Shim)?];
    for fd in [&held.stdin, &held.stdout, &held.stderr].into_iter().flatten() {
        passed.push(fd.try_clone().map_err(StartError::Shim)?);
    }
    let started = running.started_at;
    let adopt = Adopt {
        pid: running.pid,
        started: Time { seconds: started.as_second(), nanoseconds: started.subsec_nanosecond().unsigned_abs() },
        stdio: held.stdio,
        has_stdin: held.stdin.is_some(),
        has_stdout: held.stdout.is_some(),
        has_stderr: held.stderr.is_some(),
        log: held.log.clone(),
        cgroup: translate::shim_cgroup(&runtime.cgroup(id)),
    };
    let control = spawn(runtime, &runtime.home(id), home).await?;
    control.call(Request::Adopt(Box::new(adopt)), passed).await?;
    Ok(control)
}

impl Held {
    /// From a shim's answer to [`Request::HandOver`].
    pub(crate) fn new(reply: &Reply, descriptors: Vec<OwnedFd>, log: Option<Log>) -> Result<Held, CallError> {
        let mut descriptors = descriptors.into_iter();
        let (Reply::Held { stdio, stdin, stdout, stderr }, Some(pidfd)) = (reply, descriptors.next()) else {
            return Err(CallError::Garbled(shim_protocol::frame::Garbled));
        };
        let mut take = |there: &bool| if *there { descriptors.next() } else { None };
        let (stdin, stdout, stderr) = (take(stdin), take(stdout), take(stderr));
        let stdin = stdin.filter(|_| !stdio.stdin_once);
        Ok(Held { stdio: *stdio, log, pidfd, stdout, stderr, stdin })
    }

    /// In an order that [`Held::from_descriptors`] understands: pidfd, stdout (a terminal's master), and without a
    /// terminal stderr, and perhaps stdin. A stream that has ended is one of `/dev/null`.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let or_ended = |fd: &Option<OwnedFd>| match fd {
            Some(fd) => fd.try_clone(),
            None => std::fs::File::open("/dev/null").map(OwnedFd::from),
        };
        let mut all = vec![self.pidfd.try_clone()?, or_ended(&self.stdout)?];
        if !self.stdio.tty {
            all.push(or_ended(&self.stderr)?);
            all.extend(self.stdin.as_ref().map(OwnedFd::try_clone).transpose()?);
        }
        Ok(all)
    }

    fn from_descriptors(descriptors: Vec<OwnedFd>, stdio: Stdio, log: Option<Log>) -> Option<Held> {
        let mut descriptors = descriptors.into_iter();
        let (pidfd, stdout) = (descriptors.next()?, descriptors.next()?);
        let stdio = ShimStdio { tty: stdio.tty, size: None, stdin: stdio.open_stdin, stdin_once: stdio.stdin_once };
        let (stderr, stdin) = (descriptors.next(), descriptors.next());
        Some(Held { stdio, log, pidfd, stdout: Some(stdout), stderr, stdin })
    }
}

pub(crate) async fn forget(runtime: &Runtime, id: ContainerId) {
    let path = runtime.home(id);
    if let Ok(home) = open_directory(&path)
        && let Ok(control) = Control::open(&home).await
    {
        let _ = control.call(Request::Go { force: true }, Vec::new()).await;
    }
    if path.join("config.json").exists() {
        let mut delete = tokio::process::Command::new(&runtime.settings().runc);
        delete.arg("--root").arg(runtime.settings().run_dir.join("runc")).args(["delete", "--force", &id.to_string()]);
        let _ = delete.stdin(ChildStdio::null()).stdout(ChildStdio::null()).stderr(ChildStdio::null()).status().await;
    }
    remove_cgroup(runtime.cgroup(id)).await;
    let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await;
}

pub(crate) fn read_file<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut decoder = Decoder::default();
    decoder.push(&std::fs::read(path).ok()?);
    decoder.next_frame().ok()??.value().ok()
}
