//! What visitors send about a file they want, for `crate::hostile`: what they take, and what they have.

use super::{
    accept::{Accepted, Coding},
    types,
};
use crate::web::conditional::{Validators, Verdict};
use http::{HeaderMap, HeaderValue, header};
use std::time::{Duration, SystemTime};

/// A coding that is not there is never chosen, and one that is refused only if no other is there.
pub(crate) fn accept(bytes: &[u8]) {
    let Some((there, text)) = bytes.split_first() else { return };
    let Ok(value) = HeaderValue::from_bytes(text) else { return };
    let headers: HeaderMap = [(header::ACCEPT_ENCODING, value)].into_iter().collect();
    let offered = |coding: Coding| coding == Coding::Identity || there & (1 << coding.index()) != 0;
    let accepted = Accepted::of(&headers);
    let best = accepted.best(offered);
    assert!(offered(best), "{best:?} is not there");
    assert_eq!(accepted.best(|coding| coding == best || coding == Coding::Identity), best, "the best stays the best");
    assert_eq!(Accepted::default().best(offered), Coding::Identity, "who says nothing gets the file as it is");
}

pub(crate) fn accepts() -> Vec<Vec<u8>> {
    let texts = ["gzip, deflate, br, zstd", "*;q=0.5, identity;q=0", "br;q=0.001,gzip;q=1.000", "br;q=;,;;q=1", ""];
    texts.iter().flat_map(|text| [0, 2, 15].map(|there| [&[there], text.as_bytes()].concat())).collect()
}

/// Conditions are read without a panic, and mean what they mean alone. Lines of `name: value`.
pub(crate) fn conditions(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(16) {
        let (kind, value) = line.split_first().unwrap_or((&0, &[]));
        let name = match kind % 5 {
            0 => header::IF_NONE_MATCH,
            1 => header::IF_MATCH,
            2 => header::IF_MODIFIED_SINCE,
            3 => header::IF_UNMODIFIED_SINCE,
            _ => header::IF_RANGE,
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let file = Validators::of(10, modified, Some("br"));
    let verdict = file.verdict(&headers);
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        assert_ne!(verdict, Verdict::Failed, "nothing asked for that: {headers:?}");
    }
    if !headers.contains_key(header::IF_NONE_MATCH) && !headers.contains_key(header::IF_MODIFIED_SINCE) {
        assert_ne!(verdict, Verdict::NotModified, "nothing asked for that: {headers:?}");
    }
    let resumed = file.may_resume(&headers, modified + Duration::from_secs(100));
    assert!(resumed || headers.contains_key(header::IF_RANGE));
}

pub(crate) fn many_conditions() -> Vec<Vec<u8>> {
    let etag = "\"1797be0d8ab1f2c0-a-br\"";
    let date = "Tue, 14 Nov 2023 22:13:20 GMT";
    [
        format!("\0{etag}, W/\"x\"\n\u{1}*"),
        format!("\u{2}{date}\n\u{3}{date}"),
        format!("\u{4}{etag}"),
        format!("\u{4}{date}"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// A pattern of a configuration meets a path: an answer, whatever both are; and a star in front finds every end.
pub(crate) fn pattern(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let bytes = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    let (pattern, text) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    if types::matches(pattern, text) {
        assert!(types::matches(&[b"*", pattern].concat(), text));
        assert!(types::matches(&[pattern, b"*"].concat(), &[text, b"more"].concat()));
    }
    if !pattern.contains(&b'*') {
        assert_eq!(types::matches(pattern, text), pattern == text);
    }
}

pub(crate) fn patterns() -> Vec<Vec<u8>> {
    [(5, "*.cssa.css"), (9, "/assets/*/assets/a.js"), (8, "*a*a*a*aaaaaaaaaaaaab"), (0, "x"), (200, "**")]
        .map(|(cut, text): (u8, &str)| [&[cut], text.as_bytes()].concat())
        .to_vec()
}
