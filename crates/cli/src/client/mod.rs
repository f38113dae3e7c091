//! The client: what it was called as, its one thread, and what becomes of failures.
//!
//! - [`commands`]: what each command does; [`grammar`]: what may be typed
//! - [`host`]: which daemon is meant; [`connection`]: talks to it; [`credentials`]: who we are to registries
//! - [`streams`], [`terminal`], [`progress`]: a container's stdio, the terminal it is on, and what is under way
//! - [`format`], [`table`], [`template`]: lists as they were asked for; [`output`]: what is said, and how commands fail

mod commands;
mod connection;
mod credentials;
mod format;
mod grammar;
mod host;
mod output;
mod progress;
mod streams;
mod table;
mod template;
mod terminal;

use output::{Exit, warn};
use std::path::Path;
use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let called = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    // Linked as docker, it answers as docker does.
    let program = match Path::new(&called).file_name().and_then(|n| n.to_str()) {
        Some("docker") => "docker",
        _ => "isle",
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return told(1, &format!("{program}: cannot start: {e}")),
    };
    let tasks = tokio::task::LocalSet::new();
    let result = tasks.block_on(&runtime, commands::dispatch(program, &arguments));
    // A thread that still waits for the terminal's next key holds nobody up.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => match e.downcast_ref::<Exit>() {
            Some(exit) => told(exit.code, &exit.message),
            // A reader that has had enough is no error to tell of.
            None if is_broken_pipe(&e) => ExitCode::from(141),
            None => told(1, &format!("{e:#}")),
        },
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn told(code: u8, message: &str) -> ExitCode {
    if !message.is_empty() {
        warn(message);
    }
    ExitCode::from(code)
}
