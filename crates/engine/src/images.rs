//! Images, as far as containers and clients are concerned. The work is the worker's.

use crate::error::{Error, Kind, Result};
use crate::{Engine, blocking};
use image::{Image, Removed, Use};
use model::container::Container;
use model::image::ImageId;
use model::reference::{DEFAULT_REGISTRY, Reference};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::sync::Arc;

/// The worker's errors, sorted.
pub(crate) fn image_error(error: image::Error) -> Error {
    let kind = match error.kind() {
        image::Kind::NotFound => Kind::NotFound,
        image::Kind::Conflict => Kind::Conflict,
        image::Kind::Invalid => Kind::Invalid,
        image::Kind::Denied => Kind::Unauthorized,
        image::Kind::Forbidden => Kind::Forbidden,
        _ => Kind::Internal,
    };
    Error { exit_code: error.exit_code(), ..Error::new(kind, error.chain()) }
}

/// What is to be fetched.
#[derive(Clone, Debug)]
pub struct Pull<'a> {
    pub reference: &'a str,
    /// None is this machine's.
    pub platform: Option<model::image::Platform>,
    pub tags: image::Tags,
    pub credentials: Option<image::Credentials>,
}

/// The registry that clients mean by a server's address: `https://index.docker.io/v1/` is Docker's own.
pub(crate) fn registry_of(server: &str) -> String {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

/// What an image needs to become a container.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: ImageId,
    pub config: model::image::ImageConfig,
    pub platform: model::image::Platform,
}

impl Engine {
    /// An image by name or id.
    ///
    /// # Errors
    /// There is none: clients then pull.
    pub async fn find_image(self: &Arc<Self>, reference: &str) -> Result<Found> {
        if reference.is_empty() {
            return Err(Error::invalid("no image specified: 'Image' is empty"));
        }
        let (engine, reference) = (self.clone(), reference.to_owned());
        let image = blocking(move || engine.images.get(&reference)).await.map_err(image_error)?;
        Ok(Found { id: image.id.clone(), config: image.configuration.config.clone(), platform: image.platform() })
    }

    /// All that is known of an image, by its name or id.
    ///
    /// # Errors
    /// There is none.
    pub fn image(&self, name: &str) -> Result<Image> {
        self.images.get(name).map_err(image_error)
    }

    /// The steps that an image was made by, the last one first.
    ///
    /// # Errors
    /// There is no such image.
    pub fn image_history(&self, name: &str) -> Result<Vec<image::HistoryStep>> {
        self.images.history(name).map_err(image_error)
    }

    /// Bytes of an image that others have too.
    pub fn shared_size(&self, id: &ImageId) -> u64 {
        self.images.shared_size(id)
    }

    /// Bytes in the files of all layers.
    pub fn layers_size(&self) -> u64 {
        self.images.layers_size()
    }

    /// Docker's `filters` of images.
    ///
    /// # Errors
    /// A value says nothing, or names an image that is not there.
    pub fn image_filter(&self, filters: &BTreeMap<String, Vec<String>>, all: bool) -> Result<image::Filter> {
        image::Filter::read(&self.images, filters, all).map_err(image_error)
    }

    /// The image that a name means, if there is one.
    pub(crate) fn image_id(&self, reference: &str) -> Option<ImageId> {
        self.images.get(reference).ok().map(|i| i.id)
    }

    pub(crate) fn image_size(&self, id: &ImageId) -> u64 {
        self.images.by_id(id).map_or(0, |i| i.size)
    }

    /// What a list calls a container's image: as the client named it, unless that name means another one by now.
    pub(crate) fn image_name(&self, record: &Container) -> String {
        match self.image_id(&record.config.image) {
            Some(id) if id == record.image => record.config.image.clone(),
            _ => record.image.to_string(),
        }
    }

    /// Who uses an image.
    pub fn image_users(&self, id: &ImageId) -> Vec<Use> {
        let state = self.state();
        let users = state.containers.values().filter(|e| e.record.image == *id);
        users.map(|e| Use { container: e.record.id.short(), running: e.record.state.is_running() }).collect()
    }

    /// Takes a name away, or the image itself where it is the last one.
    ///
    /// # Errors
    /// There is none, or it is used.
    pub async fn remove_image(self: &Arc<Self>, name: &str, force: bool, keep_parents: bool) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        let removing = move || {
            let before = engine.all_images();
            let removed = engine.images.remove(&name, force, keep_parents, |id| engine.image_users(id))?;
            engine.tell_removed(&before, &removed);
            Ok(removed)
        };
        blocking(removing).await.map_err(image_error)
    }

    /// Removes what nobody uses, as [`image::Images::prune`] does.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn prune_images(self: &Arc<Self>, all: bool, filter: image::Filter) -> Result<image::Pruned> {
        let engine = self.clone();
        let pruning = move || {
            let before = engine.all_images();
            let pruned = engine.images.prune(all, &filter, |id| engine.image_users(id))?;
            engine.tell_removed(&before, &pruned.removed);
            Ok(pruned)
        };
        let pruned = blocking(pruning).await.map_err(image_error)?;
        self.events.tell_prune("image", pruned.reclaimed);
        Ok(pruned)
    }

    /// Removes what builds have left: the directories that their steps share, and images without a name that nobody
    /// uses, which are the steps that a next build would find again.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn prune_builds(self: &Arc<Self>) -> Result<image::Pruned> {
        let engine = self.clone();
        let pruning = move || {
            engine.images.prune_build_caches()?;
            let before = engine.all_images();
            let pruned = engine.images.prune(false, &image::Filter::default(), |id| engine.image_users(id))?;
            engine.tell_removed(&before, &pruned.removed);
            Ok(pruned)
        };
        let pruned = blocking(pruning).await.map_err(image_error)?;
        self.events.tell_prune("builder", pruned.reclaimed);
        Ok(pruned)
    }

    pub(crate) fn all_images(&self) -> Vec<Image> {
        self.images.list(&image::Filter { all: true, ..image::Filter::default() })
    }

    /// `before`: who the names and ids were. Layers that went with their images are no images, and are not told of.
    fn tell_removed(&self, before: &[Image], removed: &[Removed]) {
        for one in removed {
            match one {
                Removed::Untagged(name) => {
                    let of = |i: &&Image| i.repo_tags.contains(name) || i.repo_digests.contains(name);
                    if let Some(image) = before.iter().find(of) {
                        self.tell_image("untag", image, name);
                    }
                }
                Removed::Deleted(id) => {
                    if let Some(image) = before.iter().find(|i| i.id.as_str() == id) {
                        self.tell_image("delete", image, id);
                    }
                }
            }
        }
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// There is no such image, or the name is none.
    pub async fn tag_image(self: &Arc<Self>, image: &str, name: &str) -> Result<()> {
        let (engine, image, name) = (self.clone(), image.to_owned(), name.to_owned());
        let reference = blocking(move || engine.images.tag(&image, &name)).await.map_err(image_error)?;
        self.tell_image_named("tag", &reference.familiar());
        Ok(())
    }

    /// Images in the order of a list, with how many containers each has.
    pub fn list_images(&self, filter: &image::Filter) -> Vec<(Image, usize)> {
        let images = self.images.list(filter);
        let state = self.state();
        let mut users: BTreeMap<&ImageId, usize> = BTreeMap::new();
        for entry in state.containers.values() {
            *users.entry(&entry.record.image).or_default() += 1;
        }
        images.into_iter().map(|i| (users.get(&i.id).copied().unwrap_or_default(), i)).map(|(n, i)| (i, n)).collect()
    }

    /// How one registry is spoken to for somebody.
    pub(crate) fn access(&self, registry: &str, credentials: Option<image::Credentials>) -> image::Access {
        let told = &self.settings.registries;
        image::Access { credentials, insecure: told.is_insecure(registry), mirrors: told.mirrors_of(registry).to_vec() }
    }

    /// Fetches an image, or all of a repository. What is wrong with the request is told at once, the rest by the future
    /// that is returned; a client that drops it stops the fetching.
    ///
    /// # Errors
    /// The reference is none.
    pub fn pull_image(
        self: &Arc<Self>,
        pull: Pull<'_>,
        progress: Arc<dyn Fn(image::Progress) + Send + Sync>,
    ) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
        let reference: Reference = pull.reference.parse().map_err(Error::invalid)?;
        let access = self.access(reference.registry(), pull.credentials);
        let options = image::PullOptions { platform: pull.platform, access };
        let (engine, tags) = (self.clone(), pull.tags);
        Ok(async move {
            match tags {
                image::Tags::One => engine.images.pull(&reference, options, progress).await.map(drop),
                image::Tags::All => engine.images.pull_all(&reference, options, progress).await,
            }
            .map_err(image_error)?;
            engine.tell_transfer("pull", &reference);
            Ok(())
        })
    }

    /// Sends an image to the registry in its name, as [`Engine::pull_image`] fetches one.
    ///
    /// # Errors
    /// The reference is none.
    pub fn push_image(
        self: &Arc<Self>,
        reference: &str,
        credentials: Option<image::Credentials>,
        progress: Arc<dyn Fn(image::Progress) + Send + Sync>,
    ) -> Result<impl Future<Output = Result<image::PushedImage>> + Send + use<>> {
        let reference: Reference = reference.parse().map_err(Error::invalid)?;
        let access = self.access(reference.registry(), credentials);
        let engine = self.clone();
        Ok(async move {
            let pushed = engine.images.push(&reference, access, progress).await.map_err(image_error)?;
            engine.tell_transfer("push", &reference);
            Ok(pushed)
        })
    }

    /// Makes images of an archive that [`Engine::save_images`] or another engine has written.
    ///
    /// # Errors
    /// It is no such archive, or the disk refuses.
    pub async fn load_images(self: &Arc<Self>, archive: impl Read + Send + 'static) -> Result<Vec<image::Loaded>> {
        let engine = self.clone();
        let loaded = blocking(move || engine.images.load(archive, None)).await.map_err(image_error)?;
        for one in &loaded {
            self.tell_image_named("load", &one.name());
        }
        Ok(loaded)
    }

    /// Makes an image of a tar of files.
    ///
    /// # Errors
    /// It is no tar, a change of the configuration cannot be read, or the disk refuses.
    pub async fn import_image(
        self: &Arc<Self>,
        archive: impl Read + Send + 'static,
        import: image::Import,
    ) -> Result<ImageId> {
        let engine = self.clone();
        let id = blocking(move || engine.images.import(archive, import)).await.map_err(image_error)?;
        self.tell_image_named("import", id.as_str());
        Ok(id)
    }

    /// What lies at an http or https address, for [`Engine::import_image`].
    ///
    /// # Errors
    /// It is not to be had.
    pub async fn fetch_archive(&self, url: &str) -> Result<std::fs::File> {
        self.images.fetch_file(url).await.map_err(image_error)
    }

    /// What writes images as an archive, for a thread that may block. A repository without a tag means all that it has.
    ///
    /// # Errors
    /// There is no such image; from the writing: its reader is gone, or the disk fails.
    pub fn save_images(
        self: &Arc<Self>,
        names: Vec<String>,
    ) -> Result<impl FnOnce(Box<dyn Write>) -> Result<()> + Send + use<>> {
        let whole = |name: String| match name.parse::<Reference>() {
            Ok(bare) if bare.tag().is_none() && bare.digest().is_none() => match self.tags_of(&name) {
                Ok(tags) if !tags.is_empty() => tags,
                _ => vec![name],
            },
            _ => vec![name],
        };
        let names: Vec<String> = names.into_iter().flat_map(whole).collect();
        let images = names.iter().map(|name| self.images.get(name).map_err(image_error)).collect::<Result<Vec<_>>>()?;
        let engine = self.clone();
        Ok(move |to: Box<dyn Write>| {
            engine.images.save(&names, to).map_err(image_error)?;
            for image in &images {
                engine.tell_image("save", image, image.id.as_str());
            }
            Ok(())
        })
    }

    /// What writes an image's files as a tar, for a thread that may block.
    pub fn export_image(self: &Arc<Self>, id: ImageId) -> impl FnOnce(Box<dyn Write>) -> Result<()> + Send + use<> {
        let engine = self.clone();
        move |to: Box<dyn Write>| engine.images.export_image(&id, to).map_err(image_error)
    }

    /// The names that an image repository has here, tags apart from each other.
    ///
    /// # Errors
    /// The name is none.
    pub fn tags_of(&self, repository: &str) -> Result<Vec<String>> {
        let repository: Reference = repository.parse().map_err(Error::invalid)?;
        let images = self.images.list(&image::Filter::default());
        let names = images.iter().flat_map(|i| &i.repo_tags).filter_map(|n| n.parse::<Reference>().ok());
        let mut own: Vec<String> = names.filter(|n| n.same_repository(&repository)).map(|n| n.familiar()).collect();
        own.sort();
        Ok(own)
    }

    /// Whether a registry takes these credentials; an empty name is Docker's own.
    ///
    /// # Errors
    /// It does not, or cannot be reached.
    pub async fn log_in(&self, server: &str, credentials: image::Credentials) -> Result<()> {
        let registry = registry_of(server);
        let access = self.access(&registry, Some(credentials));
        self.images.check_credentials(&registry, access).await.map_err(image_error)
    }

    /// What a registry has under a name.
    ///
    /// # Errors
    /// There is nothing, or it cannot be reached.
    pub async fn inspect_remote(
        &self,
        reference: &str,
        credentials: Option<image::Credentials>,
    ) -> Result<image::RemoteImage> {
        let reference: Reference = reference.parse().map_err(Error::invalid)?;
        let access = self.access(reference.registry(), credentials);
        self.images.inspect_remote(&reference, access).await.map_err(|error| match error {
            // A pull says 'not found' to who may not know; here the API has a status for it.
            image::Error::Registry(image::RegistryError::Denied { .. }) => {
                Error::new(Kind::Unauthorized, error.chain())
            }
            error => image_error(error),
        })
    }

    /// What has happened to an image: by its id, `name` as people write it, and with its labels, as Docker tells it.
    fn tell_image(&self, action: &str, image: &Image, name: &str) {
        let mut attributes = image.configuration.config.labels.clone().unwrap_or_default();
        attributes.insert("name".into(), name.to_owned());
        self.events.tell("image", action, image.id.to_string(), attributes);
    }

    /// The same of an image that has this name, or this id, by now.
    pub(crate) fn tell_image_named(&self, action: &str, name: &str) {
        if let Ok(image) = self.images.get(name) {
            self.tell_image(action, &image, name);
        }
    }

    /// What went to or came from a registry has, for Docker, its name for an id; the name is that of the repository.
    fn tell_transfer(&self, action: &str, reference: &Reference) {
        let familiar = reference.familiar();
        let labels = self.images.get(&familiar).ok().and_then(|i| i.configuration.config.labels.clone());
        let mut attributes = labels.unwrap_or_default();
        attributes.insert("name".into(), reference.familiar_name());
        self.events.tell("image", action, familiar, attributes);
    }
}
