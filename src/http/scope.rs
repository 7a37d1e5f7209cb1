//! Connections of one group on one thread: how many are in flight, and whether they are to end.
//!
//! In flight is a connection that was just accepted, receives a request, or has one in progress. An idle one is not,
//! neither is an upgraded one: nobody can say when it would end, so a planned move does not wait for it.
//!
//! What the kernel still holds is not seen here: connections not yet accepted, bytes not yet acknowledged.

use super::{
    counters::{Counters, count},
    parcel::Parcel,
};
use crate::limits::{HEAD_TIMEOUT, TLS_HANDSHAKE_MAX, WRITE_STALL_MAX};
use http::HeaderValue;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// How far the connections of a group are asked to end. New ones are served in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Not at all.
    Off,
    /// Each response says `Connection: close`, HTTP/2 connections get a GOAWAY. Idle HTTP/1.1 connections stay open: a
    /// request that is on its way on one of them would be lost.
    Announce,
    /// Also, idle connections and tunnels are closed: nothing is waited for any more.
    Close,
    /// Also, connections that never sent a byte are closed: the process ends.
    Stop,
}

/// The connections of one group on one thread.
#[derive(Debug)]
pub struct Scope {
    drain: watch::Sender<Drain>,
    /// Connections in flight, by the turn in which they became so; see [`Scope::turn`].
    in_flight: [AtomicUsize; TURNS],
    /// The turn that is now.
    now: AtomicUsize,
}

/// This turn, the one before, and all before that.
const TURNS: usize = 3;
/// Not in flight.
const IDLE: usize = usize::MAX;

impl Default for Scope {
    fn default() -> Self {
        Self { drain: watch::Sender::new(Drain::Off), in_flight: Default::default(), now: AtomicUsize::new(0) }
    }
}

impl Scope {
    /// Connections in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.iter().map(|turn| turn.load(Relaxed)).sum()
    }

    /// Connections that are in flight since before the last [`Scope::turn`].
    #[must_use]
    pub fn in_flight_since_turn(&self) -> usize {
        let now = self.now.load(Relaxed);
        self.in_flight.iter().enumerate().filter(|(turn, _)| *turn != now).map(|(_, count)| count.load(Relaxed)).sum()
    }

    /// What becomes in flight from now on is told from what is. While there are connections from before the last but
    /// one turn, they stay the oldest and nothing changes. Only one thread may call it.
    pub fn turn(&self) {
        let next = (self.now.load(Relaxed) + 1) % TURNS;
        if self.in_flight.get(next).is_some_and(|oldest| oldest.load(Relaxed) == 0) {
            self.now.store(next, Relaxed);
        }
    }

    /// Counts one in flight; in which turn.
    fn enter(&self) -> usize {
        let now = self.now.load(Relaxed);
        if let Some(turn) = self.in_flight.get(now) {
            turn.fetch_add(1, Relaxed);
        }
        now
    }

    fn leave(&self, turn: usize) {
        if let Some(turn) = self.in_flight.get(turn) {
            turn.fetch_sub(1, Relaxed);
        }
    }

    /// How far the connections are asked to end.
    #[must_use]
    pub fn drain(&self) -> Drain {
        *self.drain.borrow()
    }

    /// Asks them to.
    pub fn set_drain(&self, drain: Drain) {
        self.drain.send_replace(drain);
    }

    /// To wait for a change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Drain> {
        self.drain.subscribe()
    }
}

/// How long a client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request.
    pub head: Duration,
    /// To take any byte of a response.
    pub write: Duration,
    /// For the handshake of TLS.
    pub handshake: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: HEAD_TIMEOUT, write: WRITE_STALL_MAX, handshake: TLS_HANDSHAKE_MAX }
    }
}

/// One client connection, as shared by its stream, its requests and its task.
#[derive(Debug)]
pub struct Connection {
    /// The client's address, or what a trusted proxy in front says that it is; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that the client connected to, by the same word.
    pub local: Option<SocketAddr>,
    /// By TLS.
    pub secure: Option<Secure>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) patience: Patience,
    /// Counted in `scope.in_flight`.
    /// In which turn, or [`IDLE`]. Only its own thread changes it.
    counted: AtomicUsize,
    /// Requests in progress.
    requests: AtomicUsize,
    /// Requests so far.
    seen: AtomicU64,
    /// HTTP/1.1: bytes that come while no request is in progress begin one.
    http1: AtomicBool,
    /// The response in progress is the last.
    closing: AtomicBool,
    /// Cannot end well: to be reset.
    broken: AtomicBool,
    /// Speaks HTTP no longer.
    tunnel: AtomicBool,
    /// Parts of files may be sent as such.
    files: AtomicBool,
    /// Those that were queued and not sent yet, in order.
    parcels: Mutex<VecDeque<Parcel>>,
    /// The first request came while a drain is on.
    pub(crate) first_in_drain: Notify,
}

/// What TLS tells of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secure {
    /// The subject of the certificate that it has shown and proved.
    pub subject: Option<HeaderValue>,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: Option<SocketAddr>, scope: Arc<Scope>, counters: Arc<Counters>, patience: Patience) -> Arc<Self> {
        count(&counters.connections);
        let turn = scope.enter();
        Arc::new(Self {
            peer,
            local: None,
            secure: None,
            scope,
            counters,
            patience,
            counted: AtomicUsize::new(turn),
            requests: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            http1: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            files: AtomicBool::new(false),
            parcels: Mutex::default(),
            first_in_drain: Notify::new(),
        })
    }

    /// It is in flight.
    pub(crate) fn busy(&self) {
        if self.counted.load(Relaxed) == IDLE {
            self.counted.store(self.scope.enter(), Relaxed);
        }
    }

    /// It is not in flight.
    pub(crate) fn idle(&self) {
        let turn = self.counted.swap(IDLE, Relaxed);
        if turn != IDLE {
            self.scope.leave(turn);
        }
    }

    pub(crate) fn speaks_http2(&self) {
        self.http1.store(false, Relaxed);
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.http1.load(Relaxed)
    }

    /// Bytes came.
    pub(crate) fn received(&self, bytes: u64) {
        self.counters.bytes_in.fetch_add(bytes, Relaxed);
        if self.is_http1() && !self.is_tunnel() {
            self.busy();
        }
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// A request came.
    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        count(&self.counters.requests);
        self.requests.fetch_add(1, Relaxed);
        self.busy();
        if self.seen.fetch_add(1, Relaxed) == 0 && self.scope.drain() != Drain::Off {
            self.first_in_drain.notify_one();
        }
        InProgress(Arc::clone(self))
    }

    /// A part of a request's head has come.
    pub(crate) fn is_receiving(&self) -> bool {
        self.counted.load(Relaxed) != IDLE && self.active() == 0
    }

    /// Requests in progress.
    pub(crate) fn active(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }

    /// The response in progress is the last one: in flight until its bytes are handed to the kernel.
    pub(crate) fn close_after_response(&self) {
        self.closing.store(true, Relaxed);
    }

    /// It was upgraded: no longer in flight.
    pub(crate) fn upgraded(&self) {
        self.tunnel.store(true, Relaxed);
        self.idle();
    }

    /// The body of a response could not be had to its end.
    pub(crate) fn break_off(&self) {
        count(&self.counters.broken);
        self.broken.store(self.is_http1(), Relaxed);
    }

    /// Parts of files may be sent as such.
    pub(crate) fn takes_parcels(&self) {
        self.files.store(true, Relaxed);
    }

    pub(crate) fn may_send_files(&self) -> bool {
        self.files.load(Relaxed)
    }

    /// Those that were queued and not sent yet. Only the connection's own thread asks.
    pub(crate) fn parcels(&self) -> MutexGuard<'_, VecDeque<Parcel>> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.idle();
        count(&self.counters.closed);
    }
}

/// A request in progress; it ends with its response's body.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<Connection>);

impl InProgress {
    pub(crate) fn break_off(&self) {
        self.0.break_off();
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Relaxed) == 1 && !self.0.closing.load(Relaxed) {
            self.0.idle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn what_was_in_flight_before_a_turn_is_told_from_what_came_after() {
        let scope = Scope::default();
        let old = scope.enter();
        scope.turn();
        let new = scope.enter();
        assert_eq!((scope.in_flight(), scope.in_flight_since_turn()), (2, 1));
        scope.turn();
        scope.turn();
        scope.turn();
        assert!(scope.in_flight_since_turn() >= 1, "an old one is never taken for a new one");
        scope.leave(old);
        scope.turn();
        scope.leave(new);
        assert_eq!((scope.in_flight(), scope.in_flight_since_turn()), (0, 0));
    }
}
