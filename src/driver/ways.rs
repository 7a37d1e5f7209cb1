//! What each way to another member carries, in both directions, and what is said of it. Pure.
//!
//! A way is a link to the peer, or an address of the witness. Whoever talks by several ways says the same on each, so
//! what came by one and not by another shows what is wrong with the other: a way is lost when the other side was heard
//! often and long enough without it. No clock is asked whether something is late, so that a process which did not run
//! for a while has nothing to say about ways. What the other side hears of us it tells itself, by whatever way works.
//!
//! Rule: a way is told of once when it is lost, and once when it has carried for a while again; the while grows as long
//! as it flaps.
//!
//! Not here: who is believed, sockets (`links`). Nothing is decided by what is known here: every datagram goes every way.

use crate::{
    cluster::{Incarnation, LinkSet, Member},
    limits::{LINK_CALM, LINK_MISSES, LINK_PATIENCE_MIN, LINK_REST_MAX, LINK_REST_MIN},
    time::{Duration, Instant},
};

/// Which way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the other member to here.
    From,
    /// From here to the other member.
    To,
}

/// What is known of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carries {
    /// Nobody has told yet, or nobody tells any more.
    #[default]
    Unknown,
    /// What is said arrives.
    Yes,
    /// Nothing arrives, while the other side is heard.
    No,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It carries nothing any more, or never did.
    Lost {
        /// It has carried something before.
        carried: bool,
    },
    /// It has carried for a while again.
    Back {
        /// Since it was told to be lost.
        after: Duration,
        /// So often it was lost in that time.
        losses: u32,
    },
}

/// What has changed, on which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayEvent {
    /// To whom.
    pub member: Member,
    /// Which way, counted from 0.
    pub way: usize,
    /// Which way round.
    pub direction: Direction,
    /// What.
    pub change: Change,
}

/// One direction of one way, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionView {
    /// What it does.
    pub carries: Carries,
    /// When it last carried something.
    pub carried_at: Option<Instant>,
    /// How often it was lost since the start.
    pub losses: u32,
    /// It was lost, and has not carried for long enough to be trusted again.
    pub unsteady: bool,
}

/// One way, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WayView {
    /// From the other member.
    pub from: DirectionView,
    /// To it.
    pub to: DirectionView,
}

/// What a datagram says about the ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    /// When it was received.
    pub(super) at: Instant,
    /// By which way.
    pub(super) by: usize,
    /// Of which life.
    pub(super) life: Incarnation,
    /// Its number in that life.
    pub(super) counter: u64,
    /// On which ways its sender hears us; `None` if it does not tell.
    pub(super) heard: Option<LinkSet>,
}

/// All ways to one member.
#[derive(Debug)]
pub(super) struct Ways {
    member: Member,
    patience: Duration,
    ways: Vec<Way>,
    /// The newest datagram on any way, and when one was last received.
    newest: Option<(Incarnation, u64)>,
    heard_at: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Way {
    newest: Option<(Incarnation, u64)>,
    from: OneWay,
    to: OneWay,
}

impl Ways {
    /// So many ways, of which nothing is known yet.
    pub(super) fn new(member: Member, count: usize, lease: Duration) -> Self {
        let patience = lease.max(LINK_PATIENCE_MIN);
        Self { member, patience, ways: vec![Way::default(); count], newest: None, heard_at: None }
    }

    /// Takes note of an authentic datagram; what has changed. A copy of one that came by another way counts, one that
    /// was recorded earlier and played again on the same way does not.
    pub(super) fn arrived(&mut self, arrived: Arrived) -> Vec<WayEvent> {
        let Arrived { at, by, life, counter, heard } = arrived;
        let is_after = |last: Option<(Incarnation, u64)>| last.is_none_or(|(of, n)| of != life || counter > n);
        let mut changes = Vec::new();
        if let Some(way) = self.ways.get_mut(by).filter(|way| is_after(way.newest)) {
            way.newest = Some((life, counter));
            self.heard_at = Some(at);
            changes.extend(way.from.carried(at).map(|change| (by, Direction::From, change)));
        }
        if !is_after(self.newest) {
            return self.events(changes);
        }
        self.newest = Some((life, counter));
        for (number, way) in self.ways.iter_mut().enumerate() {
            if number != by {
                let change = way.from.missed(at, self.patience);
                changes.extend(change.map(|change| (number, Direction::From, change)));
            }
            let change = match heard {
                Some(heard) if heard.contains(number) => way.to.carried(at),
                Some(_) => way.to.missed(at, self.patience),
                None => None,
            };
            changes.extend(change.map(|change| (number, Direction::To, change)));
        }
        self.events(changes)
    }

    fn events(&self, changes: Vec<(usize, Direction, Change)>) -> Vec<WayEvent> {
        let member = self.member;
        let event = |(way, direction, change)| WayEvent { member, way, direction, change };
        changes.into_iter().map(event).collect()
    }

    /// The ways on which the other member was lately heard: what it is told.
    pub(super) fn heard(&self, now: Instant) -> LinkSet {
        let lately = |way: &Way| way.from.carried_at.is_some_and(|at| now.since(at) < self.patience);
        self.ways.iter().enumerate().filter(|(_, way)| lately(way)).map(|(number, _)| number).collect()
    }

    /// The other member was lately heard, by any way.
    pub(super) fn is_heard(&self, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now.since(at) < self.patience)
    }

    /// For people. While the other side is not heard at all, nothing is known of its ways.
    pub(super) fn views(&self, now: Instant) -> Vec<WayView> {
        let known = self.is_heard(now);
        self.ways.iter().map(|way| WayView { from: way.from.view(known), to: way.to.view(known) }).collect()
    }
}

/// One direction of one way.
#[derive(Debug, Clone, Default)]
struct OneWay {
    carries: Carries,
    carried_at: Option<Instant>,
    /// When the other side was first heard without it, and how often since.
    missing_since: Option<Instant>,
    missed: u32,
    losses: u32,
    /// It carries without a loss since then.
    steady_since: Option<Instant>,
    told_lost: Option<ToldLost>,
    told_back_at: Option<Instant>,
    rest: Duration,
}

#[derive(Debug, Clone, Copy)]
struct ToldLost {
    at: Instant,
    losses_before: u32,
}

impl OneWay {
    fn carried(&mut self, now: Instant) -> Option<Change> {
        (self.missed, self.missing_since) = (0, None);
        self.carried_at = Some(now);
        if self.carries != Carries::Yes {
            self.carries = Carries::Yes;
            self.steady_since = Some(now);
        }
        let steady = self.steady_since.is_some_and(|since| now.since(since) >= self.rest);
        let told = self.told_lost.take_if(|_| steady)?;
        self.told_back_at = Some(now);
        Some(Change::Back { after: now.since(told.at), losses: self.losses - told.losses_before })
    }

    fn missed(&mut self, now: Instant, patience: Duration) -> Option<Change> {
        if self.carries == Carries::No {
            return None;
        }
        self.missed = self.missed.saturating_add(1);
        let since = *self.missing_since.get_or_insert(now);
        if self.missed < LINK_MISSES || now.since(since) < patience {
            return None;
        }
        let carried = std::mem::replace(&mut self.carries, Carries::No) == Carries::Yes;
        self.steady_since = None;
        let losses_before = self.losses;
        self.losses = self.losses.saturating_add(1);
        if self.told_lost.is_some() {
            return None;
        }
        self.told_lost = Some(ToldLost { at: now, losses_before });
        let calm = self.told_back_at.is_none_or(|at| now.since(at) >= LINK_CALM);
        self.rest = if calm { LINK_REST_MIN } else { (self.rest * 2).min(LINK_REST_MAX) };
        Some(Change::Lost { carried })
    }

    fn view(&self, known: bool) -> DirectionView {
        DirectionView {
            carries: if known { self.carries } else { Carries::Unknown },
            carried_at: self.carried_at,
            losses: self.losses,
            unsteady: known && self.carries == Carries::Yes && self.told_lost.is_some(),
        }
    }
}

#[cfg(test)]
#[path = "ways_tests.rs"]
mod tests;
