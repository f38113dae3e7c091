//! What is right: values and the pure decisions over them.
//!
//! Nothing here touches the machine. `engine` keeps these values, the workers make them real.
//!
//! - [`id`]: who is who
//! - [`container`], [`image`], [`rootfs`], [`spec`]: what a container shall be
//! - [`net`], [`network`], [`ipam`], [`port`]: networks, their addresses and their published ports
//! - [`desired`]: what the kernel shall look like, one value; a change is the difference of two
//! - [`names`]: what each sandbox may resolve

pub mod desired;
pub mod id;
pub mod image;
pub mod names;
pub mod net;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
