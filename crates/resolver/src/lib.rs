//! Worker: answers names for sandboxes, in plain DNS (RFC 1034, 1035 and their successors, cited where they decide).
//!
//! - [`names`]: what is known, indexed for look-up
//! - [`answer`]: a query and what is known make an answer, or the wish to ask upstream; pure
//! - [`forward`]: asking upstream
//! - [`serve`]: the sockets of one sandbox
//! - [`leave`]: going without breaking off what is under way
//!
//! Everything runs on one thread: data is changed between two queries, in place, and no query ever sees half a change.

pub mod answer;
pub mod forward;
pub mod leave;
pub mod names;
pub mod serve;
