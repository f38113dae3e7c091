//! What must differ between two machines and two runs, taken out: ids, times, MACs, dynamic addresses, generated names.
//!
//! Within a command the n-th distinct thing of a kind is `<KIND n>`, so that what was equal stays equal. Ids are given
//! back beside the text: the same Docker id must be the same Isle id over the whole run.

use crate::recording::Did;
use regex_lite::{Captures, Regex};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A text without what must differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normal {
    pub text: String,
    /// The first 12 digits of the ids, in order of appearance.
    pub ids: Vec<String>,
}

/// Reads texts of one side.
pub struct Normaliser {
    /// Whole lines or words of the room: addresses of its host, its name.
    room: Vec<(Regex, String)>,
    lines: Vec<(Regex, &'static str)>,
    words: Regex,
    length: u8,
}

impl Normaliser {
    /// `length`: the prefix of networks that were not given a subnet. `room`: what stands for what, as regular
    /// expressions.
    pub fn new(length: u8, room: &[(&str, &str)]) -> Self {
        let regex = |pattern: &str| Regex::new(pattern).unwrap_or_else(|e| panic!("{e}: {pattern}"));
        Self {
            room: room.iter().map(|(from, to)| (regex(from), (*to).to_owned())).collect(),
            lines: LINES.iter().map(|(from, to)| (regex(from), *to)).collect(),
            words: regex(&WORDS.join("|")),
            length,
        }
    }

    pub fn normal(&self, did: &Did) -> Normal {
        let mut seen = Seen::new(self.length);
        let mut part = |text: &str| {
            let mut text = text.to_owned();
            for (from, to) in &self.room {
                text = from.replace_all(&text, to.as_str()).into_owned();
            }
            for (from, to) in &self.lines {
                text = from.replace_all(&text, *to).into_owned();
            }
            let mut lines: Vec<String> = text.lines().map(|line| self.line(line, &mut seen)).collect();
            // Docker prunes in the order of ids, which are random.
            if lines.first().is_some_and(|l| l == "Deleted Networks:\n") {
                lines[1..].sort();
            }
            lines.concat()
        };
        let (stdout, stderr) = (part(&did.stdout), part(&did.stderr));
        Normal { text: format!("{stdout}--- stderr\n{stderr}--- exit {}\n", did.exit), ids: seen.order }
    }

    fn line(&self, line: &str, seen: &mut Seen) -> String {
        // The order of the addresses of a name is random.
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let addresses = words.len() > 1 && words.iter().all(|w| w.parse::<Ipv4Addr>().is_ok());
        if addresses {
            words.sort();
        }
        let line = if addresses { words.join(" ") } else { line.to_owned() };
        seen.widths = false;
        let replaced = self.words.replace_all(&line, |word: &Captures<'_>| seen.replace(&word[0]));
        // Columns are as wide as what was in them.
        let replaced = if seen.widths { collapse(&replaced) } else { replaced.into_owned() };
        format!("{replaced}\n")
    }
}

/// What is replaced anywhere, before words are looked at.
const LINES: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"(?m)^;; WHEN: .*$", ";; WHEN: <time>"),
    (r", id: \d+", ", id: <n>"),
    (r"Query time: \d+ msec", "Query time: <n> msec"),
    (r"<<>> DiG \S+ <<>>", "<<>> DiG <<>>"),
    (r"after \d+ (ms|milliseconds)\b", "after <n> $1"),
    (r"time=[0-9.]+ ms", "time=<n> ms"),
    (r"(?m)^rtt .*$", "rtt <n>"),
    (r", time \d+ms", ", time <n>ms"),
    (r"(?m)^(real|user|sys) [0-9.]+$", "$1 <n>"),
    (r"@if\d+", "@if<n>"),
    (r"/proc/\d+/ns/net", "/proc/<n>/ns/net"),
    // A bridge whose last port is just going.
    (r"(?m)^(brgold) +\S+ +(\S+) <\S+> *$", "$1 <state> $2"),
    // Generated names stand in these two places only.
    (r"on endpoint [a-z]+_[a-z]+\d* \(", "on endpoint <name> ("),
    (r"DB_NAME=/[a-z]+_[a-z]+\d*/", "DB_NAME=/<name>/"),
    // The name of the default network's device.
    (r"\bdocker0\b", "isle0"),
];

/// Ids, MACs, link-local addresses, addresses from dynamic pools, and their names backwards.
const WORDS: &[&str] = &[
    r"\b[0-9a-f]{64}\b",
    r"\b[0-9a-f]{12}\b",
    r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b",
    r"\bfe80::[0-9a-f:]+",
    r"\bfd00:aa::[0-9a-f:]+",
    r"\b172\.\d+\.\d+\.\d+\b(/\d+)?",
    r"\b\d+\.\d+\.\d+\.172\.in-addr\.arpa",
    r"\bIPPrefixLen.:\d+",
];

struct Seen {
    order: Vec<String>,
    numbers: BTreeMap<(&'static str, String), usize>,
    counts: BTreeMap<(&'static str, String), usize>,
    /// The prefix length of this side's dynamic networks.
    length: u8,
    /// Something was replaced that may have another width on the other side.
    widths: bool,
}

impl Seen {
    fn new(length: u8) -> Self {
        Self { order: Vec::new(), numbers: BTreeMap::new(), counts: BTreeMap::new(), length, widths: false }
    }

    /// Which of its kind (and group) a thing is, counted from 1 in order of appearance.
    fn number(&mut self, kind: &'static str, group: &str, thing: String) -> usize {
        let count = self.counts.entry((kind, group.to_owned())).or_default();
        *self.numbers.entry((kind, thing)).or_insert_with(|| {
            *count += 1;
            *count
        })
    }

    fn replace(&mut self, word: &str) -> String {
        if let Some(backwards) = word.strip_suffix(".in-addr.arpa") {
            let forwards: Vec<&str> = backwards.rsplit('.').collect();
            return format!("{}.in-addr.arpa", self.address(&forwards.join("."), None));
        }
        if let Some(length) = word.strip_prefix("IPPrefixLen\":") {
            let dynamic = length == self.length.to_string();
            return format!("IPPrefixLen\":{}", if dynamic { "<length>" } else { length });
        }
        if word.starts_with("172.") {
            let (address, length) = word.split_once('/').map_or((word, None), |(a, l)| (a, Some(l)));
            return self.address(address, length);
        }
        if word.starts_with("fe80:") {
            self.widths = true;
            return format!("<link-local {}>", self.number("link-local", "", word.to_owned()));
        }
        if word.starts_with("fd00:") {
            return format!("fd00:aa::<host {}>", self.number("v6", "", word.to_owned()));
        }
        if word.contains(':') {
            // Those that mean something are not dynamic.
            let fixed = ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(&word);
            return if fixed { word.into() } else { format!("<mac {}>", self.number("mac", "", word.to_owned())) };
        }
        self.order.push(word[..12].to_owned());
        let kind = if word.len() == 64 { "id" } else { "short id" };
        format!("<{kind} {}>", self.number("id", "", word[..12].to_owned()))
    }

    /// A network and a host in it: the gateway is 1, dynamic ones are counted.
    fn address(&mut self, text: &str, length: Option<&str>) -> String {
        let Ok(address) = text.parse::<Ipv4Addr>() else { return text.to_owned() };
        self.widths = true;
        // The default network has 16 bits on both sides.
        let default = address.octets()[1] == 17;
        let bits = if default { 16 } else { self.length };
        let mask = u32::MAX << (32 - bits);
        let net = match default {
            true => "default".to_owned(),
            false => format!("net {}", self.number("net", "", (u32::from(address) & mask).to_string())),
        };
        let host = match u32::from(address) & !mask {
            fixed @ (0 | 1) => fixed.to_string(),
            _ => format!("host {}", self.number("host", &net, text.to_owned())),
        };
        let length = match length {
            Some(length) if length == bits.to_string() => "/<length>".to_owned(),
            Some(length) => format!("/{length}"),
            None => String::new(),
        };
        format!("<{net}: {host}>{length}")
    }
}

fn collapse(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_equal_stays_equal_and_what_differed_differs() {
    let did = |stdout: &str| Did { stdout: stdout.into(), ..Did::default() };
    let docker =
        Normaliser::new(16, &[]).normal(&did("172.18.0.3/16 172.18.0.1 172.19.0.2 172.18.0.3\nbr-9cf21af78746\n"));
    let isle =
        Normaliser::new(22, &[]).normal(&did("172.18.0.9/22  172.18.0.1 172.18.4.2 172.18.0.9\nbr-abcdef012345\n"));
    assert_eq!(docker.text, isle.text);
    assert_eq!((docker.ids[0].as_str(), isle.ids[0].as_str()), ("9cf21af78746", "abcdef012345"));
    let other =
        Normaliser::new(22, &[]).normal(&did("172.18.0.9/22 172.18.0.1 172.18.4.2 172.18.0.8\nbr-abcdef012345\n"));
    assert_ne!(docker.text, other.text);
    let line = |text: &str| Normaliser::new(22, &[]).normal(&did(text)).text;
    assert_eq!(line("172.18.0.3 172.18.0.5 \n"), line("172.18.0.5 172.18.0.3\n"));
    assert_ne!(line("c1. 600 IN A 172.18.0.3\n"), line("c1. 1 IN A 172.18.0.3\n"));
}
