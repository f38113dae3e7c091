//! `/_ping`, `/version`, `/info` and `/system/df`; and, in builds for tests, steps that are made to fail.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::version::{API_VERSION, Version, oldest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde_json::{Value, json};

pub async fn ping() -> impl IntoResponse {
    let headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Pragma", "no-cache"),
        ("Builder-Version", "2"),
        ("Swarm", "inactive"),
    ];
    (headers, "OK")
}

/// Go's name of this processor.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What clients show of a build that says nothing about itself.
const UNKNOWN: &str = "unknown";
const NO_GO: &str = "none (Rust)";

pub async fn version(State(engine): Ctx) -> Answer {
    let info = engine.info();
    let version = &engine.settings.version;
    let details = json!({
        "ApiVersion": API_VERSION.to_string(),
        "Arch": arch(),
        "BuildTime": UNKNOWN,
        "Experimental": "false",
        "GitCommit": UNKNOWN,
        "GoVersion": NO_GO,
        "KernelVersion": info.kernel,
        "MinAPIVersion": oldest(&engine).to_string(),
        "Os": "linux",
    });
    Ok(Json(json!({
        "Platform": { "Name": "Isle" },
        "Components": [{ "Name": "Engine", "Version": version, "Details": details }],
        "Version": version,
        "ApiVersion": API_VERSION.to_string(),
        "MinAPIVersion": oldest(&engine).to_string(),
        "GitCommit": UNKNOWN,
        "GoVersion": NO_GO,
        "Os": "linux",
        "Arch": arch(),
        "KernelVersion": info.kernel,
        "BuildTime": UNKNOWN,
    }))
    .into_response())
}

pub async fn info(State(engine): Ctx, Extension(version): Extension<Version>) -> Answer {
    let info = engine.info();
    let settings = &engine.settings;
    let reloadable = engine.reloadable();
    let pools: Vec<Value> = settings
        .networking
        .pools
        .bases
        .iter()
        .map(|(base, size)| json!({ "Base": base.to_string(), "Size": size }))
        .collect();
    let mut status: Vec<Value> =
        info.network.iter().map(|(what, on)| json!([what, if *on { "yes" } else { "no" }])).collect();
    if !info.told_firewalls.is_empty() {
        status.push(json!(["told of our networks", info.told_firewalls.join(", ")]));
    }
    let mut security = Vec::new();
    if info.seccomp {
        security.push("name=seccomp,profile=builtin");
    }
    if info.cgroup_namespaces {
        security.push("name=cgroupns");
    }
    let mut runtimes = json!({ "isle": { "path": settings.shim } });
    if let Some(runc) = &info.runc {
        runtimes["runc"] = json!({ "path": runc });
    }
    let limits = |controller: &str| info.controllers.contains(&controller);
    let mut shown = json!({
        "ID": engine.engine_id,
        "Containers": info.running + info.paused + info.stopped,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Supports d_type", "true"]],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Authorization": null, "Log": ["json-file", "local", "none"] },
        "MemoryLimit": limits("memory"),
        "SwapLimit": limits("memory"),
        "CpuCfsPeriod": limits("cpu"),
        "CpuCfsQuota": limits("cpu"),
        "CPUShares": limits("cpu"),
        "CPUSet": limits("cpuset"),
        "PidsLimit": limits("pids"),
        "IPv4Forwarding": info.ipv4_forwarding,
        "Debug": reloadable.debug,
        "NFd": open_descriptors(),
        "OomKillDisable": info.cgroup_version == 1,
        "NGoroutines": 0,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": settings.containers.log.driver,
        "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": info.cgroup_version.to_string(),
        "NEventsListener": engine.events.listeners(),
        "KernelVersion": info.kernel,
        "OperatingSystem": info.os,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": show_registries(&settings.registries),
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": settings.root,
        "HttpProxy": info.proxies.http,
        "HttpsProxy": info.proxies.https,
        "NoProxy": info.proxies.none,
        "Name": info.hostname,
        "Labels": reloadable.labels,
        "ExperimentalBuild": false,
        "ServerVersion": settings.version,
        "Runtimes": runtimes,
        "DefaultRuntime": settings.containers.runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": reloadable.live_restore,
        "Isolation": "",
        "InitBinary": settings.shim.file_name().map(|n| n.to_string_lossy()),
        "SecurityOptions": security,
        "DefaultAddressPools": pools,
        "FirewallBackend": { "Driver": "nftables", "Info": status },
        "CDISpecDirs": [],
        "Warnings": info.warnings,
    });
    if version < Version::new(1, 50) {
        for field in ["BridgeNfIptables", "BridgeNfIp6tables"] {
            shown[field] = info.br_netfilter.into();
        }
    }
    Ok(Json(shown).into_response())
}

fn show_registries(told: &model::daemon::Registries) -> Value {
    let (subnets, hosts): (Vec<&String>, Vec<&String>) = told.insecure.iter().partition(|t| t.contains('/'));
    let index = |name: &str, mirrors: &[String], official: bool| json!({ "Name": name, "Mirrors": mirrors, "Official": official, "Secure": official });
    let mut indexes = json!({ "docker.io": index("docker.io", &told.mirrors, true) });
    for host in hosts {
        indexes[host.as_str()] = index(host, &[], false);
    }
    // Those on loopback need no certificate, as in Docker.
    let subnets: Vec<&str> =
        ["::1/128", "127.0.0.0/8"].into_iter().chain(subnets.into_iter().map(String::as_str)).collect();
    json!({
        "AllowNondistributableArtifactsCIDRs": null,
        "AllowNondistributableArtifactsHostnames": null,
        "InsecureRegistryCIDRs": subnets,
        "IndexConfigs": indexes,
        "Mirrors": told.mirrors,
    })
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What of the disk is used; `type` (since API 1.42) says of which objects, and nothing is measured of the others.
pub async fn df(State(engine): Ctx, query: crate::query::Query) -> Answer {
    const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];
    let types = query.all("type");
    if let Some(unknown) = types.iter().find(|t| !TYPES.contains(&t.as_str())) {
        return Err(Failure::invalid(format!("unknown object type: {unknown}")));
    }
    let wanted = |kind: &str| types.is_empty() || types.iter().any(|t| t == kind);
    let mut shown = json!({});
    if wanted("image") {
        let images = engine.list_images(&image::Filter::default());
        let images: Vec<Value> = images.iter().map(|(i, n)| crate::images::show_summary(&engine, i, *n)).collect();
        shown["LayersSize"] = engine.layers_size().into();
        shown["Images"] = images.into();
    }
    if wanted("container") {
        let mut containers = Vec::new();
        for listed in engine.list_containers(true) {
            let mut one = crate::containers::show_listed(&listed);
            let written = engine.writable_size(&listed.record.id.to_string()).await;
            one["SizeRw"] = written.into();
            one["SizeRootFs"] = (listed.image_size + written).into();
            containers.push(one);
        }
        shown["Containers"] = containers.into();
    }
    if wanted("volume") {
        let measuring = engine.clone();
        let volumes = tokio::task::spawn_blocking(move || {
            let volumes = measuring.list_volumes();
            volumes.iter().map(|v| crate::volumes::show_used(&measuring, v)).collect::<Vec<_>>()
        });
        shown["Volumes"] = volumes.await.map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e))?.into();
    }
    if wanted("build-cache") {
        shown["BuildCache"] = json!([]);
    }
    Ok(Json(shown).into_response())
}

/// Makes a step of the engine go wrong the next time: for tests, and in builds with debug assertions only.
#[cfg(debug_assertions)]
pub async fn arm(State(engine): Ctx, query: crate::query::Query) -> Answer<StatusCode> {
    use engine::faults::Fault;
    let step = query.text("at").ok_or_else(|| Failure::invalid("which step? 'at' says it"))?;
    engine.faults.arm(step, if query.flag("hang") { Fault::Hang } else { Fault::Fail });
    Ok(StatusCode::NO_CONTENT)
}

/// The steps that have not been reached since they were armed.
#[cfg(debug_assertions)]
pub async fn armed(State(engine): Ctx) -> Json<Value> {
    Json(json!(engine.faults.armed()))
}
