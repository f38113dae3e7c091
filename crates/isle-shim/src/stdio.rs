//! One process's stdio, seen from the shim: the ends it holds, what waits to be written into it, and how far its
//! output has come.

use rustix::io::Errno;
use shim_protocol::launch::Stdio;
use shim_protocol::{ExitRecord, State};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// So much stdin waits in memory for a process that does not read; then those who send it wait.
pub const STDIN_MAX: usize = 64 * 1024;

/// The shim's ends. Of a terminal the master is `stdout`, and the slave is held open while the process lives, or the
/// master would report a hang-up whenever nobody else has it open.
#[derive(Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub slave: Option<OwnedFd>,
}

/// One process, from before its start until it is forgotten.
pub struct Slot {
    pub stdio: Stdio,
    pub ends: Ends,
    /// Stdin that has come and is not written yet.
    pub pending: Vec<u8>,
    /// No more stdin will come: close it when `pending` is written.
    pub stdin_ends: bool,
    pub state: State,
    pub pid: i32,
    pub pidfd: Option<OwnedFd>,
    /// Another shim's child: its end is told by the pidfd only.
    pub adopted: bool,
    /// All output has been seen, and those attached have been told.
    pub ended: bool,
    /// The process is dead, and something else still holds its output open: how long that is waited for.
    pub patience: Option<Instant>,
}

/// What one read has brought.
pub enum Read {
    Bytes(usize),
    Nothing,
    End,
}

impl Slot {
    pub fn new(stdio: Stdio) -> Slot {
        Slot {
            stdio,
            ends: Ends::default(),
            pending: Vec::new(),
            stdin_ends: false,
            state: State::Prepared,
            pid: 0,
            pidfd: None,
            adopted: false,
            ended: false,
            patience: None,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub fn exit(&self) -> Option<&ExitRecord> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// The descriptor that stdin is written to.
    pub fn input(&self) -> Option<&OwnedFd> {
        if self.stdio.tty { self.ends.stdout.as_ref() } else { self.ends.stdin.as_ref() }
    }

    /// Write what waits, as far as the process takes it.
    pub fn write_pending(&mut self) {
        while !self.pending.is_empty() {
            let Some(fd) = self.input() else {
                if !matches!(self.state, State::Prepared) {
                    self.pending.clear();
                }
                break;
            };
            match rustix::io::write(fd, &self.pending) {
                Ok(n) => {
                    self.pending.drain(..n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // Nobody will ever read it.
                    self.pending.clear();
                    self.ends.stdin = None;
                }
            }
        }
        if self.stdin_ends && self.pending.is_empty() && !self.stdio.tty {
            self.ends.stdin = None;
        }
    }
}

/// Read once, without waiting.
pub fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Read {
    loop {
        return match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => Read::End,
            Ok(n) => Read::Bytes(n),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Read::Nothing,
            // EIO: a terminal that nobody has open any more.
            Err(_) => Read::End,
        };
    }
}
