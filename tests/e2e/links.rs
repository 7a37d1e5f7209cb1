//! Two links on two networks, ways to the witness, and lateness: real daemons, real interfaces, real loss.

use super::pairs::in_sandbox;
use super::{HAWSER, until};
use hawser::clock;
use hawser::demo::{
    cluster::VIP,
    lab::{Cable, Host, Lab, Network, Nodes, Sending},
    observer::Observer,
    process::{Daemon, Recipe},
};
use hawser::time::Instant;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the nodes reach each other and the witness.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    One,
    Two,
}

/// Two nodes and a witness, somebody who asks by ARP who has the address, and a visitor who wants a page again and again.
struct Cluster {
    nodes: [Daemon; 2],
    witness: Daemon,
    observer: Observer,
    visitor: Visitor,
    lab: Lab,
    begun: Instant,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// A cluster that n1 serves.
    fn start(links: Links, lease_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new().unwrap();
        if links == Links::Two {
            lab.add_second_network().unwrap();
        }
        make(folder.path(), links, lease_ms);
        let daemon = |host: Host, verb: &str, file: &str| {
            let config = folder.path().join(host.name()).join(file).display().to_string();
            let recipe = Recipe {
                program: HAWSER.into(),
                arguments: vec![verb.into(), "--config".into(), config],
                environment: vec![],
                log: folder.path().join(format!("{}.log", host.name())),
            };
            Daemon::start(host, lab.host(host), recipe).unwrap()
        };
        let witness = daemon(Host::Witness, "witness", "witness.toml");
        let n1 = daemon(Host::N1, "run", "hawser.toml");
        let n2 = daemon(Host::N2, "run", "hawser.toml");
        let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP).unwrap();
        let visitor = Visitor::new(&lab);
        let mut cluster = Self { nodes: [n1, n2], witness, observer, visitor, lab, begun: clock::now(), folder };
        cluster.wait("somebody answers", |c| c.holder().is_some());
        cluster.wait("all is well with everybody", |c| Host::NODES.iter().all(|node| c.is_well(*node)));
        // On a busy machine n2 may come up first, and nothing moves back by itself.
        cluster.wait("n1 answers", |c| {
            c.holder().as_deref() == Some("n1") || {
                c.hawser(Host::N2, &["switchover", "--to", "n1"]);
                false
            }
        });
        cluster.begun = clock::now();
        cluster.visitor.go();
        cluster
    }

    fn wait(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, || is(self))));
        if told.is_err() {
            let pages = Host::NODES.map(|node| self.page(node).1);
            panic!("{what}: {}\n{}", pages.join("\n--\n"), Host::NODES.map(|node| self.log(node)).join("\n--\n"));
        }
    }

    fn log(&self, host: Host) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.log", host.name()))).unwrap_or_default()
    }

    /// Lines of a node's log with all these words.
    fn logged(&self, node: Host, words: &[&str]) -> usize {
        self.log(node).lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    fn node(&mut self, host: Host) -> &mut Daemon {
        let [n1, n2] = &mut self.nodes;
        if host == Host::N1 { n1 } else { n2 }
    }

    fn hawser(&self, node: Host, args: &[&str]) -> Output {
        let socket = self.folder.path().join(node.name()).join("admin.sock");
        Command::new(HAWSER).args(args).arg("--socket").arg(socket).output().unwrap()
    }

    fn status(&self, node: Host) -> Value {
        serde_json::from_slice(&self.hawser(node, &["status", "--json"]).stdout).unwrap_or_default()
    }

    /// What a person sees, and the exit code.
    fn page(&self, node: Host) -> (Option<i32>, String) {
        let output = self.hawser(node, &["status"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn is_well(&self, node: Host) -> bool {
        let status = self.status(node);
        let up = status["links"].as_array().is_some_and(|links| links.iter().all(|link| link["up"] == true));
        let steady = |link: &Value| link["from_peer"]["unsteady"] == false && link["to_peer"]["unsteady"] == false;
        let ways = status["witness"]["ways"].as_array();
        let answers = ways.is_some_and(|ways| ways.iter().all(|way| way["answers"]["carries"] == "yes"));
        up && answers
            && status["links"].as_array().is_some_and(|links| links.iter().all(steady))
            && status["peer"]["fitness"] == "fit"
            && status["fitness"] == "fit"
            && status["witness"]["connected"] == true
    }

    /// What a node says of a link: from the peer, to the peer.
    fn carries(&self, node: Host, link: usize) -> (String, String) {
        let link = &self.status(node)["links"][link - 1];
        let word = |direction: &str| link[direction]["carries"].as_str().unwrap_or("?").to_owned();
        (word("from_peer"), word("to_peer"))
    }

    fn wait_for(&self, node: Host, link: usize, from_peer: &str, to_peer: &str) {
        let what = format!("{}: link {link} from peer {from_peer}, to peer {to_peer}", node.name());
        self.wait(&what, |c| c.carries(node, link) == (from_peer.to_owned(), to_peer.to_owned()));
    }

    /// Who answered last, in the last while.
    fn holder(&self) -> Option<String> {
        let now = clock::now();
        self.observer.between(now - Duration::from_millis(200), now).unwrap().holder_names().pop()
    }

    /// Since all was well nobody but n1 answered, every visitor was served, and no daemon called for a person.
    fn assert_nothing_moved(&self) {
        let seen = self.observer.between(self.begun, clock::now()).unwrap();
        assert!(seen.asks > 200, "nothing was measured: {seen:?}");
        assert_eq!(seen.holder_names(), ["n1"], "{}", Host::NODES.map(|node| self.log(node)).join("\n--\n"));
        assert!(seen.double.is_zero(), "{seen:?}");
        let (served, failed) = self.visitor.counts();
        assert!(served > 20, "nothing was measured: {served}");
        assert_eq!(failed, 0, "of {served}");
        for host in [Host::N1, Host::N2, Host::Witness] {
            assert!(!self.log(host).contains(" ERROR "), "{}", self.log(host));
        }
    }
}

/// What `hawser init` makes, with other paths and timing.
fn make(folder: &Path, links: Links, lease_ms: u64) {
    let addresses = |host: Host| {
        let networks: &[Network] =
            if links == Links::Two { &[Network::First, Network::Second] } else { &[Network::First] };
        let all: Vec<String> = networks.iter().map(|network| host.address_in(*network).to_string()).collect();
        format!("{}={}", host.name(), all.join(","))
    };
    let mut init = Command::new(HAWSER);
    init.args(["init", "--cluster", "links", "--vip", &format!("{VIP}/24@eth0"), "--out"]).arg(folder);
    for (option, host) in [("--node", Host::N1), ("--node", Host::N2), ("--witness", Host::Witness)] {
        init.args([option, &addresses(host)]);
    }
    let output = init.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for host in Host::NODES {
        let home = folder.join(host.name());
        std::fs::write(home.join("node.txt"), format!("{}\n", host.name())).unwrap();
        let file = home.join("hawser.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let timing = format!("[cluster]\nlease = \"{lease_ms}ms\"\ninterval = \"50ms\"\n");
        let text = text.replace("[cluster]\n", &timing).replace("/srv/www", &home.display().to_string());
        let (before, group) = text.split_once("[[group]]").unwrap();
        let paths = format!(
            "[store]\ndir = \"{home}/state\"\n[admin]\nsocket = \"{home}/admin.sock\"\n",
            home = home.display()
        );
        std::fs::write(&file, format!("{before}{paths}[[group]]{group}")).unwrap();
    }
    let file = folder.join("w/witness.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let state = format!("[witness]\nstate = \"{}\"\n", folder.join("w/state").display());
    std::fs::write(&file, text.replace("[witness]\n", &state)).unwrap();
}

/// Asks for a page, waits for it, and asks again: patient, so that a busy machine fails nobody.
struct Visitor {
    counts: Arc<[AtomicU64; 2]>,
    on: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Visitor {
    /// One who does not ask yet.
    fn new(lab: &Lab) -> Self {
        let (counts, on, stop) = (Arc::<[AtomicU64; 2]>::default(), Arc::<AtomicBool>::default(), Arc::default());
        let (tally, may, enough) = (Arc::clone(&counts), Arc::clone(&on), Arc::<AtomicBool>::clone(&stop));
        let walk = move || {
            while !enough.load(Ordering::Relaxed) {
                if may.load(Ordering::Relaxed) {
                    tally[usize::from(page().is_err())].fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let thread = lab.host(Host::Client).spawn("visitor", walk).unwrap();
        Self { counts, on, stop, thread: Some(thread) }
    }

    fn go(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// Served, and not served.
    fn counts(&self) -> (u64, u64) {
        let [served, failed] = &*self.counts;
        (served.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn page() -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((VIP, 80)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /node.txt HTTP/1.1\r\nHost: {VIP}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") && answer.ends_with("n1\n") {
        Ok(())
    } else {
        Err(std::io::Error::other(answer))
    }
}

#[test]
fn the_loss_of_one_of_two_links_moves_nothing_and_is_named() {
    in_sandbox("links::the_loss_of_one_of_two_links_moves_nothing_and_is_named", || {
        let cluster = Cluster::start(Links::Two, 1_000);
        assert_eq!(cluster.page(Host::N1).0, Some(0), "{}", cluster.page(Host::N1).1);
        cluster.lab.set_cable_in(Network::Second, Host::N2, Cable::Pulled).unwrap();
        for node in Host::NODES {
            cluster.wait_for(node, 2, "no", "no");
            assert_eq!(cluster.carries(node, 1), ("yes".to_owned(), "yes".to_owned()));
            let (code, page) = cluster.page(node);
            assert!(page.contains("DOWN") && page.contains("! link 2 (10.78.0."), "{page}");
            assert_eq!(code, Some(2), "{page}");
            for direction in ["direction=from_peer", "direction=to_peer"] {
                let words = [" WARN ", "link lost", "link=2", "local=10.78.0.", direction];
                cluster.wait("it is logged once", |c| c.logged(node, &words) == 1);
            }
        }
        cluster.lab.set_cable_in(Network::Second, Host::N2, Cable::Plugged).unwrap();
        for node in Host::NODES {
            cluster.wait("all is well again", |c| c.is_well(node));
            cluster.wait("that is logged", |c| c.logged(node, &[" INFO ", "link back", "link=2"]) == 2);
            assert!(!cluster.page(node).1.contains("! link"), "{}", cluster.page(node).1);
        }
        // The other link, and with it the network of the address: only between the nodes.
        cluster.lab.set_nodes(Nodes::Apart).unwrap();
        for node in Host::NODES {
            cluster.wait_for(node, 1, "no", "no");
            assert_eq!(cluster.carries(node, 2), ("yes".to_owned(), "yes".to_owned()));
            assert_eq!(cluster.status(node)["peer"]["connected"], true);
        }
        cluster.assert_nothing_moved();
    });
}

#[test]
fn a_link_that_flaps_moves_nothing_and_does_not_fill_the_log() {
    in_sandbox("links::a_link_that_flaps_moves_nothing_and_does_not_fill_the_log", || {
        let cluster = Cluster::start(Links::Two, 1_000);
        let mut unsteady = false;
        for _ in 0..10 {
            cluster.lab.set_cable_in(Network::Second, Host::N1, Cable::Pulled).unwrap();
            cluster.wait_for(Host::N2, 2, "no", "no");
            cluster.lab.set_cable_in(Network::Second, Host::N1, Cable::Plugged).unwrap();
            cluster.wait_for(Host::N2, 2, "yes", "yes");
            let page = cluster.page(Host::N2).1;
            unsteady |= page.contains("UNSTEADY") && page.contains("! link 2");
        }
        assert!(unsteady, "it carries again, and is not trusted");
        let losses = cluster.status(Host::N2)["links"][1]["from_peer"]["losses"].as_u64().unwrap();
        assert!(losses >= 10, "each was seen: {losses}");
        for node in Host::NODES {
            let told = cluster.logged(node, &["link lost", "direction=from_peer"]);
            assert!((1..=5).contains(&told), "told {told} times: {}", cluster.log(node));
        }
        cluster.assert_nothing_moved();
    });
}

#[test]
fn loss_in_one_direction_of_one_of_two_links_is_named_with_it() {
    in_sandbox("links::loss_in_one_direction_of_one_of_two_links_is_named_with_it", || {
        let cluster = Cluster::start(Links::Two, 1_000);
        cluster.lab.set_sending(Network::Second, Host::N1, Host::N2, Sending::Lost).unwrap();
        cluster.wait_for(Host::N1, 2, "yes", "no");
        cluster.wait_for(Host::N2, 2, "no", "yes");
        for node in Host::NODES {
            let page = cluster.page(node).1;
            assert!(page.contains("ONE WAY: nothing from n1 to n2"), "{page}");
            assert!(page.contains("carries nothing from n1 to n2, only the other way"), "{page}");
        }
        cluster.wait("n1 logs it", |c| c.logged(Host::N1, &["link lost", "link=2", "direction=to_peer"]) == 1);
        cluster.wait("n2 logs it", |c| c.logged(Host::N2, &["link lost", "link=2", "direction=from_peer"]) == 1);
        assert_eq!(cluster.logged(Host::N1, &["link lost", "direction=from_peer"]), 0);
        assert_eq!(cluster.logged(Host::N2, &["link lost", "direction=to_peer"]), 0);
        cluster.lab.set_sending(Network::Second, Host::N1, Host::N2, Sending::Arrives).unwrap();
        cluster.wait("all is well again", |c| Host::NODES.iter().all(|node| c.is_well(*node)));
        cluster.assert_nothing_moved();
    });
}

#[test]
fn loss_in_one_direction_of_the_only_link_is_named_and_makes_no_second_owner() {
    in_sandbox("links::loss_in_one_direction_of_the_only_link_is_named_and_makes_no_second_owner", || {
        let cluster = Cluster::start(Links::One, 1_000);
        for (from, to) in [(Host::N1, Host::N2), (Host::N2, Host::N1)] {
            cluster.lab.set_sending(Network::First, from, to, Sending::Lost).unwrap();
            // Who is not heard is told so by the other; who hears nothing cannot know whether it is heard.
            cluster.wait_for(from, 1, "yes", "no");
            cluster.wait_for(to, 1, "unknown", "unknown");
            let (code, page) = cluster.page(from);
            let said = format!("carries nothing from {} to {}, only the other way", from.name(), to.name());
            assert!(page.contains(&said) && code == Some(2), "{page}");
            let (_, page) = cluster.page(to);
            assert!(page.contains("is not heard: there is no standby; if"), "{page}");
            let words = ["link lost", "link=1", "direction=to_peer"];
            cluster.wait("it is logged", |c| c.logged(from, &words) == 1);
            std::thread::sleep(Duration::from_secs(3));
            cluster.lab.set_sending(Network::First, from, to, Sending::Arrives).unwrap();
            cluster.wait("all is well again", |c| Host::NODES.iter().all(|node| c.is_well(*node)));
        }
        cluster.assert_nothing_moved();
    });
}

#[test]
fn the_loss_of_one_of_two_ways_to_the_witness_costs_nothing_and_is_named() {
    in_sandbox("links::the_loss_of_one_of_two_ways_to_the_witness_costs_nothing_and_is_named", || {
        let cluster = Cluster::start(Links::Two, 1_000);
        for (network, way, other) in [(Network::Second, 1, 0), (Network::First, 0, 1)] {
            cluster.lab.set_cable_in(network, Host::Witness, Cable::Pulled).unwrap();
            for node in Host::NODES {
                cluster.wait("the way is named", |c| {
                    let witness = &c.status(node)["witness"];
                    witness["ways"][way]["answers"]["carries"] == "no"
                        && witness["ways"][other]["answers"]["carries"] == "yes"
                });
                assert_eq!(cluster.status(node)["witness"]["connected"], true);
                let page = cluster.page(node).1;
                assert!(page.contains("! w answers on another way, but not by 10.7"), "{page}");
                cluster.wait("it is logged", |c| c.logged(node, &[" WARN ", "way to the witness lost"]) >= 1);
            }
            cluster.lab.set_cable_in(network, Host::Witness, Cable::Plugged).unwrap();
            cluster.wait("all is well again", |c| Host::NODES.iter().all(|node| c.is_well(*node)));
        }
        cluster.assert_nothing_moved();
    });
}

#[test]
fn an_owner_that_is_stopped_for_most_of_its_lease_again_and_again_keeps_its_group() {
    in_sandbox("links::an_owner_that_is_stopped_for_most_of_its_lease_again_and_again_keeps_its_group", || {
        const LEASE_MS: u64 = 4_000;
        let mut cluster = Cluster::start(Links::One, LEASE_MS);
        for _ in 0..4 {
            cluster.node(Host::N1).signal_workers(Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(LEASE_MS * 6 / 10));
            cluster.node(Host::N1).signal_workers(Signal::SIGCONT).unwrap();
            std::thread::sleep(Duration::from_millis(LEASE_MS / 2));
        }
        let status = cluster.status(Host::N1);
        for figure in ["worst_tick_ms", "recent_tick_ms"] {
            let late = status[figure].as_f64().unwrap();
            assert!(late > 2_000.0 && late < 4_000.0, "{figure}: {late}");
        }
        let (code, page) = cluster.page(Host::N1);
        assert!(page.contains("lateness") && page.contains("! the cluster thread was called 2"), "{page}");
        assert_eq!(code, Some(2));
        cluster.wait("it is logged", |c| {
            c.logged(Host::N1, &[" WARN ", "cluster thread was called late", "late_ms=2"]) >= 1
        });
        cluster.assert_nothing_moved();
    });
}

#[test]
fn a_freeze_is_told_with_how_long_the_process_did_not_run() {
    in_sandbox("links::a_freeze_is_told_with_how_long_the_process_did_not_run", || {
        let mut cluster = Cluster::start(Links::One, 1_000);
        // A standby: it loses nothing, and says so itself.
        cluster.node(Host::N2).signal_workers(Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(3_000));
        cluster.node(Host::N2).signal_workers(Signal::SIGCONT).unwrap();
        let did_not_run = |c: &Cluster| {
            let log = c.log(Host::N2);
            let told = log.lines().find(|line| line.contains("process froze for longer than the lease"))?.to_owned();
            told.split("did_not_run_ms=").nth(1)?.trim().parse::<u64>().ok()
        };
        cluster.wait("it says for how long", |c| did_not_run(c).is_some());
        assert!((2_900..30_000).contains(&did_not_run(&cluster).unwrap()), "{}", cluster.log(Host::N2));
        cluster.assert_nothing_moved();
        // An owner is ended by its supervisor, which says since when it had not heard of it.
        cluster.node(Host::N1).signal_workers(Signal::SIGSTOP).unwrap();
        cluster.wait("n2 answers", |c| c.holder().as_deref() == Some("n2"));
        let words = [" WARN ", "worker killed", "not_heard_ms="];
        cluster.wait("the supervisor says so", |c| c.logged(Host::N1, &words) == 1);
    });
}

/// Clocks of the timers that a process has, as the kernel tells them (`proc(5)`).
fn timer_clocks(pid: Pid) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().filter_map(Result::ok);
    let told = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    told.filter_map(|text| text.lines().find(|line| line.starts_with("clockid:")).map(str::to_owned)).collect()
}

#[test]
fn every_timer_of_supervisor_and_worker_counts_suspend() {
    in_sandbox("links::every_timer_of_supervisor_and_worker_counts_suspend", || {
        let mut cluster = Cluster::start(Links::One, 1_000);
        for node in Host::NODES {
            let supervisor = cluster.node(node).pid();
            let workers = cluster.node(node).workers();
            // Its own deadline; those of the engine and of the keeper.
            for (pid, least) in [(supervisor, 1), (*workers.first().unwrap(), 2)] {
                let clocks = timer_clocks(pid);
                assert!(clocks.len() >= least, "{clocks:?}");
                // CLOCK_BOOTTIME of linux/time.h: it counts suspend, and nobody sets it.
                assert!(clocks.iter().all(|clock| clock == "clockid: 7"), "{clocks:?}");
            }
        }
        // A witness measures promises by the same clock when it is asked; it has no timer.
        assert_eq!(timer_clocks(cluster.witness.pid()), [""; 0]);
    });
}
