//! Named scenarios: each a trace that once gave two owners, or nobody, in an earlier wording of the rules.
//!
//! Each arranges, does one thing, and says what must follow. They give results instead of panicking, so that
//! `planted` can run the same ones with a fault in the engine and see whether a promise is broken.

use crate::world::{Fate, Fault, MS, Part, Plan, World, web, with_each_seed};
use hawser::cluster::{Cause, Command, Event, Fitness, GroupName, Member, Member::*, Message, Name, Term, Timing};
use hawser::limits::HOLD_MAX;
use hawser::time::Duration;

/// What came of a scenario.
pub(crate) type Outcome = Result<(), String>;

/// Says what did not follow, unless it did.
pub(crate) fn expect(is: bool, what: impl FnOnce() -> String) -> Outcome {
    if is { Ok(()) } else { Err(what()) }
}

pub(crate) const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// 1.1 × lease + 50 ms + two round trips, and the flushes of an election: how long a default cluster may be dark.
const TAKEOVER: u64 = 620 * MS;

/// A cluster whose first node serves.
pub(crate) fn settled(plan: Plan) -> Result<World, String> {
    let mut world = World::new(plan);
    world.now(Fault::Standby(Second, true));
    world.run_until_answered(First, 1_500 * MS)?;
    world.now(Fault::Standby(Second, false));
    world.run(200 * MS);
    world.verdict()?;
    Ok(world)
}

pub(crate) fn calm() -> Result<World, String> {
    settled(Plan::calm())
}

/// One whose first node, moreover, was cut from that member for so long that no promise of it runs any more.
pub(crate) fn first_without(member: Member) -> Result<World, String> {
    let mut world = calm()?;
    world.link(First, member, false);
    world.run(700 * MS);
    expect(world.owns(First, web()), || "the owner does without one voter".to_owned())?;
    Ok(world)
}

pub(crate) fn isolate(world: &mut World, node: Member) {
    for other in node.others() {
        world.link(node, other, false);
    }
}

pub(crate) fn heal(world: &mut World) {
    for (a, b) in [(First, Second), (First, Witness), (Second, Witness)] {
        world.link(a, b, true);
    }
}

/// It lost nothing since then.
pub(crate) fn kept(world: &World, node: Member, since: u64) -> Outcome {
    world.verdict()?;
    let lost = world.events_of(node, since).find(|e| matches!(e, Event::Lost { .. }));
    expect(lost.is_none(), || format!("{node:?} keeps what it has, but {lost:?}"))
}

fn lost_by(world: &World, node: Member, since: u64) -> Option<Cause> {
    world.events_of(node, since).find_map(|e| if let Event::Lost { cause, .. } = e { Some(*cause) } else { None })
}

pub(crate) fn restarted_voter() -> Outcome {
    let mut world = first_without(Witness)?;
    isolate(&mut world, First);
    world.now(Fault::KillWorker(Second));
    let dark = world.run_until_answered(Second, 1_000 * MS)?;
    // Restarted after 50 ms, silent for 550.
    expect(dark > 550 * MS, || format!("it is silent after its restart, but took over after {dark} ns"))
}

pub(crate) fn restarting_standby() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::PowerOff(Witness, false));
    world.run(100 * MS);
    let since = world.now;
    world.now(Fault::KillWorker(Second));
    world.run(2_000 * MS);
    kept(&world, First, since)
}

pub(crate) fn hand_over_without_witness() -> Outcome {
    let mut world = first_without(Witness)?;
    world.now(Fault::Switchover(First, false));
    let moved = world.run_until_answered(Second, 200 * MS)?;
    expect(moved < 60 * MS, || format!("a planned move takes milliseconds, not {moved} ns"))?;
    let since = world.now;
    world.run(2_000 * MS);
    kept(&world, Second, since)
}

pub(crate) fn delayed_grant() -> Outcome {
    let mut world = World::new(Plan::calm());
    world.sieve = Some(Box::new(|_, from, to, message| match (from, to, message) {
        (First, Second, Some(Message::Vote(_))) => Fate::Drop,
        (Witness, First, Some(Message::VoteAnswer(_))) => Fate::Late(250 * MS),
        _ => Fate::Pass,
    }));
    world.run_until_answered(Second, 400 * MS)?;
    let since = world.now;
    world.run(1_000 * MS);
    kept(&world, Second, since)?;
    let won = world.events_of(First, 0).any(|e| matches!(e, Event::Acquired { .. }));
    expect(!won, || "a grant of a dead candidacy does not count".to_owned())
}

pub(crate) fn frozen_mid_renewal() -> Outcome {
    for phase in 0..10 {
        let mut world = calm()?;
        world.run(phase * 7 * MS);
        world.run_to(500 * MS, |w| w.renews_gate(First))?;
        world.now(Fault::Freeze(First, Part::Both));
        let dark = world.run_until_answered(Second, 1_000 * MS)?;
        expect(dark < TAKEOVER, || format!("the peer takes over in time, not after {dark} ns"))?;
        let since = world.now;
        world.run(700 * MS);
        world.now(Fault::Thaw(First, Part::Both));
        world.run(600 * MS);
        kept(&world, Second, since)?;
    }
    Ok(())
}

pub(crate) fn winner_frozen() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::PowerOff(First, false));
    world.run_to(1_000 * MS, |w| w.owns(Second, web()))?;
    world.now(Fault::Freeze(Second, Part::Both));
    world.now(Fault::PowerOn(First));
    world.run_until_answered(First, 2_000 * MS)?;
    let since = world.now;
    world.now(Fault::Thaw(Second, Part::Both));
    world.run(600 * MS);
    kept(&world, First, since)
}

/// A guest whose clock stood still: the one case in which two may answer.
pub(crate) fn paused_guest() -> Outcome {
    let mut world = calm()?;
    world.double_allowed = 60 * MS; // an interval and a round trip, and the calls that shut the gate
    world.now(Fault::Suspend(First));
    world.run_until_answered(Second, 1_000 * MS)?;
    world.run(400 * MS);
    let since = world.now;
    world.now(Fault::Resume(First, true));
    expect(world.answering(web()).len() == 2, || "the case is real: both answer".to_owned())?;
    world.run(600 * MS);
    kept(&world, Second, since)?;
    let cause = lost_by(&world, First, since);
    expect(cause == Some(Cause::HigherTerm), || format!("it yields to the higher term, not by {cause:?}"))
}

pub(crate) fn suspended() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::Suspend(First));
    world.run_until_answered(Second, 1_000 * MS)?;
    world.run(1_000 * MS);
    let since = world.now;
    world.now(Fault::Resume(First, false));
    expect(world.answering(web()) == [Second], || "who slept does not answer when it wakes".to_owned())?;
    world.run(600 * MS);
    kept(&world, Second, since)?;
    expect(lost_by(&world, First, since).is_some(), || "who slept has lost its lease".to_owned())
}

pub(crate) fn clock_rates() -> Outcome {
    let timings = [(100, 10), (500, 50), (1000, 100)];
    for (lease, interval) in timings {
        for phase in 0..8 {
            let timing = Timing::new(millis(lease), millis(interval));
            let mut world = settled(Plan { timing, ppm: [-40_000, 40_000, 40_000], ..Plan::calm() })?;
            world.run(phase * interval * MS / 8);
            world.now(Fault::Freeze(First, Part::Both));
            world.run_until_answered(Second, 2 * lease * MS)?;
            world.run(lease * MS);
            world.verdict()?;
        }
    }
    Ok(())
}

fn fast() -> Timing {
    Timing::new(millis(100), millis(10))
}

fn slow() -> Timing {
    Timing::new(millis(1000), millis(100))
}

/// A shorter lease shortens no promise, a longer one prolongs none, whoever has the new configuration first.
pub(crate) fn lease_changes() -> Outcome {
    // The owner's gets shorter, and it is cut off after the first heartbeat that says so.
    let mut world = first_without(Witness)?;
    world.now(Fault::Timing(First, fast()));
    world.run(52 * MS);
    isolate(&mut world, First);
    world.run_until_answered(Second, TAKEOVER)?;
    world.run(500 * MS);
    world.verdict()?;
    // It gets longer while acknowledgements of what was sent before are on their way.
    let mut world = first_without(Witness)?;
    world.now(Fault::Slow(Second, First, 100 * MS));
    world.run(400 * MS);
    world.now(Fault::Timing(First, slow()));
    world.now(Fault::Cut(First, Second));
    world.run_until_answered(Second, TAKEOVER)?;
    world.run(1_000 * MS);
    world.verdict()?;
    // It is the longer one that counts from then on, for both.
    let mut world = calm()?;
    world.now(Fault::Timing(First, slow()));
    world.run(1_000 * MS);
    world.now(Fault::PowerOff(First, false));
    let dark = world.run_until_answered(Second, 2_000 * MS)?;
    expect(dark > 900 * MS, || format!("the new lease is in force, yet it took over after {dark} ns"))
}

/// The voter promises what it is asked for, not what its own configuration says.
pub(crate) fn shorter_lease_at_the_voter() -> Outcome {
    let mut world = first_without(Witness)?;
    world.now(Fault::Timing(Second, fast()));
    world.run(300 * MS);
    isolate(&mut world, First);
    world.run_until_answered(Second, TAKEOVER)?;
    world.run(500 * MS);
    world.verdict()
}

/// Silence lasts for the longest promise ever given, not for what the configuration says today.
pub(crate) fn restarted_with_a_shorter_lease() -> Outcome {
    let mut world = settled(Plan { timing: slow(), ..Plan::calm() })?;
    world.link(First, Witness, false);
    world.run(1_300 * MS);
    world.now(Fault::Timing(Second, fast()));
    isolate(&mut world, First);
    world.now(Fault::KillWorker(Second));
    world.run_until_answered(Second, 1_500 * MS)?;
    world.run(500 * MS);
    world.verdict()
}

pub(crate) fn api() -> GroupName {
    Name::new("api").unwrap()
}

/// The witness stays bound to the second node for `web`, and acknowledges the first one's `api` only.
pub(crate) fn two_groups() -> Outcome {
    let mut world = World::new(Plan { groups: vec![(web(), First), (api(), First)], ..Plan::calm() });
    world.now(Fault::Standby(First, true));
    let mut web_taken = false;
    let mut asked = false;
    world.sieve = Some(Box::new(move |_, from, to, message| {
        let group = match message {
            Some(Message::PreVote(request) | Message::Vote(request)) => request.group,
            Some(Message::VoteAnswer(answer) | Message::PreVoteAnswer(answer)) => answer.group,
            _ => web(),
        };
        match (from, to, message) {
            (First, _, Some(Message::Heartbeat(beat))) => {
                web_taken |= beat.groups.iter().any(|l| l.name == web() && l.owned.is_some());
            }
            _ if web_taken => {}
            (Second, _, Some(Message::PreVote(_))) if asked || group == api() => return Fate::Drop,
            (Second, First, Some(Message::Vote(_))) => return Fate::Drop,
            (Second, Witness, Some(Message::Vote(_))) => asked = true,
            (Witness, Second, Some(Message::VoteAnswer(_))) => return Fate::Drop,
            _ => {}
        }
        Fate::Pass
    }));
    world.run(60 * MS);
    let bound = world.bound(web());
    expect(bound == Some(Second), || format!("the witness is bound to the second node, not {bound:?}"))?;
    world.now(Fault::Standby(First, false));
    world.run_to(500 * MS, |w| w.owns(First, web()) && w.owns(First, api()))?;
    world.run(20 * MS);
    let since = world.now;
    world.link(First, Second, false);
    world.run(600 * MS - world.now);
    expect(world.owns(First, web()), || "it has the lease that the peer confirmed".to_owned())?;
    world.now(Fault::Cut(First, Witness));
    world.run_until_answered(Second, TAKEOVER)?;
    expect(world.owns(First, api()), || "the witness did acknowledge the other group".to_owned())?;
    let cause = lost_by(&world, First, since);
    world.run(600 * MS);
    world.verdict()?;
    expect(cause == Some(Cause::LeaseExpired), || format!("no voter confirmed it: it ran out, not {cause:?}"))
}

pub(crate) fn old_secret() -> Outcome {
    let mut world = calm()?;
    let old = world.secret(First).ok_or("a worker runs")?;
    world.now(Fault::KillWorker(First));
    let dark = world.run_until_answered(Second, 1_000 * MS)?;
    expect(dark < 50 * MS, || format!("the notice saves the lease, yet it was dark for {dark} ns"))?;
    world.run(1_000 * MS);
    world.now(Fault::Switchover(Second, false));
    world.run_until_answered(First, 200 * MS)?;
    world.run(200 * MS);
    world.link(First, Second, false);
    let since = world.now;
    for n in 0..200 {
        world.at(since + 600 * MS + n * 3 * MS, Fault::Replay(old));
    }
    world.run(1_500 * MS);
    kept(&world, First, since)
}

pub(crate) fn late_release() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::Standby(Second, true));
    world.run(100 * MS);
    world.sieve = Some(Box::new(|_, from, to, message| match (from, to, message) {
        (First, Witness, Some(Message::Heartbeat(beat)))
            if beat.groups.iter().any(|l| l.released.is_some() && l.owned.is_none()) =>
        {
            Fate::Late(1_000 * MS)
        }
        _ => Fate::Pass,
    }));
    let lost = world.now;
    world.now(Fault::Fitness(First, Fitness::Unable));
    world.run(5 * MS);
    world.now(Fault::Fitness(First, Fitness::Fit));
    world.run_until_answered(First, 500 * MS)?;
    expect(world.now < lost + 300 * MS, || "it has a new term while the release is on its way".to_owned())?;
    world.now(Fault::Standby(Second, false));
    world.link(First, Second, false);
    world.run(lost + 990 * MS - world.now);
    expect(world.owns(First, web()), || "the witness confirms the new term".to_owned())?;
    world.now(Fault::Cut(First, Witness));
    let dark = world.run_until_answered(Second, TAKEOVER)?;
    expect(dark > 450 * MS, || format!("the promise lasts as it was given, and not {dark} ns"))
}

pub(crate) fn wiped_witness() -> Outcome {
    let mut world = first_without(Second)?;
    world.now(Fault::PowerOff(Witness, true));
    world.now(Fault::Cut(First, Witness));
    world.now(Fault::PowerOn(Witness));
    world.run(3_000 * MS);
    world.verdict()?;
    expect(world.answering(web()).is_empty(), || "a voter without its memory gives no vote".to_owned())?;
    heal(&mut world);
    // At once: they do not stand against each other.
    world.run_until_served(100 * MS).ok_or("the two that remember elect an owner")?;
    world.run(u64::try_from(HOLD_MAX.as_nanos()).unwrap());
    let memory = world.machines[Witness.index()].disk.clone();
    expect(memory.is_some(), || "the witness has its memory back".to_owned())?;
    world.verdict()
}

pub(crate) fn reinstalled_node() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::PowerOff(Second, true));
    world.now(Fault::PowerOff(First, false));
    world.run(100 * MS);
    world.now(Fault::PowerOn(Second));
    world.run(15_000 * MS);
    expect(world.answering(web()).is_empty(), || "a node without its memory claims nothing alone".to_owned())?;
    world.now(Fault::PowerOn(First));
    let owner = world.run_until_served(1_000 * MS).ok_or("two remember, and told it their terms")?;
    // The reinstalled one is a voter like any other now.
    world.now(Fault::PowerOff(Witness, false));
    let since = world.now;
    world.run(1_000 * MS);
    kept(&world, owner, since)
}

pub(crate) fn wan_witness() -> Outcome {
    let mut world = World::new(Plan { timing: fast(), ..Plan::calm() });
    for node in [First, Second] {
        world.now(Fault::Slow(node, Witness, 20 * MS));
        world.now(Fault::Slow(Witness, node, 20 * MS));
    }
    let owner = world.run_until_served(1_000 * MS).ok_or("one of the two is elected")?;
    world.run(300 * MS);
    let since = world.now;
    world.now(Fault::PowerOff(owner.others()[0], false));
    world.run(3_000 * MS);
    kept(&world, owner, since)
}

pub(crate) fn unfit_and_cut() -> Outcome {
    let mut world = first_without(Second)?;
    let since = world.now;
    world.now(Fault::Fitness(First, Fitness::Unfit));
    world.run_until_answered(Second, 300 * MS)?;
    let cause = lost_by(&world, First, since);
    expect(cause == Some(Cause::Unfit), || format!("it makes way for the fit one, not {cause:?}"))
}

pub(crate) fn deaf_candidate() -> Outcome {
    let mut world = calm()?;
    world.now(Fault::PowerOff(First, false));
    for from in Second.others() {
        world.now(Fault::Cut(from, Second));
    }
    world.run(1_500 * MS);
    let voter = world.witness().ok_or("the witness runs")?.voter();
    let (voted, highest) = (voter.voted(web()).1, voter.highest(web()));
    expect(voted == Some(First), || format!("nobody votes for a deaf candidate: {voted:?}"))?;
    expect(highest == Term(1), || format!("a deaf candidate drives no terms up: {highest}"))?;
    world.now(Fault::PowerOn(First));
    world.run_until_answered(First, TAKEOVER + 100 * MS).map(|_| ())
}

pub(crate) fn stalled_disk() -> Outcome {
    let mut world = first_without(Witness)?;
    world.now(Fault::DiskTakes(Second, 800 * MS));
    let since = world.now;
    world.run(1_500 * MS);
    // What was promised before needs no disk.
    kept(&world, First, since)?;
    world.now(Fault::DiskTakes(Witness, 800 * MS));
    isolate(&mut world, First);
    world.run(3_000 * MS);
    world.verdict()?;
    expect(world.answering(web()).is_empty(), || "no vote counts before it is on disk".to_owned())?;
    world.now(Fault::DiskTakes(Second, 0));
    world.now(Fault::DiskTakes(Witness, 0));
    world.run_until_answered(Second, 2_500 * MS)?;
    world.verdict()
}

/// The second node owns `api`, and comes back with a configuration in which `api` has the address that the first node
/// serves as `web`. They do not see each other; the witness sees both.
pub(crate) fn moved_address() -> Outcome {
    let mut world = World::new(Plan { groups: vec![(web(), First), (api(), Second)], ..Plan::calm() });
    world.run_to(2_000 * MS, |w| w.owns(First, web()) && w.owns(Second, api()))?;
    world.run(100 * MS);
    let since = world.now;
    world.link(First, Second, false);
    world.sieve = Some(Box::new(|_, from, _, message| match message {
        Some(Message::PreVote(request)) if from == First && request.group == api() => Fate::Drop,
        _ => Fate::Pass,
    }));
    world.now(Fault::Swap(Second, true));
    world.run(3_000 * MS);
    kept(&world, First, since)?;
    expect(!world.owns(Second, api()), || "its address is served by the first node".to_owned())?;
    // As soon as it is not, nothing stands in the way.
    world.sieve = None;
    world.link(First, Second, true);
    world.now(Fault::Swap(First, true));
    world.run_until_served(6_000 * MS).ok_or("with one configuration everything is served again")?;
    world.verdict()
}

/// A move of that group is not taken up either: the owner keeps it.
pub(crate) fn moved_address_is_asked_for() -> Outcome {
    let mut world = World::new(Plan { groups: vec![(web(), First), (api(), First)], ..Plan::calm() });
    world.run_to(2_000 * MS, |w| w.owns(First, web()) && w.owns(First, api()))?;
    world.now(Fault::Swap(Second, true));
    world.run(1_500 * MS);
    let since = world.now;
    let command = Command::Switchover { group: api(), force: true };
    world.command(First, command);
    world.run(4_000 * MS);
    kept(&world, First, since)?;
    expect(world.owns(First, api()), || "it serves on".to_owned())
}

macro_rules! scenarios {
    ($($name:ident = $run:ident;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(with_each_seed($run), Ok(()));
        })*
    };
}

// 16 belongs to voter sets; 23–25 to the kernel and the web; 22 to replication.
scenarios! {
    restarted_voter_does_not_elect_itself_against_its_forgotten_ack = restarted_voter;
    restarting_standby_still_acknowledges = restarting_standby;
    owner_cut_from_witness_hands_over = hand_over_without_witness;
    delayed_grant_of_a_dead_candidacy = delayed_grant;
    both_frozen_then_thawed_mid_renewal = frozen_mid_renewal;
    winner_frozen_before_first_gate_call = winner_frozen;
    vm_pause_clock_stops_yields_on_first_refusal = paused_guest;
    suspend_boottime_jumps = suspended;
    owner_slow_voter_fast_8_percent = clock_rates;
    lease_500_to_100_and_1000_mid_partition = lease_changes;
    voter_with_a_shorter_lease_promises_what_is_asked = shorter_lease_at_the_voter;
    voter_restarted_with_a_shorter_lease_is_silent_for_the_longest_promise = restarted_with_a_shorter_lease;
    two_groups_ack_for_one_only = two_groups;
    old_secret_replayed_after_reelection = old_secret;
    late_release_of_an_earlier_term = late_release;
    witness_wiped_while_bound = wiped_witness;
    node_reinstalled_owner_dead = reinstalled_node;
    standby_dies_fast_profile_wan_witness = wan_witness;
    unfit_owner_peer_link_cut = unfit_and_cut;
    deaf_candidate_does_not_bind_the_witness = deaf_candidate;
    voter_disk_stalls_longer_than_the_lease = stalled_disk;
    vip_changes_group_one_node_away = moved_address;
    vip_changes_group_and_the_group_is_moved = moved_address_is_asked_for;
}
