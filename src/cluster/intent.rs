//! What should be true of a group on this node, and until when.

use super::name::{GroupName, Term};
use crate::time::Instant;
use std::{collections::BTreeMap, fmt, net::IpAddr};

/// What should be true of one group on this node. The newest wins; a held one ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Nothing is held: gate shut, sockets destroyed, addresses deleted, and read back.
    Released,
    /// The addresses are held and announced.
    Held {
        /// The term in which this node owns the group.
        term: Term,
        /// E, the end of the lease. The gate ends one guard earlier, the supervisor acts two guards earlier.
        until: Instant,
    },
    /// The addresses are held; the first packets of new connections are dropped while the others end, for
    /// `limits::SQUEEZE_MAX` at most. Then it is as `Released`.
    Leaving {
        /// The term in which this node still owns the group.
        term: Term,
        /// E, the end of the lease.
        until: Instant,
    },
}

/// The intents of all configured groups.
pub type Intents = BTreeMap<GroupName, Intent>;

/// What the keeper of the addresses tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The addresses of the group are in place and its gate is open.
    Held(GroupName, Term),
    /// The gate is shut, and a dump showed none of the group's addresses. Sent after each change to `Released`, and
    /// at the end of `Leaving`.
    Gone(GroupName),
    /// Something is wrong with this node as the keeper of addresses, or right again (`None`): no carrier, no such
    /// interface, no permission, a refused call.
    Unable(Option<String>),
    /// The supervisor is gone: nobody would take the addresses away if this worker died.
    SupervisorGone,
    /// Another machine says that it has an address which this node holds.
    Claimed(Claim),
    /// For people: what happened on the interface or the wire.
    Event(String),
}

/// That another machine says that it has an address which this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The group.
    pub group: GroupName,
    /// The term in which this node holds it.
    pub term: Term,
    /// The address.
    pub address: IpAddr,
    /// The hardware address of the other machine.
    pub mac: [u8; 6],
}

impl Claim {
    /// The hardware address as people write it.
    #[must_use]
    pub fn station(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} claims {}, which this node holds", self.station(), self.address)
    }
}

/// Which layers of the kernel-enforced lease are in force, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Layers {
    /// A supervisor process watches the worker.
    pub supervisor: bool,
    /// The nftables gate.
    pub gate: bool,
    /// Addresses carry a lifetime.
    pub lifetime: bool,
    /// Sockets can be destroyed (`CONFIG_INET_DIAG_DESTROY`).
    pub sock_destroy: bool,
}
