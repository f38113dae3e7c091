//! Sending to a client what it wants exported: a stream of bytes, or files by the protocol of fsutil's `DiffCopy`, where
//! we tell all there is, in its order, and give the content of what the client asks for.

use crate::BuildKit;
use crate::session::Session;
use crate::solve::status;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as FilesClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient as BytesClient;
use futures_util::StreamExt;
use model::image::ImageId;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, SyncIoBridge};
use tonic::{Request, Status};

/// So many bytes a message.
const PART: usize = 32 << 10;

/// Which exporter of a build a stream is for.
fn for_exporter<T>(stream: T, number: usize) -> Request<T> {
    let mut request = Request::new(stream);
    request.metadata_mut().insert("buildkit-attachable-exporter-id", number.into());
    request
}

impl BuildKit {
    /// Images as an archive, of both forms that there are.
    pub(crate) async fn send_archive(&self, session: &str, number: usize, names: Vec<String>) -> Result<(), Status> {
        let write = self.engine.save_images(names).map_err(status)?;
        self.send_bytes(session, number, write).await
    }

    /// An image's files as a tar.
    pub(crate) async fn send_files_as_tar(&self, session: &str, number: usize, id: &ImageId) -> Result<(), Status> {
        self.send_bytes(session, number, self.engine.export_image(id.clone())).await
    }

    async fn send_bytes(
        &self,
        session: &str,
        number: usize,
        write: impl FnOnce(Box<dyn Write>) -> engine::Result<()> + Send + 'static,
    ) -> Result<(), Status> {
        let session = self.sessions.find(session).await?;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let writing = tokio::task::spawn_blocking(move || write(Box::new(SyncIoBridge::new(ours))));
        let parts = ReaderStream::with_capacity(theirs, PART);
        // a pipe of our own does not fail, it ends
        let parts = parts.filter_map(|part| async { part.ok().map(|data| BytesMessage { data: data.to_vec() }) });
        let mut client = BytesClient::new(session.channel.clone());
        let sending = async {
            let mut answer = client.diff_copy(for_exporter(Box::pin(parts), number)).await?.into_inner();
            while answer.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let sent = sending.await;
        writing.await.map_err(|e| Status::internal(e.to_string()))?.map_err(status)?;
        sent
    }

    /// An image's files, each as a file.
    pub(crate) async fn send_files(&self, session: &str, number: usize, id: &ImageId) -> Result<(), Status> {
        let session = self.sessions.find(session).await?;
        let (root, write) = (self.engine.settings.root.clone(), self.engine.export_image(id.clone()));
        let files = tokio::task::spawn_blocking(move || {
            let unreadable = |e: io::Error| Status::internal(format!("cannot lay out the image's files: {e}"));
            let archive = tempfile::tempfile_in(root).map_err(unreadable)?;
            let writer = archive.try_clone().map_err(unreadable)?;
            write(Box::new(io::BufWriter::new(writer))).map_err(status)?;
            Files::of(archive).map_err(unreadable)
        });
        let files = files.await.map_err(|e| Status::internal(e.to_string()))??;
        send(&session, number, files).await
    }
}

/// The files of a tar, in fsutil's order.
struct Files {
    archive: File,
    /// With the place of their contents.
    entries: Vec<(Stat, u64)>,
}

impl Files {
    fn of(archive: File) -> io::Result<Self> {
        use std::io::Seek;
        let mut from = &archive;
        from.rewind()?;
        let mut found: Vec<(Stat, u64)> = Vec::new();
        let mut places: HashMap<String, (u64, i64)> = HashMap::new();
        let mut links: Vec<(usize, String)> = Vec::new();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_matches('/').trim_start_matches("./").to_owned();
        for entry in tar::Archive::new(&archive).entries_with_seek()? {
            let entry = entry?;
            let header = entry.header();
            let path = shown(&entry.path_bytes());
            if path.is_empty() || path == "." {
                continue;
            }
            let permissions = header.mode()?;
            let mut mode = permissions & 0o777;
            // as Go's `fs.FileMode` has them
            for (bit, flag) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
                mode |= if permissions & bit != 0 { flag } else { 0 };
            }
            let mut stat = Stat {
                path: path.clone(),
                uid: u32::try_from(header.uid()?).unwrap_or(0),
                gid: u32::try_from(header.gid()?).unwrap_or(0),
                mod_time: i64::try_from(header.mtime()?).unwrap_or(0).saturating_mul(1_000_000_000),
                ..Stat::default()
            };
            let target = entry.link_name_bytes().unwrap_or_default();
            match header.entry_type() {
                tar::EntryType::Directory => mode |= 1 << 31,
                tar::EntryType::Symlink => {
                    mode |= 1 << 27;
                    stat.linkname = String::from_utf8_lossy(&target).into_owned();
                }
                tar::EntryType::Link => links.push((found.len(), shown(&target))),
                kind if kind.is_file() => {
                    stat.size = i64::try_from(entry.size()).unwrap_or(i64::MAX);
                    places.insert(path, (entry.raw_file_position(), stat.size));
                }
                // devices are nothing for a client's directory
                _ => continue,
            }
            stat.mode = mode;
            let place = entry.raw_file_position();
            found.push((stat, place));
        }
        // one more name of a file is a file of its own there: names may come before what they name
        for (at, target) in links {
            if let Some(&(place, size)) = places.get(&target) {
                found[at].1 = place;
                found[at].0.size = size;
            }
        }
        found.sort_by_key(|(stat, _)| stat.path.replace('/', "\0"));
        Ok(Self { archive, entries: found })
    }
}

async fn send(session: &Session, number: usize, files: Files) -> Result<(), Status> {
    let (packets, outgoing) = mpsc::channel::<Packet>(64);
    let outgoing = futures_util::stream::unfold(outgoing, |mut o| async { o.recv().await.map(|p| (p, o)) });
    let mut client = FilesClient::new(session.channel.clone()).max_decoding_message_size(crate::LONGEST);
    let told: Vec<Packet> = files
        .entries
        .iter()
        .map(|(stat, _)| Packet { stat: Some(stat.clone()), ..Packet::default() })
        .chain([Packet::default()])
        .collect();
    let telling = {
        let packets = packets.clone();
        tokio::spawn(async move {
            for packet in told {
                if packets.send(packet).await.is_err() {
                    return;
                }
            }
        })
    };
    let gone = |_| Status::aborted("the client takes no files");
    let mut incoming = client.diff_copy(for_exporter(Box::pin(outgoing), number)).await?.into_inner();
    while let Some(packet) = incoming.message().await? {
        match packet.r#type() {
            PacketType::PacketReq => {
                let wanted = files.entries.get(packet.id as usize);
                let (stat, place) = wanted.ok_or_else(|| Status::invalid_argument("a file that was not told of"))?;
                let (mut at, end) = (*place, place + u64::try_from(stat.size).unwrap_or(0));
                while at < end {
                    let mut data = vec![0; PART.min(usize::try_from(end - at).unwrap_or(PART))];
                    files.archive.read_exact_at(&mut data, at).map_err(|e| Status::internal(e.to_string()))?;
                    at += data.len() as u64;
                    let part = Packet { r#type: PacketType::PacketData.into(), id: packet.id, data, stat: None };
                    packets.send(part).await.map_err(gone)?;
                }
                let end = Packet { r#type: PacketType::PacketData.into(), id: packet.id, ..Packet::default() };
                packets.send(end).await.map_err(gone)?;
            }
            PacketType::PacketFin => {
                let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
                let _ = packets.send(fin).await;
                break;
            }
            PacketType::PacketErr => {
                return Err(Status::aborted(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
    let _ = telling.await;
    drop(packets);
    while incoming.message().await?.is_some() {}
    Ok(())
}
