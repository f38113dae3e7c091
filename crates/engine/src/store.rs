//! What survives: networks, containers and volumes, each a record under its id.
//!
//! The store is read once, at start ([`Store::open`]). After that one writer thread commits what owners send it, all
//! that waits in one transaction; nobody else touches it. Its schema's version is a file beside it, read before the
//! store is opened: a newer one is refused untouched.

use crate::error::{Error, Kind, Result};
use model::container::Container;
use model::id::{ContainerId, NetworkId};
use model::network::Network;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
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
        let broken =
            |e: redb::Error| Error::new(Kind::Internal, format!("cannot open the store {}: {e}", path.display()));
        let database = Database::create(&path).map_err(|e| broken(e.into()))?;
        let contents = read(&database).map_err(broken)?;
        let (batches, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer(&database, &queue))
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
            std::fs::write(path, format!("{SCHEMA}\n")).map_err(unusable)
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

/// Commits whatever waits, in one transaction, until nobody can send any more.
fn writer(database: &Database, queue: &mpsc::Receiver<Batch>) {
    while let Ok(first) = queue.recv() {
        let mut batches = vec![first];
        batches.extend(queue.try_iter());
        let result = write(database, batches.iter().flat_map(|b| &b.writes)).map_err(|e| e.to_string());
        if let Err(e) = &result {
            tracing::error!("cannot write the state: {e}");
        }
        for batch in batches {
            if let Some(done) = batch.done {
                let _ = done.send(result.clone());
            }
        }
    }
}

fn write<'a>(database: &Database, writes: impl Iterator<Item = &'a Write>) -> std::result::Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut networks = transaction.open_table(NETWORKS)?;
        let mut containers = transaction.open_table(CONTAINERS)?;
        let mut volumes = transaction.open_table(VOLUMES)?;
        let mut facts = transaction.open_table(FACTS)?;
        for write in writes {
            match write {
                Write::Network(n) => drop(networks.insert(n.id.to_string().as_str(), json(&**n).as_slice())?),
                Write::NetworkGone(id) => drop(networks.remove(id.to_string().as_str())?),
                Write::Container(c) => drop(containers.insert(c.id.to_string().as_str(), json(&**c).as_slice())?),
                Write::ContainerGone(id) => drop(containers.remove(id.to_string().as_str())?),
                Write::Volume(v) => drop(volumes.insert(v.name.as_str(), json(v).as_slice())?),
                Write::VolumeGone(name) => drop(volumes.remove(name.as_str())?),
                Write::Fact(key, value) => drop(facts.insert(*key, value.as_bytes())?),
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
