//! What a supervisor does, and when: pure, so that the simulator runs the same code.
//!
//! The rule it keeps: the release notice is sent only after the worker is known to be dead *and* a dump showed none of
//! its addresses. A worker that does not die loses its addresses all the same, and no notice is sent.
//!
//! Words only change what is known; time acts on [`Input::Tick`]. So whoever drives this reads all words that wait and
//! then ticks: a deadline that was moved in time but read late does no harm, one that was read too late acts at once.

use crate::{
    cluster::{GroupName, Secret},
    config::Vip,
    limits::{
        CLOSE_PATIENCE, GUARD, KILL_PATIENCE, NOTICE_TIMES, RESTART_BACKOFF_MAX, RESTART_BACKOFF_MIN,
        RESTART_BACKOFF_RESET, TAKE_AWAY_PATIENCE, TAKE_AWAY_REPEAT,
    },
    time::{Duration, Instant},
    vip::supervision::{Hello, Word},
};
use std::collections::BTreeMap;

/// Exit code of a worker whose configuration is wrong (`EX_CONFIG`, `sysexits.h`): to start it again would not help.
pub const EXIT_CONFIG: u8 = 78;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl Ending {
    /// The exit code as a shell would show it.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }
}

/// What a supervisor hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The worker said something.
    Word(Word),
    /// The worker closed its end of the link.
    LinkClosed,
    /// The worker is dead: the pidfd says so.
    WorkerDied(Ending),
    /// The addresses were deleted; this says whether a dump afterwards showed none of them.
    TakenAway {
        /// No configured address was seen.
        all_gone: bool,
    },
    /// A person or the service manager wants it to end: the signal that asked.
    Stop(i32),
    /// A signal that only the worker cares about.
    Pass(i32),
    /// Time went by.
    Tick,
}

/// What a supervisor does, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the worker.
    StartWorker,
    /// Kill the worker (`SIGKILL`), and say when it is dead.
    KillWorker,
    /// Send the worker this signal.
    Forward(i32),
    /// Delete these addresses, dump, and say what was seen; destroy the sockets bound to them.
    TakeAway {
        /// The addresses.
        vips: Vec<Vip>,
        /// When the connections are reset.
        resets: Resets,
    },
    /// Send one copy of the release notice to each of its destinations.
    SendNotice(Secret),
    /// End, with this code.
    Exit(u8),
}

/// When the connections of addresses that go are reset. A reset reaches the other side only while the address is there,
/// but to find the connections takes the kernel some milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// Before the addresses go: there is time, as the lease runs.
    First,
    /// Afterwards: the lease is about to end.
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No worker; one is started then.
    Waiting { start_at: Instant },
    /// The worker runs.
    Running,
    /// It was killed and is not dead yet. At `take_away_at` its addresses go all the same.
    Killing { take_away_at: Instant },
    /// It is dead, its addresses are not yet known to be gone.
    TakingAway { ending: Ending, died: Instant, again_at: Instant },
    /// Its addresses are gone; `sent` copies of the notice were sent.
    Noticing { ending: Ending, died: Instant, gone: Instant, sent: usize },
    /// Over.
    Ended,
}

/// The supervisor's state.
#[derive(Debug)]
pub struct Core {
    phase: Phase,
    hello: Option<Hello>,
    armed: BTreeMap<GroupName, Instant>,
    started: Instant,
    backoff: Duration,
    /// A worker of this supervisor once said hello.
    was_up: bool,
    /// This worker said that it ends in order.
    bye: bool,
    /// The worker closed its link, and held no address.
    closed_at: Option<Instant>,
    /// Someone asked us to end.
    stopping: bool,
    resets: Resets,
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Core {
    /// A supervisor that starts its worker at the first tick.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Waiting { start_at: Instant::ZERO },
            hello: None,
            armed: BTreeMap::new(),
            started: Instant::ZERO,
            backoff: RESTART_BACKOFF_MIN,
            was_up: false,
            bye: false,
            closed_at: None,
            stopping: false,
            resets: Resets::First,
        }
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Word(word) => self.hear(word),
            Input::LinkClosed => self.link_closed(now, &mut actions),
            Input::WorkerDied(ending) => self.worker_died(now, ending, &mut actions),
            Input::TakenAway { all_gone } => self.taken_away(now, all_gone, &mut actions),
            Input::Stop(signal) => self.stop(now, signal, &mut actions),
            Input::Pass(signal) => {
                if self.phase == Phase::Running {
                    actions.push(Action::Forward(signal));
                }
            }
            Input::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// When to tick, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        match self.phase {
            Phase::Waiting { start_at } => start_at,
            Phase::Running => {
                let armed = self.armed.values().min().map_or(Instant::NEVER, |until| *until - 2 * GUARD);
                armed.min(self.closed_at.map_or(Instant::NEVER, |at| at + CLOSE_PATIENCE))
            }
            Phase::Killing { take_away_at } => take_away_at,
            Phase::TakingAway { again_at, .. } => again_at,
            Phase::Noticing { ending, died, gone, sent } => {
                NOTICE_TIMES.get(sent).map_or_else(|| self.next_start(died, ending), |after| gone + *after)
            }
            Phase::Ended => Instant::NEVER,
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Hello(hello) => {
                self.hello = Some(hello);
                self.was_up = true;
            }
            Word::Arm { group, until } => {
                self.armed.insert(group, until);
            }
            Word::Disarm { group } => {
                self.armed.remove(&group);
            }
            Word::Bye => self.bye = true,
            // The shell keeps what comes with it.
            Word::Keep => {}
        }
    }

    /// A worker that holds addresses is killed at once. One that holds none is about to end, with a message and a code
    /// that a kill would hide; it gets a while.
    fn link_closed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.armed.is_empty() {
            self.closed_at.get_or_insert(now);
        } else {
            self.kill(now, actions);
        }
    }

    fn kill(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running {
            self.phase = Phase::Killing { take_away_at: now + KILL_PATIENCE };
            actions.push(Action::KillWorker);
            #[cfg(feature = "planted")]
            if crate::cluster::planted::active(crate::cluster::planted::Planted::NoticeBeforeDeath) {
                actions.extend(self.hello.iter().map(|hello| Action::SendNotice(hello.secret)));
            }
        }
    }

    fn worker_died(&mut self, now: Instant, ending: Ending, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Running | Phase::Killing { .. }) {
            return;
        }
        self.armed.clear();
        if now.since(self.started) >= RESTART_BACKOFF_RESET {
            self.backoff = RESTART_BACKOFF_MIN;
        }
        self.phase = Phase::TakingAway { ending, died: now, again_at: now + TAKE_AWAY_REPEAT };
        match &self.hello {
            Some(_) => self.take_away(actions),
            None => self.after_notices(now, ending, now, actions),
        }
    }

    fn taken_away(&mut self, now: Instant, all_gone: bool, actions: &mut Vec<Action>) {
        match self.phase {
            // The worker may still add them again: what was seen proves nothing yet.
            Phase::Killing { .. } => {
                let again = if all_gone { Instant::NEVER } else { now + TAKE_AWAY_REPEAT };
                self.phase = Phase::Killing { take_away_at: again };
            }
            Phase::TakingAway { ending, died, .. } if all_gone => {
                self.phase = Phase::Noticing { ending, died, gone: now, sent: 0 };
                self.tick(now, actions);
            }
            Phase::TakingAway { ending, died, .. } if now.since(died) > TAKE_AWAY_PATIENCE => {
                self.after_notices(now, ending, died, actions);
            }
            Phase::TakingAway { ending, died, .. } => {
                self.phase = Phase::TakingAway { ending, died, again_at: now + TAKE_AWAY_REPEAT };
            }
            Phase::Waiting { .. } | Phase::Running | Phase::Noticing { .. } | Phase::Ended => {}
        }
    }

    fn stop(&mut self, now: Instant, signal: i32, actions: &mut Vec<Action>) {
        let again = std::mem::replace(&mut self.stopping, true);
        match self.phase {
            Phase::Running if again => self.kill(now, actions),
            Phase::Running => actions.push(Action::Forward(signal)),
            Phase::Waiting { .. } => self.exit(0, actions),
            Phase::Killing { .. } | Phase::TakingAway { .. } | Phase::Noticing { .. } | Phase::Ended => {}
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.next_deadline() {
            return;
        }
        match self.phase {
            Phase::Waiting { .. } => self.start(now, actions),
            Phase::Running => {
                self.resets = Resets::Last;
                self.kill(now, actions);
            }
            Phase::Killing { .. } => {
                self.resets = Resets::Last;
                self.phase = Phase::Killing { take_away_at: now + TAKE_AWAY_REPEAT };
                self.take_away(actions);
            }
            Phase::TakingAway { ending, died, .. } => {
                self.phase = Phase::TakingAway { ending, died, again_at: now + TAKE_AWAY_REPEAT };
                self.take_away(actions);
            }
            Phase::Noticing { ending, died, gone, sent } if sent < NOTICE_TIMES.len() => {
                self.phase = Phase::Noticing { ending, died, gone, sent: sent + 1 };
                actions.extend(self.hello.iter().map(|hello| Action::SendNotice(hello.secret)));
            }
            Phase::Noticing { ending, died, .. } => self.after_notices(now, ending, died, actions),
            Phase::Ended => {}
        }
    }

    fn take_away(&self, actions: &mut Vec<Action>) {
        let resets = self.resets;
        actions.extend(self.hello.iter().map(|hello| Action::TakeAway { vips: hello.vips.clone(), resets }));
    }

    /// The worker is dead and all that could be done for the others was done: start it again, or end.
    fn after_notices(&mut self, now: Instant, ending: Ending, died: Instant, actions: &mut Vec<Action>) {
        if self.is_last(ending) {
            self.exit(ending.code(), actions);
            return;
        }
        self.phase = Phase::Waiting { start_at: self.next_start(died, ending) };
        self.backoff = (self.backoff * 2).min(RESTART_BACKOFF_MAX);
        self.tick(now, actions);
    }

    /// Whether a worker that ended so is not started again: it was asked to end, or a new start would not help.
    fn is_last(&self, ending: Ending) -> bool {
        let by_itself = match ending {
            Ending::Exited(code) => code == 0 || code == EXIT_CONFIG || !self.was_up,
            Ending::Killed(_) => false,
        };
        self.bye || self.stopping || by_itself
    }

    fn next_start(&self, died: Instant, ending: Ending) -> Instant {
        if self.is_last(ending) { died } else { died + self.backoff }
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Running;
        self.started = now;
        self.hello = None;
        self.bye = false;
        self.closed_at = None;
        self.resets = Resets::First;
        self.armed.clear();
        actions.push(Action::StartWorker);
    }

    fn exit(&mut self, code: u8, actions: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        actions.push(Action::Exit(code));
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
