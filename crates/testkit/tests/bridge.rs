//! Bridge networks, as Docker's options make them: what crosses their border, and how members are wired.
//!
//! ```text
//!   outside (a router, and a LAN neighbour) ── eth0 ── host ── bridges ── members
//! ```

use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;
use testkit::traffic::{At, By, publisher, sleeper, sleeper_with};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, lab, program, within};

const BOTH: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(HOST), IpAddr::V4(OUTSIDE)), (IpAddr::V6(HOST6), IpAddr::V6(OUTSIDE6))];

/// The outside knows the way to these addresses.
fn routes_from_outside(lab: &Lab, to: &[IpAddr]) {
    for address in to {
        let via = if address.is_ipv4() { HOST.to_string() } else { HOST6.to_string() };
        assert_eq!(lab.command(At::Outside, &["ip", "route", "add", &address.to_string(), "via", &via]), "");
    }
}

/// Whether a place pings an address.
fn pings(lab: &Lab, from: At<'_>, to: IpAddr) -> bool {
    lab.command(from, &["ping", "-c1", "-W1", &to.to_string()]).contains(" 0% packet loss")
}

fn link(lab: &Lab, at: At<'_>, device: &str) -> String {
    lab.command(at, &["ip", "-o", "link", "show", "dev", device])
}

#[test]
fn br_01_the_default_network_is_there_as_clients_know_it() {
    let lab = lab();
    let shown = lab.get("/networks/bridge").unwrap().json();
    assert_eq!(shown["IPAM"]["Config"], json!([{ "Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1" }]));
    let expected = json!({
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": "isle0",
        "com.docker.network.driver.mtu": "1500",
    });
    assert_eq!(shown["Options"], expected);
    let addresses = lab.bridge_addresses("isle0");
    assert_eq!(addresses, ["172.17.0.1".parse::<IpAddr>().unwrap()]);
    lab.run("member", sleeper("default"));
    assert_eq!(lab.address("member", "bridge"), "172.17.0.2");
    assert!(pings(&lab, At::Container("member"), OUTSIDE.into()));
}

#[test]
fn br_03_a_lost_bridge_is_made_again_when_the_daemon_starts() {
    let mut lab = lab();
    lab.bridge("front", json!({}));
    lab.run("one", sleeper("front"));
    lab.run("two", sleeper("front"));
    lab.serve(At::Container("two"), By::Tcp, 80);
    let two = lab.addresses("two", "front");
    let reached = |lab: &Lab| two.iter().all(|to| lab.seen(At::Container("one"), By::Tcp, *to, 80).is_some());
    assert!(reached(&lab));
    lab.stop_daemon();
    lab.command(At::Host, &["ip", "link", "del", "br-front"]);
    lab.start_daemon().unwrap();
    within(Duration::from_secs(5), "members reach each other again", || reached(&lab));
    // While a daemon runs, it is made again at once.
    lab.command(At::Host, &["ip", "link", "del", "br-front"]);
    within(Duration::from_secs(2), "members reach each other again", || reached(&lab));
    // So is a member's link, under its name inside.
    let ports = lab.command(At::Host, &["ip", "-o", "link", "show", "master", "br-front"]);
    for port in ports.lines().filter_map(|l| l.split(": ").nth(1)?.split('@').next()) {
        lab.command(At::Host, &["ip", "link", "del", port]);
    }
    within(Duration::from_secs(2), "members are linked again", || reached(&lab));
    // It stays while the network does, members or none.
    lab.remove("one");
    lab.remove("two");
    assert_eq!(lab.bridge_addresses("br-front").len(), 2);
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    within(Duration::from_secs(5), "it goes with its network", || {
        link(&lab, At::Host, "br-front").contains("does not exist")
    });
}

#[test]
fn br_02_a_bridge_that_was_there_before_is_used_and_left() {
    let lab = lab();
    lab.command(At::Host, &["ip", "link", "add", "theirs", "type", "bridge"]);
    lab.network(json!({ "Name": "front", "Options": { "com.docker.network.bridge.name": "theirs" } }));
    lab.run("one", sleeper("front"));
    assert!(pings(&lab, At::Container("one"), OUTSIDE.into()));
    lab.remove("one");
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    assert!(link(&lab, At::Host, "theirs").contains("theirs"));
}

#[test]
fn br_04_interfaces_have_the_names_that_they_are_given() {
    let lab = lab();
    lab.bridge("front", json!({ "com.docker.network.container_iface_prefix": "lan" }));
    lab.bridge("back", json!({}));
    let exact = |name: &str| json!({ "DriverOpts": { "com.docker.network.endpoint.ifname": name } });
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": {}, "back": exact("store0") } });
    lab.run("member", body);
    let interfaces = || lab.exec("member", &["ls", "/sys/class/net"]).ok().replace('\n', " ");
    assert_eq!(interfaces(), "lan0 lo store0");
    lab.bridge("third", json!({}));
    let taken = json!({ "Container": "member", "EndpointConfig": exact("store0") });
    let refused = lab.tell("/networks/third/connect", taken, 409).message();
    assert!(refused.contains("interface name store0 for network third is already in use"), "{refused}");
    let wrong = json!({ "Container": "member", "EndpointConfig": exact("a/b") });
    lab.tell("/networks/third/connect", wrong, 400);
    lab.tell("/networks/third/connect", json!({ "Container": "member" }), 200);
    assert_eq!(interfaces(), "eth0 lan0 lo store0");
    lab.ask("/containers/member/restart?t=0", 204);
    assert_eq!(interfaces(), "eth0 lan0 lo store0");
}

#[test]
fn br_05_a_configured_hardware_address_stays_and_others_are_random() {
    let lab = lab();
    lab.bridge("front", json!({}));
    lab.run("fixed", sleeper_with("front", json!({ "MacAddress": "02:00:00:00:00:77" })));
    lab.run("random", sleeper("front"));
    let mac = |name: &str| lab.exec(name, &["cat", "/sys/class/net/eth0/address"]).ok();
    let shown = |name: &str, network: &str| {
        lab.inspect(name)["NetworkSettings"]["Networks"][network]["MacAddress"].as_str().unwrap().to_owned()
    };
    let before = mac("random");
    assert_eq!((mac("fixed"), shown("random", "front")), ("02:00:00:00:00:77".to_owned(), before.clone()));
    assert_eq!(u8::from_str_radix(&before[..2], 16).unwrap() & 3, 2, "locally administered");
    for name in ["fixed", "random"] {
        lab.ask(&format!("/containers/{name}/restart?t=0"), 204);
    }
    assert_eq!(mac("fixed"), "02:00:00:00:00:77");
    assert_ne!(mac("random"), before);
}

#[test]
fn br_06_a_hardware_address_counts_at_connect_and_as_older_clients_say_it() {
    let lab = lab();
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    lab.run("random", sleeper("front"));
    let shown = |name: &str, network: &str| {
        lab.inspect(name)["NetworkSettings"]["Networks"][network]["MacAddress"].as_str().unwrap().to_owned()
    };
    let settings = json!({ "Container": "random", "EndpointConfig": { "MacAddress": "02:00:00:00:00:78" } });
    lab.tell("/networks/back/connect", settings, 200);
    assert_eq!(shown("random", "back"), "02:00:00:00:00:78");
    assert_eq!(lab.exec("random", &["cat", "/sys/class/net/eth1/address"]).ok(), "02:00:00:00:00:78");
    let mut body = sleeper("front");
    body["MacAddress"] = "02:00:00:00:00:79".into();
    lab.run("old", body.clone());
    assert_eq!(shown("old", "front"), "02:00:00:00:00:79");
    body["Image"] = "busybox".into();
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "MacAddress": "02:00:00:00:00:80" } } });
    let refused = lab.tell("/containers/create", body, 400).message();
    assert!(refused.starts_with("conflicting MAC addresses"), "{refused}");
}

#[test]
fn br_07_networks_have_the_uplinks_mtu_or_their_own() {
    let lab = Lab::start_after(&program(), |lab| {
        lab.command(At::Host, &["ip", "link", "set", "eth0", "mtu", "1400"]);
    })
    .unwrap();
    lab.bridge("auto", json!({}));
    lab.bridge("own", json!({ "com.docker.network.driver.mtu": "1300" }));
    for (name, mtu) in [("auto", "1400"), ("own", "1300")] {
        lab.run(name, sleeper(name));
        assert_eq!(lab.exec(name, &["cat", "/sys/class/net/eth0/mtu"]).ok(), mtu);
        assert!(link(&lab, At::Host, &format!("br-{name}")).contains(&format!("mtu {mtu}")));
    }
    let wrong = json!({ "Name": "wrong", "Options": { "com.docker.network.driver.mtu": "12" } });
    lab.tell("/networks/create", wrong, 400);
}

#[test]
fn br_08_what_leaves_has_the_address_that_the_network_says() {
    let lab = lab();
    for command in ["addr add 198.51.100.77/24 dev eth0", "addr add 2001:db8:51::77/64 dev eth0 nodad preferred_lft 0"]
    {
        let command: Vec<&str> = std::iter::once("ip").chain(command.split(' ')).collect();
        assert_eq!(lab.command(At::Host, &command), "");
    }
    lab.bridge("plain", json!({}));
    lab.bridge("bare", json!({ "com.docker.network.bridge.enable_ip_masquerade": "false" }));
    let told =
        json!({ "com.docker.network.host_ipv4": "198.51.100.77", "com.docker.network.host_ipv6": "2001:db8:51::77" });
    lab.bridge("told", told);
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Outside, by, 80);
    }
    for name in ["plain", "bare", "told"] {
        lab.run(name, sleeper(name));
    }
    let bare = lab.addresses("bare", "bare");
    routes_from_outside(&lab, &bare);
    let other: [IpAddr; 2] = ["198.51.100.77".parse().unwrap(), "2001:db8:51::77".parse().unwrap()];
    for (n, (host, outside)) in BOTH.into_iter().enumerate() {
        for by in [By::Tcp, By::Udp] {
            let seen = |name: &str| lab.seen(At::Container(name), by, outside, 80);
            assert_eq!(seen("plain"), Some(host), "PT-20: as the route says");
            assert_eq!(seen("bare"), Some(bare[n]));
            assert_eq!(seen("told"), Some(other[n]));
        }
    }
    let wrong = json!({ "Name": "wrong", "Options": { "com.docker.network.host_ipv4": "fd00::1" } });
    lab.tell("/networks/create", wrong, 400);
}

#[test]
fn br_09_gateway_modes_say_what_comes_in() {
    let lab = lab();
    let mode = |mode: &str| json!({ "com.docker.network.bridge.gateway_mode_ipv4": mode, "com.docker.network.bridge.gateway_mode_ipv6": mode });
    let all = ["nat", "nat-unprotected", "routed"];
    for name in all {
        lab.bridge(name, mode(name));
        lab.run(name, publisher(name, &[("80/tcp", "", ""), ("5353/udp", "", "")]));
        for port in [80, 81] {
            lab.serve(At::Container(name), By::Tcp, port);
        }
        lab.serve(At::Container(name), By::Udp, 5353);
        routes_from_outside(&lab, &lab.addresses(name, name));
    }
    lab.bridge("other", json!({}));
    lab.run("other", sleeper("other"));
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Outside, by, 80);
    }
    for (n, (host, outside)) in BOTH.into_iter().enumerate() {
        for (name, published, unpublished, ping) in
            [("nat", false, false, false), ("nat-unprotected", true, true, true), ("routed", true, false, true)]
        {
            let to = lab.addresses(name, name)[n];
            let reached = |from, by, port| lab.seen(from, by, to, port).is_some();
            assert_eq!(reached(At::Outside, By::Tcp, 80), published, "{name}: published, {to}");
            assert_eq!(reached(At::Outside, By::Udp, 5353), published, "{name}: published by UDP, {to}");
            assert_eq!(reached(At::Outside, By::Tcp, 81), unpublished, "{name}: unpublished, {to}");
            assert_eq!(pings(&lab, At::Outside, to), ping, "{name}: ping, {to}");
            assert!(reached(At::Host, By::Tcp, 81), "{name}: the host reaches its members");
            // Other networks see published ports of routed ones, and nothing else.
            assert_eq!(reached(At::Container("other"), By::Tcp, 80), name == "routed", "{name}: from another network");
            assert!(!reached(At::Container("other"), By::Tcp, 81), "{name}: from another network");
            let expected = if name == "routed" { to } else { host };
            assert_eq!(lab.seen(At::Container(name), By::Tcp, outside, 80), Some(expected), "{name}: on the way out");
        }
    }
    // No host port is taken, and clients are shown so.
    let shown = |name: &str| lab.inspect(name)["NetworkSettings"]["Ports"]["80/tcp"].clone();
    assert_eq!(shown("routed"), json!([{ "HostIp": "0.0.0.0", "HostPort": "" }, { "HostIp": "::", "HostPort": "" }]));
    assert_ne!(shown("nat")[0]["HostPort"], "");
    // Each family has its own.
    lab.bridge("mixed", json!({ "com.docker.network.bridge.gateway_mode_ipv6": "routed" }));
    lab.run("mixed", publisher("mixed", &[("80/tcp", "", "8080")]));
    lab.serve(At::Container("mixed"), By::Tcp, 80);
    let addresses = lab.addresses("mixed", "mixed");
    routes_from_outside(&lab, &addresses);
    assert_eq!(
        shown("mixed"),
        json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "" }])
    );
    assert!(lab.seen(At::Outside, By::Tcp, HOST.into(), 8080).is_some());
    assert!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8080).is_none());
    assert!(lab.seen(At::Outside, By::Tcp, addresses[0], 80).is_none());
    assert!(lab.seen(At::Outside, By::Tcp, addresses[1], 80).is_some());
    // What is closed again: the container's end takes its ports with it.
    lab.ask("/containers/routed/stop?t=0", 204);
    let rules = lab.command(At::Host, &["nft", "list", "ruleset"]);
    assert!(!rules.contains(&addresses[0].to_string()) || rules.contains("direct6"), "{rules}");
}

#[test]
fn br_09_on_an_isolated_network_the_host_has_no_address() {
    let lab = lab();
    let isolated = json!({ "com.docker.network.bridge.gateway_mode_ipv4": "isolated", "com.docker.network.bridge.gateway_mode_ipv6": "isolated", "com.docker.network.bridge.name": "br-alone" });
    let refused = lab.tell("/networks/create", json!({ "Name": "alone", "Options": isolated }), 400).message();
    assert_eq!(refused, "gateway mode 'isolated' can only be used for an internal network");
    // BR-13: two members fill a point-to-point subnet.
    let config = json!([{ "Subnet": "10.9.0.0/31" }, { "Subnet": "fd00:9::/127" }]);
    lab.network(json!({ "Name": "alone", "Internal": true, "EnableIPv6": true, "Options": isolated, "IPAM": { "Config": config } }));
    assert!(lab.bridge_addresses("br-alone").is_empty());
    lab.run("one", sleeper("alone"));
    lab.run("two", sleeper("alone"));
    lab.create("three", sleeper("alone"));
    lab.ask("/containers/three/start", 403);
    lab.serve(At::Container("two"), By::Tcp, 80);
    for to in lab.addresses("two", "alone") {
        assert!(lab.seen(At::Container("one"), By::Tcp, to, 80).is_some(), "{to}");
        assert!(lab.seen(At::Host, By::Tcp, to, 80).is_none(), "{to}");
    }
    let shown = lab.get("/networks/alone").unwrap().json();
    assert_eq!(shown["IPAM"]["Config"][0].get("Gateway"), None);
}

#[test]
fn br_13_a_point_to_point_network_is_one_member_and_the_host() {
    let lab = lab();
    let config = json!([{ "Subnet": "10.9.0.0/31" }, { "Subnet": "fd00:9::/127" }]);
    lab.network(json!({ "Name": "pair", "EnableIPv6": true, "IPAM": { "Config": config } }));
    lab.run("one", sleeper("pair"));
    assert_eq!(
        lab.addresses("one", "pair").iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.9.0.1", "fd00:9::1"]
    );
    lab.serve(At::Outside, By::Tcp, 80);
    for (host, outside) in BOTH {
        assert_eq!(lab.seen(At::Container("one"), By::Tcp, outside, 80), Some(host));
    }
}

#[test]
fn br_11_the_way_out_may_be_somebody_else() {
    let lab = lab();
    // A router on the bridge, which the user has put there.
    let config = json!([{ "Subnet": "10.9.0.0/24", "AuxiliaryAddresses": { "DefaultGatewayIPv4": "10.9.0.254" } },
        { "Subnet": "fd00:9::/64", "AuxiliaryAddresses": { "DefaultGatewayIPv6": "fd00:9::fe" } }]);
    lab.network(json!({ "Name": "front", "EnableIPv6": true, "IPAM": { "Config": config },
        "Options": { "com.docker.network.bridge.name": "br-front", "com.docker.network.bridge.inhibit_ipv4": "true" } }));
    assert_eq!(lab.bridge_addresses("br-front"), ["fd00:9::1".parse::<IpAddr>().unwrap()], "no IPv4 on the bridge");
    lab.run("member", sleeper("front"));
    lab.run("router", sleeper("none"));
    let pid = lab.inspect("router")["State"]["Pid"].to_string();
    lab.command(At::Host, &["ip", "link", "add", "tap0", "master", "br-front", "type", "veth", "peer", "name", "r0"]);
    lab.command(At::Host, &["ip", "link", "set", "tap0", "up"]);
    lab.command(At::Host, &["ip", "link", "set", "r0", "netns", &pid]);
    let router = At::Container("router");
    for words in [
        "link set r0 up",
        "addr add 10.9.0.254/24 dev r0",
        "addr add fd00:9::fe/64 dev r0 nodad",
        "addr add 203.0.113.1/32 dev lo",
        "addr add 2001:db8:113::1/128 dev lo nodad",
    ] {
        let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        assert_eq!(lab.command(router, &command), "", "{words}");
    }
    lab.serve(router, By::Tcp, 80);
    let own = lab.addresses("member", "front");
    for (n, behind) in ["203.0.113.1", "2001:db8:113::1"].iter().enumerate() {
        let to = behind.parse().unwrap();
        within(Duration::from_secs(5), "what is behind the router is reached", || {
            lab.seen(At::Container("member"), By::Tcp, to, 80) == Some(own[n])
        });
    }
    let shown = lab.inspect("member")["NetworkSettings"]["Networks"]["front"].clone();
    assert_eq!((&shown["Gateway"], &shown["IPv6Gateway"]), (&json!("10.9.0.254"), &json!("fd00:9::fe")));
}

#[test]
fn br_18_trusted_interfaces_reach_published_ports_directly() {
    let lab = lab();
    lab.bridge("front", json!({ "com.docker.network.bridge.trusted_host_interfaces": "eth0:wg0" }));
    lab.bridge("back", json!({ "com.docker.network.bridge.trusted_host_interfaces": "wg0" }));
    for name in ["front", "back"] {
        lab.run(name, publisher(name, &[("80/tcp", "127.0.0.1", "0"), ("80/tcp", "::1", "0")]));
        for port in [80, 81] {
            lab.serve(At::Container(name), By::Tcp, port);
        }
        let to = lab.addresses(name, name);
        routes_from_outside(&lab, &to);
        for to in &to {
            assert_eq!(lab.seen(At::Outside, By::Tcp, *to, 80).is_some(), name == "front", "{name}: {to}");
            assert_eq!(lab.seen(At::Outside, By::Tcp, *to, 81), None, "{name}: not published");
        }
    }
}

#[test]
fn br_16_a_container_on_several_networks_reaches_them_all_by_name() {
    let lab = lab();
    let mut endpoints = serde_json::Map::new();
    for name in ["cc", "aa", "bb"] {
        lab.bridge(name, json!({}));
        lab.run(&format!("of-{name}"), sleeper(name));
        lab.serve(At::Container(&format!("of-{name}")), By::Tcp, 80);
        endpoints.insert(name.to_owned(), json!({}));
    }
    let mut body = sleeper("cc");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": endpoints });
    lab.run("member", body);
    assert_eq!(lab.exec("member", &["ls", "/sys/class/net"]).ok().replace('\n', " "), "eth0 eth1 eth2 lo");
    for name in ["aa", "bb", "cc"] {
        let of = format!("of-{name}");
        assert_eq!(lab.lookup("member", &of), [lab.address(&of, name)]);
        for (n, to) in lab.addresses(&of, name).into_iter().enumerate() {
            assert_eq!(lab.seen(At::Container("member"), By::Tcp, to, 80), Some(lab.addresses("member", name)[n]));
        }
    }
}

#[test]
fn br_20_options_of_other_engines_are_refused_and_say_what_would_work() {
    let lab = lab();
    for option in ["vlan", "vrf"] {
        let refused = lab.tell("/networks/create", json!({ "Name": "x", "Options": { option: "7" } }), 400).message();
        assert!(refused.contains(&format!("a bridge network has no option {option}")), "{refused}");
    }
    assert_eq!(lab.get("/networks/x").unwrap().status, 404);
}

#[test]
fn api_32_a_template_gives_networks_their_options() {
    let lab = lab();
    let template = json!({ "Name": "template", "ConfigOnly": true, "Labels": { "a": "b" },
        "Options": { "com.docker.network.driver.mtu": "1400" }, "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }] } });
    lab.network(template);
    lab.network(json!({ "Name": "real", "ConfigFrom": { "Network": "template" } }));
    let shown = |name: &str| lab.get(&format!("/networks/{name}")).unwrap().json();
    let (template, real) = (shown("template"), shown("real"));
    assert_eq!((&template["ConfigOnly"], &template["Driver"]), (&json!(true), &json!("null")));
    assert_eq!(real["ConfigFrom"], json!({ "Network": "template" }));
    assert_eq!(
        (&real["Labels"], &real["IPAM"]["Config"]),
        (&json!({ "a": "b" }), &json!([{ "Subnet": "10.9.0.0/24" }]))
    );
    lab.run("member", sleeper("real"));
    assert_eq!(lab.exec("member", &["cat", "/sys/class/net/eth0/mtu"]).ok(), "1400");
    let mut body = sleeper("template");
    body["Image"] = "busybox".into();
    for (path, body) in [("/containers/create", body), ("/networks/template/connect", json!({ "Container": "member" }))]
    {
        let refused = lab.tell(path, body, 403).message();
        assert!(refused.contains("cannot create endpoint on configuration-only network template"), "{refused}");
    }
    let busy = lab.delete("/networks/template").unwrap();
    assert_eq!(
        (busy.status, busy.message()),
        (403, "configuration network \"template\" is in use by network real".to_owned())
    );
    lab.remove("member");
    for name in ["real", "template"] {
        assert_eq!(lab.delete(&format!("/networks/{name}")).unwrap().status, 204);
    }
    let none =
        lab.tell("/networks/create", json!({ "Name": "x", "ConfigFrom": { "Network": "template" } }), 404).message();
    assert_eq!(none, "configuration network \"template\" not found");
}

#[test]
fn br_19_the_default_network_is_as_the_daemon_is_told() {
    let mut lab = Lab::start_with(
        &program(),
        &[
            "--bridge=ours0",
            "--bip=10.9.0.1/16",
            "--fixed-cidr=10.9.8.0/24",
            "--icc=false",
            "--ip-masq=false",
            "--ip=127.0.0.1",
            "--mtu=1400",
        ],
    )
    .unwrap();
    let shown = |lab: &Lab| lab.get("/networks/bridge").unwrap().json();
    let before = shown(&lab);
    assert_eq!(
        before["IPAM"]["Config"],
        json!([{ "Subnet": "10.9.0.0/16", "IPRange": "10.9.8.0/24", "Gateway": "10.9.0.1" }])
    );
    assert_eq!(before["Options"]["com.docker.network.bridge.enable_icc"], "false");
    for name in ["one", "two"] {
        lab.run(name, publisher("default", &[("80/tcp", "", if name == "one" { "8080" } else { "8081" })]));
        lab.serve(At::Container(name), By::Tcp, 80);
    }
    lab.serve(At::Outside, By::Tcp, 80);
    let (one, two) = (lab.addresses("one", "bridge")[0], lab.addresses("two", "bridge")[0]);
    assert_eq!(one, "10.9.8.0".parse::<IpAddr>().unwrap());
    assert_eq!(lab.exec("one", &["cat", "/sys/class/net/eth0/mtu"]).ok(), "1400");
    assert_eq!(lab.seen(At::Container("one"), By::Tcp, two, 80), None, "--icc=false");
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 8080), None, "--ip");
    assert!(lab.seen(At::Host, By::Tcp, [127, 0, 0, 1].into(), 8080).is_some());
    routes_from_outside(&lab, &[one]);
    assert_eq!(lab.seen(At::Container("one"), By::Tcp, OUTSIDE.into(), 80), Some(one), "--ip-masq=false");
    // While containers run on it, it stays as they know it; afterwards it is as the next daemon is told.
    lab.stop_daemon();
    lab.arguments = vec!["--bridge=ours0".into(), "--ipv6".into(), "--default-gateway=172.17.0.254".into()];
    lab.start_daemon().unwrap();
    assert_eq!(shown(&lab)["IPAM"], before["IPAM"]);
    for name in ["one", "two"] {
        lab.remove(name);
    }
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(shown(&lab)["Id"], before["Id"]);
    assert_eq!(lab.bridge_addresses("ours0")[0], "172.17.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(lab.bridge_addresses("ours0").len(), 2);
    lab.run("member", sleeper("default"));
    assert!(lab.exec("member", &["ip", "route"]).ok().contains("default via 172.17.0.254"));
    // Without a default network, containers that ask for none have none.
    lab.remove("member");
    lab.stop_daemon();
    lab.arguments = vec!["--bridge=none".into()];
    lab.start_daemon().unwrap();
    assert_eq!(lab.get("/networks/bridge").unwrap().status, 404);
    lab.run("alone", json!({ "Cmd": ["sleep", "600"] }));
    assert_eq!(lab.exec("alone", &["ls", "/sys/class/net"]).ok(), "lo");
    lab.network(json!({ "Name": "front" }));
    lab.run("member", sleeper("front"));
    assert!(pings(&lab, At::Container("member"), OUTSIDE.into()));
}

#[test]
fn br_19_a_bridge_of_the_users_may_be_the_default_network() {
    let lab = Lab::start_after(&program(), |lab| {
        for words in ["link add mine type bridge", "addr add 10.77.0.9/24 dev mine", "link set mine up"] {
            let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
            assert_eq!(lab.command(At::Host, &command), "", "{words}");
        }
        lab.arguments = vec!["--bridge=mine".into()];
    })
    .unwrap();
    let shown = lab.get("/networks/bridge").unwrap().json();
    assert_eq!(shown["IPAM"]["Config"], json!([{ "Subnet": "10.77.0.0/24", "Gateway": "10.77.0.9" }]));
    lab.run("member", sleeper("default"));
    assert!(pings(&lab, At::Container("member"), OUTSIDE.into()));
}

#[test]
fn api_34_defaults_of_the_daemon_stand_under_what_a_network_says() {
    let mtu = "--default-network-opt=bridge=com.docker.network.driver.mtu=1300";
    let lab = Lab::start_with(
        &program(),
        &[mtu, "--default-address-pool=base=10.50.0.0/16,size=24", "--host-gateway-ip=192.0.2.9"],
    )
    .unwrap();
    lab.bridge("plain", json!({}));
    lab.bridge("own", json!({ "com.docker.network.driver.mtu": "1350" }));
    for (name, mtu) in [("plain", "1300"), ("own", "1350")] {
        lab.run(name, sleeper(name));
        assert_eq!(lab.exec(name, &["cat", "/sys/class/net/eth0/mtu"]).ok(), mtu);
    }
    // IP-02: subnets come from the pools that were given; IPv6 from the daemon's own, where none has it.
    let shown = lab.get("/networks/plain").unwrap().json();
    assert_eq!(shown["IPAM"]["Config"][0]["Subnet"], "10.50.0.0/24");
    assert!(shown["IPAM"]["Config"][1]["Subnet"].as_str().unwrap().starts_with("fd"));
    let mut body = sleeper("plain");
    body["HostConfig"]["ExtraHosts"] = json!(["up:host-gateway"]);
    lab.run("asks", body);
    assert!(lab.exec("asks", &["cat", "/etc/hosts"]).ok().contains("192.0.2.9\tup"), "DNS-23");
    let wrong =
        Lab::start_with(&program(), &["--default-address-pool=base=10.0.0.0/8,size=4"]).err().unwrap().to_string();
    assert!(wrong.contains("invalid default address pool 10.0.0.0/8"), "{wrong}");
}
