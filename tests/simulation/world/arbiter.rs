//! The third voter of each node, where there is no witness; what it finds out is the world's truth.

use super::{Fault, Happening, MS, NODES, World};
use hawser::cluster::{
    Arbiter, Errand, Fact, GroupName, Identity, Incarnation, Input, Member, Message, Rules, Sight, Way,
};
use hawser::cluster::{Stand, Timing};
use hawser::limits::LOOK_STEP;
use hawser::time::{Duration, Instant};
use std::collections::BTreeMap;

/// Who answers for a group when asked, and when that was.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Look { answered: BTreeMap<GroupName, String>, asked_at: u64 },
    Shot(Result<(), String>),
    AskPower,
}

/// What the nodes have instead of a witness.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local {
    pub(crate) way: Way,
    pub(crate) boot_wait: Duration,
}

/// How the fence device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// It does what it is told, and tells the truth.
    Honest,
    /// It cannot be reached.
    Fails,
}

impl Local {
    pub(super) fn arbiter(
        self,
        me: Member,
        now: Instant,
        since: Instant,
        (timing, groups): (Timing, &[(GroupName, Member)]),
    ) -> Arbiter {
        let Self { way, boot_wait } = self;
        let groups = groups.iter().map(|(name, _)| (*name, name.as_str() != "state")).collect();
        Arbiter::new(now, Rules { me, way, lease: timing.lease, since, boot_wait, groups })
    }
}

/// A group without addresses cannot be seen on their network: while no link works, two may write the state.
pub(super) fn is_invisible(local: Option<Local>, group: GroupName) -> bool {
    looks(local) && group.as_str() == "state"
}

/// What is promised there is who answers, and no more: a node that died may be replaced before its lease would have
/// ended, by one that sees that nobody answers, and terms that nobody heard of order nothing.
pub(super) fn looks(local: Option<Local>) -> bool {
    local.is_some_and(|local| !matches!(local.way, Way::Fence { .. }))
}

impl World {
    fn arbiter(&mut self, me: Member) -> Option<&mut Arbiter> {
        self.machines[me.index()].worker.as_mut()?.arbiter.as_mut()
    }

    fn life(&self, me: Member) -> Option<Incarnation> {
        self.machines[me.index()].worker.as_ref().map(|worker| worker.life)
    }

    /// Where things stand for the third voter of a node.
    pub(crate) fn stand(&mut self, me: Member) -> Option<Stand> {
        let now = self.local(me);
        self.arbiter(me).map(|arbiter| arbiter.stand(now))
    }

    pub(super) fn say_to_third(&mut self, me: Member, message: &Message) {
        let now = self.local(me);
        let Some(life) = self.life(me) else { return };
        let Some(arbiter) = self.arbiter(me) else { return };
        let (answer, errand) = (arbiter.said(now, message), arbiter.take_errand());
        let soon = self.now + self.chance.between(1_000, 100_000);
        if let Some(answer) = answer {
            self.push(soon, Happening::Third(me, life, answer));
        }
        if let Some(errand) = errand {
            self.note(|| format!("{me:?}: its third voter wants {errand:?}"));
            self.begin_errand(me, life, errand, soon);
        }
    }

    pub(super) fn third_answers(&mut self, me: Member, now: Instant, message: Message) {
        let from = Identity { member: Member::Witness, incarnation: Incarnation(3), hash: None };
        self.tell(me, now, Input::Message { from, message });
    }

    fn begin_errand(&mut self, me: Member, life: Incarnation, errand: Errand, soon: u64) {
        let takes = self.chance.between(50, 1_500) * MS;
        match errand {
            Errand::Look => {
                let step = Step::Look { answered: BTreeMap::new(), asked_at: self.now };
                self.push(soon, Happening::Errand(me, life, step));
            }
            Errand::AskPower => self.push(self.now + takes, Happening::Errand(me, life, Step::AskPower)),
            Errand::Shoot if self.device == Device::Fails => {
                let failed = Step::Shot(Err("no answer".to_owned()));
                self.push(self.now + takes, Happening::Errand(me, life, failed));
            }
            Errand::Shoot => {
                // The agent is a process of its own; it tells a little later what the device did.
                self.push(self.now + takes, Happening::Powered(me));
                self.push(self.now + takes + MS, Happening::Errand(me, life, Step::Shot(Ok(()))));
            }
        }
    }

    /// The device powers the peer of `by` off, unless the agent has died with its machine.
    pub(super) fn powered_off(&mut self, by: Member) {
        let Some(peer) = by.peer().filter(|_| self.machines[by.index()].powered) else { return };
        self.shots.push((self.now, by));
        self.now(Fault::PowerOff(peer, false));
        // Off is off: what was left of its leases is nobody's any more.
        self.leases.retain(|_, lease| lease.node != peer);
    }

    pub(super) fn run_errand(&mut self, me: Member, now: Instant, step: Step) {
        let Some(life) = self.life(me) else { return };
        let fact = match step {
            Step::Shot(result) => Fact::Shot(result),
            Step::AskPower if self.device == Device::Fails => Fact::Power(Err("no answer".to_owned())),
            Step::AskPower => Fact::Power(Ok(me.peer().is_none_or(|peer| !self.machines[peer.index()].powered))),
            Step::Look { answered, asked_at } => {
                let reachable = self.segment_reaches(me);
                let rival = reachable && self.questions.iter().any(|(at, who)| *who != me && *at >= asked_at);
                Fact::Sight(Sight { answered, rival, gateways: usize::from(self.gateway_answers(me)), trouble: None })
            }
        };
        let looks = matches!(fact, Fact::Sight(_));
        let Some(arbiter) = self.arbiter(me) else { return };
        if arbiter.told(now, fact) && looks {
            let step = Step::Look { answered: self.who_answers(me), asked_at: self.now };
            if self.questions.len() == 64 {
                self.questions.pop_front();
            }
            self.questions.push_back((self.now, me));
            let next = self.now + u64::try_from(LOOK_STEP.as_nanos()).unwrap();
            self.push(next, Happening::Errand(me, life, step));
        }
    }

    fn segment_reaches(&self, me: Member) -> bool {
        !self.segment_cut
            && NODES.iter().all(|node| *node == me || self.machines[node.index()].carrier)
            && self.machines[me.index()].carrier
    }

    /// Gateways hang on the first node's half of the network, when that is cut.
    fn gateway_answers(&self, me: Member) -> bool {
        self.machines[me.index()].carrier && (!self.segment_cut || me == Member::First)
    }

    fn who_answers(&self, me: Member) -> BTreeMap<GroupName, String> {
        let groups = self.plan.groups.iter().map(|(group, _)| *group).filter(|group| group.as_str() != "state");
        let other = |group: &GroupName| self.answering(*group).iter().any(|node| *node != me);
        let seen = groups.filter(|group| self.segment_reaches(me) && other(group));
        seen.map(|group| (group, "the peer".to_owned())).collect()
    }

    pub(super) fn set_segment(&mut self, cut: bool) {
        self.segment_cut = cut;
        if !cut {
            // The lower term yields to the other's next heartbeat, which comes an interval and a way later.
            let interval = u64::try_from(self.plan.timing.interval.as_nanos()).unwrap();
            self.excused_until = self.now + interval + 5 * MS;
        }
    }

    /// Two may answer: nothing but the network of the addresses could have told them of each other.
    pub(super) fn is_excused(&self) -> bool {
        looks(self.plan.local) && (self.segment_cut || self.now < self.excused_until)
    }

    pub(super) fn confirm(&mut self, me: Member) {
        let now = self.local(me);
        let confirmed = self.arbiter(me).map(|arbiter| arbiter.confirm_fenced(now));
        self.note(|| format!("{me:?}: the peer is off, says an operator: {confirmed:?}"));
    }
}
