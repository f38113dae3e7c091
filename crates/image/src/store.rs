//! [`Images`], the store: who may change it when, and what keeps its pieces alive.
//!
//! Readers take the current [`Index`], an immutable value, and look at it as long as they like. Writers queue up,
//! change a copy, write it to the disk and put it in the old one's place.
//!
//! A layer stays while an image has it, a container stands on it, or an operation holds a [`Lease`] on it. Leases are
//! taken before an operation looks whether a layer is there, and nothing is collected that has one, so no layer goes
//! between the look and the record.
//!
//! Layers are big and need not be synced one by one: before the index that names them is written, the whole file
//! system is. A build's steps are kept in memory until the build ends, and so cost no flush each; what a crash leaves
//! of them has no record and is swept at the next start.

use crate::digest::{self, Compression, HashingReader, HashingWriter, Tee};
use crate::error::{Attempt, Error};
use crate::index::{self, Facts, Index, Layer, Record};
use crate::points::Points;
use crate::unpack::{self, Destination, Options};
use jiff::Timestamp;
use kernel::tree::Dir;
use model::image::{Configuration, ImageId};
use model::reference::{Reference, is_digest};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The images of one daemon. Cheap to clone; every clone is the same store.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Swapped as a whole, so that readers never wait for the disk.
    index: RwLock<Arc<Index>>,
    /// Held by whoever changes the index, over the writing of it: changes queue up.
    writer: Mutex<()>,
    /// Why layers and blobs stay that no image names; locked for a moment, but over the swap when something is
    /// collected.
    leases: Mutex<Leases>,
    /// Whether something was put into `layers` or `blobs` that may not be on the disk yet.
    unsynced: AtomicBool,
    counter: AtomicU64,
    /// Directories of mount points that are there.
    points: Mutex<Points>,
}

#[derive(Default)]
struct Leases {
    /// Digests that operations hold.
    operations: HashMap<String, usize>,
    /// The layers that containers stand on.
    containers: HashMap<String, Vec<String>>,
}

/// Keeps a digest's layer or blob in the store while it lives.
pub(crate) struct Lease {
    images: Images,
    digest: String,
}
impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.images.leases();
        if let Some(count) = leases.operations.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                leases.operations.remove(&self.digest);
            }
        }
    }
}

/// Whether a change must be on the disk when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    /// With the next change that must.
    Later,
}

/// A directory of the store's `tmp`, gone with its owner.
pub(crate) struct Scratch {
    path: PathBuf,
}
impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a scratch directory");
        }
    }
}

impl Images {
    /// Opens the store at `root`, making it if need be. What a crash left behind is swept. The caller holds the lock
    /// on the daemon's root: two stores on one directory would not know of each other.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for directory in ["", "blobs/sha256", "blobs/sha512", "layers", "points", "rootfs", "tmp"] {
            // nobody else on the host gets at an image's set-id files and devices
            let path = root.join(directory);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .attempt(|| format!("cannot make {}", path.display()))?;
        }
        let empty = root.join("empty");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&empty)
            .attempt(|| format!("cannot make {empty:?}"))?;
        let index = Index::read(root)?;
        let images = Self {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                index: RwLock::new(Arc::new(index)),
                writer: Mutex::default(),
                leases: Mutex::default(),
                unsynced: AtomicBool::new(false),
                counter: AtomicU64::new(0),
                points: Mutex::default(),
            }),
        };
        let containers = images.read_containers()?;
        *images.known_points() = images.find_points(&images.index(), &containers);
        images.leases().containers = containers;
        images.sweep()?;
        Ok(images)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// What there is now.
    pub(crate) fn index(&self) -> Arc<Index> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        // a panic while it was held left a count too high at worst
        self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known_points(&self) -> MutexGuard<'_, Points> {
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the index: all of it, or none if `change` or the disk refuses.
    pub(crate) fn change<T>(
        &self,
        when: When,
        change: impl FnOnce(&mut Index) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = Index::clone(&self.index());
        let result = change(&mut index)?;
        if when == When::Now {
            self.write(&index)?;
        }
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        Ok(result)
    }

    /// Puts on the disk what was changed with [`When::Later`].
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.change(When::Now, |_| Ok(()))
    }

    fn write(&self, index: &Index) -> Result<(), Error> {
        if self.inner.unsynced.swap(false, Ordering::AcqRel) {
            let synced = kernel::tree::sync_file_system(self.root());
            if synced.is_err() {
                self.inner.unsynced.store(true, Ordering::Release);
            }
            synced.attempt(|| format!("cannot sync {}", self.root().display()))?;
        }
        index.write(self.root())
    }

    /// Changes the index durably, then drops the layers and blobs that nothing speaks of any more. Returns the diff
    /// ids of the layers that went, with their sizes.
    pub(crate) fn change_and_collect<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, Error>,
    ) -> Result<(T, Vec<(String, u64)>), Error> {
        let _writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.index();
        let mut index = Index::clone(&before);
        let result = change(&mut index)?;
        // held until the index is swapped: who takes a lease afterwards sees that the layer is gone
        let leases = self.leases();
        let gone = collect(&mut index, &leases);
        self.write(&index)?;
        let kept = index.blobs();
        let blobs: Vec<String> = before
            .blobs()
            .into_iter()
            .filter(|b| !kept.contains(b) && !leases.operations.contains_key(*b))
            .map(str::to_owned)
            .collect();
        let trash = self.scratch()?;
        for (layer, _) in &gone {
            let from = self.layer_path(layer);
            if let Err(error) = fs::rename(&from, trash.path().join(digest::hex(layer))) {
                tracing::warn!(path = %from.display(), %error, "cannot move a layer away");
            }
        }
        for blob in blobs {
            let _ = fs::remove_file(self.blob_path(&blob)); // swept at the next start if it cannot go now
        }
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        drop(leases);
        self.drop_points(&gone);
        // the record is gone, and a big layer takes a while
        std::thread::spawn(move || drop(trash));
        Ok((result, gone))
    }

    /// Whether an operation holds it.
    pub(crate) fn is_leased(&self, digest: &str) -> bool {
        self.leases().operations.contains_key(digest)
    }

    /// Keeps `digest` while the lease lives, whether or not it is there yet.
    pub(crate) fn lease(&self, digest: &str) -> Lease {
        *self.leases().operations.entry(digest.to_owned()).or_default() += 1;
        Lease { images: self.clone(), digest: digest.to_owned() }
    }

    /// Notes that a container stands on an image's layers, if the image is there.
    pub(crate) fn lease_for_container(&self, container: &str, image: &ImageId) -> Result<Arc<Record>, Error> {
        let mut leases = self.leases();
        let record = self.index().images.get(image).cloned();
        let record = record.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
        leases.containers.insert(container.to_owned(), record.configuration.rootfs.diff_ids.clone());
        Ok(record)
    }

    pub(crate) fn release_container(&self, container: &str) {
        self.leases().containers.remove(container);
    }

    /// The layers of a container, the lowest first.
    pub(crate) fn container_layers(&self, container: &str) -> Option<Vec<String>> {
        self.leases().containers.get(container).cloned()
    }

    fn read_containers(&self) -> Result<HashMap<String, Vec<String>>, Error> {
        let directory = self.root().join("rootfs");
        let mut containers = HashMap::new();
        for entry in fs::read_dir(&directory).attempt(|| format!("cannot list {}", directory.display()))? {
            let entry = entry.attempt(|| format!("cannot list {}", directory.display()))?;
            let layers = fs::read(entry.path().join("layers.json")).ok();
            if let Some(layers) = layers.and_then(|b| serde_json::from_slice(&b).ok()) {
                containers.insert(entry.file_name().to_string_lossy().into_owned(), layers);
            }
        }
        Ok(containers)
    }

    /// Removes what has no record: leftovers of a crash.
    fn sweep(&self) -> Result<(), Error> {
        let mut index = Index::clone(&self.index());
        // layers of a build that never ended are recorded nowhere, those of removed images may still be needed
        let gone = collect(&mut index, &self.leases());
        let trash = self.scratch()?;
        let keep: BTreeSet<&str> = index.layers.keys().map(|l| digest::hex(l)).collect();
        let blobs: BTreeSet<&str> = index.blobs().into_iter().map(digest::hex).collect();
        let points =
            self.known_points().keys().filter_map(|p| p.file_name()).map(|n| n.to_os_string()).collect::<Vec<_>>();
        let points: BTreeSet<&str> = points.iter().filter_map(|n| n.to_str()).collect();
        let own = trash.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let own = BTreeSet::from([own.as_str()]);
        let mut moved = 0;
        for (directory, keep) in
            [("layers", &keep), ("points", &points), ("blobs/sha256", &blobs), ("blobs/sha512", &blobs), ("tmp", &own)]
        {
            let path = self.root().join(directory);
            for entry in fs::read_dir(&path).attempt(|| format!("cannot list {}", path.display()))? {
                let entry = entry.attempt(|| format!("cannot list {}", path.display()))?;
                if !keep.contains(entry.file_name().to_string_lossy().as_ref()) {
                    moved += 1;
                    let to = trash.path().join(format!("{moved}"));
                    fs::rename(entry.path(), to).attempt(|| format!("cannot sweep {}", entry.path().display()))?;
                }
            }
        }
        if moved > 0 || !gone.is_empty() {
            tracing::info!(moved, "swept what a crash or a removal left in the image store");
            // It may be that the disk is full: what is swept now makes room, and the next start finds the same to record.
            if let Err(error) = index.write(self.root()) {
                tracing::warn!(%error, "what was swept from the image store is not recorded");
            }
        }
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        std::thread::spawn(move || drop(trash));
        Ok(())
    }

    /// A fresh directory in `tmp`.
    pub(crate) fn scratch(&self) -> Result<Scratch, Error> {
        loop {
            let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
            let path = self.root().join("tmp").join(format!("{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).attempt(|| format!("cannot make {}", path.display())),
            }
        }
    }

    pub(crate) fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.root().join("layers").join(digest::hex(diff_id))
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        index::blob_path(self.root(), digest)
    }

    pub(crate) fn read_blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest);
        fs::read(&path).attempt(|| format!("cannot read {}", path.display()))
    }

    /// Takes a small blob in; returns its digest. The caller holds a lease on it, or names it in the index at once.
    pub(crate) fn add_blob(&self, bytes: &[u8]) -> Result<String, Error> {
        let digest = digest::of(bytes);
        let scratch = self.scratch()?;
        let path = scratch.path().join("blob");
        fs::write(&path, bytes).attempt(|| format!("cannot write {}", path.display()))?;
        self.place_blob(&path, &digest)?;
        Ok(digest)
    }

    fn place_blob(&self, from: &Path, digest: &str) -> Result<(), Error> {
        self.inner.unsynced.store(true, Ordering::Release);
        let to = self.blob_path(digest);
        fs::rename(from, &to).attempt(|| format!("cannot put {} in place", to.display()))
    }

    /// The record of a layer that is there. Hold a lease on it first.
    pub(crate) fn layer(&self, diff_id: &str) -> Option<Arc<Layer>> {
        // not while something is being collected: see `change_and_collect`
        let _leases = self.leases();
        self.index().layers.get(diff_id).cloned()
    }

    /// Takes a layer in from a file with its digest (a downloaded or archived one), which is kept as it is unless it is
    /// uncompressed. `expected` is the diff id that the image's configuration promises.
    /// `progress` hears how many bytes of the file were read.
    pub(crate) fn add_layer_file(
        &self,
        file: &Path,
        digest: &str,
        expected: &str,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Lease, Error> {
        let lease = self.lease(expected);
        if self.layer(expected).is_some() {
            return Ok(lease);
        }
        let open = || File::open(file).attempt(|| format!("cannot read {}", file.display()));
        let mut start = [0; 6];
        let n = open()?.read(&mut start).attempt(|| format!("cannot read {}", file.display()))?;
        let keep = match Compression::of(&start[..n]) {
            Compression::Gzip | Compression::Zstd => Some((file, digest)),
            _ => None,
        };
        self.add_layer(Counting { inner: open()?, count: 0, progress }, keep, Some(expected))?;
        Ok(lease)
    }

    /// Takes a layer in from a stream in any compression.
    pub(crate) fn add_layer_stream(&self, stream: impl Read + Send) -> Result<Lease, Error> {
        self.add_layer(stream, None, None)
    }

    fn add_layer(
        &self,
        archive: impl Read + Send,
        keep: Option<(&Path, &str)>,
        expected: Option<&str>,
    ) -> Result<Lease, Error> {
        let scratch = self.scratch()?;
        let tree = scratch.path().join("layer");
        fs::create_dir(&tree).attempt(|| format!("cannot make {}", tree.display()))?;
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))
            .attempt(|| format!("cannot set the mode of {}", tree.display()))?;
        let root = Dir::open(&tree).attempt(|| format!("cannot open {}", tree.display()))?;
        let (compression, plain) = digest::decompress(archive).map_err(unpack::damaged)?;
        let mut plain = HashingReader::new(plain);
        let options = Options { whiteouts: true, ..Options::default() };

        let (size, blob, compression, blob_size) = match keep {
            Some((file, digest)) => {
                let size = unpack::unpack(&mut plain, Destination::whole(&root), options)?;
                io::copy(&mut plain, &mut io::sink()).map_err(unpack::damaged)?;
                let blob_size = fs::metadata(file).attempt(|| format!("cannot read {}", file.display()))?.len();
                (size, (file.to_owned(), digest.to_owned()), compression, blob_size)
            }
            None => {
                let path = scratch.path().join("blob");
                let mut gzip = GzipBlob::create(&path)?;
                let size = {
                    let mut tee = Tee { from: &mut plain, to: &mut gzip.encoder };
                    let size = unpack::unpack(&mut tee, Destination::whole(&root), options)?;
                    io::copy(&mut tee, &mut io::sink()).map_err(unpack::damaged)?;
                    size
                };
                let (digest, blob_size) = gzip.finish()?;
                (size, (path, digest), Compression::Gzip, blob_size)
            }
        };
        let tar_size = plain.count;
        let diff_id = plain.hasher.finish();
        if let Some(expected) = expected
            && expected != diff_id
        {
            return Err(Error::Digest { what: "a layer".to_owned(), expected: expected.to_owned(), found: diff_id });
        }
        let layer = Layer { blob: blob.1, compression, blob_size, tar_size, size };
        self.place_layer(diff_id, layer, &tree, &blob.0)
    }

    /// Makes a layer of a directory of changes that nobody uses any more: it is moved, not copied.
    pub(crate) fn add_layer_directory(&self, changes: &Path) -> Result<Lease, Error> {
        let scratch = self.scratch()?;
        let root = Dir::open(changes).attempt(|| format!("cannot open {}", changes.display()))?;
        let path = scratch.path().join("blob");
        let gzip = GzipBlob::create(&path)?;
        let mut tar = HashingWriter::new(gzip);
        let size = crate::pack::pack(&root, &mut tar)?;
        let HashingWriter { inner: gzip, hasher, count: tar_size } = tar;
        let (blob, blob_size) = gzip.finish()?;
        let layer = Layer { blob, compression: Compression::Gzip, blob_size, tar_size, size };
        self.place_layer(hasher.finish(), layer, changes, &path)
    }

    /// Records a finished layer, unless another operation was faster.
    fn place_layer(&self, diff_id: String, layer: Layer, tree: &Path, blob: &Path) -> Result<Lease, Error> {
        let lease = self.lease(&diff_id);
        self.change(When::Later, |index| {
            if index.layers.contains_key(&diff_id) {
                return Ok(());
            }
            let place = self.layer_path(&diff_id);
            if place.exists() {
                fs::remove_dir_all(&place).attempt(|| format!("cannot replace {}", place.display()))?;
            }
            self.place_blob(blob, &layer.blob)?;
            fs::rename(tree, &place).attempt(|| format!("cannot put {} in place", place.display()))?;
            index.layers.insert(diff_id.clone(), Arc::new(layer));
            Ok(())
        })?;
        Ok(lease)
    }

    /// Records an image by its configuration's bytes; its layers are there, and leased.
    pub(crate) fn add_image(&self, configuration: &[u8], facts: Facts, when: When) -> Result<ImageId, Error> {
        let (new, _lease) = self.new_image(configuration, facts)?;
        self.change(when, |index| new.insert(index))
    }

    /// Reads a configuration and puts it among the blobs: what [`NewImage::insert`] then records.
    pub(crate) fn new_image(&self, configuration: &[u8], facts: Facts) -> Result<(NewImage, Lease), Error> {
        let parsed: Configuration = index::parse(configuration).map_err(|source| Error::Json {
            what: "image configuration",
            place: digest::of(configuration),
            source,
        })?;
        if let Some(wrong) = parsed.rootfs.diff_ids.iter().find(|d| !is_digest(d)) {
            return Err(Error::Archive(format!("{wrong:?} is no layer's digest")));
        }
        let lease = self.lease(&digest::of(configuration));
        let id = ImageId::new(self.add_blob(configuration)?);
        Ok((NewImage { id, configuration: Arc::new(parsed), facts }, lease))
    }

    /// Gives an image a name; whichever image had it, has it no longer.
    pub(crate) fn name(&self, id: &ImageId, reference: &Reference, when: When) -> Result<(), Error> {
        self.change(when, |index| name(index, id, reference))
    }

    /// The uncompressed tar of a layer, verified as it is read to its end.
    pub(crate) fn layer_tar(&self, layer: &Layer) -> Result<Box<dyn Read + Send>, Error> {
        let path = self.blob_path(&layer.blob);
        let file = File::open(&path).attempt(|| format!("cannot read {}", path.display()))?;
        let (_, plain) = digest::decompress(BufReader::new(file)).attempt(|| format!("cannot read {}", layer.blob))?;
        Ok(plain)
    }
}

/// Tells how much was read.
struct Counting<'a> {
    inner: File,
    count: u64,
    progress: &'a mut (dyn FnMut(u64) + Send),
}
impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        (self.progress)(self.count);
        Ok(n)
    }
}

/// An image that has a blob and no record yet.
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) facts: Facts,
}

impl NewImage {
    /// Records it, if its layers are there. An image that is already there keeps what is known of it.
    pub(crate) fn insert(self, index: &mut Index) -> Result<ImageId, Error> {
        let Self { id, configuration, facts } = self;
        if let Some(layer) = configuration.rootfs.diff_ids.iter().find(|l| !index.layers.contains_key(*l)) {
            return Err(Error::Archive(format!("layer {layer} is missing")));
        }
        match index.images.get_mut(&id) {
            Some(known) => {
                let known = &mut Arc::make_mut(known).facts;
                known.manifest = facts.manifest.or(known.manifest.take());
                known.parent = known.parent.take().or(facts.parent);
                known.cache_key = facts.cache_key.or(known.cache_key.take());
            }
            None => {
                index.images.insert(id.clone(), Arc::new(Record { configuration, facts }));
            }
        }
        Ok(id)
    }
}

/// Gives an image a name.
pub(crate) fn name(index: &mut Index, id: &ImageId, reference: &Reference) -> Result<(), Error> {
    let record = index.images.get_mut(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
    if reference.digest().is_none() {
        Arc::make_mut(record).facts.tagged = Some(Timestamp::now());
    }
    index.references.insert(reference.clone(), id.clone());
    Ok(())
}

/// Takes out of the index the layers that neither an image nor a lease needs.
fn collect(index: &mut Index, leases: &Leases) -> Vec<(String, u64)> {
    let mut needed: BTreeSet<&str> = leases.operations.keys().map(String::as_str).collect();
    needed.extend(leases.containers.values().flatten().map(String::as_str));
    let used: Vec<Arc<Record>> = index.images.values().cloned().collect();
    needed.extend(used.iter().flat_map(|r| r.configuration.rootfs.diff_ids.iter().map(String::as_str)));
    let gone: Vec<(String, u64)> = index
        .layers
        .iter()
        .filter(|(id, _)| !needed.contains(id.as_str()))
        .map(|(id, l)| (id.clone(), l.size))
        .collect();
    for (id, _) in &gone {
        index.layers.remove(id);
    }
    gone
}

/// A gzipped blob in the making. The fast level: what is built here is mostly read here, and registries take any.
struct GzipBlob {
    encoder: flate2::write::GzEncoder<HashingWriter<BufWriter<File>>>,
    path: PathBuf,
}

impl GzipBlob {
    fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).attempt(|| format!("cannot make {}", path.display()))?;
        let hashing = HashingWriter::new(BufWriter::with_capacity(1 << 16, file));
        let encoder = flate2::write::GzEncoder::new(hashing, flate2::Compression::fast());
        Ok(Self { encoder, path: path.to_owned() })
    }
    /// The digest and the length of the blob.
    fn finish(self) -> Result<(String, u64), Error> {
        let path = self.path;
        let mut hashing = self.encoder.finish().attempt(|| format!("cannot write {}", path.display()))?;
        io::Write::flush(&mut hashing).attempt(|| format!("cannot write {}", path.display()))?;
        Ok((hashing.hasher.finish(), hashing.count))
    }
}
impl io::Write for GzipBlob {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.encoder.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

impl Lease {
    /// What is kept.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }
}
