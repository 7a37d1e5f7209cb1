//! Short answers: pages for errors, redirects. They hold nothing but the status and a sentence for the reader.

use super::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};

/// A short page that says the status and one sentence.
#[must_use]
pub fn page(status: StatusCode, sentence: &str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_str();
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{code} {reason}</title>\
         <h1>{code} {reason}</h1><p>{sentence}</p></html>\n"
    );
    let mut response = Response::new(Body::whole(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// To `location`, for good.
#[must_use]
pub fn redirect(location: HeaderValue) -> Response<Body> {
    let mut response = page(StatusCode::MOVED_PERMANENTLY, "The page is at another address.");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The same response, after which an HTTP/1.1 connection is closed.
#[must_use]
pub fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A response to HEAD has the headers of the one to GET, and no body.
pub(crate) fn for_method(method: &Method, response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    if method != Method::HEAD {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(parts, Body::empty())
}
