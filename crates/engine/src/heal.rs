//! Mending what others take away while the daemon runs: a bridge that is deleted by hand, our rules where the kernel lets
//! others flush them. Only what is missing is made: what is too much may belong to an operation that is under way. And an
//! uplink that comes later forwards as the others do.

use crate::error::{Error, Result};
use crate::{Engine, blocking};
use kernel::readiness;
use model::desired::Desired;
use network::{Loss, Settled};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// A bridge that is deleted takes its routes and entries along, in several messages.
const TOGETHER: Duration = Duration::from_millis(50);

/// Other firewalls write their rules anew one by one.
const CALM: Duration = Duration::from_millis(200);

impl Engine {
    /// Hears of losses from now on, for as long as the engine lives.
    ///
    /// # Errors
    /// The kernel cannot be listened to.
    pub(crate) fn heal_from_now_on(self: &Arc<Self>) -> Result<()> {
        let mut watch = self.network.watch().map_err(Error::internal)?;
        let ready = |fd: BorrowedFd<'_>| readiness::watch_reading(fd.try_clone_to_owned()?);
        let [tables, links] = watch.descriptors().map(ready);
        let unheard = |e: std::io::Error| Error::new(crate::Kind::Internal, format!("cannot watch the kernel: {e}"));
        let (tables, links) = (tables.map_err(unheard)?, links.map_err(unheard)?);
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                // Rules are made again at once: without them nothing keeps networks apart.
                let (heard, pause) = tokio::select! {
                    heard = tables.readable() => (heard, Duration::ZERO),
                    heard = links.readable() => (heard, TOGETHER),
                };
                match heard {
                    Ok(mut heard) => heard.clear_ready(),
                    Err(_) => return,
                }
                tokio::time::sleep(pause).await;
                let Some(engine) = engine.upgrade() else { return };
                match watch.read() {
                    Ok(losses) => engine.mend(&losses).await,
                    Err(e) => tracing::warn!("losses are not heard of: {}", crate::error::chain(&e)),
                }
            }
        });
        Ok(())
    }

    async fn mend(self: &Arc<Self>, losses: &[Loss]) {
        if self.state().closing {
            return;
        }
        if losses.contains(&Loss::Foreign) {
            tokio::time::sleep(CALM).await;
            let engine = self.clone();
            blocking(move || engine.network.tell_others_again()).await;
        }
        if losses.contains(&Loss::Uplink) {
            let (engine, desired) = (self.clone(), self.state().desired());
            if let Err(e) = blocking(move || engine.network.forward_from_new_uplinks(&desired)).await {
                tracing::warn!("a new uplink may not forward IPv6: {}", crate::error::chain(&e));
            }
        }
        if self.are_ours(losses) {
            self.heal(losses).await;
        }
    }

    /// Whether anything is missing now: our own deleting is heard, too.
    fn are_ours(&self, losses: &[Loss]) -> bool {
        if losses.is_empty() {
            return false;
        }
        let desired = self.state().desired();
        losses.iter().any(|loss| match loss {
            Loss::Rules | Loss::Unknown => true,
            Loss::Foreign | Loss::Uplink => false,
            Loss::Link(name) => {
                desired.bridges.values().any(|b| b.device.as_str() == name)
                    || desired.parents.values().any(|p| p.device.as_str() == name)
                    || desired.attachments.values().any(|a| a.outer.as_str() == name && !a.trusted)
            }
        })
    }

    async fn heal(self: &Arc<Self>, losses: &[Loss]) {
        tracing::warn!(?losses, "somebody took something of ours away");
        let (desired, settled, sandboxes, turns) = {
            let state = self.state();
            let mut desired: Desired = state.desired();
            let mut settled = Settled { networks: state.networks.keys().copied().collect(), ..Settled::default() };
            // What is under way keeps its elements, and makes its own interfaces.
            let making = state.making.values().filter_map(|n| n.bridge(&state.networking));
            desired.bridges.extend(making.map(|b| (b.network, b)));
            let mut turns = Vec::new();
            for entry in state.containers.values() {
                if let Ok(turn) = entry.turn.clone().try_lock_owned() {
                    // Who has NET_ADMIN may delete an interface of its own, and mean it.
                    let active = entry.record.endpoints.iter().filter_map(|e| e.active.as_ref());
                    let active = active.filter(|a| !a.attachment.trusted);
                    settled.endpoints.extend(active.map(|a| a.attachment.endpoint));
                    turns.push(turn);
                }
            }
            if !losses.contains(&Loss::Rules) {
                // What belongs to who is just going or coming is for them to say: a port may be another's by now.
                desired.publications.retain(|endpoint, _| settled.endpoints.contains(endpoint));
                desired.attachments.retain(|endpoint, _| settled.endpoints.contains(endpoint));
            }
            let sandboxes: BTreeMap<_, _> = state.sandboxes.iter().map(|(id, l)| (*id, l.sandbox.clone())).collect();
            (desired, settled, sandboxes, turns)
        };
        let engine = self.clone();
        let report = blocking(move || engine.network.heal(&desired, &settled, |id| sandboxes.get(id).cloned())).await;
        drop(turns);
        match report {
            Ok(report) => tracing::info!(mended = ?report.mended, failed = ?report.failed, "it is there again"),
            Err(e) => tracing::error!("it cannot be mended: {}", crate::error::chain(&e)),
        }
    }
}
