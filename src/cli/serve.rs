//! `hawser serve`, and the way to `hawser demo`.

use super::{
    args::{DemoArgs, ServeArgs},
    out,
};
use std::process::ExitCode;

/// `hawser serve`.
pub(crate) fn serve(_args: &ServeArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}

/// `hawser demo`.
pub(crate) fn demo(_args: &DemoArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}
