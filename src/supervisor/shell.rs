//! (being built)
use std::{ffi::OsString, process::ExitCode};

/// Runs the supervisor until it is over. `worker_args` are the arguments with which this very program is the worker.
#[must_use]
pub fn run(_worker_args: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}
