//! One node's copy of the state: what a change means, for memory and disk alike. Pure.
//!
//! Each change is first a [`Delta`]; the delta is a batch for the disk, and once that is durable it is applied to the
//! memory. So the memory is always what a restart would load.
//!
//! Beside the items a copy keeps:
//! - the *log*, the last writes, for a peer that missed only those;
//! - the *dirty* keys, changed here and not confirmed by the peer, with the version that they had before: what this
//!   node offers when it returns under another owner. Bounded by the keys, however long the peer is away;
//! - the *outbox*, transitions of this node that no owner has taken yet.

use super::types::{HISTORY, HistoryEntry, Version};
use crate::{
    limits::{HISTORY_MAX, STATE_BYTES_MAX, STATE_KEYS_MAX, SUFFIX_MAX},
    store::{Batch, Error, Store, batch::decode},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Version and value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The write that made it so.
    pub version: Version,
    /// What was written.
    pub value: Vec<u8>,
}

/// The state, to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub(super) head: Version,
    pub(super) items: BTreeMap<String, Item>,
    pub(super) outbox: BTreeMap<String, HistoryEntry>,
    bytes: usize,
}

impl Content {
    /// Version of the last write that is in it.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.head
    }

    /// What is written under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.get(key)
    }

    /// All keys that begin with `prefix`, in order.
    pub fn scan<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> + 'a {
        let from = self.items.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, item)| (key.as_str(), item))
    }

    /// Whether the flag under `key` is set.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|item| item.value == [1])
    }

    /// The transitions of both nodes, oldest first, with those of this node that no owner has taken yet.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        let read = |item: &Item| postcard::from_bytes::<HistoryEntry>(&item.value).ok();
        let taken = self.scan(HISTORY).filter_map(|(key, item)| Some((key, read(item)?)));
        let mut all: Vec<_> =
            taken.chain(self.outbox.iter().map(|(key, entry)| (key.as_str(), entry.clone()))).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// One write, as it goes to disk and peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its version.
    pub(super) version: Version,
    /// The version before it: without this one it must not be applied.
    pub(super) prev: Version,
    /// Keys and new values; `None` deletes.
    pub(super) changes: Vec<(String, Option<Vec<u8>>)>,
}

/// A key that the peer has not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dirty {
    /// Its version when both had the same; `None`: it was not there.
    pub(super) base: Option<Version>,
    /// Its last change here.
    pub(super) changed: Version,
}

/// Whether this copy can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trust {
    /// It has all that was confirmed.
    Whole,
    /// It may lack some, or was never in step with a peer: it gives way to any whole one, whoever owns the state.
    Suspect,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    head: Version,
    trust: Trust,
}

const META: &[u8] = b"m";
const ITEM: &str = "d/";
const LOG: &[u8] = b"l/";
const DIRTY: &str = "p/";
const OUTBOX: &str = "o/";

pub(super) fn log_key(version: Version) -> Vec<u8> {
    [LOG, &version.term.0.to_be_bytes()[..], &version.counter.to_be_bytes()[..]].concat()
}

/// What changes, for disk and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// Items, log and dirty keys are replaced as a whole.
    replace: bool,
    /// Suspect copies become whole.
    trusted: bool,
    head: Option<Version>,
    items: Vec<(String, Option<Item>)>,
    pushed: Option<Entry>,
    dropped: Option<Version>,
    dirty: Vec<(String, Option<Dirty>)>,
    outbox: Vec<(String, Option<HistoryEntry>)>,
}

/// One node's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) content: Arc<Content>,
    pub(super) trust: Trust,
    log: VecDeque<Entry>,
    pub(super) dirty: BTreeMap<String, Dirty>,
}

impl Copy {
    /// What is in the store.
    pub(super) fn load(store: &dyn Store) -> Result<Self, Error> {
        let meta: Option<Meta> = store.get(META)?.map(|payload| decode(META, &payload)).transpose()?;
        let mut content = Content { head: meta.as_ref().map_or(Version::ZERO, |m| m.head), ..Content::default() };
        for (key, item) in typed::<Item>(store, ITEM)? {
            content.bytes += key.len() + item.value.len();
            content.items.insert(key, item);
        }
        content.outbox = typed(store, OUTBOX)?;
        let log = store.scan(LOG)?.into_iter().map(|(key, payload)| decode(&key, &payload));
        let trust = match meta {
            Some(meta) if !store.is_suspect() => meta.trust,
            Some(_) | None => Trust::Suspect,
        };
        let log = log.collect::<Result<_, Error>>()?;
        Ok(Self { content: Arc::new(content), trust, log, dirty: typed(store, DIRTY)? })
    }

    /// Version of the last write.
    pub(super) fn head(&self) -> Version {
        self.content.head
    }

    /// Makes a durable delta true in memory.
    pub(super) fn apply(&mut self, delta: Delta) {
        let content = Arc::make_mut(&mut self.content);
        if delta.replace {
            content.items.clear();
            content.bytes = 0;
            self.log.clear();
            self.dirty.clear();
        }
        if delta.trusted {
            self.trust = Trust::Whole;
        }
        content.head = delta.head.unwrap_or(content.head);
        for (key, item) in delta.items {
            content.bytes += item.as_ref().map_or(0, |item| key.len() + item.value.len());
            let length = key.len();
            let old = if let Some(item) = item { content.items.insert(key, item) } else { content.items.remove(&key) };
            content.bytes -= old.map_or(0, |old| length + old.value.len());
        }
        set_all(&mut content.outbox, delta.outbox);
        set_all(&mut self.dirty, delta.dirty);
        if delta.dropped.is_some() {
            self.log.pop_front();
        }
        self.log.extend(delta.pushed);
    }

    /// The delta for the disk.
    pub(super) fn batch(&self, delta: &Delta) -> Result<Batch, Error> {
        let mut batch = Batch::new();
        if delta.replace {
            [ITEM.as_bytes(), LOG, DIRTY.as_bytes()].into_iter().for_each(|prefix| batch.clear(prefix));
        }
        if delta.trusted {
            batch.settle();
        }
        let trust = if delta.trusted { Trust::Whole } else { self.trust };
        batch.put(META, &Meta { head: delta.head.unwrap_or(self.head()), trust })?;
        put_all(&mut batch, ITEM, &delta.items)?;
        put_all(&mut batch, DIRTY, &delta.dirty)?;
        put_all(&mut batch, OUTBOX, &delta.outbox)?;
        if let Some(version) = delta.dropped {
            batch.delete(log_key(version));
        }
        if let Some(entry) = &delta.pushed {
            batch.put(log_key(entry.version), entry)?;
        }
        Ok(batch)
    }

    /// One more write. `author` says whether it is this node's own, which the peer has yet to confirm.
    pub(super) fn append(&self, entry: Entry, author: Author) -> Delta {
        let mut delta = Delta { head: Some(entry.version), ..Delta::default() };
        for (key, value) in &entry.changes {
            let version = entry.version;
            delta.items.push((key.clone(), value.clone().map(|value| Item { version, value })));
            if self.content.outbox.contains_key(key) {
                delta.outbox.push((key.clone(), None));
            }
            match author {
                Author::Peer => {}
                // Each owner trims the history by itself: what is trimmed need not be offered.
                Author::Me if value.is_none() && key.starts_with(HISTORY) => delta.dirty.push((key.clone(), None)),
                Author::Me => {
                    let base = match self.dirty.get(key) {
                        Some(dirty) => dirty.base,
                        None => self.content.get(key).map(|item| item.version),
                    };
                    delta.dirty.push((key.clone(), Some(Dirty { base, changed: version })));
                }
            }
        }
        if self.log.len() >= SUFFIX_MAX {
            delta.dropped = self.log.front().map(|entry| entry.version);
        }
        delta.pushed = Some(entry);
        delta
    }

    /// The whole copy of a peer, and the transitions that tell what was lost by it.
    pub(super) fn replace(
        &self,
        head: Version,
        items: Vec<(String, Item)>,
        lost: Vec<(String, HistoryEntry)>,
    ) -> Delta {
        let lost = lost.into_iter().map(|(key, entry)| (key, Some(entry)));
        let taken = items.iter().filter(|(key, _)| self.content.outbox.contains_key(key));
        let outbox = lost.chain(taken.map(|(key, _)| (key.clone(), None))).collect();
        let items = items.into_iter().map(|(key, item)| (key, Some(item))).collect();
        Delta { replace: true, trusted: true, head: Some(head), items, outbox, ..Delta::default() }
    }

    /// The peer has all writes up to `version`. `None`: nothing changes by that.
    pub(super) fn confirmed(&self, version: Version) -> Option<Delta> {
        let clean = self.dirty.iter().filter(|(_, dirty)| dirty.changed <= version);
        let dirty: Vec<_> = clean.map(|(key, _)| (key.clone(), None)).collect();
        (!dirty.is_empty()).then(|| Delta { dirty, ..Delta::default() })
    }

    /// All that this node wrote alone was offered, and its last write is in the owner's line.
    pub(super) fn in_line(&self) -> Option<Delta> {
        let dirty: Vec<_> = self.dirty.keys().map(|key| (key.clone(), None)).collect();
        (!dirty.is_empty()).then(|| Delta { dirty, ..Delta::default() })
    }

    /// This copy counts as whole from now on.
    pub(super) fn trusted() -> Delta {
        Delta { trusted: true, ..Delta::default() }
    }

    /// A transition of this node. Says too whether the oldest one had to give way.
    pub(super) fn record(&self, key: String, entry: HistoryEntry) -> (Delta, bool) {
        let outbox = &self.content.outbox;
        let full = outbox.len() >= HISTORY_MAX && !outbox.contains_key(&key);
        let oldest = outbox.keys().next().filter(|_| full).map(|oldest| (oldest.clone(), None));
        let changes = oldest.into_iter().chain([(key, Some(entry))]).collect();
        (Delta { outbox: changes, ..Delta::default() }, full)
    }

    /// The writes after `version`, if they are all in the log.
    pub(super) fn suffix(&self, version: Version) -> Option<impl Iterator<Item = &Entry>> {
        let known = version == self.head() || self.log.iter().any(|entry| entry.prev == version);
        known.then(|| self.log.iter().filter(move |entry| entry.version > version))
    }

    /// One write of the log.
    pub(super) fn suffix_one(&self, version: Version) -> Option<Entry> {
        self.log.iter().rev().find(|entry| entry.version == version).cloned()
    }

    /// The oldest transitions that must go when `changes` come.
    pub(super) fn trimmed(&self, changes: &[(String, Option<Vec<u8>>)]) -> Vec<String> {
        let new: Vec<&str> = changes
            .iter()
            .filter(|(key, value)| value.is_some() && key.starts_with(HISTORY) && self.content.get(key).is_none())
            .map(|(key, _)| key.as_str())
            .collect();
        if new.is_empty() {
            return Vec::new();
        }
        let mut all: Vec<&str> = self.content.scan(HISTORY).map(|(key, _)| key).chain(new).collect();
        all.sort_unstable();
        let over = all.len().saturating_sub(HISTORY_MAX);
        all.into_iter().take(over).map(str::to_owned).collect()
    }

    /// Whether `changes` have room.
    pub(super) fn has_room(&self, changes: &[(String, Option<Vec<u8>>)], room: Room) -> bool {
        let times = match room {
            Room::Own => 1,
            Room::Taken => 2,
        };
        let added = |(key, value): &(String, Option<Vec<u8>>)| value.as_ref().map_or(0, |v| key.len() + v.len());
        let new = changes.iter().filter(|(key, value)| value.is_some() && self.content.get(key).is_none()).count();
        let dirty = changes.iter().filter(|(key, _)| !self.dirty.contains_key(key)).count();
        self.content.items.len() + new <= times * STATE_KEYS_MAX
            && self.content.bytes + changes.iter().map(added).sum::<usize>() <= times * STATE_BYTES_MAX
            && self.dirty.len() + dirty <= 4 * STATE_KEYS_MAX
    }
}

/// Against which limit a change is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// The owner's, for what it writes.
    Own,
    /// The follower's, for what it takes: twice that. What an owner took in, its follower never refuses.
    Taken,
}

/// Who made a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// This node, as owner.
    Me,
    /// The peer, as owner.
    Peer,
}

fn typed<T: serde::de::DeserializeOwned>(store: &dyn Store, prefix: &str) -> Result<BTreeMap<String, T>, Error> {
    let read = |(key, payload): (Vec<u8>, Vec<u8>)| {
        let name = key.get(prefix.len()..).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or_else(|| Error::Corrupt(String::from_utf8_lossy(&key).into_owned()))?;
        Ok((name.to_owned(), decode(&key, &payload)?))
    };
    store.scan(prefix.as_bytes())?.into_iter().map(read).collect()
}

fn put_all<T: Serialize>(batch: &mut Batch, prefix: &str, all: &[(String, Option<T>)]) -> Result<(), Error> {
    for (key, value) in all {
        let key = format!("{prefix}{key}");
        match value {
            Some(value) => batch.put(key, value)?,
            None => batch.delete(key),
        }
    }
    Ok(())
}

fn set_all<T>(map: &mut BTreeMap<String, T>, all: Vec<(String, Option<T>)>) {
    for (key, value) in all {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
