//! Prints. A closed pipe (`hawser status | head -1`) ends the output, not the program with a panic.

use std::{
    fmt,
    io::{self, Write},
};

/// Bytes to standard output.
pub(super) fn write(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    drop(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// A line to standard output.
pub(super) fn line(text: impl fmt::Display) {
    write(format!("{text}\n").as_bytes());
}

/// A line to standard error, as it is.
pub(super) fn note(text: impl fmt::Display) {
    drop(io::stderr().lock().write_all(format!("{text}\n").as_bytes()));
}

/// What could not be done, to standard error.
pub(super) fn error(text: impl fmt::Display) {
    note(format_args!("hawser: {text}"));
}

/// A value as JSON to standard output.
pub(super) fn json(value: &impl serde::Serialize) -> std::process::ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            line(text);
            std::process::ExitCode::SUCCESS
        }
        Err(why) => {
            error(why);
            std::process::ExitCode::FAILURE
        }
    }
}
