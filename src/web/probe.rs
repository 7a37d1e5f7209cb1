//! Asks the web tier, from outside its threads, whether it still answers: what it says is the node's fitness.
//!
//! Each web thread serves, by the same loop as its listeners, a Unix socket of its own (abstract, for this process'
//! user only). A request through it tells whether that thread still turns, whichever node holds the addresses, and
//! whatever a firewall or an exhausted port range does to TCP. Besides, each listener whose address is on this
//! machine now is asked through TCP: a refusal there means that nobody listens any more. That it takes long means
//! nothing, while every thread turns: under a flood the queue of a listener is full.
//!
//! Through TLS the request goes as a visitor's would, by a handshake whose certificate is taken as it is: whether it
//! holds is told elsewhere. A listener that demands a client's certificate or a PROXY header is only connected to: there,
//! that somebody accepts must do.
//!
//! A request is `OPTIONS *`, which no route sees. After a failed one the next comes at once, so that a stuck thread is
//! known within `PROBE_INTERVAL` + `PROBE_FALL` × `PROBE_TIMEOUT`.

use crate::{
    config::{self, ClientNeed, Front},
    limits::{PROBE_FALL, PROBE_INTERVAL, PROBE_RISE, PROBE_TIMEOUT},
    trust,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The socket of each web thread.
    pub(super) threads: Vec<PathBuf>,
    pub(super) listeners: Vec<Listener>,
}

/// A listener, and how it can be asked.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    address: SocketAddr,
    manner: Manner,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    /// By a request.
    Plain,
    /// By a handshake and a request.
    Tls,
    /// By a connect.
    Connect,
}

impl Listener {
    pub(super) fn new(address: SocketAddr, front: &Front) -> Self {
        let required =
            |tls: &config::Tls| matches!(&tls.clients, Some(clients) if clients.need == ClientNeed::Required);
        let manner = match &front.tls {
            _ if !front.proxy_from.is_empty() => Manner::Connect,
            None => Manner::Plain,
            Some(tls) if required(tls) => Manner::Connect,
            Some(_) => Manner::Tls,
        };
        Self { address, manner }
    }
}

/// Asks until it is dropped. `None`: fit. `Some`: unfit, and why. To be spawned on the control runtime.
pub async fn run(targets: Targets, fitness: watch::Sender<Option<String>>) {
    let (mut good, mut bad) = (0, 0);
    loop {
        let begun = Instant::now();
        match ask_all(&targets).await {
            Ok(()) => {
                (good, bad) = (good + 1, 0);
                if good >= PROBE_RISE && fitness.borrow().is_some() {
                    tracing::info!("web tier answers again");
                    fitness.send_replace(None);
                }
            }
            Err(reason) => {
                (good, bad) = (0, bad + 1);
                if bad == PROBE_FALL {
                    tracing::warn!(%reason, "web tier does not answer");
                    fitness.send_replace(Some(reason));
                } else if bad < PROBE_FALL {
                    continue;
                }
            }
        }
        sleep_until(begun + PROBE_INTERVAL).await;
    }
}

/// All at once; the first failure is told.
async fn ask_all(targets: &Targets) -> Result<(), String> {
    let mut asked = JoinSet::new();
    for (thread, path) in targets.threads.iter().cloned().enumerate() {
        asked.spawn(async move {
            match timeout(PROBE_TIMEOUT, ask_thread(path)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("web thread {thread} fails: {error}")),
                Err(_) => Err(format!("web thread {thread} does not answer")),
            }
        });
    }
    for listener in targets.listeners.iter().cloned() {
        asked.spawn(async move {
            match timeout(PROBE_TIMEOUT, ask_listener(&listener)).await {
                Ok(Err(error)) => Err(format!("listener {} fails: {error}", listener.address)),
                Ok(Ok(())) | Err(_) => Ok(()),
            }
        });
    }
    let mut result = Ok(());
    while let Some(answer) = asked.join_next().await {
        result = result.and(answer.unwrap_or_else(|error| Err(error.to_string())));
    }
    result
}

async fn ask_thread(path: PathBuf) -> io::Result<()> {
    ask(UnixStream::connect(path).await?).await
}

/// From the listener's own address: an address that is not here cannot be bound, and the other node is not asked.
async fn ask_listener(listener: &Listener) -> io::Result<()> {
    let address = listener.address;
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if socket.bind((ip, 0).into()).is_err() {
        return Ok(());
    }
    match socket.connect((ip, address.port()).into()).await {
        // What breaks off may be one connection too many: an overload is not healed by moving it.
        Ok(stream) => match ask_through(stream, listener.manner).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
        // An address that leaves in this moment, or a gate that is shut.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        Err(_) => Ok(()),
    }
}

async fn ask_through(stream: TcpStream, manner: Manner) -> io::Result<()> {
    match manner {
        Manner::Plain => ask(stream).await,
        Manner::Connect => Ok(()),
        Manner::Tls => {
            let connector = TlsConnector::from(trust::tls::anybodys_config());
            ask(connector.connect(trust::tls::server_name(), stream).await?).await
        }
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 204";
    stream.write_all(b"OPTIONS * HTTP/1.1\r\nHost: hawser\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    if answer == ANSWER { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "somebody else answers")) }
}
