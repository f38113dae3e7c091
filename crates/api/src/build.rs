//! `/build`, the classic builder; `/grpc` and `/session`, BuildKit.

use crate::Ctx;
use crate::bodies::reader_of;
use crate::error::{Answer, Failure};
use crate::hijack::Takeover;
use crate::progress::{Teller, told};
use crate::query::Query;
use crate::socket::Client;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use buildkit::BuildKit;
use engine::build::Limits;
use image::build::{BuildEvent, BuildOptions, Context, Written};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    let remote = query.text("remote").filter(|r| *r != "client-session").map(remote).transpose()?;
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
    let limits = limits(&query)?;
    let credentials = crate::registries::all_credentials(&headers)?;
    let quiet = query.flag("q");
    let context = remote.unwrap_or_else(|| Context::Archive(Box::new(reader_of(body))));
    let building = |teller: Teller| {
        let events = Arc::new(move |event| tell(&teller, quiet, event));
        Ok(async move { engine.build(context, options, limits, Arc::new(credentials), events).await })
    };
    told(client, building, move |id| quiet.then(|| json!({ "stream": format!("{id}\n") }))).await
}

/// Says what happens in a build. A quiet one says so only if it fails.
fn tell(teller: &Teller, quiet: bool, event: BuildEvent) {
    let line = match event {
        // What these say stands in the stream too.
        BuildEvent::Begin(_) | BuildEvent::Cached | BuildEvent::End => return,
        // Red, as Docker has it.
        BuildEvent::Output(Written::Error, text) => json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") }),
        BuildEvent::Stream(text) | BuildEvent::Output(_, text) => json!({ "stream": text }),
        BuildEvent::Progress(p) => return teller.say(&p),
        BuildEvent::Image(id) => return teller.say(&json!({ "aux": { "ID": id } })),
    };
    if quiet { teller.withhold(line) } else { teller.say(&line) }
}

/// A context that lies somewhere else.
fn remote(address: &str) -> Answer<Context> {
    let (place, is_web) = match address.split_once("://") {
        Some(("http" | "https", rest)) => (rest, true),
        _ => (address, false),
    };
    let before_fragment = place.split('#').next().unwrap_or_default();
    let is_git = before_fragment.ends_with(".git")
        || ["git://", "git@", "github.com/", "ssh://"].iter().any(|prefix| address.starts_with(prefix));
    match (is_git, is_web) {
        (true, _) => Err(Failure::invalid(format!(
            "cannot build from {address}: repositories are not cloned here; clone it, and build the directory"
        ))),
        (false, true) => Ok(Context::Remote(address.to_owned())),
        (false, false) => Err(Failure::invalid(format!("remoteURL ({address}) could not be recognized as URL"))),
    }
}

/// What commands may use: parameters of the request.
fn limits(query: &Query) -> Answer<Limits> {
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let number = |name: &str| Ok::<i64, Failure>(query.number(name)?.unwrap_or_default());
    Ok(Limits {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        cgroup_parent: text("cgroupparent"),
        shm_size: number("shmsize")?,
        ulimits: query.json("ulimits")?,
        security_opt: Some(query.all("securityopt").to_vec()).filter(|options| !options.is_empty()),
    })
}

pub async fn prune(State(engine): Ctx) -> Answer {
    let pruned = engine.prune_builds().await?;
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
