//! The disk thread: commits without holding up whoever asks for them.
//!
//! One thread, one commit at a time, in the order asked for. The channel is bounded: who asks waits for a place.

use super::{Batch, Error, Seq, Store};
use crate::limits::COMMITS_QUEUED_MAX;
use std::thread;
use tokio::sync::{mpsc, oneshot};

struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<Seq, Error>>,
}

/// A store on a thread of its own.
#[derive(Debug)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
    ended: oneshot::Receiver<()>,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be had.
    pub fn spawn(mut store: Box<dyn Store>) -> Result<Self, Error> {
        let (jobs, mut asked) = mpsc::channel::<Job>(COMMITS_QUEUED_MAX);
        let (end, ended) = oneshot::channel();
        let serve = move || {
            while let Some(job) = asked.blocking_recv() {
                // Whoever asked may be gone; the commit counts all the same.
                job.answer.send(store.commit(job.batch)).ok();
            }
            drop(store);
            end.send(()).ok();
        };
        thread::Builder::new()
            .name("disk".to_owned())
            .spawn(serve)
            .map_err(|e| Error::Io { what: "start the disk thread".to_owned(), cause: e.to_string() })?;
        Ok(Self { jobs, ended })
    }

    /// Makes the changes; they are durable when it returns. Once asked for, a commit is made even if nobody waits.
    ///
    /// # Errors
    /// As [`Store::commit`]; [`Error::Failed`] if the thread is gone.
    pub async fn commit(&self, batch: Batch) -> Result<Seq, Error> {
        let gone = || Error::Failed("the disk thread is gone".to_owned());
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { batch, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Ends the thread after the commits asked for, and closes the store.
    pub async fn close(self) {
        drop(self.jobs);
        // An error means that the thread has panicked, and the store is closed by that.
        self.ended.await.ok();
    }
}
