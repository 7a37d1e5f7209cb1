//! Passes a request on to a server of a pool, and its response back.
//!
//! Bodies stream both ways: a piece is read only when the other side has taken the one before. A request is tried on
//! another connection or server only when the first cannot have seen it: the connect failed, or the connection handed
//! it back unsent. One exception, which RFC 9112 §9.3.1 allows: a kept connection ended before any answer, as when the
//! server closes it in that very moment, and the request is safe and has no body.

use super::{
    forward,
    pool::{Idle, Lease, Pool, Progress, RequestBody, Want},
    tunnel,
};
use crate::{
    http::{Body, Connection, closing, count, page},
    limits::UPSTREAM_HANDBACKS_MAX,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::sleep_until;

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoServer,
    Unreachable,
    ConnectTimeout,
    Broken,
    ResponseTimeout,
    ClientStalled,
    /// It asked for an upgrade that cannot be had here.
    NoUpgrade,
}

impl Failure {
    fn page(self) -> Response<Body> {
        let (status, sentence) = match self {
            Self::NoServer => (StatusCode::SERVICE_UNAVAILABLE, "No server of this site is up at the moment."),
            Self::Unreachable => (StatusCode::BAD_GATEWAY, "The server behind this site refuses the connection."),
            Self::ConnectTimeout => (StatusCode::GATEWAY_TIMEOUT, "The server behind this site cannot be reached."),
            Self::Broken => (StatusCode::BAD_GATEWAY, "The server behind this site broke the connection off."),
            Self::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "The server behind this site took too long."),
            Self::ClientStalled => (StatusCode::REQUEST_TIMEOUT, "The request did not come to its end in time."),
            Self::NoUpgrade => (StatusCode::NOT_IMPLEMENTED, "This site cannot change to another protocol."),
        };
        let page = page(status, sentence);
        if self == Self::ClientStalled { closing(page) } else { page }
    }
}

/// Passes `request` on to a server of `pool`.
pub(super) async fn forward(
    pool: &Rc<Pool>,
    mut request: Request<Incoming>,
    connection: &Arc<Connection>,
) -> Response<Body> {
    let wanted = forward::upgrade(request.version(), request.headers());
    if wanted.is_some() && pool.config().http2 {
        return Failure::NoUpgrade.page();
    }
    let upgrade = wanted.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
    let (mut parts, body) = request.into_parts();
    let protocol = upgrade.as_ref().map(|(protocol, _)| protocol);
    if prepare(&mut parts, pool, connection, protocol).is_none() {
        return page(StatusCode::BAD_REQUEST, "The address holds what no address may hold.");
    }
    let (body, progress) = RequestBody::new(body, pool.config().idle_timeout);
    let attempt = Attempt { pool, connection, progress: &progress };
    match Box::pin(attempt.run(Request::from_parts(parts, body))).await {
        Ok((response, lease)) => answer(response, lease, pool, connection, upgrade.map(|(_, client)| client)),
        Err(failure) => failure.page(),
    }
}

/// Makes the head of the client's request that of ours.
fn prepare(
    parts: &mut request::Parts,
    pool: &Pool,
    connection: &Connection,
    upgrade: Option<&HeaderValue>,
) -> Option<()> {
    let client = forward::Client { ip: connection.peer.map(|peer| peer.ip()), secure: connection.secure.as_ref() };
    let host = || HeaderValue::from_str(pool.config().name.as_str()).unwrap_or(HeaderValue::from_static("localhost"));
    forward::request(&mut parts.headers, &parts.uri, client, host);
    parts.extensions.clear();
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::UPGRADE, protocol.clone());
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if pool.config().http2 {
        parts.version = Version::HTTP_2;
        parts.headers.remove(header::CONNECTION);
        let host = parts.headers.remove(header::HOST)?;
        parts.uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path).build().ok()?;
    } else {
        parts.version = Version::HTTP_11;
        parts.uri = path.parse().ok()?;
    }
    Some(())
}

/// The attempts to have one request answered.
struct Attempt<'a> {
    pool: &'a Rc<Pool>,
    connection: &'a Arc<Connection>,
    progress: &'a Rc<Progress>,
}

/// What became of a request on one connection.
enum Sent {
    Answered(Response<Incoming>),
    /// It never left.
    HandedBack(Request<RequestBody>),
    /// The connection ended before any answer.
    Lost,
    Failed(Failure),
}

impl Attempt<'_> {
    async fn run(&self, mut request: Request<RequestBody>) -> Result<(Response<Incoming>, Lease), Failure> {
        let (mut tried, mut handed_back, mut last) = (Vec::new(), 0, Failure::NoServer);
        loop {
            let Some(server) = self.pool.pick(&tried) else { return Err(last) };
            let want = if handed_back < UPSTREAM_HANDBACKS_MAX { Want::Any } else { Want::New };
            let mut lease = match self.pool.connect(server, want, self.connection.peer.zip(self.connection.local)).await
            {
                Ok(lease) => lease,
                Err(error) => {
                    last = self.cannot_connect(server, &error);
                    tried.push(server);
                    continue;
                }
            };
            let again = self.copy_if_safe(&request, &lease);
            request = match self.send(&mut lease, request).await {
                Sent::Answered(response) => return Ok((response, lease)),
                Sent::Failed(failure) => return Err(self.failed(failure)),
                Sent::HandedBack(request) => request,
                Sent::Lost => match again {
                    Some(request) => request,
                    None => return Err(self.failed(Failure::Broken)),
                },
            };
            count(&self.connection.counters.upstream_retries);
            // A new connection that hands a request back has failed as a connect does.
            if !lease.reused {
                last = self.failed(Failure::Broken);
                tried.push(server);
            }
            handed_back += 1;
        }
    }

    /// Sends it, and waits for the head of the response: that long after the last piece of the request's body.
    async fn send(&self, lease: &mut Lease, request: Request<RequestBody>) -> Sent {
        let limit = self.pool.config().response_timeout;
        self.progress.last.set(tokio::time::Instant::now());
        let mut sending = pin!(lease.send(request));
        let sent = loop {
            let deadline = self.progress.last.get() + limit;
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                () = sleep_until(deadline) => {
                    if self.progress.last.get() + limit <= deadline {
                        return Sent::Failed(Failure::ResponseTimeout);
                    }
                }
            }
        };
        let mut error = match sent {
            Ok(response) => return Sent::Answered(response),
            Err(error) => error,
        };
        if self.progress.failed.get().is_some() {
            return Sent::Failed(Failure::ClientStalled);
        }
        if let Some(request) = error.take_message() {
            return Sent::HandedBack(request);
        }
        let error = error.into_error();
        tracing::debug!(%error, upstream = %self.pool.config().name, "a server gave no response");
        if error.is_parse() || error.is_user() { Sent::Failed(Failure::Broken) } else { Sent::Lost }
    }

    fn copy_if_safe(&self, request: &Request<RequestBody>, lease: &Lease) -> Option<Request<RequestBody>> {
        if !lease.reused || !forward::is_safe(request.method()) || !request.body().is_end_stream() {
            return None;
        }
        let mut copy = Request::new(RequestBody::none(self.progress));
        (*copy.method_mut(), *copy.version_mut()) = (request.method().clone(), request.version());
        (*copy.uri_mut(), *copy.headers_mut()) = (request.uri().clone(), request.headers().clone());
        Some(copy)
    }

    fn cannot_connect(&self, server: usize, error: &io::Error) -> Failure {
        let (upstream, server) = (self.pool.config().name, self.pool.server(server).address);
        tracing::debug!(%upstream, %server, %error, "cannot connect to a server");
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        self.failed(if timed_out { Failure::ConnectTimeout } else { Failure::Unreachable })
    }

    fn failed(&self, failure: Failure) -> Failure {
        count(&self.connection.counters.upstream_errors);
        failure
    }
}

/// Makes the server's response ours.
fn answer(
    mut response: Response<Incoming>,
    lease: Lease,
    pool: &Rc<Pool>,
    connection: &Arc<Connection>,
    client: Option<OnUpgrade>,
) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else { return Failure::Broken.page() };
        let server = hyper::upgrade::on(&mut response);
        let protocol = response.headers_mut().remove(header::UPGRADE);
        let (mut parts, _) = response.into_parts();
        forward::strip(&mut parts.headers);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.extend(protocol.map(|protocol| (header::UPGRADE, protocol)));
        tokio::task::spawn_local(tunnel::run(client, server, lease, Arc::clone(connection)));
        return Response::from_parts(parts, Body::empty());
    }
    let (mut parts, incoming) = response.into_parts();
    forward::strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let idle = Idle::new(pool.config().idle_timeout);
    let body = ResponseBody { incoming, idle, ended: false, lease: Some((lease, Rc::clone(pool))) };
    let body = if body.is_end_stream() { Body::empty() } else { Body::stream(body) };
    Response::from_parts(parts, body)
}

/// The body of a response, on its way from server to client; at its end the connection goes back to the pool.
#[derive(Debug)]
struct ResponseBody {
    incoming: Incoming,
    idle: Idle,
    ended: bool,
    lease: Option<(Lease, Rc<Pool>)>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let polled = this.idle.poll_frame(&mut this.incoming, cx);
        this.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let whole = self.ended || self.incoming.is_end_stream();
        if let Some((lease, pool)) = self.lease.take().filter(|_| whole) {
            pool.give_back(lease);
        }
    }
}
