//! What the demo could not do, to what, and the cause.

use std::fmt;

/// A step of the demo that failed. Nothing of the machine has changed: the laboratory ends with the process.
#[derive(Debug)]
pub struct Error {
    message: String,
    interrupted: bool,
}

/// What the demo's steps give back.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure in the words of `message`.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), interrupted: false }
    }

    /// Somebody asked the demo to end.
    #[must_use]
    pub fn interrupted() -> Self {
        Self { message: "interrupted".into(), interrupted: true }
    }

    /// The same failure, headed by what was being done.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Whether somebody asked for the end, so that this is no failure.
    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Says what could not be done when a call fails.
pub(super) trait Attempt<T> {
    /// The error of a failed call, headed by "cannot `what`".
    fn or_cannot(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Attempt<T> for std::result::Result<T, E> {
    fn or_cannot(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::new(format!("cannot {what}: {cause}")))
    }
}
