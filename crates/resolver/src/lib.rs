//! Worker: answers names for sandboxes, in plain DNS (RFC 1034, 1035 and their successors, cited where they decide).
//!
//! - [`answer`]: a query and what is known ([`model::names::Names`]) make an answer, or the wish to ask upstream; pure
//! - [`forward`]: asking upstream
//! - [`serve`]: the sockets of one sandbox
//! - [`leave`]: going without breaking off what is under way
//!
//! Everything runs on one thread: data is changed between two queries, in place, and no query ever sees half a change.

pub mod answer;
pub mod forward;
pub mod leave;
pub mod serve;
