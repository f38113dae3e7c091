//! What an image says about the containers made from it ([`ImageConfig`]), and about itself ([`Configuration`]).

use crate::go::or_default;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The sha256 digest of an image's configuration: the image's id. Displays as `sha256:<64 hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(String);

impl ImageId {
    /// `digest` is `sha256:` and 64 hexadecimal digits.
    pub fn new(digest: String) -> Self {
        Self(digest)
    }
    /// `sha256:` and the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The 64 hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, hex)| hex)
    }
    /// The first twelve digits, as people see them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}
impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `config` object of an OCI image configuration with Docker's additions (`Healthcheck`, `OnBuild`, `Shell`), in
/// the field names of the JSON that registries store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "fields of the OCI image specification, by their names")]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub user: String,
    /// Keys like `80/tcp`; the values are empty objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// `{}` in JSON: Go's `struct{}`, the value of its sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    /// Whatever stands there: some tools write `null`.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(d).map(|_| Empty {})
    }
}

/// `HEALTHCHECK`. Durations are nanoseconds; 0 means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", arg…]` or `["CMD-SHELL", text]`; empty inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Between two runs; 30 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub interval: i64,
    /// Of one run; 30 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub timeout: i64,
    /// How long failures do not count after a start; none.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub start_period: i64,
    /// Between two runs in that time; 5 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub start_interval: i64,
    /// How many failures in a row are too many; 3.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub retries: i64,
}

/// An OCI image configuration: the JSON document whose digest is the image's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "fields of the OCI image specification, by their names")]
pub struct Configuration {
    pub architecture: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub comment: String,
    #[serde(deserialize_with = "or_default")]
    pub config: ImageConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub docker_version: String,
    #[serde(deserialize_with = "or_default")]
    pub history: Vec<History>,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub os_version: String,
    pub rootfs: RootFs,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub variant: String,
}

/// The layers that an image is made of, the lowest first, by the digest of their uncompressed archives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "fields of the OCI image specification, by their names")]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}
impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How one step of an image came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "fields of the OCI image specification, by their names")]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub created_by: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub comment: String,
    /// The step changed no file: it has no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// What an image runs on: `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields of the OCI image specification, by their names")]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}
impl Platform {
    /// This machine's, in Go's words.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "riscv64" => "riscv64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
    }
    /// Whether an image for `offered` is what was asked for here. A variant that nobody names fits every one; `v8` is
    /// what arm64 means anyway.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "v8") => String::new(),
            (_, v) => v.to_owned(),
        };
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant.is_empty() || offered.variant.is_empty() || variant(self) == variant(offered))
    }
}
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum NotAPlatform {
    #[error("{0:?} is an invalid platform: os/architecture or os/architecture/variant are, like linux/amd64")]
    Form(String),
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
}

/// What one word may be: GOARCH, and other names of the same. `go tool dist list` has them.
const ARCHITECTURES: [&str; 22] = [
    "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "loong64", "mips", "mips64", "mips64le",
    "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm", "x86-64", "x86_64", "sparc64", "riscv",
];

impl std::str::FromStr for Platform {
    type Err = NotAPlatform;
    fn from_str(text: &str) -> Result<Self, NotAPlatform> {
        let wrong = || NotAPlatform::Form(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let mut parts = lower.split('/').map(str::to_owned);
        let first = parts.next().filter(|p| !p.is_empty()).ok_or_else(wrong)?;
        let (os, architecture) = match parts.next() {
            Some(architecture) if !architecture.is_empty() => (first, architecture),
            Some(_) => return Err(wrong()),
            // one word: an operating system, or an architecture of the only one we run
            None if first == "linux" => (first, Platform::host().architecture),
            None if ARCHITECTURES.contains(&first.as_str()) => ("linux".to_owned(), first),
            None => return Err(NotAPlatform::Unknown(text.to_owned())),
        };
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => architecture,
        };
        let variant = parts.next().unwrap_or_default();
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self { os, architecture, variant }) }
    }
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_written_by_go_is_read_with_its_nulls() {
        let text = r#"{"architecture":"amd64","config":{"User":null,"Env":null,"WorkingDir":"","Labels":null,
            "Volumes":{"/data":null},"ExposedPorts":{"80/tcp":{}},"ArgsEscaped":true},"history":null,"os":"linux",
            "rootfs":{"type":"layers","diff_ids":null},"created":"0001-01-01T00:00:00Z"}"#;
        let read: Configuration = serde_json::from_str(text).unwrap();
        let keys = |set: &Option<BTreeMap<String, Empty>>| {
            set.iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&read.config.volumes), ["/data"]);
        assert_eq!(keys(&read.config.exposed_ports), ["80/tcp"]);
        assert!(read.history.is_empty() && read.rootfs.diff_ids.is_empty());
        let again: Configuration = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn platforms_are_read_as_docker_reads_them() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        for wrong in ["", "/", "linux/", "a/b/c/d"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(arm.accepts(&"linux/arm64".parse().unwrap()));
        assert!(!arm.accepts(&"linux/amd64".parse().unwrap()));
    }
}
