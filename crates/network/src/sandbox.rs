//! A sandbox: one network namespace and its contents, made and pinned before the container's process exists.
//!
//! Its descriptors keep it alive; dropping them all drops the namespace, in 10 µs: the kernel tidies up later.

use crate::elements::Leg;
use crate::error::{Attempt, Error};
use kernel::link;
use kernel::netlink::{Batch, Protocol, Refusal, Socket};
use kernel::{netns, sysctl};
use model::desired::Attachment;
use model::id::{EndpointId, SandboxId};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whoever is inside may serve any port and ping, whatever user it is: the ports are nobody else's (PT-21). On each of
/// several networks it asks for neighbours from its address there: another's would be taken for forged.
const SETTINGS: [(&str, &str); 3] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    ("net.ipv4.conf.all.arp_announce", "2"),
];

/// A network namespace, and the netlink socket that was opened in it.
#[derive(Debug)]
pub struct Sandbox {
    pub id: SandboxId,
    /// For the shim and the keeper to hold, or to enter.
    pub netns: OwnedFd,
    route: Mutex<Socket>,
    /// What it was told is attached: the firewall treats endpoints of one sandbox together.
    endpoints: Mutex<BTreeMap<EndpointId, Leg>>,
}

impl Sandbox {
    pub(crate) fn create(id: &SandboxId, may_forward: bool) -> Result<Self, Error> {
        let prepare = || -> Result<Socket, Refusal> {
            let mut route = Socket::open(Protocol::Route).map_err(refusal)?;
            let mut batch = Batch::default();
            link::set_loopback_up(&mut batch);
            route.send(batch)?;
            // A new namespace forwards if the host does: then a member of two networks would be a way between them.
            let forward = [("net.ipv4.ip_forward", "0")].into_iter().filter(|_| !may_forward);
            for (key, value) in SETTINGS.into_iter().chain(forward) {
                if let Err(error) = sysctl::write(key, value) {
                    tracing::debug!(key, %error, "a sandbox stays stricter than usual");
                }
            }
            Ok(route)
        };
        let (netns, route) = netns::create(prepare).attempt("create", format!("sandbox {}", id.short()))?;
        let route = route.attempt("prepare", format!("sandbox {}", id.short()))?;
        Ok(Self { id: *id, netns, route: Mutex::new(route), endpoints: Mutex::default() })
    }

    pub(crate) fn adopt(id: &SandboxId, netns: OwnedFd) -> Result<Self, Error> {
        let thing = || format!("sandbox {}", id.short());
        let route = netns::inside(netns.as_fd(), || Socket::open(Protocol::Route)).attempt("enter", thing())?;
        let route = route.attempt("open a netlink socket in", thing())?;
        Ok(Self { id: *id, netns, route: Mutex::new(route), endpoints: Mutex::default() })
    }

    /// What to call it in a message.
    pub(crate) fn thing(&self) -> String {
        format!("sandbox {}", self.id.short())
    }

    pub(crate) fn with_route<R>(&self, f: impl FnOnce(&mut Socket) -> R) -> R {
        f(&mut self.route.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The endpoints that are attached.
    pub(crate) fn endpoints(&self) -> MutexGuard<'_, BTreeMap<EndpointId, Leg>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, attachments: &[Attachment]) {
        self.endpoints().extend(attachments.iter().map(|a| (a.endpoint, a.into())));
    }

    /// Runs `f` on a thread inside.
    pub(crate) fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        netns::inside(self.netns.as_fd(), f)
    }

    pub(crate) fn set_default_routes(&self, v4: Option<IpAddr>, v6: Option<IpAddr>) -> Result<(), Error> {
        use kernel::route;
        for (gateway, ipv6) in [(v4, false), (v6, true)] {
            let mut batch = Batch::default();
            match gateway {
                Some(gateway) => route::set_default(&mut batch, gateway, None),
                None => route::remove_default(&mut batch, ipv6),
            }
            let result = self.with_route(|socket| socket.send(batch));
            let result = if gateway.is_none() { crate::error::unless_gone(result) } else { result };
            let thing = match gateway {
                Some(gateway) => format!("{} by {gateway}", self.thing()),
                None => self.thing(),
            };
            result.attempt("route", thing)?;
        }
        Ok(())
    }
}

impl AsFd for Sandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

fn refusal(error: io::Error) -> Refusal {
    Refusal::of(kernel::netlink::Errno::from_io_error(&error).unwrap_or(kernel::netlink::Errno::IO))
}
