//! Talking to a shim: one connection for calls and events, one more for each attachment.

use bytes::Bytes;
use shim_protocol::frame::{self, Decoder, Frame, Kind, STDIO_MAX};
use shim_protocol::{Call, Event, ExitRecord, Message, Process, Refusal, Reply, Request, transport};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was killed, or could not be reached.
    #[error("the container's shim is gone")]
    Gone(#[source] Option<io::Error>),
    /// It is of a build that this one does not understand.
    #[error("the container's shim speaks version {0} of the protocol, which this daemon does not know")]
    Version(u32),
    /// Its answer was no answer.
    #[error("the container's shim sent what makes no sense")]
    Garbled(#[source] frame::Garbled),
    /// It was asked for what cannot be.
    #[error("{0}")]
    Refused(RefusalText),
}

impl CallError {
    /// The process has ended: its shim says so, though its end may not have been heard of here.
    pub fn is_over(&self) -> bool {
        matches!(self, CallError::Refused(RefusalText(Refusal::NotRunning)))
    }
}

/// A shim's refusal, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusalText(pub Refusal);

impl std::fmt::Display for RefusalText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Refusal::Launch(failure) => write!(f, "{failure}"),
            Refusal::NotRunning => f.write_str("the process is not running"),
            Refusal::NoSuchExec => f.write_str("there is no such command"),
            Refusal::AlreadyStarted => f.write_str("it has been started already"),
            Refusal::Malformed => f.write_str("the shim did not understand"),
            Refusal::Kernel { doing, errno } => {
                write!(f, "cannot {doing}: {}", shim_protocol::launch::errno_words(*errno))
            }
        }
    }
}

/// What a shim has told of its processes' ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub exits: BTreeMap<Process, ExitRecord>,
    pub lines_lost: u64,
    /// The connection has ended: no more will be told.
    pub gone: bool,
}

type Answer = Result<(Reply, Vec<OwnedFd>), CallError>;

struct Order {
    request: Request,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// The connection for calls. Clones share it.
#[derive(Clone)]
pub(crate) struct Control {
    orders: mpsc::Sender<Order>,
    pub told: watch::Receiver<Told>,
}

/// Bytes and descriptors that have come and are no frame yet.
#[derive(Default)]
struct Inbox {
    decoder: Decoder,
    descriptors: VecDeque<OwnedFd>,
}

/// Connect to a socket below a directory, however long the path is.
async fn connect(home: &OwnedFd) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/{}", home.as_raw_fd(), shim_protocol::file::SOCKET);
    UnixStream::connect(Path::new(&path)).await
}

async fn send_all(stream: &UnixStream, mut bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut passed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    while !bytes.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || transport::send(stream, bytes, &passed).map_err(io::Error::from))
            .await?;
        bytes = &bytes[sent..];
        passed.clear();
    }
    Ok(())
}

impl Inbox {
    async fn next(&mut self, stream: &UnixStream) -> Result<Option<Frame>, CallError> {
        let mut buffer = [0; 32 * 1024];
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(CallError::Garbled)? {
                return Ok(Some(frame));
            }
            let descriptors = &mut self.descriptors;
            let receive = || match transport::receive_now(stream, &mut buffer, descriptors).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
                other => other,
            };
            let got =
                stream.async_io(Interest::READABLE, receive).await.map_err(|error| CallError::Gone(Some(error)))?;
            if got == 0 {
                return Ok(None);
            }
            self.decoder.push(&buffer[..got]);
        }
    }

    fn take(&mut self, count: usize) -> Vec<OwnedFd> {
        let count = count.min(self.descriptors.len());
        self.descriptors.drain(..count).collect()
    }
}

async fn greeted(stream: &UnixStream, inbox: &mut Inbox) -> Result<(), CallError> {
    let frame = inbox.next(stream).await?.ok_or(CallError::Gone(None))?;
    match frame.value::<Message>().map_err(CallError::Garbled)? {
        Message::Hello { version: shim_protocol::VERSION } => Ok(()),
        Message::Hello { version } => Err(CallError::Version(version)),
        _ => Err(CallError::Garbled(frame::Garbled)),
    }
}

impl Control {
    /// Connect, subscribe, and serve calls from then on.
    pub async fn open(home: &OwnedFd) -> Result<Control, CallError> {
        let stream = connect(home).await.map_err(|error| CallError::Gone(Some(error)))?;
        let mut inbox = Inbox::default();
        greeted(&stream, &mut inbox).await?;
        let (orders, inlet) = mpsc::channel(64);
        let (telling, told) = watch::channel(Told::default());
        tokio::spawn(serve(stream, inbox, inlet, telling));
        let control = Control { orders, told };
        control.call(Request::Subscribe, Vec::new()).await?;
        Ok(control)
    }

    /// Ask, and wait for the answer.
    pub async fn call(&self, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let (answer, outlet) = oneshot::channel();
        self.orders.send(Order { request, descriptors, answer }).await.map_err(|_| CallError::Gone(None))?;
        outlet.await.map_err(|_| CallError::Gone(None))?
    }
}

/// Owns the connection: sends what is ordered, hands out what is answered.
async fn serve(stream: UnixStream, mut inbox: Inbox, mut inlet: mpsc::Receiver<Order>, telling: watch::Sender<Told>) {
    let mut waiting: BTreeMap<u64, oneshot::Sender<Answer>> = BTreeMap::new();
    let mut number = 0;
    let why = loop {
        tokio::select! {
            order = inlet.recv() => {
                // Everybody who could ask is gone: the shim does not mind.
                let Some(order) = order else { break None };
                number += 1;
                let mut bytes = Vec::new();
                let call = Call { number, request: order.request };
                if let Err(garbled) = frame::encode_value(&mut bytes, &call, order.descriptors.len()) {
                    let _ = order.answer.send(Err(CallError::Garbled(garbled)));
                    continue;
                }
                waiting.insert(number, order.answer);
                if let Err(error) = send_all(&stream, &bytes, &order.descriptors).await {
                    break Some(error);
                }
            }
            frame = inbox.next(&stream) => {
                let frame = match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break None,
                    Err(CallError::Gone(why)) => break why,
                    Err(_) => break None,
                };
                let descriptors = inbox.take(frame.descriptors);
                match frame.value::<Message>() {
                    Ok(Message::Reply { number, result }) => {
                        // What was lost before this connection there was is told in no event.
                        if let Ok(Reply::Status(status)) = &result {
                            telling.send_modify(|told| told.lines_lost = told.lines_lost.max(status.lines_lost));
                        }
                        if let Some(answer) = waiting.remove(&number) {
                            let result = result.map(|reply| (reply, descriptors));
                            let _ = answer.send(result.map_err(|refusal| CallError::Refused(RefusalText(refusal))));
                        }
                    }
                    Ok(Message::Event(Event::Exited { process, exit })) => {
                        telling.send_modify(|told| { told.exits.insert(process, exit); });
                    }
                    Ok(Message::Event(Event::LinesLost(lines))) => telling.send_modify(|told| told.lines_lost = lines),
                    Ok(Message::Hello { .. }) | Err(_) => break None,
                }
            }
        }
    };
    if let Some(why) = why {
        tracing::debug!(error = %why, "lost the connection to a shim");
    }
    telling.send_modify(|told| told.gone = true);
}

/// Which of a process's streams to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// What is written to its standard input.
    pub stdin: bool,
    /// Its standard output; of a terminal, all that it shows.
    pub stdout: bool,
    /// Its standard error; of a terminal, nothing.
    pub stderr: bool,
}

impl AttachOptions {
    /// All three.
    pub const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };
    /// What it says, and nothing to it.
    pub const OUTPUT: AttachOptions = AttachOptions { stdin: false, stdout: true, stderr: true };
}

/// Which stream some output came by. A terminal's is all `Stdout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A process's stdio. Dropped as a whole, it is detached, and the process does not notice.
pub struct Attached {
    /// To be written.
    pub stdin: Stdin,
    /// To be read.
    pub output: Output,
}

/// The way in. Waits while the process does not read.
pub struct Stdin {
    stream: Arc<UnixStream>,
    wanted: bool,
}

/// The way out. What is not taken makes the process wait, once a few hundred kilobytes have gathered.
pub struct Output {
    stream: Arc<UnixStream>,
    inbox: Inbox,
    ended: bool,
}

pub(crate) async fn attach(home: &OwnedFd, process: Process, options: AttachOptions) -> Result<Attached, CallError> {
    let stream = connect(home).await.map_err(|error| CallError::Gone(Some(error)))?;
    let mut inbox = Inbox::default();
    greeted(&stream, &mut inbox).await?;
    let AttachOptions { stdin, stdout, stderr } = options;
    let call = Call { number: 0, request: Request::Attach { process, stdin, stdout, stderr } };
    let mut bytes = Vec::new();
    frame::encode_value(&mut bytes, &call, 0).map_err(CallError::Garbled)?;
    send_all(&stream, &bytes, &[]).await.map_err(|error| CallError::Gone(Some(error)))?;
    let frame = inbox.next(&stream).await?.ok_or(CallError::Gone(None))?;
    match frame.value::<Message>().map_err(CallError::Garbled)? {
        Message::Reply { result: Ok(_), .. } => {}
        Message::Reply { result: Err(refusal), .. } => return Err(CallError::Refused(RefusalText(refusal))),
        _ => return Err(CallError::Garbled(frame::Garbled)),
    }
    let stream = Arc::new(stream);
    Ok(Attached {
        stdin: Stdin { stream: stream.clone(), wanted: stdin },
        output: Output { stream, inbox, ended: false },
    })
}

impl Stdin {
    /// Send bytes to the process.
    ///
    /// # Errors
    /// The shim is gone, or the process's output has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.wanted {
            for part in bytes.chunks(STDIO_MAX) {
                let mut framed = Vec::with_capacity(part.len() + 8);
                frame::encode_bytes(&mut framed, Kind::Stdin, part);
                send_all(&self.stream, &framed, &[]).await?;
            }
        }
        Ok(())
    }

    /// There will be no more. Whether the process's stdin is closed then is as `stdin_once` says.
    ///
    /// # Errors
    /// The shim is gone, or the process's output has ended.
    pub async fn close(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.wanted) {
            let mut framed = Vec::new();
            frame::encode_bytes(&mut framed, Kind::StdinEnd, b"");
            send_all(&self.stream, &framed, &[]).await?;
        }
        Ok(())
    }
}

impl Output {
    /// The next piece; `None` when the process and all that wrote for it are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Stream, Bytes)> {
        while !self.ended {
            match self.inbox.next(&self.stream).await {
                Ok(Some(frame)) => match frame.kind {
                    Kind::Stdout => return Some((Stream::Stdout, frame.payload.into())),
                    Kind::Stderr => return Some((Stream::Stderr, frame.payload.into())),
                    Kind::End => self.ended = true,
                    _ => {}
                },
                Ok(None) | Err(_) => self.ended = true,
            }
        }
        None
    }
}
