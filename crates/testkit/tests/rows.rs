//! Rows of the checklist that need little: modes and drivers, a host that is broken, what can be changed and what not,
//! what is counted.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use testkit::traffic::{At, By, publisher};
use testkit::{HOST, Lab, OUTSIDE, program, within};

fn sleeper(network: &str) -> Value {
    json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": network } })
}

/// A network whose bridge is called as it is.
fn named(lab: &Lab, name: &str) {
    lab.network(json!({ "Name": name, "Options": { "com.docker.network.bridge.name": name } }));
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
    lab.tell("/networks/front/connect", json!({ "Container": "guest" }), 400);
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
    lab.ask("/debug/faults?at=update", 204);
    lab.tell("/containers/box/update", json!({ "PidsLimit": 30, "RestartPolicy": { "Name": "no" } }), 500);
    let host = lab.inspect("box")["HostConfig"].clone();
    assert_eq!((&host["PidsLimit"], &host["RestartPolicy"]["Name"]), (&json!(20), &json!("always")));
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
    for name in ["broken", "whole"] {
        named(&lab, name);
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

#[test]
fn br_12_settings_of_an_endpoint_are_its_interfaces_alone_wherever_it_is_connected() {
    let lab = Lab::start(&program()).unwrap();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    let with = |options: &str| json!({ "DriverOpts": { "com.docker.network.endpoint.sysctls": options } });
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": with("net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.ifname.gc_stale_time=77") } });
    lab.run("set", body);
    lab.tell(
        "/networks/back/connect",
        json!({ "Container": "set", "EndpointConfig": with("net.ipv6.conf.IFNAME.hop_limit=33") }),
        200,
    );
    let read = |key: &str| lab.exec("set", &["cat", &format!("/proc/sys/net/{key}")]).ok();
    let made = |eth: &str| {
        let keys = ["ipv4/conf/ETH/log_martians", "ipv4/neigh/ETH/gc_stale_time", "ipv6/conf/ETH/hop_limit"];
        keys.map(|key| read(&key.replace("ETH", eth)))
    };
    assert_eq!(made("eth0"), ["1", "77", "64"]);
    assert_eq!(made("eth1"), ["0", "60", "33"]);
    // At its next start, too, whatever the order of its interfaces.
    lab.ask("/containers/set/restart?t=0", 204);
    assert_eq!(
        (made("eth0"), made("eth1")),
        (["1", "77", "64"].map(str::to_owned), ["0", "60", "33"].map(str::to_owned))
    );
    // What is the sandbox's, another interface's, or says nothing is refused; one that the kernel has not fails the start.
    for wrong in
        ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "kernel.a.b.IFNAME.c=1", "net.ipv4.conf.IFNAME.x"]
    {
        let mut body = sleeper("front");
        body["Image"] = "busybox".into();
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": with(wrong) } });
        let message = lab.tell("/containers/create", body, 400).message();
        assert!(message.contains(&format!("invalid endpoint setting {wrong:?}")), "{message}");
    }
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": with("net.ipv4.conf.IFNAME.nosuch=1") } });
    lab.create("nosuch", body);
    let failed = lab.ask("/containers/nosuch/start", 500).message();
    assert!(failed.contains("net/ipv4/conf/eth0/nosuch"), "{failed}");
}

#[test]
fn br_15_a_link_on_a_network_is_a_name_for_the_linker_that_follows_its_target() {
    let lab = Lab::start(&program()).unwrap();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    for name in ["target", "other"] {
        lab.run(name, sleeper("front"));
    }
    let mut body = sleeper("front");
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Links": ["target:db"] } } });
    lab.run("linker", body);
    let target = || [lab.address("target", "front")];
    assert_eq!(lab.lookup("linker", "db"), target());
    assert_eq!((lab.lookup("other", "db"), lab.lookup("target", "db")), (vec![], vec![]), "nobody else's");
    assert!(!lab.exec("linker", &["cat", "/etc/hosts"]).ok().contains("db"), "no line, as on the default network");
    assert!(!lab.exec("linker", &["env"]).ok().contains("DB_"), "no variable either");
    // It goes before somebody's name, and follows its target through a restart and a rename.
    lab.run("db", sleeper("front"));
    assert_eq!(lab.lookup("linker", "db"), target());
    assert_eq!(lab.lookup("other", "db"), [lab.address("db", "front")]);
    lab.ask("/containers/target/stop?t=0", 204);
    lab.run("between", sleeper("front"));
    lab.ask("/containers/target/start", 204);
    assert_eq!(lab.lookup("linker", "db"), target());
    lab.ask("/containers/target/rename?name=moved", 204);
    assert_eq!(lab.lookup("linker", "db"), [lab.address("moved", "front")]);
    // On another network it is no name.
    lab.tell("/networks/back/connect", json!({ "Container": "moved" }), 200);
    lab.tell("/networks/front/disconnect", json!({ "Container": "moved" }), 200);
    assert_eq!(lab.lookup("linker", "db"), [lab.address("db", "front")]);
}

#[test]
fn br_17_the_container_that_a_full_bridge_has_no_port_for_hears_of_the_kernels_limit() {
    let lab = Lab::start(&program()).unwrap();
    named(&lab, "full");
    lab.create("late", sleeper("full"));
    // Ports by hand: what is counted is ports.
    let ports = "for n in $(seq 0 511); do echo link add p$n master full type veth peer name q$n; \
                 [ $n = 511 ] || echo link set q$n master full; done | ip -batch -";
    on_host(&lab, ports);
    let failed = lab.ask("/containers/late/start", 500).message();
    assert!(failed.contains("1023") && failed.contains("full"), "{failed}");
    assert_eq!(lab.status("late"), "created");
    on_host(&lab, "ip link del p0");
    lab.ask("/containers/late/start", 204);
}

#[test]
fn lc_02_a_container_that_stops_or_dies_gives_everything_back() {
    let lab = Lab::start(&program()).unwrap();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name, "EnableIPv6": true }));
    }
    let mut body = publisher("front", &[("80/tcp", "", "8080"), ("53/udp", "", "5353")]);
    body["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["www"] }, "back": {} } });
    lab.run("web", body);
    lab.run("client", sleeper("front"));
    // It has its files once it has been there.
    lab.ask("/containers/web/stop?t=0", 204);
    let before = lab.still_world();
    let ends: [&dyn Fn(&str); 2] = [&|_| drop(lab.ask("/containers/web/stop?t=0", 204)), &|pid| {
        lab.on_host(Command::new("kill").args(["-9", pid])).ok();
    }];
    for end in ends {
        lab.ask("/containers/web/start", 204);
        assert_eq!(lab.lookup("client", "www"), [lab.address("web", "front")]);
        let had = lab.addresses("web", "front");
        end(&lab.inspect("web")["State"]["Pid"].to_string());
        within(Duration::from_secs(5), "it is over", || lab.status("web") == "exited");
        lab.world_is(&before, "its end");
        assert_eq!(lab.lookup("client", "www"), [""; 0]);
        let shown = lab.inspect("web")["NetworkSettings"].clone();
        assert_eq!((&shown["Networks"]["front"]["IPAddress"], &shown["Ports"]), (&json!(""), &json!({})));
        for port in [8080, 5353] {
            lab.in_host(|| TcpListener::bind(("0.0.0.0", port)).map(drop)).unwrap();
        }
        // Its addresses are others': asked for by number they would be refused.
        assert!(lab.seen(At::Container("client"), By::Tcp, had[0], 80).is_none());
    }
}

#[test]
fn lc_04_what_an_earlier_life_left_is_taken_away_at_the_start_and_nothing_else() {
    let mut lab = Lab::start(&program()).unwrap();
    named(&lab, "front");
    let mut body = sleeper("front");
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    lab.run("dies", body);
    lab.run("lives", sleeper("front"));
    let alias = on_host(&lab, "ip -o link show dev front | grep -o 'isle:[0-9a-f]*' | head -1");
    let pid = lab.inspect("dies")["State"]["Pid"].to_string();
    let outer = lab.inspect("dies")["NetworkSettings"]["Networks"]["front"]["EndpointID"].as_str().unwrap().to_owned();
    let outer = format!("ve{}", &outer[..13]);
    assert!(on_host(&lab, "ip -br link").contains(&outer));
    lab.stop_daemon();
    // One dies meanwhile; what carries our mark and belongs to nobody is there; another daemon's, and somebody's own.
    lab.on_host(Command::new("kill").args(["-9", &pid])).ok();
    for (name, mark) in
        [("stale0", format!("{alias}:0101")), ("theirs0", "isle:00000000:0101".into()), ("own0", String::new())]
    {
        on_host(&lab, &format!("ip link add {name} type bridge && ip link set {name} alias '{mark}'"));
    }
    lab.start_daemon().unwrap();
    assert_eq!((lab.status("dies"), lab.status("lives")), ("exited".into(), "running".into()));
    within(Duration::from_secs(5), "what is left over goes", || {
        let links = on_host(&lab, "ip -br link");
        !links.contains("stale0") && !links.contains(&outer)
    });
    let links = on_host(&lab, "ip -br link");
    assert!(links.contains("theirs0") && links.contains("own0") && links.contains("front"), "{links}");
    lab.in_host(|| TcpListener::bind("0.0.0.0:8080").map(drop)).unwrap();
    lab.run("newcomer", sleeper("front"));
    assert_eq!(lab.lookup("newcomer", "lives"), [lab.address("lives", "front")]);
    assert_eq!(lab.lookup("newcomer", "dies"), [""; 0]);
    lab.ask("/containers/dies/start", 204);
}

#[test]
fn lc_12_rules_of_another_version_are_replaced_and_containers_go_on() {
    let mut lab = Lab::start(&program()).unwrap();
    named(&lab, "front");
    lab.run("web", publisher("front", &[("80/tcp", "", "8080")]));
    lab.serve(At::Container("web"), By::Tcp, 80);
    let to = lab.addresses("web", "front")[0];
    lab.outside(Command::new("ip").args(["route", "add", &format!("{to}/32"), "via", &HOST.to_string()])).ok();
    // Kept from who has a route to it, and published.
    let works = |lab: &Lab| {
        let apart = lab.seen(At::Outside, By::Tcp, to, 80).is_none();
        (apart, lab.seen(At::Outside, By::Tcp, HOST.into(), 8080) == Some(OUTSIDE.into()))
    };
    assert_eq!(works(&lab), (true, true));
    // An earlier version had other chains: whoever held the tables is gone, and what they say is not ours.
    let keeper = lab.keeper_pid().expect("a keeper").to_string();
    lab.kill_daemon();
    lab.on_host(Command::new("kill").args(["-9", &keeper])).ok();
    within(Duration::from_secs(5), "the keeper is gone", || lab.keeper_pid().is_none());
    let table = on_host(&lab, "nft list tables | grep -o 'inet isle-.*' | head -1");
    on_host(
        &lab,
        &format!("nft flush chain {table} forward; nft add chain {table} older; nft flush chain {table} publish"),
    );
    assert_eq!(works(&lab), (false, false), "as they are now");
    lab.start_daemon().unwrap();
    assert_eq!(works(&lab), (true, true));
    assert!(!on_host(&lab, &format!("nft list table {table}")).contains("chain older"));
    // What the flags change of the rules is a version, too.
    lab.stop_daemon();
    lab.arguments = vec!["--bridge-accept-fwmark=0x10/0x30".into()];
    lab.start_daemon().unwrap();
    assert_eq!(works(&lab), (true, true));
}

#[test]
fn sec_07_what_a_rule_of_the_users_has_marked_passes_into_networks_if_the_daemon_is_told() {
    let lab = Lab::start_with(&program(), &["--bridge-accept-fwmark=0x10/0x30"]).unwrap();
    named(&lab, "front");
    lab.network(json!({ "Name": "shut", "Internal": true }));
    for (name, network) in [("web", "front"), ("inner", "shut")] {
        lab.run(name, sleeper(network));
        lab.serve(At::Container(name), By::Tcp, 80);
        let route = format!("ip route add {}/32 via {HOST}", lab.address(name, network));
        lab.outside(Command::new("sh").args(["-c", &route])).ok();
    }
    let seen = |name: &str, network: &str| lab.seen(At::Outside, By::Tcp, lab.addresses(name, network)[0], 80);
    assert_eq!(seen("web", "front"), None);
    let marked = |mark: &str| {
        on_host(
            &lab,
            &format!(
                "nft add table inet mine; nft flush table inet mine; \
             nft 'add chain inet mine first {{ type filter hook prerouting priority -200; }}'; \
             nft add rule inet mine first iifname eth0 meta mark set {mark}"
            ),
        );
    };
    marked("0x20");
    assert_eq!(seen("web", "front"), None, "another mark");
    marked("0x11");
    assert_eq!(seen("web", "front"), Some(OUTSIDE.into()), "the bits that count are so");
    assert_eq!(seen("inner", "shut"), None, "an internal network stays one");
    let wrong = Lab::start_with(&program(), &["--bridge-accept-fwmark=0x13/0x3x"]).err().unwrap().to_string();
    assert!(wrong.contains("invalid firewall mark"), "{wrong}");
}

#[test]
fn ob_02_stats_count_what_passes_each_interface() {
    let lab = Lab::start(&program()).unwrap();
    for name in ["front", "back"] {
        lab.network(json!({ "Name": name }));
    }
    lab.run("web", sleeper("front"));
    lab.tell("/networks/back/connect", json!({ "Container": "web" }), 200);
    lab.run("client", sleeper("front"));
    let networks = |name: &str| {
        let stats = lab.get(&format!("/containers/{name}/stats?stream=false&one-shot=true")).unwrap().json();
        stats["networks"].clone()
    };
    let count = |networks: &Value, interface: &str, key: &str| networks[interface][key].as_u64().unwrap();
    let before = networks("web");
    assert_eq!(before.as_object().unwrap().keys().collect::<Vec<_>>(), ["eth0", "eth1"]);
    let address = lab.address("web", "front");
    lab.exec("client", &["ping", "-c5", "-i0.1", "-s1000", &address]).ok();
    let after = networks("web");
    for (packets, bytes) in [("rx_packets", "rx_bytes"), ("tx_packets", "tx_bytes")] {
        let more = |key: &str, of: &str| count(&after, of, key) - count(&before, of, key);
        assert!(more(packets, "eth0") >= 5 && more(bytes, "eth0") >= 5 * 1000, "{before} {after}");
        assert!(more(bytes, "eth1") < 1000, "nothing passed the other: {before} {after}");
    }
    for key in ["rx_errors", "rx_dropped", "tx_errors", "tx_dropped"] {
        assert!(after["eth0"][key].is_u64(), "{key}: {after}");
    }
    for mode in ["host", "none"] {
        lab.run(mode, sleeper(mode));
        let shown = networks(mode);
        assert!(shown.is_null() || shown.as_object().is_some_and(|o| o.is_empty()), "{mode}: {shown}");
    }
}
