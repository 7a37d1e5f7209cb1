//! The engine of a node: decides which groups it may own, until when. Pure.
//!
//! Hears: time, messages, the disk, the keeper of the addresses, operators. Tells: actions, and intents.
//! Rule: an owner is a node with its own promise and one other voter's, and it lets go three guards before they end.
//!
//! Not here: what a vote binds (`voter`), how a candidate becomes one (`campaign`), how an owner stays and leaves
//! (`tenure`), what is said to whom (`talk`).

mod campaign;
mod change;
mod group;
mod normal;
#[cfg(feature = "planted")]
mod planted;
mod talk;
mod tenure;
mod view;

use super::desk::{Desk, Done};
use super::event::{Cause, Event};
use super::input::{Action, Input};
use super::intent::{Intents, Report};
use super::lateness::Lateness;
use super::message::{Fitness, Recall};
use super::name::{AddressMark, GroupName, Member, STATE_GROUP, Secret, SecretHash, Term};
use super::timing::Timing;
use super::voter::{Bid, Identity, Memory, Refusal, Voter};
use super::voters::{Members, VoterSet};
use crate::limits::LEASE_PER_LATENESS_MIN;
use crate::time::{Duration, Instant};
use change::Change;
pub use change::Obstacle;
use group::{Group, Role};
use std::collections::{BTreeMap, VecDeque};
use talk::{Remote, SendLog};
pub use view::{GroupView, MemberView, RoleView, View};

/// Secrets that a candidate passes on; there are never more than two other lives that matter.
const SECRETS_MAX: usize = 2;
/// After a move because of unfitness, a group stays for this long before it may move back for the same reason.
const NO_RETURN: Duration = Duration::from_secs(10);
/// A leaving owner stays as a voter for this long at most.
const STAY_AS_VOTER: Duration = Duration::from_secs(1);

/// What an engine is made with.
#[derive(Debug, Clone, Hash)]
pub struct Setup {
    /// This node, in this life.
    pub me: Identity,
    /// Lease and interval.
    pub timing: Timing,
    /// The groups, what serves clients first.
    pub groups: Vec<GroupSetup>,
    /// How long a planned move waits for requests in flight.
    pub drain: Duration,
    /// Digest of what both nodes must have alike in their configurations.
    pub config: u64,
    /// Who is to vote, as the configuration says; the memory says who does.
    pub wanted: Members,
    /// SHA-256 of a secret.
    pub hash: fn(&Secret) -> SecretHash,
    /// For jitter.
    pub seed: u64,
    /// What the voter remembers of earlier lives.
    pub memory: Option<Memory>,
}

/// A group, as the configuration of this node has it.
#[derive(Debug, Clone, Hash)]
pub struct GroupSetup {
    /// Its name.
    pub name: GroupName,
    /// The node that it prefers.
    pub prefer: Member,
    /// Its addresses.
    pub addresses: Vec<AddressMark>,
}

/// The engine of a node.
#[derive(Debug, Clone, Hash)]
pub struct Engine {
    setup: Setup,
    desk: Desk,
    remotes: [Remote; 3],
    groups: BTreeMap<GroupName, Group>,
    sent: SendLog,
    next_heartbeat: Instant,
    fitness: Fitness,
    unable: bool,
    standby: bool,
    stopping: Option<Stopping>,
    /// A timing that waits for its hold to be written.
    timing_next: Option<Timing>,
    secrets: VecDeque<Secret>,
    change: Change,
    random: u64,
    due: Instant,
    now: Instant,
    lateness: Lateness,
    out: Vec<Action>,
}

#[derive(Debug, Clone, Copy, Hash)]
struct Stopping {
    said: bool,
    cause: Cause,
}

impl Engine {
    /// An engine that comes to life at `now`. It owns nothing, and is silent as long as the memory says.
    #[must_use]
    pub fn new(now: Instant, setup: Setup) -> Self {
        let voter = Voter::new(now, setup.me, setup.memory.clone());
        #[cfg(feature = "planted")]
        let voter = voter.planted_silence(now + setup.timing.hold());
        let mut voter = voter;
        voter.sets.in_force.get_or_insert_with(|| VoterSet::first(setup.wanted.clone()));
        let change = Change::new(voter.sets());
        let groups = setup.groups.iter().map(|group| (group.name, Group::new(group, now))).collect();
        Self {
            desk: Desk::new(voter, setup.hash),
            remotes: Default::default(),
            groups,
            sent: SendLog::default(),
            next_heartbeat: now,
            fitness: Fitness::Fit,
            unable: false,
            standby: false,
            stopping: None,
            timing_next: None,
            secrets: VecDeque::new(),
            change,
            random: setup.seed,
            due: now,
            now,
            lateness: Lateness::default(),
            out: Vec::new(),
            setup,
        }
    }

    /// Takes one input. Time acts first: an expired lease is gone before the input is looked at.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        self.now = self.now.max(now);
        let late = self.now.since(self.due);
        self.note_lateness(late);
        if late > self.setup.timing.lease {
            self.lose_all(Cause::Froze);
        }
        self.advance();
        self.take(input);
        self.advance();
        if let Some((id, memory)) = self.desk.take_write() {
            self.out.push(Action::Persist(id, memory));
        }
        std::mem::take(&mut self.out)
    }

    /// Says so when a call came so late that the lease is too short for it: a freeze each time, less than that when it
    /// is the worst of late.
    fn note_lateness(&mut self, late: Duration) {
        let lease = self.setup.timing.lease;
        if late > lease {
            self.event(Event::Froze { late });
        } else if late * LEASE_PER_LATENESS_MIN > lease && late > self.lateness.recent(self.now) {
            self.event(Event::Late { late });
        }
        self.lateness.note(self.now, late);
    }

    /// Call [`Engine::handle`] again then, at the latest.
    #[must_use]
    pub const fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Per group: what should be true, until when.
    #[must_use]
    pub fn intents(&self) -> Intents {
        self.groups.values().map(|g| (g.name, g.role.intent())).collect()
    }

    /// The voter, for people and invariants.
    #[must_use]
    pub const fn voter(&self) -> &Voter {
        &self.desk.voter
    }

    /// The term in which this node owns the group, and the end of its lease.
    #[must_use]
    pub fn owned(&self, group: GroupName) -> Option<(Term, Instant)> {
        match self.groups.get(&group).map(|g| &g.role) {
            Some(Role::Owner(owner)) => Some((owner.term, owner.end)),
            Some(Role::Standby | Role::PreVote(_) | Role::Candidate(_) | Role::Taking(_)) | None => None,
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.take_message(from, message),
            Input::Apart(from) => self.said_apart(from),
            Input::ThirdReady(ready) => self.third_is_ready(ready),
            Input::Notice(secret) => self.take_secrets(&[secret]),
            Input::Persisted(id) => match self.desk.written(self.now, id) {
                Done::Answer(to, answer) => self.send_vote_answer(to, answer),
                Done::Own(group, term) => self.own_vote_written(group, term),
                Done::HandOver(group, term) => self.hand_over_written(group, term),
                Done::Chosen => self.choice_written(),
                Done::Followed(from) => self.followed(from),
                Done::Nothing => {}
            },
            Input::StoreFailed => {
                self.desk.fail();
                self.unable = true;
            }
            Input::Fitness(fitness) => self.fitness = fitness,
            Input::Standby(on) => self.standby = on,
            Input::Report(report) => self.take_report(report),
            Input::Timing(timing) => self.timing_next = Some(timing),
            Input::Drained(group) => self.drained(group),
            Input::Command(id, command) => self.command(id, command),
        }
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Held(..) | Report::Claimed(_) | Report::Event(_) => {}
            Report::Gone(group) => self.gone(group),
            Report::Unable(why) => self.unable = self.desk.failed() || why.is_some(),
            Report::SupervisorGone => {
                self.lose_all(Cause::SupervisorGone);
                self.stop(Cause::SupervisorGone);
            }
        }
    }

    /// Everything that time alone brings about. Notes in `due` when to be called again.
    fn advance(&mut self) {
        self.due = Instant::NEVER;
        self.advance_timing();
        // In the order of the configuration: what serves clients comes before the state.
        let names: Vec<GroupName> = self.setup.groups.iter().map(|group| group.name).collect();
        for name in &names {
            self.advance_tenure(*name);
        }
        for name in names {
            self.advance_campaign(name);
        }
        self.advance_remotes();
        self.advance_change();
        self.advance_heartbeat();
        // Last: the others are told of the end before it is here.
        self.advance_stop();
    }

    /// Our own lease is a promise of our own voter, too: what it may last is on the disk first.
    fn advance_timing(&mut self) {
        let Some(timing) = self.timing_next else { return };
        if timing.hold() <= self.desk.voter.hold_given() {
            self.setup.timing = timing;
            self.timing_next = None;
        } else {
            self.desk.voter.expect_hold(timing.hold());
            self.desk.want_memory();
        }
    }

    /// Our own voter is bound to us for a group, until then.
    fn promise_self(&mut self, name: GroupName, term: Term, until: Instant) -> Result<(), Refusal> {
        let addresses = self.groups.get(&name).map_or(&[][..], |g| &g.addresses);
        let bid = Bid { group: name, term, hold: self.now.until(until), addresses };
        self.desk.voter.promise_self(self.now, &bid)
    }

    fn wake_at(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }

    fn event(&mut self, event: Event) {
        self.out.push(Action::Event(event));
    }

    /// The operator wants this node not to own the group. The state has to be written somewhere all the same: else
    /// nobody could take a node out of standby again.
    fn stands_by(&self, group: GroupName) -> bool {
        self.standby && group.as_str() != STATE_GROUP
    }

    /// How far this node can serve, all told.
    fn fitness(&self) -> Fitness {
        if self.unable { Fitness::Unable } else { self.fitness }
    }

    /// A number of `1..=n`, from the seed (splitmix64).
    fn random_upto(&mut self, n: u32) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a u32")]
        let below = ((z ^ (z >> 31)) % u64::from(n.max(1))) as u32;
        below + 1
    }

    /// What was handed over, the peer has taken and the witness, where there is one, has confirmed.
    fn handed_over_is_witnessed(&self) -> bool {
        let alone = self.members().third().is_none();
        let lines = self.peer_word().map(|w| &w.lines);
        self.groups.values().all(|g| {
            let line = lines.and_then(|lines| lines.get(&g.name));
            g.handed_over.is_none_or(|(term, _)| {
                line.is_some_and(|l| (l.witnessed || alone) && l.owned.is_some_and(|o| o >= term))
            })
        })
    }

    /// Nothing is held, and nothing begins any more: a campaign or an offer needs an engine that is not stopping.
    fn is_leaving(&self) -> bool {
        self.stopping.is_some()
            && self.groups.values().all(|g| g.clear && matches!(g.role, Role::Standby | Role::PreVote(_)))
    }

    /// Stops for good: hands over what the peer can take, lets go of the rest.
    fn stop(&mut self, cause: Cause) {
        if self.stopping.is_none() {
            self.stopping = Some(Stopping { said: false, cause });
            // The others are told at once: who has left in order need not be taken for dead.
            self.next_heartbeat = self.now;
        }
    }

    fn advance_stop(&mut self) {
        let Some(stopping) = self.stopping else { return };
        if stopping.said || !self.groups.values().all(|g| g.clear && !matches!(g.role, Role::Owner(_))) {
            return;
        }
        let handed_over = self.groups.values().filter_map(|g| g.handed_over).map(|(_, at)| at + STAY_AS_VOTER);
        let leave = handed_over.max().unwrap_or(self.now);
        if self.now < leave && !self.handed_over_is_witnessed() {
            return self.wake_at(leave);
        }
        self.stopping = Some(Stopping { said: true, ..stopping });
        self.out.push(Action::Stopped);
    }

    /// The voter's memory, as told to others.
    fn recall(&self) -> Recall {
        self.desk.voter.recall()
    }
}
