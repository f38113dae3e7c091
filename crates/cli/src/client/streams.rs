//! A container's stdio on ours: frames taken apart, input passed on and half-closed, signals and sizes told to the
//! daemon.

use crate::client::connection::{Chunks, Client, Query, Stream, segment};
use crate::client::terminal::{self, DetachKeys, Raw};
use anyhow::Context;
use bytes::BytesMut;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Stderr, Stdout};
use tokio::signal::unix::{SignalKind, signal};

/// Takes frames apart, wherever the chunks that they come in are cut.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
    /// The next whole frame: which stream, 1 or 2, and its bytes.
    pub fn next(&mut self) -> Option<(u8, BytesMut)> {
        let header: [u8; 8] = self.buffer.get(..8)?.try_into().ok()?;
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if self.buffer.len() < 8 + length {
            return None;
        }
        let _ = self.buffer.split_to(8);
        Some((header[0], self.buffer.split_to(length)))
    }
}

/// Where output goes.
pub struct Output {
    out: Stdout,
    err: Stderr,
    frames: Option<Frames>,
}

impl Output {
    pub fn new(framed: bool) -> Self {
        Self { out: tokio::io::stdout(), err: tokio::io::stderr(), frames: framed.then(Frames::default) }
    }

    /// Writes what came to where it belongs.
    ///
    /// # Errors
    /// Our own output is closed.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(frames) = &mut self.frames else {
            self.out.write_all(bytes).await?;
            return self.out.flush().await;
        };
        frames.push(bytes);
        while let Some((stream, bytes)) = frames.next() {
            if stream == 2 {
                self.err.write_all(&bytes).await?;
                self.err.flush().await?;
            } else {
                self.out.write_all(&bytes).await?;
                self.out.flush().await?;
            }
        }
        Ok(())
    }
}

/// Copies an answer to our output: logs.
///
/// # Errors
/// The connection broke, or our output did.
pub async fn copy(mut chunks: Chunks, framed: bool) -> anyhow::Result<()> {
    let mut output = Output::new(framed);
    while let Some(bytes) = chunks.next().await? {
        output.write(&bytes).await?;
    }
    Ok(())
}

/// How a session on a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process's output ended.
    Closed,
    /// The person detached.
    Detached,
}

/// Our stdio on a container's: `input` passes ours on; keys that detach count with a terminal.
///
/// # Errors
/// Our output is closed.
pub async fn run(stream: Stream, input: bool, tty: bool, keys: DetachKeys) -> anyhow::Result<End> {
    let raw = if tty && input && terminal::stdin_is_terminal() { Some(Raw::new()?) } else { None };
    let (mut reader, mut writer) = tokio::io::split(stream.io);
    let (detach, mut detached) = tokio::sync::oneshot::channel();
    let mut detach = Some(detach);
    let feeder = tokio::spawn(async move {
        if !input {
            // Half of the connection stays open: closing it would tell the daemon that we are gone.
            std::future::pending::<()>().await;
        }
        let mut keys = tty.then_some(keys);
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = stdin.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                let _ = writer.shutdown().await;
                break;
            }
            let bytes = &buffer[..length];
            let leaves = keys.as_mut().is_some_and(|keys| keys.complete(bytes));
            if leaves && let Some(detach) = detach.take() {
                // Said before it is sent: the daemon hangs up at once.
                let _ = detach.send(());
            }
            if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            if leaves {
                // The daemon hangs up by itself. Were we to, it would take that for the end of input.
                break;
            }
        }
        // Nothing more to send; the output goes on.
        std::future::pending::<()>().await;
    });
    let mut output = Output::new(stream.framed);
    let mut buffer = vec![0; 64 * 1024];
    let mut leaving = None;
    let end = loop {
        let gone = async {
            match leaving {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let length = tokio::select! {
            length = reader.read(&mut buffer) => length.unwrap_or(0),
            Ok(()) = &mut detached, if leaving.is_none() => {
                leaving = Some(tokio::time::Instant::now() + std::time::Duration::from_millis(500));
                continue;
            }
            () = gone => 0,
        };
        if length == 0 {
            let left = leaving.is_some() || detached.try_recv().is_ok();
            break if left { End::Detached } else { End::Closed };
        }
        output.write(&buffer[..length]).await?;
    };
    feeder.abort();
    drop(raw);
    Ok(end)
}

/// What a terminal's size is told to.
#[derive(Clone, Copy, Debug)]
pub enum Resized {
    Container,
    Exec,
}

/// Tells the terminal's size now and whenever it changes, until it is aborted.
pub fn follow_size(client: Rc<Client>, what: Resized, id: String) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        let kind = match what {
            Resized::Container => "containers",
            Resized::Exec => "exec",
        };
        let mut tries = 0;
        loop {
            if let Some((rows, columns)) = terminal::size() {
                let query = Query::new().with("h", rows.to_string()).with("w", columns.to_string());
                let told = client.post(&format!("/{kind}/{}/resize{query}", segment(&id))).await;
                // A command that is just being started has no terminal yet.
                if told.is_err() && tries < 10 {
                    tries += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(10 * tries)).await;
                    continue;
                }
            }
            tries = 0;
            if changes.recv().await.is_none() {
                return;
            }
        }
    })
}

/// Passes our signals on to a container, until it is aborted.
///
/// # Errors
/// A signal cannot be caught.
pub fn proxy_signals(client: Rc<Client>, id: String) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let proxied = [
        ("HUP", SignalKind::hangup()),
        ("INT", SignalKind::interrupt()),
        ("QUIT", SignalKind::quit()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
        ("ALRM", SignalKind::alarm()),
        ("TERM", SignalKind::terminate()),
    ];
    let (sender, mut signals) = tokio::sync::mpsc::unbounded_channel();
    for (name, kind) in proxied {
        let mut caught = signal(kind).with_context(|| format!("cannot catch SIG{name}"))?;
        let sender = sender.clone();
        tokio::task::spawn_local(async move { while caught.recv().await.is_some() && sender.send(name).is_ok() {} });
    }
    Ok(tokio::task::spawn_local(async move {
        while let Some(name) = signals.recv().await {
            let query = Query::new().with("signal", name);
            let _ = client.post(&format!("/containers/{}/kill{query}", segment(&id))).await;
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_be_cut_anywhere() {
        let whole = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x01x";
        for cut in 0..whole.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in [&whole[..cut], &whole[cut..]] {
                frames.push(part);
                while let Some((stream, bytes)) = frames.next() {
                    seen.push((stream, bytes.to_vec()));
                }
            }
            assert_eq!(seen, [(1, b"abc".to_vec()), (2, vec![]), (2, b"x".to_vec())], "cut at {cut}");
        }
    }
}
