//! How a container ends: by itself, by a signal, by removal; and who waits for it.

use crate::error::{Error, Kind, Result};
use crate::state::Pulse;
use crate::store::Write;
use crate::{Engine, blocking, naming};
use model::container::{Container, HostConfig, Status};
use model::id::ContainerId;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Docker's: how long a container has to end by itself.
const GRACE: i64 = 10;
/// A restart waits for twice as long as the last one, from here up to a minute; a run of ten seconds begins anew.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
const GOOD_RUN: Duration = Duration::from_secs(10);

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
    /// Follows a running container to its end, and checks its health meanwhile.
    pub(crate) fn watch_exit(self: &Arc<Self>, id: ContainerId, container: runtime::Container) {
        self.watch_health(id, container.clone());
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
            let again = (!closing && comes_again(&record, exit_code)).then(|| backoff(entry.backoff, ran));
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

    /// Starts a container that is restarting: after `delay`, and after those whose namespaces it shares.
    pub(crate) fn restart_later(self: &Arc<Self>, id: ContainerId, delay: Duration) {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let owners: Vec<_> = {
                let state = engine.state();
                let Ok(entry) = state.entry(id) else { return };
                let owners = owners(&entry.record.host).filter_map(|owner| state.find(owner).ok());
                owners.map(|owner| owner.pulse.subscribe()).collect()
            };
            for mut owner in owners {
                let _ = owner.wait_for(|p| p.status != Status::Restarting || p.removed).await;
            }
            // From here on it is a start like any other, which nobody aborts half way.
            tokio::spawn(async move {
                let Ok(_turn) = engine.turn(id).await else { return };
                let is_due = engine.state().entry(id).is_ok_and(|e| e.record.state.status == Status::Restarting);
                if is_due && let Err(e) = engine.start_in_turn(id).await {
                    tracing::warn!(container = ?id, "cannot be restarted: {e}");
                }
            });
        });
        if let Ok(entry) = self.state().entry_mut(id) {
            entry.restart = Some(task.abort_handle());
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

    async fn stop_id(self: &Arc<Self>, id: ContainerId, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
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

    async fn kill_id(self: &Arc<Self>, id: ContainerId, reference: &str, number: i32) -> Result<()> {
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

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// As stopping and starting.
    pub async fn restart(self: &Arc<Self>, reference: &str, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
        let engine = self.clone();
        let id = self.state().resolve(reference)?;
        let signal = signal.map(str::to_owned);
        self.detached(async move {
            // `--rm` removes on exit, not on restart.
            engine.state().entry_mut(id)?.restarting_by_client += 1;
            let restarted = engine.restart_id(id, timeout, signal.as_deref()).await;
            let unwanted = {
                let mut state = engine.state();
                let Ok(entry) = state.entry_mut(id) else { return restarted };
                entry.restarting_by_client -= 1;
                let state = &entry.record.state;
                entry.record.host.auto_remove && entry.restarting_by_client == 0 && state.status == Status::Exited
            };
            if unwanted {
                // It has ended again before this client was done.
                let _turn = engine.turn(id).await?;
                let still = engine.state().entry(id).is_ok_and(|e| e.record.state.status == Status::Exited);
                if still {
                    engine.remove_in_turn(id, true).await?;
                }
            }
            restarted
        })
        .await
    }

    async fn restart_id(self: &Arc<Self>, id: ContainerId, timeout: Option<i64>, signal: Option<&str>) -> Result<()> {
        match self.stop_id(id, timeout, signal).await {
            Err(e) if e.kind == Kind::NotModified => {}
            other => other?,
        }
        let _turn = self.turn(id).await?;
        match self.start_by_client(id).await {
            Err(e) if e.kind == Kind::NotModified => {}
            other => other?,
        }
        let record = self.state().entry(id)?.record.clone();
        self.tell_container(&record, "restart", &[]);
        Ok(())
    }

    /// # Errors
    /// It does not run, or is paused already.
    pub async fn pause(self: &Arc<Self>, reference: &str) -> Result<()> {
        self.freeze(reference, true).await
    }

    /// # Errors
    /// It is not paused.
    pub async fn unpause(self: &Arc<Self>, reference: &str) -> Result<()> {
        self.freeze(reference, false).await
    }

    async fn freeze(self: &Arc<Self>, reference: &str, frozen: bool) -> Result<()> {
        self.in_turn(reference, move |engine, id| async move {
            let (record, live) = {
                let state = engine.state();
                let entry = state.entry(id)?;
                let Some(live) = entry.live.clone() else {
                    return Err(Error::conflict(format!("Container {id} is not running")));
                };
                (entry.record.clone(), live)
            };
            match (record.state.status, frozen) {
                (Status::Paused, true) => return Err(Error::conflict(format!("Container {id} is already paused"))),
                (Status::Running, false) => return Err(Error::conflict(format!("Container {id} is not paused"))),
                _ => {}
            }
            // What is frozen and not recorded so was a commit's, whose daemon died: the next one lets it go on.
            if frozen {
                engine.record_status(id, Status::Paused).await?;
            }
            let done = if frozen { live.pause().await } else { live.unpause().await };
            if frozen != done.is_ok() {
                engine.record_status(id, Status::Running).await?;
            }
            done.map_err(|e| match live.exit_status() {
                Some(_) => Error::conflict(format!("Container {id} is not running")),
                None => Error::internal(e).context(format!("cannot pause container {}", record.name)),
            })?;
            engine.tell_container(&record, if frozen { "pause" } else { "unpause" }, &[]);
            Ok(())
        })
        .await
    }

    async fn record_status(&self, id: ContainerId, status: Status) -> Result<()> {
        let (record, before) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let before = entry.record.state.status;
            entry.set_status(status);
            (entry.record.clone(), before)
        };
        let recorded = self.store.commit(vec![Write::Container(Box::new(record))]).await;
        if recorded.is_err() {
            self.state().entry_mut(id)?.set_status(before);
        }
        recorded
    }

    /// Removes a container; `force` kills it first, `volumes` takes its anonymous volumes along.
    ///
    /// # Errors
    /// It runs and `force` is not given.
    pub async fn remove_container(self: &Arc<Self>, reference: &str, force: bool, volumes: bool) -> Result<()> {
        let engine = self.clone();
        let id = self.state().resolve(reference)?;
        self.detached(async move {
            let turn = {
                let state = engine.state();
                let entry = state.entry(id)?;
                if entry.record.state.status == Status::Removing {
                    let name = &entry.record.name;
                    return Err(Error::conflict(format!("removal of container {name} is already in progress")));
                }
                entry.turn.clone()
            };
            loop {
                // A start, or another's removal, that is under way comes first.
                let guard = turn.lock().await;
                let (live, status, name) = {
                    let state = engine.state();
                    // `--rm` was quicker, or another client.
                    let Ok(entry) = state.entry(id) else { return Ok(()) };
                    (entry.live.clone(), entry.record.state.status, entry.record.name.clone())
                };
                if !force {
                    check_removable(status, &name)?;
                }
                let Some(live) = live else { return engine.remove_in_turn(id, volumes).await };
                drop(guard);
                match engine.kill_id(id, &name, 9).await {
                    Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
                    other => other?,
                }
                let survives = live.exit_status().is_none();
                if survives {
                    return Err(Error::new(
                        Kind::Internal,
                        format!("cannot remove container \"/{name}\": could not kill: it does not end"),
                    ));
                }
            }
        })
        .await
    }

    /// Removes what does not run. Called in the container's turn.
    pub(crate) async fn remove_in_turn(self: &Arc<Self>, id: ContainerId, volumes: bool) -> Result<()> {
        let (record, status) = {
            let mut state = self.state();
            let entry = state.entry_mut(id)?;
            let status = entry.record.state.status;
            if entry.live.is_some() {
                return check_removable(Status::Running, &entry.record.name);
            }
            if let Some(restart) = entry.restart.take() {
                restart.abort();
            }
            entry.set_status(Status::Removing);
            (entry.record.clone(), status)
        };
        let gone = async {
            self.faults.pass("remove").await?;
            self.store.commit(vec![Write::ContainerGone(id)]).await
        };
        if let Err(e) = gone.await {
            self.state().entry_mut(id)?.set_status(status);
            return Err(e);
        }
        self.runtime.forget(id).await;
        self.forget(id);
        if volumes {
            for mount in record.mounts.iter().filter(|m| m.anonymous) {
                if let Err(e) = self.remove_volume(&mount.name, true).await {
                    tracing::debug!(volume = mount.name, "stays: {e}");
                }
            }
        }
        self.tell_container(&record, "destroy", &[]);
        Ok(())
    }

    /// Renames a container; its names on its networks change with it (API-31).
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub async fn rename(self: &Arc<Self>, reference: &str, name: &str) -> Result<()> {
        let name = name.trim_start_matches('/').to_owned();
        self.in_turn(reference, move |engine, id| async move {
            let (old, record, changes) = {
                let mut state = engine.state();
                let old = state.entry(id)?.record.name.clone();
                if old == name {
                    return Err(Error::invalid("Renaming a container with the same name as its current name"));
                }
                state.take_name(&name, id)?;
                state.names.remove(&old);
                let entry = state.entry_mut(id)?;
                entry.record.name.clone_from(&name);
                let record = entry.record.clone();
                (old, record.clone(), naming::join_changes(&state, &record))
            };
            let renamed = async {
                engine.store.commit(vec![Write::Container(Box::new(record.clone()))]).await?;
                engine.faults.pass("rename").await?;
                engine.keeper.apply(changes).await
            };
            if let Err(e) = renamed.await {
                let (record, changes) = {
                    let mut state = engine.state();
                    state.names.remove(&name);
                    state.names.insert(old.clone(), id);
                    let entry = state.entry_mut(id)?;
                    entry.record.name.clone_from(&old);
                    let record = entry.record.clone();
                    (record.clone(), naming::join_changes(&state, &record))
                };
                engine.store.record(vec![Write::Container(Box::new(record))]);
                let _ = engine.keeper.apply(changes).await;
                return Err(e);
            }
            engine.tell_container(&record, "rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
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

    /// The bytes that a container has written over its image.
    pub async fn writable_size(self: &Arc<Self>, reference: &str) -> u64 {
        let Ok((id, volatile)) = self.state().find(reference).map(|e| (e.record.id, e.record.host.auto_remove)) else {
            return 0;
        };
        let engine = self.clone();
        blocking(move || {
            let rootfs = engine.images.rootfs(&id.to_string(), volatile)?;
            engine.images.changes_size(&rootfs).ok()
        })
        .await
        .unwrap_or_default()
    }
}

/// A container between two runs does not come to the next.
fn cancel_restart(entry: &mut crate::state::Entry) {
    if let Some(restart) = entry.restart.take() {
        restart.abort();
    }
    entry.set_status(Status::Exited);
}

/// Whether a container may be removed without force.
fn check_removable(status: Status, name: &str) -> Result<()> {
    let hint = match status {
        Status::Paused => "container is paused: unpause and then stop the container before removing or force remove",
        Status::Restarting => "container is restarting: stop the container before removing or force remove",
        Status::Running => "container is running: stop the container before removing or force remove",
        _ => return Ok(()),
    };
    Err(Error::conflict(format!("cannot remove container \"/{name}\": {hint}")))
}

/// Whether a container that has ended is to be started again, by its restart policy.
fn comes_again(record: &Container, exit_code: i64) -> bool {
    let policy = &record.host.restart_policy;
    match policy.name.as_str() {
        _ if record.stopped_by_client => false,
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let most = policy.maximum_retry_count;
            exit_code != 0 && (most == 0 || i64::from(record.restarts) < most)
        }
        _ => false,
    }
}

/// How long the next restart waits, after a run that itself began after waiting for `last`.
fn backoff(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < GOOD_RUN => last.saturating_mul(2).min(LONGEST_BACKOFF),
        _ => FIRST_BACKOFF,
    }
}

/// The containers whose namespaces one with these settings shares.
pub(crate) fn owners(host: &HostConfig) -> impl Iterator<Item = &str> {
    [&host.network_mode, &host.pid_mode, &host.ipc_mode].into_iter().filter_map(|mode| mode.strip_prefix("container:"))
}

/// # Errors
/// There is no such signal.
pub fn signal_number(text: &str) -> Result<i32> {
    model::signal::number(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_waits_twice_as_long_as_the_last_one_until_a_run_was_good() {
        let (quick, good) = (Duration::from_secs(1), GOOD_RUN);
        let mut waited = Vec::new();
        let mut last = None;
        for ran in [quick, quick, quick, good, quick] {
            last = Some(backoff(last, ran));
            waited.extend(last.map(|d| d.as_millis()));
        }
        assert_eq!(waited, [100, 200, 400, 100, 200]);
        assert_eq!(backoff(Some(LONGEST_BACKOFF), quick), LONGEST_BACKOFF);
    }
}
