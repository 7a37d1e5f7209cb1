//! (being built)
use crate::{
    cluster::{GroupName, Intent, Layers, Report},
    config::{GateMode, Group},
    time::Duration,
    vip::supervision::SupervisorLink,
};
use std::{fmt, io, sync::Arc};

/// What a keeper is made from.
pub struct KeeperSetup {
    /// The groups and their addresses.
    pub groups: Vec<Group>,
    /// How long an owner may serve on one confirmation: the addresses' lifetime follows from it.
    pub lease: Duration,
    /// Whether the gate is used.
    pub gate: GateMode,
    /// The link to the supervisor, on which [`crate::vip::supervision::Word::Hello`] was said.
    pub supervisor: Option<SupervisorLink>,
    /// Whether the web tier has nothing in flight for a group. Asked from the keeper's thread: it must not wait.
    pub quiet: Arc<dyn Fn(&GroupName) -> bool + Send + Sync>,
    /// Called from the keeper's thread with each report: it must not wait.
    pub report: Box<dyn Fn(Report) + Send>,
}

/// Why a keeper could not be started. Nothing is held then.
#[derive(Debug)]
pub enum KeeperError {
    /// A capability is missing.
    Capability(&'static str),
    /// The kernel cannot do what the gate needs.
    NoGate(io::Error),
    /// Another call failed.
    Kernel {
        /// What could not be done.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
}

impl fmt::Display for KeeperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
impl std::error::Error for KeeperError {}

/// Keeps the addresses; see [`Keeper::spawn`].
#[derive(Debug)]
pub struct Keeper;

impl Keeper {
    /// Starts the keeper's thread, once the gate is set up and left-overs of an earlier run are gone.
    ///
    /// # Errors
    /// If a capability or the gate is missing, or a call to the kernel fails.
    pub fn spawn(_setup: KeeperSetup) -> Result<(KeeperHandle, Layers), KeeperError> {
        Err(KeeperError::NoGate(io::Error::other("being built")))
    }
}

/// How the cluster steers the keeper.
#[derive(Clone, Debug)]
pub struct KeeperHandle {}

impl KeeperHandle {
    /// Sets what should be true of a group. The newest wins; never waits.
    pub fn set(&self, _group: GroupName, _intent: Intent) {}

    /// Announces the addresses of a group again, if they are held.
    pub fn announce_again(&self, _group: GroupName) {}

    /// Releases all groups, removes the gate, says Bye to the supervisor, and waits for the thread's end.
    pub fn shutdown(&self) {}
}
