//! Decides what happens to the state: input and time in, actions out. Pure.
//!
//! Hears: role, writes, transitions, messages of the peer, completed commits. Tells: what to commit, send and answer.
//!
//! One commit is under way at a time, and one write waits for the peer at a time, so every question of order has one
//! answer. The memory is always what is on the disk: a change is applied when its commit came back.
//!
//! Rules, and where they are kept:
//! - only the owner writes, while its lease runs, and not below a higher term (`can_write`);
//! - a write is answered only while that same lease runs (`finish`);
//! - a follower takes nothing from a term below its highest, and nothing with a gap (`follower::on_entry`);
//! - what a node wrote alone is offered before it takes the owner's copy (`follower::next_offer`);
//! - a suspect copy gives way to a whole one, whoever owns the state (`repair`).
//!
//! Not here: bytes (`message`), sessions (`session`, `state`), what a change does to memory and disk (`content`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod follower;
mod owner;
mod repair;

use super::{
    content::{Content, Copy, Delta, Trust},
    message::{Hello, Message, PROTOCOL},
    types::{Health, HistoryEntry, Op, Role, Version, View, ViewRole, WriteError, Written},
};
use crate::{
    cluster::{Member, Name, Term},
    limits::{HISTORY_MAX, WRITES_QUEUED_MAX},
    store::{Batch, Error, Store},
    time::Instant,
};
use follower::{Asker, Following, Forwarded};
use owner::{Job, Led, Origin, Waiting};
use repair::{Repair, Taking};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

/// The time at which an input came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For leases and deadlines.
    pub(super) at: Instant,
    /// For the history.
    pub(super) unix_ms: u64,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// What this node may do now.
    Role(Role),
    /// A new session with the peer; an earlier one is over.
    Connected,
    /// The session is over.
    Disconnected,
    /// The peer said something, on the current session. Only if [`Replica::wants_message`].
    Message(Message),
    /// The commit asked for is durable, or the store has failed.
    Persisted(Result<(), String>),
    /// Someone on this node wants a write.
    Write { id: u64, ops: Vec<Op> },
    /// This node made a transition.
    Record { key: String, entry: HistoryEntry },
    /// An operator says that this copy is to count as whole.
    Accept,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Commit this, and say when it is durable. Never two at a time.
    Persist(Batch),
    /// Send this on the current session.
    Send(Message),
    /// Answer a write of this node.
    Answer { id: u64, result: Result<Written, WriteError> },
    /// End the current session; its end is to be reported like any other.
    Disconnect(&'static str),
    /// For people.
    Event(Event),
}

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A higher term than the one owned is known: the engine must campaign above it.
    TermBelow { owned: Term, highest: Term },
    /// What a node wrote alone was not taken.
    Conflict { key: String },
    /// A copy was taken from the peer.
    CopyTaken { head: Version, keys: usize },
    /// The store has failed.
    StoreFailed(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TermBelow { owned, highest } => {
                write!(f, "state owned in term {owned} while term {highest} is known: not written until elected above")
            }
            Self::Conflict { key } => write!(f, "unreplicated write of {key} refused: changed since"),
            Self::CopyTaken { head, keys } => {
                write!(f, "took the peer's copy of the state: {keys} keys, version {head}")
            }
            Self::StoreFailed(why) => write!(f, "store failed: {why}"),
        }
    }
}

/// Rules that a test may switch off, to see that it would notice.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub(super) struct Faults {
    /// A follower takes a lower term's write (SCENARIOS fault 28).
    pub(super) lower_term: bool,
    /// A write is answered as replicated when it was sent.
    pub(super) early_answer: bool,
    /// What was written alone is forgotten on return.
    pub(super) no_offers: bool,
    /// A write is answered after the lease.
    pub(super) late_answer: bool,
}

/// One replica of the state.
#[derive(Debug)]
pub(super) struct Replica {
    me: Member,
    name: Name,
    copy: Copy,
    role: Role,
    /// The highest term of the group `state` heard of.
    highest: Term,
    failed: Option<String>,
    /// Number of the current session, or of the next one.
    session: u64,
    peer: Option<Peer>,
    persisting: Option<Persisting>,
    /// The one message that waits for a commit to end.
    incoming: Option<Message>,
    jobs: VecDeque<Job>,
    waiting: Option<Waiting>,
    records: VecDeque<(String, HistoryEntry)>,
    /// An operator said that this copy is to count as whole.
    accepting: bool,
    forwarded: BTreeMap<u64, Forwarded>,
    next_submit: u64,
    /// When a transition in the outbox may be sent again.
    record_after: Instant,
    dropped: u64,
    out: Vec<Action>,
    #[cfg(test)]
    pub(super) faults: Faults,
}

/// The peer, while a session is up.
#[derive(Debug, Default)]
struct Peer {
    hello: Option<Hello>,
    repair: Repair,
    taking: Option<Taking>,
    /// It owns the state, and we follow.
    following: Option<Following>,
    /// We own the state, and it follows.
    led: Option<Led>,
    /// It has everything of our line up to here.
    confirmed: Version,
}

/// A commit under way, and what comes after it.
#[derive(Debug)]
struct Persisting {
    session: u64,
    delta: Delta,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Nothing,
    /// Tell the peer how far we are.
    Ack {
        term: Option<Term>,
    },
    /// As follower, all is settled: in step from now on.
    InStep {
        term: Term,
    },
    /// A write of ours is durable here.
    Written {
        origin: Origin,
        version: Version,
    },
    /// A suspect copy became whole by taking the peer's.
    Repaired {
        head: Version,
    },
    /// A suspect copy became whole, as the better one of two: give it.
    Give,
    /// An operator accepted the copy: say hello anew.
    Accepted,
}

impl Replica {
    /// The replica as its store has it. `highest` is the highest term of the group `state` in the promise file.
    pub(super) fn load(me: Member, name: Name, store: &dyn Store, highest: Term) -> Result<Self, Error> {
        let copy = Copy::load(store)?;
        Ok(Self {
            me,
            name,
            highest: highest.max(copy.head().term),
            copy,
            role: Role::Follower,
            failed: None,
            session: 0,
            peer: None,
            persisting: None,
            incoming: None,
            jobs: VecDeque::new(),
            waiting: None,
            records: VecDeque::new(),
            accepting: false,
            forwarded: BTreeMap::new(),
            next_submit: 0,
            record_after: Instant::ZERO,
            dropped: 0,
            out: Vec::new(),
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    /// The state, to read: what is durable here.
    pub(super) fn content(&self) -> Arc<Content> {
        Arc::clone(&self.copy.content)
    }

    /// What a restart would have to load.
    #[cfg(test)]
    pub(super) fn copy(&self) -> &Copy {
        &self.copy
    }

    /// The highest term known.
    #[cfg(test)]
    pub(super) fn highest(&self) -> Term {
        self.highest
    }

    /// Whether a message of the peer can be taken now; until then it is left on the wire.
    pub(super) fn wants_message(&self) -> bool {
        self.incoming.is_none()
    }

    /// Takes an input, and says what to do, in order. Time acts first.
    pub(super) fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        self.expire(now);
        match input {
            Input::Role(role) => self.on_role(role),
            Input::Connected => self.on_connected(now),
            Input::Disconnected => self.on_disconnected(now),
            Input::Message(message) => self.on_message(now, message),
            Input::Persisted(result) => self.on_persisted(now, result),
            Input::Write { id, ops } => self.on_write(now, id, ops),
            Input::Record { key, entry } => self.on_record(key, entry),
            Input::Accept => self.accepting = true,
            Input::Tick => {}
        }
        self.expire(now);
        self.pump(now);
        std::mem::take(&mut self.out)
    }

    /// Call again then, at the latest.
    pub(super) fn next_deadline(&self) -> Instant {
        let lease = match self.role {
            Role::Owner { until, .. } => until,
            Role::Follower => Instant::NEVER,
        };
        let waiting = self.waiting.as_ref().map_or(Instant::NEVER, |waiting| waiting.deadline);
        let forwarded = self.forwarded.values().map(|f| f.deadline).min().unwrap_or(Instant::NEVER);
        let outbox = if self.copy.content.outbox.is_empty() { Instant::NEVER } else { self.record_after };
        let outbox = if outbox == Instant::ZERO { Instant::NEVER } else { outbox };
        lease.min(waiting).min(forwarded).min(outbox)
    }

    /// A copy for people, and for the engine's `highest`.
    pub(super) fn view(&self, now: Now) -> View {
        let in_step = self.peer.as_ref().and_then(|p| p.following.as_ref()).is_some_and(Following::is_in_step);
        let led = self.peer.as_ref().and_then(|p| p.led.as_ref()).is_some_and(|led| led.in_step);
        let health = match (&self.failed, self.copy.trust) {
            (Some(why), _) => Health::Failed(why.clone()),
            (None, Trust::Whole) => Health::Ok,
            (None, Trust::Suspect) if self.copy.head() == Version::ZERO => Health::Rebuilding,
            (None, Trust::Suspect) => Health::RolledBack,
        };
        View {
            role: match (self.writable(now), in_step) {
                (Ok(_), _) => ViewRole::Owner,
                (Err(_), true) => ViewRole::InStep,
                (Err(_), false) => ViewRole::Waiting,
            },
            version: self.copy.head(),
            highest: self.highest,
            connected: self.peer.as_ref().is_some_and(|peer| peer.hello.is_some()),
            peer_version: self.peer.as_ref().filter(|_| led).map(|peer| peer.confirmed),
            unreplicated: self.copy.dirty.len(),
            unrecorded: self.copy.content.outbox.len() + self.records.len(),
            dropped: self.dropped,
            health,
        }
    }

    /// The term in which this node may write now, or why it may not.
    fn writable(&self, now: Now) -> Result<Term, WriteError> {
        match self.role {
            _ if self.failed.is_some() => Err(WriteError::Failed(self.failed.clone().unwrap_or_default())),
            Role::Owner { term, until } if now.at < until => {
                if term < self.highest {
                    Err(WriteError::Behind(self.highest))
                } else if self.copy.trust == Trust::Suspect {
                    Err(WriteError::Suspect)
                } else {
                    Ok(term)
                }
            }
            Role::Owner { .. } | Role::Follower => Err(WriteError::NoOwner),
        }
    }

    /// Lets end what has ended.
    fn expire(&mut self, now: Now) {
        if matches!(self.role, Role::Owner { until, .. } if now.at >= until) {
            self.role = Role::Follower;
        }
        if now.at >= self.record_after {
            self.record_after = Instant::ZERO;
        }
        if let Some(waiting) = &self.waiting {
            if self.writable(now) != Ok(waiting.version.term) {
                self.stop_waiting(now);
            } else if now.at >= waiting.deadline {
                self.stop_waiting(now);
                self.disconnect("the peer did not confirm a write in time");
            }
        }
        let late: Vec<u64> =
            self.forwarded.iter().filter(|(_, f)| now.at >= f.deadline).map(|(submit, _)| *submit).collect();
        for submit in late {
            self.end_forwarded(now, submit, Err(WriteError::Unknown));
        }
    }

    /// Starts what can start: one commit at a time, the peer's word first.
    fn pump(&mut self, now: Now) {
        self.lead(now);
        while self.persisting.is_none() && self.failed.is_none() {
            if let Some(message) = self.incoming.take() {
                self.take_message(now, message);
            } else if std::mem::take(&mut self.accepting) {
                if self.copy.trust == Trust::Suspect {
                    self.persist(Copy::trusted(), Then::Accepted);
                }
            } else if let Some((key, entry)) = self.records.pop_front() {
                let (delta, dropped) = self.copy.record(key, entry);
                self.dropped += u64::from(dropped);
                self.persist(delta, Then::Nothing);
            } else if let Some(delta) = self.peer.as_ref().and_then(|peer| self.copy.confirmed(peer.confirmed)) {
                self.persist(delta, Then::Nothing);
            } else if !self.next_job(now) && !self.send_record(now) {
                break;
            }
            self.lead(now);
        }
        if self.failed.is_some() || self.writable(now).is_err() {
            self.refuse_jobs(now);
        }
    }

    fn on_role(&mut self, role: Role) {
        let before = std::mem::replace(&mut self.role, role);
        let Role::Owner { term, .. } = role else { return };
        if matches!(before, Role::Owner { term: same, .. } if same == term) {
            return;
        }
        if term < self.highest {
            self.out.push(Action::Event(Event::TermBelow { owned: term, highest: self.highest }));
            return;
        }
        self.highest = term;
        // Whom we followed is deposed by this term.
        self.stop_following();
    }

    fn on_connected(&mut self, now: Now) {
        self.on_disconnected(now);
        if self.failed.is_some() {
            self.out.push(Action::Disconnect("the store has failed"));
            return;
        }
        self.peer = Some(Peer::default());
        let hello = Hello {
            protocol: PROTOCOL,
            member: self.me,
            highest: self.highest,
            head: self.copy.head(),
            trust: self.copy.trust,
        };
        self.send(Message::Hello(hello));
    }

    fn on_disconnected(&mut self, now: Now) {
        self.session += 1;
        self.peer = None;
        self.incoming = None;
        self.jobs.retain(|job| job.session().is_none());
        self.stop_waiting(now);
        self.end_all_forwarded();
    }

    /// What needs no commit is dealt with at once; the rest waits for the one under way.
    fn on_message(&mut self, now: Now, message: Message) {
        let Some(peer) = &self.peer else { return };
        if peer.hello.is_none() && !matches!(message, Message::Hello(_) | Message::Ping) {
            return self.disconnect("the peer did not say hello first");
        }
        match message {
            Message::Hello(_)
            | Message::Lead { .. }
            | Message::Settled { .. }
            | Message::Resume { .. }
            | Message::Entry { .. }
            | Message::CopyBegin { .. }
            | Message::CopyPart { .. }
            | Message::CopyEnd { .. } => self.incoming = Some(message),
            Message::Refuse { highest } => self.learn(highest),
            Message::Offer { term, ops } => self.on_job(Job::Offer { session: self.session, term, ops }),
            Message::Follow { term, head } => self.on_job(Job::Follow { session: self.session, term, head }),
            Message::Ack { term, head } => self.on_ack(now, term, head),
            Message::Submit { id, ops } => self.on_submit(now, id, ops),
            Message::Answer { id, result } => self.end_forwarded(now, id, result),
            Message::Ping => {}
        }
    }

    /// A message that may need a commit; none is under way.
    fn take_message(&mut self, now: Now, message: Message) {
        match message {
            Message::Hello(hello) => self.on_hello(hello),
            Message::Lead { term } => self.on_lead(now, term),
            Message::Settled { term } => self.on_settled(term),
            Message::Resume { term } => self.on_resume(term),
            Message::Entry { term, entry } => self.on_entry(term, entry),
            Message::CopyBegin { term, head } => self.on_copy_begin(term, head),
            Message::CopyPart { items } => self.on_copy_part(items),
            Message::CopyEnd { keys } => self.on_copy_end(now, keys),
            Message::Refuse { .. }
            | Message::Offer { .. }
            | Message::Follow { .. }
            | Message::Ack { .. }
            | Message::Submit { .. }
            | Message::Answer { .. }
            | Message::Ping => unreachable!("dealt with when it came"),
        }
    }

    fn on_persisted(&mut self, now: Now, result: Result<(), String>) {
        let Some(Persisting { session, delta, then }) = self.persisting.take() else { return };
        if let Err(why) = result {
            return self.fail(now, why, &then);
        }
        self.copy.apply(delta);
        let current = session == self.session && self.peer.is_some();
        match then {
            Then::Nothing => {}
            Then::Ack { term } if current => self.send(Message::Ack { term, head: self.copy.head() }),
            Then::InStep { term } if current => self.enter_step(term),
            Then::Repaired { head } if current => {
                self.send(Message::Ack { term: None, head });
                self.repaired();
            }
            Then::Give if current => self.send_copy(None),
            Then::Accepted if current => self.disconnect("the copy was accepted"),
            Then::Written { origin, version } => self.on_written(now, origin, version),
            Then::Ack { .. } | Then::InStep { .. } | Then::Repaired { .. } | Then::Give | Then::Accepted => {}
        }
    }

    fn on_write(&mut self, now: Now, id: u64, ops: Vec<Op>) {
        let following = self.peer.as_ref().and_then(|p| p.following.as_ref()).is_some_and(Following::is_in_step);
        let refused = match self.writable(now) {
            Ok(_) if self.jobs.iter().filter(|job| job.session().is_none()).count() >= WRITES_QUEUED_MAX => {
                WriteError::Busy
            }
            Ok(_) => return self.jobs.push_back(Job::Write { origin: Origin::Local(id), ops }),
            Err(WriteError::NoOwner) if following && self.forwarded.len() < WRITES_QUEUED_MAX => {
                return self.submit(now, Asker::Local(id), ops);
            }
            Err(WriteError::NoOwner) if following => WriteError::Busy,
            Err(why) => why,
        };
        self.out.push(Action::Answer { id, result: Err(refused) });
    }

    fn on_record(&mut self, key: String, entry: HistoryEntry) {
        if self.records.len() >= HISTORY_MAX {
            self.records.pop_front();
            self.dropped += 1;
        }
        self.records.push_back((key, entry));
    }

    /// A term was heard of.
    fn learn(&mut self, term: Term) {
        if term <= self.highest {
            return;
        }
        self.highest = term;
        if let Role::Owner { term: owned, .. } = self.role
            && owned < term
        {
            self.out.push(Action::Event(Event::TermBelow { owned, highest: term }));
        }
    }

    fn persist(&mut self, delta: Delta, then: Then) {
        assert!(self.persisting.is_none(), "one commit at a time");
        match self.copy.batch(&delta) {
            Ok(batch) => {
                self.persisting = Some(Persisting { session: self.session, delta, then });
                self.out.push(Action::Persist(batch));
            }
            Err(e) => self.failed = Some(e.to_string()),
        }
    }

    /// The commit under way has failed, and with it the store.
    fn fail(&mut self, now: Now, why: String, then: &Then) {
        self.out.push(Action::Event(Event::StoreFailed(why.clone())));
        self.failed = Some(why.clone());
        if let Then::Written { origin, .. } = then {
            self.finish(now, *origin, Err(WriteError::Failed(why)));
        }
        self.stop_waiting(now);
        self.refuse_jobs(now);
        self.end_all_forwarded();
        self.disconnect("the store has failed");
    }

    fn send(&mut self, message: Message) {
        self.out.push(Action::Send(message));
    }

    /// Forgets the peer until a new session comes.
    fn disconnect(&mut self, why: &'static str) {
        if self.peer.take().is_some() {
            self.incoming = None;
            self.out.push(Action::Disconnect(why));
        }
    }
}
