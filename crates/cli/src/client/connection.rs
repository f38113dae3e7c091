//! Talks to the daemon: HTTP/1.1 over a unix socket or loopback, one connection that is used again while its answers are short, and
//! one of its own for each stream.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The version of the API that this client speaks.
pub const API: &str = "1.51";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A refusal by the daemon.
#[derive(Debug, thiserror::Error)]
#[error("Error response from daemon: {message}")]
pub struct Refused {
    pub status: u16,
    pub message: String,
}

/// Whether an error is the daemon's 404.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.status == 404)
}

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Query {
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let mark = if self.0.is_empty() { '?' } else { '&' };
        let _ = write!(self.0, "{mark}{name}={}", escape(value.as_ref(), b""));
        self
    }
    /// Adds a parameter unless it is empty.
    #[must_use]
    pub fn some(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }
    /// Adds `name=1` where `on`.
    #[must_use]
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.with(name, "1") } else { self }
    }
    /// Filters, `key=value` each, in the API's form.
    #[must_use]
    pub fn filters(self, filters: &[String]) -> Self {
        let mut map = serde_json::Map::new();
        for filter in filters.iter().filter(|f| !f.is_empty()) {
            // `label!=x` is the key `label!`.
            let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
            let values =
                map.entry(key.trim().to_ascii_lowercase()).or_insert_with(|| Value::Object(Default::default()));
            values[value.trim()] = Value::Bool(true);
        }
        if map.is_empty() { self } else { self.with("filters", Value::Object(map).to_string()) }
    }
}

/// A name as one part of a path.
pub fn segment(name: &str) -> String {
    escape(name, b":@")
}

/// The name of an image as part of a path: it has slashes of its own.
pub fn image_segment(name: &str) -> String {
    escape(name, b"/:@")
}

fn escape(text: &str, allowed: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || allowed.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// A stream that the daemon has handed over.
pub struct Stream {
    pub io: TokioIo<Upgraded>,
    /// Whether output comes in frames; else it is a terminal's.
    pub framed: bool,
}

/// Where a daemon listens.
enum Address {
    Unix(PathBuf),
    /// A host and a port, of this machine: what goes there is not encrypted.
    Tcp(String),
}

impl Address {
    fn parse(host: &str) -> anyhow::Result<Self> {
        match host.split_once("://") {
            Some(("unix", path)) => Ok(Address::Unix(PathBuf::from(path))),
            None if host.starts_with('/') => Ok(Address::Unix(PathBuf::from(host))),
            Some(("tcp", address)) => {
                let address = address.trim_end_matches('/');
                let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let (name, port) = address.rsplit_once(':').filter(|_| has_port).unwrap_or((address, "2375"));
                let name = if name.is_empty() { "127.0.0.1" } else { name };
                let bare = name.trim_start_matches('[').trim_end_matches(']');
                if bare != "localhost" && !bare.parse::<IpAddr>().is_ok_and(|a| a.is_loopback()) {
                    bail!(
                        "cannot connect to {host}: only addresses of this machine are reached by tcp, without TLS; forward a port of it, by ssh -L"
                    );
                }
                Ok(Address::Tcp(format!("{name}:{port}")))
            }
            Some((scheme, _)) => {
                bail!("cannot connect to {host}: {scheme} is not supported, only unix://PATH and tcp://127.0.0.1:PORT")
            }
            None => bail!("unable to parse docker host `{host}`"),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The daemon, as the client sees it.
pub struct Client {
    address: Address,
    host: String,
    program: String,
    idle: RefCell<Option<SendRequest<Body>>>,
}

impl Client {
    /// # Errors
    /// The address is none that is supported.
    pub fn new(host: &str, program: &str) -> anyhow::Result<Self> {
        let address = Address::parse(host)?;
        let host = address.to_string();
        Ok(Self { address, host, program: program.to_owned(), idle: RefCell::default() })
    }

    /// Where the daemon is, as a URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether somebody listens.
    ///
    /// # Errors
    /// Nobody does, or we may not connect.
    pub async fn probe(&self) -> std::io::Result<()> {
        match &self.address {
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        }
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Body>> {
        let unreachable = |e| self.unreachable(&e);
        match &self.address {
            Address::Unix(path) => speak(UnixStream::connect(path).await.map_err(unreachable)?).await,
            Address::Tcp(address) => speak(TcpStream::connect(address).await.map_err(unreachable)?).await,
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> anyhow::Error {
        let (name, host) = (&self.program, &self.host);
        let capital = name.get(..1).unwrap_or_default().to_uppercase() + name.get(1..).unwrap_or_default();
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return anyhow!("permission denied while trying to connect to the {capital} daemon socket at {host}");
        }
        anyhow!("Cannot connect to the {capital} daemon at {host}. Is the {name} daemon running?")
    }

    async fn send(&self, request: Request<Body>) -> anyhow::Result<(Response<Incoming>, SendRequest<Body>)> {
        let kept = self.idle.borrow_mut().take();
        let mut sender = match kept.filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await.map_err(|_| self.gone())?;
        let response = sender.send_request(request).await.map_err(|_| self.gone())?;
        Ok((response, sender))
    }

    fn gone(&self) -> anyhow::Error {
        anyhow!("the daemon at {} went away before it answered", self.host)
    }

    fn request(&self, method: Method, path: &str, body: Body, content_type: &str) -> anyhow::Result<Request<Body>> {
        let builder = Request::builder()
            .method(method)
            .uri(format!("/v{API}{path}"))
            .header("Host", "isle")
            .header("User-Agent", concat!("isle/", env!("CARGO_PKG_VERSION")));
        let builder = if content_type.is_empty() { builder } else { builder.header("Content-Type", content_type) };
        builder.body(body).with_context(|| format!("cannot ask for {path}"))
    }

    /// Asks, with any body, and takes the answer when its headers are there.
    ///
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn open(&self, method: Method, path: &str, body: Body, kind: &str) -> anyhow::Result<Response<Incoming>> {
        self.open_as(method, path, body, kind, None).await
    }

    /// The same, and says who we are to registries, in one of their headers.
    ///
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn open_as(
        &self,
        method: Method,
        path: &str,
        body: Body,
        kind: &str,
        account: Option<(&'static str, String)>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = self.request(method, path, body, kind)?;
        if let Some((name, value)) = account {
            request.headers_mut().insert(name, value.parse().context("cannot be a header's value")?);
        }
        let (response, sender) = self.send(request).await?;
        if response.status().is_success() || response.status() == 304 {
            return Ok(response);
        }
        let refused = refusal(response).await;
        *self.idle.borrow_mut() = Some(sender);
        Err(refused)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (bytes, kind) = body.map_or((Bytes::new(), ""), |b| (b.to_string().into(), "application/json"));
        let (response, sender) = self.send(self.request(method, path, full(bytes), kind)?).await?;
        let ok = response.status().is_success() || response.status() == 304;
        let answer = if ok {
            let bytes = response.into_body().collect().await.map_err(|_| self.gone())?.to_bytes();
            if bytes.iter().all(u8::is_ascii_whitespace) {
                Ok(Value::Null)
            } else {
                serde_json::from_slice(&bytes).with_context(|| format!("cannot read the daemon's answer to {path}"))
            }
        } else {
            Err(refusal(response).await)
        };
        *self.idle.borrow_mut() = Some(sender);
        answer
    }

    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::POST, path, None).await
    }
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn post_json(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// Asks for a stream without a body.
    ///
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn stream(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        self.open(method, path, full(Bytes::new()), "").await
    }

    /// Takes a connection over.
    ///
    /// # Errors
    /// The daemon refuses, or does not answer.
    pub async fn hijack(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Stream> {
        let bytes = body.map_or(Bytes::new(), |b| b.to_string().into());
        let mut request = self.request(Method::POST, path, full(bytes), "application/json")?;
        request.headers_mut().insert("Connection", hyper::header::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert("Upgrade", hyper::header::HeaderValue::from_static("tcp"));
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|_| self.gone())?;
        if response.status() != 101 {
            return Err(refusal(response).await);
        }
        let kind = response.headers().get("Content-Type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let framed = kind != "application/vnd.docker.raw-stream";
        let io = hyper::upgrade::on(response).await.context("cannot take the connection over")?;
        Ok(Stream { io: TokioIo::new(io), framed })
    }
}

/// Begins to speak HTTP on a connection.
async fn speak(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> anyhow::Result<SendRequest<Body>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

async fn refusal(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let told = serde_json::from_slice::<Value>(&bytes).ok();
    let message = told.as_ref().and_then(|v| v["message"].as_str().map(str::to_owned));
    let message = message.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() { status.to_string() } else { text }
    });
    Refused { status: status.as_u16(), message }.into()
}

/// A body that is known.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is read as it is sent.
pub fn from_reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Body {
    Reader(reader, vec![0; 128 * 1024]).boxed_unsync()
}

struct Reader<R>(R, Vec<u8>);

impl<R: AsyncRead + Unpin> HttpBody for Reader<R> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        let mut buffer = tokio::io::ReadBuf::new(&mut this.1);
        Poll::Ready(match ready!(Pin::new(&mut this.0).poll_read(context, &mut buffer)) {
            Err(e) => Some(Err(e)),
            Ok(()) if buffer.filled().is_empty() => None,
            Ok(()) => Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled())))),
        })
    }
}

/// An answer's bytes, as they come.
pub struct Chunks(pub Response<Incoming>);

impl Chunks {
    /// The next bytes; None at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.0.body_mut().frame().await {
            if let Ok(bytes) = frame.context("the daemon went away")?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// An answer that is one JSON value after another.
pub struct Values {
    chunks: Chunks,
    buffer: Vec<u8>,
}

impl Values {
    pub fn new(response: Response<Incoming>) -> Self {
        Self { chunks: Chunks(response), buffer: Vec::new() }
    }

    /// The next value; None at the end.
    ///
    /// # Errors
    /// The connection broke, or what comes is no JSON.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.buffer.drain(..used);
                    return Ok(Some(value));
                }
                Some(Err(e)) if !e.is_eof() => return Err(e).context("cannot read the daemon's answer"),
                _ => {}
            }
            match self.chunks.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        let query = Query::new().with("name", "a b&c").some("x", "").flag("all", true).flag("no", false);
        assert_eq!(query.0, "?name=a%20b%26c&all=1");
        assert_eq!(image_segment("localhost:5000/a/b@sha256:1 ?"), "localhost:5000/a/b@sha256:1%20%3F");
        assert_eq!(segment("a/b"), "a%2Fb");
    }

    #[test]
    fn filters_are_a_map_of_sets() {
        let query = Query::new().filters(&["name=a".into(), "name=b".into(), "label=x=y".into(), "label!=z".into()]);
        assert!(query.0.contains("%7B%22name%22%3A%7B%22a%22%3Atrue%2C%22b%22%3Atrue%7D"), "{}", query.0);
        assert!(query.0.contains("x%3Dy"));
        assert!(query.0.contains("label!%22".replace('!', "%21").as_str()));
    }

    #[test]
    fn hosts_are_on_this_machine() {
        let host = |text| Client::new(text, "isle").map(|client| client.host().to_owned());
        for (text, known) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("tcp://127.0.0.1:4000", "tcp://127.0.0.1:4000"),
            ("tcp://[::1]:4000/", "tcp://[::1]:4000"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://localhost", "tcp://localhost:2375"),
            ("tcp://:4000", "tcp://127.0.0.1:4000"),
        ] {
            assert_eq!(host(text).unwrap(), known);
        }
        for elsewhere in ["tcp://1.2.3.4:2375", "ssh://host", "tcp://example.org:2375"] {
            assert!(host(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
