//! `hawser status`.

use super::{args::StatusArgs, out};
use std::process::ExitCode;

/// `hawser status`.
pub(crate) fn status(_args: &StatusArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}
