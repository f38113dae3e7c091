//! A lab with a registry of stand-ins, and a suite in it.

use super::suites::{Prepared, Suite};
use super::{Outcome, Outcomes, stand_ins, workshop};
use anyhow::{Context, bail};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testkit::{Lab, within};

/// Where the registry listens: the daemon's mirror of Docker Hub.
pub const REGISTRY: &str = "127.0.0.1:5000";

pub struct Room {
    lab: Lab,
    registry: Child,
}

impl Room {
    pub fn new(program: &Path) -> anyhow::Result<Self> {
        let mirror = format!("http://{REGISTRY}");
        let lab = Lab::start_with(program, &["--registry-mirror", &mirror])?;
        let directory = lab.directory().join("registry");
        std::fs::create_dir(&directory)?;
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{REGISTRY}'}}\n",
            directory.join("data"),
        );
        std::fs::write(&config, text)?;
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = lab.in_host(|| serve.spawn()).context("docker-registry")?;
        let room = Self { lab, registry };
        within(Duration::from_secs(20), "the registry answers", || {
            room.lab.in_host(|| TcpStream::connect(REGISTRY).is_ok())
        });
        stand_ins::fill(&room.lab)?;
        Ok(room)
    }

    /// Starts a command on the lab's host, with the daemon as its engine, without an account of its owner's.
    pub fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        let configuration = self.lab.directory().join("docker");
        let home = self.lab.directory().join("home");
        std::fs::create_dir_all(&configuration)?;
        std::fs::create_dir_all(&home)?;
        // Without it, docker-py keeps its contexts in the directory that it is in.
        std::fs::write(configuration.join("config.json"), "{}\n")?;
        command
            .env("HOME", home)
            .env("DOCKER_HOST", self.lab.docker_host())
            .env("DOCKER_CONFIG", configuration)
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0")
            // Where published ports are, whatever this machine itself runs in.
            .env("TESTCONTAINERS_HOST_OVERRIDE", "localhost")
            .env("TC_HOST", "localhost")
            .env("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", self.lab.socket());
        self.lab.in_host(|| command.spawn()).with_context(|| format!("{command:?}"))
    }

    /// Runs a suite's commands, each with its output in a file beside, up to the suite's limit.
    pub fn run(&self, suite: &Suite, prepared: &Prepared, options: &[&str]) -> anyhow::Result<Outcomes> {
        let directory = workshop().join("results");
        std::fs::create_dir_all(&directory)?;
        let outcomes = directory.join(format!("{}.outcomes", suite.name));
        let _ = std::fs::remove_file(&outcomes);
        let output = directory.join(format!("{}.log", suite.name));
        let log = std::fs::File::create(&output)?;
        let mut command = Command::new(&prepared.program);
        command
            .args(&prepared.arguments)
            .args(options)
            .current_dir(&prepared.directory)
            .envs(prepared.variables.clone());
        // Of a group of its own, so that what it leaves behind can be ended with it.
        command.env("OUTCOMES", &outcomes).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = self.spawn(&mut command)?;
        let ended = wait_within(&mut child, suite.limit);
        std::fs::write(directory.join(format!("{}.daemon.log", suite.name)), self.lab.log())?;
        println!("  its output: {}", output.display());
        // What ran until then is no count, and what never began no success.
        ended?;
        read(&outcomes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// Waits for a command's end; past the limit, its group of processes is killed.
///
/// # Errors
/// It was not done by then.
fn wait_within(child: &mut Child, limit: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            child.wait()?;
            bail!("not done within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A line a test: `passed NAME`. A test that began and did not end has failed.
fn read(path: &Path) -> anyhow::Result<Outcomes> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut outcomes = Outcomes::new();
    for line in text.lines() {
        let Some((how, name)) = line.split_once(' ') else { bail!("{}: what is {line:?}?", path.display()) };
        let outcome = match how {
            "passed" => Outcome::Passed,
            "skipped" => Outcome::Skipped,
            "began" | "failed" => Outcome::Failed,
            _ => bail!("{}: what is {line:?}?", path.display()),
        };
        outcomes.insert(name.to_owned(), outcome);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_in_time_is_ended_and_said() {
        let mut slow = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let error = wait_within(&mut slow, Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.to_string(), "not done within 300ms");
        assert!(slow.try_wait().unwrap().is_some(), "it runs on");
        let mut quick = Command::new("true").process_group(0).spawn().unwrap();
        wait_within(&mut quick, Duration::from_secs(60)).unwrap();
    }
}
