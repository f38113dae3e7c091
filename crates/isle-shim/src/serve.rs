//! The loop: one thread that waits for clients, for the processes' output and for their ends.
//!
//! What is waited for is computed anew from the state in every round, so that back-pressure is no state of its own: a
//! process's output is not read while one attached client has too much of it unread; a client's stdin is not read
//! while the process does not take it. The log and an absent daemon hold nothing up.

mod client;
mod deaths;
mod output;
mod requests;

use crate::log::{self, Stream, Writer};
use crate::stdio::{self, Ends, Read, STDIN_MAX, Slot};
use crate::{child, foreign, launch, sys};
use client::{Attached, Client};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat, renameat};
use rustix::io::Errno;
use shim_protocol::frame::{self, Decoder, Frame, Kind};
use shim_protocol::launch::{Launch, Namespace, Stdio};
use shim_protocol::{
    Call, Event, ExitRecord, Message, Process, Refusal, Reply, Request, Running, State, Status, VERSION, Whom, file,
    transport,
};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// An attached client may be so far behind; then the process waits for it.
const BEHIND_MAX: usize = 256 * 1024;
/// How long output is waited for that others hold open after the process has died.
const PATIENCE: Duration = Duration::from_millis(500);
/// A dead container's shim, nobody connected: how long it stays. The `exit` file stays longer.
const LINGER: Duration = Duration::from_secs(300);

pub struct Shim {
    listener: OwnedFd,
    signals: OwnedFd,
    /// The run directory.
    home: OwnedFd,
    /// Our own program, for the container's init.
    program: OwnedFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    slots: BTreeMap<Process, Slot>,
    next_exec: u32,
    log: Option<Writer>,
    lines_lost_told: u64,
    launched: Option<Launched>,
    /// When the last client went after the container's end.
    alone_since: Option<Instant>,
    go: bool,
}

/// What later requests need to know of the launch.
struct Launched {
    cgroup: shim_protocol::launch::Cgroup,
    user_namespace: bool,
    /// Processes may outlive the container's own one.
    shares_pids: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Listener,
    Signals,
    Client(u64),
    Output(Process, Stream),
    Input(Process),
    Death(Process),
}

impl Shim {
    pub fn new(listener: OwnedFd, home: OwnedFd, program: OwnedFd) -> Result<Shim, Errno> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Shim {
            listener,
            signals: sys::signal_descriptor(&[libc::SIGCHLD])?,
            home,
            program,
            clients: BTreeMap::new(),
            next_client: 0,
            slots: BTreeMap::from([(Process::Main, Slot::new(Stdio { stdin: true, ..Stdio::default() }))]),
            next_exec: 1,
            log: None,
            lines_lost_told: 0,
            launched: None,
            alone_since: None,
            go: false,
        })
    }

    pub fn run(&mut self) {
        while !self.may_go() {
            let ready = self.wait();
            for source in ready {
                match source {
                    Source::Listener => self.accept(),
                    Source::Signals => self.reap(),
                    Source::Client(id) => self.hear(id),
                    Source::Output(process, stream) => {
                        self.read_output(process, stream);
                    }
                    Source::Input(process) => {
                        if let Some(slot) = self.slots.get_mut(&process) {
                            slot.write_pending();
                        }
                    }
                    Source::Death(process) => self.adopted_died(process),
                }
            }
            self.lose_patience();
            self.tell_lost_lines();
            for client in self.clients.values_mut() {
                client.flush();
            }
            self.forget_the_gone();
        }
    }

    /// Told to go, with everything said and everybody reaped: nobody else may be there to do it.
    fn may_go(&self) -> bool {
        let running = self.slots.values().any(|slot| slot.is_running() && !slot.adopted);
        self.go && !running && self.clients.values().all(|client| client.is_told())
    }

    /// What is ready, as far as it is wanted now.
    fn wait(&self) -> Vec<Source> {
        let mut wanted: Vec<(BorrowedFd<'_>, PollFlags, Source)> = vec![
            (self.listener.as_fd(), PollFlags::IN, Source::Listener),
            (self.signals.as_fd(), PollFlags::IN, Source::Signals),
        ];
        for (id, client) in &self.clients {
            let full = client
                .attached
                .and_then(|attached| self.slots.get(&attached.process))
                .is_some_and(|slot| slot.pending.len() >= STDIN_MAX);
            let mut flags = if full { PollFlags::empty() } else { PollFlags::IN };
            if !client.is_told() {
                flags |= PollFlags::OUT;
            }
            // Not asked about, a closed connection would wake us without end.
            if !flags.is_empty() {
                wanted.push((client.socket.as_fd(), flags, Source::Client(*id)));
            }
        }
        for (process, slot) in &self.slots {
            let behind = self
                .clients
                .values()
                .any(|c| c.behind > BEHIND_MAX && c.attached.is_some_and(|attached| attached.process == *process));
            if !behind {
                for (fd, stream) in [(&slot.ends.stdout, Stream::Stdout), (&slot.ends.stderr, Stream::Stderr)] {
                    if let Some(fd) = fd {
                        wanted.push((fd.as_fd(), PollFlags::IN, Source::Output(*process, stream)));
                    }
                }
            }
            if let Some(fd) = slot.input().filter(|_| !slot.pending.is_empty()) {
                wanted.push((fd.as_fd(), PollFlags::OUT, Source::Input(*process)));
            }
            if let Some(pidfd) = slot.pidfd.as_ref().filter(|_| slot.adopted && slot.is_running()) {
                wanted.push((pidfd.as_fd(), PollFlags::IN, Source::Death(*process)));
            }
        }
        let until = self
            .slots
            .values()
            .filter_map(|slot| slot.patience)
            .chain(self.alone_since.map(|since| since + LINGER))
            .min()
            .map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = until.and_then(|until| rustix::time::Timespec::try_from(until).ok());
        let mut fds: Vec<PollFd<'_>> =
            wanted.iter().map(|(fd, flags, _)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        fds.iter().zip(&wanted).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, (_, _, source))| *source).collect()
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            let mut client = Client::new(socket);
            client.send(&Message::Hello { version: VERSION }, Vec::new());
            self.clients.insert(self.next_client, client);
            self.next_client += 1;
            self.alone_since = None;
        }
    }

    /// Take what a client has sent, and do it.
    fn hear(&mut self, id: u64) {
        let mut buffer = [0; 32 * 1024];
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            match transport::receive_now(&client.socket, &mut buffer, &mut client.received) {
                Ok(n) if n > 0 => client.decoder.push(&buffer[..n]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    client.gone = true;
                    return;
                }
            }
            loop {
                let Some(client) = self.clients.get_mut(&id) else { return };
                match client.decoder.next_frame() {
                    Ok(Some(frame)) => self.handle(id, &frame),
                    Ok(None) => break,
                    Err(_) => {
                        client.gone = true;
                        return;
                    }
                }
            }
            // One client's flood of stdin does not keep the others waiting.
            if self.clients.get(&id).is_some_and(|client| client.attached.is_some()) {
                return;
            }
        }
    }

    fn handle(&mut self, id: u64, frame: &Frame) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Some(attached) = client.attached {
            match frame.kind {
                Kind::Stdin if attached.stdin => {
                    if let Some(slot) = self.slots.get_mut(&attached.process)
                        && !slot.stdin_ends
                    {
                        slot.pending.extend_from_slice(&frame.payload);
                        slot.write_pending();
                    }
                }
                Kind::StdinEnd if attached.stdin => self.stdin_ended(attached.process),
                _ => {}
            }
            return;
        }
        let mut descriptors: VecDeque<OwnedFd> = VecDeque::new();
        for _ in 0..frame.descriptors {
            descriptors.extend(client.received.pop_front());
        }
        let Ok(call) = frame.value::<Call>() else {
            client.gone = true;
            return;
        };
        let number = call.number;
        let (result, descriptors) = match self.act(id, call.request, descriptors) {
            Ok((reply, descriptors)) => (Ok(reply), descriptors),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        let attached = match &result {
            Ok(_) => self.clients.get(&id).and_then(|client| client.attached),
            Err(_) => None,
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.send(&Message::Reply { number, result }, descriptors);
            if let Some(attached) = attached
                && self.slots.get(&attached.process).is_none_or(|slot| slot.ended)
            {
                client.end();
            }
        }
    }

    fn lose_patience(&mut self) {
        let now = Instant::now();
        let over: Vec<Process> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.patience.is_some_and(|until| until <= now))
            .map(|(process, _)| *process)
            .collect();
        for process in over {
            self.end_output(process);
        }
        let main_is_over = self.slots.get(&Process::Main).is_some_and(|slot| slot.ended && !slot.is_running());
        if self.clients.is_empty() && main_is_over {
            let since = *self.alone_since.get_or_insert(now);
            if now >= since + LINGER {
                self.go = true;
            }
        }
    }

    fn tell_lost_lines(&mut self) {
        let lost = self.lines_lost();
        if lost != self.lines_lost_told {
            self.lines_lost_told = lost;
            for client in self.clients.values_mut().filter(|client| client.subscribed) {
                client.send(&Message::Event(Event::LinesLost(lost)), Vec::new());
            }
        }
    }

    fn forget_the_gone(&mut self) {
        let gone: Vec<u64> = self.clients.iter().filter(|(_, client)| client.gone).map(|(id, _)| *id).collect();
        for id in gone {
            let Some(client) = self.clients.remove(&id) else { continue };
            if let Some(attached) = client.attached
                && attached.stdin
                && self.slots.get(&attached.process).is_some_and(|slot| slot.stdio.stdin_once && slot.is_running())
            {
                self.stdin_ended(attached.process);
            }
        }
    }

    /// A small file in the run directory, framed as on a connection, there at once or not at all.
    fn write_file<T: serde::Serialize>(&self, name: &str, value: &T) {
        let mut bytes = Vec::new();
        if frame::encode_value(&mut bytes, value, 0).is_err() {
            return;
        }
        let new = format!("{name}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let write = || {
            let file = openat(&self.home, &*new, flags, Mode::from(0o600))?;
            rustix::io::write(&file, &bytes)?;
            renameat(&self.home, &*new, &self.home, name)
        };
        // Where the run directory is gone, nobody will look for it.
        let _: Result<(), Errno> = write();
    }
}
