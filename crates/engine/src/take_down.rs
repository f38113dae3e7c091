//! What an end, or a start that fails, takes away: names, ports, endpoints, the sandbox.

use crate::keeper::Act;
use crate::state::LiveSandbox;
use crate::{Engine, blocking, endpoints, naming};
use keeper_protocol::Key;
use model::container::{Container, NetworkMode};
use model::desired::{Attachment, Publication};
use model::id::{ContainerId, SandboxId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Engine {
    /// Takes everything down that a start has put up, or part of it: names first, so that nobody is sent to what is
    /// going; then ports, endpoints, and the sandbox if nobody else is in it. It goes on past failures.
    pub(crate) async fn take_down(self: &Arc<Self>, id: ContainerId) {
        let _releasing = self.metrics.network_action("release");
        let Some((before, sandbox_gone)) = self.take_down_records(id) else { return };
        self.unmount_volumes(&before).await;
        let mut acts = vec![
            Act::Unwatch(id),
            Act::Apply(naming::leave_changes(&before, sandbox_gone.is_some())),
            Act::Release(Key::Process(id)),
        ];
        // Asked of what it wants, too: what it has may not have come to its record.
        if !before.state.ports.is_empty() || !before.host.port_bindings.is_empty() || before.host.publish_all_ports {
            acts.extend([Act::Release(Key::Ports(id)), Act::Release(Key::Datagrams(id))]);
        }
        if let Some((sandbox, _)) = &sandbox_gone {
            acts.push(Act::Release(Key::Sandbox(*sandbox)));
        }
        if let Err(e) = self.keeper.tell(acts).await {
            tracing::error!(container = ?id, "names are not taken out: {e}");
        }
        let publications: BTreeSet<Publication> =
            before.endpoints.iter().filter_map(|e| e.active.as_ref()).flat_map(|a| a.publications.clone()).collect();
        let attachments: Vec<Attachment> =
            before.endpoints.iter().filter_map(|e| Some(e.active.as_ref()?.attachment.clone())).collect();
        let kept = before
            .state
            .sandbox
            .filter(|_| sandbox_gone.is_none())
            .and_then(|s| self.state().sandboxes.get(&s).map(|l| l.sandbox.clone()));
        let engine = self.clone();
        blocking(move || {
            let tell =
                |what: &str, e: network::Error| tracing::error!(container = ?id, "{what}: {}", crate::error::chain(&e));
            if !publications.is_empty()
                && let Err(e) = engine.network.unpublish(&publications)
            {
                tell("ports are not withdrawn", e);
            }
            match kept {
                // Others live on in the sandbox: the interfaces do not go by themselves.
                Some(sandbox) => {
                    for attachment in &attachments {
                        if let Err(e) = engine.network.detach(&sandbox, attachment) {
                            tell("an endpoint is not detached", e);
                        }
                    }
                }
                None => {
                    if let Err(e) = engine.network.release(&attachments) {
                        tell("endpoints are not released", e);
                    }
                }
            }
            drop(sandbox_gone);
        })
        .await;
    }

    /// The records' part of taking down: what the container had, and its sandbox if it goes with it.
    #[allow(clippy::type_complexity)]
    fn take_down_records(&self, id: ContainerId) -> Option<(Container, Option<(SandboxId, LiveSandbox)>)> {
        let mut state = self.state();
        let before = state.entry(id).ok()?.record.clone();
        for endpoint in &before.endpoints {
            endpoints::release(&mut state, id, endpoint, false);
        }
        let sandbox_gone = before.state.sandbox.and_then(|sandbox| {
            let live = state.sandboxes.get_mut(&sandbox)?;
            live.users.remove(&id);
            if live.users.is_empty() { state.sandboxes.remove_entry(&sandbox) } else { None }
        });
        let entry = state.entry_mut(id).ok()?;
        for endpoint in &mut entry.record.endpoints {
            endpoint.active = None;
        }
        entry.record.state.ports.clear();
        entry.record.state.pid = 0;
        entry.live = None;
        // A sandbox that sharers keep is found again at the next start.
        let kept = before.state.sandbox.filter(|_| !matches!(before.host.network_mode(), NetworkMode::Container(_)));
        let kept = kept.filter(|s| state.sandboxes.contains_key(s));
        state.entry_mut(id).ok()?.record.state.sandbox = kept;
        Some((before, sandbox_gone))
    }
}
