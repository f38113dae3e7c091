//! Asking upstream: what no zone knows (DNS-10, DNS-11).
//!
//! The client's question goes on as it is, under an id and from a port drawn at random (RFC 5452); an answer counts
//! only from the asked server, with that id and the same question. At most three servers are asked, one after the
//! other.

use domain::base::Message;
use domain::base::iana::Rcode;
use model::files::{HostResolv, Nameserver};
use model::id::SandboxId;
use model::names::RESOLVER;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

/// How long one server may take (DNS-10). A client that waits 5 seconds hears of the second one.
const PATIENCE: Duration = Duration::from_secs(4);
/// As many servers as resolv.conf(5) takes.
const SERVERS: usize = 3;

/// Opens sockets where a question is asked from: the host's network namespace or a sandbox's.
pub trait Sockets {
    /// A fresh socket of `kind` for the family of `peer`, neither bound nor connected.
    ///
    /// # Errors
    /// The namespace is gone, or no descriptors are left.
    fn open(&self, from: Origin, peer: IpAddr, kind: Kind) -> io::Result<OwnedFd>;

    /// The number of the interface that a zone names (RFC 4007), where `socket` is.
    ///
    /// # Errors
    /// There is no such interface.
    fn interface(&self, socket: BorrowedFd<'_>, zone: &str) -> io::Result<u32>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Host,
    Sandbox(SandboxId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
}

/// The host's resolv.conf, read anew when it is another file or another version of it (DNS-25). Looked at when a
/// question is forwarded, so nothing has to watch it, and a replaced symlink is seen as well.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    known: RefCell<Option<(Version, Vec<Nameserver>)>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl HostServers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: RefCell::default() }
    }

    /// The servers as they are now; none where the file is missing.
    pub fn current(&self) -> Vec<Nameserver> {
        let version = std::fs::metadata(&self.path).ok().map(|m| Version {
            inode: m.ino(),
            size: m.size(),
            changed: (m.mtime(), m.mtime_nsec()),
        });
        let Some(version) = version else { return Vec::new() };
        let mut known = self.known.borrow_mut();
        match &*known {
            Some((same, servers)) if *same == version => servers.clone(),
            _ => {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                let servers = HostResolv::parse(&text).nameservers;
                *known = Some((version, servers.clone()));
                servers
            }
        }
    }
}

/// Whether a question may go to `server`: never back to a sandbox's resolver (DNS-20).
pub fn is_askable(server: IpAddr) -> bool {
    server != IpAddr::V4(RESOLVER) && !server.is_unspecified()
}

/// Asks `servers` in order. SERVFAIL and REFUSED move on to the next one; any other answer is the answer. `None`:
/// nobody answered. Where all said SERVFAIL or REFUSED, the last of these is the answer.
pub async fn ask(
    query: &[u8],
    servers: &[Nameserver],
    origin: Origin,
    kind: Kind,
    sockets: &dyn Sockets,
    random: impl Fn() -> u64,
) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers.iter().filter(|s| is_askable(s.address)).take(SERVERS) {
        let id = random() as u16;
        let mut question = query.to_vec();
        question[..2].copy_from_slice(&id.to_be_bytes());
        let asked = async {
            let socket = sockets.open(origin, server.address, kind)?;
            let peer = at(server, |zone| sockets.interface(socket.as_fd(), zone))?;
            match kind {
                Kind::Udp => ask_udp(&question, socket, peer).await,
                Kind::Tcp => ask_tcp(&question, socket, peer).await,
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(mut answer)) => {
                answer[..2].copy_from_slice(&query[..2]);
                let rcode = Message::from_octets(&answer).ok()?.header().rcode();
                if !matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED) {
                    return Some(answer);
                }
                last = Some(answer);
            }
            Ok(Err(e)) => tracing::debug!(%server, "upstream cannot be asked: {e}"),
            Err(_) => tracing::debug!(%server, "upstream did not answer in time"),
        }
    }
    last
}

/// Where a server listens.
fn at(server: &Nameserver, interface: impl FnOnce(&str) -> io::Result<u32>) -> io::Result<SocketAddr> {
    Ok(match server.address {
        IpAddr::V6(address) if !server.zone.is_empty() => {
            SocketAddrV6::new(address, 53, 0, interface(&server.zone)?).into()
        }
        address => SocketAddr::new(address, 53),
    })
}

async fn ask_udp(question: &[u8], socket: OwnedFd, peer: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    socket.connect(peer)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.send(question).await?;
    loop {
        socket.readable().await?;
        match receive(&socket, question) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// What has come, if it is the answer. Its buffer is on the stack: who waits holds none.
fn receive(socket: &UdpSocket, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 65_535];
    let length = socket.try_recv(&mut buffer)?;
    Ok(is_answer_to(&buffer[..length], question).then(|| buffer[..length].to_vec()))
}

async fn ask_tcp(question: &[u8], socket: OwnedFd, peer: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut stream = TcpSocket::from_std_stream(socket).connect(peer).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer_to(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The id and the question are the asked ones (RFC 5452, 9.1). A server that answers an error may leave the question
/// out.
fn is_answer_to(answer: &[u8], question: &[u8]) -> bool {
    let (Ok(answer), Ok(question)) = (Message::from_octets(answer), Message::from_octets(question)) else {
        return false;
    };
    if !answer.header().qr() || answer.header().id() != question.header().id() {
        return false;
    }
    match (answer.sole_question(), question.sole_question()) {
        (Ok(a), Ok(q)) => a == q,
        (Err(_), _) => answer.header_counts().qdcount() == 0 && answer.header().rcode() != Rcode::NOERROR,
        (Ok(_), Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_25_a_replaced_resolv_conf_is_followed() {
        let dir = std::env::temp_dir().join(format!("isle-resolv-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("resolv.conf");
        let servers = HostServers::new(path.clone());
        assert!(servers.current().is_empty());
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers.current(), ["192.0.2.1".parse::<Nameserver>().unwrap()]);
        std::fs::write(dir.join("new"), "nameserver 192.0.2.2\nnameserver ::1\n").unwrap();
        std::fs::rename(dir.join("new"), &path).unwrap();
        assert_eq!(servers.current().len(), 2);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn dns_20_no_question_goes_back_to_a_sandbox() {
        assert!(!is_askable("127.0.0.11".parse().unwrap()));
        assert!(is_askable("127.0.0.53".parse().unwrap()));
    }
}
