//! ICMP errors: who had the flow that one speaks of believes it, so a container may speak of its own flows only, and
//! what routers say of theirs still arrives. Each under both values of bridge-nf-call-iptables, for IPv4 and IPv6 alike.
//!
//! ```text
//!   outside ── eth0 ── host ┬─ front ─ intruder, friend, victim, router (NET_ADMIN) ── small (a link of MTU 1280)
//!                           └─ back  ─ target, which has a flow to the outside
//! ```

use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use testkit::traffic::{At, By, any, icmp_frame, publisher, sleeper};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program, within};

const PATIENCE: Duration = Duration::from_secs(5);
/// What a forged message says is the most that fits: less than IPv6 allows is not believed.
const NARROW: u16 = 1290;

/// A lab for each value of bridge-nf-call-iptables.
fn labs() -> impl Iterator<Item = Lab> {
    ["0", "1"].into_iter().map(|value| {
        let prepare = |lab: &mut Lab| {
            for key in ["iptables", "ip6tables"] {
                lab.command(At::Host, &["sysctl", "-w", &format!("net.bridge.bridge-nf-call-{key}={value}")]);
            }
        };
        let lab = Lab::start_after(&program(), prepare).unwrap();
        for name in ["front", "back"] {
            let options = json!({ "com.docker.network.bridge.name": format!("br-{name}") });
            lab.network(json!({ "Name": name, "EnableIPv6": true, "Options": options }));
        }
        lab
    })
}

/// A container that may have addresses of its own.
fn start_router(lab: &Lab) {
    let mut body = sleeper("front");
    body["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"]);
    lab.run("router", body);
}

/// The packet that an error quotes: its addresses, and the ports of a datagram; none for an answer to a ping.
fn quoted(from: IpAddr, to: IpAddr, ports: Option<(u16, u16)>) -> Vec<u8> {
    let inner = match ports {
        Some((from, to)) => [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat(),
        None => vec![if from.is_ipv4() { 0 } else { 129 }, 0, 0, 0, 0, 1, 0, 1],
    };
    let protocol = match (ports, from) {
        (Some(_), _) => 17,
        (None, IpAddr::V4(_)) => 1,
        (None, IpAddr::V6(_)) => 58,
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0];
            [&header[..], &from.octets(), &to.octets(), &inner].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&[0x60, 0, 0, 0, 0, 8, protocol, 64][..], &from.octets(), &to.octets(), &inner].concat()
        }
        _ => panic!("one family"),
    }
}

fn too_big(quoted: &[u8]) -> Vec<u8> {
    let [high, low] = NARROW.to_be_bytes();
    let start = if quoted[0] >> 4 == 4 { [3, 4, 0, 0, 0, 0, high, low] } else { [2, 0, 0, 0, 0, 0, high, low] };
    [&start[..], quoted].concat()
}

fn port_unreachable(quoted: &[u8]) -> Vec<u8> {
    let start = if quoted[0] >> 4 == 4 { [3, 3] } else { [1, 4] };
    [&start[..], &[0; 6], quoted].concat()
}

/// Says it from a container, or from outside, in the speaker's own name.
fn say(lab: &Lab, from: At<'_>, own: IpAddr, (to, mac): (IpAddr, [u8; 6]), messages: &[Vec<u8>]) {
    let interface = if from == At::Outside { "uplink0" } else { "eth0" };
    let source = lab.mac(from, interface);
    let frames: Vec<_> = messages.iter().map(|m| icmp_frame(mac, source, own, to, m.clone())).collect();
    lab.send_frames(from, interface, &frames);
}

/// What fits into a packet, as somebody has learned: None if the way is as wide as the link.
fn learned(lab: &Lab, at: At<'_>, to: IpAddr) -> Option<u16> {
    let said = lab.command(at, &["ip", "route", "get", &to.to_string()]);
    let mut words = said.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

#[test]
fn sec_12_a_container_narrows_no_way_but_the_one_to_itself() {
    for lab in labs() {
        for name in ["intruder", "friend", "victim"] {
            lab.run(name, sleeper("front"));
        }
        start_router(&lab);
        let (victim, bridge) = (At::Container("victim"), lab.mac(At::Host, "br-front"));
        let gateways = lab.bridge_addresses("br-front");
        let friends = lab.addresses("friend", "front");
        for (n, address) in lab.addresses("victim", "front").into_iter().enumerate() {
            let (host, outside) = [(HOST.into(), OUTSIDE.into()), (HOST6.into(), OUTSIDE6.into())][n];
            let to_victim = (address, lab.mac(victim, "eth0"));
            let intruder = lab.addresses("intruder", "front")[n];
            let lie = |from, to| [too_big(&quoted(from, to, None))];
            for liar in ["intruder", "router"] {
                let (at, own) = (At::Container(liar), lab.addresses(liar, "front")[n]);
                if liar == "intruder" {
                    say(&lab, at, own, to_victim, &lie(address, friends[n]));
                    say(&lab, at, own, (gateways[n], bridge), &lie(gateways[n], friends[n]));
                }
                say(&lab, at, own, (host, bridge), &lie(host, outside));
            }
            // What comes after them has found them done with; and it is right that the way to oneself is narrow.
            say(&lab, At::Container("intruder"), intruder, to_victim, &lie(address, intruder));
            within(PATIENCE, "what is true is believed", || learned(&lab, victim, intruder) == Some(NARROW));
            say(&lab, At::Container("intruder"), intruder, (gateways[n], bridge), &lie(gateways[n], intruder));
            within(PATIENCE, "what is true is believed", || learned(&lab, At::Host, intruder) == Some(NARROW));
            assert_eq!(learned(&lab, victim, friends[n]), None, "the victim's way to {}", friends[n]);
            assert_eq!(learned(&lab, At::Host, friends[n]), None, "the host's way to {}", friends[n]);
            assert_eq!(learned(&lab, At::Host, outside), None, "the host's way to {outside}");
        }
    }
}

/// A flow with both its ends.
struct Flow {
    inner: UdpSocket,
    outer: UdpSocket,
    /// As the outside sees the inner end.
    seen: SocketAddr,
}

impl Flow {
    fn open(lab: &Lab, from: At<'_>, outside: IpAddr) -> Flow {
        let bind = |address: IpAddr| {
            move || {
                let socket = UdpSocket::bind((address, 0)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            }
        };
        let outer = lab.inside(At::Outside, bind(outside));
        let inner = lab.inside(from, bind(any(outside.is_ipv6())));
        inner.connect(outer.local_addr().unwrap()).unwrap();
        inner.send(b"hello").unwrap();
        let (_, seen) = outer.recv_from(&mut [0; 16]).unwrap();
        outer.send_to(b"hello", seen).unwrap();
        inner.recv(&mut [0; 16]).unwrap();
        Flow { inner, outer, seen }
    }

    fn quoted(&self) -> Vec<u8> {
        let to = self.outer.local_addr().unwrap();
        quoted(self.seen.ip(), to.ip(), Some((self.seen.port(), to.port())))
    }

    /// Whether both ends still hear each other, and nobody has told the inner one otherwise.
    fn goes_on(&self) -> bool {
        let told = self.inner.take_error().unwrap().is_some();
        let there = self.inner.send(b"on").is_ok() && self.outer.recv_from(&mut [0; 16]).is_ok();
        !told && there && self.outer.send_to(b"on", self.seen).is_ok() && self.inner.recv(&mut [0; 16]).is_ok()
    }
}

#[test]
fn sec_01_errors_end_no_flow_of_another_network() {
    for lab in labs() {
        lab.run("intruder", sleeper("front"));
        start_router(&lab);
        lab.run("target", sleeper("back"));
        let target = At::Container("target");
        let bridge = lab.mac(At::Host, "br-front");
        for (n, outside) in [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)].into_iter().enumerate() {
            let flows = [Flow::open(&lab, target, outside), Flow::open(&lab, At::Host, outside)];
            for flow in &flows {
                let messages = [port_unreachable(&flow.quoted()), too_big(&flow.quoted())];
                for liar in ["intruder", "router"] {
                    let own = lab.addresses(liar, "front")[n];
                    for to in [flow.seen.ip(), lab.addresses("target", "back")[n]] {
                        say(&lab, At::Container(liar), own, (to, bridge), &messages);
                    }
                }
                assert!(flow.goes_on(), "{outside}");
            }
            for at in [target, At::Host] {
                assert_eq!(learned(&lab, at, outside), None, "{at:?} to {outside}");
            }
            // The same from a router on the way is believed.
            let flow = &flows[0];
            let way = (flow.seen.ip(), lab.mac(At::Host, "eth0"));
            say(&lab, At::Outside, outside, way, &[too_big(&flow.quoted())]);
            within(PATIENCE, "the way is known to be narrow", || learned(&lab, target, outside) == Some(NARROW));
            say(&lab, At::Outside, outside, way, &[port_unreachable(&flow.quoted())]);
            within(PATIENCE, "the flow is known to have ended", || {
                flow.inner.send(b"on").is_err() || flow.inner.take_error().unwrap().is_some()
            });
        }
    }
}

#[test]
fn br_07_routers_and_closed_ports_are_heard() {
    for lab in labs() {
        lab.run("friend", sleeper("front"));
        lab.run("target", publisher("back", &[("80/udp", "", "8080")]));
        start_router(&lab);
        for words in [
            "link add small mtu 1280 type veth peer name far",
            "link set far up",
            "link set small up",
            "addr add 10.99.0.1/24 dev small",
            "addr add fd99::1/64 dev small nodad",
        ] {
            let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
            assert_eq!(lab.command(At::Container("router"), &command), "", "ip {words}");
        }
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            lab.command(At::Container("router"), &["sysctl", "-w", setting]);
        }
        for (n, (net, beyond)) in [("10.99.0.0/24", "10.99.0.5"), ("fd99::/64", "fd99::5")].into_iter().enumerate() {
            let router = lab.addresses("router", "front")[n].to_string();
            let beyond: IpAddr = beyond.parse().unwrap();
            for at in [At::Container("friend"), At::Host] {
                assert_eq!(lab.command(at, &["ip", "route", "add", net, "via", &router]), "");
                let socket = lab.inside(at, || UdpSocket::bind((any(beyond.is_ipv6()), 0))).unwrap();
                within(PATIENCE, &format!("{at:?} learns how narrow the way by a router is"), || {
                    let _ = socket.send_to(&[0; 1400], (beyond, 9));
                    learned(&lab, at, beyond) == Some(1280)
                });
            }
            // Nobody listens at the published port: who asks is told so.
            let host: IpAddr = if n == 0 { HOST.into() } else { HOST6.into() };
            for at in [At::Outside, At::Container("friend")] {
                let socket = lab.inside(at, || UdpSocket::bind((any(host.is_ipv6()), 0))).unwrap();
                socket.connect((host, 8080)).unwrap();
                within(PATIENCE, &format!("{at:?} is told that nobody listens behind {host}"), || {
                    socket.send(b"?").is_err() || socket.take_error().unwrap().is_some()
                });
            }
            assert_eq!(lab.seen(At::Outside, By::Udp, host, 8080), None);
        }
    }
}
