//! The first process: starts the worker, and takes the addresses away when it dies or stops renewing.
