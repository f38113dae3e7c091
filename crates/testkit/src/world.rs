//! Everything of a daemon that could leak, as text, to be compared: what is left after an act that failed is a
//! difference.

use crate::lab::processes;
use crate::{Lab, Run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

impl Lab {
    /// The world once it keeps still: what follows earlier acts behind the client's back is over.
    ///
    /// # Panics
    /// It does not keep still.
    pub fn still_world(&self) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        let mut last = self.world();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(300) {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.world();
            if now != last {
                assert!(Instant::now() < end, "the world does not keep still:\n{}", difference(&last, &now));
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// Links, addresses, neighbours, rules, host ports, cgroups, mounts, processes, descriptors and files. What has no
    /// name of its own (a socket, a namespace) is counted by its kind.
    ///
    /// # Panics
    /// ip, nft or ss are missing, or no daemon runs.
    pub fn world(&self) -> String {
        let mut parts = Vec::new();
        let host = |command: Run<'_>| self.on_host(Command::new(command[0]).args(&command[1..])).ok();
        parts.push(("links", sorted(&without_indices(&host(&["ip", "-o", "link"])))));
        parts.push(("addresses", sorted(&without_indices(&host(&["ip", "-o", "addr"]).replace(" tentative", "")))));
        parts.push(("routes", sorted(&host(&["ip", "route"]).replace(" linkdown", ""))));
        parts.push(("neighbours", sorted(&host(&["ip", "neigh", "show", "nud", "permanent"]))));
        parts.push(("rules", uncounted(&host(&["nft", "list", "ruleset"]))));
        parts.push(("host ports", sorted(&host(&["ss", "-Htuln"]))));
        parts.push(("cgroups", self.cgroups()));
        parts.push(("processes", self.own_processes()));
        for (name, pid) in [("daemon", Some(self.daemon_pid())), ("keeper", self.keeper_pid())] {
            let pid = pid.unwrap_or_else(|| panic!("no {name} runs"));
            parts.push((name, descriptors(pid)));
            let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default();
            let marker = self.directory().display().to_string();
            let own = mounts.lines().filter(|l| l.contains(&marker)).collect::<Vec<_>>().join("\n");
            parts.push(("mounts", own));
        }
        let mut files = Vec::new();
        for directory in [self.root_directory(), self.run_directory()] {
            list(&directory, &directory, &mut files);
        }
        files.sort();
        parts.push(("files", files.join("\n")));
        parts.iter().map(|(name, text)| format!("== {name}\n{text}\n")).collect()
    }

    /// Waits until the world is as it was: what follows an act behind the client's back takes its time.
    ///
    /// # Panics
    /// It does not come to be so.
    #[track_caller]
    pub fn world_is(&self, before: &str, after_what: &str) {
        // The kernel takes down what was in a namespace when it comes to it, one namespace of the machine after another.
        let end = Instant::now() + Duration::from_secs(30) * crate::patience();
        loop {
            let now = self.world();
            if now == before {
                return;
            }
            if Instant::now() > end {
                panic!("{after_what}: the world is another:\n{}", difference(before, &now));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn cgroups(&self) -> String {
        let mut found = Vec::new();
        if let Some(mark) = self.mark() {
            find_directories(Path::new("/sys/fs/cgroup"), &mark, 2, &mut found);
        }
        let mut all = Vec::new();
        for top in found {
            let children = std::fs::read_dir(&top).into_iter().flatten().flatten();
            let directories = children.filter(|e| e.path().is_dir());
            all.extend(directories.map(|e| e.path().display().to_string()));
        }
        all.sort();
        all.join("\n")
    }

    /// `isle-ROOT`: everything of ours carries it, and the device that carries nothing is called so.
    pub(crate) fn mark(&self) -> Option<String> {
        let links = self.on_host(Command::new("ip").args(["-o", "link"])).ok();
        let mut words = links.split_whitespace().map(|w| w.trim_end_matches(':'));
        words.find(|w| w.starts_with("isle-")).map(str::to_owned)
    }

    /// Processes that belong to this lab, by their command line, their cgroup, or what they have open: a shim has its
    /// container's directory.
    fn own_processes(&self) -> String {
        let marker = self.directory().display().to_string();
        let mark = self.mark().map(|m| format!("/{m}/"));
        let has_open = |pid: u32| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            entries.into_iter().any(|e| std::fs::read_link(e.path()).is_ok_and(|to| to.starts_with(self.directory())))
        };
        let is_in_cgroup = |pid: u32| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            mark.as_ref().is_some_and(|m| groups.contains(m.as_str()))
        };
        let mut names = Vec::new();
        for (pid, line) in processes().filter(|(pid, _)| *pid != std::process::id()) {
            let is_shim = line.starts_with("isle-shim") && has_open(pid);
            if line.contains(&marker) || is_shim || is_in_cgroup(pid) {
                names.push(line.split('\0').next().unwrap_or_default().to_owned());
            }
        }
        names.sort();
        names.join("\n")
    }

    /// How many shims this lab's containers have.
    pub fn shims(&self) -> usize {
        self.own_processes().lines().filter(|name| *name == "isle-shim").count()
    }
}

/// What differs between two worlds, line by line.
fn difference(before: &str, after: &str) -> String {
    let count = |text: &str| {
        let mut lines: BTreeMap<String, i32> = BTreeMap::new();
        text.lines().for_each(|l| *lines.entry(l.to_owned()).or_default() += 1);
        lines
    };
    let (mut old, new) = (count(before), count(after));
    let mut told = Vec::new();
    for (line, n) in new {
        let had = old.remove(&line).unwrap_or_default();
        if n > had {
            told.push(format!("+ {line}"));
        } else if n < had {
            told.push(format!("- {line}"));
        }
    }
    told.extend(old.keys().map(|l| format!("- {l}")));
    told.join("\n")
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Rules without what they have counted.
fn uncounted(rules: &str) -> String {
    let line = |line: &str| match line.split_once("counter packets ") {
        Some((before, rest)) => format!("{before}counter {}\n", rest.split(' ').skip(3).collect::<Vec<_>>().join(" ")),
        None => format!("{line}\n"),
    };
    rules.lines().map(line).collect()
}

/// `5: eth0@if6: <…` without the numbers, which are never the same twice, and without a carrier's state.
fn without_indices(text: &str) -> String {
    let line = |l: &str| {
        let rest = l.split_once(": ").map_or(l, |(_, rest)| rest);
        let name = rest.split(['@', ':', ' ']).next().unwrap_or(rest);
        // The outer end of a pair has another address each time that it is made; its alias says whose it is.
        let facts = match rest.split_once("link/ether ") {
            Some((_, facts)) if name.starts_with("ve") => facts.split_once("alias").map_or("", |(_, alias)| alias),
            Some((_, facts)) => facts,
            None => rest.split_once("inet").map_or("", |(_, address)| address),
        };
        format!("{name} {facts}")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn find_directories(at: &Path, name: &str, depth: u8, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        if entry.file_name() == name {
            found.push(path);
        } else if depth > 0 {
            find_directories(&path, name, depth - 1, found);
        }
    }
}

/// Open descriptors by their kind, and how many there are of each. Connections come and go with requests, and are not
/// counted for themselves: a leaked one holds something that is.
fn descriptors(pid: u32) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        let kind = target.split(['[', ' ']).next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join("\n")
}

fn list(root: &Path, at: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        // Made with an image's first container, and kept for the next.
        if path.strip_prefix(root).is_ok_and(|p| p == Path::new("images/points")) {
            continue;
        }
        files.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        if path.is_dir() && !path.is_symlink() {
            list(root, &path, files);
        }
    }
}
