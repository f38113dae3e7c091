//! Bytes and descriptors through one stream socket, without waiting: both sides wait in their own way.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SPACE: usize = rustix::cmsg_space!(ScmRights(16));

/// Send as much as the socket takes; the descriptors go with the first byte. Never raises SIGPIPE.
///
/// # Errors
/// The socket's; `EAGAIN` where it would wait.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Receive what is there: the number of bytes, 0 at the end. Descriptors are appended, closed on exec.
///
/// # Errors
/// The socket's; `EAGAIN` where it would wait.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
    flags: RecvFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(got.bytes)
}

/// The same without waiting.
///
/// # Errors
/// The socket's; `EAGAIN` where there is nothing yet.
pub fn receive_now(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> Result<usize, Errno> {
    receive(socket, buffer, descriptors, RecvFlags::DONTWAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn descriptors_travel_with_the_bytes() {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert_eq!(send(&here, b"one", &[writer.as_fd(), writer.as_fd()]).unwrap(), 3);
        drop(writer);
        let (mut buffer, mut descriptors) = ([0; 16], VecDeque::new());
        assert_eq!(receive(&there, &mut buffer, &mut descriptors, RecvFlags::DONTWAIT).unwrap(), 3);
        assert_eq!(descriptors.len(), 2);
        for fd in descriptors {
            rustix::io::write(fd, b"x").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "xx");
        drop(here);
        assert_eq!(receive(&there, &mut buffer, &mut VecDeque::new(), RecvFlags::DONTWAIT).unwrap(), 0);
        assert_eq!(send(&there, b"gone", &[]), Err(Errno::PIPE));
    }
}
