//! What the daemon and a container's shim say to each other, over a stream socket in the container's run directory.
//!
//! - [`launch`]: everything that is decided about a container, as plain data
//! - [`frame`]: how bytes become messages: a header of eight bytes, then a postcard value or raw stdio
//! - [`transport`]: the blocking half that both sides share: bytes and descriptors through one socket
//! - here: who may say what
//!
//! A connection opens with a `Hello` from the shim. It then carries calls and their replies, in order, until it
//! subscribes (events come as well) or attaches (from the reply on, it carries one process's stdio and nothing else).
//! A client that goes away costs nothing: what it asked for is done, its connection is forgotten.

pub mod frame;
pub mod launch;
pub mod transport;

use launch::{Command, Failure, Launch, Stdio};
use serde::{Deserialize, Serialize};

/// The protocol's version. A shim outlives the daemon that started it, so a newer daemon speaks older versions too.
pub const VERSION: u32 = 1;

/// Names of files in a container's run directory.
pub mod file {
    /// The shim's listening socket.
    pub const SOCKET: &str = "shim.sock";
    /// An [`ExitRecord`](super::ExitRecord), written when the container's process has died.
    pub const EXIT: &str = "exit";
    /// A [`Running`](super::Running), written when the container's process has been started.
    pub const RUNNING: &str = "running";
    /// What the log does not have yet, since its line has not ended: for the shim that takes over from a killed one.
    pub const PARTIAL: &str = "partial";
}

/// One request, numbered by its client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub number: u64,
    pub request: Request,
}

/// Which of the shim's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Process {
    /// The container's own.
    Main,
    /// A command beside it, numbered by the shim.
    Exec(u32),
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    One(Process),
    /// Every process in the container's cgroup.
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Start the container's process. Once in a shim's life. Descriptors: those of the namespaces to join, in the
    /// order of [`launch::Namespaces`]' fields.
    Launch(Box<Launch>),
    /// Hold a container that another shim, now dead, has launched. Descriptors: a pidfd of its process, then stdin
    /// and stdout and stderr as far as [`Adopt`] says they exist (a terminal's master is 'stdout' only).
    Adopt(Box<Adopt>),
    Signal {
        whom: Whom,
        signal: i32,
    },
    /// Turn this connection into one process's stdio. Asked before the launch, nothing of the output is lost.
    Attach {
        process: Process,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        process: Process,
        size: Size,
    },
    /// Make a place for a command, which can be attached to before it is started.
    PrepareExec {
        stdio: Stdio,
    },
    StartExec {
        exec: u32,
        command: Box<Command>,
    },
    /// Forget a command that has ended or was never started.
    ForgetExec {
        exec: u32,
    },
    /// Send events on this connection from now on; those that have happened are repeated.
    Subscribe,
    /// Duplicates of what only the shim holds. Answered by [`Reply::Held`] with descriptors.
    HandOver,
    Status,
    /// End. Refused while the container's process runs, unless `force`: then the process is killed first.
    Go {
        force: bool,
    },
}

/// Where a container whose shim died stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopt {
    pub pid: i32,
    pub started: Time,
    pub stdio: Stdio,
    pub has_stdin: bool,
    pub has_stdout: bool,
    pub has_stderr: bool,
    pub log: Option<launch::Log>,
    pub cgroup: launch::Cgroup,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// The container's process, or a command, runs. Descriptor: its pidfd.
    Started(Running),
    /// The number of a prepared command.
    Exec(u32),
    Status(Status),
    /// Descriptors: the process's pidfd, then stdin (writing end), stdout, stderr (reading ends) as far as they exist;
    /// of a terminal only its master, as 'stdout'.
    Held {
        stdio: Stdio,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// In the namespace that the shim lives in.
    pub pid: i32,
    pub started: Time,
    /// Limits that were clamped and the like, as sentences.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub main: State,
    pub execs: Vec<(u32, State)>,
    /// Log lines that no disk wanted.
    pub lines_lost: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    Prepared,
    Running(Running),
    Exited(ExitRecord),
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Exited {
        process: Process,
        exit: ExitRecord,
    },
    /// So many lines in all could not be logged.
    LinesLost(u64),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// As a shell would say it: 128 and the signal's number for a killed process. `None` where nobody can know: its
    /// shim had died and the kernel does not tell.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub at: Time,
    /// Whether the kernel killed something in its cgroup for want of memory.
    pub oom: bool,
}

/// Time since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// The process could not be started.
    Launch(Failure),
    /// It does not run: not yet, or no longer.
    NotRunning,
    /// No such command.
    NoSuchExec,
    /// Only once, and it has been.
    AlreadyStarted,
    /// The kernel said no to what the text says.
    Kernel { doing: String, errno: i32 },
    /// The message makes no sense.
    Malformed,
}

/// What a shim says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    Hello { version: u32 },
    Reply { number: u64, result: Result<Reply, Refusal> },
    Event(Event),
}
