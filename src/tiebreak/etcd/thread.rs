//! The thread that asks etcd: a loop around the speaker, so that neither the cluster thread nor a busy web tier waits.

use super::link::{Link, Settings, Silent};
use super::speaker::{Question, Seen, Speaker};
use crate::{
    alarm::Alarm,
    clock,
    cluster::Message,
    limits::{ETCD_GOODBYE, ETCD_QUEUE_MAX},
};
use std::{
    collections::BTreeSet,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::Arc,
    thread,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// What the thread is told.
#[derive(Debug)]
enum Told {
    Said(Message),
    PeerSilent(bool),
    Goodbye(oneshot::Sender<()>),
}

/// How the rest of the daemon reaches the thread.
#[derive(Debug, Clone)]
pub struct Handle {
    queue: mpsc::Sender<Told>,
}

impl Handle {
    /// The engine says this to the third voter. Does not wait: what finds the queue full is lost, like a datagram.
    pub fn say(&self, message: Message) {
        self.tell(Told::Said(message));
    }

    /// Whether the peer is heard.
    pub fn peer_is_silent(&self, silent: bool) {
        self.tell(Told::PeerSilent(silent));
    }

    /// Until etcd knows what this node has let go of; not for long.
    pub async fn goodbye(&self) {
        let (done, wait) = oneshot::channel();
        self.tell(Told::Goodbye(done));
        if timeout(ETCD_GOODBYE, wait).await.is_err() {
            tracing::debug!("etcd was not told of everything that was let go of");
        }
    }

    fn tell(&self, told: Told) {
        if self.queue.try_send(told).is_err() {
            tracing::debug!("the thread that asks etcd does not keep up");
        }
    }
}

/// Starts the thread. `begin` is called on it first; `tell` is told what the engine is to hear.
///
/// # Errors
/// If no thread can be had.
pub fn spawn<B, T>(settings: Settings, speaker: Speaker, begin: B, tell: T) -> io::Result<Handle>
where
    B: FnOnce() + Send + 'static,
    T: AsyncFn(Message) + Send + 'static,
{
    let (queue, told) = mpsc::channel(ETCD_QUEUE_MAX);
    let work = move || {
        begin();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.and_then(|runtime| runtime.block_on(run(Arc::new(settings), speaker, told, tell)));
        if let Err(error) = ended {
            tracing::error!(%error, "the thread that asks etcd has ended");
        }
    };
    thread::Builder::new().name("etcd".to_owned()).spawn(work)?;
    Ok(Handle { queue })
}

type Flight = Pin<Box<dyn Future<Output = (Link, u64, Result<Vec<Seen>, Silent>)>>>;

async fn run<T: AsyncFn(Message)>(
    settings: Arc<Settings>,
    mut speaker: Speaker,
    mut told: mpsc::Receiver<Told>,
    tell: T,
) -> io::Result<()> {
    let mut alarm = Alarm::new()?.watched()?;
    let mut link = Link::new(Arc::clone(&settings), 0);
    let mut turn = 0;
    let mut flight: Option<Flight> = None;
    let mut reached = Reached::default();
    let mut goodbye: Option<oneshot::Sender<()>> = None;
    loop {
        speaker.tick(clock::now());
        if flight.is_some() && speaker.asking().is_none() {
            // Given up. What it was may still be carried out; the next question goes to the next member.
            flight = None;
            link = Link::new(Arc::clone(&settings), turn + 1);
            reached.lost("no answer in time");
        }
        let now = clock::now();
        if flight.is_none()
            && let Some(question) = speaker.next(now)
        {
            turn = link.turn();
            let way = std::mem::replace(&mut link, Link::new(Arc::clone(&settings), turn));
            flight = Some(Box::pin(ask(way, question)));
        }
        if flight.is_none()
            && speaker.is_settled()
            && let Some(waiting) = goodbye.take()
        {
            let _gone = waiting.send(()).is_err();
        }
        for message in speaker.take_messages() {
            tell(message).await;
        }
        alarm.get_mut().set(speaker.next_deadline(now))?;
        tokio::select! {
            biased;
            word = told.recv() => match word {
                Some(Told::Said(message)) => speaker.told(clock::now(), &message),
                Some(Told::PeerSilent(silent)) => speaker.peer_is_silent(silent),
                Some(Told::Goodbye(waiting)) => goodbye = Some(waiting),
                None => return Ok(()),
            },
            (way, number, answer) = landing(&mut flight) => {
                (flight, link) = (None, way);
                let now = clock::now();
                match answer {
                    Ok(seen) => {
                        reached.found();
                        speaker.answered(now, number, &seen);
                    }
                    Err(silent) => {
                        reached.lost(&silent.to_string());
                        speaker.failed(now, number);
                    }
                }
            }
            ready = alarm.readable() => ready?.clear_ready(),
        }
    }
}

async fn ask(mut link: Link, question: Question) -> (Link, u64, Result<Vec<Seen>, Silent>) {
    let answer = link.ask(&question).await;
    (link, question.number, answer)
}

async fn landing(flight: &mut Option<Flight>) -> (Link, u64, Result<Vec<Seen>, Silent>) {
    match flight {
        Some(flight) => flight.await,
        None => pending().await,
    }
}

/// Says in the log when etcd goes and comes, once each; and why it does not answer, each reason once. The first is
/// often that it is not up yet, and hides that its certificate is not believed.
#[derive(Debug, Default)]
struct Reached {
    failures: u32,
    reasons: BTreeSet<String>,
}

/// One member that does not answer is no news while the next one does.
const NEWS_AFTER: u32 = 3;
/// Most reasons that are told of one silence.
const REASONS_MAX: usize = 8;

impl Reached {
    fn lost(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        let is_news = self.failures >= NEWS_AFTER && self.reasons.len() < REASONS_MAX;
        if is_news && self.reasons.insert(why.to_owned()) {
            tracing::warn!(why, "etcd does not answer: the nodes have only each other's votes");
        } else {
            tracing::debug!(why, failures = self.failures, "a question to etcd was not answered");
        }
    }

    fn found(&mut self) {
        if self.failures >= NEWS_AFTER {
            tracing::info!("etcd answers again");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
