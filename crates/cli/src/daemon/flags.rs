//! The daemon's options: those of its command line, and those of the file beside it.

use super::container_flags::ContainerFlags;
use super::network_flags::NetworkFlags;
use super::{daemon_json, dockerd_flags};
use anyhow::Context;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use engine::Reloadable;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Run the Isle daemon in the foreground
#[derive(Parser)]
#[command(name = "isle daemon", version)]
pub(super) struct Arguments {
    /// Where images, containers and volumes are kept
    #[arg(long, alias = "data-root", default_value = "/var/lib/isle")]
    pub(super) root: PathBuf,
    /// Where sockets and what belongs to running containers are
    #[arg(long, alias = "exec-root", default_value = "/run/isle")]
    pub(super) run: PathBuf,
    /// Where to listen (unix://PATH, tcp://127.0.0.1:PORT, or fd:// for what systemd opened); may be given several times
    #[arg(short = 'H', long = "host", default_value = "unix:///run/isle/isle.sock")]
    pub(super) hosts: Vec<String>,
    /// Group of the unix sockets, beside root
    #[arg(short = 'G', long)]
    pub(super) group: Option<String>,
    /// File with the same options, as Docker's daemon.json has them
    #[arg(long, value_name = "FILE", default_value = "/etc/isle/daemon.json")]
    pub(super) config_file: PathBuf,
    /// Look whether the options are right, and end
    #[arg(long)]
    pub(super) validate: bool,
    /// File with the daemon's process id
    #[arg(short, long, value_name = "FILE")]
    pub(super) pidfile: Option<PathBuf>,
    /// Label of the daemon (KEY=VALUE); may be given several times
    #[arg(long, value_name = "LABEL")]
    pub(super) label: Vec<String>,
    /// Registry that need not have a certificate (HOST:PORT, or CIDR); may be given several times
    #[arg(long, value_name = "REGISTRY")]
    pub(super) insecure_registry: Vec<String>,
    /// Where images of Docker's own registry are looked for first (https://HOST); may be given several times
    #[arg(long, value_name = "URL", value_parser = mirror)]
    pub(super) registry_mirror: Vec<String>,
    /// Serve measurements for Prometheus on this address and port, at /metrics
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) metrics_addr: Option<String>,
    /// The shim's program; found beside this one, or in ../libexec/isle
    #[arg(long)]
    pub(super) shim: Option<PathBuf>,
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    #[command(flatten)]
    pub(super) containers: ContainerFlags,
    /// The oldest version of the API that is answered: a key of daemon.json
    #[arg(long, value_name = "VERSION", default_value = "1.24", value_parser = min_api_minor, hide = true)]
    pub(super) min_api_version: u32,
    /// The host's resolv.conf
    #[arg(long, default_value = "/etc/resolv.conf", hide = true)]
    pub(super) resolv_conf: PathBuf,
    /// systemd-resolved's, with the servers behind its stub
    #[arg(long, default_value = "/run/systemd/resolve/resolv.conf", hide = true)]
    pub(super) resolved_conf: PathBuf,
    /// Containers run on when the daemon stops: so it is, unless it is linked as dockerd
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) live_restore: Option<bool>,
    /// Log what happens in detail
    #[arg(short = 'D', long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) debug: bool,
    /// What is logged: debug, info, warn, error or fatal
    #[arg(short, long, value_name = "LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error", "fatal"])]
    pub(super) log_level: String,
}

/// The command line as it was given, for every time that the file is read.
pub(super) struct CommandLine {
    pub(super) words: Vec<OsString>,
    pub(super) is_dockerd: bool,
}

impl CommandLine {
    /// All options, of the command line and of the file; and notes about those that have no effect.
    pub(super) fn read(&self) -> anyhow::Result<(Arguments, Vec<String>)> {
        let name = if self.is_dockerd { "dockerd" } else { "isle daemon" };
        let command = || dockerd_flags::add(Arguments::command()).bin_name(name);
        let given = command().get_matches_from(&self.words);
        let flags = self.file(&command(), &given)?;
        let all = command().get_matches_from(self.words.iter().cloned().chain(flags.into_iter().map(OsString::from)));
        let notes = dockerd_flags::judge(&all).map_err(anyhow::Error::msg)?;
        let mut arguments = Arguments::from_arg_matches(&all)?;
        arguments.live_restore.get_or_insert(!self.is_dockerd);
        if self.is_dockerd {
            if all.value_source("hosts") == Some(ValueSource::DefaultValue) {
                arguments.hosts = vec!["unix:///var/run/docker.sock".into()];
            }
            arguments.pidfile.get_or_insert_with(|| "/var/run/docker.pid".into());
        }
        arguments.network.networking()?.check()?;
        arguments.containers.defaults()?;
        Ok((arguments, notes))
    }

    /// The options in the file. It need not be there, unless it was named; Docker's own is another engine's, unless this
    /// one takes its place.
    fn file(&self, command: &Command, given: &ArgMatches) -> anyhow::Result<Vec<String>> {
        let is_named = given.value_source("config_file") == Some(ValueSource::CommandLine);
        let path = match given.get_one::<PathBuf>("config_file") {
            Some(path) if is_named || !self.is_dockerd => path.as_path(),
            _ => Path::new("/etc/docker/daemon.json"),
        };
        let failed = || format!("unable to configure the Docker daemon with file {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(Vec::new()),
            text => text.with_context(failed)?,
        };
        daemon_json::flags(&text, command, given).with_context(failed)
    }
}

impl Arguments {
    /// What may change while the daemon runs.
    pub(super) fn reloadable(&self) -> Reloadable {
        let live_restore = self.live_restore.unwrap_or(true);
        Reloadable { live_restore, debug: self.debug, labels: self.label.clone() }
    }

    /// What is logged.
    pub(super) fn filter(&self) -> EnvFilter {
        let level = match self.log_level.as_str() {
            _ if self.debug => "debug",
            "fatal" => "error",
            level => level,
        };
        EnvFilter::new(std::env::var("ISLE_LOG").unwrap_or_else(|_| level.into()))
    }
}

/// The number behind `1.` of the oldest version of the API that is to be answered.
fn min_api_minor(text: &str) -> Result<u32, String> {
    let (oldest, newest) = (api::MIN_API_VERSION, api::API_VERSION);
    if text.starts_with('v') {
        return Err(r#"API version must be provided without "v" prefix"#.into());
    }
    match text.strip_prefix("1.").and_then(|minor| minor.parse().ok()) {
        Some(minor) if minor < oldest.minor => Err(format!("minimum supported API version is {oldest}: got {text}")),
        Some(minor) if minor > newest.minor => Err(format!("maximum supported API version is {newest}: got {text}")),
        Some(minor) => Ok(minor),
        None => Err("it must be a version of the API, like 1.44".into()),
    }
}

/// A mirror's base address.
fn mirror(text: &str) -> Result<String, String> {
    let Some((scheme @ ("http" | "https"), host)) = text.split_once("://") else {
        return Err(format!("invalid mirror: {text:?} is no URL of scheme http or https"));
    };
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err(format!(
            "invalid mirror: {text:?}: it is a scheme and a host, without a path, query, fragment or user"
        ));
    }
    Ok(format!("{scheme}://{host}"))
}
