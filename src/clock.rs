//! The one place that reads the clock.

use crate::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, on `CLOCK_BOOTTIME` (counts suspend, is not set by anybody).
#[must_use]
pub fn now() -> Instant {
    let at = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(at.tv_nsec).unwrap_or(0);
    Instant::from_nanos(secs * 1_000_000_000 + nanos)
}

/// The time of day, for what is told to strangers (HTTP dates). It is set by people and servers: nothing is decided by it.
#[must_use]
pub fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
