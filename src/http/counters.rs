//! Counts what a thread has served. Each thread has its own, so that no cache line is shared; they are summed when asked.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What one thread has served since it started.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) responses: [AtomicU64; 6],
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) tunnels: AtomicU64,
    pub(crate) tunnels_closed: AtomicU64,
    pub(crate) upstream_errors: AtomicU64,
    pub(crate) upstream_retries: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    pub(crate) handshakes_resumed: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) handshakes_refused: AtomicU64,
    pub(crate) proxy_headers_refused: AtomicU64,
    pub(crate) floods: AtomicU64,
}

/// A sum over threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub active: u64,
    /// Connections closed at once because too many were open.
    pub refused: u64,
    /// Failed calls of `accept`.
    pub accept_errors: u64,
    /// Requests begun.
    pub requests: u64,
    /// Responses by class: 1xx (upgrades) to 5xx.
    pub responses: [u64; 5],
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Responses broken off because the rest of their body could not be had.
    pub broken: u64,
    /// Upgraded connections open now.
    pub tunnels: u64,
    /// Attempts at a server that failed.
    pub upstream_errors: u64,
    /// Requests tried again on another connection or server.
    pub upstream_retries: u64,
    /// Handshakes of TLS that were completed,
    #[serde(default)]
    pub handshakes: u64,
    /// of these, sessions that were taken up again,
    #[serde(default)]
    pub handshakes_resumed: u64,
    /// and besides, handshakes that failed or took too long.
    #[serde(default)]
    pub handshakes_failed: u64,
    /// Connections closed at once because too many were in their handshake.
    #[serde(default)]
    pub handshakes_refused: u64,
    /// Connections closed because the PROXY header was missing, wrong or late, or came from a stranger.
    #[serde(default)]
    pub proxy_headers_refused: u64,
    /// HTTP/2 connections cut off because of a flood of frames that carry nothing.
    #[serde(default)]
    pub floods: u64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub(crate) fn response(&self, status: StatusCode) {
        count(&self.responses[usize::from(status.as_u16() / 100).min(5)]);
    }

    /// What was counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        // What went is read before what came: a sum taken in between is too high rather than below zero.
        let (closed, tunnels_closed) = (get(&self.closed), get(&self.tunnels_closed));
        let [_, informational, success, redirect, client, server] = self.responses.each_ref().map(get);
        Totals {
            connections: get(&self.connections),
            active: get(&self.connections).saturating_sub(closed),
            refused: get(&self.refused),
            accept_errors: get(&self.accept_errors),
            requests: get(&self.requests),
            responses: [informational, success, redirect, client, server],
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            broken: get(&self.broken),
            tunnels: get(&self.tunnels).saturating_sub(tunnels_closed),
            upstream_errors: get(&self.upstream_errors),
            upstream_retries: get(&self.upstream_retries),
            handshakes: get(&self.handshakes),
            handshakes_resumed: get(&self.handshakes_resumed),
            handshakes_failed: get(&self.handshakes_failed),
            handshakes_refused: get(&self.handshakes_refused),
            proxy_headers_refused: get(&self.proxy_headers_refused),
            floods: get(&self.floods),
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.active += other.active;
        self.refused += other.refused;
        self.accept_errors += other.accept_errors;
        self.requests += other.requests;
        for (mine, theirs) in self.responses.iter_mut().zip(other.responses) {
            *mine += theirs;
        }
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.broken += other.broken;
        self.tunnels += other.tunnels;
        self.upstream_errors += other.upstream_errors;
        self.upstream_retries += other.upstream_retries;
        self.handshakes += other.handshakes;
        self.handshakes_resumed += other.handshakes_resumed;
        self.handshakes_failed += other.handshakes_failed;
        self.handshakes_refused += other.handshakes_refused;
        self.proxy_headers_refused += other.proxy_headers_refused;
        self.floods += other.floods;
    }
}
