//! The bytes of one client connection, under hyper.
//!
//! Counts them, ends a connection whose client takes nothing for too long, reads on for a moment after the last
//! response (RFC 9112 §9.6: else unread bytes of the request turn into a reset that destroys the response), and resets
//! a connection whose response could not be sent whole.

use super::{
    counters::count,
    flood::{Account, Flood},
    parcel,
    scope::Connection,
};
use crate::limits::{H2_LINGER_BYTES_MAX, LINGER_MAX};
use arrayvec::ArrayVec;
use rustix::{
    fs::sendfile,
    io::{Errno, pread},
    net::{SendFlags, send},
};
use std::{
    fmt,
    future::Future,
    io,
    os::fd::BorrowedFd,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

/// What carries a connection.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether [`Transport::poll_send_file`] and [`Transport::poll_send_more`] can be used. Never where bytes are looked at
    /// before they are sent, as TLS does: it would seal what only stands for a file.
    const SENDS_FILES: bool = false;

    /// Makes the close that follows a reset.
    fn reset_on_close(&self);

    /// Sends bytes of a file from the page cache; 0 at its end.
    fn poll_send_file(
        &self,
        _cx: &mut Context<'_>,
        _file: BorrowedFd<'_>,
        _at: u64,
        _length: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Sends bytes that others follow at once: they may share a packet.
    fn poll_send_more(&self, _cx: &mut Context<'_>, _bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// What client and server have agreed to speak before the first byte of it (ALPN, RFC 7301).
    fn agreed(&self) -> Option<Agreed> {
        None
    }
}

/// What client and server have agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Transport for TcpStream {
    const SENDS_FILES: bool = true;

    fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        at: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        poll_call(self, cx, || match sendfile(self, file, Some(&mut at.clone()), length) {
            // A file system that cannot.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let mut bytes = [0; 16 * 1024];
                let length = length.min(bytes.len());
                match pread(file, bytes.get_mut(..length).unwrap_or_default(), at)? {
                    0 => Ok(0),
                    read => Ok(send(self, bytes.get(..read).unwrap_or_default(), SendFlags::NOSIGNAL)?),
                }
            }
            sent => Ok(sent?),
        })
    }

    fn poll_send_more(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_call(self, cx, || Ok(send(self, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?))
    }

    fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot reset a connection");
        }
    }
}

/// A call that writes to the socket, when that can take bytes.
fn poll_call(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    call: impl Fn() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, &call) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}

impl Transport for UnixStream {
    fn reset_on_close(&self) {}
}

impl Transport for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }

    fn agreed(&self) -> Option<Agreed> {
        match self.get_ref().1.alpn_protocol() {
            Some(b"h2") => Some(Agreed::Http2),
            Some(_) => Some(Agreed::Http1),
            None => None,
        }
    }
}

/// Bytes already read to see which protocol is spoken.
pub(super) type Prefix = ArrayVec<u8, 4>;

/// The bytes of one client connection.
pub struct Stream<S: Transport> {
    inner: S,
    prefix: Prefix,
    connection: Arc<Connection>,
    stall: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read and thrown away since.
    lingered: usize,
    /// HTTP/2 only.
    account: Option<Box<Account>>,
}

impl<S: Transport> Stream<S> {
    pub(super) fn new(inner: S, prefix: Prefix, connection: Arc<Connection>) -> Self {
        connection.received(prefix.len() as u64);
        let account = (!connection.is_http1()).then(|| Box::new(Account::new(Instant::now())));
        Self { inner, prefix, connection, stall: None, linger: None, lingered: 0, account }
    }

    /// Ends a connection of HTTP/2 on which nothing but frames without content come.
    fn watch_frames(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(account) = &mut self.account else { return Ok(()) };
        account.received(bytes, Instant::now).map_err(|Flood| {
            count(&self.connection.counters.floods);
            tracing::debug!(peer = ?self.connection.peer, "a flood of HTTP/2 frames: connection cut off");
            io::Error::new(io::ErrorKind::InvalidData, "a flood of frames that carry nothing")
        })
    }

    /// Sends from the part of a file whose turn it is, of which hyper has `wanted` bytes in its queue.
    fn send_parcel(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut parcels = self.connection.parcels();
        let Some(parcel) = parcels.front_mut() else {
            return Poll::Ready(Err(io::Error::other("no part of a file is to be sent")));
        };
        let length = wanted.min(parcel.length);
        let sent = ready!(self.inner.poll_send_file(cx, parcel.file(), parcel.at, length));
        match sent {
            Ok(0) => {
                self.connection.break_off();
                let what = "the file became shorter while it was sent";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
            }
            Ok(bytes) => {
                parcel.at += bytes as u64;
                parcel.length -= bytes.min(parcel.length);
                if parcel.length == 0 {
                    parcels.pop_front();
                }
            }
            Err(_) => {}
        }
        Poll::Ready(sent)
    }

    /// Lets a pending write end the connection when no byte was taken for too long.
    fn watch_write(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(written) => {
                self.stall = None;
                if let Ok(bytes) = written {
                    self.connection.counters.bytes_out.fetch_add(bytes as u64, Relaxed);
                    if let Some(account) = &mut self.account {
                        account.sent(bytes);
                    }
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let limit = self.connection.patience.write;
                let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(limit)));
                ready!(stall.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
            }
        }
    }
}

impl<S: Transport> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl<S: Transport> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..length]);
            self.prefix.drain(..length);
            let start = buffer.filled().len() - length;
            return Poll::Ready(self.watch_frames(&buffer.filled()[start..]));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let length = buffer.filled().len() - before;
        if length > 0 {
            self.connection.received(length as u64);
        }
        Poll::Ready(self.watch_frames(&buffer.filled()[before..]))
    }
}

impl<S: Transport> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match pieces.iter().position(parcel::stands_in) {
            None => Pin::new(&mut self.inner).poll_write_vectored(cx, pieces),
            Some(at) => match pieces.iter().take(at).find(|piece| !piece.is_empty()) {
                Some(before) => self.inner.poll_send_more(cx, before),
                None => self.send_parcel(cx, pieces.get(at).map_or(0, |piece| piece.len())),
            },
        };
        self.watch_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.is_tunnel() {
            // Its other half may go on, and what comes is not ours to read.
            return Pin::new(&mut this.inner).poll_shutdown(cx);
        }
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                this.connection.idle();
                this.linger.insert(Box::pin(sleep(LINGER_MAX)))
            }
        };
        // The deadline first: reading may use up the task's turn each time.
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0_u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer));
            this.lingered += buffer.filled().len();
            let flood = this.account.is_some() && this.lingered > H2_LINGER_BYTES_MAX;
            if read.is_err() || buffer.filled().is_empty() || flood {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Transport> Drop for Stream<S> {
    fn drop(&mut self) {
        self.connection.idle();
        if self.connection.is_broken() {
            self.inner.reset_on_close();
        }
    }
}
