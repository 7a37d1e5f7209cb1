//! Random faults from a seed.

use crate::world::{Chance, Fault, MS, NODES, Network, Part, Plan, World, web};
use hawser::cluster::{Fitness, Member, Timing};
use hawser::time::Duration;

/// How long faults go on.
pub(crate) const TROUBLE: u64 = 8_000 * MS;

/// A world with the faults of this seed planned into it. Whether a disk is lost is the answer.
pub(crate) fn world(seed: u64) -> (World, bool) {
    let mut chance = Chance(seed ^ 0x6861_7773_6572);
    let timing = match chance.below(4) {
        0 => Timing::new(Duration::from_millis(100), Duration::from_millis(10)),
        1 => Timing::new(Duration::from_millis(1000), Duration::from_millis(100)),
        _ => Timing::new(Duration::from_millis(500), Duration::from_millis(50)),
    };
    let gated = !chance.per_mille(100);
    let timing = if gated { timing } else { Timing::without_gate(timing.lease, timing.interval) };
    let mut plan = Plan { seed, timing, gated, ..Plan::calm() };
    if chance.per_mille(500) {
        for ppm in &mut plan.ppm {
            *ppm = i64::try_from(chance.below(80_001)).unwrap() - 40_000;
        }
    }
    plan.formed = !chance.per_mille(100);
    if chance.per_mille(300) {
        plan.groups.push((hawser::cluster::Name::new("state").unwrap(), Member::Second));
    }
    let mut world = World::new(plan);
    if chance.per_mille(500) {
        world.at(0, Fault::Network(network(&mut chance)));
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
    heal(&mut world);
    (world, lost)
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
    match chance.below(19) {
        0 => world.at(at, Fault::KillWorker(member)),
        1 => world.at(at, Fault::KillBoth(node)),
        2 => world.at(at, Fault::KillSupervisor(node)),
        3 => {
            let wipe = !lost && chance.per_mille(300);
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
        _ => {
            world.at(at, Fault::Stop(node));
            world.at(at + lasts, Fault::PowerOn(node));
        }
    }
    false
}

/// At the end of the trouble everything works again.
fn heal(world: &mut World) {
    world.at(TROUBLE, Fault::Network(Network::LAN));
    for member in Member::ALL {
        for other in member.others() {
            world.at(TROUBLE, Fault::Heal(member, other));
        }
        world.at(TROUBLE, Fault::DiskTakes(member, 0));
        world.at(TROUBLE, Fault::Resume(member, false));
        world.at(TROUBLE, Fault::Thaw(member, Part::Both));
        if member != Member::Witness {
            world.at(TROUBLE, Fault::Fitness(member, Fitness::Fit));
            world.at(TROUBLE, Fault::Carrier(member, true));
            world.at(TROUBLE, Fault::Standby(member, false));
        }
        world.at(TROUBLE + MS, Fault::PowerOn(member));
    }
    debug_assert_eq!(web().as_str(), "web");
}
