//! The web tier, driven in this process through real sockets on loopback: raw bytes where bytes matter, a client where
//! a client matters.

#![expect(unreachable_pub, clippy::unwrap_used, reason = "a test binary: nobody is outside, and a failure is a panic")]

mod coding;
mod drain;
mod files;
mod floods;
mod health;
mod kit;
mod listeners;
mod pages;
mod proxied;
mod proxy;
mod ranges;
mod requests;
mod secure;
mod tls;
