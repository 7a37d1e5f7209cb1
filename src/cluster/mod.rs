//! Decides who may own which group, until when. Pure: no socket, clock, disk or random source.

/// Whether a known fault is planted into this thread's engines: `false` unless the feature `planted` is on.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($fault:ident) => {
        $crate::cluster::planted::active($crate::cluster::planted::Planted::$fault)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}

pub mod desk;
pub mod engine;
pub mod event;
pub mod input;
pub mod intent;
pub mod message;
pub mod name;
#[cfg(feature = "planted")]
pub mod planted;
pub mod replay;
pub mod session;
pub mod timing;
pub mod voter;
pub mod witness;

pub use engine::{Engine, Setup, View};
pub use event::{Cause, Event};
pub use input::{Action, Command, CommandId, CommandRefusal, Input};
pub use intent::{Intent, Intents, Layers, Report};
pub use message::{Envelope, Fitness, Message};
pub use name::{GroupName, Incarnation, Member, Name, STATE_GROUP, Secret, SecretHash, Term};
pub use session::{Sessions, Verdict};
pub use timing::Timing;
pub use voter::{Identity, Memory, Voter};
pub use witness::{Witness, WitnessAction};
