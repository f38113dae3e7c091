//! `isle daemon`: serves the API in the foreground until SIGTERM; containers run on.

use crate::network_flags::NetworkFlags;
use anyhow::{Context, bail};
use clap::Parser;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// Run the Isle daemon in the foreground
#[derive(Parser)]
#[command(name = "isle daemon")]
struct Arguments {
    /// Where images, containers and volumes are kept
    #[arg(long, alias = "data-root", default_value = "/var/lib/isle")]
    root: PathBuf,
    /// Where sockets and what belongs to running containers are
    #[arg(long, alias = "exec-root", default_value = "/run/isle")]
    run: PathBuf,
    /// Socket to listen on (unix://PATH); may be given several times
    #[arg(short = 'H', long = "host", default_value = "unix:///run/isle/isle.sock")]
    hosts: Vec<String>,
    /// Serve measurements for Prometheus on this address and port, at /metrics
    #[arg(long, value_name = "HOST:PORT")]
    metrics_addr: Option<String>,
    /// The shim's program; found beside this one, or in ../libexec/isle
    #[arg(long)]
    shim: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkFlags,
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
    #[arg(short = 'D', long)]
    debug: bool,
}

/// `is_dockerd`: the program is called so, and every word after its name is the daemon's.
pub fn main(is_dockerd: bool) -> anyhow::Result<()> {
    let mut arguments = Arguments::parse_from(std::env::args_os().skip(usize::from(!is_dockerd)));
    arguments.live_restore.get_or_insert(!is_dockerd);
    let filter = std::env::var("ISLE_LOG").unwrap_or_else(|_| if arguments.debug { "debug" } else { "info" }.into());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the daemon needs root: it makes network namespaces, bridges, firewall tables and mounts. Start it as root, \
             'sudo isle daemon' or by its systemd unit; its clients need to belong to the group of its socket only"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(arguments));
    // Streams of clients that are still there do not hold the daemon up.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
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
        networking: arguments.network.networking()?,
        registries: Default::default(),
        resolv_conf: arguments.resolv_conf,
        resolved_conf: arguments.resolved_conf,
        live_restore: arguments.live_restore.unwrap_or(true),
        debug: arguments.debug,
    };
    let mut listeners = Vec::new();
    let engine = engine::Engine::open(settings).await?;
    for host in &arguments.hosts {
        listeners.push(listen(host)?);
    }
    let metrics = match &arguments.metrics_addr {
        Some(address) => {
            let bound = tokio::net::TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("cannot serve measurements on {address}"))?)
        }
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(true);
    if engine.settings.live_restore {
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

/// Listens on `unix://PATH`. A socket that nobody answers on is replaced.
fn listen(host: &str) -> anyhow::Result<UnixListener> {
    let Some(path) = host.strip_prefix("unix://").map(Path::new) else {
        bail!("cannot listen on {host}: unix://PATH is supported");
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another daemon listens on {}", path.display());
    }
    bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Binds a socket for root and its group, in the place of whatever is there. Nobody else can have reached it before: it
/// gets its permissions in a directory of its own.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let private = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let new = private.join("s");
    let bound = UnixListener::bind(&new).and_then(|listener| {
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&new, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_dir_all(&private);
    bound
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_roots_and_its_groups_and_replaces_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("isle.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let host = format!("unix://{}", path.display());
        let listener = listen(&host).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(listen(&host).unwrap_err().to_string().contains("another daemon listens"));
        drop(listener);
    }
}
