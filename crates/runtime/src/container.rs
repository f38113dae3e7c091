//! One running container: what can be done with it, and how it is followed to its end.

use crate::connection::{self, CallError, Control};
use crate::held::{Held, read_file, take_over};
use crate::prepare::remove_cgroup;
use crate::processes::{self, ProcessInfo};
use crate::{AttachOptions, Attached, Error, Exec, ExecOrder, Runtime, Size, StartError, Usage, translate};
use jiff::Timestamp;
use kernel::cgroup::Cgroup;
use model::id::ContainerId;
use oci_spec::runtime::LinuxResources;
use shim_protocol::launch::Stdio as ShimStdio;
use shim_protocol::{ExitRecord, Process, Reply, Request, Running, Time, Whom, file};
use std::io;
use std::os::fd::OwnedFd;
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
    /// The signal's number, of a killed process.
    pub signal: Option<i32>,
    /// Its shim had died too, and the kernel does not tell.
    pub unknown: bool,
    /// The kernel killed something in the container for want of memory.
    pub oom_killed: bool,
    /// When, as its shim saw it; of an unknown ending, when that was found.
    pub finished_at: Timestamp,
}

impl ExitStatus {
    /// Of a process that is gone, nobody knows how: 255, as Docker says it.
    pub fn unknown(finished_at: Timestamp) -> ExitStatus {
        ExitStatus { code: 255, signal: None, unknown: true, oom_killed: false, finished_at }
    }
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
    /// Held by each launch of a command, and alone by who freezes: a command that stood still before it began would keep
    /// its shim waiting.
    launching: tokio::sync::RwLock<()>,
}

/// What is known of a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningState {
    /// In the daemon's pid namespace.
    pub pid: i32,
    /// When its program was executed.
    pub started_at: Timestamp,
    /// Limits that were clamped and the like, as sentences.
    pub warnings: Vec<String>,
}

impl From<Running> for RunningState {
    fn from(running: Running) -> Self {
        RunningState { pid: running.pid, started_at: timestamp(running.started), warnings: running.warnings }
    }
}

impl Container {
    pub(crate) fn new(
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
        let shared =
            Arc::new(Shared { runtime, id, home, control, cgroup, running, held, exit, launching: Default::default() });
        tokio::spawn(follow(Arc::downgrade(&shared), Followed::of(&shared), telling));
        Container { shared }
    }

    /// Whose it is.
    pub fn id(&self) -> ContainerId {
        self.shared.id
    }

    /// Its process's, in the daemon's pid namespace.
    pub fn pid(&self) -> i32 {
        self.shared.running.pid
    }

    /// When its program was executed.
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
        ended.unwrap_or_else(|| ExitStatus::unknown(Timestamp::now()))
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
            (Reply::Exec(number), control) => Ok(Exec::new(self.clone(), control, number, command)),
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

    /// The run directory: the way to its shim.
    pub(crate) fn home(&self) -> &OwnedFd {
        &self.shared.home
    }

    /// Keeps it from standing still while a command begins. `None` if it stands still already.
    pub(crate) async fn keep_going(&self) -> Option<tokio::sync::RwLockReadGuard<'_, ()>> {
        let guard = self.shared.launching.read().await;
        (!self.is_paused()).then_some(guard)
    }

    async fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let _alone = self.shared.launching.write().await;
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
        Ok(tokio::task::spawn_blocking(move || pids.into_iter().filter_map(processes::info).collect())
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
            ExitStatus::unknown(Timestamp::now())
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
