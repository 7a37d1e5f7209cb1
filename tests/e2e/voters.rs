//! The voters change while the cluster serves: real daemons, addresses and frames.

use super::pairs::in_sandbox;
use super::{HAWSER, until};
use hawser::clock;
use hawser::demo::{
    cluster::VIP,
    lab::{Host, Lab},
    observer::Observer,
    process::{Daemon, Recipe},
};
use hawser::time::Instant;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// A cluster whose members come and go. What is not started is not there.
struct Town {
    nodes: [Option<Daemon>; 2],
    witnesses: Vec<Daemon>,
    observer: Observer,
    lab: Lab,
    begun: Instant,
    folder: tempfile::TempDir,
}

/// `[[node]]` of both, the second one with `more`.
fn both(more: &str) -> String {
    let node = |host: Host| format!("[[node]]\nname = \"{}\"\nlinks = [\"{}\"]\n", host.name(), host.address());
    format!("{}{}{more}\n", node(Host::N1), node(Host::N2))
}

fn witness(name: &str, host: Host) -> String {
    format!("[witness]\nname = \"{name}\"\naddress = \"{}\"\n", host.address())
}

impl Town {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new().unwrap();
        let mut init = Command::new(HAWSER);
        init.args(["init", "--cluster", "town", "--vip", &format!("{VIP}/24@eth0"), "--out"]).arg(folder.path());
        for (option, host) in [("--node", Host::N1), ("--node", Host::N2), ("--witness", Host::Witness)] {
            init.args([option, &format!("{}={}", host.name(), host.address())]);
        }
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP).unwrap();
        Self { nodes: [None, None], witnesses: Vec::new(), observer, lab, begun: clock::now(), folder }
    }

    /// A witness on this machine, with the cluster's secret.
    fn start_witness(&mut self, host: Host) {
        let home = self.folder.path().join(Host::Witness.name());
        let config = home.join(format!("{}.toml", host.name()));
        let text = std::fs::read_to_string(home.join("witness.toml")).unwrap();
        let state = self.folder.path().join(format!("{}.state", host.name()));
        let text = text.replace("[witness]\n", &format!("[witness]\nstate = \"{}\"\n", state.display()));
        std::fs::write(&config, text).unwrap();
        let daemon = self.daemon(host, "witness", &config);
        self.witnesses.push(daemon);
    }

    fn daemon(&self, host: Host, role: &str, config: &Path) -> Daemon {
        let recipe = Recipe {
            program: HAWSER.into(),
            arguments: vec![role.into(), "--config".into(), config.display().to_string()],
            environment: vec![],
            log: self.folder.path().join(format!("{}.log", host.name())),
        };
        Daemon::start(host, self.lab.host(host), recipe).unwrap()
    }

    /// Writes the file of a node, which takes effect when it is started again.
    fn configure(&self, host: Host, cluster: &str, sections: &str) {
        let home = self.folder.path().join(host.name());
        let text = format!(
            "[cluster]\nname = \"town\"\n{cluster}\n{sections}\n[store]\ndir = \"{home}/state\"\n\
             [admin]\nsocket = \"{home}/admin.sock\"\n[[group]]\nname = \"web\"\n\
             vip = [{{ address = \"{VIP}/24\", interface = \"eth0\" }}]\n\
             [[listener]]\naddress = \"{VIP}:80\"\nroot = \"{home}\"\n",
            home = home.display()
        );
        std::fs::write(home.join("hawser.toml"), text).unwrap();
    }

    /// Starts a node, or ends it in order and starts it again.
    fn restart(&mut self, host: Host) {
        let config = self.folder.path().join(host.name()).join("hawser.toml");
        let at = usize::from(host == Host::N2);
        if let Some(mut daemon) = self.nodes[at].take() {
            kill(daemon.pid(), Signal::SIGTERM).unwrap();
            until("it ends in order", || !daemon.is_running());
        }
        let daemon = self.daemon(host, "run", &config);
        self.nodes[at] = Some(daemon);
    }

    fn hawser(&self, node: Host, args: &[&str]) -> Output {
        let socket = self.folder.path().join(node.name()).join("admin.sock");
        Command::new(HAWSER).args(args).arg("--socket").arg(socket).output().unwrap()
    }

    /// Nothing if the node does not answer.
    fn status(&self, node: Host) -> Value {
        serde_json::from_slice(&self.hawser(node, &["status", "--json"]).stdout).unwrap_or_default()
    }

    fn wait(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, || is(self))));
        if told.is_err() {
            let log = |host: Host| std::fs::read_to_string(self.folder.path().join(format!("{}.log", host.name())));
            let logs = [Host::N1, Host::N2, Host::Witness, Host::App].map(|host| log(host).unwrap_or_default());
            let status = String::from_utf8_lossy(&self.hawser(Host::N1, &["status"]).stdout).into_owned();
            panic!("{what}: {}\n{status}", logs.join("\n--\n"));
        }
    }

    /// Both nodes stand there, and want nothing else.
    fn wait_for_voters(&self, nodes: &[Host], voters: &str) {
        self.wait(&format!("the voters are {voters}"), |town| {
            nodes.iter().all(|node| {
                let status = &town.status(*node)["voters"];
                status["in_force"] == voters && status["wanted"].is_null()
            })
        });
    }

    fn holder(&self) -> Option<String> {
        let now = clock::now();
        self.observer.between(now - Duration::from_millis(200), now).unwrap().holder_names().pop()
    }

    fn wait_for_owner(&self, node: Host) {
        self.wait(&format!("{} answers", node.name()), |town| town.holder().as_deref() == Some(node.name()));
    }

    /// It hears its peer, which is fit.
    fn wait_for_company(&self) {
        self.wait("both nodes hear each other", |town| {
            Host::NODES.iter().all(|node| {
                let peer = &town.status(*node)["peer"];
                peer["connected"] == true && peer["fitness"] == "fit"
            })
        });
    }

    /// Since the start never two answered.
    fn assert_never_two(&self) {
        let seen = self.observer.between(self.begun, clock::now()).unwrap();
        assert!(seen.asks > 200, "nothing was measured: {seen:?}");
        assert!(seen.double.is_zero(), "both answered: {seen:?}");
    }
}

const W1: &str = "n1, n2 and w1";
const W2: &str = "n1, n2 and w2";

#[test]
fn another_witness_takes_the_place_of_the_first_and_nobody_notices() {
    in_sandbox("voters::another_witness_takes_the_place_of_the_first_and_nobody_notices", || {
        let mut town = Town::new();
        town.start_witness(Host::Witness);
        for node in Host::NODES {
            town.configure(node, "", &(both("") + &witness("w1", Host::Witness)));
            town.restart(node);
        }
        town.wait_for_owner(Host::N1);
        town.wait_for_company();
        town.wait_for_voters(&Host::NODES, W1);
        for node in Host::NODES {
            town.configure(node, "", &(both("") + &witness("w2", Host::App)));
        }
        // The new one is not there yet: nobody leaves the old one.
        town.restart(Host::N2);
        town.wait_for_company();
        town.restart(Host::N1);
        town.wait_for_company();
        town.wait("one serves", |town| town.holder().is_some());
        town.wait("it says what it waits for", |town| {
            let page = town.hawser(Host::N1, &["status"]);
            String::from_utf8_lossy(&page.stdout)
                .contains("! the voters do not change to n1, n2 and w2: w2 does not answer")
        });
        assert_eq!(town.status(Host::N1)["voters"]["in_force"], W1);
        let owner = town.holder().expect("one serves");
        let changing = clock::now();
        town.start_witness(Host::App);
        town.wait_for_voters(&Host::NODES, W2);
        std::thread::sleep(Duration::from_millis(500));
        let seen = town.observer.between(changing, clock::now()).unwrap();
        assert_eq!(seen.holder_names(), [owner.as_str()], "the change itself moves nothing: {seen:?}");
        // The old one is not needed any more; the new one votes when its silence is over.
        town.witnesses.remove(0).end();
        town.wait("the new witness votes", |town| town.status(Host::N1)["witness"]["name"] == "w2");
        std::thread::sleep(Duration::from_secs(12));
        assert_eq!(town.holder().as_deref(), Some(owner.as_str()), "it serves without the old one");
        let (at, other) = if owner == "n1" { (0, Host::N2) } else { (1, Host::N1) };
        town.nodes[at].as_mut().unwrap().signal_all(Signal::SIGKILL).unwrap();
        town.wait_for_owner(other);
        let history = town.hawser(other, &["history"]);
        assert!(String::from_utf8_lossy(&history.stdout).contains("voters_changed"), "{history:?}");
        town.assert_never_two();
    });
}

#[test]
fn one_node_becomes_two_and_one_again() {
    in_sandbox("voters::one_node_becomes_two_and_one_again", || {
        let mut town = Town::new();
        let alone = format!("[[node]]\nname = \"n1\"\nlinks = [\"{}\"]\n", Host::N1.address());
        town.configure(Host::N1, "", &alone);
        town.restart(Host::N1);
        town.wait("it says why it waits", |town| {
            let page = String::from_utf8_lossy(&town.hawser(Host::N1, &["status"]).stdout).into_owned();
            page.contains("nobody who could tell it") && page.contains("this node votes alone")
        });
        town.wait_for_owner(Host::N1);
        for node in Host::NODES {
            town.configure(node, "", &(both("") + &witness("w1", Host::Witness)));
        }
        town.start_witness(Host::Witness);
        town.restart(Host::N2);
        town.restart(Host::N1);
        town.wait_for_voters(&Host::NODES, W1);
        town.wait_for_company();
        for node in Host::NODES {
            town.configure(node, "", &(both("leaves = true") + &witness("w1", Host::Witness)));
        }
        town.restart(Host::N2);
        town.wait_for_company();
        town.restart(Host::N1);
        town.wait_for_voters(&Host::NODES, "n1 alone");
        town.wait_for_owner(Host::N1);
        town.nodes[1].as_mut().unwrap().signal_all(Signal::SIGKILL).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(town.holder().as_deref(), Some("n1"), "it needs nobody");
        town.assert_never_two();
    });
}

#[test]
fn a_pair_gives_up_its_witness_and_takes_it_back() {
    in_sandbox("voters::a_pair_gives_up_its_witness_and_takes_it_back", || {
        let mut town = Town::new();
        town.start_witness(Host::Witness);
        let with = both("") + &witness("w1", Host::Witness);
        for node in Host::NODES {
            town.configure(node, "", &with);
            town.restart(node);
        }
        town.wait_for_owner(Host::N1);
        town.wait_for_company();
        for (cluster, sections, voters) in
            [("tiebreak = \"none\"", both(""), "n1 and n2, with none"), ("", with.clone(), W1)]
        {
            for node in Host::NODES {
                town.configure(node, cluster, &sections);
            }
            town.restart(Host::N2);
            town.wait_for_company();
            town.restart(Host::N1);
            town.wait_for_voters(&Host::NODES, voters);
            town.wait_for_company();
            town.wait("one serves", |town| town.holder().is_some());
        }
        town.assert_never_two();
    });
}
