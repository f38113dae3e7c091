//! What a container's start asks of the network, in time: `cargo bench -p network`.
//!
//! Each line is the median, and the first and last tenth, over many rounds in private namespaces.

#[path = "../tests/world/mod.rs"]
mod world;

use model::net::Protocol::{Tcp, Udp};
use std::time::{Duration, Instant};
use world::*;

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 10].as_secs_f64() * 1e3;
    println!("{what:<44} {:>8.3} ms  ({:.3} to {:.3})", at(5), at(1), at(9));
}

fn timed<R>(times: &mut Vec<Duration>, f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = f();
    times.push(start.elapsed());
    result
}

fn main() {
    for ipv6 in [false, true] {
        let Some(world) = world() else { return };
        println!("{}", if ipv6 { "IPv4 and IPv6" } else { "IPv4" });
        let bridge = world.bridge_with(1, |bridge| {
            if !ipv6 {
                bridge.gateways.truncate(1);
                bridge.subnets.truncate(1);
            }
        });
        let mut times: [Vec<Duration>; 10] = Default::default();
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let mut endpoint = [attachment(&bridge, 10 + round, 0)];
            if !ipv6 {
                endpoint[0].addresses.truncate(1);
            }
            let sandbox = timed(&mut times[0], || world.network.create_sandbox(&endpoint[0].sandbox, false).unwrap());
            let part = if round < 50 {
                1
            } else if round < 150 {
                2
            } else {
                3
            };
            timed(&mut times[part], || world.network.attach(&sandbox, &endpoint).unwrap());
            let sockets = timed(&mut times[4], || world.network.open_resolver(&sandbox, false).unwrap());
            let published = [publication(Tcp, ANY4, endpoint[0].addresses[0].addr())].into();
            timed(&mut times[5], || world.network.publish(&published).unwrap());
            timed(&mut times[6], || world.network.unpublish(&published).unwrap());
            let published = [publication(Udp, ANY4, endpoint[0].addresses[0].addr())].into();
            timed(&mut times[7], || world.network.publish(&published).unwrap());
            world.network.unpublish(&published).unwrap();
            world.network.settle();
            kept.push((endpoint, sandbox, sockets));
        }
        for (endpoint, sandbox, sockets) in kept {
            timed(&mut times[8], || world.network.release(&endpoint).unwrap());
            timed(&mut times[9], || drop((sandbox, sockets)));
        }
        let names = [
            "create_sandbox",
            "attach, 1st to 50th",
            "attach, 51st to 150th",
            "attach, 151st to 200th",
            "open_resolver",
            "publish a TCP port",
            "unpublish it",
            "publish a UDP port",
            "release",
            "drop the sandbox",
        ];
        for (name, times) in names.iter().zip(times) {
            show(name, times);
        }
    }
}
