//! `isle daemon`: serves the API in the foreground until SIGTERM; containers run on.

mod container_flags;
mod daemon_json;
mod dockerd_flags;
mod flags;
mod listen;
mod network_flags;
mod pidfile;

use anyhow::{Context, bail};
use flags::{Arguments, CommandLine};
use listen::{Unserved, given_by_systemd, group, listen, listen_on_given};
use model::daemon::Registries;
use pidfile::PidFile;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
        min_api_minor: arguments.min_api_version,
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

/// The shim lies beside this program, or where packages put it.
fn find_shim(program: &Path) -> anyhow::Result<PathBuf> {
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = [directory.join("isle-shim"), directory.join("../libexec/isle/isle-shim")];
    match places.iter().find(|p| p.exists()) {
        Some(place) => Ok(place.clone()),
        None => bail!("there is no isle-shim beside {}; say where it is with --shim", program.display()),
    }
}
