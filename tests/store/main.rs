//! What must survive: the store under `kill -9`, damage and full disks; two replicas over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test binary: whatever is not as it should be ends the test"
)]

mod crash;
mod damage;
mod pair;
mod sync;
mod syscalls;

use hawser::store::{Batch, Store};

/// The number under a key.
fn number(store: &dyn Store, key: &str) -> Option<u64> {
    store.get(key.as_bytes()).unwrap().map(|payload| hawser::store::batch::decode(key.as_bytes(), &payload).unwrap())
}

/// A commit of one number.
fn put(key: &str, value: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, &value).unwrap();
    batch
}

/// Whether this process was started by a test as its child: with which part, in which folder.
fn child(part: &str) -> Option<std::path::PathBuf> {
    let asked = std::env::var("HAWSER_STORE_CHILD").ok()?;
    let (which, folder) = asked.split_once(':')?;
    (which == part).then(|| folder.into())
}

/// This test binary as a child that runs only `test`, which then finds its `part`.
fn spawn(test: &str, part: &str, folder: &std::path::Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("HAWSER_STORE_CHILD", format!("{part}:{}", folder.display()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    command
}

/// Runs a test in a process of its own, where this is true. sled's threads are shared by all that one process opens, and
/// a watched one must not serve another test.
fn alone(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    if child("alone").is_some() {
        return true;
    }
    let output = spawn(test, "alone", dir.path()).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    println!("{said}");
    false
}
