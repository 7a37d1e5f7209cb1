//! The voters change: another witness, one node that becomes two and one again, and what dies or is cut off meanwhile.

use crate::scenarios::{Outcome, expect, isolate, kept, millis, settled};
use crate::world::{Fate, Fault, MS, NODES, Plan, Want, World, web, with_each_seed};
use hawser::cluster::{Event, Member, Member::*, Members, Message, Obstacle, Timing};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn want(world: &mut World, want: Want) {
    for node in NODES {
        world.now(Fault::Want(node, want));
    }
}

/// A settled world with a second witness that runs, as one that was told in an earlier time that it remembers.
fn two_witnesses(plan: Plan) -> Result<World, String> {
    let mut world = settled(plan)?;
    world.other_has_memory();
    world.other_now(Fault::PowerOn(Witness));
    world.run(50 * MS);
    Ok(world)
}

/// Both nodes have another configuration; the first one, which chooses, runs it and owns the group; the second one begins
/// to run it now.
fn begun(mut world: World, wanted: Want) -> Result<World, String> {
    want(&mut world, wanted);
    world.now(Fault::KillWorker(First));
    world.run_until_answered(Second, 1_500 * MS)?;
    world.run(2_500 * MS);
    world.now(Fault::Switchover(Second, true));
    world.run_until_answered(First, 1_000 * MS)?;
    world.run(200 * MS);
    world.now(Fault::KillWorker(Second));
    Ok(world)
}

fn change(wanted: Want) -> Result<World, String> {
    begun(two_witnesses(Plan::calm())?, wanted)
}

fn arrive(world: &mut World, wanted: Want, limit: u64) -> Outcome {
    world.run_to(limit, |w| w.arrived(wanted)).map(|_| ()).map_err(|why| format!("{wanted:?}: {why}"))
}

fn serve(world: &mut World, limit: u64) -> Result<Member, String> {
    let served = world.run_until_served(limit);
    world.verdict()?;
    served.ok_or_else(|| "nobody serves".to_owned())
}

/// The owner keeps what it has through both steps, and the new witness does what the old one did.
pub(crate) fn witness_changes() -> Outcome {
    let mut world = change(Want::Other)?;
    let since = world.now;
    arrive(&mut world, Want::Other, 3_000 * MS)?;
    world.run(500 * MS);
    kept(&world, First, since)?;
    world.now(Fault::PowerOff(Witness, false));
    world.run(1_000 * MS);
    kept(&world, First, since)?;
    world.now(Fault::PowerOff(First, false));
    let dark = world.run_until_answered(Second, 1_000 * MS)?;
    expect(dark < 620 * MS, || format!("the second witness votes; dark for {dark} ns"))?;
    // And back again.
    world.now(Fault::PowerOn(First));
    world.now(Fault::PowerOn(Witness));
    world.run(1_000 * MS);
    want(&mut world, Want::Usual);
    world.now(Fault::KillWorker(First));
    world.run(1_000 * MS);
    world.now(Fault::KillWorker(Second));
    arrive(&mut world, Want::Usual, 5_000 * MS)?;
    world.other_now(Fault::PowerOff(Witness, false));
    serve(&mut world, 1_000 * MS)?;
    world.run(500 * MS);
    let owner = serve(&mut world, 1)?;
    world.now(Fault::PowerOff(owner, false));
    world.run_until_answered(owner.peer().unwrap(), 1_000 * MS)?;
    world.verdict()
}

/// A new witness that never promised anything acknowledges as soon as it is told of the set, and votes after its silence.
pub(crate) fn blank_witness() -> Outcome {
    let mut world = settled(Plan::calm())?;
    world.other_now(Fault::PowerOn(Witness));
    let mut world = begun(world, Want::Other)?;
    let since = world.now;
    arrive(&mut world, Want::Other, 3_000 * MS)?;
    world.run(300 * MS);
    world.link(First, Second, false);
    world.run(2_000 * MS);
    kept(&world, First, since)?;
    world.link(First, Second, true);
    world.run(10_000 * MS);
    world.now(Fault::PowerOff(First, false));
    world.run_until_answered(Second, 700 * MS)?;
    world.verdict()
}

/// The owner is cut from its peer when that one stands in the next set already.
pub(crate) fn cut_in_between() -> Outcome {
    for step in 1..=2 {
        let mut world = change(Want::Other)?;
        world.sieve = Some(Box::new(move |_, from, to, message| match (from, to, message) {
            (Second, First, Some(Message::Voters(stance))) if stance.in_force.generation >= step => Fate::Drop,
            _ => Fate::Pass,
        }));
        world.run_to(3_000 * MS, |w| w.generation(Second) >= step)?;
        let since = world.now;
        world.link(First, Second, false);
        world.run(2_000 * MS);
        if step == 1 {
            kept(&world, First, since)?;
        } else {
            world.verdict()?;
            let lost = world.events_of(First, since).any(|e| matches!(e, Event::Lost { .. }));
            expect(lost, || "in the pair an owner needs its peer".to_owned())?;
            expect(world.answering(web()).is_empty(), || "nor has the other one anybody".to_owned())?;
        }
        world.sieve = None;
        world.link(First, Second, true);
        arrive(&mut world, Want::Other, 5_000 * MS)?;
        serve(&mut world, 2_000 * MS)?;
    }
    Ok(())
}

/// The owner's last lease rests on the old witness alone when the change comes: the pair is not left before it is over.
pub(crate) fn lease_on_the_old_witness() -> Outcome {
    let timing = Timing::new(millis(1_000), millis(100));
    let mut world = two_witnesses(Plan { timing, ..Plan::calm() })?;
    world.other_now(Fault::PowerOff(Witness, false));
    let mut world = begun(world, Want::Other)?;
    world.run(3_000 * MS);
    expect(world.owns(First, web()), || "the change waits for the witness".to_owned())?;
    let passed = Arc::new(AtomicU64::new(0));
    let last = Arc::clone(&passed);
    world.sieve = Some(Box::new(move |at, from, to, message| match (from, to, message) {
        _ if last.load(Ordering::Relaxed) > 0 && at > last.load(Ordering::Relaxed) + 1_400 * MS => Fate::Pass,
        (First, Second, Some(Message::Heartbeat(_))) if last.load(Ordering::Relaxed) > 0 => Fate::Drop,
        (First, Second, Some(Message::Heartbeat(_))) => {
            last.store(at, Ordering::Relaxed);
            Fate::Pass
        }
        // Its acknowledgement is what the owner still hears of its peer.
        (Second, First, Some(Message::Ack(_))) => Fate::Late(280 * MS),
        _ => Fate::Pass,
    }));
    world.run_to(500 * MS, |_| passed.load(Ordering::Relaxed) > 0)?;
    world.run(180 * MS);
    world.other_now(Fault::PowerOn(Witness));
    arrive(&mut world, Want::Other, 8_000 * MS)?;
    // It tells the new witness where it stands, and no more.
    world.sieve = Some(Box::new(|_, from, _, message| match (from, message) {
        (First, Some(Message::Heartbeat(_))) => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.run(150 * MS);
    isolate(&mut world, First);
    world.other_link(First, false);
    world.run(3_000 * MS);
    world.verdict()
}

/// Terms that one node had with the old witness are known to all before the new one votes.
pub(crate) fn terms_are_told() -> Outcome {
    let mut world = two_witnesses(Plan::calm())?;
    isolate(&mut world, First);
    world.run_until_answered(Second, 1_000 * MS)?;
    for _ in 0..2 {
        world.now(Fault::KillWorker(Second));
        world.run(100 * MS);
        world.run_until_answered(Second, 1_500 * MS)?;
    }
    world.now(Fault::Standby(Second, true));
    world.run(100 * MS);
    want(&mut world, Want::Other);
    for node in NODES {
        world.now(Fault::KillWorker(node));
    }
    for other in First.others() {
        world.link(First, other, true);
    }
    arrive(&mut world, Want::Other, 5_000 * MS)?;
    world.run(1_500 * MS);
    world.verdict()
}

/// Who is not the coordinator changes nothing by itself.
pub(crate) fn peer_with_another_wish() -> Outcome {
    let mut world = two_witnesses(Plan::calm())?;
    world.link(First, Second, false);
    world.now(Fault::Want(Second, Want::Alone(Second)));
    world.now(Fault::KillWorker(Second));
    let since = world.now;
    world.run(3_000 * MS);
    kept(&world, First, since)?;
    world.link(First, Second, true);
    world.run(1_000 * MS);
    kept(&world, First, since)?;
    expect(world.generation(Second) == 0, || "the configurations differ".to_owned())
}

/// Nobody leaves a good witness for one that does not answer both nodes.
pub(crate) fn deaf_witness() -> Outcome {
    let mut world = two_witnesses(Plan::calm())?;
    world.other_link(Second, false);
    let mut world = begun(world, Want::Other)?;
    let since = world.now;
    world.run(3_000 * MS);
    kept(&world, First, since)?;
    let obstacle = |world: &World| world.engine(First).and_then(|engine| engine.view().obstacle);
    let found = obstacle(&world);
    expect(found == Some(Obstacle::ThirdThere) && world.generation(First) == 0, || format!("it waits: {found:?}"))?;
    world.other_link(Second, true);
    arrive(&mut world, Want::Other, 3_000 * MS)?;
    kept(&world, First, since)
}

/// Between those two lie all moments of a change.
type Moment = fn(&World) -> bool;
const MOMENTS: [(&str, Moment); 6] = [
    ("the first step is chosen", |w| w.has_chosen(First, 1)),
    ("the peer is in the pair", |w| w.generation(Second) == 1),
    ("both are in the pair", |w| w.generation(First) == 1),
    ("the second step is chosen", |w| w.has_chosen(First, 2)),
    ("the peer is with the new witness", |w| w.generation(Second) == 2),
    ("both are with the new witness", |w| w.generation(First) == 2),
];

/// Whoever dies at whatever moment of a change, it comes to its end, and one node serves.
pub(crate) fn deaths() -> Outcome {
    for (when, moment) in MOMENTS {
        for who in NODES {
            for off in [None, Some(400), Some(2_500)] {
                let mut world = change(Want::Other)?;
                world.run_to(3_000 * MS, moment)?;
                match off {
                    None => world.now(Fault::KillWorker(who)),
                    Some(lasts) => {
                        world.now(Fault::PowerOff(who, false));
                        let back = world.now + lasts * MS;
                        world.at(back, Fault::PowerOn(who));
                    }
                }
                world.run(3_000 * MS);
                arrive(&mut world, Want::Other, 5_000 * MS)
                    .map_err(|why| format!("{who:?} dies when {when}: {why}"))?;
                serve(&mut world, 2_000 * MS)?;
            }
        }
    }
    Ok(())
}

/// The same, and its disk is gone.
pub(crate) fn lost_disks() -> Outcome {
    for (when, moment) in MOMENTS {
        for who in Member::ALL.map(Some).into_iter().chain([None]) {
            let mut world = change(Want::Other)?;
            world.run_to(3_000 * MS, moment)?;
            match who {
                Some(who) => {
                    world.now(Fault::PowerOff(who, true));
                    let back = world.now + 300 * MS;
                    world.at(back, Fault::PowerOn(who));
                }
                None => {
                    world.other_now(Fault::PowerOff(Witness, true));
                    let back = world.now + 300 * MS;
                    world.at_other(back, Fault::PowerOn(Witness));
                }
            }
            world.run(13_000 * MS);
            let told = |why| format!("{who:?} loses its disk when {when}: {why}");
            arrive(&mut world, Want::Other, 15_000 * MS).map_err(told)?;
            serve(&mut world, 2_000 * MS).map_err(told)?;
            world.run(12_000 * MS);
            let owner = serve(&mut world, 1_000 * MS).map_err(told)?;
            world.now(Fault::PowerOff(owner, false));
            world.run_until_answered(owner.peer().unwrap(), 2_000 * MS).map_err(told)?;
        }
    }
    Ok(())
}

/// A node that is alone, then one of two with a witness, and alone again.
pub(crate) fn grows_and_shrinks() -> Outcome {
    let mut world = World::new(Plan { formed: false, ..Plan::calm() });
    world.now(Fault::Want(First, Want::Alone(First)));
    world.run(2 * MS);
    for other in First.others() {
        world.now(Fault::PowerOff(other, true));
    }
    let dark = world.run_until_answered(First, 12_000 * MS)?;
    expect(dark > 10_000 * MS, || "nobody could tell it that nothing was promised".to_owned())?;
    let since = world.now;
    world.run(2_000 * MS);
    kept(&world, First, since)?;
    // Another node and a witness, both new.
    want(&mut world, Want::Usual);
    for other in First.others() {
        world.now(Fault::PowerOn(other));
    }
    world.run(11_500 * MS);
    kept(&world, First, since)?;
    world.now(Fault::KillWorker(First));
    arrive(&mut world, Want::Usual, 4_000 * MS)?;
    world.run_until_answered(First, 1_000 * MS)?;
    let terms = world.engine(First).and_then(|engine| engine.owned(web())).map(|(term, _)| term.0);
    expect(terms.is_some_and(|term| term < 100), || format!("no terms are left out: {terms:?}"))?;
    world.run(500 * MS);
    world.now(Fault::PowerOff(First, false));
    world.run_until_answered(Second, 1_000 * MS)?;
    world.now(Fault::PowerOn(First));
    world.run(2_000 * MS);
    // And back. The node that is to leave hands over first.
    want(&mut world, Want::Alone(First));
    world.now(Fault::KillWorker(First));
    world.run(1_000 * MS);
    world.now(Fault::KillWorker(Second));
    arrive(&mut world, Want::Alone(First), 6_000 * MS)?;
    world.run_until_answered(First, 1_000 * MS)?;
    let since = world.now;
    for other in First.others() {
        world.now(Fault::PowerOff(other, false));
    }
    world.run(2_000 * MS);
    kept(&world, First, since)?;
    world.now(Fault::PowerOn(Second));
    world.run(2_000 * MS);
    kept(&world, First, since)?;
    expect(world.members(Second) == Some(&Members::Solo(First)), || "it knows that it has left".to_owned())
}

macro_rules! changes {
    ($($name:ident = $run:ident;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(with_each_seed($run), Ok(()));
        })*
    };
}

changes! {
    an_owner_keeps_what_it_has_while_the_witness_changes = witness_changes;
    a_blank_witness_acknowledges_at_once_and_votes_after_its_silence = blank_witness;
    witness_changed_owner_cut_in_between = cut_in_between;
    a_lease_on_the_old_witness_is_waited_for = lease_on_the_old_witness;
    terms_are_told_to_the_new_witness = terms_are_told;
    who_does_not_choose_changes_nothing_by_itself = peer_with_another_wish;
    a_new_witness_that_does_not_answer_is_not_changed_to = deaf_witness;
    coordinator_dies_at_each_step_of_a_change = deaths;
    a_disk_is_lost_at_each_step_of_a_change = lost_disks;
    one_node_grows_to_two_and_back = grows_and_shrinks;
}
