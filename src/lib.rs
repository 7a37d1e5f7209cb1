//! hawser: two Linux machines, one highly available web service.

pub mod clock;
pub mod cluster;
pub mod config;
pub mod limits;
pub mod time;
