//! Decides who may own which group, until when. Pure: no socket, clock, disk or random source.

pub mod intent;
pub mod name;

pub use intent::{Intent, Intents, Layers, Report};
pub use name::{GroupName, Incarnation, Member, Name, STATE_GROUP, Secret, SecretHash, Term};
