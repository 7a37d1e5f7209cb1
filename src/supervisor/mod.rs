//! The first process: starts the worker, and takes its addresses away when it dies or stops renewing.
//!
//! Tiny on purpose: one thread, no runtime, nothing from the network is read here. [`core`] decides and is pure; the
//! shell below carries out what it says. It also has the duties of PID 1: it reaps whatever ends.
//!
//! Hears: the worker's words ([`crate::vip::supervision`]), its death (a pidfd), signals, a timer on the boot clock.
//! Tells: nobody; it kills, deletes addresses, sends the release notice, and starts the worker again.
//!
//! Not here: who may hold an address, and the gate, which ends by itself.

pub mod core;
mod shell;

pub use shell::run;
