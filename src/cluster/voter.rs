//! What a vote binds. Both nodes and the witness run this one type; an owner's own voter is bound too.
//!
//! Rule: at most one promise per group and per address at any moment, to one incarnation of one node, until an instant on
//! this machine's clock. An address counts wherever it is configured: one that was moved to another group in one node's
//! file only is still bound by the other node's. Three things end it: its time; a release that names its incarnation and term; the secret of its
//! hash. Not a higher term, not a refusal, not a new configuration.
//!
//! Not here: when to ask for votes (`engine`), the disk (the caller persists [`Memory`] and says when it is done).

use super::message::{AckVerdict, Recall};
use super::name::{AddressMark, GroupName, Incarnation, Member, SecretHash, Term};
use super::normal::Shift;
use super::voters::Sets;
use crate::limits::{HOLD_MAX, MEMORIES_MAX, VIPS_MAX};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What a voter must remember over its own death.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Who votes.
    pub sets: Sets,
    /// The longest time that was ever promised: how long the voter is silent after a start.
    pub hold_given: Duration,
    /// Votes, by group.
    pub groups: Vec<Vote>,
}

/// The last vote in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// The group.
    pub group: GroupName,
    /// The highest term heard of.
    pub highest: Term,
    /// The term voted in; zero if none.
    pub voted: Term,
    /// For whom.
    pub voted_for: Option<Member>,
}

/// One incarnation of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The member.
    pub member: Member,
    /// Its life.
    pub incarnation: Incarnation,
    /// Hash of the secret of that life, if its supervisor may disclose one.
    pub hash: Option<SecretHash>,
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Promise {
    /// To whom.
    pub to: Identity,
    /// In which term.
    pub term: Term,
    /// Until when, on this machine's clock.
    pub until: Instant,
}

/// What one voter knows of one group.
#[derive(Debug, Clone, Hash, Default)]
struct Ballot {
    promise: Option<Promise>,
    /// The addresses that the promise is for.
    addresses: Vec<AddressMark>,
    highest: Term,
    voted: Term,
    voted_for: Option<Member>,
    voted_incarnation: Option<Incarnation>,
    /// The last term that each incarnation was seen to release; newest last.
    released: VecDeque<(Incarnation, Term)>,
}

/// How many releases, dead hashes and unknown hashes are remembered: more than two nodes can make during one promise.
const REMEMBERED: usize = 32;
/// More terms than an earlier life can have used without the peer's knowing: two weeks of an election per second.
const TERMS_SKIPPED: u64 = 1 << 20;

/// What binds one voter.
#[derive(Debug, Clone, Hash)]
pub struct Voter {
    me: Identity,
    /// Who votes. What is in force here is so at once; the disk knows of it before anybody is told.
    pub(super) sets: Sets,
    /// There is a memory on the disk, so that a next life knows how long to be silent.
    filed: bool,
    hold_given: Duration,
    hold_wanted: Duration,
    silent_until: Instant,
    recovery: Option<Recovery>,
    ballots: BTreeMap<GroupName, Ballot>,
    /// Hashes of lives that are over and had a promise here.
    dead: VecDeque<SecretHash>,
    /// Hashes of other secrets that were shown: by anyone, so they are kept apart.
    strange: VecDeque<SecretHash>,
    /// The latest time that was told.
    now: Instant,
}

/// A voter without its memory asks both others.
#[derive(Debug, Clone, Copy, Hash)]
struct Recovery {
    since: Instant,
    heard: [Option<Told>; 3],
}

/// What another member told of its memory.
#[derive(Debug, Clone, Copy, Hash)]
struct Told {
    /// It has no memory now.
    lost: bool,
    /// In this life of ours it once said that it had never promised anything.
    was_blank: bool,
}

/// Why a voter says no, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is silent after a start, or waits for its memory.
    Silent,
    /// A promise to another incarnation runs.
    Bound,
    /// One of the addresses is promised to another incarnation, as part of another group.
    Taken,
    /// It has voted in this term, or a higher one.
    Voted,
    /// The asking incarnation is dead, or has released the term.
    Over,
    /// A longer promise must be remembered first.
    Unwritten,
    /// More groups than it keeps.
    Full,
    /// Nothing that an honest member asks: a hold too long, a term that cannot be its own.
    Senseless,
}

/// What a vote request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// New: remember it, then answer.
    Persist,
    /// Given before, to the same; the answer may go out at once.
    Again,
    /// No.
    No(Refusal),
}

impl Voter {
    /// A voter that comes to life at `now`. Without a memory it is lost: it acknowledges, but neither votes nor
    /// campaigns until both others have told it their terms.
    #[must_use]
    pub fn new(now: Instant, me: Identity, memory: Option<Memory>) -> Self {
        let lost = memory.is_none() && !planted!(WipedVotes);
        let filed = memory.is_some();
        let memory = memory.unwrap_or_default();
        let ballots = memory
            .groups
            .iter()
            .map(|vote| {
                let ballot = Ballot {
                    highest: vote.highest.max(vote.voted),
                    voted: vote.voted,
                    voted_for: vote.voted_for,
                    ..Ballot::default()
                };
                (vote.group, ballot)
            })
            .collect();
        Self {
            me,
            sets: memory.sets,
            filed,
            hold_given: memory.hold_given,
            hold_wanted: Duration::ZERO,
            silent_until: now + if lost { HOLD_MAX } else { memory.hold_given },
            recovery: lost.then_some(Recovery { since: now, heard: [None; 3] }),
            ballots,
            dead: VecDeque::new(),
            strange: VecDeque::new(),
            now,
        }
    }

    /// What must be on disk before an answer that rests on it goes out.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            sets: self.sets.clone(),
            hold_given: self.hold_given.max(self.hold_wanted),
            groups: self
                .ballots
                .iter()
                .map(|(group, b)| Vote { group: *group, highest: b.highest, voted: b.voted, voted_for: b.voted_for })
                .collect(),
        }
    }

    /// `memory` is on disk now: promises as long as it says may be given.
    pub fn remembered(&mut self, memory: &Memory) {
        self.hold_given = self.hold_given.max(memory.hold_given);
        self.filed = true;
    }

    /// The longest time that may be promised: its memory would keep the next life silent for as long.
    #[must_use]
    pub const fn hold_given(&self) -> Duration {
        self.hold_given
    }

    /// A longer hold than ever given was asked for, and has to be written before it is promised. A voter without its
    /// memory writes none before it has it back: a crash must find it lost again.
    #[must_use]
    pub fn wants_memory(&self) -> bool {
        self.hold_wanted > self.hold_given && self.recovery.is_none()
    }

    /// The next write is to allow promises of this length.
    pub fn expect_hold(&mut self, hold: Duration) {
        self.hold_wanted = self.hold_wanted.max(hold.min(HOLD_MAX));
    }

    /// Who votes.
    #[must_use]
    pub const fn sets(&self) -> &Sets {
        &self.sets
    }

    /// What this voter remembers is on the disk.
    #[must_use]
    pub const fn filed(&self) -> bool {
        self.filed
    }

    /// The voter gives no vote now, to itself neither.
    #[must_use]
    pub fn silent(&self, now: Instant) -> bool {
        (now < self.silent_until || self.recovery.is_some()) && !planted!(CampaignInSilence)
    }

    /// When silence ends by time; later if the memory is missing.
    #[must_use]
    pub const fn silent_until(&self) -> Instant {
        self.silent_until
    }

    /// What memory this voter has.
    #[must_use]
    pub fn recall(&self) -> Recall {
        let blank = self.hold_given.is_zero()
            && self.hold_wanted.is_zero()
            && self.ballots.values().all(|b| b.voted == Term(0) && b.promise.is_none());
        match (self.recovery.is_some(), blank) {
            (true, true) => Recall::LostBlank,
            (true, false) => Recall::Lost,
            (false, true) => Recall::Blank,
            (false, false) => Recall::Kept,
        }
    }

    /// Another member has told what it remembers (its terms by [`Voter::heard_of`]). A lost voter has its memory back
    /// when both others have, or the peer alone where there is no third voter: at once if nobody of three ever promised
    /// anything, else after the longest silence. Whether it has just come back is the answer.
    ///
    /// Who was blank at any time of this life had, before it, asked for no vote that could have been given here.
    pub fn told(&mut self, from: Member, recall: Recall) -> bool {
        let Some(recovery) = self.recovery.as_mut() else { return false };
        let heard = &mut recovery.heard[from.index()];
        let was_blank = recall.blank() || heard.is_some_and(|told| told.was_blank);
        *heard = Some(Told { lost: recall.lost(), was_blank });
        let heard = recovery.heard;
        if self.sets.in_force.as_ref().is_some_and(|set| !set.members.includes(self.me.member)) {
            return false;
        }
        if let Some(alone) = self.sets.asks_alone(self.me.member) {
            let told = heard[alone.index()].is_some_and(|told| !told.lost);
            return told && self.recovered_from_one();
        }
        let [Some(a), Some(b)] = self.me.member.others().map(|m| heard[m.index()]) else { return false };
        if a.was_blank && b.was_blank {
            self.silent_until = recovery.since;
        } else if a.lost || b.lost {
            return false;
        }
        self.recovery = None;
        true
    }

    /// The peer alone has told. Of terms that an earlier life had from the third voter of the set before it may not know:
    /// they are left out.
    fn recovered_from_one(&mut self) -> bool {
        for ballot in self.ballots.values_mut() {
            ballot.highest = Term(ballot.highest.0.saturating_add(TERMS_SKIPPED)).min(Term::MAX);
        }
        self.recovery = None;
        true
    }

    /// A node that was alone has told all there is to know, and wants this one beside it. What an earlier life of this
    /// one promised was over before the other was alone, or that one's own voter is bound by it.
    pub(super) fn joins(&mut self) {
        if let Some(recovery) = self.recovery.take() {
            self.silent_until = recovery.since;
        }
    }

    /// The memory is that of an earlier time, or was told in another set: it has to be told again.
    pub(super) fn forget_memory(&mut self, now: Instant) {
        match &mut self.recovery {
            Some(recovery) => recovery.heard = [None; 3],
            None => {
                self.recovery = Some(Recovery { since: now, heard: [None; 3] });
                self.silent_until = now + HOLD_MAX;
                self.filed = false;
            }
        }
    }

    /// The latest end of a promise to this life of this voter's node: of its leases.
    pub(super) fn promised_self_until(&self) -> Instant {
        let own = self.ballots.values().filter_map(|b| b.promise).filter(|p| p.to.incarnation == self.me.incarnation);
        own.map(|p| p.until).max().unwrap_or(Instant::ZERO)
    }

    /// The highest terms heard of.
    pub(super) fn terms(&self) -> Vec<(GroupName, Term)> {
        self.ballots.iter().map(|(group, ballot)| (*group, ballot.highest)).collect()
    }

    /// Somebody spoke of this term.
    pub fn heard_of(&mut self, group: GroupName, term: Term) {
        if term <= Term::MAX
            && !planted!(TermsNotTold)
            && let Some(ballot) = self.ballot(group)
        {
            ballot.highest = ballot.highest.max(term);
        }
    }

    /// The highest term heard of.
    #[must_use]
    pub fn highest(&self, group: GroupName) -> Term {
        self.ballots.get(&group).map_or(Term(0), |b| b.highest)
    }

    /// The promise that runs.
    #[must_use]
    pub fn promise(&self, now: Instant, group: GroupName) -> Option<Promise> {
        self.ballots.get(&group).and_then(|b| b.promise).filter(|p| now < p.until)
    }

    /// The promise that runs to somebody else than `who`.
    #[must_use]
    pub fn bound_elsewhere(&self, now: Instant, group: GroupName, who: Incarnation) -> Option<Promise> {
        self.promise(now, group).filter(|p| p.to.incarnation != who)
    }

    /// A claim in a heartbeat: promise until `now + hold`, or refuse. `None`: no answer can be given yet.
    pub fn claim(&mut self, now: Instant, from: Identity, bid: &Bid<'_>) -> Option<AckVerdict> {
        let Bid { group, term, hold, .. } = *bid;
        match self.may_promise(now, from, bid) {
            Ok(()) => {}
            Err(Refusal::Bound) => {
                let bound = self.promise(now, group).map_or(Term(0), |p| p.term);
                return Some(AckVerdict::Refused(term, bound));
            }
            Err(Refusal::Over) => return Some(AckVerdict::Refused(term, self.highest(group).max(term))),
            Err(
                Refusal::Silent
                | Refusal::Taken
                | Refusal::Voted
                | Refusal::Unwritten
                | Refusal::Full
                | Refusal::Senseless,
            ) => return None,
        }
        self.bind(group, Promise { to: from, term, until: now + hold }, bid.addresses);
        Some(AckVerdict::Promised(term))
    }

    /// How a vote would go. Changes nothing.
    ///
    /// # Errors
    /// With the reason why it would be refused.
    pub fn would_vote(&mut self, now: Instant, from: Identity, bid: &Bid<'_>) -> Result<(), Refusal> {
        let Bid { group, term, .. } = *bid;
        if self.silent(now) {
            return Err(Refusal::Silent);
        }
        self.may_promise(now, from, &Bid { hold: Duration::ZERO, ..*bid })?;
        match self.ballots.get(&group) {
            Some(b) if term <= b.voted && !Self::same(b, from, term) => Err(Refusal::Voted),
            Some(_) | None => Ok(()),
        }
    }

    /// A request for a vote. The promise starts here, on receipt; on [`Ruling::Persist`] the answer waits for the disk.
    /// `busy`: a write is under way, so only what was voted before can be answered.
    pub fn vote(&mut self, now: Instant, from: Identity, bid: &Bid<'_>, busy: bool) -> Ruling {
        let Bid { group, term, hold, addresses } = *bid;
        if let Err(no) = self.would_vote(now, from, bid) {
            return Ruling::No(no);
        }
        let again = self.ballots.get(&group).is_some_and(|b| Self::same(b, from, term));
        if hold > HOLD_MAX {
            return Ruling::No(Refusal::Senseless);
        }
        self.expect_hold(hold);
        if (busy && !again) || (again && hold > self.hold_given && !busy) {
            return Ruling::No(Refusal::Unwritten);
        }
        self.bind(group, Promise { to: from, term, until: now + hold }, addresses);
        if again {
            return Ruling::Again;
        }
        self.record(group, from, term);
        Ruling::Persist
    }

    /// A vote without a promise: the owner that hands over records it while its own promise still runs, and the peer
    /// that was offered a group records its own while it still acknowledges the owner.
    ///
    /// # Errors
    /// If the voter is silent, or has voted in this term or a higher one. Nothing is recorded then.
    pub fn record_vote(&mut self, now: Instant, from: Identity, group: GroupName, term: Term) -> Result<(), Refusal> {
        if self.silent(now) {
            return Err(Refusal::Silent);
        }
        if !term.belongs_to(from.member) {
            return Err(Refusal::Senseless);
        }
        match self.ballots.get(&group) {
            Some(b) if term <= b.voted && !Self::same(b, from, term) => return Err(Refusal::Voted),
            Some(_) | None => {}
        }
        self.record(group, from, term);
        Ok(())
    }

    /// Promise where the vote was recorded before (hand-over), once nothing else binds.
    ///
    /// # Errors
    /// With what stands against it. Nothing is promised then.
    pub fn promise_recorded(&mut self, now: Instant, to: Identity, bid: &Bid<'_>) -> Result<(), Refusal> {
        self.may_promise(now, to, bid)?;
        self.bind(bid.group, Promise { to, term: bid.term, until: now + bid.hold }, bid.addresses);
        Ok(())
    }

    /// Promise ourselves, without asking: a candidate's own vote, and an owner's own lease. The hold counts from `now`.
    ///
    /// # Errors
    /// If a promise to somebody else runs, for the group or for one of its addresses.
    pub fn promise_self(&mut self, now: Instant, bid: &Bid<'_>) -> Result<(), Refusal> {
        let Bid { group, term, hold, addresses } = *bid;
        if planted!(OwnVoterFree) {
            return Ok(());
        }
        if self.bound_elsewhere(now, group, self.me.incarnation).is_some() {
            return Err(Refusal::Bound);
        }
        let me = self.me;
        if self.taken(now, me.incarnation, group, addresses) {
            return Err(Refusal::Taken);
        }
        self.bind(group, Promise { to: me, term, until: now + hold }, addresses);
        Ok(())
    }

    /// One of these addresses is promised to somebody else than `who`, as part of another group.
    #[must_use]
    pub fn taken(&self, now: Instant, who: Incarnation, group: GroupName, addresses: &[AddressMark]) -> bool {
        let others = self.ballots.iter().filter(|(name, _)| **name != group && !planted!(AddressesFree));
        others
            .filter(|(_, b)| b.promise.is_some_and(|p| now < p.until && p.to.incarnation != who))
            .any(|(_, b)| b.addresses.iter().any(|address| addresses.contains(address)))
    }

    /// `incarnation` says that it has let go of the group in this term, addresses gone. That ends what it was promised
    /// in this term or a lower one, which it will not claim any more. Whether a promise ended by it.
    pub fn release(&mut self, group: GroupName, incarnation: Incarnation, term: Term) -> bool {
        let Some(ballot) = self.ballot(group) else { return false };
        if !ballot.released.contains(&(incarnation, term)) {
            if ballot.released.len() == REMEMBERED {
                ballot.released.pop_front();
            }
            ballot.released.push_back((incarnation, term));
        }
        let ends = ballot
            .promise
            .is_some_and(|p| p.to.incarnation == incarnation && (p.term <= term || planted!(ReleaseByNode)));
        if ends {
            ballot.promise = None;
        }
        ends
    }

    /// The secret of this hash was shown: its incarnation is dead and its addresses are gone. Whether a promise ended.
    pub fn disclose(&mut self, hash: SecretHash) -> bool {
        let list = if self.holds_hash(hash) { &mut self.dead } else { &mut self.strange };
        if !list.contains(&hash) {
            if list.len() == REMEMBERED {
                list.pop_front();
            }
            list.push_back(hash);
        }
        let mut ended = false;
        for ballot in self.ballots.values_mut() {
            if ballot.promise.is_some_and(|p| p.to.hash == Some(hash) || (planted!(AnySecret) && p.to.hash.is_some())) {
                ballot.promise = None;
                ended = true;
            }
        }
        ended
    }

    /// A promise carries this hash, though it may be over: its secret is worth telling on.
    #[must_use]
    pub fn holds_hash(&self, hash: SecretHash) -> bool {
        self.ballots.values().any(|b| b.promise.is_some_and(|p| p.to.hash == Some(hash)))
    }

    /// The latest end of a running promise to somebody else, for timers.
    #[must_use]
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.ballots.values().filter_map(|b| b.promise).map(|p| p.until).filter(|u| *u > now).min()
    }

    /// What was last voted in this group.
    #[must_use]
    pub fn voted(&self, group: GroupName) -> (Term, Option<Member>) {
        self.ballots.get(&group).map_or((Term(0), None), |b| (b.voted, b.voted_for))
    }

    /// Silence as one counts it who looks at the present configuration.
    #[cfg(feature = "planted")]
    pub(super) fn planted_silence(mut self, until: Instant) -> Self {
        if planted!(SilenceByPresentLease) {
            self.silent_until = self.silent_until.min(until);
        }
        self
    }

    /// Drops a promise, as one would who believes an offer.
    #[cfg(feature = "planted")]
    pub(super) fn planted_forget(&mut self, group: GroupName) {
        if planted!(OfferBreaksPromise)
            && let Some(ballot) = self.ballot(group)
        {
            ballot.promise = None;
        }
    }

    /// Moves the state: see [`crate::cluster::normal`].
    pub(super) fn shift(&mut self, shift: &Shift) {
        self.now = shift.now;
        self.silent_until = shift.ahead(self.silent_until);
        if let Some(recovery) = &mut self.recovery {
            recovery.since = shift.at(recovery.since);
        }
        for promise in self.ballots.values_mut().filter_map(|b| b.promise.as_mut()) {
            promise.until = shift.ahead(promise.until);
        }
    }

    fn may_promise(&mut self, now: Instant, from: Identity, bid: &Bid<'_>) -> Result<(), Refusal> {
        let Bid { group, term, hold, addresses } = *bid;
        if hold > HOLD_MAX || !term.belongs_to(from.member) {
            return Err(Refusal::Senseless);
        }
        self.now = self.now.max(now);
        let over = from.hash.is_some_and(|h| self.dead.contains(&h) || self.strange.contains(&h));
        let Some(ballot) = self.ballot(group) else { return Err(Refusal::Full) };
        if over || ballot.released.iter().any(|(inc, t)| *inc == from.incarnation && *t >= term) {
            return Err(Refusal::Over);
        }
        if self.bound_elsewhere(now, group, from.incarnation).is_some() {
            return Err(Refusal::Bound);
        }
        if self.taken(now, from.incarnation, group, addresses) {
            return Err(Refusal::Taken);
        }
        if hold > self.hold_given {
            self.hold_wanted = self.hold_wanted.max(hold);
            // Without any memory on the disk the next life is silent for the longest hold of all.
            if self.filed {
                return Err(Refusal::Unwritten);
            }
        }
        Ok(())
    }

    /// The later of the old and the new end: a promise is never shortened.
    fn bind(&mut self, group: GroupName, new: Promise, addresses: &[AddressMark]) {
        let Some(ballot) = self.ballot(group) else { return };
        if ballot.addresses != addresses {
            // No life changes its addresses, so these are a new one's: the old promise is over.
            ballot.addresses = addresses.iter().copied().take(VIPS_MAX).collect();
        }
        let (until, term) = match ballot.promise {
            Some(old) if old.to.incarnation == new.to.incarnation && !planted!(PromiseShortened) => {
                (old.until.max(new.until), old.term.max(new.term))
            }
            Some(_) | None => (new.until, new.term),
        };
        ballot.highest = ballot.highest.max(new.term);
        ballot.promise = Some(Promise { until, term, ..new });
    }

    fn record(&mut self, group: GroupName, from: Identity, term: Term) {
        let Some(ballot) = self.ballot(group) else { return };
        ballot.highest = ballot.highest.max(term);
        ballot.voted = term;
        ballot.voted_for = Some(from.member);
        ballot.voted_incarnation = Some(from.incarnation);
    }

    fn same(ballot: &Ballot, from: Identity, term: Term) -> bool {
        ballot.voted == term && ballot.voted_incarnation == Some(from.incarnation)
    }

    /// The ballot of a group, made if there is room: one that binds nobody gives way.
    fn ballot(&mut self, group: GroupName) -> Option<&mut Ballot> {
        if !self.ballots.contains_key(&group) && self.ballots.len() >= MEMORIES_MAX {
            let idle = self.ballots.iter().filter(|(_, b)| b.promise.is_none_or(|p| p.until <= self.now));
            let oldest = *idle.min_by_key(|(_, b)| b.voted)?.0;
            self.ballots.remove(&oldest);
        }
        Some(self.ballots.entry(group).or_default())
    }
}

/// What a promise is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Bid<'a> {
    /// The group.
    pub group: GroupName,
    /// In which term.
    pub term: Term,
    /// For how long.
    pub hold: Duration,
    /// The addresses of the group, as the bidder's configuration has them.
    pub addresses: &'a [AddressMark],
}
