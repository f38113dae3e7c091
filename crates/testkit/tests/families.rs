//! What holds for IPv4 holds for IPv6: the same checks on networks of IPv4, of both, and of IPv6 alone.
//!
//! ```text
//!   outside ── eth0 ── host ┬─ front ─ web, client
//!                           ├─ back  ─ other
//!                           ├─ inner ─ sealed, vault          (internal)
//!                           └─ quiet ─ silent, mute           (icc=false)
//! ```

use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use testkit::traffic::{At, By, publisher, sleeper, sleeper_with};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program};

/// The families of a lab's networks.
#[derive(Clone, Copy, Debug)]
struct Shape {
    v4: bool,
    v6: bool,
}

const SHAPES: [Shape; 3] = [Shape { v4: true, v6: false }, Shape { v4: true, v6: true }, Shape { v4: false, v6: true }];

impl Shape {
    /// Those of two addresses that are of its families.
    fn of(self, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<IpAddr> {
        let both = [(self.v4, IpAddr::V4(v4)), (self.v6, IpAddr::V6(v6))];
        both.into_iter().filter(|(has, _)| *has).map(|(_, address)| address).collect()
    }

    fn network(self, lab: &Lab, name: &str, mut more: Value) {
        more["Name"] = name.into();
        more["EnableIPv4"] = self.v4.into();
        more["EnableIPv6"] = self.v6.into();
        lab.network(more);
    }
}

/// All addresses that a name has for a container.
fn resolved(lab: &Lab, container: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for kind in ["-type=a", "-type=aaaa"] {
        let said = lab.exec(container, &["nslookup", kind, name]).stdout;
        let answer = said.split_once("Name:").map_or("", |(_, rest)| rest);
        let words = answer.lines().filter(|l| l.starts_with("Address")).filter_map(|l| l.split_whitespace().last());
        found.extend(words.filter_map(|w| w.parse::<IpAddr>().ok()));
    }
    found.sort();
    found.dedup();
    found
}

fn open(lab: &Lab, from: At<'_>, to: IpAddr, port: u16) -> bool {
    [By::Tcp, By::Udp].into_iter().all(|by| lab.seen(from, by, to, port).is_some())
}

fn shut(lab: &Lab, from: At<'_>, to: IpAddr, port: u16) -> bool {
    [By::Tcp, By::Udp].into_iter().all(|by| lab.seen(from, by, to, port).is_none())
}

/// Answers by TCP and UDP.
fn serve(lab: &Lab, at: At<'_>) {
    lab.serve(at, By::Tcp, 80);
    lab.serve(at, By::Udp, 80);
}

/// In a lab each, side by side: most of the time passes waiting for what shall not come.
fn each(check: impl Fn(&Lab, Shape) + Sync) {
    std::thread::scope(|scope| {
        for shape in SHAPES {
            let check = &check;
            scope.spawn(move || {
                let lab = Lab::start(&program()).unwrap();
                serve(&lab, At::Outside);
                check(&lab, shape);
            });
        }
    });
}

#[test]
fn sec_01_02_03_borders_are_the_same_for_both_families() {
    each(|lab, shape| {
        shape.network(lab, "front", json!({}));
        shape.network(lab, "back", json!({}));
        shape.network(lab, "inner", json!({ "Internal": true }));
        shape.network(lab, "quiet", json!({ "Options": { "com.docker.network.bridge.enable_icc": "false" } }));
        let members = [
            ("web", "front"),
            ("client", "front"),
            ("other", "back"),
            ("sealed", "inner"),
            ("vault", "inner"),
            ("silent", "quiet"),
            ("mute", "quiet"),
        ];
        for (name, network) in members {
            lab.run(name, sleeper(network));
        }
        for name in ["web", "vault", "silent"] {
            serve(lab, At::Container(name));
        }
        let families = usize::from(shape.v4) + usize::from(shape.v6);
        for (name, network) in [("web", "front"), ("vault", "inner"), ("silent", "quiet")] {
            let addresses = lab.addresses(name, network);
            assert_eq!(addresses.len(), families, "{shape:?} {name}");
            for to in addresses {
                let reached = |who: &str| open(lab, At::Container(who), to, 80);
                let refused = |who: &str| shut(lab, At::Container(who), to, 80);
                assert_eq!(reached("client"), network == "front", "{shape:?} client to {name} {to}");
                assert_eq!(reached("sealed"), network == "inner", "{shape:?} sealed to {name} {to}");
                assert!(refused("other") && refused("mute"), "{shape:?} others to {name} {to}");
                assert!(shut(lab, At::Outside, to, 80), "{shape:?} the outside to {name} {to}");
            }
        }
        for to in shape.of(OUTSIDE, OUTSIDE6) {
            assert!(
                open(lab, At::Container("client"), to, 80) && open(lab, At::Container("silent"), to, 80),
                "{shape:?} out to {to}"
            );
            assert!(shut(lab, At::Container("sealed"), to, 80), "{shape:?} an internal network leads nowhere: {to}");
        }
    });
}

#[test]
fn dns_01_05_names_are_answered_for_both_families_and_follow_connections() {
    each(|lab, shape| {
        shape.network(lab, "front", json!({}));
        shape.network(lab, "back", json!({}));
        for name in ["one", "two"] {
            lab.run(name, sleeper_with("front", json!({ "Aliases": ["pool"] })));
        }
        lab.run("client", sleeper("front"));
        lab.run("other", sleeper("back"));
        let addresses = |name: &str, network: &str| {
            let mut all = lab.addresses(name, network);
            all.sort();
            all
        };
        let mut pool = [addresses("one", "front"), addresses("two", "front")].concat();
        pool.sort();
        assert_eq!(resolved(lab, "client", "one"), addresses("one", "front"), "{shape:?}");
        assert_eq!(resolved(lab, "client", "pool"), pool, "{shape:?}");
        assert_eq!(resolved(lab, "other", "pool"), Vec::<IpAddr>::new(), "{shape:?}");
        lab.tell("/networks/back/connect", json!({ "Container": "one" }), 200);
        assert_eq!(resolved(lab, "other", "one"), addresses("one", "back"), "{shape:?}");
        lab.tell("/networks/front/disconnect", json!({ "Container": "one" }), 200);
        assert_eq!(resolved(lab, "client", "pool"), addresses("two", "front"), "{shape:?}");
        lab.ask("/containers/two/kill", 204);
        lab.wait("two");
        assert_eq!(resolved(lab, "client", "pool"), Vec::<IpAddr>::new(), "{shape:?}");
    });
}

#[test]
fn pt_03_12_13_ports_are_published_for_both_families() {
    each(|lab, shape| {
        shape.network(lab, "front", json!({}));
        shape.network(lab, "back", json!({}));
        let ports = |host: &str, port: &str| {
            let bindings = [("80/tcp", host, port), ("80/udp", host, port)];
            publisher("front", &bindings)
        };
        lab.run("web", ports("", "8080"));
        serve(lab, At::Container("web"));
        lab.run("near", sleeper("front"));
        lab.run("far", sleeper("back"));
        for host in shape.of(HOST, HOST6) {
            for from in [At::Outside, At::Host, At::Container("near"), At::Container("far"), At::Container("web")] {
                assert!(open(lab, from, host, 8080), "{shape:?} {host} from {}", place(from));
            }
        }
        for (n, loopback) in shape.of(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST).into_iter().enumerate() {
            let (name, port) = (format!("own{n}"), 9000 + n as u16);
            lab.run(&name, ports(&loopback.to_string(), &port.to_string()));
            serve(lab, At::Container(&name));
            assert!(open(lab, At::Host, loopback, port), "{shape:?} {loopback}");
            for host in [IpAddr::from(HOST), HOST6.into()] {
                for from in [At::Outside, At::Container("far")] {
                    assert!(shut(lab, from, host, port), "{shape:?} {loopback} is the host's own, not {host}'s");
                }
            }
        }
        lab.remove("web");
        for host in shape.of(HOST, HOST6) {
            assert!(shut(lab, At::Outside, host, 8080), "{shape:?} {host} is given back");
        }
    });
}

fn place(at: At<'_>) -> &str {
    match at {
        At::Host => "the host",
        At::Outside => "the outside",
        At::Container(name) => name,
    }
}
