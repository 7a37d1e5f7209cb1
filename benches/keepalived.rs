//! hawser beside keepalived from the distribution: the same laboratory, the same faults, the same instruments.
//!
//! `benches/keepalived.sh` says what is needed and starts this. One pair at a time has the machine; the pairs take
//! turns, so that whatever else the machine does falls on all of them. Each fault is judged from outside alone: how long
//! a new visitor was not served promptly (`hawser::demo::prober`), and how long both nodes answered ARP for the address
//! (`hawser::demo::observer`).
//!
//! What is done for keepalived: both nodes begin as `BACKUP` with `nopreempt`, as its documentation advises where nothing
//! shall move back by itself; its VRRP process runs with real-time priority and locked memory, as hawser's cluster thread
//! does; the priorities are the highest two, so that the skew time is the shortest that VRRP knows. Adverts are sent by
//! multicast each second (VRRP 2, its default) or each 10 ms (VRRP 3, the shortest that there is). A planned move is what
//! stops its service: SIGTERM, upon which it tells its peer to take over. Behind it the same web server as hawser's.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what a person reads")]

use clap::{Parser, ValueEnum};
use hawser::clock;
use hawser::demo::app::App;
use hawser::demo::cluster::{Cluster, VIP};
use hawser::demo::interrupt::Interrupt;
use hawser::demo::lab::{Cable, Host, Lab, Nodes};
use hawser::demo::observer::Observer;
use hawser::demo::prober::{self, Prober};
use hawser::demo::process::{Daemon, Recipe};
use hawser::demo::report::Spread;
use hawser::demo::{Error, Profile, Result};
use hawser::time::{Duration, Instant};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

const HAWSER: &str = env!("CARGO_BIN_EXE_hawser");
/// How long a pair may take until all is well: a neighbour's cache that nobody corrects is believed for so long.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks at it.
const LOOK: Duration = Duration::from_millis(100);
/// It counts as well when nothing has changed for this long.
const STEADY: Duration = Duration::from_millis(500);
/// Probes in a row that the owner must have answered then.
const GOOD_PROBES: usize = 50;
/// How long the wire is still watched when all is well again.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a fault lasts: with an advert each second a backup waits for three of them.
const LASTS: Duration = Duration::from_secs(4);
/// How long a freeze lasts.
const FREEZE: Duration = Duration::from_secs(10);
/// An instrument that was held up for longer than this has seen nothing that can be relied on.
const BLIND_MAX: Duration = Duration::from_millis(100);

/// Measures hawser beside keepalived. Needs root, and keepalived.
#[derive(Debug, Parser)]
#[command(name = "keepalived.sh")]
struct Arguments {
    /// Do each fault this many times with each pair.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Do only this fault; may be repeated.
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<Fault>,
    /// The keepalived to measure.
    #[arg(long, value_name = "PROGRAM", default_value = "/usr/sbin/keepalived")]
    keepalived: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Fault {
    WorkerKill,
    ParentKill,
    BothKill,
    Freeze,
    Cable,
    Split,
    Move,
}

impl Fault {
    const fn title(self) -> &'static str {
        match self {
            Self::WorkerKill => "the owner's working process is killed (hawser's worker, keepalived's VRRP child)",
            Self::ParentKill => "the owner's first process is killed (hawser's supervisor, keepalived's parent)",
            Self::BothKill => "all of the owner's processes are killed together, and started again after 4 s",
            Self::Freeze => "all of the owner's processes are stopped for 10 s, and go on",
            Self::Cable => "the owner's cable is pulled for 4 s",
            Self::Split => "node is cut from node for 4 s; both see everybody else",
            Self::Move => "a planned move (hawser switchover; keepalived: its service is stopped)",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Hawser,
    HawserFast,
    Keepalived,
    KeepalivedFast,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Hawser, Self::HawserFast, Self::Keepalived, Self::KeepalivedFast];

    const fn name(self) -> &'static str {
        match self {
            Self::Hawser => "hawser, lease 500 ms",
            Self::HawserFast => "hawser, lease 100 ms",
            Self::Keepalived => "keepalived, advert 1 s",
            Self::KeepalivedFast => "keepalived, advert 10 ms",
        }
    }
}

/// Two nodes that share the address.
enum Pair {
    Hawser { cluster: Cluster, _app: App },
    Keepalived { nodes: [Daemon; 2], webs: [Daemon; 2] },
}

impl Pair {
    fn start(subject: Subject, lab: &Lab, folder: &Path, keepalived: &str) -> Result<Self> {
        let hawser = |profile: Profile| {
            let _app = App::start(lab.host(Host::App))?;
            let cluster = Cluster::start(lab, Path::new(HAWSER), folder, (profile.timing(), None))?;
            Ok(Self::Hawser { cluster, _app })
        };
        match subject {
            Subject::Hawser => hawser(Profile::Default),
            Subject::HawserFast => hawser(Profile::Fast),
            Subject::Keepalived => Self::of_keepalived(lab, folder, keepalived, "version 2\n    advert_int 1"),
            Subject::KeepalivedFast => Self::of_keepalived(lab, folder, keepalived, "version 3\n    advert_int 0.01"),
        }
    }

    fn of_keepalived(lab: &Lab, folder: &Path, program: &str, timing: &str) -> Result<Self> {
        let [n1, n2] = Host::NODES;
        let web = |node| web_server(lab, folder, node);
        let vrrp = |node, priority| vrrp_router(lab, folder, program, (node, priority, timing));
        Ok(Self::Keepalived { nodes: [vrrp(n1, 254)?, vrrp(n2, 253)?], webs: [web(n1)?, web(n2)?] })
    }

    fn node(&mut self, host: Host) -> &mut Daemon {
        match self {
            Self::Hawser { cluster, .. } => cluster.node(host),
            Self::Keepalived { nodes: [n1, n2], .. } => {
                if host == Host::N2 {
                    n2
                } else {
                    n1
                }
            }
        }
    }

    /// Who owns the address by the word of the nodes themselves, or why that cannot be said.
    fn owner(&mut self) -> Result<Option<Host>> {
        match self {
            Self::Hawser { cluster, .. } => cluster.settled().map(Some),
            Self::Keepalived { nodes, webs } => {
                let ended = nodes.iter_mut().chain(webs).find_map(|daemon| (!daemon.is_running()).then_some(&*daemon));
                match ended {
                    Some(daemon) => Err(Error::new(format!("a daemon of {} has ended", daemon.host().name()))),
                    None => Ok(None),
                }
            }
        }
    }

    fn move_away(&mut self, owner: Host) -> Result<()> {
        match self {
            Self::Hawser { cluster, .. } => cluster.switchover(owner),
            Self::Keepalived { .. } => {
                Daemon::signal_if_there(&[self.node(owner).pid()], Signal::SIGTERM);
                Ok(())
            }
        }
    }
}

/// What a visitor asks for, on both nodes, whoever has the address.
fn web_server(lab: &Lab, folder: &Path, node: Host) -> Result<Daemon> {
    let site = folder.join(node.name()).join("site");
    let file = site.join("node.txt");
    write(&file, &format!("{}\n", node.name()))?;
    let recipe = Recipe {
        program: HAWSER.into(),
        arguments: vec!["serve".into(), site.display().to_string(), "--listen".into(), "0.0.0.0:80".into()],
        environment: Vec::new(),
        log: folder.join(format!("{}-web.log", node.name())),
    };
    Daemon::start(node, lab.host(node), recipe)
}

fn vrrp_router(lab: &Lab, folder: &Path, program: &str, (node, priority, timing): (Host, u8, &str)) -> Result<Daemon> {
    let name = node.name();
    let home = folder.join(name);
    let config = home.join("keepalived.conf");
    let text = format!(
        "global_defs {{\n    router_id {name}\n    vrrp_rt_priority 1\n    vrrp_no_swap\n}}\n\
         vrrp_instance web {{\n    state BACKUP\n    nopreempt\n    interface eth0\n    virtual_router_id 51\n    \
         priority {priority}\n    {timing}\n    virtual_ipaddress {{\n        {VIP}/24\n    }}\n}}\n"
    );
    write(&config, &text)?;
    let file = |what: &str| home.join(what).display().to_string();
    let recipe = Recipe {
        program: program.into(),
        arguments: vec![
            "--dont-fork".into(),
            "--vrrp".into(),
            "--log-console".into(),
            "--no-syslog".into(),
            format!("--use-file={}", config.display()),
            format!("--pid={}", file("parent.pid")),
            format!("--vrrp_pid={}", file("vrrp.pid")),
        ],
        environment: Vec::new(),
        log: folder.join(format!("{name}.log")),
    };
    Daemon::start(node, lab.host(node), recipe)
}

fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(file, text));
    written.map_err(|cause| Error::new(format!("cannot write {}: {cause}", file.display())))
}

/// What was seen of one fault, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Seen {
    outage: f64,
    double: f64,
    blind: f64,
    /// Whether it got well again; if not, the figures go as far as it was waited for.
    well: bool,
}

/// A pair on a switch of its own, and the instruments. Dropped from the top: the daemons end before their networks.
struct Bench<'a> {
    pair: Pair,
    prober: Prober,
    observer: Observer,
    lab: Lab,
    interrupt: &'a Interrupt,
    _folder: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    fn start(subject: Subject, arguments: &Arguments, interrupt: &'a Interrupt) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|cause| Error::new(format!("cannot make a folder: {cause}")))?;
        let lab = Lab::new()?;
        let pair = Pair::start(subject, &lab, folder.path(), &arguments.keepalived)?;
        let prober = Prober::start(lab.host(Host::Client), SocketAddr::from((VIP, 80)))?;
        let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP)?;
        Ok(Self { pair, prober, observer, lab, interrupt, _folder: folder })
    }

    /// Waits until one node alone has the address and serves the visitor, and both nodes are up.
    fn settle(&mut self) -> Result<Host> {
        let end = clock::now() + WELL_WITHIN;
        loop {
            self.interrupt.wait(LOOK)?;
            match self.settled_once() {
                Ok(owner) => return Ok(owner),
                Err(missing) if clock::now() >= end => return Err(missing.during("the pair does not get well")),
                Err(_) => {}
            }
        }
    }

    fn settled_once(&mut self) -> Result<Host> {
        let said = self.pair.owner()?;
        self.interrupt.wait(STEADY)?;
        let now = clock::now();
        let sighting = self.observer.between(now - STEADY, now)?;
        let [holder] = sighting.holders.as_slice() else {
            return Err(Error::new(format!("{:?} answer for the address", sighting.holder_names())));
        };
        let probes = self.prober.latest(GOOD_PROBES);
        match Host::with_mac(*holder) {
            Some(owner) if sighting.double.is_zero() && said.is_none_or(|said| said == owner) => {
                let served = probes.len() == GOOD_PROBES && probes.iter().all(|p| p.answered_by == Some(owner));
                served.then_some(owner).ok_or_else(|| Error::new(format!("{} does not serve", owner.name())))
            }
            Some(_) | None => Err(Error::new("both nodes answer for the address")),
        }
    }

    fn run(&mut self, fault: Fault) -> Result<Seen> {
        let owner = self.settle()?;
        let from = clock::now();
        self.strike(fault, owner)?;
        let well = match self.settle() {
            Err(end) if end.is_interrupted() => return Err(end),
            Err(missing) => {
                eprintln!("   {missing}");
                false
            }
            Ok(_) => true,
        };
        self.interrupt.wait(SETTLE)?;
        self.judge(from, clock::now(), well)
    }

    fn strike(&mut self, fault: Fault, owner: Host) -> Result<()> {
        match fault {
            Fault::WorkerKill => self.pair.node(owner).signal_workers(Signal::SIGKILL)?,
            Fault::ParentKill => Daemon::signal_if_there(&[self.pair.node(owner).pid()], Signal::SIGKILL),
            Fault::BothKill => self.pair.node(owner).signal_all(Signal::SIGKILL)?,
            Fault::Freeze => {
                self.pair.node(owner).signal_all(Signal::SIGSTOP)?;
                self.interrupt.wait(FREEZE)?;
                return self.pair.node(owner).signal_all(Signal::SIGCONT);
            }
            Fault::Cable => self.lab.set_cable(owner, Cable::Pulled)?,
            Fault::Split => self.lab.set_nodes(Nodes::Apart)?,
            Fault::Move => self.pair.move_away(owner)?,
        }
        self.interrupt.wait(LASTS)?;
        self.lab.set_cable(owner, Cable::Plugged)?;
        self.lab.set_nodes(Nodes::Joined)?;
        // As the one who looks after the machines would.
        if self.pair.node(owner).is_running() { Ok(()) } else { self.pair.node(owner).restart() }
    }

    fn judge(&self, from: Instant, to: Instant, well: bool) -> Result<Seen> {
        let outage = prober::judge(&self.prober.between(from, to)?);
        let sighting = self.observer.between(from, to)?;
        let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        let blind = outage.blind.max(sighting.blind);
        Ok(Seen { outage: millis(outage.total), double: millis(sighting.double), blind: millis(blind), well })
    }
}

type Found = BTreeMap<(Fault, Subject), Vec<Seen>>;

/// Each fault once with one pair. One that does not get well is replaced by a new one.
fn turn(subject: Subject, arguments: &Arguments, interrupt: &Interrupt, found: &mut Found) -> Result<()> {
    let mut bench = Bench::start(subject, arguments, interrupt)?;
    for fault in &chosen(arguments) {
        let seen = bench.run(*fault)?;
        eprintln!("   {:<12} outage {:>7.1} ms, both {:>7.1} ms", name(*fault), seen.outage, seen.double);
        found.entry((*fault, subject)).or_default().push(seen);
        if !seen.well {
            drop(bench);
            bench = Bench::start(subject, arguments, interrupt)?;
        }
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> Vec<Fault> {
    if arguments.faults.is_empty() { Fault::value_variants().to_vec() } else { arguments.faults.clone() }
}

fn name(fault: Fault) -> String {
    fault.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn print(arguments: &Arguments, found: &Found) {
    for fault in chosen(arguments) {
        println!("\n{}: {}\n", name(fault), fault.title());
        println!("{:26}{:>6}{:>20}{:>22}", "", "runs", "outage ms", "both answer ms");
        println!("{:26}{:>6}{:>12}{:>8}{:>14}{:>8}", "", "", "median", "worst", "median", "worst");
        for subject in Subject::ALL {
            let runs = found.get(&(fault, subject)).map(Vec::as_slice).unwrap_or_default();
            let (outage, double) = spreads(runs);
            let figures =
                format!("{:>12.0}{:>8.0}{:>14.0}{:>8.0}", outage.median, outage.max, double.median, double.max);
            let ill = runs.iter().filter(|seen| !seen.well).count();
            let mark = if ill > 0 { format!("  {ill} not well again within {WELL_WITHIN:?}") } else { String::new() };
            println!("{:26}{:>6}{figures}{mark}", subject.name(), runs.len());
        }
    }
    let blind = found.values().flatten().map(|seen| seen.blind).fold(0.0, f64::max);
    println!("\nThe instruments were held up for {blind:.0} ms at worst.");
    if blind > BLIND_MAX.as_secs_f64() * 1000.0 {
        println!("That is too long: the machine was too busy for these figures to be relied on.");
    }
}

fn spreads(runs: &[Seen]) -> (Spread, Spread) {
    (Spread::of(runs.iter().map(|seen| seen.outage)), Spread::of(runs.iter().map(|seen| seen.double)))
}

fn measure(arguments: &Arguments) -> Result<Found> {
    let interrupt = Interrupt::install()?;
    let mut found = Found::new();
    for time in 1..=arguments.repeat {
        for subject in Subject::ALL {
            eprintln!("{time}/{} {}", arguments.repeat, subject.name());
            turn(subject, arguments, &interrupt, &mut found)?;
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(found) => {
            print(&arguments, &found);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
