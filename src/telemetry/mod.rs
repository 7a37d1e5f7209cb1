//! Log and counters.
