//! More traces that give two owners when one rule is left out. They have no number in the list of scenarios; each was
//! written because no seed, or hardly one, finds its moment.

use crate::scenarios::{Outcome, calm, expect, first_without, heal, isolate, kept, millis, settled};
use crate::world::{Fate, Fault, MS, Part, Plan, World, web, with_each_seed};
use hawser::cluster::{Member, Member::*, Message, Timing};

/// Drops the heartbeats of the first node to the second, which therefore is free to ask.
fn second_hears_no_heartbeat(from: Member, to: Member, message: Option<&Message>) -> bool {
    matches!((from, to, message), (First, Second, Some(Message::Heartbeat(_))))
}

/// An owner's own voter is bound too: it does not vote for the peer that asks it.
pub(crate) fn owner_is_asked() -> Outcome {
    let mut world = first_without(Second)?;
    world.sieve = Some(Box::new(
        |_, from, to, message| {
            if second_hears_no_heartbeat(from, to, message) { Fate::Drop } else { Fate::Pass }
        },
    ));
    heal(&mut world);
    let since = world.now;
    world.run(1_000 * MS);
    kept(&world, First, since)
}

/// Acknowledgements that take long: the lease counts from when the heartbeat was sent.
pub(crate) fn slow_acknowledgements() -> Outcome {
    let mut world = first_without(Second)?;
    world.now(Fault::Slow(Witness, First, 300 * MS));
    world.run(500 * MS);
    world.now(Fault::Cut(First, Witness));
    world.run_until_answered(Second, 700 * MS)?;
    world.run(600 * MS);
    world.verdict()
}

/// A grant that takes long: the lease counts from when that very request was sent.
pub(crate) fn slow_grant() -> Outcome {
    let mut world = World::new(Plan::calm());
    world.now(Fault::Standby(Second, true));
    world.link(First, Second, false);
    let mut asked = false;
    world.sieve = Some(Box::new(move |_, from, to, message| match (from, to, message) {
        (First, Witness, Some(Message::Vote(_))) if !asked => {
            asked = true;
            Fate::Pass
        }
        (First, Witness, _) if asked => Fate::Drop,
        (Witness, First, Some(Message::VoteAnswer(_))) => Fate::Late(85 * MS),
        _ => Fate::Pass,
    }));
    world.run_until_answered(First, 300 * MS)?;
    world.run(5 * MS);
    world.now(Fault::Freeze(First, Part::Both));
    world.now(Fault::Standby(Second, false));
    world.run_until_answered(Second, 700 * MS)?;
    world.run(600 * MS);
    world.verdict()
}

/// The keeper hangs in the kernel while the lease ends, and the own voter votes for the peer; then comes a late
/// acknowledgement.
pub(crate) fn acknowledged_too_late() -> Outcome {
    let mut world = first_without(Second)?;
    heal(&mut world);
    let start = world.now + 600 * MS;
    world.sieve = Some(Box::new(move |at, from, to, message| match (from, to, message) {
        _ if second_hears_no_heartbeat(from, to, message) => Fate::Drop,
        (Witness, First, Some(Message::Ack(_))) if at > start + 450 * MS => Fate::Late(100 * MS),
        (Witness, First, Some(Message::Ack(_))) if at > start => Fate::Drop,
        (Second, First, Some(Message::Heartbeat(_))) if at > start => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.run(610 * MS);
    world.now(Fault::Freeze(First, Part::Supervisor));
    world.now(Fault::KernelTakes(First, 400 * MS));
    world.run_until_answered(Second, 600 * MS)?;
    world.run(600 * MS);
    world.verdict()
}

/// Acknowledgements for an earlier life of the owner come in its next one, with numbers that it uses again.
pub(crate) fn acknowledgements_of_an_earlier_life() -> Outcome {
    let mut world = World::new(Plan::calm());
    world.now(Fault::Standby(Second, true));
    world.sieve = Some(Box::new(|at, from, to, message| match (from, to, message) {
        (Witness, First, Some(Message::Ack(_))) if at < 1_000 * MS => Fate::Late(1_500 * MS),
        _ => Fate::Pass,
    }));
    world.run(1_000 * MS);
    world.now(Fault::KillBoth(First));
    world.run(400 * MS);
    world.now(Fault::Cut(First, Witness));
    world.run_until_answered(First, 1_000 * MS)?;
    world.run(100 * MS);
    world.link(First, Second, false);
    world.now(Fault::Standby(Second, false));
    world.run_until_answered(Second, 700 * MS)?;
    world.run(600 * MS);
    world.verdict()
}

/// Owner and witness die together: the next term is a new one.
pub(crate) fn all_who_voted_die() -> Outcome {
    let mut world = World::new(Plan::calm());
    world.now(Fault::Cut(First, Second));
    world.now(Fault::Cut(Witness, Second));
    world.run_until_answered(First, 500 * MS)?;
    world.run(200 * MS);
    for who in [First, Witness] {
        world.now(Fault::KillBoth(who));
        world.at(world.now + 300 * MS, Fault::PowerOn(who));
    }
    world.run(400 * MS);
    world.run_until_answered(First, 1_000 * MS)?;
    world.verdict()
}

/// The witness dies between its vote and its disk.
pub(crate) fn witness_dies_before_its_vote_is_on_disk() -> Outcome {
    let mut world = World::new(Plan::calm());
    world.link(First, Second, false);
    world.now(Fault::Standby(Second, true));
    world.now(Fault::DiskTakes(Witness, 300 * MS));
    world.run(30 * MS);
    world.now(Fault::Cut(First, Witness));
    world.now(Fault::KillWorker(Witness));
    world.now(Fault::DiskTakes(Witness, 0));
    world.now(Fault::Standby(Second, false));
    world.run_until_answered(Second, 500 * MS)?;
    world.run(600 * MS);
    world.verdict()
}

/// The peer hears an offer, and then nothing any more.
pub(crate) fn offer_and_then_nothing() -> Outcome {
    let mut world = first_without(Witness)?;
    let mut offered = false;
    world.sieve = Some(Box::new(move |_, from, to, message| match (from, to, message) {
        (First, Second, Some(Message::Offer { .. })) if !offered => {
            offered = true;
            Fate::Pass
        }
        (First, Second, _) | (Second, First, _) if offered => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.now(Fault::Switchover(First, false));
    let dark = world.run_until_answered(Second, 700 * MS)?;
    expect(dark > 400 * MS, || format!("the promise to the owner goes on, yet it took over after {dark} ns"))
}

/// The answer to the peer's request is late; meanwhile its former owner has it again.
pub(crate) fn late_hand_over() -> Outcome {
    let mut world = calm()?;
    let mut handing_over = false;
    world.sieve = Some(Box::new(move |_, from, to, message| match (from, to, message) {
        (First, Second, Some(Message::VoteAnswer(_))) => {
            handing_over = true;
            Fate::Late(700 * MS)
        }
        (First, Second, Some(Message::Heartbeat(_) | Message::Vote(_))) if handing_over => Fate::Drop,
        (Second, _, Some(Message::PreVote(_))) => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.now(Fault::Switchover(First, false));
    world.run(40 * MS);
    expect(!world.owns(First, web()), || "it was handed over".to_owned())?;
    world.run_until_answered(First, 700 * MS)?;
    let since = world.now;
    world.run(500 * MS);
    kept(&world, First, since)
}

/// The kernel takes its time to shut the gate: the peer is told when it is shut, not before.
pub(crate) fn slow_kernel_hands_over() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::KernelTakes(First, 60 * MS));
    world.now(Fault::Switchover(First, false));
    world.run_until_answered(Second, 500 * MS)?;
    world.run(500 * MS);
    world.verdict()
}

/// The worker hangs in the kernel and cannot be killed, and its addresses go slowly: nobody says that it is dead.
pub(crate) fn worker_that_does_not_die() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::Freeze(First, Part::Worker));
    world.now(Fault::Unkillable(First, true));
    world.now(Fault::KernelTakes(First, 100 * MS));
    world.now(Fault::Hangup(First));
    let dark = world.run_until_answered(Second, 700 * MS)?;
    expect(dark > 400 * MS, || format!("no notice while it may live, yet it took over after {dark} ns"))?;
    world.run(500 * MS);
    world.verdict()
}

/// Without a gate the addresses outlive the lease, and so do the promises.
pub(crate) fn frozen_without_a_gate() -> Outcome {
    let timing = Timing::without_gate(millis(500), millis(50));
    let mut world = settled(Plan { timing, gated: false, ..Plan::calm() })?;
    world.now(Fault::Freeze(First, Part::Both));
    let dark = world.run_until_answered(Second, 4_000 * MS)?;
    expect(dark > 2_000 * MS, || format!("the promise outlasts the address, yet it took over after {dark} ns"))
}

/// Without a gate, and with clocks that differ: the address may have been renewed at the very end of the lease.
pub(crate) fn last_renewal_without_a_gate() -> Outcome {
    for phase in 0..10 {
        let timing = Timing::without_gate(millis(1_000), millis(100));
        let ppm = [-40_000, 40_000, 40_000];
        let mut world = settled(Plan { timing, gated: false, ppm, ..Plan::calm() })?;
        world.run(phase * 100 * MS);
        isolate(&mut world, First);
        world.run(2 * MS);
        let left = world.lease_left(First, web()).ok_or("it owns the group")?;
        world.run(u64::try_from((left - millis(36)).as_nanos()).unwrap() * 100 / 96);
        expect(world.owns(First, web()), || "its lease runs on its slow clock".to_owned())?;
        world.now(Fault::Freeze(First, Part::Both));
        world.run_until_answered(Second, 5_000 * MS)?;
        world.run(500 * MS);
        world.verdict()?;
    }
    Ok(())
}

/// Without a gate, an address that the kernel is slow to delete is there when the lease is over: until it is gone, the
/// node's own voter does not vote for the peer either.
pub(crate) fn slow_kernel_without_a_gate() -> Outcome {
    let timing = Timing::without_gate(millis(500), millis(50));
    let mut world = settled(Plan { timing, gated: false, ..Plan::calm() })?;
    world.link(First, Second, false);
    world.run(4_000 * MS);
    heal(&mut world);
    world.sieve = Some(Box::new(
        |_, from, to, message| {
            if second_hears_no_heartbeat(from, to, message) { Fate::Drop } else { Fate::Pass }
        },
    ));
    world.now(Fault::KernelTakes(First, 300 * MS));
    world.now(Fault::Freeze(First, Part::Supervisor));
    world.now(Fault::Cut(First, Witness));
    world.run_to(700 * MS, |w| !w.owns(First, web()))?;
    world.now(Fault::Standby(First, true)); // else it takes the group again
    world.run_until_answered(Second, 5_000 * MS)?;
    world.run(500 * MS);
    world.verdict()
}

/// A heartbeat waits while the voter is frozen: the promise counts from when it was read, not from before.
pub(crate) fn heartbeat_waits_for_a_frozen_voter() -> Outcome {
    let mut world = calm()?;
    let start = world.now + 10 * MS;
    let (cut, thaw) = (start + 100 * MS, start + 500 * MS);
    // Nothing but the last heartbeat before the thaw is there to be read.
    world.sieve = Some(Box::new(move |at, from, to, message| match (from, to, message) {
        (First, Second, Some(Message::Heartbeat(_))) if (thaw - 51 * MS..thaw).contains(&at) => Fate::Pass,
        (_, Second, _) if at < thaw => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.run(10 * MS);
    world.now(Fault::Freeze(Second, Part::Both));
    world.run(cut - start);
    world.now(Fault::Cut(First, Witness));
    world.run(thaw - cut);
    world.now(Fault::Thaw(Second, Part::Both));
    world.run(5 * MS);
    expect(world.owns(First, web()), || "the acknowledgement has saved the lease".to_owned())?;
    isolate(&mut world, First);
    let dark = world.run_until_answered(Second, 700 * MS)?;
    expect(dark > 450 * MS, || format!("the promise was whole, yet it took over after {dark} ns"))?;
    world.verdict()
}

macro_rules! traces {
    ($($name:ident = $run:ident;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(with_each_seed($run), Ok(()));
        })*
    };
}

traces! {
    an_owners_own_voter_is_bound_too = owner_is_asked;
    a_lease_counts_from_when_the_heartbeat_was_sent = slow_acknowledgements;
    a_lease_counts_from_when_the_granted_request_was_sent = slow_grant;
    a_lease_that_has_ended_is_never_revived = acknowledged_too_late;
    acknowledgements_of_an_earlier_life_do_not_count = acknowledgements_of_an_earlier_life;
    no_term_is_used_twice_by_those_who_have_died = all_who_voted_die;
    no_vote_is_answered_before_it_is_on_disk = witness_dies_before_its_vote_is_on_disk;
    an_offer_breaks_no_promise = offer_and_then_nothing;
    a_grant_is_the_answer_to_a_request_and_counts_from_it = late_hand_over;
    the_peer_is_told_when_the_gate_is_shut_and_not_before = slow_kernel_hands_over;
    no_notice_while_the_worker_may_live = worker_that_does_not_die;
    without_a_gate_promises_outlast_the_addresses = frozen_without_a_gate;
    without_a_gate_the_last_renewal_of_an_address_is_covered = last_renewal_without_a_gate;
    without_a_gate_the_own_voter_waits_for_the_address_to_be_gone = slow_kernel_without_a_gate;
    a_promise_counts_from_when_the_heartbeat_was_read = heartbeat_waits_for_a_frozen_voter;
}
