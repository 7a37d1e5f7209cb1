//! The words of the replicated state: versions, operations, transitions, answers, the view for people.

use crate::{
    cluster::{GroupName, Name, Term},
    limits::{HISTORY_TEXT_BYTES_MAX, HISTORY_WORD_BYTES_MAX, KEY_BYTES_MAX, OPS_PER_WRITE_MAX, VALUE_BYTES_MAX},
    time::Instant,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Keys of the standby flags begin with this; the node's name follows.
pub const STANDBY: &str = "standby/";
/// Keys of the transitions begin with this; time, node and a number follow, so that they sort by time.
pub(crate) const HISTORY: &str = "history/";

/// The key of a node's standby flag.
#[must_use]
pub fn standby_key(node: &Name) -> String {
    format!("{STANDBY}{node}")
}

/// When a value was written: the owner's term, and a number that grows with each write of that term. All writes of one
/// line of owners are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The owner's term.
    pub term: Term,
    /// Its how-manieth write.
    pub counter: u64,
}

impl Version {
    /// Before the first write.
    pub const ZERO: Self = Self { term: Term(0), counter: 0 };

    /// The version of the next write of an owner in `term`.
    #[must_use]
    pub const fn next(self, term: Term) -> Self {
        Self { term, counter: if self.term.0 == term.0 { self.counter + 1 } else { 1 } }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.counter)
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// The key.
    pub key: String,
    /// The new value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
    /// On what condition.
    pub when: When,
}

/// On what condition a key is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// On none.
    Always,
    /// If the key is not there.
    Absent,
    /// If the key has this version.
    Unchanged(Version),
}

impl Op {
    /// Writes a value.
    #[must_use]
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: Some(value.into()), when: When::Always }
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, when: When::Always }
    }

    /// Sets or clears a node's standby flag.
    #[must_use]
    pub fn standby(node: &Name, on: Standby) -> Self {
        Self::put(standby_key(node), [u8::from(on == Standby::On)])
    }

    /// The same, on a condition.
    #[must_use]
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// Bytes of key and value.
    pub(super) fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Whether a node is in standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standby {
    /// It owns nothing and campaigns for nothing.
    On,
    /// It takes part.
    Off,
}

/// What a write may hold; said before it goes anywhere.
pub(super) fn check(ops: &[Op]) -> Result<(), WriteError> {
    let refuse = |why: String| Err(WriteError::Refused(why));
    if ops.is_empty() || ops.len() > OPS_PER_WRITE_MAX {
        return refuse(format!("{} changes in one write instead of 1 to {OPS_PER_WRITE_MAX}", ops.len()));
    }
    if let Some(op) = ops.iter().find(|op| op.key.is_empty() || op.key.len() > KEY_BYTES_MAX) {
        return refuse(format!("a key of {} bytes instead of 1 to {KEY_BYTES_MAX}", op.key.len()));
    }
    let keys: BTreeSet<&str> = ops.iter().map(|op| op.key.as_str()).collect();
    if keys.len() < ops.len() {
        return refuse("the same key twice in one write".to_owned());
    }
    let bytes: usize = ops.iter().map(Op::size).sum();
    if bytes > VALUE_BYTES_MAX {
        return refuse(format!("{bytes} bytes in one write instead of {VALUE_BYTES_MAX} at most"));
    }
    Ok(())
}

/// A write that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its version.
    pub version: Version,
    /// It is on both nodes' disks. If not, it is on the owner's, and goes to the peer when it returns.
    pub replicated: bool,
}

/// Why a write was not made, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteError {
    /// No owner of the state can be reached. Nothing has changed.
    NoOwner,
    /// The owner knows of a higher term and must be elected above it first. Nothing has changed.
    Behind(Term),
    /// The owner's copy may lack something that was confirmed once, and its peer is away. Nothing has changed.
    Suspect,
    /// The key was changed since. Nothing has changed.
    Conflict {
        /// The key.
        key: String,
        /// Its version now, if it is there.
        found: Option<Version>,
    },
    /// It is malformed or too large, or there is no room. Nothing has changed.
    Refused(String),
    /// Too many writes wait already. Nothing has changed.
    Busy,
    /// The lease or the connection ended before the answer: it may or may not be made.
    Unknown,
    /// The owner's store has failed. It may or may not be made.
    Failed(String),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOwner => f.write_str("no owner of the state can be reached; nothing has changed"),
            Self::Behind(term) => {
                write!(f, "the owner must be elected above term {term} first; nothing has changed; try again")
            }
            Self::Suspect => f.write_str(
                "this node's copy of the state may lack confirmed writes, and its peer is away; nothing has changed: \
                 bring the peer back, or accept this copy as it is",
            ),
            Self::Conflict { key, found: Some(v) } => {
                write!(f, "{key} was changed meanwhile (version {v}); nothing has changed")
            }
            Self::Conflict { key, found: None } => write!(f, "{key} is not there any more; nothing has changed"),
            Self::Refused(why) => write!(f, "refused: {why}; nothing has changed"),
            Self::Busy => f.write_str("too many writes are waiting; nothing has changed; try again"),
            Self::Unknown => f.write_str("the write was not answered in time: it may or may not have been made"),
            Self::Failed(why) => write!(f, "{why}: the write may or may not have been made"),
        }
    }
}

impl std::error::Error for WriteError {}

/// A transition, for people: who became what, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Wall clock of the node that made it, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The node that made it.
    pub node: Name,
    /// The group.
    pub group: GroupName,
    /// What the node was.
    pub from: String,
    /// What it became.
    pub to: String,
    /// Why.
    pub cause: String,
    /// In which term.
    pub term: Term,
    /// How long after its cause, if that is known.
    pub after_ms: Option<u64>,
    /// More, for people.
    pub text: String,
}

impl HistoryEntry {
    /// The same, with no text longer than its limit.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for word in [&mut self.from, &mut self.to, &mut self.cause] {
            shorten(word, HISTORY_WORD_BYTES_MAX);
        }
        shorten(&mut self.text, HISTORY_TEXT_BYTES_MAX);
        self
    }

    /// Its key: by time, then by node; `unique` tells apart what one node recorded in one millisecond.
    pub(super) fn key(&self, unique: &str) -> String {
        format!("{HISTORY}{:012x}-{}-{unique}", self.at_unix_ms & 0xffff_ffff_ffff, self.node)
    }
}

/// Cuts a text at a character.
fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// What this node may do with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It owns the group `state`.
    Owner {
        /// In this term.
        term: Term,
        /// Until the lease's end.
        until: Instant,
    },
    /// It does not.
    Follower,
}

/// The role, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewRole {
    /// Writes.
    Owner,
    /// Follows an owner, and has all that it has.
    InStep,
    /// Knows no owner, or is being brought up to date.
    #[default]
    Waiting,
}

/// Whether this node's copy can be believed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Yes.
    #[default]
    Ok,
    /// A write to the disk failed. The process must start anew.
    Failed(String),
    /// It may lack something that was confirmed once; waits for the peer's copy, or for an operator.
    RolledBack,
    /// It was never in step with a peer, or lost all; waits for the peer's copy, or for an operator.
    Rebuilding,
}

/// The replicated state as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// What this node does.
    pub role: ViewRole,
    /// Version of the last write that it has.
    pub version: Version,
    /// The highest term of the group `state` that it knows.
    pub highest: Term,
    /// A session with the peer is up.
    pub connected: bool,
    /// As owner: the last version that the peer confirmed.
    pub peer_version: Option<Version>,
    /// Keys changed here that the peer has not confirmed.
    pub unreplicated: usize,
    /// Transitions that wait for the owner.
    pub unrecorded: usize,
    /// Transitions that were dropped because too many waited.
    pub dropped: u64,
    /// Whether its copy can be believed.
    pub health: Health,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_beyond_its_limits_is_refused_before_it_goes_anywhere() {
        assert!(check(&[Op::put("k", vec![0; VALUE_BYTES_MAX - 1])]).is_ok());
        for bad in [
            vec![],
            vec![Op::put("k", vec![0; VALUE_BYTES_MAX])],
            vec![Op::put("k".repeat(KEY_BYTES_MAX + 1), [1])],
            vec![Op::put("", [1])],
            vec![Op::put("k", [1]), Op::put("k", [2])],
            vec![Op::put("k", [1]); OPS_PER_WRITE_MAX + 1],
        ] {
            assert!(matches!(check(&bad), Err(WriteError::Refused(_))), "{}", bad.len());
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mut text = "ä".repeat(40);
        shorten(&mut text, 63);
        assert_eq!(text, "ä".repeat(31));
    }

    #[test]
    fn versions_are_ordered_by_term_first() {
        let v = |term, counter| Version { term: Term(term), counter };
        assert!(v(3, 1) > v(2, 900) && v(2, 2) > v(2, 1));
        assert_eq!((v(2, 9).next(Term(2)), v(2, 9).next(Term(5))), (v(2, 10), v(5, 1)));
    }
}
