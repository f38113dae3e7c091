//! `/commit`.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::{Query, body};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use engine::commit::CommitRequest;
use serde_json::json;

pub async fn commit(State(engine): Ctx, query: Query, bytes: Bytes) -> Answer {
    let container = query.text("container").ok_or_else(|| Failure::invalid("container is missing"))?;
    let name = query.text("repo").map(|repository| match query.text("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let config = match bytes.trim_ascii() {
        b"" | b"null" | b"{}" => None,
        _ => Some(body(&bytes)?),
    };
    let request = CommitRequest {
        name,
        author: query.text("author").unwrap_or_default().to_owned(),
        comment: query.text("comment").unwrap_or_default().to_owned(),
        // Clients send one instruction a parameter, or all in one, a line each.
        changes: query.all("changes").iter().flat_map(|c| c.lines()).map(str::to_owned).collect(),
        pause: query.flag_or("pause", true),
        config,
    };
    let image = engine.commit(container, request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": image }))).into_response())
}
