//! The promise file: what a voter must never forget, in two slots written in turn.
//!
//! Hears: a whole record. Tells: when it is on the disk; and at the start, the newest whole record.
//! Each write goes to the slot that does not hold the newest record, so a crash in a write leaves the one before. That
//! one is right then: the write was never confirmed. A file without a whole slot is damaged, and that is an error:
//! a voter that takes a damaged memory for none would vote twice.
//!
//! Not here: who writes what (`store::voter`), what a promise is (`cluster`).

use super::{Error, folder};
use crate::{
    cluster::{GroupName, Incarnation, Member, Term},
    limits::{MEMORIES_MAX, PROMISE_SLOT_BYTES},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Name of the file in its folder.
const FILE: &str = "promise";
/// First bytes of a slot.
const MAGIC: [u8; 8] = *b"hawserPF";
/// Layout of what follows.
const FORMAT: u32 = 1;
/// Magic, format, sequence, length, checksum.
const HEADER: usize = 8 + 4 + 8 + 4 + 4;

/// All that the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// What the voter promised. `None` until it has once: a file that only counts commits is no memory of votes, and
    /// the voter is as silent as one without a file.
    pub election: Option<Election>,
    /// The last commit of the keyspace that was confirmed.
    pub commit: u64,
}

/// What a voter must remember.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Election {
    /// Generation of the voter set in force.
    pub generation: u32,
    /// The longest hold that was ever promised; written before a longer one is given.
    pub hold_given: Duration,
    /// Terms and votes, one entry per group; `limits::MEMORIES_MAX` at most.
    pub groups: Vec<GroupMemory>,
    /// The life of the voter that wrote this.
    pub incarnation: Option<Incarnation>,
}

/// What a voter remembers of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemory {
    /// The group.
    pub group: GroupName,
    /// The highest term heard of.
    pub highest: Term,
    /// The highest term voted in.
    pub voted: Term,
    /// For whom.
    pub voted_for: Option<Member>,
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// No file: a first start, or a wiped disk. Nothing tells the two apart.
    Missing,
    /// The newest whole record.
    Found(Record),
}

/// The file, open. One process has it: see [`super::Folder`].
#[derive(Debug)]
pub struct PromiseFile {
    path: PathBuf,
    /// `None` until the first record is written.
    file: Option<File>,
    /// Sequence of the newest record.
    sequence: u64,
    /// The slot that the next record goes to.
    next: u64,
    failed: Option<String>,
}

impl PromiseFile {
    /// Opens the file of `dir`, if there is one. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the file and the way out; [`Error::Io`] if it cannot be read.
    pub fn open(dir: &Path) -> Result<(Self, Opened), Error> {
        let path = dir.join(FILE);
        let mut this = Self { path, file: None, sequence: 0, next: 0, failed: None };
        let file = match OpenOptions::new().read(true).write(true).open(&this.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((this, Opened::Missing)),
            Err(e) => return Err(Error::io("open", &this.path, &e)),
        };
        let mut bytes = vec![0; 2 * PROMISE_SLOT_BYTES];
        let length = file.metadata().map_err(|e| Error::io("read", &this.path, &e))?.len();
        if length != bytes.len() as u64 {
            return Err(this.damaged(&format!("{length} bytes long instead of {}", bytes.len())));
        }
        file.read_exact_at(&mut bytes, 0).map_err(|e| Error::io("read", &this.path, &e))?;
        let (first, second) = bytes.split_at(PROMISE_SLOT_BYTES);
        let (sequence, newest, record) = match (decode(first), decode(second)) {
            (Ok((a, record)), Err(why)) => {
                this.tell_torn("second", why);
                (a, 0, record)
            }
            (Err(why), Ok((b, record))) => {
                this.tell_torn("first", why);
                (b, 1, record)
            }
            (Ok((a, record)), Ok((b, _))) if a == b + 1 => (a, 0, record),
            (Ok((a, _)), Ok((b, record))) if b == a + 1 => (b, 1, record),
            (Ok(_), Ok(_)) => return Err(this.damaged("its slots do not follow each other")),
            (Err(a), Err(b)) => return Err(this.damaged(&format!("first slot: {a}; second slot: {b}"))),
        };
        this.file = Some(file);
        this.sequence = sequence;
        this.next = 1 - newest;
        Ok((this, Opened::Found(record)))
    }

    /// Writes a record, and returns when it is on the disk.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: nothing has changed. Every other error is final: what the disk holds is unknown, and each
    /// later call returns [`Error::Failed`].
    pub fn write(&mut self, record: &Record) -> Result<(), Error> {
        if let Some(why) = &self.failed {
            return Err(Error::Failed(why.clone()));
        }
        let sequence = self.sequence + 1;
        let slot = encode(sequence, record)?;
        let done = match &self.file {
            Some(file) => file
                .write_all_at(&slot, self.next * PROMISE_SLOT_BYTES as u64)
                .and_then(|()| file.sync_data())
                .map_err(|e| Error::io("write", &self.path, &e)),
            None => self.create(record),
        };
        match done {
            Ok(()) => {
                self.sequence += 1;
                self.next = 1 - self.next;
                Ok(())
            }
            Err(e) => {
                self.failed = Some(e.to_string());
                Err(e)
            }
        }
    }

    /// Makes the file with the record in both slots, under another name until it is whole.
    fn create(&mut self, record: &Record) -> Result<(), Error> {
        let new = self.path.with_extension("new");
        let (older, newer) = (encode(self.sequence + 1, record)?, encode(self.sequence + 2, record)?);
        let made = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&older)?;
            file.write_all(&newer)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            Ok(file)
        };
        self.file = Some(made().map_err(|e| Error::io("create", &self.path, &e))?);
        if let Some(dir) = self.path.parent() {
            folder::sync(dir)?;
        }
        // `write` counts one more and turns to the other slot: the first one, which holds the older record.
        self.sequence += 1;
        self.next = 1;
        Ok(())
    }

    /// A new file has the same record in both slots: one that is not whole was damaged later.
    fn tell_torn(&self, slot: &str, why: &str) {
        tracing::warn!(
            file = %self.path.display(),
            slot,
            why,
            "a write was cut off (normal after a power loss), or the disk is failing; the newest whole record is used"
        );
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { file: self.path.display().to_string(), why: why.to_owned() }
    }
}

/// A slot: header, record, zeros.
fn encode(sequence: u64, record: &Record) -> Result<Vec<u8>, Error> {
    let groups = record.election.as_ref().map_or(0, |e| e.groups.len());
    if groups > MEMORIES_MAX {
        return Err(Error::TooLarge(format!("{groups} groups in the promise file")));
    }
    let payload = postcard::to_stdvec(record).map_err(|e| Error::TooLarge(e.to_string()))?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut slot = Vec::with_capacity(PROMISE_SLOT_BYTES);
    slot.extend(MAGIC);
    slot.extend(FORMAT.to_le_bytes());
    slot.extend(sequence.to_le_bytes());
    slot.extend(length.to_le_bytes());
    slot.extend(checksum(&slot, &payload).to_le_bytes());
    slot.extend(payload);
    assert!(slot.len() <= PROMISE_SLOT_BYTES, "limits::PROMISE_SLOT_BYTES holds the fullest record");
    slot.resize(PROMISE_SLOT_BYTES, 0);
    Ok(slot)
}

/// Sequence and record of a slot, or what is wrong with it.
fn decode(slot: &[u8]) -> Result<(u64, Record), &'static str> {
    let (header, rest) = slot.split_at_checked(HEADER).ok_or("cut off")?;
    let (covered, sum) = header.split_at(HEADER - 4);
    if !covered.starts_with(&MAGIC) {
        return Err("not a promise file");
    }
    if read::<4>(covered, 8).map(u32::from_le_bytes) != Some(FORMAT) {
        return Err("written by another version");
    }
    let sequence = read::<8>(covered, 12).map(u64::from_le_bytes).ok_or("cut off")?;
    let length = read::<4>(covered, 20).map(u32::from_le_bytes).ok_or("cut off")?;
    let payload = rest.get(..length as usize).ok_or("wrong length")?;
    if checksum(covered, payload).to_le_bytes() != *sum {
        return Err("wrong checksum");
    }
    postcard::from_bytes(payload).map(|record| (sequence, record)).map_err(|_| "unreadable record")
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(header);
    sum.update(payload);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Name;

    fn record(commit: u64) -> Record {
        let memory = GroupMemory {
            group: Name::new("web").unwrap(),
            highest: Term(commit + 1),
            voted: Term(commit),
            voted_for: Some(Member::Second),
        };
        let election = Election {
            generation: 3,
            hold_given: Duration::from_millis(550),
            groups: vec![memory],
            incarnation: Some(Incarnation(u128::MAX - 5)),
        };
        Record { election: Some(election), commit }
    }

    /// A folder whose file holds `record(1)` to `record(n)`.
    fn written(n: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, found) = PromiseFile::open(dir.path()).unwrap();
        assert_eq!(found, Opened::Missing);
        for commit in 1..=n {
            file.write(&record(commit)).unwrap();
        }
        dir
    }

    fn reopened(dir: &tempfile::TempDir) -> Result<Opened, Error> {
        PromiseFile::open(dir.path()).map(|(_, found)| found)
    }

    fn damage(dir: &tempfile::TempDir, at: usize, with: &[u8]) {
        let file = OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap();
        file.write_all_at(with, at as u64).unwrap();
    }

    #[test]
    fn the_newest_record_is_found_again() {
        for n in 1..6 {
            assert_eq!(reopened(&written(n)).unwrap(), Opened::Found(record(n)));
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_record_before_and_the_next_write_mends_it() {
        for n in 2..6_u64 {
            let dir = written(n);
            // Record 1 is in both slots, the newer copy in the second; record 2 went to the first.
            let newest = if n % 2 == 0 { 0 } else { PROMISE_SLOT_BYTES };
            damage(&dir, newest + 20, &[0xff; 30]);
            let (mut file, found) = PromiseFile::open(dir.path()).unwrap();
            assert_eq!(found, Opened::Found(record(n - 1)));
            file.write(&record(70)).unwrap();
            file.write(&record(71)).unwrap();
            assert_eq!(reopened(&dir).unwrap(), Opened::Found(record(71)));
            damage(&dir, newest, &[0; 16]);
            let left = if let Opened::Found(left) = reopened(&dir).unwrap() { left.commit } else { 0 };
            assert!(left == 70 || left == 71, "both slots were whole again");
        }
    }

    #[test]
    fn a_damaged_file_is_never_taken_for_a_missing_one() {
        let dir = written(4);
        damage(&dir, 40, &[0xff]);
        damage(&dir, PROMISE_SLOT_BYTES + 40, &[0xff]);
        let refused = reopened(&dir).unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(dir.path().to_str().unwrap()) && text.contains("move the file away"), "{text}");
    }

    #[test]
    fn a_truncated_empty_or_foreign_file_is_damaged() {
        for length in [0, 1, 4096, 8191, 8193] {
            let dir = written(3);
            OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap().set_len(length).unwrap();
            assert!(matches!(reopened(&dir), Err(Error::Damaged { .. })), "{length}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [b'x'; 8192]).unwrap();
        assert!(matches!(reopened(&dir), Err(Error::Damaged { .. })));
    }

    #[test]
    fn slots_of_two_lives_are_damaged() {
        let dir = written(2);
        let far = encode(900, &record(900)).unwrap();
        damage(&dir, PROMISE_SLOT_BYTES, &far);
        assert!(matches!(reopened(&dir), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_failed_write_is_final() {
        let dir = written(1);
        let (mut file, _) = PromiseFile::open(dir.path()).unwrap();
        file.file = Some(File::open(dir.path().join(FILE)).unwrap());
        assert!(matches!(file.write(&record(2)), Err(Error::Io { .. })));
        file.file = Some(OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap());
        assert!(matches!(file.write(&record(2)), Err(Error::Failed(_))));
        assert_eq!(reopened(&dir).unwrap(), Opened::Found(record(1)));
    }

    #[test]
    fn the_fullest_record_fits_and_a_fuller_one_is_refused() {
        let memory = GroupMemory {
            group: Name::new(&"g".repeat(32)).unwrap(),
            highest: Term(u64::MAX),
            voted: Term(u64::MAX),
            voted_for: Some(Member::Witness),
        };
        let mut election = Election {
            generation: u32::MAX,
            hold_given: Duration::MAX,
            groups: vec![memory.clone(); MEMORIES_MAX],
            incarnation: Some(Incarnation(u128::MAX)),
        };
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = PromiseFile::open(dir.path()).unwrap();
        file.write(&Record { election: Some(election.clone()), commit: u64::MAX }).unwrap();
        election.groups.push(memory);
        let refused = file.write(&Record { election: Some(election), commit: 0 });
        assert!(matches!(refused, Err(Error::TooLarge(_))));
    }

    #[test]
    fn the_file_is_for_its_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = written(1);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
