//! Networks by the API: what clients send and are shown, row by row of the checklist (API-01 to API-35).

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::traffic::{publisher, sleeper, sleeper_with};
use testkit::{Lab, lab};

fn shown(lab: &Lab, path: &str) -> Value {
    let answer = lab.get(path).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Refused with this status, and a message that has these words.
#[track_caller]
fn refused(answer: Response, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.message().contains(words), "{:?} has no {words:?}", answer.message());
}

/// A map of filters as a parameter.
fn filters(map: &Value) -> String {
    let escape = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02X}", u32::from(c)) };
    format!("filters={}", map.to_string().chars().map(escape).collect::<String>())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn api_03_a_network_is_found_by_its_id_its_name_or_the_start_of_its_id() {
    let lab = lab();
    let first = lab.network(json!({ "Name": "first" }));
    assert_eq!(shown(&lab, &format!("/networks/{first}"))["Name"], "first");
    assert_eq!(shown(&lab, "/networks/first")["Id"], first.as_str());
    assert_eq!(shown(&lab, &format!("/networks/{}?verbose=true&scope=local", &first[..7]))["Name"], "first");
    // A name goes before the start of an id.
    let second = lab.network(json!({ "Name": &first[..7] }));
    assert_eq!(shown(&lab, &format!("/networks/{}", &first[..7]))["Id"], second.as_str());
    refused(lab.get("/networks/nosuch").unwrap(), 404, "network nosuch not found");
    // Sixteen networks share a first digit somewhere.
    let mut ids: Vec<String> = vec![first, second];
    ids.extend((0..16).map(|n| lab.network(json!({ "Name": format!("n{n}") }))));
    let start = |id: &String| id[..1].to_owned();
    let shared = ids.iter().find(|a| ids.iter().filter(|b| start(a) == start(b)).count() > 1).map(start).unwrap();
    let answer = lab.get(&format!("/networks/{shared}")).unwrap();
    refused(answer, 400, &format!("network {shared} is ambiguous ("));
}

#[test]
fn api_04_an_inspection_has_every_field_whatever_was_given() {
    let lab = lab();
    lab.network(json!({ "Name": "plain" }));
    lab.network(json!({
        "Name": "full", "Internal": true, "Attachable": true, "EnableIPv6": true, "Labels": { "a": "b" },
        "Options": { "com.docker.network.driver.mtu": "1400" },
        "IPAM": { "Config": [
            { "Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.1", "AuxiliaryAddresses": { "x": "10.9.0.9" } },
            { "Subnet": "fd09::/64" },
        ] },
    }));
    let fields = [
        "Name",
        "Id",
        "Created",
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
        "Containers",
        "Options",
        "Labels",
    ];
    for name in ["plain", "full", "bridge", "host", "none"] {
        let network = shown(&lab, &format!("/networks/{name}"));
        let missing: Vec<_> = fields.iter().filter(|f| network.get(f).is_none()).collect();
        assert!(missing.is_empty(), "{name} has no {missing:?}");
        assert!(network["Containers"].is_object() && network["Options"].is_object() && network["Labels"].is_object());
    }
    let full = shown(&lab, "/networks/full");
    let pools = full["IPAM"]["Config"].as_array().unwrap();
    assert_eq!(pools[0]["IPRange"], "10.9.0.128/25");
    assert_eq!(pools[0]["AuxiliaryAddresses"], json!({ "x": "10.9.0.9" }));
    assert_eq!((full["Internal"].clone(), full["Attachable"].clone()), (true.into(), true.into()));
    let created = full["Created"].as_str().unwrap();
    assert!(created.len() > "2026-01-01T00:00:00.0Z".len() && created.ends_with('Z'), "{created}");
}

#[test]
fn api_05_only_running_containers_are_shown_as_members() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let members = || shown(&lab, "/networks/front")["Containers"].clone();
    let id = lab.create("web", sleeper("front"));
    assert_eq!(members(), json!({}));
    lab.ask("/containers/web/start", 204);
    let now = members();
    assert_eq!(keys(&now), [id.as_str()]);
    let address = lab.address("web", "front");
    assert_eq!(now[&id]["Name"], "web");
    assert_eq!(now[&id]["IPv4Address"], format!("{address}/22"));
    assert_eq!(now[&id]["IPv6Address"], "");
    for field in ["EndpointID", "MacAddress"] {
        assert!(!now[&id][field].as_str().unwrap().is_empty(), "{field}");
    }
    lab.ask("/containers/web/stop?t=0", 204);
    assert_eq!(members(), json!({}));
}

#[test]
fn api_06_an_inspection_says_how_full_the_subnets_are_since_1_52() {
    let lab = lab();
    lab.network(json!({
        "Name": "front", "EnableIPv6": true,
        "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25" }, { "Subnet": "fd09::/64" }] },
    }));
    let numbers = |subnet: &str| {
        let found = shown(&lab, "/v1.52/networks/front")["Status"]["IPAM"]["Subnets"][subnet].clone();
        (found["IPsInUse"].as_u64().unwrap(), found["DynamicIPsAvailable"].as_u64().unwrap())
    };
    assert_eq!((numbers("10.9.0.0/24"), numbers("fd09::/64")), ((3, 127), (2, u64::MAX - 1)));
    lab.run("dynamic", sleeper("front"));
    lab.run("fixed", sleeper_with("front", json!({ "IPAMConfig": { "IPv4Address": "10.9.0.9" } })));
    assert_eq!((numbers("10.9.0.0/24"), numbers("fd09::/64")), ((5, 126), (4, u64::MAX - 3)));
    lab.remove("dynamic");
    assert_eq!(numbers("10.9.0.0/24"), (4, 127));
    // Who asks for an older version finds what that version has.
    for path in ["/networks/front", "/v1.51/networks/front"] {
        assert!(shown(&lab, path).get("Status").is_none(), "{path}");
    }
}

#[test]
fn api_07_all_that_a_client_says_of_a_new_network_is_taken() {
    let lab = lab();
    let answer = lab.post(
        "/networks/create",
        json!({
            "Name": "all", "CheckDuplicate": true, "Driver": "bridge", "Scope": "local", "Internal": false,
            "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "EnableIPv4": true,
            "EnableIPv6": false, "IPAM": { "Driver": "default", "Config": null, "Options": null }, "Options": null,
            "Labels": null,
        }),
    );
    let answer = answer.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["Id"].as_str().unwrap().len(), 64);
    assert_eq!(body["Warning"], "");
    // The least that can be said.
    assert_eq!(lab.post("/networks/create", json!({ "Name": "least" })).unwrap().status, 201);
    assert_eq!(shown(&lab, "/networks/least")["Driver"], "bridge");
}

#[test]
fn api_08_a_name_is_given_once() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    for check in [true, false] {
        let again = lab.post("/networks/create", json!({ "Name": "front", "CheckDuplicate": check })).unwrap();
        refused(again, 409, "network with name front already exists");
    }
    assert_eq!(
        shown(&lab, &format!("/networks?{}", filters(&json!({ "name": ["front"] })))).as_array().unwrap().len(),
        1
    );
}

#[test]
fn api_09_the_predefined_names_are_not_to_be_had() {
    let lab = lab();
    for name in ["bridge", "host", "none", "default"] {
        let answer = lab.post("/networks/create", json!({ "Name": name })).unwrap();
        refused(answer, 403, &format!("operation is not permitted on predefined {name} network"));
    }
    let answer = lab.post("/networks/create", json!({ "Name": "container:x" })).unwrap();
    refused(answer, 403, "operation is not permitted on predefined container:x network");
}

#[test]
fn api_11_a_network_in_use_stays_and_stopped_containers_do_not_hold_it() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("web", sleeper("front"));
    let answer = lab.delete("/networks/front").unwrap();
    refused(answer, 403, "has active endpoints (name:\"web\"");
    for predefined in ["bridge", "host", "none"] {
        let answer = lab.delete(&format!("/networks/{predefined}")).unwrap();
        refused(answer, 403, &format!("{predefined} is a pre-defined network and cannot be removed"));
    }
    lab.ask("/containers/web/stop?t=0", 204);
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    refused(lab.delete("/networks/front").unwrap(), 404, "network front not found");
}

#[test]
fn api_13_a_container_is_disconnected_running_stopped_or_by_force() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    lab.run("web", sleeper("front"));
    let disconnect = |network: &str, body: Value| lab.post(&format!("/networks/{network}/disconnect"), body).unwrap();
    lab.tell("/networks/back/connect", json!({ "Container": "web" }), 200);
    assert_eq!(disconnect("back", json!({ "Container": "web" })).status, 200);
    let answer = disconnect("back", json!({ "Container": "web" }));
    refused(answer, 403, "is not connected to network back");
    lab.ask("/containers/web/stop?t=0", 204);
    assert_eq!(disconnect("front", json!({ "Container": "web", "Force": true })).status, 200);
    assert_eq!(keys(&lab.inspect("web")["NetworkSettings"]["Networks"]), [""; 0]);
    // By force, one that is gone is off the network as asked; else it is unknown.
    assert_eq!(disconnect("front", json!({ "Container": "nosuch", "Force": true })).status, 200);
    refused(disconnect("front", json!({ "Container": "nosuch" })), 404, "No such container: nosuch");
}

#[test]
fn api_14_prune_takes_what_nobody_uses_and_the_filters_name() {
    let lab = lab();
    lab.network(json!({ "Name": "kept", "Labels": { "keep": "yes" } }));
    lab.network(json!({ "Name": "used" }));
    lab.network(json!({ "Name": "template", "ConfigOnly": true }));
    lab.network(json!({ "Name": "made", "ConfigFrom": { "Network": "template" } }));
    lab.network(json!({ "Name": "idle" }));
    lab.run("web", sleeper("used"));
    lab.run("user", sleeper("made"));
    let prune = |wanted: Value| {
        let answer = lab.post(&format!("/networks/prune?{}", filters(&wanted)), Value::Null).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut names: Vec<String> =
            serde_json::from_value(answer.json()["NetworksDeleted"].clone()).unwrap_or_default();
        names.sort();
        names
    };
    assert_eq!(prune(json!({ "until": ["10m"] })), [""; 0], "all are younger");
    assert_eq!(prune(json!({ "label": ["nosuch"] })), [""; 0]);
    assert_eq!(prune(json!({ "label!": ["keep=yes"] })), ["idle"]);
    assert_eq!(prune(json!({ "label": ["keep"] })), ["kept"]);
    let left = shown(&lab, "/networks");
    let mut left: Vec<&str> = left.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, ["bridge", "host", "made", "none", "template", "used"]);
    let unknown = format!("/networks/prune?{}", filters(&json!({ "nosuch": ["x"] })));
    refused(lab.post(&unknown, Value::Null).unwrap(), 400, "nosuch");
}

#[test]
fn api_15_network_create_has_docker_s_flags() {
    let lab = lab();
    lab.isle(&[
        "network",
        "create",
        "-d",
        "bridge",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "--label",
        "a=b",
        "--internal",
        "--ipv6",
        "--attachable",
        "--ipam-driver",
        "default",
        "--ipam-opt",
        "x=y",
        "--subnet",
        "10.9.0.0/24",
        "--ip-range",
        "10.9.0.128/25",
        "--gateway",
        "10.9.0.3",
        "--aux-address",
        "router=10.9.0.9",
        "--subnet",
        "fd09::/64",
        "full",
    ])
    .ok();
    let full = shown(&lab, "/networks/full");
    let pool = &full["IPAM"]["Config"][0];
    assert_eq!(
        *pool,
        json!({ "Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.3", "AuxiliaryAddresses": { "router": "10.9.0.9" } })
    );
    assert_eq!(full["IPAM"]["Config"][1]["Subnet"], "fd09::/64");
    assert_eq!(full["IPAM"]["Options"], json!({ "x": "y" }));
    for (field, value) in [("Internal", true), ("Attachable", true), ("EnableIPv6", true), ("EnableIPv4", true)] {
        assert_eq!(full[field], value, "{field}");
    }
    lab.isle(&["network", "create", "--ipv4=false", "--ipv6", "six"]).ok();
    assert_eq!(shown(&lab, "/networks/six")["EnableIPv4"], false);
    lab.isle(&["network", "create", "--config-only", "--subnet", "10.8.0.0/24", "template"]).ok();
    lab.isle(&["network", "create", "--config-from", "template", "made"]).ok();
    assert_eq!(shown(&lab, "/networks/made")["IPAM"]["Config"][0]["Subnet"], "10.8.0.0/24");
    assert!(lab.isle(&["network", "create", "--ingress", "x"]).refused().contains("swarm"));
    assert!(lab.isle(&["network", "create", "--scope", "swarm", "x"]).refused().contains("local"));
}

#[test]
fn api_16_network_connect_has_docker_s_flags() {
    let lab = lab();
    lab.isle(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "front"]).ok();
    lab.run("web", sleeper("bridge"));
    lab.run("db", sleeper("front"));
    lab.isle(&[
        "network",
        "connect",
        "--ip",
        "10.9.0.77",
        "--ip6",
        "fd09::77",
        "--alias",
        "one",
        "--alias",
        "two",
        "--link",
        "db:store",
        "--link-local-ip",
        "169.254.7.7",
        "--driver-opt",
        "com.docker.network.endpoint.ifname=front0",
        "--gw-priority",
        "5",
        "front",
        "web",
    ])
    .ok();
    let endpoint = lab.inspect("web")["NetworkSettings"]["Networks"]["front"].clone();
    assert_eq!(endpoint["IPAddress"], "10.9.0.77");
    assert_eq!(endpoint["GlobalIPv6Address"], "fd09::77");
    assert_eq!(endpoint["GwPriority"], 5);
    assert_eq!(endpoint["Links"], json!(["db:store"]));
    assert_eq!(lab.lookup("db", "one"), ["10.9.0.77"]);
    assert_eq!(lab.lookup("db", "two"), ["10.9.0.77"]);
    assert_eq!(lab.lookup("web", "store"), [lab.address("db", "front")]);
    let addresses = lab.exec("web", &["ip", "addr", "show", "dev", "front0"]).ok();
    assert!(addresses.contains("10.9.0.77/24") && addresses.contains("169.254.7.7"), "{addresses}");
    let routes = lab.exec("web", &["ip", "route"]).ok();
    assert!(routes.contains("default via 10.9.0.1 dev front0"), "{routes}");
}

#[test]
fn api_17_networks_are_listed_shown_removed_and_pruned_as_docker_does() {
    let lab = lab();
    let id = lab.isle(&["network", "create", "--label", "a=b", "front"]).ok();
    assert_eq!(lab.isle(&["network", "ls", "-q", "--no-trunc", "-f", "name=front"]).ok(), id);
    assert_eq!(lab.isle(&["network", "ls", "-q", "-f", "name=front"]).ok(), id[..12]);
    let format = "{{.ID}}|{{.Name}}|{{.Driver}}|{{.Scope}}|{{.IPv4}}|{{.IPv6}}|{{.Internal}}|{{.Labels}}";
    let line = lab.isle(&["network", "ls", "-f", "name=front", "--format", format]).ok();
    assert_eq!(line, format!("{}|front|bridge|local|true|false|false|a=b", &id[..12]));
    let created = lab.isle(&["network", "ls", "-f", "name=front", "--format", "{{.CreatedAt}}"]).ok();
    assert!(created.starts_with("20"), "{created}");
    assert_eq!(lab.isle(&["network", "inspect", "-f", "{{.Name}} {{.Internal}}", "front"]).ok(), "front false");
    lab.isle(&["network", "inspect", "-v", "front"]).ok();
    assert_eq!(lab.isle(&["network", "rm", "front"]).ok(), "front");
    assert!(lab.isle(&["network", "rm", "front"]).refused().contains("network front not found"));
    assert_eq!(lab.isle(&["network", "rm", "-f", "front"]).code, 0);
    lab.isle(&["network", "create", "--label", "x", "one"]).ok();
    lab.isle(&["network", "create", "two"]).ok();
    assert_eq!(lab.isle(&["network", "prune", "-f", "--filter", "label=x"]).ok(), "Deleted Networks:\none");
    assert_eq!(lab.isle(&["network", "prune", "-f"]).ok(), "Deleted Networks:\ntwo");
}

#[test]
fn api_18_run_has_docker_s_network_flags() {
    let lab = lab();
    lab.isle(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "front"]).ok();
    lab.isle(&["network", "create", "--subnet", "10.8.0.0/24", "back"]).ok();
    let long = "name=front,ip=10.9.0.7,ip6=fd09::7,mac-address=02:00:00:00:00:07,alias=one,link-local-ip=169.254.0.7,\
                driver-opt=com.docker.network.endpoint.ifname=f0,gw-priority=1";
    lab.isle(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        long,
        "--network",
        "back",
        "-p",
        "8080:80",
        "-P",
        "--expose",
        "81",
        "--dns",
        "10.255.255.53",
        "--dns-option",
        "timeout:1",
        "--dns-search",
        "example.org",
        "--add-host",
        "there:10.0.0.1",
        "-h",
        "inner",
        "--domainname",
        "example.org",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "busybox",
        "sleep",
        "600",
    ])
    .ok();
    let inside = |command: &[&str]| lab.exec("web", command).ok();
    let addresses = inside(&["ip", "addr", "show", "dev", "f0"]);
    for wanted in ["10.9.0.7/24", "fd09::7/64", "02:00:00:00:00:07", "169.254.0.7"] {
        assert!(addresses.contains(wanted), "{wanted}: {addresses}");
    }
    let networks = lab.inspect("web")["NetworkSettings"]["Networks"].clone();
    assert!(networks["front"].is_object() && networks["back"].is_object(), "{networks}");
    let resolv = inside(&["cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("search example.org") && resolv.contains("options timeout:1"), "{resolv}");
    assert!(inside(&["cat", "/etc/hosts"]).contains("10.0.0.1\tthere"));
    assert_eq!(inside(&["hostname"]), "inner");
    assert_eq!(inside(&["cat", "/proc/sys/kernel/domainname"]), "example.org");
    assert_eq!(inside(&["cat", "/proc/sys/net/ipv4/ip_forward"]), "1");
    let ports = lab.inspect("web")["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports["80/tcp"][0]["HostPort"], "8080");
    assert!(ports["81/tcp"][0]["HostPort"].is_string(), "{ports}");
    // The short forms, and --uts.
    lab.isle(&[
        "run",
        "-d",
        "--name",
        "short",
        "--network",
        "back",
        "--network-alias",
        "two",
        "--ip",
        "10.8.0.9",
        "--link",
        "web:w",
        "--mac-address",
        "02:00:00:00:00:09",
        "--uts",
        "host",
        "busybox",
        "sleep",
        "600",
    ])
    .ok();
    assert_eq!(lab.address("short", "back"), "10.8.0.9");
    assert_eq!(lab.lookup("web", "two."), ["10.8.0.9"]);
    assert_eq!(lab.lookup("short", "w"), [lab.address("web", "back")]);
    assert!(lab.exec("short", &["ip", "link"]).ok().contains("02:00:00:00:00:09"));
}

#[test]
fn api_19_a_container_is_made_on_several_networks_from_1_44_on() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    let mut body = sleeper("front");
    body["Image"] = "busybox".into();
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": {}, "back": { "Aliases": ["x"] } } });
    let old = lab.post("/v1.43/containers/create?name=old", body.clone()).unwrap();
    refused(old, 400, "Container cannot be connected to network endpoints: back, front");
    assert_eq!(lab.post("/v1.44/containers/create?name=new", body).unwrap().status, 201);
    lab.ask("/containers/new/start", 204);
    assert_eq!(lab.exec("new", &["ls", "/sys/class/net"]).ok().split_whitespace().count(), 3);
}

#[test]
fn api_20_a_network_mode_is_a_network_or_a_word_and_ids_are_completed() {
    let lab = lab();
    let id = lab.network(json!({ "Name": "front" }));
    let owner = lab.run("owner", sleeper("front"));
    for (mode, network) in [
        ("", "bridge"),
        ("default", "bridge"),
        ("bridge", "bridge"),
        ("front", "front"),
        (&id, "front"),
        (&id[..8], "front"),
    ] {
        lab.run("cc", sleeper(mode));
        let networks = lab.inspect("cc")["NetworkSettings"]["Networks"].clone();
        let found = networks.as_object().unwrap().values().next().unwrap()["NetworkID"].clone();
        assert_eq!(found, shown(&lab, &format!("/networks/{network}"))["Id"], "{mode}");
        lab.ask("/containers/cc/kill", 204);
        lab.remove("cc");
    }
    for reference in ["owner", &owner, &owner[..10]] {
        lab.run("cc", sleeper(&format!("container:{reference}")));
        assert_eq!(lab.inspect("cc")["HostConfig"]["NetworkMode"], format!("container:{owner}"));
        assert_eq!(lab.exec("cc", &["hostname"]).ok(), owner[..12]);
        lab.ask("/containers/cc/kill", 204);
        lab.remove("cc");
    }
    lab.run("cc", sleeper("none"));
    assert_eq!(lab.exec("cc", &["ls", "/sys/class/net"]).ok(), "lo");
}

#[test]
fn api_22_an_endpoint_is_shown_with_what_was_asked_for_and_what_it_has() {
    let lab = lab();
    let network = lab.network(json!({
        "Name": "front", "EnableIPv6": true,
        "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }, { "Subnet": "fd09::/64" }] },
    }));
    let settings = json!({ "IPAMConfig": { "IPv4Address": "10.9.0.7" }, "Aliases": ["one"], "GwPriority": 3 });
    let id = lab.run("web", sleeper_with("front", settings));
    let endpoint = lab.inspect("web")["NetworkSettings"]["Networks"]["front"].clone();
    let expected = json!({
        "IPAMConfig": { "IPv4Address": "10.9.0.7" }, "Links": null, "Aliases": ["one"], "DriverOpts": null,
        "GwPriority": 3, "NetworkID": network, "Gateway": "10.9.0.1", "IPAddress": "10.9.0.7", "IPPrefixLen": 24,
        "IPv6Gateway": "fd09::1", "GlobalIPv6PrefixLen": 64, "DNSNames": ["web", "one", id[..12]],
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(endpoint[field], *value, "{field}");
    }
    assert!(endpoint["GlobalIPv6Address"].as_str().unwrap().starts_with("fd09::"));
    assert_eq!(endpoint["EndpointID"].as_str().unwrap().len(), 64);
    assert_eq!(endpoint["MacAddress"].as_str().unwrap().len(), 17);
    lab.ask("/containers/web/stop?t=0", 204);
    let stopped = lab.inspect("web")["NetworkSettings"]["Networks"]["front"].clone();
    assert_eq!((stopped["IPAddress"].as_str(), stopped["EndpointID"].as_str()), (Some(""), Some("")));
    assert_eq!(stopped["Aliases"], json!(["one"]));
}

#[test]
fn api_24_addresses_and_aliases_are_for_networks_that_allow_them() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "plan", "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }] } }));
    let create = |network: &str, settings: Value| {
        let mut body = sleeper_with(network, settings);
        body["Image"] = "busybox".into();
        lab.post("/containers/create", body).unwrap()
    };
    let ip = |address: &str| json!({ "IPAMConfig": { "IPv4Address": address } });
    refused(create("bridge", ip("172.17.0.9")), 400, "IP address is supported on user defined networks only");
    refused(
        create("bridge", json!({ "Aliases": ["x"] })),
        400,
        "network-scoped aliases are only supported for user-defined networks",
    );
    refused(create("plan", ip("10.1.0.9")), 400, "no configured subnet contains IP address 10.1.0.9");
    refused(create("front", ip("172.18.0.9")), 400, "only when connecting to networks with user configured subnets");
    assert_eq!(create("plan", ip("10.9.0.9")).status, 201);
}

#[test]
fn api_25_options_that_contradict_each_other_are_refused() {
    let lab = lab();
    lab.run("owner", sleeper("bridge"));
    let create = |body: Value| {
        let mut whole = json!({ "Image": "busybox", "Cmd": ["true"] });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        lab.post("/containers/create", whole).unwrap()
    };
    let shared = "container:owner";
    for (body, words) in [
        (json!({ "Hostname": "x", "HostConfig": { "NetworkMode": shared } }), "hostname and the network mode"),
        (
            json!({ "HostConfig": { "NetworkMode": "host", "Links": ["owner:o"] } }),
            "host type networking can't be used with links",
        ),
        (
            json!({ "HostConfig": { "NetworkMode": shared, "Links": ["owner:o"] } }),
            "container type network can't be used with links",
        ),
        (json!({ "HostConfig": { "NetworkMode": shared, "Dns": ["10.0.0.1"] } }), "dns and the network mode"),
        (
            json!({ "HostConfig": { "NetworkMode": shared, "ExtraHosts": ["a:10.0.0.1"] } }),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            json!({ "HostConfig": { "NetworkMode": shared, "PortBindings": { "80/tcp": [{}] } } }),
            "port publishing and the container type network mode",
        ),
        (
            json!({ "HostConfig": { "NetworkMode": shared, "PublishAllPorts": true } }),
            "port publishing and the container type network mode",
        ),
        (
            json!({ "ExposedPorts": { "80/tcp": {} }, "HostConfig": { "NetworkMode": shared } }),
            "port exposing and the container type network mode",
        ),
        (json!({ "Hostname": "x", "HostConfig": { "UTSMode": "host" } }), "hostname and the UTS mode"),
    ] {
        let answer = create(body.clone());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.message().contains(words), "{body}: {}", answer.message());
    }
}

#[test]
fn api_26_host_none_and_shared_networks_exclude_all_others() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("bridged", sleeper("bridge"));
    lab.run("hosted", sleeper("host"));
    lab.run("alone", sleeper("none"));
    lab.run("sharer", sleeper("container:bridged"));
    let connect = |network: &str, container: &str| {
        lab.post(&format!("/networks/{network}/connect"), json!({ "Container": container })).unwrap()
    };
    refused(
        connect("host", "bridged"),
        400,
        "cannot connect container to host network - container must be created in host network mode",
    );
    let shared =
        "container sharing network namespace with another container or host cannot be connected to any other network";
    let none = "container cannot be connected to multiple networks with one of the networks in private (none) mode";
    for (network, container, words) in [
        ("front", "hosted", shared),
        ("none", "hosted", shared),
        ("front", "sharer", shared),
        ("front", "alone", none),
        ("none", "bridged", none),
    ] {
        refused(connect(network, container), 400, words);
    }
    let disconnect = lab.post("/networks/host/disconnect", json!({ "Container": "hosted" })).unwrap();
    refused(disconnect, 400, "cannot disconnect container from host network");
}

#[test]
fn api_12_a_container_that_is_taken_off_none_may_be_put_on_any_network() {
    let mut lab = lab();
    lab.network(json!({ "Name": "front" }));
    lab.run("peer", sleeper("front"));
    lab.run("runs", sleeper("none"));
    lab.create("made", sleeper("none"));
    let tell = |lab: &Lab, what: &str, network: &str, container: &str| {
        lab.tell(&format!("/networks/{network}/{what}"), json!({ "Container": container }), 200);
    };
    for name in ["runs", "made"] {
        tell(&lab, "disconnect", "none", name);
        tell(&lab, "connect", "front", name);
    }
    lab.ask("/containers/made/start", 204);
    // It stays so, by the next daemon and in its next run.
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    for again in [false, true] {
        for name in ["runs", "made"] {
            if again {
                lab.ask(&format!("/containers/{name}/restart?t=0"), 204);
            }
            let shown = lab.inspect(name);
            let networks: Vec<&String> = shown["NetworkSettings"]["Networks"].as_object().unwrap().keys().collect();
            assert_eq!(networks, ["front"], "{name}");
            assert_eq!(lab.lookup(name, "peer"), [lab.address("peer", "front")], "{name}");
            assert_eq!(lab.lookup("peer", name), [lab.address(name, "front")], "{name}");
            lab.exec(name, &["ping", "-c1", "-W2", "peer"]).ok();
        }
    }
    tell(&lab, "disconnect", "front", "runs");
    tell(&lab, "connect", "bridge", "runs");
    assert!(lab.exec("runs", &["ip", "route"]).ok().contains("default via "));
    let refused = lab.post("/networks/none/connect", json!({ "Container": "runs" })).unwrap();
    assert_eq!(refused.status, 400);
    tell(&lab, "disconnect", "bridge", "runs");
    tell(&lab, "connect", "none", "runs");
}

#[test]
fn api_27_network_settings_have_the_default_networks_fields_for_older_clients() {
    let lab = lab();
    lab.run("plain", sleeper("bridge"));
    lab.network(json!({ "Name": "front" }));
    lab.run("web", sleeper("front"));
    let settings = |version: &str, name: &str| {
        shown(&lab, &format!("{version}/containers/{name}/json"))["NetworkSettings"].clone()
    };
    let plain = settings("/v1.51", "plain");
    let endpoint = &plain["Networks"]["bridge"];
    for field in ["EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "MacAddress"] {
        assert_eq!(plain[field], endpoint[field], "{field}");
    }
    let legacy = [
        "Bridge",
        "HairpinMode",
        "LinkLocalIPv6Address",
        "LinkLocalIPv6PrefixLen",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ];
    let web = settings("/v1.41", "web");
    for field in legacy {
        assert!(web.get(field).is_some(), "{field}");
    }
    assert_eq!(web["IPAddress"], "", "of the default network alone");
    for field in ["SandboxID", "SandboxKey"] {
        assert!(!web[field].as_str().unwrap().is_empty(), "{field}");
    }
    // Tools enter the namespace by it.
    let key = web["SandboxKey"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&key).exists(), "{key}");
    assert!(web["Ports"].is_object());
}

#[test]
fn api_28_aliases_are_shown_as_given_and_older_clients_find_the_short_id() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let mut body = sleeper_with("front", json!({ "Aliases": ["one", "two", "one"] }));
    body["Hostname"] = "inner".into();
    let id = lab.run("web", body);
    let of = |version: &str| {
        shown(&lab, &format!("{version}/containers/web/json"))["NetworkSettings"]["Networks"]["front"].clone()
    };
    assert_eq!(of("/v1.45")["Aliases"], json!(["one", "two", "one"]));
    assert_eq!(of("/v1.44")["Aliases"], json!(["one", "two", "one", id[..12]]));
    assert_eq!(of("/v1.45")["DNSNames"], json!(["web", "one", "two", id[..12], "inner"]));
}

#[test]
fn api_29_lists_show_each_binding_and_find_containers_by_network_and_port() {
    let lab = lab();
    lab.network(json!({ "Name": "front" }));
    let mut body = publisher("front", &[("80/tcp", "", "8080"), ("53/udp", "127.0.0.1", "5353")]);
    body["ExposedPorts"] = json!({ "90/tcp": {} });
    let id = lab.run("web", body);
    lab.run("other", sleeper("bridge"));
    let found = |key: &str, value: &str| -> Vec<String> {
        let list = shown(&lab, &format!("/containers/json?{}", filters(&json!({ key: [value] }))));
        list.as_array().unwrap().iter().map(|c| c["Id"].as_str().unwrap().to_owned()).collect()
    };
    let list = shown(&lab, "/containers/json");
    let web = list.as_array().unwrap().iter().find(|c| c["Id"] == id.as_str()).unwrap();
    let mut ports: Vec<String> = web["Ports"].as_array().unwrap().iter().map(Value::to_string).collect();
    ports.sort();
    let mut expected: Vec<String> = [
        json!({ "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }),
        json!({ "IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }),
        json!({ "IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 5353, "Type": "udp" }),
        json!({ "PrivatePort": 90, "Type": "tcp" }),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    expected.sort();
    assert_eq!(ports, expected);
    for (key, value) in [("network", "front"), ("publish", "8080"), ("publish", "5353/udp"), ("expose", "90/tcp")] {
        assert_eq!(found(key, value), [id.as_str()], "{key}={value}");
    }
    assert_eq!(found("publish", "9999"), [""; 0]);
}

#[test]
fn api_30_the_port_command_reads_what_is_published_now() {
    let lab = lab();
    let mut body = publisher("bridge", &[("80/tcp", "127.0.0.1", "8080"), ("53/udp", "127.0.0.1", "5353")]);
    body["ExposedPorts"] = json!({ "90/tcp": {} });
    lab.run("web", body);
    assert_eq!(lab.isle(&["port", "web"]).ok(), "53/udp -> 127.0.0.1:5353\n80/tcp -> 127.0.0.1:8080");
    assert_eq!(lab.isle(&["port", "web", "80"]).ok(), "127.0.0.1:8080");
    assert_eq!(lab.isle(&["port", "web", "53/udp"]).ok(), "127.0.0.1:5353");
    assert!(lab.isle(&["port", "web", "90"]).refused().contains("No public port '90' published for web"));
    assert_eq!(lab.inspect("web")["NetworkSettings"]["Ports"]["90/tcp"], Value::Null);
    lab.ask("/containers/web/stop?t=0", 204);
    assert_eq!(lab.isle(&["port", "web"]).ok(), "");
    assert_eq!(lab.inspect("web")["NetworkSettings"]["Ports"], json!({}));
}

#[test]
fn api_31_a_new_name_is_known_at_once_on_all_networks_and_the_old_one_is_not() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    lab.run("old", sleeper("front"));
    lab.tell("/networks/back/connect", json!({ "Container": "old" }), 200);
    lab.run("ff", sleeper("front"));
    lab.run("bb", sleeper("back"));
    lab.run("taken", sleeper("front"));
    lab.ask("/containers/old/rename?name=new", 204);
    for (client, network) in [("ff", "front"), ("bb", "back")] {
        assert_eq!(lab.lookup(client, "new"), [lab.address("new", network)]);
        assert_eq!(lab.lookup(client, "old"), [""; 0]);
    }
    // One that fails changes nothing.
    lab.ask("/containers/new/rename?name=taken", 409);
    lab.ask("/debug/faults?at=rename", 204);
    let failed = lab.post("/containers/new/rename?name=newer", Value::Null).unwrap();
    assert_eq!(failed.status, 500, "{}", failed.text());
    for (client, network) in [("ff", "front"), ("bb", "back")] {
        assert_eq!(lab.lookup(client, "new"), [lab.address("new", network)]);
        assert_eq!(lab.lookup(client, "newer"), [""; 0]);
    }
}

#[test]
fn api_35_info_says_how_networks_are_made() {
    let lab = lab();
    let info = shown(&lab, "/v1.49/info");
    assert_eq!(info["FirewallBackend"]["Driver"], "nftables");
    assert_eq!((info["IPv4Forwarding"].clone(), info["LiveRestoreEnabled"].clone()), (true.into(), true.into()));
    let drivers: Vec<&str> = info["Plugins"]["Network"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for driver in ["bridge", "host", "null"] {
        assert!(drivers.contains(&driver), "{drivers:?}");
    }
    let pools = info["DefaultAddressPools"].as_array().unwrap();
    assert!(pools.iter().any(|p| p["Base"] == "172.20.0.0/14" && p["Size"] == 22), "{pools:?}");
    assert!(shown(&lab, "/v1.48/info").get("BridgeNfIptables").is_some());
    assert!(shown(&lab, "/v1.50/info").get("BridgeNfIptables").is_none(), "left out from 1.50 on");
}

#[test]
fn api_02_networks_are_listed_by_what_the_filters_say() {
    let lab = lab();
    let one = lab.network(json!({ "Name": "web-one", "Labels": { "tier": "1", "own": "" } }));
    lab.network(json!({ "Name": "web-two", "Labels": { "tier": "2" } }));
    lab.network(json!({ "Name": "template", "ConfigOnly": true }));
    lab.run("member", sleeper("web-one"));
    lab.create("stopped", sleeper("web-two"));
    let listed = |wanted: Value| -> Vec<String> {
        let all = shown(&lab, &format!("/networks?{}", filters(&wanted)));
        all.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap().to_owned()).collect()
    };
    let check = |wanted: Value, expected: &[&str]| assert_eq!(listed(wanted.clone()), expected, "{wanted}");
    check(json!({ "name": ["web"] }), &["web-one", "web-two"]);
    check(json!({ "name": ["b-one", "host"] }), &["host", "web-one"]);
    check(json!({ "id": [&one[..5]] }), &["web-one"]);
    check(json!({ "id": [&one[20..40]] }), &["web-one"]);
    check(json!({ "label": ["tier"] }), &["web-one", "web-two"]);
    check(json!({ "label": ["tier=2"] }), &["web-two"]);
    check(json!({ "label": ["tier", "own"] }), &["web-one"]);
    check(json!({ "driver": ["null"] }), &["none", "template"]);
    check(json!({ "driver": ["bridge"], "type": ["custom"] }), &["web-one", "web-two"]);
    check(json!({ "type": ["builtin"] }), &["bridge", "host", "none"]);
    check(json!({ "scope": ["swarm"] }), &[]);
    check(json!({ "scope": ["local"], "name": ["two"] }), &["web-two"]);
    // One that only a stopped container is on is in use, too: `prune` goes by the same.
    check(json!({ "dangling": ["true"] }), &["template"]);
    check(json!({ "dangling": ["false"] }), &["bridge", "host", "none", "web-one", "web-two"]);
    // As clients before 1.22 wrote it.
    check(json!({ "name": { "two": true } }), &["web-two"]);
    for (wanted, words) in [
        (json!({ "nosuch": ["x"] }), "invalid filter 'nosuch'"),
        (json!({ "dangling": ["maybe"] }), "invalid filter 'dangling=maybe'"),
        (json!({ "type": ["mine"] }), "invalid filter: 'type'='mine'"),
    ] {
        refused(lab.get(&format!("/networks?{}", filters(&wanted))).unwrap(), 400, words);
    }
    // The same list by the path that some clients build, and an inspection's parameter is a truth value.
    assert_eq!(shown(&lab, "/networks/"), shown(&lab, "/networks"));
    assert_eq!(shown(&lab, "/v1.44/networks/?filters=%7B%22name%22%3A%5B%22two%22%5D%7D").as_array().unwrap().len(), 1);
    let verbose = |value: &str| lab.get(&format!("/networks/web-one?verbose={value}")).unwrap();
    assert_eq!((verbose("true").status, verbose("0").status, verbose("").status), (200, 200, 200));
    refused(verbose("x"), 400, "invalid value for verbose: x: strconv.ParseBool: parsing \"x\": invalid syntax");
}

#[test]
fn api_29_filters_of_ports_are_ports_or_ranges_of_them() {
    let lab = lab();
    let mut body = publisher("bridge", &[("80/tcp", "", "8080"), ("53/udp", "", "5353")]);
    body["ExposedPorts"] = json!({ "80/tcp": {} });
    lab.run("web", body);
    lab.run("other", sleeper("bridge"));
    let listed = |filter: &str, value: &str| {
        lab.get(&format!("/containers/json?{}", filters(&json!({ filter: [value] })))).unwrap()
    };
    for (filter, value, found) in [
        ("publish", "8080", 1),
        ("publish", "8000-8100/tcp", 1),
        ("publish", "5353/udp", 1),
        ("publish", "5353", 0),
        ("publish", "80", 0),
        ("expose", "80/tcp", 1),
        ("expose", "70-90", 1),
        ("expose", "8080", 0),
    ] {
        let answer = listed(filter, value);
        assert_eq!(answer.json().as_array().map(Vec::len), Some(found), "{filter}={value}: {}", answer.text());
    }
    for filter in ["publish", "expose"] {
        let words = format!("filter for '{filter}' should not contain ':': 8080:80");
        refused(listed(filter, "8080:80"), 400, &words);
        for value in ["many", "80/nosuch", "90-80", "70000"] {
            refused(listed(filter, value), 400, &format!("error while looking up for {filter} {value}: "));
        }
    }
}

#[test]
fn api_10_all_that_is_wrong_with_the_subnets_of_a_network_is_said_at_once() {
    let lab = lab();
    let create = |config: Value| {
        let body = json!({ "Name": "x", "EnableIPv6": true, "IPAM": { "Config": config } });
        lab.post("/networks/create", body).unwrap()
    };
    let first = json!({
        "Subnet": "10.10.10.0/24", "IPRange": "10.0.0.1/8", "Gateway": "fd00::1",
        "AuxiliaryAddresses": { "printer": "192.168.0.1", "router": "nonsense" },
    });
    let second = json!({ "Subnet": "fd00:9::1/64", "IPRange": "fd00:8::/80" });
    let answer = create(json!([first, second, { "Subnet": "nonsense" }]));
    let expected = [
        "invalid network config:",
        "* invalid ip-range 10.0.0.1/8: CIDR block is bigger than its parent subnet 10.10.10.0/24",
        "* invalid ip-range 10.0.0.1/8: it should be 10.0.0.0/8",
        "* invalid gateway fd00::1: parent subnet is an IPv4 block",
        "* invalid auxiliary address printer: parent subnet 10.10.10.0/24 doesn't contain this address",
        "* invalid auxiliary address router: invalid address",
        "* invalid subnet fd00:9::1/64: it should be fd00:9::/64",
        "* invalid ip-range fd00:8::/80: parent subnet fd00:9::1/64 doesn't contain ip-range",
        "* invalid subnet nonsense: invalid CIDR block notation",
    ];
    assert_eq!((answer.status, answer.message()), (400, expected.join("\n")));
    assert_eq!(lab.get("/networks/x").unwrap().status, 404, "nothing is made");
    // What is an address, and cannot be a network's.
    let answer = create(json!([{ "Subnet": "127.3.0.0/24" }, { "Subnet": "ff05::/64" }]));
    let words = ["127.3.0.0/24 is not for networks of containers", "ff05::/64 is not for networks of containers"];
    words
        .iter()
        .for_each(|w| refused(create(json!([{ "Subnet": "127.3.0.0/24" }, { "Subnet": "ff05::/64" }])), 400, w));
    assert!(answer.message().starts_with("invalid network config:\n* "), "{}", answer.message());
}

#[test]
fn api_21_what_is_echoed_of_an_inspection_is_accepted_and_counts_for_nothing() {
    let lab = lab();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name, "IPAM": { "Config": [{ "Subnet": if name == "front" { "10.9.0.0/24" } else { "10.8.0.0/24" } }] } }));
    }
    let all = json!({
        "IPAMConfig": { "IPv4Address": "10.9.0.77", "LinkLocalIPs": ["169.254.7.7"] }, "Links": [], "Aliases": ["www"],
        "MacAddress": "02:00:00:00:00:77", "DriverOpts": { "com.docker.network.endpoint.ifname": "lan0" }, "GwPriority": 7,
    });
    lab.run("first", sleeper_with("front", all));
    let shown_of = |name: &str| lab.inspect(name)["NetworkSettings"]["Networks"]["front"].clone();
    let first = shown_of("first");
    assert_eq!((&first["IPAddress"], &first["MacAddress"]), (&json!("10.9.0.77"), &json!("02:00:00:00:00:77")));
    assert_eq!(lab.exec("first", &["cat", "/sys/class/net/lan0/address"]).ok(), "02:00:00:00:00:77");
    // As tools do that make a container anew from what they were shown, whatever has become of it.
    lab.run("plain", sleeper("front"));
    let mut echoed = shown_of("plain");
    for (key, value) in [
        ("IPAddress", json!("10.9.0.200")),
        ("Gateway", json!("10.9.0.201")),
        ("EndpointID", json!("0".repeat(64))),
        ("NetworkID", json!("1".repeat(64))),
        ("IPPrefixLen", json!(8)),
        ("GlobalIPv6Address", json!("fd00::9")),
        ("DNSNames", json!(["stranger"])),
        ("MacAddress", json!("")),
    ] {
        assert!(echoed.get(key).is_some(), "an inspection has no {key}: {echoed}");
        echoed[key] = value;
    }
    lab.run("made-anew", sleeper_with("front", echoed.clone()));
    let made = shown_of("made-anew");
    assert_ne!(made["IPAddress"], "10.9.0.200");
    let (network, gateway) = (shown(&lab, "/networks/front")["Id"].clone(), json!("10.9.0.1"));
    assert_eq!((&made["Gateway"], &made["NetworkID"], &made["IPPrefixLen"]), (&gateway, &network, &json!(24)));
    assert_eq!(made["GlobalIPv6Address"], "");
    assert_eq!(lab.lookup("plain", "stranger"), [""; 0]);
    assert_eq!(lab.lookup("plain", "made-anew"), [lab.address("made-anew", "front")]);
    // The same when it is connected.
    lab.tell("/networks/back/connect", json!({ "Container": "plain", "EndpointConfig": echoed }), 200);
    assert_eq!(lab.address("plain", "back").rsplit_once('.').unwrap().0, "10.8.0");
}
