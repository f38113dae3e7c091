//! What a command line may look like: the grammar of Go's pflag, which is what Docker's users type and whose errors
//! they know. `-itd`, `-p80:80`, `--rm=false`, `--name x`; after an image's name nothing is a flag any more.
//!
//! - [`words`]: every command's words, flags and help, as data
//! - [`help`]: how they are shown
//!
//! Completion reads the same data ([`crate::client::commands::complete`]). clap does not parse: its grammar and its errors differ
//! from pflag's in ways that scripts can see.

pub mod help;
pub mod words;

use model::go::parse_bool;
use std::collections::BTreeMap;

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// One letter, or nothing.
    pub short: &'static str,
    pub long: &'static str,
    /// What its value is called; nothing for a switch.
    pub value: &'static str,
    pub help: &'static str,
}

impl Flag {
    /// Whether it takes no value.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// As errors name it: `-d, --detach`.
    fn label(&self) -> String {
        if self.short.is_empty() { format!("--{}", self.long) } else { format!("-{}, --{}", self.short, self.long) }
    }
}

/// How many arguments a command wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    None,
    Any,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

/// What an argument, or a flag's value, can be: what completion offers in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A text that nobody can know.
    Text,
    /// A path; also a program's own arguments, most of which are paths.
    Files,
    Words(&'static [&'static str]),
    /// Names that the daemon knows.
    Names(&'static [Kind]),
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Containers,
    Running,
    Images,
    Networks,
    /// That can be removed.
    OwnNetworks,
    Volumes,
}

/// A command, as data.
#[derive(Debug)]
pub struct Command {
    /// Its proper words: `network create`.
    pub path: &'static str,
    /// Other words for it.
    pub also: &'static [&'static str],
    pub usage: &'static str,
    pub about: &'static str,
    pub count: Count,
    /// What its arguments are, one by one; the last one stands for all that follow.
    pub takes: &'static [Takes],
    /// Whether flags end at the first argument.
    pub stops: bool,
    pub flags: &'static [Flag],
}

/// A command line that was understood.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Everything that is no flag.
    pub args: Vec<String>,
}

impl Parsed {
    /// Whether a flag was given, with whatever value.
    pub fn given(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }
    /// A switch; `--x=false` is off.
    pub fn on(&self, long: &str) -> bool {
        self.on_or(long, false)
    }
    /// A switch that may be on by default.
    pub fn on_or(&self, long: &str, default: bool) -> bool {
        self.last(long).map_or(default, |v| parse_bool(v) == Some(true))
    }
    /// A text, empty where it was not given.
    pub fn text(&self, long: &str) -> &str {
        self.last(long).unwrap_or_default()
    }
    /// The last value given.
    pub fn last(&self, long: &str) -> Option<&str> {
        self.values.get(long).and_then(|v| v.last()).map(String::as_str)
    }
    /// All values given, in order.
    pub fn list(&self, long: &str) -> &[String] {
        self.values.get(long).map(Vec::as_slice).unwrap_or_default()
    }
    /// All values, each of which may be a list with commas.
    pub fn split(&self, long: &str) -> Vec<String> {
        self.list(long).iter().flat_map(|v| v.split(',')).map(str::to_owned).collect()
    }
    /// A whole number, checked when it was parsed.
    pub fn int(&self, long: &str) -> Option<i64> {
        self.last(long).and_then(integer)
    }
    /// As if a flag had been given.
    #[cfg(test)]
    pub fn set(&mut self, long: &'static str, value: &str) {
        self.values.entry(long).or_default().push(value.to_owned());
    }
}

/// Why a command line is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The user asks for help instead.
    Help,
    /// In pflag's words.
    Flag(String),
}

/// Something that a flag's value must satisfy beyond its kind.
pub type Check = fn(&Flag, &str) -> Result<(), String>;

/// Reads arguments by pflag's grammar. `stops`: flags end at the first argument.
///
/// # Errors
/// Help is asked for, or a flag is wrong.
pub fn parse(flags: &'static [Flag], args: &[String], stops: bool, check: Check) -> Result<Parsed, Refusal> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            parsed.args.extend(rest.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            let Some(flag) = flags.iter().find(|f| f.long == name).or_else(|| words::hidden(flags, name)) else {
                return Err(if name == "help" { Refusal::Help } else { Refusal::Flag(unknown(word, name)) });
            };
            let value = match value {
                Some(value) => value.to_owned(),
                None if flag.is_switch() => "true".into(),
                None => {
                    rest.next().cloned().ok_or_else(|| Refusal::Flag(format!("flag needs an argument: --{name}")))?
                }
            };
            keep(&mut parsed, flag, value, check)?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
            shorts(flags, letters, &mut rest, &mut parsed, check)?;
        } else {
            parsed.args.push(word.clone());
            if stops {
                parsed.args.extend(rest.cloned());
                break;
            }
        }
    }
    Ok(parsed)
}

fn unknown(word: &str, name: &str) -> String {
    if name.is_empty() || name.starts_with('-') {
        format!("bad flag syntax: {word}")
    } else {
        format!("unknown flag: --{name}")
    }
}

/// `-itd`, `-p80:80`, `-p=80:80`, `-p 80:80`.
fn shorts<'a>(
    flags: &'static [Flag],
    letters: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
    check: Check,
) -> Result<(), Refusal> {
    let mut left = letters;
    while let Some(letter) = left.chars().next() {
        let after = &left[letter.len_utf8()..];
        let Some(flag) = flags.iter().find(|f| f.short.chars().eq([letter])) else {
            if letter == 'h' {
                return Err(Refusal::Help);
            }
            return Err(Refusal::Flag(format!("unknown shorthand flag: '{letter}' in -{left}")));
        };
        let value = match after.strip_prefix('=') {
            Some(value) => value.to_owned(),
            None if flag.is_switch() => {
                keep(parsed, flag, "true".into(), check)?;
                left = after;
                continue;
            }
            None if !after.is_empty() => after.to_owned(),
            None => {
                let missing = || Refusal::Flag(format!("flag needs an argument: '{letter}' in -{left}"));
                rest.next().cloned().ok_or_else(missing)?
            }
        };
        return keep(parsed, flag, value, check);
    }
    Ok(())
}

fn keep(parsed: &mut Parsed, flag: &'static Flag, value: String, check: Check) -> Result<(), Refusal> {
    kind(flag, &value).and_then(|()| check(flag, &value)).map_err(|why| {
        Refusal::Flag(format!("invalid argument {} for \"{}\" flag: {why}", crate::text::quote(&value), flag.label()))
    })?;
    parsed.values.entry(flag.long).or_default().push(value);
    Ok(())
}

/// What the name of a flag's value promises.
fn kind(flag: &Flag, value: &str) -> Result<(), String> {
    let quoted = || crate::text::quote(value);
    match flag.value {
        "" if parse_bool(value).is_none() => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted())),
        "int" if integer(value).is_none() => Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quoted())),
        "uint16" if value.parse::<u16>().is_err() => {
            Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quoted()))
        }
        "bytes" => crate::text::parse_bytes(value).map(drop),
        "decimal" => crate::text::parse_nano(value).map(drop),
        "duration" => model::duration::parse(value).map(drop),
        "filter" if !value.is_empty() && !value.contains('=') => {
            Err("bad format of filter (expected name=value)".into())
        }
        _ => Ok(()),
    }
}

fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What is wrong with a number of arguments, in Docker's words; the end of "'docker rm' ...".
pub fn miscounted(count: Count, got: usize) -> Option<String> {
    let arguments = |n: usize| if n == 1 { "1 argument".to_owned() } else { format!("{n} arguments") };
    match count {
        Count::None if got > 0 => Some("accepts no arguments".into()),
        Count::Exactly(n) if got != n => Some(format!("requires {}", arguments(n))),
        Count::AtLeast(n) if got < n => Some(format!("requires at least {}", arguments(n))),
        Count::AtMost(n) if got > n => Some(format!("requires at most {}", arguments(n))),
        Count::Between(low, high) if got < low || got > high => {
            Some(format!("requires at least {low} and at most {}", arguments(high)))
        }
        _ => None,
    }
}

/// What the first words of a command line mean.
#[derive(Debug)]
pub enum Found {
    /// A command, the words used for it, and how many they were.
    Command(&'static Command, String, usize),
    /// A group by itself, or followed by something unknown.
    Group(&'static str, Option<String>),
    Unknown(String),
}

/// Finds a command by its first one or two words.
pub fn find(args: &[String]) -> Found {
    let first = args.first().map(String::as_str).unwrap_or_default();
    let named = |words: &str| words::commands().find(|c| c.path == words || c.also.contains(&words));
    if let Some((group, _)) = words::GROUPS.iter().find(|(g, _)| *g == first) {
        let Some(second) = args.get(1) else { return Found::Group(group, None) };
        let both = format!("{first} {second}");
        return match named(&both) {
            Some(command) => Found::Command(command, both, 2),
            None => Found::Group(group, Some(second.clone())),
        };
    }
    match named(first) {
        Some(command) => Found::Command(command, first.to_owned(), 1),
        None => Found::Unknown(first.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Parsed, Refusal> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let Found::Command(command, ..) = find(&["run".to_owned()]) else { panic!("no run") };
        parse(command.flags, &args, true, |_, _| Ok(()))
    }

    fn refused(line: &str, why: &str) {
        assert_eq!(run(line).unwrap_err(), Refusal::Flag(why.into()), "{line}");
    }

    #[test]
    fn flags_end_at_the_image() {
        let parsed = run("-itd --rm=false -p80:80 -p=81:81 -p 82:82 --name x busybox -d --rm").unwrap();
        assert!(parsed.on("interactive") && parsed.on("tty") && parsed.on("detach"));
        assert!(!parsed.on("rm") && parsed.given("rm"));
        assert_eq!(parsed.list("publish"), ["80:80", "81:81", "82:82"]);
        assert_eq!(parsed.text("name"), "x");
        assert_eq!(parsed.args, ["busybox", "-d", "--rm"]);
        assert_eq!(run("-- -x").unwrap().args, ["-x"]);
        assert_eq!(run("--memory-swap -1 x").unwrap().text("memory-swap"), "-1");
    }

    #[test]
    fn dockers_other_names_of_flags_are_understood_and_not_shown() {
        let parsed = run("--net front --net-alias=a --dns-opt ndots:1 x").unwrap();
        assert_eq!(parsed.text("network"), "front");
        assert_eq!((parsed.text("network-alias"), parsed.text("dns-option")), ("a", "ndots:1"));
        let Found::Command(command, ..) = find(&["stop".to_owned()]) else { panic!("no stop") };
        let args = ["--time=3".to_owned(), "x".to_owned()];
        let parsed = parse(command.flags, &args, false, |_, _| Ok(())).unwrap();
        assert_eq!(parsed.int("timeout"), Some(3));
        let Found::Command(command, ..) = find(&["build".to_owned()]) else { panic!("no build") };
        assert!(parse(command.flags, &["--net=x".to_owned()], false, |_, _| Ok(())).is_err());
        assert!(!help::command("isle", "run", command, 80).contains("--net-alias"));
    }

    #[test]
    fn errors_are_in_the_words_of_pflag() {
        refused("--nosuch x", "unknown flag: --nosuch");
        refused("-dZ x", "unknown shorthand flag: 'Z' in -Z");
        refused("--name", "flag needs an argument: --name");
        refused("-p", "flag needs an argument: 'p' in -p");
        refused(
            "-d=foo x",
            "invalid argument \"foo\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax",
        );
        refused(
            "--cpus abc x",
            "invalid argument \"abc\" for \"--cpus\" flag: failed to parse abc as a rational number",
        );
        refused("-m abc x", "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'");
        refused(
            "--health-interval 5 x",
            "invalid argument \"5\" for \"--health-interval\" flag: time: missing unit in duration \"5\"",
        );
        assert_eq!(run("--help").unwrap_err(), Refusal::Help);
    }

    #[test]
    fn arguments_are_counted_in_docker_s_words() {
        assert_eq!(miscounted(Count::Exactly(1), 0).as_deref(), Some("requires 1 argument"));
        assert_eq!(miscounted(Count::AtLeast(2), 1).as_deref(), Some("requires at least 2 arguments"));
        assert_eq!(miscounted(Count::AtMost(1), 2).as_deref(), Some("requires at most 1 argument"));
        assert_eq!(miscounted(Count::Between(1, 2), 3).as_deref(), Some("requires at least 1 and at most 2 arguments"));
        assert_eq!(miscounted(Count::None, 1).as_deref(), Some("accepts no arguments"));
        assert_eq!(miscounted(Count::Any, 9), None);
    }

    #[test]
    fn no_two_commands_share_their_words() {
        let all: Vec<_> = words::commands().flat_map(|c| c.also.iter().copied().chain([c.path])).collect();
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), unique.len());
    }
}
