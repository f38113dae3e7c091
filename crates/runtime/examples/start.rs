//! How long `busybox true` takes from the order to the known exit status, in a container with everything but a network:
//! `cargo run --release -p runtime --example start -- SHIM [COUNT]`, as root.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

fn main() {
    let shim = std::env::args().nth(1).expect("the shim's path");
    let count: usize = std::env::args().nth(2).map_or(100, |count| count.parse().expect("a number"));
    let tokio = tokio::runtime::Runtime::new().expect("a tokio runtime");
    tokio.block_on(async {
        let world = common::World::with_shim(shim.into());
        let description = world.describe(&["true"]);
        let spec = description.spec().expect("a specification");
        let mut all: Vec<[Duration; 4]> = Vec::new();
        for _ in 0..count {
            let mut order = world.order_of(spec.clone());
            order.netns = Some(common::netns());
            let begun = Instant::now();
            let prepared = world.runtime.prepare(order).await.expect("prepared");
            let there = begun.elapsed();
            let container = prepared.launch().await.expect("launched");
            let launched = begun.elapsed();
            container.wait().await;
            let ended = begun.elapsed();
            world.runtime.forget(container.id()).await;
            all.push([there, launched, ended, begun.elapsed()]);
        }
        for (at, name) in
            ["shim prepared", "program executed", "exit status known", "all taken away"].iter().enumerate()
        {
            let mut times: Vec<Duration> = all.iter().map(|times| times[at]).collect();
            times.sort_unstable();
            println!("{name:>18}: median {:?}, p95 {:?}", times[count / 2], times[count * 95 / 100]);
        }
    });
}
