//! A commit: changes that are made together or not at all; and what any store can do.

use super::{Error, Seq};
use crate::limits::RECORD_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Key and payload of a record.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes that are made together or not at all. A later change of a key takes the place of an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Every key with one of these prefixes is removed first.
    pub(super) cleared: Vec<Vec<u8>>,
    pub(super) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) settles: bool,
}

impl Batch {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it is longer than `limits::RECORD_BYTES_MAX`: it must be cut into pieces.
    pub fn put<T: Serialize>(&mut self, key: impl Into<Vec<u8>>, value: &T) -> Result<(), Error> {
        let key = key.into();
        let name = || String::from_utf8_lossy(&key).into_owned();
        let payload = postcard::to_stdvec(value).map_err(|e| Error::Corrupt(format!("{}: {e}", name())))?;
        if payload.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLarge(format!("{}: {} bytes", name(), payload.len())));
        }
        self.changes.insert(key, Some(payload));
        Ok(())
    }

    /// Removes a record.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), None);
    }

    /// Removes all records whose keys begin with `prefix`, before this batch's own are written: for a whole copy.
    pub fn clear(&mut self, prefix: impl Into<Vec<u8>>) {
        self.cleared.push(prefix.into());
    }

    /// Says that with this commit the store is whole again: the mark of a roll-back goes away.
    pub fn settle(&mut self) {
        self.settles = true;
    }
}

/// What a store can do: the keyspace on disk and its twin in memory. All of it blocks.
pub trait Store: Send {
    /// A record's payload.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Keys and payloads of all records whose keys begin with `prefix`, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`].
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error>;

    /// Makes the changes; they are durable when it returns.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: nothing has changed. Every other error is final.
    fn commit(&mut self, batch: Batch) -> Result<Seq, Error>;

    /// Whether something that was once confirmed may be missing here. It stays so until a batch settles it.
    fn is_suspect(&self) -> bool;
}

/// Reads what [`Batch::put`] wrote.
///
/// # Errors
/// [`Error::Corrupt`] names the key.
pub fn decode<T: DeserializeOwned>(key: &[u8], payload: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(payload).map_err(|e| Error::Corrupt(format!("{}: {e}", String::from_utf8_lossy(key))))
}
