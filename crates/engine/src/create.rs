//! Creating a container: everything is checked and completed here, and recorded; nothing runs yet.

use crate::endpoints::{Claim, check_settings, requested, reserve_static};
use crate::error::{Error, Kind, Result};
use crate::state::Entry;
use crate::store::Write;
use crate::volumes::point;
use crate::{Engine, blocking, petname};
use model::container::{
    Config, Container, Endpoint, EndpointSettings, HostConfig, MountKind, MountPoint, NetworkMode, State,
};
use model::create::{Machine, check, check_platform, check_request, complete, merge_image};
use model::id::ContainerId;
use model::image::Platform;
use model::mount::MountRequest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client asks for in `POST /containers/create`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    pub name: Option<String>,
    /// Which the image must be of.
    pub platform: Option<Platform>,
    pub config: Config,
    pub host: HostConfig,
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// The keys of `endpoints` as the client sent them.
    pub endpoint_order: Vec<String>,
}

/// A container made, and what its client should know.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: ContainerId,
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a container.
    ///
    /// # Errors
    /// There is no such image; the name is taken; options contradict each other or the network.
    pub async fn create_container(self: &Arc<Self>, request: CreateRequest) -> Result<Created> {
        let engine = self.clone();
        self.detached(async move {
            let id = ContainerId::new(crate::random());
            // Others see it before it is whole, and wait for their turn.
            let turn = Arc::new(tokio::sync::Mutex::new(()));
            let _turn = turn.clone().lock_owned().await;
            let mut mounts = Vec::new();
            let made = engine.create(id, turn, request, &mut mounts).await;
            if made.is_err() {
                engine.forget(id);
                for made_for_it in mounts.iter().filter(|m| m.anonymous) {
                    let _ = engine.remove_volume(&made_for_it.name, true).await;
                }
            }
            made
        })
        .await
    }

    async fn create(
        self: &Arc<Self>,
        id: ContainerId,
        turn: Arc<tokio::sync::Mutex<()>>,
        request: CreateRequest,
        mounts: &mut Vec<MountPoint>,
    ) -> Result<Created> {
        let CreateRequest { name, platform, mut config, mut host, endpoints, endpoint_order } = request;
        check_request(&config, &host).map_err(Error::invalid)?;
        let image = self.find_image(&config.image).await?;
        check_platform(&config.image, platform.as_ref(), &image.platform).map_err(Error::not_found)?;
        merge_image(&mut config, &image.config);
        self.settings.containers.complete(&mut host);
        let machine = machine();
        complete(&mut config, &mut host, id, self.settings.networking.default_bridge.enabled, &machine);
        let mut warnings = check(&config, &host, &machine).map_err(Error::invalid)?;
        model::mount::check_drivers(&config, &host).map_err(Error::not_found)?;
        let mut requests = model::mount::requests(&config, &host).map_err(Error::invalid)?;
        check_sources(&requests)?;

        let mut record = {
            let mut state = self.state();
            if let NetworkMode::Container(other) = host.network_mode() {
                let other = state.resolve(other).map_err(|e| {
                    // Not 'not found': that is the image's, and docker would pull it.
                    Error::invalid(e.context("joining network namespace of container"))
                })?;
                host.network_mode = format!("container:{other}");
            }
            let inherited = inherited(&state, &host)?;
            let name = match name.filter(|n| !n.is_empty()) {
                Some(name) => name.trim_start_matches('/').to_owned(),
                None => petname::free(|n| state.names.contains_key(n)),
            };
            state.take_name(&name, id)?;
            let mut record = Container {
                id,
                name,
                created: crate::now(),
                image: image.id.clone(),
                config,
                host,
                endpoints: Vec::new(),
                // Used from here on: nobody can prune them.
                mounts: join_mounts(inherited, &mut requests),
                state: State::created(),
                restarts: 0,
                stopped_by_client: false,
                step: false,
            };
            mounts.clone_from(&record.mounts);
            let mut wanted =
                requested(&record.host.network_mode(), &record.host.network_mode, endpoints, &endpoint_order);
            move_mac_address(&mut record, &mut wanted)?;
            let taken = take_endpoints(&mut state, &mut record, wanted);
            // Known from here on, so that whatever is taken for it is given back with it.
            let mut entry = Entry::new(record.clone());
            entry.turn = turn;
            state.containers.insert(id, entry);
            taken?;
            warnings.extend(port_warnings(&state, &record));
            record
        };
        self.faults.pass("create").await?;

        let engine = self.clone();
        let (image_id, volatile) = (record.image.clone(), record.host.auto_remove);
        let rootfs = blocking(move || engine.images.prepare(&id.to_string(), &image_id, volatile))
            .await
            .map_err(crate::images::image_error)?;
        self.faults.pass("rootfs").await?;
        self.prepare_mounts(id, &rootfs, requests, mounts).await?;
        record.mounts.clone_from(mounts);
        self.faults.pass("mounts").await?;
        self.store.commit(vec![Write::Container(Box::new(record.clone()))]).await?;
        self.state().entry_mut(id)?.record = record.clone();
        self.tell_container(&record, "create", &[]);
        Ok(Created { id, warnings })
    }

    /// Makes the volumes that are missing, with the image's content, and the bind sources that `-v` makes.
    async fn prepare_mounts(
        self: &Arc<Self>,
        id: ContainerId,
        rootfs: &model::rootfs::Rootfs,
        requests: Vec<MountRequest>,
        points: &mut Vec<MountPoint>,
    ) -> Result<()> {
        for request in requests {
            match request.kind {
                MountKind::Volume => {
                    let name = Some(request.source.clone()).filter(|s| !s.is_empty());
                    let volume = self.use_volume(id, name, &request).await?;
                    let path = self.volume_path(&volume.name);
                    points.push(point(&request, Some((&volume, path.display().to_string()))));
                    let (engine, from, to, at) = (self.clone(), rootfs.clone(), path, request.destination.clone());
                    // What a volume with options holds is not there before it is mounted.
                    if request.copy && volume.options.is_empty() && request.subpath.is_empty() {
                        blocking(move || fill_volume(&engine, &from, &at, &to)).await?;
                    }
                }
                MountKind::Bind => {
                    if request.create_source && !std::path::Path::new(&request.source).exists() {
                        std::fs::create_dir_all(&request.source).map_err(|e| {
                            Error::new(
                                Kind::Internal,
                                format!("error while creating mount source path '{}': {e}", request.source),
                            )
                        })?;
                    }
                    points.push(point(&request, None));
                }
                MountKind::Tmpfs => points.push(point(&request, None)),
            }
        }
        Ok(())
    }

    /// A volume that is there or is made, used by the container from the same moment on: nobody can prune it.
    async fn use_volume(
        self: &Arc<Self>,
        id: ContainerId,
        name: Option<String>,
        request: &MountRequest,
    ) -> Result<crate::store::Volume> {
        let _volumes = self.volumes.lock().await;
        let volume = self.ensure_volume(name, request.labels.clone(), request.options.clone()).await?;
        let path = self.volume_path(&volume.name).display().to_string();
        self.state().entry_mut(id)?.record.mounts.push(point(request, Some((&volume, path))));
        Ok(volume)
    }

    /// Where a container's own files are: log, hosts, resolv.conf, hostname.
    pub(crate) fn container_dir(&self, id: ContainerId) -> std::path::PathBuf {
        self.settings.container_dir(id)
    }

    pub(crate) fn tell_container(&self, record: &Container, action: &str, more: &[(&str, String)]) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.events.tell("container", action, record.id.to_string(), attributes);
    }
}

/// Puts a new container on the networks it asks for, and reserves its own addresses. What it took before it failed is
/// in `record`.
fn take_endpoints(
    state: &mut crate::state::State,
    record: &mut Container,
    wanted: Vec<(String, EndpointSettings)>,
) -> Result<()> {
    let mode = record.host.network_mode();
    let is_alone =
        matches!(mode, NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) | NetworkMode::Path(_));
    let allowed = usize::from(!matches!(mode, NetworkMode::Container(_) | NetworkMode::Path(_)));
    let is_alone_driver =
        |name: &String| state.network(name).is_ok_and(|n| !n.driver.has_addresses() && !n.config_only);
    if is_alone && wanted.len() > allowed || !is_alone && wanted.iter().any(|(name, _)| is_alone_driver(name)) {
        return Err(Error::invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    model::container::check_names(wanted.iter().map(|(_, settings)| settings)).map_err(Error::invalid)?;
    for (network_name, settings) in wanted {
        let network = state.network(&network_name).ok().cloned();
        let network_name = network.as_ref().map_or(network_name, |n| n.name.clone());
        let endpoint = Endpoint { network: network.as_ref().map(|n| n.id), network_name, settings, active: None };
        if let Some(network) = network {
            if record.endpoint_on(network.id).is_some() {
                return Err(Error::invalid(format!("network {} is given twice", network.name)));
            }
            check_settings(&network, &endpoint.settings)?;
            record.endpoints.push(endpoint);
            let settings = &record.endpoints[record.endpoints.len() - 1].settings;
            reserve_static(state, record.id, network.id, settings, Claim::Later)
                .map_err(|e| e.context("failed to set up container networking"))?;
        } else {
            record.endpoints.push(endpoint);
        }
    }
    Ok(())
}

/// The container's own hardware address, of API versions before 1.44, is its first endpoint's (BR-06).
fn move_mac_address(record: &mut Container, wanted: &mut [(String, EndpointSettings)]) -> Result<()> {
    let Some(mac) = record.config.mac_address.take().filter(|m| !m.is_empty()) else { return Ok(()) };
    let Some((_, first)) = wanted.first_mut().filter(|_| !matches!(record.host.network_mode(), NetworkMode::Host))
    else {
        return Err(Error::invalid("conflicting options: mac-address and the network mode"));
    };
    if first.mac_address.is_empty() {
        first.mac_address = mac;
    } else if first.mac_address != mac {
        return Err(Error::invalid(
            "conflicting MAC addresses: the container's own and its endpoint's in the main network are not the same",
        ));
    }
    Ok(())
}

/// What its ports will not do, said while it can still be changed.
fn port_warnings(state: &crate::state::State, record: &Container) -> Vec<String> {
    let mut warnings = Vec::new();
    let wanted = record.wanted_ports(None).unwrap_or_default();
    let networks = || record.endpoints.iter().filter_map(|e| state.networks.get(&e.network?));
    if !wanted.is_empty() && networks().next().is_some() && networks().all(|n| n.internal) {
        let names: Vec<&str> = networks().map(|n| n.name.as_str()).collect();
        warnings.push(format!(
            "Published ports are discarded: network {} is internal, so nobody outside reaches its members",
            names.join(", ")
        ));
    }
    let most = model::port::MOST_HELD;
    if wanted.iter().any(|w| w.protocol == model::net::Protocol::Udp && w.count > most) {
        warnings.push(format!(
            "UDP ranges of more than {most} ports are not published on [::1], nor from IPv6 to a container without it"
        ));
    }
    warnings
}

/// The mounts of the containers that `--volumes-from` names.
fn inherited(state: &crate::state::State, host: &HostConfig) -> Result<Vec<MountPoint>> {
    let mut all: Vec<MountPoint> = Vec::new();
    for text in host.volumes_from.iter().flatten() {
        let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
        let words: Vec<&str> = mode.split(',').collect();
        if container.is_empty() || words.iter().any(|w| !matches!(*w, "ro" | "rw" | "z" | "Z")) {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
        // Not 'not found': that is the image's, and docker would pull it.
        let from = state.find(container).map_err(|e| Error::invalid(e.message))?;
        for point in from.record.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs) {
            all.retain(|m| m.destination != point.destination);
            all.push(MountPoint { rw: point.rw && !words.contains(&"ro"), ..point.clone() });
        }
    }
    Ok(all)
}

/// What is asked for itself comes before what is inherited, and that before an anonymous volume.
fn join_mounts(mut inherited: Vec<MountPoint>, requests: &mut Vec<MountRequest>) -> Vec<MountPoint> {
    let is_anonymous = |r: &MountRequest| r.kind == MountKind::Volume && r.source.is_empty();
    requests.retain(|r| !is_anonymous(r) || inherited.iter().all(|m| m.destination != r.destination));
    inherited.retain(|m| requests.iter().all(|r| r.destination != m.destination));
    inherited
}

/// What `--mount` binds is there, or is asked to be made.
fn check_sources(requests: &[MountRequest]) -> Result<()> {
    let binds = requests.iter().filter(|r| r.kind == MountKind::Bind && !r.create_source);
    match binds.map(|r| &r.source).find(|source| !std::path::Path::new(source).exists()) {
        Some(source) => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
        ))),
        None => Ok(()),
    }
}

/// A volume that is still empty takes what the image has at its place.
fn fill_volume(engine: &Engine, from: &model::rootfs::Rootfs, at: &str, to: &std::path::Path) -> Result<()> {
    let is_empty = std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty {
        engine.images.copy_up(from, at, to).map_err(crate::images::image_error)?;
    }
    Ok(())
}

/// What the decisions need to know of this machine.
pub(crate) fn machine() -> Machine {
    const SYS_RESOURCE: u32 = 24;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    Machine {
        processors: model::limits::Machine {
            cpus: read("/sys/devices/system/cpu/online"),
            memory_nodes: read("/sys/devices/system/node/online"),
        },
        hostname: crate::info::hostname(),
        journald: std::path::Path::new("/run/systemd/journal/socket").exists(),
        oom_score: read("/proc/self/oom_score_adj").parse().unwrap_or_default(),
        may_lower_oom_score: kernel::process::permitted_capabilities() & 1 << SYS_RESOURCE != 0,
    }
}
