//! A whole node whose disk fails: it says so, lets go of everything, and is well again after a restart on a good disk.

use crate::{
    lab::{Lab, VIP4, eventually, has, isolated_tests},
    syscalls::{Call, Verdict, watched},
};
use hawser::{
    cluster::{Member, Name, Term},
    replicate::{Health, State, StateConfig},
    store::{self, Election, Promises},
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const NODE: &str = r#"
[cluster]
name = "t"
[[node]]
name = "n1"
links = ["192.0.2.1"]
[[node]]
name = "n2"
links = ["192.0.2.2"]
[witness]
name = "w"
address = "192.0.2.1:7709"
[[group]]
name = "web"
prefer = "n1"
vip = [{ address = "192.0.2.10/24", interface = "node0" }]
[admin]
socket = "admin.sock"
[store]
dir = "state"
"#;
const WITNESS: &str = r#"
[witness]
listen = ["192.0.2.1:7709"]
state = "state"
[[cluster]]
name = "t"
secret = "t.witness.key"
"#;

fn hawser(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hawser")).args(args).current_dir(folder).output().unwrap()
}

/// A daemon, its log beside its configuration.
struct Daemon(Child);

impl Daemon {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hawser"));
        Self(command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    /// A worker ends by itself when its supervisor is gone.
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Folders of a first node and a witness that remember that they have promised before: two of three are enough then.
fn members(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let nodes = ["--node", "n1=192.0.2.1", "--node", "n2=192.0.2.2", "--witness", "w=192.0.2.1:7709"];
    let vip = ["--vip", "192.0.2.10/24@node0", "--out", "t"];
    let made = hawser(dir, &[&["init", "--cluster", "t"][..], &nodes, &vip].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (node, witness) = (dir.join("t/n1"), dir.join("t/w"));
    fs::write(node.join("hawser.toml"), NODE).unwrap();
    fs::write(witness.join("witness.toml"), WITNESS).unwrap();
    let promised = Election { hold_given: Duration::from_millis(550), ..Election::default() };
    for folder in [node.join("state"), witness.join("state/t")] {
        fs::create_dir_all(&folder).unwrap();
        Promises::open(&folder).unwrap().update_election(promised.clone()).unwrap();
    }
    accept_the_state(&node.join("state"));
    (node, witness)
}

/// As an operator may: the node's own copy of the state counts as whole, although it has never seen its peer's.
fn accept_the_state(folder: &Path) {
    let stores = store::open(folder).unwrap();
    let config = StateConfig { me: Member::First, name: Name::new("n1").unwrap(), highest: Term(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let state = State::start(config, Box::new(stores.keyspace), None).unwrap();
        let mut views = state.watch_view();
        state.accept().await;
        views.wait_for(|view| view.health == Health::Ok).await.unwrap();
        state.stop().await;
    });
}

/// Shows the logs of a test that fails.
struct Logs<'a>(&'a [&'a Path]);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        for folder in self.0.iter().filter(|_| std::thread::panicking()) {
            println!("{}:\n{}", folder.display(), fs::read_to_string(folder.join("log")).unwrap_or_default());
        }
    }
}

fn live_through_a_bad_disk(dir: &Path, failing: &AtomicBool) {
    let _lab = Lab::new();
    let (node, witness) = members(dir);
    let folders = [node.as_path(), witness.as_path()];
    let _logs = Logs(&folders);
    let _witness = Daemon::start(&witness, &["witness", "--config", "witness.toml"]);
    let first = Daemon::start(&node, &["run", "--config", "hawser.toml"]);
    let log = || fs::read_to_string(node.join("log")).unwrap();
    let say = |args: &[&str]| hawser(&node, &[args, &["--socket", "admin.sock"]].concat());
    eventually("the node owns its address", || has(VIP4));
    eventually("it writes its state", || say(&["standby", "n2"]).status.success());
    failing.store(true, Ordering::SeqCst);
    assert!(!say(&["unstandby", "n2"]).status.success(), "a write that is not on the disk is not confirmed");
    eventually("it lets go of its address", || !has(VIP4));
    let status = say(&["status"]);
    let page = String::from_utf8_lossy(&status.stdout).into_owned();
    let told =
        page.lines().any(|line| line.contains("! ") && line.contains("n1 cannot serve") && line.contains("disk"));
    assert!(told && status.status.code() == Some(2), "{page}{}", log());
    assert!(log().contains("store failed"), "{}", log());
    // A disk that is well again is not believed by the same process.
    failing.store(false, Ordering::SeqCst);
    assert!(!say(&["unstandby", "n2"]).status.success() && !has(VIP4));
    drop(first);
    let _again = Daemon::start(&node, &["run", "--config", "hawser.toml"]);
    eventually("it owns its address again", || has(VIP4));
    eventually("it writes again", || say(&["unstandby", "n2"]).status.success());
}

isolated_tests! {
    fn a_node_whose_disk_fails_says_so_lets_go_and_comes_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let state = path.join("t/n1/state/state/db");
        let failing = AtomicBool::new(false);
        let judge = |call: &Call| {
            if failing.load(Ordering::SeqCst) && call.syncs(&state) { Verdict::Fail } else { Verdict::Go }
        };
        watched(&[libc::SYS_fdatasync], judge, || live_through_a_bad_disk(&path, &failing));
    }
}
