//! Between what the voter remembers and what the promise file holds.

use crate::{
    cluster::{Memory, voter::Vote},
    store::promise::{Election, GroupMemory},
};

/// For the disk.
pub(super) fn election(memory: Memory) -> Election {
    let groups = memory.groups.into_iter().map(|vote| GroupMemory {
        group: vote.group,
        highest: vote.highest,
        voted: vote.voted,
        voted_for: vote.voted_for,
    });
    Election { sets: memory.sets, hold_given: memory.hold_given, groups: groups.collect(), incarnation: None }
}

/// From the disk.
pub(super) fn memory(election: Election) -> Memory {
    let groups = election.groups.into_iter().map(|group| Vote {
        group: group.group,
        highest: group.highest,
        voted: group.voted,
        voted_for: group.voted_for,
    });
    Memory { sets: election.sets, hold_given: election.hold_given, groups: groups.collect() }
}
