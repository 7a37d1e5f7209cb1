//! Address hygiene on real frames: what is announced, when it is announced again, who else claims an address, what
//! becomes of one that somebody lays hands on, and what the neighbour tables of clients make of all that.

use crate::{
    keeper::{Kept, group, vip, web},
    lab::{
        Capture, Lab, NODE, NODE4, NODE6, PEER, PEER4, PEER6, Seen, VIP4, VIP6, add_address, eventually,
        forget_neighbours, has, index, isolated_tests, mac, neighbour, netlink, read, set_neighbour, set_up,
    },
};
use hawser::{
    clock,
    cluster::{Claim, Intent, Report},
    config::{GateMode, Group},
    demo::lab::{Host, Lab as Segment},
    vip::{
        frames::{Mac, announcements},
        gate::Gate,
        netlink::{Lasting, Routing},
        packet::Wire,
    },
};
use netlink_packet_route::neighbour::NeighbourState;
use rtnetlink::LinkUnspec;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const STRANGER: Mac = [2, 0, 0, 0, 0, 0x66];
/// The dense beginning of a schedule lasts 0.3 s; afterwards announcements are 1.2 s apart.
const DENSE: Duration = Duration::from_millis(350);

/// Waits until two announcements of the IPv4 address came within 0.6 s: a schedule has begun. The very first may have been
/// sent before anybody listened.
fn begins_to_announce(capture: &Capture, by: Mac) -> bool {
    let form = &announcements(by, VIP4.into())[0];
    let mut last = None;
    capture.wait_with_time(Duration::from_secs(5), |at, frame| {
        if !frame.starts_with(form) {
            return false;
        }
        last.replace(at).is_some_and(|before| at - before < Duration::from_millis(600))
    })
}

/// What a machine says that has `ip`.
fn claim(lab: &Lab, mac: Mac, ip: IpAddr) {
    lab.on_peer(move || {
        let wire = Wire::new().unwrap();
        announcements(mac, ip).iter().for_each(|frame| wire.send(index(PEER), frame).unwrap());
    });
}

fn is_announcement(frame: &[u8], by: Mac, ip: IpAddr) -> bool {
    announcements(by, ip).iter().any(|one| frame.starts_with(one))
}

/// A third machine claims `ip`: the report names it, and the next frames announce the address again.
fn is_named_and_answered(ip: IpAddr) {
    let lab = Lab::new();
    let kept = Kept::holding();
    std::thread::sleep(DENSE);
    let capture = lab.on_peer(|| Capture::new(PEER));
    let begun = Instant::now();
    claim(&lab, STRANGER, ip);
    assert!(capture.wait(Duration::from_millis(900), |frame| is_announcement(frame, lab.node_mac, ip)));
    println!("measured: {ip} announced again {:?} after another machine claimed it", begun.elapsed());
    let told = kept.wait_for(|report| matches!(report, Report::Claimed(_)));
    let Report::Claimed(claim) = told else { unreachable!("waited for") };
    assert_eq!(claim, Claim { group: web(), term: crate::keeper::TERM, address: ip, mac: STRANGER });
}

/// All that this host has of `ip`.
fn all_of(ip: IpAddr) -> Vec<Lasting> {
    let mut all = Routing::new().unwrap().addresses().unwrap();
    all.retain(|one| one.present.address.addr() == ip);
    all
}

/// Each address is once there, as it should be, and will end by itself.
fn is_as_it_should_be(ip: IpAddr) -> bool {
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let right = |one: &Lasting| {
        let there = (one.present.address.prefix_len(), one.present.interface) == (whole, index(NODE));
        there && one.valid_secs <= 2 && one.preferred_secs == 0
    };
    matches!(all_of(ip).as_slice(), [one] if right(one))
}

fn is_right_again(ip: IpAddr, what: &str) {
    let took = eventually(what, || is_as_it_should_be(ip));
    println!("measured: {ip} {what} after {took:?}");
    assert!(took < Duration::from_millis(100), "{what}: {took:?}");
}

isolated_tests! {
    fn addresses_are_announced_by_arp_request_arp_reply_and_overriding_unsolicited_advertisement_on_schedule() {
        let lab = Lab::new();
        let capture = lab.on_peer(|| Capture::new(PEER));
        let _kept = Kept::holding();
        // Request form, reply form; advertisement.
        let forms = VIPS.map(|ip| announcements(lab.node_mac, ip)).concat();
        assert_eq!(forms.len(), 3);
        let mut times: [Vec<Duration>; 3] = Default::default();
        let claims = |frame: &[u8]| match read(frame) {
            Seen::Arp { sender, .. } => sender == VIP4,
            Seen::Advert { target } => target == VIP6,
            Seen::Solicit { .. } | Seen::Other => false,
        };
        capture.each(Duration::from_millis(1900), |at, frame| {
            let form = forms.iter().position(|form| frame.starts_with(form));
            assert_eq!(form.is_some(), claims(frame), "an unknown form: {frame:02x?}");
            form.into_iter().for_each(|form| times[form].push(at));
            true
        });
        for times in times {
            let since_first: Vec<_> = times.iter().map(|at| (*at - times[0]).as_millis()).collect();
            assert_eq!(since_first.len(), 4, "{since_first:?}");
            for (seen, planned) in since_first.iter().zip([0, 100, 300, 1500]) {
                assert!(seen.abs_diff(planned) < 80, "{since_first:?}");
            }
        }
    }

    fn what_the_cluster_wants_announced_again_after_a_heal_or_a_freeze_is_on_the_wire_at_once() {
        let lab = Lab::new();
        let kept = Kept::holding();
        std::thread::sleep(DENSE);
        let capture = lab.on_peer(|| Capture::new(PEER));
        kept.handle.announce_again(web());
        assert!(begins_to_announce(&capture, lab.node_mac));
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        let capture = lab.on_peer(|| Capture::new(PEER));
        kept.handle.announce_again(web());
        let mac = lab.node_mac;
        let any = |frame: &[u8]| VIPS.iter().any(|ip| is_announcement(frame, mac, *ip));
        assert!(!capture.wait(Duration::from_millis(400), any), "announced what is not held");
    }

    fn a_link_that_comes_up_is_announced_and_both_addresses_are_answered_for() {
        let lab = Lab::new();
        let kept = Kept::holding();
        let capture = lab.on_peer(|| Capture::new(PEER));
        set_up(NODE, false);
        kept.wait_for(|report| *report == Report::Unable(Some("interface node0 is down".into())));
        std::thread::sleep(DENSE);
        set_up(NODE, true);
        kept.wait_for(|report| *report == Report::Unable(None));
        assert!(begins_to_announce(&capture, lab.node_mac));
        assert!(lab.answers_arp(VIP4) && lab.answers_nd(VIP6));
        assert!(VIPS.into_iter().all(is_as_it_should_be));
    }

    fn a_carrier_that_came_back_before_anybody_looked_is_announced_too() {
        let lab = Lab::new();
        let _kept = Kept::holding();
        std::thread::sleep(DENSE);
        let capture = lab.on_peer(|| {
            set_up(PEER, false);
            set_up(PEER, true);
            Capture::new(PEER)
        });
        assert!(begins_to_announce(&capture, lab.node_mac));
    }

    fn an_interface_with_another_hardware_address_is_announced_with_that() {
        let lab = Lab::new();
        let _kept = Kept::holding();
        std::thread::sleep(DENSE);
        let capture = lab.on_peer(|| Capture::new(PEER));
        let other = [2, 0, 0, 0, 0, 0x77];
        let link = LinkUnspec::new_with_name(NODE).address(other.to_vec()).build();
        netlink(async |handle| handle.link().set(link).execute().await.unwrap());
        assert!(begins_to_announce(&capture, other));
        assert_eq!(mac(NODE), other);
    }

    fn a_third_machine_that_claims_an_ipv4_address_is_named_by_its_mac_and_answered_at_once() {
        is_named_and_answered(VIP4.into());
    }

    fn a_third_machine_that_claims_an_ipv6_address_is_named_by_its_mac_and_answered_at_once() {
        is_named_and_answered(VIP6.into());
    }

    fn a_machine_that_claims_two_addresses_within_a_second_is_named_for_both() {
        let lab = Lab::new();
        let kept = Kept::holding();
        VIPS.into_iter().for_each(|ip| claim(&lab, STRANGER, ip));
        let mut named = Vec::new();
        kept.wait_for(|report| {
            if let Report::Claimed(claim) = report {
                named.push(claim.address);
            }
            named.len() == 2
        });
        named.sort_unstable();
        assert_eq!(named, VIPS);
    }

    fn a_flood_of_claims_is_answered_once_a_second_and_told_once() {
        let lab = Lab::new();
        let kept = Kept::holding();
        std::thread::sleep(DENSE);
        for ip in VIPS {
            let capture = lab.on_peer(|| Capture::new(PEER));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2500) {
                claim(&lab, STRANGER, ip);
                std::thread::sleep(Duration::from_millis(20));
            }
            let mut answers = 0;
            let first_form = &announcements(lab.node_mac, ip)[0];
            // All of it waits in the socket.
            capture.each(Duration::from_millis(50), |_, frame| {
                answers += u32::from(frame.starts_with(first_form));
                true
            });
            assert!((2..=4).contains(&answers), "{ip}: {answers} announcements in 2.5 s");
        }
        let told = kept.reports.try_iter().filter(|report| matches!(report, Report::Claimed(_))).count();
        assert_eq!(told, 2, "each address once");
    }

    fn claims_of_other_addresses_probes_and_own_frames_are_no_conflict() {
        let lab = Lab::new();
        let kept = Kept::holding();
        claim(&lab, STRANGER, [192, 0, 2, 77].into());
        // The same last four bytes.
        claim(&lab, STRANGER, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x1_000, 0x10).into());
        claim(&lab, STRANGER, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10).into());
        claim(&lab, lab.node_mac, VIP4.into());
        claim(&lab, lab.node_mac, VIP6.into());
        lab.on_peer(|| {
            let wire = Wire::new().unwrap();
            for ip in VIPS {
                wire.send(index(PEER), &hawser::vip::frames::question(STRANGER, ip).unwrap()).unwrap();
            }
        });
        claim(&lab, STRANGER, VIP4.into());
        let Report::Claimed(first) = kept.wait_for(|report| matches!(report, Report::Claimed(_))) else { unreachable!() };
        assert_eq!(first.address, IpAddr::from(VIP4), "nothing before it was one");
    }

    fn a_claim_of_an_address_that_is_not_held_here_is_nobodys_business() {
        let lab = Lab::new();
        let kept = Kept::holding();
        kept.handle.set(web(), Intent::Released);
        kept.wait_for(|report| *report == Report::Gone(web()));
        VIPS.into_iter().for_each(|ip| claim(&lab, STRANGER, ip));
        std::thread::sleep(Duration::from_millis(200));
        let reports: Vec<_> = kept.reports.try_iter().collect();
        assert_eq!(reports, []);
    }

    fn an_address_that_someone_else_removes_is_back_within_100_ms() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        for ip in VIPS {
            let mut routing = Routing::new().unwrap();
            assert!(routing.delete_all(&[ip]).unwrap() || has(ip));
            is_right_again(ip, "put back");
            kept.wait_for_event("was removed from node0 by someone else");
        }
    }

    fn all_addresses_flushed_from_an_interface_by_a_network_manager_are_back_within_100_ms() {
        let lab = Lab::new();
        let kept = Kept::holding();
        let mut routing = Routing::new().unwrap();
        let on_node = |one: &Lasting| one.present.interface == index(NODE);
        let all: Vec<_> = routing.addresses().unwrap().into_iter().filter(on_node).collect();
        assert!(all.len() >= 4, "its own and ours: {all:?}");
        all.iter().for_each(|one| routing.delete(&one.present).unwrap());
        VIPS.into_iter().for_each(|ip| is_right_again(ip, "back after a flush"));
        kept.wait_for_event("was removed from node0 by someone else");
        add_address(NODE, NODE4.into(), 24);
        add_address(NODE, NODE6.into(), 64);
        assert!(lab.answers_arp(VIP4) && lab.answers_nd(VIP6));
    }

    fn an_address_whose_lifetime_someone_else_changes_gets_it_back_within_100_ms() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        for ip in VIPS {
            // For ever: it would outlive this process and its lease.
            add_address(NODE, ip, if ip.is_ipv4() { 32 } else { 128 });
            is_right_again(ip, "with its lifetime again");
            kept.wait_for_event("the lifetime of");
        }
    }

    fn an_address_with_another_prefix_or_elsewhere_is_put_right_within_100_ms() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        for (ip, prefix) in [(VIPS[0], 24), (VIPS[1], 64)] {
            let mut routing = Routing::new().unwrap();
            routing.delete_all(&[ip]).unwrap();
            add_address_if_free(NODE, ip, prefix);
            is_right_again(ip, "with its prefix again");
            add_address("lo", ip, prefix);
            is_right_again(ip, "where it belongs");
            kept.wait_for_event("was put on lo by someone else and removed");
        }
    }

    fn whoever_removes_an_address_again_and_again_is_answered_and_told_of_with_pauses() {
        let _lab = Lab::new();
        let kept = Kept::holding();
        let (begun, mut removed) = (Instant::now(), 0);
        let mut routing = Routing::new().unwrap();
        while begun.elapsed() < Duration::from_millis(1500) {
            for one in routing.present(&[VIP4.into()]).unwrap() {
                routing.delete(&one).unwrap();
                removed += 1;
            }
        }
        is_right_again(VIP4.into(), "back in the end");
        assert!((10..=90).contains(&removed), "put back {removed} times in 1.5 s");
        let told = |report: &Report| matches!(report, Report::Event(text) if text.contains("was removed"));
        let told = kept.reports.try_iter().filter(told).count();
        assert!((1..=3).contains(&told), "told {told} times");
    }

    fn neighbour_tables_of_a_client_converge_at_the_first_announcement_whatever_their_state() {
        let segment = Segment::new().unwrap();
        let vips: [IpAddr; 4] =
            ["10.77.0.100", "10.77.0.101", "fd00:77::100", "fd00:77::101"].map(|ip| ip.parse().unwrap());
        let groups = || vec![group("web", vips.map(|ip| vip(ip, "eth0")).into())];
        for state in [NeighbourState::Reachable, NeighbourState::Stale] {
            let old = segment.host(Host::N1).run(|| owner_of(groups())).unwrap();
            let client = segment.host(Host::Client);
            client.run(|| knows(&vips, Host::N1)).unwrap();
            // Its machine is gone: nobody says goodbye.
            segment.set_cable(Host::N1, hawser::demo::lab::Cable::Pulled).unwrap();
            client.run(|| vips.into_iter().for_each(|ip| set_neighbour("eth0", ip, Host::N1.mac(), state))).unwrap();
            let new = segment.host(Host::N2).run(|| owner_of(groups())).unwrap();
            client.run(|| converges(&vips, Host::N2, state)).unwrap();
            new.handle.shutdown();
            old.handle.shutdown();
            segment.set_cable(Host::N1, hawser::demo::lab::Cable::Plugged).unwrap();
        }
    }

    fn stale_owner_sends_arp_with_closed_gate() {
        let lab = Lab::new();
        add_address(NODE, VIP4.into(), 32);
        add_address(NODE, VIP6.into(), 128);
        let mut gate = Gate::set_up(&VIPS).unwrap();
        let new_owner = [2, 0, 0, 0, 0, 0x42];
        // The stale owner's kernel asks for the client in the name of the address, as a retransmission would make it.
        let entries_after_asking = || {
            lab.on_peer(move || {
                VIPS.into_iter().for_each(|ip| set_neighbour(PEER, ip, new_owner, NeighbourState::Stale));
            });
            forget_neighbours();
            for (from, to) in [(VIPS[0], IpAddr::V4(PEER4)), (VIPS[1], IpAddr::V6(PEER6))] {
                UdpSocket::bind((from, 0)).unwrap().send_to(b"retransmission", (to, 9)).unwrap();
            }
            // A link that comes up makes kernels announce what they have, where that is switched on.
            std::fs::write("/proc/sys/net/ipv4/conf/node0/arp_notify", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/node0/ndisc_notify", "1").unwrap();
            let link = LinkUnspec::new_with_name(NODE).address(lab.node_mac.to_vec()).build();
            netlink(async |handle| handle.link().set(link).execute().await.unwrap());
            std::thread::sleep(Duration::from_millis(300));
            lab.on_peer(|| VIPS.map(|ip| neighbour(ip).unwrap().0))
        };
        assert_eq!(entries_after_asking(), [new_owner; 2], "shut: the client still knows the new owner");
        gate.open(&VIPS, clock::now() + Duration::from_secs(20)).unwrap();
        assert_eq!(entries_after_asking(), [lab.node_mac; 2], "open: else this test shows nothing");
    }
}

/// Adds an address unless the keeper was faster.
fn add_address_if_free(interface: &str, ip: IpAddr, prefix: u8) {
    if !has(ip) {
        add_address(interface, ip, prefix);
    }
}

/// A keeper that holds these groups.
fn owner_of(groups: Vec<Group>) -> Kept {
    let kept = Kept::new(groups, GateMode::On, None).unwrap();
    kept.hold(Duration::from_secs(30));
    kept
}

fn speak_to(ip: IpAddr) {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Whether it arrives is not what matters.
    UdpSocket::bind((any, 0)).unwrap().send_to(b"?", (ip, 9)).ok();
}

/// By its own traffic this host learns where the addresses are.
fn knows(vips: &[IpAddr], owner: Host) {
    for ip in vips {
        eventually("the client knows the owner", || {
            speak_to(*ip);
            neighbour(*ip).is_some_and(|(mac, _)| mac == owner.mac())
        });
    }
}

/// Without a packet of its own this host knows where the addresses are now, and sends there.
fn converges(vips: &[IpAddr], owner: Host, was: NeighbourState) {
    let took = eventually("the neighbour table has converged", || {
        vips.iter().all(|ip| neighbour(*ip).is_some_and(|(mac, _)| mac == owner.mac()))
    });
    println!("measured: entries in state {was:?} converged {took:?} after the address was held");
    assert!(took < Duration::from_millis(1000), "{took:?}: not by the first announcements");
    let capture = Capture::new("eth0");
    for ip in vips {
        speak_to(*ip);
        let to = |frame: &[u8]| match *ip {
            IpAddr::V4(ip) => frame[12..14] == [8, 0] && frame[30..34] == ip.octets(),
            IpAddr::V6(ip) => frame[12..14] == [0x86, 0xdd] && frame[20] == 17 && frame[38..54] == ip.octets(),
        };
        let mut sent_to = None;
        capture.wait(Duration::from_millis(500), |frame| {
            if to(frame) {
                sent_to = Some(frame[..6].to_vec());
            }
            sent_to.is_some()
        });
        assert_eq!(sent_to.as_deref(), Some(&owner.mac()[..]), "{ip}");
    }
}
