//! Recorded answers: what Docker 28 printed over a user's journey through networks, and whether Isle prints the same.
//!
//! The recording's commands are run in its order by bash on a lab's host, with the unmodified docker CLI, and with our
//! own client linked as `docker`. What they print is compared after what must differ is taken out ([`normal`]). Where
//! Isle decides otherwise, [`differences`] says what it prints instead, word for word, and why. A difference that is
//! not listed fails, and so does one that is none any more.

mod differences;
mod normal;
mod recording;

use differences::{CLIENT, DIFFERENCES, Instead};
use normal::{Normal, Normaliser};
use recording::{Did, Exchange};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use testkit::{Lab, images, program};

/// Rules of iptables are no answer of Isle's: it has none.
const NOT_COMPARABLE: &[&str] = &["nft list ruleset"];

/// How many recorded commands are comparable, and how many of them must be answered by the same words as Docker's. The
/// others are in [`DIFFERENCES`], each with its reason.
const COMPARABLE: usize = 130;
const AT_LEAST_THE_SAME: usize = 110;

/// How many of them a docker CLI of another version prints as recorded: its own words differ in the others (Debian 12's
/// is 20.10, the oldest that this was tried with).
const OF_OLDER_CLIENTS: usize = 90;

/// What the recorder did between the commands it recorded: before the command that starts so, this.
const BETWEEN: &[(&str, &str)] = &[
    ("ENGINE run --rm --network webapp1 webapp curl -fsSL webapp:8000", "sleep 1"),
    ("ENGINE run --rm --network webapp2 webapp curl -fsSL -m 3 webapp:8000", "ENGINE network create webapp2"),
    (
        "ENGINE exec cli dig +time=3 +tries=1 c1",
        "for i in 1 2 3; do ENGINE run -d --network webapp1 --name c$i --hostname host$i --network-alias pool \
         --network-alias al$i busybox sleep 600; done; ENGINE run -d --network webapp1 --name cli webapp sleep 600",
    ),
    ("ENGINE port p1;", "sleep 1"),
    (
        "ENGINE network rm webapp1 webapp2 sub1 inet net6",
        "for c in webapp cli c1 c2 c3 c4 p1 p2 p3 p4 s1 i1 l1; do ENGINE rm -f $c; done",
    ),
];

struct Replay {
    lab: Lab,
    engine: String,
    docker: Normaliser,
    isle: Normaliser,
    /// Docker's id → Isle's, over the whole run.
    ids: BTreeMap<String, String>,
    set_up: BTreeSet<&'static str>,
}

impl Replay {
    fn start(client: &Path) -> Self {
        let lab = Lab::start(&program()).unwrap();
        // Clients take their name from the path they are started by.
        let engine = lab.directory().join("docker");
        std::os::unix::fs::symlink(client, &engine).unwrap();
        let changes =
            "changes=CMD%20%5B%22httpd%22%2C%22-f%22%2C%22-p%22%2C%228000%22%2C%22-h%22%2C%22%2Fsrv%2Fwww%22%5D";
        let url = format!("/images/create?fromSrc=-&repo=webapp&tag=latest&{changes}");
        let imported = lab.post_bytes(&url, &images::toolbox().unwrap()).unwrap();
        assert_eq!(imported.status, 200, "{}", imported.text());
        let name = lab.on_host(&mut Command::new("hostname")).ok();
        let host = (r"\b(192\.0\.2\.2|198\.51\.100\.2)\b", "<host>");
        let docker = [host, ("(?m)^vm$", "<hostname>"), ("2: nowhere@eth0: ", "<uplink>: ")];
        let isle = [
            host,
            (&*format!("(?m)^{name}$"), "<hostname>"),
            (r"(?m)^\d+: eth0@if\d+: (<.*),M-DOWN>", "<uplink>: $1>"),
        ];
        Self {
            lab,
            engine: engine.display().to_string(),
            docker: Normaliser::new(16, &docker),
            isle: Normaliser::new(22, &isle),
            ids: BTreeMap::new(),
            set_up: BTreeSet::new(),
        }
    }

    fn bash(&self, command: &str) -> Did {
        let mut bash = Command::new("timeout");
        bash.args(["--kill-after=5", "60", "bash", "-c", &command.replace("ENGINE", &self.engine)])
            .env("DOCKER_HOST", self.lab.docker_host())
            .env("DOCKER_CONFIG", self.lab.directory().join("docker-config"));
        let output = self.lab.on_host(&mut bash);
        // What ip(8) says where something went while it listed: it is nobody's answer.
        let stderr = output.stderr.replace("Dump was interrupted and may be inconsistent.\n", "");
        Did { stdout: output.stdout, stderr, exit: output.code }
    }

    /// Runs a command as it was recorded; what it printed, and what Docker printed.
    fn replay(&mut self, exchange: &Exchange) -> (Normal, Normal) {
        let due = |(before, _): &&(&str, &str)| exchange.command.starts_with(before) && !self.set_up.contains(before);
        if let Some((before, act)) = BETWEEN.iter().find(due) {
            self.set_up.insert(before);
            self.bash(act);
        }
        (self.docker.normal(&exchange.did), self.isle.normal(&self.bash(&exchange.command)))
    }

    /// The first pair of ids that says something else than an earlier one.
    fn other_id(&mut self, docker: &Normal, isle: &Normal) -> Option<String> {
        let mut wrong = None;
        for (theirs, ours) in docker.ids.iter().zip(&isle.ids) {
            let known = self.ids.entry(theirs.clone()).or_insert_with(|| ours.clone());
            if known != ours && wrong.is_none() {
                wrong = Some(format!("Docker's {theirs} was {known} before, and is {ours}"));
            }
        }
        wrong
    }
}

/// Lines that only one of two texts has, with their neighbours.
fn diff(docker: &str, isle: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (docker.lines().collect(), isle.lines().collect());
    // The longest common subsequence, from the end.
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && common[i + 1][j] >= common[i][j + 1] {
            text += &format!("  docker: {}\n", a[i]);
            i += 1;
        } else {
            text += &format!("  isle:   {}\n", b[j]);
            j += 1;
        }
    }
    text
}

/// What a client says by itself, whatever the daemon answers.
enum Words<'a> {
    /// The recorded client's, but for these.
    But(&'a [Instead]),
    /// Another version's: so many commands at least print what was recorded, or what is listed.
    OtherVersion { at_least: usize },
}

#[test]
fn docker_answers_as_recorded() {
    let Some(docker) = images::docker() else { return };
    let version = Command::new(&docker).arg("--version").output().expect("docker runs").stdout;
    match String::from_utf8_lossy(&version).contains("version 28.") {
        true => check(&docker, &Words::But(&[])),
        false => check(&docker, &Words::OtherVersion { at_least: OF_OLDER_CLIENTS }),
    }
}

/// Linked as `docker`, our own client answers as docker does.
#[test]
fn isle_linked_as_docker_answers_as_recorded() {
    check(&program(), &Words::But(CLIENT));
}

fn check(client: &Path, words: &Words<'_>) {
    let own = if let Words::But(own) = words { own } else { &[][..] };
    let exchanges = recording::parse(include_str!("docker-28.txt"));
    let comparable = |e: &&Exchange| !NOT_COMPARABLE.iter().any(|n| e.command.starts_with(n));
    let mut replay = Replay::start(client);
    let (mut same, mut all, mut clients, mut wrong) = (0, 0, 0, Vec::new());
    let mut listed: BTreeSet<&str> = DIFFERENCES.iter().map(|d| d.command).collect();
    for exchange in exchanges.iter().filter(comparable) {
        all += 1;
        let (docker, isle) = replay.replay(exchange);
        let difference = DIFFERENCES.iter().find(|d| d.command == exchange.command);
        listed.remove(exchange.command.as_str());
        let answer = difference.map_or_else(|| docker.text.clone(), |d| d.edit(&docker.text));
        let expected = own.iter().fold(answer.clone(), |text, (theirs, ours)| text.replace(theirs, ours));
        let mut complain = |what: &str, diff: String| wrong.push(format!("$ {}\n  {what}\n{diff}", exchange.command));
        if difference.is_some() && docker.text == isle.text {
            complain("is listed as a difference, and is none any more", String::new());
        } else if expected != isle.text {
            complain("answers differently", diff(&expected, &isle.text));
        } else if difference.is_none() {
            match replay.other_id(&docker, &isle) {
                Some(id) => complain(&id, String::new()),
                None if answer == expected => same += 1,
                None => clients += 1,
            }
        }
    }
    if let Words::OtherVersion { at_least } = words {
        let agreed = all - wrong.len();
        println!("{agreed} of {all} as recorded or listed, by a client of another version");
        assert!(agreed >= *at_least, "{agreed} of {all}, not {at_least}\n\n{}", wrong.join("\n"));
        return;
    }
    println!("same {same} of {all}; {} differ by decision, {clients} by the client", DIFFERENCES.len());
    if !own.is_empty() && clients == 0 {
        wrong.push("what the client prints otherwise is listed, and is none any more".to_owned());
    }
    if all != COMPARABLE {
        wrong.push(format!("{all} commands were compared, of {COMPARABLE} that are recorded"));
    }
    // What only the client words otherwise, its daemon answers as Docker does.
    if same + clients < AT_LEAST_THE_SAME {
        wrong.push(format!("{} answers are Docker's, and at least {AT_LEAST_THE_SAME} shall be", same + clients));
    }
    for command in listed {
        wrong.push(format!("$ {command}\n  is listed as a difference, and was never recorded"));
    }
    assert!(wrong.is_empty(), "same {same} of {all}\n\n{}", wrong.join("\n"));
}

#[test]
fn every_difference_has_its_reason_in_the_documents() {
    let document = include_str!("../../../../docs/differences.md");
    let rows: BTreeSet<&str> = document.lines().filter_map(|l| l.strip_prefix("| ")?.split(" | ").next()).collect();
    for difference in DIFFERENCES {
        for row in difference.rows {
            assert!(rows.contains(row), "docs/differences.md has no row {row:?}, for {}", difference.command);
        }
    }
}
