//! What is right: values and the pure decisions over them.
//!
//! Nothing here touches the machine. `engine` keeps these values, the workers make them real.
//!
//! - [`id`]: who is who
//! - [`container`], [`image`], [`rootfs`], [`spec`], [`seccomp`], [`users`], [`files`]: what a container shall be
//! - [`mount`], [`env`]: what lies over its root file system, and its variables
//! - [`create`]: what is added to what a client asks for, and what is refused
//! - [`bounds`], [`limits`], [`security`]: which words, and which numbers, mean nothing
//! - [`restart`]: when it runs again
//! - [`health`]: what a check's results make of a container
//! - [`reference`]: how people name images
//! - [`net`], [`network`], [`endpoint`], [`ipam`], [`port`], [`gateway`]: networks, who is on them, their addresses,
//!   published ports and ways out
//! - [`daemon`]: what a daemon is told about networks, containers and registries when it starts
//! - [`desired`]: what the kernel shall look like, one value; a change is the difference of two
//! - [`flow`]: whether a flow passes, and which fact decides
//! - [`names`]: what each sandbox may resolve
//! - [`logging`]: what is to become of a container's output
//! - [`duration`], [`signal`]: words that people write for them
//! - [`go`]: what is so because Docker is written in Go
//! - [`errno`]: the words that tools look for in errors of the system

#![warn(missing_docs)]

pub mod bounds;
pub mod container;
pub mod create;
pub mod daemon;
pub mod desired;
pub mod duration;
pub mod endpoint;
pub mod env;
pub mod errno;
pub mod files;
pub mod flow;
pub mod gateway;
pub mod go;
pub mod health;
pub mod id;
pub mod image;
pub mod ipam;
pub mod limits;
pub mod logging;
pub mod mount;
pub mod names;
pub mod net;
pub mod network;
pub mod port;
pub mod reference;
pub mod restart;
pub mod rootfs;
pub mod seccomp;
pub mod security;
pub mod signal;
pub mod spec;
pub mod users;
