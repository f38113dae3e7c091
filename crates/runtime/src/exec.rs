//! A command beside a container's process.

use crate::connection::{self, CallError, Control, Told};
use crate::container::{Container, ExitStatus};
use crate::{AttachOptions, Attached, Size, StartError};
use jiff::Timestamp;
use oci_spec::runtime::{LinuxSeccomp, Process as SpecProcess};
use shim_protocol::launch::Command;
use shim_protocol::{Process, Reply, Request, Whom};
use std::sync::Arc;
use tokio::sync::watch;

/// A command to run beside the container's process.
pub struct ExecOrder {
    /// The command, as the OCI runtime specification has it.
    pub process: SpecProcess,
    /// The container's profile.
    pub seccomp: Option<LinuxSeccomp>,
    /// Somebody writes to it; else its input is at its end.
    pub open_stdin: bool,
    /// The terminal's first size; else what the process says.
    pub size: Option<Size>,
}

/// A command, from before its start until its end.
#[derive(Clone)]
pub struct Exec {
    container: Container,
    /// Of the shim that it is a child of: with that one it ends.
    control: Control,
    number: u32,
    command: Arc<Command>,
}

impl Exec {
    pub(crate) fn new(container: Container, control: Control, number: u32, command: Command) -> Exec {
        Exec { container, control, number, command: Arc::new(command) }
    }

    /// Take the command's stdio, before or after its start.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, CallError> {
        connection::attach(self.container.home(), Process::Exec(self.number), options).await
    }

    /// Start it: its pid, in the daemon's namespace.
    ///
    /// # Errors
    /// At which step it failed, and why; or the container has ended.
    pub async fn start(&self) -> Result<i32, StartError> {
        let Some(_going) = self.container.keep_going().await else { return Err(StartError::Paused) };
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
        exit.unwrap_or_else(|| ExitStatus::unknown(Timestamp::now()))
    }

    /// Forget it, once it has ended.
    pub async fn forget(&self) {
        let _ = self.call(Request::ForgetExec { exec: self.number }).await;
    }

    async fn call(&self, request: Request) -> Result<(), CallError> {
        self.control.call(request, Vec::new()).await.map(|_| ())
    }
}
