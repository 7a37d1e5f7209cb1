//! The order of events: build the laboratory, start the cluster, do the faults, tell what was seen, clean up.

use super::app::App;
use super::chaos::{self, ChaosReport};
use super::cluster::{Cluster, VIP, VIP_V6};
use super::error::{Attempt, Error, Result};
use super::faults::{Bench, Pace, Run};
use super::interrupt::Interrupt;
use super::lab::{Host, Lab};
use super::observer::Observer;
use super::prober::Prober;
use super::report::{FaultReport, Report, describe, mark, tabulate};
use super::soak::{self, SoakReport};
use super::{DemoArgs, stage};
use crate::clock;
use crate::time::Duration;
use std::fs::DirBuilder;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Logged errors that a report names.
const LOGGED_ERRORS_MAX: usize = 20;

/// Runs the demo that `arguments` ask for, and tells of it on `screen`.
///
/// # Errors
/// If the laboratory or the cluster in it cannot be set up. A fault that cannot be run is in the report instead.
pub fn run(arguments: &DemoArgs, screen: &mut dyn Write) -> Result<Report> {
    let began = clock::now();
    let interrupt = Interrupt::install()?;
    let mut folder = Folder::new()?;
    let mut report = Report {
        lease_ms: u64::try_from(arguments.timing().lease.as_millis()).unwrap_or(u64::MAX),
        ..Report::default()
    };
    let outcome = perform(arguments, screen, &interrupt, (&folder.path, &mut report));
    match outcome {
        Err(_) if interrupt.is_asked() && arguments.stay => {}
        Err(_) if interrupt.is_asked() => return Err(Error::interrupted()),
        Err(failure) => report.error = Some(failure.to_string()),
        Ok(()) => {}
    }
    report.kept = report.error.is_none()
        && report.faults.iter().all(|fault| fault.kept)
        && report.chaos.as_ref().is_none_or(ChaosReport::kept)
        && report.soak.as_ref().is_none_or(SoakReport::kept);
    report.seconds = (clock::now().since(began).as_secs_f64() * 10.0).round() / 10.0;
    if !report.kept {
        folder.kept = true;
        report.logs = Some(folder.path.clone());
    }
    Ok(report)
}

fn perform(
    arguments: &DemoArgs,
    screen: &mut dyn Write,
    interrupt: &Interrupt,
    (folder, report): (&Path, &mut Report),
) -> Result<()> {
    let began = clock::now();
    let lab = Lab::new()?;
    let _app = App::start(lab.host(Host::App))?;
    let mut cluster =
        Cluster::start(&lab, &stage::this_program(), folder, (arguments.timing(), arguments.etcd.as_deref()))?;
    let prober = Prober::start(lab.host(Host::Client), SocketAddr::from((VIP, 80)))?;
    let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP)?;
    say(screen, &introduction());
    let mut bench = Bench {
        lab: &lab,
        cluster: &mut cluster,
        prober: &prober,
        observer: &observer,
        interrupt,
        timing: arguments.timing(),
        pace: if arguments.is_tour() { Pace::Tour } else { Pace::Measured },
    };
    let owner = bench.settle()?;
    let took = clock::now().since(began).as_secs_f64();
    say(screen, &format!("up after {took:.1} s; {} is active\n\n{}", owner.name(), status(bench.cluster, owner)));
    if arguments.stay {
        drop((prober, observer));
        say(screen, &ways_in(&lab, &mut cluster, owner));
        return interrupt.wait(Duration::MAX);
    }
    let outcome = match (arguments.chaos, arguments.soak) {
        (Some(time), _) => {
            let chaos = report.chaos.insert(ChaosReport::default());
            chaos::run(&mut bench, arguments.seed, time, (chaos, &mut |text| say(screen, text)))
        }
        (None, Some(time)) => {
            let soak = report.soak.insert(SoakReport::default());
            soak::run(&mut bench, folder, time, (soak, &mut |text| say(screen, text)))
        }
        (None, None) => strike_all(arguments, screen, &mut bench, report),
    };
    report.logged_errors = cluster.logged_errors(LOGGED_ERRORS_MAX);
    outcome
}

fn strike_all(arguments: &DemoArgs, screen: &mut dyn Write, bench: &mut Bench<'_>, report: &mut Report) -> Result<()> {
    for (at, fault) in arguments.chosen().into_iter().enumerate() {
        say(screen, &format!("{}. {}\n", at + 1, fault.title()));
        let mut runs: Vec<Run> = Vec::new();
        let outcome = (0..arguments.repeat).try_for_each(|again| {
            if again > 0 {
                bench.rest_before(fault)?;
            }
            let run = bench.run(fault)?;
            say(screen, &describe(fault, bench.promised(fault), &run));
            runs.push(run);
            Ok(())
        });
        report.faults.push(FaultReport::new(fault, bench.promised(fault), runs));
        outcome.map_err(|failure: Error| failure.during(fault.name()))?;
    }
    Ok(())
}

/// The last words of a demo, for people.
#[must_use]
pub fn conclude(arguments: &DemoArgs, report: &Report) -> String {
    let mut text = String::new();
    if let Some(chaos) = &report.chaos {
        text.push_str(&chaos::describe(chaos));
    } else if let Some(soak) = &report.soak {
        text.push_str(&soak::describe(soak));
    } else if !arguments.is_tour() {
        text.push_str(&format!("\n{}", tabulate(&report.faults)));
    }
    if !report.logged_errors.is_empty() {
        let lines: String = report.logged_errors.iter().map(|line| format!("  {line}\n")).collect();
        text.push_str(&format!("\nThe daemons logged errors:\n{lines}"));
    }
    if let Some(error) = &report.error {
        text.push_str(&format!("\nhawser: {error}\n"));
    }
    let verdict = if report.kept { "Every promise was kept" } else { "Not every promise was kept" };
    text.push_str(&format!("\n{} {verdict} ({} s).\n", mark(report.kept), report.seconds));
    if let Some(logs) = &report.logs {
        text.push_str(&format!("  Logs and configuration are in {}\n", logs.display()));
    }
    text
}

fn introduction() -> String {
    let [n1, n2, witness, app, client] =
        [Host::N1, Host::N2, Host::Witness, Host::App, Host::Client].map(Host::address);
    format!(
        "hawser demo: a cluster on this machine, each host in a network of its own\n\
         \n  nodes    n1 {n1}, n2 {n2}\n  witness  w {witness}\n  address  {VIP} and {VIP_V6}, on one of the nodes\n  \
         client   {client}, asks the address every {} ms\n  observer asks by ARP every {} ms who has it\n  \
         app      {app}, behind the nodes\n\n",
        super::prober::PACE.as_millis(),
        super::observer::PACE.as_millis(),
    )
}

/// What `hawser status` prints, moved in a little.
fn status(cluster: &Cluster, node: Host) -> String {
    let said = cluster.status_for_people(node).unwrap_or_else(|failure| failure.to_string());
    let lines: String = said.lines().map(|line| format!("   {line}\n")).collect();
    format!("$ hawser status\n{lines}\n")
}

fn ways_in(lab: &Lab, cluster: &mut Cluster, owner: Host) -> String {
    let pid = std::process::id();
    let program = stage::this_program();
    let program = program.display();
    let user = if std::env::var_os(stage::INSIDE).is_some() { "--user --preserve-credentials " } else { "" };
    let enter =
        |host: Host| format!("nsenter --target {pid} {user}--net=/proc/{pid}/fd/{}", lab.host(host).as_raw_fd());
    let sockets: String = Host::NODES
        .iter()
        .map(|node| format!("  {program} status --socket {}\n", cluster.socket(*node).display()))
        .collect();
    let supervisor = cluster.node(owner).pid();
    let workers: Vec<String> = cluster.node(owner).workers().iter().map(ToString::to_string).collect();
    format!(
        "The cluster stays until Ctrl-C. From another terminal:\n\n\
         A visitor, who asks again and again:\n  {client} sh -c 'while sleep 0.1; do curl -sm1 http://{VIP}/node.txt; done'\n\
         What the nodes say:\n{sockets}\
         Kill the owner's worker (its supervisor is {supervisor}):\n  kill -9 {workers}\n\
         A planned move:\n  {program} switchover web --socket {socket}\n\
         A shell on {name}:\n  {node} sh\n",
        client = enter(Host::Client),
        workers = workers.join(" "),
        socket = cluster.socket(owner).display(),
        name = owner.name(),
        node = enter(owner),
    )
}

/// A reader who went away is no reason to stop.
fn say(screen: &mut dyn Write, text: &str) {
    drop(screen.write_all(text.as_bytes()).and_then(|()| screen.flush()));
}

/// A folder for this demo alone, removed at the end.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("hawser-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).or_cannot(format_args!("make {}", path.display()))?;
        Ok(Self { path, kept: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}
