//! `hawser run`, `hawser worker`, `hawser witness`.

use super::{
    args::{RunArgs, WitnessArgs},
    check,
};
use crate::{daemon, supervisor, telemetry};
use std::{ffi::OsString, process::ExitCode};

/// `hawser run`: the supervisor. The configuration is checked here, so that its faults are told once.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    if let Err(code) = check::load(args) {
        return code;
    }
    telemetry::start();
    let mut worker: Vec<OsString> = vec!["worker".into(), "--config".into(), args.config.clone().into()];
    if let Some(node) = args.node {
        worker.extend(["--node".into(), node.as_str().into()]);
    }
    supervisor::run(&worker)
}

/// `hawser worker`: started by the supervisor only.
pub(crate) fn worker(args: &RunArgs) -> ExitCode {
    match check::load(args) {
        Ok(config) => daemon::worker(config),
        Err(code) => code,
    }
}

/// `hawser witness`.
pub(crate) fn witness(args: &WitnessArgs) -> ExitCode {
    match check::load_witness(args) {
        Ok(config) => daemon::witness(&config),
        Err(code) => code,
    }
}
