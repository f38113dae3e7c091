//! Health checks: a command beside the container's own, again and again while it runs. What its ends mean is
//! [`model::health`]'s.

use crate::exec::ExecRequest;
use crate::{Engine, Result};
use model::container::{Container, Status as Life};
use model::health::{Health, OUTPUT_MAX, Probe};
use model::id::ContainerId;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// Checks a running container until it ends.
    pub(crate) fn watch_health(self: &Arc<Self>, id: ContainerId, container: runtime::Container) {
        let (check, command) = {
            let mut state = self.state();
            let Ok(entry) = state.entry_mut(id) else { return };
            let config = &entry.record.config;
            let check = config.healthcheck.clone();
            let command = check.as_ref().and_then(|c| c.command(config.shell.as_deref()));
            entry.health = command.is_some().then(Health::default);
            let (Some(check), Some(command)) = (check, command) else { return };
            (check, command)
        };
        let engine = self.clone();
        tokio::spawn(async move {
            let running_for = || {
                let ran = crate::now().duration_since(container.started_at());
                Duration::try_from(ran).unwrap_or_default()
            };
            let mut health = Health::default();
            let watched = async {
                loop {
                    tokio::time::sleep(check.pause(health.status, running_for())).await;
                    let Some(record) = engine.record_of_run(id, &container) else { return };
                    if record.state.status == Life::Paused {
                        continue;
                    }
                    let begun = running_for();
                    let probe = engine.probe(&record, &container, &command, check.timeout()).await;
                    let changed = health.take(probe, &check, begun);
                    let Some(record) = engine.record_of_run(id, &container) else { return };
                    if let Ok(entry) = engine.state().entry_mut(id) {
                        entry.health = Some(health.clone());
                    }
                    if let Some(status) = changed {
                        engine.tell_container(&record, &format!("health_status: {}", status.as_str()), &[]);
                    }
                }
            };
            tokio::select! {
                () = watched => {}
                _ = container.wait() => {}
            }
        });
    }

    /// The container's record, while this is its present run.
    fn record_of_run(&self, id: ContainerId, container: &runtime::Container) -> Option<Container> {
        let state = self.state();
        let entry = state.entry(id).ok()?;
        let is_current =
            |l: &runtime::Container| l.pid() == container.pid() && l.started_at() == container.started_at();
        entry.live.as_ref().is_some_and(is_current).then(|| entry.record.clone())
    }

    /// Runs the check once.
    async fn probe(
        self: &Arc<Self>,
        record: &Container,
        container: &runtime::Container,
        command: &[String],
        timeout: Duration,
    ) -> Probe {
        let start = crate::now();
        let (exit_code, output) = match self.run_check(record, container, command, timeout).await {
            Ok(ended) => ended,
            Err(e) => (-1, e.message),
        };
        Probe { start, end: crate::now(), exit_code, output }
    }

    /// Its exit code, and what it wrote.
    async fn run_check(
        self: &Arc<Self>,
        record: &Container,
        container: &runtime::Container,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i64, String)> {
        let request = ExecRequest { command: command.to_vec(), ..ExecRequest::default() };
        let order = self.exec_order(record, &request, None).await?;
        let exec = container.exec(order).await.map_err(crate::Error::internal)?;
        let options = runtime::AttachOptions { stdin: false, stdout: true, stderr: true };
        let mut attached = exec.attach(options).await.map_err(crate::Error::internal)?;
        if let Err(e) = exec.start().await {
            exec.forget().await;
            return Err(crate::Error::internal(e));
        }
        let mut output = Vec::new();
        let to_the_end = async {
            while let Some((_, bytes)) = attached.output.next().await {
                let room = OUTPUT_MAX.saturating_sub(output.len());
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            exec.wait().await
        };
        let ended = tokio::time::timeout(timeout, to_the_end).await;
        let result = match ended {
            Ok(status) => (i64::from(status.code), String::from_utf8_lossy(&output).into_owned()),
            Err(_) => {
                let _ = exec.signal(9).await;
                exec.wait().await;
                (-1, format!("Health check exceeded timeout ({timeout:?}): {}", String::from_utf8_lossy(&output)))
            }
        };
        exec.forget().await;
        Ok(result)
    }
}
