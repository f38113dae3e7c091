//! `/containers/{id}/stats`: what a container uses, once or every second.

use crate::Ctx;
use crate::error::Answer;
use crate::query::Query;
use crate::times;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use engine::Engine;
use engine::stats::{BlockUsage, Sample, Used};
use model::id::ContainerId;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How far apart samples are; rates are of such a time.
const PERIOD: Duration = Duration::from_secs(1);

pub async fn stats(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let id = engine.container_id(&id)?;
    let first = engine.sample(id).await?;
    if !query.flag_or("stream", true) {
        // Without `one-shot` there are two, so that there is a rate.
        if query.flag("one-shot") || first.used.is_none() {
            return Ok(Json(show(&first, None)).into_response());
        }
        tokio::time::sleep(PERIOD).await;
        let second = engine.sample(id).await?;
        return Ok(Json(show(&second, first.used.as_ref())).into_response());
    }
    let line = |value: &Value| Ok::<_, std::io::Error>(Bytes::from(format!("{value}\n")));
    let begin = line(&show(&first, None));
    let rest = futures_util::stream::unfold(first, move |before| next(engine.clone(), id, before));
    use futures_util::StreamExt;
    let body = futures_util::stream::once(async { begin }).chain(rest.map(move |value| line(&value)));
    Ok(([("Content-Type", "application/json")], Body::from_stream(body)).into_response())
}

/// The next sample; none once the container is gone.
async fn next(engine: Arc<Engine>, id: ContainerId, before: Sample) -> Option<(Value, Sample)> {
    tokio::time::sleep(PERIOD).await;
    let now = engine.sample(id).await.ok()?;
    Some((show(&now, before.used.as_ref()), now))
}

fn show(sample: &Sample, before: Option<&Used>) -> Value {
    let used = sample.used.as_ref();
    let time = |used: Option<&Used>| times::shown(used.map(|u| u.at));
    let mut shown = json!({
        "name": format!("/{}", sample.name),
        "id": sample.id,
        "read": time(used),
        "preread": time(before),
        "num_procs": 0,
        "pids_stats": used.map_or_else(|| json!({}), pids),
        "blkio_stats": blkio(used),
        "storage_stats": {},
        "cpu_stats": cpu(used),
        "precpu_stats": cpu(before),
        "memory_stats": used.map_or_else(|| json!({}), memory),
    });
    if let Some(networks) = used.and_then(|u| u.networks.as_ref()) {
        let networks: Map<String, Value> = networks
            .iter()
            .map(|(name, t)| {
                let shown = json!({
                    "rx_bytes": t.received.bytes,
                    "rx_packets": t.received.packets,
                    "rx_errors": t.received.errors,
                    "rx_dropped": t.received.dropped,
                    "tx_bytes": t.sent.bytes,
                    "tx_packets": t.sent.packets,
                    "tx_errors": t.sent.errors,
                    "tx_dropped": t.sent.dropped,
                });
                (name.clone(), shown)
            })
            .collect();
        shown["networks"] = networks.into();
    }
    shown
}

fn pids(used: &Used) -> Value {
    let mut shown = json!({ "current": used.usage.pids });
    if let Some(limit) = used.usage.pids_limit {
        shown["limit"] = limit.into();
    }
    shown
}

fn cpu(used: Option<&Used>) -> Value {
    let usage = used.map(|u| u.usage.clone()).unwrap_or_default();
    let mut shown = json!({
        "cpu_usage": {
            "total_usage": usage.cpu_total,
            "usage_in_kernelmode": usage.cpu_system,
            "usage_in_usermode": usage.cpu_user,
        },
        "throttling_data": {
            "periods": usage.periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_time,
        },
    });
    if let Some(used) = used {
        shown["system_cpu_usage"] = used.machine_cpu.into();
        shown["online_cpus"] = used.cpus.into();
    }
    shown
}

fn memory(used: &Used) -> Value {
    let usage = &used.usage;
    let mut shown = json!({
        "usage": usage.memory,
        "stats": usage.memory_details,
        "limit": usage.memory_limit.unwrap_or(used.machine_memory).min(used.machine_memory),
    });
    if used.cgroup_v1 {
        shown["max_usage"] = usage.memory_peak.into();
        shown["failcnt"] = usage.memory_failures.into();
    }
    shown
}

fn blkio(used: Option<&Used>) -> Value {
    let devices = || used.iter().flat_map(|u| &u.usage.block);
    let entries = |read: fn(&BlockUsage) -> u64, write: fn(&BlockUsage) -> u64| {
        let entries: Vec<Value> = devices()
            .flat_map(|d| [("read", read(d)), ("write", write(d))].map(|(op, value)| (d.major, d.minor, op, value)))
            .map(|(major, minor, op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
            .collect();
        if entries.is_empty() { Value::Null } else { json!(entries) }
    };
    json!({
        "io_service_bytes_recursive": entries(|d| d.read_bytes, |d| d.write_bytes),
        "io_serviced_recursive": entries(|d| d.read_operations, |d| d.write_operations),
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}
