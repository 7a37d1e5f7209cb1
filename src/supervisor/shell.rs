//! Carries out what the core says: processes, signals, netlink, datagrams.

use super::core::{Action, Core, Ending, Input, Resets};
use crate::{
    alarm::Alarm,
    clock,
    limits::{RESETS_FIRST_MAX, SUPERVISOR_FRAME_BYTES_MAX},
    time::Instant,
    vip::{
        SupervisorLink,
        netlink::Routing,
        priority,
        sockets::{Sockets, Tcp},
        supervision::{Heard, Hello, SUPERVISOR_FD, Word, hear},
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, AsRawFd, OwnedFd},
    io::FdFlags,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Command, ExitCode},
};

/// Most words that are read before time has its turn.
const WORDS_PER_ROUND_MAX: usize = 1024;
/// Exit code when the operating system refuses what is needed to begin (`EX_OSERR`, `sysexits.h`).
const EXIT_OS: u8 = 71;

/// Runs the supervisor until it is over: starts this very program with `worker_args` as the worker, and again when it
/// dies. To be called before any thread is started.
#[must_use]
pub fn run(worker_args: &[OsString]) -> ExitCode {
    priority::raise();
    priority::lock_memory();
    match Shell::new(worker_args.to_vec()).and_then(|mut shell| shell.run()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!(%error, "the supervisor cannot go on");
            ExitCode::from(EXIT_OS)
        }
    }
}

struct Worker {
    pid: Pid,
    pidfd: OwnedFd,
    /// Our end of the link, until the worker closes its own.
    link: Option<OwnedFd>,
}

struct Shell {
    core: Core,
    args: Vec<OsString>,
    worker: Option<Worker>,
    hello: Option<Hello>,
    /// When the worker was started, or last said something.
    heard_at: Instant,
    signals: SignalDelivery<UnixStream, SignalOnly>,
    alarm: Alarm,
    routing: Routing,
    sockets: Option<Sockets>,
    /// Connections of these addresses are left to be destroyed.
    to_destroy: Vec<IpAddr>,
    buffer: Vec<u8>,
    exit: Option<u8>,
    /// What the worker lent: closed only when the next one is started, because that takes the kernel long.
    kept: Vec<OwnedFd>,
}

/// Most descriptors of a worker that are kept: one packet socket per interface, and one to send with.
const KEPT_MAX: usize = 64;

impl Shell {
    /// All descriptors are opened here, so that none can be missing when it matters.
    fn new(args: Vec<OsString>) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let wanted = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD];
        Ok(Self {
            core: Core::new(),
            args,
            worker: None,
            hello: None,
            heard_at: Instant::ZERO,
            signals: SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?,
            alarm: Alarm::new()?,
            routing: Routing::new()?,
            sockets: Sockets::new().ok(),
            to_destroy: Vec::new(),
            buffer: vec![0; SUPERVISOR_FRAME_BYTES_MAX],
            exit: None,
            kept: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<u8> {
        loop {
            self.feed(Input::Tick);
            self.destroy_rest();
            if let Some(code) = self.exit {
                return Ok(code);
            }
            self.alarm.set(self.core.next_deadline())?;
            self.sleep();
            self.listen();
            self.reap();
            self.take_signals();
        }
    }

    /// Sleeps until there is something to hear. Whatever it is, everything is looked at.
    fn sleep(&self) {
        let mut fds =
            vec![PollFd::new(&self.alarm, PollFlags::IN), PollFd::new(self.signals.get_read(), PollFlags::IN)];
        if let Some(worker) = &self.worker {
            fds.push(PollFd::new(&worker.pidfd, PollFlags::IN));
            fds.extend(worker.link.iter().map(|link| PollFd::new(link, PollFlags::IN)));
        }
        // An error is a signal that came meanwhile.
        poll(&mut fds, None).ok();
    }

    /// Gives the core an input, carries out what it says, and gives it what came of that.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.core.handle(clock::now(), input) {
                inputs.extend(self.carry_out(action));
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::StartWorker => match self.start_worker() {
                Ok(worker) => {
                    tracing::info!(pid = worker.pid.as_raw_nonzero().get(), "worker started");
                    self.worker = Some(worker);
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start the worker");
                    return Some(Input::WorkerDied(Ending::Exited(EXIT_OS)));
                }
            },
            Action::KillWorker => {
                // An owner says something with each renewal: this is for how long it did not run, if it froze.
                let not_heard_ms = u64::try_from(clock::now().since(self.heard_at).as_millis()).unwrap_or(u64::MAX);
                self.signal_worker(Signal::KILL);
                tracing::warn!(not_heard_ms, "worker killed");
            }
            Action::Forward(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal_worker(signal);
                }
            }
            Action::TakeAway { vips, resets } => {
                let ips: Vec<IpAddr> = vips.iter().map(|vip| vip.address.addr()).collect();
                return Some(Input::TakenAway { all_gone: self.take_away(ips, resets) });
            }
            Action::SendNotice(_) => self.send_notice(),
            Action::Exit(code) => self.exit = Some(code),
        }
        None
    }

    fn start_worker(&mut self) -> io::Result<Worker> {
        self.kept.clear();
        let (theirs, ours) = SupervisorLink::pair()?;
        let theirs = theirs.into_fd();
        // One thread: nothing else can be started between these lines and inherit it.
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(std::env::args_os().next().unwrap_or_else(|| "hawser".into()));
        command.args(&self.args).env(SUPERVISOR_FD, format!("{}:{}", theirs.as_raw_fd(), std::process::id()));
        // A terminal interrupts its foreground group: the worker is to hear that once, from here.
        command.process_group(0);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        self.hello = None;
        self.heard_at = clock::now();
        Ok(Worker { pid, pidfd, link: Some(ours) })
    }

    fn signal_worker(&self, signal: Signal) {
        if let Some(worker) = &self.worker
            && let Err(error) = rustix::process::pidfd_send_signal(&worker.pidfd, signal)
        {
            tracing::warn!(%error, "cannot signal the worker");
        }
    }

    fn take_away(&mut self, ips: Vec<IpAddr>, resets: Resets) -> bool {
        let finished = resets == Resets::First && self.reset(&ips, RESETS_FIRST_MAX);
        let all_gone = self.routing.delete_all(&ips).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot take the addresses away");
            false
        });
        if !finished {
            self.to_destroy = ips;
        }
        all_gone
    }

    /// Destroys at most so many connections of these addresses; whether that was all.
    fn reset(&mut self, ips: &[IpAddr], most: usize) -> bool {
        let Some(sockets) = &mut self.sockets else { return true };
        let result = sockets.bound_to(ips).and_then(|mut found| {
            found.retain(|socket| !Tcp::is_listening(socket));
            let finished = found.len() <= most;
            found.truncate(most);
            sockets.destroy(&found).map(|()| finished)
        });
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot destroy the connections of the addresses");
            true
        })
    }

    /// What did not have to be done before the others were told.
    fn destroy_rest(&mut self) {
        let ips = std::mem::take(&mut self.to_destroy);
        if !ips.is_empty() {
            self.reset(&ips, usize::MAX);
        }
    }

    fn send_notice(&self) {
        let Some(hello) = &self.hello else { return };
        if hello.notice_datagram.is_empty() {
            return;
        }
        for (local, remote) in &hello.notice {
            // The port is free now, but a plain one does as well.
            let any_port = SocketAddr::new(local.ip(), 0);
            let sent = UdpSocket::bind(local)
                .or_else(|_| UdpSocket::bind(any_port))
                .and_then(|socket| socket.send_to(&hello.notice_datagram, remote));
            if let Err(error) = sent {
                tracing::warn!(%error, to = %remote, "cannot send the release notice");
            }
        }
    }

    /// Reads the worker's words, all that wait.
    fn listen(&mut self) {
        for _ in 0..WORDS_PER_ROUND_MAX {
            let Some(link) = self.worker.as_ref().and_then(|worker| worker.link.as_ref()) else { return };
            match hear(link.as_fd(), &mut self.buffer) {
                Heard::Word(word) => {
                    self.heard_at = clock::now();
                    if let Word::Hello(hello) = &word {
                        self.hello = Some(hello.clone());
                    }
                    self.feed(Input::Word(word));
                }
                Heard::Lent(fd) if self.kept.len() < KEPT_MAX => self.kept.push(fd),
                Heard::Lent(_) => tracing::warn!("the worker lent more descriptors than are kept"),
                Heard::Garbage => tracing::warn!("the worker said something that is not a word"),
                Heard::Silence => return,
                Heard::Closed => {
                    if let Some(worker) = &mut self.worker {
                        worker.link = None;
                    }
                    return self.feed(Input::LinkClosed);
                }
            }
        }
    }

    /// Reaps whatever has ended: the worker, and as PID 1 of a container also strangers.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.worker.as_ref().is_some_and(|worker| worker.pid == pid)
                && let Some(ending) = ending(status)
            {
                // What it said last counts.
                self.listen();
                self.worker = None;
                match ending {
                    Ending::Exited(0) => tracing::info!("worker ended in order"),
                    Ending::Exited(_) | Ending::Killed(_) => tracing::warn!(?ending, "worker ended"),
                }
                self.feed(Input::WorkerDied(ending));
            }
        }
    }

    fn take_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGTERM | SIGINT => self.feed(Input::Stop(signal)),
                SIGCHLD => self.reap(),
                _ => self.feed(Input::Pass(signal)),
            }
        }
    }
}

/// How a process ended; nothing if it was only stopped.
fn ending(status: WaitStatus) -> Option<Ending> {
    let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ending::Exited(byte(code))),
        (None, Some(signal)) => Some(Ending::Killed(byte(signal))),
        (None, None) => None,
    }
}
