//! Two nodes, a witness, and what connects them, in virtual time.

use crate::kernel::{Clock, Kernel};
use hawser::cluster::{
    Action, Command, Engine, Envelope, Event, Fitness, GroupName, Identity, Incarnation, Input, Intent, Member, Memory,
    Message, Name, Report, Secret, SecretHash, Sessions, Setup, Term, Timing, Verdict, Witness, WitnessAction,
};
use hawser::limits::{GUARD, HOLD_MAX};
use hawser::supervisor::core::{Action as Order, Core, Ending, Input as Heard};
use hawser::time::{Duration, Instant};
use hawser::vip::supervision::{Hello, Word};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const MS: u64 = 1_000_000;
/// How the text of a broken promise begins.
pub(crate) const BROKEN: &str = "broken: ";
pub(crate) const NODES: [Member; 2] = [Member::First, Member::Second];

/// A seeded source of chance (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What a world is made with.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) timing: Timing,
    pub(crate) groups: Vec<(GroupName, Member)>,
    /// Clock rates, in parts per million off true time.
    pub(crate) ppm: [i64; 3],
    pub(crate) gated: bool,
    /// The disks hold a memory from before (else the cluster forms for the first time).
    pub(crate) formed: bool,
}

impl Plan {
    pub(crate) fn calm() -> Self {
        Self {
            seed: 1,
            timing: Timing::new(Duration::from_millis(500), Duration::from_millis(50)),
            groups: vec![(web(), Member::First)],
            ppm: [0; 3],
            gated: true,
            formed: true,
        }
    }
}

pub(crate) fn web() -> GroupName {
    Name::new("web").unwrap()
}

/// SHA-256 stands in the daemon; here any function without collisions will do.
pub(crate) fn hash(secret: &Secret) -> SecretHash {
    let mut out = secret.0;
    out.reverse();
    out[0] ^= 0x5a;
    SecretHash(out)
}

#[derive(Debug, Clone)]
enum Happening {
    Datagram(Member, Packet),
    Wake(Member, Incarnation),
    WakeSupervisor(Member, u64),
    Disk(Member, Incarnation, u64, Memory),
    Keeper(Member, Incarnation, GroupName, Op),
    Orders(Member, u64, Heard),
    /// The kernel has deleted a dead worker's addresses.
    Gone(Member, u64),
    Plan(Fault),
}

/// What a sieve does with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    /// It comes this much later.
    Late(u64),
}

/// Decides the fate of each datagram: when, from whom, to whom, what (nothing: a release notice).
pub(crate) type Sieve = Box<dyn FnMut(u64, Member, Member, Option<&Message>) -> Fate + Send>;

#[derive(Debug, Clone)]
struct Packet {
    from: Member,
    life: Incarnation,
    counter: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Sealed(Envelope),
    Notice(Secret),
}

/// What can be done to the world.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    KillWorker(Member),
    KillBoth(Member),
    KillSupervisor(Member),
    /// Machine off; with `true` the disk is lost.
    PowerOff(Member, bool),
    PowerOn(Member),
    Freeze(Member, Part),
    Thaw(Member, Part),
    /// The whole machine; with `true` its clock stands still meanwhile.
    Suspend(Member),
    Resume(Member, bool),
    Cut(Member, Member),
    Heal(Member, Member),
    Network(Network),
    DiskTakes(Member, u64),
    Fitness(Member, Fitness),
    Carrier(Member, bool),
    Standby(Member, bool),
    Switchover(Member, bool),
    Stop(Member),
    /// An old secret is shown to everybody.
    Replay(Secret),
    Rate(Member, i64),
    /// The configuration of one node says so from now on.
    Timing(Member, Timing),
    /// Datagrams on this way take so much longer.
    Slow(Member, Member, u64),
    /// Locks inside the kernel hold up each call for so long.
    KernelTakes(Member, u64),
    /// With `true` the worker cannot be killed: it hangs in the kernel.
    Unkillable(Member, bool),
    /// The supervisor sees the end of its link to the worker.
    Hangup(Member),
    /// Some of what was lately sent comes again, all at once.
    Storm(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Worker,
    Supervisor,
    Both,
}

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) loss: u64,
    pub(crate) twice: u64,
    pub(crate) delay: (u64, u64),
    /// Per mille of datagrams that come up to this much later.
    pub(crate) late: (u64, u64),
}

impl Network {
    pub(crate) const LAN: Self = Self { loss: 0, twice: 0, delay: (80_000, 300_000), late: (0, 0) };
}

/// One call of the keeper to the kernel, decided at one moment and carried out at a later one.
#[derive(Debug, Clone, Copy)]
enum Op {
    Arm(Instant),
    Add,
    Open(Instant, Instant),
    Renew { end: Instant, timeout: Duration, asked: Instant },
    Squeeze,
    Shut,
    Delete,
    ReadBack,
}

#[derive(Debug, Clone)]
struct Keeper {
    wanted: Intent,
    armed: Option<Instant>,
    added: bool,
    opened: bool,
    open_until: Option<Instant>,
    squeezed: bool,
    leave: bool,
    busy: bool,
    told: Option<Told>,
    dirty: bool,
    /// When the lifetime of the address was last renewed.
    renewed_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Held(Term),
    Gone,
}

enum Brain {
    Node(Box<Engine>),
    Witness(Witness),
}

struct Worker {
    brain: Brain,
    sessions: Sessions,
    life: Incarnation,
    secret: Secret,
    counter: u64,
    frozen: bool,
    /// When it was frozen, on its own clock: what it read before it was.
    frozen_at: Option<Instant>,
    inbox: VecDeque<Happening>,
    keepers: BTreeMap<GroupName, Keeper>,
    next_wake: u64,
}

struct Supervisor {
    core: Core,
    number: u64,
    frozen: bool,
    inbox: VecDeque<Heard>,
}

pub(crate) struct Machine {
    pub(crate) clock: Clock,
    pub(crate) kernel: Kernel,
    pub(crate) disk: Option<Memory>,
    pub(crate) timing: Timing,
    disk_takes: u64,
    kernel_takes: u64,
    unkillable: bool,
    powered: bool,
    suspended_at: Option<u64>,
    worker: Option<Worker>,
    supervisor: Option<Supervisor>,
    fitness: Fitness,
    carrier: bool,
    standby: bool,
    asleep: VecDeque<Happening>,
}

/// A lease that some life was given, whether it lives or not.
#[derive(Debug, Clone, Copy)]
struct Lease {
    node: Member,
    end: Instant,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) chance: Chance,
    pub(crate) machines: [Machine; 3],
    pub(crate) network: Network,
    pub(crate) sieve: Option<Sieve>,
    cut: BTreeSet<(Member, Member)>,
    slow: BTreeMap<(Member, Member), u64>,
    /// What was lately sent.
    recent: VecDeque<(Member, Packet)>,
    queue: BTreeMap<(u64, u64), Happening>,
    order: u64,
    pub(crate) trace: Option<Vec<String>>,
    owners: BTreeMap<(GroupName, Term), Incarnation>,
    leases: BTreeMap<(GroupName, Incarnation), Lease>,
    last_term: BTreeMap<GroupName, Term>,
    pub(crate) events: Vec<(u64, Member, Event)>,
    pub(crate) answers: Vec<(u64, Member, Result<(), hawser::cluster::CommandRefusal>)>,
    /// The first broken promise.
    pub(crate) broken: Option<String>,
    /// How long two nodes answered for one address, in all.
    pub(crate) double_ns: u64,
    double_since: Option<u64>,
    pub(crate) double_allowed: u64,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut chance = Chance(plan.seed);
        let machines = Member::ALL.map(|m| Machine {
            clock: Clock::new(chance.between(1, 1000) * 1_000_000_000, plan.ppm[m.index()]),
            kernel: Kernel { gated: plan.gated, ..Kernel::default() },
            disk: plan.formed.then(Memory::default),
            timing: plan.timing,
            disk_takes: 0,
            kernel_takes: 0,
            unkillable: false,
            powered: false,
            suspended_at: None,
            worker: None,
            supervisor: None,
            fitness: Fitness::Fit,
            carrier: true,
            standby: false,
            asleep: VecDeque::new(),
        });
        let mut world = Self {
            now: 0,
            plan,
            chance,
            machines,
            network: Network::LAN,
            sieve: None,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            recent: VecDeque::new(),
            queue: BTreeMap::new(),
            order: 0,
            trace: None,
            owners: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_term: BTreeMap::new(),
            events: Vec::new(),
            answers: Vec::new(),
            broken: None,
            double_ns: 0,
            double_since: None,
            double_allowed: 0,
            steps: 0,
        };
        for member in Member::ALL {
            world.at(member.index() as u64 * MS / 3, Fault::PowerOn(member));
        }
        world
    }

    /// Plans a fault.
    pub(crate) fn at(&mut self, at: u64, fault: Fault) {
        self.push(at.max(self.now), Happening::Plan(fault));
    }

    /// Does it now.
    pub(crate) fn now(&mut self, fault: Fault) {
        self.fault(fault);
        self.check();
    }

    /// Runs for this long, or until a promise is broken.
    pub(crate) fn run(&mut self, for_ns: u64) {
        let end = self.now + for_ns;
        while self.broken.is_none() && self.step(end) {}
        self.now = end;
        self.check();
    }

    /// The next thing that happens, if any does until then.
    fn step(&mut self, end: u64) -> bool {
        let Some((&(at, order), _)) = self.queue.first_key_value().filter(|((at, _), _)| *at <= end) else {
            return false;
        };
        let happening = self.queue.remove(&(at, order)).unwrap();
        self.now = self.now.max(at);
        self.steps += 1;
        self.happen(happening);
        self.check();
        true
    }

    /// Runs to the very moment at which this becomes true. How long it took, if it did within the limit.
    pub(crate) fn run_to(&mut self, limit: u64, mut is: impl FnMut(&Self) -> bool) -> Result<u64, String> {
        let start = self.now;
        while self.broken.is_none() {
            if is(self) {
                return Ok(self.now - start);
            }
            if !self.step(start + limit) {
                break;
            }
        }
        self.verdict()?;
        Err(format!("what was waited for did not come about within {} ms", limit / MS))
    }

    /// A call of this node's keeper that renews a gate is under way.
    pub(crate) fn renews_gate(&self, node: Member) -> bool {
        self.queue.values().any(|h| matches!(h, Happening::Keeper(m, _, _, Op::Renew { .. }) if *m == node))
    }

    /// Whether a promise was broken so far.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), |why| Err(format!("{BROKEN}{why}")))
    }

    /// The events of one node since then.
    pub(crate) fn events_of(&self, node: Member, since: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |(at, who, _)| *at >= since && *who == node).map(|(_, _, event)| event)
    }

    /// Cuts or heals both ways between two members.
    pub(crate) fn link(&mut self, a: Member, b: Member, up: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.now(if up { Fault::Heal(from, to) } else { Fault::Cut(from, to) });
        }
    }

    /// Runs until this node alone answers for the first group. How long it took.
    pub(crate) fn run_until_answered(&mut self, by: Member, limit: u64) -> Result<u64, String> {
        let group = self.plan.groups[0].0;
        self.run_to(limit, |w| w.answering(group) == [by]).map_err(|why| format!("{by:?} answers: {why}"))
    }

    /// Runs until somebody answers for each group. Who does for the first.
    pub(crate) fn run_until_served(&mut self, limit: u64) -> Option<Member> {
        let start = self.now;
        let groups: Vec<GroupName> = self.plan.groups.iter().map(|g| g.0).collect();
        while self.now < start + limit && self.broken.is_none() {
            if groups.iter().all(|g| self.answering(*g).len() == 1) {
                return self.answering(groups[0]).first().copied();
            }
            self.run(MS);
        }
        None
    }

    pub(crate) fn answering(&self, group: GroupName) -> Vec<Member> {
        NODES
            .into_iter()
            .filter(|m| {
                let machine = &self.machines[m.index()];
                machine.powered
                    && machine.suspended_at.is_none()
                    && machine.kernel.answers(group, machine.clock.jiffies(self.now))
            })
            .collect()
    }

    pub(crate) fn engine(&self, of: Member) -> Option<&Engine> {
        match &self.machines[of.index()].worker.as_ref()?.brain {
            Brain::Node(engine) => Some(engine),
            Brain::Witness(_) => None,
        }
    }

    pub(crate) fn witness(&self) -> Option<&Witness> {
        match &self.machines[Member::Witness.index()].worker.as_ref()?.brain {
            Brain::Witness(witness) => Some(witness),
            Brain::Node(_) => None,
        }
    }

    /// How much of its lease this node has left, on its own clock.
    pub(crate) fn lease_left(&self, node: Member, group: GroupName) -> Option<Duration> {
        let (_, end) = self.engine(node)?.owned(group)?;
        Some(self.local(node).until(end))
    }

    /// Whom the witness is bound to.
    pub(crate) fn bound(&self, group: GroupName) -> Option<Member> {
        let promise = self.witness()?.voter().promise(self.local(Member::Witness), group)?;
        Some(promise.to.member)
    }

    pub(crate) fn secret(&self, of: Member) -> Option<Secret> {
        self.machines[of.index()].worker.as_ref().map(|w| w.secret)
    }

    pub(crate) fn owns(&self, node: Member, group: GroupName) -> bool {
        self.engine(node).is_some_and(|e| e.owned(group).is_some())
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:10.3} ms  {}", self.now as f64 / 1e6, text()));
        }
    }

    fn push(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((at, self.order), happening);
    }

    // ---- what must never be otherwise -------------------------------------------------------------------------

    fn check(&mut self) {
        let groups: Vec<GroupName> = self.plan.groups.iter().map(|g| g.0).collect();
        let double = groups.iter().any(|g| self.answering(*g).len() > 1);
        if let Some(since) = self.double_since {
            self.double_ns += self.now - since;
            self.double_since = None;
        }
        if double {
            self.double_since = Some(self.now);
            if self.double_allowed == 0 {
                self.broken.get_or_insert(format!("two nodes answer at {:.3} ms", self.now as f64 / 1e6));
            }
        }
        if self.double_ns > self.double_allowed {
            self.broken.get_or_insert(format!("two nodes answered for {:.3} ms", self.double_ns as f64 / 1e6));
        }
        for node in NODES {
            let Some(worker) = &self.machines[node.index()].worker else { continue };
            let Brain::Node(engine) = &worker.brain else { continue };
            for group in &groups {
                let Some((term, end)) = engine.owned(*group) else {
                    self.leases.remove(&(*group, worker.life));
                    continue;
                };
                self.leases.insert((*group, worker.life), Lease { node, end });
                let known = self.owners.insert((*group, term), worker.life);
                if known.is_some_and(|owner| owner != worker.life) {
                    self.broken.get_or_insert(format!("term {term} of {group} has two owners"));
                }
                let last = self.last_term.entry(*group).or_insert(term);
                if known.is_none() && *last > term {
                    self.broken.get_or_insert(format!("term {term} of {group} after term {last}"));
                }
                *last = term.max(*last);
            }
        }
        self.check_leases();
    }

    /// At most one node has a lease that still runs, the dead included, in true time.
    fn check_leases(&mut self) {
        let machines = &self.machines;
        let at = self.now;
        self.leases.retain(|_, lease| machines[lease.node.index()].clock.boot(at) + GUARD < lease.end);
        if self.double_allowed > 0 {
            return;
        }
        for (group, _) in &self.plan.groups {
            let mut nodes = self.leases.iter().filter(|((name, _), _)| name == group).map(|(_, lease)| lease.node);
            let first = nodes.next();
            if nodes.any(|node| Some(node) != first) {
                self.broken.get_or_insert(format!("two leases of {group} run at {:.3} ms", at as f64 / 1e6));
            }
        }
    }

    // ---- what happens -----------------------------------------------------------------------------------------

    fn happen(&mut self, happening: Happening) {
        let (to, life) = match &happening {
            Happening::Plan(fault) => return self.fault(fault.clone()),
            Happening::Datagram(to, _) => (*to, None),
            Happening::Wake(to, life) | Happening::Keeper(to, life, ..) => (*to, Some(*life)),
            Happening::Disk(to, life, _, memory) => {
                // The disk goes on by itself; who waits for it may be dead.
                let machine = &mut self.machines[to.index()];
                if machine.powered && machine.worker.as_ref().is_some_and(|w| w.life == *life) {
                    machine.disk = Some(memory.clone());
                }
                (*to, Some(*life))
            }
            Happening::WakeSupervisor(to, number) => return self.supervise(*to, *number, Heard::Tick),
            Happening::Orders(to, number, heard) => return self.supervise(*to, *number, heard.clone()),
            Happening::Gone(to, number) => {
                let machine = &mut self.machines[to.index()];
                if machine.suspended_at.is_some() {
                    machine.asleep.push_back(happening);
                    return;
                }
                return self.taken_away(*to, *number);
            }
        };
        let machine = &mut self.machines[to.index()];
        if !machine.powered {
            return;
        }
        if machine.suspended_at.is_some() {
            machine.asleep.push_back(happening);
            return;
        }
        let Some(worker) = machine.worker.as_mut() else { return };
        if life.is_some_and(|l| l != worker.life) {
            return;
        }
        if worker.frozen {
            worker.inbox.push_back(happening);
            return;
        }
        self.work(to, happening);
    }

    fn local(&self, of: Member) -> Instant {
        self.machines[of.index()].clock.boot(self.now)
    }

    fn work(&mut self, me: Member, happening: Happening) {
        let mut now = self.local(me);
        if let Happening::Datagram(..) = happening
            && planted_early_clock()
            && let Some(worker) = self.machines[me.index()].worker.as_mut()
        {
            now = worker.frozen_at.take().unwrap_or(now);
        }
        match happening {
            Happening::Datagram(_, packet) => self.receive(me, now, packet),
            Happening::Wake(..) => self.tell(me, now, Input::Tick),
            Happening::Disk(_, _, id, _) => self.written(me, now, id),
            Happening::Keeper(_, _, group, op) => self.operate(me, group, op),
            Happening::WakeSupervisor(..) | Happening::Orders(..) | Happening::Gone(..) | Happening::Plan(_) => {}
        }
    }

    fn receive(&mut self, me: Member, now: Instant, packet: Packet) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let envelope = match packet.content {
            Content::Notice(secret) => {
                match &mut worker.brain {
                    Brain::Witness(witness) => witness.notice(&secret),
                    Brain::Node(_) => self.tell(me, now, Input::Notice(secret)),
                }
                return;
            }
            Content::Sealed(envelope) => envelope,
        };
        match worker.sessions.accept(packet.from, packet.life, packet.counter, envelope.echo) {
            Verdict::Deliver { .. } => {
                let from = Identity { member: packet.from, incarnation: packet.life, hash: None };
                self.tell_message(me, now, from, envelope.message);
            }
            Verdict::Greet => self.send(me, packet.from, Some(packet.life), Message::Hello),
            Verdict::Drop => {}
        }
    }

    fn tell_message(&mut self, me: Member, now: Instant, from: Identity, message: Message) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        match &mut worker.brain {
            Brain::Node(_) => self.tell(me, now, Input::Message { from, message }),
            Brain::Witness(witness) => {
                let actions = witness.handle(now, from, &message);
                self.carry_out_witness(me, actions);
            }
        }
    }

    fn written(&mut self, me: Member, now: Instant, id: u64) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        match &mut worker.brain {
            Brain::Node(_) => self.tell(me, now, Input::Persisted(id)),
            Brain::Witness(witness) => {
                let actions = witness.written(now, id);
                self.carry_out_witness(me, actions);
            }
        }
    }

    fn carry_out_witness(&mut self, me: Member, actions: Vec<WitnessAction>) {
        for action in actions {
            match action {
                WitnessAction::Send(to, message) => self.send_believed(me, to, message),
                WitnessAction::Persist(id, memory) => self.persist(me, id, memory),
            }
        }
    }

    /// Hands the engine of a node one input and carries out what it wants.
    fn tell(&mut self, me: Member, now: Instant, input: Input) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let Brain::Node(engine) = &mut worker.brain else { return };
        let actions = engine.handle(now, input);
        let deadline = engine.next_deadline();
        if deadline <= now {
            self.broken
                .get_or_insert(format!("{me:?} wants to be called again at once, at {:.3} ms", self.now as f64 / 1e6));
        }
        let intents = engine.intents();
        let life = worker.life;
        let wake = self.machines[me.index()].clock.when(self.now, deadline).max(self.now + 1);
        for action in actions {
            self.carry_out(me, action);
        }
        for (group, intent) in intents {
            self.want(me, group, intent);
        }
        let Some(worker) = self.machines[me.index()].worker.as_mut().filter(|w| w.life == life) else { return };
        if worker.next_wake > wake || worker.next_wake <= self.now {
            worker.next_wake = wake;
            self.push(wake, Happening::Wake(me, life));
        }
    }

    fn carry_out(&mut self, me: Member, action: Action) {
        match action {
            Action::Send(to, message) => self.send_believed(me, to, message),
            Action::Persist(id, memory) => self.persist(me, id, memory),
            Action::Drain(group, true) => {
                let now = self.local(me);
                self.tell(me, now, Input::Drained(group));
            }
            Action::Drain(_, false) | Action::Announce(_) => {}
            Action::Event(event) => {
                self.note(|| format!("{me:?}: {event:?}"));
                self.events.push((self.now, me, event));
            }
            Action::Answer(_, result) => self.answers.push((self.now, me, result)),
            Action::Stopped => {
                self.note(|| format!("{me:?}: stopped"));
                self.ends_in_order(me);
            }
        }
    }

    fn persist(&mut self, me: Member, id: u64, memory: Memory) {
        let machine = &mut self.machines[me.index()];
        let Some(worker) = &machine.worker else { return };
        let life = worker.life;
        let takes = self.chance.between(200_000, 3 * MS) + machine.disk_takes;
        self.push(self.now + takes, Happening::Disk(me, life, id, memory));
    }

    fn send_believed(&mut self, me: Member, to: Member, message: Message) {
        let echo = self.machines[me.index()].worker.as_ref().and_then(|w| w.sessions.believed(to));
        self.send(me, to, echo, message);
    }

    fn send(&mut self, me: Member, to: Member, echo: Option<Incarnation>, message: Message) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        worker.counter += 1;
        let content = Content::Sealed(Envelope { echo, voters: 0, message });
        let packet = Packet { from: me, life: worker.life, counter: worker.counter, content };
        self.transmit(me, to, packet);
    }

    fn transmit(&mut self, me: Member, to: Member, packet: Packet) {
        let carrier = self.machines[me.index()].carrier && self.machines[to.index()].carrier;
        if self.cut.contains(&(me, to)) || !carrier || self.chance.per_mille(self.network.loss) {
            return;
        }
        let mut later = self.slow.get(&(me, to)).copied().unwrap_or(0);
        if let Some(sieve) = &mut self.sieve {
            let message = match &packet.content {
                Content::Sealed(envelope) => Some(&envelope.message),
                Content::Notice(_) => None,
            };
            match sieve(self.now, me, to, message) {
                Fate::Pass => {}
                Fate::Drop => return,
                Fate::Late(by) => later += by,
            }
        }
        if self.recent.len() == 64 {
            self.recent.pop_front();
        }
        self.recent.push_back((to, packet.clone()));
        let copies = if self.chance.per_mille(self.network.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = later + self.chance.between(self.network.delay.0, self.network.delay.1);
            if self.chance.per_mille(self.network.late.0) {
                delay += self.chance.below(self.network.late.1);
            }
            self.push(self.now + delay, Happening::Datagram(to, packet.clone()));
        }
    }

    // ---- the keeper of the addresses --------------------------------------------------------------------------

    fn want(&mut self, me: Member, group: GroupName, intent: Intent) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let keeper = worker.keepers.entry(group).or_insert_with(|| Keeper {
            wanted: Intent::Released,
            armed: None,
            added: false,
            opened: false,
            open_until: None,
            squeezed: false,
            leave: true,
            busy: false,
            told: None,
            dirty: true,
            renewed_at: Instant::ZERO,
        });
        let changed = std::mem::discriminant(&keeper.wanted) != std::mem::discriminant(&intent);
        keeper.wanted = intent;
        if changed {
            keeper.leave = matches!(intent, Intent::Released);
            keeper.squeezed = false;
        }
        self.keep(me, group);
    }

    /// Decides the next call, if none is under way.
    fn keep(&mut self, me: Member, group: GroupName) {
        let now = self.local(me);
        let gated = self.plan.gated;
        let kernel_takes = self.machines[me.index()].kernel_takes;
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let life = worker.life;
        let Some(keeper) = worker.keepers.get_mut(&group).filter(|k| !k.busy) else { return };
        let held = match keeper.wanted {
            Intent::Released => None,
            Intent::Held { term, until } | Intent::Leaving { term, until } => Some((term, until)),
        };
        let overdue = held.is_some_and(|(_, until)| now + 3 * GUARD >= until);
        keeper.leave |= overdue;
        let op = match held {
            Some((term, until)) if !keeper.leave => {
                let leaving = matches!(keeper.wanted, Intent::Leaving { .. });
                if keeper.armed.is_none_or(|a| a < until) {
                    Some(Op::Arm(until))
                } else if leaving && !keeper.squeezed {
                    Some(Op::Squeeze)
                } else if !keeper.added || now.since(keeper.renewed_at) >= Duration::from_secs(1) {
                    Some(Op::Add)
                } else if gated && !keeper.opened {
                    Some(Op::Open(until, now))
                } else if gated && keeper.open_until.is_none_or(|o| o < until) {
                    Some(Op::Renew { end: until, timeout: now.until(until - GUARD), asked: now })
                } else {
                    if keeper.told != Some(Told::Held(term)) {
                        keeper.told = Some(Told::Held(term));
                        return self.report(me, Report::Held(group, term));
                    }
                    None
                }
            }
            Some(_) | None => {
                if keeper.opened || keeper.dirty && gated {
                    Some(Op::Shut)
                } else if keeper.added || keeper.dirty {
                    Some(Op::Delete)
                } else if keeper.told != Some(Told::Gone) {
                    Some(Op::ReadBack)
                } else {
                    None
                }
            }
        };
        let Some(op) = op else { return };
        keeper.busy = true;
        let takes = match op {
            Op::Squeeze => self.chance.between(0, 20 * MS),
            Op::Arm(_) => self.chance.between(20_000, 400_000),
            _ => self.chance.between(20_000, 400_000) + kernel_takes,
        };
        self.push(self.now + takes, Happening::Keeper(me, life, group, op));
    }

    /// The call takes effect in the kernel, and returns.
    fn operate(&mut self, me: Member, group: GroupName, op: Op) {
        let now = self.local(me);
        let late = self.chance.below(8 * MS); // its clock ticks every 4 ms, and may lag by another
        let machine = &mut self.machines[me.index()];
        let jiffies = machine.clock.jiffies(self.now);
        let lifetime = Duration::from_secs(machine.timing.lease.as_millis().div_ceil(1000) as u64 + 1);
        let Some(worker) = machine.worker.as_mut() else { return };
        let Some(keeper) = worker.keepers.get_mut(&group) else { return };
        keeper.busy = false;
        let mut word = None;
        let mut report = None;
        match op {
            Op::Arm(until) => {
                keeper.armed = Some(until);
                word = Some(Word::Arm { group, until });
            }
            Op::Add => {
                // The kernel looks at lifetimes now and then.
                machine.kernel.add_address(group, jiffies, lifetime + Duration::from_nanos(late * 100));
                keeper.renewed_at = now;
                keeper.added = true;
            }
            Op::Open(end, asked) => {
                machine.kernel.open(group, jiffies, 2 * GUARD + Duration::from_nanos(late));
                keeper.opened = true;
                if now + GUARD >= end || now.since(asked) > GUARD {
                    machine.kernel.shut(group);
                    (keeper.opened, keeper.open_until) = (false, None);
                }
            }
            Op::Renew { end, timeout, asked } => {
                let plain = planted_plain_add();
                let live = machine.kernel.renew(group, jiffies, timeout + Duration::from_nanos(late), plain);
                keeper.open_until = Some(end);
                if (now + GUARD >= end || now.since(asked) > GUARD || !live) && !plain {
                    machine.kernel.shut(group);
                    (keeper.opened, keeper.open_until) = (false, None);
                }
            }
            Op::Squeeze => (keeper.squeezed, keeper.leave) = (true, true),
            Op::Shut => {
                machine.kernel.shut(group);
                (keeper.opened, keeper.open_until) = (false, None);
                if keeper.dirty && !keeper.added {
                    // The first shut of a life is followed by the deletion of what an earlier life left.
                    keeper.added = true;
                    keeper.dirty = false;
                }
            }
            Op::Delete => {
                machine.kernel.delete_address(group);
                (keeper.added, keeper.dirty) = (false, false);
            }
            Op::ReadBack => {
                keeper.told = Some(Told::Gone);
                keeper.armed = None;
                word = Some(Word::Disarm { group });
                report = Some(Report::Gone(group));
            }
        }
        let number = machine.supervisor.as_ref().map(|s| s.number);
        if let (Some(word), Some(number)) = (word, number) {
            self.push(self.now + 20_000, Happening::Orders(me, number, Heard::Word(word)));
        }
        self.keep(me, group);
        if let Some(report) = report {
            self.report(me, report);
        }
    }

    fn report(&mut self, me: Member, report: Report) {
        let now = self.local(me);
        self.tell(me, now, Input::Report(report));
    }

    // ---- the supervisor ---------------------------------------------------------------------------------------

    fn supervise(&mut self, me: Member, number: u64, heard: Heard) {
        let now = self.local(me);
        let machine = &mut self.machines[me.index()];
        let running = machine.powered && machine.suspended_at.is_none();
        let Some(supervisor) = machine.supervisor.as_mut().filter(|s| s.number == number) else { return };
        if supervisor.frozen || !running {
            supervisor.inbox.push_back(heard);
            return;
        }
        let mut orders = supervisor.core.handle(now, heard);
        if supervisor.inbox.is_empty() {
            orders.extend(supervisor.core.handle(now, Heard::Tick));
        }
        let deadline = supervisor.core.next_deadline();
        for order in orders {
            self.obey(me, number, order);
        }
        if deadline != Instant::NEVER {
            let wake = self.machines[me.index()].clock.when(self.now, deadline).max(self.now + 1);
            self.push(wake, Happening::WakeSupervisor(me, number));
        }
    }

    fn obey(&mut self, me: Member, number: u64, order: Order) {
        let soon = self.now + self.chance.between(50_000, 300_000);
        let machine = &mut self.machines[me.index()];
        match order {
            Order::StartWorker => self.start_worker(me),
            Order::KillWorker if machine.unkillable => {}
            Order::KillWorker => {
                machine.worker = None;
                self.push(soon, Happening::Orders(me, number, Heard::WorkerDied(Ending::Killed(9))));
            }
            Order::Forward(_) => {}
            Order::Exit(_) => machine.supervisor = None,
            Order::TakeAway { .. } if machine.kernel_takes > 0 => {
                let done = self.now + machine.kernel_takes;
                self.push(done, Happening::Gone(me, number));
            }
            Order::TakeAway { .. } => self.taken_away(me, number),
            Order::SendNotice(secret) => {
                for to in me.others() {
                    let packet =
                        Packet { from: me, life: Incarnation(0), counter: 0, content: Content::Notice(secret) };
                    self.transmit(me, to, packet);
                }
            }
        }
    }

    /// The dead worker's addresses are deleted, and seen to be gone.
    fn taken_away(&mut self, me: Member, number: u64) {
        let soon = self.now + self.chance.between(50_000, 300_000);
        let machine = &mut self.machines[me.index()];
        if !machine.powered || machine.supervisor.as_ref().is_none_or(|s| s.number != number) {
            return;
        }
        let groups: Vec<GroupName> = machine.kernel.held.keys().copied().collect();
        for group in groups {
            machine.kernel.delete_address(group);
        }
        if machine.worker.is_none() {
            self.leases.retain(|_, lease| lease.node != me);
        }
        self.push(soon, Happening::Orders(me, number, Heard::TakenAway { all_gone: true }));
    }

    fn start_worker(&mut self, me: Member) {
        let now = self.local(me);
        let life = Incarnation(u128::from(self.chance.next()) << 64 | u128::from(self.chance.next()));
        let mut secret = Secret([0; 32]);
        for chunk in secret.0.chunks_mut(8) {
            chunk.copy_from_slice(&self.chance.next().to_le_bytes());
        }
        let seed = self.chance.next();
        let machine = &mut self.machines[me.index()];
        let memory = machine.disk.clone();
        let identity = |hash| Identity { member: me, incarnation: life, hash };
        let brain = if me == Member::Witness {
            Brain::Witness(Witness::new(now, identity(None), memory, hash))
        } else {
            let supervised = machine.supervisor.is_some();
            let setup = Setup {
                me: identity(supervised.then(|| hash(&secret))),
                timing: machine.timing,
                groups: self.plan.groups.clone(),
                drain: Duration::ZERO,
                config: 0,
                hash,
                seed,
                memory,
            };
            Brain::Node(Box::new(Engine::new(now, setup)))
        };
        machine.worker = Some(Worker {
            brain,
            sessions: Sessions::new(life),
            life,
            secret,
            counter: 0,
            frozen: false,
            frozen_at: None,
            inbox: VecDeque::new(),
            keepers: BTreeMap::new(),
            next_wake: 0,
        });
        if let Some(supervisor) = &machine.supervisor {
            let hello = Hello { secret, vips: Vec::new(), notice: Vec::new(), notice_datagram: vec![1] };
            let number = supervisor.number;
            self.push(self.now, Happening::Orders(me, number, Heard::Word(Word::Hello(hello))));
        }
        self.note(|| format!("{me:?}: a worker starts"));
        if me != Member::Witness {
            let machine = &self.machines[me.index()];
            let (fitness, standby, carrier) = (machine.fitness, machine.standby, machine.carrier);
            self.tell(me, now, Input::Fitness(fitness));
            self.tell(me, now, Input::Standby(standby));
            self.tell(me, now, Input::Report(Report::Unable((!carrier).then(|| "no carrier".to_owned()))));
        }
    }

    // ---- faults -----------------------------------------------------------------------------------------------

    fn fault(&mut self, fault: Fault) {
        if let Fault::KillWorker(who) | Fault::KillBoth(who) | Fault::KillSupervisor(who) | Fault::Freeze(who, _) =
            fault
            && self.machines[who.index()].suspended_at.is_some()
        {
            return; // nothing runs there that could do this
        }
        self.note(|| format!("-- {fault:?}"));
        match fault {
            Fault::KillWorker(who) => self.kill_worker(who),
            Fault::KillBoth(who) => {
                self.kill_both(who);
                let back = self.now + 300 * MS;
                self.at(back, Fault::PowerOn(who));
            }
            Fault::KillSupervisor(who) => {
                self.machines[who.index()].supervisor = None;
                if who != Member::Witness {
                    self.report(who, Report::SupervisorGone);
                    let back = self.now + 2000 * MS;
                    self.at(back, Fault::PowerOn(who));
                }
            }
            Fault::PowerOff(who, lost) => {
                self.kill_both(who);
                let machine = &mut self.machines[who.index()];
                (machine.powered, machine.suspended_at) = (false, None);
                machine.kernel.held.clear();
                machine.asleep.clear();
                if lost {
                    machine.disk = None;
                }
            }
            Fault::PowerOn(who) => self.power_on(who),
            Fault::Freeze(who, part) => self.freeze(who, part),
            Fault::Thaw(who, part) => self.thaw(who, part),
            Fault::Suspend(who) => {
                // Outside of what hawser promises: a machine that sleeps while its processes are frozen or dead. The
                // kernel's timers stand still meanwhile, and nobody shuts the gate when it wakes.
                let machine = &mut self.machines[who.index()];
                let awake = machine.worker.as_ref().is_some_and(|w| !w.frozen);
                if machine.powered && machine.suspended_at.is_none() && awake {
                    machine.suspended_at = Some(self.now);
                }
            }
            Fault::Resume(who, stopped) => self.resume(who, stopped),
            Fault::Cut(a, b) => {
                self.cut.insert((a, b));
            }
            Fault::Heal(a, b) => {
                self.cut.remove(&(a, b));
            }
            Fault::Network(network) => self.network = network,
            Fault::DiskTakes(who, takes) => self.machines[who.index()].disk_takes = takes,
            Fault::Fitness(who, fitness) => {
                self.machines[who.index()].fitness = fitness;
                self.deliver_input(who, Input::Fitness(fitness));
            }
            Fault::Carrier(who, up) => {
                self.machines[who.index()].carrier = up;
                let why = (!up).then(|| "no carrier".to_owned());
                self.deliver_input(who, Input::Report(Report::Unable(why)));
            }
            Fault::Standby(who, on) => {
                self.machines[who.index()].standby = on;
                self.deliver_input(who, Input::Standby(on));
            }
            Fault::Switchover(who, force) => {
                let group = self.plan.groups[0].0;
                self.deliver_input(who, Input::Command(1, Command::Switchover { group, force }));
            }
            Fault::Stop(who) => self.deliver_input(who, Input::Command(2, Command::Stop)),
            Fault::Replay(secret) => {
                for to in Member::ALL {
                    let packet = Packet {
                        from: Member::First,
                        life: Incarnation(0),
                        counter: 0,
                        content: Content::Notice(secret),
                    };
                    self.push(self.now, Happening::Datagram(to, packet));
                }
            }
            Fault::Rate(who, ppm) => self.set_rate(who, ppm),
            Fault::Timing(who, timing) => {
                self.machines[who.index()].timing = timing;
                self.deliver_input(who, Input::Timing(timing));
            }
            Fault::Slow(from, to, by) => {
                self.slow.insert((from, to), by);
            }
            Fault::KernelTakes(who, takes) => self.machines[who.index()].kernel_takes = takes,
            Fault::Unkillable(who, on) => self.machines[who.index()].unkillable = on,
            Fault::Hangup(who) => {
                if let Some(number) = self.machines[who.index()].supervisor.as_ref().map(|s| s.number) {
                    self.supervise(who, number, Heard::LinkClosed);
                }
            }
            Fault::Storm(count) => self.storm(count),
        }
    }

    /// A clock that is asleep keeps its rate.
    fn set_rate(&mut self, who: Member, ppm: i64) {
        let machine = &mut self.machines[who.index()];
        if machine.suspended_at.is_none() {
            machine.clock.set_rate(self.now, ppm);
        }
    }

    fn storm(&mut self, count: u64) {
        for _ in 0..count {
            let Some(at) = self.recent.len().checked_sub(1) else { return };
            let (to, packet) = self.recent[usize::try_from(self.chance.below(at as u64 + 1)).unwrap()].clone();
            let delay = self.chance.between(1, 3 * MS);
            self.push(self.now + delay, Happening::Datagram(to, packet));
        }
    }

    /// An input from inside the node; a frozen one hears nothing (and is told when it starts anew).
    fn deliver_input(&mut self, who: Member, input: Input) {
        let now = self.local(who);
        let machine = &self.machines[who.index()];
        if machine.suspended_at.is_none() && machine.worker.as_ref().is_some_and(|w| !w.frozen) {
            self.tell(who, now, input);
        }
    }

    fn kill_worker(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        if machine.worker.take().is_none() {
            return;
        }
        match &machine.supervisor {
            Some(supervisor) => {
                let number = supervisor.number;
                let soon = self.now + self.chance.between(50_000, 300_000);
                self.push(soon, Happening::Orders(who, number, Heard::WorkerDied(Ending::Killed(9))));
            }
            None => {
                let back = self.now + 100 * MS;
                self.at(back, Fault::PowerOn(who));
            }
        }
    }

    /// The worker says goodbye and ends; its supervisor sees to the rest.
    fn ends_in_order(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        machine.worker = None;
        if let Some(number) = machine.supervisor.as_ref().map(|s| s.number) {
            self.push(self.now + 20_000, Happening::Orders(who, number, Heard::Word(Word::Bye)));
            let soon = self.now + self.chance.between(50_000, 300_000);
            self.push(soon, Happening::Orders(who, number, Heard::WorkerDied(Ending::Exited(0))));
        }
    }

    fn kill_both(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        machine.worker = None;
        machine.supervisor = None;
    }

    fn power_on(&mut self, who: Member) {
        self.order += 1;
        let number = self.order;
        let machine = &mut self.machines[who.index()];
        if machine.worker.is_some() || machine.supervisor.is_some() {
            return;
        }
        machine.powered = true;
        if who == Member::Witness {
            self.start_worker(who);
        } else {
            machine.supervisor = Some(Supervisor { core: Core::new(), number, frozen: false, inbox: VecDeque::new() });
            self.supervise(who, number, Heard::Tick);
        }
    }

    fn freeze(&mut self, who: Member, part: Part) {
        let now = self.local(who);
        let machine = &mut self.machines[who.index()];
        if let Some(worker) = machine.worker.as_mut().filter(|_| part != Part::Supervisor) {
            worker.frozen = true;
            worker.frozen_at = Some(now);
        }
        if let Some(supervisor) = machine.supervisor.as_mut().filter(|_| part != Part::Worker) {
            supervisor.frozen = true;
        }
    }

    fn thaw(&mut self, who: Member, part: Part) {
        let worker_first = self.chance.per_mille(500);
        if worker_first {
            self.thaw_worker(who, part);
        }
        self.thaw_supervisor(who, part);
        if !worker_first {
            self.thaw_worker(who, part);
        }
    }

    fn thaw_supervisor(&mut self, who: Member, part: Part) {
        let machine = &mut self.machines[who.index()];
        let Some(supervisor) = machine.supervisor.as_mut().filter(|s| s.frozen && part != Part::Worker) else {
            return;
        };
        supervisor.frozen = false;
        let number = supervisor.number;
        for heard in std::mem::take(&mut supervisor.inbox) {
            self.supervise(who, number, heard);
        }
        self.supervise(who, number, Heard::Tick);
    }

    fn thaw_worker(&mut self, who: Member, part: Part) {
        let machine = &mut self.machines[who.index()];
        let Some(worker) = machine.worker.as_mut().filter(|w| w.frozen && part != Part::Supervisor) else { return };
        worker.frozen = false;
        let life = worker.life;
        let mut inbox = std::mem::take(&mut worker.inbox);
        let first = inbox.iter().position(|h| matches!(h, Happening::Datagram(..)));
        if planted_early_clock()
            && let Some(datagram) = first.and_then(|at| inbox.remove(at))
        {
            inbox.push_front(datagram); // the loop was frozen between its clock and this datagram
        }
        for happening in inbox {
            if self.machines[who.index()].worker.as_ref().is_some_and(|w| w.life == life) {
                self.work(who, happening);
            }
        }
        let now = self.local(who);
        self.tell(who, now, Input::Tick);
        if let Some(worker) = self.machines[who.index()].worker.as_mut() {
            worker.frozen_at = None;
        }
    }

    fn resume(&mut self, who: Member, stopped: bool) {
        let at = self.now;
        let machine = &mut self.machines[who.index()];
        let Some(from) = machine.suspended_at.take() else { return };
        machine.clock.resume(from, at, stopped);
        // Before a process runs, nothing has changed; the first to run is the one whose timer is over.
        let waiting = std::mem::take(&mut machine.asleep);
        let number = machine.supervisor.as_mut().map(|s| (s.number, std::mem::take(&mut s.inbox)));
        let now = self.local(who);
        let frozen = self.machines[who.index()].worker.as_ref().is_none_or(|w| w.frozen);
        if !frozen && who != Member::Witness {
            self.tell(who, now, Input::Tick);
            self.run_keepers_now(who);
        }
        for happening in waiting {
            self.happen(happening);
        }
        if let Some((number, inbox)) = number {
            for heard in inbox {
                self.supervise(who, number, heard);
            }
            self.supervise(who, number, Heard::Tick);
        }
        if !frozen {
            self.tell(who, now, Input::Tick);
        }
    }

    /// At a resume the keeper's own timer is the first to run: what is over is shut at that very moment.
    fn run_keepers_now(&mut self, who: Member) {
        let now = self.local(who);
        let machine = &mut self.machines[who.index()];
        let Some(worker) = machine.worker.as_mut() else { return };
        for (group, keeper) in &mut worker.keepers {
            let over = match keeper.wanted {
                Intent::Released => true,
                Intent::Held { until, .. } | Intent::Leaving { until, .. } => now + 3 * GUARD >= until,
            };
            if over {
                machine.kernel.shut(*group);
                (keeper.opened, keeper.open_until) = (false, None);
            }
        }
    }

    /// A promise of the longest kind is over after this.
    pub(crate) fn longest_silence() -> u64 {
        u64::try_from(HOLD_MAX.as_nanos()).unwrap()
    }
}

#[cfg(not(feature = "planted"))]
const fn planted_plain_add() -> bool {
    false
}

#[cfg(feature = "planted")]
fn planted_plain_add() -> bool {
    hawser::cluster::planted::active(hawser::cluster::planted::Planted::GatePlainAdd)
}

#[cfg(not(feature = "planted"))]
const fn planted_early_clock() -> bool {
    false
}

#[cfg(feature = "planted")]
fn planted_early_clock() -> bool {
    hawser::cluster::planted::active(hawser::cluster::planted::Planted::ClockBeforeReceive)
}
