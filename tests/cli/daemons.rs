//! Real witnesses and nodes on loopback: how they start, how they refuse, how they end. Nobody gets an address here.

use super::{err, hawser, out};
use rustix::thread::CapabilitySet;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Generous: a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Addresses of this test alone: loopback is a whole /8.
fn address(test: u8) -> Ipv4Addr {
    let [a, b, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, a | 1, b, test)
}

struct Running(Child);

impl Running {
    /// Starts the program and waits until its log says `word`.
    fn start(args: &[&str], dir: &Path, word: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hawser"))
            .args(args)
            .current_dir(dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains(word) {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it said {word:?}:\n{seen}");
            seen.push_str(&line);
        }
        std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Self(child)
    }

    /// Asks it to end; its exit code.
    fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A folder with what `init` makes, and a witness that listens on an address of its own.
fn witness(test: u8) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let here = address(test);
    let witness = format!("w={here}");
    let args = ["init", "--cluster", "shop", "--node", "n1=127.0.0.1:7001", "--node", "n2=127.0.0.1:7002"];
    let made = hawser(&[&args[..], &["--witness", &witness, "--out", "shop"]].concat(), dir.path());
    assert!(made.status.success(), "{}", err(&made));
    let config = dir.path().join("shop/w/witness.toml");
    fs::write(
        &config,
        format!(
            "[witness]\nlisten = [\"{here}\"]\nstate = \"state\"\n[[cluster]]\nname = \"shop\"\n\
             secret = \"shop.witness.key\"\n"
        ),
    )
    .unwrap();
    (dir, config)
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_names_the_first() {
    let (dir, config) = witness(1);
    let args = ["witness", "--config", config.to_str().unwrap()];
    let first = Running::start(&args, dir.path(), "witness started");
    let pid = first.0.id().to_string();
    let second = hawser(&args, dir.path());
    assert_eq!(second.status.code(), Some(78), "{}", err(&second));
    assert!(err(&second).contains(&pid), "{}", err(&second));
    assert_eq!(first.end(), Some(0), "the first was not harmed, and ends in order");
}

#[test]
fn a_damaged_promise_file_is_refused_with_the_way_out() {
    let (dir, config) = witness(2);
    let args = ["witness", "--config", config.to_str().unwrap()];
    let promise = config.with_file_name("state").join("shop/promise");
    fs::create_dir_all(promise.parent().unwrap()).unwrap();
    fs::write(&promise, vec![0x55; 16384]).unwrap();
    let refused = hawser(&args, dir.path());
    assert_eq!(refused.status.code(), Some(78), "{}", err(&refused));
    assert!(err(&refused).contains(promise.to_str().unwrap()), "{}", err(&refused));
    assert!(err(&refused).contains("move"), "the way out is told: {}", err(&refused));
    assert_eq!(fs::read(&promise).unwrap(), vec![0x55; 16384], "the file was not touched");
}

#[test]
fn a_witness_that_may_have_lost_its_last_promise_says_so_and_starts_without_memory() {
    use hawser::store::{Election, Promises};
    use std::os::unix::fs::FileExt;
    let (dir, config) = witness(5);
    let folder = config.with_file_name("state").join("shop");
    fs::create_dir_all(&folder).unwrap();
    Promises::open(&folder).unwrap().update_election(Election::default()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(folder.join("promise")).unwrap();
    for copy in [1, 3] {
        file.write_all_at(&[0xff; 64], copy * 4096).unwrap();
    }
    let args = ["witness", "--config", config.to_str().unwrap()];
    let running = Running::start(&args, dir.path(), "this voter starts without memory");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, config) = witness(3);
    let key = config.with_file_name("shop.witness.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = hawser(&["witness", "--config", config.to_str().unwrap()], dir.path());
    assert_eq!(refused.status.code(), Some(78));
    assert!(err(&refused).contains("chmod 600"), "{}", err(&refused));
}

#[test]
fn no_daemon_is_an_error_that_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["status"][..], &["history"], &["switchover"], &["standby"], &["unstandby"]] {
        let asked = hawser(&[verb, &["--socket", "nobody.sock"]].concat(), dir.path());
        assert_eq!(asked.status.code(), Some(1), "{verb:?}");
        assert!(err(&asked).contains("nobody.sock"), "{}", err(&asked));
        assert!(out(&asked).is_empty());
    }
}

#[test]
fn serve_is_a_web_server_in_one_command_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), "ahoy").unwrap();
    let listen = format!("{}:8099", address(4));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hawser"))
        .args(["serve", ".", "--listen", &listen])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(&format!("http://{listen}/")), "{line}");
    let running = Running(child);
    let mut stream = std::net::TcpStream::connect(&listen).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ahoy"), "{answer}");
    assert_eq!(running.end(), Some(0));
}

/// As a container or a unit without the capability does it: whoever has it not needs nothing taken away.
#[test]
fn a_missing_capability_is_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let made = super::init(dir.path(), "shop");
    assert!(made.status.success(), "{}", err(&made));
    for (taken, name) in [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")] {
        let without = move || {
            let mine = rustix::thread::capabilities(None)?;
            if mine.effective.contains(taken) {
                rustix::thread::remove_capability_from_bounding_set(taken)?;
            }
            Ok(())
        };
        let mut run = Command::new(env!("CARGO_BIN_EXE_hawser"));
        run.args(["run", "--config", "shop/n1/hawser.toml"]).current_dir(dir.path());
        #[expect(unsafe_code, reason = "what happens between fork and exec")]
        // SAFETY: two system calls, nothing else.
        unsafe {
            run.pre_exec(without);
        }
        let refused = run.output().unwrap();
        assert_eq!(refused.status.code(), Some(78), "{}", err(&refused));
        let said = err(&refused);
        let named = said.contains(name) || (said.contains("CAP_NET_ADMIN") && !rustix::process::geteuid().is_root());
        assert!(named && said.contains("AmbientCapabilities"), "{said}");
    }
}
