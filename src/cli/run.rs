//! `hawser run`, `hawser worker`, `hawser witness`.

use super::{
    args::{RunArgs, WitnessArgs},
    check, out,
};
use std::process::ExitCode;

/// `hawser run`.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    match check::load(args) {
        Ok(_) => not_available(),
        Err(code) => code,
    }
}

/// `hawser worker`.
pub(crate) fn worker(args: &RunArgs) -> ExitCode {
    match check::load(args) {
        Ok(_) => not_available(),
        Err(code) => code,
    }
}

/// `hawser witness`.
pub(crate) fn witness(args: &WitnessArgs) -> ExitCode {
    match check::load_witness(args) {
        Ok(_) => not_available(),
        Err(code) => code,
    }
}

fn not_available() -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}
