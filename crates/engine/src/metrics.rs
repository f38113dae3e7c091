//! What Prometheus is told: how long it takes to do something with networks (OB-03), and what becomes of containers'
//! questions for names (DNS-28).

use crate::Engine;
use model::names::Questions;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Upper bounds in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The measurements since the daemon was started.
pub struct Metrics {
    registry: Registry,
    network_actions: Family<Labels, Histogram, fn() -> Histogram>,
    questions: Family<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let network_actions: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut registry = Registry::default();
        let help = "How long actions on networks take, by kind";
        registry.register_with_unit("engine_daemon_network_actions", help, Unit::Seconds, network_actions.clone());
        let questions: Family<Outcome, Counter> = Family::default();
        let help = "Questions of containers for names, by what became of them, since the keeper was started";
        registry.register("engine_daemon_resolver_questions", help, questions.clone());
        Self { registry, network_actions, questions }
    }
}

/// Measures until it is dropped.
pub(crate) struct Timer {
    histogram: Histogram,
    begun: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.histogram.observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Metrics {
    /// Docker's words for an action: `allocate` a sandbox with its endpoints, `connect` one more, `release` them.
    pub(crate) fn network_action(&self, action: &'static str) -> Timer {
        let histogram = self.network_actions.get_or_create(&Labels { action }).clone();
        Timer { histogram, begun: Instant::now() }
    }

    /// The keeper counts; these are its numbers.
    fn set_questions(&self, now: &Questions) {
        let Questions { answered, forwarded, failed, refused, ignored } = *now;
        let numbers = [
            ("answered", answered),
            ("forwarded", forwarded),
            ("failed", failed),
            ("refused", refused),
            ("ignored", ignored),
        ];
        for (outcome, number) in numbers {
            self.questions.get_or_create(&Outcome { outcome }).inner().store(number, Ordering::Relaxed);
        }
    }

    fn render(&self) -> String {
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry).expect("a string grows");
        rendered
    }
}

impl Engine {
    /// Everything in Prometheus' text format (OpenMetrics 1.0).
    pub async fn measurements(&self) -> String {
        match self.keeper.questions().await {
            Ok(questions) => self.metrics.set_questions(&questions),
            Err(e) => tracing::warn!("questions for names are not measured: {e}"),
        }
        self.metrics.render()
    }
}
