//! The gateway: a client that leads its build itself (buildx does) asks for parts of it and gives back the result.

use crate::builds::Build;
use crate::control::version;
use crate::{BuildKit, Service};
use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::result::Result as Made;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::*;
use bollard_buildkit_proto::moby::buildkit::v1::types::WorkerRecord;
use bollard_buildkit_proto::pb;
use engine::Engine;
use model::image::Platform;
use std::pin::Pin;
use std::result::Result;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status, Streaming};

/// What the gateway can do, by BuildKit's names.
const GATEWAY: [&str; 8] = [
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "importcaches",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.warnings",
];

/// What builds can use, by BuildKit's names; there is no LLB, but clients look here for what they may ask for.
const BUILDS: [&str; 8] = [
    "source.image",
    "source.local",
    "source.local.sessionid",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "exec.meta.base",
    "platform",
    "exporter.multiple",
];

/// Us, as one who builds.
pub(crate) fn worker(engine: &Engine) -> WorkerRecord {
    let Platform { os, architecture, variant } = Platform::host();
    WorkerRecord {
        id: "isle".to_owned(),
        labels: [("org.mobyproject.buildkit.worker.executor".to_owned(), "isle".to_owned())].into(),
        platforms: vec![pb::Platform { os, architecture, variant, ..pb::Platform::default() }],
        buildkit_version: Some(version(engine)),
        ..WorkerRecord::default()
    }
}

impl BuildKit {
    /// The build that a call of the gateway belongs to.
    fn build_of<T>(&self, request: &Request<T>) -> Result<Arc<Build>, Status> {
        let id = request.metadata().get("buildkit-controlapi-buildid").and_then(|id| id.to_str().ok());
        Ok(self.builds.get(id.ok_or_else(|| Status::invalid_argument("a call of no build"))?))
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        let caps = |ids: &[&str]| {
            ids.iter().map(|id| ApiCap { id: (*id).to_owned(), enabled: true, ..ApiCap::default() }).collect()
        };
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps(&GATEWAY),
            llb_caps: caps(&BUILDS),
            workers: vec![worker(&self.engine)],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let build = self.build_of(&request)?;
        let request = request.into_inner();
        if request.frontend.is_empty() {
            if request.definition.as_ref().is_some_and(|d| !d.def.is_empty()) {
                return Err(Status::unimplemented("only Dockerfiles are built, not definitions in LLB"));
            }
            return Ok(Response::new(SolveResponse::default()));
        }
        let mut session = build.session.subscribe();
        let session = session.wait_for(Option::is_some).await.map(|s| s.clone()).ok().flatten().unwrap_or_default();
        let image = self.run(&build, &session, &request.frontend, &request.frontend_opt).await?;
        let id = build.add_result(image);
        let made = match request.allow_result_array_ref {
            true => Made::Ref(Ref { id: id.clone(), def: None }),
            false => Made::RefDeprecated(id.clone()),
        };
        let result =
            bollard_buildkit_proto::moby::buildkit::v1::frontend::Result { result: Some(made), ..Default::default() };
        Ok(Response::new(match request.allow_result_return {
            true => SolveResponse { r#ref: String::new(), result: Some(result) },
            false => SolveResponse { r#ref: id, result: None },
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let build = self.build_of(&request)?;
        let ReturnRequest { result, error } = request.into_inner();
        let returned = match error {
            Some(error) => Err(Status::new(Code::from_i32(error.code), error.message)),
            None => {
                let id = match result.and_then(|r| r.result) {
                    Some(Made::Ref(made)) => made.id,
                    Some(Made::RefDeprecated(id)) => id,
                    Some(Made::Refs(made)) => made.refs.into_values().next().unwrap_or_default().id,
                    Some(Made::RefsDeprecated(made)) => made.refs.into_values().next().unwrap_or_default(),
                    None => String::new(),
                };
                match id.as_str() {
                    "" => Ok(None),
                    id => match build.result(id) {
                        Some(image) => Ok(Some(image)),
                        None => Err(Status::not_found(format!("{id} was not built here"))),
                    },
                }
            }
        };
        build.returned.send_replace(Some(returned));
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, _: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        Ok(Response::new(InputsResponse::default()))
    }

    /// What was solved is there.
    async fn evaluate(&self, _: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let build = self.build_of(&request)?;
        build.progress.warn(request.into_inner());
        Ok(Response::new(WarnResponse {}))
    }

    async fn resolve_image_config(
        &self,
        _: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        Err(not_there("ResolveImageConfig"))
    }

    async fn resolve_source_meta(
        &self,
        _: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        Err(not_there("ResolveSourceMeta"))
    }

    async fn read_file(&self, _: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        Err(not_there("ReadFile"))
    }

    async fn read_dir(&self, _: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        Err(not_there("ReadDir"))
    }

    async fn stat_file(&self, _: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        Err(not_there("StatFile"))
    }

    async fn new_container(&self, _: Request<NewContainerRequest>) -> Result<Response<NewContainerResponse>, Status> {
        Err(not_there("NewContainer"))
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(not_there("ReleaseContainer"))
    }

    type ExecProcessStream = Pin<Box<dyn futures_util::Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(not_there("ExecProcess"))
    }

    async fn read_file_container(&self, _: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        Err(not_there("ReadFileContainer"))
    }

    async fn read_dir_container(&self, _: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        Err(not_there("ReadDirContainer"))
    }

    async fn stat_file_container(&self, _: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        Err(not_there("StatFileContainer"))
    }
}

fn not_there(call: &str) -> Status {
    Status::unimplemented(format!("the gateway has no {call}: only Dockerfiles are built"))
}
