//! What lies over a container's root file system, as clients ask for it: `-v`, `--mount` and the image's volumes.

use crate::bounds::{check_target, clean};
use crate::container::{Config, HostConfig, Mount, MountKind};
use crate::spec::Propagation;
use std::collections::BTreeMap;

/// A mount still to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// What it shows.
    pub kind: MountKind,
    /// A path for a bind mount, a volume's name, or empty for an anonymous one.
    pub source: String,
    /// Clean, in the container.
    pub destination: String,
    /// The words of `-v` behind the second colon.
    pub mode: String,
    /// It can be changed.
    pub rw: bool,
    /// Of a bind mount.
    pub propagation: Option<Propagation>,
    /// A missing bind source is made, as `-v` does; `--mount` refuses it unless it is told otherwise.
    pub create_source: bool,
    /// A new volume takes what the image has at the destination.
    pub copy: bool,
    /// Of a volume that is made.
    pub labels: BTreeMap<String, String>,
    /// The local driver's, for a volume that is made.
    pub options: BTreeMap<String, String>,
    /// The part of the volume that is mounted; empty is all of it.
    pub subpath: String,
}

/// What a container's configuration asks to be mounted: `-v`, `--mount` and the image's volumes, in this order; a
/// destination counts once.
///
/// # Errors
/// In Docker's words: a text is malformed, a field is missing or means nothing, or a destination is asked for twice.
pub fn requests(config: &Config, host: &HostConfig) -> Result<Vec<MountRequest>, String> {
    for target in host.tmpfs.iter().flatten().map(|(target, _)| target) {
        absolute(target)?;
        if clean(target) == "/" {
            return Err("invalid specification: destination can't be '/'".into());
        }
    }
    let mut requests = Vec::new();
    for bind in host.binds.iter().flatten() {
        requests.push(parse_bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        let invalid = |why: String| format!("invalid mount config for type \"{}\": {why}", mount.kind);
        let kind = check(mount).map_err(invalid)?;
        let driver = mount.volume_options.as_ref().and_then(|o| o.driver_config.as_ref());
        let propagation = mount.bind_options.as_ref().map_or("", |o| &o.propagation);
        requests.push(MountRequest {
            kind,
            source: mount.source.clone(),
            destination: clean(&mount.target),
            mode: if kind == MountKind::Volume { "z".into() } else { String::new() },
            rw: !mount.read_only,
            propagation: match kind {
                MountKind::Bind => Some(propagation.parse().map_err(invalid)?),
                MountKind::Volume | MountKind::Tmpfs => None,
            },
            create_source: mount.bind_options.as_ref().is_some_and(|o| o.create_mountpoint),
            copy: !mount.volume_options.as_ref().is_some_and(|o| o.no_copy),
            labels: mount.volume_options.as_ref().map(|o| o.labels.clone()).unwrap_or_default(),
            options: driver.map(|d| d.options.clone()).unwrap_or_default(),
            subpath: mount.volume_options.as_ref().map(|o| o.subpath.clone()).unwrap_or_default(),
        });
    }
    let tmpfs = |path: &str| host.tmpfs.iter().flatten().any(|(p, _)| clean(p) == path);
    for (i, request) in requests.iter().enumerate() {
        let destination = &request.destination;
        if requests[..i].iter().any(|r| r.destination == *destination) || tmpfs(destination) {
            return Err(format!("Duplicate mount point: {destination}"));
        }
    }
    for path in config.volumes.keys() {
        let destination = clean(path);
        if !requests.iter().any(|r| r.destination == destination) && !tmpfs(&destination) {
            requests.push(MountRequest {
                kind: MountKind::Volume,
                source: String::new(),
                destination,
                mode: String::new(),
                rw: true,
                propagation: None,
                create_source: false,
                copy: true,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
                subpath: String::new(),
            });
        }
    }
    for request in &requests {
        check_target(&request.destination, &request.source)?;
    }
    Ok(requests)
}

/// That volumes are asked of the only driver that there is: by `--volume-driver`, for volumes that say none themselves, or by
/// a `--mount`.
///
/// # Errors
/// In Docker's words, to whom that driver is 'not found'.
pub fn check_drivers(config: &Config, host: &HostConfig) -> Result<(), String> {
    let is_volume = |bind: &String| parse_bind(bind).is_ok_and(|request| request.kind == MountKind::Volume);
    let for_others = !config.volumes.is_empty() || host.binds.iter().flatten().any(is_volume);
    let options =
        |mount: &Mount| mount.volume_options.as_ref()?.driver_config.as_ref().map(|driver| driver.name.clone());
    let mut asked = host.mounts.iter().flatten().filter_map(options).collect::<Vec<_>>();
    asked.extend(for_others.then(|| host.volume_driver.clone()));
    asked.iter().find(|name| !matches!(name.as_str(), "" | "local")).map_or(Ok(()), |name| Err(no_driver(name)))
}

/// Docker's words for a volume's driver that is not there.
pub fn no_driver(name: &str) -> String {
    format!("error looking up volume plugin {name}: plugin \"{name}\" not found")
}

/// What is wrong with a `--mount`; of which kind it is. Fields of other kinds are no mere ornament: who gave them meant
/// something else.
fn check(mount: &Mount) -> Result<MountKind, String> {
    let missing = |field: &str| Err(format!("field {field} must not be empty"));
    let extra = |field: &str| Err(format!("field {field} must not be specified"));
    if mount.target.is_empty() {
        return missing("Target");
    }
    absolute(&mount.target)?;
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return missing("Source");
            }
            if mount.volume_options.is_some() {
                return extra("VolumeOptions");
            }
            absolute(&mount.source)?;
            Ok(MountKind::Bind)
        }
        "volume" => {
            if mount.bind_options.is_some() {
                return extra("BindOptions");
            }
            let subpath = mount.volume_options.as_ref().map_or("", |o| &o.subpath);
            if mount.source.is_empty() && !subpath.is_empty() {
                return Err("must not set Subpath when using anonymous volumes".into());
            }
            if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
                return Err("subpath must be a relative path within the volume".into());
            }
            if mount.source.is_empty() && mount.read_only {
                return Err("must not set ReadOnly mode when using anonymous volumes".into());
            }
            Ok(MountKind::Volume)
        }
        "tmpfs" => {
            if mount.bind_options.is_some() {
                return extra("BindOptions");
            }
            if !mount.source.is_empty() {
                return extra("Source");
            }
            if mount.tmpfs_options.as_ref().is_some_and(|o| o.size_bytes < 0) {
                return Err("a size less than 0 is none".into());
            }
            Ok(MountKind::Tmpfs)
        }
        _ => Err("mount type unknown".into()),
    }
}

fn absolute(path: &str) -> Result<(), String> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!("invalid mount path: '{path}' mount path must be absolute")),
    }
}

/// `[source:]destination[:mode]`.
fn parse_bind(text: &str) -> Result<MountRequest, String> {
    let invalid = || format!("invalid volume specification: '{text}'");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid()),
    };
    if !destination.starts_with('/') || (parts.len() > 1 && source.is_empty()) {
        return Err(invalid());
    }
    let kind = if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume };
    let mut request = MountRequest {
        kind,
        source: if kind == MountKind::Bind { clean(source) } else { source.to_owned() },
        destination: clean(destination),
        // Docker's word for a volume of which nothing is said.
        mode: if mode.is_empty() && kind == MountKind::Volume { "z".into() } else { mode.to_owned() },
        rw: true,
        propagation: (kind == MountKind::Bind).then(Propagation::default),
        create_source: true,
        copy: true,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        subpath: String::new(),
    };
    let words = || mode.split(',').filter(|w| !w.is_empty());
    let propagation = |word: &str| word.parse::<Propagation>().ok();
    // One of each sort at most.
    let sorts = [&["ro", "rw"][..], &["z", "Z"], &["cached", "delegated", "consistent"]];
    let twice = sorts.iter().any(|sort| words().filter(|w| sort.contains(w)).count() > 1);
    if twice || words().filter_map(propagation).count() > 1 {
        return Err(format!("invalid mode: {mode}"));
    }
    for word in words() {
        match (word, propagation(word)) {
            ("ro", _) => request.rw = false,
            ("rw" | "z" | "Z" | "cached" | "delegated" | "consistent", _) => {}
            ("nocopy", _) if kind == MountKind::Volume => request.copy = false,
            (_, Some(propagation)) if kind == MountKind::Bind => request.propagation = Some(propagation),
            _ => return Err(format!("invalid mode: {word}")),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn binds_are_parsed_and_refused() {
        let good = parse_bind("/a//b/../c:/data:ro,rshared").unwrap();
        assert_eq!((good.kind, good.source.as_str(), good.rw), (MountKind::Bind, "/a/c", false));
        assert_eq!(good.propagation, Some(Propagation::RecursivelyShared));
        assert_eq!(parse_bind("cache:/x").unwrap().kind, MountKind::Volume);
        assert_eq!(parse_bind("/x").unwrap().source, "");
        let mode = |text: &str| parse_bind(text).unwrap().mode;
        assert_eq!((mode("cache:/x").as_str(), mode("cache:/x:ro").as_str(), mode("/a:/x").as_str()), ("z", "ro", ""));
        for bad in
            ["", ":", "a:b", "a:/b:zz", ":/x", "/a:/b:ro:rw", "v:/x:rshared", "/a:/b:ro,rw", "/a:/b:shared,slave"]
        {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn there_is_one_driver_of_volumes() {
        let check = |host: serde_json::Value| {
            check_drivers(&Config::default(), &serde_json::from_value::<HostConfig>(host).unwrap())
        };
        assert_eq!(check(json!({"VolumeDriver": "other", "Binds": ["/a:/a"]})), Ok(()));
        assert_eq!(check(json!({"VolumeDriver": "local", "Binds": ["a:/a"]})), Ok(()));
        assert_eq!(check(json!({"VolumeDriver": "other", "Binds": ["a:/a"]})), Err(no_driver("other")));
        let mount = json!({"Type": "volume", "Target": "/a", "VolumeOptions": {"DriverConfig": {"Name": "other"}}});
        assert_eq!(check(json!({"Mounts": [mount]})), Err(no_driver("other")));
    }

    #[test]
    fn nothing_is_mounted_over_the_root_or_proc() {
        for host in [
            json!({"Binds": ["/etc:/"]}),
            json!({"Binds": ["/tmp:/proc"]}),
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/x/.."}]}),
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": -1}}]}),
        ] {
            let host: HostConfig = serde_json::from_value(host).unwrap();
            assert!(requests(&Config::default(), &host).is_err(), "{host:?}");
        }
        let config =
            Config { volumes: BTreeMap::from([("/proc".into(), crate::image::Empty {})]), ..Config::default() };
        assert!(requests(&config, &HostConfig::default()).unwrap_err().contains("inside /proc"));
    }

    #[test]
    fn an_images_volume_is_anonymous_unless_something_lies_there_already() {
        let config =
            Config { volumes: BTreeMap::from([("/data/".into(), crate::image::Empty {})]), ..Config::default() };
        let host = HostConfig::default();
        assert_eq!(requests(&config, &host).unwrap()[0].destination, "/data");
        let host = HostConfig { binds: Some(vec!["v:/data".into()]), ..HostConfig::default() };
        assert_eq!(requests(&config, &host).unwrap().len(), 1);
        let twice = HostConfig { binds: Some(vec!["v:/data".into(), "w:/data".into()]), ..HostConfig::default() };
        assert!(requests(&Config::default(), &twice).is_err());
        let over = json!({"Binds": ["/tmp:/data/"], "Tmpfs": {"/data": ""}});
        let over: HostConfig = serde_json::from_value(over).unwrap();
        assert_eq!(requests(&Config::default(), &over).unwrap_err(), "Duplicate mount point: /data");
    }
}
