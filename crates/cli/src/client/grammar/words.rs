//! Every command's words, flags and help, as data: what Docker's client calls them, so that fingers and scripts need
//! not learn. What a command does is found by its path in [`crate::client::commands`].

mod container;
mod image;
mod network;
mod rest;

use super::Kind::{Containers, Networks};
use super::Takes::{Files, Names, Text, Words};
use super::{Command, Flag, Takes};

/// What stands at the top of the help, group by group.
pub const COMMON: &[&str] =
    &["run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"];

/// What Docker has and Isle not yet: it is answered with what to do instead, and not offered in the help.
pub const MISSING: &[&str] = &["search"];

/// Commands that only group others.
pub const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("container", "Manage containers"),
    ("context", "Manage contexts"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("system", "Manage Isle"),
    ("volume", "Manage volumes"),
];

/// What `main` takes before any of these, and its help.
pub const DAEMON: (&str, &str) = ("daemon", "Run the daemon in the foreground");

/// Docker's older names of flags, which it takes and does not show: the name, the flag, and one that tells the commands
/// that have it.
const HIDDEN: &[(&str, &str, &str)] = &[
    ("net", "network", "network-alias"),
    ("net-alias", "network-alias", "network-alias"),
    ("dns-opt", "dns-option", "dns-option"),
    ("time", "timeout", "timeout"),
];

/// The flag of a command that an older name means.
pub fn hidden(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    let (_, meant, marker) = HIDDEN.iter().find(|(old, ..)| *old == name)?;
    flags.iter().find(|f| f.long == *marker)?;
    flags.iter().find(|f| f.long == *meant)
}

/// What a flag's value can be.
pub fn value_of(flag: &Flag) -> Takes {
    match flag.long {
        "network" | "net" => Names(&[Networks]),
        "volumes-from" | "link" => Names(&[Containers]),
        "restart" => Words(&["always", "no", "on-failure", "unless-stopped"]),
        "pull" => Words(&["always", "missing", "never"]),
        "signal" | "stop-signal" => Words(&["SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"]),
        "format" | "filter" | "name" | "hostname" | "user" | "label" | "publish" | "ip" | "ip6" => Text,
        _ => Files,
    }
}

const FORMAT_TABLE: &str = "Format output using a custom template:\n'table':            Print output in table format with \
    column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             \
    Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";

const FORMAT_TEXT: &str = "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         \
    Print output using the given Go template.";

const CGROUPNS: &str = "Cgroup namespace to use (host|private)\n'host':    Run the container in the host's cgroup \
    namespace\n'private': Run the container in its own private cgroup namespace";

/// A flag; no value name makes it a switch.
const fn f(short: &'static str, long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { short, long, value, help }
}

/// All commands.
pub fn commands() -> impl Iterator<Item = &'static Command> {
    [container::COMMANDS, image::COMMANDS, network::COMMANDS, rest::COMMANDS].into_iter().flatten()
}

/// What comes before the command.
pub const GLOBAL: &[Flag] = &[
    f("H", "host", "list", "Daemon socket to connect to (default unix:///run/isle/isle.sock; ISLE_HOST, DOCKER_HOST)"),
    f("", "no-autostart", "", "Do not start a daemon in the background when none listens"),
    f("", "config", "string", "Accepted for scripts that give it; there is no client configuration"),
    f(
        "c",
        "context",
        "string",
        "Name of docker's context that says which daemon to connect to (overrides ISLE_HOST and DOCKER_HOST)",
    ),
    f("D", "debug", "", "Accepted for scripts that give it"),
    f("l", "log-level", "string", "Accepted for scripts that give it"),
    f("", "root", "string", "Where a daemon that is started in the background keeps its data (default /var/lib/isle)"),
    f("v", "version", "", "Print version information and quit"),
];
