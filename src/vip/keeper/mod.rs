//! The keeper: makes intents true on this node, and lets go by itself.
//!
//! One thread with a plain poll loop. It owns the gate, the announcing and the worker's end of the link to the
//! supervisor; addresses are put on and taken off by a second thread (`vip::addresses`), because only that one may be
//! held up by the kernel's rtnl lock. [`plan`] decides, [`desk`] carries out.
//!
//! Order at acquire: supervisor, addresses, gate. Order at release: gate, sockets, addresses, read back, and only then
//! the supervisor and the cluster are told. Without a supervisor that lives, nothing is held any more.

mod desk;
mod plan;
mod post;

use self::desk::Desk;
use super::supervision::SupervisorLink;
use crate::{
    cluster::{GroupName, Intent, Layers, Report},
    config::{GateMode, Group},
    time::Duration,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
    thread::{CapabilitySet, capabilities},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

/// What a keeper is made from.
pub struct KeeperSetup {
    /// The groups and their addresses.
    pub groups: Vec<Group>,
    /// How long an owner may serve on one confirmation: the addresses' lifetime follows from it.
    pub lease: Duration,
    /// Whether the gate is used.
    pub gate: GateMode,
    /// The link to the supervisor, on which [`super::supervision::Word::Hello`] was said.
    pub supervisor: Option<SupervisorLink>,
    /// Whether the web tier has nothing in flight for a group. Asked from the keeper's thread: it must not wait.
    pub quiet: Arc<dyn Fn(&GroupName) -> bool + Send + Sync>,
    /// Called from the keeper's thread with each report: it must not wait.
    pub report: Box<dyn Fn(Report) + Send>,
}

/// Why a keeper could not be started. Nothing is held then, and no left-over of an earlier run was put back.
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
        match self {
            Self::Capability(name) => write!(
                f,
                "cannot keep addresses without {name}: start hawser as root, or give it the capability \
                 (systemd: AmbientCapabilities={name}; container: --cap-add {})",
                name.trim_start_matches("CAP_")
            ),
            Self::NoGate(cause) => write!(
                f,
                "cannot set up the gate in nftables: {cause}: load the kernel modules nf_tables and nft_* for inet and \
                 arp, or set cluster.gate = \"off\" (promises last longer then)"
            ),
            Self::Kernel { what, cause } => write!(f, "cannot {what}: {cause}"),
        }
    }
}

impl std::error::Error for KeeperError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Capability(_) => None,
            Self::NoGate(cause) | Self::Kernel { cause, .. } => Some(cause),
        }
    }
}

/// What was asked of the keeper and not yet looked at.
#[derive(Default)]
struct Orders {
    intents: BTreeMap<GroupName, Intent>,
    announce: BTreeSet<GroupName>,
    stop: bool,
}

/// What both sides hold.
struct Shared {
    orders: Mutex<Orders>,
    wake: OwnedFd,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the keeper's thread. A counter that is full wakes it too.
    fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }
}

/// Keeps the addresses; see [`Keeper::spawn`].
#[derive(Debug)]
pub struct Keeper;

impl Keeper {
    /// Sets up the gate, removes left-overs of an earlier run, and starts the keeper's thread. Says which layers of the
    /// kernel-enforced lease are in force.
    ///
    /// # Errors
    /// If a capability or the gate is missing, or a call to the kernel fails.
    pub fn spawn(setup: KeeperSetup) -> Result<(KeeperHandle, Layers), KeeperError> {
        check_capabilities()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|cause| KeeperError::Kernel { what: "make an eventfd", cause: cause.into() })?;
        let shared = Arc::new(Shared { orders: Mutex::default(), wake });
        let theirs = Arc::clone(&shared);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || match Desk::new(setup, theirs) {
                Ok((mut desk, layers)) => {
                    drop(ready.send(Ok(layers)));
                    desk.run();
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|cause| KeeperError::Kernel { what: "start the keeper's thread", cause })?;
        let layers = is_ready.recv().map_err(|_| KeeperError::Kernel {
            what: "start the keeper",
            cause: io::Error::other("its thread ended"),
        })??;
        Ok((KeeperHandle { shared, thread: Arc::new(Mutex::new(Some(thread))) }, layers))
    }
}

fn check_capabilities() -> Result<(), KeeperError> {
    let sets = capabilities(None)
        .map_err(|cause| KeeperError::Kernel { what: "read the capabilities of this process", cause: cause.into() })?;
    for (one, name) in [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")] {
        if !sets.effective.contains(one) {
            return Err(KeeperError::Capability(name));
        }
    }
    Ok(())
}

/// How the cluster steers the keeper.
#[derive(Clone)]
pub struct KeeperHandle {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl fmt::Debug for KeeperHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeeperHandle")
    }
}

impl KeeperHandle {
    /// Sets what should be true of a group. The newest wins; never waits.
    pub fn set(&self, group: GroupName, intent: Intent) {
        self.shared.orders().intents.insert(group, intent);
        self.shared.wake();
    }

    /// Announces the addresses of a group again, if they are held: a partition healed, a link came up, a freeze ended.
    pub fn announce_again(&self, group: GroupName) {
        self.shared.orders().announce.insert(group);
        self.shared.wake();
    }

    /// The orderly end: releases all groups, removes the gate, says Bye to the supervisor, and waits for the thread.
    pub fn shutdown(&self) {
        self.shared.orders().stop = true;
        self.shared.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has ended the process already.
            drop(thread.join());
        }
    }
}
