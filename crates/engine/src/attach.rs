//! A container's stdio: attached clients and logs.

use crate::Engine;
use crate::describe::log_of;
use crate::error::{Error, Result};
use crate::state::Waiting;
use model::id::ContainerId;
use runtime::AttachOptions;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What an attaching client gets.
pub struct Attachment {
    pub tty: bool,
    /// The stdio: now, or once the container starts. An error if it never does.
    pub stdio: oneshot::Receiver<runtime::Attached>,
    /// For the log of what was before.
    pub id: ContainerId,
}

impl Engine {
    /// Attaches to a container's stdio; to one that is not yet started, for its start.
    ///
    /// # Errors
    /// There is no such container, or it is paused or ending.
    pub async fn attach(self: &Arc<Self>, reference: &str, options: AttachOptions) -> Result<Attachment> {
        let (ready, stdio) = oneshot::channel();
        let (id, tty, live, record) = {
            let mut state = self.state();
            let id = state.resolve(reference)?;
            let entry = state.entry_mut(id)?;
            let tty = entry.record.config.tty;
            match (&entry.live, entry.record.state.status) {
                (_, model::container::Status::Paused) => {
                    return Err(Error::conflict(format!(
                        "container {reference} is paused, unpause the container before attach"
                    )));
                }
                (Some(live), _) => (id, tty, live.clone(), entry.record.clone()),
                (None, _) => {
                    entry.waiting_attaches.push(Waiting { options, ready });
                    let record = entry.record.clone();
                    drop(state);
                    self.tell_container(&record, "attach", &[]);
                    return Ok(Attachment { tty, stdio, id });
                }
            }
        };
        let attached = match live.attach(options).await {
            Ok(attached) => attached,
            Err(e) => return Err(self.not_running(id, e).await),
        };
        self.tell_container(&record, "attach", &[]);
        let _ = ready.send(attached);
        Ok(Attachment { tty, stdio, id })
    }

    /// What a call that failed means to a client: its container may have ended, or gone, while it was made.
    pub(crate) async fn not_running(&self, id: ContainerId, error: runtime::CallError) -> Error {
        const SOON: std::time::Duration = std::time::Duration::from_secs(1);
        let mut pulse = match self.state().entry(id) {
            Err(gone) => return gone,
            Ok(entry) => entry.pulse.subscribe(),
        };
        let is_over = |p: &crate::state::Pulse| p.removed || p.status != model::container::Status::Running;
        // A shim that is gone has mostly ended with its container, which is about to be heard of.
        let ended = match &error {
            runtime::CallError::Gone(_) => tokio::time::timeout(SOON, pulse.wait_for(is_over)).await.is_ok(),
            other => other.is_over() || is_over(&pulse.borrow()),
        };
        match self.state().entry(id) {
            Err(gone) => gone,
            Ok(_) if ended => Error::conflict(format!("container {id} is not running")),
            Ok(_) => Error::internal(error),
        }
    }

    /// Gives the stdio of a container that is about to start to those who wait for it.
    pub(crate) async fn join_waiting_attaches(&self, id: ContainerId, prepared: &runtime::Prepared) {
        let waiting = match self.state().entry_mut(id) {
            Ok(entry) => std::mem::take(&mut entry.waiting_attaches),
            Err(_) => return,
        };
        for client in waiting {
            if client.ready.is_closed() {
                continue;
            }
            match prepared.attach(client.options).await {
                Ok(attached) => drop(client.ready.send(attached)),
                Err(e) => tracing::warn!(container = ?id, "a client is not attached: {e}"),
            }
        }
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// It does not run.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        let (id, live) = {
            let state = self.state();
            let entry = state.find(reference)?;
            let id = entry.record.id;
            (id, entry.live.clone().ok_or_else(|| Error::conflict(format!("container {id} is not running")))?)
        };
        match live.resize(runtime::Size { rows, columns }).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.not_running(id, e).await),
        }
    }

    /// Tells of lines that are lost for a container's log: at once, and each time that they are twice as many.
    pub(crate) fn watch_log(id: ContainerId, container: runtime::Container) {
        tokio::spawn(async move {
            let mut known = 0;
            loop {
                tokio::select! {
                    biased;
                    lost = container.loses_lines(known) => {
                        tracing::warn!(container = ?id, lost, "lines of its log are lost: they cannot be written");
                        known = lost.saturating_mul(2);
                    }
                    _ = container.wait() => return,
                }
            }
        });
    }

    /// Where a container's log is, and how it is to be read.
    ///
    /// # Errors
    /// It keeps none.
    pub fn log(&self, reference: &str) -> Result<LogSource> {
        let state = self.state();
        let entry = state.find(reference)?;
        let record = &entry.record;
        let log = log_of(&self.settings, record).ok_or_else(|| {
            Error::new(crate::Kind::NotImplemented, "configured logging driver does not support reading")
        })?;
        Ok(LogSource {
            log,
            tty: record.config.tty,
            pulse: entry.pulse.subscribe(),
            is_running: record.state.is_running(),
        })
    }
}

/// A log to be read.
pub struct LogSource {
    /// Where it is, and of how many files at most.
    pub log: runtime::Log,
    pub tty: bool,
    pub(crate) pulse: tokio::sync::watch::Receiver<crate::state::Pulse>,
    pub is_running: bool,
}

impl LogSource {
    /// Returns when the container does not run (any more): a log that is followed then ends.
    pub async fn ended(mut self) {
        use model::container::Status;
        let idle = |p: &crate::state::Pulse| {
            p.removed || !matches!(p.status, Status::Running | Status::Paused | Status::Restarting)
        };
        let _ = self.pulse.wait_for(idle).await;
    }
}
