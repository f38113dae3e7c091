//! Control groups, version 2, version 1, or both at once, behind one type: found once, then told apart nowhere else.
//!
//! A container has one path below each hierarchy. Nothing here ever writes to `cgroup.procs`: that waits for every CPU
//! (5 to 17 ms). Who starts a process puts it in by clone3, or lets it write itself to `tasks`.

mod limits;

pub use limits::{Limits, Throttle};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Error {
    #[error("no cgroup hierarchy is mounted: mount one at /sys/fs/cgroup")]
    NoHierarchy,
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot create the cgroup {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {path}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("cannot remove the cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("{what} needs the cgroup controller '{controller}', which this machine does not offer")]
    NoController { what: &'static str, controller: &'static str },
}

/// Which kind of hierarchy controls resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Each controller has a hierarchy, or shares one.
    V1,
    /// There is one hierarchy for all.
    V2,
    /// Version 1 controls, and a version 2 tree without the main controllers is there as well.
    Hybrid,
}

/// The machine's hierarchies.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    /// Which of the two controls.
    pub version: Version,
    /// Where version 2 is mounted.
    pub v2: Option<PathBuf>,
    /// Each version 1 mount and what it controls (`cpu`, `memory`, `name=systemd`); several may share one mount.
    pub v1: Vec<(PathBuf, Vec<String>)>,
    /// What version 2 controls at its root.
    pub v2_controllers: Vec<String>,
}

/// Which devices may be used: the first decides nothing alone, the last that matches wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// What matches may be used; else it may not.
    pub allow: bool,
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None` is any.
    pub major: Option<i64>,
    /// `None` is any.
    pub minor: Option<i64>,
    /// Of `rwm`.
    pub access: String,
}

/// One container's place in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Where it is in the hierarchy of version 2, if that is mounted.
    pub v2: Option<PathBuf>,
    /// By controller; controllers that share a mount share a path.
    pub v1: BTreeMap<String, PathBuf>,
    /// Whether version 2 controls.
    unified: bool,
}

/// What a container uses, counted by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds.
    pub cpu_total: u64,
    /// Nanoseconds in programs.
    pub cpu_user: u64,
    /// Nanoseconds in the kernel.
    pub cpu_system: u64,
    /// How many periods of its quota have passed.
    pub periods: u64,
    /// In how many of them it had to wait.
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes: the most that it ever had.
    pub memory_peak: u64,
    /// `None` is unlimited.
    pub memory_limit: Option<u64>,
    /// How often it wanted more memory than it may have.
    pub memory_failures: u64,
    /// The kernel's own table (`memory.stat`).
    pub memory_details: BTreeMap<String, u64>,
    /// Processes and threads.
    pub pids: u64,
    /// `None` is unlimited.
    pub pids_limit: Option<u64>,
    /// Of each block device that it used.
    pub block: Vec<BlockUsage>,
}

/// One device's transfers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// The driver's number.
    pub major: u64,
    /// The device's among the driver's.
    pub minor: u64,
    /// Bytes read from it.
    pub read_bytes: u64,
    /// Bytes written to it.
    pub write_bytes: u64,
    /// Reads of it.
    pub read_operations: u64,
    /// Writes to it.
    pub write_operations: u64,
}

impl Hierarchies {
    /// Look at what is mounted.
    ///
    /// # Errors
    /// Nothing is.
    pub fn detect() -> Result<Self, Error> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        let found = Self::parse(&text).ok_or(Error::NoHierarchy)?;
        let v2_controllers = match &found.v2 {
            Some(root) => words(&fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()),
            None => Vec::new(),
        };
        Ok(Self { v2_controllers, ..found })
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let mut v2 = None;
        let mut v1: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fs = fs.split(' ');
            match fs.next() {
                Some("cgroup2") if v2.is_none() => v2 = Some(point),
                Some("cgroup") => {
                    let options = fs.nth(1).unwrap_or_default().split(',');
                    let not = ["rw", "ro", "xattr", "clone_children", "noprefix", "release_agent", "none"];
                    let controllers: Vec<String> = options
                        .filter(|option| !not.contains(option) && !option.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    if !v1.iter().any(|(_, known)| *known == controllers) {
                        v1.push((point, controllers));
                    }
                }
                _ => {}
            }
        }
        let version = match (&v2, v1.iter().any(|(_, controllers)| controllers.iter().any(|c| !c.contains('=')))) {
            (Some(_), false) => Version::V2,
            (Some(_), true) => Version::Hybrid,
            (None, true) => Version::V1,
            (None, false) => return None,
        };
        Some(Self { version, v2, v1, v2_controllers: Vec::new() })
    }

    /// Whether something of this name is controlled.
    pub fn has(&self, controller: &str) -> bool {
        match self.version {
            Version::V2 => self.v2_controllers.iter().any(|known| known == controller),
            _ => self.v1.iter().any(|(_, known)| known.iter().any(|known| known == controller)),
        }
    }

    /// What is missing, as sentences for people.
    pub fn lacking(&self) -> Vec<String> {
        let unified = self.version == Version::V2;
        let needed: &[(&str, &str)] = &[
            ("cpu", "limits of CPU time"),
            ("cpuset", "limits to certain CPUs"),
            ("memory", "limits of memory"),
            ("pids", "limits of processes"),
            (if unified { "io" } else { "blkio" }, "limits of disk transfers"),
        ];
        let mut lacking: Vec<String> = needed
            .iter()
            .filter(|(controller, _)| !self.has(controller))
            .map(|(controller, what)| format!("no cgroup controller '{controller}': {what} are not available"))
            .collect();
        if !unified && !self.has("freezer") {
            lacking.push("no cgroup controller 'freezer': containers cannot be paused".to_owned());
        }
        lacking
    }

    /// The place of `path` (relative, `parent/isle-root/id`), whether it exists or not.
    pub fn cgroup(&self, path: &str) -> Cgroup {
        let path = path.trim_matches('/');
        let v1 = self
            .v1
            .iter()
            .flat_map(|(root, controllers)| controllers.iter().map(|c| (c.clone(), root.join(path))))
            .collect();
        Cgroup { v2: self.v2.as_ref().map(|root| root.join(path)), v1, unified: self.version == Version::V2 }
    }

    /// Make the parents of containers' cgroups, once at start: with all controllers passed down.
    ///
    /// # Errors
    /// A directory cannot be made. A controller that cannot be passed down is a sentence in the answer.
    pub fn ensure_parent(&self, path: &str) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        if let Some(root) = &self.v2 {
            let mut here = root.clone();
            for name in [""].iter().chain(&names) {
                if !name.is_empty() {
                    here.push(name);
                    make(&here)?;
                }
                if self.version == Version::V2 {
                    let control = here.join("cgroup.subtree_control");
                    for controller in &self.v2_controllers {
                        if let Err(source) = fs::write(&control, format!("+{controller}")) {
                            warnings.push(format!(
                                "the cgroup controller '{controller}' cannot be passed down at {}: {source}",
                                here.display()
                            ));
                        }
                    }
                }
            }
        }
        for (root, controllers) in &self.v1 {
            let mut here = root.clone();
            for name in &names {
                let above = here.clone();
                here.push(name);
                make(&here)?;
                if controllers.iter().any(|controller| controller == "cpuset") {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let own = fs::read_to_string(here.join(file)).unwrap_or_default();
                        if own.trim().is_empty() {
                            let value = fs::read_to_string(above.join(file)).unwrap_or_default();
                            write(&here.join(file), value.trim())?;
                        }
                    }
                    // Children are born with these values, so a container costs no write.
                    write(&here.join("cgroup.clone_children"), "1")?;
                }
            }
        }
        Ok(warnings)
    }
}

impl Cgroup {
    /// Every directory, each once.
    pub fn directories(&self) -> Vec<&Path> {
        let mut unique: Vec<&Path> = Vec::new();
        for path in self.v1.values().map(PathBuf::as_path).chain(self.v2.as_deref()) {
            if !unique.contains(&path) {
                unique.push(path);
            }
        }
        unique
    }

    /// Whether any of it is there.
    pub fn exists(&self) -> bool {
        self.directories().iter().any(|path| path.exists())
    }

    /// Make it, in all hierarchies. What exists already is fine.
    ///
    /// # Errors
    /// A directory cannot be made; those made before it are removed.
    pub fn create(&self) -> Result<(), Error> {
        for path in self.directories() {
            if let Err(error) = make(path) {
                let _ = self.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Set limits: all of them, or, where the kernel refuses one, none.
    ///
    /// # Errors
    /// A limit that was asked for cannot be set. Those before it are as they were.
    pub fn limit(&self, limits: &Limits) -> Result<(), Error> {
        let swap = self.v1.get("memory").and_then(|here| number(&here.join("memory.memsw.limit_in_bytes")));
        let mut writes = Vec::new();
        for write in limits::writes(limits, self.unified, swap) {
            writes.push((self.place(&write)?, write));
        }
        let mut undo: Vec<(PathBuf, String)> = Vec::new();
        for (here, one) in writes {
            let there = one.files.iter().map(|file| here.join(file)).find(|path| path.exists());
            let path = match (there, one.files.last()) {
                (Some(path), _) => path,
                (None, Some(file)) if !one.may_be_missing => here.join(file),
                (None, _) => continue,
            };
            let before = fs::read_to_string(&path).unwrap_or_default();
            if let Err(refused) = write(&path, &one.value) {
                for (path, value) in undo.iter().rev() {
                    // The kernel has had it before. What it does not take back is not worse than before.
                    let _ = write(path, value);
                }
                return Err(refused);
            }
            undo.push((path, one.undoing(&before)));
        }
        Ok(())
    }

    /// The directory that has the files of a limit.
    fn place(&self, write: &limits::Write) -> Result<PathBuf, Error> {
        let missing = || match self.unified {
            true => Error::NoHierarchy,
            false => Error::NoController { what: write.what, controller: write.controller },
        };
        let here = if self.unified { self.v2.as_ref() } else { self.v1.get(write.controller) };
        here.cloned().ok_or_else(missing)
    }

    /// Restrict devices. On version 1 by its controller, on version 2 by a program attached to the cgroup. What a group
    /// above forbids cannot be allowed: that is a sentence in the answer.
    ///
    /// # Errors
    /// The kernel refuses to restrict.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<Vec<String>, Error> {
        if self.unified {
            let Some(here) = &self.v2 else { return Err(Error::NoHierarchy) };
            return crate::device_filter::attach(here, rules).map(|()| Vec::new()).map_err(|source| Error::Write {
                path: here.clone(),
                value: "a device filter".to_owned(),
                source,
            });
        }
        let Some(here) = self.v1.get("devices") else {
            return Err(Error::NoController { what: "restricting devices", controller: "devices" });
        };
        let mut refused = Vec::new();
        for rule in rules {
            let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
            let value = if rule.kind == 'a' {
                "a".to_owned()
            } else {
                format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
            };
            match write(&here.join(if rule.allow { "devices.allow" } else { "devices.deny" }), &value) {
                Err(Error::Write { source, .. }) if rule.allow && source.kind() == io::ErrorKind::PermissionDenied => {
                    refused.push(format!("devices '{value}' are forbidden to this daemon, and so to the container"));
                }
                other => other?,
            }
        }
        Ok(refused)
    }

    /// The file with a line `oom_kill N`.
    pub fn oom_file(&self) -> Option<PathBuf> {
        if self.unified {
            self.v2.as_ref().map(|here| here.join("memory.events"))
        } else {
            self.v1.get("memory").map(|here| here.join("memory.oom_control"))
        }
    }

    /// Stop everything in it, or let it go on. Waits until it is so.
    ///
    /// # Errors
    /// The kernel's, or it is not so after ten seconds.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (file, value, state, want) = if self.unified {
            let Some(here) = &self.v2 else { return Err(Error::NoHierarchy) };
            let want = if frozen { "frozen 1" } else { "frozen 0" };
            (here.join("cgroup.freeze"), if frozen { "1" } else { "0" }, here.join("cgroup.events"), want)
        } else {
            let here = self
                .v1
                .get("freezer")
                .ok_or(Error::NoController { what: "pausing a container", controller: "freezer" })?;
            let value = if frozen { "FROZEN" } else { "THAWED" };
            (here.join("freezer.state"), value, here.join("freezer.state"), value)
        };
        write(&file, value)?;
        for round in 0..10_000 {
            if read(&state)?.lines().any(|line| line.trim() == want) {
                return Ok(());
            }
            if round % 50 == 49 {
                // Version 1 forgets processes that forked in between: ask again.
                write(&file, value)?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::Write { path: file, value: value.to_owned(), source: io::Error::from(io::ErrorKind::TimedOut) })
    }

    /// Whether [`Self::freeze`] holds it.
    pub fn is_frozen(&self) -> bool {
        let (file, want) = if self.unified {
            (self.v2.as_ref().map(|here| here.join("cgroup.freeze")), "1")
        } else {
            (self.v1.get("freezer").map(|here| here.join("freezer.state")), "FROZEN")
        };
        file.and_then(|file| fs::read_to_string(file).ok()).is_some_and(|text| text.trim() == want)
    }

    /// The processes in it and below, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    /// It is gone.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        let directories = self.directories();
        let Some(here) = directories.first() else { return Err(Error::NoHierarchy) };
        let mut pids = Vec::new();
        let mut todo = vec![here.to_path_buf()];
        while let Some(here) = todo.pop() {
            pids.extend(read(&here.join("cgroup.procs"))?.lines().filter_map(|line| line.parse::<i32>().ok()));
            todo.extend(subdirectories(&here));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// What it uses.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage, Error> {
        if self.unified { self.usage_v2() } else { self.usage_v1() }
    }

    fn usage_v2(&self) -> Result<Usage, Error> {
        let Some(here) = &self.v2 else { return Err(Error::NoHierarchy) };
        let cpu = table(&read(&here.join("cpu.stat"))?);
        let of = |table: &BTreeMap<String, u64>, key: &str| table.get(key).copied().unwrap_or(0);
        let mut block: BTreeMap<(u64, u64), BlockUsage> = BTreeMap::new();
        for line in fs::read_to_string(here.join("io.stat")).unwrap_or_default().lines() {
            let mut fields = line.split(' ');
            let Some((major, minor)) = fields.next().and_then(device) else { continue };
            let usage = block.entry((major, minor)).or_insert(BlockUsage { major, minor, ..BlockUsage::default() });
            for (key, value) in fields.filter_map(|field| field.split_once('=')) {
                let value = value.parse().unwrap_or(0);
                match key {
                    "rbytes" => usage.read_bytes = value,
                    "wbytes" => usage.write_bytes = value,
                    "rios" => usage.read_operations = value,
                    "wios" => usage.write_operations = value,
                    _ => {}
                }
            }
        }
        let events = table(&fs::read_to_string(here.join("memory.events")).unwrap_or_default());
        Ok(Usage {
            cpu_total: of(&cpu, "usage_usec") * 1000,
            cpu_user: of(&cpu, "user_usec") * 1000,
            cpu_system: of(&cpu, "system_usec") * 1000,
            periods: of(&cpu, "nr_periods"),
            throttled_periods: of(&cpu, "nr_throttled"),
            throttled_time: of(&cpu, "throttled_usec") * 1000,
            memory: number(&here.join("memory.current")).unwrap_or(0),
            memory_peak: number(&here.join("memory.peak")).unwrap_or(0),
            memory_limit: number(&here.join("memory.max")),
            memory_failures: of(&events, "max"),
            memory_details: table(&fs::read_to_string(here.join("memory.stat")).unwrap_or_default()),
            pids: number(&here.join("pids.current")).unwrap_or(0),
            pids_limit: number(&here.join("pids.max")),
            block: block.into_values().collect(),
        })
    }

    fn usage_v1(&self) -> Result<Usage, Error> {
        if !self.exists() {
            return Err(Error::NoHierarchy);
        }
        let at = |controller: &str, file: &str| self.v1.get(controller).map(|here| here.join(file));
        let count = |controller: &str, file: &str| at(controller, file).and_then(|path| number(&path));
        let text = |controller: &str, file: &str| {
            at(controller, file).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let throttling = table(&text("cpu", "cpu.stat"));
        let ticks = table(&text("cpuacct", "cpuacct.stat"));
        const NANOSECONDS_A_TICK: u64 = 10_000_000;
        let mut block: BTreeMap<(u64, u64), BlockUsage> = BTreeMap::new();
        for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
            for line in text("blkio", file).lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                let [which, operation, value] = fields[..] else { continue };
                let (Some((major, minor)), Ok(value)) = (device(which), value.parse::<u64>()) else { continue };
                let usage = block.entry((major, minor)).or_insert(BlockUsage { major, minor, ..BlockUsage::default() });
                match (operation, bytes) {
                    ("Read", true) => usage.read_bytes = value,
                    ("Write", true) => usage.write_bytes = value,
                    ("Read", false) => usage.read_operations = value,
                    ("Write", false) => usage.write_operations = value,
                    _ => {}
                }
            }
        }
        // Version 1 says 'unlimited' with the largest number of pages.
        let limit = count("memory", "memory.limit_in_bytes").filter(|limit| *limit < i64::MAX as u64 - 4096);
        Ok(Usage {
            cpu_total: count("cpuacct", "cpuacct.usage").unwrap_or(0),
            cpu_user: ticks.get("user").copied().unwrap_or(0) * NANOSECONDS_A_TICK,
            cpu_system: ticks.get("system").copied().unwrap_or(0) * NANOSECONDS_A_TICK,
            periods: throttling.get("nr_periods").copied().unwrap_or(0),
            throttled_periods: throttling.get("nr_throttled").copied().unwrap_or(0),
            throttled_time: throttling.get("throttled_time").copied().unwrap_or(0),
            memory: count("memory", "memory.usage_in_bytes").unwrap_or(0),
            memory_peak: count("memory", "memory.max_usage_in_bytes").unwrap_or(0),
            memory_limit: limit,
            memory_failures: count("memory", "memory.failcnt").unwrap_or(0),
            memory_details: table(&text("memory", "memory.stat")),
            pids: count("pids", "pids.current").unwrap_or(0),
            pids_limit: count("pids", "pids.max"),
            block: block.into_values().collect(),
        })
    }

    /// Remove its directories where nothing is in them.
    pub fn remove_empty(&self) {
        for path in self.directories() {
            // rmdir(2) refuses what is not empty.
            let _ = fs::remove_dir(path);
        }
    }

    /// Remove it with all below it. Processes that are still dying are waited for, two seconds at most. What is gone
    /// already is fine.
    ///
    /// # Errors
    /// Something still lives in it.
    pub fn remove(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for path in self.directories() {
            if let Err(source) = remove_tree(path) {
                result = Err(Error::Remove { path: path.to_path_buf(), source });
            }
        }
        result
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in subdirectories(path) {
        remove_tree(&child)?;
    }
    let mut wait = Duration::from_micros(200);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && wait < Duration::from_millis(1100) => {
                std::thread::sleep(wait);
                wait *= 2;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn make(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Create { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    let open = fs::OpenOptions::new().write(true).open(path);
    open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())).map_err(|source| Error::Write {
        path: path.to_path_buf(),
        value: value.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

/// One number; 'max' is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Lines of a name and a number.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_what_is_mounted() {
        let check = |mountinfo: &str, version: Option<Version>, v1: usize| {
            let found = Hierarchies::parse(mountinfo);
            assert_eq!(found.as_ref().map(|found| found.version), version, "{mountinfo}");
            assert_eq!(found.map_or(0, |found| found.v1.len()), v1, "{mountinfo}");
        };
        let v2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let memory = "33 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let cpu = "34 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let systemd = "35 24 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        check(v2, Some(Version::V2), 0);
        check(&format!("{memory}{cpu}{systemd}"), Some(Version::V1), 3);
        check(&format!("{v2}{memory}{cpu}"), Some(Version::Hybrid), 2);
        check("20 1 8:1 / / rw - ext4 /dev/vda rw\n", None, 0);
        let found = Hierarchies::parse(&format!("{cpu}{memory}")).unwrap();
        let cgroup = found.cgroup("/a/b");
        assert_eq!(cgroup.v1["cpuacct"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(cgroup.directories().len(), 2);
    }
}
