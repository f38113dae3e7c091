//! Where the daemon listens: unix sockets for root and a group, loopback, and what systemd has opened.

use anyhow::{Context, bail};
use api::Listener;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// Listens on `unix://PATH`, for `group` beside root, or `tcp://ADDRESS:PORT`. A socket that nobody answers on is
/// replaced.
///
/// # Errors
/// Another daemon listens there; anybody could reach it.
pub async fn listen(host: &str, group: Option<u32>) -> anyhow::Result<Listener> {
    if let Some(address) = host.strip_prefix("tcp://") {
        return Ok(Listener::Tcp(listen_on_loopback(address).await?));
    }
    let Some(path) = host.strip_prefix("unix://").map(Path::new) else {
        bail!("cannot listen on {host}: unix://PATH, tcp://127.0.0.1:PORT and fd:// are supported");
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another daemon listens on {}", path.display());
    }
    let bound = bind(path, group).with_context(|| format!("cannot listen on {}", path.display()))?;
    Ok(Listener::Unix(bound))
}

/// Unix sockets of a daemon that is not up yet: without [`Unserved::keep`] their files go with this.
#[derive(Default)]
pub struct Unserved(Vec<PathBuf>);

impl Unserved {
    /// Remembers what [`listen`] has made for `host`.
    pub fn note(&mut self, host: &str) {
        self.0.extend(host.strip_prefix("unix://").map(PathBuf::from));
    }

    /// They are served from now on.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `fd://`: the sockets that systemd has opened for this process (`sd_listen_fds(3)`), each as its kind is; those of TCP
/// are held to the same as `tcp://`.
///
/// # Errors
/// There are none, or one is no socket that a daemon could serve.
pub fn listen_on_given(given: impl Iterator<Item = OwnedFd>) -> anyhow::Result<Vec<Listener>> {
    let listeners = given.map(|fd| {
        let address = rustix::net::getsockname(&fd).context("a descriptor that systemd gave is no socket")?;
        if address.address_family() == rustix::net::AddressFamily::UNIX {
            let socket = std::os::unix::net::UnixListener::from(fd);
            socket.set_nonblocking(true)?;
            return Ok(Listener::Unix(UnixListener::from_std(socket)?));
        }
        let address = SocketAddr::try_from(address).context("a socket that systemd gave is neither unix nor TCP")?;
        check_loopback(address)?;
        let socket = std::net::TcpListener::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket)?))
    });
    let listeners: Vec<Listener> = listeners.collect::<anyhow::Result<_>>()?;
    if listeners.is_empty() {
        bail!(
            "cannot listen on fd://: no sockets found via socket activation: make sure the service was started by systemd, \
             with a socket unit (or name a socket: -H unix://PATH)"
        );
    }
    Ok(listeners)
}

/// Who reaches the API is root: so nobody else's machine may, and nothing is encrypted.
async fn listen_on_loopback(address: &str) -> anyhow::Result<TcpListener> {
    let named = address.replacen("localhost:", "127.0.0.1:", 1);
    let address: SocketAddr = named.parse().with_context(|| format!("cannot listen on tcp://{address}"))?;
    check_loopback(address)?;
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on tcp://{address}"))
}

fn check_loopback(address: SocketAddr) -> anyhow::Result<()> {
    if !address.ip().is_loopback() {
        bail!(
            "cannot listen on tcp://{address}: whoever reaches it is root here, and Isle has no TLS; tcp://127.0.0.1:PORT \
             is served, and other machines come by ssh (DOCKER_HOST=ssh://USER@HOST)"
        );
    }
    tracing::warn!("every user of this machine is root by tcp://{address}");
    Ok(())
}

/// The number of a group, by its name or number.
///
/// # Errors
/// There is none.
pub fn group(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").context("/etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.with_context(|| format!("group {name} not found"))
}

/// Binds a socket for root and a group, in the place of whatever is there. Nobody else can have reached it before: it
/// gets its permissions in a directory of its own.
fn bind(path: &Path, group: Option<u32>) -> std::io::Result<UnixListener> {
    let private = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let new = private.join("s");
    let bound = UnixListener::bind(&new).and_then(|listener| {
        std::os::unix::fs::chown(&new, None, group)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&new, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_dir_all(&private);
    bound
}

/// The sockets that systemd has opened for us. What it gave stays open beside our duplicates, and is closed on exec.
pub fn given_by_systemd() -> anyhow::Result<Vec<OwnedFd>> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let ours = pidfd_open(getpid(), PidfdFlags::empty()).context("cannot open a pidfd of this process")?;
    let given = sd_notify::listen_fds().context("what systemd says about its sockets is not understood")?;
    let own = |fd| pidfd_getfd(&ours, fd, PidfdGetfdFlags::empty()).context("cannot take over a socket of systemd's");
    given.map(own).collect()
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
        let listener = listen(&host, None).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(listen(&host, None).await.err().unwrap().to_string().contains("another daemon listens"));
        drop(listener);
    }

    #[tokio::test]
    async fn by_tcp_only_this_machine_is_served() {
        assert!(matches!(listen("tcp://127.0.0.1:0", None).await, Ok(Listener::Tcp(_))));
        for host in ["tcp://0.0.0.0:0", "tcp://192.0.2.1:0", "tcp://[::]:0", "npipe://x"] {
            assert!(listen(host, None).await.err().unwrap().to_string().contains("cannot listen on"), "{host}");
        }
        let any = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let given = [OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap())];
        assert!(matches!(listen_on_given(given.into_iter()).unwrap()[..], [Listener::Tcp(_)]));
        assert!(listen_on_given([any.into()].into_iter()).is_err());
        assert!(listen_on_given(std::iter::empty()).err().unwrap().to_string().contains("socket activation"));
        assert_eq!(group("root").unwrap(), 0);
        assert!(group("no such group").is_err());
    }
}
