//! A command beside a container's own, before, while and after it runs.

use model::id::{ContainerId, ExecId};
use std::sync::Mutex;

/// What a client asks for in `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub privileged: bool,
    pub detach_keys: String,
    /// Rows, columns.
    pub size: Option<(u16, u16)>,
}

/// A command, before and after its start.
#[derive(Debug)]
pub struct Exec {
    pub id: ExecId,
    pub container: ContainerId,
    pub request: ExecRequest,
    pub progress: Mutex<Progress>,
    pub(crate) ended: tokio::sync::Notify,
}

/// How far it has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub started: bool,
    pub running: bool,
    pub pid: i32,
    pub exit_code: Option<i64>,
    pub(crate) handle: Option<Handle>,
}

/// The way to it, once it has been prepared.
#[derive(Clone)]
pub(crate) struct Handle(pub runtime::Exec);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Exec {
    pub fn new(id: ExecId, container: ContainerId, request: ExecRequest) -> Self {
        Self { id, container, request, progress: Mutex::default(), ended: tokio::sync::Notify::new() }
    }

    /// Returns when the command has ended; clients ask for its exit code as soon as its output is over.
    pub async fn ended(&self) {
        loop {
            let told = self.ended.notified();
            if self.progress().exit_code.is_some() {
                return;
            }
            told.await;
        }
    }

    pub fn progress(&self) -> Progress {
        self.progress.lock().expect("no holder panics").clone()
    }
}
