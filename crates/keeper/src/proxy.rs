//! Carries what the kernel cannot lead to a container: flows that come in by [::1], and by IPv6 to a container that has
//! none (V6-04, PT-08). One TCP socket for all of them, to which the firewall redirects; a UDP socket a port.
//!
//! The container sees the host's address on its network as the client. A flow ends with the route that led it: where
//! the container has gone, or has moved to another network, nothing is carried to the address that it had.

pub mod datagrams;
pub mod streams;

use model::id::ContainerId;
use model::names::{Change, Route};
use model::net::Protocol;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// Where flows lead, by container.
#[derive(Clone, Debug, Default)]
pub struct Routes(HashMap<ContainerId, Vec<Route>>);

impl Routes {
    /// Applies one difference; those of names are the resolver's. Whether there was one.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Routes { container, routes } => self.0.insert(*container, routes.clone()).as_ref() != Some(routes),
            Change::RoutesGone { container } => self.0.remove(container).is_some(),
            _ => false,
        }
    }

    fn target(&self, asked: SocketAddr, protocol: Protocol) -> Option<SocketAddr> {
        self.0.values().flatten().find_map(|route| route.target(asked.ip(), protocol, asked.port()))
    }
}

/// What is carried, and where to.
#[derive(Default)]
pub struct Proxy {
    routes: RefCell<Routes>,
    /// Grows with every change of the routes.
    edition: Cell<u64>,
    lines: streams::Lines,
}

pub type SharedProxy = Rc<Proxy>;

impl Proxy {
    /// Applies one difference.
    pub fn apply(&self, change: &Change) {
        if self.routes.borrow_mut().apply(change) {
            self.follow();
        }
    }

    /// These are the routes from now on.
    pub fn replace(&self, routes: Routes) {
        *self.routes.borrow_mut() = routes;
        self.follow();
    }

    fn target(&self, asked: SocketAddr, protocol: Protocol) -> Option<SocketAddr> {
        self.routes.borrow().target(asked, protocol)
    }

    /// Connections whose way has gone end now; UDP flows, with their next datagram.
    fn follow(&self) {
        self.edition.set(self.edition.get() + 1);
        self.lines.end_those(|line| self.target(line.asked, Protocol::Tcp) != Some(line.target));
    }
}
