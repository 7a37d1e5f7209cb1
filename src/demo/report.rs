//! What the demo found, for machines and for people.

use super::chaos::ChaosReport;
use super::faults::{Fault, Run, at_most};
use super::lab::Host;
use super::load::LoadReport;
use super::soak::SoakReport;
use crate::time::Duration;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Everything that a demo found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether every promise that was tried was kept.
    pub kept: bool,
    /// The lease that the cluster ran with.
    pub lease_ms: u64,
    /// How long it all took.
    pub seconds: f64,
    /// One entry per kind of fault.
    pub faults: Vec<FaultReport>,
    /// What random blows showed, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<ChaosReport>,
    /// What a busy machine showed, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakReport>,
    /// What the daemons logged as errors, the first of it.
    pub logged_errors: Vec<String>,
    /// What ended the demo early.
    pub error: Option<String>,
    /// Where the daemons' logs are, if they were kept.
    pub logs: Option<PathBuf>,
}

/// All runs of one kind of fault.
#[derive(Debug, Serialize)]
pub struct FaultReport {
    /// Its name.
    pub fault: Fault,
    /// What was done.
    pub title: &'static str,
    /// The longest outage that is promised.
    pub bound_ms: u64,
    /// Whether it was kept in each run.
    pub kept: bool,
    /// Outages.
    pub outage_ms: Spread,
    /// Times in which both nodes answered ARP.
    pub double_ms: Spread,
    /// Each run.
    pub runs: Vec<Run>,
}

/// The smallest, the middle and the largest of some figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one; of an even number the upper of the two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `figures`, which may be in any order; all zero if there are none.
    #[must_use]
    pub fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Self { min: at(0), median: at(sorted.len() / 2), max: at(sorted.len().saturating_sub(1)) }
    }
}

impl FaultReport {
    /// The report of these runs of `fault`.
    #[must_use]
    pub fn new(fault: Fault, bound: Duration, runs: Vec<Run>) -> Self {
        Self {
            fault,
            title: fault.title(),
            bound_ms: u64::try_from(bound.as_millis()).unwrap_or(u64::MAX),
            kept: !runs.is_empty() && runs.iter().all(Run::kept),
            outage_ms: Spread::of(runs.iter().map(|run| run.outage_ms)),
            double_ms: Spread::of(runs.iter().map(|run| run.double_ms)),
            runs,
        }
    }
}

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// A green ✓, or a red ✗.
#[must_use]
pub fn mark(good: bool) -> String {
    if good { format!("{GOOD}✓{GOOD:#}") } else { format!("{BAD}✗{BAD:#}") }
}

/// A run, in a few lines.
#[must_use]
pub fn describe(fault: Fault, bound: Duration, run: &Run) -> String {
    let in_time = run.outage_ms <= bound.as_secs_f64() * 1000.0;
    let mut text = format!(
        "   {} outage {} ms (promised: {}); {} of {} probes failed\n",
        mark(in_time),
        run.outage_ms,
        at_most(bound),
        run.failed_probes,
        run.probes,
    );
    let double = format!("   {} both nodes answered ARP: {} ms\n", mark(run.double_ms == 0.0), run.double_ms);
    text.push_str(&double);
    if let Some(load) = &run.load {
        text.push_str(&describe_load(load));
    }
    let (before, after) = (run.owner_before, run.owner_after);
    let went = if before == after { format!("{after} stays active") } else { format!("{before} → {after}") };
    let allowed = matches!(
        (Host::with_name(before), Host::with_name(after)),
        (Some(before), Some(after)) if fault.owner().allows(before, after)
    );
    let _infallible = writeln!(text, "   {} {went}", mark(allowed));
    for breach in &run.broken {
        let _infallible = writeln!(text, "     {BAD}{breach}{BAD:#}");
    }
    text
}

fn describe_load(load: &LoadReport) -> String {
    let failed = load.failed + load.curl_failed;
    let curl = if load.curl_requests == 0 {
        "curl is not installed".into()
    } else {
        format!("{} by curl", load.curl_requests)
    };
    format!(
        "   {} {failed} of {} real requests failed ({curl}; {} repeated on a new connection; slowest {} ms)\n",
        mark(failed == 0),
        load.requests + load.curl_requests,
        load.repeated,
        load.slowest_ms,
    )
}

/// A table of all runs: outage (smallest, median, largest), and both answering.
#[must_use]
pub fn tabulate(faults: &[FaultReport]) -> String {
    let mut text = format!(
        "{:<14}{:>5}  {:>9}{:>9}{:>9}{:>10}  {:>12}\n",
        "fault", "runs", "min ms", "median", "max", "promised", "both answer"
    );
    for fault in faults {
        let spread = fault.outage_ms;
        let _infallible = writeln!(
            text,
            "{:<14}{:>5}  {:>9.1}{:>9.1}{:>9.1}{:>10}  {:>9.1} ms  {}",
            fault.fault.name(),
            fault.runs.len(),
            spread.min,
            spread.median,
            spread.max,
            fault.bound_ms,
            fault.double_ms.max,
            mark(fault.kept),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outage_ms: f64, broken: &[&str]) -> Run {
        Run {
            outage_ms,
            longest_ms: outage_ms,
            probes: 1000,
            failed_probes: 3,
            double_ms: 0.0,
            owner_before: "n1",
            owner_after: "n2",
            holders: vec!["n1".into(), "n2".into()],
            announcements: 2,
            blind_ms: 4.0,
            load: None,
            broken: broken.iter().map(|&breach| breach.to_owned()).collect(),
        }
    }

    const LEASE: Duration = Duration::from_millis(500);

    #[test]
    fn one_broken_run_of_many_breaks_the_promise() {
        let report =
            FaultReport::new(Fault::Cable, Fault::Cable.bound(LEASE), vec![run(500.0, &[]), run(700.0, &["too long"])]);
        assert!(!report.kept);
        assert_eq!(report.outage_ms, Spread { min: 500.0, median: 700.0, max: 700.0 });
        assert!(tabulate(&[report]).contains('✗'));
        assert!(FaultReport::new(Fault::Cable, Fault::Cable.bound(LEASE), vec![run(500.0, &[])]).kept);
    }

    #[test]
    fn no_run_at_all_keeps_no_promise() {
        assert!(!FaultReport::new(Fault::Cable, Fault::Cable.bound(LEASE), Vec::new()).kept);
    }

    #[test]
    fn a_broken_promise_is_told_in_words() {
        let told = describe(
            Fault::WorkerKill,
            Fault::WorkerKill.bound(LEASE),
            &run(80.0, &["the outage is longer than 50ms"]),
        );
        assert!(told.contains("longer than 50ms") && told.contains('✗'), "{told}");
        assert!(!describe(Fault::WorkerKill, Fault::WorkerKill.bound(LEASE), &run(20.0, &[])).contains('✗'));
    }
}
