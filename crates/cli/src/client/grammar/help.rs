//! How commands and flags are shown: laid out as Docker's client does, since people scan it by its shape.

use super::{Command, Flag, words};

/// Help for one command, under the words that were used for it.
pub fn command(program: &str, used: &str, command: &Command, width: usize) -> String {
    let usage = command.usage.replace("\tisle ", &format!("\t{program} "));
    let mut text = format!("Usage:  {program} {used} {usage}\n\n{}\n", command.about).replace(" \n", "\n");
    if !command.also.is_empty() {
        let mut names: Vec<&str> = command.also.iter().copied().chain([command.path]).collect();
        names.sort_by_key(|n| (n.split(' ').count() < 2, *n != command.path));
        let names: Vec<String> = names.iter().map(|n| format!("{program} {n}")).collect();
        text.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    if !command.flags.is_empty() {
        let mut sorted: Vec<&Flag> = command.flags.iter().collect();
        sorted.sort_by_key(|f| f.long);
        text.push_str(&format!("\nOptions:\n{}", flags(&sorted, width)));
    }
    text
}

/// Help for a group of commands.
pub fn group(program: &str, name: &str) -> String {
    let about = words::GROUPS.iter().find(|(n, _)| *n == name).map_or("", |(_, about)| about);
    let mut members: Vec<(&str, &str)> = words::commands()
        .filter_map(|command| {
            let all = [command.path].into_iter().chain(command.also.iter().copied());
            let short = all.filter_map(|p| p.strip_prefix(name)?.strip_prefix(' ')).next()?;
            (!words::MISSING.contains(&short)).then_some((short, command.about))
        })
        .collect();
    members.sort_unstable();
    format!(
        "Usage:  {program} {name} COMMAND\n\n{about}\n\nCommands:\n{}\nRun '{program} {name} COMMAND --help' for more \
         information on a command.\n",
        list(&members)
    )
}

/// Help for everything.
pub fn all(program: &str, width: usize) -> String {
    let top: Vec<(&str, &str)> = words::commands()
        .filter_map(|c| {
            let mut names = [c.path].into_iter().chain(c.also.iter().copied());
            names.find(|n| !n.contains(' ')).map(|n| (n, c.about))
        })
        .filter(|(name, _)| !words::MISSING.contains(name))
        .collect();
    let common: Vec<_> = words::COMMON.iter().filter_map(|n| top.iter().find(|(name, _)| name == n).copied()).collect();
    let mut others: Vec<_> = top.iter().filter(|(name, _)| !words::COMMON.contains(name)).copied().collect();
    others.push(words::DAEMON);
    others.sort_unstable();
    // What is only accepted is no help to anybody.
    let globals: Vec<&Flag> = words::GLOBAL.iter().filter(|f| !f.help.starts_with("Accepted")).collect();
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nContainers whose networks know their names\n\nCommon Commands:\n{}\n\
         Management Commands:\n{}\nCommands:\n{}\nGlobal Options:\n{}\n\
         Run '{program} COMMAND --help' for more information on a command.\n",
        list(&common),
        list(words::GROUPS),
        list(&others),
        flags(&globals, width),
    )
}

fn list(commands: &[(&str, &str)]) -> String {
    let widest = commands.iter().map(|(name, _)| name.len()).max().unwrap_or_default().max(11);
    let line = |(name, about): &(&str, &str)| {
        let about = about.split(['.', '\n']).next().unwrap_or_default();
        format!("  {name:widest$} {about}\n")
    };
    commands.iter().map(line).collect()
}

/// pflag's `FlagUsagesWrapped`.
fn flags(flags: &[&Flag], width: usize) -> String {
    let mut sorted = flags.to_vec();
    sorted.sort_by_key(|f| f.long);
    let heads: Vec<String> = sorted
        .iter()
        .map(|f| {
            let short = if f.short.is_empty() { "    ".to_owned() } else { format!("-{}, ", f.short) };
            let value = if f.value.is_empty() { String::new() } else { format!(" {}", f.value) };
            format!("  {short}--{}{value}", f.long)
        })
        .collect();
    let column = heads.iter().map(String::len).max().unwrap_or_default() + 3;
    let pairs = heads.iter().zip(sorted);
    pairs.map(|(head, flag)| format!("{head:column$}{}\n", wrap(column, width.saturating_sub(1), flag.help))).collect()
}

/// pflag's `wrap`: lines of at most `width`, all but the first indented.
fn wrap(indent: usize, width: usize, text: &str) -> String {
    const SLOP: usize = 5;
    let margin = "\n".to_owned() + &" ".repeat(indent);
    let room = width.saturating_sub(indent);
    if room < 24 {
        return text.replace('\n', &margin);
    }
    let room = room - SLOP;
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = first_line(room, SLOP, rest);
        lines.push(line.replace('\n', &margin));
        rest = after;
    }
    lines.join(&margin)
}

fn first_line(room: usize, slop: usize, text: &str) -> (&str, &str) {
    if room + slop > text.len() {
        return (text, "");
    }
    let head = &text[..text.floor_char_boundary(room)];
    match (head.rfind([' ', '\t', '\n']), head.rfind('\n')) {
        (None | Some(0), _) => (text, ""),
        (Some(_), Some(newline)) if newline > 0 => (&text[..newline], &text[newline + 1..]),
        (Some(space), _) => (&text[..space], &text[space + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_s_help_is_wrapped_as_docker_s_is() {
        let super::super::Found::Command(found, ..) = super::super::find(&["network".into(), "connect".into()]) else {
            panic!("no command")
        };
        let expected = "\
Usage:  isle network connect [OPTIONS] NETWORK CONTAINER

Connect a container to a network

Options:
      --alias strings           Add network-scoped alias for the container
      --driver-opt strings      driver options for the network
      --gw-priority int         Highest gw-priority provides the default
                                gateway. Accepts positive and negative values.
      --ip string               IPv4 address (e.g., \"172.30.100.104\")
      --ip6 string              IPv6 address (e.g., \"2001:db8::33\")
      --link list               Add link to another container
      --link-local-ip strings   Add a link-local address for the container
";
        assert_eq!(command("isle", "network connect", found, 80), expected);
    }

    #[test]
    fn help_is_as_it_was() {
        insta::assert_snapshot!("all", all("isle", 80));
        insta::assert_snapshot!("network", group("isle", "network"));
        for words in ["network create", "run"] {
            let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let super::super::Found::Command(found, used, _) = super::super::find(&args) else { panic!("{words}") };
            insta::assert_snapshot!(words.replace(' ', "-"), command("isle", &used, found, 80));
        }
    }
}
