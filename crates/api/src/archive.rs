//! Files in and out of containers: `/containers/{id}/archive`, `export`, `changes`.

use crate::Ctx;
use crate::bodies::{reader_of, tar_stream};
use crate::error::{Answer, Failure};
use crate::query::Query;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::archive::Files;
use image::{FileKind, Place};
use serde_json::{Value, json};

/// What is at the path, in base64.
const PATH_STAT: &str = "X-Docker-Container-Path-Stat";

fn path_of(query: &Query) -> Answer<String> {
    query.text("path").map(str::to_owned).ok_or_else(|| Failure::invalid("bad parameter: \"path\" cannot be empty"))
}

/// Go's `os.FileMode`: what Unix has, with other bits for kinds and set-ids.
fn go_mode(kind: FileKind, mode: u32) -> u32 {
    let kind = match kind {
        FileKind::File => 0,
        FileKind::Directory => 1 << 31,
        FileKind::Symlink => 1 << 27,
        FileKind::BlockDevice => 1 << 26,
        FileKind::CharDevice => 1 << 26 | 1 << 21,
        FileKind::Fifo => 1 << 25,
        FileKind::Socket => 1 << 24,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    special.iter().filter(|(bit, _)| mode & bit != 0).fold(kind | mode & 0o777, |all, (_, go)| all | go)
}

fn path_stat(place: &Place) -> HeaderValue {
    let (seconds, nanoseconds) = place.facts.mtime;
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)).unwrap_or_default();
    let shown = json!({
        "name": place.name,
        "size": place.facts.size,
        "mode": go_mode(place.facts.kind, place.facts.mode),
        "mtime": time.to_string(),
        "linkTarget": place.link_target,
    });
    HeaderValue::from_str(&STANDARD.encode(shown.to_string())).expect("base64 is ASCII")
}

/// Waits for the disk elsewhere.
async fn aside<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e))
}

async fn look(files: Files, path: &str) -> Answer<(Files, Place)> {
    let path = path.to_owned();
    Ok(aside(move || files.place(&path).map(|place| (files, place))).await??)
}

pub async fn head(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let path = path_of(&query)?;
    let (_, place) = look(engine.files(&id).await?, &path).await?;
    Ok(([(PATH_STAT, path_stat(&place))]).into_response())
}

pub async fn get(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let path = path_of(&query)?;
    let (files, place) = look(engine.files(&id).await?, &path).await?;
    engine.tell_archived(&files);
    let mut response = tar_stream(move |to| files.send(&path, to));
    response.headers_mut().insert(PATH_STAT, path_stat(&place));
    Ok(response)
}

pub async fn put(State(engine): Ctx, Path(id): Path<String>, query: Query, body: Body) -> Answer<StatusCode> {
    let path = path_of(&query)?;
    let (keep_kinds, to_user) = (query.flag("noOverwriteDirNonDir"), query.flag("copyUIDGID"));
    let files = engine.files(&id).await?;
    engine.extract(files, path, reader_of(body), keep_kinds, to_user).await?;
    Ok(StatusCode::OK)
}

pub async fn export(State(engine): Ctx, Path(id): Path<String>) -> Answer {
    let write = engine.export(&id)?;
    Ok(tar_stream(write))
}

pub async fn changes(State(engine): Ctx, Path(id): Path<String>) -> Answer {
    let changes = engine.changes(&id).await?;
    let shown: Vec<Value> = changes.iter().map(|(kind, path)| json!({ "Path": path, "Kind": kind.code() })).collect();
    Ok(Json(if shown.is_empty() { Value::Null } else { json!(shown) }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(FileKind::File, 0o644), 0o644);
        assert_eq!(go_mode(FileKind::Directory, 0o1777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(FileKind::CharDevice, 0o600), 1 << 26 | 1 << 21 | 0o600);
        assert_eq!(go_mode(FileKind::File, 0o4755), 1 << 23 | 0o755);
        assert_eq!(go_mode(FileKind::Symlink, 0o777), 1 << 27 | 0o777);
    }
}
