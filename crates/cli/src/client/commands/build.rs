//! `build`: a directory, or standard input, sent to the daemon's classic builder.

use super::App;
use crate::client::connection::{Query, Values, from_reader, full};
use crate::client::credentials::Credentials;
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, confirm, print, say};
use crate::client::progress::{self, To};
use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// `build`.
///
/// # Errors
/// The context cannot be read, or a step fails.
pub async fn build(app: App, p: Parsed) -> anyhow::Result<u8> {
    let place = p.args[0].as_str();
    let file = p.text("file");
    let mut remote = "";
    let (body, dockerfile) = match place {
        "-" => from_stdin(file)?,
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let name = if file.is_empty() { "Dockerfile" } else { file };
            remote = url;
            (full(bytes::Bytes::new()), name.to_owned())
        }
        url if url.contains("://") || url.starts_with("git@") => {
            bail!("unable to prepare context: building from {url} is not supported: clone it and build the directory")
        }
        directory => from_directory(Path::new(directory), file)?,
    };
    let quiet = p.on("quiet");
    let pairs = |flag: &str| -> Map<String, Value> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Value::from(value)),
            None => (text.clone(), std::env::var(text).map_or(Value::Null, Value::from)),
        };
        p.list(flag).iter().map(pair).collect()
    };
    let labels: Map<String, Value> =
        pairs("label").into_iter().map(|(k, v)| (k, if v.is_null() { "".into() } else { v })).collect();
    let mut query = Query::new()
        .with("dockerfile", &dockerfile)
        .flag("nocache", p.on("no-cache"))
        .flag("pull", p.on("pull"))
        .flag("q", quiet)
        .with("rm", if p.on_or("rm", true) { "1" } else { "0" })
        .flag("forcerm", p.on("force-rm"))
        .with("buildargs", Value::Object(pairs("build-arg")).to_string())
        .with("labels", Value::Object(labels).to_string())
        .with("networkmode", p.last("network").unwrap_or("default"))
        .some("target", p.text("target"))
        .some("platform", p.text("platform"))
        .some("remote", remote)
        .some("cpuperiod", p.text("cpu-period"))
        .some("cpuquota", p.text("cpu-quota"))
        .some("cpushares", p.text("cpu-shares"))
        .some("cpusetcpus", p.text("cpuset-cpus"))
        .some("cpusetmems", p.text("cpuset-mems"))
        .some("cgroupparent", p.text("cgroup-parent"))
        .with("version", "1");
    for tag in p.list("tag") {
        query = query.with("t", tag);
    }
    if p.given("cache-from") {
        query = query.with("cachefrom", json!(p.split("cache-from")).to_string());
    }
    for (flag, name) in [("memory", "memory"), ("memory-swap", "memswap"), ("shm-size", "shmsize")] {
        if p.given(flag) {
            let bytes = crate::text::parse_bytes(p.text(flag)).map_err(anyhow::Error::msg)?;
            query = query.with(name, bytes.to_string());
        }
    }
    if p.given("ulimit") {
        let limits: Result<Vec<Value>, String> =
            p.list("ulimit").iter().map(|text| super::run::flags::ulimit(text)).collect();
        query = query.with("ulimits", Value::Array(limits.map_err(anyhow::Error::msg)?).to_string());
    }
    for option in p.split("security-opt") {
        query = query.with("securityopt", option);
    }
    for host in p.list("add-host") {
        query = query.with("extrahosts", host);
    }
    let accounts = Credentials::read_or_warn().all();
    let header = || URL_SAFE.encode(json!(accounts).to_string());
    let accounts = (!accounts.is_empty()).then(|| ("x-registry-config", header()));
    let answer =
        app.client.open_as(Method::POST, &format!("/build{query}"), body, "application/x-tar", accounts).await?;
    let mut id = String::new();
    let said = progress::show(Values::new(answer), if quiet { To::Nowhere } else { To::Stdout }, |aux| {
        if let Some(built) = aux["ID"].as_str() {
            id = built.to_owned();
        }
    })
    .await;
    said.map_err(|e| match e.downcast::<Exit>() {
        Ok(exit) => Exit::new(exit.code, exit.message).into(),
        Err(e) => e,
    })?;
    if quiet {
        say(&id)?;
    }
    if p.given("iidfile") {
        let path = p.text("iidfile");
        std::fs::write(path, &id).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(0)
}

type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::io::Error>;

/// Standard input: an archive, or a Dockerfile by itself.
fn from_stdin(file: &str) -> anyhow::Result<(Body, String)> {
    if file == "-" {
        bail!("invalid argument: can't use stdin for both build context and dockerfile");
    }
    let mut stdin = std::io::stdin().lock();
    let mut head = vec![0; 512];
    let mut filled = 0;
    while filled < head.len() {
        match stdin.read(&mut head[filled..]).context("cannot read standard input")? {
            0 => break,
            n => filled += n,
        }
    }
    head.truncate(filled);
    if is_archive(&head) {
        // The lock's buffer may hold more than the head: all of it is read from here.
        let mut rest = Vec::new();
        stdin.read_to_end(&mut rest).context("cannot read standard input")?;
        head.extend_from_slice(&rest);
        let name = if file.is_empty() { "Dockerfile" } else { file };
        return Ok((full(head.into()), name.to_owned()));
    }
    let mut text = head;
    stdin.read_to_end(&mut text).context("cannot read standard input")?;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "Dockerfile", &text)?;
    Ok((full(archive.into_inner()?.into()), "Dockerfile".to_owned()))
}

/// Whether bytes begin an archive: tar, or a compression of one.
fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"];
    head.get(257..262) == Some(b"ustar") || magics.iter().any(|m| head.starts_with(m))
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// A directory, without what its `.dockerignore` names, as an archive that is made while it is sent.
fn from_directory(directory: &Path, file: &str) -> anyhow::Result<(Body, String)> {
    let missing = || {
        format!("unable to prepare context: path {} not found", crate::text::quote(&directory.display().to_string()))
    };
    let root = directory.canonicalize().map_err(|_| anyhow!(missing()))?;
    if !root.is_dir() {
        bail!("unable to prepare context: context must be a directory: {}", root.display());
    }
    let mut extra = Vec::new();
    let dockerfile = match file {
        "" => "Dockerfile".to_owned(),
        "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).context("cannot read standard input")?;
            outside(&mut extra, text)
        }
        file => {
            let given = Path::new(file);
            let path = given.canonicalize().map_err(|e| {
                anyhow!(
                    "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {file}: {}",
                    crate::client::output::go_error(&e)
                )
            })?;
            match path.strip_prefix(&root) {
                Ok(inside) => inside.display().to_string(),
                Err(_) => outside(&mut extra, std::fs::read(&path).with_context(|| format!("cannot read {file}"))?),
            }
        }
    };
    if file.is_empty() && !root.join("Dockerfile").exists() && !root.join("dockerfile").exists() {
        bail!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or \
             directory",
            root.join("Dockerfile").display()
        );
    }
    let ignore = Ignore::read(&root, &dockerfile)?;
    let kept = dockerfile.clone();
    let (reader, writer) = tokio::io::duplex(1 << 20);
    tokio::task::spawn_blocking(move || {
        let bridge = tokio_util::io::SyncIoBridge::new(writer);
        let mut archive = tar::Builder::new(bridge);
        archive.follow_symlinks(false);
        let written = add(&mut archive, &root, Path::new(""), &ignore, &kept).and_then(|()| {
            for (name, bytes) in &extra {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o600);
                archive.append_data(&mut header, name, bytes.as_slice())?;
            }
            archive.into_inner()?.shutdown()
        });
        if let Err(e) = written {
            // The daemon gets half an archive and refuses it; this says why.
            crate::client::output::warn(format_args!("cannot read the build context: {e}"));
        }
    });
    Ok((from_reader(reader), dockerfile))
}

/// A Dockerfile that is not in the context gets a name that nothing there has.
fn outside(extra: &mut Vec<(String, Vec<u8>)>, text: Vec<u8>) -> String {
    let name = format!(".dockerfile.{:x}", std::process::id());
    extra.push((name.clone(), text));
    name
}

fn add<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    root: &Path,
    below: &Path,
    ignore: &Ignore,
    dockerfile: &str,
) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(root.join(below))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let name = path.display().to_string();
        // The daemon needs these two, whatever the patterns say, and takes them out itself.
        let needed = name == dockerfile || name == ".dockerignore";
        let ignored = !needed && ignore.excludes(&name);
        if ignored && !(kind.is_dir() && (ignore.has_exceptions || dockerfile.starts_with(&format!("{name}/")))) {
            continue;
        }
        if kind.is_dir() {
            if !ignored {
                archive.append_dir(&path, entry.path())?;
            }
            add(archive, root, &path, ignore, dockerfile)?;
        } else if kind.is_file() || kind.is_symlink() {
            archive.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

/// `.dockerignore`: patterns of Go's `filepath.Match` with `**`, the last that fits counts, `!` makes exceptions.
#[derive(Debug, Default)]
struct Ignore {
    patterns: Vec<(bool, regex_lite::Regex)>,
    has_exceptions: bool,
}

impl Ignore {
    /// `Dockerfile.dockerignore` counts before `.dockerignore`.
    fn read(root: &Path, dockerfile: &str) -> anyhow::Result<Self> {
        let places: [PathBuf; 2] = [root.join(format!("{dockerfile}.dockerignore")), root.join(".dockerignore")];
        let text = places.iter().find_map(|p| std::fs::read_to_string(p).ok()).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut ignore = Ignore::default();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |p| (true, p.trim()));
            let parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
            if parts.is_empty() {
                continue;
            }
            // What is below a thing that fits, fits.
            let expression = format!("^{}(/.*)?$", expression(&parts.join("/")));
            let expression = regex_lite::Regex::new(&expression).with_context(|| {
                format!("error checking context: illegal exclusion pattern: {}", crate::text::quote(line))
            })?;
            ignore.has_exceptions |= exception;
            ignore.patterns.push((exception, expression));
        }
        Ok(ignore)
    }

    fn excludes(&self, path: &str) -> bool {
        self.patterns.iter().fold(false, |excluded, (exception, pattern)| {
            // An exception matters only for what is excluded, and the other way round.
            if *exception == excluded && pattern.is_match(path) { !excluded } else { excluded }
        })
    }
}

fn expression(pattern: &str) -> String {
    let mut expression = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is any number of directories, none included.
                if chars.next_if_eq(&'/').is_some() {
                    expression.push_str("(.*/)?");
                } else {
                    expression.push_str(".*");
                }
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                for c in chars.by_ref() {
                    expression.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '\\' => expression.push_str(&regex_lite::escape(&chars.next().unwrap_or('\\').to_string())),
            c => expression.push_str(&regex_lite::escape(&c.to_string())),
        }
    }
    expression
}

/// `builder prune`.
///
/// # Errors
/// The daemon refuses.
pub async fn prune(app: App, p: Parsed) -> anyhow::Result<u8> {
    if confirm("This will remove all dangling build cache.", p.on("force"))? {
        print(super::reclaimed(pruned(&app).await?))?;
    }
    Ok(0)
}

/// Prunes, and how much it won.
///
/// # Errors
/// The daemon refuses.
pub async fn pruned(app: &App) -> anyhow::Result<i64> {
    let answer = app.client.post("/build/prune").await?;
    Ok(answer["SpaceReclaimed"].as_i64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_counts() {
        let ignore = Ignore::parse("# all but\n*\n!src\nsrc/*.tmp\n**/target\n!keep.tmp\n").unwrap();
        for (path, excluded) in [
            ("README", true),
            ("src", false),
            ("src/main.rs", false),
            ("src/x.tmp", true),
            ("src/deep/x.tmp", false),
            ("target", true),
            ("src/target/debug", true),
            ("keep.tmp", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        let ignore = Ignore::parse("/a.txt\n./b\nc?[0-9]\n").unwrap();
        assert!(ignore.excludes("a.txt") && ignore.excludes("b/c") && ignore.excludes("cx1"));
        assert!(!ignore.excludes("d/a.txt") && !ignore.excludes("cxx"));
    }

    #[test]
    fn archives_are_told_from_dockerfiles() {
        assert!(!is_archive(b"FROM busybox\n"));
        assert!(is_archive(b"\x1f\x8b\x08 gzip"));
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "Dockerfile", b"FROM x").unwrap();
        assert!(is_archive(&archive.into_inner().unwrap()));
    }
}
