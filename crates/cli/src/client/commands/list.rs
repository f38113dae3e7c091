//! `ps`: containers in a table.

use super::App;
use crate::client::connection::Query;
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::text::{ago, ellipsis, go_time, human_size, quote, short_id};
use serde_json::Value;

const CONTAINERS: List = List {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    raw: "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate:{{pad .State 1 0}}\nstatus:{{pad .Status 1 0}}\nnames: {{.Names}}\nlabels:{{pad .Labels 1 0}}\nports:{{pad .Ports 1 0}}\n",
};

/// `ps`.
///
/// # Errors
/// The daemon refuses, or the format is wrong.
pub async fn list(app: App, p: Parsed) -> anyhow::Result<u8> {
    let format = p.text("format");
    let last = if p.on("latest") { 1 } else { p.int("last").unwrap_or(-1) };
    // Sizes are dear: they are asked for where they are shown.
    let size = p.on("size") || (!p.on("quiet") && shows_size(format));
    let mut query = Query::new().flag("all", p.on("all") || last > 0).flag("size", size).filters(p.list("filter"));
    if last > 0 {
        query = query.with("limit", last.to_string());
    }
    let answer = app.client.get(&format!("/containers/json{query}")).await?;
    let full = p.on("no-trunc");
    let rows = answer.as_array().into_iter().flatten().map(|c| row(c, full)).collect();
    if size && format.is_empty() {
        CONTAINERS.show_with(&format!("{}\t{{{{.Size}}}}", CONTAINERS.table), rows, format, p.on("quiet"))?;
    } else {
        CONTAINERS.show(rows, format, p.on("quiet"))?;
    }
    Ok(0)
}

fn shows_size(format: &str) -> bool {
    // As in docker, `json` by itself asks for no more than is there.
    format.contains(".Size") || format.contains("json .}}")
}

fn row(c: &Value, full: bool) -> Row {
    let text = |name: &str| c[name].as_str().unwrap_or_default().to_owned();
    let id = text("Id");
    let created = c["Created"].as_i64().unwrap_or_default();
    let names: Vec<&str> = c["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|n| n.strip_prefix('/').unwrap_or(n))
        // The names that links have given it have a slash inside.
        .filter(|n| full || !n.contains('/'))
        .collect();
    let command = text("Command");
    let command = quote(&if full { command } else { ellipsis(&command, 20) });
    let mounts: Vec<&Value> = c["Mounts"].as_array().into_iter().flatten().collect();
    let mount_names: Vec<String> = mounts
        .iter()
        .map(|m| {
            let name = m["Name"].as_str().filter(|n| !n.is_empty()).or(m["Source"].as_str()).unwrap_or_default();
            if full { name.to_owned() } else { ellipsis(name, 15) }
        })
        .collect();
    let local = mounts.iter().filter(|m| m["Driver"].as_str() == Some("local")).count();
    let networks = c["NetworkSettings"]["Networks"].as_object();
    let mut networks: Vec<&str> = networks.into_iter().flatten().map(|(n, _)| n.as_str()).collect();
    networks.sort_unstable();
    Row::new("*formatter.ContainerContext")
        .with("ID", if full { id.clone() } else { short_id(&id).to_owned() })
        .with("Names", names.join(","))
        .with("Image", image(c, full))
        .with("Command", command)
        .with("CreatedAt", go_time(created))
        .with("RunningFor", ago(created))
        .with("Ports", ports(&c["Ports"]))
        .with("State", text("State"))
        .with("Status", text("Status"))
        .with("Size", size(c))
        .with("Mounts", mount_names.join(","))
        .with("LocalVolumes", local.to_string())
        .with("Networks", networks.join(","))
        .with_value("Platform", crate::client::template::Value::raw(&c["ImageManifestDescriptor"]["platform"]))
        .labelled(&c["Labels"])
}

fn image(c: &Value, full: bool) -> String {
    let (name, id) = (c["Image"].as_str().unwrap_or_default(), c["ImageID"].as_str().unwrap_or_default());
    if name.is_empty() {
        return "<no image>".into();
    }
    if full {
        return name.to_owned();
    }
    if name == id || name.starts_with("sha256:") {
        return short_id(name).to_owned();
    }
    // A digest is cut off.
    name.split('@').next().unwrap_or(name).to_owned()
}

fn size(c: &Value) -> String {
    let bytes = |name: &str| c[name].as_f64().unwrap_or_default();
    let writable = human_size(bytes("SizeRw"), 3);
    match bytes("SizeRootFs") {
        root if root > 0.0 => format!("{writable} (virtual {})", human_size(root, 3)),
        _ => writable,
    }
}

/// Ports as `ps` shows them: runs of consecutive ones as a range, those that are published under another number last.
fn ports(list: &Value) -> String {
    struct Entry<'a> {
        address: &'a str,
        private: u64,
        public: u64,
        protocol: &'a str,
    }
    let mut entries: Vec<Entry<'_>> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| Entry {
            address: p["IP"].as_str().unwrap_or_default(),
            private: p["PrivatePort"].as_u64().unwrap_or_default(),
            public: p["PublicPort"].as_u64().unwrap_or_default(),
            protocol: p["Type"].as_str().unwrap_or("tcp"),
        })
        .collect();
    entries.sort_by(|a, b| {
        (a.private, a.address, a.public, a.protocol).cmp(&(b.private, b.address, b.public, b.protocol))
    });
    let shown = |(address, protocol): (&str, &str), first: u64, last: u64| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match address {
            "" => format!("{range}/{protocol}"),
            address => format!("{}->{range}/{protocol}", super::container::join_address(address, &range)),
        }
    };
    let mut done = Vec::new();
    let mut moved = Vec::new();
    let mut groups: Vec<((&str, &str), u64, u64)> = Vec::new();
    for e in &entries {
        if !e.address.is_empty() && e.public != e.private {
            let host = super::container::join_address(e.address, &e.public.to_string());
            moved.push(format!("{host}->{}/{}", e.private, e.protocol));
            continue;
        }
        let key = (e.address, e.protocol);
        match groups.iter_mut().find(|(k, ..)| *k == key) {
            None => groups.push((key, e.private, e.private)),
            Some((_, _, last)) if e.private == *last + 1 => *last = e.private,
            Some((_, first, last)) => {
                done.push(shown(key, *first, *last));
                (*first, *last) = (e.private, e.private);
            }
        }
    }
    done.extend(groups.into_iter().map(|(key, first, last)| shown(key, first, last)));
    done.extend(moved);
    done.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_grouped_as_docker_groups_them() {
        let port = |address: &str, private: u16, public: u16, protocol: &str| json!({ "IP": address, "PrivatePort": private, "PublicPort": public, "Type": protocol });
        let exposed = |private: u16| json!({ "PrivatePort": private, "Type": "tcp" });
        for (list, expected) in [
            (json!([]), ""),
            (json!([exposed(80)]), "80/tcp"),
            (json!([exposed(82), exposed(80), exposed(81), exposed(90)]), "80-82/tcp, 90/tcp"),
            (
                json!([port("0.0.0.0", 8000, 18001, "tcp"), port("::", 8000, 18001, "tcp")]),
                "0.0.0.0:18001->8000/tcp, [::]:18001->8000/tcp",
            ),
            (
                json!([port("0.0.0.0", 80, 80, "tcp"), port("0.0.0.0", 81, 81, "tcp"), port("0.0.0.0", 53, 53, "udp")]),
                "0.0.0.0:53->53/udp, 0.0.0.0:80-81->80-81/tcp",
            ),
        ] {
            assert_eq!(ports(&list), expected, "{list}");
        }
    }

    #[test]
    fn a_container_s_line_is_docker_s() {
        let shown = json!({
            "Id": "0123456789abcdef", "Names": ["/web"], "Image": "busybox", "ImageID": "sha256:1",
            "Command": "sh -c 'a rather long command'", "Created": 0, "Labels": { "a": "b" }, "State": "running",
        });
        let row = row(&shown, false);
        let json = crate::client::template::Object::json(&row);
        assert_eq!(json["ID"], "0123456789ab");
        assert_eq!(json["Command"], "\"sh -c 'a rather lon…\"");
        assert_eq!(json["Names"], "web");
        assert_eq!(json["Size"], "0B");
        assert_eq!(json["Labels"], "a=b");
    }
}
