//! Answers from a folder.
//!
//! The route's prefix is mounted on the folder: with `path = "/docs"` the file `/docs/a.html` is `a.html` below the
//! root.
//!
//! A request goes through four questions, each a module: what is named ([`find`], [`keep`] where the answer is in
//! memory), in which form it is taken ([`accept`]), whether the client has it already (`conditional`), and which part of
//! it is wanted (`range`).

mod accept;
mod body;
mod compress;
mod find;
#[cfg(any(test, feature = "hostile"))]
pub(crate) mod hostile;
mod keep;
mod listing;
mod send;
mod types;

pub(super) use keep::Shelf;

use super::path::{self, Named, Refusal};
use crate::{
    clock,
    config::Static,
    http::{Body, Connection, page, redirect},
    limits::PATH_BYTES_MAX,
    web::open::File,
};
use find::{Found, Opened};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use keep::Resource;
use percent_encoding::percent_decode_str;
use rustix::io::Errno;
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

/// A folder and how it is shown.
#[derive(Debug)]
pub(super) struct Folder {
    rules: Arc<Static>,
    /// The prefix of its route.
    prefix: String,
    /// Tells its paths from those of other routes on the shelf.
    route: usize,
    shelf: Rc<Shelf>,
}

/// What answers a request for a path.
enum Answer {
    File(Box<Place>),
    /// A directory, named without its slash.
    Directory,
    Listed(File, PathBuf),
}

/// A resource, and where it is on the shelf.
struct Place {
    path: Vec<u8>,
    named: Named,
    resource: Rc<Resource>,
    /// Its files, if they had to be opened to find that out.
    opened: Option<Box<Opened>>,
}

impl Folder {
    /// The folder of one route; `route` is different for each on this thread.
    pub(super) fn new(rules: Static, prefix: String, route: usize, shelf: Rc<Shelf>) -> Self {
        Self { rules: Arc::new(rules), prefix, route, shelf }
    }

    /// Answers a request.
    pub(super) async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        connection: &Arc<Connection>,
    ) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return not_allowed();
        }
        let rest = path::behind(&self.prefix, uri.path());
        // Nearly always: asked for a moment ago, and in memory. What is on the shelf is there under its decoded path.
        if !rest.contains('%')
            && let Some(resource) = self.shelf.fresh(self.route, rest.as_bytes(), clock::now())
            && let Some(response) = send::at_once(&resource, method, headers)
        {
            return response;
        }
        match self.look_up(rest).await {
            Ok(Answer::File(place)) => {
                self.send(*place, method, headers, connection).await.unwrap_or_else(NotFound::page)
            }
            Ok(Answer::Directory) => to_directory(uri),
            Ok(Answer::Listed(directory, path)) => {
                let is_top = path.as_os_str().is_empty();
                let shown = percent_decode_str(uri.path()).decode_utf8_lossy();
                listing::list((directory, path), &shown, is_top, &self.rules).await
            }
            Err(refusal) => refusal.page(),
        }
    }

    async fn look_up(&self, rest: &str) -> Result<Answer, NotFound> {
        let named = match path::named(rest, self.rules.dotfiles) {
            Ok(named) if named.path.as_os_str().len() <= PATH_BYTES_MAX => named,
            Ok(_) | Err(Refusal::Hidden) => return Err(NotFound::Missing),
            Err(Refusal::Malformed) => return Err(NotFound::Malformed),
        };
        let fallback = self.rules.fallback.as_ref().filter(|_| may_be_a_page(&named.path)).cloned();
        match (self.find(named).await, fallback) {
            (Err(NotFound::Missing), Some(path)) => self.find(Named { path, directory: false }).await,
            (found, _) => found,
        }
    }

    /// On the shelf, or below the root.
    async fn find(&self, named: Named) -> Result<Answer, NotFound> {
        let path = shelf_path(&named);
        if let Some(resource) = self.shelf.fresh(self.route, &path, clock::now()) {
            return Ok(Answer::File(Box::new(Place { path, named, resource, opened: None })));
        }
        match find::find(&self.rules, named.clone()).await? {
            Found::File(opened) => {
                let now = (clock::now(), clock::wall());
                let resource = self.shelf.place(self.route, &path, &opened, &self.rules, now);
                Ok(Answer::File(Box::new(Place { path, named, resource, opened: Some(opened) })))
            }
            Found::Directory => Ok(Answer::Directory),
            Found::Listed(directory, path) => Ok(Answer::Listed(directory, path)),
        }
    }
}

/// Under which name something is on the shelf: its path behind the prefix, decoded.
fn shelf_path(named: &Named) -> Vec<u8> {
    let name = named.path.as_os_str().as_bytes();
    let mut path = Vec::with_capacity(name.len() + 2);
    path.push(b'/');
    path.extend_from_slice(name);
    if named.directory && !name.is_empty() {
        path.push(b'/');
    }
    path
}

/// Whether an application may answer for a name that is not there: a script or an image that is missing is missing.
fn may_be_a_page(path: &Path) -> bool {
    path.file_name().is_none_or(|name| !name.as_bytes().contains(&b'.'))
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
    /// All error pages of files are made here: the place for pages of the site's own.
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
