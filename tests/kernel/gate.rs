//! The gate, with real frames.

use crate::lab::{Capture, Lab, NODE, NODE4, PEER, PEER4, Seen, VIP4, VIP6, add_address, isolated_tests, read};
use hawser::{
    clock,
    vip::gate::{Door, Gate},
};
use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    time::Duration,
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn lab_with_addresses() -> Lab {
    let lab = Lab::new();
    add_address(NODE, VIP4.into(), 32);
    add_address(NODE, VIP6.into(), 128);
    lab
}

fn listeners() -> [TcpListener; 2] {
    VIPS.map(|ip| TcpListener::bind((ip, 0)).unwrap())
}

isolated_tests! {
    fn a_shut_address_is_not_answered_for_and_an_open_one_is() {
        let lab = lab_with_addresses();
        let listeners = listeners();
        let answers = |what: &str, expected: bool| {
            assert_eq!(lab.answers_arp(VIP4), expected, "{what}: ARP");
            assert_eq!(lab.answers_nd(VIP6), expected, "{what}: neighbour discovery");
            for listener in &listeners {
                let to = listener.local_addr().unwrap();
                assert_eq!(lab.connects(to), expected, "{what}: TCP to {to}");
            }
            assert!(lab.answers_arp(NODE4), "{what}: the node's own address");
        };
        answers("no gate", true);
        let mut gate = Gate::set_up(&VIPS).unwrap();
        answers("shut", false);
        assert_eq!(gate.open(&VIPS, clock::now() + Duration::from_secs(5)).unwrap(), Door::Open);
        answers("open", true);
        gate.shut(&VIPS).unwrap();
        answers("shut again", false);
        Gate::remove().unwrap();
        answers("removed", true);
    }

    fn a_shut_address_is_not_named_as_sender_of_arp_or_neighbour_discovery() {
        let lab = lab_with_addresses();
        let seen_from_vip = |stranger: u8| {
            let (tell, hear) = std::sync::mpsc::channel();
            lab.on_peer(move || {
                let capture = Capture::new(PEER);
                std::thread::spawn(move || {
                    let (mut arp, mut nd) = (false, false);
                    capture.each(Duration::from_millis(300), |_, frame| {
                        match read(frame) {
                            Seen::Arp { sender, .. } => arp |= sender == VIP4,
                            Seen::Solicit { source } => nd |= source == VIP6,
                            Seen::Advert { .. } | Seen::Other => {}
                        }
                        true
                    });
                    tell.send((arp, nd)).unwrap();
                });
            });
            for ip in VIPS {
                // Addresses that the node's kernel has to ask for, in the name of the virtual one.
                let stranger = if ip.is_ipv4() { format!("192.0.2.{stranger}") } else { format!("2001:db8::{stranger}") };
                let stranger: IpAddr = stranger.parse().unwrap();
                UdpSocket::bind((ip, 0)).unwrap().send_to(b"retransmission", (stranger, 9)).unwrap();
            }
            hear.recv().unwrap()
        };
        let mut gate = Gate::set_up(&VIPS).unwrap();
        assert_eq!(seen_from_vip(98), (false, false), "shut");
        gate.open(&VIPS, clock::now() + Duration::from_secs(5)).unwrap();
        assert_eq!(seen_from_vip(99), (true, true), "open: else this test sees nothing at all");
    }

    fn announcements_of_the_new_owner_reach_the_neighbour_table_of_a_node_whose_gate_is_shut() {
        let lab = Lab::new();
        let _gate = Gate::set_up(&VIPS).unwrap();
        // The node knows the address at some machine; the announcement moves it.
        UdpSocket::bind((NODE4, 0)).unwrap().send_to(b"?", (VIP4, 9)).unwrap();
        let new_owner = [2, 0, 0, 0, 0, 0x42];
        lab.on_peer(move || {
            for frame in hawser::vip::frames::announcements(new_owner, VIP4.into()) {
                hawser::vip::packet::Wire::new().unwrap().send(crate::lab::index(PEER), &frame).unwrap();
            }
        });
        crate::lab::eventually("the entry has moved", || {
            std::fs::read_to_string("/proc/net/arp").unwrap().contains("02:00:00:00:00:42")
        });
    }

    fn the_gate_shuts_by_itself_and_not_later_than_the_guard_allows() {
        let lab = lab_with_addresses();
        let mut gate = Gate::set_up(&VIPS).unwrap();
        let mut latest = i128::MIN;
        for round in 0..20 {
            let end = clock::now() + Duration::from_millis(100 + round);
            gate.open(&VIPS, end).unwrap();
            let last = lab.on_peer(move || last_answer(VIP4));
            let late = i128::from(last.as_nanos()) - i128::from(end.as_nanos());
            latest = latest.max(late);
        }
        println!("measured: last ARP answer {} us after the end given to the gate (guard 10000 us)", latest / 1000);
        assert!(latest < 10_000_000, "the last answer came {latest} ns after the end");
        assert!(latest > -40_000_000, "the gate shut {latest} ns early");
    }

    fn a_renewal_does_not_open_a_gate_that_has_shut() {
        let lab = lab_with_addresses();
        let mut gate = Gate::set_up(&VIPS).unwrap();
        gate.open(&VIPS, clock::now() + Duration::from_millis(50)).unwrap();
        assert_eq!(gate.renew(&VIPS, clock::now() + Duration::from_millis(60)).unwrap(), Door::Open, "in time");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(gate.renew(&VIPS, clock::now() + Duration::from_secs(5)).unwrap(), Door::Shut, "late");
        assert!(!lab.answers_arp(VIP4));
        assert_eq!(gate.open(&VIPS, clock::now() + Duration::from_secs(5)).unwrap(), Door::Open, "anew");
        assert!(lab.answers_arp(VIP4));
    }

    fn no_end_however_near_makes_an_element_without_timeout() {
        let lab = lab_with_addresses();
        let mut gate = Gate::set_up(&VIPS).unwrap();
        for micros in (0..12_000).step_by(500) {
            gate.open(&VIPS, clock::now() + Duration::from_micros(micros)).unwrap();
            std::thread::sleep(Duration::from_millis(40));
            assert!(!lab.answers_arp(VIP4), "opened for {micros} us, open after 40 ms");
        }
    }

    fn a_gate_of_an_earlier_run_is_replaced_and_its_open_addresses_are_shut() {
        let lab = lab_with_addresses();
        let mut first = Gate::set_up(&VIPS).unwrap();
        first.open(&VIPS, clock::now() + Duration::from_secs(60)).unwrap();
        let _second = Gate::set_up(&VIPS).unwrap();
        assert!(!lab.answers_arp(VIP4));
    }

    fn a_squeeze_drops_new_connections_and_serves_the_others() {
        use std::io::{Read, Write};
        let lab = lab_with_addresses();
        let mut gate = Gate::set_up(&VIPS).unwrap();
        gate.open(&VIPS, clock::now() + Duration::from_secs(30)).unwrap();
        for listener in listeners() {
            let to = listener.local_addr().unwrap();
            let mut client = lab.connect(to).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            gate.squeeze(&VIPS, Duration::from_secs(20)).unwrap();
            assert!(!lab.connects(to), "a new connection to {to}");
            client.write_all(b"ping").unwrap();
            let mut got = [0; 4];
            server.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"ping");
            gate.end_squeeze(&VIPS).unwrap();
            assert!(lab.connects(to), "after the squeeze");
        }
    }

    fn a_renewal_is_cheap() {
        let timed = |what: &str, job: &mut dyn FnMut()| {
            let begun = std::time::Instant::now();
            job();
            println!("measured: gate, two addresses: {what} {:?}", begun.elapsed());
        };
        let mut gate = Gate::set_up(&VIPS).unwrap();
        timed("set up again", &mut || gate.restore(&VIPS).unwrap());
        timed("shut", &mut || gate.shut(&VIPS).unwrap());
        timed("shut what is shut", &mut || gate.shut(&VIPS).unwrap());
        timed("open", &mut || {
            gate.open(&VIPS, clock::now() + Duration::from_secs(5)).unwrap();
        });
        timed("squeeze", &mut || gate.squeeze(&VIPS, Duration::from_secs(5)).unwrap());
        timed("end squeeze", &mut || gate.end_squeeze(&VIPS).unwrap());
        let begun = std::time::Instant::now();
        for _ in 0..200 {
            if gate.renew(&VIPS, clock::now() + Duration::from_millis(500)).unwrap() == Door::Shut {
                // This process was held up in between for more than a guard.
                gate.open(&VIPS, clock::now() + Duration::from_millis(500)).unwrap();
            }
        }
        println!("measured: renewal of two addresses {:?}", begun.elapsed() / 200);
        assert!(begun.elapsed() < Duration::from_secs(4), "20 ms each");
    }
}

/// Asks for `ip` every 500 µs until it is silent for 60 ms: when the last answer came.
fn last_answer(ip: std::net::Ipv4Addr) -> hawser::time::Instant {
    let capture = Capture::new(PEER);
    let wire = hawser::vip::packet::Wire::new().unwrap();
    let request = crate::lab::arp_request([2, 0, 0, 0, 0, 9], PEER4, ip);
    let mut last = clock::now();
    while last.until(clock::now()) < Duration::from_millis(60) {
        wire.send(crate::lab::index(PEER), &request).unwrap();
        capture.each(Duration::from_micros(500), |_, frame| {
            if matches!(read(frame), Seen::Arp { sender, .. } if sender == ip) {
                last = clock::now();
            }
            true
        });
    }
    last
}
