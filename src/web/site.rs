//! What one listener serves, on one thread: which route a request takes, and what holds for all of them.

use super::{files::Folder, path, pool::Pool, proxy};
use crate::http::{Body, Connection, Handler, closing, page};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::{rc::Rc, sync::Arc};

/// What one listener serves, longest prefix first.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) routes: Vec<(String, Action)>,
}

/// What answers.
#[derive(Debug)]
pub(super) enum Action {
    Folder(Folder),
    Proxy(Rc<Pool>),
}

impl Site {
    pub(super) fn new(mut routes: Vec<(String, Action)>) -> Rc<Self> {
        // Stable: of two equal prefixes the first in the file wins.
        routes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.trim_end_matches('/').len()));
        Rc::new(Self { routes })
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
            None => page(StatusCode::NOT_FOUND, "There is nothing at this address."),
        }
    }
}

impl Handler for Site {
    async fn handle(self: Rc<Self>, request: Request<Incoming>, connection: Arc<Connection>) -> Response<Body> {
        let mut response = self.route(request, &connection).await;
        response.headers_mut().entry(header::SERVER).or_insert(HeaderValue::from_static("hawser"));
        response
    }
}

fn refused() -> Response<Body> {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "This is not done here.");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// RFC 9110 §9.3.7: the server itself is asked whether it is there. This is what the probe asks.
fn pong() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}
