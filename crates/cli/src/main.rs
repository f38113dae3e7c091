//! One program, three roles: client, daemon, keeper. The role is chosen before any thread exists.

mod client;
mod daemon;
mod keeper_role;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let is_dockerd = std::path::Path::new(&name).file_name().is_some_and(|name| name == "dockerd");
    let role = arguments.next();
    let result = match role.as_deref().and_then(|a| a.to_str()) {
        Some("keeper") if is_dockerd => keeper_role::main(),
        _ if is_dockerd => daemon::main(true),
        Some("daemon") => daemon::main(false),
        Some("keeper") => keeper_role::main(),
        _ => return client::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("isle: {}", model::errno::in_gos_words(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}
