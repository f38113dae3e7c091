//! Who reaches whom: inside a network, between networks, in and out; IPv4 and IPv6 alike.

mod world;

use model::desired::Outwards;
use model::net::Protocol::{Tcp, Udp};
use std::os::fd::AsFd;
use world::*;

#[test]
fn br_02_members_of_a_network_reach_each_other_with_and_without_br_netfilter() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    for on in [false, true] {
        world.br_netfilter(on);
        for (n, ip) in b.both().into_iter().enumerate() {
            for protocol in [Tcp, Udp] {
                let port = 1000 + 10 * u16::from(on) + n as u16;
                serve(&b, protocol, ip, port);
                let seen = ask(&a, protocol, ip, port);
                assert_eq!(seen.ok(), Some(a.both()[n]), "{protocol} to {ip}, br_netfilter {on}");
            }
        }
    }
}

#[test]
fn sec_01_members_of_different_networks_do_not_reach_each_other() {
    let Some(world) = world() else { return };
    let (first, second) = (world.bridge(1), world.bridge(2));
    let (a, b) = (world.member(&first, 2), world.member(&second, 2));
    for (n, ip) in b.both().into_iter().enumerate() {
        serve(&b, Tcp, ip, 80);
        for on in [false, true] {
            world.br_netfilter(on);
            assert!(ask(&a, Tcp, ip, 80).is_err(), "{ip}, br_netfilter {on}");
        }
        let gateway = first.gateways[n].addr();
        assert_eq!(ask(&world.host, Tcp, ip, 80).ok(), Some(second.gateways[n].addr()), "the host reaches {ip}");
        // the host's own services are reached by any of its addresses (SEC-05)
        serve(&world.host, Tcp, gateway, 81);
        assert!(ask(&a, Tcp, gateway, 81).is_ok(), "{gateway}");
    }
}

#[test]
fn pt_14_a_container_is_not_reached_from_outside_by_its_own_address() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    for ip in a.both() {
        serve(&a, Tcp, ip, 80);
        world.publish(Tcp, if ip.is_ipv4() { ANY4 } else { ANY6 }, ip);
        assert!(ask(&world.outside, Tcp, ip, 80).is_err(), "{ip}");
    }
    assert!(ask(&world.outside, Tcp, HOST4, 8080).is_ok(), "but by the published port");
}

#[test]
fn br_08_the_way_out_takes_the_hosts_address_unless_told_otherwise() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    let b = world.member(
        &world.bridge_with(2, |bridge| {
            bridge.border4.outwards = Outwards::Own;
            bridge.border6.outwards = Outwards::Own;
        }),
        2,
    );
    for (n, (outside, host)) in [(OUTSIDE4, HOST4), (OUTSIDE6, HOST6)].into_iter().enumerate() {
        serve(&world.outside, Tcp, outside, 80);
        assert_eq!(ask(&a, Tcp, outside, 80).ok(), Some(host), "{outside}");
        // its answers come back since outside's default route leads here
        assert_eq!(ask(&b, Tcp, outside, 80).ok(), Some(b.both()[n]), "{outside}");
    }
}

#[test]
fn sec_02_an_internal_network_has_no_way_out_and_none_in() {
    let Some(world) = world() else { return };
    let bridge = world.bridge_with(1, |bridge| bridge.internal = true);
    let by_gateway = |a: &mut model::desired::Attachment| a.default_routes = a.gateways.clone();
    // a container with a route of its own does not get out either
    let (a, b) = (world.member_with(&bridge, 2, by_gateway), world.member(&bridge, 3));
    let other = world.member(&world.bridge(2), 2);
    for (n, outside) in [OUTSIDE4, OUTSIDE6].into_iter().enumerate() {
        let (ip, any) = (a.both()[n], if n == 0 { ANY4 } else { ANY6 });
        serve(&world.outside, Tcp, outside, 80);
        serve(&a, Tcp, ip, 80);
        serve(&other, Tcp, other.both()[n], 80);
        world.publish(Tcp, any, other.both()[n]);
        assert!(ask(&a, Tcp, outside, 80).is_err(), "out to {outside}");
        assert!(ask(&a, Tcp, bridge.gateways[n].addr(), 8080).is_err(), "another network's published port");
        assert!(ask(&other, Tcp, ip, 80).is_err(), "in to {ip}");
        assert!(ask(&b, Tcp, ip, 80).is_ok(), "inside, to {ip}");
        assert!(ask(&world.host, Tcp, ip, 80).is_ok(), "the host to {ip}");
    }
}

#[test]
fn sec_03_without_icc_members_reach_each_other_by_published_ports_only() {
    for on in [false, true] {
        let Some(world) = world_where(on) else { return };
        let bridge = world.bridge_with(1, |bridge| bridge.icc = false);
        let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
        for (n, ip) in b.both().into_iter().enumerate() {
            let host = [HOST4, HOST6][n];
            serve(&b, Tcp, ip, 80);
            world.publish(Tcp, [ANY4, ANY6][n], ip);
            assert!(ask(&a, Tcp, ip, 80).is_err(), "{ip}, br_netfilter {on}");
            assert!(ask(&a, Tcp, host, 8080).is_ok(), "{host}, br_netfilter {on}");
            assert!(ask(&b, Tcp, host, 8080).is_ok(), "{host} from itself, br_netfilter {on}");
            assert!(ask(&world.outside, Tcp, host, 8080).is_ok(), "{host} from outside, br_netfilter {on}");
            // whoever flips the switch while containers run does not let them at each other
            world.br_netfilter(!on);
            assert!(ask(&a, Tcp, ip, 80).is_err(), "{ip}, br_netfilter flipped from {on}");
            world.br_netfilter(on);
        }
    }
}

#[test]
fn sec_03_a_container_cannot_forge_the_note_of_a_published_port() {
    let Some(world) = world_where(true) else { return };
    let bridge = world.bridge_with(1, |bridge| bridge.icc = false);
    let (a, b) = (world.member_with(&bridge, 2, |a| a.trusted = true), world.member(&bridge, 3));
    for rule in [
        "add table inet forged",
        "add chain inet forged out { type filter hook output priority 0; }",
        "add rule inet forged out counter meta priority set 1513:1",
    ] {
        assert_eq!(look(a.as_fd(), &["nft", rule]), "");
    }
    serve(&b, Udp, b.v4(), 80);
    world.br_netfilter(false); // the firewall of IP is out of the way: what is left is the note
    assert!(ask(&a, Udp, b.v4(), 80).is_err());
    let sent = look(a.as_fd(), &["nft", "list", "table", "inet", "forged"]);
    assert!(!sent.contains("packets 0 "), "{sent}");
}

#[test]
fn sec_03_a_route_through_the_gateway_does_not_get_around_icc() {
    let Some(world) = world() else { return };
    let bridge = world.bridge_with(1, |bridge| bridge.icc = false);
    // with NET_ADMIN it may route as it likes: everything goes by the gateway
    let (a, b) = (world.member_with(&bridge, 2, |a| a.trusted = true), world.member(&bridge, 3));
    serve(&b, Tcp, b.v4(), 80);
    look(a.as_fd(), &["ip", "route", "del", "10.1.0.0/24"]);
    look(a.as_fd(), &["ip", "route", "replace", "10.1.0.1/32", "dev", "eth0"]);
    look(a.as_fd(), &["ip", "route", "replace", "default", "via", "10.1.0.1"]);
    for on in [false, true] {
        world.br_netfilter(on);
        assert!(ask(&a, Tcp, b.v4(), 80).is_err(), "br_netfilter {on}");
    }
}

#[test]
fn sec_11_a_network_without_ipv6_gives_none() {
    let Some(world) = world() else { return };
    let bridge = world.bridge_with(1, |bridge| {
        bridge.gateways.truncate(1);
        bridge.subnets.truncate(1);
    });
    let a = world.member_with(&bridge, 2, |a| {
        a.addresses.truncate(1);
        a.gateways.truncate(1);
        a.default_routes.truncate(1);
    });
    let text = look(a.as_fd(), &["ip", "-6", "addr", "show", "dev", "eth0"]);
    assert_eq!(text, "", "not even a link-local address");
}

/// IPv6 addresses receive at once too, although a worker of the kernel's makes them.
/// From 6.8 on the kernel acts on a carrier when it is asked about the link; before, it comes to it by itself.
#[test]
fn the_first_packet_after_attaching_arrives() {
    let Some(world) = world() else { return };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(8)) {
        eprintln!("SKIP: kernel {release} brings carriers up in its own time");
        return;
    }
    for n in 1..40 {
        let bridge = world.bridge(n);
        let a = world.member(&bridge, 2);
        for ip in a.both() {
            serve(&a, Udp, ip, 80);
        }
        let ip = a.both()[usize::from(n % 2)];
        ask(&world.host, Udp, ip, 80).unwrap_or_else(|error| panic!("from the host to {ip}: {error}"));
        let b = world.member(&bridge, 3);
        ask(&b, Udp, ip, 80).unwrap_or_else(|error| panic!("from a neighbour to {ip}: {error}"));
    }
}
