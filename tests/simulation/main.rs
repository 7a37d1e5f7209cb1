//! The real engines of both nodes and the witness, and the real cores of their supervisors, in virtual time: seeded
//! faults, effects that outlive a frozen process, and one invariant after every step: at most one node answers for an
//! address.
//!
//! `HAWSER_SEEDS=20000` runs more seeds, `HAWSER_SEED=17` one, with its trace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod kernel;
#[cfg(feature = "planted")]
mod planted;
mod rules;
mod scenarios;
mod seeds;
mod traces;
#[expect(
    clippy::large_enum_variant,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    reason = "one table of happenings and faults reads better whole; three machines need no thrift"
)]
mod world;
