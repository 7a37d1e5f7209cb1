//! Serves sites and forwards requests.
