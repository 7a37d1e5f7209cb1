//! How a node that owns nothing becomes an owner: pre-vote, own vote, requests, grant.

use super::Engine;
use super::group::{Candidate, Group, Owner, PreVote, Role, Taking};
use crate::cluster::desk::Purpose;
use crate::cluster::event::{Cause, Event};
use crate::cluster::message::{Answer, Fitness, Message};
use crate::cluster::name::{GroupName, Member, Term};
use crate::cluster::voter::Identity;
use crate::limits::REPEAT;
use crate::time::Instant;

/// An unfit node takes a group that nobody has held for this many leases.
const UNFIT_AFTER_LEASES: u32 = 10;

impl Engine {
    pub(super) fn advance_campaign(&mut self, name: GroupName) {
        let Some(group) = self.groups.get_mut(&name) else { return };
        if let Some(promise) = self.desk.voter.promise(self.now, name) {
            group.held_at = self.now;
            if promise.to.incarnation != self.setup.me.incarnation {
                group.why_free = Cause::PeerLeaseExpired;
                group.failures = 0;
            }
        }
        match &group.role {
            Role::Owner(_) => {}
            Role::Candidate(candidate) if self.now >= candidate.until => {
                let term = candidate.term;
                group.role = Role::Standby;
                group.failures = group.failures.saturating_add(1);
                self.event(Event::NotElected { group: name, term });
                self.back_off(name);
                self.advance_standby(name);
            }
            Role::Candidate(_) => self.ask(name),
            Role::Taking(taking) if self.now >= taking.offered_at + self.setup.timing.candidacy() => {
                group.role = Role::Standby;
            }
            Role::Taking(_) => self.ask(name),
            Role::Standby | Role::PreVote(_) => self.advance_standby(name),
        }
    }

    /// Collisions are undone by jitter.
    fn back_off(&mut self, name: GroupName) {
        let wait = self.setup.timing.interval * self.random_upto(4);
        let now = self.now;
        if let Some(group) = self.groups.get_mut(&name) {
            group.not_before = now + wait;
        }
    }

    fn advance_standby(&mut self, name: GroupName) {
        let may = self.may_campaign(name);
        let alone = self.is_alone();
        let yields = !alone && self.yields_to_peer(name);
        let interval = self.setup.timing.interval;
        let term = self.next_term(name);
        let now = self.now;
        let first_seq = self.sent.next();
        let Some(group) = self.groups.get_mut(&name) else { return };
        if !may {
            group.free_since = None;
            group.role = Role::Standby;
            return;
        }
        let free_since = *group.free_since.get_or_insert(now);
        let start = group.not_before.max(if yields { free_since + interval } else { free_since });
        if now < start {
            self.wake_at(start);
            return;
        }
        if alone {
            return self.stand(name, term);
        }
        if let Role::PreVote(pre_vote) = &mut group.role {
            pre_vote.term = term;
        } else {
            group.role = Role::PreVote(PreVote { term, first_seq, next: now });
        }
        self.ask_before(name);
    }

    /// Nothing stands in the way of a campaign.
    fn may_campaign(&mut self, name: GroupName) -> bool {
        let Some(group) = self.groups.get(&name) else { return false };
        let outside = !self.members().includes(self.setup.me.member) || self.makes_way();
        if outside
            || self.stopping.is_some()
            || self.stands_by(name)
            || self.desk.failed()
            || self.desk.busy()
            || !group.clear
        {
            return false;
        }
        if self.desk.voter.silent(self.now) {
            let until = self.desk.voter.silent_until();
            if until > self.now {
                self.wake_at(until);
            }
            return false;
        }
        if let Some(promise) = self.desk.voter.promise(self.now, name) {
            self.wake_at(promise.until);
            return false;
        }
        match self.fitness() {
            Fitness::Fit => true,
            Fitness::Unable => false,
            Fitness::Unfit => {
                let vacant_at = group.held_at + self.setup.timing.lease * UNFIT_AFTER_LEASES;
                let fit_peer =
                    !self.is_alone() && self.peer_word().is_some_and(|w| w.fitness == Fitness::Fit && !w.standby);
                !fit_peer && self.now >= vacant_at
            }
        }
    }

    /// Both came up together: the preferred node goes first, unless it is known that it will not. Not to have heard it
    /// yet is no such knowledge.
    fn yields_to_peer(&self, name: GroupName) -> bool {
        self.groups.get(&name).is_some_and(|g| g.prefer != self.setup.me.member && g.why_free == Cause::Vacant)
            && self.peer_word().is_none_or(|w| w.fitness == Fitness::Fit && !w.standby)
    }

    /// The next number above all heard: odd on the first node, even on the second.
    fn next_term(&self, name: GroupName) -> Term {
        let above = self.desk.voter.highest(name).0 + 1;
        let parity = u64::from(self.setup.me.member == Member::First);
        Term(if above % 2 == parity { above } else { above + 1 })
    }

    fn ask_before(&mut self, name: GroupName) {
        let now = self.now;
        let Some(Role::PreVote(pre_vote)) = self.groups.get_mut(&name).map(|g| &mut g.role) else { return };
        let (term, due) = (pre_vote.term, now >= pre_vote.next);
        if due {
            pre_vote.next = now + REPEAT;
        }
        let next = pre_vote.next;
        self.wake_at(next);
        if due {
            for to in self.setup.me.member.others() {
                let request = self.request(name, term);
                self.send(to, Message::PreVote(request));
            }
        }
    }

    pub(super) fn take_pre_vote_answer(&mut self, from: Identity, answer: &Answer) {
        self.desk.voter.heard_of(answer.group, answer.highest);
        if let Some(term) = answer.released {
            self.take_release(answer.group, from, term);
        }
        let now = self.now;
        let Some(group) = self.groups.get_mut(&answer.group) else { return };
        if answer.bound {
            group.held_at = now;
        }
        let Role::PreVote(pre_vote) = &group.role else { return };
        if answer.granted && answer.term == pre_vote.term && answer.seq >= pre_vote.first_seq {
            self.stand(answer.group, answer.term);
        }
    }

    /// Becomes a candidate: its own promise and vote first, on disk, and only then a request.
    fn stand(&mut self, name: GroupName, term: Term) {
        if !self.may_campaign(name) {
            return;
        }
        let failures = self.groups.get(&name).map_or(0, |g| g.failures);
        let until = self.now + self.setup.timing.candidacy_after(failures);
        let me = self.setup.me;
        // The lease that may come of it is a promise of our own voter: a next life must be silent for as long.
        self.desk.voter.expect_hold(self.setup.timing.hold());
        let fine = self.desk.voter.record_vote(self.now, me, name, term).is_ok()
            && self.promise_self(name, term, until).is_ok();
        let now = self.now;
        let Some(group) = self.groups.get_mut(&name) else { return };
        group.free_since = None;
        if fine {
            let until = if planted!(LateGrantCounts) { until + self.setup.timing.lease } else { until };
            group.role = Role::Candidate(Candidate { term, until, asking: None, next: now });
            self.desk.begin(Purpose::Own(name, term));
        } else {
            group.role = Role::Standby;
        }
    }

    pub(super) fn own_vote_written(&mut self, name: GroupName, term: Term) {
        let (first, now) = (self.sent.next(), self.now);
        if self.is_alone() {
            return self.win_alone(name, term);
        }
        match self.groups.get_mut(&name).map(|g| &mut g.role) {
            Some(Role::Candidate(candidate)) if candidate.term == term => {
                (candidate.asking, candidate.next) = (Some(first), now);
            }
            Some(Role::Taking(taking)) if taking.term == term => {
                (taking.asking, taking.next) = (Some(first), now);
            }
            Some(Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_) | Role::Owner(_)) | None => {}
        }
    }

    /// The own vote is all that a node needs which votes alone. The lease counts from now, and the promise does, too.
    fn win_alone(&mut self, name: GroupName, term: Term) {
        let cause = match self.groups.get(&name) {
            Some(Group { role: Role::Candidate(candidate), why_free, .. })
                if candidate.term == term && self.now < candidate.until =>
            {
                *why_free
            }
            Some(_) | None => return,
        };
        self.win(self.setup.me.member, name, term, (self.now + self.setup.timing.lease, cause));
    }

    /// Sends the requests that are due: a candidate's to both, a taker's to the owner only.
    fn ask(&mut self, name: GroupName) {
        let now = self.now;
        let candidacy = self.setup.timing.candidacy();
        let me = self.setup.me.member;
        let (term, ends, next, to): (_, _, _, &[Member]) = match self.groups.get_mut(&name).map(|g| &mut g.role) {
            Some(Role::Candidate(c)) if c.asking.is_some() => (c.term, c.until, &mut c.next, &me.others()),
            Some(Role::Taking(t)) if t.asking.is_some() => {
                (t.term, t.offered_at + candidacy, &mut t.next, &me.others()[..1])
            }
            Some(Role::Candidate(c)) => {
                let until = c.until;
                return self.wake_at(until);
            }
            Some(Role::Taking(t)) => {
                let until = t.offered_at + candidacy;
                return self.wake_at(until);
            }
            Some(Role::Standby | Role::PreVote(_) | Role::Owner(_)) | None => return,
        };
        let due = now >= *next;
        if due {
            *next = now + REPEAT;
        }
        let next = *next;
        self.wake_at(next.min(ends));
        if due {
            for member in to {
                let request = self.request(name, term);
                self.send(*member, Message::Vote(request));
            }
        }
    }

    /// The owner wants us to take the group.
    pub(super) fn take_offer(&mut self, from: Identity, name: GroupName, owner_term: Term) {
        let ready = !self.stands_by(name)
            && self.stopping.is_none()
            && self.fitness() != Fitness::Unable
            && !self.desk.mute(self.now)
            && Some(from.member) == self.setup.me.member.peer();
        self.desk.voter.heard_of(name, owner_term);
        let term = self.next_term(name);
        let (me, now) = (self.setup.me, self.now);
        let Some(group) = self.groups.get_mut(&name) else { return };
        match &mut group.role {
            Role::Taking(taking) if taking.owner == from.incarnation && taking.owner_term == owner_term => {
                taking.offered_at = now;
            }
            Role::Standby | Role::PreVote(_) if ready && group.clear => {
                self.desk.voter.expect_hold(self.setup.timing.hold());
                if self.desk.voter.record_vote(now, me, name, term).is_err() {
                    return;
                }
                #[cfg(feature = "planted")]
                self.desk.voter.planted_forget(name);
                group.role = Role::Taking(Taking {
                    term,
                    owner: from.incarnation,
                    owner_term,
                    asking: None,
                    next: now,
                    offered_at: now,
                });
                self.desk.begin(Purpose::Own(name, term));
            }
            Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_) | Role::Owner(_) => {}
        }
    }

    pub(super) fn take_vote_answer(&mut self, from: Identity, answer: &Answer) {
        self.desk.voter.heard_of(answer.group, answer.highest);
        if let Some(term) = answer.released {
            self.take_release(answer.group, from, term);
        }
        #[cfg(feature = "planted")]
        if self.planted_take_unasked(from, answer) {
            return;
        }
        if !answer.granted {
            return;
        }
        let unfit_peer = self.peer_word().is_some_and(|w| w.fitness != Fitness::Fit);
        let handed_over = if unfit_peer { Cause::Unfit } else { Cause::HandedOver };
        let Some(group) = self.groups.get(&answer.group) else { return };
        let (asking, cause) = match &group.role {
            Role::Candidate(c) if c.term == answer.term && self.now < c.until => (c.asking, group.why_free),
            Role::Taking(t) if t.term == answer.term && t.owner == from.incarnation => (t.asking, handed_over),
            // The grant of a repeated request: as good as the acknowledgement of a heartbeat sent at that moment.
            Role::Owner(owner) if owner.term == answer.term => {
                if let Some((sent_at, lease)) = self.sent.sent(answer.seq) {
                    self.renew(from.member, answer.group, answer.term, sent_at + lease);
                }
                return;
            }
            Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_) | Role::Owner(_) => return,
        };
        let counts = asking.is_some_and(|first| answer.seq >= first);
        let Some((sent_at, lease)) = self.sent.sent(answer.seq).filter(|_| counts) else { return };
        let sent_at = if planted!(LeaseFromGrant) { self.now } else { sent_at };
        self.win(from.member, answer.group, answer.term, (sent_at + lease, cause));
    }

    /// The lease counts from the send time of the very request that was granted.
    pub(super) fn win(&mut self, by: Member, name: GroupName, term: Term, (end, cause): (Instant, Cause)) {
        if self.now + self.setup.timing.let_go() >= end
            || !self.members().is_enough(by)
            || (self.promise_self(name, term, end + self.setup.timing.linger).is_err() && !planted!(LateGrantCounts))
        {
            return;
        }
        let now = self.now;
        let Some(group) = self.groups.get_mut(&name) else { return };
        let after = group.claimed_at.map(|at| now.since(at));
        group.role = Role::Owner(Box::new(Owner {
            term,
            end,
            since: now,
            cause,
            witnessed: by == Member::Witness,
            leaving: None,
        }));
        group.clear = false;
        group.claimed_at = None;
        group.failures = 0;
        group.handed_over = None;
        self.next_heartbeat = now;
        self.event(Event::Acquired { group: name, term, cause, after });
    }
}
