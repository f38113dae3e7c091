//! The control service: a client asks for a build, how it goes, and who builds.

use crate::builds::Build;
use crate::gateway::worker;
use crate::{BuildKit, Service};
use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::Health;
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::types::BuildkitVersion;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, Exporter, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

/// What comes bit by bit.
type Bits<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// So much of a session is on its way at once, in bytes.
const PIPE: usize = 1 << 16;

/// Says that a build is over, however it ends.
struct Over {
    kit: Arc<BuildKit>,
    id: String,
    build: Arc<Build>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.build.progress.fail("context canceled");
        self.build.progress.close();
        self.kit.builds.end(&self.id);
    }
}

#[tonic::async_trait]
impl Control for Service {
    type PruneStream = Bits<UsageRecord>;
    type StatusStream = Bits<StatusResponse>;
    type SessionStream = Bits<BytesMessage>;
    type ListenBuildHistoryStream = Bits<BuildHistoryEvent>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        let build = self.builds.get(&request.r#ref);
        let _over = Over { kit: self.0.clone(), id: request.r#ref.clone(), build: build.clone() };
        build.session.send_replace(Some(request.session.clone()));
        let image = if !request.frontend.is_empty() {
            Some(self.run(&build, &request.session, &request.frontend, &request.frontend_attrs).await?)
        } else if request.definition.as_ref().is_some_and(|d| !d.def.is_empty()) {
            return Err(Status::unimplemented("only Dockerfiles are built, not definitions in LLB"));
        } else {
            // the client leads it by the gateway
            let mut returned = build.returned.subscribe();
            let returned = returned.wait_for(Option::is_some).await.map(|r| r.clone());
            returned.ok().flatten().unwrap_or_else(|| Err(Status::cancelled("nothing was returned")))?
        };
        let mut exporters = request.exporters;
        #[allow(deprecated, reason = "clients before 0.13 have no other")]
        if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            let (r#type, attrs) = (request.exporter_deprecated, request.exporter_attrs_deprecated);
            exporters.push(Exporter { r#type, attrs });
        }
        let exporter_response = match image {
            Some(image) => self.export(&build, &request.session, &image, &exporters).await?,
            None => Default::default(),
        };
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let progress = self.builds.get(&request.into_inner().r#ref).progress.clone();
        let told = stream::unfold((progress, 0), |(progress, seen)| async move {
            let more = progress.after(seen).await?;
            let seen = seen + more.len();
            Some((stream::iter(more.into_iter().map(Ok)), (progress, seen)))
        });
        Ok(Response::new(Box::pin(told.flatten())))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let id = request.metadata().get("x-docker-expose-session-uuid").and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("a session without an id"))?.to_owned();
        let mut incoming = request.into_inner();
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (from_us, mut to_us) = tokio::io::split(theirs);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if to_us.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = to_us.shutdown().await;
        });
        let kit = self.0.clone();
        tokio::spawn(async move { kit.sessions.join(id, TokioIo::new(ours)).await });
        let outgoing = ReaderStream::new(from_us).map(|part: io::Result<_>| {
            part.map(|data| BytesMessage { data: data.to_vec() }).map_err(|e| Status::aborted(e.to_string()))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![worker(&self.engine)] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(version(&self.engine)) }))
    }

    /// The builder's cache is images, which `GET /system/df` counts.
    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse::default()))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let pruned = self.engine.prune_builds().await.map_err(crate::solve::status)?;
        let record = UsageRecord {
            id: "build-cache".to_owned(),
            size: i64::try_from(pruned.reclaimed).unwrap_or(i64::MAX),
            record_type: "regular".to_owned(),
            ..UsageRecord::default()
        };
        let records = (pruned.reclaimed > 0).then_some(Ok(record));
        Ok(Response::new(Box::pin(stream::iter(records))))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("no history of builds is kept"))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("no history of builds is kept"))
    }
}

/// What people see as BuildKit's version is ours.
pub(crate) fn version(engine: &engine::Engine) -> BuildkitVersion {
    let version = engine.settings.version.clone();
    BuildkitVersion { package: "isle".to_owned(), version, ..BuildkitVersion::default() }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Bits<HealthCheckResponse>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
        Ok(Response::new(HealthListResponse { statuses: [(String::new(), serving)].into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
        Ok(Response::new(Box::pin(stream::iter([Ok(serving)]).chain(stream::pending()))))
    }
}
