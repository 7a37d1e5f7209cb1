//! The programs on the hosts of the laboratory: daemons that can be frozen and killed whole, and commands that end.
//!
//! A daemon gets a process group of its own (Ctrl-C in the terminal is for the demo alone) and is killed by the kernel
//! when the demo dies, however it dies. Everything is signalled by process id, and only what was started here.

use super::error::{Attempt, Error, Result};
use super::lab::Host;
use super::netns::Netns;
use crate::clock;
use crate::time::Duration;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

/// How often a command is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// What a daemon is started with; it can be started again.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A daemon on a host: the process that was started (of a node: the supervisor) and all below it.
#[derive(Debug)]
pub struct Daemon {
    host: Host,
    network: Netns,
    recipe: Recipe,
    child: Child,
}

impl Daemon {
    /// Starts it.
    ///
    /// # Errors
    /// If the program cannot be started, or its log cannot be written.
    pub fn start(host: Host, network: &Netns, recipe: Recipe) -> Result<Self> {
        let child = launch(network, &recipe)?;
        Ok(Self { host, network: network.clone(), recipe, child })
    }

    /// The host it runs on.
    #[must_use]
    pub const fn host(&self) -> Host {
        self.host
    }

    /// Process id of the one that was started.
    #[must_use]
    pub fn pid(&self) -> Pid {
        // A process id of the kernel's always fits.
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The processes that it has started itself: of a node, its worker.
    #[must_use]
    pub fn workers(&self) -> Vec<Pid> {
        below(self.pid())
    }

    /// Sends a signal to the first process and then to all below it. Those that ended with the first are no fault.
    ///
    /// # Errors
    /// If the first is gone.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        let workers = self.workers();
        if signal == Signal::SIGKILL {
            // A worker that sees its supervisor die lets go in order: to die together, they are stopped first.
            self.signal(&[self.pid()], Signal::SIGSTOP)?;
            workers.iter().for_each(|worker| send(*worker, Signal::SIGSTOP));
        }
        self.signal(&[self.pid()], signal)?;
        workers.into_iter().for_each(|worker| send(worker, signal));
        Ok(())
    }

    /// Sends a signal to the workers alone.
    ///
    /// # Errors
    /// If there is none, or one is gone.
    pub fn signal_workers(&self, signal: Signal) -> Result<()> {
        let workers = self.workers();
        if workers.is_empty() {
            return Err(Error::new(format!("{} runs without a worker", self.host.name())));
        }
        self.signal(&workers, signal)
    }

    /// Sends a signal to processes that may be gone.
    pub fn signal_if_there(pids: &[Pid], signal: Signal) {
        pids.iter().for_each(|pid| send(*pid, signal));
    }

    fn signal(&self, pids: &[Pid], signal: Signal) -> Result<()> {
        pids.iter().try_for_each(|pid| {
            kill(*pid, signal).or_cannot(format_args!("send {signal} to process {pid} of {}", self.host.name()))
        })
    }

    /// Kills what is left of it and starts it again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.end();
        self.child = launch(&self.network, &self.recipe)?;
        Ok(())
    }

    /// Whether the process that was started still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.recipe.log
    }

    /// Kills all of it, and reaps it. What is gone already is no fault.
    pub fn end(&mut self) {
        let group = self.pid();
        // Stopped first, so that it starts nothing while the ones below it are counted. Those that lost their parent
        // are in its process group.
        let workers = if self.is_running() {
            send(group, Signal::SIGSTOP);
            self.workers()
        } else {
            Vec::new()
        };
        send(Pid::from_raw(-group.as_raw()), Signal::SIGKILL);
        workers.into_iter().for_each(|worker| send(worker, Signal::SIGKILL));
        drop(self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

#[expect(unsafe_code, reason = "a hook between fork and exec has no safe form")]
fn launch(network: &Netns, recipe: &Recipe) -> Result<Child> {
    let log = append(&recipe.log).or_cannot(format_args!("write {}", recipe.log.display()))?;
    let log_too = log.try_clone().or_cannot("copy a file descriptor")?;
    let mut command = Command::new(&recipe.program);
    command.arg0("hawser").args(&recipe.arguments).process_group(0).stdin(Stdio::null()).stdout(log).stderr(log_too);
    command.env_remove(super::stage::INSIDE).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command.envs(recipe.environment.iter().map(|(name, value)| (name, value)));
    network.host(&mut command);
    // SAFETY: the hook only makes one system call (prctl), allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) };
    command.spawn().or_cannot(format_args!("start {} {}", recipe.program.display(), recipe.arguments.join(" ")))
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Sends a signal to a process, or to a group of them, that may be gone.
fn send(pid: Pid, signal: Signal) {
    if let Err(gone) = kill(pid, signal) {
        tracing::debug!(%pid, %signal, %gone, "nobody to signal");
    }
}

/// All processes below `top`, from `/proc`.
fn below(top: Pid) -> Vec<Pid> {
    let all: Vec<(Pid, Pid)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![top];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

/// proc_pid_stat(5): number, name in parentheses (which may contain anything), state, parent.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

/// Runs a command to its end, and kills it if that takes longer than `at_most`.
///
/// # Errors
/// If it cannot be started, or takes too long.
pub fn run_to_end(command: &mut Command, at_most: Duration) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().or_cannot(format_args!("start {name}"))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let end = clock::now() + at_most;
    let status = loop {
        if let Some(status) = child.try_wait().or_cannot(format_args!("wait for {name}"))? {
            break status;
        }
        if clock::now() >= end {
            drop(child.kill());
            drop(child.wait());
            return Err(Error::new(format!("{name} did not end within {at_most:?}")));
        }
        thread::sleep(LOOK);
    };
    let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    Ok(Output { status, stdout: collect(stdout), stderr: collect(stderr) })
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        drop(pipe.read_to_end(&mut all));
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::testing::in_sandbox;

    fn shell(script: &str, log: PathBuf) -> Recipe {
        let arguments = vec!["-c".into(), script.into()];
        Recipe { program: "/bin/sh".into(), arguments, environment: Vec::new(), log }
    }

    fn is_alive(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    #[test]
    fn a_daemon_ends_with_all_that_it_started_even_if_it_was_frozen() {
        in_sandbox("demo::process::tests::a_daemon_ends_with_all_that_it_started_even_if_it_was_frozen", || {
            let folder = tempfile::tempdir().unwrap();
            let network = Netns::new().unwrap();
            let recipe = shell("sleep 1000 & sleep 1000 & wait", folder.path().join("log"));
            let mut daemon = Daemon::start(Host::N1, &network, recipe).unwrap();
            while daemon.workers().len() < 2 {
                thread::sleep(LOOK);
            }
            let (pid, workers) = (daemon.pid(), daemon.workers());
            daemon.signal_all(Signal::SIGSTOP).unwrap();
            daemon.end();
            assert!(!is_alive(pid));
            let patience = clock::now() + Duration::from_secs(10);
            while workers.iter().any(|worker| is_alive(*worker)) {
                assert!(clock::now() < patience, "{workers:?} still run");
                thread::sleep(LOOK);
            }
        });
    }

    #[test]
    fn a_command_that_hangs_is_given_up() {
        let hangs = run_to_end(Command::new("sleep").arg("1000"), Duration::from_millis(50));
        assert!(hangs.unwrap_err().to_string().contains("did not end"));
        let ends = run_to_end(Command::new("echo").arg("done"), Duration::from_secs(10)).unwrap();
        assert_eq!(ends.stdout, b"done\n");
    }
}
