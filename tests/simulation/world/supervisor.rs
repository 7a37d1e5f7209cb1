//! The supervisor around its real core.

use super::{Brain, Content, Happening, Packet, Worker, World, hash, placed};
use hawser::cluster::{
    AddressMark, Engine, GroupName, GroupSetup, Identity, Incarnation, Input, Member, Report, Secret, Sessions, Setup,
    Witness,
};
use hawser::supervisor::core::{Action as Order, Ending, Input as Heard};
use hawser::time::{Duration, Instant};
use hawser::vip::supervision::{Hello, Word};
use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

impl World {
    pub(super) fn supervise(&mut self, me: Member, number: u64, heard: Heard) {
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
            self.obey(me, number, &order);
        }
        if deadline != Instant::NEVER {
            let wake = self.machines[me.index()].clock.when(self.now, deadline).max(self.now + 1);
            self.push(wake, Happening::WakeSupervisor(me, number));
        }
    }

    pub(super) fn obey(&mut self, me: Member, number: u64, order: &Order) {
        let soon = self.now + self.chance.between(50_000, 300_000);
        let machine = &mut self.machines[me.index()];
        match order {
            Order::StartWorker => self.start_worker(me),
            Order::KillWorker if machine.unkillable => machine.kill_pending = true,
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
                    let content = Content::Notice(*secret);
                    let packet = Packet { from: me, life: Incarnation(0), counter: 0, second: false, content };
                    self.transmit(me, to, &packet);
                    if to == Member::Witness && self.other.powered {
                        self.transmit(me, to, &Packet { second: true, ..packet });
                    }
                }
            }
        }
    }

    /// The dead worker's addresses are deleted, and seen to be gone.
    pub(super) fn taken_away(&mut self, me: Member, number: u64) {
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

    pub(super) fn start_worker(&mut self, me: Member) {
        let now = self.local(me);
        let life = Incarnation(u128::from(self.chance.next()) << 64 | u128::from(self.chance.next()));
        let mut secret = Secret([0; 32]);
        for chunk in secret.0.chunks_mut(8) {
            chunk.copy_from_slice(&self.chance.next().to_le_bytes());
        }
        let seed = self.chance.next();
        let supervised = self.machines[me.index()].supervisor.is_some();
        let identity = |hash| Identity { member: me, incarnation: life, hash };
        let speaker = self.new_speaker(identity(supervised.then(|| hash(&secret))));
        let machine = &mut self.machines[me.index()];
        machine.swapped_here = machine.swapped;
        let swapped = machine.swapped;
        let group = |(number, (name, prefer)): (usize, &(GroupName, Member))| {
            let address = Ipv4Addr::new(192, 0, 2, u8::try_from(placed(number, swapped)).unwrap());
            GroupSetup { name: *name, prefer: *prefer, addresses: vec![AddressMark::of(address.into())] }
        };
        let groups = self.plan.groups.iter().enumerate().map(group).collect();
        let memory = machine.disk.clone();
        let brain = if me == Member::Witness {
            Brain::Witness(Box::new(Witness::new(now, identity(None), memory, hash)))
        } else {
            let setup = Setup {
                me: identity(supervised.then(|| hash(&secret))),
                timing: machine.timing,
                groups,
                drain: Duration::ZERO,
                config: machine.want.config(),
                wanted: machine.want.members(&self.plan),
                hash,
                seed,
                memory,
            };
            Brain::Node(Box::new(Engine::new(now, setup)))
        };
        machine.kill_pending = false;
        let arbiter =
            self.plan.local.map(|local| local.arbiter(me, now, machine.since, (machine.timing, &self.plan.groups)));
        machine.worker = Some(Worker {
            brain,
            arbiter,
            sessions: Sessions::new(life),
            sessions_second: Sessions::new(life),
            ready: None,
            life,
            secret,
            counter: 0,
            frozen: false,
            frozen_at: None,
            inbox: VecDeque::new(),
            keepers: BTreeMap::new(),
            next_wake: 0,
            speaker,
            next_errand: 0,
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
}
