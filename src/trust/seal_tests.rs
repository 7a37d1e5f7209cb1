//! Tests of the seal: what is refused, and that nothing else gets through.
#![expect(clippy::indexing_slicing, reason = "a test that indexes wrongly fails")]

use super::*;
use crate::cluster::Name;
use proptest::prelude::*;

fn ring() -> Keyring {
    Keyring::new(Name::new("shop").unwrap(), ClusterId(*b"clusterA"), [7; 32])
}

fn sealed_by(ring: &Keyring, me: Member, life: u128, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Sealer::new(ring, me, Incarnation(life)).seal(Kind::Engine, payload, &mut out).unwrap();
    out
}

fn opener(senders: &[Member]) -> Opener {
    Opener::new(&ring(), senders)
}

#[test]
fn what_was_sealed_is_opened_with_its_sender_life_and_counter() {
    let mut sealer = Sealer::new(&ring(), Member::First, Incarnation(42));
    let mut opener = opener(&[Member::First, Member::Second]);
    let mut out = vec![9; 5];
    for counter in 1..=3 {
        assert_eq!(sealer.seal(Kind::Engine, b"beat", &mut out), Ok(counter));
        let opened = opener.open(&out).unwrap();
        let expected = Opened {
            sender: Member::First,
            incarnation: Incarnation(42),
            counter,
            kind: Kind::Engine,
            payload: b"beat",
        };
        assert_eq!(opened, expected);
    }
}

#[test]
fn the_longest_payload_fits_a_datagram_and_one_more_byte_is_refused() {
    let mut sealer = Sealer::new(&ring(), Member::First, Incarnation(1));
    let mut out = Vec::new();
    sealer.seal(Kind::Engine, &[1; PAYLOAD_BYTES_MAX], &mut out).unwrap();
    assert_eq!(out.len(), DATAGRAM_BYTES_MAX);
    assert_eq!(opener(&[Member::First]).open(&out).unwrap().payload.len(), PAYLOAD_BYTES_MAX);
    assert_eq!(sealer.seal(Kind::Engine, &[1; PAYLOAD_BYTES_MAX + 1], &mut out), Err(TooLong(PAYLOAD_BYTES_MAX + 1)));
    assert!(out.is_empty());
}

#[test]
fn every_single_bit_flip_is_refused() {
    let datagram = sealed_by(&ring(), Member::First, 42, b"a heartbeat of some length");
    let mut opener = opener(&[Member::First, Member::Second, Member::Witness]);
    for bit in 0..datagram.len() * 8 {
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(opener.open(&flipped).is_err(), "bit {bit}");
    }
    assert!(opener.open(&datagram).is_ok());
}

#[test]
fn every_shortened_or_lengthened_datagram_is_refused() {
    let datagram = sealed_by(&ring(), Member::First, 42, b"payload");
    let mut opener = opener(&[Member::First]);
    for length in 0..datagram.len() {
        assert!(opener.open(&datagram[..length]).is_err(), "{length} bytes");
    }
    let mut longer = datagram;
    longer.push(0);
    assert_eq!(opener.open(&longer), Err(Refused::BadSeal));
}

#[test]
fn each_refusal_has_its_reason_and_is_counted() {
    let other = Keyring::new(Name::new("shop").unwrap(), ClusterId(*b"clusterB"), [7; 32]);
    let same_id_other_secret = Keyring::new(Name::new("shop").unwrap(), ring().id(), [8; 32]);
    let good = sealed_by(&ring(), Member::First, 1, b"x");
    let with = |at: usize, byte: u8| {
        let mut datagram = good.clone();
        datagram[at] = byte;
        datagram
    };
    let mut opener = opener(&[Member::First]);
    let cases = [
        (vec![0; 3], Refused::Length),
        (vec![VERSION; DATAGRAM_BYTES_MAX + 1], Refused::Length),
        (with(0, VERSION + 1), Refused::Version),
        (with(1, 77), Refused::Kind),
        (sealed_by(&other, Member::First, 1, b"x"), Refused::ForeignCluster),
        (with(2, 1), Refused::UnknownKey),
        (sealed_by(&ring(), Member::Second, 1, b"x"), Refused::UnknownSender),
        (with(3, 200), Refused::UnknownSender),
        (sealed_by(&same_id_other_secret, Member::First, 1, b"x"), Refused::BadSeal),
    ];
    for (datagram, reason) in &cases {
        assert_eq!(opener.open(datagram), Err(*reason));
    }
    for reason in Refused::ALL {
        let expected = cases.iter().filter(|(_, r)| *r == reason).count();
        assert_eq!(opener.refused(reason), expected as u64, "{reason}");
        assert!(expected > 0, "{reason} is tried");
    }
}

#[test]
fn a_witness_cannot_pose_as_a_node() {
    let for_witness = ring().for_witness();
    let forged = sealed_by(&for_witness, Member::First, 1, b"I am a node");
    assert_eq!(opener(&[Member::First, Member::Second]).open(&forged), Err(Refused::BadSeal));
    let honest = sealed_by(&for_witness, Member::Witness, 1, b"ack");
    assert!(Opener::new(&ring().for_witness(), &[Member::Witness]).open(&honest).is_ok());
}

#[test]
fn a_datagram_thrown_back_at_its_sender_is_refused() {
    let own = sealed_by(&ring(), Member::First, 1, b"beat");
    assert_eq!(opener(&[Member::Second]).open(&own), Err(Refused::UnknownSender));
}

#[test]
fn both_secrets_open_while_one_is_being_replaced() {
    let text = |ids: &[(u8, u8)]| {
        let keys = ids.iter().map(|(id, fill)| {
            let secret = format!("{fill:02x}").repeat(32);
            format!("[[key]]\nid = {id}\nsecret = \"{secret}\"\n")
        });
        let head = format!("purpose = \"cluster\"\ncluster = \"shop\"\nid = \"{}\"\n", ring().id());
        Keyring::parse(&(head + &keys.collect::<String>())).unwrap()
    };
    let (old, new) = (text(&[(0, 1), (1, 2)]), text(&[(1, 2), (0, 1)]));
    let mut opener = Opener::new(&old, &[Member::First]);
    assert!(opener.open(&sealed_by(&old, Member::First, 5, b"x")).is_ok());
    assert!(opener.open(&sealed_by(&new, Member::First, 5, b"x")).is_ok());
    let retired = text(&[(1, 2)]);
    let mut opener = Opener::new(&retired, &[Member::First]);
    assert_eq!(opener.open(&sealed_by(&old, Member::First, 5, b"x")), Err(Refused::UnknownKey));
}

#[test]
fn a_repeated_life_and_counter_do_not_open_other_payloads() {
    // A cloned machine repeats both. Equal payloads are equal datagrams, others share nothing.
    let first = sealed_by(&ring(), Member::First, 9, b"same");
    assert_eq!(first, sealed_by(&ring(), Member::First, 9, b"same"));
    let second = sealed_by(&ring(), Member::First, 9, b"else");
    let mixed = [&first[..HEADER], &second[HEADER..HEADER + 4], &first[HEADER + 4..]].concat();
    assert_eq!(opener(&[Member::First]).open(&mixed), Err(Refused::BadSeal));
    let xor = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(x, y)| x ^ y).collect::<Vec<u8>>();
    let ciphertexts = xor(&first[HEADER..HEADER + 4], &second[HEADER..HEADER + 4]);
    assert_ne!(ciphertexts, xor(b"same", b"else"), "no stream is used twice");
}

#[test]
fn garbage_pushes_no_proven_key_out_and_fills_no_memory() {
    let mut opener = opener(&[Member::First]);
    let good = sealed_by(&ring(), Member::First, 1, b"beat");
    opener.open(&good).unwrap();
    for life in 2..2000u128 {
        let mut garbage = sealed_by(&ring(), Member::First, life, b"beat");
        *garbage.last_mut().unwrap() ^= 1;
        assert_eq!(opener.open(&garbage), Err(Refused::BadSeal));
    }
    let lives: Vec<_> = opener.senders[0].proven.iter().map(|k| k.incarnation.0).collect();
    assert_eq!(lives, [1]);
}

#[test]
fn the_current_life_stays_cached_among_replays_of_old_ones() {
    let mut opener = opener(&[Member::First]);
    let current = sealed_by(&ring(), Member::First, 1000, b"beat");
    for life in 0..50 {
        opener.open(&current).unwrap();
        opener.open(&sealed_by(&ring(), Member::First, life, b"beat")).unwrap();
        assert!(opener.senders[0].proven.iter().any(|k| k.incarnation.0 == 1000));
        assert!(opener.senders[0].proven.len() <= SEAL_CACHE_PER_SENDER);
    }
}

#[test]
fn a_notice_is_read_as_it_was_written_and_never_as_anything_else() {
    let notice = Notice { cluster: ring().id(), secret: Secret([3; 32]) };
    let bytes = notice.encode();
    assert!(Notice::is(&bytes));
    assert_eq!(Notice::decode(&bytes), Ok(notice));
    assert_eq!(Notice::decode(&bytes[..41]), Err(Refused::Length));
    assert_eq!(Notice::decode(&[&bytes[..], &[0]].concat()), Err(Refused::Length));
    assert!(opener(&Member::ALL).open(&bytes).is_err());
    let sealed = sealed_by(&ring(), Member::First, 1, b"");
    assert!(!Notice::is(&sealed));
    let mut other = bytes;
    other[1] = Kind::Engine.byte();
    assert_eq!(Notice::decode(&other), Err(Refused::Kind));
    other[0] = 0;
    assert_eq!(Notice::decode(&other), Err(Refused::Version));
}

#[test]
fn a_datagram_says_whose_it_is_before_it_is_opened() {
    let sealed = sealed_by(&ring(), Member::Witness, 1, b"");
    assert_eq!(claim(&sealed), Ok(Claim::Sealed { cluster: ring().id(), sender: Member::Witness }));
    let notice = Notice { cluster: ring().id(), secret: Secret([3; 32]) };
    assert_eq!(claim(&notice.encode()), Ok(Claim::Notice(notice)));
    assert_eq!(claim(&sealed[..HEADER - 1]), Err(Refused::Length));
    assert_eq!(claim(&[0; 60]), Err(Refused::Version));
    let mut stranger = sealed;
    stranger[3] = 3;
    assert_eq!(claim(&stranger), Err(Refused::UnknownSender));
}

#[test]
fn a_keyring_survives_its_file() {
    let ring = Keyring::generate(Name::new("shop").unwrap());
    for ring in [ring.for_witness(), ring] {
        let read = Keyring::parse(&ring.to_text()).unwrap();
        assert_eq!(read.to_text(), ring.to_text());
        assert_eq!(read.id(), ring.id());
    }
}

#[test]
fn a_keyring_never_shows_its_secret_in_a_log() {
    let shown = format!("{:?} {:?}", ring(), Sealer::new(&ring(), Member::First, Incarnation(1)));
    assert!(!shown.contains("0707"), "{shown}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
        prop_assert!(opener(&Member::ALL).open(&bytes).is_err());
        prop_assert!(claim(&bytes).is_err() || bytes.first() == Some(&VERSION));
        prop_assert!(Notice::decode(&bytes).is_err() || Notice::is(&bytes));
        drop(Keyring::parse(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_header_never_open(
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        life in any::<u128>(),
    ) {
        let mut datagram = sealed_by(&ring(), Member::First, life, b"x");
        let good = datagram.clone();
        datagram.truncate(HEADER);
        datagram.extend_from_slice(&tail);
        prop_assume!(datagram != good);
        prop_assert!(opener(&Member::ALL).open(&datagram).is_err());
    }

    #[test]
    fn any_payload_comes_out_as_it_went_in(payload in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_BYTES_MAX)) {
        let datagram = sealed_by(&ring(), Member::Witness, 3, &payload);
        let mut opener = opener(&Member::ALL);
        prop_assert_eq!(opener.open(&datagram).unwrap().payload, &payload[..]);
    }

    #[test]
    fn a_notice_of_any_secret_round_trips(id in any::<[u8; 8]>(), secret in any::<[u8; 32]>()) {
        let notice = Notice { cluster: ClusterId(id), secret: Secret(secret) };
        prop_assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
    }
}
