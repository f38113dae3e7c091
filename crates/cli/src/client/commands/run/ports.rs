//! `-p` and `--expose`: from what people write to `PortBindings` and `ExposedPorts`, in the words of Docker's client.
//!
//! `[address:][host[-last]]:port[-last][/protocol]`, or the long form `published=8080,target=80,protocol=tcp`.

use anyhow::{anyhow, bail};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A container's port and where it is bound: address and host port, both possibly empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `80/tcp`
    pub port: String,
    pub address: String,
    pub host_port: String,
}

/// Parses one `-p`.
///
/// # Errors
/// It is malformed.
pub fn parse(text: &str) -> anyhow::Result<Vec<Mapping>> {
    if text.contains('=') {
        return parse(&standard(text)?);
    }
    let mut parts: Vec<&str> = text.split(':').collect();
    let container = parts.pop().unwrap_or_default();
    let host = parts.pop().unwrap_or_default();
    let mut address = parts.join(":");
    if address.starts_with('[') {
        let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        address = inner
            .ok_or_else(|| anyhow!("invalid IP address {address}: address {address}:: missing ']' in address"))?
            .to_owned();
    }
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        bail!("invalid IP address: {address}");
    }
    let (ports, protocol) = split_protocol(container);
    if ports.is_empty() {
        bail!("no port specified: {text}<empty>");
    }
    let (first, last) = range(ports).map_err(|_| anyhow!("invalid containerPort: {ports}"))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).map_err(|_| anyhow!("invalid hostPort: {host}"))?),
    };
    if let Some((host_first, host_last)) = hosts
        && last - first != host_last - host_first
        && first != last
    {
        bail!("invalid ranges specified for container and host Ports: {ports} and {host}");
    }
    let protocol = check_protocol(protocol)?;
    let mapping = |number: u16| {
        let host_port = match hosts {
            None => String::new(),
            // One port that takes any free one of a range.
            Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + (number - first)).to_string(),
        };
        Mapping { port: format!("{number}/{protocol}"), address: address.clone(), host_port }
    };
    Ok((first..=last).map(mapping).collect())
}

/// The long form as the short one.
fn standard(text: &str) -> anyhow::Result<String> {
    let mut fields = BTreeMap::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| anyhow!("invalid field: {field}"))?;
        fields.insert(key.trim(), value.trim());
    }
    let get = |key: &str| fields.get(key).copied().unwrap_or_default();
    let protocol = if get("protocol").is_empty() { "tcp" } else { get("protocol") };
    if let Some(unknown) = fields.keys().find(|k| !["published", "target", "protocol", "mode"].contains(*k)) {
        bail!("invalid field key: {unknown}");
    }
    Ok(format!("{}:{}/{protocol}", get("published"), get("target")))
}

/// Parses one `--expose` into its ports.
///
/// # Errors
/// It is malformed.
pub fn expose(text: &str) -> anyhow::Result<Vec<String>> {
    if text.contains(':') {
        bail!("invalid port format for --expose: {text}");
    }
    let (ports, protocol) = split_protocol(text);
    let wrong = |e: String| anyhow!("invalid range format for --expose: {text}, error: {e}");
    let (first, last) = range(ports).map_err(wrong)?;
    Ok((first..=last).map(|number| format!("{number}/{protocol}")).collect())
}

fn split_protocol(text: &str) -> (&str, &str) {
    let mut parts = text.split('/');
    let ports = parts.next().unwrap_or_default();
    (ports, parts.next().filter(|p| !p.is_empty()).unwrap_or("tcp"))
}

fn check_protocol(protocol: &str) -> anyhow::Result<String> {
    let lower = protocol.to_ascii_lowercase();
    if ["tcp", "udp", "sctp"].contains(&lower.as_str()) { Ok(lower) } else { bail!("invalid proto: {protocol}") }
}

/// `80`, or `80-90`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let why = |e: std::num::ParseIntError| match e.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        // Rust takes a sign where Go does not.
        let parsed = if text.starts_with('+') { "x".parse() } else { text.parse::<u16>() };
        parsed.map_err(|e| format!("strconv.ParseUint: parsing {}: {}", crate::text::quote(text), why(e)))
    };
    if text.is_empty() {
        return Err("empty string specified for ports".into());
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first { Err(format!("invalid range specified for port: {text}")) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, &str)]) {
        let mappings = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let shown: Vec<_> =
            mappings.iter().map(|m| (m.address.as_str(), m.host_port.as_str(), m.port.as_str())).collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn ports_are_published_in_all_forms() {
        check("80", &[("", "", "80/tcp")]);
        check("8080:80", &[("", "8080", "80/tcp")]);
        check(":80", &[("", "", "80/tcp")]);
        check("0:80", &[("", "0", "80/tcp")]);
        check("80/", &[("", "", "80/tcp")]);
        check("53:53/UDP", &[("", "53", "53/udp")]);
        check("127.0.0.1::80", &[("127.0.0.1", "", "80/tcp")]);
        check("127.0.0.1:8080:80", &[("127.0.0.1", "8080", "80/tcp")]);
        check("[::1]:8080:80", &[("::1", "8080", "80/tcp")]);
        check("::1:8080:80", &[("::1", "8080", "80/tcp")]);
        check("[::]::80", &[("::", "", "80/tcp")]);
        check("8000-8001:80-81", &[("", "8000", "80/tcp"), ("", "8001", "81/tcp")]);
        check("8000-8010:80", &[("", "8000-8010", "80/tcp")]);
        check("80-81", &[("", "", "80/tcp"), ("", "", "81/tcp")]);
        check("80-81/sctp", &[("", "", "80/sctp"), ("", "", "81/sctp")]);
        check("published=8080,target=80", &[("", "8080", "80/tcp")]);
        check("target=53,protocol=udp", &[("", "", "53/udp")]);
    }

    #[test]
    fn what_is_no_port_is_refused_in_docker_s_words() {
        for (text, why) in [
            ("99999:80", "invalid hostPort: 99999"),
            ("80:99999", "invalid containerPort: 99999"),
            ("65536", "invalid containerPort: 65536"),
            ("80:80:80:80", "invalid IP address: 80:80"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[foo]:80:80", "invalid IP address: foo"),
            ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
            ("80:", "no port specified: 80:<empty>"),
            ("", "no port specified: <empty>"),
            ("foo", "invalid containerPort: foo"),
            ("-1:80", "invalid hostPort: -1"),
            ("80-70:80", "invalid hostPort: 80-70"),
            ("80/foo", "invalid proto: foo"),
            ("[::1]80", "invalid IP address [: address [:: missing ']' in address"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
            ("80:80-90", "invalid ranges specified for container and host Ports: 80-90 and 80"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn ports_are_exposed() {
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        for (text, why) in [
            ("1:2", "invalid port format for --expose: 1:2"),
            (
                "foo",
                "invalid range format for --expose: foo, error: strconv.ParseUint: parsing \"foo\": invalid syntax",
            ),
            (
                "99999",
                "invalid range format for --expose: 99999, error: strconv.ParseUint: parsing \"99999\": value \
                 out of range",
            ),
            ("90-80", "invalid range format for --expose: 90-80, error: invalid range specified for port: 90-80"),
        ] {
            assert_eq!(expose(text).unwrap_err().to_string(), why, "{text}");
        }
    }
}
