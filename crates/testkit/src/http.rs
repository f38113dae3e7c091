//! The API, byte for byte: one request a connection.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// # Panics
    /// The body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    /// What `{"message": …}` says.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request with a body, and reads the response to its end.
///
/// # Errors
/// Nobody answers within half a minute.
pub fn request(socket: &Path, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Response> {
    let kind = if body.first() == Some(&b'{') { "application/json" } else { "application/x-tar" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: isle\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = raw(socket, head.as_bytes())?;
    // A server that refuses early need not read the body: its answer is what counts.
    let sent = stream.write_all(body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("{method} {path}"))?;
    if bytes.is_empty() {
        sent?;
    }
    parse(&bytes)
}

/// Sends bytes, and gives the connection.
///
/// # Errors
/// Nobody listens.
pub fn raw(socket: &Path, bytes: &[u8]) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// Takes a connection over, as docker does, and reads the stream to its end.
///
/// # Errors
/// The connection is not handed over.
pub fn stream(socket: &Path, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: isle\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = raw(socket, head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").context("no end of headers")?;
    if !bytes.starts_with(b"HTTP/1.1 101") {
        bail!("not handed over: {}", String::from_utf8_lossy(&bytes));
    }
    Ok(bytes.split_off(end + 4))
}

/// The two streams in Docker's frames.
pub fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let [kind, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        if *kind == 2 { &mut stderr } else { &mut stdout }.extend(&rest[..length]);
        bytes = &rest[length..];
    }
    (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn parse(bytes: &[u8]) -> anyhow::Result<Response> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").context("no end of headers")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).context("no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v.contains("chunked"));
    let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
    Ok(Response { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else { bail!("a chunk without length") };
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Ok(body);
        }
        body.extend(rest.get(..length).context("a chunk is cut short")?);
        rest = rest.get(length + 2..).context("a chunk without end")?;
    }
}
