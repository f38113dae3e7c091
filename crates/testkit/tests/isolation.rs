//! Breaking in, by every way that is known: from a network into another, into the host's loopback, and from outside.
//! The intruders have all rights inside their namespaces, which containers do not. Each under both values of
//! bridge-nf-call-iptables, and for IPv4 and IPv6 alike.
//!
//! ```text
//!   outside ── eth0 ── host ┬─ front ─ intruder, friend
//!                           ├─ back  ─ target, which publishes 8080 everywhere and 8081 on 127.0.0.1
//!                           └─ quiet (icc=false) ─ one, two
//! ```

use kernel::packet::announcement;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use testkit::traffic::{At, By, any, icmp_frame, publisher, sleeper, udp_frame};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program, within};

const INTRUDER: At<'_> = At::Container("intruder");
const TARGET: At<'_> = At::Container("target");

/// A lab for each value of bridge-nf-call-iptables.
fn labs() -> impl Iterator<Item = (bool, Lab)> {
    [false, true].into_iter().map(|on| {
        let prepare = |lab: &mut Lab| {
            for key in ["iptables", "ip6tables"] {
                let setting = format!("net.bridge.bridge-nf-call-{key}={}", u8::from(on));
                lab.command(At::Host, &["sysctl", "-w", &setting]);
            }
        };
        (on, Lab::start_after(&program(), prepare).unwrap())
    })
}

/// The two networks with their members; the target answers on port 80.
fn front_and_back(lab: &Lab) {
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    lab.run("intruder", sleeper("front"));
    lab.run("friend", sleeper("front"));
    lab.run(
        "target",
        publisher("back", &[("80/tcp", "", "8080"), ("80/tcp", "127.0.0.1", "8081"), ("80/udp", "", "8080")]),
    );
    lab.serve(TARGET, By::Tcp, 80);
    lab.serve(TARGET, By::Udp, 80);
}

/// The addresses of the host on a network, IPv4 first.
fn gateways(lab: &Lab, network: &str) -> Vec<IpAddr> {
    lab.bridge_addresses(&format!("br-{network}"))
}

/// Tries TCP and UDP to addresses of the target, all at once.
#[track_caller]
fn is_out_of_reach(lab: &Lab, from: At<'_>, to: &[IpAddr], how: &str) {
    let tries = to.iter().flat_map(|address| [By::Tcp, By::Udp].map(|by| (*address, by)));
    let reached: Vec<String> = std::thread::scope(|scope| {
        let tries: Vec<_> = tries
            .map(|(address, by)| {
                scope.spawn(move || lab.seen(from, by, address, 80).map(|_| format!("{by:?} to {address} {how}")))
            })
            .collect();
        tries.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(reached, [""; 0], "reached from {from:?}");
}

fn ip(lab: &Lab, at: At<'_>, words: &str) {
    let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
    let said = lab.command(at, &command);
    assert_eq!(said, "", "ip {words}");
}

#[test]
fn sec_01_nothing_but_published_ports_of_another_network_is_reached() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        let target = lab.addresses("target", "back");
        let (near, far) = (gateways(&lab, "front"), gateways(&lab, "back"));
        assert_eq!((target.len(), near.len(), far.len()), (2, 2, 2));
        // By address.
        is_out_of_reach(&lab, INTRUDER, &target, "plainly");
        // Published ports are reached, by any address of the host, and with the true source address (PT-10, PT-12).
        let own = lab.addresses("intruder", "front");
        for (host, own) in [(IpAddr::V4(HOST), own[0]), (IpAddr::V6(HOST6), own[1])] {
            for by in [By::Tcp, By::Udp] {
                assert_eq!(lab.seen(INTRUDER, by, host, 8080), Some(own), "{by:?} {host}, br_netfilter {on}");
            }
        }
        for gateway in near.iter().chain(&far) {
            assert!(lab.seen(INTRUDER, By::Tcp, *gateway, 8080).is_some(), "{gateway}");
            assert_eq!(lab.seen(INTRUDER, By::Tcp, *gateway, 8081), None, "published on 127.0.0.1");
        }

        // By routes of its own: through its gateway, through the other's, and as if the target were on its link.
        for (n, to) in target.iter().enumerate() {
            let family = ["-4", "-6"][n];
            let prefix = [32, 128][n];
            let mac = lab.mac(At::Host, "br-front").map(|b| format!("{b:02x}")).join(":");
            for (how, route) in [
                ("by its gateway", format!("{family} route replace {to}/{prefix} via {} dev eth0", near[n])),
                (
                    "by the other gateway",
                    format!("{family} route replace {to}/{prefix} via {} dev eth0 onlink", far[n]),
                ),
                ("as a neighbour", format!("{family} route replace {to}/{prefix} dev eth0")),
            ] {
                ip(&lab, INTRUDER, &route);
                if how != "by its gateway" {
                    for neighbour in [to, &far[n]] {
                        ip(&lab, INTRUDER, &format!("neigh replace {neighbour} lladdr {mac} dev eth0 nud permanent"));
                    }
                }
                is_out_of_reach(&lab, INTRUDER, &[*to], how);
            }
        }
        // By the target's own hardware address, and by its bridge's: frames do not leave the segment.
        let there = lab.mac(TARGET, "eth0").map(|b| format!("{b:02x}")).join(":");
        let bridge = lab.mac(At::Host, "br-back").map(|b| format!("{b:02x}")).join(":");
        for mac in [there, bridge] {
            for to in &target {
                ip(&lab, INTRUDER, &format!("neigh replace {to} lladdr {mac} dev eth0 nud permanent"));
            }
            is_out_of_reach(&lab, INTRUDER, &target, "by a hardware address");
        }
        // By link-local addresses: the target's, and its bridge's.
        for (at, interface) in [(TARGET, "eth0"), (At::Host, "br-back")] {
            let address = lab.link_local(at, interface);
            let index: u32 = lab.inside(INTRUDER, || std::fs::read_to_string("/proc/net/if_inet6")).map_or(2, |t| {
                let line =
                    t.lines().find(|l| l.ends_with("eth0")).map(|l| l.split_whitespace().nth(1).unwrap().to_owned());
                line.map_or(2, |l| u32::from_str_radix(&l, 16).unwrap())
            });
            let to = SocketAddr::V6(std::net::SocketAddrV6::new(address, 80, 0, index));
            let reached =
                lab.inside(INTRUDER, || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(400)));
            assert!(reached.is_err(), "{address}");
        }
    }
}

#[test]
fn sec_05_services_of_the_host_are_reached_by_its_addresses() {
    for (on, lab) in labs() {
        lab.bridge("front", json!({}));
        lab.run("intruder", sleeper("front"));
        let own = lab.addresses("intruder", "front");
        for by in [By::Tcp, By::Udp] {
            lab.serve(At::Host, by, 7000);
            let hosts = gateways(&lab, "front").into_iter().chain([IpAddr::V4(HOST), IpAddr::V6(HOST6)]);
            for host in hosts {
                // A UDP server that is bound to no address answers from the nearest one, which is the gateway's.
                let is_far = by == By::Udp && (host == IpAddr::V4(HOST) || host == IpAddr::V6(HOST6));
                if is_far {
                    continue;
                }
                let expected = Some(own[usize::from(host.is_ipv6())]);
                assert_eq!(lab.seen(INTRUDER, by, host, 7000), expected, "{by:?} {host}, br_netfilter {on}");
            }
        }
    }
}

#[test]
fn sec_01_the_hosts_services_are_reached_by_ones_own_gateway_only() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        lab.network(json!({ "Name": "four" }));
        lab.run("older", publisher("four", &[("80/udp", "", "8090")]));
        lab.serve(At::Container("older"), By::Udp, 80);
        let (near, far) = (gateways(&lab, "front"), gateways(&lab, "back"));
        let default = lab.bridge_addresses("isle0");
        lab.serve(At::Host, By::Tcp, 7000);
        for own in near.iter().chain(&far).chain(&default) {
            // Its answer comes from the address that was asked.
            lab.serve_on(At::Host, By::Udp, SocketAddr::new(*own, 7000));
        }
        let pings = |to: &IpAddr| lab.exec("intruder", &["ping", "-c1", "-W1", &to.to_string()]).code == 0;
        for by in [By::Tcp, By::Udp] {
            let reaches = |to: &IpAddr| lab.seen(INTRUDER, by, *to, 7000).is_some();
            assert!(near.iter().all(reaches), "{by:?} by its own gateway, br_netfilter {on}");
            assert!(default.iter().all(reaches), "{by:?} by what host-gateway means");
            assert!(!far.iter().any(reaches), "{by:?} by another's");
            assert!(far.iter().all(|to| lab.seen(TARGET, by, *to, 7000).is_some()), "{by:?}: it is its own for others");
            // What is published is, by whichever address.
            assert!(far.iter().all(|to| lab.seen(INTRUDER, by, *to, 8080).is_some()), "{by:?} to a published port");
        }
        assert!(lab.seen(INTRUDER, By::Udp, far[1], 8090).is_some(), "what the proxy carries, too");
        assert!(near.iter().all(pings) && !far.iter().any(pings), "pings");
    }
}

#[test]
fn sec_01_broadcasts_and_names_stay_on_their_network() {
    for (_, lab) in labs() {
        front_and_back(&lab);
        let target = lab.addresses("target", "back");
        let far = lab.command(At::Host, &["ip", "-4", "-o", "addr", "show", "dev", "br-back"]);
        let broadcast: Ipv4Addr = far
            .split_whitespace()
            .nth(3)
            .map(|net| {
                let net: Vec<&str> = net.split('/').collect();
                let (ip, bits): (Ipv4Addr, u32) = (net[0].parse().unwrap(), net[1].parse().unwrap());
                Ipv4Addr::from(u32::from(ip) | (u32::MAX >> bits))
            })
            .unwrap();
        let listen = |at| {
            lab.inside(at, || {
                let socket = UdpSocket::bind(("0.0.0.0", 9999)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                socket
            })
        };
        let (of_target, of_friend) = (listen(TARGET), listen(At::Container("friend")));
        lab.inside(INTRUDER, || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            for to in [broadcast, Ipv4Addr::BROADCAST] {
                socket.send_to(b"hello", (to, 9999)).unwrap();
            }
        });
        let mut buffer = [0; 16];
        assert!(of_friend.recv(&mut buffer).is_ok(), "its own network hears it");
        assert!(of_target.recv(&mut buffer).is_err(), "another does not");
        // Through the resolver: neither by name, nor by address.
        for name in ["target", "target.back", "target.back."] {
            assert_eq!(lab.lookup("intruder", name), [""; 0], "{name}");
        }
        for address in &target {
            let said = lab.exec("intruder", &["nslookup", &address.to_string()]).stdout;
            assert!(!said.contains("target"), "{said}");
        }
    }
}

#[test]
fn sec_03_without_icc_there_is_no_way_round_by_the_gateway() {
    for (on, lab) in labs() {
        lab.bridge("quiet", json!({ "com.docker.network.bridge.enable_icc": "false" }));
        lab.run("one", sleeper("quiet"));
        lab.run("two", publisher("quiet", &[("80/tcp", "", "8080"), ("80/udp", "", "8080")]));
        let (one, two) = (At::Container("one"), At::Container("two"));
        lab.serve(two, By::Tcp, 80);
        lab.serve(two, By::Udp, 80);
        let target = lab.addresses("two", "quiet");
        is_out_of_reach(&lab, one, &target, "plainly");
        let gateways = gateways(&lab, "quiet");
        for (n, to) in target.iter().enumerate() {
            ip(
                &lab,
                one,
                &format!("{} route replace {to}/{} via {} dev eth0", ["-4", "-6"][n], [32, 128][n], gateways[n]),
            );
        }
        is_out_of_reach(&lab, one, &target, "by the gateway");
        let mac = lab.mac(At::Host, "br-quiet").map(|b| format!("{b:02x}")).join(":");
        for to in &target {
            ip(&lab, one, &format!("route del {to}"));
            ip(&lab, one, &format!("neigh replace {to} lladdr {mac} dev eth0 nud permanent"));
        }
        is_out_of_reach(&lab, one, &target, "by the bridge's hardware address");
        for host in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
            assert!(
                lab.seen(one, By::Tcp, host, 8080).is_some(),
                "published ports are open, br_netfilter {on}: {host}"
            );
        }
    }
}

#[test]
fn pt_13_nobody_but_the_host_reaches_its_loopback() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        lab.serve_on(At::Host, By::Tcp, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7000));
        lab.serve_on(At::Host, By::Udp, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7000));
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(lab.seen(At::Host, By::Tcp, localhost, 7000).is_some());
        assert!(lab.seen(At::Host, By::Tcp, localhost, 8081).is_some());
        let near = gateways(&lab, "front")[0];
        for (at, device, by) in [(INTRUDER, "eth0", near), (At::Outside, "uplink0", HOST.into())] {
            for setting in ["all.route_localnet", "all.accept_local", "all.send_redirects"] {
                lab.command(at, &["sysctl", "-w", &format!("net.ipv4.conf.{setting}=1")]);
            }
            ip(&lab, at, "addr del 127.0.0.1/8 dev lo");
            lab.command(at, &["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"]);
            ip(&lab, at, &format!("route add 127.0.0.0/8 via {by} dev {device}"));
            for port in [7000, 8081] {
                assert_eq!(lab.seen(at, By::Tcp, localhost, port), None, "{at:?} port {port}, br_netfilter {on}");
                assert_eq!(lab.seen(at, By::Udp, localhost, port), None, "{at:?} port {port}, br_netfilter {on}");
            }
            // Nor is the host answered as if it had sent to itself.
            ip(&lab, at, &format!("addr add 127.0.0.9/32 dev {device}"));
            lab.inside(at, || {
                let socket = UdpSocket::bind(("127.0.0.9", 0)).unwrap();
                let _ = socket.send_to(b"x", (by, 7001));
            });
        }
        for host in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
            assert_eq!(lab.seen(At::Outside, By::Tcp, host, 8081), None, "what is published on 127.0.0.1, at {host}");
        }
    }
}

#[test]
fn pt_14_a_neighbour_of_the_host_reaches_published_ports_only() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        let target = lab.addresses("target", "back");
        for (n, to) in target.iter().enumerate() {
            let via = [IpAddr::V4(HOST), IpAddr::V6(HOST6)][n];
            ip(&lab, At::Outside, &format!("{} route add {to}/{} via {via}", ["-4", "-6"][n], [32, 128][n]));
            is_out_of_reach(&lab, At::Outside, &[*to], "by a route");
            assert_eq!(lab.seen(At::Outside, By::Tcp, *to, 8080), None);
            let outside = [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)][n];
            for by in [By::Tcp, By::Udp] {
                assert_eq!(lab.seen(At::Outside, by, via, 8080), Some(outside), "{by:?} {via}, br_netfilter {on}");
                assert_eq!(lab.seen(At::Outside, by, via, 80), None, "only the published one");
            }
        }
        let gateways = gateways(&lab, "back");
        for gateway in &gateways {
            let via = if gateway.is_ipv4() { HOST.to_string() } else { HOST6.to_string() };
            ip(&lab, At::Outside, &format!("route add {gateway} via {via}"));
            assert_eq!(lab.seen(At::Outside, By::Tcp, *gateway, 8081), None);
        }
    }
}

/// With tags in front of what the frame is: no receiver minds a tag of VLAN 0.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat()
}

#[test]
fn sec_12_forged_messages_change_nobodys_mind() {
    for (on, lab) in labs() {
        lab.bridge("front", json!({}));
        for name in ["intruder", "victim", "friend"] {
            lab.run(name, sleeper("front"));
        }
        let (victim, friend) = (At::Container("victim"), At::Container("friend"));
        lab.serve(friend, By::Tcp, 80);
        lab.serve(At::Host, By::Tcp, 7000);
        let (gateways, friends) = (gateways(&lab, "front"), lab.addresses("friend", "front"));
        let (liar, bridge) = (lab.mac(INTRUDER, "eth0"), lab.mac(At::Host, "br-front"));
        let victims = lab.addresses("victim", "front");
        let vmac = lab.mac(victim, "eth0");
        let host_routes = || lab.command(At::Host, &["ip", "-6", "route"]) + &lab.command(At::Host, &["ip", "route"]);
        // The victim has reached all of them, and remembers where they are.
        let reaches_all = |after: &str| {
            for n in 0..2 {
                let own = Some(victims[n]);
                assert_eq!(
                    lab.seen(victim, By::Tcp, friends[n], 80),
                    own,
                    "{} after {after}, br_netfilter {on}",
                    friends[n]
                );
                assert_eq!(lab.seen(victim, By::Tcp, gateways[n], 7000), own, "{} after {after}", gateways[n]);
            }
        };
        reaches_all("nothing");
        let before = host_routes();

        // ARP and ND, plain and behind tags of VLAN 0: the friend's addresses and the gateways'.
        let mut frames = Vec::new();
        for claimed in friends.iter().chain(&gateways) {
            let lie = announcement(*claimed, liar);
            frames.extend([tagged(&lie), tagged(&tagged(&lie)), lie]);
        }
        // The friend's place in the bridge's table: frames from its hardware address, and from the gateway's.
        for stolen in [lab.mac(friend, "eth0"), bridge] {
            let mut frame = announcement(friends[0], stolen);
            frame[..6].copy_from_slice(&[0xff; 6]);
            frames.extend([tagged(&frame), frame]);
        }
        lab.send_frames(INTRUDER, "eth0", &frames);
        reaches_all("lies about neighbours");
        let believed = lab.command(victim, &["ip", "neigh"]);
        let liars = liar.map(|b| format!("{b:02x}")).join(":");
        assert!(!believed.contains(&liars), "{believed}");

        // Redirects, in the gateway's name: the way out is the intruder; and that the way to the friend is narrow. Each
        // is about an answer to a ping, which the kernel sends by itself and so takes the message for true.
        let about = |to: IpAddr| {
            let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
            [&header[..], &v4(victims[0]), &v4(to), &[0; 8]].concat()
        };
        let liars_address = v4(lab.addresses("intruder", "front")[0]);
        let redirect4 = [&[5, 1, 0, 0][..], &liars_address, &about(OUTSIDE.into())].concat();
        let too_big4 = [&[3, 4, 0, 0, 0, 0, 2, 88][..], &about(friends[0])].concat();
        let link_local = lab.link_local(INTRUDER, "eth0");
        let gateway_link_local = eui64(bridge);
        let redirect6 =
            [&[137, 0, 0, 0, 0, 0, 0, 0][..], &link_local.octets(), &v6(friends[1]), &[2, 1], &liar].concat();
        // A router's advertisement: a default route by the intruder, to the victim and to the host.
        let advertisement = |source: Ipv6Addr| {
            let icmp = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
            icmp_frame([0x33, 0x33, 0, 0, 0, 1], liar, source.into(), "ff02::1".parse().unwrap(), icmp)
        };
        let forged = [
            icmp_frame(vmac, liar, gateways[0], victims[0], redirect4.clone()),
            icmp_frame(vmac, liar, gateways[0], victims[0], too_big4),
            icmp_frame(vmac, liar, gateway_link_local.into(), victims[1], redirect6.clone()),
            icmp_frame(bridge, liar, gateways[0], gateways[0], redirect4),
            icmp_frame(bridge, liar, gateway_link_local.into(), gateways[1], redirect6),
            advertisement(link_local),
            advertisement(gateway_link_local),
        ];
        let frames: Vec<Vec<u8>> = forged.iter().flat_map(|f| [f.clone(), tagged(f)]).collect();
        lab.send_frames(INTRUDER, "eth0", &frames);
        reaches_all("forged redirects and advertisements");
        let routes = lab.command(victim, &["ip", "-6", "route", "show", "default"]);
        assert_eq!(routes.lines().count(), 1, "{routes}");
        let way = |to: &str| lab.command(victim, &["ip", "route", "get", to]);
        let (near, far) = (way(&friends[0].to_string()), way(&OUTSIDE.to_string()));
        assert!(!near.contains(" via ") && !near.contains("mtu"), "{near}");
        assert!(far.contains(&format!("via {}", gateways[0])), "{far}");
        assert_eq!(host_routes(), before, "the host's own routes");
    }
}

fn v4(address: IpAddr) -> [u8; 4] {
    if let IpAddr::V4(ip) = address { ip.octets() } else { panic!("{address} is not IPv4") }
}

fn v6(address: IpAddr) -> [u8; 16] {
    if let IpAddr::V6(ip) = address { ip.octets() } else { panic!("{address} is not IPv6") }
}

/// The link-local address that a bridge has by its hardware address.
fn eui64(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

/// Sends datagrams from somewhere to a port of the host's that leads to a listener: those with false sources, and then
/// one with the sender's own, which shows that they have been dealt with. None of the false ones arrives: a flow that
/// seems to come from somebody else would let the listener and him talk, as if he had begun.
fn false_sources_do_not_arrive(
    lab: &Lab,
    (from, interface): (At<'_>, &str),
    (host, bridge): (SocketAddr, [u8; 6]),
    (own, listener): (IpAddr, &UdpSocket),
    false_ones: &[IpAddr],
) {
    // From a port of its own each time: nothing here belongs to a flow that is there.
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let (mac, port) = (lab.mac(from, interface), PORT.fetch_add(1, Ordering::Relaxed));
    let say = |source: IpAddr| udp_frame(bridge, mac, SocketAddr::new(source, port), host, &source.to_string());
    lab.send_frames(from, interface, &false_ones.iter().chain([&own]).copied().map(say).collect::<Vec<_>>());
    let mut buffer = [0; 64];
    let length = listener.recv(&mut buffer).expect("one with its own source arrives");
    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert_eq!(said, own.to_string(), "from {from:?} to {host}");
}

#[test]
fn sec_12_a_false_source_begins_no_flow_between_others() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        lab.bridge("quiet", json!({ "com.docker.network.bridge.enable_icc": "false" }));
        lab.network(json!({ "Name": "inner", "Internal": true, "EnableIPv6": true }));
        lab.run("inmate", sleeper("inner"));
        lab.run("two", sleeper("quiet"));
        for (name, network) in [("accomplice", "front"), ("one", "quiet")] {
            let mut body = publisher(network, &[("7777/udp", "", if name == "one" { "7778" } else { "7777" })]);
            // Whoever may change its addresses is held to them, too, where members are kept apart.
            if name == "one" && on {
                body["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"]);
            }
            lab.run(name, body);
        }
        for n in [0, 1] {
            let host: IpAddr = [HOST.into(), HOST6.into()][n];
            let outside: IpAddr = [OUTSIDE.into(), OUTSIDE6.into()][n];
            let listen = |container| {
                let socket = lab.inside(At::Container(container), || UdpSocket::bind((any(n == 1), 7777))).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket
            };
            let (target, inmate) = (lab.addresses("target", "back")[n], lab.addresses("inmate", "inner")[n]);
            let (foreign, own) = (gateways(&lab, "back")[n], lab.addresses("accomplice", "front")[n]);
            let listener = listen("accomplice");
            let bridge = (SocketAddr::new(host, 7777), lab.mac(At::Host, "br-front"));
            let at = (At::Container("accomplice"), "eth0");
            false_sources_do_not_arrive(&lab, at, bridge, (own, &listener), &[target, inmate, foreign]);
            let uplink = (SocketAddr::new(host, 7777), lab.mac(At::Host, "eth0"));
            let at = (At::Outside, "uplink0");
            false_sources_do_not_arrive(&lab, at, uplink, (outside, &listener), &[target, inmate, own, foreign]);

            let listener = listen("one");
            let (own, neighbour) = (lab.addresses("one", "quiet")[n], lab.addresses("two", "quiet")[n]);
            let bridge = (SocketAddr::new(host, 7778), lab.mac(At::Host, "br-quiet"));
            let at = (At::Container("one"), "eth0");
            false_sources_do_not_arrive(&lab, at, bridge, (own, &listener), &[neighbour]);
        }
        // Two accomplices on one network speak of a flow to another network to each other: nobody else believes in it.
        let asking = lab.inside(INTRUDER, || UdpSocket::bind((any(true), 4601))).unwrap();
        asking.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for n in [0, 1] {
            let (intruder, friend) = (lab.addresses("intruder", "front")[n], At::Container("friend"));
            let (near, far) = (lab.mac(INTRUDER, "eth0"), lab.mac(friend, "eth0"));
            let own = SocketAddr::new(intruder, 4601);
            let target = SocketAddr::new(lab.addresses("target", "back")[n], 80);
            lab.send_frames(INTRUDER, "eth0", &[udp_frame(far, near, own, target, "begun")]);
            lab.send_frames(friend, "eth0", &[udp_frame(near, far, target, own, "answered")]);
            asking.send_to(b"?", target).unwrap();
            // What is published is answered by the host's address, after all that.
            asking.send_to(b"?", ([IpAddr::V4(HOST), HOST6.into()][n], 8080)).unwrap();
            let heard = || {
                let (length, from) = asking.recv_from(&mut [0; 64]).expect("the published port answers");
                (length, from.ip().to_canonical(), from.port())
            };
            let mut first = heard();
            if first.2 == 80 && first.0 == "answered".len() {
                first = heard();
            }
            assert_eq!(first.2, 8080, "{first:?}, br_netfilter {on}");
        }
        // Nor has it a way back from outside, for what seems to have left.
        let witness = lab.inside(At::Outside, || UdpSocket::bind((any(true), 4444))).unwrap();
        witness.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for n in [0, 1] {
            let outside: IpAddr = [OUTSIDE.into(), OUTSIDE6.into()][n];
            let target = lab.addresses("target", "back")[n];
            let to = (SocketAddr::new(outside, 4444), lab.mac(At::Host, "br-front"));
            let own = lab.addresses("accomplice", "front")[n];
            false_sources_do_not_arrive(&lab, (At::Container("accomplice"), "eth0"), to, (own, &witness), &[target]);
        }
        // A neighbour who has the host forward him something in a container's name is still nobody that it talks to.
        for n in [0, 1] {
            let [outside, host]: [IpAddr; 2] = [[OUTSIDE.into(), HOST.into()], [OUTSIDE6.into(), HOST6.into()]][n];
            let (target, witness_port) = (SocketAddr::new(lab.addresses("target", "back")[n], 80), 4444);
            let (mac, to) = (lab.mac(At::Outside, "uplink0"), lab.mac(At::Host, "eth0"));
            let witnessed = SocketAddr::new(outside, witness_port);
            let frames = [(target, witnessed), (witnessed, target)].map(|(from, at)| udp_frame(to, mac, from, at, "?"));
            lab.send_frames(At::Outside, "uplink0", &frames);
            witness.send_to(b"?", (host, 8080)).unwrap();
            let (_, from) = witness.recv_from(&mut [0; 64]).expect("the published port answers");
            assert_eq!((from.ip().to_canonical(), from.port()), (host, 8080), "br_netfilter {on}");
        }
        // Nor does one who takes the host's own name for the answer to something that the host never asked.
        let hearing = lab.inside(TARGET, || UdpSocket::bind((any(true), 9998))).unwrap();
        hearing.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for n in [0, 1] {
            let host: IpAddr = [HOST.into(), HOST6.into()][n];
            let (target, unserved) = (lab.addresses("target", "back")[n], SocketAddr::new(host, 33333));
            let member = SocketAddr::new(target, 9998);
            let (mac, to) = (lab.mac(At::Outside, "uplink0"), lab.mac(At::Host, "eth0"));
            let frames = [(member, unserved), (unserved, member)].map(|(from, at)| udp_frame(to, mac, from, at, "?"));
            lab.send_frames(At::Outside, "uplink0", &frames);
            // The host itself may ask, and comes after them.
            lab.in_host(|| UdpSocket::bind((any(n == 1), 0)).and_then(|own| own.send_to(b"host", member))).unwrap();
            let mut said = [0; 16];
            let length = hearing.recv(&mut said).expect("the host is heard");
            assert_eq!(&said[..length], b"host", "{host}, br_netfilter {on}");
        }
        // Nor does the proxy carry a false source: to a container without IPv6, of a neighbour by IPv6.
        lab.network(json!({ "Name": "older" }));
        lab.run("older", publisher("older", &[("7000/udp", "", "7000")]));
        let carried = lab.inside(At::Container("older"), || UdpSocket::bind((any(false), 7000))).unwrap();
        carried.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = (SocketAddr::new(HOST6.into(), 7000), lab.mac(At::Host, "eth0"));
        let target = lab.addresses("target", "back")[1];
        let own = (OUTSIDE6.into(), &carried);
        false_sources_do_not_arrive(&lab, (At::Outside, "uplink0"), to, own, &[target]);
        // And the host's services hear of nobody but who asks.
        let service = lab.in_host(|| UdpSocket::bind((any(true), 5353))).unwrap();
        service.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for n in [0, 1] {
            let to = (SocketAddr::new(gateways(&lab, "front")[n], 5353), lab.mac(At::Host, "br-front"));
            let (target, own) = (lab.addresses("target", "back")[n], lab.addresses("accomplice", "front")[n]);
            false_sources_do_not_arrive(&lab, (At::Container("accomplice"), "eth0"), to, (own, &service), &[target]);
        }
    }
}

#[test]
fn sec_03_who_is_held_to_its_addresses_answers_for_those_on_other_networks() {
    for (on, lab) in labs() {
        let quiet = "com.docker.network.bridge.enable_icc";
        lab.bridge("way-out", json!({ quiet: "false" }));
        let routed = json!({
            quiet: "false",
            "com.docker.network.bridge.gateway_mode_ipv4": "routed",
            "com.docker.network.bridge.gateway_mode_ipv6": "routed",
        });
        lab.bridge("routed", routed);
        let mut body = publisher("way-out", &[("80/tcp", "", "8080")]);
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { "way-out": { "GwPriority": 1 }, "routed": {} } });
        lab.run("both", body);
        lab.serve(At::Container("both"), By::Tcp, 80);
        let hosts: [IpAddr; 2] = [HOST.into(), HOST6.into()];
        for (to, host) in lab.addresses("both", "routed").into_iter().zip(hosts) {
            ip(&lab, At::Outside, &format!("route add {to} via {host}"));
            assert!(lab.seen(At::Outside, By::Tcp, to, 80).is_some(), "{to}, br_netfilter {on}");
            let said = lab.command(At::Outside, &["ping", "-c1", "-W2", &to.to_string()]);
            assert!(said.contains(" 0% packet loss"), "{to}, br_netfilter {on}: {said}");
        }
    }
}

#[test]
fn sec_01_a_container_on_two_networks_is_no_way_between_them() {
    for (_, lab) in labs() {
        front_and_back(&lab);
        let mut body = sleeper("front");
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": {}, "back": {} } });
        lab.run("both", body);
        let (target, by) = (lab.addresses("target", "back"), lab.addresses("both", "front"));
        for (to, by) in target.iter().zip(by) {
            ip(&lab, INTRUDER, &format!("route replace {to} via {by}"));
        }
        is_out_of_reach(&lab, INTRUDER, &target, "by a member of both");
        // Unless it is told to be one.
        assert_eq!(lab.exec("both", &["cat", "/proc/sys/net/ipv4/ip_forward"]).ok(), "0");
        let mut router = sleeper("front");
        router["HostConfig"]["Sysctls"] = json!({ "net.ipv4.ip_forward": "1" });
        lab.run("router", router);
        assert_eq!(lab.exec("router", &["cat", "/proc/sys/net/ipv4/ip_forward"]).ok(), "1");
    }
}

#[test]
fn sec_12_a_scanning_container_does_not_fill_the_machines_neighbour_table() {
    // One value is enough: neighbours are looked up behind the firewall. The table is one for the whole machine, so the
    // scan is small, and what is asserted is that others do not depend on it: their entries are there for good.
    let lab = testkit::lab();
    front_and_back(&lab);
    lab.serve(At::Container("friend"), By::Tcp, 80);
    let friends = lab.addresses("friend", "front");
    let permanent = lab.command(At::Host, &["ip", "neigh", "show", "nud", "permanent"]);
    for address in lab.addresses("target", "back").iter().chain(&friends) {
        assert!(permanent.contains(&format!("{address} dev")), "{address}: {permanent}");
    }
    let inside = lab.command(At::Container("friend"), &["ip", "neigh", "show", "nud", "permanent"]);
    for gateway in gateways(&lab, "front") {
        assert!(inside.contains(&gateway.to_string()), "{inside}");
    }
    // What is not there is never asked for by the host on a container's behalf: its frames stay on the segment.
    let base = u32::from(Ipv4Addr::from(v4(friends[0]))) & !0x3ff;
    lab.inside(INTRUDER, || {
        let socket = UdpSocket::bind((any(false), 0)).unwrap();
        for n in 4..200 {
            let _ = socket.send_to(b"x", (Ipv4Addr::from(base + n), 9));
        }
    });
    for host in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
        assert!(lab.seen(At::Outside, By::Tcp, host, 8080).is_some(), "{host}");
        assert!(
            lab.seen(At::Container("target"), By::Tcp, gateways(&lab, "back")[usize::from(host.is_ipv6())], 8080)
                .is_some()
        );
    }
    let of_host = lab.command(At::Host, &["ip", "neigh", "show", "dev", "br-front"]);
    assert_eq!(of_host.lines().filter(|l| !l.contains("PERMANENT")).count(), 0, "{of_host}");
}

#[test]
fn sec_14_a_malformed_query_stalls_nobody() {
    let lab = testkit::lab();
    lab.bridge("front", json!({}));
    for name in ["intruder", "victim", "friend"] {
        lab.run(name, sleeper("front"));
    }
    let address = lab.address("friend", "front");
    // Half a message, a length that lies, nothing at all, and noise: kept open.
    let stuck: Vec<_> = [&b""[..], b"\x00", b"\xff\xff\x00\x01", b"\x00\x02\xff\xff", &[0; 64]]
        .iter()
        .map(|bytes| {
            lab.inside(INTRUDER, || {
                use std::io::Write;
                let mut stream = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
                stream.write_all(bytes).unwrap();
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.send_to(bytes, "127.0.0.11:53").unwrap();
                stream
            })
        })
        .collect();
    for who in ["victim", "intruder"] {
        within(Duration::from_secs(2), &format!("{who} finds its friend"), || {
            lab.lookup(who, "friend") == [address.as_str()]
        });
    }
    drop(stuck);
}

#[test]
fn sec_13_settings_are_made_where_proc_sys_is_read_only() {
    let lab = testkit::lab();
    lab.bridge("front", json!({}));
    let mut body = sleeper("front");
    body["HostConfig"]["Sysctls"] = json!({ "net.ipv4.ip_local_port_range": "2000 3000" });
    body["NetworkingConfig"]["EndpointsConfig"]["front"]["DriverOpts"] = json!({ "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=33" });
    lab.run("set", body);
    let read = |key: &str| lab.exec("set", &["cat", &format!("/proc/sys/net/{key}")]).ok();
    assert_eq!(read("ipv4/ip_local_port_range"), "2000\t3000");
    assert_eq!(read("ipv4/conf/eth0/log_martians"), "1", "BR-12");
    assert_eq!(read("ipv6/conf/eth0/hop_limit"), "33", "BR-12");
    assert_ne!(
        lab.exec("set", &["sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/eth0/log_martians"]).code,
        0,
        "read-only"
    );
    let wrong = json!({ "Container": "set", "EndpointConfig": { "DriverOpts": { "com.docker.network.endpoint.sysctls": "net.ipv4.ip_forward=1" } } });
    lab.bridge("back", json!({}));
    let refused = lab.tell("/networks/back/connect", wrong, 400).message();
    assert!(refused.contains("invalid endpoint setting \"net.ipv4.ip_forward=1\""), "{refused}");
}

#[test]
fn sec_06_an_internal_network_is_the_limit_of_what_leaves() {
    for (on, lab) in labs() {
        lab.network(json!({ "Name": "inner", "Internal": true, "EnableIPv6": true, "Options": { "com.docker.network.bridge.name": "br-inner" } }));
        lab.bridge("back", json!({}));
        lab.run("intruder", sleeper("inner"));
        lab.run("target", publisher("back", &[("80/tcp", "", "8080")]));
        // One without IPv6 and one without IPv4, which the proxy leads to.
        lab.network(json!({ "Name": "four" }));
        lab.network(json!({ "Name": "six", "EnableIPv4": false, "EnableIPv6": true }));
        lab.run("older", publisher("four", &[("80/tcp", "", "8090"), ("80/udp", "", "8090")]));
        lab.run("newer", publisher("six", &[("80/tcp", "", "8091"), ("80/udp", "", "8091")]));
        for by in [By::Tcp, By::Udp] {
            for at in [TARGET, At::Container("older"), At::Container("newer"), At::Outside] {
                lab.serve(at, by, 80);
            }
            assert!(lab.seen(At::Outside, by, HOST6.into(), 8090).is_some(), "the proxy serves {by:?}");
            assert!(lab.seen(At::Outside, by, HOST.into(), 8091).is_some(), "the proxy serves {by:?}");
        }
        lab.serve(At::Host, By::Tcp, 7000);
        let gateways = gateways(&lab, "inner");
        for gateway in &gateways {
            ip(&lab, INTRUDER, &format!("route add default via {gateway} dev eth0"));
            assert!(lab.seen(INTRUDER, By::Tcp, *gateway, 7000).is_some(), "the host's own service, as with Docker");
        }
        let hosts = gateways.iter().copied().chain([HOST.into(), HOST6.into()]).chain(self::gateways(&lab, "back"));
        for host in hosts {
            for (port, by) in [8080, 8090, 8091].into_iter().flat_map(|port| [(port, By::Tcp), (port, By::Udp)]) {
                assert_eq!(lab.seen(INTRUDER, by, host, port), None, "{by:?} to a published port by {host}");
            }
        }
        for to in [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)] {
            assert_eq!(lab.seen(INTRUDER, By::Tcp, to, 80), None, "{to}, br_netfilter {on}");
        }
        is_out_of_reach(&lab, INTRUDER, &lab.addresses("target", "back"), "from an internal network");
        assert_ne!(lab.exec("intruder", &["nslookup", "upstream.example"]).code, 0, "nor by questions");
    }
}

#[test]
fn sec_01_what_the_daemon_itself_listens_on_is_nobodys() {
    for (on, lab) in labs() {
        front_and_back(&lab);
        let said = lab.command(At::Host, &["ss", "-Htln"]);
        let ports: Vec<u16> = said
            .lines()
            .filter_map(|l| l.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok())
            .filter(|port| ![8080, 8081].contains(port))
            .collect();
        assert!(!ports.is_empty(), "the proxy's: {said}");
        let hosts = [IpAddr::V4(HOST), IpAddr::V6(HOST6)].into_iter().chain(gateways(&lab, "front"));
        for (host, port) in hosts.flat_map(|host| ports.iter().map(move |port| (host, *port))) {
            for from in [INTRUDER, At::Outside] {
                let reached = lab.inside(from, || {
                    std::net::TcpStream::connect_timeout(&SocketAddr::new(host, port), Duration::from_millis(300))
                        .is_ok()
                });
                assert!(!reached, "{host} {port} from {from:?}, br_netfilter {on}");
            }
        }
    }
}
