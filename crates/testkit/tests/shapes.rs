//! Answers have the shape that Docker's own description gives them: a strict reader, generated from it, takes them all.

use bollard_stubs::models;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{Lab, program};

/// Reads an answer as `T`, and says where it cannot.
#[track_caller]
fn reads<T: DeserializeOwned>(what: &str, shown: &Value) {
    if let Err(e) = serde_json::from_value::<T>(shown.clone()) {
        panic!("{what}: {e}\n{shown:#}");
    }
}

#[track_caller]
fn get<T: DeserializeOwned>(lab: &Lab, path: &str) {
    let response = lab.get(path).unwrap();
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    reads::<T>(path, &response.json());
}

#[test]
fn every_list_inspection_and_creation_is_as_described() {
    let lab = Lab::start(&program()).unwrap();
    let network =
        lab.tell("/networks/create", json!({ "Name": "front", "EnableIPv6": true, "Labels": { "a": "b" } }), 201);
    reads::<models::NetworkCreateResponse>("networks/create", &network.json());
    let volume = lab.tell("/volumes/create", json!({ "Name": "vol" }), 201);
    reads::<models::Volume>("volumes/create", &volume.json());
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "60"], "Tty": true, "Env": ["A=1"], "ExposedPorts": { "81/tcp": {} }, "Volumes": { "/x": {} },
        "Healthcheck": { "Test": ["CMD", "true"] },
        "HostConfig": {
            "NetworkMode": "front", "Binds": ["vol:/v"], "Tmpfs": { "/t": "" }, "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 },
            "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] }, "Memory": 67_108_864, "Ulimits": [{ "Name": "nofile", "Soft": 9, "Hard": 99 }],
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } },
        },
        "NetworkingConfig": { "EndpointsConfig": { "front": { "Aliases": ["web"] } } },
    });
    let created = lab.tell("/containers/create?name=full", body, 201).json();
    reads::<models::ContainerCreateResponse>("containers/create", &created);
    let check_all = |when: &str| {
        get::<models::ContainerInspectResponse>(&lab, "/containers/full/json?size=1");
        get::<Vec<models::ContainerSummary>>(&lab, "/containers/json?all=1&size=1");
        get::<models::NetworkInspect>(&lab, "/networks/front");
        for network in ["bridge", "host", "none"] {
            get::<models::NetworkInspect>(&lab, &format!("/networks/{network}"));
        }
        get::<Vec<models::NetworkSummary>>(&lab, "/networks");
        get::<models::VolumeListResponse>(&lab, "/volumes");
        get::<models::Volume>(&lab, "/volumes/vol");
        get::<Vec<models::ImageSummary>>(&lab, "/images/json");
        get::<models::ImageInspect>(&lab, "/images/busybox/json");
        get::<models::SystemInfo>(&lab, "/info");
        get::<models::SystemVersion>(&lab, "/version");
        println!("{when}: as described");
    };
    check_all("created");
    lab.ask("/containers/full/start", 204);
    check_all("running");
    let exec = lab.tell("/containers/full/exec", json!({ "Cmd": ["true"], "AttachStdout": true }), 201).json();
    reads::<models::IdResponse>("exec", &exec);
    let exec = exec["Id"].as_str().unwrap().to_owned();
    get::<models::ExecInspectResponse>(&lab, &format!("/exec/{exec}/json"));
    lab.open(&format!("/exec/{exec}/start"), "{}").rest();
    get::<models::ExecInspectResponse>(&lab, &format!("/exec/{exec}/json"));
    lab.ask("/containers/full/pause", 204);
    check_all("paused");
    lab.ask("/containers/full/unpause", 204);
    lab.ask("/containers/full/kill", 204);
    check_all("exited");
    reads::<models::ContainerWaitResponse>("wait", &lab.ask("/containers/full/wait", 200).json());
    let events = lab.get("/events?since=1&until=0s").unwrap().text();
    assert!(events.lines().count() > 5, "{events}");
    for line in events.lines() {
        reads::<models::EventMessage>("events", &serde_json::from_str(line).unwrap());
    }
    reads::<models::ErrorResponse>("errors", &lab.get("/containers/nosuch/json").unwrap().json());
    reads::<models::ContainerPruneResponse>("containers/prune", &lab.ask("/containers/prune", 200).json());
    reads::<models::NetworkPruneResponse>("networks/prune", &lab.ask("/networks/prune", 200).json());
    reads::<models::VolumePruneResponse>("volumes/prune", &lab.ask("/volumes/prune", 200).json());
    reads::<models::ImagePruneResponse>("images/prune", &lab.ask("/images/prune", 200).json());
    let removed = lab.delete("/images/busybox").unwrap();
    reads::<Vec<models::ImageDeleteResponseItem>>("images/rm", &removed.json());
}
