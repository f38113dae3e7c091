//! Acting: the handle that makes bridges, sandboxes and published ports real, and takes them away again.
//!
//! Every act brings its undo. Tear-down is different: it goes on past failures, and takes 'already gone' for success.

mod bridge;
mod endpoint;
mod parent;
mod repair;

use crate::chores::Chores;
use crate::elements::{self, Elements, Leg};
use crate::error::{Attempt, Error, all, unless_gone};
use crate::features::Features;
use crate::observe::{self, Observed};
use crate::others::{self, Others};
use crate::own;
use crate::plan::{self, Step};
use crate::reconcile::{self, Repair, Report, Settled};
use crate::reserve::{self, Means, PortError, PortRequest, Reservation};
use crate::resolver::{self, ResolverSockets};
use crate::ruleset::Variant;
use crate::sandbox::Sandbox;
use crate::tables::Tables;
use crate::undo::Undo;
use crate::watch::Watch;
use ipnet::IpNet;
use kernel::address::{self, Address};
use kernel::link::{self, Link, NewBridge, NewVeth};
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::{Batch, Errno, Protocol, Refusal, Socket};
use kernel::route::{self, Route};
use kernel::{netns, sysctl};
use model::daemon::Mark;
use model::desired::{Attachment, Bridge, Desired, Parent, Publication, Sharing};
use model::id::{RootId, SandboxId};
use model::net::{InterfaceName, MacAddr};
use model::port::Published;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a [`Network`] is opened with.
#[derive(Debug)]
pub struct Settings {
    /// Marks everything that we make.
    pub root: RootId,
    /// The socket that owns our tables, from whoever held it last; it serves nothing else.
    pub owner: Option<OwnedFd>,
    /// The TCP port of the keeper's proxy on this host, for [::1] and from IPv6 to IPv4-only containers.
    pub proxy_port: Option<u16>,
    /// Whether the host shall forward, if it does not yet (PT-19).
    pub forwarding: bool,
    /// Whether other firewalls are told of our networks (SEC-07 to SEC-10).
    pub integration: bool,
    /// What has this mark passes into every network that is not internal (SEC-07).
    pub accept_mark: Option<Mark>,
}

/// The networks of one network namespace: cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: RootId,
    proxy: Option<u16>,
    forwarding: bool,
    integration: bool,
    others: Others,
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
        let Settings { root, owner, proxy_port, forwarding, integration, accept_mark } = settings;
        let home = netns::current().attempt("open", "the network namespace")?;
        let home_identity = netns::identity(home.as_fd()).attempt("identify", "the network namespace")?;
        let mut route = Socket::open(Protocol::Route).attempt("open", "a socket for links")?;
        let mut owner = Tables::open_socket(owner)?;
        let features = limit(Features::probe(&mut owner, root.as_str()));
        let variant = Variant { accept_mark, ..features.variant() };
        let tables = Tables::new(root.as_str(), owner, variant, features.owned_tables)?;
        tables.claim()?;
        let base = elements::of_nobody(proxy_port);
        tables.change(&Elements::new(), &base).attempt("tell the firewall of", "the proxy's port")?;

        let nothing = own::nothing(root.as_str());
        ensure_nothing(&mut route, &nothing, &own::alias(root.as_str(), own::NOTHING))?;
        if forwarding {
            forward_ipv4().attempt("enable", "forwarding of IPv4")?;
        }
        raise_neighbour_limits();
        let others = Others::new(&root, integration);
        Ok(Self(Arc::new(Inner {
            root,
            others,
            integration,
            proxy: proxy_port,
            forwarding,
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
            .with_route(|socket| {
                Ok::<_, Refusal>((link::list(socket)?, address::list(socket)?, route::list_all(socket)?))
            })
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

    /// The host's addresses on devices that are not ours.
    pub fn host_addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let (links, addresses) = self
            .0
            .with_route(|socket| Ok::<_, Refusal>((link::list(socket)?, address::list(socket)?)))
            .attempt("list", "the host's addresses")?;
        let ours = |index: u32| links.iter().any(|l| l.index == index && self.0.is_ours(l));
        Ok(addresses.iter().filter(|a| !ours(a.link)).map(|a| a.ip).collect())
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

    /// The addresses of a device that somebody else made: a default network on it takes them over.
    pub fn foreign_addresses(&self, device: &InterfaceName) -> Result<Vec<IpNet>, Error> {
        let Some(link) = self.0.find(device.as_str())?.filter(|link| !self.0.is_ours(link)) else {
            return Ok(Vec::new());
        };
        let all = self.0.with_route(address::list).attempt("list", format!("addresses of {device}"))?;
        let own = all.iter().filter(|a| a.link == link.index && !is_link_local(a.ip));
        Ok(own.filter_map(|a| IpNet::new(a.ip, a.prefix).ok()).collect())
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

    /// Makes the device that a network's members have interfaces on, if it is not there.
    ///
    /// # Errors
    /// [`Error::Lacks`] where the kernel has none of the kind.
    pub fn create_parent(&self, parent: &Parent) -> Result<(), Error> {
        self.0.create_parent(parent)
    }

    /// Whether the kernel has interfaces that share a parent in this way.
    ///
    /// # Errors
    /// [`Error::Lacks`] where it has not.
    pub fn probe_sharing(&self, sharing: Sharing) -> Result<(), Error> {
        self.0.probe_sharing(sharing)
    }

    /// Removes such a device if it was made here.
    pub fn remove_parent(&self, parent: &Parent) -> Result<(), Error> {
        self.0.remove_parent(parent)
    }

    /// Makes a network namespace with its loopback device up.
    pub fn create_sandbox(&self, id: &SandboxId, may_forward: bool) -> Result<Sandbox, Error> {
        Sandbox::create(id, may_forward)
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

    /// Makes an endpoint real if its interfaces are gone: after a [`Network::detach`] that is regretted, all or part of
    /// it.
    ///
    /// # Errors
    /// As [`Network::attach`].
    pub fn attach_again(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
        let is_there = match attachment.on_parent {
            Some(_) => sandbox.with_route(|socket| link::find(socket, attachment.inner.as_str())).is_ok(),
            None => self.0.find(attachment.outer.as_str())?.is_some(),
        };
        match is_there {
            true => Ok(()),
            false => self.0.attach(sandbox, std::slice::from_ref(attachment)),
        }
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

    /// Reserves host ports: all, or none. The sockets are the reservation. `others` have ports that no socket holds.
    pub fn reserve(&self, requests: &[PortRequest], others: &[Published]) -> Result<Vec<Reservation>, PortError> {
        let means = Means { nothing: &self.0.nothing, proxy: self.0.proxy };
        self.0.at_home(|| reserve::reserve(requests, others, &means))?
    }

    /// Leads host ports to containers: all, or none. UDP flows that began before follow within 60 ms (PT-15).
    pub fn publish(&self, publications: &BTreeSet<Publication>) -> Result<(), Error> {
        let elements = self.0.elements_of(publications);
        self.0.tables.change(&Elements::new(), &elements).attempt("publish", show(publications))?;
        self.0.chores.forget_flows(publications);
        Ok(())
    }

    /// Leads them nowhere. Those that are not published are no error.
    pub fn unpublish(&self, publications: &BTreeSet<Publication>) -> Result<(), Error> {
        let elements = self.0.elements_of(publications);
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
        let alias = own::alias(self.0.root.as_str(), own::NOTHING);
        self.0.with_route(|route| ensure_nothing(route, &self.0.nothing, &alias))?;
        let observed = self.observe()?;
        let repairs = reconcile::plan_repairs(desired, &observed, &self.0.features, self.0.root.as_str(), self.0.proxy);
        for attachment in desired.attachments.values() {
            if let Some(sandbox) = sandbox(&attachment.sandbox) {
                sandbox.remember(std::slice::from_ref(attachment));
            }
        }
        let report = self.0.mend_all(&repairs, desired, &observed, &sandbox);
        let bridges = desired.bridges.values().filter(|b| !b.internal).map(|b| b.device.to_string()).collect();
        self.0.tell_others(|others| others.keep_only(bridges));
        Ok(report)
    }

    /// An uplink may have come: where a network of these has IPv6, it forwards.
    pub fn forward_from_new_uplinks(&self, desired: &Desired) -> Result<(), Error> {
        if desired.bridges.values().any(plan::forwards_ipv6) { self.0.forward_ipv6() } else { Ok(()) }
    }

    /// Other firewalls may have forgotten what they were told.
    pub fn tell_others_again(&self) {
        self.0.tell_others(Others::tell_again);
    }

    /// The places of other firewalls that are told of our networks.
    pub fn told_firewalls(&self) -> Vec<&'static str> {
        if !self.0.integration {
            return Vec::new();
        }
        self.0.at_home(others::used).unwrap_or_default()
    }

    /// Chains of others that drop what our networks forward, unless they have a rule for it.
    pub fn forward_drops(&self) -> Vec<String> {
        let own = own::table(self.0.root.as_str());
        self.0.at_home(|| others::droppers(&own, self.0.integration)).unwrap_or_default()
    }

    /// Chains of others that drop what comes to the host by IPv4, or by IPv6, unless they have a rule for it: so what the
    /// proxy carries.
    pub fn input_drops(&self, ipv6: bool) -> Vec<String> {
        let own = own::table(self.0.root.as_str());
        self.0.at_home(|| others::input_droppers(&own, ipv6)).unwrap_or_default()
    }

    /// Makes what is missing of what shall be, while others are at work: nothing is removed, and interfaces are made
    /// only where everything is settled.
    pub fn heal(
        &self,
        desired: &Desired,
        settled: &Settled,
        sandbox: impl Fn(&SandboxId) -> Option<Arc<Sandbox>>,
    ) -> Result<Report, Error> {
        let observed = self.observe()?;
        let repairs = reconcile::plan_repairs(desired, &observed, &self.0.features, self.0.root.as_str(), self.0.proxy);
        Ok(self.0.mend_all(&reconcile::additions(repairs, settled), desired, &observed, &sandbox))
    }

    /// Hears of what others take away from us, from now on.
    pub fn watch(&self) -> Result<Watch, Error> {
        self.0.at_home(|| Watch::open(&self.0.root)).attempt("enter", "the host's network namespace")?
    }

    /// Takes away what serves running containers only: the firewall's tables and the interface that leads nowhere. The
    /// networks' devices stay: they are as many as the networks, and deleting one takes the kernel 20 ms.
    /// [`Network::reconcile`] makes it all again.
    pub fn leave(&self) -> Result<(), Error> {
        let mut failures = Vec::new();
        failures.extend(self.0.delete_link(&self.0.nothing).err());
        failures.extend(self.0.tables.delete().err());
        all("remove", "what serves running containers", failures)
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

    fn tell_others(&self, tell: impl FnOnce(&Others) + Send) {
        if let Err(error) = self.at_home(|| tell(&self.others)) {
            tracing::warn!(%error, "other firewalls are not told of our networks");
        }
    }

    fn is_ours(&self, link: &Link) -> bool {
        link.alias.as_deref().is_some_and(|alias| alias.starts_with(&own::alias(self.root.as_str(), "")))
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

    fn elements_of(&self, publications: &BTreeSet<Publication>) -> Elements {
        publications.iter().flat_map(|p| elements::of_publication(p, self.proxy)).collect()
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
        let sandbox = world.network.create_sandbox(&attachments[0].sandbox, false).unwrap();
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
