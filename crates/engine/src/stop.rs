//! How a container ends: by itself or by a signal; and who waits for it.

use crate::Engine;
use crate::error::{Error, Kind, Result};
use crate::state::Pulse;
use crate::store::Write;
use model::container::{Container, Status};
use model::id::ContainerId;
use model::restart::backoff;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Docker's: how long a container has to end by itself.
const GRACE: i64 = 10;

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    NotRunning,
    NextExit,
    Removed,
}

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub exit_code: i64,
    pub error: String,
}

impl Engine {
    /// Follows a running container to its end, and looks after its health and its log meanwhile.
    pub(crate) fn watch_exit(self: &Arc<Self>, id: ContainerId, container: runtime::Container) {
        self.watch_health(id, container.clone());
        Engine::watch_log(id, container.clone());
        let engine = self.clone();
        tokio::spawn(async move {
            let status = container.wait().await;
            let Ok(_turn) = engine.turn(id).await else { return };
            // A restart may have been quicker: then this end is not the present run's.
            let is_current = engine.state().entry(id).is_ok_and(|e| {
                e.live.as_ref().is_some_and(|l| l.pid() == container.pid() && l.started_at() == container.started_at())
            });
            if is_current {
                engine.ended(id, status).await;
            }
        });
    }

    /// Records an end and does what follows from it. Called in the container's turn.
    pub(crate) async fn ended(self: &Arc<Self>, id: ContainerId, status: runtime::ExitStatus) {
        let before = match self.state().entry(id) {
            Ok(entry) => entry.record.clone(),
            Err(_) => return,
        };
        self.take_down(id).await;
        let (record, ran) = {
            let mut state = self.state();
            let Ok(entry) = state.entry_mut(id) else { return };
            let own = &mut entry.record.state;
            own.exit_code = i64::from(status.code);
            own.oom_killed = status.oom_killed;
            own.finished = Some(status.finished_at);
            if status.unknown {
                own.error = "the exit status is not known: its shim had ended before it".into();
            }
            let ran = own.started.map_or(Duration::ZERO, |s| {
                Duration::try_from(own.finished.unwrap_or(s).duration_since(s)).unwrap_or_default()
            });
            // Those who wait for the end of this run hear of it before another begins.
            entry.record.state.status = Status::Exited;
            (entry.record.clone(), ran)
        };
        let exit_code = record.state.exit_code;
        if status.oom_killed {
            self.tell_container(&record, "oom", &[]);
        }
        self.tell_container(
            &record,
            "die",
            &[("exitCode", exit_code.to_string()), ("execDuration", ran.as_secs().to_string())],
        );
        for endpoint in &before.endpoints {
            if endpoint.active.is_some()
                && let Some(network) = endpoint.network.and_then(|n| self.state().networks.get(&n).cloned())
            {
                self.tell_network(&network, "disconnect", Some(&record));
            }
        }
        self.tell_mounts(&record, false);
        let (record, again) = {
            let mut state = self.state();
            let closing = state.closing;
            let Ok(entry) = state.entry_mut(id) else { return };
            let again = comes_again(&record, closing).then(|| backoff(entry.backoff, ran));
            entry.backoff = again;
            if again.is_some() {
                entry.record.state.status = Status::Restarting;
                entry.record.restarts += 1;
            }
            (entry.record.clone(), again)
        };
        let recorded = async {
            self.faults.pass("end: record").await?;
            self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await
        };
        match recorded.await {
            Ok(()) => self.runtime.forget(id).await,
            // The shim's word on the end stays, for the next daemon to find.
            Err(e) => tracing::error!(container = ?id, "its end is not recorded: {e}"),
        }
        let removes = {
            let mut state = self.state();
            let Ok(entry) = state.entry_mut(id) else { return };
            let status = entry.record.state.status;
            entry.pulse.send_modify(|p| {
                *p = Pulse { status, ends: p.ends + 1, exit_code, error: String::new(), removed: false };
            });
            record.host.auto_remove && entry.restarting_by_client == 0
        };
        match again {
            Some(delay) => self.restart_later(id, delay),
            None if removes => {
                if let Err(e) = self.remove_in_turn(id, true).await {
                    tracing::error!(container = ?id, "--rm: {e}");
                }
            }
            None => {}
        }
    }

    /// Stops a container: its stop signal, and SIGKILL after `timeout` seconds (-1: never).
    ///
    /// # Errors
    /// It does not run ([`Kind::NotModified`]).
    pub async fn stop(self: &Arc<Self>, reference: &str, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
        let engine = self.clone();
        let id = self.state().resolve(reference)?;
        let signal = signal.map(str::to_owned);
        self.detached(async move { engine.stop_id(id, timeout, signal.as_deref()).await }).await
    }

    pub(crate) async fn stop_id(
        self: &Arc<Self>,
        id: ContainerId,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<()> {
        // A start that is under way comes first, or it would not be stopped.
        let turn = self.turn(id).await?;
        let (record, live, number, mut pulse) = {
            let mut state = self.state();
            let closing = state.closing;
            let entry = state.entry_mut(id)?;
            let name = signal.or(entry.record.config.stop_signal.as_deref()).unwrap_or("SIGTERM");
            let number = signal_number(name)?;
            let live = entry.live.clone();
            if live.is_none() && entry.record.state.status != Status::Restarting {
                return Err(Error::new(Kind::NotModified, "container is already stopped"));
            }
            // What the daemon stops for its own sake, the next one starts.
            entry.record.stopped_by_client |= !closing;
            if live.is_none() {
                cancel_restart(entry);
            }
            (entry.record.clone(), live, number, entry.pulse.subscribe())
        };
        // Committed: `unless-stopped` heeds it after a power cut, too.
        self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await?;
        // Counted in our turn: an end that is recorded right after it is the one that we wait for.
        let ends = pulse.borrow().ends;
        drop(turn);
        let Some(live) = live else { return Ok(()) };
        self.send_signal(&record, &live, number, true).await?;
        let grace = timeout.or(record.config.stop_timeout).unwrap_or(GRACE);
        let over = pulse.wait_for(|p| p.ends > ends || p.removed);
        let ended = match u64::try_from(grace) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), over).await.is_ok(),
            Err(_) => over.await.is_ok(),
        };
        if !ended {
            self.send_signal(&record, &live, 9, true).await?;
            let _ = pulse.wait_for(|p| p.ends > ends || p.removed).await;
        }
        self.tell_container(&record, "stop", &[]);
        Ok(())
    }

    /// Signals the process; `ends` it where it is paused, too: a frozen process heeds no signal. One that has just ended
    /// is no failure.
    async fn send_signal(&self, record: &Container, live: &runtime::Container, signal: i32, ends: bool) -> Result<()> {
        if live.exit_status().is_some() {
            return Ok(());
        }
        match live.signal(signal).await {
            Ok(()) => {
                self.tell_container(record, "kill", &[("signal", signal.to_string())]);
                if ends && live.is_paused() && live.unpause().await.is_ok() {
                    if let Ok(entry) = self.state().entry_mut(record.id)
                        && entry.record.state.status == Status::Paused
                    {
                        entry.set_status(Status::Running);
                    }
                    self.tell_container(record, "unpause", &[]);
                }
                Ok(())
            }
            Err(e) if e.is_over() || live.exit_status().is_some() => Ok(()),
            Err(e) => Err(Error::internal(e).context(format!("cannot signal container {}", record.name))),
        }
    }

    /// Sends a signal, by name or number. One that kills or stops it also ends its restarts.
    ///
    /// # Errors
    /// It does not run, or there is no such signal.
    pub async fn kill(self: &Arc<Self>, reference: &str, signal: &str) -> Result<()> {
        let number = signal_number(signal)?;
        let id = self.state().resolve(reference)?;
        let (engine, reference) = (self.clone(), reference.to_owned());
        self.detached(async move { engine.kill_id(id, &reference, number).await }).await
    }

    pub(crate) async fn kill_id(self: &Arc<Self>, id: ContainerId, reference: &str, number: i32) -> Result<()> {
        let turn = self.turn(id).await?;
        let (record, live, ends, mut pulse) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let live = entry.live.clone();
            if live.is_none() && entry.record.state.status != Status::Restarting {
                return Err(Error::conflict(format!(
                    "cannot kill container: {reference}: container {id} is not running"
                )));
            }
            let stop = entry.record.config.stop_signal.as_deref().and_then(|s| signal_number(s).ok()).unwrap_or(15);
            let ends = number == 9 || number == stop;
            entry.record.stopped_by_client |= ends;
            if live.is_none() {
                // Between two runs there is nobody to signal; it does not come to the next.
                entry.record.stopped_by_client = true;
                cancel_restart(entry);
            }
            (entry.record.clone(), live, ends, entry.pulse.subscribe())
        };
        self.store.record(vec![Write::Container(Box::new(record.clone()))]);
        let before = pulse.borrow().ends;
        drop(turn);
        let Some(live) = live else { return Ok(()) };
        self.send_signal(&record, &live, number, ends).await?;
        if number == 9 {
            // Docker's answer comes when it is dead; a process in the kernel may take its time.
            let dead = pulse.wait_for(|p| p.ends > before || p.removed);
            let _ = tokio::time::timeout(Duration::from_secs(10), dead).await;
        }
        Ok(())
    }

    /// What a client waits for; the condition is looked at before this returns.
    ///
    /// # Errors
    /// There is no such container.
    pub fn wait(self: &Arc<Self>, reference: &str, until: Until) -> Result<impl Future<Output = Ended> + Send + use<>> {
        let state = self.state();
        let entry = state.find(reference)?;
        let mut pulse = entry.pulse.subscribe();
        let first = pulse.borrow().clone();
        Ok(async move {
            let result = match until {
                Until::NotRunning => {
                    let idle = |p: &Pulse| {
                        p.ends > first.ends
                            || p.removed
                            || !matches!(p.status, Status::Running | Status::Paused | Status::Restarting)
                    };
                    pulse.wait_for(idle).await
                }
                Until::NextExit => pulse.wait_for(|p| p.ends > first.ends || p.removed).await,
                Until::Removed => pulse.wait_for(|p| p.removed).await,
            };
            match result {
                Ok(p) => Ended { exit_code: p.exit_code, error: p.error.clone() },
                Err(_) => Ended { exit_code: first.exit_code, error: first.error },
            }
        })
    }
}

/// Whether a container that has ended is to be started again.
fn comes_again(record: &Container, closing: bool) -> bool {
    let policy = record.host.restarts();
    !closing && policy.comes_again(record.stopped_by_client, record.state.exit_code, record.restarts)
}

/// A container between two runs does not come to the next.
fn cancel_restart(entry: &mut crate::state::Entry) {
    if let Some(restart) = entry.restart.take() {
        restart.abort();
    }
    entry.set_status(Status::Exited);
}

/// # Errors
/// There is no such signal.
pub fn signal_number(text: &str) -> Result<i32> {
    model::signal::number(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}
