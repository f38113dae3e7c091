//! Names and files of a container, row by row: how names are searched, who is asked for the others, what /etc says.
//!
//! ```text
//!   host: servers at 127.0.0.61 … ── aa: web, client     bb.dotted: db, client
//! ```

use serde_json::{Value, json};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::dns::*;
use testkit::traffic::{sleeper, sleeper_with};
use testkit::{Lab, OUTSIDE, lab, within};

/// The host's resolv.conf names these servers, which are there and say nothing by themselves.
fn servers(lab: &Lab, addresses: &[&str]) -> Vec<UdpSocket> {
    let text: String = addresses.iter().map(|a| format!("nameserver {a}\n")).collect();
    let sockets = lab.in_host(|| addresses.iter().map(|a| UdpSocket::bind((*a, 53)).unwrap()).collect());
    std::fs::write(lab.resolv_conf(), text).unwrap();
    sockets
}

/// Answers one question with this code; what was asked.
#[track_caller]
fn answer_with(server: &UdpSocket, rcode: u8) -> Vec<u8> {
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut heard = [0; 512];
    let (length, client) = server.recv_from(&mut heard).expect("a question comes here");
    let mut answer = answer_of(&heard[..length], 0);
    answer[3] = answer[3] & 0xf0 | rcode;
    server.send_to(&answer, client).unwrap();
    heard[..length].to_vec()
}

/// Nothing has come, and nothing comes soon.
#[track_caller]
fn hears_nothing(server: &UdpSocket) {
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut heard = [0; 512];
    let came = server.recv(&mut heard);
    assert!(came.is_err(), "it was asked {:?}", String::from_utf8_lossy(&heard[12..]));
}

fn receive(resolver: &UdpSocket) -> Vec<u8> {
    let mut answer = [0; 1500];
    let length = resolver.recv(&mut answer).expect("an answer");
    answer[..length].to_vec()
}

fn connect(lab: &Lab, network: &str, container: &str, settings: &Value) {
    let body = json!({ "Container": container, "EndpointConfig": settings });
    lab.tell(&format!("/networks/{network}/connect"), body, 200);
}

fn disconnect(lab: &Lab, network: &str, container: &str) {
    lab.tell(&format!("/networks/{network}/disconnect"), json!({ "Container": container }), 200);
}

fn cat(lab: &Lab, container: &str, file: &str) -> String {
    lab.exec(container, &["cat", file]).ok()
}

#[test]
fn dns_02_a_container_has_port_53_for_itself() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    for name in ["own", "asker"] {
        lab.run(name, sleeper("front"));
    }
    let (udp, _tcp) = lab.in_container("own", || {
        (UdpSocket::bind("0.0.0.0:53").expect("port 53 is free"), TcpListener::bind("0.0.0.0:53").expect("by TCP, too"))
    });
    // Its own resolver answers as before, and whoever asks it is heard by it alone.
    assert_eq!(lab.both_families("own", "asker"), Some(lab.addresses("asker", "front")));
    let to = lab.addresses("own", "front")[0];
    let asker = lab.in_container("asker", || UdpSocket::bind("0.0.0.0:0").unwrap());
    asker.send_to(&question(7, "asker", A), (to, 53)).unwrap();
    assert_eq!(answer_one(&udp).1[..2], [0, 7]);
}

#[test]
fn dns_03_names_are_searched_in_the_gateways_order_and_may_name_their_network() {
    let lab = lab();
    for name in ["aa", "bb.dotted"] {
        lab.network(json!({ "Name": name }));
    }
    let same = json!({ "Aliases": ["same"] });
    lab.run("web", sleeper_with("aa", same.clone()));
    lab.run("x.y", sleeper("aa"));
    lab.run("db", sleeper_with("bb.dotted", same));
    lab.run("client", sleeper("aa"));
    connect(&lab, "bb.dotted", "client", &json!({ "Links": ["db:web"] }));
    let resolver = lab.resolver("client");
    let (web, db) = (lab.addresses("web", "aa"), lab.addresses("db", "bb.dotted"));
    for (name, expected) in [
        ("web.aa", &web),
        ("db", &db),
        ("db.bb.dotted", &db),
        ("x.y", &lab.addresses("x.y", "aa")),
        ("x.y.aa", &lab.addresses("x.y", "aa")),
        ("same", &web),
        ("same.bb.dotted", &db),
    ] {
        assert_eq!(both_families(&resolver, name).as_ref(), Some(expected), "{name}");
    }
    for name in ["web.bb", "db.aa", "x.aa", "nobody.bb.dotted"] {
        assert_eq!(rcode(&ask(&resolver, &question(3, name, A))), NXDOMAIN, "{name}: upstream does not know it");
    }
    // Another network is first where its priority says so; a link of the container's own goes before names there.
    disconnect(&lab, "bb.dotted", "client");
    connect(&lab, "bb.dotted", "client", &json!({ "GwPriority": 9, "Links": ["db:web"] }));
    assert_eq!(both_families(&resolver, "same"), Some(db.clone()));
    assert_eq!(both_families(&resolver, "web"), Some(db));
}

#[test]
fn dns_09_an_address_resolves_to_its_name_and_network_and_unknown_ones_are_asked_upstream() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("web", sleeper_with("front", json!({ "Aliases": ["www"] })));
    lab.run("client", sleeper("front"));
    let server = servers(&lab, &["127.0.0.61"]).remove(0);
    let resolver = lab.resolver("client");
    let backwards = |address: IpAddr| match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|o| [o & 15, o >> 4]);
            nibbles.map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa"
        }
    };
    for address in lab.addresses("web", "front") {
        let answer = ask(&resolver, &question(1, &backwards(address), PTR));
        assert_eq!(answers(&answer), 1, "{address}");
        let name: &[u8] = b"\x03web\x05front\0";
        assert!(answer.windows(name.len()).any(|w| w == name), "{address}: {answer:02x?}");
    }
    for foreign in ["203.0.113.9", "2001:db8::9"] {
        let message = question(2, &backwards(foreign.parse().unwrap()), PTR);
        resolver.send(&message).unwrap();
        assert_eq!(answer_with(&server, NXDOMAIN)[12..], message[12..], "{foreign}");
        assert_eq!(rcode(&receive(&resolver)), NXDOMAIN);
    }
}

#[test]
fn dns_10_three_servers_are_asked_in_order_until_one_has_an_answer() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let all = servers(&lab, &["127.0.0.61", "127.0.0.62", "127.0.0.63", "127.0.0.64"]);
    let resolver = lab.resolver("client");
    let mut asked = 0;
    let mut check = |said: &[u8], expected: u8| {
        asked += 1;
        let message = question(asked, "far.example", A);
        resolver.send(&message).unwrap();
        for (server, rcode) in all.iter().zip(said) {
            assert_eq!(answer_with(server, *rcode)[12..], message[12..]);
        }
        assert_eq!(rcode(&receive(&resolver)), expected, "{said:?}");
        all[said.len()..].iter().for_each(hears_nothing);
    };
    check(&[NOERROR], NOERROR);
    check(&[NXDOMAIN], NXDOMAIN);
    check(&[SERVFAIL, REFUSED, NOERROR], NOERROR);
    check(&[REFUSED, NXDOMAIN], NXDOMAIN);
    // A fourth is never asked.
    check(&[SERVFAIL, SERVFAIL, SERVFAIL], SERVFAIL);
    // One that takes its time is waited for.
    resolver.send(&question(98, "far.example", A)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    answer_with(&all[0], NOERROR);
    assert_eq!(rcode(&receive(&resolver)), NOERROR);
    all[1..].iter().for_each(hears_nothing);
    // One that says nothing costs four seconds, and the next is asked.
    let begun = Instant::now();
    resolver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    resolver.send(&question(99, "far.example", A)).unwrap();
    answer_with(&all[1], NOERROR);
    assert_eq!(rcode(&receive(&resolver)), NOERROR);
    assert!(begun.elapsed() < Duration::from_secs(5) * testkit::patience(), "{:?}", begun.elapsed());
}

#[test]
fn dns_13_nothing_that_is_asked_on_internal_networks_alone_is_heard_outside() {
    let lab = lab();
    for name in ["shut", "closed"] {
        lab.network(json!({ "Name": name, "Internal": true, "EnableIPv6": true }));
    }
    lab.run("client", sleeper("shut"));
    connect(&lab, "closed", "client", &json!({}));
    let server = servers(&lab, &["127.0.0.61"]).remove(0);
    let outside = lab.in_outside(|| UdpSocket::bind((OUTSIDE, 53)).unwrap());
    let resolver = lab.resolver("client");
    for (n, name) in ["far.example", "client.elsewhere", "single", "9.113.0.203.in-addr.arpa"].iter().enumerate() {
        for kind in [A, AAAA, PTR, TXT, HTTPS, ANY] {
            let id = u16::try_from(n).unwrap() << 8 | kind;
            assert_eq!(rcode(&ask(&resolver, &question(id, name, kind))), SERVFAIL, "{name}, type {kind}");
        }
    }
    // Nor does a server outside hear the container itself.
    let direct = lab.in_container("client", || UdpSocket::bind("0.0.0.0:0").unwrap());
    let sent = direct.send_to(&question(1, "far.example", A), (OUTSIDE, 53));
    assert!(sent.is_err(), "there is no way out");
    hears_nothing(&server);
    hears_nothing(&outside);
}

#[test]
fn dns_14_16_resolv_conf_has_the_hosts_search_and_options_or_the_containers_own() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let host = "domain old.example\nsearch a.example b.example\nnameserver 127.0.0.61\noptions ndots:x timeout:1\n";
    std::fs::write(lab.resolv_conf(), host).unwrap();
    let lines = |container: &str| -> Vec<String> {
        let text = cat(&lab, container, "/etc/resolv.conf");
        let own = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        own.map(str::to_owned).collect()
    };
    lab.run("plain", sleeper("front"));
    assert_eq!(
        lines("plain"),
        ["nameserver 127.0.0.11", "search a.example b.example", "options timeout:1 ndots:0"],
        "the last search line counts, and an ndots that is none does not"
    );
    let text = cat(&lab, "plain", "/etc/resolv.conf");
    for line in ["# Generated by Docker Engine.", "# ExtServers: [host(127.0.0.61)]", "# Overrides: []"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mut own = sleeper("front");
    own["HostConfig"]["Dns"] = json!(["192.0.2.53"]);
    own["HostConfig"]["DnsSearch"] = json!(["own.example"]);
    own["HostConfig"]["DnsOptions"] = json!(["ndots:2", "attempts:1"]);
    lab.run("own", own);
    assert_eq!(lines("own"), ["nameserver 127.0.0.11", "search own.example", "options ndots:2 attempts:1"]);
    assert!(cat(&lab, "own", "/etc/resolv.conf").contains("# Overrides: [nameservers search options]"));
    let mut none = sleeper("front");
    none["HostConfig"]["DnsSearch"] = json!(["."]);
    lab.run("none", none);
    assert_eq!(lines("none"), ["nameserver 127.0.0.11", "options timeout:1 ndots:0"], "a dot clears the list");
}

#[test]
fn dns_16_a_librarys_search_list_finds_names_of_the_network_and_of_others() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("web", sleeper("front"));
    let mut body = sleeper("front");
    body["HostConfig"]["DnsSearch"] = json!(["nowhere.example", "example"]);
    lab.run("client", body);
    // The C library of the image asks: a name of the network, one with its dot, one that the list completes.
    for (name, address) in [
        ("web", lab.address("web", "front")),
        ("web.front", lab.address("web", "front")),
        ("web.", lab.address("web", "front")),
        ("upstream", "203.0.113.80".to_owned()),
        ("upstream.example.", "203.0.113.80".to_owned()),
    ] {
        let said = lab.exec("client", &["ping", "-c1", "-W1", name]);
        assert!(said.stdout.starts_with(&format!("PING {name} ({address})")), "{name}: {said:?}");
    }
    assert!(lab.exec("client", &["ping", "-c1", "-W1", "nobody"]).stderr.contains("bad address"));
}

#[test]
fn dns_15_with_ndots_of_the_users_single_labels_are_nobody_elses_business() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let mut body = sleeper("front");
    body["HostConfig"]["DnsOptions"] = json!(["ndots:1"]);
    lab.run("client", body);
    lab.run("plain", sleeper("front"));
    let server = servers(&lab, &["127.0.0.61"]).remove(0);
    let resolver = lab.resolver("client");
    for kind in [A, AAAA] {
        let answer = ask(&resolver, &question(kind, "printer", kind));
        assert_eq!((rcode(&answer), answers(&answer)), (NOERROR, 0), "type {kind}");
    }
    assert_eq!(answers(&ask(&resolver, &question(2, "plain", A))), 1, "names of the network are found");
    hears_nothing(&server);
    // Names of several labels are asked upstream, and single ones where nobody set ndots.
    for (container, name) in [("client", "far.example"), ("plain", "printer")] {
        let resolver = lab.resolver(container);
        resolver.send(&question(3, name, A)).unwrap();
        answer_with(&server, NXDOMAIN);
        assert_eq!(rcode(&receive(&resolver)), NXDOMAIN, "{name}");
    }
}

#[test]
fn dns_19_many_holders_of_a_name_are_cut_by_udp_and_whole_by_tcp_or_edns() {
    use std::io::{Read, Write};
    const MANY: u16 = 34;
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    for n in 0..MANY {
        lab.run(&format!("member{n}"), sleeper_with("front", json!({ "Aliases": ["pool"] })));
    }
    let resolver = lab.resolver("member0");
    // 512 bytes is what a client takes that says nothing (RFC 1035, 4.2.1).
    let message = question(1, "pool", A);
    let cut = ask(&resolver, &message);
    assert!(cut.len() <= 512 && cut[2] & 2 == 2, "{} bytes, flags {:x}", cut.len(), cut[2]);
    let whole = ask(&resolver, &with_edns(question(2, "pool", A), 0, 1232));
    assert_eq!((whole[2] & 2, answers(&whole)), (0, MANY));
    let small = ask(&resolver, &with_edns(question(3, "pool", A), 0, 512));
    assert!(small.len() <= 512 && small[2] & 2 == 2, "{} bytes", small.len());
    let mut stream = lab.in_container("member0", || std::net::TcpStream::connect("127.0.0.11:53").unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(&[&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((answer[2] & 2, answers(&answer)), (0, MANY));
    // Whoever takes the first one of several takes another each time.
    let firsts: std::collections::BTreeSet<IpAddr> =
        (0..40).map(|n| addresses(&ask(&resolver, &with_edns(question(n, "pool", A), 0, 1232)))[0]).collect();
    assert!(firsts.len() > 8, "{firsts:?}");
}

#[test]
fn dns_20_a_server_that_is_a_resolver_of_ours_is_not_asked() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    // By the host's own word, whose loopback it would be, and by a container's.
    let [loopback, server] = <[UdpSocket; 2]>::try_from(servers(&lab, &["127.0.0.11", "127.0.0.61"])).unwrap();
    lab.run("client", sleeper("front"));
    let mut own = sleeper("front");
    own["HostConfig"]["Dns"] = json!(["127.0.0.11"]);
    lab.run("own", own);
    let resolver = lab.resolver("client");
    resolver.send(&question(1, "far.example", A)).unwrap();
    answer_with(&server, NXDOMAIN);
    assert_eq!(rcode(&receive(&resolver)), NXDOMAIN);
    hears_nothing(&loopback);
    let begun = Instant::now();
    assert_eq!(rcode(&ask(&lab.resolver("own"), &question(2, "far.example", A))), SERVFAIL);
    assert!(begun.elapsed() < Duration::from_secs(3) * testkit::patience(), "it asks nobody, and itself least");
}

#[test]
fn dns_21_a_container_with_ipv6_alone_asks_127_0_0_11() {
    let lab = lab();
    lab.network(json!({ "Name": "six", "EnableIPv4": false, "EnableIPv6": true }));
    for name in ["web", "client"] {
        lab.run(name, sleeper("six"));
    }
    assert!(cat(&lab, "client", "/etc/resolv.conf").contains("nameserver 127.0.0.11\n"));
    let web = lab.addresses("web", "six");
    assert!(web.len() == 1 && web[0].is_ipv6(), "{web:?}");
    assert_eq!(lab.both_families("client", "web"), Some(web));
    assert_eq!(lab.both_families("client", "upstream.example"), Some(vec!["203.0.113.80".parse().unwrap()]));
}

#[test]
fn dns_22_hosts_follows_connections_and_leaves_the_lines_of_others_alone() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name, "EnableIPv6": true }));
    }
    let mut body = sleeper("front");
    body["HostConfig"]["ExtraHosts"] = json!(["printer:192.0.2.9"]);
    body["Hostname"] = "box".into();
    body["Domainname"] = "home.example".into();
    lab.run("box", body);
    let own = |network: &str| -> Vec<String> {
        lab.addresses("box", network).iter().map(|a| format!("{a}\tbox.home.example box")).collect()
    };
    let fixed = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        "192.0.2.9\tprinter",
    ]
    .map(str::to_owned);
    let lines = || cat(&lab, "box", "/etc/hosts").lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(), [&fixed[..], &own("front")].concat());
    // Somebody works on the file in the container: adds a line at each end, and takes one of ours out.
    let edit = "sed -i.bak '1i 192.0.2.1 first' /etc/hosts 2>/dev/null; cp /etc/hosts /tmp/h; \
                (echo '192.0.2.1 first'; grep -v allrouters /tmp/h; echo '192.0.2.2 last') >/etc/hosts";
    lab.exec("box", &["sh", "-c", edit]).ok();
    let kept = |more: &[String]| {
        let first = ["192.0.2.1 first".to_owned()];
        let ours: Vec<String> = fixed.iter().filter(|l| !l.contains("allrouters")).cloned().collect();
        [&first[..], &ours, &own("front"), &["192.0.2.2 last".to_owned()], more].concat()
    };
    assert_eq!(lines(), kept(&[]));
    connect(&lab, "back", "box", &json!({}));
    let there = own("back");
    assert_eq!((there.len(), lines()), (2, kept(&there)));
    disconnect(&lab, "back", "box");
    assert_eq!(lines(), kept(&[]), "our lines of that network are gone, and no others");
    // The next start begins anew.
    lab.ask("/containers/box/restart?t=0", 204);
    assert_eq!(lines(), [&fixed[..], &own("front")].concat());
}

#[test]
fn dns_24_names_are_right_within_50_ms_of_a_connect_a_rename_a_disconnect_and_a_death() {
    const SOON: Duration = Duration::from_millis(50);
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("client", sleeper("front"));
    lab.run("roamer", sleeper("bridge"));
    let resolver = lab.resolver("client");
    let is = |name: &str, expected: Option<Vec<IpAddr>>, after: &str| {
        within(SOON, after, || both_families(&resolver, name) == expected);
    };
    is("roamer", None, "nobody is there yet");
    connect(&lab, "front", "roamer", &json!({ "Aliases": ["guest"] }));
    let had = lab.addresses("roamer", "front");
    connect_is_known(&lab, &resolver);
    is("roamer", Some(had.clone()), "a connect");
    is("guest", Some(had.clone()), "a connect, by an alias");
    lab.ask("/containers/roamer/rename?name=settler", 204);
    is("settler", Some(had.clone()), "a rename");
    is("roamer", None, "a rename, by the old name");
    is("guest", Some(had), "a rename, by an alias");
    disconnect(&lab, "front", "settler");
    is("settler", None, "a disconnect");
    connect(&lab, "front", "settler", &json!({}));
    is("settler", Some(lab.addresses("settler", "front")), "a second connect");
    // It dies by itself, and nobody tells the daemon.
    let pid = lab.inspect("settler")["State"]["Pid"].to_string();
    lab.on_host(Command::new("kill").args(["-9", &pid])).ok();
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    };
    within(Duration::from_secs(5), "its process is gone", || !lives());
    is("settler", None, "a death");
}

/// What was asked a moment before does not stick: an answer is of its moment.
fn connect_is_known(lab: &Lab, resolver: &UdpSocket) {
    lab.run("late", sleeper("bridge"));
    for _ in 0..3 {
        assert_eq!(both_families(resolver, "late"), None);
        connect(lab, "front", "late", &json!({}));
        assert_eq!(both_families(resolver, "late"), Some(lab.addresses("late", "front")), "as soon as it is answered");
        disconnect(lab, "front", "late");
    }
}

#[test]
fn dns_25_another_resolv_conf_of_the_host_counts_at_the_next_question() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let names = ["127.0.0.61", "127.0.0.62", "127.0.0.63"];
    let all = servers(&lab, &names);
    let resolver = lab.resolver("client");
    let path = lab.resolv_conf();
    let beside = lab.directory().join("beside.conf");
    // Written over, replaced as NetworkManager does, and a link that leads elsewhere.
    let ways: [&dyn Fn(&str); 3] = [
        &|text| std::fs::write(&path, text).unwrap(),
        &|text| {
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, &path).unwrap();
        },
        &|text| {
            std::fs::write(&beside, text).unwrap();
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&beside, &path).unwrap();
        },
    ];
    for (n, change) in ways.iter().enumerate() {
        change(&format!("nameserver {}\n", names[n]));
        let id = u16::try_from(n).unwrap();
        let message = question(id, "far.example", A);
        resolver.send(&message).unwrap();
        assert_eq!(answer_with(&all[n], NXDOMAIN)[12..], message[12..], "{}", names[n]);
        assert_eq!(rcode(&receive(&resolver)), NXDOMAIN);
    }
    for server in &all {
        hears_nothing(server);
    }
}
