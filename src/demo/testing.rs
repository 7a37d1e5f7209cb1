//! What the tests of the instruments share.

use super::netns::Netns;
use super::stage::{INSIDE, in_user_namespace};
use nix::unistd::geteuid;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Runs a test's body where networks can be made: here if this is root or such a place, else in this program started
/// again, for this one test, in a user namespace.
pub(super) fn in_sandbox(test: &str, body: impl FnOnce()) {
    if geteuid().is_root() { body() } else { in_user_sandbox(test, body) }
}

/// The same, and always in a user namespace.
pub(super) fn in_user_sandbox(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = in_user_namespace(&mut again).output().expect("user namespaces are allowed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A web server on port 80 of all addresses of `network` that answers everything with `name`, until the process ends.
pub(super) fn web_stand_in(network: &Netns, name: &'static str) {
    let listener = network.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.and_then(|stream| serve(stream, name)));
        }
    });
}

fn serve(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let _read = stream.read(&mut [0; 1024])?;
    let body = format!("{name}\n");
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
