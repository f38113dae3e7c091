//! Addresses: where they come from, who has them, and what is said when there is none.

use serde_json::{Value, json};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;
use testkit::traffic::{At, By, sleeper, sleeper_with};
use testkit::{HOST, Lab, OUTSIDE, lab, program, within};

fn subnets(lab: &Lab, network: &str) -> Vec<String> {
    let shown = lab.get(&format!("/networks/{network}")).unwrap().json();
    let pools = shown["IPAM"]["Config"].as_array().cloned().unwrap_or_default();
    pools.iter().map(|p| p["Subnet"].as_str().unwrap().to_owned()).collect()
}

/// The message that creating a network is refused with.
#[track_caller]
fn refused(lab: &Lab, status: u16, body: Value) -> String {
    lab.tell("/networks/create", body, status).message()
}

#[test]
fn ip_01_networks_without_configuration_have_room_for_a_thousand_members_each() {
    let mut lab = lab();
    for name in ["one", "two"] {
        lab.network(json!({ "Name": name, "EnableIPv6": true }));
    }
    assert_eq!(subnets(&lab, "one")[0], "172.18.0.0/22");
    assert_eq!(subnets(&lab, "two")[0], "172.18.4.0/22");
    // IP-02: IPv6 by /64 of this daemon's own unique local /48, which another start does not change.
    let six = [subnets(&lab, "one")[1].clone(), subnets(&lab, "two")[1].clone()];
    assert!(six[0].starts_with("fd") && six[0].ends_with("::/64"), "{six:?}");
    assert_eq!(six[0].split(':').take(3).collect::<Vec<_>>(), six[1].split(':').take(3).collect::<Vec<_>>());
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    lab.network(json!({ "Name": "three", "EnableIPv6": true }));
    assert_eq!(subnets(&lab, "three")[0], "172.18.8.0/22");
    assert_eq!(subnets(&lab, "three")[1].split(':').next(), six[0].split(':').next());
    let pools = lab.get("/info").unwrap().json()["DefaultAddressPools"].clone();
    assert!(pools.as_array().unwrap().iter().any(|p| p["Size"] == 64), "{pools}");
}

#[test]
fn ip_03_a_subnet_that_the_host_has_a_route_to_is_avoided_and_told_when_it_comes_later() {
    let lab = Lab::start_after(&program(), |lab| {
        lab.command(At::Host, &["ip", "route", "add", "172.16.0.0/13", "via", &OUTSIDE.to_string()]);
        // As VPNs have them: in a table of their own.
        lab.command(At::Host, &["ip", "route", "add", "172.24.0.0/16", "via", &OUTSIDE.to_string(), "table", "52"]);
    })
    .unwrap();
    assert_eq!(subnets(&lab, "bridge"), ["172.25.0.0/22"], "not 172.17.0.0/16 either");
    lab.network(json!({ "Name": "front" }));
    assert_eq!(subnets(&lab, "front"), ["172.25.4.0/22"]);
    // One that is asked for is had, whatever the host's routes.
    lab.network(json!({ "Name": "asked", "IPAM": { "Config": [{ "Subnet": "172.20.0.0/16" }] } }));
    let warnings = || lab.get("/info").unwrap().json()["Warnings"].to_string();
    assert!(
        warnings()
            .contains("network asked has subnet 172.20.0.0/16, which the host has a route to as well: 172.16.0.0/13")
    );
    assert!(!warnings().contains("network front"));
    lab.command(At::Host, &["ip", "route", "add", "172.25.5.0/24", "via", &OUTSIDE.to_string()]);
    assert!(warnings().contains("network front has subnet 172.25.4.0/22"), "{}", warnings());
}

#[test]
fn ip_04_overlapping_subnets_are_refused_and_the_holder_is_named() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": "10.9.0.0/16" }, { "Subnet": "fd00:9::/64" }] } }));
    for (asked, held) in [("10.9.7.0/24", "10.9.0.0/16"), ("10.0.0.0/8", "10.9.0.0/16"), ("fd00:9::/80", "fd00:9::/64")]
    {
        let body = json!({ "Name": "x", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": asked }] } });
        let expected = format!(
            "invalid pool request: Pool overlaps with other one on this address space (subnet {asked} overlaps network front with {held})"
        );
        assert_eq!(refused(&lab, 403, body), expected);
    }
    let body = json!({ "Name": "x", "IPAM": { "Config": [{ "Subnet": "10.1.0.0/24" }, { "Subnet": "10.2.0.0/24" }] } });
    let words = refused(&lab, 403, body);
    assert!(words.starts_with("bridge driver doesn't support multiple subnets"), "IP-13: {words}");
    let both = json!({ "Name": "both", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": "10.1.0.0/24" }, { "Subnet": "fd00:1::/64" }] } });
    lab.network(both);
    assert_eq!(subnets(&lab, "both"), ["10.1.0.0/24", "fd00:1::/64"]);
}

#[test]
fn ip_05_a_subnet_may_be_asked_for_by_its_size() {
    let mut lab = lab();
    let body = json!({ "Name": "small", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": "0.0.0.0/28" }, { "Subnet": "::/96" }] } });
    lab.network(body);
    let had = subnets(&lab, "small");
    assert_eq!(had[0], "172.18.0.0/28");
    assert!(had[1].starts_with("fd") && had[1].ends_with("/96"), "{had:?}");
    lab.run("member", sleeper("small"));
    let addresses = lab.addresses("member", "small");
    assert_eq!(addresses[0], "172.18.0.2".parse::<IpAddr>().unwrap());
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    assert_eq!((subnets(&lab, "small"), lab.addresses("member", "small")), (had, addresses));
    // The next one of a size begins where it fits.
    lab.network(json!({ "Name": "next", "IPAM": { "Config": [{ "Subnet": "0.0.0.0/24" }] } }));
    assert_eq!(subnets(&lab, "next"), ["172.18.1.0/24"]);
}

#[test]
fn ip_06_ranges_limit_what_is_dynamic_and_reserved_addresses_are_nobodys() {
    let lab = lab();
    lab.network(json!({ "Name": "plan", "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/30",
        "AuxiliaryAddresses": { "printer": "10.9.0.129" } }] } }));
    assert_eq!(
        lab.bridge_addresses(&format!(
            "br-{}",
            &lab.get("/networks/plan").unwrap().json()["Id"].as_str().unwrap()[..12]
        )),
        ["10.9.0.1".parse::<IpAddr>().unwrap()]
    );
    for (name, address) in [("one", "10.9.0.128"), ("two", "10.9.0.130"), ("three", "10.9.0.131")] {
        lab.run(name, sleeper("plan"));
        assert_eq!(lab.address(name, "plan"), address);
    }
    lab.create("four", sleeper("plan"));
    let full = lab.ask("/containers/four/start", 403).message();
    assert!(full.contains("no available IPv4 addresses on this network's address pools: plan"), "{full}");
    // A static one may be anywhere in the subnet.
    lab.run("static", sleeper_with("plan", json!({ "IPAMConfig": { "IPv4Address": "10.9.0.7" } })));
    assert_eq!(lab.address("static", "plan"), "10.9.0.7");
    let mut second = sleeper_with("plan", json!({ "IPAMConfig": { "IPv4Address": "10.9.0.7" } }));
    second["Image"] = "busybox".into();
    lab.tell("/containers/create?name=second", second, 201);
    let message = lab.ask("/containers/second/start", 403).message();
    assert!(
        message.ends_with("Address already in use: 10.9.0.7 is held by container static on network plan"),
        "{message}"
    );
    for (address, words) in [
        ("10.9.0.129", "Address already in use: 10.9.0.129 is held by auxiliary address printer of network plan"),
        ("10.9.0.1", "Address already in use: 10.9.0.1 is held by the gateway of network plan"),
        ("10.9.0.255", "Address already in use: 10.9.0.255 is the subnet's own"),
    ] {
        let mut body = sleeper_with("plan", json!({ "IPAMConfig": { "IPv4Address": address } }));
        body["Image"] = "busybox".into();
        let message = lab.tell("/containers/create", body, 403).message();
        assert!(message.ends_with(words), "{message}");
    }
}

#[test]
fn ip_07_released_addresses_rest() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("first", sleeper("front"));
    let first = lab.addresses("first", "front");
    lab.remove("first");
    for n in 0..4 {
        let name = format!("next{n}");
        lab.run(&name, sleeper("front"));
        let next = lab.addresses(&name, "front");
        assert!(next.iter().all(|a| !first.contains(a)), "{next:?} is a stranger's to who remembers {first:?}");
    }
}

#[test]
fn ip_09_a_dynamic_address_may_be_another_after_a_restart_and_its_name_follows() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("web", sleeper("front"));
    lab.run("client", sleeper("front"));
    let before = lab.addresses("web", "front");
    lab.ask("/containers/web/stop?t=0", 204);
    // While it is stopped its address is nobody's; a static one would be its own.
    lab.run("other", sleeper("front"));
    lab.ask("/containers/web/start", 204);
    let after = lab.addresses("web", "front");
    assert!(after.iter().all(|a| !before.contains(a)), "{before:?}, then {after:?}");
    assert_eq!(lab.lookup("client", "web"), [lab.address("web", "front")]);
    lab.serve(At::Container("web"), By::Tcp, 80);
    for to in after {
        assert!(lab.seen(At::Container("client"), By::Tcp, to, 80).is_some(), "{to}");
    }
}

#[test]
fn ip_10_link_local_addresses_are_had_beside_the_others() {
    let lab = lab();
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    let with = |n: u8| {
        sleeper_with(
            "front",
            json!({ "IPAMConfig": { "LinkLocalIPs": [format!("169.254.7.{n}"), format!("fe80::7:{n}")] } }),
        )
    };
    lab.run("one", with(1));
    lab.run("two", with(2));
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("two"), by, 80);
        let to = "169.254.7.2".parse().unwrap();
        assert!(lab.seen(At::Container("one"), by, to, 80).is_some(), "{by:?}");
    }
    let pinged = lab.command(At::Container("one"), &["ping", "-c1", "-W1", "fe80::7:2%eth0"]);
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let shown = lab.inspect("one")["NetworkSettings"]["Networks"]["front"]["IPAMConfig"]["LinkLocalIPs"].clone();
    assert_eq!(shown, json!(["169.254.7.1", "fe80::7:1"]));
    let mut body = sleeper_with("front", json!({ "IPAMConfig": { "LinkLocalIPs": ["10.0.0.1"] } }));
    body["Image"] = "busybox".into();
    let wrong = lab.tell("/containers/create", body, 400).message();
    assert!(wrong.ends_with("invalid link-local IP address: 10.0.0.1"), "{wrong}");
}

#[test]
fn ip_11_a_network_without_addresses_leaves_them_to_its_members() {
    let lab = lab();
    lab.network(json!({ "Name": "raw", "IPAM": { "Driver": "null", "Options": { "a": "b" } } }));
    let shown = lab.get("/networks/raw").unwrap().json();
    assert_eq!((&shown["IPAM"]["Driver"], &shown["IPAM"]["Options"]), (&json!("null"), &json!({ "a": "b" })));
    for name in ["one", "two"] {
        let mut body = sleeper("raw");
        body["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"]);
        lab.run(name, body);
        assert!(lab.addresses(name, "raw").is_empty());
    }
    for (name, address) in [("one", "10.9.0.1/24"), ("two", "10.9.0.2/24")] {
        lab.exec(name, &["ip", "addr", "add", address, "dev", "eth0"]).ok();
    }
    lab.serve(At::Container("two"), By::Tcp, 80);
    let seen = lab.seen(At::Container("one"), By::Tcp, "10.9.0.2".parse().unwrap(), 80);
    assert_eq!(seen, Some("10.9.0.1".parse().unwrap()));
    let plugin = refused(&lab, 404, json!({ "Name": "x", "IPAM": { "Driver": "dhcp" } }));
    assert_eq!(plugin, "plugin \"dhcp\" not found");
}

#[test]
fn ip_12_subnets_of_any_size_work() {
    let lab = lab();
    let config = json!([{ "Subnet": "fd00::/8", "IPRange": "fd12:3456::/32" }]);
    lab.network(json!({ "Name": "wide", "EnableIPv4": false, "EnableIPv6": true, "IPAM": { "Config": config } }));
    lab.run("one", sleeper("wide"));
    lab.run("two", sleeper("wide"));
    lab.serve(At::Container("two"), By::Tcp, 80);
    let to = lab.addresses("two", "wide");
    assert_eq!(to, ["fd12:3456::1".parse::<IpAddr>().unwrap()]);
    assert!(lab.seen(At::Container("one"), By::Tcp, to[0], 80).is_some());
    let config = json!([{ "Subnet": "10.0.0.0/8" }]);
    lab.network(json!({ "Name": "ten", "IPAM": { "Config": config } }));
    lab.run("ten", sleeper("ten"));
    assert_eq!(lab.address("ten", "ten"), "10.0.0.2");
    assert!(lab.seen(At::Container("ten"), By::Tcp, HOST.into(), 9).is_none());
}

#[test]
fn v6_03_subnets_that_cannot_be_are_refused() {
    let lab = lab();
    for (subnet, words) in [
        ("fe80::/80", "clashes with the Link-Local prefix 'fe80::/64'"),
        ("fe80::/10", "clashes with the Link-Local prefix 'fe80::/64'"),
        ("ff02::/64", "multicast"),
        ("::1/128", "too small"),
        ("fd00:9::1/64", "it should be fd00:9::/64"),
    ] {
        let body = json!({ "Name": "x", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": subnet }] } });
        let message = lab.tell("/networks/create", body, 400).message();
        assert!(message.contains(words) || message.contains("loopback"), "{subnet}: {message}");
    }
}

#[test]
fn ip_02_more_than_900_networks_are_made_without_configuration() {
    let mut lab = Lab::start(&program()).unwrap();
    // By API alone, as one project after the other would.
    let create = |n: usize| lab.post("/networks/create", json!({ "Name": format!("n{n}") })).unwrap();
    for n in 0..920 {
        let made = create(n);
        assert_eq!(made.status, 201, "network {n}: {}", made.text());
    }
    let subnets = |lab: &Lab| {
        let networks = lab.get("/networks").unwrap().json();
        let of_each = |n: &serde_json::Value| n["IPAM"]["Config"][0]["Subnet"].as_str().map(str::to_owned);
        networks.as_array().unwrap().iter().filter_map(of_each).collect::<std::collections::BTreeSet<String>>()
    };
    let before = subnets(&lab);
    assert_eq!(before.len(), 921, "each has its own, and the default network");
    // The first and the last are as good as any: names, and the way out.
    lab.serve(At::Outside, By::Tcp, 80);
    for network in ["n0", "n919"] {
        let name = format!("in-{network}");
        lab.run(&name, sleeper(network));
        assert_eq!(lab.lookup(&name, &name), [lab.address(&name, network)], "{network}");
        assert!(lab.seen(At::Container(&name), By::Tcp, OUTSIDE.into(), 80).is_some(), "{network}");
        lab.remove(&name);
    }
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(subnets(&lab), before, "they outlive a restart");
    assert_eq!(lab.ask("/networks/prune", 200).json()["NetworksDeleted"].as_array().map(Vec::len), Some(920));
    // Answered first, and done one after the other: the kernel takes its time for each.
    let bridges = || lab.on_host(Command::new("ip").args(["-o", "link"])).ok().matches(": br-").count();
    within(Duration::from_secs(150), "their bridges go", || bridges() == 0);
}

#[test]
fn ip_13_a_network_has_a_subnet_of_each_family_and_members_an_address_of_each() {
    let lab = lab();
    let config = json!([{ "Subnet": "fd00:1::/64", "Gateway": "fd00:1::9" }, { "Subnet": "10.1.0.0/24", "IPRange": "10.1.0.64/26" }]);
    lab.network(json!({ "Name": "both", "EnableIPv6": true, "IPAM": { "Config": config } }));
    lab.run("member", sleeper("both"));
    assert_eq!(lab.addresses("member", "both"), ["10.1.0.64", "fd00:1::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    let routes = lab.exec("member", &["ip", "-6", "route"]).ok();
    assert!(routes.contains("default via fd00:1::9"), "{routes}");
    for second in ["10.2.0.0/24", "fd00:2::/64"] {
        let config = json!([{ "Subnet": "10.3.0.0/24" }, { "Subnet": "fd00:3::/64" }, { "Subnet": second }]);
        let body = json!({ "Name": "x", "EnableIPv6": true, "IPAM": { "Config": config } });
        let message = refused(&lab, 403, body);
        assert!(message.starts_with("bridge driver doesn't support multiple subnets"), "{message}");
        assert!(message.contains(second), "{message}");
    }
}

#[test]
fn ip_08_a_static_address_is_kept_from_creation_to_removal_and_its_holder_is_named() {
    let mut lab = lab();
    let config = json!([{ "Subnet": "10.9.0.0/28" }, { "Subnet": "fd00:9::/124" }]);
    lab.network(json!({ "Name": "plan", "EnableIPv6": true, "IPAM": { "Config": config } }));
    let fixed = json!({ "IPAMConfig": { "IPv4Address": "10.9.0.3", "IPv6Address": "fd00:9::3" } });
    // It never ran, and nobody gets its address by chance; under another daemon, too.
    lab.create("keeper", sleeper_with("plan", fixed.clone()));
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    lab.run("roamer", sleeper("bridge"));
    for n in 0..12 {
        let name = format!("d{n}");
        lab.run(&name, sleeper("plan"));
        assert!(!lab.addresses(&name, "plan").contains(&"10.9.0.3".parse().unwrap()), "{name}");
    }
    lab.create("last", sleeper("plan"));
    let full = lab.ask("/containers/last/start", 403).message();
    assert!(full.contains("no available IPv4 addresses on this network's address pools: plan"), "{full}");
    // While it runs, who asks for it by its number hears who has it, at a start and at a connection.
    lab.ask("/containers/keeper/start", 204);
    for (name, key, address) in [("by4", "IPv4Address", "10.9.0.3"), ("by6", "IPv6Address", "fd00:9::3")] {
        lab.create(name, sleeper_with("plan", json!({ "IPAMConfig": { key: address } })));
        let message = lab.ask(&format!("/containers/{name}/start"), 403).message();
        let words = format!("Address already in use: {address} is held by container keeper on network plan");
        assert!(message.ends_with(&words), "{message}");
        lab.remove(name);
    }
    let body = json!({ "Container": "roamer", "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.9.0.3" } } });
    let message = lab.tell("/networks/plan/connect", body, 403).message();
    assert!(message.ends_with("is held by container keeper on network plan"), "{message}");
    // One takes another's place as Compose does it: made beside the first, started when that one has stopped.
    lab.create("successor", sleeper_with("plan", fixed));
    lab.ask("/containers/keeper/stop?t=0", 204);
    lab.ask("/containers/successor/start", 204);
    assert_eq!(lab.address("successor", "plan"), "10.9.0.3");
    let message = lab.ask("/containers/keeper/start", 403).message();
    assert!(message.ends_with("is held by container successor on network plan"), "{message}");
    // What is left of the two keeps it; with the last of them it is given back.
    lab.remove("successor");
    lab.ask("/containers/last/start", 403);
    lab.tell("/networks/plan/disconnect", json!({ "Container": "keeper" }), 200);
    lab.ask("/containers/last/start", 204);
    assert_eq!(lab.address("last", "plan"), "10.9.0.3", "the only one that is left");
    lab.create("late", sleeper_with("plan", json!({ "IPAMConfig": { "IPv4Address": "10.9.0.3" } })));
    let message = lab.ask("/containers/late/start", 403).message();
    assert!(
        message.ends_with("is held by container last on network plan"),
        "a dynamic one has a holder, too: {message}"
    );
}
