//! `pull`: a manifest, its configuration and its layers, each checked against its digest.
//!
//! Layers come side by side, and are unpacked as they come: they do not depend on each other. A transfer that breaks
//! off goes on where it was. Until all of them are there, no image is recorded; dropping the future stops at once.

use super::client::{Client, Complaint, body_of};
use super::{Access, RegistryError};
use crate::Kind;
use crate::archive::{Descriptor, Manifest};
use crate::build::blocking;
use crate::digest::{self, Verifier};
use crate::error::{Attempt, Error};
use crate::index::{self, Facts};
use crate::progress::Progress;
use crate::store::{Images, Lease, When, name};
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::image::{ImageId, Platform};
use model::reference::{Reference, is_digest};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, LINK};
use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Transfers at a time, as Docker has it.
const DOWNLOADS: usize = 3;
/// Layers being unpacked at a time.
const UNPACKINGS: usize = 2;
/// How often a transfer that breaks off is taken up again.
const ATTEMPTS: u32 = 5;
const MAX_MANIFEST: u64 = 4 << 20;
/// Of a list of tags.
const MAX_PAGES: u32 = 1000;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How an image is pulled.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// None is this machine's.
    pub platform: Option<Platform>,
    /// How the registry is spoken to.
    pub access: Access,
}

/// Which of a repository's images are pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// The one that the reference names; `latest` where it names none.
    #[default]
    One,
    /// All that the registry lists.
    All,
}

/// What a registry has under a name.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// Of its manifest, or of its index.
    pub media_type: String,
    /// `sha256:…`, of that.
    pub digest: String,
    /// Bytes of that.
    pub size: u64,
    /// What there is it for.
    pub platforms: Vec<Platform>,
}

/// Where the lines of progress go.
pub(super) type Lines = Arc<dyn Fn(Progress) + Send + Sync>;

/// A manifest as it came.
struct Got {
    bytes: Vec<u8>,
    digest: String,
    manifest: Manifest,
}

impl Images {
    /// Fetches an image from a registry; `latest` is meant where neither tag nor digest is said.
    pub async fn pull(&self, reference: &Reference, options: PullOptions, progress: Lines) -> Result<ImageId, Error> {
        let reference = reference.clone().favouring_digest().or_latest();
        let result = self.pull_from_any(&reference, &options, &progress).await;
        if result.is_err() {
            // layers that came before the one that did not
            let images = self.clone();
            blocking(move || images.change_and_collect(|_| Ok(()))).await?;
        }
        result
    }

    /// Fetches all images of a repository, one after the other; the reference's tag means nothing.
    pub async fn pull_all(&self, reference: &Reference, options: PullOptions, progress: Lines) -> Result<(), Error> {
        let tags = tags(reference, &options.access).await?;
        for tag in tags {
            self.pull(&reference.with_tag(&tag)?, options.clone(), progress.clone()).await?;
        }
        Ok(())
    }

    /// From the mirrors in turn, then from the registry. What is wrong with a mirror is logged, as in Docker.
    async fn pull_from_any(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &Lines,
    ) -> Result<ImageId, Error> {
        let mut missing = None;
        for mirror in &options.access.mirrors {
            let pulled = async {
                let puller = Puller::connect_mirror(mirror, reference).await?;
                self.pull_from(&puller, reference, options, progress).await
            };
            match pulled.await {
                Ok(id) => return Ok(id),
                Err(error) => {
                    tracing::warn!(mirror, "no {} from there: {}", reference.familiar(), error.chain());
                    missing = Some(error).filter(|e| e.kind() == Kind::NotFound).or(missing);
                }
            }
        }
        let pulled = async {
            let puller = Puller::connect(reference, &options.access).await?;
            self.pull_from(&puller, reference, options, progress).await
        };
        // A mirror does not know whether there is such a repository: it is said as Docker says it of who may not know.
        let missing = missing.map(|error| match error {
            Error::Registry(why @ (RegistryError::NoManifest { .. } | RegistryError::NoRepository { .. })) => {
                RegistryError::Denied { name: reference.familiar_name(), why: why.to_string() }.into()
            }
            error => error,
        });
        pulled.await.map_err(|error| better(error, missing))
    }

    async fn pull_from(
        &self,
        puller: &Puller,
        reference: &Reference,
        options: &PullOptions,
        progress: &Lines,
    ) -> Result<ImageId, Error> {
        let tag = reference.tag().or(reference.digest()).unwrap_or_default();
        let top = puller.manifest(tag).await?;
        // Not before: as long as nothing was said, a failure is the answer's status.
        progress(Progress { id: Some(tag.to_owned()), ..Progress::line(format!("Pulling from {}", reference.path())) });
        let wanted = options.platform.clone().unwrap_or_else(Platform::host);
        let mut got = puller.manifest_for(&top, &wanted).await?;
        let config = match got.manifest.config.take() {
            Some(config) if !config.media_type.contains("artifact") && is_digest(&config.digest) => config,
            _ => {
                let media_type = got.manifest.media_type;
                return Err(RegistryError::Unsupported { reference: reference.familiar(), media_type }.into());
            }
        };

        let known = self.index().images.contains_key(&ImageId::new(config.digest.clone()));
        let _image = self.lease(&config.digest);
        let manifest = self.lease(&digest::of(&got.bytes));
        let (configuration, leases) = if known {
            (self.read_blob(&config.digest)?, Vec::new())
        } else {
            let configuration = puller.blob(&config).await?;
            let parsed = index::parse(&configuration).map_err(|source| Error::Json {
                what: "image configuration",
                place: reference.familiar(),
                source,
            })?;
            let actual = Platform { os: parsed.os, architecture: parsed.architecture, variant: parsed.variant };
            if options.platform.is_some() && !wanted.accepts(&actual) {
                let (wanted, actual) = (wanted.to_string(), actual.to_string());
                return Err(RegistryError::OtherPlatform { reference: reference.familiar(), wanted, actual }.into());
            }
            let layers = got.manifest.layers.take().unwrap_or_default();
            let leases = self.pull_layers(puller, layers, parsed.rootfs.diff_ids, progress).await?;
            (configuration, leases)
        };

        let images = self.clone();
        let (reference_, top_digest) = (reference.clone(), top.digest.clone());
        let (id, is_new) = blocking(move || {
            let manifest_digest = images.add_blob(&got.bytes)?;
            let facts = Facts { manifest: Some(manifest_digest), ..Facts::default() };
            let (new, _lease) = images.new_image(&configuration, facts)?;
            let by_digest = reference_.with_digest(&top_digest)?;
            let recorded = images.change(When::Now, |index| {
                let id = new.insert(index)?;
                // A tag that stays is no news, even if its digest was not known yet.
                let asked = if reference_.digest().is_none() { &reference_ } else { &by_digest };
                let is_new = index.references.get(asked) != Some(&id);
                name(index, &id, &by_digest)?;
                name(index, &id, asked)?;
                Ok((id, is_new))
            });
            drop((leases, manifest));
            recorded
        })
        .await?;
        progress(Progress::line(format!("Digest: {}", top.digest)));
        progress(Progress::line(match is_new {
            true => format!("Status: Downloaded newer image for {}", reference.familiar()),
            false => format!("Status: Image is up to date for {}", reference.familiar()),
        }));
        Ok(id)
    }

    async fn pull_layers(
        &self,
        puller: &Puller,
        layers: Vec<Descriptor>,
        diff_ids: Vec<String>,
        progress: &Lines,
    ) -> Result<Vec<Lease>, Error> {
        if layers.len() != diff_ids.len() {
            let message = format!("{} layers are listed and the image has {}", layers.len(), diff_ids.len());
            return Err(Error::Archive(message));
        }
        let mut leases = Vec::new();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (descriptor, diff_id) in layers.into_iter().zip(diff_ids) {
            if let Some(wrong) = [&descriptor.digest, &diff_id].into_iter().find(|d| !is_digest(d)) {
                return Err(Error::Archive(format!("{wrong:?} is no layer's digest")));
            }
            leases.push(self.lease(&diff_id));
            let id = short(&descriptor.digest).to_owned();
            if self.layer(&diff_id).is_some() || !seen.insert(diff_id.clone()) {
                progress(Progress::of(&id, "Already exists"));
            } else {
                progress(Progress::of(&id, "Pulling fs layer"));
                missing.push((descriptor, diff_id, id));
            }
        }
        let (downloads, unpackings) = (Semaphore::new(DOWNLOADS), Semaphore::new(UNPACKINGS));
        for (_, _, id) in missing.iter().skip(DOWNLOADS) {
            progress(Progress::of(id, "Waiting"));
        }
        let scratch = Arc::new(self.scratch()?);
        let mut coming: FuturesUnordered<_> = missing
            .into_iter()
            .enumerate()
            .map(|(number, (descriptor, diff_id, id))| {
                let path = scratch.path().join(number.to_string());
                let (downloads, unpackings, scratch) = (&downloads, &unpackings, scratch.clone());
                async move {
                    let turn = downloads.acquire().await;
                    puller.download(&descriptor, &path, &id, progress).await?;
                    drop(turn);
                    let _turn = unpackings.acquire().await;
                    let (images, progress) = (self.clone(), progress.clone());
                    blocking(move || {
                        let _scratch = scratch; // stays until we are through, whoever hung up
                        let mut pace = Pace::new();
                        let lease = images.add_layer_file(&path, &descriptor.digest, &diff_id, &mut |done| {
                            if pace.is_due() {
                                progress(Progress::at(&id, "Extracting", done, descriptor.size));
                            }
                        })?;
                        progress(Progress::at(&id, "Extracting", descriptor.size, descriptor.size));
                        progress(Progress::of(&id, "Pull complete"));
                        let _ = std::fs::remove_file(&path); // where it was not kept
                        Ok(lease)
                    })
                    .await
                }
            })
            .collect();
        while let Some(lease) = coming.next().await {
            leases.push(lease?);
        }
        Ok(leases)
    }

    /// What a registry has under a name, without fetching it.
    pub async fn inspect_remote(&self, reference: &Reference, access: Access) -> Result<RemoteImage, Error> {
        let reference = reference.clone().favouring_digest().or_latest();
        let tag = reference.tag().or(reference.digest()).unwrap_or_default();
        let mut missing = None;
        for mirror in &access.mirrors {
            let asked = async {
                let puller = Puller::connect_mirror(mirror, &reference).await?;
                let top = puller.manifest(tag).await?;
                describe_remote(&puller, top, &reference).await
            };
            match asked.await {
                Ok(found) => return Ok(found),
                Err(error) => missing = Some(error).filter(|e| e.kind() == Kind::NotFound).or(missing),
            }
        }
        let asked = async {
            let puller = Puller::connect(&reference, &access).await?;
            let top = puller.manifest(tag).await?;
            describe_remote(&puller, top, &reference).await
        };
        asked.await.map_err(|error| better(error, missing))
    }

    /// Whether a registry takes these credentials: `login`.
    pub async fn check_credentials(&self, registry: &str, access: Access) -> Result<(), Error> {
        let client = Client::connect(registry, String::new(), &access).await?;
        let answer = client.get("", "*/*").await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => {
                let body = body_of(answer).await.unwrap_or_default();
                Err(client.complaint("login", status, &body).into())
            }
        }
    }
}

/// All tags of a repository: of the first mirror that has it, or of the registry.
async fn tags(reference: &Reference, access: &Access) -> Result<Vec<String>, Error> {
    for mirror in &access.mirrors {
        let asked = async { Puller::connect_mirror(mirror, reference).await?.tags().await };
        match asked.await {
            Ok(tags) => return Ok(tags),
            Err(error) => tracing::warn!(mirror, "no {} from there: {}", reference.familiar_name(), error.chain()),
        }
    }
    Puller::connect(reference, access).await?.tags().await
}

/// Of a registry that cannot be reached, and mirrors of which one has said that nothing is there, the mirror tells more:
/// clients then know that a name is wrong.
fn better(error: Error, missing: Option<Error>) -> Error {
    match missing {
        Some(missing) if matches!(error, Error::Registry(RegistryError::Unreachable { .. })) => missing,
        _ => error,
    }
}

async fn describe_remote(puller: &Puller, top: Got, reference: &Reference) -> Result<RemoteImage, Error> {
    let platforms = match (&top.manifest.manifests, &top.manifest.config) {
        (Some(list), _) => list.iter().filter_map(|d| d.platform.clone()).collect(),
        (None, Some(config)) => {
            let bytes = puller.blob(config).await?;
            let read: Platform = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
                what: "image configuration",
                place: reference.familiar(),
                source,
            })?;
            vec![read]
        }
        _ => Vec::new(),
    };
    let (media_type, size) = (top.manifest.media_type, top.bytes.len() as u64);
    Ok(RemoteImage { media_type, digest: top.digest, size, platforms })
}

/// Below `/v2/`: what `Link: </v2/me/app/tags/list?last=x>; rel="next"` names (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let path = &target[target.find("/v2/")? + "/v2/".len()..];
    parameters.contains("next").then(|| path.to_owned())
}

/// The first twelve digits, as layers are called in progress lines.
pub(super) fn short(digest: &str) -> &str {
    &digest::hex(digest)[..12]
}

/// Lines of progress come ten times a second.
pub(super) struct Pace {
    last: Option<Instant>,
}
impl Pace {
    pub(super) fn new() -> Self {
        Self { last: None }
    }
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_millis(100));
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// One repository, to be read.
struct Puller {
    client: Client,
    reference: Reference,
}

impl Puller {
    async fn connect(reference: &Reference, access: &Access) -> Result<Self, Error> {
        let scope = format!("repository:{}:pull", reference.path());
        let connected = Client::connect(reference.registry(), scope, access).await;
        let client = connected.map_err(|error| denied(reference, error))?;
        Ok(Self { client, reference: reference.clone() })
    }

    async fn connect_mirror(mirror: &str, reference: &Reference) -> Result<Self, Error> {
        let scope = format!("repository:{}:pull", reference.path());
        let client = Client::connect_mirror(mirror, reference.registry(), scope).await?;
        Ok(Self { client, reference: reference.clone() })
    }

    /// The repository's tags, in the registry's order (a registry that pages them says where the next page is).
    async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(serde::Deserialize)]
        struct Listed {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut path = format!("{}/tags/list", self.reference.path());
        for _ in 0..MAX_PAGES {
            let answer = self.get(&path, "application/json").await?;
            let status = answer.status();
            let next = answer.headers().get(LINK).and_then(|h| h.to_str().ok()).and_then(next_page);
            let bytes = body_of(answer).await.map_err(|e| self.client.unreachable(&e))?;
            if !status.is_success() {
                return Err(self.refused(&path, status, &bytes).into());
            }
            let listed: Listed = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
                what: "list of tags",
                place: self.reference.familiar_name(),
                source,
            })?;
            tags.extend(listed.tags.into_iter().flatten());
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        Ok(tags)
    }

    async fn get(&self, path: &str, accept: &str) -> Result<reqwest::Response, Error> {
        Ok(self.client.get(path, accept).await.map_err(|error| denied(&self.reference, error))?)
    }

    /// A manifest by tag or digest.
    async fn manifest(&self, tag: &str) -> Result<Got, Error> {
        let path = format!("{}/manifests/{tag}", self.reference.path());
        let mut answer = self.get(&path, MANIFEST_TYPES).await?;
        let status = answer.status();
        let sent_type = answer.headers().get(CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.client.unreachable(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_MANIFEST {
                return Err(Error::Archive(format!("the manifest of {} is too large", self.reference.familiar())));
            }
        }
        if !status.is_success() {
            return Err(self.refused(&path, status, &bytes).into());
        }
        let digest = match is_digest(tag) {
            true => {
                let mut verifier = Verifier::for_digest(tag);
                verifier.update(&bytes);
                let found = verifier.finish();
                if found != tag {
                    let what = format!("the manifest of {}", self.reference.familiar());
                    return Err(Error::Digest { what, expected: tag.to_owned(), found });
                }
                found
            }
            false => digest::of(&bytes),
        };
        let mut manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            what: "image manifest",
            place: self.reference.familiar(),
            source,
        })?;
        if manifest.media_type.is_empty() {
            manifest.media_type = sent_type;
        }
        let usable = manifest.schema_version == 2 && (manifest.manifests.is_some() || manifest.config.is_some());
        if !usable {
            let (reference, media_type) = (self.reference.familiar(), manifest.media_type);
            return Err(RegistryError::Unsupported { reference, media_type }.into());
        }
        Ok(Got { bytes, digest, manifest })
    }

    /// The manifest for a platform: the same, or one that an index lists.
    async fn manifest_for(&self, top: &Got, platform: &Platform) -> Result<Got, Error> {
        let mut got = Got { bytes: top.bytes.clone(), digest: top.digest.clone(), manifest: top.manifest.clone() };
        // an index may list indexes, and nobody nests them deep
        for _ in 0..4 {
            let Some(list) = &got.manifest.manifests else { return Ok(got) };
            let chosen = Manifest::choose(list, Some(platform))
                .ok_or_else(|| RegistryError::NoPlatform { platform: platform.clone() })?;
            if !is_digest(&chosen.digest) {
                return Err(Error::Archive(format!("{:?} is no digest", chosen.digest)));
            }
            got = self.manifest(&chosen.digest).await?;
        }
        Err(RegistryError::NoPlatform { platform: platform.clone() }.into())
    }

    /// A small blob, checked.
    async fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let path = format!("{}/blobs/{}", self.reference.path(), descriptor.digest);
        let mut answer = self.get(&path, "*/*").await?;
        let status = answer.status();
        let mut bytes = Vec::new();
        let mut verifier = Verifier::for_digest(&descriptor.digest);
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.client.unreachable(&e))? {
            verifier.update(&chunk);
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > 2 * MAX_MANIFEST {
                return Err(Error::Archive(format!("the configuration of {} is too large", self.reference.familiar())));
            }
        }
        if !status.is_success() {
            return Err(self.refused(&path, status, &bytes).into());
        }
        let found = verifier.finish();
        if found != descriptor.digest {
            let what = format!("the configuration of {}", self.reference.familiar());
            return Err(Error::Digest { what, expected: descriptor.digest.clone(), found });
        }
        Ok(bytes)
    }

    /// A layer into a file, taken up again where it broke off.
    async fn download(&self, layer: &Descriptor, path: &Path, id: &str, progress: &Lines) -> Result<(), Error> {
        let mut download = Download::begin(path, &layer.digest)?;
        let mut pace = Pace::new();
        let mut attempt = 1;
        loop {
            let before = download.done;
            let broke_off = match self.continue_download(&mut download, layer, id, progress, &mut pace).await {
                Ok(()) => break,
                Err(Error::Registry(RegistryError::Unreachable { registry, why })) => {
                    RegistryError::Unreachable { registry, why }
                }
                Err(error) => return Err(error),
            };
            // one that gets on is not counted
            attempt = if download.done > before { 2 } else { attempt + 1 };
            if attempt > ATTEMPTS {
                return Err(broke_off.into());
            }
            for seconds in (1..attempt).rev() {
                progress(Progress::of(
                    id,
                    &format!("Retrying in {seconds} second{}", if seconds == 1 { "" } else { "s" }),
                ));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        progress(Progress::of(id, "Verifying Checksum"));
        let found = blocking(move || download.finish()).await?;
        if found != layer.digest {
            let what = format!("layer {id} of {}", self.reference.familiar());
            return Err(Error::Digest { what, expected: layer.digest.clone(), found });
        }
        progress(Progress::of(id, "Download complete"));
        Ok(())
    }

    async fn continue_download(
        &self,
        download: &mut Download,
        layer: &Descriptor,
        id: &str,
        progress: &Lines,
        pace: &mut Pace,
    ) -> Result<(), Error> {
        let path = format!("{}/blobs/{}", self.reference.path(), layer.digest);
        let from = (download.done > 0).then_some(download.done);
        let asked = self.client.get_layer(&path, from).await;
        let mut answer = asked.map_err(|error| denied(&self.reference, error))?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if from.is_some() => {}
            // it was all there, and only the end of the connection was missed
            StatusCode::RANGE_NOT_SATISFIABLE if from == Some(layer.size) => return Ok(()),
            status if status.is_success() => download.restart()?,
            status => {
                let body = body_of(answer).await.unwrap_or_default();
                return Err(self.refused(&path, status, &body).into());
            }
        }
        let total = match layer.size {
            0 => answer.content_length().unwrap_or(0) + download.done,
            size => size,
        };
        let mut pending = Vec::with_capacity(1 << 18);
        loop {
            let chunk = answer.chunk().await;
            if let Ok(Some(chunk)) = &chunk {
                pending.extend_from_slice(chunk);
            }
            let over = !matches!(&chunk, Ok(Some(_)));
            if pending.len() >= 1 << 18 || (over && !pending.is_empty()) {
                download.write(std::mem::take(&mut pending)).await?;
                if layer.size > 0 && download.done > layer.size {
                    let message = format!("layer {id} is longer than its manifest says");
                    return Err(Error::Archive(message));
                }
                if pace.is_due() {
                    progress(Progress::at(id, "Downloading", download.done, total));
                }
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) if layer.size > 0 && download.done < layer.size => {
                    let (registry, why) = (self.reference.registry().to_owned(), "the transfer broke off".to_owned());
                    return Err(RegistryError::Unreachable { registry, why }.into());
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.client.unreachable(&error).into()),
            }
        }
    }

    /// What an answer that is no success means.
    fn refused(&self, path: &str, status: StatusCode, body: &[u8]) -> RegistryError {
        let complaint = Complaint::read(body);
        let code = complaint.as_ref().map_or("", |c| c.code.as_str());
        let why = complaint.as_ref().map_or_else(|| status.to_string(), Complaint::to_string);
        let (name, reference) = (self.reference.familiar_name(), self.reference.familiar());
        match (code, status) {
            ("DENIED" | "UNAUTHORIZED", _) | (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                RegistryError::Denied { name, why }
            }
            ("NAME_UNKNOWN", _) => RegistryError::NoRepository { name, why },
            ("MANIFEST_UNKNOWN", _) => RegistryError::NoManifest { reference, why },
            (_, StatusCode::NOT_FOUND) if path.contains("/manifests/") => RegistryError::NoManifest { reference, why },
            _ => self.client.complaint(path, status, body),
        }
    }
}

/// Whoever has no right to a repository is not told whether it exists.
pub(super) fn denied(reference: &Reference, error: RegistryError) -> RegistryError {
    match error {
        RegistryError::WrongCredentials(why) => {
            RegistryError::Denied { name: reference.familiar_name(), why: format!("unauthorized: {why}") }
        }
        other => other,
    }
}

/// A file that fills, with the digest of what is in it.
struct Download {
    /// Away while a thread writes.
    inner: Option<(File, Verifier)>,
    path: PathBuf,
    digest: String,
    done: u64,
}

impl Download {
    fn begin(path: &Path, digest: &str) -> Result<Self, Error> {
        let file = File::create(path).attempt(|| format!("cannot make {}", path.display()))?;
        let inner = Some((file, Verifier::for_digest(digest)));
        Ok(Self { inner, path: path.to_owned(), digest: digest.to_owned(), done: 0 })
    }

    fn lost(&self) -> Error {
        Error::Io { attempt: format!("cannot write {}", self.path.display()), source: std::io::ErrorKind::Other.into() }
    }

    fn restart(&mut self) -> Result<(), Error> {
        let (mut file, _) = self.inner.take().ok_or_else(|| self.lost())?;
        file.set_len(0).and_then(|()| file.rewind()).attempt(|| format!("cannot empty {}", self.path.display()))?;
        self.inner = Some((file, Verifier::for_digest(&self.digest)));
        self.done = 0;
        Ok(())
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        let (mut file, mut verifier) = self.inner.take().ok_or_else(|| self.lost())?;
        let path = self.path.clone();
        let length = bytes.len() as u64;
        let inner = blocking(move || {
            verifier.update(&bytes);
            file.write_all(&bytes).attempt(|| format!("cannot write {}", path.display()))?;
            Ok((file, verifier))
        })
        .await?;
        self.inner = Some(inner);
        self.done += length;
        Ok(())
    }

    fn finish(mut self) -> Result<String, Error> {
        let (_, verifier) = self.inner.take().ok_or_else(|| self.lost())?;
        Ok(verifier.finish())
    }
}
