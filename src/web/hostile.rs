//! What visitors and proxies in front send, for `crate::hostile`: paths, ranges, conditions, PROXY headers, frames.

pub(crate) use super::files::hostile::{accept, accepts, conditions, many_conditions, pattern, patterns};
use super::{path, range};
use crate::config::DotFiles;
pub(crate) use crate::http::{
    flood::{eat as frames, samples as many_frames},
    proxy_header::{eat as proxy_header, samples as proxy_headers},
};
use std::path::Component;

/// A path names nothing outside a root, and means the same to the route and to the file.
pub(crate) fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // What is not a path does not get as far as this.
    let Ok(uri) = http::Uri::try_from(text.as_ref()) else { return };
    let asked = uri.path();
    let decoded = path::decoded(asked);
    if let Ok(decoded) = &decoded {
        assert!(decoded.len() <= asked.len());
        assert!(path::covers("/", decoded) == decoded.starts_with(b"/"));
    }
    for prefix in ["/", "/a", "/a/", "/a/b/"] {
        let rest = path::behind(prefix, asked);
        assert!(asked.ends_with(rest), "{rest} is the end of {asked}");
        if let Ok(named) = path::named(rest, DotFiles::Show) {
            let inside = named.path.components().all(|part| matches!(part, Component::Normal(_)));
            assert!(inside && !named.path.as_os_str().as_encoded_bytes().contains(&0), "{asked}: {named:?}");
            assert!(decoded.is_ok() || rest.len() < asked.len(), "no route, but a file: {asked}");
        }
    }
}

pub(crate) fn paths() -> Vec<Vec<u8>> {
    let long = format!("/{}", "a/%2e".repeat(500));
    ["/", "/a/b/c.html", "/a/%2e%2e/b", "/.well-known/x", "/a%2fb/", "http://h/a?b=%00#c", "*", &long]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// A part of a file lies within it. The size is in the first eight bytes.
pub(crate) fn range(bytes: &[u8]) {
    let Some((size, header)) = bytes.split_first_chunk() else { return };
    let (size, header) = (u64::from_be_bytes(*size), String::from_utf8_lossy(header));
    match range::asked(&header, size) {
        range::Asked::Parts(mut parts) => {
            parts.sort_by_key(|part| part.start);
            assert!(
                !parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= size),
                "{parts:?}"
            );
            assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start), "{header} of {size}: {parts:?}");
        }
        range::Asked::Whole | range::Asked::Beyond => {}
    }
}

pub(crate) fn ranges() -> Vec<Vec<u8>> {
    let headers = ["bytes=0-99", "bytes=5-", "bytes=-5", "bytes=0-1,5-6", "bytes=18446744073709551615-", "lines=1-2"];
    let sample = |header: &str, size: u64| [&size.to_be_bytes(), header.as_bytes()].concat();
    headers.iter().flat_map(|header| [0, 100, u64::MAX].map(|size| sample(header, size))).collect()
}
