//! What happens over time: a restart, a crash, somebody's hand in the kernel.

mod world;

use kernel::netlink::{Protocol, Socket};
use kernel::{link, netns};
use model::desired::{Attachment, Bridge, Desired, Publication};
use model::net::Protocol::{Tcp, Udp};
use network::{Error, Features, Loss, Network, PortError, PortRequest, Role, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use world::*;

/// A network with two members, the first one published, and the value that says so.
struct Running {
    world: World,
    bridge: Bridge,
    members: Vec<Arc<network::Sandbox>>,
    desired: Desired,
}

fn running() -> Option<Running> {
    running_in(world())
}

fn running_in(world: Option<World>) -> Option<Running> {
    let world = world?;
    let bridge = world.bridge(1);
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    let mut desired = Desired::default();
    desired.bridges.insert(bridge.network, bridge.clone());
    for attachment in a.attachments.iter().chain(&b.attachments) {
        desired.attachments.insert(attachment.endpoint, attachment.clone());
    }
    let mut publications = BTreeSet::new();
    for (n, any) in [ANY4, ANY6].into_iter().enumerate() {
        for protocol in [Tcp, Udp] {
            publications.extend(world.publish(protocol, any, a.both()[n]));
        }
    }
    desired.publications.insert(a.attachments[0].endpoint, publications);
    serve(&a, Tcp, ANY6, 80);
    let members = vec![Arc::new(a.sandbox), Arc::new(b.sandbox)];
    Some(Running { world, bridge, members, desired })
}

impl Running {
    fn reconcile(&self, network: &Network) -> network::Report {
        let report = network
            .reconcile(&self.desired, |id| self.members.iter().find(|sandbox| sandbox.id == *id).cloned())
            .unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        report
    }
    fn works(&self) -> bool {
        let inside = |ip: &str| ask(self.members[1].as_fd(), Tcp, ip.parse().unwrap(), 80).is_ok();
        inside("10.1.0.2")
            && inside("fd00:1::2")
            && ask(&self.world.outside, Tcp, HOST4, 8080).is_ok()
            && ask(&self.world.outside, Tcp, HOST6, 8080).is_ok()
            && ask(&self.world.host, Tcp, LOCAL4, 8080).is_ok()
    }
}

#[test]
fn lc_06_what_is_as_it_shall_be_needs_no_repair() {
    let Some(running) = running() else { return };
    let report = running.reconcile(&running.world.network);
    assert!(report.mended.is_empty() && report.removed.is_empty(), "{report:?}");
    assert!(running.works());
}

#[test]
fn lc_06_whatever_a_hand_did_is_mended() {
    let Some(running) = running() else { return };
    let world = &running.world;
    let device = running.bridge.device.as_str();
    let port = running.desired.attachments.values().next().unwrap().outer.as_str();
    let acts: &[(&str, Vec<&str>)] = &[
        ("the bridge was deleted", vec!["ip", "link", "del", device]),
        ("a port was deleted", vec!["ip", "link", "del", port]),
        ("a port left its bridge", vec!["ip", "link", "set", port, "nomaster"]),
        ("a port was unlocked", vec!["bridge", "link", "set", "dev", port, "locked", "off", "learning", "on"]),
        ("the bridge went down and up", vec!["ip", "link", "set", device, "down"]),
        ("a gateway's address was taken away", vec!["ip", "addr", "del", "10.1.0.1/24", "dev", device]),
        ("the bridge got another address", vec!["ip", "addr", "add", "10.77.0.1/24", "dev", device]),
        ("the neighbours were forgotten", vec!["ip", "neigh", "flush", "nud", "permanent", "dev", device]),
        ("the bridge got another hardware address", vec!["ip", "link", "set", device, "address", "02:00:00:00:00:77"]),
    ];
    for (what, command) in acts {
        let said = world.look(command);
        assert_eq!(said, "", "{what}");
        let report = running.reconcile(&world.network);
        assert!(!report.mended.is_empty(), "{what}");
        let again = running.reconcile(&world.network);
        assert!(again.mended.is_empty() && again.removed.is_empty(), "after {what}: {again:?}");
        assert!(running.works(), "{what}");
    }
}

#[test]
fn lc_04_what_carries_our_mark_and_nobody_wants_is_removed_and_nothing_else() {
    let Some(mut running) = running() else { return };
    let (a, gone) = {
        let mut attachments = running.desired.attachments.values();
        (attachments.next().unwrap().clone(), attachments.next().unwrap().clone())
    };
    running.desired.attachments.remove(&gone.endpoint);
    let other = running.world.bridge(2); // and nobody desires it
    running.world.look(&["ip", "link", "add", "br-ffffffffffff", "type", "bridge"]);
    running.world.look(&["ip", "link", "set", "br-ffffffffffff", "alias", "isle:00000000:0101"]);
    let report = running.reconcile(&running.world.network);
    assert!(report.removed.iter().any(|what| what.contains(other.device.as_str())), "{report:?}");
    assert!(report.removed.iter().any(|what| what.contains(gone.outer.as_str())), "{report:?}");
    let links = running.world.network.observe().unwrap().links;
    for (name, there) in [
        (other.device.as_str(), false),
        (gone.outer.as_str(), false),
        (a.outer.as_str(), true),
        ("br-ffffffffffff", true),
    ] {
        assert_eq!(links.contains_key(name), there, "{name}");
    }
    let again = running.reconcile(&running.world.network);
    assert!(again.mended.is_empty() && again.removed.is_empty(), "{again:?}");
}

#[test]
fn lc_05_a_restart_keeps_the_firewall_and_a_foreign_flush_does_not_touch_it() {
    let Some(running) = running() else { return };
    let owner = running.world.network.owner().unwrap();
    assert!(running.works());
    // the successor takes the socket over, and finds everything in place
    let successor = open(&running.world.host, None, Some(owner));
    let report = running.reconcile(&successor);
    assert!(report.mended.is_empty() && report.removed.is_empty(), "{report:?}");
    running.world.look(&["nft", "flush", "ruleset"]);
    if successor.features().owned_tables {
        assert!(running.works(), "an owned table is left alone");
    }
    running.reconcile(&successor);
    assert!(running.works());
}

#[test]
fn lc_05_where_tables_cannot_be_owned_a_foreign_flush_is_heard_and_mended() {
    let Some(mut running) = running_in(world_limited(|features| Features { owned_tables: false, ..features })) else {
        return;
    };
    let mut watch = running.world.network.watch().unwrap();
    assert_eq!(watch.read().unwrap(), []);
    running.world.look(&["nft", "flush", "ruleset"]);
    assert_eq!(watch.read().unwrap(), [Loss::Rules]);
    running.reconcile(&running.world.network);
    assert!(running.works());
    watch.read().unwrap();
    running.world.look(&["ip", "link", "del", running.bridge.device.as_str()]);
    assert_eq!(watch.read().unwrap(), [Loss::Link(running.bridge.device.to_string())]);
    running.reconcile(&running.world.network);
    assert!(running.works());

    // a kernel that learns to own tables takes these over
    let desired = std::mem::take(&mut running.desired);
    drop(watch);
    let newer = open(&running.world.host, None, Some(running.world.network.owner().unwrap()));
    running.desired = desired;
    let report = running.reconcile(&newer);
    assert!(report.mended.is_empty() && report.removed.is_empty(), "{report:?}");
    if newer.features().owned_tables {
        running.world.look(&["nft", "flush", "ruleset"]);
    }
    assert!(running.works());
}

#[test]
fn v6_05_without_forwarding_by_interface_all_forward_and_uplinks_go_on_hearing_routers() {
    let Some(world) = world_limited(|features| Features { force_forwarding: false, ..features }) else { return };
    world.set("net.ipv6.conf.all.forwarding", "0");
    world.set("net.ipv6.conf.up0.accept_ra", "1");
    let a = world.member(&world.bridge(1), 2);
    assert_eq!(world.get("net.ipv6.conf.all.forwarding"), "1");
    assert_eq!(world.get("net.ipv6.conf.up0.accept_ra"), "2");
    serve(&a, Tcp, a.v6(), 80);
    world.publish(Tcp, ANY6, a.v6());
    assert!(ask(&world.outside, Tcp, HOST6, 8080).is_ok());
}

#[test]
fn lc_06_a_crash_of_everybody_leaves_tables_that_are_claimed_again() {
    let Some((host, _outside)) = bare() else { return };
    let first = open(&host, None, None);
    let bridge = bridge(1);
    first.create_bridge(&bridge).unwrap();
    drop(first);
    let second = open(&host, None, None);
    let mut desired = Desired::default();
    desired.bridges.insert(bridge.network, bridge);
    let report = second.reconcile(&desired, |_| None).unwrap();
    assert!(report.mended.is_empty() && report.removed.is_empty() && report.failed.is_empty(), "{report:?}");
    if second.features().owned_tables {
        let settings = network::Settings {
            root: root(),
            owner: None,
            proxy_port: None,
            forwarding: true,
            integration: true,
            accept_mark: None,
        };
        let third = netns::inside(host.as_fd(), || Network::open(settings)).unwrap();
        assert!(matches!(third, Err(Error::TablesHeld { .. })), "two daemons on one root: {third:?}");
    }
}

#[test]
fn lc_12_rules_of_another_version_are_replaced_and_what_is_published_stays() {
    let Some((host, _outside)) = bare() else { return };
    let first = open(&host, None, None);
    first.create_bridge(&bridge(1)).unwrap();
    let before = first.observe().unwrap().elements.unwrap();
    drop(first);
    // somebody changed a chain while nobody owned the table
    let table = format!("isle-{}", root());
    assert_eq!(look(host.as_fd(), &["nft", "flush", "chain", "inet", &table, "forward"]), "");
    let second = open(&host, None, None);
    assert_eq!(second.observe().unwrap().elements, Some(before));
}

#[test]
fn br_02_a_bridge_of_the_users_is_used_and_never_deleted() {
    let Some(world) = world() else { return };
    world.look(&["ip", "link", "add", "mine", "address", "02:00:00:00:00:55", "type", "bridge"]);
    let bridge = world.bridge_with(1, |bridge| bridge.device = name("mine"));
    let (a, b) = (world.member(&bridge, 2), world.member(&bridge, 3));
    serve(&b, Tcp, b.v4(), 80);
    serve(&world.host, Tcp, bridge.gateways[0].addr(), 81);
    assert!(ask(&a, Tcp, b.v4(), 80).is_ok());
    assert!(ask(&a, Tcp, bridge.gateways[0].addr(), 81).is_ok(), "the gateway, at the bridge's own hardware address");
    // it may snoop multicast, and hear a querier: neighbours are found all the same
    world.look(&["ip", "link", "set", "mine", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1"]);
    look(a.as_fd(), &["ip", "-6", "neigh", "flush", "dev", "eth0"]);
    serve(&b, Tcp, b.v6(), 80);
    assert!(ask(&a, Tcp, b.v6(), 80).is_ok());
    world.network.release(&a.attachments).unwrap();
    world.network.remove_bridge(&bridge).unwrap();
    assert!(world.network.observe().unwrap().links.contains_key("mine"));

    world.look(&["ip", "link", "add", "dum", "type", "veth"]);
    let mut wrong = world::bridge(2);
    wrong.device = name("dum");
    assert!(matches!(world.network.create_bridge(&wrong), Err(Error::NameTaken { .. })));
}

#[test]
fn lc_02_a_dropped_sandbox_leaves_nothing() {
    let Some(world) = world() else { return };
    let before = world.network.observe().unwrap();
    let bridge = world.bridge(1);
    let with_bridge = world.network.observe().unwrap();
    let a = world.member(&bridge, 2);
    let published = world.publish(Udp, ANY4, a.v4());
    let resolver = world.network.open_resolver(&a.sandbox, true).unwrap();
    world.network.unpublish(&published).unwrap();
    world.network.release(&a.attachments).unwrap();
    drop((a, resolver));
    // the kernel tidies up in its own time
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.network.observe().unwrap() != with_bridge {
        assert!(std::time::Instant::now() < deadline, "{:?}", world.network.observe().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    world.network.remove_bridge(&bridge).unwrap();
    assert_eq!(world.network.observe().unwrap(), before);
    // once more is no error
    world.network.remove_bridge(&bridge).unwrap();
    world.network.unpublish(&published).unwrap();
    world.network.leave().unwrap();
    let left = world.network.observe().unwrap();
    assert_eq!((left.elements, left.links.into_keys().collect::<Vec<_>>()), (None, vec!["lo".into(), "up0".into()]));
}

#[test]
fn a_sandbox_is_adopted_by_its_descriptor() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    let again = world.network.adopt_sandbox(&a.sandbox.id, a.sandbox.netns.try_clone().unwrap()).unwrap();
    let second = world.bridge(2);
    world.network.attach(&again, &[attachment(&second, 2, 1)]).unwrap();
    let names = || {
        let list = || link::list(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
        let links = netns::inside(a.sandbox.netns.as_fd(), list).unwrap();
        links.into_iter().filter(|link| !link.loopback).map(|link| link.name).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["eth0", "eth1"]);
    world.network.detach(&again, &attachment(&second, 2, 1)).unwrap();
    assert_eq!(names(), ["eth0"]);
}

#[test]
fn ip_03_the_hosts_networks_are_known_and_ours_are_not_among_them() {
    let Some(world) = world() else { return };
    world.bridge(1);
    let nets: Vec<String> = world.network.host_routes().unwrap().iter().map(|net| net.to_string()).collect();
    assert_eq!(nets, ["198.51.100.0/24", "2001:db8::/64"]);
    assert_eq!(world.network.uplink_mtu().unwrap(), 1500);
    world.look(&["ip", "link", "set", "up0", "mtu", "1400"]);
    assert_eq!(world.network.uplink_mtu().unwrap(), 1400);
}

#[test]
fn v6_05_the_host_forwards_and_goes_on_hearing_its_router() {
    let Some(world) = world() else { return };
    assert_eq!(world.get("net.ipv4.ip_forward"), "1");
    let before = world.get("net.ipv6.conf.all.forwarding");
    let bridge = world.bridge(1);
    if world.network.features().force_forwarding {
        assert_eq!(world.get("net.ipv6.conf.all.forwarding"), before, "only by interface");
        assert_eq!(world.get("net.ipv6.conf.up0.force_forwarding"), "1");
        assert_eq!(world.get(&format!("net/ipv6/conf/{}/force_forwarding", bridge.device)), "1");
    } else {
        assert_eq!(world.get("net.ipv6.conf.all.forwarding"), "1");
    }
}

// reservation

fn request(hosts: &[(IpAddr, IpAddr)], protocol: model::net::Protocol, ports: (u16, u16), count: u16) -> PortRequest {
    PortRequest {
        targets: hosts.iter().map(|(host, container)| Target { host: *host, container: *container }).collect(),
        protocol,
        ports: ports.0..=ports.1,
        count,
        container_port: 80,
    }
}

#[test]
fn pt_05_a_taken_port_and_an_address_of_somebody_else_are_told_apart() {
    let Some(world) = world() else { return };
    let a: IpAddr = "10.1.0.2".parse().unwrap();
    let _server = netns::inside(world.host.as_fd(), || TcpListener::bind((HOST4, 8080))).unwrap().unwrap();
    let taken = world.network.reserve(&[request(&[(ANY4, a)], Tcp, (8080, 8080), 1)], &[]).unwrap_err();
    assert!(matches!(taken, PortError::Taken { port: 8080, .. }), "{taken:?}");
    assert_eq!(taken.to_string(), "port 0.0.0.0:8080/tcp is already in use");
    let elsewhere = "192.0.2.1".parse().unwrap();
    let absent = world.network.reserve(&[request(&[(elsewhere, a)], Tcp, (8080, 8080), 1)], &[]).unwrap_err();
    assert!(matches!(absent, PortError::NotHere { .. }), "{absent:?}");
    // the first free one of a range; and when none is
    let range = request(&[(ANY4, a)], Tcp, (8080, 8081), 1);
    let got = world.network.reserve(std::slice::from_ref(&range), &[]).unwrap();
    assert_eq!(got[0].host_port, 8081);
    let none = world.network.reserve(&[range], &[]).unwrap_err();
    assert!(matches!(none, PortError::NoneFree { .. }), "{none:?}");
    // all or none: the first of two is free again
    let both = [request(&[(ANY4, a)], Tcp, (9000, 9000), 1), request(&[(ANY4, a)], Tcp, (8081, 8081), 1)];
    assert!(world.network.reserve(&both, &[]).is_err());
    assert!(world.network.reserve(&both[..1], &[]).is_ok());
}

#[test]
fn pt_03_all_addresses_of_a_group_get_the_same_port() {
    let Some(world) = world() else { return };
    let (v4, v6) = ("10.1.0.2".parse().unwrap(), "fd00:1::2".parse().unwrap());
    for protocol in [Tcp, Udp] {
        let got = world.network.reserve(&[request(&[(ANY4, v4), (ANY6, v6)], protocol, (0, 0), 1)], &[]).unwrap();
        assert_eq!(got[0].sockets.len(), 2);
        assert_ne!(got[0].host_port, 0);
        assert!(got[0].sockets.iter().all(|socket| socket.port == got[0].host_port));
        let published: Vec<(IpAddr, u16)> = got[0].publications.iter().map(|p| (p.host, p.host_port)).collect();
        assert_eq!(published, [(ANY4, got[0].host_port), (ANY6, got[0].host_port)]);
    }
}

#[test]
fn pt_06_a_reserved_port_refuses_servers_and_clients_until_it_is_published() {
    let Some(world) = world() else { return };
    let a = world.member(&world.bridge(1), 2);
    for protocol in [Tcp, Udp] {
        for (n, (any, host)) in [(ANY4, HOST4), (ANY6, HOST6)].into_iter().enumerate() {
            serve(&a, protocol, a.both()[n], 80);
            let got = world
                .network
                .reserve(&[request(&[(any, a.both()[n])], protocol, (8080, 8080), 1)], &[])
                .unwrap()
                .remove(0);
            let bind = || match protocol {
                Udp => UdpSocket::bind((any, 8080)).map(drop),
                _ => TcpListener::bind((any, 8080)).map(drop),
            };
            let error = netns::inside(world.host.as_fd(), bind).unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
            let refused = ask(&world.outside, protocol, host, 8080).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{protocol} {host}");
            world.network.publish(&got.publications).unwrap();
            assert!(ask(&world.outside, protocol, host, 8080).is_ok(), "{protocol} {host}");
            assert!(ask(&world.host, protocol, host, 8080).is_ok(), "{protocol} {host} from the host");
            world.network.unpublish(&got.publications).unwrap();
        }
    }
}

#[test]
fn pt_17_a_range_of_10000_ports_is_reserved_without_10000_sockets() {
    let Some(world) = world() else { return };
    let a = "10.1.0.2".parse().unwrap();
    let got = world.network.reserve(&[request(&[(ANY4, a)], Tcp, (20_000, 29_999), 10_000)], &[]).unwrap();
    assert_eq!((got[0].host_port, got[0].sockets.len(), got[0].publications.len()), (20_000, 0, 1));
    let _server = netns::inside(world.host.as_fd(), || TcpListener::bind((HOST4, 25_000))).unwrap().unwrap();
    let taken = world.network.reserve(&[request(&[(ANY4, a)], Tcp, (20_000, 29_999), 10_000)], &[]).unwrap_err();
    assert!(matches!(taken, PortError::Taken { port: 25_000, .. }), "{taken:?}");
    let got = world.network.reserve(&[request(&[(ANY4, a)], Tcp, (20_000, 20_063), 64)], &[]).unwrap();
    assert_eq!(got[0].sockets.len(), 64);
    // UDP sockets are bound to a device that carries nothing: it comes back if it was deleted
    world.look(&["ip", "link", "del", &format!("isle-{}", root())]);
    world.network.reconcile(&Desired::default(), |_| None).unwrap();
    assert!(world.network.reserve(&[request(&[(ANY4, a)], Udp, (20_000, 20_063), 64)], &[]).is_ok());
}

#[test]
fn v6_04_what_the_kernel_cannot_lead_to_a_container_goes_to_the_proxy() {
    let Some((host, outside)) = bare() else { return };
    let proxy = netns::inside(host.as_fd(), || TcpListener::bind((ANY6, 0))).unwrap().unwrap();
    let port = proxy.local_addr().unwrap().port();
    let network = open(&host, Some(port), None);
    let world = World { host, outside, network };
    let a = world.member(&world.bridge(1), 2);
    let got = world
        .network
        .reserve(
            &[
                request(&[(ANY6, a.v4()), (ANY4, a.v4())], Tcp, (8080, 8080), 1),
                request(&[(ANY6, a.v6())], Tcp, (8081, 8081), 1),
            ],
            &[],
        )
        .unwrap();
    for reservation in &got {
        world.network.publish(&reservation.publications).unwrap();
    }
    // the proxy hears which port was asked for
    let asked_for = |from: &dyn AsFd, ip: IpAddr, port: u16| {
        let client = netns::inside(from.as_fd(), || {
            TcpStream::connect_timeout(&SocketAddr::new(ip, port), std::time::Duration::from_millis(300))
        })
        .unwrap();
        client.map(|_client| {
            let (stream, _) = proxy.accept().unwrap();
            rustix::net::sockopt::ipv6_original_dst(&stream).unwrap().port()
        })
    };
    assert_eq!(asked_for(&world.outside, HOST6, 8080).unwrap(), 8080, "IPv6 to an IPv4-only container");
    assert_eq!(asked_for(&world.host, LOCAL6, 8080).unwrap(), 8080);
    assert_eq!(asked_for(&world.host, LOCAL6, 8081).unwrap(), 8081, "[::1]");
    serve(&a, Tcp, ANY6, 80);
    assert!(ask(&world.outside, Tcp, HOST6, 8081).is_ok(), "the rest of IPv6 is the kernel's");
    assert!(ask(&world.outside, Tcp, HOST4, 8080).is_ok());
    assert!(asked_for(&world.outside, HOST6, port).is_err(), "the proxy's own port is closed to others");
    assert!(asked_for(&a, HOST6, port).is_err());

    // UDP takes a socket a port
    let got = world
        .network
        .reserve(
            &[request(&[(ANY6, a.v4())], Udp, (8080, 8080), 1), request(&[(ANY6, a.v6())], Udp, (8081, 8081), 1)],
            &[],
        )
        .unwrap();
    let serves = |n: usize| -> Vec<_> {
        got[n].sockets.iter().filter(|s| matches!(s.role, Role::Serves(_))).map(|s| (s.host, s.role)).collect()
    };
    assert_eq!(serves(0), [(ANY6, Role::Serves(SocketAddr::new(a.v4(), 80)))]);
    assert_eq!(serves(1), [(LOCAL6, Role::Serves(SocketAddr::new(a.v6(), 80)))]);
    let held = UdpSocket::from(got[1].sockets.iter().find(|s| s.host == LOCAL6).unwrap().fd.try_clone().unwrap());
    held.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let (_, from) = held.recv_from(&mut [0; 64]).unwrap();
        held.send_to(b"10.0.0.1", from).unwrap();
    });
    assert!(ask(&world.host, Udp, LOCAL6, 8081).is_ok(), "what comes to [::1] reaches the keeper's socket");
}

#[test]
fn lc_09_starts_in_parallel_are_safe() {
    let Some(world) = world() else { return };
    let bridge = world.bridge(1);
    std::thread::scope(|scope| {
        for worker in 0..4_u8 {
            let (network, bridge) = (world.network.clone(), &bridge);
            scope.spawn(move || {
                for n in 0..10 {
                    let endpoint: Attachment = attachment(bridge, 10 + 10 * worker + n, 0);
                    let sandbox = network.create_sandbox(&endpoint.sandbox, false).unwrap();
                    network.attach(&sandbox, std::slice::from_ref(&endpoint)).unwrap();
                    let published = Publication {
                        host_port: 1000 + u16::from(endpoint.mac.0[5]),
                        ..publication(Udp, ANY4, endpoint.addresses[0].addr())
                    };
                    let published = BTreeSet::from([published]);
                    network.publish(&published).unwrap();
                    network.unpublish(&published).unwrap();
                    network.release(&[endpoint]).unwrap();
                }
            });
        }
    });
    let desired = Desired { bridges: BTreeMap::from([(bridge.network, bridge)]), ..Desired::default() };
    let elements = world.network.observe().unwrap().elements.unwrap();
    assert_eq!(elements, network::reconcile::elements(&desired, &world.network.features(), None));
}
