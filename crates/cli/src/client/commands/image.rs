//! `image`: what containers are made of.

use super::App;
use crate::client::connection::{Chunks, Query, Values, from_reader, full, image_segment};
use crate::client::credentials::{Credentials, server_of};
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, confirm, print, say};
use crate::client::progress::{self, To};
use crate::text::{ago, go_time, human_size, short_id};
use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use std::io::Write;

const IMAGES: List = List {
    headers: &[
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    raw: "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n",
};

/// `images`.
///
/// # Errors
/// The daemon refuses, or the format is wrong.
pub async fn list(app: App, p: Parsed) -> anyhow::Result<u8> {
    let mut filters = p.list("filter").to_vec();
    filters.extend(p.args.first().map(|name| format!("reference={name}")));
    let query = Query::new().flag("all", p.on("all")).filters(&filters);
    let answer = app.client.get(&format!("/images/json{query}")).await?;
    let (full, digests) = (p.on("no-trunc"), p.on("digests"));
    let quiet = p.on("quiet");
    let wants_digests = digests || p.text("format").contains(".Digest");
    let mut rows = Vec::new();
    for image in answer.as_array().into_iter().flatten() {
        let names = names(image, wants_digests);
        // With -q an image of several names is one line a name, as Docker has it.
        rows.extend(names.into_iter().map(|name| row(image, &name, full)));
    }
    let table = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
    IMAGES.show_with(if digests { table } else { IMAGES.table }, rows, p.text("format"), quiet)?;
    Ok(0)
}

/// Repository, tag and digest of each line that an image has.
fn names(image: &Value, with_digests: bool) -> Vec<[String; 3]> {
    let texts = |name: &str| -> Vec<&str> {
        let all = image[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.filter(|n| *n != "<none>:<none>" && *n != "<none>@<none>").collect()
    };
    const NONE: &str = "<none>";
    let (tags, digests) = (texts("RepoTags"), texts("RepoDigests"));
    let digest_of = |repository: &str| {
        let found = digests.iter().filter_map(|d| d.split_once('@')).find(|(r, _)| *r == repository);
        found.map_or(NONE, |(_, digest)| digest)
    };
    let mut lines: Vec<[String; 3]> = Vec::new();
    for tag in &tags {
        let (repository, tag) = split_tag(tag);
        let digest = if with_digests { digest_of(repository) } else { NONE };
        lines.push([repository.to_owned(), tag.to_owned(), digest.to_owned()]);
    }
    if lines.is_empty() {
        for (repository, digest) in digests.iter().filter_map(|d| d.split_once('@')) {
            lines.push([repository.to_owned(), NONE.to_owned(), digest.to_owned()]);
        }
    }
    if lines.is_empty() {
        lines.push([NONE.to_owned(), NONE.to_owned(), NONE.to_owned()]);
    }
    lines
}

fn row(image: &Value, [repository, tag, digest]: &[String; 3], full: bool) -> Row {
    let id = image["Id"].as_str().unwrap_or_default();
    let created = image["Created"].as_i64().unwrap_or_default();
    let bytes = image["Size"].as_i64().unwrap_or_default();
    let shared = image["SharedSize"].as_i64().filter(|s| *s >= 0);
    let human = |bytes: Option<i64>| bytes.map_or("N/A".to_owned(), |b| human_size(b as f64, 4));
    let containers = image["Containers"].as_i64().filter(|c| *c >= 0);
    Row::new("*formatter.imageContext")
        .with("ID", if full { id } else { short_id(id) })
        .with("Repository", repository)
        .with("Tag", tag)
        .with("Digest", digest)
        .with("CreatedSince", ago(created))
        .with("CreatedAt", go_time(created))
        .with("Size", human_size(bytes as f64, 3))
        .with("Containers", containers.map_or("N/A".to_owned(), |c| c.to_string()))
        .with("VirtualSize", human(Some(bytes)))
        .with("SharedSize", human(shared))
        .with("UniqueSize", human(shared.map(|s| bytes - s)))
}

/// `localhost:5000/a:b` into what is before the tag, and the tag.
pub fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

/// A reference as people see it: with the tag that is meant.
pub fn familiar(reference: &str) -> String {
    if reference.contains('@') || !split_tag(reference).1.is_empty() {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Something to be pulled.
pub struct Pull<'a> {
    pub reference: &'a str,
    pub platform: &'a str,
    pub quiet: bool,
}

impl Pull<'_> {
    /// As `run` does it: on stderr.
    ///
    /// # Errors
    /// It cannot be pulled.
    pub async fn to_stderr(&self, app: &App) -> anyhow::Result<()> {
        self.fetch(app, if self.quiet { To::Nowhere } else { To::Stderr }, false).await
    }

    async fn fetch(&self, app: &App, to: To, all_tags: bool) -> anyhow::Result<()> {
        let (name, tag) = match self.reference.split_once('@') {
            Some((name, digest)) => (name, digest),
            None => split_tag(self.reference),
        };
        let tag = if tag.is_empty() && !all_tags { "latest" } else { tag };
        let query = Query::new().with("fromImage", name).some("tag", tag).some("platform", self.platform);
        let account = account_for(self.reference)?;
        let path = format!("/images/create{query}");
        let answer = app.client.open_as(Method::POST, &path, full(Bytes::new()), "", account).await?;
        progress::show(Values::new(answer), to, |_| {}).await
    }
}

/// `pull`.
///
/// # Errors
/// It cannot be pulled.
pub async fn pull(app: App, p: Parsed) -> anyhow::Result<u8> {
    let reference = p.args[0].as_str();
    let all = p.on("all-tags");
    let tagged = reference.contains('@') || !split_tag(reference).1.is_empty();
    if all && tagged {
        return Err(Exit::new(1, "tag can't be used with --all-tags/-a").into());
    }
    let quiet = p.on("quiet");
    if !tagged && !quiet && !all {
        say("Using default tag: latest")?;
    }
    let pull = Pull { reference, platform: p.text("platform"), quiet };
    pull.fetch(&app, if quiet { To::Nowhere } else { To::Stdout }, all).await?;
    say(canonical(reference, all))?;
    Ok(0)
}

/// The full name of what was pulled: `docker.io/library/busybox:latest`.
fn canonical(reference: &str, all: bool) -> String {
    let named = if all { reference.to_owned() } else { familiar(reference) };
    match named.split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => named,
        Some(_) => format!("docker.io/{named}"),
        None => format!("docker.io/library/{named}"),
    }
}

/// The header that says who asks the registry of an image.
fn account_for(reference: &str) -> anyhow::Result<Option<(&'static str, String)>> {
    let account = Credentials::read_or_warn().get(&server_of(reference)?)?;
    Ok(account.map(|a| ("x-registry-auth", a.header())))
}

/// `push`.
///
/// # Errors
/// There is no such image, or the registry does not take it.
pub async fn push(app: App, p: Parsed) -> anyhow::Result<u8> {
    let reference = p.args[0].as_str();
    let (all, quiet) = (p.on("all-tags"), p.on("quiet"));
    if all && !split_tag(reference).1.is_empty() {
        return Err(Exit::new(1, "tag can't be used with --all-tags/-a").into());
    }
    let (name, tag) = split_tag(reference);
    let tag = if tag.is_empty() && !all { "latest" } else { tag };
    if tag == "latest" && !quiet && split_tag(reference).1.is_empty() {
        say("Using default tag: latest")?;
    }
    let path = format!("/images/{}/push{}", image_segment(name), Query::new().some("tag", tag));
    let account = account_for(reference)?;
    let answer = app.client.open_as(Method::POST, &path, full(Bytes::new()), "", account).await?;
    progress::show(Values::new(answer), if quiet { To::Nowhere } else { To::Stdout }, |_| {}).await?;
    if quiet {
        say(canonical(reference, all))?;
    }
    Ok(0)
}

/// `tag`.
///
/// # Errors
/// The image is not there, or the name is none.
pub async fn tag(app: App, p: Parsed) -> anyhow::Result<u8> {
    let name = &p.args[1];
    if let Err(e) = name.parse::<model::reference::Reference>() {
        let said = format!("Error parsing reference: \"{name}\" is not a valid repository/tag: {e}");
        return Err(Exit::new(1, said).into());
    }
    let (repository, tag) = split_tag(name);
    let query = Query::new().with("repo", repository).some("tag", tag);
    app.client.post(&format!("/images/{}/tag{query}", image_segment(&p.args[0]))).await?;
    Ok(0)
}

/// `rmi`.
///
/// # Errors
/// An image is in use, or not there.
pub async fn remove(app: App, p: Parsed) -> anyhow::Result<u8> {
    let force = p.on("force");
    let query = Query::new().flag("force", force).flag("noprune", p.on("no-prune"));
    let mut errors = Vec::new();
    let mut fatal = false;
    for name in &p.args {
        match app.client.delete(&format!("/images/{}{query}", image_segment(name))).await {
            Ok(answer) => {
                for deleted in answer.as_array().into_iter().flatten() {
                    match (deleted["Deleted"].as_str(), deleted["Untagged"].as_str()) {
                        (Some(id), _) => say(format_args!("Deleted: {id}"))?,
                        (None, Some(name)) => say(format_args!("Untagged: {name}"))?,
                        _ => {}
                    }
                }
            }
            Err(e) => {
                fatal |= !crate::client::connection::is_not_found(&e);
                errors.push(format!("{e:#}"));
            }
        }
    }
    if errors.is_empty() {
        return Ok(0);
    }
    if force && !fatal {
        crate::client::output::warn(errors.join("\n"));
        return Ok(0);
    }
    Err(Exit::new(1, errors.join("\n")).into())
}

/// What is asked before images are pruned.
pub fn prune_warning(all: bool) -> &'static str {
    if all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    }
}

/// `image prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    let all = p.on("all");
    if confirm(prune_warning(all), p.on("force"))? {
        let (said, bytes) = pruned(&app, p.list("filter"), all).await?;
        print(said + &super::reclaimed(bytes))?;
    }
    Ok(0)
}

/// Prunes; what is said about it, and how much it won.
///
/// # Errors
/// The daemon refuses.
pub async fn pruned(app: &App, filters: &[String], all: bool) -> anyhow::Result<(String, i64)> {
    let mut filters = filters.to_vec();
    filters.push(format!("dangling={}", !all));
    let answer = app.client.post(&format!("/images/prune{}", Query::new().filters(&filters))).await?;
    let mut said = String::new();
    for deleted in answer["ImagesDeleted"].as_array().into_iter().flatten() {
        if said.is_empty() {
            said.push_str("Deleted Images:\n");
        }
        match (deleted["Untagged"].as_str().filter(|u| !u.is_empty()), deleted["Deleted"].as_str()) {
            (Some(name), _) => said.push_str(&format!("untagged: {name}\n")),
            (None, Some(id)) => said.push_str(&format!("deleted: {id}\n")),
            _ => {}
        }
    }
    if !said.is_empty() {
        said.push('\n');
    }
    Ok((said, answer["SpaceReclaimed"].as_i64().unwrap_or_default()))
}

const HISTORY: List = List {
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    raw: "",
};

/// `history`.
///
/// # Errors
/// The image is not there.
pub async fn history(app: App, p: Parsed) -> anyhow::Result<u8> {
    let answer = app.client.get(&format!("/images/{}/history", image_segment(&p.args[0]))).await?;
    let (human, full) = (p.on_or("human", true), p.on("no-trunc"));
    let rows = answer.as_array().into_iter().flatten().map(|h| {
        let text = |name: &str| h[name].as_str().unwrap_or_default();
        let created = h["Created"].as_i64().unwrap_or_default();
        let bytes = h["Size"].as_f64().unwrap_or_default();
        let by = text("CreatedBy").replace('\t', " ");
        let at = jiff::Timestamp::from_second(created).map(|t| t.to_string()).unwrap_or_default();
        Row::new("*formatter.historyContext")
            .with("ID", if full { text("Id") } else { short_id(text("Id")) })
            .with(
                "CreatedSince",
                if !human {
                    at.clone()
                } else if created > 0 {
                    ago(created)
                } else {
                    "N/A".into()
                },
            )
            .with("CreatedAt", at)
            .with("CreatedBy", if full { by } else { crate::text::ellipsis(&by, 45) })
            .with("Size", if human { human_size(bytes, 3) } else { format!("{bytes}") })
            .with("Comment", text("Comment"))
    });
    HISTORY.show(rows.collect(), p.text("format"), p.on("quiet"))?;
    Ok(0)
}

/// `save`.
///
/// # Errors
/// An image is not there.
pub async fn save(app: App, p: Parsed) -> anyhow::Result<u8> {
    let output = p.text("output");
    if output.is_empty() && crate::client::terminal::stdout_is_terminal() {
        return Err(Exit::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect").into());
    }
    let query = p.args.iter().fold(Query::new(), |query, name| query.with("names", name));
    let answer = app.client.stream(Method::GET, &format!("/images/get{query}")).await?;
    copy_to(Chunks(answer), output).await?;
    Ok(0)
}

/// Copies an answer to a file, or to standard output where none is named. The file appears when it is whole.
///
/// # Errors
/// It cannot be written.
pub async fn copy_to(mut chunks: Chunks, path: &str) -> anyhow::Result<()> {
    if path.is_empty() {
        let mut out = std::io::stdout().lock();
        while let Some(bytes) = chunks.next().await? {
            out.write_all(&bytes)?;
        }
        return Ok(out.flush()?);
    }
    let partial = format!("{path}.part");
    let copied = async {
        let mut file = std::fs::File::create(&partial).with_context(|| format!("cannot write {path}"))?;
        while let Some(bytes) = chunks.next().await? {
            file.write_all(&bytes).with_context(|| format!("cannot write {path}"))?;
        }
        std::fs::rename(&partial, path).with_context(|| format!("cannot write {path}"))
    }
    .await;
    if copied.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    copied
}

/// `load`.
///
/// # Errors
/// It is no archive of images.
pub async fn load(app: App, p: Parsed) -> anyhow::Result<u8> {
    let input = p.text("input");
    let body = if input.is_empty() {
        if crate::client::terminal::stdin_is_terminal() {
            return Err(Exit::new(1, "requested load from stdin, but stdin is empty").into());
        }
        from_reader(tokio::io::stdin())
    } else {
        from_reader(open(input).await?)
    };
    let quiet = p.on("quiet");
    let path = format!("/images/load{}", Query::new().flag("quiet", quiet).some("platform", p.text("platform")));
    let answer = app.client.open(Method::POST, &path, body, "application/x-tar").await?;
    progress::show(Values::new(answer), To::Stdout, |_| {}).await?;
    Ok(0)
}

async fn open(path: &str) -> anyhow::Result<tokio::fs::File> {
    let opened = tokio::fs::File::open(path).await;
    opened.map_err(|e| anyhow::anyhow!("open {path}: {}", crate::client::output::go_error(&e)))
}

/// `import`.
///
/// # Errors
/// It is no archive.
pub async fn import(app: App, p: Parsed) -> anyhow::Result<u8> {
    let source = p.args[0].as_str();
    let (repository, tag) = split_tag(p.args.get(1).map(String::as_str).unwrap_or_default());
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let mut query = Query::new()
        .with("fromSrc", if remote { source } else { "-" })
        .some("repo", repository)
        .some("tag", tag)
        .some("message", p.text("message"))
        .some("platform", p.text("platform"));
    for change in p.list("change") {
        query = query.with("changes", change);
    }
    let path = format!("/images/create{query}");
    let answer = match source {
        _ if remote => app.client.stream(Method::POST, &path).await?,
        "-" => app.client.open(Method::POST, &path, from_reader(tokio::io::stdin()), "text/plain").await?,
        file => app.client.open(Method::POST, &path, from_reader(open(file).await?), "text/plain").await?,
    };
    progress::show(Values::new(answer), To::Stdout, |_| {}).await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_taken_apart_and_completed() {
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", ""));
        assert_eq!(split_tag("localhost:5000/a:b"), ("localhost:5000/a", "b"));
        assert_eq!(familiar("a"), "a:latest");
        assert_eq!(familiar("a@sha256:1"), "a@sha256:1");
        assert_eq!(canonical("busybox", false), "docker.io/library/busybox:latest");
        assert_eq!(canonical("me/x:1", false), "docker.io/me/x:1");
        assert_eq!(canonical("ghcr.io/me/x", false), "ghcr.io/me/x:latest");
    }

    #[test]
    fn an_image_has_a_line_for_each_name() {
        let image = json!({ "RepoTags": ["a:1", "b:2"], "RepoDigests": ["a@sha256:x"] });
        let lines = names(&image, true);
        assert_eq!(lines[0], ["a", "1", "sha256:x"]);
        assert_eq!(lines[1], ["b", "2", "<none>"]);
        assert_eq!(names(&json!({ "RepoTags": null }), false), [["<none>", "<none>", "<none>"]]);
    }
}
