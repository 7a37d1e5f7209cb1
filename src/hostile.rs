//! Every decoder of bytes from outside, under one roof: for the property tests below, and for the targets in `fuzz/`.
//!
//! Each [`Decoder`] eats any bytes and keeps its rules: no panic, no more work than the bytes are worth, nothing beyond
//! the limits, and what is read is written as it was read. What a member says is authentic, and still believed in
//! nothing: engines and replicas are fed with it, too.
//!
//! | decoder | bytes of |
//! |---|---|
//! | `envelope`, `conversation` | another member, once opened: engine messages, and what engines make of them |
//! | `datagram` | anybody: sealed datagrams, release notices |
//! | `arp` | anybody on the segment of an address |
//! | `netlink` | the kernel: answers and news of addresses, interfaces, sockets, the gate |
//! | `replica`, `replicas` | the peer: replication frames, and what a replica makes of them |
//! | `admin` | whoever may open the admin socket: bodies of its calls |
//! | `node_config`, `witness_config` | whoever writes the configuration |
//! | `web_path`, `web_range`, `web_accept`, `web_conditions`, `web_pattern` | visitors (the pattern: the configuration) |
//! | `web_proxy_header`, `web_frames` | proxies in front, and whoever poses as one; clients of HTTP/2 |
//!
//! Built for tests and with the feature `hostile` only. Not here: HTTP itself (hyper), TLS (rustls).

use crate::{
    admin::api::{SetStandby, Switchover},
    cluster::{
        Action, Command, Engine, Envelope, GroupName, GroupSetup, Identity, Incarnation, Input, Intent, Member, Memory,
        Message, Name, Report, Secret, SecretHash, Sessions, Setup, Timing, Witness, WitnessAction,
    },
    config::{self, Machine, Scene},
    limits::{DATAGRAM_BYTES_MAX, GROUPS_MAX, INTERVAL_DEFAULT, LEASE_DEFAULT},
    replicate,
    time::{Duration, Instant},
    trust::{
        ClusterId, Keyring, Kind, Notice, Opener, Sealer, claim, hash_secret,
        site::{Facts, Standing, Trouble},
    },
    vip::{self, frames, frames::Overheard},
    web,
};
use ipnet::IpNet;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// One decoder.
#[derive(Clone, Copy)]
pub struct Decoder {
    /// Its name, also of its fuzz target.
    pub name: &'static str,
    /// Eats any bytes; a panic is a fault.
    pub eat: fn(&[u8]),
    /// Bytes that are as they should be.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const DECODERS: [Decoder; 17] = [
    Decoder { name: "envelope", eat: envelope, samples: envelopes },
    Decoder { name: "conversation", eat: conversation, samples: conversations },
    Decoder { name: "datagram", eat: datagram, samples: datagrams },
    Decoder { name: "arp", eat: arp, samples: arps },
    Decoder { name: "netlink", eat: vip::hostile::netlink, samples: vip::hostile::samples },
    Decoder { name: "replica", eat: replicate::hostile::message, samples: replicate::hostile::messages },
    Decoder { name: "replicas", eat: replicate::hostile::session, samples: replicate::hostile::sessions },
    Decoder { name: "admin", eat: admin, samples: admins },
    Decoder { name: "node_config", eat: node_config, samples: node_configs },
    Decoder { name: "witness_config", eat: witness_config, samples: witness_configs },
    Decoder { name: "web_path", eat: web::hostile::path, samples: web::hostile::paths },
    Decoder { name: "web_range", eat: web::hostile::range, samples: web::hostile::ranges },
    Decoder { name: "web_accept", eat: web::hostile::accept, samples: web::hostile::accepts },
    Decoder { name: "web_conditions", eat: web::hostile::conditions, samples: web::hostile::many_conditions },
    Decoder { name: "web_pattern", eat: web::hostile::pattern, samples: web::hostile::patterns },
    Decoder { name: "web_proxy_header", eat: web::hostile::proxy_header, samples: web::hostile::proxy_headers },
    Decoder { name: "web_frames", eat: web::hostile::frames, samples: web::hostile::many_frames },
];

/// Engine messages, as they lie in a datagram.
fn envelope(bytes: &[u8]) {
    let bytes = bytes.get(..bytes.len().min(DATAGRAM_BYTES_MAX)).unwrap_or_default();
    let Ok(envelope) = postcard::from_bytes::<Envelope>(bytes) else { return };
    assert!(envelope.messages.len() <= bytes.len(), "a message is a byte at least");
    let again = postcard::to_stdvec(&envelope).unwrap_or_default();
    assert!(again.len() <= bytes.len(), "what is written is not longer than what was read");
    assert_eq!(postcard::from_bytes(&again), Ok(envelope));
}

fn envelopes() -> Vec<Vec<u8>> {
    let said = conversations().concat();
    let messages = parts(&said).filter_map(|part| postcard::from_bytes(part.message).ok());
    let envelopes = messages.take(40).map(|message: Message| {
        let messages = vec![message.clone(), Message::Hello, message];
        let heard = [0, 1].into_iter().collect();
        let voters = crate::cluster::SetTag::default();
        postcard::to_stdvec(&Envelope { echo: Some(Incarnation(7)), voters, heard, messages }).unwrap_or_default()
    });
    envelopes.collect()
}

/// One message of a recorded conversation: by whom, how many milliseconds after the one before.
struct Part<'a> {
    from: Member,
    later: Duration,
    message: &'a [u8],
}

/// A conversation: sender, milliseconds, length, message; again and again.
fn parts(bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[from, later, high, low], behind) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        let from = Member::ALL[usize::from(from) % 3];
        Some(Part { from, later: Duration::from_millis(later.into()), message })
    })
}

fn life(member: Member) -> Identity {
    let hash = (member != Member::Witness).then(|| hash_secret(&secret(member)));
    Identity { member, incarnation: Incarnation(40 + member.index() as u128), hash }
}

fn secret(member: Member) -> Secret {
    Secret([u8::try_from(member.index()).unwrap_or(0); 32])
}

fn engine(member: Member, now: Instant) -> Engine {
    let group = |text| {
        let name: Option<GroupName> = Name::new(text).ok();
        name.map(|name| GroupSetup { name, prefer: Member::First, addresses: Vec::new() })
    };
    let hash: fn(&Secret) -> SecretHash = hash_secret;
    let mut engine = Engine::new(
        now,
        Setup {
            me: life(member),
            timing: Timing::new(LEASE_DEFAULT, INTERVAL_DEFAULT),
            groups: ["web", "state"].into_iter().filter_map(group).collect(),
            drain: Duration::from_millis(100),
            config: 1,
            wanted: crate::cluster::Members::Trio(crate::cluster::Third::None),
            hash,
            seed: 1,
            memory: Some(Memory::default()),
        },
    );
    // As at each start: a dump shows that nothing is left over.
    for group in engine.intents().into_keys() {
        drop(engine.handle(now, Input::Report(Report::Gone(group))));
    }
    engine
}

const START: Instant = Instant::from_millis(1_000_000);

/// Gives an engine an input, does at once what it wants done on this machine, and hands back what it wants sent.
fn feed(engine: &mut Engine, now: Instant, input: Input) -> Vec<(Member, Message)> {
    let (mut inputs, mut sent) = (VecDeque::from([input]), Vec::new());
    // An input brings about few others: a write that is done, a drain that is over, addresses that are gone.
    for _ in 0..64 {
        let Some(input) = inputs.pop_front() else { return sent };
        let before = engine.intents();
        let actions = engine.handle(now, input);
        assert!(actions.len() <= 32 * (GROUPS_MAX + 1), "{} actions at once", actions.len());
        for action in actions {
            match action {
                Action::Send(to, message) => sent.push((to, message)),
                Action::Persist(id, _) => inputs.push_back(Input::Persisted(id)),
                Action::Drain(group, true) => inputs.push_back(Input::Drained(group)),
                Action::Drain(_, false)
                | Action::Announce(_)
                | Action::Event(_)
                | Action::Answer(..)
                | Action::Stopped => {}
            }
        }
        let left = engine.intents().into_iter().filter(|(group, intent)| {
            !matches!(intent, Intent::Held { .. }) && before.get(group).is_some_and(|old| old != intent)
        });
        inputs.extend(left.map(|(group, _)| Input::Report(Report::Gone(group))));
    }
    sent
}

/// What authentic members say to a node and to a witness, whatever it is.
fn conversation(bytes: &[u8]) {
    let mut now = START;
    let (mut node, mut witness) = (engine(Member::First, now), witness(now));
    let mut sessions = Sessions::new(life(Member::First).incarnation);
    for (counter, part) in parts(bytes).take(400).enumerate() {
        now = now + part.later;
        let Ok(message) = postcard::from_bytes::<Message>(part.message) else { continue };
        let from = Identity { hash: None, ..life(part.from) };
        let echo = (!part.later.is_zero()).then_some(life(Member::First).incarnation);
        let _verdict = sessions.accept(part.from, from.incarnation, counter as u64, echo);
        let actions = witness.handle(now, from, &message);
        assert!(actions.len() <= 2, "an answer, and something to write");
        for action in actions {
            if let WitnessAction::Persist(id, _) = action {
                drop(witness.written(now, id));
            }
        }
        if part.from != Member::First {
            drop(feed(&mut node, now, Input::Message { from, message }));
            assert!(node.next_deadline() >= now || node.next_deadline() == Instant::ZERO || !part.later.is_zero());
        }
    }
}

fn witness(now: Instant) -> Witness {
    Witness::new(now, life(Member::Witness), Some(Memory::default()), hash_secret)
}

/// What a node hears while it is elected, serves, and hands over; and what a standby hears.
fn conversations() -> Vec<Vec<u8>> {
    [Member::First, Member::Second].map(heard_by).to_vec()
}

fn heard_by(listener: Member) -> Vec<u8> {
    let nodes = [Member::First, Member::Second];
    let mut engines = nodes.map(|member| engine(member, START));
    let mut witness = witness(START);
    let (mut heard, mut last) = (Vec::new(), START);
    for step in 0..300_u64 {
        let now = START + Duration::from_millis(5 * step);
        let mut said: VecDeque<(Member, Member, Message)> = VecDeque::new();
        for (node, engine) in nodes.into_iter().zip(&mut engines) {
            said.extend(feed(engine, now, Input::Tick).into_iter().map(|(to, message)| (node, to, message)));
            if step == 200 && node == Member::First {
                let group = engine.intents().into_keys().next_back();
                let move_it = group.map(|group| Input::Command(1, Command::Switchover { group, force: true }));
                let sent = move_it.map(|input| feed(engine, now, input)).unwrap_or_default();
                said.extend(sent.into_iter().map(|(to, message)| (node, to, message)));
            }
        }
        for _ in 0..200 {
            let Some((from, to, message)) = said.pop_front() else { break };
            // Recorded for one of them, and as if that one were the first.
            if to == listener && heard.len() < 6000 {
                let bytes = postcard::to_stdvec(&message).unwrap_or_default();
                let sender = if from == Member::Witness { 2 } else { 1 };
                let later = u8::try_from(now.since(last).as_millis()).unwrap_or(u8::MAX);
                last = now;
                heard.extend([sender, later]);
                heard.extend(u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
                heard.extend(bytes);
            }
            let from_whom = Identity { hash: None, ..life(from) };
            if to == Member::Witness {
                let mut actions = VecDeque::from(witness.handle(now, from_whom, &message));
                while let Some(action) = actions.pop_front() {
                    match action {
                        WitnessAction::Send(to, message) => said.push_back((Member::Witness, to, message)),
                        WitnessAction::Persist(id, _) => actions.extend(witness.written(now, id)),
                    }
                }
            } else if let Some(engine) = engines.get_mut(to.index()) {
                let sent = feed(engine, now, Input::Message { from: from_whom, message });
                said.extend(sent.into_iter().map(|(next, message)| (to, next, message)));
            }
        }
    }
    heard
}

fn ring() -> Option<Keyring> {
    Name::new("shop").ok().map(|name| Keyring::new(name, ClusterId(*b"clusterA"), [7; 32]))
}

/// A datagram from anywhere: only what a member sealed is opened.
fn datagram(bytes: &[u8]) {
    let Some(ring) = ring() else { return };
    let mut opener = Opener::new(&ring, &Member::ALL);
    let opened = opener.open(bytes).is_ok();
    assert!(!opened || datagrams().iter().any(|sealed| sealed == bytes), "nobody sealed this");
    assert!(!opened || claim(bytes).is_ok());
    if let Ok(notice) = Notice::decode(bytes) {
        assert_eq!(notice.encode(), *bytes, "a notice is written as it was read");
    }
}

fn datagrams() -> Vec<Vec<u8>> {
    let Some(ring) = ring() else { return Vec::new() };
    let sealed = Member::ALL.map(|member| {
        let mut out = Vec::new();
        let payload = [member.index().to_le_bytes(); 10].concat();
        let done = Sealer::new(&ring, member, life(member).incarnation).seal(Kind::Engine, &payload, &mut out);
        assert!(done.is_ok());
        out
    });
    let notice = Notice { cluster: ring.id(), secret: secret(Member::Second) }.encode().to_vec();
    sealed.into_iter().chain([notice]).collect()
}

/// A frame on the segment of an address.
fn arp(bytes: &[u8]) {
    if let Some((mac, address)) = frames::claim(bytes) {
        assert!(bytes.len() >= 42 && !address.is_unspecified());
        for frame in frames::announcements(mac, address.into()) {
            assert_eq!(frames::claim(&frame), Some((mac, address)), "what is announced reads as a claim of the same");
        }
    }
    if let Some(Overheard::Has(mac, address)) = frames::overheard(bytes) {
        for frame in frames::announcements(mac, address) {
            assert_eq!(frames::overheard(&frame), Some(Overheard::Has(mac, address)), "in both families");
        }
    }
}

fn arps() -> Vec<Vec<u8>> {
    let vips = [IpAddr::from(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1])];
    vips.iter().flat_map(|vip| frames::announcements([2, 0, 0, 0, 0, 7], *vip)).collect()
}

fn json<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let again = serde_json::to_vec(&value).unwrap_or_default();
    let reread = serde_json::from_slice::<T>(&again).map(|value| format!("{value:?}"));
    assert_eq!(reread.ok(), Some(format!("{value:?}")));
}

/// The body of an admin call.
fn admin(bytes: &[u8]) {
    json::<Switchover>(bytes);
    json::<SetStandby>(bytes);
}

fn admins() -> Vec<Vec<u8>> {
    vec![
        br#"{"group":"web","to":"n2","force":true}"#.to_vec(),
        br#"{"node":null,"on":true,"force":false}"#.to_vec(),
        [b"[".repeat(2000), b"]".repeat(2000)].concat(),
    ]
}

/// A machine with one interface, and every folder.
struct Pretended;

impl Machine for Pretended {
    fn networks(&self, interface: &str) -> Option<Vec<IpNet>> {
        (interface == "eth0").then(Vec::new)
    }

    fn has_address(&self, _: IpAddr) -> bool {
        true
    }

    fn is_dir(&self, _: &Path) -> bool {
        true
    }

    fn certificate(&self, _: &Path, _: &Path) -> Result<(Facts, Standing), Trouble> {
        let from = std::time::UNIX_EPOCH;
        let names = vec!["shop.example".to_owned()];
        Ok((Facts { names, not_before: from, not_after: from, key_kind: "ecdsa" }, Standing::Holds))
    }

    fn client_ca(&self, _: &Path) -> Result<(), Trouble> {
        Ok(())
    }

    fn ticket_keys(&self, _: &Path) -> Result<(), Trouble> {
        Ok(())
    }

    fn may_be_denied(&self) -> bool {
        false
    }
}

/// Each fault has a reason, and a line that the file has.
fn checked(text: &str, faults: Option<config::Faults>) {
    let Some(faults) = faults else { return };
    assert!(!faults.faults.is_empty(), "refused without a reason");
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    for fault in &faults.faults {
        assert!(fault.line <= lines, "line {} of {lines}: {fault}", fault.line);
    }
    assert!(!faults.to_string().is_empty());
}

fn scene() -> Scene<'static> {
    Scene { path: Path::new("/etc/hawser/hawser.toml"), me: None, machine: Some(&Pretended) }
}

/// The text of a node's configuration.
fn node_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    checked(&text, config::check(&text, &scene()).err());
}

/// The text of a witness's configuration.
fn witness_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _kind = config::is_witness(&text);
    checked(&text, config::check_witness(&text, &scene()).err());
}

fn node_configs() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../config/hawser.toml").to_vec(),
        b"a.".repeat(3000),
        b"[[a".repeat(3000),
        [b"a = ".to_vec(), b"[".repeat(3000)].concat(),
        [b"a = ".to_vec(), b"{ a = ".repeat(3000)].concat(),
        [b"[".to_vec(), b"a.".repeat(3000), b"a]".to_vec()].concat(),
    ]
}

fn witness_configs() -> Vec<Vec<u8>> {
    let mut samples = node_configs();
    samples.push(include_bytes!("../config/witness.toml").to_vec());
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

    /// A change of bytes that were as they should be.
    #[derive(Debug, Clone)]
    enum Edit {
        Flip(Index, u8),
        Set(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index, usize),
        Double(Index, usize),
        Cut(Index),
        Splice(Index, Index, Index),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let at = || any::<Index>();
        let odd = prop_oneof![Just(0), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
        prop_oneof![
            (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
            (at(), odd).prop_map(|(at, byte)| Edit::Set(at, byte)),
            (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (at(), 1..40_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
            (at(), 1..200_usize).prop_map(|(at, length)| Edit::Double(at, length)),
            at().prop_map(Edit::Cut),
            (at(), at(), at()).prop_map(|(a, b, c)| Edit::Splice(a, b, c)),
        ]
    }

    fn edited(samples: &[Vec<u8>], of: &Index, edits: &[Edit]) -> Vec<u8> {
        let mut bytes = of.get(samples).clone();
        for edit in edits {
            let end = bytes.len();
            if end == 0 {
                break;
            }
            let until = |at: usize, length: usize| (at + length).min(end);
            match edit {
                Edit::Flip(at, bit) => bytes[at.index(end)] ^= 1 << bit,
                Edit::Set(at, byte) => bytes[at.index(end)] = *byte,
                Edit::Insert(at, more) => drop(bytes.splice(at.index(end)..at.index(end), more.clone())),
                Edit::Remove(at, length) => drop(bytes.drain(at.index(end)..until(at.index(end), *length))),
                Edit::Double(at, length) => {
                    let piece = bytes[at.index(end)..until(at.index(end), *length)].to_vec();
                    drop(bytes.splice(at.index(end)..at.index(end), piece));
                }
                Edit::Cut(at) => bytes.truncate(at.index(end)),
                Edit::Splice(at, other, from) => {
                    let other = other.get(samples);
                    bytes.truncate(at.index(end));
                    bytes.extend(other.iter().skip(from.index(other.len().max(1))));
                }
            }
        }
        bytes
    }

    fn decoder(name: &str) -> Decoder {
        DECODERS.into_iter().find(|decoder| decoder.name == name).unwrap()
    }

    /// `HAWSER_FUZZ_CASES` for longer runs.
    fn runner(cases: u32) -> TestRunner {
        let cases = std::env::var("HAWSER_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
    }

    fn eats_anything(name: &str) {
        let Decoder { eat, samples, .. } = decoder(name);
        let samples = samples();
        assert!(!samples.is_empty());
        for sample in &samples {
            eat(sample);
            // Each of the first cuts, and some of the others.
            (0..sample.len()).filter(|at| *at < 300 || at % 31 == 0).for_each(|at| eat(&sample[..at]));
        }
        let bytes = prop::collection::vec(any::<u8>(), 0..1300);
        let fed = |bytes: &[u8]| {
            eat(bytes);
            Ok(())
        };
        runner(128).run(&bytes, |bytes| fed(&bytes)).unwrap();
        let mutants = (any::<Index>(), prop::collection::vec(edit(), 1..8));
        runner(256).run(&mutants, |(of, edits)| fed(&edited(&samples, &of, &edits))).unwrap();
    }

    macro_rules! eaters {
        ($($decoder:ident)*) => {
            $(#[test] fn $decoder() { eats_anything(stringify!($decoder)); })*
            #[test]
            fn every_decoder_is_tested_and_has_a_fuzz_target() {
                assert_eq!(DECODERS.map(|decoder| decoder.name), [$(stringify!($decoder)),*]);
                for Decoder { name, .. } in DECODERS {
                    let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets").join(name).with_extension("rs");
                    let text = std::fs::read_to_string(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
                    assert!(text.contains(&format!("\"{name}\"")), "{}", at.display());
                }
            }
        };
    }
    eaters! {
        envelope conversation datagram arp netlink replica replicas admin node_config witness_config web_path web_range
        web_accept web_conditions web_pattern
        web_proxy_header web_frames
    }

    #[test]
    fn a_recorded_conversation_elects_an_owner_and_moves_the_group() {
        let kinds = |listener| {
            let heard = heard_by(listener);
            let messages = parts(&heard).filter_map(|part| postcard::from_bytes::<Message>(part.message).ok());
            let words = messages.map(|message| format!("{message:?}"));
            words.map(|word| word.split(['(', ' ']).next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let (first, second) = (kinds(Member::First), kinds(Member::Second));
        for kind in ["Heartbeat", "Ack", "PreVoteAnswer", "VoteAnswer"] {
            assert!(first.iter().any(|k| k == kind), "{kind} in {first:?}");
        }
        assert!(second.iter().any(|k| k == "Offer"), "{second:?}");
    }
    /// What a lying witness says to a message: yes to everything.
    fn lie(message: &Message) -> Option<Message> {
        use crate::cluster::message::{Ack, AckLine, AckVerdict, Answer, Recall};
        let yes = |request: &crate::cluster::message::Request| Answer {
            seq: request.seq,
            group: request.group,
            term: request.term,
            granted: true,
            highest: request.term,
            released: None,
            bound: false,
        };
        match message {
            Message::Heartbeat(heartbeat) => {
                let lines = heartbeat.groups.iter().map(|line| AckLine {
                    name: line.name,
                    highest: line.highest,
                    verdict: line.owned.map(AckVerdict::Promised),
                    wanted: false,
                });
                Some(Message::Ack(Ack { seq: heartbeat.seq, recall: Recall::Kept, groups: lines.collect() }))
            }
            Message::PreVote(request) => Some(Message::PreVoteAnswer(yes(request))),
            Message::Vote(request) => Some(Message::VoteAnswer(yes(request))),
            Message::Hello
            | Message::Voters(_)
            | Message::Ack(_)
            | Message::PreVoteAnswer(_)
            | Message::VoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => None,
        }
    }

    /// Runs two nodes with a witness that lies, until a second one owns the group too, or for ten seconds. They hear each
    /// other until `cut`.
    fn second_owner(cut: u64) -> Option<Instant> {
        let nodes = [Member::First, Member::Second];
        let mut engines = nodes.map(|member| engine(member, START));
        let group: GroupName = Name::new("web").unwrap();
        let mut owned = false;
        for millis in (0..10_000).step_by(5) {
            let now = START + Duration::from_millis(millis);
            let mut said: VecDeque<(Member, Member, Message)> = VecDeque::new();
            for (node, engine) in nodes.into_iter().zip(&mut engines) {
                said.extend(feed(engine, now, Input::Tick).into_iter().map(|(to, message)| (node, to, message)));
            }
            for _ in 0..200 {
                let Some((from, to, message)) = said.pop_front() else { break };
                let from_whom = Identity { hash: None, ..life(from) };
                if to == Member::Witness {
                    said.extend(lie(&message).map(|lie| (Member::Witness, from, lie)));
                } else if from == Member::Witness || millis < cut {
                    let sent = feed(&mut engines[to.index()], now, Input::Message { from: from_whom, message });
                    said.extend(sent.into_iter().map(|(next, message)| (to, next, message)));
                }
            }
            let owners = engines.iter().filter(|e| e.owned(group).is_some_and(|(_, end)| now < end)).count();
            owned |= owners > 0;
            if owners == 2 {
                return Some(now);
            }
        }
        assert!(owned, "somebody was elected");
        None
    }

    #[test]
    fn a_witness_that_promises_everybody_makes_no_second_owner_while_the_nodes_hear_each_other() {
        assert_eq!(second_owner(u64::MAX), None);
        // That it is no more than this: the table of threats says so.
        assert!(second_owner(3_000).is_some_and(|at| at >= START + Duration::from_secs(3)));
    }
}
