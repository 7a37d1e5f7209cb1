//! A third voter made of an etcd: the real speakers of both nodes, and a model of what they ask.
//!
//! Questions travel by TCP: they may come late, twice, or never, and so may answers; the speaker gives up on its own. The
//! machine of the witness is the etcd: what it has is never lost.

use super::{Happening, MS, World};
use hawser::cluster::{Identity, Incarnation, Member, Message};
use hawser::tiebreak::etcd::speaker::{Question, Seen, Setup, Speaker};
use hawser::time::Instant;

/// The life under which etcd is known to the engines.
pub(crate) const ETCD: Identity = Identity { member: Member::Witness, incarnation: Incarnation(0xe7cd), hash: None };

/// What is the third voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Third {
    Witness,
    Etcd,
}

/// What happens between a node and etcd.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// A question arrives at etcd.
    Asked(Question),
    /// Its answer arrives at the node.
    Answered(u64, Vec<Seen>),
    /// The speaker's time has come.
    Wake,
    /// The engine hears this from the third voter.
    Says(Message),
}

impl World {
    pub(super) fn new_speaker(&self, me: Identity) -> Option<Speaker> {
        let timing = self.machines[me.member.index()].timing;
        let setup = Setup { me, hash: super::hash, lease: timing.lease, interval: timing.interval };
        (self.plan.third == Third::Etcd).then(|| Speaker::new(setup))
    }

    /// The engine says something to the third voter. Whether that is an etcd.
    pub(super) fn speak(&mut self, me: Member, message: &Message) -> bool {
        let now = self.local(me);
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return false };
        let Some(speaker) = worker.speaker.as_mut() else { return false };
        speaker.told(now, message);
        self.pump(me, now);
        true
    }

    pub(super) fn peer_is_silent(&mut self, me: Member, silent: bool) {
        let now = self.local(me);
        let worker = self.machines[me.index()].worker.as_mut();
        if let Some(speaker) = worker.and_then(|w| w.speaker.as_mut()) {
            speaker.peer_is_silent(silent);
            self.pump(me, now);
        }
    }

    /// Something arrives at etcd.
    pub(super) fn at_etcd(&mut self, from: Member, life: Incarnation, question: Question) {
        let machine = &mut self.machines[Member::Witness.index()];
        if !machine.powered {
            return;
        }
        if machine.suspended_at.is_some() {
            machine.asleep.push_back(Happening::Etcd(from, life, Errand::Asked(question)));
            return;
        }
        let seen = self.etcd.answer(&question);
        self.note(|| format!("etcd: {from:?} asks {:?}: {seen:?}", question.items));
        self.carry(Member::Witness, from, &Happening::Etcd(from, life, Errand::Answered(question.number, seen)));
    }

    pub(super) fn errand(&mut self, me: Member, now: Instant, errand: Errand) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let Some(speaker) = worker.speaker.as_mut() else { return };
        match errand {
            Errand::Answered(number, seen) => speaker.answered(now, number, &seen),
            Errand::Wake => speaker.tick(now),
            Errand::Says(message) => return self.tell_message(me, now, ETCD, message),
            Errand::Asked(_) => {}
        }
        self.pump(me, now);
    }

    /// Sends what is to be asked, tells what is to be told, and comes back in time.
    fn pump(&mut self, me: Member, now: Instant) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let life = worker.life;
        let Some(speaker) = worker.speaker.as_mut() else { return };
        let question = speaker.next(now);
        let messages = speaker.take_messages();
        let deadline = speaker.next_deadline(now);
        if deadline <= now {
            self.broken.get_or_insert(format!("{me:?}: the speaker wants to be called again at once"));
        }
        if let Some(question) = question {
            self.carry(me, Member::Witness, &Happening::Etcd(me, life, Errand::Asked(question)));
        }
        for message in messages {
            let soon = self.now + self.chance.between(10_000, 300_000);
            self.push(soon, Happening::Etcd(me, life, Errand::Says(message)));
        }
        if deadline == Instant::NEVER {
            return;
        }
        let wake = self.machines[me.index()].clock.when(self.now, deadline).max(self.now + 1);
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        if worker.next_errand > wake || worker.next_errand <= self.now {
            worker.next_errand = wake;
            self.push(wake, Happening::Etcd(me, life, Errand::Wake));
        }
    }

    /// One way between a node and etcd.
    fn carry(&mut self, from: Member, to: Member, happening: &Happening) {
        let carrier = self.machines[from.index()].carrier && self.machines[to.index()].carrier;
        if self.cut.contains(&(from, to)) || !carrier || self.chance.per_mille(self.network.loss) {
            return;
        }
        let copies = if self.chance.per_mille(self.network.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.slow.get(&(from, to)).copied().unwrap_or(0);
            delay += self.chance.between(self.network.delay.0, self.network.delay.1);
            if to == Member::Witness {
                // A change is on the disks of etcd before it is answered.
                delay += self.chance.between(MS / 10, 3 * MS) + self.machines[to.index()].disk_takes;
            }
            if self.chance.per_mille(self.network.late.0) {
                delay += self.chance.below(self.network.late.1);
            }
            self.push(self.now + delay, happening.clone());
        }
    }
}
