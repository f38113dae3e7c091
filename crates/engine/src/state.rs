//! What is true, in memory: the one owner of networks, containers, volumes and addresses.
//!
//! Its methods look up and decide; they are short, never wait, and touch nothing outside. Whoever acts on a decision
//! does so after the lock is given back.

use crate::command::Exec;
use crate::error::{Error, Result};
use crate::store::Volume;
use model::container::{Container, Status};
use model::daemon::Networking;
use model::id::{ContainerId, ExecId, NetworkId, SandboxId};
use model::ipam::Leases;
use model::network::Network;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Default)]
pub struct State {
    pub networks: BTreeMap<NetworkId, Network>,
    pub containers: BTreeMap<ContainerId, Entry>,
    /// Container names, also of those being created.
    pub names: HashMap<String, ContainerId>,
    pub volumes: BTreeMap<String, Volume>,
    pub sandboxes: BTreeMap<SandboxId, LiveSandbox>,
    pub execs: BTreeMap<ExecId, Arc<Exec>>,
    pub leases: Leases,
    /// What the daemon was told about networks; it never changes.
    pub networking: Arc<Networking>,
    /// Networks that have their names and addresses, and no device yet: nobody can join them.
    pub making: BTreeMap<NetworkId, Network>,
    /// Volumes with options that this daemon has mounted, and for whom.
    pub mounted: BTreeMap<String, BTreeSet<ContainerId>>,
    /// The daemon goes, and may stop what runs before ([`crate::Engine::stop_all`]): nothing comes again, and nothing is
    /// mended, before the next one.
    pub closing: bool,
    /// Removed networks whose devices are still being taken down.
    pub going: Vec<Going>,
}

/// A network that is gone for clients, but not yet for the kernel.
pub struct Going {
    pub network: Network,
    /// Closed when it is gone for the kernel, too.
    pub gone: watch::Receiver<()>,
}

/// A container with what this daemon has of it.
pub struct Entry {
    pub record: Container,
    /// Given by whoever made it: a build's step works on a file system of the build's. Else the image store has it.
    pub rootfs: Option<model::rootfs::Rootfs>,
    /// The way to its shim, while it runs.
    pub live: Option<runtime::Container>,
    /// What its checks have found in this run; `None` where there are none.
    pub health: Option<model::health::Health>,
    /// Operations on one container happen one after the other, in the order they arrived.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Told on every change of status.
    pub pulse: watch::Sender<Pulse>,
    /// Clients that attached before the start.
    pub waiting_attaches: Vec<Waiting>,
    /// Stops a restart that is waiting for its time.
    pub restart: Option<tokio::task::AbortHandle>,
    /// How long the last restart waited; `None` before the first since a client has started it.
    pub backoff: Option<std::time::Duration>,
    /// How many clients are restarting it: its end is then not the end, whatever `--rm` says.
    pub restarting_by_client: u32,
}

/// A client that attached before the start: it gets the stdio when there is one.
pub struct Waiting {
    pub options: runtime::AttachOptions,
    pub ready: tokio::sync::oneshot::Sender<runtime::Attached>,
}

/// What waiters wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub status: Status,
    /// How often it has ended, with the last end's code and error.
    pub ends: u64,
    pub exit_code: i64,
    pub error: String,
    pub removed: bool,
}

/// A sandbox of this daemon, and who is in it.
pub struct LiveSandbox {
    pub sandbox: Arc<network::Sandbox>,
    /// Whose endpoints it has.
    pub owner: ContainerId,
    /// Running containers in it, the owner among them.
    pub users: BTreeSet<ContainerId>,
    /// Its resolver is open.
    pub resolver: bool,
}

impl Entry {
    pub fn new(record: Container) -> Self {
        let pulse = Pulse {
            status: record.state.status,
            ends: 0,
            exit_code: record.state.exit_code,
            error: String::new(),
            removed: false,
        };
        Self {
            record,
            rootfs: None,
            live: None,
            health: None,
            turn: Arc::default(),
            pulse: watch::Sender::new(pulse),
            waiting_attaches: Vec::new(),
            restart: None,
            backoff: None,
            restarting_by_client: 0,
        }
    }

    /// Sets the status and tells waiters.
    pub fn set_status(&mut self, status: Status) {
        self.record.state.status = status;
        self.pulse.send_modify(|p| p.status = status);
    }
}

/// A match by id prefix.
enum Prefix<'a, T> {
    One(&'a T),
    Many(usize),
    None,
}

fn by_prefix<'a, K: Ord + ToString + 'a, T>(all: impl Iterator<Item = (&'a K, &'a T)>, prefix: &str) -> Prefix<'a, T> {
    let mut found = None;
    let mut count = 0;
    if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        for (id, value) in all {
            if id.to_string().starts_with(prefix) {
                found = Some(value);
                count += 1;
            }
        }
    }
    match (found, count) {
        (Some(one), 1) => Prefix::One(one),
        (None, _) => Prefix::None,
        (_, n) => Prefix::Many(n),
    }
}

impl State {
    /// A network by full id, name, or unique id prefix, in this order (API-03).
    pub fn network(&self, reference: &str) -> Result<&Network> {
        if let Ok(id) = reference.parse::<NetworkId>()
            && let Some(network) = self.networks.get(&id)
        {
            return Ok(network);
        }
        if let Some(network) = self.networks.values().find(|n| n.name == reference) {
            return Ok(network);
        }
        match by_prefix(self.networks.iter(), reference) {
            Prefix::One(network) => Ok(network),
            Prefix::None => Err(Error::not_found(format!("network {reference} not found"))),
            Prefix::Many(n) => {
                Err(Error::invalid(format!("network {reference} is ambiguous ({n} matches found based on ID prefix)")))
            }
        }
    }

    /// A container by full id, name (with or without slash), or unique id prefix.
    pub fn find(&self, reference: &str) -> Result<&Entry> {
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Ok(id) = name.parse::<ContainerId>()
            && let Some(entry) = self.containers.get(&id)
        {
            return Ok(entry);
        }
        if let Some(entry) = self.names.get(name).and_then(|id| self.containers.get(id)) {
            return Ok(entry);
        }
        match by_prefix(self.containers.iter(), name) {
            Prefix::One(entry) => Ok(entry),
            Prefix::None => Err(Error::not_found(format!("No such container: {reference}"))),
            Prefix::Many(_) => Err(Error::invalid(format!("multiple IDs found with provided prefix: {reference}"))),
        }
    }

    pub fn resolve(&self, reference: &str) -> Result<ContainerId> {
        Ok(self.find(reference)?.record.id)
    }

    /// The entry of a container that was resolved before: it may be gone by now.
    pub fn entry(&self, id: ContainerId) -> Result<&Entry> {
        self.containers.get(&id).ok_or_else(|| Error::not_found(format!("No such container: {id}")))
    }

    pub fn entry_mut(&mut self, id: ContainerId) -> Result<&mut Entry> {
        self.containers.get_mut(&id).ok_or_else(|| Error::not_found(format!("No such container: {id}")))
    }

    /// What a holder of an address is called in messages.
    pub fn name_of(&self, id: ContainerId) -> String {
        self.containers.get(&id).map_or_else(|| id.short(), |e| e.record.name.clone())
    }

    /// Takes a container's name.
    ///
    /// # Errors
    /// It is malformed or another's.
    pub fn take_name(&mut self, name: &str, id: ContainerId) -> Result<()> {
        if !model::container::is_valid_name(name) {
            return Err(Error::invalid(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        match self.names.get(name) {
            Some(holder) => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove \
                 (or rename) that container to be able to reuse that name."
            ))),
            None => {
                self.names.insert(name.to_owned(), id);
                Ok(())
            }
        }
    }

    /// The active endpoints on a network, with their containers: nobody keeps a list of them (API-05).
    pub fn members(&self, network: NetworkId) -> impl Iterator<Item = (&Container, &model::container::ActiveEndpoint)> {
        self.containers.values().flat_map(move |entry| {
            let on = entry.record.endpoints.iter().filter(move |e| e.network == Some(network));
            on.filter_map(move |e| Some((&entry.record, e.active.as_ref()?)))
        })
    }

    /// What the kernel shall look like, whole.
    pub fn desired(&self) -> model::desired::Desired {
        let mut desired = model::desired::Desired::default();
        for network in self.networks.values() {
            if let Some(bridge) = network.bridge(&self.networking) {
                desired.bridges.insert(network.id, bridge);
            }
            if let Some(parent) = network.parent() {
                desired.parents.insert(network.id, parent);
            }
        }
        for entry in self.containers.values() {
            for active in entry.record.endpoints.iter().filter_map(|e| e.active.as_ref()) {
                let endpoint = active.attachment.endpoint;
                desired.attachments.insert(endpoint, active.attachment.clone());
                if !active.publications.is_empty() {
                    desired.publications.insert(endpoint, active.publications.clone());
                }
            }
        }
        desired
    }
}
