//! What can be done to the world.

use super::wire::planted_early_clock;
use super::{Content, Fault, Happening, MS, Packet, Part, Supervisor, Third, World};
use hawser::cluster::{Command, Incarnation, Input, Intent, Member, Report, Secret};
use hawser::limits::{GUARD, HOLD_MAX};
use hawser::supervisor::core::{Core, Ending, Input as Heard};
use hawser::vip::supervision::Word;
use std::collections::VecDeque;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
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
            Fault::KillSupervisor(who) => self.kill_supervisor(who),
            Fault::PowerOff(who, lost) => self.power_off(who, lost),
            Fault::PowerOn(who) => self.power_on(who),
            Fault::Freeze(who, part) => self.freeze(who, part),
            Fault::Thaw(who, part) => self.thaw(who, part),
            Fault::Suspend(who) => self.suspend(who),
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
            Fault::Replay(secret) => self.replay(secret),
            Fault::Rate(who, ppm) => self.set_rate(who, ppm),
            Fault::Want(who, want) => self.machines[who.index()].want = want,
            Fault::Timing(who, timing) => {
                self.machines[who.index()].timing = timing;
                self.deliver_input(who, Input::Timing(timing));
            }
            Fault::Swap(who, swapped) => self.swap(who, swapped),
            Fault::Slow(from, to, by) => {
                self.slow.insert((from, to), by);
            }
            Fault::KernelTakes(who, takes) => self.machines[who.index()].kernel_takes = takes,
            Fault::Unkillable(who, on) => self.unkillable(who, on),
            Fault::Hangup(who) => self.hang_up(who),
            Fault::Storm(count) => self.storm(count),
            Fault::Segment(cut) => self.set_segment(cut),
            Fault::Device(device) => self.device = device,
            Fault::Confirm(who) => self.confirm(who),
        }
    }

    fn kill_supervisor(&mut self, who: Member) {
        self.machines[who.index()].supervisor = None;
        if who != Member::Witness {
            self.report(who, Report::SupervisorGone);
            let back = self.now + 2000 * MS;
            self.at(back, Fault::PowerOn(who));
        }
    }

    fn power_off(&mut self, who: Member, lost: bool) {
        self.kill_both(who);
        let machine = &mut self.machines[who.index()];
        (machine.powered, machine.suspended_at) = (false, None);
        machine.kernel.held.clear();
        machine.asleep.clear();
        if lost {
            machine.disk = None;
        }
    }

    /// Outside of what hawser promises: a machine that sleeps while its processes are frozen or dead. The kernel's timers
    /// stand still meanwhile, and nobody shuts the gate when it wakes.
    fn suspend(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        let awake = machine.worker.as_ref().is_some_and(|w| !w.frozen);
        if machine.powered && machine.suspended_at.is_none() && awake {
            machine.suspended_at = Some(self.now);
        }
    }

    fn replay(&mut self, secret: Secret) {
        for to in Member::ALL {
            let content = Content::Notice(secret);
            let packet = Packet { from: Member::First, life: Incarnation(0), counter: 0, second: false, content };
            self.push(self.now, Happening::Datagram(to, packet));
        }
    }

    fn unkillable(&mut self, who: Member, on: bool) {
        let machine = &mut self.machines[who.index()];
        machine.unkillable = on;
        if !on && machine.kill_pending {
            self.kill_worker(who);
        }
    }

    fn hang_up(&mut self, who: Member) {
        if let Some(number) = self.machines[who.index()].supervisor.as_ref().map(|s| s.number) {
            self.supervise(who, number, Heard::LinkClosed);
        }
    }

    /// A clock that is asleep keeps its rate.
    pub(super) fn set_rate(&mut self, who: Member, ppm: i64) {
        let machine = &mut self.machines[who.index()];
        if machine.suspended_at.is_none() {
            machine.clock.set_rate(self.now, ppm);
        }
    }

    pub(super) fn storm(&mut self, count: u64) {
        for _ in 0..count {
            let Some(at) = self.recent.len().checked_sub(1) else { return };
            let (to, packet) = self.recent[usize::try_from(self.chance.below(at as u64 + 1)).unwrap()].clone();
            let delay = self.chance.between(1, 3 * MS);
            self.push(self.now + delay, Happening::Datagram(to, packet));
        }
    }

    /// An input from inside the node; a frozen one hears nothing (and is told when it starts anew).
    pub(super) fn deliver_input(&mut self, who: Member, input: Input) {
        let now = self.local(who);
        let machine = &self.machines[who.index()];
        if machine.suspended_at.is_none() && machine.worker.as_ref().is_some_and(|w| !w.frozen) {
            self.tell(who, now, input);
        }
    }

    /// Another configuration, which is read at the start.
    fn swap(&mut self, who: Member, swapped: bool) {
        self.machines[who.index()].swapped = swapped;
        let machine = &self.machines[who.index()];
        if machine.swapped_here != swapped && machine.suspended_at.is_none() {
            self.kill_worker(who);
        }
    }

    /// An operator's command.
    pub(crate) fn command(&mut self, who: Member, command: Command) {
        self.deliver_input(who, Input::Command(3, command));
    }

    pub(super) fn kill_worker(&mut self, who: Member) {
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
    pub(super) fn ends_in_order(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        machine.worker = None;
        if let Some(number) = machine.supervisor.as_ref().map(|s| s.number) {
            self.push(self.now + 20_000, Happening::Orders(who, number, Heard::Word(Word::Bye)));
            let soon = self.now + self.chance.between(50_000, 300_000);
            self.push(soon, Happening::Orders(who, number, Heard::WorkerDied(Ending::Exited(0))));
        }
    }

    pub(super) fn kill_both(&mut self, who: Member) {
        let machine = &mut self.machines[who.index()];
        machine.worker = None;
        machine.supervisor = None;
    }

    pub(super) fn power_on(&mut self, who: Member) {
        self.order += 1;
        let number = self.order;
        let since = self.local(who);
        let lone = self.plan.local.is_some();
        let machine = &mut self.machines[who.index()];
        if machine.worker.is_some() || machine.supervisor.is_some() || (lone && who == Member::Witness) {
            return;
        }
        machine.powered = true;
        machine.since = since;
        if who == Member::Witness {
            if self.plan.third == Third::Witness {
                self.start_worker(who);
            }
        } else {
            machine.supervisor = Some(Supervisor { core: Core::new(), number, frozen: false, inbox: VecDeque::new() });
            self.supervise(who, number, Heard::Tick);
        }
    }

    pub(super) fn freeze(&mut self, who: Member, part: Part) {
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

    pub(super) fn thaw(&mut self, who: Member, part: Part) {
        let worker_first = self.chance.per_mille(500);
        if worker_first {
            self.thaw_worker(who, part);
        }
        self.thaw_supervisor(who, part);
        if !worker_first {
            self.thaw_worker(who, part);
        }
    }

    pub(super) fn thaw_supervisor(&mut self, who: Member, part: Part) {
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

    pub(super) fn thaw_worker(&mut self, who: Member, part: Part) {
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

    pub(super) fn resume(&mut self, who: Member, stopped: bool) {
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
    pub(super) fn run_keepers_now(&mut self, who: Member) {
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
