//! Random faults from a seed.

use crate::world::{Chance, Fault, MS, NODES, Network, Part, Plan, Third, Want, World, third_voter};
use hawser::cluster::{Fitness, Member, Timing};
use hawser::time::Duration;

/// How long faults go on.
pub(crate) const TROUBLE: u64 = 8_000 * MS;

/// A world with the faults of this seed planned into it. Whether a disk is lost is the answer.
pub(crate) fn world(seed: u64) -> (World, bool) {
    let mut chance = Chance(seed ^ 0x6861_7773_6572);
    let gated = !chance.per_mille(100);
    let timing = timing(&mut chance, gated);
    let mut plan = Plan { seed, timing, gated, ..Plan::calm() };
    if chance.per_mille(500) {
        plan.ppm = [0; 3].map(|_| ppm(&mut chance));
    }
    plan.formed = !chance.per_mille(100);
    if chance.per_mille(300) {
        plan.groups.push((hawser::cluster::Name::new("state").unwrap(), Member::Second));
    }
    let mut world = World::new(plan);
    if chance.per_mille(500) {
        world.at(0, Fault::Network(network(&mut chance)));
    }
    if chance.per_mille(200) {
        let from = chance.pick(&Member::ALL);
        let to = chance.pick(&from.others());
        world.at(0, Fault::Slow(from, to, chance.between(20, 350) * MS));
    }
    let mut lost = false;
    let count = chance.between(3, 9);
    for _ in 0..count {
        let at = chance.between(200, 7_000) * MS;
        let lasts = match chance.below(3) {
            0 => chance.between(1, 100) * MS,
            1 => chance.between(100, 700) * MS,
            _ => chance.between(500, 3_000) * MS,
        };
        lost |= one(&mut world, &mut chance, at, lasts, lost);
    }
    swap(&mut world, seed);
    if third_voter() == Third::Witness && world.plan.formed {
        lost |= changes(&mut world, seed, lost);
    }
    heal(&mut world);
    (world, lost)
}

/// In some worlds the voters change, too: there and perhaps back, and who has a part in it has ills of its own.
fn changes(world: &mut World, seed: u64, lost: bool) -> bool {
    let mut chance = Chance(seed ^ 0x766f_7465_7273);
    if !chance.per_mille(400) {
        return false;
    }
    if chance.per_mille(500) {
        world.other_has_memory();
    }
    world.at_other(0, Fault::PowerOn(Member::Witness));
    let wants = [Want::Other, Want::Other, Want::Usual, Want::Alone(Member::First), Want::Alone(Member::Second)];
    for _ in 0..chance.between(1, 3) {
        let (want, at) = (chance.pick(&wants), chance.between(300, 4_500) * MS);
        for node in NODES {
            // Both are restarted, one after the other, or one is forgotten for a while.
            let at = at + chance.below(700) * MS;
            world.at(at, Fault::Want(node, want));
            let fault = chance.pick(&[Fault::KillWorker(node), Fault::KillBoth(node), Fault::Stop(node)]);
            world.at(at, fault);
            world.at(at + 200 * MS, Fault::PowerOn(node));
        }
    }
    let at = chance.between(300, 6_000) * MS;
    let lasts = chance.between(10, 1_500) * MS;
    match chance.below(5) {
        0 => {
            let node = chance.pick(&NODES);
            world.at_other(at, Fault::Cut(node, Member::Witness));
            world.at_other(at, Fault::Cut(Member::Witness, node));
        }
        1 => world.at_other(at, Fault::KillWorker(Member::Witness)),
        2 => {
            let wipe = chance.per_mille(500) && !lost;
            world.at_other(at, Fault::PowerOff(Member::Witness, wipe));
            world.at_other(at + lasts, Fault::PowerOn(Member::Witness));
            return wipe;
        }
        3 => world.at_other(at, Fault::DiskTakes(Member::Witness, chance.between(1, 400) * MS)),
        _ => {}
    }
    false
}

fn timing(chance: &mut Chance, gated: bool) -> Timing {
    let (lease, interval) = chance.pick(&[(100, 10), (500, 50), (500, 50), (1000, 100)]);
    let (lease, interval) = (Duration::from_millis(lease), Duration::from_millis(interval));
    if gated { Timing::new(lease, interval) } else { Timing::without_gate(lease, interval) }
}

/// A clock's rate: up to 4 % off, and often at one of the ends.
fn ppm(chance: &mut Chance) -> i64 {
    match chance.below(4) {
        0 => -40_000,
        1 => 40_000,
        _ => i64::try_from(chance.below(80_001)).unwrap() - 40_000,
    }
}

fn network(chance: &mut Chance) -> Network {
    Network {
        loss: chance.pick(&[0, 10, 50, 200]),
        twice: chance.pick(&[0, 20, 200]),
        delay: (80_000, chance.pick(&[300_000, 2_000_000, 20_000_000])),
        late: (chance.pick(&[0, 20, 100]), chance.pick(&[50, 300, 900]) * MS),
    }
}

fn one(world: &mut World, chance: &mut Chance, at: u64, lasts: u64, lost: bool) -> bool {
    let node = chance.pick(&NODES);
    let member = chance.pick(&Member::ALL);
    let other = chance.pick(&member.others());
    let part = chance.pick(&[Part::Worker, Part::Supervisor, Part::Both]);
    match chance.below(26) {
        0 => world.at(at, Fault::KillWorker(member)),
        1 => world.at(at, Fault::KillBoth(node)),
        2 => world.at(at, Fault::KillSupervisor(node)),
        3 => {
            // Without a memory on one node only, and not while the cluster still makes its first.
            let wipe = chance.per_mille(300) && !lost && world.plan.formed;
            world.at(at, Fault::PowerOff(member, wipe));
            world.at(at + lasts, Fault::PowerOn(member));
            return wipe;
        }
        4 | 5 => {
            world.at(at, Fault::Freeze(node, part));
            world.at(at + lasts, Fault::Thaw(node, part));
        }
        6 => {
            world.at(at, Fault::Suspend(member));
            world.at(at + lasts, Fault::Resume(member, false));
        }
        7 | 8 => {
            world.at(at, Fault::Cut(member, other));
            world.at(at + lasts, Fault::Heal(member, other));
        }
        9 | 10 => {
            for (a, b) in [(member, other), (other, member)] {
                world.at(at, Fault::Cut(a, b));
                world.at(at + lasts, Fault::Heal(a, b));
            }
        }
        11 => {
            world.at(at, Fault::Network(network(chance)));
            world.at(at + lasts, Fault::Network(Network::LAN));
        }
        12 => {
            world.at(at, Fault::DiskTakes(member, chance.between(1, 800) * MS));
            world.at(at + lasts, Fault::DiskTakes(member, 0));
        }
        13 => {
            world.at(at, Fault::Fitness(node, Fitness::Unfit));
            world.at(at + lasts, Fault::Fitness(node, Fitness::Fit));
        }
        14 => {
            world.at(at, Fault::Carrier(node, false));
            world.at(at + lasts, Fault::Carrier(node, true));
        }
        15 => {
            world.at(at, Fault::Standby(node, true));
            world.at(at + lasts, Fault::Standby(node, false));
        }
        16 | 17 => world.at(at, Fault::Switchover(node, chance.per_mille(200))),
        18 => {
            world.at(at, Fault::Stop(node));
            world.at(at + lasts, Fault::PowerOn(node));
        }
        19 | 20 => cut_off_then(world, chance, at),
        _ => slowness(world, chance, at, lasts),
    }
    false
}

/// Nothing breaks: it only takes longer, or comes twice, or is told to be otherwise.
fn slowness(world: &mut World, chance: &mut Chance, at: u64, lasts: u64) {
    let node = chance.pick(&NODES);
    let member = chance.pick(&Member::ALL);
    let other = chance.pick(&member.others());
    match chance.below(6) {
        0 => {
            world.at(at, Fault::Slow(member, other, chance.between(1, 400) * MS));
            world.at(at + lasts, Fault::Slow(member, other, 0));
        }
        1 => {
            world.at(at, Fault::KernelTakes(node, chance.between(1, 200) * MS));
            world.at(at + lasts, Fault::KernelTakes(node, 0));
        }
        2 => world.at(at, Fault::Rate(member, ppm(chance))),
        3 => world.at(at, Fault::Storm(chance.between(10, 500))),
        4 => {
            // A new configuration reaches the nodes one after the other, if both.
            let timing = timing(chance, world.plan.gated);
            world.at(at, Fault::Timing(node, timing));
            world.at(at + lasts, Fault::Timing(chance.pick(&NODES), timing));
        }
        _ => {
            world.at(at, Fault::Unkillable(node, true));
            world.at(at, Fault::Freeze(node, Part::Worker));
            world.at(at + lasts, Fault::Unkillable(node, false));
            world.at(at + lasts, Fault::Thaw(node, Part::Worker));
        }
    }
}

/// What most traces of two owners have in common: the owner does without one voter for longer than a promise lasts,
/// then loses the other one as well, at the moment of something else.
fn cut_off_then(world: &mut World, chance: &mut Chance, at: u64) {
    let node = chance.pick(&NODES);
    let [peer, witness] = node.others();
    let (away, last) = if chance.per_mille(500) { (peer, witness) } else { (witness, peer) };
    let second = at + chance.between(600, 2_500) * MS;
    let end = second + chance.between(50, 2_000) * MS;
    for (a, b) in [(node, away), (away, node)] {
        world.at(at, Fault::Cut(a, b));
        world.at(end, Fault::Heal(a, b));
    }
    match chance.below(6) {
        0 => world.at(second, Fault::KillWorker(last)),
        1 => world.at(second, Fault::KillBoth(last)),
        2 => world.at(second, Fault::Freeze(node, Part::Both)),
        3 => world.at(second, Fault::Switchover(node, true)),
        4 => {
            let timing = timing(chance, world.plan.gated);
            let who = chance.pick(&NODES);
            world.at(second - chance.below(120 * MS), Fault::Timing(who, timing));
        }
        _ => {}
    }
    world.at(end, Fault::Thaw(node, Part::Both));
    let cut = second + chance.below(20 * MS);
    for (a, b) in [(node, last), (last, node)] {
        world.at(cut, Fault::Cut(a, b));
        world.at(end, Fault::Heal(a, b));
    }
}

/// The nodes' configurations disagree for a while on which of two groups has which address.
fn swap(world: &mut World, seed: u64) {
    let mut chance = Chance(seed ^ 0x7377_6170);
    // An etcd has a record for each group, and does not know their addresses.
    if world.plan.groups.len() < 2 || world.plan.third != Third::Witness || chance.per_mille(500) {
        return;
    }
    let node = chance.pick(&NODES);
    let first = chance.between(200, 5_000) * MS;
    let second = first + chance.between(100, 1_400) * MS;
    world.at(first, Fault::Swap(node, true));
    for node in NODES {
        let back = chance.per_mille(500);
        world.at(second, Fault::Swap(node, back));
        // A restart takes its time, and who was just told to stop hands over first.
        world.at(TROUBLE - 1_500 * MS, Fault::Swap(node, false));
    }
}

/// At the end of the trouble everything works again.
fn heal(world: &mut World) {
    world.at(TROUBLE, Fault::Network(Network::LAN));
    for node in NODES {
        world.at_other(TROUBLE, Fault::Heal(node, Member::Witness));
        world.at_other(TROUBLE, Fault::Heal(Member::Witness, node));
    }
    world.at_other(TROUBLE, Fault::DiskTakes(Member::Witness, 0));
    for member in Member::ALL {
        for other in member.others() {
            world.at(TROUBLE, Fault::Heal(member, other));
        }
        world.at(TROUBLE, Fault::DiskTakes(member, 0));
        for other in member.others() {
            world.at(TROUBLE, Fault::Slow(member, other, 0));
        }
        world.at(TROUBLE, Fault::KernelTakes(member, 0));
        world.at(TROUBLE, Fault::Unkillable(member, false));
        world.at(TROUBLE, Fault::Resume(member, false));
        world.at(TROUBLE, Fault::Thaw(member, Part::Both));
        if member != Member::Witness {
            world.at(TROUBLE, Fault::Fitness(member, Fitness::Fit));
            world.at(TROUBLE, Fault::Carrier(member, true));
            world.at(TROUBLE, Fault::Standby(member, false));
        }
        world.at(TROUBLE + MS, Fault::PowerOn(member));
    }
}
