//! The voter's desk: takes heartbeats and requests, answers them, and lets no answer out before the disk has what it
//! rests on. Nodes and the witness run the same one.

use super::message::{Ack, AckLine, Answer, Fitness, Heartbeat, Recall, Request};
use super::name::{GroupName, Member, Secret, SecretHash, Term};
use super::voter::{Bid, Identity, Memory, Refusal, Ruling, Voter};
use super::voters::{Members, Sets, VoterSet};
use crate::limits::MEMORIES_MAX;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// Numbers the writes of one voter.
pub type WriteId = u64;

/// How long a refused candidate counts as one that wants the group.
const WANTED: Duration = Duration::from_millis(500);

/// The voter with its paperwork.
#[derive(Debug, Clone, Hash)]
pub struct Desk {
    /// What binds.
    pub voter: Voter,
    hash: fn(&Secret) -> SecretHash,
    write: Option<Write>,
    next_id: WriteId,
    failed: bool,
    wanted: BTreeMap<GroupName, (Member, Instant)>,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Write {
    id: WriteId,
    memory: Memory,
    handed_out: bool,
    pub(super) purpose: Purpose,
}

/// What is waiting for a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The answer to a vote request; the newest repetition of it.
    Grant(Identity, Box<Request>),
    /// Our own vote, for ourselves.
    Own(GroupName, Term),
    /// Our vote for the peer, to whom we hand the group over.
    HandOver(GroupName, Term),
    /// A longer hold, or the first memory of all.
    Hold,
    /// The next set, chosen here.
    Choice,
    /// The next set, chosen by another.
    Follow(Box<VoterSet>),
}

/// What to do when a write is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Send this answer.
    Answer(Member, Answer),
    /// Our own vote is on disk.
    Own(GroupName, Term),
    /// Our vote for the peer is on disk.
    HandOver(GroupName, Term),
    /// The choice of the next set may be told.
    Chosen,
    /// Another set is in force now, instead of these voters.
    Followed(Option<Members>),
    /// Nothing waits.
    Nothing,
}

impl Desk {
    /// A desk for `voter`; `hash` is SHA-256.
    #[must_use]
    pub fn new(voter: Voter, hash: fn(&Secret) -> SecretHash) -> Self {
        Self { voter, hash, write: None, next_id: 1, failed: false, wanted: BTreeMap::new() }
    }

    /// A write is under way.
    #[must_use]
    pub const fn busy(&self) -> bool {
        self.write.is_some()
    }

    /// The disk has failed: no vote is given any more.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// Neither votes nor candidacies now.
    #[must_use]
    pub fn mute(&self, now: Instant) -> bool {
        self.failed || self.busy() || self.voter.silent(now)
    }

    /// A heartbeat: what is promised, and what is not.
    pub fn heartbeat(&mut self, now: Instant, from: Identity, heartbeat: &Heartbeat) -> Ack {
        for line in heartbeat.groups.iter().take(MEMORIES_MAX) {
            self.voter.heard_of(line.name, line.highest);
            if let Some(term) = line.released {
                self.voter.release(line.name, from.incarnation, term);
            }
        }
        self.told(from.member, heartbeat.recall);
        let mut groups = Vec::with_capacity(heartbeat.groups.len());
        for line in heartbeat.groups.iter().take(MEMORIES_MAX) {
            let bid = |term| Bid { group: line.name, term, hold: heartbeat.hold, addresses: &line.addresses };
            let verdict = line.owned.and_then(|term| self.voter.claim(now, from, &bid(term)));
            let wanted =
                self.wanted.get(&line.name).is_some_and(|(who, at)| *who != from.member && now.since(*at) < WANTED);
            groups.push(AckLine { name: line.name, highest: self.voter.highest(line.name), verdict, wanted });
        }
        self.want_memory();
        Ack { seq: heartbeat.seq, recall: self.voter.recall(), groups }
    }

    /// What another member remembers. The first memory is written as soon as there is one.
    pub fn told(&mut self, from: Member, recall: Recall) {
        if self.voter.told(from, recall) {
            self.begin(Purpose::Hold);
        }
    }

    /// How would a vote go?
    pub fn pre_vote(&mut self, now: Instant, from: Identity, request: &Request) -> Answer {
        self.learn(&request.secrets);
        let ruling = if self.failed { Err(Refusal::Silent) } else { self.voter.would_vote(now, from, &request.bid()) };
        if ruling == Err(Refusal::Bound) {
            self.note_wanted(now, from, request);
        }
        self.answer(now, from, request, ruling.is_ok())
    }

    /// A vote request. No answer means that it waits for the disk.
    pub fn vote(&mut self, now: Instant, from: Identity, request: &Request) -> Option<Answer> {
        self.learn(&request.secrets);
        if self.failed {
            return Some(self.answer(now, from, request, false));
        }
        if self.write.as_ref().is_some_and(|w| request.hold > w.memory.hold_given) {
            // What is being written does not cover this; the next write will.
            self.voter.expect_hold(request.hold);
            return None;
        }
        let busy = self.busy();
        match self.voter.vote(now, from, &request.bid(), busy) {
            Ruling::Persist => {
                self.begin(Purpose::Grant(from, Box::new(request.clone())));
                planted!(AnswerBeforePersist).then(|| self.answer(now, from, request, true))
            }
            Ruling::Again => self.again(now, from, request),
            Ruling::No(Refusal::Unwritten) => {
                self.want_memory();
                None
            }
            Ruling::No(Refusal::Bound) => {
                self.note_wanted(now, from, request);
                Some(self.answer(now, from, request, false))
            }
            Ruling::No(
                Refusal::Silent | Refusal::Taken | Refusal::Voted | Refusal::Over | Refusal::Full | Refusal::Senseless,
            ) => Some(self.answer(now, from, request, false)),
        }
    }

    /// A vote for ourselves or, handing over, for the peer: to be called after the voter has recorded it.
    pub fn begin(&mut self, purpose: Purpose) {
        debug_assert!(self.write.is_none() || purpose == Purpose::Hold, "two writes never overlap");
        if self.write.is_some() || self.failed {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut memory = self.voter.memory();
        if planted!(VoteNotPersisted) {
            memory.groups.clear();
        }
        if let Purpose::Follow(set) = &purpose {
            memory.sets = Sets { in_force: Some((**set).clone()), next: None };
        }
        self.write = Some(Write { id, memory, handed_out: false, purpose });
    }

    /// The write that is to be handed to the disk now, once.
    pub fn take_write(&mut self) -> Option<(WriteId, Memory)> {
        let write = self.write.as_mut().filter(|w| !w.handed_out)?;
        write.handed_out = true;
        Some((write.id, write.memory.clone()))
    }

    /// The disk has it.
    pub fn written(&mut self, now: Instant, id: WriteId) -> Done {
        let Some(write) = self.write.take_if(|w| w.id == id) else { return Done::Nothing };
        self.voter.remembered(&write.memory);
        let done = match write.purpose {
            Purpose::Grant(from, request) => {
                // The promise may have ended meanwhile (a release, a secret, a slow disk): then there is no grant.
                let holds =
                    self.voter.promise(now, request.group).is_some_and(|p| p.to.incarnation == from.incarnation);
                Done::Answer(from.member, self.answer(now, from, &request, holds))
            }
            Purpose::Own(group, term) => Done::Own(group, term),
            Purpose::HandOver(group, term) => Done::HandOver(group, term),
            Purpose::Hold => Done::Nothing,
            Purpose::Choice => Done::Chosen,
            Purpose::Follow(set) => {
                let old = std::mem::replace(&mut self.voter.sets, Sets { in_force: Some(*set), next: None });
                Done::Followed(old.in_force.map(|set| set.members))
            }
        };
        self.want_memory();
        done
    }

    /// The disk has failed, finally.
    pub fn fail(&mut self) {
        self.failed = true;
        self.write = None;
    }

    /// Secrets end promises. Whether one did.
    pub fn learn(&mut self, secrets: &[Secret]) -> bool {
        let mut ended = false;
        for secret in secrets.iter().take(2) {
            ended |= self.voter.disclose((self.hash)(secret));
        }
        ended
    }

    /// SHA-256 of a secret.
    #[must_use]
    pub fn hash_of(&self, secret: &Secret) -> SecretHash {
        (self.hash)(secret)
    }

    /// The request was answered before: again, unless the disk still works on it. Then the newest one is answered.
    fn again(&mut self, now: Instant, from: Identity, request: &Request) -> Option<Answer> {
        match self.write.as_mut().map(|w| &mut w.purpose) {
            Some(Purpose::Grant(to, pending)) if pending.group == request.group => {
                (*to, **pending) = (from, request.clone());
                None
            }
            Some(Purpose::HandOver(group, _)) if *group == request.group => None,
            // Promised before, but not for so long: that is being written.
            Some(_) if request.hold > self.voter.hold_given() => None,
            Some(
                Purpose::Grant(..)
                | Purpose::Own(..)
                | Purpose::HandOver(..)
                | Purpose::Hold
                | Purpose::Choice
                | Purpose::Follow(_),
            )
            | None => Some(self.answer(now, from, request, true)),
        }
    }

    fn answer(&self, now: Instant, from: Identity, request: &Request, granted: bool) -> Answer {
        Answer {
            seq: request.seq,
            group: request.group,
            term: request.term,
            granted,
            highest: self.voter.highest(request.group),
            released: None,
            bound: self.voter.bound_elsewhere(now, request.group, from.incarnation).is_some()
                || self.voter.taken(now, from.incarnation, request.group, &request.addresses),
        }
    }

    fn note_wanted(&mut self, now: Instant, from: Identity, request: &Request) {
        self.wanted.retain(|_, (_, at)| now.since(*at) < WANTED);
        if request.fit && (self.wanted.len() < MEMORIES_MAX || self.wanted.contains_key(&request.group)) {
            self.wanted.insert(request.group, (from.member, now));
        }
    }

    pub(super) const fn writing_mut(&mut self) -> Option<&mut Write> {
        self.write.as_mut()
    }

    /// Numbers writes from one again, and forgets who wants what.
    pub(super) fn forget_paper(&mut self) {
        self.wanted.clear();
        self.next_id = 1;
        if let Some(write) = &mut self.write {
            (write.id, self.next_id) = (1, 2);
        }
    }

    /// Begins to write what a longer promise needs, if the disk is free.
    pub fn want_memory(&mut self) {
        if self.voter.wants_memory() && !self.busy() {
            self.begin(Purpose::Hold);
        }
    }
}

/// A node that is fit asks for votes as such.
#[must_use]
pub const fn asks_as_fit(fitness: Fitness) -> bool {
    matches!(fitness, Fitness::Fit)
}
