//! The keyspace's twin in memory, for models and tests: same commits, same records, no disk.

use super::{Batch, Error, Seq, Store, batch::Pair};
use std::collections::BTreeMap;

/// A store in memory. A clone is a copy of the disk at that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    seq: Seq,
    suspect: bool,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This store as one that went back in time: it is suspect until a batch settles it.
    #[must_use]
    pub fn rolled_back(mut self) -> Self {
        self.suspect = true;
        self
    }
}

impl Store for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let from = self.records.range(prefix.to_vec()..);
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<Seq, Error> {
        self.records.retain(|key, _| !batch.cleared.iter().any(|prefix| key.starts_with(prefix)));
        for (key, value) in batch.changes {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
        self.suspect &= !batch.settles;
        self.seq += 1;
        Ok(self.seq)
    }

    fn is_suspect(&self) -> bool {
        self.suspect
    }
}
