//! Images as archives: `load`, `save` and `import`.
//!
//! `save` writes what Docker writes since 25: an OCI image layout that is a docker-archive as well. `load` reads both,
//! in any compression. The names in an archive never become names of files: its entries are spooled under numbers.

use crate::digest::{self, HashingReader};
use crate::error::{Attempt, Error};
use crate::image::{encode, find};
use crate::index::Facts;
use crate::store::{Images, Lease, Scratch, name};
use crate::unpack::{self, damaged};
use jiff::Timestamp;
use model::image::{Configuration, History, ImageId, Platform};
use model::reference::{Reference, is_digest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tar::EntryType;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Configurations, manifests and indexes are small; what claims to be one and is not, is not read into memory.
const MAX_DOCUMENT: u64 = 32 << 20;

/// What `load` found in an archive. Displays in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// An image, by one of its names.
    Named(Reference),
    /// An image without a name.
    Unnamed(ImageId),
}
impl Loaded {
    /// The name, as people write it, or the id.
    pub fn name(&self) -> String {
        match self {
            Loaded::Named(reference) => reference.familiar(),
            Loaded::Unnamed(id) => id.to_string(),
        }
    }
}
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loaded::Named(reference) => write!(f, "Loaded image: {}", reference.familiar()),
            Loaded::Unnamed(id) => write!(f, "Loaded image ID: {id}"),
        }
    }
}

/// What `import` makes an image of, beside the archive.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// What the image is called; `None` leaves it without a name.
    pub name: Option<String>,
    /// The comment of its history.
    pub message: String,
    /// Dockerfile instructions: `CMD`, `ENV` and such.
    pub changes: Vec<String>,
    /// `None` is this machine's.
    pub platform: Option<Platform>,
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What points to a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A manifest or an index: the two differ in what they list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Of an index, the manifest for a platform; without one that fits and without a wish, the only one there is.
    pub(crate) fn choose<'a>(list: &'a [Descriptor], wanted: Option<&Platform>) -> Option<&'a Descriptor> {
        // `unknown/unknown` are attestations
        let real = || list.iter().filter(|d| d.platform.as_ref().is_none_or(|p| p.architecture != "unknown"));
        let fits = |platform: &Platform| {
            real()
                .find(|d| d.platform.as_ref().is_some_and(|p| platform.accepts(p) && p.variant == platform.variant))
                .or_else(|| real().find(|d| d.platform.as_ref().is_some_and(|p| platform.accepts(p))))
        };
        match wanted {
            Some(platform) => fits(platform).or_else(|| real().find(|d| d.platform.is_none())),
            None => fits(&Platform::host()).or_else(|| {
                let mut all = real();
                all.next().filter(|_| all.next().is_none())
            }),
        }
    }
}

/// An archive, spooled to files under numbers.
struct Spool {
    _scratch: Scratch,
    entries: HashMap<String, Spooled>,
}

#[derive(Clone)]
enum Spooled {
    File {
        path: PathBuf,
        digest: String,
        size: u64,
    },
    /// Old archives point from one image's layer to another's.
    Link(String),
}

impl Spool {
    fn file(&self, name: &str) -> Result<(&Path, &str, u64), Error> {
        let mut name = clean(name);
        for _ in 0..8 {
            match self.entries.get(&name) {
                Some(Spooled::File { path, digest, size }) => return Ok((path, digest, *size)),
                Some(Spooled::Link(target)) => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    name = clean(&format!("{parent}/{target}"));
                }
                None => break,
            }
        }
        Err(Error::Archive(format!("{name} is missing")))
    }

    fn document<T: for<'de> Deserialize<'de>>(&self, name: &str, what: &'static str) -> Result<T, Error> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { what, place: name.to_owned(), source })
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (path, _, size) = self.file(name)?;
        if size > MAX_DOCUMENT {
            return Err(Error::Archive(format!("{name} is too large for what it should be")));
        }
        fs::read(path).attempt(|| format!("cannot read {}", path.display()))
    }

    /// A blob of an OCI layout, which is what its digest says.
    fn blob(&self, digest: &str) -> Result<(&Path, u64), Error> {
        if !is_digest(digest) {
            return Err(Error::Archive(format!("{digest:?} is no digest")));
        }
        let name = format!("blobs/{}", digest.replacen(':', "/", 1));
        let (path, found, size) = self.file(&name)?;
        if digest.starts_with("sha256:") && found != digest {
            return Err(Error::Digest { what: name, expected: digest.to_owned(), found: found.to_owned() });
        }
        Ok((path, size))
    }
}

/// A name in an archive, without its ways of saying the same differently.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// An image found in an archive, its layers taken in.
struct Arrived {
    configuration: Vec<u8>,
    names: Vec<Reference>,
    _layers: Vec<Lease>,
}

impl Images {
    /// Takes in the images of an archive, all or none. Of an image for several platforms it takes the wanted one, or
    /// this machine's.
    pub fn load(&self, archive: impl Read + Send, platform: Option<&Platform>) -> Result<Vec<Loaded>, Error> {
        let loaded = self.try_load(archive, platform);
        if loaded.is_err() {
            // the layers that were taken in already
            self.change_and_collect(|_| Ok(()))?;
        }
        loaded
    }

    fn try_load(&self, archive: impl Read + Send, platform: Option<&Platform>) -> Result<Vec<Loaded>, Error> {
        let spool = self.spool(archive)?;
        let arrived = if spool.entries.contains_key("manifest.json") {
            self.read_docker_archive(&spool)?
        } else if spool.entries.contains_key("index.json") {
            self.read_oci_layout(&spool, platform)?
        } else {
            return Err(Error::Archive("neither manifest.json nor index.json is in it".to_owned()));
        };
        let mut new = Vec::new();
        for image in &arrived {
            new.push((self.new_image(&image.configuration, Facts::default())?, &image.names));
        }
        self.change(crate::store::When::Now, |index| {
            let mut loaded = Vec::new();
            for ((image, _lease), names) in new {
                let id = image.insert(index)?;
                for reference in names {
                    name(index, &id, reference)?;
                    loaded.push(Loaded::Named(reference.clone()));
                }
                if names.is_empty() {
                    loaded.push(Loaded::Unnamed(id));
                }
            }
            Ok(loaded)
        })
    }

    fn spool(&self, archive: impl Read + Send) -> Result<Spool, Error> {
        let scratch = self.scratch()?;
        let (_, plain) = digest::decompress(archive).map_err(damaged)?;
        let mut entries = HashMap::new();
        let mut number = 0;
        unpack::entries(plain, |entry| {
            number += 1;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let path = scratch.path().join(number.to_string());
                    let shown = || format!("cannot write {}", path.display());
                    let mut file = File::create(&path).attempt(shown)?;
                    let mut hashing = HashingReader::new(entry);
                    let mut buffer = vec![0; 1 << 17];
                    loop {
                        let n = hashing.read(&mut buffer).map_err(damaged)?;
                        if n == 0 {
                            break;
                        }
                        file.write_all(&buffer[..n]).attempt(shown)?;
                    }
                    let size = hashing.count;
                    entries.insert(name, Spooled::File { path, digest: hashing.hasher.finish(), size });
                }
                EntryType::Symlink | EntryType::Link => {
                    let hard = entry.header().entry_type() == EntryType::Link;
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = String::from_utf8_lossy(&target).into_owned();
                    // a hard link is named from the root, a symlink from where it is
                    let up = "../".repeat(if hard { name.matches('/').count() } else { 0 });
                    entries.insert(name, Spooled::Link(format!("{up}{target}")));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Spool { _scratch: scratch, entries })
    }

    fn read_docker_archive(&self, spool: &Spool) -> Result<Vec<Arrived>, Error> {
        let listed: Vec<ArchivedImage> = spool.document("manifest.json", "list of images")?;
        let mut arrived = Vec::new();
        for image in listed {
            let configuration = spool.bytes(&image.config)?;
            let layers = image.layers.iter().map(|l| spool.file(l).map(|(path, digest, _)| (path, digest.to_owned())));
            let leases = self.take_layers(&configuration, layers.collect::<Result<_, _>>()?)?;
            let names = image.repo_tags.unwrap_or_default();
            // What a digest names is said by who has hashed it.
            if let Some(forged) = names.iter().find(|n| n.parse::<Reference>().is_ok_and(|r| r.digest().is_some())) {
                return Err(Error::Archive(format!("invalid tag \"{forged}\"")));
            }
            let names = names.iter().map(|n| n.parse::<Reference>().map(Reference::or_latest));
            arrived.push(Arrived { configuration, names: names.collect::<Result<_, _>>()?, _layers: leases });
        }
        Ok(arrived)
    }

    fn read_oci_layout(&self, spool: &Spool, platform: Option<&Platform>) -> Result<Vec<Arrived>, Error> {
        let index: Manifest = spool.document("index.json", "index of images")?;
        let mut arrived: Vec<Arrived> = Vec::new();
        for top in index.manifests.unwrap_or_default() {
            let names: Vec<Reference> = names_of(&top);
            let mut descriptor = top.clone();
            let manifest = loop {
                spool.blob(&descriptor.digest)?;
                let name = format!("blobs/{}", descriptor.digest.replacen(':', "/", 1));
                let manifest: Manifest = spool.document(&name, "image manifest")?;
                let Some(list) = &manifest.manifests else { break manifest };
                descriptor = Manifest::choose(list, platform).cloned().ok_or_else(|| {
                    let wanted = platform.cloned().unwrap_or_else(Platform::host);
                    Error::Archive(format!("no image for {wanted} is in it"))
                })?;
            };
            let Some(config) = manifest.config.filter(|c| !c.media_type.contains("in-toto")) else { continue };
            spool.blob(&config.digest)?;
            let configuration = spool.bytes(&format!("blobs/{}", config.digest.replacen(':', "/", 1)))?;
            let layers = manifest.layers.unwrap_or_default();
            let layers = layers.iter().map(|l| spool.blob(&l.digest).map(|(path, _)| (path, l.digest.clone())));
            let leases = self.take_layers(&configuration, layers.collect::<Result<_, _>>()?)?;
            arrived.push(Arrived { configuration, names, _layers: leases });
        }
        Ok(arrived)
    }

    /// Takes in the layers of one configuration, in its order.
    fn take_layers(&self, configuration: &[u8], files: Vec<(&Path, String)>) -> Result<Vec<Lease>, Error> {
        let parsed = crate::index::parse(configuration).map_err(|source| Error::Json {
            what: "image configuration",
            place: digest::of(configuration),
            source,
        })?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != files.len() {
            let message = format!("{} layers are listed and the image has {}", files.len(), diff_ids.len());
            return Err(Error::Archive(message));
        }
        let mut leases = Vec::new();
        for (expected, (file, digest)) in diff_ids.iter().zip(files) {
            if !is_digest(expected) {
                return Err(Error::Archive(format!("{expected:?} is no layer's digest")));
            }
            leases.push(self.add_layer_file(file, &digest, expected, &mut |_| {})?);
        }
        Ok(leases)
    }

    /// Writes images to an archive. A name with a tag means that tag, one without all tags of the repository, an id the
    /// image without a name.
    pub fn save(&self, names: &[String], to: impl Write) -> Result<(), Error> {
        let index = self.index();
        let mut wanted: Vec<(ImageId, BTreeSet<Reference>)> = Vec::new();
        let mut want = |id: &ImageId, reference: Option<Reference>| match wanted.iter_mut().find(|(i, _)| i == id) {
            Some((_, references)) => references.extend(reference),
            None => wanted.push((id.clone(), reference.into_iter().collect())),
        };
        for text in names {
            let bare = text.parse::<Reference>().ok().filter(|r| r.tag().is_none() && r.digest().is_none());
            let tags = index
                .references
                .iter()
                .filter(|(r, _)| r.digest().is_none() && bare.as_ref().is_some_and(|b| b.same_repository(r)));
            let mut found = false;
            for (reference, id) in tags {
                want(id, Some(reference.clone()));
                found = true;
            }
            if !found {
                let (id, _) = find(&index, text)?;
                let named = text.parse::<Reference>().ok().map(Reference::or_latest);
                want(id, named.filter(|r| r.digest().is_none() && index.references.get(r) == Some(id)));
            }
        }
        let _layers: Vec<Lease> = wanted
            .iter()
            .filter_map(|(id, _)| index.images.get(id))
            .flat_map(|r| &r.configuration.rootfs.diff_ids)
            .map(|l| self.lease(l))
            .collect();

        let mut out =
            Saving { tar: tar::Builder::new(BufWriter::with_capacity(1 << 17, to)), written: BTreeSet::new() };
        out.directory("blobs/")?;
        out.directory("blobs/sha256/")?;
        let mut archived = Vec::new();
        let mut manifests = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (id, references) in &wanted {
            let Some(record) = index.images.get(id) else { continue };
            let configuration = self.read_blob(id.as_str())?;
            out.blob(id.as_str(), &configuration)?;
            let mut layers = Vec::new();
            for diff_id in &record.configuration.rootfs.diff_ids {
                let layer = self.layer(diff_id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
                layers.push(Descriptor::new(OCI_LAYER_TAR, diff_id, layer.tar_size));
                if out.is_new(diff_id) {
                    out.layer(diff_id, self.layer_tar(&layer)?, layer.tar_size)?;
                }
            }
            archived.push(ArchivedImage {
                config: blob_name(id.as_str()),
                repo_tags: (!references.is_empty()).then(|| references.iter().map(Reference::familiar).collect()),
                layers: layers.iter().map(|l| blob_name(&l.digest)).collect(),
            });
            let top = record.configuration.rootfs.diff_ids.last().map_or("", |l| digest::hex(l)).to_owned();
            for reference in references {
                let tags = repositories.entry(reference.familiar_name()).or_default();
                tags.insert(reference.tag().unwrap_or_default().to_owned(), top.clone());
            }
            let manifest = json(&Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_owned(),
                config: Some(Descriptor::new(OCI_CONFIG, id.as_str(), configuration.len() as u64)),
                layers: Some(layers),
                manifests: None,
            });
            let manifest_digest = digest::of(&manifest);
            out.blob(&manifest_digest, &manifest)?;
            let descriptor = Descriptor {
                platform: Some(Platform {
                    os: record.configuration.os.clone(),
                    architecture: record.configuration.architecture.clone(),
                    variant: record.configuration.variant.clone(),
                }),
                ..Descriptor::new(OCI_MANIFEST, &manifest_digest, manifest.len() as u64)
            };
            if references.is_empty() {
                manifests.push(descriptor.clone());
            }
            for reference in references {
                let annotations = BTreeMap::from([
                    ("io.containerd.image.name".to_owned(), reference.to_string()),
                    ("org.opencontainers.image.ref.name".to_owned(), reference.tag().unwrap_or_default().to_owned()),
                ]);
                manifests.push(Descriptor { annotations, ..descriptor.clone() });
            }
        }
        let oci = Manifest {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            config: None,
            layers: None,
            manifests: Some(manifests),
        };
        out.file("index.json", &json(&oci))?;
        out.file("manifest.json", &json(&archived))?;
        out.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            out.file("repositories", &json(&repositories))?;
        }
        out.finish()
    }

    /// Makes an image of one layer from a tar of a root file system.
    pub fn import(&self, archive: impl Read + Send, import: Import) -> Result<ImageId, Error> {
        let Import { name: reference, message, changes, platform } = import;
        let reference = reference.map(|n| n.parse::<Reference>().map(Reference::or_latest)).transpose()?;
        if reference.as_ref().is_some_and(|r| r.digest().is_some()) {
            return Err(Error::TagByDigest);
        }
        let mut config = model::image::ImageConfig::default();
        crate::build::apply_changes(&mut config, &changes)?;
        let layer = match self.add_layer_stream(archive) {
            Ok(layer) => layer,
            Err(error) => {
                self.change_and_collect(|_| Ok(()))?;
                return Err(error);
            }
        };
        let Platform { os, architecture, variant } = platform.unwrap_or_else(Platform::host);
        let now = Timestamp::now();
        let comment = if message.is_empty() { "Imported from -".to_owned() } else { message };
        let mut configuration = Configuration { os, architecture, variant, config, ..Configuration::default() };
        configuration.created = Some(now);
        configuration.comment = comment.clone();
        configuration.rootfs.diff_ids.push(layer.digest().to_owned());
        configuration.history.push(History { created: Some(now), comment, ..History::default() });
        let (new, _lease) = self.new_image(&encode(&configuration), Facts::default())?;
        self.change(crate::store::When::Now, |index| {
            let id = new.insert(index)?;
            if let Some(reference) = &reference {
                name(index, &id, reference)?;
            }
            Ok(id)
        })
    }
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: &str, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.to_owned(),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The names that an OCI layout gives an image. A bare tag says nothing of the repository, and is none.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let named = |key: &str| descriptor.annotations.get(key);
    let name = named("io.containerd.image.name")
        .or_else(|| named("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/'])));
    name.and_then(|n| n.parse::<Reference>().ok()).map(|r| r.or_latest()).into_iter().collect()
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    // maps with text keys and plain values: there is nothing that could fail
    serde_json::to_vec(value).unwrap_or_default()
}

/// An archive being written; each blob once.
struct Saving<W: Write> {
    tar: tar::Builder<BufWriter<W>>,
    written: BTreeSet<String>,
}

impl<W: Write> Saving<W> {
    fn is_new(&mut self, digest: &str) -> bool {
        self.written.insert(digest.to_owned())
    }

    fn blob(&mut self, digest: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.is_new(digest) { self.file(&blob_name(digest), bytes) } else { Ok(()) }
    }

    fn layer(&mut self, diff_id: &str, tar: Box<dyn Read + Send>, size: u64) -> Result<(), Error> {
        let name = blob_name(diff_id);
        let mut verifying = HashingReader::new(tar.take(size));
        let header = header(EntryType::Regular, size);
        self.append(header, &name, &mut verifying)?;
        let found = verifying.hasher.finish();
        if diff_id.starts_with("sha256:") && found != diff_id {
            return Err(Error::Digest { what: "a stored layer".to_owned(), expected: diff_id.to_owned(), found });
        }
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.append(header(EntryType::Regular, bytes.len() as u64), name, &mut &bytes[..])
    }

    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let mut header = header(EntryType::Directory, 0);
        header.set_mode(0o755);
        self.append(header, name, &mut io::empty())
    }

    fn append(&mut self, mut header: tar::Header, name: &str, data: &mut dyn Read) -> Result<(), Error> {
        self.tar.append_data(&mut header, name, data).attempt(|| "cannot write the archive".to_owned())
    }

    fn finish(self) -> Result<(), Error> {
        let mut inner = self.tar.into_inner().attempt(|| "cannot write the archive".to_owned())?;
        inner.flush().attempt(|| "cannot write the archive".to_owned())
    }
}

fn header(kind: EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
