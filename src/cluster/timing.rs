//! The lengths of time that the rules speak of, all derived from lease and interval.

use crate::limits;
use crate::time::Duration;

/// Lease and interval of a cluster, and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long an owner may serve on one confirmation.
    pub lease: Duration,
    /// Time between two heartbeats.
    pub interval: Duration,
    /// Added to each promise when no gate can end the addresses in time (see [`Timing::without_gate`]).
    pub linger: Duration,
}

impl Timing {
    /// Timing with the gate in force: addresses stop answering one guard before the lease ends.
    #[must_use]
    pub const fn new(lease: Duration, interval: Duration) -> Self {
        Self { lease, interval, linger: Duration::ZERO }
    }

    /// Timing where only the lifetime of the addresses holds: voters are asked to promise until the kernel is sure to
    /// have deleted them. `valid_lft` = ceil(lease) + 1 s may be set anew until the very end of the lease, and ends up
    /// to a second late.
    #[must_use]
    pub fn without_gate(lease: Duration, interval: Duration) -> Self {
        let second = Duration::from_secs(1);
        let lifetime = Duration::from_secs(lease.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)) + second;
        let linger = lifetime + second;
        Self { lease, interval, linger: if planted!(NoGateSameHold) { Duration::ZERO } else { linger } }
    }

    /// What a voter is asked to promise: the lease, and a margin that covers two clocks whose rates differ by 9 %.
    #[must_use]
    pub fn hold(&self) -> Duration {
        if planted!(FactorTooSmall) {
            return self.lease + self.linger + self.lease / 100;
        }
        let whole = self.lease + self.linger;
        whole + (whole / 10).max(limits::MARGIN_MIN)
    }

    /// How long a candidacy lasts. Two intervals, but long enough for two flushes and a round trip.
    #[must_use]
    pub fn candidacy(&self) -> Duration {
        (self.interval * 2).max(limits::CANDIDACY_MIN)
    }

    /// How long the next candidacy lasts when so many in a row were in vain: twice as long each time, up to the default
    /// lease or a longer one, so that disks which take longer than two intervals elect somebody all the same.
    #[must_use]
    pub fn candidacy_after(&self, failures: u32) -> Duration {
        let longest = self.candidacy().max(self.lease).max(limits::LEASE_DEFAULT);
        self.candidacy().saturating_mul(1 << failures.min(8)).min(longest)
    }

    /// Before its end, the lease is treated as over by this much: the worker lets go three guards early.
    #[must_use]
    pub const fn let_go(&self) -> Duration {
        limits::GUARD.saturating_mul(3)
    }

    /// A member is heard while its last datagram is not older than this.
    #[must_use]
    pub fn heard(&self) -> Duration {
        self.interval * 3
    }
}
