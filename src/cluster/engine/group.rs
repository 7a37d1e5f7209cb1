//! What this node is to one group.

use super::GroupSetup;
use crate::cluster::event::Cause;
use crate::cluster::input::CommandId;
use crate::cluster::intent::Intent;
use crate::cluster::message::{Request, Seq};
use crate::cluster::name::{AddressMark, GroupName, Incarnation, Member, Term};
use crate::cluster::voter::Identity;
use crate::time::Instant;

/// One group, as its node sees it.
#[derive(Debug, Clone, Hash)]
pub(super) struct Group {
    pub(super) name: GroupName,
    pub(super) prefer: Member,
    pub(super) addresses: Vec<AddressMark>,
    pub(super) role: Role,
    /// The addresses were read back as gone since this node last owned the group.
    pub(super) clear: bool,
    /// The last term that this life gave up, addresses gone.
    pub(super) released: Option<Term>,
    /// The term in which it was last handed over to the peer, and when.
    pub(super) handed_over: Option<(Term, Instant)>,
    /// A term that was lost and is not released yet.
    pub(super) owed: Option<Term>,
    /// No campaign before this.
    pub(super) not_before: Instant,
    /// Candidacies in vain since anybody was known to hold it.
    pub(super) failures: u32,
    /// Since when nothing stands in the way of a campaign.
    pub(super) free_since: Option<Instant>,
    /// When the group was last known to be held by anybody.
    pub(super) held_at: Instant,
    /// When the peer last claimed it.
    pub(super) claimed_at: Option<Instant>,
    /// Why it is free, once it is.
    pub(super) why_free: Cause,
}

impl Group {
    pub(super) fn new(setup: &GroupSetup, now: Instant) -> Self {
        Self {
            name: setup.name,
            prefer: setup.prefer,
            addresses: setup.addresses.clone(),
            role: Role::Standby,
            clear: false,
            released: None,
            handed_over: None,
            owed: None,
            not_before: Instant::ZERO,
            failures: 0,
            free_since: None,
            held_at: now,
            claimed_at: None,
            why_free: Cause::Vacant,
        }
    }
}

#[derive(Debug, Clone, Hash)]
pub(super) enum Role {
    /// Not the owner, and not about to be.
    Standby,
    /// Asks how a vote would go.
    PreVote(PreVote),
    /// Asks for votes.
    Candidate(Candidate),
    /// Was offered the group, and asks its owner only.
    Taking(Taking),
    /// Owns it.
    Owner(Box<Owner>),
}

#[derive(Debug, Clone, Hash)]
pub(super) struct PreVote {
    pub(super) term: Term,
    pub(super) first_seq: Seq,
    pub(super) next: Instant,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Candidate {
    pub(super) term: Term,
    pub(super) until: Instant,
    /// Our own vote is on disk: from this number on, requests count.
    pub(super) asking: Option<Seq>,
    pub(super) next: Instant,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Taking {
    pub(super) term: Term,
    /// Who offered it, and in which term it owns the group.
    pub(super) owner: Incarnation,
    pub(super) owner_term: Term,
    pub(super) asking: Option<Seq>,
    pub(super) next: Instant,
    pub(super) offered_at: Instant,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Owner {
    pub(super) term: Term,
    /// E.
    pub(super) end: Instant,
    pub(super) since: Instant,
    pub(super) cause: Cause,
    /// The witness has confirmed this term.
    pub(super) witnessed: bool,
    pub(super) leaving: Option<HandOver>,
}

/// A move to the peer.
#[derive(Debug, Clone, Hash)]
pub(super) struct HandOver {
    pub(super) cause: Cause,
    pub(super) answer: Option<CommandId>,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Hash)]
pub(super) enum Stage {
    /// Requests that began before may end.
    Draining { until: Instant },
    /// The peer is asked to ask.
    Offering { next: Instant, until: Instant },
    /// Our vote for the peer is being written.
    Writing { to: Identity, request: Box<Request>, next: Instant },
    /// New connections wait, the others end; then the addresses go.
    Leaving { to: Identity, request: Box<Request>, next: Instant },
}

impl Role {
    pub(super) fn intent(&self) -> Intent {
        match self {
            Self::Standby | Self::PreVote(_) | Self::Candidate(_) | Self::Taking(_) => Intent::Released,
            Self::Owner(owner) => match owner.leaving.as_ref().map(|h| &h.stage) {
                Some(Stage::Leaving { .. }) => Intent::Leaving { term: owner.term, until: owner.end },
                Some(Stage::Draining { .. } | Stage::Offering { .. } | Stage::Writing { .. }) | None => {
                    Intent::Held { term: owner.term, until: owner.end }
                }
            },
        }
    }
}
