//! The same state, told from another moment: a model checker needs states that can be alike.
//!
//! Instants are moved back by the time that has passed, numbers of datagrams by those that are forgotten, and what can
//! have no effect any more is taken out, so that two histories which leave the same future leave the same state.
//!
//! Holds for nodes that stay fit and are not stopped: what only those look at ([`crate::cluster::Command::Stop`], how
//! long a group was vacant, who wants it) is taken out, too.

use super::desk::{Desk, Purpose, Write};
use super::message::{Request, Seq};
use super::name::Member;
use super::voter::Identity;
use super::witness::Witness;
use crate::time::{Duration, Instant};

/// How far to move a state.
#[derive(Debug, Clone, Copy)]
pub struct Shift {
    /// What this machine's clock reads afterwards.
    pub now: Instant,
    /// How far its instants move back.
    pub back: Duration,
    /// How far the numbers of each member's datagrams move back.
    pub seqs: [Seq; 3],
    /// A planned move may begin yet: who is heard, and what he said, is looked at.
    pub may_move: bool,
}

impl Shift {
    /// An instant.
    #[must_use]
    pub fn at(&self, at: Instant) -> Instant {
        if at == Instant::NEVER { at } else { at - self.back }
    }

    /// An instant that matters only while it lies ahead.
    #[must_use]
    pub fn ahead(&self, at: Instant) -> Instant {
        let at = self.at(at);
        if at > self.now { at } else { Instant::ZERO }
    }

    /// The number of a datagram.
    #[must_use]
    pub const fn seq(&self, of: Member, seq: Seq) -> Seq {
        seq.saturating_sub(self.seqs[of.index()])
    }

    pub(super) fn request(&self, from: Identity, request: &mut Request) {
        request.seq = self.seq(from.member, request.seq);
    }
}

impl Desk {
    pub(super) fn shift(&mut self, shift: &Shift) {
        self.voter.shift(shift);
        if let Some(Write { purpose: Purpose::Grant(from, request), .. }) = self.writing_mut() {
            shift.request(*from, request);
        }
        self.forget_paper();
    }
}

impl Witness {
    /// Moves the state: see [`crate::cluster::normal`].
    pub fn shift(&mut self, shift: &Shift) {
        self.desk_mut().shift(shift);
    }
}
