//! TLS of the listeners: what each demands and shows, read from files at the start and again when they change.
//!
//! ```text
//!  control runtime                                web threads
//!    watch ── files changed? ──> load, check ──> swap ──> the next handshake takes what is there
//! ```
//! A connection keeps what it began with, so a change ends none. What cannot be used changes nothing: the old stays, log
//! and status say why. Both nodes do the same with the same files, owner or not.
//!
//! Sessions are taken up again by tickets that either node opens (`trust::tickets`), within one *domain*: the digest of
//! the demands on client certificates and of the CA that signs them. What is demanded cannot be got round by a session
//! that began where less was demanded.
//!
//! Hears: changed files, and whoever asks to look at once. Tells: [`TlsView`], the one place for status and metrics.
//!
//! Not here: the checks of files (`trust::site`), the handshake itself (`web::door`).

mod choice;
mod view;
mod watch;

pub use view::{CertificateView, TlsView, advice};
pub use watch::run;

use crate::{
    clock,
    config::{self, ClientNeed, TlsVersion},
    http::Secure,
    trust::{
        self, TicketSecrets, Tickets,
        site::{self, Facts, SiteCertificate, Standing, Trouble},
        tls::provider,
    },
};
use arc_swap::ArcSwap;
use choice::Choice;
use http::HeaderValue;
use rustls::{
    HandshakeKind, ServerConfig, ServerConnection,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::sync::Notify;
use watch::Stamps;

/// All that the listeners of a tier demand and show.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<All>);

#[derive(Debug)]
struct All {
    terms: Vec<Arc<Terms>>,
    /// Made from the cluster's secret; a file goes before it.
    secrets: TicketSecrets,
    ticket_keys: Option<PathBuf>,
    look: Notify,
}

/// What one `[[listener]]` demands and shows.
#[derive(Debug)]
pub(super) struct Terms {
    config: Arc<config::Tls>,
    addresses: Vec<SocketAddr>,
    server: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
}

/// What was read last. Touched only by who reads and by whoever looks at the view.
#[derive(Debug)]
struct Seen {
    facts: Vec<Facts>,
    loaded: SystemTime,
    /// The files as they were when they were looked at last, used or not.
    stamps: Stamps,
    /// What the files hold now is not in use.
    pending: bool,
    /// Why not, once it was told.
    refused: Option<String>,
    /// Certificates whose trouble has been told, and what it was.
    told: Vec<Option<Standing>>,
}

impl Certificates {
    /// Reads all that the listeners need; `addresses` are theirs, in order.
    ///
    /// # Errors
    /// What is wrong with the first file that cannot be used.
    pub(super) fn load(web: &config::Web, addresses: &[SocketAddr], secrets: TicketSecrets) -> Result<Self, Trouble> {
        let mut terms: Vec<Arc<Terms>> = Vec::new();
        let chosen = chosen(&secrets, web.ticket_keys.as_deref())?;
        for (at, listener) in web.listeners.iter().enumerate() {
            let Some(tls) = &listener.front.tls else { continue };
            if terms.iter().any(|known| Arc::ptr_eq(&known.config, tls)) {
                continue;
            }
            let shares =
                |other: &config::Listener| other.front.tls.as_ref().is_some_and(|other| Arc::ptr_eq(other, tls));
            let theirs = web.listeners.iter().zip(addresses).skip(at).filter(|(other, _)| shares(other));
            terms.push(Arc::new(Terms::load(tls, theirs.map(|(_, address)| *address).collect(), &chosen, web)?));
        }
        let ticket_keys = web.ticket_keys.clone();
        Ok(Self(Arc::new(All { terms, secrets, ticket_keys, look: Notify::new() })))
    }

    /// What a listener with this configuration demands and shows.
    pub(super) fn of(&self, config: &Arc<config::Tls>) -> Option<Arc<Terms>> {
        self.0.terms.iter().find(|terms| Arc::ptr_eq(&terms.config, config)).cloned()
    }

    /// Looks at the files now, instead of within [`crate::limits::CERTIFICATE_LOOK`].
    pub fn look_now(&self) {
        self.0.look.notify_one();
    }

    /// What is shown, for people and metrics.
    #[must_use]
    pub fn view(&self) -> Vec<TlsView> {
        let now = clock::wall();
        self.0.terms.iter().map(|terms| view::of(terms, now)).collect()
    }
}

/// The secrets of tickets: of the file, if there is one.
fn chosen(secrets: &TicketSecrets, file: Option<&Path>) -> Result<TicketSecrets, Trouble> {
    file.map_or_else(|| Ok(secrets.clone()), TicketSecrets::load)
}

impl Terms {
    fn load(
        config: &Arc<config::Tls>,
        addresses: Vec<SocketAddr>,
        secrets: &TicketSecrets,
        web: &config::Web,
    ) -> Result<Self, Trouble> {
        let files = files(config, web.ticket_keys.as_deref());
        let stamps = Stamps::of(&files);
        let (server, facts) = build(config, secrets)?;
        let told = vec![None; facts.len()];
        let seen = Seen { facts, loaded: clock::wall(), stamps, pending: false, refused: None, told };
        Ok(Self { config: Arc::clone(config), addresses, server: ArcSwap::new(server), seen: Mutex::new(seen) })
    }

    /// With what the next handshake is done.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.load_full()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every file that a listener is made from.
fn files(config: &config::Tls, ticket_keys: Option<&Path>) -> Vec<PathBuf> {
    let pairs = config.certificates.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]);
    let ca = config.clients.as_ref().map(|clients| clients.ca.clone());
    pairs.chain(ca).chain(ticket_keys.map(Path::to_owned)).collect()
}

/// Reads the files, and makes what rustls needs.
fn build(config: &config::Tls, secrets: &TicketSecrets) -> Result<(Arc<ServerConfig>, Vec<Facts>), Trouble> {
    let loaded = config.certificates.iter().map(|files| site::load(&files.cert, &files.key));
    let certificates: Vec<SiteCertificate> = loaded.collect::<Result<_, _>>()?;
    let refused = |error: &dyn std::fmt::Display| Trouble {
        which: site::Which::Certificate,
        what: format!("cannot make the settings of TLS: {error}"),
        help: String::new(),
        not_permitted: false,
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| refused(&error))?;
    let (builder, domain) = match &config.clients {
        None => (builder.with_no_client_auth(), trust::sha256(b"anybody")),
        Some(clients) => {
            let roots = site::client_ca(&clients.ca)?;
            let domain = domain(&roots, clients.need);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = match clients.need {
                ClientNeed::Required => verifier,
                ClientNeed::Optional => verifier.allow_unauthenticated(),
            };
            (builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?), domain)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::new(Choice::new(&certificates)));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = Arc::new(Tickets::new(secrets.clone(), domain));
    Ok((Arc::new(server), certificates.into_iter().map(|certificate| certificate.facts).collect()))
}

/// Names what is demanded of clients: the same on both nodes, and different when anything of it is.
fn domain(roots: &rustls::RootCertStore, need: ClientNeed) -> [u8; 32] {
    let mut demand: Vec<u8> = match need {
        ClientNeed::Required => b"required".to_vec(),
        ClientNeed::Optional => b"optional".to_vec(),
    };
    for root in &roots.roots {
        let parts =
            [&*root.subject, &*root.subject_public_key_info, root.name_constraints.as_deref().unwrap_or_default()];
        for part in parts {
            demand.extend(part.len().to_be_bytes());
            demand.extend(part);
        }
    }
    trust::sha256(&demand)
}

/// What a handshake told of the client. None: its certificate has expired since its session began. Nobody looked at it
/// when the session was taken up again.
pub(super) fn client_of(connection: &ServerConnection) -> Option<Secure> {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    if let Some(certificate) = certificate
        && connection.handshake_kind() == Some(HandshakeKind::Resumed)
        && !site::holds(certificate, clock::wall())
    {
        return None;
    }
    // ASCII without controls, by its making.
    let subject = certificate.and_then(site::subject).and_then(|subject| HeaderValue::from_str(&subject).ok());
    Some(Secure { subject })
}
