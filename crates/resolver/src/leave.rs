//! Leaving without breaking off: who serves takes nothing new, and what is under way is waited for.

use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug)]
pub struct Leave {
    begun: watch::Sender<bool>,
    /// Its receivers are counted, nothing is sent.
    busy: watch::Sender<()>,
}

/// Something under way: a flow, a question. It is over when this is dropped.
#[derive(Debug)]
pub struct Busy(#[expect(dead_code, reason = "counted while it lives")] watch::Receiver<()>);

impl Default for Leave {
    fn default() -> Self {
        Self { begun: watch::Sender::new(false), busy: watch::Sender::new(()) }
    }
}

impl Leave {
    pub fn busy(&self) -> Busy {
        Busy(self.busy.subscribe())
    }

    /// Waits until leaving has begun: from then on others take what is new. Sockets stay open, since answers to what is
    /// under way go out by them.
    pub async fn begun(&self) {
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Begins to leave; returns when nothing is under way any more, or after `limit`.
    pub async fn finish(&self, limit: Duration) {
        self.begun.send_replace(true);
        let _ = tokio::time::timeout(limit, self.busy.closed()).await;
    }
}
