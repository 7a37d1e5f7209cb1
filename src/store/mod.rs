//! What must survive: the promise file, and the keyspace. The only place that names sled.
//!
//! Hears: records and batches to keep. Tells: when they are on the disk.
//! Nothing is confirmed before `fdatasync` came back, and an error of a write is final: what the disk then holds is
//! unknown, so this store is failed until the process starts anew (a second fsync would report success for pages that
//! the first one lost).
//!
//! | part | keeps | how |
//! |---|---|---|
//! | [`promise`] | what a voter promised, and how far the keyspace had come | two slots of one file, each in two copies |
//! | [`keyspace`] | versioned records | sled, behind a guard against its known faults |
//! | [`memory`] | the same in memory, for models and tests | |
//!
//! Not here: what the records mean (`replicate`), when a vote is given (`cluster`).

pub mod batch;
pub mod disk;
pub mod folder;
pub mod keyspace;
pub mod memory;
pub mod promise;
mod record;
pub mod voter;

pub use batch::{Batch, Store};
pub use disk::Disk;
pub use folder::Folder;
pub use keyspace::{Condition, Keyspace, in_guarded_open};
pub use memory::Memory;
pub use promise::{Election, GroupMemory, Opened, PromiseFile, Record};
pub use voter::{ElectionWriter, Promises};

use std::{fmt, io, path::Path};

/// The number of a commit; they grow by one.
pub type Seq = u64;

/// All that a node keeps in its state folder.
#[derive(Debug)]
pub struct Stores {
    /// The lock on the folder: keep it as long as the rest.
    pub folder: Folder,
    /// The promise file.
    pub promises: Promises,
    /// The keyspace.
    pub keyspace: Keyspace,
    /// In what condition the keyspace was found.
    pub condition: Condition,
}

/// Locks and opens a node's state folder; makes it if need be. Blocks.
///
/// # Errors
/// [`Error::Locked`] names the process that uses it, [`Error::Damaged`] a promise file that cannot be believed;
/// [`Error::Io`] if the disk or its rights are at fault.
pub fn open(path: &Path) -> Result<Stores, Error> {
    let folder = Folder::open(path)?;
    let promises = Promises::open(folder.path())?;
    let (keyspace, condition) = Keyspace::open(&folder, promises.clone())?;
    Ok(Stores { folder, promises, keyspace, condition })
}

/// Why something could not be kept or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A file could not be used. Before a write nothing has changed; after one the store is [`Error::Failed`].
    Io {
        /// What was tried, with the path.
        what: String,
        /// What the system said.
        cause: String,
    },
    /// Another process uses the folder.
    Locked {
        /// The folder.
        folder: String,
        /// The other process, if its name was to be had.
        pid: Option<u32>,
    },
    /// The promise file cannot be believed; the text says what to do.
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// An earlier write failed. Nothing more is written by this process.
    Failed(String),
    /// The record is longer than `limits::RECORD_BYTES_MAX`, or there are too many. Nothing has changed.
    TooLarge(String),
    /// A record is not what was written.
    Corrupt(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, cause } => write!(f, "cannot {what}: {cause}"),
            Self::Locked { folder, pid: Some(pid) } => write!(f, "{folder} is in use by process {pid}"),
            Self::Locked { folder, pid: None } => write!(f, "{folder} is in use by another process"),
            Self::Damaged { file, why } => write!(
                f,
                "promise file {file} is damaged ({why}): restore it from a backup of this machine; or, only if you are \
                 sure that every promise this machine ever gave is over, move the file away: it then starts as a voter \
                 without memory"
            ),
            Self::Failed(why) => write!(f, "the store has failed: {why}"),
            Self::TooLarge(what) => write!(f, "too large for the store: {what}"),
            Self::Corrupt(what) => write!(f, "corrupt record: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An input/output error while doing `what` to `path`.
    fn io(what: &str, path: &Path, cause: &io::Error) -> Self {
        Self::Io { what: format!("{what} {}", path.display()), cause: cause.to_string() }
    }
}
