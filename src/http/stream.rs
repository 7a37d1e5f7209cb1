//! The bytes of one client connection, under hyper.
//!
//! Counts them, ends a connection whose client takes nothing for too long, reads on for a moment after the last
//! response (RFC 9112 §9.6: else unread bytes of the request turn into a reset that destroys the response), and resets
//! a connection whose response could not be sent whole.

use super::{
    counters::count,
    flood::{Account, Flood},
    scope::Connection,
};
use crate::limits::{H2_LINGER_BYTES_MAX, LINGER_MAX};
use arrayvec::ArrayVec;
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

/// What carries a connection.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the close that follows a reset.
    fn reset_on_close(&self);

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
    fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot reset a connection");
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
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
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
