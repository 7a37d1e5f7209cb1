//! `hawser switchover`, `hawser standby`, `hawser unstandby`.

use super::{
    args::{StandbyArgs, SwitchoverArgs, UnstandbyArgs},
    out,
};
use std::process::ExitCode;

/// `hawser switchover`.
pub(crate) fn switchover(_args: &SwitchoverArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}

/// `hawser standby`.
pub(crate) fn standby(_args: &StandbyArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}

/// `hawser unstandby`.
pub(crate) fn unstandby(_args: &UnstandbyArgs) -> ExitCode {
    out::error("not available in this build");
    ExitCode::FAILURE
}
