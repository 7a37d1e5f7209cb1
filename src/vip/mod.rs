//! Keeps this node's addresses as the cluster wants them.
