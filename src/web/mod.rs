//! Serves sites and forwards requests.
//!
//! ```text
//!  web thread (one per core, a runtime of its own)
//!    listeners ──> door ──> http::serve ──> site ──> route ──┬─> files    a folder
//!    probe socket ─────────────┘                             └─> proxy    a pool of servers
//!                    ▲ certificates                               ▲ up or down
//!  control runtime   │                                            │
//!    tls     looks at their files                                 │
//!    health  checks the servers ──────────────────────────────────┘
//!    probe   asks each web thread, and each listener whose address is here, once a second
//! ```
//!
//! Hears: the configuration, drains. Tells: whether it can serve ([`probe::run`]), what it has served
//! ([`Handle::view`]).
//!
//! Rules: a web thread never waits for anything but its clients and servers; what is not in the page cache is read
//! elsewhere. Nothing outside a root is reachable, by construction. A body that is not whole never looks whole.
//!
//! Not here: who may hold an address (`cluster`), the addresses themselves (`vip`).

mod conditional;
mod door;
pub mod fault;
mod files;
mod forward;
pub mod health;
#[cfg(any(test, feature = "hostile"))]
pub(crate) mod hostile;
mod open;
mod path;
mod pool;
pub mod probe;
mod proxy;
mod range;
mod site;
mod tier;
pub mod tls;
mod tunnel;

pub use crate::http::{Drain, Patience};
pub use tier::{Error, Handle, Setup, Tier, View, serve_dir};
