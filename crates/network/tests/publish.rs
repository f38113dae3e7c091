//! Published ports, from everywhere a client can be.

mod world;

use model::net::Protocol::{Tcp, Udp};
use std::os::fd::AsFd;
use world::*;

/// ```text
///  from            to a port published on all addresses          the container sees
///  outside         the host's address                            the client
///  the host        its own address, or 127.0.0.1                 itself, or the gateway
///  the container   the host's address                            the gateway (hairpin)
///  a neighbour     the host's address                            the gateway (hairpin)
///  another network the host's address                            the client
/// ```
#[test]
fn pt_07_a_published_port_is_reached_from_everywhere_by_any_address_of_the_host() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, neighbour) = (world.member(&bridge, 2), world.member(&bridge, 3));
    let other = world.member(&world.bridge(2), 2);
    for protocol in [Tcp, Udp] {
        for (n, ip) in a.both().into_iter().enumerate() {
            serve(&a, protocol, ip, 80);
            world.publish(protocol, if n == 0 { ANY4 } else { ANY6 }, ip);
        }
    }
    for on in [false, true] {
        world.br_netfilter(on);
        for protocol in [Tcp, Udp] {
            for (n, (host, outside)) in [(HOST4, OUTSIDE4), (HOST6, OUTSIDE6)].into_iter().enumerate() {
                let gateway = bridge.gateways[n].addr();
                let check = |who: &str, seen: std::io::Result<std::net::IpAddr>, expected| match seen {
                    Ok(seen) => assert_eq!(seen, expected, "{protocol} from {who} to {host}, br_netfilter {on}"),
                    Err(error) => panic!("{protocol} from {who} to {host}, br_netfilter {on}: {error}"),
                };
                check("outside", ask(&world.outside, protocol, host, 8080), outside);
                check("the host", ask(&world.host, protocol, host, 8080), host);
                if n == 0 {
                    check("127.0.0.1", ask(&world.host, protocol, LOCAL4, 8080), gateway);
                }
                check("a neighbour", ask(&neighbour, protocol, host, 8080), gateway);
                check("itself", ask(&a, protocol, host, 8080), gateway);
                check("a neighbour by the gateway", ask(&neighbour, protocol, gateway, 8080), gateway);
                check("another network (pt_12)", ask(&other, protocol, host, 8080), other.both()[n]);
            }
        }
    }
}

#[test]
fn pt_13_a_port_published_on_loopback_is_reached_from_the_host_only() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, neighbour) = (world.member(&bridge, 2), world.member(&bridge, 3));
    serve(&a, Tcp, a.v4(), 80);
    world.publish(Tcp, LOCAL4, a.v4());
    assert!(ask(&world.host, Tcp, LOCAL4, 8080).is_ok());
    assert!(ask(&world.outside, Tcp, HOST4, 8080).is_err());
    assert!(ask(&neighbour, Tcp, HOST4, 8080).is_err());
    // a packet to 127.0.0.1 that arrives from elsewhere: outside and a container route it to the host
    for (namespace, by) in [(world.outside.as_fd(), "198.51.100.1"), (neighbour.as_fd(), "10.1.0.1")] {
        look(namespace, &["sysctl", "-w", "net.ipv4.conf.all.route_localnet=1"]);
        look(namespace, &["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
        look(namespace, &["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"]);
        look(namespace, &["ip", "route", "replace", "127.0.0.1/32", "via", by]);
        assert!(ask(namespace, Tcp, LOCAL4, 8080).is_err(), "by {by}");
    }
    let rules = world.look(&["nft", "list", "ruleset"]);
    let meant = |l: &str| l.contains("ip daddr 127.0.0.0/8 counter packets") && l.contains(" drop comment ");
    assert!(rules.lines().any(meant), "nft reads our rules as they were meant: {rules}");
}

#[test]
fn pt_01_a_port_published_on_one_address_leads_there_before_one_on_all() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    for n in 0..2 {
        let (any, host) = [(ANY4, HOST4), (ANY6, HOST6)][n];
        serve(&a, Tcp, a.both()[n], 80);
        serve(&b, Tcp, b.both()[n], 81);
        let mut specific = publication(Tcp, host, b.both()[n]);
        specific.container_port = 81;
        world.publish(Tcp, any, a.both()[n]);
        world.network.publish(&[specific].into()).unwrap();
        assert!(ask(&world.outside, Tcp, host, 8080).is_ok());
        world.network.unpublish(&[specific_of(host, b.both()[n])].into()).unwrap();
        assert!(ask(&world.outside, Tcp, host, 8080).is_ok(), "the one on all addresses is still there");
    }

    fn specific_of(host: std::net::IpAddr, to: std::net::IpAddr) -> model::desired::Publication {
        let mut publication = publication(Tcp, host, to);
        publication.container_port = 81;
        publication
    }
}

#[test]
fn pt_17_ranges_keep_their_ports_or_shift_them() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    for (n, (any, host)) in [(ANY4, HOST4), (ANY6, HOST6)].into_iter().enumerate() {
        let ip = a.both()[n];
        for port in [3000, 3010, 12_999] {
            serve(&a, Tcp, ip, port);
        }
        let range = |host, first, to, count| model::desired::Publication {
            host,
            protocol: Tcp,
            host_port: first,
            count,
            container: ip,
            container_port: to,
            direct: false,
        };
        let published = [range(any, 3000, 3000, 10_000), range(host, 20_000, 3000, 11)].into();
        world.network.publish(&published).unwrap();
        for (port, reached) in
            [(3000, true), (3010, true), (12_999, true), (20_000, true), (20_010, true), (20_011, false)]
        {
            assert_eq!(ask(&world.outside, Tcp, host, port).is_ok(), reached, "{host} port {port}");
        }
        world.network.unpublish(&published).unwrap();
        assert!(ask(&world.outside, Tcp, host, 3000).is_err());
        assert!(ask(&world.outside, Tcp, host, 20_000).is_err());
    }
}

#[test]
fn pt_15_a_udp_flow_that_began_before_its_port_was_published_follows_it() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    let flow = |host| {
        kernel::netns::inside(world.outside.as_fd(), || {
            let socket =
                std::net::UdpSocket::bind(if std::net::IpAddr::is_ipv4(&host) { (ANY4, 0) } else { (ANY6, 0) })?;
            socket.set_read_timeout(Some(std::time::Duration::from_millis(300)))?;
            socket.connect((host, 8080))?;
            Ok::<_, std::io::Error>(socket)
        })
        .unwrap()
        .unwrap()
    };
    let talk = |socket: &std::net::UdpSocket| {
        let _ = socket.send(b"x"); // the answer to an earlier one may be an error that is told now
        let sent = socket.send(b"x");
        sent.and_then(|_| socket.recv(&mut [0; 64]))
    };
    for (n, (any, host)) in [(ANY4, HOST4), (ANY6, HOST6)].into_iter().enumerate() {
        serve(&a, Udp, a.both()[n], 80);
        let socket = flow(host);
        assert!(talk(&socket).is_err(), "nobody is there yet");
        let published = world.publish(Udp, any, a.both()[n]);
        world.network.settle();
        assert!(talk(&socket).is_ok(), "{host}: the same flow reaches the container now");
        world.network.unpublish(&published).unwrap();
        world.network.settle();
        assert!(talk(&socket).and_then(|_| talk(&socket)).is_err(), "{host}: and no longer");
    }
}

#[test]
fn pt_12_a_container_on_two_networks_is_reached_by_its_published_port_from_both() {
    let Some(world) = world() else { return };
    let (first, second) = (world.bridge(1), world.bridge(2));
    let a = world.member(&first, 2);
    let late = attachment(&second, 2, 1);
    world.network.attach(&a.sandbox, std::slice::from_ref(&late)).unwrap();
    let (near, far) = (world.member(&first, 3), world.member(&second, 3));
    for (n, ip) in a.both().into_iter().enumerate() {
        let host = [HOST4, HOST6][n];
        serve(&a, Tcp, ip, 80);
        world.publish(Tcp, [ANY4, ANY6][n], ip);
        for on in [false, true] {
            world.br_netfilter(on);
            assert!(ask(&near, Tcp, host, 8080).is_ok(), "{host} from its first network, br_netfilter {on}");
            let seen = ask(&far, Tcp, host, 8080);
            assert_eq!(seen.ok(), Some(first.gateways[n].addr()), "{host} from its second, br_netfilter {on}");
        }
    }
    world.network.detach(&a.sandbox, &late).unwrap();
    assert_eq!(ask(&far, Tcp, HOST4, 8080).ok(), Some(far.v4()), "nothing in common any more: the true address");
}

#[test]
fn pt_05_a_port_that_leads_somewhere_is_not_led_elsewhere() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    serve(&a, Tcp, a.v4(), 80);
    world.publish(Tcp, ANY4, a.v4());
    let other = [publication(Tcp, HOST4, b.v4()), publication(Tcp, ANY4, b.v4())].into();
    assert!(world.network.publish(&other).is_err());
    assert!(ask(&world.outside, Tcp, HOST4, 8080).is_ok(), "all or nothing: the first still leads to the first");
}
