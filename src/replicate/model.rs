//! Two replicas in virtual time: a stream that breaks anywhere, owners that change, crashes, disks that go back.
//!
//! The world knows the truth (who holds the lease, what is on both disks) and checks after each commit and answer:
//! - an acknowledged replicated write is on both disks, then and ever after;
//! - a write is answered only while the lease runs in which it was made;
//! - a follower writes nothing that came from a term below its highest;
//! - what a node wrote alone is on the other node, or in the history as a conflict, before it is forgotten;
//! - the memory is what a restart would load;
//!
//! and once faults are over: both replicas are equal, nothing is left unreplicated, every transition is recorded.
//! A run fails with a text, so that planted faults can be seen to turn it red.

use super::{
    content::{Copy, Trust, log_key},
    message::Message,
    protocol::{Action, Event, Faults, Input, Now, Replica},
    types::{HistoryEntry, Op, Role, Version, ViewRole, WriteError, Written},
};
use crate::{
    cluster::{Member, Name, Term},
    limits::{FORWARD_WAIT, HISTORY_MAX, REPLICATE_WAIT},
    store::{Batch, Memory, Store},
    time::Instant,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    time::Duration,
};

mod named;
mod walk;

const LEASE: Duration = Duration::from_millis(500);

/// What went wrong.
type Check = Result<(), String>;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One node: its disk, and while it runs its replica.
struct Node {
    store: Memory,
    /// An earlier state of the disk, to go back to.
    earlier: Memory,
    replica: Option<Replica>,
    commit: Option<Batch>,
    /// Bytes of messages on their way to it.
    inbox: VecDeque<Vec<u8>>,
    /// It has a session.
    attached: bool,
    /// Writes asked for: what they write.
    asked: BTreeMap<u64, (String, Vec<u8>)>,
    answers: BTreeMap<u64, Result<Written, WriteError>>,
    /// Versions that came with a term below its highest.
    forbidden: BTreeSet<Version>,
    /// Every key and value that was ever on its disk.
    ever: HashSet<(String, Vec<u8>)>,
    /// Answered, marked as not replicated.
    alone: Vec<(String, Vec<u8>)>,
    records: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// `None`: it has died, and its lease runs out.
    node: Option<usize>,
    term: Term,
    until: Instant,
}

/// How often what happened, to see that the walk goes everywhere.
#[derive(Debug, Default)]
struct Stats {
    replicated: u64,
    alone: u64,
    unknown: u64,
    forwarded: u64,
    conflicts: u64,
    copies: u64,
    refusals: u64,
    crashes: u64,
    rollbacks: u64,
}

struct World {
    random: Random,
    now: Instant,
    nodes: [Node; 2],
    /// The stream works; else it is cut, and each side sees that when its inbox is empty.
    connected: bool,
    lease: Option<Lease>,
    last_term: u64,
    /// Acknowledged replicated writes: never below this version again.
    floor: BTreeMap<String, Version>,
    faults: Faults,
    next: u64,
    stats: Stats,
}

fn member(node: usize) -> Member {
    Member::ALL[node]
}

fn name(node: usize) -> Name {
    Name::new(["n1", "n2"][node]).unwrap()
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let node = || Node {
            store: Memory::new(),
            earlier: Memory::new(),
            replica: None,
            commit: None,
            inbox: VecDeque::new(),
            attached: false,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            forbidden: BTreeSet::new(),
            ever: HashSet::new(),
            alone: Vec::new(),
            records: BTreeSet::new(),
        };
        let mut world = Self {
            random: Random(seed),
            now: Instant::from_millis(1_000),
            nodes: [node(), node()],
            connected: false,
            lease: None,
            last_term: 0,
            floor: BTreeMap::new(),
            faults,
            next: 0,
            stats: Stats::default(),
        };
        world.start(0);
        world.start(1);
        world
    }

    fn start(&mut self, node: usize) {
        let highest = if self.random.one_in(2) { Term(0) } else { Term(self.last_term) };
        let store = &self.nodes[node].store;
        let mut replica = Replica::load(member(node), name(node), store, highest).unwrap();
        replica.faults = self.faults;
        self.nodes[node].replica = Some(replica);
    }

    fn crash(&mut self, node: usize) {
        let kept = self.random.one_in(2);
        let n = &mut self.nodes[node];
        if let Some(batch) = n.commit.take()
            && kept
        {
            n.store.commit(batch).unwrap();
            let copy = Copy::load(&n.store).unwrap();
            n.ever.extend(copy.content.items.iter().map(|(key, item)| (key.clone(), item.value.clone())));
        }
        n.replica = None;
        n.inbox.clear();
        n.attached = false;
        n.asked.clear();
        self.connected = false;
        // The lease runs on, but its holder is gone.
        self.stats.crashes += 1;
    }

    /// The disk of a crashed node goes back in time, and the store notices.
    fn roll_back(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.store = n.earlier.clone().rolled_back();
        n.alone.clear();
        n.records.clear();
        self.stats.rollbacks += 1;
    }

    /// One input to a node, and what it does about it.
    fn handle(&mut self, node: usize, input: Input) -> Check {
        let now = Now { at: self.now, unix_ms: self.now.as_nanos() / 1_000_000 };
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
            for action in replica.handle(now, input) {
                match action {
                    Action::Persist(batch) => {
                        if self.nodes[node].commit.replace(batch).is_some() {
                            return Err("two commits at a time".to_owned());
                        }
                    }
                    Action::Send(message) => self.sent(node, &message)?,
                    Action::Answer { id, result } => self.answered(node, id, result)?,
                    Action::Disconnect(_) => {
                        self.cut();
                        self.nodes[node].attached = false;
                        self.nodes[node].inbox.clear();
                        next = Some(Input::Disconnected);
                    }
                    Action::Event(Event::Conflict { .. }) => self.stats.conflicts += 1,
                    Action::Event(Event::CopyTaken { .. }) => self.stats.copies += 1,
                    Action::Event(Event::TermBelow { .. } | Event::StoreFailed(_)) => {}
                }
            }
        }
        Ok(())
    }

    fn sent(&mut self, node: usize, message: &Message) -> Check {
        if let Message::Answer { id: _, result: Ok(written) } = message {
            self.in_lease(node, *written)?;
        }
        self.stats.refusals += u64::from(matches!(message, Message::Refuse { .. }));
        if self.connected && self.nodes[node].attached {
            self.nodes[1 - node].inbox.push_back(message.encode()?);
        }
        Ok(())
    }

    /// A write is answered by the owner of its term, while the lease runs.
    fn in_lease(&self, node: usize, written: Written) -> Check {
        match self.lease {
            Some(lease) if lease.node == Some(node) && lease.term == written.version.term && self.now < lease.until => {
                Ok(())
            }
            Some(_) | None => Err(format!("node {node} answered {written:?} without the lease {:?}", self.lease)),
        }
    }

    fn answered(&mut self, node: usize, id: u64, result: Result<Written, WriteError>) -> Check {
        let Some((key, value)) = self.nodes[node].asked.remove(&id) else {
            return Err(format!("write {id} answered twice"));
        };
        match &result {
            Ok(written) => {
                if written.version.term.0 % 2 == u64::from(node == 0) {
                    self.in_lease(node, *written)?;
                } else {
                    self.stats.forwarded += 1;
                }
                if written.replicated {
                    self.stats.replicated += 1;
                    let floor = self.floor.entry(key).or_default();
                    *floor = written.version.max(*floor);
                    self.on_both()?;
                } else {
                    self.stats.alone += 1;
                    let owner = usize::from(written.version.term.0 % 2 == 0);
                    self.nodes[owner].alone.push((key, value));
                }
            }
            Err(WriteError::Unknown) => self.stats.unknown += 1,
            Err(_) => {}
        }
        self.nodes[node].answers.insert(id, result);
        Ok(())
    }

    /// Acknowledged replicated writes are on both disks, unless a disk went back and was not mended yet.
    fn on_both(&self) -> Check {
        for (number, node) in self.nodes.iter().enumerate() {
            let copy = Copy::load(&node.store).map_err(|e| e.to_string())?;
            if copy.trust == Trust::Suspect {
                continue;
            }
            for (key, version) in &self.floor {
                let found = copy.content.get(key).map(|item| item.version);
                if found < Some(*version) {
                    return Err(format!("{key} {version} was acknowledged, node {number} has {found:?}"));
                }
            }
        }
        Ok(())
    }

    /// The commit under way is durable.
    fn commit(&mut self, node: usize) -> Check {
        let Some(batch) = self.nodes[node].commit.take() else { return Ok(()) };
        let before = self.nodes[node].replica.as_ref().map(|replica| replica.copy().clone());
        self.nodes[node].store.commit(batch).map_err(|e| e.to_string())?;
        self.handle(node, Input::Persisted(Ok(())))?;
        let n = &mut self.nodes[node];
        if let Some(version) = n.forbidden.iter().find(|v| n.store.get(&log_key(**v)).is_ok_and(|r| r.is_some())) {
            return Err(format!("node {node} took {version} from a term below its highest"));
        }
        if let (Some(before), Some(replica)) = (before, &n.replica) {
            let after = replica.copy();
            if n.commit.is_none() && Copy::load(&n.store).map_err(|e| e.to_string())? != *after {
                return Err(format!("node {node}: memory and disk differ"));
            }
            for (key, item) in &after.content.items {
                if before.content.get(key) != Some(item) {
                    n.ever.insert((key.clone(), item.value.clone()));
                }
            }
            let after = after.clone();
            self.nothing_forgotten(node, &before, &after)?;
        }
        self.on_both()
    }

    /// What left the dirty keys is on the other node, or was, or is in a history.
    fn nothing_forgotten(&self, node: usize, before: &Copy, after: &Copy) -> Check {
        for (key, dirty) in before.dirty.iter().filter(|(key, _)| !after.dirty.contains_key(*key)) {
            let Some(item) = before.content.get(key) else { continue };
            let arrived = self.nodes[1 - node].ever.contains(&(key.clone(), item.value.clone()));
            let told = |copy: &Copy| copy.content.history().iter().any(|e| e.text.starts_with(&format!("{key} ")));
            let other = Copy::load(&self.nodes[1 - node].store).map_err(|e| e.to_string())?;
            if !arrived && !told(&other) && !told(after) && !key.starts_with("history/") {
                return Err(format!("{key} {dirty:?} of node {node} was lost"));
            }
        }
        Ok(())
    }

    /// Delivers one message, or the end of the stream.
    fn deliver(&mut self, node: usize) -> Check {
        let n = &mut self.nodes[node];
        let Some(replica) = &n.replica else { return Ok(()) };
        if !n.attached || !replica.wants_message() {
            return Ok(());
        }
        let Some(bytes) = n.inbox.pop_front() else {
            if self.connected {
                return Ok(());
            }
            n.attached = false;
            return self.handle(node, Input::Disconnected);
        };
        let message = Message::decode(&bytes)?;
        if let Message::Entry { term, entry } = &message {
            if *term < replica.highest() {
                n.forbidden.insert(entry.version);
            } else {
                n.forbidden.remove(&entry.version);
            }
        }
        self.handle(node, Input::Message(message))
    }

    fn connect(&mut self) -> Check {
        if self.nodes.iter().any(|n| n.replica.is_none()) {
            return Ok(());
        }
        self.connected = true;
        for node in 0..2 {
            self.nodes[node].inbox.clear();
            self.nodes[node].attached = true;
        }
        let first = usize::from(self.random.one_in(2));
        self.handle(first, Input::Connected)?;
        self.handle(1 - first, Input::Connected)
    }

    /// The stream breaks; some of what was under way still arrives.
    fn cut(&mut self) {
        self.connected = false;
        for node in 0..2 {
            let left = self.random.below(self.nodes[node].inbox.len() as u64 + 1);
            self.nodes[node].inbox.truncate(usize::try_from(left).unwrap());
        }
    }

    /// A node is elected; the last lease is over.
    fn elect(&mut self, node: usize) -> Check {
        assert!(self.lease.is_none_or(|lease| self.now >= lease.until));
        self.last_term += 1 + u64::from(self.last_term % 2 != u64::from(node == 1));
        self.lease = Some(Lease { node: Some(node), term: Term(self.last_term), until: self.now + LEASE });
        self.tell_owner()
    }

    fn renew(&mut self) -> Check {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.node.is_some()) {
            lease.until = self.now + LEASE;
        }
        self.tell_owner()
    }

    fn tell_owner(&mut self) -> Check {
        let Some(Lease { node: Some(node), term, until }) = self.lease else { return Ok(()) };
        self.handle(node, Input::Role(Role::Owner { term, until }))
    }

    fn pass(&mut self, time: Duration) -> Check {
        self.now = self.now + time;
        self.handle(0, Input::Tick)?;
        self.handle(1, Input::Tick)
    }

    fn write(&mut self, node: usize, key: &str) -> Result<u64, String> {
        self.next += 1;
        let (id, value) = (self.next, self.next.to_be_bytes().to_vec());
        if self.nodes[node].replica.is_some() {
            self.nodes[node].asked.insert(id, (key.to_owned(), value.clone()));
            self.handle(node, Input::Write { id, ops: vec![Op::put(key, value)] })?;
        }
        Ok(id)
    }

    fn record(&mut self, node: usize) -> Check {
        self.next += 1;
        let entry = HistoryEntry {
            at_unix_ms: self.now.as_nanos() / 1_000_000,
            node: name(node),
            group: Name::new("web").unwrap(),
            from: "standby".to_owned(),
            to: "active".to_owned(),
            cause: "peer_lease_expired".to_owned(),
            term: Term(self.last_term),
            after_ms: Some(5),
            text: format!("#{}", self.next),
        };
        let key = entry.key(&self.next.to_string());
        self.handle(node, Input::Record { key: key.clone(), entry })?;
        // It counts once it is on the node's own disk: with no commit under way that is the next one.
        let n = &mut self.nodes[node];
        if n.replica.is_some() && n.commit.is_some() {
            self.commit(node)?;
            let n = &mut self.nodes[node];
            let copy = Copy::load(&n.store).map_err(|e| e.to_string())?;
            if copy.content.outbox.contains_key(&key) {
                n.records.insert(key);
            }
        }
        Ok(())
    }

    /// Messages and commits, until nothing moves.
    fn settle(&mut self) -> Check {
        for _ in 0..20_000 {
            let busy = (0..2).any(|i| {
                let n = &self.nodes[i];
                n.commit.is_some() || (n.attached && (!n.inbox.is_empty() || !self.connected))
            });
            if !busy {
                return Ok(());
            }
            for node in 0..2 {
                self.commit(node)?;
                self.deliver(node)?;
            }
        }
        Err("it never settles".to_owned())
    }
}
