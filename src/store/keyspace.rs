//! Versioned records in sled 0.34.7, behind a guard against what it is known to do.
//!
//! Hears: batches. Tells: the number of each commit, once it is durable; at the start, in what condition the folder is.
//!
//! | fault of sled | guard |
//! |---|---|
//! | `flush` does not fsync on Linux | `fdatasync` on a second descriptor of its file after each flush |
//! | a lost page near the log's end opens silently with older values | each commit writes its number here and, once durable, in the promise file; a lower one here at the next start is a roll-back |
//! | a half-written snapshot file makes it refuse to open for ever | deleted before each open |
//! | some corrupt files make it panic, or hang | opened on a thread of its own, caught, with a deadline |
//! | values above 128 KiB are never removed | records end at `limits::RECORD_BYTES_MAX` |
//!
//! A folder that does not open is moved aside, never deleted. A roll-back is remembered in the keyspace itself until a
//! batch settles it, so that a second restart does not hide it.
//!
//! Not here: what the records mean, and where a whole copy comes from (`replicate`).

use super::{Batch, Error, Folder, Opened, Promises, Seq, Store, batch::Pair, folder, record};
use crate::limits::{LOCK_RETRY, LOCK_TRIES, STORE_CACHE_BYTES, STORE_OPEN_MAX};
use std::{
    cell::Cell,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, SystemTime},
};

/// Name of sled's folder.
const FOLDER: &str = "state";
/// Number of the last commit. Keys that begin with `!` are the keyspace's own.
const SEQ: &[u8] = b"!seq";
/// There while something that was once confirmed may be missing.
const SUSPECT: &[u8] = b"!suspect";

/// In what condition the folder was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All that was ever confirmed is there.
    Sound,
    /// It opened, but not with all that was confirmed; or nobody can tell, because the promise file is new or doubtful.
    RolledBack {
        /// Number of the last commit found.
        found: Seq,
        /// Number of the last commit confirmed, if the promise file knows one.
        confirmed: Option<Seq>,
    },
    /// It did not open, or was gone; it starts empty.
    Rebuilt {
        /// Where the old folder is now, if there was one.
        moved_to: Option<PathBuf>,
        /// Why it did not open.
        cause: String,
    },
}

/// The keyspace, open. Everything blocks: see [`super::Disk`].
#[derive(Debug)]
pub struct Keyspace {
    db: sled::Db,
    /// A second descriptor of sled's file, for `fdatasync`.
    side: File,
    promises: Promises,
    seq: Seq,
    suspect: bool,
    failed: Option<String>,
}

thread_local! {
    static OPENING_HERE: Cell<bool> = const { Cell::new(false) };
}
/// An open is under way somewhere: sled has threads of its own, named `sled-…`.
static OPENING: AtomicBool = AtomicBool::new(false);

/// Whether this thread is inside the guarded open, where a panic is an answer and not the end of the process. For the
/// panic hook that aborts everywhere else.
#[must_use]
pub fn in_guarded_open() -> bool {
    let of_sled = || thread::current().name().is_some_and(|name| name.starts_with("sled-"));
    OPENING_HERE.get() || (OPENING.load(Ordering::Relaxed) && of_sled())
}

impl Keyspace {
    /// Opens the keyspace of a folder, and compares it with the promise file of the same folder.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk or its rights are at fault, or sled did not come to an end in time: then nothing was
    /// moved. [`Error::Failed`] if the promise file cannot be written.
    pub fn open(folder: &Folder, promises: Promises) -> Result<(Self, Condition), Error> {
        Self::open_within(folder, promises, STORE_OPEN_MAX)
    }

    fn open_within(folder: &Folder, promises: Promises, deadline: Duration) -> Result<(Self, Condition), Error> {
        let path = folder.path().join(FOLDER);
        let existed = path.exists();
        let (db, broken) = match guarded(&path, deadline).and_then(verified) {
            Ok(db) => (db, None),
            Err(Refusal::World(e)) => return Err(e),
            Err(Refusal::Content(cause)) => {
                let moved_to = move_aside(&path)?;
                let db = guarded(&path, deadline).map_err(Refusal::into_error)?;
                (db, Some(Condition::Rebuilt { moved_to: Some(moved_to), cause }))
            }
        };
        make_durable(&path, folder.path())?;
        let side = path.join("db");
        let side = File::open(&side).map_err(|e| Error::io("open", &side, &e))?;
        let found = read_seq(&db)?;
        let confirmed = promises.commit();
        let marked = db.contains_key(SUSPECT).map_err(|e| Error::Corrupt(e.to_string()))?;
        let condition = broken.unwrap_or_else(|| match promises.found() {
            Opened::Missing if found > 0 => Condition::RolledBack { found, confirmed: None },
            Opened::Missing => Condition::Sound,
            Opened::Found(_) | Opened::Doubtful(_) if !existed && confirmed > 0 => {
                Condition::Rebuilt { moved_to: None, cause: format!("{} is gone", path.display()) }
            }
            Opened::Found(_) if found < confirmed || marked => {
                Condition::RolledBack { found, confirmed: Some(confirmed) }
            }
            Opened::Found(_) => Condition::Sound,
            // Perhaps more was confirmed than is known.
            Opened::Doubtful(_) => Condition::RolledBack { found, confirmed: None },
        });
        let seq = found.max(confirmed);
        let mut this = Self { db, side, promises, seq, suspect: marked, failed: None };
        if condition != Condition::Sound && !marked {
            this.suspect = true;
            this.commit(Batch::new())?;
        }
        Ok((this, condition))
    }

    fn write(&mut self, batch: Batch) -> Result<Seq, Error> {
        let failed = |e: sled::Error| Error::Io { what: "write the state".to_owned(), cause: e.to_string() };
        let seq = self.seq + 1;
        let mut changes = sled::Batch::default();
        for prefix in &batch.cleared {
            for key in self.db.scan_prefix(prefix).keys() {
                changes.remove(key.map_err(failed)?);
            }
        }
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(&*key, record::encode(&key, seq, &value)),
                None => changes.remove(key),
            }
        }
        let suspect = self.suspect && !batch.settles;
        if suspect {
            changes.insert(SUSPECT, record::encode(SUSPECT, seq, &[]));
        } else {
            changes.remove(SUSPECT);
        }
        changes.insert(SEQ, record::encode(SEQ, seq, &[]));
        self.db.apply_batch(changes).map_err(failed)?;
        self.db.flush().map_err(failed)?;
        self.side.sync_data().map_err(|e| Error::Io { what: "sync the state".to_owned(), cause: e.to_string() })?;
        self.promises.update_commit(seq)?;
        self.seq = seq;
        self.suspect = suspect;
        Ok(seq)
    }
}

impl Store for Keyspace {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self.db.get(key).map_err(|e| Error::Corrupt(e.to_string()))?;
        found.map(|bytes| record::decode(key, &bytes).map(|(_, payload)| payload.to_vec())).transpose()
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let read = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, bytes) = pair.map_err(|e| Error::Corrupt(e.to_string()))?;
            let (_, payload) = record::decode(&key, &bytes)?;
            Ok((key.to_vec(), payload.to_vec()))
        };
        self.db.scan_prefix(prefix).map(read).collect()
    }

    fn commit(&mut self, batch: Batch) -> Result<Seq, Error> {
        if let Some(why) = &self.failed {
            return Err(Error::Failed(why.clone()));
        }
        // A clear and the whole copy after it are one commit, so both are bounded by what one copy may hold.
        self.write(batch).inspect_err(|e| self.failed = Some(e.to_string()))
    }

    fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// Why a folder did not open.
enum Refusal {
    /// The disk, its rights, or time: the folder may be sound.
    World(Error),
    /// What is in it.
    Content(String),
}

impl Refusal {
    fn into_error(self) -> Error {
        match self {
            Self::World(e) => e,
            Self::Content(cause) => Error::Corrupt(cause),
        }
    }
}

impl From<sled::Error> for Refusal {
    fn from(e: sled::Error) -> Self {
        match e {
            sled::Error::Io(e) if !matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                Self::World(Error::Io { what: "open the state".to_owned(), cause: e.to_string() })
            }
            sled::Error::Io(_)
            | sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Content(e.to_string()),
        }
    }
}

/// Opens sled on a thread of its own. One that does not come back in time is left alone, with the folder.
fn guarded(path: &Path, deadline: Duration) -> Result<sled::Db, Refusal> {
    delete_half_written(path).map_err(Refusal::World)?;
    let config = sled::Config::new()
        .path(path)
        .flush_every_ms(None)
        .cache_capacity(STORE_CACHE_BYTES)
        .mode(sled::Mode::LowSpace);
    let (tell, told) = sync_channel(1);
    let open = move || {
        OPENING_HERE.set(true);
        OPENING.store(true, Ordering::Relaxed);
        let opened = catch_unwind(AssertUnwindSafe(|| open_unlocked(&config)));
        OPENING.store(false, Ordering::Relaxed);
        // Nobody listens once the deadline has passed.
        drop(tell.send(opened));
    };
    let world = |cause: String| Refusal::World(Error::Io { what: format!("open {}", path.display()), cause });
    thread::Builder::new().name("store-open".to_owned()).spawn(open).map_err(|e| world(e.to_string()))?;
    match told.recv_timeout(deadline) {
        Ok(Ok(opened)) => Ok(opened?),
        Ok(Err(_)) => Err(Refusal::Content("sled panicked".to_owned())),
        Err(_) => Err(world(format!("not done after {} s", deadline.as_secs()))),
    }
}

/// Opens sled once its lock is free. The folder is ours by its own lock, so whoever still has sled's is on the way out: a
/// child of this process between `fork` and `exec` has a copy of every descriptor, and with it of the lock.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    // sled wraps what the system said in an error of its own, with the text and without the kind.
    let locked = |e: &io::Error| e.to_string().contains("could not acquire lock");
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(sled::Error::Io(e)) if locked(&e) => thread::sleep(LOCK_RETRY),
            opened => return opened,
        }
    }
    config.open()
}

/// Reads every record once: a folder with a wrong checksum in it is as bad as one that does not open. What is bad is
/// closed in here too: that may panic as well.
fn verified(db: sled::Db) -> Result<sled::Db, Refusal> {
    let read = |db: sled::Db| {
        for pair in db.iter() {
            let (key, bytes) = pair?;
            record::decode(&key, &bytes).map_err(|e| Refusal::Content(e.to_string()))?;
        }
        Ok(db)
    };
    OPENING_HERE.set(true);
    let verified = catch_unwind(AssertUnwindSafe(|| read(db)));
    OPENING_HERE.set(false);
    verified.unwrap_or_else(|_| Err(Refusal::Content("sled panicked".to_owned())))
}

/// What a crash while sled wrote its snapshot leaves behind; with it, every later open fails.
fn delete_half_written(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    for entry in entries {
        let at = entry.map_err(|e| Error::io("read", path, &e))?.path();
        let name = at.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&at).map_err(|e| Error::io("delete", &at, &e))?;
        }
    }
    Ok(())
}

/// Renames the folder to `state.bad-TIME`.
fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let secs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = |n: u32| path.with_extension(if n == 0 { format!("bad-{secs}") } else { format!("bad-{secs}-{n}") });
    let free = (0..1000).map(name).find(|to| !to.exists()).unwrap_or_else(|| name(1000));
    fs::rename(path, &free).map_err(|e| Error::io("move aside", path, &e))?;
    Ok(free)
}

/// Makes the files, their names and their folder durable and private: sled does neither.
fn make_durable(path: &Path, parent: &Path) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| Error::io("make private", path, &e))?;
    for name in ["conf", "db"] {
        let at = path.join(name);
        let file = File::open(&at).map_err(|e| Error::io("open", &at, &e))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| Error::io("make private", &at, &e))?;
        file.sync_all().map_err(|e| Error::io("sync", &at, &e))?;
    }
    folder::sync(path)?;
    folder::sync(parent)
}

/// Number of the last commit; 0 if there was none.
fn read_seq(db: &sled::Db) -> Result<Seq, Error> {
    let found = db.get(SEQ).map_err(|e| Error::Corrupt(e.to_string()))?;
    found.map_or(Ok(0), |bytes| record::decode(SEQ, &bytes).map(|(seq, _)| seq))
}
