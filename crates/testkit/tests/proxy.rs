//! What the keeper's proxy carries: flows by IPv6 to a container that has none. It is one for all, so nobody may take
//! it from others, and what it carries ends with its container.

use serde_json::json;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use testkit::traffic::{At, By, any, publisher};
use testkit::{HOST6, Lab, program, within};

const WEB: At<'_> = At::Container("web");
const PORTS: [(&str, &str, &str); 3] = [("80/tcp", "", "8080"), ("81/tcp", "", "8081"), ("80/udp", "", "8080")];

/// Takes every connection to a port, and keeps it.
fn keep_all(lab: &Lab, at: At<'_>, port: u16) {
    let listener = lab.inside(at, || TcpListener::bind((any(false), port))).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            kept.push(stream);
        }
    });
}

fn connect(lab: &Lab, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(HOST6.into(), port);
    lab.inside(At::Outside, || TcpStream::connect_timeout(&to, Duration::from_secs(5)))
}

/// Whether the other end has closed it.
fn has_ended(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    match stream.read(&mut [0; 8]) {
        Ok(length) => length == 0,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted),
    }
}

#[test]
fn pt_08_who_opens_thousands_of_connections_to_a_port_leaves_others_theirs() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "four" }));
    lab.run("web", publisher("four", &PORTS));
    keep_all(&lab, WEB, 80);
    lab.serve(WEB, By::Tcp, 81);
    // More than there are places.
    let greedy: Vec<TcpStream> = lab.inside(At::Outside, || {
        (0..4200)
            .map_while(|_| TcpStream::connect_timeout(&(HOST6, 8080).into(), Duration::from_secs(5)).ok())
            .collect()
    });
    assert_eq!(greedy.len(), 4200);
    for _ in 0..20 {
        assert!(lab.seen(At::Outside, By::Tcp, HOST6.into(), 8081).is_some(), "another port answers");
    }
    drop(greedy);
    within(Duration::from_secs(10), "the port itself answers again", || {
        connect(&lab, 8080).is_ok_and(|mut s| !has_ended(&mut s))
    });
}

#[test]
fn pt_08_what_the_proxy_carries_ends_with_its_way() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "four" }));
    lab.network(json!({ "Name": "other" }));
    for name in ["web", "gone"] {
        let ports = PORTS.map(|(port, ip, host)| (port, ip, if name == "web" { host } else { "" }));
        lab.run(name, publisher("four", &ports));
        keep_all(&lab, At::Container(name), 80);
        lab.serve(At::Container(name), By::Udp, 80);
    }
    let port = |name: &str, of: &str| -> u16 {
        lab.inspect(name)["NetworkSettings"]["Ports"][of][0]["HostPort"].as_str().unwrap().parse().unwrap()
    };
    let mut of_web = connect(&lab, 8080).unwrap();
    let mut of_gone = connect(&lab, port("gone", "80/tcp")).unwrap();
    assert!(!has_ended(&mut of_web) && !has_ended(&mut of_gone));
    lab.remove("gone");
    within(Duration::from_secs(5), "the connection of a removed container ends", || has_ended(&mut of_gone));
    assert!(!has_ended(&mut of_web), "its neighbour's does not");

    // On another network it has another address: flows begin anew, and go there.
    let client = lab.inside(At::Outside, || UdpSocket::bind((any(true), 0))).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.connect((HOST6, 8080)).unwrap();
    let answers = || client.send(b"?").is_ok() && client.recv(&mut [0; 64]).is_ok();
    within(Duration::from_secs(5), "an answer", answers);
    lab.tell("/networks/other/connect", json!({ "Container": "web" }), 200);
    assert!(!has_ended(&mut of_web), "its way out is the same");
    lab.tell("/networks/four/disconnect", json!({ "Container": "web" }), 200);
    within(Duration::from_secs(5), "the connection over the network that it left ends", || has_ended(&mut of_web));
    within(Duration::from_secs(5), "an answer from where it is now", answers);
    assert!(!has_ended(&mut connect(&lab, 8080).unwrap()), "a new connection, too");
}
