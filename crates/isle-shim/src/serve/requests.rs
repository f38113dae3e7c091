//! What clients ask for: to start the container or one more process, to be handed what a shim holds.

use super::*;

impl Shim {
    pub(super) fn act(
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

    pub(super) fn slot(&self, process: Process) -> Result<&Slot, Refusal> {
        self.slots.get(&process).ok_or(Refusal::NoSuchExec)
    }

    pub(super) fn launch(
        &mut self,
        order: &Launch,
        joins: VecDeque<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
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

    pub(super) fn open_log(&mut self, order: &Launch) -> Result<(), shim_protocol::launch::Failure> {
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

    pub(super) fn start_exec(
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

    pub(super) fn started(
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

    pub(super) fn adopt(
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

    pub(super) fn hand_over(&self) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
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

    pub(super) fn lines_lost(&self) -> u64 {
        self.log.as_ref().map_or(self.lines_lost_told, |log| log.lost)
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
