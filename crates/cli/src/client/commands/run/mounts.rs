//! `-v`, `--mount` and `--tmpfs`: what of the host, of volumes and of memory a container sees.

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value, json};

/// What a `-v` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A path in the container, for a volume without a name.
    Anonymous(String),
    /// `source:target[:options]`, where a relative source has become absolute.
    Bind(String),
}

/// Parses a `-v`.
///
/// # Errors
/// It is empty.
pub fn volume(text: &str) -> anyhow::Result<Volume> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [""] => bail!("invalid volume specification: empty"),
        [path] => Ok(Volume::Anonymous((*path).to_owned())),
        [source, rest @ ..] => {
            let source = match source.strip_prefix('.') {
                // Docker takes `./x`, `../x` and `.`, and names of volumes cannot begin so.
                Some(_) => {
                    let here = std::env::current_dir().context("there is no working directory")?;
                    clean(&here.join(source)).display().to_string()
                }
                None => (*source).to_owned(),
            };
            Ok(Volume::Bind(format!("{source}:{}", rest.join(":"))))
        }
        [] => bail!("invalid volume specification: '{text}'"),
    }
}

/// Go's `filepath.Clean` of an absolute path.
fn clean(path: &std::path::Path) -> std::path::PathBuf {
    let mut cleaned = std::path::PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(cleaned.pop()),
            std::path::Component::Normal(part) => cleaned.push(part),
            _ => {}
        }
    }
    cleaned
}

/// `--tmpfs /path[:options]`.
pub fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

/// Parses a `--mount` into the API's `Mount`.
///
/// # Errors
/// In Docker's words.
pub fn mount(text: &str) -> Result<Value, String> {
    let mut kind = "volume".to_owned();
    let mut mount = Map::new();
    let mut parts: [Map<String, Value>; 3] = Default::default();
    let [bind, volume, tmpfs] = &mut parts;
    for field in csv(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        let key = key.trim().to_lowercase();
        let switch = |value: Option<&str>| {
            let wrong = || {
                format!(
                    "invalid value for '{key}': invalid boolean value {}",
                    crate::text::quote(value.unwrap_or_default())
                )
            };
            value.map_or(Some(true), model::go::parse_bool).ok_or_else(wrong)
        };
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => {
                mount.insert("ReadOnly".into(), switch(value)?.into());
            }
            ("volume-nocopy", value) => {
                volume.insert("NoCopy".into(), switch(value)?.into());
            }
            ("bind-nonrecursive", value) => {
                bind.insert("NonRecursive".into(), switch(value)?.into());
            }
            ("bind-create-src", value) => {
                bind.insert("CreateMountpoint".into(), switch(value)?.into());
            }
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            ("type", Some(value)) => kind = value.to_lowercase(),
            ("source" | "src", Some(value)) => {
                let source = if kind == "bind" && value.starts_with('.') {
                    let here = std::env::current_dir().map_err(|e| e.to_string())?;
                    clean(&here.join(value)).display().to_string()
                } else {
                    value.to_owned()
                };
                mount.insert("Source".into(), source.into());
            }
            ("target" | "dst" | "destination", Some(value)) => {
                mount.insert("Target".into(), value.into());
            }
            ("consistency", Some(value)) => {
                mount.insert("Consistency".into(), value.to_lowercase().into());
            }
            ("bind-propagation", Some(value)) => {
                bind.insert("Propagation".into(), value.to_lowercase().into());
            }
            ("bind-recursive", Some(value)) => match value {
                "enabled" => {}
                "disabled" => drop(bind.insert("NonRecursive".into(), true.into())),
                "writable" => drop(bind.insert("ReadOnlyNonRecursive".into(), true.into())),
                "readonly" => drop(bind.insert("ReadOnlyForceRecursive".into(), true.into())),
                other => {
                    return Err(format!(
                        "invalid value for bind-recursive: {other}: must be \"enabled\", \"disabled\", \
                         \"writable\", or \"readonly\""
                    ));
                }
            },
            ("volume-subpath", Some(value)) => {
                volume.insert("Subpath".into(), value.into());
            }
            ("volume-label", Some(value)) => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let labels = volume.entry("Labels").or_insert_with(|| json!({}));
                labels[name] = value.into();
            }
            ("volume-driver", Some(value)) => {
                let driver = volume.entry("DriverConfig").or_insert_with(|| json!({}));
                driver["Name"] = value.into();
            }
            ("volume-opt", Some(value)) => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let driver = volume.entry("DriverConfig").or_insert_with(|| json!({}));
                driver["Options"][name] = value.into();
            }
            ("tmpfs-size", Some(value)) => {
                let size = crate::text::parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs.insert("SizeBytes".into(), size.into());
            }
            ("tmpfs-mode", Some(value)) => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs.insert("Mode".into(), mode.into());
            }
            (_, Some(_)) => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !mount.contains_key("Target") {
        return Err("target is required".into());
    }
    let [bind, volume, tmpfs] = parts;
    for (name, options, wanted) in
        [("bind", bind, "BindOptions"), ("volume", volume, "VolumeOptions"), ("tmpfs", tmpfs, "TmpfsOptions")]
    {
        if options.is_empty() {
            continue;
        }
        if name != kind {
            return Err(format!("cannot mix '{name}-*' options with mount type '{kind}'"));
        }
        mount.insert(wanted.into(), options.into());
    }
    mount.insert("Type".into(), kind.into());
    Ok(mount.into())
}

/// A line of comma-separated values, where quotes protect commas.
fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is one");
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err("parse error on line 1: extraneous or missing \" in quoted-field".into()) } else { Ok(fields) }
}

/// `--device /dev/x[:/dev/y][:rwm]`.
///
/// # Errors
/// It has too many parts, or is no device.
pub fn device(text: &str) -> anyhow::Result<Value> {
    let is_mode = |m: &str| !m.is_empty() && m.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => (*host, *inside, *mode),
        _ => return Err(anyhow!("invalid device specification: {text}")),
    };
    if !inside.starts_with('/') {
        bail!("{inside} is not an absolute path");
    }
    if !is_mode(mode) {
        bail!("bad mode specified: {mode}");
    }
    Ok(json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_anonymous_named_or_bound() {
        assert_eq!(volume("/data").unwrap(), Volume::Anonymous("/data".into()));
        assert_eq!(volume("data:/data:ro").unwrap(), Volume::Bind("data:/data:ro".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x:/y").unwrap(), Volume::Bind(format!("{}:/y", here.join("x").display())));
        // What is wrong with the rest is the daemon's to say.
        assert_eq!(volume("a:b:c:d").unwrap(), Volume::Bind("a:b:c:d".into()));
    }

    #[test]
    fn mounts_are_read() {
        assert_eq!(
            mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap(),
            json!({
                "Source": "/a", "Target": "/b", "ReadOnly": true,
                "BindOptions": {"Propagation": "rslave"}, "Type": "bind",
            })
        );
        assert_eq!(
            mount("source=v,target=/v,volume-opt=type=nfs,\"volume-opt=o=a,b\"").unwrap(),
            json!({
                "Source": "v", "Target": "/v", "Type": "volume",
                "VolumeOptions": {"DriverConfig": {"Options": {"type": "nfs", "o": "a,b"}}},
            })
        );
        assert_eq!(
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap(),
            json!({"Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}, "Type": "tmpfs"})
        );
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for (text, why) in [
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,x=y,target=/t", "unexpected key 'x' in 'x=y'"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,target=/t,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
        ] {
            assert_eq!(mount(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn devices_have_modes() {
        assert_eq!(device("/dev/x:r").unwrap()["CgroupPermissions"], "r");
        assert_eq!(device("/dev/x:/dev/y").unwrap()["PathInContainer"], "/dev/y");
        assert!(device("x").is_err());
    }
}
