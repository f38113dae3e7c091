//! dockerd's flags (28) that are not Isle's matter: every one is known. What changes nothing here is accepted with a
//! note; what somebody relies on, and would not get, is refused.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// What a flag's value looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Value,
    List,
}

enum Meaning {
    /// It has no effect here: why nobody misses it.
    Noted(&'static str),
    /// It is refused with any value but these.
    Refused { unless: &'static [&'static str], why: &'static str },
}

use Kind::{List, Switch, Value};
use Meaning::{Noted, Refused};

const TLS: Meaning = Refused {
    unless: &["false"],
    why: "the API is served on unix sockets and loopback; put ssh:// or a proxy in front of it",
};
const CONTAINERD: Meaning = Noted("there is no containerd below Isle");
const SWARM: Meaning = Noted("there is no swarm");
const TRANSFERS: Meaning = Noted("transfers have bounds of their own");

const FLAGS: &[(&str, Kind, Meaning)] = &[
    ("add-runtime", List, Noted("containers are started by isle-shim, or by runc")),
    ("allow-nondistributable-artifacts", List, Noted("it is about pushing layers of Windows")),
    ("api-cors-header", Value, Refused { unless: &[""], why: "the API is not for browsers" }),
    ("authorization-plugin", List, Refused { unless: &[], why: "Isle asks no plugins whether a request is allowed" }),
    ("cdi-spec-dir", List, Noted("devices are passed by --device")),
    ("containerd", Value, CONTAINERD),
    ("containerd-namespace", Value, CONTAINERD),
    ("containerd-plugins-namespace", Value, CONTAINERD),
    ("cpu-rt-period", Value, Refused { unless: &["0"], why: "real-time scheduling is not limited by Isle" }),
    ("cpu-rt-runtime", Value, Refused { unless: &["0"], why: "real-time scheduling is not limited by Isle" }),
    ("cri-containerd", Switch, CONTAINERD),
    ("default-cgroupns-mode", Value, Refused { unless: &["private"], why: "pass --cgroupns to the container" }),
    ("default-ipc-mode", Value, Refused { unless: &["private"], why: "pass --ipc to the container" }),
    ("exec-opt", List, Noted("the cgroup driver is found, not chosen")),
    ("experimental", Switch, Noted("there is nothing experimental to switch on")),
    ("feature", List, Noted("there are no features to switch")),
    ("firewall-backend", Value, Refused { unless: &["", "nftables"], why: "Isle's rules are nftables' own" }),
    ("http-proxy", Value, Refused { unless: &[""], why: "set HTTP_PROXY for the daemon" }),
    ("https-proxy", Value, Refused { unless: &[""], why: "set HTTPS_PROXY for the daemon" }),
    ("no-proxy", Value, Refused { unless: &[""], why: "set NO_PROXY for the daemon" }),
    ("init-path", Value, Noted("the shim is the init")),
    ("ip-forward-no-drop", Switch, Noted("Isle never lets the FORWARD chain drop")),
    ("log-format", Value, Noted("the daemon's log is text")),
    ("max-concurrent-downloads", Value, TRANSFERS),
    ("max-concurrent-uploads", Value, TRANSFERS),
    ("max-download-attempts", Value, TRANSFERS),
    ("network-control-plane-mtu", Value, SWARM),
    ("node-generic-resource", List, SWARM),
    ("swarm-default-advertise-addr", Value, SWARM),
    ("swarm-raft-election-tick", Value, SWARM),
    ("swarm-raft-heartbeat-tick", Value, SWARM),
    ("oom-score-adjust", Value, Noted("it is set by the daemon's unit")),
    ("raw-logs", Switch, Noted("the daemon's log has no colours")),
    ("rootless", Switch, Refused { unless: &["false"], why: "the daemon needs root" }),
    (
        "seccomp-profile",
        Value,
        Refused { unless: &["", "builtin"], why: "pass --security-opt seccomp=PROFILE to the container" },
    ),
    ("selinux-enabled", Switch, Refused { unless: &["false"], why: "Isle labels nothing" }),
    ("shutdown-timeout", Value, Noted("each container has its own --stop-timeout")),
    (
        "storage-driver",
        Value,
        Refused { unless: &["", "overlay2", "overlayfs"], why: "images are layers of overlayfs" },
    ),
    ("storage-opt", List, Refused { unless: &[], why: "images are layers of overlayfs, which has no options here" }),
    ("tls", Switch, TLS),
    ("tlsverify", Switch, TLS),
    ("tlscacert", Value, TLS),
    ("tlscert", Value, TLS),
    ("tlskey", Value, TLS),
    ("userland-proxy-path", Value, Noted("the keeper is the proxy")),
    (
        "userns-remap",
        Value,
        Refused { unless: &[""], why: "containers' users are the host's: run them by --user, without root" },
    ),
];

/// Adds them to a command line, unseen.
pub fn add(command: Command) -> Command {
    command.args(FLAGS.iter().map(|(name, kind, _)| {
        let arg = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
        let arg = if *name == "storage-driver" { arg.short('s') } else { arg };
        if *kind == Switch {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            arg.num_args(1).allow_hyphen_values(true)
        }
    }))
}

/// What is to be noted of those that were given.
///
/// # Errors
/// One means something that Isle does not do.
pub fn judge(matches: &ArgMatches) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    for (name, kind, meaning) in FLAGS {
        let values: Vec<&String> = matches.get_many(name).into_iter().flatten().collect();
        for value in values {
            match meaning {
                Refused { unless, why } if !unless.contains(&value.as_str()) => {
                    return Err(format!("--{name}={value} is not supported: {why}"));
                }
                Noted(why) if *kind != Switch || value != "false" => {
                    notes.push(format!("--{name} has no effect: {why}"))
                }
                _ => {}
            }
        }
    }
    notes.dedup();
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(words: &[&str]) -> Result<Vec<String>, String> {
        let words = ["dockerd"].iter().chain(words);
        judge(&add(Command::new("dockerd")).try_get_matches_from(words).map_err(|e| e.to_string())?)
    }

    #[test]
    fn what_changes_nothing_is_noted_and_what_somebody_relies_on_is_refused() {
        let note = "--containerd has no effect: there is no containerd below Isle";
        assert_eq!(judged(&["--containerd", "/run/c.sock", "--storage-driver=overlay2"]).unwrap(), [note]);
        assert!(
            judged(&["--userns-remap", "default"])
                .unwrap_err()
                .starts_with("--userns-remap=default is not supported: ")
        );
        assert!(judged(&["--authorization-plugin=x"]).unwrap_err().contains("asks no plugins"));
        assert!(judged(&["--tlsverify"]).is_err());
        assert_eq!(judged(&["--tlsverify=false", "--experimental=false"]), Ok(vec![]));
        assert!(judged(&["--nosuch"]).is_err());
    }
}
