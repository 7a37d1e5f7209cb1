//! What a follower does: offers what it wrote alone, takes the owner's writes in order, sends its transitions.

use super::{Action, Job, Now, Origin, Replica, Then};
use crate::{
    cluster::Term,
    limits::{FORWARD_WAIT, OFFER_OPS_MAX, RECORD_AGAIN, VALUE_BYTES_MAX},
    replicate::{
        content::{Author, Entry, Room, Trust},
        message::{Message, Offered},
        types::{Op, Role, When, WriteError, Written},
    },
    time::Instant,
};

/// We follow the peer.
#[derive(Debug)]
pub(super) struct Following {
    /// Its term.
    pub(super) term: Term,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Until our copy is whole.
    Held,
    /// What we wrote alone goes to the owner; these keys are left.
    Offering { rest: Vec<String> },
    /// We have said where we are.
    Asked,
    /// We have what the owner has.
    InStep,
}

/// A write that the owner was asked for.
#[derive(Debug)]
pub(super) struct Forwarded {
    origin: Asker,
    pub(super) deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Someone on this node.
    Local(u64),
    /// The outbox.
    Outbox,
}

impl Following {
    pub(super) fn is_in_step(&self) -> bool {
        matches!(self.stage, Stage::InStep)
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self.stage, Stage::Asked)
    }
}

impl Replica {
    /// The peer owns the state in `term`.
    pub(super) fn on_lead(&mut self, now: Now, term: Term) {
        if self.is_below(term) {
            return self.send(Message::Refuse { highest: self.highest });
        }
        if matches!(self.role, Role::Owner { term: owned, .. } if owned == term) {
            return self.disconnect("the peer owns the state in our term");
        }
        self.learn(term);
        // What we wrote in an earlier term is not ours to answer any more.
        self.stop_waiting(now);
        self.end_all_forwarded();
        if let Some(peer) = &mut self.peer {
            peer.led = None;
            peer.taking = None;
            peer.following = Some(Following { term, stage: Stage::Held });
        }
        self.begin_offers();
    }

    /// Whether something of `term` is not to be taken any more.
    pub(super) fn is_below(&self, term: Term) -> bool {
        #[cfg(test)]
        if self.faults.lower_term {
            return false;
        }
        term < self.highest
    }

    /// The owner's line may lack what we wrote alone: it is offered first.
    pub(super) fn begin_offers(&mut self) {
        if self.copy.trust == Trust::Suspect {
            return;
        }
        #[cfg_attr(not(test), expect(unused_mut, reason = "a test may forget the offers"))]
        let mut rest: Vec<String> = self.copy.dirty.keys().rev().cloned().collect();
        #[cfg(test)]
        if self.faults.no_offers {
            rest.clear();
        }
        if let Some(following) = self.peer.as_mut().and_then(|peer| peer.following.as_mut()) {
            following.stage = Stage::Offering { rest };
            self.next_offer();
        }
    }

    pub(super) fn on_settled(&mut self, term: Term) {
        let following = self.peer.as_ref().and_then(|peer| peer.following.as_ref());
        if following.is_some_and(|f| f.term == term && matches!(f.stage, Stage::Offering { .. })) {
            self.next_offer();
        }
    }

    /// Offers the next few keys; after the last ones, says where we are.
    fn next_offer(&mut self) {
        let Some(following) = self.peer.as_mut().and_then(|peer| peer.following.as_mut()) else { return };
        let Stage::Offering { rest } = &mut following.stage else { return };
        let mut ops = Vec::new();
        let mut bytes = 0;
        while ops.len() < OFFER_OPS_MAX
            && let Some(key) = rest.last()
        {
            let value = self.copy.content.get(key).map(|item| item.value.clone());
            let size = key.len() + value.as_ref().map_or(0, Vec::len);
            if !ops.is_empty() && bytes + size > VALUE_BYTES_MAX {
                break;
            }
            bytes += size;
            let key = rest.pop().unwrap_or_default();
            if let Some(dirty) = self.copy.dirty.get(&key) {
                ops.push(Offered { key, value, base: dirty.base, changed: dirty.changed });
            }
        }
        let term = following.term;
        if ops.is_empty() {
            following.stage = Stage::Asked;
            self.send(Message::Follow { term, head: self.copy.head() });
        } else {
            self.send(Message::Offer { term, ops });
        }
    }

    /// Our last write is in the owner's line; what we offered is dealt with.
    pub(super) fn on_resume(&mut self, term: Term) {
        let following = self.peer.as_ref().and_then(|peer| peer.following.as_ref());
        if !following.is_some_and(|f| f.term == term && f.is_asked()) {
            return;
        }
        match self.copy.in_line() {
            Some(delta) => self.persist(delta, Then::InStep { term }),
            None => self.enter_step(term),
        }
    }

    /// All that the owner sends from now on is taken as it comes.
    pub(super) fn enter_step(&mut self, term: Term) {
        let head = self.copy.head();
        let following = self.peer.as_mut().and_then(|peer| peer.following.as_mut());
        if let Some(following) = following.filter(|f| f.term == term) {
            following.stage = Stage::InStep;
            self.send(Message::Ack { term: Some(term), head });
        }
        self.record_after = Instant::ZERO;
    }

    /// A write of the owner: only from a term not below the highest known, and only without a gap.
    pub(super) fn on_entry(&mut self, term: Term, entry: Entry) {
        if self.is_below(term) {
            return self.send(Message::Refuse { highest: self.highest });
        }
        let following = self.peer.as_ref().and_then(|peer| peer.following.as_ref());
        let expected = following.is_some_and(|f| f.term == term && f.is_in_step());
        #[cfg(test)]
        let expected = expected || self.faults.lower_term;
        if !expected || entry.prev != self.copy.head() || entry.version <= entry.prev || entry.version.term > term {
            return self.disconnect("the peer sent a write out of order");
        }
        if !self.copy.has_room(&entry.changes, Room::Taken) {
            return self.disconnect("the peer sent more than there is room for");
        }
        let delta = self.copy.append(entry, Author::Peer);
        self.persist(delta, Then::Ack { term: Some(term) });
    }

    /// We own the state ourselves now.
    pub(super) fn stop_following(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.following = None;
            if peer.repair.is_over() {
                peer.taking = None;
            }
        }
        self.end_all_forwarded();
    }

    /// Sends the oldest transition of this node that no owner has taken yet: one at a time.
    pub(super) fn send_record(&mut self, now: Now) -> bool {
        let Some((key, entry)) = self.copy.content.outbox.first_key_value() else { return false };
        if now.at < self.record_after {
            return false;
        }
        let Ok(value) = postcard::to_stdvec(entry) else { return false };
        let op = Op::put(key.clone(), value).when(When::Absent);
        let queued = |job: &Job| matches!(job, Job::Write { origin: Origin::Outbox, .. });
        if self.writable(now).is_ok() {
            let idle = self.waiting.is_none() && !self.jobs.iter().any(queued);
            if idle {
                self.jobs.push_back(Job::Write { origin: Origin::Outbox, ops: vec![op] });
            }
            return idle;
        }
        let following = self.peer.as_ref().and_then(|p| p.following.as_ref()).is_some_and(Following::is_in_step);
        if following && !self.forwarded.values().any(|f| f.origin == Asker::Outbox) {
            self.submit(now, Asker::Outbox, vec![op]);
            return true;
        }
        false
    }

    /// Asks the owner for a write.
    pub(super) fn submit(&mut self, now: Now, origin: Asker, ops: Vec<Op>) {
        let id = self.next_submit;
        self.next_submit += 1;
        self.forwarded.insert(id, Forwarded { origin, deadline: now.at + FORWARD_WAIT });
        self.send(Message::Submit { id, ops });
    }

    pub(super) fn end_forwarded(&mut self, now: Now, submit: u64, result: Result<Written, WriteError>) {
        match self.forwarded.remove(&submit).map(|forwarded| forwarded.origin) {
            Some(Asker::Local(id)) => self.out.push(Action::Answer { id, result }),
            // It leaves the outbox when it comes back as the owner's write; until then it is sent again, which does
            // no harm: its key is its own.
            Some(Asker::Outbox) => {
                self.record_after = if result.is_ok() { Instant::ZERO } else { now.at + RECORD_AGAIN };
            }
            None => {}
        }
    }

    pub(super) fn end_all_forwarded(&mut self) {
        for (_, forwarded) in std::mem::take(&mut self.forwarded) {
            if let Asker::Local(id) = forwarded.origin {
                self.out.push(Action::Answer { id, result: Err(WriteError::Unknown) });
            }
        }
    }
}
