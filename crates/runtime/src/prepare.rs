//! What comes before a container's process: its run directory, its cgroup, its shim, and the order to that one.

use crate::connection::{self, CallError, Control};
use crate::container::Container;
use crate::held::Held;
use crate::{AttachOptions, Attached, Runtime, RuntimeKind, Size, StartError, StartOrder, make_private, translate};
use kernel::cgroup::Cgroup;
use model::id::ContainerId;
use shim_protocol::launch::{Foreign, Launch};
use shim_protocol::{Process, Reply, Request, file};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio as ChildStdio;
use std::sync::Arc;

/// A shim that waits for its launch. Dropped, it goes, and nothing is left.
pub struct Prepared {
    runtime: Runtime,
    id: ContainerId,
    home: Arc<OwnedFd>,
    control: Control,
    cgroup: Cgroup,
    launch: Option<(Launch, Vec<OwnedFd>)>,
    warnings: Vec<String>,
    finished: bool,
}

pub(crate) async fn prepare(runtime: &Runtime, order: StartOrder) -> Result<Prepared, StartError> {
    let id = order.id;
    runtime.finish_cleanup(id).await;
    let linux = order.spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let profile = linux.and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(|profile| runtime.filter(profile)).transpose()?.map(|filter| filter.to_vec());
    let home_path = runtime.home(id);
    let home = make_home(&home_path).map_err(StartError::Shim)?;
    let mut warnings = Vec::new();
    if let Some(parent) = &order.cgroup_parent {
        let parent = parent.trim_matches('/');
        std::fs::write(home_path.join(crate::PARENT), parent).map_err(StartError::Shim)?;
        warnings.extend(runtime.inner.hierarchies.ensure_parent(parent)?);
    }
    let cgroup = runtime.cgroup(id);
    let guard = Leftovers { runtime, id, armed: true };
    let place = translate::Place {
        cgroup: &cgroup,
        hierarchies: &runtime.inner.hierarchies,
        attach_at: &home_path.join("rootfs"),
        available: runtime.inner.available,
    };
    let mut launch = translate::launch(&order, &place, filter)?;
    if let Some(process) = order.spec.process() {
        let missing = translate::unavailable(process, runtime.inner.available);
        if !missing.is_empty() && order.runtime == RuntimeKind::Launcher {
            warnings.push(format!("this daemon itself lacks {}, so the container has not", missing.join(", ")));
        }
    }
    let joins = match order.runtime {
        RuntimeKind::Launcher => {
            [order.netns, order.join.pid, order.join.ipc, order.join.uts].into_iter().flatten().collect()
        }
        RuntimeKind::Runc => {
            launch.foreign = Some(
                bundle(runtime, &order, &home_path)
                    .map_err(|source| StartError::Bundle { runtime: runtime.settings().runc.clone(), source })?,
            );
            // Held open until it has started: the bundle names it by our descriptor.
            [order.netns, order.join.pid, order.join.ipc, order.join.uts].into_iter().flatten().collect()
        }
    };
    if order.runtime == RuntimeKind::Launcher {
        cgroup.create()?;
        if let Some(resources) = resources {
            cgroup.limit(&translate::limits(resources))?;
            let rules = translate::device_rules(resources);
            if !rules.is_empty() {
                match cgroup.restrict_devices(&rules) {
                    Err(error @ kernel::cgroup::Error::NoController { .. }) => warnings.push(error.to_string()),
                    refused => warnings.extend(refused?),
                }
            }
        }
    }
    let control = spawn(runtime, &home_path, &home).await?;
    let mut guard = guard;
    guard.armed = false;
    Ok(Prepared {
        runtime: runtime.clone(),
        id,
        home: Arc::new(home),
        control,
        cgroup,
        launch: Some((launch, joins)),
        warnings,
        finished: false,
    })
}

/// Takes away what `prepare` has made, where it fails.
struct Leftovers<'a> {
    runtime: &'a Runtime,
    id: ContainerId,
    armed: bool,
}

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.runtime.cgroup(self.id).remove();
            let _ = std::fs::remove_dir_all(self.runtime.home(self.id));
        }
    }
}

pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    std::fs::File::open(path).map(OwnedFd::from)
}

/// A fresh run directory.
fn make_home(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_private(&path.join("rootfs"))?;
    open_directory(path)
}

/// Start a shim in its run directory, and connect.
pub(crate) async fn spawn(runtime: &Runtime, path: &Path, home: &OwnedFd) -> Result<Control, StartError> {
    use std::os::unix::process::CommandExt;
    let socket = format!("/proc/self/fd/{}/{}", home.as_raw_fd(), file::SOCKET);
    let _ = std::fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).map_err(StartError::Shim)?;
    let mut command = std::process::Command::new(runtime.shim_program());
    command.arg0("isle-shim").env_clear().current_dir(path).process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(ChildStdio::null()).stderr(ChildStdio::null());
    let mut child = tokio::process::Command::from(command).spawn().map_err(StartError::Shim)?;
    // Reaped when it ends, while this daemon lives; nobody waits for that.
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
    Control::open(home).await.map_err(StartError::Call)
}

/// Write the bundle for another runtime.
fn bundle(runtime: &Runtime, order: &StartOrder, home: &Path) -> io::Result<Foreign> {
    let mut spec: serde_json::Value = serde_json::to_value(&order.spec)?;
    spec["root"]["path"] = home.join("rootfs").display().to_string().into();
    spec["linux"]["cgroupsPath"] = format!("/{}", runtime.cgroup_path(order.id).trim_start_matches('/')).into();
    spec["process"]["terminal"] = order.stdio.tty.into();
    // Older ones do not know the field, but the setting.
    if let Some(name) = order.spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        spec["linux"]["sysctl"]["kernel.domainname"] = name.clone().into();
    }
    if order.init {
        run_by_init(&mut spec, &runtime.settings().shim);
    }
    let own = std::process::id();
    let mut name = |kind: &str, fd: Option<&OwnedFd>, of_process: bool| {
        let Some(fd) = fd else { return };
        let path = if of_process {
            pid_of(fd).map(|pid| format!("/proc/{pid}/ns/{}", if kind == "network" { "net" } else { kind }))
        } else {
            Some(format!("/proc/{own}/fd/{}", fd.as_raw_fd()))
        };
        if let (Some(path), Some(list)) = (path, spec["linux"]["namespaces"].as_array_mut()) {
            list.retain(|namespace| namespace["type"] != kind);
            list.push(serde_json::json!({"type": kind, "path": path}));
        }
    };
    name("network", order.netns.as_ref(), false);
    name("pid", order.join.pid.as_ref(), true);
    name("ipc", order.join.ipc.as_ref(), true);
    name("uts", order.join.uts.as_ref(), true);
    std::fs::write(home.join("config.json"), serde_json::to_vec(&spec)?)?;
    let state = runtime.settings().run_dir.join("runc");
    make_private(&state)?;
    Ok(Foreign {
        program: runtime.settings().runc.clone(),
        state,
        bundle: home.to_path_buf(),
        id: order.id.to_string(),
    })
}

/// As the launcher does for itself: process 1 is our init, which has the command as its child. What another runtime
/// executes lies in the container, where Docker has its own.
fn run_by_init(spec: &mut serde_json::Value, shim: &Path) {
    const INIT: &str = "/sbin/docker-init";
    if let Some(args) = spec["process"]["args"].as_array_mut() {
        args.splice(0..0, [INIT.into(), "--".into()]);
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        let options = ["bind", "ro"];
        mounts.push(serde_json::json!({"destination": INIT, "type": "bind", "source": shim, "options": options}));
    }
}

/// The process behind a pidfd.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()).filter(|pid| *pid > 0)
}

impl Prepared {
    /// Take the process's stdio before there is a process: nothing of its output is lost.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, CallError> {
        connection::attach(&self.home, Process::Main, options).await
    }

    /// Set the terminal's first size.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn resize(&self, size: Size) -> Result<(), CallError> {
        self.control.call(Request::Resize { process: Process::Main, size }, Vec::new()).await.map(|_| ())
    }

    /// Make the container's process. Returns when it has executed its program.
    ///
    /// # Errors
    /// At which step it failed, and why. Nothing is left then.
    pub async fn launch(mut self) -> Result<Container, StartError> {
        let (launch, joins) = self.launch.take().ok_or(StartError::Call(CallError::Gone(None)))?;
        let (foreign, stdio, log) = (launch.foreign.is_some(), launch.stdio, launch.log.clone());
        // A foreign runtime finds namespaces by our descriptors: they stay open here meanwhile.
        let (passed, kept) = if foreign { (Vec::new(), joins) } else { (joins, Vec::new()) };
        let (reply, mut descriptors) = self.control.call(Request::Launch(Box::new(launch)), passed).await?;
        drop(kept);
        let (Reply::Started(mut running), Some(pidfd)) = (reply, descriptors.pop()) else {
            return Err(StartError::Call(CallError::Garbled(shim_protocol::frame::Garbled)));
        };
        running.warnings.splice(0..0, std::mem::take(&mut self.warnings));
        self.finished = true;
        let handed = self.control.call(Request::HandOver, Vec::new()).await;
        let held = handed.and_then(|(reply, descriptors)| Held::new(&reply, descriptors, log.clone()));
        // It may have ended already.
        let held = held.unwrap_or(Held { stdio, log, pidfd, stdout: None, stderr: None, stdin: None });
        Ok(Container::new(&self.runtime, self.id, self.home.clone(), self.control.clone(), running.into(), held))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (runtime, id, control, cgroup) = (self.runtime.clone(), self.id, self.control.clone(), self.cgroup.clone());
        let task = tokio::spawn(async move {
            let _ = control.call(Request::Go { force: true }, Vec::new()).await;
            remove_cgroup(cgroup).await;
            let home = runtime.home(id);
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(home)).await;
        });
        self.runtime.clean_up_later(self.id, task);
    }
}

pub(crate) async fn remove_cgroup(cgroup: Cgroup) {
    let removed = tokio::task::spawn_blocking(move || cgroup.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(error = &error as &dyn std::error::Error, "a cgroup of a container that has ended is left");
    }
}
