//! Published ports: promises on the host's ports, kept for whoever asks and given back at once.

use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;
use testkit::traffic::{At, By, publisher, sleeper};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, lab, program, within};

/// A web server on port 80 that publishes.
fn web(bindings: Value) -> Value {
    json!({
        "Cmd": ["sh", "-c", "mkdir -p /w; echo hi >/w/index.html; exec httpd -f -p 80 -h /w"],
        "ExposedPorts": { "80/tcp": {} },
        "HostConfig": { "PortBindings": bindings },
    })
}

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-gfsS", "-m", "2", url]);
    command
}

fn from_outside(lab: &Lab, port: u16) -> bool {
    lab.outside(&mut curl(&format!("http://{HOST}:{port}/"))).stdout == "hi\n"
}

fn from_host(lab: &Lab, address: &str, port: u16) -> bool {
    lab.on_host(&mut curl(&format!("http://{address}:{port}/"))).stdout == "hi\n"
}

/// The host ports of a container's port, one an address.
fn ports(lab: &Lab, container: &str, port: &str) -> Vec<(String, u16)> {
    let shown = lab.inspect(container)["NetworkSettings"]["Ports"][port].clone();
    let all = shown.as_array().cloned().unwrap_or_default();
    let one = |p: &Value| (p["HostIp"].as_str().unwrap().to_owned(), p["HostPort"].as_str().unwrap().parse().unwrap());
    all.iter().map(one).collect()
}

/// Whether somebody on the host can take a port.
fn is_free(lab: &Lab, port: u16) -> bool {
    lab.in_host(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
}

#[test]
fn pt_11_host_ports_are_free_while_a_container_has_no_way_out() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    lab.network(json!({ "Name": "inner", "Internal": true }));
    // By the proxy, too: IPv6 to a container without it.
    lab.run("web", publisher("front", &[("80/tcp", "", "8080"), ("80/udp", "", "8080")]));
    lab.tell("/networks/inner/connect", json!({ "Container": "web" }), 200);
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("web"), by, 80);
    }
    let is_free = || {
        lab.in_host(|| {
            let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
            all.iter().all(|ip| TcpListener::bind((*ip, 8080)).is_ok() && UdpSocket::bind((*ip, 8080)).is_ok())
        })
    };
    let answers = || {
        let hosts = [IpAddr::from(HOST), HOST6.into()];
        hosts.iter().all(|ip| [By::Tcp, By::Udp].iter().all(|by| lab.seen(At::Outside, *by, *ip, 8080).is_some()))
    };
    for name in ["front", "back", "front"] {
        assert!(answers() && !is_free(), "on {name}");
        assert_eq!(ports(&lab, "web", "80/tcp").len(), 2);
        let next = if name == "front" { "back" } else { "front" };
        lab.tell(&format!("/networks/{name}/disconnect"), json!({ "Container": "web" }), 200);
        assert!(is_free(), "off {name}, it has no way out");
        assert_eq!(ports(&lab, "web", "80/tcp"), [], "API-30");
        // Somebody else may have them meanwhile.
        lab.run("other", publisher(next, &[("80/tcp", "", "8080")]));
        let refused = lab.tell(&format!("/networks/{next}/connect"), json!({ "Container": "web" }), 500).message();
        assert!(refused.contains("port is already allocated by container other"), "{refused}");
        lab.remove("other");
        lab.tell(&format!("/networks/{next}/connect"), json!({ "Container": "web" }), 200);
    }
    assert!(answers() && !is_free());
}

#[test]
fn pt_17_what_only_the_proxy_could_carry_is_no_reason_not_to_start() {
    // A UDP range that is too long for the proxy, on an address that nobody but it serves.
    let range: serde_json::Map<String, Value> =
        (9000..9070).map(|p| (format!("{p}/udp"), json!([{ "HostIp": "::1", "HostPort": p.to_string() }]))).collect();
    for arguments in [&[][..], &["--userland-proxy=false"]] {
        let lab = Lab::start_with(&program(), arguments).unwrap();
        lab.run("range", web(Value::Object(range.clone())));
        lab.run("one", web(json!({ "80/udp": [{ "HostIp": "::1", "HostPort": "8080" }] })));
        assert_eq!(ports(&lab, "range", "9069/udp"), [("::1".to_owned(), 9069)], "{arguments:?}");
        let is_taken = lab.in_host(|| UdpSocket::bind((Ipv6Addr::LOCALHOST, 8080)).is_err());
        assert!(is_taken, "{arguments:?}");
    }
}

#[test]
fn pt_01_the_port_that_is_published_twice_is_named() {
    let lab = lab();
    let bindings = json!({
        "80/tcp": [{ "HostPort": "8001" }],
        "90/tcp": [{ "HostPort": "8000" }],
        "91/tcp": [{ "HostPort": "8001" }],
    });
    let mut body = web(bindings);
    body["Image"] = "busybox".into();
    let refused = lab.post("/containers/create", body).unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.message().ends_with("host port 8001/tcp is published twice"), "{}", refused.message());
}

#[test]
fn pt_03_a_port_is_published_on_all_addresses_and_given_back() {
    let lab = lab();
    lab.run("web", web(json!({ "80/tcp": [{ "HostPort": "8080" }] })));
    within(Duration::from_secs(5), "it answers", || from_outside(&lab, 8080));
    assert!(from_host(&lab, "127.0.0.1", 8080));
    assert!(from_host(&lab, &HOST.to_string(), 8080));
    assert_eq!(ports(&lab, "web", "80/tcp"), [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)]);
    let listed = lab.get("/containers/json").unwrap().json();
    assert_eq!(listed[0]["Ports"][0], json!({ "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }));
    assert!(!is_free(&lab, 8080), "PT-06: nobody else can take it");
    if let Some(port) = lab.docker(&["port", "web", "80"]) {
        assert_eq!(port.ok(), "0.0.0.0:8080\n[::]:8080");
    }
    lab.ask("/containers/web/stop?t=0", 204);
    assert!(is_free(&lab, 8080));
    assert!(!from_outside(&lab, 8080));
    assert_eq!(lab.inspect("web")["NetworkSettings"]["Ports"], json!({}), "API-30");
    lab.ask("/containers/web/start", 204);
    within(Duration::from_secs(5), "it answers again", || from_outside(&lab, 8080));
    lab.remove("web");
    assert!(is_free(&lab, 8080));
}

#[test]
fn pt_02_ephemeral_ports_are_the_kernels_choice_and_the_same_for_all_addresses() {
    let lab = lab();
    for (name, bindings) in
        [("aa", json!({ "80/tcp": [{ "HostPort": "" }] })), ("bb", json!({ "80/tcp": [{ "HostPort": "0" }] }))]
    {
        lab.run(name, web(bindings));
        let chosen = ports(&lab, name, "80/tcp");
        assert_eq!((chosen.len(), chosen[0].1), (2, chosen[1].1));
        within(Duration::from_secs(5), "it answers", || from_outside(&lab, chosen[0].1));
    }
    // PT-04: all that is exposed.
    let mut body = web(Value::Null);
    body["HostConfig"]["PublishAllPorts"] = true.into();
    lab.run("all", body);
    let chosen = ports(&lab, "all", "80/tcp");
    within(Duration::from_secs(5), "it answers", || from_outside(&lab, chosen[0].1));
    // PT-01: of a range, the first that is free.
    lab.run("cc", web(json!({ "80/tcp": [{ "HostPort": "9000-9003" }] })));
    lab.run("dd", web(json!({ "80/tcp": [{ "HostPort": "9000-9003" }] })));
    assert_eq!((ports(&lab, "cc", "80/tcp")[0].1, ports(&lab, "dd", "80/tcp")[0].1), (9000, 9001));
}

#[test]
fn pt_05_a_taken_port_fails_the_start_and_nothing_else() {
    let lab = lab();
    let bindings = |port: u16| json!({ "80/tcp": [{ "HostPort": port.to_string() }] });
    lab.run("first", web(bindings(8080)));
    lab.create("second", web(bindings(8080)));
    let refused = lab.ask("/containers/second/start", 500).message();
    assert!(
        refused.starts_with(
            "failed to set up container networking: driver failed programming external connectivity on endpoint second ("
        ) && refused.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"),
        "{refused}"
    );
    assert_eq!(lab.status("second"), "created");
    assert_eq!(lab.get("/networks/bridge").unwrap().json()["Containers"].as_object().unwrap().len(), 1);
    lab.remove("first");
    lab.ask("/containers/second/start", 204);
    // Another process's.
    let listener = lab.in_host(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)).unwrap());
    lab.create("third", web(bindings(8081)));
    let refused = lab.ask("/containers/third/start", 500).message();
    let words = "failed to bind host port for 0.0.0.0:8081:";
    assert!(refused.contains(words) && refused.ends_with(":80/tcp: address already in use"), "{refused}");
    drop(listener);
    lab.ask("/containers/third/start", 204);
    // An address that is not here.
    lab.create("far", web(json!({ "80/tcp": [{ "HostIp": "10.11.12.13", "HostPort": "8082" }] })));
    let refused = lab.ask("/containers/far/start", 500).message();
    assert!(refused.contains("failed to bind host port for 10.11.12.13:8082:"), "{refused}");
    assert!(refused.ends_with("/tcp: cannot assign requested address"), "{refused}");
    // Of several ports, the free ones are given back.
    lab.create("pair", web(json!({ "80/tcp": [{ "HostPort": "8083" }, { "HostPort": "8081" }] })));
    lab.ask("/containers/pair/start", 500);
    assert!(is_free(&lab, 8083));
    // Two that differ in their addresses do not collide.
    lab.run("lo", web(json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8084" }] })));
    lab.run("eth", web(json!({ "80/tcp": [{ "HostIp": HOST.to_string(), "HostPort": "8084" }] })));
}

#[test]
fn pt_13_a_port_of_127_0_0_1_is_the_hosts_own() {
    let lab = lab();
    lab.run("web", web(json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] })));
    within(Duration::from_secs(5), "the host reaches it", || from_host(&lab, "127.0.0.1", 8080));
    assert!(!from_host(&lab, &HOST.to_string(), 8080));
    assert!(!from_outside(&lab, 8080));
    assert_eq!(ports(&lab, "web", "80/tcp"), [("127.0.0.1".to_owned(), 8080)]);
}

#[test]
fn pt_12_a_published_port_is_reached_from_other_networks_and_from_its_own() {
    let lab = lab();
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    let mut body = web(json!({ "80/tcp": [{ "HostPort": "8080" }] }));
    body["HostConfig"]["NetworkMode"] = "front".into();
    lab.run("web", body);
    for (name, network) in [("near", "front"), ("far", "back"), ("default", "bridge")] {
        lab.run(name, json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": network } }));
    }
    for host in [HOST.to_string(), format!("[{HOST6}]")] {
        let fetch = |from: &str| {
            lab.exec(from, &["timeout", "2", "wget", "-q", "-O", "-", &format!("http://{host}:8080/")]).stdout
        };
        // The default network has IPv4 alone.
        let clients = ["near", "far", "default"].into_iter().filter(|name| *name != "default" || !host.contains(':'));
        for name in clients {
            within(Duration::from_secs(5), &format!("{name} reaches it by {host}"), || fetch(name) == "hi\n");
        }
        assert_eq!(fetch("web"), "hi\n", "hairpin to itself by {host}");
    }
}

#[test]
fn pt_01_udp_is_published_and_ranges_are() {
    let lab = lab();
    let bindings = json!({ "53/udp": [{ "HostPort": "5300" }] });
    lab.run("udp", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "PortBindings": bindings } }));
    let echo = lab.in_container("udp", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, client)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], client);
        }
    });
    let echoed = |port: u16| {
        lab.in_outside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 16];
            socket.send_to(b"ping", (HOST, port)).is_ok()
                && socket.recv(&mut buffer).is_ok_and(|n| &buffer[..n] == b"ping")
        })
    };
    within(Duration::from_secs(5), "it echoes", || echoed(5300));
    let bindings: serde_json::Map<_, _> =
        (0..200).map(|n| (format!("{}/tcp", 7000 + n), json!([{ "HostPort": (17000 + n).to_string() }]))).collect();
    lab.run(
        "range",
        json!({
            "Cmd": ["sh", "-c", "mkdir -p /w; echo hi >/w/index.html; httpd -p 7000 -h /w; exec httpd -f -p 7199 -h /w"],
            "HostConfig": { "PortBindings": bindings },
        }),
    );
    for port in [17000, 17199] {
        within(Duration::from_secs(5), "the range answers", || from_outside(&lab, port));
    }
    let other = lab.create("other", web(json!({ "80/tcp": [{ "HostPort": "17100" }] })));
    let refused = lab.ask(&format!("/containers/{other}/start"), 500).message();
    assert!(refused.contains("port is already allocated"), "{refused}");
    lab.remove("range");
    lab.ask(&format!("/containers/{other}/start"), 204);
}

#[test]
fn ports_of_the_host_network_are_discarded_with_a_warning() {
    let lab = lab();
    let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": "host", "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } } });
    let created = lab.tell("/containers/create", body, 201).json();
    assert_eq!(created["Warnings"], json!(["Published ports are discarded when using host network mode"]));
    assert!(is_free(&lab, 8080));
}

#[test]
fn pt_11_ports_by_ipv6_follow_the_gateway_too() {
    let lab = lab();
    lab.network(json!({ "Name": "other" }));
    lab.run("web", web(json!({ "80/tcp": [{ "HostPort": "18090" }] })));
    let loopback = |lab: &Lab| from_host(lab, "[::1]", 18090) && from_host(lab, "127.0.0.1", 18090);
    within(Duration::from_secs(5), "the server answers", || loopback(&lab));
    let move_to = json!({ "Container": "web", "EndpointConfig": { "GwPriority": 9 } });
    lab.tell("/networks/other/connect", move_to, 200);
    assert!(loopback(&lab), "by the new way in");
    lab.tell("/networks/bridge/disconnect", json!({ "Container": "web" }), 200);
    assert!(loopback(&lab), "without the old one");
    lab.tell("/networks/bridge/connect", json!({ "Container": "web" }), 200);
    lab.tell("/networks/other/disconnect", json!({ "Container": "web" }), 200);
    assert!(loopback(&lab), "back again");
}

/// A container on two families' networks that answers on port 80 with the address that it sees its client at.
fn answering(lab: &Lab, network: &str, name: &str, ports: &[(&str, &str, &str)]) {
    lab.run(name, publisher(network, ports));
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container(name), by, 80);
    }
}

const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const EVERYWHERE: [(&str, &str, &str); 2] = [("80/tcp", "", "8080"), ("80/udp", "", "8080")];

#[test]
fn pt_08_the_host_reaches_published_ports_by_every_address_of_its_own() {
    for proxy in [true, false] {
        let argument = format!("--userland-proxy={proxy}");
        let lab = Lab::start_with(&program(), &[&argument]).unwrap();
        lab.network(json!({ "Name": "four", "Options": { "com.docker.network.bridge.name": "br-four" } }));
        answering(&lab, "four", "web", &EVERYWHERE);
        lab.run("neighbour", sleeper("four"));
        let gateway = lab.bridge_addresses("br-four")[0];
        for by in [By::Tcp, By::Udp] {
            let seen = |from, to| lab.seen(from, by, to, 8080);
            // V6-04: [::1], and IPv6 to a container that has none, are the proxy's (PT-09: without it, nobody's).
            let carried = proxy.then_some(gateway);
            assert_eq!(seen(At::Host, LOCAL6), carried, "{by:?}, proxy {proxy}");
            assert_eq!(seen(At::Host, HOST6.into()), carried, "{by:?}, proxy {proxy}");
            assert_eq!(seen(At::Outside, HOST6.into()), carried, "{by:?}, proxy {proxy}");
            // The rest is the kernel's (PT-10): true addresses, but for the loopback and the hairpin.
            assert_eq!(seen(At::Host, LOCAL4), Some(gateway));
            assert_eq!(seen(At::Host, HOST.into()), Some(HOST.into()));
            assert_eq!(seen(At::Outside, HOST.into()), Some(OUTSIDE.into()));
            assert_eq!(seen(At::Container("neighbour"), HOST.into()), Some(gateway), "{by:?}, hairpin");
            assert_eq!(seen(At::Container("web"), HOST.into()), Some(gateway), "{by:?}, to itself");
        }
    }
}

#[test]
fn pt_09_without_the_proxy_ports_are_held_all_the_same() {
    let lab = Lab::start_with(&program(), &["--userland-proxy=false"]).unwrap();
    lab.bridge("both", json!({}));
    answering(&lab, "both", "web", &EVERYWHERE);
    assert!(!is_free(&lab, 8080));
    for (host, outside) in [(IpAddr::V4(HOST), IpAddr::V4(OUTSIDE)), (IpAddr::V6(HOST6), IpAddr::V6(OUTSIDE6))] {
        assert_eq!(lab.seen(At::Outside, By::Tcp, host, 8080), Some(outside));
        assert_eq!(lab.seen(At::Host, By::Tcp, host, 8080), Some(host));
    }
    assert_eq!(lab.seen(At::Host, By::Tcp, LOCAL4, 8080), Some(lab.bridge_addresses("br-both")[0]));
    assert_eq!(lab.seen(At::Host, By::Tcp, LOCAL6, 8080), None);
}

#[test]
fn pt_10_containers_see_their_clients_true_addresses() {
    let lab = lab();
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    answering(&lab, "front", "web", &EVERYWHERE);
    lab.run("near", sleeper("front"));
    lab.run("far", sleeper("back"));
    let gateways = lab.bridge_addresses("br-front");
    let far = lab.addresses("far", "back");
    let both = [(IpAddr::V4(HOST), IpAddr::V4(OUTSIDE)), (IpAddr::V6(HOST6), IpAddr::V6(OUTSIDE6))];
    for (n, (host, outside)) in both.into_iter().enumerate() {
        for by in [By::Tcp, By::Udp] {
            let seen = |from| lab.seen(from, by, host, 8080);
            assert_eq!(seen(At::Outside), Some(outside));
            assert_eq!(seen(At::Host), Some(host));
            assert_eq!(seen(At::Container("far")), Some(far[n]), "another network's");
            assert_eq!(seen(At::Container("near")), Some(gateways[n]), "hairpin");
        }
    }
    for (local, by) in [(LOCAL4, By::Tcp), (LOCAL4, By::Udp), (LOCAL6, By::Tcp), (LOCAL6, By::Udp)] {
        let expected = gateways[usize::from(local.is_ipv6())];
        assert_eq!(lab.seen(At::Host, by, local, 8080), Some(expected), "{local} {by:?}");
    }
}

#[test]
fn pt_11_ports_are_where_the_way_out_is() {
    let lab = lab();
    for name in ["aa", "bb"] {
        lab.bridge(name, json!({}));
    }
    lab.network(json!({ "Name": "inner", "Internal": true }));
    // Without a way out there are no ports, and the create call says so.
    let mut body = publisher("inner", &EVERYWHERE);
    body["Image"] = "busybox".into();
    let created = lab.tell("/containers/create?name=web", body, 201).json();
    let warning = "Published ports are discarded: network inner is internal, so nobody outside reaches its members";
    assert_eq!(created["Warnings"], json!([warning]));
    lab.ask("/containers/web/start", 204);
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("web"), by, 80);
    }
    let all = |expected: bool, when: &str| {
        for to in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
            for by in [By::Tcp, By::Udp] {
                assert_eq!(lab.seen(At::Outside, by, to, 8080).is_some(), expected, "{by:?} to {to} {when}");
            }
        }
        assert_eq!(lab.seen(At::Host, By::Tcp, LOCAL6, 8080).is_some(), expected, "[::1] {when}");
    };
    assert!(is_free(&lab, 8080));
    all(false, "on an internal network");
    let connect = |network: &str, status| {
        lab.tell(&format!("/networks/{network}/connect"), json!({ "Container": "web" }), status)
    };
    let disconnect = |network: &str| {
        lab.tell(&format!("/networks/{network}/disconnect"), json!({ "Container": "web" }), 200);
    };
    // Its first network with a way out brings them, if they are free.
    let taken = lab.in_host(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap());
    let refused = connect("bb", 500).message();
    assert!(refused.contains("failed to bind host port for 0.0.0.0:8080"), "{refused}");
    assert!(lab.exec("web", &["ls", "/sys/class/net"]).ok().contains("eth0\nlo"), "as it was before");
    drop(taken);
    connect("bb", 200);
    all(true, "after the first network with a way out");
    assert!(!is_free(&lab, 8080));
    connect("aa", 200);
    all(true, "after one that is elected before it");
    disconnect("aa");
    all(true, "after that is gone again");
    disconnect("bb");
    all(false, "without a way out");
}

#[test]
fn pt_11_ports_of_a_routed_network_are_open_whatever_the_way_out() {
    let lab = lab();
    lab.bridge("aa", json!({}));
    let routed = json!({ "com.docker.network.bridge.gateway_mode_ipv4": "routed", "com.docker.network.bridge.gateway_mode_ipv6": "routed" });
    lab.network(json!({ "Name": "zz", "EnableIPv6": true, "Options": routed }));
    let mut body = publisher("aa", &EVERYWHERE);
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "aa": {}, "zz": {} } });
    lab.run("web", body);
    lab.serve(At::Container("web"), By::Tcp, 80);
    for to in lab.addresses("web", "zz") {
        let via = if to.is_ipv4() { HOST.to_string() } else { HOST6.to_string() };
        lab.command(At::Outside, &["ip", "route", "add", &to.to_string(), "via", &via]);
        // The answer goes where the question came from only if the container routes it so: it is the host's business.
        let device = lab.get("/networks/zz").unwrap().json()["Id"].as_str().unwrap()[..12].to_owned();
        let gateway = lab.bridge_addresses(&format!("br-{device}"))[usize::from(to.is_ipv6())];
        let outside = if to.is_ipv4() { OUTSIDE.to_string() } else { OUTSIDE6.to_string() };
        lab.command(At::Container("web"), &["ip", "route", "add", &outside, "via", &gateway.to_string()]);
        assert!(lab.seen(At::Outside, By::Tcp, to, 80).is_some(), "{to}");
        assert!(lab.seen(At::Outside, By::Tcp, to, 8080).is_none(), "{to}");
    }
}

#[test]
fn pt_16_the_firewall_cannot_be_turned_off() {
    for flag in ["--iptables=false", "--ip6tables=false"] {
        let failed = Lab::start_with(&program(), &[flag]).err().unwrap().to_string();
        assert!(failed.contains("the firewall cannot be turned off"), "{failed}");
    }
}

#[test]
fn pt_19_the_host_forwards_because_the_daemon_says_so_and_only_then() {
    for forwarding in [true, false] {
        let argument = format!("--ip-forward={forwarding}");
        let lab = Lab::start_after(&program(), |lab| {
            lab.command(At::Host, &["sysctl", "-w", "net.ipv4.ip_forward=0"]);
            lab.arguments = vec![argument];
        })
        .unwrap();
        lab.bridge("front", json!({}));
        lab.run("member", sleeper("front"));
        lab.serve(At::Outside, By::Tcp, 80);
        for outside in [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)] {
            let reached = lab.seen(At::Container("member"), By::Tcp, outside, 80).is_some();
            assert_eq!(reached, forwarding, "{outside}");
        }
        let info = lab.get("/info").unwrap().json();
        assert_eq!(info["IPv4Forwarding"], forwarding);
        assert_eq!(info["Warnings"].to_string().contains("IPv4 forwarding is disabled"), !forwarding);
    }
}

#[test]
fn pt_14_with_direct_routing_published_ports_are_reached_by_a_containers_own_address() {
    let lab = Lab::start_with(&program(), &["--allow-direct-routing"]).unwrap();
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    answering(&lab, "front", "web", &[("80/tcp", "127.0.0.1", "8080"), ("80/tcp", "::1", "8080")]);
    lab.serve(At::Container("web"), By::Tcp, 81);
    lab.run("far", sleeper("back"));
    let ends: [[IpAddr; 2]; 2] = [[HOST.into(), OUTSIDE.into()], [HOST6.into(), OUTSIDE6.into()]];
    for (to, [host, outside]) in lab.addresses("web", "front").into_iter().zip(ends) {
        lab.command(At::Outside, &["ip", "route", "add", &to.to_string(), "via", &host.to_string()]);
        assert_eq!(lab.seen(At::Outside, By::Tcp, to, 80), Some(outside));
        assert_eq!(lab.seen(At::Outside, By::Tcp, to, 81), None, "what is not published: {to}");
        assert_eq!(lab.seen(At::Container("far"), By::Tcp, to, 81), None, "{to}");
    }
}

#[test]
fn pt_20_masquerading_takes_the_address_that_the_route_says() {
    let lab = lab();
    // A second way out, for one destination.
    for words in ["addr add 192.0.2.2/24 dev eth0", "route add 203.0.113.7/32 via 192.0.2.1"] {
        let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        assert_eq!(lab.command(At::Host, &command), "", "{words}");
    }
    for words in ["addr add 203.0.113.7/32 dev lo", "addr add 192.0.2.1/24 dev uplink0"] {
        let command: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        assert_eq!(lab.command(At::Outside, &command), "", "{words}");
    }
    lab.bridge("front", json!({}));
    lab.run("member", sleeper("front"));
    lab.serve(At::Outside, By::Tcp, 80);
    for (to, expected) in [
        (OUTSIDE.to_string(), HOST.to_string()),
        ("203.0.113.7".to_owned(), "192.0.2.2".to_owned()),
        (OUTSIDE6.to_string(), HOST6.to_string()),
    ] {
        let seen = lab.seen(At::Container("member"), By::Tcp, to.parse().unwrap(), 80);
        assert_eq!(seen, Some(expected.parse().unwrap()), "{to}");
    }
}

#[test]
fn pt_21_ports_below_1024_are_published_and_served_by_anybody_inside() {
    let lab = lab();
    lab.bridge("front", json!({}));
    let mut body = publisher("front", &[("80/tcp", "", "80")]);
    body["User"] = "nobody".into();
    body["Cmd"] = json!(["sh", "-c", "mkdir -p /tmp/w; echo hi >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"]);
    lab.run("web", body);
    within(Duration::from_secs(5), "it answers", || from_outside(&lab, 80));
}

#[test]
fn pt_01_a_port_of_sctp_is_refused_where_the_kernel_has_none() {
    let lab = lab();
    let has = lab.in_host(|| kernel::reserve::hold(kernel::reserve::Transport::Sctp, LOCAL4, 0, None).is_ok());
    lab.create("web", publisher("bridge", &[("80/sctp", "", "8080"), ("81/tcp", "", "8081")]));
    if has {
        lab.ask("/containers/web/start", 204);
        assert_eq!(ports(&lab, "web", "80/sctp").len(), 2);
        return;
    }
    let refused = lab.ask("/containers/web/start", 500).message();
    assert!(
        refused.ends_with("cannot publish port 8080/sctp: this kernel lacks sctp (its module 'sctp')"),
        "{refused}"
    );
    assert!(is_free(&lab, 8081));
}

#[test]
fn pt_15_a_udp_flow_follows_its_port_from_one_container_to_the_next() {
    let lab = lab();
    lab.bridge("front", json!({}));
    // Host and container port differ, and so do the two containers' ports.
    for (host, any) in [(IpAddr::V4(HOST), "0.0.0.0:0"), (IpAddr::V6(HOST6), "[::]:0")] {
        let client = lab.in_outside(|| UdpSocket::bind(any).unwrap());
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        client.connect((host, 5300)).unwrap();
        let talk = || {
            let mut buffer = [0; 64];
            let _ = client.send(b"x");
            client.send(b"x").and_then(|_| client.recv(&mut buffer)).is_ok()
        };
        for (name, port) in [("first", 53_u16), ("second", 54)] {
            lab.run(name, publisher("front", &[(&format!("{port}/udp"), "", "5300")]));
            lab.serve(At::Container(name), By::Udp, port);
            within(Duration::from_secs(5), &format!("the same flow reaches {name}"), talk);
            lab.remove(name);
            within(Duration::from_secs(5), "and nobody", || !talk());
        }
    }
}

#[test]
fn pt_17_ten_thousand_ports_are_one_thing() {
    let lab = lab();
    lab.bridge("front", json!({}));
    let mut body = sleeper("front");
    let all: serde_json::Map<String, Value> = (20_000..30_000)
        .map(|port| (format!("{port}/udp"), json!([{ "HostPort": port.to_string() }])))
        .chain((20_000..30_000).map(|port| (format!("{port}/tcp"), json!([{ "HostPort": port.to_string() }]))))
        .chain((0..100).map(|n| (format!("{}/tcp", 7000 + n), json!([{ "HostPort": (9000 + n).to_string() }]))))
        .collect();
    body["HostConfig"]["PortBindings"] = Value::Object(all);
    body["Image"] = "busybox".into();
    let created = lab.tell("/containers/create?name=web", body, 201).json();
    let warning =
        "UDP ranges of more than 64 ports are not published on [::1], nor from IPv6 to a container without it";
    assert_eq!(created["Warnings"], json!([warning]));
    lab.ask("/containers/web/start", 204);
    // In the same sandbox, and quicker to look at.
    lab.run("guest", sleeper("container:web"));
    for port in [20_000, 25_000, 29_999] {
        lab.serve(At::Container("guest"), By::Udp, port);
        lab.serve(At::Container("guest"), By::Tcp, port);
    }
    for port in [7000, 7050, 7099] {
        lab.serve(At::Container("guest"), By::Tcp, port);
    }
    for (host, outside) in [(IpAddr::V4(HOST), IpAddr::V4(OUTSIDE)), (IpAddr::V6(HOST6), IpAddr::V6(OUTSIDE6))] {
        for port in [20_000, 25_000, 29_999] {
            assert_eq!(lab.seen(At::Outside, By::Udp, host, port), Some(outside), "{host} {port}");
            assert_eq!(lab.seen(At::Outside, By::Tcp, host, port), Some(outside), "{host} {port}");
            assert!(lab.seen(At::Host, By::Tcp, LOCAL6, port).is_some(), "[::1] {port}");
        }
        for port in [9000, 9050, 9099] {
            assert_eq!(lab.seen(At::Outside, By::Tcp, host, port), Some(outside), "{host} {port}, shifted");
        }
    }
    let rules = lab.command(At::Host, &["nft", "list", "ruleset"]);
    assert_eq!(rules.matches("20000-29999").count(), 5, "one element a family and transport, and one for [::1]");
    lab.remove("guest");
    lab.remove("web");
    let rules = lab.command(At::Host, &["nft", "list", "ruleset"]);
    assert_eq!(rules.matches("20000-29999").count(), 0);
}

#[test]
fn what_is_published_adds_no_rule() {
    let lab = lab();
    let rules = || lab.command(At::Host, &["nft", "-j", "list", "ruleset"]).matches("{\"rule\":").count();
    let before = rules();
    assert!(before > 20, "{before}");
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    for (name, network) in [("one", "front"), ("two", "back")] {
        lab.run(name, publisher(network, &[("80/tcp", "", ""), ("80/udp", "127.0.0.1", "")]));
    }
    assert_eq!(rules(), before);
}

#[test]
fn pt_03_ports_of_long_ranges_are_nobody_elses() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let published = |name: &str| -> Vec<u16> {
        let shown = lab.inspect(name)["NetworkSettings"]["Ports"].clone();
        let bindings = shown.as_object().unwrap().values().flat_map(|b| b.as_array().unwrap().clone());
        bindings.map(|b| b["HostPort"].as_str().unwrap().parse().unwrap()).collect()
    };
    let range = |name: &str, hosts: &str, inner: &str| {
        lab.isle(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "front",
            "-p",
            &format!("{hosts}:{inner}"),
            "busybox",
            "sleep",
            "3600",
        ])
    };
    range("equal", "10000-19999", "10000-19999").ok();
    range("shifted", "20000-20100", "30000-30100").ok();
    range("all", "32768-60900", "32768-60900").ok();
    range("partly", "19990-20110", "80").ok();
    assert_eq!(published("partly"), [20101, 20101]);
    let none = range("none", "15000-15010", "80");
    assert!(none.stderr.contains("all ports from 15000 to 15010 are already in use"), "{}", none.stderr);
    let mut own = sleeper("front");
    own["ExposedPorts"] = json!({ "80/tcp": {} });
    own["HostConfig"]["PublishAllPorts"] = true.into();
    for n in 0..8 {
        lab.run(&format!("any{n}"), own.clone());
        let ports = published(&format!("any{n}"));
        assert!(ports.iter().all(|p| !(32768..=60900).contains(p)), "{ports:?}");
    }
    // One container's wishes do not meet either.
    let both = [
        "run",
        "-d",
        "--name",
        "both",
        "--network",
        "front",
        "-p",
        "21000-21100:21000-21100",
        "-p",
        "21050-21200:80",
        "busybox",
        "sleep",
        "3600",
    ];
    lab.isle(&both).ok();
    assert!(published("both").contains(&21101) && published("both").len() == 2 * 102, "{:?}", published("both"));
}

#[test]
fn pt_04_all_that_is_exposed_is_published_if_asked_for() {
    let lab = lab();
    lab.isle(&["run", "-d", "--name", "base", "busybox", "true"]).ok();
    let mut body = sleeper("bridge");
    body["ExposedPorts"] = json!({ "80/tcp": {}, "53/udp": {}, "9000-9001/tcp": {} });
    let created = lab.create("quiet", body.clone());
    lab.ask(&format!("/containers/{created}/start"), 204);
    assert!(ports(&lab, "quiet", "80/tcp").is_empty(), "what is exposed is not published by itself");
    body["HostConfig"]["PublishAllPorts"] = true.into();
    lab.run("loud", body);
    let mut chosen = Vec::new();
    for (port, by, number) in
        [("80/tcp", By::Tcp, 80), ("53/udp", By::Udp, 53), ("9000/tcp", By::Tcp, 9000), ("9001/tcp", By::Tcp, 9001)]
    {
        let had = ports(&lab, "loud", port);
        assert_eq!((had.len(), had[0].1), (2, had[1].1), "{port}: {had:?}");
        lab.serve(At::Container("loud"), by, number);
        assert_eq!(lab.seen(At::Outside, by, HOST.into(), had[0].1), Some(OUTSIDE.into()), "{port}");
        chosen.push((by == By::Tcp, had[0].1));
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen.len(), 4, "each has a port of its own");
    // A port with a list of bindings that is empty has one that is.
    let mut body = sleeper("bridge");
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [] });
    lab.run("empty", body);
    assert_eq!(
        lab.inspect("empty")["HostConfig"]["PortBindings"],
        json!({ "80/tcp": [{ "HostIp": "", "HostPort": "" }] })
    );
    lab.serve(At::Container("empty"), By::Tcp, 80);
    let port = ports(&lab, "empty", "80/tcp")[0].1;
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), port), Some(OUTSIDE.into()));
}

#[test]
fn pt_06_a_published_port_is_taken_for_everybody_on_the_host() {
    let mut lab = lab();
    lab.run(
        "web",
        publisher("default", &[("80/tcp", "", "8080"), ("80/udp", "", "8080"), ("81/tcp", "127.0.0.1", "8081")]),
    );
    let taken = |lab: &Lab, address: &str, port: u16| {
        let address: IpAddr = address.parse().unwrap();
        let binds =
            lab.in_host(|| [TcpListener::bind((address, port)).map(drop), UdpSocket::bind((address, port)).map(drop)]);
        binds.map(|b| b.is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse))
    };
    let all = ["0.0.0.0", "::", "127.0.0.1", "::1", &HOST.to_string(), &HOST6.to_string()].map(str::to_owned);
    for address in &all {
        assert_eq!(taken(&lab, address, 8080), [true, true], "{address}");
    }
    assert_eq!(taken(&lab, "127.0.0.1", 8081), [true, false]);
    assert_eq!(taken(&lab, &HOST.to_string(), 8081), [false, false], "where it is not published it is free");
    // With no daemon, too; and free again once the container is gone.
    lab.kill_daemon();
    assert_eq!(taken(&lab, "0.0.0.0", 8080), [true, true]);
    lab.start_daemon().unwrap();
    lab.ask("/containers/web/stop?t=0", 204);
    for address in &all {
        assert_eq!(taken(&lab, address, 8080), [false, false], "{address}");
    }
}

#[test]
fn pt_07_a_published_port_is_found_at_every_address_of_the_host_by_everybody() {
    let lab = lab();
    lab.bridge("front", json!({}));
    lab.bridge("back", json!({}));
    lab.run("web", publisher("front", &[("80/tcp", "", "8080"), ("80/udp", "", "8080")]));
    lab.run("near", sleeper("front"));
    lab.run("far", sleeper("back"));
    // An address that the host gets later is the host's as well.
    lab.command(At::Host, &["ip", "addr", "add", "198.51.100.77/24", "dev", "eth0"]);
    let later: IpAddr = "198.51.100.77".parse().unwrap();
    for by in [By::Tcp, By::Udp] {
        lab.serve(At::Container("web"), by, 80);
        for to in [HOST.into(), HOST6.into(), later] {
            for from in [At::Outside, At::Host, At::Container("near"), At::Container("far"), At::Container("web")] {
                assert!(lab.seen(from, by, to, 8080).is_some(), "{by:?} from {from:?} to {to}");
            }
        }
        for to in ["127.0.0.1", "127.0.0.9", "::1"] {
            assert!(lab.seen(At::Host, by, to.parse().unwrap(), 8080).is_some(), "{by:?} to {to}");
        }
        // What is somebody else's passes as it is.
        assert_eq!(lab.seen(At::Container("far"), by, OUTSIDE.into(), 8080), None, "{by:?}");
    }
}
