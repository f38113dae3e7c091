//! A client's connection: what is told to it, as fast as it reads.

use super::*;

pub struct Client {
    pub(super) socket: OwnedFd,
    pub(super) decoder: Decoder,
    pub(super) received: VecDeque<OwnedFd>,
    /// What is to be sent, each with the descriptors that go with its first byte.
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// How much of the first is sent.
    sent: usize,
    /// Bytes that are not sent yet.
    pub(super) behind: usize,
    /// What it sees the output of: then it says nothing but input.
    pub(super) attached: Option<Attached>,
    /// It is told what happens.
    pub(super) subscribed: bool,
    pub(super) gone: bool,
    /// Close once everything is sent.
    closing: bool,
}

/// To which process a client is attached, and to which of its streams.
#[derive(Clone, Copy)]
pub struct Attached {
    pub(super) process: Process,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Client {
        Client {
            socket,
            decoder: Decoder::default(),
            received: VecDeque::new(),
            outbox: VecDeque::new(),
            sent: 0,
            behind: 0,
            attached: None,
            subscribed: false,
            gone: false,
            closing: false,
        }
    }

    /// Nothing is left to be sent.
    pub(super) fn is_told(&self) -> bool {
        self.outbox.is_empty()
    }

    pub(super) fn send(&mut self, message: &Message, descriptors: Vec<OwnedFd>) {
        let mut bytes = Vec::new();
        if frame::encode_value(&mut bytes, message, descriptors.len()).is_ok() {
            self.behind += bytes.len();
            self.outbox.push_back((bytes, descriptors));
        }
    }

    pub(super) fn send_bytes(&mut self, kind: Kind, payload: &[u8]) {
        let before = self.behind;
        match self.outbox.back_mut() {
            // Not the one that is being sent: its descriptors are out already.
            Some((bytes, descriptors)) if descriptors.is_empty() && bytes.len() < frame::STDIO_MAX => {
                self.behind += frame_into(bytes, kind, payload);
            }
            _ => {
                let mut bytes = Vec::new();
                self.behind += frame_into(&mut bytes, kind, payload);
                self.outbox.push_back((bytes, Vec::new()));
            }
        }
        // At once, if nothing waits before it.
        if before == 0 {
            self.flush();
        }
    }

    /// No more output will come.
    pub(super) fn end(&mut self) {
        if !self.closing {
            self.send_bytes(Kind::End, b"");
            self.closing = true;
        }
    }

    pub(super) fn flush(&mut self) {
        while let Some((bytes, descriptors)) = self.outbox.front() {
            let passed: Vec<BorrowedFd<'_>> =
                if self.sent == 0 { descriptors.iter().map(AsFd::as_fd).collect() } else { Vec::new() };
            match transport::send(&self.socket, &bytes[self.sent..], &passed) {
                Ok(n) => {
                    self.sent += n;
                    self.behind -= n;
                    if self.sent == bytes.len() {
                        self.outbox.pop_front();
                        self.sent = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    self.outbox.clear();
                    self.behind = 0;
                    return;
                }
            }
        }
        if self.closing {
            self.gone = true;
        }
    }
}

fn frame_into(bytes: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> usize {
    let before = bytes.len();
    frame::encode_bytes(bytes, kind, payload);
    bytes.len() - before
}
