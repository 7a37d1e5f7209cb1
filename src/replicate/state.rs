//! The task around the protocol, and the handle for everybody else.
//!
//! Hears: the role (from the driver, newest wins), writes and transitions (from anybody), the peer's messages, the
//! disk. Tells: the content after each change, the view, answers.
//! The task ends when it is told to stop; one that ends by a panic ends the process (panic hook).
//!
//! Not here: any decision (`protocol`).

use super::{
    content::Content,
    link::{self, Established, Link, Tls},
    protocol::{Action, Event, Input, Now, Replica},
    session::Session,
    types::{HistoryEntry, Op, Role, Standby, View, WriteError, Written, check},
};
use crate::{
    clock,
    cluster::{Member, Name, Term},
    limits::WRITES_QUEUED_MAX,
    store::{Batch, Disk, Error, Seq, Store},
    time::Instant,
};
use std::{
    collections::BTreeMap,
    future::pending,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Who this replica is.
#[derive(Debug, Clone, Copy)]
pub struct StateConfig {
    /// First or second node.
    pub me: Member,
    /// Its name.
    pub name: Name,
    /// The highest term of the group `state` in the promise file.
    pub highest: Term,
}

/// Starts the replica.
#[derive(Debug)]
pub struct State;

/// The replicated state, for everybody on this node.
#[derive(Debug, Clone)]
pub struct StateHandle {
    commands: mpsc::Sender<Command>,
    role: Arc<watch::Sender<Role>>,
    content: watch::Receiver<Arc<Content>>,
    view: watch::Receiver<View>,
    dropped: Arc<AtomicU64>,
    /// Makes keys of transitions unique: random at the start, then counted.
    unique: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Command {
    Write { ops: Vec<Op>, answer: oneshot::Sender<Result<Written, WriteError>> },
    Record { key: String, entry: HistoryEntry },
    Accept,
    Stop { done: oneshot::Sender<()> },
}

impl State {
    /// Loads what the store has, and starts the disk thread, the link and the task. Call it inside the runtime that is
    /// to run it; the reading of the store blocks. Without a link the node has no peer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record cannot be read, [`Error::Io`] if a thread or a listener cannot be had.
    pub fn start(config: StateConfig, store: Box<dyn Store>, link: Option<(Link, Tls)>) -> Result<StateHandle, Error> {
        let replica = Replica::load(config.me, config.name, &*store, config.highest)?;
        let disk = Arc::new(Disk::spawn(store)?);
        let (established, streams) = mpsc::channel(1);
        if let Some((link, tls)) = link {
            link::start(link, &tls, &established)
                .map_err(|e| Error::Io { what: "use the link".to_owned(), cause: e.to_string() })?;
        }
        let (commands, asked) = mpsc::channel(4 * WRITES_QUEUED_MAX);
        let (role, roles) = watch::channel(Role::Follower);
        let (content, contents) = watch::channel(replica.content());
        let (view, views) = watch::channel(replica.view(now()));
        let task = Task {
            replica,
            disk,
            commit: None,
            session: None,
            answers: BTreeMap::new(),
            next_answer: 0,
            content,
            view,
            _established: established,
        };
        tokio::spawn(task.run(asked, roles, streams));
        Ok(StateHandle {
            commands,
            role: Arc::new(role),
            content: contents,
            view: views,
            dropped: Arc::default(),
            unique: Arc::new(AtomicU64::new(RandomState::new().hash_one(0))),
        })
    }
}

impl StateHandle {
    /// Says what this node may do: each time the lease on the group `state` is renewed, and when it ends. Never waits.
    pub fn set_role(&self, role: Role) {
        self.role.send_replace(role);
    }

    /// Writes, here or through the owner. The operations are made together or not at all.
    ///
    /// # Errors
    /// [`WriteError`] says for each case whether anything has changed.
    pub async fn write(&self, ops: Vec<Op>) -> Result<Written, WriteError> {
        check(&ops)?;
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(Command::Write { ops, answer }).map_err(|_| WriteError::Busy)?;
        answered.await.unwrap_or(Err(WriteError::Unknown))
    }

    /// Sets or clears a node's standby flag.
    ///
    /// # Errors
    /// As [`StateHandle::write`].
    pub async fn set_standby(&self, node: &Name, on: Standby) -> Result<Written, WriteError> {
        self.write(vec![Op::standby(node, on)]).await
    }

    /// Whether a node's standby flag is set.
    #[must_use]
    pub fn is_standby(&self, node: &Name) -> bool {
        self.content().flag(&super::standby_key(node))
    }

    /// Records a transition that this node made: on its own disk first, then through the owner. Never waits; when too
    /// many wait already it is dropped and counted.
    pub fn record_history(&self, entry: HistoryEntry) {
        let entry = entry.bounded();
        let unique = self.unique.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff;
        let key = entry.key(&format!("{unique:08x}"));
        if self.commands.try_send(Command::Record { key, entry }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The state as it is now on this node's disk.
    #[must_use]
    pub fn content(&self) -> Arc<Content> {
        Arc::clone(&self.content.borrow())
    }

    /// What is written under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.content().get(key).map(|item| item.value.clone())
    }

    /// Keys and values of all keys that begin with `prefix`, in order.
    #[must_use]
    pub fn scan(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.content().scan(prefix).map(|(key, item)| (key.to_owned(), item.value.clone())).collect()
    }

    /// The transitions of both nodes, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.content().history()
    }

    /// Fires after each change of the content.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Content>> {
        self.content.clone()
    }

    /// Fires after each change of the view.
    #[must_use]
    pub fn watch_view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// For `status`.
    #[must_use]
    pub fn view(&self) -> View {
        let mut view = self.view.borrow().clone();
        view.dropped += self.dropped.load(Ordering::Relaxed);
        view
    }

    /// The highest term of the group `state` that this replica knows: the engine must campaign above it.
    #[must_use]
    pub fn highest_term(&self) -> Term {
        self.view.borrow().highest
    }

    /// An operator says that this node's copy is to count as whole, although it may lack something.
    pub async fn accept(&self) {
        // An error means that the replica has stopped.
        self.commands.send(Command::Accept).await.ok();
    }

    /// Ends the replica and closes the store; what was answered is on the disk anyway.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { done }).await.is_ok() {
            stopped.await.ok();
        }
    }
}

type Commit = Pin<Box<dyn Future<Output = Result<Seq, Error>> + Send>>;

struct Task {
    replica: Replica,
    disk: Arc<Disk>,
    /// The commit under way.
    commit: Option<Commit>,
    session: Option<Live>,
    answers: BTreeMap<u64, oneshot::Sender<Result<Written, WriteError>>>,
    next_answer: u64,
    content: watch::Sender<Arc<Content>>,
    view: watch::Sender<View>,
    /// Keeps the channel open on a node without a link.
    _established: mpsc::Sender<Established>,
}

/// A session, and the word that it is over once it is dropped.
struct Live {
    session: Session,
    _over: oneshot::Sender<()>,
}

impl Task {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Command>,
        mut roles: watch::Receiver<Role>,
        mut streams: mpsc::Receiver<Established>,
    ) {
        loop {
            let wants = self.replica.wants_message();
            let wait = now().at.until(self.replica.next_deadline()).min(Duration::from_secs(60));
            let input = tokio::select! {
                Ok(()) = roles.changed() => Input::Role(*roles.borrow_and_update()),
                result = committed(&mut self.commit) => {
                    self.commit = None;
                    Input::Persisted(result.map(|_| ()).map_err(|e| e.to_string()))
                }
                command = asked.recv() => match command {
                    Some(Command::Stop { done }) => return self.stop(done).await,
                    Some(command) => self.command(command),
                    None => return,
                },
                message = heard(&mut self.session), if wants => match message {
                    Some(message) => Input::Message(message),
                    None => {
                        self.session = None;
                        Input::Disconnected
                    }
                },
                Some(Established { stream, over }) = streams.recv() => {
                    self.session = Some(Live { session: Session::start(stream), _over: over });
                    Input::Connected
                }
                () = tokio::time::sleep(wait) => Input::Tick,
            };
            self.step(input);
        }
    }

    fn command(&mut self, command: Command) -> Input {
        match command {
            Command::Write { ops, answer } => {
                let id = self.next_answer;
                self.next_answer += 1;
                self.answers.insert(id, answer);
                Input::Write { id, ops }
            }
            Command::Record { key, entry } => Input::Record { key, entry },
            Command::Accept => Input::Accept,
            Command::Stop { .. } => Input::Tick,
        }
    }

    /// One input, and all that follows from it. The clock is read after the input came.
    fn step(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            for action in self.replica.handle(now(), input) {
                if self.carry_out(action) {
                    next = Some(Input::Disconnected);
                }
            }
        }
        let content = self.replica.content();
        self.content.send_if_modified(|old| {
            let changed = !Arc::ptr_eq(old, &content);
            *old = content;
            changed
        });
        let view = self.replica.view(now());
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
    }

    /// Does it; `true` if the session is over by it.
    fn carry_out(&mut self, action: Action) -> bool {
        match action {
            Action::Persist(batch) => self.commit = Some(commit(Arc::clone(&self.disk), batch)),
            Action::Send(message) => {
                if self.session.as_ref().is_some_and(|live| !live.session.send(message)) {
                    tracing::debug!("replication session ended: the peer is too slow, or gone");
                    self.session = None;
                    return true;
                }
            }
            Action::Answer { id, result } => {
                if let Some(answer) = self.answers.remove(&id) {
                    // Whoever asked may have gone.
                    answer.send(result).ok();
                }
            }
            Action::Disconnect(cause) => {
                tracing::warn!(cause, "replication session ended");
                self.session = None;
                return true;
            }
            Action::Event(event @ (Event::StoreFailed(_) | Event::Conflict { .. })) => tracing::error!("{event}"),
            Action::Event(event @ Event::TermBelow { .. }) => tracing::warn!("{event}"),
            Action::Event(event @ Event::CopyTaken { .. }) => tracing::info!("{event}"),
        }
        false
    }

    /// The commit under way ends first; nothing else is answered.
    async fn stop(mut self, done: oneshot::Sender<()>) {
        if let Some(commit) = self.commit.take() {
            drop(commit.await);
        }
        let disk = Arc::into_inner(self.disk);
        if let Some(disk) = disk {
            disk.close().await;
        }
        // Whoever asked may have gone.
        done.send(()).ok();
    }
}

fn commit(disk: Arc<Disk>, batch: Batch) -> Commit {
    Box::pin(async move { disk.commit(batch).await })
}

async fn committed(commit: &mut Option<Commit>) -> Result<Seq, Error> {
    match commit {
        Some(commit) => commit.await,
        None => pending().await,
    }
}

async fn heard(live: &mut Option<Live>) -> Option<super::message::Message> {
    match live {
        Some(live) => live.session.receive().await,
        None => pending().await,
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at: Instant = clock::now();
    Now { at, unix_ms: unix.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)) }
}
