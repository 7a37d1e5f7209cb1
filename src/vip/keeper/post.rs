//! One group at the keeper, and how the steps of the plan are carried out for it.

use super::plan::{Phase, Step, decide, let_go_at, next_wake};
use crate::{
    clock,
    cluster::{Claim, GroupName, Intent, Report, Term},
    config::{Group, Vip},
    limits::{ADDRESS_RETRY, GUARD, RESETS_FIRST_MAX, SQUEEZE_MAX, SQUEEZE_POLL, UNABLE_REST},
    time::Instant,
    vip::{
        addresses::{Addresses, Member},
        announce::Schedule,
        frames,
        gate::{Door, Gate},
        netlink::Link,
        packet::Wire,
        rivals::Rivals,
        sockets::{Sockets, Tcp},
        supervision::{SupervisorLink, Word},
    },
};
use rustix::fd::BorrowedFd;
use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most steps for one group before the others have their turn.
const STEPS_MAX: usize = 8;

/// What all groups use.
pub(super) struct Tools {
    pub(super) gate: Option<Gate>,
    pub(super) sockets: Option<Sockets>,
    pub(super) addresses: Addresses,
    pub(super) supervisor: Option<SupervisorLink>,
    pub(super) wire: Wire,
    pub(super) links: Vec<Link>,
    pub(super) rivals: Rivals,
    pub(super) quiet: Arc<dyn Fn(&GroupName) -> bool + Send + Sync>,
    pub(super) report: Box<dyn Fn(Report) + Send>,
}

impl Tools {
    pub(super) fn event(&self, text: String) {
        (self.report)(Report::Event(text));
    }

    /// Tells the supervisor. That it does not read just now does no harm: the next renewal says more than this one.
    /// That it is gone is heard by the poll loop.
    pub(super) fn tell_supervisor(&self, word: &Word) {
        if let Some(link) = &self.supervisor {
            drop(link.say(word));
        }
    }

    /// Lends the supervisor a descriptor. Without that only the notice of this worker's death comes later.
    pub(super) fn lend(&self, fd: BorrowedFd<'_>) {
        if let Some(link) = &self.supervisor
            && let Err(error) = link.lend(fd)
        {
            self.event(format!("cannot lend the supervisor a descriptor: {error}"));
        }
    }

    /// When the gate has to be shut, for a lease that ends at `until`.
    fn gate_end(&self, until: Instant) -> Instant {
        until - self.gate.as_ref().map_or(GUARD, Gate::guard)
    }

    fn open(&mut self, ips: &[IpAddr], until: Instant) -> io::Result<Door> {
        let end = self.gate_end(until);
        self.gate.as_mut().map_or(Ok(Door::Open), |gate| gate.open(ips, end))
    }

    fn renew(&mut self, ips: &[IpAddr], until: Instant) -> io::Result<Door> {
        let end = self.gate_end(until);
        self.gate.as_mut().map_or(Ok(Door::Open), |gate| gate.renew(ips, end))
    }

    fn shut(&mut self, ips: &[IpAddr]) {
        if let Some(gate) = &mut self.gate
            && let Err(error) = gate.shut(ips)
        {
            self.event(format!("cannot shut the gate, it shuts by itself: {error}"));
        }
    }

    fn find(&mut self, ips: &[IpAddr]) -> Vec<Tcp> {
        self.sockets.as_mut().and_then(|sockets| sockets.bound_to(ips).ok()).unwrap_or_default()
    }

    fn destroy(&mut self, found: &[Tcp]) {
        if let Some(sockets) = &mut self.sockets
            && let Err(error) = sockets.destroy(found)
        {
            self.event(format!("cannot destroy connections: {error}"));
        }
    }
}

/// One group.
pub(super) struct Post {
    pub(super) name: GroupName,
    pub(super) vips: Vec<Vip>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) phase: Phase,
    pub(super) schedule: Schedule,
    intent: Intent,
    /// An intent was set.
    asked: bool,
    /// Counts what was asked of the addresses' thread: older answers mean nothing.
    generation: u64,
    /// Until when that thread may renew them.
    renew_until: Arc<AtomicU64>,
    /// The term that was reported as held.
    reported: Option<Term>,
    /// Why it could not be held, and when that was.
    refused: Option<(String, Instant)>,
    /// After a failure nothing is begun before this.
    hold_off: Instant,
    /// The connections that were seen when a leaving group was last looked at.
    seen: Option<Vec<Tcp>>,
    /// Connections are left that were not destroyed before the addresses went.
    to_destroy: bool,
}

impl Post {
    pub(super) fn new(group: Group) -> Self {
        Self {
            name: group.name,
            ips: group.vips.iter().map(|vip| vip.address.addr()).collect(),
            vips: group.vips,
            phase: Phase::Gone,
            schedule: Schedule::begin(Instant::NEVER),
            intent: Intent::Released,
            asked: false,
            generation: 0,
            renew_until: Arc::default(),
            reported: None,
            refused: None,
            hold_off: Instant::ZERO,
            seen: None,
            to_destroy: false,
        }
    }

    pub(super) fn member(&self) -> Member {
        Member { name: self.name, vips: self.vips.clone(), until: Arc::clone(&self.renew_until) }
    }

    /// Takes a new intent. A change to one that ends in `Gone` is answered by a fresh look, also if nothing is held.
    pub(super) fn set(&mut self, intent: Intent, tools: &mut Tools) {
        let ends = |intent: Intent| matches!(intent, Intent::Released | Intent::Leaving { .. });
        let first = !std::mem::replace(&mut self.asked, true);
        let changed = std::mem::discriminant(&intent) != std::mem::discriminant(&self.intent);
        let asks = ends(intent) && (first || changed);
        self.intent = intent;
        if asks && self.phase == Phase::Gone {
            self.let_go(tools);
        }
    }

    /// Does what is to be done now. `may_hold` is false when nothing may be held any more.
    pub(super) fn advance(&mut self, tools: &mut Tools, may_hold: bool) {
        self.refused.take_if(|(_, at)| clock::now() >= *at + UNABLE_REST);
        for _ in 0..STEPS_MAX {
            // The clock is read for each step: the one before may have been slow.
            let now = clock::now();
            match decide(self.phase, self.wanted(now, may_hold), now) {
                Step::Nothing => break,
                Step::Acquire(until) => self.acquire(until, tools),
                Step::Open(until) => self.open(until, tools),
                Step::Renew(until) => self.renew(until, tools),
                Step::Squeeze => self.squeeze(now, tools),
                Step::EndSqueeze => self.end_squeeze(tools),
                Step::Look => self.look(now, tools),
                Step::LetGo => self.let_go(tools),
            }
        }
        self.announce(tools);
        if let (Phase::Open { .. }, Intent::Held { term, .. }) = (self.phase, self.intent)
            && self.reported != Some(term)
        {
            self.reported = Some(term);
            (tools.report)(Report::Held(self.name, term));
        }
    }

    fn wanted(&self, now: Instant, may_hold: bool) -> Intent {
        if may_hold && now >= self.hold_off { self.intent } else { Intent::Released }
    }

    pub(super) fn next_wake(&self, now: Instant, may_hold: bool) -> Instant {
        let mut next = next_wake(self.phase, self.wanted(now, may_hold));
        if now < self.hold_off {
            next = next.min(self.hold_off);
        }
        if let Some((_, at)) = &self.refused {
            next = next.min(*at + UNABLE_REST);
        }
        if self.is_open() { next.min(self.schedule.next()) } else { next }
    }

    /// Whether its addresses are open to the world.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::Leaving { .. })
    }

    /// Whether anything may be left on the interfaces.
    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Why it could not be held lately.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.refused.as_ref().map(|(why, _)| why.as_str())
    }

    /// Its addresses, if they may be open now.
    pub(super) fn open_ips(&self, tools: &Tools, now: Instant) -> &[IpAddr] {
        let (Phase::Open { until } | Phase::Leaving { until, .. }) = self.phase else { return &[] };
        if now < tools.gate_end(until) { &self.ips } else { &[] }
    }

    fn acquire(&mut self, until: Instant, tools: &mut Tools) {
        tools.tell_supervisor(&Word::Arm { group: self.name, until });
        self.renew_until.store(let_go_at(until).as_nanos(), Ordering::Release);
        self.generation += 1;
        tools.addresses.hold(self.name, self.generation);
        self.phase = Phase::Adding { until, placed: false };
        tracing::debug!(group = %self.name, "addresses come");
    }

    fn open(&mut self, until: Instant, tools: &mut Tools) {
        match self.open_gate(until, tools) {
            Ok(()) => {
                self.phase = Phase::Open { until };
                self.schedule = Schedule::begin(clock::now());
                tracing::debug!(group = %self.name, "addresses are there, the gate is open");
            }
            Err(why) => self.give_up(why, tools),
        }
    }

    /// Opens the gate; once more if the first try came too late for its short first opening.
    fn open_gate(&self, until: Instant, tools: &mut Tools) -> Result<(), String> {
        for _ in 0..2 {
            match tools.open(&self.ips, until) {
                Ok(Door::Open) => return Ok(()),
                Ok(Door::Shut) => {}
                Err(error) => return Err(format!("cannot open the gate for {}: {error}", self.name)),
            }
        }
        Err(format!("cannot open the gate for {} in time", self.name))
    }

    pub(super) fn renew(&mut self, until: Instant, tools: &mut Tools) {
        tools.tell_supervisor(&Word::Arm { group: self.name, until });
        self.renew_until.store(let_go_at(until).as_nanos(), Ordering::Release);
        match &mut self.phase {
            Phase::Adding { until: known, .. } => *known = until,
            Phase::Open { until: known } | Phase::Leaving { until: known, .. } => {
                *known = until;
                self.renew_gate(until, tools);
            }
            Phase::Gone | Phase::Removing => {}
        }
    }

    /// Renews the gate. If it has shut (this process or its machine stood still) and the lease runs, opens it anew.
    fn renew_gate(&mut self, until: Instant, tools: &mut Tools) {
        match tools.renew(&self.ips, until) {
            Ok(Door::Open) => return,
            Ok(Door::Shut) => {}
            Err(error) => return self.give_up(format!("cannot renew the gate for {}: {error}", self.name), tools),
        }
        if clock::now() >= let_go_at(until) {
            return self.let_go(tools);
        }
        match self.open_gate(until, tools) {
            Ok(()) => {
                self.schedule.again(clock::now());
                tools.event(format!(
                    "the gate of {} had shut before its lease was renewed, and is open again",
                    self.name
                ));
            }
            Err(why) => self.give_up(why, tools),
        }
    }

    /// After the gate was set up again: its addresses are open for a moment, which is made the whole lease.
    pub(super) fn gate_restored(&mut self, tools: &mut Tools) {
        if let Phase::Open { until } | Phase::Leaving { until, .. } = self.phase {
            self.renew_gate(until, tools);
        }
    }

    fn squeeze(&mut self, now: Instant, tools: &mut Tools) {
        let Phase::Open { until } = self.phase else { return };
        self.phase = Phase::Leaving { until, since: now, look_at: now };
        tracing::debug!(group = %self.name, "new connections wait");
        if let Some(gate) = &mut tools.gate
            && let Err(error) = gate.squeeze(&self.ips, SQUEEZE_MAX)
        {
            tools.event(format!("cannot hold off new connections to {}: {error}", self.name));
        }
    }

    fn end_squeeze(&mut self, tools: &mut Tools) {
        let Phase::Leaving { until, .. } = self.phase else { return };
        self.phase = Phase::Open { until };
        self.stop_squeezing(tools);
    }

    fn stop_squeezing(&self, tools: &mut Tools) {
        if let Some(gate) = &mut tools.gate
            && let Err(error) = gate.end_squeeze(&self.ips)
        {
            tools.event(format!("cannot let new connections in to {} before {SQUEEZE_MAX:?}: {error}", self.name));
        }
    }

    fn look(&mut self, now: Instant, tools: &mut Tools) {
        let is_quiet = (tools.quiet)(&self.name);
        if !is_quiet {
            tracing::debug!(group = %self.name, "requests are in progress");
        } else {
            let found = tools.find(&self.ips);
            let is_busy = found.iter().any(Tcp::is_busy);
            if let Some(busy) = found.iter().find(|socket| socket.is_busy()) {
                tracing::debug!(group = %self.name, ?busy, "a connection has bytes on their way");
            }
            self.seen = Some(found);
            if !is_busy {
                return self.let_go(tools);
            }
        }
        if let Phase::Leaving { look_at, .. } = &mut self.phase {
            *look_at = now + SQUEEZE_POLL;
        }
    }

    fn let_go(&mut self, tools: &mut Tools) {
        let was = std::mem::replace(&mut self.phase, Phase::Removing);
        tracing::debug!(group = %self.name, "addresses go");
        self.renew_until.store(0, Ordering::Release);
        tools.shut(&self.ips);
        self.reset_connections(was, tools);
        self.generation += 1;
        tools.addresses.drop(self.name, self.generation);
        if matches!(was, Phase::Leaving { .. }) {
            self.stop_squeezing(tools);
        }
    }

    /// Resets go out only while the addresses are there. But to look for connections takes milliseconds, which a lease
    /// that is about to end does not leave (and who has lost it probably reaches nobody), nor has a planned move that was
    /// just looked at any need of it; and very many connections must not delay the rest.
    fn reset_connections(&mut self, was: Phase, tools: &mut Tools) {
        let seen = self.seen.take();
        let (Phase::Open { until } | Phase::Leaving { until, .. }) = was else { return };
        if clock::now() >= let_go_at(until) {
            self.to_destroy = true;
            return;
        }
        // What came between the look and the shut gate is destroyed afterwards.
        self.to_destroy = seen.is_some();
        let mut found = seen.unwrap_or_else(|| tools.find(&self.ips));
        found.retain(|socket| !socket.is_listening());
        self.to_destroy |= found.len() > RESETS_FIRST_MAX;
        found.truncate(RESETS_FIRST_MAX);
        tools.destroy(&found);
    }

    /// Lets go because of a failure, and begins nothing for a while.
    fn give_up(&mut self, why: String, tools: &mut Tools) {
        let now = clock::now();
        self.refused = Some((why, now));
        self.hold_off = now + ADDRESS_RETRY;
        self.let_go(tools);
    }

    pub(super) fn placed(&mut self, generation: u64) {
        if generation == self.generation {
            self.refused = None;
            if let Phase::Adding { placed, .. } = &mut self.phase {
                *placed = true;
            }
        }
    }

    pub(super) fn refused(&mut self, generation: u64, why: String) {
        if generation == self.generation {
            self.refused = Some((why, clock::now()));
        }
    }

    pub(super) fn gone(&mut self, generation: u64, tools: &mut Tools) {
        if generation != self.generation || self.phase != Phase::Removing {
            return;
        }
        self.phase = Phase::Gone;
        self.reported = None;
        tracing::debug!(group = %self.name, "addresses are gone");
        tools.tell_supervisor(&Word::Disarm { group: self.name });
        (tools.report)(Report::Gone(self.name));
        if std::mem::take(&mut self.to_destroy) {
            let found = tools.find(&self.ips);
            tools.destroy(&found);
        }
    }

    /// Announces its addresses if that is due and they are open.
    ///
    /// Frames of a packet socket do not pass the gate. So the clock is read right before each of them: a machine that
    /// stood still since then sends one frame too many, which the new owner hears as a conflict and corrects at once.
    fn announce(&mut self, tools: &Tools) {
        if !self.is_open() || !self.schedule.is_due(clock::now()) {
            return;
        }
        for vip in &self.vips {
            let Some(link) = tools.links.iter().find(|link| link.name == vip.interface) else { continue };
            let Some(mac) = link.mac else { continue };
            for frame in frames::announcements(mac, vip.address.addr()) {
                if !self.open_ips(tools, clock::now()).is_empty() {
                    // A full queue or a link that just went down: the next announcement follows soon.
                    drop(tools.wire.send(link.index, &frame));
                }
            }
        }
    }

    /// Another machine claims one of its addresses. After a freeze that is its new owner, if the lease is over.
    pub(super) fn conflict(&mut self, mac: frames::Mac, ip: IpAddr, tools: &mut Tools) {
        let now = clock::now();
        let (Intent::Held { term, .. } | Intent::Leaving { term, .. }) = self.intent else { return };
        if !self.open_ips(tools, now).contains(&ip) {
            return;
        }
        self.schedule.again_for_conflict(now);
        if tools.rivals.hear(now, mac, ip) {
            (tools.report)(Report::Claimed(Claim { group: self.name, term, address: ip, mac }));
        }
    }
}
