//! TCP and mutual TLS between the two replicas: the first node dials, the second accepts.
//!
//! Hears: nothing. Tells: each stream whose other end has proved to be the peer, by a certificate of the cluster's CA
//! with the peer's name in it.
//! One session is enough; the newest counts. The dialling node tries its links in turn, and again when a session
//! ends. Connections in their handshake are few at a time and short-lived, whoever they come from.
//!
//! Not here: certificates (`trust`), what is said (`session`).

use crate::{
    cluster::Name,
    limits::{HANDSHAKE_MAX, HANDSHAKES_MAX, REDIAL_MAX, REDIAL_MIN, SESSION_IDLE_MAX},
};
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is spoken on the link's TCP port; other protocols may share it one day.
const ALPN: &[u8] = b"hawser-state/1";

/// How this node proves who it is, and who the other end must be.
#[derive(Debug, Clone)]
pub struct Tls {
    /// For dialling: trusts the cluster's CA, shows this node's certificate.
    pub client: Arc<ClientConfig>,
    /// For accepting: the same, and demands a certificate.
    pub server: Arc<ServerConfig>,
    /// The peer's name, as in its certificate.
    pub peer: Name,
}

/// How the peer is reached.
#[derive(Debug)]
pub enum Link {
    /// The first node dials; links in order.
    Dial(Vec<Dial>),
    /// The second node accepts.
    Accept {
        /// On each link's address: see [`listen`].
        listeners: Vec<TcpListener>,
        /// The peer's link addresses. Who comes from elsewhere is heard too, but cannot take the peer's places.
        known: Vec<IpAddr>,
    },
}

/// One path to the peer.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// Our address on this link; unspecified lets the kernel choose.
    pub from: IpAddr,
    /// The peer's.
    pub to: SocketAddr,
}

/// Any stream.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream to the peer.
pub(super) struct Established {
    pub(super) stream: Box<dyn Duplex>,
    /// Dropped when the session is over.
    pub(super) over: oneshot::Sender<()>,
}

/// Listens on a link's address, which need not be there yet (`IP_FREEBIND`).
///
/// # Errors
/// If the address is in use, or the port needs a right that is missing.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// Brings streams to the peer, for ever; ends when nobody takes them.
///
/// # Errors
/// If the peer's name cannot be in a certificate, or a listener cannot be used.
pub(super) fn start(link: Link, tls: &Tls, established: &mpsc::Sender<Established>) -> io::Result<()> {
    match link {
        Link::Dial(paths) => {
            let mut config = (*tls.client).clone();
            config.alpn_protocols = vec![ALPN.to_vec()];
            let name = ServerName::try_from(tls.peer.as_str().to_owned()).map_err(io::Error::other)?;
            let dialer = Dialer { connector: TlsConnector::from(Arc::new(config)), name, peer: tls.peer };
            tokio::spawn(dial_all(paths, dialer, established.clone()));
        }
        Link::Accept { listeners, known } => {
            let mut config = (*tls.server).clone();
            config.alpn_protocols = vec![ALPN.to_vec()];
            let places = || Arc::new(Semaphore::new(HANDSHAKES_MAX));
            let door = Door {
                acceptor: TlsAcceptor::from(Arc::new(config)),
                peer: tls.peer,
                known: known.into(),
                places: places(),
                strangers: places(),
                established: established.clone(),
            };
            for listener in listeners {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::spawn(accept_all(listener, door.clone()));
            }
        }
    }
    Ok(())
}

struct Dialer {
    connector: TlsConnector,
    name: ServerName<'static>,
    peer: Name,
}

/// Keeps one session up. After a failure on every path it waits, longer each time, with jitter.
async fn dial_all(paths: Vec<Dial>, dialer: Dialer, established: mpsc::Sender<Established>) {
    let mut wait = REDIAL_MIN;
    loop {
        for path in &paths {
            match dialer.dial(*path).await {
                Ok(stream) => {
                    wait = REDIAL_MIN;
                    let (over, ended) = oneshot::channel();
                    if established.send(Established { stream, over }).await.is_err() {
                        return;
                    }
                    // The sender is only ever dropped.
                    ended.await.ok();
                }
                Err(cause) => tracing::debug!(to = %path.to, %cause, "peer's replica not reached"),
            }
            if established.is_closed() {
                return;
            }
        }
        sleep(jittered(wait)).await;
        wait = (2 * wait).min(REDIAL_MAX);
    }
}

impl Dialer {
    async fn dial(&self, path: Dial) -> io::Result<Box<dyn Duplex>> {
        let connect = async {
            let socket = if path.to.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
            socket.bind(SocketAddr::new(path.from, 0))?;
            let stream = socket.connect(path.to).await?;
            tune(&stream)?;
            let stream = self.connector.connect(self.name.clone(), stream).await?;
            verify(stream.get_ref().1.peer_certificates(), &self.peer)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        };
        timeout(HANDSHAKE_MAX, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What a connection has to pass.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    peer: Name,
    known: Arc<[IpAddr]>,
    /// Handshakes of the peer's addresses, and of all others.
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    established: mpsc::Sender<Established>,
}

/// Accepts for ever. A connection that finds no place for its handshake is closed at once.
async fn accept_all(listener: tokio::net::TcpListener, door: Door) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.established.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                tracing::warn!(%cause, "connection on a link not accepted");
                sleep(REDIAL_MIN).await;
                continue;
            }
        };
        let places = if door.known.contains(&from.ip()) { &door.places } else { &door.strangers };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(door.clone().admit(stream, from, place))),
            Err(_) => tracing::debug!(%from, "connection on a link closed: too many handshakes"),
        }
    }
}

impl Door {
    async fn admit(self, stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let shaken = timeout(HANDSHAKE_MAX, self.handshake(stream)).await;
        drop(place);
        match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let (over, _) = oneshot::channel();
                // Nobody takes it when hawser ends.
                self.established.send(Established { stream, over }).await.ok();
            }
            Err(cause) => tracing::debug!(%from, %cause, "connection on a link refused"),
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<Box<dyn Duplex>> {
        tune(&stream)?;
        let stream = self.acceptor.accept(stream).await?;
        verify(stream.get_ref().1.peer_certificates(), &self.peer)?;
        Ok(Box::new(stream))
    }
}

/// A dead path is noticed in seconds.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SESSION_IDLE_MAX))?;
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3))
}

/// The chain is good (rustls has seen to that); is it the peer's own, and not another member's?
fn verify(chain: Option<&[CertificateDer<'_>]>, peer: &Name) -> io::Result<()> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let Some(first) = chain.and_then(<[_]>::first) else {
        return refuse("no certificate".to_owned());
    };
    let (_, certificate) = X509Certificate::from_der(first).map_err(io::Error::other)?;
    let names = certificate.subject_alternative_name().map_err(io::Error::other)?;
    let named = names.is_some_and(|names| {
        names.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(n) if *n == peer.as_str()))
    });
    if named { Ok(()) } else { refuse(format!("the certificate is not {peer}'s")) }
}

/// Half of it to all of it, differently each time.
fn jittered(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    let share = u32::try_from(random % 512).unwrap_or(0);
    wait / 2 + wait * share / 1024
}
