//! The third voter of a cluster without a third machine: each node has one of its own, and it votes for that node alone.
//!
//! Hears: what the engine of its node says to the third voter, what the peer says, and what the shell found out. Tells:
//! answers, and errands for the shell. Two such voters do not know of each other, so no majority is shared: what keeps
//! two nodes from owning at once is, while they hear each other, the peer's promise as ever; and when they do not, that
//! a vote is given only to a node whose peer was not heard for three leases, and
//! - with `fence`, only when that peer is confirmed off, or had ended in order;
//! - with `gateway` and `none`, only when nobody answers for the addresses, asked again and again until this moment;
//!   with `gateway`, moreover, enough of the listed addresses answer.
//!
//! Claims are always confirmed: an owner keeps what it has while its peer is lost. Nothing is remembered over a death: the
//! node's own voter is silent after a start for as long as an earlier life's promises may run.
//!
//! Silence counts only while this node could hear: one that was frozen, or had no carrier, begins to count anew.
//!
//! Not here: how one looks or shoots (`tiebreak`, `vip::probe`), what an owner may do (`engine`).

use super::message::{Ack, AckLine, AckVerdict, Answer, Fitness, Heartbeat, Message, Recall, Request};
use super::name::{GroupName, Incarnation, Member, Term};
use super::voter::Identity;
use crate::limits::{
    FENCE_RETRY_MAX, FENCE_RETRY_MIN, LOOK_FRESH, LOOK_MAX, LOOK_PAUSE, LOOK_STEP, LOOK_STEPS, LOST_LEASES,
    MEMORIES_MAX, RIVAL_MAX, WISH_FRESH,
};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// What must be so before a vote is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The peer is off.
    Fence {
        /// How much earlier an owner shoots than a node that wants to take over.
        head_start: Duration,
    },
    /// Nobody answers for the addresses, and so many of the listed ones answer.
    Gateway {
        /// How many.
        need: usize,
    },
    /// Nobody answers for the addresses.
    None,
}

/// What an arbiter is made with.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The node for which it votes.
    pub me: Member,
    /// What must be so.
    pub way: Way,
    /// The lease.
    pub lease: Duration,
    /// Since when hawser runs on this machine: workers come and go.
    pub since: Instant,
    /// A node that has not heard its peer waits for so long after that.
    pub boot_wait: Duration,
    /// The groups in the order of the configuration, and whether they have addresses that can be asked for.
    pub groups: Vec<(GroupName, bool)>,
}

/// What the shell is to do; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Ask for all addresses of all groups, and for the gateways, each [`LOOK_STEP`]; tell a [`Sight`] each time, until
    /// the answer to one is no. The first is told at once, when the first questions are out.
    Look,
    /// Power the peer off, and see that it is.
    Shoot,
    /// Ask the device whether the peer is off.
    AskPower,
}

/// What the shell found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Of [`Errand::Look`].
    Sight(Sight),
    /// Of [`Errand::Shoot`]: the peer is off, or why that is not known.
    Shot(Result<(), String>),
    /// Of [`Errand::AskPower`]: whether the peer is off.
    Power(Result<bool, String>),
}

/// What was seen since the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Groups for whose addresses somebody else answered, and who did.
    pub answered: BTreeMap<GroupName, String>,
    /// Somebody else asks for the same addresses.
    pub rival: bool,
    /// How many of the listed addresses answered lately.
    pub gateways: usize,
    /// Why it was not possible to look.
    pub trouble: Option<String>,
}

/// Who says that the peer is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffBy {
    /// It was powered off from here.
    Shot,
    /// The device said so.
    Device,
    /// An operator said so.
    Operator,
}

/// Where things stand, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// The peer is heard, or was until a moment ago.
    PeerHeard,
    /// This node has not heard its peer since its start, and waits for it until then.
    BootWait(Instant),
    /// The peer ended in order.
    PeerLeft,
    /// Nobody wants anything.
    Lone,
    /// It is looked whether somebody answers.
    Looking,
    /// Somebody answers.
    Answered(String),
    /// So many of the listed addresses answer: too few.
    Gateways(usize),
    /// It is not possible to look.
    Blind(String),
    /// Nobody answers.
    Clear,
    /// The peer is shot when this is over.
    Aiming(Instant),
    /// The fence agent is at work.
    Shooting,
    /// It failed; it is tried again then.
    Missed(String, Instant),
    /// The peer is off.
    Off(OffBy),
    /// The peer was never heard, and is not known to be off: an operator must say so.
    Operator(String),
}

/// Why an operator's word is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// The peer is heard, or was until a moment ago.
    PeerHeard,
    /// This kind of tiebreak does not rest on it.
    NoFence,
}

/// The third voter of one life of one node.
#[derive(Debug, Clone)]
pub struct Arbiter {
    rules: Rules,
    started: Instant,
    /// The last time at which it was told anything.
    told_at: Instant,
    /// The end of the last time in which this node did not run.
    awake_since: Instant,
    heard_at: Option<Instant>,
    peer: Option<Word>,
    own: Own,
    wishes: BTreeMap<GroupName, Instant>,
    errand: Option<Errand>,
    under_way: Option<Errand>,
    look: Option<Look>,
    next_look: Instant,
    fence: Fence,
}

/// The peer's latest word.
#[derive(Debug, Clone)]
struct Word {
    life: Incarnation,
    standby: bool,
    leaving: bool,
    owned: BTreeSet<GroupName>,
}

/// This node's own.
#[derive(Debug, Clone, Default)]
struct Own {
    fit: bool,
    standby: bool,
    owned: BTreeSet<GroupName>,
}

#[derive(Debug, Clone)]
struct Look {
    begun: Instant,
    last: Instant,
    /// Sights since anything stood against all groups.
    steps: u32,
    /// Who answered for a group, and at which step.
    answered: BTreeMap<GroupName, (u32, String)>,
    count: u32,
    rival_since: Option<Instant>,
    gateways: usize,
    trouble: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Fence {
    off: Option<OffBy>,
    failed: Option<String>,
    failures: u32,
    retry_at: Instant,
}

impl Arbiter {
    /// The arbiter of a life of a node that begins at `now`.
    #[must_use]
    pub fn new(now: Instant, rules: Rules) -> Self {
        Self {
            rules,
            started: now,
            told_at: now,
            awake_since: now,
            heard_at: None,
            peer: None,
            own: Own::default(),
            wishes: BTreeMap::new(),
            errand: None,
            under_way: None,
            look: None,
            next_look: now,
            fence: Fence::default(),
        }
    }

    /// The engine of this node says something to the third voter: what that answers.
    pub fn said(&mut self, now: Instant, message: &Message) -> Option<Message> {
        self.wake(now);
        let answer = match message {
            Message::Heartbeat(heartbeat) => Some(Message::Ack(self.confirm(now, heartbeat))),
            Message::PreVote(request) => Some(Message::PreVoteAnswer(self.vote(now, request))),
            Message::Vote(request) => Some(Message::VoteAnswer(self.vote(now, request))),
            Message::Hello
            | Message::Voters(_)
            | Message::Ack(_)
            | Message::PreVoteAnswer(_)
            | Message::VoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => None,
        };
        self.plan(now);
        answer
    }

    /// A message of a life of the peer that is believed.
    pub fn heard(&mut self, now: Instant, from: Identity, message: &Message) {
        if Some(from.member) != self.rules.me.peer() {
            return;
        }
        self.wake(now);
        self.heard_at = Some(now);
        self.fence = Fence::default();
        if self.peer.as_ref().is_some_and(|word| word.life != from.incarnation) {
            self.peer = None;
        }
        if let Message::Heartbeat(heartbeat) = message {
            self.peer = Some(Word {
                life: from.incarnation,
                standby: heartbeat.standby,
                leaving: heartbeat.leaving,
                owned: owned(heartbeat),
            });
        }
    }

    /// What is to be done, once.
    pub const fn take_errand(&mut self) -> Option<Errand> {
        self.errand.take()
    }

    /// What came of the errand. Whether to go on with it.
    pub fn told(&mut self, now: Instant, fact: Fact) -> bool {
        match fact {
            Fact::Sight(sight) => return self.saw(now, sight),
            Fact::Shot(Ok(())) => self.is_off(OffBy::Shot),
            Fact::Power(Ok(true)) => self.is_off(OffBy::Device),
            Fact::Shot(Err(why)) | Fact::Power(Err(why)) => self.missed(now, why),
            Fact::Power(Ok(false)) => self.missed(now, "the device says that it is on".to_owned()),
        }
        self.under_way = None;
        false
    }

    /// An operator says that the peer is off, and stays off until it is heard again.
    ///
    /// # Errors
    /// Why that is not taken. Nothing has changed then.
    pub fn confirm_fenced(&mut self, now: Instant) -> Result<(), Unasked> {
        if !matches!(self.rules.way, Way::Fence { .. }) {
            return Err(Unasked::NoFence);
        }
        if now < self.silent_since() + self.rules.lease * LOST_LEASES {
            return Err(Unasked::PeerHeard);
        }
        self.is_off(OffBy::Operator);
        Ok(())
    }

    /// Where things stand.
    #[must_use]
    pub fn stand(&self, now: Instant) -> Stand {
        if let Some(by) = self.fence.off {
            return Stand::Off(by);
        }
        if now < self.silent_since() + self.rules.lease * LOST_LEASES {
            return Stand::PeerHeard;
        }
        if self.left() {
            return Stand::PeerLeft;
        }
        if now < self.lost_at() {
            return Stand::BootWait(self.lost_at());
        }
        match self.rules.way {
            Way::Fence { head_start } => self.stand_of_fence(now, head_start),
            Way::Gateway { .. } | Way::None if self.wishes_any(now) => self.stand_of_look(now),
            Way::Gateway { .. } | Way::None => Stand::Lone,
        }
    }

    fn stand_of_fence(&self, now: Instant, head_start: Duration) -> Stand {
        match (&self.fence.failed, self.under_way) {
            (None, Some(_)) => Stand::Shooting,
            (Some(why), _) if self.heard_at.is_none() => Stand::Operator(why.clone()),
            (Some(why), _) => Stand::Missed(why.clone(), self.fence.retry_at),
            (None, None) if self.heard_at.is_none() => Stand::Lone,
            (None, None) => self.shoots_at(now, head_start).map_or(Stand::Lone, Stand::Aiming),
        }
    }

    fn stand_of_look(&self, now: Instant) -> Stand {
        let Some(look) = &self.look else { return Stand::Looking };
        if let Some(why) = &look.trouble {
            return Stand::Blind(why.clone());
        }
        let wanted = self.wishes.iter().filter(|(_, at)| now.since(**at) < WISH_FRESH).map(|(group, _)| *group);
        let answered = wanted.filter_map(|group| self.answered(look, group)).next();
        match (answered, self.rules.way) {
            (Some(who), _) => Stand::Answered(who.to_owned()),
            (None, Way::Gateway { need }) if look.gateways < need && look.count >= LOOK_STEPS => {
                Stand::Gateways(look.gateways)
            }
            (None, _) if look.steps > LOOK_STEPS => Stand::Clear,
            (None, _) => Stand::Looking,
        }
    }

    /// Time in which this node did not run is no silence of the peer's, and what was seen before it is old.
    fn wake(&mut self, now: Instant) {
        if now.since(self.told_at) > self.rules.lease {
            self.awake_since = now;
            self.look = None;
        }
        self.told_at = self.told_at.max(now);
    }

    fn confirm(&mut self, now: Instant, heartbeat: &Heartbeat) -> Ack {
        if heartbeat.fitness == Fitness::Unable {
            // Without a carrier nothing can be heard; and a switch may take its time when it is back.
            self.awake_since = now;
            self.look = None;
        }
        let lines = heartbeat.groups.iter().take(MEMORIES_MAX);
        self.own = Own { fit: heartbeat.fitness == Fitness::Fit, standby: heartbeat.standby, owned: owned(heartbeat) };
        let confirm = |line: &super::message::GroupLine| AckLine {
            name: line.name,
            highest: line.highest,
            verdict: line.owned.map(AckVerdict::Promised),
            wanted: false,
        };
        // It has no memory, and needs none: what it promised to an earlier life, that life's own voter remembers.
        Ack { seq: heartbeat.seq, recall: Recall::Blank, groups: lines.map(confirm).collect() }
    }

    fn vote(&mut self, now: Instant, request: &Request) -> Answer {
        if self.wishes.len() < MEMORIES_MAX || self.wishes.contains_key(&request.group) {
            self.wishes.insert(request.group, now);
        }
        let group = request.group;
        Answer {
            seq: request.seq,
            group,
            term: request.term,
            granted: request.term.belongs_to(self.rules.me) && self.may_own(now, group),
            // It has heard of none; to repeat what was asked would drive terms up, since a pre-vote binds nobody.
            highest: Term::default(),
            released: None,
            bound: self.look.as_ref().is_some_and(|look| self.answered(look, group).is_some()),
        }
    }

    /// Nobody else owns the group, as far as this kind of tiebreak can tell.
    fn may_own(&self, now: Instant, group: GroupName) -> bool {
        match self.rules.way {
            Way::Fence { .. } if self.fence.off == Some(OffBy::Operator) => true,
            Way::Fence { .. } => now >= self.lost_at() && (self.fence.off.is_some() || self.left()),
            Way::Gateway { .. } | Way::None => now >= self.lost_at() && self.is_clear(now, group),
        }
    }

    /// Nobody answers for the group, asked often enough and until now.
    fn is_clear(&self, now: Instant, group: GroupName) -> bool {
        self.look.as_ref().is_some_and(|look| now.since(look.last) <= LOOK_FRESH && self.is_clear_in(look, group))
    }

    fn is_clear_in(&self, look: &Look, group: GroupName) -> bool {
        let enough = match self.rules.way {
            Way::Gateway { need } => look.gateways >= need,
            Way::Fence { .. } | Way::None => true,
        };
        // The first sight only says that the questions are out.
        enough && look.steps > LOOK_STEPS && self.answered(look, group).is_none()
    }

    /// Who answered for a group within the last questions. For a group without addresses: who answered for any.
    fn answered<'a>(&self, look: &'a Look, group: GroupName) -> Option<&'a str> {
        let lately = |(step, _): &&(u32, String)| look.count < step + LOOK_STEPS;
        let bare = self.rules.groups.iter().all(|(name, visible)| *name != group || !visible);
        let answer = if bare { look.answered.values().find(lately) } else { look.answered.get(&group).filter(lately) };
        answer.map(|(_, who)| who.as_str())
    }

    fn silent_since(&self) -> Instant {
        self.heard_at.unwrap_or(self.started).max(self.awake_since)
    }

    /// When the peer counts as lost, if nothing is heard of it until then.
    fn lost_at(&self) -> Instant {
        let lost = self.silent_since() + self.rules.lease * LOST_LEASES;
        if self.heard_at.is_some() { lost } else { lost.max(self.rules.since + self.rules.boot_wait) }
    }

    /// The peer's last life said that it ends, holding nothing. A next one will not own without our vote unless it
    /// finds us off.
    fn left(&self) -> bool {
        self.peer.as_ref().is_some_and(|word| word.leaving && word.owned.is_empty())
    }

    fn wishes_any(&self, now: Instant) -> bool {
        self.wishes.values().any(|at| now.since(*at) < WISH_FRESH)
    }

    fn plan(&mut self, now: Instant) {
        if self.under_way.is_some() {
            return;
        }
        let errand = match self.rules.way {
            Way::Fence { head_start } => self.plan_fence(now, head_start),
            Way::Gateway { .. } | Way::None => {
                let early = self.lost_at() - LOOK_STEP * (LOOK_STEPS + 1);
                (self.wishes_any(now) && now >= early && now >= self.next_look).then_some(Errand::Look)
            }
        };
        if errand == Some(Errand::Look) {
            self.look = None;
        }
        (self.errand, self.under_way) = (errand, errand);
    }

    fn plan_fence(&self, now: Instant, head_start: Duration) -> Option<Errand> {
        if self.fence.off.is_some() || self.left() || now < self.lost_at() || now < self.fence.retry_at {
            return None;
        }
        if self.heard_at.is_none() {
            return self.wishes_any(now).then_some(Errand::AskPower);
        }
        self.shoots_at(now, head_start).filter(|at| now >= *at).map(|_| Errand::Shoot)
    }

    /// When the peer, lost, is to be shot. A node that could not serve has no business to end one that perhaps does; and
    /// who was in standby shoots nobody, so it need not be forestalled.
    fn shoots_at(&self, now: Instant, head_start: Duration) -> Option<Instant> {
        if self.own.standby || !self.own.fit {
            return None;
        }
        let rank = |owned: &BTreeSet<GroupName>| self.rules.groups.iter().position(|(name, _)| owned.contains(name));
        let ours = rank(&self.own.owned);
        let theirs = self.peer.as_ref().and_then(|word| rank(&word.owned));
        let peer_idle = self.peer.as_ref().is_some_and(|word| word.standby);
        let waits = match (ours, theirs) {
            (Some(_), None) if peer_idle => return None,
            (Some(ours), Some(theirs)) if theirs < ours => head_start,
            (Some(_), _) => Duration::ZERO,
            (None, _) if !self.wishes_any(now) => return None,
            (None, Some(_)) => head_start,
            // Nobody owned anything: both would shoot at once.
            (None, None) if self.rules.me == Member::First => head_start,
            (None, None) => head_start * 2,
        };
        Some(self.lost_at() + waits)
    }

    fn is_off(&mut self, by: OffBy) {
        self.fence = Fence { off: Some(by), ..Fence::default() };
    }

    fn missed(&mut self, now: Instant, why: String) {
        let fence = &mut self.fence;
        let wait = FENCE_RETRY_MIN.saturating_mul(1 << fence.failures.min(8)).min(FENCE_RETRY_MAX);
        fence.failures = fence.failures.saturating_add(1);
        fence.failed = Some(why);
        fence.retry_at = now + wait;
    }

    fn saw(&mut self, now: Instant, sight: Sight) -> bool {
        let first_node = self.rules.me == Member::First;
        let fresh = self.look.take().filter(|look| now.since(look.last) <= LOOK_FRESH * 2);
        let mut look = fresh.unwrap_or_else(|| Look {
            begun: now,
            last: now,
            steps: 0,
            answered: BTreeMap::new(),
            count: 0,
            rival_since: None,
            gateways: 0,
            trouble: None,
        });
        look.last = now;
        (look.count, look.steps) = (look.count + 1, look.steps + 1);
        look.gateways = sight.gateways;
        for (group, who) in sight.answered {
            look.answered.insert(group, (look.count, who));
        }
        if sight.rival && !first_node {
            let since = *look.rival_since.get_or_insert(now);
            if now.since(since) < RIVAL_MAX {
                look.steps = 0;
            }
        }
        if sight.trouble.is_some() {
            look.steps = 0;
        }
        look.trouble = sight.trouble;
        let wanted = self.wishes.iter().filter(|(_, at)| now.since(**at) < WISH_FRESH).map(|(group, _)| *group);
        let wanted: Vec<GroupName> = wanted.collect();
        let hopeless = wanted.iter().all(|group| self.answered(&look, *group).is_some());
        let promising = wanted.iter().any(|group| self.is_clear_in(&look, *group));
        let go_on = promising || (!hopeless && now.since(look.begun) < LOOK_MAX);
        if !go_on {
            self.under_way = None;
            self.next_look = if wanted.is_empty() { now } else { now + LOOK_PAUSE };
        }
        self.look = Some(look);
        go_on
    }
}

fn owned(heartbeat: &Heartbeat) -> BTreeSet<GroupName> {
    heartbeat.groups.iter().take(MEMORIES_MAX).filter(|line| line.owned.is_some()).map(|line| line.name).collect()
}

#[cfg(test)]
#[path = "arbiter_tests.rs"]
mod tests;
