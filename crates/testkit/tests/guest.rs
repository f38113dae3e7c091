//! What only a virtual machine can show: `cargo xtask test vm` runs these there, with a pure cgroup v2, systemd, and a
//! kernel that has every device.

use serde_json::json;
use testkit::{Lab, program};

fn lab() -> Lab {
    Lab::start(&program()).unwrap()
}

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
