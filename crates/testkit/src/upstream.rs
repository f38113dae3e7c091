//! A DNS server for a lab's host: it knows two names, and says NXDOMAIN to all others.

use std::net::{Ipv4Addr, UdpSocket};

/// The name it knows, and its address.
pub const KNOWN: (&str, Ipv4Addr) = ("upstream.example", Ipv4Addr::new(203, 0, 113, 80));

/// The name that the recorded answers ask for; it has the same address.
const RECORDED: &str = "deb.debian.org";

/// Answers queries until the socket's namespace is gone or `stop` says so.
pub fn serve(socket: &UdpSocket, stop: impl Fn() -> bool) {
    let mut buffer = [0; 1500];
    let _ = socket.set_read_timeout(Some(std::time::Duration::from_millis(100)));
    while !stop() {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let is_a = query.get(at..at + 2)? == [0, 1];
    let question = query.get(12..at + 4)?;
    let known = name == KNOWN.0 || name == RECORDED;
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(known && is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if known && is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(KNOWN.1.octets());
    }
    Some(reply)
}
