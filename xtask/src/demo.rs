//! The story, told on the real thing: each step is the command that a person would type, and its real output.
//!
//! Everything happens in a network namespace of its own with a daemon of its own, in a temporary directory. It is cleaned
//! up at the end, at a failure, at Ctrl-C and when the terminal is closed; and if this process is killed, by a guard.

use crate::build;
use crate::machine::{DEMO, ensure, is_root};
use anyhow::{bail, ensure as must};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use testkit::{Lab, images};

pub fn run() -> anyhow::Result<()> {
    must!(is_root()?, "containers need root: run 'cargo xtask demo' as root");
    ensure(DEMO)?;
    println!("Building isle and isle-shim");
    let program = build::debug()?;
    // A signal ends the step under way; what was made is taken down all the same.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }

    let begin = Instant::now();
    println!("Starting a daemon in a network namespace of its own, with busybox as its one image");
    let directory = Lab::new_directory()?;
    let mut guard = start_guard(directory.path())?;
    let lab = Lab::start_in(directory, &program)?;
    let context = lab.directory().join("context");
    std::fs::create_dir(&context)?;
    images::webapp_context(&context)?;
    let story = Story { lab, interrupted };
    story.tell(&context.display().to_string())?;
    let Story { lab, .. } = story;
    drop(lab);
    drop(guard.stdin.take());
    guard.wait()?;
    println!("\nThat was the story, in {:.1} s; everything is cleaned up.", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Cleans up once this process is gone and the lab is not: what no signal handler can do for a killed one. It waits for
/// the end of its input, whose other end dies with us.
fn start_guard(directory: &Path) -> anyhow::Result<Child> {
    let mut guard = Command::new(std::env::current_exe()?);
    guard.args(["guard".as_ref(), directory]);
    // In a group of its own, or what ends us from a terminal would end it.
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok(guard.spawn()?)
}

/// The guard itself.
pub fn guard(directory: &Path) -> anyhow::Result<()> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    if directory.exists() {
        testkit::sweep::sweep(directory);
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}

struct Story {
    lab: Lab,
    interrupted: Arc<AtomicBool>,
}

impl Story {
    fn tell(&self, context: &str) -> anyhow::Result<()> {
        self.say("An image from a Dockerfile: an HTTP server on port 8000, and curl.");
        self.step(&["build", "-q", "-t", "webapp", context], 0)?;

        self.say("A network of one's own, and the server on it.");
        self.step(&["network", "create", "--driver", "bridge", "webapp1"], 0)?;
        self.step(&["run", "-d", "--network", "webapp1", "--name", "webapp", "webapp"], 0)?;

        self.say("Whoever shares the network reaches it by name.");
        let page = self.step(&["run", "--rm", "--network", "webapp1", "webapp", "curl", "-fsSL", "webapp:8000"], 0)?;
        must!(page.contains("hello from webapp"), "that was not the page");

        self.say("Whoever does not cannot even resolve it: neither on the default network, nor on another one.");
        let lost = self.step(&["run", "--rm", "webapp", "curl", "-fsSL", "webapp:8000"], 6)?;
        must!(lost.contains("Could not resolve host: webapp"), "that was another failure");
        self.step(&["network", "create", "webapp2"], 0)?;
        self.step(&["run", "--rm", "--network", "webapp2", "webapp", "curl", "-fsSL", "webapp:8000"], 6)?;

        self.say("What is there.");
        self.step(&["network", "ls"], 0)?;
        self.step(&["network", "inspect", "webapp1"], 0)?;
        self.step(&["ps"], 0)?;

        self.say("And away with it.");
        self.step(&["rm", "-f", "webapp"], 0)?;
        self.step(&["network", "rm", "webapp1", "webapp2"], 0)?;
        self.step(&["network", "ls"], 0)?;
        Ok(())
    }

    fn say(&self, text: &str) {
        println!("\n# {text}");
    }

    /// Runs one command, shows it with its output, and checks its exit code; what it printed.
    fn step(&self, arguments: &[&str], code: i32) -> anyhow::Result<String> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        println!("$ isle {}", arguments.join(" "));
        let output = self.lab.isle(arguments);
        print!("{}", output.stdout);
        eprint!("{}", output.stderr);
        if output.code != 0 {
            println!("(exit code {})", output.code);
        }
        if output.code != code && !self.interrupted.load(Ordering::Relaxed) {
            bail!("isle {}: exit code {}, not {code}", arguments.join(" "), output.code);
        }
        Ok(format!("{}{}", output.stdout, output.stderr))
    }
}
