//! What Prometheus is told: how long it takes to do something with networks (OB-03).

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Instant;

/// Upper bounds in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: &'static str,
}

/// The measurements since the daemon was started.
pub struct Metrics {
    registry: Registry,
    network_actions: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let network_actions: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut registry = Registry::default();
        let help = "How long actions on networks take, by kind";
        registry.register_with_unit("engine_daemon_network_actions", help, Unit::Seconds, network_actions.clone());
        Self { registry, network_actions }
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

    /// Everything in Prometheus' text format (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry).expect("a string grows");
        rendered
    }
}
