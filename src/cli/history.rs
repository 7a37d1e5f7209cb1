//! `hawser history`: who became what, when and why.

use super::{args::HistoryArgs, out};
use crate::{admin::client, replicate::HistoryEntry};
use std::process::ExitCode;

/// `hawser history`.
pub(crate) fn history(args: &HistoryArgs) -> ExitCode {
    let mut entries: Vec<HistoryEntry> = match client::get(&args.socket.socket, "/v1/history") {
        Ok(entries) => entries,
        Err(error) => {
            out::error(error);
            return ExitCode::FAILURE;
        }
    };
    let skip = entries.len().saturating_sub(args.count);
    entries.drain(..skip);
    if args.json {
        return out::json(&entries);
    }
    if entries.is_empty() {
        out::line("nothing has happened yet");
    }
    for entry in entries {
        out::line(line(&entry));
    }
    ExitCode::SUCCESS
}

fn line(entry: &HistoryEntry) -> String {
    let at = i64::try_from(entry.at_unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map(|at| format!("{at:.3}")).unwrap_or_default();
    let after = entry.after_ms.map(|ms| format!(", {ms} ms after the former owner was last heard")).unwrap_or_default();
    let text = if entry.text.is_empty() { String::new() } else { format!(": {}", entry.text) };
    format!(
        "{at}  {:<8} {:<8} {} -> {}  {} (term {}{after}){text}",
        entry.group, entry.node, entry.from, entry.to, entry.cause, entry.term
    )
}
