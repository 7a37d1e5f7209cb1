//! Keeps this node's virtual addresses as the cluster wants them, and sees to it that they end with the lease.
//!
//! Hears: the intents, newest wins ([`keeper::KeeperHandle::set`]). Tells: [`crate::cluster::Report`], after each change.
//! An address is held only while its intent lasts, and the kernel is given the same end: the gate's elements time out,
//! the addresses carry a lifetime, and the supervisor has a deadline.
//!
//! ```text
//!  intents ──> keeper (one thread, never waits for the kernel's rtnl lock)
//!                ├── gate         nftables: who may be heard, until when
//!                ├── supervision  the supervisor: addresses and deadlines
//!                ├── announce     when; frames: what; packet: on the wire; rivals: who else claims them
//!                ├── sockets      what TCP still has to say, and its end
//!                └── addresses (a thread of its own: rtnetlink; upkeep: what is wrong with them)
//! ```
//!
//! Not here: who may hold an address (`cluster`), what is done when this process dies (`supervisor`).

pub mod addresses;
pub mod announce;
pub mod frames;
pub mod gate;
#[cfg(any(test, feature = "hostile"))]
pub(crate) mod hostile;
pub mod keeper;
pub mod netlink;
pub mod packet;
pub mod priority;
pub mod probe;
pub mod rivals;
pub mod sockets;
pub mod supervision;
mod upkeep;

pub use keeper::{Keeper, KeeperError, KeeperHandle, KeeperSetup};
pub use supervision::SupervisorLink;
