//! The shell of the third voter of a cluster without a third machine.
//!
//! ```text
//!  cluster thread: engine ──says──> arbiter ──answers──> queue of the driver
//!                  peer ──is overheard──^ │ ^
//!                                 errand  v │ fact
//!  tiebreak thread:          looks, echoes, fence agents: may take their time
//! ```
//!
//! Rule: what a lease hangs on (the answer to a claim) is done on the cluster thread, and waits for nothing.
//!
//! Not here: what follows from a fact (`cluster::arbiter`).

use super::{Failure, notes::Names, voters};
use crate::{
    admin::api,
    clock,
    cluster::{
        Arbiter, Errand, Fact, GroupName, Identity, Input, Member, Members, Message, Name, OffBy, Rules, STATE_GROUP,
        Sight, Stand, Term, Third, Way, arbiter::Unasked,
    },
    config::{Config, Fence, Tiebreak, TiebreakKind},
    driver::{DriverHandle, LocalThird, Overhear},
    limits::LOOK_STEP,
    replicate::{HistoryEntry, StateHandle},
    tiebreak::{echo::Echo, fence},
    time::{Duration, Instant},
    trust,
    vip::probe::{Asker, Heard},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::UNIX_EPOCH,
};

/// How often it is looked whether something is to be said to people.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// A gateway that answered one of the last few questions answers.
const ECHO_STEPS: u32 = 3;

/// What the driver needs of it.
pub(super) struct Hands {
    /// Speaks for the third voter.
    pub(super) third: LocalThird,
    /// Is told what the peer says.
    pub(super) overhear: Overhear,
}

/// For those who show and steer it.
#[derive(Clone)]
pub(super) struct Handle {
    kind: TiebreakKind,
    peer: Name,
    arbiter: Option<Arc<Mutex<Arbiter>>>,
    scribe: Scribe,
}

/// Starts what the configured tiebreak needs on this machine. Hands only if no other machine votes.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start(
    config: &Arc<Config>,
    names: &Names,
    driver: &DriverHandle,
    state: &StateHandle,
) -> Result<(Handle, Option<Hands>), Failure> {
    let kind = config.tiebreak.kind();
    if let Some(caveat) = kind.caveat() {
        tracing::warn!(tiebreak = kind.word(), "{caveat}");
    }
    let scribe = Scribe { me: names.of(names.me), peer: config.peer_node().name, state: state.clone() };
    let handle = |arbiter| Handle { kind, peer: config.peer_node().name, arbiter, scribe: scribe.clone() };
    let Some(way) = way(&config.tiebreak) else { return Ok((handle(None), None)) };
    let now = clock::now();
    let arbiter = Arc::new(Mutex::new(Arbiter::new(now, rules(config, way, now))));
    let (errands, todo) = mpsc::sync_channel(1);
    let shell = Shell { config: Arc::clone(config), arbiter: Arc::clone(&arbiter), scribe: scribe.clone(), told: None };
    let named = thread::Builder::new().name("tiebreak".to_owned());
    named.spawn(move || shell.run(&todo)).map_err(Failure::passing)?;
    let (speaker, listener, driver) = (Arc::clone(&arbiter), Arc::clone(&arbiter), driver.clone());
    let from = Identity { member: Member::Witness, incarnation: trust::new_incarnation(), hash: None };
    let third = move |message: Message| {
        let (answer, errand) = {
            let mut arbiter = lock(&speaker);
            (arbiter.said(clock::now(), &message), arbiter.take_errand())
        };
        if let Some(errand) = errand {
            // There is room: one at a time.
            let _gone = errands.try_send(errand).is_err();
        }
        if let Some(message) = answer
            && !driver.try_tell(Input::Message { from, message })
        {
            tracing::warn!("the cluster thread's queue is full: an answer of the third voter is lost");
        }
    };
    let overhear = move |now, from, message: &Message| lock(&listener).heard(now, from, message);
    let third = LocalThird { of: voters::third_of(&config.tiebreak), life: from.incarnation, say: Box::new(third) };
    Ok((handle(Some(arbiter)), Some(Hands { third, overhear: Box::new(overhear) })))
}

fn lock(arbiter: &Mutex<Arbiter>) -> MutexGuard<'_, Arbiter> {
    arbiter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn way(tiebreak: &Tiebreak) -> Option<Way> {
    match tiebreak {
        Tiebreak::Witness(_) | Tiebreak::Etcd(_) => None,
        Tiebreak::Fence(fence) => Some(Way::Fence { head_start: fence.head_start }),
        Tiebreak::Gateway(gateway) => Some(Way::Gateway { need: gateway.need }),
        Tiebreak::None => Some(Way::None),
    }
}

fn rules(config: &Config, way: Way, now: Instant) -> Rules {
    let mut groups: Vec<(GroupName, bool)> = config.groups.iter().map(|g| (g.name, !g.vips.is_empty())).collect();
    groups.extend(Name::new(STATE_GROUP).map(|state| (state, false)));
    Rules {
        me: config.me,
        way,
        lease: config.cluster.lease,
        since: supervised_since().unwrap_or(now).min(now),
        boot_wait: config.cluster.boot_wait,
        groups,
    }
}

/// When the parent was started: the supervisor, which outlives its workers (`/proc/PID/stat`, field 22, in hundredths
/// of a second since boot).
fn supervised_since() -> Option<Instant> {
    std::env::var_os(crate::vip::supervision::SUPERVISOR_FD)?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", std::os::unix::process::parent_id())).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(Instant::from_millis(ticks.checked_mul(10)?))
}

/// For those who show and steer whichever is in force.
#[derive(Clone)]
pub(super) struct Handles(pub(super) Vec<(Third, Handle)>);

impl Handles {
    /// What `status` shows while these vote.
    pub(super) fn view(&self, now: Instant, members: &Members) -> api::TiebreakState {
        let stand = || Some(format!("votes: {}", voters::word(members)));
        match members {
            Members::Trio(third) => {
                let known = self.0.iter().find(|(of, _)| of == third);
                known.map(|(_, handle)| handle.view(now)).unwrap_or_default()
            }
            Members::Pair => api::TiebreakState { caveat: Some(voters::PAIR.to_owned()), stand: stand(), needs: None },
            Members::Solo(_) => {
                api::TiebreakState { caveat: Some(voters::ALONE.to_owned()), stand: stand(), needs: None }
            }
        }
    }

    /// An operator says that the peer is off.
    ///
    /// # Errors
    /// Why that is not taken.
    pub(super) fn confirm_fenced(&self, node: Name) -> Result<api::Changed, String> {
        let fence = self.0.iter().find(|(third, _)| *third == Third::Fence).or(self.0.first());
        let nothing = || Err("nothing waits for somebody to say that a node is off".to_owned());
        fence.map_or_else(nothing, |(_, handle)| handle.confirm_fenced(node))
    }
}

impl Handle {
    /// What `status` shows.
    pub(super) fn view(&self, now: Instant) -> api::TiebreakState {
        let stand = self.arbiter.as_ref().map(|arbiter| lock(arbiter).stand(now));
        let needs = stand.as_ref().and_then(|stand| needs(stand, self.peer));
        api::TiebreakState {
            caveat: self.kind.caveat().map(str::to_owned),
            stand: stand.map(|stand| in_words(&stand, self.peer, now)),
            needs,
        }
    }

    /// An operator says that the peer is off.
    ///
    /// # Errors
    /// Why that is not taken.
    pub(super) fn confirm_fenced(&self, node: Name) -> Result<api::Changed, String> {
        if node != self.peer {
            return Err(format!("{node} is not the peer of this node, which is {}", self.peer));
        }
        let confirmed = match &self.arbiter {
            Some(arbiter) => lock(arbiter).confirm_fenced(clock::now()),
            None => Err(Unasked::NoFence),
        };
        match confirmed {
            Ok(()) => {
                self.scribe.write("off", "confirmed_by_operator", String::new());
                let text = format!("{node} counts as powered off until it is heard again");
                Ok(api::Changed { text, replicated: None })
            }
            Err(Unasked::PeerHeard) => Err(format!("{node} is heard, or was until a moment ago: it is not off")),
            Err(Unasked::NoFence) => {
                let kind = self.kind.word();
                Err(format!("the tiebreak is \"{kind}\": nothing waits for somebody to say that {node} is off"))
            }
        }
    }
}

/// What a person must do or look at, if anything.
fn needs(stand: &Stand, peer: Name) -> Option<String> {
    match stand {
        Stand::Missed(why, _) => Some(format!(
            "{peer} could not be powered off ({why}): nothing is taken over from it; mend the fence device, or look \
             at {peer}, and if it is off, say `hawser confirm-fenced {peer} --yes`"
        )),
        Stand::Operator(why) => Some(format!(
            "{peer} was not heard since this node started, and is not known to be off ({why}): this node owns nothing \
             until it is; look at {peer}, and if it is off, say `hawser confirm-fenced {peer} --yes`"
        )),
        Stand::Gateways(count) => Some(format!(
            "only {count} of the gateways answer: perhaps it is this node that is cut off, so it takes nothing over"
        )),
        Stand::Blind(why) => Some(format!("nothing is taken over from {peer}: {why}")),
        Stand::Answered(who) => Some(format!(
            "{peer} is not heard, but {who} answers for its addresses: nothing is taken over; look at the links"
        )),
        Stand::PeerHeard
        | Stand::BootWait(_)
        | Stand::PeerLeft
        | Stand::Lone
        | Stand::Looking
        | Stand::Clear
        | Stand::Aiming(_)
        | Stand::Shooting
        | Stand::Off(_) => None,
    }
}

fn in_words(stand: &Stand, peer: Name, now: Instant) -> String {
    let seconds = |at: Instant| format!("{:.1} s", now.until(at).as_secs_f64());
    match stand {
        Stand::PeerHeard => format!("{peer} is heard"),
        Stand::BootWait(until) => format!("waits {} more for {peer} after its start", seconds(*until)),
        Stand::PeerLeft => format!("{peer} ended in order"),
        Stand::Lone => format!("{peer} is lost"),
        Stand::Looking => "looks whether somebody answers for the addresses".to_owned(),
        Stand::Answered(who) => format!("{who} answers for the addresses"),
        Stand::Gateways(count) => format!("{count} of the gateways answer"),
        Stand::Blind(why) => format!("cannot look: {why}"),
        Stand::Clear => "nobody answers for the addresses".to_owned(),
        Stand::Aiming(at) => format!("powers {peer} off in {}", seconds(*at)),
        Stand::Shooting => format!("asks the fence device about {peer}"),
        Stand::Missed(why, at) => format!("could not power {peer} off ({why}); again in {}", seconds(*at)),
        Stand::Off(OffBy::Shot) => format!("{peer} was powered off from here"),
        Stand::Off(OffBy::Device) => format!("{peer} is off, says the fence device"),
        Stand::Off(OffBy::Operator) => format!("{peer} is off, says an operator"),
        Stand::Operator(_) => format!("waits for somebody to say that {peer} is off"),
    }
}

/// Writes to the history.
#[derive(Clone)]
struct Scribe {
    me: Name,
    peer: Name,
    state: StateHandle,
}

impl Scribe {
    fn write(&self, to: &str, cause: &str, text: String) {
        let Ok(group) = Name::new("fence") else { return };
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        tracing::warn!(node = %self.peer, to, cause, text, "fencing");
        self.state.record_history(HistoryEntry {
            at_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
            node: self.me,
            group,
            from: self.peer.to_string(),
            to: to.to_owned(),
            cause: cause.to_owned(),
            term: Term::default(),
            after_ms: None,
            text,
        });
    }
}

/// The thread that may take its time.
struct Shell {
    config: Arc<Config>,
    arbiter: Arc<Mutex<Arbiter>>,
    scribe: Scribe,
    told: Option<Stand>,
}

impl Shell {
    fn run(mut self, todo: &Receiver<Errand>) {
        loop {
            match todo.recv_timeout(TELL_EVERY) {
                Ok(Errand::Look) => self.look(),
                Ok(Errand::Shoot) => self.shoot(),
                Ok(Errand::AskPower) => self.ask_power(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tell_people();
        }
    }

    fn tell(&self, fact: Fact) -> bool {
        lock(&self.arbiter).told(clock::now(), fact)
    }

    fn peer(&self) -> Name {
        self.config.peer_node().name
    }

    fn device(&self) -> Option<(&Fence, &crate::config::FenceDevice)> {
        let Tiebreak::Fence(fence) = &self.config.tiebreak else { return None };
        let [first, second] = &fence.devices;
        Some((fence, if self.config.me == Member::First { second } else { first }))
    }

    fn shoot(&self) {
        let Some((fence, device)) = self.device() else { return };
        let peer = self.peer();
        tracing::warn!(node = %peer, agent = %device.agent.display(), "the peer is lost: powering it off");
        let shot = fence::shoot(device, peer.as_str(), fence.timeout);
        match &shot {
            Ok(()) => self.scribe.write("off", "fenced", String::new()),
            Err(why) => self.scribe.write("unknown", "fencing_failed", why.clone()),
        }
        self.tell(Fact::Shot(shot));
    }

    fn ask_power(&self) {
        let Some((fence, device)) = self.device() else { return };
        self.tell(Fact::Power(fence::is_off(device, self.peer().as_str(), fence.timeout)));
    }

    /// Until the arbiter has seen enough.
    fn look(&self) {
        let mut eyes = match Eyes::open(&self.config) {
            Ok(eyes) => eyes,
            Err(why) => {
                // Told again with the next errand; until then nothing is taken over.
                while self.tell(Fact::Sight(Sight { trouble: Some(why.clone()), ..Sight::default() })) {
                    thread::sleep(LOOK_STEP);
                }
                return;
            }
        };
        loop {
            let sight = eyes.look();
            if !self.tell(Fact::Sight(sight)) {
                return;
            }
            thread::sleep(LOOK_STEP);
        }
    }

    /// Says what has changed, once.
    fn tell_people(&mut self) {
        let now = clock::now();
        let stand = lock(&self.arbiter).stand(now);
        let kind = |stand: &Stand| std::mem::discriminant(stand);
        if self.told.as_ref().map(kind) == Some(kind(&stand)) {
            return;
        }
        let (peer, words) = (self.peer(), in_words(&stand, self.peer(), now));
        match (needs(&stand, peer), &stand) {
            (Some(needs), Stand::Missed(..) | Stand::Operator(_)) => tracing::error!("{needs}"),
            (Some(needs), _) => tracing::warn!("{needs}"),
            (None, _) => tracing::info!("tiebreak: {words}"),
        }
        self.told = Some(stand);
    }
}

/// What looks around, for one errand.
struct Eyes {
    asker: Asker,
    echo: Echo,
    vips: Vec<(IpAddr, GroupName)>,
    /// The gateways, and at which step each last answered.
    gateways: BTreeMap<IpAddr, Option<u32>>,
    step: u32,
}

impl Eyes {
    fn open(config: &Config) -> Result<Self, String> {
        let addresses = match &config.tiebreak {
            Tiebreak::Gateway(gateway) => gateway.addresses.as_slice(),
            Tiebreak::Witness(_) | Tiebreak::Etcd(_) | Tiebreak::Fence(_) | Tiebreak::None => &[],
        };
        let vips = config.groups.iter().flat_map(|group| group.vips.iter().map(|vip| (vip, group.name)));
        let mut targets: Vec<(String, IpAddr)> =
            vips.clone().map(|(vip, _)| (vip.interface.clone(), vip.address.addr())).collect();
        // A gateway that does not answer an echo still has a neighbour's duties, where the addresses are.
        let mut interfaces: Vec<String> = targets.iter().map(|(interface, _)| interface.clone()).collect();
        interfaces.sort();
        interfaces.dedup();
        for interface in interfaces {
            targets.extend(addresses.iter().map(|address| (interface.clone(), *address)));
        }
        Ok(Self {
            asker: Asker::new(&targets)?,
            echo: Echo::new(addresses, u16::from_le_bytes(trust::random()))?,
            vips: vips.map(|(vip, group)| (vip.address.addr(), group)).collect(),
            gateways: addresses.iter().map(|address| (*address, None)).collect(),
            step: 0,
        })
    }

    /// What was heard since the last time; and asks again.
    fn look(&mut self) -> Sight {
        let mut sight = Sight::default();
        for (address, heard) in self.asker.heard() {
            match heard {
                Heard::Taken(mac) => {
                    self.note_gateway(address);
                    for (_, group) in self.vips.iter().filter(|(vip, _)| *vip == address) {
                        let [a, b, c, d, e, f] = mac;
                        let who = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
                        sight.answered.insert(*group, who);
                    }
                }
                Heard::Asked(_) => sight.rival |= self.vips.iter().any(|(vip, _)| *vip == address),
            }
        }
        for address in self.echo.heard() {
            self.note_gateway(address);
        }
        let lately = |step: &&Option<u32>| step.is_some_and(|step| self.step < step + ECHO_STEPS);
        sight.gateways = self.gateways.values().filter(lately).count();
        self.step += 1;
        sight.trouble = self.asker.ask().err();
        self.echo.ask();
        sight
    }

    fn note_gateway(&mut self, address: IpAddr) {
        if let Some(step) = self.gateways.get_mut(&address) {
            *step = Some(self.step);
        }
    }
}
