//! `stats`: what containers use, as a table that is drawn again every second.

use super::App;
use crate::client::connection::{Query, is_not_found, segment};
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::client::output::print;
use crate::text::{binary_size, human_size};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const STATS: List = List {
    headers: &[
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    raw: "",
};

/// `stats`.
///
/// # Errors
/// A container is not there.
pub async fn stats(app: App, p: Parsed) -> anyhow::Result<u8> {
    let mut before = sample(&app, &p, true).await?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = sample(&app, &p, false).await?;
        let rows = now.iter().map(|(asked, stats)| {
            let earlier = before.iter().find(|(_, b)| b["id"] == stats["id"]).map_or(&Value::Null, |(_, b)| b);
            row(asked, stats, earlier, p.on("no-trunc"))
        });
        let rows = rows.collect();
        if !p.on("no-stream") && crate::client::terminal::stdout_is_terminal() {
            // To the top, and nothing below.
            print("\x1b[2J\x1b[H")?;
        }
        STATS.show(rows, p.text("format"), false)?;
        if p.on("no-stream") {
            return Ok(0);
        }
        before = now;
    }
}

/// A sample of each container that is asked for; those that go meanwhile are left out.
async fn sample(app: &App, p: &Parsed, first: bool) -> anyhow::Result<Vec<(String, Value)>> {
    let names: Vec<String> = if p.args.is_empty() {
        let listed = app.client.get(&format!("/containers/json{}", Query::new().flag("all", p.on("all")))).await?;
        let ids = listed.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str());
        ids.map(str::to_owned).collect()
    } else {
        p.args.clone()
    };
    let mut samples = Vec::new();
    for name in names {
        let path = format!("/containers/{}/stats?stream=false&one-shot=true", segment(&name));
        match app.client.get(&path).await {
            Ok(stats) => samples.push((name, stats)),
            Err(e) if is_not_found(&e) && (!first || p.args.is_empty()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(samples)
}

/// The share of all processors that was used between two samples, in percent of one.
fn cpu_share(now: &Value, before: &Value) -> f64 {
    let total = |v: &Value| v["cpu_stats"]["cpu_usage"]["total_usage"].as_f64().unwrap_or_default();
    let machine = |v: &Value| v["cpu_stats"]["system_cpu_usage"].as_f64().unwrap_or_default();
    let (used, of) = (total(now) - total(before), machine(now) - machine(before));
    let cpus = now["cpu_stats"]["online_cpus"].as_f64().unwrap_or(1.0);
    if before.is_null() || used <= 0.0 || of <= 0.0 { 0.0 } else { used / of * cpus * 100.0 }
}

/// What a container holds in memory, without files that the kernel would let go of.
fn memory_used(memory: &Value) -> f64 {
    let usage = memory["usage"].as_f64().unwrap_or_default();
    let inactive = ["total_inactive_file", "inactive_file"].iter().find_map(|key| memory["stats"][key].as_f64());
    inactive.filter(|i| *i < usage).map_or(usage, |i| usage - i)
}

fn row(asked: &str, now: &Value, before: &Value, whole: bool) -> Row {
    let id = now["id"].as_str().unwrap_or_default();
    let id = if whole { id } else { crate::text::short_id(id) };
    let name = now["name"].as_str().unwrap_or_default().trim_start_matches('/');
    let named = Row::new("*formatter.statsContext").with("Container", asked).with("ID", id).with("Name", name);
    if now["cpu_stats"]["system_cpu_usage"].is_null() {
        let columns = ["CPUPerc", "MemPerc", "NetIO", "BlockIO", "PIDs"];
        return columns.into_iter().fold(named, |row, column| row.with(column, "--")).with("MemUsage", "-- / --");
    }
    let memory = &now["memory_stats"];
    let (used, limit) = (memory_used(memory), memory["limit"].as_f64().unwrap_or_default());
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let sum = |key: &str| -> f64 {
        let networks = now["networks"].as_object().into_iter().flatten();
        networks.filter_map(|(_, n)| n[key].as_f64()).sum()
    };
    let mut blocks: BTreeMap<&str, f64> = BTreeMap::new();
    for entry in now["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten() {
        *blocks.entry(entry["op"].as_str().unwrap_or_default()).or_default() +=
            entry["value"].as_f64().unwrap_or_default();
    }
    let block = |op: &str| human_size(blocks.get(op).copied().unwrap_or_default(), 3);
    named
        .with("CPUPerc", format!("{:.2}%", cpu_share(now, before)))
        .with("MemUsage", format!("{} / {}", binary_size(used), binary_size(limit)))
        .with("MemPerc", format!("{share:.2}%"))
        .with("NetIO", format!("{} / {}", human_size(sum("rx_bytes"), 3), human_size(sum("tx_bytes"), 3)))
        .with("BlockIO", format!("{} / {}", block("read"), block("write")))
        .with("PIDs", now["pids_stats"]["current"].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let sample = |used: u64, machine: u64| {
            let cpu = json!({ "cpu_usage": { "total_usage": used }, "system_cpu_usage": machine, "online_cpus": 4 });
            json!({ "cpu_stats": cpu })
        };
        assert_eq!(cpu_share(&sample(150, 2000), &sample(50, 1000)), 40.0);
        assert_eq!(cpu_share(&sample(150, 2000), &Value::Null), 0.0);
        assert_eq!(memory_used(&json!({ "usage": 100, "stats": { "inactive_file": 30 } })), 70.0);
        assert_eq!(memory_used(&json!({ "usage": 100, "stats": { "total_inactive_file": 200 } })), 100.0);
    }
}
