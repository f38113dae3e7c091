//! `cargo xtask package`: what Debian's users install.
//!
//! ```text
//! packaging/ (units, scripts)  +  both programs  +  completions and manual pages, which the client tells of itself
//!       └──▶ a directory with the file system's layout ──dpkg-deb──▶ target/package/isle_VERSION_ARCH.deb
//! ```

use crate::{build, run};
use anyhow::{Context, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONTROL: &str = "\
Package: isle
Version: VERSION
Architecture: ARCH
Maintainer: The Isle developers <isle@localhost>
Section: admin
Priority: optional
Depends: libc6 (>= 2.34), passwd, systemd
Recommends: ca-certificates
Suggests: runc
Description: container engine whose networks know their names
 Containers that share a network reach each other by name; containers that
 do not share one cannot even resolve each other. Isle speaks Docker's
 Engine API, so docker, Compose and the like work with it unchanged.
";

/// Files of `packaging/` and where they go, with their modes.
const FILES: &[(&str, &str, u32)] = &[
    ("isle.service", "usr/lib/systemd/system/isle.service", 0o644),
    ("isle.socket", "usr/lib/systemd/system/isle.socket", 0o644),
    ("isle-docker.socket", "usr/lib/systemd/system/isle-docker.socket", 0o644),
    ("stop-at-shutdown", "usr/libexec/isle/stop-at-shutdown", 0o755),
    ("README.Debian", "usr/share/doc/isle/README.Debian", 0o644),
    ("debian/postinst", "DEBIAN/postinst", 0o755),
    ("debian/prerm", "DEBIAN/prerm", 0o755),
    ("debian/postrm", "DEBIAN/postrm", 0o755),
];

const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/isle"),
    ("zsh", "usr/share/zsh/vendor-completions/_isle"),
    ("fish", "usr/share/fish/vendor_completions.d/isle.fish"),
];

/// Builds the package from what people install.
pub fn package() -> anyhow::Result<()> {
    build::dist()?;
    let dist = build::target().join("dist");
    println!("{}", assemble(&dist.join("isle"), &dist.join("isle-shim"))?.display());
    Ok(())
}

/// Puts the package together around two programs; its file.
pub fn assemble(isle: &Path, shim: &Path) -> anyhow::Result<PathBuf> {
    let root = build::root();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = env!("CARGO_PKG_VERSION");
    let place = build::target().join("package");
    let stage = place.join("stage");
    let _ = std::fs::remove_dir_all(&stage);
    for (from, to, mode) in FILES {
        put(&std::fs::read(root.join("packaging").join(from))?, &stage.join(to), *mode)?;
    }
    put(&std::fs::read(isle)?, &stage.join("usr/bin/isle"), 0o755)?;
    put(&std::fs::read(shim)?, &stage.join("usr/libexec/isle/isle-shim"), 0o755)?;
    for (shell, to) in COMPLETIONS {
        put(said(isle, &["completion", shell])?.as_bytes(), &stage.join(to), 0o644)?;
    }
    for (name, section, page) in manual(isle)? {
        let to = format!("usr/share/man/man{section}/{name}.{section}");
        put(page.as_bytes(), &stage.join(to), 0o644)?;
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        put(&std::fs::read(root.join(licence))?, &stage.join("usr/share/doc/isle").join(licence), 0o644)?;
    }
    let control = CONTROL.replace("VERSION", version).replace("ARCH", architecture);
    put(control.as_bytes(), &stage.join("DEBIAN/control"), 0o644)?;
    let package = place.join(format!("isle_{version}_{architecture}.deb"));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).args([&stage, &package]))?;
    Ok(package)
}

fn put(bytes: &[u8], to: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.parent().context("a directory")?)?;
    std::fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))?)
}

/// What a program says on its output.
fn said(isle: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(isle).args(arguments).output().with_context(|| format!("cannot run {}", isle.display()))?;
    if !output.status.success() {
        bail!("isle {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The manual: a page a command, made of its help. Name, section and page.
fn manual(isle: &Path) -> anyhow::Result<Vec<(String, u8, String)>> {
    let top = said(isle, &["--help"])?;
    let mut pages = vec![("isle".to_owned(), 1, page("isle", 1, &top))];
    pages.push(("isle-daemon".into(), 8, page("isle-daemon", 8, &said(isle, &["daemon", "--help"])?)));
    for command in commands(&top) {
        let help = said(isle, &[&command, "--help"])?;
        for below in commands(&help) {
            let name = format!("isle-{command}-{below}");
            let help = said(isle, &[&command, &below, "--help"])?;
            pages.push((name.clone(), 1, page(&name, 1, &help)));
        }
        let name = format!("isle-{command}");
        pages.push((name.clone(), 1, page(&name, 1, &help)));
    }
    Ok(pages)
}

/// The commands that a help lists, under headings that speak of commands.
fn commands(help: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut listing = false;
    for line in help.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            listing = line.to_lowercase().contains("commands");
        } else if listing && let Some(word) = line.strip_prefix("  ").and_then(|l| l.split(' ').next()) {
            let is_command = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
            found.extend(is_command.then(|| word.to_owned()));
        }
    }
    found.retain(|w| w != "help");
    found.sort();
    found.dedup();
    found
}

/// A help as roff: as it is, since it is laid out for a terminal already.
fn page(name: &str, section: u8, help: &str) -> String {
    let about = help.lines().find(|l| !l.is_empty() && !l.starts_with("Usage:")).unwrap_or("container engine");
    let mut page = format!(
        ".TH {} {section} \"\" \"Isle {}\" \"Isle\"\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n.nf\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escaped(about)
    );
    for line in help.lines() {
        page += &escaped(line);
        page.push('\n');
    }
    page + ".fi\n.SH SEE ALSO\nisle(1), isle\\-daemon(8)\n"
}

/// Text that roff takes for text.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_a_help() {
        let help = "Usage:  isle [OPTIONS] COMMAND\n\nCommon Commands:\n  run         Create\n  ps          List\n\nGlobal \
                    Options:\n  -D, --debug   x\n";
        assert_eq!(commands(help), ["ps", "run"]);
    }

    #[test]
    fn a_page_is_text_to_roff() {
        let page = page("isle-x", 1, "Usage:  isle x\n\nDo it\n.dot --flag\n");
        assert!(page.contains("isle-x \\- Do it\n") && page.contains("\\&.dot \\-\\-flag\n"), "{page}");
    }
}
