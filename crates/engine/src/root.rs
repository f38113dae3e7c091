//! A daemon's directories: its own alone, and one daemon's at a time.

use crate::Settings;
use crate::error::{Error, Kind, Result};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What daemons before may have left open to others: configurations have secrets, and so have logs.
pub(crate) fn close_files(settings: &Settings) {
    let close = |path: &Path, mode: u32| {
        let is_open = |m: std::fs::Metadata| !m.is_symlink() && m.permissions().mode() & 0o777 & !mode != 0;
        if std::fs::symlink_metadata(path).is_ok_and(is_open)
            && let Err(e) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        {
            tracing::warn!("cannot close {} to others: {e}", path.display());
        }
    };
    let below = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    for name in ["state.redb", "schema", "lock", "reserve"] {
        close(&settings.root.join(name), 0o600);
    }
    close(&settings.run.join("keeper.log"), 0o600);
    for container in below(&settings.root.join("containers")) {
        close(&container, 0o700);
        let is_log = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().contains("-json.log"));
        for log in below(&container).filter(is_log) {
            close(&log, 0o600);
        }
    }
}

/// Takes a directory for ourselves alone, but for what `allowed` leaves to others.
pub(crate) fn make_private(path: &Path, allowed: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |e: std::io::Error| Error::new(Kind::Internal, format!("cannot make {}: {e}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(allowed).create(path).map_err(failed)?;
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o1000 != 0 {
        // Like /tmp: closing it would harm others.
        return Err(Error::invalid(format!(
            "{} is shared by all users: a directory of its own is needed",
            path.display()
        )));
    }
    if mode & !allowed != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & allowed)).map_err(failed)?;
    }
    Ok(())
}

/// The lock on a root directory: one daemon at a time.
pub(crate) fn lock(root: &Path) -> Result<std::fs::File> {
    let path = root.join("lock");
    let unusable = |e: std::io::Error| Error::new(Kind::Internal, format!("cannot use {}: {e}", path.display()));
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::conflict(format!(
            "another daemon works on {}: stop it, or give this one another --root",
            root.display()
        ))),
        Err(std::fs::TryLockError::Error(e)) => Err(unusable(e)),
    }
}
