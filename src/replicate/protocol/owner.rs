//! What the owner does: writes, offers of a returning peer, bringing it up to date.

use super::{Action, Event, Now, Replica, Then};
use crate::{
    cluster::{GroupName, STATE_GROUP, Term},
    limits::{FRAME_BYTES_MAX, RECORD_AGAIN, RECORD_BYTES_MAX, REPLICATE_WAIT, WRITES_QUEUED_MAX},
    replicate::{
        content::{Author, Entry, Item, Room, Trust},
        message::{Message, Offered},
        types::{HistoryEntry, Op, Version, When, WriteError, Written},
    },
    time::Instant,
};

/// The peer as follower.
#[derive(Debug)]
pub(super) struct Led {
    /// Our term.
    pub(super) term: Term,
    /// It has said where it is: all our writes go to it.
    pub(super) in_step: bool,
}

/// Work that waits for its turn.
#[derive(Debug)]
pub(super) enum Job {
    /// A write.
    Write { origin: Origin, ops: Vec<Op> },
    /// What the peer wrote alone.
    Offer { session: u64, term: Term, ops: Vec<Offered> },
    /// The peer is here, and wants the rest.
    Follow { session: u64, term: Term, head: Version },
}

/// Who waits for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Someone on this node.
    Local(u64),
    /// The peer.
    Peer { session: u64, id: u64 },
    /// Our own outbox.
    Outbox,
    /// The peer's offer.
    Offer { session: u64, term: Term },
}

/// A write that is durable here, and on its way to the peer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) origin: Origin,
    pub(super) version: Version,
    pub(super) deadline: Instant,
}

impl Job {
    /// The session that it belongs to.
    pub(super) fn session(&self) -> Option<u64> {
        match self {
            Self::Offer { session, .. }
            | Self::Follow { session, .. }
            | Self::Write { origin: Origin::Peer { session, .. } | Origin::Offer { session, .. }, .. } => {
                Some(*session)
            }
            Self::Write { origin: Origin::Local(_) | Origin::Outbox, .. } => None,
        }
    }

    /// The term that a follower's offer or question belongs to.
    fn term(&self) -> Option<Term> {
        match self {
            Self::Offer { term, .. } | Self::Follow { term, .. } => Some(*term),
            Self::Write { .. } => None,
        }
    }
}

type Changes = Vec<(String, Option<Vec<u8>>)>;

impl Replica {
    /// Tells the peer once in each term that we own the state.
    pub(super) fn lead(&mut self, now: Now) {
        let Ok(term) = self.writable(now) else { return };
        let Some(peer) = &mut self.peer else { return };
        let ready = peer.hello.is_some() && peer.repair.is_over();
        if ready && peer.led.as_ref().is_none_or(|led| led.term != term) {
            peer.led = Some(Led { term, in_step: false });
            self.send(Message::Lead { term });
        }
    }

    /// The peer's request for work, in order with all other work. An honest peer has one under way in each term.
    pub(super) fn on_job(&mut self, job: Job) {
        let asked = job.term();
        self.jobs.retain(|job| job.term().is_none() || job.term() >= asked);
        if self.jobs.iter().any(|job| job.term().is_some()) {
            return self.disconnect("the peer asked twice");
        }
        self.jobs.push_back(job);
    }

    pub(super) fn on_submit(&mut self, now: Now, id: u64, ops: Vec<Op>) {
        let refused = match self.writable(now) {
            Ok(_) if self.jobs.iter().filter(|job| job.session().is_some()).count() > WRITES_QUEUED_MAX => {
                WriteError::Busy
            }
            Ok(_) => {
                let origin = Origin::Peer { session: self.session, id };
                return self.jobs.push_back(Job::Write { origin, ops });
            }
            Err(why) => why,
        };
        self.send(Message::Answer { id, result: Err(refused) });
    }

    /// The peer has all up to `head` on its disk. True in whatever term it was said: it is our line.
    pub(super) fn on_ack(&mut self, now: Now, term: Option<Term>, head: Version) {
        let head = head.min(self.copy.head());
        let Some(peer) = &mut self.peer else { return };
        peer.confirmed = peer.confirmed.max(head);
        if term.is_none() {
            peer.repair.end();
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.version <= head)
            && let Some(Waiting { origin, version, .. }) = self.waiting.take()
        {
            self.finish(now, origin, Ok(Written { version, replicated: true }));
        }
    }

    /// Does the next piece of work, if there is one and it may be done. No commit is under way.
    pub(super) fn next_job(&mut self, now: Now) -> bool {
        let Ok(term) = self.writable(now) else { return false };
        if self.waiting.is_some() {
            return false;
        }
        match self.jobs.pop_front() {
            Some(Job::Write { origin, ops }) => match self.changes(&ops) {
                Ok(changes) => self.write(term, origin, changes),
                Err(why) => self.finish(now, origin, Err(why)),
            },
            Some(Job::Offer { session, term: asked, ops }) => {
                if asked == term {
                    let changes = self.weigh(now, term, &ops);
                    let origin = Origin::Offer { session, term };
                    if changes.is_empty() {
                        self.send(Message::Settled { term });
                    } else {
                        self.write(term, origin, changes);
                    }
                }
            }
            Some(Job::Follow { session: _, term: asked, head }) => {
                if asked == term {
                    self.bring_up(term, head);
                }
            }
            None => return false,
        }
        true
    }

    /// Answers what may not be done any more.
    pub(super) fn refuse_jobs(&mut self, now: Now) {
        let why = self.writable(now).err().unwrap_or(WriteError::NoOwner);
        for job in std::mem::take(&mut self.jobs) {
            if let Job::Write { origin, .. } = job {
                self.finish(now, origin, Err(why.clone()));
            }
        }
    }

    /// A write is durable here: off to the peer, or answered.
    pub(super) fn on_written(&mut self, now: Now, origin: Origin, version: Version) {
        let owned = self.writable(now) == Ok(version.term);
        let led = self.peer.as_ref().and_then(|peer| peer.led.as_ref());
        let in_step = owned && led.is_some_and(|led| led.term == version.term && led.in_step);
        let entry = self.copy.suffix_one(version);
        let (true, Some(entry)) = (in_step, entry) else {
            return self.finish(now, origin, Ok(Written { version, replicated: false }));
        };
        self.send(Message::Entry { term: version.term, entry });
        #[cfg(test)]
        if self.faults.early_answer {
            return self.finish(now, origin, Ok(Written { version, replicated: true }));
        }
        self.waiting = Some(Waiting { origin, version, deadline: now.at + REPLICATE_WAIT });
    }

    /// The peer will not confirm in time.
    pub(super) fn stop_waiting(&mut self, now: Now) {
        if let Some(Waiting { origin, version, .. }) = self.waiting.take() {
            self.finish(now, origin, Ok(Written { version, replicated: false }));
        }
    }

    /// Tells whoever waits. A write that was made is answered only while the lease runs in which it was made.
    pub(super) fn finish(&mut self, now: Now, origin: Origin, result: Result<Written, WriteError>) {
        let result = match result {
            Ok(written) if !self.may_answer(now, written.version) => Err(match &self.failed {
                Some(why) => WriteError::Failed(why.clone()),
                None => WriteError::Unknown,
            }),
            other => other,
        };
        let session = self.peer.as_ref().map(|_| self.session);
        match origin {
            Origin::Local(id) => self.out.push(Action::Answer { id, result }),
            Origin::Peer { session: asked, id } if session == Some(asked) => {
                self.send(Message::Answer { id, result });
            }
            Origin::Offer { session: asked, term } if session == Some(asked) && result.is_ok() => {
                self.send(Message::Settled { term });
            }
            Origin::Outbox if result.is_err() => self.record_after = now.at + RECORD_AGAIN,
            Origin::Peer { .. } | Origin::Offer { .. } | Origin::Outbox => {}
        }
    }

    fn may_answer(&self, now: Now, version: Version) -> bool {
        #[cfg(test)]
        if self.faults.late_answer {
            return true;
        }
        self.writable(now) == Ok(version.term)
    }

    /// What the operations change, if their conditions hold and there is room.
    fn changes(&self, ops: &[Op]) -> Result<Changes, WriteError> {
        for op in ops {
            let found = self.copy.content.get(&op.key).map(|item| item.version);
            let holds = match op.when {
                When::Always => true,
                When::Absent => found.is_none(),
                When::Unchanged(version) => found == Some(version),
            };
            if !holds {
                return Err(WriteError::Conflict { key: op.key.clone(), found });
            }
        }
        let changes: Changes = ops.iter().map(|op| (op.key.clone(), op.value.clone())).collect();
        if self.copy.has_room(&changes, Room::Own) {
            Ok(changes)
        } else {
            Err(WriteError::Refused("the replicated state is full".to_owned()))
        }
    }

    /// One of our own writes.
    fn write(&mut self, term: Term, origin: Origin, mut changes: Changes) {
        let trimmed = self.copy.trimmed(&changes);
        changes.extend(trimmed.into_iter().map(|key| (key, None)));
        let prev = self.copy.head();
        let version = prev.next(term);
        let delta = self.copy.append(Entry { version, prev, changes }, Author::Me);
        self.persist(delta, Then::Written { origin, version });
    }

    /// What is taken of an offer, and a conflict in the history for each key that is not.
    fn weigh(&mut self, now: Now, term: Term, ops: &[Offered]) -> Changes {
        let mut changes = Changes::new();
        for op in ops {
            let found = self.copy.content.get(&op.key);
            let version = found.map(|item| item.version);
            let there = version == Some(op.changed) || found.map(|item| &item.value) == op.value.as_ref();
            // Terms tell who wrote: odd ones the first node, even ones the second.
            let own_line = |v: Version| v.term.0 % 2 == op.changed.term.0 % 2 && v <= op.changed;
            let unchanged = version == op.base || version.is_some_and(own_line);
            let change = (op.key.clone(), op.value.clone());
            if there {
                continue;
            } else if unchanged && self.copy.has_room(std::slice::from_ref(&change), Room::Own) {
                changes.push(change);
            } else {
                let next = self.copy.head().next(term);
                let entry = self.conflict(now, term, op, version);
                let unique = format!("c{next}.{}", changes.len());
                self.out.push(Action::Event(Event::Conflict { key: op.key.clone() }));
                // A history entry is short and of plain fields: it has bytes.
                let value = postcard::to_stdvec(&entry).ok();
                changes.push((entry.key(&unique), value));
            }
        }
        changes
    }

    fn conflict(&self, now: Now, term: Term, op: &Offered, found: Option<Version>) -> HistoryEntry {
        let found = found.map_or_else(|| "deleted".to_owned(), |version| format!("version {version}"));
        let bytes = op.value.as_ref().map_or_else(|| "its deletion".to_owned(), |v| format!("{} bytes", v.len()));
        let text = format!("{} (version {}, {bytes}) was written alone; it is {found} now", op.key, op.changed);
        self.refusal(now, term, text)
    }

    /// A write that was made alone and is lost, for the history.
    pub(super) fn refusal(&self, now: Now, term: Term, text: String) -> HistoryEntry {
        HistoryEntry {
            at_unix_ms: now.unix_ms,
            node: self.name,
            group: GroupName::new(STATE_GROUP).unwrap_or(self.name),
            from: "unreplicated".to_owned(),
            to: "refused".to_owned(),
            cause: "conflict".to_owned(),
            term,
            after_ms: None,
            text,
        }
    }

    /// Sends what the peer misses.
    fn bring_up(&mut self, term: Term, head: Version) {
        let Some(peer) = &mut self.peer else { return };
        let Some(led) = peer.led.as_mut().filter(|led| led.term == term) else { return };
        led.in_step = true;
        peer.confirmed = Version::ZERO;
        match self.copy.suffix(head).map(|entries| entries.cloned().collect::<Vec<_>>()) {
            Some(entries) => {
                self.send(Message::Resume { term });
                for entry in entries {
                    self.send(Message::Entry { term, entry });
                }
            }
            None => self.send_copy(Some(term)),
        }
    }

    /// Sends all there is.
    pub(super) fn send_copy(&mut self, term: Option<Term>) {
        assert!(self.copy.trust == Trust::Whole, "only a whole copy is given");
        let content = self.content();
        self.send(Message::CopyBegin { term, head: content.version() });
        let mut part: Vec<(String, Item)> = Vec::new();
        let mut bytes = 0;
        for (key, item) in &content.items {
            let size = key.len() + item.value.len() + 32;
            if bytes + size > FRAME_BYTES_MAX - RECORD_BYTES_MAX {
                self.send(Message::CopyPart { items: std::mem::take(&mut part) });
                bytes = 0;
            }
            bytes += size;
            part.push((key.clone(), item.clone()));
        }
        if !part.is_empty() {
            self.send(Message::CopyPart { items: part });
        }
        let keys = u32::try_from(content.items.len()).unwrap_or(u32::MAX);
        self.send(Message::CopyEnd { keys });
    }
}
