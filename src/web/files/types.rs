//! What a file's name says about it: its media type, whether it is worth compressing, how long it may be kept. Pure.

use crate::config::Static;
use http::HeaderValue;
use std::{borrow::Cow, path::Path};

/// The media type of a file, by the name's extension. Text is taken as UTF-8; what the configuration says is taken as
/// it is written.
pub(super) fn content_type(name: &Path, rules: &Static) -> HeaderValue {
    let extension = name.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let Some(extension) = extension else { return HeaderValue::from_static("application/octet-stream") };
    if let Some(written) = rules.types.get(&extension).and_then(|written| HeaderValue::from_str(written).ok()) {
        return written;
    }
    match mime_guess::from_ext(&extension).first_raw() {
        Some("text/html") => HeaderValue::from_static("text/html; charset=utf-8"),
        Some("text/javascript" | "application/javascript") => {
            HeaderValue::from_static("text/javascript; charset=utf-8")
        }
        Some(text) if text.starts_with("text/") => HeaderValue::from_str(&format!("{text}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
        Some(other) => HeaderValue::from_static(other),
        None => HeaderValue::from_static("application/octet-stream"),
    }
}

/// Whether files of this type are text, or become much shorter all the same.
pub(super) fn is_compressible(kind: &HeaderValue) -> bool {
    const KINDS: [&str; 13] = [
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/rtf",
        "application/wasm",
        "application/x-sh",
        "application/xml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/x-icon",
        "image/vnd.microsoft.icon",
    ];
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = kind.as_str();
    // An event stream is not a file, and has to come as it is written.
    (kind.starts_with("text/") && kind != "text/event-stream")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || KINDS.contains(&kind)
}

/// The value of `Cache-Control` of a file, named below the root.
pub(super) fn cache_control(name: &Path, rules: &Static) -> Option<HeaderValue> {
    if rules.cache_control.is_empty() {
        return None;
    }
    let name = name.to_string_lossy();
    let last = name.rsplit('/').next().unwrap_or_default();
    let path: Cow<'_, str> = format!("/{name}").into();
    // The longest pattern is the first.
    let rule = rules.cache_control.iter().find(|(pattern, _)| {
        matches(pattern.as_bytes(), if pattern.starts_with('/') { path.as_bytes() } else { last.as_bytes() })
    });
    rule.and_then(|(_, value)| HeaderValue::from_str(value).ok())
}

/// Whether a cache or the server itself may change the coding (RFC 9111 §5.2.2.6).
pub(super) fn may_transform(cache_control: Option<&HeaderValue>) -> bool {
    let says = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    };
    !cache_control.is_some_and(says)
}

/// `*` stands for any bytes. In the time of the product of both lengths, whatever they are.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut star, mut from) = (0, None, 0);
    let mut read = 0;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some(at);
                from = read;
                at += 1;
            }
            Some(byte) if Some(byte) == text.get(read) => {
                at += 1;
                read += 1;
            }
            Some(_) | None => {
                let Some(star) = star else { return false };
                at = star + 1;
                from += 1;
                read = from;
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(cache_control: &[(&str, &str)], types: &[(&str, &str)]) -> Static {
        let owned = |list: &[(&str, &str)]| {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        let mut rules = Static::new("/".into());
        rules.cache_control = owned(cache_control);
        rules.types = owned(types).into_iter().collect();
        rules
    }

    #[test]
    fn a_star_stands_for_any_bytes() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("*.css", "a.css", true),
            ("*.css", "a.css.map", false),
            ("/assets/*", "/assets/a/b.js", true),
            ("/assets/*", "/assetsx", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxa", false),
            ("*aab", "aaaab", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn text_is_utf8_and_what_is_written_wins() {
        let rules = rules(&[], &[("txt", "text/x-mine"), ("data", "application/json")]);
        for (name, kind, compressible) in [
            ("a.html", "text/html; charset=utf-8", true),
            ("a.CSS", "text/css; charset=utf-8", true),
            ("a.js", "text/javascript; charset=utf-8", true),
            ("a.mjs", "text/javascript; charset=utf-8", true),
            ("a.svg", "image/svg+xml", true),
            ("a.json", "application/json", true),
            ("a.wasm", "application/wasm", true),
            ("a.png", "image/png", false),
            ("a.woff2", "font/woff2", false),
            ("a.gz", "application/gzip", false),
            ("a.txt", "text/x-mine", true),
            ("a.data", "application/json", true),
            ("a", "application/octet-stream", false),
        ] {
            let found = content_type(Path::new(name), &rules);
            assert_eq!(found, kind, "{name}");
            assert_eq!(is_compressible(&found), compressible, "{name}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_says_how_long_a_file_is_kept() {
        let rules = rules(&[("/assets/*.html", "a"), ("/assets/*", "b"), ("*.html", "c")], &[]);
        let of = |name: &str| cache_control(Path::new(name), &rules);
        assert_eq!(of("assets/x.html").unwrap(), "a");
        assert_eq!(of("assets/x.js").unwrap(), "b");
        assert_eq!(of("x/index.html").unwrap(), "c");
        assert_eq!(of("x.js"), None);
    }

    #[test]
    fn no_transform_is_found_among_other_words() {
        let may = |text: &'static str| may_transform(Some(&HeaderValue::from_static(text)));
        assert!(may_transform(None) && may("public, max-age=1"));
        assert!(!may("public, No-Transform") && !may("no-transform"));
    }
}
