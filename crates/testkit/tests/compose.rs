//! Compose's projects: the docker-compose that Debian has, on a daemon of ours; and the calls that Compose v2 makes, with
//! its labels, where v1 makes others.
//!
//! ```text
//!   outside ── eth0 ── host ┬─ shop_default ─ web, client …
//!                           └─ shop_back, what the project says, what it finds (external)
//! ```

use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use testkit::{Lab, Output, images, program, within};

/// A project `shop` in a directory of its own.
struct Project {
    lab: Lab,
}

impl Project {
    /// With a file of version 2.4, the last one that knows everything about networks.
    fn new(file: &str) -> Self {
        let project = Project { lab: Lab::start(&program()).unwrap() };
        project.write(file);
        project
    }

    fn write(&self, file: &str) {
        std::fs::write(self.lab.directory().join("compose.yml"), format!("version: '2.4'\n{file}")).unwrap();
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        let compose = images::which("docker-compose").expect("docker-compose: apt-get install docker-compose");
        let mut command = Command::new("timeout");
        command.arg("120").arg(compose).args(["--no-ansi", "--project-name", "shop", "--file"]);
        command.arg(self.lab.directory().join("compose.yml")).args(arguments);
        command.env("DOCKER_HOST", self.lab.docker_host()).env_remove("COMPOSE_FILE");
        // Later versions have dropped an image's ContainerConfig, without which v1 makes no container anew.
        if arguments.contains(&"--force-recreate") {
            command.env("COMPOSE_API_VERSION", "1.44");
        }
        self.lab.on_host(&mut command)
    }

    /// The one container of a service, as Compose finds it: by its labels.
    fn container(&self, service: &str) -> String {
        let wanted = format!("[\"com.docker.compose.project=shop\",\"com.docker.compose.service={service}\"]");
        let listed = self.list("containers/json?all=1&filters=", &format!("{{\"label\":{wanted}}}"));
        let [container] = listed.as_array().unwrap().as_slice() else { panic!("{service}: {listed}") };
        container["Id"].as_str().unwrap().to_owned()
    }

    fn list(&self, path: &str, filters: &str) -> Value {
        let shown = self.lab.get(&format!("/v1.45/{path}{}", escape(filters))).unwrap();
        assert_eq!(shown.status, 200, "{}", shown.text());
        shown.json()
    }

    fn network(&self, name: &str) -> Value {
        let shown = self.lab.get(&format!("/networks/{name}")).unwrap();
        assert_eq!(shown.status, 200, "{}", shown.text());
        shown.json()
    }

    /// What a service says of itself on a network.
    fn endpoint(&self, service: &str, network: &str) -> Value {
        self.lab.inspect(&self.container(service))["NetworkSettings"]["Networks"][network].clone()
    }

    fn exec(&self, service: &str, command: &[&str]) -> String {
        self.lab.exec(&self.container(service), command).ok()
    }
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

const SLEEP: &str = "image: busybox, command: sleep 600, stop_grace_period: 0s";

#[test]
fn cmp_01_a_project_has_a_default_network_with_its_labels_and_another_hash_makes_it_anew() {
    let project = Project::new(&format!("services: {{ web: {{ {SLEEP} }} }}"));
    project.compose(&["up", "-d"]).ok();
    let shown = project.network("shop_default");
    assert_eq!((shown["Driver"].as_str(), shown["Internal"].as_bool()), (Some("bridge"), Some(false)));
    assert_eq!(shown["Labels"]["com.docker.compose.network"], "default");
    assert_eq!(shown["Labels"]["com.docker.compose.project"], "shop");
    assert!(shown["Labels"]["com.docker.compose.version"].is_string(), "{shown}");
    assert_eq!(project.endpoint("web", "shop_default")["NetworkID"], shown["Id"]);
    project.compose(&["down"]).ok();
    assert_eq!(project.lab.get("/networks/shop_default").unwrap().status, 404);

    // v2: the hash of what the file says of a network is a label; where it is another, the network is made anew.
    let labels = |hash: &str| {
        json!({
            "com.docker.compose.config-hash": hash,
            "com.docker.compose.network": "default",
            "com.docker.compose.project": "shop",
            "com.docker.compose.version": "2.39.1",
        })
    };
    let create = |hash: &str| {
        json!({ "Name": "shop_default", "Driver": "bridge", "Options": {}, "IPAM": {}, "EnableIPv4": null,
                "EnableIPv6": null, "Internal": false, "Attachable": false, "Labels": labels(hash) })
    };
    project.lab.tell("/v1.50/networks/create", create("a1"), 201);
    project.lab.tell("/v1.50/networks/create", create("a1"), 409);
    let found = project.list("networks?filters=", "{\"label\":{\"com.docker.compose.project=shop\":true}}");
    assert_eq!((found.as_array().unwrap().len(), &found[0]["Labels"]), (1, &labels("a1")));
    let old = project.network("shop_default")["Id"].clone();
    assert_eq!(project.lab.delete(&format!("/v1.50/networks/{}", old.as_str().unwrap())).unwrap().status, 204);
    project.lab.tell("/v1.50/networks/create", create("b2"), 201);
    let new = project.network("shop_default");
    assert_eq!(new["Labels"]["com.docker.compose.config-hash"], "b2");
    assert_ne!(new["Id"], old);
}

#[test]
fn cmp_02_services_are_found_by_their_names_and_those_of_their_containers_on_shared_networks_too() {
    let file = |boss: &str| {
        format!(
            "services:\n  web: {{ {SLEEP}, networks: [default, shared] }}\n  \
             chief: {{ {SLEEP}, container_name: {boss} }}\n  client: {{ {SLEEP} }}\n\
             networks: {{ shared: {{ external: true }} }}\n"
        )
    };
    let project = Project::new(&file("boss"));
    let lab = &project.lab;
    lab.network(json!({ "Name": "shared" }));
    project.compose(&["up", "-d"]).ok();
    let client = project.container("client");
    assert_eq!(lab.lookup(&client, "web"), [lab.address(&project.container("web"), "shop_default")]);
    for name in ["chief", "boss"] {
        assert_eq!(lab.lookup(&client, name), [lab.address("boss", "shop_default")], "{name}");
    }
    // Another project's 'web' on a shared network shares the name, as Compose's documentation warns.
    let mut other = json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "shared" } });
    other["NetworkingConfig"] = json!({ "EndpointsConfig": { "shared": { "Aliases": ["web"] } } });
    lab.run("other-web-1", other);
    lab.run("looker", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "shared" } }));
    let mut both = [lab.address(&project.container("web"), "shared"), lab.address("other-web-1", "shared")];
    both.sort();
    assert_eq!(lab.lookup("looker", "web"), both);
}

#[test]
fn cmp_03_networks_are_made_as_the_file_says() {
    let project = Project::new(&format!(
        "services: {{ web: {{ {SLEEP}, networks: [all, inner] }} }}\n\
         networks:\n\
         \x20 all:\n    name: everything\n    driver: bridge\n    enable_ipv6: true\n\
         \x20   driver_opts: {{ com.docker.network.bridge.name: cmp3, com.docker.network.driver.mtu: '1400' }}\n\
         \x20   labels: {{ who: me }}\n\
         \x20   ipam:\n      driver: default\n      config:\n\
         \x20       - subnet: 10.77.0.0/16\n          ip_range: 10.77.5.0/24\n          gateway: 10.77.0.9\n\
         \x20         aux_addresses: {{ printer: 10.77.5.0, router: 10.77.5.1 }}\n\
         \x20       - subnet: fd77::/64\n\
         \x20 inner: {{ internal: true }}\n"
    ));
    project.compose(&["up", "-d"]).ok();
    let shown = project.network("everything");
    assert_eq!(shown["EnableIPv6"], true);
    assert_eq!(shown["Labels"]["who"], "me");
    assert_eq!(shown["IPAM"]["Config"][0]["IPRange"], "10.77.5.0/24");
    assert_eq!(shown["IPAM"]["Config"][1]["Subnet"], "fd77::/64");
    assert_eq!(project.endpoint("web", "everything")["IPAddress"], "10.77.5.2", "the first that is nobody's");
    assert_eq!(project.endpoint("web", "everything")["Gateway"], "10.77.0.9");
    let link = project.lab.on_host(Command::new("ip").args(["-br", "addr", "show", "cmp3"])).ok();
    assert!(link.contains("10.77.0.9/16"), "{link}");
    let mtus = project.exec("web", &["sh", "-c", "cat /sys/class/net/eth*/mtu"]);
    assert!(mtus.lines().any(|mtu| mtu == "1400"), "{mtus}");
    assert_eq!(project.network("shop_inner")["Internal"], true);

    // v2 says of either family whether it is wished.
    let only6 = json!({ "Name": "six", "EnableIPv4": false, "EnableIPv6": true, "Attachable": true,
                        "IPAM": { "Driver": "default", "Config": [{ "Subnet": "fd78::/64" }] } });
    project.lab.tell("/v1.50/networks/create", only6, 201);
    let six = project.network("six");
    assert_eq!(
        (&six["EnableIPv4"], &six["EnableIPv6"], &six["Attachable"]),
        (&json!(false), &json!(true), &json!(true))
    );
}

#[test]
fn cmp_04_a_service_has_names_and_addresses_of_its_own_on_each_network() {
    let project = Project::new(&format!(
        "services:\n\
         \x20 web:\n    image: busybox\n    command: sleep 600\n    stop_grace_period: 0s\n    networks:\n\
         \x20     front: {{ aliases: [www], ipv4_address: 10.78.0.80, ipv6_address: 'fd78::80', \
         link_local_ips: [169.254.7.8] }}\n\
         \x20 client: {{ {SLEEP}, networks: [front] }}\n\
         networks:\n  front:\n    enable_ipv6: true\n    ipam: {{ config: [{{ subnet: 10.78.0.0/24 }}, \
         {{ subnet: 'fd78::/64' }}] }}\n"
    ));
    let lab = &project.lab;
    project.compose(&["up", "-d"]).ok();
    let shown = project.endpoint("web", "shop_front");
    assert_eq!((&shown["IPAddress"], &shown["GlobalIPv6Address"]), (&json!("10.78.0.80"), &json!("fd78::80")));
    assert_eq!(lab.lookup(&project.container("client"), "www"), ["10.78.0.80"]);
    let addresses = project.exec("web", &["ip", "addr"]);
    assert!(addresses.contains("inet 169.254.7.8/"), "{addresses}");

    // v2, from 1.44 on: all networks at once, and what each endpoint is to have.
    lab.network(json!({ "Name": "shop_back" }));
    let endpoint = |service: &str, more: Value| {
        let mut settings = json!({ "Aliases": ["shop-v2-1", service], "IPAMConfig": null, "Links": null,
            "DriverOpts": null, "MacAddress": "", "GwPriority": 0, "NetworkID": "", "IPAddress": "" });
        more.as_object().unwrap().iter().for_each(|(key, value)| settings[key] = value.clone());
        settings
    };
    let name = json!({ "com.docker.network.endpoint.ifname": "uplink" });
    lab.tell(
        "/v1.50/containers/create?name=shop-v2-1",
        json!({
            "Image": "busybox", "Cmd": ["sleep", "600"],
            "Labels": { "com.docker.compose.project": "shop", "com.docker.compose.service": "v2" },
            "HostConfig": { "NetworkMode": "shop_front" },
            "NetworkingConfig": { "EndpointsConfig": {
                "shop_front": endpoint("v2", json!({ "IPAMConfig": { "IPv4Address": "10.78.0.81" },
                    "MacAddress": "02:00:00:00:00:81" })),
                "shop_back": endpoint("v2", json!({ "DriverOpts": name, "GwPriority": 7 })),
            } },
        }),
        201,
    );
    lab.ask("/v1.50/containers/shop-v2-1/start", 204);
    let networks = lab.inspect("shop-v2-1")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks["shop_front"]["IPAddress"], "10.78.0.81");
    assert_eq!(networks["shop_front"]["MacAddress"], "02:00:00:00:00:81");
    assert!(lab.exec("shop-v2-1", &["ip", "route"]).ok().contains("default via"));
    let route = lab.exec("shop-v2-1", &["ip", "route", "show", "default"]).ok();
    assert!(route.contains("dev uplink"), "gw_priority and interface_name: {route}");
    assert_eq!(lab.lookup(&project.container("client"), "v2"), ["10.78.0.81"]);
}

#[test]
fn cmp_05_priority_is_the_order_of_interfaces_and_the_gateways_is_its_own() {
    let networks = "networks: { aa: { priority: 1 }, bb: { priority: 100 }, cc: { priority: 10 } }";
    let project = Project::new(&format!(
        "services: {{ web: {{ {SLEEP}, {networks} }} }}\nnetworks: {{ aa: {{}}, bb: {{}}, cc: {{}} }}\n"
    ));
    project.compose(&["up", "-d"]).ok();
    let hardware = |interface: &str| project.exec("web", &["cat", &format!("/sys/class/net/{interface}/address")]);
    for (interface, network) in [("eth0", "shop_bb"), ("eth1", "shop_cc"), ("eth2", "shop_aa")] {
        assert_eq!(hardware(interface), project.endpoint("web", network)["MacAddress"], "{interface} is on {network}");
    }
    // The way out goes by the networks' names, however they came.
    let route = project.exec("web", &["ip", "route", "show", "default"]);
    assert!(route.contains("dev eth2"), "{route}");
}

#[test]
fn cmp_06_network_modes_are_had_and_sharers_go_with_their_provider() {
    let project = Project::new(&format!(
        "services:\n\
         \x20 provider: {{ {SLEEP} }}\n\
         \x20 sharer: {{ {SLEEP}, network_mode: 'service:provider' }}\n\
         \x20 host: {{ {SLEEP}, network_mode: host }}\n\
         \x20 none: {{ {SLEEP}, network_mode: none }}\n\
         \x20 plain: {{ {SLEEP}, network_mode: bridge }}\n\
         \x20 guest: {{ {SLEEP}, network_mode: 'container:outsider' }}\n"
    ));
    let lab = &project.lab;
    lab.run("outsider", json!({ "Cmd": ["sleep", "600"] }));
    project.compose(&["up", "-d"]).ok();
    let namespace = |container: &str| {
        let pid = lab.inspect(container)["State"]["Pid"].to_string();
        std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
    };
    let of = |service: &str| namespace(&project.container(service));
    assert_eq!(of("sharer"), of("provider"));
    assert_eq!(of("guest"), namespace("outsider"));
    assert_eq!(of("host"), std::fs::read_link(lab.namespace_file()).unwrap());
    assert_eq!(project.exec("none", &["ls", "/sys/class/net"]), "lo");
    assert!(!project.endpoint("plain", "bridge")["IPAddress"].as_str().unwrap().is_empty());
    let before = project.container("provider");
    project.compose(&["up", "-d", "--force-recreate", "provider", "sharer"]).ok();
    assert_ne!(project.container("provider"), before);
    assert_eq!(of("sharer"), of("provider"));
}

#[test]
fn cmp_07_ports_names_and_settings_of_services_are_had() {
    let project = Project::new(&format!(
        "services:\n\
         \x20 db: {{ {SLEEP} }}\n\
         \x20 web:\n    image: busybox\n    stop_grace_period: 0s\n\
         \x20   command: sh -c 'mkdir /w; echo shop >/w/index.html; exec httpd -f -p 80 -h /w'\n\
         \x20   ports: ['8080:80', '127.0.0.1:9000-9001:9000-9001/udp']\n    expose: ['7000']\n\
         \x20   dns: [10.255.255.53]\n    dns_search: [shop.example]\n    dns_opt: ['timeout:3']\n\
         \x20   extra_hosts: ['up:host-gateway', 'printer:192.0.2.7']\n\
         \x20   hostname: shopfront\n    domainname: example.test\n\
         \x20   links: ['db:database']\n    external_links: ['legacy:old']\n\
         \x20   sysctls: {{ net.ipv4.ip_unprivileged_port_start: '80' }}\n"
    ));
    let lab = &project.lab;
    let mut legacy = json!({ "Cmd": ["sleep", "600"] });
    lab.network(json!({ "Name": "shop_default", "Labels": { "com.docker.compose.network": "default",
        "com.docker.compose.project": "shop", "com.docker.compose.version": "1.29.2" } }));
    legacy["HostConfig"] = json!({ "NetworkMode": "shop_default" });
    lab.run("legacy", legacy);
    project.compose(&["up", "-d"]).ok();
    let url = format!("http://{}:8080/", testkit::HOST);
    within(Duration::from_secs(10), "the page is had from outside", || {
        lab.outside(Command::new("curl").args(["-sm", "2", &url])).stdout.trim_end() == "shop"
    });
    let web = project.container("web");
    let ports = lab.inspect(&web)["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports["9001/udp"], json!([{ "HostIp": "127.0.0.1", "HostPort": "9001" }]));
    assert!(ports.as_object().unwrap().contains_key("7000/tcp"), "{ports}");
    let resolv = project.exec("web", &["cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("search shop.example\noptions timeout:3 ndots:0\n"), "{resolv}");
    assert!(resolv.contains("# ExtServers: [10.255.255.53]"), "{resolv}");
    let hosts = project.exec("web", &["cat", "/etc/hosts"]);
    assert!(hosts.contains("192.0.2.7\tprinter\n") && hosts.contains("\tup\n"), "{hosts}");
    assert!(hosts.contains("\tshopfront.example.test shopfront"), "{hosts}");
    assert_eq!(project.exec("web", &["hostname"]), "shopfront");
    for (name, container) in [("database", project.container("db")), ("old", "legacy".to_owned())] {
        let (asked, address) =
            (project.exec("web", &["ping", "-c1", "-W2", name]), lab.address(&container, "shop_default"));
        assert!(asked.starts_with(&format!("PING {name} ({address})")), "{name} is {address}: {asked}");
    }
    assert_eq!(project.exec("web", &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]), "80");
    assert_eq!(project.compose(&["port", "web", "80"]).ok(), "0.0.0.0:8080");
}

#[test]
fn cmp_08_an_external_network_is_found_by_its_whole_name_or_its_id() {
    let file = |name: &str| {
        format!(
            "services: {{ web: {{ {SLEEP}, networks: [ext] }} }}\nnetworks: {{ ext: {{ external: true, name: {name} }} }}"
        )
    };
    let project = Project::new(&file("net"));
    // A filter finds parts of names: clients look for the whole name themselves.
    for name in ["net-before", "anet", "network"] {
        project.lab.network(json!({ "Name": name }));
    }
    assert!(project.compose(&["up", "-d"]).refused().contains("could not be found"));
    let id = project.lab.network(json!({ "Name": "net" }));
    project.compose(&["up", "-d"]).ok();
    assert_eq!(project.endpoint("web", "net")["NetworkID"], id.as_str());
    let found = project.list("networks?filters=", "{\"name\":{\"net\":true}}");
    let names: Vec<&str> = found.as_array().unwrap().iter().filter_map(|n| n["Name"].as_str()).collect();
    assert!(names.contains(&"net") && names.contains(&"anet"), "{names:?}");
    assert_eq!(found.as_array().unwrap().iter().filter(|n| n["Name"] == "net").count(), 1);
    // v2 falls back to the inspection: by an id, too.
    assert_eq!(project.lab.get(&format!("/v1.50/networks/{id}")).unwrap().json()["Name"], "net");
    let missing = project.lab.get("/v1.50/networks/nobody").unwrap();
    assert_eq!((missing.status, missing.message()), (404, "network nobody not found".to_owned()));
    project.compose(&["down"]).ok();
    assert_eq!(project.network("net")["Id"], id.as_str(), "what is external stays");
}

#[test]
fn cmp_09_down_leaves_a_network_that_somebody_else_is_on() {
    let project = Project::new(&format!("services: {{ web: {{ {SLEEP} }} }}"));
    let lab = &project.lab;
    project.compose(&["up", "-d"]).ok();
    lab.run("visitor", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "shop_default" } }));
    let said = project.compose(&["down"]);
    assert!(said.stderr.contains("has active endpoints"), "{}", said.stderr);
    assert_eq!(project.network("shop_default")["Containers"].as_object().unwrap().len(), 1);
    lab.remove("visitor");
    project.compose(&["down"]).ok();
    assert_eq!(lab.get("/networks/shop_default").unwrap().status, 404);
}

#[test]
fn cmp_09_a_service_waits_until_the_one_it_depends_on_is_healthy() {
    let check = "test: ['CMD', 'test', '-e', '/ready'], interval: 200ms, timeout: 2s, retries: 60";
    let project = Project::new(&format!(
        "services:\n\
         \x20 db: {{ image: busybox, command: sh -c 'sleep 1; touch /ready; sleep 600', stop_grace_period: 0s, \
         healthcheck: {{ {check} }} }}\n\
         \x20 web: {{ {SLEEP}, depends_on: {{ db: {{ condition: service_healthy }} }} }}\n"
    ));
    project.compose(&["up", "-d"]).ok();
    let (db, web) = (project.container("db"), project.container("web"));
    assert_eq!(project.lab.inspect(&db)["State"]["Health"]["Status"], "healthy");
    let log = project.lab.inspect(&db)["State"]["Health"]["Log"].clone();
    let ends: Vec<&str> = log.as_array().unwrap().iter().filter_map(|l| l["End"].as_str()).collect();
    let started = project.lab.inspect(&web)["State"]["StartedAt"].as_str().unwrap().to_owned();
    assert!(ends.iter().any(|end| *end < started.as_str()), "{started} is after the first success: {log}");
}
