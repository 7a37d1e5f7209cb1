//! A complete cluster in network namespaces on one machine: hawser demo, and the end-to-end tests.

mod error;
pub mod lab;
pub mod netns;
pub mod observer;
pub mod prober;
pub mod stage;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
