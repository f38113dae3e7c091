//! What a container's processes may do beyond anybody (capabilities(7)).

use super::Refusal;

/// Capabilities by their numbers, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

/// By number, without `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl CapabilitySet {
    /// Everything that this kernel interface knows.
    pub const ALL: CapabilitySet = CapabilitySet((1 << CAPABILITIES.len()) - 1);

    /// The bit of a name, with or without `CAP_`, in any case.
    pub fn named(name: &str) -> Option<CapabilitySet> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let at = CAPABILITIES.iter().position(|known| *known == bare)?;
        Some(CapabilitySet(1 << at))
    }

    /// The names with `CAP_`, by number.
    pub fn names(self) -> Vec<String> {
        let known = CAPABILITIES.iter().enumerate().filter(|(at, _)| self.0 & (1 << at) != 0);
        known.map(|(_, name)| format!("CAP_{name}")).collect()
    }

    /// Whether it has the one of a name.
    pub fn contains(self, name: &str) -> bool {
        Self::named(name).is_some_and(|one| self.0 & one.0 != 0)
    }
}

/// What a command beside the container's process may have, by the same rules.
///
/// # Errors
/// A name is none.
pub fn capabilities(
    privileged: bool,
    add: &[String],
    drop: &[String],
    available: CapabilitySet,
) -> Result<CapabilitySet, Refusal> {
    let is_all = |name: &&String| name.eq_ignore_ascii_case("all");
    let named = |option: &'static str, names: &[String]| {
        let mut bits = 0;
        for name in names.iter().filter(|name| !is_all(name)) {
            let full = || format!("CAP_{}", name.to_uppercase().trim_start_matches("CAP_"));
            bits |= CapabilitySet::named(name).ok_or_else(|| Refusal::Capability { option, name: full() })?.0;
        }
        Ok::<u64, Refusal>(bits)
    };
    let (added, dropped) = (named("CapAdd", add)?, named("CapDrop", drop)?);
    if privileged {
        return Ok(available);
    }
    let bits = if add.iter().any(|name| is_all(&name)) {
        available.0
    } else if drop.iter().any(|name| is_all(&name)) {
        0
    } else {
        DEFAULT_CAPABILITIES.iter().filter_map(|name| CapabilitySet::named(name)).fold(0, |bits, one| bits | one.0)
    };
    let bits = (bits | added) & !dropped;
    Ok(CapabilitySet(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let check = |add: &[&str], drop: &[&str], expected: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let got = capabilities(false, &own(add), &own(drop), CapabilitySet::ALL).unwrap();
            let want = expected.iter().fold(0, |bits, name| bits | CapabilitySet::named(name).unwrap().0);
            assert_eq!(got.names(), CapabilitySet(want).names(), "add {add:?} drop {drop:?}");
        };
        check(&[], &[], &DEFAULT_CAPABILITIES);
        check(&[], &["ALL"], &[]);
        check(&["net_admin"], &["all"], &["NET_ADMIN"]);
        check(
            &["CAP_SYS_TIME"],
            &["CAP_CHOWN", "MKNOD"],
            &[
                "SYS_TIME",
                "DAC_OVERRIDE",
                "FSETID",
                "FOWNER",
                "NET_RAW",
                "SETGID",
                "SETUID",
                "SETFCAP",
                "SETPCAP",
                "NET_BIND_SERVICE",
                "SYS_CHROOT",
                "KILL",
                "AUDIT_WRITE",
            ],
        );
        check(&["ALL"], &["ALL"], &CAPABILITIES);
        let got = capabilities(false, &["ALL".into()], &["SYS_ADMIN".into()], CapabilitySet::ALL).unwrap();
        assert!(!got.contains("SYS_ADMIN") && got.contains("BPF"));
        let refused = capabilities(false, &[], &["net_something".into()], CapabilitySet::ALL).unwrap_err();
        assert_eq!(refused.to_string(), "invalid CapDrop: unknown capability: \"CAP_NET_SOMETHING\"");
    }
}
