//! Pairs without a witness: named scenarios, and seeds.
//!
//! With an honest fence device at most one node answers, whatever happens. With `gateway` and `none` two may answer while
//! the network of the addresses itself is cut, and at no other time.

#![expect(clippy::print_stdout, reason = "a seed tells its story")]

use crate::faults::TROUBLE;
use crate::scenarios::{Outcome, expect, kept, millis};
use crate::world::{Chance, Device, Fault, Local, MS, NODES, Network, Part, Plan, World, web, with_each_seed};
use hawser::cluster::{Cause, Event, Fitness, Member, Member::*, Name, OffBy, Stand, Way};
use hawser::limits::LOST_LEASES;

const FENCE: Way = Way::Fence { head_start: millis(5_000) };
const BOOT_WAIT: u64 = 3_000 * MS;
/// Three leases of the default.
const LOST: u64 = 500 * MS * LOST_LEASES as u64;

fn plan(way: Way) -> Plan {
    Plan { local: Some(Local { way, boot_wait: millis(BOOT_WAIT / MS) }), ..Plan::calm() }
}

/// A pair whose first node serves.
fn settled(way: Way) -> Result<World, String> {
    let mut world = World::new(plan(way));
    world.now(Fault::Standby(Second, true));
    world.run_until_answered(First, 1_500 * MS)?;
    world.now(Fault::Standby(Second, false));
    world.run(200 * MS);
    world.verdict()?;
    Ok(world)
}

/// All that connects the two: links, and the network of the addresses.
fn cut(world: &mut World, segment: bool) {
    world.link(First, Second, false);
    world.now(Fault::Segment(segment));
}

fn heal(world: &mut World) {
    world.now(Fault::Segment(false));
    world.link(First, Second, true);
}

fn lost(world: &World, node: Member, since: u64) -> Option<Cause> {
    world.events_of(node, since).find_map(|e| if let Event::Lost { cause, .. } = e { Some(*cause) } else { None })
}

const LOOKING: [Way; 2] = [Way::None, Way::Gateway { need: 1 }];

fn dead_owner_is_replaced() -> Outcome {
    for way in LOOKING {
        let mut world = settled(way)?;
        world.now(Fault::PowerOff(First, false));
        let dark = world.run_until_answered(Second, 3_000 * MS)?;
        expect((LOST - 60 * MS..LOST + 150 * MS).contains(&dark), || {
            format!("{way:?}: after three leases, not {dark} ns")
        })?;
    }
    Ok(())
}

fn killed_worker_costs_its_silence() -> Outcome {
    for way in [Way::None, FENCE] {
        let mut world = settled(way)?;
        world.now(Fault::KillWorker(First));
        let dark = world.run_to(2_000 * MS, |w| !w.answering(web()).is_empty())?;
        expect(dark < 900 * MS, || format!("{way:?}: it is silent after its restart, not {dark} ns"))?;
        world.run(8_000 * MS);
        world.verdict()?;
        expect(world.shots.is_empty(), || "nobody is shot for it".to_owned())?;
    }
    Ok(())
}

fn links_cut_segment_whole() -> Outcome {
    for way in LOOKING {
        let mut world = settled(way)?;
        let since = world.now;
        cut(&mut world, false);
        world.run(6_000 * MS);
        kept(&world, First, since)?;
        expect(matches!(world.stand(Second), Some(Stand::Answered(_))), || "it says who answers".to_owned())?;
        // The owner dies: now nobody answers.
        world.now(Fault::PowerOff(First, false));
        let dark = world.run_until_answered(Second, 3_000 * MS)?;
        expect(dark < 2_000 * MS, || format!("it is looked again each second, and took {dark} ns"))?;
    }
    Ok(())
}

fn everything_cut_then_healed() -> Outcome {
    let mut world = settled(Way::None)?;
    cut(&mut world, true);
    world.run(LOST + 500 * MS);
    world.verdict()?;
    expect(world.answering(web()).len() == 2, || "the case is real: both answer".to_owned())?;
    let since = world.now;
    heal(&mut world);
    // An interval and a round trip, and the call that shuts the gate; the world sees to it that it is no longer.
    world.run(56 * MS);
    world.verdict()?;
    expect(world.answering(web()) == [Second], || "the higher term stays".to_owned())?;
    expect(lost(&world, First, since) == Some(Cause::HigherTerm), || "the lower one yields".to_owned())?;
    world.run(2_000 * MS);
    kept(&world, Second, since)
}

fn half_without_gateway_takes_nothing() -> Outcome {
    let mut world = settled(Way::Gateway { need: 1 })?;
    let since = world.now;
    cut(&mut world, true);
    world.run(10_000 * MS);
    expect(world.stand(Second) == Some(Stand::Gateways(0)), || "it says what it misses".to_owned())?;
    expect(world.answering(web()) == [First], || "only the half with the gateway answers".to_owned())?;
    heal(&mut world);
    world.run(2_000 * MS);
    kept(&world, First, since)
}

fn lone_start_waits() -> Outcome {
    for way in LOOKING {
        let mut world = World::new(plan(way));
        world.link(First, Second, false);
        world.at(MS, Fault::PowerOff(First, false));
        let after = world.run_until_answered(Second, 2 * BOOT_WAIT)?;
        expect(after >= BOOT_WAIT, || format!("{way:?}: it waits for its peer, but took {after} ns"))?;
        // Its worker dies: hawser runs on this machine for long enough.
        world.now(Fault::KillWorker(Second));
        let dark = world.run_until_answered(Second, 2 * BOOT_WAIT)?;
        expect(dark < LOST + 500 * MS, || format!("{way:?}: a new worker does not wait again, {dark} ns"))?;
    }
    Ok(())
}

/// Both start, and hear nothing of each other but the questions for the addresses.
fn both_look_at_once() -> Outcome {
    for way in LOOKING {
        let mut world = World::new(plan(way));
        cut(&mut world, false);
        world.run_until_answered(First, BOOT_WAIT + 2_000 * MS)?;
        world.run(5_000 * MS);
        world.verdict()?;
        expect(world.answering(web()) == [First], || "one of them has it".to_owned())?;
    }
    Ok(())
}

/// Frozen for longer than anybody may be silent, it must not take its own sleep for the peer's.
fn frozen_node_counts_anew() -> Outcome {
    for way in [Way::None, FENCE] {
        let mut world = settled(way)?;
        // Not even the questions for the addresses get through: nothing but counting holds it back.
        world.now(Fault::Freeze(Second, Part::Both));
        world.run(3_000 * MS);
        world.now(Fault::Segment(true));
        world.now(Fault::Thaw(Second, Part::Both));
        world.run(1_000 * MS);
        expect(!world.owns(Second, web()), || format!("{way:?}: it hears its peer again"))?;
        expect(world.shots.iter().all(|(_, by)| *by == First), || "it shoots nobody".to_owned())?;
    }
    Ok(())
}

fn moves_work() -> Outcome {
    for way in [Way::None, Way::Gateway { need: 1 }, FENCE] {
        let mut world = settled(way)?;
        world.now(Fault::Switchover(First, false));
        let moved = world.run_until_answered(Second, 200 * MS)?;
        expect(moved < 60 * MS, || format!("{way:?}: a planned move takes milliseconds, not {moved} ns"))?;
        world.now(Fault::Fitness(Second, Fitness::Unfit));
        world.run_until_answered(First, 200 * MS)?;
        world.now(Fault::Fitness(Second, Fitness::Fit));
        world.run(200 * MS);
        let since = world.now;
        world.now(Fault::Stop(First));
        let moved = world.run_until_answered(Second, 200 * MS)?;
        expect(moved < 60 * MS, || format!("{way:?}: a stop hands over, {moved} ns"))?;
        // Who was stopped is not taken for dead: it is not shot, and what it has handed over stays.
        world.run(10_000 * MS);
        kept(&world, Second, since)?;
        expect(world.shots.is_empty(), || format!("{way:?}: nobody is shot: {:?}", world.shots))?;
        let ended = world.events_of(First, since).filter(|e| matches!(e, Event::Lost { .. })).count();
        expect(ended == 1, || "it lost what it had, once".to_owned())?;
    }
    Ok(())
}

fn stopped_without_heir() -> Outcome {
    // The peer ends in order while nobody could take the group; later one can, and need not shoot for it.
    let mut world = settled(FENCE)?;
    world.now(Fault::Fitness(Second, Fitness::Unable));
    world.run(100 * MS);
    world.now(Fault::Stop(First));
    world.run(3_000 * MS);
    expect(world.answering(web()).is_empty(), || "nobody serves".to_owned())?;
    world.now(Fault::Fitness(Second, Fitness::Fit));
    world.run_until_answered(Second, LOST + 500 * MS)?;
    expect(world.shots.is_empty(), || "nobody is shot".to_owned())
}

fn lost_memory_comes_back() -> Outcome {
    for way in [Way::None, FENCE] {
        let mut world = settled(way)?;
        world.now(Fault::PowerOff(Second, true));
        world.run(400 * MS);
        world.now(Fault::PowerOn(Second));
        world.run(World::longest_silence() + 1_000 * MS);
        let since = world.now;
        world.now(Fault::Switchover(First, false));
        world.run_until_answered(Second, 200 * MS)?;
        world.run(1_000 * MS);
        kept(&world, Second, since)?;
    }
    let mut world = World::new(Plan { formed: false, ..plan(Way::None) });
    world.run_until_answered(First, 2_000 * MS).map(|_| ())
}

fn fenced_before_taken_over() -> Outcome {
    let mut world = settled(FENCE)?;
    let since = world.now;
    world.now(Fault::Freeze(First, Part::Both));
    let dark = world.run_until_answered(Second, 12_000 * MS)?;
    expect(dark > LOST + 4_900 * MS, || format!("after the head start, not {dark} ns"))?;
    expect(world.shots.len() == 1 && !world.machines[0].powered, || "the old owner is off".to_owned())?;
    expect(world.stand(Second) == Some(Stand::Off(OffBy::Shot)), || "and known to be".to_owned())?;
    // It comes back, and is heard.
    world.now(Fault::PowerOn(First));
    world.run(3_000 * MS);
    expect(world.stand(Second) == Some(Stand::PeerHeard), || "it is heard again".to_owned())?;
    kept(&world, Second, since)?;
    expect(world.shots.len() == 1, || "and not shot again".to_owned())
}

fn owner_shoots_first() -> Outcome {
    let mut world = settled(FENCE)?;
    let since = world.now;
    cut(&mut world, true);
    world.run(10_000 * MS);
    kept(&world, First, since)?;
    let shots: Vec<Member> = world.shots.iter().map(|(_, by)| *by).collect();
    expect(shots == [First], || format!("the owner shoots, once: {shots:?}"))?;
    expect(world.answering(web()) == [First] && !world.machines[1].powered, || "exactly one survives".to_owned())
}

fn standby_is_not_shot() -> Outcome {
    let mut world = settled(FENCE)?;
    world.now(Fault::Standby(Second, true));
    world.run(200 * MS);
    let since = world.now;
    cut(&mut world, true);
    world.run(20_000 * MS);
    kept(&world, First, since)?;
    expect(world.shots.is_empty(), || "a node in standby shoots nobody, and nobody need forestall it".to_owned())
}

fn failed_fencing_is_no_takeover() -> Outcome {
    let mut world = settled(FENCE)?;
    world.now(Fault::Device(Device::Fails));
    world.now(Fault::PowerOff(First, false));
    world.run(30_000 * MS);
    expect(world.answering(web()).is_empty(), || "nobody takes over".to_owned())?;
    let stand = world.stand(Second);
    expect(matches!(stand, Some(Stand::Missed(..))), || format!("it says so: {stand:?}"))?;
    world.now(Fault::Confirm(Second));
    world.run_until_answered(Second, 500 * MS).map(|_| ())
}

fn device_mended() -> Outcome {
    let mut world = settled(FENCE)?;
    world.now(Fault::Device(Device::Fails));
    world.now(Fault::PowerOff(First, false));
    world.run(10_000 * MS);
    world.now(Fault::Device(Device::Honest));
    world.run_until_answered(Second, 62_000 * MS).map(|_| ())
}

fn never_heard_never_shoots() -> Outcome {
    // The peer serves, but is not heard: the device says that it is on.
    let mut world = settled(FENCE)?;
    world.now(Fault::Fitness(First, Fitness::Unfit));
    world.now(Fault::PowerOff(Second, false));
    world.run(100 * MS);
    cut(&mut world, true);
    world.now(Fault::PowerOn(Second));
    world.run(30_000 * MS);
    world.verdict()?;
    let by_second = world.shots.iter().filter(|(_, by)| *by == Second).count();
    expect(by_second == 0, || "it shoots nobody".to_owned())?;
    expect(world.answering(web()) == [First], || "the owner serves".to_owned())?;
    expect(matches!(world.stand(Second), Some(Stand::Operator(_))), || "it waits for an operator".to_owned())?;
    // The owner dies: the device says so.
    world.now(Fault::PowerOff(First, false));
    world.run_until_answered(Second, 65_000 * MS)?;
    expect(world.stand(Second) == Some(Stand::Off(OffBy::Device)), || "it asked the device".to_owned())
}

fn operator_is_not_believed_against_the_ear() -> Outcome {
    let mut world = settled(FENCE)?;
    let since = world.now;
    world.now(Fault::Confirm(Second));
    world.run(1_000 * MS);
    kept(&world, First, since)?;
    expect(world.stand(Second) == Some(Stand::PeerHeard), || "it is heard".to_owned())
}

macro_rules! scenarios {
    ($($name:ident = $run:ident;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(with_each_seed($run), Ok(()));
        })*
    };
}

scenarios! {
    a_dead_owner_is_replaced_after_three_leases_when_nobody_answers = dead_owner_is_replaced;
    a_killed_worker_costs_its_silence_and_nobody_is_shot_for_it = killed_worker_costs_its_silence;
    who_answers_for_the_addresses_keeps_them_though_no_link_works = links_cut_segment_whole;
    two_owners_are_one_again_an_interval_and_a_round_trip_after_the_heal = everything_cut_then_healed;
    without_a_gateway_nothing_is_taken_over = half_without_gateway_takes_nothing;
    a_node_that_starts_alone_waits_for_its_peer_once = lone_start_waits;
    two_that_look_at_once_do_not_both_take_it = both_look_at_once;
    a_node_that_was_frozen_counts_the_silence_of_its_peer_anew = frozen_node_counts_anew;
    planned_moves_and_stops_need_no_third_machine = moves_work;
    who_ended_in_order_need_not_be_shot = stopped_without_heir;
    a_node_without_its_memory_has_it_back_from_its_peer_alone = lost_memory_comes_back;
    a_hung_owner_is_off_before_its_groups_are_taken = fenced_before_taken_over;
    an_owner_cut_from_its_peer_shoots_first_and_serves_on = owner_shoots_first;
    a_node_in_standby_is_not_shot_by_the_owner = standby_is_not_shot;
    a_fence_device_that_fails_means_no_takeover_until_an_operator_says_so = failed_fencing_is_no_takeover;
    fencing_is_tried_again_until_the_device_is_mended = device_mended;
    a_node_that_never_heard_its_peer_shoots_nobody = never_heard_never_shoots;
    nobody_is_off_who_is_heard = operator_is_not_believed_against_the_ear;
}

/// A world with the faults of this seed planned into it.
fn troubled(seed: u64, way: Way) -> World {
    let mut chance = Chance(seed ^ 0x7469_6562);
    let mut plan = Plan { seed, ..plan(way) };
    if chance.per_mille(500) {
        plan.ppm = [0; 3].map(|_| i64::try_from(chance.below(80_001)).unwrap() - 40_000);
    }
    if chance.per_mille(300) {
        plan.groups.push((Name::new("state").unwrap(), Second));
    }
    let mut world = World::new(plan);
    for _ in 0..chance.between(2, 8) {
        let at = chance.between(200, 7_000) * MS;
        let lasts = chance.pick(&[50, 300, 700, 2_000, 4_000]) * MS;
        trouble(&mut world, &mut chance, at, lasts);
    }
    world.at(TROUBLE, Fault::Network(Network::LAN));
    // Twice: somebody may be shot by an agent that is at work when the trouble ends.
    for end in [TROUBLE, TROUBLE + 4_000 * MS] {
        for (node, other) in [(First, Second), (Second, First)] {
            world.at(end, Fault::Heal(node, other));
            world.at(end, Fault::Slow(node, other, 0));
            world.at(end, Fault::DiskTakes(node, 0));
            world.at(end, Fault::Thaw(node, Part::Both));
            world.at(end, Fault::Fitness(node, Fitness::Fit));
            world.at(end, Fault::Carrier(node, true));
            world.at(end, Fault::Standby(node, false));
            world.at(end + MS, Fault::PowerOn(node));
        }
    }
    world
}

fn trouble(world: &mut World, chance: &mut Chance, at: u64, lasts: u64) {
    let node = chance.pick(&NODES);
    let other = node.peer().unwrap();
    match chance.below(17) {
        0 => world.at(at, Fault::KillWorker(node)),
        1 => world.at(at, Fault::KillBoth(node)),
        2 => world.at(at, Fault::KillSupervisor(node)),
        3 | 4 => {
            world.at(at, Fault::PowerOff(node, false));
            world.at(at + lasts, Fault::PowerOn(node));
        }
        5 | 6 => {
            let part = chance.pick(&[Part::Worker, Part::Supervisor, Part::Both]);
            world.at(at, Fault::Freeze(node, part));
            world.at(at + lasts, Fault::Thaw(node, part));
        }
        7 => {
            world.at(at, Fault::Cut(node, other));
            world.at(at + lasts, Fault::Heal(node, other));
        }
        8..=10 => {
            for (a, b) in [(node, other), (other, node)] {
                world.at(at, Fault::Cut(a, b));
                world.at(at + lasts, Fault::Heal(a, b));
            }
        }
        11 => {
            let loss = chance.pick(&[50, 200, 400]);
            world.at(at, Fault::Network(Network { loss, twice: 50, delay: (80_000, 20 * MS), late: (50, 300 * MS) }));
            world.at(at + lasts, Fault::Network(Network::LAN));
        }
        12 => {
            world.at(at, Fault::Fitness(node, Fitness::Unfit));
            world.at(at + lasts, Fault::Fitness(node, Fitness::Fit));
        }
        13 => {
            world.at(at, Fault::Carrier(node, false));
            world.at(at + lasts, Fault::Carrier(node, true));
        }
        14 => {
            world.at(at, Fault::Standby(node, true));
            world.at(at + lasts, Fault::Standby(node, false));
        }
        15 => world.at(at, Fault::Switchover(node, chance.per_mille(200))),
        _ => {
            world.at(at, Fault::Stop(node));
            world.at(at + lasts, Fault::PowerOn(node));
        }
    }
}

fn run(seed: u64, way: Way, trace: bool) -> (World, Outcome) {
    let mut world = troubled(seed, way);
    world.trace = trace.then(Vec::new);
    if let Way::Fence { .. } = way {
        // The network of the addresses says nothing there: it may be cut as well.
        world.at(1_000 * MS, Fault::Segment(seed.is_multiple_of(2)));
    }
    world.run(TROUBLE + 4_100 * MS);
    if world.broken.is_none() && world.run_until_served(25_000 * MS).is_none() && world.broken.is_none() {
        world.broken = Some("with all faults over, nobody serves".to_owned());
    }
    let outcome = world.verdict();
    (world, outcome)
}

fn all_seeds(way: Way) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("HAWSER_SEED") {
        let (world, outcome) = run(seed, way, true);
        world.trace.unwrap_or_default().iter().for_each(|line| println!("{line}"));
        assert_eq!(outcome, Ok(()), "seed {seed}");
        return;
    }
    let (first, count) = (number("HAWSER_SEEDS_FROM").unwrap_or(0), number("HAWSER_SEEDS").unwrap_or(64));
    let mut failed = Vec::new();
    let (mut moves, mut shots) = (0, 0);
    for seed in first..first + count {
        let (world, outcome) = run(seed, way, false);
        moves += world.events.len();
        shots += world.shots.len();
        failed.extend(outcome.err().map(|why| (seed, why)));
    }
    println!("{count} seeds, {moves} events, {shots} shots");
    assert!(moves as u64 > count * 5, "the faults do nothing: {moves} events");
    assert!(shots > 0 || !matches!(way, Way::Fence { .. }), "nobody is ever shot");
    assert!(failed.is_empty(), "{} seeds failed: {:?}", failed.len(), &failed[..failed.len().min(10)]);
}

#[test]
fn with_an_honest_fence_device_at_most_one_node_answers_whatever_happens() {
    all_seeds(FENCE);
}

#[test]
fn while_the_network_of_the_addresses_is_whole_at_most_one_node_answers_for_them() {
    all_seeds(Way::None);
}

#[test]
fn the_same_holds_with_a_gateway_that_must_answer() {
    all_seeds(Way::Gateway { need: 1 });
}
