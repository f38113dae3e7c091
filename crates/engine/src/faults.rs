//! Making things fail, for tests. The steps of an operation have names; a step can be told to fail, or to hang, the next
//! time that it is reached. Only builds with debug assertions can be told so; elsewhere a step costs nothing.

use crate::error::Result;
#[cfg(debug_assertions)]
use crate::error::{Error, Kind};
#[cfg(debug_assertions)]
use std::collections::BTreeMap;
#[cfg(debug_assertions)]
use std::sync::Mutex;

/// What a step does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Fail,
    /// It never returns: until the daemon is killed.
    Hang,
}

/// Which steps are to go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    #[cfg(debug_assertions)]
    armed: Mutex<BTreeMap<String, Fault>>,
}

impl Faults {
    /// The next time that `step` is reached, it goes wrong.
    #[cfg(debug_assertions)]
    pub fn arm(&self, step: &str, fault: Fault) {
        self.armed.lock().expect("no holder panics").insert(step.to_owned(), fault);
    }

    /// The steps that are still to go wrong.
    #[cfg(debug_assertions)]
    pub fn armed(&self) -> Vec<String> {
        self.armed.lock().expect("no holder panics").keys().cloned().collect()
    }

    #[cfg(debug_assertions)]
    fn take(&self, step: &str) -> Option<Fault> {
        self.armed.lock().expect("no holder panics").remove(step)
    }

    /// A step that does not wait: it fails, however it is armed.
    ///
    /// # Errors
    /// It is armed.
    #[cfg(debug_assertions)]
    pub(crate) fn check(&self, step: &str) -> Result<()> {
        self.take(step).map_or(Ok(()), |_| Err(fault(step)))
    }

    /// A step that may wait.
    ///
    /// # Errors
    /// It is armed to fail.
    #[cfg(debug_assertions)]
    pub(crate) async fn pass(&self, step: &str) -> Result<()> {
        match self.take(step) {
            None => Ok(()),
            Some(Fault::Fail) => Err(fault(step)),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    /// Nothing is armed in a build without debug assertions.
    #[cfg(not(debug_assertions))]
    #[inline]
    pub(crate) fn check(&self, _: &str) -> Result<()> {
        Ok(())
    }

    /// Nothing is armed in a build without debug assertions.
    #[cfg(not(debug_assertions))]
    #[inline]
    pub(crate) async fn pass(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

#[cfg(debug_assertions)]
fn fault(step: &str) -> Error {
    Error::new(Kind::Internal, format!("a test makes '{step}' fail"))
}
