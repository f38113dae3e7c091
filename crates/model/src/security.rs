//! `--security-opt`: how far a container is confined.

use crate::container::HostConfig;
use crate::spec::Seccomp;

/// What its words ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityOptions {
    /// Nothing that it executes gains any.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// `systempaths=unconfined`: nothing masked, nothing read-only.
    pub system_paths_unconfined: bool,
}

impl SecurityOptions {
    /// # Errors
    /// One is unknown.
    pub fn read(host: &HostConfig) -> Result<Self, String> {
        let mut options = Self::default();
        for option in host.security_opt.iter().flatten() {
            let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
                ("no-new-privileges", "false") => options.no_new_privileges = false,
                ("seccomp", "unconfined") => options.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin") => options.seccomp = Seccomp::Default,
                ("seccomp", profile) => options.seccomp = Seccomp::Profile(profile.to_owned()),
                ("systempaths", "unconfined") => options.system_paths_unconfined = true,
                ("label", _) => {}
                ("apparmor", "unconfined") => {}
                ("apparmor", _) => {
                    return Err("Isle applies no AppArmor profiles: leave it out, or say apparmor=unconfined".into());
                }
                _ => return Err(format!("invalid --security-opt: {option:?}")),
            }
        }
        Ok(options)
    }
}
