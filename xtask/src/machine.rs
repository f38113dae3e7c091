//! What this machine lacks is installed, and said.

use crate::run;
use anyhow::{Context, bail};
use std::process::{Command, Stdio};
use testkit::images::which;

/// A program, and Debian's package that has it.
pub type Need = (&'static str, &'static str);

/// What the demonstration needs.
pub const DEMO: &[Need] = &[("busybox", "busybox-static"), ("curl", "curl"), ("ip", "iproute2")];

/// What the tests need besides.
pub const TESTS: &[Need] = &[
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("sysctl", "procps"),
    ("dig", "bind9-dnsutils"),
    ("ping", "iputils-ping"),
    ("hostname", "hostname"),
    ("python3", "python3"),
    ("runc", "runc"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("ufw", "ufw"),
    ("firewall-cmd", "firewalld"),
    ("dbus-daemon", "dbus"),
    ("unshare", "util-linux"),
    ("docker-compose", "docker-compose"),
    ("docker-registry", "docker-registry"),
    ("xz", "xz-utils"),
    ("openssl", "openssl"),
    ("nsenter", "util-linux"),
];

/// What the benchmark needs: its peers, and dnsperf.
pub const BENCH: &[Need] = &[
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("runc", "runc"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
    ("dnsperf", "dnsperf"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// What the suites of clients need.
pub const CLIENTS: &[Need] = &[
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("docker-registry", "docker-registry"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
    ("/usr/lib/python3/dist-packages/docker", "python3-docker"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Installs what is missing, by apt-get, saying what.
///
/// # Errors
/// Something is missing, and cannot be installed.
pub fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !is_root()? {
        bail!("missing: {}. As root this would be: apt-get install {}", names(&missing), packages.join(" "));
    }
    if which("apt-get").is_none() {
        bail!("missing: {}, and there is no apt-get here to install them", names(&missing));
    }
    println!("Installing {} (for {})", packages.join(", "), names(&missing));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(apt.stdout(Stdio::null()))
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    match needs.iter().find(|(program, _)| !is_there(program)) {
        None => Ok(()),
        Some((program, package)) => bail!("{package} is installed, and {program} is still missing"),
    }
}

/// A busybox counts only if it is the static one: containers have no libraries for another.
fn is_there(program: &str) -> bool {
    match program {
        "busybox" => {
            let dynamic = |path: &str| Command::new("ldd").arg(path).output().is_ok_and(|o| o.status.success());
            std::path::Path::new("/bin/busybox").exists() && !dynamic("/bin/busybox")
        }
        path if path.starts_with('/') => std::path::Path::new(path).exists(),
        _ => which(program).is_some(),
    }
}

fn names(needs: &[&Need]) -> String {
    needs.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ")
}

/// Whether we may make namespaces and install packages.
pub fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output().context("id")?;
    Ok(output.stdout == b"0\n")
}
