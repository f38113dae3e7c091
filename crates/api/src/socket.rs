//! A client's socket, shared by who reads and writes it and who waits for the client to go away.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where a client is connected.
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A socket with several holders; the last one closes it.
#[derive(Clone)]
pub struct Shared(pub Arc<Socket>);

/// Who asks: every request has it as an extension.
#[derive(Clone)]
pub struct Client(pub Shared);

impl Client {
    /// Resolves when the client has closed its connection, or its sending half: as Docker, which stops working for
    /// such a request too.
    pub async fn gone(&self) {
        // Of all that may come, PRIORITY lets only the end through.
        let ended = match &*self.0.0 {
            Socket::Unix(stream) => stream.ready(Interest::PRIORITY).await,
            Socket::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
        };
        if let Err(e) = ended {
            tracing::debug!("a client's connection is not watched any more: {e}");
        }
    }
}

impl Shared {
    /// Something that was sent has not been read by the other side.
    pub fn is_unread(&self) -> bool {
        let unread = match &*self.0 {
            Socket::Unix(stream) => kernel::fds::unread(stream.as_fd()),
            Socket::Tcp(stream) => kernel::fds::unread(stream.as_fd()),
        };
        unread.is_ok_and(|bytes| bytes > 0)
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let read = match &*self.0 {
                Socket::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_read(buf.initialize_unfilled())
                }
                Socket::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_read(buf.initialize_unfilled())
                }
            };
            match read {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let written = match &*self.0 {
                Socket::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_write(bytes)
                }
                Socket::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_write(bytes)
                }
            };
            match written {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // by a duplicate, since tokio wants a stream of its own for it
        let shut = match &*self.0 {
            Socket::Unix(stream) => {
                let fd = stream.as_fd().try_clone_to_owned();
                fd.and_then(|fd| std::os::unix::net::UnixStream::from(fd).shutdown(Shutdown::Write))
            }
            Socket::Tcp(stream) => {
                let fd = stream.as_fd().try_clone_to_owned();
                fd.and_then(|fd| std::net::TcpStream::from(fd).shutdown(Shutdown::Write))
            }
        };
        Poll::Ready(shut)
    }
}
