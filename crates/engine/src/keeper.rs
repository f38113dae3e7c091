//! The way to the keeper, and the guarantee that there is one.
//!
//! One task owns the connection. It sends what it is told in order and gives the answers back; it holds a duplicate of
//! every descriptor that the keeper holds, so that a killed keeper is replaced at once: a new one is started, given
//! everything, and told the whole state. Requests that were under way are then answered by the new one.
//!
//! ```text
//! connected ──the connection is lost──▶ the old one is gone for certain ──▶ starting
//!     ▲                                                                       │
//!     └──────────────────── named, watched and held again ◀──────────────────┘
//! ```
//!
//! Nothing else starts another one ([`Trouble`]): two keepers at a time would answer differently.

use crate::error::{Error, Kind, Result};
use keeper_protocol::{Key, Reply, Request, VERSION, decode, encode};
use kernel::readiness;
use kernel::seqpacket::{self, Packet};
use model::id::{ContainerId, RootId};
use model::names::{Change, Questions};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// The encoded changes of one message, in bytes: the rest is the request's own.
const PART: usize = seqpacket::MAX_MESSAGE - 64;
/// How long a keeper that shall go may take to say that it does, and one that is killed to end.
const GOING: Duration = Duration::from_secs(2);
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
    /// Asks what became of all questions.
    Count(mpsc::UnboundedSender<Questions>),
    /// Has the keeper go, and none take its place: nothing is told after it.
    Retire,
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

    /// What became of all questions since the keeper was started.
    ///
    /// # Errors
    /// It does not say.
    pub async fn questions(&self) -> Result<Questions> {
        let (counted, mut answer) = mpsc::unbounded_channel();
        self.tell(vec![Act::Count(counted)]).await?;
        answer.recv().await.ok_or_else(|| link_error("it does not count"))
    }

    /// Releases what is held under other keys: of containers that are gone.
    pub async fn keep_only(&self, keys: BTreeSet<Key>) -> Result<()> {
        self.tell(vec![Act::KeepOnly(keys)]).await
    }

    /// Has the keeper go: nobody is left whom it could answer.
    ///
    /// # Errors
    /// It does not go.
    pub async fn retire(&self) -> Result<()> {
        self.tell(vec![Act::Retire]).await
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

/// Why something is not told, or not done. Only a lost connection means that there is no keeper any more.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Refused(String),
    /// A failure on this side: a request was not sent, or its answer finds no place.
    #[error(transparent)]
    Ours(#[from] io::Error),
    #[error("the connection is lost: {0}")]
    Lost(io::Error),
}

impl Trouble {
    fn of_connection(e: io::Error) -> Self {
        if seqpacket::is_gone(&e) { Self::Lost(e) } else { Self::Ours(e) }
    }
}

type Told<T = ()> = std::result::Result<T, Trouble>;

fn link_error(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, format!("the keeper: {e}"))
}

/// The changes in parts of at most `limit` encoded bytes; one that is larger is a part of its own.
fn parts(changes: &[Change], limit: usize) -> Vec<&[Change]> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, change) in changes.iter().enumerate() {
        let bytes = encode(change).len();
        if at > start && size + bytes > limit {
            parts.push(&changes[start..at]);
            (start, size) = (at, 0);
        }
        size += bytes;
    }
    parts.extend(changes.get(start..).filter(|rest| !rest.is_empty()));
    parts
}

fn duplicate(descriptors: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    descriptors.iter().map(OwnedFd::try_clone).collect()
}

struct Link {
    settings: Settings,
    connection: Option<AsyncFd<OwnedFd>>,
    /// The keeper that we speak to, or spoke to and do not know to be gone.
    process: Option<OwnedFd>,
    /// The keeper is of another build: it goes when one of this build knows everything.
    outdated: bool,
    /// One that goes when its successor knows everything.
    predecessor: Option<(AsyncFd<OwnedFd>, Option<OwnedFd>)>,
    held: Held,
    watched: BTreeMap<ContainerId, (OwnedFd, Vec<Change>)>,
}

impl Link {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            connection: None,
            process: None,
            outdated: false,
            predecessor: None,
            held: Held::new(),
            watched: BTreeMap::new(),
        }
    }

    async fn connect_or_start(&mut self) -> Told<Held> {
        match seqpacket::connect(&self.settings.socket).map_err(io::Error::from) {
            Ok(connection) => match self.take_over(connection).await {
                Err(Trouble::Lost(e)) => {
                    tracing::warn!("the keeper that ran is gone ({e}); starting another");
                    self.dismiss().await?;
                }
                taken => return taken,
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(e) => return Err(e.into()),
        }
        self.start().await?;
        Ok(Held::new())
    }

    /// Speaks to a keeper that outlived its daemon: what it holds.
    async fn take_over(&mut self, connection: OwnedFd) -> Told<Held> {
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

    fn use_connection(&mut self, connection: OwnedFd) -> io::Result<()> {
        seqpacket::set_nonblocking(&connection)?;
        self.connection = Some(readiness::watch(connection)?);
        Ok(())
    }

    /// Whether the keeper is of our version and build, and what it holds.
    async fn hello(&mut self) -> Told<(bool, Vec<Key>)> {
        let hello = Request::Hello { version: VERSION, root: self.settings.root.clone() };
        match self.exchange(&hello, &[]).await? {
            (Reply::Welcome { version, build, held }, mut process) => {
                self.process = process.pop();
                Ok((version == VERSION && build == self.build(), held))
            }
            (Reply::Failed { why }, _) => Err(Trouble::Refused(why)),
            (other, _) => Err(Trouble::Refused(format!("{other:?} is no welcome"))),
        }
    }

    /// What our own program is called: another file is another build.
    fn build(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(&self.settings.program);
        file.map_or_else(|_| String::new(), |m| format!("{}-{}.{}", m.size(), m.mtime(), m.mtime_nsec()))
    }

    /// Starts a keeper: it inherits its listening socket as standard input, in a process group of its own.
    async fn start(&mut self) -> Told {
        let listener = seqpacket::listen(&self.settings.socket).map_err(io::Error::from)?;
        // Whoever talks to the keeper gets every descriptor it holds.
        std::fs::set_permissions(&self.settings.socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let mut log = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut log, 0o600);
        let log = log.create(true).append(true).open(&self.settings.log)?;
        let mut child = tokio::process::Command::new(&self.settings.program)
            .args(["keeper", "--root-id", self.settings.root.as_str(), "--build", &self.build(), "--resolv-conf"])
            .arg(&self.settings.resolv_conf)
            .stdin(listener)
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        let welcomed = match seqpacket::connect(&self.settings.socket).map_err(io::Error::from) {
            Ok(connection) => match self.use_connection(connection) {
                Ok(()) => self.hello().await.map(drop),
                Err(e) => Err(e.into()),
            },
            Err(e) => Err(e.into()),
        };
        if welcomed.is_err() {
            self.connection = None;
            let _ = child.start_kill();
        }
        tokio::spawn(async move { child.wait().await });
        welcomed
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
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    continue;
                }
            };
            let is_last = matches!(order.acts.last(), Some(Act::Retire));
            let result = self.obey(&order.acts, &snapshot).await;
            let _ = order.done.send(result);
            if is_last {
                return;
            }
        }
    }

    async fn obey(&mut self, acts: &[Act], snapshot: &Snapshot) -> Result<()> {
        let mut attempt = 0;
        loop {
            match self.perform(acts, snapshot).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Lost(e)) if attempt < ATTEMPTS => {
                    tracing::warn!("the keeper is gone ({e}); starting another");
                    attempt += 1;
                    if let Err(e) = self.restart(snapshot).await {
                        tracing::error!("no keeper can be started: {e}");
                    }
                }
                Err(e) => return Err(link_error(e)),
            }
        }
    }

    async fn perform(&mut self, acts: &[Act], snapshot: &Snapshot) -> Told {
        for act in acts {
            self.act(act, snapshot).await?;
        }
        Ok(())
    }

    /// What is held and watched is noted once the keeper has it, and forgotten once it has not.
    async fn act(&mut self, act: &Act, snapshot: &Snapshot) -> Told {
        match act {
            Act::KeepOnly(keys) => {
                let stale: Vec<Key> = self.held.keys().filter(|k| !keys.contains(k)).cloned().collect();
                for key in stale {
                    self.release(&key).await?;
                }
                Ok(())
            }
            Act::Refresh if self.outdated => self.replace(snapshot).await,
            Act::Refresh => self.feed(&snapshot()).await,
            Act::Count(answer) => match self.exchange(&Request::Count, &[]).await?.0 {
                Reply::Counted(questions) => {
                    let _ = answer.send(questions);
                    Ok(())
                }
                other => Err(Trouble::Refused(format!("{other:?} is no answer"))),
            },
            Act::Retire => {
                retire(self.connection.as_ref(), self.process.as_ref()).await?;
                let _ = std::fs::remove_file(&self.settings.socket);
                Ok(())
            }
            Act::Hold(key, descriptors) => {
                let own = duplicate(descriptors)?;
                self.hold(key, descriptors).await?;
                self.held.insert(key.clone(), own);
                Ok(())
            }
            Act::Release(key) => self.release(key).await,
            Act::Apply(changes) => self.apply(changes).await,
            Act::Watch(container, pidfd, changes) => {
                let own = pidfd.try_clone()?;
                self.watch(*container, pidfd, changes).await?;
                self.watched.insert(*container, (own, changes.clone()));
                Ok(())
            }
            Act::Unwatch(container) => {
                self.request(&Request::Unwatch { container: *container }, &[]).await?;
                self.watched.remove(container);
                Ok(())
            }
        }
    }

    async fn release(&mut self, key: &Key) -> Told {
        self.request(&Request::Release { key: key.clone() }, &[]).await?;
        self.held.remove(key);
        Ok(())
    }

    async fn apply(&self, changes: &[Change]) -> Told {
        for part in parts(changes, PART) {
            self.request(&Request::Apply { changes: part.to_vec() }, &[]).await?;
        }
        Ok(())
    }

    async fn hold(&self, key: &Key, descriptors: &[OwnedFd]) -> Told {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut parts = descriptors.chunks(seqpacket::MAX_DESCRIPTORS);
        let first = parts.next().unwrap_or_default();
        self.request(&Request::Hold { key: key.clone(), more: false }, first).await?;
        for part in parts {
            self.request(&Request::Hold { key: key.clone(), more: true }, part).await?;
        }
        Ok(())
    }

    async fn recall(&self, key: &Key) -> Told<Vec<OwnedFd>> {
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

    async fn watch(&self, container: ContainerId, pidfd: &OwnedFd, changes: &[Change]) -> Told {
        self.request(&Request::Watch { container, changes: changes.to_vec() }, &[pidfd.as_fd()]).await
    }

    async fn request(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Told {
        match self.exchange(request, descriptors).await?.0 {
            Reply::Done => Ok(()),
            Reply::Failed { why } => Err(Trouble::Refused(why)),
            other => Err(Trouble::Refused(format!("{other:?} is no answer"))),
        }
    }

    async fn exchange(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Told<(Reply, Vec<OwnedFd>)> {
        let connection = self.connection.as_ref().ok_or_else(|| Trouble::Lost(io::ErrorKind::NotConnected.into()))?;
        exchange(connection, request, descriptors).await.map_err(Trouble::of_connection)
    }

    /// Waits for the end of the connection.
    async fn listen(&self) -> io::Error {
        let Some(connection) = &self.connection else { return io::ErrorKind::NotConnected.into() };
        loop {
            match receive(connection).await {
                Ok((Reply::Died { container }, _)) => tracing::debug!(?container, "the keeper saw it die"),
                Ok((reply, _)) => tracing::warn!("the keeper says {reply:?}, unasked"),
                Err(e) if seqpacket::is_gone(&e) => return e,
                Err(e) => {
                    tracing::warn!("a message of the keeper is lost: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A new keeper gets everything the last one had: what is known first, so that it answers rightly from its first
    /// query on, then the sockets. One that has not got everything is not spoken to: the next attempt replaces it.
    async fn restart(&mut self, snapshot: &Snapshot) -> Told {
        self.connection = None;
        self.outdated = false;
        self.dismiss().await?;
        self.start().await?;
        let filled = self.fill(snapshot).await;
        if filled.is_err() {
            self.connection = None;
        }
        filled?;
        if let Some((connection, process)) = self.predecessor.take()
            && let Err(e) = retire(Some(&connection), process.as_ref()).await
        {
            tracing::error!("the old keeper does not go: {e}");
        }
        Ok(())
    }

    /// Makes sure that the keeper whose connection is lost takes nothing any more. Where it lives it is asked to go, so
    /// that what it carries is finished; where it does not hear, it is killed.
    async fn dismiss(&mut self) -> Told {
        if self.process.is_none() && self.predecessor.is_some() {
            // Who listens is the predecessor. It goes when its successor knows everything.
            return Ok(());
        }
        let ended = |process| kernel::process::has_ended(process, Duration::ZERO).map_err(io::Error::from);
        if !self.process.as_ref().map(ended).transpose()?.unwrap_or(false) {
            let listener = seqpacket::connect(&self.settings.socket).map_err(io::Error::from);
            let listener = listener.and_then(|c| seqpacket::set_nonblocking(&c).map(|()| c).map_err(io::Error::from));
            let connection = listener.and_then(readiness::watch).ok();
            retire(connection.as_ref(), self.process.as_ref()).await?;
        }
        self.process = None;
        Ok(())
    }

    /// A keeper of our build takes over. Both answer for a moment; then the old one finishes what it has begun.
    async fn replace(&mut self, snapshot: &Snapshot) -> Told {
        tracing::info!("the keeper is of another build; one of this build takes over");
        let process = self.process.take();
        self.predecessor = self.connection.take().map(|connection| (connection, process));
        self.restart(snapshot).await
    }

    async fn fill(&self, snapshot: &Snapshot) -> Told {
        self.feed(&snapshot()).await?;
        for (key, descriptors) in &self.held {
            go_on(self.hold(key, descriptors).await)?;
        }
        Ok(())
    }

    /// The whole of what is known and watched, seen at once when all of it is there.
    async fn feed(&self, snapshot: &[Change]) -> Told {
        self.request(&Request::Reset, &[]).await?;
        self.apply(snapshot).await?;
        for (container, (pidfd, changes)) in &self.watched {
            go_on(self.watch(*container, pidfd, changes).await)?;
        }
        self.request(&Request::Begin, &[]).await
    }
}

/// What one of many things is refused for is no reason to do without the others.
fn go_on(told: Told) -> Told {
    match told {
        Err(Trouble::Refused(why)) => {
            tracing::error!("the keeper: {why}");
            Ok(())
        }
        told => told,
    }
}

/// Has a keeper go: asked by its connection, or else killed. Without either it is gone.
async fn retire(connection: Option<&AsyncFd<OwnedFd>>, process: Option<&OwnedFd>) -> io::Result<()> {
    let mut failure = None;
    if let Some(connection) = connection {
        match tokio::time::timeout(GOING, exchange(connection, &Request::Retire, &[])).await {
            Ok(Ok((Reply::Done, _))) => return Ok(()),
            Ok(Err(e)) if seqpacket::is_gone(&e) => {}
            Ok(Ok((reply, _))) => failure = Some(io::Error::other(format!("asked to go, it says {reply:?}"))),
            Ok(Err(e)) => failure = Some(e),
            Err(_) => failure = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    let Some(process) = process else { return failure.map_or(Ok(()), Err) };
    kernel::process::kill(process)?;
    let ended = readiness::watch_reading(process.try_clone()?)?;
    match tokio::time::timeout(GOING, ended.readable()).await {
        Ok(ended) => ended.map(drop),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn exchange(
    connection: &AsyncFd<OwnedFd>,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<(Reply, Vec<OwnedFd>)> {
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

async fn receive(connection: &AsyncFd<OwnedFd>) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let packet = connection.async_io(Interest::READABLE, |c| Ok(seqpacket::receive(c)?)).await?;
    let Packet { message, descriptors } = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = decode(&message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((reply, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{EndpointId, NetworkId};
    use model::names::Member;

    fn member(names: usize) -> Change {
        let member = Member {
            container: ContainerId::new([1; 32]),
            names: (0..names).map(|n| format!("{n:0>250}")).collect(),
            ipv4: None,
            ipv6: None,
        };
        Change::Member { network: NetworkId::new([2; 32]), endpoint: EndpointId::new([3; 32]), member }
    }

    #[test]
    fn parts_are_cut_by_their_bytes() {
        let changes: Vec<Change> = (0..300).map(|n| member(n % 120)).collect();
        let parts = parts(&changes, PART);
        assert_eq!(parts.concat(), changes, "nothing is lost");
        assert!(parts.len() > 10);
        for part in parts {
            assert!(encode(&Request::Apply { changes: part.to_vec() }).len() <= seqpacket::MAX_MESSAGE);
        }
        assert!(super::parts(&[], PART).is_empty());
    }

    /// A keeper that does nothing, whose program cannot be started a second time: what it is told.
    struct Dummy {
        listener: OwnedFd,
        settings: Settings,
        _directory: tempfile::TempDir,
    }

    impl Dummy {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name);
            let settings = Settings {
                root: RootId::new([1; 4]),
                program: path("missing"),
                socket: path("socket"),
                log: path("log"),
                resolv_conf: path("resolv.conf"),
            };
            Self { listener: seqpacket::listen(&settings.socket).unwrap(), settings, _directory: directory }
        }

        /// Serves one connection until it has answered `last`, or the daemon goes.
        fn serve(&self, last: impl Fn(&Request) -> bool) -> Vec<Request> {
            let connection = seqpacket::accept(&self.listener).unwrap();
            let mut told = Vec::new();
            while let Some(packet) = seqpacket::receive(&connection).unwrap() {
                let request: Request = decode(&packet.message).unwrap();
                let reply = match &request {
                    Request::Hello { .. } => {
                        Reply::Welcome { version: VERSION, build: String::new(), held: Vec::new() }
                    }
                    Request::Release { .. } => Reply::Failed { why: "not today".into() },
                    _ => Reply::Done,
                };
                seqpacket::send(&connection, &encode(&reply), &[]).unwrap();
                told.push(request);
                if last(told.last().unwrap()) {
                    break;
                }
            }
            told
        }
    }

    #[tokio::test]
    async fn failures_that_are_not_the_keepers_end_start_no_other() {
        let dummy = Dummy::new();
        let settings = dummy.settings.clone();
        let keeper = tokio::task::spawn_blocking(move || dummy.serve(|_| false));
        let link = Keeper::connect(settings).await.unwrap().0.begin(Arc::new(Vec::new));
        let too_large = link.apply(vec![member(600)]).await.unwrap_err();
        assert!(too_large.message.contains("too long"), "{too_large:?}");
        let refused = link.tell(vec![Act::Release(Key::Proxy)]).await.unwrap_err();
        assert!(refused.message.contains("not today"), "{refused:?}");
        link.apply(vec![member(1)]).await.unwrap();
        drop(link);
        let told = keeper.await.unwrap();
        assert!(matches!(told.as_slice(), [Request::Hello { .. }, Request::Release { .. }, Request::Apply { .. }]));
    }

    #[tokio::test]
    async fn a_keeper_that_lives_without_a_connection_is_retired_before_another_starts() {
        let dummy = Dummy::new();
        let settings = dummy.settings.clone();
        let keeper = tokio::task::spawn_blocking(move || {
            // It hangs up, and lives.
            dummy.serve(|request| matches!(request, Request::Hello { .. }));
            dummy.serve(|request| *request == Request::Retire)
        });
        let _link = Keeper::connect(settings).await.unwrap().0.begin(Arc::new(Vec::new));
        let told = tokio::time::timeout(Duration::from_secs(10), keeper).await.expect("it is told").unwrap();
        assert_eq!(told, [Request::Retire]);
    }
}
