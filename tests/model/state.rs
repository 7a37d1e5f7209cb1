//! The state of the model: the real engines of two nodes and the witness, their disks, the kernel's gates, and the
//! datagrams that are under way.

use hawser::cluster::{Engine, Identity, Incarnation, Intent, Member, Memory, Message, Name, Witness};
use hawser::time::Instant;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What every clock reads after each step: a state is told from the moment at which it is seen.
pub(crate) const NOW: Instant = Instant::from_millis(1_000_000);

pub(crate) fn web() -> Name {
    Name::new("web").unwrap()
}

pub(crate) fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone)]
pub(crate) enum Brain {
    Node(Arc<Engine>),
    Witness(Arc<Witness>),
}

/// What the kernel of a node does, whoever lives: it outlasts the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Kernel {
    /// The address is there and its gate open until then, on the node's own clock.
    pub(crate) open_until: Option<Instant>,
    /// The keeper of the addresses owes the engine word that they are gone.
    pub(crate) owes_gone: bool,
}

/// One machine. What makes it unlike others is in the digest.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// `None`: it is down.
    pub(crate) brain: Option<Brain>,
    /// Number of the life that is, or was the last.
    pub(crate) life: u8,
    /// The newest life of each other member that was heard.
    pub(crate) believed: [u8; 3],
    pub(crate) disk: Option<Arc<Memory>>,
    pub(crate) writing: Option<(u64, Arc<Memory>)>,
    pub(crate) kernel: Kernel,
    /// The highest term for which it gave its word that it had voted in it.
    pub(crate) told: u64,
    digest: u64,
}

impl Machine {
    pub(crate) const fn new(disk: Option<Arc<Memory>>) -> Self {
        Self {
            brain: None,
            life: 0,
            believed: [0; 3],
            disk,
            writing: None,
            kernel: Kernel { open_until: None, owes_gone: false },
            told: 0,
            digest: 0,
        }
    }

    pub(crate) fn node(&self) -> Option<&Engine> {
        match &self.brain {
            Some(Brain::Node(engine)) => Some(engine),
            Some(Brain::Witness(_)) | None => None,
        }
    }

    /// The highest term that its voter has heard of, and the one that it voted in.
    pub(crate) fn terms(&self) -> Option<(u64, u64)> {
        let voter = match self.brain.as_ref()? {
            Brain::Node(engine) => engine.voter(),
            Brain::Witness(witness) => witness.voter(),
        };
        Some((voter.highest(web()).0, voter.voted(web()).0.0))
    }

    pub(crate) fn owned(&self) -> Option<u64> {
        self.node().and_then(|engine| engine.owned(web())).map(|(term, _)| term.0)
    }

    pub(crate) fn intent(&self) -> Option<Intent> {
        self.node().and_then(|engine| engine.intents().get(&web()).copied())
    }

    /// To be called after each change.
    pub(crate) fn seal(&mut self) {
        let mut hasher = DefaultHasher::new();
        match &self.brain {
            None => 0_u8.hash(&mut hasher),
            Some(Brain::Node(engine)) => engine.hash(&mut hasher),
            Some(Brain::Witness(witness)) => witness.hash(&mut hasher),
        }
        (self.life, self.believed, &self.disk, &self.writing, self.kernel, self.told).hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

/// The life of a member, as the engines know it. No secrets: crash notices are left to the simulator.
pub(crate) fn identity(member: Member, life: u8) -> Identity {
    let number = 16 * (member.index() as u128 + 1) + u128::from(life);
    Identity { member, incarnation: Incarnation(number), hash: None }
}

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Packet {
    pub(crate) from: Member,
    pub(crate) from_life: u8,
    pub(crate) to: Member,
    /// The life of the receiver that the sender believed in.
    pub(crate) to_life: u8,
    pub(crate) message: Message,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}→{:?}/{} {:?}", self.from, self.from_life, self.to, self.to_life, self.message)
    }
}

/// A datagram, known by its digest.
#[derive(Clone)]
pub(crate) struct Flying(pub(crate) u64, pub(crate) Arc<Packet>);

impl Flying {
    pub(crate) fn new(packet: Packet) -> Self {
        Self(digest(&packet), Arc::new(packet))
    }
}

impl fmt::Debug for Flying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.fmt(f)
    }
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// How often each thing was done to the cluster so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Spent {
    pub(crate) crashes: u8,
    pub(crate) wipes: u8,
    pub(crate) freezes: u8,
    pub(crate) moves: u8,
}

/// What a walk has seen, for the properties that speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Seen {
    /// The highest term that had an owner, and who that was.
    pub(crate) last: (u64, Option<(Member, u8)>),
    /// A planned move came about.
    pub(crate) handed_over: bool,
    /// The first rule about terms that was broken.
    pub(crate) broken: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) machines: [Machine; 3],
    /// Sorted by digest.
    pub(crate) flying: Vec<Flying>,
    pub(crate) spent: Spent,
    pub(crate) seen: Seen,
    /// All goes well now: not a part of what makes states alike.
    pub(crate) calm: bool,
}

impl State {
    pub(crate) fn machine(&self, of: Member) -> &Machine {
        &self.machines[of.index()]
    }

    pub(crate) fn machine_mut(&mut self, of: Member) -> &mut Machine {
        &mut self.machines[of.index()]
    }

    /// Who answers for the address.
    pub(crate) fn answering(&self) -> impl Iterator<Item = Member> + '_ {
        Member::ALL.into_iter().filter(|m| self.machine(*m).kernel.open_until.is_some_and(|until| NOW < until))
    }

    pub(crate) fn launch(&mut self, packet: Packet) {
        let flying = Flying::new(packet);
        if let Err(at) = self.flying.binary_search_by_key(&flying.0, |f| f.0) {
            self.flying.insert(at, flying);
        }
    }

    /// The same for the same state, and as good as random.
    pub(crate) fn number(&self) -> u64 {
        digest(self)
    }

    fn key(&self) -> impl Hash + PartialEq + '_ {
        let machines = [0, 1, 2].map(|m| self.machines[m].digest);
        let flying: Vec<u64> = self.flying.iter().map(|f| f.0).collect();
        (machines, flying, self.spent, self.seen)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
