//! Commands in a running container, beside its own.

use crate::Engine;
use crate::command::{Exec, Handle};
pub use crate::command::{ExecRequest, Progress};
use crate::error::{Error, Kind, Result};
use model::container::Status;
use model::id::ExecId;
use model::spec::User;
use std::sync::Arc;

impl Engine {
    /// Records a command that is to be run.
    ///
    /// # Errors
    /// The container does not run, or there is no command.
    pub fn create_exec(&self, reference: &str, request: ExecRequest) -> Result<ExecId> {
        let mut state = self.state();
        let record = &state.find(reference)?.record;
        let container = record.id;
        match record.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {reference} is paused, unpause the container before exec"
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {container} is restarting, wait until the container is running"
                )));
            }
            _ => return Err(Error::conflict(format!("container {container} is not running"))),
        }
        if request.command.iter().all(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = ExecId::new(crate::random());
        let command = request.command.join(" ");
        let record = record.clone();
        state.execs.insert(id, Arc::new(Exec::new(id, container, request)));
        drop(state);
        self.tell_container(&record, &format!("exec_create: {command}"), &[("execID", id.to_string())]);
        Ok(id)
    }

    /// # Errors
    /// There is none.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let state = self.state();
        let found = id.parse::<ExecId>().ok().and_then(|id| state.execs.get(&id).cloned());
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Starts a command; its stdio, unless it is to run detached.
    ///
    /// # Errors
    /// It has been started before; the container has ended; the command cannot be executed.
    pub async fn start_exec(
        self: &Arc<Self>,
        id: &str,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<runtime::Attached>> {
        let (engine, exec) = (self.clone(), self.exec(id)?);
        self.detached(async move { engine.start_found_exec(&exec, detach, size).await }).await
    }

    async fn start_found_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<runtime::Attached>> {
        let id = exec.id;
        let (record, live) = {
            let state = self.state();
            let entry = state.entry(exec.container)?;
            let live = entry
                .live
                .clone()
                .ok_or_else(|| Error::conflict(format!("container {} is not running", exec.container)))?;
            (entry.record.clone(), live)
        };
        {
            let mut progress = exec.progress.lock().expect("no holder panics");
            if progress.started {
                return Err(Error::conflict(format!("exec {id} has already run")));
            }
            progress.started = true;
        }
        let never = |code: i64| {
            exec.progress.lock().expect("no holder panics").exit_code = Some(code);
            exec.ended.notify_waiters();
        };
        let order = self.exec_order(&record, &exec.request, size).await.inspect_err(|_| never(126))?;
        let started = async {
            let handle = live.exec(order).await?;
            let attached = if detach {
                None
            } else {
                let r = &exec.request;
                let options =
                    runtime::AttachOptions { stdin: r.attach_stdin, stdout: r.attach_stdout, stderr: r.attach_stderr };
                Some(handle.attach(options).await.map_err(runtime::StartError::from)?)
            };
            let pid = handle.start().await?;
            Ok::<_, runtime::StartError>((handle, attached, pid))
        };
        let (handle, attached, pid) = match started.await {
            Ok(started) => started,
            Err(e) => {
                never(if e.kind() == runtime::FailureKind::NotFound { 127 } else { 126 });
                let is_over = matches!(&e, runtime::StartError::Call(e) if e.is_over());
                if is_over || live.exit_status().is_some() {
                    return Err(Error::conflict(format!("container {} is not running", exec.container)));
                }
                if matches!(e, runtime::StartError::Paused) {
                    let container = exec.container;
                    let paused = format!("container {container} is paused, unpause the container before exec");
                    return Err(Error::conflict(paused));
                }
                let message = format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {}",
                    crate::error::chain(&e)
                );
                return Err(Error { launch: Some(e.kind()), ..Error::new(Kind::Invalid, message) });
            }
        };
        {
            let mut progress = exec.progress.lock().expect("no holder panics");
            progress.running = true;
            progress.pid = pid;
            progress.handle = Some(Handle(handle.clone()));
        }
        self.tell_container(
            &record,
            &format!("exec_start: {}", exec.request.command.join(" ")),
            &[("execID", id.to_string())],
        );
        let (engine, exec) = (self.clone(), exec.clone());
        tokio::spawn(async move {
            let status = handle.wait().await;
            {
                let mut progress = exec.progress.lock().expect("no holder panics");
                progress.running = false;
                progress.exit_code = Some(i64::from(status.code));
                progress.handle = None;
            }
            exec.ended.notify_waiters();
            handle.forget().await;
            // With it go the descriptors of a container that may be over.
            drop(handle);
            let more = [("execID", exec.id.to_string()), ("exitCode", status.code.to_string())];
            engine.tell_container(&record, "exec_die", &more);
            // Clients ask for the exit code after the end; then it may be forgotten.
            tokio::time::sleep(std::time::Duration::from_secs(300)).await;
            engine.state().execs.remove(&exec.id);
        });
        Ok(attached)
    }

    /// # Errors
    /// It does not run.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let handle = self.exec(id)?.progress().handle;
        match handle {
            Some(Handle(handle)) => handle.resize(runtime::Size { rows, columns }).await.map_err(Error::internal),
            None => Err(Error::conflict(format!("exec {id} is not running"))),
        }
    }

    /// The command as the runtime understands it: what the container's own process may, unless it asks for more.
    pub(crate) async fn exec_order(
        self: &Arc<Self>,
        record: &model::container::Container,
        request: &ExecRequest,
        size: Option<(u16, u16)>,
    ) -> Result<runtime::ExecOrder> {
        let user = if request.user.is_empty() { record.config.user.clone() } else { request.user.clone() };
        let more = record.host.group_add.clone().unwrap_or_default();
        let account = self.account(record, &user, &more).await?;
        let directory = self.container_dir(record.id);
        let around = crate::describe::Surroundings {
            account: account.clone(),
            available: self.runtime.available_capabilities(),
            cgroup_v1: self.runtime.is_cgroup_v1(),
            descriptors: &self.descriptors,
            // Whom it was linked to may have gone.
            linked: crate::links::environment(&self.state(), record).unwrap_or_default(),
            files: &directory,
        };
        let mut description = crate::describe::describe(record, &around)?;
        description.args.clone_from(&request.command);
        description.tty = request.tty;
        description.privileged |= request.privileged;
        description.user = User { ..account.user() };
        if !request.working_dir.is_empty() {
            description.cwd.clone_from(&request.working_dir);
        }
        model::env::merge(&mut description.env, &request.env);
        if request.tty && !description.env.iter().any(|e| e.starts_with("TERM=")) {
            description.env.push("TERM=xterm".into());
        }
        let spec = description.spec().map_err(|e| Error::invalid(crate::error::chain(&e)))?;
        let process = spec.process().clone().ok_or_else(|| Error::invalid("no process"))?;
        let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().clone());
        let size = size.or(request.size).filter(|(r, c)| *r > 0 && *c > 0);
        Ok(runtime::ExecOrder {
            process,
            seccomp,
            open_stdin: request.attach_stdin,
            size: size.map(|(rows, columns)| runtime::Size { rows, columns }),
        })
    }
}
