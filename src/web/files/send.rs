//! Sends a resource: in the form that the client takes, whole or in part, or not at all if it has it already.

use super::{
    Folder, NotFound, Place,
    accept::{Accepted, Coding},
    body::{Pieces, Segment},
    compress,
    find::{Found, Opened},
    keep::{Held, Resource},
};
use crate::{
    clock,
    http::{Body, Connection, page},
    web::{
        conditional::Verdict,
        open::File,
        range::{self, Asked, Parts},
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    io,
    rc::Rc,
    sync::{Arc, LazyLock},
};
use tokio::task::spawn_blocking;

/// What a request gets of a resource, before any byte of it was read.
enum Plan {
    Send(Coding, Asked),
    NotModified(Coding),
    Failed,
}

impl Plan {
    fn of(resource: &Resource, method: &Method, headers: &HeaderMap) -> Self {
        let range = headers.get(header::RANGE).filter(|_| method == Method::GET).and_then(|range| range.to_str().ok());
        let coding = if resource.is_negotiated() {
            Accepted::of(headers).best(|coding| resource.offers(coding, range.is_none()))
        } else {
            Coding::Identity
        };
        let validators = &resource.head(coding).validators;
        match validators.verdict(headers) {
            Verdict::NotModified => Self::NotModified(coding),
            Verdict::Failed => Self::Failed,
            Verdict::Send => match (range, resource.size(coding)) {
                (Some(range), Some(size)) if validators.may_resume(headers, clock::wall()) => {
                    Self::Send(coding, range::asked(range, size))
                }
                (_, _) => Self::Send(coding, Asked::Whole),
            },
        }
    }
}

/// The response, if nothing has to be read for it.
pub(super) fn at_once(resource: &Resource, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    match Plan::of(resource, method, headers) {
        Plan::NotModified(coding) => Some(not_modified(resource, coding)),
        Plan::Failed => Some(failed()),
        Plan::Send(coding, Asked::Beyond) => Some(beyond(resource.size(coding).unwrap_or(0))),
        Plan::Send(coding, asked) => match resource.held(coding) {
            Held::Bytes(bytes) => Some(from_memory(resource, coding, &asked, &bytes, method)),
            Held::Nothing | Held::Running | Held::Pointless => None,
        },
    }
}

/// The bytes of a form.
enum Content {
    Memory(Bytes),
    Disk(File),
}

impl Folder {
    /// Reads what has to be read.
    pub(super) async fn send(
        &self,
        mut place: Place,
        method: &Method,
        headers: &HeaderMap,
        connection: &Arc<Connection>,
    ) -> Result<Response<Body>, NotFound> {
        if let Some(response) = at_once(&place.resource, method, headers) {
            return Ok(response);
        }
        if place.opened.is_none() {
            // In memory only in part: looked at anew, so that what is read belongs to what is said of it.
            self.reopen(&mut place).await?;
        }
        let (mut coding, asked) = match Plan::of(&place.resource, method, headers) {
            Plan::Send(coding, asked) => (coding, asked),
            // It has changed since.
            Plan::NotModified(coding) => return Ok(not_modified(&place.resource, coding)),
            Plan::Failed => return Ok(failed()),
        };
        if method == Method::HEAD
            && let Some(size) = place.resource.size(coding)
        {
            return Ok(head_only(&place.resource, coding, size));
        }
        let content = if place.resource.size(coding).is_some() {
            self.content(&place, coding).await
        } else {
            match self.compressed(&place, coding).await {
                Ok(Some(bytes)) => Ok(Content::Memory(bytes)),
                Ok(None) => {
                    coding = Coding::Identity;
                    self.content(&place, coding).await
                }
                Err(error) => Err(error),
            }
        };
        Ok(match content {
            Ok(Content::Memory(bytes)) => from_memory(&place.resource, coding, &asked, &bytes, method),
            Ok(Content::Disk(file)) => from_disk(&place.resource, coding, &asked, file, connection),
            Err(error) => {
                tracing::warn!(%error, "cannot read a file of a site");
                page(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be read.")
            }
        })
    }

    async fn reopen(&self, place: &mut Place) -> Result<(), NotFound> {
        match super::find::find(&self.rules, place.named.clone()).await? {
            Found::File(opened) => {
                let now = (clock::now(), clock::wall());
                place.resource = self.shelf.place(self.route, &place.path, &opened, &self.rules, now);
                place.opened = Some(opened);
                Ok(())
            }
            Found::Directory | Found::Listed(..) => Err(NotFound::Missing),
        }
    }

    /// A form that is a file: read if it is small, and kept.
    async fn content(&self, place: &Place, coding: Coding) -> io::Result<Content> {
        if let Held::Bytes(bytes) = place.resource.held(coding) {
            return Ok(Content::Memory(bytes));
        }
        let file = file_of(place.opened.as_deref(), coding)?;
        if !place.resource.is_small(file.stamp.size) {
            return Ok(Content::Disk(file.clone()));
        }
        let bytes = file.read_all().await?;
        self.shelf.hold(self.route, &place.path, &place.resource, coding, Held::Bytes(bytes.clone()));
        Ok(Content::Memory(bytes))
    }

    /// A form that is made on the fly, and kept. None: it is to be sent as it is.
    async fn compressed(&self, place: &Place, coding: Coding) -> io::Result<Option<Bytes>> {
        let resource: &Rc<Resource> = &place.resource;
        if let Held::Bytes(bytes) = resource.held(coding) {
            return Ok(Some(bytes));
        }
        let Some(compressing) = self.shelf.compressing(resource, coding) else { return Ok(None) };
        let plain = match resource.held(Coding::Identity) {
            Held::Bytes(bytes) => bytes,
            Held::Nothing | Held::Running | Held::Pointless => {
                file_of(place.opened.as_deref(), Coding::Identity)?.read_all().await?
            }
        };
        let made = spawn_blocking(move || compress::compress(coding, &plain)).await.map_err(io::Error::other)?;
        let held = made.clone().map_or(Held::Pointless, Held::Bytes);
        self.shelf.hold(self.route, &place.path, resource, coding, held);
        drop(compressing);
        Ok(made)
    }
}

fn file_of(opened: Option<&Opened>, coding: Coding) -> io::Result<&File> {
    let file = opened.and_then(|opened| opened.forms.get(coding.index())?.as_ref());
    file.ok_or_else(|| io::Error::other("a form of the file is not open"))
}

fn from_memory(resource: &Resource, coding: Coding, asked: &Asked, bytes: &Bytes, method: &Method) -> Response<Body> {
    let size = bytes.len() as u64;
    if method == Method::HEAD {
        return head_only(resource, coding, size);
    }
    // Parts are within the size of the file on the disk, of which these are the bytes.
    let slice = |start: u64, end: u64| {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        bytes.slice(place(start)..place(end))
    };
    let mut response = response(resource, coding);
    match asked {
        Asked::Whole => *response.body_mut() = Body::whole(bytes.clone()),
        Asked::Beyond => return beyond(size),
        Asked::Parts(parts) => {
            let segments = partial(&mut response, parts, size);
            let mut pieces = segments.into_iter().map(|segment| match segment {
                Segment::Text(text) => text,
                Segment::Part(part) => slice(part.start, part.end),
            });
            *response.body_mut() = Body::whole(match (pieces.next(), pieces.len()) {
                (Some(one), 0) => one,
                (first, _) => first.into_iter().chain(pieces).flatten().collect(),
            });
        }
    }
    response
}

fn from_disk(
    resource: &Resource,
    coding: Coding,
    asked: &Asked,
    file: File,
    connection: &Arc<Connection>,
) -> Response<Body> {
    let size = file.stamp.size;
    let mut response = response(resource, coding);
    let segments = match asked {
        Asked::Whole => VecDeque::from([Segment::Part(0..size)]),
        Asked::Beyond => return beyond(size),
        Asked::Parts(parts) => partial(&mut response, parts, size),
    };
    *response.body_mut() = Body::stream(Pieces::new(file, segments, connection));
    response
}

/// Makes a response one of parts. What its body is made of.
fn partial(response: &mut Response<Body>, parts: &Parts, size: u64) -> VecDeque<Segment> {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let said = |part: &std::ops::Range<u64>| format!("bytes {}-{}/{size}", part.start, part.end - 1);
    if let [part] = parts.as_slice() {
        if let Ok(said) = HeaderValue::from_str(&said(part)) {
            response.headers_mut().insert(header::CONTENT_RANGE, said);
        }
        return VecDeque::from([Segment::Part(part.clone())]);
    }
    // RFC 9110 §14.6.
    let boundary: &str = &BOUNDARY;
    let whole = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}"));
    let kind = match whole {
        Ok(whole) => response.headers_mut().insert(header::CONTENT_TYPE, whole),
        Err(_) => None,
    };
    let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or("application/octet-stream");
    let mut segments = VecDeque::new();
    for part in parts {
        let before = if segments.is_empty() { "" } else { "\r\n" };
        let head = format!("{before}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n", said(part));
        segments.push_back(Segment::Text(head.into()));
        segments.push_back(Segment::Part(part.clone()));
    }
    segments.push_back(Segment::Text(format!("\r\n--{boundary}--\r\n").into()));
    segments
}

/// Between parts. Nobody who makes a file can know it, so no file holds it.
static BOUNDARY: LazyLock<String> = LazyLock::new(|| {
    let (one, two) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
    format!("{one:016x}{two:016x}")
});

/// 200 with everything but body and length.
fn response(resource: &Resource, coding: Coding) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = resource.head(coding).headers.clone();
    response
}

fn head_only(resource: &Resource, coding: Coding, size: u64) -> Response<Body> {
    let mut response = response(resource, coding);
    response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    response
}

/// RFC 9110 §15.4.5: what a cache needs to bring its copy up to date, and nothing about bytes that do not come.
fn not_modified(resource: &Resource, coding: Coding) -> Response<Body> {
    let mut response = response(resource, coding);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ACCEPT_RANGES] {
        response.headers_mut().remove(name);
    }
    response
}

fn failed() -> Response<Body> {
    page(StatusCode::PRECONDITION_FAILED, "The page has changed.")
}

fn beyond(size: u64) -> Response<Body> {
    let mut response = page(StatusCode::RANGE_NOT_SATISFIABLE, "The page has no such part.");
    if let Ok(said) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, said);
    }
    response
}
