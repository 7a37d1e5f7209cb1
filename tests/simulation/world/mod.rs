//! Two nodes, a witness, and what connects them, in virtual time.

use crate::kernel::{Clock, Kernel};
use hawser::cluster::{
    Arbiter, Engine, Event, Fitness, GroupName, Incarnation, Intent, Member, Memory, Message, Name, Secret, SecretHash,
    Sessions, SetTag, Sets, Term, Timing, Voter, VoterSet, Witness,
};
use hawser::limits::GUARD;
use hawser::supervisor::core::{Core, Input as Heard};
use hawser::tiebreak::etcd::{model::Model, speaker::Speaker};
use hawser::time::{Duration, Instant};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod arbiter;
mod etcd;
mod ills;
mod keeper;
mod supervisor;
mod thirds;
mod wire;

pub(crate) use arbiter::{Device, Local};
pub(crate) use etcd::Third;
pub(crate) use thirds::Want;

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

thread_local! {
    /// The seed of calm worlds.
    static SEED: Cell<u64> = const { Cell::new(1) };
    /// The third voter of this thread's worlds.
    static THIRD: Cell<Third> = const { Cell::new(Third::Witness) };
}

/// From now on this thread's worlds have this third voter.
pub(crate) fn third(third: Third) {
    THIRD.set(third);
}

/// What that is.
pub(crate) fn third_voter() -> Third {
    THIRD.get()
}

/// Tries a scenario in worlds whose small delays differ. The first that did not come out well.
pub(crate) fn with_each_seed(scenario: fn() -> Result<(), String>) -> Result<(), String> {
    (1..=10).try_for_each(|seed| {
        SEED.set(seed);
        scenario().map_err(|why| format!("seed {seed}: {why}"))
    })
}

/// Where an address is when the first two are swapped: which group has it, and which address a group has.
fn placed(number: usize, swapped: bool) -> usize {
    match number {
        0 | 1 if swapped => 1 - number,
        other => other,
    }
}

/// What the disk of a member of a cluster that has formed holds: a node's first memory names who votes.
fn remembered(member: Member, plan: &Plan) -> Memory {
    let in_force = (member != Member::Witness).then(|| VoterSet::first(Want::Usual.members(plan)));
    Memory { sets: Sets { in_force, next: None }, ..Memory::default() }
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
    /// No witness: each node has a third voter of its own.
    pub(crate) local: Option<Local>,
    pub(crate) third: Third,
}

impl Plan {
    pub(crate) fn calm() -> Self {
        Self {
            seed: SEED.get(),
            timing: Timing::new(Duration::from_millis(500), Duration::from_millis(50)),
            groups: vec![(web(), Member::First)],
            ppm: [0; 3],
            gated: true,
            formed: true,
            local: None,
            third: THIRD.get(),
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
    /// The third voter of this node answers.
    Third(Member, Incarnation, Message),
    /// The next step of its errand.
    Errand(Member, Incarnation, arbiter::Step),
    /// The fence device does as this node's agent wanted.
    Powered(Member),
    /// The kernel has deleted a dead worker's addresses.
    Gone(Member, u64),
    Plan(Fault),
    /// Between this node, in this life, and etcd.
    Etcd(Member, Incarnation, etcd::Errand),
    /// It happens to the second witness.
    Other(Box<Happening>),
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
    /// It goes to the second witness, or comes from it.
    second: bool,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Sealed(Option<Incarnation>, SetTag, Message),
    Notice(Secret),
}

/// What can be done to the world.
#[derive(Debug, Clone, Copy)]
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
    /// The configuration of this machine wants other voters, from its next start on.
    Want(Member, Want),
    Rate(Member, i64),
    /// The configuration of one node says so from now on.
    Timing(Member, Timing),
    /// This node is started again with a configuration that has the addresses of the first two groups the other way round
    /// (or as at first).
    Swap(Member, bool),
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
    /// The network of the addresses is cut between the nodes (or whole again).
    Segment(bool),
    /// How the fence device behaves.
    Device(Device),
    /// An operator at this node says that the other one is off.
    Confirm(Member),
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
    Witness(Box<Witness>),
}

impl Brain {
    fn voter(&self) -> &Voter {
        match self {
            Self::Node(engine) => engine.voter(),
            Self::Witness(witness) => witness.voter(),
        }
    }
}

struct Worker {
    brain: Brain,
    arbiter: Option<Arbiter>,
    sessions: Sessions,
    /// Those with the second witness.
    sessions_second: Sessions,
    /// Whether it was told that the third voter that it wants answers.
    ready: Option<bool>,
    life: Incarnation,
    secret: Secret,
    counter: u64,
    frozen: bool,
    /// When it was frozen, on its own clock: what it read before it was.
    frozen_at: Option<Instant>,
    inbox: VecDeque<Happening>,
    keepers: BTreeMap<GroupName, Keeper>,
    next_wake: u64,
    /// Where the third voter is an etcd.
    speaker: Option<Speaker>,
    next_errand: u64,
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
    want: Want,
    disk_takes: u64,
    kernel_takes: u64,
    unkillable: bool,
    /// It was killed, and dies when the kernel lets it.
    kill_pending: bool,
    pub(crate) powered: bool,
    /// When its supervisor was started, on its own clock.
    since: Instant,
    suspended_at: Option<u64>,
    worker: Option<Worker>,
    supervisor: Option<Supervisor>,
    fitness: Fitness,
    carrier: bool,
    standby: bool,
    asleep: VecDeque<Happening>,
    /// Its configuration has the addresses of the first two groups the other way round; and its worker read it so.
    swapped: bool,
    swapped_here: bool,
}

impl Machine {
    /// Its kernel runs.
    const fn answers(&self) -> bool {
        self.powered && self.suspended_at.is_none()
    }
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
    /// The second witness, or the first one while anything happens to the second.
    other: Machine,
    cut_other: BTreeSet<(Member, Member)>,
    at_other: bool,
    pub(crate) network: Network,
    pub(crate) sieve: Option<Sieve>,
    cut: BTreeSet<(Member, Member)>,
    slow: BTreeMap<(Member, Member), u64>,
    pub(crate) etcd: Model,
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
    /// Who was to announce what again.
    pub(crate) announced: Vec<(u64, Member, GroupName)>,
    /// The first broken promise.
    pub(crate) broken: Option<String>,
    /// How long two nodes answered for one address, in all.
    pub(crate) double_ns: u64,
    double_since: Option<u64>,
    pub(crate) double_allowed: u64,
    pub(crate) steps: u64,
    /// The network of the addresses is cut.
    segment_cut: bool,
    /// Two may answer until then: the network of the addresses was cut until a moment ago.
    excused_until: u64,
    pub(crate) device: Device,
    /// Who lately asked for addresses.
    questions: VecDeque<(u64, Member)>,
    /// Who had whom powered off.
    pub(crate) shots: Vec<(u64, Member)>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut chance = Chance(plan.seed);
        let machines = Member::ALL.map(|m| Machine {
            clock: Clock::new(chance.between(1, 1000) * 1_000_000_000, plan.ppm[m.index()]),
            kernel: Kernel { gated: plan.gated, ..Kernel::default() },
            disk: plan.formed.then(|| remembered(m, &plan)),
            timing: plan.timing,
            want: Want::Usual,
            disk_takes: 0,
            kernel_takes: 0,
            unkillable: false,
            kill_pending: false,
            powered: false,
            since: Instant::ZERO,
            suspended_at: None,
            worker: None,
            supervisor: None,
            fitness: Fitness::Fit,
            carrier: true,
            standby: false,
            asleep: VecDeque::new(),
            swapped: false,
            swapped_here: false,
        });
        let mut world = Self {
            now: 0,
            other: thirds::spare(plan.timing),
            cut_other: BTreeSet::new(),
            at_other: false,
            plan,
            chance,
            machines,
            network: Network::LAN,
            sieve: None,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            etcd: Model::default(),
            recent: VecDeque::new(),
            queue: BTreeMap::new(),
            order: 0,
            trace: None,
            owners: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_term: BTreeMap::new(),
            events: Vec::new(),
            answers: Vec::new(),
            announced: Vec::new(),
            broken: None,
            double_ns: 0,
            double_since: None,
            double_allowed: 0,
            steps: 0,
            segment_cut: false,
            excused_until: 0,
            device: Device::Honest,
            questions: VecDeque::new(),
            shots: Vec::new(),
        };
        let lone = world.plan.local.is_some();
        for member in Member::ALL.into_iter().filter(|member| !lone || *member != Member::Witness) {
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

    /// Who answers for the addresses that it has for this group.
    pub(crate) fn answering(&self, group: GroupName) -> Vec<Member> {
        let has = |node: &Member| {
            let machine = &self.machines[node.index()];
            machine.answers() && machine.kernel.answers(group, machine.clock.jiffies(self.now))
        };
        NODES.into_iter().filter(has).collect()
    }

    /// Who answers for this address, whichever group it is part of there.
    fn answering_for(&self, address: usize) -> Vec<Member> {
        let has = |node: &Member| {
            let machine = &self.machines[node.index()];
            machine.answers() && machine.kernel.answers_for(address, machine.clock.jiffies(self.now))
        };
        NODES.into_iter().filter(has).collect()
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
        let happening = self.addressed(happening);
        self.order += 1;
        self.queue.insert((at, self.order), happening);
    }

    fn check(&mut self) {
        if self.is_excused() {
            self.leases.clear();
            self.last_term.clear();
            self.double_since = None;
            return;
        }
        let local = self.plan.local;
        let visible = self.plan.groups.iter().map(|g| g.0).filter(|group| !arbiter::is_invisible(local, *group));
        let groups: Vec<GroupName> = visible.collect();
        let seen = |number: &usize| !arbiter::is_invisible(local, self.plan.groups[*number].0);
        let double = (0..self.plan.groups.len()).filter(seen).any(|number| self.answering_for(number).len() > 1);
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
                if known.is_none() && *last > term && !arbiter::looks(local) {
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
        if self.double_allowed > 0 || arbiter::looks(self.plan.local) {
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
}
