//! Creating a container: everything is checked and completed here, and recorded; nothing runs yet.

use crate::endpoints::{check_settings, requested, reserve_static};
use crate::error::{Error, Kind, Result};
use crate::state::Entry;
use crate::store::Write;
use crate::volumes::point;
use crate::{Engine, blocking};
use model::container::{
    Config, Container, Endpoint, EndpointSettings, HostConfig, MountKind, MountPoint, NetworkMode, PortBinding, State,
};
use model::id::ContainerId;
use model::image::{ImageConfig, Platform};
use model::mount::MountRequest;
use model::spec::CapabilitySet;
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
        check_request(&config, &host)?;
        let image = self.find_image(&config.image).await?;
        check_platform(&config.image, platform.as_ref(), &image.platform)?;
        merge_image(&mut config, &image.config);
        self.settings.containers.complete(&mut host);
        complete(&mut config, &mut host, id, self.settings.networking.default_bridge.enabled);
        let mut warnings = check(&config, &host)?;
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
                None => free_name(|n| state.names.contains_key(n)),
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

    /// Gives back all that a container has in memory and on disk; its record is the caller's.
    pub(crate) fn forget(self: &Arc<Self>, id: ContainerId) {
        let entry = {
            let mut state = self.state();
            state.names.retain(|_, holder| *holder != id);
            let entry = state.containers.remove(&id);
            state.execs.retain(|_, exec| exec.container != id);
            if let Some(entry) = &entry {
                for endpoint in &entry.record.endpoints {
                    crate::endpoints::release(&mut state, id, endpoint, true);
                }
            }
            entry
        };
        if let Some(entry) = entry {
            entry.pulse.send_modify(|p| p.removed = true);
        }
        self.store.record(vec![Write::ContainerGone(id)]);
        self.remove_files(id);
    }

    /// Removes a container's files, behind everybody's back.
    pub(crate) fn remove_files(self: &Arc<Self>, id: ContainerId) {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = engine.images.discard(&id.to_string()) {
                tracing::error!(container = ?id, "its file system cannot be removed: {}", e.chain());
            }
            let directory = engine.container_dir(id);
            match std::fs::remove_dir_all(&directory) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!(container = ?id, "cannot remove {}: {e}", directory.display());
                }
                _ => {}
            }
        });
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
            reserve_static(state, record.id, network.id, settings)
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

/// What the client left open comes from the image, in Docker's rules.
fn merge_image(config: &mut Config, image: &ImageConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.iter().flat_map(|p| p.keys()) {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    model::env::complete(&mut config.env, image.env.iter().flatten());
    for (name, value) in image.labels.iter().flatten() {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if config.entrypoint.is_none() || is_empty(&config.entrypoint) {
        if is_empty(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // `--entrypoint ""` takes the image's away.
    if config.entrypoint.as_ref().is_some_and(|e| e.len() == 1 && e[0].is_empty()) {
        config.entrypoint = None;
    }
    match (&mut config.healthcheck, &image.healthcheck) {
        (own @ None, Some(image)) => *own = Some(image.clone()),
        (Some(own), Some(image)) => {
            if own.test.as_ref().is_none_or(Vec::is_empty) {
                own.test.clone_from(&image.test);
            }
            for (own, image) in [
                (&mut own.interval, image.interval),
                (&mut own.timeout, image.timeout),
                (&mut own.start_period, image.start_period),
                (&mut own.start_interval, image.start_interval),
                (&mut own.retries, image.retries),
            ] {
                if *own == 0 {
                    *own = image;
                }
            }
        }
        _ => {}
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    for path in image.volumes.iter().flat_map(|v| v.keys()) {
        config.volumes.entry(path.clone()).or_default();
    }
    if config.stop_signal.is_none() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
}

/// Docker's defaults for what neither the client nor the image says.
fn complete(config: &mut Config, host: &mut HostConfig, id: ContainerId, default_network: bool) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        // With `--bridge none` (BR-19) there is none.
        host.network_mode = if default_network { "bridge" } else { "none" }.into();
    }
    // No binding at all means one that says nothing, as clients before API 1.52 rely on (PT-04).
    for bindings in host.port_bindings.values_mut() {
        let bindings = bindings.get_or_insert_default();
        if bindings.is_empty() {
            bindings.push(PortBinding::default());
        }
    }
    let set = |text: &mut String, default: &str| {
        if text.is_empty() {
            *text = default.to_owned();
        }
    };
    set(&mut host.restart_policy.name, "no");
    set(&mut host.ipc_mode, "private");
    set(&mut host.cgroupns_mode, "private");
    set(&mut host.runtime, "isle");
    let shares_names = matches!(host.network_mode(), NetworkMode::Container(_));
    if config.hostname.is_empty() && !shares_names {
        config.hostname = match host.network_mode() {
            NetworkMode::Host => hostname(),
            _ => id.short(),
        };
    }
}

/// What of this machine can be had.
fn machine() -> model::limits::Machine {
    let list = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    model::limits::Machine {
        cpus: list("/sys/devices/system/cpu/online"),
        memory_nodes: list("/sys/devices/system/node/online"),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_owned()).unwrap_or_default()
}

/// The longest hostname in bytes (sethostname(2)), and the most ranges of published ports.
const MAX_HOSTNAME: usize = 64;
const MAX_RANGES: usize = 1024;

/// What a client must not ask for together, though an image may (API-25).
fn check_request(config: &Config, host: &HostConfig) -> Result<()> {
    let publishes = !host.port_bindings.is_empty() || host.publish_all_ports;
    let shares = matches!(host.network_mode(), NetworkMode::Container(_));
    if shares && !publishes && !config.exposed_ports.is_empty() {
        return Err(Error::invalid("conflicting options: port exposing and the container type network mode"));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    Ok(())
}

/// 'Not found', since clients then pull the one of the right platform.
fn check_platform(image: &str, wanted: Option<&Platform>, actual: &Platform) -> Result<()> {
    match wanted {
        Some(wanted) if !wanted.accepts(actual) => Err(Error::not_found(format!(
            "image with reference {image} was found but its platform ({actual}) does not match the specified platform \
             ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// Options that contradict each other are refused in Docker's words (API-25); harmless ones are warned of.
pub(crate) fn check(config: &Config, host: &HostConfig) -> Result<Vec<String>> {
    let conflict = |what: &str| Err(Error::invalid(format!("conflicting options: {what}")));
    let publishes = !host.port_bindings.is_empty() || host.publish_all_ports;
    match host.network_mode() {
        NetworkMode::Container(_) => {
            if !config.hostname.is_empty() {
                return conflict("hostname and the network mode");
            }
            if host.links.as_ref().is_some_and(|l| !l.is_empty()) {
                return conflict(
                    "container type network can't be used with links. This would result in undefined behavior",
                );
            }
            if !host.dns.is_empty() {
                return conflict("dns and the network mode");
            }
            if host.extra_hosts.as_ref().is_some_and(|h| !h.is_empty()) {
                return conflict("custom host-to-IP mapping and the network mode");
            }
            if publishes {
                return conflict("port publishing and the container type network mode");
            }
        }
        NetworkMode::Path(path) => {
            if !path.starts_with('/') {
                return Err(Error::invalid(format!("invalid network mode ns:{path}: an absolute path is needed")));
            }
            if publishes {
                return conflict("port publishing and an existing network namespace");
            }
        }
        NetworkMode::Host if host.links.as_ref().is_some_and(|l| !l.is_empty()) => {
            return conflict("host type networking can't be used with links. This would result in undefined behavior");
        }
        _ => {}
    }
    if config.command_is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    match host.restart_policy.name.as_str() {
        "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(Error::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.restart_policy.name != "on-failure" && host.restart_policy.maximum_retry_count != 0 {
        return Err(Error::invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure', not with '{}'",
            host.restart_policy.name
        )));
    }
    if host.auto_remove && host.restart_policy.name != "no" {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    model::limits::check(host, &machine()).map_err(Error::invalid)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if !host.isolation.is_empty() && !host.isolation.eq_ignore_ascii_case("default") {
        return Err(Error::invalid(format!(
            "invalid isolation: {}: there is no other than 'default' on Linux",
            host.isolation
        )));
    }
    if host.storage_opt.as_ref().is_some_and(|o| !o.is_empty()) {
        return Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option: Isle has no limit for a \
             container's files",
        ));
    }
    model::bounds::check(config, host).map_err(Error::invalid)?;
    for (target, options) in host.tmpfs.iter().flatten() {
        let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        model::spec::tmpfs_options(&options).map_err(Error::invalid)?;
        model::bounds::check_target(&model::bounds::clean(target), "").map_err(Error::invalid)?;
    }
    if !matches!(host.runtime.as_str(), "isle" | "runc" | "io.containerd.runc.v2") {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    if host.log_config.driver == "journald" {
        let socket = std::path::Path::new("/run/systemd/journal/socket");
        let why =
            if socket.exists() { "Isle does not write to it yet" } else { "journald is not running on this host" };
        return Err(Error::invalid(format!("failed to initialize logging driver: {why}; use json-file or local")));
    }
    if !model::logging::is_driver(&host.log_config.driver) {
        return Err(Error::invalid(format!("logger: no log driver named '{}' is registered", host.log_config.driver)));
    }
    if let Some(wrong) = model::logging::wrong_option(&host.log_config) {
        return Err(Error::invalid(wrong));
    }
    if host.device_requests.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(Error::invalid(
            "could not select device driver \"\" with capabilities: [[gpu]]: Isle passes devices by --device, and has no device plugins",
        ));
    }
    // Texts that are only used at start are read here, so that a typing error is told at once.
    for port in config.exposed_ports.keys() {
        model::port::parse_range(port)?;
    }
    let published = model::port::plan_requests(&host.port_bindings, std::iter::empty(), false, None)?;
    // One message tells the keeper all of a container's ports; so with its names and servers.
    if published.len() > MAX_RANGES {
        return Err(Error::invalid(format!(
            "too many published ports: {} separate ranges were given, at most {MAX_RANGES} are allowed; consecutive \
             ports count as one",
            published.len()
        )));
    }
    for (n, one) in published.iter().enumerate() {
        let model::port::HostPort::Exactly(first) = one.host else { continue };
        let own = model::port::Published::new(one, first);
        if let Some(other) = published[..n].iter().find(|other| own.collides(other)) {
            // Ranges may begin elsewhere: it is the first port that both have.
            let port = match other.host {
                model::port::HostPort::Exactly(theirs) => first.max(theirs),
                _ => first,
            };
            let port = format!("{port}/{}", one.protocol);
            return Err(Error::invalid(format!("invalid port specification: host port {port} is published twice")));
        }
    }
    if config.hostname.len() > MAX_HOSTNAME {
        return Err(Error::invalid(format!(
            "invalid hostname: {} bytes are more than the kernel's {MAX_HOSTNAME}",
            config.hostname.len()
        )));
    }
    if host.dns.len() > model::container::MAX_NAMES {
        return Err(Error::invalid(format!("too many DNS servers: {} were given", host.dns.len())));
    }
    for server in &host.dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("ParseAddr(\"{server}\"): unable to parse IP")));
        }
    }
    for text in host.extra_hosts.iter().flatten() {
        let (_, address) = crate::files::split_extra_host(text)?;
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    crate::describe::security_options(host)?;
    let list = |caps: &Option<Vec<String>>| caps.clone().unwrap_or_default();
    model::spec::capabilities(host.privileged, &list(&host.cap_add), &list(&host.cap_drop), CapabilitySet::ALL)
        .map_err(Error::invalid)?;
    if let Some(signal) = &config.stop_signal {
        crate::stop::signal_number(signal)?;
    }
    let mut warnings = Vec::new();
    if matches!(host.network_mode(), NetworkMode::Host) && publishes {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    const SYS_RESOURCE: u32 = 24;
    let may_lower = kernel::process::permitted_capabilities() & 1 << SYS_RESOURCE != 0;
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    warnings.extend(score_warning(host.oom_score_adj, own.unwrap_or_default(), may_lower));
    Ok(warnings)
}

/// What becomes of an OOM score below our `own`: only who has CAP_SYS_RESOURCE `may_lower` it.
fn score_warning(asked: i64, own: i64, may_lower: bool) -> Option<String> {
    let in_vain = asked != 0 && asked < own && !may_lower;
    in_vain.then(|| {
        format!(
            "The OOM score cannot be lowered to {asked}: the daemon has no CAP_SYS_RESOURCE. The container keeps the \
             daemon's, {own}"
        )
    })
}

trait CommandLine {
    fn command_is_empty(&self) -> bool;
}

impl CommandLine for Config {
    fn command_is_empty(&self) -> bool {
        [&self.entrypoint, &self.cmd].iter().all(|l| l.as_ref().is_none_or(Vec::is_empty))
    }
}

/// A name of two words that nobody has yet.
fn free_name(taken: impl Fn(&str) -> bool) -> String {
    const FIRST: [&str; 32] = [
        "amber", "brave", "calm", "clear", "coral", "deep", "eager", "early", "fair", "gentle", "green", "happy",
        "high", "jolly", "keen", "kind", "light", "lucky", "mild", "noble", "open", "plain", "proud", "quick", "quiet",
        "salty", "sandy", "sunny", "swift", "tidal", "warm", "wise",
    ];
    const SECOND: [&str; 32] = [
        "archipelago",
        "atoll",
        "bay",
        "beach",
        "cape",
        "cay",
        "cliff",
        "coast",
        "cove",
        "delta",
        "dune",
        "fjord",
        "gulf",
        "harbour",
        "haven",
        "holm",
        "inlet",
        "isthmus",
        "key",
        "lagoon",
        "lighthouse",
        "marsh",
        "mole",
        "pier",
        "quay",
        "reef",
        "ria",
        "sandbar",
        "shoal",
        "skerry",
        "sound",
        "strait",
    ];
    loop {
        let [a, b, c, d] = crate::random::<4>();
        let name = format!("{}_{}", FIRST[usize::from(a) % 32], SECOND[usize::from(b) % 32]);
        if !taken(&name) {
            return name;
        }
        let numbered = format!("{name}{}", u16::from_ne_bytes([c, d]));
        if !taken(&numbered) {
            return numbered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_cannot_be_lowered_is_warned_of() {
        let warned = |asked, own, may_lower| score_warning(asked, own, may_lower).is_some();
        assert!(warned(-500, 0, false) && warned(100, 200, false));
        assert!(!warned(-500, 0, true) && !warned(500, 0, false) && !warned(0, 200, false));
    }
}
