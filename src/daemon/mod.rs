//! Builds everything, owns the tasks, ends them in order.
//!
//! Order of the start: lock and memory, links and listeners bound (a fault here is an error with nothing done), the
//! supervisor told, left-over addresses removed, and only then the engine. Order of the end: groups handed over or let
//! go of, addresses read back as gone, state closed, requests ended.
//!
//! Not here: what any of the parts does.

mod claims;
mod desk;
mod fitness;
mod memory;
mod notes;
mod signals;
mod third;
mod tiebreak;
mod voters;
mod ways;
mod witness;
mod worker;

pub use witness::witness;
pub use worker::worker;

use std::{fmt, process::ExitCode};

/// Why a daemon did not start, or did not go on.
#[derive(Debug)]
pub struct Failure {
    /// What could not be done, to what, and why.
    pub why: String,
    /// The exit code: 78 if starting again cannot help before somebody changes something.
    pub code: u8,
}

impl Failure {
    /// Starting again may help.
    fn passing(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), code: 1 }
    }

    /// Somebody has to change something first.
    fn lasting(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), code: 78 }
    }

    /// Says it in the log; the exit code.
    fn tell(&self) -> ExitCode {
        tracing::error!("{}", self.why);
        ExitCode::from(self.code)
    }
}

/// Half a node is worse than none: a panic ends the process, everywhere but in the store's guarded open.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !crate::store::keyspace::in_guarded_open() {
            std::process::abort();
        }
    }));
}

/// Tells systemd, if it listens.
fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
