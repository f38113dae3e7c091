//! Questions and answers as they go over the wire, for tests that ask as libraries do, and as attackers do.

use crate::Lab;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

impl Lab {
    /// A socket in a container that asks its resolver.
    ///
    /// # Panics
    /// The container does not run.
    pub fn resolver(&self, container: &str) -> UdpSocket {
        let socket = self.in_container(container, || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect("127.0.0.11:53").expect("an address");
            socket
        });
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        socket
    }

    /// The addresses of both families that a name has for a container, asked as glibc and musl do: both questions at
    /// once from one socket. None where one of the answers is an error.
    ///
    /// # Panics
    /// An answer does not come within five seconds.
    pub fn both_families(&self, container: &str, name: &str) -> Option<Vec<IpAddr>> {
        both_families(&self.resolver(container), name)
    }
}

/// The same by a socket that is there.
///
/// # Panics
/// An answer does not come within five seconds.
pub fn both_families(resolver: &UdpSocket, name: &str) -> Option<Vec<IpAddr>> {
    for (id, kind) in [(1, A), (2, AAAA)] {
        resolver.send(&question(id, name, kind)).expect("it is sent");
    }
    let mut found = Some(Vec::new());
    for _ in 0..2 {
        let mut answer = [0; 1500];
        let length = resolver.recv(&mut answer).unwrap_or_else(|e| panic!("{name} is not answered: {e}"));
        match (rcode(&answer), &mut found) {
            (NOERROR, Some(list)) => list.extend(addresses(&answer[..length])),
            _ => found = None,
        }
    }
    found
}

/// The addresses in an answer, in its order.
///
/// # Panics
/// It is no answer.
pub fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let mut at = after_name(answer, 12) + 4;
    let mut found = Vec::new();
    for _ in 0..answers(answer) {
        at = after_name(answer, at);
        let length = usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
        let data = &answer[at + 10..at + 10 + length];
        let ip4: Option<IpAddr> = <[u8; 4]>::try_from(data).ok().map(|o| Ipv4Addr::from(o).into());
        found.extend(ip4.or(<[u8; 16]>::try_from(data).ok().map(|o| Ipv6Addr::from(o).into())));
        at += 10 + length;
    }
    found
}

/// Where a name ends that begins here: with the root, or with a pointer to another's end (RFC 1035, 4.1.4).
fn after_name(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => return at + 1,
            length if length >= 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}

/// Types of records (RFC 1035, 3.2.2; RFC 3596; RFC 9460).
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;
pub const ANY: u16 = 255;

/// What an answer says of itself (RFC 1035, 4.1.1).
pub const NOERROR: u8 = 0;
pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const NOTIMP: u8 = 4;
pub const REFUSED: u8 = 5;

/// A question of class IN that wishes recursion, as it goes over the wire.
///
/// # Panics
/// A label is longer than 255 bytes.
pub fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An OPT record that offers `size` (RFC 6891).
pub fn with_edns(mut message: Vec<u8>, version: u8, size: u16) -> Vec<u8> {
    message[11] = 1;
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend([0, version, 0, 0, 0, 0]);
    message
}

/// Asks, and waits for the answer.
///
/// # Panics
/// None comes within five seconds.
pub fn ask(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    socket.send(message).expect("it is sent");
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("{message:02x?} is not answered: {e}"));
    answer.truncate(length);
    assert_eq!(answer[..2], message[..2], "the answer is to another question");
    answer
}

/// One of [`NOERROR`] and its kind.
pub fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 15
}

/// How many records it has in its answer section.
pub fn answers(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[6], answer[7]])
}

/// The TTL of the first record, in seconds: the question's name is said once, and pointed at (RFC 1035, 4.1.4).
///
/// # Panics
/// The record has a name of its own.
pub fn ttl(message: &[u8], answer: &[u8]) -> u32 {
    let record = &answer[message.len()..];
    assert_eq!(record[0] & 0xc0, 0xc0, "a pointer to the question's name");
    u32::from_be_bytes(record[6..10].try_into().expect("four bytes"))
}

/// An answer without records, but for what makes it as long as it is told to be: TXT of 250 bytes.
pub fn answer_of(question: &[u8], texts: u16) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[6..8].copy_from_slice(&texts.to_be_bytes());
    for _ in 0..texts {
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 251, 250]);
        answer.extend([b'x'; 250]);
    }
    answer
}

/// Answers one question by UDP, without records; who asked, and what.
///
/// # Panics
/// None comes within five seconds.
pub fn answer_one(server: &UdpSocket) -> (String, Vec<u8>) {
    server.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut heard = [0; 512];
    let (length, client) = server.recv_from(&mut heard).expect("a question comes here");
    server.send_to(&answer_of(&heard[..length], 0), client).expect("it is sent");
    (client.ip().to_string(), heard[..length].to_vec())
}
