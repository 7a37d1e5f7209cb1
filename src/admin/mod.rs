//! Shows and steers a node over one API: JSON over HTTP on a Unix socket.
//!
//! | call | does |
//! |---|---|
//! | `GET /v1/status` | [`api::Status`] |
//! | `GET /v1/history` | a list of [`crate::replicate::HistoryEntry`] |
//! | `POST /v1/switchover` | [`api::Switchover`] |
//! | `POST /v1/standby` | [`api::SetStandby`] |
//!
//! Who may open the socket may steer the node: it is 0600.
//!
//! Not here: how the answers come about (`daemon`).

pub mod api;
pub mod client;
pub mod server;
