//! The ends of processes: their status, the last of their output, and who dies with them.

use super::*;

impl Shim {
    /// Everything that has died.
    pub(super) fn reap(&mut self) {
        let mut sink = [0; 1280];
        while rustix::io::read(&self.signals, &mut sink).is_ok_and(|n| n > 0) {}
        while let Some((pid, status)) = sys::reap() {
            let found = self.slots.iter().find(|(_, slot)| slot.pid == pid && slot.is_running());
            if let Some(process) = found.map(|(process, _)| *process) {
                self.died(process, Some(status));
            }
        }
    }

    pub(super) fn adopted_died(&mut self, process: Process) {
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

    pub(super) fn died(&mut self, process: Process, status: Option<i32>) {
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
        // Whoever hears of the end knows what the log lacks.
        self.tell_lost_lines();
        let event = Message::Event(Event::Exited { process, exit });
        for client in self.clients.values_mut().filter(|client| client.subscribed) {
            client.send(&event, Vec::new());
        }
    }

    /// To every process of the container's: what forks meanwhile is met in the next round.
    pub(super) fn signal_all(&self, signal: i32) {
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
}

/// Whether the kernel has killed something there for want of memory.
fn oom_killed(cgroup: &shim_protocol::launch::Cgroup) -> bool {
    let Some(path) = &cgroup.oom else { return false };
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
}
