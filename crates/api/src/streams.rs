//! A container's stdio by HTTP: `attach` and `logs`.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::hijack::{MULTIPLEXED, RAW, Takeover};
use crate::query::Query;
use crate::times;
use crate::version::Version;
use axum::Extension;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::{AttachOptions, Attached, Stdin, Stream};
use std::future::Future;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// How a stream looks to its client.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The process has a terminal: keys detach, and the end of a client's input is not the terminal's.
    pub tty: bool,
    /// Bytes as they are, instead of in frames.
    pub raw: bool,
}

impl Form {
    pub fn content_type(self) -> &'static str {
        if self.raw { RAW } else { MULTIPLEXED }
    }

    fn shape(self, stream: Stream, bytes: Bytes) -> Bytes {
        if self.raw { bytes } else { frame(stream, &bytes) }
    }
}

/// Docker's frame: which stream, three zeros, the length, the bytes.
pub fn frame(stream: Stream, bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(8 + bytes.len());
    framed.put_u8(match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    framed.put_bytes(0, 3);
    framed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    framed.put_slice(bytes);
    framed.freeze()
}

pub async fn attach(State(engine): Ctx, Path(id): Path<String>, query: Query, mut request: Request) -> Answer {
    let keys = DetachKeys::parse(query.text("detachKeys"))?;
    let streams = query.flag("stream");
    let options = AttachOptions {
        stdin: query.flag("stdin") && streams,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let past = if query.flag("logs") { Some(engine.log(&id)?) } else { None };
    let attachment = engine.attach(&id, options).await?;
    let takeover = Takeover::of(&mut request)?;
    let form = Form { tty: attachment.tty, raw: attachment.tty };
    let asked = Asked { options, keys, streams, past };
    Ok(takeover.respond(form.content_type(), move |connection| serve_attached(connection, attachment, asked, form)))
}

/// `GET /containers/{id}/attach/ws`: the same in a WebSocket, whose binary messages are the bytes of the output as they
/// are.
pub async fn attach_by_websocket(
    State(engine): Ctx,
    Extension(version): Extension<Version>,
    Path(id): Path<String>,
    query: Query,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let keys = DetachKeys::parse(query.text("detachKeys"))?;
    // Before 1.42 nobody chose.
    let wants = |name: &str| version < Version::new(1, 42) || query.flag(name);
    let streams = query.flag("stream");
    let options = AttachOptions { stdin: wants("stdin") && streams, stdout: wants("stdout"), stderr: wants("stderr") };
    let past = if query.flag("logs") { Some(engine.log(&id)?) } else { None };
    let attachment = engine.attach(&id, options).await?;
    let socket = socket.map_err(Failure::invalid)?;
    let form = Form { tty: attachment.tty, raw: true };
    let asked = Asked { options, keys, streams, past };
    Ok(socket.on_upgrade(async move |socket| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::join!(serve_attached(ours, attachment, asked, form), carry_messages(socket, theirs));
    }))
}

/// Between a WebSocket and bytes. The client closes the socket to end its input.
async fn carry_messages(socket: WebSocket, bytes: DuplexStream) {
    let (mut send, mut receive) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(bytes);
    let output = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if send.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
        let _ = send.close().await;
    };
    let input = async {
        while let Some(Ok(message)) = receive.next().await {
            let written = match message {
                Message::Binary(bytes) => writer.write_all(&bytes).await,
                Message::Text(text) => writer.write_all(text.as_bytes()).await,
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    // The output's end is the end; the input's is not.
    tokio::select! {
        () = output => {}
        () = async { input.await; std::future::pending().await } => {}
    }
}

/// What an attaching client asked for.
struct Asked {
    options: AttachOptions,
    keys: DetachKeys,
    /// What comes from now on.
    streams: bool,
    /// What was before.
    past: Option<engine::attach::LogSource>,
}

async fn serve_attached(
    connection: impl AsyncRead + AsyncWrite + Send + 'static,
    attachment: engine::attach::Attachment,
    asked: Asked,
    form: Form,
) {
    let (reader, mut writer) = tokio::io::split(connection);
    let options = asked.options;
    if let Some(past) = asked.past {
        let query = runtime::logs::Query { stdout: options.stdout, stderr: options.stderr, ..Default::default() };
        if let Ok(mut lines) = runtime::logs::read(&past.log, query, std::future::ready(())) {
            while let Some(Ok(line)) = lines.recv().await {
                if writer.write_all(&form.shape(line.stream, Bytes::from(line.text))).await.is_err() {
                    return;
                }
            }
        }
    }
    // The client may go away before the container starts.
    if asked.streams
        && let Ok(stdio) = attachment.stdio.await
    {
        pump(reader, writer, stdio, form, options.stdin.then_some(asked.keys), std::future::ready(())).await;
    }
}

/// How long the end of a stream waits for the end of its process to be known.
const END: std::time::Duration = std::time::Duration::from_millis(500);

/// Carries bytes both ways until the process's output ends, the client is gone, or detaches. The client's end of input
/// is passed on, and does not end the output.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin + Send + 'static,
    mut writer: impl AsyncWrite + Unpin,
    stdio: Attached,
    form: Form,
    input: Option<DetachKeys>,
    ended: impl Future<Output = ()>,
) {
    let Attached { mut stdin, mut output } = stdio;
    let (detach, mut detached) = tokio::sync::oneshot::channel::<()>();
    let feeding = tokio::spawn(async move {
        let ended = match input {
            Some(keys) => feed(&mut reader, &mut stdin, form.tty, keys).await,
            // Nothing is to be fed, but a client that goes away is noticed.
            None => drain(&mut reader).await,
        };
        if ended == Fed::Detached || ended == Fed::Gone {
            let _ = detach.send(());
        } else {
            // Half-closed: the sender is kept, so that the output goes on.
            std::future::pending::<()>().await;
        }
    });
    let mut left = false;
    loop {
        let next = tokio::select! {
            next = output.next() => next,
            _ = &mut detached => {
                left = true;
                None
            }
        };
        let Some((stream, bytes)) = next else { break };
        if writer.write_all(&form.shape(stream, bytes)).await.is_err() {
            break;
        }
        let _ = writer.flush().await;
    }
    feeding.abort();
    // Who left goes at once.
    if !left {
        let _ = tokio::time::timeout(END, ended).await;
    }
    let _ = writer.shutdown().await;
}

#[derive(PartialEq, Eq)]
enum Fed {
    /// The client sends no more, and may still listen.
    HalfClosed,
    Detached,
    Gone,
}

async fn feed(reader: &mut (impl AsyncRead + Unpin), stdin: &mut Stdin, tty: bool, mut keys: DetachKeys) -> Fed {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => {
                // A terminal outlives its client: the next one types on.
                if !tty {
                    let _ = stdin.close().await;
                }
                return Fed::HalfClosed;
            }
            Ok(length) => {
                let (bytes, detach) =
                    if tty { keys.filter(&buffer[..length]) } else { (buffer[..length].to_vec(), false) };
                if !bytes.is_empty() && stdin.write(&bytes).await.is_err() {
                    return Fed::HalfClosed;
                }
                if detach {
                    return Fed::Detached;
                }
            }
            Err(_) => {
                let _ = stdin.close().await;
                return Fed::Gone;
            }
        }
    }
}

async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> Fed {
    let mut buffer = [0; 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Fed::HalfClosed,
            Ok(_) => {}
            Err(_) => return Fed::Gone,
        }
    }
}

/// The keys that detach a terminal: `ctrl-p,ctrl-q` unless the client says otherwise.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been typed.
    typed: usize,
}

impl DetachKeys {
    /// # Errors
    /// A name is no key.
    pub fn parse(text: Option<&str>) -> Answer<Self> {
        let invalid = |k: &str| Failure::invalid(format!("Invalid detach keys ({k}) provided"));
        let keys = text.unwrap_or("ctrl-p,ctrl-q").split(',').map(|key| match key.strip_prefix("ctrl-") {
            Some("@") => Ok(0),
            Some("[") => Ok(27),
            Some("\\") => Ok(28),
            Some("]") => Ok(29),
            Some("^") => Ok(30),
            Some("_") => Ok(31),
            Some(letter) => match letter.as_bytes() {
                [c @ b'a'..=b'z'] => Ok(c - b'a' + 1),
                _ => Err(invalid(key)),
            },
            None => match key.as_bytes() {
                [c] => Ok(*c),
                _ => Err(invalid(key)),
            },
        });
        Ok(Self { keys: keys.collect::<Answer<_>>()?, typed: 0 })
    }

    /// What is passed on of `bytes`, and whether the keys are complete.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if self.keys.first() == Some(byte) {
                self.typed = 1;
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

pub async fn logs(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    let follow = query.flag("follow");
    let source = engine.log(&id)?;
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    let time = |name: &str| query.text(name).filter(|t| *t != "0").map(times::parse).transpose();
    let wanted = runtime::logs::Query {
        stdout,
        stderr,
        since: time("since")?,
        until: time("until")?,
        tail: query.text("tail").filter(|t| *t != "all").and_then(|t| t.parse().ok()),
        follow: follow && source.is_running,
    };
    let (timestamps, tty) = (query.flag("timestamps"), source.tty);
    let log = source.log.clone();
    let lines = runtime::logs::read(&log, wanted, source.ended()).map_err(|e| {
        Failure::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the log: {e}"))
    })?;
    let stream = futures_util::stream::unfold(lines, move |mut lines| async move {
        let line = lines.recv().await?;
        let bytes = line.map(|line| {
            let text = if timestamps { format!("{} {}", times::stamp(line.time), line.text) } else { line.text };
            if tty { Bytes::from(text) } else { frame(line.stream, text.as_bytes()) }
        });
        Some((bytes, lines))
    });
    let content_type = if tty { RAW } else { MULTIPLEXED };
    Ok(([("Content-Type", content_type)], Body::from_stream(stream)).into_response())
}

/// Both directions of a connection that was taken over.
pub async fn carry(
    connection: TokioIo<Upgraded>,
    stdio: Attached,
    form: Form,
    keys: Option<DetachKeys>,
    ended: impl Future<Output = ()>,
) {
    let (reader, writer) = tokio::io::split(connection);
    pump(reader, writer, stdio, form, keys, ended).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_eight_bytes_in_front() {
        assert_eq!(&frame(Stream::Stderr, b"ab")[..], b"\x02\0\0\0\0\0\0\x02ab");
    }

    #[test]
    fn detach_keys_are_swallowed_only_when_complete() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.filter(b"a\x10b"), (b"a\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (vec![], true));
        let mut own = DetachKeys::parse(Some("ctrl-a,x")).unwrap();
        assert_eq!(own.filter(b"\x01\x01x"), (b"\x01".to_vec(), true));
        assert!(DetachKeys::parse(Some("ctrl-!,nope")).is_err());
    }
}
