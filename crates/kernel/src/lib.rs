//! What Linux can do. The only home of syscalls, netlink and `unsafe` beside the shim; it decides nothing.

#![allow(unsafe_code)]

pub mod inet;
pub mod netns;
pub mod readiness;
pub mod seqpacket;
