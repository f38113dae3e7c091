//! What commands do, one file an object; found by the proper path of a command in [`crate::client::grammar::words`].

pub mod build;
pub mod complete;
pub mod completion;
pub mod container;
pub mod context;
pub mod cp;
pub mod image;
pub mod inspect;
pub mod list;
pub mod network;
pub mod registry;
pub mod run;
pub mod stats;
pub mod system;
pub mod volume;

use crate::client::connection::Client;
use crate::client::grammar::{self, Check, Command, Flag, Found, Parsed, Refusal, help, words};
use crate::client::host;
use crate::client::output::{Exit, print, warn};
use crate::client::terminal;
use serde_json::Value;
use std::fmt::Display;
use std::rc::Rc;

/// What every command has.
#[derive(Clone)]
pub struct App {
    /// What this program was called as: `isle`, or `docker`.
    pub program: Rc<str>,
    /// The words used for the command: `run`, or `container run`.
    pub used: Rc<str>,
    pub client: Rc<Client>,
}

impl App {
    /// An error of a command that is run a thousand times a day: with where to read on, as Docker has it.
    pub fn with_help(&self, code: u8, error: &anyhow::Error) -> anyhow::Error {
        // A failure that has its own words and status keeps them.
        if error.downcast_ref::<Exit>().is_some_and(|e| e.message.is_empty()) {
            return Exit::new(code, "").into();
        }
        let (program, used) = (&self.program, &self.used);
        Exit::new(code, format_args!("{program}: {error:#}\n\nRun '{program} {used} --help' for more information"))
            .into()
    }
}

/// Runs a command line.
///
/// # Errors
/// The command failed.
pub async fn dispatch(program: &str, arguments: &[String]) -> anyhow::Result<u8> {
    if let Some((_, line)) = arguments.split_first().filter(|(first, _)| *first == "__complete") {
        return complete::complete(program, line).await;
    }
    let width = terminal::width();
    let globals = match grammar::parse(words::GLOBAL, arguments, true, |_, _| Ok(())) {
        Ok(globals) => globals,
        Err(Refusal::Help) => return help_and(0, help::all(program, width)),
        Err(Refusal::Flag(why)) => return Err(misused(program, "", "[OPTIONS] COMMAND [ARG...]", &why)),
    };
    if globals.on("version") {
        return help_and(0, format!("{}\n", system::one_line(program)));
    }
    let mut args = globals.args.as_slice();
    if args.first().is_some_and(|a| a == "help") {
        args = &args[1..];
        let words: Vec<String> = args.iter().chain([&"--help".to_owned()]).cloned().collect();
        return Box::pin(dispatch(program, &words)).await;
    }
    if args.is_empty() {
        return incomplete(&help::all(program, width));
    }
    let (command, used, count) = match grammar::find(args) {
        Found::Command(command, used, count) => (command, used, count),
        Found::Group(name, None) => return incomplete(&help::group(program, name)),
        Found::Group(name, Some(word)) if word == "--help" || word == "-h" => {
            return help_and(0, help::group(program, name));
        }
        Found::Group(name, Some(word)) => {
            let said = format!(
                "{program}: unknown command: {program} {name} {word}\n\nUsage:  {program} {name}\n\nRun '{program} \
                 {name} --help' for more information"
            );
            return Err(Exit::new(1, said).into());
        }
        Found::Unknown(word) => {
            let said =
                format!("{program}: unknown command: {program} {word}\n\nRun '{program} --help' for more information");
            return Err(Exit::new(1, said).into());
        }
    };
    let parsed = match grammar::parse(command.flags, &args[count..], command.stops, check()) {
        Ok(parsed) => parsed,
        Err(Refusal::Help) => return help_and(0, help::command(program, &used, command, width)),
        Err(Refusal::Flag(why)) => return Err(misused(program, &used, command.usage, &why)),
    };
    if let Some(why) = grammar::miscounted(command.count, parsed.args.len()) {
        let line = format!("'{program} {used}' {why}");
        let mut said = usage(program, &used, command.usage, &line);
        if matches!(command.count, grammar::Count::AtLeast(_)) {
            said = said.replace("\nRun '", "\nSee '");
        }
        return Err(Exit::new(1, format_args!("{program}: {said}")).into());
    }
    let wants = host::Wanted::of(&globals, program);
    let address = host::address(&wants).map_err(|e| Exit::new(1, format_args!("{e:#}")))?;
    let client = Rc::new(Client::new(&address, program)?);
    if command.path != "completion" && !command.path.starts_with("context ") {
        host::ensure(&client, &wants, program).await?;
    }
    let app = App { program: program.into(), used: used.into(), client };
    perform(command, app, parsed).await
}

fn check() -> Check {
    fn check(flag: &Flag, value: &str) -> Result<(), String> {
        run::flags::check(flag, value)
    }
    check
}

fn help_and(code: u8, text: impl Display) -> anyhow::Result<u8> {
    print(text)?;
    Ok(code)
}

/// Help that nobody asked for is no output.
fn incomplete(help: &str) -> anyhow::Result<u8> {
    warn(help.trim_end());
    Ok(0)
}

fn usage(program: &str, used: &str, usage: &str, why: &str) -> String {
    let command = format!("{program} {used}");
    let command = command.trim_end();
    let usage = usage.lines().next().unwrap_or_default();
    format!("{why}\n\nUsage:  {command} {usage}\n\nRun '{command} --help' for more information")
}

fn misused(program: &str, used: &str, line: &str, why: &str) -> anyhow::Error {
    Exit::new(125, usage(program, used, line, why)).into()
}

/// The verb of a command that Docker has and Isle not yet.
fn lacks(app: &App, what: &str, instead: &str) -> anyhow::Result<u8> {
    let said = format!("{}: '{}' is not supported yet: {what}{instead}", app.program, app.used);
    Err(Exit::new(1, said).into())
}

async fn perform(command: &Command, app: App, p: Parsed) -> anyhow::Result<u8> {
    match command.path {
        "container run" => run::run(app, p).await,
        "container create" => run::create(app, p).await,
        "container start" => run::start(app, p).await,
        "container attach" => run::attach(app, p).await,
        "container exec" => run::exec(app, p).await,
        "container ls" => list::list(app, p).await,
        "container inspect" => inspect::containers(app, p).await,
        "container stop" => container::stop(app, p).await,
        "container restart" => container::restart(app, p).await,
        "container kill" => container::kill(app, p).await,
        "container pause" => container::simple(app, p, "pause").await,
        "container unpause" => container::simple(app, p, "unpause").await,
        "container rename" => container::rename(app, p).await,
        "container rm" => container::remove(app, p).await,
        "container wait" => container::wait(app, p).await,
        "container port" => container::port(app, p).await,
        "container logs" => container::logs(app, p).await,
        "container prune" => container::prune(app, p).await,
        "container top" => container::top(app, p).await,
        "container diff" => container::diff(app, p).await,
        "container update" => container::update(app, p).await,
        "container export" => container::export(app, p).await,
        "container commit" => container::commit(app, p).await,
        "container cp" => cp::copy(app, p).await,
        "container stats" => stats::stats(app, p).await,
        "network ls" => network::list(app, p).await,
        "network create" => network::create(app, p).await,
        "network rm" => network::remove(app, p).await,
        "network inspect" => network::inspect(app, p).await,
        "network explain" => network::explain(app, p).await,
        "network connect" => network::connect(app, p).await,
        "network disconnect" => network::disconnect(app, p).await,
        "network prune" => network::prune(app, p).await,
        "image ls" => image::list(app, p).await,
        "image inspect" => inspect::images(app, p).await,
        "image history" => image::history(app, p).await,
        "image tag" => image::tag(app, p).await,
        "image rm" => image::remove(app, p).await,
        "image prune" => image::prune(app, p).await,
        "image load" => image::load(app, p).await,
        "image save" => image::save(app, p).await,
        "image import" => image::import(app, p).await,
        "image pull" => image::pull(app, p).await,
        "image push" => image::push(app, p).await,
        "build" => build::build(app, p).await,
        "builder prune" => build::prune(app, p).await,
        "volume ls" => volume::list(app, p).await,
        "volume create" => volume::create(app, p).await,
        "volume inspect" => inspect::volumes(app, p).await,
        "volume rm" => volume::remove(app, p).await,
        "volume prune" => volume::prune(app, p).await,
        "inspect" => inspect::any(app, p).await,
        "version" => system::version(app, p).await,
        "info" => system::info(app, p).await,
        "system df" => system::df(app, p).await,
        "system events" => system::events(app, p).await,
        "system prune" => system::prune(app, p).await,
        "login" => registry::log_in(app, p).await,
        "logout" => registry::log_out(p).await,
        "search" => lacks(&app, "only Docker's own registry has an interface for it: use its web page", ""),
        "context ls" => context::list(&app, &p),
        "context show" => context::show(),
        "context use" => context::choose(&p),
        "context inspect" => context::look(&app, &p),
        "completion" => completion::generate(&app, &p),
        other => Err(Exit::new(1, format_args!("{}: {other} has no meaning yet", app.program)).into()),
    }
}

/// A time of the API's in Go's way of showing it: `2026-11-24 03:45:22.508219928 +0000 UTC`.
pub fn created_at(time: &Value) -> String {
    let text = time.as_str().unwrap_or_default();
    let Ok(at) = text.parse::<jiff::Timestamp>() else { return text.to_owned() };
    at.to_zoned_datetime(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// Sums up what a prune has won.
pub fn reclaimed(bytes: i64) -> String {
    format!("Total reclaimed space: {}\n", crate::text::human_size(bytes as f64, 4))
}
