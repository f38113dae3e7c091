//! Which daemon a command talks to, and the one that is started when there is none.

use crate::client::connection::Client;
use crate::client::grammar::Parsed;
use crate::client::output::warn;
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT: &str = "unix:///run/isle/isle.sock";
/// Where a started daemon's words go.
const LOG: &str = "/run/isle/daemon.log";
/// Where service units lie. With one, starting the daemon is not ours to do.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What the command line says about the daemon.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub host: Option<&'a str>,
    pub context: Option<&'a str>,
    /// The program is called docker.
    pub is_docker: bool,
    pub autostart: bool,
    /// `--root` of a daemon that is started.
    pub root: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// What the flags before a command say.
    pub fn of(globals: &'a Parsed, program: &str) -> Self {
        Self {
            host: globals.last("host"),
            context: globals.last("context"),
            is_docker: program == "docker",
            autostart: !globals.on("no-autostart"),
            root: globals.last("root"),
        }
    }
}

/// The daemon's address: `--context`, `--host`, `ISLE_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, for who is called docker the
/// context that docker uses, or the default.
///
/// # Errors
/// There is no such context, or both a context and a host are named.
pub fn address(wanted: &Wanted<'_>) -> anyhow::Result<String> {
    let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (host, context) = (wanted.host.filter(|h| !h.is_empty()), wanted.context.filter(|c| !c.is_empty()));
    if host.is_some() && context.is_some() {
        bail!("conflicting options: cannot specify both --host and --context");
    }
    let named = match (context, host.map(str::to_owned).or_else(|| set("ISLE_HOST")).or_else(|| set("DOCKER_HOST"))) {
        (Some(context), _) => Some(context.to_owned()),
        (None, Some(host)) => return Ok(host),
        (None, None) => set("DOCKER_CONTEXT").or_else(|| wanted.is_docker.then(current_context).flatten()),
    };
    match named.as_deref() {
        None | Some("default") => Ok(DEFAULT.to_owned()),
        Some(name) => in_store(&configuration().join("contexts/meta"), name),
    }
}

/// Where docker's client keeps what it knows.
fn configuration() -> PathBuf {
    crate::client::credentials::directory()
}

fn current_context() -> Option<String> {
    let text = std::fs::read(configuration().join("config.json")).ok()?;
    let read: Value = serde_json::from_slice(&text).ok()?;
    Some(read["currentContext"].as_str()?.to_owned()).filter(|name| !name.is_empty())
}

/// The address that docker's store of contexts has for a name.
fn in_store(store: &Path, name: &str) -> anyhow::Result<String> {
    let metas = std::fs::read_dir(store).into_iter().flatten().flatten();
    let mut read = metas
        .filter_map(|entry| serde_json::from_slice::<Value>(&std::fs::read(entry.path().join("meta.json")).ok()?).ok());
    let found =
        read.find(|meta| meta["Name"] == name).with_context(|| format!("context \"{name}\": context not found"))?;
    let host = found["Endpoints"]["docker"]["Host"].as_str().filter(|host| !host.is_empty());
    host.map(str::to_owned).with_context(|| format!("context \"{name}\" names no daemon"))
}

/// Starts a daemon in the background where nobody listens on the default socket, no service unit is there to do it, and
/// we are root.
///
/// # Errors
/// It does not come up.
pub async fn ensure(client: &Client, wanted: &Wanted<'_>, program: &str) -> anyhow::Result<()> {
    if !wanted.autostart || client.host() != DEFAULT || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if client.probe().await.is_ok() || has_unit() {
        return Ok(());
    }
    start(client, wanted.root, program).await
}

fn has_unit() -> bool {
    UNITS.iter().any(|d| Path::new(d).join("isle.service").exists() || Path::new(d).join("isle.socket").exists())
}

async fn start(client: &Client, root: Option<&str>, called: &str) -> anyhow::Result<()> {
    let log_path = root.map_or_else(|| LOG.into(), |root| Path::new(root).join("daemon.log"));
    if let Some(directory) = log_path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    // A session of its own, by setsid(1): the daemon outlives the terminal.
    let mut command = Command::new("setsid");
    command.arg(&program).args(["daemon", "--host", DEFAULT]);
    if let Some(root) = root {
        command.args(["--root", root]);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut daemon = command.spawn().context("cannot start the daemon")?;
    warn(format_args!("{called}: no daemon was running, so one has been started (its log: {})", log_path.display()));
    let deadline = Instant::now() + Duration::from_secs(15);
    while client.get("/version").await.is_err() {
        if let Some(status) = daemon.try_wait()?
            // Where two clients start one at once, one of the daemons gives way to the other.
            && client.probe().await.is_err()
        {
            bail!("the daemon ended at once ({status}); its log is {}", log_path.display());
        }
        if Instant::now() > deadline {
            bail!("the daemon does not answer on {DEFAULT}; its log is {}", log_path.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_which_daemon_before_the_environment() {
        let wanted = Wanted { host: Some("unix:///x"), context: None, is_docker: false, autostart: true, root: None };
        assert_eq!(address(&wanted).unwrap(), "unix:///x");
    }

    #[test]
    fn a_context_is_docker_s_or_none() {
        let store = tempfile::tempdir().unwrap();
        let entry = store.path().join("0123");
        std::fs::create_dir(&entry).unwrap();
        let meta = r#"{"Name":"other","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///other.sock"}}}"#;
        std::fs::write(entry.join("meta.json"), meta).unwrap();
        assert_eq!(in_store(store.path(), "other").unwrap(), "unix:///other.sock");
        assert_eq!(in_store(store.path(), "nope").unwrap_err().to_string(), "context \"nope\": context not found");
        let both =
            Wanted { host: Some("unix:///x"), context: Some("other"), is_docker: true, autostart: false, root: None };
        let refused = address(&both).unwrap_err().to_string();
        assert_eq!(refused, "conflicting options: cannot specify both --host and --context");
    }
}
