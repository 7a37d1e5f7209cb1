//! A node's state, told from another moment: see [`crate::cluster::normal`].

use super::group::{Group, HandOver, Owner, Role, Stage};
use super::{Engine, Remote};
use crate::cluster::event::Cause;
use crate::cluster::lateness::Lateness;
use crate::cluster::message::Seq;
use crate::cluster::name::Member;
use crate::cluster::normal::Shift;
use crate::time::{Duration, Instant};

impl Engine {
    /// The first number of a datagram of ours whose answer may still extend a lease at `now`. Earlier ones are alike.
    #[must_use]
    pub fn first_seq_of_use(&self, now: Instant) -> Seq {
        self.sent.first_of_use(now)
    }

    /// Moves the state: see [`crate::cluster::normal`]. Jitter is drawn from the beginning again.
    pub fn shift(&mut self, shift: &Shift) {
        let me = self.setup.me.member;
        let (interval, heard) = (self.setup.timing.interval, self.setup.timing.heard());
        self.sent.forget(self.sent.first_of_use(shift.now + shift.back));
        self.sent.shift(shift, me);
        self.desk.shift(shift);
        self.remotes.iter_mut().for_each(|remote| remote.shift(shift, heard));
        self.remotes[Member::Witness.index()] = Remote::default();
        self.groups.values_mut().for_each(|group| group.shift(shift, me, interval));
        self.change.shift(shift);
        self.next_heartbeat = shift.ahead(self.next_heartbeat);
        self.due = shift.at(self.due);
        self.now = shift.at(self.now);
        self.lateness = Lateness::default();
        self.random = self.setup.seed;
        self.setup.memory = None;
    }
}

impl Remote {
    fn shift(&mut self, shift: &Shift, heard: Duration) {
        if !shift.may_move {
            *self = Self { identity: self.identity, ..Self::default() };
        }
        self.round_trip = None;
        self.heard_at = self.heard_at.map(|at| shift.at(at)).filter(|_| self.heard);
        self.answered_at = self.answered_at.map(|at| shift.at(at)).filter(|at| shift.now < *at + heard);
    }
}

impl Group {
    fn shift(&mut self, shift: &Shift, me: Member, interval: Duration) {
        self.handed_over = None;
        self.claimed_at = None;
        self.held_at = shift.now;
        self.not_before = shift.ahead(self.not_before);
        // Twice as long each time, up to a longest one.
        self.failures = self.failures.min(3);
        self.free_since = self.free_since.map(|at| shift.at(at).max(shift.now - interval));
        if self.why_free != Cause::Vacant {
            self.why_free = Cause::PeerLeaseExpired;
        }
        match &mut self.role {
            Role::Standby => {}
            Role::PreVote(pre_vote) => {
                pre_vote.first_seq = shift.seq(me, pre_vote.first_seq);
                pre_vote.next = shift.ahead(pre_vote.next);
            }
            Role::Candidate(candidate) => {
                candidate.until = shift.at(candidate.until);
                candidate.asking = candidate.asking.map(|seq| shift.seq(me, seq));
                candidate.next = shift.ahead(candidate.next);
            }
            Role::Taking(taking) => {
                taking.offered_at = shift.at(taking.offered_at);
                taking.asking = taking.asking.map(|seq| shift.seq(me, seq));
                taking.next = shift.ahead(taking.next);
            }
            Role::Owner(owner) => owner.shift(shift),
        }
    }
}

impl Owner {
    fn shift(&mut self, shift: &Shift) {
        self.end = shift.at(self.end);
        self.since = shift.now;
        self.cause = Cause::Vacant;
        let Some(HandOver { stage, .. }) = &mut self.leaving else { return };
        match stage {
            Stage::Draining { until } => *until = shift.at(*until),
            Stage::Offering { next, until } => {
                *next = shift.ahead(*next);
                *until = shift.at(*until);
            }
            Stage::Writing { to, request, next } | Stage::Leaving { to, request, next } => {
                shift.request(*to, request);
                *next = shift.ahead(*next);
            }
        }
    }
}
