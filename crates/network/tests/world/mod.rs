//! A host of its own for each test: namespaces without an uplink, and real packets.
//!
//! ```text
//!   outside                         host (the Network is opened here)          sandboxes
//!   198.51.100.2, 2001:db8::2 ───── 198.51.100.1, 2001:db8::1 (up0) ─ br-a ─┬─ 10.1.0.2, fd00:1::2
//!   default route by the host       default route by outside          │     └─ 10.1.0.3, fd00:1::3
//!                                                                     br-b ─── 10.2.0.2, fd00:2::2
//! ```
#![allow(dead_code, reason = "each test file uses its part")]

use kernel::address::{self, Address};
use kernel::link::{self, NewVeth};
use kernel::netlink::{Batch, Protocol as Netlink, Socket};
use kernel::{netns, route, sysctl};
use model::desired::{Attachment, Border, Bridge, Publication};
use model::id::{ContainerId, EndpointId, NetworkId, RootId, SandboxId};
use model::net::{InterfaceName, MacAddr, Protocol};
use network::{Features, Network, Sandbox, Settings};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long something that must not happen is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

pub struct World {
    pub host: OwnedFd,
    pub outside: OwnedFd,
    pub network: Network,
}

pub const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
pub const OUTSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
pub const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
pub const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
pub const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
pub const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
pub const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// `None` after saying `SKIP:`, where no namespace can be made; with REQUIRE_NETNS=1 that fails.
pub fn world() -> Option<World> {
    world_with(None)
}

/// With br_netfilter on or off before the network is opened, as on a host where it was decided long ago.
pub fn world_where(br_netfilter: bool) -> Option<World> {
    let (host, outside) = bare()?;
    netns::inside(host.as_fd(), || {
        for key in ["iptables", "ip6tables"] {
            let value = if br_netfilter { "1" } else { "0" };
            sysctl::write(&format!("net.bridge.bridge-nf-call-{key}"), value).unwrap();
        }
    })
    .unwrap();
    let network = open(&host, None, None);
    Some(World { host, outside, network })
}

pub fn world_with(proxy_port: Option<u16>) -> Option<World> {
    let (host, outside) = bare()?;
    let network = open(&host, proxy_port, None);
    Some(World { host, outside, network })
}

/// The host and what is outside, and no network yet.
pub fn bare() -> Option<(OwnedFd, OwnedFd)> {
    let made = netns::create(up_loopback).and_then(|(host, ())| Ok((host, netns::create(up_loopback)?.0)));
    let (host, outside) = match made {
        Ok(made) => made,
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_NETNS").is_none_or(|v| v != "1"), "no namespaces: {error}");
            eprintln!("SKIP: no network namespace can be made: {error}");
            return None;
        }
    };
    netns::inside(host.as_fd(), || {
        let mut socket = Socket::open(Netlink::Route).unwrap();
        let mut batch = Batch::default();
        link::create_veth(
            &mut batch,
            &NewVeth {
                outer: "up0",
                master: 0,
                inner: "eth0",
                namespace: outside.as_fd(),
                mac: [2, 0, 0, 0, 9, 9],
                mtu: 1500,
            },
        );
        link::set_quiet(&mut batch, "up0", None, true, &[]);
        link::set_up(&mut batch, "up0");
        socket.send(batch).unwrap();
    })
    .unwrap();
    let give = |namespace: &OwnedFd, device: &str, addresses: [IpAddr; 2], by: [IpAddr; 2]| {
        netns::inside(namespace.as_fd(), || {
            let mut socket = Socket::open(Netlink::Route).unwrap();
            let mut batch = Batch::default();
            link::set_quiet(&mut batch, device, None, true, &[]);
            link::set_up(&mut batch, device);
            socket.send(batch).unwrap();
            let link = link::find(&mut socket, device).unwrap().index;
            let mut batch = Batch::default();
            for ip in addresses {
                address::add(&mut batch, &Address { link, ip, prefix: if ip.is_ipv4() { 24 } else { 64 } });
            }
            for gateway in by {
                route::set_default(&mut batch, gateway, Some(link));
            }
            socket.send(batch).unwrap();
        })
        .unwrap();
    };
    give(&outside, "eth0", [OUTSIDE4, OUTSIDE6], [HOST4, HOST6]);
    give(&host, "up0", [HOST4, HOST6], [OUTSIDE4, OUTSIDE6]);
    Some((host, outside))
}

pub fn open(host: &OwnedFd, proxy_port: Option<u16>, owner: Option<OwnedFd>) -> Network {
    let settings = Settings { root: root(), owner, proxy_port, forwarding: true, integration: true, accept_mark: None };
    netns::inside(host.as_fd(), || Network::open(settings)).unwrap().unwrap()
}

/// With a kernel that can do less.
pub fn world_limited(limit: impl FnOnce(Features) -> Features + Send) -> Option<World> {
    let (host, outside) = bare()?;
    let settings = Settings {
        root: root(),
        owner: None,
        proxy_port: None,
        forwarding: true,
        integration: true,
        accept_mark: None,
    };
    let network = netns::inside(host.as_fd(), || Network::open_as(settings, limit)).unwrap().unwrap();
    Some(World { host, outside, network })
}

pub fn root() -> RootId {
    RootId::new([0xab, 0xcd, 0, 1])
}

fn up_loopback() {
    let mut batch = Batch::default();
    link::set_loopback_up(&mut batch);
    Socket::open(Netlink::Route).unwrap().send(batch).unwrap();
}

/// Network number `n`: 10.n.0.0/24 and fd00:n::/64.
pub fn bridge(n: u8) -> Bridge {
    let mut id = [n; 32];
    id[31] = 1;
    let network = NetworkId::new(id);
    Bridge {
        network,
        device: format!("br-{}", network.short()).parse().unwrap(),
        mac: MacAddr([2, 0x42, n, 0, 0, 1]),
        gateways: vec![format!("10.{n}.0.1/24").parse().unwrap(), format!("fd00:{n}::1/64").parse().unwrap()],
        host_gateway: false,
        subnets: vec![format!("10.{n}.0.0/24").parse().unwrap(), format!("fd00:{n}::/64").parse().unwrap()],
        mtu: 1500,
        icc: true,
        internal: false,
        border4: Border::NAT,
        border6: Border::NAT,
        trusted: Vec::new(),
        check_sources: false,
    }
}

/// Endpoint number `host` on a network; interface `eth<index>`; the network is the way out where `index` is 0.
pub fn attachment(bridge: &Bridge, host: u8, index: u8) -> Attachment {
    let n = bridge.mac.0[2];
    let mut id = [host; 32];
    id[0] = n;
    id[1] = 0xee;
    let endpoint = EndpointId::new(id);
    let gateways: Vec<IpAddr> = bridge.gateways.iter().map(|net| net.addr()).collect();
    Attachment {
        on_parent: None,
        endpoint,
        network: bridge.network,
        container: ContainerId::new([host; 32]),
        sandbox: SandboxId::new([host; 32]),
        bridge: bridge.device.clone(),
        outer: format!("ve{}", &endpoint.to_string()[..13]).parse().unwrap(),
        inner: format!("eth{index}").parse().unwrap(),
        mac: MacAddr([2, 0x42, n, 0, 0, host]),
        addresses: vec![
            format!("10.{n}.0.{host}/24").parse().unwrap(),
            format!("fd00:{n}::{host:x}/64").parse().unwrap(),
        ],
        link_local: Vec::new(),
        gateway_mac: bridge.mac,
        default_routes: if index == 0 && !bridge.internal { gateways.clone() } else { Vec::new() },
        gateways,
        mtu: bridge.mtu,
        isolated: !bridge.icc,
        trusted: false,
        check_sources: bridge.check_sources,
        sysctls: Default::default(),
    }
}

/// A sandbox with what is attached to it.
pub struct Member {
    pub sandbox: Sandbox,
    pub attachments: Vec<Attachment>,
}

impl Member {
    pub fn v4(&self) -> IpAddr {
        self.attachments[0].addresses[0].addr()
    }
    pub fn v6(&self) -> IpAddr {
        self.attachments[0].addresses[1].addr()
    }
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4(), self.v6()]
    }
}
impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sandbox.as_fd()
    }
}

impl World {
    pub fn set(&self, key: &str, value: &str) {
        netns::inside(self.host.as_fd(), || sysctl::write(key, value)).unwrap().unwrap();
    }
    pub fn get(&self, key: &str) -> String {
        netns::inside(self.host.as_fd(), || sysctl::read(key)).unwrap().unwrap()
    }
    pub fn br_netfilter(&self, on: bool) {
        for key in ["iptables", "ip6tables"] {
            self.set(&format!("net.bridge.bridge-nf-call-{key}"), if on { "1" } else { "0" });
        }
    }
    pub fn bridge(&self, n: u8) -> Bridge {
        self.bridge_with(n, |_| {})
    }
    pub fn bridge_with(&self, n: u8, change: impl FnOnce(&mut Bridge)) -> Bridge {
        let mut bridge = bridge(n);
        change(&mut bridge);
        self.network.create_bridge(&bridge).unwrap();
        bridge
    }
    pub fn member(&self, bridge: &Bridge, host: u8) -> Member {
        self.member_with(bridge, host, |_| {})
    }
    pub fn member_with(&self, bridge: &Bridge, host: u8, change: impl FnOnce(&mut Attachment)) -> Member {
        let mut attachment = attachment(bridge, host, 0);
        change(&mut attachment);
        let sandbox = self.network.create_sandbox(&attachment.sandbox, false).unwrap();
        let attachments = vec![attachment];
        self.network.attach(&sandbox, &attachments).unwrap();
        Member { sandbox, attachments }
    }
    /// Host port 8080 of `host` leads to port 80 of `container`.
    pub fn publish(&self, protocol: Protocol, host: IpAddr, container: IpAddr) -> BTreeSet<Publication> {
        let published = BTreeSet::from([publication(protocol, host, container)]);
        self.network.publish(&published).unwrap();
        published
    }
    /// What a program inside the host says: for looking.
    pub fn look(&self, command: &[&str]) -> String {
        look(self.host.as_fd(), command)
    }
}

pub fn publication(protocol: Protocol, host: IpAddr, container: IpAddr) -> Publication {
    Publication { host, protocol, host_port: 8080, count: 1, container, container_port: 80, direct: false }
}

pub fn look(namespace: BorrowedFd<'_>, command: &[&str]) -> String {
    let run = || std::process::Command::new(command[0]).args(&command[1..]).output();
    let output = netns::inside(namespace, run).unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Answers every client on `address` inside a namespace with the address that it sees the client at. Ends with the
/// test's process.
pub fn serve(namespace: impl AsFd, protocol: Protocol, address: IpAddr, port: u16) {
    let address = SocketAddr::new(address, port);
    match protocol {
        Protocol::Udp => {
            let socket = netns::inside(namespace.as_fd(), || UdpSocket::bind(address)).unwrap().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
                }
            });
        }
        _ => {
            let listener = netns::inside(namespace.as_fd(), || TcpListener::bind(address)).unwrap().unwrap();
            std::thread::spawn(move || {
                while let Ok((mut stream, from)) = listener.accept() {
                    let _ = stream.write_all(from.ip().to_string().as_bytes());
                }
            });
        }
    }
}

/// Asks such a server, from inside a namespace: how it sees us.
pub fn ask(namespace: impl AsFd, protocol: Protocol, address: IpAddr, port: u16) -> io::Result<IpAddr> {
    let address = SocketAddr::new(address, port);
    let text = netns::inside(namespace.as_fd(), || match protocol {
        Protocol::Udp => {
            let any = if address.is_ipv4() { ANY4 } else { ANY6 };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"who am I?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
        _ => {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        }
    })??;
    let ip: IpAddr = text.parse().map_err(|_| io::Error::other(format!("{text:?} is no address")))?;
    Ok(match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    })
}

pub fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}
