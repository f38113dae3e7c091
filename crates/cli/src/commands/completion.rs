//! `completion`: the shell's, made by clap from the same data that parses the command line.

use super::App;
use crate::grammar::{Parsed, words};
use crate::output::{Exit, print};
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;
use std::collections::BTreeMap;

/// `completion SHELL`.
///
/// # Errors
/// There is none for that shell.
pub fn generate(app: &App, p: &Parsed) -> anyhow::Result<u8> {
    let shell = match p.args[0].as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(
                Exit::new(1, format_args!("there is no completion for {other}: bash, zsh and fish have one")).into()
            );
        }
    };
    let program = app.program.to_string();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut tree(&program), &program, &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// All commands, as clap knows them.
fn tree(program: &str) -> Command {
    let mut groups: BTreeMap<&str, Command> =
        words::GROUPS.iter().map(|(name, about)| (*name, Command::new(*name).about(*about))).collect();
    let mut root = Command::new(program.to_owned()).args(words::GLOBAL.iter().map(argument));
    for command in words::COMMANDS {
        for path in [command.path].into_iter().chain(command.also.iter().copied()) {
            let name = path.rsplit(' ').next().unwrap_or(path);
            let about = command.about.lines().next().unwrap_or_default();
            let made = Command::new(name).about(about).args(command.flags.iter().map(argument)).disable_help_flag(true);
            match path.split_once(' ') {
                Some((group, _)) => {
                    groups.entry(group).and_modify(|g| *g = std::mem::take(g).subcommand(made));
                }
                None => root = root.subcommand(made),
            }
        }
    }
    root.subcommands(groups.into_values()).subcommand(Command::new("daemon").about("Run the daemon in the foreground"))
}

fn argument(flag: &crate::grammar::Flag) -> Arg {
    let help = flag.help.lines().next().unwrap_or_default();
    let mut arg = Arg::new(flag.long).long(flag.long).help(help);
    if let Some(short) = flag.short.chars().next() {
        arg = arg.short(short);
    }
    if flag.is_switch() { arg.action(ArgAction::SetTrue) } else { arg.action(ArgAction::Append).value_name(flag.value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_knows_all_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut tree("isle"), "isle", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            for word in ["network", "disconnect", "network-alias", "publish"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
