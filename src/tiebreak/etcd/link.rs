//! The way to etcd: its JSON gateway, over one kept connection to one member; the next member when that fails.
//!
//! Not here: when to ask and what an answer is worth (`speaker`), what question and answer look like (`json`).

use super::json::{self, Folder, Garbled};
use super::speaker::{Question, Seen};
use crate::{
    config::{self, Endpoint},
    limits::ETCD_ANSWER_BYTES_MAX,
    trust::{TrustError, outside::Outside},
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// What a link is made with.
#[derive(Debug)]
pub struct Settings {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfig>>,
    folder: Folder,
}

impl Settings {
    /// Reads the certificates that the configuration names.
    ///
    /// # Errors
    /// If one of them cannot be read, or is refused by the library.
    pub fn new(etcd: &config::Etcd, folder: Folder) -> Result<Self, TrustError> {
        let tls = etcd.ca.as_ref().map(|ca| client_config(ca, etcd.identity.as_ref())).transpose()?;
        Ok(Self { endpoints: etcd.endpoints.clone(), tls, folder })
    }
}

fn client_config(ca: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<Arc<ClientConfig>, TrustError> {
    let identity = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
    let mut config = Outside::load(ca, identity)?.client;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Why a member of etcd gave no answer.
#[derive(Debug)]
pub struct Silent {
    /// The member.
    pub address: std::net::SocketAddr,
    /// Why.
    pub why: String,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.why)
    }
}

impl std::error::Error for Silent {}

/// A way to one member of etcd.
#[derive(Debug)]
pub struct Link {
    settings: Arc<Settings>,
    turn: usize,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// A way to the member whose turn it is.
    #[must_use]
    pub const fn new(settings: Arc<Settings>, turn: usize) -> Self {
        Self { settings, turn, connection: None }
    }

    /// Whose turn it is.
    #[must_use]
    pub const fn turn(&self) -> usize {
        self.turn
    }

    /// Asks, once. An answer that does not come may have been a change all the same.
    ///
    /// # Errors
    /// If no answer came that is one. The next question goes to the next member.
    pub async fn ask(&mut self, question: &Question) -> Result<Vec<Seen>, Silent> {
        let count = self.settings.endpoints.len().max(1);
        let endpoint = self.settings.endpoints[self.turn % count];
        match self.exchange(endpoint, question).await {
            Ok(seen) => Ok(seen),
            Err(why) => {
                self.connection = None;
                self.turn += 1;
                Err(Silent { address: endpoint.address, why })
            }
        }
    }

    async fn exchange(&mut self, endpoint: Endpoint, question: &Question) -> Result<Vec<Seen>, String> {
        let kept = self.connection.take().filter(|c| !c.sender.is_closed());
        let mut connection = match kept {
            Some(kept) => kept,
            None => connect(endpoint, self.settings.tls.as_ref()).await?,
        };
        let body = json::encode(&self.settings.folder, question);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v3/kv/txn")
            .header(header::HOST, endpoint.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        connection.sender.ready().await.map_err(|e| e.to_string())?;
        let response = connection.sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ETCD_ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        if status != StatusCode::OK {
            let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(format!("{status}: {}", said.trim()));
        }
        let seen = json::decode(&self.settings.folder, question, &body).map_err(|e: Garbled| e.to_string())?;
        self.connection = Some(connection);
        Ok(seen)
    }
}

async fn connect(endpoint: Endpoint, tls: Option<&Arc<ClientConfig>>) -> Result<Connection, String> {
    let stream = TcpStream::connect(endpoint.address).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    match tls.filter(|_| endpoint.tls) {
        None if endpoint.tls => Err("https, and no ca to trust".to_owned()),
        None => handshake(stream).await,
        Some(config) => {
            let name = ServerName::IpAddress(endpoint.address.ip().into());
            let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
            handshake(stream.map_err(|e| e.to_string())?).await
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to etcd ended");
        }
    });
    Ok(Connection { sender, driver })
}
