//! Two replicas over TCP and mutual TLS on loopback, each with its own store on disk.

use super::{
    alone,
    syscalls::{Call, Verdict, watched},
};
use hawser::{
    clock,
    cluster::{Member, Name, Term},
    replicate::{
        Dial, Health, HistoryEntry, Link, Op, Role, Standby, State, StateConfig, StateHandle, Tls, View, ViewRole,
        WriteError, listen,
    },
    store,
    time::Instant,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// What a node named `me` uses to talk to `peer`.
    fn tls(&self, me: &str, peer: &str) -> Tls {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![me.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let (provider, roots) = (Arc::new(default_provider()), Arc::new(roots));
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key())
            .unwrap();
        Tls { client: Arc::new(client), server: Arc::new(server), peer: name(peer) }
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    folders: [PathBuf; 2],
    ca: Ca,
    address: SocketAddr,
}

/// A replica that runs, and the lock on its folder.
struct Running {
    state: StateHandle,
    _folder: store::Folder,
}

impl Running {
    async fn stop(self) {
        self.state.stop().await;
    }
}

fn start(member: Member, folder: &Path, link: Option<(Link, Tls)>) -> Running {
    let stores = store::open(folder).unwrap();
    let name = name(if member == Member::First { "n1" } else { "n2" });
    let config = StateConfig { me: member, name, highest: Term(0) };
    let state = State::start(config, Box::new(stores.keyspace), link).unwrap();
    Running { state, _folder: stores.folder }
}

impl Cluster {
    fn new() -> (Self, TcpListener) {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().join("n1"), dir.path().join("n2")];
        let listener = listen(SocketAddr::new(LOCAL, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (Self { dir, folders, ca: Ca::new(), address }, listener)
    }

    fn dial(&self) -> Link {
        Link::Dial(vec![Dial { from: LOCAL, to: self.address }])
    }

    fn first(&self) -> Running {
        start(Member::First, &self.folders[0], Some((self.dial(), self.ca.tls("n1", "n2"))))
    }

    fn second(&self, listener: TcpListener) -> Running {
        let link = Link::Accept { listeners: vec![listener], known: vec![LOCAL] };
        start(Member::Second, &self.folders[1], Some((link, self.ca.tls("n2", "n1"))))
    }
}

/// Until the view is as it should be; a test that waits in vain is ended by this.
async fn until(state: &StateHandle, what: &str, good: impl Fn(&View) -> bool) {
    let mut views = state.watch_view();
    let waited = tokio::time::timeout(Duration::from_secs(20), views.wait_for(|view| good(view))).await;
    assert!(waited.is_ok(), "{what}: {:?}", state.view());
}

fn owner(term: u64) -> Role {
    Role::Owner { term: Term(term), until: Instant::NEVER }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn transition(text: &str) -> HistoryEntry {
    HistoryEntry {
        at_unix_ms: 1_000,
        node: name("n2"),
        group: name("web"),
        from: "standby".to_owned(),
        to: "active".to_owned(),
        cause: "peer_lease_expired".to_owned(),
        term: Term(4),
        after_ms: Some(612),
        text: text.to_owned(),
    }
}

#[test]
fn a_write_of_either_node_is_on_both_and_survives_their_restart() {
    run(async {
        let (cluster, listener) = Cluster::new();
        let (first, second) = (cluster.first(), cluster.second(listener.try_clone().unwrap()));
        first.state.set_role(owner(1));
        until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
        let begun = clock::now();
        assert!(first.state.set_standby(&name("n1"), Standby::On).await.unwrap().replicated);
        assert!(second.state.set_standby(&name("n2"), Standby::On).await.unwrap().replicated);
        println!("two replicated writes took {:?}", clock::now().since(begun));
        second.state.record_history(transition("one"));
        until(&first.state, "recorded", |view| view.version.counter == 3 && view.unreplicated == 0).await;
        until(&second.state, "taken", |view| view.unrecorded == 0).await;
        for state in [&first.state, &second.state] {
            assert!(state.is_standby(&name("n1")) && state.is_standby(&name("n2")));
            assert_eq!(state.history(), [transition("one")]);
            assert_eq!(state.scan("standby/").len(), 2);
        }
        first.stop().await;
        second.stop().await;
        for (member, folder) in [(Member::First, &cluster.folders[0]), (Member::Second, &cluster.folders[1])] {
            let again = start(member, folder, None);
            assert!(again.state.is_standby(&name("n2")));
            assert_eq!((again.state.view().health, again.state.history().len()), (Health::Ok, 1));
            again.stop().await;
        }
    });
}

#[test]
fn a_lone_owner_goes_on_and_its_peer_catches_up() {
    run(async {
        let (cluster, listener) = Cluster::new();
        let (first, second) = (cluster.first(), cluster.second(listener.try_clone().unwrap()));
        first.state.set_role(owner(1));
        until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
        second.stop().await;
        until(&first.state, "alone", |view| !view.connected).await;
        assert!(!first.state.write(vec![Op::put("k", "alone")]).await.unwrap().replicated);
        assert_eq!(first.state.view().unreplicated, 1);
        let second = cluster.second(listener);
        until(&first.state, "replicated", |view| view.unreplicated == 0 && view.connected).await;
        assert_eq!(second.state.get("k").as_deref(), Some(&b"alone"[..]));
        // The other node takes over, and the first one follows.
        first.state.set_role(Role::Follower);
        second.state.set_role(owner(2));
        until(&first.state, "in step", |view| view.role == ViewRole::InStep).await;
        assert!(first.state.write(vec![Op::put("k", "forwarded")]).await.unwrap().replicated);
        assert_eq!(second.state.get("k").as_deref(), Some(&b"forwarded"[..]));
        assert_eq!((first.state.highest_term(), second.state.highest_term()), (Term(2), Term(2)));
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn nobody_but_the_peer_gets_in() {
    run(async {
        let (cluster, listener) = Cluster::new();
        let second = cluster.second(listener);
        let dir = tempfile::tempdir().unwrap();
        // Another member of the same cluster, and a node of another cluster with the right name.
        let witness = (cluster.dial(), cluster.ca.tls("w1", "n2"));
        let stranger = (cluster.dial(), Ca::new().tls("n1", "n2"));
        let witness = start(Member::First, &dir.path().join("w"), Some(witness));
        let stranger = start(Member::First, &dir.path().join("s"), Some(stranger));
        // And some that say nothing, more than there are places for strangers... from the peer's own address.
        let silent: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(cluster.address).unwrap()).collect();
        let first = cluster.first();
        until(&second.state, "connected", |view| view.connected).await;
        until(&first.state, "connected", |view| view.connected).await;
        assert!(!witness.state.view().connected && !stranger.state.view().connected);
        drop(silent);
        for node in [witness, stranger, first, second] {
            node.stop().await;
        }
    });
}

#[test]
fn a_server_with_another_members_certificate_is_not_taken_for_the_peer() {
    run(async {
        let (cluster, listener) = Cluster::new();
        let link = Link::Accept { listeners: vec![listener], known: vec![LOCAL] };
        let impostor = start(Member::Second, &cluster.folders[1], Some((link, cluster.ca.tls("w1", "n1"))));
        let first = cluster.first();
        let mut views = first.state.watch_view();
        let connected = views.wait_for(|view| view.connected);
        assert!(tokio::time::timeout(Duration::from_secs(1), connected).await.is_err());
        first.stop().await;
        impostor.stop().await;
    });
}

#[test]
fn a_rolled_back_node_takes_its_peers_copy() {
    run(async {
        let (cluster, listener) = Cluster::new();
        let (first, second) = (cluster.first(), cluster.second(listener));
        first.state.set_role(owner(1));
        until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
        assert!(first.state.write(vec![Op::put("k", "kept")]).await.unwrap().replicated);
        first.stop().await;
        std::fs::remove_dir_all(cluster.folders[0].join("state")).unwrap();
        let first = cluster.first();
        assert_eq!(first.state.view().health, Health::Rebuilding);
        first.state.set_role(owner(3));
        until(&first.state, "repaired", |view| view.health == Health::Ok && view.role == ViewRole::Owner).await;
        assert_eq!(first.state.get("k").as_deref(), Some(&b"kept"[..]));
        first.stop().await;
        second.stop().await;
    });
}

/// Two nodes with a replicated value, both ended; then the first one's folder is spoilt.
async fn spoilt(spoil: impl FnOnce(&Path)) -> (Cluster, TcpListener) {
    let (cluster, listener) = Cluster::new();
    let (first, second) = (cluster.first(), cluster.second(listener.try_clone().unwrap()));
    first.state.set_role(owner(1));
    until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
    assert!(first.state.write(vec![Op::put("k", "kept")]).await.unwrap().replicated);
    first.stop().await;
    second.stop().await;
    spoil(&cluster.folders[0]);
    (cluster, listener)
}

/// The first node is not believed until it has its peer's copy; then it is whole, also as owner and after a restart.
async fn taken_from_the_peer(cluster: &Cluster, listener: TcpListener, health: Health) {
    let first = start(Member::First, &cluster.folders[0], None);
    assert_eq!(first.state.view().health, health);
    first.state.set_role(owner(3));
    assert!(first.state.write(vec![Op::put("k", "alone")]).await.is_err(), "it claims nothing alone");
    first.stop().await;
    let (first, second) = (cluster.first(), cluster.second(listener));
    first.state.set_role(owner(3));
    until(&first.state, "repaired", |view| view.health == Health::Ok && view.role == ViewRole::Owner).await;
    assert_eq!(first.state.get("k").as_deref(), Some(&b"kept"[..]));
    until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
    assert!(first.state.write(vec![Op::put("k", "new")]).await.unwrap().replicated);
    first.stop().await;
    second.stop().await;
    let again = start(Member::First, &cluster.folders[0], None);
    assert_eq!((again.state.view().health, again.state.get("k")), (Health::Ok, Some(b"new".to_vec())));
    again.stop().await;
}

#[test]
fn a_node_whose_state_has_gone_bad_takes_its_peers_copy() {
    run(async {
        let (cluster, listener) = spoilt(|folder| {
            let at = folder.join("state/conf");
            let mut content = std::fs::read(&at).unwrap();
            content[0] ^= 0x40;
            std::fs::write(at, content).unwrap();
        })
        .await;
        taken_from_the_peer(&cluster, listener, Health::Rebuilding).await;
    });
}

#[test]
fn a_node_whose_promise_file_is_in_doubt_takes_its_peers_copy() {
    use std::os::unix::fs::FileExt;
    run(async {
        let (cluster, listener) = spoilt(|folder| {
            let file = std::fs::OpenOptions::new().write(true).open(folder.join("promise")).unwrap();
            for page in [0, 2] {
                file.write_all_at(&[0xff; 64], page * 4096).unwrap();
            }
        })
        .await;
        taken_from_the_peer(&cluster, listener, Health::RolledBack).await;
    });
}

#[test]
fn a_node_whose_disk_fails_says_so_and_its_peer_goes_on() {
    if !alone("pair::a_node_whose_disk_fails_says_so_and_its_peer_goes_on") {
        return;
    }
    let (cluster, listener) = Cluster::new();
    let bad = cluster.dir.path().join("n1/state/db");
    let failing = AtomicBool::new(false);
    let judge = |call: &Call| {
        if failing.load(Ordering::SeqCst) && call.syncs(&bad) { Verdict::Fail } else { Verdict::Go }
    };
    let test = async {
        let (first, second) = (cluster.first(), cluster.second(listener.try_clone().unwrap()));
        first.state.set_role(owner(1));
        until(&second.state, "in step", |view| view.role == ViewRole::InStep).await;
        assert!(first.state.write(vec![Op::put("k", "one")]).await.unwrap().replicated);
        failing.store(true, Ordering::SeqCst);
        let refused = first.state.write(vec![Op::put("k", "two")]).await;
        assert!(refused.is_err(), "{refused:?}");
        until(&first.state, "failed", |view| matches!(view.health, Health::Failed(_))).await;
        failing.store(false, Ordering::SeqCst);
        let refused = first.state.write(vec![Op::put("k", "three")]).await;
        assert!(matches!(refused, Err(WriteError::Failed(_))), "it stays failed: {refused:?}");
        // The peer goes on alone, from what was confirmed to both.
        second.state.set_role(owner(2));
        until(&second.state, "owner", |view| view.role == ViewRole::Owner).await;
        assert_eq!(second.state.get("k").as_deref(), Some(&b"one"[..]));
        assert!(!second.state.write(vec![Op::put("k", "four")]).await.unwrap().replicated);
        first.stop().await;
        let first = cluster.first();
        let version = second.state.view().version;
        until(&first.state, "caught up", |view| view.version == version && view.health == Health::Ok).await;
        assert_eq!(first.state.get("k").as_deref(), Some(&b"four"[..]));
        first.stop().await;
        second.stop().await;
    };
    watched(&[libc::SYS_fdatasync], judge, || run(test));
}

#[test]
fn a_write_without_an_owner_is_refused_and_changes_nothing() {
    run(async {
        let (cluster, _listener) = Cluster::new();
        let alone = start(Member::First, &cluster.folders[0], None);
        assert_eq!(alone.state.write(vec![Op::put("k", "v")]).await, Err(WriteError::NoOwner));
        assert_eq!(alone.state.get("k"), None);
        alone.stop().await;
    });
}
