//! `run`, `create` and `start`: from flags to a running container, and our terminal on it.
//!
//! - [`flags`]: the request, as a pure function of the flags
//! - [`ports`], [`network`], [`mounts`]: the flags that have a language of their own

pub mod flags;
pub mod mounts;
pub mod network;
pub mod ports;

use super::App;
use crate::client::connection::{Client, Query, Refused, segment};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, say, warn};
use crate::client::streams::{self, End, Resized};
use crate::client::terminal::{self, DetachKeys};
use anyhow::Context;
use serde_json::Value;
use std::rc::Rc;

/// Creates a container, pulling its image where it is missing. Its id.
async fn create_container(app: &App, p: &Parsed, request: &flags::Request) -> anyhow::Result<String> {
    let pull = p.last("pull").unwrap_or("missing");
    if !["always", "missing", "never"].contains(&pull) {
        anyhow::bail!("invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\"");
    }
    let cid = IdFile::create(p.text("cidfile"))?;
    let platform = p.text("platform");
    let image = super::image::Pull { reference: &request.image, platform, quiet: p.on("quiet") };
    if pull == "always" {
        image.to_stderr(app).await?;
    }
    let query = Query::new().some("name", p.text("name")).some("platform", platform);
    let path = format!("/containers/create{query}");
    let created = match app.client.post_json(&path, &request.body).await {
        Err(e) if pull == "missing" && lacks_image(&e) => {
            if !p.on("quiet") {
                warn(format_args!("Unable to find image '{}' locally", super::image::familiar(&request.image)));
            }
            image.to_stderr(app).await?;
            app.client.post_json(&path, &request.body).await?
        }
        created => created?,
    };
    for warning in created["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        warn(format_args!("WARNING: {warning}"));
    }
    let id = created["Id"].as_str().context("the daemon gave no id")?.to_owned();
    cid.write(&id)?;
    Ok(id)
}

/// `--cidfile`: made before the container is, so that none is there whose id is nowhere. It goes where there is none.
struct IdFile<'a> {
    path: &'a str,
    file: Option<std::fs::File>,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a str) -> anyhow::Result<Self> {
        if path.is_empty() {
            return Ok(Self { path, file: None });
        }
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!("container ID file found, make sure the other container isn't running or delete {path}")
            }
            _ => {
                anyhow::anyhow!(
                    "failed to create the container ID file: open {path}: {}",
                    crate::client::output::go_error(&e)
                )
            }
        };
        Ok(Self { path, file: Some(std::fs::File::create_new(path).map_err(failed)?) })
    }

    fn write(mut self, id: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes())
            .with_context(|| format!("failed to write the container ID to the file ({})", self.path))
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn lacks_image(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| {
        let is_another = r.message.contains("does not match the specified platform");
        r.status == 404 && (is_another || r.message.contains("No such image"))
    })
}

/// `create`.
///
/// # Errors
/// No container could be created.
pub async fn create(app: App, p: Parsed) -> anyhow::Result<u8> {
    let request = flags::request(&p).map_err(|e| app.with_help(125, &e))?;
    say(create_container(&app, &p, &request).await?)?;
    Ok(0)
}

/// `run`.
///
/// # Errors
/// The container could not be created or started.
pub async fn run(app: App, p: Parsed) -> anyhow::Result<u8> {
    if p.on("detach") && p.given("attach") {
        return Err(Exit::new(1, "conflicting options: cannot specify both --attach and --detach").into());
    }
    let (request, keys) = flags::request(&p)
        .and_then(|r| Ok((r, DetachKeys::parse(p.text("detach-keys")).map_err(anyhow::Error::msg)?)))
        .map_err(|e| app.with_help(125, &e))?;
    let streams = flags::streams(&p);
    let tty = p.on("tty");
    if streams.stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Exit::new(1, "the input device is not a TTY").into());
    }
    let id = create_container(&app, &p, &request).await.map_err(|e| app.with_help(125, &e))?;
    let session = Session {
        client: app.client.clone(),
        id: id.clone(),
        streams,
        tty,
        // With a terminal whose keys are ours too: one of them that is a signal to us is meant for the container.
        proxy: p.on_or("sig-proxy", true),
        detach: p.text("detach-keys").to_owned(),
        keys,
    };
    let remove = p.on("rm");
    if !streams.any() {
        // Before it starts: a container that was created and does not start is still there.
        say(&id)?;
        let started = app.client.post(&format!("/containers/{id}/start")).await;
        return started.map(|_| 0).map_err(|e| app.with_help(code_of(&e), &e));
    }
    let started = session.start(if remove { "removed" } else { "next-exit" }).await;
    started.map_err(|e| match e.downcast::<NotStarted>() {
        Ok(NotStarted(e)) => app.with_help(code_of(&e), &e),
        Err(e) => e,
    })
}

/// What the shell's convention makes of a failed start: 127 not found, 126 not executable, 125 ours.
fn code_of(error: &anyhow::Error) -> u8 {
    let text = error.to_string();
    let has = |words: &[&str]| words.iter().any(|w| text.to_lowercase().contains(w));
    if has(&["executable file not found", "no such file or directory", "system cannot find the file specified"]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

/// The daemon would not start it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotStarted(anyhow::Error);

/// Our terminal on a container that is about to run.
struct Session {
    client: Rc<Client>,
    id: String,
    streams: flags::Streams,
    tty: bool,
    proxy: bool,
    /// As they were given, for the daemon.
    detach: String,
    keys: DetachKeys,
}

impl Session {
    /// Attaches, waits and starts, in that order, so that nothing is missed. The container's exit status.
    async fn start(self, condition: &str) -> anyhow::Result<u8> {
        let id = segment(&self.id);
        let query = Query::new()
            .with("stream", "1")
            .flag("stdin", self.streams.stdin)
            .flag("stdout", self.streams.stdout)
            .flag("stderr", self.streams.stderr)
            .some("detachKeys", &self.detach);
        let stream = self.client.hijack(&format!("/containers/{id}/attach{query}"), None).await?;
        let wait = Query::new().with("condition", condition);
        let ended = self.client.stream(hyper::Method::POST, &format!("/containers/{id}/wait{wait}")).await?;
        let proxy = if self.proxy { Some(streams::proxy_signals(self.client.clone(), self.id.clone())?) } else { None };
        self.client.post(&format!("/containers/{id}/start")).await.map_err(NotStarted)?;
        let sizes = (self.tty && terminal::stdout_is_terminal())
            .then(|| streams::follow_size(self.client.clone(), Resized::Container, self.id.clone()));
        let end = streams::run(stream, self.streams.stdin, self.tty, self.keys).await;
        if let Some(sizes) = sizes {
            sizes.abort();
        }
        if end? == End::Detached {
            return Ok(0);
        }
        let code = exit_code(crate::client::connection::Values::new(ended)).await;
        if let Some(proxy) = proxy {
            proxy.abort();
        }
        code
    }
}

/// What `/wait` answers.
async fn exit_code(mut answer: crate::client::connection::Values) -> anyhow::Result<u8> {
    let Some(ended) = answer.next().await? else { return Ok(125) };
    if let Some(message) = ended["Error"]["Message"].as_str().filter(|m| !m.is_empty()) {
        warn(format_args!("Error waiting for container: {message}"));
        return Ok(125);
    }
    // A status is a byte: what does not fit ends up as it does in a shell.
    Ok(u8::try_from(ended["StatusCode"].as_i64().unwrap_or(125) & 0xff).unwrap_or(125))
}

/// `start`.
///
/// # Errors
/// A container did not start.
pub async fn start(app: App, p: Parsed) -> anyhow::Result<u8> {
    let attach = p.on("attach") || p.on("interactive");
    if !attach {
        let mut failed: Vec<&str> = Vec::new();
        for name in &p.args {
            match app.client.post(&format!("/containers/{}/start", segment(name))).await {
                Ok(_) => say(name)?,
                Err(e) => {
                    warn(format_args!("{e:#}"));
                    failed.push(name);
                }
            }
        }
        if failed.is_empty() {
            return Ok(0);
        }
        return Err(Exit::new(1, format_args!("Error: failed to start containers: {}", failed.join(", "))).into());
    }
    let [name] = p.args.as_slice() else {
        return Err(Exit::new(1, "you cannot start and attach multiple containers at once").into());
    };
    let shown = app.client.get(&format!("/containers/{}/json", segment(name))).await?;
    let id = shown["Id"].as_str().unwrap_or(name).to_owned();
    let tty = shown["Config"]["Tty"].as_bool() == Some(true);
    let opened = shown["Config"]["OpenStdin"].as_bool() == Some(true);
    let keys = DetachKeys::parse(p.text("detach-keys")).map_err(anyhow::Error::msg)?;
    let streams = flags::Streams { stdin: p.on("interactive") && opened, stdout: true, stderr: true };
    let removed = shown["HostConfig"]["AutoRemove"].as_bool() == Some(true);
    let detach = p.text("detach-keys").to_owned();
    let session = Session { client: app.client.clone(), id, streams, tty, proxy: !tty, detach, keys };
    session.start(if removed { "removed" } else { "next-exit" }).await
}

/// `attach`.
///
/// # Errors
/// The container does not run.
pub async fn attach(app: App, p: Parsed) -> anyhow::Result<u8> {
    let name = segment(&p.args[0]);
    let shown = app.client.get(&format!("/containers/{name}/json")).await?;
    let state = &shown["State"];
    let refuse = |why: &str| Err(Exit::new(1, why).into());
    if state["Running"].as_bool() != Some(true) {
        return refuse("You cannot attach to a stopped container, start it first");
    }
    if state["Paused"].as_bool() == Some(true) {
        return refuse("You cannot attach to a paused container, unpause it first");
    }
    if state["Restarting"].as_bool() == Some(true) {
        return refuse("You cannot attach to a restarting container, wait until it is running");
    }
    let id = shown["Id"].as_str().unwrap_or_default().to_owned();
    let tty = shown["Config"]["Tty"].as_bool() == Some(true);
    let stdin = !p.on("no-stdin") && shown["Config"]["OpenStdin"].as_bool() == Some(true);
    if stdin && tty && !terminal::stdin_is_terminal() {
        return refuse("the input device is not a TTY");
    }
    let keys = DetachKeys::parse(p.text("detach-keys")).map_err(anyhow::Error::msg)?;
    let wait = Query::new().with("condition", "not-running");
    let ended = app.client.stream(hyper::Method::POST, &format!("/containers/{id}/wait{wait}")).await?;
    let query = Query::new()
        .with("stream", "1")
        .flag("stdin", stdin)
        .with("stdout", "1")
        .with("stderr", "1")
        .some("detachKeys", p.text("detach-keys"));
    let stream = app.client.hijack(&format!("/containers/{id}/attach{query}"), None).await?;
    let proxy = (p.on_or("sig-proxy", true) && !tty)
        .then(|| streams::proxy_signals(app.client.clone(), id.clone()))
        .transpose()?;
    if let Some((rows, columns)) = terminal::size().filter(|_| tty && terminal::stdout_is_terminal()) {
        // Another size for a moment makes whatever runs there draw itself again.
        let query = Query::new().with("h", (rows + 1).to_string()).with("w", (columns + 1).to_string());
        let _ = app.client.post(&format!("/containers/{id}/resize{query}")).await;
    }
    let sizes = (tty && terminal::stdout_is_terminal())
        .then(|| streams::follow_size(app.client.clone(), Resized::Container, id.clone()));
    let end = streams::run(stream, stdin, tty, keys).await?;
    for task in sizes.into_iter().chain(proxy) {
        task.abort();
    }
    if end == End::Detached {
        return Err(Exit::new(1, "read escape sequence").into());
    }
    exit_code(crate::client::connection::Values::new(ended)).await
}

/// `exec`.
///
/// # Errors
/// The command did not start.
pub async fn exec(app: App, p: Parsed) -> anyhow::Result<u8> {
    let [container, command @ ..] = p.args.as_slice() else { return Ok(1) };
    let detach = p.on("detach");
    let tty = p.on("tty");
    let stdin = p.on("interactive") && !detach;
    let keys = DetachKeys::parse(p.text("detach-keys")).map_err(anyhow::Error::msg)?;
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Exit::new(1, "the input device is not a TTY").into());
    }
    let environment = flags::environment(&p)?;
    let size = terminal::size().filter(|_| tty);
    let mut body = serde_json::json!({
        "User": p.text("user"),
        "Privileged": p.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": !detach,
        "AttachStderr": !detach,
        "Detach": detach,
        "DetachKeys": p.text("detach-keys"),
        "Env": environment,
        "WorkingDir": p.text("workdir"),
        "Cmd": command,
    });
    if let Some((rows, columns)) = size {
        body["ConsoleSize"] = serde_json::json!([rows, columns]);
    }
    let created = app.client.post_json(&format!("/containers/{}/exec", segment(container)), &body).await?;
    let id = created["Id"].as_str().context("the daemon gave no id")?.to_owned();
    let mut body = serde_json::json!({ "Detach": detach, "Tty": tty });
    if let Some((rows, columns)) = size {
        body["ConsoleSize"] = serde_json::json!([rows, columns]);
    }
    let path = format!("/exec/{id}/start");
    if detach {
        app.client.post_json(&path, &body).await.map_err(|e| Exit::new(code_of_exec(&e), format_args!("{e:#}")))?;
        return Ok(0);
    }
    let stream =
        app.client.hijack(&path, Some(&body)).await.map_err(|e| Exit::new(code_of_exec(&e), format_args!("{e:#}")))?;
    let sizes = (tty && terminal::stdout_is_terminal())
        .then(|| streams::follow_size(app.client.clone(), Resized::Exec, id.clone()));
    let end = streams::run(stream, stdin, tty, keys).await?;
    if let Some(sizes) = sizes {
        sizes.abort();
    }
    if end == End::Detached {
        return Err(Exit::new(1, "read escape sequence").into());
    }
    let shown = app.client.get(&format!("/exec/{id}/json")).await?;
    Ok(u8::try_from(shown["ExitCode"].as_i64().unwrap_or_default() & 0xff).unwrap_or(1))
}

fn code_of_exec(error: &anyhow::Error) -> u8 {
    match code_of(error) {
        125 => 1,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_failed_starts_follow_the_shell() {
        let of = |text: &str| code_of(&anyhow::anyhow!("{text}"));
        assert_eq!(of("exec: \"x\": executable file not found in $PATH: unknown"), 127);
        assert_eq!(of("exec /x: no such file or directory"), 127);
        assert_eq!(of("exec /x: permission denied"), 126);
        assert_eq!(of("network nosuch not found"), 125);
    }
}
