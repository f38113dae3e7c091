//! Acts that can be taken back: do, then remember how to undo it, on adjacent lines.
//!
//! ```text
//! let mut undo = Undo::default();
//! create()?;
//! undo.push("thing", || delete());
//! // … more steps, any of which may fail …
//! undo.commit();
//! ```
//!
//! Undo serves errors only. A crash is repaired at the next start, from the record that preceded the act.

use std::error::Error;
use std::fmt;

type Act<'a> = Box<dyn FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'a>;

/// What to take back if this is dropped before [`Undo::commit`]: newest first, and past failures, which are logged.
#[derive(Default)]
pub(crate) struct Undo<'a> {
    acts: Vec<(&'static str, Act<'a>)>,
}

impl<'a> Undo<'a> {
    /// Remembers how to take back what was just done; `what` names it in the log if that fails.
    pub(crate) fn push<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        what: &'static str,
        act: impl FnOnce() -> Result<(), E> + Send + 'a,
    ) {
        self.acts.push((what, Box::new(move || act().map_err(Into::into))));
    }

    /// It is all done: nothing will be taken back.
    pub(crate) fn commit(mut self) {
        self.acts.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for (what, act) in self.acts.drain(..).rev() {
            if let Err(error) = act() {
                tracing::warn!(what, error = &*error as &dyn Error, "could not be undone");
            }
        }
    }
}

impl fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.acts.iter().map(|(what, _)| what)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_is_not_committed_is_undone_newest_first_and_past_failures() {
        let log = Mutex::new(Vec::new());
        let note = |what: &'static str| -> std::io::Result<()> {
            log.lock().unwrap().push(what);
            Ok(())
        };
        let mut undo = Undo::default();
        undo.push("first", || note("first"));
        undo.push("second", || Err::<(), _>(std::io::Error::other("cannot")));
        undo.push("third", || note("third"));
        drop(undo);
        assert_eq!(*log.lock().unwrap(), ["third", "first"]);
    }

    #[test]
    fn what_is_committed_stays() {
        let count = Mutex::new(0);
        let mut undo = Undo::default();
        undo.push("act", || -> std::io::Result<()> {
            *count.lock().unwrap() += 1;
            Ok(())
        });
        undo.commit();
        assert_eq!(*count.lock().unwrap(), 0);
    }
}
