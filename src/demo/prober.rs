//! Measures an outage as a visitor meets it: a new connection and a small request every few milliseconds.
//!
//! Rules of the measurement:
//! - A probe *succeeds* if the whole answer (200, with the node's name) is there within [`DEADLINE`] of its launch.
//! - Probes are judged by the time of their *launch*. A failed probe thus says: who came at this moment was not served
//!   promptly. The kernel repeats a lost first packet only after a second, so a probe never gets a second chance.
//! - A *window* is from the launch of a failed probe to the launch of the first probe after the last failed one. Failed
//!   probes less than [`WINDOW_GAP`] apart belong to one window. An *outage* is the sum of all windows.
//! - No failed probe: no outage. The resolution is the time between two launches, and where the prober itself was
//!   held up, that gap is reported too.

use super::error::{Attempt, Result};
use super::lab::Host;
use super::netns::Netns;
use crate::clock;
use crate::time::{Duration, Instant};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Time between two launches.
pub const PACE: Duration = Duration::from_millis(2);
/// How long a probe waits for its answer.
pub const DEADLINE: Duration = Duration::from_millis(300);
/// Failed probes that are closer than this belong to one window.
pub const WINDOW_GAP: Duration = Duration::from_millis(100);
/// Most probes remembered: four minutes of them.
const PROBES_MAX: usize = 120_000;
/// Longest answer that a probe reads.
const ANSWER_BYTES_MAX: usize = 4096;

/// One request of one visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// When it was launched.
    pub launched: Instant,
    /// Who answered it in time; none: it failed.
    pub answered_by: Option<Host>,
    /// How long the answer took; of a failed one, how long until that was clear.
    pub took: Duration,
}

/// What the probes of some time say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outage {
    /// How many were launched.
    pub probes: usize,
    /// How many failed.
    pub failed: usize,
    /// All windows together.
    pub total: Duration,
    /// The longest window.
    pub longest: Duration,
    /// The longest time between two launches: what the prober may have missed.
    pub blind: Duration,
}

/// Judges probes, which must be in the order of their launches.
#[must_use]
pub fn judge(probes: &[Probe]) -> Outage {
    let mut outage = Outage { probes: probes.len(), ..Outage::default() };
    let mut window: Option<(Instant, Instant)> = None;
    for (at, probe) in probes.iter().enumerate() {
        let next = probes.get(at + 1).map_or(probe.launched + PACE, |next| next.launched);
        outage.blind = outage.blind.max(next.since(probe.launched));
        if probe.answered_by.is_some() {
            continue;
        }
        outage.failed += 1;
        window = match window {
            Some((start, end)) if probe.launched.since(end) < WINDOW_GAP => Some((start, next)),
            ended => {
                outage.close(ended);
                Some((probe.launched, next))
            }
        };
    }
    outage.close(window);
    outage
}

impl Outage {
    fn close(&mut self, window: Option<(Instant, Instant)>) {
        if let Some((start, end)) = window {
            self.total += end.since(start);
            self.longest = self.longest.max(end.since(start));
        }
    }
}

type Log = Arc<Mutex<VecDeque<Probe>>>;

/// A thread in a network that launches probes until it is dropped.
#[derive(Debug)]
pub struct Prober {
    log: Log,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Prober {
    /// Starts to probe `target` from `network`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(network: &Netns, target: SocketAddr) -> Result<Self> {
        let log = Log::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (thread_log, thread_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = network.spawn("prober", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, launch(target, thread_log, thread_stop)),
                Err(refusal) => tracing::error!(%refusal, "the prober has no runtime"),
            }
        })?;
        Ok(Self { log, stop, thread: Some(thread) })
    }

    /// The probes launched in a span of time, in the order of their launches. Waits until all of them are judged.
    ///
    /// # Errors
    /// If the prober has ended, so that there is nothing to judge.
    pub fn between(&self, from: Instant, to: Instant) -> Result<Vec<Probe>> {
        let judged = to + DEADLINE + PACE * 10;
        std::thread::sleep(clock::now().until(judged));
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(super::Error::new("the prober ended by itself"));
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut probes: Vec<Probe> = log.iter().filter(|p| from <= p.launched && p.launched <= to).copied().collect();
        probes.sort_by_key(|probe| probe.launched);
        Ok(probes)
    }

    /// The probes that were judged last, at most `count`.
    #[must_use]
    pub fn latest(&self, count: usize) -> Vec<Probe> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().rev().take(count).copied().collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_) | Ok(Err(_))) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the prober did not end well");
        }
    }
}

async fn launch(target: SocketAddr, log: Log, stop: Arc<AtomicBool>) {
    let request: Rc<str> = request_to(target).into();
    let judged = Rc::new(RefCell::new(log));
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (judged, request) = (Rc::clone(&judged), Rc::clone(&request));
        spawn_local(async move {
            let launched = clock::now();
            let answer = timeout(DEADLINE, ask(target, &request)).await;
            let took = clock::now().since(launched);
            let answered_by = answer.ok().and_then(std::result::Result::ok).filter(|_| took <= DEADLINE);
            note(&judged.borrow(), Probe { launched, answered_by, took });
        });
    }
}

fn note(log: &Log, probe: Probe) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == PROBES_MAX {
        log.pop_front();
    }
    log.push_back(probe);
}

/// One request, and who answered it in time. Blocks.
#[must_use]
pub fn ask_once(target: SocketAddr) -> Option<Host> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { timeout(DEADLINE, ask(target, &request_to(target))).await.ok()?.ok() })
}

fn request_to(target: SocketAddr) -> String {
    format!("GET /node.txt HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")
}

/// A new connection, one request, the answer, and a reset: five hundred connections a second would otherwise fill the
/// kernel's table of closed ones.
async fn ask(target: SocketAddr, request: &str) -> Result<Host> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.or_cannot("make a socket")?;
    socket.set_zero_linger().or_cannot("set a socket up")?;
    let mut stream = socket.connect(target).await.or_cannot("connect")?;
    stream.write_all(request.as_bytes()).await.or_cannot("send")?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if let Some(host) = node_named_in(&answer) {
            return Ok(host);
        }
        let read = stream.read_buf(&mut answer).await.or_cannot("read")?;
        if read == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Err(super::Error::new("not the answer of a node"));
        }
    }
}

/// The node that a complete answer names: a 200 whose body is the node's name and a line end.
fn node_named_in(answer: &[u8]) -> Option<Host> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let name = body.strip_suffix('\n')?;
    if head.starts_with("HTTP/1.1 200 ") { Host::with_name(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::lab::{Cable, Lab};
    use crate::demo::testing::{in_sandbox, web_stand_in};
    use std::net::Ipv4Addr;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

    fn probes(outcomes: &str) -> Vec<Probe> {
        let probe = |(at, good): (usize, char)| Probe {
            launched: Instant::from_millis(1000 + 2 * at as u64),
            answered_by: (good == '+').then_some(Host::N1),
            took: Duration::from_millis(1),
        };
        outcomes.chars().enumerate().map(probe).collect()
    }

    #[test]
    fn no_failed_probe_is_no_outage() {
        let outage = judge(&probes("+++++"));
        assert_eq!((outage.failed, outage.total, outage.probes), (0, Duration::ZERO, 5));
        assert_eq!(judge(&[]), Outage::default());
    }

    #[test]
    fn an_outage_lasts_from_the_first_failed_launch_to_the_launch_after_the_last_failed_one() {
        let outage = judge(&probes("++--+-+++"));
        assert_eq!((outage.failed, outage.total), (3, Duration::from_millis(8)));
    }

    #[test]
    fn windows_that_lie_apart_are_added_and_the_longest_is_named() {
        let far_apart = format!("+--{}---+", "+".repeat(60));
        let outage = judge(&probes(&far_apart));
        assert_eq!((outage.total, outage.longest), (Duration::from_millis(10), Duration::from_millis(6)));
    }

    #[test]
    fn a_prober_that_was_held_up_says_so() {
        let mut held_up = probes("+++");
        held_up[2].launched = Instant::from_millis(1050);
        assert_eq!(judge(&held_up).blind, Duration::from_millis(48));
    }

    #[test]
    fn only_a_whole_answer_of_a_known_node_counts() {
        assert_eq!(node_named_in(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nn2\n"), Some(Host::N2));
        assert_eq!(node_named_in(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nn2"), None);
        assert_eq!(node_named_in(b"HTTP/1.1 503 No\r\n\r\nn1\n"), None);
        assert_eq!(node_named_in(b"HTTP/1.1 200 OK\r\n\r\nother\n"), None);
    }

    #[test]
    fn a_known_outage_is_measured_and_healthy_time_is_not() {
        in_sandbox("demo::prober::tests::a_known_outage_is_measured_and_healthy_time_is_not", || {
            let lab = Lab::new().unwrap();
            lab.add_address(Host::N1, VIP.into(), 24).unwrap();
            web_stand_in(lab.host(Host::N1), "n1");
            let prober = Prober::start(lab.host(Host::Client), SocketAddr::from((VIP, 80))).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            let healthy = clock::now();
            std::thread::sleep(Duration::from_millis(500));
            let before = clock::now();
            lab.set_cable(Host::N1, Cable::Pulled).unwrap();
            let surely_dark = clock::now();
            std::thread::sleep(Duration::from_millis(400));
            let surely_until = clock::now();
            lab.set_cable(Host::N1, Cable::Plugged).unwrap();
            // A carrier may take a second to come back.
            let served = (0..100).find_map(|_| {
                std::thread::sleep(Duration::from_millis(50));
                let now = clock::now();
                let lately = judge(&prober.between(now - Duration::from_millis(40), now).unwrap());
                (lately.probes > 5 && lately.failed == 0).then_some(now)
            });
            let served = served.unwrap();

            let good = judge(&prober.between(healthy, before - Duration::from_millis(20)).unwrap());
            assert_eq!(good.failed, 0, "{good:?}");
            assert!(good.probes > 100, "{good:?}");
            let outage = judge(&prober.between(healthy, clock::now()).unwrap());
            assert!(outage.total + PACE * 2 + outage.blind >= surely_until.since(surely_dark), "{outage:?}");
            assert!(outage.total <= served.since(before), "{outage:?}");
            assert!(outage.failed > 50, "{outage:?}");
        });
    }
}
