//! Netlink: messages, attributes, and a socket that sends many messages in one go.
//!
//! The kernel works a message off inside `send`: when that returns, every answer that is no dump is in the queue. So
//! a batch costs two system calls however long it is, and waiting for an answer can never hang. Only the last message
//! asks for an acknowledgement: errors are reported without being asked for.

use crate::netlink::attribute::Attributes;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use rustix::io::Errno;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and connection tracking.
    Netfilter,
    /// Sockets of others.
    SocketDiag,
}

/// `NLM_F_*` of requests.
pub mod flag {
    /// It is a request.
    pub const REQUEST: u16 = 1;
    /// Say also that it was done.
    pub const ACK: u16 = 4;
    /// All there are.
    pub const DUMP: u16 = 0x300;
    /// In place of one that is there.
    pub const REPLACE: u16 = 0x100;
    /// Refuse if one is there.
    pub const EXCL: u16 = 0x200;
    /// Make it if there is none.
    pub const CREATE: u16 = 0x400;
    /// At the end of those that are there.
    pub const APPEND: u16 = 0x800;
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// Bytes of one read: the kernel fills up to 32 KiB in a dump.
const CHUNK: usize = 32 * 1024;

/// What the kernel said no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which message of the batch, from 0; `None` where the batch as a whole failed.
    pub message: Option<usize>,
    /// Why.
    pub errno: Errno,
    /// The kernel's own words (extended acknowledgement), where it has some.
    pub words: Option<String>,
}

impl Refusal {
    /// A failure of the exchange itself: of sending, or of reading the answer.
    pub fn of(errno: Errno) -> Self {
        Self { message: None, errno, words: None }
    }
}
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{} ({words})", io::Error::from(self.errno)),
            None => write!(f, "{}", io::Error::from(self.errno)),
        }
    }
}
impl std::error::Error for Refusal {}
impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::of(errno)
    }
}

/// Messages to be sent together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Batch {
    /// Whether no message was begun.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
    /// How many messages were begun.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Begins a message; it ends when the value returned is dropped. `fixed` is the header that follows netlink's.
    pub fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> Message<'_> {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]); // sequence number and port
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        Message { bytes: &mut self.bytes, start }
    }

    fn seal(&mut self, first: u32, ack: impl Fn(usize) -> bool) {
        for (index, start) in self.starts.iter().enumerate() {
            let header = &mut self.bytes[*start..*start + HEADER];
            header[8..12].copy_from_slice(&first.wrapping_add(index as u32).to_ne_bytes());
            if ack(index) {
                header[6] |= flag::ACK as u8;
            }
        }
    }
}

/// A message, or a nested attribute, that is being written.
#[derive(Debug)]
pub struct Message<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl Message<'_> {
    /// # Panics
    /// If the value is longer than an attribute can be (65,531 bytes): callers split before.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("an attribute fits 16 bits");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }
    /// Of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }
    /// In the machine's own order of bytes.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }
    /// In the machine's own order of bytes.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }
    /// As netfilter wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }
    /// A text with its terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }
    /// An attribute made of attributes.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Message<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | 0x8000).to_ne_bytes());
        let mut nested = Message { bytes: &mut *self.bytes, start: usize::MAX };
        inside(&mut nested);
        drop(nested);
        let length = u16::try_from(self.bytes.len() - start).expect("a nested attribute fits 16 bits");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
    /// Bytes without a header of their own: a structure inside a nested attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        pad(self.bytes);
        self
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if self.start != usize::MAX {
            let length = (self.bytes.len() - self.start) as u32;
            self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Reading attributes.
pub mod attribute {
    /// The attributes in a piece of a message: each with its kind (flags taken off) and its value.
    #[derive(Clone, Debug)]
    pub struct Attributes<'a>(pub &'a [u8]);

    impl<'a> Attributes<'a> {
        /// The value of the first one of this kind.
        pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
            self.find_map(|(k, value)| (k == kind).then_some(value))
        }
    }
    impl<'a> Iterator for Attributes<'a> {
        type Item = (u16, &'a [u8]);
        fn next(&mut self) -> Option<Self::Item> {
            let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
            let value = self.0.get(4..length)?;
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        }
    }

    /// A number in this machine's order; 0 if the value is too short.
    pub fn u32(value: &[u8]) -> u32 {
        value.get(..4).map_or(0, |v| u32::from_ne_bytes(v.try_into().unwrap_or_default()))
    }
    /// A number in the network's order.
    pub fn be32(value: &[u8]) -> u32 {
        u32(value).to_be()
    }
    /// A text up to its terminating zero.
    pub fn text(value: &[u8]) -> String {
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        String::from_utf8_lossy(&value[..end]).into_owned()
    }
}

/// A message that came: its kind, and what follows netlink's header.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Of the message: `RTM_*`, or a subsystem and `NFT_MSG_*`.
    pub kind: u16,
    /// What follows netlink's header.
    pub body: &'a [u8],
}

/// A netlink socket. It stays in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// # Errors
    /// `EPROTONOSUPPORT` if the kernel has no such part.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
            Protocol::SocketDiag => libc::NETLINK_SOCK_DIAG,
        };
        // SAFETY: socket takes no pointers.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was opened just now and belongs to nobody else.
        let socket = Self::from_fd(unsafe { OwnedFd::from_raw_fd(raw) })?;
        // SAFETY: an all-zero sockaddr_nl is valid: any port, no groups.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        let length = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: the pointer and the length describe `address`, which lives through the call.
        check(unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    /// Takes over a socket that another process opened: sequence numbers begin anew at a random place, and answers
    /// that its last owner has not read are thrown away.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let mut socket = Self { fd, sequence: u32::from_ne_bytes(random) };
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            socket.set(libc::SOL_NETLINK, option, 1)?;
        }
        socket.discard()?;
        Ok(socket)
    }

    /// Room for batches of this many bytes (before the kernel doubles it), or for as many as the host allows, where we
    /// may not set that (in a user namespace).
    pub fn make_room(&self, bytes: i32) -> io::Result<()> {
        for (force, ask) in [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)] {
            self.set(libc::SOL_SOCKET, force, bytes).or_else(|_| self.set(libc::SOL_SOCKET, ask, bytes))?;
        }
        Ok(())
    }

    /// The number by which the kernel knows it in its namespace: an owned table says it.
    pub fn port(&self) -> io::Result<u32> {
        // SAFETY: an all-zero sockaddr_nl is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: the pointers describe `address` and its length, which live through the call.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
        Ok(address.nl_pid)
    }

    /// Hears what is said to a group, from now on. A socket that does so serves nothing else.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as i32)
    }

    /// What was said to the groups that were joined, as far as it is here; never waits.
    ///
    /// # Errors
    /// `ENOBUFS` if some was lost.
    pub fn hear(&mut self, mut each: impl FnMut(Answer<'_>)) -> Result<(), Errno> {
        let mut buffer = vec![0; CHUNK];
        while let Some(length) = receive(self.fd.as_fd(), &mut buffer, libc::MSG_DONTWAIT)? {
            Messages(&buffer[..length]).for_each(|m| each(Answer { kind: m.kind, body: m.body }));
        }
        Ok(())
    }

    /// A second descriptor of the same socket, for another process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Sends a batch whose messages stand by themselves: what follows a refused one is still done.
    ///
    /// # Errors
    /// The first refusal.
    pub fn send(&mut self, batch: Batch) -> Result<(), Refusal> {
        self.exchange(batch, |_| {})
    }

    /// [`Self::send`], where messages also give answers.
    pub fn exchange(&mut self, mut batch: Batch, mut each: impl FnMut(Answer<'_>)) -> Result<(), Refusal> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.len() - 1;
        let first = self.next(batch.len());
        batch.seal(first, |index| index == last);
        self.transmit(&batch.bytes)?;
        self.collect(first, batch.len(), Some(last), &mut each)
    }

    /// Sends a batch that is done as a whole or not at all, as netfilter does them: its first and its last message
    /// only enclose it.
    ///
    /// # Errors
    /// The first refusal; then nothing was done.
    pub fn transact(&mut self, mut batch: Batch) -> Result<(), Refusal> {
        if batch.len() < 3 {
            return Ok(());
        }
        let last = batch.len() - 2;
        let first = self.next(batch.len());
        batch.seal(first, |index| index == last);
        self.transmit(&batch.bytes)?;
        self.collect(first, batch.len(), Some(last), &mut |_| {})
    }

    /// Asks for a list. It is asked for again when it changed while it was being read.
    ///
    /// # Errors
    /// As the kernel answers; `EINTR` if it kept changing.
    pub fn dump<T>(
        &mut self,
        request: &Batch,
        mut each: impl FnMut(Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..16 {
            let mut batch = request.clone();
            let first = self.next(1);
            batch.seal(first, |_| false);
            batch.bytes[6..8].copy_from_slice(&(flag::REQUEST | flag::DUMP).to_ne_bytes());
            self.transmit(&batch.bytes)?;
            let mut found = Vec::new();
            if self.read_list(first, &mut |answer| found.extend(each(answer)))? {
                return Ok(found);
            }
        }
        Err(Refusal::of(Errno::INTR))
    }

    /// Reads a list to its end. False: it changed meanwhile.
    fn read_list(&mut self, sequence: u32, each: &mut impl FnMut(Answer<'_>)) -> Result<bool, Refusal> {
        const INTERRUPTED: u16 = 0x10;
        let mut buffer = vec![0; CHUNK];
        let mut whole = true;
        loop {
            let Some(length) = receive(self.fd.as_fd(), &mut buffer, 0)? else { return Err(Errno::AGAIN.into()) };
            for message in Messages(&buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    DONE => {
                        let errno = message.body.get(..4).map_or(0, |v| attribute::u32(v) as i32);
                        return if errno < 0 { Err(Errno::from_raw_os_error(-errno).into()) } else { Ok(whole) };
                    }
                    ERROR => return message.refusal(None).map_or(Ok(whole), Err),
                    kind => each(Answer { kind, body: message.body }),
                }
            }
        }
    }

    /// Reads what is in the queue, up to the acknowledgement of message `last`.
    fn collect(
        &mut self,
        first: u32,
        count: usize,
        last: Option<usize>,
        each: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), Refusal> {
        let mut buffer = vec![0; CHUNK];
        let mut outcome: Result<(), Refusal> = Ok(());
        let mut acknowledged = false;
        while !acknowledged {
            let Some(length) = receive(self.fd.as_fd(), &mut buffer, libc::MSG_DONTWAIT)? else { break };
            for message in Messages(&buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if index >= count {
                    continue;
                }
                if message.kind == ERROR {
                    acknowledged |= Some(index) == last;
                    if let (Some(refusal), Ok(())) = (message.refusal(Some(index)), &outcome) {
                        outcome = Err(refusal);
                    }
                } else if message.kind != DONE {
                    each(Answer { kind: message.kind, body: message.body });
                }
            }
        }
        match outcome {
            Ok(()) if !acknowledged => Err(Errno::NOMSG.into()),
            outcome => outcome,
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match receive(self.fd.as_fd(), &mut buffer, libc::MSG_DONTWAIT) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(Errno::NOBUFS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn next(&mut self, count: usize) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(count as u32);
        first
    }

    fn transmit(&self, bytes: &[u8]) -> Result<(), Refusal> {
        loop {
            // SAFETY: the pointer and the length describe `bytes`, which lives through the call.
            let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into());
            }
        }
    }

    fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        let length = size_of::<i32>() as u32;
        // SAFETY: the pointer and the length describe `value`, which lives through the call.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const value).cast(), length) })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One datagram; `None` if there is none now.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> Result<Option<usize>, Errno> {
    loop {
        let (pointer, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the pointer and the length describe `buffer`, which is exclusively ours through the call.
        let got = unsafe { libc::recv(socket.as_raw_fd(), pointer, length, flags) };
        if let Ok(got) = usize::try_from(got) {
            return Ok(Some(got));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Received<'_> {
    /// The error that an acknowledgement carries, if it is one.
    fn refusal(&self, message: Option<usize>) -> Option<Refusal> {
        const CAPPED: u16 = 0x100;
        const HAS_ATTRIBUTES: u16 = 0x200;
        const WORDS: u16 = 1;
        let errno = attribute::u32(self.body) as i32;
        if errno == 0 {
            return None;
        }
        let words = (self.flags & HAS_ATTRIBUTES != 0).then(|| {
            let echoed = attribute::u32(self.body.get(4..).unwrap_or_default()) as usize;
            let skip = if self.flags & CAPPED != 0 { 4 + HEADER } else { 4 + echoed.next_multiple_of(4) };
            Attributes(self.body.get(skip..).unwrap_or_default()).find(WORDS).map(attribute::text)
        });
        Some(Refusal { message, errno: Errno::from_raw_os_error(errno.saturating_neg()), words: words.flatten() })
    }
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;
    fn next(&mut self) -> Option<Received<'a>> {
        let header = self.0.get(..HEADER)?;
        let length = attribute::u32(header) as usize;
        let body = self.0.get(HEADER..length)?;
        let received = Received {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: attribute::u32(&header[8..]),
            body,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut batch = Batch::default();
        batch.message(16, flag::CREATE, &[7; 16]).text(3, "eth0").nest(18, |m| {
            m.text(1, "veth").nest(2, |m| {
                m.u16(9, 5);
            });
        });
        batch.message(17, 0, &[]).u8(1, 2);
        batch.seal(100, |index| index == 1);
        let read: Vec<_> = Messages(&batch.bytes).map(|m| (m.kind, m.flags, m.sequence)).collect();
        assert_eq!(read, [(16, flag::CREATE | flag::REQUEST, 100), (17, flag::REQUEST | flag::ACK, 101)]);
        let first = Messages(&batch.bytes).next().unwrap();
        let attributes = Attributes(&first.body[16..]);
        assert_eq!(attributes.clone().find(3).map(attribute::text).as_deref(), Some("eth0"));
        let info = Attributes(attributes.find(18).unwrap());
        assert_eq!(Attributes(info.find(2).unwrap()).find(9), Some(&5_u16.to_ne_bytes()[..]));
    }

    #[test]
    fn a_refusal_names_the_message_and_speaks_the_kernels_words() {
        // asking needs no right: the second of three messages changes a link that nobody has
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::default();
        for name in ["lo", "no-such-link", "lo"] {
            batch.message(18, 0, &[0; 16]).text(3, name);
        }
        let mut links = 0;
        let refusal = socket.exchange(batch, |_| links += 1).unwrap_err();
        assert_eq!((refusal.message, refusal.errno, links), (Some(1), Errno::NODEV, 2));
    }
}
