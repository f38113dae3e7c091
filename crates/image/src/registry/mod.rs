//! Registries: the distribution protocol over HTTP (`client`), and what `pull` and `push` make of it.

mod client;
mod pull;
mod push;

pub(crate) use client::fetch;
pub use pull::{PullOptions, RemoteImage, Tags};
pub use push::PushedImage;

use crate::error::Kind;
use model::image::Platform;

/// Who asks a registry.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub struct Credentials {
    /// Empty where a token says it.
    pub username: String,
    /// Or a personal access token.
    pub password: String,
    /// A refresh token instead of a password.
    pub identitytoken: String,
    /// A token that is sent as it is.
    pub registrytoken: String,
}

impl Credentials {
    /// Nobody is named.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identitytoken.is_empty() && self.registrytoken.is_empty()
    }
}

impl std::fmt::Debug for Credentials {
    /// Without the secrets: this ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `None` asks as nobody.
    pub credentials: Option<Credentials>,
    /// Plain HTTP and any certificate will do; on loopback they always do.
    pub insecure: bool,
    /// Where an image is asked for before its registry: base addresses, without credentials (`--registry-mirror`).
    pub mirrors: Vec<String>,
}

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum RegistryError {
    #[error("cannot reach registry {registry}: {why}")]
    Unreachable { registry: String, why: String },
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {why}")]
    Denied { name: String, why: String },
    #[error("manifest for {reference} not found: {why}")]
    NoManifest { reference: String, why: String },
    #[error("repository {name} not found: {why}")]
    NoRepository { name: String, why: String },
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoPlatform { platform: Platform },
    #[error(
        "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, \
         actual: {actual}"
    )]
    OtherPlatform { reference: String, wanted: String, actual: String },
    #[error("{reference} is no image that can be run: its manifest is of type {media_type}")]
    Unsupported { reference: String, media_type: String },
    #[error("An image does not exist locally with the tag: {reference}")]
    NotHere { reference: String },
    #[error("push access denied, repository does not exist or may require authorization: {0}")]
    PushDenied(String),
    #[error("unauthorized: {0}")]
    WrongCredentials(String),
    #[error("toomanyrequests: {0}")]
    TooMany(String),
    #[error("registry {registry} asks for credentials to be sent to {realm} without encryption")]
    InsecureRealm { registry: String, realm: String },
    #[error("{url}: unexpected answer {status}{}{why}", if why.is_empty() { "" } else { ": " })]
    Status { url: String, status: u16, why: String },
    #[error("{url}: {why}")]
    Malformed { url: String, why: String },
}

impl RegistryError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            RegistryError::Denied { .. }
            | RegistryError::NoManifest { .. }
            | RegistryError::NoRepository { .. }
            | RegistryError::NoPlatform { .. }
            | RegistryError::OtherPlatform { .. }
            | RegistryError::NotHere { .. } => Kind::NotFound,
            RegistryError::Unsupported { .. } => Kind::Invalid,
            RegistryError::WrongCredentials(_) | RegistryError::PushDenied(_) => Kind::Denied,
            RegistryError::Unreachable { .. }
            | RegistryError::TooMany(_)
            | RegistryError::InsecureRealm { .. }
            | RegistryError::Status { .. }
            | RegistryError::Malformed { .. } => Kind::Unavailable,
        }
    }
}
