//! Networks as containers experience them: who reaches whom, under which names, and what a client is shown.
//!
//! ```text
//!   outside ── eth0 ── host ┬─ front ─ web, client …
//!                           └─ back  ─ db …
//! ```

use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, lab, within};

fn sleeper(network: &str) -> Value {
    json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": network } })
}

/// A web server on port 80 that says its own name.
fn web(network: &str, name: &str) -> Value {
    let script = format!("mkdir -p /w; echo {name} >/w/index.html; exec httpd -f -p 80 -h /w");
    json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "NetworkMode": network } })
}

/// What a container fetches, or nothing.
fn fetch(lab: &Lab, from: &str, url: &str) -> String {
    lab.exec(from, &["timeout", "2", "wget", "-q", "-O", "-", url]).stdout.trim_end().to_owned()
}

/// Waits until a container fetches this.
#[track_caller]
fn reaches(lab: &Lab, from: &str, url: &str, page: &str) {
    within(Duration::from_secs(5), &format!("{from} fetches {url}"), || fetch(lab, from, url) == page);
}

fn interfaces(lab: &Lab, container: &str) -> String {
    lab.exec(container, &["ls", "/sys/class/net"]).ok().replace('\n', " ")
}

fn connect(lab: &Lab, network: &str, container: &str, settings: Value) {
    lab.tell(
        &format!("/networks/{network}/connect"),
        json!({ "Container": container, "EndpointConfig": settings }),
        200,
    );
}

fn disconnect(lab: &Lab, network: &str, container: &str) {
    lab.tell(&format!("/networks/{network}/disconnect"), json!({ "Container": container }), 200);
}

#[test]
fn sec_01_members_reach_each_other_by_name_and_nobody_else_does() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "back" }));
    lab.run("web", web("front", "web"));
    lab.run("client", sleeper("front"));
    lab.run("other", sleeper("back"));
    lab.run("default", sleeper("bridge"));
    reaches(&lab, "client", "http://web/", "web");
    let address = lab.address("web", "front");
    for outsider in ["other", "default"] {
        assert_eq!(lab.lookup(outsider, "web"), [""; 0]);
        assert_eq!(fetch(&lab, outsider, &format!("http://{address}/")), "");
    }
    assert_eq!(lab.exec("client", &["ping", "-c1", "-W2", &OUTSIDE.to_string()]).code, 0);
}

#[test]
fn dns_04_an_endpoint_has_its_name_its_aliases_its_short_id_and_its_hostname() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let mut body = sleeper("front");
    body["Hostname"] = "inner".into();
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["db", "Primary"] } } });
    let id = lab.run("web", body);
    lab.run("client", sleeper("front"));
    let address = lab.address("web", "front");
    for name in ["web", "WEB", "db", "primary", &id[..12], "inner", "web.front", "db.front"] {
        assert_eq!(lab.lookup("client", name), [address.as_str()], "{name}");
    }
    assert!(lab.lookup("client", "nosuch").is_empty());
    let shown = lab.inspect("web")["NetworkSettings"]["Networks"]["front"].clone();
    assert_eq!(shown["Aliases"], json!(["db", "Primary"]));
    assert_eq!(shown["DNSNames"], json!(["web", "db", "Primary", &id[..12], "inner"]));
    // API-31: a new name is known at once, the old one no more.
    lab.ask("/containers/web/rename?name=site", 204);
    assert_eq!(lab.lookup("client", "site"), [address.as_str()]);
    assert!(lab.lookup("client", "web").is_empty());
    // DNS-24: what stops is not found, and is found again.
    lab.ask("/containers/site/stop?t=0", 204);
    assert!(lab.lookup("client", "db").is_empty());
    lab.ask("/containers/site/start", 204);
    assert_eq!(lab.lookup("client", "db"), [lab.address("site", "front")]);
    assert_eq!(lab.exec("client", &["nslookup", "upstream.example"]).code, 0, "DNS-10: others are asked upstream");
}

#[test]
fn dns_05_members_that_share_an_alias_share_the_load() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    for name in ["one", "two"] {
        let mut body = web("front", name);
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["pool"] } } });
        lab.run(name, body);
    }
    lab.run("client", sleeper("front"));
    let mut both = [lab.address("one", "front"), lab.address("two", "front")];
    both.sort();
    assert_eq!(lab.lookup("client", "pool"), both);
    reaches(&lab, "client", "http://one/", "one");
    reaches(&lab, "client", "http://two/", "two");
    let all =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do wget -q -O - http://pool/; done";
    let said = lab.exec("client", &["sh", "-c", all]).ok();
    assert!(said.contains("one") && said.contains("two"), "{said}");
    lab.ask("/containers/one/kill", 204);
    assert_eq!(lab.lookup("client", "pool"), [lab.address("two", "front")]);
}

#[test]
fn api_12_running_containers_are_connected_and_disconnected() {
    let lab = lab();
    let front = lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "back" }));
    lab.run("web", web("back", "web"));
    lab.run("roamer", sleeper("bridge"));
    assert_eq!(lab.lookup("roamer", "web"), [""; 0]);
    connect(&lab, "back", "roamer", json!({ "Aliases": ["late"] }));
    connect(&lab, &front[..12], "roamer", Value::Null);
    assert_eq!(interfaces(&lab, "roamer"), "eth0 eth1 eth2 lo");
    reaches(&lab, "roamer", "http://web/", "web");
    assert_eq!(lab.lookup("web", "late"), [lab.address("roamer", "back")]);
    let again = lab.tell("/networks/back/connect", json!({ "Container": "roamer" }), 403);
    assert_eq!(again.message(), "endpoint with name roamer already exists in network back");
    disconnect(&lab, "back", "roamer");
    assert_eq!(interfaces(&lab, "roamer"), "eth0 eth2 lo");
    assert_eq!(lab.lookup("roamer", "web"), [""; 0]);
    assert_eq!(lab.lookup("web", "late"), [""; 0]);
    let twice = lab.tell("/networks/back/disconnect", json!({ "Container": "roamer" }), 403).message();
    assert!(twice.ends_with("is not connected to network back"), "{twice}");
    // The first free number is taken again; the hosts file follows.
    connect(&lab, "back", "roamer", Value::Null);
    assert_eq!(interfaces(&lab, "roamer"), "eth0 eth1 eth2 lo");
    let hosts = lab.exec("roamer", &["cat", "/etc/hosts"]).ok();
    assert!(hosts.contains(&lab.address("roamer", "back")), "{hosts}");
    // The last one gone, only loopback is left; a stopped container is connected for its next start.
    for network in ["bridge", "front", "back"] {
        disconnect(&lab, network, "roamer");
    }
    assert_eq!(interfaces(&lab, "roamer"), "lo");
    lab.ask("/containers/roamer/stop?t=0", 204);
    connect(&lab, "back", "roamer", Value::Null);
    lab.ask("/containers/roamer/start", 204);
    assert_eq!(interfaces(&lab, "roamer"), "eth0 lo");
    reaches(&lab, "roamer", "http://web/", "web");
}

#[test]
fn br_10_the_way_out_goes_by_priority_and_moves() {
    let lab = lab();
    for name in ["aa", "bb", "cc"] {
        lab.network(json!({ "Name": name }));
    }
    let mut body = sleeper("bb");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "bb": {}, "cc": { "GwPriority": 5 } } });
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    lab.run("many", body);
    let gateway = || {
        let route = lab.exec("many", &["ip", "route", "show", "default"]).ok();
        route.split(' ').nth(2).unwrap_or_default().to_owned()
    };
    let of = |network: &str| {
        lab.get(&format!("/networks/{network}")).unwrap().json()["IPAM"]["Config"][0]["Gateway"].clone()
    };
    assert_eq!(json!(gateway()), of("cc"));
    // PT-11: published ports follow it.
    lab.exec("many", &["sh", "-c", "mkdir -p /w; echo hi >/w/index.html; httpd -p 80 -h /w"]).ok();
    let published =
        || lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &format!("http://{HOST}:8080/")])).stdout;
    assert_eq!(published(), "hi\n");
    disconnect(&lab, "cc", "many");
    assert_eq!(json!(gateway()), of("bb"));
    assert_eq!(published(), "hi\n");
    connect(&lab, "aa", "many", Value::Null);
    assert_eq!(json!(gateway()), of("aa"));
    assert_eq!(published(), "hi\n");
    connect(&lab, "cc", "many", json!({ "GwPriority": -1 }));
    assert_eq!(json!(gateway()), of("aa"));
}

#[test]
fn ip_08_a_static_address_is_its_containers_own_while_it_exists() {
    let lab = lab();
    lab.network(json!({
        "Name": "plan",
        "IPAM": { "Config": [{ "Subnet": "10.77.0.0/29", "Gateway": "10.77.0.1", "AuxiliaryAddresses": { "printer": "10.77.0.2" } }] },
    }));
    let fixed = |address: &str| {
        let mut body = sleeper("plan");
        body["NetworkingConfig"] =
            json!({ "EndpointsConfig": { "plan": { "IPAMConfig": { "IPv4Address": address } } } });
        body
    };
    lab.run("own", fixed("10.77.0.4"));
    assert_eq!(lab.address("own", "plan"), "10.77.0.4");
    lab.ask("/containers/own/stop?t=0", 204);
    // Running or not: nobody else gets it by chance; what is the network's own, nobody at all.
    for address in ["10.77.0.1", "10.77.0.2"] {
        let mut body = fixed(address);
        body["Image"] = "busybox".into();
        let refused = lab.tell("/containers/create", body, 403).message();
        assert!(refused.contains("Address already in use"), "{refused}");
    }
    // Three are left, and the fourth container hears why there is none for it.
    for name in ["d1", "d2", "d3"] {
        lab.run(name, sleeper("plan"));
        assert_ne!(lab.address(name, "plan"), "10.77.0.4");
    }
    lab.create("d4", sleeper("plan"));
    let full = lab.ask("/containers/d4/start", 403).message();
    assert!(full.contains("no available IPv4 addresses on this network's address pools: plan"), "{full}");
    lab.remove("d1");
    lab.ask("/containers/d4/start", 204);
    lab.ask("/containers/own/restart?t=0", 204);
    assert_eq!(lab.address("own", "plan"), "10.77.0.4");
    assert!(lab.exec("own", &["ip", "-4", "addr", "show", "eth0"]).ok().contains("10.77.0.4/29"));
}

#[test]
fn sec_02_an_internal_network_leads_nowhere() {
    let lab = lab();
    lab.network(json!({ "Name": "inner", "Internal": true, "EnableIPv6": true }));
    lab.network(json!({ "Name": "front", "EnableIPv6": true }));
    lab.run("web", web("inner", "web"));
    lab.run("client", sleeper("inner"));
    lab.run("other", web("front", "other"));
    reaches(&lab, "client", "http://web/", "web");
    for family in ["-4", "-6"] {
        assert!(!lab.exec("client", &["ip", family, "route"]).ok().contains("default"));
    }
    for outside in [OUTSIDE.to_string(), OUTSIDE6.to_string()] {
        assert_ne!(lab.exec("client", &["ping", "-c1", "-W1", &outside]).code, 0, "{outside}");
    }
    let url = |address: &IpAddr| format!("http://{}/", SocketAddr::new(*address, 80));
    let [inner, front] = [("web", "inner"), ("other", "front")].map(|(name, network)| lab.addresses(name, network));
    assert_eq!((inner.len(), front.len()), (2, 2));
    for (inside, outside) in inner.iter().zip(&front) {
        reaches(&lab, "client", &url(inside), "web");
        assert_eq!(fetch(&lab, "client", &url(outside)), "", "{outside}");
        assert_eq!(fetch(&lab, "other", &url(inside)), "", "{inside}");
    }
    // DNS-13: nothing outside is asked.
    assert_ne!(lab.exec("client", &["nslookup", "upstream.example"]).code, 0);
    connect(&lab, "front", "client", Value::Null);
    assert_eq!(lab.exec("client", &["nslookup", "upstream.example"]).code, 0);
}

#[test]
fn sec_03_without_icc_members_do_not_reach_each_other() {
    let lab = lab();
    let options = json!({ "com.docker.network.bridge.enable_icc": "false" });
    lab.network(json!({ "Name": "quiet", "EnableIPv6": true, "Options": options }));
    let mut body = web("quiet", "web");
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    lab.run("web", body);
    lab.run("client", sleeper("quiet"));
    let addresses = lab.addresses("web", "quiet");
    assert_eq!(addresses.len(), 2);
    for (address, host) in addresses.into_iter().zip([HOST.to_string(), format!("[{HOST6}]")]) {
        let url = format!("http://{}/", SocketAddr::new(address, 80));
        let from_host = || lab.on_host(Command::new("curl").args(["-fsS", "-m", "2", &url])).stdout;
        within(Duration::from_secs(5), "the host reaches it", || from_host() == "web\n");
        assert_eq!(fetch(&lab, "client", &url), "");
        reaches(&lab, "client", &format!("http://{host}:8080/"), "web");
    }
    assert_eq!(lab.lookup("client", "web")[0], lab.address("web", "quiet"), "names are no secret");
}

#[test]
fn dr_01_host_and_none_are_what_they_say() {
    let lab = lab();
    lab.run("on-host", sleeper("host"));
    assert_eq!(lab.exec("on-host", &["cat", "/sys/class/net/eth0/address"]).code, 0);
    assert!(lab.exec("on-host", &["ip", "-4", "addr"]).ok().contains(&HOST.to_string()));
    let of_host = |path: &str| std::fs::read_to_string(path).unwrap();
    let file = |name: &str| lab.exec("on-host", &["cat", name]).ok() + "\n";
    assert_eq!(file("/etc/hosts").trim_end(), of_host("/etc/hosts").trim_end(), "the host's own");
    let servers =
        |text: String| text.lines().filter(|l| l.starts_with("nameserver")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(servers(file("/etc/resolv.conf")), servers(of_host(lab.resolv_conf().to_str().unwrap())));
    let mut named = sleeper("host");
    named["HostConfig"]["ExtraHosts"] = json!(["here:192.0.2.7"]);
    lab.run("named", named);
    assert!(lab.exec("named", &["cat", "/etc/hosts"]).ok().contains("192.0.2.7\there"));
    let mut ports = sleeper("host");
    ports["Image"] = "busybox".into();
    ports["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    let warned = lab.post("/containers/create?name=ports", ports).unwrap().json()["Warnings"].to_string();
    assert!(warned.contains("Published ports are discarded when using host network mode"), "{warned}");
    lab.run("alone", sleeper("none"));
    assert_eq!(interfaces(&lab, "alone"), "lo");
    assert_eq!(lab.exec("alone", &["ping", "-c1", "127.0.0.1"]).code, 0);
    let refused = lab.tell("/networks/host/connect", json!({ "Container": "alone" }), 400).message();
    assert_eq!(refused, "cannot connect container to host network - container must be created in host network mode");
    // Who shares a container's network shares the host's where that container is on it.
    lab.run("guest", sleeper("container:on-host"));
    assert!(lab.exec("guest", &["ip", "-4", "addr"]).ok().contains(&HOST.to_string()));
}

#[test]
fn dr_03_sharers_of_a_sandbox_outlive_their_owners_runs() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let mut body = sleeper("front");
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    let owner = lab.run("owner", body);
    let script = "mkdir -p /w; echo shared >/w/index.html; exec httpd -f -p 80 -h /w";
    lab.run("sharer", json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "NetworkMode": "container:owner" } }));
    assert_eq!(lab.inspect("sharer")["HostConfig"]["NetworkMode"], format!("container:{owner}"));
    lab.run("client", sleeper("front"));
    reaches(&lab, "client", "http://owner/", "shared");
    assert_eq!(lab.exec("sharer", &["hostname"]).ok(), owner[..12]);
    let published =
        || lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &format!("http://{HOST}:8080/")])).stdout;
    assert_eq!(published(), "shared\n");
    // Pain 14: its owner restarts, and the sharer goes on in the same sandbox.
    for _ in 0..2 {
        lab.ask("/containers/owner/restart?t=0", 204);
        reaches(&lab, "client", "http://owner/", "shared");
        assert_eq!(published(), "shared\n");
        assert_eq!(fetch(&lab, "owner", "http://127.0.0.1/"), "shared");
        assert_eq!(lab.lookup("sharer", "client"), [lab.address("client", "front")]);
    }
    lab.ask("/containers/owner/stop?t=0", 204);
    assert_eq!(interfaces(&lab, "sharer"), "lo");
    assert_eq!(lab.lookup("client", "owner"), [""; 0]);
    assert_eq!(published(), "");
    // Another cannot join while the owner does not run.
    lab.create("late", sleeper("container:owner"));
    let refused = lab.ask("/containers/late/start", 409).message();
    assert_eq!(refused, format!("cannot join network namespace of a non running container: {owner}"));
    lab.ask("/containers/owner/start", 204);
    reaches(&lab, "client", "http://owner/", "shared");
    lab.ask("/containers/late/start", 204);
    // The owner gone for good, sharers live on; a container that wants to join hears that it is gone.
    lab.remove("owner");
    assert_eq!(lab.status("sharer"), "running");
    assert_eq!(fetch(&lab, "late", "http://127.0.0.1/"), "shared");
    lab.ask("/containers/late/restart?t=0", 404);
    let gone = lab.inspect("late")["State"]["Error"].clone();
    assert_eq!(gone, format!("joining network namespace of container: No such container: {owner}"));
}

#[test]
fn br_14_links_are_names_for_the_linker_alone() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("target", sleeper("front"));
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Links": ["target:db"] } } });
    lab.run("linker", body);
    lab.run("other", sleeper("front"));
    assert_eq!(lab.lookup("linker", "db"), [lab.address("target", "front")], "BR-15");
    assert_eq!(lab.lookup("other", "db"), [""; 0]);
    // Legacy, on the default network: by the hosts file.
    lab.run("old-target", sleeper("bridge"));
    let mut body = sleeper("bridge");
    body["HostConfig"]["Links"] = json!(["old-target:db"]);
    lab.run("old-linker", body);
    let line = || format!("{}\tdb", lab.address("old-target", "bridge"));
    let hosts = || lab.exec("old-linker", &["cat", "/etc/hosts"]).ok();
    assert!(hosts().contains(&line()), "{}", hosts());
    let variables = lab.exec("old-linker", &["env"]).ok();
    assert!(variables.contains("DB_NAME=/old-linker/db\n"), "{variables}");
    // Somewhere else after a restart, and the linker knows.
    let before = line();
    lab.run("between", sleeper("bridge"));
    lab.ask("/containers/old-target/restart?t=0", 204);
    assert_ne!(before, line(), "addresses rest");
    assert!(hosts().contains(&line()) && !hosts().contains(&before), "{}", hosts());
}

#[test]
fn api_01_networks_are_listed_shown_and_found() {
    let lab = lab();
    let front = lab.network(
        json!({ "Name": "front", "Labels": { "tier": "1" }, "Options": { "com.docker.network.driver.mtu": "1400" } }),
    );
    lab.network(json!({ "Name": "back.end" }));
    let names = |filters: Value| -> Vec<String> {
        let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let listed = lab.get(&format!("/networks?filters={encoded}")).unwrap();
        assert_eq!(listed.status, 200, "{}", listed.text());
        listed.json().as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(json!({})), ["back.end", "bridge", "front", "host", "none"]);
    assert_eq!(names(json!({ "name": ["end"] })), ["back.end"]);
    assert_eq!(names(json!({ "id": [&front[..8]] })), ["front"]);
    assert_eq!(names(json!({ "label": ["tier=1"] })), ["front"]);
    assert_eq!(names(json!({ "driver": ["host", "null"] })), ["host", "none"]);
    assert_eq!(names(json!({ "type": ["builtin"] })), ["bridge", "host", "none"]);
    lab.run("user", sleeper("front"));
    assert_eq!(names(json!({ "dangling": ["true"] })), ["back.end"]);
    // API-03: by id, name and prefix; API-04: everything, always.
    for reference in [front.as_str(), "front", &front[..10]] {
        assert_eq!(lab.get(&format!("/networks/{reference}")).unwrap().json()["Id"], front.as_str());
    }
    let shown = lab.get("/networks/front").unwrap().json();
    for key in [
        "Scope",
        "Driver",
        "EnableIPv4",
        "EnableIPv6",
        "IPAM",
        "Internal",
        "Attachable",
        "Ingress",
        "ConfigFrom",
        "ConfigOnly",
        "Options",
        "Labels",
    ] {
        assert!(!shown[key].is_null(), "{key}");
    }
    // API-05: active endpoints only.
    let id = lab.inspect("user")["Id"].as_str().unwrap().to_owned();
    assert_eq!(shown["Containers"][&id]["Name"], "user");
    assert_eq!(lab.exec("user", &["cat", "/sys/class/net/eth0/mtu"]).ok(), "1400", "BR-07");
    // API-11: in use, it stays; once stopped, it may go, and the container says so at its next start.
    let busy = lab.delete("/networks/front").unwrap();
    assert_eq!(busy.status, 403);
    let endpoint = shown["Containers"][&id]["EndpointID"].as_str().unwrap();
    assert_eq!(
        busy.message(),
        format!(
            "error while removing network: network front has active endpoints (name:\"user\" id:\"{}\")",
            &endpoint[..12]
        )
    );
    lab.ask("/containers/user/stop?t=0", 204);
    assert_eq!(lab.get("/networks/front").unwrap().json()["Containers"], json!({}));
    assert_eq!(lab.ask("/networks/prune", 200).json()["NetworksDeleted"], json!(["back.end"]), "API-14, pain 10");
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    let gone = lab.ask("/containers/user/start", 404).message();
    assert_eq!(gone, "failed to set up container networking: network front not found", "LC-07");
    // Made anew under its name, it is the container's again.
    lab.network(json!({ "Name": "front" }));
    lab.ask("/containers/user/start", 204);
    assert_eq!(interfaces(&lab, "user"), "eth0 lo");
}

#[test]
fn a_network_of_the_same_device_and_subnet_is_made_while_the_last_one_goes() {
    let lab = lab();
    for round in 0..5 {
        let body = json!({
            "Name": format!("n{round}"),
            "Options": { "com.docker.network.bridge.name": "brown" },
            "IPAM": { "Config": [{ "Subnet": "10.88.0.0/24" }] },
        });
        let id = lab.network(body);
        lab.run("cc", web(&id, "hi"));
        lab.run("dd", sleeper(&id));
        reaches(&lab, "dd", "http://cc/", "hi");
        lab.remove("cc");
        lab.remove("dd");
        assert_eq!(lab.delete(&format!("/networks/{id}")).unwrap().status, 204);
    }
    within(Duration::from_secs(5), "the device is gone", || {
        lab.on_host(Command::new("ip").args(["link", "show", "brown"])).code != 0
    });
}

#[test]
fn v6_01_networks_have_ipv6_if_asked_for() {
    let lab = lab();
    lab.network(json!({ "Name": "six", "EnableIPv6": true }));
    lab.run("web", sleeper("six"));
    lab.run("client", sleeper("six"));
    let address =
        lab.inspect("web")["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("fd"), "{address}");
    assert_eq!(lab.exec("client", &["ping", "-6", "-c1", "-W2", &address]).code, 0);
    let said = lab.exec("client", &["nslookup", "-type=aaaa", "web"]).stdout;
    assert!(said.contains(&address), "{said}");
}
