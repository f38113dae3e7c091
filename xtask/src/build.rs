//! Building the two programs.

use crate::{cargo, run};
use std::path::{Path, PathBuf};

/// The directory of this repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds both programs for tests and the demonstration; where `isle` is. The shim is static, as what people install:
/// so it has a target directory of its own, since the flag would reach everything in this one.
pub fn debug() -> anyhow::Result<PathBuf> {
    run(cargo().current_dir(root()).args(["build", "--quiet", "--package", "isle"]))?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    run(cargo()
        .current_dir(root())
        .args(["build", "--quiet", "--package", "isle-shim", "--target", &triple, "--target-dir"])
        .arg(target().join("shim"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    let built = target().join("debug/isle");
    pair(&built, &target().join("shim").join(triple).join("debug/isle-shim"))?;
    Ok(built)
}

/// Puts both programs side by side, as `isle` looks for its shim: `target/isle/isle` can be used as it is.
fn pair(isle: &Path, shim: &Path) -> anyhow::Result<()> {
    let directory = target().join("isle");
    std::fs::create_dir_all(&directory)?;
    for program in [isle, shim] {
        let place = directory.join(program.file_name().unwrap_or_default());
        // Put in place as a whole: it may be running, and somebody else may be doing the same.
        let new = place.with_extension(std::process::id().to_string());
        if std::fs::hard_link(program, &new).is_err() {
            std::fs::copy(program, &new)?;
        }
        std::fs::rename(&new, &place)?;
        // Between two links of one file, a renaming does nothing.
        let _ = std::fs::remove_file(&new);
    }
    Ok(())
}

/// Builds both programs for use from here; says where `isle` is.
pub fn build() -> anyhow::Result<()> {
    debug()?;
    println!("{}", target().join("isle/isle").display());
    Ok(())
}

/// Builds what people install. The shim is static, small, and gone at the first panic: a profile of its own.
pub fn dist() -> anyhow::Result<()> {
    run(cargo().current_dir(root()).args(["build", "--profile", "dist", "--package", "isle"]))?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    run(cargo()
        .current_dir(root())
        .args(["rustc", "--profile", "shim", "--package", "isle-shim", "--bin", "isle-shim", "--target", &triple])
        .args(["--", "-C", "target-feature=+crt-static"]))?;
    let target = target();
    std::fs::copy(target.join(triple).join("shim/isle-shim"), target.join("dist/isle-shim"))?;
    println!("{}\n{}", target.join("dist/isle").display(), target.join("dist/isle-shim").display());
    Ok(())
}
