//! Asks what decides when the two nodes cannot see each other, where that is no witness of our own.
//!
//! A witness speaks the cluster's datagrams and is reached by the links (`driver`). Here is who speaks for a third voter
//! that knows nothing of hawser: [`etcd`]. It hears what the engine says to the third voter, and answers by the driver's
//! queue as a witness would.
//!
//! Not here: what an answer is worth (`cluster`).

pub mod etcd;
