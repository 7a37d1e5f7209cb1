//! Reads the path of a request: which route it belongs to, which file it names. Pure.
//!
//! A path is taken apart before it is decoded, so an encoded slash or dot never becomes a separator or a step upwards.
//! Dot segments are refused for every route: a client resolves them before it sends (RFC 3986 §5.2.4), and a server
//! behind a proxy may see another path in them than the proxy did.

use crate::config::DotFiles;
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

/// Why a path names no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It cannot be the path of any request of ours: dot segments, NUL.
    Malformed,
    /// It may name something, but nothing that is shown.
    Hidden,
}

/// What a path names below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Relative, without dot segments; empty for the root.
    pub(super) path: PathBuf,
    /// It ended with a slash.
    pub(super) directory: bool,
}

/// The path decoded, to look for a route.
pub(super) fn decoded(path: &str) -> Result<Cow<'_, [u8]>, Refusal> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    let wrong = |segment: &[u8]| matches!(segment, b"." | b"..") || segment.contains(&0);
    if decoded.split(|byte| *byte == b'/').any(wrong) { Err(Refusal::Malformed) } else { Ok(decoded) }
}

/// Whether `prefix` covers `path`: whole segments only.
pub(super) fn covers(prefix: &str, path: &[u8]) -> bool {
    let prefix = prefix.as_bytes();
    path.starts_with(prefix)
        && (prefix.ends_with(b"/") || path.len() == prefix.len() || path.get(prefix.len()) == Some(&b'/'))
        // `/docs/` also covers `/docs`, which then redirects.
        || prefix.strip_suffix(b"/").is_some_and(|prefix| !prefix.is_empty() && path == prefix)
}

/// What is left of `path` (not decoded) behind the prefix of its route, segment by segment.
pub(super) fn behind<'a>(prefix: &str, path: &'a str) -> &'a str {
    let depth = prefix.split('/').filter(|segment| !segment.is_empty()).count();
    let mut rest = path;
    for _ in 0..depth {
        rest = rest.strip_prefix('/').unwrap_or(rest);
        rest = rest.find('/').map_or("", |slash| &rest[slash..]);
    }
    rest
}

/// The file that `path` (not decoded, behind the route's prefix) names below a root.
///
/// Names that begin with a dot are hidden if that is wished, but for `.well-known` (RFC 8615).
pub(super) fn named(path: &str, dotfiles: DotFiles) -> Result<Named, Refusal> {
    let directory = path.ends_with('/');
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut named = Named { path: PathBuf::new(), directory };
    if inner.is_empty() {
        return Ok(named);
    }
    for (index, segment) in inner.split('/').enumerate() {
        let segment: Cow<'_, [u8]> = percent_decode_str(segment).into();
        match &*segment {
            b"." | b".." => return Err(Refusal::Malformed),
            bytes if bytes.contains(&0) => return Err(Refusal::Malformed),
            b".well-known" if index == 0 => {}
            bytes if bytes.is_empty() || bytes.contains(&b'/') => return Err(Refusal::Hidden),
            bytes if bytes.starts_with(b".") && dotfiles == DotFiles::Hide => return Err(Refusal::Hidden),
            _ => {}
        }
        named.path.push(OsStr::from_bytes(&segment));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn named(path: &str) -> Result<Named, Refusal> {
        super::named(path, DotFiles::Hide)
    }

    #[test]
    fn a_route_covers_whole_segments() {
        for (prefix, path, covered) in [
            ("/", "/", true),
            ("/", "/a", true),
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api/", "/api", true),
            ("/api/", "/api/x", true),
            ("/api/", "/apix", false),
        ] {
            assert_eq!(covers(prefix, path.as_bytes()), covered, "{prefix} {path}");
        }
    }

    #[test]
    fn the_prefix_of_a_route_is_cut_off_by_segments() {
        assert_eq!(behind("/", "/a/b"), "/a/b");
        assert_eq!(behind("/a", "/a/b"), "/b");
        assert_eq!(behind("/a", "/%61/b"), "/b");
        assert_eq!(behind("/a", "/a"), "");
        assert_eq!(behind("/a/b/", "/a/b/c/"), "/c/");
    }

    #[test]
    fn an_encoded_slash_is_no_separator() {
        assert_eq!(named("/a%2fb"), Err(Refusal::Hidden));
        assert_eq!(named("/..%2fetc"), Err(Refusal::Hidden));
        assert_eq!(named("/%2e%2e/etc"), Err(Refusal::Malformed));
        assert_eq!(named("/%252e%252e/etc").map(|named| named.path), Ok(PathBuf::from("%2e%2e/etc")));
    }

    #[test]
    fn names_with_a_dot_in_front_are_hidden() {
        assert_eq!(named("/.git/config"), Err(Refusal::Hidden));
        assert_eq!(named("/a/.well-known"), Err(Refusal::Hidden));
        assert!(named("/.well-known/acme-challenge/x").is_ok());
        assert!(super::named("/.git/config", DotFiles::Show).is_ok());
        assert_eq!(super::named("/.git/../x", DotFiles::Show), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn no_path_leads_upwards(path in "(/|%2f|\\.|%2e|%25|%00|a|\u{e4}|\\\\){0,24}") {
            if let Ok(named) = super::named(&path, DotFiles::Show) {
                prop_assert!(named.path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", named);
            }
        }
    }
}
