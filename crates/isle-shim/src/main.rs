//! The process beside one container: its launcher, its reaper, the holder of its stdio, the writer of its log. One
//! thread, no runtime, about 1 MB. It outlives the daemon, and everything it knows about the container was said to it
//! in one message.
//!
//! Started with the listening socket as stdin and the container's run directory as working directory. Started as
//! `/sbin/docker-init`, it is the container's process 1 instead.
//!
//! - [`serve`]: the loop that answers clients and watches processes
//! - [`launch`] makes a child, [`child`] is what the child does, [`mounts`] its file systems, [`foreign`] has runc do it
//! - [`stdio`], [`log`]: where output goes
//! - [`init`]: process 1

mod child;
mod fail;
mod foreign;
mod init;
mod launch;
mod log;
mod mounts;
mod serve;
mod stdio;
mod sys;

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| name == child::INIT) {
        // After the `--`.
        init::run(args.skip(1))
    }
    match shim() {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            eprintln!("isle-shim: {errno}: it is started by the isle daemon, with a listening socket as stdin");
            ExitCode::FAILURE
        }
    }
}

fn shim() -> Result<(), rustix::io::Errno> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"isle-shim");
    // A container's processes see the shim's children before they execute: nothing of theirs may be read.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let home = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let program = openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::chdir("/")?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::become_stdio(&null, 0)?;
    serve::Shim::new(listener, home, program)?.run();
    Ok(())
}
