//! `hawser history`.

use super::{args::HistoryArgs, out};
use std::process::ExitCode;

/// `hawser history`.
pub(crate) fn history(_args: &HistoryArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}
