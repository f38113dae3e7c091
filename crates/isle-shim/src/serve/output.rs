//! Input and output of processes: to the log, to whoever is attached, and from them.

use super::*;

impl Shim {
    /// A terminal's input never ends: whoever detaches from it may come back, or somebody else.
    pub(super) fn stdin_ended(&mut self, process: Process) {
        if let Some(slot) = self.slots.get_mut(&process)
            && !slot.stdio.tty
            && (slot.stdio.stdin_once || matches!(process, Process::Exec(_)) || matches!(slot.state, State::Prepared))
        {
            slot.stdin_ends = true;
            slot.write_pending();
        }
    }

    /// Read one process's stream once, and pass it on. Whether there may be more at once.
    pub(super) fn read_output(&mut self, process: Process, stream: Stream) -> bool {
        let mut buffer = [0; 32 * 1024];
        let Some(slot) = self.slots.get(&process) else { return false };
        let end = match stream {
            Stream::Stdout => &slot.ends.stdout,
            Stream::Stderr => &slot.ends.stderr,
        };
        let Some(fd) = end else { return false };
        match stdio::read(fd, &mut buffer) {
            Read::Bytes(n) => {
                self.pass_on(process, stream, &buffer[..n]);
                return true;
            }
            Read::Nothing => {}
            Read::End => self.stream_ended(process, stream),
        }
        false
    }

    pub(super) fn pass_on(&mut self, process: Process, stream: Stream, bytes: &[u8]) {
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

    pub(super) fn stream_ended(&mut self, process: Process, stream: Stream) {
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
    pub(super) fn end_output(&mut self, process: Process) {
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

    /// Read what is there, until nothing is.
    pub(super) fn drain(&mut self, process: Process, stream: Stream) {
        // Something else that writes without end must not keep us here.
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && self.read_output(process, stream) {}
    }
}
