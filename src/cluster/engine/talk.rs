//! What is said to whom: heartbeats, acknowledgements, and what is known of the others.

use super::group::Role;
use super::{Engine, SECRETS_MAX};
use crate::cluster::event::{Cause, Event};
use crate::cluster::input::Action;
use crate::cluster::message::{Ack, AckVerdict, Answer, Fitness, GroupLine, Heartbeat, Message, Recall, Request, Seq};
use crate::cluster::name::{GroupName, Member, Secret, Term};
use crate::cluster::normal::Shift;
use crate::cluster::voter::Identity;
use crate::limits::MEMORIES_MAX;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// What is known of another member.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct Remote {
    pub(super) identity: Option<Identity>,
    pub(super) heard_at: Option<Instant>,
    pub(super) heard: bool,
    /// When it last acknowledged a heartbeat.
    pub(super) answered_at: Option<Instant>,
    pub(super) word: Option<Word>,
    /// Round trip of the newest acknowledgement.
    pub(super) round_trip: Option<Duration>,
}

/// A node's latest word.
#[derive(Debug, Clone, Hash)]
pub(super) struct Word {
    pub(super) fitness: Fitness,
    pub(super) standby: bool,
    pub(super) config: u64,
    pub(super) recall: Recall,
    pub(super) lines: BTreeMap<GroupName, GroupLine>,
}

/// When each datagram was handed out, and the lease then in force.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct SendLog {
    first: Seq,
    log: VecDeque<(Instant, Duration)>,
}

impl SendLog {
    /// Notes a datagram that goes out now; its number. What could extend no lease any more is forgotten.
    pub(super) fn push(&mut self, now: Instant, lease: Duration) -> Seq {
        while self.log.front().is_some_and(|(at, lease)| now >= *at + *lease) {
            self.log.pop_front();
            self.first += 1;
        }
        self.log.push_back((now, lease));
        self.first + self.log.len() as u64 - 1
    }

    /// Moves the state: see [`crate::cluster::normal`].
    pub(super) fn shift(&mut self, shift: &Shift, me: Member) {
        self.first = shift.seq(me, self.first);
        self.log.iter_mut().for_each(|(at, _)| *at = shift.at(*at));
    }

    /// The first number that may still extend a lease.
    pub(super) fn first_of_use(&self, now: Instant) -> Seq {
        self.first + self.log.iter().take_while(|(at, lease)| now >= *at + *lease).count() as u64
    }

    /// Forgets what is before this number.
    pub(super) fn forget(&mut self, before: Seq) {
        while self.first < before && self.log.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// The number that the next datagram will have.
    pub(super) fn next(&self) -> Seq {
        self.first + self.log.len() as u64
    }

    /// When it was handed out, and the lease then in force.
    pub(super) fn sent(&self, seq: Seq) -> Option<(Instant, Duration)> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.log.get(at).copied()
    }
}

impl Engine {
    pub(super) fn send(&mut self, to: Member, message: Message) {
        self.out.push(Action::Send(to, message));
    }

    pub(super) fn remote(&self, of: Member) -> &Remote {
        &self.remotes[of.index()]
    }

    /// The peer, if it is heard now: its latest word.
    pub(super) fn peer_word(&self) -> Option<&Word> {
        let peer = self.remote(self.setup.me.member.peer()?);
        peer.word.as_ref().filter(|_| peer.heard)
    }

    /// The peer hears us, as far as one can know.
    pub(super) fn peer_answers(&self) -> bool {
        let answered_at = self.setup.me.member.peer().and_then(|peer| self.remote(peer).answered_at);
        answered_at.is_some_and(|at| self.now < at + self.setup.timing.heard())
    }

    /// The peer could take a group now.
    pub(super) fn peer_can_take(&self) -> bool {
        self.peer_word().is_some_and(|w| w.fitness == Fitness::Fit && !w.standby && !w.recall.lost())
            && self.peer_answers()
            && self.setup.me.member.peer().is_some_and(|peer| self.members().includes(peer))
    }

    pub(super) fn advance_heartbeat(&mut self) {
        if self.now >= self.next_heartbeat {
            self.next_heartbeat = self.now + self.setup.timing.interval;
            self.renew_alone();
            for to in self.setup.me.member.others() {
                if to == Member::Witness && self.members().third().is_none() && !planted!(ThirdCountsInPair) {
                    continue;
                }
                let seq = self.sent.push(self.now, self.setup.timing.lease);
                let heartbeat = self.heartbeat(seq);
                self.send(to, Message::Heartbeat(heartbeat));
            }
        }
        self.wake_at(self.next_heartbeat);
    }

    pub(super) fn heartbeat(&self, seq: Seq) -> Heartbeat {
        let groups = self
            .groups
            .values()
            .map(|g| {
                let (owned, witnessed) = match &g.role {
                    Role::Owner(owner) => (Some(owner.term), owner.witnessed),
                    Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_) => (None, false),
                };
                let highest = self.desk.voter.highest(g.name);
                let addresses = if owned.is_some() { g.addresses.clone() } else { Vec::new() };
                GroupLine { name: g.name, owned, witnessed, released: g.released, highest, addresses }
            })
            .collect();
        Heartbeat {
            seq,
            hold: self.setup.timing.hold(),
            hash: self.setup.me.hash,
            fitness: self.fitness(),
            standby: self.standby || self.stopping.is_some(),
            leaving: self.is_leaving(),
            config: self.setup.config,
            recall: self.recall(),
            groups,
        }
    }

    /// Says so when a member is not heard any more.
    pub(super) fn advance_remotes(&mut self) {
        let patience = self.setup.timing.heard();
        for member in self.setup.me.member.others() {
            let remote = &mut self.remotes[member.index()];
            let Some(at) = remote.heard_at.filter(|_| remote.heard) else { continue };
            if self.now >= at + patience {
                remote.heard = false;
                self.event(Event::Silent(member));
            } else {
                self.wake_at(at + patience);
            }
        }
    }

    pub(super) fn take_message(&mut self, from: Identity, message: Message) {
        if from.member == self.setup.me.member {
            return;
        }
        self.note_heard(from);
        if from.member == Member::Witness && self.members().third().is_none() && !planted!(ThirdCountsInPair) {
            return;
        }
        match message {
            Message::Hello => {}
            Message::Voters(stance) => self.take_stance(from, stance),
            // The witness owns nothing and asks for nothing: it cannot pose as a node.
            Message::Heartbeat(_)
            | Message::PreVote(_)
            | Message::Vote(_)
            | Message::Offer { .. }
            | Message::Ask { .. }
                if from.member == Member::Witness => {}
            Message::Heartbeat(heartbeat) => self.take_heartbeat(from, &heartbeat),
            Message::Ack(ack) => self.take_ack(from, &ack),
            Message::PreVote(request) => {
                let from = Identity { hash: request.hash, ..from };
                self.take_secrets(&request.secrets);
                let answer = self.desk.pre_vote(self.now, from, &request);
                let granted = answer.granted && !self.goes_first(&request);
                let answer = self.with_release(Answer { granted, ..answer });
                self.send(from.member, Message::PreVoteAnswer(answer));
            }
            Message::Vote(request) => {
                let from = Identity { hash: request.hash, ..from };
                self.take_secrets(&request.secrets);
                self.take_vote(from, &request);
            }
            Message::PreVoteAnswer(answer) => self.take_pre_vote_answer(from, &answer),
            Message::VoteAnswer(answer) => self.take_vote_answer(from, &answer),
            Message::Offer { group, term } => self.take_offer(from, group, term),
            Message::Ask { group, force } => self.take_ask(from, group, force),
        }
    }

    /// Two that ask each other at once would both stand, each with its own vote, and refuse each other until they give up:
    /// the preferred one goes first. It hears the asker, so if the asker hears it, it is about to get this vote.
    fn goes_first(&self, request: &Request) -> bool {
        let better = self.fitness() == Fitness::Fit || !request.fit;
        better
            && self
                .groups
                .get(&request.group)
                .is_some_and(|g| g.prefer == self.setup.me.member && matches!(g.role, Role::PreVote(_)))
    }

    pub(super) fn note_heard(&mut self, from: Identity) {
        let remote = &mut self.remotes[from.member.index()];
        if remote.identity.is_none_or(|known| known.incarnation != from.incarnation) {
            remote.word = None;
            remote.round_trip = None;
            remote.answered_at = None;
        }
        remote.identity = Some(from);
        remote.heard_at = Some(self.now);
        if !remote.heard {
            remote.heard = true;
            self.event(Event::Heard(from.member));
            self.announce_owned();
        }
    }

    /// A partition has healed, or this node stood still and heard nobody: caches may hold what somebody else said
    /// meanwhile, and the switch may know this machine at another port.
    fn announce_owned(&mut self) {
        let owned: Vec<GroupName> =
            self.groups.values().filter(|g| matches!(g.role, Role::Owner(_))).map(|g| g.name).collect();
        self.out.extend(owned.into_iter().map(Action::Announce));
    }

    fn take_heartbeat(&mut self, from: Identity, heartbeat: &Heartbeat) {
        let from = Identity { hash: heartbeat.hash, ..from };
        let lost = self.recall().lost();
        #[cfg(feature = "planted")]
        let heartbeat = &self.planted_hold(heartbeat);
        for line in heartbeat.groups.iter().take(MEMORIES_MAX) {
            if let Some(term) = line.released {
                self.take_release(line.name, from, term);
            }
            let Some(claim) = line.owned else { continue };
            if let Some(group) = self.groups.get_mut(&line.name) {
                group.claimed_at = Some(self.now);
            }
            // Who owns it in a higher term was elected after us: our lease is over, whatever our clock says.
            if self.owned(line.name).is_some_and(|(term, _)| term < claim) {
                self.lose(line.name, Cause::HigherTerm);
            }
        }
        let ack = self.desk.heartbeat(self.now, from, heartbeat);
        self.remotes[from.member.index()].word = Some(Word {
            fitness: heartbeat.fitness,
            standby: heartbeat.standby,
            config: heartbeat.config,
            recall: heartbeat.recall,
            lines: heartbeat.groups.iter().take(MEMORIES_MAX).map(|l| (l.name, l.clone())).collect(),
        });
        self.send(from.member, Message::Ack(ack));
        self.fall_into_step();
        self.note_recovery(lost);
    }

    /// Our word goes out with the answer to the peer's if it is due soon anyway: one datagram and one wake-up of each node
    /// instead of two. Whoever is the later one follows, so that both never chase each other.
    fn fall_into_step(&mut self) {
        if self.next_heartbeat <= self.now + self.setup.timing.interval / 2 {
            self.next_heartbeat = self.now;
        }
    }

    fn take_ack(&mut self, from: Identity, ack: &Ack) {
        // What is too old to extend a lease tells of terms and memories all the same.
        let sent = self.sent.sent(ack.seq);
        self.remotes[from.member.index()].answered_at = Some(self.now);
        if let Some((at, _)) = sent {
            self.remotes[from.member.index()].round_trip = Some(self.now.since(at));
        }
        let end = sent.map(|(at, lease)| {
            let at = if planted!(LeaseFromAck) { self.now } else { at };
            at + if planted!(AckByNewLease) { self.setup.timing.lease } else { lease }
        });
        let lost = self.recall().lost();
        #[cfg(feature = "planted")]
        let ack = &self.planted_ack(ack);
        for line in ack.groups.iter().take(MEMORIES_MAX) {
            self.desk.voter.heard_of(line.name, line.highest);
            match (line.verdict, end) {
                (Some(AckVerdict::Promised(term)), Some(end)) => self.renew(from.member, line.name, term, end),
                (Some(AckVerdict::Refused(term, bound)), _) => self.refused(line.name, term, bound),
                (Some(AckVerdict::Promised(_)), None) | (None, _) => {}
            }
            if line.wanted && from.member == Member::Witness {
                self.wanted(line.name);
            }
        }
        self.desk.told(from.member, ack.recall);
        self.note_recovery(lost);
    }

    pub(super) fn note_recovery(&mut self, was_lost: bool) {
        if was_lost && !self.recall().lost() {
            self.event(Event::Recovered);
        }
    }

    /// The sender has let go of a group, addresses gone.
    pub(super) fn take_release(&mut self, group: GroupName, from: Identity, term: Term) {
        if self.desk.voter.release(group, from.incarnation, term)
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.why_free = Cause::PeerReleased;
        }
    }

    /// Secrets of dead incarnations end promises. What ended one is told on with our own requests.
    pub(super) fn take_secrets(&mut self, secrets: &[Secret]) {
        for secret in secrets.iter().take(SECRETS_MAX) {
            let held: Vec<GroupName> = self
                .groups
                .keys()
                .filter(|name| {
                    let hash = self.desk.hash_of(secret);
                    self.desk.voter.promise(self.now, **name).is_some_and(|p| p.to.hash == Some(hash))
                })
                .copied()
                .collect();
            if !self.desk.learn(std::slice::from_ref(secret)) {
                continue;
            }
            for name in held {
                if let Some(group) = self.groups.get_mut(&name) {
                    group.why_free = Cause::PeerDied;
                }
            }
            if !self.secrets.contains(secret) {
                self.secrets.truncate(SECRETS_MAX - 1);
                self.secrets.push_front(*secret);
            }
        }
    }

    /// A request of ours, with a number of its own.
    pub(super) fn request(&mut self, group: GroupName, term: Term) -> Request {
        Request {
            seq: self.sent.push(self.now, self.setup.timing.lease),
            group,
            term,
            hold: self.setup.timing.hold(),
            hash: self.setup.me.hash,
            secrets: self.secrets.iter().copied().collect(),
            fit: self.fitness() == Fitness::Fit,
            addresses: self.groups.get(&group).map(|g| g.addresses.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn with_release(&self, answer: Answer) -> Answer {
        Answer { released: self.groups.get(&answer.group).and_then(|g| g.released), ..answer }
    }

    pub(super) fn send_vote_answer(&mut self, to: Member, answer: Answer) {
        let answer = self.with_release(answer);
        self.send(to, Message::VoteAnswer(answer));
    }
}
