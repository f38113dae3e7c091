//! The loop: one thread that waits for clients, for the processes' output and for their ends.
//!
//! What is waited for is computed anew from the state in every round, so that back-pressure is no state of its own: a
//! process's output is not read while one attached client has too much of it unread; a client's stdin is not read
//! while the process does not take it. The log and an absent daemon hold nothing up.

use crate::log::{self, Stream, Writer};
use crate::stdio::{self, Ends, Read, STDIN_MAX, Slot};
use crate::{child, foreign, launch, sys};
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

#[derive(Default)]
struct Client {
    socket: Option<OwnedFd>,
    decoder: Decoder,
    received: VecDeque<OwnedFd>,
    /// What is to be sent, each with the descriptors that go with its first byte.
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// How much of the first is sent.
    sent: usize,
    behind: usize,
    attached: Option<Attached>,
    subscribed: bool,
    gone: bool,
    /// Close once everything is sent.
    closing: bool,
}

#[derive(Clone, Copy)]
struct Attached {
    process: Process,
    stdin: bool,
    stdout: bool,
    stderr: bool,
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
                    Source::Output(process, stream) => self.read_output(process, stream),
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
        self.go && !running && self.clients.values().all(|client| client.outbox.is_empty())
    }

    /// What is ready, as far as it is wanted now.
    fn wait(&self) -> Vec<Source> {
        let mut wanted: Vec<(BorrowedFd<'_>, PollFlags, Source)> = vec![
            (self.listener.as_fd(), PollFlags::IN, Source::Listener),
            (self.signals.as_fd(), PollFlags::IN, Source::Signals),
        ];
        for (id, client) in &self.clients {
            let Some(socket) = &client.socket else { continue };
            let full = client
                .attached
                .and_then(|attached| self.slots.get(&attached.process))
                .is_some_and(|slot| slot.pending.len() >= STDIN_MAX);
            let mut flags = if full { PollFlags::empty() } else { PollFlags::IN };
            if !client.outbox.is_empty() {
                flags |= PollFlags::OUT;
            }
            // Not asked about, a closed connection would wake us without end.
            if !flags.is_empty() {
                wanted.push((socket.as_fd(), flags, Source::Client(*id)));
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
            let mut client = Client { socket: Some(socket), ..Client::default() };
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
            let Some(socket) = &client.socket else { return };
            match transport::receive_now(socket, &mut buffer, &mut client.received) {
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

    fn act(
        &mut self,
        id: u64,
        request: Request,
        descriptors: VecDeque<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        let done = Ok((Reply::Done, Vec::new()));
        match request {
            Request::Launch(launch) => self.launch(&launch, descriptors),
            Request::Adopt(adopt) => self.adopt(*adopt, descriptors),
            Request::Signal { whom: Whom::One(process), signal } => {
                let slot = self.slot(process)?;
                let pidfd = slot.pidfd.as_ref().filter(|_| slot.is_running()).ok_or(Refusal::NotRunning)?;
                sys::pidfd_signal(pidfd, signal).map_err(|errno| match errno {
                    Errno::SRCH => Refusal::NotRunning,
                    errno => kernel("signal the process", errno),
                })?;
                done
            }
            Request::Signal { whom: Whom::All, signal } => {
                self.signal_all(signal);
                done
            }
            Request::Attach { process, stdin, stdout, stderr } => {
                self.slot(process)?;
                if let Some(client) = self.clients.get_mut(&id) {
                    client.attached = Some(Attached { process, stdin, stdout, stderr });
                }
                done
            }
            Request::Resize { process, size } => {
                let slot = self.slots.get_mut(&process).ok_or(Refusal::NoSuchExec)?;
                match &slot.ends.stdout {
                    Some(master) if slot.stdio.tty => {
                        child::set_size(master, size).map_err(|errno| kernel("resize the terminal", errno))?;
                    }
                    _ if matches!(slot.state, State::Prepared) => slot.stdio.size = Some(size),
                    // Without a terminal there is nothing to do, which is no mistake of the client's.
                    _ if matches!(slot.state, State::Running(_)) => {}
                    _ => return Err(Refusal::NotRunning),
                }
                done
            }
            Request::PrepareExec { stdio } => {
                let exec = self.next_exec;
                self.next_exec += 1;
                self.slots.insert(Process::Exec(exec), Slot::new(stdio));
                Ok((Reply::Exec(exec), Vec::new()))
            }
            Request::StartExec { exec, command } => self.start_exec(exec, &command),
            Request::ForgetExec { exec } => {
                let process = Process::Exec(exec);
                if self.slot(process)?.is_running() {
                    return Err(Refusal::AlreadyStarted);
                }
                self.end_output(process);
                self.slots.remove(&process);
                done
            }
            Request::Subscribe => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.subscribed = true;
                    for (process, slot) in &self.slots {
                        if let Some(exit) = slot.exit() {
                            let event = Event::Exited { process: *process, exit: exit.clone() };
                            client.send(&Message::Event(event), Vec::new());
                        }
                    }
                }
                done
            }
            Request::HandOver => self.hand_over(),
            Request::Status => {
                let execs = self
                    .slots
                    .iter()
                    .filter_map(|(process, slot)| match process {
                        Process::Exec(exec) => Some((*exec, slot.state.clone())),
                        Process::Main => None,
                    })
                    .collect();
                let main = self.slot(Process::Main)?.state.clone();
                Ok((Reply::Status(Status { main, execs, lines_lost: self.lines_lost() }), Vec::new()))
            }
            Request::Go { force } => {
                let main = self.slot(Process::Main)?;
                if main.is_running() {
                    if !force {
                        return Err(Refusal::AlreadyStarted);
                    }
                    if let Some(pidfd) = &main.pidfd {
                        let _ = sys::pidfd_signal(pidfd, libc::SIGKILL);
                    }
                    self.signal_all(libc::SIGKILL);
                }
                self.go = true;
                done
            }
        }
    }

    fn slot(&self, process: Process) -> Result<&Slot, Refusal> {
        self.slots.get(&process).ok_or(Refusal::NoSuchExec)
    }

    fn launch(&mut self, order: &Launch, joins: VecDeque<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        if !matches!(self.slot(Process::Main)?.state, State::Prepared) {
            return Err(Refusal::AlreadyStarted);
        }
        let early_size = self.slot(Process::Main)?.stdio.size;
        let mut order = std::borrow::Cow::Borrowed(order);
        if early_size.is_some() {
            order.to_mut().stdio.size = early_size;
        }
        let result = self.open_log(&order).and_then(|()| match &order.foreign {
            None => launch::container(&order, joins, &self.program),
            Some(runtime) => foreign::container(&order, runtime),
        });
        match result {
            Ok(started) => {
                self.launched = Some(Launched {
                    cgroup: order.cgroup.clone(),
                    user_namespace: order.namespaces.user.is_some(),
                    shares_pids: order.namespaces.pid != Namespace::New,
                });
                let reply = self.started(Process::Main, order.stdio, started)?;
                if let (Reply::Started(running), _) = &reply {
                    self.write_file(file::RUNNING, running);
                }
                Ok(reply)
            }
            Err(failure) => {
                self.log = None;
                if let Some(slot) = self.slots.get_mut(&Process::Main) {
                    slot.state = State::Failed(failure.clone());
                }
                self.end_output(Process::Main);
                Err(Refusal::Launch(failure))
            }
        }
    }

    fn open_log(&mut self, order: &Launch) -> Result<(), shim_protocol::launch::Failure> {
        use crate::fail::At;
        let step = shim_protocol::launch::Step::Log;
        if cfg!(debug_assertions) && order.fail_at == Some(step) {
            return Err(crate::fail::failure(step, Errno::CANCELED, "as a test asked"));
        }
        self.log = match &order.log {
            None => None,
            Some(log) => Some(Writer::open(log.clone()).at(step, log.path.display().to_string())?),
        };
        if let Some(log) = &mut self.log {
            log.keep_partial(&self.home);
        }
        Ok(())
    }

    fn start_exec(
        &mut self,
        exec: u32,
        command: &shim_protocol::launch::Command,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        let process = Process::Exec(exec);
        let slot = self.slot(process)?;
        if !matches!(slot.state, State::Prepared) {
            return Err(Refusal::AlreadyStarted);
        }
        let main = self.slot(Process::Main)?;
        let (Some(launched), Some(target), true) = (&self.launched, &main.pidfd, main.is_running()) else {
            return Err(Refusal::NotRunning);
        };
        let stdio = slot.stdio;
        match launch::command(command, &stdio, target, launched.user_namespace, &launched.cgroup, &self.program) {
            Ok(started) => self.started(process, stdio, started),
            Err(failure) => {
                if let Some(slot) = self.slots.get_mut(&process) {
                    slot.state = State::Failed(failure.clone());
                }
                self.end_output(process);
                Err(Refusal::Launch(failure))
            }
        }
    }

    fn started(
        &mut self,
        process: Process,
        stdio: Stdio,
        started: launch::Started,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        let pidfd = started.pidfd.try_clone().map_err(|_| kernel("duplicate a descriptor", Errno::MFILE))?;
        let running = Running { pid: started.pid, started: log::now(), warnings: started.warnings };
        let slot = self.slots.get_mut(&process).ok_or(Refusal::NoSuchExec)?;
        slot.stdio = stdio;
        slot.ends = started.ends;
        slot.pid = started.pid;
        slot.pidfd = Some(started.pidfd);
        slot.state = State::Running(running.clone());
        slot.write_pending();
        Ok((Reply::Started(running), vec![pidfd]))
    }

    fn adopt(
        &mut self,
        adopt: shim_protocol::Adopt,
        mut descriptors: VecDeque<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        if !matches!(self.slot(Process::Main)?.state, State::Prepared) {
            return Err(Refusal::AlreadyStarted);
        }
        let pidfd = descriptors.pop_front().ok_or(Refusal::Malformed)?;
        let mut take = |there: bool| if there { descriptors.pop_front() } else { None };
        let mut ends = Ends {
            stdin: take(adopt.has_stdin),
            stdout: take(adopt.has_stdout),
            stderr: take(adopt.has_stderr),
            slave: None,
        };
        if adopt.stdio.tty {
            ends.slave = ends.stdout.as_ref().and_then(sys::terminal_of);
        }
        for fd in [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().flatten() {
            let _ = rustix::io::ioctl_fionbio(fd, true);
        }
        self.log = adopt.log.and_then(|log| Writer::open(log).ok());
        if let Some(log) = &mut self.log {
            log.keep_partial(&self.home);
        }
        self.launched = Some(Launched {
            cgroup: adopt.cgroup,
            user_namespace: has_own_users(adopt.pid),
            shares_pids: !is_first_of_its_namespace(adopt.pid),
        });
        let running = Running { pid: adopt.pid, started: adopt.started, warnings: Vec::new() };
        self.write_file(file::RUNNING, &running);
        if let Some(slot) = self.slots.get_mut(&Process::Main) {
            slot.stdio = adopt.stdio;
            slot.ends = ends;
            slot.pid = adopt.pid;
            slot.pidfd = Some(pidfd);
            slot.adopted = true;
            slot.state = State::Running(running);
        }
        Ok((Reply::Done, Vec::new()))
    }

    fn hand_over(&self) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        let main = self.slot(Process::Main)?;
        let pidfd = main.pidfd.as_ref().filter(|_| main.is_running()).ok_or(Refusal::NotRunning)?;
        let mut held = Vec::new();
        let Ends { stdin, stdout, stderr, .. } = &main.ends;
        for fd in [Some(pidfd), stdin.as_ref(), stdout.as_ref(), stderr.as_ref()].into_iter().flatten() {
            held.push(fd.try_clone().map_err(|_| kernel("duplicate a descriptor", Errno::MFILE))?);
        }
        let reply = Reply::Held {
            stdio: main.stdio,
            stdin: main.ends.stdin.is_some(),
            stdout: main.ends.stdout.is_some(),
            stderr: main.ends.stderr.is_some(),
        };
        Ok((reply, held))
    }

    /// A terminal's input never ends: whoever detaches from it may come back, or somebody else.
    fn stdin_ended(&mut self, process: Process) {
        if let Some(slot) = self.slots.get_mut(&process)
            && !slot.stdio.tty
            && (slot.stdio.stdin_once || matches!(process, Process::Exec(_)) || matches!(slot.state, State::Prepared))
        {
            slot.stdin_ends = true;
            slot.write_pending();
        }
    }

    /// Read one process's stream once, and pass it on.
    fn read_output(&mut self, process: Process, stream: Stream) {
        let mut buffer = [0; 32 * 1024];
        let Some(slot) = self.slots.get(&process) else { return };
        let end = match stream {
            Stream::Stdout => &slot.ends.stdout,
            Stream::Stderr => &slot.ends.stderr,
        };
        let Some(fd) = end else { return };
        match stdio::read(fd, &mut buffer) {
            Read::Bytes(n) => self.pass_on(process, stream, &buffer[..n]),
            Read::Nothing => {}
            Read::End => self.stream_ended(process, stream),
        }
    }

    fn pass_on(&mut self, process: Process, stream: Stream, bytes: &[u8]) {
        if process == Process::Main
            && let Some(log) = &mut self.log
        {
            log.write(stream, bytes, log::now());
        }
        for client in self.clients.values_mut() {
            let Some(attached) = client.attached.filter(|attached| attached.process == process) else { continue };
            match stream {
                Stream::Stdout if attached.stdout => client.send_bytes(Kind::Stdout, bytes),
                Stream::Stderr if attached.stderr => client.send_bytes(Kind::Stderr, bytes),
                _ => {}
            }
        }
    }

    fn stream_ended(&mut self, process: Process, stream: Stream) {
        if process == Process::Main
            && let Some(log) = &mut self.log
        {
            log.finish(stream, log::now());
        }
        let Some(slot) = self.slots.get_mut(&process) else { return };
        match stream {
            Stream::Stdout => slot.ends.stdout = None,
            Stream::Stderr => slot.ends.stderr = None,
        }
        // A process may close its output long before it ends.
        if slot.ends.stdout.is_none() && slot.ends.stderr.is_none() && !slot.is_running() {
            self.end_output(process);
        }
    }

    /// Tell everybody attached that there is no more.
    fn end_output(&mut self, process: Process) {
        if let Some(slot) = self.slots.get_mut(&process) {
            slot.ended = true;
            slot.patience = None;
            slot.ends = Ends::default();
            slot.pending.clear();
        }
        for client in self.clients.values_mut() {
            if client.attached.is_some_and(|attached| attached.process == process) {
                client.end();
            }
        }
    }

    /// Everything that has died.
    fn reap(&mut self) {
        let mut sink = [0; 1280];
        while rustix::io::read(&self.signals, &mut sink).is_ok_and(|n| n > 0) {}
        while let Some((pid, status)) = sys::reap() {
            let found = self.slots.iter().find(|(_, slot)| slot.pid == pid && slot.is_running());
            if let Some(process) = found.map(|(process, _)| *process) {
                self.died(process, Some(status));
            }
        }
    }

    fn adopted_died(&mut self, process: Process) {
        let Some(pidfd) = self.slots.get(&process).and_then(|slot| slot.pidfd.as_ref()) else { return };
        // Its parent may not have reaped it yet: then the kernel does not tell by the pidfd, but of the zombie. And it may
        // do so between the two questions.
        let of_zombie = || {
            let pid = self.slots.get(&process)?.pid;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The same process before and after: a reused number is told by the pidfd.
            sys::pidfd_signal(pidfd, 0).ok()?;
            stat.rsplit(' ').next()?.trim().parse().ok()
        };
        let status = sys::exit_info(pidfd).or_else(of_zombie).or_else(|| sys::exit_info(pidfd));
        self.died(process, status);
    }

    fn died(&mut self, process: Process, status: Option<i32>) {
        if process == Process::Main && self.launched.as_ref().is_some_and(|launched| launched.shares_pids) {
            self.signal_all(libc::SIGKILL);
        }
        // The log is whole before anybody hears of the end.
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(process, stream);
        }
        let oom = self.launched.as_ref().is_some_and(|launched| oom_killed(&launched.cgroup));
        let signal = status.map(|status| status & 0x7f).filter(|signal| *signal != 0);
        let code = status.map(|status| signal.map_or((status >> 8) & 0xff, |signal| 128 + signal));
        let exit = ExitRecord { code, signal, at: log::now(), oom };
        if process == Process::Main {
            if let Some(log) = &mut self.log {
                log.finish(Stream::Stdout, exit.at);
                log.finish(Stream::Stderr, exit.at);
            }
            self.write_file(file::EXIT, &exit);
        }
        if let Some(slot) = self.slots.get_mut(&process) {
            slot.state = State::Exited(exit.clone());
            slot.pidfd = None;
            slot.ends.slave = None;
            slot.ends.stdin = None;
            slot.pending.clear();
            if slot.stdio.tty {
                slot.ends.stdout = None;
            }
            slot.patience = Some(Instant::now() + PATIENCE);
            if slot.ends.stdout.is_none() && slot.ends.stderr.is_none() {
                self.end_output(process);
            }
        }
        let event = Message::Event(Event::Exited { process, exit });
        for client in self.clients.values_mut().filter(|client| client.subscribed) {
            client.send(&event, Vec::new());
        }
    }

    /// Read what is there, until nothing is.
    fn drain(&mut self, process: Process, stream: Stream) {
        let mut buffer = [0; 32 * 1024];
        // Something else that writes without end must not keep us here.
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let Some(slot) = self.slots.get(&process) else { return };
            let end = match stream {
                Stream::Stdout => &slot.ends.stdout,
                Stream::Stderr => &slot.ends.stderr,
            };
            let Some(fd) = end else { return };
            match stdio::read(fd, &mut buffer) {
                Read::Bytes(n) => self.pass_on(process, stream, &buffer[..n]),
                Read::Nothing => return,
                Read::End => return self.stream_ended(process, stream),
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

    fn lines_lost(&self) -> u64 {
        self.log.as_ref().map_or(self.lines_lost_told, |log| log.lost)
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

    /// To every process of the container's: what forks meanwhile is met in the next round.
    fn signal_all(&self, signal: i32) {
        let Some(launched) = &self.launched else { return };
        let cgroup = &launched.cgroup;
        if signal == libc::SIGKILL
            && let Some(directory) = &cgroup.v2
            && let Ok(kill) =
                openat(CWD, directory.join("cgroup.kill"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(kill, b"1");
        }
        let Some(directory) = cgroup.v1.first().or(cgroup.v2.as_ref()) else { return };
        let rounds = if signal == libc::SIGKILL { 10 } else { 1 };
        for _ in 0..rounds {
            let Ok(text) = std::fs::read_to_string(directory.join("cgroup.procs")) else { return };
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                let _ = sys::kill(pid, signal);
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

fn kernel(doing: &str, errno: Errno) -> Refusal {
    Refusal::Kernel { doing: doing.to_owned(), errno: errno.raw_os_error() }
}

/// Whether a process is in another user namespace than we are.
fn has_own_users(pid: i32) -> bool {
    let namespace = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/user")).ok();
    namespace(&pid.to_string()).is_some_and(|theirs| Some(theirs) != namespace("self"))
}

/// Whether a process is number 1 of a pid namespace: with it go all others.
fn is_first_of_its_namespace(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().last() == Some("1"))
}

/// Whether the kernel has killed something there for want of memory.
fn oom_killed(cgroup: &shim_protocol::launch::Cgroup) -> bool {
    let Some(path) = &cgroup.oom else { return false };
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
}

impl Client {
    fn send(&mut self, message: &Message, descriptors: Vec<OwnedFd>) {
        let mut bytes = Vec::new();
        if frame::encode_value(&mut bytes, message, descriptors.len()).is_ok() {
            self.behind += bytes.len();
            self.outbox.push_back((bytes, descriptors));
        }
    }

    fn send_bytes(&mut self, kind: Kind, payload: &[u8]) {
        let before = self.behind;
        match self.outbox.back_mut() {
            // Not the one that is being sent: its descriptors are out already.
            Some((bytes, descriptors)) if descriptors.is_empty() && bytes.len() < frame::STDIO_MAX => {
                self.behind += frame_into(bytes, kind, payload);
            }
            _ => {
                let mut bytes = Vec::new();
                self.behind += frame_into(&mut bytes, kind, payload);
                self.outbox.push_back((bytes, Vec::new()));
            }
        }
        // At once, if nothing waits before it.
        if before == 0 {
            self.flush();
        }
    }

    /// No more output will come.
    fn end(&mut self) {
        if !self.closing {
            self.send_bytes(Kind::End, b"");
            self.closing = true;
        }
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some((bytes, descriptors)) = self.outbox.front() {
            let passed: Vec<BorrowedFd<'_>> =
                if self.sent == 0 { descriptors.iter().map(AsFd::as_fd).collect() } else { Vec::new() };
            match transport::send(socket, &bytes[self.sent..], &passed) {
                Ok(n) => {
                    self.sent += n;
                    self.behind -= n;
                    if self.sent == bytes.len() {
                        self.outbox.pop_front();
                        self.sent = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    self.outbox.clear();
                    self.behind = 0;
                    return;
                }
            }
        }
        if self.closing {
            self.gone = true;
        }
    }
}

fn frame_into(bytes: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> usize {
    let before = bytes.len();
    frame::encode_bytes(bytes, kind, payload);
    bytes.len() - before
}
