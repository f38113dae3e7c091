//! The resolver as a container meets it: questions as libraries ask them, and as attackers do.
//!
//! ```text
//!   outside ── eth0 ── host, 127.0.0.53-like upstream ── front: web (alias www), client
//!                                                         quiet: upstream (silent), asker (--dns upstream)
//! ```

use serde_json::json;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use testkit::{Lab, program, within};

const A: u16 = 1;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
const ANY: u16 = 255;

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// A question of class IN that wishes recursion, as it goes over the wire.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An OPT record that offers `size` (RFC 6891).
fn with_edns(mut message: Vec<u8>, version: u8, size: u16) -> Vec<u8> {
    message[11] = 1;
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend([0, version, 0, 0, 0, 0]);
    message
}

fn socket(lab: &Lab, container: &str) -> UdpSocket {
    let socket = lab.in_container(container, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket
    });
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    socket.send(message).unwrap();
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("{message:02x?} is not answered: {e}"));
    answer.truncate(length);
    assert_eq!(answer[..2], message[..2], "the answer is to another question");
    answer
}

fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 15
}

fn answers(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[6], answer[7]])
}

#[test]
fn dns_07_08_19_every_librarys_way_of_asking_is_answered_rightly() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    let mut web = json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } });
    web["NetworkingConfig"] = json!({ "EndpointsConfig": { "front": { "Aliases": ["www"] } } });
    lab.run("web", web);
    lab.run("client", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    let resolver = socket(&lab, "client");

    // glibc and musl: A and AAAA at once from one socket; answers may come in any order, and NODATA is never NXDOMAIN.
    for name in ["web", "www", "web.front", "WEB", "web."] {
        resolver.send(&question(1, name, A)).unwrap();
        resolver.send(&question(2, name, AAAA)).unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let mut answer = [0; 512];
            resolver.recv(&mut answer).unwrap();
            seen.push((answer[1], rcode(&answer), answers(&answer)));
        }
        seen.sort_unstable();
        assert_eq!(seen, [(1, NOERROR, 1), (2, NOERROR, 0)], "{name}");
    }
    // Types that a known name lacks (DNS-08): no answer of somebody else's, no NXDOMAIN.
    for kind in [MX, TXT, HTTPS, AAAA] {
        let answer = ask(&resolver, &question(3, "web", kind));
        assert_eq!((rcode(&answer), answers(&answer)), (NOERROR, 0), "type {kind}");
    }
    let any = ask(&resolver, &question(3, "web", ANY));
    assert_eq!(rcode(&any), NOERROR);
    // A search list: what does not exist is NXDOMAIN, so that the library tries the next (upstream says so).
    for kind in [A, AAAA] {
        assert_eq!(rcode(&ask(&resolver, &question(4, "web.search.example", kind))), NXDOMAIN, "type {kind}");
    }
    // 0x20: the question comes back letter for letter.
    let mixed = question(5, "wEb.fROnt", A);
    let answer = ask(&resolver, &mixed);
    assert_eq!(answer[12..mixed.len()], mixed[12..]);
    assert_eq!(answers(&answer), 1);
    // EDNS is answered with EDNS, and not offered to who has not said it; a version to come is refused (BADVERS).
    let offered = ask(&resolver, &with_edns(question(6, "web", A), 0, 1232));
    assert_eq!((answers(&offered), offered[11]), (1, 1));
    assert_eq!(ask(&resolver, &question(7, "web", A))[11], 0);
    let tiny = ask(&resolver, &with_edns(question(8, "web", A), 0, 0));
    assert_eq!(answers(&tiny), 1, "less than 512 is 512");
    let future = ask(&resolver, &with_edns(question(9, "web", A), 1, 1232));
    assert_eq!((rcode(&future), answers(&future)), (0, 0));
    assert_eq!(future[future.len() - 6], 1, "the upper bits of BADVERS");
    // CHAOS, and messages that are none.
    let mut chaos = question(10, "version.bind", TXT);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(rcode(&ask(&resolver, &chaos)), REFUSED);
    let mut none = question(11, "web", A);
    none[5] = 0;
    assert_eq!(rcode(&ask(&resolver, &none)), FORMERR);
    let mut two = question(12, "web", A);
    two[5] = 2;
    assert_eq!(rcode(&ask(&resolver, &two)), FORMERR);
    let mut notify = question(13, "web", A);
    notify[2] |= 4 << 3;
    assert_eq!(rcode(&ask(&resolver, &notify)), NOTIMP);
    // A name that points at itself, one that runs over the end, half a header, an answer, nothing: an error or silence,
    // and the next question is answered.
    let mut looping = question(14, "", A);
    looping.splice(12..13, [0xc0, 12]);
    let mut answer_to_none = question(15, "web", A);
    answer_to_none[2] |= 0x80;
    let open_label = [&question(16, "", A)[..12], &[63, b'a']].concat();
    for hostile in [looping, answer_to_none, open_label, vec![0; 5], Vec::new(), vec![0xff; 9000]] {
        resolver.send(&hostile).unwrap();
    }
    within(Duration::from_secs(5), "the resolver goes on", || {
        resolver.send(&question(0x7777, "web", A)).unwrap();
        let mut answer = [0; 512];
        // What it says to the others comes first.
        (0..8).any(|_| resolver.recv(&mut answer).is_ok() && answer[..2] == [0x77, 0x77] && answers(&answer) == 1)
    });
}

#[test]
fn dns_18_a_flood_of_questions_is_bounded_and_others_are_answered_meanwhile() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "quiet" }));
    lab.run("upstream", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "quiet" } }));
    // It hears every question and answers none.
    let silent = lab.in_container("upstream", || UdpSocket::bind("0.0.0.0:53").unwrap());
    let dns = lab.address("upstream", "quiet");
    for name in ["asker", "neighbour"] {
        let host = json!({ "NetworkMode": "quiet", "Dns": [dns] });
        lab.run(name, json!({ "Cmd": ["sleep", "600"], "HostConfig": host }));
    }
    let (flood, neighbour) = (socket(&lab, "asker"), socket(&lab, "neighbour"));
    flood.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let mut refused = 0;
    // Until it is told to stop: 1024 are under way, as many wait.
    let mut asked = 0_u16;
    while refused < 100 {
        assert!(begun.elapsed() < Duration::from_secs(2), "{asked} asked, {refused} refused: nothing bounds them");
        let _ = flood.send(&question(asked, "far.example", A));
        asked = asked.wrapping_add(1);
        let mut answer = [0; 512];
        while flood.recv(&mut answer).is_ok() {
            assert_eq!(rcode(&answer), REFUSED);
            refused += 1;
        }
        // The socket's buffer takes a few hundred datagrams: what is lost there says nothing.
        if asked.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(asked >= 2048 + 100, "only {asked} were asked");
    // The same sandbox has its names, and others their forwards: this one waits for its upstream.
    let at = Instant::now();
    assert_eq!(answers(&ask(&neighbour, &question(1, "upstream", A))), 1);
    assert!(at.elapsed() < Duration::from_secs(1));
    let far = ask(&neighbour, &question(2, "far.example", A));
    assert_eq!(rcode(&far), 2, "SERVFAIL: nobody answered");
    let mut heard = [0; 512];
    assert!(silent.recv(&mut heard).is_ok(), "the questions did go there");
    // Everything under way ends, and there is room again.
    let later = socket(&lab, "asker");
    within(Duration::from_secs(15), "room again", || rcode(&ask(&later, &question(3, "far.example", A))) == 2);
    let log = std::fs::read_to_string(lab.run_directory().join("keeper.log")).unwrap();
    let told = log.lines().filter(|line| line.contains("are under way upstream")).count();
    assert!((1..=3).contains(&told), "the log says it {told} times:\n{log}");
}
