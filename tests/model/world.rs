//! What can happen in the model, and what comes of it: a `stateright` model around the real engines.

use crate::state::{Brain, Flying, Kernel, Machine, NOW, Packet, Seen, Spent, State, identity, web};
use hawser::cluster::normal::Shift;
use hawser::cluster::witness::WitnessAction;
use hawser::cluster::{
    Action, Command, Engine, GroupSetup, Input, Intent, Member, Members, Memory, Message, Report, Secret, SecretHash,
    Sets, Setup, Third, Timing, Witness,
};
use hawser::limits::GUARD;
use hawser::time::Duration;
use stateright::{Model, Property};
use std::sync::Arc;

/// So many steps of time may pass until somebody serves again: silence, a candidacy that is in vain, jitter, another.
const PATIENCE: usize = 30;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A datagram arrives.
    Deliver(Flying),
    /// Time passes. Of what is under way only this arrives later still; the rest is lost. This node's worker does not
    /// run meanwhile.
    Tick { late: Vec<Flying>, frozen: Option<Member> },
    /// What this machine writes is on its disk.
    Written(Member),
    /// The keeper of this node's addresses has read back that they are gone.
    Gone(Member),
    /// The worker (or the witness) dies. The kernel goes on.
    Crash(Member),
    /// It comes to life again; without its disk if so.
    Start { who: Member, wiped: bool },
    /// An operator wants the owner to move the group.
    Move(Member),
}

/// Where the walks of a model begin. The real engines were brought there, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Everybody has just come to life, and nobody was heard.
    Cold,
    /// The first node owns the group, and everybody knows.
    Steady,
    /// It owns the group, and two members have not heard each other for so long that nothing binds them.
    Cut(Member, Member),
}

/// The bounds of one model: exhaustive within them.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// So many steps at most.
    pub(crate) depth: usize,
    pub(crate) timing: Timing,
    /// How far each clock goes in one step of time: unequal if the clocks' rates are.
    pub(crate) tick: [Duration; 3],
    /// At most so many datagrams are older than one step of time.
    pub(crate) late: usize,
    /// At most so much is done to the cluster.
    pub(crate) most: Spent,
    pub(crate) term_max: u64,
    /// The disks take time. Else what is written is there at once.
    pub(crate) slow_disks: bool,
    /// Who may die.
    pub(crate) mortal: Vec<Member>,
    /// Where the walks begin.
    pub(crate) start: Start,
    /// On one state of so many it is tried whether the cluster comes back from there.
    pub(crate) recovery_every: u64,
    /// A fault that is planted into the engines.
    pub(crate) plant: crate::Plant,
}

/// SHA-256 stands in the daemon; no secret is shown here.
const fn hash(secret: &Secret) -> SecretHash {
    SecretHash(secret.0)
}

impl Bounds {
    /// A machine's worker, or the witness, comes to life.
    fn start(&self, machine: &mut Machine, who: Member) {
        machine.life += 1;
        let (me, memory) = (identity(who, machine.life), machine.disk.as_deref().cloned());
        machine.believed = [0; 3];
        if who == Member::Witness {
            machine.brain = Some(Brain::Witness(Arc::new(Witness::new(NOW, me, memory, hash))));
        } else {
            let setup = Setup {
                me,
                timing: self.timing,
                groups: vec![GroupSetup { name: web(), prefer: Member::First, addresses: Vec::new() }],
                drain: Duration::ZERO,
                config: 1,
                wanted: Members::Trio(Third::None),
                hash,
                seed: 1 + me.member.index() as u64,
                memory,
            };
            machine.brain = Some(Brain::Node(Arc::new(Engine::new(NOW, setup))));
            machine.kernel.owes_gone = true;
        }
    }

    /// Everything has just been started.
    fn beginning(&self) -> State {
        self.plant.sow();
        let memory = Arc::new(Memory { sets: Sets::default(), hold_given: self.timing.hold(), groups: Vec::new() });
        let mut state = State {
            machines: [0; 3].map(|_| Machine::new(Some(Arc::clone(&memory)))),
            flying: Vec::new(),
            spent: Spent::default(),
            seen: Seen::default(),
            calm: false,
        };
        for who in Member::ALL {
            let machine = state.machine_mut(who);
            self.start(machine, who);
            machine.seal();
        }
        state
    }

    /// All goes well for one step of time: everything arrives (but for what a cut loses), every write is done, whoever is
    /// down comes up.
    fn calm_tick(&self, state: &mut State, cut: Option<(Member, Member)>) {
        for who in Member::ALL {
            if state.machine(who).brain.is_none() {
                self.step(state, Step::Start { who, wiped: false });
            }
        }
        // What is said in one moment ends: each answer is the answer to one message.
        for _ in 0..1000 {
            let writes = Member::ALL.into_iter().find(|m| state.machine(*m).writing.is_some());
            let gone = Member::ALL.into_iter().find(|m| state.machine(*m).kernel.owes_gone);
            let step = if let Some(flying) = state.flying.first() {
                if cut.is_some_and(|(a, b)| [(a, b), (b, a)].contains(&(flying.1.from, flying.1.to))) {
                    state.flying.remove(0);
                    continue;
                }
                Step::Deliver(flying.clone())
            } else if let Some(who) = writes {
                Step::Written(who)
            } else if let Some(who) = gone {
                Step::Gone(who)
            } else {
                break;
            };
            self.step(state, step);
        }
        self.step(state, Step::Tick { late: Vec::new(), frozen: None });
    }

    /// If all goes well from here on, one node answers before long. Tried on one state of so many.
    fn recovers(&self, state: &State) -> bool {
        if !state.number().is_multiple_of(self.recovery_every) {
            return true;
        }
        self.plant.sow();
        let mut state = State { calm: true, ..state.clone() };
        (0..PATIENCE).any(|_| {
            self.calm_tick(&mut state, None);
            state.answering().count() == 1
        })
    }

    /// Carries out one step. Whether it could be.
    pub(crate) fn step(&self, state: &mut State, step: Step) -> bool {
        match step {
            Step::Deliver(flying) => self.deliver(state, &flying),
            Step::Tick { late, frozen } => self.tick(state, late, frozen),
            Step::Written(who) => self.written(state, who),
            Step::Gone(who) => {
                state.machine_mut(who).kernel = Kernel::default();
                self.tell(state, who, Input::Report(Report::Gone(web())));
            }
            Step::Crash(who) => {
                let machine = state.machine_mut(who);
                (machine.brain, machine.writing) = (None, None);
                machine.kernel.owes_gone = false;
                machine.seal();
                state.spent.crashes += 1;
            }
            Step::Start { who, wiped } => {
                let machine = state.machine_mut(who);
                if wiped {
                    (machine.disk, machine.told) = (None, 0);
                }
                self.start(machine, who);
                let forgot = machine.terms().is_some_and(|(_, voted)| voted < machine.told);
                machine.seal();
                state.spent.wipes += u8::from(wiped);
                if forgot {
                    state.seen.broken.get_or_insert("a vote that was told is not on the disk");
                }
                self.tell(state, who, Input::Tick);
            }
            Step::Move(who) => {
                state.spent.moves += 1;
                self.tell(state, who, Input::Command(1, Command::Switchover { group: web(), force: false }));
            }
        }
        true
    }

    /// A datagram arrives. The answer to a question that binds nobody arrives with it, or is lost with it.
    fn deliver(&self, state: &mut State, flying: &Flying) {
        self.arrive(state, flying);
        while let Some(answer) = state.flying.iter().find(|f| matches!(f.1.message, Message::PreVoteAnswer(_))) {
            let answer = answer.clone();
            self.arrive(state, &answer);
        }
    }

    fn arrive(&self, state: &mut State, flying: &Flying) {
        if let Ok(at) = state.flying.binary_search_by_key(&flying.0, |f| f.0) {
            state.flying.remove(at);
        }
        let packet = &flying.1;
        let machine = state.machine_mut(packet.to);
        // What the sessions do: only what is meant for this life, and nothing of a life that was replaced.
        let believed = &mut machine.believed[packet.from.index()];
        if machine.brain.is_none() || machine.life != packet.to_life || *believed > packet.from_life {
            return;
        }
        *believed = packet.from_life;
        let from = identity(packet.from, packet.from_life);
        let to = packet.to;
        if let Some(Brain::Witness(witness)) = &mut machine.brain {
            let before = (witness.voter().highest(web()).0, witness.voter().voted(web()).0.0);
            let actions = Arc::make_mut(witness).handle(NOW, from, &packet.message);
            self.witness_acts(state, actions, before);
        } else {
            self.tell(state, to, Input::Message { from, message: packet.message.clone() });
        }
    }

    fn written(&self, state: &mut State, who: Member) {
        let machine = state.machine_mut(who);
        let Some((id, memory)) = machine.writing.take() else { return };
        machine.disk = Some(memory);
        if let Some(Brain::Witness(witness)) = &mut machine.brain {
            let before = (witness.voter().highest(web()).0, witness.voter().voted(web()).0.0);
            let actions = Arc::make_mut(witness).written(NOW, id);
            self.witness_acts(state, actions, before);
        } else {
            self.tell(state, who, Input::Persisted(id));
        }
    }

    fn witness_acts(&self, state: &mut State, actions: Vec<WitnessAction>, before: (u64, u64)) {
        for action in actions {
            match action {
                WitnessAction::Send(to, message) => self.send(state, Member::Witness, to, message),
                WitnessAction::Persist(id, memory) => {
                    state.machine_mut(Member::Witness).writing = Some((id, Arc::new(memory)))
                }
            }
        }
        self.settle(state, Member::Witness, before);
    }

    /// A node's engine takes an input, and its actions are carried out.
    fn tell(&self, state: &mut State, who: Member, input: Input) {
        let machine = state.machine_mut(who);
        let before = machine.terms().unwrap_or_default();
        let owned = machine.owned();
        let Some(Brain::Node(engine)) = &mut machine.brain else { return };
        for action in Arc::make_mut(engine).handle(NOW, input) {
            match action {
                Action::Send(to, message) => self.send(state, who, to, message),
                Action::Persist(id, memory) => state.machine_mut(who).writing = Some((id, Arc::new(memory))),
                Action::Answer(_, answer) => state.seen.handed_over |= answer.is_ok(),
                Action::Drain(..) | Action::Announce(_) | Action::Event(_) | Action::Stopped => {}
            }
        }
        let machine = state.machine_mut(who);
        match machine.intent() {
            Some(Intent::Held { until, .. }) => {
                machine.kernel.open_until = machine.kernel.open_until.max(Some(until - GUARD));
            }
            Some(Intent::Leaving { .. }) => machine.kernel.owes_gone = true,
            Some(Intent::Released) | None => machine.kernel.owes_gone |= owned.is_some(),
        }
        self.settle(state, who, before);
    }

    /// After each change of a member: what must be true of its terms.
    fn settle(&self, state: &mut State, who: Member, before: (u64, u64)) {
        let machine = state.machine_mut(who);
        let after = machine.terms().unwrap_or_default();
        let owned = machine.owned().map(|term| (term, Some((who, machine.life))));
        machine.seal();
        if after.0 < before.0 || after.1 < before.1 {
            state.seen.broken.get_or_insert("a voter's term went back");
        }
        if let Some(new) = owned.filter(|new| *new != state.seen.last) {
            match new.0.cmp(&state.seen.last.0) {
                std::cmp::Ordering::Greater => state.seen.last = new,
                std::cmp::Ordering::Equal => {
                    state.seen.broken.get_or_insert("one term has two owners");
                }
                // Whoever is deposed and does not know it yet.
                std::cmp::Ordering::Less => {}
            }
        }
        if !self.slow_disks && state.machine(who).writing.is_some() {
            self.written(state, who);
        }
    }

    fn send(&self, state: &mut State, from: Member, to: Member, message: Message) {
        let idle = match &message {
            Message::Heartbeat(beat) => {
                !beat.recall.lost() && beat.groups.iter().all(|line| line.owned.is_none() && line.released.is_none())
            }
            Message::Hello
            | Message::Voters(_)
            | Message::Ack(_)
            | Message::PreVote(_)
            | Message::PreVoteAnswer(_)
            | Message::Vote(_)
            | Message::VoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => false,
        };
        let voted = match &message {
            Message::Vote(request) => request.term.0,
            Message::VoteAnswer(answer) if answer.granted => answer.term.0,
            Message::VoteAnswer(_)
            | Message::Voters(_)
            | Message::Hello
            | Message::Heartbeat(_)
            | Message::Ack(_)
            | Message::PreVote(_)
            | Message::PreVoteAnswer(_)
            | Message::Offer { .. }
            | Message::Ask { .. } => 0,
        };
        let machine = state.machine_mut(from);
        machine.told = machine.told.max(voted);
        let from_life = machine.life;
        let to_life = state.machine(to).life;
        if !idle || state.calm {
            state.launch(Packet { from, from_life, to, to_life, message });
        }
    }

    /// Time passes, and every state is told from the new moment.
    fn tick(&self, state: &mut State, late: Vec<Flying>, frozen: Option<Member>) {
        state.spent.freezes += u8::from(frozen.is_some());
        let may_move = state.spent.moves < self.most.moves;
        let mut seqs = [0; 3];
        for who in Member::ALL {
            let passed = NOW + self.tick[who.index()];
            if let Some(engine) = state.machine(who).node() {
                seqs[who.index()] = engine.first_seq_of_use(passed).saturating_sub(1);
            }
        }
        for who in Member::ALL {
            let shift = Shift { now: NOW, back: self.tick[who.index()], seqs, may_move };
            let machine = state.machine_mut(who);
            match &mut machine.brain {
                Some(Brain::Node(engine)) => Arc::make_mut(engine).shift(&shift),
                Some(Brain::Witness(witness)) => Arc::make_mut(witness).shift(&shift),
                None => {}
            }
            if let Some((id, _)) = &mut machine.writing {
                *id = 1;
            }
            machine.kernel.open_until = machine.kernel.open_until.map(|at| shift.at(at)).filter(|at| NOW < *at);
            machine.seal();
        }
        state.flying.clear();
        for flying in late {
            let mut packet = (*flying.1).clone();
            renumber(&mut packet, seqs);
            state.launch(packet);
        }
        for who in [Member::First, Member::Second] {
            if frozen != Some(who) {
                self.tell(state, who, Input::Tick);
            }
        }
    }
}

/// Numbers in a datagram that goes on into a new moment.
fn renumber(packet: &mut Packet, seqs: [u64; 3]) {
    let (from, to) = (seqs[packet.from.index()], seqs[packet.to.index()]);
    match &mut packet.message {
        Message::Heartbeat(beat) => beat.seq = beat.seq.saturating_sub(from),
        Message::PreVote(request) | Message::Vote(request) => request.seq = request.seq.saturating_sub(from),
        Message::Ack(ack) => ack.seq = ack.seq.saturating_sub(to),
        Message::PreVoteAnswer(answer) | Message::VoteAnswer(answer) => answer.seq = answer.seq.saturating_sub(to),
        Message::Hello | Message::Offer { .. } | Message::Ask { .. } | Message::Voters(_) => {}
    }
}

/// Every way to keep at most so many of these.
fn choices(of: &[Flying], most: usize) -> Vec<Vec<Flying>> {
    let mut all = vec![Vec::new()];
    for flying in of {
        let more: Vec<Vec<Flying>> = all
            .iter()
            .filter(|some: &&Vec<Flying>| some.len() < most)
            .map(|some| some.iter().cloned().chain([flying.clone()]).collect())
            .collect();
        all.extend(more);
    }
    all
}

impl Model for Bounds {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = self.beginning();
        let cut = match self.start {
            Start::Cold => return vec![state],
            Start::Steady => None,
            Start::Cut(a, b) => Some((a, b)),
        };
        // Up to there all clocks go alike, so that the first node is the owner.
        let alike = Self { tick: [self.tick[Member::Witness.index()]; 3], ..self.clone() };
        state.calm = true;
        for _ in 0..40 {
            alike.calm_tick(&mut state, None);
        }
        for _ in 0..8 {
            alike.calm_tick(&mut state, cut);
        }
        (state.calm, state.spent) = (false, Spent::default());
        assert!(state.machine(Member::First).owned().is_some(), "{}: the first node owns the group", self.name);
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.plant.sow();
        steps.extend(state.flying.iter().cloned().map(Step::Deliver));
        for who in Member::ALL {
            let machine = state.machine(who);
            if machine.writing.is_some() {
                steps.push(Step::Written(who));
            }
            if machine.kernel.owes_gone {
                steps.push(Step::Gone(who));
            }
            if machine.brain.is_none() {
                steps.push(Step::Start { who, wiped: false });
                if state.spent.wipes < self.most.wipes {
                    steps.push(Step::Start { who, wiped: true });
                }
            } else if state.spent.crashes < self.most.crashes && self.mortal.contains(&who) {
                steps.push(Step::Crash(who));
            }
            if state.spent.moves < self.most.moves && machine.owned().is_some() {
                steps.push(Step::Move(who));
            }
        }
        let binding = |f: &&Flying| !matches!(f.1.message, Message::PreVote(_));
        let flying: Vec<Flying> = state.flying.iter().filter(binding).cloned().collect();
        for late in choices(&flying, self.late) {
            if state.spent.freezes < self.most.freezes {
                for frozen in [Member::First, Member::Second] {
                    if state.machine(frozen).owned().is_some() {
                        steps.push(Step::Tick { late: late.clone(), frozen: Some(frozen) });
                    }
                }
            }
            steps.push(Step::Tick { late, frozen: None });
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        self.plant.sow();
        let mut state = last.clone();
        self.step(&mut state, step);
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let term = Member::ALL.into_iter().filter_map(|m| state.machine(m).terms()).map(|t| t.0).max();
        term.is_none_or(|term| term <= self.term_max)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_TWO, |_, state: &State| state.answering().count() < 2),
            Property::always(TERMS, |_, state: &State| state.seen.broken.is_none()),
            Property::always(RECOVERS, Self::recovers),
            Property::sometimes(MOVES, |_, state: &State| state.answering().any(|m| m == Member::Second)),
            Property::sometimes(SPENT, |model: &Self, state: &State| {
                let (spent, most) = (state.spent, model.most);
                (spent.crashes, spent.freezes, spent.moves) == (most.crashes, most.freezes, most.moves)
                    && spent.wipes == most.wipes
                    && state.seen.handed_over == (most.moves > 0)
                    && state.answering().count() == 1
            }),
        ]
    }
}

/// The promise of all.
pub(crate) const NEVER_TWO: &str = "at most one node answers";
/// No walk leads to where the cluster cannot come back from by itself.
pub(crate) const RECOVERS: &str = "when all goes well again, one node answers";
/// The walks lead somewhere.
pub(crate) const MOVES: &str = "the second node answers";
/// The faults that a model has are used, and survived.
pub(crate) const SPENT: &str = "everything that may go wrong has, and one node answers";
/// Terms go forward only.
pub(crate) const TERMS: &str = "terms never go back, and have one owner each";
