//! Other firewalls on this machine. A drop of theirs is final, so where one drops what our networks forward, we ask it to
//! let that pass, at the places that it documents for others, and only there: Docker's chain DOCKER-USER, ufw's route
//! rules, firewalld's zone `trusted`. Where there is no such place, we say who drops (SEC-07 to SEC-10).
//!
//! What we put there carries our mark, and goes with the bridge that it is about. Nothing here ever makes a network fail.

use crate::own;
use kernel::netlink::{Protocol, Socket};
use kernel::nft::{self, Family, Table, hook};
use model::id::RootId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One of the four tables `filter` that iptables may have: of each family, in nftables or of the older kind, which the
/// kernel keeps beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    program: &'static str,
    family: Family,
    /// Where the kernel lists the older kind's tables; they are there once somebody has used them.
    older: Option<&'static str>,
}

const FILTERS: [Filter; 4] = [
    Filter { program: "iptables", family: Family::Ip, older: None },
    Filter { program: "ip6tables", family: Family::Ip6, older: None },
    Filter { program: "iptables-legacy", family: Family::Ip, older: Some("ip_tables_names") },
    Filter { program: "ip6tables-legacy", family: Family::Ip6, older: Some("ip6_tables_names") },
];

/// Chains that other firewalls keep for rules of others: Docker, and ufw.
const CHAINS: [&str; 3] = [DOCKER_USER, "ufw-user-forward", "ufw6-user-forward"];

const DOCKER_USER: &str = "DOCKER-USER";

/// Docker's chains that let its published ports pass, and keep its networks from what comes from others: the first does
/// both in its newer versions, the second is of its older ones. DOCKER-USER comes before them.
const JUDGES: [&str; 2] = ["DOCKER", "DOCKER-ISOLATION-STAGE-2"];

impl Filter {
    /// Those of [`CHAINS`] that it has.
    fn chains(self, socket: &mut Socket) -> Vec<&'static str> {
        let found = match self.older {
            None => nft::chains(socket, Table { family: self.family, name: "filter" }).unwrap_or_default(),
            Some(_) if !self.is_there() => Vec::new(),
            Some(_) => {
                let rules = run(self.program, &["-w", "-S"]).unwrap_or_default();
                rules.lines().filter_map(|l| l.strip_prefix("-N ")).map(str::to_owned).collect()
            }
        };
        CHAINS.into_iter().filter(|c| found.iter().any(|f| f == c)).collect()
    }

    /// Whether the older kind is in use, in the calling thread's namespace.
    fn is_there(self) -> bool {
        let names = self.older.and_then(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok());
        names.is_some_and(|names| names.lines().any(|name| name == "filter"))
    }
}

/// A chain for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    filter: Filter,
    chain: &'static str,
}

const FIREWALLD: Table<'static> = Table { family: Family::Inet, name: "firewalld" };

/// What the other firewalls are told.
#[derive(Debug)]
pub(crate) struct Others {
    enabled: bool,
    mark: String,
    /// Bridges that others shall let pass. The lock is held while they are told: one after the other.
    bridges: Mutex<BTreeSet<String>>,
}

impl Others {
    pub(crate) fn new(root: &RootId, enabled: bool) -> Self {
        Self { enabled, mark: own::alias(root.as_str(), ""), bridges: Mutex::default() }
    }

    /// Runs in the host's namespace, as all of this.
    pub(crate) fn add(&self, bridge: &str) {
        self.change(false, |bridges| {
            bridges.insert(bridge.to_owned());
        });
    }

    pub(crate) fn remove(&self, bridge: &str) {
        self.change(false, |bridges| {
            bridges.remove(bridge);
        });
    }

    /// Says all of it: a daemon that ended before it could may have said something else.
    pub(crate) fn keep_only(&self, wanted: BTreeSet<String>) {
        self.change(true, |bridges| *bridges = wanted);
    }

    /// Says it again: somebody has taken rules away.
    pub(crate) fn tell_again(&self) {
        self.change(true, |_| ());
    }

    fn change(&self, again: bool, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut bridges = self.bridges.lock().unwrap_or_else(PoisonError::into_inner);
        let before = bridges.clone();
        change(&mut bridges);
        if !self.enabled {
            return;
        }
        for place in places() {
            if let Err(error) = self.tell(place, &bridges) {
                tracing::warn!(chain = place.chain, %error, "another firewall is not told of our networks");
            }
        }
        if has_firewalld() {
            let gone = before.difference(&bridges).map(|b| ("--remove-interface", b));
            let there = bridges.iter().filter(|b| again || !before.contains(*b)).map(|b| ("--add-interface", b));
            for (words, bridge) in gone.chain(there) {
                match run("firewall-cmd", &["--zone=trusted", &format!("{words}={bridge}")]) {
                    Err(error) if !error.to_string().contains("ALREADY_ENABLED") => {
                        tracing::warn!(bridge, %error, "firewalld is not told of our network");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Makes our rules in a chain those of these bridges.
    fn tell(&self, place: Place, bridges: &BTreeSet<String>) -> io::Result<()> {
        let listed = run(place.filter.program, &["-w", "-S"])?;
        for (act, rule) in changes(&listed, place.chain, &self.mark, bridges) {
            let words: Vec<&str> = ["-w", act, place.chain].into_iter().chain(rule.split(' ')).collect();
            run(place.filter.program, &words)?;
        }
        Ok(())
    }
}

/// What makes our rules in a chain those of these bridges, in order: `-D` and `-I`, each with a rule as `iptables -S` has
/// it. Only a bridge whose rules are others than they shall be is told of anew: what is right stays in effect.
fn changes(listed: &str, chain: &str, mark: &str, bridges: &BTreeSet<String>) -> Vec<(&'static str, String)> {
    let has = |judge: &&str| listed.lines().any(|line| line.strip_prefix("-N ") == Some(*judge));
    let judges: Vec<&str> = JUDGES.into_iter().filter(|judge| chain == DOCKER_USER && has(judge)).collect();
    let start = format!("-A {chain} ");
    let ours = |line: &str| Some(line.strip_prefix(&start)?.replace('"', "")).filter(|rule| rule.contains(mark));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in listed.lines().filter_map(ours) {
        let bridge = rule.split(' ').nth(1).unwrap_or_default().to_owned();
        found.entry(bridge).or_default().push(rule);
    }
    let mut changes = Vec::new();
    for bridge in bridges {
        let wanted = rules(bridge, mark, &judges);
        let stale = found.remove(bridge).unwrap_or_default();
        if stale != wanted {
            changes.extend(stale.into_iter().map(|rule| ("-D", rule)));
            // Each goes before those that are there.
            changes.extend(wanted.into_iter().rev().map(|rule| ("-I", rule)));
        }
    }
    changes.extend(found.into_values().flatten().map(|rule| ("-D", rule)));
    changes
}

/// What is asked for a bridge, in order, as `iptables -S` has it. What begins here is shown to `judges` first: it is let
/// out, not into Docker's networks.
fn rules(bridge: &str, mark: &str, judges: &[&str]) -> Vec<String> {
    let comment = format!("-m comment --comment {mark}{bridge}");
    let mut rules = vec![format!("-o {bridge} {comment} -j ACCEPT")];
    if !judges.is_empty() {
        rules.push(format!("-i {bridge} -m conntrack --ctstate RELATED,ESTABLISHED {comment} -j ACCEPT"));
        rules.extend(judges.iter().map(|chain| format!("-i {bridge} {comment} -j {chain}")));
    }
    rules.push(format!("-i {bridge} {comment} -j ACCEPT"));
    rules
}

fn reader() -> Option<Socket> {
    Socket::open(Protocol::Netfilter).ok()
}

/// The places that there are.
fn places() -> Vec<Place> {
    let Some(mut socket) = reader() else { return Vec::new() };
    let mut places = Vec::new();
    for filter in FILTERS {
        places.extend(filter.chains(&mut socket).into_iter().map(|chain| Place { filter, chain }));
    }
    places
}

fn has_firewalld() -> bool {
    let tables = reader().and_then(|mut socket| nft::tables(&mut socket, FIREWALLD.family).ok());
    tables.is_some_and(|tables| tables.iter().any(|t| t.name == FIREWALLD.name))
}

/// What another firewall's places are called: those that are used.
pub(crate) fn used() -> Vec<&'static str> {
    let firewalld = has_firewalld().then_some("firewalld");
    let chains: BTreeSet<&'static str> = places().into_iter().map(|p| p.chain).collect();
    chains.into_iter().chain(firewalld).collect()
}

/// Chains of others that drop by their policy what is forwarded, and have no place where we ask them not to.
pub(crate) fn droppers(own_table: &str, integrated: bool) -> Vec<String> {
    let Some(mut socket) = reader() else { return Vec::new() };
    let asked: Vec<Place> = if integrated { places() } else { Vec::new() };
    let is_asked = |family: Family, older: bool| {
        asked.iter().any(|p| p.filter.family == family && p.filter.older.is_some() == older)
    };
    let foreign = nft::dropping_chains(&mut socket, hook::FORWARD).unwrap_or_default().into_iter().filter(|c| {
        let is_firewalld = integrated && c.table == FIREWALLD.name;
        c.table != own_table && !is_firewalld && !(c.table == "filter" && is_asked(c.family, false))
    });
    let mut names: Vec<String> =
        foreign.map(|c| format!("chain {} of table {} {}", c.chain, c.family, c.table)).collect();
    for filter in FILTERS.into_iter().filter(|f| f.is_there() && !is_asked(f.family, true)) {
        let rules = run(filter.program, &["-w", "-S", "FORWARD"]).unwrap_or_default();
        if rules.lines().any(|l| l == "-P FORWARD DROP") {
            names.push(format!("chain FORWARD of table {} filter ({})", filter.family, filter.program));
        }
    }
    names
}

/// Chains of others that drop by their policy what comes to the host itself, in a family: what the proxy carries does.
pub(crate) fn input_droppers(own_table: &str, ipv6: bool) -> Vec<String> {
    let Some(mut socket) = reader() else { return Vec::new() };
    let family = if ipv6 { Family::Ip6 } else { Family::Ip };
    let found = nft::dropping_chains(&mut socket, hook::INPUT).unwrap_or_default().into_iter();
    let foreign = found.filter(|c| c.table != own_table && [family, Family::Inet].contains(&c.family));
    let mut names: Vec<String> =
        foreign.map(|c| format!("chain {} of table {} {}", c.chain, c.family, c.table)).collect();
    for filter in FILTERS.into_iter().filter(|f| f.family == family && f.is_there()) {
        let rules = run(filter.program, &["-w", "-S", "INPUT"]).unwrap_or_default();
        if rules.lines().any(|l| l == "-P INPUT DROP") {
            names.push(format!("chain INPUT of table {} filter ({})", filter.family, filter.program));
        }
    }
    names
}

fn run(program: &str, words: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{program} {}: {said}", words.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_08_only_what_is_not_as_it_shall_be_is_told_anew() {
        let bridges = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mark = "isle:me:";
        let right = rules("br-a", mark, &[]);
        let listed = |rules: &[String]| rules.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect::<String>();
        assert_eq!(changes(&listed(&right), "FORWARD", mark, &bridges(&["br-a"])), []);
        // In the order in which they are to stand, the last one first.
        let told = changes("-A FORWARD -i eth0 -j DROP\n", "FORWARD", mark, &bridges(&["br-a"]));
        let expected: Vec<_> = right.iter().rev().map(|rule| ("-I", rule.clone())).collect();
        assert_eq!(told, expected);
        // One is missing, one is too many, and one is another daemon's.
        let others = "-A FORWARD -o br-x -m comment --comment isle:other:br-x -j ACCEPT\n";
        let left = listed(&rules("br-b", mark, &[])[..1]) + &listed(&right) + others;
        let told = changes(&left, "FORWARD", mark, &bridges(&["br-b"]));
        assert_eq!(told.iter().filter(|(act, _)| *act == "-D").count(), 1 + right.len());
        assert_eq!(told.iter().filter(|(act, rule)| *act == "-I" && rule.contains("br-b")).count(), 2);
        assert!(!told.iter().any(|(_, rule)| rule.contains("isle:other")), "{told:?}");
        // What comes out of ours is shown to Docker's own judges, where they are.
        let judged = changes(&format!("-N {}\n", JUDGES[0]), DOCKER_USER, mark, &bridges(&["br-a"]));
        assert!(judged.iter().any(|(_, rule)| rule.ends_with(&format!("-j {}", JUDGES[0]))), "{judged:?}");
    }
}
