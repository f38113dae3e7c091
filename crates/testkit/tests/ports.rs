//! Published ports: promises on the host's ports, kept for whoever asks and given back at once.

use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;
use testkit::{HOST, Lab, program, within};

fn lab() -> Lab {
    Lab::start(&program()).unwrap()
}

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
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "back" }));
    let mut body = web(json!({ "80/tcp": [{ "HostPort": "8080" }] }));
    body["HostConfig"]["NetworkMode"] = "front".into();
    lab.run("web", body);
    for (name, network) in [("near", "front"), ("far", "back"), ("default", "bridge")] {
        lab.run(name, json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": network } }));
        let url = format!("http://{HOST}:8080/");
        within(Duration::from_secs(5), &format!("{name} reaches it"), || {
            lab.exec(name, &["timeout", "2", "wget", "-q", "-O", "-", &url]).stdout == "hi\n"
        });
    }
    let itself = lab.exec("web", &["timeout", "2", "wget", "-q", "-O", "-", &format!("http://{HOST}:8080/")]);
    assert_eq!(itself.stdout, "hi\n", "hairpin to itself");
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
