//! How a sandbox finds its resolver: 127.0.0.11, port 53, UDP and TCP.

mod world;

use model::net::Protocol::{Tcp, Udp};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;
use world::*;

const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// Answers on the resolver's sockets as [`serve`] does on its own.
fn answer(sockets: network::ResolverSockets) {
    let (udp, tcp) = (UdpSocket::from(sockets.udp), TcpListener::from(sockets.tcp));
    udp.set_nonblocking(false).unwrap();
    tcp.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let text = if length > 100 { length.to_string() } else { from.ip().to_string() };
            let _ = udp.send_to(text.as_bytes(), from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = tcp.accept() {
            let _ = stream.write_all(from.ip().to_string().as_bytes());
        }
    });
    std::mem::forget(sockets.owner); // the keeper's, as long as the sandbox lives
}

#[test]
fn dns_01_the_resolver_answers_at_127_0_0_11_port_53_and_no_flow_is_tracked() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    answer(world.network.open_resolver(&a.sandbox, false).unwrap());
    for protocol in [Udp, Tcp] {
        assert_eq!(ask(&a, protocol, RESOLVER, 53).unwrap(), LOCAL4, "{protocol}");
    }
    let tracked = look(a.as_fd(), &["conntrack", "-C"]);
    assert_eq!(tracked.trim(), "0", "connection tracking stays off for the container's traffic");
}

#[test]
fn dns_02_the_container_may_serve_port_53_itself() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    answer(world.network.open_resolver(&a.sandbox, false).unwrap());
    for protocol in [Udp, Tcp] {
        serve(&a, protocol, ANY4, 53);
        assert_eq!(ask(&a, protocol, RESOLVER, 53).unwrap(), LOCAL4, "{protocol} to the resolver");
        assert_eq!(ask(&world.host, protocol, a.v4(), 53).unwrap().to_string(), "10.1.0.1", "{protocol} to its own");
    }
}

#[test]
fn dns_19_a_datagram_of_60_kb_and_an_unconnected_socket_get_there() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    answer(world.network.open_resolver(&a.sandbox, false).unwrap());
    let (from, text) = kernel::netns::inside(a.as_fd(), || {
        let socket = UdpSocket::bind((ANY4, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&vec![7; 60_000], (RESOLVER, 53)).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        (from, String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
    .unwrap();
    assert_eq!((from.to_string().as_str(), text.as_str()), ("127.0.0.11:53", "60000"));
}

#[test]
fn dns_02_rules_of_a_container_with_net_admin_do_not_break_it() {
    let Some(world) = world() else { return };
    let a = world.member_with(&world.bridge(1), 2, |a| a.trusted = true);
    answer(world.network.open_resolver(&a.sandbox, true).unwrap());
    let rules = [
        "add table ip mine",
        "add chain ip mine out { type nat hook postrouting priority 100; }",
        "add rule ip mine out masquerade",
        "add chain ip mine in { type filter hook input priority 0; }",
        "add rule ip mine in ct state invalid drop",
    ];
    for rule in rules {
        assert_eq!(look(a.as_fd(), &["nft", rule]), "", "{rule}");
    }
    for protocol in [Udp, Tcp] {
        assert_eq!(ask(&a, protocol, RESOLVER, 53).unwrap(), LOCAL4, "{protocol}");
    }
    look(a.as_fd(), &["nft", "flush", "ruleset"]);
    if world.network.features().owned_tables {
        assert_eq!(ask(&a, Udp, RESOLVER, 53).unwrap(), LOCAL4, "a flush leaves what is owned");
    }
}

#[test]
fn dns_21_a_sandbox_without_any_network_has_a_resolver_too() {
    let Some(world) = world() else { return };
    let sandbox = world.network.create_sandbox(&model::id::SandboxId::new([9; 32]), false).unwrap();
    answer(world.network.open_resolver(&sandbox, false).unwrap());
    assert_eq!(ask(&sandbox, Udp, RESOLVER, 53).unwrap(), LOCAL4);
    let mut text = String::new();
    let mut stream =
        kernel::netns::inside(sandbox.as_fd(), || std::net::TcpStream::connect((RESOLVER, 53))).unwrap().unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "127.0.0.1");
}
