//! Asks what decides when the two nodes cannot see each other, where that is no witness of our own.
//!
//! A witness speaks the cluster's datagrams and is reached by the links (`driver`). Here is who speaks for a third voter
//! that knows nothing of hawser: [`etcd`]. It hears what the engine says to the third voter, and answers by the driver's
//! queue as a witness would. Here are also the hands and ears of a third voter that is no machine at all: [`fence`] and
//! [`echo`] tell what they found, and never what follows from it.
//!
//! Not here: what an answer is worth (`cluster`), who has an address on a network (`vip::probe`).

pub mod echo;
pub mod etcd;
pub mod fence;
