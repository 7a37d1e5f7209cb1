//! A complete cluster in network namespaces on one machine: hawser demo, and the end-to-end tests.
