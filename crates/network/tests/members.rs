//! Members cannot pose as each other, nor as the gateway (SEC-12), although containers may write frames by hand.

mod world;

use kernel::packet::{FrameSocket, announcement};
use kernel::{link, netns};
use model::net::Protocol::{Tcp, Udp};
use network::Features;
use std::net::IpAddr;
use std::os::fd::AsFd;
use world::*;

/// Sends frames from inside a sandbox by its first interface.
fn send(member: &Member, frames: &[Vec<u8>]) {
    netns::inside(member.as_fd(), || {
        let mut socket = kernel::netlink::Socket::open(kernel::netlink::Protocol::Route).unwrap();
        let link = link::find(&mut socket, "eth0").unwrap().index;
        let socket = FrameSocket::open().unwrap();
        frames.iter().for_each(|frame| socket.send(link, frame).unwrap());
    })
    .unwrap();
}

/// What a sandbox takes the hardware address of a neighbour for.
fn believed(member: &Member, ip: IpAddr) -> String {
    look(member.as_fd(), &["ip", "neigh", "show", &ip.to_string()])
}

/// With tags in front of what the frame is: no receiver minds a tag of VLAN 0.
fn tagged(frame: &[u8], tags: &[[u8; 2]]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for tag in tags {
        out.extend_from_slice(tag);
        out.extend_from_slice(&[0, 0]);
    }
    out.extend_from_slice(&frame[12..]);
    out
}

#[test]
fn sec_12_no_member_takes_anothers_address_by_arp_or_nd() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (victim, peer, liar) = (world.member(&bridge, 2), world.member(&bridge, 3), world.member(&bridge, 4));
    let liars_mac = liar.attachments[0].mac;
    for (n, ip) in peer.both().into_iter().enumerate() {
        serve(&peer, Tcp, ip, 80);
        assert!(ask(&victim, Tcp, ip, 80).is_ok());
        let true_mac = peer.attachments[0].mac.to_string();
        assert!(believed(&victim, ip).contains(&true_mac), "{}", believed(&victim, ip));
        for claimed in [ip, bridge.gateways[n].addr()] {
            let lie = announcement(claimed, liars_mac.0);
            let (q, ad) = ([0x81, 0], [0x88, 0xa8]);
            let mut reply = lie.clone();
            if n == 0 {
                reply[21] = 2; // a reply instead of a request
            }
            send(&liar, &[lie.clone(), reply, tagged(&lie, &[q]), tagged(&lie, &[q, q]), tagged(&lie, &[ad, q])]);
            // in order: what the liar says next arrives after the lies
            serve(&liar, Tcp, liar.both()[n], 81 + u16::from(claimed == ip));
            assert!(ask(&victim, Tcp, liar.both()[n], 81 + u16::from(claimed == ip)).is_ok());
            assert!(!believed(&victim, claimed).contains(&liars_mac.to_string()), "{}", believed(&victim, claimed));
        }
        assert!(ask(&victim, Tcp, ip, 80).is_ok());
    }
}

#[test]
fn sec_12_frames_with_another_hardware_address_go_nowhere() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (peer, liar) = (world.member(&bridge, 3), world.member(&bridge, 4));
    serve(&peer, Tcp, peer.v4(), 80);
    assert!(ask(&liar, Tcp, peer.v4(), 80).is_ok());
    look(liar.as_fd(), &["ip", "link", "set", "eth0", "address", "02:42:01:00:00:99"]);
    assert!(ask(&liar, Tcp, peer.v4(), 80).is_err(), "a changed hardware address is cut off");
    look(liar.as_fd(), &["ip", "link", "set", "eth0", "address", &peer.attachments[0].mac.to_string()]);
    assert!(ask(&liar, Tcp, bridge.gateways[0].addr(), 80).is_err());
    assert!(ask(&world.host, Tcp, peer.v4(), 80).is_ok(), "its owner is reached all the same");
}

#[test]
fn sec_12_without_locked_ports_the_firewall_checks_hardware_addresses() {
    let Some(world) = world_limited(|features| Features { locked_ports: false, ..features }) else { return };
    let bridge = world.bridge(1);
    let (peer, liar) = (world.member(&bridge, 3), world.member(&bridge, 4));
    for ip in peer.both() {
        serve(&peer, Tcp, ip, 80);
        assert!(ask(&liar, Tcp, ip, 80).is_ok());
    }
    look(liar.as_fd(), &["ip", "link", "set", "eth0", "address", "02:42:01:00:00:99"]);
    assert!(ask(&liar, Tcp, peer.v4(), 80).is_err(), "a changed hardware address is cut off");
}

#[test]
fn sec_12_where_sources_are_checked_no_packet_has_anothers() {
    let Some(world) = world() else { return };
    for strict in [false, true] {
        let bridge = world.bridge_with(1 + u8::from(strict), |bridge| bridge.check_sources = strict);
        let (peer, liar) = (world.member(&bridge, 3), world.member(&bridge, 4));
        serve(&peer, Udp, peer.v4(), 80);
        look(liar.as_fd(), &["ip", "addr", "add", &format!("10.{}.0.77/24", bridge.mac.0[2]), "dev", "eth0"]);
        let counted = |what: &str| {
            let text = look(peer.as_fd(), &["cat", "/proc/net/snmp"]);
            let lines: Vec<Vec<&str>> =
                text.lines().filter(|l| l.starts_with("Udp:")).map(|l| l.split(' ').collect()).collect();
            let at = lines[0].iter().position(|word| *word == what).unwrap();
            lines[1][at].parse::<u64>().unwrap()
        };
        assert!(ask(&liar, Udp, peer.v4(), 80).is_ok(), "its own address passes");
        let before = counted("InDatagrams");
        netns::inside(liar.as_fd(), || {
            let source = format!("10.{}.0.77:0", bridge.mac.0[2]);
            let socket = std::net::UdpSocket::bind(source).unwrap();
            socket.send_to(b"x", (peer.v4(), 80)).unwrap();
        })
        .unwrap();
        assert!(ask(&liar, Udp, peer.v4(), 80).is_ok());
        assert_eq!(counted("InDatagrams") - before, if strict { 1 } else { 2 }, "sources checked: {strict}");
    }
}

#[test]
fn sec_12_a_container_with_net_admin_may_have_addresses_of_its_own() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (peer, router) = (world.member(&bridge, 3), world.member_with(&bridge, 4, |a| a.trusted = true));
    look(router.as_fd(), &["ip", "addr", "add", "10.1.0.77/24", "dev", "eth0"]);
    serve(&router, Tcp, ANY4, 80);
    assert!(ask(&peer, Tcp, "10.1.0.77".parse().unwrap(), 80).is_ok());
}

#[test]
fn sec_12_a_router_advertisement_of_a_container_changes_no_routes_of_the_host() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    for key in ["accept_ra", "accept_redirects"] {
        assert_eq!(world.get(&format!("net/ipv6/conf/{}/{key}", bridge.device)), "0");
    }
    assert_eq!(world.get(&format!("net/ipv4/conf/{}/accept_redirects", bridge.device)), "0");
    assert_eq!(world.get(&format!("net/ipv4/conf/{}/route_localnet", bridge.device)), "1");
    assert_eq!(world.get("net/ipv4/conf/up0/route_localnet"), "0", "on our bridges only");
}

#[test]
fn br_05_neighbours_hear_that_an_address_has_a_new_owner() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    for ip in b.both() {
        serve(&b, Tcp, ip, 80);
        assert!(ask(&a, Tcp, ip, 80).is_ok());
    }
    world.network.detach(&b.sandbox, &b.attachments[0]).unwrap();
    let c = world.member_with(&bridge, 9, |c| c.addresses = b.attachments[0].addresses.clone());
    world.network.settle();
    for ip in b.both() {
        serve(&c, Tcp, ip, 80);
        assert!(ask(&a, Tcp, ip, 80).is_ok(), "{ip}");
    }
}

#[test]
fn br_10_the_way_out_moves_with_the_gateway() {
    let Some(world) = world() else { return };
    let (first, second) = (world.bridge(1), world.bridge(2));
    let a = world.member(&first, 2);
    world.network.attach(&a.sandbox, &[attachment(&second, 2, 1)]).unwrap();
    let way = |family: &str| look(a.as_fd(), &["ip", family, "route", "show", "default"]);
    assert!(way("-4").contains("10.1.0.1") && way("-6").contains("fd00:1::1"));
    let [v4, v6] = [second.gateways[0].addr(), second.gateways[1].addr()];
    world.network.set_default_routes(&a.sandbox, Some(v4), Some(v6)).unwrap();
    assert!(way("-4").contains("via 10.2.0.1 dev eth1") && way("-6").contains("via fd00:2::1 dev eth1"));
    assert_eq!((way("-4").lines().count(), way("-6").lines().count()), (1, 1));
    world.network.set_default_routes(&a.sandbox, None, None).unwrap();
    world.network.set_default_routes(&a.sandbox, None, None).unwrap();
    assert_eq!((way("-4"), way("-6")), (String::new(), String::new()));
}

#[test]
fn br_12_settings_of_an_endpoint_are_made_before_it_is_up() {
    let Some(world) = world() else { return };
    let a = world.member_with(&world.bridge(1), 2, |a| {
        a.sysctls.insert("net.ipv4.conf.eth0.log_martians".into(), "1".into());
    });
    let read = netns::inside(a.as_fd(), || kernel::sysctl::read("net.ipv4.conf.eth0.log_martians")).unwrap();
    assert_eq!(read.unwrap(), "1");
}

#[test]
fn br_17_the_1024th_endpoint_gets_a_clear_error() {
    let Some(world) = world() else { return };
    let bridge = world.bridge_with(1, |bridge| {
        bridge.gateways = vec!["10.1.0.1/16".parse().unwrap()];
        bridge.subnets = vec!["10.1.0.0/16".parse().unwrap()];
    });
    // bare ports, by hand: what is counted is ports
    let script: String = (0..512)
        .map(|n| {
            let device = &bridge.device;
            let second = if n < 511 { format!("link set q{n} master {device}\n") } else { String::new() };
            format!("link add p{n} master {device} type veth peer name q{n}\n{second}")
        })
        .collect();
    let file = std::env::temp_dir().join(format!("isle-1023-ports-{}", std::process::id()));
    std::fs::write(&file, script).unwrap();
    let said = world.look(&["ip", "-batch", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(said, "");
    let endpoint = attachment(&bridge, 2, 0);
    let sandbox = world.network.create_sandbox(&endpoint.sandbox, false).unwrap();
    let error = world.network.attach(&sandbox, &[endpoint]).unwrap_err();
    assert!(error.to_string().contains("1023"), "{error}");
}
