//! Lists a directory that has no index, where that is wished: folders first, then files, by name.

use crate::{
    config::{DotFiles, Static},
    http::{Body, page},
    limits::LISTING_ENTRIES_MAX,
    web::open::{File, Root, Wait},
};
use http::{HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rustix::{
    fs::{AtFlags, Dir, FileType, statat},
    io::Errno,
};
use std::{
    ffi::{CStr, OsStr},
    fmt::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::spawn_blocking;

/// What is not sent as it is in a segment of a path (RFC 3986 §3.3), and what means something to HTML.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The page. `shown` is the path of the request, decoded, to be told to people; `is_top` that of the route itself.
pub(super) async fn list(directory: (File, PathBuf), shown: &str, is_top: bool, rules: &Arc<Static>) -> Response<Body> {
    let rules = Arc::clone(rules);
    let read = spawn_blocking(move || entries(&directory.0, &directory.1, &rules)).await;
    match read {
        Ok(Ok((entries, more))) => {
            let mut response = Response::new(Body::whole(html(shown, is_top, &entries, more)));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Ok(Err(Errno::ACCESS | Errno::PERM)) => page(StatusCode::FORBIDDEN, "This may not be read."),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot list a folder of a site");
            page(StatusCode::INTERNAL_SERVER_ERROR, "The folder could not be read.")
        }
        Err(error) => {
            tracing::warn!(%error, "cannot list a folder of a site");
            page(StatusCode::INTERNAL_SERVER_ERROR, "The folder could not be read.")
        }
    }
}

/// Something in a directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    /// None for a folder.
    size: Option<u64>,
    modified: SystemTime,
}

/// What is shown of a directory, sorted, and whether there is more. What could not be fetched is left out: other kinds
/// of files, and links where they are not followed or lead nowhere.
fn entries(directory: &File, path: &Path, rules: &Static) -> Result<(Vec<Entry>, bool), Errno> {
    let root = Root::open(&rules.root, rules.symlinks, Wait::Disk)?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory.fd())? {
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(name, rules) {
            continue;
        }
        if entries.len() == LISTING_ENTRIES_MAX {
            sort(&mut entries);
            return Ok((entries, true));
        }
        entries.extend(look_at(directory, name).or_else(|| look_behind(&root, path, name)));
    }
    sort(&mut entries);
    Ok((entries, false))
}

fn is_hidden(name: &CStr, rules: &Static) -> bool {
    match (name.to_bytes(), rules.dotfiles) {
        (b"." | b"..", _) => true,
        (name, DotFiles::Hide) => name.starts_with(b"."),
        (_, DotFiles::Show) => false,
    }
}

/// A file or a folder.
fn look_at(directory: &File, name: &CStr) -> Option<Entry> {
    let stat = statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Entry::of(name, FileType::from_raw_mode(stat.st_mode), size, SystemTime::UNIX_EPOCH + seconds)
}

/// A link to one, by the same way as a request for it would go: nothing is told of what may not be fetched.
fn look_behind(root: &Root, path: &Path, name: &CStr) -> Option<Entry> {
    let file = root.file(&path.join(OsStr::from_bytes(name.to_bytes()))).ok()?;
    Entry::of(name, file.kind, file.stamp.size, file.stamp.modified)
}

impl Entry {
    fn of(name: &CStr, kind: FileType, size: u64, modified: SystemTime) -> Option<Self> {
        let size = match kind {
            FileType::RegularFile => Some(size),
            FileType::Directory => None,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return None,
        };
        Some(Self { name: name.to_bytes().to_owned(), size, modified })
    }
}

fn sort(entries: &mut [Entry]) {
    entries.sort_by(|one, other| (one.size.is_some(), &one.name).cmp(&(other.size.is_some(), &other.name)));
}

fn html(shown: &str, is_top: bool, entries: &[Entry], more: bool) -> String {
    let title = escaped(shown);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><h1>{title}</h1><table>\n"
    );
    if !is_top {
        page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for entry in entries {
        let slash = if entry.size.is_none() { "/" } else { "" };
        // `./`: a name with a colon is no scheme.
        let link = percent_encode(&entry.name, SEGMENT);
        let name = escaped(&String::from_utf8_lossy(&entry.name));
        let size = entry.size.map_or_else(String::new, |size| size.to_string());
        let modified = httpdate::fmt_http_date(entry.modified);
        let line = writeln!(page, "<tr><td><a href=\"./{link}{slash}\">{name}{slash}</a><td>{size}<td>{modified}");
        debug_assert!(line.is_ok(), "a string takes everything");
    }
    page.push_str("</table>");
    if more {
        page.push_str("<p>There are more, which are not listed.</p>");
    }
    page.push_str("</html>\n");
    page
}

/// What means something to HTML, written so that it does not.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], size: Option<u64>) -> Entry {
        Entry { name: name.to_owned(), size, modified: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn no_name_means_anything_to_html() {
        let nasty = b"<img src=x onerror='alert(1)'>\"&\n\xff";
        let page = html("/<script>/", false, &[entry(nasty, Some(1))], false);
        assert!(!page.contains("<img") && !page.contains("<script>") && !page.contains("'alert"));
        assert!(page.contains("./%3Cimg%20src=x%20onerror=%27alert(1)%27%3E%22%26%0A%FF\""), "{page}");
        assert!(page.contains("href=\"../\"") && !html("/", true, &[], false).contains("../"));
    }

    #[test]
    fn folders_come_first_and_then_names_in_order() {
        let mut entries = [entry(b"b", Some(1)), entry(b"a", Some(2)), entry(b"z", None), entry(b"y", None)];
        sort(&mut entries);
        assert_eq!(entries.map(|entry| entry.name), [b"y", b"z", b"a", b"b"]);
    }
}
