//! The way to the keeper, and the guarantee that there is one.
//!
//! One task owns the connection. It sends what it is told in order and gives the answers back; it holds a duplicate of
//! every descriptor that the keeper holds, so that a killed keeper is replaced at once: a new one is started, given
//! everything, and told the whole state. Requests that were under way are then answered by the new one.
//!
//! ```text
//! connected ──the connection ends──▶ starting ──held, watched and named again──▶ connected
//! ```

use crate::error::{Error, Kind, Result};
use keeper_protocol::{Key, Reply, Request, VERSION, decode, encode};
use kernel::readiness;
use kernel::seqpacket::{self, Packet};
use model::id::{ContainerId, RootId};
use model::names::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// Changes in one message: a member is about 300 bytes, a message at most 128 KiB.
const CHUNK: usize = 200;
/// How often a keeper that dies at once is started again before we give up on a request.
const ATTEMPTS: u32 = 5;

/// What the link needs to start a keeper.
#[derive(Clone, Debug)]
pub struct Settings {
    pub root: RootId,
    /// Our own executable.
    pub program: PathBuf,
    /// Where the keeper listens, and where it writes what it has to say.
    pub socket: PathBuf,
    pub log: PathBuf,
    /// The host's.
    pub resolv_conf: PathBuf,
}

/// Gives the whole of what the keeper shall know.
pub type Snapshot = Arc<dyn Fn() -> Vec<Change> + Send + Sync>;

/// The way to the link's task.
#[derive(Clone, Debug)]
pub struct Keeper {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Order {
    acts: Vec<Act>,
    done: oneshot::Sender<Result<()>>,
}

/// One thing the keeper is told.
#[derive(Debug)]
pub enum Act {
    Hold(Key, Vec<OwnedFd>),
    Release(Key),
    Apply(Vec<Change>),
    /// Take `changes` out when the pidfd's process ends.
    Watch(ContainerId, OwnedFd, Vec<Change>),
    Unwatch(ContainerId),
    /// Releases whatever is held under other keys.
    KeepOnly(BTreeSet<Key>),
    /// Feeds the whole state anew.
    Refresh,
}

/// What a keeper that outlived its daemon gave back.
pub type Held = BTreeMap<Key, Vec<OwnedFd>>;

impl Keeper {
    /// Connects to the keeper that runs, or starts one; returns what it held.
    ///
    /// # Errors
    /// None can be started, or the one that runs is another root's.
    pub async fn connect(settings: Settings) -> Result<(Connecting, Held)> {
        let mut link = Link::new(settings);
        let held = link.connect_or_start().await.map_err(link_error)?;
        let copies = held.iter().map(|(key, fds)| Ok((key.clone(), duplicate(fds)?)));
        let copies = copies.collect::<io::Result<Held>>().map_err(link_error)?;
        link.held = held;
        Ok((Connecting { link }, copies))
    }

    /// Tells the keeper, in order; returns when all of it is in effect.
    ///
    /// # Errors
    /// The keeper refuses, or none can be started.
    pub async fn tell(&self, acts: Vec<Act>) -> Result<()> {
        let gone = || Error::new(Kind::Internal, "the link to the keeper is gone");
        let (done, answer) = oneshot::channel();
        self.orders.send(Order { acts, done }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    pub async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() { Ok(()) } else { self.tell(vec![Act::Apply(changes)]).await }
    }

    /// Releases what is held under other keys: of containers that are gone.
    pub async fn keep_only(&self, keys: BTreeSet<Key>) -> Result<()> {
        self.tell(vec![Act::KeepOnly(keys)]).await
    }

    /// Feeds the keeper the whole state.
    pub async fn refresh(&self) -> Result<()> {
        self.tell(vec![Act::Refresh]).await
    }
}

/// A link that is not yet fed.
pub struct Connecting {
    link: Link,
}

impl Connecting {
    /// Starts the task that owns the link. What the keeper knows is fed by [`Keeper::refresh`].
    pub fn begin(self, snapshot: Snapshot) -> Keeper {
        let (orders, queue) = mpsc::unbounded_channel();
        tokio::spawn(self.link.run(queue, snapshot));
        Keeper { orders }
    }
}

fn link_error(e: io::Error) -> Error {
    Error::new(Kind::Internal, format!("the keeper: {e}"))
}

fn duplicate(descriptors: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    descriptors.iter().map(OwnedFd::try_clone).collect()
}

struct Link {
    settings: Settings,
    connection: Option<AsyncFd<OwnedFd>>,
    /// The keeper is of another build: it goes when one of this build knows everything.
    outdated: bool,
    held: Held,
    watched: BTreeMap<ContainerId, (OwnedFd, Vec<Change>)>,
}

impl Link {
    fn new(settings: Settings) -> Self {
        Self { settings, connection: None, outdated: false, held: Held::new(), watched: BTreeMap::new() }
    }

    async fn connect_or_start(&mut self) -> io::Result<Held> {
        match seqpacket::connect(&self.settings.socket) {
            Ok(connection) => {
                self.use_connection(connection)?;
                let (current, keys) = self.hello().await?;
                let mut held = Held::new();
                for key in keys {
                    let descriptors = self.recall(&key).await?;
                    held.insert(key, descriptors);
                }
                self.outdated = !current;
                Ok(held)
            }
            Err(_) => {
                self.start().await?;
                Ok(Held::new())
            }
        }
    }

    fn use_connection(&mut self, connection: OwnedFd) -> io::Result<()> {
        seqpacket::set_nonblocking(&connection)?;
        self.connection = Some(readiness::watch(connection)?);
        Ok(())
    }

    /// Whether the keeper is of our version and build, and what it holds.
    async fn hello(&mut self) -> io::Result<(bool, Vec<Key>)> {
        let hello = Request::Hello { version: VERSION, root: self.settings.root.clone() };
        match self.exchange(&hello, &[]).await?.0 {
            Reply::Welcome { version, build, held } => Ok((version == VERSION && build == self.build(), held)),
            Reply::Failed { why } => Err(io::Error::other(why)),
            other => Err(io::Error::other(format!("{other:?} is no welcome"))),
        }
    }

    /// What our own program is called: another file is another build.
    fn build(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(&self.settings.program);
        file.map_or_else(|_| String::new(), |m| format!("{}-{}.{}", m.size(), m.mtime(), m.mtime_nsec()))
    }

    /// Starts a keeper: it inherits its listening socket as standard input, in a process group of its own.
    async fn start(&mut self) -> io::Result<()> {
        let listener = seqpacket::listen(&self.settings.socket)?;
        // Whoever talks to the keeper gets every descriptor it holds.
        std::fs::set_permissions(&self.settings.socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.settings.log)?;
        let mut child = tokio::process::Command::new(&self.settings.program)
            .args(["keeper", "--root-id", self.settings.root.as_str(), "--build", &self.build(), "--resolv-conf"])
            .arg(&self.settings.resolv_conf)
            .stdin(listener)
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        tokio::spawn(async move { child.wait().await });
        let connection = seqpacket::connect(&self.settings.socket)?;
        self.use_connection(connection)?;
        self.hello().await?;
        Ok(())
    }

    /// Obeys until nobody can order any more. A lost connection is made up for at once, also when nothing is ordered.
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, snapshot: Snapshot) {
        loop {
            let order = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => order,
                    None => return,
                },
                end = self.listen() => {
                    tracing::warn!("the keeper is gone ({end}); starting another");
                    if let Err(e) = self.restart(&snapshot).await {
                        tracing::error!("no keeper can be started: {e}");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                    continue;
                }
            };
            let result = self.obey(&order.acts, &snapshot).await;
            let _ = order.done.send(result);
        }
    }

    async fn obey(&mut self, acts: &[Act], snapshot: &Snapshot) -> Result<()> {
        let mut attempt = 0;
        loop {
            match self.perform(acts, snapshot).await {
                Ok(result) => return result,
                Err(e) if attempt == ATTEMPTS => return Err(link_error(e)),
                Err(e) => {
                    tracing::warn!("the keeper is gone ({e}); starting another");
                    attempt += 1;
                    if let Err(e) = self.restart(snapshot).await {
                        tracing::error!("no keeper can be started: {e}");
                    }
                }
            }
        }
    }

    /// Sends all acts, then reads all answers. The outer error is the connection's, the inner one the keeper's.
    async fn perform(&mut self, acts: &[Act], snapshot: &Snapshot) -> io::Result<Result<()>> {
        for act in acts {
            if let Err(e) = self.act(act, snapshot).await {
                if e.kind() == io::ErrorKind::Other {
                    return Ok(Err(link_error(e)));
                }
                return Err(e);
            }
        }
        Ok(Ok(()))
    }

    async fn act(&mut self, act: &Act, snapshot: &Snapshot) -> io::Result<()> {
        match act {
            Act::KeepOnly(keys) => {
                let stale: Vec<Key> = self.held.keys().filter(|k| !keys.contains(k)).cloned().collect();
                for key in stale {
                    self.held.remove(&key);
                    self.request(&Request::Release { key }, &[]).await?;
                }
                Ok(())
            }
            Act::Refresh if self.outdated => self.replace(snapshot).await,
            Act::Refresh => self.feed(&snapshot()).await,
            Act::Hold(key, descriptors) => self.hold(key.clone(), descriptors).await,
            Act::Release(key) => {
                self.held.remove(key);
                self.request(&Request::Release { key: key.clone() }, &[]).await
            }
            Act::Apply(changes) => {
                for chunk in changes.chunks(CHUNK) {
                    self.request(&Request::Apply { changes: chunk.to_vec() }, &[]).await?;
                }
                Ok(())
            }
            Act::Watch(container, pidfd, changes) => self.watch(*container, pidfd, changes).await,
            Act::Unwatch(container) => {
                self.watched.remove(container);
                self.request(&Request::Unwatch { container: *container }, &[]).await
            }
        }
    }

    async fn hold(&mut self, key: Key, descriptors: &[OwnedFd]) -> io::Result<()> {
        self.held.insert(key.clone(), duplicate(descriptors)?);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut parts = descriptors.chunks(seqpacket::MAX_DESCRIPTORS);
        let first = parts.next().unwrap_or_default();
        self.request(&Request::Hold { key: key.clone(), more: false }, first).await?;
        for part in parts {
            self.request(&Request::Hold { key: key.clone(), more: true }, part).await?;
        }
        Ok(())
    }

    async fn recall(&self, key: &Key) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        loop {
            let recall = Request::Recall { key: key.clone(), from: all.len() };
            let (reply, part) = self.exchange(&recall, &[]).await?;
            if reply != Reply::Recalled || part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
        }
    }

    async fn watch(&mut self, container: ContainerId, pidfd: &OwnedFd, changes: &[Change]) -> io::Result<()> {
        self.watched.insert(container, (pidfd.try_clone()?, changes.to_vec()));
        self.request(&Request::Watch { container, changes: changes.to_vec() }, &[pidfd.as_fd()]).await
    }

    async fn request(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.exchange(request, descriptors).await?.0 {
            Reply::Done => Ok(()),
            Reply::Failed { why } => Err(io::Error::other(why)),
            other => Err(io::Error::other(format!("{other:?} is no answer"))),
        }
    }

    async fn exchange(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let connection = self.connection.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let bytes = encode(request);
        connection.async_io(Interest::WRITABLE, |c| Ok(seqpacket::send(c, &bytes, descriptors)?)).await?;
        loop {
            match receive(connection).await? {
                // What it says by itself: we hear of a death from the shim.
                (Reply::Died { .. }, _) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Waits for the end of the connection.
    async fn listen(&self) -> io::Error {
        let Some(connection) = &self.connection else { return io::ErrorKind::NotConnected.into() };
        loop {
            match receive(connection).await {
                Ok((Reply::Died { container }, _)) => tracing::debug!(?container, "the keeper saw it die"),
                Ok((reply, _)) => tracing::warn!("the keeper says {reply:?}, unasked"),
                Err(e) => return e,
            }
        }
    }

    /// A new keeper gets everything the last one had: what is known first, so that it answers rightly from its first
    /// query on, then the sockets.
    async fn restart(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.connection = None;
        self.outdated = false;
        self.start().await?;
        self.feed(&snapshot()).await?;
        let held = std::mem::take(&mut self.held);
        for (key, descriptors) in held {
            self.hold(key, &descriptors).await?;
        }
        Ok(())
    }

    /// A keeper of our build takes over. Both answer for a moment; then the old one finishes what it has begun.
    async fn replace(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        tracing::info!("the keeper is of another build; one of this build takes over");
        let old = self.connection.take();
        self.restart(snapshot).await?;
        let new = std::mem::replace(&mut self.connection, old);
        let retired = self.request(&Request::Retire, &[]).await;
        self.connection = new;
        if let Err(e) = retired {
            tracing::warn!("the old keeper does not go: {e}");
        }
        Ok(())
    }

    async fn feed(&mut self, snapshot: &[Change]) -> io::Result<()> {
        self.request(&Request::Reset, &[]).await?;
        for chunk in snapshot.chunks(CHUNK) {
            self.request(&Request::Apply { changes: chunk.to_vec() }, &[]).await?;
        }
        self.request(&Request::Begin, &[]).await?;
        let watched = std::mem::take(&mut self.watched);
        for (container, (pidfd, changes)) in watched {
            self.watch(container, &pidfd, &changes).await?;
        }
        Ok(())
    }
}

async fn receive(connection: &AsyncFd<OwnedFd>) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let packet = connection.async_io(Interest::READABLE, |c| Ok(seqpacket::receive(c)?)).await?;
    let Packet { message, descriptors } = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = decode(&message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((reply, descriptors))
}
