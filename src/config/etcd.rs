//! `[etcd]`: where the etcd is that is the third voter, and how it is spoken to.

use super::{
    draft::path,
    fault::{Report, Wrong, wrong},
    values,
    walk::{At, Section},
};
use crate::{cluster::Name, limits};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Port of etcd's clients, when none is written.
const PORT: u16 = 2379;
/// Where the keys begin, unless something else is written.
const PREFIX: &str = "/hawser";

/// `[etcd]`, read.
pub(super) struct Etcd {
    pub(super) endpoints: Vec<At<values::Endpoint>>,
    ca: Option<At<PathBuf>>,
    cert: Option<At<PathBuf>>,
    key: Option<At<PathBuf>>,
    prefix: Option<At<String>>,
}

pub(super) fn read(report: &mut Report, mut section: Section<'_>, dir: &Path) -> Etcd {
    let endpoints = section.list(report, "endpoints", limits::ETCD_ENDPOINTS_MAX, endpoint);
    section.missing(report, "endpoints", "write endpoints = [\"http://10.0.0.9:2379\"], every member of the etcd");
    let ca = section.parsed(report, "ca", |text| path(text, dir));
    let cert = section.parsed(report, "cert", |text| path(text, dir));
    let key = section.parsed(report, "key", |text| path(text, dir));
    let prefix = section.parsed(report, "prefix", prefix);
    let etcd = Etcd { endpoints: endpoints.unwrap_or_default(), ca, cert, key, prefix };
    agree(report, &etcd, &section);
    section.finish(report, &[]);
    etcd
}

/// What is written must fit together.
fn agree(report: &mut Report, etcd: &Etcd, section: &Section<'_>) {
    for (at, endpoint) in etcd.endpoints.iter().enumerate() {
        let same = |other: &&At<values::Endpoint>| other.value.address == endpoint.value.address;
        if let Some(other) = etcd.endpoints.iter().take(at).find(same) {
            let what = format!("{} is already there (line {})", endpoint.value.address, other.line);
            report.fault(endpoint.line, &format!("etcd.endpoints[{at}]"), wrong(what, "write each member once"));
        }
    }
    let secure = etcd.endpoints.iter().find(|endpoint| endpoint.value.tls);
    match (secure, &etcd.ca) {
        (Some(_), None) if !section.has("ca") => {
            let help = "write ca = \"etcd-ca.pem\", the certificate of the CA that signed etcd's";
            report.fault(section.line, "etcd", wrong("https is written, and no ca", help));
        }
        (None, Some(ca)) if !etcd.endpoints.is_empty() => {
            let what = "is for https, and no endpoint is";
            report.fault(ca.line, "etcd.ca", wrong(what, "write https:// in the endpoints, or leave it out"));
        }
        _ => {}
    }
    let pair = [("cert", &etcd.cert, "key", &etcd.key), ("key", &etcd.key, "cert", &etcd.cert)];
    for (has, one, lacks, other) in pair {
        if let (Some(one), None) = (one, other)
            && !section.has(lacks)
        {
            let place = section.place_of(has);
            report.fault(one.line, &place, wrong(format!("needs a {lacks}"), format!("write {lacks} beside it")));
        }
    }
    if let (Some(cert), None) = (&etcd.cert, secure)
        && !etcd.endpoints.is_empty()
    {
        let what = "is for https, and no endpoint is";
        report.fault(cert.line, "etcd.cert", wrong(what, "write https:// in the endpoints, or leave it out"));
    }
    if secure.is_none()
        && let Some(plain) = etcd.endpoints.iter().find(|endpoint| !endpoint.value.address.ip().is_loopback())
    {
        let what = "http is neither encrypted nor authenticated: who reaches etcd can take the addresses away";
        report.warn(plain.line, "etcd.endpoints", wrong(what, "write https:// with ca, cert and key"));
    }
}

pub(super) fn assemble(etcd: Etcd) -> values::Etcd {
    #[expect(clippy::expect_used, reason = "a constant that a test covers")]
    let name = Name::new("etcd").expect("`etcd` is a name");
    values::Etcd {
        name,
        endpoints: etcd.endpoints.into_iter().map(|endpoint| endpoint.value).collect(),
        ca: etcd.ca.map(|ca| ca.value),
        identity: etcd.cert.zip(etcd.key).map(|(cert, key)| (cert.value, key.value)),
        prefix: etcd.prefix.map_or_else(|| PREFIX.to_owned(), |prefix| prefix.value),
    }
}

/// `http://10.0.0.9:2379`, or with https.
fn endpoint(text: &str) -> Result<values::Endpoint, Wrong> {
    let example = "write a URL with an address, like \"http://10.0.0.9:2379\"";
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some((scheme, _)) => return Err(wrong(format!("{scheme} is not how etcd is spoken to"), example)),
        None => return Err(wrong(format!("\"{text}\" is no URL"), example)),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(wrong(format!("\"{text}\" has a path"), "etcd's own paths are known: write the address only"));
    }
    let bare = rest.trim_start_matches('[').trim_end_matches(']');
    let address = rest
        .parse::<SocketAddr>()
        .or_else(|_| bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)))
        .map_err(|_| wrong(format!("\"{rest}\" is not an address (names are not looked up)"), example))?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(wrong(format!("{address} is no machine's address"), example));
    }
    Ok(values::Endpoint { tls, address })
}

/// A prefix of keys: a path of names.
fn prefix(text: &str) -> Result<String, Wrong> {
    let plain = text.strip_suffix('/').unwrap_or(text);
    let name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let fine = plain.len() <= limits::ETCD_PREFIX_BYTES_MAX
        && plain.strip_prefix('/').is_some_and(|rest| rest.split('/').all(name));
    if fine {
        Ok(plain.to_owned())
    } else {
        Err(wrong(format!("\"{text}\" is not a prefix of keys"), "write something like \"/hawser\""))
    }
}
