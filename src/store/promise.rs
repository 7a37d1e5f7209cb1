//! The promise file: what a voter must never forget, in two slots written in turn, each kept in two places.
//!
//! Hears: a whole record. Tells: when it is on the disk; and at the start, what can be believed.
//! Each write goes to the slot that does not hold the newest record, so a crash in a write leaves the one before. That
//! one is right then: the write was never confirmed. But a slot that is not whole may also have been confirmed and gone
//! bad since, and then the one before it is a promise forgotten. The two look alike, so each slot has two copies, a slot
//! apart from each other, in one write and one `fdatasync`:
//!
//! | what is bad | what is believed |
//! |---|---|
//! | one copy of any slot | the other copy: nothing is lost, whether it was torn or rotten |
//! | both copies of one slot | nobody can tell whether the newest record was confirmed: [`Opened::Doubtful`], and the voter starts as one without memory |
//! | both slots | the file is damaged, and that is an error: a voter that takes a damaged memory for none would vote twice |
//!
//! A disk that goes back by a whole confirmed write in both copies is a machine that was rolled back: not seen here.
//!
//! Not here: who writes what (`store::voter`), what a promise is (`cluster`).

use super::{Error, folder};
use crate::{
    cluster::{GroupName, Incarnation, Member, Sets, Term},
    limits::{MEMORIES_MAX, PROMISE_COPIES, PROMISE_SLOT_BYTES},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Name of the file in its folder.
const FILE: &str = "promise";
/// Its length.
const FILE_BYTES: u64 = 2 * PROMISE_COPIES * PROMISE_SLOT_BYTES as u64;
/// First bytes of a slot.
const MAGIC: [u8; 8] = *b"hawserPF";
/// Layout of what follows.
const FORMAT: u32 = 3;
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
    /// Who votes.
    pub sets: Sets,
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
    /// The newest record, whole.
    Found(Record),
    /// A slot is not whole in either copy. This is the other slot's record; a newer one may have been confirmed.
    Doubtful(Record),
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
        let length = file.metadata().map_err(|e| Error::io("read", &this.path, &e))?.len();
        if length != FILE_BYTES {
            return Err(this.damaged(&format!("{length} bytes long instead of {FILE_BYTES}")));
        }
        let (sequence, newest, found) = match (this.slot(&file, 0), this.slot(&file, 1)) {
            (Ok((a, record)), Ok((b, _))) if a == b + 1 => (a, 0, Opened::Found(record)),
            (Ok((a, _)), Ok((b, record))) if b == a + 1 => (b, 1, Opened::Found(record)),
            (Ok(_), Ok(_)) => return Err(this.damaged("its slots do not follow each other")),
            (Ok((a, record)), Err(_)) => (a, 0, Opened::Doubtful(record)),
            (Err(_), Ok((b, record))) => (b, 1, Opened::Doubtful(record)),
            (Err(Bad::Unread(e)), Err(_)) | (Err(_), Err(Bad::Unread(e))) => {
                return Err(Error::io("read", &this.path, &e));
            }
            (Err(Bad::Content(a)), Err(Bad::Content(b))) => {
                return Err(this.damaged(&format!("first slot: {a}; second slot: {b}")));
            }
        };
        if let Opened::Doubtful(_) = found {
            tracing::error!(
                file = %this.path.display(),
                "a slot is lost in both its copies, perhaps with the last promise: this voter starts without memory"
            );
        }
        this.file = Some(file);
        this.sequence = sequence;
        this.next = 1 - newest;
        Ok((this, found))
    }

    /// Sequence and record of a slot: the newer of its whole copies. They differ only if a write was cut off between
    /// them.
    fn slot(&self, file: &File, slot: u64) -> Result<(u64, Record), Bad> {
        let mut newest: Result<(u64, Record), Bad> = Err(Bad::Content("no copy"));
        for copy in 0..PROMISE_COPIES {
            let mut bytes = vec![0; PROMISE_SLOT_BYTES];
            let read = file.read_exact_at(&mut bytes, place(slot, copy)).map_err(Bad::Unread);
            match (read.and_then(|()| decode(&bytes).map_err(Bad::Content)), &newest) {
                (Ok((a, _)), Ok((b, _))) if a <= *b => {}
                (Ok(found), Ok(_) | Err(_)) => newest = Ok(found),
                (Err(bad), before) => {
                    self.tell_bad(slot, copy, &bad);
                    if before.is_err() {
                        newest = Err(bad);
                    }
                }
            }
        }
        newest
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
            Some(file) => (0..PROMISE_COPIES)
                .try_for_each(|copy| file.write_all_at(&slot, place(self.next, copy)))
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
            for _ in 0..PROMISE_COPIES {
                file.write_all(&older)?;
                file.write_all(&newer)?;
            }
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

    fn tell_bad(&self, slot: u64, copy: u64, bad: &Bad) {
        tracing::warn!(
            file = %self.path.display(),
            slot,
            copy,
            why = %bad,
            "a copy of a slot is bad: a write was cut off by a power loss, or the disk is failing"
        );
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { file: self.path.display().to_string(), why: why.to_owned() }
    }
}

/// Why a copy of a slot is not believed.
#[derive(Debug)]
enum Bad {
    /// The disk does not give it.
    Unread(io::Error),
    /// It is not what was written.
    Content(&'static str),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(e) => write!(f, "{e}"),
            Self::Content(why) => write!(f, "{why}"),
        }
    }
}

/// Where a copy of a slot begins: both slots, and then both again.
const fn place(slot: u64, copy: u64) -> u64 {
    (2 * copy + slot) * PROMISE_SLOT_BYTES as u64
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
    use crate::cluster::{Members, Name, Third, VoterSet};

    /// As long as they get.
    fn sets() -> Sets {
        let name = Name::new(&"w".repeat(crate::limits::NAME_BYTES_MAX)).unwrap();
        let addresses =
            vec!["[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(); crate::limits::LINKS_MAX];
        let in_force =
            VoterSet { generation: u32::MAX - 1, members: Members::Trio(Third::Witness { name, addresses }) };
        Sets { next: Some(in_force.followed_by(Members::Pair)), in_force: Some(in_force) }
    }

    fn record(commit: u64) -> Record {
        let memory = GroupMemory {
            group: Name::new("web").unwrap(),
            highest: Term(commit + 1),
            voted: Term(commit),
            voted_for: Some(Member::Second),
        };
        let election = Election {
            sets: sets(),
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

    fn damage(dir: &tempfile::TempDir, at: u64, with: &[u8]) {
        let file = OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap();
        file.write_all_at(with, at).unwrap();
    }

    #[test]
    fn the_newest_record_is_found_again() {
        for n in 1..6 {
            assert_eq!(reopened(&written(n)).unwrap(), Opened::Found(record(n)));
        }
    }

    /// Which slot holds `record(n)`: record 1 is in both, the newer copy in the second; record 2 went to the first.
    const fn slot_of(n: u64) -> u64 {
        n % 2
    }

    #[test]
    fn one_bad_copy_of_any_slot_costs_nothing() {
        for (n, slot, copy) in (2..6).flat_map(|n| [(n, 0, 0), (n, 0, 1), (n, 1, 0), (n, 1, 1)]) {
            for at in [0, 9, 15, 21, 25, 40, 60] {
                let dir = written(n);
                damage(&dir, place(slot, copy) + at, &[0xff; 3]);
                let (mut file, found) = PromiseFile::open(dir.path()).unwrap();
                assert_eq!(found, Opened::Found(record(n)), "slot {slot}, copy {copy}, byte {at}");
                // The next two writes mend it: now the other copy may go bad.
                file.write(&record(70)).unwrap();
                file.write(&record(71)).unwrap();
                damage(&dir, place(slot, 1 - copy) + at, &[0xff; 3]);
                assert_eq!(reopened(&dir).unwrap(), Opened::Found(record(71)));
            }
        }
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_record_before() {
        for n in 2..6 {
            let (before, after) = (written(n), written(n + 1));
            let file = |dir: &tempfile::TempDir| fs::read(dir.path().join(FILE)).unwrap();
            let (old, new) = (file(&before), file(&after));
            // The first copy goes first, but a disk may turn that round, and cut off in the middle of a page.
            for (copy, kept) in [(0, 0), (0, 40), (0, 4096), (1, 25), (1, 4096)] {
                let mut bytes = old.clone();
                let at = usize::try_from(place(slot_of(n + 1), copy)).unwrap();
                bytes[at..at + kept].copy_from_slice(&new[at..at + kept]);
                fs::write(before.path().join(FILE), &bytes).unwrap();
                let expected = if kept == 4096 { n + 1 } else { n };
                assert_eq!(reopened(&before).unwrap(), Opened::Found(record(expected)), "copy {copy}, {kept} bytes");
            }
        }
    }

    #[test]
    fn a_slot_that_is_bad_in_both_copies_leaves_a_doubt_whichever_it_was() {
        for n in 2..6 {
            for (slot, left) in [(slot_of(n), n - 1), (slot_of(n - 1), n)] {
                let dir = written(n);
                damage(&dir, place(slot, 0) + 40, &[0xff]);
                damage(&dir, place(slot, 1) + 20, &[0xff]);
                let (mut file, found) = PromiseFile::open(dir.path()).unwrap();
                assert_eq!(found, Opened::Doubtful(record(left)));
                file.write(&record(70)).unwrap();
                assert_eq!(reopened(&dir).unwrap(), Opened::Found(record(70)), "the next write settles it");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_never_taken_for_a_missing_one() {
        let dir = written(4);
        for (slot, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            damage(&dir, place(slot, copy) + 40, &[0xff]);
        }
        let refused = reopened(&dir).unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(dir.path().to_str().unwrap()) && text.contains("move the file away"), "{text}");
    }

    #[test]
    fn a_truncated_empty_or_foreign_file_is_damaged() {
        for length in [0, 1, 4096, 8192, 16383, 16385] {
            let dir = written(3);
            OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap().set_len(length).unwrap();
            assert!(matches!(reopened(&dir), Err(Error::Damaged { .. })), "{length}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [b'x'; 16384]).unwrap();
        assert!(matches!(reopened(&dir), Err(Error::Damaged { .. })));
    }

    #[test]
    fn slots_of_two_lives_are_damaged() {
        let dir = written(2);
        let far = encode(900, &record(900)).unwrap();
        damage(&dir, place(1, 0), &far);
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
            sets: sets(),
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
