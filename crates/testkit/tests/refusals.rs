//! Bad input: what is asked, and Docker's status and words for it. After each refusal the world is as before.

use serde_json::{Value, json};
use testkit::{Lab, http};

/// A request, the status, and what the message contains.
type Case = (&'static str, &'static str, Value, u16, &'static str);

/// All that a client can see of the world.
fn seen(lab: &Lab) -> String {
    let mut all = String::new();
    for path in ["/containers/json?all=1", "/networks", "/volumes", "/images/json"] {
        let mut shown = lab.get(path).unwrap().json();
        // "Up 2 seconds" is another text a second later.
        for container in shown.as_array_mut().into_iter().flatten() {
            if let Some(object) = container.as_object_mut() {
                object.remove("Status");
            }
        }
        all.push_str(&format!("{path}: {shown:#}\n"));
    }
    for name in ["runs", "made", "host", "paused"] {
        all.push_str(&format!("{:#}\n", lab.inspect(name)));
    }
    let links = lab.on_host(std::process::Command::new("ip").args(["-br", "link"])).ok();
    let rules = lab.on_host(std::process::Command::new("nft").args(["list", "ruleset"])).ok();
    format!("{all}{links}\n{rules}")
}

fn lab() -> Lab {
    let lab = testkit::lab();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "plan", "IPAM": { "Config": [{ "Subnet": "10.201.0.0/24" }] } }));
    let mut runs = json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front", "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } } });
    lab.run("runs", runs.clone());
    runs["HostConfig"]["PortBindings"] = Value::Null;
    lab.run("paused", runs);
    lab.ask("/containers/paused/pause", 204);
    lab.create("made", json!({ "Cmd": ["true"] }));
    lab.run("host", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "host" } }));
    lab.tell("/volumes/create", json!({ "Name": "vol" }), 201);
    lab
}

fn check(cases: &[Case]) {
    let lab = lab();
    let before = seen(&lab);
    for (method, path, body, status, words) in cases {
        let bytes = match body {
            Value::Null => Vec::new(),
            // A text is sent as it is.
            Value::String(text) => text.clone().into_bytes(),
            body => body.to_string().into_bytes(),
        };
        let response = http::request(&lab.socket(), method, path, &bytes).unwrap();
        let what = format!("{method} {path} {body}");
        assert_eq!(response.status, *status, "{what}: {}", response.text());
        if *status == 304 {
            assert!(response.body.is_empty(), "{what}");
        } else {
            assert!(response.message().contains(words), "{what}: {}", response.message());
        }
        let after = seen(&lab);
        if before != after {
            let differs = before.lines().zip(after.lines()).find(|(a, b)| a != b);
            panic!("{what} has changed the world: {differs:?}");
        }
    }
}

/// A container that would be made but for `more`.
fn with(more: Value) -> Value {
    let mut body = json!({ "Image": "busybox", "Cmd": ["true"] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn host(config: Value) -> Value {
    with(json!({ "HostConfig": config }))
}

fn on(network: &str, settings: Value) -> Value {
    let endpoints: serde_json::Map<_, _> = [(network.to_owned(), settings)].into_iter().collect();
    with(json!({ "HostConfig": { "NetworkMode": network }, "NetworkingConfig": { "EndpointsConfig": endpoints } }))
}

#[test]
fn unknown_things_are_404_in_dockers_words() {
    check(&[
        ("GET", "/containers/nosuch/json", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/start", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/stop", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/kill", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/restart", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/pause", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/wait", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/rename?name=new", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/resize?h=1&w=1", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/attach?stream=1", Value::Null, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/exec", json!({ "Cmd": ["true"] }), 404, "No such container: nosuch"),
        ("GET", "/containers/nosuch/logs?stdout=1", Value::Null, 404, "No such container: nosuch"),
        ("DELETE", "/containers/nosuch", Value::Null, 404, "No such container: nosuch"),
        ("DELETE", "/containers/nosuch?force=1", Value::Null, 404, "No such container: nosuch"),
        ("GET", "/exec/nosuch/json", Value::Null, 404, "No such exec instance: nosuch"),
        ("POST", "/exec/nosuch/start", json!({}), 404, "No such exec instance: nosuch"),
        ("GET", "/networks/nosuch", Value::Null, 404, "network nosuch not found"),
        ("DELETE", "/networks/nosuch", Value::Null, 404, "network nosuch not found"),
        ("POST", "/networks/nosuch/connect", json!({ "Container": "runs" }), 404, "network nosuch not found"),
        ("POST", "/networks/plan/connect", json!({ "Container": "nosuch" }), 404, "No such container: nosuch"),
        ("POST", "/networks/nosuch/disconnect", json!({ "Container": "runs" }), 404, "network nosuch not found"),
        ("POST", "/networks/front/disconnect", json!({ "Container": "nosuch" }), 404, "No such container: nosuch"),
        ("GET", "/volumes/nosuch", Value::Null, 404, "get nosuch: no such volume"),
        ("DELETE", "/volumes/nosuch", Value::Null, 404, "get nosuch: no such volume"),
        ("GET", "/images/nosuch/json", Value::Null, 404, "No such image: nosuch"),
        ("DELETE", "/images/nosuch", Value::Null, 404, "No such image: nosuch"),
        (
            "POST",
            "/containers/create",
            json!({ "Image": "nosuch", "Cmd": ["true"] }),
            404,
            "No such image: nosuch:latest",
        ),
        ("POST", "/volumes/create", json!({ "Driver": "nosuch" }), 404, "plugin \"nosuch\" not found"),
        (
            "POST",
            "/containers/create",
            host(json!({ "VolumeDriver": "nosuch", "Binds": ["v:/v"] })),
            404,
            "error looking up volume plugin nosuch: plugin \"nosuch\" not found",
        ),
        ("POST", "/networks/create", json!({ "Name": "x1", "Driver": "nosuch" }), 404, "plugin \"nosuch\" not found"),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "x1", "IPAM": { "Driver": "nosuch" } }),
            404,
            "plugin \"nosuch\" not found",
        ),
        ("GET", "/nosuch", Value::Null, 404, "page not found"),
        ("GET", "/swarm", Value::Null, 503, "This node is not a swarm manager."),
        ("POST", "/swarm/leave", Value::Null, 503, "This node is not part of a swarm"),
        ("POST", "/swarm/init", json!({}), 503, "Isle has no swarm"),
        ("GET", "/services/x/logs", Value::Null, 503, "This node is not a swarm manager."),
        ("POST", "/secrets/create", json!({}), 503, "This node is not a swarm manager."),
        ("DELETE", "/nodes/x", Value::Null, 503, "This node is not a swarm manager."),
        ("GET", "/plugins/a/b/json", Value::Null, 404, "plugin \"a/b\" not found"),
        ("POST", "/plugins/pull?remote=x", json!([]), 501, "Isle runs no plugins"),
    ]);
}

#[test]
fn what_the_state_does_not_allow_is_refused() {
    check(&[
        ("POST", "/containers/runs/start", Value::Null, 304, ""),
        ("POST", "/containers/made/stop", Value::Null, 304, ""),
        ("POST", "/containers/made/kill", Value::Null, 409, "cannot kill container: made: container "),
        ("POST", "/containers/made/pause", Value::Null, 409, "is not running"),
        ("POST", "/containers/made/unpause", Value::Null, 409, "is not running"),
        ("POST", "/containers/runs/unpause", Value::Null, 409, "is not paused"),
        ("POST", "/containers/paused/pause", Value::Null, 409, "is already paused"),
        ("POST", "/containers/paused/start", Value::Null, 409, "cannot start a paused container, try unpause instead"),
        (
            "POST",
            "/containers/paused/exec",
            json!({ "Cmd": ["true"] }),
            409,
            "is paused, unpause the container before exec",
        ),
        ("POST", "/containers/made/exec", json!({ "Cmd": ["true"] }), 409, "is not running"),
        ("POST", "/containers/made/resize?h=1&w=1", Value::Null, 409, "is not running"),
        (
            "DELETE",
            "/containers/runs",
            Value::Null,
            409,
            "cannot remove container \"/runs\": container is running: stop the container before removing or force remove",
        ),
        (
            "DELETE",
            "/containers/paused",
            Value::Null,
            409,
            "container is paused: unpause and then stop the container before removing or force remove",
        ),
        (
            "POST",
            "/containers/create?name=runs",
            with(json!({})),
            409,
            "Conflict. The container name \"/runs\" is already in use by container ",
        ),
        (
            "POST",
            "/containers/made/rename?name=runs",
            Value::Null,
            409,
            "Conflict. The container name \"/runs\" is already in use by container ",
        ),
        (
            "POST",
            "/containers/made/rename?name=made",
            Value::Null,
            400,
            "Renaming a container with the same name as its current name",
        ),
        ("POST", "/networks/create", json!({ "Name": "front" }), 409, "network with name front already exists"),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "front", "CheckDuplicate": false }),
            409,
            "network with name front already exists",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "x1", "IPAM": { "Config": [{ "Subnet": "10.201.0.0/16" }] } }),
            403,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "host" }),
            403,
            "operation is not permitted on predefined host network",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "bridge" }),
            403,
            "operation is not permitted on predefined bridge network",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "none" }),
            403,
            "operation is not permitted on predefined none network",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "default" }),
            403,
            "operation is not permitted on predefined default network",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "x1", "Driver": "host" }),
            403,
            "only one instance of \"host\" network is allowed",
        ),
        ("DELETE", "/networks/bridge", Value::Null, 403, "bridge is a pre-defined network and cannot be removed"),
        ("DELETE", "/networks/host", Value::Null, 403, "host is a pre-defined network and cannot be removed"),
        ("DELETE", "/networks/none", Value::Null, 403, "none is a pre-defined network and cannot be removed"),
        (
            "DELETE",
            "/networks/front",
            Value::Null,
            403,
            "error while removing network: network front has active endpoints (name:\"",
        ),
        (
            "POST",
            "/networks/front/connect",
            json!({ "Container": "runs" }),
            403,
            "endpoint with name runs already exists in network front",
        ),
        (
            "POST",
            "/networks/host/connect",
            json!({ "Container": "runs" }),
            400,
            "cannot connect container to host network - container must be created in host network mode",
        ),
        (
            "POST",
            "/networks/front/connect",
            json!({ "Container": "host" }),
            400,
            "container or host cannot be connected",
        ),
        (
            "POST",
            "/networks/host/disconnect",
            json!({ "Container": "host" }),
            400,
            "cannot disconnect container from host network - container must be created in host network mode",
        ),
        ("POST", "/networks/plan/disconnect", json!({ "Container": "runs" }), 403, "is not connected to network plan"),
        ("DELETE", "/images/busybox", Value::Null, 409, "busybox"),
    ]);
}

#[test]
fn api_10_malformed_networks_are_refused_with_all_reasons() {
    let pool = |config: Value| json!({ "Name": "x1", "IPAM": { "Config": [config] } });
    check(&[
        ("POST", "/networks/create", json!({}), 400, "name"),
        ("POST", "/networks/create", json!({ "Name": "" }), 400, "name"),
        (
            "POST",
            "/networks/create",
            pool(json!({ "Subnet": "10.201.0.300/24" })),
            400,
            "invalid network config:\ninvalid subnet 10.201.0.300/24: invalid CIDR block notation",
        ),
        (
            "POST",
            "/networks/create",
            pool(json!({ "Subnet": "10.9.0.5/24" })),
            400,
            "invalid network config:\ninvalid subnet 10.9.0.5/24: it should be 10.9.0.0/24",
        ),
        ("POST", "/networks/create", pool(json!({ "Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1" })), 400, "10.8.0.1"),
        (
            "POST",
            "/networks/create",
            pool(json!({ "Subnet": "10.9.0.0/24", "IPRange": "10.8.0.0/25" })),
            400,
            "10.8.0.0/25",
        ),
        (
            "POST",
            "/networks/create",
            pool(json!({ "Subnet": "10.9.0.0/24", "IPRange": "10.0.0.0/8" })),
            400,
            "10.0.0.0/8",
        ),
        (
            "POST",
            "/networks/create",
            pool(json!({ "Subnet": "10.9.0.0/24", "AuxiliaryAddresses": { "a": "fd00::1" } })),
            400,
            "invalid auxiliary address a: parent subnet is an IPv4 block",
        ),
        ("POST", "/networks/create", pool(json!({ "Subnet": "10.9.0.5/24", "Gateway": "nonsense" })), 400, "nonsense"),
        ("POST", "/networks/create", json!({ "Name": "x1", "EnableIPv4": false }), 400, "IPv4 or IPv6 must be enabled"),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "x1", "Options": { "com.docker.network.bridge.name": "much-too-long-a-name" } }),
            400,
            "much-too-long-a-name",
        ),
        (
            "POST",
            "/networks/create",
            json!({ "Name": "x1", "Options": { "com.docker.network.driver.mtu": "many" } }),
            400,
            "many",
        ),
        ("POST", "/networks/create", json!({ "Name": "x1", "Ingress": true }), 400, "swarm"),
        ("POST", "/networks/create", json!({ "Name": "x1", "Scope": "swarm" }), 400, "scope"),
        ("POST", "/networks/create", "{".into(), 400, "JSON"),
        ("POST", "/networks/create", json!({ "Name": ["x1"] }), 400, "JSON"),
        ("POST", "/networks/create", json!([]), 400, "JSON"),
        (
            "POST",
            "/networks/plan/connect",
            json!({ "Container": "runs", "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.9.9.9" } } }),
            400,
            "no configured subnet contains IP address 10.9.9.9",
        ),
        (
            "POST",
            "/networks/plan/connect",
            json!({ "Container": "runs", "EndpointConfig": { "IPAMConfig": { "IPv4Address": "nonsense" } } }),
            400,
            "invalid IPv4 address: nonsense",
        ),
        (
            "POST",
            "/networks/plan/connect",
            json!({ "Container": "runs", "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.201.0.1" } } }),
            403,
            "Address already in use",
        ),
        (
            "POST",
            "/networks/plan/connect",
            json!({ "Container": "runs", "EndpointConfig": { "MacAddress": "nonsense" } }),
            400,
            "nonsense",
        ),
        ("POST", "/networks/plan/connect", json!({ "EndpointConfig": {} }), 404, "No such container"),
        ("GET", "/networks?filters=nonsense", Value::Null, 400, "filters"),
        ("GET", "/networks?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", Value::Null, 400, "invalid filter 'nosuch'"),
        ("GET", "/networks?filters=%7B%22type%22%3A%5B%22x%22%5D%7D", Value::Null, 400, "invalid filter: 'type'='x'"),
        (
            "GET",
            "/networks?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D",
            Value::Null,
            400,
            "invalid filter 'dangling=x'",
        ),
        ("POST", "/networks/prune?filters=%7B%22until%22%3A%5B%22soon%22%5D%7D", Value::Null, 400, "soon"),
    ]);
}

#[test]
fn api_23_containers_are_checked_whole_when_they_are_created() {
    check(&[
        (
            "POST",
            "/containers/create?name=a",
            with(json!({})),
            400,
            "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        ("POST", "/containers/create?name=-x", with(json!({})), 400, "Invalid container name (-x)"),
        ("POST", "/containers/create", "nonsense".into(), 400, "JSON"),
        ("POST", "/containers/create", json!({ "Image": "" }), 400, "image"),
        ("POST", "/containers/create", with(json!({ "Cmd": 7 })), 400, "JSON"),
        ("POST", "/containers/create", with(json!({ "Cmd": [], "Entrypoint": [""] })), 400, "no command specified"),
        (
            "POST",
            "/containers/create",
            on("plan", json!({ "IPAMConfig": { "IPv4Address": "10.1.1.1" } })),
            400,
            "invalid config for network plan: invalid endpoint settings:\nno configured subnet contains IP address 10.1.1.1",
        ),
        (
            "POST",
            "/containers/create",
            on("front", json!({ "IPAMConfig": { "IPv4Address": "10.1.1.1" } })),
            400,
            "invalid config for network front: invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (
            "POST",
            "/containers/create",
            on("bridge", json!({ "IPAMConfig": { "IPv4Address": "172.17.0.99" } })),
            400,
            "invalid config for network bridge: invalid endpoint settings:\n* user specified IP address is supported on user defined networks only\n* user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (
            "POST",
            "/containers/create",
            on("bridge", json!({ "Aliases": ["x"] })),
            400,
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            "POST",
            "/containers/create",
            on("front", json!({ "Aliases": (0..129).map(|n| format!("a{n}")).collect::<Vec<_>>() })),
            400,
            "too many aliases: 129 were given, at most 128 are allowed",
        ),
        (
            "POST",
            "/networks/front/connect",
            json!({ "Container": "made", "EndpointConfig": { "Aliases": ["x".repeat(200_000)] } }),
            400,
            "200000 bytes are more than the 253 of a domain name",
        ),
        (
            "POST",
            "/containers/create",
            with(json!({ "Hostname": "h".repeat(65) })),
            400,
            "invalid hostname: 65 bytes are more than the kernel's 64",
        ),
        ("POST", "/networks/create", json!({ "Name": "n".repeat(254) }), 400, "invalid network name: 254 bytes"),
        (
            "POST",
            "/containers/create",
            on("plan", json!({ "IPAMConfig": { "IPv4Address": "10.201.0.1" } })),
            403,
            "Address already in use",
        ),
        // What the first network has given is given back when the second refuses.
        (
            "POST",
            "/containers/create",
            with(
                json!({ "HostConfig": { "NetworkMode": "plan" }, "NetworkingConfig": { "EndpointsConfig": { "plan": { "IPAMConfig": { "IPv4Address": "10.201.0.50" } }, "front": { "MacAddress": "nonsense" } } } }),
            ),
            400,
            "nonsense",
        ),
        (
            "POST",
            "/containers/create",
            with(
                json!({ "HostConfig": { "NetworkMode": "plan" }, "NetworkingConfig": { "EndpointsConfig": { "plan": { "IPAMConfig": { "IPv4Address": "10.201.0.50" } }, "front": { "MacAddress": "nonsense" } } } }),
            ),
            400,
            "nonsense",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NetworkMode": "container:runs", "PortBindings": { "80/tcp": [{}] } })),
            400,
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "POST",
            "/containers/create",
            with(json!({ "Hostname": "x", "HostConfig": { "NetworkMode": "container:runs" } })),
            400,
            "conflicting options: hostname and the network mode",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NetworkMode": "container:runs", "Dns": ["1.1.1.1"] })),
            400,
            "conflicting options: dns and the network mode",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NetworkMode": "container:runs", "ExtraHosts": ["a:1.1.1.1"] })),
            400,
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NetworkMode": "container:runs", "Links": ["made:x"] })),
            400,
            "conflicting options: container type network can't be used with links",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NetworkMode": "host", "Links": ["made:x"] })),
            400,
            "conflicting options: host type networking can't be used with links",
        ),
        (
            "POST",
            "/containers/create",
            with(
                json!({ "HostConfig": { "NetworkMode": "host" }, "NetworkingConfig": { "EndpointsConfig": { "front": {} } } }),
            ),
            400,
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            "POST",
            "/containers/create",
            with(
                json!({ "HostConfig": { "NetworkMode": "none" }, "NetworkingConfig": { "EndpointsConfig": { "front": {} } } }),
            ),
            400,
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            "POST",
            "/containers/create",
            with(
                json!({ "HostConfig": { "NetworkMode": "front" }, "NetworkingConfig": { "EndpointsConfig": { "host": {} } } }),
            ),
            400,
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        ("POST", "/containers/create", host(json!({ "PortBindings": { "nonsense": [{}] } })), 400, "nonsense"),
        (
            "POST",
            "/containers/create",
            host(json!({ "PortBindings": { "80/tcp": [{ "HostPort": "99999" }] } })),
            400,
            "99999",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "PortBindings": { "80/tcp": [{ "HostIp": "nonsense", "HostPort": "1" }] } })),
            400,
            "nonsense",
        ),
        ("POST", "/containers/create", with(json!({ "ExposedPorts": { "0/tcp": {} } })), 400, "0/tcp"),
        ("POST", "/containers/create", host(json!({ "Binds": ["a:b"] })), 400, "invalid volume specification: 'a:b'"),
        ("POST", "/containers/create", host(json!({ "Binds": ["/a:/b:zz"] })), 400, "invalid mode: zz"),
        ("POST", "/containers/create", host(json!({ "Binds": ["/a:/"] })), 400, "destination can't be '/'"),
        ("POST", "/containers/create", host(json!({ "Binds": ["v1:/x", "v2:/x"] })), 400, "Duplicate mount point: /x"),
        (
            "POST",
            "/containers/create",
            host(json!({ "Binds": ["a/b:/x"] })),
            400,
            "includes invalid characters for a local volume name",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "bind", "Source": "/nosuch", "Target": "/x" }] })),
            400,
            "bind source path does not exist: /nosuch",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "zz", "Target": "/x" }] })),
            400,
            r#"invalid mount config for type "zz": mount type unknown"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "volume", "Target": "x" }] })),
            400,
            r#"invalid mount config for type "volume": invalid mount path: 'x' mount path must be absolute"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "tmpfs", "Source": "a", "Target": "/x" }] })),
            400,
            r#"invalid mount config for type "tmpfs": field Source must not be specified"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "bind", "Target": "/x" }] })),
            400,
            r#"invalid mount config for type "bind": field Source must not be empty"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "bind", "Source": "rel", "Target": "/x" }] })),
            400,
            r#"invalid mount config for type "bind": invalid mount path: 'rel' mount path must be absolute"#,
        ),
        (
            "POST",
            "/containers/create",
            host(
                json!({ "Mounts": [{ "Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": { "Propagation": "xyz" } }] }),
            ),
            400,
            r#"invalid mount config for type "bind": invalid propagation mode: xyz"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Mounts": [{ "Type": "volume", "Target": "/x", "ReadOnly": true }] })),
            400,
            r#"invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes"#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "CapAdd": ["NOPE"] })),
            400,
            r#"invalid CapAdd: unknown capability: "CAP_NOPE""#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "CapDrop": ["cap_nope"], "Privileged": true })),
            400,
            r#"invalid CapDrop: unknown capability: "CAP_NOPE""#,
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "RestartPolicy": { "Name": "sometimes" } })),
            400,
            "invalid restart policy: unknown policy 'sometimes'",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "RestartPolicy": { "Name": "always", "MaximumRetryCount": 3 } })),
            400,
            "maximum retry count",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "RestartPolicy": { "Name": "always" }, "AutoRemove": true })),
            400,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Memory": 67108864, "MemorySwap": 33554432 })),
            400,
            "minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "NanoCpus": 1_000_000_000_000_000_i64 })),
            400,
            "range of CPUs is from 0.01 to ",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "CpusetCpus": "4095" })),
            400,
            "requested CPUs are not available - requested 4095, available: ",
        ),
        ("POST", "/containers/create", host(json!({ "Isolation": "x" })), 400, "invalid isolation: x"),
        (
            "POST",
            "/containers/create",
            host(json!({ "StorageOpt": { "size": "1G" } })),
            400,
            "--storage-opt is supported only",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "Tmpfs": { "rel": "" } })),
            400,
            "invalid mount path: 'rel' mount path must be absolute",
        ),
        (
            "POST",
            "/containers/create",
            json!({ "Image": "busybox", "WorkingDir": "rel" }),
            400,
            "the working directory 'rel' is invalid, it needs to be an absolute path",
        ),
        (
            "POST",
            "/containers/create?platform=linux/s390x",
            json!({ "Image": "busybox" }),
            404,
            "does not match the specified platform (linux/s390x)",
        ),
        ("POST", "/images/create?fromImage=127.0.0.1:1/nosuch&tag=x", Value::Null, 500, "127.0.0.1:1"),
        ("POST", "/containers/create", host(json!({ "Memory": 4096 })), 400, "Minimum memory limit allowed is 6MB"),
        (
            "POST",
            "/containers/create",
            host(json!({ "Runtime": "nosuch" })),
            400,
            "unknown or invalid runtime name: nosuch",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "LogConfig": { "Type": "nosuch" } })),
            400,
            "logger: no log driver named 'nosuch' is registered",
        ),
        ("POST", "/containers/create", host(json!({ "Dns": ["nonsense"] })), 400, "nonsense"),
        (
            "POST",
            "/containers/create",
            host(json!({ "ExtraHosts": ["nonsense"] })),
            400,
            "bad format for add-host: \"nonsense\"",
        ),
        (
            "POST",
            "/containers/create",
            host(json!({ "SecurityOpt": ["nonsense"] })),
            400,
            "invalid --security-opt: \"nonsense\"",
        ),
        ("POST", "/containers/create", host(json!({ "CapAdd": ["NOSUCH"] })), 400, "NOSUCH"),
        ("POST", "/containers/create", with(json!({ "StopSignal": "NOSUCH" })), 400, "invalid signal: NOSUCH"),
        ("POST", "/containers/runs/kill?signal=NOSUCH", Value::Null, 400, "invalid signal: NOSUCH"),
        ("POST", "/containers/runs/stop?signal=NOSUCH", Value::Null, 400, "invalid signal: NOSUCH"),
        ("POST", "/containers/runs/stop?t=soon", Value::Null, 400, "soon"),
        ("POST", "/containers/runs/wait?condition=x", Value::Null, 400, "invalid condition: \"x\""),
        ("POST", "/containers/runs/exec", json!({ "Cmd": [] }), 400, "No exec command specified"),
        ("POST", "/containers/runs/exec", "nonsense".into(), 400, "JSON"),
        ("POST", "/containers/runs/resize?h=x&w=1", Value::Null, 400, "x"),
        ("POST", "/containers/runs/attach?stream=1&detachKeys=nonsense", Value::Null, 400, "nonsense"),
        ("GET", "/containers/runs/logs", Value::Null, 400, "you must choose at least one stream"),
        ("GET", "/containers/runs/logs?stdout=1&since=soon", Value::Null, 400, "soon"),
        ("GET", "/containers/json?filters=nonsense", Value::Null, 400, "filters"),
        (
            "GET",
            "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D",
            Value::Null,
            400,
            "invalid filter 'nosuch'",
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22status%22%3A%5B%22x%22%5D%7D",
            Value::Null,
            400,
            "invalid filter 'status=x'",
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22name%22%3A%5B%22%28%22%5D%7D",
            Value::Null,
            400,
            "invalid filter 'name=(",
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22before%22%3A%5B%22nosuch%22%5D%7D",
            Value::Null,
            404,
            "No such container: nosuch",
        ),
        ("GET", "/containers/json?limit=x", Value::Null, 400, "limit"),
        ("GET", "/containers/json?all=%zz", Value::Null, 400, "escape"),
        ("GET", "/containers/%zz/json", Value::Null, 404, "No such container: %zz"),
        (
            "POST",
            "/volumes/create",
            json!({ "Name": "a/b" }),
            400,
            "includes invalid characters for a local volume name",
        ),
        ("POST", "/volumes/create", json!({ "Name": "." }), 400, "includes invalid characters for a local volume name"),
        (
            "GET",
            "/events?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D&until=0s",
            Value::Null,
            400,
            "invalid filter 'nosuch'",
        ),
        (
            "GET",
            "/v1.23/info",
            Value::Null,
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24",
        ),
    ]);
}
