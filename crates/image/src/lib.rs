//! Images: where they lie, how they come and go, and the root file systems that containers get of them.
//!
//! [`Images`] is the store; everything is a method of it.
//!
//! - `store`, `index`: what is recorded, and how it stays whole
//! - `unpack`, `pack`, `digest`, `copy`: archives and trees
//! - `archive`: `load`, `save`, `import`
//! - `image`, `remove`: looking up, listing, naming, removing
//! - `transfer`: files in and out of a container's tree
//! - `rootfs`, `points`, `lookup`: a container's root file system: prepared, read, compared, committed
//! - `registry`, `progress`: `pull`, `push`
//! - `build`, [`Images::build`]: Dockerfiles

#![warn(missing_docs)]

mod archive;
pub mod build;
mod copy;
mod digest;
mod error;
mod image;
mod index;
mod lookup;
mod pack;
mod points;
mod progress;
mod registry;
mod remove;
mod rootfs;
mod store;
mod transfer;
mod unpack;
mod walk;

pub use archive::{Import, Loaded};
pub use error::{Conflict, Error, Kind};
pub use image::{Change, Filter, HistoryStep, Image};
pub use kernel::tree::Kind as FileKind;
pub use progress::{Progress, ProgressDetail};
pub use registry::{Access, Credentials, PullOptions, PushedImage, RegistryError, RemoteImage, Tags};
pub use remove::{Pruned, Removed, Use};
pub use rootfs::Commit;
pub use store::Images;
pub use transfer::{Place, Receive, Tree, Under};
