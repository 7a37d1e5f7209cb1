//! Serves one client connection: sees which protocol it speaks, lets hyper speak it, ends it when it drains.
//!
//! hyper-util's automatic choice between HTTP/1.1 and HTTP/2 is not used: it waits for the first bytes without an end,
//! and so does hyper for the HTTP/2 preface.

use super::{
    Body, respond,
    scope::{Connection, Drain},
    stream::{Agreed, Prefix, Stream, Transport},
};
use crate::limits::{
    FIRST_BYTE_GRACE, H2_CONNECTION_WINDOW_BYTES, H2_ERROR_RESETS_MAX, H2_HEADER_LIST_BYTES_MAX, H2_IDLE_MAX,
    H2_PENDING_RESETS_MAX, H2_PING_INTERVAL, H2_PING_TIMEOUT, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES,
    H2_STREAMS_MAX, HEAD_BYTES_MAX, HTTP1_BUFFER_BYTES,
};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, pin::pin, rc::Rc, sync::Arc};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// Answers requests.
pub trait Handler: 'static {
    /// Answers one.
    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response<Body>>;
}

/// Spawns on the thread's own runtime.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves `stream` until it ends.
pub async fn serve<S: Transport, H: Handler>(mut stream: S, connection: Arc<Connection>, handler: Rc<H>) {
    let Some((prefix, protocol)) = first_bytes(&mut stream, &connection).await else { return };
    if matches!(protocol, Protocol::Http2) {
        connection.speaks_http2();
    }
    if matches!(protocol, Protocol::Http1) && S::SENDS_FILES && stream.is_write_vectored() {
        connection.takes_parcels();
    }
    let io = TokioIo::new(Stream::new(stream, prefix, Arc::clone(&connection)));
    match protocol {
        Protocol::Http1 => serve_http1(io, connection, handler).await,
        Protocol::Http2 => serve_http2(io, connection, handler).await,
    }
}

enum Protocol {
    Http1,
    Http2,
}

/// No HTTP/1.1 method begins like the preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI ";

/// Waits for the first bytes, and tells from them what is spoken. None: nothing came, or not in time.
async fn first_bytes<S: Transport>(stream: &mut S, connection: &Arc<Connection>) -> Option<(Prefix, Protocol)> {
    let (mut prefix, patience) = (Prefix::new(), connection.patience.head);
    // A connection opened in advance, as browsers do, is not in flight for long.
    match timeout(FIRST_BYTE_GRACE.min(patience), read_more(stream, &mut prefix)).await {
        Ok(read) => read?,
        Err(_) => {
            connection.idle();
            let mut drain = connection.scope.watch();
            tokio::select! {
                read = timeout(patience, read_more(stream, &mut prefix)) => read.ok()??,
                _ = drain.wait_for(|drain| *drain >= Drain::Stop) => return None,
            }
            connection.busy();
        }
    }
    while prefix.len() < PREFACE.len() && PREFACE.starts_with(&prefix) {
        timeout(patience, read_more(stream, &mut prefix)).await.ok()??;
    }
    let protocol = if prefix.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
    // Whoever agreed on one protocol and speaks another means somebody else (RFC 7301 §5.1).
    match (stream.agreed(), &protocol) {
        (None, _) | (Some(Agreed::Http1), Protocol::Http1) | (Some(Agreed::Http2), Protocol::Http2) => {
            Some((prefix, protocol))
        }
        (Some(Agreed::Http1 | Agreed::Http2), Protocol::Http1 | Protocol::Http2) => None,
    }
}

/// Reads what is missing in the prefix, or less. None: the client is gone.
async fn read_more<S: Transport>(stream: &mut S, prefix: &mut Prefix) -> Option<()> {
    let mut bytes = [0_u8; PREFACE.len()];
    let length = stream.read(&mut bytes[prefix.len()..]).await.ok()?;
    let start = prefix.len();
    prefix.try_extend_from_slice(&bytes[start..start + length]).ok()?;
    (length > 0).then_some(())
}

async fn serve_http1<S: Transport, H: Handler>(io: TokioIo<Stream<S>>, connection: Arc<Connection>, handler: Rc<H>) {
    let service = service_fn(|request| answer(Rc::clone(&handler), request, Arc::clone(&connection)));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(connection.patience.head)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .max_header_size(HEAD_BYTES_MAX);
    let mut serving = pin!(builder.serve_connection(io, service).with_upgrades());
    let mut drain = connection.scope.watch();
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::trace!(%error, peer = ?connection.peer, "connection ended");
                }
                return;
            }
            _ = drain.wait_for(|drain| *drain >= Drain::Close), if !told => told = true,
        }
        // One whose next request is just coming is left alone: its response will say `Connection: close`.
        if !connection.is_receiving() {
            serving.as_mut().graceful_shutdown();
        }
    }
}

async fn serve_http2<S: Transport, H: Handler>(io: TokioIo<Stream<S>>, connection: Arc<Connection>, handler: Rc<H>) {
    let service = service_fn(|request| answer(Rc::clone(&handler), request, Arc::clone(&connection)));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_ERROR_RESETS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BYTES_MAX)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut drain = connection.scope.watch();
    let mut level = Drain::Off;
    let mut tick = interval_at(Instant::now() + FIRST_BYTE_GRACE, H2_IDLE_MAX / 2);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut idle_ticks) = (0, 0);
    loop {
        let known = level;
        tokio::select! {
            biased;
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::trace!(%error, peer = ?connection.peer, "connection ended");
                }
                return;
            }
            () = connection.first_in_drain.notified() => level = Drain::Off,
            _ = drain.wait_for(|now| *now > known) => {}
            _ = tick.tick() => {
                let idle = connection.active() == 0 && connection.seen() == seen;
                idle_ticks = if idle { idle_ticks + 1 } else { 0 };
                seen = connection.seen();
                match idle_ticks {
                    0..=2 => {}
                    3 => serving.as_mut().graceful_shutdown(),
                    _ => return,
                }
                if connection.active() == 0 {
                    connection.idle();
                }
                continue;
            }
        }
        level = level.max(connection.scope.drain());
        // A client that has not sent its first request yet would only come back: it is told after that.
        if connection.seen() > 0 || level == Drain::Stop {
            serving.as_mut().graceful_shutdown();
        }
    }
}

/// What holds for every request, whoever answers it.
async fn answer<H: Handler>(
    handler: Rc<H>,
    request: Request<Incoming>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, Infallible> {
    let in_progress = connection.begin();
    let (method, version) = (request.method().clone(), request.version());
    let response = match check(&request) {
        Ok(()) => handler.handle(request, Arc::clone(&connection)).await,
        Err(refusal) => refusal,
    };
    connection.counters.response(response.status());
    let mut response = respond::for_method(&method, response);
    let http1 = version < Version::HTTP_2;
    let draining = connection.scope.drain() != Drain::Off;
    if http1 && draining && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if http1 && draining {
        connection.close_after_response();
    }
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, body.of(in_progress)))
}

/// RFC 9112 §3.2: a request of HTTP/1.1 has exactly one `Host`, and a valid one.
#[expect(clippy::result_large_err, reason = "the response is what is wanted, once per refused request")]
fn check(request: &Request<Incoming>) -> Result<(), Response<Body>> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, more) = (hosts.next(), hosts.next());
    let valid = |value: &HeaderValue| {
        value.to_str().is_ok_and(|host| {
            host.is_empty() || host.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'))
        })
    };
    let fine = match (first, more) {
        (_, Some(_)) => false,
        (None, None) => request.version() != Version::HTTP_11,
        (Some(host), None) => valid(host),
    };
    if fine {
        return Ok(());
    }
    Err(respond::closing(respond::page(StatusCode::BAD_REQUEST, "A request needs exactly one valid Host.")))
}
