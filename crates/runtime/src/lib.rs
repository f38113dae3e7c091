//! The worker that starts and holds containers. Each has a shim beside it, which is the launcher and outlives us; here
//! is who spawns it, tells it what to launch, and finds it again.
//!
//! - [`Runtime`]: spawns shims and finds those of an earlier daemon
//! - [`Prepared`]: a shim that waits for its order
//! - [`Container`]: what can be done with a running one; [`Exec`]: with a command in it
//! - [`Attached`]: a process's stdio
//! - [`logs`]: reads what a shim has logged
//! - [`translate`]: the specification as the launcher understands it, purely

#![warn(missing_docs)]

mod connection;
mod container;
mod exec;
mod held;
pub mod logs;
mod prepare;
mod processes;
pub mod translate;

pub use connection::{AttachOptions, Attached, CallError, Output, RefusalText, Stdin, Stream};
pub use container::{Container, ExitStatus, RunningState};
pub use exec::{Exec, ExecOrder};
pub use held::Reconnected;

pub use kernel::cgroup::{BlockUsage, Usage};
pub use prepare::Prepared;
pub use processes::ProcessInfo;
pub use shim_protocol::Size;
pub use shim_protocol::launch::{Failure, FailureKind, Log, Step};

use kernel::cgroup::{Cgroup, Hierarchies, Version};
use kernel::program::Program;
use model::id::{ContainerId, RootId};
use model::rootfs::Rootfs;
use model::seccomp::Arch;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use shim_protocol::launch::Instruction;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// Where things are and whose they are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// On a tmpfs: one directory a running container, and `runc`'s state.
    pub run_dir: PathBuf,
    /// The `isle-shim` program.
    pub shim: PathBuf,
    /// Whose daemon it is: the name of its cgroup.
    pub root: RootId,
    /// Below which containers' cgroups are made; empty is the top.
    pub cgroup_parent: String,
    /// For [`RuntimeKind::Runc`].
    pub runc: PathBuf,
}

/// Starts and finds containers. Clones are the same one.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    settings: Settings,
    pub(crate) hierarchies: Hierarchies,
    warnings: Vec<String>,
    /// The shim's program: sealed, so that no container can change it through its process's /proc/self/exe.
    shim: Program,
    /// What we may do, by bits: a container cannot have more.
    pub(crate) available: u64,
    /// Compiled filters. There are few: one for each set of capabilities in use.
    filters: Mutex<Vec<(LinuxSeccomp, Arc<Vec<Instruction>>)>>,
    /// What is still being taken away of a container's last run.
    cleanups: Mutex<HashMap<ContainerId, JoinHandle<()>>>,
}

/// Why the runtime cannot work.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Error {
    #[error("cannot use the run directory {path}")]
    RunDir { path: PathBuf, source: io::Error },
    #[error("cannot read the shim program {path}")]
    Shim { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] kernel::cgroup::Error),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot write the container's limits")]
    Kernel(#[source] io::Error),
}

/// Why a container, or a command, was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum StartError {
    /// By the launcher, at one of its steps.
    #[error("{0}")]
    Launch(Failure),
    #[error("cannot start the container's shim")]
    Shim(#[source] io::Error),
    #[error(transparent)]
    Call(CallError),
    #[error(transparent)]
    Cgroup(#[from] kernel::cgroup::Error),
    #[error(transparent)]
    Specification(#[from] translate::Untranslatable),
    #[error("the seccomp profile cannot be used")]
    Seccomp(#[from] model::seccomp::Refusal),
    #[error("the container is paused: nothing begins in it")]
    Paused,
    #[error("cannot write the bundle for {runtime}")]
    Bundle { runtime: PathBuf, source: io::Error },
}

impl StartError {
    /// As Docker's exit codes tell them apart: 127, 126, or anything else.
    pub fn kind(&self) -> FailureKind {
        match self {
            StartError::Launch(failure) => failure.kind,
            _ => FailureKind::Other,
        }
    }
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(RefusalText(shim_protocol::Refusal::Launch(failure))) => StartError::Launch(failure),
            other => StartError::Call(other),
        }
    }
}

/// A container to start.
pub struct StartOrder {
    /// Whose it is: the name of its run directory and its cgroup.
    pub id: ContainerId,
    /// What it shall be, as the OCI runtime specification has it.
    pub spec: Spec,
    /// The layers that its file system is mounted from.
    pub rootfs: Rootfs,
    /// The sandbox; `None` is the daemon's own namespace where the specification names no network namespace, and a new
    /// empty one where it does.
    pub netns: Option<OwnedFd>,
    /// Where its input comes from.
    pub stdio: Stdio,
    /// Where its output is written, if anywhere.
    pub log: Option<Log>,
    /// The cgroup that the container's is made in, instead of this root's own.
    pub cgroup_parent: Option<String>,
    /// Run our init as process 1.
    pub init: bool,
    /// Who makes it.
    pub runtime: RuntimeKind,
    /// Other containers' processes whose namespaces are shared.
    pub join: Join,
    /// For tests: fail at this step. Heeded by shims that were built with debug assertions only.
    pub fail_at: Option<Step>,
}

/// How the container's process gets its input and output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdio {
    /// It has a terminal of its own.
    pub tty: bool,
    /// The terminal's first size.
    pub size: Option<Size>,
    /// Its input stays open while nobody is attached; else it has none.
    pub open_stdin: bool,
    /// Its input ends with the first client that was attached to it.
    pub stdin_once: bool,
}

/// Who makes the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Our own: a part of the shim.
    #[default]
    Launcher,
    /// [`Settings::runc`], which the shim starts.
    Runc,
}

/// Pidfds of processes whose namespaces are shared.
#[derive(Default)]
pub struct Join {
    /// Whose processes it sees.
    pub pid: Option<OwnedFd>,
    /// Whose System V objects and message queues.
    pub ipc: Option<OwnedFd>,
    /// Whose hostname.
    pub uts: Option<OwnedFd>,
}

/// What this machine offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// 1 or 2, as Docker says it.
    pub cgroup_version: u8,
    /// Who makes cgroups, in Docker's word.
    pub cgroup_driver: &'static str,
    /// What can be limited: cgroup controllers by name.
    pub controllers: Vec<&'static str>,
    /// What cannot be limited here, as sentences.
    pub lacking: Vec<String>,
    /// Capabilities that this daemon lacks, and so every container.
    pub missing_capabilities: Vec<String>,
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// Whether the kernel has them.
    pub cgroup_namespaces: bool,
}

impl Runtime {
    /// Look at the machine and get ready.
    ///
    /// # Errors
    /// The run directory or the shim's program cannot be used, or there are no cgroups.
    pub fn open(settings: Settings) -> Result<Runtime, Error> {
        let containers = settings.run_dir.join("containers");
        make_private(&containers).map_err(|source| Error::RunDir { path: containers, source })?;
        let shim = kernel::program::sealed(&settings.shim)
            .map_err(|source| Error::Shim { path: settings.shim.clone(), source })?;
        let hierarchies = Hierarchies::detect()?;
        let mut warnings = hierarchies.lacking();
        warnings.extend(hierarchies.ensure_parent(&cgroup_parent(&settings))?);
        if !shim.sealed {
            warnings.push("the kernel does not execute sealed memory files: shims run from their file".to_owned());
        }
        let available = kernel::process::permitted_capabilities();
        Ok(Runtime {
            inner: Arc::new(Inner {
                settings,
                hierarchies,
                warnings,
                shim,
                available,
                filters: Mutex::default(),
                cleanups: Mutex::default(),
            }),
        })
    }

    /// What was found here when this was opened.
    pub fn info(&self) -> Info {
        let all = model::spec::CapabilitySet::ALL.0;
        Info {
            cgroup_version: if self.inner.hierarchies.version == Version::V2 { 2 } else { 1 },
            cgroup_driver: "cgroupfs",
            controllers: ["memory", "cpu", "cpuset", "pids"]
                .into_iter()
                .filter(|c| self.inner.hierarchies.has(c))
                .collect(),
            lacking: self.inner.warnings.clone(),
            missing_capabilities: model::spec::CapabilitySet(all & !self.inner.available).names(),
            seccomp: Path::new("/proc/sys/kernel/seccomp").exists(),
            cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
        }
    }

    /// What a container may have at most, for [`model::spec::Description`].
    pub fn available_capabilities(&self) -> model::spec::CapabilitySet {
        model::spec::CapabilitySet(self.inner.available)
    }

    /// Whether cgroups of version 1 control, for [`model::spec::Description`].
    pub fn is_cgroup_v1(&self) -> bool {
        self.inner.hierarchies.version != Version::V2
    }

    /// Prepare and launch.
    ///
    /// # Errors
    /// As [`Prepared::launch`].
    pub async fn start(&self, order: StartOrder) -> Result<Container, StartError> {
        self.prepare(order).await?.launch().await
    }

    /// Make the cgroup and spawn the shim: from then on it can be attached to.
    ///
    /// # Errors
    /// A limit cannot be set, or the shim cannot be started. Nothing is left then.
    pub async fn prepare(&self, order: StartOrder) -> Result<Prepared, StartError> {
        prepare::prepare(self, order).await
    }

    /// The container that an earlier daemon started: running, or how it ended; `None` if it never ran since the last
    /// [`Runtime::forget`] or the last boot.
    ///
    /// # Errors
    /// Its shim is there and cannot be understood.
    pub async fn reconnect(&self, id: ContainerId, log: Option<Log>) -> Result<Option<Reconnected>, Error> {
        held::reconnect(self, id, log).await
    }

    /// Hold a container whose shim was killed while no daemon was there, with what the keeper has held: a new shim takes
    /// over, and tells if it has ended. `None` if it did not come to run. One that a daemon holds needs no such call.
    ///
    /// # Errors
    /// The shim cannot be started, or refuses.
    pub async fn adopt(
        &self,
        id: ContainerId,
        held: Vec<OwnedFd>,
        stdio: Stdio,
        log: Option<Log>,
    ) -> Result<Option<Container>, StartError> {
        held::adopt(self, id, held, stdio, log).await
    }

    /// Take away what is left of a container's last run: after its end has been recorded.
    pub async fn forget(&self, id: ContainerId) {
        self.finish_cleanup(id).await;
        held::forget(self, id).await;
    }

    /// Take away this root's own cgroups, unless a container is in them. The next [`Runtime::open`] makes them again.
    pub async fn leave(&self) {
        let cleanups =
            self.inner.cleanups.lock().map(|mut cleanups| std::mem::take(&mut *cleanups)).unwrap_or_default();
        for (_, task) in cleanups {
            let _ = task.await;
        }
        self.inner.hierarchies.cgroup(&cgroup_parent(&self.inner.settings)).remove_empty();
    }

    pub(crate) fn home(&self, id: ContainerId) -> PathBuf {
        self.inner.settings.run_dir.join("containers").join(id.to_string())
    }

    pub(crate) fn cgroup(&self, id: ContainerId) -> Cgroup {
        self.inner.hierarchies.cgroup(&self.cgroup_path(id))
    }

    /// Where a container's cgroup is: with a parent of its own, its directory says so.
    pub(crate) fn cgroup_path(&self, id: ContainerId) -> String {
        let parent = std::fs::read_to_string(self.home(id).join(PARENT));
        format!("{}/{id}", parent.unwrap_or_else(|_| cgroup_parent(&self.inner.settings)))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// What executes the shim.
    pub(crate) fn shim_program(&self) -> PathBuf {
        if self.inner.shim.sealed {
            PathBuf::from(format!("/proc/self/fd/{}", self.inner.shim.fd.as_raw_fd()))
        } else {
            self.inner.settings.shim.clone()
        }
    }

    /// The compiled filter.
    pub(crate) fn filter(&self, profile: &LinuxSeccomp) -> Result<Arc<Vec<Instruction>>, model::seccomp::Refusal> {
        const KEPT: usize = 16;
        let Ok(mut filters) = self.inner.filters.lock() else {
            return Ok(Arc::new(model::seccomp::compile(profile, Arch::native())?));
        };
        if let Some((_, compiled)) = filters.iter().find(|(known, _)| known == profile) {
            return Ok(compiled.clone());
        }
        let compiled = Arc::new(model::seccomp::compile(profile, Arch::native())?);
        if filters.len() == KEPT {
            filters.remove(0);
        }
        filters.push((profile.clone(), compiled.clone()));
        Ok(compiled)
    }

    pub(crate) fn clean_up_later(&self, id: ContainerId, task: JoinHandle<()>) {
        if let Ok(mut cleanups) = self.inner.cleanups.lock() {
            cleanups.retain(|_, task| !task.is_finished());
            cleanups.insert(id, task);
        }
    }

    pub(crate) async fn finish_cleanup(&self, id: ContainerId) {
        let task = self.inner.cleanups.lock().ok().and_then(|mut cleanups| cleanups.remove(&id));
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

/// The file in a container's directory that names its cgroup's parent.
pub(crate) const PARENT: &str = "cgroup-parent";

fn cgroup_parent(settings: &Settings) -> String {
    format!("{}/isle-{}", settings.cgroup_parent.trim_matches('/'), settings.root)
}

pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
