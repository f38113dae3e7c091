//! What can go wrong with images, in Docker's words where tools match on them. [`Error::kind`] is what a caller turns
//! into a status code.

use crate::build::BuildError;
use crate::registry::RegistryError;
use model::image::ImageId;
use model::reference::InvalidReference;
use std::io;
use std::path::PathBuf;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Error {
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error(transparent)]
    InvalidReference(#[from] InvalidReference),
    #[error("conflict")]
    Conflict(#[from] Conflict),
    /// An archive is damaged, is none, or wants to write where it may not.
    #[error("invalid archive: {0}")]
    Archive(String),
    #[error("cannot overwrite directory {0:?} with non-directory {0:?}")]
    OverDirectory(String),
    #[error("cannot overwrite non-directory {0:?} with directory {0:?}")]
    OverOther(String),
    /// What is to be written to lies on a mount that is not written to.
    #[error("{0} is marked read-only")]
    ReadOnly(&'static str),
    #[error("extraction point is not a directory")]
    NotADirectory,
    #[error("the container ended or was removed while its files were read")]
    WentAway,
    #[error("{what} does not have the digest that it should have: expected {expected}, got {found}")]
    Digest { what: String, expected: String, found: String },
    #[error("invalid {what} in {place}")]
    Json {
        what: &'static str,
        place: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("invalid filter '{key}={value}'")]
    Filter { key: String, value: String },
    /// A name that must be an image's was given as a digest, or otherwise cannot be what it shall be.
    #[error("refusing to create a tag with a digest reference")]
    TagByDigest,
    #[error("the store at {path} was written by a newer release (version {found}, this one knows {known})")]
    NewerStore { path: PathBuf, found: u32, known: u32 },
    #[error("image {image} has {has} layers, and a container can have {limit} at most")]
    TooManyLayers { image: ImageId, has: usize, limit: usize },
    #[error("{path}: not a file that can be read from the image: {why}")]
    NotAFile { path: String, why: &'static str },
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{attempt}")]
    Io {
        attempt: String,
        #[source]
        source: io::Error,
    },
}

/// Why an image or a name stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Conflict {
    #[error(
        "unable to remove repository reference \"{reference}\" (must force) - container {container} is using its \
         referenced image {image}"
    )]
    ReferenceInUse { reference: String, container: String, image: String },
    #[error("unable to delete {image} (cannot be forced) - image has dependent child images")]
    HasChildren { image: String },
    #[error("unable to delete {image} (cannot be forced) - image is being used by running container {container}")]
    Running { image: String, container: String },
    #[error("unable to delete {image} (must be forced) - image is referenced in multiple repositories")]
    ManyReferences { image: String },
    #[error("unable to delete {image} (must be forced) - image is being used by stopped container {container}")]
    Stopped { image: String, container: String },
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such thing.
    NotFound,
    /// Something else stands in the way, and may go.
    Conflict,
    /// The request itself is wrong.
    Invalid,
    /// A registry wants credentials, or does not take these.
    Denied,
    /// It lies where nothing may be written.
    Forbidden,
    /// A registry cannot be reached or does not answer sensibly.
    Unavailable,
    /// Not the caller's fault.
    Internal,
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage(_) | Error::NotAFile { .. } => Kind::NotFound,
            Error::Conflict(_) | Error::WentAway => Kind::Conflict,
            Error::ReadOnly(_) => Kind::Forbidden,
            Error::InvalidReference(_)
            | Error::Archive(_)
            | Error::OverDirectory(_)
            | Error::OverOther(_)
            | Error::NotADirectory
            | Error::Digest { .. }
            | Error::Filter { .. }
            | Error::TagByDigest
            | Error::TooManyLayers { .. } => Kind::Invalid,
            Error::Build(error) => error.kind(),
            Error::Registry(error) => error.kind(),
            Error::Json { .. } | Error::NewerStore { .. } | Error::Io { .. } => Kind::Internal,
        }
    }

    /// The exit status of a build's command, if its failing is the error.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Error::Build(error) => error.exit_code(),
            _ => None,
        }
    }

    /// The error and what caused it, on one line: what people read.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    }
}

/// Says what was attempted when the machine says no.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, Error>;
}
impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { attempt: attempt(), source })
    }
}
