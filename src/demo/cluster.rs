//! The cluster under test: two nodes and a witness, real daemons on the hosts of the laboratory, known to the demo by
//! their command line alone.

use super::Profile;
use super::error::{Attempt, Error, Result};
use super::lab::{Families, Host, Lab, peer_of};
use super::process::{Daemon, Recipe, run_to_end};
use crate::cluster::Timing;
use crate::time::Duration;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// The address that moves.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Its sister.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x100);
/// The group that holds them.
pub const GROUP: &str = "web";
/// How long a question to a daemon may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a node says of itself and its cluster; the part that the demo needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    groups: Vec<GroupStatus>,
    peer: PeerStatus,
    witness: WitnessStatus,
    fitness: serde_json::Value,
    #[serde(default)]
    worst_tick_ms: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct GroupStatus {
    name: String,
    owner: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct PeerStatus {
    connected: bool,
    fitness: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize)]
struct WitnessStatus {
    connected: bool,
}

impl Status {
    /// The owner of the demo's group, as this node sees it.
    #[must_use]
    pub fn owner(&self) -> Option<Host> {
        let group = self.groups.iter().find(|group| group.name == GROUP)?;
        Host::with_name(group.owner.as_deref()?)
    }

    /// How late the cluster thread was ever called.
    #[must_use]
    pub const fn worst_tick_ms(&self) -> f64 {
        self.worst_tick_ms
    }

    /// Whether node, peer and witness are all well, in the eyes of this node.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.fitness == "fit" && self.peer.fitness == "fit" && self.peer.connected && self.witness.connected
    }
}

/// The daemons, and the folder in which all that is theirs lies. They end when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    nodes: [Daemon; 2],
    witness: Daemon,
    by_etcd: bool,
}

impl Cluster {
    /// Makes a cluster in `folder` and starts its daemons on the hosts of `lab`. It takes a while until it serves.
    ///
    /// # Errors
    /// If `hawser init` fails or a daemon cannot be started.
    pub fn start(lab: &Lab, program: &Path, folder: &Path, (timing, etcd): (Timing, Option<&Path>)) -> Result<Self> {
        make(program, folder, lab.families(), (timing, etcd.is_some()))?;
        let daemon = |host: Host, verb: &str, file: &str| {
            let config = folder.join(host.name()).join(file);
            let recipe = Recipe {
                program: program.into(),
                arguments: vec![verb.into(), "--config".into(), config.display().to_string()],
                environment: vec![(
                    "HAWSER_FAULT".into(),
                    format!("web-stall-file:{}", stall_file(folder, host).display()),
                )],
                log: log_of(folder, host),
            };
            Daemon::start(host, lab.host(host), recipe)
        };
        Ok(Self {
            program: program.into(),
            folder: folder.into(),
            witness: match etcd {
                None => daemon(Host::Witness, "witness", "witness.toml")?,
                Some(etcd) => Daemon::start(Host::Witness, lab.host(Host::Witness), etcd_recipe(etcd, folder))?,
            },
            by_etcd: etcd.is_some(),
            nodes: [daemon(Host::N1, "run", "hawser.toml")?, daemon(Host::N2, "run", "hawser.toml")?],
        })
    }

    /// A node's daemon.
    pub fn node(&mut self, host: Host) -> &mut Daemon {
        let [n1, n2] = &mut self.nodes;
        if host == n2.host() { n2 } else { n1 }
    }

    /// The witness.
    pub fn witness(&mut self) -> &mut Daemon {
        &mut self.witness
    }

    /// The third voter is an etcd: who is to take over from a node that is gone waits for another hold.
    #[must_use]
    pub const fn is_by_etcd(&self) -> bool {
        self.by_etcd
    }

    /// A node's admin socket.
    #[must_use]
    pub fn socket(&self, node: Host) -> PathBuf {
        self.folder.join(node.name()).join("admin.sock")
    }

    /// Keeps the web threads of a node from answering, or lets them again.
    ///
    /// # Errors
    /// If the file that tells them cannot be made or removed.
    pub fn stall_web(&self, node: Host, on: bool) -> Result<()> {
        let file = stall_file(&self.folder, node);
        let done = if on { std::fs::write(&file, "") } else { std::fs::remove_file(&file) };
        match done {
            Err(gone) if !on && gone.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.or_cannot(format_args!("make or remove {}", file.display())),
        }
    }

    /// What a node says.
    ///
    /// # Errors
    /// If its daemon does not answer, or in other words.
    pub fn status(&self, node: Host) -> Result<Status> {
        let said = self.ask(&["status", "--json"], node)?;
        serde_json::from_str(&said).or_cannot(format_args!("read the status of {}", node.name()))
    }

    /// What a node says to people.
    ///
    /// # Errors
    /// If its daemon does not answer.
    pub fn status_for_people(&self, node: Host) -> Result<String> {
        self.ask(&["status"], node)
    }

    /// Asks the owner for a planned move to its peer, and waits for the answer.
    ///
    /// # Errors
    /// If the move is refused.
    pub fn switchover(&self, owner: Host) -> Result<()> {
        self.ask(&["switchover", GROUP], owner).map(drop)
    }

    /// The owner, if both nodes name the same one and all is well with everybody; else what is not.
    ///
    /// # Errors
    /// What keeps the cluster from being well.
    pub fn settled(&self) -> Result<Host> {
        let [first, second] = [self.status(Host::N1)?, self.status(Host::N2)?];
        for (node, status) in [(Host::N1, &first), (Host::N2, &second)] {
            if !status.is_well() {
                let (name, peer) = (node.name(), peer_of(node).name());
                return Err(Error::new(format!("{name} is not well, or does not find {peer} or the witness so")));
            }
        }
        match (first.owner(), second.owner()) {
            (Some(owner), Some(same)) if owner == same => Ok(owner),
            (n1, n2) => {
                let [n1, n2] = [n1, n2].map(|owner| owner.map_or("nobody", Host::name));
                Err(Error::new(format!("the nodes do not agree on an owner: n1 says {n1}, n2 says {n2}")))
            }
        }
    }

    /// Lines that a daemon has logged as errors, with the name of its host; at most `count`.
    #[must_use]
    pub fn logged_errors(&self, count: usize) -> Vec<String> {
        let daemons = self.nodes.iter().chain([&self.witness]);
        let lines = daemons.flat_map(|daemon| {
            let log = std::fs::read_to_string(daemon.log()).unwrap_or_default();
            let name = daemon.host().name();
            let errors = log.lines().filter(|line| line.split_whitespace().any(|word| word == "ERROR"));
            errors.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        });
        lines.take(count).collect()
    }

    /// The first daemon that ended although nobody ended it.
    pub fn ended(&mut self) -> Option<&Daemon> {
        let [n1, n2] = &mut self.nodes;
        [n1, n2, &mut self.witness].into_iter().find_map(|daemon| (!daemon.is_running()).then_some(&*daemon))
    }

    fn ask(&self, arguments: &[&str], node: Host) -> Result<String> {
        hawser(Command::new(&self.program).args(arguments).arg("--socket").arg(self.socket(node)))
    }
}

/// Where a host's daemon writes.
fn log_of(folder: &Path, host: Host) -> PathBuf {
    folder.join(format!("{}.log", host.name()))
}

fn stall_file(folder: &Path, host: Host) -> PathBuf {
    folder.join(format!("{}.web-stalls", host.name()))
}

/// Runs one of our own commands and gives back what it prints.
fn hawser(command: &mut Command) -> Result<String> {
    let output = run_to_end(command.env_remove(super::stage::INSIDE), PATIENCE * 4)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let verb = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        return Err(Error::new(format!("`hawser {verb}` failed: {}", said.trim())));
    }
    String::from_utf8(output.stdout).or_cannot("read what a command printed")
}

/// An etcd of one member in the witness's place.
fn etcd_recipe(program: &Path, folder: &Path) -> Recipe {
    let clients = format!("http://{}", etcd_address());
    let peers = format!("http://{}", SocketAddr::from((Host::Witness.address(), 2380)));
    let arguments = [
        ("--data-dir", folder.join("etcd").display().to_string()),
        ("--listen-client-urls", clients.clone()),
        ("--advertise-client-urls", clients),
        ("--listen-peer-urls", peers.clone()),
        ("--initial-advertise-peer-urls", peers.clone()),
        ("--initial-cluster", format!("default={peers}")),
    ];
    Recipe {
        program: program.into(),
        arguments: arguments.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect(),
        environment: vec![],
        log: log_of(folder, Host::Witness),
    }
}

fn etcd_address() -> SocketAddr {
    SocketAddr::from((Host::Witness.address(), 2379))
}

/// `hawser init`, and what a person would then write into the starter files.
fn make(program: &Path, folder: &Path, families: Families, (timing, by_etcd): (Timing, bool)) -> Result<()> {
    let named = |host: Host| format!("{}={}", host.name(), host.address());
    let mut init = Command::new(program);
    init.args(["init", "--cluster", "demo"]);
    for node in Host::NODES {
        init.args(["--node", &named(node)]);
    }
    init.args(["--witness", &named(Host::Witness), "--vip", &format!("{VIP}/24@eth0"), "--out"]).arg(folder);
    hawser(&mut init)?;
    edit(&folder.join("w/witness.toml"), |config| {
        let witness = config.entry("witness").or_insert_with(|| Value::Table(Table::new()));
        if let Some(witness) = witness.as_table_mut() {
            witness.insert("state".into(), path(&folder.join("w/state")));
        }
    })?;
    for node in Host::NODES {
        let home = folder.join(node.name());
        write_site(&home.join("site"), node)?;
        edit(&home.join("hawser.toml"), |config| {
            set_timing(config, timing);
            if by_etcd {
                set_etcd(config);
            }
            set_store(config, &home.join("state"));
            config.insert("admin".into(), table([("socket", path(&home.join("admin.sock")))]));
            set_service(config, families, &home.join("site"));
        })?;
    }
    Ok(())
}

fn edit(file: &Path, change: impl FnOnce(&mut Table)) -> Result<()> {
    let text = std::fs::read_to_string(file).or_cannot(format_args!("read {}", file.display()))?;
    let mut config = text.parse::<Table>().or_cannot(format_args!("understand {}", file.display()))?;
    change(&mut config);
    std::fs::write(file, config.to_string()).or_cannot(format_args!("write {}", file.display()))
}

fn set_store(config: &mut Table, folder: &Path) {
    config.insert("store".into(), table([("dir", path(folder))]));
}

/// The etcd in place of the witness.
fn set_etcd(config: &mut Table) {
    config.remove("witness");
    let endpoint = text(&format!("http://{}", etcd_address()));
    config.insert("etcd".into(), table([("endpoints", Value::Array(vec![endpoint]))]));
    let cluster = config.entry("cluster").or_insert_with(|| Value::Table(Table::new()));
    if let Some(cluster) = cluster.as_table_mut() {
        cluster.insert("tiebreak".into(), text("etcd"));
    }
}

fn set_timing(config: &mut Table, timing: Timing) {
    if timing != Profile::Default.timing() {
        let cluster = config.entry("cluster").or_insert_with(|| Value::Table(Table::new()));
        if let Some(cluster) = cluster.as_table_mut() {
            cluster.insert("lease".into(), text(&format!("{}ms", timing.lease.as_millis())));
            cluster.insert("interval".into(), text(&format!("{}ms", timing.interval.as_millis())));
        }
    }
}

/// The group with its addresses, a listener on each of them, and the application behind them.
fn set_service(config: &mut Table, families: Families, site: &Path) {
    let addresses: &[(IpAddr, u8)] = match families {
        Families::V4 => &[(IpAddr::V4(VIP), 24)],
        Families::Both => &[(IpAddr::V4(VIP), 24), (IpAddr::V6(VIP_V6), 64)],
    };
    let vip = |(address, prefix): &(IpAddr, u8)| {
        table([("address", text(&format!("{address}/{prefix}"))), ("interface", text("eth0"))])
    };
    let vips = addresses.iter().map(vip).collect();
    let group = table([("name", text(GROUP)), ("prefer", text(Host::N1.name())), ("vip", Value::Array(vips))]);
    config.insert("group".into(), Value::Array(vec![group]));
    let listener = |(address, _): &(IpAddr, u8)| {
        let route = table([("path", text("/app/")), ("upstream", text("app"))]);
        table([
            ("address", text(&SocketAddr::from((*address, 80)).to_string())),
            ("root", path(site)),
            ("route", Value::Array(vec![route])),
        ])
    };
    config.insert("listener".into(), Value::Array(addresses.iter().map(listener).collect()));
    let server = SocketAddr::from((Host::App.address(), super::app::PORT));
    let upstream = table([
        ("name", text("app")),
        ("servers", Value::Array(vec![text(&server.to_string())])),
        ("health", table([("http", text("/healthz"))])),
    ]);
    config.insert("upstream".into(), Value::Array(vec![upstream]));
}

fn write_site(site: &Path, node: Host) -> Result<()> {
    let name = node.name();
    let page = format!(
        "<!doctype html>\n<title>hawser demo</title>\n<h1>Served by {name}</h1>\n\
         <p>The same site lies on both nodes; this copy names its own.\n<p><a href=\"/app/hello\">The application</a>\n"
    );
    let file = |file: &str, text: &str| std::fs::write(site.join(file), text);
    std::fs::create_dir_all(site)
        .and_then(|()| file("node.txt", &format!("{name}\n")))
        .and_then(|()| file("index.html", &page))
        .or_cannot(format_args!("write {}", site.display()))
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn path(value: &Path) -> Value {
    text(&value.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_wrote_is_kept_and_the_demo_adds_its_own() {
        let mut config: Table = "[cluster]\nname = \"demo\"\n[witness]\nname = \"w\"\n".parse().unwrap();
        set_timing(&mut config, Profile::Fast.timing());
        set_service(&mut config, Families::Both, Path::new("/site"));
        let again: Table = config.to_string().parse().unwrap();
        assert_eq!(again["witness"]["name"].as_str(), Some("w"));
        assert_eq!(again["cluster"]["name"].as_str(), Some("demo"));
        assert_eq!(again["cluster"]["lease"].as_str(), Some("100ms"));
        assert_eq!(again["cluster"]["interval"].as_str(), Some("10ms"));
        assert_eq!(again["group"][0]["vip"][1]["address"].as_str(), Some("fd00:77::100/64"));
        assert_eq!(again["listener"][1]["address"].as_str(), Some("[fd00:77::100]:80"));
        assert_eq!(again["listener"][0]["route"][0]["upstream"].as_str(), Some("app"));
    }

    fn status(fitness: &str, peer: &str, witness: bool, owner: &str) -> Status {
        let text = format!(
            r#"{{"node":"n1","groups":[{{"name":"web","owner":{owner},"role":"active"}}],"fitness":{fitness},
            "peer":{{"name":"n2","connected":true,"fitness":{peer}}},"witness":{{"connected":{witness}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_cluster_is_well_only_if_both_nodes_are_fit_and_the_witness_is_there() {
        assert!(status(r#""fit""#, r#""fit""#, true, r#""n2""#).is_well());
        assert!(!status(r#""fit""#, r#""fit""#, false, r#""n2""#).is_well());
        assert!(!status(r#""fit""#, r#"{"unfit":"no carrier"}"#, true, r#""n2""#).is_well());
        assert!(!status(r#""starting""#, r#""fit""#, true, r#""n2""#).is_well());
        assert_eq!(status(r#""fit""#, r#""fit""#, true, r#""n2""#).owner(), Some(Host::N2));
        assert_eq!(status(r#""fit""#, r#""fit""#, true, "null").owner(), None);
    }
}
