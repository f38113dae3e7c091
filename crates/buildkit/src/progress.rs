//! How a build goes, as BuildKit shows it: vertices that begin and end, what they log, and how far transfers are.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::WarnRequest;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use image::build::{BuildEvent, Written};
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// So much of what one step logs is kept, in bytes: BuildKit's own limit.
const LOG: usize = 2 << 20;

/// The history of a build, for who asks from its beginning.
pub(crate) struct Progress {
    /// The build's; two builds do not share vertices.
    id: String,
    told: Mutex<Told>,
    /// How much was told, and whether that was all.
    length: watch::Sender<(usize, bool)>,
}

#[derive(Default)]
struct Told {
    responses: Vec<StatusResponse>,
    /// The step of the Dockerfile that is on its way.
    step: Option<Step>,
    vertices: usize,
}

/// A vertex that has begun.
#[derive(Clone)]
pub(crate) struct Step {
    vertex: Vertex,
    /// Bytes.
    logged: usize,
}

impl Progress {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), told: Mutex::default(), length: watch::Sender::new((0, false)) }
    }

    /// Begins a vertex of its own.
    pub(crate) fn begin(&self, name: &str) -> Step {
        let mut told = self.told();
        let step = self.begun(&mut told, name);
        drop(told);
        self.tell(StatusResponse { vertexes: vec![step.vertex.clone()], ..StatusResponse::default() });
        step
    }

    fn begun(&self, told: &mut Told, name: &str) -> Step {
        let digest = Sha256::digest(format!("{}\0{}\0{name}", self.id, told.vertices));
        told.vertices += 1;
        let digest = digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let vertex = Vertex {
            digest: format!("sha256:{digest}"),
            name: name.to_owned(),
            started: Some(now()),
            ..Vertex::default()
        };
        Step { vertex, logged: 0 }
    }

    /// Ends a vertex; an error is why it failed.
    pub(crate) fn end(&self, step: Step, error: Option<&str>) {
        let error = error.unwrap_or_default().to_owned();
        let vertex = Vertex { completed: Some(now()), error, ..step.vertex };
        self.tell(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    /// How far something is in a step: bytes of all bytes, or of nobody knows how many.
    pub(crate) fn at(&self, step: &Step, what: &str, current: u64, total: u64, is_done: bool) {
        let status = VertexStatus {
            id: what.to_owned(),
            vertex: step.vertex.digest.clone(),
            name: what.to_owned(),
            current: i64::try_from(current).unwrap_or(i64::MAX),
            total: i64::try_from(total).unwrap_or(i64::MAX),
            timestamp: Some(now()),
            started: step.vertex.started,
            completed: is_done.then(now),
        };
        self.tell(StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    /// What happens in the builder.
    pub(crate) fn happens(&self, event: BuildEvent) {
        let mut told = self.told();
        let response = match event {
            BuildEvent::Begin(step) => {
                let step = self.begun(&mut told, &step.title);
                let vertexes = vec![step.vertex.clone()];
                told.step = Some(step);
                StatusResponse { vertexes, ..StatusResponse::default() }
            }
            BuildEvent::Cached => match &mut told.step {
                Some(step) => {
                    step.vertex.cached = true;
                    return;
                }
                None => return,
            },
            BuildEvent::End => {
                let Some(step) = told.step.take() else { return };
                drop(told);
                return self.end(step, None);
            }
            BuildEvent::Output(written, text) => {
                let Some(step) = &mut told.step else { return };
                if step.logged > LOG {
                    return;
                }
                step.logged += text.len();
                let clipped = format!("{text}\n[output clipped, log limit 2MiB reached]\n");
                let msg = if step.logged > LOG { clipped } else { text }.into_bytes();
                let stream = if written == Written::Error { 2 } else { 1 };
                let log = VertexLog { vertex: step.vertex.digest.clone(), timestamp: Some(now()), stream, msg };
                StatusResponse { logs: vec![log], ..StatusResponse::default() }
            }
            BuildEvent::Progress(line) => {
                let (Some(step), Some(layer)) = (told.step.clone(), line.id) else { return };
                drop(told);
                let detail = line.progress_detail.unwrap_or_default();
                let is_done = matches!(line.status.as_str(), "Pull complete" | "Already exists");
                return self.at(&step, &layer, detail.current, detail.total, is_done);
            }
            // for people who read the classic builder's stream
            BuildEvent::Stream(_) | BuildEvent::Image(_) => return,
        };
        drop(told);
        self.tell(response);
    }

    /// A warning of the client's own.
    pub(crate) fn warn(&self, warning: WarnRequest) {
        let WarnRequest { digest: vertex, level, short, detail, url, info, ranges } = warning;
        let warning = VertexWarning { vertex, level, short, detail, url, info, ranges };
        self.tell(StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }

    /// The step that is on its way has failed.
    pub(crate) fn fail(&self, error: &str) {
        let step = self.told().step.take();
        if let Some(step) = step {
            self.end(step, Some(error));
        }
    }

    /// Nothing more happens.
    pub(crate) fn close(&self) {
        self.length.send_modify(|(_, is_all)| *is_all = true);
    }

    /// What comes after the first `seen`; None when that was all.
    pub(crate) async fn after(&self, seen: usize) -> Option<Vec<StatusResponse>> {
        let mut length = self.length.subscribe();
        let _ = length.wait_for(|(length, is_all)| *length > seen || *is_all).await;
        let told = self.told();
        let rest = &told.responses[seen.min(told.responses.len())..];
        (!rest.is_empty()).then(|| rest.to_vec())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, response: StatusResponse) {
        let mut told = self.told();
        told.responses.push(response);
        let length = told.responses.len();
        drop(told);
        self.length.send_modify(|(known, _)| *known = (*known).max(length));
    }
}

fn now() -> Timestamp {
    let now = jiff::Timestamp::now();
    Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}
