//! The promise file shared by its two writers: elections, and the commits of the keyspace.
//!
//! Each writes its own part; the file always gets the whole record. The lock is held for one small write and its
//! `fdatasync`, never over a commit, so that a vote does not wait for the state.

use super::{Error, Opened, Record, promise::Election, promise::PromiseFile};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

/// The promise file, for several writers in one process.
#[derive(Debug, Clone)]
pub struct Promises(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    file: PromiseFile,
    record: Record,
    found: Opened,
}

impl Promises {
    /// Opens the promise file of a folder. Nothing is written.
    ///
    /// # Errors
    /// As [`PromiseFile::open`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (file, found) = PromiseFile::open(dir)?;
        let record = match &found {
            Opened::Missing => Record::default(),
            Opened::Found(record) => record.clone(),
            // What it knows of votes may be too little; the next write says so for good.
            Opened::Doubtful(record) => Record { election: None, commit: record.commit },
        };
        Ok(Self(Arc::new(Mutex::new(Shared { file, record, found }))))
    }

    /// What was found when the file was opened.
    #[must_use]
    pub fn found(&self) -> Opened {
        self.lock().found.clone()
    }

    /// What the voter promised, as last written. `None`: a voter without memory.
    #[must_use]
    pub fn election(&self) -> Option<Election> {
        self.lock().record.election.clone()
    }

    /// The last confirmed commit of the keyspace, as last written.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.lock().record.commit
    }

    /// Replaces what the voter remembers; blocks until it is on the disk.
    ///
    /// # Errors
    /// As [`PromiseFile::write`].
    pub fn update_election(&self, election: Election) -> Result<(), Error> {
        self.update(|record| record.election = Some(election))
    }

    /// Notes a confirmed commit of the keyspace; blocks until it is on the disk.
    ///
    /// # Errors
    /// As [`PromiseFile::write`].
    ///
    /// # Panics
    /// If the number goes back.
    pub fn update_commit(&self, commit: u64) -> Result<(), Error> {
        self.update(|record| {
            assert!(commit >= record.commit, "the commit number in the promise file never goes back");
            record.commit = commit;
        })
    }

    fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut shared = self.lock();
        let mut record = shared.record.clone();
        change(&mut record);
        shared.file.write(&record)?;
        shared.record = record;
        Ok(())
    }

    /// A panic while the lock is held ends the process, or left the file failed or whole; either way it can be used.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes elections on a thread of its own, for those who must not wait for a disk.
#[derive(Debug)]
pub struct ElectionWriter {
    sender: SyncSender<(u64, Election)>,
}

impl ElectionWriter {
    /// Starts the thread. `done` is called on it with the number of each request, after the write. The thread ends
    /// when the writer is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be had.
    pub fn spawn<F>(promises: Promises, done: F) -> Result<Self, Error>
    where
        F: FnMut(u64, Result<(), Error>) + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        thread::Builder::new()
            .name("promise".to_owned())
            .spawn(move || write_all(&receiver, &promises, done))
            .map_err(|e| Error::Io { what: "start the promise thread".to_owned(), cause: e.to_string() })?;
        Ok(Self { sender })
    }

    /// Hands over a record to write. Never waits.
    ///
    /// # Errors
    /// [`Error::Failed`] if two others wait already (the engine never has two under way), or the thread is gone.
    pub fn write(&self, request: u64, election: Election) -> Result<(), Error> {
        self.sender.try_send((request, election)).map_err(|e| match e {
            TrySendError::Full(_) => Error::Failed("two votes are being written already".to_owned()),
            TrySendError::Disconnected(_) => Error::Failed("the promise thread is gone".to_owned()),
        })
    }
}

fn write_all(requests: &Receiver<(u64, Election)>, promises: &Promises, mut done: impl FnMut(u64, Result<(), Error>)) {
    for (request, election) in requests {
        done(request, promises.update_election(election));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{GroupName, Term};
    use crate::store::GroupMemory;

    fn election(term: u64) -> Election {
        let group = GroupName::new("web").unwrap();
        let memory = GroupMemory { group, highest: Term(term), voted: Term(term), voted_for: None };
        Election { groups: vec![memory], ..Election::default() }
    }

    #[test]
    fn two_writers_do_not_undo_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let promises = Promises::open(dir.path()).unwrap();
        let commits = promises.clone();
        let other = thread::spawn(move || (1..=100).for_each(|n| commits.update_commit(n).unwrap()));
        (1..=100).for_each(|n| promises.update_election(election(n)).unwrap());
        other.join().unwrap();
        let again = Promises::open(dir.path()).unwrap();
        assert_eq!((again.commit(), again.election()), (100, Some(election(100))));
    }

    #[test]
    fn a_file_that_only_counts_commits_is_no_memory_of_votes() {
        let dir = tempfile::tempdir().unwrap();
        Promises::open(dir.path()).unwrap().update_commit(7).unwrap();
        let again = Promises::open(dir.path()).unwrap();
        assert_eq!((again.commit(), again.election()), (7, None));
    }

    #[test]
    fn a_doubtful_file_is_no_memory_of_votes_and_stays_so() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let promises = Promises::open(dir.path()).unwrap();
        (1..=3).for_each(|n| promises.update_election(election(n)).unwrap());
        promises.update_commit(7).unwrap();
        drop(promises);
        // The newest slot, in both its copies: the commit. What is left looks like a fine memory of a vote.
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("promise")).unwrap();
        for page in [0, 2] {
            file.write_all_at(&[0xff; 64], page * 4096).unwrap();
        }
        let promises = Promises::open(dir.path()).unwrap();
        assert!(matches!(promises.found(), Opened::Doubtful(Record { election: Some(_), commit: 0 })));
        assert_eq!(promises.election(), None);
        promises.update_commit(8).unwrap();
        drop(promises);
        let again = Promises::open(dir.path()).unwrap();
        assert_eq!((again.commit(), again.election()), (8, None));
    }

    #[test]
    fn a_vote_is_confirmed_only_after_it_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let (tell, told) = sync_channel(1);
        let done = move |request, result: Result<(), Error>| {
            result.unwrap();
            tell.send((request, Promises::open(&path).unwrap().election())).unwrap();
        };
        let writer = ElectionWriter::spawn(Promises::open(dir.path()).unwrap(), done).unwrap();
        writer.write(9, election(4)).unwrap();
        assert_eq!(told.recv().unwrap(), (9, Some(election(4))));
    }
}
