//! `__complete WORD…`: what the last word of a command line could become. The shells' scripts ask for it at each TAB
//! ([`super::completion`]), so they hold nothing of their own; names of objects come from the daemon, if one runs.

use crate::client::connection::{Client, Query};
use crate::client::grammar::{self, Command, Flag, Found, Kind, Takes, words};
use crate::client::host;
use crate::client::output::print;
use serde_json::Value;
use std::time::Duration;

/// How long somebody at a prompt waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stands where the last word is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Words that are known here, each with what it means.
    Words(Vec<(String, String)>),
    /// Names that the daemon knows, after a prefix that stays: `--network=`.
    Names(&'static [Kind], String),
    Files,
    Nothing,
}

/// Says the candidates, a line each with what they mean after a tab, and last whether files would do as well (`:0`) or
/// not (`:4`), as the scripts of Docker's own client have it.
///
/// # Errors
/// Standard output is closed.
pub async fn complete(program: &str, line: &[String]) -> anyhow::Result<u8> {
    let (last, before) = line.split_last().map_or(("", line), |(last, before)| (last.as_str(), before));
    let (candidates, files) = match place(before, last) {
        Place::Words(words) => (words, false),
        Place::Names(kinds, prefix) => {
            let asked = tokio::time::timeout(PATIENCE, names(program, before, kinds)).await;
            let names = asked.unwrap_or_default();
            (names.into_iter().map(|(name, about)| (format!("{prefix}{name}"), about)).collect(), false)
        }
        Place::Files => (Vec::new(), true),
        Place::Nothing => (Vec::new(), false),
    };
    let fitting = candidates.iter().filter(|(word, _)| word.starts_with(last));
    let lines: String =
        fitting.map(|(w, about)| if about.is_empty() { format!("{w}\n") } else { format!("{w}\t{about}\n") }).collect();
    print(format_args!("{lines}:{}\n", if files { 0 } else { 4 }))?;
    Ok(0)
}

fn place(before: &[String], last: &str) -> Place {
    let Ok(globals) = grammar::parse(words::GLOBAL, before, true, |_, _| Ok(())) else { return Place::Files };
    if globals.args.is_empty() {
        return if last.starts_with('-') { flags(words::GLOBAL) } else { Place::Words(first_words()) };
    }
    match grammar::find(&globals.args) {
        Found::Group(group, None) => Place::Words(second_words(group)),
        Found::Command(command, _, count) => argument(command, &globals.args[count..], last),
        Found::Group(..) | Found::Unknown(_) => Place::Nothing,
    }
}

fn brief(about: &str) -> String {
    about.lines().next().unwrap_or_default().to_owned()
}

fn all_commands() -> impl Iterator<Item = (&'static str, &'static Command)> {
    words::commands().flat_map(|c| [c.path].into_iter().chain(c.also.iter().copied()).map(move |path| (path, c)))
}

fn first_words() -> Vec<(String, String)> {
    let groups = words::GROUPS.iter().map(|(name, about)| ((*name).to_owned(), brief(about)));
    let single =
        all_commands().filter(|(path, _)| !path.contains(' ')).map(|(path, c)| (path.to_owned(), brief(c.about)));
    let mut all: Vec<_> = groups.chain(single).collect();
    all.push((words::DAEMON.0.into(), words::DAEMON.1.into()));
    all.sort();
    all
}

fn second_words(group: &str) -> Vec<(String, String)> {
    let of = all_commands().filter_map(|(path, c)| Some((path.split_once(' ').filter(|(g, _)| *g == group)?.1, c)));
    let mut all: Vec<_> = of.map(|(name, c)| (name.to_owned(), brief(c.about))).collect();
    all.sort();
    all
}

fn flags(flags: &[Flag]) -> Place {
    Place::Words(flags.iter().map(|f| (format!("--{}", f.long), brief(f.help))).collect())
}

/// Behind a command: a flag, a flag's value, or one of its arguments.
fn argument(command: &'static Command, given: &[String], last: &str) -> Place {
    let (mut position, mut wanting, mut only_arguments) = (0, None, false);
    for word in given {
        if wanting.take().is_some() {
            continue;
        }
        if word == "--" && !only_arguments {
            only_arguments = true;
        } else if word.starts_with('-') && word.len() > 1 && !only_arguments {
            wanting = wants_value(command.flags, word);
        } else {
            position += 1;
            only_arguments |= command.stops;
        }
    }
    if let Some(flag) = wanting {
        return place_of(words::value_of(flag), String::new());
    }
    if last.starts_with('-') && !only_arguments {
        return match last.strip_prefix("--").and_then(|l| l.split_once('=')) {
            Some((name, _)) => match command.flags.iter().find(|f| f.long == name) {
                Some(flag) => place_of(words::value_of(flag), format!("--{name}=")),
                None => Place::Nothing,
            },
            None => flags(command.flags),
        };
    }
    let takes = command.takes.get(position).or(command.takes.last());
    takes.map_or(Place::Nothing, |takes| place_of(*takes, String::new()))
}

/// The flag whose value the next word is.
fn wants_value(flags: &'static [Flag], word: &str) -> Option<&'static Flag> {
    let flag = match word.strip_prefix("--") {
        Some(long) => flags.iter().find(|f| f.long == long),
        // `-it`: the last letter may want one, where the others are switches.
        None => {
            let mut letters = word[1..].chars();
            let found = letters
                .by_ref()
                .map(|c| flags.iter().find(|f| f.short.chars().eq([c])))
                .find(|f| f.is_none_or(|f| !f.is_switch()));
            found.flatten().filter(|_| letters.next().is_none())
        }
    }?;
    (!flag.is_switch()).then_some(flag)
}

fn place_of(takes: Takes, prefix: String) -> Place {
    match takes {
        Takes::Text => Place::Nothing,
        Takes::Files => Place::Files,
        Takes::Words(words) => Place::Words(words.iter().map(|w| (format!("{prefix}{w}"), String::new())).collect()),
        Takes::Names(kinds) => Place::Names(kinds, prefix),
    }
}

/// What the daemon that the command line means knows; none is started.
async fn names(program: &str, before: &[String], kinds: &[Kind]) -> Vec<(String, String)> {
    let Ok(globals) = grammar::parse(words::GLOBAL, before, true, |_, _| Ok(())) else { return Vec::new() };
    let wanted = host::Wanted::of(&globals, program);
    let client = host::address(&wanted).and_then(|address| Client::new(&address, program));
    let Ok(client) = client else { return Vec::new() };
    let mut all = Vec::new();
    for kind in kinds {
        let path = match kind {
            Kind::Containers => format!("/containers/json{}", Query::new().flag("all", true)),
            Kind::Running => "/containers/json".to_owned(),
            Kind::Images => "/images/json".to_owned(),
            Kind::Networks | Kind::OwnNetworks => "/networks".to_owned(),
            Kind::Volumes => "/volumes".to_owned(),
        };
        let Ok(answer) = client.get(&path).await else { continue };
        all.extend(named(*kind, &answer));
    }
    all.sort();
    all
}

fn named(kind: Kind, answer: &Value) -> Vec<(String, String)> {
    let list = answer["Volumes"].as_array().or(answer.as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |one: &Value| match kind {
        Kind::Containers | Kind::Running => {
            vec![(text(&one["Names"][0]).trim_start_matches('/').to_owned(), text(&one["Status"]))]
        }
        Kind::Images => {
            let tags = one["RepoTags"].as_array().into_iter().flatten();
            tags.map(|t| (text(t).trim_end_matches(":latest").to_owned(), String::new())).collect()
        }
        Kind::OwnNetworks if ["bridge", "host", "none"].contains(&&*text(&one["Name"])) => Vec::new(),
        Kind::Networks | Kind::OwnNetworks | Kind::Volumes => vec![(text(&one["Name"]), text(&one["Driver"]))],
    };
    list.into_iter().flatten().flat_map(of).filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        place(before, last)
    }

    fn offers(line: &str, word: &str) -> bool {
        matches!(at(line), Place::Words(words) if words.iter().any(|(w, _)| w == word))
    }

    #[test]
    fn commands_flags_and_their_values_are_offered_where_they_can_stand() {
        for (line, word) in [
            ("", "network"),
            ("", "ps"),
            ("--no-autostart ", "run"),
            ("-", "--host"),
            ("network ", "disconnect"),
            ("run --", "--network-alias"),
            ("run -it --", "--publish"),
            ("run --restart ", "unless-stopped"),
            ("run --restart=", "--restart=always"),
            ("completion ", "fish"),
        ] {
            assert!(offers(line, word), "{line:?}: {:?}", at(line));
        }
        assert!(!offers("run busybox --", "--publish"), "behind the image, words are the program's");
    }

    #[test]
    fn names_are_asked_for_by_the_kind_that_an_argument_has() {
        use Kind::{Containers, Images, Networks, OwnNetworks, Running, Volumes};
        for (line, kinds) in [
            ("network rm ", &[OwnNetworks][..]),
            ("network rm -f ", &[OwnNetworks]),
            ("network connect ", &[Networks]),
            ("network connect --ip 10.0.0.9 front ", &[Containers]),
            ("run --rm --network ", &[Networks]),
            ("run --rm -it --name x ", &[Images]),
            ("create -p 80:80 bu", &[Images]),
            ("exec -it ", &[Running]),
            ("rm ", &[Containers]),
            ("container stop a ", &[Running]),
            ("rmi ", &[Images]),
            ("volume rm ", &[Volumes]),
        ] {
            assert_eq!(at(line), Place::Names(kinds, String::new()), "{line:?}");
        }
        assert_eq!(at("run --network=fr"), Place::Names(&[Networks], "--network=".into()));
        for line in ["run --env-file ", "run -v ", "build ", "run busybox ", "exec cc cat "] {
            assert_eq!(at(line), Place::Files, "{line:?}");
        }
        for line in ["run --name ", "ps ", "nosuch "] {
            assert_eq!(at(line), Place::Nothing, "{line:?}");
        }
    }
}
