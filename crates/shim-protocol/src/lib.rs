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

#![warn(missing_docs)]

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
    /// Of this connection; its reply carries it, too.
    pub number: u64,
    /// What is asked.
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
    /// One process alone.
    One(Process),
    /// Every process in the container's cgroup.
    All,
}

/// What a client may ask. Each is answered by one [`Reply`], or a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Start the container's process. Once in a shim's life. Descriptors: those of the namespaces to join, in the
    /// order of [`launch::Namespaces`]' fields.
    Launch(Box<Launch>),
    /// Hold a container that another shim, now dead, has launched. Descriptors: a pidfd of its process, then stdin
    /// and stdout and stderr as far as [`Adopt`] says they exist (a terminal's master is 'stdout' only).
    Adopt(Box<Adopt>),
    /// kill(2), or the same for a whole cgroup.
    Signal {
        /// Who gets it.
        whom: Whom,
        /// By the kernel's number.
        signal: i32,
    },
    /// Turn this connection into one process's stdio. Asked before the launch, nothing of the output is lost.
    Attach {
        /// Whose.
        process: Process,
        /// Frames of [`frame::Kind::Stdin`] go to it.
        stdin: bool,
        /// Its output comes as [`frame::Kind::Stdout`].
        stdout: bool,
        /// Its errors come as [`frame::Kind::Stderr`]; a terminal has none.
        stderr: bool,
    },
    /// Set a terminal's size. Before the start it is the first one.
    Resize {
        /// Whose.
        process: Process,
        /// The new one.
        size: Size,
    },
    /// Make a place for a command, which can be attached to before it is started.
    PrepareExec {
        /// What it will have.
        stdio: Stdio,
    },
    /// Start a prepared command. Answered by [`Reply::Started`].
    StartExec {
        /// As [`Reply::Exec`] numbered it.
        exec: u32,
        /// What to execute.
        command: Box<Command>,
    },
    /// Forget a command that has ended or was never started.
    ForgetExec {
        /// As [`Reply::Exec`] numbered it.
        exec: u32,
    },
    /// Send events on this connection from now on; those that have happened are repeated.
    Subscribe,
    /// Duplicates of what only the shim holds. Answered by [`Reply::Held`] with descriptors.
    HandOver,
    /// How are its processes? Answered by [`Reply::Status`].
    Status,
    /// End. Refused while the container's process runs, unless `force`: then the process is killed first.
    Go {
        /// Kill it.
        force: bool,
    },
}

/// Where a container whose shim died stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopt {
    /// In the namespace that the shim lives in.
    pub pid: i32,
    /// When its program was executed.
    pub started: Time,
    /// As it was launched with.
    pub stdio: Stdio,
    /// A descriptor of its stdin comes along.
    pub has_stdin: bool,
    /// One of its stdout, or its terminal's master.
    pub has_stdout: bool,
    /// One of its stderr.
    pub has_stderr: bool,
    /// As it was launched with.
    pub log: Option<launch::Log>,
    /// Where it is.
    pub cgroup: launch::Cgroup,
}

/// What a shim answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, and there is nothing to say of it.
    Done,
    /// The container's process, or a command, runs. Descriptor: its pidfd.
    Started(Running),
    /// The number of a prepared command.
    Exec(u32),
    /// How its processes are.
    Status(Status),
    /// Descriptors: the process's pidfd, then stdin (writing end), stdout, stderr (reading ends) as far as they exist;
    /// of a terminal only its master, as 'stdout'.
    Held {
        /// As it was launched with.
        stdio: Stdio,
        /// Its descriptor comes along.
        stdin: bool,
        /// The same of stdout, or of a terminal's master.
        stdout: bool,
        /// The same of stderr.
        stderr: bool,
    },
}

/// A process that has been started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// In the namespace that the shim lives in.
    pub pid: i32,
    /// When its program was executed.
    pub started: Time,
    /// Limits that were clamped and the like, as sentences.
    pub warnings: Vec<String>,
}

/// How a shim's processes are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The container's process.
    pub main: State,
    /// Its commands, by their numbers; those forgotten are not among them.
    pub execs: Vec<(u32, State)>,
    /// Log lines that no disk wanted.
    pub lines_lost: u64,
}

/// How one process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// It was not started yet.
    Prepared,
    /// It runs.
    Running(Running),
    /// It has ended.
    Exited(ExitRecord),
    /// It could not be started.
    Failed(Failure),
}

/// What a shim tells those who subscribed, unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A process has ended, and its output is in the log.
    Exited {
        /// Which.
        process: Process,
        /// How.
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
    /// When the shim heard of it.
    pub at: Time,
    /// Whether the kernel killed something in its cgroup for want of memory.
    pub oom: bool,
}

/// Time since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Before the epoch they are negative.
    pub seconds: i64,
    /// Below 1 000 000 000.
    pub nanoseconds: u32,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
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
    Kernel {
        /// What was tried, as in 'cannot …'.
        doing: String,
        /// Why not, by the kernel's number.
        errno: i32,
    },
    /// The message makes no sense.
    Malformed,
}

/// What a shim says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The first message of a connection.
    Hello {
        /// The shim's [`VERSION`].
        version: u32,
    },
    /// The answer to a call.
    Reply {
        /// The call's.
        number: u64,
        /// What came of it.
        result: Result<Reply, Refusal>,
    },
    /// Something happened: for those who subscribed.
    Event(Event),
}
