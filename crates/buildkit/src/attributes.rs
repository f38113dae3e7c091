//! What a Dockerfile front end is told, as a value: BuildKit's `FrontendAttrs`.

use image::build::BuildOptions;
use std::collections::HashMap;
use tonic::Status;

/// Where the files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A directory that the client calls so, in this session if it is another than the build's.
    Directory { name: String, session: Option<String> },
    /// An archive that the client sends when it is asked for this path.
    Upload(String),
}

/// What is to be built.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) options: BuildOptions,
    pub(crate) context: Source,
    /// Where the Dockerfile lies; None is in the context.
    pub(crate) dockerfile: Option<Source>,
}

/// How addresses of uploads begin.
const UPLOAD: &str = "http://buildkit-session";

impl Attributes {
    /// # Errors
    /// Something is asked for that the builder does not have.
    pub(crate) fn read(frontend: &str, attrs: &HashMap<String, String>) -> Result<Self, Status> {
        let get = |name: &str| attrs.get(name).map(String::as_str).filter(|v| !v.is_empty());
        // `# syntax=docker/dockerfile:1` names a front end that speaks what the builder speaks
        let is_dockerfile = |source: &str| source.trim_start_matches("docker.io/").starts_with("docker/dockerfile");
        match (frontend, get("source")) {
            ("dockerfile.v0", _) => {}
            ("gateway.v0", Some(source)) if is_dockerfile(source) => {}
            (other, source) => {
                let source = source.map(|s| format!(" {s}")).unwrap_or_default();
                return Err(Status::unimplemented(format!(
                    "frontend {other}{source} is not there, only dockerfile.v0"
                )));
            }
        }
        if let Some(request) = get("requestid") {
            return Err(Status::unimplemented(format!("the Dockerfile frontend has no subrequest {request}")));
        }
        let directory = |key: &str, default: &str| {
            let name = get(key).unwrap_or(default).to_owned();
            let session = attrs.get(&format!("local-sessionid:{name}")).or(attrs.get("local-sessionid")).cloned();
            Source::Directory { name, session }
        };
        let context = match get("context") {
            None => directory("contextkey", "context"),
            Some(upload) if upload.starts_with(UPLOAD) => Source::Upload(upload[UPLOAD.len()..].to_owned()),
            Some(remote) => {
                let why =
                    format!("cannot build from {remote}: only a directory or an archive of the client's is a context");
                return Err(Status::invalid_argument(why));
            }
        };
        let dockerfile = match (&context, get("dockerfilekey")) {
            (Source::Upload(_), None) => None,
            _ => Some(directory("dockerfilekey", "dockerfile")),
        };
        let mut options = BuildOptions {
            dockerfile: get("filename").unwrap_or_default().to_owned(),
            target: get("target").map(str::to_owned),
            // a list of stages is more than we know to do without, so nothing is taken from the cache
            no_cache: attrs.contains_key("no-cache"),
            pull: get("image-resolve-mode") == Some("pull"),
            network_mode: get("force-network-mode").map(str::to_owned),
            ..BuildOptions::default()
        };
        if let Some(platforms) = get("platform") {
            if platforms.contains(',') {
                return Err(Status::unimplemented(format!(
                    "multi-platform build is not supported: {platforms}. Build one platform at a time"
                )));
            }
            options.platform = Some(platforms.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?);
        }
        for host in get("add-hosts").unwrap_or_default().split(',').filter(|h| !h.is_empty()) {
            let (name, address) = host.split_once('=').ok_or_else(|| {
                Status::invalid_argument(format!("invalid additional host {host}: it is name=address"))
            })?;
            options.extra_hosts.push(format!("{name}:{address}"));
        }
        for (key, value) in attrs {
            if let Some(name) = key.strip_prefix("build-arg:") {
                options.build_args.insert(name.to_owned(), Some(value.clone()));
            } else if let Some(name) = key.strip_prefix("label:") {
                options.labels.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("context:") {
                // `name::linux/amd64` is for one platform
                let name = name.split("::").next().unwrap_or_default();
                let Some(image) = value.strip_prefix("docker-image://") else {
                    let why = format!("cannot use {value} as context {name}: only docker-image:// names one");
                    return Err(Status::unimplemented(why));
                };
                options.named_images.insert(name.to_owned(), image.to_owned());
            }
        }
        Ok(Self { options, context, dockerfile })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attrs: &[(&str, &str)]) -> Result<Attributes, String> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Attributes::read("dockerfile.v0", &attrs).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn what_buildx_says_is_what_is_built() {
        let said = read(&[
            ("filename", "Dockerfile.dev"),
            ("target", "base"),
            ("build-arg:A", "1"),
            ("label:l", "x=y"),
            ("add-hosts", "a=10.0.0.1,b=10.0.0.2"),
            ("force-network-mode", "none"),
            ("image-resolve-mode", "pull"),
            ("platform", "linux/arm64"),
            ("context:base", "docker-image://busybox"),
        ])
        .unwrap();
        let options = said.options;
        assert_eq!((options.dockerfile.as_str(), options.target.as_deref()), ("Dockerfile.dev", Some("base")));
        assert_eq!(options.build_args["A"].as_deref(), Some("1"));
        assert_eq!(options.labels["l"], "x=y");
        assert_eq!(options.extra_hosts, ["a:10.0.0.1", "b:10.0.0.2"]);
        assert_eq!((options.network_mode.as_deref(), options.pull, options.no_cache), (Some("none"), true, false));
        assert_eq!(options.named_images["base"], "busybox");
        assert_eq!(said.context, Source::Directory { name: "context".into(), session: None });
        assert_eq!(said.dockerfile, Some(Source::Directory { name: "dockerfile".into(), session: None }));
        assert!(read(&[("no-cache", "")]).unwrap().options.no_cache);
    }

    #[test]
    fn an_upload_has_its_dockerfile_in_it() {
        let said = read(&[("context", "http://buildkit-session/abc")]).unwrap();
        assert_eq!((said.context, said.dockerfile), (Source::Upload("/abc".into()), None));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert!(read(&[("context", "https://github.com/a/b.git")]).unwrap_err().contains("cannot build from https://"));
        assert!(read(&[("platform", "linux/amd64,linux/arm64")]).unwrap_err().contains("multi-platform"));
        assert!(read(&[("requestid", "frontend.outline")]).unwrap_err().contains("subrequest"));
        assert!(read(&[("context:x", "https://example.com")]).unwrap_err().contains("docker-image://"));
    }
}
