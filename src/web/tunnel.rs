//! Copies bytes both ways between a client and a server that have left HTTP behind (WebSocket and the like).
//!
//! A planned move does not wait for a tunnel, since nobody knows when it would end: it is closed with the last of the
//! drain. One whose other end is gone is found by TCP keep-alive; one of which a side has ended soon ends whole.

use super::pool::Lease;
use crate::http::{Connection, Drain, count};
use crate::limits::TUNNEL_HALF_MAX;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::{pin::pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split},
    time::timeout,
};

pub(super) async fn run(client: OnUpgrade, server: OnUpgrade, lease: Lease, connection: Arc<Connection>) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade failed");
            return;
        }
    };
    drop(lease);
    connection.upgraded();
    count(&connection.counters.tunnels);
    let (from_client, to_client) = split(TokioIo::new(client));
    let (from_server, to_server) = split(TokioIo::new(server));
    let (mut up, mut down) = (pin!(pass(from_client, to_server)), pin!(pass(from_server, to_client)));
    let mut drain = connection.scope.watch();
    let ended = async {
        // When one side has said all, the other may still finish.
        tokio::select! {
            () = &mut up => timeout(TUNNEL_HALF_MAX, down).await,
            () = &mut down => timeout(TUNNEL_HALF_MAX, up).await,
        }
    };
    tokio::select! {
        _ = ended => {}
        _ = drain.wait_for(|drain| *drain >= Drain::Close) => {}
    }
    count(&connection.counters.tunnels_closed);
}

/// Copies one way until its end, and passes that on.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let copied = copy(&mut from, &mut to).await;
    if let Err(error) = copied.and(to.shutdown().await) {
        tracing::trace!(%error, "one way of a tunnel ended");
    }
}
