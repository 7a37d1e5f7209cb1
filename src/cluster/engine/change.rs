//! How one voter set follows another: see [`crate::cluster::voters`].
//!
//! Hears: where the peer stands, whether the wanted third voter answers, who speaks in another set. Tells: where this
//! node stands. The coordinator chooses, writes its choice down, tells it until the peer stands there, and goes there
//! itself; the peer follows, writes that down, and says so.
//!
//! Rule: the pair is left only when no lease rests on what was promised before it: for a while since both were known to
//! be in it, as long as either may still hold one.

use super::Engine;
use super::group::Role;
use crate::cluster::desk::Purpose;
use crate::cluster::event::Event;
use crate::cluster::message::{Heartbeat, Message, Recall};
use crate::cluster::name::Member;
use crate::cluster::normal::Shift;
use crate::cluster::voter::Identity;
use crate::cluster::voters::{Members, Sets, Stance, Third, VoterSet};
use crate::limits::{HOLD_MAX, MARGIN_MIN, MEMORIES_MAX};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// What this node knows of a change.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct Change {
    /// What this node has chosen is on its disk.
    chosen: bool,
    /// The third voter that is wanted answers.
    ready: bool,
    /// Where the peer last said that it stands, and when.
    peer: Option<(Instant, Box<Stance>)>,
    /// Who has said something in another set, and is to be told of ours.
    apart: [bool; 3],
    /// When to say next where we stand.
    next_say: Instant,
    /// In the pair: no lease rests on anything older after this.
    rested_at: Option<Instant>,
    /// What is in force is not on the disk yet; nothing waits for it.
    unwritten: bool,
}

/// What a change of voters waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The peer does not say where it stands.
    PeerSilent,
    /// The configurations of the nodes differ.
    ConfigDiffers,
    /// The peer has no memory, or this node has none.
    NoMemory,
    /// This node gives no votes yet after its start.
    Silence,
    /// The third voter that is wanted does not answer this node.
    ThirdHere,
    /// The third voter that is wanted does not answer the peer.
    ThirdThere,
    /// Leases may rest on the voters of before.
    Leases,
    /// The node that is to leave owns a group.
    LeaverOwns,
    /// The peer chooses, and follows its own list of these.
    PeerChooses,
    /// The peer has not confirmed the next set yet.
    PeerFollows,
    /// This node is being stopped, or its disk has failed.
    NotReady,
}

impl Change {
    pub(super) const fn new(sets: &Sets) -> Self {
        Self {
            chosen: sets.next.is_some(),
            ready: false,
            peer: None,
            apart: [false; 3],
            next_say: Instant::ZERO,
            rested_at: None,
            unwritten: false,
        }
    }

    /// Moves the state: see [`crate::cluster::normal`].
    pub(super) fn shift(&mut self, shift: &Shift) {
        self.next_say = shift.ahead(self.next_say);
        self.rested_at = self.rested_at.map(|at| shift.ahead(at));
        if let Some((at, _)) = &mut self.peer {
            *at = shift.at(*at);
        }
    }
}

impl Engine {
    /// The voters of the set in force.
    pub(super) fn members(&self) -> &Members {
        self.desk.voter.sets().in_force.as_ref().map_or(&self.setup.wanted, |set| &set.members)
    }

    fn in_force(&self) -> VoterSet {
        let set = self.desk.voter.sets().in_force.clone();
        set.unwrap_or_else(|| VoterSet::first(self.setup.wanted.clone()))
    }

    fn sets_mut(&mut self) -> &mut Sets {
        &mut self.desk.voter.sets
    }

    fn peer(&self) -> Member {
        self.setup.me.member.others()[0]
    }

    /// The third voter in force.
    #[must_use]
    pub fn third(&self) -> Option<&Third> {
        self.members().third()
    }

    /// The third voter that the configuration wants.
    #[must_use]
    pub const fn wanted_third(&self) -> Option<&Third> {
        self.setup.wanted.third()
    }

    /// A heartbeat that claims nothing, to ask a third voter that is not in force whether it is there.
    #[must_use]
    pub fn empty_heartbeat(&self) -> Message {
        Message::Heartbeat(Heartbeat { groups: Vec::new(), ..self.heartbeat(0) })
    }

    /// This node votes alone.
    pub(super) fn is_alone(&self) -> bool {
        *self.members() == Members::Solo(self.setup.me.member)
    }

    /// The configuration wants this node out.
    pub(super) fn is_to_leave(&self) -> bool {
        !self.setup.wanted.includes(self.setup.me.member)
    }

    /// This node is to leave, and the other one, which has the same configuration, can take what it owns. Where each file
    /// says that its own node leaves, both stay.
    pub(super) fn makes_way(&self) -> bool {
        self.is_to_leave()
            && self.peer_can_take()
            && self.peer_word().is_some_and(|word| word.config == self.setup.config)
    }

    /// Whether the wanted third voter answers.
    pub(super) const fn third_is_ready(&mut self, ready: bool) {
        self.change.ready = ready;
    }

    /// A member that is believed has said something in another set.
    pub(super) fn said_apart(&mut self, from: Identity) {
        if from.member != self.setup.me.member {
            self.note_heard(from);
            self.change.apart[from.member.index()] = true;
        }
    }

    pub(super) fn advance_change(&mut self) {
        self.begin_alone();
        if self.change.unwritten && !self.desk.busy() {
            self.change.unwritten = false;
            self.desk.begin(Purpose::Hold);
        }
        self.choose();
        self.say_where();
    }

    /// A cluster of one has nobody who could tell it what it once promised: it is over after the longest silence.
    fn begin_alone(&mut self) {
        if !self.recall().lost() || !self.is_alone() {
            return;
        }
        let until = self.desk.voter.silent_until();
        if self.now < until {
            return self.wake_at(until);
        }
        self.desk.voter.joins();
        self.desk.begin(Purpose::Hold);
        self.event(Event::Recovered);
    }

    /// What stands against the next step; nothing if none is wanted, or none stands against it.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        let set = self.in_force();
        if self.desk.voter.sets().next.is_some() {
            return Some(Obstacle::PeerFollows);
        }
        set.members.step_toward(&self.setup.wanted)?;
        let joining = self.is_alone();
        // Whose file wants nothing else does not say where it stands.
        if self.peer_word().is_some_and(|word| word.config != self.setup.config) {
            return Some(Obstacle::ConfigDiffers);
        }
        let Some((said_at, peer)) = &self.change.peer else { return Some(Obstacle::PeerSilent) };
        if self.now >= *said_at + self.setup.timing.heard() || !(joining || self.peer_answers()) {
            return Some(Obstacle::PeerSilent);
        }
        if peer.config != self.setup.config {
            return Some(Obstacle::ConfigDiffers);
        }
        if self.recall().lost() || !(joining || (peer.in_force == set && !peer.recall.lost())) {
            return Some(Obstacle::NoMemory);
        }
        if self.setup.wanted.third().is_some() {
            match (self.change.ready, peer.ready) {
                (true, true) => {}
                (false, _) => return Some(Obstacle::ThirdHere),
                (true, false) => return Some(Obstacle::ThirdThere),
            }
        }
        if set.members.coordinator() != self.setup.me.member {
            return Some(Obstacle::PeerChooses);
        }
        if self.stopping.is_some() || self.desk.failed() {
            return Some(Obstacle::NotReady);
        }
        if self.desk.voter.silent(self.now) {
            return Some(Obstacle::Silence);
        }
        self.leases_in_the_way(&set.members)
    }

    fn leases_in_the_way(&self, members: &Members) -> Option<Obstacle> {
        let rested = planted!(SecondStepAtOnce) || self.change.rested_at.is_some_and(|at| self.now >= at);
        if *members == Members::Pair && !rested {
            return Some(Obstacle::Leases);
        }
        let here = self.groups.values().any(|group| matches!(group.role, Role::Owner(_)));
        let there = self.peer_word().is_some_and(|word| word.lines.values().any(|line| line.owned.is_some()));
        let leaver_owns = match self.setup.wanted {
            Members::Solo(only) if only == self.setup.me.member => there,
            Members::Solo(_) => here,
            Members::Trio(_) | Members::Pair => false,
        };
        leaver_owns.then_some(Obstacle::LeaverOwns)
    }

    /// Chooses the next set. Nobody is told before it is on the disk.
    fn choose(&mut self) {
        #[cfg(feature = "planted")]
        self.planted_choose();
        if self.obstacle().is_some() {
            if let Some(at) = self.change.rested_at.filter(|at| *at > self.now) {
                self.wake_at(at);
            }
            return;
        }
        let set = self.in_force();
        let Some(members) = set.members.step_toward(&self.setup.wanted) else { return };
        if self.desk.busy() {
            return;
        }
        self.sets_mut().next = Some(set.followed_by(members));
        self.change.chosen = false;
        self.desk.begin(Purpose::Choice);
    }

    /// The choice is on disk.
    pub(super) fn choice_written(&mut self) {
        self.change.chosen = true;
        self.change.next_say = self.now;
    }

    /// The set that was followed is on disk, and in force.
    pub(super) fn followed(&mut self, from: Option<Members>) {
        self.change.rested_at = None;
        self.change.apart[self.peer().index()] = true;
        self.change.next_say = self.now;
        self.tell_change(from.unwrap_or(Members::Pair));
    }

    fn tell_change(&mut self, from: Members) {
        let VoterSet { generation, members: to } = self.in_force();
        self.event(Event::VotersChanged { generation, from, to });
        self.next_heartbeat = self.now;
    }

    /// Says where this node stands: while that is not where it wants to be, and to who stands elsewhere.
    fn say_where(&mut self) {
        let peer = self.peer();
        let lost = self.recall().lost();
        let under_way = lost || self.change.chosen || *self.members() != self.setup.wanted;
        let third = self.change.apart[Member::Witness.index()] && self.members().third().is_some();
        if !(under_way || third || self.change.apart[peer.index()]) {
            return;
        }
        if self.now < self.change.next_say {
            return self.wake_at(self.change.next_say);
        }
        self.change.next_say = self.now + self.setup.timing.interval;
        self.wake_at(self.change.next_say);
        let stance = self.stance();
        if third {
            self.send(Member::Witness, Message::Voters(Box::new(stance.clone())));
        }
        if under_way || self.change.apart[peer.index()] {
            self.send(peer, Message::Voters(Box::new(stance)));
        }
        self.change.apart = [false; 3];
    }

    fn stance(&self) -> Stance {
        let recall = match self.recall() {
            // What a crash would take back is not said.
            Recall::Kept | Recall::Blank if !self.desk.voter.filed() => Recall::Lost,
            known @ (Recall::Kept | Recall::Blank | Recall::LostBlank | Recall::Lost) => known,
        };
        Stance {
            in_force: self.in_force(),
            next: self.desk.voter.sets().next.clone().filter(|_| self.change.chosen),
            recall,
            rest: self.rest(),
            config: self.setup.config,
            ready: self.change.ready,
            terms: self.desk.voter.terms(),
        }
    }

    /// How long a lease of this node, of an earlier life of it, or one that a late acknowledgement prolongs, may last.
    fn rest(&self) -> Duration {
        let until = self.desk.voter.promised_self_until().max(self.desk.voter.silent_until());
        self.now.until(until).max(self.setup.timing.hold())
    }

    /// The peer says where it stands.
    pub(super) fn take_stance(&mut self, from: Identity, stance: Box<Stance>) {
        if from.member != self.peer() {
            return;
        }
        for (group, term) in stance.terms.iter().take(MEMORIES_MAX) {
            self.desk.voter.heard_of(*group, *term);
        }
        let lost = self.recall().lost();
        match (lost, stance.recall.lost()) {
            // A new cluster forms by heartbeats.
            (true, true) => {}
            (true, false) => self.learn_from(&stance),
            (false, true) => self.change.apart[from.member.index()] = true,
            (false, false) => self.compare(&stance),
        }
        self.change.peer = Some((self.now, stance));
        self.note_recovery(lost);
    }

    /// This node has no memory: the peer's set is in force.
    fn learn_from(&mut self, stance: &Stance) {
        let peer = self.peer();
        let pair = stance.next.as_ref().filter(|next| next.members == Members::Pair);
        let joins = pair.filter(|_| stance.in_force.members == Members::Solo(peer));
        let set = joins.unwrap_or(&stance.in_force);
        if self.desk.voter.sets().in_force.as_ref() != Some(set) {
            *self.sets_mut() = Sets { in_force: Some(set.clone()), next: None };
            self.desk.voter.forget_memory(self.now);
            (self.change.chosen, self.change.rested_at) = (false, None);
        }
        if joins.is_some() {
            self.desk.voter.joins();
            self.desk.begin(Purpose::Hold);
            self.tell_change(Members::Solo(peer));
        } else {
            self.desk.told(peer, stance.recall);
        }
    }

    /// Both remember: one of them may be a step ahead.
    fn compare(&mut self, stance: &Stance) {
        let set = self.in_force();
        if stance.in_force == set {
            if set.members == Members::Pair && self.change.rested_at.is_none() {
                let rest = self.rest().max(stance.rest.min(HOLD_MAX));
                self.change.rested_at = Some(self.now + rest + (rest / 10).max(MARGIN_MIN));
            }
            let next = stance.next.as_ref().filter(|next| set.leads_to(next));
            if let Some(next) = next.filter(|_| set.members.coordinator() == self.peer() && !self.desk.busy()) {
                self.desk.begin(Purpose::Follow(Box::new(next.clone())));
            }
        } else if self.change.chosen && self.desk.voter.sets().next.as_ref() == Some(&stance.in_force) {
            *self.sets_mut() = Sets { in_force: Some(stance.in_force.clone()), next: None };
            (self.change.chosen, self.change.rested_at, self.change.unwritten) = (false, None, true);
            self.tell_change(set.members);
            self.compare(stance);
        } else if stance.in_force.generation > set.generation {
            // Nobody goes ahead of us but to what we have chosen, or after we have confirmed it: our memory is an old one.
            self.event(Event::RolledBack);
            self.desk.voter.forget_memory(self.now);
            self.learn_from(stance);
        } else {
            self.change.apart[self.peer().index()] = true;
        }
    }

    #[cfg(feature = "planted")]
    fn planted_choose(&mut self) {
        let set = self.in_force();
        let follower = set.members.coordinator() != self.setup.me.member;
        if let Some(members) = set.members.step_toward(&self.setup.wanted)
            && planted!(PeerChooses)
            && follower
            && !self.recall().lost()
        {
            self.sets_mut().in_force = Some(set.followed_by(members));
        }
    }
}
