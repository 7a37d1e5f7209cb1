//! The first process: a worker that misses its deadline or dies loses its addresses, and the others are told.
//!
//! `supervisor::run` starts this very program again as the worker; a test plays both parts, each in a process of its own.

use crate::lab::{Lab, NODE, NODE4, PEER4, VIP4, VIP6, add_address, child, eventually, has, isolated_tests};
use hawser::{
    clock,
    cluster::{GroupName, Secret},
    config::Vip,
    supervisor,
    vip::{
        SupervisorLink,
        supervision::{Hello, Word},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Lines},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

/// Set in the process that is to be the supervisor, and by inheritance in its worker: what the worker does.
const PART: &str = "HAWSER_TEST_PART";
/// Where the worker wants the notice to go.
const NOTICE_TO: &str = "HAWSER_TEST_NOTICE_TO";
const NOTICE: &[u8] = b"the worker is dead and its addresses are gone";
const LEASE: Duration = Duration::from_millis(500);

/// A supervisor and what its workers print.
struct Supervised {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    notices: UdpSocket,
}

impl Supervised {
    fn new(part: &str) -> Self {
        let notices = UdpSocket::bind((NODE4, 0)).unwrap();
        notices.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut process = child("supervisor::plays_the_supervisor_and_the_worker")
            .env(PART, part)
            .env(NOTICE_TO, notices.local_addr().unwrap().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, notices }
    }

    /// The process id of the next worker, once it holds the addresses.
    fn next_worker(&mut self) -> Pid {
        let pid = self.lines.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("worker ")?.parse().ok());
        Pid::from_raw(pid.unwrap()).unwrap()
    }

    /// Waits for the notice and says whether the addresses were gone by then.
    fn notice(&self) -> bool {
        let mut buffer = [0; 200];
        let (got, from) = self.notices.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..got], from.ip()), (NOTICE, IpAddr::from(NODE4)));
        !has(VIP4) && !has(VIP6)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn exit_code(&mut self) -> i32 {
        self.process.wait().unwrap().code().unwrap()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

isolated_tests! {
    fn a_killed_worker_loses_its_addresses_and_the_others_are_told_several_times() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("holds");
        let mut slowest = Duration::ZERO;
        for _ in 0..3 {
            let worker = supervised.next_worker();
            assert!(has(VIP4) && has(VIP6));
            let begun = Instant::now();
            kill_process(worker, Signal::KILL).unwrap();
            assert!(supervised.notice(), "told before the addresses were gone");
            slowest = slowest.max(begun.elapsed());
            for _ in 0..3 {
                assert!(supervised.notice());
            }
        }
        println!("measured: SIGKILL to first notice at most {slowest:?} (three kills)");
        assert!(slowest < Duration::from_millis(200), "{slowest:?}");
    }

    fn a_worker_that_stops_renewing_is_killed_before_its_lease_ends() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("holds");
        let worker = supervised.next_worker();
        kill_process(worker, Signal::STOP).unwrap();
        let begun = Instant::now();
        let took = eventually("the addresses are gone", || !has(VIP4) && !has(VIP6));
        assert!(supervised.notice());
        println!("measured: addresses of a stopped worker gone {took:?} after the stop, notice after {:?}", begun.elapsed());
        assert!(took < LEASE, "{took:?}: the lease was {LEASE:?}");
        assert_ne!(supervised.next_worker(), worker);
    }

    fn a_stopped_supervisor_that_goes_on_does_not_kill_a_worker_that_renewed_in_time() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("holds");
        let worker = supervised.next_worker();
        supervised.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1500));
        supervised.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(300));
        rustix::process::test_kill_process(worker).unwrap();
        assert!(has(VIP4));
    }

    fn a_worker_whose_configuration_is_wrong_is_not_started_again() {
        let _lab = Lab::new();
        assert_eq!(Supervised::new("exits 78").exit_code(), 78);
    }

    fn a_worker_that_never_came_up_is_not_started_again_and_its_code_is_told() {
        let _lab = Lab::new();
        assert_eq!(Supervised::new("exits 1").exit_code(), 1);
    }

    fn an_orderly_end_is_asked_for_by_a_signal_and_passed_on_with_its_code() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("ends in order with 3");
        supervised.next_worker();
        supervised.signal(Signal::TERM);
        assert_eq!(supervised.exit_code(), 3);
        assert!(!has(VIP4) && !has(VIP6));
    }

    fn a_second_request_to_end_kills_a_worker_that_does_not() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("ignores requests");
        supervised.next_worker();
        supervised.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(100));
        assert!(has(VIP4), "the first one is only a request");
        supervised.signal(Signal::TERM);
        assert_eq!(supervised.exit_code(), 128 + 9);
        assert!(!has(VIP4) && !has(VIP6));
    }

    fn the_worker_notices_that_its_supervisor_is_gone() {
        let _lab = Lab::new();
        let mut supervised = Supervised::new("says when it is alone");
        supervised.next_worker();
        supervised.signal(Signal::KILL);
        supervised.lines.by_ref().map(Result::unwrap).find(|line| line == "alone").unwrap();
    }
}

/// Plays a supervisor, or the worker of one, when a test starts it as a child; else it has nothing to do.
#[test]
fn plays_the_supervisor_and_the_worker() {
    let Ok(part) = std::env::var(PART) else { return };
    match SupervisorLink::from_environment().unwrap() {
        Some(link) => work(&part, &link),
        None => {
            let args =
                ["supervisor::plays_the_supervisor_and_the_worker", "--exact", "--nocapture", "--test-threads=1"];
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            std::process::exit(supervise(&args));
        }
    }
}

/// `ExitCode` does not show its number, so the process of the supervisor takes it from a thread's end.
fn supervise(args: &[OsString]) -> i32 {
    let code = supervisor::run(args);
    (0..=255_u8).find(|number| std::process::ExitCode::from(*number) == code).map_or(-1, i32::from)
}

/// The worker: holds addresses for ever, as far as it is told to.
fn work(part: &str, link: &SupervisorLink) {
    if let Some(code) = part.strip_prefix("exits ") {
        std::process::exit(code.parse().unwrap());
    }
    let group = GroupName::new("web").unwrap();
    let to: SocketAddr = std::env::var(NOTICE_TO).unwrap().parse().unwrap();
    let vip = |ip: IpAddr| Vip { address: ip.into(), interface: NODE.into() };
    let hello = Hello {
        secret: Secret([7; 32]),
        vips: vec![vip(VIP4.into()), vip(VIP6.into())],
        notice: vec![(SocketAddr::new(NODE4.into(), 0), to), (SocketAddr::new(NODE4.into(), 0), (PEER4, 9).into())],
        notice_datagram: NOTICE.to_vec(),
    };
    link.say(&Word::Hello(hello)).unwrap();
    let (read, write) = std::os::unix::net::UnixStream::pair().unwrap();
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, write).unwrap();
    read.set_nonblocking(true).unwrap();
    link.say(&Word::Arm { group, until: clock::now() + LEASE }).unwrap();
    add_address(NODE, VIP4.into(), 32);
    add_address(NODE, VIP6.into(), 128);
    println!("\nworker {}", std::process::id());
    loop {
        std::thread::sleep(Duration::from_millis(20));
        if link.is_gone() {
            println!("\nalone");
            std::process::exit(0);
        }
        link.say(&Word::Arm { group, until: clock::now() + LEASE }).ok();
        let asked = std::io::Read::read(&mut &read, &mut [0]).is_ok();
        if asked && let Some(code) = part.strip_prefix("ends in order with ") {
            link.say(&Word::Bye).unwrap();
            std::process::exit(code.parse().unwrap());
        }
    }
}
