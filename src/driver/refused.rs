//! Datagrams that had no effect: counted by reason, said once a minute.

use crate::{limits::REFUSED_LOG_EVERY, time::Instant};
use std::{collections::BTreeMap, net::SocketAddr};

/// Counts by reason.
#[derive(Debug)]
pub struct Refusals {
    total: BTreeMap<&'static str, u64>,
    fresh: BTreeMap<&'static str, u64>,
    last_from: Option<SocketAddr>,
    said_at: Instant,
}

impl Refusals {
    /// Nothing was refused yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { total: BTreeMap::new(), fresh: BTreeMap::new(), last_from: None, said_at: now }
    }

    /// One more.
    pub fn count(&mut self, reason: &'static str, from: SocketAddr) {
        *self.total.entry(reason).or_default() += 1;
        *self.fresh.entry(reason).or_default() += 1;
        self.last_from = Some(from);
    }

    /// Since the start, by reason.
    #[must_use]
    pub const fn totals(&self) -> &BTreeMap<&'static str, u64> {
        &self.total
    }

    /// Says what was refused since it last did, once a minute.
    pub fn say(&mut self, now: Instant) {
        if self.fresh.is_empty() || now.since(self.said_at) < REFUSED_LOG_EVERY {
            return;
        }
        let reasons: Vec<String> = self.fresh.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        let last = self.last_from.map(|from| from.to_string()).unwrap_or_default();
        tracing::warn!(reasons = reasons.join(", "), %last, "datagrams refused");
        self.fresh.clear();
        self.said_at = now;
    }
}
