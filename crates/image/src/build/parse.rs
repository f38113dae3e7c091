//! A Dockerfile as values: stages of instructions.
//!
//! `lines` puts together what one instruction is, `instruction` reads it, and `blame` says where one is wrong. A
//! [`Command`] holds the arguments as they stand there, since variables are put in only when a stage is built.

use super::blame::ParseError;
use super::instruction::instruction;
use super::lines::{Reader, escape_directive};
use super::mounts::Mount;
use model::image::Healthcheck;

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

/// Reads a whole Dockerfile.
pub(crate) fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let text = text.trim_start_matches('\u{feff}');
    let lines: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&lines)?;
    let mut reader = Reader::new(&lines, escape);
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
    let mut reader = Reader::new(&lines, '\\');
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
