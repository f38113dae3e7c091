//! A build, from what its client says to an image in the store.

use crate::BuildKit;
use crate::attributes::{Attributes, Source};
use crate::builds::Build;
use crate::progress::Progress;
use crate::receive::{Wanted, file_of};
use crate::session::Session;
use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use image::build::{BoxFuture, Context, Recipe};
use model::image::ImageId;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::SyncIoBridge;
use tonic::{Code, Request, Status};

/// So much of a context is on its way at once, in bytes.
const PIPE: usize = 1 << 20;

impl BuildKit {
    /// Builds by a Dockerfile front end. A client that goes ends it, and so does dropping it.
    pub(crate) async fn run(
        self: &Arc<Self>,
        build: &Build,
        session: &str,
        frontend: &str,
        attrs: &HashMap<String, String>,
    ) -> Result<ImageId, Status> {
        let attributes = Attributes::read(frontend, attrs)?;
        let session = self.sessions.find(session).await?;
        let built = tokio::select! {
            built = self.run_in(build, &session, attributes) => built,
            () = session.ended() => Err(Status::cancelled("the client has gone")),
        };
        built.inspect_err(|e| build.progress.fail(e.message()))
    }

    async fn run_in(
        self: &Arc<Self>,
        build: &Build,
        session: &Session,
        attributes: Attributes,
    ) -> Result<ImageId, Status> {
        let Attributes { mut options, context, dockerfile } = attributes;
        let progress = build.progress.clone();
        if let Some(source) = dockerfile {
            options.recipe = Some(self.recipe(session, &progress, &options.dockerfile, source).await?);
        }
        let (archive, pipe) = tokio::io::duplex(PIPE);
        let recipe = options.recipe.as_mut();
        let sending = self.send_context(session, &progress, recipe, context, pipe).await?;
        let events = {
            let progress = progress.clone();
            Arc::new(move |event| progress.happens(event))
        };
        let context = Context::Archive(Box::new(SyncIoBridge::new(archive)));
        let mut building =
            pin!(self.engine.build(context, options, Default::default(), Arc::new(session.clone()), events));
        tokio::select! {
            built = &mut building => return built.map_err(status),
            sent = sending => match sent {
                // a builder that stops reading says itself why
                Err(e) if e.code() != Code::Internal => return Err(e),
                _ => {}
            },
        }
        building.await.map_err(status)
    }

    /// The Dockerfile and its own `.dockerignore`.
    async fn recipe(
        &self,
        session: &Session,
        progress: &Progress,
        file: &str,
        source: Source,
    ) -> Result<Recipe, Status> {
        let file = if file.is_empty() { "Dockerfile" } else { file };
        let step = progress.begin(&format!("[internal] load build definition from {file}"));
        let ignore = format!("{file}.dockerignore");
        let Source::Directory { name, session: other } = source else {
            return Err(Status::invalid_argument("a Dockerfile is not uploaded without its context"));
        };
        let session = match &other {
            Some(other) => &self.sessions.find(other).await?,
            None => session,
        };
        let mut archive = Vec::new();
        let follow = vec![file.to_owned(), file.to_ascii_lowercase(), ignore.clone()];
        let wanted = Wanted { directory: name, follow, exclude: Vec::new() };
        let received = session
            .receive(wanted, &mut archive, |bytes| progress.at(&step, "transferring dockerfile:", bytes, 0, false))
            .await;
        let lower = file.to_ascii_lowercase();
        let found = received.and_then(|()| {
            let found = file_of(&archive, file).or_else(|| file_of(&archive, &lower));
            found.ok_or_else(|| {
                Status::unknown(format!("failed to read dockerfile: open {file}: no such file or directory"))
            })
        });
        progress.end(step, found.as_ref().err().map(Status::message));
        let text = String::from_utf8_lossy(&found?).into_owned();
        let ignore = file_of(&archive, &ignore).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Recipe { text, ignore })
    }

    /// Prepares to send the context to the builder, as an archive: the future does it.
    async fn send_context<'a>(
        &self,
        session: &'a Session,
        progress: &'a Progress,
        recipe: Option<&mut Recipe>,
        context: Source,
        pipe: DuplexStream,
    ) -> Result<BoxFuture<'a, Result<(), Status>>, Status> {
        let (name, session) = match context {
            Source::Upload(path) => return Ok(Box::pin(async move { upload(session, &path, pipe).await })),
            Source::Directory { name, session: Some(other) } => (name, self.sessions.find(&other).await?),
            Source::Directory { name, session: None } => (name, session.clone()),
        };
        let mut exclude = Vec::new();
        if let Some(recipe) = recipe {
            let ignore = match recipe.ignore.take() {
                Some(own) => own,
                None => ignore_file(&session, progress, &name).await?,
            };
            exclude = patterns(&ignore);
            recipe.ignore = Some(ignore);
        }
        Ok(Box::pin(async move {
            let step = progress.begin("[internal] load build context");
            let wanted = Wanted { directory: name, follow: Vec::new(), exclude };
            let told = |bytes| progress.at(&step, "transferring context:", bytes, 0, false);
            let received = session.receive(wanted, pipe, told).await;
            progress.end(step, received.as_ref().err().map(Status::message));
            received
        }))
    }
}

/// The context's `.dockerignore`; empty where there is none.
async fn ignore_file(session: &Session, progress: &Progress, directory: &str) -> Result<String, Status> {
    const NAME: &str = ".dockerignore";
    let step = progress.begin("[internal] load .dockerignore");
    let mut archive = Vec::new();
    let wanted = Wanted { directory: directory.to_owned(), follow: vec![NAME.to_owned()], exclude: Vec::new() };
    let received = session.receive(wanted, &mut archive, |_| ()).await;
    progress.end(step, received.as_ref().err().map(Status::message));
    received?;
    Ok(String::from_utf8_lossy(&file_of(&archive, NAME).unwrap_or_default()).into_owned())
}

/// The patterns of a `.dockerignore`, for the client to leave out what nobody may copy.
fn patterns(ignore: &str) -> Vec<String> {
    let lines = ignore.trim_start_matches('\u{feff}').lines().map(str::trim);
    let given = lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(|line| {
        let (not, path) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let path: PathBuf = Path::new(path.trim_start_matches('/')).components().collect();
        (not, path)
    });
    given.filter(|(_, path)| !path.as_os_str().is_empty()).map(|(not, p)| format!("{not}{}", p.display())).collect()
}

/// Sends an archive that the client has ready.
async fn upload(session: &Session, path: &str, mut pipe: DuplexStream) -> Result<(), Status> {
    let mut client = UploadClient::new(session.channel.clone()).max_decoding_message_size(crate::LONGEST);
    let mut request = Request::new(futures_util::stream::pending::<BytesMessage>());
    let path = path.parse().map_err(|_| Status::invalid_argument("an upload's path is not ASCII"))?;
    request.metadata_mut().insert("urlpath", path);
    let mut incoming = client.pull(request).await?.into_inner();
    while let Some(part) = incoming.message().await? {
        if let Err(e) = pipe.write_all(&part.data).await {
            // the builder has what it wants, or says itself what is wrong
            tracing::debug!("a context is not read to its end: {e}");
            return Ok(());
        }
    }
    let _ = pipe.shutdown().await;
    Ok(())
}

/// A failure in BuildKit's words, where tools look for them.
pub(crate) fn status(error: engine::Error) -> Status {
    use engine::Kind;
    let message = match error.exit_code {
        Some(code) => {
            let (_, rest) = error.message.split_once("The command '").unwrap_or(("", &error.message));
            let command = rest.split_once("' returned a non-zero code").map_or(rest, |(command, _)| command);
            format!("process \"{command}\" did not complete successfully: exit code: {code}")
        }
        None => error.message,
    };
    match error.kind {
        Kind::NotFound => Status::not_found(message),
        Kind::Invalid => Status::invalid_argument(message),
        Kind::NotImplemented => Status::unimplemented(message),
        Kind::Unauthorized | Kind::Forbidden => Status::permission_denied(message),
        _ => Status::unknown(message),
    }
}
