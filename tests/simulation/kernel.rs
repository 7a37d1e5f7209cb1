//! What a kernel does by itself: clocks that run at their own rate, a gate and addresses that time out.

use hawser::cluster::GroupName;
use hawser::time::{Duration, Instant};
use std::collections::BTreeMap;

/// A machine's clocks against true time.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Parts per million faster (or slower) than true time.
    pub(crate) ppm: i64,
    boot: u64,
    /// Boot time that passed while the machine was suspended: timers of the kernel do not count it.
    suspended: u64,
    set_at: u64,
}

impl Clock {
    pub(crate) fn new(boot: u64, ppm: i64) -> Self {
        Self { ppm, boot, suspended: 0, set_at: 0 }
    }

    fn scaled(&self, span: u64) -> u64 {
        u64::try_from(i128::from(span) * (1_000_000 + i128::from(self.ppm)) / 1_000_000).unwrap()
    }

    /// `CLOCK_BOOTTIME` at this true time.
    pub(crate) fn boot(&self, at: u64) -> Instant {
        Instant::from_nanos(self.boot + self.scaled(at - self.set_at))
    }

    /// The clock of timers inside the kernel.
    pub(crate) fn jiffies(&self, at: u64) -> Instant {
        Instant::from_nanos(self.boot(at).as_nanos() - self.suspended)
    }

    /// The first true time at which the boot clock shows `local`.
    pub(crate) fn when(&self, at: u64, local: Instant) -> u64 {
        let ahead = self.boot(at).until(local).as_nanos();
        let rate = u128::try_from(1_000_000 + self.ppm).unwrap();
        at.saturating_add(u64::try_from((ahead * 1_000_000).div_ceil(rate)).unwrap_or(u64::MAX))
    }

    fn settle(&mut self, at: u64) {
        self.boot = self.boot(at).as_nanos();
        self.set_at = at;
    }

    /// The machine was suspended from then until now; with `stopped`, its clock stood still too (a paused guest).
    pub(crate) fn resume(&mut self, from: u64, at: u64, stopped: bool) {
        let asleep = self.scaled(at - from);
        self.settle(at);
        if stopped { self.boot -= asleep } else { self.suspended += asleep }
    }

    pub(crate) fn set_rate(&mut self, at: u64, ppm: i64) {
        self.settle(at);
        self.ppm = ppm;
    }
}

/// The addresses of one group on one machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    /// The address is there until then, on the clock of timers.
    pub(crate) address: Option<Instant>,
    /// The gate is open until then.
    pub(crate) gate: Option<Instant>,
    /// Which address it is: the group may have another one in the next configuration.
    pub(crate) number: usize,
}

/// What the kernel of one machine holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) held: BTreeMap<GroupName, Held>,
    pub(crate) gated: bool,
}

impl Kernel {
    /// It answers for the group's address.
    pub(crate) fn answers(&self, group: GroupName, jiffies: Instant) -> bool {
        self.held.get(&group).is_some_and(|h| {
            h.address.is_some_and(|until| jiffies < until)
                && (!self.gated || h.gate.is_some_and(|until| jiffies < until))
        })
    }

    /// It answers for this address, whichever group it was added for.
    pub(crate) fn answers_for(&self, number: usize, jiffies: Instant) -> bool {
        self.held.iter().any(|(group, held)| held.number == number && self.answers(*group, jiffies))
    }

    pub(crate) fn add_address(&mut self, group: GroupName, number: usize, jiffies: Instant, lifetime: Duration) {
        let held = self.held.entry(group).or_default();
        (held.address, held.number) = (Some(jiffies + lifetime), number);
    }

    /// The first opening: a plain add.
    pub(crate) fn open(&mut self, group: GroupName, jiffies: Instant, timeout: Duration) {
        self.held.entry(group).or_default().gate = Some(jiffies + timeout);
    }

    /// Delete and add in one batch: the delete of an element that has expired fails, and takes the add with it.
    pub(crate) fn renew(&mut self, group: GroupName, jiffies: Instant, timeout: Duration, plain_add: bool) -> bool {
        let held = self.held.entry(group).or_default();
        let live = held.gate.is_some_and(|until| jiffies < until);
        if live || plain_add {
            held.gate = Some(jiffies + timeout);
        }
        live
    }

    pub(crate) fn shut(&mut self, group: GroupName) {
        self.held.entry(group).or_default().gate = None;
    }

    pub(crate) fn delete_address(&mut self, group: GroupName) {
        self.held.entry(group).or_default().address = None;
    }
}
