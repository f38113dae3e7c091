//! What survives: networks, containers and volumes, each a record under its id.
//!
//! The store is read once, at start ([`Store::open`]). After that one writer thread commits what owners send it, all
//! that waits in one transaction; nobody else touches it. Its schema's version is a file beside it, read before the
//! store is opened: a newer one is refused untouched.
//!
//! A full disk stops what is new, not what goes: a [`Reserve`] beside the store is given up where its place is needed to
//! change or remove a record, and taken again when there is room.

use crate::error::{Error, Kind, Result};
use model::container::Container;
use model::id::{ContainerId, NetworkId};
use model::network::Network;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::sync::oneshot;

const SCHEMA: u32 = 1;
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
const VOLUMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("volumes");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// A named directory that outlives containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub created: jiff::Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Nobody named it: it goes with its container on `rm -v`.
    pub anonymous: bool,
}

/// What the store held at start.
#[derive(Debug, Default)]
pub struct Contents {
    pub networks: Vec<Network>,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
    /// Single facts: the root id, the boot id, the engine's id.
    pub facts: BTreeMap<String, String>,
    /// There are records that are left out, because they cannot be read.
    pub unreadable: bool,
}

/// One change of the store.
#[derive(Debug)]
pub enum Write {
    Network(Box<Network>),
    NetworkGone(NetworkId),
    Container(Box<Container>),
    ContainerGone(ContainerId),
    Volume(Volume),
    VolumeGone(String),
    Fact(&'static str, String),
}

struct Batch {
    writes: Vec<Write>,
    done: Option<oneshot::Sender<std::result::Result<(), String>>>,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub struct Store {
    batches: mpsc::Sender<Batch>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.writes.fmt(f)
    }
}

impl Store {
    /// Opens the store in `root`, creating it, and starts its writer.
    ///
    /// # Errors
    /// The directory cannot be used, or its schema is newer than ours.
    pub fn open(root: &Path) -> Result<(Store, Contents)> {
        check_schema(&root.join("schema"))?;
        let path = root.join("state.redb");
        let reserve = Reserve { path: root.join("reserve") };
        let open = || {
            if !path.exists() {
                private(&path).map_err(redb::Error::Io)?;
            }
            let database = Database::create(&path)?;
            let contents = read(&database)?;
            Ok::<_, redb::Error>((database, contents))
        };
        // A store that was not closed is mended first, which takes room.
        let opened = open().or_else(|e| if is_full(&e) && reserve.give_up() { open() } else { Err(e) });
        let (database, contents) =
            opened.map_err(|e| Error::new(Kind::Internal, format!("cannot open the store {}: {e}", path.display())))?;
        let (batches, queue) = mpsc::channel();
        let mut writer = Writer { path, database: Some(database), reserve };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&queue))
            .map_err(|e| Error::new(Kind::Internal, format!("cannot start the store's writer: {e}")))?;
        Ok((Store { batches }, contents))
    }

    /// Writes. What it returns is over when a power cut cannot take it away any more; its place in the order of writes
    /// it has from the call on, whether or not anybody waits.
    ///
    /// # Errors
    /// The disk refuses; nothing of `writes` is kept.
    pub fn commit(&self, writes: Vec<Write>) -> impl Future<Output = Result<()>> + Send + use<> {
        let (done, answer) = oneshot::channel();
        // A writer that is gone drops `done`.
        let _ = self.batches.send(Batch { writes, done: Some(done) });
        async {
            let answer = answer.await.map_err(|_| Error::new(Kind::Internal, "the store's writer is gone"))?;
            answer.map_err(|e| Error::new(Kind::Internal, format!("cannot write the state: {e}")))
        }
    }

    /// Writes behind the caller's back, in order: for what the kernel would tell us again.
    pub fn record(&self, writes: Vec<Write>) {
        let _ = self.batches.send(Batch { writes, done: None });
    }
}

/// Makes a file that nobody else reads.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

fn check_schema(path: &Path) -> Result<()> {
    let unusable = |e: std::io::Error| Error::new(Kind::Internal, format!("cannot use {}: {e}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(SCHEMA) => Ok(()),
            Ok(version) => Err(Error::new(
                Kind::Internal,
                format!(
                    "{} says version {version}, this isle knows {SCHEMA}: start the isle that wrote it, or give another --root",
                    path.display()
                ),
            )),
            Err(_) => Err(Error::new(Kind::Internal, format!("{} is not a schema version: {text:?}", path.display()))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let written = private(path).and_then(|mut file| file.write_all(format!("{SCHEMA}\n").as_bytes()));
            written.map_err(unusable)
        }
        Err(e) => Err(unusable(e)),
    }
}

fn read(database: &Database) -> std::result::Result<Contents, redb::Error> {
    // Opening a table in a write transaction creates it.
    let create = database.begin_write()?;
    for table in [NETWORKS, CONTAINERS, VOLUMES, FACTS] {
        create.open_table(table)?;
    }
    create.commit()?;
    let transaction = database.begin_read()?;
    fn all<T: serde::de::DeserializeOwned>(
        transaction: &redb::ReadTransaction,
        table: TableDefinition<'_, &str, &[u8]>,
        unreadable: &mut bool,
    ) -> std::result::Result<Vec<T>, redb::Error> {
        let mut records = Vec::new();
        for row in transaction.open_table(table)?.iter()? {
            let (key, value) = row?;
            match serde_json::from_slice(value.value()) {
                Ok(record) => records.push(record),
                Err(e) => {
                    tracing::error!("record {} of the store cannot be read, and is left out: {e}", key.value());
                    *unreadable = true;
                }
            }
        }
        Ok(records)
    }
    let mut facts = BTreeMap::new();
    for row in transaction.open_table(FACTS)?.iter()? {
        let (key, value) = row?;
        facts.insert(key.value().to_owned(), String::from_utf8_lossy(value.value()).into_owned());
    }
    let mut unreadable = false;
    Ok(Contents {
        networks: all(&transaction, NETWORKS, &mut unreadable)?,
        containers: all(&transaction, CONTAINERS, &mut unreadable)?,
        volumes: all(&transaction, VOLUMES, &mut unreadable)?,
        facts,
        unreadable,
    })
}

/// Room on the disk that nobody else can take.
#[derive(Debug)]
struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Bytes: for the records of some hundred containers, each change of which is written beside the old one.
    const SIZE: usize = 4 << 20;

    /// Whether the room is held, taking it if need be.
    fn take(&self) -> bool {
        if std::fs::metadata(&self.path).is_ok_and(|m| m.len() == Self::SIZE as u64) {
            return true;
        }
        let taken = private(&self.path).and_then(|mut file| {
            file.write_all(&vec![0; Self::SIZE])?;
            file.sync_all()
        });
        if taken.is_err() {
            self.give_up();
        }
        taken.is_ok()
    }

    /// Whether there was any to give up.
    fn give_up(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

/// Why a change is not written.
#[derive(Debug)]
enum Refused {
    Store(redb::Error),
    /// It would add a record, and the last room is for those that there are.
    Full,
}

impl<E: Into<redb::Error>> From<E> for Refused {
    fn from(e: E) -> Self {
        Refused::Store(e.into())
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Store(e) => e.fmt(f),
            Refused::Full => f.write_str("no space left on device"),
        }
    }
}

fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(e) if matches!(e.kind(), StorageFull | QuotaExceeded))
}

/// The one who writes.
struct Writer {
    path: PathBuf,
    /// `None` after an error, until it can be opened again.
    database: Option<Database>,
    reserve: Reserve,
}

impl Writer {
    /// Commits whatever waits, in one transaction, until nobody can send any more.
    fn run(&mut self, queue: &mpsc::Receiver<Batch>) {
        while let Ok(first) = queue.recv() {
            let mut batches = vec![first];
            batches.extend(queue.try_iter());
            let result = self.commit(&batches.iter().flat_map(|b| &b.writes).collect::<Vec<_>>());
            let alone = batches.len() == 1;
            for batch in batches {
                // One that cannot be written is not to stop the others.
                if !alone && result.is_err() {
                    let own = self.commit(&batch.writes.iter().collect::<Vec<_>>());
                    answer(batch, &own);
                } else {
                    answer(batch, &result);
                }
            }
        }
    }

    /// Writes, giving the reserve up if there is no other room.
    fn commit(&mut self, writes: &[&Write]) -> std::result::Result<(), Refused> {
        let has_room = self.reserve.take();
        match self.attempt(writes, has_room) {
            Err(Refused::Store(e)) if is_full(&e) && self.reserve.give_up() => self.attempt(writes, false),
            other => other,
        }
    }

    /// Writes once. After an error the database is opened anew: it refuses everything after one.
    fn attempt(&mut self, writes: &[&Write], may_add: bool) -> std::result::Result<(), Refused> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::create(&self.path)?,
        };
        let result = write(&database, writes, may_add);
        if !matches!(result, Err(Refused::Store(_))) {
            self.database = Some(database);
        }
        result
    }
}

fn answer(batch: Batch, result: &std::result::Result<(), Refused>) {
    if let Err(e) = result {
        tracing::error!("cannot write the state: {e}");
    }
    if let Some(done) = batch.done {
        let _ = done.send(result.as_ref().copied().map_err(ToString::to_string));
    }
}

/// Writes in one transaction; records that are not there yet only if they may be added.
fn write(database: &Database, writes: &[&Write], may_add: bool) -> std::result::Result<(), Refused> {
    let transaction = database.begin_write()?;
    {
        let mut networks = transaction.open_table(NETWORKS)?;
        let mut containers = transaction.open_table(CONTAINERS)?;
        let mut volumes = transaction.open_table(VOLUMES)?;
        let mut facts = transaction.open_table(FACTS)?;
        for write in writes {
            let is_new = match write {
                Write::Network(n) => networks.insert(n.id.to_string().as_str(), json(&**n).as_slice())?.is_none(),
                Write::Container(c) => containers.insert(c.id.to_string().as_str(), json(&**c).as_slice())?.is_none(),
                Write::Volume(v) => volumes.insert(v.name.as_str(), json(v).as_slice())?.is_none(),
                Write::Fact(key, value) => facts.insert(*key, value.as_bytes())?.is_none(),
                Write::NetworkGone(id) => {
                    networks.remove(id.to_string().as_str())?;
                    false
                }
                Write::ContainerGone(id) => {
                    containers.remove(id.to_string().as_str())?;
                    false
                }
                Write::VolumeGone(name) => {
                    volumes.remove(name.as_str())?;
                    false
                }
            };
            if is_new && !may_add {
                return Err(Refused::Full);
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_room_is_for_records_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path().join("d")).unwrap();
        let fact = |text: &str| Write::Fact("word", text.into());
        assert!(matches!(write(&database, &[&fact("a")], false), Err(Refused::Full)));
        write(&database, &[&fact("a")], true).unwrap();
        write(&database, &[&fact("b"), &Write::VolumeGone("v".into())], false).unwrap();
    }

    #[tokio::test]
    async fn a_commit_has_its_place_in_the_order_before_anybody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let first = store.commit(vec![Write::Fact("word", "first".into())]);
        store.record(vec![Write::Fact("word", "second".into())]);
        first.await.unwrap();
        store.commit(Vec::new()).await.unwrap();
        drop(store);
        let reopened = (0..100).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            Store::open(directory.path()).ok()
        });
        assert_eq!(reopened.expect("its writer has ended").1.facts["word"], "second");
    }
}
