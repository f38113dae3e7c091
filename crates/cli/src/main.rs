//! One program, three roles: client, daemon, keeper. The role is chosen before any thread exists.

mod app;
mod client;
mod commands;
mod daemon;
mod format;
mod grammar;
mod host;
mod keeper_role;
mod network_flags;
mod output;
mod progress;
mod streams;
mod table;
mod template;
mod terminal;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args_os().nth(1);
    let result = match role.as_deref().and_then(|a| a.to_str()) {
        Some("daemon") => daemon::main(),
        Some("keeper") => keeper_role::main(),
        _ => return app::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("isle: {e:#}");
            ExitCode::FAILURE
        }
    }
}
