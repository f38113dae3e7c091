//! The daemon's requests, one connection at a time.

use crate::holdings::Holdings;
use keeper_protocol::{Reply, Request, VERSION, decode, encode};
use kernel::readiness;
use kernel::seqpacket::{self, Packet};
use model::id::{ContainerId, RootId};
use model::names::Change;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub struct Control {
    root: RootId,
    build: String,
    holdings: Holdings,
    watches: HashMap<ContainerId, Watch>,
    deaths: (mpsc::UnboundedSender<ContainerId>, mpsc::UnboundedReceiver<ContainerId>),
}

struct Watch {
    task: JoinHandle<()>,
    changes: Vec<Change>,
}

/// What ends a conversation.
enum End {
    Gone,
    Retire,
}

impl Control {
    pub fn new(root: RootId, build: String, holdings: Holdings) -> Self {
        Self { root, build, holdings, watches: HashMap::new(), deaths: mpsc::unbounded_channel() }
    }

    pub async fn run(&mut self, listener: AsyncFd<OwnedFd>) -> io::Result<()> {
        let mut daemon: Option<AsyncFd<OwnedFd>> = None;
        loop {
            tokio::select! {
                accepted = listener.async_io(Interest::READABLE, |l| Ok(seqpacket::accept(l)?)) => {
                    let connection = accepted?;
                    seqpacket::set_nonblocking(&connection)?;
                    // The newest daemon is the daemon: it holds the lock on the root.
                    daemon = Some(readiness::watch(connection)?);
                }
                packet = receive(daemon.as_ref()) => {
                    let connection = daemon.as_ref().expect("a packet comes from a connection");
                    match self.handle(connection, packet).await {
                        Ok(()) => {}
                        Err(End::Gone) => daemon = None,
                        Err(End::Retire) => return Ok(()),
                    }
                }
                Some(container) = self.deaths.1.recv() => {
                    if let Some(watch) = self.watches.remove(&container) {
                        self.holdings.apply_at_once(&watch.changes);
                        if let Some(connection) = &daemon {
                            let _ = send(connection, &Reply::Died { container }, &[]).await;
                        }
                    }
                }
            }
        }
    }

    async fn handle(&mut self, connection: &AsyncFd<OwnedFd>, packet: io::Result<Option<Packet>>) -> Result<(), End> {
        let packet = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(End::Gone),
            Err(e) => {
                tracing::warn!("the daemon's message is lost: {e}");
                return Err(End::Gone);
            }
        };
        let request = match decode(&packet.message) {
            Ok(request) => request,
            Err(e) => {
                let why = format!("this keeper does not understand the request: {e}");
                send(connection, &Reply::Failed { why }, &[]).await.map_err(|_| End::Gone)?;
                return Ok(());
            }
        };
        if request == Request::Retire {
            let _ = send(connection, &Reply::Done, &[]).await;
            return Err(End::Retire);
        }
        if let Request::Recall { key, from } = &request {
            let (reply, held) = match self.holdings.get(key) {
                Some(held) => (Reply::Recalled, held.get(*from..).unwrap_or_default()),
                None => (Reply::Failed { why: format!("nothing is held under {key:?}") }, [].as_slice()),
            };
            let held: Vec<BorrowedFd<'_>> = held.iter().take(seqpacket::MAX_DESCRIPTORS).map(AsFd::as_fd).collect();
            return send(connection, &reply, &held).await.map_err(|_| End::Gone);
        }
        if let Request::Release { key } = &request {
            for task in self.holdings.release(key) {
                let _ = task.await;
            }
            return send(connection, &Reply::Done, &[]).await.map_err(|_| End::Gone);
        }
        let reply = self.perform(request, packet.descriptors).unwrap_or_else(|why| Reply::Failed { why });
        send(connection, &reply, &[]).await.map_err(|_| End::Gone)
    }

    fn perform(&mut self, request: Request, mut descriptors: Vec<OwnedFd>) -> Result<Reply, String> {
        match request {
            Request::Hello { version, root } => {
                if root != self.root {
                    return Err(format!("this is the keeper of root {}, not of {root}", self.root));
                }
                tracing::debug!(version, "a daemon says hello");
                return Ok(Reply::Welcome { version: VERSION, build: self.build.clone(), held: self.holdings.keys() });
            }
            Request::Reset => {
                for (_, watch) in self.watches.drain() {
                    watch.task.abort();
                }
                self.holdings.reset();
            }
            Request::Begin => self.holdings.begin(),
            Request::Apply { changes } => self.holdings.apply(changes),
            Request::Hold { key, more } => {
                let what = format!("{key:?}");
                self.holdings.hold(key, descriptors, more).map_err(|e| format!("cannot hold {what}: {e}"))?;
            }
            Request::Watch { container, changes } => {
                let pidfd = descriptors.pop().ok_or("a watch needs a pidfd")?;
                self.watch(container, pidfd, changes).map_err(|e| format!("cannot watch {container:?}: {e}"))?;
            }
            Request::Unwatch { container } => {
                if let Some(watch) = self.watches.remove(&container) {
                    watch.task.abort();
                }
            }
            Request::Recall { .. } | Request::Release { .. } | Request::Retire => return Err("out of order".into()),
        }
        Ok(Reply::Done)
    }

    /// A pidfd is readable when its process has ended (pidfd_open(2)).
    fn watch(&mut self, container: ContainerId, pidfd: OwnedFd, changes: Vec<Change>) -> io::Result<()> {
        let pidfd = readiness::watch_reading(pidfd)?;
        let deaths = self.deaths.0.clone();
        let task = tokio::task::spawn_local(async move {
            if pidfd.readable().await.is_ok() {
                let _ = deaths.send(container);
            }
        });
        if let Some(old) = self.watches.insert(container, Watch { task, changes }) {
            old.task.abort();
        }
        Ok(())
    }
}

async fn receive(connection: Option<&AsyncFd<OwnedFd>>) -> io::Result<Option<Packet>> {
    match connection {
        Some(connection) => connection.async_io(Interest::READABLE, |c| Ok(seqpacket::receive(c)?)).await,
        None => std::future::pending().await,
    }
}

async fn send(connection: &AsyncFd<OwnedFd>, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(reply);
    connection.async_io(Interest::WRITABLE, |c| Ok(seqpacket::send(c, &bytes, descriptors)?)).await
}
