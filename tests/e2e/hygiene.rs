//! The gate and the addresses of a whole cluster under load: real daemons, real visitors, and a third machine that looks
//! on or lies.

use super::{HAWSER, pairs::in_sandbox, until};
use hawser::clock;
use hawser::cluster::Timing;
use hawser::demo::{
    app::App,
    cluster::{Cluster, GROUP, VIP, VIP_V6},
    lab::{Host, Lab, Nodes, peer_of},
    load::Load,
    observer::{Observer, Sighting},
    prober::{self, Outage, Prober},
};
use hawser::limits::{INTERVAL_DEFAULT, LEASE_DEFAULT};
use hawser::time::Instant;
use hawser::vip::{
    frames::announcements,
    netlink::{Channel, Raw},
    packet::Wire,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A cluster that serves, and the instruments around it. What is dropped first is written first.
struct Rig {
    prober: Prober,
    observer: Observer,
    cluster: Cluster,
    _app: App,
    lab: Lab,
    begun: Instant,
    folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new().unwrap();
        let app = App::start(lab.host(Host::App)).unwrap();
        let timing = Timing::new(LEASE_DEFAULT, INTERVAL_DEFAULT);
        let cluster = Cluster::start(&lab, Path::new(HAWSER), folder.path(), (timing, None)).unwrap();
        let prober = Prober::start(lab.host(Host::Client), SocketAddr::from((VIP, 80))).unwrap();
        let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP).unwrap();
        let rig = Self { prober, observer, cluster, _app: app, lab, begun: clock::now(), folder };
        rig.settle();
        rig
    }

    /// Waits until all is well with everybody and the owner serves the client.
    fn settle(&self) -> Host {
        let mut owner = None;
        until("all is well", || {
            owner = self.cluster.settled().ok().filter(|owner| {
                let probes = self.prober.latest(50);
                probes.len() == 50 && probes.iter().all(|probe| probe.answered_by == Some(*owner))
            });
            owner.is_some()
        });
        owner.unwrap()
    }

    fn load(&self) -> Load {
        Load::start(self.lab.host(Host::Client), SocketAddr::from((VIP, 80))).unwrap()
    }

    fn outage_since(&self, from: Instant) -> Outage {
        prober::judge(&self.prober.between(from, clock::now()).unwrap())
    }

    fn seen(&self, from: Instant, to: Instant) -> Sighting {
        self.observer.between(from, to).unwrap()
    }

    /// A schedule of announcements begins within a second: in each of its first three are two ARP frames for the one
    /// IPv4 address. Routine brings no more than two frames a second.
    fn announces_since(&self, from: Instant) -> bool {
        self.seen(from, from + Duration::from_secs(1)).announcements >= 6
    }

    /// Since the start never two answered, and nothing called for a person.
    fn assert_well(&self) {
        let seen = self.seen(self.begun, clock::now());
        assert!(seen.asks > 50 && seen.double.is_zero(), "{seen:?}");
        let errors = self.cluster.logged_errors(20);
        assert!(errors.is_empty(), "{errors:#?}");
    }

    fn log(&self, node: Host) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.log", node.name()))).unwrap()
    }

    fn ask(&self, node: Host, args: &[&str]) -> String {
        let mut command = Command::new(HAWSER);
        let output = command.args(args).arg("--socket").arg(self.cluster.socket(node)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What `nft flush ruleset` does, in the network of the calling thread: one message that names no table.
fn flush_ruleset() {
    // linux/netfilter/nfnetlink.h, nf_tables.h: NFNL_MSG_BATCH_BEGIN and _END, NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
    const BEGIN: u16 = 16;
    const END: u16 = 17;
    const DELETE_TABLE: u16 = 10 << 8 | 2;
    const ACKNOWLEDGE: u16 = 4;
    let message = |kind, res_id: u16, flags| {
        let [high, low] = res_id.to_be_bytes();
        Raw { kind, payload: vec![0, 0, high, low] }.message(flags)
    };
    let batch = vec![message(BEGIN, 10, 0), message(DELETE_TABLE, 0, ACKNOWLEDGE), message(END, 10, 0)];
    Channel::new(NETLINK_NETFILTER).unwrap().request(batch).unwrap();
}

#[test]
fn nft_flush_under_load() {
    in_sandbox("hygiene::nft_flush_under_load", || {
        const FLUSHES: usize = 10;
        let rig = Rig::start();
        let owner = rig.settle();
        let standby = peer_of(owner);
        let (load, from) = (rig.load(), clock::now());
        for _ in 0..FLUSHES {
            for node in Host::NODES {
                rig.lab.host(node).run(flush_ruleset).unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
            // The address by itself makes no second owner: the gate of the standby is back.
            rig.lab.add_address(standby, VIP.into(), 32).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            rig.lab.remove_address(standby, VIP.into()).unwrap();
        }
        let (outage, load) = (rig.outage_since(from), load.finish().unwrap());
        println!("measured: {FLUSHES} flushes of both rulesets: {outage:?}, {load:?}");
        assert!(load.requests > 50 && outage.probes > 200, "nothing was measured: {load:?} {outage:?}");
        assert_eq!(load.failed + load.curl_failed, 0, "{load:?}");
        assert!(outage.total < Duration::from_millis(300), "{outage:?}");
        assert_eq!(rig.settle(), owner, "nothing moves");
        rig.assert_well();
        for node in Host::NODES {
            let log = rig.log(node);
            assert!(log.contains("someone removed the gate"), "{log}");
        }
    });
}

#[test]
fn switchover_under_load_counts_failed_requests_and_dark_ms() {
    in_sandbox("hygiene::switchover_under_load_counts_failed_requests_and_dark_ms", || {
        let rig = Rig::start();
        let mut dark_ms = Vec::new();
        for _ in 0..4 {
            let owner = rig.settle();
            let (load, from) = (rig.load(), clock::now());
            std::thread::sleep(Duration::from_millis(300));
            rig.cluster.switchover(owner).unwrap();
            std::thread::sleep(Duration::from_secs(1));
            let (outage, load) = (rig.outage_since(from), load.finish().unwrap());
            let dark = outage.total.as_millis();
            println!("measured: failed requests {} of {}, dark {dark} ms", load.failed, load.requests);
            assert!(load.requests > 50 && outage.probes > 200, "nothing was measured: {load:?} {outage:?}");
            assert_eq!((load.failed, load.curl_failed), (0, 0), "{load:?}");
            assert_eq!(rig.settle(), peer_of(owner));
            dark_ms.push(dark);
        }
        dark_ms.sort_unstable();
        // 15 ms are promised; a busy machine may hold one of them up.
        assert!(dark_ms[1] <= 45 && dark_ms[3] <= 500, "dark for {dark_ms:?} ms");
        rig.assert_well();
    });
}

#[test]
fn a_healed_partition_is_announced_at_once_by_the_owner() {
    in_sandbox("hygiene::a_healed_partition_is_announced_at_once_by_the_owner", || {
        let rig = Rig::start();
        let owner = rig.settle();
        rig.lab.set_nodes(Nodes::Apart).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let healed = clock::now();
        assert!(!rig.announces_since(healed - Duration::from_secs(1)), "while it is cut nothing is announced");
        let healed = clock::now();
        rig.lab.set_nodes(Nodes::Joined).unwrap();
        assert!(rig.announces_since(healed), "{:?}", rig.seen(healed, clock::now()));
        assert_eq!(rig.settle(), owner);
        rig.assert_well();
    });
}

#[test]
fn a_freeze_that_the_lease_survives_is_announced_at_once_by_the_owner() {
    in_sandbox("hygiene::a_freeze_that_the_lease_survives_is_announced_at_once_by_the_owner", || {
        let mut rig = Rig::start();
        // A busy machine may make a short freeze a long one: one good round shows the rule.
        let good = (0..5).any(|_| {
            let owner = rig.settle();
            std::thread::sleep(Duration::from_secs(1));
            rig.cluster.node(owner).signal_workers(Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(250));
            let thawed = clock::now();
            rig.cluster.node(owner).signal_workers(Signal::SIGCONT).unwrap();
            let announced = rig.announces_since(thawed);
            rig.settle() == owner && announced
        });
        assert!(good);
        rig.assert_well();
    });
}

#[test]
fn a_third_machine_that_claims_an_address_is_named_in_log_history_and_status() {
    in_sandbox("hygiene::a_third_machine_that_claims_an_address_is_named_in_log_history_and_status", || {
        let rig = Rig::start();
        let owner = rig.settle();
        let stranger = [2, 0, 0, 0, 0, 0x66];
        let vips: [IpAddr; 2] = [VIP.into(), VIP_V6.into()];
        let lie = || {
            let wire = Wire::new().unwrap();
            let eth0 = nix::net::if_::if_nametoindex("eth0").unwrap();
            let frames = vips.iter().flat_map(|ip| announcements(stranger, *ip));
            frames.for_each(|frame| wire.send(eth0, &frame).unwrap());
        };
        rig.lab.host(Host::App).run(lie).unwrap();
        for ip in vips {
            let words = format!("02:00:00:00:00:66 claims {ip}");
            until("the status names it", || rig.ask(owner, &["status"]).contains(&words));
            until("the history names it", || {
                let history = rig.ask(owner, &["history"]);
                history.lines().any(|line| line.contains(&words) && line.contains("address_claimed"))
            });
            let log = rig.log(owner);
            assert!(
                log.lines().any(|line| line.contains(&ip.to_string()) && line.contains("02:00:00:00:00:66")),
                "{log}"
            );
        }
        let status: Value = serde_json::from_str(&rig.ask(owner, &["status", "--json"])).unwrap();
        let claims = status["claims"].as_array().unwrap();
        assert!(claims.iter().all(|claim| claim["group"] == GROUP && claim["mac"] == "02:00:00:00:00:66"), "{status}");
        assert_eq!(claims.len(), 2, "{status}");
        assert_eq!(rig.settle(), owner, "nothing moves");
        rig.assert_well();
    });
}
