//! What can go wrong when networks are made real: the attempt, the thing, and the kernel's word as the source.

use kernel::netlink::{Errno, Refusal};
use std::io;

/// A failed act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something asked by netlink.
    #[error("could not {attempt} {thing}")]
    Refused { attempt: &'static str, thing: String, source: Refusal },
    /// A system call or a file of the kernel's failed.
    #[error("could not {attempt} {thing}")]
    Io { attempt: &'static str, thing: String, source: io::Error },
    /// The kernel's limit (BR-17).
    #[error("network bridge {bridge} is full: a bridge holds 1023 endpoints")]
    BridgeFull { bridge: String },
    #[error("this kernel lacks {kind} devices (its module '{kind}')")]
    Lacks { kind: &'static str },
    #[error("parent interface {name} does not exist on this host")]
    NoParent { name: String },
    /// A bridge's name is taken by something that is no bridge, or by another network's.
    #[error("interface {name} exists already and is {what}")]
    NameTaken { name: String, what: String },
    /// Somebody else holds our tables: another daemon on the same root.
    #[error("table {table} is owned by another process")]
    TablesHeld { table: String },
    /// A tear-down went on past failures: here they are.
    #[error("{} of the steps to {attempt} {thing} failed: {}", failures.len(), list(failures))]
    Several { attempt: &'static str, thing: String, failures: Vec<Error> },
}

fn list(failures: &[Error]) -> String {
    let one = |error: &Error| match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The kernel's number for it, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { source, .. } => Some(source.errno),
            Error::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// `result.attempt("delete", "interface x")`: where errors get their attempt and thing.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: &'static str, thing: impl Into<String>) -> Result<T, Error>;
}
impl<T> Attempt<T> for Result<T, Refusal> {
    fn attempt(self, attempt: &'static str, thing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Refused { attempt, thing: thing.into(), source })
    }
}
impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: &'static str, thing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { attempt, thing: thing.into(), source })
    }
}
impl<T> Attempt<T> for Result<T, Errno> {
    fn attempt(self, attempt: &'static str, thing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|errno| Error::Io { attempt, thing: thing.into(), source: errno.into() })
    }
}

/// The outcome of a tear-down that went on past failures.
pub(crate) fn all(attempt: &'static str, thing: impl Into<String>, mut failures: Vec<Error>) -> Result<(), Error> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Error::Several { attempt, thing: thing.into(), failures }),
    }
}

/// Already gone is success, when the aim was that it be gone.
pub(crate) fn unless_gone(result: Result<(), Refusal>) -> Result<(), Refusal> {
    match result {
        Err(refusal) if matches!(refusal.errno, Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL) => {
            Ok(())
        }
        other => other,
    }
}
