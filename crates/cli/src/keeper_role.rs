//! `isle keeper`: started by the daemon, with its listening socket as standard input.

use anyhow::Context;
use clap::Parser;
use model::id::RootId;
use std::os::fd::AsFd;

#[derive(Parser)]
#[command(name = "isle keeper", bin_name = "isle keeper", hide = true)]
struct Arguments {
    /// Whose keeper it is
    #[arg(long)]
    root_id: String,
    /// Which build of the program this is
    #[arg(long, default_value = "")]
    build: String,
    /// The host's resolv.conf
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: std::path::PathBuf,
}

pub fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse_from(std::env::args_os().skip(1));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let root: RootId = serde_json::from_value(arguments.root_id.into()).context("--root-id")?;
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("no listening socket was inherited")?;
    keeper::run(keeper::Settings { root, build: arguments.build, listener, resolv_conf: arguments.resolv_conf })?;
    Ok(())
}
