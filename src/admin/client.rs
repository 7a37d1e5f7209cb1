//! Asks a node's daemon, for the CLI.

use super::api::Failed;
use crate::limits::{ADMIN_LOOK_TIMEOUT, ADMIN_TIMEOUT};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};
use tokio::{net::UnixStream, time::timeout};

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// Nobody answers on the socket.
    Silent {
        /// The socket.
        socket: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Somebody listens on the socket, and does not answer.
    Hangs {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        patience: std::time::Duration,
    },
    /// The answer could not be read.
    Garbled(String),
    /// The daemon refused.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { socket, cause } => {
                let socket = socket.display();
                if cause.kind() == io::ErrorKind::PermissionDenied {
                    write!(f, "cannot reach the daemon at {socket}: {cause}; run this as the daemon's user (root)")
                } else {
                    write!(f, "no daemon answers at {socket}: {cause}; is `hawser run` running? --socket names another")
                }
            }
            Self::Hangs { socket, patience } => {
                let (socket, waited) = (socket.display(), patience.as_secs());
                write!(f, "the daemon at {socket} does not answer for {waited} s: it hangs, or is stopped; see its log")
            }
            Self::Garbled(why) => write!(f, "cannot read the daemon's answer: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// Reads something.
///
/// # Errors
/// If the daemon does not answer, or refuses.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    ask(socket, Method::GET, path, Bytes::new())
}

/// Changes something.
///
/// # Errors
/// If the daemon does not answer, or refuses.
pub fn post<T: DeserializeOwned>(socket: &Path, path: &str, wish: &impl Serialize) -> Result<T, Error> {
    let body = serde_json::to_vec(wish).map_err(|e| Error::Garbled(e.to_string()))?;
    ask(socket, Method::POST, path, Bytes::from(body))
}

fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<T, Error> {
    let silent = |cause| Error::Silent { socket: socket.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(silent)?;
    let patience = if method == Method::GET { ADMIN_LOOK_TIMEOUT } else { ADMIN_TIMEOUT };
    runtime.block_on(async {
        let work = exchange(socket, method, path, body);
        let (status, bytes) = match timeout(patience, work).await {
            Ok(done) => done?,
            Err(_) => return Err(Error::Hangs { socket: socket.to_owned(), patience }),
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&bytes).map_err(|e| Error::Garbled(e.to_string()));
        }
        match serde_json::from_slice::<Failed>(&bytes) {
            Ok(failed) => Err(Error::Refused(failed.error)),
            Err(_) => Err(Error::Garbled(format!("status {status}"))),
        }
    })
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
    let garbled = |e: hyper::Error| Error::Garbled(e.to_string());
    let stream =
        UnixStream::connect(socket).await.map_err(|cause| Error::Silent { socket: socket.to_owned(), cause })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "hawser")
        .body(Full::new(body))
        .map_err(|e| Error::Garbled(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(garbled)?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(garbled)?.to_bytes();
    drop(sender);
    driver.abort();
    Ok((status, bytes))
}
