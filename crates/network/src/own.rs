//! What is ours in the kernel, and of which daemon's: told by names with the id of its root.

/// Our tables, in every family.
pub(crate) fn table(root: &str) -> String {
    format!("isle-{root}")
}

/// The device that carries nothing.
pub(crate) fn nothing(root: &str) -> String {
    format!("isle-{root}")
}

/// The id of that device, in its alias.
pub(crate) const NOTHING: &str = "nothing";

/// What a link of ours is called in its alias, with the id of what it is for; with none, what all of them begin with.
pub(crate) fn alias(root: &str, id: &str) -> String {
    format!("isle:{root}:{id}")
}
