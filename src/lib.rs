//! hawser: two Linux machines, one highly available web service.

pub mod admin;
pub mod alarm;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod driver;
pub mod http;
pub mod limits;
pub mod replicate;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod time;
pub mod trust;
pub mod vip;
pub mod web;
