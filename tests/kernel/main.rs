//! The kernel side against a real kernel: each test in a network namespace of its own, made without root if need be.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panic, and measured figures are worth showing"
)]

mod disk;
mod frames;
mod gate;
mod keeper;
mod lab;
mod supervisor;
#[expect(dead_code, reason = "shared with the tests of the store")]
#[path = "../store/syscalls.rs"]
mod syscalls;
