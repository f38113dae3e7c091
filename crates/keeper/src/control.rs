//! The daemon's requests, one connection at a time.
//!
//! Nothing that a connection does ends the keeper, other than `Retire`: what it does not understand it answers with
//! `Failed`, and where it cannot accept it waits until it can.

use crate::holdings::Holdings;
use keeper_protocol::{Reply, Request, VERSION, decode, encode};
use kernel::readiness;
use kernel::seqpacket::{self, Packet};
use model::id::{ContainerId, RootId};
use model::names::Change;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long nobody is accepted after that has failed: no descriptors are left, perhaps.
const RESPITE: Duration = Duration::from_millis(100);

pub struct Control {
    root: RootId,
    build: String,
    holdings: Holdings,
    watches: Watches,
    /// The watches of a snapshot on its way in.
    staged: Option<Watches>,
    deaths: (mpsc::UnboundedSender<ContainerId>, mpsc::UnboundedReceiver<ContainerId>),
}

type Watches = HashMap<ContainerId, Watch>;

/// Ends when it is dropped.
struct Watch {
    task: JoinHandle<()>,
    changes: Vec<Change>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What ends a conversation.
enum End {
    Gone,
    Retire,
}

impl Control {
    pub fn new(root: RootId, build: String, holdings: Holdings) -> Self {
        Self { root, build, holdings, watches: Watches::new(), staged: None, deaths: mpsc::unbounded_channel() }
    }

    /// Obeys until a daemon says `Retire`.
    pub async fn run(&mut self, listener: AsyncFd<OwnedFd>) {
        let mut daemon: Option<AsyncFd<OwnedFd>> = None;
        loop {
            tokio::select! {
                // The newest daemon is the daemon: it holds the lock on the root.
                connection = accept(&listener) => daemon = Some(connection),
                packet = receive(daemon.as_ref()) => {
                    let connection = daemon.as_ref().expect("a packet comes from a connection");
                    match self.handle(connection, packet).await {
                        Ok(()) => {}
                        Err(End::Gone) => daemon = None,
                        Err(End::Retire) => return,
                    }
                }
                Some(container) = self.deaths.1.recv() => {
                    let staged = self.staged.as_mut().and_then(|watches| watches.remove(&container));
                    let watches = [self.watches.remove(&container), staged];
                    if watches.iter().any(Option::is_some) {
                        watches.iter().flatten().for_each(|watch| self.holdings.apply_at_once(&watch.changes));
                        if let Some(connection) = &daemon {
                            let _ = send(connection, &Reply::Died { container }, &[]).await;
                        }
                    }
                }
            }
        }
    }

    /// Gives up what is held: the successor has it. What is still served by keeps its own.
    pub fn let_go(&mut self) {
        self.holdings.let_go();
    }

    async fn handle(&mut self, connection: &AsyncFd<OwnedFd>, packet: io::Result<Option<Packet>>) -> Result<(), End> {
        let packet = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(End::Gone),
            Err(e) if seqpacket::is_gone(&e) => return Err(End::Gone),
            Err(e) => {
                let why = format!("the request is lost: {e}");
                tracing::warn!("{why}");
                return send(connection, &Reply::Failed { why }, &[]).await.map_err(|_| End::Gone);
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
        // Who welcomes gives a handle on itself: a daemon makes sure that it is gone before another takes its place.
        let own = if matches!(reply, Reply::Welcome { .. }) { kernel::process::own_pidfd().ok() } else { None };
        let own: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
        send(connection, &reply, &own).await.map_err(|_| End::Gone)
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
                self.staged = Some(Watches::new());
                self.holdings.reset();
            }
            Request::Begin => {
                if let Some(staged) = self.staged.take() {
                    self.watches = staged;
                }
                self.holdings.begin();
            }
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
                self.watches.remove(&container);
                if let Some(staged) = &mut self.staged {
                    staged.remove(&container);
                }
            }
            Request::Count => return Ok(Reply::Counted(self.holdings.questions())),
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
        self.staged.as_mut().unwrap_or(&mut self.watches).insert(container, Watch { task, changes });
        Ok(())
    }
}

/// The next daemon. It may be dropped while it waits.
async fn accept(listener: &AsyncFd<OwnedFd>) -> AsyncFd<OwnedFd> {
    loop {
        match accept_one(listener).await {
            Ok(connection) => return connection,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => tracing::warn!("a client is turned away: {e}"),
            Err(e) => {
                tracing::warn!("a daemon cannot be accepted: {e}");
                tokio::time::sleep(RESPITE).await;
            }
        }
    }
}

/// Only the keeper's own user, root, may be a daemon: who speaks to the keeper gets all that it holds.
async fn accept_one(listener: &AsyncFd<OwnedFd>) -> io::Result<AsyncFd<OwnedFd>> {
    let connection = listener.async_io(Interest::READABLE, |l| Ok(seqpacket::accept(l)?)).await?;
    let user = seqpacket::peer_user(&connection)?;
    if user != 0 && user != kernel::process::own_user() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} is not root")));
    }
    seqpacket::set_nonblocking(&connection)?;
    readiness::watch(connection)
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
