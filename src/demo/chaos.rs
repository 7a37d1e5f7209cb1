//! `hawser demo --chaos`: random blows from a seed, several at once, to the real daemons; judged from outside.
//!
//! Each round draws one to three blows, gives each a begin and an end, strikes and heals in the order of time, waits
//! until all is well, and judges what prober and observer saw. Two promises hold whatever is struck together: the two
//! nodes never answer ARP for the address at the same time, and with everything healed one of them serves again.
//!
//! The seed decides what is struck when. What the kernel's scheduler makes of it differs from run to run.

use super::cluster::Cluster;
use super::error::Result;
use super::faults::{Bench, millis};
use super::lab::{Cable, Host, Lab, Nodes};
use super::prober;
use super::process::Daemon;
use super::report::{Spread, mark};
use crate::clock;
use crate::time::{Duration, Instant};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;

/// Blows begin within this time.
const BEGIN_WITHIN_MS: u64 = 1_000;
/// The shortest and the longest blow.
const LASTS_MS: (u64, u64) = (30, 3_000);
/// How long the wire is still watched when all is well again.
const SETTLE: Duration = Duration::from_millis(300);

/// One thing that is done to the cluster, and undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillWorker(Host),
    KillAll(Host),
    FreezeWorker(Host),
    FreezeSupervisor(Host),
    FreezeAll(Host),
    StallWeb(Host),
    KillWitness,
    FreezeWitness,
    Pull(Host),
    Split,
}

impl Blow {
    const ALL: [Self; 17] = [
        Self::KillWorker(Host::N1),
        Self::KillWorker(Host::N2),
        Self::KillAll(Host::N1),
        Self::KillAll(Host::N2),
        Self::FreezeWorker(Host::N1),
        Self::FreezeWorker(Host::N2),
        Self::FreezeSupervisor(Host::N1),
        Self::FreezeSupervisor(Host::N2),
        Self::FreezeAll(Host::N1),
        Self::FreezeAll(Host::N2),
        Self::StallWeb(Host::N1),
        Self::StallWeb(Host::N2),
        Self::KillWitness,
        Self::FreezeWitness,
        Self::Pull(Host::N1),
        Self::Pull(Host::N2),
        Self::Split,
    ];

    /// For people.
    fn words(self) -> String {
        let of = |what: &str, host: Host| format!("{what} of {}", host.name());
        match self {
            Self::KillWorker(node) => of("worker killed", node),
            Self::KillAll(node) => of("supervisor and worker killed", node),
            Self::FreezeWorker(node) => of("worker frozen", node),
            Self::FreezeSupervisor(node) => of("supervisor frozen", node),
            Self::FreezeAll(node) => of("supervisor and worker frozen", node),
            Self::StallWeb(node) => of("web stuck", node),
            Self::KillWitness => "witness killed".into(),
            Self::FreezeWitness => "witness frozen".into(),
            Self::Pull(host) => of("cable pulled", host),
            Self::Split => "node cut from node".into(),
        }
    }
}

/// A blow, and when it begins and ends, from the begin of its round.
#[derive(Debug, Clone, Copy)]
struct Planned {
    blow: Blow,
    begin: Duration,
    end: Duration,
}

impl Planned {
    fn words(&self) -> String {
        format!("{} at {} ms for {} ms", self.blow.words(), self.begin.as_millis(), (self.end - self.begin).as_millis())
    }
}

/// Numbers from a seed (splitmix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn upto(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    /// What a round does.
    fn plan(&mut self) -> Vec<Planned> {
        let mut plan: Vec<Planned> = Vec::new();
        for _ in 0..=self.upto(3).min(2) {
            let at = usize::try_from(self.upto(Blow::ALL.len() as u64)).unwrap_or_default();
            let begin = self.upto(BEGIN_WITHIN_MS);
            // Short ones as often as long ones: what is over before a lease ends is as dangerous as what lasts.
            let (least, most) = LASTS_MS;
            let most = if self.upto(2) == 0 { most } else { most / 5 };
            let lasts = least + self.upto(most - least);
            let Some(blow) = Blow::ALL.get(at).copied() else { continue };
            if plan.iter().all(|other| other.blow != blow) {
                let (begin, end) = (Duration::from_millis(begin), Duration::from_millis(begin + lasts));
                plan.push(Planned { blow, begin, end });
            }
        }
        plan
    }
}

/// One round, and what was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// What was done.
    pub blows: Vec<String>,
    /// All times together in which new visitors were not served promptly.
    pub outage_ms: f64,
    /// How long both nodes answered ARP for the address.
    pub double_ms: f64,
    /// Who answered ARP for the address, in order.
    pub holders: Vec<String>,
    /// The longest time in which the observer was held up: two answers may have been missed in it.
    pub blind_ms: f64,
}

/// What all rounds showed.
#[derive(Debug, Default, Serialize)]
pub struct ChaosReport {
    /// The seed: the same one strikes the same blows.
    pub seed: u64,
    /// The rounds in which something was wrong.
    pub bad: Vec<Round>,
    /// How many rounds there were.
    pub rounds: usize,
    /// How many blows.
    pub blows: usize,
    /// Their outages.
    pub outage_ms: Spread,
    /// The longest time in which both nodes answered ARP.
    pub double_ms: f64,
    /// The longest time in which the observer was held up.
    pub blind_ms: f64,
}

impl ChaosReport {
    /// Whether every promise was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.rounds > 0 && self.bad.is_empty()
    }
}

/// Strikes for as long as `time`, and tells each round to `say`. The last round is finished.
///
/// # Errors
/// If a blow cannot be done, or the cluster does not get well again: then nobody serves, and the promise is broken.
pub fn run(
    bench: &mut Bench<'_>,
    seed: u64,
    time: Duration,
    (report, say): (&mut ChaosReport, &mut dyn FnMut(&str)),
) -> Result<()> {
    let mut dice = Dice(seed);
    let mut outages = Vec::new();
    report.seed = seed;
    let end = clock::now() + time;
    while clock::now() < end {
        let plan = dice.plan();
        let words: Vec<String> = plan.iter().map(Planned::words).collect();
        say(&format!("{}. {}\n", report.rounds + 1, words.join("; ")));
        let round = one(bench, &plan, words)?;
        say(&format!(
            "   {} outage {} ms; both nodes answered ARP: {} ms; {}\n",
            mark(round.double_ms == 0.0),
            round.outage_ms,
            round.double_ms,
            round.holders.join(" → ")
        ));
        outages.push(round.outage_ms);
        report.rounds += 1;
        report.blows += plan.len();
        report.outage_ms = Spread::of(outages.iter().copied());
        report.double_ms = report.double_ms.max(round.double_ms);
        report.blind_ms = report.blind_ms.max(round.blind_ms);
        if round.double_ms > 0.0 {
            report.bad.push(round);
        }
    }
    Ok(())
}

/// The findings, for people.
#[must_use]
pub fn describe(report: &ChaosReport) -> String {
    let outage = report.outage_ms;
    format!(
        "\n   {} rounds with {} blows, seed {}\n   outage per round: {} / {} / {} ms (smallest, median, largest)\n   \
         both nodes answered ARP: {} ms; the observer was held up for {} ms at most\n",
        report.rounds,
        report.blows,
        report.seed,
        outage.min,
        outage.median,
        outage.max,
        report.double_ms,
        report.blind_ms,
    )
}

fn one(bench: &mut Bench<'_>, plan: &[Planned], blows: Vec<String>) -> Result<Round> {
    let from = clock::now();
    let outcome = strike(bench, plan, from);
    heal(bench.lab, bench.cluster)?;
    outcome?;
    bench.settle()?;
    bench.interrupt.wait(SETTLE)?;
    let to = clock::now();
    let outage = prober::judge(&bench.prober.between(from, to)?);
    let sighting = bench.observer.between(from, to)?;
    Ok(Round {
        blows,
        outage_ms: millis(outage.total),
        double_ms: millis(sighting.double),
        holders: sighting.holder_names(),
        blind_ms: millis(sighting.blind),
    })
}

/// Begins and ends the blows, each in its time.
fn strike(bench: &mut Bench<'_>, plan: &[Planned], from: Instant) -> Result<()> {
    let mut steps: Vec<(Duration, bool, Blow)> = Vec::new();
    for planned in plan {
        steps.push((planned.begin, true, planned.blow));
        steps.push((planned.end, false, planned.blow));
    }
    steps.sort_by_key(|(at, begins, _)| (*at, *begins));
    let mut frozen = Vec::new();
    for (at, begins, blow) in steps {
        bench.interrupt.wait(clock::now().until(from + at))?;
        if begins {
            begin(bench.lab, bench.cluster, blow, &mut frozen)?;
        } else {
            end(bench.lab, bench.cluster, blow, &mut frozen)?;
        }
    }
    Ok(())
}

type Frozen = Vec<(Blow, Vec<Pid>)>;

fn begin(lab: &Lab, cluster: &mut Cluster, blow: Blow, frozen: &mut Frozen) -> Result<()> {
    let mut freeze = |pids: Vec<Pid>| {
        Daemon::signal_if_there(&pids, Signal::SIGSTOP);
        frozen.push((blow, pids));
    };
    match blow {
        Blow::KillWorker(node) => Daemon::signal_if_there(&cluster.node(node).workers(), Signal::SIGKILL),
        Blow::KillAll(node) => cluster.node(node).end(),
        Blow::FreezeWorker(node) => freeze(cluster.node(node).workers()),
        Blow::FreezeSupervisor(node) => freeze(vec![cluster.node(node).pid()]),
        Blow::FreezeAll(node) => {
            let daemon = cluster.node(node);
            freeze([vec![daemon.pid()], daemon.workers()].concat());
        }
        Blow::StallWeb(node) => cluster.stall_web(node, true)?,
        Blow::KillWitness => cluster.witness().end(),
        Blow::FreezeWitness => freeze(vec![cluster.witness().pid()]),
        Blow::Pull(host) => lab.set_cable(host, Cable::Pulled)?,
        Blow::Split => lab.set_nodes(Nodes::Apart)?,
    }
    Ok(())
}

fn end(lab: &Lab, cluster: &mut Cluster, blow: Blow, frozen: &mut Frozen) -> Result<()> {
    match blow {
        Blow::KillWorker(_) => {}
        Blow::KillAll(node) => cluster.node(node).restart()?,
        Blow::KillWitness => cluster.witness().restart()?,
        Blow::FreezeWorker(_) | Blow::FreezeSupervisor(_) | Blow::FreezeAll(_) | Blow::FreezeWitness => {
            for (_, pids) in frozen.iter().filter(|(of, _)| *of == blow) {
                Daemon::signal_if_there(pids, Signal::SIGCONT);
            }
        }
        Blow::StallWeb(node) => cluster.stall_web(node, false)?,
        Blow::Pull(host) => lab.set_cable(host, Cable::Plugged)?,
        Blow::Split => lab.set_nodes(Nodes::Joined)?,
    }
    Ok(())
}

/// Undoes whatever may still be done: blows overlap, and one that begins in another's time may outlast it.
fn heal(lab: &Lab, cluster: &mut Cluster) -> Result<()> {
    lab.set_nodes(Nodes::Joined)?;
    for node in Host::NODES {
        lab.set_cable(node, Cable::Plugged)?;
        cluster.stall_web(node, false)?;
        let daemon = cluster.node(node);
        let all = [vec![daemon.pid()], daemon.workers()].concat();
        if daemon.is_running() {
            Daemon::signal_if_there(&all, Signal::SIGCONT);
        } else {
            daemon.restart()?;
        }
    }
    let witness = cluster.witness();
    if witness.is_running() {
        Daemon::signal_if_there(&[witness.pid()], Signal::SIGCONT);
        return Ok(());
    }
    witness.restart()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_strikes_the_same_blows_twice_and_in_time_every_one() {
        let plans = |seed: u64| -> Vec<Vec<String>> {
            let mut dice = Dice(seed);
            (0..300).map(|_| dice.plan().iter().map(Planned::words).collect()).collect()
        };
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
        let mut dice = Dice(7);
        let seen: BTreeSet<String> = (0..300).flat_map(|_| dice.plan()).map(|planned| planned.blow.words()).collect();
        assert_eq!(seen.len(), Blow::ALL.len());
        assert!((0..300).map(|_| dice.plan()).all(|plan| (1..=3).contains(&plan.len())));
    }
}
