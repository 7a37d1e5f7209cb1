//! Starts the web threads, and is the handle on them.
//!
//! Sockets are bound before the first thread starts, so a fault in the configuration is an error of `start`. A thread
//! owns all that it serves with; what is shared are counters, the health of servers and the drain.

use super::{
    door::{Door, Hall, accept},
    fault::Fault,
    files::{Folder, Shelf},
    health::{UpstreamView, Upstreams},
    pool::Pool,
    probe,
    site::{Action, Site},
    tls::{Certificates, TlsView},
};
use crate::{
    cluster::{GroupName, Name},
    config::{self, RouteAction},
    http::{
        BindError, Connection, Counters, Drain, Patience, Scope, Totals, bind, check_free, raise_open_files, serve,
    },
    limits::{
        ACCEPT_PAUSE, FILE_READERS_MAX, PROBE_CONNECTIONS_MAX, TLS_HANDSHAKES_MAX, UPSTREAM_KEEP_IDLE,
        WEB_CONNECTIONS_MAX, WEB_THREADS_MAX,
    },
    trust::{TicketSecrets, site::Trouble},
};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    num::NonZero,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::watch,
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
};

/// What the tier is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is served.
    pub web: config::Web,
    /// The groups' addresses: a connection to one of them belongs to its group, also through a wildcard listener.
    pub vips: Vec<(IpAddr, GroupName)>,
    /// What session tickets are made from; of this process alone if there is nothing.
    pub tickets: Option<TicketSecrets>,
    /// How long clients are waited for.
    pub patience: Patience,
    /// Most connections at once; fewer if the process may not open that many files.
    pub connections_max: usize,
    /// A fault to inject, for rehearsals.
    pub fault: Option<Fault>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            web: config::Web::default(),
            vips: Vec::new(),
            tickets: None,
            patience: Patience::default(),
            connections_max: WEB_CONNECTIONS_MAX,
            fault: None,
        }
    }
}

impl Setup {
    /// From a whole configuration.
    #[must_use]
    pub fn of(config: &config::Config) -> Self {
        let addresses = |group: &config::Group| {
            let name = group.name;
            group.vips.iter().map(move |vip| (vip.address.addr(), name)).collect::<Vec<_>>()
        };
        let vips = config.groups.iter().flat_map(addresses).collect();
        Self { web: config.web.clone(), vips, ..Self::default() }
    }
}

/// Why the tier could not be started. Nothing of it is left behind.
#[derive(Debug)]
pub enum Error {
    /// An address could not be listened on.
    Bind(BindError),
    /// A route names an upstream that is not there.
    Upstream(Name),
    /// A certificate or another file of TLS cannot be used.
    Tls(Trouble),
    /// A folder to serve is not there.
    Folder(PathBuf, io::Error),
    /// A web thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Upstream(name) => write!(f, "a route names the upstream {name}, which is not there"),
            Self::Tls(trouble) => trouble.fmt(f),
            Self::Folder(path, error) => write!(f, "cannot serve the folder {}: {error}", path.display()),
            Self::Thread(error) => write!(f, "cannot start a web thread: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(error) => Some(error),
            Self::Folder(_, error) | Self::Thread(error) => Some(error),
            Self::Tls(trouble) => Some(trouble),
            Self::Upstream(_) => None,
        }
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

/// The web tier.
#[derive(Debug)]
pub struct Tier;

/// What is open to the rest of the daemon of a running tier. The tier ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Running>);

#[derive(Debug)]
struct Running {
    addresses: Vec<SocketAddr>,
    sockets: Vec<PathBuf>,
    seats: Vec<Arc<Seat>>,
    upstreams: Upstreams,
    listeners: Vec<probe::Listener>,
    certificates: Certificates,
    connections_max: usize,
    stop: watch::Sender<Option<Instant>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a thread shares with the handle.
#[derive(Debug)]
struct Seat {
    counters: Arc<Counters>,
    /// Connections to addresses of no group.
    ungrouped: Arc<Scope>,
    groups: BTreeMap<GroupName, Arc<Scope>>,
}

/// The tier, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Number of web threads.
    pub threads: usize,
    /// Connections that may be open at once.
    pub connections_max: usize,
    /// Where it listens.
    pub listeners: Vec<SocketAddr>,
    /// Connections in flight, by group.
    pub in_flight: BTreeMap<GroupName, usize>,
    /// What it has served.
    pub totals: Totals,
    /// The servers behind it.
    pub upstreams: Vec<UpstreamView>,
    /// The certificates that it shows.
    #[serde(default)]
    pub tls: Vec<TlsView>,
}

impl Tier {
    /// Binds all listeners and starts the web threads.
    ///
    /// # Errors
    /// If an address cannot be listened on, a route names no upstream, or a thread does not start. Nothing runs then.
    pub fn start(setup: Setup) -> Result<Handle, Error> {
        let threads = match setup.web.threads {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        };
        let threads = threads.clamp(1, WEB_THREADS_MAX);
        let connections_max = raise_open_files().min(setup.connections_max);
        let (addresses, mut sockets) = bind_all(&setup.web, threads)?;
        let secrets = setup.tickets.clone().unwrap_or_else(TicketSecrets::of_this_process);
        let certificates = Certificates::load(&setup.web, &addresses, secrets).map_err(Error::Tls)?;
        let asked = setup.web.listeners.iter().zip(&addresses);
        let listeners = asked.map(|(listener, address)| probe::Listener::new(*address, &listener.front)).collect();
        let groups = setup.vips.iter().map(|(_, group)| *group);
        let groups: Vec<GroupName> = groups.chain(setup.web.listeners.iter().filter_map(|l| l.group)).collect();
        let upstreams = Upstreams::new(&setup.web.upstreams);
        let setup = Arc::new(setup);
        let (stop, stopped) = watch::channel(None);
        let random = RandomState::new().hash_one(&addresses);
        let mut running = Running {
            addresses,
            sockets: Vec::new(),
            seats: Vec::new(),
            upstreams: upstreams.clone(),
            listeners,
            certificates: certificates.clone(),
            connections_max,
            stop,
            threads: Mutex::default(),
        };
        for (thread, listeners) in sockets.drain(..).enumerate() {
            let seat = Arc::new(Seat::new(&groups));
            let socket = PathBuf::from(format!("\0hawser-web-{}-{random:016x}-{thread}", std::process::id()));
            let plan = Plan {
                thread,
                threads,
                setup: Arc::clone(&setup),
                listeners,
                socket: socket.clone(),
                seat: Arc::clone(&seat),
                upstreams: upstreams.clone(),
                certificates: certificates.clone(),
                connections_max: (connections_max / threads).max(1),
                entering_max: (TLS_HANDSHAKES_MAX.min(connections_max / 2) / threads).max(1),
                stopped: stopped.clone(),
            };
            running.sockets.push(socket);
            running.seats.push(seat);
            let joined = plan.start()?;
            running.threads.lock().unwrap_or_else(PoisonError::into_inner).push(joined);
        }
        Ok(Handle(Arc::new(running)))
    }
}

/// Serves the files of one folder at one address: a web server in one call.
///
/// # Errors
/// If the folder cannot be opened or the address not be listened on.
pub fn serve_dir(folder: PathBuf, address: SocketAddr) -> Result<Handle, Error> {
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(error) => return Err(Error::Folder(folder, error)),
    };
    if let Err(error) = std::fs::read_dir(&folder) {
        return Err(Error::Folder(folder, error));
    }
    let action = RouteAction::Static(config::Static::new(folder));
    let route = config::Route { path: "/".to_owned(), action };
    let listener = config::Listener { address, group: None, routes: vec![route], front: config::Front::default() };
    Tier::start(Setup { web: config::Web { listeners: vec![listener], ..config::Web::default() }, ..Setup::default() })
}

impl Handle {
    /// Where it listens, in the order of the configuration; a port 0 has become a real one.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.addresses
    }

    /// For [`super::health::run`].
    #[must_use]
    pub fn upstreams(&self) -> Upstreams {
        self.0.upstreams.clone()
    }

    /// For [`probe::run`].
    #[must_use]
    pub fn probe_targets(&self) -> probe::Targets {
        probe::Targets { threads: self.0.sockets.clone(), listeners: self.0.listeners.clone() }
    }

    /// For [`super::tls::run`].
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        self.0.certificates.clone()
    }

    /// How far the connections of a group are asked to end, until the next call.
    pub fn drain(&self, group: GroupName, drain: Drain) {
        for scope in self.scopes(group) {
            scope.set_drain(drain);
        }
    }

    /// Connections of a group that are new, receive a request or have one in progress. Not those that the kernel has
    /// not handed out yet, nor bytes that it has not delivered yet.
    #[must_use]
    pub fn in_flight(&self, group: GroupName) -> usize {
        self.scopes(group).map(|scope| scope.in_flight()).sum()
    }

    /// Connections of a group that are in flight since before the last [`Handle::turn`].
    #[must_use]
    pub fn in_flight_since_turn(&self, group: GroupName) -> usize {
        self.scopes(group).map(|scope| scope.in_flight_since_turn()).sum()
    }

    /// From now on, what becomes in flight is told from what is. Only one thread may call it.
    pub fn turn(&self, group: GroupName) {
        self.scopes(group).for_each(|scope| scope.turn());
    }

    fn scopes(&self, group: GroupName) -> impl Iterator<Item = &Arc<Scope>> {
        self.0.seats.iter().filter_map(move |seat| seat.groups.get(&group))
    }

    /// What it has served, all threads together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for seat in &self.0.seats {
            totals += seat.counters.totals();
        }
        totals
    }

    /// The tier, for people.
    #[must_use]
    pub fn view(&self) -> View {
        let groups = self.0.seats.first().map(|seat| seat.groups.keys().copied()).into_iter().flatten();
        View {
            threads: self.0.seats.len(),
            connections_max: self.0.connections_max,
            listeners: self.0.addresses.clone(),
            in_flight: groups.map(|group| (group, self.in_flight(group))).collect(),
            totals: self.totals(),
            upstreams: self.0.upstreams.view(),
            tls: self.0.certificates.view(),
        }
    }

    /// Ends the tier: listeners are closed, requests in progress may end within `limit`, the rest is cut off. False: a
    /// web thread hangs and was left behind.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(5);
        const EXTRA: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + limit;
        for seat in &self.0.seats {
            for scope in seat.groups.values().chain([&seat.ungrouped]) {
                scope.set_drain(Drain::Stop);
            }
        }
        self.0.stop.send_replace(Some(deadline));
        loop {
            let done =
                self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).iter().all(JoinHandle::is_finished);
            if done || Instant::now() > deadline + EXTRA {
                return done;
            }
            sleep(LOOK).await;
        }
    }
}

impl Seat {
    fn new(groups: &[GroupName]) -> Self {
        Self {
            counters: Arc::default(),
            ungrouped: Arc::default(),
            groups: groups.iter().map(|group| (*group, Arc::default())).collect(),
        }
    }
}

/// One socket per listener for each thread, and the real addresses.
fn bind_all(web: &config::Web, threads: usize) -> Result<(Vec<SocketAddr>, Vec<Vec<StdListener>>), Error> {
    // Before any is bound: listeners of ours may overlap, as a wildcard and a VIP do.
    for listener in &web.listeners {
        check_free(listener.address)?;
    }
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<StdListener>> = (0..threads).map(|_| Vec::new()).collect();
    for listener in &web.listeners {
        let mut address = listener.address;
        for thread in &mut sockets {
            let socket = bind(address)?;
            // A port that the kernel chose holds for the other threads, too.
            address = socket.local_addr().unwrap_or(address);
            thread.push(socket);
        }
        addresses.push(address);
    }
    Ok((addresses, sockets))
}

/// What a thread is started with.
struct Plan {
    thread: usize,
    threads: usize,
    setup: Arc<Setup>,
    listeners: Vec<StdListener>,
    socket: PathBuf,
    seat: Arc<Seat>,
    upstreams: Upstreams,
    certificates: Certificates,
    connections_max: usize,
    entering_max: usize,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Plan {
    /// Returns when the thread is ready, or has failed.
    fn start(self) -> Result<JoinHandle<()>, Error> {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let name = format!("web-{}", self.thread);
        let joined = thread::Builder::new().name(name).spawn(move || match self.prepare() {
            Ok((runtime, worker)) => {
                let told = ready.send(Ok(()));
                if told.is_ok() {
                    runtime.block_on(worker.run());
                }
                runtime.shutdown_background();
            }
            Err(error) => drop(ready.send(Err(error))),
        });
        let joined = joined.map_err(Error::Thread)?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(joined),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Thread(io::Error::other("it ended at once"))),
        }
    }

    fn prepare(self) -> Result<(LocalRuntime, Worker), Error> {
        let mut builder = Builder::new_current_thread();
        builder.enable_io().enable_time().max_blocking_threads(FILE_READERS_MAX);
        builder.thread_name(format!("web-{}-read", self.thread));
        let runtime = builder.build_local(LocalOptions::default()).map_err(Error::Thread)?;
        let entered = runtime.enter();
        let pools: BTreeMap<Name, Rc<Pool>> = (self.setup.web.upstreams.iter().enumerate())
            .map(|(index, upstream)| (upstream.name, Pool::new(self.upstreams.clone(), index, self.thread)))
            .collect();
        let shelf = Shelf::new(self.setup.web.file_cache_bytes / self.threads as u64);
        let mut served = Vec::new();
        let mut numbers = 0..;
        for (configured, socket) in self.setup.web.listeners.iter().zip(self.listeners) {
            let routes = configured.routes.iter().zip(&mut numbers);
            let routes =
                routes.map(|(route, number)| action(route, number, &pools, &shelf)).collect::<Result<_, _>>()?;
            let socket = TcpListener::from_std(socket).map_err(Error::Thread)?;
            let front = &configured.front;
            let hsts = front.hsts.as_ref().and_then(|hsts| HeaderValue::from_str(hsts).ok());
            let door = Door {
                address: socket.local_addr().unwrap_or(configured.address),
                group: configured.group,
                site: Site::new(routes, hsts),
                tls: front.tls.as_ref().and_then(|tls| self.certificates.of(tls)),
                proxy_from: front.proxy_from.clone(),
            };
            served.push((socket, Rc::new(door)));
        }
        let probed = UnixListener::bind(&self.socket).map_err(Error::Thread)?;
        drop(entered);
        let hall = Rc::new(Hall {
            counters: Arc::clone(&self.seat.counters),
            ungrouped: Arc::clone(&self.seat.ungrouped),
            groups: self.seat.groups.clone(),
            vips: self.setup.vips.iter().copied().collect(),
            connections_max: self.connections_max,
            patience: self.setup.patience,
            entering: Cell::new(0),
            entering_max: self.entering_max,
        });
        let fault = self.setup.fault.clone();
        Ok((runtime, Worker { hall, served, probed, pools, fault, stopped: self.stopped }))
    }
}

/// `number` tells the routes of a thread from each other.
fn action(
    route: &config::Route,
    number: usize,
    pools: &BTreeMap<Name, Rc<Pool>>,
    shelf: &Rc<Shelf>,
) -> Result<(String, Action), Error> {
    let action = match &route.action {
        RouteAction::Static(files) => {
            Action::Folder(Folder::new(files.clone(), route.path.clone(), number, Rc::clone(shelf)))
        }
        RouteAction::Proxy { upstream } => {
            Action::Proxy(pools.get(upstream).cloned().ok_or(Error::Upstream(*upstream))?)
        }
        RouteAction::ToHttps { port } => Action::ToHttps(*port),
    };
    Ok((route.path.clone(), action))
}

/// A thread at work.
struct Worker {
    hall: Rc<Hall>,
    served: Vec<(TcpListener, Rc<Door>)>,
    probed: UnixListener,
    pools: BTreeMap<Name, Rc<Pool>>,
    fault: Option<Fault>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Worker {
    /// Until the tier is to end, and then until the last connection has ended, or the deadline.
    async fn run(mut self) {
        for (listener, door) in self.served {
            spawn_local(accept(listener, door, Rc::clone(&self.hall), self.stopped.clone()));
        }
        spawn_local(accept_probes(self.probed));
        if !self.pools.is_empty() {
            spawn_local(tidy(self.pools));
        }
        if let Some(fault) = self.fault {
            spawn_local(fault.suffer());
        }
        // An error: the handle is gone, nobody waits.
        let Ok(deadline) = self.stopped.wait_for(Option::is_some).await.map(|deadline| *deadline) else { return };
        let counters = &self.hall.counters;
        let all_closed = async {
            // The accept loops have one turn to take in what the kernel had ready.
            tokio::task::yield_now().await;
            while counters.totals().active > 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = all_closed => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)) => {}
        }
    }
}

/// Serves the probes of this process, by the same means as everything else, but counted apart.
async fn accept_probes(listener: UnixListener) {
    let (site, scope, counters) = (Site::new(Vec::new(), None), Arc::<Scope>::default(), Arc::<Counters>::default());
    let me = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let mine = stream.peer_cred().is_ok_and(|peer| peer.uid() == me);
                if mine && counters.totals().active < PROBE_CONNECTIONS_MAX as u64 {
                    let connection =
                        Connection::new(None, Arc::clone(&scope), Arc::clone(&counters), Patience::default());
                    spawn_local(serve(stream, connection, Rc::clone(&site)));
                }
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn tidy(pools: BTreeMap<Name, Rc<Pool>>) {
    loop {
        sleep(UPSTREAM_KEEP_IDLE / 4).await;
        for pool in pools.values() {
            pool.tidy();
        }
    }
}
