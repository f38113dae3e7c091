//! Makes networks real: bridges, sandboxes, attachments, the firewall, published ports.
//!
//! The files follow the thought. What shall be is [`model::desired`]; [`plan`] and [`elements`] turn it into steps and
//! elements of the firewall, whose rules are [`ruleset`], purely; [`observe`] reads what is; [`reconcile`] says what
//! differs, purely; [`apply`] acts.
//!
//! ```text
//!                 sandbox                  sandbox
//!                 ├ eth0 (veth)            ├ eth0                   lo: netdev rules, port 53 → the resolver's
//!   ──────────────┼────────────────────────┼──────────────────────────────
//!   host          ├ ve… port, locked       ├ ve…
//!                 └──────── br-… ──────────┘    table bridge: no false ARP, ND, ICMP
//!                            │                  table inet: isolation, published ports, masquerade
//!                          uplink
//! ```
//!
//! [`Network`] is the handle: cheap to clone, usable from any thread, and bound to the network namespace of the thread
//! that opened it.

#[cfg(test)]
extern crate self as network;

pub mod apply;
mod chores;
pub mod elements;
pub mod error;
pub mod features;
pub mod observe;
mod others;
mod own;
pub mod plan;
pub mod reconcile;
pub mod reserve;
pub mod resolver;
pub mod ruleset;
pub mod sandbox;
mod tables;
mod undo;
pub mod watch;

pub use apply::{Network, Settings};
pub use error::Error;
pub use features::Features;
pub use reconcile::{Report, Settled};
pub use reserve::{HeldSocket, PortError, PortRequest, Reservation, Role, Target};
pub use resolver::ResolverSockets;
pub use sandbox::Sandbox;
pub use watch::{Loss, Watch};

#[cfg(test)]
#[path = "../tests/world/mod.rs"]
mod world;
