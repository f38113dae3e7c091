//! What the keeper holds: descriptors under their keys, and what is served from them.

use crate::proxy::{Routes, SharedProxy, datagrams, streams};
use keeper_protocol::Key;
use model::id::SandboxId;
use model::names::{Change, Names, Questions};
use resolver::forward::{Kind, Origin, Sockets};
use resolver::serve::{Shared, serve};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::task::JoinHandle;

/// The sandboxes' network namespaces, shared with whoever opens sockets inside them.
pub type Namespaces = Rc<RefCell<HashMap<SandboxId, Rc<OwnedFd>>>>;

pub struct Holdings {
    shared: Rc<Shared>,
    namespaces: Namespaces,
    held: BTreeMap<Key, Vec<OwnedFd>>,
    /// The tasks that serve from them.
    served: BTreeMap<Key, Vec<JoinHandle<()>>>,
    proxy: SharedProxy,
    /// A snapshot on its way in.
    staged: Option<(Names, Routes)>,
}

impl Holdings {
    pub fn new(shared: Rc<Shared>, namespaces: Namespaces) -> Self {
        Self {
            shared,
            namespaces,
            held: BTreeMap::new(),
            served: BTreeMap::new(),
            proxy: SharedProxy::default(),
            staged: None,
        }
    }

    pub fn questions(&self) -> Questions {
        self.shared.questions()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.held.keys().cloned().collect()
    }

    pub fn get(&self, key: &Key) -> Option<&[OwnedFd]> {
        self.held.get(key).map(Vec::as_slice)
    }

    /// Takes descriptors; a sandbox's are served at once. What was held under the key before is closed, unless these
    /// are `more` of it.
    ///
    /// # Errors
    /// The descriptors are not what the key says.
    pub fn hold(&mut self, key: Key, descriptors: Vec<OwnedFd>, more: bool) -> io::Result<()> {
        if !more {
            drop(self.release(&key));
        }
        for descriptor in &descriptors {
            let task = match key {
                Key::Proxy => streams::serve(descriptor.try_clone()?, self.proxy.clone(), self.shared.clone())?,
                Key::Datagrams(_) => {
                    datagrams::serve(descriptor.try_clone()?, self.proxy.clone(), self.shared.clone())?
                }
                _ => break,
            };
            self.served.entry(key.clone()).or_default().push(task);
        }
        if let Key::Sandbox(sandbox) = key
            && !more
        {
            self.serve(sandbox, &descriptors)?;
        }
        self.held.entry(key).or_default().extend(descriptors);
        Ok(())
    }

    fn serve(&mut self, sandbox: SandboxId, descriptors: &[OwnedFd]) -> io::Result<()> {
        let [namespace, rest @ ..] = descriptors else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a sandbox is a namespace and perhaps two sockets",
            ));
        };
        self.namespaces.borrow_mut().insert(sandbox, Rc::new(namespace.try_clone()?));
        if let [udp, tcp, ..] = rest {
            let (udp, tcp) = (udp.try_clone()?.into(), tcp.try_clone()?.into());
            let shared = self.shared.clone();
            let task = tokio::task::spawn_local(async move {
                if let Err(e) = serve(shared, sandbox, udp, tcp).await {
                    tracing::error!(?sandbox, "cannot serve: {e}");
                }
            });
            self.served.insert(Key::Sandbox(sandbox), vec![task]);
        }
        Ok(())
    }

    /// Closes what is held under `key`. The tasks that served from it are ending: nothing is open any more when they
    /// have ended.
    #[must_use]
    pub fn release(&mut self, key: &Key) -> Vec<JoinHandle<()>> {
        let ending = self.served.remove(key).unwrap_or_default();
        ending.iter().for_each(JoinHandle::abort);
        if let Key::Sandbox(sandbox) = key {
            self.namespaces.borrow_mut().remove(sandbox);
        }
        self.held.remove(key);
        ending
    }

    /// Closes what nothing is served by: ports must be free as soon as the successor gives them back.
    pub fn let_go(&mut self) {
        self.held.clear();
    }

    /// Begins a snapshot: what is applied until [`Holdings::begin`] is not yet seen.
    pub fn reset(&mut self) {
        self.staged = Some(Default::default());
    }

    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match &mut self.staged {
                Some((names, routes)) => {
                    routes.apply(&change);
                    names.apply(change);
                }
                None => self.apply_live(change),
            }
        }
    }

    /// Applies to what is seen now, whatever is staged: a death is a death.
    pub fn apply_at_once(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_live(change.clone());
            if let Some((names, routes)) = &mut self.staged {
                routes.apply(change);
                names.apply(change.clone());
            }
        }
    }

    fn apply_live(&self, change: Change) {
        self.proxy.apply(&change);
        self.shared.names.borrow_mut().apply(change);
    }

    /// The snapshot is complete: it is seen from now on.
    pub fn begin(&mut self) {
        if let Some((names, routes)) = self.staged.take() {
            *self.shared.names.borrow_mut() = names;
            self.proxy.replace(routes);
        }
    }
}

/// Opens sockets on the host or inside a sandbox.
pub struct SandboxSockets {
    pub namespaces: Namespaces,
}

impl Sockets for SandboxSockets {
    fn open(&self, origin: Origin, peer: IpAddr, kind: Kind) -> io::Result<OwnedFd> {
        let open = || kernel::inet::socket(peer.is_ipv6(), kind == Kind::Tcp).map_err(io::Error::from);
        match origin {
            Origin::Host => open(),
            Origin::Sandbox(sandbox) => {
                let namespace = self.namespaces.borrow().get(&sandbox).cloned();
                let namespace = namespace.ok_or(io::ErrorKind::NotFound)?;
                kernel::netns::inside(namespace.as_fd(), open)?
            }
        }
    }

    fn interface(&self, socket: BorrowedFd<'_>, zone: &str) -> io::Result<u32> {
        match zone.parse() {
            Ok(number) => Ok(number),
            Err(_) => kernel::inet::interface_number(socket, zone).map_err(io::Error::from),
        }
    }
}
