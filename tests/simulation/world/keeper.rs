//! The keeper of the addresses: one call to the kernel at a time, decided at one moment and carried out at a later one.

use super::{Happening, Keeper, MS, Op, Told, World, placed};
use hawser::cluster::{GroupName, Input, Intent, Member, Report};
use hawser::limits::GUARD;
use hawser::supervisor::core::Input as Heard;
use hawser::time::{Duration, Instant};
use hawser::vip::supervision::Word;

impl World {
    pub(super) fn want(&mut self, me: Member, group: GroupName, intent: Intent) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let keeper = worker.keepers.entry(group).or_insert_with(|| Keeper {
            wanted: Intent::Released,
            armed: None,
            added: false,
            opened: false,
            open_until: None,
            squeezed: false,
            leave: true,
            busy: false,
            told: None,
            dirty: true,
            renewed_at: Instant::ZERO,
        });
        let changed = std::mem::discriminant(&keeper.wanted) != std::mem::discriminant(&intent);
        keeper.wanted = intent;
        if changed {
            keeper.leave = matches!(intent, Intent::Released);
            keeper.squeezed = false;
        }
        self.keep(me, group);
    }

    /// Decides the next call, if none is under way.
    pub(super) fn keep(&mut self, me: Member, group: GroupName) {
        let now = self.local(me);
        let gated = self.plan.gated;
        let kernel_takes = self.machines[me.index()].kernel_takes;
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let life = worker.life;
        let Some(keeper) = worker.keepers.get_mut(&group).filter(|k| !k.busy) else { return };
        let held = match keeper.wanted {
            Intent::Released => None,
            Intent::Held { term, until } | Intent::Leaving { term, until } => Some((term, until)),
        };
        let overdue = held.is_some_and(|(_, until)| now + 3 * GUARD >= until);
        keeper.leave |= overdue;
        let op = match held {
            Some((term, until)) if !keeper.leave => {
                let leaving = matches!(keeper.wanted, Intent::Leaving { .. });
                if keeper.armed.is_none_or(|a| a < until) {
                    Some(Op::Arm(until))
                } else if leaving && !keeper.squeezed {
                    Some(Op::Squeeze)
                } else if !keeper.added || now.since(keeper.renewed_at) >= Duration::from_secs(1) {
                    Some(Op::Add)
                } else if gated && !keeper.opened {
                    Some(Op::Open(until, now))
                } else if gated && keeper.open_until.is_none_or(|o| o < until) {
                    Some(Op::Renew { end: until, timeout: now.until(until - GUARD), asked: now })
                } else {
                    if keeper.told != Some(Told::Held(term)) {
                        keeper.told = Some(Told::Held(term));
                        return self.report(me, Report::Held(group, term));
                    }
                    None
                }
            }
            Some(_) | None => {
                if keeper.opened || keeper.dirty && gated {
                    Some(Op::Shut)
                } else if keeper.added || keeper.dirty {
                    Some(Op::Delete)
                } else if keeper.told != Some(Told::Gone) {
                    Some(Op::ReadBack)
                } else {
                    None
                }
            }
        };
        let Some(op) = op else { return };
        keeper.busy = true;
        let takes = match op {
            Op::Squeeze => self.chance.between(0, 20 * MS),
            Op::Arm(_) => self.chance.between(20_000, 400_000),
            Op::Add | Op::Open(..) | Op::Renew { .. } | Op::Shut | Op::Delete | Op::ReadBack => {
                self.chance.between(20_000, 400_000) + kernel_takes
            }
        };
        self.push(self.now + takes, Happening::Keeper(me, life, group, op));
    }

    /// The call takes effect in the kernel, and returns.
    pub(super) fn operate(&mut self, me: Member, group: GroupName, op: Op) {
        let now = self.local(me);
        let late = self.chance.below(8 * MS); // its clock ticks every 4 ms, and may lag by another
        let number = self.plan.groups.iter().position(|(name, _)| *name == group).unwrap_or_default();
        let machine = &mut self.machines[me.index()];
        let number = placed(number, machine.swapped_here);
        let jiffies = machine.clock.jiffies(self.now);
        let whole = u64::try_from(machine.timing.lease.as_millis().div_ceil(1000)).unwrap();
        let lifetime = Duration::from_secs(whole + 1);
        let Some(worker) = machine.worker.as_mut() else { return };
        let Some(keeper) = worker.keepers.get_mut(&group) else { return };
        keeper.busy = false;
        let mut word = None;
        let mut report = None;
        match op {
            Op::Arm(until) => {
                keeper.armed = Some(until);
                word = Some(Word::Arm { group, until });
            }
            Op::Add => {
                // The kernel looks at lifetimes now and then.
                machine.kernel.add_address(group, number, jiffies, lifetime + Duration::from_nanos(late * 100));
                keeper.renewed_at = now;
                keeper.added = true;
            }
            Op::Open(end, asked) => {
                machine.kernel.open(group, jiffies, 2 * GUARD + Duration::from_nanos(late));
                keeper.opened = true;
                if now + GUARD >= end || now.since(asked) > GUARD {
                    machine.kernel.shut(group);
                    (keeper.opened, keeper.open_until) = (false, None);
                }
            }
            Op::Renew { end, timeout, asked } => {
                let plain = planted_plain_add();
                let live = machine.kernel.renew(group, jiffies, timeout + Duration::from_nanos(late), plain);
                keeper.open_until = Some(end);
                if (now + GUARD >= end || now.since(asked) > GUARD || !live) && !plain {
                    machine.kernel.shut(group);
                    (keeper.opened, keeper.open_until) = (false, None);
                }
            }
            Op::Squeeze => (keeper.squeezed, keeper.leave) = (true, true),
            Op::Shut => {
                machine.kernel.shut(group);
                (keeper.opened, keeper.open_until) = (false, None);
                if keeper.dirty && !keeper.added {
                    // The first shut of a life is followed by the deletion of what an earlier life left.
                    keeper.added = true;
                    keeper.dirty = false;
                }
            }
            Op::Delete => {
                machine.kernel.delete_address(group);
                (keeper.added, keeper.dirty) = (false, false);
            }
            Op::ReadBack => {
                keeper.told = Some(Told::Gone);
                keeper.armed = None;
                word = Some(Word::Disarm { group });
                report = Some(Report::Gone(group));
            }
        }
        let number = machine.supervisor.as_ref().map(|s| s.number);
        if let (Some(word), Some(number)) = (word, number) {
            self.push(self.now + 20_000, Happening::Orders(me, number, Heard::Word(word)));
        }
        self.keep(me, group);
        if let Some(report) = report {
            self.report(me, report);
        }
    }

    pub(super) fn report(&mut self, me: Member, report: Report) {
        let now = self.local(me);
        self.tell(me, now, Input::Report(report));
    }
}

#[cfg(not(feature = "planted"))]
const fn planted_plain_add() -> bool {
    false
}

#[cfg(feature = "planted")]
fn planted_plain_add() -> bool {
    hawser::cluster::planted::active(hawser::cluster::planted::Planted::GatePlainAdd)
}
