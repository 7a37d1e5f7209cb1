//! Copies bytes both ways between a client and a server that have left HTTP behind (WebSocket and the like).
//!
//! A planned move does not wait for a tunnel, since nobody knows when it would end: it is closed with the last of the
//! drain. One whose other end is gone is found by TCP keep-alive.

use super::pool::Lease;
use crate::http::{Connection, Drain, count};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::io::copy_bidirectional;

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
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    let mut drain = connection.scope.watch();
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut server) => {
            if let Err(error) = copied {
                tracing::trace!(%error, "a tunnel ended");
            }
        }
        _ = drain.wait_for(|drain| *drain >= Drain::Close) => {}
    }
    count(&connection.counters.tunnels_closed);
}
