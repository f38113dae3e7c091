//! `cp`: files between a container and here, as a tar either way.

use super::App;
use crate::client::connection::{Chunks, Query, from_reader, is_not_found, segment};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, go_error, warn};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::Value;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    /// A path here; `-` is a tar at standard input or output.
    Here(&'a str),
    In(&'a str, &'a str),
}

impl<'a> Side<'a> {
    /// `CONTAINER:PATH`; what begins with a slash or a dot is a path here, colons or not.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['/', '.']) && !container.is_empty() => {
                Side::In(container, path)
            }
            _ => Side::Here(text),
        }
    }
}

fn fail(message: impl std::fmt::Display) -> anyhow::Error {
    Exit::new(1, message).into()
}

/// `cp`.
///
/// # Errors
/// Something is not there, or cannot lie where it shall.
pub async fn copy(app: App, p: Parsed) -> anyhow::Result<u8> {
    let quiet = if p.given("quiet") { p.on("quiet") } else { !crate::client::terminal::stderr_is_terminal() };
    let (bytes, to) = match (Side::of(&p.args[0]), Side::of(&p.args[1])) {
        (Side::In(container, path), Side::Here(to)) => {
            (fetch(&app, container, path, to, p.on("follow-link")).await?, to.to_owned())
        }
        (Side::Here(from), Side::In(container, path)) => {
            let how = Sending { archive: p.on("archive"), follow: p.on("follow-link") };
            (send(&app, from, container, path, how).await?, p.args[1].clone())
        }
        (Side::In(..), Side::In(..)) => return Err(fail("copying between containers is not supported")),
        (Side::Here(_), Side::Here(_)) => return Err(fail("must specify at least one container source")),
    };
    if !quiet && to != "-" {
        warn(format_args!("Successfully copied {} to {to}", crate::text::human_size(bytes as f64, 3)));
    }
    Ok(0)
}

/// What `X-Docker-Container-Path-Stat` says of a path in a container.
async fn stat(app: &App, container: &str, path: &str) -> anyhow::Result<Value> {
    let query = Query::new().with("path", path);
    let url = format!("/containers/{}/archive{query}", segment(container));
    let answer = match app.client.stream(Method::HEAD, &url).await {
        Ok(answer) => answer,
        // An answer to HEAD has no words of its own: what asks for more has.
        Err(e) => return Err(app.client.stream(Method::GET, &url).await.err().unwrap_or(e)),
    };
    let header = answer.headers().get("X-Docker-Container-Path-Stat").map(|h| h.as_bytes().to_vec());
    let text = header
        .and_then(|h| STANDARD.decode(h).ok())
        .ok_or_else(|| fail("the daemon does not say what is at the path"))?;
    Ok(serde_json::from_slice(&text)?)
}

const IS_DIRECTORY: u64 = 1 << 31;
const IS_SYMLINK: u64 = 1 << 27;

fn has(stat: &Value, bit: u64) -> bool {
    stat["mode"].as_u64().unwrap_or_default() & bit != 0
}

/// What entries are to be called, and where they go.
#[derive(Debug, PartialEq, Eq)]
struct Placing {
    directory: PathBuf,
    /// Instead of the first part of every entry's name.
    rename: Option<String>,
}

/// Where a source, which is a directory or not, ends up when it is copied to `to`.
///
/// # Errors
/// One cannot lie where the other is.
fn place(to: &str, there: Option<bool>, is_directory: bool) -> Result<Placing, String> {
    let path = Path::new(to);
    let parent = || match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    };
    let rename = path.file_name().map(|n| n.to_string_lossy().into_owned());
    match there {
        Some(true) => Ok(Placing { directory: path.to_owned(), rename: None }),
        Some(false) if is_directory => Err("cannot copy directory".to_owned()),
        None if !is_directory && (to.ends_with('/') || to.ends_with("/.")) => Err("no such directory".to_owned()),
        _ => Ok(Placing { directory: parent(), rename }),
    }
}

async fn fetch(app: &App, container: &str, path: &str, to: &str, follow: bool) -> anyhow::Result<u64> {
    if container.is_empty() {
        return Err(fail("container name cannot be empty"));
    }
    let mut path = path.to_owned();
    let mut rename = None;
    if follow {
        let place = stat(app, container, &path).await?;
        if has(&place, IS_SYMLINK) {
            rename = Path::new(&path).file_name().map(|n| n.to_string_lossy().into_owned());
            path = place["linkTarget"].as_str().unwrap_or_default().to_owned();
        }
    }
    let source = stat(app, container, &path).await?;
    let url = format!("/containers/{}/archive{}", segment(container), Query::new().with("path", &path));
    if to == "-" {
        if crate::client::terminal::stdout_is_terminal() {
            return Err(fail("refusing to write a tar to a terminal: redirect it"));
        }
        super::image::copy_to(Chunks(app.client.stream(Method::GET, &url).await?), "").await?;
        return Ok(0);
    }
    let there = fs::metadata(to).ok().map(|m| m.is_dir());
    let mut placing = place(to, there, has(&source, IS_DIRECTORY)).map_err(fail)?;
    if !placing.directory.is_dir() {
        return Err(fail(format_args!("invalid output path: directory {:?} does not exist", placing.directory)));
    }
    placing.rename = placing.rename.or(rename);
    let mut chunks = Chunks(app.client.stream(Method::GET, &url).await?);
    let (mut sink, source) = pipe()?;
    let unpacking = tokio::task::spawn_blocking(move || unpack(source, &placing));
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await? {
        bytes += chunk.len() as u64;
        if sink.write_all(&chunk).await.is_err() {
            break;
        }
    }
    drop(sink);
    unpacking.await??;
    Ok(bytes)
}

/// Our end, and the one of a thread that waits.
fn pipe() -> anyhow::Result<(tokio::net::UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((tokio::net::UnixStream::from_std(ours)?, theirs))
}

/// Unpacks what a container has sent. Nothing of it lands outside: the archive is a stranger's.
fn unpack(source: impl Read, placing: &Placing) -> anyhow::Result<()> {
    let root = fs::canonicalize(&placing.directory)?;
    let mut archive = tar::Archive::new(source);
    archive.set_preserve_permissions(true);
    let target = |name: &Path| -> Option<PathBuf> {
        let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
        let mut components = name.components().peekable();
        if let Some(rename) = &placing.rename {
            parts.push(rename.as_ref());
            components.next();
        }
        for part in components {
            match part {
                Component::Normal(part) => parts.push(part),
                Component::CurDir => {}
                _ => return None,
            }
        }
        Some(parts.iter().fold(root.clone(), |path, part| path.join(part)))
    };
    let leads_out = |name: &Path| fail(format_args!("{name:?} in the archive leads out of {root:?}"));
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        // `.` and `./x` of a directory that is copied as another.
        let path = target(&name).ok_or_else(|| leads_out(&name))?;
        let kind = entry.header().entry_type();
        if path == root {
            continue;
        }
        let parent = path.parent().unwrap_or(&root);
        if !fs::canonicalize(parent)?.starts_with(&root) {
            return Err(leads_out(&name));
        }
        let existing = fs::symlink_metadata(&path).ok();
        match existing.map(|m| (m.is_dir(), kind.is_dir())) {
            Some((true, false)) => {
                return Err(fail(format_args!("cannot overwrite directory {path:?} with non-directory")));
            }
            Some((false, true)) => {
                return Err(fail(format_args!("cannot overwrite non-directory {path:?} with directory")));
            }
            Some((false, false)) => fs::remove_file(&path)?,
            _ => {}
        }
        let failed = |e: io::Error| fail(format_args!("cannot write {}: {}", path.display(), go_error(&e)));
        match kind {
            tar::EntryType::Link => {
                let link = entry.link_name()?.unwrap_or_default().into_owned();
                let source = target(&link).ok_or_else(|| leads_out(&link))?;
                // By the archive's own links, too, it may lead out.
                let parent = fs::canonicalize(source.parent().unwrap_or(&root))?;
                if !parent.starts_with(&root) {
                    return Err(leads_out(&link));
                }
                fs::hard_link(source, &path).map_err(failed)?;
            }
            tar::EntryType::Directory => {
                if !path.is_dir() {
                    fs::create_dir(&path).map_err(failed)?;
                }
                directories.push((path, entry.header().mode()?));
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                make_node(&path, entry.header()).map_err(failed)?;
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name()?.unwrap_or_default().into_owned();
                if !stays_below(&root, parent, &link) {
                    return Err(fail(format_args!("invalid symlink {path:?} -> {link:?}: it leads out of {root:?}")));
                }
                std::os::unix::fs::symlink(link, &path).map_err(failed)?;
            }
            _ => drop(entry.unpack(&path).map_err(failed)?),
        }
    }
    for (path, mode) in directories.into_iter().rev() {
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

/// Whether a link's words stay below a directory, as Docker's client reads them: an absolute one means a place in the
/// container, and nobody's here.
fn stays_below(root: &Path, parent: &Path, link: &Path) -> bool {
    let mut at = parent.to_owned();
    for part in link.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => drop(at.pop()),
            _ => {}
        }
    }
    at.starts_with(root)
}

/// A device or a FIFO, with its mode. Only root makes devices: then others are told that it is not permitted.
fn make_node(path: &Path, header: &tar::Header) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let kind = match header.entry_type() {
        tar::EntryType::Char => FileType::CharacterDevice,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = match kind {
        FileType::Fifo => 0,
        _ => makedev(header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default()),
    };
    let mode = header.mode()? & 0o7777;
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode & 0o777), device)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

struct Sending {
    archive: bool,
    follow: bool,
}

async fn send(app: &App, from: &str, container: &str, path: &str, how: Sending) -> anyhow::Result<u64> {
    // A symlink at the end means where it leads, and nothing there is a new name.
    let mut path = path.to_owned();
    let mut there = None;
    let mut missing = None;
    match stat(app, container, &path).await {
        Ok(found) if has(&found, IS_SYMLINK) => {
            path = found["linkTarget"].as_str().unwrap_or_default().to_owned();
            there = stat(app, container, &path).await.ok();
        }
        Ok(found) => there = Some(found),
        Err(e) if is_not_found(&e) => missing = Some(e),
        Err(e) => return Err(e),
    }
    let there = there.map(|found| has(&found, IS_DIRECTORY));
    let query = |directory: &str| {
        let query = Query::new().with("path", directory).with("noOverwriteDirNonDir", "true");
        if how.archive { query.with("copyUIDGID", "true") } else { query }
    };
    let url = |directory: &str| format!("/containers/{}/archive{}", segment(container), query(directory));
    if from == "-" {
        if there != Some(true) {
            // A container that is not there has no destinations.
            if let Some(e) = missing.filter(|e| e.to_string().contains("No such container")) {
                return Err(e);
            }
            return Err(fail(format_args!("destination \"{container}:{path}\" must be a directory")));
        }
        app.client.open(Method::PUT, &url(&path), from_reader(tokio::io::stdin()), "application/x-tar").await?;
        return Ok(0);
    }
    let source = Path::new(from);
    let looked = if how.follow || from.ends_with('/') { fs::metadata(source) } else { fs::symlink_metadata(source) };
    let facts = looked.map_err(|e| fail(format_args!("lstat {from}: {}", go_error(&e))))?;
    let absolute = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    let mut placing = place(&absolute, there, facts.is_dir()).map_err(fail)?;
    // The contents of a directory, not the directory.
    let contents = facts.is_dir() && (from.ends_with("/.") || from == ".");
    if placing.rename.is_none() && !contents {
        placing.rename = fs::canonicalize(source).ok().and_then(|real| {
            let named = source.file_name().map(ToOwned::to_owned).or_else(|| real.file_name().map(ToOwned::to_owned));
            named.map(|n| n.to_string_lossy().into_owned())
        });
        placing.rename = placing.rename.or_else(|| source.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    let name = placing.rename.unwrap_or_else(|| ".".to_owned());
    let (ours, theirs) = pipe()?;
    let (source, follow) = (source.to_owned(), how.follow);
    let packing = tokio::task::spawn_blocking(move || pack(&source, &facts, &name, follow, theirs));
    let directory = placing.directory.display().to_string();
    let sent = app.client.open(Method::PUT, &url(&directory), from_reader(ours), "application/x-tar").await;
    // What cannot be read here comes first: the daemon only sees an archive that is cut short.
    let packed = packing.await?;
    sent.map_err(|e| match &packed {
        Err(local) if local.downcast_ref::<io::Error>().is_none_or(|e| e.kind() != io::ErrorKind::BrokenPipe) => {
            fail(local)
        }
        _ => e,
    })?;
    packed
}

/// Writes a file or a tree as a tar, under another name; how many bytes it took.
fn pack(source: &Path, facts: &Metadata, name: &str, follow: bool, to: UnixStream) -> anyhow::Result<u64> {
    let mut archive = tar::Builder::new(Counting(io::BufWriter::with_capacity(128 * 1024, to), 0));
    archive.follow_symlinks(false);
    if facts.is_dir() {
        archive.append_dir_all(name, source)?;
    } else if facts.is_symlink() && !follow {
        archive.append_path_with_name(source, name)?;
    } else {
        archive.append_path_with_name(fs::canonicalize(source)?, name)?;
    }
    archive.finish()?;
    let mut counting = archive.into_inner()?;
    counting.flush()?;
    Ok(counting.1)
}

struct Counting<W>(W, u64);

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1 += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_words_stay_below_the_destination() {
        let (root, parent) = (Path::new("/dest"), Path::new("/dest/d"));
        for (link, stays) in [
            ("x", true),
            ("../x", true),
            ("../../x", false),
            ("/etc/passwd", true),
            ("../../dest/x", true),
            ("a/../../../x", false),
        ] {
            assert_eq!(stays_below(root, parent, Path::new(link)), stays, "{link}");
        }
    }

    #[test]
    fn a_colon_names_a_container_unless_the_text_is_a_path() {
        assert_eq!(Side::of("web:/a:b"), Side::In("web", "/a:b"));
        for here in ["/a:b", "./a:b", "../a:b", "-", "a", ":x"] {
            assert_eq!(Side::of(here), Side::Here(here));
        }
    }

    #[test]
    fn a_copy_lies_where_cp_would_put_it() {
        let placed = |to: &str, there, is_directory| {
            place(to, there, is_directory).map(|p| (p.directory.display().to_string(), p.rename))
        };
        let new = |directory: &str, name: &str| Ok((directory.to_owned(), Some(name.to_owned())));
        assert_eq!(placed("/srv", Some(true), true), Ok(("/srv".to_owned(), None)));
        assert_eq!(placed("/srv/x", None, true), new("/srv", "x"));
        assert_eq!(placed("x", None, false), new(".", "x"));
        assert_eq!(placed("/srv/x", Some(false), false), new("/srv", "x"));
        assert_eq!(placed("/srv/x", Some(false), true), Err("cannot copy directory".to_owned()));
        assert_eq!(placed("/srv/x/", None, false), Err("no such directory".to_owned()));
    }

    #[test]
    fn an_archive_writes_nothing_outside() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("to");
        fs::create_dir(&inner).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, "d/out", directory.path()).unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, "d/out/evil", io::empty()).unwrap();
        fs::create_dir(inner.join("d")).unwrap();
        let placing = Placing { directory: inner, rename: None };
        let refused = unpack(&archive.into_inner().unwrap()[..], &placing).unwrap_err();
        assert!(refused.to_string().contains("leads out"), "{refused}");
        assert!(!directory.path().join("evil").exists());
    }
}
