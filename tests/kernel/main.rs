//! The kernel side against a real kernel: each test in a network namespace of its own, made without root if need be.

mod gate;
mod keeper;
mod lab;
mod supervisor;
