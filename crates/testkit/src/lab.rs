//! A room of its own for a daemon: a network namespace whose "uplink" leads to a namespace that is the outside world.
//!
//! ```text
//!   outside (198.51.100.1) ──veth── eth0 (198.51.100.2) host of the lab ── the daemon and its networks
//!                                   lo: 127.0.0.1, 10.255.255.53 (the upstream DNS server)
//! ```

use crate::http::{self, Response};
use crate::{images, sweep, upstream, within};
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The lab's host, as the outside sees it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The outside world.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same by IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2);
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1);
/// Where the lab's upstream DNS server listens.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 53);

/// What a command did.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// # Panics
    /// The command failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }
    /// # Panics
    /// The command did not fail.
    pub fn refused(self) -> String {
        assert_ne!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr.trim_end().to_owned()
    }
}

/// A command line that is run somewhere in the lab.
pub type Run<'a> = &'a [&'a str];

/// A daemon in a room of its own. Dropped, everything in it is ended.
pub struct Lab {
    directory: tempfile::TempDir,
    host: OwnedFd,
    outside: OwnedFd,
    program: PathBuf,
    shim: PathBuf,
    daemon: Option<Child>,
    /// What the daemon is told beside where its things are.
    pub arguments: Vec<String>,
    /// A directory whose programs come before others for the daemon.
    pub programs: Option<PathBuf>,
    /// The daemon has a process group of its own.
    is_apart: bool,
    stopped: Arc<AtomicBool>,
}

impl Lab {
    /// A lab with a running daemon and the image `busybox`. `program` is `isle`; its shim lies beside it.
    ///
    /// # Errors
    /// No namespace can be made (root is needed), or the daemon does not start.
    pub fn start(program: &Path) -> anyhow::Result<Lab> {
        Lab::start_after(program, |_| ())
    }

    /// The same, with arguments for the daemon.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_with(program: &Path, arguments: Run<'_>) -> anyhow::Result<Lab> {
        Lab::start_after(program, |lab| lab.arguments = arguments.iter().map(|a| (*a).to_owned()).collect())
    }

    /// The same, on a host to which something was done before.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_after(program: &Path, prepare: impl FnOnce(&mut Lab)) -> anyhow::Result<Lab> {
        let mut lab = Lab::empty(program)?;
        prepare(&mut lab);
        lab.begin()?;
        Ok(lab)
    }

    /// The same, in a directory that somebody else watches, with a daemon that no signal to our process group reaches.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_in(directory: tempfile::TempDir, program: &Path) -> anyhow::Result<Lab> {
        let mut lab = Lab::empty_in(directory, program)?;
        lab.is_apart = true;
        lab.begin()?;
        Ok(lab)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.start_daemon()?;
        let response = self.post_bytes(
            "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D",
            &images::busybox()?,
        )?;
        if response.status != 200 {
            bail!("cannot import busybox: {}", response.text());
        }
        Ok(())
    }

    /// The directory that a lab is in.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_directory() -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("isle-").tempdir()?)
    }

    /// The room without a daemon.
    ///
    /// # Errors
    /// No namespace can be made.
    pub fn empty(program: &Path) -> anyhow::Result<Lab> {
        Lab::empty_in(Lab::new_directory()?, program)
    }

    fn empty_in(directory: tempfile::TempDir, program: &Path) -> anyhow::Result<Lab> {
        let (host, _) = kernel::netns::create(|| ()).context("cannot make a network namespace: root is needed")?;
        let (outside, _) = kernel::netns::create(|| ())?;
        std::fs::write(directory.path().join("resolv.conf"), format!("nameserver {UPSTREAM}\n"))?;
        let lab = Lab {
            directory,
            host,
            outside,
            program: program.to_owned(),
            shim: shim_of(program),
            daemon: None,
            arguments: Vec::new(),
            programs: None,
            is_apart: false,
            stopped: Arc::default(),
        };
        lab.wire()?;
        let socket = kernel::netns::inside(lab.host.as_fd(), || UdpSocket::bind((UPSTREAM, 53)))??;
        let stopped = lab.stopped.clone();
        std::thread::spawn(move || upstream::serve(&socket, || stopped.load(Ordering::Relaxed)));
        Ok(lab)
    }

    /// The uplink and the addresses, by ip(8).
    fn wire(&self) -> anyhow::Result<()> {
        let batch = format!(
            "link set lo up\naddr add {UPSTREAM}/32 dev lo\nlink add eth0 type veth peer name uplink0\n\
             addr add {HOST}/24 dev eth0\naddr add {HOST6}/64 dev eth0 nodad\nlink set eth0 up\n\
             route add default via {OUTSIDE}\nroute add default via {OUTSIDE6}\n"
        );
        self.ip(&self.host, &batch)?;
        // The other end goes to the outside by the process that holds its namespace: this thread cannot name it.
        let mut holder = kernel::netns::inside(self.outside.as_fd(), || Command::new("sleep").arg("5").spawn())??;
        let moved = self.ip(&self.host, &format!("link set uplink0 netns {}\n", holder.id()));
        let _ = holder.kill();
        let _ = holder.wait();
        moved?;
        self.ip(
            &self.outside,
            &format!(
                "link set lo up\naddr add {OUTSIDE}/24 dev uplink0\naddr add {OUTSIDE6}/64 dev uplink0 nodad\n\
                 link set uplink0 up\n"
            ),
        )
    }

    fn ip(&self, namespace: &OwnedFd, batch: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let mut child = kernel::netns::inside(namespace.as_fd(), || {
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })?
        .context("ip is missing: apt-get install iproute2")?;
        child.stdin.take().context("no input")?.write_all(batch.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ip: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("isle.sock")
    }
    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }
    pub fn root_directory(&self) -> PathBuf {
        self.directory.path().join("root")
    }
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }
    /// The shim that the daemon starts: static, or containers could not have it as their init.
    pub fn shim(&self) -> &Path {
        &self.shim
    }
    /// `unix://…`
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }
    /// The network namespace of the lab's host, as a file.
    pub fn namespace_file(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.host.as_raw_fd())
    }

    /// Starts a daemon, and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer within ten seconds.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("daemon.log"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("daemon")
            .args([OsStr::new("--root"), self.root_directory().as_os_str()])
            .args([OsStr::new("--run"), self.run_directory().as_os_str()])
            .args([OsStr::new("--resolv-conf"), self.resolv_conf().as_os_str()])
            .args([OsStr::new("--shim"), self.shim.as_os_str()])
            .args(["--debug", "--host", &self.docker_host()])
            .args(&self.arguments)
            .env("PATH", self.search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if self.is_apart {
            command.process_group(0);
        }
        let mut daemon = kernel::netns::inside(self.host.as_fd(), || command.spawn())?
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let end = std::time::Instant::now() + Duration::from_secs(10) * crate::patience();
        while !self.get("/_ping").is_ok_and(|r| r.status == 200) {
            if let Some(status) = daemon.try_wait()? {
                bail!("the daemon ended, {status}:\n{}", self.log());
            }
            if std::time::Instant::now() > end {
                let _ = daemon.kill();
                bail!("the daemon does not answer:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn search_path(&self) -> String {
        let inherited = std::env::var("PATH").unwrap_or_default();
        self.programs.as_ref().map_or(inherited.clone(), |p| format!("{}:{inherited}", p.display()))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// It does not end within ten seconds.
    pub fn stop_daemon(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        within(Duration::from_secs(10), "the daemon ends", || daemon.try_wait().is_ok_and(|s| s.is_some()));
    }

    /// SIGKILL.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// The keeper's process.
    pub fn keeper_pid(&self) -> Option<u32> {
        let marker = format!("--resolv-conf\0{}", self.resolv_conf().display());
        processes().find(|(_, line)| line.contains("keeper\0--root-id") && line.contains(&marker)).map(|(pid, _)| pid)
    }

    /// The next daemon is of another build: another copy of the program.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn upgrade(&mut self) {
        let copy = self.directory.path().join("isle");
        std::fs::copy(&self.program, &copy).expect("a copy of the program");
        self.program = copy;
    }

    /// What the daemon has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> anyhow::Result<Response> {
        http::request(&self.socket(), "GET", path, b"")
    }
    /// # Errors
    /// Nobody answers.
    pub fn delete(&self, path: &str) -> anyhow::Result<Response> {
        http::request(&self.socket(), "DELETE", path, b"")
    }
    /// # Errors
    /// Nobody answers.
    pub fn post(&self, path: &str, body: serde_json::Value) -> anyhow::Result<Response> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        http::request(&self.socket(), "POST", path, &bytes)
    }
    /// # Errors
    /// Nobody answers.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> anyhow::Result<Response> {
        http::request(&self.socket(), "POST", path, body)
    }

    /// Creates a container from `busybox` and starts it; its id. `body` is what `POST /containers/create` takes, without
    /// the image.
    ///
    /// # Panics
    /// It is refused.
    pub fn run(&self, name: &str, mut body: serde_json::Value) -> String {
        if body["Image"].is_null() {
            body["Image"] = "busybox".into();
        }
        let created = self.post(&format!("/containers/create?name={name}"), body).expect("an answer");
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["Id"].as_str().unwrap_or_default().to_owned();
        let started = self.post(&format!("/containers/{id}/start"), serde_json::Value::Null).expect("an answer");
        assert_eq!(started.status, 204, "{}", started.text());
        id
    }

    /// Creates a network; its id.
    ///
    /// # Panics
    /// It is refused.
    pub fn network(&self, body: serde_json::Value) -> String {
        let created = self.post("/networks/create", body).expect("an answer");
        assert_eq!(created.status, 201, "{}", created.text());
        created.json()["Id"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a command in a container, to its end.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn exec(&self, container: &str, command: Run<'_>) -> Output {
        let body = serde_json::json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
        let created = self.post(&format!("/containers/{container}/exec"), body).expect("an answer");
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["Id"].as_str().unwrap_or_default().to_owned();
        let output = http::stream(&self.socket(), &format!("/exec/{id}/start"), b"{}").expect("a stream");
        let (stdout, stderr) = http::demultiplex(&output);
        let code = self.get(&format!("/exec/{id}/json")).expect("an answer").json()["ExitCode"].as_i64();
        Output { code: code.unwrap_or(-1) as i32, stdout, stderr }
    }

    /// What the inspection of a container says.
    ///
    /// # Panics
    /// There is none.
    pub fn inspect(&self, container: &str) -> serde_json::Value {
        let shown = self.get(&format!("/containers/{container}/json")).expect("an answer");
        assert_eq!(shown.status, 200, "{}", shown.text());
        shown.json()
    }

    /// Runs the client.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn isle(&self, arguments: Run<'_>) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("ISLE_HOST", self.docker_host()).env_remove("DOCKER_HOST");
        self.on_host(&mut command)
    }

    /// Runs a docker CLI against the daemon; None, after saying `SKIP`, where this machine has none.
    ///
    /// # Panics
    /// There is none where everything is to be there (`REQUIRE_NETNS`).
    pub fn docker(&self, arguments: Run<'_>) -> Option<Output> {
        let docker = images::docker()?;
        let mut command = Command::new(docker);
        command.args(arguments).env("DOCKER_HOST", self.docker_host());
        Some(self.on_host(&mut command))
    }

    /// Runs a command on the lab's host.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn on_host(&self, command: &mut Command) -> Output {
        run_in(&self.host, command)
    }

    /// Runs a command outside.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn outside(&self, command: &mut Command) -> Output {
        run_in(&self.outside, command)
    }

    /// Does something on the lab's host: opens a socket there, for one.
    ///
    /// # Panics
    /// The namespace is gone.
    pub fn in_host<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        kernel::netns::inside(self.host.as_fd(), f).expect("the lab's namespace")
    }

    /// Does something in a running container's network namespace.
    ///
    /// # Panics
    /// It does not run.
    pub fn in_container<R: Send>(&self, container: &str, f: impl FnOnce() -> R + Send) -> R {
        let namespace = format!("/proc/{}/ns/net", self.inspect(container)["State"]["Pid"]);
        let namespace = std::fs::File::open(&namespace).unwrap_or_else(|e| panic!("{namespace}: {e}"));
        kernel::netns::inside(namespace.as_fd(), f).expect("the container's namespace")
    }

    /// Does something outside.
    ///
    /// # Panics
    /// The namespace is gone.
    pub fn in_outside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        kernel::netns::inside(self.outside.as_fd(), f).expect("the outside's namespace")
    }
}

fn run_in(namespace: &OwnedFd, command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = kernel::netns::inside(namespace.as_fd(), || command.spawn()).expect("the namespace");
    let child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let output = child.wait_with_output().expect("its output");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// All processes with their command lines.
pub fn processes() -> impl Iterator<Item = (u32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).into_owned()))
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let mark = self.mark();
        if self.daemon.is_some() {
            sweep::remove_containers(&self.socket());
            self.stop_daemon();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", tail(&self.log(), 60));
        }
        // Whatever is left of a daemon that was killed.
        sweep::kill(self.directory());
        // And its cgroups.
        if let (Some(mark), Ok(hierarchies)) = (mark, kernel::cgroup::Hierarchies::detect()) {
            let _ = hierarchies.cgroup(&mark).remove();
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The static shim that belongs to a program in `target/PROFILE`; where there is none, the one beside it.
pub fn shim_of(program: &Path) -> PathBuf {
    let target = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let built = target.join(format!("shim/{}-unknown-linux-gnu/debug/isle-shim", std::env::consts::ARCH));
    if built.exists() { built } else { program.with_file_name("isle-shim") }
}

/// The `isle` that was built with this test: beside the test's own directory.
///
/// # Panics
/// It was not built: `cargo build -p isle -p isle-shim`.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own file");
    let directory = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let built = directory.join("isle");
    assert!(built.exists(), "{} is missing: run the tests by cargo xtask test", built.display());
    built
}

/// A lab as most tests want it: as [`Lab::start`], of the `isle` that was built with this test.
///
/// # Panics
/// It does not start, for want of root or of the programs.
pub fn lab() -> Lab {
    Lab::start(&program()).unwrap_or_else(|error| panic!("a lab: {error:#}"))
}
