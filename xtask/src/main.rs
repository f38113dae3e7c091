//! `cargo xtask …`: what a person or CI does with this repository.

mod bench;
mod build;
mod clients;
mod demo;
mod machine;
mod package;
mod test;
mod vm;

use anyhow::{Context, bail};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask COMMAND

  build           Build isle and its shim, side by side: target/isle/isle can be used as it is
  demo            Build Isle, start it in a network namespace of its own, and tell the story
  test            Run every test
  test unit       ... those that need no root: decisions and protocols
  test system     ... those of the whole product
  test vm [WORD…] ... those of a kernel and a system that have everything, in a virtual machine
  test vm package ... what the package for Debian promises there, before and after a reboot
  test clients [SUITE…] [OPTION…]
                  ... those that others wrote for their clients, against docs/clients.md; 'in COMMAND…' instead runs a
                  command where they run
  bench [--quick] [--write] [--program PATH]
                  Measure Isle beside Debian's Docker and Podman, against the bars that it shall reach; --write keeps
                  it in docs/performance.md
  rows            Write into docs/networking.md and docs/engine-api.md which tests show what
  lint            Formatting, clippy, licences and sources of dependencies
  dist            Build what people install: target/dist/isle and its static isle-shim
  package         ... as a package for Debian: target/package/isle_VERSION_ARCH.deb
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["build"] => build::build(),
        ["demo"] => demo::run(),
        // The demonstration's own.
        ["guard", directory] => demo::guard(directory.as_ref()),
        ["test"] => test::all(),
        ["test", "unit"] => test::unit(),
        ["test", "system"] => test::system(),
        ["test", "vm", "package"] => vm::installed(),
        ["test", "vm", wanted @ ..] => vm::test(wanted),
        ["test", "clients", "in", command @ ..] => clients::inside(command),
        ["test", "clients", words @ ..] => clients::test(words),
        ["bench", words @ ..] => bench::bench(words),
        // The benchmark's own.
        ["poll", server, name] => bench::poll(server, name),
        ["rows"] => rows(),
        ["lint"] => test::lint(),
        ["dist"] => build::dist(),
        ["package"] => package::package(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command to its end, with our own terminal.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// The checklist and the operations of the API, with the tests of today.
fn rows() -> anyhow::Result<()> {
    let root = build::root();
    let write =
        |document: &str, rendered: String| std::fs::write(root.join(document), rendered).context(document.to_owned());
    write("docs/networking.md", testkit::rows::render(&root)?)?;
    write("docs/engine-api.md", testkit::operations::render(&root)?)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
