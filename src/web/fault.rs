//! Fault injection, for rehearsals and tests: makes the web threads hang on purpose.
//!
//! Off unless the environment of the daemon says `HAWSER_FAULT=web-stall-file:/some/path`: then each web thread looks
//! four times a second for that file, and does nothing at all while it is there, just as if it had hung in a call.
//! Nothing that comes over the network can switch it on.

use std::{env, path::PathBuf, thread, time::Duration};

/// Name of the environment variable.
pub const VARIABLE: &str = "HAWSER_FAULT";
const LOOK: Duration = Duration::from_millis(250);

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The web threads hang while this file exists.
    WebStall(PathBuf),
}

impl Fault {
    /// What the environment asks for.
    ///
    /// # Errors
    /// If it asks for something unknown: a rehearsal of a misspelt fault would prove nothing.
    pub fn from_environment() -> Result<Option<Self>, String> {
        match env::var(VARIABLE) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Self::parse(&text).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(error @ env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE}: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("web-stall-file", path)) if path.starts_with('/') => Ok(Self::WebStall(path.into())),
            _ => Err(format!("{VARIABLE}: {text:?} is no fault: use web-stall-file:/absolute/path")),
        }
    }

    /// Makes the thread on which it is polled suffer it.
    pub(super) async fn suffer(self) {
        let Self::WebStall(path) = self;
        loop {
            if path.exists() {
                tracing::warn!(file = %path.display(), "web thread hangs on purpose");
                while path.exists() {
                    thread::sleep(LOOK);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_fault_is_refused() {
        assert_eq!(Fault::parse("web-stall-file:/run/x"), Ok(Fault::WebStall("/run/x".into())));
        assert!(Fault::parse("web-stall:/run/x").is_err());
        assert!(Fault::parse("web-stall-file:x").is_err());
    }
}
