//! `--network` and the flags beside it: which networks a container is on, and how.

use crate::client::grammar::Parsed;
use anyhow::bail;
use serde_json::{Map, Value, json};

/// A `--network`, short or long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    pub target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    driver_options: Vec<(String, String)>,
    ipv4: String,
    ipv6: String,
    mac: String,
    link_local: Vec<String>,
    gateway_priority: i64,
}

/// Parses a `--network`: a name, or `name=net,alias=a,ip=10.0.0.2,...`.
///
/// # Errors
/// In Docker's words.
pub fn parse(text: &str) -> Result<Attachment, String> {
    let mut attachment = Attachment::default();
    let long = text.split(',').next().is_some_and(|f| f.contains('='));
    if !long {
        attachment.target = text.to_owned();
        return Ok(attachment);
    }
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else { return Err(format!("invalid field {field}")) };
        let value = value.trim().to_owned();
        match key.trim().to_lowercase().as_str() {
            "name" => attachment.target = value,
            "alias" => attachment.aliases.push(value),
            "driver-opt" => match value.split_once('=') {
                Some((key, value)) => attachment.driver_options.push((key.trim().into(), value.trim().into())),
                None => return Err("invalid key value pair format in driver options".into()),
            },
            "ip" => attachment.ipv4 = value,
            "ip6" => attachment.ipv6 = value,
            "mac-address" => attachment.mac = value,
            "link-local-ip" => attachment.link_local.push(value),
            "gw-priority" => {
                attachment.gateway_priority =
                    value.parse().map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if attachment.target.is_empty() && !text.split(',').any(|f| f.trim().to_lowercase().starts_with("name=")) {
        return Err("network name/id is not specified".into());
    }
    Ok(attachment)
}

/// Whether a network's name is that of one that people make.
pub fn is_user_defined(name: &str) -> bool {
    !["default", "bridge", "host", "none"].contains(&name)
        && !name.starts_with("container:")
        && !name.starts_with("ns:")
}

/// `NetworkMode` and `EndpointsConfig` for all of them together.
///
/// # Errors
/// They contradict each other.
pub fn endpoints(parsed: &Parsed) -> anyhow::Result<(String, Map<String, Value>)> {
    let mut attachments: Vec<Attachment> =
        parsed.list("network").iter().map(|n| parse(n)).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    if attachments.is_empty() {
        attachments.push(Attachment { target: "default".into(), ..Default::default() });
    }
    let mode = attachments[0].target.clone();
    let ours = attachments.iter().filter(|a| is_user_defined(&a.target)).count();
    let mixed = ours > 0 && ours < attachments.len();
    let mut endpoints = Map::new();
    for (index, attachment) in attachments.iter_mut().enumerate() {
        if index == 0 {
            apply(attachment, parsed)?;
        }
        let settings = settings(attachment)?;
        if attachment.target.starts_with("container:") || attachment.target.starts_with("ns:") {
            continue;
        }
        if endpoints.insert(attachment.target.clone(), settings).is_some() {
            bail!("network {} is specified multiple times", crate::text::quote(&attachment.target));
        }
    }
    if mixed {
        bail!("conflicting options: cannot attach both user-defined and non-user-defined network-modes");
    }
    Ok((mode, endpoints))
}

/// The flags beside `--network` belong to the first one.
fn apply(attachment: &mut Attachment, parsed: &Parsed) -> anyhow::Result<()> {
    let both = |per_network: bool, flag: &str| per_network && parsed.given(flag);
    let conflicts = [
        (both(!attachment.aliases.is_empty(), "network-alias"), "--network-alias and per-network alias"),
        (both(!attachment.ipv4.is_empty(), "ip"), "--ip and per-network IPv4 address"),
        (both(!attachment.ipv6.is_empty(), "ip6"), "--ip6 and per-network IPv6 address"),
        (both(!attachment.mac.is_empty(), "mac-address"), "--mac-address and per-network MAC address"),
        (
            both(!attachment.link_local.is_empty(), "link-local-ip"),
            "--link-local-ip and per-network link-local IP addresses",
        ),
    ];
    if let Some((_, what)) = conflicts.iter().find(|(conflict, _)| *conflict) {
        bail!("conflicting options: cannot specify both {what}");
    }
    let replace = |field: &mut String, flag: &str| {
        if !parsed.text(flag).is_empty() {
            *field = parsed.text(flag).to_owned();
        }
    };
    replace(&mut attachment.ipv4, "ip");
    replace(&mut attachment.ipv6, "ip6");
    replace(&mut attachment.mac, "mac-address");
    attachment.aliases.extend_from_slice(parsed.list("network-alias"));
    attachment.link_local.extend_from_slice(parsed.list("link-local-ip"));
    // On the default bridge a link is the container's own matter.
    if is_user_defined(&attachment.target) {
        attachment.links.extend_from_slice(parsed.list("link"));
    }
    Ok(())
}

fn settings(attachment: &Attachment) -> anyhow::Result<Value> {
    if attachment.target.trim().is_empty() {
        bail!("no name set for network");
    }
    if !is_user_defined(&attachment.target) && !attachment.aliases.is_empty() {
        bail!("network-scoped aliases are only supported for user-defined networks");
    }
    if !attachment.mac.is_empty() && !is_mac(&attachment.mac) {
        bail!("{} is not a valid mac address", attachment.mac);
    }
    Ok(endpoint(
        &attachment.aliases,
        &attachment.links,
        &attachment.driver_options,
        [&attachment.ipv4, &attachment.ipv6, &attachment.mac],
        &attachment.link_local,
        attachment.gateway_priority,
    ))
}

/// `EndpointSettings`, as `run` and `network connect` send them. `addresses`: IPv4, IPv6, MAC.
pub fn endpoint(
    aliases: &[String],
    links: &[String],
    driver_options: &[(String, String)],
    addresses: [&str; 3],
    link_local: &[String],
    gateway_priority: i64,
) -> Value {
    let [ipv4, ipv6, mac] = addresses;
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    let mut ipam = Map::new();
    for (name, value) in [("IPv4Address", ipv4), ("IPv6Address", ipv6)] {
        if !value.is_empty() {
            ipam.insert(name.into(), value.into());
        }
    }
    if !link_local.is_empty() {
        ipam.insert("LinkLocalIPs".into(), json!(link_local));
    }
    let options: Map<String, Value> = driver_options.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    json!({
        "IPAMConfig": if ipam.is_empty() { Value::Null } else { ipam.into() },
        "Links": list(links),
        "Aliases": list(aliases),
        "MacAddress": mac,
        "DriverOpts": if options.is_empty() { Value::Null } else { options.into() },
        "GwPriority": gateway_priority,
    })
}

/// Go's `net.ParseMAC`, as far as Ethernet goes.
fn is_mac(text: &str) -> bool {
    let digits = |part: &str, n: usize| part.len() == n && part.chars().all(|c| c.is_ascii_hexdigit());
    let parts = |separator: char| text.split(separator).collect::<Vec<_>>();
    [(':', 6, 2), ('-', 6, 2), ('.', 3, 4)].iter().any(|(separator, count, n)| {
        parts(*separator).len() == *count && parts(*separator).iter().all(|p| digits(p, *n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: &[(&'static str, &str)]) -> Parsed {
        let mut parsed = Parsed::default();
        for (flag, value) in flags {
            parsed.set(flag, value);
        }
        parsed
    }

    fn refused(flags: &[(&'static str, &str)], why: &str) {
        assert_eq!(endpoints(&parsed(flags)).unwrap_err().to_string(), why, "{flags:?}");
    }

    #[test]
    fn the_long_form_says_everything() {
        let text = "NAME=net,Alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2,mac-address=02:00:00:00:00:01,\
                    link-local-ip=169.254.1.1,driver-opt=k=v,gw-priority=5";
        let (mode, endpoints) = endpoints(&parsed(&[("network", text)])).unwrap();
        assert_eq!(mode, "net");
        assert_eq!(
            endpoints["net"],
            json!({
                "IPAMConfig": {
                    "IPv4Address": "10.0.0.2", "IPv6Address": "fd00::2", "LinkLocalIPs": ["169.254.1.1"],
                },
                "Links": null,
                "Aliases": ["a", "b"],
                "MacAddress": "02:00:00:00:00:01",
                "DriverOpts": { "k": "v" },
                "GwPriority": 5,
            })
        );
    }

    #[test]
    fn a_name_may_have_commas_unless_it_looks_like_the_long_form() {
        assert_eq!(parse("a,b").unwrap().target, "a,b");
        for (text, why) in [
            ("name=a,foo=b", "invalid field key foo"),
            ("alias=b", "network name/id is not specified"),
            ("name=a,gw-priority=x", "invalid gw-priority (x): invalid syntax"),
            ("name=a,driver-opt=z", "invalid key value pair format in driver options"),
            ("name=a,", "invalid field "),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn flags_beside_it_belong_to_the_first_network() {
        let (mode, endpoints) = endpoints(&parsed(&[
            ("network", "a"),
            ("network", "b"),
            ("network-alias", "x"),
            ("ip", "10.0.0.9"),
            ("link", "db:db"),
        ]))
        .unwrap();
        assert_eq!(mode, "a");
        assert_eq!(endpoints["a"]["Aliases"], json!(["x"]));
        assert_eq!(endpoints["a"]["Links"], json!(["db:db"]));
        assert_eq!(endpoints["a"]["IPAMConfig"]["IPv4Address"], "10.0.0.9");
        assert_eq!(endpoints["b"]["Aliases"], Value::Null);
    }

    #[test]
    fn contradictions_are_refused_in_docker_s_words() {
        let only = "network-scoped aliases are only supported for user-defined networks";
        refused(&[("network", "host"), ("network-alias", "x")], only);
        refused(&[("network-alias", "x")], only);
        refused(
            &[("network", "none"), ("network", "a")],
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        );
        refused(&[("network", "a"), ("network", "a")], "network \"a\" is specified multiple times");
        refused(
            &[("network", "name=a,ip=1.2.3.4"), ("ip", "1.2.3.5")],
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        );
        refused(&[("network", "")], "no name set for network");
        refused(&[("network", "a"), ("mac-address", "zz")], "zz is not a valid mac address");
    }
}
