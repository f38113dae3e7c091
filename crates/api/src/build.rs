//! `/build`, the classic builder; `/grpc` and `/session`, BuildKit.

use crate::Ctx;
use crate::bodies::{json_lines, reader_of, stream_error};
use crate::error::{Answer, Failure};
use crate::hijack::Takeover;
use crate::query::Query;
use crate::socket::Client;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use buildkit::BuildKit;
use image::build::{BuildEvent, BuildOptions, Context};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

pub async fn build(
    State(engine): Ctx,
    Extension(client): Extension<Client>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if query.text("version") == Some("2") {
        return Err(no_buildkit());
    }
    if let Some(remote) = query.text("remote").filter(|r| *r != "client-session") {
        return Err(Failure::invalid(format!("cannot build from {remote}: send the build context as a tar archive")));
    }
    let options = BuildOptions {
        dockerfile: query.text("dockerfile").unwrap_or_default().to_owned(),
        tags: query.all("t").iter().filter(|t| !t.is_empty()).cloned().collect(),
        build_args: query.json::<BTreeMap<String, Option<String>>>("buildargs")?,
        labels: query.json("labels")?,
        target: query.text("target").map(str::to_owned),
        platform: query.text("platform").map(str::parse).transpose().map_err(Failure::invalid)?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        network_mode: query.text("networkmode").map(str::to_owned),
        extra_hosts: query.all("extrahosts").to_vec(),
        recipe: None,
        named_images: BTreeMap::new(),
    };
    for tag in &options.tags {
        tag.parse::<model::reference::Reference>()
            .map_err(|e| Failure::invalid(format!("invalid argument \"{tag}\": {e}")))?;
    }
    let credentials = crate::registries::all_credentials(&headers)?;
    let quiet = query.flag("q");
    let (lines, receiver) = mpsc::unbounded_channel();
    let events = {
        let lines = lines.clone();
        Arc::new(move |event: BuildEvent| {
            let line = match event {
                BuildEvent::Stream(_) | BuildEvent::Output(_) if quiet => return,
                // what these say stands in the stream too
                BuildEvent::Begin(_) | BuildEvent::Cached | BuildEvent::End => return,
                BuildEvent::Stream(text) | BuildEvent::Output(text) => json!({ "stream": text }),
                BuildEvent::Progress(p) => serde_json::to_value(&p).unwrap_or_default(),
                BuildEvent::Image(id) => json!({ "aux": { "ID": id } }),
            };
            let _ = lines.send(line);
        })
    };
    let context = Context::Archive(Box::new(reader_of(body)));
    tokio::spawn(async move {
        // A client that goes away ends the build.
        let built = tokio::select! {
            built = engine.build(context, options, Arc::new(credentials), events) => built,
            () = client.gone() => return,
        };
        let line = match built {
            Ok(id) if quiet => json!({ "stream": format!("{id}\n") }),
            Ok(_) => return,
            // docker's client exits as the command did
            Err(e) => match e.exit_code {
                Some(code) => json!({ "errorDetail": { "code": code, "message": e.message }, "error": e.message }),
                None => stream_error(&e.message),
            },
        };
        let _ = lines.send(line);
    });
    Ok(json_lines(receiver).into_response())
}

pub async fn prune(State(engine): Ctx) -> Answer {
    let filter = image::Filter::default();
    let users = engine.clone();
    let pruned = tokio::task::spawn_blocking(move || {
        users.images.prune_build_caches()?;
        users.images.prune(false, &filter, |id| users.image_users(id))
    })
    .await
    .map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e))?
    .map_err(engine::images::image_error)?;
    Ok(Json(json!({ "CachesDeleted": null, "SpaceReclaimed": pruned.reclaimed })).into_response())
}

fn no_buildkit() -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "this engine builds with the classic builder, not with BuildKit: set DOCKER_BUILDKIT=0, or use 'isle build'",
    )
}

/// Where BuildKit's clients call us.
pub async fn grpc(Extension(kit): Extension<Arc<BuildKit>>, mut request: Request) -> Answer {
    let takeover = over_h2c(&mut request)?;
    Ok(takeover.upgrade(H2C, |connection| kit.serve(connection)))
}

/// Where BuildKit's clients let us call them.
pub async fn session(Extension(kit): Extension<Arc<BuildKit>>, mut request: Request) -> Answer {
    let id = request.headers().get("x-docker-expose-session-uuid").and_then(|id| id.to_str().ok());
    let id = id.ok_or_else(|| Failure::invalid("a session without X-Docker-Expose-Session-Uuid"))?.to_owned();
    let takeover = over_h2c(&mut request)?;
    Ok(takeover.upgrade(H2C, |connection| kit.join(id, connection)))
}

/// HTTP/2 without TLS.
const H2C: &str = "h2c";

fn over_h2c(request: &mut Request) -> Answer<Takeover> {
    match request.headers().get(header::UPGRADE).and_then(|p| p.to_str().ok()) {
        Some(H2C) => Takeover::of(request),
        Some(other) => Err(Failure::invalid(format!("protocol {other} not supported"))),
        None => Err(Failure::invalid("no upgrade proto in request")),
    }
}
