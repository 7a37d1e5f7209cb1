//! Seeds: random faults, one invariant, and an owner again when the faults are over.

use crate::faults::{TROUBLE, world};
use crate::world::{MS, Third, World, third};
use std::collections::BTreeSet;

/// Seeds that once failed are kept for ever.
const KEPT: &str = include_str!("seeds.txt");

pub(crate) fn kept() -> BTreeSet<u64> {
    KEPT.lines().filter_map(|l| l.split('#').next()).filter_map(|l| l.trim().parse().ok()).collect()
}

/// Runs one seed. What went wrong, if anything did.
pub(crate) fn run(seed: u64, trace: bool) -> (World, Result<(), String>) {
    let (mut world, lost) = world(seed);
    world.trace = trace.then(Vec::new);
    world.run(TROUBLE + 100 * MS);
    if world.broken.is_none() {
        // A voter that has lost its memory is silent for the longest hold; a restarted worker waits up to 5 s.
        let patience = 7_000 * MS + if lost || !world.plan.formed { World::longest_silence() } else { 0 };
        if world.run_until_served(patience).is_none() && world.broken.is_none() {
            world.broken = Some("with all faults over, nobody serves".to_owned());
        }
    }
    let result = world.broken.clone().map_or(Ok(()), Err);
    (world, result)
}

#[test]
fn at_most_one_node_answers_whatever_happens_and_one_does_when_it_is_over() {
    all_seeds(Third::Witness);
}

#[test]
fn with_etcd_at_most_one_node_answers_whatever_happens_and_one_does_when_it_is_over() {
    all_seeds(Third::Etcd);
}

#[expect(clippy::print_stdout, reason = "what a test says")]
fn all_seeds(voter: Third) {
    third(voter);
    if let Ok(seed) = std::env::var("HAWSER_SEED") {
        let seed = seed.parse().unwrap();
        let (world, result) = run(seed, true);
        for line in world.trace.unwrap_or_default() {
            println!("{line}");
        }
        assert_eq!(result, Ok(()), "seed {seed}");
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|t| t.parse::<u64>().ok());
    let (first, count) = (number("HAWSER_SEEDS_FROM").unwrap_or(0), number("HAWSER_SEEDS").unwrap_or(256));
    let started = std::time::Instant::now();
    let mut seeds: BTreeSet<u64> = (first..first + count).collect();
    seeds.extend(kept());
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed = Vec::new();
    let mut steps = 0;
    let mut moves = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                let seeds = &seeds;
                scope.spawn(move || {
                    third(voter);
                    let (mut failed, mut steps, mut moves) = (Vec::new(), 0, 0);
                    for seed in seeds.iter().skip(n).step_by(threads) {
                        let (world, result) = run(*seed, false);
                        steps += world.steps;
                        moves += world.events.len();
                        failed.extend(result.err().map(|why| (*seed, why)));
                    }
                    (failed, steps, moves)
                })
            })
            .collect();
        for worker in workers {
            let (some, more, events) = worker.join().unwrap();
            failed.extend(some);
            steps += more;
            moves += events;
        }
    });
    println!("{} seeds, {steps} steps, {moves} events in {:.1} s", seeds.len(), started.elapsed().as_secs_f64());
    assert!(moves > seeds.len() * 5, "the faults do nothing: {moves} events");
    failed.sort();
    assert!(
        failed.is_empty(),
        "{} seeds failed (HAWSER_SEED=N shows one): {:?}",
        failed.len(),
        &failed[..failed.len().min(10)]
    );
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let story = |seed| run(seed, true).0.trace.unwrap();
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}
