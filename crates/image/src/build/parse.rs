//! A Dockerfile as values. A wrong line is shown with its number and a mark under the place.
//!
//! A file is lines, some of them continued; each makes an [`Instruction`]: its [`Command`] holds the arguments as they
//! stand there, since variables are put in only when a stage is built. Continued lines become one text, and each of its
//! characters knows where it came from.

use super::mounts::{self, Mount};
use super::words;
use model::image::Healthcheck;
use std::fmt;

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct Dockerfile {
    pub(crate) escape: char,
    /// `ARG`s before the first `FROM`.
    pub(crate) global: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) from: Instruction,
    pub(crate) image: String,
    pub(crate) platform: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    /// As `Step` shows it.
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) command: Command,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    From { image: String, platform: Option<String>, name: Option<String> },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run { line: CommandLine, flags: RunFlags, heredocs: Vec<Heredoc> },
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Shell(Vec<String>),
    StopSignal(String),
    Healthcheck(Healthcheck),
    Onbuild(String),
    Maintainer(String),
}

impl Command {
    /// The stages, or images, that it takes files from.
    pub(crate) fn stages_named(&self) -> impl Iterator<Item = &str> {
        let (copied, mounts) = match self {
            Command::Copy(copy) => (copy.from.as_deref(), &[][..]),
            Command::Run { flags, .. } => (None, flags.mounts.as_slice()),
            _ => (None, &[][..]),
        };
        copied.into_iter().chain(mounts.iter().filter_map(Mount::from))
    }
}

/// What `RUN` may be told before its command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RunFlags {
    pub(crate) network: Option<String>,
    pub(crate) mounts: Vec<Mount>,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Copy {
    pub(crate) add: bool,
    pub(crate) sources: Vec<String>,
    pub(crate) destination: String,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    /// Of what `ADD` fetches: `sha256:…`.
    pub(crate) checksum: Option<String>,
    /// Sources keep the directories that they lie in.
    pub(crate) parents: bool,
    /// `--exclude`: patterns of what stays behind.
    pub(crate) exclude: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandLine {
    /// A text for the shell.
    Shell(String),
    /// `["program", "argument"]`
    Exec(Vec<String>),
}

/// `<<EOF` and the lines up to `EOF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    pub(crate) content: String,
    /// The name was not quoted: variables are put in.
    pub(crate) expand: bool,
}

/// A line that is no instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub line: usize,
    /// The line as it stands in the file.
    pub text: String,
    /// Where in it, in characters from 0, and over how many.
    pub column: usize,
    pub length: usize,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, text, column, length, message } = self;
        write!(f, "dockerfile parse error on line {line}: {message}")?;
        if text.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", marked(*line, text, *column, *length))
    }
}

/// A line with its number, and marks below what is meant in it.
pub(crate) fn marked(line: usize, text: &str, column: usize, length: usize) -> String {
    let number = line.to_string();
    // tabs stay tabs, so that the mark stands where it should
    let indent: String = text.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let marks = "^".repeat(length.max(1));
    format!(" {number} | {text}\n {:width$} | {indent}{marks}", "", width = number.len())
}

/// Which part of an instruction a message is about, in characters: the first argument that it names, or else all of
/// them.
pub(crate) fn blamed(text: &str, message: &str) -> (usize, usize) {
    let characters = |part: &str| part.chars().count();
    let keyword = text.find(char::is_whitespace).unwrap_or(0);
    let mut rest = keyword;
    while let Some(start) = text[rest..].find(|c: char| !c.is_whitespace()).map(|at| rest + at) {
        let end = text[start..].find(char::is_whitespace).map_or(text.len(), |at| start + at);
        let word = &text[start..end];
        let value = word.split_once('=').map_or(word, |(_, value)| value).trim_matches(['"', '\'']);
        if !value.is_empty() && message.contains(value) {
            return (characters(&text[..start]), characters(word));
        }
        rest = end;
    }
    let first = keyword + (text[keyword..].len() - text[keyword..].trim_start().len());
    (characters(&text[..first]), characters(text[first..].trim_end()))
}
impl std::error::Error for ParseError {}

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

/// Reads a whole Dockerfile.
pub(crate) fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let text = text.trim_start_matches('\u{feff}');
    let lines: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&lines)?;
    let mut reader = Reader { lines: &lines, next: 0, escape };
    let mut global = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    while let Some(logical) = reader.logical_line() {
        let instruction = instruction(&logical, escape, &mut reader)?;
        match &instruction.command {
            Command::From { image, platform, name } => {
                let (image, platform, name) = (image.clone(), platform.clone(), name.clone());
                stages.push(Stage { from: instruction, image, platform, name, instructions: Vec::new() });
            }
            _ => match stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.command, Command::Arg(_)) => global.push(instruction),
                None => {
                    return Err(logical.error(0..logical.keyword_end(), "no build stage in current context"));
                }
            },
        }
    }
    if stages.is_empty() {
        let message = if global.is_empty() { "file with no instructions" } else { "no build stage in current context" };
        let (line, text) = (lines.len().max(1), lines.last().copied().unwrap_or_default());
        return Err(ParseError {
            line,
            text: text.to_owned(),
            column: 0,
            length: text.chars().count(),
            message: message.into(),
        });
    }
    Ok(Dockerfile { escape, global, stages })
}

/// Reads a single instruction: what `ONBUILD` keeps, or `--change` says.
pub(crate) fn parse_one(text: &str) -> Result<Instruction, ParseError> {
    let lines: Vec<&str> = text.lines().collect();
    let mut reader = Reader { lines: &lines, next: 0, escape: '\\' };
    match reader.logical_line() {
        Some(logical) => instruction(&logical, '\\', &mut reader),
        None => Err(ParseError {
            line: 1,
            text: text.to_owned(),
            column: 0,
            length: 1,
            message: "file with no instructions".into(),
        }),
    }
}

/// `# escape=` in one of the first lines, among other directives.
fn escape_directive(lines: &[&str]) -> Result<char, ParseError> {
    let mut seen = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|l| l.split_once('=')) else { break };
        let key = key.trim().to_ascii_lowercase();
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        let error = |message: String| {
            let length = line.chars().count();
            ParseError { line: number + 1, text: (*line).to_owned(), column: 0, length, message }
        };
        if seen.iter().any(|(k, _)| *k == key) {
            return Err(error(format!("only one {key} parser directive can be used")));
        }
        let value = value.trim().to_owned();
        if key == "escape" && !matches!(value.as_str(), "\\" | "`") {
            return Err(error(format!("invalid escape token '{value}' does not match ` or \\")));
        }
        seen.push((key, value));
    }
    let escape = seen.into_iter().find(|(k, _)| k == "escape").and_then(|(_, v)| v.chars().next());
    Ok(escape.unwrap_or('\\'))
}

struct Reader<'a> {
    lines: &'a [&'a str],
    next: usize,
    escape: char,
}

/// An instruction's text, its continued lines joined, and where its parts come from.
struct Logical<'a> {
    lines: &'a [&'a str],
    text: String,
    /// From which byte of `text` on it is which line (from 0), and which byte of that line.
    origins: Vec<(usize, usize, usize)>,
}

impl Logical<'_> {
    fn keyword_end(&self) -> usize {
        self.text.find(char::is_whitespace).unwrap_or(self.text.len())
    }

    fn first_line(&self) -> usize {
        self.origins.first().map_or(0, |o| o.1)
    }

    /// An error about a range of bytes of `text`.
    fn error(&self, range: std::ops::Range<usize>, message: impl Into<String>) -> ParseError {
        let &(start, line, column) = self.origins.iter().rev().find(|o| o.0 <= range.start).unwrap_or(&(0, 0, 0));
        let text = self.lines.get(line).copied().unwrap_or_default();
        let byte = (column + range.start.saturating_sub(start)).min(text.len());
        let end = (byte + range.len()).min(text.len());
        let count = |range: std::ops::Range<usize>| text.get(range).map_or(0, |t| t.chars().count());
        ParseError {
            line: line + 1,
            text: text.to_owned(),
            column: count(0..byte),
            length: count(byte..end),
            message: message.into(),
        }
    }
}

impl<'a> Reader<'a> {
    fn logical_line(&mut self) -> Option<Logical<'a>> {
        let mut logical = Logical { lines: self.lines, text: String::new(), origins: Vec::new() };
        while let Some(line) = self.lines.get(self.next) {
            let number = self.next;
            self.next += 1;
            let started = !logical.origins.is_empty();
            let trimmed = line.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                // between instructions and inside of them alike
                continue;
            }
            // only the first line loses its indentation: those after it may be inside of quotes
            let (from, content) = if started { (0, *line) } else { (line.len() - trimmed.len(), trimmed) };
            let continued = continuation(content, self.escape);
            logical.origins.push((logical.text.len(), number, from));
            logical.text.push_str(continued.unwrap_or(content));
            if continued.is_none() {
                break;
            }
        }
        let length = logical.text.trim_end().len();
        logical.text.truncate(length);
        (!logical.text.is_empty()).then_some(logical)
    }

    /// The lines of a heredoc, up to its name.
    fn heredoc(&mut self, name: &str, strip_tabs: bool) -> Option<String> {
        let mut content = String::new();
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            let line = if strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == name {
                return Some(content);
            }
            content.push_str(line);
            content.push('\n');
        }
        None
    }
}

/// A line without the escape character that ends it, if one does.
fn continuation(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t', '\r']).strip_suffix(escape)?;
    // an escaped escape character is none
    (!rest.ends_with(escape)).then_some(rest)
}

/// A flag before an instruction's arguments: `--from=x`.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
    range: std::ops::Range<usize>,
}

fn instruction(logical: &Logical<'_>, escape: char, reader: &mut Reader<'_>) -> Result<Instruction, ParseError> {
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
        let inner = Logical {
            lines: self.logical.lines,
            text: self.rest.to_owned(),
            origins: self
                .logical
                .origins
                .iter()
                .enumerate()
                .filter_map(|(i, &(start, line, column))| {
                    let end = self.logical.origins.get(i + 1).map_or(usize::MAX, |o| o.0);
                    (end > self.at).then(|| {
                        let skipped = self.at.saturating_sub(start);
                        (start.saturating_sub(self.at), line, column + skipped)
                    })
                })
                .collect(),
        };
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

struct Opening {
    name: String,
    expand: bool,
    strip_tabs: bool,
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`.
fn heredoc_name(word: &str) -> Option<Opening> {
    let rest = word.strip_prefix("<<")?;
    let (rest, strip_tabs) = rest.strip_prefix('-').map_or((rest, false), |r| (r, true));
    let (name, expand) = match rest.chars().next()? {
        quote @ ('"' | '\'') => (rest[1..].strip_suffix(quote)?, false),
        _ => (rest, true),
    };
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    fits.then(|| Opening { name: name.to_owned(), expand, strip_tabs })
}

/// A JSON list of texts, or None if it is something else: then it is a command for the shell.
fn json_words(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Command> {
        let parsed = parse(text).unwrap_or_else(|e| panic!("{e}"));
        parsed.stages.into_iter().flat_map(|s| s.instructions).map(|i| i.command).collect()
    }

    fn one(text: &str) -> Command {
        parse_one(text).unwrap_or_else(|e| panic!("{e}")).command
    }

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn what_a_message_names_is_blamed() {
        let check = |text: &str, message: &str, blamed_text: &str| {
            let (column, length) = blamed(text, message);
            let part: String = text.chars().skip(column).take(length).collect();
            assert_eq!(part, blamed_text, "{text}");
        };
        check("EXPOSE 80 abc", "invalid containerPort: abc", "abc");
        check("COPY --chmod=999 a /", "invalid chmod parameter: 999", "--chmod=999");
        check("RUN false", "The command '/bin/sh -c false' returned a non-zero code: 1", "false");
        check("COPY  a  b ", "something else", "a  b");
    }

    #[test]
    fn instructions_are_read_in_all_their_forms() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        for (text, expected) in [
            (
                "RUN echo  hi",
                Command::Run {
                    line: CommandLine::Shell("echo  hi".into()),
                    flags: RunFlags::default(),
                    heredocs: vec![],
                },
            ),
            ("cmd [\"a\", \"b c\"]", Command::Cmd(CommandLine::Exec(texts(&["a", "b c"])))),
            ("CMD [not json]", Command::Cmd(CommandLine::Shell("[not json]".into()))),
            ("ENTRYPOINT []", Command::Entrypoint(CommandLine::Exec(vec![]))),
            ("ENV a=b c=\"d e\" f=g\\ h", Command::Env(vec![pair("a", "b"), pair("c", "\"d e\""), pair("f", "g\\ h")])),
            ("ENV key value with  spaces", Command::Env(vec![pair("key", "value with  spaces")])),
            ("LABEL a.b=c", Command::Label(vec![pair("a.b", "c")])),
            ("ARG x", Command::Arg(vec![("x".into(), None)])),
            ("ARG x=1 y", Command::Arg(vec![("x".into(), Some("1".into())), ("y".into(), None)])),
            ("EXPOSE 80 53/udp", Command::Expose(texts(&["80", "53/udp"]))),
            ("VOLUME /a /b", Command::Volume(texts(&["/a", "/b"]))),
            ("VOLUME [\"/a b\"]", Command::Volume(texts(&["/a b"]))),
            ("SHELL [\"/bin/bash\", \"-c\"]", Command::Shell(texts(&["/bin/bash", "-c"]))),
            ("ONBUILD RUN x", Command::Onbuild("RUN x".into())),
            ("MAINTAINER me <me@x>", Command::Maintainer("me <me@x>".into())),
            (
                "RUN --network=none x",
                Command::Run {
                    line: CommandLine::Shell("x".into()),
                    flags: RunFlags { network: Some("none".into()), mounts: vec![] },
                    heredocs: vec![],
                },
            ),
        ] {
            assert_eq!(one(text), expected, "{text}");
        }
        let Command::Copy(copy) = one("COPY --from=0 --chown=1:2 --chmod=755 a \"b c\" /d/") else { panic!() };
        assert_eq!(copy.sources, ["a", "\"b c\""]);
        assert_eq!((copy.destination.as_str(), copy.from.as_deref(), copy.add), ("/d/", Some("0"), false));
        assert_eq!((copy.chown.as_deref(), copy.chmod.as_deref()), (Some("1:2"), Some("755")));
        let Command::Copy(add) = one("ADD [\"a b\", \"/c\"]") else { panic!() };
        assert!(add.add && add.sources == ["a b"] && add.destination == "/c");
    }

    #[test]
    fn healthchecks_have_all_their_options() {
        let Command::Healthcheck(check) = one(
            "HEALTHCHECK --interval=5m --timeout=3s --start-period=1m30s --start-interval=500ms --retries=3 CMD curl -f x",
        ) else {
            panic!()
        };
        assert_eq!(check.test.unwrap(), ["CMD-SHELL", "curl -f x"]);
        let second = 1_000_000_000;
        assert_eq!((check.interval, check.timeout), (300 * second, 3 * second));
        assert_eq!((check.start_period, check.start_interval, check.retries), (90 * second, second / 2, 3));
        let Command::Healthcheck(none) = one("HEALTHCHECK NONE") else { panic!() };
        assert_eq!(none.test.unwrap(), ["NONE"]);
        let Command::Healthcheck(exec) = one("HEALTHCHECK CMD [\"a\"]") else { panic!() };
        assert_eq!(exec.test.unwrap(), ["CMD", "a"]);
    }

    #[test]
    fn lines_continue_over_comments_and_blank_lines() {
        let shell = |text: &str| {
            let line = CommandLine::Shell(text.into());
            Command::Run { line, flags: RunFlags::default(), heredocs: vec![] }
        };
        assert_eq!(commands("FROM x\nRUN a \\\n  # no\n\n  b \\  \n c\nRUN d"), [shell("a   b  c"), shell("d")]);
        assert_eq!(commands("# escape=`\nFROM x\nRUN a `\nb\\\nRUN c"), [shell("a b\\"), shell("c")]);
        assert_eq!(commands("\u{feff}# syntax=docker/dockerfile:1\n#escape = \\\nFROM x\r\nRUN a\r\n"), [shell("a")]);
        assert_eq!(commands("FROM x\nRUN a \\\\\nRUN b"), [shell("a \\\\"), shell("b")]);
    }

    #[test]
    fn heredocs_belong_to_their_instruction() {
        let parsed =
            commands("FROM x\nRUN <<EOF\necho a\n  echo $b\nEOF\nCOPY <<-'E' <<F /d/\n\tx $y\n\tE\n$z\nF\nRUN c");
        let Command::Run { heredocs, .. } = &parsed[0] else { panic!() };
        assert_eq!(heredocs[0], Heredoc { name: "EOF".into(), content: "echo a\n  echo $b\n".into(), expand: true });
        let Command::Copy(copy) = &parsed[1] else { panic!() };
        assert_eq!(copy.sources, Vec::<String>::new());
        assert_eq!(copy.heredocs[0], Heredoc { name: "E".into(), content: "x $y\n".into(), expand: false });
        assert_eq!(copy.heredocs[1], Heredoc { name: "F".into(), content: "$z\n".into(), expand: true });
        assert_eq!(parsed.len(), 3);
    }

    #[test]
    fn stages_have_names_and_arguments_before_them() {
        let parsed =
            parse("ARG v=1\nFROM --platform=$BUILDPLATFORM x:$v AS Build\nRUN a\nFROM scratch\nCOPY --from=build /a /")
                .unwrap();
        assert_eq!(parsed.global.len(), 1);
        assert_eq!(parsed.stages[0].image, "x:$v");
        assert_eq!(parsed.stages[0].name.as_deref(), Some("build"));
        assert_eq!(parsed.stages[0].platform.as_deref(), Some("$BUILDPLATFORM"));
        assert_eq!(parsed.stages[1].instructions[0].line, 5);
    }

    #[test]
    fn a_wrong_line_is_shown_with_its_place() {
        for (text, expected) in [
            (
                "FROM x\nRUNN echo",
                "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)\n 2 | RUNN echo\n   | ^^^^",
            ),
            (
                "FROM x\n  frobnicate",
                "dockerfile parse error on line 2: unknown instruction: frobnicate\n 2 |   frobnicate\n   |   ^^^^^^^^^^",
            ),
            (
                "FROM x\nENV a=b \\\n  c",
                "dockerfile parse error on line 3: Syntax error - can't find = in \"c\". Must be of the form: name=value\n 3 |   c\n   |   ^",
            ),
            (
                "FROM x\nCOPY --form=y a b",
                "dockerfile parse error on line 2: unknown flag: --form\n 2 | COPY --form=y a b\n   |      ^^^^^^^^",
            ),
            (
                "FROM a b",
                "dockerfile parse error on line 1: FROM requires either one or three arguments\n 1 | FROM a b\n   |      ^^^",
            ),
            (
                "FROM x\nCOPY a",
                "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined\n 2 | COPY a\n   |      ^",
            ),
            ("RUN a", "dockerfile parse error on line 1: no build stage in current context\n 1 | RUN a\n   | ^^^"),
            ("", "dockerfile parse error on line 1: file with no instructions"),
            (
                "FROM x\nSHELL bash -c",
                "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form\n 2 | SHELL bash -c\n   |       ^^^^^^^",
            ),
            (
                "FROM x\nONBUILD ONBUILD RUN a",
                "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed\n 2 | ONBUILD ONBUILD RUN a\n   |         ^^^^^^^",
            ),
            (
                "FROM x\nONBUILD  BAD a",
                "dockerfile parse error on line 2: unknown instruction: BAD (did you mean ADD?)\n 2 | ONBUILD  BAD a\n   |          ^^^",
            ),
            (
                "FROM x\nHEALTHCHECK --interval=soon CMD a",
                "dockerfile parse error on line 2: time: invalid duration \"soon\"\n 2 | HEALTHCHECK --interval=soon CMD a\n   |             ^^^^^^^^^^^^^^^",
            ),
            (
                "FROM x\nRUN <<EOF\na",
                "dockerfile parse error on line 2: unterminated heredoc: \"EOF\" never comes\n 2 | RUN <<EOF\n   |     ^^^^^",
            ),
            (
                "# escape=x\nFROM a",
                "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\\n 1 | # escape=x\n   | ^^^^^^^^^^",
            ),
            (
                "FROM x\nRUN --mount=type=cache a",
                "dockerfile parse error on line 2: invalid mount: target is required\n 2 | RUN --mount=type=cache a\n   |     ^^^^^^^^^^^^^^^^^^",
            ),
            (
                "FROM x\nRUN --security=insecure a",
                "dockerfile parse error on line 2: the --security option requires BuildKit\n 2 | RUN --security=insecure a\n   |     ^^^^^^^^^^^^^^^^^^^",
            ),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err().to_string();
            assert_eq!(error, expected, "{text:?}");
        }
    }
}
