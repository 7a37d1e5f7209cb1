//! When the addresses of a group are announced. Pure.
//!
//! On acquire at 0, 0.1 and 0.3 s, then five times 1.2 s apart (Linux neighbours ignore a second update within one
//! second, `locktime` in `arp(7)`), then each 30 s while they are held.
//!
//! Not here: what is sent (`frames`), and by whom (`keeper`).

use crate::{
    limits::CONFLICT_REPEAT,
    time::{Duration, Instant},
};

/// When the announcements after the first follow, counted from the first.
const TIMES: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1500),
    Duration::from_millis(2700),
    Duration::from_millis(3900),
    Duration::from_millis(5100),
    Duration::from_millis(6300),
];
/// Where the times begin that are further apart than [`CONFLICT_REPEAT`].
const SLOW: usize = 2;
/// Afterwards they are this far apart.
const ROUTINE: Duration = Duration::from_secs(30);

/// The schedule of a group whose addresses are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    begun: Instant,
    sent: usize,
    next: Instant,
    answered_conflict: Option<Instant>,
}

impl Schedule {
    /// A schedule whose first announcement is due now.
    #[must_use]
    pub const fn begin(now: Instant) -> Self {
        Self { begun: now, sent: 0, next: now, answered_conflict: None }
    }

    /// When the next announcement is due.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Whether one is due; if so, the one after it is set.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = TIMES.get(self.sent).map_or(now + ROUTINE, |after| (self.begun + *after).max(now));
        self.sent += 1;
        true
    }

    /// Begins anew: a link came up, a partition healed, a freeze ended.
    pub const fn again(&mut self, now: Instant) {
        self.begun = now;
        self.sent = 0;
        self.next = now;
    }

    /// Begins anew because another machine claims an address, unless that was done within the last second. Whether it did.
    ///
    /// Without the dense beginning: two that claim the same address must not fill the segment with their quarrel.
    pub fn again_for_conflict(&mut self, now: Instant) -> bool {
        if self.answered_conflict.is_some_and(|at| now.since(at) < CONFLICT_REPEAT) {
            return false;
        }
        self.answered_conflict = Some(now);
        self.again(now);
        self.sent = SLOW;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(schedule: &mut Schedule, until: Instant) -> Vec<u64> {
        let mut times = Vec::new();
        while schedule.next() <= until {
            let at = schedule.next();
            assert!(schedule.is_due(at));
            times.push(at.as_nanos() / 1_000_000);
        }
        times
    }

    #[test]
    fn announcements_are_dense_at_first_then_outlast_the_neighbours_lock_time_then_become_routine() {
        let mut schedule = Schedule::begin(Instant::from_millis(1000));
        assert_eq!(
            due(&mut schedule, Instant::from_millis(70_000)),
            [1000, 1100, 1300, 2500, 3700, 4900, 6100, 7300, 37_300, 67_300]
        );
    }

    #[test]
    fn a_conflict_is_answered_at_once_and_at_most_once_a_second() {
        let mut schedule = Schedule::begin(Instant::from_millis(0));
        due(&mut schedule, Instant::from_millis(20_000));
        assert!(schedule.again_for_conflict(Instant::from_millis(20_000)));
        assert!(schedule.is_due(Instant::from_millis(20_000)));
        assert!(!schedule.again_for_conflict(Instant::from_millis(20_999)));
        assert!(schedule.again_for_conflict(Instant::from_millis(21_000)));
        // And then as after an acquire, but for its dense beginning.
        let (mut then, expected) = (schedule, [21_000, 22_500, 23_700, 24_900, 26_100, 27_300, 57_300]);
        assert_eq!(due(&mut then, Instant::from_millis(60_000)), expected);
    }

    #[test]
    fn a_machine_that_claims_an_address_all_the_time_is_answered_once_a_second() {
        let mut schedule = Schedule::begin(Instant::from_millis(0));
        due(&mut schedule, Instant::from_millis(20_000));
        let mut answers = 0;
        for at in (20_000..30_000).step_by(10).map(Instant::from_millis) {
            schedule.again_for_conflict(at);
            answers += usize::from(schedule.is_due(at));
        }
        assert_eq!(answers, 10);
    }

    #[test]
    fn an_announcement_asked_for_by_the_cluster_begins_the_schedule_anew() {
        let mut schedule = Schedule::begin(Instant::from_millis(0));
        due(&mut schedule, Instant::from_millis(50_000));
        schedule.again(Instant::from_millis(50_000));
        let expected = [50_000, 50_100, 50_300, 51_500, 52_700, 53_900, 55_100, 56_300, 86_300];
        assert_eq!(due(&mut schedule, Instant::from_millis(100_000)), expected);
    }

    #[test]
    fn announcements_missed_in_a_freeze_are_not_sent_in_a_burst() {
        let mut schedule = Schedule::begin(Instant::from_millis(0));
        assert!(schedule.is_due(Instant::from_millis(10_000)));
        let mut sent = 1;
        while schedule.is_due(Instant::from_millis(10_000)) {
            sent += 1;
        }
        assert!(sent <= 8, "{sent} at one instant");
        assert!(schedule.next() > Instant::from_millis(10_000));
    }
}
