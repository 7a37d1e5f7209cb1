//! Log: one structured line per event, to standard error (journald adds time and unit).

use tracing_subscriber::EnvFilter;

/// Environment variable with the log filter, as `tracing` writes it: `info`, `hawser::driver=debug`.
pub const FILTER: &str = "HAWSER_LOG";

/// Starts the log of this process. Later calls change nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let plain = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started =
        if plain { builder.without_time().with_ansi(false).try_init() } else { builder.with_ansi(false).try_init() };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}
