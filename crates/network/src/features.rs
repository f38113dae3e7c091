//! What this kernel can do of what we would use: probed once, by trying it and reading it back, since older kernels
//! ignore some attributes silently.

use crate::ruleset::Variant;
use kernel::link::{self, NewBridge, NewVeth, Port};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::nft::{self, Family, OWNED, Table};
use kernel::{netns, sysctl};
use std::os::fd::AsFd;

/// What the kernel can do, for `system info`; each has a fallback where it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Tables that only we can change, and that outlive us (6.9). Else: foreign flushes are watched for.
    pub owned_tables: bool,
    /// Ports that let only known hardware addresses in (5.18). Else: a set in table bridge.
    pub locked_ports: bool,
    /// IPv6 forwarding by interface (6.17). Else: `accept_ra=2` on uplinks, and forwarding on all.
    pub force_forwarding: bool,
    /// Whether the host has IPv6 at all.
    pub ipv6: bool,
    /// Whether bridged frames pass the firewall of IP (net.bridge.bridge-nf-call-iptables). We leave it as it is; it
    /// costs 18 % of a round trip.
    pub br_netfilter: bool,
}

impl Features {
    /// Which form of the rules goes with them, where nobody asks for more.
    pub fn variant(&self) -> Variant {
        Variant { locked_ports: self.locked_ports, br_netfilter: self.br_netfilter, accept_mark: None }
    }

    /// Looks at the calling thread's namespace, and tries things in one that is thrown away.
    pub(crate) fn probe(owner: &mut Socket, root: &str) -> Self {
        let is_there = |key: &str| sysctl::read(key).is_ok();
        Self {
            owned_tables: owned_tables(owner, root),
            locked_ports: locked_ports().unwrap_or(false),
            force_forwarding: is_there("net.ipv6.conf.all.force_forwarding"),
            ipv6: is_there("net.ipv6.conf.all.forwarding"),
            br_netfilter: ["iptables", "ip6tables"].iter().any(|which| {
                sysctl::read(&format!("net.bridge.bridge-nf-call-{which}")).is_ok_and(|value| value != "0")
            }),
        }
    }
}

/// One transaction that makes an owned table and deletes it: refused as a whole where the kernel has no such thing.
fn owned_tables(owner: &mut Socket, root: &str) -> bool {
    let name = format!("isle-{root}-probe");
    let table = Table { family: Family::Inet, name: &name };
    let mut batch = nft::Batch::default();
    batch.add_table(table, OWNED);
    batch.delete_table(table);
    batch.commit(owner).is_ok()
}

fn locked_ports() -> Option<bool> {
    let (_, locked) = netns::create(|| {
        let mut socket = Socket::open(Protocol::Route).ok()?;
        let mut batch = Batch::default();
        link::create_bridge(&mut batch, &NewBridge { name: "b", mac: [2, 0, 0, 0, 0, 1], mtu: 1500 });
        socket.send(batch).ok()?;
        let bridge = link::find(&mut socket, "b").ok()?;
        let namespace = netns::current().ok()?;
        let mut batch = Batch::default();
        let veth = NewVeth {
            outer: "o",
            master: bridge.index,
            inner: "i",
            namespace: namespace.as_fd(),
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        };
        link::create_veth(&mut batch, &veth);
        link::set_port(&mut batch, "o", "probe", false, Port { locked: true, ..Port::default() });
        socket.send(batch).ok()?;
        Some(link::find(&mut socket, "o").ok()?.port?.locked)
    })
    .ok()?;
    locked
}
