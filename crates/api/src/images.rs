//! `/images`.
//!
//! An image's name has slashes, so its paths are taken apart here: `/images/{name}/json`, `/images/{name}/tag` …

use crate::Ctx;
use crate::bodies::{reader_of, stream_error, tar_stream};
use crate::error::{Answer, Failure};
use crate::query::Query;
use crate::socket::Client;
use crate::times;
use crate::version::Version;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use engine::Engine;
use image::{Image, Removed};
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn list(State(engine): Ctx, query: Query) -> Answer {
    let known = ["before", "dangling", "label", "label!", "reference", "since", "until"];
    let filters = query.filters(&known)?;
    let filter = engine.image_filter(&filters.0, query.flag("all"))?;
    let images = engine.list_images(&filter);
    let shown: Vec<Value> = images.iter().map(|(i, n)| show_summary(&engine, i, *n)).collect();
    Ok(Json(shown).into_response())
}

pub fn show_summary(engine: &Engine, image: &Image, containers: usize) -> Value {
    let created = image.configuration.created.map_or(0, |t| t.as_second());
    json!({
        "Id": image.id,
        "ParentId": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": created,
        "Size": image.size,
        "SharedSize": engine.shared_size(&image.id),
        "Labels": image.configuration.config.labels.clone().unwrap_or_default(),
        "Containers": containers,
    })
}

fn show(image: &Image) -> Value {
    let configuration = &image.configuration;
    let lower: Vec<String> = image.layer_paths.iter().map(|p| p.display().to_string()).collect();
    json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "Comment": configuration.comment,
        "Created": configuration.created.map(|t| t.to_string()).unwrap_or_default(),
        "DockerVersion": configuration.docker_version,
        "Author": configuration.author,
        "Config": configuration.config,
        "Architecture": configuration.architecture,
        "Variant": configuration.variant,
        "Os": configuration.os,
        "Size": image.size,
        "GraphDriver": { "Data": { "UpperDir": lower.first(), "LowerDir": lower.get(1..).unwrap_or_default().join(":") }, "Name": "overlay2" },
        "RootFS": { "Type": "layers", "Layers": configuration.rootfs.diff_ids },
        "Metadata": { "LastTagTime": times::shown(image.tagged) },
    })
}

/// Fields that clients expect in an image's configuration though it says nothing of them: those that Docker always shows
/// today, and until 1.49 all that a container's configuration has.
fn fill_config(config: &mut Value, version: Version) {
    let Some(config) = config.as_object_mut() else { return };
    let mut expected = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "", "Volumes": null,
        "WorkingDir": "",
    });
    if version < Version::new(1, 50) {
        let more = json!({
            "AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "", "Hostname": "",
            "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false,
        });
        expected.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    }
    for (key, value) in expected.as_object().into_iter().flatten() {
        config.entry(key).or_insert_with(|| value.clone());
    }
}

/// `GET /images/{name}/{json,history,get}`.
pub async fn get(
    state: Ctx,
    Extension(version): Extension<Version>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let State(engine) = &state;
    if let Some(name) = path.strip_suffix("/json") {
        let image = engine.image(name)?;
        let mut shown = show(&image);
        fill_config(&mut shown["Config"], version);
        // Compose v1 reads the image's volumes here when it makes a container anew, and Debian's speaks the newest version.
        let agent = headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
        if version < Version::new(1, 45) || agent.starts_with(b"docker-compose/1.") {
            shown["ContainerConfig"] = shown["Config"].clone();
        }
        return Ok(Json(shown).into_response());
    }
    if let Some(name) = path.strip_suffix("/history") {
        let steps = engine.image_history(name)?;
        let shown: Vec<Value> = steps
            .iter()
            .map(|s| {
                json!({
                    "Id": s.id,
                    "Created": s.created.map_or(0, |t| t.as_second()),
                    "CreatedBy": s.created_by,
                    "Tags": if s.tags.is_empty() { Value::Null } else { json!(s.tags) },
                    "Size": s.size,
                    "Comment": s.comment,
                })
            })
            .collect();
        return Ok(Json(shown).into_response());
    }
    if let Some(name) = path.strip_suffix("/get") {
        return save_names(engine, vec![name.to_owned()]);
    }
    Err(crate::error::no_such_page(format!("/images/{path}").parse().unwrap_or_default()).await)
}

/// `POST /images/{name}/{tag,push}`.
pub async fn post(
    State(engine): Ctx,
    Extension(client): Extension<Client>,
    Path(path): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    if let Some(name) = path.strip_suffix("/tag") {
        let repository = query.text("repo").ok_or_else(|| Failure::invalid("repo is missing"))?;
        let new = match query.text("tag") {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        };
        engine.tag_image(name, &new).await?;
        return Ok(StatusCode::CREATED.into_response());
    }
    if let Some(name) = path.strip_suffix("/push") {
        return crate::registries::push(&engine, client, name, query.text("tag"), &headers).await;
    }
    Err(crate::error::no_such_page(format!("/images/{path}").parse().unwrap_or_default()).await)
}

pub async fn remove(State(engine): Ctx, Path(name): Path<String>, query: Query) -> Answer {
    let removed = engine.remove_image(&name, query.flag("force"), query.flag("noprune")).await?;
    Ok(Json(show_removed(&removed)).into_response())
}

fn show_removed(removed: &[Removed]) -> Value {
    let shown = removed.iter().map(|r| match r {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    });
    shown.collect()
}

pub async fn prune(State(engine): Ctx, query: Query) -> Answer {
    let filters = query.filters(&["dangling", "label", "label!", "until"])?;
    let all = filters.truth("dangling")? == Some(false);
    let mut rest = filters.0;
    rest.remove("dangling");
    let filter = engine.image_filter(&rest, false)?;
    let pruned = engine.prune_images(all, filter).await?;
    let deleted = if pruned.removed.is_empty() { Value::Null } else { show_removed(&pruned.removed) };
    Ok(Json(json!({ "ImagesDeleted": deleted, "SpaceReclaimed": pruned.reclaimed })).into_response())
}

/// `POST /images/create`: pull, or import.
pub async fn create(
    State(engine): Ctx,
    Extension(client): Extension<Client>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let platform = query.text("platform").map(str::parse).transpose().map_err(Failure::invalid)?;
    if let Some(source) = query.text("fromSrc") {
        let name = query.text("repo").map(|repository| match query.text("tag") {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        });
        let import = image::Import {
            name,
            message: query.text("message").unwrap_or_default().to_owned(),
            changes: query.all("changes").to_vec(),
            platform,
        };
        let mut said = String::new();
        let id = if source == "-" {
            engine.import_image(reader_of(body), import).await?
        } else {
            let url = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
            let archive = engine.fetch_archive(&url).await?;
            said = format!("{}\r\n", json!({ "status": format!("Downloading from {url}") }));
            engine.import_image(archive, import).await?
        };
        said.push_str(&format!("{}\r\n", json!({ "status": id })));
        return Ok(([("Content-Type", "application/json")], said).into_response());
    }
    crate::registries::pull(&engine, client, &query, &headers, platform).await
}

pub async fn load(State(engine): Ctx, body: Body) -> Answer {
    let loaded = match engine.load_images(reader_of(body)).await {
        Ok(loaded) => loaded,
        // Clients look for it in the stream.
        Err(error) => {
            let line = format!("{}\r\n", stream_error(&error.message, None));
            return Ok(([("Content-Type", "application/json")], line).into_response());
        }
    };
    let mut lines = String::new();
    for one in &loaded {
        lines.push_str(&format!("{}\r\n", json!({ "stream": format!("{one}\n") })));
    }
    Ok(([("Content-Type", "application/json")], lines).into_response())
}

/// `GET /images/get?names=…`.
pub async fn save(State(engine): Ctx, query: Query) -> Answer {
    let names: Vec<String> = query.all("names").iter().flat_map(|n| n.split(',')).map(str::to_owned).collect();
    save_names(&engine, names)
}

fn save_names(engine: &Arc<Engine>, names: Vec<String>) -> Answer {
    if names.is_empty() {
        return Err(Failure::invalid("names is missing"));
    }
    // An unknown name is told by the status: later there is only the stream.
    Ok(tar_stream(engine.save_images(names)?))
}
