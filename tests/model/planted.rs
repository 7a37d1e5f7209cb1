//! Known faults, planted into the engines: the model finds each, and shows a walk that leads to it. The same models keep
//! every promise without a fault.
//!
//! Not all that the simulator finds: the others need time in smaller steps, two groups, crash notices, or longer walks.

use crate::world::{Bounds, NEVER_TWO, TERMS};
use crate::{Plant, check, deaths, lapses, losses, moves};
use hawser::cluster::planted::Planted;

/// Which model finds which fault, and what it breaks.
const FINDERS: &[(Planted, &str, &str)] = &[
    (Planted::OwnVoterFree, "the nodes were cut off from each other", NEVER_TWO),
    (Planted::CampaignInSilence, "the witness dies, and is all that the owner has", NEVER_TWO),
    (Planted::EndedLeaseRevived, "the nodes were cut off from each other", NEVER_TWO),
    (Planted::VoteNotPersisted, "the witness dies as a cluster starts", TERMS),
    (Planted::AnswerBeforePersist, "the witness dies before its disk has it", TERMS),
    (Planted::ReleaseBeforeShut, "a planned move", NEVER_TWO),
    (Planted::FactorTooSmall, "a slow owner and fast voters", NEVER_TWO),
    (Planted::WipedVotes, "the witness loses its disk", NEVER_TWO),
];

#[test]
fn planted_faults_are_found() {
    let models: Vec<Bounds> = [losses(), deaths(), lapses(), moves()].concat();
    let mut missed = Vec::new();
    for (fault, name, breaks) in FINDERS {
        let bounds = models.iter().find(|bounds| bounds.name == *name).unwrap().clone();
        println!("{fault:?}:");
        match check(Bounds { plant: Plant(Some(*fault)), ..bounds }).broken() {
            Some((broken, walk)) if broken == *breaks => {
                println!("  not so: {broken}");
                walk.iter().for_each(|step| println!("    {step:?}"));
            }
            other => missed.push((fault, name, other)),
        }
    }
    assert!(missed.is_empty(), "planted, and not found: {missed:#?}");
}
