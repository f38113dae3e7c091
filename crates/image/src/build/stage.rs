//! The steps of a build, one after the other; `files` and `run` are those that change files.
//!
//! A stage's [`State`] is the image as it would be now. Each step either changes its configuration or its files, then
//! looks whether the cache has an image of just that, and makes one if not. After the first miss of a stage nothing
//! after it can be in the cache.

mod files;
mod run;

use super::args::Args;
use super::config;
use super::context::Files;
use super::parse::{self, Command, Dockerfile, Instruction};
use super::words::expand;
use super::{BuildError, BuildEvent, BuildOptions, Context, Events, Runner, Step, blame, blocking};
use crate::digest;
use crate::error::Error;
use crate::image::{Image, encode};
use crate::index::Facts;
use crate::store::{Images, Lease, Scratch, When};
use jiff::Timestamp;
use model::env;
use model::image::{Configuration, History, ImageId, Platform};
use model::reference::Reference;
use model::rootfs::Rootfs;
use std::sync::Arc;

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
    let (column, length) = blame::blamed(&text, &message);
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
        env::value(self.configuration.config.env.as_deref().unwrap_or_default(), name).map(str::to_owned)
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
            env::merge(
                state.configuration.config.env.get_or_insert_default(),
                [&format!("PATH={}", model::spec::PATH)],
            );
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
                let words = run::run_words(line, heredocs, state);
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
        let lookup = |name: &str| env::value(&env, name).map(str::to_owned).or_else(|| self.args.value(name));
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
}

/// What the history says of a step that ran nothing.
fn no_operation(shown: &str) -> String {
    format!("/bin/sh -c #(nop)  {shown}")
}
