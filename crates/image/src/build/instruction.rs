//! One instruction: its keyword, its flags and its arguments, as they stand there.

use super::blame::ParseError;
use super::lines::{Logical, Reader, heredoc_name};
use super::parse::{Command, CommandLine, Copy, Heredoc, Instruction, RunFlags};
use super::{mounts, words};
use model::image::Healthcheck;

/// Reads an instruction, and the heredocs that belong to it.
pub(super) fn instruction(
    logical: &Logical<'_>,
    escape: char,
    reader: &mut Reader<'_>,
) -> Result<Instruction, ParseError> {
    let text = logical.text.as_str();
    let end = logical.keyword_end();
    let keyword = text[..end].to_ascii_uppercase();
    if !KEYWORDS.contains(&keyword.as_str()) {
        let mut message = format!("unknown instruction: {}", &text[..end]);
        if let Some(meant) = similar(&keyword) {
            message.push_str(&format!(" (did you mean {meant}?)"));
        }
        return Err(logical.error(0..end, message));
    }
    let mut at = end + (text[end..].len() - text[end..].trim_start().len());
    let mut flags = Vec::new();
    if matches!(keyword.as_str(), "ADD" | "COPY" | "FROM" | "HEALTHCHECK" | "RUN") {
        while text[at..].starts_with("--") {
            let length = text[at..].find(char::is_whitespace).unwrap_or(text.len() - at);
            let word = &text[at + 2..at + length];
            if word.is_empty() {
                break; // `--` ends them
            }
            let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
            flags.push(Flag { name, value, range: at..at + length });
            at += length;
            at += text[at..].len() - text[at..].trim_start().len();
        }
    }
    let mut parser = Arguments { logical, escape, keyword: &keyword, at, rest: &text[at..], flags };
    let command = parser.command(reader)?;
    if let Some(flag) = parser.flags.first() {
        let name = flag.name;
        return Err(logical.error(flag.range.clone(), format!("unknown flag: --{name}")));
    }
    Ok(Instruction { text: text.to_owned(), line: logical.first_line() + 1, command })
}

struct Arguments<'a> {
    logical: &'a Logical<'a>,
    escape: char,
    keyword: &'a str,
    /// Where `rest` begins.
    at: usize,
    rest: &'a str,
    flags: Vec<Flag<'a>>,
}

impl<'a> Arguments<'a> {
    fn command(&mut self, reader: &mut Reader<'_>) -> Result<Command, ParseError> {
        let keyword = self.keyword;
        if self.rest.is_empty() && !matches!(keyword, "CMD" | "ENTRYPOINT" | "SHELL" | "RUN") {
            return Err(match keyword {
                "ENV" | "LABEL" | "ARG" | "EXPOSE" => self.wrong(format!("{keyword} requires at least one argument")),
                "ADD" | "COPY" => {
                    self.wrong(format!("{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"))
                }
                "FROM" => self.wrong("FROM requires either one or three arguments".into()),
                "VOLUME" | "HEALTHCHECK" | "ONBUILD" => {
                    self.wrong(format!("{keyword} requires at least one argument"))
                }
                _ => self.wrong(format!("{keyword} requires exactly one argument")),
            });
        }
        Ok(match keyword {
            "FROM" => self.from()?,
            "ARG" => Command::Arg(self.words().map(|w| self.arg(w)).collect::<Result<_, _>>()?),
            "ENV" => Command::Env(self.pairs()?),
            "LABEL" => Command::Label(self.pairs()?),
            "RUN" => {
                let network = self.flag("network")?.map(str::to_owned);
                let mounts = mounts::read_all(self.flags_named("mount")?, |range, why| self.logical.error(range, why))?;
                let flags = RunFlags { network, mounts };
                if let Some(mount) = self.flags.iter().find(|f| matches!(f.name, "security" | "device")) {
                    let message = format!("the --{} option requires BuildKit", mount.name);
                    return Err(self.logical.error(mount.range.clone(), message));
                }
                let heredocs = self.heredocs(self.rest, reader)?;
                Command::Run { line: self.command_line()?, flags, heredocs }
            }
            "COPY" | "ADD" => self.copy(reader)?,
            "WORKDIR" => Command::Workdir(self.rest.to_owned()),
            "USER" => Command::User(self.rest.to_owned()),
            "EXPOSE" => Command::Expose(self.words().map(|(_, w)| w.to_owned()).collect()),
            "VOLUME" => {
                let volumes = json_words(self.rest).unwrap_or_else(|| words::split(self.rest, self.escape));
                if volumes.is_empty() {
                    return Err(self.wrong("VOLUME requires at least one argument".into()));
                }
                if volumes.iter().any(String::is_empty) {
                    return Err(self.wrong("VOLUME specified can not be an empty string".into()));
                }
                Command::Volume(volumes)
            }
            "CMD" => Command::Cmd(self.command_line()?),
            "ENTRYPOINT" => Command::Entrypoint(self.command_line()?),
            "SHELL" => match json_words(self.rest) {
                Some(shell) if !shell.is_empty() => Command::Shell(shell),
                Some(_) => return Err(self.wrong("SHELL requires at least one argument".into())),
                None => return Err(self.wrong("SHELL requires the arguments to be in JSON form".into())),
            },
            "STOPSIGNAL" => Command::StopSignal(self.rest.to_owned()),
            "HEALTHCHECK" => Command::Healthcheck(self.healthcheck()?),
            "ONBUILD" => self.onbuild(reader)?,
            _ => Command::Maintainer(self.rest.to_owned()),
        })
    }

    /// An error about all of the arguments.
    fn wrong(&self, message: String) -> ParseError {
        if self.rest.is_empty() {
            return self.logical.error(0..self.logical.keyword_end(), message);
        }
        self.logical.error(self.at..self.at + self.rest.len(), message)
    }

    fn at_word(&self, word: (usize, &str), message: impl Into<String>) -> ParseError {
        self.logical.error(self.at + word.0..self.at + word.0 + word.1.len(), message)
    }

    fn words(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        words::split_spans(self.rest, self.escape).into_iter()
    }

    /// The value of a flag that may be given once.
    fn flag(&mut self, name: &str) -> Result<Option<&'a str>, ParseError> {
        let mut values = self.flags_named(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop().map(|(_, value)| value)),
            _ => Err(self.logical.error(values[1].0.clone(), format!("duplicate flag specified: {name}"))),
        }
    }

    fn flags_named(&mut self, name: &str) -> Result<Vec<(std::ops::Range<usize>, &'a str)>, ParseError> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        for flag in std::mem::take(&mut self.flags) {
            if flag.name != name {
                rest.push(flag);
                continue;
            }
            match flag.value {
                Some(value) => values.push((flag.range, value)),
                None => return Err(self.logical.error(flag.range, format!("missing a value on flag: {name}"))),
            }
        }
        self.flags = rest;
        Ok(values)
    }

    fn from(&mut self) -> Result<Command, ParseError> {
        let platform = self.flag("platform")?.map(str::to_owned);
        let words: Vec<_> = self.words().collect();
        let name = match words.as_slice() {
            [_] => None,
            [_, r#as, name] if r#as.1.eq_ignore_ascii_case("as") => {
                let lower = name.1.to_ascii_lowercase();
                let fits = lower.starts_with(|c: char| c.is_ascii_lowercase())
                    && lower.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
                if !fits {
                    let message = format!(
                        "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
                        name.1
                    );
                    return Err(self.at_word(*name, message));
                }
                Some(lower)
            }
            _ => return Err(self.wrong("FROM requires either one or three arguments".into())),
        };
        Ok(Command::From { image: words[0].1.to_owned(), platform, name })
    }

    fn arg(&self, word: (usize, &str)) -> Result<(String, Option<String>), ParseError> {
        let (name, value) = word.1.split_once('=').map_or((word.1, None), |(n, v)| (n, Some(v.to_owned())));
        if name.is_empty() {
            return Err(self.at_word(word, "ARG names can not be blank"));
        }
        Ok((name.to_owned(), value))
    }

    /// `key=value key=value`, or the old `key value with spaces`.
    fn pairs(&self) -> Result<Vec<(String, String)>, ParseError> {
        let words: Vec<_> = self.words().collect();
        let Some(first) = words.first() else {
            return Err(self.wrong(format!("{} requires at least one argument", self.keyword)));
        };
        if !first.1.contains('=') {
            let rest = self.rest[first.0 + first.1.len()..].trim_start();
            if rest.is_empty() {
                return Err(self.at_word(*first, format!("{} must have two arguments", self.keyword)));
            }
            return Ok(vec![(first.1.to_owned(), rest.to_owned())]);
        }
        words
            .into_iter()
            .map(|word| match word.1.split_once('=') {
                Some(("", _)) => Err(self.at_word(word, format!("{} names can not be blank", self.keyword))),
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(self.at_word(
                    word,
                    format!("Syntax error - can't find = in {:?}. Must be of the form: name=value", word.1),
                )),
            })
            .collect()
    }

    fn command_line(&self) -> Result<CommandLine, ParseError> {
        Ok(match json_words(self.rest) {
            Some(words) => CommandLine::Exec(words),
            None => CommandLine::Shell(self.rest.to_owned()),
        })
    }

    fn copy(&mut self, reader: &mut Reader<'_>) -> Result<Command, ParseError> {
        let add = self.keyword == "ADD";
        let mut copy = Copy { add, ..Copy::default() };
        copy.chown = self.flag("chown")?.map(str::to_owned);
        copy.chmod = self.flag("chmod")?.map(str::to_owned);
        if !add {
            copy.from = self.flag("from")?.map(str::to_owned);
        }
        if add {
            copy.checksum = self.flag("checksum")?.map(str::to_owned);
        } else {
            copy.parents = self.flags.iter().any(|f| f.name == "parents" && matches!(f.value, None | Some("true")));
            self.flags.retain(|f| !(f.name == "parents" && matches!(f.value, None | Some("true" | "false"))));
        }
        copy.exclude = self.flags_named("exclude")?.into_iter().map(|(_, value)| value.to_owned()).collect();
        // `--link` changes how a layer is stored, not what is in it
        self.flags.retain(|f| !(f.name == "link" && matches!(f.value, None | Some("true" | "false"))));
        if let Some(flag) = self.flags.iter().find(|f| f.name == "keep-git-dir") {
            let message = format!("the --{} option requires BuildKit", flag.name);
            return Err(self.logical.error(flag.range.clone(), message));
        }
        let mut words = json_words(self.rest).unwrap_or_else(|| words::split(self.rest, self.escape));
        if words.len() < 2 {
            let message = format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.keyword
            );
            return Err(self.wrong(message));
        }
        copy.destination = words.pop().unwrap_or_default();
        copy.heredocs = self.heredocs(self.rest, reader)?;
        words.retain(|w| heredoc_name(w).is_none());
        copy.sources = words;
        Ok(Command::Copy(copy))
    }

    /// The heredocs that words like `<<EOF` open; their lines come next in the file.
    fn heredocs(&self, text: &str, reader: &mut Reader<'_>) -> Result<Vec<Heredoc>, ParseError> {
        let mut heredocs = Vec::new();
        for (at, word) in words::split_spans(text, self.escape) {
            // `2<<EOF` and `x;<<EOF` too: the shell finds them anywhere
            let Some(position) = word.find("<<") else { continue };
            let Some(opening) = heredoc_name(&word[position..]) else { continue };
            let Some(content) = reader.heredoc(&opening.name, opening.strip_tabs) else {
                let message = format!("unterminated heredoc: {:?} never comes", opening.name);
                return Err(self.at_word((at, word), message));
            };
            heredocs.push(Heredoc { name: opening.name, content, expand: opening.expand });
        }
        Ok(heredocs)
    }

    fn healthcheck(&mut self) -> Result<Healthcheck, ParseError> {
        let mut check = Healthcheck::default();
        let duration = |arguments: &mut Self, name: &str| -> Result<i64, ParseError> {
            let range = arguments.flags.iter().find(|f| f.name == name).map(|f| f.range.clone());
            let Some(value) = arguments.flag(name)? else { return Ok(0) };
            let wrong = |message: String| arguments.logical.error(range.clone().unwrap_or(0..0), message);
            match model::duration::parse(value) {
                Ok(0) => Ok(0),
                Ok(nanoseconds) if nanoseconds < 1_000_000 => {
                    Err(wrong(format!("Interval \"{name}\" cannot be less than 1ms")))
                }
                Ok(nanoseconds) => Ok(nanoseconds),
                Err(why) => Err(wrong(why)),
            }
        };
        check.interval = duration(self, "interval")?;
        check.timeout = duration(self, "timeout")?;
        check.start_period = duration(self, "start-period")?;
        check.start_interval = duration(self, "start-interval")?;
        let range = self.flags.iter().find(|f| f.name == "retries").map_or(0..0, |f| f.range.clone());
        if let Some(retries) = self.flag("retries")? {
            check.retries = match retries.parse::<i64>() {
                Ok(n) if n >= 0 => n,
                Ok(_) => return Err(self.logical.error(range, format!("--retries cannot be negative ({retries})"))),
                Err(_) => {
                    return Err(self.logical.error(range, format!("--retries must be a number, not {retries:?}")));
                }
            };
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (kind, command) = (&self.rest[..end], self.rest[end..].trim_start());
        check.test = Some(match kind.to_ascii_uppercase().as_str() {
            "NONE" if command.is_empty() => vec!["NONE".to_owned()],
            "NONE" => return Err(self.wrong("HEALTHCHECK NONE takes no arguments".into())),
            "CMD" if command.is_empty() => return Err(self.wrong("Missing command after HEALTHCHECK CMD".into())),
            "CMD" => match json_words(command) {
                Some(words) => [vec!["CMD".to_owned()], words].concat(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            },
            _ => {
                let message = format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)");
                return Err(self.at_word((0, kind), message));
            }
        });
        Ok(check)
    }

    fn onbuild(&mut self, reader: &mut Reader<'_>) -> Result<Command, ParseError> {
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let trigger = &self.rest[..end];
        match trigger.to_ascii_uppercase().as_str() {
            "ONBUILD" => {
                return Err(self.at_word((0, trigger), "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
            }
            keyword @ ("MAINTAINER" | "FROM") => {
                return Err(self.at_word((0, trigger), format!("{keyword} isn't allowed as an ONBUILD trigger")));
            }
            _ => {}
        }
        // parsed when it fires; here it only has to be right
        let inner = self.logical.after(self.at);
        let parsed = instruction(&inner, self.escape, reader)?;
        let mut text = self.rest.to_owned();
        if let Command::Run { heredocs, .. } | Command::Copy(Copy { heredocs, .. }) = &parsed.command {
            for heredoc in heredocs {
                text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
        }
        Ok(Command::Onbuild(text))
    }
}

/// A flag before an instruction's arguments: `--from=x`.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
    range: std::ops::Range<usize>,
}

/// Instructions, as `unknown instruction` looks for what may have been meant.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The keyword that a wrong one is nearest to, if it is near.
fn similar(word: &str) -> Option<&'static str> {
    let distance = |other: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
                diagonal = above;
            }
        }
        row[b.len()]
    };
    if word.len() > 16 {
        return None;
    }
    KEYWORDS.into_iter().map(|k| (distance(k), k)).min().filter(|(d, k)| *d <= 2 && *d < k.len()).map(|(_, k)| k)
}

/// A JSON list of texts, or None if it is something else: then it is a command for the shell.
fn json_words(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}
