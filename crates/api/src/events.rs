//! `/events`: what happens, as it happens.

use crate::Ctx;
use crate::error::Answer;
use crate::query::{Filters, Query};
use crate::times;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use engine::events::Event;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

const FILTERS: [&str; 12] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "type",
    "volume",
];

pub async fn events(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&FILTERS)?;
    let time = |name: &str| query.text(name).filter(|t| *t != "0").map(times::parse).transpose();
    let (since, until) = (time("since")?, time("until")?);
    let (past, live) = engine.events.listen(since);
    let deadline = until.map(|u| {
        let left = u.duration_since(jiff::Timestamp::now());
        tokio::time::Instant::now() + std::time::Duration::try_from(left).unwrap_or_default()
    });
    // An empty piece first: the headers go out at once.
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::new())]);
    let past: Vec<Event> = past.into_iter().filter(|e| until.is_none_or(|u| e.time <= u)).collect();
    let state = (std::collections::VecDeque::from(past), live, filters);
    let rest = futures_util::stream::unfold(state, move |(mut past, mut live, filters)| async move {
        loop {
            let event = match past.pop_front() {
                Some(event) => event,
                None => {
                    let next = async {
                        loop {
                            match live.recv().await {
                                Ok(event) => return Some(event),
                                // Too slow a reader misses some, as with Docker.
                                Err(RecvError::Lagged(_)) => {}
                                Err(RecvError::Closed) => return None,
                            }
                        }
                    };
                    match deadline {
                        Some(deadline) => tokio::time::timeout_at(deadline, next).await.ok()??,
                        None => next.await?,
                    }
                }
            };
            if matches(&event, &filters) {
                return Some((Ok(Bytes::from(show(&event))), (past, live, filters)));
            }
        }
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    Ok(([("Content-Type", "application/json")], body).into_response())
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let is_object = |kind: &str| {
        filters.any(kind, |wanted| {
            let named = event.attributes.get("name").is_some_and(|n| n == wanted);
            let by_attribute = event.attributes.get(kind).is_some_and(|id| id.starts_with(wanted));
            (event.kind == kind && (named || event.actor.starts_with(wanted))) || by_attribute
        })
    };
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("type", |t| event.kind == t)
        && filters.any("event", |e| action == e || event.action == e)
        && filters.any("scope", |s| s == "local")
        && filters.labels(&event.attributes)
        && ["container", "image", "network", "volume", "daemon"].iter().all(|kind| is_object(kind))
}

fn show(event: &Event) -> String {
    let mut shown = serde_json::Map::new();
    // Below API 1.52 containers' and images' events have these on top, too (OB-01).
    if matches!(event.kind, "container" | "image") {
        shown.insert("status".into(), event.action.clone().into());
        shown.insert("id".into(), event.actor.clone().into());
        if let Some(image) = event.attributes.get("image") {
            shown.insert("from".into(), image.clone().into());
        }
    }
    shown.insert("Type".into(), event.kind.into());
    shown.insert("Action".into(), event.action.clone().into());
    shown.insert("Actor".into(), json!({ "ID": event.actor, "Attributes": event.attributes }));
    shown.insert("scope".into(), "local".into());
    shown.insert("time".into(), event.time.as_second().into());
    shown.insert("timeNano".into(), i64::try_from(event.time.as_nanosecond()).unwrap_or_default().into());
    format!("{}\n", serde_json::Value::Object(shown))
}
