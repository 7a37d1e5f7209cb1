//! Real visitors during a planned move: keep-alive clients with the patience of a browser, and `curl` if it is there.
//!
//! A request has *failed* if its visitor would have seen it fail: no complete answer within [`PATIENCE`], or a status
//! other than 200. As every client does (RFC 9110 §9.2.2, RFC 9112 §9.3.1), a visitor repeats a GET once on a new
//! connection if a kept connection closes before any answer; such requests are counted as repeated.

use super::error::{Attempt, Error, Result};
use super::netns::Netns;
use super::process::run_to_end;
use crate::clock;
use crate::time::Duration;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// How long a visitor waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
const VISITORS: usize = 4;
/// What a visitor does between two requests.
const THINKING: Duration = Duration::from_millis(5);
/// Time between two runs of curl, each of which is a new process and a new connection.
const CURL_PAUSE: Duration = Duration::from_millis(20);

/// What the visitors met.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadReport {
    /// Requests that ended, well or badly.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests repeated on a new connection.
    pub repeated: u64,
    /// The slowest request, in milliseconds.
    pub slowest_ms: u64,
    /// Runs of curl; none where it is not installed.
    pub curl_requests: u64,
    /// Runs of curl that failed.
    pub curl_failed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    repeated: AtomicU64,
    slowest_ms: AtomicU64,
    curl_requests: AtomicU64,
    curl_failed: AtomicU64,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Visitors that ask until they are told to finish.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Load {
    /// Lets visitors in `network` loose on `target`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(network: &Netns, target: SocketAddr) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let (ours, curls) = (Arc::clone(&counts), Arc::clone(&counts));
        let threads = vec![
            network
                .spawn("visitors", move || visitors(target, &ours, Crowd { visitors: VISITORS, thinking: THINKING }))?,
            network.spawn("curl", move || curl(target, &curls))?,
        ];
        Ok(Self { counts, threads })
    }

    /// As many visitors as you like, none of whom ever pauses.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn hard(network: &Netns, target: SocketAddr, visitors: usize) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let ours = Arc::clone(&counts);
        let crowd = Crowd { visitors, thinking: Duration::ZERO };
        let threads = vec![network.spawn("visitors", move || self::visitors(target, &ours, crowd))?];
        Ok(Self { counts, threads })
    }

    /// Lets them finish what they have begun, and tells what they met.
    ///
    /// # Errors
    /// If the visitors ended badly.
    pub fn finish(mut self) -> Result<LoadReport> {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Error::new("the visitors panicked"))?.or_cannot("let visitors in")?;
        }
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(LoadReport {
            requests: read(&self.counts.requests),
            failed: read(&self.counts.failed),
            repeated: read(&self.counts.repeated),
            slowest_ms: read(&self.counts.slowest_ms),
            curl_requests: read(&self.counts.curl_requests),
            curl_failed: read(&self.counts.curl_failed),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

fn curl(target: SocketAddr, counts: &Counts) {
    while counts.goes_on() {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--output", "/dev/null", "--max-time", "10"]);
        command.arg(format!("http://{target}/node.txt"));
        match run_to_end(&mut command, PATIENCE * 2) {
            Ok(output) if output.status.success() => {}
            Ok(_) => drop(counts.curl_failed.fetch_add(1, Ordering::Relaxed)),
            Err(_) => return, // not installed
        }
        counts.curl_requests.fetch_add(1, Ordering::Relaxed);
        thread::sleep(CURL_PAUSE);
    }
}

/// How many visitors there are, and what each does between two requests.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    visitors: usize,
    thinking: Duration,
}

fn visitors(target: SocketAddr, counts: &Arc<Counts>, crowd: Crowd) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    LocalSet::new().block_on(&runtime, async {
        let visitors: Vec<_> =
            (0..crowd.visitors).map(|_| spawn_local(visitor(target, Arc::clone(counts), crowd.thinking))).collect();
        for visitor in visitors {
            drop(visitor.await);
        }
    });
}

type Kept = Option<SendRequest<Empty<Bytes>>>;

async fn visitor(target: SocketAddr, counts: Arc<Counts>, thinking: Duration) {
    let mut kept: Kept = None;
    for path in ["/node.txt", "/app/hello"].into_iter().cycle() {
        if !counts.goes_on() {
            return;
        }
        let began = clock::now();
        let answer = timeout(PATIENCE, fetch(&mut kept, target, path, &counts)).await;
        let took = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.slowest_ms.fetch_max(took, Ordering::Relaxed);
        if !matches!(answer, Ok(Ok(StatusCode::OK))) {
            tracing::info!(path, ?answer, "a visitor's request failed");
            counts.failed.fetch_add(1, Ordering::Relaxed);
            kept = None;
        }
        if !thinking.is_zero() {
            sleep(thinking).await;
        }
    }
}

async fn fetch(kept: &mut Kept, target: SocketAddr, path: &str, counts: &Counts) -> Result<StatusCode> {
    if let Some(mut connection) = kept.take()
        && connection.ready().await.is_ok()
    {
        match connection.send_request(request(target, path)?).await {
            Ok(response) => {
                let status = read(response).await?;
                *kept = Some(connection);
                return Ok(status);
            }
            Err(_closed) => drop(counts.repeated.fetch_add(1, Ordering::Relaxed)),
        }
    }
    let stream = TcpStream::connect(target).await.or_cannot("connect")?;
    let (mut connection, driver) = handshake(TokioIo::new(stream)).await.or_cannot("speak HTTP")?;
    drop(spawn_local(driver));
    let response = connection.send_request(request(target, path)?).await.or_cannot("get an answer")?;
    let status = read(response).await?;
    *kept = Some(connection);
    Ok(status)
}

fn request(target: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>> {
    Request::get(path).header(HOST, target.to_string()).body(Empty::new()).or_cannot("make a request")
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<StatusCode> {
    let status = response.status();
    response.into_body().collect().await.or_cannot("read an answer")?;
    Ok(status)
}
