//! What each sandbox may resolve: zones and views, as values. The keeper's resolver answers from them (DNS-01 ff.).
//!
//! A network has a zone: who is on it ([`Member`]), under which names and addresses. A sandbox has a [`View`]: which zones
//! it sees, in which order, with its own link aliases, and where other questions go. The daemon feeds both to the keeper
//! as [`Change`]s, and [`Names`] is what they come to.

mod lookup;

pub use lookup::Names;

use crate::id::{ContainerId, EndpointId, NetworkId, SandboxId};
use crate::net::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where containers look for names, port 53: as with Docker (DNS-01).
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// One endpoint in a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Whose it is.
    pub container: ContainerId,
    /// Container name, aliases, short id, hostname: in this order, without duplicates (DNS-04, API-28). The first one
    /// is what an address resolves back to. Compared without regard to case.
    pub names: Vec<String>,
    /// Its address on that network.
    pub ipv4: Option<Ipv4Addr>,
    /// The same.
    pub ipv6: Option<Ipv6Addr>,
}

/// What one sandbox sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The networks it is on, in gateway order (BR-10): searched in this order.
    pub networks: Vec<NetworkId>,
    /// Aliases visible to this sandbox alone (`--link c:alias` on user networks, BR-15): alias to the names searched
    /// in that network instead.
    pub links: BTreeMap<NetworkId, BTreeMap<String, Vec<String>>>,
    /// Where questions go that none of these answers.
    pub upstreams: Upstreams,
    /// `ndots` that the user set, greater than 0: single-label names are never forwarded (DNS-15).
    pub keep_single_labels: bool,
}

/// Where questions go that no zone answers (DNS-10 to DNS-13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstreams {
    /// The nameservers of the host's resolv.conf, as they are now, asked from the host.
    Host,
    /// Given by `--dns`: asked from inside the sandbox.
    Given(Vec<IpAddr>),
    /// Nobody: the container is on internal networks only. SERVFAIL.
    None,
}

/// What became of questions: how many there were of each, so far. Each question counts once (DNS-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// From what is known here: names and addresses of containers, and errors.
    pub answered: u64,
    /// By a server upstream.
    pub forwarded: u64,
    /// SERVFAIL: no server upstream answered, or none may be asked.
    pub failed: u64,
    /// Too many are under way upstream.
    pub refused: u64,
    /// What is no question, or comes when nobody knows the sandbox any more.
    pub ignored: u64,
}

/// One difference between two states of what the keeper knows; applied in order, all of a delta at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields say whose change it is, and what it comes to")]
pub enum Change {
    /// A network appears, or has another name.
    Zone { network: NetworkId, name: String },
    /// It is gone, with all its members.
    ZoneGone { network: NetworkId },
    /// An endpoint joins, or its names or addresses change.
    Member { network: NetworkId, endpoint: EndpointId, member: Member },
    /// It leaves; a member that is not there is no error.
    MemberGone { network: NetworkId, endpoint: EndpointId },
    /// A sandbox's view appears or changes.
    View { sandbox: SandboxId, view: View },
    /// The sandbox sees no zone any more. Its sockets are closed when they are released.
    ViewGone { sandbox: SandboxId },
    /// A container's published ports that the kernel cannot lead to it: the proxy does ([`Route`]).
    Routes { container: ContainerId, routes: Vec<Route> },
    /// It has none any more.
    RoutesGone { container: ContainerId },
}

/// Host ports whose flows the keeper's proxy carries: those that come in by [::1], and those by IPv6 to a container
/// that has none (V6-04).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A specific address of the host, or the unspecified one for all.
    pub host: IpAddr,
    /// Of all of them.
    pub protocol: Protocol,
    /// The first host port.
    pub first: u16,
    /// How many there are.
    pub count: u16,
    /// Where the first port leads; the next one leads to the next.
    pub to: SocketAddr,
}

impl Route {
    /// Where a flow to `host` and `port` leads, if this route carries it.
    pub fn target(&self, host: IpAddr, protocol: Protocol, port: u16) -> Option<SocketAddr> {
        let offset = port.checked_sub(self.first).filter(|o| *o < self.count)?;
        let ours = self.host == host || (self.host.is_unspecified() && self.host.is_ipv4() == host.is_ipv4());
        (ours && protocol == self.protocol).then(|| SocketAddr::new(self.to.ip(), self.to.port() + offset))
    }
}
