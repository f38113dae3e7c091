//! Serves the tests and the demonstration.
//!
//! - [`Lab`]: a network namespace without a way out, with a daemon in it
//! - [`images`]: images from what is on the machine, without a registry
//! - [`http`]: the API, byte for byte; [`client`]: what tests say again and again
//! - [`dns`]: questions and answers, byte for byte
//! - [`rows`]: the checklist, and the tests that show it
//! - [`traffic`]: who reaches whom, and frames by hand
//! - `world`: everything that could leak, to be compared
//! - [`upstream`]: a DNS server for the lab's host
//! - [`within`]: waiting for a condition, with a deadline

pub mod client;
pub mod dns;
pub mod http;
pub mod images;
mod lab;
pub mod operations;
pub mod rows;
pub mod sweep;
pub mod traffic;
pub mod upstream;
mod world;

pub use lab::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, Output, Run, lab, processes, program, shim_of};

use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// It does not hold within `limit`, times `PATIENCE` where the environment has one: a machine that is emulated.
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let limit = limit * patience();
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many times slower than usual this machine is said to be.
pub fn patience() -> u32 {
    std::env::var("PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1)
}
