//! `info`, `version`, `events`, `system`: the daemon itself.

use super::App;
use crate::client::connection::{API, Query, Values};
use crate::client::grammar::Parsed;
use crate::client::output::{confirm, print, say, warn};
use crate::client::table;
use crate::text::{binary_size, human_size};
use hyper::Method;
use serde_json::{Value, json};
use std::fmt::Write;

/// `--version`.
pub fn one_line(program: &str) -> String {
    let capital = program[..1].to_uppercase() + &program[1..];
    format!("{capital} version {}", env!("CARGO_PKG_VERSION"))
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `version`.
///
/// # Errors
/// The daemon does not answer; the client's half is shown all the same.
pub async fn version(app: App, p: Parsed) -> anyhow::Result<u8> {
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API,
        "DefaultAPIVersion": API,
        "GitCommit": "unknown",
        "GoVersion": "none (Rust)",
        "Os": "linux",
        "Arch": arch(),
        "BuildTime": "unknown",
        "Context": "default",
    });
    let server = app.client.get("/version").await;
    let format = p.text("format");
    if !format.is_empty() {
        let both = json!({ "Client": client, "Server": server.as_ref().unwrap_or(&Value::Null) });
        say(super::inspect::single(format, &both)?)?;
        return server.map(|_| 0);
    }
    let version = env!("CARGO_PKG_VERSION");
    print(format_args!(
        "Client:\n Version:           {version}\n API version:       {API}\n OS/Arch:           linux/{}\n \
         Context:           default\n",
        arch()
    ))?;
    let server = server?;
    let text = |name: &str| server[name].as_str().unwrap_or_default();
    let platform = server["Platform"]["Name"].as_str().unwrap_or_default();
    let mut shown = format!("\nServer: {platform}\n");
    for component in server["Components"].as_array().into_iter().flatten() {
        let detail = |name: &str| component["Details"][name].as_str().unwrap_or_default();
        let _ = write!(
            shown,
            " {}:\n  Version:          {}\n",
            component["Name"].as_str().unwrap_or_default(),
            component["Version"].as_str().unwrap_or_default()
        );
        if component["Name"] == "Engine" {
            let _ = write!(
                shown,
                "  API version:      {} (minimum version {})\n  OS/Arch:          {}/{}\n  Kernel:           {}\n",
                text("ApiVersion"),
                text("MinAPIVersion"),
                text("Os"),
                text("Arch"),
                detail("KernelVersion"),
            );
        }
    }
    print(shown)?;
    Ok(0)
}

/// `info`.
///
/// # Errors
/// The daemon does not answer.
pub async fn info(app: App, p: Parsed) -> anyhow::Result<u8> {
    let format = p.text("format");
    let answer = app.client.get("/info").await;
    if !format.is_empty() {
        let mut info = answer?;
        info["ClientInfo"] = json!({ "Version": env!("CARGO_PKG_VERSION"), "Context": "default", "Debug": false });
        say(super::inspect::single(format, &info)?)?;
        return Ok(0);
    }
    print(format_args!("Client:\n Version:    {}\n Context:    default\n\nServer:\n", env!("CARGO_PKG_VERSION")))?;
    let info = answer?;
    print(show_info(&info))?;
    for warning in info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        warn(warning);
    }
    Ok(0)
}

fn show_info(info: &Value) -> String {
    let text = |name: &str| match &info[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let words = |value: &Value| {
        let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        words.join(" ")
    };
    let mut shown = String::new();
    let mut line = |indent: usize, name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(shown, "{:indent$}{name}: {value}", "");
        }
    };
    line(1, "Containers", text("Containers"));
    line(2, "Running", text("ContainersRunning"));
    line(2, "Paused", text("ContainersPaused"));
    line(2, "Stopped", text("ContainersStopped"));
    line(1, "Images", text("Images"));
    line(1, "Server Version", text("ServerVersion"));
    line(1, "Storage Driver", text("Driver"));
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        line(2, pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default().to_owned());
    }
    line(1, "Logging Driver", text("LoggingDriver"));
    line(1, "Cgroup Driver", text("CgroupDriver"));
    line(1, "Cgroup Version", text("CgroupVersion"));
    line(1, "Plugins", " ".into());
    for kind in ["Volume", "Network", "Log"] {
        line(2, kind, words(&info["Plugins"][kind]));
    }
    line(1, "Swarm", info["Swarm"]["LocalNodeState"].as_str().unwrap_or_default().to_owned());
    let runtimes: Vec<&str> = info["Runtimes"].as_object().into_iter().flatten().map(|(n, _)| n.as_str()).collect();
    line(1, "Runtimes", runtimes.join(" "));
    line(1, "Default Runtime", text("DefaultRuntime"));
    line(1, "Init Binary", text("InitBinary"));
    line(1, "Security Options", words(&info["SecurityOptions"]));
    for (name, field) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        line(1, name, text(field));
    }
    line(1, "Total Memory", binary_size(info["MemTotal"].as_f64().unwrap_or_default()));
    for (name, field) in [("Name", "Name"), ("ID", "ID"), ("Root Dir", "DockerRootDir"), ("Debug Mode", "Debug")] {
        line(1, name, text(field));
    }
    line(1, "Experimental", text("ExperimentalBuild"));
    line(1, "Live Restore Enabled", text("LiveRestoreEnabled"));
    line(1, "Firewall Backend", info["FirewallBackend"]["Driver"].as_str().unwrap_or_default().to_owned());
    for pair in info["FirewallBackend"]["Info"].as_array().into_iter().flatten() {
        line(2, pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default().to_owned());
    }
    let pools = info["DefaultAddressPools"].as_array().into_iter().flatten();
    let pools: Vec<String> =
        pools.map(|p| format!("Base: {}, Size: {}", p["Base"].as_str().unwrap_or_default(), p["Size"])).collect();
    if !pools.is_empty() {
        line(1, "Default Address Pools", " ".into());
        pools.iter().for_each(|pool| shown.push_str(&format!("   {pool}\n")));
    }
    shown.replace(":  \n", ":\n")
}

/// `events`.
///
/// # Errors
/// The daemon went away.
pub async fn events(app: App, p: Parsed) -> anyhow::Result<u8> {
    let moment = |flag: &str| match p.text(flag) {
        "" => Ok(String::new()),
        text => crate::text::moment(text),
    };
    let query =
        Query::new().some("since", &moment("since")?).some("until", &moment("until")?).filters(p.list("filter"));
    let mut values = Values::new(app.client.stream(Method::GET, &format!("/events{query}")).await?);
    while let Some(event) = values.next().await? {
        match p.text("format") {
            "" => say(event_line(&event))?,
            format => say(super::inspect::single(format, &event)?)?,
        }
    }
    Ok(0)
}

/// `2026-11-24T03:45:22.508219928Z container start 0123… (image=busybox, name=web)`
fn event_line(event: &Value) -> String {
    let nanoseconds = event["timeNano"].as_i64().unwrap_or_default();
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    let time = time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let time = time.strip_suffix("+00:00").map_or(time.clone(), |utc| format!("{utc}Z"));
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let mut attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    attributes.sort_unstable();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    let id = event["Actor"]["ID"].as_str().unwrap_or_default();
    format!("{time} {} {} {id}{attributes}", text("Type"), text("Action"))
}

/// `system df`.
///
/// # Errors
/// The daemon does not answer.
pub async fn df(app: App, p: Parsed) -> anyhow::Result<u8> {
    let usage = app.client.get("/system/df").await?;
    let items = |name: &str| usage[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let (images, containers, volumes) = (items("Images"), items("Containers"), items("Volumes"));
    if p.on("verbose") && p.text("format").is_empty() {
        return print(df_verbose(&images, &containers, &volumes)).map(|()| 0);
    }
    let used_images = images.iter().filter(|i| number(&i["Containers"]) > 0);
    let layers = number(&usage["LayersSize"]);
    // What other images have of an image's layers would stay.
    let own = |image: &Value| match (number(&image["Size"]), number(&image["SharedSize"])) {
        (-1, _) | (_, -1) => 0,
        (size, shared) => size - shared,
    };
    let used: i64 = used_images.clone().map(own).sum();
    let running = containers
        .iter()
        .filter(|c| ["running", "paused", "restarting"].contains(&c["State"].as_str().unwrap_or_default()));
    let written = |c: &Value| number(&c["SizeRw"]);
    let total: i64 = containers.iter().map(written).sum();
    let idle: i64 = total - running.clone().map(written).sum::<i64>();
    let volume_size = |v: &Value| number(&v["UsageData"]["Size"]).max(0);
    let in_use = |v: &&Value| number(&v["UsageData"]["RefCount"]) > 0;
    let all: i64 = volumes.iter().map(volume_size).sum();
    let free: i64 = volumes.iter().filter(|v| !in_use(v)).map(volume_size).sum();
    let share = |bytes: i64, of: i64| {
        let bytes = bytes.max(0);
        let percent = if of > 0 { format!(" ({}%)", bytes * 100 / of) } else { String::new() };
        format!("{}{percent}", human_size(bytes as f64, 4))
    };
    let lines = [
        ("Images", images.len(), used_images.count(), layers, share(layers - used, layers)),
        ("Containers", containers.len(), running.count(), total, share(idle, total)),
        ("Local Volumes", volumes.len(), volumes.iter().filter(in_use).count(), all, share(free, all)),
        ("Build Cache", items("BuildCache").len(), 0, 0, "0B".to_owned()),
    ];
    let headers = &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ];
    let list = crate::client::format::List {
        headers,
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        quiet: "{{.Type}}",
        raw: "",
    };
    let rows = lines.into_iter().map(|(kind, count, active, size, reclaimable)| {
        crate::client::format::Row::new("*formatter.diskUsageContext")
            .with("Type", kind)
            .with("TotalCount", count.to_string())
            .with("Active", active.to_string())
            .with("Size", human_size(size as f64, 4))
            .with("Reclaimable", reclaimable)
    });
    list.show(rows.collect(), p.text("format"), false)?;
    Ok(0)
}

/// `system df -v`: every object.
fn df_verbose(images: &[Value], containers: &[Value], volumes: &[Value]) -> String {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let size = |value: &Value| human_size(number(value).max(0) as f64, 3);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let short = |id: &Value| crate::text::short_id(text(id).trim_start_matches("sha256:")).to_owned();
    let mut table = String::from("REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n");
    for image in images {
        let tags: Vec<String> = image["RepoTags"].as_array().into_iter().flatten().map(text).collect();
        let names = if tags.is_empty() { vec!["<none>:<none>".to_owned()] } else { tags };
        let shared = number(&image["SharedSize"]).max(0);
        for name in names {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "<none>"));
            let _ = writeln!(
                table,
                "{repository}\t{tag}\t{}\t{}\t{}\t{}\t{}\t{}",
                short(&image["Id"]),
                crate::text::ago(number(&image["Created"])),
                size(&image["Size"]),
                human_size(shared as f64, 3),
                human_size((number(&image["Size"]) - shared).max(0) as f64, 4),
                number(&image["Containers"]).max(0),
            );
        }
    }
    let mut shown = format!("Images space usage:\n\n{}", table::layout(&table));
    let mut table = String::from("CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES\n");
    for container in containers {
        let mounts = container["Mounts"].as_array().into_iter().flatten().filter(|m| m["Type"] == "volume").count();
        let names: Vec<String> = container["Names"].as_array().into_iter().flatten().map(text).collect();
        let _ = writeln!(
            table,
            "{}\t{}\t{}\t{mounts}\t{}\t{}\t{}\t{}",
            short(&container["Id"]),
            text(&container["Image"]),
            crate::text::quote(&crate::text::ellipsis(&text(&container["Command"]), 20)),
            size(&container["SizeRw"]),
            crate::text::ago(number(&container["Created"])),
            text(&container["Status"]),
            names.join(",").trim_start_matches('/'),
        );
    }
    let _ = write!(shown, "\nContainers space usage:\n\n{}", table::layout(&table));
    let mut table = String::from("VOLUME NAME\tLINKS\tSIZE\n");
    for volume in volumes {
        let usage = &volume["UsageData"];
        let _ = writeln!(
            table,
            "{}\t{}\t{}",
            text(&volume["Name"]),
            number(&usage["RefCount"]).max(0),
            size(&usage["Size"])
        );
    }
    let _ = write!(shown, "\nLocal Volumes space usage:\n\n{}", table::layout(&table));
    let table = "CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n";
    let _ = write!(shown, "\nBuild cache usage: 0B\n\n{}", table::layout(table));
    shown
}

/// `system prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    let (all, volumes) = (p.on("all"), p.on("volumes"));
    let mut what = vec!["  - all stopped containers", "  - all networks not used by at least one container"];
    if volumes {
        what.push("  - all anonymous volumes not used by at least one container");
    }
    what.push(if all {
        "  - all images without at least one container associated to them"
    } else {
        "  - all dangling images"
    });
    what.push(if all { "  - all build cache" } else { "  - unused build cache" });
    if !confirm(&format!("This will remove:\n{}\n", what.join("\n")), p.on("force"))? {
        return Ok(0);
    }
    let filters = p.list("filter");
    let mut reclaimed = 0;
    let (said, bytes) = super::container::pruned(&app, filters).await?;
    print(said)?;
    reclaimed += bytes;
    print(super::network::pruned(&app, filters).await?)?;
    if volumes {
        let (said, bytes) = super::volume::pruned(&app, filters, false).await?;
        print(said)?;
        reclaimed += bytes;
    }
    let (said, bytes) = super::image::pruned(&app, filters, all).await?;
    print(said)?;
    reclaimed += bytes + super::build::pruned(&app).await?;
    print(super::reclaimed(reclaimed))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "Type": "network", "Action": "connect", "timeNano": 1_000_000_001i64,
            "Actor": { "ID": "abc", "Attributes": { "type": "bridge", "name": "net" } },
        });
        let line = event_line(&event);
        assert!(line.ends_with(" network connect abc (name=net, type=bridge)"), "{line}");
    }
}
