//! The steps of a build, one after the other.
//!
//! A stage's [`State`] is the image as it would be now. Each step either changes its configuration or its files, then
//! looks whether the cache has an image of just that, and makes one if not. After the first miss of a stage nothing
//! after it can be in the cache.

use super::args::Args;
use super::config::{self, command_words, env_value, set_env};
use super::context::{Entry, Files, Source};
use super::copying::{Found, Order, make_directories};
use super::glob::Ignore;
use super::mounts::{self, Kinds, Mount};
use super::parse::{self, Command, Copy, Dockerfile, Heredoc, Instruction, RunFlags};
use super::words::expand;
use super::{
    BuildError, BuildEvent, BuildOptions, Context, Events, Output, RunStep, Runner, Step, StepMount, Written, blocking,
    users,
};
use crate::digest;
use crate::error::{Attempt, Error};
use crate::image::{Image, encode};
use crate::index::Facts;
use crate::store::{Images, Lease, Scratch, When};
use jiff::Timestamp;
use kernel::tree::{Dir, Kind as FileKind};
use model::id::ContainerId;
use model::image::{Configuration, History, ImageId, Platform};
use model::reference::Reference;
use model::rootfs::Rootfs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) async fn build(
    images: &Images,
    context: Context,
    options: BuildOptions,
    runner: &dyn Runner,
    events: Events,
) -> Result<ImageId, Error> {
    let tags = options.tags.iter().map(|t| t.parse::<Reference>().map(Reference::or_latest));
    let tags = tags.collect::<Result<Vec<_>, _>>()?;
    if tags.iter().any(|t| t.digest().is_some()) {
        return Err(Error::TagByDigest);
    }
    let (files, dockerfile) = {
        let (images, path, recipe) = (images.clone(), options.dockerfile.clone(), options.recipe.clone());
        blocking(move || {
            let mut files = Files::lay_out(&images, context)?;
            let text = files.dockerfile(&path, recipe)?;
            Ok((files, parse::parse(&text).map_err(BuildError::from)?))
        })
        .await?
    };
    let dockerfile = up_to_target(dockerfile, &options)?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let args = Args::new(options.build_args.clone(), &platform);
    let needed = needed(&dockerfile, args.clone());
    let in_stages = dockerfile.stages.iter().zip(&needed).filter(|(_, n)| **n).map(|(s, _)| 1 + s.instructions.len());
    let steps = dockerfile.global.len() + in_stages.sum::<usize>();
    let mut build = Build {
        images: images.clone(),
        args,
        needed,
        options,
        runner,
        events,
        files: Arc::new(files),
        escape: dockerfile.escape,
        platform,
        stages: Vec::new(),
        step: 0,
        steps,
        shown: 0,
    };
    let id = build.run(&dockerfile).await?;
    let unused = build.args.unused();
    if !unused.is_empty() {
        build.say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")));
    }
    build.say(format!("Successfully built {}\n", id.short()));
    for tag in tags {
        images.name(&id, &tag, When::Later)?;
        build.say(format!("Successfully tagged {}\n", tag.familiar()));
    }
    Ok(id)
}

/// Which stages the last one stands on or copies from, at last.
fn needed(dockerfile: &Dockerfile, mut args: Args) -> Vec<bool> {
    let escape = dockerfile.escape;
    for instruction in &dockerfile.global {
        let Command::Arg(pairs) = &instruction.command else { continue };
        for (name, default) in pairs {
            // what is wrong is said when its step comes
            let default = default.as_ref().and_then(|d| expand(d, escape, &|name| args.global(name)).ok());
            args.add_global(name, default);
        }
    }
    let stages = &dockerfile.stages;
    let mut needed = vec![false; stages.len()];
    if let Some(last) = needed.last_mut() {
        *last = true;
    }
    for number in (0..stages.len()).rev().collect::<Vec<_>>() {
        if !needed[number] {
            continue;
        }
        let named = |name: &str| stages[..number].iter().rposition(|s| s.name.as_deref() == Some(name));
        let base = expand(&stages[number].image, escape, &|name| args.global(name)).unwrap_or_default();
        if let Some(base) = named(&base.to_ascii_lowercase()) {
            needed[base] = true;
        }
        for instruction in &stages[number].instructions {
            for from in instruction.command.stages_named() {
                if from.contains('$') {
                    needed[..number].fill(true);
                } else if let Some(stage) = from.parse().ok().or_else(|| named(&from.to_ascii_lowercase())) {
                    needed[..number].get_mut(stage).into_iter().for_each(|needed| *needed = true);
                }
            }
        }
    }
    needed
}

fn changes_files(command: &Command) -> bool {
    matches!(command, Command::Run { .. } | Command::Copy(_) | Command::Workdir(_))
}

/// A stage's steps as BuildKit shows them: its `FROM`, and what changes files.
fn titles(dockerfile: &Dockerfile, number: usize) -> Vec<String> {
    let stage = &dockerfile.stages[number];
    let changing = stage.instructions.iter().filter(|i| changes_files(&i.command));
    let texts: Vec<&str> = std::iter::once(&stage.from).chain(changing).map(|i| i.text.as_str()).collect();
    let name = match &stage.name {
        Some(name) => format!("{name} "),
        None if dockerfile.stages.len() == 1 => String::new(),
        None => format!("stage-{number} "),
    };
    let title = |(at, text): (usize, &&str)| format!("[{name}{}/{}] {text}", at + 1, texts.len());
    texts.iter().enumerate().map(title).collect()
}

/// Says of a failure where it happened.
fn at(instruction: &Instruction, error: Error) -> Error {
    if instruction.line == 0 {
        return error;
    }
    let (message, text) = (error.chain(), instruction.text.clone());
    let (column, length) = parse::blamed(&text, &message);
    let (kind, exit_code) = (error.kind(), error.exit_code());
    BuildError::At { line: instruction.line, text, column, length, message, kind, exit_code }.into()
}

/// Drops the stages after the target, and adds the labels that the caller wants.
fn up_to_target(mut dockerfile: Dockerfile, options: &BuildOptions) -> Result<Dockerfile, Error> {
    if let Some(target) = options.target.as_deref().filter(|t| !t.is_empty()) {
        let named = |s: &parse::Stage| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(target));
        let at = dockerfile.stages.iter().position(named).or_else(|| target.parse().ok());
        let at = at.filter(|&at| at < dockerfile.stages.len()).ok_or(BuildError::NoTarget(target.to_owned()))?;
        dockerfile.stages.truncate(at + 1);
    }
    if let Some(last) = dockerfile.stages.last_mut().filter(|_| !options.labels.is_empty()) {
        let literal = |text: &str| -> String {
            let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':');
            text.chars().flat_map(|c| [(!kept(c)).then_some(dockerfile.escape), Some(c)]).flatten().collect()
        };
        let pairs: Vec<_> = options.labels.iter().map(|(k, v)| (literal(k), literal(v))).collect();
        let shown: Vec<_> = options.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = format!("LABEL {}", shown.join(" "));
        last.instructions.push(Instruction { text, line: 0, command: Command::Label(pairs) });
    }
    Ok(dockerfile)
}

struct Build<'a> {
    images: Images,
    options: BuildOptions,
    runner: &'a dyn Runner,
    events: Events,
    files: Arc<Files>,
    args: Args,
    escape: char,
    platform: Platform,
    /// Which stages anybody needs.
    needed: Vec<bool>,
    /// Those that are finished, or not needed.
    stages: Vec<Finished>,
    step: usize,
    steps: usize,
    /// How many steps were begun that change files.
    shown: usize,
}

struct Finished {
    name: Option<String>,
    /// None if nobody needs it.
    state: Option<State>,
}

/// An image in the making.
struct State {
    /// The last step's; None before the first one on scratch.
    image: Option<ImageId>,
    configuration: Configuration,
    /// What the stage stands on stays in the store.
    leases: Vec<Lease>,
    /// This stage has had a `CMD`.
    cmd_set: bool,
    /// Nothing that comes now can be in the cache.
    missed: bool,
}

impl State {
    /// A step's key in the cache.
    fn key(&self, created_by: &str) -> String {
        let parent = self.image.as_ref().map_or("scratch", |i| i.as_str());
        let Configuration { os, architecture, config, .. } = &self.configuration;
        let config = serde_json::to_string(config).unwrap_or_default();
        digest::of(format!("{parent}\n{os}/{architecture}\n{created_by}\n{config}").as_bytes())
    }
    fn env(&self, name: &str) -> Option<String> {
        env_value(self.configuration.config.env.as_deref().unwrap_or_default(), name).map(str::to_owned)
    }
}

impl Build<'_> {
    fn say(&self, text: String) {
        (self.events)(BuildEvent::Stream(text));
    }

    fn announce(&mut self, text: &str) {
        self.step += 1;
        self.say(format!("Step {}/{} : {text}\n", self.step, self.steps));
    }

    /// Begins a step that changes files.
    fn show(&mut self, title: Option<String>) {
        (self.events)(BuildEvent::Begin(Step { number: self.shown, title: title.unwrap_or_default() }));
        self.shown += 1;
    }

    fn say_image(&self, state: &State) {
        self.say(format!(" ---> {}\n", state.image.as_ref().map_or("", |i| i.short())));
    }

    async fn run(&mut self, dockerfile: &Dockerfile) -> Result<ImageId, Error> {
        for instruction in &dockerfile.global {
            self.announce(&instruction.text);
            let Command::Arg(pairs) = &instruction.command else { continue };
            for (name, default) in pairs {
                let default = default.as_ref().map(|d| self.expand_globally(d)).transpose();
                let default = default.map_err(|error| at(instruction, error.into()))?;
                self.args.add_global(name, default);
            }
        }
        let mut last = None;
        for (number, stage) in dockerfile.stages.iter().enumerate() {
            self.args.begin_stage();
            if !self.needed[number] {
                self.stages.push(Finished { name: stage.name.clone(), state: None });
                self.mention(stage);
                continue;
            }
            self.announce(&stage.from.text);
            let mut titles = titles(dockerfile, number).into_iter();
            self.show(titles.next());
            let mut state = self.begin(stage).await.map_err(|error| at(&stage.from, error))?;
            (self.events)(BuildEvent::End);
            for instruction in &stage.instructions {
                self.announce(&instruction.text);
                let changes_files = changes_files(&instruction.command);
                if changes_files {
                    self.show(titles.next());
                }
                self.dispatch(instruction, &mut state).await.map_err(|error| at(instruction, error))?;
                if changes_files {
                    (self.events)(BuildEvent::End);
                }
                self.say_image(&state);
            }
            last = state.image.clone();
            if let Some(id) = &last {
                (self.events)(BuildEvent::Image(id.clone()));
            }
            self.stages.push(Finished { name: stage.name.clone(), state: Some(state) });
        }
        last.ok_or_else(|| {
            BuildError::Instruction("No image was generated. Is your Dockerfile empty?".to_owned()).into()
        })
    }

    /// The arguments of a stage that is not built are not unknown for that.
    fn mention(&mut self, stage: &parse::Stage) {
        for instruction in &stage.instructions {
            let Command::Arg(pairs) = &instruction.command else { continue };
            pairs.iter().for_each(|(name, _)| self.args.add(name, None));
        }
    }

    fn expand_globally(&self, text: &str) -> Result<String, BuildError> {
        expand(text, self.escape, &|name| self.args.global(name)).map_err(BuildError::Instruction)
    }

    fn expand(&self, text: &str, state: &State) -> Result<String, BuildError> {
        expand(text, self.escape, &|name| self.lookup(name, state)).map_err(BuildError::Instruction)
    }

    fn lookup(&self, name: &str, state: &State) -> Option<String> {
        state.env(name).or_else(|| self.args.value(name))
    }

    /// `FROM`.
    async fn begin(&mut self, stage: &parse::Stage) -> Result<State, Error> {
        let name = self.expand_globally(&stage.image)?;
        if name.is_empty() {
            return Err(BuildError::BlankBase(stage.image.clone()).into());
        }
        let platform = match &stage.platform {
            Some(text) => Some(self.expand_globally(text)?).filter(|t| !t.is_empty()),
            None => None,
        };
        let platform = match platform {
            Some(text) => Some(text.parse::<Platform>().map_err(|error| BuildError::Instruction(error.to_string()))?),
            None => self.options.platform.clone(),
        };
        let named = self.options.named_images.get(&name).cloned();
        let finished = self.stages.iter().rev().find(|s| s.name.as_deref() == Some(name.to_ascii_lowercase().as_str()));
        let finished = finished.filter(|_| named.is_none());
        let name = named.unwrap_or(name);
        let mut state = if let Some(finished) = finished.and_then(|f| f.state.as_ref()) {
            self.standing_on(finished.image.clone(), finished.configuration.clone())
        } else if name == "scratch" {
            let Platform { os, architecture, variant } = platform.unwrap_or_else(|| self.platform.clone());
            self.standing_on(None, Configuration { os, architecture, variant, ..Configuration::default() })
        } else {
            let image = self.image(&name, platform.as_ref()).await?;
            self.standing_on(Some(image.id), Configuration::clone(&image.configuration))
        };
        if state.env("PATH").is_none() {
            set_env(state.configuration.config.env.get_or_insert_default(), "PATH", DEFAULT_PATH);
        }
        self.say_image(&state);
        let triggers = state.configuration.config.on_build.take().unwrap_or_default();
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.say(format!("# Executing {} build trigger{plural}\n", triggers.len()));
        }
        for trigger in triggers {
            let instruction = parse::parse_one(&trigger).map_err(BuildError::from)?;
            self.dispatch(&instruction, &mut state).await?;
        }
        Ok(state)
    }

    fn standing_on(&self, image: Option<ImageId>, configuration: Configuration) -> State {
        let layers = configuration.rootfs.diff_ids.iter().map(|l| self.images.lease(l));
        let leases = layers.chain(image.iter().map(|i| self.images.lease(i.as_str()))).collect();
        State { image, configuration, leases, cmd_set: false, missed: false }
    }

    /// An image by its name, fetched if it is not here or shall be asked for.
    async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let here = self.images.get(name);
        let fits = |image: &Image| platform.is_none_or(|p| p.accepts(&image.platform()));
        let reference = match name.parse::<Reference>() {
            Ok(reference) => reference.or_latest(),
            // an id
            Err(error) => return here.map_err(|_| error.into()),
        };
        match here {
            Ok(image) if !self.options.pull && fits(&image) => return Ok(image),
            // an id again, or the beginning of one: no registry has it
            Ok(image) if image.id.hex().starts_with(name) => return Ok(image),
            Ok(_) | Err(Error::NoSuchImage(_)) => {}
            Err(error) => return Err(error),
        }
        let events = self.events.clone();
        let progress = Arc::new(move |line| events(BuildEvent::Progress(line)));
        self.runner.pull(&reference, platform, progress).await.map_err(BuildError::Runner)?;
        self.images.get(&reference.to_string())
    }

    async fn dispatch(&mut self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        match &instruction.command {
            Command::Run { line, flags, heredocs } => {
                let words = run_words(line, heredocs, state);
                self.run_command(words, flags, state).await
            }
            Command::Copy(copy) => self.copy(copy, state).await,
            Command::Arg(pairs) => {
                let mut shown = String::from("ARG");
                for (name, default) in pairs {
                    let name = self.expand(name, state)?;
                    let default = default.as_ref().map(|d| self.expand(d, state)).transpose()?;
                    shown.push_str(&default.as_ref().map_or(format!(" {name}"), |d| format!(" {name}={d}")));
                    self.args.add(&name, default);
                }
                self.finish_or_cached(state, no_operation(&shown)).await
            }
            Command::Workdir(_) => {
                let shown = self.apply(&instruction.command, state)?;
                self.workdir(no_operation(&shown), state).await
            }
            Command::Maintainer(name) => {
                let shown = self.apply(&instruction.command, state)?;
                state.configuration.author = self.expand(name, state)?;
                self.finish_or_cached(state, no_operation(&shown)).await
            }
            command => {
                let shown = self.apply(command, state)?;
                self.finish_or_cached(state, no_operation(&shown)).await
            }
        }
    }

    fn apply(&self, command: &Command, state: &mut State) -> Result<String, Error> {
        let env = state.configuration.config.env.clone().unwrap_or_default();
        let lookup = |name: &str| env_value(&env, name).map(str::to_owned).or_else(|| self.args.value(name));
        let applied = config::apply(command, &mut state.configuration.config, self.escape, &lookup, &mut state.cmd_set);
        Ok(applied.map_err(BuildError::Instruction)?)
    }

    /// A step that changes no file.
    async fn finish_or_cached(&self, state: &mut State, created_by: String) -> Result<(), Error> {
        let key = state.key(&created_by);
        if !self.cached(state, &key) {
            self.finish(state, created_by, key, None).await?;
        }
        Ok(())
    }

    /// Whether the cache has the step's image; then the state is it.
    fn cached(&self, state: &mut State, key: &str) -> bool {
        if self.options.no_cache || state.missed {
            return false;
        }
        let index = self.images.index();
        let fitting = index
            .images
            .iter()
            .filter(|(_, r)| r.facts.cache_key.as_deref() == Some(key) && r.facts.parent == state.image)
            .max_by_key(|(_, r)| r.configuration.created);
        let found = fitting.map(|(id, record)| (id.clone(), record.configuration.clone()));
        let Some((id, configuration)) = found else {
            state.missed = true;
            return false;
        };
        let next = self.standing_on(Some(id), Configuration::clone(&configuration));
        // leased now; it may have been removed just before
        if !configuration.rootfs.diff_ids.iter().all(|l| self.images.layer(l).is_some()) {
            state.missed = true;
            return false;
        }
        let author = std::mem::take(&mut state.configuration.author);
        *state = State { cmd_set: state.cmd_set, ..next };
        if state.configuration.author.is_empty() {
            state.configuration.author = author;
        }
        self.say(" ---> Using cache\n".to_owned());
        (self.events)(BuildEvent::Cached);
        true
    }

    /// Makes the step's image, with a layer if it changed files.
    async fn finish(
        &self,
        state: &mut State,
        created_by: String,
        key: String,
        layer: Option<Lease>,
    ) -> Result<(), Error> {
        let now = Timestamp::now();
        state.configuration.created = Some(now);
        state.configuration.comment.clear();
        state.configuration.history.push(History {
            created: Some(now),
            created_by,
            author: state.configuration.author.clone(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            state.configuration.rootfs.diff_ids.push(layer.digest().to_owned());
            state.leases.push(layer);
        }
        let facts = Facts { parent: state.image.clone(), cache_key: Some(key), ..Facts::default() };
        let (images, bytes) = (self.images.clone(), encode(&state.configuration));
        let id = blocking(move || images.add_image(&bytes, facts, When::Later)).await?;
        state.leases.push(self.images.lease(id.as_str()));
        state.image = Some(id);
        Ok(())
    }

    /// A root file system on what the stage has by now, in a directory of its own.
    fn rootfs(&self, state: &State) -> Result<(Scratch, Rootfs), Error> {
        let scratch = self.images.scratch()?;
        let rootfs = self.images.rootfs_in(scratch.path(), &state.configuration.rootfs.diff_ids)?;
        Ok((scratch, rootfs))
    }

    async fn run_command(&self, words: Vec<String>, flags: &RunFlags, state: &mut State) -> Result<(), Error> {
        let (named, proxies) = self.args.for_run(&|name| state.env(name));
        let shown = words.join(" ");
        let created_by = match named.len() {
            0 => shown.clone(),
            n => format!("|{n} {} {shown}", named.join(" ")),
        };
        let (scratch, rootfs) = self.rootfs(state)?;
        let Mounted { mounts, hashes, env } = self.mount(&flags.mounts, state, &scratch, &rootfs).await?;
        let key = state.key(&format!("{created_by}{hashes}"));
        if self.cached(state, &key) {
            return Ok(());
        }
        let container = random_id()?;
        let missing = {
            let (images, rootfs, mounts) = (self.images.clone(), rootfs.clone(), mounts.clone());
            blocking(move || mounts::missing(&images, &rootfs, &mounts)).await?
        };
        let config = &state.configuration.config;
        let network = flags.network.as_deref().filter(|n| *n != "default").map(str::to_owned);
        let step = RunStep {
            container,
            rootfs: rootfs.clone(),
            args: words,
            env: [config.env.clone().unwrap_or_default(), named, proxies, env].concat(),
            mounts,
            cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
            user: config.user.clone(),
            network_mode: network.or_else(|| self.options.network_mode.clone()),
            extra_hosts: self.options.extra_hosts.clone(),
            image: state.image.clone(),
        };
        self.say(format!(" ---> Running in {}\n", container.short()));
        let code = self.runner.run(step, self.output()).await.map_err(BuildError::Runner)?;
        if code != 0 {
            return Err(BuildError::Failed { command: shown, code }.into());
        }
        let images = self.images.clone();
        let layer = blocking(move || {
            mounts::take_out(&rootfs.upper, &missing)?;
            let layer = images.add_layer_directory(&rootfs.upper);
            drop(scratch);
            layer
        })
        .await?;
        self.say(format!(" ---> Removed intermediate container {}\n", container.short()));
        self.finish(state, created_by, key, Some(layer)).await
    }

    /// Makes ready what a command sees beside its image.
    async fn mount(
        &self,
        wanted: &[Mount],
        state: &State,
        scratch: &Scratch,
        rootfs: &Rootfs,
    ) -> Result<Mounted, Error> {
        let mut mounted = Mounted::default();
        for (number, mount) in wanted.iter().enumerate() {
            let mut mount = mount.clone();
            for text in [&mut mount.target, &mut mount.source, &mut mount.id] {
                *text = self.expand(text, state)?;
            }
            let target = mount.place(&state.configuration.config.working_dir);
            let read_only = mount.read_only;
            let place = scratch.path().join(format!("mount-{number}"));
            match mount.kind {
                Kinds::Tmpfs => {
                    let options = mount.size.as_ref().map(|size| format!("size={size}")).unwrap_or_default();
                    mounted.mounts.push(StepMount::Tmpfs { target, options });
                }
                Kinds::Cache => {
                    let id = if mount.id.is_empty() { target.display().to_string() } else { mount.id.clone() };
                    let source = self.images.build_cache(&id, mount.owner, mount.mode.unwrap_or(0o755))?;
                    mounted.mounts.push(StepMount::Bind { source, target, read_only });
                }
                Kinds::Secret => match self.runner.secret(&mount.id).await.map_err(BuildError::Runner)? {
                    None if mount.required => return Err(mounts::no_secret(&mount.id)),
                    None => {}
                    Some(secret) => {
                        if let Some(name) = &mount.env {
                            mounted.env.push(format!("{name}={}", String::from_utf8_lossy(&secret)));
                        }
                        if !mount.target.is_empty() {
                            let shown = || format!("cannot keep secret {}", mount.id);
                            write_private(&place, &secret, mount.owner, mount.mode.unwrap_or(0o400)).attempt(shown)?;
                            mounted.mounts.push(StepMount::Bind { source: place, target, read_only: true });
                        }
                    }
                },
                Kinds::Bind => {
                    let hash = self.bind(&mount, state, &place, rootfs).await?;
                    mounted.hashes.push_str(&format!(" --mount={}:{hash}", target.display()));
                    // a file is mounted as a file
                    let only = std::fs::read_dir(&place).ok().and_then(|mut d| d.next()).and_then(Result::ok);
                    let name = mount.source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                    let is_file = |e: &std::fs::DirEntry| e.path().is_file() && e.file_name() == name;
                    let source = match only.filter(|e| hash.starts_with("file:") && is_file(e)) {
                        Some(file) => file.path(),
                        None => place,
                    };
                    mounted.mounts.push(StepMount::Bind { source, target, read_only });
                }
            }
        }
        Ok(mounted)
    }

    /// Copies what a bind mount shows into a directory; a digest of it.
    async fn bind(&self, mount: &Mount, state: &State, place: &Path, rootfs: &Rootfs) -> Result<String, Error> {
        let from = match mount.from() {
            Some(from) => Some(self.layers_of(&self.expand(from, state)?).await?),
            None => None,
        };
        std::fs::create_dir(place).attempt(|| format!("cannot make {}", place.display()))?;
        let (images, files, place, _kept) = (self.images.clone(), self.files.clone(), place.to_owned(), rootfs.clone());
        let source = if mount.source.is_empty() { "/".to_owned() } else { mount.source.clone() };
        blocking(move || {
            let order = Order {
                add: false,
                sources: vec![source],
                inline: Vec::new(),
                destination: "/".to_owned(),
                owner: None,
                mode: None,
                keep_owner: from.is_some(),
                parents: false,
                exclude: Ignore::default(),
            };
            let mounted = from.map(|layers| images.mount_layers(&images.lower_of(&layers))).transpose()?;
            let nothing = Ignore::default();
            let source = match &mounted {
                Some(root) => Source { root, ignore: &nothing },
                None => Source { root: &files.root, ignore: &files.ignore },
            };
            let found = order.find(&source, Vec::new())?;
            let to = Dir::open(&place).attempt(|| format!("cannot open {}", place.display()))?;
            order.carry_out(&found, source.ignore, &to)?;
            Ok(found.hash)
        })
        .await
    }

    /// Turns what a command writes into events; a character that comes in two pieces is put together.
    fn output(&self) -> Output {
        let events = self.events.clone();
        let (output, error): (Mutex<Vec<u8>>, Mutex<Vec<u8>>) = Default::default();
        Arc::new(move |written, bytes| {
            let rest = if written == Written::Error { &error } else { &output };
            let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
            rest.extend_from_slice(bytes);
            let whole = match std::str::from_utf8(&rest) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => rest.len(),
            };
            if whole > 0 {
                let text = String::from_utf8_lossy(&rest[..whole]).into_owned();
                rest.drain(..whole);
                events(BuildEvent::Output(written, text));
            }
        })
    }

    async fn workdir(&self, created_by: String, state: &mut State) -> Result<(), Error> {
        let key = state.key(&created_by);
        if self.cached(state, &key) {
            return Ok(());
        }
        let path = PathBuf::from(&state.configuration.config.working_dir);
        let (scratch, rootfs) = self.rootfs(state)?;
        let images = self.images.clone();
        let layer = blocking(move || {
            let _scratch = scratch;
            if images.kind_of(&rootfs, &path)? == Some(FileKind::Directory) {
                return Ok(None);
            }
            make_directories(&images.mount(&rootfs)?, &path, (0, 0))?;
            images.add_layer_directory(&rootfs.upper).map(Some)
        })
        .await?;
        self.finish(state, created_by, key, layer).await
    }

    async fn copy(&mut self, copy: &Copy, state: &mut State) -> Result<(), Error> {
        let expand = |text: &String| self.expand(text, state);
        let sources = copy.sources.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let mut inline = Vec::new();
        for heredoc in &copy.heredocs {
            let content = match heredoc.expand {
                true => expand_heredoc(&heredoc.content, self.escape, &|name| self.lookup(name, state))?,
                false => heredoc.content.clone(),
            };
            inline.push((heredoc.name.clone(), content));
        }
        let asked = expand(&copy.destination)?;
        let mut destination = config::below(&state.configuration.config.working_dir, &asked);
        let is_directory = asked.ends_with('/') || matches!(asked.rsplit('/').next(), Some("." | ".."));
        if is_directory && !destination.ends_with('/') {
            destination.push('/');
        }
        let chown = copy.chown.as_ref().map(expand).transpose()?.filter(|c| !c.is_empty());
        let chmod = copy.chmod.as_ref().map(expand).transpose()?.filter(|c| !c.is_empty());
        let checksum = copy.checksum.as_ref().map(expand).transpose()?.filter(|c| !c.is_empty());
        let mode = match &chmod {
            Some(text) => match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Some(mode),
                _ => {
                    let message =
                        format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
                    return Err(BuildError::Instruction(message).into());
                }
            },
            None => None,
        };
        // where from: None is the context
        let from: Option<Vec<String>> = match &copy.from {
            Some(from) => Some(self.layers_of(&expand(from)?).await?),
            None => None,
        };

        let (scratch, rootfs) = self.rootfs(state)?;
        let is_remote = |text: &String| copy.add && (text.contains("://") || text.starts_with("git@"));
        let (remote, sources): (Vec<String>, Vec<String>) = sources.into_iter().partition(is_remote);
        if checksum.is_some() && (remote.len() != 1 || !sources.is_empty()) {
            let message = "checksum can only be specified for a single source that is fetched".to_owned();
            return Err(BuildError::Instruction(message).into());
        }
        let mut fetched = Vec::new();
        for (number, url) in remote.iter().enumerate() {
            let directory = scratch.path().join(format!("fetched-{number}"));
            std::fs::create_dir(&directory).attempt(|| format!("cannot make {}", directory.display()))?;
            let file = fetch(url, &directory, &asked).await?;
            if let Some(expected) = &checksum {
                check(expected, url, &directory.join(&file.name))?;
            }
            fetched.push(file);
        }
        let (images, files) = (self.images.clone(), self.files.clone());
        let (owner_text, add, parents, exclude) = (chown.clone(), copy.add, copy.parents, copy.exclude.join("\n"));
        let prepared = blocking(move || {
            let owner = match &owner_text {
                Some(text) => Some(users::owner(&images, &rootfs, text)?.map_err(|why| {
                    BuildError::Instruction(format!("unable to convert uid/gid chown string to host mapping: {why}"))
                })?),
                None => None,
            };
            let order = Order {
                add,
                sources,
                inline,
                destination,
                owner,
                mode,
                keep_owner: from.is_some() && owner.is_none(),
                parents,
                exclude: Ignore::read(&exclude),
            };
            let mounted = from.map(|layers| images.mount_layers(&images.lower_of(&layers))).transpose()?;
            let nothing = Ignore::default();
            let source = match &mounted {
                Some(root) => Source { root, ignore: &nothing },
                None => Source { root: &files.root, ignore: &files.ignore },
            };
            let found = order.find(&source, fetched)?;
            Ok(Prepared { _scratch: scratch, rootfs, order, found, from_image: mounted.is_some() })
        })
        .await?;

        let keyword = if copy.add { "ADD" } else { "COPY" };
        let flag = |name: &str, value: &Option<String>| {
            value.as_ref().map_or(String::new(), |value| format!("--{name}={value} "))
        };
        let created_by = format!(
            "/bin/sh -c #(nop) {keyword} {}{}{} in {} ",
            flag("chown", &chown),
            flag("chmod", &chmod),
            prepared.found.hash,
            prepared.order.destination
        );
        let key = state.key(&created_by);
        if self.cached(state, &key) {
            return Ok(());
        }
        let (images, files) = (self.images.clone(), self.files.clone());
        let layer = blocking(move || {
            let Prepared { _scratch, rootfs, order, found, from_image } = prepared;
            let nothing = Ignore::default();
            let ignore = if from_image { &nothing } else { &files.ignore };
            let root = images.mount(&rootfs)?;
            order.carry_out(&found, ignore, &root)?;
            drop((root, found));
            images.add_layer_directory(&rootfs.upper)
        })
        .await?;
        self.finish(state, created_by, key, Some(layer)).await
    }

    /// The layers of what `--from` names: a stage by number or name, or an image.
    async fn layers_of(&self, from: &str) -> Result<Vec<String>, Error> {
        let wrong = |why: &str| BuildError::From(from.to_owned(), why.to_owned());
        if let Some(image) = self.options.named_images.get(from) {
            return Ok(self.image(image, self.options.platform.as_ref()).await?.configuration.rootfs.diff_ids.clone());
        }
        let stage = match from.parse::<usize>() {
            Ok(number) if number == self.stages.len() => return Err(wrong("refers to current build stage").into()),
            Ok(number) => Some(self.stages.get(number).ok_or_else(|| wrong("index out of bounds"))?),
            Err(_) => self.stages.iter().rev().find(|s| s.name.as_deref() == Some(from.to_ascii_lowercase().as_str())),
        };
        match stage {
            Some(Finished { state: Some(state), .. }) => Ok(state.configuration.rootfs.diff_ids.clone()),
            Some(Finished { state: None, .. }) => {
                Err(wrong("is named by a variable, or by a trigger: write its name").into())
            }
            None => {
                let image = self.image(from, self.options.platform.as_ref()).await?;
                Ok(image.configuration.rootfs.diff_ids.clone())
            }
        }
    }
}

/// What a command sees beside its image.
#[derive(Default)]
struct Mounted {
    mounts: Vec<StepMount>,
    /// What it depends on, for the cache's key.
    hashes: String,
    /// Secrets in variables.
    env: Vec<String>,
}

fn write_private(path: &Path, content: &[u8], owner: (u32, u32), mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// A `COPY` whose sources are found and whose root file system is ready.
struct Prepared {
    _scratch: Scratch,
    rootfs: Rootfs,
    order: Order,
    found: Found,
    from_image: bool,
}

/// Fetches what `ADD` names by its address. Its name is the last one of the address.
async fn fetch(url: &str, directory: &Path, destination: &str) -> Result<Entry, Error> {
    let path = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")).map(|(_, rest)| rest);
    let path = path.map(|p| p.split(['?', '#']).next().unwrap_or_default()).filter(|p| !p.ends_with(".git"));
    let Some((_, path)) = path.map(|p| p.split_once('/').unwrap_or((p, ""))) else {
        return Err(BuildError::RemoteSource(url.to_owned()).into());
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = match name {
        "" | "." | ".." if destination.ends_with('/') => {
            let message = format!("cannot determine filename from url: {url}");
            return Err(BuildError::Instruction(message).into());
        }
        "" | "." | ".." => "file",
        name => name,
    };
    crate::registry::fetch(url, &directory.join(name)).await?;
    Entry::fetched(directory, name)
}

/// Compares what was fetched with the digest that it should have.
fn check(expected: &str, url: &str, file: &Path) -> Result<(), Error> {
    let bytes = std::fs::read(file).attempt(|| format!("cannot read {}", file.display()))?;
    let found = digest::of(&bytes);
    if found == expected {
        return Ok(());
    }
    Err(Error::Digest { what: url.to_owned(), expected: expected.to_owned(), found })
}

/// What the history says of a step that ran nothing.
fn no_operation(shown: &str) -> String {
    format!("/bin/sh -c #(nop)  {shown}")
}

/// The command of a `RUN`. A heredoc alone is a script; beside a command it is the command's, and the shell's business.
fn run_words(line: &parse::CommandLine, heredocs: &[Heredoc], state: &State) -> Vec<String> {
    let parse::CommandLine::Shell(text) = line else { return command_words(line, &state.configuration.config) };
    let script = match heredocs {
        [] => text.clone(),
        [only] if text.starts_with("<<") && !text.contains(char::is_whitespace) => match only.content.starts_with("#!")
        {
            false => only.content.clone(),
            // a file of its own, for the interpreter that it names
            true => format!(
                "f=$(mktemp) && cat >\"$f\" <<'{name}' && chmod +x \"$f\" && {{ \"$f\"; s=$?; rm -f \"$f\"; exit $s; }}\n{content}{name}\n",
                name = only.name,
                content = only.content
            ),
        },
        several => {
            let mut script = format!("{text}\n");
            for heredoc in several {
                script.push_str(&format!("{}{}\n", heredoc.content, heredoc.name));
            }
            script
        }
    };
    command_words(&parse::CommandLine::Shell(script), &state.configuration.config)
}

/// Variables in a file's content; quotes are nothing special there.
fn expand_heredoc(content: &str, escape: char, lookup: super::words::Lookup<'_>) -> Result<String, BuildError> {
    // protected, so that `expand` leaves them
    let mut protected = String::new();
    for c in content.chars() {
        if matches!(c, '\'' | '"') {
            protected.push(escape);
        }
        protected.push(c);
    }
    expand(&protected, escape, lookup).map_err(BuildError::Instruction)
}

fn random_id() -> Result<ContainerId, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))
        .attempt(|| "cannot draw a container's id".to_owned())?;
    Ok(ContainerId::new(bytes))
}
