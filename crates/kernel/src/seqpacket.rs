//! Unix sockets that keep messages apart and carry descriptors (`SOCK_SEQPACKET`, `SCM_RIGHTS`).

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The largest message, in bytes: well below the default send buffer of 208 KiB.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The most descriptors one message carries (the kernel's limit is 253).
pub const MAX_DESCRIPTORS: usize = 64;

fn socket() -> Result<OwnedFd, Errno> {
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Listens at `path`; a stale socket there is replaced.
///
/// # Errors
/// The path cannot be bound.
pub fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let fd = socket()?;
    net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    net::listen(&fd, 16)?;
    Ok(fd)
}

/// Connects to a listener at `path`.
///
/// # Errors
/// `ENOENT` or `ECONNREFUSED` where nobody listens.
pub fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = socket()?;
    net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

/// Two connected ends.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Waits for the next client.
///
/// # Errors
/// As accept(2).
pub fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| net::accept_with(listener, SocketFlags::CLOEXEC))
}

/// The user at the other end, as they were when they connected (SO_PEERCRED of unix(7)).
///
/// # Errors
/// It is no unix socket.
pub fn peer_user(socket: impl AsFd) -> Result<u32, Errno> {
    Ok(net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Whether an error of [`send`] or [`receive`] says that the other end is gone. Any other one leaves the connection as
/// it is: one message is lost, or was not sent.
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// Makes calls on the socket return `EAGAIN` instead of waiting.
///
/// # Errors
/// The descriptor does not take flags.
pub fn set_nonblocking(socket: impl AsFd) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(socket, true)
}

/// Sends one message with its descriptors, blocking while the buffer is full.
///
/// # Errors
/// `EMSGSIZE` for more than [`MAX_MESSAGE`] bytes, `EPIPE` when the other end is gone.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if message.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let parts = [IoSlice::new(message)];
    rustix::io::retry_on_intr(|| net::sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// One message and the descriptors that came with it.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub message: Vec<u8>,
    /// Duplicates of the sender's, closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one message and its descriptors; `None` when the other end is closed. A message of no bytes counts as the
/// end: nobody sends one.
///
/// # Errors
/// `EMSGSIZE` for a message that does not fit, or whose descriptors find no place in this process; it is then lost.
/// `EAGAIN` on a non-blocking socket.
pub fn receive(socket: impl AsFd) -> Result<Option<Packet>, Errno> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        net::recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    buffer.truncate(received.bytes);
    Ok(Some(Packet { message: buffer, descriptors }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let (x, y) = pair().unwrap();
        send(&a, b"one", &[x.as_fd()]).unwrap();
        send(&a, b"two", &[]).unwrap();
        let Packet { message, mut descriptors } = receive(&b).unwrap().unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (b"one".as_slice(), 1));
        assert_eq!(receive(&b).unwrap().unwrap().message, b"two");
        send(descriptors.pop().unwrap(), b"through", &[]).unwrap();
        assert_eq!(receive(&y).unwrap().unwrap().message, b"through");
        drop(a);
        assert!(receive(&b).unwrap().is_none());
        assert_eq!(send(&b, &vec![0; MAX_MESSAGE + 1], &[]), Err(Errno::MSGSIZE));
    }
}
