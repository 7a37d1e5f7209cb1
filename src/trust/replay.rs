//! The window that refuses a datagram that came before (RFC 4303 §3.4.3, appendix A2).
//!
//! Links repeat and reorder: a counter is accepted once, if it is at most [`REPLAY_WINDOW`] behind the highest one.
//! Pure: whoever owns a window feeds it only counters of datagrams whose seal was good.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits::REPLAY_WINDOW;

const WORD_BITS: u64 = u64::BITS as u64;
/// One word more than the window is wide, so that the word being filled never holds counters that still matter.
#[expect(clippy::cast_possible_truncation, reason = "17 fits")]
const WORDS: usize = (REPLAY_WINDOW / WORD_BITS + 1) as usize;

/// Which counters of one incarnation have been seen.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// Nothing below this was ever acceptable.
    first: u64,
    /// The highest counter accepted; meaningless until one was.
    highest: u64,
    /// Bit `c % (WORDS * 64)` is set when counter `c` was accepted.
    seen: [u64; WORDS],
}

/// Why a counter was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It was accepted before.
    Repeated,
    /// It is too far behind to tell.
    TooOld,
}

impl ReplayWindow {
    /// A window that accepts `first` and what comes after it, never anything before.
    #[must_use]
    pub const fn starting_at(first: u64) -> Self {
        Self { first, highest: first, seen: [0; WORDS] }
    }

    /// Accepts `counter`, once.
    ///
    /// # Errors
    /// If it was accepted before or is too old; nothing has changed then.
    pub fn accept(&mut self, counter: u64) -> Result<(), Stale> {
        if counter < self.first || self.highest.saturating_sub(counter) >= REPLAY_WINDOW {
            return Err(Stale::TooOld);
        }
        if counter > self.highest {
            self.forget_between(self.highest, counter);
            self.highest = counter;
        }
        let (word, bit) = place(counter);
        let Some(word) = self.seen.get_mut(word) else { return Err(Stale::TooOld) };
        if *word & bit != 0 {
            return Err(Stale::Repeated);
        }
        *word |= bit;
        Ok(())
    }

    /// Clears the words that the counters after `from`, up to `to`, are the first to use.
    fn forget_between(&mut self, from: u64, to: u64) {
        let words = (to / WORD_BITS - from / WORD_BITS).min(WORDS as u64);
        for step in 1..=words {
            let (word, _) = place((from / WORD_BITS + step) * WORD_BITS);
            if let Some(word) = self.seen.get_mut(word) {
                *word = 0;
            }
        }
    }
}

/// Where the bit of a counter is.
const fn place(counter: u64) -> (usize, u64) {
    (((counter / WORD_BITS) % WORDS as u64) as usize, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_counter_is_accepted_once() {
        let mut window = ReplayWindow::starting_at(1);
        assert_eq!(window.accept(1), Ok(()));
        assert_eq!(window.accept(1), Err(Stale::Repeated));
        assert_eq!(window.accept(3), Ok(()));
        assert_eq!(window.accept(2), Ok(()), "reordered, not repeated");
        assert_eq!(window.accept(2), Err(Stale::Repeated));
    }

    #[test]
    fn nothing_before_the_first_counter_is_accepted() {
        let mut window = ReplayWindow::starting_at(100);
        assert_eq!(window.accept(99), Err(Stale::TooOld));
        assert_eq!(window.accept(100), Ok(()));
    }

    #[test]
    fn the_window_is_exactly_as_wide_as_its_limit() {
        let mut window = ReplayWindow::starting_at(0);
        assert_eq!(window.accept(5000), Ok(()));
        assert_eq!(window.accept(5000 - REPLAY_WINDOW + 1), Ok(()));
        assert_eq!(window.accept(5000 - REPLAY_WINDOW), Err(Stale::TooOld));
    }

    #[test]
    fn a_jump_to_the_last_counter_neither_overflows_nor_forgets_the_rule() {
        let mut window = ReplayWindow::starting_at(0);
        assert_eq!(window.accept(u64::MAX), Ok(()));
        assert_eq!(window.accept(u64::MAX), Err(Stale::Repeated));
        assert_eq!(window.accept(0), Err(Stale::TooOld));
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
    }

    /// What the window promises, written as a set that forgets nothing.
    fn model(first: u64, seen: &mut BTreeSet<u64>, counter: u64) -> Result<(), Stale> {
        let highest = seen.last().copied().unwrap_or(first);
        if counter < first || highest.saturating_sub(counter) >= REPLAY_WINDOW {
            Err(Stale::TooOld)
        } else if seen.insert(counter) {
            Ok(())
        } else {
            Err(Stale::Repeated)
        }
    }

    proptest! {
        #[test]
        fn the_window_decides_as_a_perfect_memory_would(
            first in 0u64..3000,
            steps in proptest::collection::vec((-2500i64..2500, 0u8..8), 1..400),
        ) {
            let mut window = ReplayWindow::starting_at(first);
            let mut seen = BTreeSet::new();
            let mut at = first;
            for (step, small) in steps {
                // Mostly small steps around the front, now and then a jump.
                let step = if small == 0 { step } else { step / 600 };
                let counter = at.saturating_add_signed(step);
                prop_assert_eq!(window.accept(counter), model(first, &mut seen, counter));
                at = seen.last().copied().unwrap_or(first).max(at.min(counter));
            }
        }

        #[test]
        fn nothing_is_ever_accepted_twice(counters in proptest::collection::vec(0u64..4096, 1..600)) {
            let mut window = ReplayWindow::starting_at(0);
            let mut seen = BTreeSet::new();
            for counter in counters {
                if window.accept(counter).is_ok() {
                    prop_assert!(seen.insert(counter));
                }
            }
        }
    }
}
