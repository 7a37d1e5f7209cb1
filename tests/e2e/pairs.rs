//! Pairs without a third machine: real daemons, addresses and frames, and a fence agent that really ends what it shoots.

use super::{ALONE, HAWSER, until};
use hawser::clock;
use hawser::demo::{
    cluster::{VIP, VIP_V6},
    lab::{Host, Lab, Nodes},
    observer::Observer,
    process::{Daemon, Recipe},
    stage::{INSIDE, in_user_namespace},
};
use hawser::tiebreak::echo::Echo;
use hawser::time::Instant;
use hawser::vip::probe::{Asker, Heard};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::PoisonError;
use std::time::Duration;

/// Ends all processes of a node, and comes back when its kernel has shut its gate: then nothing of it answers any more.
const AGENT: &str = r#"#!/bin/sh
while IFS='=' read -r key value; do
    case $key in
        action) action=$value ;;
        victim) victim=$value ;;
        broken) broken=$value ;;
    esac
done
if [ -e "$broken" ]; then echo 'no route to the device' >&2; exit 1; fi
# The pattern is in a file, so that this search does not find itself.
pids() { grep -lsaF -f "$victim" /proc/[0-9]*/cmdline | cut -d/ -f3; }
case $action in
    off) for _ in 1 2 3; do kill -9 $(pids) 2>/dev/null; done; sleep 1; [ -z "$(pids)" ] ;;
    status) if [ -z "$(pids)" ]; then exit 2; fi ;;
    *) exit 1 ;;
esac
"#;

/// Runs a test where networks can be made, and alone.
pub(crate) fn in_sandbox(test: &str, body: impl FnOnce()) {
    if geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        return body();
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = in_user_namespace(&mut again).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Two nodes on a switch, and somebody who asks by ARP who has the address.
pub(super) struct Pair {
    nodes: [Daemon; 2],
    observer: Observer,
    lab: Lab,
    begun: Instant,
    folder: tempfile::TempDir,
}

impl Pair {
    /// A pair that n1 serves.
    fn start(tiebreak: &str, more: &str) -> Self {
        Self::start_on(Lab::new().unwrap(), tiebreak, more)
    }

    /// The same, in a laboratory in which something runs already.
    pub(super) fn start_on(lab: Lab, tiebreak: &str, more: &str) -> Self {
        let mut pair = Self::begin_on(lab, tiebreak, more);
        pair.wait_for_owner(Host::N1);
        pair.wait("both nodes hear each other", |pair| Host::NODES.iter().all(|node| pair.hears(*node)));
        pair
    }

    /// Two daemons, whatever becomes of them.
    pub(super) fn begin_on(lab: Lab, tiebreak: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), tiebreak, more);
        let daemon = |host: Host| {
            let home = folder.path().join(host.name());
            let config = home.join("hawser.toml").display().to_string();
            let recipe = Recipe {
                program: HAWSER.into(),
                arguments: vec!["run".into(), "--config".into(), config],
                environment: vec![],
                log: folder.path().join(format!("{}.log", host.name())),
            };
            Daemon::start(host, lab.host(host), recipe).unwrap()
        };
        let nodes = Host::NODES.map(daemon);
        let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP).unwrap();
        Self { nodes, observer, lab, begun: clock::now(), folder }
    }

    pub(super) fn wait(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, || is(self))));
        if told.is_err() {
            let logs = Host::NODES.map(|node| std::fs::read_to_string(self.log(node)).unwrap_or_default());
            panic!("{what}: {}", logs.join("\n--\n"));
        }
    }

    pub(super) fn log(&self, node: Host) -> PathBuf {
        self.folder.path().join(format!("{}.log", node.name()))
    }

    pub(super) fn node(&mut self, host: Host) -> &mut Daemon {
        let [n1, n2] = &mut self.nodes;
        if host == Host::N1 { n1 } else { n2 }
    }

    fn hawser(&self, node: Host, args: &[&str]) -> Output {
        let socket = self.folder.path().join(node.name()).join("admin.sock");
        Command::new(HAWSER).args(args).arg("--socket").arg(socket).env_remove(INSIDE).output().unwrap()
    }

    /// Nothing if the node does not answer.
    fn status(&self, node: Host) -> Value {
        serde_json::from_slice(&self.hawser(node, &["status", "--json"]).stdout).unwrap_or_default()
    }

    /// It hears its peer, which is fit.
    fn hears(&self, node: Host) -> bool {
        let peer = &self.status(node)["peer"];
        peer["connected"] == true && peer["fitness"] == "fit"
    }

    /// It hears the third voter.
    pub(super) fn is_judged(&self, node: Host) -> bool {
        self.status(node)["witness"]["connected"] == true
    }

    /// Who answered last, in the last while.
    pub(super) fn holder(&self) -> Option<String> {
        let now = clock::now();
        self.observer.between(now - Duration::from_millis(200), now).unwrap().holder_names().pop()
    }

    pub(super) fn wait_for_owner(&mut self, node: Host) {
        self.wait(&format!("{} answers", node.name()), |pair| pair.holder().as_deref() == Some(node.name()));
    }

    /// Since the start never two answered.
    pub(super) fn assert_never_two(&self) {
        let seen = self.observer.between(self.begun, clock::now()).unwrap();
        assert!(seen.asks > 200, "nothing was measured: {seen:?}");
        assert!(seen.double.is_zero(), "both answered: {seen:?}");
    }
}

/// What `hawser init` makes, with another tiebreak.
fn make(folder: &Path, tiebreak: &str, more: &str) {
    let mut init = Command::new(HAWSER);
    init.args(["init", "--cluster", "pair", "--vip", &format!("{VIP}/24@eth0"), "--out"]).arg(folder);
    for (option, host) in [("--node", Host::N1), ("--node", Host::N2), ("--witness", Host::Witness)] {
        init.args([option, &format!("{}={}", host.name(), host.address())]);
    }
    let output = init.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for host in Host::NODES {
        let home = folder.join(host.name());
        let file = home.join("hawser.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("[cluster]\n", &format!("[cluster]\ntiebreak = \"{tiebreak}\"\n"));
        let (before, rest) = text.split_once("[witness]").unwrap();
        let after = rest.split_once("[[group]]").unwrap().1;
        let paths = format!(
            "[store]\ndir = \"{home}/state\"\n[admin]\nsocket = \"{home}/admin.sock\"\n",
            home = home.display()
        );
        std::fs::write(&file, format!("{before}{paths}{more}\n[[group]]{after}")).unwrap();
        // What the agent looks for.
        std::fs::write(folder.join(format!("{}.victim", host.name())), file.display().to_string()).unwrap();
    }
}

/// A pair that fences with the agent above; while `broken` is there, that fails.
fn fenced(agents: &Path, head_start: &str) -> (Pair, PathBuf) {
    let (text, agent, broken) = (agents.join("text"), agents.join("fence_lab"), agents.join("broken"));
    std::fs::write(&text, AGENT).unwrap();
    // By another process: a descriptor open for writing here could leak into what is started meanwhile.
    assert!(Command::new("install").args(["-m", "755"]).args([&text, &agent]).status().unwrap().success());
    let victim = |host: Host| agents.join(format!("{}.victim", host.name()));
    let more = format!(
        "[fence]\nagent = \"{}\"\nhead_start = \"{head_start}\"\noptions = {{ broken = \"{}\" }}\n\
         [fence.n1]\noptions = {{ victim = \"{}\" }}\n[fence.n2]\noptions = {{ victim = \"{}\" }}\n",
        agent.display(),
        broken.display(),
        victim(Host::N1).display(),
        victim(Host::N2).display()
    );
    let pair = Pair::start("fence", &more);
    for host in Host::NODES {
        std::fs::copy(pair.folder.path().join(format!("{}.victim", host.name())), victim(host)).unwrap();
    }
    (pair, broken)
}

#[test]
fn without_a_third_machine_a_dead_owner_is_replaced_and_comes_back_as_standby() {
    in_sandbox("pairs::without_a_third_machine_a_dead_owner_is_replaced_and_comes_back_as_standby", || {
        let mut pair = Pair::start("none", "");
        let page = pair.hawser(Host::N2, &["status"]);
        let page = String::from_utf8_lossy(&page.stdout).into_owned();
        assert!(page.contains("both nodes answer") && page.contains("tiebreak"), "it says what it cannot do: {page}");
        let killed = clock::now();
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait_for_owner(Host::N2);
        let dark = clock::now().since(killed);
        assert!(dark > Duration::from_millis(1_300), "not before three leases are over: {dark:?}");
        pair.node(Host::N1).restart().unwrap();
        pair.wait("n1 is back", |pair| pair.hears(Host::N2) && pair.hears(Host::N1));
        assert_eq!(pair.holder().as_deref(), Some("n2"), "and nothing moves");
        // A planned move, with nobody's vote but the owner's.
        pair.wait("it moves", |pair| pair.hawser(Host::N2, &["switchover", "--to", "n1"]).status.success());
        pair.wait_for_owner(Host::N1);
        pair.assert_never_two();
    });
}

#[test]
fn while_the_owner_answers_it_keeps_the_address_though_no_link_works() {
    in_sandbox("pairs::while_the_owner_answers_it_keeps_the_address_though_no_link_works", || {
        let mut pair = Pair::start("none", "");
        // Without its own address n2 has no link; its interface still asks, and hears who answers.
        pair.lab.remove_address(Host::N2, Host::N2.address().into()).unwrap();
        pair.wait("n2 sees that somebody answers", |pair| {
            pair.status(Host::N2)["tiebreak_state"]["stand"].as_str().is_some_and(|stand| stand.contains("answers for"))
        });
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(pair.holder().as_deref(), Some("n1"));
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait_for_owner(Host::N2);
        pair.assert_never_two();
    });
}

#[test]
fn a_node_that_slept_takes_nothing_over() {
    in_sandbox("pairs::a_node_that_slept_takes_nothing_over", || {
        let mut pair = Pair::start("none", "");
        pair.node(Host::N2).signal_all(Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        pair.node(Host::N2).signal_all(Signal::SIGCONT).unwrap();
        pair.wait("n2 hears n1", |pair| pair.hears(Host::N2));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(pair.holder().as_deref(), Some("n1"));
        pair.assert_never_two();
    });
}

#[test]
fn a_cut_between_the_nodes_leaves_exactly_one_when_the_fence_device_is_honest() {
    in_sandbox("pairs::a_cut_between_the_nodes_leaves_exactly_one_when_the_fence_device_is_honest", || {
        let agents = tempfile::tempdir().unwrap();
        let (mut pair, _) = fenced(agents.path(), "4s");
        pair.lab.set_nodes(Nodes::Apart).unwrap();
        pair.wait("n2 is known to be off", |pair| {
            pair.status(Host::N1)["tiebreak_state"]["stand"].as_str().is_some_and(|stand| stand.contains("powered off"))
        });
        assert!(!pair.node(Host::N2).is_running(), "the one that did not serve was shot");
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(pair.holder().as_deref(), Some("n1"));
        assert!(pair.node(Host::N1).is_running(), "the owner lives");
        // It is repaired; then the owner dies, and is seen to be off before it is replaced.
        pair.lab.set_nodes(Nodes::Joined).unwrap();
        pair.node(Host::N2).restart().unwrap();
        pair.wait("n2 is back", |pair| pair.hears(Host::N1) && pair.hears(Host::N2));
        pair.node(Host::N1).signal_all(Signal::SIGSTOP).unwrap();
        pair.wait_for_owner(Host::N2);
        pair.wait("n1 is off", |pair| {
            pair.status(Host::N2)["tiebreak_state"]["stand"].as_str().is_some_and(|stand| stand.contains("powered off"))
        });
        assert!(!pair.node(Host::N1).is_running(), "it hung, and was ended");
        pair.assert_never_two();
    });
}

#[test]
fn an_agent_that_fails_means_no_takeover_until_somebody_says_that_the_node_is_off() {
    in_sandbox("pairs::an_agent_that_fails_means_no_takeover_until_somebody_says_that_the_node_is_off", || {
        let agents = tempfile::tempdir().unwrap();
        let (mut pair, broken) = fenced(agents.path(), "1s");
        let refused = pair.hawser(Host::N2, &["confirm-fenced", "n1", "--yes"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is heard"), "{refused:?}");
        std::fs::write(&broken, "").unwrap();
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait("it says that fencing failed", |pair| {
            let page = pair.hawser(Host::N2, &["status"]);
            let text = String::from_utf8_lossy(&page.stdout).into_owned();
            page.status.code() == Some(2)
                && text.contains("! n1 could not be powered off")
                && text.contains("no route to the device")
        });
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(pair.holder(), None, "nothing is taken over");
        let unsure = pair.hawser(Host::N2, &["confirm-fenced", "n1"]);
        assert_eq!(unsure.status.code(), Some(2), "{unsure:?}");
        assert_eq!(pair.holder(), None, "nothing is taken over");
        assert!(pair.hawser(Host::N2, &["confirm-fenced", "n1", "--yes"]).status.success());
        pair.wait_for_owner(Host::N2);
        pair.wait("the history knows", |pair| {
            let history = pair.hawser(Host::N2, &["history"]);
            let history = String::from_utf8_lossy(&history.stdout).into_owned();
            history.contains("confirmed_by_operator") && history.contains("fencing_failed")
        });
        pair.assert_never_two();
    });
}

/// Debian's `fence_dummy`: it keeps in a file whether the machine is on. It ends nothing, so the machine dies first.
fn fenced_by_a_real_agent(folder: &Path, kind: &str) -> Pair {
    let device = |host: Host| {
        let file = folder.join(host.name());
        std::fs::write(&file, "on").unwrap();
        let name = host.name();
        format!("[fence.{name}]\noptions = {{ status_file = \"{}\" }}\n", file.display())
    };
    let [n1, n2] = Host::NODES.map(device);
    let options = format!("{{ type = \"{kind}\", power_timeout = 1 }}");
    Pair::start(
        "fence",
        &format!("[fence]\nagent = \"fence_dummy\"\nhead_start = \"1s\"\noptions = {options}\n{n1}{n2}"),
    )
}

#[test]
#[ignore = "needs Debian's fence-agents; tests/fence.sh runs it"]
fn a_real_agent_is_understood_and_what_it_switched_off_is_replaced() {
    in_sandbox("pairs::a_real_agent_is_understood_and_what_it_switched_off_is_replaced", || {
        let devices = tempfile::tempdir().unwrap();
        let mut pair = fenced_by_a_real_agent(devices.path(), "file");
        let power = |host: Host| std::fs::read_to_string(devices.path().join(host.name())).unwrap();
        assert_eq!(Host::NODES.map(power), ["on", "on"], "nobody is shot while all is well");
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait_for_owner(Host::N2);
        assert_eq!(Host::NODES.map(power), ["off", "on"], "it was switched off before it was replaced");
        let status = pair.status(Host::N2);
        assert!(status["tiebreak_state"]["stand"].as_str().unwrap().contains("powered off"), "{status}");
        pair.assert_never_two();
    });
}

#[test]
#[ignore = "needs Debian's fence-agents; tests/fence.sh runs it"]
fn a_real_agent_that_fails_is_quoted_and_nothing_is_taken_over() {
    in_sandbox("pairs::a_real_agent_that_fails_is_quoted_and_nothing_is_taken_over", || {
        let devices = tempfile::tempdir().unwrap();
        let mut pair = fenced_by_a_real_agent(devices.path(), "fail");
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait("it says that fencing failed, in the agent's words", |pair| {
            let page = pair.hawser(Host::N2, &["status"]);
            let text = String::from_utf8_lossy(&page.stdout).into_owned();
            page.status.code() == Some(2)
                && text.contains("! n1 could not be powered off")
                && text.contains("Timed out waiting to power OFF")
        });
        assert_eq!(pair.holder(), None, "nothing is taken over");
        assert!(pair.hawser(Host::N2, &["confirm-fenced", "n1", "--yes"]).status.success());
        pair.wait_for_owner(Host::N2);
        pair.assert_never_two();
    });
}

#[test]
fn with_a_gateway_the_address_is_taken_over_only_while_it_answers() {
    in_sandbox("pairs::with_a_gateway_the_address_is_taken_over_only_while_it_answers", || {
        // One that is there, and one that is not.
        let gateways = |need: u32| {
            format!("[gateway]\naddresses = [\"{}\", \"10.77.0.254\"]\nneed = {need}\n", Host::Client.address())
        };
        let mut pair = Pair::start("gateway", &gateways(1));
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait_for_owner(Host::N2);
        pair.assert_never_two();
        drop(pair);
        let mut pair = Pair::start("gateway", &gateways(2));
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait("it says that too few answer", |pair| {
            let page = pair.hawser(Host::N2, &["status"]);
            String::from_utf8_lossy(&page.stdout).contains("! only 1 of the gateways answer")
        });
        assert_eq!(pair.holder(), None, "nothing is taken over");
    });
}

#[test]
fn who_asks_hears_who_has_an_address_and_who_else_asks_in_both_families() {
    in_sandbox("pairs::who_asks_hears_who_has_an_address_and_who_else_asks_in_both_families", || {
        let lab = Lab::new().unwrap();
        let held: [IpAddr; 2] = [VIP.into(), VIP_V6.into()];
        let free: [IpAddr; 2] = ["10.77.0.101".parse().unwrap(), "fd00:77::101".parse().unwrap()];
        held.iter().for_each(|ip| lab.add_address(Host::N1, *ip, if ip.is_ipv6() { 64 } else { 24 }).unwrap());
        let targets: Vec<_> = held.iter().chain(&free).map(|ip| ("eth0".to_owned(), *ip)).collect();
        let open = |host: Host| lab.host(host).run(|| Asker::new(&targets)).unwrap().unwrap();
        let (ours, theirs) = (open(Host::N2), open(Host::Client));
        let mut heard = BTreeSet::new();
        until("each answer and each question is heard", || {
            ours.ask().unwrap();
            theirs.ask().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            heard.extend(ours.heard());
            heard.len() == 6
        });
        let taken = held.map(|ip| (ip, Heard::Taken(Host::N1.mac())));
        let asked = [held[0], held[1], free[0], free[1]].map(|ip| (ip, Heard::Asked(Host::Client.mac())));
        assert_eq!(heard, taken.into_iter().chain(asked).collect());
        let echo = lab.host(Host::N2).run(|| {
            let addresses = [Host::Client.address().into(), Host::Client.address_v6().into(), free[0]];
            Echo::new(&addresses, 7)
        });
        let mut echo = echo.unwrap().unwrap();
        let mut answered = BTreeSet::new();
        until("both families answer an echo", || {
            echo.ask();
            std::thread::sleep(Duration::from_millis(50));
            answered.extend(echo.heard());
            answered.len() == 2
        });
        assert!(!answered.contains(&free[0]));
    });
}
