//! Rows of the checklist that need little: modes and drivers, a host that is broken, what can be changed and what not,
//! what is counted.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use testkit::{HOST, Lab, program, within};

fn sleeper(network: &str) -> Value {
    json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": network } })
}

fn on_host(lab: &Lab, command: &str) -> String {
    lab.on_host(Command::new("sh").args(["-c", command])).ok()
}

#[test]
fn dr_02_none_is_a_loopback_alone() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("alone", sleeper("none"));
    assert_eq!(lab.exec("alone", &["ls", "/sys/class/net"]).ok(), "lo");
    assert!(lab.exec("alone", &["ip", "addr", "show", "lo"]).ok().contains("inet 127.0.0.1/8"));
    assert_eq!(lab.exec("alone", &["ip", "route"]).ok(), "");
    assert_ne!(lab.exec("alone", &["ping", "-c1", "-W1", &HOST.to_string()]).code, 0);
}

#[test]
fn dr_04_a_namespace_of_somebody_else_is_joined_by_its_path() {
    let mut lab = Lab::start(&program()).unwrap();
    // The lab's host is as good a namespace as any: `ip netns add` makes files of the same kind.
    let mode = format!("ns:{}", lab.namespace_file());
    lab.run("guest", sleeper(&mode));
    assert!(lab.exec("guest", &["ip", "addr", "show", "eth0"]).ok().contains(&HOST.to_string()));
    // Who joins it is where it is, by the client, and after another daemon, too.
    lab.isle(&["run", "-d", "--network", "container:guest", "--name", "second", "busybox", "sleep", "600"]).ok();
    lab.isle(&["run", "--rm", "--network", &mode, "busybox", "test", "-e", "/sys/class/net/isle0"]).ok();
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    assert!(lab.exec("second", &["ip", "addr", "show", "eth0"]).ok().contains(&HOST.to_string()));

    let mut publishes = sleeper(&mode);
    publishes["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    publishes["Image"] = "busybox".into();
    let refused = lab.tell("/containers/create", publishes, 400).message();
    assert!(refused.contains("conflicting options: port publishing"), "{refused}");
    lab.network(json!({ "Name": "front" }));
    lab.tell("/networks/front/connect", json!({ "Container": "guest" }), 403);
    lab.create("nowhere", sleeper("ns:/run/netns/nobody"));
    let missing = lab.ask("/containers/nowhere/start", 400).message();
    assert!(missing.contains("/run/netns/nobody: no such file"), "{missing}");
    lab.create("wrong", sleeper("ns:/etc/hostname"));
    assert_ne!(lab.post("/containers/wrong/start", Value::Null).unwrap().status, 204, "no namespace");
}

#[test]
fn dr_07_an_overlay_is_refused_and_the_refusal_says_what_would_work() {
    let lab = Lab::start(&program()).unwrap();
    let refused = lab.tell("/networks/create", json!({ "Name": "wide", "Driver": "overlay" }), 501).message();
    assert!(refused.contains("spans the nodes of a swarm") && refused.contains("bridge"), "{refused}");
    assert_eq!(lab.get("/networks/wide").unwrap().status, 404);
}

#[test]
fn dr_08_there_are_no_plugins_and_their_networks_are_refused() {
    let lab = Lab::start(&program()).unwrap();
    assert_eq!(lab.get("/plugins").unwrap().json(), json!([]));
    for body in
        [json!({ "Name": "theirs", "Driver": "weave" }), json!({ "Name": "theirs", "IPAM": { "Driver": "weave" } })]
    {
        assert_eq!(lab.tell("/networks/create", body, 404).message(), "plugin \"weave\" not found");
    }
    assert_eq!(lab.get("/networks/theirs").unwrap().status, 404);
}

#[test]
fn dr_10_a_daemon_that_is_not_root_says_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    // In a user namespace without a mapping everybody is nobody.
    let mut daemon = Command::new("unshare");
    daemon.args(["--user", "timeout", "20"]).arg(program()).arg("daemon");
    daemon.arg("--root").arg(directory.path().join("root")).arg("--run").arg(directory.path().join("run"));
    let ended = daemon.output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("the daemon needs root") && said.contains("network namespaces"), "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is made before");
}

#[test]
fn pt_18_an_update_changes_limits_and_the_restart_policy_and_ports_are_for_a_new_container() {
    let mut lab = Lab::start(&program()).unwrap();
    let mut body = sleeper("bridge");
    body["HostConfig"]["Memory"] = (64_u32 << 20).into();
    body["HostConfig"]["PidsLimit"] = 100.into();
    lab.run("box", body);
    let refused = lab.tell("/containers/box/update", json!({ "PortBindings": { "80/tcp": [{}] } }), 400).message();
    assert!(refused.contains("create it anew"), "{refused}");
    let isle = lab.isle(&["update", "--memory", "96m", "--memory-swap", "96m", "--restart", "always", "box"]);
    assert_eq!(isle.ok(), "box");
    lab.tell("/containers/box/update", json!({ "PidsLimit": 20 }), 200);
    let host = lab.inspect("box")["HostConfig"].clone();
    assert_eq!((&host["Memory"], &host["PidsLimit"]), (&json!(96 << 20), &json!(20)));
    assert_eq!(host["RestartPolicy"]["Name"], "always");
    // It runs under the new limits: twenty processes and no more.
    let many = lab.exec("box", &["sh", "-c", "for i in $(seq 40); do sleep 5 & done; wait"]);
    assert!(many.stderr.contains("fork"), "{many:?}");
    // What cannot be is refused, and nothing changes.
    lab.tell("/containers/box/update", json!({ "Memory": 1024 }), 400);
    assert_eq!(lab.inspect("box")["HostConfig"]["Memory"], 96 << 20);
    lab.tell("/containers/nobody/update", json!({ "Memory": 96 << 20 }), 404);
    // The new policy holds, over another daemon, too.
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(lab.inspect("box")["HostConfig"]["PidsLimit"], 20);
    let first = lab.inspect("box")["State"]["Pid"].clone();
    let pid = first.to_string();
    lab.on_host(Command::new("kill").args(["-9", &pid])).ok();
    within(Duration::from_secs(10), "it is started again", || {
        let state = lab.inspect("box")["State"].clone();
        state["Status"] == "running" && state["Pid"] != first
    });
}

#[test]
fn lc_08_a_network_that_cannot_be_made_does_not_keep_the_daemon_or_others_down() {
    let mut lab = Lab::start(&program()).unwrap();
    let named = |name: &str| json!({ "Name": name, "Options": { "com.docker.network.bridge.name": name } });
    for name in ["broken", "whole"] {
        lab.network(named(name));
    }
    lab.create("unlucky", sleeper("broken"));
    lab.run("lucky", sleeper("whole"));
    lab.stop_daemon();
    // Somebody else's interface has the bridge's name at the next start.
    on_host(&lab, "ip link del broken && ip link add broken type veth peer name broken1");
    lab.start_daemon().unwrap();
    lab.run("newcomer", sleeper("whole"));
    assert_eq!(lab.lookup("newcomer", "lucky"), [lab.address("lucky", "whole")]);
    let refused = lab.post("/containers/unlucky/start", Value::Null).unwrap();
    assert_ne!(refused.status, 204, "there is no bridge for it");
    assert!(refused.message().contains("broken"), "{}", refused.message());
    assert!(lab.log().contains("broken"), "the log says which one");
    // Out of the way, it is made at the next start.
    on_host(&lab, "ip link del broken");
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    lab.ask("/containers/unlucky/start", 204);
}

#[test]
fn lc_10_an_unhealthy_container_is_found_by_its_name_as_before() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    let mut sick = sleeper("front");
    let second = 1_000_000_000_u64;
    sick["Healthcheck"] = json!({ "Test": ["CMD", "false"], "Interval": second / 10, "Timeout": second, "Retries": 1 });
    lab.run("sick", sick);
    lab.run("client", sleeper("front"));
    let address = [lab.address("sick", "front")];
    assert_eq!(lab.lookup("client", "sick"), address);
    within(Duration::from_secs(10), "it is unhealthy", || {
        lab.inspect("sick")["State"]["Health"]["Status"] == "unhealthy"
    });
    assert_eq!(lab.lookup("client", "sick"), address);
}

#[test]
fn lc_11_checkpoints_are_refused_and_nothing_is_stopped() {
    let lab = Lab::start(&program()).unwrap();
    lab.run("box", sleeper("bridge"));
    let refused = lab.tell("/containers/box/checkpoints", json!({ "CheckpointID": "a", "Exit": true }), 501).message();
    assert!(refused.contains("checkpoints are not supported"), "{refused}");
    assert_eq!(lab.get("/containers/box/checkpoints").unwrap().status, 501);
    lab.create("other", sleeper("bridge"));
    lab.ask("/containers/other/start?checkpoint=a", 501);
    assert_eq!((lab.status("box"), lab.status("other")), ("running".into(), "created".into()));
}

#[test]
fn ob_03_actions_on_networks_are_measured_for_prometheus() {
    let lab = Lab::start_with(&program(), &["--metrics-addr", "127.0.0.1:9323"]).unwrap();
    lab.network(json!({ "Name": "front" }));
    for name in ["one", "two"] {
        lab.run(name, sleeper("bridge"));
    }
    lab.tell("/networks/front/connect", json!({ "Container": "one" }), 200);
    lab.tell("/networks/front/disconnect", json!({ "Container": "one" }), 200);
    lab.remove("two");
    let measured = on_host(&lab, "curl -sSfm 5 http://127.0.0.1:9323/metrics");
    for (action, count) in [("allocate", 2), ("connect", 1), ("release", 2)] {
        let line = format!("engine_daemon_network_actions_seconds_count{{action=\"{action}\"}} {count}\n");
        assert!(measured.contains(&line), "{line}{measured}");
    }
    assert!(measured.contains("# TYPE engine_daemon_network_actions_seconds histogram\n"), "{measured}");
    // It says nothing else, and takes nothing.
    assert!(on_host(&lab, "curl -sm 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:9323/containers/json") == "404");
    let taken = lab.in_host(|| TcpListener::bind("127.0.0.1:9324").unwrap());
    let failed = Lab::start_with(&program(), &["--metrics-addr", "192.0.2.77:9324"]).err().unwrap().to_string();
    assert!(failed.contains("cannot serve measurements on 192.0.2.77:9324"), "{failed}");
    drop(taken);
}

#[test]
fn dns_28_what_becomes_of_questions_is_measured() {
    let lab = Lab::start_with(&program(), &["--metrics-addr", "127.0.0.1:9323"]).unwrap();
    lab.network(json!({ "Name": "front" }));
    lab.network(json!({ "Name": "inner", "Internal": true }));
    lab.run("one", sleeper("front"));
    lab.run("sealed", sleeper("inner"));
    let count = |outcome: &str| {
        let measured = on_host(&lab, "curl -sSfm 5 http://127.0.0.1:9323/metrics");
        let start = format!("engine_daemon_resolver_questions_total{{outcome=\"{outcome}\"}} ");
        let number = measured.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("{start} {measured}"))
    };
    let outcomes = ["answered", "forwarded", "failed", "refused", "ignored"];
    let asked = |container: &str, name: &str, outcome: &str| {
        let before = outcomes.map(count);
        lab.exec(container, &["nslookup", "-type=a", name]);
        for (other, before) in outcomes.into_iter().zip(before) {
            assert_eq!(count(other) > before, other == outcome, "{container} asks for {name}: {other}");
        }
    };
    asked("one", "one", "answered");
    asked("one", "www.example.", "forwarded");
    asked("sealed", "www.example.", "failed");
}

#[test]
fn ob_05_drops_are_counted_and_say_why() {
    let lab = Lab::start(&program()).unwrap();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
        lab.run(&format!("in-{name}"), sleeper(name));
    }
    // Packets that the rule with this comment has dropped so far.
    let dropped = |why: &str| {
        let rules = on_host(&lab, "nft list ruleset");
        let end = format!("drop comment \"{why}\"");
        let of_rule = |line: &str| line.split("counter packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        let lines = rules.lines().filter(|line| line.trim_end().ends_with(&end));
        let counts: Vec<u64> = lines.filter_map(of_rule).collect();
        assert!(!counts.is_empty(), "no rule says {why}:\n{rules}");
        counts.iter().sum::<u64>()
    };
    let before = (dropped("from another network"), dropped("port not published"));
    let target = lab.address("in-back", "back");
    assert_ne!(lab.exec("in-front", &["ping", "-c2", "-W1", &target]).code, 0);
    assert!(dropped("from another network") > before.0);
    // Another reason has another counter.
    assert_eq!(dropped("port not published"), before.1);
    let undocumented = on_host(&lab, "nft list ruleset | grep ' drop' | grep -v policy | grep -vc comment; true");
    assert_eq!(undocumented, "0", "each drop says why");
}

#[test]
fn ob_07_there_is_no_swarm_to_diagnose_and_the_refusal_names_explain() {
    let failed = Lab::start_with(&program(), &["--network-diagnostic-port", "9999"]).err().unwrap().to_string();
    assert!(failed.contains("--network-diagnostic-port") && failed.contains("isle network explain"), "{failed}");
}
