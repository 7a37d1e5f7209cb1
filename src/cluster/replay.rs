//! The replay window of a sealed datagram stream (RFC 4303 §3.4.3), 1024 wide.

use crate::limits::REPLAY_WINDOW;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// Which counters of one stream were seen: each is accepted once, and not when it lies 1024 or more behind the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayWindow {
    /// The newest counter seen plus one; zero if none was.
    next: u64,
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Whether the counter is new; it is not the next time.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.next {
            let ahead = (counter + 1 - self.next).min(REPLAY_WINDOW);
            for step in 0..ahead {
                let (word, bit) = Self::place(counter - step);
                self.seen[word] &= !bit;
            }
            self.next = counter + 1;
        } else if self.next - counter > REPLAY_WINDOW {
            return false;
        }
        let (word, bit) = Self::place(counter);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    const fn place(counter: u64) -> (usize, u64) {
        let at = counter % REPLAY_WINDOW;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn each_counter_is_accepted_at_most_once_and_never_when_too_old(
            counters in proptest::collection::vec(0u64..5000, 1..400)
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut newest = None::<u64>;
            for counter in counters {
                let too_old = newest.is_some_and(|n| n + 1 > counter + REPLAY_WINDOW);
                let expected = !too_old && !seen.contains(&counter);
                prop_assert_eq!(window.accept(counter), expected);
                seen.insert(counter);
                newest = newest.max(Some(counter));
            }
        }
    }
}
