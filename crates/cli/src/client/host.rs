//! Which daemon a command talks to, and the one that is started when there is none.

use crate::client::connection::Client;
use crate::client::output::warn;
use anyhow::{Context, bail};
use std::path::Path;
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
    pub autostart: bool,
    /// `--root` of a daemon that is started.
    pub root: Option<&'a str>,
}

/// The daemon's address: `--host`, `ISLE_HOST`, `DOCKER_HOST`, or the default.
pub fn address(wanted: &Wanted<'_>) -> String {
    let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let given = wanted.host.filter(|h| !h.is_empty()).map(str::to_owned);
    given.or_else(|| set("ISLE_HOST")).or_else(|| set("DOCKER_HOST")).unwrap_or_else(|| DEFAULT.to_owned())
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
        let wanted = Wanted { host: Some("unix:///x"), autostart: true, root: None };
        assert_eq!(address(&wanted), "unix:///x");
    }
}
