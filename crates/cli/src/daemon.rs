//! `isle daemon`: serves the API in the foreground until SIGTERM; containers run on.

use crate::container_flags::ContainerFlags;
use crate::listen::{Unserved, group, listen, listen_on_given};
use crate::network_flags::NetworkFlags;
use crate::pidfile::PidFile;
use crate::{daemon_json, dockerd_flags};
use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use engine::Reloadable;
use model::daemon::Registries;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Run the Isle daemon in the foreground
#[derive(Parser)]
#[command(name = "isle daemon", version)]
struct Arguments {
    /// Where images, containers and volumes are kept
    #[arg(long, alias = "data-root", default_value = "/var/lib/isle")]
    root: PathBuf,
    /// Where sockets and what belongs to running containers are
    #[arg(long, alias = "exec-root", default_value = "/run/isle")]
    run: PathBuf,
    /// Where to listen (unix://PATH, tcp://127.0.0.1:PORT, or fd:// for what systemd opened); may be given several times
    #[arg(short = 'H', long = "host", default_value = "unix:///run/isle/isle.sock")]
    hosts: Vec<String>,
    /// Group of the unix sockets, beside root
    #[arg(short = 'G', long)]
    group: Option<String>,
    /// File with the same options, as Docker's daemon.json has them
    #[arg(long, value_name = "FILE", default_value = "/etc/isle/daemon.json")]
    config_file: PathBuf,
    /// Look whether the options are right, and end
    #[arg(long)]
    validate: bool,
    /// File with the daemon's process id
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Label of the daemon (KEY=VALUE); may be given several times
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Registry that need not have a certificate (HOST:PORT, or CIDR); may be given several times
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// Where images of Docker's own registry are looked for first (https://HOST); may be given several times
    #[arg(long, value_name = "URL", value_parser = mirror)]
    registry_mirror: Vec<String>,
    /// Serve measurements for Prometheus on this address and port, at /metrics
    #[arg(long, value_name = "HOST:PORT")]
    metrics_addr: Option<String>,
    /// The shim's program; found beside this one, or in ../libexec/isle
    #[arg(long)]
    shim: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkFlags,
    #[command(flatten)]
    containers: ContainerFlags,
    /// The host's resolv.conf
    #[arg(long, default_value = "/etc/resolv.conf", hide = true)]
    resolv_conf: PathBuf,
    /// systemd-resolved's, with the servers behind its stub
    #[arg(long, default_value = "/run/systemd/resolve/resolv.conf", hide = true)]
    resolved_conf: PathBuf,
    /// Containers run on when the daemon stops: so it is, unless it is linked as dockerd
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    live_restore: Option<bool>,
    /// Log what happens in detail
    #[arg(short = 'D', long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    debug: bool,
    /// What is logged: debug, info, warn, error or fatal
    #[arg(short, long, value_name = "LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error", "fatal"])]
    log_level: String,
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

impl Arguments {
    fn reloadable(&self) -> Reloadable {
        let live_restore = self.live_restore.unwrap_or(true);
        Reloadable { live_restore, debug: self.debug, labels: self.label.clone() }
    }

    fn filter(&self) -> EnvFilter {
        let level = match self.log_level.as_str() {
            _ if self.debug => "debug",
            "fatal" => "error",
            level => level,
        };
        EnvFilter::new(std::env::var("ISLE_LOG").unwrap_or_else(|_| level.into()))
    }
}

/// The command line as it was given, for every time that the file is read.
struct CommandLine {
    words: Vec<OsString>,
    is_dockerd: bool,
}

impl CommandLine {
    /// All options, of the command line and of the file; and notes about those that have no effect.
    fn read(&self) -> anyhow::Result<(Arguments, Vec<String>)> {
        let command = || dockerd_flags::add(Arguments::command());
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

type LogHandle = tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// `is_dockerd`: the program is called so, and every word after its name is the daemon's.
pub fn main(is_dockerd: bool) -> anyhow::Result<()> {
    let line = CommandLine { words: std::env::args_os().skip(usize::from(!is_dockerd)).collect(), is_dockerd };
    let (arguments, notes) = line.read()?;
    if arguments.validate {
        eprintln!("configuration OK");
        return Ok(());
    }
    let (filter, log) = tracing_subscriber::reload::Layer::new(arguments.filter());
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(format).init();
    for note in notes {
        tracing::warn!("{note}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the daemon needs root: it makes network namespaces, bridges, firewall tables and mounts. Start it as root, \
             'sudo isle daemon' or by its systemd unit; its clients need to belong to the group of its socket only"
        );
    }
    let _pidfile = arguments.pidfile.as_deref().map(PidFile::write).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(arguments, line, log));
    // Streams of clients that are still there do not hold the daemon up.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

/// At SIGHUP the file is read anew: labels, debug and live-restore follow it; the rest needs another start.
fn reload(engine: &engine::Engine, line: &CommandLine, log: &LogHandle) {
    let read = line.read().and_then(|(arguments, _)| Ok((log.reload(arguments.filter())?, arguments.reloadable())));
    match read {
        Ok(((), new)) => {
            tracing::info!(
                ?new,
                "labels, debug and live-restore are as the configuration says now; the rest is read at a start"
            );
            engine.reload(new);
        }
        Err(e) => tracing::error!("the configuration is not reloaded: {e:#}"),
    }
}

async fn serve(arguments: Arguments, line: CommandLine, log: LogHandle) -> anyhow::Result<()> {
    let reloadable = arguments.reloadable();
    let (networking, containers) = (arguments.network.networking()?, arguments.containers.defaults()?);
    let registries = Registries { mirrors: arguments.registry_mirror, insecure: arguments.insecure_registry };
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let shim = match arguments.shim {
        Some(shim) => shim,
        None => find_shim(&program)?,
    };
    let settings = engine::Settings {
        root: arguments.root.clone(),
        run: arguments.run,
        program,
        shim,
        version: env!("CARGO_PKG_VERSION").into(),
        networking,
        containers,
        registries,
        resolv_conf: arguments.resolv_conf,
        resolved_conf: arguments.resolved_conf,
        reloadable,
    };
    // Before anything else is touched: a daemon that nobody can reach leaves nothing behind.
    let mut unserved = Unserved::default();
    let mut listeners = Vec::new();
    let group = arguments.group.as_deref().map(group).transpose()?;
    for host in &arguments.hosts {
        if host.starts_with("fd://") {
            listeners.extend(listen_on_given(given_by_systemd()?.into_iter())?);
        } else {
            listeners.push(listen(host, group).await?);
            unserved.note(host);
        }
    }
    let metrics = match &arguments.metrics_addr {
        Some(address) => {
            let bound = tokio::net::TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("cannot serve measurements on {address}"))?)
        }
        None => None,
    };
    let engine = engine::Engine::open(settings).await?;
    unserved.keep();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut with_containers = signal(SignalKind::user_defined2())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let reloaded = engine.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload(&reloaded, &line, &log);
        }
    });
    let (stop, _) = tokio::sync::watch::channel(false);
    let servers = listeners.into_iter().map(|listener| {
        let mut stopped = stop.subscribe();
        let engine = engine.clone();
        tokio::spawn(api::serve(listener, engine, async move {
            let _ = stopped.wait_for(|s| *s).await;
        }))
    });
    let mut servers: Vec<_> = servers.collect();
    if let Some(listener) = metrics {
        let mut stopped = stop.subscribe();
        servers.push(tokio::spawn(api::serve_metrics(listener, engine.clone(), async move {
            let _ = stopped.wait_for(|s| *s).await;
        })));
    }
    tracing::info!(root = %arguments.root.display(), hosts = ?arguments.hosts, "ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    // SIGUSR2: as dockerd ends, its containers first, which are started again as their restart policies say.
    let with_containers = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        _ = with_containers.recv() => true,
    };
    let _ = stop.send(true);
    if engine.reloadable().live_restore && !with_containers {
        tracing::info!("stopping; containers run on");
    } else {
        tracing::info!("stopping, and all containers first");
        engine.stop_all().await;
    }
    for server in servers {
        server.await??;
    }
    engine.close().await;
    Ok(())
}

/// The sockets that systemd has opened for us. What it gave stays open beside our duplicates, and is closed on exec.
fn given_by_systemd() -> anyhow::Result<Vec<OwnedFd>> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let ours = pidfd_open(getpid(), PidfdFlags::empty()).context("cannot open a pidfd of this process")?;
    let given = sd_notify::listen_fds().context("what systemd says about its sockets is not understood")?;
    let own = |fd| pidfd_getfd(&ours, fd, PidfdGetfdFlags::empty()).context("cannot take over a socket of systemd's");
    given.map(own).collect()
}

/// The shim lies beside this program, or where packages put it.
fn find_shim(program: &Path) -> anyhow::Result<PathBuf> {
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = [directory.join("isle-shim"), directory.join("../libexec/isle/isle-shim")];
    match places.iter().find(|p| p.exists()) {
        Some(place) => Ok(place.clone()),
        None => bail!("there is no isle-shim beside {}; say where it is with --shim", program.display()),
    }
}
