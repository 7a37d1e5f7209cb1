//! One thread's connections to the servers of one upstream, and the turn in which the servers are used.
//!
//! HTTP/1.1: a connection carries one request at a time and is kept for the next, last kept first used. HTTP/2: one
//! connection per server carries all. Where a server is told the client by a PROXY header, a connection is of one client:
//! none is kept.

use super::health::{Server, Shared, Upstreams};
use crate::{
    config::Upstream,
    http::{
        LocalExecutor, keep_alive,
        proxy_header::{self, Proxied},
    },
    limits::{UPSTREAM_IDLE_CONNECTIONS_MAX, UPSTREAM_KEEP_IDLE},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::spawn_local,
    time::{Instant, Sleep, sleep, timeout},
};

/// One thread's connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    upstreams: Upstreams,
    index: usize,
    next: Cell<usize>,
    slots: Vec<Slot>,
}

/// The connections to one server.
#[derive(Debug, Default)]
struct Slot {
    kept: RefCell<Vec<Kept>>,
    http2: RefCell<Option<http2::SendRequest<RequestBody>>>,
}

#[derive(Debug)]
struct Kept {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// A connection to a server, for one request.
#[derive(Debug)]
pub(super) struct Lease {
    sender: Sender,
    server: usize,
    /// It has carried requests before: the server may have closed it meanwhile.
    pub(super) reused: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Whether a kept connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Any,
    New,
}

impl Pool {
    /// For the upstream at `index`; threads begin with different servers.
    pub(super) fn new(upstreams: Upstreams, index: usize, thread: usize) -> Rc<Self> {
        let servers = upstreams.0.get(index).map_or(0, |shared| shared.servers.len());
        let slots = (0..servers).map(|_| Slot::default()).collect();
        Rc::new(Self { upstreams, index, next: Cell::new(thread), slots })
    }

    fn shared(&self) -> &Shared {
        &self.upstreams.0[self.index]
    }

    pub(super) fn config(&self) -> &Upstream {
        &self.shared().config
    }

    pub(super) fn server(&self, server: usize) -> &Server {
        &self.shared().servers[server]
    }

    /// The next server in turn that is up and not among those tried.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<usize> {
        let count = self.slots.len();
        let start = self.next.get();
        self.next.set(start.wrapping_add(1));
        let turn = (0..count).map(|step| start.wrapping_add(step) % count);
        turn.into_iter().find(|server| self.server(*server).is_up() && !tried.contains(server))
    }

    /// A connection to `server`, kept or new. `client`: who asks, and at which address, for a PROXY header.
    pub(super) async fn connect(&self, server: usize, want: Want, client: Proxied) -> io::Result<Lease> {
        if let Some(sender) = self.kept(server).filter(|_| want == Want::Any) {
            return Ok(Lease { sender, server, reused: true });
        }
        let (address, limit) = (self.server(server).address, self.config().connect_timeout);
        let mut stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        if let Some(version) = self.config().proxy_protocol {
            // A new connection takes so few bytes at once.
            stream.write_all(&proxy_header::encode(version, client)).await?;
        }
        let sender = if self.config().http2 {
            let sender = handshake_http2(stream).await?;
            if self.config().proxy_protocol.is_none() {
                self.slots[server].http2.replace(Some(sender.clone()));
            }
            Sender::Http2(sender)
        } else {
            Sender::Http1(handshake_http1(stream).await?)
        };
        Ok(Lease { sender, server, reused: false })
    }

    fn kept(&self, server: usize) -> Option<Sender> {
        let slot = &self.slots[server];
        if let Some(sender) = slot.http2.borrow().as_ref().filter(|sender| sender.is_ready()) {
            return Some(Sender::Http2(sender.clone()));
        }
        let mut kept = slot.kept.borrow_mut();
        let index =
            kept.iter().rposition(|kept| kept.sender.is_ready() && kept.since.elapsed() < UPSTREAM_KEEP_IDLE)?;
        Some(Sender::Http1(kept.remove(index).sender))
    }

    /// Keeps a connection whose response has ended.
    pub(super) fn give_back(&self, lease: Lease) {
        let Sender::Http1(sender) = lease.sender else { return };
        if self.config().proxy_protocol.is_some() {
            return;
        }
        let mut kept = self.slots[lease.server].kept.borrow_mut();
        if !sender.is_closed() && kept.len() < UPSTREAM_IDLE_CONNECTIONS_MAX {
            kept.push(Kept { sender, since: Instant::now() });
        }
    }

    /// Closes what was kept for too long, or belongs to a server that is down.
    pub(super) fn tidy(&self) {
        for (server, slot) in self.slots.iter().enumerate() {
            let up = self.server(server).is_up();
            let fresh = |kept: &Kept| !kept.sender.is_closed() && kept.since.elapsed() < UPSTREAM_KEEP_IDLE;
            slot.kept.borrow_mut().retain(|kept| up && fresh(kept));
            slot.http2.borrow_mut().take_if(|sender| !up || sender.is_closed());
        }
    }
}

impl Lease {
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

async fn handshake_http1(stream: TcpStream) -> io::Result<http1::SendRequest<RequestBody>> {
    let builder = http1::Builder::new();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "connection to a server ended");
        }
    });
    Ok(sender)
}

async fn handshake_http2(stream: TcpStream) -> io::Result<http2::SendRequest<RequestBody>> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection to a server ended");
        }
    });
    Ok(sender)
}

/// How far the body of a request has come, as seen by who waits for the response.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last piece came then.
    pub(super) last: Cell<Instant>,
    /// The client failed to send it: it stalled, or went.
    pub(super) failed: Cell<Option<io::ErrorKind>>,
}

/// The body of a request, on its way from client to server. A client that sends nothing for too long ends it.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    idle: Idle,
    progress: Rc<Progress>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, idle: Duration) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress { last: Cell::new(Instant::now()), failed: Cell::new(None) });
        (Self { incoming: Some(incoming), idle: Idle::new(idle), progress: Rc::clone(&progress) }, progress)
    }

    /// No body, for a request that is sent again.
    pub(super) fn none(progress: &Rc<Progress>) -> Self {
        Self { incoming: None, idle: Idle::new(Duration::ZERO), progress: Rc::clone(progress) }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = this.idle.poll_frame(incoming, cx);
        if let Poll::Ready(frame) = &polled {
            this.progress.last.set(Instant::now());
            if let Some(Err(error)) = frame {
                this.progress.failed.set(Some(error.kind()));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// Ends a body that makes no progress for too long.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::TimedOut.into())))
    }
}
