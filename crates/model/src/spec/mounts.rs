//! The words of mounts: how a bind propagates, and what a tmpfs is mounted with.

use super::Refusal;
use std::fmt;
use std::str::FromStr;

/// Whether mounts made later below a bind are seen on its other side (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// None, here and below.
    #[default]
    RecursivelyPrivate,
    /// None.
    Private,
    /// The host's here, and here and below.
    RecursivelySlave,
    /// The host's here.
    Slave,
    /// Either's, here and below.
    RecursivelyShared,
    /// Either's.
    Shared,
}

impl Propagation {
    /// All that there are.
    pub const ALL: [Propagation; 6] = [
        Propagation::RecursivelyPrivate,
        Propagation::Private,
        Propagation::RecursivelySlave,
        Propagation::Slave,
        Propagation::RecursivelyShared,
        Propagation::Shared,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Propagation::RecursivelyPrivate => "rprivate",
            Propagation::Private => "private",
            Propagation::RecursivelySlave => "rslave",
            Propagation::Slave => "slave",
            Propagation::RecursivelyShared => "rshared",
            Propagation::Shared => "shared",
        }
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Nothing said is [`Propagation::default`]. The error is in Docker's words.
impl FromStr for Propagation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Propagation::ALL.into_iter().find(|p| p.word() == text) {
            Some(propagation) => Ok(propagation),
            None if text.is_empty() => Ok(Propagation::default()),
            None => Err(format!("invalid propagation mode: {text}")),
        }
    }
}

/// What a tmpfs is mounted with, from the words of `--tmpfs`.
///
/// # Errors
/// A word is none, or a size no number.
pub fn tmpfs_options(asked: &[String]) -> Result<Vec<String>, Refusal> {
    const PAIRS: [(&str, &str); 8] = [
        ("exec", "noexec"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("rw", "ro"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("async", "sync"),
        ("relatime", "norelatime"),
    ];
    // mount(8) has two more, which make no sense for what is bound.
    let is_propagation = |word: &str| {
        !word.is_empty() && word.parse::<Propagation>().is_ok() || ["runbindable", "unbindable"].contains(&word)
    };
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
    for option in asked {
        let key = option.split('=').next().unwrap_or_default();
        if let Some((yes, no)) = PAIRS.iter().find(|(yes, no)| [*yes, *no].contains(&&**option)) {
            options.retain(|known| known != yes && known != no);
        } else if is_propagation(option) {
            options.retain(|known| !is_propagation(known));
        } else if ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"].contains(&key) {
            let value = option.split_once('=').map_or("", |(_, value)| value);
            let number = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
            if key != "mpol" && number.parse::<u64>().is_err() {
                return Err(Refusal::TmpfsOption(option.clone()));
            }
            options.retain(|known| !known.starts_with(&format!("{key}=")));
        } else if !["strictatime", "nostrictatime"].contains(&&**option) {
            return Err(Refusal::TmpfsOption(option.clone()));
        }
        options.push(option.clone());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_replace_what_they_contradict() {
        let check = |asked: &[&str], expected: &str| {
            let asked: Vec<String> = asked.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(tmpfs_options(&asked).unwrap().join(","), expected);
        };
        check(&[], "noexec,nosuid,nodev,rprivate");
        check(&["exec", "size=64m"], "nosuid,nodev,rprivate,exec,size=64m");
        check(&["ro", "size=1m", "size=2m"], "noexec,nosuid,nodev,rprivate,ro,size=2m");
    }
}
