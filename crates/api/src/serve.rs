//! Listening, and the connections themselves.
//!
//! hyper hands a connection over only after `Upgrade`. Docker also takes one over without it: so the first request of a
//! connection, if it is for a stream and lacks the header, is given it here, and the first line of its response is
//! changed back to 200.

use crate::{
    router,
    socket::{Client, Shared, Socket},
    version,
};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What goes wrong again and again is said this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The most bytes that a request's head may have.
const HEAD: usize = 64 * 1024;

/// Where clients come from.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
        })
    }
}

/// Serves the API on `listener` until `stop` resolves; streams that are under way go on.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: Listener, engine: Arc<engine::Engine>, stop: impl Future<Output = ()>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(engine.most_clients()));
    // Around the router, not in it: the version is off the path before the path is looked up.
    let version = axum::middleware::from_fn_with_state(engine.clone(), version::layer);
    let app = axum::Router::new().fallback_service(router(engine)).layer(version);
    tokio::pin!(stop);
    let mut told: Option<Instant> = None;
    loop {
        let (stream, place) = tokio::select! {
            // Who finds no place waits: in the listener's queue, so that containers have descriptors.
            (place, accepted) = async { (places.clone().acquire_owned().await, listener.accept().await) } => match accepted {
                Ok(stream) => (stream, place.ok()),
                // No descriptors are left: others' may be given back.
                Err(e) => {
                    if told.is_none_or(|at| at.elapsed() > TELL_EVERY) {
                        tracing::error!("cannot accept: {e}");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stop => return Ok(()),
        };
        let app = app.clone();
        tokio::spawn(async move {
            let io = match Connection::open(Shared(Arc::new(stream)), place).await {
                Ok(io) => io,
                Err(e) => return tracing::debug!("a client went away: {e}"),
            };
            let app = app.layer(axum::Extension(Client(io.stream.clone())));
            let service = TowerToHyperService::new(app);
            let connection = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades();
            if let Err(e) = connection.await {
                tracing::debug!("a connection ended: {e}");
            }
        });
    }
}

/// A client's connection, with the head of its first request read ahead.
struct Connection {
    stream: Shared,
    /// Its place among the clients.
    place: Option<OwnedSemaphorePermit>,
    /// It has turned into a stream: its end is its end.
    taken_over: bool,
    /// A request with a body came by it: there may be some of it that nobody has read.
    has_body: bool,
    /// Read ahead, and not yet given to hyper.
    ahead: Vec<u8>,
    given: usize,
    /// The first line of the response is to say 200 instead of 101.
    plain: bool,
    /// Bytes that are still to be sent of the head that hands the connection over.
    head: usize,
    /// What comes after that head waits for it to be read.
    held: Option<Held>,
}

/// A stream whose client has not read the head yet. Some (docker-py) read the head through a buffer, which they leave
/// aside for the stream: what comes along with the head would be lost.
struct Held {
    until: Instant,
    again: Pin<Box<tokio::time::Sleep>>,
}

/// How long a stream waits for its head to be read.
const HOLD: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_micros(500);

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols";
const OK: &[u8] = b"HTTP/1.1 200 OK";

impl Connection {
    async fn open(mut stream: Shared, place: Option<OwnedSemaphorePermit>) -> io::Result<Self> {
        let mut ahead = Vec::with_capacity(1024);
        let end = loop {
            if let Some(end) = find(&ahead, b"\r\n\r\n") {
                break Some(end);
            }
            if ahead.len() > HEAD || stream.read_buf(&mut ahead).await? == 0 {
                break None;
            }
        };
        let has_body = end.is_none_or(|end| announces_body(&ahead[..end]));
        let mut plain = false;
        if let Some(end) = end
            && wants_stream(&ahead[..end])
            && !has_header(&ahead[..end], "upgrade")
        {
            ahead.splice(end..end, *b"\r\nConnection: Upgrade\r\nUpgrade: tcp");
            plain = true;
        }
        Ok(Self { stream, place, taken_over: false, has_body, ahead, given: 0, plain, head: 0, held: None })
    }

    /// Ready once a head that handed the connection over was read by the client, or it has had its time.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        use std::task::ready;
        let Some(held) = &mut self.held else { return Poll::Ready(()) };
        while self.stream.is_unread() && Instant::now() < held.until {
            ready!(held.again.as_mut().poll(cx));
            held.again.as_mut().reset(tokio::time::Instant::now() + LOOK);
        }
        self.held = None;
        Poll::Ready(())
    }

    /// So much was written: once it is all of the head, the rest is held.
    fn wrote(&mut self, bytes: usize) {
        if self.head > 0 {
            self.head = self.head.saturating_sub(bytes);
            if self.head == 0 {
                let again = Box::pin(tokio::time::sleep(Duration::ZERO));
                self.held = Some(Held { until: Instant::now() + HOLD, again });
            }
        }
    }

    fn stream(&mut self) -> Pin<&mut Shared> {
        Pin::new(&mut self.stream)
    }
}

/// A client that is still sending is to read our answer: a socket that is closed with something unread in it takes the
/// answer along. So the rest is read, for so long.
const LINGER: Duration = Duration::from_secs(30);

impl Drop for Connection {
    fn drop(&mut self) {
        let (mut stream, place) = (self.stream.clone(), self.place.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.taken_over || !self.has_body {
            return;
        }
        runtime.spawn(async move {
            let _ = stream.shutdown().await;
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut stream, &mut nowhere);
            let _ = tokio::time::timeout(LINGER, rest).await;
            drop(place);
        });
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Whether a request's head asks for a stream of its own: attach, or the start of a command.
fn wants_stream(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let Some(path) = line.strip_prefix(b"POST ").and_then(|rest| rest.split(|b| matches!(b, b' ' | b'?')).next())
    else {
        return false;
    };
    path.ends_with(b"/attach") || (path.ends_with(b"/start") && find(path, b"/exec/").is_some())
}

fn announces_body(head: &[u8]) -> bool {
    let is_empty = |line: &[u8]| line.trim_ascii().eq_ignore_ascii_case(b"content-length: 0");
    has_header(head, "transfer-encoding")
        || has_header(head, "content-length") && !head.split(|b| *b == b'\n').any(is_empty)
}

fn has_header(head: &[u8], name: &str) -> bool {
    let lines = head.split(|b| *b == b'\n').skip(1);
    lines.into_iter().any(|line| {
        let found = line.split(|b| *b == b':').next().unwrap_or_default();
        found.eq_ignore_ascii_case(name.as_bytes())
    })
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given < self.ahead.len() {
            let rest = &self.ahead[self.given..];
            let part = &rest[..rest.len().min(buf.remaining())];
            buf.put_slice(part);
            let length = part.len();
            self.given += length;
            if self.given == self.ahead.len() {
                self.ahead = Vec::new();
                self.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = self.stream().poll_read(cx, buf);
        self.has_body |= buf.filled().len() > before;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.starts_with(SWITCHING) && !self.taken_over {
            // hyper hands it over in one piece, and nothing with it.
            self.taken_over = true;
            self.head = bytes.len();
        }
        std::task::ready!(self.poll_held(cx));
        if self.plain && bytes.starts_with(SWITCHING) {
            // The short line goes out for the long one; the socket's buffer is empty, so it takes it whole.
            return match self.stream().poll_write(cx, OK) {
                Poll::Ready(Ok(n)) if n == OK.len() => {
                    self.plain = false;
                    self.wrote(SWITCHING.len());
                    Poll::Ready(Ok(SWITCHING.len()))
                }
                Poll::Ready(Ok(_)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                other => other,
            };
        }
        self.plain = false;
        let written = self.stream().poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = &written {
            self.wrote(*n);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_streams_are_given_an_upgrade() {
        assert!(wants_stream(b"POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\nHost: x"));
        assert!(wants_stream(b"POST /exec/abc/start HTTP/1.1"));
        assert!(!wants_stream(b"POST /containers/a/start HTTP/1.1"));
        assert!(!wants_stream(b"GET /containers/a/attach HTTP/1.1"));
        assert!(announces_body(b"POST / HTTP/1.1\r\nContent-Length: 5"));
        assert!(!announces_body(b"POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: x"));
        assert!(has_header(b"POST / HTTP/1.1\r\nupgrade: tcp", "upgrade"));
        assert!(!has_header(b"POST / HTTP/1.1\r\nX-Upgrade: tcp", "upgrade"));
    }
}
