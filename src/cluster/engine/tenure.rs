//! How an owner stays, and how it leaves: renewal, loss, hand-over.

use super::group::{HandOver, Role, Stage};
use super::{Engine, NO_RETURN};
use crate::cluster::desk::Purpose;
use crate::cluster::event::{Cause, Event};
use crate::cluster::input::{Action, Command, CommandId, CommandRefusal};
use crate::cluster::message::{Answer, Fitness, Message, Request};
use crate::cluster::name::{GroupName, Member, Term};
use crate::cluster::voter::Identity;
use crate::limits::REPEAT;
use crate::time::{Duration, Instant};

/// How long the peer may take to ask for what it is offered.
const OFFER_FOR: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) fn advance_tenure(&mut self, name: GroupName) {
        let Some(Role::Owner(owner)) = self.groups.get(&name).map(|g| &g.role) else { return };
        let let_go = owner.end - self.setup.timing.let_go();
        let leaving = owner.leaving.is_some();
        if self.now < let_go {
            self.wake_at(let_go);
        } else if !planted!(EndedLeaseRevived) {
            return self.lose(name, Cause::LeaseExpired);
        }
        if self.fitness() == Fitness::Unable {
            return self.lose(name, Cause::Unable);
        }
        if leaving { self.advance_hand_over(name) } else { self.reconsider(name) }
    }

    /// Should this node keep the group?
    fn reconsider(&mut self, name: GroupName) {
        let Some(Role::Owner(owner)) = self.groups.get(&name).map(|g| &g.role) else { return };
        let moved_for_unfitness = owner.cause == Cause::Unfit && self.now < owner.since + NO_RETURN;
        let cause = match self.stopping {
            Some(stopping) => stopping.cause,
            None if self.stands_by(name) => Cause::Standby,
            None if self.makes_way() => Cause::Standby,
            None if self.fitness == Fitness::Unfit && !moved_for_unfitness => Cause::Unfit,
            None => return,
        };
        if self.peer_can_take() {
            let drain = if cause == Cause::Unfit { Duration::ZERO } else { self.setup.drain };
            self.leave(name, cause, None, drain);
        } else if cause != Cause::Unfit {
            self.lose(name, cause);
        }
    }

    /// A voter has confirmed the claim in a heartbeat: the lease counts from when that was sent.
    pub(super) fn renew(&mut self, by: Member, name: GroupName, term: Term, end: Instant) {
        let let_go = self.setup.timing.let_go();
        let enough = self.members().is_enough(by);
        let Some(Role::Owner(owner)) = self.groups.get_mut(&name).map(|g| &mut g.role) else { return };
        if !enough || owner.term != term || (self.now + let_go >= owner.end && !planted!(EndedLeaseRevived)) {
            return;
        }
        owner.witnessed |= by == Member::Witness;
        owner.end = owner.end.max(end);
        let end = owner.end + self.setup.timing.linger;
        if self.promise_self(name, term, end).is_err() && !planted!(EndedLeaseRevived) {
            self.lose(name, Cause::LeaseExpired);
        }
    }

    /// Who votes alone confirms itself.
    pub(super) fn renew_alone(&mut self) {
        if !self.is_alone() {
            return;
        }
        let owned: Vec<(GroupName, Term)> =
            self.groups.keys().filter_map(|name| self.owned(*name).map(|(term, _)| (*name, term))).collect();
        for (name, term) in owned {
            self.renew(self.setup.me.member, name, term, self.now + self.setup.timing.lease);
        }
    }

    /// A voter is bound elsewhere. In a lower term that is the past, which will run out.
    pub(super) fn refused(&mut self, name: GroupName, term: Term, bound: Term) {
        match self.groups.get(&name).map(|g| &g.role) {
            Some(Role::Owner(owner)) if owner.term == term && bound > term => self.lose(name, Cause::HigherTerm),
            Some(Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_) | Role::Owner(_)) | None => {}
        }
    }

    /// The witness has refused a fit node this group. If we are unfit, and cannot hand it over, we are in its way.
    pub(super) fn wanted(&mut self, name: GroupName) {
        if self.fitness() == Fitness::Unfit && !self.peer_can_take() && self.owned(name).is_some() {
            self.lose(name, Cause::Unfit);
        }
    }

    pub(super) fn lose_all(&mut self, cause: Cause) {
        let names: Vec<GroupName> = self.groups.keys().copied().collect();
        for name in names {
            self.lose(name, cause);
        }
    }

    /// Lets go at once. The term is released to the others when the addresses are gone.
    pub(super) fn lose(&mut self, name: GroupName, cause: Cause) {
        let Some(group) = self.groups.get_mut(&name) else { return };
        let Role::Owner(owner) = std::mem::replace(&mut group.role, Role::Standby) else {
            return;
        };
        group.owed = Some(owner.term);
        group.free_since = None;
        group.held_at = self.now;
        group.why_free = Cause::Vacant;
        if let Some(leaving) = owner.leaving {
            self.out.push(Action::Drain(name, false));
            self.out.extend(leaving.answer.map(|id| Action::Answer(id, Err(CommandRefusal::Lost))));
        }
        self.event(Event::Lost { group: name, term: owner.term, cause });
    }

    /// The keeper has read back that the addresses are gone.
    pub(super) fn gone(&mut self, name: GroupName) {
        let Some(group) = self.groups.get_mut(&name) else { return };
        if let Role::Owner(owner) = &group.role {
            if owner.leaving.as_ref().is_some_and(|h| matches!(h.stage, Stage::Leaving { .. })) {
                return self.complete(name);
            }
            self.lose(name, Cause::LetGo);
        }
        let Some(group) = self.groups.get_mut(&name) else { return };
        group.clear = true;
        if let Some(term) = group.owed.take() {
            group.released = Some(term);
            self.desk.voter.release(name, self.setup.me.incarnation, term);
            self.next_heartbeat = self.now;
        }
    }

    pub(super) fn command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Stop => {
                self.stop(Cause::Stopping);
                self.out.push(Action::Answer(id, Ok(())));
            }
            Command::Switchover { group, force } => match self.may_move(group, force) {
                Ok(()) => self.leave(group, Cause::Switchover, Some(id), self.setup.drain),
                Err(why) => self.out.push(Action::Answer(id, Err(why))),
            },
            Command::Fetch { group, force } => {
                let answer = self.may_fetch(group);
                if let (Ok(()), Some(peer)) = (answer, self.setup.me.member.peer()) {
                    // Twice, in case one is lost; the second finds the move under way.
                    for _ in 0..2 {
                        self.send(peer, Message::Ask { group, force });
                    }
                }
                self.out.push(Action::Answer(id, answer));
            }
        }
    }

    /// The peer owns the group, and this node could take it.
    fn may_fetch(&self, name: GroupName) -> Result<(), CommandRefusal> {
        if !self.groups.contains_key(&name) {
            return Err(CommandRefusal::UnknownGroup);
        }
        let peer = self.peer_word().ok_or(CommandRefusal::PeerSilent)?;
        if peer.lines.get(&name).is_none_or(|line| line.owned.is_none()) {
            return Err(CommandRefusal::NotOwner);
        }
        if self.standby || self.stopping.is_some() || self.fitness() == Fitness::Unable || self.desk.failed() {
            return Err(CommandRefusal::NotReady);
        }
        Ok(())
    }

    /// An operator at the peer wants it to have the group.
    pub(super) fn take_ask(&mut self, from: Identity, name: GroupName, force: bool) {
        if Some(from.member) == self.setup.me.member.peer() && self.may_move(name, force).is_ok() {
            self.leave(name, Cause::Switchover, None, self.setup.drain);
        }
    }

    fn may_move(&self, name: GroupName, force: bool) -> Result<(), CommandRefusal> {
        let group = self.groups.get(&name).ok_or(CommandRefusal::UnknownGroup)?;
        let Role::Owner(owner) = &group.role else { return Err(CommandRefusal::NotOwner) };
        if owner.leaving.is_some() {
            return Err(CommandRefusal::Busy);
        }
        if self.is_alone() {
            return Err(CommandRefusal::NoMember);
        }
        let peer = self.peer_word().filter(|_| self.peer_answers()).ok_or(CommandRefusal::PeerSilent)?;
        if peer.standby {
            return Err(CommandRefusal::PeerStandby);
        }
        if peer.config != self.setup.config && !force {
            return Err(CommandRefusal::ConfigDiffers);
        }
        if peer.recall.lost() || (peer.fitness != Fitness::Fit && !force) || peer.fitness == Fitness::Unable {
            return Err(CommandRefusal::PeerUnfit);
        }
        Ok(())
    }

    fn leave(&mut self, name: GroupName, cause: Cause, answer: Option<CommandId>, drain: Duration) {
        let now = self.now;
        let Some(Role::Owner(owner)) = self.groups.get_mut(&name).map(|g| &mut g.role) else { return };
        owner.leaving = Some(HandOver { cause, answer, stage: Stage::Draining { until: now + drain } });
        self.out.push(Action::Drain(name, true));
        self.advance_hand_over(name);
    }

    /// No request that began before the drain is in progress any more.
    pub(super) fn drained(&mut self, name: GroupName) {
        let now = self.now;
        if let Some(Stage::Draining { until }) = self.stage(name) {
            *until = now;
        }
    }

    pub(super) fn stage(&mut self, name: GroupName) -> Option<&mut Stage> {
        match self.groups.get_mut(&name).map(|g| &mut g.role) {
            Some(Role::Owner(owner)) => owner.leaving.as_mut().map(|h| &mut h.stage),
            Some(Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_)) | None => None,
        }
    }

    fn advance_hand_over(&mut self, name: GroupName) {
        let now = self.now;
        let peer = self.setup.me.member.peer();
        if let Some(Stage::Draining { until }) = self.stage(name).cloned() {
            if now < until {
                return self.wake_at(until);
            }
            if let Some(stage) = self.stage(name) {
                *stage = Stage::Offering { next: now, until: now + OFFER_FOR };
            }
        }
        let (next, until) = match self.stage(name) {
            Some(Stage::Offering { next, until }) => (next, *until),
            Some(Stage::Writing { next, .. } | Stage::Leaving { next, .. }) => (next, Instant::NEVER),
            Some(Stage::Draining { .. }) | None => return,
        };
        let due = now >= *next;
        if due {
            *next = now + REPEAT;
        }
        let next = *next;
        if now >= until {
            return self.give_up(name);
        }
        self.wake_at(next.min(until));
        #[cfg(feature = "planted")]
        if self.planted_unasked(name) {
            return;
        }
        if let (true, Some((term, _)), Some(peer)) = (due, self.owned(name), peer) {
            self.send(peer, Message::Offer { group: name, term });
        }
    }

    /// The peer did not ask. An operator's switchover has failed; who must leave lets go without a successor.
    fn give_up(&mut self, name: GroupName) {
        let Some(Role::Owner(owner)) = self.groups.get_mut(&name).map(|g| &mut g.role) else { return };
        let Some(leaving) = owner.leaving.take() else { return };
        self.out.push(Action::Drain(name, false));
        self.out.extend(leaving.answer.map(|id| Action::Answer(id, Err(CommandRefusal::NotTaken))));
        self.event(Event::MoveFailed { group: name, why: "the peer did not take it" });
        if matches!(leaving.cause, Cause::Standby | Cause::Stopping) {
            self.lose(name, leaving.cause);
        }
    }

    /// A vote request: of the peer to whom we hand over, or an ordinary one.
    pub(super) fn take_vote(&mut self, from: Identity, request: &Request) {
        let busy = self.desk.busy();
        let peer = Some(from.member) == self.setup.me.member.peer();
        let now = self.now;
        let name = request.group;
        let own_term = self.owned(name).map(|(term, _)| term);
        let offer = match self.stage(name) {
            Some(Stage::Offering { next, .. }) if peer && own_term.is_some_and(|t| request.term > t) => Some(*next),
            Some(Stage::Writing { to, request: last, .. } | Stage::Leaving { to, request: last, .. })
                if to.incarnation == from.incarnation && last.term == request.term =>
            {
                **last = request.clone();
                return;
            }
            Some(Stage::Draining { .. } | Stage::Offering { .. } | Stage::Writing { .. } | Stage::Leaving { .. })
            | None => None,
        };
        let Some(next) = offer else {
            if let Some(answer) = self.desk.vote(now, from, request) {
                self.send_vote_answer(from.member, answer);
            }
            return;
        };
        self.desk.voter.expect_hold(request.hold);
        // With another configuration than ours the peer may want an address that we hold as part of another group.
        let taken = self.desk.voter.taken(now, from.incarnation, name, &request.addresses);
        if busy || taken || self.desk.voter.record_vote(now, from, name, request.term).is_err() {
            return;
        }
        if let Some(stage) = self.stage(name) {
            *stage = Stage::Writing { to: from, request: Box::new(request.clone()), next };
            self.desk.begin(Purpose::HandOver(name, request.term));
        }
    }

    /// Our vote for the peer is on disk: now the kernel side may let go.
    pub(super) fn hand_over_written(&mut self, name: GroupName, term: Term) {
        let Some(stage) = self.stage(name) else { return };
        if let Stage::Writing { to, request, next } = stage
            && request.term == term
        {
            *stage = Stage::Leaving { to: *to, request: request.clone(), next: *next };
            if planted!(ReleaseBeforeShut) {
                self.complete(name);
            }
        }
    }

    /// The addresses are gone: grant and release in one answer.
    fn complete(&mut self, name: GroupName) {
        let Some(group) = self.groups.get_mut(&name) else { return };
        let Role::Owner(owner) = std::mem::replace(&mut group.role, Role::Standby) else { return };
        let Some(HandOver { cause, answer: id, stage: Stage::Leaving { to, request, .. } }) = owner.leaving else {
            return;
        };
        group.clear = true;
        group.released = Some(owner.term);
        group.handed_over = Some((request.term, self.now));
        group.free_since = None;
        self.desk.voter.release(name, self.setup.me.incarnation, owner.term);
        let granted = self.desk.voter.promise_recorded(self.now, to, &request.bid()).is_ok();
        let answer = Answer {
            seq: request.seq,
            group: name,
            term: request.term,
            granted,
            highest: self.desk.voter.highest(name),
            released: Some(owner.term),
            bound: false,
        };
        self.send(to.member, Message::VoteAnswer(answer));
        self.next_heartbeat = self.now;
        self.out.push(Action::Drain(name, false));
        self.out.extend(id.map(|id| Action::Answer(id, Ok(()))));
        self.event(Event::Lost { group: name, term: owner.term, cause });
    }
}
