//! `/exec`: commands in a running container.

use crate::Ctx;
use crate::containers::size;
use crate::error::{Answer, Failure};
use crate::hijack::Takeover;
use crate::query::{Query, body};
use crate::streams::{DetachKeys, Form, carry, frame};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use engine::exec::ExecRequest;
use model::go::or_default;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    #[serde(deserialize_with = "or_default")]
    attach_stdin: bool,
    #[serde(deserialize_with = "or_default")]
    attach_stdout: bool,
    #[serde(deserialize_with = "or_default")]
    attach_stderr: bool,
    #[serde(deserialize_with = "or_default")]
    tty: bool,
    #[serde(deserialize_with = "or_default")]
    privileged: bool,
    #[serde(deserialize_with = "or_default")]
    detach_keys: String,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    console_size: Option<[u16; 2]>,
}

pub async fn create(State(engine): Ctx, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let asked: CreateBody = body(&bytes)?;
    DetachKeys::parse(Some(asked.detach_keys.as_str()).filter(|k| !k.is_empty()))?;
    let request = ExecRequest {
        command: asked.cmd,
        env: asked.env,
        user: asked.user,
        working_dir: asked.working_dir,
        tty: asked.tty,
        attach_stdin: asked.attach_stdin,
        attach_stdout: asked.attach_stdout,
        attach_stderr: asked.attach_stderr,
        privileged: asked.privileged,
        detach_keys: asked.detach_keys,
        size: asked.console_size.map(|[rows, columns]| (rows, columns)),
    };
    let exec = engine.create_exec(&id, request)?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": exec }))).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartBody {
    #[serde(deserialize_with = "or_default")]
    detach: bool,
    #[serde(deserialize_with = "or_default")]
    tty: bool,
    console_size: Option<[u16; 2]>,
}

pub async fn start(State(engine): Ctx, Path(id): Path<String>, mut request: Request) -> Answer {
    let takeover = Takeover::of(&mut request);
    let bytes = Bytes::from_request(request, &()).await.map_err(Failure::invalid)?;
    let asked: StartBody = body(&bytes)?;
    let exec = engine.exec(&id)?;
    let size = asked.console_size.map(|[rows, columns]| (rows, columns));
    let takeover = if asked.detach { None } else { Some(takeover?) };
    // As in Docker, the one who starts it says how the output is to come.
    let form = Form { tty: exec.request.tty, raw: asked.tty };
    let started = engine.start_exec(&id, asked.detach, size).await;
    let (stdio, takeover) = match (started, takeover) {
        (Ok(Some(stdio)), Some(takeover)) => (stdio, takeover),
        (Ok(_), _) => return Ok(StatusCode::OK.into_response()),
        // A command that cannot be executed is told of where its output would be: clients then ask for its exit code.
        (Err(e), Some(takeover)) if !matches!(e.kind, engine::Kind::Conflict | engine::Kind::NotFound) => {
            let said = format!("{e}\r\n");
            let said = if form.raw { Bytes::from(said) } else { frame(runtime::Stream::Stdout, said.as_bytes()) };
            return Ok(takeover.respond(form.content_type(), move |mut connection| async move {
                let _ = connection.write_all(&said).await;
                let _ = connection.shutdown().await;
            }));
        }
        (Err(e), _) => return Err(e.into()),
    };
    let keys = DetachKeys::parse(Some(exec.request.detach_keys.as_str()).filter(|k| !k.is_empty()))?;
    let keys = exec.request.attach_stdin.then_some(keys);
    Ok(takeover.respond(form.content_type(), move |connection| async move {
        carry(connection, stdio, form, keys, exec.ended()).await;
    }))
}

pub async fn resize(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let (rows, columns) = size(&query)?;
    engine.resize_exec(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

pub async fn inspect(State(engine): Ctx, Path(id): Path<String>) -> Answer {
    let exec = engine.exec(&id)?;
    let progress = exec.progress();
    let (entry, arguments) =
        exec.request.command.split_first().map_or((String::new(), &[][..]), |(e, a)| (e.clone(), a));
    let request = &exec.request;
    Ok(Json(json!({
        "ID": exec.id,
        "Running": progress.running,
        "ExitCode": progress.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": entry,
            "arguments": arguments,
            "privileged": request.privileged,
            "user": request.user,
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": progress.exit_code.is_some(),
        "ContainerID": exec.container,
        "DetachKeys": request.detach_keys,
        "Pid": progress.pid,
    }))
    .into_response())
}
