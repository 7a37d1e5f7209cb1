//! The third voter: owns nothing, remembers promises.

use super::desk::{Desk, Done, Purpose, WriteId};
use super::message::Message;
use super::name::{Member, Secret, SecretHash};
use super::voter::{Identity, Memory, Voter};
use super::voters::{Sets, Stance, VoterSet};
use crate::limits::MEMORIES_MAX;
use crate::time::Instant;

/// The engine of a witness, for one cluster.
#[derive(Debug, Clone, Hash)]
pub struct Witness {
    desk: Desk,
    /// The set that each node was last known to stand in.
    told: [Option<VoterSet>; 2],
}

/// What the witness wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAction {
    /// Send this to a node.
    Send(Member, Message),
    /// Write this, then say [`Witness::written`].
    Persist(WriteId, Memory),
}

impl Witness {
    /// A witness that comes to life at `now`; `hash` is SHA-256.
    #[must_use]
    pub fn new(now: Instant, me: Identity, memory: Option<Memory>, hash: fn(&Secret) -> SecretHash) -> Self {
        Self { desk: Desk::new(Voter::new(now, me, memory), hash), told: [None, None] }
    }

    /// A message of a node whose incarnation is believed.
    pub fn handle(&mut self, now: Instant, from: Identity, message: &Message) -> Vec<WitnessAction> {
        let mut out = Vec::new();
        if from.member == Member::Witness {
            return out;
        }
        let answer = match message {
            Message::Heartbeat(heartbeat) => {
                let from = Identity { hash: heartbeat.hash, ..from };
                Some(Message::Ack(self.desk.heartbeat(now, from, heartbeat)))
            }
            Message::PreVote(request) => {
                let from = Identity { hash: request.hash, ..from };
                Some(Message::PreVoteAnswer(self.desk.pre_vote(now, from, request)))
            }
            Message::Vote(request) => {
                let from = Identity { hash: request.hash, ..from };
                self.desk.vote(now, from, request).map(Message::VoteAnswer)
            }
            Message::Voters(stance) => {
                self.take_stance(now, from.member, stance);
                None
            }
            // A node that wants this witness, and does not count on it yet, asks whether it is there.
            Message::Hello => Some(Message::Hello),
            Message::Ack(_)
            | Message::PreVoteAnswer(_)
            | Message::VoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => None,
        };
        out.extend(answer.map(|message| WitnessAction::Send(from.member, message)));
        self.flush(&mut out);
        out
    }

    /// A node whose incarnation is believed has said something in another voter set: it learns of ours by the answer.
    #[must_use]
    pub fn apart(&self, from: Member) -> Option<WitnessAction> {
        (from != Member::Witness).then_some(WitnessAction::Send(from, Message::Hello))
    }

    /// A node says in which set it stands. Without a memory, the witness acknowledges in the highest that it is told at
    /// once, and votes there when both nodes have told it what they remember. With one, it goes where both stand.
    fn take_stance(&mut self, now: Instant, from: Member, stance: &Stance) {
        for (group, term) in stance.terms.iter().take(MEMORIES_MAX) {
            self.desk.voter.heard_of(*group, *term);
        }
        let set = &stance.in_force;
        let Some(told) = self.told.get_mut(from.index()) else { return };
        if set.members.third().is_none() {
            return;
        }
        *told = Some(set.clone());
        let mine = self.desk.voter.sets().in_force.as_ref();
        let higher = mine.map_or(0, |mine| mine.generation) < set.generation;
        if self.desk.voter.recall().lost() {
            if higher {
                self.desk.voter.sets = Sets { in_force: Some(set.clone()), next: None };
                self.desk.voter.forget_memory(now);
            }
            if self.desk.voter.sets().in_force.as_ref() == Some(set) {
                self.desk.told(from, stance.recall);
            }
        } else if higher && self.told.iter().all(|told| told.as_ref() == Some(set)) && !self.desk.busy() {
            self.desk.begin(Purpose::Follow(Box::new(set.clone())));
        }
    }

    /// A release notice.
    pub fn notice(&mut self, secret: &Secret) {
        self.desk.learn(std::slice::from_ref(secret));
    }

    /// The disk has it.
    pub fn written(&mut self, now: Instant, id: WriteId) -> Vec<WitnessAction> {
        let mut out = Vec::new();
        match self.desk.written(now, id) {
            Done::Answer(to, answer) => out.push(WitnessAction::Send(to, Message::VoteAnswer(answer))),
            Done::Own(..) | Done::HandOver(..) | Done::Chosen | Done::Followed(_) | Done::Nothing => {}
        }
        self.flush(&mut out);
        out
    }

    /// The disk has failed.
    pub fn store_failed(&mut self) {
        self.desk.fail();
    }

    /// The voter, for people and invariants.
    #[must_use]
    pub const fn voter(&self) -> &Voter {
        &self.desk.voter
    }

    pub(super) const fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }

    fn flush(&mut self, out: &mut Vec<WitnessAction>) {
        out.extend(self.desk.take_write().map(|(id, memory)| WitnessAction::Persist(id, memory)));
    }
}
