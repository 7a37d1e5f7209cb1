//! What happens to an engine, and what it does: datagrams, timers, the disk.

use super::{Brain, Content, Fate, Happening, MS, Packet, World, etcd::Errand};
use hawser::cluster::{Action, Event, Identity, Incarnation, Input, Member, Memory, Message, WitnessAction};
use hawser::supervisor::core::Input as Heard;
use hawser::time::Instant;

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        let (to, life) = match &happening {
            Happening::Plan(fault) => return self.fault(*fault),
            Happening::Other(inner) => {
                let inner = (**inner).clone();
                return self.at_the_other(|world| world.happen(inner));
            }
            Happening::Etcd(from, life, Errand::Asked(question)) => {
                return self.at_etcd(*from, *life, question.clone());
            }
            Happening::Datagram(to, _) => (*to, None),
            Happening::Powered(by) => return self.powered_off(*by),
            Happening::Wake(to, life)
            | Happening::Keeper(to, life, ..)
            | Happening::Etcd(to, life, _)
            | Happening::Third(to, life, _)
            | Happening::Errand(to, life, _) => (*to, Some(*life)),
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

    pub(super) fn local(&self, of: Member) -> Instant {
        self.machines[of.index()].clock.boot(self.now)
    }

    pub(super) fn work(&mut self, me: Member, happening: Happening) {
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
            Happening::Etcd(_, _, errand) => self.errand(me, now, errand),
            Happening::Keeper(_, _, group, op) => self.operate(me, group, op),
            Happening::Third(_, _, message) => self.third_answers(me, now, message),
            Happening::Errand(_, _, step) => self.run_errand(me, now, step),
            Happening::WakeSupervisor(..)
            | Happening::Orders(..)
            | Happening::Gone(..)
            | Happening::Powered(_)
            | Happening::Other(_)
            | Happening::Plan(_) => {}
        }
    }

    pub(super) fn receive(&mut self, me: Member, now: Instant, packet: Packet) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        match packet.content {
            Content::Notice(secret) => match &mut worker.brain {
                Brain::Witness(witness) => witness.notice(&secret),
                Brain::Node(_) => self.tell(me, now, Input::Notice(secret)),
            },
            Content::Sealed(..) => self.take_sealed(me, now, packet),
        }
    }

    pub(super) fn tell_message(&mut self, me: Member, now: Instant, from: Identity, message: Message) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        if let Some(arbiter) = &mut worker.arbiter {
            arbiter.heard(now, from, &message);
        }
        match &mut worker.brain {
            Brain::Node(_) => self.tell(me, now, Input::Message { from, message }),
            Brain::Witness(witness) => {
                let actions = witness.handle(now, from, &message);
                self.carry_out_witness(me, actions);
            }
        }
    }

    pub(super) fn written(&mut self, me: Member, now: Instant, id: u64) {
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        match &mut worker.brain {
            Brain::Node(_) => self.tell(me, now, Input::Persisted(id)),
            Brain::Witness(witness) => {
                let actions = witness.written(now, id);
                self.carry_out_witness(me, actions);
            }
        }
    }

    pub(super) fn carry_out_witness(&mut self, me: Member, actions: Vec<WitnessAction>) {
        for action in actions {
            match action {
                WitnessAction::Send(to, message) => self.send_believed(me, to, message),
                WitnessAction::Persist(id, memory) => self.persist(me, id, memory),
            }
        }
    }

    /// Hands the engine of a node one input and carries out what it wants.
    pub(super) fn tell(&mut self, me: Member, now: Instant, input: Input) {
        if !matches!(input, Input::ThirdReady(_)) {
            self.tell_ready(me, now);
        }
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

    pub(super) fn carry_out(&mut self, me: Member, action: Action) {
        match action {
            Action::Send(Member::Witness, message) if self.plan.local.is_some() => self.say_to_third(me, &message),
            Action::Send(Member::Witness, message) if self.speak(me, &message) => {}
            Action::Send(to, message) => self.send_believed(me, to, message),
            Action::Persist(id, memory) => self.persist(me, id, memory),
            Action::Drain(group, true) => {
                let now = self.local(me);
                self.tell(me, now, Input::Drained(group));
            }
            Action::Drain(_, false) => {}
            Action::Announce(group) => self.announced.push((self.now, me, group)),
            Action::Event(event) => {
                self.note(|| format!("{me:?}: {event:?}"));
                for silent in [true, false] {
                    let told = |who| if silent { Event::Silent(who) } else { Event::Heard(who) };
                    if me.peer().is_some_and(|peer| event == told(peer)) {
                        self.peer_is_silent(me, silent);
                    }
                }
                self.events.push((self.now, me, event));
            }
            Action::Answer(_, result) => self.answers.push((self.now, me, result)),
            Action::Stopped => {
                self.note(|| format!("{me:?}: stopped"));
                self.ends_in_order(me);
            }
        }
    }

    pub(super) fn persist(&mut self, me: Member, id: u64, memory: Memory) {
        let machine = &mut self.machines[me.index()];
        let Some(worker) = &machine.worker else { return };
        let life = worker.life;
        let takes = self.chance.between(200_000, 3 * MS) + machine.disk_takes;
        self.push(self.now + takes, Happening::Disk(me, life, id, memory));
    }

    pub(super) fn send_believed(&mut self, me: Member, to: Member, message: Message) {
        let second = to == Member::Witness && self.second_at(me);
        let believed =
            |w: &super::Worker| if second { w.sessions_second.believed(to) } else { w.sessions.believed(to) };
        let echo = self.machines[me.index()].worker.as_ref().and_then(believed);
        self.send(me, to, echo, message);
    }

    pub(super) fn send(&mut self, me: Member, to: Member, echo: Option<Incarnation>, message: Message) {
        let tag = self.tag_of(me);
        let second = (me == Member::Witness || to == Member::Witness) && self.second_at(me);
        let Some(worker) = self.machines[me.index()].worker.as_mut() else { return };
        worker.counter += 1;
        let content = Content::Sealed(echo, tag, message);
        let packet = Packet { from: me, life: worker.life, counter: worker.counter, second, content };
        self.transmit(me, to, &packet);
    }

    pub(super) fn transmit(&mut self, me: Member, to: Member, packet: &Packet) {
        if self.plan.local.is_some() && to == Member::Witness {
            return;
        }
        let carrier = self.machines[me.index()].carrier && self.machines[to.index()].carrier;
        let cut = if packet.second && !self.at_other { &self.cut_other } else { &self.cut };
        if cut.contains(&(me, to)) || !carrier || self.chance.per_mille(self.network.loss) {
            return;
        }
        let mut later = self.slow.get(&(me, to)).copied().unwrap_or(0);
        if let Some(sieve) = &mut self.sieve {
            let message = match &packet.content {
                Content::Sealed(_, _, message) => Some(message),
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
}

#[cfg(not(feature = "planted"))]
pub(super) const fn planted_early_clock() -> bool {
    false
}

#[cfg(feature = "planted")]
pub(super) fn planted_early_clock() -> bool {
    hawser::cluster::planted::active(hawser::cluster::planted::Planted::ClockBeforeReceive)
}
