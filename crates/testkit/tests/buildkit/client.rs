//! A client that does what buildx's `docker` driver does: it upgrades two connections, serves files by the one and leads
//! its builds by the other.

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self, PingRequest, ReturnRequest};
use bollard_buildkit_proto::moby::buildkit::v1::{
    Exporter, InfoRequest, ListWorkersRequest, SolveRequest, StatusRequest, StatusResponse, Vertex,
};
use bollard_buildkit_proto::moby::filesync::packet::file_send_server::{
    FileSend as FilesSend, FileSendServer as FilesSendServer,
};
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::{FileSend, FileSendServer};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

type Bits<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The files that a client gives, and what it has received.
#[derive(Clone, Default)]
pub struct Offer {
    /// By their directories and paths.
    files: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    takes_files: bool,
    secrets: BTreeMap<String, Vec<u8>>,
    bytes: Arc<Mutex<Vec<u8>>>,
    received: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Offer {
    pub fn file(mut self, directory: &str, path: &str, content: &str) -> Self {
        self.files.entry(directory.to_owned()).or_default().insert(path.to_owned(), content.into());
        self
    }
    pub fn secret(mut self, id: &str, content: &str) -> Self {
        self.secrets.insert(id.to_owned(), content.into());
        self
    }
    /// What is exported comes as files, not as one stream of bytes.
    pub fn taking_files(self) -> Self {
        Self { takes_files: true, ..self }
    }
}

pub struct Client {
    channel: Channel,
    session: String,
    offer: Offer,
    next: Mutex<usize>,
}

/// What came of a build.
#[derive(Debug)]
pub struct Solved {
    pub response: HashMap<String, String>,
    pub progress: Progress,
}

/// What was told of a build.
#[derive(Debug, Default)]
pub struct Progress(Vec<StatusResponse>);

impl Progress {
    fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.0.iter().flat_map(|r| &r.vertexes)
    }
    pub fn names(&self) -> Vec<String> {
        self.vertices().map(|v| v.name.clone()).collect()
    }
    pub fn all_completed(&self) -> bool {
        let completed = |v: &Vertex| self.vertices().any(|other| other.digest == v.digest && other.completed.is_some());
        self.vertices().all(completed)
    }
    pub fn is_cached(&self, name: &str) -> bool {
        self.vertices().any(|v| v.name == name && v.cached && v.completed.is_some())
    }
    pub fn error(&self, name: &str) -> String {
        self.vertices().filter(|v| v.name == name).map(|v| v.error.clone()).collect()
    }
    pub fn log(&self) -> String {
        self.0.iter().flat_map(|r| &r.logs).map(|l| String::from_utf8_lossy(&l.msg).into_owned()).collect()
    }
}

/// Upgrades a connection.
async fn dial(socket: &Path, path: &str, headers: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{headers}Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.to_ascii_lowercase().contains("upgrade: h2c"), "{head}");
    stream
}

/// Gives its one connection to tonic.
struct Once(Option<UnixStream>);

impl Service<Uri> for Once {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("gone")))
    }
}

/// A request that belongs to a build.
fn of_build<T>(message: T, id: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", id.parse().unwrap());
    request
}

impl Client {
    pub async fn open(socket: &Path, offer: Offer) -> Self {
        let session = format!("session-{:p}", &offer.bytes);
        let headers = format!(
            "X-Docker-Expose-Session-Uuid: {session}\r\nX-Docker-Expose-Session-Name: test\r\n\
             X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/diffcopy\r\n"
        );
        let stream = dial(socket, "/session", &headers).await;
        let mut server = Server::builder()
            .add_service(FileSyncServer::new(offer.clone()))
            .add_service(SecretsServer::new(offer.clone()));
        server = match offer.takes_files {
            true => server.add_service(FilesSendServer::new(offer.clone())),
            false => server.add_service(FileSendServer::new(offer.clone())),
        };
        tokio::spawn(server.serve_with_incoming(stream::iter([Ok::<_, std::io::Error>(stream)])));
        let stream = dial(socket, "/grpc", "").await;
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(Once(Some(stream))).await.unwrap();
        Self { channel, session, offer, next: Mutex::default() }
    }

    pub fn received_bytes(&self) -> Vec<u8> {
        self.offer.bytes.lock().unwrap().clone()
    }
    pub fn received_files(&self) -> BTreeMap<String, Vec<u8>> {
        self.offer.received.lock().unwrap().clone()
    }

    fn new_id(&self) -> String {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        format!("{}-{next}", self.session)
    }

    fn request(&self, id: &str, exporters: &[(&str, Pairs<'_>)]) -> SolveRequest {
        let pairs = |p: Pairs<'_>| p.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let exporters =
            exporters.iter().map(|(kind, attrs)| Exporter { r#type: (*kind).to_owned(), attrs: pairs(attrs) });
        SolveRequest {
            r#ref: id.to_owned(),
            session: self.session.clone(),
            exporters: exporters.collect(),
            ..SolveRequest::default()
        }
    }

    async fn watch(&self, id: &str) -> Progress {
        let mut control = ControlClient::new(self.channel.clone());
        let mut told = control.status(StatusRequest { r#ref: id.to_owned() }).await.unwrap().into_inner();
        let mut progress = Progress::default();
        while let Ok(Some(more)) = told.message().await {
            progress.0.push(more);
        }
        progress
    }

    /// A build that the server leads.
    pub async fn solve(
        &self,
        frontend: &str,
        attrs: Pairs<'_>,
        exporters: &[(&str, Pairs<'_>)],
    ) -> Result<Solved, (Status, Progress)> {
        let id = self.new_id();
        let mut request = self.request(&id, exporters);
        request.frontend = frontend.to_owned();
        request.frontend_attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut control = ControlClient::new(self.channel.clone());
        let (solved, progress) = tokio::join!(control.solve(request), self.watch(&id));
        match solved {
            Ok(response) => Ok(Solved { response: response.into_inner().exporter_response, progress }),
            Err(e) => Err((e, progress)),
        }
    }

    /// A build that the client leads, as buildx's do: without a front end there is nothing to build.
    pub async fn lead(
        &self,
        attrs: Pairs<'_>,
        exporters: &[(&str, Pairs<'_>)],
        frontend: Option<&str>,
    ) -> Result<Solved, (Status, Progress)> {
        let mut control = ControlClient::new(self.channel.clone());
        let workers = control.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner().record;
        assert_eq!(workers.len(), 1);
        // a store of containerd's would say other exporters
        assert!(!workers[0].labels.contains_key("org.mobyproject.buildkit.worker.snapshotter"));
        assert!(control.info(InfoRequest {}).await.unwrap().into_inner().buildkit_version.is_some());
        let id = self.new_id();
        let request = self.request(&id, exporters);
        let mut gateway = LlbBridgeClient::new(self.channel.clone());
        let leading = async {
            let pong = gateway.ping(of_build(PingRequest {}, &id)).await.unwrap().into_inner();
            assert!(pong.frontend_api_caps.iter().any(|c| c.id == "return" && c.enabled));
            let mut returning = ReturnRequest { result: Some(frontend::Result::default()), error: None };
            if let Some(frontend) = frontend {
                let solve = frontend::SolveRequest {
                    frontend: frontend.to_owned(),
                    frontend_opt: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                    allow_result_return: true,
                    allow_result_array_ref: true,
                    ..Default::default()
                };
                match gateway.solve(of_build(solve, &id)).await {
                    Ok(solved) => returning.result = solved.into_inner().result,
                    Err(e) => {
                        let (code, message) = (e.code() as i32, e.message().to_owned());
                        let error = bollard_buildkit_proto::google::rpc::Status { code, message, details: Vec::new() };
                        returning = ReturnRequest { result: None, error: Some(error) };
                    }
                }
            }
            gateway.r#return(of_build(returning, &id)).await.unwrap();
        };
        let (solved, progress, ()) = tokio::join!(control.solve(request), self.watch(&id), leading);
        match solved {
            Ok(response) => Ok(Solved { response: response.into_inner().exporter_response, progress }),
            Err(e) => Err((e, progress)),
        }
    }
}

#[tonic::async_trait]
impl FileSync for Offer {
    type DiffCopyStream = Bits<Packet>;
    type TarStreamStream = Bits<Packet>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Bits<Packet>>, Status> {
        let metadata = request.metadata();
        let all = |name: &str| -> Vec<String> {
            metadata.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
        };
        let (directory, follow, exclude) = (all("dir-name").remove(0), all("followpaths"), all("exclude-patterns"));
        let files = self.files.get(&directory).cloned().unwrap_or_default();
        // enough of patterns to see that they came: names, and `*.ending` but `!name`
        let is_out = |path: &str| {
            let fits = |p: &String| p == path || p.strip_prefix('*').is_some_and(|end| path.ends_with(end));
            exclude.iter().any(fits) && !exclude.contains(&format!("!{path}"))
        };
        let files: Vec<(String, Vec<u8>)> = files
            .into_iter()
            .filter(|(path, _)| (follow.is_empty() || follow.contains(path)) && !is_out(path))
            .collect();
        let (to_server, packets) = mpsc::channel(16);
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let mut contents = Vec::new();
            let mut made = std::collections::BTreeSet::new();
            for (path, content) in files {
                let parents = Path::new(&path).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
                let parents: Vec<String> = parents.map(|p| p.display().to_string()).collect();
                for parent in parents.into_iter().rev().filter(|p| made.insert(p.clone())) {
                    let stat = Stat { path: parent, mode: 1 << 31 | 0o755, ..Stat::default() };
                    to_server.send(Ok(Packet { stat: Some(stat), ..Packet::default() })).await.unwrap();
                    contents.push(Vec::new());
                }
                let stat = Stat { path, mode: 0o644, size: content.len() as i64, ..Stat::default() };
                to_server.send(Ok(Packet { stat: Some(stat), ..Packet::default() })).await.unwrap();
                contents.push(content);
            }
            to_server.send(Ok(Packet::default())).await.unwrap();
            while let Ok(Some(packet)) = incoming.message().await {
                let id = packet.id;
                match packet.r#type() {
                    PacketType::PacketReq => {
                        for data in contents[id as usize].chunks(32 << 10).chain([&[][..]]) {
                            let data = data.to_vec();
                            let part = Packet { r#type: PacketType::PacketData.into(), id, data, stat: None };
                            if to_server.send(Ok(part)).await.is_err() {
                                return;
                            }
                        }
                    }
                    PacketType::PacketFin => {
                        let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
                        let _ = to_server.send(Ok(fin)).await;
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        let packets = stream::unfold(packets, |mut p| async { p.recv().await.map(|packet| (packet, p)) });
        Ok(Response::new(Box::pin(packets)))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Bits<Packet>>, Status> {
        Err(Status::unimplemented("not by anybody"))
    }
}

#[tonic::async_trait]
impl Secrets for Offer {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let data = self.secrets.get(&request.get_ref().id).cloned();
        data.map(|data| Response::new(GetSecretResponse { data })).ok_or_else(|| Status::not_found("no such secret"))
    }
}

#[tonic::async_trait]
impl FileSend for Offer {
    type DiffCopyStream = Bits<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Bits<BytesMessage>>, Status> {
        let mut incoming = request.into_inner();
        while let Some(part) = incoming.message().await? {
            self.bytes.lock().unwrap().extend(part.data);
        }
        Ok(Response::new(Box::pin(stream::empty())))
    }
}

#[tonic::async_trait]
impl FilesSend for Offer {
    type DiffCopyStream = Bits<Packet>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Bits<Packet>>, Status> {
        let mut incoming = request.into_inner();
        let received = self.received.clone();
        let (to_server, packets) = mpsc::channel(16);
        tokio::spawn(async move {
            let (mut paths, mut wanted) = (Vec::new(), 0);
            let packet = |kind: PacketType, id| Packet { r#type: kind.into(), id, ..Packet::default() };
            while let Ok(Some(part)) = incoming.message().await {
                match (part.r#type(), part.stat.clone()) {
                    (PacketType::PacketStat, Some(stat)) => {
                        assert!(paths.last().is_none_or(|last: &String| *last < stat.path), "in their order");
                        if stat.mode >> 31 == 0 {
                            let request = packet(PacketType::PacketReq, paths.len() as u32);
                            to_server.send(Ok(request)).await.unwrap();
                            wanted += 1;
                        }
                        paths.push(stat.path);
                    }
                    (PacketType::PacketData, _) if part.data.is_empty() => {
                        wanted -= 1;
                        received.lock().unwrap().entry(paths[part.id as usize].clone()).or_default();
                        if wanted == 0 {
                            to_server.send(Ok(packet(PacketType::PacketFin, 0))).await.unwrap();
                        }
                    }
                    (PacketType::PacketData, _) => {
                        let path = paths[part.id as usize].clone();
                        received.lock().unwrap().entry(path).or_default().extend(part.data);
                    }
                    (PacketType::PacketFin, _) => return,
                    _ => {}
                }
            }
        });
        let packets = stream::unfold(packets, |mut p| async { p.recv().await.map(|packet| (packet, p)) });
        Ok(Response::new(Box::pin(packets.boxed())))
    }
}
