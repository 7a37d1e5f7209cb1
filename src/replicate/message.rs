//! What two replicas say to each other, and its bytes. Pure.
//!
//! A peer is authenticated, and still believed in nothing: lengths are checked before a message is used.

use super::{
    content::{Entry, Item, Trust},
    types::{Op, Version, WriteError, Written, check},
};
use crate::{
    cluster::{Member, Term},
    limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX, OFFER_OPS_MAX, RECORD_BYTES_MAX, VALUE_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

/// Version of this protocol.
pub(super) const PROTOCOL: u16 = 1;
/// No honest term is above this: it would take longer than the sun has.
const TERM_MAX: u64 = u64::MAX / 2;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// First of each session, from both.
    Hello(Hello),
    /// I own the state in this term: tell me where you are.
    Lead { term: Term },
    /// Your term is below the highest that I know.
    Refuse { highest: Term },
    /// What I wrote alone, to be made again if nothing has changed since. One at a time.
    Offer { term: Term, ops: Vec<Offered> },
    /// The offer was dealt with, durably: taken, or in the history as a conflict.
    Settled { term: Term },
    /// I am here: send what is missing.
    Follow { term: Term, head: Version },
    /// Your last write is in my line; what you miss comes now.
    Resume { term: Term },
    /// A write, live or missed.
    Entry { term: Term, entry: Entry },
    /// A whole copy begins; without a term, because yours or mine is suspect.
    CopyBegin { term: Option<Term>, head: Version },
    /// Some of its keys.
    CopyPart { items: Vec<(String, Item)> },
    /// It ends, and had so many keys.
    CopyEnd { keys: u32 },
    /// Everything up to here is on my disk.
    Ack { term: Option<Term>, head: Version },
    /// Write this for me.
    Submit { id: u64, ops: Vec<Op> },
    /// What became of it.
    Answer { id: u64, result: Result<Written, WriteError> },
    /// I am still here.
    Ping,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u16,
    pub(super) member: Member,
    pub(super) highest: Term,
    pub(super) head: Version,
    pub(super) trust: Trust,
}

/// A write that was made alone, as its node offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    /// Take it if the key still has this version.
    pub(super) base: Option<Version>,
    /// The version that it had at its author's.
    pub(super) changed: Version,
}

impl Message {
    /// Its bytes, without the frame's length.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let bytes = postcard::to_stdvec(self).map_err(|e| e.to_string())?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(format!("a message of {} bytes", bytes.len()));
        }
        Ok(bytes)
    }

    /// The message, if it is one within its limits.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let message: Self = postcard::from_bytes(bytes).map_err(|_| "unreadable message")?;
        if message.is_within_limits() { Ok(message) } else { Err("message beyond its limits") }
    }

    fn is_within_limits(&self) -> bool {
        let fine = |term: Term| term.0 <= TERM_MAX;
        let key = |key: &str| !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        match self {
            Self::Hello(hello) => fine(hello.highest) && fine(hello.head.term),
            Self::Lead { term } | Self::Settled { term } | Self::Resume { term } => fine(*term),
            Self::Refuse { highest } => fine(*highest),
            Self::Offer { term, ops } => {
                let bytes: usize = ops.iter().map(|op| op.key.len() + op.value.as_ref().map_or(0, Vec::len)).sum();
                fine(*term)
                    && ops.len() <= OFFER_OPS_MAX
                    && bytes <= VALUE_BYTES_MAX + KEY_BYTES_MAX
                    && ops.iter().all(|op| key(&op.key) && fine(op.changed.term))
            }
            Self::Follow { term, head } => fine(*term) && fine(head.term),
            Self::Entry { term, entry } => {
                let size = |(k, v): &(String, Option<Vec<u8>>)| k.len() + v.as_ref().map_or(0, Vec::len);
                fine(*term)
                    && fine(entry.version.term)
                    && entry.changes.iter().all(|(k, _)| key(k))
                    && entry.changes.iter().map(size).sum::<usize>() <= RECORD_BYTES_MAX - 1024
            }
            Self::CopyBegin { term, head } | Self::Ack { term, head } => term.is_none_or(fine) && fine(head.term),
            Self::CopyPart { items } => items.iter().all(|(k, item)| key(k) && item.value.len() <= VALUE_BYTES_MAX),
            Self::Submit { id: _, ops } => check(ops).is_ok(),
            Self::CopyEnd { .. } | Self::Answer { .. } | Self::Ping => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(message.is_within_limits());
            }
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let far = Message::Lead { term: Term(u64::MAX) };
        assert!(Message::decode(&far.encode().unwrap()).is_err());
        let item = Item { version: Version::ZERO, value: vec![0; VALUE_BYTES_MAX + 1] };
        let part = Message::CopyPart { items: vec![("k".to_owned(), item)] };
        assert!(Message::decode(&part.encode().unwrap()).is_err());
        let long = Message::Submit { id: 1, ops: vec![Op::put("k".repeat(KEY_BYTES_MAX + 1), [1])] };
        assert!(Message::decode(&long.encode().unwrap()).is_err());
    }
}
