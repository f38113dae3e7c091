//! What Linux can do: the only home of syscalls, netlink and `unsafe` beside the shim.
//!
//! Nothing here knows what a container is, or decides anything: each function is one act of the kernel's, with the
//! kernel's own error.

#![warn(missing_docs)]
#![allow(unsafe_code)]

pub mod address;
pub mod cgroup;
pub mod conntrack;
pub mod datagram;
pub mod device;
pub mod device_filter;
pub mod directory;
pub mod fds;
pub mod inet;
pub mod link;
pub mod mount;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod overlay;
pub mod packet;
pub mod process;
pub mod program;
pub mod readiness;
pub mod reserve;
pub mod route;
pub mod seqpacket;
pub mod served;
pub mod sysctl;
pub mod tree;
pub mod view;
