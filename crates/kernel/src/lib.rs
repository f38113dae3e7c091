//! What Linux can do: the only home of syscalls, netlink and `unsafe` beside the shim.
//!
//! Nothing here knows what a container is, or decides anything: each function is one act of the kernel's, with the
//! kernel's own error.

#![allow(unsafe_code)]

pub mod inet;
pub mod netns;
pub mod overlay;
pub mod readiness;
pub mod seqpacket;
pub mod tree;
