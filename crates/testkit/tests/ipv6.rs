//! IPv6: alone, beside IPv4, and as the host has it.

use serde_json::json;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::traffic::{At, By, icmp_frame, publisher, sleeper};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, lab, program, upstream, within};

/// A network without IPv4.
fn ipv6_only(lab: &Lab, name: &str) {
    let options = json!({ "com.docker.network.bridge.name": format!("br-{name}") });
    lab.network(json!({ "Name": name, "EnableIPv4": false, "EnableIPv6": true, "Options": options }));
}

/// What a name has for addresses of IPv6.
fn lookup6(lab: &Lab, container: &str, name: &str) -> Vec<String> {
    let said = lab.exec(container, &["nslookup", "-type=aaaa", name]).stdout;
    let answer = said.split_once("Name:").map_or("", |(_, rest)| rest);
    answer
        .lines()
        .filter(|l| l.starts_with("Address"))
        .filter_map(|l| Some(l.split_whitespace().last()?.to_owned()))
        .collect()
}

#[test]
fn v6_01_a_subnet_of_ipv6_counts_only_where_ipv6_is_asked_for() {
    let lab = lab();
    lab.network(
        json!({ "Name": "four", "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }, { "Subnet": "fd00:9::/64" }] } }),
    );
    let shown = lab.get("/networks/four").unwrap().json();
    assert_eq!(shown["IPAM"]["Config"], json!([{ "Subnet": "10.9.0.0/24" }]));
    lab.run("member", sleeper("four"));
    assert_eq!(lab.addresses("member", "four").len(), 1);
    let none = json!({ "Name": "neither", "EnableIPv4": false, "EnableIPv6": false });
    assert_eq!(lab.tell("/networks/create", none, 400).message(), "IPv4 or IPv6 must be enabled");
}

#[test]
fn v6_02_a_network_of_ipv6_alone_has_names_ports_and_borders() {
    let lab = lab();
    ipv6_only(&lab, "six");
    ipv6_only(&lab, "other");
    let ports = [("80/tcp", "", "8080"), ("80/udp", "", "8080")];
    lab.run("web", publisher("six", &ports));
    lab.run("client", sleeper("six"));
    lab.run("far", sleeper("other"));
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("web"), by, 80);
        lab.serve(At::Outside, by, 80);
    }
    let web = lab.addresses("web", "six");
    assert!(web.len() == 1 && web[0].is_ipv6(), "{web:?}");
    // Names (DNS-21): by IPv6, nothing by IPv4, and other questions go on as ever.
    assert_eq!(lookup6(&lab, "client", "web"), [web[0].to_string()]);
    assert_eq!(lab.lookup("client", "web"), [""; 0]);
    assert!(lab.exec("client", &["cat", "/etc/resolv.conf"]).ok().contains("nameserver 127.0.0.11"));
    assert_eq!(lab.exec("client", &["nslookup", "upstream.example"]).code, 0);
    let hosts = lab.exec("web", &["cat", "/etc/hosts"]).ok();
    assert!(hosts.lines().any(|l| l.starts_with(&web[0].to_string())), "{hosts}");
    let own = lab.addresses("client", "six")[0];
    let gateway = lab.bridge_addresses("br-six")[0];
    for by in [By::Tcp, By::Udp] {
        assert_eq!(lab.seen(At::Container("client"), by, web[0], 80), Some(own));
        assert_eq!(lab.seen(At::Container("client"), by, OUTSIDE6.into(), 80), Some(HOST6.into()), "out");
        // Ports: by IPv6 with true addresses; by IPv4 through the proxy.
        assert_eq!(lab.seen(At::Outside, by, HOST6.into(), 8080), Some(OUTSIDE6.into()));
        for to in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
            assert!(lab.seen(At::Outside, by, to, 8080).is_some(), "{by:?} {to}");
        }
        assert_eq!(lab.seen(At::Outside, by, HOST.into(), 8080), Some(gateway), "carried");
        assert_eq!(lab.seen(At::Host, by, Ipv6Addr::LOCALHOST.into(), 8080), Some(gateway));
        // Borders.
        assert_eq!(lab.seen(At::Container("far"), by, web[0], 80), None);
        assert!(lab.seen(At::Container("far"), by, HOST6.into(), 8080).is_some());
    }
    assert_eq!(lookup6(&lab, "far", "web"), [""; 0]);
    let ways = lab.exec("web", &["ip", "route"]).ok();
    assert_eq!(ways, "", "no route of IPv4");
}

#[test]
fn v6_03_addresses_are_ready_at_once_and_links_have_theirs() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("web", sleeper("front"));
    lab.serve(At::Container("web"), By::Tcp, 80);
    let to = lab.addresses("web", "front")[1];
    for n in 0..3 {
        // Its very first act, with no time to wait for duplicates.
        let name = format!("client{n}");
        let mut body = sleeper("front");
        body["Cmd"] = json!(["sh", "-c", format!("nc -w 1 {to} 80; echo $?; sleep 60")]);
        lab.run(&name, body);
        let own = lab.addresses(&name, "front")[1].to_string();
        within(Duration::from_secs(5), "it was answered", || lab.logs(&name, "").0.contains(&own));
        let said = lab.command(At::Container(&name), &["ip", "-6", "-o", "addr", "show", "dev", "eth0"]);
        assert!(!said.contains("tentative") && said.contains("fe80::"), "{said}");
    }
}

#[test]
fn v6_06_an_upstream_of_ipv6_is_asked_for_a_container_that_has_none() {
    let lab = lab();
    let server: Ipv6Addr = "2001:db8:53::53".parse().unwrap();
    lab.command(At::Host, &["ip", "addr", "add", &format!("{server}/128"), "dev", "lo", "nodad"]);
    let socket = lab.in_host(|| UdpSocket::bind((server, 53)).unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let serving = std::thread::spawn({
        let over = over.clone();
        move || upstream::serve(&socket, || over.load(Ordering::Relaxed))
    });
    std::fs::write(lab.resolv_conf(), format!("nameserver {server}\n")).unwrap();
    lab.network(json!({ "Name": "four" }));
    lab.run("client", sleeper("four"));
    within(Duration::from_secs(5), "it is asked", || lab.exec("client", &["nslookup", "upstream.example"]).code == 0);
    over.store(true, Ordering::Relaxed);
    serving.join().unwrap();
    assert_ne!(lab.exec("client", &["timeout", "1", "nslookup", "another.example"]).code, 0, "nobody else was");
}

#[test]
fn v6_06_dns_11_a_server_behind_an_interface_of_the_hosts_is_asked_there() {
    let lab = lab();
    let server: Ipv6Addr = "fe80::53".parse().unwrap();
    lab.command(At::Outside, &["ip", "addr", "add", &format!("{server}/64"), "dev", "uplink0", "nodad"]);
    let index =
        lab.command(At::Outside, &["sh", "-c", "ip -o link show uplink0 | cut -d: -f1"]).trim().parse().unwrap();
    let socket = lab.in_outside(|| UdpSocket::bind(SocketAddrV6::new(server, 53, 0, index)).unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let serving = std::thread::spawn({
        let over = over.clone();
        move || upstream::serve(&socket, || over.load(Ordering::Relaxed))
    });
    let number = lab.command(At::Host, &["sh", "-c", "ip -o link show eth0 | cut -d: -f1"]);
    lab.network(json!({ "Name": "four" }));
    for zone in ["eth0", number.trim()] {
        std::fs::write(lab.resolv_conf(), format!("nameserver {server}%{zone}\n")).unwrap();
        lab.run("client", sleeper("four"));
        // The host's own address there has to be known as its own first.
        let asked = || lab.exec("client", &["nslookup", "upstream.example"]).code == 0;
        within(Duration::from_secs(15), &format!("it is asked in zone {zone}"), asked);
        lab.remove("client");
    }
    // Whoever shares the host's network asks it himself; whoever has another could not.
    std::fs::write(lab.resolv_conf(), format!("nameserver {server}%eth0\n")).unwrap();
    lab.run("hosts", sleeper("host"));
    lab.run("default", sleeper("bridge"));
    let servers = |name: &str| lab.exec(name, &["grep", "^nameserver", "/etc/resolv.conf"]).ok();
    assert_eq!(servers("hosts"), format!("nameserver {server}%eth0"));
    assert!(!servers("default").contains("fe80"), "{}", servers("default"));
    over.store(true, Ordering::Relaxed);
    serving.join().unwrap();
}

#[test]
fn v6_07_the_default_network_has_ipv6_if_the_daemon_is_told() {
    let auto = Lab::start_with(&program(), &["--ipv6"]).unwrap();
    auto.run("member", sleeper("default"));
    auto.serve(At::Outside, By::Tcp, 80);
    assert!(auto.addresses("member", "bridge")[1].to_string().starts_with("fd"));
    assert_eq!(auto.seen(At::Container("member"), By::Tcp, OUTSIDE6.into(), 80), Some(HOST6.into()));
    drop(auto);
    let given =
        ["--ipv6", "--bip6=fd00:17::1/64", "--fixed-cidr-v6=fd00:17::8000/113", "--default-gateway-v6=fd00:17::1"];
    let lab = Lab::start_with(&program(), &given[..3]).unwrap();
    lab.run("member", publisher("default", &[("80/tcp", "", "8080")]));
    lab.serve(At::Container("member"), By::Tcp, 80);
    assert_eq!(lab.addresses("member", "bridge")[1], "fd00:17::8000".parse::<IpAddr>().unwrap());
    let gateways = lab.bridge_addresses("isle0");
    assert_eq!(gateways, ["172.17.0.1".parse::<IpAddr>().unwrap(), "fd00:17::1".parse().unwrap()]);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8080), Some(OUTSIDE6.into()));
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 8080), Some(OUTSIDE.into()));
}

#[test]
fn v6_05_forwarding_does_not_cost_the_host_its_own_way_out() {
    // The host has its default route from a router, as most have.
    let advertise = |lab: &Lab, lifetime: u16| {
        let router = lab.link_local(At::Outside, "uplink0");
        let mut icmp = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        icmp[6..8].copy_from_slice(&lifetime.to_be_bytes());
        let from = lab.mac(At::Outside, "uplink0");
        let frame = icmp_frame([0x33, 0x33, 0, 0, 0, 1], from, router.into(), "ff02::1".parse().unwrap(), icmp);
        lab.send_frames(At::Outside, "uplink0", &[frame]);
    };
    let way = |lab: &Lab| lab.command(At::Host, &["ip", "-6", "route", "show", "default"]);
    let hears = |lab: &Lab, when: &str| {
        within(Duration::from_secs(5), when, || {
            advertise(lab, 1800);
            way(lab).contains("proto ra")
        });
    };
    let lab = Lab::start_after(&program(), |lab| {
        lab.command(At::Host, &["ip", "-6", "route", "del", "default"]);
        lab.command(At::Host, &["sysctl", "-w", "net.ipv6.conf.eth0.accept_ra=1"]);
        hears(lab, "the host has a router before there is a daemon");
    })
    .unwrap();
    assert!(way(&lab).contains("proto ra"), "after the daemon's start");
    ipv6_only(&lab, "six");
    lab.run("member", sleeper("six"));
    lab.serve(At::Outside, By::Tcp, 80);
    assert!(way(&lab).contains("proto ra"), "with a network that forwards");
    assert!(lab.seen(At::Container("member"), By::Tcp, OUTSIDE6.into(), 80).is_some(), "it does forward");
    // It goes on hearing its router: that it goes, and that it is back.
    within(Duration::from_secs(5), "the router goes", || {
        advertise(&lab, 0);
        !way(&lab).contains("proto ra")
    });
    hears(&lab, "the router is back");
}

#[test]
fn v6_05_an_uplink_that_comes_later_forwards_too() {
    let lab = lab();
    ipv6_only(&lab, "six");
    lab.run("member", sleeper("six"));
    // A second way out: a VPN that is switched on.
    let pid = lab.run("peer", sleeper("none"));
    let pid = lab.inspect(&pid)["State"]["Pid"].to_string();
    let peer = At::Container("peer");
    for (at, words) in [
        (At::Host, "link add vpn0 type veth peer name vpn1".to_owned()),
        (At::Host, format!("link set vpn1 netns {pid}")),
        (At::Host, "link set vpn0 up".to_owned()),
        (peer, "link set vpn1 up".to_owned()),
        (peer, "addr add 2001:db8:77::1/64 dev vpn1 nodad".to_owned()),
        (At::Host, "addr add 2001:db8:77::2/64 dev vpn0 nodad".to_owned()),
    ] {
        let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        assert_eq!(lab.command(at, &command), "", "{words}");
    }
    lab.serve(peer, By::Tcp, 80);
    let (there, ours) = ("2001:db8:77::1".parse().unwrap(), "2001:db8:77::2".parse::<IpAddr>().unwrap());
    within(Duration::from_secs(5), "what is behind it is reached", || {
        lab.seen(At::Container("member"), By::Tcp, there, 80) == Some(ours)
    });
}

#[test]
fn sec_11_ipv6_that_a_container_has_turned_off_is_nowhere_said_to_be_there() {
    let mut lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name, "EnableIPv6": true }));
    }
    let endpoint = |option: &str| json!({ "DriverOpts": { "com.docker.network.endpoint.sysctls": option } });
    let off = "net.ipv6.conf.IFNAME.disable_ipv6=1";
    let mut all = sleeper("front");
    all["HostConfig"]["Sysctls"] = json!({ "net.ipv6.conf.all.disable_ipv6": "1" });
    lab.run("all", all);
    let mut one = sleeper("front");
    one["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": endpoint(off) } });
    lab.run("one", one);
    lab.run("client", sleeper("front"));
    let inside = |lab: &Lab, name: &str| lab.command(At::Container(name), &["ip", "-6", "-o", "addr"]);
    let hosts = |lab: &Lab, name: &str| lab.exec(name, &["cat", "/etc/hosts"]).ok();
    let check = |lab: &Lab, name: &str| {
        let shown = lab.inspect(name)["NetworkSettings"]["Networks"]["front"].clone();
        assert_eq!((&shown["GlobalIPv6Address"], &shown["IPv6Gateway"]), (&json!(""), &json!("")), "{name}");
        let id = lab.inspect(name)["Id"].as_str().unwrap().to_owned();
        let members = lab.get("/networks/front").unwrap().json()["Containers"].clone();
        assert_eq!(members[&id]["IPv6Address"], "", "{name}");
        let ipv4 = lab.addresses(name, "front");
        assert!(ipv4.len() == 1 && ipv4[0].is_ipv4(), "{name}: {ipv4:?}");
        assert_eq!(lab.both_families("client", name), Some(ipv4.clone()), "{name}: no error, and no address of IPv6");
        let own: Vec<String> = hosts(lab, name).lines().filter(|l| l.contains(&id[..12])).map(str::to_owned).collect();
        assert_eq!(own[0], format!("{}\t{}", ipv4[0], &id[..12]), "{name}");
        assert!(own.iter().all(|line| !line.contains(':')), "{name}: {own:?}");
        assert!(!inside(lab, name).contains("eth0"), "{name}: {}", inside(lab, name));
    };
    check(&lab, "all");
    check(&lab, "one");
    // Its loopback has IPv6 or not, and the file says so (DNS-22).
    assert!(hosts(&lab, "one").contains("::1\tlocalhost") && !hosts(&lab, "all").contains(':'));
    assert!(inside(&lab, "one").contains("::1/128") && !inside(&lab, "all").contains("::1"));
    // While it runs, and after another start and another daemon, too.
    lab.tell("/networks/back/connect", json!({ "Container": "all" }), 200);
    lab.tell("/networks/back/connect", json!({ "Container": "one" }), 200);
    assert_eq!(lab.addresses("all", "back").len(), 1);
    assert_eq!(lab.addresses("one", "back").len(), 2, "it is off for the other interface alone");
    lab.tell("/networks/back/disconnect", json!({ "Container": "one" }), 200);
    lab.tell("/networks/back/connect", json!({ "Container": "one", "EndpointConfig": endpoint(off) }), 200);
    assert_eq!(lab.addresses("one", "back").len(), 1);
    lab.ask("/containers/one/restart?t=0", 204);
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    check(&lab, "all");
    check(&lab, "one");
    // An address that was asked for is not had; nobody else gets it.
    let config = json!([{ "Subnet": "fd00:9::/64" }]);
    lab.network(json!({ "Name": "plan", "EnableIPv6": true, "IPAM": { "Config": config } }));
    let mut fixed = sleeper("plan");
    fixed["HostConfig"]["Sysctls"] = json!({ "net.ipv6.conf.all.disable_ipv6": "1" });
    let ipam = json!({ "IPAMConfig": { "IPv6Address": "fd00:9::9", "LinkLocalIPs": ["fe80::9"] } });
    fixed["NetworkingConfig"] = json!({ "EndpointsConfig": { "plan": ipam } });
    lab.run("fixed", fixed);
    assert!(lab.addresses("fixed", "plan").iter().all(IpAddr::is_ipv4));
}

#[test]
fn v6_04_a_container_without_ipv6_is_reached_by_the_hosts_ipv6_addresses() {
    let lab = lab();
    lab.network(json!({ "Name": "four", "Options": { "com.docker.network.bridge.name": "br-four" } }));
    lab.run("web", publisher("four", &[("80/tcp", "", "8080"), ("80/udp", "", "8080")]));
    let gateway = lab.bridge_addresses("br-four")[0];
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("web"), by, 80);
        // Carried, so that it sees the bridge; by IPv4 it sees who asks.
        assert_eq!(lab.seen(At::Outside, by, HOST6.into(), 8080), Some(gateway), "{by:?}");
        assert_eq!(lab.seen(At::Host, by, Ipv6Addr::LOCALHOST.into(), 8080), Some(gateway), "{by:?}");
        assert_eq!(lab.seen(At::Outside, by, HOST.into(), 8080), Some(OUTSIDE.into()), "{by:?}");
    }
    lab.ask("/containers/web/stop?t=0", 204);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8080), None);
    let without = Lab::start_with(&program(), &["--userland-proxy=false"]).unwrap();
    without.run("web", publisher("default", &[("80/tcp", "", "8080")]));
    without.serve(At::Container("web"), By::Tcp, 80);
    assert_eq!(without.seen(At::Outside, By::Tcp, HOST6.into(), 8080), None, "nobody carries it");
    assert!(without.seen(At::Outside, By::Tcp, HOST.into(), 8080).is_some());
}

#[test]
fn v6_03_the_prefix_of_every_link_may_be_a_networks_own() {
    let lab = lab();
    let config = json!([{ "Subnet": "fe80::/64" }]);
    lab.network(json!({ "Name": "link", "EnableIPv4": false, "EnableIPv6": true, "IPAM": { "Config": config } }));
    for name in ["one", "two"] {
        lab.run(name, sleeper("link"));
    }
    let two = lab.addresses("two", "link")[0];
    assert_eq!(two, "fe80::3".parse::<IpAddr>().unwrap());
    lab.serve(At::Container("two"), By::Tcp, 80);
    let link: u32 = lab.exec("one", &["cat", "/sys/class/net/eth0/ifindex"]).ok().parse().unwrap();
    let IpAddr::V6(there) = two else { panic!("{two}") };
    let there = SocketAddrV6::new(there, 80, 0, link).into();
    let reached = lab.in_container("one", || TcpStream::connect_timeout(&there, Duration::from_secs(2)));
    assert!(reached.is_ok(), "{reached:?}");
    assert_eq!(lab.both_families("one", "two"), Some(vec![two]));
}

#[test]
fn v6_01_families_may_be_asked_for_by_options_of_the_network_and_of_the_daemon() {
    let option = "com.docker.network.enable_ipv6";
    let lab = Lab::start_with(&program(), &["--default-network-opt", &format!("bridge={option}=true")]).unwrap();
    let has = |name: &str, body: serde_json::Value| {
        let mut body = body;
        body["Name"] = name.into();
        lab.network(body);
        let shown = lab.get(&format!("/networks/{name}")).unwrap().json();
        (shown["EnableIPv4"].as_bool().unwrap(), shown["EnableIPv6"].as_bool().unwrap())
    };
    assert_eq!(has("plain", json!({})), (true, true), "as the daemon says");
    assert_eq!(has("off", json!({ "Options": { option: "false" } })), (true, false), "the network's own option");
    assert_eq!(has("said", json!({ "EnableIPv6": false })), (true, false), "what is said goes before options");
    let alone = json!({ "Options": { "com.docker.network.enable_ipv4": "0" } });
    assert_eq!(has("six", alone), (false, true));
    // A static address of such a network is had.
    let config = json!([{ "Subnet": "fd00:9::/64" }]);
    has("plan", json!({ "IPAM": { "Config": config } }));
    let mut body = sleeper("plan");
    body["NetworkingConfig"] =
        json!({ "EndpointsConfig": { "plan": { "IPAMConfig": { "IPv6Address": "fd00:9::9" } } } });
    lab.run("fixed", body);
    assert_eq!(lab.addresses("fixed", "plan")[1], "fd00:9::9".parse::<IpAddr>().unwrap());
    let wrong = json!({ "Name": "x", "Options": { option: "maybe" } });
    let message = lab.tell("/networks/create", wrong, 400).message();
    assert_eq!(message, format!("driver-opt \"{option}\" is not a valid bool"));
}
