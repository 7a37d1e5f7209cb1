//! `hawser demo`: a complete cluster in network namespaces on one machine, and what it does when things break.
//!
//! The laboratory (`lab`) has two nodes, a witness, an application and a client on one switch; the daemons in it are
//! the real ones, started by their command line (`cluster`). A client asks the virtual address every few milliseconds
//! (`prober`), an observer asks by ARP who has it (`observer`), and the faults (`faults`) are judged by what these two
//! saw and nothing else. Both instruments are tested to show red.
//!
//! Not here: anything that a node needs to run.

pub mod app;
pub mod chaos;
pub mod cluster;
mod error;
pub mod faults;
pub mod interrupt;
pub mod lab;
pub mod load;
pub mod netns;
pub mod observer;
pub mod prober;
pub mod process;
pub mod report;
pub mod soak;
pub mod stage;
#[cfg(test)]
mod testing;
pub mod tour;

pub use error::{Error, Result};

use crate::cluster::Timing;
use crate::limits::{DEMO_TIME_MAX, INTERVAL_DEFAULT, INTERVAL_FAST, LEASE_DEFAULT, LEASE_FAST, LEASE_MAX, LEASE_MIN};
use crate::time::Duration;
use clap::ValueEnum;
use faults::Fault;
use report::Report;
use std::io::Write;
use std::process::ExitCode;

/// Exit status of a demo that somebody ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Arguments of `hawser demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Leave the cluster up, and say how to reach it, until Ctrl-C
    #[arg(long, conflicts_with_all = ["json", "faults", "all"])]
    pub stay: bool,
    /// Print one JSON document at the end (progress goes to standard error)
    #[arg(long)]
    pub json: bool,
    /// Do only this fault, for as long as its promise is stated for (may be repeated)
    #[arg(long = "fault", value_name = "NAME")]
    pub faults: Vec<Fault>,
    /// Do all faults, not only those of the tour
    #[arg(long, conflicts_with = "faults")]
    pub all: bool,
    /// Do each fault this many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Strike at random for this long, several blows at once, such as 10m; the two promises that always hold are judged
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["stay", "faults", "all"])]
    pub chaos: Option<Duration>,
    /// The seed of --chaos: the same one strikes the same blows
    #[arg(long, value_name = "N", requires = "chaos", default_value_t = 1)]
    pub seed: u64,
    /// Keep every core and the disk busy for this long; nothing may move
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["stay", "faults", "all", "chaos"])]
    pub soak: Option<Duration>,
    /// List the faults and what is promised for them
    #[arg(long)]
    pub list: bool,
    /// Lease and interval of the cluster: 500ms and 50ms, or 100ms and 10ms
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Profile::Default)]
    pub profile: Profile,
    /// Another lease than the profile's; the interval is a tenth of it, or 50ms
    #[arg(long, value_name = "TIME", value_parser = parse_lease, conflicts_with = "profile")]
    pub lease: Option<Duration>,
    /// Put this etcd in the witness's place
    #[arg(long, value_name = "PROGRAM")]
    pub etcd: Option<std::path::PathBuf>,
}

/// What `cluster.profile` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// For virtual machines and ordinary networks.
    Default,
    /// For quiet machines on good networks.
    Fast,
}

impl Profile {
    /// Its lease and interval.
    #[must_use]
    pub const fn timing(self) -> Timing {
        match self {
            Self::Default => Timing::new(LEASE_DEFAULT, INTERVAL_DEFAULT),
            Self::Fast => Timing::new(LEASE_FAST, INTERVAL_FAST),
        }
    }
}

impl DemoArgs {
    /// What the cluster runs with.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let of_lease = |lease: Duration| Timing::new(lease, INTERVAL_DEFAULT.min(lease / 10));
        self.lease.map_or_else(|| self.profile.timing(), of_lease)
    }

    /// Whether this is the guided tour: nobody chose anything.
    #[must_use]
    pub fn is_tour(&self) -> bool {
        self.faults.is_empty() && !self.all && self.repeat == 1 && self.chaos.is_none() && self.soak.is_none()
    }

    /// The faults to do, in order.
    #[must_use]
    pub fn chosen(&self) -> Vec<Fault> {
        match (self.faults.is_empty(), self.all) {
            (false, _) => self.faults.clone(),
            (true, true) => Fault::ALL.to_vec(),
            (true, false) => Fault::TOUR.to_vec(),
        }
    }
}

fn parse_lease(text: &str) -> std::result::Result<Duration, String> {
    let lease: jiff::SignedDuration = text.parse().map_err(|_| "write a time such as 500ms or 1s".to_owned())?;
    Duration::try_from(lease)
        .ok()
        .filter(|lease| (LEASE_MIN..=LEASE_MAX).contains(lease))
        .ok_or_else(|| format!("a lease is from {LEASE_MIN:?} to {LEASE_MAX:?}"))
}

fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|_| "write a time such as 30s, 10m or 1h".to_owned())?;
    Duration::try_from(time)
        .ok()
        .filter(|time| !time.is_zero() && *time <= DEMO_TIME_MAX)
        .ok_or_else(|| format!("a time is up to {} hours", DEMO_TIME_MAX.as_secs() / 3600))
}

/// Runs the demo, on the terminal. Call it before any thread is started: without root it starts the program again.
///
/// Success only if every promise that was tried was kept.
#[must_use]
pub fn run(arguments: &DemoArgs) -> ExitCode {
    let mut stdout = anstream::stdout();
    let mut stderr = anstream::stderr();
    if arguments.list {
        return told(&mut stdout, &list(arguments.timing().lease), ExitCode::SUCCESS);
    }
    let outcome = stage::enter().and_then(|()| {
        let screen: &mut dyn Write = if arguments.json { &mut stderr } else { &mut stdout };
        tour::run(arguments, screen)
    });
    match outcome {
        Ok(report) => {
            let code = if report.kept { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            let words = tour::conclude(arguments, &report);
            if arguments.json {
                told(&mut stdout, &in_json(&report), told(&mut stderr, &words, code))
            } else if arguments.stay && report.kept {
                code
            } else {
                told(&mut stdout, &words, code)
            }
        }
        Err(end) if end.is_interrupted() => told(&mut stderr, "hawser: interrupted\n", EXIT_INTERRUPTED.into()),
        Err(failure) => told(&mut stderr, &format!("hawser: {failure}\n"), ExitCode::FAILURE),
    }
}

/// Writes the last words; nobody there to read them is no failure.
fn told(screen: &mut dyn Write, words: &str, code: ExitCode) -> ExitCode {
    drop(screen.write_all(words.as_bytes()).and_then(|()| screen.flush()));
    code
}

fn in_json(report: &Report) -> String {
    serde_json::to_string_pretty(report)
        .map_or_else(|failure| format!("{{\"error\":\"{failure}\"}}\n"), |text| text + "\n")
}

fn list(lease: Duration) -> String {
    Fault::ALL
        .iter()
        .map(|fault| {
            format!("{:<14}outage at most {:>4} ms  {}\n", fault.name(), fault.bound(lease).as_millis(), fault.title())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn parse(line: &str) -> std::result::Result<DemoArgs, clap::Error> {
        let command = DemoArgs::augment_args(Command::new("demo"));
        DemoArgs::from_arg_matches(&command.try_get_matches_from(line.split_whitespace())?)
    }

    #[test]
    fn the_demo_runs_with_a_profile_or_with_a_lease_of_ones_own_whatever_it_does() {
        let of = |line: &str| parse(line).unwrap().timing();
        assert_eq!(of("demo"), Timing::new(LEASE_DEFAULT, INTERVAL_DEFAULT));
        let fast = Timing::new(LEASE_FAST, INTERVAL_FAST);
        for what in
            ["", "--all", "--fault cable --repeat 10", "--soak 10m", "--chaos 1m --seed 7", "--etcd /usr/bin/etcd"]
        {
            assert_eq!(of(&format!("demo --profile fast {what}")), fast, "{what}");
        }
        assert_eq!(of("demo --lease 200ms"), Timing::new(Duration::from_millis(200), Duration::from_millis(20)));
        assert_eq!(of("demo --lease 2s"), Timing::new(Duration::from_secs(2), INTERVAL_DEFAULT));
        assert!(parse("demo --profile fast --lease 1s").is_err());
        assert!(parse("demo --lease 99ms").is_err());
    }
}
