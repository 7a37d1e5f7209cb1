//! The application that the demo's nodes forward to: answers `/healthz`, and everything below `/app/`.

use super::error::{Attempt, Result};
use super::lab::Host;
use super::netns::Netns;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// Where it listens.
pub const PORT: u16 = 8080;

/// The running application; it ends when this is dropped.
#[derive(Debug)]
pub struct App {
    _end: oneshot::Sender<Infallible>,
}

impl App {
    /// Starts it in `network`.
    ///
    /// # Errors
    /// If its port is taken.
    pub fn start(network: &Netns) -> Result<Self> {
        let address = SocketAddr::from((Host::App.address(), PORT));
        let listener = network.run(|| TcpListener::bind(address))?.or_cannot("open the application's port")?;
        listener.set_nonblocking(true).or_cannot("set a socket up")?;
        let (end, ended) = oneshot::channel();
        drop(network.spawn("application", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| LocalSet::new().block_on(&runtime, serve(listener, ended)));
            if let Err(refusal) = served {
                tracing::error!(%refusal, "the demo's application ended");
            }
        })?);
        Ok(Self { _end: end })
    }
}

async fn serve(listener: TcpListener, mut ended: oneshot::Receiver<Infallible>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _gone = &mut ended => return Ok(()),
        };
        spawn_local(async move {
            let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(
                TokioIo::new(stream),
                service_fn(async |request| Ok::<_, Infallible>(answer(&request))),
            );
            if let Err(broken) = connection.await {
                tracing::debug!(%broken, "a connection to the application broke");
            }
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let visitor = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok()).unwrap_or("nobody");
    let (status, body) = match path {
        "/healthz" => (StatusCode::OK, "fine\n".to_owned()),
        path if path.starts_with("/app/") => {
            (StatusCode::OK, format!("The application heard of {path}, asked for by {visitor}.\n"))
        }
        _unknown => (StatusCode::NOT_FOUND, "The application knows /app/ only.\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
