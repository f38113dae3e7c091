//! Images from what is on the machine, without a registry: Debian's static busybox, and curl with its libraries.

use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A root file system of busybox as a tar: what `busybox:latest` is imported from.
///
/// # Errors
/// There is no static busybox on this machine.
pub fn busybox() -> anyhow::Result<Vec<u8>> {
    let program = Path::new("/bin/busybox");
    if !program.exists() {
        bail!("/bin/busybox is missing: apt-get install busybox-static");
    }
    let applets = Command::new(program).arg("--list").output().context("busybox --list")?;
    let mut archive = tar::Builder::new(Vec::new());
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "usr", "usr/bin", "var", "srv"] {
        append_directory(&mut archive, directory, 0o755)?;
    }
    append_directory(&mut archive, "tmp", 0o1777)?;
    archive.append_path_with_name(program, "bin/busybox")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("etc/group", "root:x:0:\nadm:x:4:nobody\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "hosts: files dns\n"),
    ];
    for (path, text) in files {
        append_file(&mut archive, path, text.as_bytes(), 0o644)?;
    }
    Ok(archive.into_inner()?)
}

/// The `webapp` of the recorded answers as a tar: busybox under this machine's own curl, ip, dig, getent, ping,
/// hostname and sh, with an HTTP server as its command: `httpd -f -p 8000 -h /srv/www`.
///
/// # Errors
/// A tool is missing on this machine.
pub fn toolbox() -> anyhow::Result<Vec<u8>> {
    const TOOLS: [(&str, &str); 7] = [
        ("curl", "curl"),
        ("ip", "iproute2"),
        ("dig", "bind9-dnsutils"),
        ("getent", "libc-bin"),
        ("ping", "iputils-ping"),
        ("hostname", "hostname"),
        ("sh", "dash"),
    ];
    let mut archive = reopen(busybox()?);
    let mut files = BTreeSet::new();
    for (tool, package) in TOOLS {
        let program = which(tool).with_context(|| format!("{tool} is missing: apt-get install {package}"))?;
        files.extend(libraries(&program)?);
        // Before busybox's own in the search path.
        archive.append_path_with_name(&program, format!("usr/bin/{tool}"))?;
    }
    for file in files {
        // Loaders and libraries are found by these names, wherever they lie.
        archive.append_path_with_name(&file, file.strip_prefix("/").unwrap_or(&file))?;
    }
    append_directory(&mut archive, "srv/www", 0o755)?;
    append_file(&mut archive, "srv/www/index.html", b"hello from webapp\n", 0o644)?;
    Ok(archive.into_inner()?)
}

/// busybox under this machine's own Python with its library, as `python` and `python3`, as a tar.
///
/// # Errors
/// Debian's python3 is missing on this machine.
pub fn python() -> anyhow::Result<Vec<u8>> {
    let program = std::fs::canonicalize("/usr/bin/python3").context("/usr/bin/python3: apt-get install python3")?;
    let name = program.file_name().context("a program's name")?.to_string_lossy().into_owned();
    let mut archive = reopen(with_programs(busybox()?, &[&program])?);
    // It finds its library from where itself is.
    let library = Path::new("/usr/lib").join(&name);
    append_library(&mut archive, &library)?;
    for link in ["python", "python3"] {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("usr/bin/{link}"), &name)?;
    }
    Ok(archive.into_inner()?)
}

/// Python's own modules, and those in C with the libraries that they need; without what was compiled before, and tests.
fn append_library(archive: &mut tar::Builder<Vec<u8>>, directory: &Path) -> anyhow::Result<()> {
    let mut pending = vec![directory.to_owned()];
    let mut needed = BTreeSet::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(&*name, "__pycache__" | "test" | "tests" | "idlelib" | "lib2to3" | "pydoc_data") {
                    pending.push(path);
                }
                continue;
            }
            if name.ends_with(".so") {
                needed.extend(libraries(&path)?);
            }
            archive.append_path_with_name(&path, path.strip_prefix("/").unwrap_or(&path))?;
        }
    }
    for library in needed {
        archive.append_path_with_name(&library, library.strip_prefix("/").unwrap_or(&library))?;
    }
    Ok(())
}

/// The same tar with more files: their paths, what is in them, and their modes.
///
/// # Errors
/// None but of memory.
pub fn with_files(archive: Vec<u8>, files: &[(&str, &[u8], u32)]) -> anyhow::Result<Vec<u8>> {
    let mut archive = reopen(archive);
    for (path, bytes, mode) in files {
        append_file(&mut archive, path, bytes, *mode)?;
    }
    Ok(archive.into_inner()?)
}

/// The same tar with programs of this machine, each with its libraries and where it is here.
///
/// # Errors
/// One cannot be read.
pub fn with_programs(archive: Vec<u8>, programs: &[&Path]) -> anyhow::Result<Vec<u8>> {
    let mut archive = reopen(archive);
    let mut files = BTreeSet::new();
    for program in programs {
        files.insert(program.to_path_buf());
        files.extend(libraries(program)?);
    }
    for file in files {
        archive.append_path_with_name(&file, file.strip_prefix("/").unwrap_or(&file))?;
    }
    Ok(archive.into_inner()?)
}

/// Without its end, a tar goes on.
fn reopen(mut bytes: Vec<u8>) -> tar::Builder<Vec<u8>> {
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at / 512 * 512 + 512);
    bytes.truncate(end);
    tar::Builder::new(bytes)
}

/// A build context for the `webapp` of the story: an HTTP server on port 8000, and curl.
///
/// # Errors
/// There is no curl on this machine.
pub fn webapp_context(directory: &Path) -> anyhow::Result<()> {
    let curl = which("curl").context("curl is missing: apt-get install curl")?;
    let rootfs = directory.join("rootfs");
    let mut files = libraries(&curl)?;
    files.insert(curl.clone());
    for file in files {
        let target = rootfs.join(file.strip_prefix("/").unwrap_or(&file));
        std::fs::create_dir_all(target.parent().unwrap_or(&rootfs))?;
        std::fs::copy(&file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    std::fs::create_dir_all(directory.join("www"))?;
    std::fs::write(directory.join("www/index.html"), "hello from webapp\n")?;
    std::fs::write(directory.join("Dockerfile"), DOCKERFILE)?;
    Ok(())
}

const DOCKERFILE: &str = "\
FROM busybox
COPY rootfs/ /
COPY www/ /srv/www/
EXPOSE 8000
CMD [\"httpd\", \"-f\", \"-p\", \"8000\", \"-h\", \"/srv/www\"]
";

fn header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header
}

fn append_directory(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) -> anyhow::Result<()> {
    let mut header = header();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    Ok(archive.append_data(&mut header, format!("{path}/"), std::io::empty())?)
}

fn append_file(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = header();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    Ok(archive.append_data(&mut header, path, bytes)?)
}

/// The docker CLI; None, after saying `SKIP`, where there is none.
///
/// # Panics
/// There is none where everything is to be there (`REQUIRE_NETNS`).
pub fn docker() -> Option<PathBuf> {
    let docker = which("docker");
    if docker.is_none() {
        let is_required = std::env::var_os("REQUIRE_NETNS").is_some();
        assert!(!is_required, "docker's client is missing: apt-get install docker.io");
        println!("SKIP: there is no docker CLI on this machine, so only our own client is compared");
    }
    docker
}

/// Where a program is.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
}

/// The shared libraries and the loader that a program needs, as ldd(1) says.
fn libraries(program: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|w| w.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}
