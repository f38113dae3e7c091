//! Images as people see them: looked up, listed, named. [`Image`] is what `inspect` needs.

use crate::digest;
use crate::error::Error;
use crate::index::{Index, Record};
use crate::store::{Images, When};
use jiff::Timestamp;
use model::image::{Configuration, ImageId, Platform};
use model::reference::Reference;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An image, with what the store knows of it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// What it was built on here; None for what was pulled or loaded.
    pub parent: Option<ImageId>,
    /// The configuration: created, author, architecture, config, history, layers.
    pub configuration: Arc<Configuration>,
    /// Familiar names with their tags, sorted.
    pub repo_tags: Vec<String>,
    /// `name@sha256:…`, by which it was pulled.
    pub repo_digests: Vec<String>,
    /// Bytes in the files of all layers.
    pub size: u64,
    /// When it last got a tag here.
    pub tagged: Option<Timestamp>,
    /// Whether other images were built on it.
    pub has_children: bool,
    /// The directories of its layers, the uppermost first.
    pub layer_paths: Vec<std::path::PathBuf>,
}

impl Image {
    /// What it runs on.
    pub fn platform(&self) -> Platform {
        let Configuration { os, architecture, variant, .. } = Configuration::clone(&self.configuration);
        Platform { os, architecture, variant }
    }
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.configuration.config.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// One step of an image's history, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryStep {
    /// The image as it was after the step, if it is still here; `<missing>` otherwise.
    pub id: String,
    /// When, if anybody wrote it down.
    pub created: Option<Timestamp>,
    /// The instruction that made it.
    pub created_by: String,
    /// Names of the image as it was then.
    pub tags: Vec<String>,
    /// Bytes in the files of its layer.
    pub size: u64,
    /// What whoever committed it said.
    pub comment: String,
}

/// How a path differs from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in both, and differs.
    Modified,
    /// It is in the container alone.
    Added,
    /// It is in the image alone.
    Deleted,
}
impl Change {
    /// The number that Docker's API has for it.
    pub fn code(self) -> u8 {
        match self {
            Change::Modified => 0,
            Change::Added => 1,
            Change::Deleted => 2,
        }
    }
}

/// Which images to list: Docker's filters. Keys: `dangling`, `label`, `reference`, `before`, `since`, `until`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With the intermediate ones.
    pub all: bool,
    /// Without names and children, or not so.
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must hold.
    pub labels: Vec<String>,
    /// `label!`: none may hold.
    pub without_labels: Vec<String>,
    /// Patterns of familiar names, with or without a tag; one must fit.
    pub references: Vec<String>,
    /// Older ones than this: when the image that `before` names was made.
    pub before: Option<Timestamp>,
    /// Younger ones than this: when the image that `since` names was made.
    pub since: Option<Timestamp>,
    /// Older ones than this.
    pub until: Option<Timestamp>,
}

impl Images {
    /// The image that a name, an id or the beginning of one, or a digest means.
    pub fn get(&self, name: &str) -> Result<Image, Error> {
        let index = self.index();
        let (id, record) = find(&index, name)?;
        Ok(self.describe(&index, id, record))
    }

    /// The image of an id.
    pub fn by_id(&self, id: &ImageId) -> Option<Image> {
        let index = self.index();
        index.images.get_key_value(id).map(|(id, record)| self.describe(&index, id, record))
    }

    pub(crate) fn describe(&self, index: &Index, id: &ImageId, record: &Record) -> Image {
        self.describe_as(index, id, record, index.names_of(id))
    }

    /// The same, under some of its names.
    fn describe_as(&self, index: &Index, id: &ImageId, record: &Record, names: Vec<&Reference>) -> Image {
        let (digests, tags): (Vec<_>, Vec<_>) = names.into_iter().partition(|r| r.digest().is_some());
        let familiar = |references: Vec<&Reference>| {
            let mut names: Vec<String> = references.into_iter().map(Reference::familiar).collect();
            names.sort();
            names
        };
        let layers = &record.configuration.rootfs.diff_ids;
        Image {
            id: id.clone(),
            parent: record.facts.parent.clone().filter(|p| index.images.contains_key(p)),
            configuration: record.configuration.clone(),
            repo_tags: familiar(tags),
            repo_digests: familiar(digests),
            size: layers.iter().filter_map(|l| index.layers.get(l)).map(|l| l.size).sum(),
            tagged: record.facts.tagged,
            has_children: index.children_of(id).next().is_some(),
            layer_paths: layers.iter().rev().map(|l| self.layer_path(l)).collect(),
        }
    }

    /// All images that fit, the newest first. Where names are asked for, an image has only those that fit, as in Docker.
    pub fn list(&self, filter: &Filter) -> Vec<Image> {
        let index = self.index();
        // one pass over names and parents, or a list of many images would look at all of them for each
        let mut names: HashMap<&ImageId, Vec<&Reference>> = HashMap::new();
        for (reference, id) in &index.references {
            names.entry(id).or_default().push(reference);
        }
        let parents: std::collections::HashSet<&ImageId> =
            index.images.values().filter_map(|r| r.facts.parent.as_ref()).collect();
        let mut list = Vec::new();
        for (id, record) in &index.images {
            let names = names.get(id).map(Vec::as_slice).unwrap_or_default();
            let tagged = names.iter().any(|r| r.digest().is_none());
            let intermediate = names.is_empty() && parents.contains(id);
            let dangling = !tagged && !intermediate;
            if (intermediate && !filter.all) || filter.dangling.is_some_and(|wanted| wanted != dangling) {
                continue;
            }
            if !filter.fits(&record.configuration) {
                continue;
            }
            let is_wanted = |r: &&&Reference| {
                filter.references.is_empty() || filter.references.iter().any(|p| reference_fits(p, r))
            };
            let shown: Vec<&Reference> = names.iter().filter(is_wanted).copied().collect();
            if shown.is_empty() && !filter.references.is_empty() {
                continue;
            }
            list.push(self.describe_as(&index, id, record, shown));
        }
        list.sort_by(|a, b| {
            let (a_time, b_time) = (a.configuration.created, b.configuration.created);
            b_time.cmp(&a_time).then_with(|| a.id.cmp(&b.id))
        });
        list
    }

    /// How many bytes of an image's layers others have too: `SharedSize`.
    pub fn shared_size(&self, id: &ImageId) -> u64 {
        let index = self.index();
        let Some(record) = index.images.get(id) else { return 0 };
        let shared = |layer: &String| {
            index.images.iter().any(|(other, r)| other != id && r.configuration.rootfs.diff_ids.contains(layer))
        };
        let layers = record.configuration.rootfs.diff_ids.iter().filter(|l| shared(l));
        layers.filter_map(|l| index.layers.get(l)).map(|l| l.size).sum()
    }

    /// Bytes that all layers in the store take, each once.
    pub fn layers_size(&self) -> u64 {
        self.index().layers.values().map(|l| l.size).sum()
    }

    /// The steps that made an image, the newest first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryStep>, Error> {
        let index = self.index();
        let (id, record) = find(&index, name)?;
        let mut layers = record.configuration.rootfs.diff_ids.iter();
        let mut steps = Vec::new();
        for step in &record.configuration.history {
            let size = match step.empty_layer {
                true => 0,
                false => layers.next().and_then(|l| index.layers.get(l)).map_or(0, |l| l.size),
            };
            steps.push(HistoryStep {
                id: "<missing>".to_owned(),
                created: step.created,
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone(),
            });
        }
        steps.reverse();
        let mut next = Some(id);
        for step in &mut steps {
            let Some((id, record)) = next.and_then(|id| index.images.get_key_value(id)) else { break };
            step.id = id.to_string();
            step.tags = index.names_of(id).iter().filter(|r| r.digest().is_none()).map(|r| r.familiar()).collect();
            next = record.facts.parent.as_ref();
        }
        Ok(steps)
    }

    /// Gives an image another name. `latest` is meant where no tag is said.
    pub fn tag(&self, image: &str, name: &str) -> Result<Reference, Error> {
        let reference = name.parse::<Reference>()?.or_latest();
        if reference.digest().is_some() {
            return Err(Error::TagByDigest);
        }
        let id = find(&self.index(), image)?.0.clone();
        self.name(&id, &reference, When::Now)?;
        Ok(reference)
    }
}

impl Filter {
    /// Reads Docker's `filters`: `{"label": ["a=b"], "before": ["image"]}`.
    pub fn read(images: &Images, filters: &BTreeMap<String, Vec<String>>, all: bool) -> Result<Self, Error> {
        let mut filter = Self { all, ..Self::default() };
        for (key, values) in filters {
            for value in values {
                let wrong = || Error::Filter { key: key.clone(), value: value.clone() };
                match key.as_str() {
                    "dangling" => {
                        filter.dangling = Some(match value.to_ascii_lowercase().as_str() {
                            "1" | "true" | "t" => true,
                            "0" | "false" | "f" => false,
                            _ => return Err(wrong()),
                        });
                    }
                    "label" => filter.labels.push(value.clone()),
                    "label!" => filter.without_labels.push(value.clone()),
                    "reference" => filter.references.push(value.clone()),
                    "before" => filter.before = images.get(value)?.configuration.created.or(filter.before),
                    "since" => filter.since = images.get(value)?.configuration.created.or(filter.since),
                    "until" => filter.until = Some(moment(value, Timestamp::now()).ok_or_else(wrong)?),
                    _ => return Err(wrong()),
                }
            }
        }
        Ok(filter)
    }

    fn fits(&self, configuration: &Configuration) -> bool {
        let created = configuration.created.unwrap_or(Timestamp::UNIX_EPOCH);
        let has = |label: &String| {
            let labels = configuration.config.labels.as_ref();
            match label.split_once('=') {
                Some((key, value)) => labels.and_then(|l| l.get(key)).is_some_and(|v| v == value),
                None => labels.is_some_and(|l| l.contains_key(label)),
            }
        };
        self.before.is_none_or(|t| created < t)
            && self.since.is_none_or(|t| created > t)
            && self.until.is_none_or(|t| created < t)
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
    }
}

/// A point in time as Docker's filters write it: seconds since 1970, RFC 3339, or how long ago (`10m`, `1h30m`).
pub(crate) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_nanosecond((seconds * 1e9) as i128).ok();
    }
    if let Ok(ago) = model::duration::parse(text) {
        return Timestamp::from_nanosecond(now.as_nanosecond() - i128::from(ago)).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    jiff::tz::TimeZone::system().to_timestamp(civil).ok()
}

/// Whether a pattern with `*` and `?` fits a name with its tag, or without.
fn reference_fits(pattern: &str, reference: &Reference) -> bool {
    let fits = |name: &str| crate::build::matches(pattern, name);
    fits(&reference.familiar()) || fits(&reference.familiar_name())
}

/// Looks an image up.
pub(crate) fn find<'a>(index: &'a Index, name: &str) -> Result<(&'a ImageId, &'a Record), Error> {
    let record = |id: &ImageId| index.images.get_key_value(id).map(|(id, r)| (id, &**r));
    let hexadecimal = |t: &str| !t.is_empty() && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let bare = digest::hex(name);
    // a whole id, or `sha256:` and the beginning of one
    if hexadecimal(bare) && (bare.len() == 64 || name.starts_with("sha256:")) {
        return by_prefix(index, bare).ok_or_else(|| Error::NoSuchImage(name.to_owned()));
    }
    let reference = name.parse::<Reference>()?.favouring_digest().or_latest();
    if let Some(found) = index.references.get(&reference).and_then(record) {
        return Ok(found);
    }
    if hexadecimal(name)
        && let Some(found) = by_prefix(index, name)
    {
        return Ok(found);
    }
    // a digest may be that of the manifest that another name was pulled by, or an image's own id
    if let Some(digest) = reference.digest()
        && let Some(found) = index
            .references
            .iter()
            .filter(|(r, _)| r.same_repository(&reference))
            .filter_map(|(_, id)| record(id))
            .find(|(id, r)| id.as_str() == digest || r.facts.manifest.as_deref() == Some(digest))
    {
        return Ok(found);
    }
    Err(Error::NoSuchImage(reference.familiar()))
}

/// The only image whose id begins so.
fn by_prefix<'a>(index: &'a Index, prefix: &str) -> Option<(&'a ImageId, &'a Record)> {
    let mut fitting = index.images.iter().filter(|(id, _)| id.hex().starts_with(prefix));
    let found = fitting.next()?;
    match fitting.next() {
        Some(_) => None,
        None => Some((found.0, found.1)),
    }
}

/// The bytes whose digest is the image's id.
pub(crate) fn encode(configuration: &Configuration) -> Vec<u8> {
    // maps with text keys and plain values: there is nothing that could fail
    serde_json::to_vec(configuration).unwrap_or_default()
}
