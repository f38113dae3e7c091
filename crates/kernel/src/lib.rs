//! What Linux can do. The only home of syscalls, netlink and `unsafe` beside the shim; it decides nothing.

pub mod seqpacket;
