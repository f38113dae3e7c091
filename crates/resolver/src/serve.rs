//! The sockets of one sandbox: UDP and TCP, for as long as the sandbox has a view.

use crate::answer::{Outcome, Transport, answer, refuse, truncated};
use crate::forward::{HostServers, Kind, Origin, Sockets, ask};
use crate::names::Names;
use domain::base::iana::Rcode;
use model::id::SandboxId;
use model::names::Upstreams;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Questions of one sandbox under way upstream (DNS-18).
const FORWARDS: usize = 1024;
/// How long a question waits for one of these places.
const WAIT: Duration = Duration::from_secs(4);
/// Queries answered before others get their turn.
const BATCH: usize = 64;
/// Open TCP connections of one sandbox, and how long each may be idle (RFC 7766, 6.2.3).
const CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);

/// What all sandboxes share.
pub struct Shared {
    pub names: RefCell<Names>,
    pub host: HostServers,
    pub sockets: Box<dyn Sockets>,
    random: Cell<u64>,
}

impl Shared {
    /// `seed` starts the order of equal names and the ids of forwarded questions: random.
    pub fn new(host: HostServers, sockets: Box<dyn Sockets>, seed: u64) -> Self {
        Self { names: RefCell::default(), host, sockets, random: Cell::new(seed | 1) }
    }

    /// The next random number (splitmix64).
    fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn decide(&self, query: &[u8], sandbox: SandboxId, transport: Transport) -> Outcome {
        answer(query, &self.names.borrow(), sandbox, transport, self.random())
    }
}

/// Serves a sandbox until the returned future is dropped. Run it with `spawn_local`: its forwards are tasks of the
/// same thread.
///
/// # Errors
/// A descriptor is not a socket.
pub async fn serve(
    shared: Rc<Shared>,
    sandbox: SandboxId,
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let udp = Rc::new(UdpSocket::from_std(udp)?);
    let tcp = TcpListener::from_std(tcp)?;
    let forwards = Rc::new(Semaphore::new(FORWARDS));
    let ours = Forwarder { shared, sandbox, forwards };
    tokio::join!(serve_udp(&ours, udp), serve_tcp(&ours, tcp));
    Ok(())
}

#[derive(Clone)]
struct Forwarder {
    shared: Rc<Shared>,
    sandbox: SandboxId,
    forwards: Rc<Semaphore>,
}

impl Forwarder {
    /// Asks upstream as the sandbox's view says, and makes an error's answer where that fails.
    async fn forward(&self, query: &[u8], kind: Kind, limit: usize) -> Option<Vec<u8>> {
        let upstreams = self.shared.names.borrow().view(self.sandbox).map(|v| v.upstreams.clone());
        let (servers, origin) = match upstreams? {
            Upstreams::Host => (self.shared.host.current(), Origin::Host),
            Upstreams::Given(servers) => (servers, Origin::Sandbox(self.sandbox)),
            Upstreams::None => return refuse(query, Rcode::SERVFAIL),
        };
        let Ok(Ok(_place)) = tokio::time::timeout(WAIT, self.forwards.acquire()).await else {
            return refuse(query, Rcode::REFUSED);
        };
        let random = || self.shared.random();
        match ask(query, &servers, origin, kind, &*self.shared.sockets, random).await {
            Some(answer) if answer.len() > limit => truncated(query),
            Some(answer) => Some(answer),
            None => refuse(query, Rcode::SERVFAIL),
        }
    }
}

async fn serve_udp(ours: &Forwarder, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; 65_535];
    let mut failures = 0_u32;
    loop {
        if let Err(e) = socket.readable().await {
            tracing::warn!(sandbox = ?ours.sandbox, "resolver's socket: {e}");
            return;
        }
        for _ in 0..BATCH {
            let (length, client) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // What the network reports about an earlier answer; the next call reads on.
                Err(e) => {
                    tracing::debug!(sandbox = ?ours.sandbox, "resolver's socket: {e}");
                    failures += 1;
                    if failures.is_multiple_of(100) {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    continue;
                }
            };
            match ours.shared.decide(&buffer[..length], ours.sandbox, Transport::Udp) {
                Outcome::Reply(reply) => {
                    if let Err(e) = socket.try_send_to(&reply, client) {
                        tracing::debug!(sandbox = ?ours.sandbox, "answer not sent: {e}");
                    }
                }
                Outcome::Forward { limit } => {
                    // Weak: a question under way upstream does not keep a sandbox alive.
                    let (ours, socket, query) = (ours.clone(), Rc::downgrade(&socket), buffer[..length].to_vec());
                    tokio::task::spawn_local(async move {
                        let reply = ours.forward(&query, Kind::Udp, limit).await;
                        if let (Some(reply), Some(socket)) = (reply, socket.upgrade()) {
                            let _ = socket.try_send_to(&reply, client);
                        }
                    });
                }
                Outcome::Ignore => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn serve_tcp(ours: &Forwarder, listener: TcpListener) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let ours = ours.clone();
                tokio::task::spawn_local(async move {
                    let _place = place;
                    if let Err(e) = converse(&ours, stream).await {
                        tracing::debug!(sandbox = ?ours.sandbox, "resolver's connection: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::debug!(sandbox = ?ours.sandbox, "resolver's listener: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection: each question is answered in its turn (RFC 7766).
async fn converse(ours: &Forwarder, mut stream: TcpStream) -> io::Result<()> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await.map_err(timed_out)? {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await.map_err(timed_out)??;
        let reply = match ours.shared.decide(&query, ours.sandbox, Transport::Tcp) {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Forward { limit } => ours.forward(&query, Kind::Tcp, limit).await,
            Outcome::Ignore => None,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await.map_err(timed_out)??;
    }
}
