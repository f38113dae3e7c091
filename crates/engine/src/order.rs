//! What a container's shim is told to start.

use crate::Engine;
use crate::describe::{Surroundings, describe, log_of, stdio_of};
use crate::error::{Error, Kind, Result};
use crate::start::Place;
use model::container::{Container, NetworkMode};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

impl Engine {
    /// What the shim is told.
    pub(crate) async fn order(
        self: &Arc<Self>,
        record: &Container,
        place: &Place,
        sandbox: Option<&Arc<network::Sandbox>>,
    ) -> Result<runtime::StartOrder> {
        let id = record.id;
        let rootfs = self.known_rootfs(record)?;
        let more = record.host.group_add.clone().unwrap_or_default();
        let account = self.account(record, &record.config.user, &more).await?;
        let directory = self.container_dir(id);
        let around = Surroundings {
            account,
            available: self.runtime.available_capabilities(),
            cgroup_v1: self.runtime.is_cgroup_v1(),
            descriptors: &self.descriptors,
            linked: crate::links::environment(&self.state(), record)?,
            files: &directory,
        };
        let description = describe(record, &around)?;
        let spec = description.spec().map_err(|e| Error::invalid(crate::error::chain(&e)))?;
        Ok(runtime::StartOrder {
            id,
            spec,
            rootfs,
            netns: match (place, sandbox) {
                // Another's namespace that is the host's: without it the specification means a new one.
                (Place::Host, _) if matches!(record.host.network_mode(), NetworkMode::Container(_)) => {
                    let host = kernel::netns::current();
                    Some(host.map_err(|e| Error::new(Kind::Internal, format!("cannot open the host's network: {e}")))?)
                }
                (Place::Path(path), _) => Some(open_namespace(path)?),
                (Place::Host, _) | (_, None) => None,
                (_, Some(sandbox)) => Some(crate::duplicate(&sandbox.netns)?),
            },
            stdio: runtime::Stdio {
                size: description.size.map(|(rows, columns)| runtime::Size { rows, columns }),
                ..stdio_of(record)
            },
            log: log_of(&self.settings, record),
            cgroup_parent: Some(record.host.cgroup_parent.clone()).filter(|p| !p.is_empty()),
            init: record.host.init.unwrap_or_default(),
            runtime: match record.host.runtime.as_str() {
                "runc" | "io.containerd.runc.v2" => runtime::RuntimeKind::Runc,
                _ => runtime::RuntimeKind::Launcher,
            },
            join: self.joins(record)?,
            fail_at: None,
        })
    }

    /// The processes whose namespaces are shared (`--pid container:X`, `--ipc container:X`).
    fn joins(&self, record: &Container) -> Result<runtime::Join> {
        let state = self.state();
        let pidfd = |mode: &str, what: &str| -> Result<Option<OwnedFd>> {
            let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
            let entry = state.find(other)?;
            let live = entry.live.as_ref().ok_or_else(|| {
                Error::conflict(format!("cannot join {what} namespace of a non running container: {other}"))
            })?;
            Ok(Some(live.pidfd().map_err(|e| Error::new(Kind::Internal, e))?))
        };
        // Whoever shares the network shares the host name.
        let uts = match record.host.network_mode() {
            NetworkMode::Container(_) if record.host.uts_mode != "host" => &record.host.network_mode,
            _ => "",
        };
        Ok(runtime::Join {
            pid: pidfd(&record.host.pid_mode, "PID")?,
            ipc: pidfd(&record.host.ipc_mode, "IPC")?,
            uts: pidfd(uts, "UTS")?,
        })
    }
}

fn open_namespace(path: &Path) -> Result<OwnedFd> {
    let opened = std::fs::File::open(path);
    let opened =
        opened.map_err(|e| Error::invalid(format!("cannot join network namespace {}: {e}", path.display())))?;
    Ok(opened.into())
}
