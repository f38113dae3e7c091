//! The sockets of one sandbox: UDP and TCP, for as long as they are held.
//!
//! A question that goes upstream is admitted before anything is kept of it: one sandbox has a bounded number of them and
//! of their bytes, under way and waiting together (DNS-18).

use crate::answer::{Outcome, Transport, answer, refuse, truncated};
use crate::forward::{HostServers, Kind, Origin, Sockets, ask};
use crate::leave::Leave;
use domain::base::iana::Rcode;
use model::files::Nameserver;
use model::id::SandboxId;
use model::names::{Names, Questions, Upstreams};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions of one sandbox under way upstream (DNS-18).
const FORWARDS: usize = 1024;
/// How many more may wait for one of these places, and how long. Others are refused at once.
const WAITING: usize = 1024;
const WAIT: Duration = Duration::from_secs(4);
/// What all of these questions hold together, in bytes.
const BYTES: usize = 1 << 20;
/// How often a sandbox's refused questions are logged.
const TELL: Duration = Duration::from_secs(10);
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
    pub leave: Leave,
    /// What became of all questions so far (DNS-28).
    questions: Cell<Questions>,
    random: Cell<u64>,
}

impl Shared {
    /// `seed` starts the order of equal names and the ids of forwarded questions: random.
    pub fn new(host: HostServers, sockets: Box<dyn Sockets>, seed: u64) -> Self {
        Self {
            names: RefCell::default(),
            host,
            sockets,
            leave: Leave::default(),
            questions: Cell::default(),
            random: Cell::new(seed | 1),
        }
    }

    /// What became of all questions so far.
    pub fn questions(&self) -> Questions {
        self.questions.get()
    }

    fn count(&self, what: impl FnOnce(&mut Questions) -> &mut u64) {
        let mut questions = self.questions.get();
        *what(&mut questions) += 1;
        self.questions.set(questions);
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
        let outcome = answer(query, &self.names.borrow(), sandbox, transport, self.random());
        match outcome {
            Outcome::Reply(_) => self.count(|q| &mut q.answered),
            Outcome::Ignore => self.count(|q| &mut q.ignored),
            Outcome::Forward { .. } => {}
        }
        outcome
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
    let ours = Forwarder { shared, sandbox, gate: Rc::default() };
    tokio::join!(serve_udp(&ours, udp), serve_tcp(&ours, tcp));
    Ok(())
}

/// How many questions of one sandbox are on their way.
struct Gate {
    places: Semaphore,
    /// Those with a place and those that wait for one.
    crowd: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    refused: Cell<u64>,
    told: Cell<Option<Instant>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            places: Semaphore::new(FORWARDS),
            crowd: Arc::new(Semaphore::new(FORWARDS + WAITING)),
            bytes: Arc::new(Semaphore::new(BYTES)),
            refused: Cell::default(),
            told: Cell::default(),
        }
    }
}

/// A question may be kept, and wait for its place.
struct Admitted {
    _crowd: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Gate {
    fn admit(&self, bytes: usize) -> Option<Admitted> {
        let crowd = self.crowd.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes.try_into().ok()?).ok()?;
        Some(Admitted { _crowd: crowd, _bytes: bytes })
    }

    /// REFUSED, and a word about it now and then.
    fn refuse(&self, query: &[u8], sandbox: SandboxId) -> Option<Vec<u8>> {
        self.refused.set(self.refused.get() + 1);
        if self.told.get().is_none_or(|at| at.elapsed() >= TELL) {
            self.told.set(Some(Instant::now()));
            let refused = self.refused.take();
            tracing::warn!(?sandbox, refused, "more than {FORWARDS} questions are under way upstream");
        }
        refuse(query, Rcode::REFUSED)
    }
}

/// What becomes of a question that no zone answers.
enum Way {
    Upstream { servers: Vec<Nameserver>, origin: Origin, admitted: Admitted },
    Reply(Option<Vec<u8>>),
}

#[derive(Clone)]
struct Forwarder {
    shared: Rc<Shared>,
    sandbox: SandboxId,
    gate: Rc<Gate>,
}

impl Forwarder {
    /// Where the question goes, as the sandbox's view says.
    fn way(&self, query: &[u8]) -> Way {
        let upstreams = self.shared.names.borrow().view(self.sandbox).map(|v| v.upstreams.clone());
        let (servers, origin) = match upstreams {
            Some(Upstreams::Host) => (self.shared.host.current(), Origin::Host),
            Some(Upstreams::Given(servers)) => {
                (servers.into_iter().map(Nameserver::from).collect(), Origin::Sandbox(self.sandbox))
            }
            Some(Upstreams::None) => {
                self.shared.count(|q| &mut q.failed);
                return Way::Reply(refuse(query, Rcode::SERVFAIL));
            }
            None => {
                self.shared.count(|q| &mut q.ignored);
                return Way::Reply(None);
            }
        };
        match self.gate.admit(query.len()) {
            Some(admitted) => Way::Upstream { servers, origin, admitted },
            None => Way::Reply(self.turn_away(query)),
        }
    }

    fn turn_away(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.shared.count(|q| &mut q.refused);
        self.gate.refuse(query, self.sandbox)
    }

    /// Asks upstream, and makes an error's answer where that fails.
    async fn ask(
        &self,
        query: &[u8],
        servers: &[Nameserver],
        origin: Origin,
        kind: Kind,
        limit: usize,
    ) -> Option<Vec<u8>> {
        let Ok(Ok(_place)) = tokio::time::timeout(WAIT, self.gate.places.acquire()).await else {
            return self.turn_away(query);
        };
        let random = || self.shared.random();
        let answer = ask(query, servers, origin, kind, &*self.shared.sockets, random).await;
        self.shared.count(|q| if answer.is_some() { &mut q.forwarded } else { &mut q.failed });
        match answer {
            Some(answer) if answer.len() > limit => truncated(query),
            Some(answer) => Some(answer),
            None => refuse(query, Rcode::SERVFAIL),
        }
    }
}

async fn serve_udp(ours: &Forwarder, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; 65_535];
    let mut failures = 0_u32;
    let mut leave = std::pin::pin!(ours.shared.leave.begun());
    loop {
        let readable = tokio::select! {
            readable = socket.readable() => readable,
            // The socket stays open for the answers that are still to come.
            () = &mut leave => std::future::pending().await,
        };
        if let Err(e) = readable {
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
            let query = &buffer[..length];
            let reply = match ours.shared.decide(query, ours.sandbox, Transport::Udp) {
                Outcome::Reply(reply) => Some(reply),
                Outcome::Forward { limit } => match ours.way(query) {
                    Way::Reply(reply) => reply,
                    Way::Upstream { servers, origin, admitted } => {
                        // Weak: a question under way upstream does not keep a sandbox alive.
                        let (ours, socket, query) = (ours.clone(), Rc::downgrade(&socket), query.to_vec());
                        tokio::task::spawn_local(async move {
                            let (_admitted, _busy) = (admitted, ours.shared.leave.busy());
                            let reply = ours.ask(&query, &servers, origin, Kind::Udp, limit).await;
                            if let (Some(reply), Some(socket)) = (reply, socket.upgrade()) {
                                let _ = socket.try_send_to(&reply, client);
                            }
                        });
                        None
                    }
                },
                Outcome::Ignore => None,
            };
            if let Some(reply) = reply
                && let Err(e) = socket.try_send_to(&reply, client)
            {
                tracing::debug!(sandbox = ?ours.sandbox, "answer not sent: {e}");
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn serve_tcp(ours: &Forwarder, listener: TcpListener) {
    let what = format!("the resolver of {:?}", ours.sandbox);
    serve_connections(&listener, CONNECTIONS, &ours.shared.leave, &what, |stream| {
        let ours = ours.clone();
        async move { converse(&ours, stream).await }
    })
    .await;
}

/// Serves each connection, `most` at once, until leaving begins. A listener that fails is asked again.
pub async fn serve_connections<F>(
    listener: &TcpListener,
    most: usize,
    leave: &Leave,
    what: &str,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = io::Result<()>> + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut leaving = std::pin::pin!(leave.begun());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut leaving => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (served, what) = (serve(stream), what.to_owned());
                tokio::task::spawn_local(async move {
                    let _place = place;
                    if let Err(e) = served.await {
                        tracing::debug!("a connection of {what}: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("{what} cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection: each question is answered in its turn (RFC 7766).
async fn converse(ours: &Forwarder, mut stream: TcpStream) -> io::Result<()> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let _busy = ours.shared.leave.busy();
    loop {
        let length = tokio::select! {
            biased;
            length = tokio::time::timeout(IDLE, stream.read_u16()) => length.map_err(timed_out)?,
            // Between two questions: the client connects again, to whoever serves then.
            () = ours.shared.leave.begun() => return Ok(()),
        };
        let length = match length {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await.map_err(timed_out)??;
        let reply = match ours.shared.decide(&query, ours.sandbox, Transport::Tcp) {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Forward { limit } => match ours.way(&query) {
                Way::Reply(reply) => reply,
                Way::Upstream { servers, origin, admitted } => {
                    let _admitted = admitted;
                    ours.ask(&query, &servers, origin, Kind::Tcp, limit).await
                }
            },
            Outcome::Ignore => None,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await.map_err(timed_out)??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_18_what_waits_is_bounded_in_number_and_bytes() {
        let gate = Gate::default();
        let admitted: Vec<Admitted> = (0..5000).filter_map(|_| gate.admit(40)).collect();
        assert_eq!(admitted.len(), FORWARDS + WAITING);
        drop(admitted);
        let large: Vec<Admitted> = (0..5000).filter_map(|_| gate.admit(65_535)).collect();
        assert_eq!(large.len(), BYTES / 65_535);
        drop(large);
        assert!(gate.admit(40).is_some(), "places are given back");
    }
}
