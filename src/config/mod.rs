//! Turns the TOML a person wrote into values that cannot be wrong.
//!
//! [`load`] and [`load_witness`] read a file; [`check`] and [`check_witness`] take its text. All faults are told at
//! once, each with its line and what to write instead; whoever gets a [`Config`] need not check it again.
//!
//! Not here: which node this machine is (`trust::identity` reads it in the certificate), the facts of the machine (told
//! through [`Machine`]).

mod address;
mod check;
mod draft;
mod etcd;
mod fault;
mod files;
mod machine;
mod tiebreak;
mod tls;
pub mod values;
mod walk;
mod witness;

pub use check::{Machine, Scene};
pub use fault::{Checked, Fault, Faults, located};
pub use machine::{Onlooker, ThisMachine};
pub use tiebreak::find as find_agent;
pub use values::*;

use crate::limits::CONFIG_BYTES_MAX;
use fault::{Report, Wrong, wrong};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};
use toml::de::DeTable;
use walk::Section;

/// Checks the text of a `hawser.toml`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(text: &str, scene: &Scene<'_>) -> Result<Checked<Config>, Faults> {
    with_document(text, scene, |report, document| {
        let dir = folder_of(scene.path).to_owned();
        let draft = draft::read(report, document, &dir);
        check::judge(report, draft, scene, dir)
    })
}

/// Checks the text of a `witness.toml`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_witness(text: &str, scene: &Scene<'_>) -> Result<Checked<WitnessConfig>, Faults> {
    with_document(text, scene, |report, document| witness::judge(report, document, scene))
}

/// Reads and checks a `hawser.toml`.
///
/// # Errors
/// Everything that is wrong with it, or that it cannot be read.
pub fn load(scene: &Scene<'_>) -> Result<Checked<Config>, Faults> {
    check(&read(scene.path)?, scene)
}

/// Reads and checks a `witness.toml`.
///
/// # Errors
/// Everything that is wrong with it, or that it cannot be read.
pub fn load_witness(scene: &Scene<'_>) -> Result<Checked<WitnessConfig>, Faults> {
    check_witness(&read(scene.path)?, scene)
}

/// The text of a configuration file.
///
/// # Errors
/// If it cannot be read, is longer than a configuration may be, or is not text.
pub fn read(path: &Path) -> Result<String, Faults> {
    let mut bytes = Vec::new();
    let limit = CONFIG_BYTES_MAX as u64;
    let outcome = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(alone(path, 0, wrong("there is no such file", "make one with `hawser init`, or name it with --config")))
        }
        Err(e) => Err(alone(path, 0, wrong(format!("cannot read it: {e}"), ""))),
        Ok(length) if length > CONFIG_BYTES_MAX => {
            Err(alone(path, 0, wrong(format!("is longer than {CONFIG_BYTES_MAX} bytes"), "is it the right file?")))
        }
        Ok(_) => String::from_utf8(bytes).map_err(|e| {
            let good = e.utf8_error().valid_up_to();
            let line = 1 + e.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
            alone(path, line, wrong("is not UTF-8 text here", "save it as UTF-8"))
        }),
    }
}

/// Whether a text is rather a `witness.toml` than a `hawser.toml`: its clusters are a list.
#[must_use]
pub fn is_witness(text: &str) -> bool {
    let (document, _) = DeTable::parse_recoverable(text);
    let document = document.get_ref();
    let listens =
        document.get("witness").and_then(|w| w.get_ref().as_table()).is_some_and(|w| w.contains_key("listen"));
    document.get("cluster").is_some_and(|cluster| cluster.get_ref().is_array()) || listens
}

/// The folder of a file; never empty.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn alone(path: &Path, line: usize, wrong: Wrong) -> Faults {
    let fault = Fault { line, place: String::new(), what: wrong.what, help: wrong.help };
    Faults { file: path.to_owned(), faults: vec![fault], warnings: vec![], omitted: 0 }
}

/// Parses as much as can be parsed, lets `judge` look at it, and concludes.
fn with_document<T>(
    text: &str,
    scene: &Scene<'_>,
    judge: impl FnOnce(&mut Report, Section<'_>) -> Option<T>,
) -> Result<Checked<T>, Faults> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(alone(scene.path, 0, wrong(format!("is longer than {CONFIG_BYTES_MAX} bytes"), "")));
    }
    let mut report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(0, |span| report.line_of(span.start.min(text.len().saturating_sub(1))));
        report.fault(line, "", wrong(format!("is not TOML: {}", error.message()), ""));
    }
    let config = if errors.is_empty() { judge(&mut report, Section::document(document.get_ref())) } else { None };
    report.conclude(scene.path.to_owned(), config)
}

#[cfg(test)]
mod tests;
