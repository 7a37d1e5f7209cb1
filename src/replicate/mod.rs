//! Brings the other node's copy of the state up to date.
