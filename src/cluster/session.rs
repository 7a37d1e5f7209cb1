//! Which life of each member is believed, and which datagrams count.
//!
//! An incarnation is believed only after it has echoed ours, so that nothing recorded from an earlier life of anybody
//! has an effect. A life that was replaced never comes back.

use super::name::{Incarnation, Member};
use super::replay::ReplayWindow;
use std::collections::{BTreeMap, VecDeque};

/// Lives of one member that are over and are remembered as such.
const PAST_MAX: usize = 1024;

/// The sessions of one member with the others.
#[derive(Debug, Clone)]
pub struct Sessions {
    me: Incarnation,
    others: BTreeMap<Member, Session>,
}

#[derive(Debug, Clone, Default)]
struct Session {
    believed: Option<Incarnation>,
    window: ReplayWindow,
    past: VecDeque<Incarnation>,
}

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand its message to the engine. `new`: the first of this life.
    Deliver {
        /// The first of this life.
        new: bool,
    },
    /// It does not know our life yet: answer with a Hello that echoes its own, so that it can prove itself. Nothing is
    /// believed of it before, and what is believed of another life stays.
    Greet,
    /// Seen before, too old, or of a life that is over.
    Drop,
}

impl Sessions {
    /// Sessions of this life of ours.
    #[must_use]
    pub const fn new(me: Incarnation) -> Self {
        Self { me, others: BTreeMap::new() }
    }

    /// A datagram that was authentic: which life of whom, its counter, and the life of ours that it echoes.
    pub fn accept(&mut self, from: Member, life: Incarnation, counter: u64, echo: Option<Incarnation>) -> Verdict {
        let session = self.others.entry(from).or_default();
        if session.past.contains(&life) {
            return Verdict::Drop;
        }
        if session.believed == Some(life) {
            if !session.window.accept(counter) {
                return Verdict::Drop;
            }
            return if echo == Some(self.me) || planted!(OldAcksCount) {
                Verdict::Deliver { new: false }
            } else {
                Verdict::Greet
            };
        }
        if echo != Some(self.me) {
            return Verdict::Greet;
        }
        if let Some(old) = session.believed.replace(life) {
            if session.past.len() == PAST_MAX {
                session.past.pop_front();
            }
            session.past.push_back(old);
        }
        session.window = ReplayWindow::default();
        session.window.accept(counter);
        Verdict::Deliver { new: true }
    }

    /// The life that is believed: what is echoed to it.
    #[must_use]
    pub fn believed(&self, of: Member) -> Option<Incarnation> {
        self.others.get(&of).and_then(|s| s.believed)
    }
}
