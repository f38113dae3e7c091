//! What follows an act and need not be waited for: forgetting stale flows (the kernel looks through all of its table,
//! 9 ms), and announcing addresses (a frame to every port of a bridge).
//!
//! One thread with sockets of its own, in the namespace that opened them; it ends with the [`crate::Network`].

use crate::error::{Attempt, Error};
use kernel::netlink::{Protocol, Refusal, Socket};
use kernel::packet::{FrameSocket, announcement};
use kernel::{address, conntrack};
use model::desired::Publication;
use model::net::{MacAddr, Protocol as Transport};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

#[derive(Debug)]
pub(crate) struct Chores {
    /// Taken away first at the end, which ends the thread.
    queue: Option<Sender<Chore>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Chore {
    Forget(Vec<Publication>),
    Announce(u32, IpAddr, MacAddr),
    Tell(SyncSender<()>),
}

struct Worker {
    tracking: Socket,
    route: Socket,
    frames: FrameSocket,
}

impl Chores {
    pub(crate) fn open() -> Result<Self, Error> {
        let worker = Worker {
            tracking: Socket::open(Protocol::Netfilter).attempt("open", "a socket for connection tracking")?,
            route: Socket::open(Protocol::Route).attempt("open", "a socket for addresses")?,
            frames: FrameSocket::open().attempt("open", "a socket for frames")?,
        };
        let (queue, chores) = channel();
        let thread = Builder::new()
            .name("network-chores".into())
            .spawn(move || worker.run(&chores))
            .attempt("start", "the thread for chores")?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    fn push(&self, chore: Chore) {
        if let Some(queue) = &self.queue
            && queue.send(chore).is_err()
        {
            tracing::error!("the thread for chores has ended");
        }
    }

    /// UDP flows to these ports began when they led elsewhere, or nowhere, and would go on so (PT-15).
    pub(crate) fn forget_flows(&self, publications: &BTreeSet<Publication>) {
        let udp: Vec<_> = publications.iter().filter(|p| p.protocol == Transport::Udp).cloned().collect();
        if !udp.is_empty() {
            self.push(Chore::Forget(udp));
        }
    }

    /// Tells a segment who has an address now (BR-05).
    pub(crate) fn announce(&self, bridge: u32, ip: IpAddr, mac: MacAddr) {
        self.push(Chore::Announce(bridge, ip, mac));
    }

    pub(crate) fn settle(&self) {
        let (tell, told) = sync_channel(1);
        self.push(Chore::Tell(tell));
        let _ = told.recv(); // an error means that the thread is gone, and its chores with it
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

impl Worker {
    fn run(mut self, chores: &Receiver<Chore>) {
        while let Ok(first) = chores.recv() {
            // flows of many publications are looked for in one go
            let mut publications = Vec::new();
            let mut tell = Vec::new();
            for chore in std::iter::once(first).chain(chores.try_iter()) {
                match chore {
                    Chore::Forget(more) => publications.extend(more),
                    Chore::Announce(bridge, ip, mac) => {
                        if let Err(error) = self.frames.send(bridge, &announcement(ip, mac.0)) {
                            tracing::debug!(%ip, %error, "could not announce an address");
                        }
                    }
                    Chore::Tell(who) => tell.push(who),
                }
            }
            if let Err(error) = self.forget(&publications) {
                tracing::warn!(%error, "could not forget UDP flows: those that exist may go where they went");
            }
            for who in tell {
                let _ = who.send(()); // who asked has gone
            }
        }
    }

    fn forget(&mut self, publications: &[Publication]) -> Result<(), Refusal> {
        let here: Vec<IpAddr> = if publications.iter().any(|p| p.host.is_unspecified()) {
            address::list(&mut self.route)?.into_iter().map(|address| address.ip).collect()
        } else {
            Vec::new()
        };
        for ipv6 in [false, true] {
            let of_family: Vec<_> = publications.iter().filter(|p| p.host.is_ipv6() == ipv6).collect();
            let port = match of_family[..] {
                [] => continue,
                [one] if one.count <= 1 => Some(one.host_port),
                _ => None,
            };
            conntrack::forget(&mut self.tracking, ipv6, Transport::Udp.number(), port, |to| {
                of_family.iter().any(|p| {
                    let last = p.host_port.saturating_add(p.count.max(1) - 1);
                    let host = if p.host.is_unspecified() {
                        to.ip.is_loopback() || here.contains(&to.ip)
                    } else {
                        to.ip == p.host
                    };
                    host && (p.host_port..=last).contains(&to.port)
                })
            })?;
        }
        Ok(())
    }
}
