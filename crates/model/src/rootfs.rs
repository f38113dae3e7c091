//! A container's root file system, as a value: which layers lie over which. `image` prepares the directories, the
//! launcher mounts them in the container's own mount namespace, the builder over a detached mount.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An overlay still to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Read-only layers, the uppermost first. Never empty: an image without layers has one empty directory.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: PathBuf,
    /// overlayfs's own directory, beside `upper` on the same file system.
    pub work: PathBuf,
    /// Never sync to disk (`--rm`): unmounting costs 0.07 ms instead of 1.1.
    pub volatile: bool,
}
