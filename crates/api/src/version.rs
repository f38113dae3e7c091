//! Which version of the API a request asks for: the prefix of its path.
//!
//! From 1.24 up; a newer one than ours is served as ours, so that clients that do not negotiate work, with what newer
//! ones have added where we have it (API-06).

use crate::Ctx;
use crate::error::Failure;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt;

/// What we speak.
pub const API_VERSION: Version = Version { major: 1, minor: 51 };
/// The oldest that we answer, unless we are told otherwise: see [`oldest`].
pub const MIN_API_VERSION: Version = Version { major: 1, minor: 24 };

/// A version of the API, in every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// `/v1.44/containers/json` into the version and the rest. No prefix: ours.
fn split(path: &str) -> (Option<Version>, &str) {
    let rest = path.strip_prefix("/v").unwrap_or_default();
    if let Some(slash) = rest.find('/')
        && let Some(version) = Version::parse(&rest[..slash])
    {
        return (Some(version), &rest[slash..]);
    }
    (None, path)
}

/// The oldest version that a daemon answers.
pub fn oldest(engine: &engine::Engine) -> Version {
    Version { minor: engine.settings.min_api_minor, ..MIN_API_VERSION }
}

/// Takes the version off the path, and puts our headers on every response.
pub async fn layer(State(engine): Ctx, mut request: Request, next: Next) -> Response {
    let path_and_query = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let (version, rest) = split(&path_and_query);
    let oldest = oldest(&engine);
    let mut response = match version {
        Some(v) if v < oldest => Failure::new(
            StatusCode::BAD_REQUEST,
            format!(
                "client version {v} is too old. Minimum supported API version is {oldest}, please upgrade your client to \
                 a newer version"
            ),
        )
        .into_response(),
        _ => match rest.parse::<Uri>() {
            Ok(uri) => {
                *request.uri_mut() = uri;
                request.extensions_mut().insert(version.unwrap_or(API_VERSION));
                crate::error::in_json(next.run(request).await).await
            }
            Err(e) => Failure::invalid(format!("invalid path {rest}: {e}")).into_response(),
        },
    };
    let headers = response.headers_mut();
    let text = |s: String| HeaderValue::from_str(&s).expect("a version is a header");
    headers.insert("Api-Version", text(API_VERSION.to_string()));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", text(format!("Isle/{} (linux)", env!("CARGO_PKG_VERSION"))));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_taken_off_the_path() {
        let v = |minor| Some(Version::new(1, minor));
        assert_eq!(split("/v1.44/_ping"), (v(44), "/_ping"));
        assert_eq!(split("/v1.24/containers/json?all=1"), (v(24), "/containers/json?all=1"));
        assert_eq!(split("/_ping"), (None, "/_ping"));
        assert_eq!(split("/version"), (None, "/version"));
        assert_eq!(split("/volumes/create"), (None, "/volumes/create"));
        assert_eq!(split("/vx.y/info"), (None, "/vx.y/info"));
    }
}
