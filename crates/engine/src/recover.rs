//! A daemon's start: the store is read, what still lives is found again, what died meanwhile is recorded, and the kernel
//! and the keeper are made to agree.
//!
//! ```text
//! lock ─▶ store ─▶ keeper, what it held ─▶ network ─▶ containers: running │ ended meanwhile │ half started │ lost
//!      ─▶ the keeper holds the tables' owner and the proxy ─▶ reconcile the kernel ─▶ the keeper follows what runs
//!      ─▶ record ends, undo half starts
//!      ─▶ sweep what has no record ─▶ restart what its policy says
//! ```

use crate::endpoints::{Claim, reserve_static};
use crate::error::{Error, Kind, Result};
use crate::found::{Found, adopt_sandboxes, check_descriptors, find_running, judge, paused_or_running};
use crate::keeper::{Act, Keeper};
use crate::root::{close_files, lock, make_private};
use crate::state::{Entry, State};
use crate::store::{Store, Write};
use crate::{Engine, Settings, naming};
use keeper_protocol::Key;
use model::container::{Container, Status};
use model::id::{ContainerId, NetworkId, RootId};
use model::network::{Change, predefined};
use model::spec::Ulimit;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

impl Engine {
    /// Opens an engine on its root directory.
    ///
    /// # Errors
    /// Another daemon works on it; a directory or the kernel cannot be used.
    pub async fn open(settings: Settings) -> Result<Arc<Engine>> {
        settings.networking.check().map_err(Error::invalid)?;
        // A socket in it may be a group's; what is in the root is reached through mounts.
        make_private(&settings.run, 0o711)?;
        for directory in [&settings.root, &settings.root.join("containers"), &settings.root.join("volumes")] {
            make_private(directory, 0o700)?;
        }
        let lock = lock(&settings.root)?;
        close_files(&settings);
        // We hold some of every container, from the keeper's first answer on; a container gets what we were given.
        let (soft, hard) = kernel::process::raise_descriptor_limit().map_err(Error::internal)?;
        let number = |limit: Option<u64>| limit.and_then(|l| i64::try_from(l).ok()).unwrap_or(-1);
        let descriptors = Ulimit { name: "nofile".into(), soft: number(soft), hard: number(hard) };
        let (store, contents) = Store::open(&settings.root)?;
        let mut facts = contents.facts.clone();
        let fact = |facts: &mut BTreeMap<String, String>, key: &'static str, new: String| {
            let value = facts.entry(key.to_owned()).or_insert(new).clone();
            store.record(vec![Write::Fact(key, value.clone())]);
            value
        };
        let root_text = fact(&mut facts, "root", RootId::new(crate::random()).to_string());
        let mut settings = settings;
        let engine_id = fact(&mut facts, "engine", ContainerId::new(crate::random()).to_string());
        let root_id: RootId = serde_json::from_value(root_text.into())
            .map_err(|e| Error::new(Kind::Internal, format!("the store's root id cannot be read: {e}")))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let same_boot = contents.facts.get("boot") == Some(&boot);
        if same_boot {
            let running = contents.containers.iter().filter(|c| c.state.is_running()).count();
            check_descriptors(running, hard)?;
        }
        store.record(vec![Write::Fact("boot", boot)]);

        let keeper_settings = crate::keeper::Settings {
            root: root_id.clone(),
            program: settings.program.clone(),
            socket: settings.run.join("keeper.sock"),
            log: settings.run.join("keeper.log"),
            resolv_conf: settings.resolv_conf.clone(),
        };
        let (connecting, mut held) = Keeper::connect(keeper_settings).await?;
        let owner = held.remove(&Key::TableOwner).and_then(|mut fds| fds.pop());
        let proxy = match held.remove(&Key::Proxy).and_then(|mut fds| fds.pop()) {
            _ if !settings.networking.proxy => None,
            Some(socket) => Some(std::net::TcpListener::from(socket)),
            None => crate::ports::proxy_listener(contents.containers.iter().flat_map(|c| &c.state.ports)),
        };
        let proxy_port = proxy.as_ref().and_then(|p| p.local_addr().ok()).map(|a| a.port());
        settings.networking.pools.add_own(&engine_id);
        let (forwarding, integration) = (settings.networking.forwarding, settings.networking.firewall_integration);
        let network = network::Network::open(network::Settings {
            root: root_id.clone(),
            owner,
            proxy_port,
            forwarding,
            integration,
            accept_mark: settings.networking.accept_mark,
        })
        .map_err(Error::internal)?;
        let images = image::Images::open(&settings.root.join("images")).map_err(crate::images::image_error)?;
        let runtime = runtime::Runtime::open(runtime::Settings {
            run_dir: settings.run.clone(),
            shim: settings.shim.clone(),
            root: root_id.clone(),
            cgroup_parent: String::new(),
            runc: "runc".into(),
        })
        .map_err(Error::internal)?;

        let routes = network.host_routes().map_err(Error::internal)?;
        let mut state = State { networking: Arc::new(settings.networking.clone()), ..State::default() };
        for network in contents.networks {
            state.networks.insert(network.id, network);
        }
        let default_bridge = &settings.networking.default_bridge;
        let is_on_default =
            |c: &Container| c.endpoints.iter().any(|e| e.network_name == "bridge" && e.active.is_some());
        let busy = contents.containers.iter().any(is_on_default);
        let device = network.foreign_addresses(&default_bridge.device).map_err(Error::internal)?;
        let here = model::network::Found { busy, device: &device, routes: &routes, now: crate::now() };
        let changes =
            predefined(state.networks.values(), &settings.networking, &here, || NetworkId::new(crate::random()));
        for change in changes.map_err(Error::invalid)? {
            match change {
                Change::Put(network) => {
                    store.record(vec![Write::Network(network.clone())]);
                    state.networks.insert(network.id, *network);
                }
                Change::Gone(id) => {
                    store.record(vec![Write::NetworkGone(id)]);
                    state.networks.remove(&id);
                }
            }
        }
        for network in state.networks.values() {
            state.leases.open(network);
        }
        for volume in contents.volumes {
            state.volumes.insert(volume.name.clone(), volume);
        }

        let mut found = Vec::new();
        let mut between_runs = BTreeSet::new();
        for mut record in contents.containers {
            if record.state.status == Status::Removing {
                // Its record was about to go.
                store.record(vec![Write::ContainerGone(record.id)]);
                continue;
            }
            // Asked of every container: one may run though its record has not come to say so.
            let held_process = held.remove(&Key::Process(record.id));
            let of_shim = match same_boot {
                true => find_running(&runtime, &settings, &record, held_process).await?,
                false => None,
            };
            let has_word = matches!(of_shim, Some(runtime::Reconnected::Exited(_)));
            let now = judge(&record, of_shim);
            if now.is_none() && has_word {
                // Its end is recorded already; only the shim's word on it was left.
                runtime.forget(record.id).await;
            }
            if record.state.status == Status::Restarting && !matches!(now, Some(Found::Running(_))) {
                record.state.status = Status::Exited;
                if now.is_none() {
                    between_runs.insert(record.id);
                }
            }
            if let Some(now) = now {
                if let Found::Running(container) = &now {
                    record.state.pid = u32::try_from(container.pid()).unwrap_or_default();
                    record.state.status = paused_or_running(&record, container).await;
                    record.state.started = Some(container.started_at());
                }
                found.push((record.id, now));
            }
            state.names.insert(record.name.clone(), record.id);
            lease_again(&mut state, &record);
            state.containers.insert(record.id, Entry::new(record));
        }
        adopt_sandboxes(&mut state, &network, &found, &mut held);

        // The keeper is fed what is true once the dead are out.
        let engine = Arc::new_cyclic(|weak: &std::sync::Weak<Engine>| {
            let weak = weak.clone();
            let snapshot: crate::keeper::Snapshot =
                Arc::new(move || weak.upgrade().map_or_else(Vec::new, |engine| naming::snapshot(&engine.state())));
            let keeper = connecting.begin(snapshot);
            Engine {
                reloadable: Mutex::new(settings.reloadable.clone()),
                settings,
                root_id,
                engine_id,
                started: crate::now(),
                state: Mutex::new(state),
                store,
                events: Default::default(),
                network,
                images,
                runtime,
                keeper,
                faults: Default::default(),
                metrics: Default::default(),
                ports: Default::default(),
                volumes: Default::default(),
                descriptors,
                _lock: lock,
            }
        });
        let held_ports = held.keys().filter_map(|k| if let Key::Ports(id) = k { Some(*id) } else { None }).collect();
        engine.settle(found, held_ports, proxy.map(Into::into)).await?;
        engine.end_steps().await;
        if contents.unreadable {
            tracing::error!("some records of the store cannot be read: what has no record is left where it is");
        } else {
            engine.sweep().await;
        }
        engine.heal_from_now_on()?;
        engine.restart_by_policy(&between_runs);
        Ok(engine)
    }

    /// Mends the kernel, has the keeper hold what runs and forget the rest, and records ends, from which restarts follow.
    async fn settle(
        self: &Arc<Self>,
        found: Vec<(ContainerId, Found)>,
        held_ports: BTreeSet<ContainerId>,
        proxy: Option<OwnedFd>,
    ) -> Result<()> {
        let (mut ended, mut half_started) = (Vec::new(), Vec::new());
        let mut live = BTreeSet::new();
        for (id, what) in found {
            match what {
                Found::Running(container) => {
                    live.insert(id);
                    if let Ok(entry) = self.state().entry_mut(id) {
                        entry.live = Some(container.clone());
                        let status = entry.record.state.status;
                        entry.set_status(status);
                    }
                    self.watch_exit(id, container);
                }
                Found::Ended(status) => ended.push((id, status)),
                Found::HalfStarted => half_started.push(id),
                Found::Lost => ended.push((id, runtime::ExitStatus::unknown(crate::now()))),
            }
        }
        // First of all, so that a keeper of another build can be replaced before it is told what it may not understand.
        self.keeper.refresh().await?;
        let owner = self.network.owner().map_err(Error::internal)?;
        self.keeper.tell(vec![Act::Hold(Key::TableOwner, vec![owner])]).await?;
        if let Some(proxy) = proxy {
            self.keeper.tell(vec![Act::Hold(Key::Proxy, vec![proxy])]).await?;
        }
        let (desired, sandboxes) = {
            let state = self.state();
            let mut desired = state.desired();
            let dead: BTreeSet<ContainerId> = ended.iter().map(|(id, _)| *id).chain(half_started.clone()).collect();
            desired.attachments.retain(|_, a| !dead.contains(&a.container));
            let attachments = &desired.attachments;
            desired.publications.retain(|endpoint, _| attachments.contains_key(endpoint));
            let sandboxes: BTreeMap<_, _> = state.sandboxes.iter().map(|(id, l)| (*id, l.sandbox.clone())).collect();
            (desired, sandboxes)
        };
        let engine = self.clone();
        let report = crate::blocking(move || engine.network.reconcile(&desired, |id| sandboxes.get(id).cloned()))
            .await
            .map_err(Error::internal)?;
        tracing::debug!(?report, "the kernel agrees");
        let keys: BTreeSet<Key> = {
            let state = self.state();
            let sandboxes = state.sandboxes.keys().map(|id| Key::Sandbox(*id));
            let processes = live.iter().map(|id| Key::Process(*id));
            // Who was taken off its last way out as the daemon ended has none any more.
            let publishes = |id: &&ContainerId| state.entry(**id).is_ok_and(|e| !e.record.state.ports.is_empty());
            let ports = live.iter().filter(publishes).flat_map(|id| [Key::Ports(*id), Key::Datagrams(*id)]);
            sandboxes.chain(processes).chain(ports).chain([Key::TableOwner, Key::Proxy]).collect()
        };
        self.keeper.keep_only(keys).await?;
        for id in live {
            self.reopen(id, !held_ports.contains(&id)).await;
            let (record, container) = {
                let state = self.state();
                let Ok(entry) = state.entry(id) else { continue };
                let Some(container) = &entry.live else { continue };
                (entry.record.clone(), container.clone())
            };
            self.have_watched(&record, &container).await?;
        }
        // Owners before those who share their namespaces: whoever is restarted finds them restarting.
        ended.sort_by_key(|(id, _)| {
            self.state().entry(*id).is_ok_and(|e| crate::restart::owners(&e.record.host).next().is_some())
        });
        for (id, status) in ended {
            let Ok(_turn) = self.turn(id).await else { continue };
            self.ended(id, status).await;
        }
        for id in half_started {
            let Ok(_turn) = self.turn(id).await else { continue };
            self.undo_start(id, &Error::new(Kind::Internal, "the daemon ended while it was starting it")).await?;
        }
        Ok(())
    }

    /// Opens anew what was lost because the keeper had died too: the sandbox's resolver, the sockets that reserve host
    /// ports. What fails is told, and does not keep the daemon from starting.
    async fn reopen(self: &Arc<Self>, id: ContainerId, ports: bool) {
        let Ok(record) = self.state().entry(id).map(|e| e.record.clone()) else { return };
        let unserved = {
            let state = self.state();
            let sandbox = record.state.sandbox.and_then(|s| Some((s, state.sandboxes.get(&s)?)));
            let lost = sandbox.filter(|(_, l)| l.owner == id && !l.resolver && naming::has_resolver(&state, &record));
            lost.map(|(s, l)| (s, l.sandbox.clone()))
        };
        if let Some((sandbox, handle)) = unserved {
            let trusted = record.endpoints.iter().filter_map(|e| e.active.as_ref()).any(|a| a.attachment.trusted);
            let (engine, inside) = (self.clone(), handle.clone());
            let opened = crate::blocking(move || engine.network.open_resolver(&inside, trusted)).await;
            let served = match opened.map_err(Error::internal) {
                Ok(sockets) => self.serve_sandbox(sandbox, &handle, sockets).await,
                Err(e) => Err(e),
            };
            if let Err(e) = served {
                tracing::error!(container = ?id, "its resolver cannot be opened again: {e}");
            }
        }
        if ports && !record.state.ports.is_empty() {
            let wanted: Vec<_> = record.state.ports.iter().map(|p| p.wanted()).collect();
            if let Err(e) = self.reserve_ports(&record, &wanted).await {
                tracing::error!(container = ?id, "its host ports cannot be reserved again: {e}");
            }
        }
    }

    /// Removes the containers of builds: whoever was to go on with their files has died with the last daemon.
    async fn end_steps(self: &Arc<Self>) {
        let steps: Vec<ContainerId> = {
            let state = self.state();
            state.containers.values().filter(|e| e.record.step).map(|e| e.record.id).collect()
        };
        for id in steps {
            match self.remove_container(&id.to_string(), true, true).await {
                Err(e) if e.kind != Kind::NotFound => tracing::warn!(container = ?id, "a build's container stays: {e}"),
                _ => {}
            }
        }
    }

    /// Takes away what a daemon left that died while it removed or made a container.
    async fn sweep(self: &Arc<Self>) {
        let known = |name: &str| name.parse::<ContainerId>().is_ok_and(|id| self.state().containers.contains_key(&id));
        let stray = |directory: std::path::PathBuf| -> Vec<ContainerId> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
            names.filter(|n| !known(n)).filter_map(|n| n.parse().ok()).collect()
        };
        for id in stray(self.settings.run.join("containers")) {
            tracing::info!(container = ?id, "what ran of it is taken away: it has no record");
            self.runtime.forget(id).await;
        }
        let mut files: BTreeSet<ContainerId> = stray(self.settings.root.join("containers")).into_iter().collect();
        match self.images.containers() {
            Ok(names) => files.extend(names.iter().filter(|n| !known(n)).filter_map(|n| n.parse::<ContainerId>().ok())),
            Err(e) => tracing::error!("file systems without a container are not looked for: {}", e.chain()),
        }
        for id in files {
            tracing::info!(container = ?id, "its files are removed: it has no record");
            self.remove_files(id);
        }
        self.settle_volumes();
    }
}

/// A container's addresses are its own again: configured ones always, dynamic ones where it had them.
fn lease_again(state: &mut State, record: &Container) {
    for endpoint in &record.endpoints {
        let Some(network) = endpoint.network else { continue };
        if let Err(e) = reserve_static(state, record.id, network, &endpoint.settings, Claim::Later) {
            tracing::warn!(container = ?record.id, "{e}");
        }
        let Some(record_of_network) = state.networks.get(&network).cloned() else { continue };
        for address in endpoint.active.iter().flat_map(|a| &a.attachment.addresses) {
            let lease = state.leases.lease(&record_of_network, address.addr(), record.id, |id| id.short());
            if lease.is_err() {
                // Whoever else has it configured does not use it.
                state.leases.take_over(network, address.addr(), record.id);
            }
        }
    }
}
