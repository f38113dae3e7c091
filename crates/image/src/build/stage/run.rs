//! `RUN`: a command in what the stage has by now, and what it sees beside that.

use super::{Build, State};
use crate::build::config::command_words;
use crate::build::context::Source;
use crate::build::copying::Order;
use crate::build::glob::Ignore;
use crate::build::mounts::{self, Kinds, Mount};
use crate::build::parse::{CommandLine, Heredoc, RunFlags};
use crate::build::{BuildError, BuildEvent, Output, RunStep, StepMount, Written, blocking};
use crate::error::{Attempt, Error};
use crate::store::Scratch;
use kernel::tree::Dir;
use model::id::ContainerId;
use model::rootfs::Rootfs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

impl Build<'_> {
    pub(super) async fn run_command(
        &self,
        words: Vec<String>,
        flags: &RunFlags,
        state: &mut State,
    ) -> Result<(), Error> {
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

/// The command of a `RUN`. A heredoc alone is a script; beside a command it is the command's, and the shell's business.
pub(super) fn run_words(line: &CommandLine, heredocs: &[Heredoc], state: &State) -> Vec<String> {
    let CommandLine::Shell(text) = line else { return command_words(line, &state.configuration.config) };
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
    command_words(&CommandLine::Shell(script), &state.configuration.config)
}

fn random_id() -> Result<ContainerId, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))
        .attempt(|| "cannot draw a container's id".to_owned())?;
    Ok(ContainerId::new(bytes))
}
