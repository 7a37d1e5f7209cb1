//! What of a message's head is passed on, and what is only between two neighbours (RFC 9110 §7.6.1). Pure.

use crate::http::Secure;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{self, Entry},
};
use std::net::IpAddr;

/// Meant for the next neighbour only.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Not for us, and a trap for what runs as CGI behind us (httpoxy).
    HeaderName::from_static("proxy"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The subject of the certificate that the client has shown and proved (RFC 4514); only we say it.
const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-subject");

/// What only a trusted proxy may say. Nobody is trusted yet, so what a client says of it is dropped.
const TRUSTED: [HeaderName; 9] = [
    CLIENT_SUBJECT,
    header::FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

/// Takes out what is only between two neighbours, with what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        // What frames or routes the message is not the client's to drop.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) ip: Option<IpAddr>,
    pub(super) secure: Option<&'a Secure>,
}

/// Makes the headers of a client's request those of ours. `host` is used if it brought none (HTTP/1.0).
pub(super) fn request(headers: &mut HeaderMap, uri: &Uri, client: Client<'_>, host: impl FnOnce() -> HeaderValue) {
    let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    strip(headers);
    join_cookies(headers);
    if trailers {
        // RFC 9110 §10.1.4: announced to the next one as coming from us.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    // hyper has answered `100-continue` as soon as the body is read.
    headers.remove(header::EXPECT);
    for name in &TRUSTED {
        headers.remove(name);
    }
    drop_disguised(headers);
    // RFC 9112 §3.2.2: the target's host wins over `Host`.
    if let Some(authority) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        headers.insert(header::HOST, authority);
    }
    let said = match headers.entry(header::HOST) {
        Entry::Occupied(said) => said.get().clone(),
        Entry::Vacant(none) => none.insert(host()).clone(),
    };
    headers.insert(FORWARDED_HOST, said);
    let proto = if client.secure.is_some() { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    if let Some(subject) = client.secure.and_then(|secure| secure.subject.as_ref()) {
        headers.insert(CLIENT_SUBJECT, subject.clone());
    }
    if let Some(peer) = client.ip.and_then(|peer| HeaderValue::from_str(&peer.to_canonical().to_string()).ok()) {
        headers.insert(FORWARDED_FOR, peer);
    }
}

/// Many servers take `_` for `-`: with it, the name of a trusted field would pass.
fn drop_disguised(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| name.as_str().contains('_')) {
        return;
    }
    let plain = |name: &HeaderName| name.as_str().replace('_', "-");
    let disguised = |name: &&HeaderName| {
        let plain = plain(name);
        name.as_str().contains('_') && TRUSTED.iter().any(|trusted| *trusted == plain.as_str())
    };
    let names: Vec<HeaderName> = headers.keys().filter(disguised).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

/// HTTP/2 may split the field; elsewhere it is one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(header::COOKIE, cookie);
        }
    }
}

/// The protocol that a request wants to change to. HTTP/2 is not asked for in this way any more (RFC 9113 §3.1), and
/// passing it on would let a client past the proxy.
pub(super) fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE).filter(|_| asked && version == Version::HTTP_11)?;
    let name = protocol.to_str().ok()?;
    (!name.is_empty() && !name.to_ascii_lowercase().contains("h2c")).then(|| protocol.clone())
}

/// Whether a request may be sent twice when nobody knows whether it arrived: it changes nothing (RFC 9110 §9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD || *method == Method::OPTIONS
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn forwarded(list: &[(&'static str, &'static str)], uri: &'static str) -> HeaderMap {
        let mut headers = headers(list);
        let client = Client { ip: Some([192, 0, 2, 7].into()), secure: None };
        request(&mut headers, &Uri::from_static(uri), client, || HeaderValue::from_static("s:1"));
        headers
    }

    #[test]
    fn what_a_client_says_of_its_certificate_is_replaced_in_every_spelling() {
        let said = [("host", "a"), ("x-client-subject", "CN=root"), ("x_client-subject", "CN=root"), ("my_own", "1")];
        let out = forwarded(&said.map(|(name, value)| (name, value)), "/");
        assert!(!out.contains_key("x-client-subject") && !out.contains_key("x_client-subject"), "{out:?}");
        assert!(out.contains_key("my_own"));
        let mut headers = headers(&[("host", "a"), ("x-client-subject", "CN=root")]);
        let secure = Secure { subject: Some(HeaderValue::from_static("CN=alice")) };
        let client = Client { ip: None, secure: Some(&secure) };
        request(&mut headers, &Uri::from_static("/"), client, || HeaderValue::from_static("s:1"));
        assert_eq!(headers.get_all("x-client-subject").iter().collect::<Vec<_>>(), ["CN=alice"]);
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn what_is_between_neighbours_is_not_passed_on() {
        let out = forwarded(
            &[
                ("host", "a"),
                ("connection", "close, X-Secret"),
                ("connection", "keep-alive, Host, content-length"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip"),
                ("proxy", "http://evil"),
                ("content-length", "3"),
                ("cookie", "c"),
            ],
            "/",
        );
        let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["content-length", "cookie", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        );
    }

    #[test]
    fn what_a_client_says_of_other_proxies_is_replaced() {
        let out = forwarded(&[("host", "a"), ("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")], "/");
        assert_eq!(out["x-forwarded-for"], "192.0.2.7");
        assert_eq!(out["x-forwarded-host"], "a");
        assert!(!out.contains_key("forwarded"));
    }

    #[test]
    fn a_client_cannot_drop_what_the_proxy_adds() {
        let out = forwarded(&[("host", "a"), ("connection", "x-forwarded-for, x-forwarded-host")], "/");
        assert_eq!(out["x-forwarded-for"], "192.0.2.7");
        assert_eq!(out["x-forwarded-host"], "a");
    }

    #[test]
    fn the_target_names_the_host_before_the_header_does() {
        assert_eq!(forwarded(&[("host", "a")], "http://b:81/x")["host"], "b:81");
        assert_eq!(forwarded(&[], "/")["host"], "s:1");
    }

    #[test]
    fn cookies_that_http2_has_split_are_one_field_again() {
        let out = forwarded(&[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")], "/");
        assert_eq!(out.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn trailers_are_announced_again() {
        let out = forwarded(&[("host", "a"), ("te", "gzip, trailers")], "/");
        assert_eq!((&out["te"], &out["connection"]), (&"trailers".parse().unwrap(), &"te".parse().unwrap()));
    }

    #[test]
    fn an_upgrade_to_http2_is_not_passed_on() {
        let asked = |name| upgrade(Version::HTTP_11, &headers(&[("connection", "Upgrade"), ("upgrade", name)]));
        assert!(asked("websocket").is_some());
        assert_eq!(asked("h2c"), None);
        assert_eq!(upgrade(Version::HTTP_11, &headers(&[("upgrade", "websocket")])), None);
    }
}
