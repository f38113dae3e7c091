//! What follows an act and need not be waited for: forgetting stale flows, and announcing addresses (a frame to every
//! port of a bridge).
//!
//! To find flows the kernel looks through all of its table, 9 ms in which whatever waits for RCU on any CPU stands
//! still, also the making of interfaces. So the flows of many publications are looked for together.
//!
//! One thread with sockets of its own, in the namespace that opened them; it ends with the [`crate::Network`].

use crate::error::{Attempt, Error};
use kernel::netlink::{Protocol, Refusal, Socket};
use kernel::packet::{FrameSocket, announcement};
use kernel::{address, conntrack, sysctl};
use model::desired::Publication;
use model::net::{MacAddr, Protocol as Transport};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long flows wait for others to be forgotten with.
const TOGETHER: Duration = Duration::from_millis(50);

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
        let mut publications = Vec::new();
        let mut since: Option<Instant> = None;
        loop {
            let next = match since {
                None => chores.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => chores.recv_timeout(TOGETHER.saturating_sub(since.elapsed())),
            };
            let mut asked = None;
            match next {
                Ok(Chore::Announce(bridge, ip, mac)) => {
                    if let Err(error) = self.frames.send(bridge, &announcement(ip, mac.0)) {
                        tracing::debug!(%ip, %error, "could not announce an address");
                    }
                    continue;
                }
                Ok(Chore::Forget(more)) => {
                    publications.extend(more);
                    since = since.or_else(|| Some(Instant::now()));
                    continue;
                }
                Ok(Chore::Tell(who)) => asked = Some(who),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if publications.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => {}
            }
            if let Err(error) = self.forget(&publications) {
                tracing::warn!(%error, "could not forget UDP flows: those that exist may go where they went");
            }
            publications.clear();
            since = None;
            if let Some(who) = asked {
                let _ = who.send(()); // an error means that who asked has gone
            }
        }
    }

    fn forget(&mut self, publications: &[Publication]) -> Result<(), Refusal> {
        if publications.is_empty() || sysctl::read("net.netfilter.nf_conntrack_count").is_ok_and(|count| count == "0") {
            return Ok(());
        }
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
