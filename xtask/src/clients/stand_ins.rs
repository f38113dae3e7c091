//! Stand-ins for the images that the suites pull, since a lab reaches no registry but its own. They are made of what the
//! host has, under the names that the suites use, in the daemon and in the registry that is its mirror.

use super::room::REGISTRY;
use anyhow::{Context, ensure};
use std::process::Command;
use testkit::{Lab, images};

/// What an image has beside its tag.
struct Kind {
    /// Names, with their tags.
    names: &'static [&'static str],
    /// Instructions for its configuration.
    changes: &'static [&'static str],
    /// Its files.
    files: fn() -> anyhow::Result<Vec<u8>>,
}

const PATH: &str = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const KINDS: &[Kind] = &[
    Kind {
        names: &[
            "busybox:latest",
            "busybox:1",
            "busybox:1.27.0.2",
            "busybox:1.27.2",
            "busybox:1.31.0-uclibc",
            "busybox:1.35",
            "busybox:1.36",
            "busybox:uclibc",
            "busybox:musl",
            "busybox:glibc",
            "busybox:buildroot-2013.08.1",
        ],
        changes: &["CMD [\"sh\"]"],
        files: busybox,
    },
    Kind {
        names: &[
            "alpine:latest",
            "alpine:3.10",
            "alpine:3.10.1",
            "alpine:3.12",
            "alpine:3.17",
            "alpine:3.18",
            "alpine:3.20",
            "alpine:edge",
            "ubuntu:latest",
            "ubuntu:14.04",
            "debian:latest",
            "redis:latest",
            "mysql:latest",
            "phpmyadmin:latest",
        ],
        changes: &["CMD [\"/bin/sh\"]", PATH],
        files: alpine,
    },
    Kind {
        names: &["nginx:latest", "nginx:alpine"],
        changes: &["CMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/srv\"]", "EXPOSE 80", PATH],
        files: images::busybox,
    },
    Kind { names: &["hello-world:latest"], changes: &["CMD [\"/hello\"]", PATH], files: hello },
    Kind {
        names: &["python:3.13-alpine", "python:3.14-alpine", "python:latest"],
        changes: &["CMD [\"python3\"]", PATH],
        files: images::python,
    },
    Kind {
        names: &["testcontainers/ryuk:0.8.1", "testcontainers/ryuk:0.14.0"],
        changes: &["CMD [\"python3\", \"/ryuk.py\"]", PATH, "EXPOSE 8080"],
        files: ryuk,
    },
    Kind {
        names: &["registry:2"],
        changes: &[
            "ENTRYPOINT [\"docker-registry\"]",
            "CMD [\"serve\", \"/etc/docker/registry/config.yml\"]",
            "EXPOSE 5000",
            "VOLUME /var/lib/registry",
            PATH,
        ],
        files: registry,
    },
];

/// With the users that the image on Docker Hub has.
fn busybox() -> anyhow::Result<Vec<u8>> {
    const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                           www-data:x:33:33:www-data:/var/www:/bin/false\noperator:x:37:37:Operator:/var:/bin/false\n\
                           nobody:x:65534:65534:nobody:/home:/bin/false\n";
    images::with_files(images::busybox()?, &[("etc/passwd", USERS, 0o644)])
}

/// With a user and directories that Alpine has.
fn alpine() -> anyhow::Result<Vec<u8>> {
    const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n\
                           nobody:x:65534:65534:nobody:/:/sbin/nologin\n";
    let files: [(&str, &[u8], u32); 3] =
        [("etc/passwd", USERS, 0o644), ("etc/alpine-release", b"3.10.9\n", 0o644), ("var/opt/.keep", b"", 0o644)];
    images::with_files(images::busybox()?, &files)
}

fn hello() -> anyhow::Result<Vec<u8>> {
    const TEXT: &[u8] = b"#!/bin/sh\necho\necho 'Hello from Docker!'\n\
                          echo 'This message shows that your installation appears to be working correctly.'\n";
    images::with_files(images::busybox()?, &[("hello", TEXT, 0o755)])
}

fn ryuk() -> anyhow::Result<Vec<u8>> {
    images::with_files(images::python()?, &[("ryuk.py", include_bytes!("../../clients/ryuk.py"), 0o644)])
}

fn registry() -> anyhow::Result<Vec<u8>> {
    const CONFIG: &[u8] =
        b"version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}\n\
                            http: {addr: ':5000'}\n";
    let program = images::which("docker-registry").context("docker-registry")?;
    let files = images::with_programs(images::busybox()?, &[&program])?;
    images::with_files(files, &[("etc/docker/registry/config.yml", CONFIG, 0o644)])
}

/// Gives them to the daemon, and to the registry.
pub fn fill(lab: &Lab) -> anyhow::Result<()> {
    for kind in KINDS {
        let files = (kind.files)()?;
        for name in kind.names {
            let (repository, tag) = name.rsplit_once(':').context("a tag")?;
            let path = lab.directory().join("stand-in.tar");
            std::fs::write(&path, &files)?;
            // Two tags of one repository are two images, as they are there.
            let label = format!("LABEL stand-in={name}");
            let mut import = vec!["image", "import"];
            for change in kind.changes.iter().copied().chain([label.as_str()]) {
                import.extend(["--change", change]);
            }
            let path = path.to_string_lossy();
            import.extend([&*path, name]);
            docker(lab, &import)?;
            let library = if repository.contains('/') { "" } else { "library/" };
            let pushed = format!("{REGISTRY}/{library}{repository}:{tag}");
            docker(lab, &["tag", name, &pushed])?;
            docker(lab, &["push", "-q", &pushed])?;
            docker(lab, &["rmi", &pushed])?;
        }
    }
    Ok(())
}

fn docker(lab: &Lab, arguments: &[&str]) -> anyhow::Result<()> {
    let mut docker = Command::new("docker");
    let output = lab.on_host(docker.args(arguments).env("DOCKER_HOST", lab.docker_host()));
    ensure!(output.code == 0, "docker {}: {}", arguments.join(" "), output.stderr);
    Ok(())
}
