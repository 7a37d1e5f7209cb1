//! Serves the API on a Unix socket.

use super::api::{Changed, ConfirmFenced, Failed, SetStandby, Status, Switchover};
use crate::{
    limits::{ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_TIMEOUT},
    replicate::HistoryEntry,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener as StdListener},
    path::Path,
    pin::Pin,
    sync::Arc,
};
use tokio::{net::UnixListener, sync::Semaphore, time::timeout};

/// What an API call comes to.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// Who answers: the daemon.
pub trait Desk: Send + Sync + 'static {
    /// How the node is doing.
    fn status(&self) -> Answer<Status>;
    /// What happened, oldest first.
    fn history(&self) -> Vec<HistoryEntry>;
    /// Moves a group.
    fn switchover(&self, wish: Switchover) -> Answer<Changed>;
    /// Puts a node in standby, or brings it back.
    fn standby(&self, wish: SetStandby) -> Answer<Changed>;
    /// Takes an operator's word that the peer is off.
    fn confirm_fenced(&self, wish: ConfirmFenced) -> Answer<Changed>;
}

/// Binds the socket: what an earlier run left is replaced; one that answers is not.
///
/// # Errors
/// If a daemon answers there, or the folder cannot be written.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match StdListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another hawser answers there"));
            }
            std::fs::remove_file(path)?;
            StdListener::bind(path)
        }
        bound => bound,
    }
    .and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Serves until it is dropped.
///
/// # Errors
/// If the runtime cannot watch the socket.
pub async fn serve(listener: StdListener, desk: Arc<dyn Desk>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let seats = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&desk), request));
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(ADMIN_TIMEOUT, connection).await {
                tracing::debug!(%error, "an admin connection ended early");
            }
            drop(seat);
        });
    }
}

type Reply = Response<Full<Bytes>>;

async fn answer(desk: Arc<dyn Desk>, request: Request<Incoming>) -> Result<Reply, http::Error> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/v1/status") => reply(desk.status().await),
        (&Method::GET, "/v1/history") => reply(Ok(desk.history())),
        (&Method::POST, "/v1/switchover") => match body::<Switchover>(request).await {
            Ok(wish) => reply(desk.switchover(wish).await),
            Err(why) => json(StatusCode::BAD_REQUEST, &Failed { error: why }),
        },
        (&Method::POST, "/v1/standby") => match body::<SetStandby>(request).await {
            Ok(wish) => reply(desk.standby(wish).await),
            Err(why) => json(StatusCode::BAD_REQUEST, &Failed { error: why }),
        },
        (&Method::POST, "/v1/confirm-fenced") => match body::<ConfirmFenced>(request).await {
            Ok(wish) => reply(desk.confirm_fenced(wish).await),
            Err(why) => json(StatusCode::BAD_REQUEST, &Failed { error: why }),
        },
        (method, path) => json(StatusCode::NOT_FOUND, &Failed { error: format!("there is no {method} {path}") }),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, String> {
    let body = Limited::new(request.into_body(), ADMIN_BODY_BYTES_MAX);
    let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

fn reply<T: Serialize>(result: Result<T, String>) -> Result<Reply, http::Error> {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => json(StatusCode::CONFLICT, &Failed { error }),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Reply, http::Error> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_for_the_user_of_the_daemon_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        // Also in the place of one that an earlier run left behind.
        for _ in 0..2 {
            drop(bind(&path).unwrap());
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
