//! Ctrl-C, and waiting that ends with it.

use super::error::{Attempt, Error, Result};
use crate::clock;
use crate::time::Duration;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;

/// How soon a request to end is noticed.
const LOOK: Duration = Duration::from_millis(20);
/// Exit status of a program that a second Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether somebody asked the demo to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens to the terminal and to `kill`. A second request ends the program at once.
    ///
    /// # Errors
    /// If the signals cannot be had.
    pub fn install() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&asked))
                .or_cannot("listen to signals")?;
            flag::register(signal, Arc::clone(&asked)).or_cannot("listen to signals")?;
        }
        Ok(Self { asked })
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits.
    ///
    /// # Errors
    /// If the demo is asked to end meanwhile.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let end = clock::now() + time;
        loop {
            if self.is_asked() {
                return Err(Error::interrupted());
            }
            let left = clock::now().until(end);
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK));
        }
    }

    /// Waits until `done` says so, which is asked every few milliseconds; gives back whether it did within `at_most`.
    ///
    /// # Errors
    /// If the demo is asked to end meanwhile.
    pub fn wait_until(&self, at_most: Duration, mut done: impl FnMut() -> bool) -> Result<bool> {
        let end = clock::now() + at_most;
        while !done() {
            if clock::now() >= end {
                return Ok(false);
            }
            self.wait(LOOK)?;
        }
        Ok(true)
    }
}
