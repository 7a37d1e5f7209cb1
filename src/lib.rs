//! hawser: two Linux machines, one highly available web service, one static binary.
//!
//! This page is the map. The way things flow, in one direction:
//!
//! ```text
//!  sockets  files  kernel  signals  admin                 (the world)
//!     └───────┴──────┬───────┴────────┘
//!                    ▼  Input              opened, believed, stamped with now
//!    ┌───────────────────────────────────────┐
//!    │ driver             one thread, a loop │
//!    │   engine.handle(now, input)           │   pure: no socket, clock, disk, random source
//!    └──────┬───────────────────────┬────────┘
//!           ▼ Actions (once,        ▼ Intent per group (newest wins, void after `until`)
//!             in order)
//!      links, disk            ┌─────┬───────────┐
//!                            vip   web      replicate     each keeps its part true, and lets go by itself
//!                             └─────┴─────┬─────┘
//!                                         ▼ Report ──► back to the driver as Input
//!      View (a copy) ──► admin ──► cli
//! ```
//!
//! A heartbeat is sent once and may be lost: an *action*. "This node holds the address" is to be kept true and must end
//! by itself: an *intent*. A write that has to be on disk before an answer goes out comes back as an *input*.
//!
//! | module | what it is for |
//! |---|---|
//! | [`time`], [`limits`] | what an instant is; every bound by name |
//! | [`clock`], [`alarm`] | the one place that reads the clock; a timer on it |
//! | [`cluster`] | decides who may own which group, until when. Pure; the safety argument is there |
//! | [`config`] | turns the TOML a person wrote into values that cannot be wrong |
//! | [`telemetry`] | log |
//! | [`trust`] | CA, secrets, identities, TLS settings, sealed datagrams |
//! | [`store`] | what must survive: the promise file and the keyspace. The only place that names sled |
//! | [`http`] | plumbing of the web tier: accept, limit, drain, bodies |
//! | [`driver`] | feeds the engine and carries out what it says: the loop, the links, the witness |
//! | [`tiebreak`] | asks etcd or the world, where no witness of our own votes |
//! | [`vip`] | keeps this node's addresses: keeper, gate, announcing |
//! | [`replicate`] | brings the other node's copy of the state up to date |
//! | [`web`] | serves sites and forwards requests |
//! | [`admin`] | shows and steers a node over one API |
//! | [`supervisor`] | the first process: starts the worker, takes its addresses away when it dies |
//! | [`daemon`] | builds everything, owns the tasks, ends them in order |
//! | [`demo`] | a whole cluster in network namespaces, its faults, its instruments |
//! | [`cli`] | what a person types and reads |
//! | `hostile` | every decoder of bytes from outside, for tests and fuzzing only |
//!
//! Imports go downward only, in this order; `driver`, `tiebreak`, `vip`, `replicate` and `web` never import each other.
//! `tests/tidy.rs` holds the table.

pub mod admin;
pub mod alarm;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod driver;
#[cfg(any(test, feature = "hostile"))]
pub mod hostile;
pub mod http;
pub mod limits;
pub mod replicate;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod tiebreak;
pub mod time;
pub mod trust;
pub mod vip;
pub mod web;
