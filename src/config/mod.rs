//! Turns the TOML a person wrote into values that cannot be wrong.

pub mod values;

pub use values::*;
