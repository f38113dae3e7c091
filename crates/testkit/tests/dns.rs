//! The resolver as a container meets it: questions as libraries ask them, and as attackers do.
//!
//! ```text
//!   outside ── eth0 ── host, 127.0.0.53-like upstream ── front: web (alias www), client
//!                                                         quiet: upstream (silent), asker (--dns upstream)
//! ```

use serde_json::json;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use testkit::dns::*;
use testkit::traffic::sleeper;
use testkit::{Lab, program, within};

#[test]
fn dns_06_what_a_client_may_keep_is_old_after_a_few_seconds() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("web", sleeper("front"));
    lab.run("client", sleeper("front"));
    let resolver = lab.resolver("client");
    let address: Ipv4Addr = lab.address("web", "front").parse().unwrap();
    let [a, b, c, d] = address.octets();
    for (name, kind) in [("web", A), ("web", AAAA), (&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), PTR)] {
        let message = question(1, name, kind);
        let answer = ask(&resolver, &message);
        assert_eq!(answers(&answer), 1, "{name}");
        assert!(ttl(&message, &answer) <= 5, "{name}, type {kind}: {} s", ttl(&message, &answer));
    }
}

#[test]
fn dns_08_types_that_a_known_name_lacks_are_answered_here_and_unknown_names_upstream() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.run("web", sleeper("front"));
    lab.run("client", sleeper("front"));
    let server = lab.in_host(|| UdpSocket::bind("127.0.0.54:53").unwrap());
    std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.54\n").unwrap();
    let resolver = lab.resolver("client");
    for kind in [MX, TXT, HTTPS] {
        let answer = ask(&resolver, &question(1, "web", kind));
        assert_eq!((rcode(&answer), answers(&answer)), (NOERROR, 0), "type {kind}");
    }
    // Had they been forwarded, they would be heard before this one.
    for kind in [MX, TXT, HTTPS] {
        let message = question(2, "far.example", kind);
        resolver.send(&message).unwrap();
        let (_, heard) = answer_one(&server);
        assert_eq!(heard[12..], message[12..], "type {kind}");
        let mut answer = [0; 512];
        resolver.recv(&mut answer).unwrap();
        assert_eq!(rcode(&answer), NOERROR);
    }
}

#[test]
fn dns_11_the_hosts_servers_are_asked_from_the_host_and_a_containers_own_from_the_container() {
    let lab = Lab::start_after(&program(), |lab| {
        let behind = lab.directory().join("behind.conf");
        std::fs::write(&behind, "nameserver 192.0.2.53\nsearch behind.example\n").unwrap();
        lab.arguments = vec!["--resolved-conf".into(), behind.display().to_string()];
        std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.53\nsearch stub.example\n").unwrap();
    })
    .unwrap();
    // A resolver on the host's own loopback, as systemd-resolved's stub is.
    let stub = lab.in_host(|| UdpSocket::bind("127.0.0.53:53").unwrap());
    lab.network(json!({ "Name": "front" }));
    lab.run("near", sleeper("front"));
    let near = lab.in_container("near", || UdpSocket::bind("0.0.0.0:53").unwrap());
    lab.run("client", sleeper("front"));
    let mut own = sleeper("front");
    own["HostConfig"]["Dns"] = json!([lab.address("near", "front")]);
    lab.run("own", own);
    let (client, own) = (lab.resolver("client"), lab.resolver("own"));

    client.send(&question(1, "far.example", A)).unwrap();
    assert_eq!(answer_one(&stub).0, "127.0.0.1", "the host itself asks");
    own.send(&question(2, "far.example", A)).unwrap();
    assert_eq!(answer_one(&near).0, lab.address("own", "front"), "the container itself asks");
    // On the default network, which has no resolver of ours, the stub would be the container's own loopback.
    lab.run("plain", sleeper("bridge"));
    let said = lab.exec("plain", &["cat", "/etc/resolv.conf"]).ok();
    assert!(said.contains("\nnameserver 192.0.2.53\n") && said.contains("\nsearch behind.example\n"), "{said}");
}

#[test]
fn dns_12_a_host_without_nameservers_leaves_the_default_network_public_ones_and_the_resolver_none() {
    let lab = Lab::start_after(&program(), |lab| {
        std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.1\n").unwrap();
        lab.arguments = vec!["--resolved-conf".into(), "/nonexistent".into()];
    })
    .unwrap();
    lab.run("plain", sleeper("bridge"));
    let said = lab.exec("plain", &["grep", "^nameserver", "/etc/resolv.conf"]).ok();
    assert_eq!(said, "nameserver 8.8.8.8\nnameserver 8.8.4.4");
    std::fs::write(lab.resolv_conf(), "").unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let said = lab.exec("client", &["grep", "^nameserver", "/etc/resolv.conf"]).ok();
    assert_eq!(said, "nameserver 127.0.0.11");
    let resolver = lab.resolver("client");
    assert_eq!(rcode(&ask(&resolver, &question(1, "far.example", A))), SERVFAIL);
    assert_eq!(answers(&ask(&resolver, &question(2, "client", A))), 1);
}

#[test]
fn dns_13_on_internal_networks_alone_no_question_leaves_but_to_servers_that_are_there() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "shut", "Internal": true }));
    lab.network(json!({ "Name": "open" }));
    lab.run("near", sleeper("shut"));
    lab.run("client", sleeper("shut"));
    let mut own = sleeper("shut");
    own["HostConfig"]["Dns"] = json!([lab.address("near", "shut")]);
    lab.run("own", own);
    let resolver = lab.resolver("client");
    assert_eq!(rcode(&ask(&resolver, &question(1, "upstream.example", A))), SERVFAIL);
    assert_eq!(answers(&ask(&resolver, &question(2, "near", A))), 1);
    // Its own server is on the network.
    let near = lab.in_container("near", || UdpSocket::bind("0.0.0.0:53").unwrap());
    let asker = lab.resolver("own");
    asker.send(&question(3, "upstream.example", A)).unwrap();
    assert_eq!(answer_one(&near).0, lab.address("own", "shut"));
    // With a way out names from outside are found at once, and no longer than it lasts.
    lab.tell("/networks/open/connect", json!({ "Container": "client" }), 200);
    assert_eq!(answers(&ask(&resolver, &question(4, "upstream.example", A))), 1);
    lab.tell("/networks/open/disconnect", json!({ "Container": "client" }), 200);
    assert_eq!(rcode(&ask(&resolver, &question(5, "upstream.example", A))), SERVFAIL);
}

#[test]
fn dns_17_a_resolv_conf_that_was_edited_is_left_alone_until_the_next_start() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "back" }));
    for name in ["edited", "untouched"] {
        lab.run(name, sleeper("bridge"));
    }
    let own = "nameserver 192.0.2.1";
    lab.exec("edited", &["sh", "-c", &format!("echo {own} >/etc/resolv.conf")]).ok();
    for container in ["edited", "untouched"] {
        lab.tell("/networks/front/connect", json!({ "Container": container }), 200);
    }
    let servers = |container: &str| lab.exec(container, &["grep", "^nameserver", "/etc/resolv.conf"]).ok();
    assert_eq!(servers("edited"), own);
    assert_eq!(servers("untouched"), "nameserver 127.0.0.11");
    lab.tell("/networks/front/disconnect", json!({ "Container": "edited" }), 200);
    lab.tell("/networks/back/connect", json!({ "Container": "edited" }), 200);
    assert_eq!(servers("edited"), own);
    lab.ask("/containers/edited/restart?t=0", 204);
    assert_eq!(servers("edited"), "nameserver 127.0.0.11");
}

#[test]
fn dns_19_what_upstream_says_at_length_is_had_by_tcp() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let (udp, tcp) =
        lab.in_host(|| (UdpSocket::bind("127.0.0.54:53").unwrap(), TcpListener::bind("127.0.0.54:53").unwrap()));
    std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.54\n").unwrap();
    let short = lab.resolver("client");
    let message = question(1, "long.example", TXT);
    short.send(&message).unwrap();
    // More than this client takes by UDP, since it has not offered more than 512 bytes.
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut heard = [0; 512];
    let (length, from) = udp.recv_from(&mut heard).unwrap();
    udp.send_to(&answer_of(&heard[..length], 20), from).unwrap();
    let mut cut = [0; 512];
    short.recv(&mut cut).unwrap();
    assert_eq!((cut[2] & 2, answers(&cut)), (2, 0), "'ask again by TCP'");

    let mut long = lab.in_container("client", || TcpStream::connect("127.0.0.11:53").unwrap());
    long.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let framed = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let receive = |stream: &mut TcpStream| {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    };
    long.write_all(&framed(&message)).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let mut upstream = None;
    within(Duration::from_secs(5), "upstream is asked by TCP", || {
        upstream = tcp.accept().ok();
        upstream.is_some()
    });
    let (mut upstream, _) = upstream.unwrap();
    upstream.set_nonblocking(false).unwrap();
    upstream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let heard = receive(&mut upstream);
    upstream.write_all(&framed(&answer_of(&heard, 20))).unwrap();
    let whole = receive(&mut long);
    assert_eq!((whole[2] & 2, answers(&whole), whole.len()), (0, 20, message.len() + 20 * 263));
    // Names of the network are answered on the same connection.
    long.write_all(&framed(&question(2, "client", A))).unwrap();
    assert_eq!(answers(&receive(&mut long)), 1);
}

#[test]
fn dns_23_host_gateway_is_the_default_networks_gateway_or_what_the_daemon_is_told() {
    let mut lab = Lab::start_with(&program(), &["--ipv6", "--fixed-cidr-v6=fd00:17::/64"]).unwrap();
    let named = |lab: &Lab, name: &str| {
        let mut body = sleeper("bridge");
        body["HostConfig"]["ExtraHosts"] = json!(["up:host-gateway"]);
        lab.run(name, body);
        let hosts = lab.exec(name, &["cat", "/etc/hosts"]).ok();
        hosts.lines().filter_map(|l| l.strip_suffix("\tup")).map(str::to_owned).collect::<Vec<_>>()
    };
    let shown = lab.get("/networks/bridge").unwrap().json();
    let configs = shown["IPAM"]["Config"].as_array().unwrap();
    let gateways: Vec<&str> = configs.iter().filter_map(|c| c["Gateway"].as_str()).collect();
    assert_eq!(gateways.len(), 2, "{shown}");
    assert_eq!(named(&lab, "asks"), gateways);
    // A service of the host on all its addresses is reached by it.
    let service = lab.in_host(|| TcpListener::bind("[::]:7777").unwrap());
    lab.exec("asks", &["timeout", "5", "nc", "-w", "2", "up", "7777", "-e", "true"]).ok();
    drop(service);
    lab.stop_daemon();
    lab.arguments = ["--host-gateway-ip=192.0.2.9", "--host-gateway-ip=2001:db8::9"].map(str::to_owned).into();
    lab.start_daemon().unwrap();
    assert_eq!(named(&lab, "told"), ["192.0.2.9", "2001:db8::9"]);
}

#[test]
fn dns_29_names_of_a_single_link_are_questions_like_others() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let server = lab.in_host(|| UdpSocket::bind("127.0.0.54:53").unwrap());
    std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.54\n").unwrap();
    let resolver = lab.resolver("client");
    for name in ["printer.local", "254.169.in-addr.arpa"] {
        let message = question(1, name, A);
        resolver.send(&message).unwrap();
        assert_eq!(answer_one(&server).1[12..], message[12..], "{name}");
        let mut answer = [0; 512];
        resolver.recv(&mut answer).unwrap();
        assert_eq!((rcode(&answer), answers(&answer)), (NOERROR, 0), "{name}");
    }
    // A container may be called so.
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["printer.local"] } } });
    lab.run("printer", body);
    assert_eq!(answers(&ask(&resolver, &question(2, "printer.local", A))), 1);
}

#[test]
fn dns_07_08_19_every_librarys_way_of_asking_is_answered_rightly() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    let mut web = json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } });
    web["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["www"] } } });
    lab.run("web", web);
    lab.run("client", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    let resolver = lab.resolver("client");

    // glibc and musl: A and AAAA at once from one socket; answers may come in any order, and NODATA is never NXDOMAIN.
    for name in ["web", "www", "web.front", "WEB", "web."] {
        resolver.send(&question(1, name, A)).unwrap();
        resolver.send(&question(2, name, AAAA)).unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let mut answer = [0; 512];
            resolver.recv(&mut answer).unwrap();
            seen.push((answer[1], rcode(&answer), answers(&answer)));
        }
        seen.sort_unstable();
        assert_eq!(seen, [(1, NOERROR, 1), (2, NOERROR, 0)], "{name}");
    }
    // Types that a known name lacks (DNS-08): no answer of somebody else's, no NXDOMAIN.
    for kind in [MX, TXT, HTTPS, AAAA] {
        let answer = ask(&resolver, &question(3, "web", kind));
        assert_eq!((rcode(&answer), answers(&answer)), (NOERROR, 0), "type {kind}");
    }
    let any = ask(&resolver, &question(3, "web", ANY));
    assert_eq!(rcode(&any), NOERROR);
    // A search list: what does not exist is NXDOMAIN, so that the library tries the next (upstream says so).
    for kind in [A, AAAA] {
        assert_eq!(rcode(&ask(&resolver, &question(4, "web.search.example", kind))), NXDOMAIN, "type {kind}");
    }
    // 0x20: the question comes back letter for letter.
    let mixed = question(5, "wEb.fROnt", A);
    let answer = ask(&resolver, &mixed);
    assert_eq!(answer[12..mixed.len()], mixed[12..]);
    assert_eq!(answers(&answer), 1);
    // EDNS is answered with EDNS, and not offered to who has not said it; a version to come is refused (BADVERS).
    let offered = ask(&resolver, &with_edns(question(6, "web", A), 0, 1232));
    assert_eq!((answers(&offered), offered[11]), (1, 1));
    assert_eq!(ask(&resolver, &question(7, "web", A))[11], 0);
    let tiny = ask(&resolver, &with_edns(question(8, "web", A), 0, 0));
    assert_eq!(answers(&tiny), 1, "less than 512 is 512");
    let future = ask(&resolver, &with_edns(question(9, "web", A), 1, 1232));
    assert_eq!((rcode(&future), answers(&future)), (0, 0));
    assert_eq!(future[future.len() - 6], 1, "the upper bits of BADVERS");
    // CHAOS, and messages that are none.
    let mut chaos = question(10, "version.bind", TXT);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(rcode(&ask(&resolver, &chaos)), REFUSED);
    let mut none = question(11, "web", A);
    none[5] = 0;
    assert_eq!(rcode(&ask(&resolver, &none)), FORMERR);
    let mut two = question(12, "web", A);
    two[5] = 2;
    assert_eq!(rcode(&ask(&resolver, &two)), FORMERR);
    let mut notify = question(13, "web", A);
    notify[2] |= 4 << 3;
    assert_eq!(rcode(&ask(&resolver, &notify)), NOTIMP);
    // A name that points at itself, one that runs over the end, half a header, an answer, nothing: an error or silence,
    // and the next question is answered.
    let mut looping = question(14, "", A);
    looping.splice(12..13, [0xc0, 12]);
    let mut answer_to_none = question(15, "web", A);
    answer_to_none[2] |= 0x80;
    let open_label = [&question(16, "", A)[..12], &[63, b'a']].concat();
    for hostile in [looping, answer_to_none, open_label, vec![0; 5], Vec::new(), vec![0xff; 9000]] {
        resolver.send(&hostile).unwrap();
    }
    within(Duration::from_secs(5), "the resolver goes on", || {
        resolver.send(&question(0x7777, "web", A)).unwrap();
        let mut answer = [0; 512];
        // What it says to the others comes first.
        (0..8).any(|_| resolver.recv(&mut answer).is_ok() && answer[..2] == [0x77, 0x77] && answers(&answer) == 1)
    });
}

#[test]
fn dns_18_a_flood_of_questions_is_bounded_and_others_are_answered_meanwhile() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "quiet" }));
    lab.run("upstream", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "quiet" } }));
    // It hears every question and answers none.
    let silent = lab.in_container("upstream", || UdpSocket::bind("0.0.0.0:53").unwrap());
    let dns = lab.address("upstream", "quiet");
    for name in ["asker", "neighbour"] {
        let host = json!({ "NetworkMode": "quiet", "Dns": [dns] });
        lab.run(name, json!({ "Cmd": ["sleep", "600"], "HostConfig": host }));
    }
    let (flood, neighbour) = (lab.resolver("asker"), lab.resolver("neighbour"));
    flood.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let mut refused = 0;
    // Until it is told to stop: 1024 are under way, as many wait.
    let mut asked = 0_u16;
    while refused < 100 {
        assert!(begun.elapsed() < Duration::from_secs(2), "{asked} asked, {refused} refused: nothing bounds them");
        let _ = flood.send(&question(asked, "far.example", A));
        asked = asked.wrapping_add(1);
        let mut answer = [0; 512];
        while flood.recv(&mut answer).is_ok() {
            assert_eq!(rcode(&answer), REFUSED);
            refused += 1;
        }
        // The socket's buffer takes a few hundred datagrams: what is lost there says nothing.
        if asked.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(asked >= 2048 + 100, "only {asked} were asked");
    // The same sandbox has its names, and others their forwards: this one waits for its upstream.
    let at = Instant::now();
    assert_eq!(answers(&ask(&neighbour, &question(1, "upstream", A))), 1);
    assert!(at.elapsed() < Duration::from_secs(1));
    let far = ask(&neighbour, &question(2, "far.example", A));
    assert_eq!(rcode(&far), 2, "SERVFAIL: nobody answered");
    let mut heard = [0; 512];
    assert!(silent.recv(&mut heard).is_ok(), "the questions did go there");
    // Everything under way ends, and there is room again.
    let later = lab.resolver("asker");
    // It may have to wait for those that wait, each four seconds.
    later.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    within(Duration::from_secs(20), "room again", || rcode(&ask(&later, &question(3, "far.example", A))) == 2);
    let log = std::fs::read_to_string(lab.run_directory().join("keeper.log")).unwrap();
    let told = log.lines().filter(|line| line.contains("are under way upstream")).count();
    assert!((1..=3).contains(&told), "the log says it {told} times:\n{log}");
}
