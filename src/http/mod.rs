//! Plumbing that web and admin share.
