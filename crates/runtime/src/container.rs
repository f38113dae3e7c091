//! One container: from the shim's start to what is left when it has ended.

use crate::connection::{self, CallError, Control, Told};
use crate::{
    AttachOptions, Attached, Error, Log, Runtime, RuntimeKind, Size, StartError, StartOrder, Stdio, Usage,
    make_private, translate,
};
use jiff::Timestamp;
use kernel::cgroup::Cgroup;
use model::id::ContainerId;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process as SpecProcess};
use shim_protocol::frame::Decoder;
use shim_protocol::launch::{Foreign, Launch, Stdio as ShimStdio};
use shim_protocol::{Adopt, ExitRecord, Process, Reply, Request, Running, State, Status, Time, Whom, file};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio as ChildStdio;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How long a new shim may take to replace a killed one.
const REPLACEMENT: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// As a shell has it: 128 and the signal for a killed process; 255 where nobody can know.
    pub code: i32,
    pub signal: Option<i32>,
    /// Its shim had died too, and the kernel does not tell.
    pub unknown: bool,
    /// The kernel killed something in the container for want of memory.
    pub oom_killed: bool,
    pub finished_at: Timestamp,
}

impl From<&ExitRecord> for ExitStatus {
    fn from(exit: &ExitRecord) -> Self {
        ExitStatus {
            code: exit.code.unwrap_or(255),
            signal: exit.signal,
            unknown: exit.code.is_none(),
            oom_killed: exit.oom,
            finished_at: timestamp(exit.at),
        }
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::new(time.seconds, time.nanoseconds as i32).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A container that an earlier daemon started.
pub enum Reconnected {
    Running(Container),
    Exited(ExitStatus),
}

/// What must outlive a shim for its container to: duplicates of what the shim holds. The keeper has them, too.
struct Held {
    stdio: ShimStdio,
    log: Option<Log>,
    pidfd: OwnedFd,
    /// Of a terminal, its master.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Only where the shim never closes it while the process runs: it would stay open here.
    stdin: Option<OwnedFd>,
}

/// A shim that waits for its launch. Dropped, it goes, and nothing is left.
pub struct Prepared {
    runtime: Runtime,
    id: ContainerId,
    home: Arc<OwnedFd>,
    control: Control,
    cgroup: Cgroup,
    launch: Option<(Launch, Vec<OwnedFd>)>,
    warnings: Vec<String>,
    finished: bool,
}

/// A running container, or one that has just ended. Clones are the same one.
#[derive(Clone)]
pub struct Container {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    id: ContainerId,
    home: Arc<OwnedFd>,
    /// Another one's when a new shim has taken over.
    control: watch::Sender<Control>,
    cgroup: Cgroup,
    running: RunningState,
    held: Held,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// What is known of a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningState {
    /// In the daemon's pid namespace.
    pub pid: i32,
    pub started_at: Timestamp,
    /// Limits that were clamped and the like, as sentences.
    pub warnings: Vec<String>,
}

impl From<Running> for RunningState {
    fn from(running: Running) -> Self {
        RunningState { pid: running.pid, started_at: timestamp(running.started), warnings: running.warnings }
    }
}

/// A command to run beside the container's process.
pub struct ExecOrder {
    pub process: SpecProcess,
    pub seccomp: Option<LinuxSeccomp>,
    pub open_stdin: bool,
    pub size: Option<Size>,
}

/// A command, from before its start until its end.
#[derive(Clone)]
pub struct Exec {
    container: Container,
    /// Of the shim that it is a child of: with that one it ends.
    control: Control,
    number: u32,
    command: Arc<shim_protocol::launch::Command>,
}

/// One process of a container, as `top` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: i32,
    pub ppid: i32,
    pub uid: u32,
    /// One letter, as ps has it.
    pub state: char,
    /// Seconds since it began, and of CPU that it used.
    pub age: u64,
    pub cpu: u64,
    /// The terminal's device number, 0 for none.
    pub tty: i32,
    /// Bytes of memory, and of address space.
    pub resident: u64,
    pub size: u64,
    pub nice: i64,
    /// The program's name as the kernel has it.
    pub name: String,
    /// With arguments; the bare name in brackets where there are none.
    pub command: String,
}

pub(crate) async fn prepare(runtime: &Runtime, order: StartOrder) -> Result<Prepared, StartError> {
    let id = order.id;
    runtime.finish_cleanup(id).await;
    let linux = order.spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let profile = linux.and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(|profile| runtime.filter(profile)).transpose()?.map(|filter| filter.to_vec());
    let home_path = runtime.home(id);
    let home = make_home(&home_path).map_err(StartError::Shim)?;
    let mut warnings = Vec::new();
    if let Some(parent) = &order.cgroup_parent {
        let parent = parent.trim_matches('/');
        std::fs::write(home_path.join(crate::PARENT), parent).map_err(StartError::Shim)?;
        warnings.extend(runtime.inner.hierarchies.ensure_parent(parent)?);
    }
    let cgroup = runtime.cgroup(id);
    let guard = Leftovers { runtime, id, armed: true };
    let place = translate::Place {
        cgroup: &cgroup,
        hierarchies: &runtime.inner.hierarchies,
        attach_at: &home_path.join("rootfs"),
        available: runtime.inner.available,
    };
    let mut launch = translate::launch(&order, &place, filter)?;
    if let Some(process) = order.spec.process() {
        let missing = translate::unavailable(process, runtime.inner.available);
        if !missing.is_empty() && order.runtime == RuntimeKind::Launcher {
            warnings.push(format!("this daemon itself lacks {}, so the container has not", missing.join(", ")));
        }
    }
    let joins = match order.runtime {
        RuntimeKind::Launcher => {
            [order.netns, order.join.pid, order.join.ipc, order.join.uts].into_iter().flatten().collect()
        }
        RuntimeKind::Runc => {
            launch.foreign = Some(
                bundle(runtime, &order, &home_path)
                    .map_err(|source| StartError::Bundle { runtime: runtime.settings().runc.clone(), source })?,
            );
            // Held open until it has started: the bundle names it by our descriptor.
            [order.netns, order.join.pid, order.join.ipc, order.join.uts].into_iter().flatten().collect()
        }
    };
    if order.runtime == RuntimeKind::Launcher {
        cgroup.create()?;
        if let Some(resources) = resources {
            cgroup.limit(&translate::limits(resources))?;
            let rules = translate::device_rules(resources);
            if !rules.is_empty() {
                match cgroup.restrict_devices(&rules) {
                    Err(error @ kernel::cgroup::Error::NoController { .. }) => warnings.push(error.to_string()),
                    refused => warnings.extend(refused?),
                }
            }
        }
    }
    let control = spawn(runtime, &home_path, &home).await?;
    let mut guard = guard;
    guard.armed = false;
    Ok(Prepared {
        runtime: runtime.clone(),
        id,
        home: Arc::new(home),
        control,
        cgroup,
        launch: Some((launch, joins)),
        warnings,
        finished: false,
    })
}

/// Takes away what `prepare` has made, where it fails.
struct Leftovers<'a> {
    runtime: &'a Runtime,
    id: ContainerId,
    armed: bool,
}

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.runtime.cgroup(self.id).remove();
            let _ = std::fs::remove_dir_all(self.runtime.home(self.id));
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    std::fs::File::open(path).map(OwnedFd::from)
}

/// A fresh run directory.
fn make_home(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_private(&path.join("rootfs"))?;
    open_directory(path)
}

/// Start a shim in its run directory, and connect.
async fn spawn(runtime: &Runtime, path: &Path, home: &OwnedFd) -> Result<Control, StartError> {
    use std::os::unix::process::CommandExt;
    let socket = format!("/proc/self/fd/{}/{}", home.as_raw_fd(), file::SOCKET);
    let _ = std::fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).map_err(StartError::Shim)?;
    let mut command = std::process::Command::new(runtime.shim_program());
    command.arg0("isle-shim").env_clear().current_dir(path).process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(ChildStdio::null()).stderr(ChildStdio::null());
    let mut child = tokio::process::Command::from(command).spawn().map_err(StartError::Shim)?;
    // Reaped when it ends, while this daemon lives; nobody waits for that.
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
    Control::open(home).await.map_err(StartError::Call)
}

/// Write the bundle for another runtime.
fn bundle(runtime: &Runtime, order: &StartOrder, home: &Path) -> io::Result<Foreign> {
    let mut spec: serde_json::Value = serde_json::to_value(&order.spec)?;
    spec["root"]["path"] = home.join("rootfs").display().to_string().into();
    spec["linux"]["cgroupsPath"] = format!("/{}", runtime.cgroup_path(order.id).trim_start_matches('/')).into();
    spec["process"]["terminal"] = order.stdio.tty.into();
    let own = std::process::id();
    let mut name = |kind: &str, fd: Option<&OwnedFd>, of_process: bool| {
        let Some(fd) = fd else { return };
        let path = if of_process {
            pid_of(fd).map(|pid| format!("/proc/{pid}/ns/{}", if kind == "network" { "net" } else { kind }))
        } else {
            Some(format!("/proc/{own}/fd/{}", fd.as_raw_fd()))
        };
        if let (Some(path), Some(list)) = (path, spec["linux"]["namespaces"].as_array_mut()) {
            list.retain(|namespace| namespace["type"] != kind);
            list.push(serde_json::json!({"type": kind, "path": path}));
        }
    };
    name("network", order.netns.as_ref(), false);
    name("pid", order.join.pid.as_ref(), true);
    name("ipc", order.join.ipc.as_ref(), true);
    name("uts", order.join.uts.as_ref(), true);
    std::fs::write(home.join("config.json"), serde_json::to_vec(&spec)?)?;
    let state = runtime.settings().run_dir.join("runc");
    make_private(&state)?;
    Ok(Foreign {
        program: runtime.settings().runc.clone(),
        state,
        bundle: home.to_path_buf(),
        id: order.id.to_string(),
    })
}

/// The process behind a pidfd.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()).filter(|pid| *pid > 0)
}

impl Prepared {
    /// Take the process's stdio before there is a process: nothing of its output is lost.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, CallError> {
        connection::attach(&self.home, Process::Main, options).await
    }

    /// Set the terminal's first size.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn resize(&self, size: Size) -> Result<(), CallError> {
        self.control.call(Request::Resize { process: Process::Main, size }, Vec::new()).await.map(|_| ())
    }

    /// Make the container's process. Returns when it has executed its program.
    ///
    /// # Errors
    /// At which step it failed, and why. Nothing is left then.
    pub async fn launch(mut self) -> Result<Container, StartError> {
        let (launch, joins) = self.launch.take().ok_or(StartError::Call(CallError::Gone(None)))?;
        let (foreign, stdio, log) = (launch.foreign.is_some(), launch.stdio, launch.log.clone());
        // A foreign runtime finds namespaces by our descriptors: they stay open here meanwhile.
        let (passed, kept) = if foreign { (Vec::new(), joins) } else { (joins, Vec::new()) };
        let (reply, mut descriptors) = self.control.call(Request::Launch(Box::new(launch)), passed).await?;
        drop(kept);
        let (Reply::Started(mut running), Some(pidfd)) = (reply, descriptors.pop()) else {
            return Err(StartError::Call(CallError::Garbled(shim_protocol::frame::Garbled)));
        };
        running.warnings.splice(0..0, std::mem::take(&mut self.warnings));
        self.finished = true;
        let handed = self.control.call(Request::HandOver, Vec::new()).await;
        let held = handed.and_then(|(reply, descriptors)| Held::new(&reply, descriptors, log.clone()));
        // It may have ended already.
        let held = held.unwrap_or(Held { stdio, log, pidfd, stdout: None, stderr: None, stdin: None });
        Ok(Container::new(&self.runtime, self.id, self.home.clone(), self.control.clone(), running.into(), held))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (runtime, id, control, cgroup) = (self.runtime.clone(), self.id, self.control.clone(), self.cgroup.clone());
        let task = tokio::spawn(async move {
            let _ = control.call(Request::Go { force: true }, Vec::new()).await;
            remove_cgroup(cgroup).await;
            let home = runtime.home(id);
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(home)).await;
        });
        self.runtime.clean_up_later(self.id, task);
    }
}

async fn remove_cgroup(cgroup: Cgroup) {
    let removed = tokio::task::spawn_blocking(move || cgroup.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(error = &error as &dyn std::error::Error, "a cgroup of a container that has ended is left");
    }
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
    let control = match Control::open(&home).await {
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

fn read_file<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut decoder = Decoder::default();
    decoder.push(&std::fs::read(path).ok()?);
    decoder.next_frame().ok()??.value().ok()
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
async fn take_over(
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
    fn new(reply: &Reply, descriptors: Vec<OwnedFd>, log: Option<Log>) -> Result<Held, CallError> {
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
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
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

impl Container {
    fn new(
        runtime: &Runtime,
        id: ContainerId,
        home: Arc<OwnedFd>,
        control: Control,
        running: RunningState,
        held: Held,
    ) -> Container {
        let (telling, exit) = watch::channel(None);
        let cgroup = runtime.cgroup(id);
        let runtime = runtime.clone();
        let control = watch::Sender::new(control);
        let shared = Arc::new(Shared { runtime, id, home, control, cgroup, running, held, exit });
        tokio::spawn(follow(Arc::downgrade(&shared), Followed::of(&shared), telling));
        Container { shared }
    }

    pub fn id(&self) -> ContainerId {
        self.shared.id
    }

    pub fn pid(&self) -> i32 {
        self.shared.running.pid
    }

    pub fn started_at(&self) -> Timestamp {
        self.shared.running.started_at
    }

    /// What could not be done as asked, as sentences.
    pub fn warnings(&self) -> &[String] {
        &self.shared.running.warnings
    }

    /// A pidfd of the container's process, for the keeper and for joining its namespaces.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.shared.held.pidfd.try_clone()
    }

    /// Duplicates of what its shim holds, for the keeper: with them a shim that is killed while no daemon is there costs
    /// nothing either ([`Runtime::adopt`]).
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn held(&self) -> io::Result<Vec<OwnedFd>> {
        self.shared.held.descriptors()
    }

    /// The network namespace that the process is in.
    ///
    /// # Errors
    /// It has ended.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        let fd = std::fs::File::open(format!("/proc/{}/ns/net", self.pid()))?.into();
        // The number may have been reused before it was opened; it is not if the process is still there afterwards.
        if self.exit_status().is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(fd)
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.shared.exit.borrow()
    }

    /// Wait for the end of the container's process. Its log is whole then.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.shared.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(ExitStatus {
            code: 255,
            signal: None,
            unknown: true,
            oom_killed: false,
            finished_at: Timestamp::now(),
        })
    }

    /// Send a signal to the container's process.
    ///
    /// # Errors
    /// It has ended, or the shim is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), CallError> {
        self.call(Request::Signal { whom: Whom::One(Process::Main), signal }).await
    }

    /// Send a signal to every process in the container.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn signal_all(&self, signal: i32) -> Result<(), CallError> {
        self.call(Request::Signal { whom: Whom::All, signal }).await
    }

    /// Take the process's stdio, beside whoever else has it.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, CallError> {
        self.with_shim(|_| {
            let home = self.shared.home.clone();
            async move { connection::attach(&home, Process::Main, options).await }
        })
        .await
    }

    /// Set the terminal's size.
    ///
    /// # Errors
    /// There is no terminal, or the shim is gone.
    pub async fn resize(&self, size: Size) -> Result<(), CallError> {
        self.call(Request::Resize { process: Process::Main, size }).await
    }

    /// Make a place for a command, which can be attached to before it is started.
    ///
    /// # Errors
    /// The shim is gone, or the order makes no sense.
    pub async fn exec(&self, order: ExecOrder) -> Result<Exec, StartError> {
        let runtime = &self.shared.runtime;
        let filter = order.seccomp.as_ref().map(|profile| runtime.filter(profile)).transpose()?;
        let filter = filter.map(|filter| filter.to_vec());
        let command = translate::command(&order.process, filter, runtime.inner.available)?;
        let tty = order.process.terminal().unwrap_or(false);
        let size = order.size.or_else(|| translate::size(&order.process));
        let stdio = ShimStdio { tty, size, stdin: order.open_stdin, stdin_once: true };
        let prepared = self.with_shim(|control| async move {
            let (reply, _) = control.call(Request::PrepareExec { stdio }, Vec::new()).await?;
            Ok((reply, control))
        });
        match prepared.await? {
            (Reply::Exec(number), control) => {
                Ok(Exec { container: self.clone(), control, number, command: Arc::new(command) })
            }
            _ => Err(StartError::Call(CallError::Garbled(shim_protocol::frame::Garbled))),
        }
    }

    /// Log lines that no disk wanted, so far.
    pub fn lines_lost(&self) -> u64 {
        self.shared.control.borrow().told.borrow().lines_lost
    }

    /// Wait until more than `known` log lines are lost; how many are by then.
    pub async fn loses_lines(&self, known: u64) -> u64 {
        let mut control = self.shared.control.subscribe();
        loop {
            let mut told = control.borrow_and_update().told.clone();
            let more = async { told.wait_for(|told| told.lines_lost > known).await.map(|told| told.lines_lost) };
            tokio::select! {
                Ok(lost) = more => return lost,
                // Another shim has taken its place.
                Ok(()) = control.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Stop every process in the container until [`Self::unpause`].
    ///
    /// # Errors
    /// The kernel cannot.
    pub async fn pause(&self) -> Result<(), Error> {
        self.freeze(true).await
    }

    /// Let a paused container go on.
    ///
    /// # Errors
    /// The kernel cannot.
    pub async fn unpause(&self) -> Result<(), Error> {
        self.freeze(false).await
    }

    /// Whether it is paused: the kernel's word, also after a daemon's restart.
    pub fn is_paused(&self) -> bool {
        self.shared.cgroup.is_frozen()
    }

    async fn freeze(&self, frozen: bool) -> Result<(), Error> {
        self.with_cgroup(move |cgroup| cgroup.freeze(frozen)).await
    }

    /// What it uses.
    ///
    /// # Errors
    /// It has ended.
    pub async fn stats(&self) -> Result<Usage, Error> {
        self.with_cgroup(|cgroup| cgroup.usage()).await
    }

    /// Its processes.
    ///
    /// # Errors
    /// It has ended.
    pub async fn top(&self) -> Result<Vec<ProcessInfo>, Error> {
        let pids = self.with_cgroup(|cgroup| cgroup.processes()).await?;
        Ok(tokio::task::spawn_blocking(move || pids.into_iter().filter_map(process_info).collect())
            .await
            .unwrap_or_default())
    }

    /// Change limits while it runs. Those not named stay.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub async fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let limits = translate::limits(resources);
        self.with_cgroup(move |cgroup| cgroup.limit(&limits)).await
    }

    async fn with_cgroup<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Cgroup) -> Result<T, kernel::cgroup::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let cgroup = self.shared.cgroup.clone();
        match tokio::task::spawn_blocking(move || act(&cgroup)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Kernel(io::ErrorKind::Interrupted.into())),
        }
    }

    async fn call(&self, request: Request) -> Result<(), CallError> {
        self.with_shim(|control| {
            let request = request.clone();
            async move { control.call(request, Vec::new()).await.map(|_| ()) }
        })
        .await
    }

    /// Ask the shim; one that has just died is waited for to be replaced, and its successor asked.
    async fn with_shim<T, A>(&self, ask: impl Fn(Control) -> A) -> Result<T, CallError>
    where
        A: Future<Output = Result<T, CallError>>,
    {
        let mut control = self.shared.control.subscribe();
        let first = control.borrow_and_update().clone();
        let why = match ask(first).await {
            Err(CallError::Gone(why)) => why,
            other => return other,
        };
        let mut exit = self.shared.exit.clone();
        let replaced = async {
            tokio::select! {
                biased;
                _ = exit.wait_for(Option::is_some) => false,
                changed = control.changed() => changed.is_ok(),
            }
        };
        if !tokio::time::timeout(REPLACEMENT, replaced).await.unwrap_or(false) {
            return Err(CallError::Gone(why));
        }
        let next = self.shared.control.borrow().clone();
        ask(next).await
    }
}

/// What is needed to follow a container to its end, also when nobody has it any more.
struct Followed {
    runtime: Runtime,
    id: ContainerId,
    control: Control,
    pidfd: io::Result<OwnedFd>,
    cgroup: Cgroup,
}

impl Followed {
    fn of(shared: &Shared) -> Followed {
        Followed {
            runtime: shared.runtime.clone(),
            id: shared.id,
            control: shared.control.borrow().clone(),
            pidfd: shared.held.pidfd.try_clone(),
            cgroup: shared.cgroup.clone(),
        }
    }
}

/// Tell of the end, then take the cgroup away and let the shim go: behind everybody's back.
async fn follow(container: Weak<Shared>, followed: Followed, telling: watch::Sender<Option<ExitStatus>>) {
    let Followed { runtime, id, mut control, pidfd, cgroup } = followed;
    let (exit, shim_lives) = loop {
        let mut told = control.told.clone();
        let heard = told.wait_for(|told| told.gone || told.exits.contains_key(&Process::Main)).await;
        if let Some(exit) = heard.ok().and_then(|told| told.exits.get(&Process::Main).cloned()) {
            break (Some(exit), true);
        }
        // The shim was killed. Its word on the end may be there; or a new one takes over, whose first act may be to tell
        // of the end.
        let word = read_file::<ExitRecord>(&runtime.home(id).join(file::EXIT));
        let Some(shared) = container.upgrade().filter(|_| word.is_none()) else { break (word, false) };
        tracing::warn!(container = ?id, "its shim was killed: a new one takes over");
        match take_over(&runtime, id, &shared.home, &shared.held, &shared.running).await {
            Ok(next) => {
                control = next.clone();
                shared.control.send_replace(next);
            }
            Err(error) => {
                tracing::error!(container = ?id, error = &error as &dyn std::error::Error, "no shim can take over");
                break (None, false);
            }
        }
        // One that is killed again and again does not keep us busy.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let status = match exit {
        Some(exit) => (&exit).into(),
        None => {
            if let Ok(pidfd) = pidfd
                && let Ok(pidfd) = kernel::readiness::watch_reading(pidfd)
            {
                let _ = pidfd.readable().await;
            }
            let finished_at = Timestamp::now();
            ExitStatus { code: 255, signal: None, unknown: true, oom_killed: false, finished_at }
        }
    };
    // Known before anybody hears of the end, so that a start right afterwards waits for it.
    let (begin, begun) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let _ = begun.await;
        if shim_lives {
            let _ = control.call(Request::Go { force: false }, Vec::new()).await;
        }
        remove_cgroup(cgroup).await;
    });
    runtime.clean_up_later(id, task);
    telling.send_replace(Some(status));
    let _ = begin.send(());
}

impl Exec {
    /// Take the command's stdio, before or after its start.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, CallError> {
        connection::attach(&self.container.shared.home, Process::Exec(self.number), options).await
    }

    /// Start it: its pid, in the daemon's namespace.
    ///
    /// # Errors
    /// At which step it failed, and why; or the container has ended.
    pub async fn start(&self) -> Result<i32, StartError> {
        let command = Box::new((*self.command).clone());
        let request = Request::StartExec { exec: self.number, command };
        match self.control.call(request, Vec::new()).await? {
            (Reply::Started(running), _) => Ok(running.pid),
            _ => Err(StartError::Call(CallError::Garbled(shim_protocol::frame::Garbled))),
        }
    }

    /// Set the terminal's size.
    ///
    /// # Errors
    /// There is no terminal, or the shim is gone.
    pub async fn resize(&self, size: Size) -> Result<(), CallError> {
        self.call(Request::Resize { process: Process::Exec(self.number), size }).await
    }

    /// Send it a signal.
    ///
    /// # Errors
    /// It has ended, or the shim is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), CallError> {
        self.call(Request::Signal { whom: Whom::One(Process::Exec(self.number)), signal }).await
    }

    /// Wait for its end.
    pub async fn wait(&self) -> ExitStatus {
        let process = Process::Exec(self.number);
        let mut told: watch::Receiver<Told> = self.control.told.clone();
        let heard = told.wait_for(|told| told.gone || told.exits.contains_key(&process)).await;
        let exit = heard.ok().and_then(|told| told.exits.get(&process).map(ExitStatus::from));
        exit.unwrap_or(ExitStatus {
            code: 255,
            signal: None,
            unknown: true,
            oom_killed: false,
            finished_at: Timestamp::now(),
        })
    }

    /// Forget it, once it has ended.
    pub async fn forget(&self) {
        let _ = self.call(Request::ForgetExec { exec: self.number }).await;
    }

    async fn call(&self, request: Request) -> Result<(), CallError> {
        self.control.call(request, Vec::new()).await.map(|_| ())
    }
}

/// What /proc says of one process; `None` if it has ended meanwhile.
fn process_info(pid: i32) -> Option<ProcessInfo> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let ticks = kernel::process::ticks_per_second();
    let up = uptime.split('.').next()?.parse::<u64>().ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())?;
    Some(ProcessInfo {
        pid,
        ppid: number(1) as i32,
        uid,
        state: fields.first()?.chars().next()?,
        age: up.saturating_sub(number(19) / ticks),
        cpu: (number(11) + number(12)) / ticks,
        tty: number(4) as i32,
        resident: number(21) * kernel::process::page_size(),
        size: number(20),
        nice: fields.get(16).and_then(|text| text.parse().ok()).unwrap_or(0),
        name: name.to_owned(),
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}
