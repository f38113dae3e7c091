//! UDP, a socket a port.

use super::{Proxy, SharedProxy};
use kernel::datagram::{self, Datagram};
use model::net::Protocol;
use resolver::serve::Shared;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// How long a flow lives without a datagram: the kernel's own for a flow that was answered (nf_conntrack).
const IDLE: Duration = Duration::from_secs(120);
/// Flows of one port.
const FLOWS: usize = 1024;

/// Ways to containers, by who asks and which address of ours was asked.
type Flows = Rc<RefCell<HashMap<(SocketAddr, IpAddr), Rc<Flow>>>>;

struct Flow {
    socket: UdpSocket,
    target: SocketAddr,
    /// Of the routes that are known to lead there.
    edition: Cell<u64>,
}

impl Flow {
    async fn open(target: SocketAddr, edition: u64) -> io::Result<Rc<Flow>> {
        let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(target).await?;
        Ok(Rc::new(Flow { socket, target, edition: Cell::new(edition) }))
    }

    /// Whether it leads where the port leads now.
    fn is_right(&self, proxy: &Proxy, own: SocketAddr) -> bool {
        let edition = proxy.edition.get();
        let right = self.edition.get() == edition || proxy.target(own, Protocol::Udp) == Some(self.target);
        if right {
            self.edition.set(edition);
        }
        right
    }
}

/// Serves a UDP socket until the returned task is aborted.
///
/// # Errors
/// The descriptor is no UDP socket.
pub fn serve(socket: OwnedFd, proxy: SharedProxy, shared: Rc<Shared>) -> io::Result<JoinHandle<()>> {
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
            let known = flows.borrow().get(&(client, asked)).cloned().filter(|flow| flow.is_right(&proxy, own));
            let flow = match known {
                Some(flow) => flow,
                None => {
                    let edition = proxy.edition.get();
                    let target = proxy.target(own, Protocol::Udp);
                    let is_known = flows.borrow().contains_key(&(client, asked));
                    let Some(target) = target.filter(|_| is_known || flows.borrow().len() < FLOWS) else { continue };
                    let Ok(flow) = Flow::open(target, edition).await else { continue };
                    flows.borrow_mut().insert((client, asked), flow.clone());
                    // Weak: when the port is given back, nothing of it is left open.
                    let back = Rc::downgrade(&socket);
                    tokio::task::spawn_local(answer(proxy.clone(), flow.clone(), flows.clone(), back, (client, asked)));
                    flow
                }
            };
            let _ = flow.socket.send(&buffer[..length]).await;
        }
    }))
}

/// Carries what comes back, until nothing does.
async fn answer(
    proxy: SharedProxy,
    flow: Rc<Flow>,
    flows: Flows,
    socket: Weak<UdpSocket>,
    (client, asked): (SocketAddr, IpAddr),
) {
    let mut buffer = vec![0; 65_535];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, flow.socket.recv(&mut buffer)).await {
        let Some(socket) = socket.upgrade() else { break };
        let Ok(own) = socket.local_addr() else { break };
        if !flow.is_right(&proxy, own) {
            break;
        }
        let answer = || datagram::send(&*socket, &buffer[..length], asked, client);
        let _ = socket.try_io(Interest::WRITABLE, answer);
    }
    let mut flows = flows.borrow_mut();
    // Another may lead there by now.
    if flows.get(&(client, asked)).is_some_and(|now| Rc::ptr_eq(now, &flow)) {
        flows.remove(&(client, asked));
    }
}
