//! Acting: the handle that makes bridges, sandboxes and published ports real, and takes them away again.
//!
//! Every act brings its undo. Tear-down is different: it goes on past failures, and takes 'already gone' for success.

use crate::chores::Chores;
use crate::error::{Attempt, Error, all, unless_gone};
use crate::features::Features;
use crate::observe::{self, Observed};
use crate::plan::{self, Step};
use crate::reconcile::{self, NOTHING, Repair, Report, mark};
use crate::reserve::{self, Means, PortError, PortRequest, Reservation};
use crate::resolver::{self, ResolverSockets};
use crate::ruleset::{self, Elements};
use crate::sandbox::{InterfaceStats, Sandbox};
use crate::tables::Tables;
use crate::watch::Watch;
use ipnet::IpNet;
use kernel::address::{self, Address};
use kernel::link::{self, Link, NewBridge, NewVeth};
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::{Batch, Errno, Protocol, Refusal, Socket};
use kernel::route::{self, Route};
use kernel::{netns, sysctl};
use model::desired::{Attachment, Bridge, Desired, Publication};
use model::id::{RootId, SandboxId};
use model::net::MacAddr;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use undo::Undo;

/// What a [`Network`] is opened with.
#[derive(Debug)]
pub struct Settings {
    /// Marks everything that we make.
    pub root: RootId,
    /// The socket that owns our tables, from whoever held it last; it serves nothing else.
    pub owner: Option<OwnedFd>,
    /// The TCP port of the keeper's proxy on this host, for [::1] and from IPv6 to IPv4-only containers.
    pub proxy_port: Option<u16>,
}

/// The networks of one network namespace: cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: RootId,
    proxy: Option<u16>,
    features: Features,
    /// The namespace that we work on, and what tells it from others.
    home: OwnedFd,
    home_identity: (u64, u64),
    /// The kernel takes one change of links at a time anyway.
    route: Mutex<Socket>,
    tables: Tables,
    chores: Chores,
    /// Who had an address of a bridge last (by the bridge's index), where its neighbours may remember it.
    departed: Mutex<HashMap<(u32, IpAddr), MacAddr>>,
    /// The device that carries nothing: UDP sockets that only hold a port are bound to it.
    nothing: String,
    #[cfg(test)]
    faults: faults::Faults,
}

/// What attaching learns about a pair of interfaces on the way.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    bridge: u32,
    bridge_mac: [u8; 6],
    outer: u32,
    inner: u32,
}

/// IPv4 settings of our bridges. 127.0.0.1 leads to containers by them; what comes from a network to 127/8 or claims
/// to be from there is dropped at raw priority, so the table is there first.
const BRIDGE_SETTINGS: &[(u16, u32)] =
    &[(link::ipv4::ROUTE_LOCALNET, 1), (link::ipv4::ACCEPT_REDIRECTS, 0), (link::ipv4::SEND_REDIRECTS, 0)];

/// Below this MTU the kernel has no IPv6 on a device (RFC 8200, 5).
const SMALLEST_MTU6: u32 = 1280;

impl Network {
    /// Opens the network namespace of the calling thread: claims the firewall's tables, or makes them, and lets the
    /// host forward IPv4. Nothing that is there is taken away: [`Network::reconcile`] does that.
    ///
    /// # Errors
    /// [`Error::TablesHeld`] if another process owns our tables; otherwise what the kernel refused.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        Self::open_as(settings, |features| features)
    }

    /// [`Network::open`] as if the kernel could do only what `limit` leaves of what it can: the fallbacks are tried
    /// this way on a kernel that needs none.
    pub fn open_as(settings: Settings, limit: impl FnOnce(Features) -> Features) -> Result<Self, Error> {
        let Settings { root, owner, proxy_port } = settings;
        let home = netns::current().attempt("open", "the network namespace")?;
        let home_identity = netns::identity(home.as_fd()).attempt("identify", "the network namespace")?;
        let mut route = Socket::open(Protocol::Route).attempt("open", "a socket for links")?;
        let mut owner = Tables::open_socket(owner)?;
        let features = limit(Features::probe(&mut owner, root.as_str()));
        let tables = Tables::new(root.as_str(), owner, features.variant(), features.owned_tables)?;
        tables.claim()?;
        let base = ruleset::base_elements(proxy_port);
        tables.change(&Elements::new(), &base).attempt("tell the firewall of", "the proxy's port")?;

        let nothing = format!("isle-{root}");
        ensure_nothing(&mut route, &nothing, &mark(root.as_str(), NOTHING))?;
        forward_ipv4().attempt("enable", "forwarding of IPv4")?;
        raise_neighbour_limits();
        Ok(Self(Arc::new(Inner {
            root,
            proxy: proxy_port,
            features,
            home,
            home_identity,
            route: Mutex::new(route),
            tables,
            chores: Chores::open()?,
            departed: Mutex::default(),
            nothing,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })))
    }

    /// What this kernel can do.
    pub fn features(&self) -> Features {
        self.0.features
    }

    /// A duplicate of the socket that owns the firewall's tables, for the keeper to hold.
    pub fn owner(&self) -> Result<OwnedFd, Error> {
        self.0.tables.duplicate_owner()
    }

    /// The networks that the host has routes to or addresses in and that are not ours, without default routes: pools
    /// of addresses keep clear of them (IP-03).
    pub fn host_routes(&self) -> Result<Vec<IpNet>, Error> {
        let (links, addresses, routes) = self
            .0
            .with_route(|socket| Ok::<_, Refusal>((link::list(socket)?, address::list(socket)?, route::list(socket)?)))
            .attempt("list", "the host's routes")?;
        let ours = |index: u32| links.iter().any(|l| l.index == index && (l.loopback || self.0.is_ours(l)));
        let of_routes = routes.iter().filter(|r| r.link.is_none_or(|link| !ours(link))).map(|r| r.destination);
        let of_addresses = addresses.iter().filter(|a| !ours(a.link)).map(|a| (a.ip, a.prefix));
        let mut nets: Vec<IpNet> = of_routes
            .chain(of_addresses)
            .filter(|(ip, prefix)| *prefix > 0 && !ip.is_multicast() && !is_link_local(*ip))
            .filter_map(|(ip, prefix)| Some(IpNet::new(ip, prefix).ok()?.trunc()))
            .collect();
        nets.sort();
        nets.dedup();
        Ok(nets)
    }

    /// The MTU, in bytes, of the device that the host's default route leaves by; 1500 if there is none.
    pub fn uplink_mtu(&self) -> Result<u32, Error> {
        let (links, routes) = self
            .0
            .with_route(|socket| Ok::<_, Refusal>((link::list(socket)?, route::list(socket)?)))
            .attempt("list", "the host's routes")?;
        let best = default_routes(&routes).min_by_key(|r| (r.destination.0.is_ipv6(), r.metric));
        let device = best.and_then(|r| links.iter().find(|l| Some(l.index) == r.link));
        Ok(device.map_or(1500, |link| link.mtu))
    }

    /// Makes a bridge, or makes the one that is there as it shall be. One that the user had made before is used, and
    /// never deleted (BR-02).
    ///
    /// # Errors
    /// [`Error::NameTaken`] if the name is another network's, or no bridge's.
    pub fn create_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        self.0.create_bridge(bridge)
    }

    /// Deletes a bridge, if we made it, and what the firewall knew of it. Takes 40 ms: the kernel waits for its
    /// readers.
    pub fn remove_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        self.0.remove_bridge(bridge)
    }

    /// Makes a network namespace with its loopback device up.
    pub fn create_sandbox(&self, id: &SandboxId) -> Result<Sandbox, Error> {
        Sandbox::create(id)
    }

    /// Takes over a network namespace from its descriptor.
    pub fn adopt_sandbox(&self, id: &SandboxId, netns: OwnedFd) -> Result<Sandbox, Error> {
        Sandbox::adopt(id, netns)
    }

    /// Opens the sockets of a sandbox's resolver, at 127.0.0.11 port 53 as the container sees it. `net_admin`: the
    /// container has CAP_NET_ADMIN, and could break the way there by rules of its own.
    pub fn open_resolver(&self, sandbox: &Sandbox, net_admin: bool) -> Result<ResolverSockets, Error> {
        resolver::open(sandbox, net_admin, self.0.features.owned_tables)
    }

    /// Makes endpoints real in a sandbox: all, or none.
    ///
    /// # Errors
    /// [`Error::BridgeFull`] with 1023 endpoints on the bridge.
    pub fn attach(&self, sandbox: &Sandbox, attachments: &[Attachment]) -> Result<(), Error> {
        self.0.attach(sandbox, attachments)
    }

    /// Takes an endpoint out of a sandbox that lives on. Takes 16 to 20 ms: the kernel waits for its readers.
    pub fn detach(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
        self.0.detach(sandbox, attachment)
    }

    /// Forgets the endpoints of a sandbox that is being dropped, all at once: their interfaces go with it, by
    /// themselves.
    pub fn release(&self, attachments: &[Attachment]) -> Result<(), Error> {
        self.0.release(attachments)
    }

    /// Makes these gateways the sandbox's ways out; `None` takes a family's away (BR-10).
    pub fn set_default_routes(&self, sandbox: &Sandbox, v4: Option<IpAddr>, v6: Option<IpAddr>) -> Result<(), Error> {
        sandbox.set_default_routes(v4, v6)
    }

    /// Reserves host ports: all, or none. The sockets are the reservation.
    pub fn reserve(&self, requests: &[PortRequest]) -> Result<Vec<Reservation>, PortError> {
        let means = Means { nothing: &self.0.nothing, proxy: self.0.proxy.is_some() };
        self.0.at_home(|| reserve::reserve(requests, &means))?
    }

    /// Leads host ports to containers: all, or none. UDP flows that began before follow within milliseconds (PT-15).
    pub fn publish(&self, publications: &BTreeSet<Publication>) -> Result<(), Error> {
        let elements = self.0.publication_elements(publications);
        self.0.tables.change(&Elements::new(), &elements).attempt("publish", show(publications))?;
        self.0.chores.forget_flows(publications);
        Ok(())
    }

    /// Leads them nowhere. Those that are not published are no error.
    pub fn unpublish(&self, publications: &BTreeSet<Publication>) -> Result<(), Error> {
        let elements = self.0.publication_elements(publications);
        let removed = self.0.tables.remove(&elements).attempt("unpublish", show(publications));
        self.0.chores.forget_flows(publications);
        removed
    }

    /// Waits until the chores that follow earlier acts are done: flows forgotten, addresses announced. Nobody needs to
    /// but tests.
    pub fn settle(&self) {
        self.0.chores.settle();
    }

    /// Reads what is.
    pub fn observe(&self) -> Result<Observed, Error> {
        self.0.with_route(|route| observe::observe(route, &self.0.tables))
    }

    /// Makes what is as it shall be: what carries our mark and is not desired is removed, what lacks is made, drift of
    /// the firewall is mended in one transaction. `sandbox` finds the sandbox of an endpoint whose interfaces are
    /// gone.
    pub fn reconcile(
        &self,
        desired: &Desired,
        sandbox: impl Fn(&SandboxId) -> Option<Arc<Sandbox>>,
    ) -> Result<Report, Error> {
        let alias = mark(self.0.root.as_str(), NOTHING);
        self.0.with_route(|route| ensure_nothing(route, &self.0.nothing, &alias))?;
        let observed = self.observe()?;
        let repairs = reconcile::plan_repairs(desired, &observed, &self.0.features, self.0.root.as_str(), self.0.proxy);
        let mut report = Report::default();
        for attachment in desired.attachments.values() {
            if let Some(sandbox) = sandbox(&attachment.sandbox) {
                sandbox.remember(std::slice::from_ref(attachment));
            }
        }
        for repair in &repairs {
            self.0.mend(repair, desired, &observed, &sandbox, &mut report);
        }
        Ok(report)
    }

    /// Hears of what others take away from us, from now on.
    pub fn watch(&self) -> Result<Watch, Error> {
        self.0.at_home(|| Watch::open(&self.0.root)).attempt("enter", "the host's network namespace")?
    }

    /// Counters of a sandbox's interfaces, loopback left out (OB-02).
    pub fn stats(&self, sandbox: &Sandbox) -> Result<Vec<InterfaceStats>, Error> {
        sandbox.stats()
    }

    /// Removes everything that carries our mark, the firewall's tables too: for uninstalling.
    pub fn remove_everything(&self) -> Result<(), Error> {
        let links = self.0.with_route(link::list).attempt("list", "interfaces")?;
        let mut failures = Vec::new();
        for link in links.iter().filter(|link| self.0.is_ours(link)) {
            failures.extend(self.0.delete_link(&link.name).err());
        }
        failures.extend(self.0.tables.delete().err());
        all("remove", "everything of ours", failures)
    }
}

impl Inner {
    fn with_route<R>(&self, f: impl FnOnce(&mut Socket) -> R) -> R {
        f(&mut self.route.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `f` in the namespace that we work on: here, if this thread is in it.
    fn at_home<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        if netns::identity(netns::current()?.as_fd())? == self.home_identity {
            return Ok(f());
        }
        netns::inside(self.home.as_fd(), f)
    }

    fn is_ours(&self, link: &Link) -> bool {
        link.alias.as_deref().is_some_and(|alias| alias.starts_with(&mark(self.root.as_str(), "")))
    }

    fn find(&self, device: &str) -> Result<Option<Link>, Error> {
        match self.with_route(|socket| link::find(socket, device)) {
            Err(refusal) if refusal.errno == Errno::NODEV => Ok(None),
            other => other.map(Some).attempt("find", format!("interface {device}")),
        }
    }

    fn delete_link(&self, name: &str) -> Result<(), Error> {
        let mut batch = Batch::default();
        link::delete(&mut batch, name);
        unless_gone(self.with_route(|socket| socket.send(batch))).attempt("delete", format!("interface {name}"))
    }

    fn remove_elements(&self, elements: &Elements, of: impl Into<String>) -> Result<(), Error> {
        self.tables.remove(elements).attempt("take out of the firewall", of)
    }

    // bridges

    fn create_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let thing = || format!("bridge {name}");
        let alias = mark(self.root.as_str(), &bridge.network.to_string());
        let found = self.find(name)?;
        let ours = match &found {
            None => true,
            Some(link) if link.kind.as_deref() != Some("bridge") => {
                return Err(Error::NameTaken { name: name.into(), what: "not a bridge".into() });
            }
            Some(link) if link.alias.as_deref() == Some(&alias) => true,
            Some(link) if self.is_ours(link) => {
                return Err(Error::NameTaken { name: name.into(), what: "another network's".into() });
            }
            Some(_) => false,
        };
        let elements = ruleset::bridge_elements(bridge);
        let mut undo = Undo::default();
        self.tables.change(&Elements::new(), &elements).attempt("tell the firewall of", thing())?;
        if found.is_none() {
            undo.push("bridge elements", || self.remove_elements(&elements, thing()));
        }

        let mut batch = Batch::default();
        let new = NewBridge { name, mac: bridge.mac.0, mtu: bridge.mtu };
        match (&found, ours) {
            (None, _) => link::create_bridge(&mut batch, &new),
            (Some(link), true) => link::mend_bridge(&mut batch, &new, link),
            (Some(_), false) => {}
        }
        self.with_route(|socket| socket.send(batch)).attempt("create", thing())?;
        if found.is_none() {
            undo.push("bridge", || self.delete_link(name));
        }

        let mtu = if ours { bridge.mtu } else { found.as_ref().map_or(bridge.mtu, |link| link.mtu) };
        let ipv6 = self.features.ipv6 && mtu >= SMALLEST_MTU6;
        let mut batch = Batch::default();
        link::set_quiet(&mut batch, name, ours.then_some(&*alias), ipv6 && ours, BRIDGE_SETTINGS);
        link::ask(&mut batch, name);
        let mut index = 0;
        self.with_route(|socket| {
            socket.exchange(batch, |answer| index = link::parse(answer).map_or(index, |l| l.index))
        })
        .attempt("set up", thing())?;
        if ipv6 {
            self.set_bridge_ipv6(bridge)?;
        }
        self.set_bridge_addresses(bridge, index, ours, ipv6)?;
        if plan::has_ipv6(bridge) && !bridge.internal && self.features.ipv6 {
            self.forward_ipv6()?;
        }
        undo.commit();
        Ok(())
    }

    fn set_bridge_ipv6(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let settings = plan::plan_bridge_ipv6(bridge, &self.features);
        self.at_home(|| {
            settings.iter().try_for_each(|(file, value)| sysctl::write(&format!("net/ipv6/conf/{name}/{file}"), value))
        })
        .flatten()
        .attempt("set up IPv6 on", format!("bridge {name}"))
    }

    /// Brings it up, with its addresses and no others.
    fn set_bridge_addresses(&self, bridge: &Bridge, index: u32, ours: bool, ipv6: bool) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let mut wanted: Vec<Address> = bridge
            .gateways
            .iter()
            .map(|net| Address { link: index, ip: net.addr(), prefix: net.prefix_len() })
            .collect();
        if ours && ipv6 && plan::has_ipv6(bridge) {
            wanted.push(Address { link: index, ip: ruleset::link_local(bridge.mac).into(), prefix: 64 });
        }
        self.with_route(|socket| {
            let mut batch = Batch::default();
            link::set_up(&mut batch, name);
            if ours {
                for found in address::list(socket)?.iter().filter(|a| a.link == index && !wanted.contains(a)) {
                    address::remove(&mut batch, found);
                }
            }
            for address in &wanted {
                address::add(&mut batch, address);
            }
            socket.send(batch)?;
            wanted.iter().filter(|a| !is_link_local(a.ip)).try_for_each(|a| wait_until_local(socket, a.ip))
        })
        .attempt("give addresses to", format!("bridge {name}"))
    }

    fn remove_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let thing = || format!("bridge {name}");
        let mut failures = Vec::new();
        failures.extend(self.remove_elements(&ruleset::bridge_elements(bridge), thing()).err());
        let alias = mark(self.root.as_str(), &bridge.network.to_string());
        match self.find(name) {
            Ok(Some(link)) if link.alias.as_deref() == Some(&alias) => {
                self.departed.lock().unwrap_or_else(PoisonError::into_inner).retain(|(on, _), _| *on != link.index);
                failures.extend(self.delete_link(name).err());
            }
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
        all("remove", thing(), failures)
    }

    /// Lets IPv6 pass: by interface where the kernel can, else on all, and then uplinks that hear routers must go on
    /// hearing them.
    fn forward_ipv6(&self) -> Result<(), Error> {
        let (links, addresses, routes) = self
            .with_route(|socket| Ok::<_, Refusal>((link::list(socket)?, address::list(socket)?, route::list(socket)?)))
            .attempt("list", "uplinks")?;
        let is_uplink = |link: &&Link| {
            !link.loopback
                && !self.is_ours(link)
                && (default_routes(&routes).any(|r| r.link == Some(link.index))
                    || addresses.iter().any(|a| a.link == link.index && a.ip.is_ipv6() && !is_link_local(a.ip)))
        };
        let uplinks: Vec<&str> = links.iter().filter(is_uplink).map(|link| link.name.as_str()).collect();
        let by_interface = self.features.force_forwarding;
        self.at_home(|| -> io::Result<()> {
            let all_forward = sysctl::read("net.ipv6.conf.all.forwarding")? != "0";
            for uplink in uplinks {
                let file = |name: &str| format!("net/ipv6/conf/{uplink}/{name}");
                if by_interface {
                    sysctl::write(&file("force_forwarding"), "1")?;
                } else if !all_forward && sysctl::read(&file("accept_ra"))? == "1" {
                    sysctl::write(&file("accept_ra"), "2")?;
                }
            }
            if by_interface || all_forward { Ok(()) } else { sysctl::write("net.ipv6.conf.all.forwarding", "1") }
        })
        .flatten()
        .attempt("enable", "forwarding of IPv6")
    }

    // endpoints

    fn attach(&self, sandbox: &Sandbox, attachments: &[Attachment]) -> Result<(), Error> {
        let mut undo = Undo::default();
        let mut pair = Pair::default();
        let others: Vec<Vec<IpNet>> = sandbox
            .endpoints()
            .iter()
            .filter(|(id, _)| attachments.iter().all(|a| a.endpoint != **id))
            .map(|(_, addresses)| addresses.clone())
            .collect();
        for step in plan::plan_attach(attachments, &others, &self.features) {
            self.checkpoint("before a step of attaching")?;
            match step {
                Step::Elements(elements) => {
                    let thing = || format!("endpoints of {}", sandbox.thing());
                    self.tables.change(&Elements::new(), &elements).attempt("tell the firewall of", thing())?;
                    undo.push("endpoint elements", move || self.remove_elements(&elements, "endpoints"));
                }
                Step::Veth(attachment) => {
                    pair = self.create_veth(sandbox, attachment)?;
                    undo.push("veth", || self.delete_link(attachment.outer.as_str()));
                    self.checkpoint("between the veth and its neighbours")?;
                    let (bridge, addresses) = (pair.bridge, &attachment.addresses);
                    undo.push("neighbours", move || self.forget_neighbours(bridge, addresses));
                    self.introduce(attachment, &pair)?;
                }
                Step::Settings(attachment) => set_inside(sandbox, attachment)?,
                Step::Inside(attachment) => self.plumb_inside(sandbox, attachment, &pair)?,
                Step::Announce(attachment) => self.announce(attachment, &pair)?,
            }
        }
        self.checkpoint("after the last step of attaching")?;
        undo.commit();
        sandbox.remember(attachments);
        Ok(())
    }

    fn ipv6(&self, attachment: &Attachment) -> bool {
        self.features.ipv6 && attachment.mtu >= SMALLEST_MTU6
    }

    /// Both ends, the outer one up and its port behaving before anything can come out of it.
    fn create_veth(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<Pair, Error> {
        let (bridge, outer) = (attachment.bridge.as_str(), attachment.outer.as_str());
        let thing = || format!("interface {} of {} on bridge {bridge}", attachment.inner, sandbox.thing());
        let alias = mark(self.root.as_str(), &attachment.endpoint.to_string());
        let port = plan::plan_port(attachment, &self.features);
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        let master = link::find(&mut route, bridge).attempt("find", format!("bridge {bridge}"))?;

        let mut batch = Batch::default();
        link::create_veth(
            &mut batch,
            &NewVeth {
                outer,
                master: master.index,
                inner: attachment.inner.as_str(),
                namespace: sandbox.as_fd(),
                mac: attachment.mac.0,
                mtu: attachment.mtu,
            },
        );
        link::set_port(&mut batch, outer, &alias, self.ipv6(attachment), port);
        link::set_up(&mut batch, outer);
        link::ask(&mut batch, outer);
        let mut made = None;
        let result = route.exchange(batch, |answer| made = link::parse(answer));
        match (result, made) {
            (Ok(()), Some(link)) => Ok(Pair {
                bridge: master.index,
                bridge_mac: if self.is_ours(&master) {
                    attachment.gateway_mac.0
                } else {
                    master.mac.unwrap_or_default()
                },
                outer: link.index,
                inner: link.peer.unwrap_or_default(),
            }),
            (Ok(()), None) => Err(Refusal::of(Errno::NODEV)).attempt("create", thing()),
            (Err(refusal), _) if refusal.message == Some(0) && refusal.errno == Errno::from_raw_os_error(EXFULL) => {
                Err(Error::BridgeFull { bridge: bridge.into() })
            }
            (Err(refusal), _) => {
                if refusal.message != Some(0) {
                    let mut batch = Batch::default();
                    link::delete(&mut batch, outer);
                    let _ = route.send(batch); // the refusal is what went wrong, whether or not this goes right
                }
                Err(refusal).attempt("create", thing())
            }
        }
    }

    /// The bridge learns where the endpoint is, and the host its hardware address: both for good.
    fn introduce(&self, attachment: &Attachment, pair: &Pair) -> Result<(), Error> {
        let mut batch = Batch::default();
        neighbour::add_static_forwarding(&mut batch, pair.outer, attachment.mac.0);
        for net in &attachment.addresses {
            neighbour::add(&mut batch, &Neighbour { link: pair.bridge, ip: net.addr(), mac: attachment.mac.0 });
        }
        self.with_route(|socket| socket.send(batch))
            .attempt("make known", format!("endpoint {} on bridge {}", attachment.outer, attachment.bridge))
    }

    fn forget_neighbours(&self, bridge: u32, addresses: &[IpNet]) -> Result<(), Error> {
        for net in addresses {
            let mut batch = Batch::default();
            neighbour::remove(&mut batch, bridge, net.addr());
            unless_gone(self.with_route(|socket| socket.send(batch)))
                .attempt("forget", format!("neighbour {}", net.addr()))?;
        }
        Ok(())
    }

    fn plumb_inside(&self, sandbox: &Sandbox, attachment: &Attachment, pair: &Pair) -> Result<(), Error> {
        let mut batch = Batch::default();
        let inner = attachment.inner.as_str();
        let ipv6 = self.ipv6(attachment);
        if ipv6 {
            link::set_quiet(&mut batch, inner, None, true, &[]);
        }
        link::set_up(&mut batch, inner);
        link::ask(&mut batch, inner); // IPv6 is ready when the kernel has seen the carrier
        let mut give = |ip: IpAddr, prefix: u8| address::add(&mut batch, &Address { link: pair.inner, ip, prefix });
        for net in &attachment.addresses {
            give(net.addr(), net.prefix_len());
        }
        if ipv6 && attachment.addresses.iter().any(|net| net.addr().is_ipv6()) {
            give(ruleset::link_local(attachment.mac).into(), 64);
        }
        for gateway in &attachment.gateways {
            neighbour::add(&mut batch, &Neighbour { link: pair.inner, ip: *gateway, mac: pair.bridge_mac });
        }
        for gateway in &attachment.default_routes {
            route::set_default(&mut batch, *gateway, Some(pair.inner));
        }
        sandbox
            .with_route(|socket| {
                socket.send(batch)?;
                attachment.addresses.iter().try_for_each(|net| wait_until_local(socket, net.addr()))
            })
            .attempt("set up", format!("interface {inner} of {}", sandbox.thing()))
    }

    /// Asking for links makes the kernel act on their carriers now: the port forwards, and then a bridge with its first
    /// port sends; else packets are lost until it comes to it (before 6.8 they may be). Where neighbours may remember
    /// another owner of an address, they hear of this one; not otherwise, since the frame goes to every port.
    fn announce(&self, attachment: &Attachment, pair: &Pair) -> Result<(), Error> {
        let mut batch = Batch::default();
        link::ask(&mut batch, attachment.outer.as_str());
        link::ask(&mut batch, attachment.bridge.as_str());
        self.with_route(|socket| socket.exchange(batch, |_| {}))
            .attempt("find", format!("interface {}", attachment.outer))?;
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        for net in &attachment.addresses {
            if departed.remove(&(pair.bridge, net.addr())).is_some_and(|mac| mac != attachment.mac) {
                self.chores.announce(pair.bridge, net.addr(), attachment.mac);
            }
        }
        Ok(())
    }

    fn detach(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
        let mut failures = Vec::new();
        failures.extend(self.delete_link(attachment.outer.as_str()).err());
        failures.extend(self.release(std::slice::from_ref(attachment)).err());
        let shared = {
            let mut endpoints = sandbox.endpoints();
            let before = ruleset::shared_elements(endpoints.values().map(Vec::as_slice));
            endpoints.remove(&attachment.endpoint);
            let after = ruleset::shared_elements(endpoints.values().map(Vec::as_slice));
            before.difference(&after).cloned().collect()
        };
        failures.extend(self.remove_elements(&shared, sandbox.thing()).err());
        all("detach", format!("{} from {}", attachment.inner, sandbox.thing()), failures)
    }

    fn release(&self, attachments: &[Attachment]) -> Result<(), Error> {
        let mut failures = Vec::new();
        let elements: Elements =
            attachments.iter().flat_map(|a| ruleset::attachment_elements(a, self.features.variant())).collect();
        failures.extend(self.remove_elements(&elements, "released endpoints").err());
        for attachment in attachments {
            match self.find(attachment.bridge.as_str()) {
                Ok(Some(bridge)) => {
                    failures.extend(self.forget_neighbours(bridge.index, &attachment.addresses).err());
                    let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
                    departed
                        .extend(attachment.addresses.iter().map(|net| ((bridge.index, net.addr()), attachment.mac)));
                }
                Ok(None) => {}
                Err(error) => failures.push(error),
            }
        }
        all("release", format!("{} endpoints", attachments.len()), failures)
    }

    // ports

    fn publication_elements(&self, publications: &BTreeSet<Publication>) -> Elements {
        publications.iter().flat_map(|p| ruleset::publication_elements(p, self.proxy)).collect()
    }

    // repair

    fn mend(
        &self,
        repair: &Repair,
        desired: &Desired,
        observed: &Observed,
        sandbox: &impl Fn(&SandboxId) -> Option<Arc<Sandbox>>,
        report: &mut Report,
    ) {
        let (done, into_removed, what) = match repair {
            Repair::Rebuild(elements) => (self.tables.rebuild(elements), false, "firewall tables".to_owned()),
            Repair::Elements(out, into) => {
                let done = self.tables.change(out, into).attempt("mend", "firewall elements");
                (done, false, format!("{} firewall elements out, {} in", out.len(), into.len()))
            }
            Repair::RemoveLink(name) => (self.delete_link(name), true, format!("interface {name}")),
            Repair::Bridge(bridge) => {
                let mut done = self.create_bridge(bridge);
                // its ports may be without a master, and what changes a bridge makes the host forget its neighbours
                let members = desired.attachments.values().filter(|a| a.network == bridge.network);
                for member in members.filter(|a| observed.links.contains_key(a.outer.as_str())) {
                    done = done.and(self.mend_port(member));
                }
                (done, false, format!("bridge {}", bridge.device))
            }
            Repair::Attach(attachment) => {
                let done = match sandbox(&attachment.sandbox) {
                    Some(sandbox) => self.attach(&sandbox, std::slice::from_ref(attachment)),
                    None => Err(Error::Io {
                        attempt: "find",
                        thing: format!("sandbox {}", attachment.sandbox.short()),
                        source: io::ErrorKind::NotFound.into(),
                    }),
                };
                (done, false, format!("endpoint {}", attachment.outer))
            }
            Repair::Port(attachment) => (self.mend_port(attachment), false, format!("port {}", attachment.outer)),
            Repair::RemoveNeighbour(neighbour) => {
                let mut batch = Batch::default();
                neighbour::remove(&mut batch, neighbour.link, neighbour.ip);
                let done = unless_gone(self.with_route(|socket| socket.send(batch)));
                let what = format!("neighbour {}", neighbour.ip);
                (done.attempt("forget", what.clone()), true, what)
            }
        };
        match done {
            Ok(()) if into_removed => report.removed.push(what),
            Ok(()) => report.mended.push(what),
            Err(error) => report.failed.push(error),
        }
    }

    fn mend_port(&self, attachment: &Attachment) -> Result<(), Error> {
        let (bridge, outer) = (attachment.bridge.as_str(), attachment.outer.as_str());
        let master =
            self.with_route(|socket| link::find(socket, bridge)).attempt("find", format!("bridge {bridge}"))?;
        let mut batch = Batch::default();
        let alias = mark(self.root.as_str(), &attachment.endpoint.to_string());
        link::join(&mut batch, outer, master.index);
        link::set_port(&mut batch, outer, &alias, self.ipv6(attachment), plan::plan_port(attachment, &self.features));
        link::set_up(&mut batch, outer);
        link::ask(&mut batch, outer);
        link::ask(&mut batch, bridge);
        let mut found = Vec::new();
        self.with_route(|socket| socket.exchange(batch, |answer| found.extend(link::parse(answer))))
            .attempt("mend", format!("port {outer} of bridge {bridge}"))?;
        let outer = found.iter().find(|link| link.name == outer).map_or(0, |link| link.index);
        self.introduce(attachment, &Pair { bridge: master.index, outer, ..Pair::default() })
    }

    #[cfg(not(test))]
    #[inline]
    fn checkpoint(&self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }
    #[cfg(test)]
    fn checkpoint(&self, place: &'static str) -> Result<(), Error> {
        self.faults.pass(place)
    }
}

/// `Exchange full`: what the kernel calls a bridge with all its ports.
const EXFULL: i32 = 54;

/// The device that carries nothing: a bridge without ports that is never up.
fn ensure_nothing(route: &mut Socket, name: &str, alias: &str) -> Result<(), Error> {
    let thing = || format!("device {name}");
    let mut batch = Batch::default();
    link::create_bridge(&mut batch, &NewBridge { name, mac: [2, 0, 0, 0, 0, 0], mtu: 1500 });
    match route.send(batch) {
        Err(refusal) if refusal.errno == Errno::EXIST => {}
        other => other.attempt("create", thing())?,
    }
    let mut batch = Batch::default();
    link::set_quiet(&mut batch, name, Some(alias), false, &[]);
    route.send(batch).attempt("mark", thing())
}

fn set_inside(sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
    let set = || attachment.sysctls.iter().try_for_each(|(key, value)| sysctl::write(key, value).map_err(|e| (key, e)));
    match sandbox.inside(set).attempt("enter", sandbox.thing())? {
        Ok(()) => Ok(()),
        Err((key, source)) => Err(source).attempt("set", format!("{key} in {}", sandbox.thing())),
    }
}

/// An IPv6 address receives once a worker of the kernel's has been there: tens of microseconds, on a busy machine
/// milliseconds; a packet that came before would be lost, and the next one would come a second later. It goes on without
/// after the longest that a start may take for it.
fn wait_until_local(socket: &mut Socket, ip: IpAddr) -> Result<(), Refusal> {
    const LONGEST: Duration = Duration::from_millis(20);
    let start = Instant::now();
    while ip.is_ipv6() && !route::is_local(socket, ip)? {
        if start.elapsed() > LONGEST {
            tracing::debug!(%ip, "an address does not receive yet");
            break;
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn forward_ipv4() -> io::Result<()> {
    let key = "net.ipv4.ip_forward";
    if sysctl::read(key)? == "0" { sysctl::write(key, "1") } else { Ok(()) }
}

/// The neighbour table is one for all namespaces, and its limits are files of the initial one alone: elsewhere there
/// is nothing to do.
fn raise_neighbour_limits() {
    for family in ["ipv4", "ipv6"] {
        for (file, least) in [("gc_thresh3", 16384), ("gc_thresh2", 8192), ("gc_thresh1", 1024)] {
            let key = format!("net.{family}.neigh.default.{file}");
            if sysctl::read(&key).ok().and_then(|value| value.parse::<u32>().ok()).is_some_and(|now| now < least)
                && let Err(error) = sysctl::write(&key, &least.to_string())
            {
                tracing::warn!(key, %error, "could not raise a limit of the neighbour table");
            }
        }
    }
}

fn default_routes(routes: &[Route]) -> impl Iterator<Item = &Route> {
    routes.iter().filter(|route| route.destination.1 == 0)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn show(publications: &BTreeSet<Publication>) -> String {
    let one = |p: &Publication| match p.count {
        0 | 1 => format!("{}:{}/{}", p.host, p.host_port, p.protocol),
        n => format!("{}:{}-{}/{}", p.host, p.host_port, p.host_port.saturating_add(n - 1), p.protocol),
    };
    let mut text = publications.iter().take(3).map(one).collect::<Vec<_>>().join(", ");
    if publications.len() > 3 {
        text += &format!(" and {} more", publications.len() - 3);
    }
    text
}

#[cfg(test)]
mod faults {
    //! Making the n-th checkpoint fail, to see that everything before it is taken back.
    use crate::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    pub(super) struct Faults(AtomicUsize);
    impl Default for Faults {
        fn default() -> Self {
            Self(AtomicUsize::new(usize::MAX))
        }
    }
    impl Faults {
        pub(super) fn fail_at(&self, checkpoint: usize) {
            self.0.store(checkpoint, Ordering::SeqCst);
        }
        pub(super) fn pass(&self, place: &'static str) -> Result<(), Error> {
            if self.0.load(Ordering::SeqCst) == usize::MAX {
                return Ok(());
            }
            match self.0.fetch_sub(1, Ordering::SeqCst) {
                0 => {
                    self.0.store(usize::MAX, Ordering::SeqCst);
                    let source = std::io::Error::other("a fault of the test's");
                    Err(Error::Io { attempt: "pass", thing: place.into(), source })
                }
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::world::*;
    use kernel::link;
    use kernel::netlink::{Protocol, Socket};
    use std::collections::BTreeSet;

    /// What a sandbox has for interfaces.
    fn inside(sandbox: &crate::Sandbox) -> BTreeSet<String> {
        let links = sandbox.inside(|| link::list(&mut Socket::open(Protocol::Route).unwrap()).unwrap()).unwrap();
        links.into_iter().map(|link| link.name).collect()
    }

    #[test]
    fn lc_01_attaching_that_fails_at_any_step_leaves_nothing() {
        let Some(world) = world() else { return };
        let (first, second) = (world.bridge(1), world.bridge(2));
        let mut attachments = vec![attachment(&first, 7, 0), attachment(&second, 7, 1)];
        attachments[1].sysctls.insert("net.ipv4.conf.eth1.log_martians".into(), "1".into());
        let sandbox = world.network.create_sandbox(&attachments[0].sandbox).unwrap();
        let before = (world.network.observe().unwrap(), inside(&sandbox));
        let mut failed = 0;
        for step in 0.. {
            world.network.0.faults.fail_at(step);
            match world.network.attach(&sandbox, &attachments) {
                Ok(()) => break,
                Err(error) => assert_eq!(error.to_string().split(' ').nth(2), Some("pass"), "{error}"),
            }
            failed += 1;
            let after = (world.network.observe().unwrap(), inside(&sandbox));
            assert_eq!(before, after, "after failing at step {step}");
        }
        assert_eq!(failed, 11, "elements; veth, halfway, inside, announce; the same and settings; the end");
        world.network.0.faults.fail_at(usize::MAX);
        for attachment in &attachments {
            world.network.detach(&sandbox, attachment).unwrap();
        }
        assert_eq!(before, (world.network.observe().unwrap(), inside(&sandbox)), "attached and detached");
    }

    #[test]
    fn attaching_under_a_name_that_is_taken_leaves_nothing() {
        let Some(world) = world() else { return };
        let bridge = world.bridge(1);
        let a = world.member(&bridge, 2);
        let before = (world.network.observe().unwrap(), inside(&a.sandbox));
        let mut wrong = attachment(&bridge, 3, 0); // eth0 again
        assert!(world.network.attach(&a.sandbox, &[wrong.clone()]).is_err());
        assert_eq!(before, (world.network.observe().unwrap(), inside(&a.sandbox)));
        wrong.inner = name("eth1");
        wrong.sysctls.insert("net.ipv4.conf.eth1.no_such_setting".into(), "1".into());
        let error = world.network.attach(&a.sandbox, &[wrong]).unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
        assert_eq!(before, (world.network.observe().unwrap(), inside(&a.sandbox)));
    }
}
