//! What one listener serves, on one thread: which route a request takes, and what holds for all of them.

use super::{files::Folder, path, pool::Pool, proxy};
use crate::http::{Body, Connection, Handler, closing, page, redirect};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use hyper::body::Incoming;
use std::{rc::Rc, sync::Arc};

/// What one listener serves, longest prefix first.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) routes: Vec<(String, Action)>,
    /// The value of `Strict-Transport-Security`.
    hsts: Option<HeaderValue>,
}

/// What answers.
#[derive(Debug)]
pub(super) enum Action {
    Folder(Folder),
    Proxy(Rc<Pool>),
    /// To the same address by https, at this port.
    ToHttps(u16),
}

impl Site {
    pub(super) fn new(mut routes: Vec<(String, Action)>, hsts: Option<HeaderValue>) -> Rc<Self> {
        // Stable: of two equal prefixes the first in the file wins.
        routes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.trim_end_matches('/').len()));
        Rc::new(Self { routes, hsts })
    }

    async fn route(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Body> {
        let method = request.method();
        if *method == Method::CONNECT || *method == Method::TRACE {
            return closing(refused());
        }
        if *method == Method::OPTIONS && request.uri().path() == "*" {
            return pong();
        }
        let Ok(path) = path::decoded(request.uri().path()) else {
            return page(StatusCode::BAD_REQUEST, "The address holds what no address may hold.");
        };
        let found = self.routes.iter().find(|(prefix, _)| path::covers(prefix, &path));
        match found.map(|(_, action)| action) {
            Some(Action::Folder(folder)) => folder.answer(method, request.uri(), request.headers(), connection).await,
            Some(Action::Proxy(pool)) => proxy::forward(pool, request, connection).await,
            Some(Action::ToHttps(port)) => to_https(&request, *port),
            None => page(StatusCode::NOT_FOUND, "There is nothing at this address."),
        }
    }
}

impl Handler for Site {
    async fn handle(self: Rc<Self>, request: Request<Incoming>, connection: Arc<Connection>) -> Response<Body> {
        let mut response = self.route(request, &connection).await;
        let headers = response.headers_mut();
        headers.entry(header::SERVER).or_insert(HeaderValue::from_static("hawser"));
        if let Some(hsts) = &self.hsts {
            // Ours is the listener's own word, whatever a server behind says (RFC 6797 §6.1: one field).
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        response
    }
}

fn refused() -> Response<Body> {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "This is not done here.");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The same address by https. What is not GET or HEAD is to keep its method and body (RFC 9110 §15.4.9).
fn to_https(request: &Request<Incoming>, port: u16) -> Response<Body> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let said = request.uri().authority().cloned().or_else(|| host.and_then(|host| host.parse::<Authority>().ok()));
    let location = said.as_ref().map(Authority::host).filter(|host| !host.is_empty()).and_then(|host| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let location = match port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        HeaderValue::from_str(&location).ok()
    });
    let Some(location) = location else {
        return page(
            StatusCode::BAD_REQUEST,
            "This site is at https, and the request does not say which host it is for.",
        );
    };
    let mut response = redirect(location);
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    }
    response
}

/// RFC 9110 §9.3.7: the server itself is asked whether it is there. This is what the probe asks.
fn pong() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}
