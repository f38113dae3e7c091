//! Building images: the work is the image worker's; the engine runs its `RUN` steps as containers, and fetches its base
//! images.

use crate::error::Result;
use crate::images::{Pull, registry_of};
use crate::state::Entry;
use crate::stop::Until;
use crate::{Engine, Error, Kind};
use image::build::{BoxFuture, BuildOptions, Context, Events, Output, RunStep, Runner, StepMount, Written};
use image::{Credentials, Tags};
use model::container::{
    Config, Container, Endpoint, EndpointSettings, HostConfig, LogConfig, MountKind, MountPoint, RestartPolicy, State,
};
use model::id::ContainerId;
use model::image::{ImageId, Platform};
use model::reference::Reference;
use model::spec::Ulimit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who knows accounts at registries, and secrets: a build asks when it fetches a base image, or a step wants one.
pub trait Accounts: Send + Sync {
    /// The account for a registry, by its name in references: `docker.io`.
    fn of<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>>;

    /// A secret by its name, for who has secrets.
    fn secret<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, std::result::Result<Option<Vec<u8>>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// By their servers' addresses, as docker keeps them.
impl Accounts for BTreeMap<String, Credentials> {
    fn of<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>> {
        let found = self.iter().find(|(server, _)| registry_of(server) == registry).map(|(_, c)| c.clone());
        Box::pin(std::future::ready(found))
    }
}

/// What the commands of a build may use; what says nothing is as the daemon's defaults have it.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together.
    pub memory_swap: i64,
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    pub cpu_quota: i64,
    /// Lists as `0-2,4`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub cgroup_parent: String,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    pub ulimits: Option<Vec<Ulimit>>,
    pub security_opt: Option<Vec<String>>,
}

impl Limits {
    /// As a container has them that leaves nothing behind.
    fn host(self) -> HostConfig {
        HostConfig {
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            cgroup_parent: self.cgroup_parent,
            shm_size: self.shm_size,
            ulimits: self.ulimits,
            security_opt: self.security_opt,
            auto_remove: true,
            log_config: LogConfig { driver: "none".into(), ..LogConfig::default() },
            restart_policy: RestartPolicy { name: "no".into(), ..RestartPolicy::default() },
            runtime: "isle".into(),
            ipc_mode: "private".into(),
            cgroupns_mode: "private".into(),
            ..HostConfig::default()
        }
    }
}

impl Engine {
    /// Builds an image; what happens is told by `events`. Its commands have what `limits` says, and the daemon's
    /// defaults. Dropping the future stops the build.
    ///
    /// # Errors
    /// The Dockerfile is wrong, or a step fails.
    pub async fn build(
        self: &Arc<Self>,
        context: Context,
        options: BuildOptions,
        limits: Limits,
        accounts: Arc<dyn Accounts>,
        events: Events,
    ) -> Result<ImageId> {
        let mut host = limits.host();
        self.settings.containers.complete(&mut host);
        let any_command = Config { cmd: Some(vec!["sh".into()]), ..Config::default() };
        model::create::check(&any_command, &host, &crate::create::machine()).map_err(Error::invalid)?;
        let runner = Steps { engine: self.clone(), host, accounts };
        let tags = options.tags.clone();
        let built = self.images.build(context, options, &runner, events).await.map_err(crate::images::image_error)?;
        for name in tags.iter().filter_map(|t| t.parse::<Reference>().ok()) {
            self.tell_image_named("tag", &name.or_latest().familiar());
        }
        Ok(built)
    }

    /// Makes a container for a step. It is like any other, but its file system is the build's, and it leaves nothing.
    fn step_container(self: &Arc<Self>, step: &RunStep, common: &HostConfig) -> Result<ContainerId> {
        let id = step.container;
        let mut state = self.state();
        let name = format!("build-{}", id.short());
        state.take_name(&name, id)?;
        let config = Config {
            hostname: id.short(),
            user: step.user.clone(),
            env: step.env.clone(),
            cmd: Some(step.args.clone()),
            working_dir: step.cwd.clone(),
            image: step.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Config::default()
        };
        let mut host = HostConfig {
            network_mode: step.network_mode.clone().filter(|m| m != "default").unwrap_or_else(|| "bridge".into()),
            extra_hosts: Some(step.extra_hosts.clone()),
            ..common.clone()
        };
        let mut mounts = Vec::new();
        for mount in &step.mounts {
            match mount {
                StepMount::Bind { source, target, read_only } => mounts.push(MountPoint {
                    kind: MountKind::Bind,
                    name: String::new(),
                    source: source.display().to_string(),
                    destination: target.display().to_string(),
                    driver: String::new(),
                    mode: String::new(),
                    rw: !read_only,
                    propagation: "rprivate".into(),
                    anonymous: false,
                    subpath: String::new(),
                }),
                StepMount::Tmpfs { target, options } => {
                    host.tmpfs.get_or_insert_default().insert(target.display().to_string(), options.clone());
                }
            }
        }
        let mut endpoints = Vec::new();
        if let Some(name) = crate::endpoints::main_network(&host.network_mode()) {
            let network = state.network(name)?;
            endpoints.push(Endpoint {
                network: Some(network.id),
                network_name: network.name.clone(),
                settings: EndpointSettings::default(),
                active: None,
            });
        }
        let record = Container {
            id,
            name,
            created: crate::now(),
            image: step.image.clone().unwrap_or_else(|| ImageId::new(format!("sha256:{}", "0".repeat(64)))),
            config,
            host,
            endpoints,
            mounts,
            state: State::created(),
            restarts: 0,
            stopped_by_client: false,
            step: true,
        };
        let mut entry = Entry::new(record);
        entry.rootfs = Some(step.rootfs.clone());
        state.containers.insert(id, entry);
        Ok(id)
    }

    async fn run_step(self: &Arc<Self>, step: RunStep, common: &HostConfig, output: Output) -> Result<i32> {
        let id = self.step_container(&step, common)?;
        let reference = id.to_string();
        let guard = Stop { engine: self.clone(), id };
        let ended = self.wait(&reference, Until::NextExit)?;
        let stdio = self.attach(&reference, runtime::AttachOptions::OUTPUT).await?.stdio;
        self.start(&reference).await?;
        if let Ok(mut stdio) = stdio.await {
            while let Some((stream, bytes)) = stdio.output.next().await {
                let is_error = stream == runtime::Stream::Stderr;
                output(if is_error { Written::Error } else { Written::Output }, &bytes);
            }
        }
        let ended = ended.await;
        // The builder works on with the file system: it is let go of before.
        if let Ok(gone) = self.wait(&reference, Until::Removed) {
            gone.await;
        }
        drop(guard);
        Ok(i32::try_from(ended.exit_code).unwrap_or(255))
    }
}

/// A step's container does not outlive its step, whatever happens to the build.
struct Stop {
    engine: Arc<Engine>,
    id: ContainerId,
}

impl Drop for Stop {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id);
        if engine.state().entry(id).is_ok() {
            tokio::spawn(async move {
                if let Err(e) = engine.remove_container(&id.to_string(), true, true).await
                    && e.kind != Kind::NotFound
                {
                    tracing::warn!(container = ?id, "a build's container stays: {e}");
                }
            });
        }
    }
}

/// Runs the steps of one build.
struct Steps {
    engine: Arc<Engine>,
    /// What its containers have in common.
    host: HostConfig,
    accounts: Arc<dyn Accounts>,
}

impl Runner for Steps {
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, std::result::Result<Option<Vec<u8>>, String>> {
        self.accounts.secret(id)
    }

    fn run<'a>(&'a self, step: RunStep, output: Output) -> BoxFuture<'a, std::result::Result<i32, String>> {
        Box::pin(async move { self.engine.run_step(step, &self.host, output).await.map_err(|e: Error| e.message) })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        progress: Arc<dyn Fn(image::Progress) + Send + Sync>,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            let credentials = self.accounts.of(reference.registry()).await;
            let reference = reference.to_string();
            let pull = Pull { reference: &reference, platform: platform.cloned(), tags: Tags::One, credentials };
            let pulling = self.engine.pull_image(pull, progress);
            let pulled = async { pulling?.await };
            pulled.await.map_err(|e: Error| e.message)
        })
    }
}
