//! `COPY`, `ADD` and `WORKDIR`: what puts files into a stage without running anything, and where they come from.

use super::{Build, Finished, State};
use crate::build::context::{Entry, Source};
use crate::build::copying::{Found, Order, make_directories};
use crate::build::glob::Ignore;
use crate::build::parse::Copy;
use crate::build::words::{Lookup, expand};
use crate::build::{BuildError, blocking, config};
use crate::digest;
use crate::error::{Attempt, Error};
use crate::store::{Images, Scratch};
use kernel::tree::Kind as FileKind;
use model::rootfs::Rootfs;
use model::users;
use std::path::{Path, PathBuf};

impl Build<'_> {
    pub(super) async fn copy(&mut self, copy: &Copy, state: &mut State) -> Result<(), Error> {
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
                Some(text) => Some(owner(&images, &rootfs, text)?.map_err(|why| {
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

    pub(super) async fn workdir(&self, created_by: String, state: &mut State) -> Result<(), Error> {
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

    /// The layers of what `--from` names: a stage by number or name, or an image.
    pub(super) async fn layers_of(&self, from: &str) -> Result<Vec<String>, Error> {
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

/// Variables in a file's content; quotes are nothing special there.
fn expand_heredoc(content: &str, escape: char, lookup: Lookup<'_>) -> Result<String, BuildError> {
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

/// As much of /etc/passwd and /etc/group as anybody has.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// The owner that `--chown` means in an image, whose files are read only if there are names to look up.
fn owner(images: &Images, rootfs: &Rootfs, text: &str) -> Result<Result<(u32, u32), users::Refusal>, Error> {
    let read = |path: &str| -> Result<String, Error> {
        let bytes = images.read_file(rootfs, path, MAX_ACCOUNTS)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (passwd, group) = match users::are_numbers(text) {
        true => Default::default(),
        false => (read("/etc/passwd")?, read("/etc/group")?),
    };
    Ok(users::owner(text, &passwd, &group))
}
