//! Instructions that change an image's configuration and no file. The builder uses them, and `commit --change`,
//! `import --change` too.

use super::BuildError;
use super::parse::{Command, CommandLine, parse_one};
use super::words::{Lookup, expand, expand_and_split};
use model::env;
use model::image::{Empty, ImageConfig};
use std::path::{Component, Path, PathBuf};

/// The shell of images that name none.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions to a configuration, in order.
pub(crate) fn apply_changes(config: &mut ImageConfig, changes: &[String]) -> Result<(), BuildError> {
    let mut cmd_set = false;
    for change in changes.iter().flat_map(|c| c.split('\n')).map(str::trim).filter(|c| !c.is_empty()) {
        let instruction = parse_one(change)?;
        match &instruction.command {
            Command::From { .. }
            | Command::Arg(_)
            | Command::Run { .. }
            | Command::Copy(_)
            | Command::Shell(_)
            | Command::Maintainer(_) => {
                let keyword = change.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
                return Err(BuildError::NotAChange(keyword));
            }
            command => {
                let env = config.env.clone().unwrap_or_default();
                let lookup = |name: &str| env::value(&env, name).map(str::to_owned);
                apply(command, config, '\\', &lookup, &mut cmd_set).map_err(BuildError::Instruction)?;
            }
        }
    }
    Ok(())
}

/// Applies one instruction, and says what the history calls it. `cmd_set` is whether this stage has had a `CMD`.
pub(crate) fn apply(
    command: &Command,
    config: &mut ImageConfig,
    escape: char,
    lookup: Lookup<'_>,
    cmd_set: &mut bool,
) -> Result<String, String> {
    let word = |text: &str| expand(text, escape, lookup);
    Ok(match command {
        Command::Env(pairs) => {
            let mut shown = String::from("ENV");
            for (key, value) in pairs {
                let (key, value) = (word(key)?, word(value)?);
                if key.is_empty() {
                    return Err("ENV names can not be blank".to_owned());
                }
                shown.push_str(&format!(" {key}={value}"));
                env::merge(config.env.get_or_insert_default(), [&format!("{key}={value}")]);
            }
            shown
        }
        Command::Label(pairs) => {
            let mut shown = String::from("LABEL");
            for (key, value) in pairs {
                let (key, value) = (word(key)?, word(value)?);
                if key.is_empty() {
                    return Err("LABEL names can not be blank".to_owned());
                }
                shown.push_str(&format!(" {key}={value}"));
                config.labels.get_or_insert_default().insert(key, value);
            }
            shown
        }
        Command::Expose(ports) => {
            let exposed = config.exposed_ports.get_or_insert_default();
            let mut shown = Vec::new();
            for text in ports {
                for port in expand_and_split(text, escape, lookup)? {
                    for port in self::ports(&port)? {
                        exposed.insert(port.clone(), Empty {});
                        shown.push(port);
                    }
                }
            }
            shown.sort();
            format!("EXPOSE {}", shown.join(" "))
        }
        Command::Volume(volumes) => {
            let volumes = volumes.iter().map(|v| word(v)).collect::<Result<Vec<_>, _>>()?;
            for volume in &volumes {
                if volume.trim().is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                config.volumes.get_or_insert_default().insert(volume.clone(), Empty {});
            }
            format!("VOLUME [{}]", volumes.join(" "))
        }
        Command::User(user) => {
            config.user = word(user)?;
            format!("USER {}", config.user)
        }
        Command::Workdir(path) => {
            config.working_dir = below(&config.working_dir, &word(path)?);
            format!("WORKDIR {}", config.working_dir)
        }
        Command::StopSignal(signal) => {
            let signal = word(signal)?;
            if model::signal::number(&signal).is_none() {
                return Err(format!("invalid signal: {signal}"));
            }
            config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Command::Cmd(line) => {
            let words = command_words(line, config);
            let shown = format!("CMD [{}]", quoted(&words));
            config.cmd = Some(words);
            *cmd_set = true;
            shown
        }
        Command::Entrypoint(line) => {
            let words = command_words(line, config);
            let shown = format!("ENTRYPOINT [{}]", quoted(&words));
            config.entrypoint = (!words.is_empty()).then_some(words);
            if !*cmd_set {
                // arguments of another program's
                config.cmd = None;
            }
            shown
        }
        Command::Shell(shell) => {
            config.shell = Some(shell.clone());
            format!("SHELL [{}]", shell.join(" "))
        }
        Command::Healthcheck(check) => {
            config.healthcheck = Some(check.clone());
            format!("HEALTHCHECK {}", serde_json::to_string(check).unwrap_or_default())
        }
        Command::Onbuild(trigger) => {
            config.on_build.get_or_insert_default().push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Command::Maintainer(name) => format!("MAINTAINER {}", word(name)?),
        Command::From { .. } | Command::Arg(_) | Command::Run { .. } | Command::Copy(_) => String::new(),
    })
}

/// A command as it is executed: a text gets the shell before it.
pub(crate) fn command_words(line: &CommandLine, config: &ImageConfig) -> Vec<String> {
    match line {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) if text.is_empty() => Vec::new(),
        CommandLine::Shell(text) => {
            let mut words = shell(config);
            words.push(text.clone());
            words
        }
    }
}

pub(crate) fn shell(config: &ImageConfig) -> Vec<String> {
    config.shell.clone().unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec())
}

/// Words as Go's `%q` shows a list.
fn quoted(words: &[String]) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" ")
}

/// A path below a directory, unless it is absolute; dots resolved by the letter.
pub(crate) fn below(directory: &str, path: &str) -> String {
    let joined = Path::new("/").join(directory).join(path);
    let mut clean = PathBuf::from("/");
    for part in joined.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

/// `80`, `53/udp`, `8000-8010/tcp`; a host's part before it (`8080:80`) is dropped, as Docker does.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let range = range.rsplit_once(':').map_or(range, |(_, container)| container);
    let number = |n: &str| n.parse::<u16>().map_err(|_| format!("invalid containerPort: {text}"));
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    if first > last {
        return Err(format!("invalid containerPort: {text}"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_applied_in_order() {
        let mut config = ImageConfig { env: Some(vec!["PATH=/bin".into(), "a=0".into()]), ..ImageConfig::default() };
        config.cmd = Some(vec!["old".into()]);
        let changes = [
            "ENV a=1 b=$PATH:/x",
            "ENV b=${b}:/y",
            "EXPOSE 80 8000-8002/udp",
            "WORKDIR /a",
            "WORKDIR b/../c",
            "USER me:us",
            "VOLUME [\"/data\"]",
            "LABEL k=v",
            "ENTRYPOINT [\"/e\"]",
            "CMD echo $a",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK NONE",
            "ONBUILD RUN x",
        ]
        .map(str::to_owned);
        apply_changes(&mut config, &changes).unwrap();
        assert_eq!(config.env.as_deref().unwrap(), ["PATH=/bin", "a=1", "b=/bin:/x:/y"]);
        let ports: Vec<_> = config.exposed_ports.iter().flatten().map(|(port, _)| port.as_str()).collect();
        assert_eq!(ports, ["80/tcp", "8000/udp", "8001/udp", "8002/udp"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/a/c", "me:us"));
        assert!(config.volumes.iter().flatten().any(|(path, _)| path == "/data"));
        assert_eq!(config.entrypoint.as_deref().unwrap(), ["/e"]);
        assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/sh", "-c", "echo $a"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.on_build.as_deref().unwrap(), ["RUN x"]);
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        for (change, message) in [
            ("RUN x", "run is not a valid change command"),
            ("FROM x", "from is not a valid change command"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 80/xtp", "invalid proto: xtp"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
            ("ENV a=${b", "failed to process \"${b\": syntax error: missing '}'"),
        ] {
            let error = apply_changes(&mut ImageConfig::default(), &[change.to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), message, "{change}");
        }
    }

    #[test]
    fn an_entrypoint_takes_the_inherited_command_away() {
        let mut config = ImageConfig { cmd: Some(vec!["old".into()]), ..ImageConfig::default() };
        apply_changes(&mut config, &["ENTRYPOINT [\"/e\"]".to_owned()]).unwrap();
        assert_eq!(config.cmd, None);
        let own = ["CMD [\"new\"]", "ENTRYPOINT [\"/e\"]"].map(str::to_owned);
        apply_changes(&mut config, &own).unwrap();
        assert_eq!(config.cmd, Some(vec!["new".into()]), "but not one that came with it");
    }
}
