//! Networks without a bridge: devices of the host that are made for them, and interfaces on such devices (DR-05, DR-06).

use super::*;
use kernel::link::{NewShare, ipvlan, macvlan};
use model::desired::{Ipvlan, Macvlan, OnParent, ParentKind, Spread};

impl Inner {
    /// Makes the device, unless one of that name is there: then it is somebody's, and stays.
    pub(super) fn create_parent(&self, parent: &Parent) -> Result<(), Error> {
        let name = parent.device.as_str();
        if self.find(name)?.is_some() {
            return Ok(());
        }
        let mut batch = Batch::default();
        let kind = match &parent.kind {
            ParentKind::Dummy => {
                link::create_dummy(&mut batch, name);
                "dummy"
            }
            ParentKind::Vlan { of, id } => {
                let of = self.find(of.as_str())?.ok_or_else(|| Error::NoParent { name: of.to_string() })?;
                link::create_vlan(&mut batch, name, of.index, *id);
                "8021q"
            }
        };
        link::set_quiet(
            &mut batch,
            name,
            Some(&own::alias(self.root.as_str(), &parent.network.to_string())),
            false,
            &[],
        );
        link::set_up(&mut batch, name);
        let made = self.with_route(|socket| socket.send(batch));
        if let Err(refusal) = &made
            && refusal.message != Some(0)
        {
            let _ = self.delete_link(name); // the refusal is what went wrong
        }
        made.map_err(|refusal| lacking(refusal, kind, || format!("interface {name}")))
    }

    /// Removes it if it is ours.
    pub(super) fn remove_parent(&self, parent: &Parent) -> Result<(), Error> {
        let alias = own::alias(self.root.as_str(), &parent.network.to_string());
        match self.find(parent.device.as_str())? {
            Some(link) if link.alias.as_deref() == Some(&alias) => self.delete_link(parent.device.as_str()),
            _ => Ok(()),
        }
    }

    /// Makes an endpoint's interface, in its sandbox at once; its index there.
    pub(super) fn share(&self, sandbox: &Sandbox, attachment: &Attachment, on: &OnParent) -> Result<u32, Error> {
        let (inner, name) = (attachment.inner.as_str(), on.parent.as_str());
        let parent = self.find(name)?.ok_or_else(|| Error::NoParent { name: name.to_owned() })?;
        let new = NewShare {
            name: attachment.outer.as_str(),
            parent: parent.index,
            namespace: sandbox.as_fd(),
            mtu: attachment.mtu.min(parent.mtu),
        };
        let mut batch = Batch::default();
        let kind = put_share(&mut batch, &new, on.sharing, attachment.mac);
        let thing = || format!("interface {inner} of {} on {name}", sandbox.thing());
        self.with_route(|socket| socket.send(batch)).map_err(|refusal| lacking(refusal, kind, thing))?;
        let name = |socket: &mut Socket| {
            let made = link::find(socket, attachment.outer.as_str())?;
            let mut batch = Batch::default();
            link::rename(&mut batch, made.index, inner);
            let named = socket.send(batch).map(|()| made.index);
            if named.is_err() {
                let mut batch = Batch::default();
                link::delete(&mut batch, attachment.outer.as_str());
                let _ = socket.send(batch); // the refusal is what went wrong
            }
            named
        };
        sandbox.with_route(name).attempt("name", thing())
    }

    /// Makes one of the kind on the device that carries nothing, and takes it away: only a kernel that lacks the kind
    /// refuses with that reason.
    pub(super) fn probe_sharing(&self, sharing: Sharing) -> Result<(), Error> {
        let parent = self.find(&self.nothing)?.ok_or_else(|| Error::NoParent { name: self.nothing.clone() })?;
        let name = format!("p-{}", self.root);
        let new = NewShare { name: &name, parent: parent.index, namespace: self.home.as_fd(), mtu: 1500 };
        let mut batch = Batch::default();
        let kind = put_share(&mut batch, &new, sharing, MacAddr::local([0; 6]));
        match self.with_route(|socket| socket.send(batch)) {
            Ok(()) => self.delete_link(&name),
            Err(refusal) if refusal.errno == Errno::OPNOTSUPP => Err(Error::Lacks { kind }),
            Err(_) => Ok(()),
        }
    }

    /// Deletes an endpoint's interface in a sandbox that lives on.
    pub(super) fn unshare(&self, sandbox: &Sandbox, attachment: &Attachment) -> Result<(), Error> {
        let mut batch = Batch::default();
        link::delete(&mut batch, attachment.inner.as_str());
        unless_gone(sandbox.with_route(|socket| socket.send(batch)))
            .attempt("delete", format!("interface {} of {}", attachment.inner, sandbox.thing()))
    }
}

/// An interface that shares a parent; the kernel's name of the kind.
fn put_share(batch: &mut Batch, new: &NewShare<'_>, sharing: Sharing, mac: MacAddr) -> &'static str {
    match sharing {
        Sharing::Macvlan(mode) => {
            let mode = match mode {
                Macvlan::Private => macvlan::PRIVATE,
                Macvlan::Vepa => macvlan::VEPA,
                Macvlan::Bridge => macvlan::BRIDGE,
                Macvlan::Passthru => macvlan::PASSTHRU,
            };
            link::create_macvlan(batch, new, mac.0, mode);
            "macvlan"
        }
        Sharing::Ipvlan(mode, spread) => {
            let mode = match mode {
                Ipvlan::L2 => ipvlan::L2,
                Ipvlan::L3 => ipvlan::L3,
                Ipvlan::L3s => ipvlan::L3S,
            };
            let flags = match spread {
                Spread::Bridge => ipvlan::BRIDGE,
                Spread::Private => ipvlan::PRIVATE,
                Spread::Vepa => ipvlan::VEPA,
            };
            link::create_ipvlan(batch, new, mode, flags);
            "ipvlan"
        }
    }
}

/// A kernel that does not know a kind of device says that it is not supported.
fn lacking(refusal: Refusal, kind: &'static str, thing: impl FnOnce() -> String) -> Error {
    match refusal.errno {
        Errno::OPNOTSUPP => Error::Lacks { kind },
        _ => Error::Refused { attempt: "create", thing: thing(), source: refusal },
    }
}
