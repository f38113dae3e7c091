//! Everything that is decided about a container, as plain data: the launcher looks nothing up and chooses nothing.
//! `runtime` derives it from the OCI runtime specification.

use crate::Size;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A container to launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its process.
    pub command: Command,
    /// Where that one's input comes from and its output goes.
    pub stdio: Stdio,
    /// `None`: output is for those attached only.
    pub log: Option<Log>,
    /// What lies at `/`.
    pub root: Root,
    /// In this order.
    pub mounts: Vec<Mount>,
    /// Nodes in its `/dev`, made before masking.
    pub devices: Vec<Device>,
    /// Of which nothing is seen: covered by an empty directory, or `/dev/null`.
    pub masked_paths: Vec<String>,
    /// Where nothing can be written.
    pub readonly_paths: Vec<String>,
    /// Of its uts namespace; `None` leaves what is there.
    pub hostname: Option<String>,
    /// The same, for NIS.
    pub domainname: Option<String>,
    /// Paths below `/proc/sys`, and what is written there.
    pub sysctls: Vec<(String, String)>,
    /// What it has for itself.
    pub namespaces: Namespaces,
    /// Where it is put.
    pub cgroup: Cgroup,
    /// Run a small init of ours as process 1, which reaps and forwards signals.
    pub init: bool,
    /// Execute this OCI runtime instead of launching: the bundle is the run directory.
    pub foreign: Option<Foreign>,
    /// For tests, and only in builds with debug assertions: fail at this step.
    pub fail_at: Option<Step>,
}

/// A process to execute: who it is and what it may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The program, looked up in the path of `env` where it has no slash, and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Absolute; made where it is missing (for the container's own process only).
    pub cwd: String,
    /// In the container's user namespace, as the groups are.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// `None`: 0022.
    pub umask: Option<u32>,
    /// What it may.
    pub capabilities: Capabilities,
    /// Nothing that it executes gains any (prctl(2): PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// Others stay as the shim's.
    pub rlimits: Vec<Rlimit>,
    /// A BPF program, compiled already.
    pub seccomp: Option<Vec<Instruction>>,
    /// `/proc/PID/oom_score_adj`, -1000 to 1000; `None` leaves the shim's.
    pub oom_score_adj: Option<i32>,
}

/// One instruction of classic BPF, `struct sock_filter`: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// The five sets, bit by capability number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What it can ever gain.
    pub bounding: u64,
    /// What counts now.
    pub effective: u64,
    /// What it may make effective.
    pub permitted: u64,
    /// What files may hand on.
    pub inheritable: u64,
    /// What programs without capabilities of their own keep.
    pub ambient: u64,
}

/// What [`Rlimit::resource`] is called, by its number (asm-generic/resource.h).
pub const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// One `setrlimit`, by the kernel's number of the resource. What cannot be raised is clamped, with a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// In the resource's unit; all bits set is unlimited.
    pub soft: u64,
    /// The same.
    pub hard: u64,
}

/// Where a process's stdin comes from and its output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// A terminal, or pipes.
    pub tty: bool,
    /// The terminal's first size; `None` leaves the kernel's.
    pub size: Option<Size>,
    /// Whether there is a stdin; `/dev/null` otherwise.
    pub stdin: bool,
    /// Close stdin when the first one attached to it closes his.
    pub stdin_once: bool,
}

/// A log in Docker's json-file format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The present file; older ones are beside it, `.1` the youngest.
    pub path: PathBuf,
    /// In bytes; rotated when it would be more. `None`: never.
    pub max_size: Option<u64>,
    /// Files in all; with 1, the file is begun anew.
    pub max_files: u32,
}

/// What lies at `/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Read-only layers, the uppermost first.
    pub lower: Vec<PathBuf>,
    /// What is changed; on one file system with `work`.
    pub upper: PathBuf,
    /// The overlay's own.
    pub work: PathBuf,
    /// Never sync to the disk.
    pub volatile: bool,
    /// Nothing at `/` can be changed, once everything is mounted.
    pub readonly: bool,
    /// An existing directory to attach it at, in the launcher's own mount namespace only.
    pub attach_at: PathBuf,
    /// `MS_SHARED`, `MS_SLAVE` and so on, with `MS_REC`; `None` means recursively slave and, for `/`, private.
    pub propagation: Option<u64>,
}

/// One mount of a container's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Resolved inside the root; made where it is missing.
    pub target: String,
    /// What is mounted there.
    pub what: What,
    /// `MOUNT_ATTR_*` to set (mount_setattr(2)).
    pub set: u64,
    /// Those to clear.
    pub clear: u64,
    /// Attributes apply to what is mounted below as well.
    pub recursively: bool,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, perhaps with `MS_REC`.
    pub propagation: Option<u64>,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// Something of the host's.
    Bind {
        /// Where it is there.
        source: PathBuf,
        /// With what is mounted below it.
        recursive: bool,
    },
    /// A file system of its own: `fsopen` with these parameters.
    New {
        /// As the kernel names it: `proc`, `tmpfs` …
        kind: String,
        /// What `/proc/mounts` shows as its source.
        source: String,
        /// Names and values; one without a value is a flag.
        parameters: Vec<(String, Option<String>)>,
    },
    /// The `/dev/shm` of the container whose ipc namespace is joined.
    JoinedShm,
    /// A tmpfs with one directory a hierarchy, each showing the container's own part, and links for those mounted
    /// together.
    Cgroup1 {
        /// The directories' names, and what of the host's each shows.
        hierarchies: Vec<(String, PathBuf)>,
        /// The links' names, and where each leads.
        links: Vec<(String, String)>,
    },
}

/// A node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Resolved inside the root.
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, and permissions.
    pub mode: u32,
    /// The driver's number; of a fifo nothing.
    pub major: u32,
    /// The device's among the driver's.
    pub minor: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Which namespaces. The mount namespace is always new. Each `Join` takes the next descriptor of the message: of the
/// namespace itself for `net`, a pidfd of one of its processes for the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Interfaces, routes and sockets.
    pub net: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// System V objects and message queues.
    pub ipc: Namespace,
    /// The hostname.
    pub uts: Namespace,
    /// What of the hierarchies is seen.
    pub cgroup: Namespace,
    /// Users and capabilities; `None` is the shim's own.
    pub user: Option<IdMaps>,
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// The shim's own.
    Host,
    /// Its own.
    New,
    /// Somebody else's.
    Join,
}

/// A new user namespace's maps, as `/proc/PID/uid_map` and `gid_map` want them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Lines of `INSIDE OUTSIDE COUNT`.
    pub uids: String,
    /// The same for groups.
    pub gids: String,
}

/// Where the process is put. The directories exist; the launcher only enters them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Entered by clone3.
    pub v2: Option<PathBuf>,
    /// Entered through each one's `tasks`.
    pub v1: Vec<PathBuf>,
    /// The file with a line `oom_kill N`.
    pub oom: Option<PathBuf>,
}

/// An OCI runtime that is executed instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// The file to execute.
    pub program: PathBuf,
    /// Its `--root`.
    pub state: PathBuf,
    /// The directory with its `config.json`.
    pub bundle: PathBuf,
    /// What it shall call the container.
    pub id: String,
}

/// The launcher's steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the texts below say what each does")]
pub enum Step {
    Stdio,
    Log,
    Root,
    Clone,
    Cgroup,
    OomScore,
    IdMaps,
    Namespaces,
    Propagation,
    AttachRoot,
    Mounts,
    Devices,
    Terminal,
    WorkingDirectory,
    Hostname,
    Sysctls,
    MaskedPaths,
    ReadonlyPaths,
    ReadonlyRoot,
    Pivot,
    Rlimits,
    Bounding,
    ChangeDirectory,
    Identity,
    Lookup,
    Seccomp,
    Capabilities,
    Execute,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Step; 28] = [
        Step::Stdio,
        Step::Log,
        Step::Root,
        Step::Clone,
        Step::Cgroup,
        Step::OomScore,
        Step::IdMaps,
        Step::Namespaces,
        Step::Propagation,
        Step::AttachRoot,
        Step::Mounts,
        Step::Devices,
        Step::Terminal,
        Step::WorkingDirectory,
        Step::Hostname,
        Step::Sysctls,
        Step::MaskedPaths,
        Step::ReadonlyPaths,
        Step::ReadonlyRoot,
        Step::Pivot,
        Step::Rlimits,
        Step::Bounding,
        Step::ChangeDirectory,
        Step::Identity,
        Step::Lookup,
        Step::Seccomp,
        Step::Capabilities,
        Step::Execute,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Stdio => "open stdio",
            Step::Log => "open the log",
            Step::Root => "mount the root file system",
            Step::Clone => "create the process",
            Step::IdMaps => "map users",
            Step::Cgroup => "enter the cgroup",
            Step::Namespaces => "join namespaces",
            Step::Propagation => "separate mounts from the host's",
            Step::AttachRoot => "attach the root file system",
            Step::Mounts => "mount",
            Step::Devices => "make the device",
            Step::Terminal => "open the terminal",
            Step::WorkingDirectory => "make the working directory",
            Step::Hostname => "set the host name",
            Step::Sysctls => "set the kernel parameter",
            Step::MaskedPaths => "mask the path",
            Step::ReadonlyPaths => "make the path read-only",
            Step::ReadonlyRoot => "make the root read-only",
            Step::OomScore => "set the OOM score",
            Step::Pivot => "change the root",
            Step::Rlimits => "set the limit",
            Step::Bounding => "drop capabilities",
            Step::ChangeDirectory => "change to the working directory",
            Step::Identity => "change the user",
            Step::Lookup => "exec:",
            Step::Seccomp => "load the seccomp filter",
            Step::Capabilities => "set capabilities",
            Step::Execute => "exec:",
        })
    }
}

/// What kind of failure, as Docker's exit codes tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command does not exist: 127.
    NotFound,
    /// The command cannot be executed: 126.
    NotExecutable,
    /// Anything else: 125 or 128, as the caller's command has it.
    Other,
}

/// A launch that stopped at a step. Nothing of it is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it stopped.
    pub step: Step,
    /// What that means for an exit code.
    pub kind: FailureKind,
    /// 0 where no call of the kernel's failed.
    pub errno: i32,
    /// The thing it was about.
    pub about: String,
}

impl Failure {
    /// The process whose namespaces were to be joined is no more.
    pub fn is_joining_the_dead(&self) -> bool {
        const ESRCH: i32 = 3;
        self.step == Step::Namespaces && self.errno == ESRCH
    }
}

const ENOTDIR: i32 = 20;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |f: &mut fmt::Formatter<'_>| {
            if self.errno == 0 { Ok(()) } else { write!(f, ": {}", errno_words(self.errno)) }
        };
        match self.step {
            Step::Lookup | Step::Execute if self.kind == FailureKind::NotFound && !self.about.contains('/') => {
                write!(f, "exec: {:?}: executable file not found in $PATH", self.about)
            }
            Step::Lookup | Step::Execute if self.kind == FailureKind::NotFound => {
                write!(f, "exec: {:?}: stat {}: no such file or directory", self.about, self.about)
            }
            Step::Lookup | Step::Execute => write!(f, "exec: {:?}", self.about).and_then(|()| why(f)),
            step => {
                write!(f, "cannot {step}")?;
                if !self.about.is_empty() {
                    write!(f, " {}", self.about)?;
                }
                why(f)?;
                // In the words that runc and Docker have for it.
                if step == Step::Mounts && self.errno == ENOTDIR {
                    write!(
                        f,
                        ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified \
                         host path exists and is the expected type"
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Failure {}

/// The kernel's words for an error number, as runc prints them: `permission denied`.
pub fn errno_words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
