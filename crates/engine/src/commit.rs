//! `commit`: an image of what a container has become.

use crate::error::{Error, Kind, Result};
use crate::images::image_error;
use crate::{Engine, blocking};
use model::container::{Config, Status};
use model::image::{ImageConfig, ImageId};
use std::sync::Arc;

/// What a client asks for in `POST /commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// What the image is to be called; it may have no name.
    pub name: Option<String>,
    pub author: String,
    pub comment: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// The container stands still meanwhile.
    pub pause: bool,
    /// What of the container's configuration is to be otherwise.
    pub config: Option<Config>,
}

impl Engine {
    /// Makes an image of a container.
    ///
    /// # Errors
    /// There is no such container, a change is no instruction, or the name is none.
    pub async fn commit(self: &Arc<Self>, reference: &str, request: CommitRequest) -> Result<ImageId> {
        if let Some(name) = &request.name {
            name.parse::<model::reference::Reference>()
                .map_err(|e| Error::invalid(format!("invalid reference format: {e}")))?;
        }
        let reference = reference.to_owned();
        self.in_turn(&reference, move |engine, id| async move {
            let (record, live) = {
                let state = engine.state();
                let entry = state.entry(id)?;
                (entry.record.clone(), entry.live.clone())
            };
            let rootfs = engine.known_rootfs(&record)?;
            let mut config = image_config(&record.config);
            if let Some(other) = &request.config {
                replace(&mut config, image_config(other));
            }
            let commit = image::Commit {
                config,
                changes: request.changes,
                author: request.author,
                message: request.comment,
                created_by: record.command().join(" "),
            };
            // It stands still in its turn: nobody sees it paused.
            let paused = live.filter(|_| request.pause && record.state.status == Status::Running);
            if let Some(live) = &paused {
                live.pause().await.map_err(|e| Error::internal(e).context("cannot pause the container"))?;
            }
            let images = engine.clone();
            engine.faults.pass("commit").await?;
            let (container, parent) = (id.to_string(), record.image.clone());
            let made = blocking(move || images.images.commit(&container, &rootfs, Some(&parent), commit)).await;
            if let Some(live) = &paused
                && let Err(e) = live.unpause().await
                && live.exit_status().is_none()
            {
                tracing::error!(container = ?id, "stays paused after a commit: {e}");
                return Err(Error::new(Kind::Internal, e));
            }
            let image = made.map_err(image_error)?;
            if let Some(name) = &request.name {
                engine.tag_image(image.as_str(), name).await?;
            }
            let more = [("comment", record_comment(&engine, &image)), ("imageID", image.to_string())];
            engine.tell_container(&record, "commit", &more);
            Ok(image)
        })
        .await
    }
}

fn record_comment(engine: &Engine, image: &ImageId) -> String {
    engine.images.by_id(image).map(|i| i.configuration.comment.clone()).unwrap_or_default()
}

/// The part of a container's configuration that an image has.
fn image_config(config: &Config) -> ImageConfig {
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: Some(config.exposed_ports.clone()).filter(|p| !p.is_empty()),
        env: Some(config.env.clone()).filter(|e| !e.is_empty()),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: Some(config.volumes.clone()).filter(|v| !v.is_empty()),
        working_dir: config.working_dir.clone(),
        labels: Some(config.labels.clone()).filter(|l| !l.is_empty()),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
    }
}

/// What is said in `with` counts; lists of variables, ports, volumes and labels are joined.
fn replace(config: &mut ImageConfig, with: ImageConfig) {
    fn one<T>(own: &mut Option<T>, other: Option<T>) {
        if other.is_some() {
            *own = other;
        }
    }
    if !with.user.is_empty() {
        config.user = with.user;
    }
    if !with.working_dir.is_empty() {
        config.working_dir = with.working_dir;
    }
    if let Some(env) = with.env {
        model::env::merge(config.env.get_or_insert_default(), &env);
    }
    config.exposed_ports.get_or_insert_default().extend(with.exposed_ports.into_iter().flatten());
    config.volumes.get_or_insert_default().extend(with.volumes.into_iter().flatten());
    config.labels.get_or_insert_default().extend(with.labels.into_iter().flatten());
    config.exposed_ports.take_if(|p| p.is_empty());
    config.volumes.take_if(|v| v.is_empty());
    config.labels.take_if(|l| l.is_empty());
    // A command of its own stands alone, as in a Dockerfile.
    let filled = |list: Option<Vec<String>>| list.filter(|l| !l.is_empty());
    one(&mut config.entrypoint, filled(with.entrypoint));
    one(&mut config.cmd, filled(with.cmd));
    one(&mut config.stop_signal, with.stop_signal.filter(|s| !s.is_empty()));
    one(&mut config.healthcheck, with.healthcheck);
    one(&mut config.on_build, filled(with.on_build));
    one(&mut config.shell, filled(with.shell));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_counts_and_the_rest_stays() {
        let list = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let mut config = ImageConfig { env: list(&["A=1", "B=2"]), cmd: list(&["sh"]), ..ImageConfig::default() };
        let with = ImageConfig { env: list(&["A=3"]), user: "web".into(), cmd: list(&[]), ..ImageConfig::default() };
        replace(&mut config, with);
        assert_eq!((config.env, config.cmd, config.user.as_str()), (list(&["A=3", "B=2"]), list(&["sh"]), "web"));
        assert_eq!(config.labels, None);
    }
}
