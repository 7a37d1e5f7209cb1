//! Answers from a folder.
//!
//! The route's prefix is mounted on the folder: with `path = "/docs"` the file `/docs/a.html` is `a.html` below the
//! root.

use super::{
    conditional::{Validators, Verdict},
    open::{self, File},
    path::{self, Named, Refusal},
    range::{self, Asked},
};
use crate::{
    clock,
    http::{Body, page, redirect},
    limits::{FILE_WHOLE_BYTES_MAX, PATH_BYTES_MAX},
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use rustix::{fs::FileType, io::Errno};
use std::path::{Path, PathBuf};

/// A folder and how it is shown.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) index: Vec<String>,
    /// The prefix of its route.
    pub(super) prefix: String,
}

impl Folder {
    /// Answers a request.
    pub(super) async fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return not_allowed();
        }
        match self.find(uri).await {
            Ok(Found::File(file, name)) => send(file, &name, method, headers).await,
            Ok(Found::Directory) => to_directory(uri),
            Err(refusal) => refusal.page(),
        }
    }

    async fn find(&self, uri: &Uri) -> Result<Found, NotFound> {
        let rest = path::behind(&self.prefix, uri.path());
        let Named { path, directory } = match path::named(rest) {
            Ok(named) if named.path.as_os_str().len() <= PATH_BYTES_MAX => named,
            Ok(_) | Err(Refusal::Hidden) => return Err(NotFound::Missing),
            Err(Refusal::Malformed) => return Err(NotFound::Malformed),
        };
        if directory {
            return self.find_index(&path).await;
        }
        let file = open::open(&self.root, &path).await?;
        match file.kind {
            FileType::RegularFile => Ok(Found::File(file, path)),
            FileType::Directory => Ok(Found::Directory),
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(NotFound::Missing),
        }
    }

    async fn find_index(&self, directory: &Path) -> Result<Found, NotFound> {
        for name in &self.index {
            let path = directory.join(name);
            match open::open(&self.root, &path).await {
                Ok(file) if file.kind == FileType::RegularFile => return Ok(Found::File(file, path)),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotFound::Missing)
    }
}

enum Found {
    File(File, PathBuf),
    /// A directory, named without its slash.
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotFound {
    Missing,
    Malformed,
    Forbidden,
    /// The server's own fault: files exhausted, a disk that fails.
    Broken(Errno),
}

impl From<Errno> for NotFound {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::XDEV
            | Errno::NXIO
            | Errno::NODEV => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            other => Self::Broken(other),
        }
    }
}

impl NotFound {
    fn page(self) -> Response<Body> {
        match self {
            Self::Missing => page(StatusCode::NOT_FOUND, "There is nothing at this address."),
            Self::Malformed => page(StatusCode::BAD_REQUEST, "The address holds what no address may hold."),
            Self::Forbidden => page(StatusCode::FORBIDDEN, "This may not be read."),
            Self::Broken(error) => {
                tracing::warn!(%error, "cannot open a file of a site");
                page(StatusCode::SERVICE_UNAVAILABLE, "The page cannot be read at the moment.")
            }
        }
    }
}

fn not_allowed() -> Response<Body> {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "Pages can only be read: use GET or HEAD.");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Only the path, with a slash: it stays on the host that was asked, whatever the client said that this is. The path
/// begins with one slash, not two (`//host`), or it would not have named a directory.
fn to_directory(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        Ok(location) => redirect(location),
        Err(_) => NotFound::Malformed.page(),
    }
}

async fn send(file: File, name: &Path, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let validators = Validators::of(file.size, file.modified);
    let mut response = match validators.verdict(headers) {
        Verdict::Send => content(file, &validators, method, headers).await,
        Verdict::NotModified => status(StatusCode::NOT_MODIFIED),
        Verdict::Failed => return page(StatusCode::PRECONDITION_FAILED, "The page has changed."),
    };
    if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) {
        let out = response.headers_mut();
        let modified = httpdate::fmt_http_date(validators.modified);
        out.insert(header::ETAG, validators.etag);
        if let Ok(modified) = HeaderValue::from_str(&modified) {
            out.insert(header::LAST_MODIFIED, modified);
        }
        if response.status() != StatusCode::NOT_MODIFIED {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type(name));
        }
    }
    response
}

/// The bytes asked for.
async fn content(file: File, validators: &Validators, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let size = file.size;
    let wish = headers.get(header::RANGE).filter(|_| method == Method::GET).and_then(|range| range.to_str().ok());
    let asked = match wish {
        Some(range) if validators.may_resume(headers, clock::wall()) => range::asked(range, size),
        Some(_) | None => Asked::Whole,
    };
    let (part, code) = match asked {
        Asked::Whole => (0..size, StatusCode::OK),
        Asked::Part(part) => (part, StatusCode::PARTIAL_CONTENT),
        Asked::Beyond => return beyond(size),
    };
    let mut response = status(code);
    let out = response.headers_mut();
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    if code == StatusCode::PARTIAL_CONTENT {
        let said = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        if let Ok(said) = HeaderValue::from_str(&said) {
            out.insert(header::CONTENT_RANGE, said);
        }
    }
    if method == Method::HEAD {
        return response;
    }
    *response.body_mut() = if part.end - part.start <= FILE_WHOLE_BYTES_MAX {
        match file.read(part.start, part.end).await {
            Ok(bytes) => Body::whole(bytes),
            Err(error) => {
                tracing::warn!(%error, "cannot read a file of a site");
                return page(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be read.");
            }
        }
    } else {
        Body::stream(file.stream(part.start, part.end))
    };
    response
}

fn beyond(size: u64) -> Response<Body> {
    let mut response = page(StatusCode::RANGE_NOT_SATISFIABLE, "The page has no such part.");
    if let Ok(said) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, said);
    }
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// By the name's extension. Text is taken as UTF-8.
fn content_type(name: &Path) -> HeaderValue {
    let guess = name.extension().and_then(|extension| extension.to_str()).map(mime_guess::from_ext);
    match guess.and_then(|guess| guess.first_raw()) {
        Some("text/html") => HeaderValue::from_static("text/html; charset=utf-8"),
        Some("text/css") => HeaderValue::from_static("text/css; charset=utf-8"),
        Some("text/plain") => HeaderValue::from_static("text/plain; charset=utf-8"),
        Some("text/javascript" | "application/javascript") => {
            HeaderValue::from_static("text/javascript; charset=utf-8")
        }
        Some(text) if text.starts_with("text/") => HeaderValue::from_str(&format!("{text}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
        Some(other) => HeaderValue::from_static(other),
        None => HeaderValue::from_static("application/octet-stream"),
    }
}
