//! One program, three roles: client, daemon, keeper. The role is chosen before any thread exists.

mod daemon;
mod keeper_role;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let result = match arguments.next().as_deref().and_then(|a| a.to_str()) {
        Some("daemon") => daemon::main(),
        Some("keeper") => keeper_role::main(),
        _ => Err(anyhow::anyhow!("the client is not here yet: use 'isle daemon'")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("isle: {e:#}");
            ExitCode::FAILURE
        }
    }
}
