//! What Linux can do: all syscalls, and the only `unsafe` beside the shim.

pub mod overlay;
pub mod tree;
