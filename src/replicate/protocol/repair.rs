//! When a copy cannot be believed: who gives, who takes, and how a whole copy arrives.
//!
//! A suspect copy gives way to a whole one, whoever owns the state. Of two suspect ones the later gives: together the
//! nodes know all there is to know. Two empty ones are a new cluster.

use super::{Action, Event, Now, Replica, Then};
use crate::{
    cluster::{Member, Term},
    limits::{HISTORY_MAX, STATE_BYTES_MAX, STATE_KEYS_MAX},
    replicate::{
        content::{Copy, Item, Trust},
        message::{Hello, Message, PROTOCOL},
        types::{HISTORY, HistoryEntry, Version},
    },
    time::Instant,
};

/// What is to be done about a suspect copy in this session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// Nothing, or it is done.
    #[default]
    Over,
    /// We take the peer's.
    Take,
    /// The peer takes ours.
    Give,
}

impl Repair {
    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// The peer has our copy.
    pub(super) fn end(&mut self) {
        if *self == Self::Give {
            *self = Self::Over;
        }
    }
}

/// A whole copy on its way in.
#[derive(Debug)]
pub(super) struct Taking {
    term: Option<Term>,
    head: Version,
    items: Vec<(String, Item)>,
    bytes: usize,
}

/// What two copies mean for the first of them. Both nodes come to opposite answers.
fn decide(me: Member, mine: (Trust, Version), theirs: (Trust, Version)) -> Repair {
    match (mine.0, theirs.0) {
        (Trust::Whole, Trust::Whole) => Repair::Over,
        (Trust::Whole, Trust::Suspect) => Repair::Give,
        (Trust::Suspect, Trust::Whole) => Repair::Take,
        (Trust::Suspect, Trust::Suspect) if mine.1 == theirs.1 && me == Member::First => Repair::Give,
        (Trust::Suspect, Trust::Suspect) if mine.1 > theirs.1 => Repair::Give,
        (Trust::Suspect, Trust::Suspect) => Repair::Take,
    }
}

impl Replica {
    pub(super) fn on_hello(&mut self, hello: Hello) {
        if hello.protocol != PROTOCOL {
            return self.disconnect("the peer speaks another version of the protocol");
        }
        if Some(hello.member) != self.me.peer() {
            return self.disconnect("the peer is not who it should be");
        }
        self.learn(hello.highest.max(hello.head.term));
        let mine = (self.copy.trust, self.copy.head());
        let repair = decide(self.me, mine, (hello.trust, hello.head));
        let Some(peer) = &mut self.peer else { return };
        if peer.hello.is_some() {
            return self.disconnect("the peer said hello twice");
        }
        peer.hello = Some(hello);
        peer.repair = repair;
        match (repair, self.copy.trust) {
            (Repair::Give, Trust::Whole) => self.send_copy(None),
            (Repair::Give, Trust::Suspect) => self.persist(Copy::trusted(), Then::Give),
            (Repair::Take | Repair::Over, Trust::Whole | Trust::Suspect) => {}
        }
    }

    pub(super) fn on_copy_begin(&mut self, term: Option<Term>, head: Version) {
        let Some(peer) = &mut self.peer else { return };
        let expected = match (term, &peer.following) {
            (None, _) => peer.repair == Repair::Take,
            (Some(term), Some(following)) => following.term == term && following.is_asked(),
            // Of an owner that we have deposed meanwhile.
            (Some(_), None) => return,
        };
        if !expected || peer.taking.is_some() {
            return self.disconnect("the peer sent a copy out of order");
        }
        peer.taking = Some(Taking { term, head, items: Vec::new(), bytes: 0 });
    }

    pub(super) fn on_copy_part(&mut self, items: Vec<(String, Item)>) {
        let Some(taking) = self.peer.as_mut().and_then(|peer| peer.taking.as_mut()) else { return };
        taking.bytes += items.iter().map(|(key, item)| key.len() + item.value.len()).sum::<usize>();
        taking.items.extend(items);
        if taking.bytes > 2 * STATE_BYTES_MAX || taking.items.len() > 2 * STATE_KEYS_MAX {
            self.disconnect("the peer's copy is larger than a state may be");
        }
    }

    /// The whole copy takes the place of ours, in one commit.
    pub(super) fn on_copy_end(&mut self, now: Now, keys: u32) {
        let Some(Taking { term, head, items, .. }) = self.peer.as_mut().and_then(|peer| peer.taking.take()) else {
            return;
        };
        if term.is_some_and(|term| self.is_below(term)) {
            return self.send(Message::Refuse { highest: self.highest });
        }
        let sorted = items.is_sorted_by(|(a, _), (b, _)| a < b);
        if items.len() != keys as usize || !sorted || items.iter().any(|(_, item)| item.version > head) {
            return self.disconnect("the peer's copy is not whole");
        }
        self.out.push(Action::Event(Event::CopyTaken { head, keys: items.len() }));
        match term {
            Some(term) => self.persist(self.copy.replace(head, items, Vec::new()), Then::InStep { term }),
            None => {
                let lost = self.lost(now, &items);
                self.persist(self.copy.replace(head, items, lost), Then::Repaired { head });
            }
        }
    }

    /// What a suspect copy wrote alone is not offered: nobody knows what it was based on. Its transitions go on as
    /// they are, and each other key is told of in the history.
    fn lost(&self, now: Now, items: &[(String, Item)]) -> Vec<(String, HistoryEntry)> {
        let content = &self.copy.content;
        let room = HISTORY_MAX.saturating_sub(content.outbox.len());
        let term = self.copy.head().term;
        let tell = |(number, key): (usize, &String)| {
            let mine = content.get(key);
            let theirs = items.binary_search_by(|(other, _)| other.cmp(key)).ok().map(|at| &items[at].1.value);
            if theirs.is_some() && (key.starts_with(HISTORY) || theirs == mine.map(|item| &item.value)) {
                return None;
            }
            if key.starts_with(HISTORY) {
                return mine.and_then(|item| Some((key.clone(), postcard::from_bytes(&item.value).ok()?)));
            }
            let text = format!("{key} was written alone, before this node's state went back in time");
            let entry = self.refusal(now, term, text);
            Some((entry.key(&format!("l{number}")), entry))
        };
        self.copy.dirty.keys().enumerate().filter_map(tell).take(room).collect()
    }

    /// Our copy is whole: whoever leads may go on.
    pub(super) fn repaired(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.repair = Repair::Over;
        }
        self.record_after = Instant::ZERO;
        self.begin_offers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_agree_on_who_gives() {
        let at = |n| Version { term: Term(n), counter: 1 };
        let trusts = [Trust::Whole, Trust::Suspect];
        let heads = [Version::ZERO, at(1), at(2)];
        for a in trusts.iter().flat_map(|t| heads.map(|h| (*t, h))) {
            for b in trusts.iter().flat_map(|t| heads.map(|h| (*t, h))) {
                let (first, second) = (decide(Member::First, a, b), decide(Member::Second, b, a));
                let opposite = match first {
                    Repair::Over => Repair::Over,
                    Repair::Give => Repair::Take,
                    Repair::Take => Repair::Give,
                };
                assert_eq!(second, opposite, "{a:?} {b:?}");
                if first == Repair::Give {
                    assert!(a.0 == Trust::Whole || b.0 == Trust::Suspect);
                }
            }
        }
    }
}
