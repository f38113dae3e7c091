//! `volume`.

use super::App;
use crate::client::connection::{Query, is_not_found, segment};
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, confirm, print, say, warn};
use serde_json::{Map, Value, json};

const VOLUMES: List = List {
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    raw: "name: {{.Name}}\ndriver: {{.Driver}}\n",
};

/// `volume ls`.
///
/// # Errors
/// The daemon refuses, or the format is wrong.
pub async fn list(app: App, p: Parsed) -> anyhow::Result<u8> {
    let answer = app.client.get(&format!("/volumes{}", Query::new().filters(p.list("filter")))).await?;
    let mut volumes: Vec<&Value> = answer["Volumes"].as_array().into_iter().flatten().collect();
    volumes.sort_by_key(|v| v["Name"].as_str().unwrap_or_default().to_owned());
    let rows = volumes.into_iter().map(row).collect();
    VOLUMES.show(rows, p.text("format"), p.on("quiet"))?;
    Ok(0)
}

fn row(v: &Value) -> Row {
    let text = |name: &str| v[name].as_str().unwrap_or_default();
    Row::new("*formatter.volumeContext")
        .with("Name", text("Name"))
        .with("Driver", text("Driver"))
        .with("Scope", text("Scope"))
        .with("Mountpoint", text("Mountpoint"))
        .with("Links", "N/A")
        .with("Size", "N/A")
        .with("Group", "N/A")
        .with("Availability", "N/A")
        .with("Status", "N/A")
        .labelled(&v["Labels"])
}

/// `volume create`.
///
/// # Errors
/// The daemon refuses.
pub async fn create(app: App, p: Parsed) -> anyhow::Result<u8> {
    let pairs = |flag: &str| -> Map<String, Value> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), Value::from(value))
        };
        p.list(flag).iter().map(pair).collect()
    };
    let body = json!({
        "Name": p.args.first().map(String::as_str).unwrap_or_default(),
        "Driver": p.last("driver").unwrap_or("local"),
        "DriverOpts": pairs("opt"),
        "Labels": pairs("label"),
    });
    let created = app.client.post_json("/volumes/create", &body).await?;
    say(created["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

/// `volume rm`.
///
/// # Errors
/// A volume is in use, or not there.
pub async fn remove(app: App, p: Parsed) -> anyhow::Result<u8> {
    let force = p.on("force");
    let mut failed = false;
    for name in &p.args {
        let query = Query::new().flag("force", force);
        match app.client.delete(&format!("/volumes/{}{query}", segment(name))).await {
            Ok(_) => say(name)?,
            Err(e) if force && is_not_found(&e) => say(name)?,
            Err(e) => {
                warn(format_args!("{e:#}"));
                failed = true;
            }
        }
    }
    if failed { Err(Exit::code(1).into()) } else { Ok(0) }
}

/// What is asked before volumes are pruned.
pub const PRUNE: &str = "This will remove anonymous local volumes not used by at least one container.";

/// `volume prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    let all = p.on("all");
    let warning = if all { "This will remove all local volumes not used by at least one container." } else { PRUNE };
    if confirm(warning, p.on("force"))? {
        let (said, bytes) = pruned(&app, p.list("filter"), all).await?;
        print(said + &super::reclaimed(bytes))?;
    }
    Ok(0)
}

/// Prunes; what is said about it, and how much it won.
///
/// # Errors
/// The daemon refuses.
pub async fn pruned(app: &App, filters: &[String], all: bool) -> anyhow::Result<(String, i64)> {
    let mut filters = filters.to_vec();
    if all {
        filters.push("all=true".into());
    }
    let answer = app.client.post(&format!("/volumes/prune{}", Query::new().filters(&filters))).await?;
    let names: Vec<&str> =
        answer["VolumesDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = if names.is_empty() { String::new() } else { format!("Deleted Volumes:\n{}\n\n", names.join("\n")) };
    Ok((said, answer["SpaceReclaimed"].as_i64().unwrap_or_default()))
}
