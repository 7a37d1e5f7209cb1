//! The keeper: intents in, addresses on the interface and frames on the wire.

use crate::lab::{
    Capture, Lab, NODE, PEER, Seen, VIP4, VIP6, add_address, child, eventually, has, isolated_tests, netlink, read,
    set_up,
};
use hawser::{
    clock,
    cluster::{GroupName, Intent, Layers, Member, Report, Term},
    config::{GateMode, Group, Vip},
    time::Instant,
    vip::{
        Keeper, KeeperError, KeeperHandle, KeeperSetup, SupervisorLink,
        gate::Gate,
        supervision::{Heard, Word, hear},
    },
};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpListener},
    os::fd::AsFd,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

pub(crate) const LEASE: Duration = Duration::from_millis(500);
pub(crate) const TERM: Term = Term(3);
/// Set in a child that is to hold addresses: for how many milliseconds.
const HOLD_FOR: &str = "HAWSER_TEST_HOLD_FOR";

pub(crate) fn web() -> GroupName {
    GroupName::new("web").unwrap()
}

pub(crate) fn vip(ip: impl Into<IpAddr>, interface: &str) -> Vip {
    Vip { address: ip.into().into(), interface: interface.into() }
}

pub(crate) fn group(name: &str, vips: Vec<Vip>) -> Group {
    Group { name: GroupName::new(name).unwrap(), prefer: Member::First, vips }
}

pub(crate) fn web_group() -> Group {
    group("web", vec![vip(VIP4, NODE), vip(VIP6, NODE)])
}

/// A keeper and what it reports.
pub(crate) struct Kept {
    pub(crate) handle: KeeperHandle,
    layers: Layers,
    pub(crate) reports: mpsc::Receiver<Report>,
    quiet: Arc<AtomicBool>,
}

impl Kept {
    pub(crate) fn new(
        groups: Vec<Group>,
        gate: GateMode,
        supervisor: Option<SupervisorLink>,
    ) -> Result<Self, KeeperError> {
        let (tell, reports) = mpsc::channel();
        let quiet = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&quiet);
        let setup = KeeperSetup {
            groups,
            lease: LEASE,
            gate,
            supervisor,
            quiet: Arc::new(move |_| asked.load(Ordering::Relaxed)),
            report: Box::new(move |report| drop(tell.send(report))),
        };
        let (handle, layers) = Keeper::spawn(setup)?;
        Ok(Self { handle, layers, reports, quiet })
    }

    pub(crate) fn of_web() -> Self {
        Self::new(vec![web_group()], GateMode::On, None).unwrap()
    }

    /// Holds the group `web` by a lease that outlasts the test.
    pub(crate) fn holding() -> Self {
        let kept = Self::of_web();
        kept.hold(Duration::from_secs(30));
        kept
    }

    pub(crate) fn hold(&self, time: Duration) {
        self.handle.set(web(), Intent::Held { term: TERM, until: clock::now() + time });
        self.wait_for(|report| *report == Report::Held(web(), TERM));
    }

    /// Waits for a report; others are skipped.
    pub(crate) fn wait_for(&self, mut wanted: impl FnMut(&Report) -> bool) -> Report {
        let mut skipped = Vec::new();
        loop {
            match self.reports.recv_timeout(Duration::from_secs(10)) {
                Ok(report) if wanted(&report) => return report,
                Ok(report) => skipped.push(report),
                Err(_) => panic!("not reported within 10 s; instead: {skipped:?}"),
            }
        }
    }

    pub(crate) fn wait_for_event(&self, text: &str) {
        self.wait_for(|report| matches!(report, Report::Event(said) if said.contains(text)));
    }
}

/// A child that does not outlive its test, also if that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

isolated_tests! {
    fn held_addresses_are_there_and_answered_for_and_released_ones_are_neither() {
        let lab = Lab::new();
        let kept = Kept::of_web();
        assert_eq!(kept.layers, Layers { supervisor: false, gate: true, lifetime: true, sock_destroy: true });
        let begun = std::time::Instant::now();
        kept.hold(Duration::from_secs(30));
        println!("measured: acquire of two addresses {:?}", begun.elapsed());
        assert!(lab.answers_arp(VIP4) && lab.answers_nd(VIP6));
        let begun = std::time::Instant::now();
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        println!("measured: release of two addresses {:?}", begun.elapsed());
        assert!(!has(VIP4) && !has(VIP6) && !lab.answers_arp(VIP4) && !lab.answers_nd(VIP6));
        kept.handle.shutdown();
    }

    fn the_supervisor_hears_of_a_lease_before_the_address_is_added_and_of_its_end_after_it_is_gone() {
        let _lab = Lab::new();
        let (link, supervisor) = SupervisorLink::pair().unwrap();
        let listen = move || {
            let mut buffer = [0; 4096];
            let mut words = Vec::new();
            loop {
                match hear(supervisor.as_fd(), &mut buffer) {
                    Heard::Word(word) => words.push(word),
                    // Packet sockets, lent so that this process would die at once.
                    Heard::Lent(_) => {}
                    Heard::Garbage | Heard::Silence | Heard::Closed => return words,
                }
            }
        };
        let kept = Kept::new(vec![web_group()], GateMode::On, Some(link)).unwrap();
        let until = clock::now() + Duration::from_secs(30);
        kept.handle.set(web(), Intent::Held { term: TERM, until });
        kept.wait_for(|report| *report == Report::Held(web(), TERM));
        assert_eq!(listen(), [Word::Arm { group: web(), until }]);
        kept.handle.set(web(), Intent::Held { term: TERM, until: until + LEASE });
        eventually("the renewal is told", || listen() == [Word::Arm { group: web(), until: until + LEASE }]);
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        assert_eq!(listen(), [Word::Disarm { group: web() }]);
        kept.handle.shutdown();
        assert_eq!(listen(), [Word::Bye]);
    }

    fn the_keeper_lets_go_by_itself_before_the_supervisor_has_to_act() {
        let _lab = Lab::new();
        let kept = Kept::of_web();
        // A busy machine may hold this process up: one good round shows the rule.
        let good = (0..5).any(|_| {
            let until = clock::now() + Duration::from_millis(300);
            kept.handle.set(web(), Intent::Held { term: TERM, until });
            kept.wait_for(|report| *report == Report::Held(web(), TERM));
            kept.wait_for(|report| *report == Report::Gone(web()));
            let early = clock::now().until(until);
            assert!(!has(VIP4) && !has(VIP6));
            assert!(early <= Duration::from_millis(30), "{early:?}");
            println!("measured: all gone {early:?} before the end of the lease (begins 30 ms before)");
            early > Duration::from_millis(20)
        });
        assert!(good, "the supervisor would have had to act each time");
    }

    fn a_lease_that_is_renewed_is_held_and_costs_little() {
        let lab = Lab::new();
        let kept = Kept::of_web();
        kept.hold(LEASE);
        let cpu = || {
            let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
            let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
            micros(used.user_time()) + micros(used.system_time())
        };
        let before = cpu();
        for _ in 0..200 {
            kept.handle.set(web(), Intent::Held { term: TERM, until: clock::now() + LEASE });
            std::thread::sleep(Duration::from_millis(10));
        }
        let cost = (cpu() - before) / 200;
        println!("measured: {cost} us of CPU per renewal of a group of two addresses, everything included");
        assert!(lab.answers_arp(VIP4) && lab.answers_nd(VIP6));
        assert!(cost < 2_000, "{cost} us");
        let reports: Vec<_> = kept.reports.try_iter().collect();
        assert!(reports.is_empty(), "{reports:?}");
    }

    fn a_frozen_process_is_not_answered_for_after_its_lease_nor_when_it_thaws() {
        let lab = Lab::new();
        let mut command = child("keeper::plays_the_holder_of_addresses");
        let mut holder = Killed(command.env(HOLD_FOR, "600").stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "held").unwrap();
        let begun = std::time::Instant::now();
        let pid = Pid::from_child(&holder.0);
        kill_process(pid, Signal::STOP).unwrap();
        assert!(lab.answers_arp(VIP4) && has(VIP4) && has(VIP6), "frozen, but its lease runs");
        std::thread::sleep(Duration::from_millis(600).saturating_sub(begun.elapsed()));
        assert!(!lab.answers_arp(VIP4) && !lab.answers_nd(VIP6), "frozen, after its lease");
        assert!(has(VIP4) && has(VIP6), "else it is not the gate that shows here");
        eventually("the kernel deletes the addresses at the end of their lifetime", || !has(VIP4) && !has(VIP6));
        println!("measured: addresses of a frozen process gone by their lifetime {:?} after the freeze", begun.elapsed());
        let capture = lab.on_peer(|| Capture::new(PEER));
        kill_process(pid, Signal::CONT).unwrap();
        lines.find(|line| line == "gone").unwrap();
        assert!(!has(VIP4) && !has(VIP6) && !lab.answers_arp(VIP4));
        let claims = |frame: &[u8]| matches!(read(frame), Seen::Arp { sender, .. } if sender == VIP4);
        assert!(!capture.wait(Duration::from_millis(50), claims), "announced after the thaw");
    }

    fn a_flushed_gate_is_set_up_again_at_once_and_held_addresses_stay_open() {
        let lab = Lab::new();
        let kept = Kept::new(vec![web_group(), group("other", vec![vip([192, 0, 2, 20], NODE)])], GateMode::On, None);
        let kept = kept.unwrap();
        kept.hold(Duration::from_secs(30));
        add_address(NODE, [192, 0, 2, 20].into(), 32);
        assert!(!lab.answers_arp([192, 0, 2, 20].into()), "guarded");
        Gate::remove().unwrap();
        kept.wait_for_event("someone removed the gate");
        assert!(!lab.answers_arp([192, 0, 2, 20].into()), "guarded again");
        assert!(lab.answers_arp(VIP4), "held and open");
    }

    fn left_overs_of_an_earlier_run_are_removed_at_the_start_and_never_open() {
        let lab = Lab::new();
        add_address(NODE, VIP4.into(), 24);
        add_address("lo", VIP6.into(), 128);
        let kept = Kept::of_web();
        assert!(!has(VIP4) && !has(VIP6) && !lab.answers_arp(VIP4));
        kept.wait_for_event("192.0.2.10/24 of an earlier run");
    }

    fn connections_of_a_released_address_are_reset_and_listeners_live_on() {
        let lab = Lab::new();
        let kept = Kept::holding();
        let listener = TcpListener::bind((VIP4, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let mut client = lab.connect(to).unwrap();
        let (_server, _) = listener.accept().unwrap();
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        kept.hold(Duration::from_secs(30));
        assert!(lab.connects(to), "the listener");
    }

    fn a_leaving_group_lets_busy_connections_end_and_new_ones_wait() {
        let lab = Lab::new();
        let kept = Kept::holding();
        let listener = TcpListener::bind((VIP4, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let idle = lab.connect(to).unwrap();
        let (_idle_server, _) = listener.accept().unwrap();
        let mut client = lab.connect(to).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"request").unwrap();
        assert_eq!(server.peek(&mut [0; 7]).unwrap(), 7, "it has arrived");
        let leaving = Intent::Leaving { term: TERM, until: clock::now() + Duration::from_secs(10) };
        kept.handle.set(web(), leaving);
        // The process has not read the request: the group stays, and nobody new comes in once the keeper has heard of it.
        let begun = std::time::Instant::now();
        let tries = std::iter::repeat_with(|| (begun.elapsed(), lab.connect_within(to, Duration::from_millis(40))));
        // Fewer than the backlog of the listener holds: else it is that which shows here.
        let (held_off_at, _) = tries.take(100).find(|(_, connected)| !connected).expect("held off");
        assert!(held_off_at < Duration::from_millis(150), "{held_off_at:?}: that is the end of the group, not the squeeze");
        assert!(begun.elapsed() > Duration::from_millis(190) || has(VIP4), "gone with a request unread");
        let mut request = [0; 7];
        server.read_exact(&mut request).unwrap();
        kept.wait_for(|report| *report == Report::Gone(web()));
        assert!(!has(VIP4));
        drop(idle);
    }

    fn a_leaving_group_does_not_wait_longer_than_the_squeeze() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        kept.quiet.store(false, Ordering::Relaxed);
        let begun = std::time::Instant::now();
        kept.handle.set(web(), Intent::Leaving { term: TERM, until: clock::now() + Duration::from_secs(10) });
        kept.wait_for(|report| *report == Report::Gone(web()));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(400), "{took:?}");
    }

    fn an_idle_leaving_group_is_gone_at_once() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        let begun = std::time::Instant::now();
        kept.handle.set(web(), Intent::Leaving { term: TERM, until: clock::now() + Duration::from_secs(10) });
        kept.wait_for(|report| *report == Report::Gone(web()));
        println!("measured: leaving of an idle group {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_millis(150));
    }

    fn a_link_without_carrier_makes_the_node_unable_and_its_return_is_announced() {
        let lab = Lab::new();
        let kept = Kept::holding();
        lab.on_peer(|| set_up(PEER, false));
        kept.wait_for(|report| *report == Report::Unable(Some("interface node0 has no carrier".into())));
        std::thread::sleep(Duration::from_millis(350));
        let capture = lab.on_peer(|| {
            set_up(PEER, true);
            Capture::new(PEER)
        });
        kept.wait_for(|report| *report == Report::Unable(None));
        let announced = |frame: &[u8]| matches!(read(frame), Seen::Arp { sender, .. } if sender == VIP4);
        assert!(capture.wait(Duration::from_millis(500), announced));
        set_up(NODE, false);
        kept.wait_for(|report| *report == Report::Unable(Some("interface node0 is down".into())));
    }

    fn an_interface_that_is_not_there_makes_the_node_unable_until_it_comes() {
        let _lab = Lab::new();
        let other = group("web", vec![vip(VIP4, "later0")]);
        let kept = Kept::new(vec![other], GateMode::On, None).unwrap();
        kept.wait_for(|report| *report == Report::Unable(Some("there is no interface later0".into())));
        kept.handle.set(web(), Intent::Held { term: TERM, until: clock::now() + Duration::from_secs(30) });
        netlink(async |handle| {
            handle.link().add(rtnetlink::LinkVeth::new("later0", "later1").up().build()).execute().await.unwrap();
            let other = rtnetlink::LinkUnspec::new_with_name("later1").up().build();
            handle.link().set(other).execute().await.unwrap();
        });
        let (mut held, mut able) = (false, false);
        kept.wait_for(|report| {
            held |= *report == Report::Held(web(), TERM);
            able |= *report == Report::Unable(None);
            held && able
        });
        assert!(has(VIP4));
    }

    fn an_address_that_the_kernel_refuses_makes_the_node_unable() {
        let _lab = Lab::new();
        std::fs::write("/proc/sys/net/ipv6/conf/node0/disable_ipv6", "1").unwrap();
        let kept = Kept::of_web();
        kept.handle.set(web(), Intent::Held { term: TERM, until: clock::now() + Duration::from_millis(400) });
        kept.wait_for(|report| {
            matches!(report, Report::Unable(Some(why)) if why.starts_with("cannot hold 2001:db8::10/128 on node0: "))
        });
        kept.wait_for(|report| *report == Report::Gone(web()));
        assert!(!has(VIP4), "half a group is not held");
    }

    fn without_its_supervisor_a_worker_holds_nothing() {
        let _lab = Lab::new();
        let (link, supervisor) = SupervisorLink::pair().unwrap();
        let kept = Kept::new(vec![web_group()], GateMode::On, Some(link)).unwrap();
        kept.hold(Duration::from_secs(30));
        drop(supervisor);
        kept.wait_for(|report| *report == Report::SupervisorGone);
        kept.wait_for(|report| *report == Report::Gone(web()));
        assert!(!has(VIP4) && !has(VIP6));
    }

    fn groups_are_held_and_released_each_for_itself() {
        let lab = Lab::new();
        let app = group("app", vec![vip([192, 0, 2, 20], NODE)]);
        let kept = Kept::new(vec![web_group(), app], GateMode::On, None).unwrap();
        let app = GroupName::new("app").unwrap();
        kept.hold(Duration::from_secs(30));
        kept.handle.set(app, Intent::Held { term: TERM, until: clock::now() + Duration::from_secs(30) });
        kept.wait_for(|report| *report == Report::Held(app, TERM));
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        assert!(!lab.answers_arp(VIP4) && lab.answers_arp([192, 0, 2, 20].into()));
    }

    fn without_the_gate_addresses_are_held_too_and_an_old_gate_is_not_in_the_way() {
        let lab = Lab::new();
        let _old = Gate::set_up(&[VIP4.into(), VIP6.into()]).unwrap();
        let kept = Kept::new(vec![web_group()], GateMode::Off, None).unwrap();
        assert!(!kept.layers.gate);
        kept.hold(Duration::from_secs(30));
        assert!(lab.answers_arp(VIP4) && lab.answers_nd(VIP6));
    }

    fn a_missing_capability_is_named_with_the_way_to_mend_it() {
        for (missing, name) in [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")] {
            let text = std::thread::spawn(move || {
                let mut sets = capabilities(None).unwrap();
                sets.effective.remove(missing);
                set_capabilities(None, sets).unwrap();
                Kept::new(vec![web_group()], GateMode::On, None).err().unwrap().to_string()
            });
            let text = text.join().unwrap();
            assert!(text.contains(name) && text.contains("AmbientCapabilities"), "{text}");
        }
    }

    fn an_orderly_end_leaves_neither_addresses_nor_rules() {
        let lab = Lab::new();
        let kept = Kept::holding();
        kept.handle.shutdown();
        assert!(!has(VIP4) && !has(VIP6));
        add_address(NODE, VIP4.into(), 32);
        assert!(lab.answers_arp(VIP4), "rules are left");
    }
}

/// Plays the part of a node that holds addresses, when a test starts it as a child; else it has nothing to do.
#[test]
fn plays_the_holder_of_addresses() {
    let Ok(millis) = std::env::var(HOLD_FOR) else { return };
    let kept = Kept::of_web();
    let until: Instant = clock::now() + Duration::from_millis(millis.parse().unwrap());
    kept.handle.set(web(), Intent::Held { term: TERM, until });
    kept.wait_for(|report| *report == Report::Held(web(), TERM));
    println!("\nheld");
    kept.wait_for(|report| *report == Report::Gone(web()));
    println!("\ngone");
    std::thread::sleep(Duration::from_secs(10));
}
