//! Building images from Dockerfiles.
//!
//! [`parse`] reads the file, [`words`] puts variables in, [`config`] applies what changes no file.

mod config;
mod duration;
mod glob;
mod parse;
mod words;

pub use parse::ParseError;

pub(crate) use config::apply_changes;
pub(crate) use duration::go_duration;
pub(crate) use glob::matches;

use crate::error::Kind;

/// Why a build, or a `--change`, failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{0} is not a valid change command")]
    NotAChange(String),
    /// An instruction that is right in itself cannot be carried out with these values.
    #[error("{0}")]
    Instruction(String),
}

impl BuildError {
    pub fn kind(&self) -> Kind {
        match self {
            BuildError::Parse(_) | BuildError::NotAChange(_) | BuildError::Instruction(_) => Kind::Invalid,
        }
    }
}
