//! The real engines of both nodes and the witness, and the real cores of their supervisors, in virtual time: seeded
//! faults, effects that outlive a frozen process, and one invariant after every step: at most one node answers for an
//! address.
//!
//! `HAWSER_SEEDS=20000` runs more seeds (`HAWSER_SEEDS_FROM=20000` others), `HAWSER_SEED=17` one, with its trace.
//! `--features planted` plants known faults and shows that each is found.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod arbiters;
mod changes;
mod faults;
mod kernel;
#[cfg(feature = "planted")]
mod planted;
mod rules;
mod scenarios;
mod seeds;
mod traces;
mod world;
