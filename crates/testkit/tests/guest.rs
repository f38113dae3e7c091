//! What only a virtual machine can show: `cargo xtask test vm` runs these there, with a pure cgroup v2, systemd, and a
//! kernel that has every device.

use serde_json::json;
use std::process::Command;
use std::time::Duration;
use testkit::traffic::{At, By, sleeper};
use testkit::{HOST, Lab, OUTSIDE, lab, within};

#[test]
fn cgroups_are_v2_alone() {
    let lab = lab();
    let info = lab.get("/info").unwrap().json();
    assert_eq!(info["CgroupVersion"], "2");
    for limit in ["MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota", "CPUShares", "CPUSet"] {
        assert_eq!(info[limit], true, "{limit}: {info}");
    }
    lab.run("limited", json!({
        "Cmd": ["sleep", "600"],
        "HostConfig": { "Memory": 33_554_432, "PidsLimit": 20, "NanoCpus": 500_000_000, "CpuShares": 512, "CpusetCpus": "0" },
    }));
    let pid = lab.inspect("limited")["State"]["Pid"].to_string();
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = group.trim().strip_prefix("0::").expect("one hierarchy");
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).unwrap().trim().to_owned();
    assert_eq!(read("memory.max"), "33554432");
    assert_eq!(read("pids.max"), "20");
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("cpuset.cpus"), "0");
    // From inside it is the root of a hierarchy that cannot be written.
    assert_eq!(lab.exec("limited", &["cat", "/proc/self/cgroup"]).ok(), "0::/");
    assert_eq!(lab.exec("limited", &["cat", "/sys/fs/cgroup/memory.max"]).ok(), "33554432");
    lab.exec("limited", &["sh", "-c", "echo max > /sys/fs/cgroup/memory.max"]).refused();
}

#[test]
fn devices_are_those_that_were_granted() {
    let lab = lab();
    let disk = std::fs::read_to_string("/sys/block/nvme0n1/dev").unwrap().trim().to_owned();
    let read = |name: &str, host: serde_json::Value| {
        lab.run(name, json!({ "Cmd": ["sleep", "600"], "HostConfig": host }));
        let make = |file: &str, kind: &str, number: &str| {
            let script =
                format!("mknod /tmp/{file} {kind} {} && head -c 1 /tmp/{file} | wc -c", number.replace(':', " "));
            let output = lab.exec(name, &["sh", "-c", &script]);
            (output.stdout.trim().to_owned(), output.stderr)
        };
        let (zero, why) = make("zero", "c", "1:5");
        assert_eq!(zero, "1", "{why}");
        make("disk", "b", &disk)
    };
    let (bytes, why) = read("plain", json!({}));
    assert!(bytes != "1" && why.contains("Operation not permitted"), "{bytes} {why}");
    let (bytes, why) = read("granted", json!({ "DeviceCgroupRules": [format!("b {disk} rm")] }));
    assert_eq!(bytes, "1", "{why}");
}

/// A network on a device of the lab's host, and one member with a server.
fn on_parent(lab: &Lab, name: &str, driver: &str, options: serde_json::Value, subnet: &str) {
    let ipam = json!({ "Config": [{ "Subnet": format!("{subnet}.0/24"), "Gateway": format!("{subnet}.1") }] });
    lab.network(json!({ "Name": name, "Driver": driver, "Options": options, "IPAM": ipam }));
    for (n, member) in ["web", "client"].iter().enumerate() {
        let mut body = sleeper(name);
        let address = format!("{subnet}.{}", 50 + n);
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { name: { "IPAMConfig": { "IPv4Address": address } } } });
        lab.run(&format!("{name}-{member}"), body);
    }
    lab.serve(At::Container(&format!("{name}-web")), By::Tcp, 80);
}

#[test]
fn dr_06_members_of_an_ipvlan_network_are_hosts_of_the_network_behind_its_parent() {
    let lab = lab();
    for (name, mode, subnet) in [("l2", "l2", "198.51.100"), ("l3", "l3", "10.77.3"), ("l3s", "l3s", "10.77.4")] {
        on_parent(&lab, name, "ipvlan", json!({ "parent": "eth0", "ipvlan_mode": mode }), subnet);
        let web: std::net::IpAddr = format!("{subnet}.50").parse().unwrap();
        let (web_name, client) = (format!("{name}-web"), format!("{name}-client"));
        if name != "l2" {
            // At layer 3 nobody answers for members' addresses: the outside knows the way.
            let (to, by) = (format!("{subnet}.0/24"), HOST.to_string());
            lab.command(At::Outside, &["ip", "route", "add", &to, "via", &by]);
        }
        within(Duration::from_secs(10), &format!("{name}: the outside reaches it"), || {
            lab.seen(At::Outside, By::Tcp, web, 80) == Some(OUTSIDE.into())
        });
        assert_eq!(lab.lookup(&client, &web_name), [web.to_string()], "{name}");
        assert!(lab.seen(At::Container(&client), By::Tcp, web, 80).is_some(), "{name}");
        let routes = lab.exec(&client, &["ip", "route"]).ok();
        assert_eq!(routes.contains("default dev eth0"), name != "l2", "{routes}");
        for member in [web_name, client] {
            lab.ask(&format!("/containers/{member}/kill"), 204);
            lab.remove(&member);
        }
        assert_eq!(lab.delete(&format!("/networks/{name}")).unwrap().status, 204);
    }
}

#[test]
fn dr_05_a_sub_interface_and_a_dummy_are_made_for_a_network_and_go_with_it() {
    let lab = lab();
    let links = || lab.on_host(Command::new("ip").args(["-o", "-d", "link"])).ok();
    // The outside's end of VLAN 50.
    let other =
        "ip link add link uplink0 name v50 type vlan id 50; ip addr add 10.50.0.1/24 dev v50; ip link set v50 up";
    lab.command(At::Outside, &["sh", "-c", other]);
    on_parent(&lab, "tagged", "macvlan", json!({ "parent": "eth0.50" }), "10.50.0");
    assert!(links().contains("vlan protocol 802.1Q id 50"), "{}", links());
    within(Duration::from_secs(10), "tagged frames go both ways", || {
        lab.seen(At::Outside, By::Tcp, "10.50.0.50".parse().unwrap(), 80) == "10.50.0.1".parse().ok()
    });
    on_parent(&lab, "alone", "macvlan", json!({}), "10.60.0");
    assert_eq!(lab.get("/networks/alone").unwrap().json()["Internal"], true);
    assert!(lab.seen(At::Container("alone-client"), By::Tcp, "10.60.0.50".parse().unwrap(), 80).is_some());
    assert!(!lab.exec("alone-client", &["ip", "route"]).ok().contains("default"));
    for network in ["tagged", "alone"] {
        for member in ["web", "client"] {
            lab.ask(&format!("/containers/{network}-{member}/kill"), 204);
        }
        assert_eq!(lab.delete(&format!("/networks/{network}")).unwrap().status, 204);
    }
    within(Duration::from_secs(5), "they are gone", || !links().contains("eth0.50") && !links().contains("dm-"));
}
