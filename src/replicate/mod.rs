//! Brings the other node's copy of the state up to date.
//!
//! Hears: the role of this node (who owns the group `state`, until when), writes, transitions to record, the peer.
//! Tells: what the state is, after each change; whether a write is on both disks.
//!
//! Primary and copy. Only the owner of the group `state` writes, in order; the other node forwards. A write is
//! answered while the owner's lease runs, when it is durable on both nodes, or, with the peer away, durable here and
//! marked as not replicated. After a change of owner the owner's copy is the truth: a returning node *offers* what it
//! wrote alone ("if unchanged since version v"); what is refused goes to the history as a conflict; then it takes the
//! missing suffix, or the whole copy.
//!
//! | part | does |
//! |---|---|
//! | [`types`] | versions, operations, transitions, answers, the view |
//! | [`content`] (pure) | one node's copy: what a change means for memory and disk alike |
//! | [`message`] (pure) | what two replicas say to each other |
//! | [`protocol`] (pure) | decides: input and time in, actions out |
//! | [`session`] | frames on a stream |
//! | [`link`] | TCP and mutual TLS: the first node dials, the second accepts |
//! | [`state`] | the task around all of it, and the handle for everybody else |
//!
//! Not here: who owns the state (`cluster`), how it lies on the disk (`store`).

pub mod content;
#[cfg(any(test, feature = "hostile"))]
pub(crate) mod hostile;
pub mod link;
pub mod message;
#[cfg(test)]
mod model;
pub mod protocol;
pub mod session;
pub mod state;
pub mod types;

pub use content::{Content, Item};
pub use link::{Dial, Link, Tls, listen};
pub use state::{State, StateConfig, StateHandle};
pub use types::{
    Health, HistoryEntry, Op, Role, STANDBY, Standby, Version, View, ViewRole, When, WriteError, Written, standby_key,
};
