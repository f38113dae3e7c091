//! Drivers and modes beside the bridge: macvlan and ipvlan, as far as this kernel has them (DR rows).
//!
//! ```text
//!   outside (198.51.100.1) ── eth0 ┬ host (198.51.100.2)
//!                                  ├ lan: web (198.51.100.50), macvlan on eth0
//!                                  └ lan: client
//! ```

use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::traffic::{At, By, sleeper};
use testkit::{HOST, OUTSIDE, lab, within};

#[test]
fn dr_05_members_of_a_macvlan_network_are_hosts_of_the_network_behind_its_parent() {
    let lab = lab();
    let network = lab.network(json!({
        "Name": "lan", "Driver": "macvlan", "Options": { "parent": "eth0" },
        "IPAM": { "Config": [{ "Subnet": "198.51.100.0/24", "IPRange": "198.51.100.64/26", "Gateway": OUTSIDE.to_string() }] },
    }));
    let mut body = sleeper("lan");
    body["NetworkingConfig"] =
        json!({ "EndpointsConfig": { "lan": { "IPAMConfig": { "IPv4Address": "198.51.100.50" } } } });
    lab.run("web", body);
    lab.run("client", sleeper("lan"));
    let web: std::net::IpAddr = "198.51.100.50".parse().unwrap();
    lab.serve(At::Container("web"), By::Tcp, 80);
    lab.serve(At::Outside, By::Tcp, 81);
    // Both ways, with true addresses.
    within(Duration::from_secs(5), "the outside reaches it", || {
        lab.seen(At::Outside, By::Tcp, web, 80) == Some(OUTSIDE.into())
    });
    assert_eq!(lab.seen(At::Container("web"), By::Tcp, OUTSIDE.into(), 81), Some(web));
    // Members know each other by name.
    assert_eq!(lab.lookup("client", "web"), ["198.51.100.50"]);
    let client: std::net::IpAddr = lab.address("client", "lan").parse().unwrap();
    assert_eq!(lab.seen(At::Container("client"), By::Tcp, web, 80), Some(client));
    // The host and its macvlan devices do not hear each other: the kernel's way.
    assert_eq!(lab.seen(At::Host, By::Tcp, web, 80), None);
    lab.serve(At::Host, By::Tcp, 82);
    assert_eq!(lab.seen(At::Container("web"), By::Tcp, HOST.into(), 82), None);
    for (from, to) in [("host", "198.51.100.50:80".to_owned()), ("web", format!("{HOST}:82"))] {
        let explained = lab.isle(&["network", "explain", from, &to]);
        assert!(explained.stdout.contains("do not reach each other"), "{}", explained.stdout);
    }
    let info = lab.get("/info").unwrap().json();
    assert!(!info["Warnings"].to_string().contains("network lan"), "it is meant to be where the host is: {info}");
    let shown = lab.get("/networks/lan").unwrap().json();
    assert_eq!((shown["Driver"].as_str(), shown["Options"].clone()), (Some("macvlan"), json!({ "parent": "eth0" })));
    // It is connected and disconnected like any other.
    lab.network(json!({ "Name": "front" }));
    lab.run("both", sleeper("front"));
    lab.tell("/networks/lan/connect", json!({ "Container": "both" }), 200);
    assert_eq!(lab.lookup("both", "web"), ["198.51.100.50"]);
    assert!(lab.exec("both", &["ping", "-c1", "-W2", "198.51.100.50"]).code == 0);
    lab.tell("/networks/lan/disconnect", json!({ "Container": "both" }), 200);
    assert_eq!(lab.exec("both", &["ls", "/sys/class/net"]).ok(), "eth0\nlo");
    let explained = lab.isle(&["network", "explain", "client", "web:80"]).ok();
    assert!(explained.ends_with("reaches web: both are on lan"), "{explained}");
    for name in ["web", "client", "both"] {
        lab.ask(&format!("/containers/{name}/kill"), 204);
    }
    assert_eq!(lab.delete(&format!("/networks/{network}")).unwrap().status, 204);
    let links = lab.on_host(Command::new("ip").args(["-o", "link", "show", "eth0"])).ok();
    assert!(links.contains("eth0"), "the parent was there before, and stays");
    assert!(lab.on_host(Command::new("ping").args(["-c1", "-W2", &OUTSIDE.to_string()])).code == 0, "{HOST}");
}

#[test]
fn dr_09_a_container_on_a_macvlan_network_without_addresses_has_one_by_dhcp() {
    let lab = lab();
    let file = |name: &str| lab.directory().join(name).display().to_string();
    let text = format!(
        "interface uplink0\nstart 198.51.100.200\nend 198.51.100.210\noption subnet 255.255.255.0\n\
         option router {OUTSIDE}\nlease_file {}\npidfile {}\n",
        file("leases"),
        file("udhcpd.pid")
    );
    std::fs::write(file("udhcpd.conf"), text).unwrap();
    std::fs::write(file("leases"), "").unwrap();
    let mut server = Command::new("busybox");
    server.args(["udhcpd", "-f", &file("udhcpd.conf")]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = lab.in_outside(|| server.spawn().unwrap());
    lab.network(json!({
        "Name": "lan", "Driver": "macvlan", "Options": { "parent": "eth0" }, "IPAM": { "Driver": "null" },
    }));
    let mut body = sleeper("lan");
    body["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"]);
    lab.run("client", body);
    assert!(lab.addresses("client", "lan").is_empty(), "nobody gave it one");
    // A plain client in the container asks, and does with the answer what its script says.
    let script = "cat >/tmp/bound <<'END'\n#!/bin/sh\n[ $1 = bound ] || exit 0\n\
                  ip addr add $ip/24 dev $interface && ip route add default via $router\nEND\n\
                  chmod +x /tmp/bound; timeout 20 udhcpc -i eth0 -n -q -t 5 -T 2 -s /tmp/bound";
    lab.exec("client", &["sh", "-c", script]).ok();
    lab.serve(At::Outside, By::Tcp, 81);
    let seen = lab.seen(At::Container("client"), By::Tcp, OUTSIDE.into(), 81).expect("it has a way out").to_string();
    assert!(seen.starts_with("198.51.100.2"), "{seen}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn dr_05_what_a_macvlan_network_cannot_be_is_refused() {
    let lab = lab();
    let refused = |options: serde_json::Value| {
        let answer = lab.post("/networks/create", json!({ "Name": "lan", "Driver": "macvlan", "Options": options }));
        let answer = answer.unwrap();
        assert!(answer.status >= 400, "{}", answer.text());
        answer.message()
    };
    assert!(refused(json!({ "parent": "eth0", "macvlan_mode": "x" })).contains("mode 'x' is not valid"));
    assert!(refused(json!({ "parent": "lo" })).contains("loopback interface is not a valid macvlan parent link"));
    assert!(refused(json!({ "parent": "eth9.5" })).contains("parent interface eth9 does not exist"));
    // This kernel may lack what others have: it is named.
    for (options, kind, link, probe) in [
        (json!({}), "dummy", "dm-", "type dummy"),
        (json!({ "parent": "eth0.50" }), "8021q", "eth0.50", "link eth0 type vlan id 7"),
    ] {
        let probe = format!("ip link add probe0 {probe} && ip link del probe0");
        if lab.on_host(Command::new("sh").args(["-c", &probe])).code == 0 {
            println!("this kernel has {kind}: `cargo xtask test vm` shows that it works");
            continue;
        }
        let message = refused(options);
        assert!(message.contains("this kernel lacks") && message.contains(kind), "{message}");
        let links = lab.on_host(Command::new("ip").args(["-o", "link"])).ok();
        assert!(!links.contains(link), "nothing is left: {links}");
    }
    assert_eq!(lab.get("/networks/lan").unwrap().status, 404);
}

#[test]
fn dr_06_a_kernel_without_ipvlan_says_so() {
    let lab = lab();
    let probe = "ip link add probe0 link eth0 type ipvlan && ip link del probe0";
    if lab.on_host(Command::new("sh").args(["-c", probe])).code == 0 {
        println!("this kernel has ipvlan: `cargo xtask test vm` shows that it works");
        return;
    }
    let answer =
        lab.post("/networks/create", json!({ "Name": "lan", "Driver": "ipvlan", "Options": { "parent": "eth0" } }));
    let answer = answer.unwrap();
    assert_eq!(answer.status, 500);
    assert!(
        answer.message().contains("this kernel lacks ipvlan devices (its module 'ipvlan')"),
        "{}",
        answer.message()
    );
    assert_eq!(lab.get("/networks/lan").unwrap().status, 404, "nothing is made that nobody could join");
}

#[test]
fn dr_05_a_parent_that_is_passed_through_is_one_networks() {
    let lab = lab();
    let create = |name: &str, mode: &str| {
        let options = json!({ "parent": "eth0", "macvlan_mode": mode });
        lab.post("/networks/create", json!({ "Name": name, "Driver": "macvlan", "Options": options })).unwrap()
    };
    let refused = |name: &str, mode: &str, words: &str| {
        let answer = create(name, mode);
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.message().contains(words), "{}", answer.message());
    };
    assert_eq!(create("one", "bridge").status, 201);
    assert_eq!(create("two", "private").status, 201, "others share it, as in Docker since 26.1");
    refused("all", "passthru", "cannot use mode passthru, macvlan network ");
    for name in ["one", "two"] {
        assert_eq!(lab.delete(&format!("/networks/{name}")).unwrap().status, 204);
    }
    assert_eq!(create("all", "passthru").status, 201);
    refused("one", "bridge", " is already using parent interface eth0 in mode passthru");
    let ipvlan = json!({ "Name": "l2", "Driver": "ipvlan", "Options": { "parent": "eth0" } });
    let answer = lab.post("/networks/create", ipvlan).unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.message().contains(" is already using parent interface eth0"), "{}", answer.message());
}
