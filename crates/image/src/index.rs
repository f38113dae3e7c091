//! What the store knows, as one value: images, layers and names. It is one JSON file, replaced as a whole by renaming,
//! so that a crash leaves the old one or the new one.
//!
//! The store's directory:
//!
//! ```text
//! index.json               this
//! blobs/sha256/<hex>       configurations, manifests, and layers as they came (or gzipped by us)
//! layers/<hex>/            a layer unpacked for overlayfs, by the digest of its uncompressed tar
//! points/<hex>/            where a container's own files are mounted on, for one stack of layers
//! rootfs/<container>/      upper, work, and which layers a container stands on
//! tmp/                     what is in the making; emptied at every start
//! ```

use crate::digest::{self, Compression};
use crate::error::{Attempt, Error};
use jiff::Timestamp;
use model::image::{Configuration, ImageId};
use model::reference::Reference;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

const VERSION: u32 = 1;

/// All records. Cloning costs the maps' nodes; what they hold is shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) images: BTreeMap<ImageId, Arc<Record>>,
    /// By diff id: the digest of the uncompressed tar.
    pub(crate) layers: BTreeMap<String, Arc<Layer>>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) facts: Facts,
}

/// What the store knows of an image beside its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// What it was built on or committed from, here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tagged: Option<Timestamp>,
    /// The manifest that it was pulled by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<String>,
    /// What the builder finds it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_key: Option<String>,
}

/// A layer that lies unpacked in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// The archive it came as.
    pub(crate) blob: String,
    pub(crate) compression: Compression,
    pub(crate) blob_size: u64,
    /// Of the archive uncompressed.
    pub(crate) tar_size: u64,
    /// Bytes in its regular files.
    pub(crate) size: u64,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    images: BTreeMap<ImageId, Facts>,
    layers: BTreeMap<String, Layer>,
    references: BTreeMap<Reference, ImageId>,
}

impl Index {
    /// Reads the index of the store at `root`; a store without one is new. Images whose pieces are missing are left
    /// out: they can be pulled or built again, and a container of theirs would not start anyway.
    pub(crate) fn read(root: &Path) -> Result<Self, Error> {
        let path = root.join("index.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            other => other.attempt(|| format!("cannot read {}", path.display()))?,
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let wrong = |source| Error::Json { what: "index", place: path.display().to_string(), source };
        let Version { version } = serde_json::from_slice(&bytes).map_err(wrong)?;
        if version > VERSION {
            return Err(Error::NewerStore { path: root.to_owned(), found: version, known: VERSION });
        }
        let read: OnDisk = serde_json::from_slice(&bytes).map_err(wrong)?;
        let mut index = Self::default();
        for (id, layer) in read.layers {
            if root.join("layers").join(digest::hex(&id)).is_dir() {
                index.layers.insert(id, Arc::new(layer));
            } else {
                tracing::warn!(layer = id, "a layer is recorded and not there");
            }
        }
        for (id, facts) in read.images {
            let configuration = fs::read(blob_path(root, id.as_str())).ok().and_then(|b| parse(&b).ok());
            match configuration {
                Some(c) if c.rootfs.diff_ids.iter().all(|l| index.layers.contains_key(l)) => {
                    index.images.insert(id, Arc::new(Record { configuration: Arc::new(c), facts }));
                }
                _ => tracing::warn!(image = %id, "an image is recorded and not whole: it is left out"),
            }
        }
        index.references = read.references;
        let Index { images, references, .. } = &mut index;
        references.retain(|_, id| images.contains_key(id));
        Ok(index)
    }

    /// Replaces the index of the store at `root`; it is on the disk when this returns.
    pub(crate) fn write(&self, root: &Path) -> Result<(), Error> {
        let on_disk = OnDisk {
            version: VERSION,
            images: self.images.iter().map(|(id, r)| (id.clone(), r.facts.clone())).collect(),
            layers: self.layers.iter().map(|(id, l)| (id.clone(), Layer::clone(l))).collect(),
            references: self.references.clone(),
        };
        let path = root.join("index.json");
        let bytes = serde_json::to_vec_pretty(&on_disk).map_err(|source| Error::Json {
            what: "index",
            place: path.display().to_string(),
            source,
        })?;
        replace(&path, &bytes).attempt(|| format!("cannot write {}", path.display()))
    }

    /// The names of an image, tags and digests.
    pub(crate) fn names_of(&self, id: &ImageId) -> Vec<&Reference> {
        self.references.iter().filter(|(_, i)| *i == id).map(|(r, _)| r).collect()
    }

    pub(crate) fn children_of(&self, id: &ImageId) -> impl Iterator<Item = (&ImageId, &Arc<Record>)> {
        self.images.iter().filter(move |(_, r)| r.facts.parent.as_ref() == Some(id))
    }

    /// The blobs that something here speaks of.
    pub(crate) fn blobs(&self) -> BTreeSet<&str> {
        let images = self.images.iter().flat_map(|(id, r)| [Some(id.as_str()), r.facts.manifest.as_deref()]);
        images.flatten().chain(self.layers.values().map(|l| l.blob.as_str())).collect()
    }
}

/// Reads an image configuration.
pub(crate) fn parse(bytes: &[u8]) -> Result<Configuration, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Where a blob lies in the store at `root`.
pub(crate) fn blob_path(root: &Path, digest: &str) -> std::path::PathBuf {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
    root.join("blobs").join(algorithm).join(hex)
}

/// Replaces a file as a whole: written beside it, flushed, renamed, and the rename flushed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
