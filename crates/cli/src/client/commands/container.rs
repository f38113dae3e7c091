//! `container`: what is done to containers that are there. Making and attaching is [`super::run`]'s.

use super::App;
use crate::client::connection::{Chunks, Query, is_not_found, segment};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, confirm, each, each_that_counts, print, say, warn};
use crate::client::streams;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

async fn act(app: &App, p: &Parsed, verb: &'static str, query: Query) -> anyhow::Result<u8> {
    each(&p.args, |name| {
        let (client, query) = (app.client.clone(), query.clone());
        async move { client.post(&format!("/containers/{}/{verb}{query}", segment(&name))).await.map(drop) }
    })
    .await
}

fn stopping(p: &Parsed) -> Query {
    Query::new().some("signal", p.text("signal")).some("t", p.text("timeout"))
}

/// `stop`.
///
/// # Errors
/// A container is not there.
pub async fn stop(app: App, p: Parsed) -> anyhow::Result<u8> {
    act(&app, &p, "stop", stopping(&p)).await
}

/// `restart`.
///
/// # Errors
/// A container is not there.
pub async fn restart(app: App, p: Parsed) -> anyhow::Result<u8> {
    act(&app, &p, "restart", stopping(&p)).await
}

/// `kill`.
///
/// # Errors
/// A container does not run.
pub async fn kill(app: App, p: Parsed) -> anyhow::Result<u8> {
    act(&app, &p, "kill", Query::new().some("signal", p.text("signal"))).await
}

/// `pause` and `unpause`.
///
/// # Errors
/// A container does not run.
pub async fn simple(app: App, p: Parsed, verb: &'static str) -> anyhow::Result<u8> {
    act(&app, &p, verb, Query::new()).await
}

/// `rename`.
///
/// # Errors
/// The daemon refuses.
pub async fn rename(app: App, p: Parsed) -> anyhow::Result<u8> {
    let query = Query::new().with("name", &p.args[1]);
    let renamed = app.client.post(&format!("/containers/{}/rename{query}", segment(&p.args[0]))).await;
    renamed
        .map(|_| 0)
        .map_err(|e| Exit::new(1, format_args!("{e:#}\nError: failed to rename container named {}", p.args[0])).into())
}

/// `rm`.
///
/// # Errors
/// A container runs, or is not there.
pub async fn remove(app: App, p: Parsed) -> anyhow::Result<u8> {
    let query = Query::new().flag("force", p.on("force")).flag("link", p.on("link")).flag("v", p.on("volumes"));
    let force = p.on("force");
    each_that_counts(&p.args, |name| {
        let path = format!("/containers/{}{query}", segment(name.trim_start_matches('/')));
        let client = app.client.clone();
        async move {
            match client.delete(&path).await {
                // With force, what is gone already is an error that does not count.
                Err(e) if force && is_not_found(&e) => {
                    warn(format_args!("{e:#}"));
                    Ok(false)
                }
                done => done.map(|_| true),
            }
        }
    })
    .await
}

/// `wait`.
///
/// # Errors
/// A container is not there.
pub async fn wait(app: App, p: Parsed) -> anyhow::Result<u8> {
    let mut errors = Vec::new();
    for name in &p.args {
        match app.client.post(&format!("/containers/{}/wait", segment(name))).await {
            Ok(answer) => say(&answer["StatusCode"])?,
            Err(e) => errors.push(format!("{e:#}")),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Exit::new(1, errors.join("\n")).into()) }
}

/// `port`.
///
/// # Errors
/// The container is not there, or the port is not published.
pub async fn port(app: App, p: Parsed) -> anyhow::Result<u8> {
    let name = &p.args[0];
    let shown = app.client.get(&format!("/containers/{}/json", segment(name))).await?;
    let empty = Map::new();
    let ports = shown["NetworkSettings"]["Ports"].as_object().unwrap_or(&empty);
    let bindings = |value: &Value| -> Vec<String> {
        let bound = value.as_array().into_iter().flatten();
        bound
            .map(|b| join_address(b["HostIp"].as_str().unwrap_or_default(), b["HostPort"].as_str().unwrap_or_default()))
            .collect()
    };
    let mut lines = Vec::new();
    if let Some(asked) = p.args.get(1) {
        let key = if asked.contains('/') { asked.clone() } else { format!("{asked}/tcp") };
        lines = ports.get(&key).map(bindings).unwrap_or_default();
        if lines.is_empty() {
            return Err(Exit::new(1, format_args!("Error: No public port '{asked}' published for {name}")).into());
        }
    } else {
        // By number, whatever the protocol.
        let sorted: BTreeMap<(u32, &str), (&String, &Value)> = ports
            .iter()
            .map(|(port, bound)| {
                let (number, protocol) = port.split_once('/').unwrap_or((port, ""));
                ((number.parse().unwrap_or_default(), protocol), (port, bound))
            })
            .collect();
        for (port, bound) in sorted.into_values() {
            lines.extend(bindings(bound).into_iter().map(|b| format!("{port} -> {b}")));
        }
    }
    print(lines.iter().map(|l| format!("{l}\n")).collect::<String>())?;
    Ok(0)
}

/// Go's `net.JoinHostPort`.
pub fn join_address(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `logs`.
///
/// # Errors
/// The container is not there.
pub async fn logs(app: App, p: Parsed) -> anyhow::Result<u8> {
    let name = segment(&p.args[0]);
    let shown = app.client.get(&format!("/containers/{name}/json")).await?;
    let tty = shown["Config"]["Tty"].as_bool() == Some(true);
    let moment = |flag: &str| {
        let text = p.text(flag);
        if text.is_empty() {
            return Ok(String::new());
        }
        crate::text::moment(text).map_err(|e| anyhow::anyhow!("invalid value for {}: {e}", crate::text::quote(flag)))
    };
    let query = Query::new()
        .with("stdout", "1")
        .with("stderr", "1")
        .flag("follow", p.on("follow"))
        .flag("timestamps", p.on("timestamps"))
        .flag("details", p.on("details"))
        .some("since", &moment("since")?)
        .some("until", &moment("until")?)
        .with("tail", p.last("tail").unwrap_or("all"));
    let answer = app.client.stream(Method::GET, &format!("/containers/{name}/logs{query}")).await?;
    streams::copy(Chunks(answer), !tty).await?;
    Ok(0)
}

/// What is asked before containers are pruned.
pub const PRUNE: &str = "This will remove all stopped containers.";

/// `container prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    if confirm(PRUNE, p.on("force"))? {
        let (said, bytes) = pruned(&app, p.list("filter")).await?;
        print(said + &super::reclaimed(bytes))?;
    }
    Ok(0)
}

/// Prunes; what is said about it, and how much it won.
///
/// # Errors
/// The daemon refuses.
pub async fn pruned(app: &App, filters: &[String]) -> anyhow::Result<(String, i64)> {
    let answer = app.client.post(&format!("/containers/prune{}", Query::new().filters(filters))).await?;
    let ids: Vec<&str> =
        answer["ContainersDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = if ids.is_empty() { String::new() } else { format!("Deleted Containers:\n{}\n\n", ids.join("\n")) };
    Ok((said, answer["SpaceReclaimed"].as_i64().unwrap_or_default()))
}

/// Turns a daemon's 'no such page' into words for people.
fn unless_lacking<T>(app: &App, answer: anyhow::Result<T>) -> anyhow::Result<T> {
    answer.map_err(|e| match e.downcast_ref::<crate::client::connection::Refused>() {
        Some(r) if r.status == 501 || r.message == "page not found" => {
            let words = app.used.rsplit(' ').next().unwrap_or_default();
            Exit::new(1, format_args!("the daemon at {} has no '{words}' yet", app.client.host())).into()
        }
        _ => e,
    })
}

/// `top`.
///
/// # Errors
/// The container does not run.
pub async fn top(app: App, p: Parsed) -> anyhow::Result<u8> {
    let query = Query::new().some("ps_args", &p.args[1..].join(" "));
    let answer = app.client.get(&format!("/containers/{}/top{query}", segment(&p.args[0]))).await;
    let answer = unless_lacking(&app, answer)?;
    let line = |cells: &Value| {
        let cells: Vec<&str> = cells.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        cells.join("\t") + "\n"
    };
    let rows: String = answer["Processes"].as_array().into_iter().flatten().map(line).collect();
    print(crate::client::table::layout_from(&(line(&answer["Titles"]) + &rows), 20))?;
    Ok(0)
}

/// `diff`.
///
/// # Errors
/// The container is not there.
pub async fn diff(app: App, p: Parsed) -> anyhow::Result<u8> {
    let answer = app.client.get(&format!("/containers/{}/changes", segment(&p.args[0]))).await;
    for change in unless_lacking(&app, answer)?.as_array().into_iter().flatten() {
        let kind = match change["Kind"].as_i64() {
            Some(1) => "A",
            Some(2) => "D",
            _ => "C",
        };
        say(format_args!("{kind} {}", change["Path"].as_str().unwrap_or_default()))?;
    }
    Ok(0)
}

/// `update`.
///
/// # Errors
/// The container is not there.
pub async fn update(app: App, p: Parsed) -> anyhow::Result<u8> {
    let mut body = json!({});
    for (flag, field) in [
        ("cpu-period", "CpuPeriod"),
        ("cpu-quota", "CpuQuota"),
        ("cpu-shares", "CpuShares"),
        ("pids-limit", "PidsLimit"),
        ("blkio-weight", "BlkioWeight"),
    ] {
        if let Some(number) = p.int(flag) {
            body[field] = number.into();
        }
    }
    for (flag, field) in
        [("memory", "Memory"), ("memory-swap", "MemorySwap"), ("memory-reservation", "MemoryReservation")]
    {
        if p.given(flag) {
            body[field] = crate::text::parse_bytes(p.text(flag)).map_err(anyhow::Error::msg)?.into();
        }
    }
    for (flag, field) in [("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")] {
        if p.given(flag) {
            body[field] = p.text(flag).into();
        }
    }
    if p.given("cpus") {
        body["NanoCpus"] = crate::text::parse_nano(p.text("cpus")).map_err(anyhow::Error::msg)?.into();
    }
    if p.given("restart") {
        let (name, count) = super::run::flags::restart(p.text("restart"))?;
        body["RestartPolicy"] = json!({ "Name": name, "MaximumRetryCount": count });
    }
    if body == json!({}) {
        return Err(Exit::new(1, "you must provide one or more flags when using this command").into());
    }
    each(&p.args, |name| {
        let (app, body) = (app.clone(), body.clone());
        async move {
            let answer = app.client.post_json(&format!("/containers/{}/update", segment(&name)), &body).await;
            unless_lacking(&app, answer).map(drop)
        }
    })
    .await
}

/// `export`.
///
/// # Errors
/// The container is not there.
pub async fn export(app: App, p: Parsed) -> anyhow::Result<u8> {
    let path = format!("/containers/{}/export", segment(&p.args[0]));
    let output = p.text("output");
    if output.is_empty() && crate::client::terminal::stdout_is_terminal() {
        return Err(Exit::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect").into());
    }
    let answer = unless_lacking(&app, app.client.stream(Method::GET, &path).await)?;
    super::image::copy_to(Chunks(answer), output).await?;
    Ok(0)
}

/// `commit`.
///
/// # Errors
/// The container is not there.
pub async fn commit(app: App, p: Parsed) -> anyhow::Result<u8> {
    let (repository, tag) = super::image::split_tag(p.args.get(1).map(String::as_str).unwrap_or_default());
    let mut query = Query::new()
        .with("container", &p.args[0])
        .some("repo", repository)
        .some("tag", tag)
        .some("comment", p.text("message"))
        .some("author", p.text("author"));
    if !p.on_or("pause", true) {
        query = query.with("pause", "0");
    }
    for change in p.list("change") {
        query = query.with("changes", change);
    }
    let answer = app.client.post_json(&format!("/commit{query}"), &json!({})).await;
    say(unless_lacking(&app, answer)?["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}
