//! `hawser history`: who became what, when and why.

use super::{args::HistoryArgs, out};
use crate::{admin::client, cluster::STATE_GROUP, replicate::HistoryEntry};
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
    if !args.all && !args.json {
        entries.retain(|entry| entry.group.as_str() != STATE_GROUP);
    }
    order(&mut entries);
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

/// By time; who lost a group comes before who got it.
fn order(entries: &mut [HistoryEntry]) {
    entries.sort_by_key(|entry| (entry.at_unix_ms, entry.to == "active"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Name, Term};

    #[test]
    fn the_loser_comes_before_the_winner_of_the_same_millisecond() {
        let entry = |at_unix_ms, to: &str| HistoryEntry {
            at_unix_ms,
            node: Name::new("n1").unwrap(),
            group: Name::new("web").unwrap(),
            from: String::new(),
            to: to.to_owned(),
            cause: String::new(),
            term: Term(1),
            after_ms: None,
            text: String::new(),
        };
        let mut entries = [entry(7, "active"), entry(9, "standby"), entry(7, "standby"), entry(5, "active")];
        order(&mut entries);
        let told = entries.each_ref().map(|entry| (entry.at_unix_ms, entry.to.as_str()));
        assert_eq!(told, [(5, "active"), (7, "standby"), (7, "active"), (9, "standby")]);
    }
}
