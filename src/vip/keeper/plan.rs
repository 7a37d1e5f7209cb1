//! What to do next for one group: what is wanted against what is so. Pure.
//!
//! The rule it keeps: the worker lets go three guards before the lease ends, by itself, so that the supervisor (two) and
//! the gate (one) have nothing left to do.

use crate::{
    cluster::Intent,
    limits::{GUARD, SQUEEZE_MAX},
    time::Instant,
};

/// What is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is held.
    Gone,
    /// The supervisor knows; the addresses were asked for, and may be in place; the gate is shut.
    Adding {
        /// The lease's end that the supervisor knows.
        until: Instant,
        /// All of them are in place.
        placed: bool,
    },
    /// The addresses are in place, the gate is open.
    Open {
        /// The lease's end to which it was last renewed.
        until: Instant,
    },
    /// The same, but new connections are held off while the others end.
    Leaving {
        /// The lease's end to which it was last renewed.
        until: Instant,
        /// When that began.
        since: Instant,
        /// When the connections are looked at again.
        look_at: Instant,
    },
    /// The gate is shut, the addresses are not yet known to be gone.
    Removing,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// Tell the supervisor, ask for the addresses.
    Acquire(Instant),
    /// Open the gate.
    Open(Instant),
    /// The lease's end has moved: tell the supervisor and the gate.
    Renew(Instant),
    /// Hold new connections off.
    Squeeze,
    /// Let them in again.
    EndSqueeze,
    /// See whether the connections have come to rest.
    Look,
    /// Shut the gate, destroy the sockets, ask for the addresses to go.
    LetGo,
}

/// When the worker lets go of what is held by a lease that ends at `until`.
pub(super) fn let_go_at(until: Instant) -> Instant {
    until - 3 * GUARD
}

/// What to do now.
pub(super) fn decide(phase: Phase, intent: Intent, now: Instant) -> Step {
    let is_over = |until: Instant| now >= let_go_at(until);
    match (phase, intent) {
        (Phase::Gone, Intent::Held { until, .. }) if !is_over(until) => Step::Acquire(until),
        (Phase::Gone | Phase::Removing, _) => Step::Nothing,
        (_, Intent::Released) => Step::LetGo,
        (_, Intent::Held { until, .. } | Intent::Leaving { until, .. }) if is_over(until) => Step::LetGo,
        (Phase::Adding { .. }, Intent::Leaving { .. }) => Step::LetGo,
        (
            Phase::Adding { until: known, .. } | Phase::Open { until: known } | Phase::Leaving { until: known, .. },
            Intent::Held { until, .. } | Intent::Leaving { until, .. },
        ) if until != known => Step::Renew(until),
        (Phase::Adding { until, placed: true }, Intent::Held { .. }) => Step::Open(until),
        (Phase::Adding { placed: false, .. }, Intent::Held { .. }) => Step::Nothing,
        (Phase::Open { .. }, Intent::Held { .. }) => Step::Nothing,
        (Phase::Open { .. }, Intent::Leaving { .. }) => Step::Squeeze,
        (Phase::Leaving { .. }, Intent::Held { .. }) => Step::EndSqueeze,
        (Phase::Leaving { since, .. }, Intent::Leaving { .. }) if now.since(since) >= SQUEEZE_MAX => Step::LetGo,
        (Phase::Leaving { look_at, .. }, Intent::Leaving { .. }) if now >= look_at => Step::Look,
        (Phase::Leaving { .. }, Intent::Leaving { .. }) => Step::Nothing,
    }
}

/// When to decide again, if nothing is heard before.
pub(super) fn next_wake(phase: Phase, intent: Intent) -> Instant {
    let end = match intent {
        Intent::Released => Instant::NEVER,
        Intent::Held { until, .. } | Intent::Leaving { until, .. } => let_go_at(until),
    };
    match phase {
        Phase::Gone | Phase::Removing => Instant::NEVER,
        Phase::Adding { .. } | Phase::Open { .. } => end,
        Phase::Leaving { since, look_at, .. } => end.min(look_at).min(since + SQUEEZE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Term;

    const TERM: Term = Term(7);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }
    fn held(until: u64) -> Intent {
        Intent::Held { term: TERM, until: at(until) }
    }
    fn adding(placed: bool) -> Phase {
        Phase::Adding { until: at(500), placed }
    }
    fn leaving(until: u64) -> Intent {
        Intent::Leaving { term: TERM, until: at(until) }
    }

    #[test]
    fn the_gate_is_opened_only_when_the_addresses_are_in_place() {
        assert_eq!(decide(Phase::Gone, held(500), at(0)), Step::Acquire(at(500)));
        assert_eq!(decide(adding(false), held(500), at(1)), Step::Nothing);
        assert_eq!(decide(adding(true), held(500), at(2)), Step::Open(at(500)));
    }

    #[test]
    fn a_lease_that_is_renewed_while_addresses_are_added_is_told_to_the_supervisor() {
        assert_eq!(decide(adding(false), held(550), at(1)), Step::Renew(at(550)));
    }

    #[test]
    fn the_worker_lets_go_three_guards_before_the_end_and_does_not_begin_then() {
        let open = Phase::Open { until: at(500) };
        assert_eq!(next_wake(open, held(500)), at(470));
        assert_eq!(decide(open, held(500), at(469)), Step::Nothing);
        for phase in [open, adding(false), adding(true)] {
            assert_eq!(decide(phase, held(500), at(470)), Step::LetGo);
        }
        assert_eq!(decide(Phase::Gone, held(500), at(470)), Step::Nothing);
        assert_eq!(decide(Phase::Gone, held(530), at(470)), Step::Acquire(at(530)));
    }

    #[test]
    fn a_lease_that_became_shorter_is_told_to_the_kernel_as_well() {
        assert_eq!(decide(Phase::Open { until: at(500) }, held(400), at(0)), Step::Renew(at(400)));
    }

    #[test]
    fn a_leaving_group_is_renewed_looked_at_and_let_go_after_the_longest_squeeze() {
        let phase = Phase::Leaving { until: at(500), since: at(100), look_at: at(101) };
        assert_eq!(decide(Phase::Open { until: at(500) }, leaving(500), at(100)), Step::Squeeze);
        assert_eq!(decide(phase, leaving(550), at(101)), Step::Renew(at(550)));
        assert_eq!(decide(phase, leaving(500), at(101)), Step::Look);
        assert_eq!(next_wake(phase, leaving(500)), at(101));
        assert_eq!(decide(phase, leaving(500), at(300)), Step::LetGo);
        assert_eq!(decide(phase, held(500), at(101)), Step::EndSqueeze);
    }

    #[test]
    fn while_addresses_go_nothing_else_is_begun() {
        for intent in [Intent::Released, held(9000), leaving(9000)] {
            assert_eq!(decide(Phase::Removing, intent, at(0)), Step::Nothing);
        }
    }
}
