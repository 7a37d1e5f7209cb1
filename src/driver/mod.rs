//! Feeds the engine and carries out what it says: one thread, one loop, nothing that blocks.
//!
//! ```text
//!  datagrams ─┐                       ┌─> links (sealed, on each)
//!  timer ─────┤   now = clock::now()  ├─> disk (a vote; comes back as an input)
//!  queue ─────┴─> engine.handle() ────┼─> keeper (intents, newest wins)
//!                                     └─> notes for the control runtime (events, roles)
//! ```
//!
//! Rules: the clock is read after a datagram was received, and before one is handed out; time acts first. What comes by
//! the queue is bounded, and the loop never waits to hand anything on.
//!
//! Not here: what to decide (`cluster`), who may speak (`trust`), addresses (`vip`).

mod links;
mod refused;
pub mod sockets;
mod third;
mod ways;
pub mod witness;

pub use links::{Bound, Links, bind};
pub use refused::Refusals;
pub use ways::{Carries, Change, Direction, DirectionView, WayEvent, WayView};

use crate::{
    alarm::Alarm,
    clock,
    cluster::{
        Action, Claim, Command, CommandId, CommandRefusal, Engine, Event, GroupName, Identity, Incarnation, Input,
        Intent, Intents, Member, Memory, Message, Report, Third, View,
    },
    limits::{DATAGRAM_BURST_MAX, DATAGRAM_BYTES_MAX, DRAIN_POLL, DRIVER_QUEUE_MAX, THIRD_PROBE, THIRD_PROBE_FRESH},
    time::{Duration, Instant},
};
use links::Arrival;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    thread::{self, JoinHandle},
};
use tokio::sync::{mpsc, oneshot};

/// What the rest of the daemon tells the driver.
#[derive(Debug)]
pub enum Told {
    /// An input for the engine.
    Input(Input),
    /// An operator's command, and where its answer goes.
    Command(Command, oneshot::Sender<Result<(), CommandRefusal>>),
    /// Somebody wants to see.
    View(oneshot::Sender<Seen>),
}

/// What is shown of the driver.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the engine knows.
    pub view: View,
    /// What each link to the peer carries.
    pub links: Vec<WayView>,
    /// What comes from each address of the witness.
    pub witness_ways: Vec<WayView>,
    /// Datagrams that had no effect, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

/// What the driver tells the control runtime.
#[derive(Debug, Clone)]
pub enum Note {
    /// Something happened.
    Event(Event),
    /// Another machine claims an address that this node holds.
    Claimed(Claim),
    /// A way to another member carries nothing any more, or does again.
    Way(WayEvent),
    /// Everything is let go of: the process may end.
    Stopped,
}

/// Is told when somebody said what.
pub type Overhear = Box<dyn FnMut(Instant, Identity, &Message) + Send>;

/// The hands of the driver: none of them waits.
pub struct Hands {
    /// Hands a memory to the disk; its number comes back as [`Input::Persisted`].
    pub persist: Box<dyn FnMut(u64, Memory) -> Result<(), String> + Send>,
    /// Tells the keeper of the addresses what should be true.
    pub keep: Box<dyn FnMut(GroupName, Intent) + Send>,
    /// Told this node's right to each group without addresses, when it changes or is prolonged.
    pub role: Box<dyn FnMut(GroupName, Intent) + Send>,
    /// Announces a group's addresses again.
    pub announce: Box<dyn FnMut(GroupName) + Send>,
    /// How a group's listeners treat their connections.
    pub drain: Box<dyn FnMut(GroupName, Farewell) + Send>,
    /// Whether no request that takes long is in progress. Asked again and again while a group drains.
    pub drained: Box<dyn FnMut(GroupName) -> bool + Send>,
    /// Tells the control runtime.
    pub note: Box<dyn FnMut(Note) + Send>,
    /// Called about once an interval: the loop lives.
    pub beat: Box<dyn FnMut(Instant) + Send>,
    /// Who speaks on this machine for third voters that are no witness, reached by the links: the one that is wanted, and
    /// the one that is in force until then.
    pub thirds: Vec<LocalThird>,
    /// Told what the peer says, before the engine is.
    pub overhear: Vec<Overhear>,
    /// Groups without addresses: nobody keeps them, so they are gone as soon as they are let go of.
    pub bare: BTreeSet<GroupName>,
}

/// Who speaks for a third voter on this machine.
pub struct LocalThird {
    /// For which.
    pub of: Third,
    /// Under which life it answers, by the queue.
    pub life: Incarnation,
    /// Is told what is said to it.
    pub say: Box<dyn FnMut(Message) + Send>,
}

/// How a group's listeners treat their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// As ever.
    Stay,
    /// Responses say goodbye.
    Announce,
    /// Idle connections are closed: the group leaves now.
    Close,
}

/// How the rest of the daemon reaches the driver.
#[derive(Debug, Clone)]
pub struct DriverHandle {
    queue: mpsc::Sender<Told>,
}

impl DriverHandle {
    /// Tells the engine something. Blocks while the queue is full; not for async code.
    pub fn tell(&self, input: Input) {
        // A driver that is gone has ended the process, or is about to.
        let _gone = self.queue.blocking_send(Told::Input(input)).is_err();
    }

    /// Tells the engine something.
    pub async fn tell_async(&self, input: Input) {
        let _gone = self.queue.send(Told::Input(input)).await.is_err();
    }

    /// Tells the engine something, from the cluster thread itself: never waits. Whether there was room.
    #[must_use]
    pub fn try_tell(&self, input: Input) -> bool {
        self.queue.try_send(Told::Input(input)).is_ok()
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// Why the engine does not do it; nothing has changed then.
    pub async fn command(&self, command: Command) -> Result<(), CommandRefusal> {
        let (answer, receive) = oneshot::channel();
        if self.queue.send(Told::Command(command, answer)).await.is_err() {
            return Err(CommandRefusal::Lost);
        }
        receive.await.unwrap_or(Err(CommandRefusal::Lost))
    }

    /// What the driver knows now.
    pub async fn see(&self) -> Option<Seen> {
        let (answer, receive) = oneshot::channel();
        self.queue.send(Told::View(answer)).await.ok()?;
        receive.await.ok()
    }
}

/// A queue for the driver, made before it is started so that others can be given its handle.
#[must_use]
pub fn queue() -> (DriverHandle, mpsc::Receiver<Told>) {
    let (queue, receiver) = mpsc::channel(DRIVER_QUEUE_MAX);
    (DriverHandle { queue }, receiver)
}

struct Driver {
    engine: Engine,
    links: Links,
    hands: Hands,
    /// What was told to the keeper.
    intents: Intents,
    told_every: Duration,
    draining: BTreeSet<GroupName>,
    answers: BTreeMap<CommandId, oneshot::Sender<Result<(), CommandRefusal>>>,
    next_command: CommandId,
    /// Whether the wanted third voter answers, as the engine was told.
    ready: bool,
    /// When the wanted third voter last answered, if it is on this machine and not in force.
    local_heard_at: Option<Instant>,
    next_probe: Instant,
}

/// Starts the cluster thread. `make` builds engine and links on it.
///
/// # Errors
/// If no thread can be had.
pub fn spawn<F>(
    interval: Duration,
    make: F,
    hands: Hands,
    queue: mpsc::Receiver<Told>,
) -> io::Result<JoinHandle<io::Result<()>>>
where
    F: FnOnce() -> io::Result<(Engine, Links)> + Send + 'static,
{
    let told_every = interval * 3 / 2;
    thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let (engine, links) = make()?;
            let driver = Driver {
                engine,
                links,
                hands,
                intents: Intents::new(),
                told_every,
                draining: BTreeSet::new(),
                answers: BTreeMap::new(),
                next_command: 1,
                ready: false,
                local_heard_at: None,
                next_probe: Instant::ZERO,
            };
            driver.run(queue).await
        })
    })
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::Receiver<Told>) -> io::Result<()> {
        let mut alarm = Alarm::new()?.watched()?;
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        self.feed(Input::Tick);
        loop {
            let wake = if self.draining.is_empty() {
                self.engine.next_deadline()
            } else {
                self.engine.next_deadline().min(clock::now() + DRAIN_POLL)
            };
            alarm.get_mut().set(wake)?;
            tokio::select! {
                biased;
                ready = alarm.readable() => {
                    ready?.clear_ready();
                    self.tick();
                }
                told = queue.recv() => match told {
                    Some(told) => self.take(told),
                    None => return Ok(()),
                },
                arrived = self.links.receive(&mut buffer) => self.receive_burst(arrived, &mut buffer).await,
            }
        }
    }

    fn tick(&mut self) {
        self.feed(Input::Tick);
        let drained: Vec<GroupName> =
            self.draining.iter().filter(|group| (self.hands.drained)(**group)).copied().collect();
        for group in drained {
            self.draining.remove(&group);
            self.feed(Input::Drained(group));
        }
        let now = clock::now();
        self.probe_third(now);
        self.links.refusals().say(now);
        (self.hands.beat)(now);
    }

    /// Takes what waits on the sockets, but not for ever: timers come first again after a while.
    async fn receive_burst(
        &mut self,
        first: (usize, std::net::SocketAddr, usize),
        buffer: &mut [u8; DATAGRAM_BYTES_MAX + 1],
    ) {
        let mut arrived = Some(first);
        for _ in 0..DATAGRAM_BURST_MAX {
            let Some((by, from, length)) = arrived else { return };
            let now = clock::now();
            match self.links.take(now, by, from, buffer.get(..length).unwrap_or_default()) {
                Some(Arrival::Messages(from, messages)) => {
                    for message in messages {
                        self.overhear(now, from, &message);
                        self.feed(Input::Message { from, message });
                    }
                }
                Some(Arrival::Apart(from, stances)) => {
                    self.feed(Input::Apart(from));
                    for message in stances {
                        self.overhear(now, from, &message);
                        self.feed(Input::Message { from, message });
                    }
                }
                Some(Arrival::Notice(secret)) => self.feed(Input::Notice(secret)),
                None => {}
            }
            for event in self.links.way_events() {
                (self.hands.note)(Note::Way(event));
            }
            if clock::now() >= self.engine.next_deadline() {
                return;
            }
            arrived = futures_util::FutureExt::now_or_never(self.links.receive(buffer));
        }
    }

    fn overhear(&mut self, now: Instant, from: Identity, message: &Message) {
        if from.member != Member::Witness {
            self.hands.overhear.iter_mut().for_each(|overhear| overhear(now, from, message));
        }
    }

    /// What a third voter on this machine says counts while it is the one in force; else it is a sign of life.
    fn take_local(&mut self, from: Identity, message: Message) {
        let Some(local) = self.hands.thirds.iter().find(|local| local.life == from.incarnation) else { return };
        if self.engine.third() == Some(&local.of) {
            self.feed(Input::Message { from, message });
        } else if self.engine.wanted_third() == Some(&local.of) {
            self.local_heard_at = Some(clock::now());
        }
    }

    /// Tells the engine whether the third voter that the configuration wants answers.
    fn probe_third(&mut self, now: Instant) {
        let in_force = self.engine.third() == self.engine.wanted_third();
        let witness = self.links.probe_third(now);
        if witness.is_none() && !in_force && now >= self.next_probe {
            self.next_probe = now + THIRD_PROBE;
            let question = self.engine.empty_heartbeat();
            let wanted = self.hands.thirds.iter_mut().find(|local| self.engine.wanted_third() == Some(&local.of));
            if let Some(local) = wanted {
                (local.say)(question);
            }
        }
        let answers = || self.local_heard_at.is_some_and(|at| now.since(at) < THIRD_PROBE_FRESH);
        let ready = witness.unwrap_or_else(answers);
        if self.ready != ready {
            self.ready = ready;
            self.feed(Input::ThirdReady(ready));
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Input(Input::Message { from, message }) if from.member == Member::Witness => {
                self.take_local(from, message);
            }
            Told::Input(input) => self.feed(input),
            Told::Command(command, answer) => {
                let id = self.next_command;
                self.next_command += 1;
                self.answers.insert(id, answer);
                self.feed(Input::Command(id, command));
            }
            Told::View(answer) => {
                let now = clock::now();
                let seen = Seen {
                    view: self.engine.view(),
                    links: self.links.links(now),
                    witness_ways: self.links.witness_ways(now),
                    refused: self.links.refusals().totals().clone(),
                };
                // Who asked may have gone away.
                let _gone = answer.send(seen).is_err();
            }
        }
    }

    /// One input, its actions, and the intents that follow.
    fn feed(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = clock::now();
            let actions = self.engine.handle(now, input);
            for action in actions {
                self.carry_out(action);
            }
            self.links.flush(now);
            self.links.set_voters(self.engine.voter().sets());
            next = self.spread_intents().map(|gone| Input::Report(Report::Gone(gone)));
        }
    }

    /// Tells the keeper what has changed. Groups without addresses that are gone at once: one, the others next time.
    fn spread_intents(&mut self) -> Option<GroupName> {
        let mut gone = None;
        for (group, intent) in self.engine.intents() {
            let old = self.intents.get(&group).copied();
            if old.is_some_and(|old| !self.is_news(old, intent)) {
                continue;
            }
            if self.hands.bare.contains(&group) {
                let released = !matches!(intent, Intent::Held { .. });
                if released && gone.is_some() {
                    continue;
                }
                gone = gone.or(released.then_some(group));
                (self.hands.role)(group, intent);
            } else {
                let leaves = matches!(intent, Intent::Leaving { .. });
                if leaves && !matches!(old, Some(Intent::Leaving { .. })) {
                    (self.hands.drain)(group, Farewell::Close);
                }
                (self.hands.keep)(group, intent);
            }
            if old.map(|old| std::mem::discriminant(&old)) != Some(std::mem::discriminant(&intent)) {
                tracing::debug!(%group, ?intent, "intent changed");
            }
            self.intents.insert(group, intent);
        }
        gone
    }

    /// Whether the keeper has to be told. A lease that is prolonged at each heartbeat is told at each second one: a
    /// renewal costs a wake-up of the keeper, a change of the gate and a word to the supervisor. What was told ends
    /// earlier than what is true, by less than two intervals; never later.
    fn is_news(&self, old: Intent, new: Intent) -> bool {
        match (old, new) {
            (Intent::Held { term, until }, Intent::Held { term: now, until: longer }) => {
                term != now || longer < until || longer >= until + self.told_every
            }
            (
                Intent::Released | Intent::Held { .. } | Intent::Leaving { .. },
                Intent::Released | Intent::Held { .. } | Intent::Leaving { .. },
            ) => old != new,
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(to, message) => {
                let third = self.engine.third().filter(|_| to == Member::Witness);
                match self.hands.thirds.iter_mut().find(|local| third == Some(&local.of)) {
                    Some(local) => (local.say)(message),
                    None => self.links.send(to, message),
                }
            }
            Action::Persist(id, memory) => {
                if let Err(why) = (self.hands.persist)(id, memory) {
                    tracing::error!(why, "a vote could not be handed to the disk");
                }
            }
            Action::Drain(group, on) => {
                (self.hands.drain)(group, if on { Farewell::Announce } else { Farewell::Stay });
                if on {
                    self.draining.insert(group);
                } else {
                    self.draining.remove(&group);
                }
            }
            Action::Announce(group) => (self.hands.announce)(group),
            Action::Event(event) => (self.hands.note)(Note::Event(event)),
            Action::Answer(id, answer) => {
                if let Some(waiting) = self.answers.remove(&id) {
                    let _gone = waiting.send(answer).is_err();
                }
            }
            Action::Stopped => (self.hands.note)(Note::Stopped),
        }
    }
}
