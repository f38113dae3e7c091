//! How people name images: `busybox`, `ghcr.io/a/b:1.2`, `x@sha256:…`. The grammar and its error words are those of
//! Docker's distribution/reference, since tools match on them.
//!
//! A [`Reference`] is normalised: it always knows its registry (`docker.io` where none is named) and its full path
//! (`library/busybox`). [`Reference::familiar`] is the short form that people see.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The registry that is meant where none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// A normalised name of an image: registry and path, perhaps a tag, perhaps a digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text names no image; Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum InvalidReference {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeAnId(String),
}

impl Reference {
    /// The registry's host, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// The repository's path within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// What follows the last colon.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// `sha256:…`
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
    /// Registry and path, without tag and digest: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
    /// The name as people write it: `busybox`, `me/app`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            self.path.strip_prefix(DEFAULT_NAMESPACE).filter(|p| !p.contains('/')).unwrap_or(&self.path).to_owned()
        } else {
            self.name()
        }
    }
    /// The whole reference as people write it: `busybox:latest`, `busybox@sha256:…`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }
    /// With the tag `latest` if it has neither a tag nor a digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }
    /// The same repository with another tag, and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        if !is_tag(tag) {
            return Err(InvalidReference::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }
    /// The same repository by digest, and no tag.
    pub fn with_digest(&self, digest: &str) -> Result<Self, InvalidReference> {
        if !is_digest(digest) {
            return Err(InvalidReference::Format);
        }
        Ok(Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() })
    }
    /// Where both are given, the digest decides and the tag is dropped.
    pub fn favouring_digest(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        }
        self
    }
    /// Whether two references name the same repository.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.path == other.path
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidReference::LooksLikeAnId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(InvalidReference::Format),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[after_slash..].rfind(':') {
            Some(i) if is_tag(&rest[after_slash + i + 1..]) => {
                (&rest[..after_slash + i], Some(rest[after_slash + i + 1..].to_owned()))
            }
            Some(_) => return Err(InvalidReference::Format),
            None => (rest, None),
        };
        let (registry, path) = split_registry(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(InvalidReference::Uppercase(path));
        }
        if !is_registry(&registry) || !path.split('/').all(is_path_component) {
            return Err(InvalidReference::Format);
        }
        if registry.len() + 1 + path.len() > 255 {
            return Err(InvalidReference::TooLong);
        }
        Ok(Self { registry, path, tag, digest })
    }
}

/// The first component is a registry if it looks like a host: a dot, a port, `localhost`, or capital letters.
fn split_registry(name: &str) -> (String, String) {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        (registry.to_owned(), format!("{DEFAULT_NAMESPACE}{path}"))
    } else {
        (registry.to_owned(), path.to_owned())
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(i) if !text.ends_with(']') => (&text[..i], Some(&text[i + 1..])),
        _ => (text, None),
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let bytes = text.as_bytes();
    if bytes.is_empty() || !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && word(text.as_bytes()[0])
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether a text is a digest that we can verify: `sha256:` and 64 lower-case hexadecimal digits, or the 128 of sha512.
pub fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}
impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl TryFrom<String> for Reference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}
impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.to_string(), canonical, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(canonical.parse::<Reference>().unwrap(), reference, "{text}");
        assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{text}");
    }

    #[test]
    fn names_are_normalised_and_shortened_again() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("ghcr.io/a/b:v1.2-x_y", "ghcr.io/a/b:v1.2-x_y", "ghcr.io/a/b:v1.2-x_y"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("e/a--b__c.d", "docker.io/e/a--b__c.d", "e/a--b__c.d"),
            ("Registry/x", "Registry/x", "Registry/x"),
        ] {
            check(text, canonical, familiar);
            check(&format!("{text}@{digest}"), &format!("{canonical}@{digest}"), &format!("{familiar}@{digest}"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_in_dockers_words() {
        let id = "ab".repeat(32);
        let long = format!("x/{}", "a".repeat(260));
        for (text, words) in [
            ("", "invalid reference format"),
            (":latest", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a_", "invalid reference format"),
            ("a..b/c:x", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("a@md5:0123", "invalid reference format"),
            ("x:.tag", "invalid reference format"),
            ("host:port/x", "invalid reference format"),
            ("a_b.c/d", "invalid reference format"),
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
            ("docker.io/A/b", "invalid reference format: repository name (A/b) must be lowercase"),
            (&long, "repository name must not be more than 255 characters"),
            (&id, &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), words, "{text:?}");
        }
    }

    #[test]
    fn latest_is_added_only_where_nothing_is_said() {
        let parse = |t: &str| t.parse::<Reference>().unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(parse("x").or_latest().familiar(), "x:latest");
        assert_eq!(parse("x:1").or_latest().familiar(), "x:1");
        assert_eq!(parse(&format!("x@{digest}")).or_latest().familiar(), format!("x@{digest}"));
        assert_eq!(parse(&format!("x:1@{digest}")).favouring_digest().familiar(), format!("x@{digest}"));
        assert_eq!(parse("x:1").with_tag("2").unwrap().familiar(), "x:2");
        assert!(parse("x").with_tag("a/b").is_err());
    }
}
