//! `push`: layers as they lie in the store, the configuration, and a manifest over them.
//!
//! What was pulled goes out as it came: the same blobs, and the same manifest where all of it is still here.

use super::client::{Beat, Client, Complaint, body_of};
use super::pull::{Lines, Pace, short};
use super::{Access, RegistryError};
use crate::archive::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, json};
use crate::build::blocking;
use crate::digest::{self, Compression};
use crate::error::{Attempt, Error};
use crate::index::Record;
use crate::progress::Progress;
use crate::store::{Images, Lease, When, name};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::image::ImageId;
use model::reference::Reference;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, StatusCode};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncReadExt;

/// Transfers at a time, as Docker has it.
const UPLOADS: usize = 5;

/// What a push left in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// What it is called there.
    pub tag: String,
    /// `sha256:…`, of its manifest.
    pub digest: String,
    /// Bytes of its manifest.
    pub size: u64,
}

impl Images {
    /// Sends an image to the registry in its name; `latest` is meant where no tag is said.
    pub async fn push(&self, reference: &Reference, access: Access, progress: Lines) -> Result<PushedImage, Error> {
        let reference = reference.clone().or_latest();
        let tag = reference.tag().filter(|_| reference.digest().is_none()).map(str::to_owned);
        let index = self.index();
        let found = index.references.get(&reference).and_then(|id| index.images.get_key_value(id));
        let (Some((id, record)), Some(tag)) = (found, tag) else {
            return Err(RegistryError::NotHere { reference: reference.familiar() }.into());
        };
        let _leases: Vec<Lease> = record.configuration.rootfs.diff_ids.iter().map(|l| self.lease(l)).collect();
        progress(Progress::line(format!("The push refers to repository [{}]", reference.name())));
        let (manifest, layers) = self.manifest_to_push(id, record)?;
        for layer in &layers {
            progress(Progress::of(short(&layer.digest), "Preparing"));
        }
        let scope = format!("repository:{}:pull,push", reference.path());
        let connected = Client::connect(reference.registry(), scope, &access).await;
        let client = connected.map_err(denied)?;
        let pusher = Pusher { client, reference: reference.clone(), progress };

        let config = Descriptor::new(OCI_CONFIG, id.as_str(), self.read_blob(id.as_str())?.len() as u64);
        let mut sending = Vec::new();
        for layer in layers {
            sending.push(pusher.blob(self.blob_path(&layer.digest), layer, true));
        }
        sending.push(pusher.blob(self.blob_path(&config.digest), config, false));
        stream::iter(sending).buffer_unordered(UPLOADS).try_collect::<Vec<()>>().await?;
        let digest = digest::of(&manifest);
        let size = manifest.len() as u64;
        pusher.manifest(&tag, manifest).await?;

        let (images, id, by_digest) = (self.clone(), id.clone(), reference.with_digest(&digest)?);
        blocking(move || images.change(When::Now, |index| name(index, &id, &by_digest))).await?;
        (pusher.progress)(Progress::line(format!("{tag}: digest: {digest} size: {size}")));
        Ok(PushedImage { tag, digest, size })
    }

    /// The manifest, and the layers that it lists.
    fn manifest_to_push(&self, id: &ImageId, record: &Record) -> Result<(Vec<u8>, Vec<Descriptor>), Error> {
        let mut layers = Vec::new();
        for diff_id in &record.configuration.rootfs.diff_ids {
            let layer = self.layer(diff_id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
            let suffix = match layer.compression {
                Compression::Zstd => "+zstd",
                _ => "+gzip",
            };
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            layers.push(Descriptor::new(&media_type, &layer.blob, layer.blob_size));
        }
        if let Some(pulled) = record.facts.manifest.as_ref().and_then(|m| self.read_blob(m).ok()) {
            let listed = serde_json::from_slice::<Manifest>(&pulled).ok().and_then(|m| m.layers).unwrap_or_default();
            let same = listed.len() == layers.len() && listed.iter().zip(&layers).all(|(a, b)| a.digest == b.digest);
            if same {
                return Ok((pulled, listed));
            }
        }
        let configuration = self.read_blob(id.as_str())?;
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Some(Descriptor::new(OCI_CONFIG, id.as_str(), configuration.len() as u64)),
            layers: Some(layers.clone()),
            manifests: None,
        });
        Ok((manifest, layers))
    }
}

/// Whoever has no right to a repository is not told whether it exists.
fn denied(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::WrongCredentials(why) => RegistryError::PushDenied(format!("unauthorized: {why}")),
        other => other,
    }
}

struct Pusher {
    client: Client,
    reference: Reference,
    progress: Lines,
}

impl Pusher {
    fn say(&self, is_layer: bool, line: impl FnOnce() -> Progress) {
        if is_layer {
            (self.progress)(line());
        }
    }

    /// Sends a blob unless the registry has it.
    async fn blob(&self, path: PathBuf, blob: Descriptor, is_layer: bool) -> Result<(), Error> {
        let id = short(&blob.digest).to_owned();
        let place = format!("{}/blobs/{}", self.reference.path(), blob.digest);
        let there = self.send(|client, base| client.head(format!("{base}/v2/{place}"))).await?;
        if there.status().is_success() {
            self.say(is_layer, || Progress::of(&id, "Layer already exists"));
            return Ok(());
        }
        let uploads = format!("{}/blobs/uploads/", self.reference.path());
        let begun =
            self.send(|client, base| client.post(format!("{base}/v2/{uploads}")).header(CONTENT_LENGTH, 0)).await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.refused(&uploads, begun).await);
        }
        let location = begun.headers().get(LOCATION).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let malformed = |why: String| RegistryError::Malformed { url: uploads.clone(), why };
        // relative to where it was asked
        let mut to = begun.url().join(&location).map_err(|e| malformed(e.to_string()))?;
        to.query_pairs_mut().append_pair("digest", &blob.digest);
        // opened once here, so that a missing blob is told as such
        File::open(&path).attempt(|| format!("cannot read {}", path.display()))?;
        let sent = self
            .client
            .upload(|client, beat| {
                let body = self.body(path.clone(), blob.size, id.clone(), is_layer, beat.clone());
                client
                    .put(to.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, blob.size)
                    .body(body)
            })
            .await
            .map_err(denied)?;
        if !sent.status().is_success() {
            return Err(self.refused(to.path(), sent).await);
        }
        self.say(is_layer, || Progress::of(&id, "Pushed"));
        Ok(())
    }

    /// A file, read as it is sent.
    fn body(&self, path: PathBuf, size: u64, id: String, is_layer: bool, beat: Beat) -> Body {
        let pace = Arc::new(Mutex::new(Pace::new()));
        let progress = self.progress.clone();
        let chunks = stream::try_unfold((None, 0u64), move |(file, done)| {
            let (path, id, pace, progress) = (path.clone(), id.clone(), pace.clone(), progress.clone());
            beat.touch();
            async move {
                let mut file = match file {
                    Some(file) => file,
                    None => tokio::fs::File::open(&path).await?,
                };
                let mut buffer = vec![0; 1 << 16];
                let n = file.read(&mut buffer).await?;
                if n == 0 {
                    return Ok::<_, std::io::Error>(None);
                }
                buffer.truncate(n);
                let done = done + n as u64;
                if is_layer && pace.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
                    progress(Progress::at(&id, "Pushing", done, size));
                }
                Ok(Some((buffer, (Some(file), done))))
            }
        });
        Body::wrap_stream(chunks)
    }

    async fn manifest(&self, tag: &str, manifest: Vec<u8>) -> Result<(), Error> {
        let media_type = serde_json::from_slice::<Manifest>(&manifest).map(|m| m.media_type).unwrap_or_default();
        let media_type = if media_type.is_empty() { OCI_MANIFEST.to_owned() } else { media_type };
        let path = format!("{}/manifests/{tag}", self.reference.path());
        let answer = self
            .send(|client, base| {
                client.put(format!("{base}/v2/{path}")).header(CONTENT_TYPE, &media_type).body(manifest.clone())
            })
            .await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(&path, answer).await),
        }
    }

    async fn send(
        &self,
        make: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Error> {
        Ok(self.client.send(make).await.map_err(denied)?)
    }

    async fn refused(&self, path: &str, answer: reqwest::Response) -> Error {
        let status = answer.status();
        let body = body_of(answer).await.unwrap_or_default();
        let complaint = Complaint::read(&body);
        let code = complaint.as_ref().map_or("", |c| c.code.as_str());
        let rights = matches!(code, "DENIED" | "UNAUTHORIZED") || matches!(status.as_u16(), 401 | 403);
        match rights {
            true => RegistryError::PushDenied(complaint.map_or_else(|| status.to_string(), |c| c.to_string())).into(),
            false => self.client.complaint(path, status, &body).into(),
        }
    }
}
