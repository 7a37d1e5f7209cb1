//! Rules of the voter, its desk and the engine that take no world to show: one object, a few calls.

use crate::scenarios::{calm, heal, isolate, kept, millis};
use crate::world::{Fate, Fault, MS, Part, Plan, World, hash, web};
use hawser::cluster::desk::{Desk, Done};
use hawser::cluster::message::{AckVerdict, Fitness, GroupLine, Heartbeat, Recall, Request};
use hawser::cluster::voter::Refusal;
use hawser::cluster::{
    Action, AddressMark, Bid, Engine, Envelope, Event, GroupName, GroupSetup, Identity, Incarnation, Input, Member,
    Member::*, Members, Memory, Message, Name, Secret, Setup, Term, Third, Timing, Voter, VoterSet, Witness,
    WitnessAction,
};
use hawser::limits::{GROUPS_MAX, HOLD_MAX, LEASE_MAX, LINKS_MAX, MEMORIES_MAX, VIPS_MAX};
use hawser::time::{Duration, Instant};
use hawser::trust::PAYLOAD_BYTES_MAX;

const HOLD: Duration = millis(550);

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000_000 + ms)
}

fn life(member: Member, secret: u8) -> Identity {
    let incarnation = Incarnation(u128::from(secret) << 8 | member.index() as u128);
    Identity { member, incarnation, hash: Some(hash(&Secret([secret; 32]))) }
}

fn remembers(hold_given: Duration) -> Option<Memory> {
    Some(Memory { hold_given, ..Memory::default() })
}

/// A voter that remembers, after its silence.
fn voter() -> Voter {
    Voter::new(at(0) - HOLD, life(Witness, 9), remembers(HOLD))
}

const fn bid(group: GroupName, term: Term, hold: Duration) -> Bid<'static> {
    Bid { group, term, hold, addresses: &[] }
}

fn request(seq: u64, term: u64, hold: Duration) -> Request {
    Request {
        seq,
        group: web(),
        term: Term(term),
        hold,
        hash: None,
        secrets: Vec::new(),
        fit: true,
        addresses: Vec::new(),
    }
}

fn line(name: &GroupName, owned: Option<Term>) -> GroupLine {
    GroupLine { name: *name, owned, witnessed: false, released: None, highest: Term(0), addresses: Vec::new() }
}

fn heartbeat(groups: &[GroupName], owned: Option<Term>) -> Heartbeat {
    Heartbeat {
        seq: 1,
        hold: HOLD,
        hash: None,
        fitness: Fitness::Fit,
        standby: false,
        leaving: false,
        config: 0,
        recall: Recall::Kept,
        groups: groups.iter().map(|name| line(name, owned)).collect(),
    }
}

fn group(number: usize) -> GroupName {
    Name::new(&format!("group-{number}")).unwrap()
}

#[test]
fn a_voter_without_its_memory_promises_at_once_and_is_lost_again_after_a_crash() {
    let mut desk = Desk::new(Voter::new(at(0), life(Witness, 9), None), hash);
    let ack = desk.heartbeat(at(1), life(First, 1), &heartbeat(&[web()], Some(Term(1))));
    assert_eq!(ack.groups[0].verdict, Some(AckVerdict::Promised(Term(1))));
    // A file would make the next life believe that it remembers everything.
    assert_eq!(desk.take_write(), None);
    desk.told(Second, Recall::Kept);
    let (_, memory) = desk.take_write().expect("both have told: now it has a memory to write");
    assert_eq!(memory.hold_given, HOLD, "it was promised before, and a next life is silent for it");
}

#[test]
fn who_once_said_that_nothing_was_promised_need_not_say_it_twice() {
    let mut voter = Voter::new(at(0), life(Witness, 9), None);
    assert!(!voter.told(First, Recall::LostBlank));
    assert!(!voter.told(First, Recall::Kept), "it campaigned meanwhile");
    assert!(voter.told(Second, Recall::LostBlank));
    assert!(!voter.silent(at(1)), "nobody can have asked an earlier life for a promise");
}

#[test]
fn two_voters_without_memory_do_not_make_up_one() {
    let mut voter = Voter::new(at(0), life(Witness, 9), None);
    assert!(!voter.told(First, Recall::Kept));
    assert!(!voter.told(Second, Recall::LostBlank));
    assert!(voter.silent(at(3_600_000)));
}

#[test]
fn no_vote_is_answered_whose_hold_is_not_what_is_being_written() {
    let mut desk = Desk::new(Voter::new(at(0), life(Witness, 9), remembers(Duration::ZERO)), hash);
    assert_eq!(desk.vote(at(1), life(First, 1), &request(1, 1, HOLD)), None);
    let (id, memory) = desk.take_write().expect("a vote is written");
    assert_eq!(memory.hold_given, HOLD);
    // The candidate's lease got longer between two repetitions of its request.
    assert_eq!(desk.vote(at(2), life(First, 1), &request(2, 1, HOLD * 2)), None);
    let Done::Answer(First, answer) = desk.written(at(3), id) else { panic!("the first is answered") };
    assert!(answer.granted);
    assert_eq!(answer.seq, 1);
    assert_eq!(desk.voter.promise(at(3), web()).expect("bound").until, at(1) + HOLD, "no more than the disk knows");
    let (id, memory) = desk.take_write().expect("the longer hold is written next");
    assert_eq!(memory.hold_given, HOLD * 2);
    assert_eq!(desk.vote(at(4), life(First, 1), &request(3, 1, HOLD * 2)), None);
    assert_eq!(desk.written(at(5), id), Done::Nothing);
    let answer = desk.vote(at(6), life(First, 1), &request(4, 1, HOLD * 2)).expect("given before");
    assert!(answer.granted);
}

#[test]
fn a_refused_request_teaches_nothing() {
    let mut voter = voter();
    voter.claim(at(1), life(First, 1), &bid(web(), Term(1), HOLD));
    voter.vote(at(2), life(Second, 2), &bid(web(), Term(1000), HOLD), false);
    assert_eq!(voter.would_vote(at(2), life(Second, 2), &bid(web(), Term(1000), HOLD)), Err(Refusal::Bound));
    assert_eq!(voter.highest(web()), Term(1));
}

#[test]
fn a_term_that_is_not_its_own_or_out_of_reach_is_refused() {
    let mut voter = voter();
    for term in [Term(0), Term(2), Term(u64::MAX)] {
        assert_eq!(voter.would_vote(at(1), life(First, 1), &bid(web(), term, HOLD)), Err(Refusal::Senseless), "{term}");
        assert_eq!(voter.claim(at(1), life(First, 1), &bid(web(), term, HOLD)), None, "{term}");
    }
    voter.heard_of(web(), Term(u64::MAX));
    assert_eq!(voter.highest(web()), Term(0), "else there would be no next term");
}

#[test]
fn strangers_secrets_do_not_push_out_the_one_that_counts() {
    let mut voter = voter();
    let dead = life(First, 1);
    voter.claim(at(1), dead, &bid(web(), Term(1), HOLD));
    assert!(voter.disclose(dead.hash.expect("one")));
    for garbage in 0..200 {
        assert!(!voter.disclose(hash(&Secret([garbage; 32]))));
    }
    let late = voter.claim(at(2), dead, &bid(web(), Term(1), HOLD));
    assert_eq!(late, Some(AckVerdict::Refused(Term(1), Term(1))), "a heartbeat of the dead binds nobody");
}

#[test]
fn a_release_ends_earlier_terms_too_and_never_a_later_one() {
    let mut voter = voter();
    let first = life(First, 1);
    voter.claim(at(1), first, &bid(web(), Term(3), HOLD));
    assert!(!voter.release(web(), first.incarnation, Term(1)));
    assert!(voter.promise(at(2), web()).is_some());
    assert!(voter.release(web(), first.incarnation, Term(5)));
    assert!(voter.promise(at(2), web()).is_none());
    assert_eq!(voter.claim(at(3), first, &bid(web(), Term(3), HOLD)), Some(AckVerdict::Refused(Term(3), Term(3))));
}

#[test]
fn groups_of_the_past_give_way_to_new_ones_unless_they_bind() {
    let mut voter = voter();
    for number in 0..MEMORIES_MAX {
        let hold = if number == 0 { HOLD } else { millis(10) };
        assert!(voter.claim(at(1), life(First, 1), &bid(group(number), Term(1), hold)).is_some());
    }
    assert_eq!(voter.claim(at(2), life(First, 1), &bid(web(), Term(1), HOLD)), None, "all bind still");
    assert!(voter.claim(at(100), life(First, 1), &bid(web(), Term(1), HOLD)).is_some());
    assert!(voter.promise(at(100), group(0)).is_some());
    assert_eq!(voter.memory().groups.len(), MEMORIES_MAX);
}

#[test]
fn every_group_of_the_largest_cluster_is_acknowledged() {
    let mut witness = Witness::new(at(0) - HOLD, life(Witness, 9), remembers(HOLD), hash);
    let groups: Vec<GroupName> = (0..=GROUPS_MAX).map(group).collect();
    let message = Message::Heartbeat(heartbeat(&groups, Some(Term(1))));
    let [WitnessAction::Send(First, Message::Ack(ack))] = &witness.handle(at(0), life(First, 1), &message)[..] else {
        panic!("an acknowledgement")
    };
    assert!(ack.groups.iter().all(|l| l.verdict == Some(AckVerdict::Promised(Term(1)))));
    assert_eq!(ack.groups.len(), GROUPS_MAX + 1);
}

#[test]
fn a_witness_answers_whoever_asks_whether_it_is_there_as_often_as_he_asks() {
    // Of no set yet, so that nothing it is told is of another one.
    let mut witness = Witness::new(at(0), life(Witness, 9), None, hash);
    for ms in [1, 2, 30_000] {
        let answer = witness.handle(at(ms), life(Second, 2), &Message::Hello);
        assert_eq!(answer, [WitnessAction::Send(Second, Message::Hello)]);
    }
}

#[test]
fn the_largest_heartbeat_fits_one_datagram() {
    let name = |number| Name::new(&format!("{number:032}")).unwrap();
    let line = |number| {
        let term = Some(Term(u64::from(u32::MAX)));
        GroupLine { owned: term, released: term, highest: Term(u64::from(u32::MAX)), ..line(&name(number), term) }
    };
    let mut groups: Vec<GroupLine> = (0..=GROUPS_MAX).map(line).collect();
    groups[0].addresses = vec![AddressMark([255; 4]); VIPS_MAX];
    let heartbeat = Heartbeat {
        seq: u64::from(u32::MAX),
        hold: HOLD_MAX,
        hash: Some(hash(&Secret([1; 32]))),
        config: u64::MAX,
        groups,
        ..heartbeat(&[], None)
    };
    let echo = Some(Incarnation(u128::MAX));
    let heard = (0..LINKS_MAX).collect();
    let envelope = Envelope {
        echo,
        voters: VoterSet { generation: u32::MAX, members: Members::Pair }.tag(),
        heard,
        messages: vec![Message::Heartbeat(heartbeat)],
    };
    let bytes = postcard::to_stdvec(&envelope).unwrap().len();
    assert!(bytes <= PAYLOAD_BYTES_MAX, "{bytes}");
}

#[test]
fn the_witness_cannot_pose_as_a_node() {
    let setup = Setup {
        me: life(First, 1),
        timing: Timing::new(millis(500), millis(50)),
        groups: vec![GroupSetup { name: web(), prefer: First, addresses: Vec::new() }],
        drain: Duration::ZERO,
        config: 0,
        wanted: Members::Trio(Third::None),
        hash,
        seed: 1,
        memory: remembers(HOLD),
    };
    let mut engine = Engine::new(at(0), setup);
    for message in [
        Message::Heartbeat(heartbeat(&[web()], Some(Term(2)))),
        Message::PreVote(request(1, 2, HOLD)),
        Message::Vote(request(1, 2, HOLD)),
    ] {
        let actions = engine.handle(at(1_000), Input::Message { from: life(Witness, 9), message });
        assert!(!actions.iter().any(|a| matches!(a, Action::Send(Witness, Message::Ack(_) | Message::VoteAnswer(_)))));
    }
    assert!(engine.voter().promise(at(1_000), web()).is_none());
    let from_a_node = Message::Heartbeat(heartbeat(&[web()], Some(Term(2))));
    let mut witness = Witness::new(at(0), life(Witness, 9), remembers(HOLD), hash);
    assert_eq!(witness.handle(at(1_000), life(Witness, 8), &from_a_node), []);
}

#[test]
fn every_lease_that_a_configuration_may_hold_can_be_promised() {
    assert!(Timing::new(LEASE_MAX, millis(50)).hold() <= HOLD_MAX);
    // `config::check` refuses longer ones without the gate.
    for seconds in 1..=4 {
        assert!(Timing::without_gate(Duration::from_secs(seconds), millis(50)).hold() <= HOLD_MAX, "{seconds} s");
    }
}

#[test]
fn an_owners_own_lease_is_remembered_as_a_promise() {
    let mut world = World::new(Plan::calm());
    world.now(Fault::PowerOff(Second, false));
    world.run_until_answered(First, 500 * MS).unwrap();
    let memory = world.machines[First.index()].disk.clone().expect("a vote was written");
    assert_eq!(memory.hold_given, HOLD, "its next life is silent until what this one owned is over");
}

#[test]
fn of_two_that_come_up_together_the_preferred_one_gets_it() {
    for seed in 0..50 {
        let mut world = World::new(Plan { seed, ..Plan::calm() });
        assert_eq!(world.run_until_served(1_000 * MS), Some(First), "seed {seed}");
    }
}

#[test]
fn disks_that_take_longer_than_a_candidacy_elect_somebody_all_the_same() {
    let mut world = World::new(Plan::calm());
    for member in Member::ALL {
        world.now(Fault::DiskTakes(member, 150 * MS));
    }
    assert!(world.run_until_served(4_000 * MS).is_some());
    assert_eq!(world.verdict(), Ok(()));
    let timing = Timing::new(millis(100), millis(10));
    let mut world = World::new(Plan { timing, ..Plan::calm() });
    for member in Member::ALL {
        world.now(Fault::DiskTakes(member, 150 * MS));
    }
    assert!(world.run_until_served(4_000 * MS).is_some(), "with a short lease, too");
}

#[test]
fn a_leaving_owner_stays_as_a_voter_until_the_witness_knows_its_successor() {
    let stops = |world: &World| world.engine(First).is_none();
    let mut world = calm().unwrap();
    world.now(Fault::Stop(First));
    let took = world.run_to(1_500 * MS, stops).unwrap();
    assert!(took < 100 * MS, "the witness confirms at once: {took}");
    assert_eq!(world.answering(web()), [Second]);
    // Who cannot reach the witness lives on the leaving owner's promise.
    let mut world = calm().unwrap();
    world.link(Second, Witness, false);
    world.now(Fault::Stop(First));
    let took = world.run_to(1_500 * MS, stops).unwrap();
    assert!((900 * MS..1_200 * MS).contains(&took), "it stays for a second: {took}");
}

#[test]
fn a_voter_that_was_refused_for_another_reason_does_not_say_that_a_fit_node_waits() {
    let mut desk = Desk::new(Voter::new(at(0), life(Witness, 9), remembers(HOLD)), hash);
    assert!(!desk.pre_vote(at(1), life(Second, 2), &request(1, 2, HOLD)).granted, "silent after its start");
    let ack = desk.heartbeat(at(2), life(First, 1), &heartbeat(&[web()], Some(Term(1))));
    assert!(!ack.groups[0].wanted);
    // Bound to somebody else, it does.
    desk.heartbeat(at(500), life(First, 1), &heartbeat(&[web()], Some(Term(1))));
    assert!(!desk.pre_vote(at(600), life(Second, 2), &request(2, 2, HOLD)).granted);
    let ack = desk.heartbeat(at(610), life(First, 1), &heartbeat(&[web()], Some(Term(1))));
    assert!(ack.groups[0].wanted);
}

#[test]
fn who_hears_that_the_peer_owns_it_in_a_higher_term_lets_go_without_asking() {
    let mut world = calm().unwrap();
    world.double_allowed = 10 * MS;
    world.now(Fault::Suspend(First));
    world.run_until_answered(Second, 1_000 * MS).unwrap();
    // It hears the peer, and nobody hears it.
    for to in First.others() {
        world.now(Fault::Cut(First, to));
    }
    let since = world.now;
    world.now(Fault::Resume(First, true));
    world.run(60 * MS);
    assert!(world.events_of(First, since).any(|e| matches!(e, Event::Lost { .. })));
}

#[test]
fn a_longer_lease_is_in_force_only_when_its_own_voter_could_remember_it() {
    let mut world = calm().unwrap();
    world.now(Fault::DiskTakes(First, 300 * MS));
    world.now(Fault::Timing(First, Timing::new(millis(1000), millis(100))));
    let mut longest = Duration::ZERO;
    world
        .run_to(250 * MS, |w| {
            let lease = w
                .engine(First)
                .and_then(|e| e.owned(web()))
                .map(|(_, end)| end.since(w.engine(First).unwrap().view().at));
            longest = longest.max(lease.unwrap_or_default());
            false
        })
        .unwrap_err();
    assert!(longest <= millis(500), "{longest:?}");
    world.run(400 * MS);
    let since = world.now;
    world.run(500 * MS);
    assert_eq!(kept(&world, First, since), Ok(()));
    isolate(&mut world, First);
    assert!(world.run_until_answered(Second, 2_000 * MS).unwrap() > 900 * MS);
}

#[test]
fn a_hand_over_whose_answers_are_lost_now_and_then_takes_no_longer_than_an_election() {
    for seed in 0..40 {
        let mut world = crate::scenarios::settled(Plan { seed, ..Plan::calm() }).unwrap();
        let mut chance = crate::world::Chance(seed);
        world.sieve = Some(Box::new(move |_, _, _, _| if chance.per_mille(300) { Fate::Drop } else { Fate::Pass }));
        world.now(Fault::Switchover(First, false));
        let took = world.run_until_answered(Second, 3_000 * MS).unwrap();
        assert!(took < 300 * MS, "seed {seed}: {took}");
    }
}

#[test]
fn a_cluster_forms_although_the_witness_is_further_away_than_the_lease() {
    let timing = Timing::new(millis(100), millis(10));
    let mut world = World::new(Plan { timing, formed: false, ..Plan::calm() });
    world.now(Fault::Slow(First, Witness, 150 * MS));
    world.now(Fault::Slow(Second, Witness, 150 * MS));
    assert!(world.run_until_served(2_000 * MS).is_some());
    for node in [First, Second] {
        assert!(!world.engine(node).unwrap().view().recall.lost(), "{node:?}");
    }
}

#[test]
fn the_grants_of_repeated_requests_bridge_the_way_to_the_first_acknowledgement() {
    let timing = Timing::new(millis(100), millis(10));
    let mut world = World::new(Plan { timing, ..Plan::calm() });
    for (from, to) in [(First, Witness), (Witness, First)] {
        world.now(Fault::Slow(from, to, 20 * MS));
    }
    world.at(MS, Fault::PowerOff(Second, false));
    assert_eq!(world.run_until_served(1_000 * MS), Some(First));
    world.run(1_000 * MS);
    assert_eq!(kept(&world, First, 0), Ok(()));
}

#[test]
fn an_unfit_owner_that_hears_its_peer_and_is_not_heard_makes_way() {
    let mut world = calm().unwrap();
    world.now(Fault::Cut(First, Second));
    world.run(700 * MS);
    world.now(Fault::Fitness(First, Fitness::Unfit));
    world.run_until_answered(Second, 500 * MS).unwrap();
}

#[test]
fn a_pair_whose_nodes_both_stand_by_still_writes_its_state() {
    use crate::world::{Fault, MS, Plan, World, web};
    let state = GroupName::new("state").unwrap();
    let mut world = World::new(Plan { groups: vec![(web(), Member::First), (state, Member::First)], ..Plan::calm() });
    world.run(2_000 * MS);
    for node in [Member::First, Member::Second] {
        world.now(Fault::Standby(node, true));
        world.run(500 * MS);
    }
    world.run(3_000 * MS);
    assert_eq!(world.answering(web()), [], "nobody owns what serves clients");
    assert_eq!(world.answering(state).len(), 1, "somebody can write that a node stands by no longer");
    world.now(Fault::Standby(Member::Second, false));
    world.run(1_000 * MS);
    assert_eq!(world.answering(web()), [Member::Second]);
}

/// Who was to announce the group again since then.
fn announced(world: &World, since: u64) -> Vec<Member> {
    let all = world.announced.iter().filter(|(at, _, group)| *at >= since && *group == web());
    all.map(|(_, who, _)| *who).collect()
}

#[test]
fn after_a_healed_partition_the_owner_and_nobody_else_announces_again() {
    let mut world = calm().unwrap();
    isolate(&mut world, Second);
    world.run(1_000 * MS);
    let cut = world.now;
    world.run(500 * MS);
    assert_eq!(announced(&world, cut), [], "nothing has changed while it is cut");
    let healed = world.now;
    heal(&mut world);
    world.run(200 * MS);
    assert_eq!(announced(&world, healed), [First]);
    kept(&world, First, cut).unwrap();
}

#[test]
fn after_a_freeze_in_which_it_heard_nobody_an_owner_that_kept_its_lease_announces_again() {
    let mut world = calm().unwrap();
    for (frozen, announces) in [(100, false), (250, true)] {
        world.run(500 * MS);
        let since = world.now;
        world.now(Fault::Freeze(First, Part::Both));
        world.run(frozen * MS);
        world.now(Fault::Thaw(First, Part::Both));
        world.run(200 * MS);
        kept(&world, First, since).unwrap();
        let announced = announced(&world, since);
        assert_eq!(announced.contains(&First), announces, "frozen for {frozen} ms");
        assert!(!announced.contains(&Second));
    }
}

#[test]
fn a_freeze_is_told_with_its_length_and_lesser_lateness_when_it_is_the_worst_of_late() {
    let setup = Setup {
        me: life(First, 1),
        timing: Timing::new(millis(500), millis(50)),
        groups: vec![GroupSetup { name: web(), prefer: First, addresses: Vec::new() }],
        drain: Duration::ZERO,
        config: 0,
        wanted: Members::Trio(Third::None),
        hash,
        seed: 1,
        memory: remembers(HOLD),
    };
    let mut engine = Engine::new(at(0), setup);
    let mut told = |ms: u64| -> Vec<Event> {
        let actions = engine.handle(engine.next_deadline() + millis(ms), Input::Tick);
        let event = |action| if let Action::Event(event) = action { Some(event) } else { None };
        actions
            .into_iter()
            .filter_map(event)
            .filter(|e| matches!(e, Event::Froze { .. } | Event::Late { .. }))
            .collect()
    };
    let late = |ms| vec![Event::Late { late: millis(ms) }];
    let froze = |ms| vec![Event::Froze { late: millis(ms) }];
    for (ms, events) in [
        (0, vec![]),
        (125, vec![]),
        (126, late(126)),
        (126, vec![]),
        (300, late(300)),
        (200, vec![]),
        (500, late(500)),
        (501, froze(501)),
        (501, froze(501)),
    ] {
        assert_eq!(told(ms), events, "{ms} ms late");
    }
    assert_eq!((engine.view().worst_late, engine.view().recent_late), (millis(501), millis(501)));
}
