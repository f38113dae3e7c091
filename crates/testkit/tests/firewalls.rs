//! Other firewalls on the same machine: what they forbid stays forbidden, and the places that they keep for others are
//! used. Docker's and ufw's chains are made here as their programs make them; firewalld's program is a stand-in that says
//! what it was told. The real ones are in `beside`.

use serde_json::json;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use testkit::traffic::{At, By, publisher, sleeper};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program, within};

fn on_host(lab: &Lab, words: &str) {
    let command: Vec<&str> = words.split(' ').collect();
    let said = lab.command(At::Host, &command);
    assert_eq!(said, "", "{words}");
}

/// As Docker leaves its FORWARD chain, or ufw: a policy to drop, and a place for others.
fn dropping(lab: &Lab, places: [&str; 2]) {
    dropping_by(lab, ["iptables", "ip6tables"], places);
}

fn dropping_by(lab: &Lab, programs: [&str; 2], places: [&str; 2]) {
    for (program, place) in programs.into_iter().zip(places) {
        on_host(lab, &format!("{program} -P FORWARD DROP"));
        on_host(lab, &format!("{program} -N {place}"));
        on_host(lab, &format!("{program} -A FORWARD -j {place}"));
    }
}

fn served(lab: &Lab) {
    let options = json!({ "com.docker.network.bridge.name": "br-front" });
    lab.network(json!({ "Name": "front", "EnableIPv6": true, "Options": options }));
    lab.run("web", publisher("front", &[("80/tcp", "", "8080")]));
    lab.serve(At::Container("web"), By::Tcp, 80);
}

/// A lab in which the outside answers.
fn lab_after(prepare: impl FnOnce(&mut Lab)) -> Lab {
    let lab = Lab::start_after(&program(), prepare).unwrap();
    lab.serve(At::Outside, By::Tcp, 80);
    lab
}

/// Whether the container reaches the outside, and the outside the container.
fn works(lab: &Lab) -> bool {
    let out = |to: IpAddr| lab.seen(At::Container("web"), By::Tcp, to, 80).is_some();
    let back = |to: IpAddr| lab.seen(At::Outside, By::Tcp, to, 8080).is_some();
    out(OUTSIDE.into()) && back(HOST.into()) && out(OUTSIDE6.into()) && back(HOST6.into())
}

fn warnings(lab: &Lab) -> String {
    lab.get("/info").unwrap().json()["Warnings"].to_string()
}

fn told(lab: &Lab) -> String {
    lab.get("/info").unwrap().json()["FirewallBackend"]["Info"].to_string()
}

#[test]
fn sec_07_what_a_table_of_the_users_forbids_stays_forbidden() {
    let lab = lab_after(|_| ());
    served(&lab);
    assert!(works(&lab));
    // Published ports do not bypass it: it sees them as they are forwarded, with the port they were asked for by.
    on_host(&lab, "nft add table inet mine");
    on_host(&lab, "nft add chain inet mine forward { type filter hook forward priority 10 ; }");
    on_host(&lab, "nft add rule inet mine forward iifname eth0 meta l4proto tcp ct original proto-dst 8080 drop");
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 8080), None);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8080), None);
    assert!(lab.seen(At::Container("web"), By::Tcp, OUTSIDE.into(), 80).is_some(), "only that");
    on_host(&lab, "nft delete table inet mine");
    assert!(works(&lab));
    // SEC-10: our own tables forbid nothing that is not about our networks.
    let rules = lab.command(At::Host, &["nft", "list", "ruleset"]);
    assert!(!rules.contains("policy drop"), "{rules}");
}

#[test]
fn sec_08_rules_for_the_hosts_own_input_do_not_close_published_ports() {
    let lab = lab_after(|lab| {
        for program in ["iptables", "ip6tables"] {
            on_host(lab, &format!("{program} -P INPUT DROP"));
            on_host(lab, &format!("{program} -A INPUT -i lo -j ACCEPT"));
            on_host(lab, &format!("{program} -A INPUT -p ipv6-icmp -j ACCEPT"));
        }
    });
    served(&lab);
    assert!(works(&lab));
    lab.serve(At::Host, By::Tcp, 7000);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 7000), None, "the host's own services are its own business");
}

#[test]
fn sec_08_where_ufw_drops_what_is_forwarded_its_route_rules_let_our_networks_pass() {
    let lab = lab_after(|lab| dropping(lab, ["ufw-user-forward", "ufw6-user-forward"]));
    served(&lab);
    assert!(works(&lab));
    assert!(told(&lab).contains("ufw-user-forward"), "{}", told(&lab));
    assert!(!warnings(&lab).contains("drops what is forwarded"), "{}", warnings(&lab));
    // A reload takes what was said away; it is said again.
    on_host(&lab, "iptables -F ufw-user-forward");
    on_host(&lab, "ip6tables -F ufw6-user-forward");
    within(Duration::from_secs(5), "our networks pass again", || works(&lab));
}

#[test]
fn sec_10_beside_docker_its_chain_for_users_lets_our_networks_pass() {
    let mut lab = lab_after(|lab| {
        dropping(lab, ["DOCKER-USER", "DOCKER-USER"]);
        on_host(lab, "iptables -A DOCKER-USER -s 203.0.113.0/24 -j DROP");
    });
    served(&lab);
    assert!(works(&lab));
    let rules = || lab.command(At::Host, &["iptables", "-S", "DOCKER-USER"]);
    assert!(rules().contains("-A DOCKER-USER -s 203.0.113.0/24 -j DROP"), "the user's own stay: {}", rules());
    assert_eq!(rules().matches("br-front").count(), 4, "in and out, each with its mark: {}", rules());
    lab.remove("web");
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    within(Duration::from_secs(5), "its rules go with a network", || !rules().contains("br-front"));
    // Told to leave others alone, it does, and says what that means.
    lab.stop_daemon();
    on_host(&lab, "iptables -F DOCKER-USER");
    on_host(&lab, "ip6tables -F DOCKER-USER");
    lab.arguments = vec!["--no-firewall-integration".into()];
    lab.start_daemon().unwrap();
    served(&lab);
    assert!(!works(&lab));
    let said = warnings(&lab);
    assert!(said.contains("firewall chain FORWARD of table ip filter drops what is forwarded"), "{said}");
    assert!(said.contains("firewall chain FORWARD of table ip6 filter drops what is forwarded"), "{said}");
}

#[test]
fn sec_10_iptables_of_the_older_kind_are_seen_and_used_too() {
    let programs = ["iptables-legacy", "ip6tables-legacy"];
    let mut lab = lab_after(|lab| dropping_by(lab, programs, ["DOCKER-USER"; 2]));
    served(&lab);
    assert!(works(&lab));
    assert!(!warnings(&lab).contains("drops what is forwarded"), "{}", warnings(&lab));
    lab.stop_daemon();
    for program in programs {
        on_host(&lab, &format!("{program} -F"));
        on_host(&lab, &format!("{program} -X"));
    }
    lab.start_daemon().unwrap();
    assert!(!works(&lab));
    let said = warnings(&lab);
    assert!(said.contains("chain FORWARD of table ip filter (iptables-legacy) drops what is forwarded"), "{said}");
}

#[test]
fn sec_10_a_foreign_chain_that_drops_is_named() {
    let lab = Lab::start(&program()).unwrap();
    assert!(!warnings(&lab).contains("drops what is forwarded"));
    on_host(&lab, "nft add table inet theirs");
    on_host(&lab, "nft add chain inet theirs gate { type filter hook forward priority 0 ; policy drop ; }");
    let said = warnings(&lab);
    assert!(said.contains("firewall chain gate of table inet theirs drops what is forwarded"), "{said}");
    lab.network(json!({ "Name": "front" }));
    lab.run("client", sleeper("front"));
    let explained = lab.isle(&["network", "explain", "client", &format!("{OUTSIDE}:80")]).ok();
    assert!(explained.ends_with("; but chain gate of table inet theirs drops what it has no rule for"), "{explained}");
}

#[test]
fn sec_08_what_the_proxy_carries_is_the_hosts_input_to_others_and_this_is_said() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "four" }));
    lab.run("older", publisher("four", &[("80/tcp", "", "8090")]));
    lab.serve(At::Container("older"), By::Tcp, 80);
    let explained = |to: IpAddr| {
        let asked = format!("/isle/explain?from=outside&to={to}&port=8090&protocol=tcp");
        lab.get(&asked).unwrap().json()["Flows"][0].to_string()
    };
    assert!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8090).is_some());
    assert!(explained(HOST6.into()).contains("those for the host's input do\""), "{}", explained(HOST6.into()));
    assert!(!explained(HOST.into()).contains("input"), "the kernel leads it: {}", explained(HOST.into()));
    assert!(!warnings(&lab).contains("the proxy carries"), "{}", warnings(&lab));
    on_host(&lab, "ip6tables -P INPUT DROP");
    on_host(&lab, "ip6tables -A INPUT -p ipv6-icmp -j ACCEPT");
    let said = warnings(&lab);
    let expected = "firewall chain INPUT of table ip6 filter drops what comes to this host, and so what the proxy carries \
                    by IPv6, unless it has rules for it: ports 8090/tcp of older;";
    assert!(said.contains(expected), "{said}");
    assert!(explained(HOST6.into()).contains("chain INPUT of table ip6 filter drops what it has no rule for"));
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8090), None, "and so it is");
    assert!(lab.seen(At::Outside, By::Tcp, HOST.into(), 8090).is_some());
}

#[test]
fn sec_09_firewalld_has_our_bridges_in_its_trusted_zone() {
    let mut lab = Lab::start_after(&program(), |lab| {
        let programs = lab.directory().join("programs");
        std::fs::create_dir_all(&programs).unwrap();
        let script = format!("#!/bin/sh\necho \"$*\" >>{}/firewalld\n", lab.directory().display());
        std::fs::write(programs.join("firewall-cmd"), script).unwrap();
        std::fs::set_permissions(programs.join("firewall-cmd"), std::fs::Permissions::from_mode(0o755)).unwrap();
        lab.programs = Some(programs);
        on_host(lab, "nft add table inet firewalld");
    })
    .unwrap();
    let said = |lab: &Lab| std::fs::read_to_string(lab.directory().join("firewalld")).unwrap_or_default();
    assert!(said(&lab).contains("--zone=trusted --add-interface=isle0\n"), "{}", said(&lab));
    lab.network(json!({ "Name": "front", "Options": { "com.docker.network.bridge.name": "br-front" } }));
    lab.network(
        json!({ "Name": "inner", "Internal": true, "Options": { "com.docker.network.bridge.name": "br-inner" } }),
    );
    assert!(said(&lab).ends_with("--zone=trusted --add-interface=br-front\n"), "each once: {}", said(&lab));
    lab.run("member", sleeper("front"));
    lab.remove("member");
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    within(Duration::from_secs(5), "it is taken out", || {
        said(&lab).ends_with("--zone=trusted --remove-interface=br-front\n")
    });
    assert!(told(&lab).contains("firewalld"));
    lab.stop_daemon();
}
