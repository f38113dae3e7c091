//! The engines that are measured, each in a room of its own: a network namespace, a daemon where it has one, and the
//! image `busybox`.

use anyhow::{Context, bail};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testkit::{Lab, images};

/// An engine, ready to be told what to do by its own client.
pub struct Peer {
    /// With its version.
    pub name: String,
    lab: Lab,
    /// The client and its first words.
    client: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The programs that serve it, as the kernel calls them: their memory is the engine's.
    servers: &'static [&'static str],
    /// dockerd's own shell.
    daemon: Option<Child>,
}

impl Peer {
    /// Isle, by its own client. `program` is what people install, or another build of it.
    pub fn isle(program: &Path) -> anyhow::Result<Peer> {
        let lab = Lab::start(program)?;
        let environment = vec![("ISLE_HOST", lab.docker_host())];
        let client = vec![program.display().to_string()];
        Ok(Peer { name: "isle".into(), lab, client, environment, servers: &["isle", "isle-shim"], daemon: None })
    }

    /// dockerd, by the docker CLI of this machine.
    pub fn docker() -> anyhow::Result<Peer> {
        let version = said(Command::new("dockerd").arg("--version"))?;
        let lab = Lab::empty("/".as_ref())?;
        let place = lab.directory().display().to_string();
        let script = format!(
            "mkdir -p /run/docker && mount -t tmpfs none /run/docker && exec dockerd --data-root {place}/root --exec-root \
             {place}/run --pidfile {place}/pid --host unix://{place}/docker.sock --storage-driver overlay2"
        );
        let log = std::fs::File::create(lab.directory().join("dockerd.log"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0);
        let daemon = lab.in_host(move || command.spawn())?;
        let peer = Peer {
            name: version.split([',', ' ']).nth(2).map_or("docker".into(), |v| format!("docker {v}")),
            client: vec![images::docker().context("there is no docker")?.display().to_string()],
            environment: vec![("DOCKER_HOST", format!("unix://{place}/docker.sock"))],
            servers: &["dockerd", "containerd", "containerd-shim", "docker-proxy"],
            lab,
            daemon: Some(daemon),
        };
        let end = Instant::now() + Duration::from_secs(30);
        while peer.tell(&["version"]).is_err() {
            if Instant::now() > end {
                bail!("{}", std::fs::read_to_string(peer.lab.directory().join("dockerd.log"))?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        peer.with_busybox()
    }

    /// Podman, which has no daemon.
    pub fn podman() -> anyhow::Result<Peer> {
        let version = said(Command::new("podman").arg("--version"))?;
        let lab = Lab::empty("/".as_ref())?;
        let place = lab.directory();
        let configuration = place.join("containers.conf");
        // What this process may have is less than podman asks for by itself.
        std::fs::write(&configuration, "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n")?;
        let at = |name: &str| place.join(name).display().to_string();
        let words = ["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp"), "--cgroup-manager"];
        let more = ["cgroupfs", "--storage-driver", "overlay", "--network-config-dir", &at("networks"), "--runtime"];
        let client = ["podman"].iter().chain(&words).chain(&more).chain(&["runc"]).map(|w| (*w).to_owned()).collect();
        let peer = Peer {
            name: version.split_whitespace().last().map_or("podman".into(), |v| format!("podman {v}")),
            client,
            environment: vec![("CONTAINERS_CONF", configuration.display().to_string())],
            servers: &["conmon", "aardvark-dns"],
            lab,
            daemon: None,
        };
        peer.with_busybox()
    }

    fn with_busybox(self) -> anyhow::Result<Peer> {
        let archive = self.lab.directory().join("busybox.tar");
        std::fs::write(&archive, images::busybox()?)?;
        self.tell(&["import", &archive.display().to_string(), "busybox"])?;
        Ok(self)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.client[0]);
        command.args(&self.client[1..]).args(words).envs(self.environment.iter().map(|(k, v)| (*k, v)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line of the client's: what it says.
    pub fn tell(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.lab.on_host(&mut self.command(words));
        if output.code != 0 {
            bail!("{} {}: {}", self.name, words.join(" "), output.stderr.trim());
        }
        Ok(output.stdout.trim().to_owned())
    }

    /// The same: how long it took.
    pub fn time(&self, words: &[&str]) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.tell(words)?;
        Ok(begin.elapsed())
    }

    /// Removes containers, running or not.
    pub fn remove(&self, names: &[&str]) -> anyhow::Result<Duration> {
        let at_once: &[&str] = if self.name.starts_with("podman") { &["rm", "-f", "-t", "0"] } else { &["rm", "-f"] };
        self.time(&[at_once, names].concat())
    }

    /// A command of this machine's in a container's network namespace.
    pub fn inside(&self, container: &str, words: &[&str]) -> anyhow::Result<Command> {
        let pid = self.tell(&["inspect", "-f", "{{.State.Pid}}", container])?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net")).args(words).stdin(Stdio::null());
        Ok(command)
    }

    /// The address that a container asks for names.
    pub fn nameserver(&self, container: &str) -> anyhow::Result<String> {
        let text = self.tell(&["exec", container, "cat", "/etc/resolv.conf"])?;
        let server = text.lines().find_map(|l| l.strip_prefix("nameserver "));
        Ok(server.context("no nameserver")?.trim().to_owned())
    }

    /// KiB of memory of all its servers: their share of what is shared (PSS), and what is resident.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let room = self.lab.in_host(|| std::fs::read_link("/proc/thread-self/ns/net"))?;
        let mut sum = (0, 0);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let process = entry.path();
            let Ok(program) = std::fs::read_link(process.join("exe")) else { continue };
            let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_its = self.servers.iter().any(|server| program.starts_with(server));
            if !is_its || std::fs::read_link(process.join("ns/net")).ok().as_ref() != Some(&room) {
                continue;
            }
            let text = std::fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
            let of =
                |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
            sum.0 += of("Pss:").unwrap_or(0);
            sum.1 += of("Rss:").unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let all = self.tell(&["ps", "-aq"]).unwrap_or_default();
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            let _ = self.remove(&all);
        }
        if let Some(daemon) = &mut self.daemon {
            // Its shell has become dockerd, which ends containerd.
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
