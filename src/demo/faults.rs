//! What the demo does to the cluster, what is promised for it, and how it is measured.
//!
//! Each run: wait until all is well; strike; heal; wait until all is well again; let it settle; then judge all that
//! prober and observer saw from the strike on. So a second blip, at the heal, counts like the first.

use super::cluster::{Cluster, GROUP, VIP, VIP_V6};
use super::error::{Attempt, Error, Result};
use super::interrupt::Interrupt;
use super::lab::{Cable, Families, Host, Lab, Nodes, peer_of};
use super::load::{Load, LoadReport};
use super::observer::Observer;
use super::prober;
use super::prober::Prober;
use crate::clock;
use crate::cluster::Timing;
use crate::time::{Duration, Instant};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::net::SocketAddr;

/// How long the cluster may take until all is well: a voter without a memory is silent for 11 s after its start.
const WELL_WITHIN: Duration = Duration::from_secs(40);
/// Time between two looks at what the nodes say; each look starts two programs.
const LOOK: Duration = Duration::from_millis(100);
/// The cluster is left alone for this long after a blow, so that looking at it does not slow it down.
const CALM: Duration = Duration::from_millis(700);
/// How long an owner may take to lose its group, where that is waited for.
const MOVED_WITHIN: Duration = Duration::from_secs(10);
/// How long the wire is still watched when all is well again.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a short fault lasts.
const SHORT: Duration = Duration::from_secs(2);
/// How long a long freeze lasts.
const LONG: Duration = Duration::from_secs(10);
/// Probes in a row that the owner must have answered before a run begins.
const GOOD_PROBES: usize = 50;
/// An instrument that was held up for longer than this has seen nothing that can be relied on.
const BLIND_MAX: Duration = Duration::from_millis(100);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The owner's worker is killed.
    WorkerKill,
    /// The owner's daemon is stopped, supervisor and worker, and later goes on.
    Freeze,
    /// The owner's supervisor and worker are killed together.
    BothKill,
    /// The owner's cable is pulled, and later plugged in.
    Cable,
    /// Node is cut from node; both still see the witness.
    Split,
    /// The owner's web threads no longer answer.
    WebStuck,
    /// The witness is killed, and later started again.
    WitnessKill,
    /// A planned move, under load.
    Switchover,
}

/// What must become of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It stays where it is.
    Stays,
    /// The peer has it afterwards.
    Moves,
    /// Either will do.
    Any,
}

impl Owner {
    /// Whether a group that was on one node may be on the other now.
    #[must_use]
    pub fn allows(self, before: Host, after: Host) -> bool {
        match self {
            Self::Stays => before == after,
            Self::Moves => before != after,
            Self::Any => true,
        }
    }
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WorkerKill,
        Self::Freeze,
        Self::BothKill,
        Self::Cable,
        Self::Split,
        Self::WebStuck,
        Self::WitnessKill,
        Self::Switchover,
    ];
    /// Those of the guided tour.
    pub const TOUR: [Self; 5] = [Self::WorkerKill, Self::Freeze, Self::Cable, Self::Split, Self::Switchover];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WorkerKill => "worker-kill",
            Self::Freeze => "freeze",
            Self::BothKill => "both-kill",
            Self::Cable => "cable",
            Self::Split => "split",
            Self::WebStuck => "web-stuck",
            Self::WitnessKill => "witness-kill",
            Self::Switchover => "switchover",
        }
    }

    /// What is done, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::WorkerKill => "the owner's daemon is killed (kill -9)",
            Self::Freeze => "the owner's daemon hangs, supervisor and worker (SIGSTOP), and later goes on",
            Self::BothKill => "the owner's supervisor and worker are killed together (kill -9)",
            Self::Cable => "the owner's cable is pulled, and later plugged in",
            Self::Split => "node is cut from node while both see the witness, and later healed",
            Self::WebStuck => "the owner's web server is stuck",
            Self::WitnessKill => "the witness is killed, and later started again",
            Self::Switchover => "a planned switchover, while visitors keep coming",
        }
    }

    /// The longest outage that is promised.
    #[must_use]
    pub fn bound(self, lease: Duration) -> Duration {
        let lost_lease = lease * 11 / 10;
        match self {
            Self::WorkerKill => Duration::from_millis(50),
            Self::Freeze | Self::BothKill => lost_lease + Duration::from_millis(100),
            Self::Cable => lost_lease + Duration::from_millis(50),
            Self::Split | Self::WitnessKill => Duration::ZERO,
            Self::WebStuck => Duration::from_millis(3500),
            Self::Switchover => Duration::from_millis(15),
        }
    }

    /// What must become of the group.
    #[must_use]
    pub const fn owner(self) -> Owner {
        match self {
            Self::WorkerKill => Owner::Any,
            Self::Freeze | Self::BothKill | Self::Cable | Self::WebStuck | Self::Switchover => Owner::Moves,
            Self::Split | Self::WitnessKill => Owner::Stays,
        }
    }
}

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Short, for people who look on.
    Tour,
    /// As long as the promises are stated for.
    Measured,
}

/// What one run showed.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// All times together in which new visitors were not served promptly.
    pub outage_ms: f64,
    /// The longest of these times.
    pub longest_ms: f64,
    /// Probes launched.
    pub probes: usize,
    /// Probes that failed.
    pub failed_probes: usize,
    /// How long both nodes answered ARP for the address.
    pub double_ms: f64,
    /// Who had the group.
    pub owner_before: &'static str,
    /// Who has it now.
    pub owner_after: &'static str,
    /// Who answered ARP for the address, in order.
    pub holders: Vec<String>,
    /// Gratuitous ARP frames seen.
    pub announcements: usize,
    /// The longest time in which an instrument was held up.
    pub blind_ms: f64,
    /// What real visitors met, where there were some.
    pub load: Option<LoadReport>,
    /// What was promised and not kept; empty is good.
    pub broken: Vec<String>,
}

impl Run {
    /// Whether everything promised was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }
}

/// The cluster, and the instruments around it.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The network.
    pub lab: &'a Lab,
    /// The daemons.
    pub cluster: &'a mut Cluster,
    /// Asks the virtual address from the client.
    pub prober: &'a Prober,
    /// Asks by ARP on the switch.
    pub observer: &'a Observer,
    /// Ends all waiting.
    pub interrupt: &'a Interrupt,
    /// What the cluster runs with.
    pub timing: Timing,
    /// How long faults last.
    pub pace: Pace,
}

impl Bench<'_> {
    /// The longest outage that is promised with this third voter. A doubt is written to an etcd when the peer was not
    /// heard for three intervals.
    #[must_use]
    pub fn promised(&self, fault: Fault) -> Duration {
        let doubt = match fault {
            Fault::Freeze | Fault::BothKill | Fault::Cable if self.cluster.is_by_etcd() => self.timing.heard(),
            Fault::WorkerKill
            | Fault::Freeze
            | Fault::BothKill
            | Fault::Cable
            | Fault::Split
            | Fault::WebStuck
            | Fault::WitnessKill
            | Fault::Switchover => Duration::ZERO,
        };
        fault.bound(self.timing.lease) + doubt
    }

    /// After a move for unfitness the group does not move back for that reason for 10 s: whoever repeats such a fault
    /// sooner measures that rule, and not the promise.
    ///
    /// # Errors
    /// If somebody ends the demo meanwhile.
    pub fn rest_before(&self, fault: Fault) -> Result<()> {
        if fault == Fault::WebStuck { self.interrupt.wait(Duration::from_secs(10)) } else { Ok(()) }
    }

    /// Waits until both nodes name the same owner, everybody is well, and the owner alone answers the client.
    ///
    /// # Errors
    /// If that does not come to pass; the message says what is missing.
    pub fn settle(&mut self) -> Result<Host> {
        let end = clock::now() + WELL_WITHIN;
        let mut last = self.settled_once();
        loop {
            self.interrupt.wait(LOOK)?;
            let seen = self.settled_once();
            match (last, seen) {
                (Ok(before), Ok(owner)) if before == owner => return Ok(owner),
                (_, Err(missing)) if clock::now() >= end => {
                    return Err(missing).or_cannot(format_args!("get the cluster well within {WELL_WITHIN:?}"));
                }
                (_, seen) => last = seen,
            }
        }
    }

    fn settled_once(&mut self) -> Result<Host> {
        if let Some(daemon) = self.cluster.ended() {
            let (name, log) = (daemon.host().name(), daemon.log().display());
            return Err(Error::new(format!("the daemon of {name} has ended; its log is {log}")));
        }
        let owner = self.cluster.settled()?;
        let probes = self.prober.latest(GOOD_PROBES);
        let served = probes.len() == GOOD_PROBES && probes.iter().all(|probe| probe.answered_by == Some(owner));
        if !served {
            return Err(Error::new(format!("{} does not serve the client", owner.name())));
        }
        if self.lab.families() == Families::Both && !self.serves_v6(owner)? {
            return Err(Error::new(format!("{} does not serve the client by IPv6", owner.name())));
        }
        Ok(owner)
    }

    /// One request to the IPv6 address, from the client.
    fn serves_v6(&self, owner: Host) -> Result<bool> {
        let target = SocketAddr::from((VIP_V6, 80));
        self.lab.host(Host::Client).run(|| prober::ask_once(target)).map(|answered_by| answered_by == Some(owner))
    }

    /// Does a fault to the cluster as it is now, heals it, and judges what was seen.
    ///
    /// # Errors
    /// If the cluster is not well before or afterwards, or the fault cannot be done.
    pub fn run(&mut self, fault: Fault) -> Result<Run> {
        let before = self.settle()?;
        let from = clock::now();
        let load = self.strike(fault, before)?;
        let after = self.settle()?;
        self.interrupt.wait(SETTLE)?;
        self.judge(fault, (before, after), (from, clock::now()), load)
    }

    fn strike(&mut self, fault: Fault, owner: Host) -> Result<Option<LoadReport>> {
        match fault {
            Fault::WorkerKill => {
                self.cluster.node(owner).signal_workers(Signal::SIGKILL)?;
                self.interrupt.wait(CALM)?;
            }
            Fault::Freeze => self.freeze(owner)?,
            Fault::BothKill => {
                self.cluster.node(owner).signal_all(Signal::SIGKILL)?;
                self.interrupt.wait(self.long_enough(SHORT))?;
                self.cluster.node(owner).restart()?;
            }
            Fault::Cable => {
                self.lab.set_cable(owner, Cable::Pulled)?;
                self.interrupt.wait(self.long_enough(SHORT))?;
                self.lab.set_cable(owner, Cable::Plugged)?;
            }
            Fault::Split => {
                self.lab.set_nodes(Nodes::Apart)?;
                self.interrupt.wait(self.long_enough(SHORT))?;
                self.lab.set_nodes(Nodes::Joined)?;
            }
            Fault::WebStuck => self.stall_web(owner)?,
            Fault::WitnessKill => {
                self.cluster.witness().signal_all(Signal::SIGKILL)?;
                self.interrupt.wait(self.long_enough(SHORT))?;
                self.cluster.witness().restart()?;
            }
            Fault::Switchover => return self.switch_over(owner).map(Some),
        }
        Ok(None)
    }

    /// A fault must outlast a lease to show what happens when one ends.
    fn long_enough(&self, time: Duration) -> Duration {
        time.max(self.timing.lease * 3)
    }

    fn freeze(&mut self, owner: Host) -> Result<()> {
        let time = self.long_enough(match self.pace {
            Pace::Tour => SHORT,
            Pace::Measured => LONG,
        });
        self.cluster.node(owner).signal_all(Signal::SIGSTOP)?;
        self.interrupt.wait(time)?;
        self.cluster.node(owner).signal_all(Signal::SIGCONT)
    }

    fn stall_web(&mut self, owner: Host) -> Result<()> {
        self.cluster.stall_web(owner, true)?;
        let served_by_peer =
            || self.prober.latest(GOOD_PROBES).iter().all(|probe| probe.answered_by == Some(peer_of(owner)));
        let moved = self.interrupt.wait_until(MOVED_WITHIN, served_by_peer);
        self.cluster.stall_web(owner, false)?;
        moved.map(drop) // an owner that stayed is judged by the outage
    }

    fn switch_over(&mut self, owner: Host) -> Result<LoadReport> {
        let load = Load::start(self.lab.host(Host::Client), SocketAddr::from((VIP, 80)))?;
        self.interrupt.wait(SETTLE)?;
        self.cluster.switchover(owner)?;
        self.interrupt.wait(SHORT / 2)?;
        load.finish()
    }

    fn judge(
        &self,
        fault: Fault,
        (before, after): (Host, Host),
        (from, to): (Instant, Instant),
        load: Option<LoadReport>,
    ) -> Result<Run> {
        let outage = prober::judge(&self.prober.between(from, to)?);
        let sighting = self.observer.between(from, to)?;
        let bound = self.promised(fault);
        let double = millis(sighting.double);
        let blind = millis(outage.blind.max(sighting.blind));
        let holders = sighting.holder_names();
        let last = holders.last().map_or("nobody", String::as_str);
        let failed = load.as_ref().map_or(0, |load| load.failed + load.curl_failed);
        let (was, is) = (before.name(), after.name());
        let breaches = [
            (outage.total > bound, format!("an outage of {} ms, {} promised", millis(outage.total), at_most(bound))),
            (!sighting.double.is_zero(), format!("both nodes answered ARP for {double} ms")),
            (last != is, format!("{last} answers ARP, and {is} has the group")),
            (!fault.owner().allows(before, after), format!("{GROUP} was on {was} and is now on {is}")),
            (failed > 0, format!("{failed} requests of real visitors failed")),
            (blind > millis(BLIND_MAX), format!("too busy a machine: the instruments were held up for {blind} ms")),
        ];
        let broken = breaches.into_iter().filter(|(is_so, _)| *is_so).map(|(_, breach)| breach).collect();
        Ok(Run {
            outage_ms: millis(outage.total),
            longest_ms: millis(outage.longest),
            probes: outage.probes,
            failed_probes: outage.failed,
            double_ms: double,
            owner_before: was,
            owner_after: is,
            holders,
            announcements: sighting.announcements,
            blind_ms: blind,
            load,
            broken,
        })
    }
}

/// A bound, for people.
#[must_use]
pub fn at_most(bound: Duration) -> String {
    if bound.is_zero() { "none".into() } else { format!("at most {} ms", bound.as_millis()) }
}

/// Milliseconds, with one digit after the point: the instruments know no more.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_promised_ones_at_the_default_lease() {
        let promised: Vec<u128> =
            Fault::ALL.iter().map(|fault| fault.bound(Duration::from_millis(500)).as_millis()).collect();
        assert_eq!(promised, [50, 650, 650, 600, 0, 3500, 0, 15]);
    }

    #[test]
    fn a_fault_is_called_on_the_command_line_what_it_is_called_in_the_report() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_str(fault.name(), false), Ok(fault));
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
    }
}
