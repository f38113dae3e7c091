//! Receiving files from a client, by the protocol of fsutil's `DiffCopy`, as a tar.
//!
//! ```text
//! client:  STAT a directory   STAT a file (the 1st)  …  STAT without a file: that was all
//! we:                         REQ 1                     REQ 7  …                 FIN
//! client:                     DATA 1 …  DATA 1 empty: its end      DATA 7 …           FIN
//! ```
//!
//! Files are asked for in the order in which they come, a few ahead, so that each goes into the tar when it is its
//! turn. Ids are places in the list of everything that was told, from 0.

use crate::LONGEST;
use crate::session::Session;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};

/// So many bytes are asked for ahead.
const AHEAD: i64 = 4 << 20;
/// And so many files.
const FILES_AHEAD: usize = 64;

/// Which files of a client's directory are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// What the client calls the directory.
    pub(crate) directory: String,
    /// Only these, and what they lead to; empty is everything.
    pub(crate) follow: Vec<String>,
    /// As a `.dockerignore` has them.
    pub(crate) exclude: Vec<String>,
}

/// Kinds of files, as Go's `fs.FileMode` has them; a regular file is none of them.
mod mode {
    pub(super) const DIRECTORY: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const OTHER: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
    pub(super) const KINDS: u32 = DIRECTORY | SYMLINK | OTHER;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const STICKY: u32 = 1 << 20;
}

impl Session {
    /// Writes files of a client's directory as a tar; how many bytes have come is told to `progress`.
    ///
    /// # Errors
    /// The client does not give them, or nobody takes them.
    pub(crate) async fn receive(
        &self,
        wanted: Wanted,
        to: impl AsyncWrite + Unpin,
        progress: impl FnMut(u64) + Send,
    ) -> Result<(), Status> {
        let mut client = FileSyncClient::new(self.channel.clone()).max_decoding_message_size(LONGEST);
        let (packets, outgoing) = mpsc::channel::<Packet>(FILES_AHEAD);
        let outgoing = futures_util::stream::unfold(outgoing, |mut o| async { o.recv().await.map(|p| (p, o)) });
        let mut request = Request::new(outgoing);
        add_header(&mut request, "dir-name", &[wanted.directory])?;
        add_header(&mut request, "followpaths", &wanted.follow)?;
        add_header(&mut request, "exclude-patterns", &wanted.exclude)?;
        let incoming = client.diff_copy(request).await?.into_inner();
        let mut receiver = Receiver {
            packets,
            incoming,
            waiting: VecDeque::new(),
            coming: BTreeMap::new(),
            missing: None,
            to,
            progress,
            bytes: 0,
        };
        receiver.run().await
    }
}

/// A header of any text: what is not ASCII is written as in addresses, which another header says.
fn add_header<T>(request: &mut Request<T>, name: &'static str, values: &[String]) -> Result<(), Status> {
    let encoded = values.iter().any(|v| !v.is_ascii());
    for value in values {
        let escape = |b: u8| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        let text = if encoded { value.bytes().map(escape).collect() } else { value.clone() };
        let text = MetadataValue::try_from(text.as_str())
            .map_err(|_| Status::invalid_argument(format!("{value:?} cannot be said to the client")))?;
        request.metadata_mut().append(name, text);
    }
    if encoded {
        let key = tonic::metadata::MetadataKey::from_bytes(format!("{name}-encoded").as_bytes());
        request.metadata_mut().insert(key.expect("a constant name"), MetadataValue::from_static("1"));
    }
    Ok(())
}

struct Receiver<W, P> {
    packets: mpsc::Sender<Packet>,
    incoming: Streaming<Packet>,
    /// Told, and not yet written; with their ids.
    waiting: VecDeque<(u32, Stat)>,
    /// Asked for: what of them has come, and whether that was all.
    coming: BTreeMap<u32, (Vec<u8>, bool)>,
    /// Of a file that is written while it comes: how much is missing of what its entry promises.
    missing: Option<u64>,
    to: W,
    progress: P,
    bytes: u64,
}

impl<W: AsyncWrite + Unpin, P: FnMut(u64) + Send> Receiver<W, P> {
    async fn run(&mut self) -> Result<(), Status> {
        let (mut next, mut all_told) = (0, false);
        loop {
            self.write_what_can_be().await?;
            self.ask().await?;
            if all_told && self.waiting.is_empty() {
                break;
            }
            let Some(packet) = self.incoming.message().await? else {
                return Err(Status::aborted("the client ended its files in the middle"));
            };
            match (packet.r#type(), packet.stat) {
                (PacketType::PacketStat, Some(stat)) => {
                    self.waiting.push_back((next, stat));
                    next += 1;
                }
                (PacketType::PacketStat, None) => all_told = true,
                (PacketType::PacketData, _) => self.take(packet.id, &packet.data).await?,
                (PacketType::PacketErr, _) => {
                    return Err(Status::aborted(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                (PacketType::PacketReq | PacketType::PacketFin, _) => {}
            }
        }
        // two blocks of nothing end a tar
        self.write(&[0; 1024]).await?;
        self.to.shutdown().await.map_err(not_taken)?;
        let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
        let _ = self.packets.send(fin).await;
        // the client says the same, and goes
        while let Ok(Some(packet)) = self.incoming.message().await {
            if packet.r#type() == PacketType::PacketFin {
                break;
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.to.write_all(bytes).await.map_err(not_taken)
    }

    /// Asks for the files that come next.
    async fn ask(&mut self) -> Result<(), Status> {
        let mut bytes = 0;
        let mut asked = Vec::new();
        for (id, stat) in self.waiting.iter().take(FILES_AHEAD * 4) {
            if !is_wanted(stat) {
                continue;
            }
            // a large one waits until it is its turn: it is not kept in memory
            let is_first = self.waiting.front().is_some_and(|(first, _)| first == id);
            if bytes > AHEAD || asked.len() + self.coming.len() > FILES_AHEAD || (stat.size > AHEAD && !is_first) {
                break;
            }
            bytes += stat.size;
            if !self.coming.contains_key(id) {
                asked.push(*id);
            }
        }
        for id in asked {
            self.coming.insert(id, (Vec::new(), false));
            let request = Packet { r#type: PacketType::PacketReq.into(), id, ..Packet::default() };
            self.packets.send(request).await.map_err(|_| Status::aborted("the client takes no requests"))?;
        }
        Ok(())
    }

    async fn take(&mut self, id: u32, data: &[u8]) -> Result<(), Status> {
        self.bytes += data.len() as u64;
        (self.progress)(self.bytes);
        let large = self.waiting.front().filter(|(first, stat)| *first == id && stat.size > AHEAD);
        let Some((content, whole)) = self.coming.get_mut(&id) else {
            return Err(Status::invalid_argument(format!("the client sends file {id}, which nobody has asked for")));
        };
        let Some((_, stat)) = large else {
            *whole |= data.is_empty();
            content.extend_from_slice(data);
            return Ok(());
        };
        let size = u64::try_from(stat.size).unwrap_or(0);
        let missing = match self.missing {
            Some(missing) => missing,
            None => {
                let mut head = entry(stat, &[]).map_err(not_taken)?.unwrap_or_default();
                set_size(&mut head, size);
                self.write(&head).await?;
                size
            }
        };
        if !data.is_empty() {
            // what is more than promised has been written since: the promise counts
            let part = &data[..data.len().min(usize::try_from(missing).unwrap_or(usize::MAX))];
            self.write(part).await?;
            self.missing = Some(missing - part.len() as u64);
            return Ok(());
        }
        let padding = missing + (512 - size % 512) % 512;
        let nothing = vec![0; 1 << 16];
        let mut left = padding;
        while left > 0 {
            let part = left.min(nothing.len() as u64);
            self.write(&nothing[..part as usize]).await?;
            left -= part;
        }
        self.missing = None;
        self.coming.remove(&id);
        self.waiting.pop_front();
        Ok(())
    }

    /// Writes everything up to the first file that has not come yet.
    async fn write_what_can_be(&mut self) -> Result<(), Status> {
        while let Some((id, stat)) = self.waiting.front() {
            let content = match self.coming.get(id) {
                Some((_, true)) => self.coming.remove(id).map(|(c, _)| c).unwrap_or_default(),
                None if !is_wanted(stat) => Vec::new(),
                _ => return Ok(()),
            };
            let (_, stat) = self.waiting.pop_front().expect("it is there");
            let Some(entry) = entry(&stat, &content).map_err(not_taken)? else { continue };
            self.write(&entry).await?;
        }
        Ok(())
    }
}

/// A regular file with content of its own, not one more name of another.
fn is_wanted(stat: &Stat) -> bool {
    stat.mode & mode::KINDS == 0 && stat.linkname.is_empty()
}

fn not_taken(error: io::Error) -> Status {
    Status::internal(format!("cannot keep the client's files: {error}"))
}

/// An entry of a tar; None for what a build has no use for: devices and sockets.
fn entry(stat: &Stat, content: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut header = tar::Header::new_gnu();
    let mut permissions = stat.mode & 0o777;
    for (flag, bit) in [(mode::SETUID, 0o4000), (mode::SETGID, 0o2000), (mode::STICKY, 0o1000)] {
        permissions |= if stat.mode & flag != 0 { bit } else { 0 };
    }
    header.set_mode(permissions);
    header.set_uid(u64::from(stat.uid));
    header.set_gid(u64::from(stat.gid));
    // nanoseconds
    header.set_mtime(u64::try_from(stat.mod_time / 1_000_000_000).unwrap_or(0));
    let mut archive = tar::Builder::new(Vec::new());
    // a client on Windows may write paths in its way
    let path = stat.path.trim_start_matches('/');
    match stat.mode & mode::KINDS {
        mode::DIRECTORY => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            archive.append_data(&mut header, format!("{path}/"), io::empty())?;
        }
        mode::SYMLINK => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, path, &stat.linkname)?;
        }
        0 if !stat.linkname.is_empty() => {
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            archive.append_link(&mut header, path, stat.linkname.trim_start_matches('/'))?;
        }
        0 => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content)?;
        }
        _ => return Ok(None),
    }
    // without the end of an archive
    let mut bytes = archive.into_inner()?;
    bytes.truncate(bytes.len().saturating_sub(1024));
    Ok(Some(bytes))
}

/// Says another size in the last block of an entry, its header.
fn set_size(entry: &mut [u8], size: u64) {
    let at = entry.len() - 512;
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&entry[at..]);
    header.set_size(size);
    header.set_cksum();
    entry[at..].copy_from_slice(header.as_bytes());
}

/// A file of a tar that is in memory.
pub(crate) fn file_of(archive: &[u8], path: &str) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let found = archive
        .entries()
        .ok()?
        .filter_map(Result::ok)
        .find(|entry| entry.header().entry_type().is_file() && entry.path().is_ok_and(|p| p.as_os_str() == path));
    let mut content = Vec::new();
    found?.read_to_end(&mut content).ok()?;
    Some(content)
}
