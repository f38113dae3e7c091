//! Packets between the places of a lab: servers that say how they see their clients, and clients that ask them; and
//! frames by hand, for who tries to break in.

use crate::{Lab, Run};
use kernel::link;
use kernel::netlink::{Protocol as Netlink, Socket};
use kernel::packet::FrameSocket;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// How long an answer that must not come is waited for.
const PATIENCE: Duration = Duration::from_millis(400);

/// Where somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'a> {
    Host,
    Outside,
    Container(&'a str),
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Tcp,
    Udp,
}

/// A container that does nothing, on one network.
pub fn sleeper(network: &str) -> Value {
    json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": network } })
}

/// The same, with endpoint settings.
pub fn sleeper_with(network: &str, endpoint: Value) -> Value {
    let mut body = sleeper(network);
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { network: endpoint } });
    body
}

/// The same, with ports: `("80/tcp", "127.0.0.1", "8080")`.
pub fn publisher(network: &str, ports: &[(&str, &str, &str)]) -> Value {
    let mut body = sleeper(network);
    for (port, ip, host) in ports {
        let binding = json!({ "HostIp": ip, "HostPort": host });
        match body["HostConfig"]["PortBindings"][port].as_array_mut() {
            Some(list) => list.push(binding),
            None => body["HostConfig"]["PortBindings"][port] = json!([binding]),
        }
    }
    body
}

/// Everything of a family: what servers bind to.
pub fn any(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

impl Lab {
    /// Does something at a place.
    ///
    /// # Panics
    /// There is no such place.
    pub fn inside<R: Send>(&self, at: At<'_>, f: impl FnOnce() -> R + Send) -> R {
        match at {
            At::Host => self.in_host(f),
            At::Outside => self.in_outside(f),
            At::Container(name) => self.in_container(name, f),
        }
    }

    /// Runs a program of this machine's at a place, with all rights there: what it says.
    ///
    /// # Panics
    /// There is no such program.
    pub fn command(&self, at: At<'_>, command: Run<'_>) -> String {
        let run = || Command::new(command[0]).args(&command[1..]).output();
        let output = self.inside(at, run).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Answers every client of a port, whatever its family, with the address that it sees the client at, until the test
    /// ends.
    ///
    /// # Panics
    /// The port is taken.
    pub fn serve(&self, at: At<'_>, by: By, port: u16) {
        self.serve_on(at, by, SocketAddr::new(any(true), port));
    }

    /// The same on one address.
    ///
    /// # Panics
    /// The port is taken.
    pub fn serve_on(&self, at: At<'_>, by: By, address: SocketAddr) {
        match by {
            By::Udp => {
                let socket = self.inside(at, || UdpSocket::bind(address)).expect("a free port");
                std::thread::spawn(move || {
                    let mut buffer = [0; 2048];
                    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(from.ip().to_canonical().to_string().as_bytes(), from);
                    }
                });
            }
            By::Tcp => {
                let listener = self.inside(at, || TcpListener::bind(address)).expect("a free port");
                std::thread::spawn(move || {
                    while let Ok((mut stream, from)) = listener.accept() {
                        let _ = stream.write_all(from.ip().to_canonical().to_string().as_bytes());
                    }
                });
            }
        }
    }

    /// Asks such a server: the address that it sees the client at; None if nobody answers.
    pub fn seen(&self, from: At<'_>, by: By, to: IpAddr, port: u16) -> Option<IpAddr> {
        let text = self.inside(from, || ask(by, SocketAddr::new(to, port))).ok()?;
        text.parse().ok()
    }

    /// The addresses of a container on a network: IPv4 and IPv6, those that it has.
    ///
    /// # Panics
    /// It has none there.
    pub fn addresses(&self, container: &str, network: &str) -> Vec<IpAddr> {
        let shown = self.inspect(container)["NetworkSettings"]["Networks"][network].clone();
        let both = ["IPAddress", "GlobalIPv6Address"].map(|key| shown[key].as_str().and_then(|a| a.parse().ok()));
        both.into_iter().flatten().collect()
    }

    /// The gateways of a network, as its bridge has them.
    ///
    /// # Panics
    /// It has no bridge.
    pub fn bridge_addresses(&self, device: &str) -> Vec<IpAddr> {
        let said = self.command(At::Host, &["ip", "-o", "addr", "show", "dev", device]);
        let words = said.lines().filter_map(|l| l.split_whitespace().nth(3)?.split('/').next()?.parse().ok());
        words.filter(|a: &IpAddr| !matches!(a, IpAddr::V6(ip) if ip.is_unicast_link_local())).collect()
    }

    /// Sends frames from a place by one of its interfaces.
    ///
    /// # Panics
    /// There is no such interface.
    pub fn send_frames(&self, at: At<'_>, interface: &str, frames: &[Vec<u8>]) {
        self.inside(at, || {
            let index = link::find(&mut Socket::open(Netlink::Route).expect("a socket"), interface).expect("it").index;
            let socket = FrameSocket::open().expect("a socket");
            frames.iter().for_each(|frame| socket.send(index, frame).expect("it is sent"));
        });
    }

    /// The link-local IPv6 address of an interface.
    ///
    /// # Panics
    /// It has none.
    pub fn link_local(&self, at: At<'_>, interface: &str) -> Ipv6Addr {
        let said = self.command(at, &["ip", "-6", "-o", "addr", "show", "dev", interface, "scope", "link"]);
        let address = said.split_whitespace().nth(3).and_then(|net| net.split('/').next()?.parse().ok());
        address.unwrap_or_else(|| panic!("no link-local address: {said}"))
    }

    /// The hardware address of an interface.
    ///
    /// # Panics
    /// There is no such interface.
    pub fn mac(&self, at: At<'_>, interface: &str) -> [u8; 6] {
        let read = || link::find(&mut Socket::open(Netlink::Route).expect("a socket"), interface).expect("it").mac;
        self.inside(at, read).expect("a hardware address")
    }
}

fn ask(by: By, to: SocketAddr) -> io::Result<String> {
    match by {
        By::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        }
        By::Udp => {
            let socket = UdpSocket::bind((any(to.is_ipv6()), 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"who am I?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    }
}

/// An ICMP message in an Ethernet frame, with its checksum.
///
/// # Panics
/// The addresses are of different families.
pub fn icmp_frame(to: [u8; 6], from: [u8; 6], source: IpAddr, destination: IpAddr, mut icmp: Vec<u8>) -> Vec<u8> {
    if source.is_ipv4() {
        // That of IPv4 is of the message alone (RFC 792).
        let check = checksum(&icmp);
        icmp[2..4].copy_from_slice(&check);
        return frame(to, from, (source, destination), 1, &icmp);
    }
    let check = checksum(&[pseudo_header((source, destination), 58, icmp.len()), icmp.clone()].concat());
    icmp[2..4].copy_from_slice(&check);
    frame(to, from, (source, destination), 58, &icmp)
}

/// A datagram in an Ethernet frame, with its checksum.
///
/// # Panics
/// The addresses are of different families.
pub fn udp_frame(to: [u8; 6], from: [u8; 6], source: SocketAddr, destination: SocketAddr, text: &str) -> Vec<u8> {
    let ends = (source.ip(), destination.ip());
    let length = 8 + text.len() as u16;
    let words = [source.port(), destination.port(), length, 0].map(u16::to_be_bytes).concat();
    let mut udp = [&words, text.as_bytes()].concat();
    let check = checksum(&[pseudo_header(ends, 17, udp.len()), udp.clone()].concat());
    udp[6..8].copy_from_slice(&check);
    frame(to, from, ends, 17, &udp)
}

/// The checksum of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// What a checksum is also of (RFC 768; RFC 8200, 8.1).
fn pseudo_header(ends: (IpAddr, IpAddr), protocol: u8, length: usize) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => [&from.octets()[..], &to.octets(), &[0, protocol, high, low]].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&from.octets()[..], &to.octets(), &[0, 0, high, low, 0, 0, 0, protocol]].concat()
        }
        _ => panic!("one family"),
    }
}

fn frame(to: [u8; 6], from: [u8; 6], ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let (kind, header) = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (20 + payload.len() as u16).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend([source.octets(), destination.octets()].concat());
            let check = checksum(&header);
            header[10..12].copy_from_slice(&check);
            ([8, 0], header)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let start = [0x60, 0, 0, 0, high, low, protocol, 255];
            ([0x86, 0xdd], [&start[..], &source.octets(), &destination.octets()].concat())
        }
        _ => panic!("one family"),
    };
    [&to[..], &from, &kind, &header, payload].concat()
}
