//! A second witness, and configurations that want other voters than are in force.
//!
//! The world knows three members, so the second witness takes the place of the first while anything happens to it.

use super::{Content, Fault, Happening, Machine, Packet, World};
use crate::kernel::{Clock, Kernel};
use hawser::cluster::{
    Engine, Fitness, Identity, Input, Member, Members, Memory, Message, Name, SetTag, Third as ThirdVoter, Verdict,
};
use hawser::time::Instant;
use std::collections::VecDeque;

/// What a configuration may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The third voter that there was from the beginning.
    Usual,
    /// The second witness.
    Other,
    /// This node alone.
    Alone(Member),
}

impl Want {
    pub(super) fn members(self, plan: &super::Plan) -> Members {
        let witness = |name: &str| {
            let addresses = vec!["192.0.2.3:7707".parse().unwrap()];
            Members::Trio(ThirdVoter::Witness { name: Name::new(name).unwrap(), addresses })
        };
        match self {
            Self::Usual if plan.local.is_some() => Members::Trio(ThirdVoter::None),
            Self::Usual if plan.third == super::Third::Etcd => Members::Trio(ThirdVoter::Etcd(1)),
            Self::Usual => witness("w1"),
            Self::Other => witness("w2"),
            Self::Alone(node) => Members::Solo(node),
        }
    }

    /// Digest of the configuration.
    pub(super) const fn config(self) -> u64 {
        match self {
            Self::Usual => 0,
            Self::Other => 1,
            Self::Alone(node) => 2 + node.index() as u64,
        }
    }
}

/// The machine of the second witness, which nobody has started yet.
pub(super) fn spare(timing: hawser::cluster::Timing) -> Machine {
    Machine {
        clock: Clock::new(500_000_000_000, 0),
        kernel: Kernel::default(),
        disk: None,
        timing,
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
    }
}

fn is_second(members: &Members) -> bool {
    matches!(members, Members::Trio(ThirdVoter::Witness { name, .. }) if name.as_str() == "w2")
}

impl World {
    /// Plans what is done to the second witness.
    pub(crate) fn at_other(&mut self, at: u64, fault: Fault) {
        self.push(at.max(self.now), Happening::Other(Box::new(Happening::Plan(fault))));
    }

    /// Does it now.
    pub(crate) fn other_now(&mut self, fault: Fault) {
        self.at_the_other(|world| world.now(fault));
    }

    /// Cuts or heals both ways between a node and the second witness.
    pub(crate) fn other_link(&mut self, node: Member, up: bool) {
        self.at_the_other(|world| world.link(node, Member::Witness, up));
    }

    /// Its disk holds a memory from before.
    pub(crate) fn other_has_memory(&mut self) {
        self.other.disk = Some(Memory::default());
    }

    /// Generation of the set in force at this node; zero while it is dead.
    pub(crate) fn generation(&self, of: Member) -> u32 {
        let set = self.engine(of).and_then(|engine| engine.voter().sets().in_force.as_ref());
        set.map_or(0, |set| set.generation)
    }

    /// This node has chosen the set of this generation.
    pub(crate) fn has_chosen(&self, who: Member, generation: u32) -> bool {
        let next = self.engine(who).and_then(|engine| engine.voter().sets().next.as_ref());
        next.is_some_and(|set| set.generation == generation)
    }

    pub(super) fn at_the_other<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.turn();
        let answer = what(self);
        self.turn();
        answer
    }

    fn turn(&mut self) {
        std::mem::swap(&mut self.machines[Member::Witness.index()], &mut self.other);
        std::mem::swap(&mut self.cut, &mut self.cut_other);
        // What is cut between the nodes is cut however one looks.
        self.at_other = !self.at_other;
        let between = |(a, b): &(Member, Member)| *a != Member::Witness && *b != Member::Witness;
        let nodes: Vec<_> = self.cut_other.iter().copied().filter(between).collect();
        self.cut.retain(|way| !between(way));
        self.cut.extend(nodes);
    }

    /// What is pushed while the second witness has the place of the first is for the second one.
    pub(super) fn addressed(&self, happening: Happening) -> Happening {
        let second = match &happening {
            Happening::Datagram(to, packet) => *to == Member::Witness && packet.second,
            Happening::Wake(to, _) | Happening::Disk(to, ..) => *to == Member::Witness && self.at_other,
            Happening::Plan(_) => self.at_other,
            Happening::WakeSupervisor(..)
            | Happening::Keeper(..)
            | Happening::Orders(..)
            | Happening::Third(..)
            | Happening::Errand(..)
            | Happening::Powered(_)
            | Happening::Gone(..)
            | Happening::Other(_)
            | Happening::Etcd(..) => false,
        };
        if second { Happening::Other(Box::new(happening)) } else { happening }
    }

    /// The third voter in force at this node is the second witness; or this is that one.
    pub(super) fn second_at(&self, me: Member) -> bool {
        if me == Member::Witness {
            return self.at_other;
        }
        let set = self.engine(me).and_then(|engine| engine.voter().sets().in_force.as_ref());
        set.is_some_and(|set| is_second(&set.members))
    }

    /// The third voter that the configuration of this node wants answers it.
    fn third_answers_there(&mut self, me: Member) -> bool {
        let answers = |world: &mut Self| {
            let ways = [(me, Member::Witness), (Member::Witness, me)];
            let machine = &world.machines[Member::Witness.index()];
            let runs = machine.worker.as_ref().is_some_and(|worker| !worker.frozen);
            machine.suspended_at.is_none() && runs && ways.iter().all(|way| !world.cut.contains(way))
        };
        match self.machines[me.index()].want {
            Want::Other => self.at_the_other(answers),
            Want::Usual if self.plan.local.is_none() && self.plan.third == super::Third::Witness => answers(self),
            Want::Usual | Want::Alone(_) => true,
        }
    }

    /// Tells the engine of a node when that changes.
    pub(super) fn tell_ready(&mut self, me: Member, now: Instant) {
        let ready = self.third_answers_there(me);
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        if worker.ready != Some(ready) {
            worker.ready = Some(ready);
            self.tell(me, now, Input::ThirdReady(ready));
        }
    }

    pub(super) fn tag_of(&self, me: Member) -> SetTag {
        let worker = self.machines[me.index()].worker.as_ref();
        worker.map(|worker| worker.brain.voter().sets().tag()).unwrap_or_default()
    }

    /// A datagram that is not a notice.
    pub(super) fn take_sealed(&mut self, me: Member, now: Instant, packet: Packet) {
        // Each third voter is spoken with by a socket of its own.
        if packet.from == Member::Witness && packet.second != self.second_at(me) {
            return;
        }
        let tag = self.tag_of(me);
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        let Content::Sealed(echo, theirs, message) = packet.content else { return };
        let sessions = if packet.from == Member::Witness && packet.second {
            &mut worker.sessions_second
        } else {
            &mut worker.sessions
        };
        let from = Identity { member: packet.from, incarnation: packet.life, hash: None };
        match sessions.accept(packet.from, packet.life, packet.counter, echo) {
            Verdict::Deliver { .. } => {
                if !tag.counts(theirs) {
                    self.tell_apart(me, now, from);
                    if !message.counts_between_sets() {
                        return;
                    }
                }
                self.tell_message(me, now, from, message);
            }
            Verdict::Greet => self.send(me, packet.from, Some(packet.life), Message::Hello),
            Verdict::Drop => {}
        }
    }

    fn tell_apart(&mut self, me: Member, now: Instant, from: Identity) {
        match self.machines[me.index()].worker.as_ref().map(|worker| &worker.brain) {
            Some(super::Brain::Node(_)) => self.tell(me, now, Input::Apart(from)),
            Some(super::Brain::Witness(witness)) => {
                let actions = witness.apart(from.member).into_iter().collect();
                self.carry_out_witness(me, actions);
            }
            None => {}
        }
    }

    /// Who votes, as this node sees it.
    pub(crate) fn members(&self, of: Member) -> Option<&Members> {
        self.engine(of).and_then(|engine: &Engine| engine.voter().sets().in_force.as_ref()).map(|set| &set.members)
    }

    /// Both nodes are where this configuration wants them.
    pub(crate) fn arrived(&self, want: Want) -> bool {
        let members = want.members(&self.plan);
        super::NODES.iter().all(|node| self.members(*node) == Some(&members))
    }
}
