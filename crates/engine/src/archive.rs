//! Files in and out of containers: `cp`, `export`, `diff`.
//!
//! A running container's files are what its process sees; another's are its file system with the mounts it would have,
//! and as long as they are looked at it has no other turn.

use crate::error::{Error, Kind, Result};
use crate::images::image_error;
use crate::{Engine, blocking};
use image::{Place, Receive, Tree, Under};
use model::container::{Container, MountKind, Status};
use model::id::ContainerId;
use model::rootfs::Rootfs;
use model::users::Account;
use std::io::{Read, Write};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// A container's files, open.
pub struct Files {
    engine: Arc<Engine>,
    /// The process whose mounts these are: they go with it.
    live: Option<runtime::Container>,
    tree: Tree,
    /// As the client said it.
    reference: String,
    record: Container,
    /// Dropped after the tree.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Engine {
    /// Opens a container's files.
    ///
    /// # Errors
    /// There is no such container, or they cannot be mounted.
    pub async fn files(self: &Arc<Self>, reference: &str) -> Result<Files> {
        let id = self.state().resolve(reference)?;
        let turn = self.turn(id).await?;
        let (record, live) = {
            let state = self.state();
            let entry = state.entry(id)?;
            (entry.record.clone(), entry.live.clone())
        };
        let read_only = record.host.readonly_rootfs;
        if let Some(live) = live.filter(|l| l.exit_status().is_none()) {
            let pid = live.pid();
            let tree = blocking(move || Tree::of_process(pid, read_only)).await.map_err(image_error)?;
            // The number may have become another's meanwhile.
            if live.exit_status().is_some() {
                return Err(Error::conflict(format!("container {id} has just ended")));
            }
            let reference = reference.to_owned();
            return Ok(Files { engine: self.clone(), live: Some(live), tree, reference, record, _turn: None });
        }
        let rootfs = self.known_rootfs(&record)?;
        // What the tree has of the volumes lives as long as it does, though they are let go of at once.
        let tree = match self.mount_volumes(&record).await {
            Ok(mounts) => {
                let under = self.under(&Container { mounts, ..record.clone() });
                let engine = self.clone();
                blocking(move || engine.images.tree(&rootfs, &under, read_only)).await.map_err(image_error)
            }
            Err(e) => Err(e),
        };
        self.unmount_volumes(&record).await;
        let tree = tree?;
        let reference = reference.to_owned();
        Ok(Files { engine: self.clone(), live: None, tree, reference, record, _turn: Some(turn) })
    }

    /// A container's file system.
    pub(crate) fn rootfs_of(&self, record: &Container) -> Option<model::rootfs::Rootfs> {
        let given = self.state().entry(record.id).ok().and_then(|e| e.rootfs.clone());
        given.or_else(|| self.images.rootfs(&record.id.to_string(), record.host.auto_remove))
    }

    /// The same of one that must have one.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn known_rootfs(&self, record: &Container) -> Result<Rootfs> {
        self.rootfs_of(record)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the file system of container {} is gone", record.name)))
    }

    /// Who a process of a container is: `user` and further `groups` as they are written, by the container's own files.
    ///
    /// # Errors
    /// There is no such user or group.
    pub(crate) async fn account(
        self: &Arc<Self>,
        record: &Container,
        user: &str,
        groups: &[String],
    ) -> Result<Account> {
        /// Bytes of a file of accounts that are read: what is longer is none.
        const MOST: u64 = 4 << 20;
        let (engine, rootfs) = (self.clone(), self.known_rootfs(record)?);
        let (user, groups) = (user.to_owned(), groups.to_vec());
        blocking(move || {
            let read = |path: &str| -> Result<String> {
                let bytes = engine.images.read_file(&rootfs, path, MOST).map_err(image_error)?;
                Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
            };
            let account = model::users::resolve(&user, &read("/etc/passwd")?, &read("/etc/group")?, &groups);
            account.map_err(Error::invalid)
        })
        .await
    }

    /// What lies over a container's root file system when it runs, the higher first.
    fn under(&self, record: &Container) -> Vec<Under> {
        let own = crate::files::NAMES.map(|name| Under {
            source: self.container_dir(record.id).join(name),
            target: format!("/etc/{name}").into(),
            read_only: false,
        });
        let mounted = record.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs).map(|m| Under {
            source: m.source.clone().into(),
            target: m.destination.clone().into(),
            read_only: !m.rw,
        });
        let mut all: Vec<Under> = own.into_iter().chain(mounted).filter(|u| u.source.exists()).collect();
        all.sort_by_key(|u| u.target.components().count());
        all
    }

    /// Writes all of a container's own files as a tar.
    ///
    /// # Errors
    /// There is no such container.
    pub fn export(self: &Arc<Self>, reference: &str) -> Result<impl FnOnce(Box<dyn Write>) -> Result<()> + use<>> {
        let record = self.state().find(reference)?.record.clone();
        let rootfs = self.known_rootfs(&record)?;
        self.tell_container(&record, "export", &[]);
        let engine = self.clone();
        let whole = move || engine.is_there(record.id);
        let engine = self.clone();
        Ok(move |to: Box<dyn Write>| engine.images.export(&rootfs, whole, to).map_err(image_error))
    }

    /// Whether a container has not been removed, nor is being so.
    fn is_there(&self, id: ContainerId) -> bool {
        self.state().entry(id).is_ok_and(|e| e.record.state.status != Status::Removing)
    }

    /// What a container has changed in its image's files.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn changes(self: &Arc<Self>, reference: &str) -> Result<Vec<(image::Change, String)>> {
        let record = self.state().find(reference)?.record.clone();
        let (engine, rootfs) = (self.clone(), self.known_rootfs(&record)?);
        blocking(move || engine.images.changes(&rootfs)).await.map_err(image_error)
    }

    /// The user and group that a container's process runs as; none where that is root by nobody's wish.
    async fn owner_of(self: &Arc<Self>, record: &Container) -> Result<Option<(u32, u32)>> {
        if record.config.user.is_empty() {
            return Ok(None);
        }
        let account = self.account(record, &record.config.user, &[]).await?;
        Ok(Some((account.uid, account.gid)))
    }

    /// Unpacks a tar into a directory of a container. `to_user`: everything becomes the container's user's.
    ///
    /// # Errors
    /// There is no such directory, nothing may be written there, or the archive is damaged.
    pub async fn extract(
        self: &Arc<Self>,
        files: Files,
        path: String,
        tar: impl Read + Send + 'static,
        keep_kinds: bool,
        to_user: bool,
    ) -> Result<()> {
        let owner = if to_user { self.owner_of(&files.record).await? } else { None };
        let record = files.record.clone();
        blocking(move || {
            let received = files.tree.receive(&path, tar, Receive { keep_kinds, owner }).map_err(image_error)?;
            received.ok_or_else(|| files.missing(&path))
        })
        .await?;
        self.tell_container(&record, "extract-to-dir", &[]);
        Ok(())
    }

    /// Tells that a path of a container was read.
    pub fn tell_archived(&self, files: &Files) {
        self.tell_container(&files.record, "archive-path", &[]);
    }
}

impl Files {
    fn missing(&self, path: &str) -> Error {
        Error::not_found(format!("Could not find the file {path} in container {}", self.reference))
    }

    /// What is at a path. It may wait for the disk.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn place(&self, path: &str) -> Result<Place> {
        self.tree.place(path).map_err(image_error)?.ok_or_else(|| self.missing(path))
    }

    /// Writes what is at a path as a tar.
    ///
    /// # Errors
    /// It cannot be read, or nobody takes it.
    pub fn send(&self, path: &str, to: impl Write) -> Result<()> {
        let has_mounts = || {
            let runs = self.live.as_ref().is_none_or(|live| live.exit_status().is_none());
            runs || self.record.mounts.is_empty() && self.record.host.tmpfs.is_none()
        };
        self.tree.send(path, || has_mounts() && self.engine.is_there(self.record.id), to).map_err(image_error)
    }
}
