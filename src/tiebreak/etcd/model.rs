//! An etcd as far as a speaker can tell: a linearizable map with revisions. For tests and the simulator. Pure.

use super::record::{Record, Revision};
use super::speaker::{Item, Question, Seen};
use crate::cluster::GroupName;
use std::collections::BTreeMap;

/// What is in it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    revision: Revision,
    records: BTreeMap<GroupName, Seen>,
    /// Changes that were made so far.
    pub changes: u64,
}

impl Model {
    /// Carries a question out, at one moment.
    pub fn answer(&mut self, question: &Question) -> Vec<Seen> {
        let nothing = Seen { revision: 0, record: None };
        let before = self.records.clone();
        let was = |group: &GroupName| before.get(group).copied().unwrap_or(nothing);
        let made = |(group, item): &(GroupName, Item)| matches!(item, Item::Swap(on, _) if *on == was(group).revision);
        if question.items.iter().any(made) {
            self.revision += 1;
        }
        for (group, item) in question.items.iter().filter(|item| made(item)) {
            if let Item::Swap(_, record) = item {
                self.records.insert(*group, Seen { revision: self.revision, record: Some(*record) });
                self.changes += 1;
            }
        }
        question.items.iter().map(|(group, _)| self.records.get(group).copied().unwrap_or(nothing)).collect()
    }

    /// The record of a group.
    #[must_use]
    pub fn record(&self, group: GroupName) -> Option<Record> {
        self.records.get(&group).and_then(|seen| seen.record)
    }

    /// Everything is gone; the revisions go on.
    pub fn wipe(&mut self) {
        self.records.clear();
    }
}
