//! Checks the servers of all upstreams, each at its own pace, on the control runtime.
//!
//! Both nodes check, owner or not: the standby knows what is up before it takes over. A server counts as up until its
//! first check: a node that has just started serves at once, and one bad first check, not `fall` of them, takes a
//! server out, since nothing good was known of it.
//!
//! Not here: what a web thread sees of a server while it uses it (a refused connection is no health check).

use crate::{
    clock,
    config::{HealthCheck, HealthKind, Upstream},
    http::proxy_header,
    time::Instant,
};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// The servers of one upstream, and which of them are up: written by the checks, read by every web thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Upstream,
    pub(super) servers: Vec<Server>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    up: AtomicBool,
    seen: Mutex<Seen>,
}

/// What the checks saw; touched only by them and by whoever looks at the view.
#[derive(Debug, Clone)]
struct Seen {
    since: Instant,
    checked: bool,
    /// Checks in a row that speak against the state.
    against: u32,
    error: Option<String>,
}

/// All upstreams of the tier.
#[derive(Debug, Clone)]
pub struct Upstreams(pub(super) Arc<[Shared]>);

/// An upstream, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerView>,
}

/// A server, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it gets requests.
    pub up: bool,
    /// Whether it was checked at least once.
    pub checked: bool,
    /// How long it is up or down.
    pub for_secs: u64,
    /// What the last check that failed said.
    pub error: Option<String>,
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        let seen = Seen { since: clock::now(), checked: false, against: 0, error: None };
        Self { address, up: AtomicBool::new(true), seen: Mutex::new(seen) }
    }

    /// Whether it gets requests.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Counts a check, and tells whether the server changed sides.
    fn record(&self, check: &HealthCheck, result: Result<(), String>, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (up, good) = (self.is_up(), result.is_ok());
        seen.error = result.err().or(seen.error.take());
        let needed = match (seen.checked, up) {
            (false, _) => 1,
            (true, true) => check.fall,
            (true, false) => check.rise,
        };
        seen.checked = true;
        seen.against = if up == good { 0 } else { seen.against + 1 };
        let changes = seen.against >= needed.max(1) && up != good;
        if changes {
            (seen.against, seen.since) = (0, now);
            self.up.store(good, Relaxed);
        }
        changes
    }

    fn view(&self, now: Instant) -> ServerView {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ServerView {
            address: self.address,
            up: self.is_up(),
            checked: seen.checked,
            for_secs: now.since(seen.since).as_secs(),
            error: seen.error,
        }
    }
}

impl Upstreams {
    pub(super) fn new(configured: &[Upstream]) -> Self {
        let shared = |config: &Upstream| Shared {
            config: config.clone(),
            servers: config.servers.iter().copied().map(Server::new).collect(),
        };
        Self(configured.iter().map(shared).collect())
    }

    /// What is up and what is down.
    #[must_use]
    pub fn view(&self) -> Vec<UpstreamView> {
        let now = clock::now();
        let upstream = |shared: &Shared| UpstreamView {
            name: shared.config.name.to_string(),
            servers: shared.servers.iter().map(|server| server.view(now)).collect(),
        };
        self.0.iter().map(upstream).collect()
    }
}

/// Checks all servers until it is dropped. To be spawned on the control runtime.
pub async fn run(upstreams: Upstreams) {
    let mut checks = JoinSet::new();
    for (index, shared) in upstreams.0.iter().enumerate() {
        for server in 0..shared.servers.len() {
            checks.spawn(watch(upstreams.clone(), index, server));
        }
    }
    while checks.join_next().await.is_some() {}
    // No servers, or none that is checked.
    std::future::pending().await
}

async fn watch(upstreams: Upstreams, index: usize, server: usize) {
    let Some(shared) = upstreams.0.get(index) else { return };
    let Some(server) = shared.servers.get(server) else { return };
    let check = &shared.config.health;
    if matches!(check.kind, HealthKind::None) {
        server.record(check, Ok(()), clock::now());
        return;
    }
    let mut tick = interval(check.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let result = match timeout(check.timeout, try_once(&shared.config, server.address)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", check.timeout)),
        };
        let error = result.as_ref().err().cloned();
        if server.record(check, result, clock::now()) {
            let (upstream, address) = (shared.config.name, server.address);
            match error {
                Some(error) => tracing::warn!(%upstream, server = %address, %error, "server down"),
                None => tracing::info!(%upstream, server = %address, "server up"),
            }
        }
    }
}

async fn try_once(upstream: &Upstream, address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    if let Some(version) = upstream.proxy_protocol {
        // The check is ours, and of no client.
        stream.write_all(&proxy_header::encode(version, None)).await.map_err(text)?;
    }
    let HealthKind::Http { path, host, status: (lowest, highest) } = &upstream.health.kind else { return Ok(()) };
    let host = host.clone().unwrap_or_else(|| address.to_string());
    let status = if upstream.http2 {
        ask_http2(stream, &format!("http://{host}{path}")).await?
    } else {
        ask_http1(stream, path, &host).await?
    };
    if (*lowest..=*highest).contains(&status) {
        Ok(())
    } else {
        Err(format!("status {status}, wanted {lowest} to {highest}"))
    }
}

fn request(uri: &str) -> Result<http::request::Builder, String> {
    let uri: http::Uri = uri.parse().map_err(|error| format!("{uri:?}: {error}"))?;
    Ok(Request::get(uri).header(header::USER_AGENT, "hawser-health"))
}

async fn ask_http1(stream: TcpStream, path: &str, host: &str) -> Result<u16, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = request(path)?.header(header::HOST, host).header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(text)?;
    drive(connection, async move { sender.send_request(request).await.map(|response| response.status().as_u16()) })
        .await
}

async fn ask_http2(stream: TcpStream, uri: &str) -> Result<u16, String> {
    let request = request(uri)?.body(Empty::<Bytes>::new()).map_err(text)?;
    let (mut sender, connection) =
        http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    drive(connection, async move { sender.send_request(request).await.map(|response| response.status().as_u16()) })
        .await
}

/// Drives the connection until there is an answer.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    asked: impl Future<Output = hyper::Result<u16>>,
) -> Result<u16, String> {
    let (mut connection, mut asked) = (std::pin::pin!(connection), std::pin::pin!(asked));
    tokio::select! {
        biased;
        answer = &mut asked => answer.map_err(text),
        ended = &mut connection => match asked.await {
            Ok(status) => Ok(status),
            Err(error) => Err(text(ended.err().unwrap_or(error))),
        },
    }
}

fn text(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(rise: u32, fall: u32) -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { kind: HealthKind::Tcp, interval: second, timeout: second, rise, fall }
    }

    fn server() -> Server {
        Server::new("127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn the_first_check_alone_decides() {
        let server = server();
        assert!(server.is_up());
        assert!(server.record(&check(2, 3), Err("refused".into()), Instant::ZERO));
        assert!(!server.is_up());
    }

    #[test]
    fn a_server_falls_and_rises_after_checks_in_a_row() {
        let (server, check) = (server(), check(2, 3));
        let bad = || Err("refused".to_owned());
        let mut ups = Vec::new();
        for result in [Ok(()), bad(), bad(), Ok(()), bad(), bad(), bad(), Ok(()), bad(), Ok(()), Ok(())] {
            server.record(&check, result, Instant::ZERO);
            ups.push(server.is_up());
        }
        assert_eq!(ups, [true, true, true, true, true, true, false, false, false, false, true]);
    }
}
