//! Model check of the vote and the lease: the real engines of two nodes and the witness (`hawser::cluster::Engine` and
//! `Witness`, with voter and desk inside), and every order of what can happen to them within small bounds
//! (`stateright`, breadth first, one thread: each state that can be reached in so many steps is looked at).
//!
//! # What happens
//! - **Datagrams** that are under way arrive in any order, later, or never. When time takes a step, any choice of at
//!   most `late` of them stays under way, for ever if need be; the rest is lost.
//! - **Time** goes in steps that may come at any moment, also before anything has arrived. Leases of two steps, promises
//!   of three, candidacies of two. Each machine has its own clock; in the model named for it the owner's is 4 % slow and
//!   the voters' 4 % fast. A frozen worker does not run for a step.
//! - **Disks** write at once or, where the model says so, at any time later. A machine that dies loses what is not written;
//!   a worker that is started again has its memory, or (wiped) has none.
//! - **The kernel** of a node keeps address and gate, whoever is dead or frozen, until one guard before the lease's end, or
//!   until the keeper of the addresses has taken them away, which may be at any moment after the engine said so.
//! - **A planned move** at any moment: offer, own vote, vote of the owner, addresses gone, grant and release in one.
//!
//! # What is looked at, in every state
//! - At most one node answers: its gate is open, its worker alive, dead or frozen.
//! - No voter's terms go back, neither in one life nor over a death that keeps the disk; a vote that was told is on the
//!   disk; no term has two owners.
//! - From here the cluster comes back by itself: when all goes well again, one node answers before long. (This one costs
//!   much and is tried on one state of 64, the same ones in each run.)
//! - And the walks lead somewhere: the second node comes to answer, and a crash, a freeze, a move is survived.
//!
//! # What the abstraction leaves out
//! - A state is told from the present moment (`hawser::cluster::normal`): instants and the numbers of datagrams count from
//!   now, and what cannot matter any more is taken out. That joins only states with the same future, but for this: jitter
//!   is the same in each collision, nodes stay fit, nobody is stopped or put in standby.
//! - All happens at the steps of time. The order of guard, lease and promise is kept; what lies between two steps is not
//!   looked at: most of what is a little too short, or counts from a little too late, is for the simulator.
//! - A pre-vote and its answer arrive at once or never: they bind nobody. Heartbeats that claim nothing and release nothing
//!   are not carried: they tell only what planned moves look at, and that is known at the beginning.
//! - Sessions: each sender knows which life it speaks to. No crash notices, one group, one configuration.
//!
//! # How far it goes
//! From each beginning (a cold start, a steady owner, an owner that was cut off from one of the others) every walk of 6 to
//! 14 steps, by model, in terms up to 4: far enough for one change of owner, not for every history. `--nocapture` shows
//! the figures.
//! `HAWSER_MODEL_DEPTH=2` goes two steps deeper in each model: three to four times as many states for each step.
//! `--features planted` plants known faults, and shows the walk that leads to where each breaks a promise.

#![expect(clippy::print_stdout, reason = "figures and counterexamples are for people")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use hawser::cluster::{Member, Timing};
use hawser::time::Duration;
use state::{Spent, State};
use stateright::{Checker, HasDiscoveries, Model, Path};
use std::collections::BTreeMap;
use world::{Bounds, MOVES, NEVER_TWO, RECOVERS, SPENT, Start, Step, TERMS};

#[cfg(feature = "planted")]
mod planted;
mod state;
mod world;

/// The fault that the engines of a model have, if any.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plant(pub(crate) Option<hawser::cluster::planted::Planted>);
/// The fault that the engines of a model have: none can be planted.
#[cfg(not(feature = "planted"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plant;

impl Plant {
    #[cfg(feature = "planted")]
    const NONE: Self = Self(None);
    #[cfg(not(feature = "planted"))]
    const NONE: Self = Self;

    /// Plants it into this thread: the checker has threads of its own.
    pub(crate) fn sow(self) {
        #[cfg(feature = "planted")]
        hawser::cluster::planted::plant(self.0);
    }
}

fn model(name: &'static str, start: Start, late: usize, depth: usize) -> Bounds {
    Bounds {
        name,
        depth,
        timing: Timing::new(Duration::from_millis(100), Duration::from_millis(40)),
        tick: [Duration::from_millis(50); 3],
        late,
        most: Spent::default(),
        term_max: 4,
        slow_disks: false,
        mortal: Vec::new(),
        start,
        recovery_every: 64,
        plant: Plant::NONE,
    }
}

const PEER_CUT: Start = Start::Cut(Member::First, Member::Second);
const WITNESS_CUT: Start = Start::Cut(Member::First, Member::Witness);

/// Nothing but the network.
pub(crate) fn losses() -> Vec<Bounds> {
    vec![
        model("cold start", Start::Cold, 1, 11),
        model("cold start, nothing late", Start::Cold, 0, 14),
        model("losses", Start::Steady, 1, 6),
        model("the nodes were cut off from each other", PEER_CUT, 1, 6),
        model("the owner was cut off from the witness", WITNESS_CUT, 1, 6),
        Bounds { slow_disks: true, ..model("slow disks", Start::Cold, 0, 13) },
        Bounds {
            timing: Timing::new(Duration::from_millis(500), Duration::from_millis(90)),
            tick: [96, 104, 104].map(Duration::from_millis),
            ..model("a slow owner and fast voters", PEER_CUT, 0, 9)
        },
    ]
}

fn dies(who: Member, mut bounds: Bounds) -> Bounds {
    (bounds.most.crashes, bounds.mortal) = (1, vec![who]);
    bounds
}

/// Somebody dies, and may come to life again.
pub(crate) fn deaths() -> Vec<Bounds> {
    vec![
        dies(Member::First, model("the owner dies", Start::Steady, 0, 8)),
        dies(Member::Second, model("the peer dies, and is all that the owner has", WITNESS_CUT, 0, 8)),
        dies(Member::Witness, model("the witness dies, and is all that the owner has", PEER_CUT, 0, 8)),
    ]
}

/// Somebody forgets: a vote that is not on the disk yet, all that was on it, or the time.
pub(crate) fn lapses() -> Vec<Bounds> {
    let none = Spent::default();
    vec![
        dies(Member::Witness, model("the witness dies as a cluster starts", Start::Cold, 0, 12)),
        Bounds {
            slow_disks: true,
            ..dies(Member::Witness, model("the witness dies before its disk has it", Start::Cold, 0, 12))
        },
        Bounds {
            most: Spent { crashes: 1, wipes: 1, ..none },
            ..dies(Member::Witness, model("the witness loses its disk", PEER_CUT, 0, 8))
        },
        Bounds { most: Spent { freezes: 3, ..none }, ..model("the owner freezes", PEER_CUT, 0, 8) },
    ]
}

/// Planned moves.
pub(crate) fn moves() -> Vec<Bounds> {
    let most = Spent { moves: 1, ..Spent::default() };
    vec![
        Bounds { most, ..model("a planned move", Start::Steady, 0, 8) },
        Bounds { most, ..model("a planned move, one datagram late", Start::Steady, 1, 6) },
        Bounds { most, slow_disks: true, ..model("a planned move, slow disks", Start::Steady, 0, 8) },
    ]
}

/// What a check came to.
pub(crate) struct Outcome {
    pub(crate) found: BTreeMap<&'static str, Path<State, Step>>,
}

impl Outcome {
    /// The first promise that was broken, and the steps that lead there.
    pub(crate) fn broken(&self) -> Option<(&'static str, Vec<Step>)> {
        let name = [NEVER_TWO, TERMS, RECOVERS].into_iter().find(|name| self.found.contains_key(name))?;
        Some((name, self.found[name].clone().into_actions()))
    }
}

/// How many steps deeper to go than by default.
fn deeper() -> usize {
    std::env::var("HAWSER_MODEL_DEPTH").map_or(0, |text| text.parse().unwrap())
}

/// Looks at every state within the bounds, or up to the first that breaks a promise.
pub(crate) fn check(mut bounds: Bounds) -> Outcome {
    bounds.depth += deeper();
    let name = bounds.name;
    let started = std::time::Instant::now();
    let depth = bounds.depth;
    // The checker counts states on a walk, and does not look at the last.
    let done = bounds.checker().target_max_depth(depth + 2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, all, seconds) = (done.unique_state_count(), done.state_count(), started.elapsed().as_secs_f64());
    let found: BTreeMap<_, _> = done.discoveries().into_iter().collect();
    println!("{name}: {unique} unique states, {all} in all, {depth} steps deep, {seconds:.1} s");
    Outcome { found }
}

fn check_all(models: Vec<Bounds>) {
    for bounds in models {
        let name = bounds.name;
        let outcome = check(bounds);
        let broken = outcome.broken();
        assert!(broken.is_none(), "{name}: {broken:#?}");
        for needed in [MOVES, SPENT] {
            assert!(outcome.found.contains_key(needed), "{name} is too small: it never comes to {needed:?}");
        }
    }
}

#[test]
fn whatever_is_lost_or_late_at_most_one_node_answers() {
    check_all(losses());
    if deeper() > 0 {
        check_all(vec![model("losses, two datagrams late", Start::Steady, 2, 5)]);
    }
}

#[test]
fn after_a_death_at_most_one_node_answers() {
    check_all(deaths());
}

#[test]
fn whoever_forgets_or_freezes_at_most_one_node_answers() {
    check_all(lapses());
}

#[test]
fn a_planned_move_overlaps_nowhere() {
    check_all(moves());
}
