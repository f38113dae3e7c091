//! Every step of what an engine does is made to fail in turn. Nothing may be left of it, the container is as it was,
//! and the same act then works.
//!
//! ```text
//!   front (172.18.0.0/22) ── victim, neighbour        tiny (10.9.0.0/29): four addresses, so that a leaked one is missed
//! ```

use serde_json::{Value, json};
use std::process::Command;
use testkit::{HOST, Lab};

/// The steps of a container's start, in order.
const START: [&str; 16] = [
    "lease",
    "planned",
    "reserve",
    "reserved",
    "sandbox",
    "attach",
    "resolver",
    "publish",
    "published",
    "keeper",
    "names",
    "files",
    "order",
    "prepare",
    "launch",
    "watch",
];

fn lab() -> Lab {
    let lab = testkit::lab();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "tiny", "IPAM": { "Config": [{ "Subnet": "10.9.0.0/29" }] } }));
    lab.run("neighbour", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    lab
}

fn victim() -> Value {
    json!({
        "Cmd": ["sh", "-c", "mkdir -p /w; echo hi >/w/index.html; exec httpd -f -p 80 -h /w"],
        "HostConfig": {
            "NetworkMode": "tiny",
            "PortBindings": { "80/tcp": [{ "HostPort": "8080" }], "53/udp": [{ "HostPort": "5300" }] },
        },
        "NetworkingConfig": { "EndpointsConfig": { "tiny": {}, "front": { "Aliases": ["site"] } } },
    })
}

fn arm(lab: &Lab, step: &str) {
    lab.ask(&format!("/debug/faults?at={}", step.replace(' ', "%20")), 204);
}

/// What an inspection says, but for the error of the last attempt.
fn facts(lab: &Lab, container: &str) -> Value {
    let mut shown = lab.inspect(container);
    for changing in ["Error", "ExitCode"] {
        shown["State"][changing] = Value::Null;
    }
    shown
}

/// It runs, and everything about it works.
fn works(lab: &Lab) {
    let curl = || lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &format!("http://{HOST}:8080/")])).stdout;
    testkit::within(std::time::Duration::from_secs(5), "it answers", || curl() == "hi\n");
    assert_eq!(lab.lookup("neighbour", "site"), [lab.address("victim", "front")]);
    assert_eq!(lab.lookup("victim", "neighbour"), [lab.address("neighbour", "front")]);
}

#[test]
fn lc_01_a_start_that_fails_at_any_step_leaves_nothing() {
    let lab = lab();
    lab.create("victim", victim());
    // Its files are made by its first start, and are its own from then on.
    lab.ask("/containers/victim/start", 204);
    works(&lab);
    lab.ask("/containers/victim/stop?t=0", 204);
    let (before, was) = (lab.still_world(), facts(&lab, "victim"));
    for step in START {
        arm(&lab, step);
        let failed = lab.ask("/containers/victim/start", 500).message();
        assert!(failed.contains(&format!("a test makes '{step}' fail")), "{step}: {failed}");
        assert_eq!(facts(&lab, "victim"), was, "{step}");
        assert_eq!(lab.inspect("victim")["State"]["Error"], failed, "{step}");
        lab.world_is(&before, step);
    }
    lab.ask("/containers/victim/start", 204);
    works(&lab);
    lab.ask("/containers/victim/stop?t=0", 204);
    lab.world_is(&before, "stopped");
    lab.remove("victim");
}

#[test]
fn a_first_start_that_fails_is_made_up_for_by_the_next() {
    let lab = lab();
    let empty = lab.still_world();
    for step in START {
        lab.create("victim", victim());
        arm(&lab, step);
        lab.ask("/containers/victim/start", 500);
        assert_eq!(lab.status("victim"), "created", "{step}");
        lab.ask("/containers/victim/start", 204);
        works(&lab);
        lab.remove("victim");
        lab.world_is(&empty, step);
        // One that removes itself does so, too.
        let mut body = victim();
        body["HostConfig"]["AutoRemove"] = true.into();
        lab.create("victim", body);
        arm(&lab, step);
        lab.ask("/containers/victim/start", 500);
        assert_eq!(lab.status("victim"), "gone", "{step}");
        lab.world_is(&empty, step);
    }
}

#[test]
fn a_restart_that_fails_leaves_sharers_alone() {
    let lab = lab();
    lab.run("victim", victim());
    lab.run("sharer", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "container:victim" } }));
    works(&lab);
    lab.ask("/containers/victim/stop?t=0", 204);
    let before = lab.still_world();
    for step in START {
        arm(&lab, step);
        lab.ask("/containers/victim/start", 500);
        assert_eq!(lab.exec("sharer", &["ls", "/sys/class/net"]).ok(), "lo", "{step}");
        lab.world_is(&before, step);
    }
    lab.ask("/containers/victim/start", 204);
    works(&lab);
    assert_eq!(lab.lookup("sharer", "site"), [lab.address("victim", "front")]);
}

#[test]
fn a_create_that_fails_at_any_step_leaves_nothing() {
    let lab = lab();
    let before = lab.still_world();
    for step in ["create", "rootfs", "mounts"] {
        let mut body = victim();
        body["Image"] = "busybox".into();
        body["Volumes"] = json!({ "/data": {} });
        body["NetworkingConfig"]["EndpointsConfig"]["tiny"] = json!({ "IPAMConfig": { "IPv4Address": "10.9.0.6" } });
        for _ in 0..2 {
            arm(&lab, step);
            lab.tell("/containers/create?name=victim", body.clone(), 500);
            assert_eq!(lab.status("victim"), "gone", "{step}");
            assert_eq!(lab.get("/volumes").unwrap().json()["Volumes"], json!([]), "{step}");
            lab.world_is(&before, step);
        }
    }
}

#[test]
fn a_remove_or_rename_that_fails_leaves_the_container_as_it_was() {
    let lab = lab();
    lab.run("victim", victim());
    let (before, was) = (lab.still_world(), facts(&lab, "victim"));
    arm(&lab, "rename");
    lab.ask("/containers/victim/rename?name=other", 500);
    assert_eq!(facts(&lab, "victim"), was);
    assert_eq!(lab.lookup("neighbour", "other"), [""; 0]);
    lab.create("other", json!({ "Cmd": ["true"] }));
    lab.remove("other");
    works(&lab);
    lab.world_is(&before, "rename");
    lab.ask("/containers/victim/stop?t=0", 204);
    let was = facts(&lab, "victim");
    arm(&lab, "remove");
    assert_eq!(lab.delete("/containers/victim").unwrap().status, 500);
    assert_eq!(facts(&lab, "victim"), was);
    lab.ask("/containers/victim/start", 204);
    works(&lab);
    lab.remove("victim");
}

#[test]
fn a_network_that_cannot_be_made_or_removed_is_as_it_was() {
    let lab = lab();
    let before = lab.still_world();
    let body = json!({ "Name": "new", "IPAM": { "Config": [{ "Subnet": "10.10.0.0/24" }] } });
    for step in ["network: record", "network: bridge", "network: zone"] {
        arm(&lab, step);
        lab.tell("/networks/create", body.clone(), 500);
        assert_eq!(lab.get("/networks/new").unwrap().status, 404, "{step}");
        lab.world_is(&before, step);
    }
    lab.network(body);
    let mut guest = json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "new" } });
    guest["NetworkingConfig"] =
        json!({ "EndpointsConfig": { "new": { "IPAMConfig": { "IPv4Address": "10.10.0.9" } } } });
    lab.run("guest", guest.clone());
    lab.ask("/containers/guest/stop?t=0", 204);
    let with = lab.still_world();
    arm(&lab, "network: remove");
    assert_eq!(lab.delete("/networks/new").unwrap().status, 500);
    lab.world_is(&with, "network: remove");
    // Its addresses are still their containers'.
    lab.ask("/containers/guest/start", 204);
    lab.create("second", guest);
    lab.ask("/containers/second/start", 403);
    lab.remove("second");
    lab.remove("guest");
    assert_eq!(lab.delete("/networks/new").unwrap().status, 204);
    lab.world_is(&before, "removed");
}

#[test]
fn api_12_a_connect_or_disconnect_that_fails_is_taken_back_whole() {
    let lab = lab();
    lab.network(json!({ "Name": "aaa", "IPAM": { "Config": [{ "Subnet": "10.10.0.0/29" }] } }));
    let plain = json!({ "Cmd": ["sh", "-c", "mkdir -p /w; echo hi >/w/index.html; exec httpd -f -p 80 -h /w"],
        "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "8081" }] } } });
    lab.run("plain", plain);
    lab.run("victim", victim());
    let published = |port: u16| {
        let url = format!("http://{HOST}:{port}/");
        lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &url])).stdout == "hi\n"
    };
    for container in ["victim", "plain"] {
        let (before, was) = (lab.still_world(), facts(&lab, container));
        let hosts = lab.exec(container, &["cat", "/etc/hosts"]).ok();
        let resolver = lab.exec(container, &["cat", "/etc/resolv.conf"]).ok();
        let asked = json!({ "Container": container, "EndpointConfig": { "GwPriority": 9, "Aliases": ["late"] } });
        let steps = ["attach", "resolver", "gateway", "names", "files", "record"];
        for step in steps.map(|s| format!("connect: {s}")) {
            arm(&lab, &step);
            lab.tell("/networks/aaa/connect", asked.clone(), 500);
            assert_eq!(facts(&lab, container), was, "{step}");
            assert_eq!(lab.exec(container, &["cat", "/etc/hosts"]).ok(), hosts, "{step}");
            assert_eq!(lab.exec(container, &["cat", "/etc/resolv.conf"]).ok(), resolver, "{step}");
            lab.world_is(&before, &step);
        }
        lab.tell("/networks/aaa/connect", asked, 200);
        let (with, was) = (lab.still_world(), facts(&lab, container));
        let route = || lab.exec(container, &["ip", "route"]).ok();
        let routes = route();
        assert!(routes.contains("default via 10.10.0.1"), "{routes}");
        for step in ["names", "gateway", "files", "detach", "record"].map(|s| format!("disconnect: {s}")) {
            arm(&lab, &step);
            lab.tell("/networks/aaa/disconnect", json!({ "Container": container }), 500);
            assert_eq!(facts(&lab, container), was, "{step}");
            assert_eq!(route().lines().count(), routes.lines().count(), "{step}");
            assert!(route().contains("default via 10.10.0.1"), "{step}");
            assert_eq!(lab.lookup(container, "late"), [lab.address(container, "aaa")], "{step}");
            lab.world_is(&with, &step);
        }
        assert!(published(if container == "victim" { 8080 } else { 8081 }));
        lab.tell("/networks/aaa/disconnect", json!({ "Container": container }), 200);
    }
    works(&lab);
    assert!(published(8081));
}
