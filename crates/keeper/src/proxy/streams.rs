//! TCP, by one socket. Each port has its fair share of the connections that may be open: whoever opens as many as there
//! can be keeps nobody from another port.

use super::SharedProxy;
use model::net::Protocol;
use resolver::serve::{Shared, serve_connections};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a container has to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// TCP connections at a time, of all containers together: two descriptors each.
const CONNECTIONS: usize = 4096;
/// Beyond these, so many may be in the course of being turned away.
const DOOR: usize = 256;
/// Bytes that are under way in one direction.
const BUFFER: usize = 8 << 10;

/// How long a connection is kept on which nothing comes, though both ends answer.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    open: Duration,
    /// One end has said that it sends no more.
    half_closed: Duration,
}

/// The kernel's own for a connection that it leads (nf_conntrack: 5 days), and the least that RFC 5382, REQ-5 allows for
/// one that is closing.
const DEADLINES: Deadlines =
    Deadlines { open: Duration::from_secs(5 * 24 * 3600), half_closed: Duration::from_secs(4 * 60) };

/// A connection that is carried.
#[derive(Debug)]
pub struct Line {
    pub asked: SocketAddr,
    pub target: SocketAddr,
    last: Cell<Instant>,
    half_closed: Cell<bool>,
    end: Notify,
}

impl Line {
    fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Waits until it has been silent for too long.
    async fn silence(&self, deadlines: Deadlines) {
        loop {
            let limit = if self.half_closed.get() { deadlines.half_closed } else { deadlines.open };
            let end = self.last.get() + limit;
            let now = Instant::now();
            if now >= end {
                return;
            }
            // It may become half closed meanwhile.
            tokio::time::sleep_until(end.min(now + deadlines.half_closed)).await;
        }
    }
}

/// All connections that are carried.
#[derive(Debug, Default)]
pub struct Lines {
    all: RefCell<HashMap<u64, Rc<Line>>>,
    next: Cell<u64>,
}

impl Lines {
    /// A place for one more. Where `most` are taken, one of the port that has most is ended for it, the one that has been
    /// silent longest; None if no port has more than this one would have.
    fn admit(&self, asked: SocketAddr, target: SocketAddr, most: usize) -> Option<(u64, Rc<Line>)> {
        let mut all = self.all.borrow_mut();
        if all.len() >= most {
            let mut counts: HashMap<u16, usize> = HashMap::new();
            all.values().for_each(|line| *counts.entry(line.asked.port()).or_default() += 1);
            let own = counts.get(&asked.port()).copied().unwrap_or_default();
            let (port, _) = counts.into_iter().filter(|(_, count)| *count > own + 1).max_by_key(|(_, count)| *count)?;
            let of_port = all.iter().filter(|(_, line)| line.asked.port() == port);
            let ended = of_port.min_by_key(|(_, line)| line.last.get()).map(|(id, _)| *id)?;
            if let Some(line) = all.remove(&ended) {
                line.end.notify_one();
            }
        }
        let line = Rc::new(Line {
            asked,
            target,
            last: Cell::new(Instant::now()),
            half_closed: Cell::new(false),
            end: Notify::new(),
        });
        let id = self.next.get();
        self.next.set(id + 1);
        all.insert(id, line.clone());
        Some((id, line))
    }

    /// Ends those of which it is so.
    pub fn end_those(&self, is_so: impl Fn(&Line) -> bool) {
        self.all.borrow_mut().retain(|_, line| {
            let ends = is_so(line);
            if ends {
                line.end.notify_one();
            }
            !ends
        });
    }
}

/// Serves the TCP socket until the returned task is aborted.
///
/// # Errors
/// The descriptor is no listening socket.
pub fn serve(listener: OwnedFd, proxy: SharedProxy, shared: Rc<Shared>) -> io::Result<JoinHandle<()>> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok(tokio::task::spawn_local(async move {
        serve_connections(&listener, CONNECTIONS + DOOR, &shared.leave, "the proxy", |client| {
            let (proxy, busy) = (proxy.clone(), shared.leave.busy());
            async move {
                let _busy = busy;
                carry(client, &proxy).await
            }
        })
        .await;
    }))
}

async fn carry(client: TcpStream, proxy: &SharedProxy) -> io::Result<()> {
    let asked = kernel::inet::original_destination(&client)?;
    let target = proxy.target(asked, Protocol::Tcp);
    let Some(target) = target else { return Err(io::Error::other(format!("nothing is published at {asked}"))) };
    let Some((id, line)) = proxy.lines.admit(asked, target, CONNECTIONS) else {
        return Err(io::Error::other(format!("{asked} has its share of connections already")));
    };
    let carried = tokio::select! {
        carried = connect(client, &line) => carried,
        () = line.end.notified() => Ok(()),
    };
    proxy.lines.all.borrow_mut().remove(&id);
    carried
}

async fn connect(client: TcpStream, line: &Line) -> io::Result<()> {
    let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(line.target));
    let container = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
    for end in [&client, &container] {
        let _ = (end.set_nodelay(true), kernel::inet::keep_alive(end));
    }
    line.touch();
    join(client.into_split(), container.into_split(), line, DEADLINES).await
}

/// Carries both directions, until both have ended, or one has failed, or nothing comes for too long.
async fn join<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    client: (R, W),
    container: (R, W),
    line: &Line,
    deadlines: Deadlines,
) -> io::Result<()> {
    let (there, back) = (one_way(client.0, container.1, line), one_way(container.0, client.1, line));
    tokio::select! {
        carried = async { tokio::try_join!(there, back) } => carried.map(|_| ()),
        () = line.silence(deadlines) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, line: &Line) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        line.touch();
        if length == 0 {
            line.half_closed.set(true);
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn who_takes_all_places_keeps_nobody_from_another_port() {
        let lines = Lines::default();
        let ask = |at: u16| lines.admit(port(at), port(80), 8);
        let first = ask(1).unwrap();
        assert_eq!((1..8).filter(|_| ask(1).is_some()).count(), 7);
        assert!(ask(1).is_none(), "it has all");
        first.1.touch();
        // Others get as many as it keeps, and no more; it loses those that have been silent longest.
        assert_eq!((0..8).filter(|_| ask(2).is_some()).count(), 4);
        assert!(lines.all.borrow().contains_key(&first.0));
        assert_eq!((0..8).filter(|_| ask(3).is_some()).count(), 2);
        let held = |at| lines.all.borrow().values().filter(|line| line.asked.port() == at).count();
        assert_eq!((held(1), held(2), held(3)), (3, 3, 2));
        lines.end_those(|line| line.asked.port() == 1);
        assert_eq!((held(1), held(2), held(3)), (0, 3, 2));
    }

    /// Carries between two pairs of streams, with deadlines of 50 ms where it is half closed, else of an hour.
    async fn carried(test: impl AsyncFnOnce(tokio::io::DuplexStream, tokio::io::DuplexStream)) -> io::Result<()> {
        let lines = Lines::default();
        let (_, line) = lines.admit(port(1), port(2), 1).unwrap();
        let (client, ours) = tokio::io::duplex(64);
        let (container, theirs) = tokio::io::duplex(64);
        let deadlines = Deadlines { open: Duration::from_secs(3600), half_closed: Duration::from_millis(50) };
        let joined = join(tokio::io::split(ours), tokio::io::split(theirs), &line, deadlines);
        let (joined, ()) = tokio::join!(joined, test(client, container));
        joined
    }

    #[tokio::test]
    async fn what_is_half_closed_ends_when_nothing_comes_any_more() {
        let ended = carried(async |mut client, mut container| {
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            container.read_to_end(&mut heard).await.unwrap();
            // The other direction goes on as long as something comes.
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                container.write_all(b"still here ").await.unwrap();
                let mut buffer = [0; 11];
                client.read_exact(&mut buffer).await.unwrap();
            }
            // Then it is over for both: neither is dropped here before.
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        });
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("an end");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_both_have_closed_has_ended() {
        let ended = carried(async |mut client, mut container| {
            client.write_all(b"ask").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            container.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"ask");
            container.write_all(b"answer").await.unwrap();
            container.shutdown().await.unwrap();
            heard.clear();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"answer");
        });
        ended.await.unwrap();
    }
}
