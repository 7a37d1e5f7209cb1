//! The worker of a node: everything but the supervisor.

use super::{
    Failure, abort_on_panic,
    claims::Claims,
    desk::NodeDesk,
    fitness::{self, Why},
    memory,
    notes::{self, Names},
    signals::{Asked, Signals},
    tell_systemd,
    third::Third,
    tiebreak, voters,
};
use crate::{
    admin, clock,
    cluster::{
        AddressMark, Command, Engine, GroupName, GroupSetup, Identity as Life, Input, Intent, Layers, Member, Memory,
        Name, Report, STATE_GROUP, Setup, Timing,
    },
    config::{Config, GateMode, values},
    driver::{self, DriverHandle, Farewell, Hands, Links, Note},
    limits::{DRAIN_DEFAULT, DRAIN_YOUNG, NOTES_QUEUE_MAX},
    replicate::{self, Dial, Health, Link, Role, State, StateConfig, StateHandle, Tls},
    store::{
        self,
        folder::Folder,
        keyspace::{Condition, Keyspace},
        voter::{ElectionWriter, Promises},
    },
    telemetry,
    time::Duration,
    trust::{self, Identity, Notice},
    vip::{
        Keeper, KeeperHandle, KeeperSetup, SupervisorLink, priority,
        supervision::{Hello, Word},
    },
    web,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};

/// Requests still in progress when everything else is down get this long.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// Runs a node until it is told to stop. The supervisor is the parent.
#[must_use]
pub fn worker(config: Config) -> ExitCode {
    telemetry::start();
    abort_on_panic();
    let supervisor = match SupervisorLink::from_environment() {
        Ok(link) => link,
        Err(error) => return Failure::passing(format!("cannot use the link to the supervisor: {error}")).tell(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::passing(error).tell(),
    };
    match runtime.block_on(run(Arc::new(config), supervisor)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// What a node has before anything runs: all that can be wrong is found here.
struct Ground {
    identity: Identity,
    _folder: Folder,
    promises: Promises,
    keyspace: Keyspace,
    links: driver::Bound,
    link: Link,
    admin: std::os::unix::net::UnixListener,
    fault: Option<web::fault::Fault>,
    life: Life,
    secret: crate::cluster::Secret,
}

async fn run(config: Arc<Config>, supervisor: Option<SupervisorLink>) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::passing)?;
    let ground = prepare(&config, supervisor.is_some())?;
    let started = clock::now();
    let memory = ground.promises.election().map(memory::memory);
    voters::check(&config, memory.as_ref())?;
    let (driver, queue) = driver::queue();
    let (notes, noted) = mpsc::channel(NOTES_QUEUE_MAX);
    let why = Why::default();
    let web = start_web(&config, &ground.identity, ground.fault)?;
    if let Some(link) = &supervisor {
        let hello = Word::Hello(hello(&config, memory.as_ref(), &ground.identity, ground.secret));
        link.say(&hello).map_err(|e| Failure::passing(format!("cannot talk to the supervisor: {e}")))?;
    }
    let claims = Claims::default();
    let hearers =
        Hearers { driver: driver.clone(), why: why.clone(), claims: claims.clone(), notes: notes.downgrade() };
    let (keeper, layers) = start_keeper(&config, supervisor, &web, hearers)?;
    let names = Names::of_config(&config);
    let state = start_state(&config, &ground.identity, ground.keyspace, ground.link, memory.as_ref())?;
    let parts = Parts { keeper: &keeper, web: &web, driver: &driver, state: &state, why: &why };
    let me = (ground.identity.keyring().id(), ground.life);
    let speakers = Speakers::start(&config, memory.as_ref(), me, &names, (&driver, &state))?;
    let Speakers { thirds, tiebreaks, local } = speakers;
    let hands = hands(&config, &parts, ground.promises, notes, local)?;
    let hands = thirds.iter().fold(hands, |hands, third| third.tie(hands));
    let setup = setup(&config, ground.life, memory, layers);
    let engine_config = Arc::clone(&config);
    let (ring, life, bound) = (ground.identity.keyring().clone(), ground.life.incarnation, ground.links);
    let cluster = driver::spawn(
        config.cluster.interval,
        move || {
            let raised = priority::raise();
            tracing::debug!(raised, "cluster thread starts");
            let now = clock::now();
            Ok((Engine::new(now, setup), Links::new(bound, &engine_config, &ring, life, now)?))
        },
        hands,
        queue,
    )
    .map_err(Failure::passing)?;
    let desk = NodeDesk {
        config: Arc::clone(&config),
        names: names.clone(),
        driver: driver.clone(),
        state: state.clone(),
        web: web.clone(),
        tiebreak: tiebreaks,
        layers,
        why: why.clone(),
        claims,
        started,
    };
    let noting = tokio::spawn(notes::run(noted, names.clone(), state.clone()));
    believe_alone(&config, &state).await;
    watch_health(&config, &web, why, &state, &driver);
    let admin = tokio::spawn(admin::server::serve(ground.admin, Arc::new(desk)));
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    tracing::info!(node = %config.my_node().name, cluster = %config.cluster.name, "node started");

    let stopped = serve(&mut signals, &driver, &web, noting, admin).await;
    drop(cluster);
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    stopped.map_err(|task| Failure::passing(format!("{task} ended unasked")))?;
    futures_util::future::join_all(thirds.iter().map(Third::goodbye)).await;
    end(&config, &state, &web).await;
    keeper.shutdown();
    Ok(())
}

/// What is left when nothing is held any more.
async fn end(config: &Config, state: &StateHandle, web: &web::Handle) {
    state.stop().await;
    web.shutdown(LAST_REQUESTS).await;
    // It may be gone already.
    let _removed = std::fs::remove_file(&config.paths.admin_socket).is_ok();
    tracing::info!("node stopped");
}

/// Where there is no peer nobody else has a copy: what is empty here is empty.
async fn believe_alone(config: &Config, state: &StateHandle) {
    if config.has_no_peer() && state.view().health == Health::Rebuilding {
        state.accept().await;
    }
}

/// Until everything is let go of. An error names the task that ended unasked.
async fn serve(
    signals: &mut Signals,
    driver: &DriverHandle,
    web: &web::Handle,
    mut noting: tokio::task::JoinHandle<()>,
    mut admin: tokio::task::JoinHandle<std::io::Result<()>>,
) -> Result<(), &'static str> {
    let mut stopping = false;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop if stopping => std::process::exit(1),
                Asked::Stop => {
                    stopping = true;
                    tracing::info!("asked to stop: handing over");
                    if let Err(why) = driver.command(Command::Stop).await {
                        tracing::warn!(%why, "the engine was not asked");
                    }
                }
                Asked::Reload => {
                    web.certificates().look_now();
                    tracing::warn!("certificates are read again; the configuration at the start only: restart to apply it");
                }
                Asked::Reopen => {}
            },
            _ = &mut noting => return if stopping { Ok(()) } else { Err("the cluster thread") },
            _ = &mut admin => return Err("the admin server"),
        }
    }
}

fn state_group() -> GroupName {
    #[expect(clippy::expect_used, reason = "a constant that a test covers")]
    Name::new(STATE_GROUP).expect("`state` is a name")
}

fn prepare(config: &Config, supervised: bool) -> Result<Ground, Failure> {
    let identity = Identity::load(&config.paths.config_dir).map_err(Failure::lasting)?;
    let fault = web::fault::Fault::from_environment().map_err(Failure::lasting)?;
    let folder = Folder::open(&config.paths.state_dir).map_err(Failure::lasting)?;
    let promises = Promises::open(folder.path()).map_err(Failure::lasting)?;
    let (keyspace, condition) = Keyspace::open(&folder, promises.clone()).map_err(Failure::passing)?;
    tell_condition(&condition);
    let links = driver::bind(config).map_err(Failure::passing)?;
    let link = replication_link(config)?;
    let socket = &config.paths.admin_socket;
    let admin = admin::server::bind(socket)
        .map_err(|e| Failure::passing(format!("cannot use the admin socket {}: {e}", socket.display())))?;
    let secret = trust::new_secret();
    let hash = supervised.then(|| trust::hash_secret(&secret));
    let life = Life { member: config.me, incarnation: trust::new_incarnation(), hash };
    Ok(Ground { identity, _folder: folder, promises, keyspace, links, link, admin, fault, life, secret })
}

fn tell_condition(condition: &Condition) {
    match condition {
        Condition::Sound => {}
        Condition::RolledBack { found, confirmed } => {
            tracing::error!(found, ?confirmed, "the state on this disk is older than what was confirmed");
        }
        Condition::Rebuilt { moved_to, cause } => {
            let moved_to = moved_to.as_ref().map(|p| p.display().to_string());
            tracing::error!(cause, moved_to, "the state on this disk could not be opened; it starts empty");
        }
    }
}

/// The first node dials, the second accepts.
fn replication_link(config: &Config) -> Result<Link, Failure> {
    let (ours, theirs) = (&config.my_node().links, &config.peer_node().links);
    if config.me == Member::First {
        let paths = ours.iter().zip(theirs).map(|(from, to)| Dial { from: from.ip(), to: *to });
        return Ok(Link::Dial(paths.collect()));
    }
    let listen = |address: &SocketAddr| {
        replicate::listen(*address)
            .map_err(|e| Failure::passing(format!("cannot use the link address {address}/tcp: {e}")))
    };
    let listeners = ours.iter().map(listen).collect::<Result<_, _>>()?;
    Ok(Link::Accept { listeners, known: theirs.iter().map(SocketAddr::ip).collect() })
}

fn start_web(config: &Config, identity: &Identity, fault: Option<web::fault::Fault>) -> Result<web::Handle, Failure> {
    let tickets = Some(trust::TicketSecrets::of_cluster(identity.keyring()));
    let setup = web::Setup { fault, tickets, ..web::Setup::of(config) };
    web::Tier::start(setup).map_err(|error| match error {
        web::Error::Tls(_) => Failure::lasting(error),
        web::Error::Bind(_) | web::Error::Upstream(_) | web::Error::Folder(..) | web::Error::Thread(_) => {
            Failure::passing(error)
        }
    })
}

/// What the supervisor must know to take over when this worker dies.
fn hello(config: &Config, memory: Option<&Memory>, identity: &Identity, secret: crate::cluster::Secret) -> Hello {
    let notice = Notice { cluster: identity.keyring().id(), secret };
    let any = |to: &SocketAddr| {
        let ip: std::net::IpAddr =
            if to.is_ipv6() { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
        SocketAddr::new(ip, 0)
    };
    let to_peer = config.my_node().links.iter().zip(&config.peer_node().links);
    let to_peer = to_peer.map(|(from, to)| (SocketAddr::new(from.ip(), 0), *to));
    let mut witnesses = config.tiebreak.addresses().to_vec();
    witnesses.extend(memory.map(voters::witness_of).unwrap_or_default());
    witnesses.sort();
    witnesses.dedup();
    let to_witness = witnesses.iter().map(|to| (any(to), *to));
    Hello {
        secret,
        vips: config.groups.iter().flat_map(|g| g.vips.iter().cloned()).collect(),
        notice: to_peer.chain(to_witness).collect(),
        notice_datagram: notice.encode().to_vec(),
    }
}

/// Starts what looks at servers, web tier and state, and tells the engine how this node is.
fn watch_health(config: &Config, web: &web::Handle, why: Why, state: &StateHandle, driver: &DriverHandle) {
    let (fit, fit_told) = watch::channel(None);
    tokio::spawn(web::health::run(web.upstreams()));
    tokio::spawn(web::tls::run(web.certificates()));
    tokio::spawn(web::probe::run(web.probe_targets(), fit));
    tokio::spawn(fitness::run(why, fit_told, state.watch_view(), driver.clone()));
    tokio::spawn(follow_standby(state.clone(), config.my_node().name, driver.clone()));
}

/// Who is told what the keeper of the addresses reports.
struct Hearers {
    driver: DriverHandle,
    why: Why,
    claims: Claims,
    /// Weak: the notes end when the cluster thread does.
    notes: mpsc::WeakSender<Note>,
}

impl Hearers {
    /// Called on the keeper's thread.
    fn hear(&self, report: Report) {
        match &report {
            Report::Unable(reason) => {
                match reason {
                    Some(reason) => tracing::warn!("node cannot serve: {reason}"),
                    None => tracing::info!("node can serve again"),
                }
                self.why.addresses(reason.clone());
            }
            Report::Claimed(claim) => {
                self.claims.note(clock::now(), *claim);
                let told = self.notes.upgrade().is_some_and(|notes| notes.try_send(Note::Claimed(*claim)).is_ok());
                if !told {
                    tracing::warn!("{claim}");
                }
            }
            // All of them are about what somebody else did, or the kernel refused.
            Report::Event(text) => tracing::warn!("{text}"),
            Report::SupervisorGone => {
                tracing::error!("the supervisor died: letting go of everything and ending");
            }
            Report::Held(..) | Report::Gone(_) => {}
        }
        self.driver.tell(Input::Report(report));
    }
}

fn start_keeper(
    config: &Config,
    supervisor: Option<SupervisorLink>,
    web: &web::Handle,
    hearers: Hearers,
) -> Result<(KeeperHandle, Layers), Failure> {
    let quiet = web.clone();
    let setup = KeeperSetup {
        groups: config.groups.clone(),
        lease: config.cluster.lease,
        gate: config.cluster.gate,
        supervisor,
        quiet: Arc::new(move |group| quiet.in_flight(*group) == 0),
        report: Box::new(move |report| hearers.hear(report)),
    };
    Keeper::spawn(setup).map_err(Failure::lasting)
}

fn start_state(
    config: &Config,
    identity: &Identity,
    keyspace: Keyspace,
    link: Link,
    memory: Option<&Memory>,
) -> Result<StateHandle, Failure> {
    let vote = memory.and_then(|m| m.groups.iter().find(|g| g.group == state_group()));
    let highest = vote.map(|vote| vote.highest).unwrap_or_default();
    let peer = config.peer_node().name;
    let tls = Tls {
        client: trust::tls::client_config(identity, peer).map_err(Failure::lasting)?,
        server: trust::tls::server_config(identity, peer).map_err(Failure::lasting)?,
        peer,
    };
    let me = StateConfig { me: config.me, name: config.my_node().name, highest };
    let link = (!config.has_no_peer()).then_some((link, tls));
    State::start(me, Box::new(keyspace), link).map_err(Failure::passing)
}

fn setup(config: &Config, me: Life, memory: Option<Memory>, layers: Layers) -> Setup {
    let timing = match config.cluster.gate {
        GateMode::On if layers.gate => Timing::new(config.cluster.lease, config.cluster.interval),
        GateMode::On | GateMode::Off => Timing::without_gate(config.cluster.lease, config.cluster.interval),
    };
    let group = |g: &values::Group| GroupSetup {
        name: g.name,
        prefer: g.prefer,
        addresses: g.vips.iter().map(|vip| AddressMark::of(vip.address.addr())).collect(),
    };
    let mut groups: Vec<GroupSetup> = config.groups.iter().map(group).collect();
    let prefer = groups.first().map_or(Member::First, |g| g.prefer);
    groups.push(GroupSetup { name: state_group(), prefer, addresses: Vec::new() });
    let drain = if config.cluster.drain.is_zero() { DRAIN_DEFAULT } else { config.cluster.drain };
    let seed = u64::from_le_bytes(trust::random());
    let wanted = voters::wanted(config);
    Setup { me, timing, groups, drain, config: digest(config), wanted, hash: trust::hash_secret, seed, memory }
}

/// Digest of what both nodes must have alike: who the members are, the timing, the groups and their addresses.
fn digest(config: &Config) -> u64 {
    let alike = format!("{:?} {:?} {:?} {:?}", config.cluster, config.nodes, config.tiebreak, config.groups);
    trust::digest(alike.as_bytes())
}

/// Who speaks on this machine for third voters.
struct Speakers {
    thirds: Vec<Third>,
    tiebreaks: tiebreak::Handles,
    local: Vec<tiebreak::Hands>,
}

impl Speakers {
    fn start(
        config: &Arc<Config>,
        memory: Option<&Memory>,
        (id, life): (trust::ClusterId, Life),
        names: &Names,
        (driver, state): (&DriverHandle, &StateHandle),
    ) -> Result<Self, Failure> {
        let (mut thirds, mut tiebreaks, mut local) = (Vec::new(), Vec::new(), Vec::new());
        for spoken in voters::spoken_for(config, memory) {
            thirds.push(Third::start(&spoken, id, life, driver)?);
            let (handle, voter) = tiebreak::start(&spoken, names, driver, state)?;
            tiebreaks.push((voters::third_of(&spoken.tiebreak), handle));
            local.extend(voter);
        }
        if config.alone.is_some() {
            tracing::warn!("{}", voters::ALONE);
        }
        Ok(Self { thirds, tiebreaks: tiebreak::Handles(tiebreaks), local })
    }
}

/// What the driver's hands reach.
struct Parts<'a> {
    keeper: &'a KeeperHandle,
    web: &'a web::Handle,
    driver: &'a DriverHandle,
    state: &'a StateHandle,
    why: &'a Why,
}

fn hands(
    config: &Config,
    parts: &Parts<'_>,
    promises: Promises,
    notes: mpsc::Sender<Note>,
    local: Vec<tiebreak::Hands>,
) -> Result<Hands, Failure> {
    let (thirds, overhear) = local.into_iter().map(|voter| (voter.third, voter.overhear)).unzip();
    let (done, why) = (parts.driver.clone(), parts.why.clone());
    let writer = ElectionWriter::spawn(promises, move |number, result: Result<(), store::Error>| match result {
        Ok(()) => done.tell(Input::Persisted(number)),
        Err(error) => {
            tracing::error!(%error, "store failed: this node owns nothing any more");
            why.promise_failed(&error.to_string());
            done.tell(Input::StoreFailed);
        }
    })
    .map_err(Failure::passing)?;
    let (keep, announce, drain, drained) =
        (parts.keeper.clone(), parts.keeper.clone(), parts.web.clone(), parts.web.clone());
    let bare: BTreeSet<GroupName> =
        config.groups.iter().filter(|g| g.vips.is_empty()).map(|g| g.name).chain([state_group()]).collect();
    let mut watchdog = Watchdog::new();
    let mut patience = Patience::default();
    let mut throne = Throne { state: parts.state.clone(), told: Role::Follower, every: config.cluster.lease / 2 };
    Ok(Hands {
        persist: Box::new(move |number, memory| {
            writer.write(number, memory::election(memory)).map_err(|e| e.to_string())
        }),
        keep: Box::new(move |group, intent| keep.set(group, intent)),
        role: Box::new(move |group, intent| {
            if group == state_group() {
                throne.set(intent);
            }
        }),
        announce: Box::new(move |group| announce.announce_again(group)),
        drain: Box::new(move |group, farewell| drain.drain(group, drain_of(farewell))),
        drained: Box::new(move |group| patience.is_drained(&drained, group)),
        note: Box::new(move |note| {
            if let Err(error) = notes.try_send(note) {
                tracing::error!(%error, "the control runtime does not keep up");
            }
        }),
        beat: Box::new(move |now| watchdog.beat(now)),
        thirds,
        overhear,
        bare,
    })
}

const fn drain_of(farewell: Farewell) -> web::Drain {
    match farewell {
        Farewell::Stay => web::Drain::Off,
        Farewell::Announce => web::Drain::Announce,
        Farewell::Close => web::Drain::Close,
    }
}

/// When a group is drained: no request in progress is older than [`DRAIN_YOUNG`]. Short ones come and go all the time;
/// the gate's squeeze is long enough for them.
#[derive(Debug, Default)]
struct Patience {
    turned_at: BTreeMap<GroupName, crate::time::Instant>,
}

impl Patience {
    fn is_drained(&mut self, web: &web::Handle, group: GroupName) -> bool {
        let now = clock::now();
        let turned_at = self.turned_at.get(&group).copied();
        // The first question of a drain begins to tell old from new.
        if turned_at.is_none_or(|at| now.since(at) > DRAIN_YOUNG * 4) {
            web.turn(group);
            self.turned_at.insert(group, now);
            return web.in_flight(group) == 0;
        }
        if turned_at.is_some_and(|at| now.since(at) < DRAIN_YOUNG) {
            return web.in_flight(group) == 0;
        }
        let drained = web.in_flight_since_turn(group) == 0;
        web.turn(group);
        self.turned_at.insert(group, now);
        drained
    }
}

/// Tells the replicated state whether this node may write, and until when; a longer right only now and then, since
/// each word wakes its task.
struct Throne {
    state: StateHandle,
    told: Role,
    every: Duration,
}

impl Throne {
    fn set(&mut self, intent: Intent) {
        let role = match intent {
            Intent::Released => Role::Follower,
            Intent::Held { term, until } | Intent::Leaving { term, until } => Role::Owner { term, until },
        };
        if let (Role::Owner { term: old, until: told }, Role::Owner { term, until }) = (self.told, role)
            && old == term
            && until < told + self.every
        {
            return;
        }
        self.told = role;
        self.state.set_role(role);
    }
}

/// Feeds the service manager's watchdog from the cluster thread, so that a hung one is noticed.
struct Watchdog {
    every: Option<Duration>,
    next: crate::time::Instant,
}

impl Watchdog {
    fn new() -> Self {
        let every = sd_notify::watchdog_enabled().map(|patience| patience / 3);
        Self { every, next: crate::time::Instant::ZERO }
    }

    fn beat(&mut self, now: crate::time::Instant) {
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            self.next = now + every;
            tell_systemd(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// Tells the engine when an operator puts this node in standby, or brings it back.
async fn follow_standby(state: StateHandle, me: Name, driver: DriverHandle) {
    let mut changes = state.watch();
    let mut told = false;
    loop {
        changes.borrow_and_update();
        let on = state.is_standby(&me);
        if on != told {
            driver.tell_async(Input::Standby(on)).await;
            told = on;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
