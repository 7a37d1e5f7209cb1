//! The way in: from an accepted connection to its first request. Limits, PROXY header, TLS.
//!
//! ```text
//!  accept ──> too many? ──> PROXY header ──> TLS ──> http::serve
//!                           (listed peers)   (certificate, ALPN)
//! ```
//! What comes before HTTP has a deadline each, and only so many connections may be on their way in: those that never
//! say anything cannot take the places of those that do. One that takes long is not in flight meanwhile, so that it
//! does not hold up a planned move.
//!
//! Not here: which certificate is shown (`web::tls`), what is served (`web::site`).

use super::{
    site::Site,
    tls::{self, Terms},
};
use crate::{
    cluster::GroupName,
    http::{Connection, Counters, Drain, Patience, Scope, Transport, count, proxy_header, serve},
    limits::{ACCEPT_PAUSE, FIRST_BYTE_GRACE, PROXY_HEADER_TIMEOUT},
};
use futures_util::FutureExt;
use ipnet::IpNet;
use rustls::HandshakeKind;
use std::{
    cell::Cell,
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// One listener on one thread.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) group: Option<GroupName>,
    pub(super) site: Rc<Site>,
    pub(super) tls: Option<Arc<Terms>>,
    /// From whom PROXY headers are taken; empty: there are none.
    pub(super) proxy_from: Vec<IpNet>,
}

/// What all doors of a thread share.
pub(super) struct Hall {
    pub(super) counters: Arc<Counters>,
    /// Connections to addresses of no group.
    pub(super) ungrouped: Arc<Scope>,
    pub(super) groups: BTreeMap<GroupName, Arc<Scope>>,
    pub(super) vips: BTreeMap<IpAddr, GroupName>,
    pub(super) connections_max: usize,
    pub(super) patience: Patience,
    /// Connections on their way in, and the most that may be.
    pub(super) entering: Cell<usize>,
    pub(super) entering_max: usize,
}

/// Accepts until the tier is to end. What the kernel has ready then is still served: closing would reset it.
pub(super) async fn accept(
    listener: TcpListener,
    door: Rc<Door>,
    hall: Rc<Hall>,
    mut stopped: watch::Receiver<Option<Instant>>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(Option::is_some) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => hall.begin(stream, peer, &door),
            Err(error) => {
                count(&hall.counters.accept_errors);
                // The client's own (RFC: it went before it was accepted), or ours: no files or memory left.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        hall.begin(stream, peer, &door);
    }
}

/// A connection that is on its way in.
struct Entering<'a>(&'a Hall);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.entering.set(self.0.entering.get() - 1);
    }
}

impl Hall {
    fn begin(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, door: &Rc<Door>) {
        let counters = &self.counters;
        if counters.totals().active >= self.connections_max as u64 {
            count(&counters.refused);
            stream.reset_on_close();
            return;
        }
        let local = match door.address.ip().is_unspecified() {
            true => stream.local_addr().unwrap_or(door.address),
            false => door.address,
        };
        let group = door.group.or_else(|| self.vips.get(&local.ip().to_canonical()).copied());
        let scope = group.and_then(|group| self.groups.get(&group)).unwrap_or(&self.ungrouped);
        let mut connection = Connection::new(Some(peer), Arc::clone(scope), Arc::clone(counters), self.patience);
        tell(&mut connection, |connection| connection.local = Some(local));
        if door.tls.is_none() && door.proxy_from.is_empty() {
            spawn_local(serve(stream, connection, Rc::clone(&door.site)));
        } else {
            spawn_local(Rc::clone(self).admit(Rc::clone(door), stream, connection));
        }
    }

    fn enter(&self) -> Option<Entering<'_>> {
        let entering = self.entering.get();
        (entering < self.entering_max).then(|| {
            self.entering.set(entering + 1);
            Entering(self)
        })
    }

    /// Takes a connection through what comes before HTTP, and serves it.
    async fn admit(self: Rc<Self>, door: Rc<Door>, mut stream: TcpStream, mut connection: Arc<Connection>) {
        let Some(entering) = self.enter() else {
            count(&self.counters.handshakes_refused);
            stream.reset_on_close();
            return;
        };
        if !door.proxy_from.is_empty() && self.announced(&door, &mut stream, &mut connection).await.is_none() {
            stream.reset_on_close();
            return;
        }
        let Some(terms) = &door.tls else {
            drop(entering);
            return serve(stream, connection, Rc::clone(&door.site)).await;
        };
        let Some(stream) = self.shake_hands(terms, stream, &connection).await else { return };
        drop(entering);
        let Some(client) = tls::client_of(stream.get_ref().1) else {
            tracing::debug!(peer = ?connection.peer, "the client's certificate has expired since its session began");
            count(&self.counters.handshakes_failed);
            return;
        };
        tell(&mut connection, |connection| connection.secure = Some(client));
        serve(stream, connection, Rc::clone(&door.site)).await;
    }

    /// What the proxy in front says of the client. None: it is no such proxy, or says nothing that is right.
    async fn announced(&self, door: &Door, stream: &mut TcpStream, connection: &mut Arc<Connection>) -> Option<()> {
        let (peer, local) = (connection.peer?, connection.local?);
        let ip = peer.ip().to_canonical();
        let refused = |why: &dyn std::fmt::Display| {
            tracing::debug!(%peer, listener = %door.address, "connection refused: {why}");
            count(&self.counters.proxy_headers_refused);
            None
        };
        if !door.proxy_from.iter().any(|net| net.contains(&ip)) {
            // From this very address comes the probe of this node.
            return if ip == local.ip().to_canonical() { None } else { refused(&"not a proxy that may connect") };
        }
        match before_http(connection, PROXY_HEADER_TIMEOUT, proxy_header::read(stream)).await {
            Some(Ok(None)) => Some(()),
            Some(Ok(Some((from, to)))) => {
                tell(connection, |connection| (connection.peer, connection.local) = (Some(from), Some(to)));
                Some(())
            }
            // It went: so do proxies that only look whether somebody is here.
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Some(Err(error)) => refused(&error),
            None => refused(&"the PROXY header took too long"),
        }
    }

    async fn shake_hands(
        &self,
        terms: &Terms,
        stream: TcpStream,
        connection: &Arc<Connection>,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(terms.server()).accept(stream);
        match before_http(connection, self.patience.handshake, handshake).await {
            Some(Ok(stream)) => {
                count(&self.counters.handshakes);
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    count(&self.counters.handshakes_resumed);
                }
                return Some(stream);
            }
            // It went: so do proxies that only look whether somebody is here.
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            Some(Err(error)) => tracing::debug!(peer = ?connection.peer, %error, "handshake failed"),
            None => tracing::debug!(peer = ?connection.peer, "handshake took too long"),
        }
        count(&self.counters.handshakes_failed);
        None
    }
}

/// Says something of a connection that nobody shares yet.
fn tell(connection: &mut Arc<Connection>, what: impl FnOnce(&mut Connection)) {
    debug_assert_eq!(Arc::strong_count(connection), 1, "what is shared cannot be changed");
    if let Some(connection) = Arc::get_mut(connection) {
        what(connection);
    }
}

/// Waits for what must come before the first request. A connection that takes long over it is not in flight. None: it
/// took too long, or the tier ends.
async fn before_http<T>(connection: &Arc<Connection>, limit: Duration, coming: impl Future<Output = T>) -> Option<T> {
    let mut coming = pin!(coming);
    let grace = FIRST_BYTE_GRACE.min(limit);
    if let Ok(come) = timeout(grace, &mut coming).await {
        return Some(come);
    }
    connection.idle();
    let mut drain = connection.scope.watch();
    let come = tokio::select! {
        come = timeout(limit - grace, &mut coming) => come.ok()?,
        _ = drain.wait_for(|drain| *drain >= Drain::Stop) => return None,
    };
    connection.busy();
    Some(come)
}
