//! What is wrong with a configuration file, for people: where, what, and what to write instead.

use crate::limits::FAULTS_MAX;
use serde::Serialize;
use std::{fmt, path::PathBuf};

/// One thing that is wrong, or that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line of the file, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// The key, as in `listener[1].address`; empty when it is about the file as a whole.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead; may be empty.
    pub help: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// What must be changed: at least one.
    pub faults: Vec<Fault>,
    /// What deserves a look.
    pub warnings: Vec<Fault>,
    /// Faults beyond those listed.
    pub omitted: usize,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{}", located(&self.file, fault))?;
        }
        if self.omitted > 0 { write!(f, "\n{}: and {} more", self.file.display(), self.omitted) } else { Ok(()) }
    }
}

impl std::error::Error for Faults {}

/// A fault with its place in the file: `hawser.toml:14: listener[1]: …`.
pub fn located(file: &std::path::Path, fault: &Fault) -> String {
    match fault.line {
        0 => format!("{}: {fault}", file.display()),
        line => format!("{}:{line}: {fault}", file.display()),
    }
}

/// A configuration without a fault.
#[derive(Debug, Clone)]
pub struct Checked<T> {
    /// The values.
    pub config: T,
    /// What deserves a look, in the order of the lines.
    pub warnings: Vec<Fault>,
}

/// Collects faults and knows which byte is on which line.
#[derive(Debug)]
pub(super) struct Report {
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    omitted: usize,
}

/// What is wrong with a text, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: String,
}

pub(super) fn wrong(what: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), help: help.into() }
}

impl Report {
    pub(super) fn new(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { lines: std::iter::once(0).chain(starts).collect(), faults: vec![], warnings: vec![], omitted: 0 }
    }

    /// The line, from 1, of a byte.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    pub(super) fn fault(&mut self, line: usize, place: &str, wrong: Wrong) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { line, place: place.to_owned(), what: wrong.what, help: wrong.help });
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn warn(&mut self, line: usize, place: &str, wrong: Wrong) {
        if self.warnings.len() < FAULTS_MAX {
            self.warnings.push(Fault { line, place: place.to_owned(), what: wrong.what, help: wrong.help });
        }
    }

    /// The configuration if nothing is wrong with it.
    pub(super) fn conclude<T>(mut self, file: PathBuf, config: Option<T>) -> Result<Checked<T>, Faults> {
        self.faults.sort_by_key(|fault| fault.line);
        self.warnings.sort_by_key(|fault| fault.line);
        match config {
            Some(config) if self.faults.is_empty() => Ok(Checked { config, warnings: self.warnings }),
            Some(_) | None => {
                if self.faults.is_empty() {
                    self.fault(0, "", wrong("the file is incomplete", "see config/hawser.toml for every key"));
                }
                Err(Faults { file, faults: self.faults, warnings: self.warnings, omitted: self.omitted })
            }
        }
    }
}
