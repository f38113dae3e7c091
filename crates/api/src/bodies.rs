//! Bodies that are streams: tars both ways, and lines of JSON.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

/// A body as a blocking reader, for a worker's thread.
pub fn reader_of(body: Body) -> impl io::Read + Send {
    let stream = body.into_data_stream().map(|part| part.map_err(io::Error::other));
    SyncIoBridge::new(Box::pin(StreamReader::new(stream)))
}

/// Lines of JSON, as they come; an error inside the stream is the last one, since the status is out by then.
pub fn json_lines(lines: mpsc::UnboundedReceiver<Value>) -> impl IntoResponse {
    json_lines_after(None, lines)
}

/// The same, after one that was taken already.
pub fn json_lines_after(first: Option<Value>, lines: mpsc::UnboundedReceiver<Value>) -> impl IntoResponse {
    let stream = futures_util::stream::unfold((first, lines), |(first, mut lines)| async move {
        let line = match first {
            Some(first) => first,
            None => lines.recv().await?,
        };
        Some((Ok::<_, io::Error>(Bytes::from(format!("{line}\r\n"))), (None, lines)))
    });
    ([("Content-Type", "application/json")], Body::from_stream(stream))
}

/// How a failure looks inside a stream. docker's client exits with the code.
pub fn stream_error(message: &str, code: Option<i32>) -> Value {
    let mut detail = json!({ "message": message });
    if let Some(code) = code {
        detail["code"] = code.into();
    }
    json!({ "errorDetail": detail, "error": message })
}

/// A tar that is written while it is read. Its status is out by then: what fails cuts it short.
pub fn tar_stream(write: impl FnOnce(Box<dyn Write>) -> engine::Result<()> + Send + 'static) -> Response {
    let (writer, reader) = tokio::io::duplex(256 * 1024);
    let bridge = SyncIoBridge::new(writer);
    let (failed, failure) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = write(Box::new(io::BufWriter::with_capacity(64 * 1024, bridge))) {
            tracing::warn!("an archive is cut short: {e}");
            let _ = failed.send(io::Error::other(e.message));
        }
    });
    // The end of a cut archive is an error of the stream, or it would pass for whole.
    let end = futures_util::stream::once(failure).filter_map(|failed| async { failed.ok().map(Err) });
    let body = Body::from_stream(ReaderStream::new(reader).chain(end));
    ([("Content-Type", "application/x-tar")], body).into_response()
}
