//! Speaks for the third voter whose memory is in etcd: what to ask, and what an answer is worth. Pure.
//!
//! Hears: what the engine says to the third voter, answers, time. Tells: the next question, and what the engine is to
//! hear. At most one question is on its way; it is about all groups, and the newest word of the engine wins.

use super::record::{Holder, Record, Revision};
use crate::cluster::{
    Fitness, GroupName, Identity, Message, Secret, SecretHash, Term,
    message::{Ack, AckLine, AckVerdict, Answer, GroupLine, Heartbeat, Recall, Request},
};
use crate::limits::{
    ETCD_DOUBT_AGAIN_MAX, ETCD_IDLE, ETCD_PATIENCE_MAX, ETCD_PATIENCE_MIN, ETCD_RETRY_MAX, ETCD_WISH_FOR, HOLD_MAX,
    MEMORIES_MAX, REPEAT,
};
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// What a speaker is made with.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// This node, in this life.
    pub me: Identity,
    /// SHA-256 of a secret.
    pub hash: fn(&Secret) -> SecretHash,
    /// The cluster's lease.
    pub lease: Duration,
    /// Time between two heartbeats.
    pub interval: Duration,
}

/// A question about some groups, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its number; the answer is to be given with it.
    pub number: u64,
    /// One per group.
    pub items: Vec<(GroupName, Item)>,
}

/// What is asked about one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// What is its record?
    Read,
    /// Make it this if its revision is still that; and what is its record?
    Swap(Revision, Record),
}

/// The record of one group, as etcd tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The change that made it so; zero if there is none.
    pub revision: Revision,
    /// The record.
    pub record: Option<Record>,
}

/// Who speaks for the third voter on one node.
#[derive(Debug, Clone)]
pub struct Speaker {
    setup: Setup,
    cases: BTreeMap<GroupName, Case>,
    heartbeat: Option<Heartbeat>,
    /// The heartbeat was told after the last question was sent.
    fresh: bool,
    peer_silent: bool,
    flight: Option<Flight>,
    next_number: u64,
    sent_at: Instant,
    answered_at: Option<Instant>,
    failures: u32,
    retry_at: Instant,
    out: Vec<Message>,
}

/// What is known, and wished, of one group.
#[derive(Debug, Clone, Default)]
struct Case {
    seen: Option<Seen>,
    /// Since when the doubt in the record, at this very revision, is known to be there.
    doubted_at: Option<Instant>,
    pre_vote: Option<Wish>,
    vote: Option<Wish>,
    /// The term that this node owns, and since when.
    claim: Option<(Term, Instant)>,
    /// Hashes of the secrets that the engine has shown.
    over: Vec<SecretHash>,
    /// Doubts in vain, and when to doubt again.
    in_vain: u32,
    doubt_again: Instant,
}

/// A request, and when it was last told.
#[derive(Debug, Clone)]
struct Wish {
    request: Request,
    at: Instant,
}

/// A question on its way, with what it answers: nothing that was told after it was sent.
#[derive(Debug, Clone)]
struct Flight {
    question: Question,
    sent_at: Instant,
    heartbeat: Option<Heartbeat>,
    pre_votes: Vec<Request>,
    votes: Vec<Request>,
}

/// What a request for a vote would come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Free,
    /// A promise runs, as far as one knows.
    Bound,
    /// The term is not above all others, or nothing that an honest candidate asks for.
    Closed,
}

impl Speaker {
    /// A speaker that knows nothing yet.
    #[must_use]
    pub const fn new(setup: Setup) -> Self {
        Self {
            setup,
            cases: BTreeMap::new(),
            heartbeat: None,
            fresh: false,
            peer_silent: false,
            flight: None,
            next_number: 1,
            sent_at: Instant::ZERO,
            answered_at: None,
            failures: 0,
            retry_at: Instant::ZERO,
            out: Vec::new(),
        }
    }

    /// The engine says this to the third voter.
    pub fn told(&mut self, now: Instant, message: &Message) {
        self.tick(now);
        match message {
            Message::Heartbeat(heartbeat) => self.take_heartbeat(now, heartbeat),
            Message::PreVote(request) => {
                let Some(case) = self.case(request.group) else { return };
                case.pre_vote = Some(Wish { request: request.clone(), at: now });
                self.learn_secrets(request);
                // What only needed its time, or a secret, needs no further question.
                let decided = self.cases.get(&request.group).is_some_and(|c| c.ends_by_itself(now, request));
                if decided && self.way(now, request) == Way::Free {
                    self.answer_pre_vote(now, request);
                }
            }
            Message::Vote(request) => {
                let Some(case) = self.case(request.group) else { return };
                case.vote = Some(Wish { request: request.clone(), at: now });
                self.learn_secrets(request);
            }
            Message::Hello
            | Message::Voters(_)
            | Message::Ack(_)
            | Message::PreVoteAnswer(_)
            | Message::VoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => {}
        }
    }

    /// Whether the peer is heard. A holder that is not heard is doubted before anybody asks for its group.
    pub const fn peer_is_silent(&mut self, silent: bool) {
        self.peer_silent = silent;
    }

    /// The next question, if one is to be sent now. What it confirms was told before this call.
    pub fn next(&mut self, now: Instant) -> Option<Question> {
        self.tick(now);
        if self.flight.is_some() || now < self.retry_at || !self.wants_to_ask(now) {
            return None;
        }
        let items: Vec<(GroupName, Item)> = self
            .cases
            .iter()
            .map(|(group, case)| {
                let swap = self.swap(now, *group, case);
                (*group, swap.map_or(Item::Read, |(revision, record)| Item::Swap(revision, record)))
            })
            .collect();
        let live = |wish: &Option<Wish>| wish.as_ref().filter(|w| w.is_live(now)).map(|w| w.request.clone());
        let question = Question { number: self.next_number, items };
        self.flight = Some(Flight {
            question: question.clone(),
            sent_at: now,
            heartbeat: self.heartbeat.clone(),
            pre_votes: self.cases.values().filter_map(|c| live(&c.pre_vote)).collect(),
            votes: self.cases.values().filter_map(|c| live(&c.vote)).collect(),
        });
        self.next_number += 1;
        self.sent_at = now;
        self.fresh = false;
        Some(question)
    }

    /// The answer to a question: one record per item, in order. `now` is read after the answer was received.
    pub fn answered(&mut self, now: Instant, number: u64, seen: &[Seen]) {
        self.tick(now);
        let Some(flight) = self.flight.take_if(|f| f.question.number == number) else { return };
        if seen.len() != flight.question.items.len() {
            return self.fail(now);
        }
        self.failures = 0;
        self.answered_at = Some(now);
        for ((group, _), seen) in flight.question.items.iter().zip(seen) {
            let me = self.setup.me;
            if let Some(case) = self.cases.get_mut(group) {
                case.learn(now, me, *seen);
            }
        }
        for request in &flight.votes {
            self.answer_vote(now, request);
        }
        for request in &flight.pre_votes {
            self.answer_pre_vote(now, request);
        }
        if let Some(heartbeat) = &flight.heartbeat {
            let ack = self.ack(heartbeat);
            self.out.push(Message::Ack(ack));
        }
    }

    /// There is no answer to the question, and there will be none.
    pub fn failed(&mut self, now: Instant, number: u64) {
        if self.flight.take_if(|f| f.question.number == number).is_some() {
            self.fail(now);
        }
    }

    /// The question that waits for its answer.
    #[must_use]
    pub fn asking(&self) -> Option<u64> {
        self.flight.as_ref().map(|f| f.question.number)
    }

    /// Call [`Speaker::tick`] and [`Speaker::next`] again then, at the latest. Later than `now`, at which both were called.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        match &self.flight {
            Some(flight) => flight.sent_at + self.patience(),
            None if now < self.retry_at => self.retry_at,
            None => Instant::NEVER,
        }
    }

    /// Time has passed: a question that waits too long is given up.
    pub fn tick(&mut self, now: Instant) {
        let patience = self.patience();
        if self.flight.take_if(|f| now >= f.sent_at + patience).is_some() {
            self.fail(now);
        }
    }

    /// What the engine is to hear from the third voter.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.out)
    }

    /// etcd answers.
    #[must_use]
    pub const fn is_reached(&self) -> bool {
        self.failures == 0 && self.answered_at.is_some()
    }

    /// Nothing is held that this node has let go of, as far as one knows.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.flight.is_none()
            && self.cases.iter().all(|(group, case)| {
                let line = self.line(*group);
                line.is_none_or(|line| case.release(self.setup.me, &line).is_none())
            })
    }

    fn fail(&mut self, now: Instant) {
        let wait = REPEAT.saturating_mul(1 << self.failures.min(8)).min(ETCD_RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + wait;
    }

    /// Well below the lease, so that another member of etcd can be asked in time.
    fn patience(&self) -> Duration {
        (self.setup.lease / 3).clamp(ETCD_PATIENCE_MIN, ETCD_PATIENCE_MAX)
    }

    fn take_heartbeat(&mut self, now: Instant, heartbeat: &Heartbeat) {
        for line in heartbeat.groups.iter().take(MEMORIES_MAX) {
            let Some(case) = self.case(line.name) else { continue };
            if case.claim.map(|(term, _)| term) != line.owned {
                case.claim = line.owned.map(|term| (term, now));
            }
        }
        self.heartbeat = Some(heartbeat.clone());
        self.fresh = true;
        if self.is_reached() {
            self.out.push(Message::Hello);
        }
    }

    fn learn_secrets(&mut self, request: &Request) {
        let hash = self.setup.hash;
        if let Some(case) = self.cases.get_mut(&request.group) {
            case.over = request.secrets.iter().take(2).map(hash).collect();
        }
    }

    fn case(&mut self, group: GroupName) -> Option<&mut Case> {
        if !self.cases.contains_key(&group) && self.cases.len() >= MEMORIES_MAX {
            return None;
        }
        Some(self.cases.entry(group).or_default())
    }

    fn line(&self, group: GroupName) -> Option<GroupLine> {
        self.heartbeat.as_ref()?.groups.iter().find(|line| line.name == group).cloned()
    }

    /// Whether it is time for a question.
    fn wants_to_ask(&self, now: Instant) -> bool {
        if self.cases.iter().any(|(group, case)| self.swap(now, *group, case).is_some()) {
            return true;
        }
        let since = now.since(self.sent_at);
        let bound = |case: &Case| case.record().is_some_and(|r| r.holder.is_some_and(|h| !h.is(self.setup.me)));
        let wished = |case: &Case| {
            let pace = if bound(case) { self.setup.interval.max(REPEAT) } else { REPEAT };
            (case.vote.as_ref().is_some_and(|w| w.is_live(now))
                || case.pre_vote.as_ref().is_some_and(|w| w.is_live(now)))
                && since >= pace
        };
        if self.cases.values().any(wished) {
            return true;
        }
        // Half an interval early rather than half a one late: heartbeats are the clock.
        let owns = self.cases.values().any(|c| c.claim.is_some());
        let pace = if owns { (self.setup.lease / 4).saturating_sub(self.setup.interval / 2) } else { ETCD_IDLE };
        let owed = |(group, case): (&GroupName, &Case)| {
            self.line(*group).is_some_and(|line| !case.confirms(self.setup.me, &line))
        };
        self.fresh && (since >= pace || self.failures > 0 || (owns && self.cases.iter().any(owed)))
    }

    /// The change to ask for, if one is due: release what was let go of, claim what is owned, vote, doubt.
    fn swap(&self, now: Instant, group: GroupName, case: &Case) -> Option<(Revision, Record)> {
        let seen = case.seen?;
        let me = self.setup.me;
        let record = seen.record.unwrap_or_default();
        let line = self.line(group);
        let owned = line.as_ref().and_then(|line| line.owned);
        let change = line.and_then(|line| case.release(me, &line)).or_else(|| match owned {
            Some(term) => self.claim(now, case, &record, term),
            None => self.vote(now, case, &record),
        });
        change.or_else(|| self.doubt(now, case, &record)).map(|record| (seen.revision, record))
    }

    /// What this node owns is to be promised to it, undoubted, for as long as it says.
    fn claim(&self, now: Instant, case: &Case, record: &Record, term: Term) -> Option<Record> {
        let (me, heartbeat) = (self.setup.me, self.heartbeat.as_ref()?);
        if heartbeat.hold > HOLD_MAX {
            return None;
        }
        let mut holder =
            Holder { member: me.member, life: me.incarnation, term, hash: heartbeat.hash, hold: heartbeat.hold };
        let free = match record.holder {
            Some(old) if old.is(me) => {
                holder.hold = holder.hold.max(old.hold);
                old.term <= term && (old != holder || record.doubt.is_some())
            }
            Some(old) => old.term < term && case.is_over(now, &old),
            None => term >= record.highest,
        };
        free.then(|| record.held_by(holder))
    }

    /// A vote that is asked for, and may be given.
    fn vote(&self, now: Instant, case: &Case, record: &Record) -> Option<Record> {
        let me = self.setup.me;
        let request = &case.vote.as_ref().filter(|w| w.is_live(now))?.request;
        if self.way(now, request) != Way::Free || case.grants(me, request) {
            return None;
        }
        let Request { term, hash, hold, .. } = *request;
        Some(record.held_by(Holder { member: me.member, life: me.incarnation, term, hash, hold }))
    }

    /// Somebody else is in the way who may be dead.
    fn doubt(&self, now: Instant, case: &Case, record: &Record) -> Option<Record> {
        let me = self.setup.me;
        if record.doubt.is_some() || now < case.doubt_again {
            return None;
        }
        let wish = [&case.vote, &case.pre_vote].into_iter().flatten().find(|w| w.is_live(now));
        if case.seen.is_some_and(|seen| seen.record.is_none()) {
            return wish.map(|w| record.doubted(me.member, w.request.fit));
        }
        let holder = record.holder.filter(|h| !h.is(me))?;
        if let Some(wish) = wish {
            return Some(record.doubted(me.member, wish.request.fit));
        }
        let heartbeat = self.heartbeat.as_ref()?;
        let fit = heartbeat.fitness == Fitness::Fit && !heartbeat.standby;
        // A life of our own that is over, one that is not heard, or one that was replaced and did not say so.
        let stale = holder.member == me.member;
        let silent = self.peer_silent && fit;
        let replaced = case
            .claim
            .is_some_and(|(term, since)| holder.term < term && (self.peer_silent || now >= since + heartbeat.hold));
        (stale || silent || replaced).then(|| record.doubted(me.member, fit))
    }

    fn way(&self, now: Instant, request: &Request) -> Way {
        let me = self.setup.me;
        let Some(case) = self.cases.get(&request.group) else { return Way::Bound };
        let Some(seen) = case.seen else { return Way::Bound };
        if request.hold > HOLD_MAX || !request.term.belongs_to(me.member) {
            return Way::Closed;
        }
        let Some(record) = seen.record else { return Way::Bound };
        let same = record.holder.is_some_and(|h| h.is(me) && h.term == request.term);
        if request.term <= record.highest && !same {
            return Way::Closed;
        }
        let free = match &record.holder {
            Some(holder) => holder.is(me) || case.is_over(now, holder),
            None => record.doubt.is_none() || case.doubt_has_stood(now, request.hold),
        };
        if free { Way::Free } else { Way::Bound }
    }

    fn answer_pre_vote(&mut self, now: Instant, request: &Request) {
        let granted = self.way(now, request) == Way::Free;
        let answer = self.answer(request, granted);
        self.out.push(Message::PreVoteAnswer(answer));
    }

    fn answer_vote(&mut self, now: Instant, request: &Request) {
        let Some(case) = self.cases.get(&request.group) else { return };
        let granted = case.grants(self.setup.me, request);
        if !granted && self.way(now, request) == Way::Free {
            return; // the change is still to be made
        }
        let answer = self.answer(request, granted);
        self.out.push(Message::VoteAnswer(answer));
    }

    fn answer(&self, request: &Request, granted: bool) -> Answer {
        let record = self.cases.get(&request.group).and_then(Case::record).unwrap_or_default();
        let bound = record.holder.is_some_and(|h| !h.is(self.setup.me));
        let Request { seq, group, term, .. } = *request;
        Answer { seq, group, term, granted, highest: record.highest, released: None, bound: bound && !granted }
    }

    /// What the answer says of a heartbeat that was told before its question was sent.
    fn ack(&self, heartbeat: &Heartbeat) -> Ack {
        let me = self.setup.me;
        let line = |line: &GroupLine| {
            let case = self.cases.get(&line.name);
            let record = case.and_then(Case::record).unwrap_or_default();
            let verdict = line.owned.and_then(|term| match record.holder {
                Some(h) if h.is(me) => {
                    let fine = h.term == term && h.hold >= heartbeat.hold && record.doubt.is_none();
                    fine.then_some(AckVerdict::Promised(term))
                }
                Some(h) => Some(AckVerdict::Refused(term, h.term)),
                None => (record.highest > term).then_some(AckVerdict::Refused(term, record.highest)),
            });
            let wanted = record.doubt.is_some_and(|d| d.fit && d.by != me.member);
            AckLine { name: line.name, highest: record.highest, verdict, wanted }
        };
        let groups = heartbeat.groups.iter().take(MEMORIES_MAX).map(line).collect();
        let blank = self.cases.values().all(|c| c.record().is_none());
        Ack { seq: heartbeat.seq, recall: if blank { Recall::Blank } else { Recall::Kept }, groups }
    }
}

impl Case {
    fn record(&self) -> Option<Record> {
        self.seen.and_then(|seen| seen.record)
    }

    fn learn(&mut self, now: Instant, me: Identity, seen: Seen) {
        let old = self.record().unwrap_or_default();
        let new = seen.record.unwrap_or_default();
        if self.seen.is_none_or(|old| old.revision != seen.revision) {
            self.doubted_at = new.doubt.map(|_| now);
        }
        let (was, is) = (old.holder.map(|h| (h.life, h.term)), new.holder.map(|h| (h.life, h.term)));
        if was != is {
            (self.in_vain, self.doubt_again) = (0, Instant::ZERO);
        } else if let (Some(_), None, Some(holder)) = (old.doubt, new.doubt, new.holder.filter(|h| !h.is(me))) {
            let wait = (holder.hold / 2).saturating_mul(1 << self.in_vain.min(8)).min(ETCD_DOUBT_AGAIN_MAX);
            self.in_vain = self.in_vain.saturating_add(1);
            self.doubt_again = now + wait;
        }
        self.seen = Some(seen);
    }

    /// The record without the promise that this node has let go of.
    fn release(&self, me: Identity, line: &GroupLine) -> Option<Record> {
        let record = self.record()?;
        let holder = record.holder.filter(|h| h.is(me))?;
        (line.owned.is_none() && line.released.is_some_and(|term| term >= holder.term)).then(|| record.released())
    }

    /// The doubt has stood for this long, by our own clock.
    fn doubt_has_stood(&self, now: Instant, hold: Duration) -> bool {
        self.doubted_at.is_some_and(|at| now >= at + hold)
    }

    /// The promise to somebody else has ended.
    fn is_over(&self, now: Instant, holder: &Holder) -> bool {
        holder.hash.is_some_and(|hash| self.over.contains(&hash)) || self.doubt_has_stood(now, holder.hold)
    }

    /// Time or a secret has ended what stood in the way: what is known already is enough to say so.
    fn ends_by_itself(&self, now: Instant, request: &Request) -> bool {
        match self.record().unwrap_or_default().holder {
            Some(holder) => self.is_over(now, &holder),
            None => self.doubt_has_stood(now, request.hold),
        }
    }

    /// The record is what the request asked for.
    fn grants(&self, me: Identity, request: &Request) -> bool {
        let record = self.record().unwrap_or_default();
        let fits = |h: Holder| h.is(me) && h.term == request.term && h.hold >= request.hold;
        record.doubt.is_none() && record.holder.is_some_and(fits)
    }

    /// What the heartbeat claims stands in the record.
    fn confirms(&self, me: Identity, line: &GroupLine) -> bool {
        let Some(term) = line.owned else { return true };
        self.record().is_some_and(|r| r.doubt.is_none() && r.holder.is_some_and(|h| h.is(me) && h.term == term))
    }
}

impl Holder {
    fn is(&self, me: Identity) -> bool {
        self.life == me.incarnation
    }
}

impl Wish {
    /// The engine repeats what it still wants.
    fn is_live(&self, now: Instant) -> bool {
        now < self.at + ETCD_WISH_FOR
    }
}

#[cfg(test)]
#[path = "speaker_tests.rs"]
mod tests;
