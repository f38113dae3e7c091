//! What the tests of the store share: tiny archives, and stores that go with their test.

#![allow(dead_code)] // each test binary uses a part

use image::{Images, Import};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A store in a directory of its own, removed with the test.
pub struct Store {
    pub images: Images,
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl std::ops::Deref for Store {
    type Target = Images;
    fn deref(&self) -> &Images {
        &self.images
    }
}

impl Store {
    /// Where devices and overlayfs's attributes cannot be made, the test's process ends here: nextest gives each test
    /// its own.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let probe = kernel::tree::Dir::open(directory.path()).unwrap();
        std::fs::create_dir(directory.path().join("probe")).unwrap();
        if let Err(error) = probe.make_whiteout("x".as_ref()).and_then(|()| probe.set_opaque("probe".as_ref())) {
            lacking(&format!("layers cannot be unpacked without root: {error}"));
            std::process::exit(0);
        }
        let root = directory.path().join("images");
        Self { images: Images::open(&root).unwrap(), _directory: directory, root }
    }
    /// As after a crash, or a restart.
    pub fn reopen(self) -> Self {
        let Self { images, _directory, root } = self;
        drop(images);
        Self { images: Images::open(&root).unwrap(), _directory, root }
    }
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Imports an archive as an image.
    pub fn made(&self, name: &str, tar: Vec<u8>) -> model::image::ImageId {
        let import = Import { name: Some(name.to_owned()), ..Import::default() };
        self.images.import(&tar[..], import).unwrap()
    }
    /// Every layer and blob on the disk.
    pub fn pieces(&self) -> BTreeMap<String, usize> {
        ["layers", "blobs/sha256", "tmp"]
            .iter()
            .map(|d| ((*d).to_owned(), std::fs::read_dir(self.root.join(d)).unwrap().count()))
            .collect()
    }
}

/// Says that a test cannot run here, and why; where everything is to be there (`REQUIRE_NETNS`), that is a failure.
pub fn lacking(why: &str) {
    assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "{why}");
    println!("SKIP: {why}");
}

/// A tar in the making.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
    pub fn header(kind: tar::EntryType, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }
    /// An entry whose name is written as it is, whatever it says.
    pub fn raw(mut self, mut header: tar::Header, name: &str, data: &[u8]) -> Self {
        let field = &mut header.as_old_mut().name;
        field.fill(0);
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }
    pub fn file(self, name: &str, data: &str) -> Self {
        self.raw(Self::header(tar::EntryType::Regular, data.len()), name, data.as_bytes())
    }
    pub fn file_of(self, name: &str, data: &[u8], mode: u32, uid: u32, gid: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, data.len());
        header.set_mode(mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        self.raw(header, name, data)
    }
    pub fn directory(self, name: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Directory, 0);
        header.set_mode(0o755);
        self.raw(header, name, &[])
    }
    pub fn symlink(self, name: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Symlink, 0);
        header.set_link_name_literal(target).unwrap();
        self.raw(header, name, &[])
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Link, 0);
        header.set_link_name_literal(target).unwrap();
        self.raw(header, name, &[])
    }
    pub fn extended(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }
    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A root file system with a static busybox: enough to run commands in.
pub fn busybox() -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").unwrap();
    let mut tar = Tar::new()
        .directory("bin/")
        .file_of("bin/busybox", &program, 0o755, 0, 0)
        .directory("etc/")
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1001:1002::/app:/bin/sh\n")
        .file("etc/group", "root:x:0:\nstaff:x:50:\n")
        .directory("tmp/");
    for name in ["sh", "cat", "ls", "echo", "mkdir", "rm", "touch", "stat", "test", "false", "env", "id", "grep", "mv"]
    {
        tar = tar.symlink(&format!("bin/{name}"), "busybox");
    }
    tar.done()
}
