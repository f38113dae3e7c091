//! `network`: what Isle is for.

use super::App;
use super::run::network::endpoint;
use crate::client::connection::{Query, is_not_found, segment};
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, confirm, print, say};
use crate::text::short_id;
use anyhow::bail;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

const NETWORKS: List = List {
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
};

/// `network ls`.
///
/// # Errors
/// The daemon refuses, or the format is wrong.
pub async fn list(app: App, p: Parsed) -> anyhow::Result<u8> {
    let query = Query::new().filters(p.list("filter"));
    let answer = app.client.get(&format!("/networks{query}")).await?;
    let mut networks: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    networks.sort_by_key(|n| n["Name"].as_str().unwrap_or_default().to_owned());
    let full = p.on("no-trunc");
    let rows = networks.into_iter().map(|n| {
        let text = |name: &str| n[name].as_str().unwrap_or_default().to_owned();
        let truth = |name: &str| n[name].as_bool().unwrap_or_default().to_string();
        let id = text("Id");
        Row::new("*formatter.networkContext")
            .with("ID", if full { id.clone() } else { short_id(&id).to_owned() })
            .with("Name", text("Name"))
            .with("Driver", text("Driver"))
            .with("Scope", text("Scope"))
            .with("IPv4", truth("EnableIPv4"))
            .with("IPv6", truth("EnableIPv6"))
            .with("Internal", truth("Internal"))
            .with("CreatedAt", super::created_at(&n["Created"]))
            .labelled(&n["Labels"])
    });
    NETWORKS.show(rows.collect(), p.text("format"), p.on("quiet"))?;
    Ok(0)
}

/// `network create`.
///
/// # Errors
/// Flags contradict each other, or the daemon refuses.
pub async fn create(app: App, p: Parsed) -> anyhow::Result<u8> {
    let created = app.client.post_json("/networks/create", &request(&p)?).await?;
    if let Some(warning) = created["Warning"].as_str().filter(|w| !w.is_empty()) {
        crate::client::output::warn(format_args!("WARNING: {warning}"));
    }
    say(created["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}

/// The body of `POST /networks/create`.
fn request(p: &Parsed) -> anyhow::Result<Value> {
    let pairs = |flag: &str| -> Map<String, Value> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), Value::from(value))
        };
        p.list(flag).iter().map(pair).collect()
    };
    let mut body = json!({
        "Name": p.args[0],
        "Driver": p.last("driver").unwrap_or("bridge"),
        "Scope": p.text("scope"),
        "Internal": p.on("internal"),
        "Attachable": p.on("attachable"),
        "Ingress": p.on("ingress"),
        "ConfigOnly": p.on("config-only"),
        "ConfigFrom": if p.given("config-from") { json!({ "Network": p.text("config-from") }) } else { Value::Null },
        "IPAM": {
            "Driver": p.last("ipam-driver").unwrap_or("default"),
            "Options": pairs("ipam-opt"),
            "Config": pools(p)?,
        },
        "Options": pairs("opt"),
        "Labels": pairs("label"),
    });
    for (flag, field) in [("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")] {
        if p.given(flag) {
            body[field] = p.on(flag).into();
        }
    }
    Ok(body)
}

/// Brings subnets, ranges, gateways and auxiliary addresses together: each belongs to the subnet that it lies in.
fn pools(p: &Parsed) -> anyhow::Result<Vec<Value>> {
    let (subnets, ranges, gateways) = (p.split("subnet"), p.split("ip-range"), p.split("gateway"));
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        bail!("every ip-range or gateway must have a corresponding subnet");
    }
    for (index, subnet) in subnets.iter().enumerate() {
        let before = &subnets[..index];
        if before.iter().any(|other| contains(subnet, other) || contains(other, subnet)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
    }
    let mut pools: Vec<(String, Map<String, Value>)> =
        subnets.iter().map(|s| (s.clone(), Map::from_iter([("Subnet".to_owned(), s.as_str().into())]))).collect();
    let mut place = |text: &str, what: &str, field: &str, several: &str| {
        let Some((_, pool)) = pools.iter_mut().find(|(subnet, _)| contains(subnet, text)) else {
            bail!("no matching subnet for {what} {text}");
        };
        if pool.insert(field.into(), text.into()).is_some() {
            bail!("cannot configure multiple {several} ({text}) on the same subnet");
        }
        Ok(())
    };
    for range in &ranges {
        place(range, "range", "IPRange", "ranges")?;
    }
    for gateway in &gateways {
        place(gateway, "gateway", "Gateway", "gateways")?;
    }
    for auxiliary in p.list("aux-address") {
        let (name, address) = auxiliary.split_once('=').unwrap_or((auxiliary, ""));
        let Some((_, pool)) = pools.iter_mut().find(|(subnet, _)| contains(subnet, address)) else {
            bail!("no matching subnet for aux-address {address}");
        };
        pool.entry("AuxiliaryAddresses").or_insert_with(|| json!({}))[name] = address.into();
    }
    Ok(pools.into_iter().map(|(_, pool)| pool.into()).collect())
}

/// Whether an address, or a subnet's first one, lies in a subnet. What is malformed lies nowhere: the daemon says so.
fn contains(subnet: &str, other: &str) -> bool {
    let Some((network, prefix)) = subnet.split_once('/') else { return false };
    let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    let Ok(address) = other.split('/').next().unwrap_or_default().parse::<IpAddr>() else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(a) => (32, u128::from(u32::from(a))),
        IpAddr::V6(a) => (128, u128::from(a)),
    };
    let ((width, network), (other_width, address)) = (bits(network), bits(address));
    if width != other_width || prefix > width {
        return false;
    }
    let shift = width - prefix;
    shift >= 128 || network >> shift == address >> shift
}

/// `network rm`.
///
/// # Errors
/// A network is not there, or in use.
pub async fn remove(app: App, p: Parsed) -> anyhow::Result<u8> {
    let force = p.on("force");
    let mut failed = false;
    for name in &p.args {
        match app.client.delete(&format!("/networks/{}", segment(name))).await {
            Ok(_) => say(name)?,
            Err(e) if force && is_not_found(&e) => {}
            Err(e) => {
                crate::client::output::warn(format_args!("{e:#}"));
                failed = true;
            }
        }
    }
    if failed { Err(Exit::code(1).into()) } else { Ok(0) }
}

/// `network connect`.
///
/// # Errors
/// The daemon refuses.
pub async fn connect(app: App, p: Parsed) -> anyhow::Result<u8> {
    let mut options = Vec::new();
    for option in p.split("driver-opt") {
        let Some((name, value)) = option.split_once('=') else {
            bail!("invalid key/value pair format in driver options");
        };
        options.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let config = endpoint(
        &p.split("alias"),
        p.list("link"),
        &options,
        [p.text("ip"), p.text("ip6"), ""],
        &p.split("link-local-ip"),
        p.int("gw-priority").unwrap_or_default(),
    );
    let body = json!({ "Container": p.args[1], "EndpointConfig": config });
    app.client.post_json(&format!("/networks/{}/connect", segment(&p.args[0])), &body).await?;
    Ok(0)
}

/// `network disconnect`.
///
/// # Errors
/// The daemon refuses.
pub async fn disconnect(app: App, p: Parsed) -> anyhow::Result<u8> {
    let body = json!({ "Container": p.args[1], "Force": p.on("force") });
    app.client.post_json(&format!("/networks/{}/disconnect", segment(&p.args[0])), &body).await?;
    Ok(0)
}

/// What is asked before networks are pruned.
pub const PRUNE: &str = "This will remove all custom networks not used by at least one container.";

/// `network prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    if confirm(PRUNE, p.on("force"))? {
        print(pruned(&app, p.list("filter")).await?)?;
    }
    Ok(0)
}

/// Prunes, and what is said about it.
///
/// # Errors
/// The daemon refuses.
pub async fn pruned(app: &App, filters: &[String]) -> anyhow::Result<String> {
    let query = Query::new().filters(filters);
    let answer = app.client.post(&format!("/networks/prune{query}")).await?;
    let names: Vec<&str> =
        answer["NetworksDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(if names.is_empty() { String::new() } else { format!("Deleted Networks:\n{}\n\n", names.join("\n")) })
}

/// `network explain`: Isle's own. The status is 0 where a flow passes, as a script would ask.
///
/// # Errors
/// A place or a port cannot be read, or the daemon knows nobody of that name.
pub async fn explain(app: App, p: Parsed) -> anyhow::Result<u8> {
    let [from, target] = p.args.as_slice() else { bail!("FROM and TO:PORT are needed") };
    let (to, port, protocol) = target_of(target)?;
    let query = Query::new().with("from", from).with("to", to).with("port", port).with("protocol", protocol);
    let answer = app.client.get(&format!("/isle/explain{query}")).await?;
    let flows: Vec<&Value> = answer["Flows"].as_array().into_iter().flatten().collect();
    if p.text("format") == "json" {
        say(&serde_json::to_string_pretty(&answer)?)?;
    } else {
        if let Some(name) = answer["Name"].as_str().filter(|n| !n.is_empty()) {
            say(name)?;
        }
        for flow in &flows {
            let text = |name: &str| flow[name].as_str().unwrap_or_default();
            let verdict = match flow["Passes"].as_bool() {
                Some(true) => format!("reaches {}", text("At")),
                _ => "is stopped".to_owned(),
            };
            say(format!("{} port {port}/{protocol} {verdict}: {}", text("To"), text("Why")))?;
        }
    }
    Ok(u8::from(!flows.iter().any(|f| f["Passes"] == true)))
}

/// `web:80`, `10.0.0.2:53/udp`, `[fd00::2]:80`: whom, port and protocol.
fn target_of(text: &str) -> anyhow::Result<(&str, &str, &str)> {
    let (target, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (to, port) = target.rsplit_once(':').unwrap_or((target, ""));
    if to.is_empty() || port.parse::<u16>().is_err() {
        bail!("{text:?} names no port: TO:PORT or TO:PORT/udp does, e.g. web:80");
    }
    Ok((to.trim_start_matches('[').trim_end_matches(']'), port, protocol))
}

/// `network inspect`.
///
/// # Errors
/// A network is not there.
pub async fn inspect(app: App, p: Parsed) -> anyhow::Result<u8> {
    super::inspect::objects(&app, &p, |app, name| {
        Box::pin(async move { app.client.get(&format!("/networks/{}", segment(&name))).await })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &[(&'static str, &str)]) -> Result<Value, String> {
        let mut parsed = Parsed::default();
        parsed.args.push("n".into());
        flags.iter().for_each(|(flag, value)| parsed.set(flag, value));
        request(&parsed).map_err(|e| e.to_string())
    }

    #[test]
    fn pools_are_brought_together() {
        let body = of(&[
            ("subnet", "10.1.0.0/24,fd00::/64"),
            ("subnet", "10.2.0.0/24"),
            ("gateway", "10.2.0.1"),
            ("ip-range", "10.1.0.128/25"),
            ("gateway", "fd00::1"),
            ("aux-address", "router=10.1.0.5"),
        ])
        .unwrap();
        assert_eq!(
            body["IPAM"]["Config"],
            json!([
                { "Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "AuxiliaryAddresses": { "router": "10.1.0.5" } },
                { "Subnet": "fd00::/64", "Gateway": "fd00::1" },
                { "Subnet": "10.2.0.0/24", "Gateway": "10.2.0.1" },
            ])
        );
        assert_eq!(body.get("EnableIPv6"), None);
        assert_eq!(of(&[("ipv6", "true"), ("ipv4", "false")]).unwrap()["EnableIPv4"], false);
    }

    #[test]
    fn pools_that_make_no_sense_are_refused_in_docker_s_words() {
        let subnet = ("subnet", "10.0.0.0/24");
        for (flags, why) in [
            (vec![("ip-range", "10.0.0.0/24")], "every ip-range or gateway must have a corresponding subnet"),
            (vec![subnet, ("gateway", "10.9.0.1")], "no matching subnet for gateway 10.9.0.1"),
            (vec![subnet, ("gateway", "zz")], "no matching subnet for gateway zz"),
            (vec![subnet, ("ip-range", "10.1.0.0/24")], "no matching subnet for range 10.1.0.0/24"),
            (vec![subnet, ("aux-address", "a=10.2.0.0")], "no matching subnet for aux-address 10.2.0.0"),
            (vec![subnet, ("subnet", "10.0.0.0/25")], "multiple overlapping subnet configuration is not supported"),
        ] {
            assert_eq!(of(&flags).unwrap_err(), why, "{flags:?}");
        }
    }
}
