//! Descriptors over unix sockets (SCM_RIGHTS): how a socket outlives the process that opened it.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// As many descriptors as the kernel passes in one message (SCM_MAX_FD).
pub const MAX: usize = 253;

/// Sends `bytes`, of which the first carries the descriptors. Returns how many bytes went.
///
/// # Errors
/// `InvalidInput` for more than [`MAX`] descriptors or no byte; `EAGAIN` and `EPIPE` as for any socket;
/// `ETOOMANYREFS` when too many are in flight.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX || bytes.is_empty() {
        let why = format!("{} descriptors with {} bytes in one message", fds.len(), bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads into `buffer`; descriptors that came with the bytes are appended to `fds`, closed on exec. Returns how many
/// bytes came: 0 at the end of a stream.
///
/// # Errors
/// `EMFILE` if this process cannot hold the descriptors: those that did not fit are lost.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(got.bytes)
}

/// How much of what was sent by a socket its other side has not read yet: of a TCP socket, not acknowledged. In bytes, and
/// of a unix socket of the kernel's own accounts; only zero is exact (unix(7), tcp(7): SIOCOUTQ).
///
/// # Errors
/// It is no connected socket.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int, and `bytes` is one that lives until the call returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// Whether a call failed because this process (`EMFILE`) or the machine (`ENFILE`) has no descriptor left.
pub fn are_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_works_on_the_other_side() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut kept, sent) = UnixStream::pair().unwrap();
        assert_eq!(send(a.as_fd(), b"here", &[sent.as_fd()]).unwrap(), 4);
        drop(sent);
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(receive(b.as_fd(), &mut buffer, &mut fds).unwrap(), 4);
        assert_eq!((&buffer[..4], fds.len()), (&b"here"[..], 1));
        UnixStream::from(fds.remove(0)).write_all(b"alive").unwrap();
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "alive");
    }
}
