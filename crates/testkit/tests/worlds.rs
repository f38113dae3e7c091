//! The model predicts the kernel: in worlds made at random, what `GET /isle/explain` says of a flow or a name is what
//! packets and queries find.
//!
//! ```text
//! WORLDS=1000 WORLDS_SEED=7 cargo nextest run -p testkit --test worlds     as many as one likes, from any seed
//! ```
//!
//! A world: networks of every kind and the default one, containers on several of them, linked where they can be, ports
//! published in every way, alone and in ranges; a server on every port of every place, which says where it is and whom it
//! sees.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::traffic::{At, By};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program};

/// Ports that every container serves.
const CONTAINER_PORTS: std::ops::Range<u16> = 80..84;
/// Ports that ranges lead to, or to some of which: a range is an interval where it is long and keeps its numbers, else a
/// list.
const RANGE_PORTS: std::ops::Range<u16> = 9000..9100;
/// Lengths of ranges: on both sides of what is an interval, and of what the proxy carries by UDP.
const LENGTHS: [u16; 4] = [2, 16, 17, 70];
/// What the host and the outside serve.
const OWN_PORT: u16 = 7000;
/// Flows asked of one world.
const FLOWS: usize = 160;
/// How many of them at once.
const AT_ONCE: usize = 40;
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// How long an answer is waited for that is not to come.
const SILENCE: Duration = Duration::from_millis(250);

/// Numbers from a seed (SplitMix64, public domain).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap_or_default()
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// What clients are told to make.
#[derive(Debug)]
struct World {
    networks: Vec<Value>,
    containers: Vec<(String, Value)>,
    host_ports: Vec<u16>,
}

fn imagine(dice: &mut Dice) -> World {
    let networks: Vec<Value> = (0..2 + dice.roll(3)).map(|n| a_network(dice, n)).collect();
    let names: Vec<String> = networks.iter().map(|n| n["Name"].as_str().unwrap().to_owned()).collect();
    let mut host_ports = Vec::new();
    let mut containers: Vec<(String, Value)> = Vec::new();
    for n in 0..3 + dice.roll(3) {
        let mut body = a_container(dice, &names, &mut host_ports);
        // A link is to one that is on the same network; on the default one, it is a line in /etc/hosts.
        let mode = body["HostConfig"]["NetworkMode"].clone();
        let near: Vec<&String> =
            containers.iter().filter(|(_, c)| c["HostConfig"]["NetworkMode"] == mode).map(|(name, _)| name).collect();
        if !near.is_empty() && dice.one_in(2) {
            body["HostConfig"]["Links"] = json!([format!("{}:linked", dice.pick(&near))]);
        }
        containers.push((format!("c{n}"), body));
    }
    World { networks, containers, host_ports }
}

fn a_network(dice: &mut Dice, n: usize) -> Value {
    let internal = dice.one_in(5);
    let (ipv4, ipv6) = match dice.roll(8) {
        0 => (false, true),
        1..=4 => (true, true),
        _ => (true, false),
    };
    let mut options = BTreeMap::new();
    for key in ["gateway_mode_ipv4", "gateway_mode_ipv6"] {
        let mode = match (internal, dice.roll(6)) {
            (true, 0 | 1) => "isolated",
            (false, 0) => "nat-unprotected",
            (false, 1 | 2) => "routed",
            _ => continue,
        };
        options.insert(format!("com.docker.network.bridge.{key}"), mode);
    }
    if dice.one_in(5) {
        options.insert("com.docker.network.bridge.enable_icc".into(), "false");
    }
    json!({ "Name": format!("n{n}"), "EnableIPv4": ipv4, "EnableIPv6": ipv6, "Internal": internal, "Options": options })
}

fn a_container(dice: &mut Dice, networks: &[String], host_ports: &mut Vec<u16>) -> Value {
    let mut endpoints = serde_json::Map::new();
    let on_default = dice.one_in(5);
    if on_default {
        endpoints.insert("bridge".into(), json!({ "GwPriority": dice.roll(2) }));
    }
    for _ in 0..usize::from(!on_default) + dice.roll(3) {
        let settings = json!({ "GwPriority": dice.roll(2), "Aliases": [dice.pick(&["a", "b"])] });
        endpoints.insert(dice.pick(networks).clone(), settings);
    }
    let mut bindings = serde_json::Map::new();
    for _ in 0..dice.roll(4) {
        let protocol = *dice.pick(&["tcp", "udp"]);
        let (host4, host6) = (HOST.to_string(), HOST6.to_string());
        let address = (*dice.pick(&["", "", "127.0.0.1", "::1", host4.as_str(), host6.as_str()])).to_owned();
        let host = 8000 + u16::try_from(host_ports.len()).unwrap();
        host_ports.push(host);
        let container = CONTAINER_PORTS.start + u16::try_from(dice.roll(CONTAINER_PORTS.len())).unwrap();
        let binding = json!({ "HostIp": address, "HostPort": host.to_string() });
        let list = bindings.entry(format!("{container}/{protocol}")).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(binding);
    }
    if dice.one_in(3) {
        let (protocol, length) = (*dice.pick(&["tcp", "udp"]), *dice.pick(&LENGTHS));
        let (host4, host6) = (HOST.to_string(), HOST6.to_string());
        let address = (*dice.pick(&["", "", "127.0.0.1", "::1", host4.as_str(), host6.as_str()])).to_owned();
        // Each container's is its own; equal ports where they can be, else shifted ones.
        let is_equal = dice.one_in(2) && !host_ports.contains(&RANGE_PORTS.start);
        let n = u16::try_from(host_ports.len()).unwrap();
        let first = if is_equal { RANGE_PORTS.start } else { 10_000 + 100 * n };
        for offset in 0..length {
            let binding = json!({ "HostIp": address, "HostPort": (first + offset).to_string() });
            bindings.insert(format!("{}/{protocol}", RANGE_PORTS.start + offset), json!([binding]));
        }
        // Its ends, and what lies beyond.
        host_ports.extend([first, first + length - 1, first + length]);
    }
    let first = if on_default { "bridge".to_owned() } else { endpoints.keys().next().unwrap().clone() };
    json!({
        "Cmd": ["sleep", "600"],
        "HostConfig": { "NetworkMode": first, "PortBindings": bindings },
        "NetworkingConfig": { "EndpointsConfig": endpoints },
    })
}

/// A world made real, with its servers, until it is dropped.
struct Real<'a> {
    lab: &'a Lab,
    world: World,
    stop: Arc<AtomicBool>,
    servers: Vec<std::thread::JoinHandle<()>>,
    /// Who has which address.
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Of our bridges.
    gateways: BTreeSet<IpAddr>,
}

impl<'a> Real<'a> {
    fn make(lab: &'a Lab, world: World) -> Self {
        for network in &world.networks {
            lab.network(network.clone());
        }
        let mut real = Real {
            lab,
            world,
            stop: Arc::default(),
            servers: Vec::new(),
            addresses: BTreeMap::new(),
            gateways: BTreeSet::new(),
        };
        for (name, body) in &real.world.containers {
            lab.run(name, body.clone());
            let shown = lab.inspect(name)["NetworkSettings"]["Networks"].clone();
            let networks = shown.as_object().unwrap().values();
            let both = networks.flat_map(|n| [&n["IPAddress"], &n["GlobalIPv6Address"]]);
            let own = both.filter_map(|a| a.as_str()?.parse().ok()).collect();
            real.addresses.insert(name.clone(), own);
        }
        let said = lab.command(At::Host, &["ip", "-o", "addr"]);
        for line in said.lines().filter(|l| l.contains(": br-") || l.contains(": isle0 ")) {
            let address = line.split_whitespace().nth(3).and_then(|a| a.split('/').next()?.parse::<IpAddr>().ok());
            real.gateways.extend(address.filter(|a| !matches!(a, IpAddr::V6(ip) if ip.is_unicast_link_local())));
        }
        let places: Vec<String> = real.addresses.keys().cloned().chain(["host".into(), "outside".into()]).collect();
        for place in places {
            real.serve(place);
        }
        real
    }

    /// All servers of a place, in one thread: an idle one would keep its namespace.
    fn serve(&mut self, place: String) {
        let ports: Vec<u16> = match at(&place) {
            At::Container(name) => CONTAINER_PORTS.chain(self.range_ports(name)).collect(),
            _ => vec![OWN_PORT],
        };
        // An answer to a datagram comes from the address that it was sent to.
        let own: Vec<IpAddr> = match place.as_str() {
            "host" => self.gateways.iter().copied().chain([HOST.into(), HOST6.into()]).collect(),
            "outside" => vec![OUTSIDE.into(), OUTSIDE6.into()],
            name => self.addresses[name].iter().copied().collect(),
        };
        let own = own.into_iter().chain(LOOPBACK);
        let (listeners, sockets): (Vec<TcpListener>, Vec<UdpSocket>) = self.lab.inside(at(&place), || {
            let any = |port: &u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).unwrap();
            let each = own.flat_map(|a| ports.iter().map(move |p| UdpSocket::bind((a, *p)).unwrap()));
            (ports.iter().map(any).collect(), each.collect())
        });
        listeners.iter().for_each(|l| l.set_nonblocking(true).unwrap());
        sockets.iter().for_each(|s| s.set_nonblocking(true).unwrap());
        let stop = self.stop.clone();
        self.servers.push(std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                for listener in &listeners {
                    while let Ok((mut stream, from)) = listener.accept() {
                        let _ = stream.write_all(format!("{place} {}", from.ip().to_canonical()).as_bytes());
                    }
                }
                for socket in &sockets {
                    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(format!("{place} {}", from.ip().to_canonical()).as_bytes(), from);
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
    }

    /// A flow that somebody could think of.
    fn a_flow(&self, dice: &mut Dice) -> Flow {
        let origins: Vec<String> = self.addresses.keys().cloned().chain(["host".into(), "outside".into()]).collect();
        let from = dice.pick(&origins).clone();
        let by = *dice.pick(&[By::Tcp, By::Udp]);
        let of_containers: Vec<IpAddr> = self.addresses.values().flatten().copied().collect();
        let of_host: Vec<IpAddr> = self
            .gateways
            .iter()
            .copied()
            .chain([HOST.into(), HOST6.into()])
            // Everybody has loopback addresses; the neighbour's are not our concern.
            .chain(LOOPBACK.into_iter().filter(|_| from != "outside"))
            .collect();
        let (to, port) = match dice.roll(8) {
            0..=2 if dice.one_in(5) => (*dice.pick(&of_containers), RANGE_PORTS.start),
            0..=2 => (*dice.pick(&of_containers), CONTAINER_PORTS.start + u16::try_from(dice.roll(4)).unwrap()),
            3 => (*dice.pick(&of_host), OWN_PORT),
            7 => (*dice.pick(&[OUTSIDE.into(), OUTSIDE6.into()]), OWN_PORT),
            _ if self.world.host_ports.is_empty() => (*dice.pick(&of_host), OWN_PORT),
            _ => (*dice.pick(&of_host), *dice.pick(&self.world.host_ports)),
        };
        Flow { from, to, by, port }
    }

    /// What is wrong with the prediction of a flow, if anything is.
    fn disagreement(&self, flow: &Flow) -> Option<String> {
        let protocol = if flow.by == By::Tcp { "tcp" } else { "udp" };
        let asked = format!("/isle/explain?from={}&to={}&port={}&protocol={protocol}", flow.from, flow.to, flow.port);
        let answer = self.lab.get(&asked).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json()["Flows"][0].clone();
        let at_place = told["At"].as_str().unwrap_or_default();
        let arrives = told["Passes"] == true && self.is_served(at_place, &told);
        let tries = if arrives { 4 } else { 1 };
        let patience = if arrives { Duration::from_secs(1) } else { SILENCE };
        let seen = (0..tries).find_map(|_| self.lab.inside(at(&flow.from), || ask(flow, patience)));
        let right = match (&seen, arrives) {
            (None, arrives) => !arrives,
            (Some(_), false) => false,
            (Some(text), true) => {
                let (place, client) = text.split_once(' ').unwrap_or((text, ""));
                place == at_place && client.parse().is_ok_and(|c| self.is_source(&flow.from, &told, c))
            }
        };
        (!right).then(|| format!("{flow:?}: predicted {told}, found {seen:?}"))
    }

    /// Whether a server listens where a flow is said to arrive.
    fn is_served(&self, place: &str, told: &Value) -> bool {
        let port = u16::try_from(told["Port"].as_u64().unwrap_or_default()).unwrap_or_default();
        let address: Option<IpAddr> = told["Address"].as_str().and_then(|a| a.parse().ok());
        match place {
            "host" => port == OWN_PORT,
            "outside" => port == OWN_PORT && [OUTSIDE.into(), OUTSIDE6.into()].map(Some).contains(&address),
            name => CONTAINER_PORTS.contains(&port) || self.range_ports(name).contains(&port),
        }
    }

    /// The ends of the range that a container publishes, and the port that follows.
    fn range_ports(&self, container: &str) -> Vec<u16> {
        let body = self.world.containers.iter().find(|(name, _)| name == container).map(|(_, body)| body);
        let bindings = body.and_then(|b| b["HostConfig"]["PortBindings"].as_object()).into_iter().flatten();
        let numbers = bindings.filter_map(|(key, _)| key.split('/').next()?.parse::<u16>().ok());
        match numbers.filter(|port| RANGE_PORTS.contains(port)).max() {
            Some(last) => vec![RANGE_PORTS.start, last, last + 1],
            None => Vec::new(),
        }
    }

    /// Whether a client's address is what was said of it.
    fn is_source(&self, from: &str, told: &Value, client: IpAddr) -> bool {
        let hosts = || self.gateways.contains(&client) || client == HOST || client == HOST6 || client.is_loopback();
        match (told["Source"].as_str().unwrap_or_default(), from) {
            ("own", "host") => hosts(),
            ("own", "outside") => client == OUTSIDE || client == OUTSIDE6,
            ("own", name) => self.addresses[name].contains(&client) || client.is_loopback(),
            ("gateway", _) => self.gateways.contains(&client),
            ("host", _) => client == HOST || client == HOST6,
            ("proxy", _) => hosts(),
            _ => false,
        }
    }

    /// What is wrong with what a name is said to lead to.
    fn misnaming(&self, dice: &mut Dice) -> Option<String> {
        let names: Vec<String> = self.addresses.keys().cloned().collect();
        let from = dice.pick(&names).clone();
        let known: Vec<String> =
            names.into_iter().chain(["a", "b", "c0.n0", "a.n1", "linked"].map(str::to_owned)).collect();
        let name = dice.pick(&known).clone();
        let answer = self.lab.get(&format!("/isle/explain?from={from}&to={name}&port=80")).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        let told = json["Flows"].as_array().unwrap().iter().filter_map(|f| f["To"].as_str());
        let told: BTreeSet<String> = told.map(str::to_owned).collect();
        let found: BTreeSet<String> = self.resolve(&from, &name);
        (told != found)
            .then(|| format!("{from} asks for {name}: predicted {told:?} ({}), found {found:?}", json["Name"]))
    }

    /// Both families' addresses of a name, by the container's own resolver.
    fn resolve(&self, from: &str, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for kind in ["A", "AAAA"] {
            let dig = ["dig", "+short", "+tries=2", "+time=2", "@127.0.0.11", "-q", name, "-t", kind];
            let said = self.lab.command(At::Container(from), &dig);
            found.extend(said.lines().filter(|l| l.parse::<IpAddr>().is_ok()).map(str::to_owned));
        }
        found
    }
}

impl Drop for Real<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.servers.drain(..).for_each(|s| drop(s.join()));
        for (name, _) in &self.world.containers {
            let _ = self.lab.delete(&format!("/containers/{name}?force=1"));
        }
        for network in &self.world.networks {
            let _ = self.lab.delete(&format!("/networks/{}", network["Name"].as_str().unwrap_or_default()));
        }
    }
}

#[derive(Clone, Debug)]
struct Flow {
    from: String,
    to: IpAddr,
    by: By,
    port: u16,
}

fn at(place: &str) -> At<'_> {
    match place {
        "host" => At::Host,
        "outside" => At::Outside,
        name => At::Container(name),
    }
}

/// What the server at the end of a flow says; None if nobody does within `patience`.
fn ask(flow: &Flow, patience: Duration) -> Option<String> {
    let to = SocketAddr::new(flow.to, flow.port);
    let mut text = String::new();
    match flow.by {
        By::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
            stream.set_read_timeout(Some(patience)).ok()?;
            stream.read_to_string(&mut text).ok()?;
        }
        By::Udp => {
            let local: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((local, 0)).ok()?;
            socket.connect(to).ok()?;
            socket.set_read_timeout(Some(patience)).ok()?;
            socket.send(b"?").ok()?;
            let mut buffer = [0; 256];
            let length = match socket.recv(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => socket.recv(&mut buffer).ok()?,
                other => other.ok()?,
            };
            text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    (!text.is_empty()).then_some(text)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn ob_06_the_model_predicts_what_packets_and_queries_find() {
    let count = number("WORLDS", 6);
    let seed = number("WORLDS_SEED", u64::from(std::process::id()));
    println!("WORLDS={count} WORLDS_SEED={seed}");
    let lab = Lab::start(&program()).unwrap();
    // The neighbour sends whatever it likes by the host.
    for family in ["-4", "-6"] {
        let host = if family == "-4" { HOST.to_string() } else { HOST6.to_string() };
        lab.command(At::Outside, &["ip", family, "route", "add", "default", "via", &host]);
    }
    let mut wrong = Vec::new();
    for n in seed..seed + count {
        let mut dice = Dice(n);
        let real = Real::make(&lab, imagine(&mut dice));
        let flows: Vec<Flow> = (0..FLOWS).map(|_| real.a_flow(&mut dice)).collect();
        let mut here: Vec<String> = Vec::new();
        for part in flows.chunks(AT_ONCE) {
            let real = &real;
            std::thread::scope(|scope| {
                let asking: Vec<_> = part.iter().map(|f| scope.spawn(|| real.disagreement(f))).collect();
                here.extend(asking.into_iter().filter_map(|a| a.join().unwrap()));
            });
        }
        here.extend((0..6).filter_map(|_| real.misnaming(&mut dice)));
        if !here.is_empty() {
            let shown = |v: &Value| format!("  {v}\n");
            let networks: String = real.world.networks.iter().map(shown).collect();
            let containers: String = real.world.containers.iter().map(|(n, c)| format!("  {n} {c}\n")).collect();
            wrong.push(format!("WORLDS_SEED={n}:\n{networks}{containers}  {:?}\n{}", real.addresses, here.join("\n")));
        }
        if (n - seed) % 100 == 99 {
            println!("{} worlds, {} with a disagreement", n - seed + 1, wrong.len());
        }
        if wrong.len() > 2 {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
