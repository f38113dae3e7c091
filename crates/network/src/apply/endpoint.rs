//! Endpoints: pairs of interfaces between bridges and sandboxes.

use super::*;

/// What attaching learns about a pair of interfaces on the way.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    bridge: u32,
    bridge_mac: [u8; 6],
    outer: u32,
    inner: u32,
}

/// `Exchange full`: what the kernel calls a bridge with all its ports.
const EXFULL: i32 = 54;

impl Inner {
    pub(super) fn attach(&self, sandbox: &Sandbox, attachments: &[Attachment]) -> Result<(), Error> {
        let mut undo = Undo::default();
        let mut pair = Pair::default();
        let others: Vec<Leg> = sandbox
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
                Step::Share(attachment, on) => {
                    pair = Pair { inner: self.share(sandbox, attachment, on)?, ..Pair::default() };
                    undo.push("shared device", || self.unshare(sandbox, attachment));
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
        let alias = own::alias(self.root.as_str(), &attachment.endpoint.to_string());
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
        for net in attachment.addresses.iter().chain(&attachment.link_local) {
            give(net.addr(), net.prefix_len());
        }
        if ipv6 && attachment.addresses.iter().any(|net| net.addr().is_ipv6()) {
            give(attachment.mac.link_local().into(), 64);
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
                let routed = attachment.addresses.iter().map(|net| net.addr()).filter(|ip| !is_link_local(*ip));
                routed.into_iter().try_for_each(|ip| wait_until_local(socket, ip))
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

    /// A port that left its bridge, behaves otherwise, or lost its entries.
    pub(super) fn mend_port(&self, attachment: &Attachment) -> Result<(), Error> {
        let (bridge, outer) = (attachment.bridge.as_str(), attachment.outer.as_str());
        let master =
            self.with_route(|socket| link::find(socket, bridge)).attempt("find", format!("bridge {bridge}"))?;
        let mut batch = Batch::default();
        let alias = own::alias(self.root.as_str(), &attachment.endpoint.to_string());
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

    pub(super) fn detach(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
        let mut failures = Vec::new();
        failures.extend(match attachment.on_parent {
            Some(_) => self.unshare(sandbox, attachment).err(),
            None => self.delete_link(attachment.outer.as_str()).err(),
        });
        failures.extend(self.release(std::slice::from_ref(attachment)).err());
        let shared = {
            let mut endpoints = sandbox.endpoints();
            let before = elements::of_sandbox(endpoints.values());
            endpoints.remove(&attachment.endpoint);
            let after = elements::of_sandbox(endpoints.values());
            before.difference(&after).cloned().collect()
        };
        failures.extend(self.remove_elements(&shared, sandbox.thing()).err());
        all("detach", format!("{} from {}", attachment.inner, sandbox.thing()), failures)
    }

    pub(super) fn release(&self, attachments: &[Attachment]) -> Result<(), Error> {
        let mut failures = Vec::new();
        let mut elements: Elements =
            attachments.iter().flat_map(|a| elements::of_attachment(a, self.features.variant())).collect();
        let mut sandboxes: HashMap<SandboxId, Vec<Leg>> = HashMap::new();
        for attachment in attachments {
            sandboxes.entry(attachment.sandbox).or_default().push(attachment.into());
        }
        elements.extend(sandboxes.values().flat_map(elements::of_sandbox));
        failures.extend(self.remove_elements(&elements, "released endpoints").err());
        for attachment in attachments.iter().filter(|a| a.on_parent.is_none()) {
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
}

fn set_inside(sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
    let set = || attachment.sysctls.iter().try_for_each(|(key, value)| sysctl::write(key, value).map_err(|e| (key, e)));
    match sandbox.inside(set).attempt("enter", sandbox.thing())? {
        Ok(()) => Ok(()),
        Err((key, source)) => Err(source).attempt("set", format!("{key} in {}", sandbox.thing())),
    }
}
