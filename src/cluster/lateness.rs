//! How late the engine was called: since the start, and of late.
//!
//! Each call is due at an instant that the engine names. What is late is the thread: the machine was busy, the process was
//! stopped, or something on the cluster thread took long. A lease has to be much longer than that.

use crate::limits::LATE_MINUTES;
use crate::time::{Duration, Instant};

/// The worst lateness, minute by minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Lateness {
    worst: Duration,
    /// A minute since boot, and the worst of it.
    minutes: [(u64, Duration); LATE_MINUTES],
}

impl Lateness {
    /// Takes a note of one call.
    pub fn note(&mut self, now: Instant, late: Duration) {
        self.worst = self.worst.max(late);
        let minute = minute_of(now);
        let slots = LATE_MINUTES as u64;
        let slot = usize::try_from(minute % slots).ok().and_then(|at| self.minutes.get_mut(at));
        if let Some((of, worst)) = slot {
            *worst = if *of == minute { late.max(*worst) } else { late };
            *of = minute;
        }
    }

    /// The worst since the start.
    #[must_use]
    pub const fn worst(&self) -> Duration {
        self.worst
    }

    /// The worst of the last [`LATE_MINUTES`] minutes, this one among them.
    #[must_use]
    pub fn recent(&self, now: Instant) -> Duration {
        let now = minute_of(now);
        let recent = self.minutes.iter().filter(|(minute, _)| now.saturating_sub(*minute) < LATE_MINUTES as u64);
        recent.map(|(_, worst)| *worst).max().unwrap_or_default()
    }
}

const fn minute_of(at: Instant) -> u64 {
    at.as_nanos() / 60_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_kept_for_ever_and_the_recent_one_for_ten_minutes() {
        let minutes = |n: u64| Instant::from_millis(n * 60_000);
        let millis = Duration::from_millis;
        let mut late = Lateness::default();
        late.note(minutes(100), millis(300));
        late.note(minutes(104), millis(20));
        late.note(minutes(104), millis(10));
        assert_eq!((late.worst(), late.recent(minutes(104))), (millis(300), millis(300)));
        assert_eq!(late.recent(minutes(110)), millis(20), "the tenth minute after");
        assert_eq!(late.recent(minutes(114)), Duration::ZERO);
        late.note(minutes(110), millis(1));
        assert_eq!((late.worst(), late.recent(minutes(110))), (millis(300), millis(20)), "its slot is used again");
    }
}
