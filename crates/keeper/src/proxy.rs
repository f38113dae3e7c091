//! Carries what the kernel cannot lead to a container: flows that come in by [::1], and by IPv6 to a container that has
//! none (V6-04, PT-08). One TCP socket for all of them, to which the firewall redirects; a UDP socket a port.
//!
//! The container sees the host's address on its network as the client.

use kernel::datagram::{self, Datagram};
use model::id::ContainerId;
use model::names::{Change, Route};
use model::net::Protocol;
use resolver::serve::{Shared, serve_connections};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// How long a container has to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// TCP connections at a time, of all containers together: two descriptors each. More wait in the listener's queue.
const CONNECTIONS: usize = 4096;
/// How long a UDP flow lives without a datagram: the kernel's own for a flow that was answered (nf_conntrack).
const IDLE: Duration = Duration::from_secs(120);
/// UDP flows of one port.
const FLOWS: usize = 1024;

/// Where flows lead, by container.
#[derive(Clone, Debug, Default)]
pub struct Routes(HashMap<ContainerId, Vec<Route>>);

pub type SharedRoutes = Rc<RefCell<Routes>>;

impl Routes {
    /// Applies one difference; those of names are the resolver's.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Routes { container, routes } => drop(self.0.insert(*container, routes.clone())),
            Change::RoutesGone { container } => drop(self.0.remove(container)),
            _ => {}
        }
    }

    fn target(&self, asked: SocketAddr, protocol: Protocol) -> Option<SocketAddr> {
        self.0.values().flatten().find_map(|route| route.target(asked.ip(), protocol, asked.port()))
    }
}

/// Serves the TCP socket until the returned task is aborted.
///
/// # Errors
/// The descriptor is no listening socket.
pub fn serve_tcp(listener: OwnedFd, routes: SharedRoutes, shared: Rc<Shared>) -> io::Result<JoinHandle<()>> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok(tokio::task::spawn_local(async move {
        serve_connections(&listener, CONNECTIONS, &shared.leave, "the proxy", |client| {
            let (routes, busy) = (routes.clone(), shared.leave.busy());
            async move {
                let _busy = busy;
                carry(client, &routes).await
            }
        })
        .await;
    }))
}

async fn carry(mut client: TcpStream, routes: &SharedRoutes) -> io::Result<()> {
    let asked = kernel::inet::original_destination(&client)?;
    let target = routes.borrow().target(asked, Protocol::Tcp);
    let Some(target) = target else { return Err(io::Error::other(format!("nothing is published at {asked}"))) };
    let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(target));
    let mut container = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
    let _ = (client.set_nodelay(true), container.set_nodelay(true));
    tokio::io::copy_bidirectional(&mut client, &mut container).await?;
    Ok(())
}

/// Ways to containers, by who asks and which address of ours was asked.
type Flows = Rc<RefCell<HashMap<(SocketAddr, IpAddr), Rc<UdpSocket>>>>;

/// Serves a UDP socket until the returned task is aborted.
///
/// # Errors
/// The descriptor is no UDP socket.
pub fn serve_udp(socket: OwnedFd, routes: SharedRoutes, shared: Rc<Shared>) -> io::Result<JoinHandle<()>> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    datagram::tell_destinations(&socket)?;
    let socket = Rc::new(UdpSocket::from_std(socket)?);
    let own = socket.local_addr()?;
    Ok(tokio::task::spawn_local(async move {
        let flows: Flows = Rc::default();
        let mut buffer = vec![0; 65_535];
        let mut leave = std::pin::pin!(shared.leave.begun());
        loop {
            let received = tokio::select! {
                received = socket.async_io(Interest::READABLE, || datagram::receive(&*socket, &mut buffer)) => received,
                // The successor has the socket; the port is not to be kept from whoever wants it next.
                () = &mut leave => return,
            };
            let Ok(Datagram { length, from: client, to: asked }) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let known = flows.borrow().get(&(client, asked)).cloned();
            let flow = match known {
                Some(flow) => flow,
                None => {
                    let target = routes.borrow().target(own, Protocol::Udp);
                    let Some(target) = target.filter(|_| flows.borrow().len() < FLOWS) else { continue };
                    let Ok(flow) = open_flow(target).await else { continue };
                    let flow = Rc::new(flow);
                    flows.borrow_mut().insert((client, asked), flow.clone());
                    // Weak: when the port is given back, nothing of it is left open.
                    let (back, all, socket) = (flow.clone(), flows.clone(), Rc::downgrade(&socket));
                    tokio::task::spawn_local(async move {
                        let mut buffer = vec![0; 65_535];
                        while let Ok(Ok(length)) = tokio::time::timeout(IDLE, back.recv(&mut buffer)).await {
                            let Some(socket) = socket.upgrade() else { break };
                            let answer = || datagram::send(&*socket, &buffer[..length], asked, client);
                            let _ = socket.try_io(Interest::WRITABLE, answer);
                        }
                        all.borrow_mut().remove(&(client, asked));
                    });
                    flow
                }
            };
            let _ = flow.send(&buffer[..length]).await;
        }
    }))
}

async fn open_flow(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let flow = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    flow.connect(target).await?;
    Ok(flow)
}
