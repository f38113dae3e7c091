//! Published ports: which host ports a container gets. A published port is a bound socket, held by the keeper too.

use crate::error::{Error, Kind, Result};
use crate::keeper::Act;
use crate::state::State;
use crate::{Engine, blocking};
use keeper_protocol::Key;
use model::container::Container;
use model::port::{HostPort, Published, Wanted};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The default of `ip_local_port_range` begins above.
const PROXY_PORTS: RangeInclusive<u16> = 31000..=32767;

/// A container's addresses on its ways out, one a family: where its published ports lead (PT-11).
#[derive(Clone, Copy)]
struct Own {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

impl Own {
    fn of(record: &Container) -> Own {
        let address = |v6: bool| {
            let attachments = record.endpoints.iter().filter_map(|e| e.active.as_ref()).map(|a| &a.attachment);
            let mut ways = attachments.filter(|a| a.default_routes.iter().any(|r| r.is_ipv6() == v6));
            ways.find_map(|a| a.addresses.iter().map(|n| n.addr()).find(|a| a.is_ipv6() == v6))
        };
        Own { ipv4: address(false), ipv6: address(true) }
    }

    /// Of the host address's family, or the other where there is none.
    fn behind(self, host: IpAddr) -> Option<IpAddr> {
        if host.is_ipv4() { self.ipv4.or(self.ipv6) } else { self.ipv6.or(self.ipv4) }
    }
}

impl Engine {
    /// Takes the host ports that the container publishes.
    pub(crate) async fn reserve_ports(
        self: &Arc<Self>,
        record: &Container,
        wanted: &[Wanted],
    ) -> Result<Vec<Published>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let own = Own::of(record);
        let attempt = || match record.endpoints.iter().find_map(|e| e.active.as_ref()) {
            Some(active) => format!(
                "driver failed programming external connectivity on endpoint {} ({})",
                record.name, active.attachment.endpoint
            ),
            None => format!("cannot publish ports of {}", record.name),
        };
        if let Some((at, holder)) = collision(&self.state(), record, wanted) {
            let busy = format!("Bind for {at} failed: port is already allocated by container {holder}");
            return Err(Error::new(Kind::Internal, busy).context(attempt()));
        }
        let requests = requests(wanted, own);
        let others: Vec<Published> = {
            let state = self.state();
            let records = state.containers.values().map(|e| &e.record).filter(|other| other.id != record.id);
            records.flat_map(|other| other.state.ports.iter().cloned()).collect()
        };
        let engine = self.clone();
        let reservations = blocking(move || engine.network.reserve(&requests, &others))
            .await
            .map_err(|e| port_error(&e, own.ipv4.or(own.ipv6), wanted).context(attempt()))?;
        let mut published = Vec::new();
        let (mut sockets, mut datagrams): (Vec<OwnedFd>, Vec<OwnedFd>) = Default::default();
        for (wanted, reservation) in wanted.iter().zip(reservations) {
            published.push(Published::new(wanted, reservation.host_port));
            for socket in reservation.sockets {
                match socket.role {
                    network::Role::Holds => sockets.push(socket.fd),
                    network::Role::Serves(_) => datagrams.push(socket.fd),
                }
            }
        }
        let mut acts = vec![Act::Hold(Key::Ports(record.id), sockets)];
        if !datagrams.is_empty() {
            acts.push(Act::Hold(Key::Datagrams(record.id), datagrams));
        }
        if let Err(e) = self.keeper.tell(acts).await {
            let held = [Key::Ports(record.id), Key::Datagrams(record.id)];
            let _ = self.keeper.tell(held.map(Act::Release).into()).await;
            return Err(e);
        }
        Ok(published)
    }
}

/// Where the proxy listens when no earlier daemon has said so: below the ports that the kernel chooses from, and not among
/// those that are published; dual-stack. `None` where the host has no IPv6, since there is nothing to carry.
pub(crate) fn proxy_listener<'a>(published: impl Iterator<Item = &'a Published> + Clone) -> Option<TcpListener> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut free =
        PROXY_PORTS.rev().filter(|port| !published.clone().any(|p| any.iter().any(|a| p.holds(*a, *port, 1))));
    loop {
        let port = free.next()?;
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            listener => return listener.ok(),
        }
    }
}

/// The first wanted port that another container has, and which.
fn collision(state: &State, record: &Container, wanted: &[Wanted]) -> Option<(SocketAddr, String)> {
    let others = state.containers.values().map(|e| &e.record).filter(|other| other.id != record.id);
    let pairs = others.flat_map(|other| other.state.ports.iter().map(move |held| (other, held)));
    pairs.flat_map(|(other, held)| wanted.iter().map(move |w| (other, held, w))).find_map(
        |(other, held, wanted)| match (&wanted.host, wanted.hosts.first()) {
            (HostPort::Exactly(port), Some(host)) if held.collides(wanted) => {
                Some((SocketAddr::new(*host, *port), other.name.clone()))
            }
            _ => None,
        },
    )
}

fn requests(wanted: &[Wanted], own: Own) -> Vec<network::PortRequest> {
    let request = |w: &Wanted| network::PortRequest {
        targets: w
            .hosts
            .iter()
            .filter_map(|host| Some(network::Target { host: *host, container: own.behind(*host)? }))
            .collect(),
        protocol: w.protocol,
        ports: match &w.host {
            HostPort::Any => 0..=0,
            HostPort::Exactly(port) => *port..=port.saturating_add(w.count - 1),
            HostPort::FirstOf(range) => range.clone(),
        },
        count: w.count,
        container_port: w.container_port,
    };
    wanted.iter().map(request).collect()
}

/// A port that could not be had, in Docker's words (PT-05).
fn port_error(error: &network::PortError, container: Option<IpAddr>, wanted: &[Wanted]) -> Error {
    use network::PortError;
    let to = |port: u16, protocol: model::net::Protocol| {
        let inner = wanted.iter().find_map(|w| match w.host {
            HostPort::Exactly(first) if first <= port && port - first < w.count => {
                Some(w.container_port + (port - first))
            }
            _ => None,
        });
        match (container, inner) {
            (Some(address), Some(inner)) => format!(":{address}:{inner}/{protocol}"),
            _ => format!("/{protocol}"),
        }
    };
    let message = match error {
        PortError::Taken { host, port, protocol, .. } => {
            format!("failed to bind host port for {host}:{port}{}: address already in use", to(*port, *protocol))
        }
        PortError::NotHere { host, port, protocol, .. } => {
            format!(
                "failed to bind host port for {host}:{port}{}: cannot assign requested address",
                to(*port, *protocol)
            )
        }
        other => crate::error::chain(other),
    };
    Error::new(Kind::Internal, message)
}
