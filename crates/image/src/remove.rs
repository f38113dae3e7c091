//! Removing images and names: what may go, what goes with it, and Docker's words for what may not.

use crate::error::{Conflict, Error};
use crate::image::{Filter, find};
use crate::index::Index;
use crate::store::Images;
use model::image::ImageId;
use model::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// A container that stands on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// As shown to people: twelve digits of its id.
    pub container: String,
    /// Else it is stopped, and may be forced off.
    pub running: bool,
}

/// What a removal did, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name, in its familiar form.
    Untagged(String),
    /// An image's id, or the chain id of one of its layers.
    Deleted(String),
}

/// What `prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In order.
    pub removed: Vec<Removed>,
    /// Bytes in the files of the layers that went.
    pub reclaimed: u64,
}

type InUse<'a> = &'a dyn Fn(&ImageId) -> Vec<Use>;

impl Images {
    /// Removes a name, and the image when it was its last; or an image by its id. `in_use` says which containers stand
    /// on an image. Untagged parents that nothing else needs go too, unless `keep_parents` (`noprune`).
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        keep_parents: bool,
        in_use: impl Fn(&ImageId) -> Vec<Use>,
    ) -> Result<Vec<Removed>, Error> {
        let (removed, _) = self.removing(|removal| removal.image(name, force, !keep_parents), &in_use)?;
        Ok(removed)
    }

    /// Removes what nobody uses: images without a name, or with `all` every one that no container stands on. Of
    /// `filter` only labels and `until` count.
    pub fn prune(&self, all: bool, filter: &Filter, in_use: impl Fn(&ImageId) -> Vec<Use>) -> Result<Pruned, Error> {
        let filter = Filter { all: false, dangling: (!all).then_some(true), references: Vec::new(), ..filter.clone() };
        let candidates = self.list(&filter);
        let (removed, reclaimed) = self.removing(
            |removal| {
                for image in candidates {
                    if self.is_leased(image.id.as_str()) {
                        continue; // a build is standing on it
                    }
                    let names: Vec<String> = removal.index.names_of(&image.id).iter().map(|r| r.to_string()).collect();
                    let names = if names.is_empty() { vec![image.id.to_string()] } else { names };
                    for name in names {
                        match removal.image(&name, false, true) {
                            Ok(()) | Err(Error::Conflict(_) | Error::NoSuchImage(_)) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Ok(())
            },
            &in_use,
        )?;
        Ok(Pruned { removed, reclaimed })
    }

    fn removing(
        &self,
        remove: impl FnOnce(&mut Removal<'_>) -> Result<(), Error>,
        in_use: InUse<'_>,
    ) -> Result<(Vec<Removed>, u64), Error> {
        let (removed, gone) = self.change_and_collect(|index| {
            let mut removal = Removal { index, in_use, removed: Vec::new() };
            remove(&mut removal)?;
            Ok(removal.removed)
        })?;
        Ok((removed, gone.iter().map(|(_, size)| size).sum()))
    }
}

/// Works on a copy of the index, which counts only if all goes well.
struct Removal<'a> {
    index: &'a mut Index,
    in_use: InUse<'a>,
    removed: Vec<Removed>,
}

/// Which conflicts hold a deletion up.
#[derive(Clone, Copy)]
struct Minding {
    references: bool,
    stopped: bool,
}

impl Removal<'_> {
    fn image(&mut self, name: &str, force: bool, prune: bool) -> Result<(), Error> {
        let id = find(self.index, name)?.0.clone();
        let references = self.references(&id);
        let by_id = id.hex().starts_with(name.trim_start_matches("sha256:"));
        let mut untagged = false;
        if !by_id {
            if !force
                && is_single(&references)
                && let Some(user) = (self.in_use)(&id).first()
            {
                // without its last name the image would dangle under the container
                return Err(Conflict::ReferenceInUse {
                    reference: name.to_owned(),
                    container: user.container.clone(),
                    image: id.short().to_owned(),
                }
                .into());
            }
            let reference = name.parse::<Reference>()?.favouring_digest().or_latest();
            let reference = match self.index.references.contains_key(&reference) {
                true => reference,
                // found by the manifest's digest under another name of the repository
                false => references.first().cloned().ok_or_else(|| Error::NoSuchImage(name.to_owned()))?,
            };
            self.untag(&reference);
            // digests of a repository that has no tag left here say nothing to anybody
            let rest = self.references(&id);
            let tagged = |r: &Reference| r.digest().is_none() && r.same_repository(&reference);
            if reference.digest().is_none() && !rest.iter().any(tagged) {
                for digest in rest.iter().filter(|r| r.digest().is_some() && r.same_repository(&reference)) {
                    self.untag(digest);
                }
            }
            if !self.references(&id).is_empty() {
                return Ok(());
            }
            untagged = true;
        } else if is_single(&references) {
            self.check(&id, Minding { references: false, stopped: !force })?;
            for reference in &references {
                self.untag(reference);
            }
        }
        self.delete(&id, force, prune, untagged)
    }

    /// Deletes an image, then its parents as far as nobody needs them. `quiet`: it is enough that a name went.
    fn delete(&mut self, id: &ImageId, force: bool, prune: bool, quiet: bool) -> Result<(), Error> {
        if let Err(conflict) = self.check(id, Minding { references: !force, stopped: !force }) {
            let used = matches!(conflict, Conflict::Running { .. } | Conflict::Stopped { .. });
            let dangling = self.references(id).is_empty() && self.index.children_of(id).next().is_none();
            return if quiet && (!dangling || used) { Ok(()) } else { Err(conflict.into()) };
        }
        for reference in self.references(id) {
            self.untag(&reference);
        }
        let Some(record) = self.index.images.remove(id) else { return Ok(()) };
        self.removed.push(Removed::Deleted(id.to_string()));
        let mut chains = chain_ids(&record.configuration.rootfs.diff_ids);
        let kept: BTreeSet<String> =
            self.index.images.values().flat_map(|r| chain_ids(&r.configuration.rootfs.diff_ids)).collect();
        chains.retain(|c| !kept.contains(c));
        self.removed.extend(chains.into_iter().rev().map(Removed::Deleted));
        match &record.facts.parent {
            Some(parent) if prune && self.index.images.contains_key(parent) => self.delete(parent, false, true, true),
            _ => Ok(()),
        }
    }

    fn check(&self, id: &ImageId, minding: Minding) -> Result<(), Conflict> {
        let image = id.short().to_owned();
        if self.index.children_of(id).next().is_some() {
            return Err(Conflict::HasChildren { image });
        }
        let users = (self.in_use)(id);
        if let Some(user) = users.iter().find(|u| u.running) {
            return Err(Conflict::Running { image, container: user.container.clone() });
        }
        if minding.references && !self.references(id).is_empty() {
            return Err(Conflict::ManyReferences { image });
        }
        if minding.stopped
            && let Some(user) = users.iter().find(|u| !u.running)
        {
            return Err(Conflict::Stopped { image, container: user.container.clone() });
        }
        Ok(())
    }

    fn references(&self, id: &ImageId) -> Vec<Reference> {
        self.index.names_of(id).into_iter().cloned().collect()
    }

    fn untag(&mut self, reference: &Reference) {
        self.index.references.remove(reference);
        self.removed.push(Removed::Untagged(reference.familiar()));
    }
}

/// Whether an image has one name only: one tag, with or without digests of the same repository.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let mut tags = references.iter().filter(|r| r.digest().is_none());
    let digests: BTreeSet<String> = references.iter().filter(|r| r.digest().is_some()).map(Reference::name).collect();
    let single = match (tags.next(), tags.next()) {
        (_, Some(_)) => return false,
        (Some(tag), None) => tag,
        (None, None) => &references[0],
    };
    digests.len() == 1 && digests.contains(&single.name())
}

/// The digests of stacks of layers: each of its layer and of what lies below.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chains.last() {
            None => diff_id.clone(),
            Some(below) => {
                let digest = Sha256::digest(format!("{below} {diff_id}"));
                format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
        };
        chains.push(next);
    }
    chains
}
