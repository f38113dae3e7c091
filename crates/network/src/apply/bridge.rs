//! Bridges: the devices that networks are.

use super::*;

/// IPv4 settings of our bridges. 127.0.0.1 leads to containers by them; what comes from a network to 127/8 or claims
/// to be from there is dropped at raw priority, so the table is there first.
const BRIDGE_SETTINGS: &[(u16, u32)] =
    &[(link::ipv4::ROUTE_LOCALNET, 1), (link::ipv4::ACCEPT_REDIRECTS, 0), (link::ipv4::SEND_REDIRECTS, 0)];

impl Inner {
    pub(super) fn create_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let thing = || format!("bridge {name}");
        let alias = own::alias(self.root.as_str(), &bridge.network.to_string());
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
        let elements = elements::of_bridge(bridge);
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
            // members' neighbour entries for it would go stale
            (Some(link), false) => link::pin_address(&mut batch, link),
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
        if plan::forwards_ipv6(bridge) {
            self.forward_ipv6()?;
        }
        if !bridge.internal {
            self.tell_others(|others| others.add(name));
        }
        undo.commit();
        Ok(())
    }

    fn set_bridge_ipv6(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let settings = plan::plan_bridge_ipv6(bridge, &self.features, self.forwarding);
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
            wanted.push(Address { link: index, ip: bridge.mac.link_local().into(), prefix: 64 });
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

    pub(super) fn remove_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let name = bridge.device.as_str();
        let thing = || format!("bridge {name}");
        let mut failures = Vec::new();
        failures.extend(self.remove_elements(&elements::of_bridge(bridge), thing()).err());
        self.tell_others(|others| others.remove(name));
        let alias = own::alias(self.root.as_str(), &bridge.network.to_string());
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
    pub(super) fn forward_ipv6(&self) -> Result<(), Error> {
        if !self.features.ipv6 || !self.forwarding {
            return Ok(());
        }
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
}
