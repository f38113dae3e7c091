//! Building images from Dockerfiles, with the semantics of Docker's classic builder.
//!
//! `parse` reads the file (`lines`, `instruction`, `blame`), `args` and `words` put variables in, `config` applies what
//! changes no file, `copying` carries `COPY` and `ADD` out with what `context` finds, and `stage` goes through the steps.
//! What needs a running container or a registry is asked of a [`Runner`], which the engine is.
//!
//! Every step makes an image; the next build finds it again by its key: the parent, what the step is, and the
//! configuration it leads to.

mod args;
mod blame;
mod config;
mod context;
mod copying;
mod glob;
mod instruction;
mod lines;
mod mounts;
mod parse;
mod stage;
mod words;

pub use blame::ParseError;
pub use context::Context;

pub(crate) use config::apply_changes;
pub(crate) use copying::{follow, make_directories};
pub(crate) use glob::matches;

use crate::error::{Attempt, Error, Kind};
use crate::progress::Progress;
use crate::store::Images;
use model::id::ContainerId;
use model::image::{ImageId, Platform};
use model::reference::Reference;
use model::rootfs::Rootfs;
use std::collections::BTreeMap;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// What a build is told, beside its context.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Path of the Dockerfile in the context; empty means `Dockerfile`.
    pub dockerfile: String,
    /// Names for the image.
    pub tags: Vec<String>,
    /// A name without a value counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// They are added to the last stage's.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop after; None is the last one.
    pub target: Option<String>,
    /// `None` is this machine's.
    pub platform: Option<Platform>,
    /// Every step is done anew.
    pub no_cache: bool,
    /// Ask the registry for base images even if they are here.
    pub pull: bool,
    /// The network of `RUN`: None is the default one.
    pub network_mode: Option<String>,
    /// Of `RUN`: `name:address`.
    pub extra_hosts: Vec<String>,
    /// A Dockerfile that is not in the context.
    pub recipe: Option<Recipe>,
    /// Images by names that the Dockerfile has for them; they come before stages and registries.
    pub named_images: BTreeMap<String, String>,
}

/// A Dockerfile that comes apart from the context.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The Dockerfile.
    pub text: String,
    /// What its `.dockerignore` says; None is the context's own.
    pub ignore: Option<String>,
}

/// A command to run for `RUN`.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// The container that is to run it, as the build names it.
    pub container: ContainerId,
    /// Mount it; when the step is over, nobody uses it any more.
    pub rootfs: Rootfs,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Absolute; it may be missing in the image, and is made then.
    pub cwd: String,
    /// `name`, `uid`, `name:group`; empty is root.
    pub user: String,
    /// As `--network` has it; `None` is the default.
    pub network_mode: Option<String>,
    /// `name:address`, for its /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// In this order.
    pub mounts: Vec<StepMount>,
    /// The image that the step stands on, if it is not scratch.
    pub image: Option<ImageId>,
}

/// What a step's command sees beside its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepMount {
    /// A directory or a file of the host's.
    Bind {
        /// On the host.
        source: PathBuf,
        /// In the container, absolute.
        target: PathBuf,
        /// The command cannot change it.
        read_only: bool,
    },
    /// With options as mount(8) has them.
    Tmpfs {
        /// In the container, absolute.
        target: PathBuf,
        /// As in `size=64m`; empty for none.
        options: String,
    },
}

impl StepMount {
    /// Where it is in the container.
    pub fn target(&self) -> &Path {
        match self {
            StepMount::Bind { target, .. } | StepMount::Tmpfs { target, .. } => target,
        }
    }
}

/// Where a step's command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// What a step's command wrote, as it comes.
pub type Output = Arc<dyn Fn(Written, &[u8]) + Send + Sync>;

/// Where a build's events go.
pub type Events = Arc<dyn Fn(BuildEvent) + Send + Sync>;

/// A future in a box, so that [`Runner`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who runs commands and fetches images for a build. Dropping a future stops what it does.
pub trait Runner: Send + Sync {
    /// Runs a command to its end; its exit status, or why it could not be started.
    fn run<'a>(&'a self, step: RunStep, output: Output) -> BoxFuture<'a, Result<i32, String>>;

    /// Brings an image into the store; the engine has the credentials.
    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// A secret that the client gives; None if it has none of this name.
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>>;
}

/// A step that changes files, as it is shown: `[stage 2/3] RUN make`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of all that are begun, from 0.
    pub number: usize,
    /// As people see it.
    pub title: String,
}

/// What happens in a build.
#[derive(Clone, Debug)]
pub enum BuildEvent {
    /// A step begins; what comes until its end is its own.
    Begin(Step),
    /// The step that was begun last is in the cache.
    Cached,
    /// The step that was begun last is done. One that fails has no end.
    End,
    /// What a command wrote.
    Output(Written, String),
    /// Text for people, with its line ends: Docker's `stream`.
    Stream(String),
    /// A base image is being fetched.
    Progress(Progress),
    /// A stage's image is finished: Docker's `aux`.
    Image(ImageId),
}

impl Images {
    /// Builds an image. What a client reads comes as events, while it happens; the last `Image` event is the result.
    /// Dropping the future stops the build; its finished steps stay in the cache.
    pub async fn build(
        &self,
        context: Context,
        mut options: BuildOptions,
        runner: &dyn Runner,
        events: Events,
    ) -> Result<ImageId, Error> {
        let context = match context {
            Context::Remote(url) => {
                events(BuildEvent::Stream(format!("Downloading build context from remote url: {url}\n")));
                self.fetch_context(&url, &mut options).await?
            }
            given => given,
        };
        let built = stage::build(self, context, options, runner, events).await;
        let images = self.clone();
        // finished steps are in the cache whether or not the last one came
        let flushed = blocking(move || images.flush()).await;
        let id = built?;
        flushed?;
        Ok(id)
    }
}

impl Images {
    /// What lies at an http or https address, as a file without a name.
    ///
    /// # Errors
    /// It is not to be had, or the disk refuses.
    pub async fn fetch_file(&self, url: &str) -> Result<std::fs::File, Error> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("remote");
        crate::registry::fetch(url, &path).await?;
        // Open, it outlives its name.
        std::fs::File::open(&path).attempt(|| format!("cannot read {}", path.display()))
    }

    /// What lies at an address: an archive, or a Dockerfile by itself.
    async fn fetch_context(&self, url: &str, options: &mut BuildOptions) -> Result<Context, Error> {
        let mut file = self.fetch_file(url).await?;
        blocking(move || {
            let shown = || "cannot read what was fetched".to_owned();
            let is_tar = copying::is_tar(file.try_clone().attempt(shown)?);
            file.rewind().attempt(shown)?;
            if is_tar {
                return Ok((Context::Archive(Box::new(file)), None));
            }
            let text = std::io::read_to_string(&file).attempt(shown)?;
            let nothing = Context::Archive(Box::new(std::io::Cursor::new(vec![0; 1024])));
            Ok((nothing, Some(Recipe { text, ignore: None })))
        })
        .await
        .map(|(context, recipe)| {
            if recipe.is_some() {
                options.recipe = recipe;
            }
            context
        })
    }
}

/// Runs what waits for the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Io {
                attempt: "the daemon is stopping".to_owned(),
                source: std::io::ErrorKind::Interrupted.into(),
            }),
        },
    }
}

/// Why a build, or a `--change`, failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum BuildError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{0} is not a valid change command")]
    NotAChange(String),
    /// An instruction that is right in itself cannot be carried out with these values.
    #[error("{0}")]
    Instruction(String),
    /// Whatever stopped an instruction, with where it stands.
    #[error("{message} (line {line} of the Dockerfile)\n{}", blame::marked(*line, text, *column, *length))]
    At {
        line: usize,
        /// The instruction, continued lines joined.
        text: String,
        /// What of it is to blame, in characters.
        column: usize,
        length: usize,
        message: String,
        kind: Kind,
        /// Of the command that failed, if one did.
        exit_code: Option<i32>,
    },
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    #[error("the Dockerfile ({0}) cannot be empty")]
    EmptyDockerfile(String),
    #[error("target stage {0:?} could not be found")]
    NoTarget(String),
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("invalid from flag value {0}: {1}")]
    From(String, String),
    #[error("COPY failed: forbidden path outside the build context: {0}")]
    OutsideContext(String),
    #[error("COPY failed: file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NoSource(String),
    #[error("COPY failed: no source files were specified")]
    NoSources,
    #[error("When using {0} with more than one source file, the destination must be a directory and end with a /")]
    ManySources(&'static str),
    #[error("ADD {0}: only http and https addresses of files can be fetched; clone a repository in a RUN")]
    RemoteSource(String),
    #[error("COPY failed: {}: {why}", path.display())]
    Copy { path: PathBuf, why: String },
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Failed { command: String, code: i32 },
    /// The engine could not run a step, or fetch an image: its own words.
    #[error("{0}")]
    Runner(String),
}

impl BuildError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            BuildError::At { kind, .. } => *kind,
            BuildError::Failed { .. } | BuildError::Runner(_) => Kind::Internal,
            _ => Kind::Invalid,
        }
    }

    /// The exit status of the command that failed, if that is what stopped the build.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            BuildError::At { exit_code, .. } => *exit_code,
            BuildError::Failed { code, .. } => Some(*code),
            _ => None,
        }
    }
}
