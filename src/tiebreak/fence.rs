//! Speaks to fence agents: any `fence_*` program, by its standard input (`key=value` lines, then its end).
//!
//! An agent is started without a shell and in a process group of its own; it has a time limit, after which the group is
//! killed, and what it prints is kept up to a limit. Status 0 of `off` means that it is done; `status` gives 0 for on and
//! 2 for off, and anything else if it cannot tell (fence agent API of ClusterLabs).

use crate::{
    config::{FenceDevice, find_agent},
    limits::FENCE_OUTPUT_BYTES_MAX,
    time::Duration,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

/// How often a running agent is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the last words of an agent that has ended are waited for: a child of its own may hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What `status` gives for a machine that is off.
const STATUS_OFF: i32 = 2;
const STATUS_ON: i32 = 0;

/// Powers a node off. Done only if the agent says so, and does not say afterwards that the node is on.
///
/// # Errors
/// Why it is not known to be off.
pub fn shoot(device: &FenceDevice, node: &str, timeout: Duration) -> Result<(), String> {
    let done = run(device, node, "off", timeout)?;
    if done.code != Some(0) {
        return Err(format!("{} off: {done}", device.agent.display()));
    }
    match run(device, node, "status", timeout) {
        Ok(Done { code: Some(STATUS_ON), .. }) => {
            Err(format!("{} said that {node} was switched off, and then that it is on", device.agent.display()))
        }
        // Not every agent can tell; `off` was confirmed.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a node is off, by the word of the device.
///
/// # Errors
/// Why that is not known.
pub fn is_off(device: &FenceDevice, node: &str, timeout: Duration) -> Result<bool, String> {
    let done = run(device, node, "status", timeout)?;
    match done.code {
        Some(STATUS_OFF) => Ok(true),
        Some(STATUS_ON) => Ok(false),
        Some(_) | None => Err(format!("{} status: {done}", device.agent.display())),
    }
}

/// How an agent ended.
struct Done {
    code: Option<i32>,
    status: ExitStatus,
    said: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        let last = self.said.lines().map(str::trim).rfind(|line| !line.is_empty());
        last.map_or(Ok(()), |last| write!(f, ", {last:?}"))
    }
}

fn run(device: &FenceDevice, node: &str, action: &str, timeout: Duration) -> Result<Done, String> {
    let name = device.agent.display();
    let program = find_agent(&device.agent).ok_or_else(|| format!("there is no fence agent {name}"))?;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot start the fence agent {name}: {error}"))?;
    let heard = talk(&mut child, words(device, node, action));
    let status = wait(&mut child, timeout);
    let said = collect(&heard);
    match status {
        Ok(Some(status)) => Ok(Done { code: status.code(), status, said }),
        Ok(None) => Err(format!("{name} {action} took longer than {} s, and was killed", timeout.as_secs())),
        Err(error) => Err(format!("cannot wait for the fence agent {name}: {error}")),
    }
}

/// What an agent reads.
fn words(device: &FenceDevice, node: &str, action: &str) -> String {
    let mut words = format!("action={action}\nnodename={node}\n");
    for (key, text) in &device.options {
        writeln!(words, "{key}={text}").unwrap_or(());
    }
    words
}

/// Feeds the agent and hears what it prints, on threads of their own: neither can hold the other up. Each thread ends
/// with its pipe.
fn talk(child: &mut Child, words: String) -> Receiver<(usize, Vec<u8>)> {
    let (tell, heard) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
    for (number, mut output) in outputs.into_iter().enumerate().filter_map(|(number, out)| Some((number, out?))) {
        let tell = tell.clone();
        thread::spawn(move || {
            let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let room = FENCE_OUTPUT_BYTES_MAX - kept.len();
                kept.extend_from_slice(buffer.get(..length.min(room)).unwrap_or_default());
            }
            // Nobody may wait any more.
            let _gone = tell.send((number, kept)).is_err();
        });
    }
    if let Some(mut input) = child.stdin.take() {
        // An agent that does not read all of it will say what it misses.
        thread::spawn(move || drop(input.write_all(words.as_bytes())));
    }
    heard
}

/// The status, or nothing if it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let looks = timeout.as_millis() / LOOK.as_millis();
    for _ in 0..=looks {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK);
    }
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    // It is our child and not waited for yet, so this group is still its own.
    let _gone = killpg(group, Signal::SIGKILL).is_err();
    child.wait().map(|_| None)
}

/// What it printed; what it said of errors is last.
fn collect(heard: &Receiver<(usize, Vec<u8>)>) -> String {
    let mut said = Vec::new();
    while let Ok(some) = heard.recv_timeout(LAST_WORDS) {
        said.push(some);
    }
    said.sort();
    said.iter().map(|(_, text)| String::from_utf8_lossy(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, path::Path};

    /// An agent that does what a line of shell says, with what it read in `$told`.
    fn agent(folder: &Path, script: &str) -> FenceDevice {
        let (text, path) = (folder.join("text"), folder.join("fence_test"));
        let head = "#!/bin/sh\ntold=$(cat)\naction=$(echo \"$told\" | sed -n s/^action=//p)";
        std::fs::write(&text, format!("{head}\n{script}\n")).unwrap();
        // Written by another process: a descriptor open for writing here could leak into what other tests start, and a
        // program that somebody writes to cannot be started.
        assert!(Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap().success());
        let options = [("plug", "7"), ("password", "with a blank")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        FenceDevice { agent: path, options: BTreeMap::from(options) }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn an_agent_is_told_action_node_and_options_by_its_input() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("told");
        let device = agent(folder.path(), &format!("echo \"$told\" >> {}; [ $action = off ] || exit 2", out.display()));
        assert_eq!(shoot(&device, "n2", SOON), Ok(()));
        let told = std::fs::read_to_string(out).unwrap();
        let options = "nodename=n2\npassword=with a blank\nplug=7\n";
        assert_eq!(told, format!("action=off\n{options}action=status\n{options}"));
    }

    #[test]
    fn a_node_counts_as_off_only_if_the_agent_says_so_and_does_not_take_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let shot = |script: &str| shoot(&agent(folder.path(), script), "n2", SOON);
        assert_eq!(shot("[ $action = off ] && exit 0; exit 1"), Ok(()), "it cannot tell");
        assert!(shot("[ $action = off ] && exit 0; exit 0").unwrap_err().contains("that it is on"));
        let failed = shot("echo first; echo no such plug >&2; exit 3").unwrap_err();
        assert!(failed.contains("exit status: 3") && failed.contains("no such plug"), "{failed}");
        assert!(shot("kill -9 $$").unwrap_err().contains("signal"), "killed");
    }

    #[test]
    fn the_status_of_a_device_is_taken_as_the_interface_says() {
        let folder = tempfile::tempdir().unwrap();
        let status = |code: u8| is_off(&agent(folder.path(), &format!("exit {code}")), "n2", SOON);
        assert_eq!((status(0), status(2)), (Ok(false), Ok(true)));
        assert!(status(1).is_err());
    }

    #[test]
    fn an_agent_that_hangs_is_killed_with_its_children_and_one_that_talks_is_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("late");
        let device = agent(folder.path(), &format!("(sleep 3; touch {}) & wait", mark.display()));
        let begun = std::time::Instant::now();
        let failed = shoot(&device, "n2", Duration::from_secs(1)).unwrap_err();
        assert!(failed.contains("longer than 1 s"), "{failed}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_secs(3));
        assert!(!mark.exists(), "its child was killed, too");
        let device = agent(folder.path(), "yes | head -c 1000000; exit 1");
        assert!(run(&device, "n2", "off", SOON).unwrap().said.len() <= 2 * FENCE_OUTPUT_BYTES_MAX);
    }

    #[test]
    fn an_agent_that_is_not_there_is_named() {
        let device = FenceDevice { agent: "fence_of_nowhere".into(), options: BTreeMap::new() };
        assert!(shoot(&device, "n2", SOON).unwrap_err().contains("fence_of_nowhere"));
    }
}
